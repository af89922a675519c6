// What reaches beyond the screen's right edge, unless something cuts it off.
[document.documentElement.scrollWidth > innerWidth ? "the page has " + document.documentElement.scrollWidth + " px" : "",
  ...[...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
    .filter((e) => { for (; e; e = e.parentElement) if (getComputedStyle(e).clipPath !== "none") return false; return true; })
    .map((e) => e.tagName + "." + e.getAttribute("class") + " " + e.textContent.trim().slice(0, 40))].filter(Boolean).slice(0, 10)
