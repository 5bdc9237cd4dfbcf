// Small parts that several sections are made of.
import { html, useEffect, useState } from "./vendor/preact.js";

/** A section with its heading; a landmark by that name. */
export function Section({ id, title, note, wide, children }) {
  return html`<section class=${`card ${wide ? "wide" : ""}`} id=${id} aria-labelledby=${`${id}-title`}>
    <h2 id=${`${id}-title`}>${title}${note ? html` <small>${note}</small>` : null}</h2>
    ${children}
  </section>`;
}

/** A table that scrolls sideways on its own where the page is narrow. `columns`: [name, isNumber]. */
export function Table({ caption, columns, children, empty }) {
  const rows = Array.isArray(children) ? children.flat(Infinity).filter(Boolean) : children;
  if (Array.isArray(rows) && rows.length === 0) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" role="region" aria-label=${caption} tabindex="0">
    <table>
      <caption class="unseen">${caption}</caption>
      <thead><tr>${columns.map(([name, isNumber]) => html`<th scope="col" class=${isNumber ? "n" : ""}>${name}</th>`)}</tr></thead>
      <tbody>${rows}</tbody>
    </table>
  </div>`;
}

/** A figure with its name. */
export function Figure({ name, value, note, trend }) {
  return html`<div class="figure">
    <dt>${name}</dt>
    <dd class=${trend ?? ""}>${value}${note ? html`<small>${note}</small>` : null}</dd>
  </div>`;
}

/** Names and values, one a line. */
export function Facts({ rows }) {
  return html`<dl class="facts">${rows.filter(Boolean).map(
    ([name, value, title]) => html`<div title=${title ?? null}><dt>${name}</dt><dd>${value}</dd></div>`,
  )}</dl>`;
}

/** Buttons of which one is chosen. */
export function Choice({ label, options, value, onChoose }) {
  return html`<div class="choice" role="group" aria-label=${label}>${options.map(
    ([key, text]) => html`<button type="button" aria-pressed=${String(key === value)} onClick=${() => onChoose(key)}>${text}</button>`,
  )}</div>`;
}

/** Rows of a numbered table of the document, newest first. */
export const newest = (table, most = Infinity) => Object.entries(table ?? {}).reverse().slice(0, most);

/** JSON from one of our own addresses; throws what the server says is wrong. */
export async function fetched(address, options) {
  const response = await fetch(address, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = Array.isArray(body.detail) ? body.detail.map((each) => `${each.loc?.at(-1)}: ${each.msg}`).join("; ") : "";
    throw new Error(body.reason || body.said || detail || `the server answers ${response.status}`);
  }
  return body;
}

/** The theme's name, so that what is painted with its colours is painted again. */
export function useTheme() {
  const [name, setName] = useState(document.documentElement.dataset.theme);
  useEffect(() => {
    const renew = () => setName(document.documentElement.dataset.theme);
    addEventListener("theme", renew);
    return () => removeEventListener("theme", renew);
  }, []);
  return name;
}
