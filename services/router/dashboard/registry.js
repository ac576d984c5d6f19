// Providers and model aliases: lists, forms and tests. Data is loaded when the section
// is opened. A key is read from its field, sent, and cleared; responses never have it.

const $ = (id) => document.getElementById(id);

const PROVIDERS = "/admin/providers";
const MODELS = "/admin/models";
const OPTIONAL = ["name", "base_url", "api_key", "credential_ref", "pool_id", "account_id", "weight"];

// The parameters are functions of app.js, which builds elements and sends requests.
export function registry({ make, fill, json, shown, Refused }) {
  function say(text) {
    $("registry-said").textContent = text;
  }

  async function attempt(what) {
    say("…");
    try {
      say((await what()) ?? "");
    } catch (error) {
      say(error instanceof Refused ? "" : error.message);
    }
  }

  const send = (method, path, body) =>
    json(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });

  function actions(...named) {
    const buttons = named.map(([text, title, what]) => {
      const button = make("button", { text, title, className: "link" });
      button.type = "button";
      button.addEventListener("click", () => attempt(what));
      return button;
    });
    return make("span", { children: buttons.flatMap((button) => [button, " "]) });
  }

  function tested({ results }) {
    return results.map((r) => `${r.key}: ${r.detail}`).join("; ");
  }

  function providerActions(provider) {
    const path = `${PROVIDERS}/${encodeURIComponent(provider.id)}`;
    const toggle = provider.enabled ? "Disable" : "Enable";
    return actions(
      ["Test", `Test ${provider.id}`, async () => tested(await send("POST", `${PROVIDERS}/test`, { id: provider.id }))],
      [toggle, `${toggle} ${provider.id}`, async () => {
        await send("PATCH", path, { enabled: !provider.enabled });
        return refresh();
      }],
      ["Delete", `Delete ${provider.id}`, async () => {
        if (!confirm(`Delete the provider ${provider.id} and its key?`)) return "";
        await send("DELETE", path);
        return refresh();
      }],
    );
  }

  function modelActions(model) {
    const path = `${MODELS}/${model.alias.split("/").map(encodeURIComponent).join("/")}`;
    return actions(
      ["Test", `Test ${model.alias}`, async () => {
        const found = await send("POST", `${MODELS}/test`, { alias: model.alias });
        return `${model.alias}: ${found.detail}`;
      }],
      ["Delete", `Delete ${model.alias}`, async () => {
        if (!confirm(`Delete the model alias ${model.alias}?`)) return "";
        await send("DELETE", path);
        return refresh();
      }],
    );
  }

  const state = (row) => (row.enabled ? "enabled" : "disabled");
  const COLUMNS = {
    providers: [
      ["Id", (p) => shown(p.id)],
      ["Name", (p) => shown(p.name)],
      ["Address", (p) => shown(p.base_url)],
      ["Key", (p) => shown(p.credential_ref ?? (p.api_key_configured ? "sealed" : null))],
      ["Pool", (p) => shown(p.pool_id)],
      ["Weight", (p) => shown(p.weight)],
      ["Resources", (p) => shown(p.resources.join(", "))],
      ["State", (p) => make("span", { text: state(p), className: p.enabled ? "healthy" : "unknown" })],
      ["", providerActions],
    ],
    models: [
      ["Alias", (m) => shown(m.alias)],
      ["Provider", (m) => shown(m.provider_id)],
      ["Its model", (m) => shown(m.upstream_id)],
      ["State", (m) => make("span", { text: state(m), className: m.enabled ? "healthy" : "unknown" })],
      ["", modelActions],
    ],
  };

  async function refresh() {
    const [providers, models] = await Promise.all([json(PROVIDERS), json(MODELS)]);
    fill($("providers"), COLUMNS.providers, providers.data, "No provider is registered.");
    fill($("models"), COLUMNS.models, models.data, "There is no model alias.");
    const chosen = $("model-provider").value;
    $("model-provider").replaceChildren(...providers.data.map(({ id }) => new Option(id, id)));
    if (providers.data.some(({ id }) => id === chosen)) $("model-provider").value = chosen;
    return "";
  }

  function given(form, names) {
    const entries = [...new FormData(form)].filter(([name, value]) => value !== "" && names.includes(name));
    const fields = Object.fromEntries(entries);
    if (fields.weight !== undefined) fields.weight = Number(fields.weight);
    return fields;
  }

  $("registry").addEventListener("toggle", () => {
    if ($("registry").open) attempt(refresh);
  });

  $("provider-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    attempt(async () => {
      const made = await send("POST", PROVIDERS, given(form, ["id", "provider_type", ...OPTIONAL]));
      form.reset();
      await refresh();
      return `${made.id} serves as ${made.resources.join(", ")}.`;
    });
  });

  $("provider-test").addEventListener("click", () => {
    const names = ["provider_type", "base_url", "api_key", "credential_ref"];
    attempt(async () => tested(await send("POST", `${PROVIDERS}/test`, given($("provider-form"), names))));
  });

  $("model-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    attempt(async () => {
      const made = await send("POST", MODELS, given(form, ["alias", "provider_id", "upstream_id"]));
      form.reset();
      await refresh();
      return `${made.alias} leads to ${made.upstream_id} of ${made.provider_id}.`;
    });
  });
}
