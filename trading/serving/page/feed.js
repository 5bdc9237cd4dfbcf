// The market data: how much of it comes, how old it is, and what of it was not taken over.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { Facts, Section, Table } from "./parts.js";
import { age, number, signed, words } from "./format.js";

/** Events a second between the last two times that the count moved. */
function useRate(count) {
  const last = useRef(null);
  const [rate, setRate] = useState(NaN);
  useEffect(() => {
    const now = performance.now();
    if (last.current && count > last.current.count) {
      setRate((1000 * (count - last.current.count)) / (now - last.current.now));
    }
    if (!last.current || count !== last.current.count) last.current = { count, now };
  }, [count]);
  return rate;
}

export function Feed({ status }) {
  const feed = status.feed ?? {};
  const rate = useRate((feed.quotes ?? 0) + (feed.bars ?? 0));
  const refused = Object.entries(feed.refused ?? {}).filter(([, count]) => count > 0);
  // As old as it was when it was told: what has not been told since is no silence.
  const toldMs = useMemo(() => Date.now(), [status.feed]);
  const offset = feed.clock?.machine_is_ahead_s;
  return html`<${Section} id="feed" title="Market data" note=${status.market_open === false ? "market closed" : ""}>
    <${Table} caption="Connections" empty="There is no connection yet."
      columns=${[["Connection"], ["State"], ["Last frame", true], ["Ticking", true], ["Reconnects", true], ["Dropped", true]]}>
      ${Object.entries(feed.connections ?? {}).map(([name, each]) => html`<tr>
        <th scope="row">${name}</th>
        <td class=${/^live$/i.test(each.state) ? "up" : "down"}>${words(each.state).toLowerCase()}${each.last_error ? html`<small>${each.last_error}</small>` : null}</td>
        <td class="n">${each.last_frame_ns ? `${age(toldMs / 1000 - each.last_frame_ns / 1e9)} ago` : "never"}</td>
        <td class="n">${number(each.ticking)} of ${number(each.asked)}</td>
        <td class="n">${number(each.reconnects)}</td>
        <td class="n">${number(each.dropped)}</td>
      </tr>`)}
    </${Table}>
    <${Facts} rows=${[
      ["Events a second", number(rate)],
      ["Quotes", number(feed.quotes)],
      ["Bars of stocks", number(feed.bars)],
      ["Late bars", number(feed.late_bars)],
      ["Late events", number(feed.late)],
      ["Unreadable", number(feed.malformed)],
      feed.clock ? ["Machine’s clock", `${signed(offset, 3)} s${feed.clock.is_off ? ", off: nothing is opened" : ""}`] : null,
      ...refused.map(([reason, count]) => [`Refused: ${words(reason)}`, number(count)]),
      ["Recording", status.recording],
      ["Restarts", number(status.restarts)],
    ]} />
    <${Table} caption="Underlyings" columns=${[["Underlying"], ["Spot", true], ["Contracts", true], ["Tradable", true]]} empty="">
      ${Object.entries(status.market?.underlyings ?? {}).map(([name, each]) => html`<tr>
        <th scope="row">${name}</th><td class="n">${number(each.spot, 2)}</td><td class="n">${number(each.contracts)}</td>
        <td class="n">${number(100 * each.tradable_share)} %</td></tr>`)}
    </${Table}>
  </${Section}>`;
}
