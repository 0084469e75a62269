"use strict";
// The table of many pairs: sorted by any column, filtered by state and name.

const body = document.querySelector("#pairs tbody");
const rows = [...body.rows];
const sortBy = document.getElementById("sort");
const show = document.getElementById("show");
const filter = document.getElementById("filter");
const heads = [...document.querySelectorAll("#pairs thead button")];
const columnOf = new Map(heads.map((head) => [head.dataset.sort, head.parentElement.cellIndex]));
const worseOf = new Map(heads.map((head) => [head.dataset.sort, head.dataset.worse || ""]));
let descending = false;

function keyOf(row, name) {
  if (name === "name") return row.dataset.name;
  const text = row.cells[columnOf.get(name)].dataset.value;
  return text === "" ? null : Number(text);
}

// Pairs without a value stay at the end, whichever way the others go.
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return descending ? -order : order;
}

function sort() {
  const name = sortBy.value;
  let sorted = descending && name === "" ? [...rows].reverse() : rows;
  if (name !== "") {
    const keyed = rows.map((row) => [keyOf(row, name), row]);
    sorted = keyed.sort((x, y) => compare(x[0], y[0])).map((pair) => pair[1]);
  }
  body.append(...sorted);
  for (const head of heads) {
    const cell = head.parentElement;
    if (head.dataset.sort === name) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}

function choose(name) {
  if (sortBy.value === name) descending = !descending;
  else descending = worseOf.get(name) === "high";
  sortBy.value = name;
  sort();
}

function narrow() {
  const state = show.value, text = filter.value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    const fits = state === "" || (state === "outlier" ? "outlier" in row.dataset : row.dataset.state === state);
    row.hidden = !(fits && row.dataset.name.toLowerCase().includes(text));
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} pairs`;
}

for (const button of document.querySelectorAll("button[data-sort]")) {
  button.addEventListener("click", () => choose(button.dataset.sort));
}
sortBy.addEventListener("change", () => { descending = worseOf.get(sortBy.value) === "high"; sort(); });
document.getElementById("turn").addEventListener("click", () => { descending = !descending; sort(); });
show.addEventListener("change", narrow);
filter.addEventListener("input", narrow);
