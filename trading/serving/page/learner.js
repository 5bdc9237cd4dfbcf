// Who trades, who learns, and what the gate said of it.
import { html, useMemo, useState } from "./vendor/preact.js";
import { Chart, axis, colour } from "./chart.js";
import { Choice, Facts, Section, Table, newest } from "./parts.js";
import { moment, number, signed, words } from "./format.js";

const CURVES = {
  entropy: "Entropy",
  kl: "KL of the update",
  policy_loss: "Policy loss",
  value_loss: "Value loss",
  kl_to_champion: "KL to the champion",
};

function said(each) {
  if (each.kind === "champion_promoted") return ["up", `champion ${each.champion} promoted by ${words(each.by)}`];
  if (each.kind === "champion_rolled_back") return ["down", `back to champion ${each.champion} by ${words(each.by)}`];
  return ["near", `challenger rejected (${(each.failed ?? []).map(words).join(", ")}), ${each.in_a_row} in a row`];
}

/** [held out, episodes, champion, challenger, difference, low, high] */
function compared(rows) {
  return (rows ?? []).map(([held, episodes, champion, challenger, difference, low, high]) => html`<div>
    ${words(held)}: ${signed(challenger, 3)} % against ${signed(champion, 3)} %, difference ${signed(difference, 3)}
    ${low == null || high == null ? "" : ` [${signed(low, 3)}, ${signed(high, 3)}]`}, ${number(episodes)} episodes</div>`);
}

function Learning({ table }) {
  const [curve, setCurve] = useState("entropy");
  const rows = Object.values(table ?? {});
  const data = useMemo(() => [rows.map((row) => row.updates), rows.map((row) => row[curve] ?? null)], [table, curve]);
  if (rows.length < 2) return html`<p class="empty">Curves begin with the second update.</p>`;
  const last = rows.at(-1)[curve];
  return html`
    <${Choice} label="Curve" value=${curve} onChoose=${setCurve} options=${Object.entries(CURVES)} />
    <${Chart} kind=${curve} height=${150} data=${data} said=${`${CURVES[curve]} over ${rows.length} updates, now ${number(last, 4)}`}
      make=${() => ({
        series: [{ label: "Update of this run" }, { label: CURVES[curve], stroke: colour("accent"), width: 2, value: (_, v) => number(v, 4) }],
        scales: { x: { time: false } },
        axes: [axis({ incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }), axis({ size: 60 })],
      })} />`;
}

export function Learner({ status, day }) {
  const { champion, learner } = status;
  const learns = learner && Object.keys(learner).length > 0;
  const judged = newest(day.judgements, 8);
  return html`<${Section} id="learner" title="Learner" wide note=${learner?.paused ? `paused: ${learner.paused}` : learns ? "" : "nothing is learned"}>
    <${Facts} rows=${[
      status.trader && status.trader !== "policy" ? ["Rule-based trader", status.trader, "Who trades"] : ["Champion", `${champion?.number ?? "–"}, version ${champion?.version ?? "–"}`, "Who trades"],
      learns ? ["Challenger", `version ${number(learner.updates)}`, "Who learns"] : null,
      ["Promotions", number(champion?.promotions)],
      ["Refusals", `${number(champion?.refusals)}, ${number(champion?.refusals_in_a_row)} in a row`],
      ["Rollbacks", number(champion?.rollbacks)],
      learns ? ["Live decisions learned", number(learner.live_samples)] : null,
      learns ? ["Entropy", number(learner.entropy, 4)] : null,
      learns ? ["KL", number(learner.kl, 5)] : null,
      learns ? ["KL to the champion", number(learner.kl_to_champion, 5)] : null,
      learns ? ["Policy loss", number(learner.policy_loss, 5)] : null,
      learns ? ["Value loss", number(learner.value_loss, 5)] : null,
      learns ? ["Last update took", `${number(learner.seconds, 1)} s`] : null,
    ]} />
    ${learner?.verdict ? html`<p class="said">Last gate: ${learner.verdict}</p>` : null}
    ${learns ? html`<${Learning} table=${day.learning} />` : null}
    <${Table} caption="Judgements of the gate, newest first" empty="The gate has judged nothing yet."
      columns=${[["When"], ["What"], ["Version", true], ["KL", true], ["Percent of the capital a session"], ["Why"]]}>
      ${judged.map(([key, each]) => {
        const [tone, text] = said(each);
        return html`<tr key=${key}><td>${moment(each.t)}</td><th scope="row" class=${tone}>${text}</th>
          <td class="n">${number(each.version)}</td><td class="n">${number(each.kl, 4)}</td><td>${compared(each.compared)}</td><td class="long">${each.reason}</td></tr>`;
      })}
    </${Table}>
  </${Section}>`;
}
