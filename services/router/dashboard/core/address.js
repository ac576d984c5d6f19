// The address of a view: `#/requests/ID?status=5xx`. It holds all filters, so that it
// can be shared.

export function read(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...rest] = path.split("/");
  return {
    name,
    id: rest.length ? decoded(rest.join("/")) : null,
    params: Object.fromEntries(new URLSearchParams(query ?? "")),
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function link(name, id = null, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value != null);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${name}${id === null ? "" : `/${encodeURIComponent(id)}`}${query}`;
}

export function go(address) {
  location.hash = address;
}

// The same view with other parameters. Typing in a search field makes no history.
export function change(params, { replace = false } = {}) {
  const { name, id, params: before } = read();
  const address = link(name, id, { ...before, ...params });
  if (!replace) return go(address);
  history.replaceState(null, "", address);
  return dispatchEvent(new HashChangeEvent("hashchange"));
}
