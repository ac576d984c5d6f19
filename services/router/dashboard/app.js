// The dashboard: state from /admin/events, history from /admin/requests and
// /admin/decisions. Text from users and upstreams is set through textContent only.

import { registry } from "/dashboard/registry.js";

const $ = (id) => document.getElementById(id);
const LOADS_KEPT = 120; // points of a card's chart, one per second
const HISTORY_EVERY_MS = 2000;
const LONGEST_PAUSE_MS = 10000;
const SVG = "http://www.w3.org/2000/svg";

const loads = new Map(); // resource id -> requests in flight, oldest first
const TOKEN = "admin-token"; // its key in sessionStorage, so each tab logs in
let token = loggedIn();

// Building -------------------------------------------------------------------

function make(tag, { text, className, title, children = [] } = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  if (title) element.title = title;
  element.append(...children);
  return element;
}

const known = (value) => value !== null && value !== undefined && value !== "";
const shown = (value) => (known(value) ? String(value) : "–");
const number = (value) => (known(value) ? Number(value).toLocaleString() : "–");
const milliseconds = (value) => {
  if (!known(value)) return "–";
  return value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
};
const plural = (count, one, several) => `${number(count)} ${count === 1 ? one : several}`;

function moment(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  const text = today ? date.toLocaleTimeString() : date.toLocaleString();
  const element = make("time", { text, title: iso });
  element.dateTime = iso;
  return element;
}

// Requests -------------------------------------------------------------------

// The login link has the token after the #, which browsers never send. It is removed
// from the address bar and the history at once.
function loggedIn() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN);
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (options.method && options.method !== "GET") headers["content-type"] = "application/json";
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    wantToken();
    throw new Refused();
  }
  return answer;
}

async function json(path, options) {
  const answer = await ask(path, options);
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body?.error?.message ?? `The router answered ${answer.status}.`);
  return body;
}

function wantToken() {
  if (!$("token").hidden) return;
  if (token) $("token-why").textContent = "That token was not accepted; it may have been replaced.";
  token = null;
  sessionStorage.removeItem(TOKEN);
  $("log-out").hidden = true;
  $("token").hidden = false;
  $("main").hidden = true;
  $("notices").replaceChildren();
  $("live").textContent = "token needed";
  $("token-value").focus();
}

// State ----------------------------------------------------------------------

const HEALTH = {
  healthy: "healthy",
  unknown: "not checked yet",
  degraded: "cooling down",
  unhealthy: "key refused",
};

function balance({ balanced, unverified }) {
  if (balanced === null) return "–";
  if (!balanced) return "off";
  return unverified.length ? "unverified" : "even";
}

function totals(state) {
  const { ledger } = state;
  const rows = [
    ["Resources", number(state.resources.length), "Upstream keys that requests are spread over"],
    ["In flight", number(ledger.in_flight), "Requests under way now"],
    ["Affinities", number(state.affinity_count), "Sessions that are bound to a resource"],
    ["Queue depth", number(state.queue_depth), "Events that are not stored in the database yet"],
    ["Stored", number(ledger.stored), "Requests in the database"],
    ["Pending", number(ledger.pending), "Requests that ended and wait to be stored"],
    ["Dead letters", number(ledger.dead_lettered), "Requests whose record could not be stored"],
    ["Ledger", balance(ledger), ledger.problems.join("; ") || "Does every accepted request have its record?"],
  ];
  $("totals").replaceChildren(
    ...rows.map(([name, value, title]) =>
      make("div", { title, children: [make("dt", { text: name }), make("dd", { text: value })] }),
    ),
  );
}

function chart(points) {
  const highest = Math.max(1, ...points);
  const step = 100 / (LOADS_KEPT - 1);
  const start = LOADS_KEPT - points.length;
  const line = points.map((p, i) => `${(start + i) * step},${30 - (p * 28) / highest}`).join(" ");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `In flight over the last two minutes, ${highest} at most`);
  const path = document.createElementNS(SVG, "polyline");
  path.setAttribute("points", line);
  path.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(path);
  return svg;
}

function health(resource) {
  if (!resource.cooldown_until) return HEALTH[resource.health] ?? resource.health;
  const seconds = Math.max(0, Math.ceil((new Date(resource.cooldown_until) - Date.now()) / 1000));
  const models = resource.paused_models.join(", ");
  return `${models || "cooling down"}${models ? " paused" : ""}, ${seconds} s more`;
}

function card(resource) {
  const points = [...(loads.get(resource.id) ?? []), resource.in_flight].slice(-LOADS_KEPT);
  loads.set(resource.id, points);
  const title = make("h3", {
    children: [
      make("span", { text: resource.name }),
      make("span", {
        text: health(resource),
        className: `badge ${resource.health}`,
        title: resource.cooldown_until ? `until ${resource.cooldown_until}` : "",
      }),
    ],
  });
  const figures = make("p", {
    className: "figures",
    children: [
      make("b", { text: number(resource.in_flight) }),
      ` in flight, ${plural(resource.requests, "request", "requests")}, `,
      make("span", {
        text: plural(resource.errors, "error", "errors"),
        className: resource.errors ? "unhealthy" : "",
      }),
    ],
  });
  const name = resource.name === resource.id ? [] : [`id ${resource.id}`];
  const facts = [
    ...name,
    resource.pool_id ? `pool ${resource.pool_id}` : "no pool",
    `weight ${resource.weight}`,
    `account ${resource.account_id}`,
    `last latency ${milliseconds(resource.last_latency_ms)}`,
  ];
  const children = [title, figures, make("p", { text: facts.join(" · ") }), chart(points)];
  if (resource.last_error) children.push(make("p", { text: `Last error: ${resource.last_error}` }));
  return make("article", { className: "card", children });
}

function choices(resources) {
  const select = $("resource-choice");
  const ids = resources.map((resource) => resource.id);
  const have = [...select.options].slice(1).map((option) => option.value);
  if (ids.join("\n") === have.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...ids.map((id) => new Option(id, id)));
  select.value = ids.includes(chosen) ? chosen : "";
}

function notices(state) {
  const lines = state.degraded.map((what) => `Degraded: ${what}.`);
  if (state.admin === "open") {
    lines.push(
      "Warning: whoever reaches this address can use this page, and every upstream key through it. " +
        "Unset PROXY_ALLOW_OPEN_ADMIN to ask for a token.",
    );
  }
  const have = [...$("notices").children].map((line) => line.textContent);
  if (lines.join("\n") === have.join("\n")) return; // screen readers announce it once, not every second
  $("notices").replaceChildren(...lines.map((text) => make("p", { text, className: "notice" })));
}

let stored = null; // number of stored requests; a change means new history

function show(state) {
  $("token").hidden = true;
  $("main").hidden = false;
  $("log-out").hidden = !token;
  $("live").textContent = "live";
  $("live").title = state.timestamp;
  notices(state);
  totals(state);
  choices(state.resources);
  const none = make("p", {
    className: "empty",
    text: "There is no resource yet. Add a provider below, set OPENAI_API_KEY and restart, or set PROXY_SIMULATE=true to try without a key.",
  });
  $("resources").replaceChildren(...(state.resources.length ? state.resources.map(card) : [none]));
  const now = `${state.ledger.stored} ${state.decisions[0]?.id}`;
  if (now !== stored) {
    stored = now;
    refreshSoon();
  }
}

// EventSource cannot send the token, so fetch reads the stream.
async function follow() {
  const answer = await ask("/admin/events");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) show(JSON.parse(lines.map((line) => line.slice(5)).join("\n")));
    }
  }
}

async function live() {
  let pause = 500;
  for (;;) {
    const began = Date.now();
    try {
      await follow(); // the router ends each stream after some minutes
    } catch (error) {
      if (error instanceof Refused) return;
    }
    if (Date.now() - began > LONGEST_PAUSE_MS) pause = 500;
    $("live").textContent = "connection lost, trying again…";
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

// History --------------------------------------------------------------------

function opener(row, id) {
  const time = moment(row.created_at);
  const button = make("button", { children: [time], className: "link", title: `${row.created_at}: show request ${id}` });
  button.type = "button";
  button.addEventListener("click", () => detail(id));
  return button;
}

function session(id) {
  if (!known(id)) return "–";
  const button = make("button", { text: id, className: "link cut", title: `Only session ${id}` });
  button.type = "button";
  button.addEventListener("click", () => {
    $("filters").elements.session_id.value = id;
    refresh();
  });
  return button;
}

const OUTCOMES = { completed: "healthy", cancelled: "unknown", failed: "unhealthy", interrupted: "unhealthy" };
const REASONS = {
  response_affinity: "owns the response",
  session_affinity: "session stays",
  weighted_least_connections: "least loaded",
  session_failover: "session moved",
  panic: "all cooling down",
};

const words = (name) => name.replaceAll("_", " ");

const TABLES = {
  requests: [
    ["Time", (r) => opener(r, r.id)],
    ["Session", (r) => session(r.session_id)],
    ["Resource", (r) => shown(r.resource_id)],
    ["Model", (r) => shown(r.model)],
    ["Outcome", (r) => make("span", { text: r.outcome, className: OUTCOMES[r.outcome], title: r.error_message ?? "" })],
    ["Status", (r) => shown(r.status_code)],
    ["Attempts", (r) => number(r.attempts)],
    ["Tokens", (r) => number(r.total_tokens)],
    ["Time taken", (r) => milliseconds(r.latency_ms)],
  ],
  decisions: [
    ["Time", (d) => opener(d, d.request_id)],
    ["Session", (d) => session(d.session_id)],
    ["Pool", (d) => shown(d.pool_id)],
    ["Resource", (d) => shown(d.resource_id)],
    ["Reason", (d) => make("span", { text: REASONS[d.reason] ?? d.reason, title: d.reason })],
    ["Attempt", (d) => number(d.attempt)],
    ["Left because", (d) => (d.cause ? words(d.cause) : "")],
    ["Candidates", (d) => number(d.candidates.length)],
    ["Redis", (d) => (d.degraded ? "away" : "")],
  ],
};

function fill(table, columns, rows, empty) {
  const head = make("tr", {
    children: columns.map(([name]) => {
      const cell = make("th", { text: name });
      cell.scope = "col";
      return cell;
    }),
  });
  const lines = rows.map((row) =>
    make("tr", {
      children: columns.map(([, cell]) => make("td", { children: [cell(row)] })),
    }),
  );
  const nothing = make("td", { text: empty, className: "empty" });
  nothing.colSpan = columns.length;
  table.replaceChildren(
    make("thead", { children: [head] }),
    make("tbody", { children: lines.length ? lines : [make("tr", { children: [nothing] })] }),
  );
}

const pages = new Map(); // table -> { rows, cursor, older: were older rows requested? }

function query(cursor) {
  const given = [...new FormData($("filters"))].filter(([, value]) => value);
  const parameters = new URLSearchParams(given);
  parameters.set("limit", "50");
  if (cursor) parameters.set("cursor", cursor);
  return parameters;
}

function draw(name) {
  const { rows, cursor } = pages.get(name);
  const filtered = [...query().keys()].length > 1;
  const empty = filtered
    ? "Nothing matches this filter."
    : "Nothing yet. Send a request to /v1/responses and it appears here.";
  const table = $(name);
  const focused = table.contains(document.activeElement) ? document.activeElement.title : null;
  fill(table, TABLES[name], rows, empty);
  if (focused) [...table.querySelectorAll("button")].find((b) => b.title === focused)?.focus();
  $(`${name}-more`).hidden = !cursor;
}

async function older(name) {
  const page = pages.get(name);
  const { data, next_cursor: cursor } = await json(`/admin/${name}?${query(page.cursor)}`);
  pages.set(name, { rows: [...page.rows, ...data], cursor, older: true });
  draw(name);
}

async function refresh({ keepOlder = false } = {}) {
  try {
    for (const name of Object.keys(TABLES)) {
      if (keepOlder && pages.get(name)?.older) continue; // the user is reading older rows
      const { data, next_cursor: cursor } = await json(`/admin/${name}?${query()}`);
      pages.set(name, { rows: data, cursor, older: false });
      draw(name);
    }
    $("history-problem").hidden = true;
  } catch (error) {
    said(error);
  }
}

function said(error) {
  if (error instanceof Refused) return;
  $("history-problem").textContent = error.message;
  $("history-problem").hidden = false;
  stored = null; // retry with the next state
}

let due = null;

function refreshSoon() {
  due ??= setTimeout(() => {
    due = null;
    refresh({ keepOlder: true });
  }, pages.size ? HISTORY_EVERY_MS : 0);
}

// One request ----------------------------------------------------------------

const CANDIDATES = [
  ["Resource", (c) => shown(c.resource)],
  ["Score", (c) => (known(c.score) ? c.score.toFixed(2) : "–")],
  ["In flight", (c) => number(c.in_flight)],
  ["Weight", (c) => shown(c.weight)],
  ["Health", (c) => make("span", { text: HEALTH[c.health] ?? c.health, className: c.health })],
  ["Refused because", (c) => shown(c.refused)],
];

function attempt(decision) {
  const table = make("table");
  fill(table, CANDIDATES, decision.candidates, "No candidates were recorded.");
  const reason = REASONS[decision.reason] ?? decision.reason;
  // On a first attempt, this is the resource that the session or state moved from.
  const left = decision.cause ? `; ${decision.attempt > 1 ? "the one before" : "its home"}: ${words(decision.cause)}` : "";
  const text = `Attempt ${decision.attempt}: ${decision.resource_id ?? "no resource"} (${reason}${left})`;
  return [make("h3", { text }), make("div", { className: "scroll", children: [table] })];
}

async function detail(id) {
  const body = $("detail-body");
  body.replaceChildren(make("p", { text: "…" }));
  $("detail").showModal();
  try {
    const { decisions, ...row } = await json(`/admin/requests/${encodeURIComponent(id)}`);
    const facts = Object.entries(row).filter(([, value]) => known(value));
    const list = make("dl", {
      className: "facts",
      children: facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]),
    });
    body.replaceChildren(...decisions.flatMap(attempt), make("h3", { text: "As stored" }), list);
  } catch (error) {
    if (error instanceof Refused) $("detail").close();
    else body.replaceChildren(make("p", { text: error.message }));
  }
}

// Start ----------------------------------------------------------------------

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-value").value.trim();
  sessionStorage.setItem(TOKEN, token);
  $("token-value").value = "";
  $("token").hidden = true;
  live();
});

$("log-out").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload();
});
addEventListener("hashchange", () => {
  if (loggedIn() !== token) location.reload();
});

$("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});
$("filters").addEventListener("reset", () => setTimeout(refresh)); // after the form is reset
$("resource-choice").addEventListener("change", () => refresh());

for (const name of Object.keys(TABLES)) {
  $(`${name}-more`).addEventListener("click", () => older(name).catch(said));
}

$("check").addEventListener("click", async () => {
  $("check").disabled = true;
  $("check-said").textContent = "checking…";
  try {
    const { data } = await json("/admin/health/check", { method: "POST" });
    const bad = data.filter((found) => found.health !== "healthy");
    const all = `All ${data.length} answered.`;
    $("check-said").textContent = bad.length
      ? bad.map((found) => `${found.resource_id}: ${found.cause || HEALTH[found.health]}`).join("; ")
      : all;
  } catch (error) {
    $("check-said").textContent = error instanceof Refused ? "" : error.message;
  } finally {
    $("check").disabled = false;
  }
});

registry({ make, fill, json, shown, Refused });
live();
