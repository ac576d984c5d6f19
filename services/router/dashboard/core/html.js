// What views build elements with. Values become text and attributes, never markup.

import { html, nothing, render, svg } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";

import { link } from "./address.js";
import { HEALTH, ago, exact, known } from "./words.js";

export { html, nothing, render, repeat, svg };

// A moment, relative to now; the exact time is its title.
export const moment = (iso, now) =>
  known(iso) ? html`<time datetime=${iso} title=${exact(iso)}>${ago(iso, now)}</time>` : "–";

export const badge = (kind, text, title = "") =>
  html`<span class="badge ${kind}" title=${title}>${text}</span>`;

export const healthBadge = (health, text = HEALTH[health] ?? health, title = "") =>
  badge(health, text, title);

// A link to a view, or a dash.
export const to = (name, id, text = id) =>
  known(id) ? html`<a class="cut" href=${link(name, id)} title=${text}>${text}</a>` : "–";

// A link to a request, shown as its time; its name has the id too.
export const toRequest = (id, iso, now) =>
  html`<a href=${link("requests", id)}>${moment(iso, now)}<span class="unseen">, request ${id}</span></a>`;

export const notice = (text, kind = "warn") =>
  text ? html`<p class="notice ${kind}" role="status">${text}</p>` : nothing;

export const facts = (pairs) => html`<dl class="facts">
  ${pairs.filter(([, value]) => known(value)).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
</dl>`;

// A list of choices, one of them chosen, each with an address.
export const tabs = (label, choices, chosen) => html`<nav class="tabs" aria-label=${label}>
  ${choices.map(([value, text, href]) => html`<a href=${href} aria-current=${value === chosen ? "true" : nothing}>${text}</a>`)}
</nav>`;
