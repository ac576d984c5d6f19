// What is wrong now, then figures and charts.

import { part } from "../core/api.js";
import { link } from "../core/address.js";
import { chartsSection, loadCharts } from "../core/charts.js";
import { html, moment, notice, nothing, repeat } from "../core/html.js";
import { duration, exact, number, plural } from "../core/words.js";

export const title = () => "Overview";
export const every = 5000; // the charts

export async function load({ params }) {
  return { charts: await part(loadCharts(params)) };
}

export function render({ data, state, params, now }) {
  return html`<h1>Overview</h1>
    ${problems(state?.attention, now)}
    ${figures(state)}
    ${notice(data?.charts?.error)}
    ${chartsSection(data?.charts, { name: "", params })}
    ${filters(params, state)}`;
}

function problems(items, now) {
  if (!items) return html`<section><p class="empty">Looking for problems…</p></section>`;
  return html`<section aria-labelledby="wrong-title">
    <h2 id="wrong-title">${items.length ? `Wrong now: ${plural(items.length, "problem")}` : "Nothing is wrong now"}</h2>
    ${items.length
      ? html`<ul class="problems">${repeat(items, (item) => `${item.kind} ${item.subject}`, (item) => problem(item, now))}</ul>`
      : html`<p class="fine">All resources can serve, no tenant is at a limit, and every accepted request has its record.</p>`}
  </section>`;
}

const KINDS = {
  degraded: "A part does not work",
  resource_unhealthy: "Key refused",
  ledger_open: "Books not closed",
  gateway_silent: "Gateway gone",
  dead_letters: "Dead letters",
  backlog: "Backlog",
  resource_cooling: "Cooling down",
  account_limit: "Account at its limit",
  tenant_limit: "Tenant at its limit",
};

const during = (iso, now) => html`<time datetime=${iso} title="since ${exact(iso)}">${duration((now - new Date(iso)) / 1000)}</time>`;

function problem(item, now) {
  // The server makes these links; others would be none of the dashboard's.
  const own = item.link?.startsWith("#/") ? item.link : null;
  return html`<li class=${item.kind}>
    <h3>${own ? html`<a href=${own}>${item.subject}</a>` : item.subject}</h3>
    <p>${item.text}</p>
    <p class="since">${KINDS[item.kind] ?? item.kind.replaceAll("_", " ")}${item.since ? html`, for ${during(item.since, now)}` : nothing}${item.until ? html`, ends ${moment(item.until, now)}` : nothing}</p>
    <p class="todo"><b>To do:</b> ${item.to_do}</p>
  </li>`;
}

function balance({ balanced, unverified }) {
  if (balanced === null) return "unknown";
  if (!balanced) return "off";
  return unverified.length ? "unverified" : "closed";
}

function figures(state) {
  if (!state) return nothing;
  const { ledger, resources } = state;
  const serving = resources.filter(({ health }) => health === "healthy" || health === "unknown").length;
  const waiting = (state.waiting ?? []).reduce((sum, { requests }) => sum + requests, 0);
  const rows = [
    ["Resources serving", `${number(serving)} of ${number(resources.length)}`, link("resources")],
    ["In flight", number(ledger.in_flight), link("resources", null, { sort: "In flight", order: "desc" })],
    ["Waiting for a key", state.waiting ? number(waiting) : "–", link("resources")],
    ["Sessions bound", number(state.affinity_count), link("sessions")],
    ["Stored requests", number(ledger.stored), link("requests")],
    ["Not stored yet", number(ledger.pending), link("system")],
    ["Ledger", balance(ledger), link("system")],
  ];
  return html`<section aria-label="Now"><dl id="totals">
    ${rows.map(([name, value, href]) => html`<div><dt>${name}</dt><dd><a href=${href}>${value}</a></dd></div>`)}
  </dl></section>`;
}

function filters(params, state) {
  const open = ["model", "resource_id", "proxy_key_id", "team_id"].some((name) => params[name]);
  return html`<details ?open=${open}><summary>Only a part of the traffic</summary>
    <form data-filter class="filters" aria-label="Filter the charts">
      <label>Model <input name="model" .value=${params.model ?? ""} spellcheck="false"></label>
      <label>Resource <select name="resource_id"><option value="">all</option>
        ${(state?.resources ?? []).map(({ id }) => html`<option value=${id} ?selected=${id === params.resource_id}>${id}</option>`)}
      </select></label>
      <label>Proxy key <input name="proxy_key_id" .value=${params.proxy_key_id ?? ""} spellcheck="false"></label>
      <label>Team <input name="team_id" .value=${params.team_id ?? ""} spellcheck="false"></label>
      <button>Show</button> <a href="#/">Everything</a>
    </form></details>`;
}
