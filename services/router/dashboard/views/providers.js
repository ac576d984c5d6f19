// Providers and model aliases.

import { json, part, send } from "../core/api.js";
import { confirmed, showForm } from "../core/dialog.js";
import { filled } from "../core/form.js";
import { badge, html, moment, notice, nothing, to } from "../core/html.js";
import { table } from "../core/table.js";
import { shown } from "../core/words.js";

export const title = () => "Providers and models";
export const every = 10_000;

const PROVIDERS = "/admin/providers";
const MODELS = "/admin/models";
const providerPath = (id) => `${PROVIDERS}/${encodeURIComponent(id)}`;
// An alias may contain slashes.
const aliasPath = (alias) => `${MODELS}/${alias.split("/").map(encodeURIComponent).join("/")}`;

let said = ""; // the result of the last test or change

export async function load() {
  const [providers, models] = await Promise.all([part(json(PROVIDERS)), part(json(MODELS))]);
  return { providers, models };
}

const providerColumns = (now, buttons) => [
  { name: "Provider", cell: (p) => html`${p.id}${p.name && p.name !== p.id ? html` <small>${p.name}</small>` : nothing}` },
  { name: "Type", cell: (p) => p.provider_type },
  { name: "Address", cell: (p) => html`<span class="cut" title=${p.base_url}>${p.base_url}</span>` },
  { name: "Key", cell: (p) => p.credential_ref ?? (p.api_key_configured ? "sealed" : "none") },
  { name: "Pool", cell: (p) => shown(p.pool_id) },
  { name: "Weight", cell: (p) => shown(p.weight), className: "number" },
  { name: "State", cell: (p) => (p.enabled ? badge("healthy", "enabled") : badge("unknown", "disabled")) },
  { name: "Resources", cell: (p) => p.resources.map((id, place) => html`${place ? ", " : ""}${to("resources", id)}`) },
  { name: "Changed", cell: (p) => moment(p.updated_at, now) },
  ...(buttons ? [{ name: "Actions", cell: buttons }] : []),
];

const modelColumns = (now, buttons) => [
  { name: "Alias", cell: (m) => m.alias },
  { name: "Leads to", cell: (m) => m.targets.map(target).join("; ") },
  { name: "State", cell: (m) => (m.enabled ? badge("healthy", "enabled") : badge("unknown", "disabled")) },
  { name: "Changed", cell: (m) => moment(m.updated_at, now) },
  ...(buttons ? [{ name: "Actions", cell: buttons }] : []),
];

const target = (t) => `${t.upstream_id} of ${t.provider_id}, weight ${t.weight}${t.priority ? `, priority ${t.priority}` : ""}`;

export function render({ data, now, writes, reload, redraw }) {
  const providers = data?.providers?.data ?? [];
  const act = { reload, redraw };
  return html`<h1>Providers and models</h1>
    ${notice(data?.providers?.error ?? data?.models?.error)}
    <p id="registry-said" class="said" role="status">${said}</p>
    <div class="bar"><h2>Providers</h2>
      ${writes ? html`<button type="button" class="primary" @click=${() => addProvider(act)}>Add a provider</button>` : nothing}</div>
    ${table({ label: "Providers", columns: providerColumns(now, writes ? (p) => providerButtons(p, act) : null), rows: providers, key: (p) => p.id,
      empty: data ? "No provider is registered. Keys of the environment are resources all the same." : "…" })}
    <div class="bar"><h2>Model aliases</h2>
      ${writes && providers.length ? html`<button type="button" @click=${() => addAlias(providers, act)}>Add an alias</button>` : nothing}</div>
    ${table({ label: "Model aliases", columns: modelColumns(now, writes ? (m) => modelButtons(m, providers, act) : null), rows: data?.models?.data ?? [], key: (m) => m.alias,
      empty: data ? "There is no model alias." : "…" })}`;
}

async function attempt(what, { reload, redraw }) {
  said = "…";
  redraw();
  try {
    said = (await what()) ?? "";
    await reload();
  } catch (error) {
    said = error.message;
  }
  redraw();
}

const button = (text, label, what) => html`<button type="button" class="link" aria-label="${text} ${label}" @click=${what}>${text}</button> `;

function providerButtons(provider, act) {
  const { id, enabled } = provider;
  return html`
    ${button("Test", id, () => attempt(async () => tested(await send("POST", `${PROVIDERS}/test`, { id })), act))}
    ${button("Change", id, () => changeProvider(provider, act))}
    ${button(enabled ? "Disable" : "Enable", id, () => attempt(() => send("PATCH", providerPath(id), { enabled: !enabled }).then(() => ""), act))}
    ${button("Delete", id, () => confirmed({
      title: `Delete the provider ${id}?`,
      text: "Its key is deleted too, and its resources serve no more requests.",
      button: "Delete",
      act: () => attempt(() => send("DELETE", providerPath(id)).then(() => ""), act),
    }))}`;
}

function modelButtons({ alias, enabled, targets }, providers, act) {
  return html`
    ${button("Test", alias, () => attempt(async () => (await send("POST", `${MODELS}/test`, { alias })).detail, act))}
    ${button("Add a target to", alias, () => addTarget(alias, targets, providers, act))}
    ${button(enabled ? "Disable" : "Enable", alias, () => attempt(() => send("PATCH", aliasPath(alias), { enabled: !enabled }).then(() => ""), act))}
    ${button("Delete", alias, () => confirmed({
      title: `Delete the alias ${alias}?`,
      text: "Requests that name it are sent upstream with this name.",
      button: "Delete",
      act: () => attempt(() => send("DELETE", aliasPath(alias)).then(() => ""), act),
    }))}`;
}

const tested = ({ results }) => results.map((r) => `${r.key}: ${r.detail}`).join("; ");

const TYPES = [["openai", "openai"], ["azure", "azure"], ["custom", "custom"]];

const providerFields = (row) => [
  { name: "name", label: "Name", type: "text", value: row.name },
  { name: "provider_type", label: "Type", type: "select", options: TYPES, value: row.provider_type ?? "openai" },
  { name: "base_url", label: "Base URL", type: "url", value: row.base_url },
  { name: "api_key", label: "API key", type: "password", hint: row.id ? "empty: as it is" : "several with commas" },
  { name: "credential_ref", label: "Or a variable", type: "text", hint: "env:PROVIDER_NAME", value: row.credential_ref },
  { name: "pool_id", label: "Pool", type: "text", value: row.pool_id },
  { name: "account_id", label: "Account", type: "text", value: row.account_id },
  { name: "weight", label: "Weight", type: "number", min: 0.001, value: row.weight },
];

function addProvider(act) {
  showForm({
    title: "Add a provider",
    fields: [{ name: "id", label: "Id", type: "text", required: true }, ...providerFields({})],
    button: "Add",
    act: (values) => send("POST", PROVIDERS, filled(values)).then(async (made) => {
      said = `${made.id} serves as ${made.resources.join(", ")}.`;
      await act.reload();
    }),
    more: [{
      name: "Test the key",
      act: async (values) => {
        const { provider_type, base_url, api_key, credential_ref } = values;
        return tested(await send("POST", `${PROVIDERS}/test`, filled({ provider_type, base_url, api_key, credential_ref })));
      },
    }],
  });
}

function changeProvider(provider, act) {
  showForm({
    title: `Change ${provider.id}`,
    fields: providerFields(provider),
    button: "Change",
    act: async (values) => {
      const given = Object.entries({ ...values, name: values.name ?? "" }).filter(
        ([name, value]) => value !== (provider[name] ?? null) && !(name === "weight" && value === null),
      );
      await send("PATCH", providerPath(provider.id), Object.fromEntries(given));
      await act.reload();
    },
  });
}

const targetFields = (providers) => [
  { name: "provider_id", label: "Provider", type: "select", required: true, options: providers.map(({ id }) => [id, id]), value: providers[0]?.id },
  { name: "upstream_id", label: "Its model", type: "text", required: true },
  { name: "weight", label: "Weight", type: "number", min: 0.001 },
  { name: "priority", label: "Priority", type: "number", min: 0, hint: "0 first; others when none of these can serve" },
];

function addAlias(providers, act) {
  showForm({
    title: "Add an alias",
    fields: [{ name: "alias", label: "Alias", type: "text", required: true }, ...targetFields(providers)],
    button: "Add",
    act: async (values) => {
      const { alias, ...first } = filled(values);
      const made = await send("POST", MODELS, { alias, targets: [first] });
      said = `${made.alias} leads to ${made.upstream_id} of ${made.provider_id}.`;
      await act.reload();
    },
  });
}

function addTarget(alias, targets, providers, act) {
  showForm({
    title: `Add a target to ${alias}`,
    fields: targetFields(providers),
    button: "Add",
    act: async (values) => {
      const made = await send("PATCH", aliasPath(alias), { targets: [...targets, filled(values)] });
      said = `${made.alias} has ${made.targets.length} targets.`;
      await act.reload();
    },
  });
}
