// Requests to the admin API, with the admin token of this tab.

const TOKEN = "admin-token"; // its key in sessionStorage, so each tab logs in

let token = tokenOfLink() ?? sessionStorage.getItem(TOKEN);
let askForToken = () => {};

export class LoginNeeded extends Error {}

export const loggedIn = () => token !== null;

// `callback(text)` shows the login form.
export function whenRefused(callback) {
  askForToken = callback;
}

export function logIn(value) {
  token = value;
  sessionStorage.setItem(TOKEN, value);
}

export function logOut() {
  token = null;
  sessionStorage.removeItem(TOKEN);
}

// The login link has the token after the #, which browsers never send. It is removed
// from the address bar and the history at once.
export function tokenOfLink() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return null;
  sessionStorage.setItem(TOKEN, given);
  history.replaceState(null, "", location.pathname);
  return given;
}

export async function ask(path, options = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (options.method && options.method !== "GET") headers["content-type"] = "application/json";
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    const why = token
      ? "That token was not accepted; it may have been replaced."
      : "This proxy asks for its admin token.";
    logOut();
    askForToken(why);
    throw new LoginNeeded("Log in first.");
  }
  return answer;
}

// The JSON of an answer. An error has the message of the router's own.
export async function json(path, options) {
  const answer = await ask(path, options);
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw failed(answer, body);
  return body;
}

const failed = (answer, body) => new Error(body?.error?.message ?? `The router answered ${answer.status}.`);

export const send = (method, path, body) =>
  json(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });

// A path with parameters; empty ones are left out.
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

// Calls `take(name, data)` for each server-sent event. EventSource cannot send the
// token, so fetch reads the stream.
export async function follow(path, take, signal) {
  const answer = await ask(path, { signal });
  if (!answer.ok) throw failed(answer, await answer.json().catch(() => null));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      let name = "message";
      const data = [];
      for (const line of event.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        if (line.startsWith("data:")) data.push(line.slice(5));
      }
      if (data.length) take(name, JSON.parse(data.join("\n")));
    }
  }
}

// For a view of several parts: one that cannot be loaded is its error, and the others
// are shown. Without a token, nothing is.
export async function part(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof LoginNeeded) throw error;
    return { error: error.message };
  }
}
