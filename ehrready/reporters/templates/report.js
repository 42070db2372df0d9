"use strict";
// Filters, order and printing of the findings; without this script everything is shown, worst first.
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  tools.hidden = false;
  const groups = [...document.querySelectorAll(".group")];
  const cards = [...document.querySelectorAll(".card")];
  const shown = document.getElementById("shown");

  const before = (order) => (a, b) => {
    if (order === "element" && a.dataset.element !== b.dataset.element) return a.dataset.element < b.dataset.element ? -1 : 1;
    if (order === "n" || order === "patients") return b.dataset[order] - a.dataset[order] || a.dataset.place - b.dataset.place;
    return a.dataset.place - b.dataset.place;
  };

  const apply = () => {
    const keys = ["status", "severity", "owner"].filter((key) => tools.elements[key].value);
    for (const card of cards) card.hidden = keys.some((key) => card.dataset[key] !== tools.elements[key].value);
    for (const group of groups) {
      const mine = [...group.querySelectorAll(".card")];
      group.hidden = mine.every((card) => card.hidden);
      group.append(...mine.sort(before(tools.elements.order.value)));
    }
    const count = cards.filter((card) => !card.hidden).length;
    shown.value = count === cards.length ? `${count} findings` : `${count} of ${cards.length} findings`;
  };

  tools.addEventListener("change", apply);
  tools.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("print-work").addEventListener("click", () => {
    document.body.classList.add("work");
    window.print();
    document.body.classList.remove("work");
  });
  // a browser may restore the choices of the last visit
  apply();
})();
