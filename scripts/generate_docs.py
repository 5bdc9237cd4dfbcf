"""Writes the pages of `docs/` that are made from code; a test holds them to it."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from trading.api.reference import api_reference
from trading.cli.reference import commands_page
from trading.config.cost_sources import fees_table
from trading.config.reference import reference_table
from trading.envs.catalogue import action_table
from trading.envs.features import feature_table, order_feature_table
from trading.envs.market_features import HISTORY_BARS, LIMIT
from trading.execution.events import Compared, Converted, Event
from trading.execution.matching import SHARES
from trading.execution.orders import Fill, Leg, LegFill, Order, Rejection
from trading.execution.states import state_table
from trading.live.metrics import (
    AccountFigures,
    FeedFigures,
    ProcessFigures,
    TradingMetrics,
    UnderlyingFigures,
)
from trading.market.products import products_table
from trading.serving.app import build_api
from trading.serving.exposition import supervisor_families
from trading.serving.supervisor import TRADING, SupervisorState

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ALERTS = ROOT / "infra" / "k8s" / "monitoring" / "rules" / "alerts.yaml"
_PRODUCTS_NOTES = """## What follows from it

- A contract is never opened, and may be held and closed, where the table says no, where a corporate
  action changed what it delivers (its root ends in a digit, as `GOOG1`), and where the vendor does
  not say that it delivers 100 shares and nothing else. FLEX options (a root that begins with a
  digit) are left out of the listing.
- One contract is 100 times its price, options on indices included.
- Options that settle at the opening stop trading the day before, and settle at a level that is made
  of the next morning's opening prices: nobody can leave the position in between, and the level is
  not part of the data. OEX may be exercised for cash on any day, at a close that its seller learns
  afterwards.
- An index has no shares: covered calls are not to be had, and nothing is delivered. Its price is
  implied by its options (put-call parity) while the session lasts, and the official close settles
  what expires.
- Uncovered options on a broad index need 15 % of its level less what they are out of the money, at
  least 10 %; those on stocks and funds 20 % and 10 % (`risk.allow_naked_shorts`).
- Decisions are made between 9:30 and 16:00 New York, on half-days until 13:00, of products that
  trade until 16:15 too. Backtest, training and live trading share this rule on purpose: all
  underlyings are decided on at one time, with one account between them, and the account's session
  ends at one time, with the official closes of 16:00 that settle, mark stock and become the base of
  the next day's loss. In the quarter of an hour after it the stocks behind the late options do not
  trade, most of what the policy sees of them would stand still, and few recorded days have it. So
  nothing is opened or closed in it, also not by its owner; options held are marked as of 16:00, and
  what they do until 16:15 is part of the next morning's first reward. The hours of the table are
  when a contract may fill and when it expires.
- Two expiry dates that stop at one instant, as around a holiday, are two expiries.

## One bad symbol

An underlying is active, winding down or suspended, and what concerns one stops no other.

- **Active**: it is in `symbols`. Everything may be done.
- **Winding down**: its owner took it out of `symbols` while it was held, or shares of it came by a
  spin-off. It is subscribed, marked, and closed from the next bar on at the market, all legs at
  once, as far as sizes are displayed and within the limits: not while trading is halted, nor while
  it is suspended. `account.to_close` of `GET /status` says why what is left was not closed. With
  `risk.wind_down=policy` the policy decides at each bar whether to hold or to close it. It ends
  with the start after its last position. A company that is renamed is no other one: it goes on
  under its new symbol without a restart, in the same place; name it so in `symbols`.
- **Suspended**: its listing is empty or cannot be read, its values are no numbers, its trading is
  halted, a figure is missing, nothing explains a move, or a split that was applied is called off or
  told otherwise. Nothing of it trades, and its holdings keep their last value. It ends when the
  reason is gone, or by its owner's word: `trading account reinstate` or `undo-action`, see
  [states](states.md). What fell due meanwhile is booked then, in order.

## Halts and price limits

`data.massive.luld=true` subscribes to the vendor's `LULD` channel of the stocks behind the options.
It is off by default, since only real-time stock plans include it, and a plan that refuses it keeps
`/ready` at 503. What is known of it, and what follows:

- The specification gives each event two prices (the bands) and `i`, "the indicators", without a
  list. The vendor's page of the channel says that 17 and 18 are halt and resumption, and that these
  two are told **of stocks listed on Nasdaq only**. Its glossary names 15 intraday update, 16
  restated value, 17 suspended during a halt or pause, 18 reopening update, 19 outside price band
  hours, 21 price band, 22 republished band.
- So an event with an indicator of `data.massive.halt_indicators` ([17]) suspends its underlying,
  and the next event without one ends that, a restart in between does not. At a session's start a
  stock counts as trading again until the channel says otherwise.
- A stock whose last price has come to one of its bands is suspended too. That is our inference: the
  channel tells bands, not whether a stock is in a limit state, and the price is that of the last
  minute. It ends with the next band or price between.
- Not to be known from the vendor's stream: news and regulatory halts and volatility pauses of
  stocks listed elsewhere, halts of options alone, and the market-wide circuit breakers.
  Aggregates just stop, trades have no condition of a halt, and the market's status knows opening
  hours only. What protects then is the age of quotes: nothing fills, and nothing is opened, on a
  quote older than `execution.max_quote_age_s`, and the exchanges withdraw the quotes
  of options on a halted stock.

## What its owner sees

What expires settles at the vendor's official close, else at its minute bars, else at what was
recorded of the whole session here, and the journal says which; without any it stays pending.

`account.suspended` of `GET /status` names suspended underlyings with their reasons. A listing that
failed is asked for again every five minutes. A row of it that cannot be read costs that row. Greek
limits count what is held with its last known greeks, the delta moved by spot; where they were never
known no position is opened anywhere, and `greeks.not_quoted` says so.
"""
_COSTS_NOTES = """## Interest, borrowing, rates

Interest and borrowing fees are zero unless you set them. They are booked at each session's close
for the days until the next session, one row of the journal (`carried`), for cash above zero and for
the value of stock held short, 365 days to the year. Interest is part of equity and of no reward.

Options are read with a risk-free rate: at each session's start the newest treasury yields that the
vendor tells (`data.treasury_yields`), for the term of the far expiries. Where it tells none, and in
training, it is `env.risk_free_rate_pct`. The rate in use is `market.risk_free_rate` of
`GET /status`, and it is recorded with the day.

Dividends are in USD. Those that the vendor tells in another currency are left out with a warning:
name them in USD in the file of `data.dividends`.
"""
_ORATS = "https://docs.orats.io/backtest-api-guide/backtester-methodology.html#slippage"
_ORATS_EXAMPLE = (
    "https://orats.com/blog/the-tale-of-two-backtests-"
    "why-arent-opposite-strategies-absolute-returns-equal"
)
_SPREAD_NOTES = f"""
## How much of the spread

`execution.style` says it, live, in training and in backtests by one rule
(`trading/execution/matching.py`):

- `touch`, the default: a purchase pays the ask, a sale receives the bid.
- `working`: a limit order at mid that works towards the touch, `execution.working_steps` bars long:
  [how it is filled](execution.md#orders-that-work).
- `share_of_spread`: a purchase pays bid + share x (ask - bid), a sale receives
  ask - share x (ask - bid), with the shares that ORATS publishes for its backtests
  ([methodology]({_ORATS}), [an example]({_ORATS_EXAMPLE})):

| legs of the order | {" | ".join(str(k) for k in range(1, len(SHARES)))} | {len(SHARES)} and more |
|---|{"---|" * len(SHARES)}
| share of the spread | {" | ".join(f"{100.0 * share:.0f} %" for share in SHARES)} |

An order of one option trades in the ticks of its class: cents (SPY, QQQ, IWM), cents below 3
dollars and five from there, or five and ten. A feed does not tell the class, so it is the coarsest
whose ticks both sides of the quote keep to. Complex orders trade at net prices in cents, and so do
their legs; limits are net prices. Everything is rounded against the order and never goes past the
touch: where the quote of a single option is one tick wide, or those of all legs are a cent wide,
all styles are the same. None fills on a quote that is locked, crossed, one-sided, stale, or
smaller than one unit. `execution.slippage` comes on top.

What was made for one style names it when it meets another: a history of `share_of_spread` is read
by that alone, and a checkpoint and a journal say that the setting has changed. A policy sees what
works only with `working`: its checkpoints and those of the others do not fit each other.
"""
_MADE = "This page is made by `python scripts/generate_docs.py`.\n"


def pages() -> dict[Path, str]:
    """The content of every generated page."""
    observation = (
        "# What the policy sees\n\n"
        "One float32 vector per underlying and decision. All of it is known when the decision\n"
        f"is made. Price indicators use the last {HISTORY_BARS} closed bars; every entry is\n"
        f"clipped to ±{LIMIT:g}; what is unknown is 0.\n\n"
        "`equity`, `buying_power`, `reserved` and `slots_used` are of the whole account, whatever\n"
        "underlyings it trades; the entries that begin with `position` are of this underlying\n"
        "alone. The mask leaves what the buying power, the slots and the greeks of the whole\n"
        "account leave.\n\n"
        "[Features of your own](own-feature.md) stand behind these, as `env.features` says. With\n"
        "`env.underlyings_per_account` above 1 an observation ends with what is open on the\n"
        "account's other underlyings, at the indices below zero, counted from the end. Accounts\n"
        "of training trade so many underlyings then, or there would be nothing to learn from it;\n"
        "live they are 0 where an account has one symbol. A model is made for 1 or for more, and\n"
        "refused under the other ([decision](decisions/accounts-of-several-underlyings.md)).\n\n"
        f"{_MADE}\n{feature_table()}\n"
        "## Orders that work\n\n"
        "With `execution.style=working` an observation ends with these three instead, behind\n"
        "features of your own; `env.underlyings_per_account` is 1 then:\n\n"
        f"{order_feature_table()}"
    )
    actions = (
        "# What the policy may do\n\n"
        "One decision per underlying and bar. An action chooses its contracts by expiry and\n"
        "delta; what cannot be ordered now is masked. At most one strategy is open per\n"
        "underlying.\n\n"
        "The table's actions open all that the limits, the buying power and the displayed sizes\n"
        "allow. With `env.size_levels` 3 there follow the same openings at a third of that\n"
        "(`long_call_near_d30_1of3`), and then those at two thirds, in whole units rounded down;\n"
        "a part of less than one unit is masked. A model is made for one number of levels, and\n"
        "is refused under another one.\n\n"
        "[Structures of your own](plugins.md#an-option-structure) stand behind the table's, as\n"
        "`env.structures` says, and before the smaller parts of all.\n\n"
        f"{_MADE}\n{action_table()}"
    )
    products = (
        "# What can be traded\n\n"
        "`symbols` names underlyings: stocks, funds and indices (`SPX`, not `SPXW`). Their\n"
        "options are found by the roots below. The root of options on one class of a stock has no\n"
        "dot: those on `BRK.B` are `BRKB`.\n\n"
        f"{_MADE}\n{products_table()}\n{_PRODUCTS_NOTES}"
    )
    costs = (
        "# What trading costs\n\n"
        "Every figure is a setting below `execution`: give yours in the settings' file or with\n"
        "`--set execution.orf_fee=0.03`. Each kind of fee of an order is rounded up to the cent.\n"
        "Exercise and assignment are free. Training pays the same fees; a history is written for\n"
        "the fees of its time and is refused with others.\n\n"
        f"{_MADE}\n{fees_table()}\n{_COSTS_NOTES}{_SPREAD_NOTES}"
    )
    settings = (
        "# Settings\n\n"
        "One tree. A YAML file (`--config FILE`), then the environment, then `--set key=value`\n"
        "override the defaults. `trading config` prints what holds, `trading config reference\n"
        "WORD` explains the settings whose key contains the word. A mistake ends a command with\n"
        "exit code 2 and one line that names the key, the value and what is allowed.\n\n"
        f"{_MADE}\n{reference_table()}"
    )
    api = (
        "# From Python\n\n"
        "`import trading as td`. Each name is imported when it is first used, so importing the\n"
        "package is light. Every example runs in a test, with its own `var/` and address. Two\n"
        "notebooks show it at work:\n"
        "[the first hour](../examples/first_hour.ipynb) and\n"
        "[a strategy of one's own](../examples/own_strategy.ipynb); [plugins.md](plugins.md) says\n"
        "how a trader of one's own trades live.\n\n"
        f"{_MADE}\n{api_reference()}"
    )
    return {
        DOCS / "api.md": api,
        DOCS / "settings.md": settings,
        DOCS / "products.md": products,
        DOCS / "costs.md": costs,
        DOCS / "observation.md": observation,
        DOCS / "actions.md": actions,
        DOCS / "monitoring.md": monitoring(),
        DOCS / "states.md": states(),
        DOCS / "commands.md": commands(),
        DOCS / "http.md": http(),
        DOCS / "journal.md": journal(),
    }


def commands() -> str:
    """The page of the command line."""
    return (
        "# Commands\n\n"
        "`trading VERB -h` says the same on the terminal; `trading --install-completion` lets\n"
        "the shell complete verbs and options. Exit codes: 0 done, 1 it failed (one line says\n"
        "what and the way out; `--debug` shows where), 2 it was called wrongly and nothing was\n"
        "begun, 3 something hung while it was told to stop. `python -m trading` is the same.\n\n"
        f"{_MADE}\n{commands_page()}"
    )


def http() -> str:
    """The page of the HTTP service, from its OpenAPI document."""
    document = build_api("live-market", "trading").openapi()
    lines = [
        "# HTTP",
        "",
        "What the application answers at `serving.host` and `serving.port`, by default",
        "`http://127.0.0.1:8000`. `GET /openapi.json` is the same for programs. Answers are JSON",
        "but for `/metrics`, `/events` and the page. Several strategies in one application:",
        "[which paths they have](strategies.md#over-http).",
        "",
        _MADE,
        "## Read",
        "",
        "`GET /` is [the page](page.md), `GET /events` what it shows, as server-sent events.",
        "",
    ]
    commanded = []
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            if path.startswith("/control/"):
                commanded.append((path, route))
                continue
            about = " ".join(route["description"].split())
            lines += [f"### {method.upper()} {path}", "", about, ""]
            lines += [*_parameters(route.get("parameters", [])), *_answers(route["responses"])]
    lines += [
        "## Command",
        "",
        "The owner's commands: [what each does](states.md). Each wants the header",
        "`Authorization: Bearer TOKEN` with the application's `CONTROL_TOKEN`; without a token",
        "set, all are refused.",
        "",
        *(f"- `POST {path}`" for path, _ in commanded),
        "",
        "The body is a JSON object, or nothing:",
        "",
        "| field | is |",
        "|---|---|",
    ]
    (body,) = commanded[0][1]["requestBody"]["content"].values()
    lines += [f"| `{name}` | {_BODY[name]} |" for name in body["schema"]["properties"]]
    lines += ["", *_answers(commanded[0][1]["responses"])]
    return "\n".join(lines).rstrip() + "\n"


_BODY = {
    "by": "who commands, for the journal",
    "why": "the reason, for the journal",
    "key": "the same key again is the same command, done once; also the header `Idempotency-Key`",
    "symbol": "the underlying, for `close`, `reinstate` and `undo-action`",
    "which": "for `promote`: `champion-3`, `step-120`, or a folder",
}


_FRAMEWORK_WORDS = {
    "Successful Response": "It is so, or here it is",
    "Validation Error": "A parameter is not in order",
}


def _parameters(told: list[dict[str, Any]]) -> list[str]:
    if not told:
        return []
    lines = ["| parameter | in | is |", "|---|---|---|"]
    for each in told:
        kinds = each["schema"].get("anyOf", [each["schema"]])
        kind = " or ".join(_kind(one) for one in kinds if one.get("type") != "null")
        lines.append(f"| `{each['name']}` | {each['in']} | {kind} |")
    return [*lines, ""]


def _kind(schema: dict[str, Any]) -> str:
    """What a parameter may be, in words."""
    told = [str(schema.get("format", schema.get("type")))]
    if "minimum" in schema:
        told.append(f"{schema['minimum']} to {schema['maximum']}")
    if "maxLength" in schema:
        told.append(f"at most {schema['maxLength']} characters")
    if schema.get("default") not in (None, ""):
        told.append(f"default {schema['default']}")
    return ", ".join(told)


def _answers(responses: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| status | means |", "|---|---|"]
    for status, each in sorted(responses.items()):
        about = _FRAMEWORK_WORDS.get(each["description"], each["description"])
        lines.append(f"| {status} | {about} |")
    return [*lines, ""]


def journal() -> str:
    """The page of the journal: every kind of event and its fields."""
    shown = [*get_args(Event), Order, Leg, Fill, LegFill, Rejection, Converted, Compared]
    return f"""# The journal

The account is the fold of its journal: one SQLite file, `journal-ACCOUNT.sqlite` below
`paths.state_dir`. Rows are never changed nor removed; the file refuses it.

| column of `events` | is |
|---|---|
| `seq` | number of the row, from 1, without gaps |
| `ts_ns` | exchange time, UTC nanoseconds |
| `kind` | which of the events below |
| `payload` | the event's fields, JSON |
| `sum` | 64 bits of BLAKE2b over the four others |

`trading journal export -o FILE.csv` writes a row for each event with `seq`, `time_utc`, `ts_ns`,
`kind` and one column for each field below; fields of an order, a fill or a rejection are columns of
their own, and lists are JSON. `trading journal export` writes the same as JSON lines, in which they
are objects. `trading journal verify` checks every row, and that the account follows from them.

Amounts are USD, prices USD a share, quantities contracts, or round lots of stock. Structures that
several events hold (orders, legs, fills) are at the end.

{_MADE}
{_each_struct(shown)}"""


def _each_struct(structs: list[type[msgspec.Struct]]) -> str:
    lines: list[str] = []
    for each in structs:
        tag = each.__struct_config__.tag
        title = f"`{tag}`" if tag else each.__name__
        lines += [f"## {title}", "", _prose(inspect.getdoc(each) or ""), ""]
        about = _field_docs(each)
        lines += (
            ["| field | type | is |", "|---|---|---|"]
            if about
            else ["| field | type |", "|---|---|"]
        )
        for field in msgspec.structs.fields(each):
            row = f"| `{field.name}` | {_type_name(field.type)} |"
            lines.append(f"{row} {about.get(field.name, '')} |" if about else row)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _prose(text: str) -> str:
    """The sentences of a docstring, without its sections of parameters."""
    told = re.split(r"\n(?:Parameters|Attributes|Raises|Returns|Example)s?:?\n", text)[0]
    return told.strip()


def _field_docs(struct: type) -> dict[str, str]:
    """The sentence below each field of a class."""
    found = re.findall(
        r'^    (\w+): [^\n]+\n    """(.+?)"""', inspect.getsource(struct), re.MULTILINE | re.DOTALL
    )
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in found}


def _type_name(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return re.sub(r"[\w.]+\.(\w+)", r"\1", text).replace("NoneType", "None").replace("|", "or")


def states() -> str:
    """The page about what may be traded, and the owner's commands."""
    return f"""# What may be traded, and who decides

An account is ACTIVE, REDUCING (only what closes a strategy trades) or HALTED (nothing trades;
expiry and settlement still happen). Each cause below stands by itself, several may at once, and the
strictest holds; so one that ends never lifts another. All of it is a fold of the journal, and the
same after a restart. A cause that still holds when it was lifted enters again at the next bar.

{state_table()}
A number that is none and concerns one underlying suspends that underlying alone, until it is a
number again.

The owner commands by `trading account halt|reduce|resume|flatten|close SYMBOL|reset-peak|deposit|
withdraw|reinstate SYMBOL|undo-action SYMBOL`, whether or not the application runs: while it does,
its live market obeys between two bars; while it does not, the command writes the journal itself.
`trading account status` says what stands and what may be done about it. `--why` and `--by` go into
the journal, a command that is given twice with the same `--key` is done once, and `--json` is for
scripts. A command that cannot be obeyed changes nothing and ends with exit code 1 and the reason.

By HTTP it is `POST /control/halt`, `reduce`, `resume`, `flatten`, `close`, `reset-peak`,
`reinstate`, `undo-action`, and also `promote`, `rollback` (which champion trades) and `reload` (the
settings again: limits change at once, the answer says what needs a restart). The header is
`Authorization: Bearer TOKEN` with the token that `CONTROL_TOKEN` holds where the application runs;
without one, all are refused. The body is a JSON object with any of `by`, `why`, `key` (or the
header `Idempotency-Key`), `symbol` (to close, reinstate, undo) and `which` (to promote: champion-3,
step-120 or a folder). Answers are 200 with what happened, 409 with the reason that it was not done,
400, 401, 403, 413 or 429 for requests that are not in order, and 503 while nothing trades.

- `flatten` and `close` send market orders from the next bar on, one order a strategy with all its
  legs, at most at the displayed size, until all is closed. What has no usable quote, and what is
  outside of its session, waits; `status` says why. They trade in spite of every cause but the
  owner's own halt. `resume` and `halt` countermand them.
- `deposit` and `withdraw` are neither profit nor loss: what losses are measured from is scaled with
  them, so that every gain and loss stays what it was in percent, and so is what the policy measures
  in. At most the buying power can be taken out.
- `reset-peak` measures the drawdown, also the one under the champion, from the present equity. With
  open positions and no market to look at, the next bar does it.
- `reinstate` lets an underlying trade again that is suspended since nothing explains its move: the
  move was real. What fell due on it meanwhile (dividends, expiries, assignments) is done first, in
  order, at the figures and on the shares of its day. It also keeps a corporate action that the
  vendor called off or told otherwise after it was applied.
- `undo-action` takes the last corporate action of an underlying back: positions, average prices and
  cash in lieu are what they were before it, at the same equity to the cent. It is one event of the
  journal, and refused where what the action made was traded or settled since. A corrected action is
  applied afterwards, as the vendor tells it now.

{_MADE}"""


def monitoring() -> str:
    """The page about metrics, alerts and dashboards."""
    return f"""# Monitoring

`GET /metrics` is what Prometheus scrapes. `scripts/deploy_k8s.sh --monitoring` adds Prometheus and
Grafana to the cluster ([infra/k8s/monitoring](../infra/k8s/monitoring)): Prometheus finds the
application and every node of Ray by itself, evaluates the rules below, and keeps 90 days; Grafana
shows *Trading*, *Learning* and *Runbooks*, and [Ray's own dashboards](#rays-own-dashboards).

```sh
kubectl -n trading-bot port-forward service/grafana 3000       # http://127.0.0.1:3000
kubectl -n trading-bot port-forward service/prometheus 9090    # http://127.0.0.1:9090/alerts
```

Prometheus tells nobody of an alert by itself. To be called, run an Alertmanager and name it in
`alerting.alertmanagers` of
[prometheus-config.yaml](../infra/k8s/monitoring/prometheus-config.yaml); route `severity: critical`
to a person at once, `warning` to be read within the day.

Each alert carries a link to what to do about it, `runbook_url`. It leads to *Runbooks* in Grafana
at `http://127.0.0.1:3000`, where a port-forward puts it. Whoever reads alerts elsewhere says once
where this page is:
`scripts/deploy_k8s.sh --monitoring --runbooks https://docs.example/monitoring.html`, or `runbooks`
of the [chart](../infra/helm/trading/README.md), or `RUNBOOKS_URL` of
[prometheus-deployment.yaml](../infra/k8s/monitoring/prometheus-deployment.yaml). Each alert adds
its own anchor. `make docs` writes that page for a site, and a forge shows `docs/monitoring.md` too.

Dashboards are made by `python scripts/generate_dashboards.py`: change them there, Grafana keeps no
change of its own. Rules are plain files in
[rules](../infra/k8s/monitoring/rules); `promtool test rules tests/infra/alerts.promtool.yaml` shows
that every alert fires when it should and only then. Tests with a running application ask every
panel and every rule for data.

*Trading* has a table of what is held by underlying and one of what was done, but none with a row
for each fill or leg. A metric is a series for each combination of its labels, kept for 90 days:
contracts and order ids as labels would be new ones every day, without a bound, and a fill is an
event with a price, not a figure of one instant. Fills and legs, with prices, are on the page
([what it shows](page.md)), in `GET /status` and `GET /journal` ([HTTP](http.md)), and in
`trading report`.

## The dashboard of Ray

`trading up --set ray.dashboard=true` serves it, prints its address (`http://127.0.0.1:8265`, on the
loopback alone), and it asks for the token that `ray get-auth-token` prints. Of this application it
shows:

- *Actors*: the *live-market* actor by name, whether it is alive, how often it was started again,
  memory and processor, and its log; learners, runners and the market's server, where they are
  actors
- *Jobs*: the driver, one job for each `trading up` or `trading train` that runs in this Ray
- *Serve*: the application of the account with its replicas, by the path that it answers at
- *Cluster*: processors, memory and object store of the machine, and each worker process
- *Metrics*: curves, where Ray is told of a Prometheus and a Grafana (`RAY_PROMETHEUS_HOST`,
  `RAY_GRAFANA_HOST`); without them the page says so

It is off in local runs, because it is not free: 630 MB in place of 230 for Ray's own processes
(proportional set size of an idle Ray without the application), twelve processes more, and 2 to 6 s
on top of a start, on two busy cores. Without it a local Ray has neither its server and its agent of
the node, nor an autoscaler, which makes no nodes there, and nobody collects Ray's own metrics
(`ray_...`). A cluster by KubeRay has it on its head.

## Ray's own dashboards

Grafana has them in its folder *Ray*, beside *Trading* and *Learning*: nodes and workers, Serve,
and its deployments. The Ray of the application's image writes them when Grafana's pod starts, so
they are those of the version that runs. They ask for the `ray_...` metrics that this Prometheus
reads from every node of a Ray cluster; the form of one pod has no such node, and they are empty
beside it. For a Grafana of your own:

```sh
mkdir -p var/ray-dashboards
python -m trading.app.ray_dashboards var/ray-dashboards    # what a provider of Grafana reads
```

## Alerts

{_alert_table()}

## Runbooks

What to do about each. Every alert carries the address of its section as the annotation
`runbook_url`, and Grafana shows them as *Runbooks*. Where the logs lie is in
[Troubleshooting](troubleshooting.md#where-each-log-lies); what `GET /status` says is on
[the page](page.md) too.

{_runbooks()}

## Metrics

The account's totals go on after a restart, those of the feed and the learner count from the start
of the process. A gauge is `NaN` while it is unknown. Beside these there are
`trading_bot_process_*`, which are the live market's memory, CPU time and open files, and
Ray's own, `ray_*`, on a port of every node; a local Ray has them with `ray.dashboard` alone.

{_metric_table()}

{_MADE}"""


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alert_table() -> str:
    lines = ["| alert | severity | fires when |", "|---|---|---|"]
    for rule in _alerts():
        name = f"[{rule['alert']}](#{rule['alert'].lower()})"
        lasts = f" for {rule['for']}" if "for" in rule else ""
        condition = f"`{rule['expr']}`{lasts}".replace("|", "\\|")
        lines.append(f"| {name} | {rule['labels']['severity']} | {condition} |")
    return "\n".join(lines)


def _runbooks() -> str:
    return "\n\n".join(
        f"### {rule['alert']}\n\n{rule['annotations']['description']}" for rule in _alerts()
    )


def _metric_table() -> str:
    metrics = TradingMetrics()
    metrics.update_account(AccountFigures(underlyings={"SPY": UnderlyingFigures()}))
    live = {"options": True, "stocks": True}
    metrics.update_feed(FeedFigures(connected=live, silence_s=dict.fromkeys(live, 0.0)))
    disks = {"state": 0, "checkpoints": 0}
    metrics.update_process(ProcessFigures(disk_free_bytes=disks, disk_size_bytes=disks))
    lines = ["| name | type | unit | meaning |", "|---|---|---|---|"]
    supervisor = supervisor_families(SupervisorState(TRADING, "", leased=True, failures=0))
    for family in [*metrics.registry.collect(), *supervisor]:
        if family.name.startswith("trading_bot_process_") or family.name.endswith("_created"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({key for sample in family.samples for key in sample.labels} - {"le"})
        shown = f"{name}{{{', '.join(labels)}}}" if labels else name
        unit = _unit(name, family.documentation)
        lines.append(f"| `{shown}` | {family.type} | {unit} | {family.documentation} |")
    return "\n".join(lines)


def _unit(name: str, about: str) -> str:
    """The unit that a metric's name or, where old names carry none, its description tells."""
    for suffix, unit in (("_seconds", "s"), ("_bytes", "bytes"), ("_ratio", "0 to 1")):
        if name.endswith(suffix):
            return unit
    if "USD" in about or name.endswith("_usd"):
        return "USD"
    if "nats" in about:
        return "nats"
    if about.startswith("Share"):
        return "at most 1"
    return "0 or 1" if about.startswith("1 ") else "number"


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content)
