"use strict";
// Walks through the frames. Without it everything is shown in sequence.
(() => {
  const find = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;
  const [slider, status, all] = ["slider", "status", "all"].map((id) => document.getElementById(id));
  const frames = find(".frame");
  let current = 0;

  function show(number) {
    current = Math.max(0, Math.min(frames.length - 1, number));
    const frame = frames[current];
    const article = frame.closest("article");
    const lights = new Set(JSON.parse(frame.dataset.lights));
    frames.forEach((each) => each.classList.toggle("current", each === frame));
    find("article").forEach((each) => each.classList.toggle("current", each === article));
    for (const mark of find("[data-symbol]", article.querySelector("svg"))) {
      mark.classList.toggle("later", Number(mark.dataset.since || 0) > current);
      mark.classList.toggle("lit", lights.has(mark.dataset.symbol));
    }
    article.classList.toggle("has-lights", lights.size > 0);
    slider.value = current;
    status.textContent = `${current + 1} / ${frames.length}  ${frame.dataset.title}`;
    slider.setAttribute("aria-valuetext", status.textContent);
    bringIntoView(article.querySelector(".figure"));
  }

  // Where the figure is larger than its window, what is lit moves to the middle.
  function bringIntoView(figure) {
    const boxes = find(".lit", figure).map((mark) => mark.getBoundingClientRect());
    if (!boxes.length) return;
    const frame = figure.getBoundingClientRect();
    const left = Math.min(...boxes.map((box) => box.left));
    const right = Math.max(...boxes.map((box) => box.right));
    const top = Math.min(...boxes.map((box) => box.top));
    const bottom = Math.max(...boxes.map((box) => box.bottom));
    figure.scrollBy(
      (left + right - frame.left - frame.right) / 2,
      (top + bottom - frame.top - frame.bottom) / 2,
    );
  }

  function showAll(isAll) {
    root.classList.toggle("stepping", !isAll);
    all.setAttribute("aria-pressed", String(isAll));
  }

  const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 };
  document.addEventListener("keydown", (event) => {
    const isPlain = !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey);
    if (!isPlain || event.target === slider || !root.classList.contains("stepping")) return;
    const move = moves[event.key];
    if (move) show(current + move);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(frames.length - 1);
    else return;
    event.preventDefault();
  });
  slider.max = frames.length - 1;
  slider.addEventListener("input", () => {
    showAll(false);
    show(Number(slider.value));
  });
  for (const [id, move] of [["previous", -1], ["next", 1]]) {
    document.getElementById(id).addEventListener("click", () => {
      showAll(false);
      show(current + move);
    });
  }
  all.addEventListener("click", () => showAll(root.classList.contains("stepping")));
  document.querySelector(".controls").hidden = false;
  showAll(false);
  show(0);
})();
