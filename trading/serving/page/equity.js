// The account's worth over the session and over sessions, its drawdown, and what the day is made of.
import { html, useMemo, useRef, useState } from "./vendor/preact.js";
import { Chart, axis, closes, colour, newYork, scaledByMoves, timeAxis } from "./chart.js";
import { Choice, Section, Table } from "./parts.js";
import { clock, day as dateOf, number, percent, signedUsd, short, trend, usd } from "./format.js";

/** Rows of time, worth and drawdown (percent). `peak` is the highest worth before them, if known. */
export function curve(points, peak) {
  const times = points.map(([t]) => t);
  const worth = points.map(([, equity]) => equity);
  let highest = peak ?? -Infinity;
  const drawdown = worth.map((equity) => {
    highest = peak === undefined ? Math.max(highest, equity) : peak;
    return highest > 0 ? Math.min(0, 100 * (equity / highest - 1)) : 0;
  });
  return { times, worth, drawdown };
}

/** Draws fills as triangles on the curve, and changes of the champion as upright lines. */
function marks(latest) {
  return (plot) => {
    const { fills, changes } = latest.current;
    const { ctx } = plot;
    const [times, worth] = plot.data;
    if (!times.length) return;
    const isDense = fills.length > plot.bbox.width / devicePixelRatio / 12;
    const size = (isDense ? 3 : 5) * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    ctx.clip();
    for (const { t, label } of changes) {
      const x = plot.valToPos(t, "x", true);
      ctx.strokeStyle = ctx.fillStyle = colour("muted");
      ctx.setLineDash([4, 4]);
      ctx.beginPath();
      ctx.moveTo(x, plot.bbox.top);
      ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.textAlign = "left";
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.fillText(label, x + 4, plot.bbox.top + 12 * devicePixelRatio);
    }
    for (const fill of fills) {
      let at = times.findIndex((t) => t >= fill.t);
      if (at < 0) at = times.length - 1;
      const x = plot.valToPos(Math.max(fill.t, times[0]), "x", true);
      const y = plot.valToPos(worth[at], "y", true);
      const tip = fill.opens ? -size : size;
      ctx.fillStyle = fill.opens ? colour("accent") : colour("mark");
      ctx.strokeStyle = colour("card");
      ctx.beginPath();
      ctx.moveTo(x, y + tip * 1.4);
      ctx.lineTo(x - size, y - tip * 0.6);
      ctx.lineTo(x + size, y - tip * 0.6);
      ctx.closePath();
      ctx.fill();
      if (!isDense) ctx.stroke();
    }
    ctx.restore();
  };
}

const dollars = (plot, values) => {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  return values.map((value) => (step >= 1000 ? short(value) : number(value, step < 1 ? 2 : 0)));
};

export function Equity({ status, day }) {
  const [range, setRange] = useState("today");
  const latest = useRef({ fills: [], changes: [] });
  const now = Date.parse(status.market?.time ?? "") / 1000;
  const isToday = range === "today";
  const shown = useMemo(() => {
    const points = isToday ? Object.values(day.bars ?? {}) : closes(day.sessions, now, status.account.equity);
    return curve(scaledByMoves(points, day.moves), isToday ? status.account.peak_equity : undefined);
  }, [isToday, day.bars, day.sessions, day.moves, now]);
  const isMoved = Object.values(day.moves ?? {}).some(([t]) => t >= (shown.times[0] ?? Infinity));
  const inRange = ({ t }) => t >= (shown.times[0] ?? Infinity) - 60;
  const fills = isToday ? Object.values(day.fills ?? {}).filter(inRange) : [];
  const changes = Object.values(day.judgements ?? {})
    .filter((each) => each.kind !== "challenger_refused" && inRange(each))
    .map((each) => ({ t: each.t, label: `champion ${each.champion}` }));
  latest.current = { fills, changes };
  const worth = useMemo(() => [shown.times, shown.worth], [shown, fills.length, changes.length]);
  const loss = useMemo(() => [shown.times, shown.drawdown], [shown]);
  const times = timeAxis(isToday);
  const base = { tzDate: newYork, padding: [10, 14, 0, 0], legend: { show: true, live: true }, cursor: { sync: { key: "equity" } } };
  const when = { label: isToday ? "Time" : "Session", value: (_, t) => (t == null ? "–" : isToday ? clock(t) : dateOf(t)) };
  const last = shown.worth.at(-1);
  const deepest = Math.min(0, ...shown.drawdown);
  const period = isToday ? `the session of ${day.session || "today"}` : `${shown.times.length} sessions`;
  const said = shown.times.length
    ? `Equity over ${period}: from ${usd(shown.worth[0])} to ${usd(last)}, between ${usd(Math.min(...shown.worth))} and ` +
      `${usd(Math.max(...shown.worth))}; ${fills.length} fills are marked`
    : `Equity over ${period}: nothing yet`;
  return html`<${Section} id="equity" title="Equity" wide
    note=${(isToday ? day.session : "at the sessions’ closes") + (isMoved ? ", earlier worth scaled by cash moved since" : "")}>
    <div class="bar">
      <${Choice} label="Range" value=${range} onChoose=${setRange} options=${[["today", "Session"], ["all", "All sessions"]]} />
      <p class="key">${isToday ? html`<span class="open-mark">▲</span> opened <span class="close-mark">▼</span> closed` : null}</p>
    </div>
    ${shown.times.length
      ? html`<${Chart} kind=${range} height=${300} said=${said} data=${worth} make=${() => ({
          ...base,
          series: [when, { label: "Equity", stroke: colour("accent"), width: 2, fill: colour("tint"), points: { show: false }, value: (_, v) => usd(v) }],
          scales: { x: { time: true } },
          axes: [axis(times), axis({ size: 64, values: dollars })],
          hooks: { draw: [marks(latest)] },
        })} />
        <${Chart} kind=${range} height=${120} data=${loss}
          said=${`Drawdown from the peak: now ${percent(shown.drawdown.at(-1))}, at worst ${percent(deepest)}`}
          make=${() => ({
            ...base,
            series: [when, { label: "Drawdown", stroke: colour("down"), width: 1.5, fill: colour("down-tint"), points: { show: false }, value: (_, v) => percent(v) }],
            scales: { x: { time: true }, y: { range: (_, low) => [Math.min(low, -0.01) * 1.1, 0] } },
            axes: [axis({ ...times, show: false }), axis({ size: 64, values: (_, v) => v.map((each) => `${number(each, 2)} %`) })],
          })} />`
      : html`<p class="empty">No bar has closed yet${isToday ? " in this session" : ""}.</p>`}
  </${Section}>`;
}

const PARTS = {
  delta: "Moves of the underlying",
  gamma: "Curvature of such moves",
  theta: "Passing of time",
  vega: "Changes of volatility",
  quotes: "Marks without a two-sided quote",
  unexplained: "Higher order",
  spread: "Paid beyond the marks",
  fees: "Commissions and exchange fees",
  other: "Interest, settlements, and before it was split",
};

export function ProfitParts({ day }) {
  const { total, since, parts } = day.profit ?? {};
  const names = Object.keys(PARTS).filter((name) => parts?.[name] !== undefined);
  const largest = Math.max(1e-9, ...names.map((name) => Math.abs(parts[name])));
  return html`<${Section} id="parts" title="Today’s P&L, split" note=${since ? `since ${clock(since)}` : ""}>
    ${names.length
      ? html`<${Table} caption="Parts of today’s profit" columns=${[["Part"], ["USD", true], ["Share"]]}>
          ${names.map((name) => html`<tr>
            <th scope="row">${name}<small>${PARTS[name]}</small></th>
            <td class=${`n ${trend(parts[name])}`}>${signedUsd(parts[name])}</td>
            <td class="share" aria-hidden="true"><meter class=${trend(parts[name])} aria-label=${name} min="0" max=${largest} value=${Math.abs(parts[name])}></meter></td>
          </tr>`)}
          ${[html`<tr class="sum"><th scope="row">Total</th><td class=${`n ${trend(total)}`}>${signedUsd(total)}</td><td></td></tr>`]}
        </${Table}>`
      : html`<p class="empty">Nothing to split before the first bar.</p>`}
  </${Section}>`;
}
