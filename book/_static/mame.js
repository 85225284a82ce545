// Two small repairs, no dependency, no network.
document.addEventListener("DOMContentLoaded", () => {
  // The widget manager speaks MathJax 2; the page has MathJax 3.
  const mj = window.MathJax;
  if (mj && mj.version && !mj.Hub) {
    mj.Hub = {
      Queue: (...calls) => calls.forEach((call) =>
        mj.startup.promise.then(() => mj.typesetPromise([call[2]])).catch(() => {})),
    };
  }
  // Names for screen readers: sliders, play buttons, scrollable code and formulas.
  const label = () => {
    document.querySelectorAll("[role=slider]:not([aria-label])").forEach((handle) => {
      const box = handle.closest(".jupyter-widgets, .widget-inline-hbox");
      const text = box && box.querySelector(".widget-label");
      if (text && text.textContent) handle.setAttribute("aria-label", text.textContent);
    });
    document.querySelectorAll(".widget-play").forEach((play) =>
      play.querySelectorAll("button:not([aria-label])").forEach((button, i) =>
        button.setAttribute("aria-label", ["Play or pause", "Stop", "Repeat"][i] || "Control")));
  };
  label();
  if (document.querySelector("script[type='application/vnd.jupyter.widget-state+json']")) {
    new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
  }
});
