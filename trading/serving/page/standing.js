// Where the account stands: at the top of the page, in words beside colours.
import { html, useEffect, useState } from "./vendor/preact.js";
import { isCut } from "./live.js";
import { Figure, useTheme } from "./parts.js";
import { age, clock, moment, number, percent, seconds, signed, signedUsd, trend, usd } from "./format.js";

/** Tone, mark and words of each trading state. */
export const STATES = {
  ACTIVE: ["good", "●", "trading"],
  REDUCING: ["warn", "◐", "closing only"],
  HALTED: ["bad", "■", "nothing trades"],
};

/** What the connection to the server and the server's to the live market are worth now. */
function connection(state) {
  if (isCut(state)) {
    const since = (performance.now() - state.cut) / 1000;
    return ["bad", "no connection", `to the server for ${age(since)}`];
  }
  if (state.gone) return ["bad", "no live market", "the server is there"];
  if (!state.content) return ["warn", "connecting", ""];
  return ["good", "live", ""];
}

/** Drawn anew every second, for ages that are told. */
function useTick() {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
}

/** Whether the page is told anything, in words. */
export function Connection({ state }) {
  useTick();
  const [wire, said, more] = connection(state);
  return html`<p class=${`pill ${wire}`} id="connection" role="status">
    <span aria-hidden="true">${wire === "good" ? "●" : "▲"}</span> ${said}${more ? html`<span class="what"> ${more}</span>` : ""}
  </p>`;
}

export function ThemeButton() {
  const theme = useTheme();
  return html`<button type="button" class="quiet" onClick=${() => window.toggleTheme()}>
    ${theme === "dark" ? "Light" : "Dark"} theme
  </button>`;
}

/** Leads past the head of the page to what it shows. */
export function Skip({ to }) {
  return html`<a class="skip" href="#main" onClick=${(event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  }}>Skip to ${to}</a>`;
}

export function Masthead({ state }) {
  const { status, strategy } = state.content ?? { status: {} };
  const account = status.account;
  const [tone, mark, what] = STATES[account?.trading_state] ?? ["warn", "○", status.phase ?? "unknown"];
  const stale = connection(state)[0] !== "good" && account;
  return html`<header>
    <div class="brand"><h1>trading</h1>${account ? html`<span class="account">${account.id}</span>` : null}
      ${strategy ? html`<a class="others" href="../">all strategies</a>` : null}</div>
    <p class=${`pill ${stale ? "old" : tone}`} id="state" role="status">
      <span aria-hidden="true">${mark}</span>${" "}<strong>${account?.trading_state ?? "STARTING"}</strong>
      ${" "}<span class="what">${stale ? "when last heard" : what}</span>
    </p>
    <p class="market">${status.market_open === false ? "market closed · " : ""}${
      status.market?.time ? html`<span class="unseen">Market time </span>${moment(seconds(status.market.time))}` : ""
    }</p>
    <${Connection} state=${state} />
    <${ThemeButton} />
  </header>`;
}

/** Everything that keeps the account from trading as it should, with what its owner can do. */
export function Banner({ state }) {
  const { content } = state;
  const lines = [];
  if (isCut(state)) {
    lines.push(["bad", "There is no connection to the server: figures are those of when it was last heard. It is tried again."]);
  } else if (state.gone) {
    lines.push(["bad", `The live market gives no news: ${state.gone}. Figures are those of when it was last heard; it is asked again.`]);
  }
  if (content) {
    const { status, supervisor } = content;
    if (supervisor && supervisor.phase !== "trading") {
      lines.push(["warn", `${supervisor.phase}: ${supervisor.reason}`]);
    }
    if (status.market_open === false) {
      lines.push(["note", "The market is closed: quotes rest, and nothing is decided until it opens."]);
    }
    for (const reason of content.reasons ?? []) lines.push(["warn", `Not ready: ${reason}`]);
    for (const each of status.account?.restrictions ?? []) {
      lines.push(["warn", `${each.cause.replaceAll("_", " ")}: ${each.reason}. To end it: ${each.owner}`]);
    }
    const suspended = status.account?.suspended ?? {};
    for (const [name, reasons] of Object.entries(suspended)) {
      lines.push(["warn", `${name} is suspended: ${Array.isArray(reasons) ? reasons.join("; ") : reasons}`]);
    }
    for (const [name, why] of Object.entries(status.account?.to_close ?? {})) {
      lines.push(["note", `${name} is being closed${why ? `: ${why}` : ""}`]);
    }
    if (status.recording && !["on", "off"].includes(status.recording)) {
      lines.push(["warn", `Nothing is recorded: ${status.recording}`]);
    }
  }
  return html`<div class="banner" aria-live="polite">${lines.map(
    ([tone, text]) => html`<p class=${tone}>${text}</p>`,
  )}</div>`;
}

export function Figures({ status, day }) {
  const { account, limits } = status;
  const today = day.profit?.total ?? account.profit_today;
  const base = account.equity - today;
  const drawdown = limits?.max_drawdown_pct?.used;
  const wins = account.closed_trades ? `${percent(100 * account.win_rate, 0)} won` : "none closed yet";
  return html`<section class="figures wide" aria-label="The account at a glance">
    <dl>
      <${Figure} name="Equity" value=${usd(account.equity)} note=${`paid in ${usd(account.paid_in, 0)}`} />
      <${Figure} name="P&L today" value=${signedUsd(today)} trend=${trend(today)}
        note=${base ? `${signed((100 * today) / base)} %` : ""} />
      <${Figure} name="P&L in all" value=${signedUsd(account.equity - account.paid_in)}
        trend=${trend(account.equity - account.paid_in)} note=${`fees ${usd(account.fees_paid)}`} />
      <${Figure} name="Drawdown" value=${percent(drawdown)} note=${`from ${usd(account.peak_equity, 0)}`} />
      <${Figure} name="Open positions" value=${number(status.positions?.length ?? 0)}
        note=${`${number(account.trades)} fills, ${wins}`} />
      <${Figure} name="Buying power" value=${usd(account.buying_power, 0)} note=${`cash ${usd(account.cash, 0)}`} />
    </dl>
  </section>`;
}
