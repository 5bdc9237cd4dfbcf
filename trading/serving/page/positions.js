// What is open, leg by leg, and what is used of each limit.
import { html } from "./vendor/preact.js";
import { Section, Table } from "./parts.js";
import { command } from "./controls.js";
import { age, daysTo, number, percent, seconds, signed, signedUsd, symbolName, trend, usd, words } from "./format.js";

const COLUMNS = [
  ["Position"], ["Quantity", true], ["Price", true], ["Mark", true], ["P&L", true], ["Delta", true],
  ["Gamma", true], ["Vega", true], ["Theta", true], ["Days", true], [""],
];

// Contracts go without saying.
const UNITS = { "round lots": " lots", shares: " shares" };

function days(position, now) {
  const left = position.legs.filter((leg) => leg.expires).map((leg) => daysTo(seconds(leg.expires), now));
  return left.length ? Math.min(...left) : NaN;
}

function Position({ position, greeks, stale, now }) {
  const held = greeks ?? {};
  return html`
    <tr class="group">
      <th scope="row">${position.underlying} <small>${words(position.strategy)}, opened ${age(now - seconds(position.opened))} ago</small></th>
      <td class="n">${number(position.units)} ×</td><td></td><td></td>
      <td class=${`n ${trend(position.profit)}`}>${signedUsd(position.profit)}</td>
      <td class="n">${signed(held.delta, 1)}</td><td class="n">${signed(held.gamma, 2)}</td>
      <td class="n">${signed(held.vega, 1)}</td><td class="n">${signed(held.theta, 1)}</td>
      <td class="n">${number(days(position, now), 1)}</td>
      <td><button type="button" class="quiet" onClick=${() => command("close", position.underlying)}
        aria-label=${`Close ${position.underlying}`}>Close…</button></td>
    </tr>
    ${position.legs.map((leg) => html`<tr class="leg">
      <th scope="row">${symbolName(leg.symbol)}${stale?.[leg.symbol] ? html` <small>greeks: ${stale[leg.symbol]}</small>` : null}</th>
      <td class="n">${signed(leg.quantity, 0)}${UNITS[leg.unit] ?? ""}</td>
      <td class="n">${usd(leg.average_price)}</td><td class="n">${usd(leg.mark)}</td>
      <td class=${`n ${trend(leg.profit)}`}>${signedUsd(leg.profit)}</td>
      <td></td><td></td><td></td><td></td>
      <td class="n">${number(daysTo(seconds(leg.expires), now), 1)}</td><td></td>
    </tr>`)}`;
}

const ORDERS = [["Order"], ["Units", true], ["Limit", true], ["Step", true], ["Held", true], ["Works for"]];

function WorkingOrders({ orders }) {
  return html`<${Table} caption="Orders that work" columns=${ORDERS}>
    ${orders.map((order) => html`<tr>
      <th scope="row">${order.underlying} <small>${order.intent} ${words(order.strategy)}, ${order.legs.map((leg) => `${signed(leg.ratio, 0)} ${symbolName(leg.symbol)}`).join(", ")}</small></th>
      <td class="n">${number(order.units)}</td>
      <td class="n">${usd(Math.abs(order.limit))} ${order.limit < 0 ? "credit" : "debit"}</td>
      <td class="n">${order.steps ? `${order.step} of ${order.steps}` : ""}</td>
      <td class="n">${usd(order.reserved)}</td>
      <td>${age(order.age_s)}</td>
    </tr>`)}
  </${Table}>`;
}

export function Positions({ status }) {
  const now = seconds(status.market?.time);
  const { total, by_underlying: each, not_quoted: stale } = status.greeks ?? {};
  const positions = status.positions ?? [];
  const orders = status.working_orders ?? [];
  return html`<${Section} id="positions" title="Positions" wide
    note=${positions.length ? "delta in shares, vega in USD a point of volatility, theta in USD a day" : ""}>
    ${positions.length
      ? html`<${Table} caption="Open positions and their legs" columns=${COLUMNS}>
          ${positions.map((position) => html`<${Position} position=${position} greeks=${each?.[position.underlying]} stale=${stale} now=${now} />`)}
          ${[html`<tr class="sum"><th scope="row">All</th><td></td><td></td><td></td>
            <td class=${`n ${trend(positions.reduce((sum, p) => sum + p.profit, 0))}`}>${signedUsd(positions.reduce((sum, p) => sum + p.profit, 0))}</td>
            <td class="n">${signed(total?.delta, 1)}</td><td class="n">${signed(total?.gamma, 2)}</td>
            <td class="n">${signed(total?.vega, 1)}</td><td class="n">${signed(total?.theta, 1)}</td><td></td><td></td></tr>`]}
        </${Table}>`
      : html`<p class="empty">Nothing is open.</p>`}
    ${orders.length ? html`<${WorkingOrders} orders=${orders} />` : null}
  </${Section}>`;
}

const LIMITS = {
  max_daily_loss_pct: ["Loss today", "%"],
  max_drawdown_pct: ["Drawdown", "%"],
  max_champion_drawdown_pct: ["Champion’s drawdown", "%"],
  max_positions: ["Open positions", ""],
  max_orders_per_minute: ["Orders a minute", ""],
  max_delta_pct: ["Delta", "% of equity"],
  max_gamma_pct: ["Gamma", "% of equity, for 1 %"],
  max_vega_pct: ["Vega", "% of equity, a point"],
};

export function Limits({ limits }) {
  return html`<${Section} id="limits" title="Limits">
    <${Table} caption="Limits, and what is used of them" columns=${[["Limit"], ["Used", true], ["Of", true], ["Share"]]} empty="No limits are known yet.">
      ${Object.entries(limits ?? {}).map(([name, { limit, used }]) => {
        const [title, unit] = LIMITS[name] ?? [words(name), ""];
        const share = used === undefined || !(limit > 0) ? NaN : used / limit;
        const tone = share >= 1 ? "down" : share >= 0.8 ? "near" : "";
        return html`<tr>
          <th scope="row">${title}${unit ? html` <small>${unit}</small>` : null}</th>
          <td class="n">${number(used, Number.isInteger(used) ? 0 : 2)}</td>
          <td class="n">${number(limit, Number.isInteger(limit) ? 0 : 2)}</td>
          <td class="share">${Number.isFinite(share)
            ? html`<meter class=${tone} min="0" max="1" value=${Math.min(1, share)} aria-label=${`${title}: share used`}></meter> <span class=${tone}>${percent(100 * share, 0)}${share >= 1 ? " reached" : ""}</span>`
            : html`<span class="down">not known: counts as used up</span>`}</td>
        </tr>`;
      })}
    </${Table}>
  </${Section}>`;
}
