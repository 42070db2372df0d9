"use strict";
// Filters, order and printing of the findings; without this script everything is shown, worst first.
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  tools.hidden = false;
  const findings = JSON.parse(document.getElementById("scorecard").textContent).findings;
  const groups = [...document.querySelectorAll(".group")];
  const cards = [...document.querySelectorAll(".card")];
  const place = new Map(cards.map((card, number) => [card, number]));
  const shown = document.getElementById("shown");
  const finding = (card) => findings[card.id.slice(1)];

  const before = (key) => (a, b) => {
    const [x, y] = [finding(a)[key], finding(b)[key]];
    if (key === "element" && x !== y) return x < y ? -1 : 1;
    if (key === "numerator" || key === "patients") return (y || 0) - (x || 0) || place.get(a) - place.get(b);
    return place.get(a) - place.get(b);
  };

  const apply = () => {
    const keys = ["status", "severity", "owner"].filter((key) => tools.elements[key].value);
    for (const card of cards) card.hidden = keys.some((key) => finding(card)[key] !== tools.elements[key].value);
    for (const group of groups) {
      const mine = [...group.querySelectorAll(".card")];
      group.hidden = mine.every((card) => card.hidden);
      group.append(...mine.sort(before(tools.elements.order.value)));
    }
    const count = cards.filter((card) => !card.hidden).length;
    const of = count === cards.length ? "" : ` of ${cards.length}`;
    shown.value = `${count}${of} finding${cards.length === 1 ? "" : "s"}`;
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
