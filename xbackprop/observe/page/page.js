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
    bringIntoView(article.querySelector(".figure"), frame);
  }

  // Where the figure is larger than its window, what is lit moves to the middle; where that is too
  // much, what is computed.
  function bringIntoView(figure, frame) {
    const lit = find(".lit", figure);
    const computed = new Set(find(".formula", frame).map((formula) => formula.dataset.symbol));
    let box = around(lit.length ? lit : find("svg", figure));
    if (box.width > figure.clientWidth || box.height > figure.clientHeight) {
      const first = lit.filter((mark) => computed.has(mark.dataset.symbol));
      if (first.length) box = around(first);
    }
    const seen = figure.getBoundingClientRect();
    figure.scrollBy(
      lit.length ? box.left + box.width / 2 - seen.left - seen.width / 2 : 0,
      box.top + box.height / 2 - seen.top - seen.height / 2,
    );
  }

  function around(marks) {
    const boxes = marks.map((mark) => mark.getBoundingClientRect());
    const left = Math.min(...boxes.map((box) => box.left));
    const top = Math.min(...boxes.map((box) => box.top));
    const width = Math.max(...boxes.map((box) => box.right)) - left;
    const height = Math.max(...boxes.map((box) => box.bottom)) - top;
    return { left, top, width, height };
  }

  function showAll(isAll) {
    root.classList.toggle("stepping", !isAll);
    all.setAttribute("aria-pressed", String(isAll));
  }

  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  document.addEventListener("keydown", (event) => {
    const isPlain = !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey);
    if (!isPlain || !(event.key in moves) || !root.classList.contains("stepping")) return;
    show(current + moves[event.key]);
    event.preventDefault(); // where the slider has the focus, it would move once more
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
