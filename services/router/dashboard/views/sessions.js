// Sessions, last seen first.

import { link } from "../core/address.js";
import { html, moment, to } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { sorted, table } from "../core/table.js";
import { number } from "../core/words.js";
import { olderButton } from "./requests.js";

export const title = () => "Sessions";
export const every = 5000;

const list = new Paged("/admin/sessions");

export const load = ({ params }) => list.load({ session_id: params.session_id, resource_id: params.resource_id });

const columns = (now) => [
  { name: "Session", sort: (s) => s.id, cell: (s) => to("sessions", s.id, s.name || s.id) },
  { name: "Last seen", sort: (s) => s.last_seen_at, cell: (s) => moment(s.last_seen_at, now) },
  { name: "First seen", sort: (s) => s.first_seen_at, cell: (s) => moment(s.first_seen_at, now) },
  { name: "Requests", sort: (s) => s.requests, cell: (s) => number(s.requests), className: "number" },
  { name: "Tokens", sort: (s) => s.total_tokens, cell: (s) => number(s.total_tokens), className: "number" },
  { name: "Last resource", sort: (s) => s.last_resource_id, cell: (s) => to("resources", s.last_resource_id) },
];

export function render({ data, params, now, redraw }) {
  const all = columns(now);
  return html`<h1>Sessions</h1>
    <form data-filter class="filters" role="search" aria-label="Filter the sessions">
      <label>Session <input name="session_id" .value=${params.session_id ?? ""} autocomplete="off" spellcheck="false"></label>
      <label>Resource <input name="resource_id" .value=${params.resource_id ?? ""} autocomplete="off" spellcheck="false"></label>
      <button>Filter</button> <a href=${link("sessions")}>Clear</a>
    </form>
    ${table({ label: "Sessions", columns: all, rows: sorted(data?.rows ?? [], all, params), key: (s) => s.id, params,
      empty: data ? "No session. Clients name one with x-session-id, prompt_cache_key or metadata." : "…" })}
    ${olderButton(list, redraw)}`;
}
