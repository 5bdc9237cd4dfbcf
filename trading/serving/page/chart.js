// Line charts by uPlot, in the theme's colours, as wide as their place.
import { html, useEffect, useRef } from "./vendor/preact.js";
import { useTheme } from "./parts.js";
import { day, minute } from "./format.js";

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const newYork = (t) => uPlot.tzDate(new Date(t * 1000), "America/New_York");

/** An axis in the theme's colours. */
export const axis = (more = {}) => ({
  stroke: colour("muted"),
  font: "11px system-ui, sans-serif",
  grid: { stroke: colour("line"), width: 1 },
  ticks: { stroke: colour("line"), width: 1 },
  ...more,
});

/** What an axis of time says: the clock within a session, else dates. */
export const timeAxis = (isSession) => ({
  values: (_, splits) => splits.map(isSession ? minute : (t) => day(t).slice(0, 6)),
});

/** Points of time and worth at the closes of sessions, when the exchange closed, and now. */
export function closes(sessions, now, equity) {
  const points = Object.values(sessions ?? {}).filter(([t]) => Number.isFinite(t));
  if (Number.isFinite(now) && now > (points.at(-1)?.[0] ?? 0)) points.push([now, equity]);
  return points;
}

/** The same points as if cash that was moved later had been there before: it is no gain and no loss. */
export function withoutMoves(points, moves) {
  const moved = Object.values(moves ?? {});
  const later = (t) => moved.reduce((sum, [at, amount]) => (at >= t ? sum + amount : sum), 0);
  return points.map(([t, worth]) => [t, worth + later(t)]);
}

/**
 * The same points scaled by cash that was moved later, as the account scales its peak: losses stay the percent they were.
 * A move is time, amount and the worth before it; where that was not known, the point before it says it.
 */
export function scaledByMoves(points, moves) {
  const moved = Object.values(moves ?? {}).sort(([a], [b]) => a - b);
  const steps = moved.map(([at, amount, equity]) => [at, amount, equity ?? points.findLast(([t]) => t <= at)?.[1] ?? 0]);
  const later = (t, worth) =>
    steps.reduce((sum, [at, amount, before]) => {
      if (at < t) return sum;
      // Without worth there are no percent to keep: the loss in USD stays.
      return before > 0 && before + amount >= 0 ? (sum * (before + amount)) / before : sum + amount;
    }, worth);
  return points.map(([t, worth]) => [t, later(t, worth)]);
}

/**
 * `make()` gives uPlot's options without size; it is called again when the theme or `kind` changes.
 * `said` tells the picture in words to who does not see it.
 */
export function Chart({ make, data, height, said, kind = "" }) {
  const place = useRef(null);
  const plot = useRef(null);
  const theme = useTheme();
  useEffect(() => {
    const width = () => Math.max(place.current.clientWidth, 120);
    plot.current = new uPlot({ width: width(), height, ...make() }, data, place.current);
    const fit = new ResizeObserver(() => plot.current.setSize({ width: width(), height }));
    fit.observe(place.current);
    return () => {
      fit.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [theme, kind, height]);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`<div class="chart" role="img" aria-label=${said} ref=${place}></div>`;
}
