// What is pressed with a finger and has fewer than 24 px.
[...document.querySelectorAll("main a[aria-expanded], input, label, button, summary")]
  .filter((e) => !e.closest("noscript"))
  .filter((e) => !(e.type === "checkbox" && e.closest("label").getBoundingClientRect().height >= 24))
  .filter((e) => { const r = e.getBoundingClientRect(); return r.width && (r.width < 24 || r.height < 24); })
  .map((e) => e.tagName + " " + e.textContent + " " + e.getBoundingClientRect().height)
