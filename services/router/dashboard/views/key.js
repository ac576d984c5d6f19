// One proxy key: what it may do, what it spent, its traffic.

import { json, part } from "../core/api.js";
import { link } from "../core/address.js";
import { chartsSection, loadCharts } from "../core/charts.js";
import { badge, facts, html, moment, notice, nothing } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { table } from "../core/table.js";
import { known, number, shown } from "../core/words.js";
import { budget, keyButtons, stateOf } from "./keys.js";
import { requestColumns } from "./requests.js";

export const title = (id) => `Key ${id}`;
export const every = 5000;

export async function load({ id, params }) {
  const [key, teams, charts, requests] = await Promise.all([
    json(`/admin/keys/${encodeURIComponent(id)}`),
    part(json("/admin/teams?limit=500")),
    part(loadCharts({ ...params, proxy_key_id: id })),
    part(new Paged("/admin/requests").load({ proxy_key_id: id })),
  ]);
  return { key, teams: teams.data ?? [], charts, requests };
}

export function render({ id, data, params, now, writes, reload }) {
  if (!data) return html`<h1>Key <code>${id}</code></h1>`;
  const { key, teams, charts, requests } = data;
  return html`<div class="bar"><h1>Key ${key.name || html`<code>${id}</code>`}</h1>
      ${badge(...stateOf(key, now))} ${writes ? keyButtons(key, teams, reload) : nothing}</div>
    ${facts([
      ["Id", key.id],
      ["Secret begins", key.prefix],
      ["Team", key.team_id],
      ["Pool", shown(key.pool_id ?? key.pools.join(", "))],
      ["Requests per minute", number(key.requests_per_minute)],
      ["Tokens per minute", number(key.tokens_per_minute)],
      ["Budget", budget(key)],
      ["Weight in queues", number(key.queue_weight)],
      ["Policy", key.policy ? rules(key.policy) : "allows everything"],
      ["Created", moment(key.created_at, now)],
      ["Last used", moment(key.last_used_at, now)],
      ["Expires", moment(key.expires_at, now)],
      ["Revoked", key.revoked_at ? moment(key.revoked_at, now) : null],
    ])}
    ${notice(charts.error ?? requests.error)}
    ${chartsSection(charts, { name: "keys", id, params }, ["Requests", "Errors", "Tokens", "Cost"])}
    <section aria-labelledby="requests-title"><div class="bar"><h2 id="requests-title">Requests</h2>
      <a href=${link("requests", null, { proxy_key_id: id })}>In the traffic</a></div>
      ${table({ label: "Requests", columns: requestColumns(now), rows: requests.rows ?? [], key: (r) => r.id, empty: "None is stored." })}
    </section>`;
}

const rules = (policy) =>
  Object.entries(policy)
    .filter(([, value]) => known(value) && value.length !== 0)
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${Array.isArray(value) ? value.join(", ") : value}`)
    .join("; ");
