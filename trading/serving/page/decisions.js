// What the policy decided, how sure it was, what became of it; and what was filled.
import { html, useState } from "./vendor/preact.js";
import { Section, Table, newest } from "./parts.js";
import { chance, clock, number, signedUsd, symbolName, trend, usd, words, signed } from "./format.js";

const HOLD = 0;

function filled(each, names) {
  const order = each.ordered === undefined ? "filled" : `${words(names[each.ordered])} filled`;
  const kept = each.ordered === undefined || each.action === HOLD || each.action === each.ordered;
  return kept ? `${order}, ${each.filled}` : `too late: ${order}, ${each.filled}`;
}

function outcome(each, names) {
  if (each.late) return ["near", "too late to trade in"];
  if (each.masked) return ["near", "not allowed: held"];
  if (each.refused) return ["down", `refused, ${words(each.refused[1])}: ${each.refused[2]}`];
  if (each.filled) return ["up", filled(each, names)];
  if (each.waits) return ["", `works, ${each.waits}`];
  return ["", each.action === HOLD ? "held" : "nothing to trade"];
}

function Row({ each, names }) {
  const [tone, said] = outcome(each, names);
  const others = each.best.filter(([action]) => action !== each.action).slice(0, 3);
  return html`<tr>
    <td>${clock(each.t)}</td>
    <th scope="row">${each.underlying}</th>
    <td>${words(names[each.action])}</td>
    <td class="n">${chance(each.chance)}</td>
    <td class="n">${signed(each.value, 3)}</td>
    <td class=${`outcome ${tone}`}>${said}</td>
    <td class="wraps">${others.map(([action, p]) => `${words(names[action])} ${chance(p)}`).join(", ") || "nothing else"}</td>
    <td><details><summary>${each.allowed.length} of ${names.length}</summary>${each.allowed.map((action) => words(names[action])).join(", ")}</details></td>
  </tr>`;
}

export function Decisions({ day }) {
  const [onlyActs, setOnlyActs] = useState(false);
  const [most, setMost] = useState(12);
  const names = day.actions ?? [];
  const rows = newest(day.decisions).filter(([, each]) => !onlyActs || each.action !== HOLD || each.refused);
  return html`<${Section} id="decisions" title="Decisions and refusals" wide
    note="chance: the policy’s own probability; value: the return it expects from here">
    <div class="bar"><label class="check"><input type="checkbox" checked=${onlyActs} onChange=${(event) => setOnlyActs(event.target.checked)} /> without those that hold</label></div>
    <${Table} caption="Newest decisions" empty="No decision was made since this process began."
      columns=${[["Time"], ["Underlying"], ["Action"], ["Chance", true], ["Value", true], ["Outcome"], ["Next likely"], ["Allowed"]]}>
      ${rows.slice(0, most).map(([key, each]) => html`<${Row} key=${key} each=${each} names=${names} />`)}
    </${Table}>
    ${rows.length > most ? html`<button type="button" class="quiet" onClick=${() => setMost(most + 24)}>Show more</button>` : null}
  </${Section}>`;
}

/** Profit, fees and number of trades by strategy, from the fills at hand. */
function byStrategy(fills) {
  const sums = new Map();
  let strategy = {};
  for (const fill of fills) {
    if (fill.opens) strategy = { ...strategy, [fill.underlying]: fill.strategy };
    const name = strategy[fill.underlying] ?? fill.strategy ?? "unknown";
    const sum = sums.get(name) ?? { fills: 0, closed: 0, profit: 0, fees: 0 };
    sum.fills += 1;
    sum.fees += fill.fees;
    if (fill.profit !== undefined) {
      sum.closed += 1;
      sum.profit += fill.profit;
    }
    sums.set(name, sum);
  }
  return [...sums].sort(([, a], [, b]) => b.profit - a.profit);
}

export function Fills({ day }) {
  const [most, setMost] = useState(8);
  const rows = newest(day.fills);
  const sums = byStrategy(Object.values(day.fills ?? {}));
  return html`<${Section} id="fills" title="Fills" wide note=${rows.length ? `the last ${rows.length}` : ""}>
    <${Table} caption="Newest fills" empty="Nothing was filled yet."
      columns=${[["Time"], ["Underlying"], ["What"], ["Units", true], ["Legs"], ["Cash", true], ["Fees", true], ["Trade’s P&L", true]]}>
      ${rows.slice(0, most).map(([key, each]) => html`<tr key=${key}>
        <td>${clock(each.t)}</td>
        <th scope="row">${each.underlying}</th>
        <td>${each.opens === undefined ? "" : each.opens ? "opened" : "closed"} ${words(each.strategy)}</td>
        <td class="n">${number(each.units)}</td>
        <td>${each.legs.map(([symbol, quantity, price]) => html`<div>${signed(quantity, 0)} ${symbolName(symbol)} at ${usd(price)}</div>`)}</td>
        <td class="n">${signedUsd(each.premium)}</td>
        <td class="n">${usd(each.fees)}</td>
        <td class=${`n ${trend(each.profit)}`}>${each.opens ? "" : signedUsd(each.profit)}</td>
      </tr>`)}
    </${Table}>
    ${rows.length > most ? html`<button type="button" class="quiet" onClick=${() => setMost(most + 24)}>Show more</button>` : null}
    ${sums.length
      ? html`<h3>By strategy</h3>
        <${Table} caption="These fills by strategy" columns=${[["Strategy"], ["Fills", true], ["Trades ended", true], ["P&L", true], ["Fees", true]]}>
          ${sums.map(([name, sum]) => html`<tr><th scope="row">${words(name)}</th><td class="n">${number(sum.fills)}</td>
            <td class="n">${number(sum.closed)}</td><td class=${`n ${trend(sum.profit)}`}>${sum.closed ? signedUsd(sum.profit) : "–"}</td>
            <td class="n">${usd(sum.fees)}</td></tr>`)}
        </${Table}>`
      : null}
  </${Section}>`;
}
