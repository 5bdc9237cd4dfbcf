// The option chain of a chosen underlying at the last bar, with its smile and term structure.
import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { Chart, axis, colour } from "./chart.js";
import { Section, Table, fetched } from "./parts.js";
import { clock, number, option, usd } from "./format.js";

/** The chain, asked for again after every bar while somebody wants to see it. */
function useChain(underlying, time, isOpen) {
  const [chain, setChain] = useState(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    if (!isOpen || !underlying) return undefined;
    let isWanted = true;
    fetched(`chain/${encodeURIComponent(underlying)}`)
      .then((told) => {
        if (isWanted) setChain(told);
        if (isWanted) setFault("");
      })
      .catch((error) => isWanted && setFault(error.message));
    return () => {
      isWanted = false;
    };
  }, [underlying, time, isOpen]);
  return [chain?.underlying === underlying ? chain : null, fault];
}

function Smile({ expiry, spot }) {
  const data = useMemo(() => {
    const rows = expiry.rows.filter((row) => row.iv !== undefined);
    return [rows.map((row) => row.strike), rows.map((row) => 100 * row.iv)];
  }, [expiry]);
  const near = data[1].length ? `, between ${number(Math.min(...data[1]), 1)} and ${number(Math.max(...data[1]), 1)} %` : "";
  return html`<figure><figcaption>Smile of ${expiry.expiry}</figcaption>
    <${Chart} kind=${`smile ${spot > 1000}`} height=${190} data=${data} said=${`Implied volatility of ${data[0].length} strikes${near}`}
      make=${() => ({
        series: [{ label: "Strike" }, { label: "Volatility", stroke: colour("accent"), width: 2, points: { show: true, size: 5 }, value: (_, v) => (v == null ? "–" : `${number(v, 2)} %`) }],
        scales: { x: { time: false } },
        axes: [axis(), axis({ size: 52, values: (_, v) => v.map((each) => `${number(each, 1)} %`) })],
      })} /></figure>`;
}

function Term({ expiries }) {
  const data = useMemo(() => {
    const known = expiries.filter((each) => each.iv !== undefined && each.iv !== null);
    return [known.map((each) => each.days), known.map((each) => 100 * each.iv)];
  }, [expiries]);
  return html`<figure><figcaption>Term structure at the money</figcaption>
    <${Chart} kind="term" height=${190} data=${data} said=${`Volatility at the money of ${data[0].length} expiries`}
      make=${() => ({
        series: [{ label: "Days" }, { label: "Volatility", stroke: colour("mark"), width: 2, points: { show: true, size: 6 }, value: (_, v) => (v == null ? "–" : `${number(v, 2)} %`) }],
        scales: { x: { time: false } },
        axes: [axis(), axis({ size: 52, values: (_, v) => v.map((each) => `${number(each, 1)} %`) })],
      })} /></figure>`;
}

const side = (quote) => [usd(quote?.[0]), usd(quote?.[1]), number(quote?.[2], 2)];

export function Chain({ status, time }) {
  const names = Object.keys(status.market?.underlyings ?? {});
  const [chosen, choose] = useState("");
  const [expiry, setExpiry] = useState("");
  const [isOpen, setOpen] = useState(false);
  const underlying = names.includes(chosen) ? chosen : names[0];
  const [chain, fault] = useChain(underlying, time, isOpen);
  const expiries = chain?.expiries ?? [];
  const shown = expiries.find((each) => `${each.root} ${each.expiry}` === expiry) ?? expiries[Math.min(1, expiries.length - 1)];
  const held = new Set();
  for (const position of status.positions ?? []) {
    for (const leg of position.legs) {
      const parts = option(leg.symbol);
      if (parts && parts.expiry === shown?.expiry && position.underlying === underlying) held.add(`${parts.strike}${parts.right}`);
    }
  }
  const mark = (strike, right) => (held.has(`${strike}${right}`) ? html` <small>held</small>` : null);
  return html`<${Section} id="chain" title="Option chain" wide note=${chain ? `at ${clock(chain.t)}, spot ${usd(chain.spot)}` : ""}>
    <details class="fold" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}>
      <summary>Quotes, smile and term structure</summary>
      <div class="bar">
        <label>Underlying <select value=${underlying} onChange=${(event) => choose(event.target.value)}>${names.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
        <label>Expiry <select value=${shown ? `${shown.root} ${shown.expiry}` : ""} onChange=${(event) => setExpiry(event.target.value)}>${expiries.map(
          (each) => html`<option value=${`${each.root} ${each.expiry}`}>${each.root} ${each.expiry}, ${number(each.days, 1)} days</option>`,
        )}</select></label>
      </div>
      ${fault ? html`<p class="answer bad" role="alert">The chain is not there: ${fault}</p>` : null}
      ${shown
        ? html`<div class="pair"><${Smile} expiry=${shown} spot=${chain.spot} /><${Term} expiries=${expiries} /></div>
          <${Table} caption=${`Chain of ${underlying}, ${shown.expiry}`} empty="No strikes are listed."
            columns=${[["Call bid", true], ["Call ask", true], ["Delta", true], ["Strike", true], ["Volatility", true], ["Put bid", true], ["Put ask", true], ["Delta", true]]}>
            ${shown.rows.map((row) => {
              const [callBid, callAsk, callDelta] = side(row.call);
              const [putBid, putAsk, putDelta] = side(row.put);
              return html`<tr key=${row.strike} class=${row.strike < chain.spot ? "below" : ""}>
                <td class="n">${callBid}${mark(row.strike, "C")}</td><td class="n">${callAsk}</td><td class="n">${callDelta}</td>
                <th scope="row" class="n">${number(row.strike, row.strike % 1 ? 2 : 0)}</th>
                <td class="n">${row.iv === undefined ? "–" : `${number(100 * row.iv, 1)} %`}</td>
                <td class="n">${putBid}${mark(row.strike, "P")}</td><td class="n">${putAsk}</td><td class="n">${putDelta}</td></tr>`;
            })}
          </${Table}>`
        : html`<p class="empty">${isOpen && !fault ? "Waiting for a bar…" : ""}</p>`}
    </details>
  </${Section}>`;
}
