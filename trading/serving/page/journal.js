// What happened, in words; and the journal itself, searched by time, order, symbol and kind.
import { html, useState } from "./vendor/preact.js";
import { Section, Table, fetched, newest } from "./parts.js";
import { fromNewYork, moment, words } from "./format.js";

const KINDS = [
  "decision_made", "order_accepted", "order_repriced", "order_rejected", "order_filled", "order_cancelled", "settled", "dividend_paid",
  "corporate_action_applied", "time_taken_back", "margin_changed", "session_closed", "carried", "state_changed",
  "owner_commanded", "cash_moved", "bases_scaled", "peak_reset", "underlying_suspended", "underlying_reinstated",
  "weights_adopted", "champion_promoted", "challenger_refused", "champion_rolled_back", "account_opened", "terms_adopted",
];

export function Happenings({ day }) {
  const rows = newest(day.notes, 30);
  return html`<${Section} id="happenings" title="What happened" wide note="refused orders, the owner’s word, settlements, changes of state">
    <${Table} caption="What happened, newest first" columns=${[["When"], ["Kind"], ["What"]]} empty="Nothing worth a word yet.">
      ${rows.map(([key, each]) => html`<tr key=${key}><td>${moment(each.t)}</td><td>${words(each.kind)}</td><td class="long">${each.said}</td></tr>`)}
    </${Table}>
  </${Section}>`;
}

export function Journal({ symbols }) {
  const [found, setFound] = useState(null);
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const [asked, setAsked] = useState(null);
  const look = async (question, before) => {
    setBusy(true);
    setFault("");
    try {
      const query = new URLSearchParams(Object.entries({ ...question, ...(before ? { before } : {}) }).filter(([, text]) => text));
      const told = await fetched(`journal?${query}`);
      setFound({ rows: before ? [...found.rows, ...told.rows] : told.rows, before: told.before });
      setAsked(question);
    } catch (error) {
      setFault(error.message);
    }
    setBusy(false);
  };
  const search = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    look({
      from: fromNewYork(form.get("from")),
      to: fromNewYork(form.get("to")),
      order: form.get("order").trim(),
      symbol: form.get("symbol").trim(),
      kind: form.get("kind"),
    });
  };
  return html`<${Section} id="journal" title="Journal" wide note="every event of the account, newest first">
    <form class="search" role="search" aria-label="Search the journal" onSubmit=${search}>
      <label>From <input type="datetime-local" name="from" /></label>
      <label>To <input type="datetime-local" name="to" /></label>
      <label>Order <input name="order" placeholder="paper-12" /></label>
      <label>Symbol <input name="symbol" list="symbols" placeholder="SPY or O:SPY…" /><datalist id="symbols">${symbols.map((each) => html`<option value=${each}></option>`)}</datalist></label>
      <label>Kind <select name="kind"><option value="">any</option>${KINDS.map((each) => html`<option value=${each}>${words(each)}</option>`)}</select></label>
      <button type="submit" class="main" disabled=${busy}>${busy ? "Searching…" : "Search"}</button>
    </form>
    <p class="answer bad" role="alert">${fault ? `Not found out: ${fault}` : ""}</p>
    <div aria-live="polite">${found ? html`<p class="said">${found.rows.length} events${found.before ? ", and there may be more" : ""}.</p>` : null}</div>
    ${found
      ? html`<${Table} caption="Events found" empty="No event is like that." columns=${[["Number", true], ["When"], ["Kind"], ["What"]]}>
          ${found.rows.map((each) => html`<tr key=${each.seq}><th scope="row" class="n">${each.seq}</th><td>${moment(each.ts_ns / 1e9)}</td><td>${words(each.kind)}</td>
            <td class="long"><details><summary>${each.said}</summary><pre>${JSON.stringify(each.event, null, 1)}</pre></details></td></tr>`)}
        </${Table}>
        ${found.before ? html`<button type="button" class="quiet" disabled=${busy} onClick=${() => look(asked, found.before)}>Show earlier ones</button>` : null}`
      : null}
  </${Section}>`;
}
