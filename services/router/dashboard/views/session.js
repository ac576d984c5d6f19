// One session: where it moved and why, and its requests.

import { link } from "../core/address.js";
import { part } from "../core/api.js";
import { facts, html, moment, notice, to, toRequest } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { table } from "../core/table.js";
import { cause, known, number, reason } from "../core/words.js";
import { requestColumns } from "./requests.js";

export const title = (id) => `Session ${id}`;
export const every = 5000;

export async function load({ id }) {
  const [sessions, decisions, requests] = await Promise.all([
    part(new Paged("/admin/sessions").load({ session_id: id })),
    part(new Paged("/admin/decisions").load({ session_id: id })),
    part(new Paged("/admin/requests").load({ session_id: id })),
  ]);
  return { session: sessions.rows?.[0], decisions, requests };
}

// Decisions after which the session was on another resource, newest first.
export function moves(decisions) {
  const oldestFirst = [...decisions].reverse().filter(({ resource_id: id }) => known(id));
  return oldestFirst
    .map((decision, place) => ({ ...decision, before: oldestFirst[place - 1]?.resource_id ?? null }))
    .filter(({ before, resource_id: after }) => before !== null && before !== after)
    .reverse();
}

const moveColumns = (now) => [
  { name: "Time", cell: (d) => toRequest(d.request_id, d.created_at, now) },
  { name: "From", cell: (d) => to("resources", d.before) },
  { name: "To", cell: (d) => to("resources", d.resource_id) },
  { name: "Why it left", cell: (d) => cause(d.cause) || "it was free to move" },
  { name: "Why this one", cell: (d) => reason(d.reason) },
];

export function render({ id, data, now }) {
  const moved = moves(data?.decisions?.rows ?? []);
  return html`<h1>Session <code>${id}</code></h1>
    ${data?.session ? facts([
      ["Name", data.session.name],
      ["First seen", moment(data.session.first_seen_at, now)],
      ["Last seen", moment(data.session.last_seen_at, now)],
      ["Requests", number(data.session.requests)],
      ["Tokens", number(data.session.total_tokens)],
      ["Last resource", to("resources", data.session.last_resource_id)],
    ]) : null}
    ${notice(data?.decisions?.error ?? data?.requests?.error)}
    <section aria-labelledby="moves-title"><h2 id="moves-title">Moves</h2>
      ${table({ label: "Moves", columns: moveColumns(now), rows: moved, key: (d) => d.id, empty: data ? "It stayed on one resource, as far as its latest 50 decisions tell." : "…" })}
    </section>
    <section aria-labelledby="requests-title"><div class="bar"><h2 id="requests-title">Requests</h2>
      <a href=${link("requests", null, { session_id: id })}>In the traffic</a></div>
      ${table({ label: "Requests", columns: requestColumns(now, ["Session"]), rows: data?.requests?.rows ?? [], key: (r) => r.id, empty: data ? "None is stored." : "…" })}
    </section>`;
}
