// The page of several strategies: what each is worth, lost, holds and does, side by side.
import { html, render, useEffect, useMemo, useState } from "./vendor/preact.js";
import { follow, isCut } from "./live.js";
import { Chart, axis, closes, colour, newYork, timeAxis, withoutMoves } from "./chart.js";
import { Choice, Facts, Figure, Section } from "./parts.js";
import { Connection, STATES, Skip, ThemeButton } from "./standing.js";
import { UNKNOWN, clock, day as dateOf, moment, number, percent, seconds, signed, signedUsd, trend, usd, words } from "./format.js";

// Told apart by the pattern of the line as well as by its colour.
const DASHES = [[], [8, 4], [2, 3], [12, 4, 2, 4]];
const COLOURS = ["accent", "mark", "up", "down", "near", "muted"];
const inkOf = (n) => colour(COLOURS[n % COLOURS.length]);
const dashOf = (n) => DASHES[n % DASHES.length];

/** Times, and percent of what the session began with or of what was paid in. */
export function line(each, isToday) {
  const equity = each.account?.equity;
  const shown = isToday ? Object.values(each.bars ?? {}) : closes(each.sessions, seconds(each.time), equity);
  const points = withoutMoves(shown, each.moves);
  const begun = Number.isFinite(each.profit) ? equity - each.profit : points[0]?.[1];
  const base = isToday ? begun : each.account.paid_in;
  return [points.map(([t]) => t), points.map(([, worth]) => 100 * (worth / base - 1))];
}

function Lines({ strategies }) {
  const [range, setRange] = useState("today");
  const isToday = range === "today";
  const drawn = useMemo(
    () => Object.entries(strategies).filter(([, each]) => each.account).map(([name, each]) => [name, line(each, isToday)]),
    [strategies, isToday],
  );
  const data = useMemo(() => (drawn.length ? uPlot.join(drawn.map(([, points]) => points)) : [[]]), [drawn]);
  const names = drawn.map(([name]) => name);
  const said = drawn.map(([name, [, worth]]) => `${name} ${signed(worth.at(-1))} %`).join(", ");
  return html`<${Section} id="lines" title="Equity" wide note=${isToday ? "percent of what the session began with, and of cash moved since" : "percent of what was paid in, at the sessions’ closes"}>
    <div class="bar">
      <${Choice} label="Range" value=${range} onChoose=${setRange} options=${[["today", "Session"], ["all", "All sessions"]]} />
    </div>
    ${data[0].length
      ? html`<${Chart} kind=${`${range} ${names.join(" ")}`} height=${260} data=${data}
          said=${`Equity of ${names.length} strategies ${isToday ? "over the session" : "over all sessions"}: now ${said}`}
          make=${() => ({
            tzDate: newYork,
            padding: [10, 14, 0, 0],
            legend: { show: true, live: true },
            series: [{ label: isToday ? "Time" : "Session", value: (_, t) => (t == null ? UNKNOWN : isToday ? clock(t) : dateOf(t)) }, ...names.map((name, n) => ({
              label: name, stroke: inkOf(n), dash: dashOf(n), width: 2, spanGaps: true, points: { show: false },
              value: (_, v) => (v == null ? UNKNOWN : `${signed(v)} %`),
            }))],
            scales: { x: { time: true } },
            axes: [axis(timeAxis(isToday)), axis({ size: 64, values: (_, v) => v.map((each) => `${number(each, 2)} %`) })],
          })} />`
      : html`<p class="empty">No bar has closed yet.</p>`}
  </${Section}>`;
}

/** Tone, mark, state and words for where a strategy stands. */
function standing(each) {
  if (each.gone) return ["bad", "▲", "NO NEWS", each.gone];
  if (!each.account) return ["warn", "○", words(each.phase ?? "starting").toUpperCase(), each.reason ?? ""];
  const [tone, mark, what] = STATES[each.account.trading_state] ?? ["warn", "○", ""];
  if (tone === "good" && each.ready === false) return ["warn", "○", each.account.trading_state, "not ready"];
  return [tone, mark, each.account.trading_state, what];
}

/** What keeps it from trading as it should, a line each. */
function faults(each) {
  const account = each.account ?? {};
  return [
    ...(each.gone ? [each.gone] : []),
    ...(each.account ? [] : [each.reason].filter(Boolean)),
    ...(each.account && !each.gone ? each.reasons ?? [] : [])
      .filter((reason) => !(account.restrictions?.length && reason.startsWith("halted: ")))
      .map((reason) => `Not ready: ${reason}`),
    ...(account.restrictions ?? []).map((one) => (one.reason === one.cause ? words(one.cause) : `${words(one.cause)}: ${one.reason}`)),
    ...Object.keys(account.suspended ?? {}).map((name) => `${name} is suspended`),
  ];
}

function learning(each) {
  const { learner, champion } = each;
  const isRules = each.trader && each.trader !== "policy";
  const learns = learner && Object.keys(learner).length > 0;
  return [
    isRules ? ["Trades by rules", each.trader] : ["Champion", `${champion?.number ?? "–"}, version ${champion?.version ?? "–"}`],
    ["Learner", isRules ? "nothing is learned" : !learns ? "nothing learned so far" : learner.paused ? `paused: ${learner.paused}` : `challenger, version ${number(learner.updates)}`],
    isRules ? null : ["Promotions", number(champion?.promotions)],
  ];
}

function Card({ name, each }) {
  const [tone, mark, state, what] = standing(each);
  const { account } = each;
  const today = each.profit ?? account?.profit_today;
  const base = account ? account.equity - today : NaN;
  const positions = each.positions ?? [];
  return html`<section class="card strategy" id=${`strategy-${name}`} aria-labelledby=${`strategy-${name}-title`}>
    <h2 id=${`strategy-${name}-title`}><a href=${`${name}/`}>${name}</a></h2>
    <p class=${`pill ${tone}`}><span aria-hidden="true">${mark}</span> <strong>${state}</strong>${account ? html` <span class="what">${what}</span>` : null}</p>
    ${faults(each).map((text) => html`<p class="fault">${text}</p>`)}
    ${account
      ? html`<dl>
          <${Figure} name="Equity" value=${usd(account.equity)} note=${`paid in ${usd(account.paid_in, 0)}`} />
          <${Figure} name="P&L today" value=${signedUsd(today)} trend=${trend(today)} note=${base ? `${signed((100 * today) / base)} %` : ""} />
          <${Figure} name="Drawdown" value=${percent(each.drawdown?.used)} note=${`limit ${percent(each.drawdown?.limit, 0)}`} />
          <${Figure} name="Open positions" value=${number(positions.length)} note=${positions.map((one) => one.underlying).join(", ")} />
        </dl>
        <${Facts} rows=${[
          ["P&L in all", signedUsd(account.equity - account.paid_in)],
          ["Fills", number(account.trades)],
          ["Trades won", account.closed_trades ? percent(100 * account.win_rate, 0) : "none closed yet"],
          ["Fees", usd(account.fees_paid)],
          ...learning(each),
          ["Underlyings", (each.underlyings ?? []).join(", ")],
          ["Market", `${each.market_open === false ? "closed · " : ""}${moment(seconds(each.time))}`],
        ]} />`
      : null}
  </section>`;
}

function Banner({ state }) {
  const lines = [];
  if (isCut(state)) lines.push(["bad", "There is no connection to the server: figures are those of when it was last heard. It is tried again."]);
  else if (state.gone) lines.push(["bad", `There is no news of the strategies: ${state.gone}. Figures are those of when it was last heard.`]);
  if (state.content?.waiting) lines.push(["warn", state.content.waiting]);
  return html`<div class="banner" aria-live="polite">${lines.map(([tone, text]) => html`<p class=${tone}>${text}</p>`)}</div>`;
}

function App() {
  const [state, setState] = useState({ content: null, heardMs: 0, gone: "", cut: 0 });
  useEffect(() => follow(setState), []);
  const strategies = state.content?.strategies;
  const entries = Object.entries(strategies ?? {});
  if (strategies) document.title = `${entries.length} strategies · trading`;
  return html`
    <${Skip} to="the strategies" />
    <header>
      <div class="brand"><h1>trading</h1>${strategies ? html`<span class="account">${entries.length} strategies</span>` : null}</div>
      <p class="market"></p>
      <${Connection} state=${state} />
      <${ThemeButton} />
    </header>
    <main id="main" tabindex="-1">
      <${Banner} state=${state} />
      ${strategies
        ? html`<${Lines} strategies=${strategies} />
            <div class="strategies wide">${entries.map(([name, each]) => html`<${Card} key=${name} name=${name} each=${each} />`)}</div>`
        : html`<p class="loading" role="status">Waiting for the strategies…</p>`}
    </main>
    <footer>
      <p>Paper accounts: no order leaves this system. Times are New York's.
        ${" "}<a href="status">status</a> · <a href="metrics">metrics</a> · <a href="openapi.json">API</a></p>
    </footer>
  `;
}

const place = document.getElementById("app");
place.textContent = "";
render(html`<${App} />`, place);
