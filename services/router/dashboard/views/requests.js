// Traffic: requests, or the routing decisions of their attempts, with filters.

import { link } from "../core/address.js";
import { badge, html, nothing, notice, tabs, to, toRequest } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { table } from "../core/table.js";
import { OUTCOMES, REASONS, cause, known, milliseconds, number, reason, shown } from "../core/words.js";

export const title = () => "Traffic";
export const every = 3000;

const FILTERS = ["status", "outcome", "error_code", "reason", "model", "resource_id", "session_id", "proxy_key_id", "team_id", "from", "to"];
const lists = { requests: new Paged("/admin/requests"), decisions: new Paged("/admin/decisions") };
const listed = (params) => (params.show === "decisions" ? "decisions" : "requests");

export function load({ params }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, params[name]]));
  for (const name of ["from", "to"]) if (filters[name]) filters[name] = absolute(filters[name]);
  return lists[listed(params)].load({ ...filters, request_id: params.request_id });
}

// Times in the address are moments, or relative to now: `-15m`.
function absolute(time) {
  const [, count, unit] = /^-(\d+)([mhd])$/.exec(time) ?? [];
  const date = unit ? new Date(Date.now() - count * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit]) : new Date(time);
  return Number.isNaN(date.getTime()) ? time : date.toISOString();
}

// `without`: names of columns that say the same in every row.
export const requestColumns = (now, without = []) =>
  [
    { name: "Time", cell: (r) => toRequest(r.id, r.created_at, now) },
    { name: "Session", cell: (r) => to("sessions", r.session_id, r.session_name || r.session_id) },
    { name: "Resource", cell: (r) => to("resources", r.resource_id) },
    { name: "Model", cell: (r) => html`<span class="cut" title=${shown(r.model)}>${shown(r.model)}</span>` },
    { name: "Outcome", cell: (r) => badge(OUTCOMES[r.outcome], r.outcome) },
    { name: "Status", cell: (r) => shown(r.status_code), className: "number" },
    { name: "Error", cell: (r) => html`<span class="cut" title=${r.error_message ?? ""}>${r.error_code ?? r.error_message ?? ""}</span>` },
    { name: "Attempts", cell: (r) => number(r.attempts), className: "number" },
    { name: "First token", cell: (r) => milliseconds(r.first_token_ms), className: "number" },
    { name: "Time taken", cell: (r) => milliseconds(r.latency_ms), className: "number" },
    { name: "Tokens", cell: (r) => number(r.total_tokens), className: "number" },
  ].filter(({ name }) => !without.includes(name));

export const decisionColumns = (now, without = []) =>
  [
    { name: "Time", cell: (d) => toRequest(d.request_id, d.created_at, now) },
    { name: "Session", cell: (d) => to("sessions", d.session_id) },
    { name: "Attempt", cell: (d) => number(d.attempt), className: "number" },
    { name: "Resource", cell: (d) => to("resources", d.resource_id) },
    { name: "Reason", cell: (d) => reason(d.reason) },
    { name: "Left the one before because", cell: (d) => cause(d.cause) },
    { name: "Pool", cell: (d) => shown(d.pool_id) },
    { name: "Redis", cell: (d) => (d.degraded ? "away" : "") },
  ].filter(({ name }) => !without.includes(name));

export function render({ data, params, state, now, redraw }) {
  const kind = listed(params);
  const list = lists[kind];
  const filtered = FILTERS.some((name) => params[name]) || params.request_id;
  const empty = !data ? "…" : filtered ? "Nothing matches these filters." : "Nothing yet. Send a request to /v1/responses and it appears here.";
  return html`<div class="bar"><h1>Traffic</h1>${tabs("Rows", [
      ["requests", "Requests", link("requests", null, { ...params, show: "" })],
      ["decisions", "Decisions", link("requests", null, { ...params, show: "decisions" })],
    ], kind)}</div>
    ${filterForm(params, state, kind)}
    ${table({
      label: kind === "requests" ? "Requests" : "Decisions",
      columns: kind === "requests" ? requestColumns(now) : decisionColumns(now),
      rows: list.rows, key: (row) => row.id, empty,
    })}
    ${olderButton(list, redraw)}`;
}

export const olderButton = (list, redraw) =>
  list?.hasOlder
    ? html`${notice(list.problem, "bad")}<button type="button" class="more" @click=${() => list.older().then(redraw)}>Older</button>`
    : nothing;

const TIMES = [["", "any time"], ["-15m", "last 15 minutes"], ["-1h", "last hour"], ["-1d", "last day"], ["-7d", "last week"]];
const STATUSES = ["2xx", "4xx", "5xx", "401", "403", "429", "500", "502", "503", "504"];

const choice = (name, label, options, value) => html`<label>${label} <select name=${name}>
  ${(known(value) && !options.some(([each]) => each === value) ? [...options, [value, value]] : options)
    .map(([each, text]) => html`<option value=${each} ?selected=${each === (value ?? "")}>${text}</option>`)}
</select></label>`;

const text = (name, label, value, { list = nothing, hint = nothing } = {}) =>
  html`<label>${label} <input name=${name} list=${list} placeholder=${hint} .value=${value ?? ""} autocomplete="off" spellcheck="false"></label>`;

function filterForm(params, state, kind) {
  const ids = (state?.resources ?? []).map(({ id }) => [id, id]);
  const all = [["", "all"]];
  return html`<form data-filter class="filters" role="search" aria-label="Filter the traffic">
    ${kind === "requests"
      ? html`${text("status", "Status", params.status, { list: "statuses" })}<datalist id="statuses">${STATUSES.map((each) => html`<option value=${each}></option>`)}</datalist>
        ${choice("outcome", "Outcome", [...all, ...Object.keys(OUTCOMES).map((each) => [each, each])], params.outcome)}
        ${text("error_code", "Error", params.error_code)}${text("model", "Model", params.model)}`
      : html`${text("request_id", "Request", params.request_id)}
        ${choice("reason", "Reason", [...all, ...Object.keys(REASONS).map((each) => [each, each.replaceAll("_", " ")])], params.reason)}`}
    ${choice("resource_id", "Resource", [...all, ...ids], params.resource_id)}
    ${text("session_id", "Session", params.session_id)}
    ${kind === "requests"
      ? html`${text("proxy_key_id", "Proxy key", params.proxy_key_id)}${text("team_id", "Team", params.team_id)}`
      : nothing}
    ${choice("from", "Since", TIMES, params.from)}${text("to", "Until", params.to, { hint: "-1h, or a time" })}
    <button>Filter</button> <a href=${link("requests", null, { show: params.show })}>Clear</a>
  </form>`;
}
