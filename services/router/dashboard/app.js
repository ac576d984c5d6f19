// The dashboard: which view is shown, when its data is loaded, and what is drawn again.
// Views are in views/, one module each: `title`, `load` and `render` are described at
// `show`.

import { change, link, read } from "./core/address.js";
import { LoginNeeded, json, logIn, logOut, loggedIn, tokenOfLink, whenRefused } from "./core/api.js";
import { closeDialog } from "./core/dialog.js";
import { html, notice, nothing, render } from "./core/html.js";
import { live, watch } from "./core/live.js";
import { selecting } from "./core/paged.js";

const $ = (id) => document.getElementById(id);

// By the first part of the address: the module, and the entry in the menu.
const VIEWS = {
  "": { load: () => import("./views/overview.js"), menu: "Overview" },
  resources: { load: () => import("./views/resources.js"), menu: "Resources" },
  requests: { load: () => import("./views/requests.js"), menu: "Traffic" },
  sessions: { load: () => import("./views/sessions.js"), menu: "Sessions" },
  keys: { load: () => import("./views/keys.js"), menu: "Keys and teams" },
  providers: { load: () => import("./views/providers.js"), menu: "Providers" },
  system: { load: () => import("./views/system.js"), menu: "System" },
  explain: { load: () => import("./views/explain.js"), menu: "Explain" },
};
// Pages of one object have a module of their own.
const PAGES = {
  resources: () => import("./views/resource.js"),
  requests: () => import("./views/request.js"),
  sessions: () => import("./views/session.js"),
  keys: () => import("./views/key.js"),
};

let me = { name: "", role: "viewer" };
let current = null; // { view, address, data, error }

// A view's module: `title(id)`; `load(address)`, which returns its data, every `every`
// milliseconds if it says so; `render(context)`, whose context is `draw`'s.
async function show() {
  const address = read();
  const own = address.id === null ? VIEWS[address.name]?.load : PAGES[address.name];
  const load = own ?? VIEWS[""].load;
  // At once if it was loaded before, so that a search field never gets an older text.
  try {
    if (!modules.has(load)) modules.set(load, await load());
  } catch {
    $("live").textContent = "The router did not send this view. Reload the page to try again.";
    return;
  }
  const view = modules.get(load);
  if (address.name !== read().name || address.id !== read().id) return; // left meanwhile
  const same = current?.view === view && current.address.id === address.id;
  const again = same && asked(address.params) === asked(current.address.params);
  if (again) current.address = address; // a load that is under way is for it
  else current = { view, address, data: same ? current.data : null, error: null };
  document.title = `${view.title(address.id)} · Responses Proxy`;
  menu(address.name);
  draw();
  if (!same) {
    if (leftAnother) $("main").focus({ preventScroll: true });
    leftAnother = true;
    scrollTo(0, 0);
  }
  if (!again) await loadData();
}

const modules = new Map();
// Parameters that only say how data is shown.
const SHOWN = ["q", "sort", "order", "revoked"];
const asked = (params) => JSON.stringify(Object.entries(params).filter(([name]) => !SHOWN.includes(name)).sort());

let leftAnother = false; // the first view does not take the focus
let timer = null;

async function loadData() {
  const loading = current;
  clearTimeout(timer);
  try {
    const data = (await loading.view.load?.(loading.address)) ?? null;
    if (loading !== current) return;
    loading.data = data;
    loading.error = null;
  } catch (error) {
    if (loading !== current || error instanceof LoginNeeded) return;
    loading.error = error.message;
  }
  draw();
  if (loading.view.every) timer = setTimeout(loadWhenSeen, loading.view.every);
}

// Neither a hidden page nor text that is being selected is loaded again.
function loadWhenSeen() {
  if (!document.hidden && !selecting()) return void loadData();
  timer = setTimeout(loadWhenSeen, current.view.every);
}

let due = false;

// Draws at most once a frame, and nothing while the page is hidden.
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    drawn();
  });
}

function drawn() {
  if (!current || $("view").hidden) return;
  const { view, address, data, error } = current;
  const context = {
    id: address.id,
    params: address.params,
    data,
    state: live.state,
    now: Date.now(),
    writes: me.role === "admin",
    reload: loadData,
    redraw: draw,
  };
  $("live").textContent = live.status;
  render(warnings(live), $("notices"));
  render(html`${notice(error, "bad")}${view.render(context)}`, $("view"));
}

function warnings({ state, lost }) {
  const lines = (state?.degraded ?? []).map((what) => `Degraded: ${what}.`);
  if (lost) lines.unshift(`Connection lost, this page shows what was known before: ${lost}`);
  if (state?.admin === "open") {
    lines.push(
      "Warning: whoever reaches this address can use this page, and every upstream key through it. " +
        "Unset PROXY_ALLOW_OPEN_ADMIN to ask for a token.",
    );
  }
  return lines.map((text) => html`<p class="notice warn">${text}</p>`);
}

function menu(chosen) {
  const entries = Object.entries(VIEWS).map(
    ([name, { menu: text }]) => html`<a href=${link(name)} aria-current=${name === chosen ? "page" : nothing}>${text}</a>`,
  );
  render(entries, $("views"));
}

// Login ----------------------------------------------------------------------

function wantToken(why) {
  closeDialog();
  $("token-why").textContent = why;
  $("token").hidden = false;
  $("view").hidden = true;
  $("views").hidden = true;
  $("log-out").hidden = true;
  $("live").textContent = "token needed";
  render(nothing, $("notices"));
  $("token-value").focus();
}

async function start() {
  try {
    me = await json("/admin/whoami");
  } catch (error) {
    if (error instanceof LoginNeeded) return;
    $("live").textContent = `${error.message} Trying again…`;
    setTimeout(start, 2000);
    return;
  }
  $("token").hidden = true;
  $("view").hidden = false;
  $("views").hidden = false;
  $("log-out").hidden = !loggedIn();
  $("log-out").title = me.name ? `${me.name}, role ${me.role}` : "";
  show();
  watch(draw);
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn($("token-value").value.trim());
  $("token-value").value = "";
  start();
});

$("log-out").addEventListener("click", () => {
  logOut();
  location.reload();
});

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the view's
  $("main").focus();
});

// `/` goes to the search field of the view.
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea, select") || $("dialog").open) return;
  const search = $("view").querySelector("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
});

addEventListener("hashchange", () => {
  if (tokenOfLink()) location.reload();
  else show();
});

// A form with `data-filter` puts its fields into the address.
addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-filter]")) return;
  event.preventDefault();
  change(Object.fromEntries(new FormData(event.target)));
});
addEventListener("change", (event) => {
  if (event.target.matches("form[data-filter] select")) event.target.form.requestSubmit();
});

whenRefused(wantToken);
start();
