// A request's time by its phases, from the offsets that the gateway measured.

// Offsets of `timeline`: field, name of the step that ends there, what happened before
// it, its color, and what it means when that is most of the time.
const STEPS = [
  ["received", "Received", "", "waited", ""],
  ["acquired", "Resource chosen", "while a resource was chosen", "waited", "The request waited for a resource: look at the attempts below, and at queues."],
  ["sent", "Sent upstream", "before the request was sent", "waited", "Earlier attempts, or a new connection: look at the attempts below."],
  ["first_byte", "First byte", "waiting for the upstream's first byte", "upstream", "The upstream had the request and had not begun to answer."],
  ["first_token", "First token", "waiting for the first token", "upstream", "The upstream was thinking: reasoning, or a long input."],
  ["done", "Done", "while the answer was generated", "answer", "The upstream generated the answer, or the client read slowly."],
];

export function phases(request) {
  const offsets = request.timeline ?? measured(request);
  let from = 0;
  return STEPS.flatMap(([field, name, during, kind, means]) => {
    const at = offsets[`${field}_ms`] ?? null;
    if (at === null) return [];
    const phase = { name, during, kind, means, from, to: Math.max(at, from) };
    from = phase.to;
    return [phase];
  });
}

// Rows of older gateways have no offsets.
function measured({ latency_ms: done, upstream_ms: upstream, first_token_ms: token }) {
  return { received_ms: 0, sent_ms: done !== null && upstream !== null ? done - upstream : null, first_token_ms: token, done_ms: done };
}

const SLOW_MS = 200;

// The phase that took more than half of the time of a slow request.
export function slowest(parts) {
  const whole = parts.at(-1)?.to ?? 0;
  if (whole < SLOW_MS) return null;
  return parts.find(({ from, to }) => to - from > whole / 2) ?? null;
}
