// The ledger and health of the system, admin tokens and the audit log.

import { json, part, send } from "../core/api.js";
import { confirmed, showForm, showSecret } from "../core/dialog.js";
import { filled } from "../core/form.js";
import { badge, facts, html, moment, notice, nothing } from "../core/html.js";
import { Paged } from "../core/paged.js";
import { table } from "../core/table.js";
import { number, shown } from "../core/words.js";
import { olderButton } from "./requests.js";

export const title = () => "Ledger and system";
export const every = 3000;

const audit = new Paged("/admin/audit");

export async function load() {
  const [ledger, tokens, changes] = await Promise.all([part(json("/admin/ledger")), part(json("/admin/tokens")), part(audit.load({}))]);
  return { ledger, tokens, changes };
}

const GATEWAY = { running: "healthy", silent: "unhealthy", closed: "unknown", other: "unknown" };

const gatewayColumns = (now) => [
  { name: "Gateway", cell: (g) => (g.id === "*" ? "old ones, together" : g.id) },
  { name: "State", cell: (g) => badge(GATEWAY[g.state], g.state === "other" ? `of shard ${g.shard}` : g.state) },
  { name: "Accepted", cell: (g) => number(g.accepted), className: "number" },
  { name: "Stored", cell: (g) => number(g.stored), className: "number" },
  { name: "Pending", cell: (g) => number(g.pending), className: "number" },
  { name: "In flight", cell: (g) => number(g.in_flight), className: "number" },
  { name: "Dead letters", cell: (g) => number(g.dead_lettered), className: "number" },
  { name: "In its journal", cell: (g) => number(g.held), className: "number" },
  { name: "Seen", cell: (g) => moment(g.seen_at, now) },
];

export function render({ data, state, now, writes, reload, redraw }) {
  const ledger = data?.ledger?.error ? null : data?.ledger;
  return html`<h1>Ledger and system</h1>
    <section aria-labelledby="parts-title"><h2 id="parts-title">Parts</h2>
      ${state?.degraded.length
        ? html`<ul>${state.degraded.map((what) => html`<li class="bad">${what}</li>`)}</ul>`
        : html`<p class="fine">Redis and the database answer.</p>`}</section>
    <section aria-labelledby="ledger-title"><h2 id="ledger-title">Ledger</h2>
      ${notice(data?.ledger?.error)}
      ${ledger ? books(ledger, now) : nothing}</section>
    <section aria-labelledby="tokens-title"><div class="bar"><h2 id="tokens-title">Admin tokens</h2>
      ${writes ? html`<button type="button" @click=${() => mintToken(reload)}>Mint a token</button>` : nothing}</div>
      ${notice(data?.tokens?.error)}
      ${table({ label: "Admin tokens", columns: tokenColumns(now, writes ? (t) => revokeButton(t, reload) : null), rows: data?.tokens?.data ?? [], key: (t) => t.name, empty: "None but the first one, default." })}</section>
    <section aria-labelledby="audit-title"><h2 id="audit-title">Audit log</h2>
      ${notice(data?.changes?.error)}
      ${table({ label: "Audit log", columns: auditColumns(now), rows: data?.changes?.rows ?? [], key: (c) => c.id, empty: "No change through the admin API is recorded." })}
      ${olderButton(data?.changes?.rows ? audit : null, redraw)}</section>`;
}

function words({ balanced, unverified }) {
  if (balanced === null) return badge("unknown", "unknown: Redis or the database does not answer");
  if (!balanced) return badge("unhealthy", "not closed");
  return unverified.length ? badge("degraded", "not verified yet") : badge("healthy", "closed");
}

function books(ledger, now) {
  return html`<p class="lead">${words(ledger)} Every accepted request is stored, pending, in flight or a dead letter.</p>
    ${ledger.problems.map((text) => notice(text, "bad"))}
    ${ledger.unverified.length ? notice(`Silent gateways whose journal was not recovered yet: ${ledger.unverified.join(", ")}. A gateway with the same data folder recovers it.`) : nothing}
    ${facts([
      ["Accepted", number(ledger.accepted)],
      ["Stored", number(ledger.stored)],
      ["Pending", number(ledger.pending)],
      ["In flight", number(ledger.in_flight)],
      ["Dead letters", number(ledger.dead_lettered)],
      ["Events not stored yet", number(ledger.queue_depth)],
    ])}
    ${table({ label: "Gateways", columns: gatewayColumns(now), rows: ledger.gateways, key: (g) => g.id, empty: "No gateway has reported." })}`;
}

const tokenColumns = (now, buttons) => [
  { name: "Name", cell: (t) => t.name },
  { name: "Role", cell: (t) => t.role },
  { name: "Created", cell: (t) => moment(t.created_at, now) },
  ...(buttons ? [{ name: "Actions", cell: buttons }] : []),
];

const value = (it) => (it === null ? "none" : typeof it === "object" ? JSON.stringify(it) : String(it));

const auditColumns = (now) => [
  { name: "Time", cell: (c) => moment(c.created_at, now) },
  { name: "Who", cell: (c) => c.actor },
  { name: "From", cell: (c) => shown(c.address) },
  { name: "Did", cell: (c) => `${c.action} ${c.object_type.replaceAll("_", " ")}` },
  { name: "Object", cell: (c) => html`<span class="cut" title=${c.object_id}>${c.object_id}</span>` },
  {
    name: "Changes",
    className: "wrap",
    cell: (c) => Object.entries(c.changes).map(([name, { before, after }]) => html`<div>${name}: ${value(before)} → ${value(after)}</div>`),
  },
];

const revokeButton = (token, reload) => html`<button type="button" class="link" aria-label="Revoke ${token.name}" @click=${() =>
  confirmed({
    title: `Revoke the admin token ${token.name}?`,
    text: "Whoever uses it is logged out within about a second.",
    button: "Revoke",
    act: async () => {
      await send("DELETE", `/admin/tokens/${encodeURIComponent(token.name)}`);
      await reload();
    },
  })}>Revoke</button>`;

function mintToken(reload) {
  showForm({
    title: "Mint an admin token",
    fields: [
      { name: "name", label: "Name", type: "text", required: true },
      { name: "role", label: "Role", type: "select", options: [["viewer", "viewer: may only read"], ["admin", "admin"]], value: "viewer" },
    ],
    button: "Mint",
    act: async (values) => {
      const { token, name } = await send("POST", "/admin/tokens", filled(values));
      showSecret("The new admin token", `This is the token of ${name}. It is shown only now.`, token);
      reload();
    },
  });
}
