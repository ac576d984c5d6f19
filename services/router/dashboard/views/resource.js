// One resource: why it is sick, its limits, charts and failed requests.

import { link } from "../core/address.js";
import { part } from "../core/api.js";
import { chartsSection, loadCharts } from "../core/charts.js";
import { facts, healthBadge, html, moment, notice, nothing } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { table } from "../core/table.js";
import { milliseconds, number, plural, shown } from "../core/words.js";
import { requestColumns } from "./requests.js";
import { healthText, leftOf } from "./resources.js";

export const title = (id) => `Resource ${id}`;
export const every = 5000;

export async function load({ id, params }) {
  const [charts, failed] = await Promise.all([
    part(loadCharts({ ...params, resource_id: id })),
    part(new Paged("/admin/requests").load({ resource_id: id, outcome: "failed" })),
  ]);
  return { charts, failed };
}

const WHY = {
  healthy: "It can serve.",
  unknown: "It has not been checked yet; requests may go here.",
  degraded: "It gets no requests until the cooldown ends, unless all others cool down too. Then one trial request decides.",
  unhealthy: "The upstream refused its key, or has no credit left for it. It gets no requests until a health check passes. Replace the key, or add credit.",
};

export function render({ id, data, state, params, now }) {
  const resource = state?.resources.find((one) => one.id === id);
  return html`<h1>Resource ${id}</h1>
    ${state && !resource ? notice("It is not configured any more. Its history remains.") : nothing}
    ${resource ? described(resource, now) : nothing}
    ${notice(data?.charts?.error)}
    ${chartsSection(data?.charts, { name: "resources", id, params }, ["Requests", "Errors", "Latency", "First token"])}
    <section aria-labelledby="failed-title"><div class="bar"><h2 id="failed-title">Failed requests</h2>
      <a href=${link("requests", null, { resource_id: id })}>All its requests</a></div>
      ${notice(data?.failed?.error)}
      ${table({ label: "Failed requests", columns: requestColumns(now, ["Resource"]), rows: data?.failed?.rows ?? [], key: (r) => r.id, empty: "None of its stored requests failed." })}
    </section>`;
}

function described(resource, now) {
  return html`<p class="lead">${healthBadge(resource.health, healthText(resource, now))} ${WHY[resource.health]}
      ${resource.last_error ? html`<br>Last error: <b>${resource.last_error}</b>` : nothing}</p>
    ${facts([
      ["Name", resource.name],
      ["Pool", shown(resource.pool_id)],
      ["Account", resource.account_id],
      ["Weight", shown(resource.weight)],
      ["In flight", number(resource.in_flight)],
      ["Requests", `${number(resource.requests)}, ${plural(resource.errors, "error")}`],
      ["Last latency", milliseconds(resource.last_latency_ms)],
    ])}
    ${resource.limits.length
      ? table({ label: "Limits of its account", columns: limitColumns(now), rows: resource.limits, key: (of) => of.model, empty: "" })
      : nothing}`;
}

const limitColumns = (now) => [
  { name: "Model", cell: (of) => of.model },
  { name: "Tokens left", cell: (of) => leftOf(of, "tokens"), className: "number" },
  { name: "Resets", cell: (of) => moment(of.tokens_reset_at, now) },
  { name: "Requests left", cell: (of) => leftOf(of, "requests"), className: "number" },
  { name: "Resets ", cell: (of) => moment(of.requests_reset_at, now) },
];
