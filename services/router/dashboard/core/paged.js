// Rows of a history, page by page. The first page follows what happens, until the
// reader asks for older rows.

import { json, withQuery } from "./api.js";

export class Paged {
  rows = [];
  problem = ""; // why older rows could not be read
  #path;
  #latest = null; // asked for last, answered or not
  #asked = null;
  #cursor = null;
  #older = false;

  constructor(path) {
    this.#path = path;
  }

  get hasOlder() {
    return this.#cursor !== null;
  }

  async load(filters) {
    const asked = withQuery(this.#path, { ...filters, limit: 50 });
    if (asked === this.#asked && (this.#older || selecting())) return this;
    this.#latest = asked;
    const { data, next_cursor: cursor } = await json(asked);
    if (asked !== this.#latest) return this; // other filters were asked for meanwhile
    this.rows = data;
    this.problem = "";
    this.#asked = asked;
    this.#cursor = cursor;
    this.#older = false;
    return this;
  }

  async older() {
    try {
      const { data, next_cursor: cursor } = await json(`${this.#asked}&cursor=${encodeURIComponent(this.#cursor)}`);
      this.rows = [...this.rows, ...data];
      this.problem = "";
      this.#cursor = cursor;
      this.#older = true;
    } catch (error) {
      this.problem = error.message;
    }
  }
}

// Is the reader selecting text of the page? New rows would move it.
export function selecting() {
  const selection = getSelection();
  return !selection.isCollapsed && document.getElementById("main").contains(selection.anchorNode);
}
