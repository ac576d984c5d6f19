// The one dialog of the page: forms, confirmations and secrets that are shown once.

import { html, nothing, render } from "./html.js";
import { entered, fieldset } from "./form.js";

const element = () => document.getElementById("dialog");

export function closeDialog() {
  element().close();
}

// `content`: a template; `title`: the dialog's name.
export function showDialog(title, content) {
  const dialog = element();
  render(
    html`<div class="bar"><h2 id="dialog-title">${title}</h2><button type="button" class="quiet" @click=${closeDialog}>Close</button></div>${content}`,
    dialog,
  );
  if (dialog.open) return;
  // Secrets do not stay in the document.
  dialog.addEventListener("close", () => render(nothing, dialog), { once: true });
  dialog.showModal();
}

// A form with the given fields. `act(values)` does what is asked for, and the dialog
// closes; an error is shown and the form stays. `more`: further buttons.
export function showForm({ title, fields, button, act, text = "", more = [] }) {
  let said = "";
  let busy = false;
  const draw = () => showDialog(title, template());

  async function attempt(form, what, { close }) {
    busy = true;
    said = "…";
    draw();
    try {
      said = (await what(entered(form, fields))) ?? "";
      if (close && element().dataset.title === title) closeDialog(); // else it shows a secret
    } catch (error) {
      said = error.message;
    }
    busy = false;
    if (element().open && element().dataset.title === title) draw();
  }

  function submit(event) {
    event.preventDefault();
    attempt(event.target, act, { close: true });
  }

  const template = () => html`<form autocomplete="off" @submit=${submit}>
    ${text ? html`<p class="wide">${text}</p>` : nothing}
    ${fieldset(fields)}
    <p class="wide said" role="status">${said}</p>
    <div class="wide bar">
      <button class="primary" ?disabled=${busy}>${button}</button>
      ${more.map(({ name, act: further }) => html`<button type="button" ?disabled=${busy}
        @click=${(event) => attempt(event.target.form, further, { close: false })}>${name}</button>`)}
      <button type="button" @click=${closeDialog}>Cancel</button>
    </div>
  </form>`;
  element().dataset.title = title;
  render(nothing, element()); // fields of an earlier form would keep their values
  draw();
}

export const confirmed = ({ title, text, button, act }) => showForm({ title, text, button, act, fields: [] });

// A secret that no other response contains.
export function showSecret(title, text, secret) {
  element().dataset.title = title;
  showDialog(title, html`<p>${text}</p><p class="secret"><code id="secret">${secret}</code></p>
    <div class="bar"><button type="button" class="primary" @click=${(event) => copy(event.target, secret)}>Copy</button></div>`);
}

export async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed by the browser";
  }
}
