// The dashboard: state by /admin/events, history by /admin/requests and
// /admin/decisions. Everything shown goes through textContent.

const $ = (id) => document.getElementById(id);
const HISTORY_EVERY_MS = 3000;
const LOADS_KEPT = 60;
const loads = new Map(); // resource id -> in flight over the last minute
let token = sessionStorage.getItem("admin-token");
let filters = new URLSearchParams();

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  return element;
}

function ask(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers });
}

function wantToken() {
  $("token").hidden = false;
  $("main").hidden = true;
  $("live").textContent = "token needed";
}

function notices(lines) {
  $("notices").replaceChildren(...lines.map((line) => make("p", line)));
}

const shown = (value) => (value === null || value === undefined ? "–" : value);

function totals(state) {
  const ledger = state.ledger;
  const rows = [
    ["Resources", state.resources.length],
    ["In flight", ledger.in_flight],
    ["Affinities", state.affinity_count],
    ["Queue depth", state.queue_depth],
    ["Stored requests", ledger.stored],
    ["Dead letters", ledger.dead_lettered],
  ];
  $("totals").replaceChildren(
    ...rows.map(([name, value]) => {
      const box = make("div");
      box.append(make("dt", name), make("dd", shown(value)));
      return box;
    }),
  );
}

function chart(points) {
  const highest = Math.max(1, ...points);
  const line = points
    .map((p, i) => `${(i * 100) / (LOADS_KEPT - 1)},${30 - (p * 28) / highest}`)
    .join(" ");
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "in flight over the last minute");
  const path = document.createElementNS(space, "polyline");
  path.setAttribute("points", line);
  path.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(path);
  return svg;
}

function card(resource) {
  const points = [...(loads.get(resource.id) ?? []), resource.in_flight];
  loads.set(resource.id, points.slice(-LOADS_KEPT));
  const box = make("article", null, "card");
  const title = make("h4");
  title.append(make("span", resource.id), make("span", resource.health, resource.health));
  box.append(title);
  const until = resource.cooldown_until ? `cooling down until ${resource.cooldown_until}` : null;
  const lines = [
    `${resource.in_flight} in flight, weight ${resource.weight}`,
    `${resource.requests} requests, ${resource.errors} errors`,
    `pool ${shown(resource.pool_id)}, account ${resource.account_id}`,
    `last latency ${resource.last_latency_ms === null ? "–" : `${Math.round(resource.last_latency_ms)} ms`}`,
    until,
    resource.last_error ? `last error: ${resource.last_error}` : null,
  ];
  box.append(...lines.filter(Boolean).map((line) => make("p", line)));
  box.append(chart(loads.get(resource.id)));
  return box;
}

function show(state) {
  $("token").hidden = true;
  $("main").hidden = false;
  $("live").textContent = `live, ${new Date(state.timestamp).toLocaleTimeString()}`;
  const open = state.admin === "open" ? ["Anyone who reaches this port can read this page. Set PROXY_ADMIN_TOKEN."] : [];
  notices([...state.degraded.map((what) => `Degraded: ${what}`), ...open]);
  totals(state);
  const cards = state.resources.map(card);
  const none = make("p", "No resource yet. Set OPENAI_API_KEY, or start with PROXY_SIMULATE=true.");
  $("resources").replaceChildren(...(cards.length ? cards : [none]));
}

function fill(table, columns, rows, empty) {
  const head = make("tr");
  head.append(...columns.map(([name]) => make("th", name)));
  const body = rows.map((row) => {
    const line = make("tr");
    for (const [, cell] of columns) {
      const value = cell(row);
      const box = make("td");
      if (value instanceof Node) box.append(value);
      else box.textContent = String(shown(value));
      line.append(box);
    }
    return line;
  });
  table.replaceChildren(head, ...(body.length ? body : [make("caption", empty)]));
}

function opener(id) {
  const button = make("button", "show");
  button.type = "button";
  button.title = id;
  button.addEventListener("click", () => detail(id));
  return button;
}

async function detail(id) {
  const answer = await ask(`/admin/requests/${encodeURIComponent(id)}`);
  const body = await answer.json();
  const text = answer.ok ? JSON.stringify(body, null, 2) : body.error.message;
  $("detail-body").replaceChildren(make("pre", text));
  $("detail").showModal();
}

const at = (row) => new Date(row.created_at).toLocaleTimeString();
const REQUESTS = [
  ["Time", at],
  ["Session", (r) => r.session_id],
  ["Resource", (r) => r.resource_id],
  ["Model", (r) => r.model],
  ["Status", (r) => r.status_code],
  ["Outcome", (r) => make("span", r.outcome, r.outcome)],
  ["Tries", (r) => r.attempts],
  ["Tokens", (r) => r.total_tokens],
  ["ms", (r) => (r.latency_ms === null ? null : Math.round(r.latency_ms))],
  ["", (r) => opener(r.id)],
];
const DECISIONS = [
  ["Time", at],
  ["Session", (d) => d.session_id],
  ["Resource", (d) => d.resource_id],
  ["Reason", (d) => d.reason],
  ["Attempt", (d) => d.attempt],
  ["", (d) => opener(d.request_id)],
];

async function history() {
  for (const [name, columns] of [["requests", REQUESTS], ["decisions", DECISIONS]]) {
    const answer = await ask(`/admin/${name}?limit=50&${filters}`);
    if (!answer.ok) continue;
    const { data } = await answer.json();
    fill($(name), columns, data, "Nothing stored yet: send a request, or widen the filter.");
  }
}

// EventSource cannot send the token, so the stream is read by fetch.
async function follow() {
  const answer = await ask("/admin/events");
  if (answer.status === 401) return wantToken();
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5));
      if (data.length) show(JSON.parse(data.join("\n")));
    }
  }
}

async function live() {
  while ($("token").hidden) {
    try {
      await follow();
    } catch {
      $("live").textContent = "connection lost, trying again…";
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = new FormData(event.target).get("token");
  sessionStorage.setItem("admin-token", token);
  $("token").hidden = true;
  live();
});
$("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  filters = new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value));
  history();
});
live();
setInterval(() => history().catch(() => undefined), HISTORY_EVERY_MS);
history().catch(() => undefined);
