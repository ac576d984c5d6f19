// Numbers, times and the codes of the API, in words.

export const known = (value) => value !== null && value !== undefined && value !== "";
export const shown = (value) => (known(value) ? String(value) : "–");
// Its formatters are made once: that is what costs.
const NUMBER = new Intl.NumberFormat();
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const number = (value) => (known(value) ? NUMBER.format(value) : "–");
export const short = (value) => (known(value) ? SHORT.format(value) : "–");
export const plural = (count, one, several = `${one}s`) => `${number(count)} ${count === 1 ? one : several}`;
export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part ? 1 : 0)} %` : "–");
export const exact = (iso) => TIME.format(new Date(iso));

export function milliseconds(value) {
  if (!known(value)) return "–";
  if (value < 10) return `${Number(value.toFixed(1))} ms`;
  return value < 10_000 ? `${NUMBER.format(Math.round(value))} ms` : duration(value / 1000);
}

export function dollars(value) {
  if (!known(value)) return "–";
  const digits = value !== 0 && Math.abs(value) < 1 ? 4 : 2;
  return `$${Number(value).toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

export function bytes(value) {
  if (!known(value)) return "–";
  if (value < 1024) return `${value} B`;
  return value < 1048576 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1048576).toFixed(1)} MiB`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172_800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} days`;
}

export function ago(iso, now = Date.now()) {
  const seconds = (now - new Date(iso)) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

const words = (code) => code.replaceAll("_", " ");

export const HEALTH = {
  healthy: "healthy",
  unknown: "not checked yet",
  degraded: "cooling down",
  unhealthy: "key refused",
};

// Sick ones first.
export const SICKNESS = { unhealthy: 0, degraded: 1, unknown: 2, healthy: 3 };

export const OUTCOMES = { completed: "healthy", cancelled: "unknown", failed: "unhealthy", interrupted: "unhealthy" };

export const REASONS = {
  response_affinity: "it owns the response or conversation",
  session_affinity: "the session stays where it was",
  weighted_least_connections: "it was the least loaded",
  session_failover: "the session moved here, because its resource could not serve",
  panic: "all were cooling down, and it is ready first",
  replayed_without_reasoning: "the owning account is gone; sent again without its reasoning",
  socket: "the WebSocket stays on its resource",
  no_capacity: "no resource could serve",
  busy: "all that could serve were busy",
  owner_gone: "the account that owns the state has no working key",
  owner_limited: "the account that owns the state is rate limited",
};
export const reason = (code) => (known(code) ? (REASONS[code] ?? words(code)) : "–");

const CAUSES = {
  rate_limited: "rate limited (429)",
  insufficient_quota: "no credit left",
  key_refused: "the upstream refused the key",
  model_refused: "the upstream does not give this model to this key",
  request_refused: "another account's reasoning was refused",
  server_error: "server error (5xx)",
  connect_error: "no connection",
  connection_lost: "the connection was lost before the response",
  stale_connection: "a kept connection had been closed",
  timeout: "no response in time",
  no_key: "this gateway does not have the key",
  no_free_connection: "no free connection",
  lives_elsewhere: "the state is in another account",
  target_unavailable: "the alias's target before could not serve",
  cooling_down: "it was cooling down",
  unhealthy: "its key was refused",
  gone: "it is no longer configured",
  another_pool: "it is in another pool",
  limit_reached: "its account was at its limit",
  busy: "it had as many requests in flight as it may have",
};
export const cause = (code) => (known(code) ? (CAUSES[code] ?? words(code)) : "");

// Why a candidate was passed over. Times in it are Unix milliseconds; shown as seconds
// after the decision.
export function refusal(text, decidedAt) {
  if (!known(text)) return "";
  return text.replace(/ until (\d{12,14})/, (_, ms) => `, ${duration((ms - new Date(decidedAt)) / 1000)} more`);
}
