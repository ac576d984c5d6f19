// Where a request would go now, and why. Nothing is sent or counted.

import { change } from "../core/address.js";
import { send } from "../core/api.js";
import { facts, html, notice, nothing, to } from "../core/html.js";
import { table } from "../core/table.js";
import { known, milliseconds, number, reason, shown } from "../core/words.js";
import { candidates } from "./request.js";

export const title = () => "Explain";

const FIELDS = ["method", "path", "model", "session", "pool", "tenant", "previous"];
const METHODS = ["POST", "GET", "DELETE", "PATCH"];

// The form is in the address, so that an explanation can be shared.
export function load({ params }) {
  if (!params.ask) return null;
  const body = JSON.parse(params.body || "{}");
  if (params.model) body.model = params.model;
  if (params.previous) body.previous_response_id = params.previous;
  const headers = {};
  if (params.session) headers["x-session-id"] = params.session;
  if (params.pool) headers["x-pool-id"] = params.pool;
  const method = params.method || "POST";
  return send("POST", "/admin/route/explain", {
    method, path: params.path || "/v1/responses", tenant: params.tenant || "", headers, body: method === "POST" ? body : null,
  });
}

const STATUS = {
  ok: "It would be sent.",
  no_capacity: "No resource could serve it.",
  busy: "What could serve it is at its limit, so it would wait in a queue.",
  owner_limited: "The account that owns its state is rate limited.",
  owner_gone: "The account that owns its state has no working key left.",
};

export function render({ data, params }) {
  return html`<h1>Explain</h1>
    <p>Where would a request go now, and why? Nothing is sent or counted.</p>
    <form class="filters" aria-label="A request" @submit=${ask}>
      <label>Method <select name="method">${METHODS.map((each) => html`<option ?selected=${each === params.method}>${each}</option>`)}</select></label>
      <label>Path <input name="path" .value=${params.path ?? "/v1/responses"} spellcheck="false"></label>
      <label>Model <input name="model" .value=${params.model ?? ""} spellcheck="false"></label>
      <label>Session <input name="session" .value=${params.session ?? ""} spellcheck="false"></label>
      <label>Pool <input name="pool" .value=${params.pool ?? ""} spellcheck="false"></label>
      <label>Continues the response <input name="previous" .value=${params.previous ?? ""} spellcheck="false"></label>
      <label>Tenant <input name="tenant" placeholder="team:ID or key:ID" .value=${params.tenant ?? ""} spellcheck="false"></label>
      <label class="wide">Further body, JSON <textarea name="body" rows="3" spellcheck="false" .value=${params.body ?? ""}></textarea></label>
      <button class="primary">Explain</button>
    </form>
    ${data ? explained(data) : nothing}`;
}

function ask(event) {
  event.preventDefault();
  const form = event.target;
  const given = Object.fromEntries(FIELDS.map((name) => [name, form.elements.namedItem(name).value.trim()]));
  // The time makes the same question another address, so that it is asked again.
  change({ ...given, body: form.elements.namedItem("body").value.trim(), ask: String(Date.now()) });
}

const targetColumns = [
  { name: "Provider", cell: (t) => t.provider_id },
  { name: "Model", cell: (t) => t.upstream_id },
  { name: "Weight", cell: (t) => shown(t.weight), className: "number" },
  { name: "Priority", cell: (t) => number(t.priority), className: "number" },
  { name: "Resource", cell: (t) => to("resources", t.resource_id) },
  { name: "Status", cell: (t) => STATUS[t.status] ?? t.status.replaceAll("_", " ") },
];

function explained(answer) {
  const now = new Date().toISOString();
  return html`<section aria-labelledby="answer-title"><h2 id="answer-title">${known(answer.resource_id) ? html`To ${to("resources", answer.resource_id)}` : "To no resource"}</h2>
    <p class="lead">${STATUS[answer.status] ?? answer.status} ${known(answer.resource_id) ? `This one, because ${reason(answer.reason)}.` : `Because ${reason(answer.reason)}.`}
      ${answer.half_open ? "It would be the single trial after a cooldown." : nothing}
      ${known(answer.retry_after_ms) ? `Try again in ${milliseconds(answer.retry_after_ms)}.` : nothing}</p>
    ${answer.looked_up_in_sql ? notice("Redis did not know its ids; SQL was asked.") : nothing}
    ${facts([
      ["Provider", answer.provider_id],
      ["Sent upstream as", answer.upstream_model],
      ["Model", answer.hints.model],
      ["Session", answer.hints.session_id],
      ["Pool", answer.hints.pool_id],
      ["Ids of an account", answer.hints.bound_ids.join(", ")],
      ["Encrypted content", answer.hints.account_bound ? "yes: only keys of one account can read it" : null],
    ])}
    ${answer.targets.length ? table({ label: "Targets of the alias", columns: targetColumns, rows: answer.targets, key: (t) => `${t.provider_id} ${t.upstream_id}`, empty: "" }) : nothing}
    ${candidates({ attempt: 1, resource_id: answer.resource_id, created_at: now, candidates: answer.candidates })}
  </section>`;
}
