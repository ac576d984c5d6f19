// Proxy keys and teams.

import { json, part, send, withQuery } from "../core/api.js";
import { change, link } from "../core/address.js";
import { confirmed, showForm, showSecret } from "../core/dialog.js";
import { filled } from "../core/form.js";
import { badge, html, moment, notice, nothing, to } from "../core/html.js";
import { changed, keyFields, teamFields, withBudget } from "../core/tenant_fields.js";
import { searched, sorted, table } from "../core/table.js";
import { dollars, known, number, plural, short, shown } from "../core/words.js";

export const title = () => "Keys and teams";
export const every = 10_000;
const MOST_PAGES = 10; // of 500 keys each
const MOST_SHOWN = 200; // keys; a search finds others

export async function load() {
  const [keys, teams] = await Promise.all([part(all("/admin/keys", "cursor", "next_cursor")), part(all("/admin/teams", "after", "next_after"))]);
  return { keys, teams };
}

async function all(path, parameter, next) {
  const rows = [];
  let at = null;
  for (let page = 0; page < MOST_PAGES && (page === 0 || at !== null); page += 1) {
    const answer = await json(withQuery(path, { limit: 500, [parameter]: at }));
    rows.push(...answer.data);
    at = answer[next];
  }
  return { data: rows };
}

export function stateOf(key, now) {
  if (key.revoked_at) return ["unknown", "revoked"];
  if (key.expires_at && new Date(key.expires_at) <= now) return ["degraded", "expired"];
  return key.enabled ? ["healthy", "works"] : ["degraded", "disabled"];
}

// A budget, if there is one, with what was spent of it, if the router tells.
export function budget(row) {
  if (row.budget_usd == null && row.budget_tokens == null) return "–";
  const spent = row.spend ?? {};
  const of = (written, amount) => (amount == null ? "" : `${written(amount)} of `);
  const parts = [];
  if (row.budget_usd != null) parts.push(`${of(dollars, spent.usd)}${dollars(row.budget_usd)}`);
  if (row.budget_tokens != null) parts.push(`${of(short, spent.tokens)}${short(row.budget_tokens)} tokens`);
  return `${parts.join(", ")}${row.budget_window === "total" ? " in total" : ` per ${row.budget_window}`}`;
}

const limits = (key) =>
  [
    known(key.requests_per_minute) ? `${number(key.requests_per_minute)} requests/min` : null,
    known(key.tokens_per_minute) ? `${short(key.tokens_per_minute)} tokens/min` : null,
  ].filter(Boolean).join(", ") || "–";

const keyColumns = (now, buttons) => [
  { name: "Key", sort: (k) => k.name || k.id, cell: (k) => to("keys", k.id, k.name || k.id) },
  { name: "Secret", cell: (k) => html`<code>${k.prefix}…</code>` },
  { name: "State", sort: (k) => stateOf(k, now)[1], cell: (k) => badge(...stateOf(k, now)) },
  { name: "Team", sort: (k) => k.team_id, cell: (k) => shown(k.team_id) },
  { name: "Limits", cell: limits },
  { name: "Budget", cell: budget },
  { name: "Last used", sort: (k) => k.last_used_at, cell: (k) => moment(k.last_used_at, now) },
  { name: "Expires", sort: (k) => k.expires_at, cell: (k) => moment(k.expires_at, now) },
  ...(buttons ? [{ name: "Actions", cell: buttons }] : []),
];

const teamColumns = (now, buttons) => [
  { name: "Team", sort: (t) => t.id, cell: (t) => html`<a href=${link("requests", null, { team_id: t.id })}>${t.id}</a>` },
  { name: "Name", sort: (t) => t.name, cell: (t) => shown(t.name) },
  { name: "Keys", sort: (t) => t.keys, cell: (t) => number(t.keys), className: "number" },
  { name: "Policy", cell: (t) => (t.policy ? Object.keys(t.policy).filter((rule) => known(t.policy[rule]) && t.policy[rule].length !== 0).join(", ") || "–" : "–") },
  { name: "Budget", cell: budget },
  { name: "Created", sort: (t) => t.created_at, cell: (t) => moment(t.created_at, now) },
  ...(buttons ? [{ name: "Actions", cell: buttons }] : []),
];

export function render({ data, params, now, writes, reload }) {
  const keys = data?.keys?.data ?? [];
  const teams = data?.teams?.data ?? [];
  const columns = keyColumns(now, writes ? (key) => keyButtons(key, teams, reload) : null);
  const shownKeys = params.revoked ? keys : keys.filter((key) => !key.revoked_at);
  const rows = sorted(searched(shownKeys, params.q, ["id", "name", "prefix", "team_id"]), columns, params);
  return html`<h1>Keys and teams</h1>
    ${notice(data?.keys?.error ?? data?.teams?.error)}
    <div class="bar"><h2>Proxy keys</h2>
      ${writes ? html`<button type="button" class="primary" @click=${() => mint(teams, reload)}>Mint a key</button>` : nothing}
      <label class="search">Search <input type="search" aria-label="Search keys" .value=${params.q ?? ""}
        @input=${(event) => change({ q: event.target.value }, { replace: true })}></label>
      <label class="check"><input type="checkbox" ?checked=${Boolean(params.revoked)} @change=${(event) => change({ revoked: event.target.checked ? "1" : "" })}> <span>revoked too</span></label>
      <span class="count">${plural(rows.length, "key")}${rows.length > MOST_SHOWN ? `, ${MOST_SHOWN} shown` : ""}</span></div>
    ${table({ label: "Proxy keys", columns, rows: rows.slice(0, MOST_SHOWN), key: (k) => k.id, params, empty: data ? "No key. With PROXY_REQUIRE_KEYS=true clients need one." : "…" })}
    <div class="bar"><h2>Teams</h2>
      ${writes ? html`<button type="button" @click=${() => newTeam(reload)}>New team</button>` : nothing}</div>
    ${table({ label: "Teams", columns: teamColumns(now, writes ? (team) => teamButtons(team, reload) : null), rows: teams, key: (t) => t.id, empty: data ? "No team." : "…" })}`;
}

export const keyButtons = (key, teams, reload) =>
  key.revoked_at
    ? nothing
    : html`<button type="button" class="link" aria-label="Change ${key.name || key.id}" @click=${() => changeKey(key, teams, reload)}>Change</button>
        <button type="button" class="link" aria-label="Revoke ${key.name || key.id}" @click=${() => revoke(key, reload)}>Revoke</button>`;

const teamButtons = (team, reload) => html`
  <button type="button" class="link" aria-label="Change team ${team.id}" @click=${() => changeTeam(team, reload)}>Change</button>
  <button type="button" class="link" aria-label="Delete team ${team.id}" @click=${() => deleteTeam(team, reload)}>Delete</button>`;

function mint(teams, reload) {
  showForm({
    title: "Mint a key",
    fields: keyFields({}, teams),
    button: "Mint",
    act: async (values) => {
      const { secret, name, id } = await send("POST", "/admin/keys", filled(withBudget(values)));
      showSecret("The new key", `This is the secret of ${name || id}. It is shown only now.`, secret);
      reload();
    },
  });
}

function changeKey(key, teams, reload) {
  showForm({
    title: `Change ${key.name || key.id}`,
    fields: [...keyFields(key, teams), { name: "enabled", label: "Enabled", type: "check", value: key.enabled }],
    button: "Change",
    act: async (values) => {
      await send("PATCH", `/admin/keys/${encodeURIComponent(key.id)}`, changed(values, key));
      await reload();
    },
  });
}

function revoke(key, reload) {
  confirmed({
    title: `Revoke ${key.name || key.id}?`,
    text: "Requests with it are refused within a second. This cannot be undone.",
    button: "Revoke",
    act: async () => {
      await send("DELETE", `/admin/keys/${encodeURIComponent(key.id)}`);
      await reload();
    },
  });
}

function newTeam(reload) {
  showForm({
    title: "New team",
    fields: [{ name: "id", label: "Id", type: "text", required: true, hint: "letters, digits and _ . : @ -" }, ...teamFields({})],
    button: "Create",
    act: async (values) => {
      await send("POST", "/admin/teams", filled(withBudget(values)));
      await reload();
    },
  });
}

function changeTeam(team, reload) {
  showForm({
    title: `Change team ${team.id}`,
    fields: teamFields(team),
    button: "Change",
    act: async (values) => {
      await send("PATCH", `/admin/teams/${encodeURIComponent(team.id)}`, changed(values, team));
      await reload();
    },
  });
}

function deleteTeam(team, reload) {
  confirmed({
    title: `Delete team ${team.id}?`,
    text: "A team that has keys cannot be deleted.",
    button: "Delete",
    act: async () => {
      await send("DELETE", `/admin/teams/${encodeURIComponent(team.id)}`);
      await reload();
    },
  });
}
