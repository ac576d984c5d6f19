// The state of the proxy, live by /admin/events.

import { LoginNeeded, follow } from "./api.js";

const LONGEST_PAUSE_MS = 10_000;

// `lost`: why the state is an old one; null if the stream goes on, or ended in order.
export const live = { state: null, status: "connecting…", lost: null };

let current = new AbortController();

// Calls `changed` after each change of `live`, until the token is refused, or until it
// is called again.
export async function watch(changed) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  let pause = 500;
  for (;;) {
    const began = Date.now();
    try {
      await follow("/admin/events?changes=true", (name, data) => {
        live.state = name === "change" && live.state ? merged(live.state, data) : data;
        live.status = "live";
        live.lost = null;
        changed();
      }, signal); // the router ends each stream after some minutes
    } catch (error) {
      if (signal.aborted || error instanceof LoginNeeded) return;
      live.lost = error.message;
    }
    if (Date.now() - began > LONGEST_PAUSE_MS) pause = 500;
    live.status = "connection lost, trying again…";
    changed();
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

const RECENT = 50; // rows of a list that are kept

// Differences have the changed members: of resources those that changed, of decisions
// and requests the new ones.
export function merged(state, difference) {
  const next = { ...state, ...difference };
  for (const list of ["decisions", "requests"]) {
    if (difference[list]) next[list] = [...difference[list], ...state[list]].slice(0, RECENT);
  }
  if (difference.resources) {
    const changes = new Map(difference.resources.map((resource) => [resource.id, resource]));
    next.resources = state.resources.map((resource) => changes.get(resource.id) ?? resource);
  }
  return next;
}
