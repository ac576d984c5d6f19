// One request: its timeline, attempts with their candidates, usage, cost and bodies.

import { json } from "../core/api.js";
import { link } from "../core/address.js";
import { copy } from "../core/dialog.js";
import { badge, facts, healthBadge, html, moment, nothing, svg, to } from "../core/html.js";
import { phases, slowest } from "../core/timeline.js";
import { table } from "../core/table.js";
import { OUTCOMES, bytes, cause, dollars, duration, exact, known, milliseconds, number, reason, refusal, shown } from "../core/words.js";

export const title = (id) => `Request ${id}`;

export const load = ({ id }) => json(`/admin/requests/${encodeURIComponent(id)}`);

export function render({ id, data, now }) {
  if (!data) return html`<h1>Request <code>${id}</code></h1>`;
  return html`<h1>Request <code>${id}</code></h1>
    <p class="lead">${badge(OUTCOMES[data.outcome], data.outcome)} ${shown(data.status_code)},
      ${data.method} <code>${data.path}</code>, ${moment(data.created_at, now)}
      ${data.error_message || data.error_code ? html`<br><b>${data.error_code}</b> ${data.error_message}` : nothing}</p>
    ${timeline(data)}
    ${attempts(data)}
    ${usage(data)}
    ${bodies(data.bodies)}
    ${details(data)}`;
}

function timeline(request) {
  const parts = phases(request);
  if (!parts.length) return nothing;
  const end = Math.max(...parts.map(({ to: at }) => at), 1);
  const worst = slowest(parts);
  return html`<section aria-labelledby="timeline-title"><h2 id="timeline-title">Timeline</h2>
    ${worst ? html`<p id="slowest">Most of ${milliseconds(end)} passed ${worst.during}: ${milliseconds(worst.to - worst.from)}. ${worst.means}</p>` : nothing}
    <table class="rows waterfall" role="table" aria-label="Timeline">
      <thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Step</th><th role="columnheader" scope="col" class="number">At</th><th role="columnheader" scope="col" class="number">Took</th><th role="columnheader" scope="col">Share of the time</th></tr></thead>
      <tbody role="rowgroup">${parts.map((each) => html`<tr role="row" aria-current=${each === worst ? "true" : nothing}>
        <td role="cell" data-label="Step">${each.name}</td>
        <td role="cell" data-label="At" class="number">${milliseconds(each.to)}</td>
        <td role="cell" data-label="Took" class="number">${milliseconds(each.to - each.from)}</td>
        <td role="cell" data-label="" class="bars"><svg class="bar-line" width="100%" height="14" aria-hidden="true">
          ${svg`<rect class=${each.kind} x=${`${(100 * each.from) / end}%`} width=${`${Math.max((100 * (each.to - each.from)) / end, 0.4)}%`} y="1" height="12" rx="2"></rect>`}</svg></td>
      </tr>`)}</tbody></table></section>`;
}

const candidateColumns = (decision) => [
  { name: "Resource", cell: (c) => html`${to("resources", c.resource)} ${c.resource === decision.resource_id ? html`<b class="chosen">chosen</b>` : nothing}` },
  { name: "Score", cell: (c) => (known(c.score) ? c.score.toFixed(2) : "–"), className: "number", title: "(in flight + 1) / weight; the lowest wins" },
  { name: "In flight", cell: (c) => number(c.in_flight), className: "number" },
  { name: "Weight", cell: (c) => shown(c.weight), className: "number" },
  { name: "Health", cell: (c) => healthBadge(c.health) },
  { name: "Tokens left", cell: (c) => number(c.remaining_tokens), className: "number" },
  { name: "Requests left", cell: (c) => number(c.remaining_requests), className: "number" },
  { name: "Limit resets", cell: (c) => (known(c.limit_resets_at_ms) ? `${duration((c.limit_resets_at_ms - new Date(decision.created_at)) / 1000)} later` : "–") },
  { name: "Passed over because", cell: (c) => refusal(c.refused, decision.created_at) },
];

export const candidates = (decision) =>
  table({
    label: `Candidates of attempt ${decision.attempt}`,
    columns: candidateColumns(decision),
    rows: decision.candidates,
    key: (c) => c.resource,
    empty: "No candidates were recorded.",
    chosen: (c) => c.resource === decision.resource_id,
  });

function attempts({ decisions, created_at: began }) {
  return html`<section aria-labelledby="attempts-title"><h2 id="attempts-title">Attempts</h2>
    ${decisions.length ? nothing : html`<p class="empty">No decision is stored: the request was refused before one, or it is not stored yet.</p>`}
    ${decisions.map((decision) => html`<article>
      <h3>Attempt ${decision.attempt}: ${decision.resource_id ?? "no resource"}</h3>
      <p class="why">${decision.resource_id ? `Chosen because ${reason(decision.reason)}.` : `None was chosen: ${reason(decision.reason)}.`}
        ${decision.cause ? left(decision) : nothing}
        ${milliseconds(new Date(decision.created_at) - new Date(began))} after the start.
        ${decision.waited_ms ? `It waited ${milliseconds(decision.waited_ms)} in a queue.` : nothing}
        ${decision.degraded ? "Redis was away, so the gateway decided from its last snapshot." : nothing}</p>
      ${candidates(decision)}
    </article>`)}</section>`;
}

// On a first attempt, the cause is why the session or state left its resource.
const left = ({ attempt, cause: code }) =>
  `${attempt > 1 ? "The attempt before ended" : "The resource of its session or state was not chosen"}: ${cause(code)}.`;

function usage(request) {
  return html`<section aria-labelledby="usage-title"><h2 id="usage-title">Usage and cost</h2>${facts([
    ["Input tokens", number(request.input_tokens)],
    ["of these cached", number(request.cached_tokens)],
    ["Output tokens", number(request.output_tokens)],
    ["of these reasoning", number(request.reasoning_tokens)],
    ["Total tokens", number(request.total_tokens)],
    ["Cost", dollars(request.cost_usd)],
    ["Usage", request.usage_state === "final" ? "as the upstream reported it" : "unknown: the upstream reported none"],
    ["Sent", bytes(request.request_bytes)],
    ["Received", bytes(request.response_bytes)],
  ])}</section>`;
}

function bodies(captured) {
  if (!captured) return nothing;
  const there = ["request", "response"].filter((name) => captured[name]);
  return html`<section aria-labelledby="bodies-title"><h2 id="bodies-title">Captured bodies</h2>
    ${there.length ? nothing : html`<p class="empty">None was captured (PROXY_MAX_CAPTURE_BYTES), or they are not stored any more.</p>`}
    ${there.map((name) => body(name, captured[name]))}</section>`;
}

function body(name, captured) {
  const text = readable(captured);
  const about = [
    captured.content_type,
    bytes(captured.original_bytes),
    captured.truncated ? "cut" : null,
    captured.content_encoding ? `still encoded as ${captured.content_encoding}` : null,
  ].filter(Boolean).join(", ");
  return html`<details class="body"><summary>Body of the ${name} <small>${about}</small></summary>
    ${captured.dropped ? html`<p>Not there: ${captured.dropped}</p>` : nothing}
    ${text === null ? nothing : html`<button type="button" @click=${(event) => copy(event.target, text)}>Copy</button>
      <pre tabindex="0" role="region" aria-label="Body of the ${name}">${text}</pre>`}</details>`;
}

// JSON indented; events of a stream with their JSON indented.
function readable({ body: text, encoding }) {
  if (!known(text)) return null;
  if (encoding === "base64") return text;
  const indented = (json) => {
    try {
      return JSON.stringify(JSON.parse(json), null, 2);
    } catch {
      return json;
    }
  };
  if (!/^(event|data):/m.test(text)) return indented(text);
  return text.replace(/^data: ?(.*)$/gm, (_, data) => `data: ${indented(data)}`);
}

function details(request) {
  return html`<section aria-labelledby="details-title"><h2 id="details-title">Details</h2>${facts([
    ["Model", request.model],
    ["Sent upstream as", request.upstream_model],
    ["Session", known(request.session_id) ? to("sessions", request.session_id, request.session_name || request.session_id) : null],
    ["Resource", known(request.resource_id) ? to("resources", request.resource_id) : null],
    ["Account", request.account_id],
    ["Pool", request.pool_id],
    ["Proxy key", known(request.proxy_key_id) ? to("keys", request.proxy_key_id) : null],
    ["Team", known(request.team_id) ? html`<a href=${link("requests", null, { team_id: request.team_id })}>${request.team_id}</a>` : null],
    ["Transport", request.transport],
    ["Service tier", request.service_tier],
    ["Response", request.response_id],
    ["Continues", request.previous_response_id],
    ["Gateway", request.gateway_id],
    ["Began", exact(request.created_at)],
    ["Ended", known(request.completed_at) ? exact(request.completed_at) : null],
  ])}</section>`;
}
