// Texts that differ too little from what is behind them, as WCAG 2.2 AA measures it: 4.5,
// and 3 for large ones and for the parts of pictures.
(() => {
  const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return c.startsWith("color(srgb") ? [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1] : [m[0], m[1], m[2], m[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
  const behind = (el) => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const problems = [];
  const check = (what, colour, back, least) => {
    const got = ratio(over(parse(colour), back), back);
    if (got < least) problems.push(what + ": " + got.toFixed(2) + ", want " + least);
  };
  for (const el of document.querySelectorAll("body *")) {
    const style = getComputedStyle(el), box = el.getBoundingClientRect();
    if (style.visibility === "hidden" || !box.width || !box.height || el.closest(".unseen,thead") && box.width <= 1) continue;
    const where = el.tagName + "." + (el.getAttribute("class") || "") + " " + (el.closest("tbody")?.id || "");
    if ([...el.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) {
      const px = parseFloat(style.fontSize), large = px >= 24 || px >= 18.66 && style.fontWeight >= 700;
      check(where + " " + el.textContent.trim().slice(0, 30), style.color, behind(el), large ? 3 : 4.5);
    }
    if (el.tagName === "INPUT" && el.placeholder) check(where + " placeholder", getComputedStyle(el, "::placeholder").color, behind(el), 4.5);
    if (el.tagName === "INPUT" && el.type === "search") check(where + " border", style.borderTopColor, behind(el.parentElement), 3);
    if (el instanceof SVGElement && el.ownerSVGElement && style.fill !== "none" && el.getAttribute("class") !== "limit" && el.getAttribute("class") !== "used") check(where, style.fill, behind(el.ownerSVGElement), 3);
  }
  return problems;
})()
