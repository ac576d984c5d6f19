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

// `chosen(row)`: whether it is marked. The roles stay when rows are shown as cards,
// which takes them from `table` otherwise.
export function table({ label, columns, rows, key, empty, params = null, chosen = null }) {
  const line = (row) => html`<tr role="row" aria-current=${chosen?.(row) ? "true" : nothing}>
    ${columns.map((column) => html`<td role="cell" data-label=${column.name} class=${column.className ?? nothing}>${column.cell(row)}</td>`)}
  </tr>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table class="rows" role="table" aria-label=${label}>
      <thead role="rowgroup"><tr role="row">${columns.map((column) => heading(column, params ?? {}))}</tr></thead>
      <tbody role="rowgroup">${rows.length
        ? repeat(rows, key, line)
        : html`<tr role="row"><td role="cell" class="empty" colspan=${columns.length}>${empty}</td></tr>`}</tbody>
    </table>
  </div>`;
}
