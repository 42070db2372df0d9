"use strict";
// Filters, order and printing of the findings; without this script everything is shown, worst first.
(() => {
  // browsers that do not know ::details-content print what is open
  let shut = [];
  addEventListener("beforeprint", () => {
    shut = [...document.querySelectorAll("details:not(.data):not([open])")];
    for (const one of shut) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of shut) one.open = false;
  });
  // a link to a finding that is folded away opens what it is in
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();

  const tools = document.getElementById("tools");
  if (!tools) return;
  tools.hidden = false;
  const findings = JSON.parse(document.getElementById("scorecard").textContent).findings;
  const groups = [...document.querySelectorAll(".group")];
  const cards = [...document.querySelectorAll(".card")];
  const place = new Map(cards.map((card, number) => [card, number]));
  const shown = document.getElementById("shown");
  const finding = (card) => findings[card.id.slice(1)];
  const top = (group) => group.querySelector(":scope > .card:not([hidden])") || group.querySelector(".card");

  const before = (key) => (a, b) => {
    const [x, y] = [finding(a)[key], finding(b)[key]];
    if (key === "element" && x !== y) return x < y ? -1 : 1;
    if (key === "numerator" || key === "patients") return (y || 0) - (x || 0) || place.get(a) - place.get(b);
    return place.get(a) - place.get(b);
  };

  const apply = () => {
    const keys = ["status", "severity", "owner"].filter((key) => tools.elements[key].value);
    const fits = (card) => keys.every((key) => finding(card)[key] === tools.elements[key].value);
    // a finding stays when one of those under it fits
    for (const card of cards) {
      card.hidden = ![card, ...card.querySelectorAll(".card")].some(fits);
      const folded = keys.length && fits(card) && card.parentElement.closest("details");
      if (folded) folded.open = true; // what was asked for is seen
    }
    const order = before(tools.elements.order.value);
    for (const group of groups) {
      const mine = [...group.querySelectorAll(":scope > .card")];
      group.hidden = mine.every((card) => card.hidden);
      group.append(...mine.sort(order));
    }
    if (groups.length) {
      const mark = document.createComment("groups");
      groups[0].before(mark);
      groups.sort((a, b) => order(top(a), top(b)));
      mark.replaceWith(...groups);
    }
    const count = cards.filter(fits).length;
    const of = count === cards.length ? "" : ` of ${cards.length}`;
    shown.value = `${count}${of} finding${cards.length === 1 ? "" : "s"}`;
  };

  tools.addEventListener("change", apply);
  tools.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("print-work").addEventListener("click", () => {
    document.body.classList.add("only");
    window.print();
    document.body.classList.remove("only");
  });
  // a browser may restore the choices of the last visit
  apply();
})();
