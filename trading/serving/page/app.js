// The page: one document from the server, and the sections that show it, the most important first.
import { html, render, useState, useEffect } from "./vendor/preact.js";
import { follow } from "./live.js";
import { Masthead, Banner, Figures, Skip } from "./standing.js";
import { Equity, ProfitParts } from "./equity.js";
import { Positions, Limits } from "./positions.js";
import { Controls } from "./controls.js";
import { Decisions, Fills } from "./decisions.js";
import { Feed } from "./feed.js";
import { Learner } from "./learner.js";
import { Chain } from "./chain.js";
import { Journal, Happenings } from "./journal.js";

function App() {
  const [state, setState] = useState({ content: null, heardMs: 0, gone: "", cut: 0 });
  useEffect(() => follow(setState), []);
  const { content } = state;
  const status = content?.status ?? {};
  const day = content?.day ?? {};
  const time = status.market?.time;
  if (content?.status?.account) {
    document.title = `${status.account.trading_state} · trading ${status.account.id}`;
  }
  return html`
    <${Skip} to="the account" />
    <${Masthead} state=${state} />
    <main id="main" tabindex="-1">
      <${Banner} state=${state} />
      ${status.account
        ? html`
            <${Figures} status=${status} day=${day} />
            <${Equity} status=${status} day=${day} />
            <${ProfitParts} day=${day} />
            <${Positions} status=${status} />
            <${Limits} limits=${status.limits} />
            <${Controls} status=${status} />
            <${Decisions} day=${day} />
            <${Fills} day=${day} />
            <${Feed} status=${status} />
            <${Learner} status=${status} day=${day} />
            <${Chain} status=${status} time=${time} />
            <${Happenings} day=${day} />
            <${Journal} symbols=${Object.keys(status.market?.underlyings ?? {})} />
          `
        : html`<p class="loading" role="status">${
            content ? "No account is open yet." : "Waiting for the account…"
          }</p>`}
    </main>
    <footer>
      <p>A paper account: no order leaves this system. Times are New York's.
        ${" "}<a href="status">status</a> · <a href="metrics">metrics</a> · <a href="openapi.json">API</a>
        ${status.versions ? ` · trading ${status.versions.trading}, Ray ${status.versions.ray}` : ""}</p>
    </footer>
  `;
}

const place = document.getElementById("app");
place.textContent = "";
render(html`<${App} />`, place);
