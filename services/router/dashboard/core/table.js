// Tables: sortable by their columns, cards on a narrow screen.
//
// A column: { name, title?, cell(row), sort?(row), className? }. `sort` gives a number
// or a text; columns without it cannot be sorted.

import { change } from "./address.js";
import { html, nothing, repeat } from "./html.js";

export function sorted(rows, columns, params) {
  const column = columns.find(({ name, sort }) => sort && name === params.sort);
  if (!column) return rows;
  const sign = params.order === "desc" ? -1 : 1;
  return [...rows].sort((a, b) => sign * compare(column.sort(a), column.sort(b)));
}

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}

// Rows that have the text in one of the given fields.
export function searched(rows, text, fields) {
  const wanted = (text ?? "").trim().toLowerCase();
  if (!wanted) return rows;
  return rows.filter((row) => fields.some((field) => String(row[field] ?? "").toLowerCase().includes(wanted)));
}

function heading({ name, sort, title, className }, params) {
  if (!sort) return html`<th role="columnheader" scope="col" class=${className ?? nothing} title=${title ?? nothing}>${name}</th>`;
  const chosen = params.sort === name;
  const order = chosen && params.order !== "desc" ? "desc" : "asc";
  const now = params.order === "desc" ? "descending" : "ascending";
  return html`<th role="columnheader" scope="col" class=${className ?? nothing} title=${title ?? nothing} aria-sort=${chosen ? now : nothing}>
    <button type="button" class="sort" @click=${() => change({ sort: name, order })}>${name}</button></th>`;
}

const MANY = 60; // rows of a table that is drawn every second
const PARTS = 8; // of the rows out of sight, one is drawn each time
const MARGIN = 5; // rows around those in sight

let draws = 0;
let before = new Map(); // what was drawn, by the row's key

// Whether a row can be seen, by its index. All can before the first draw.
function inSight(label) {
  const body = document.querySelector(`.scroll[aria-label="${label}"] tbody`);
  const { top = 0, height = 0 } = body?.getBoundingClientRect() ?? {};
  if (!height) return () => true;
  const rows = body.rows.length / height;
  return (index) => index > -top * rows - MARGIN && index < (innerHeight - top) * rows + MARGIN;
}

// Drawing 200 rows takes a browser 60 ms, so rows out of sight take turns. For the others,
// what was drawn last is returned again, which changes nothing in the document.
function inTurns(label, rows, key, line) {
  const seen = inSight(label);
  const now = new Map();
  draws += 1;
  const turns = rows.map((row, index) => {
    const due = seen(index) || (index + draws) % PARTS === 0;
    const drawn = (!due && before.get(key(row))) || line(row);
    now.set(key(row), drawn);
    return drawn;
  });
  before = now;
  return repeat(rows, key, (_, index) => turns[index]);
}

// `often`: drawn every second; a view has one such table at most. `chosen(row)`: whether
// it is marked. The roles stay when rows are shown as cards, which takes them from `table`
// otherwise.
export function table({ label, columns, rows, key, empty, params = null, chosen = null, often = false }) {
  const line = (row) => html`<tr role="row" aria-current=${chosen?.(row) ? "true" : nothing}>
    ${columns.map((column) => html`<td role="cell" data-label=${column.name} class=${column.className ?? nothing}>${column.cell(row)}</td>`)}
  </tr>`;
  const lines = () => (often && rows.length > MANY ? inTurns(label, rows, key, line) : repeat(rows, key, line));
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table class="rows" role="table" aria-label=${label}>
      <thead role="rowgroup"><tr role="row">${columns.map((column) => heading(column, params ?? {}))}</tr></thead>
      <tbody role="rowgroup">${rows.length
        ? lines()
        : html`<tr role="row"><td role="cell" class="empty" colspan=${columns.length}>${empty}</td></tr>`}</tbody>
    </table>
  </div>`;
}
