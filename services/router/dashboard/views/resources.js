// All resources, sick ones first, and the requests that wait for them.

import { send } from "../core/api.js";
import { change } from "../core/address.js";
import { healthBadge, html, moment, nothing, to } from "../core/html.js";
import { searched, sorted, table } from "../core/table.js";
import { HEALTH, SICKNESS, duration, known, milliseconds, number, percent, plural, shown } from "../core/words.js";

export const title = () => "Resources and accounts";

// The result of "Check all now".
let checked = "";
let checking = false;

export function healthText(resource, now) {
  if (!resource.cooldown_until) return HEALTH[resource.health] ?? resource.health;
  const models = resource.paused_models.join(", ");
  const left = duration((new Date(resource.cooldown_until) - now) / 1000);
  return `cooling down${models && ` for ${models}`}, ${left} more`;
}

// What is left of the account's limits: the scarcest.
function limitLeft(resource) {
  const shares = resource.limits.flatMap((of) =>
    ["requests", "tokens"]
      .filter((kind) => known(of[`limit_${kind}`]) && of[`limit_${kind}`] > 0)
      .map((kind) => ({ share: of[`remaining_${kind}`] / of[`limit_${kind}`], text: `${of.model}, ${kind}` })),
  );
  return shares.sort((a, b) => a.share - b.share)[0] ?? null;
}

const columns = (now) => [
  { name: "Resource", sort: (r) => r.id, cell: (r) => to("resources", r.id, r.name || r.id) },
  {
    name: "Health",
    sort: (r) => SICKNESS[r.health],
    cell: (r) => healthBadge(r.health, healthText(r, now), r.cooldown_until ?? ""),
  },
  { name: "In flight", sort: (r) => r.in_flight, cell: (r) => number(r.in_flight), className: "number" },
  { name: "Requests", sort: (r) => r.requests, cell: (r) => number(r.requests), className: "number" },
  { name: "Errors", sort: (r) => r.errors, cell: (r) => html`<span class=${r.errors ? "bad" : nothing}>${number(r.errors)}</span>`, className: "number" },
  { name: "Latency", sort: (r) => r.last_latency_ms, cell: (r) => milliseconds(r.last_latency_ms), className: "number", title: "Of the last request" },
  { name: "Limit left", sort: (r) => limitLeft(r)?.share, cell: (r) => left(limitLeft(r)), className: "number", title: "The scarcest of the account's limits" },
  { name: "Pool", sort: (r) => r.pool_id, cell: (r) => shown(r.pool_id) },
  { name: "Account", sort: (r) => r.account_id, cell: (r) => shown(r.account_id) },
  { name: "Weight", sort: (r) => r.weight, cell: (r) => shown(r.weight), className: "number" },
  { name: "Last error", sort: (r) => r.last_error, cell: (r) => html`<span class="cut" title=${r.last_error ?? ""}>${r.last_error ?? ""}</span>` },
];

const left = (scarcest) => (scarcest ? html`<span title=${scarcest.text}>${percent(scarcest.share, 1)}</span>` : "–");

const sickFirst = (a, b) => SICKNESS[a.health] - SICKNESS[b.health] || b.errors - a.errors;

export function render({ state, params, now, writes, redraw }) {
  if (!state) return html`<h1>Resources and accounts</h1><p class="empty">…</p>`;
  const all = columns(now);
  const found = searched(state.resources, params.q, ["id", "name", "pool_id", "account_id", "health", "last_error"]);
  const rows = sorted(params.sort ? found : [...found].sort(sickFirst), all, params);
  const sick = state.resources.filter(({ health }) => SICKNESS[health] < 2).length;
  return html`<h1>Resources and accounts</h1>
    <div class="bar">
      <label class="search">Search <input type="search" aria-label="Search resources" .value=${params.q ?? ""}
        @input=${(event) => change({ q: event.target.value }, { replace: true })}></label>
      <span class="count" role="status">${plural(rows.length, "resource")}${sick ? `, ${sick} sick` : ""}</span>
      ${writes ? html`<button id="check" type="button" ?disabled=${checking} @click=${() => check(redraw)}>Check all now</button>` : nothing}
      <span id="check-said" role="status">${checked}</span>
    </div>
    ${table({ label: "Resources", columns: all, rows, key: (r) => r.id, params, often: true,
      empty: state.resources.length ? "Nothing matches." : "There is no resource yet. Add a provider, set OPENAI_API_KEY and restart, or set PROXY_SIMULATE=true to try without a key." })}
    ${waiting(state.waiting)}
    ${accounts(state.resources, now)}`;
}

const MOST_LIMITS = 20; // the scarcest

// What is left of the accounts' limits. All keys of an account have the same.
function accounts(resources, now) {
  const byAccount = new Map(resources.filter(({ limits }) => limits.length).map((r) => [r.account_id, r.limits]));
  const rows = [...byAccount].flatMap(([account, limits]) => limits.map((of) => ({ account, of, left: limitLeft({ limits: [of] }) })));
  if (!rows.length) return nothing;
  rows.sort((a, b) => (a.left?.share ?? 2) - (b.left?.share ?? 2));
  return html`<section aria-labelledby="limits-title"><h2 id="limits-title">Limits of accounts, the scarcest first</h2>
    ${table({ label: "Limits of accounts", columns: accountColumns(now), rows: rows.slice(0, MOST_LIMITS), key: (row) => `${row.account} ${row.of.model}`, empty: "" })}
  </section>`;
}

const accountColumns = (now) => [
  { name: "Account", cell: (row) => row.account },
  { name: "Model", cell: (row) => row.of.model },
  ...["tokens", "requests"].flatMap((kind) => [
    { name: `${kind} left`, cell: ({ of }) => leftOf(of, kind), className: "number" },
    { name: `${kind} reset`, cell: ({ of }) => moment(of[`${kind}_reset_at`], now) },
  ]),
];

export const leftOf = (of, kind) => (known(of[`limit_${kind}`]) ? `${number(of[`remaining_${kind}`])} of ${number(of[`limit_${kind}`])}` : "–");

function waiting(queues) {
  if (!queues?.length) return nothing;
  return html`<section><h2>Waiting for a key</h2><ul>
    ${queues.map((queue) => html`<li>${plural(queue.requests, "request")} of ${plural(queue.shares, "key or session", "keys or sessions")},
      ${queue.account_id ? `for account ${queue.account_id}` : queue.pool_id ? `for pool ${queue.pool_id}` : "for any resource"}</li>`)}
  </ul></section>`;
}

async function check(redraw) {
  checking = true;
  checked = "checking…";
  redraw();
  try {
    const { data } = await send("POST", "/admin/health/check");
    const bad = data.filter((found) => found.health !== "healthy");
    checked = bad.length
      ? bad.map((found) => `${found.resource_id}: ${found.cause || HEALTH[found.health]}`).join("; ")
      : `All ${data.length} answered.`;
  } catch (error) {
    checked = error.message;
  }
  checking = false;
  redraw();
}
