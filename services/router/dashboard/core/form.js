// Fields of forms, and their values as the API takes them.
//
// A field: { name, label, type, value?, required?, hint?, options?, group? }. Types:
// text, password, url, number, list (separated by commas), select, check, time, json.
// A name with a dot is a field of an object: `policy.models`.

import { html, nothing } from "./html.js";
import { known } from "./words.js";

const plain = (type) => ({ list: "text", time: "datetime-local" })[type] ?? type;

function input(field) {
  const { name, type, required, options, value } = field;
  if (type === "select") {
    return html`<select name=${name} aria-describedby=${hintId(field)} ?required=${required}>
      ${options.map(([choice, text]) => html`<option value=${choice} ?selected=${choice === (value ?? "")}>${text}</option>`)}
    </select>`;
  }
  if (type === "check") return html`<input type="checkbox" name=${name} ?checked=${Boolean(value)}>`;
  if (type === "json") return html`<textarea name=${name} aria-describedby=${hintId(field)} rows="8" spellcheck="false" .value=${value ?? ""}></textarea>`;
  return html`<input name=${name} type=${plain(type)} step=${type === "number" ? "any" : nothing}
    aria-describedby=${hintId(field)} min=${field.min ?? nothing} ?required=${required} spellcheck="false"
    autocomplete=${type === "password" ? "new-password" : "off"} .value=${written(field)}>`;
}

function written({ type, value }) {
  if (!known(value)) return "";
  if (type === "list") return value.join(", ");
  if (type === "time") return local(value);
  return String(value);
}

function local(iso) {
  const date = new Date(iso);
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const hintId = ({ name, hint }) => (hint ? `hint-${name}` : nothing);

const one = (field) => html`<div class="field"><label class=${field.type === "check" ? "check" : nothing}>
    <span>${field.label}</span>${input(field)}</label>
  ${field.hint ? html`<small id=${hintId(field)}>${field.hint}</small>` : nothing}</div>`;

// Fields of one group stand under its name.
export function fieldset(fields) {
  const groups = [...new Set(fields.map(({ group }) => group ?? ""))];
  return groups.map((group) => {
    const own = fields.filter((field) => (field.group ?? "") === group).map(one);
    return group ? html`<fieldset><legend>${group}</legend>${own}</fieldset>` : own;
  });
}

function value(form, { name, type }) {
  const element = form.elements.namedItem(name);
  if (type === "check") return element.checked;
  const text = element.value.trim();
  if (type === "list") return text.split(",").map((part) => part.trim()).filter(Boolean);
  if (text === "") return null;
  if (type === "number") return Number(text);
  if (type === "time") return new Date(text).toISOString();
  if (type === "json") return JSON.parse(text);
  return text;
}

// The values by name; null: the field is empty.
export function entered(form, fields) {
  const values = {};
  for (const field of fields) {
    const [first, second] = field.name.split(".");
    if (second) (values[first] ??= {})[second] = value(form, field);
    else values[first] = value(form, field);
  }
  return values;
}

// Without fields, lists and objects that are empty: what is not sent has its default.
export const filled = (values) =>
  Object.fromEntries(
    Object.entries(values)
      .map(([name, it]) => [name, it && typeof it === "object" && !Array.isArray(it) ? filled(it) : it])
      .filter(([, it]) => it !== null && !(typeof it === "object" && !Object.keys(it).length)),
  );
