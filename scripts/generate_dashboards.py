"""Writes Grafana's dashboards; a test holds them to this file."""

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery as AnyQuery
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

MONITORING = Path(__file__).parents[1] / "infra" / "k8s" / "monitoring"
FOLDER = MONITORING / "dashboards"
RUNBOOKS = "trading-bot-runbooks"
_PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
_WIDTH = 24
_METRIC = re.compile(r"\b(trading_bot[\w:]*)(\{)?")
_CHOSEN = 'strategy=~"$strategy"'
_STRATEGY_LEGEND = " {{strategy}}"
USD, SHARE, SECONDS, BYTES = "currencyUSD", "percentunit", "s", "bytes"
PER_SECOND, PER_MINUTE = "cps", "cpm"

Panel = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel | text.Panel


class Line(NamedTuple):
    """A query of Prometheus and what its series are called."""

    expr: str
    legend: str


class Column(NamedTuple):
    """A column of a table: a figure of each row's labels."""

    title: str
    metric: str
    unit: str = "short"


class Section(NamedTuple):
    """A row of the dashboard and the panels below it."""

    title: str
    panels: Sequence[Panel]


def trading() -> grafana.Dashboard:
    """The account and its market."""
    return _dashboard(
        "trading-bot-trading",
        "Trading",
        [
            Section(
                "Now",
                _across(
                    _figure("Equity", "trading_bot_portfolio_value", USD),
                    _figure(
                        "P&L", "trading_bot_portfolio_value - trading_bot_initial_capital", USD
                    ),
                    _figure(
                        "P&L today",
                        "trading_bot_portfolio_value - trading_bot_day_start_equity",
                        USD,
                    ),
                    _figure("Drawdown", "trading_bot:drawdown:ratio", SHARE),
                    _figure("Win rate", "trading_bot_win_rate / 100", SHARE),
                    _alarm("Alerts", 'sum(ALERTS{alertstate="firing"}) or vector(0)')
                    .description("What to do about each: the dashboard Runbooks.")
                    .links([_link_to_runbooks()]),
                ),
            ),
            Section(
                "Account",
                _across(
                    _graph(
                        "Equity",
                        USD,
                        Line("trading_bot_portfolio_value", "equity"),
                        Line("trading_bot_cash", "cash"),
                        Line("trading_bot_buying_power", "buying power"),
                    ),
                    _graph(
                        "P&L",
                        USD,
                        Line("trading_bot_realised_pnl", "realised, after fees"),
                        Line("trading_bot:unrealised_pnl:usd", "unrealised"),
                        Line("-trading_bot_fees_total", "fees"),
                    ),
                    _graph(
                        "Losses and their limits",
                        SHARE,
                        Line("trading_bot:drawdown:ratio", "drawdown"),
                        Line("trading_bot_max_drawdown_ratio", "drawdown: only closing"),
                        Line("trading_bot:daily_loss:ratio", "daily loss"),
                        Line("trading_bot_max_daily_loss_ratio", "daily loss: halt"),
                        about="A crossed limit restricts trading.",
                    ),
                )
                + _across(
                    _states(
                        "State of trading",
                        Line("trading_bot_trading_state", "{{state}}"),
                        no="transparent",
                        yes="blue",
                    )
                ),
            ),
            Section(
                "Positions",
                _across(
                    _graph("Open strategies", "short", Line("trading_bot_open_positions", "open")),
                    _graph(
                        "Held back",
                        "short",
                        Line("trading_bot_suspended_underlyings", "underlyings suspended"),
                        Line("trading_bot_unexplained_underlyings", "of these, unexplained"),
                        Line("trading_bot_pending_settlements", "contracts expired, not settled"),
                    ),
                    _graph(
                        "Delta and gamma",
                        USD,
                        Line("trading_bot_delta_usd", "delta"),
                        Line("trading_bot_gamma_usd", "gamma (1 % move)"),
                        about="Value of the stock that the account moves like, and its change.",
                    ),
                    _graph(
                        "Vega and theta",
                        USD,
                        Line("trading_bot_vega_usd", "vega (volatility point)"),
                        Line("trading_bot_theta_usd", "theta (day)"),
                    ),
                    _graph(
                        "Win rate",
                        SHARE,
                        Line("trading_bot_win_rate / 100", "since the start"),
                        Line("trading_bot:win_rate:ratio5d", "five days"),
                    ),
                )
                + _across(
                    _graph(
                        "P&L by underlying",
                        USD,
                        Line("trading_bot_underlying_pnl_usd", "{{underlying}}"),
                        about="Since the account was opened, after fees, positions at their marks.",
                    ),
                    _table(
                        "What is held",
                        ("strategy", "underlying"),
                        Column("open", "trading_bot_underlying_open_positions"),
                        Column("P&L", "trading_bot_underlying_pnl_usd", USD),
                        Column("delta", "trading_bot_underlying_delta_usd", USD),
                        Column("gamma (1 %)", "trading_bot_underlying_gamma_usd", USD),
                        Column("vega (point)", "trading_bot_underlying_vega_usd", USD),
                        Column("theta (day)", "trading_bot_underlying_theta_usd", USD),
                        about="Legs and prices: the page, GET /status.",
                    ),
                ),
            ),
            Section(
                "Orders",
                _across(
                    _table(
                        "What was done",
                        ("strategy",),
                        Column("decisions", "trading_bot_steps_total"),
                        Column("orders", "trading_bot_orders_total"),
                        Column("refused", "trading_bot_rejections_total"),
                        Column("fills", "trading_bot_trades_total"),
                        Column("closed", "trading_bot_closed_trades_total"),
                        Column("won", "trading_bot_winning_trades_total"),
                        Column("realised", "trading_bot_realised_pnl", USD),
                        Column("fees", "trading_bot_fees_total", USD),
                        about="Each fill with its legs and prices: the page, trading report.",
                    ),
                )
                + _across(
                    _graph(
                        "Orders",
                        PER_MINUTE,
                        Line("60 * rate(trading_bot_orders_total[$__rate_interval])", "orders"),
                        Line("60 * rate(trading_bot_trades_total[$__rate_interval])", "fills"),
                        Line(
                            "60 * rate(trading_bot_rejections_total[$__rate_interval])",
                            "rejections",
                        ),
                    ),
                    _graph(
                        "Decisions",
                        PER_MINUTE,
                        Line("60 * rate(trading_bot_steps_total[$__rate_interval])", "decisions"),
                    ),
                    _graph(
                        "Data to order",
                        SECONDS,
                        *(
                            Line(
                                f"histogram_quantile({share}, sum by (strategy, le) (rate("
                                "trading_bot_action_latency_seconds_bucket[$__rate_interval])))",
                                f"p{share * 100:g}",
                            )
                            for share in (0.5, 0.9, 0.99)
                        ),
                        about="From the end of a bar's data to the order's answer.",
                    ),
                ),
            ),
            Section(
                "Market data",
                _across(
                    _graph(
                        "Events",
                        PER_SECOND,
                        Line("rate(trading_bot_feed_events_total[$__rate_interval])", "events"),
                    ),
                    _graph(
                        "Silence",
                        SECONDS,
                        Line("trading_bot_feed_silence_seconds", "{{asset_class}}"),
                        about="Time since the newest frame.",
                    ),
                    _graph(
                        "Contracts with a quote that may fill",
                        SHARE,
                        Line("trading_bot_feed_tradable_ratio", "worst underlying"),
                    ),
                    _graph(
                        "Faults",
                        PER_MINUTE,
                        Line(
                            "60 * rate(trading_bot_feed_reconnects_total[$__rate_interval])",
                            "reconnects",
                        ),
                        Line(
                            "60 * rate(trading_bot_feed_dropped_frames_total[$__rate_interval])",
                            "frames dropped",
                        ),
                        Line(
                            "60 * rate(trading_bot_feed_late_events_total[$__rate_interval])",
                            "late events",
                        ),
                        Line(
                            "60 * rate(trading_bot_late_bars_total[$__rate_interval])",
                            "bars closed too late to trade",
                        ),
                        Line(
                            "60 * rate(trading_bot_rest_rows_left_out_total[$__rate_interval])",
                            "REST rows left out",
                        ),
                    ),
                )
                + _across(
                    _graph(
                        "Events refused",
                        PER_MINUTE,
                        Line(
                            "60 * rate(trading_bot_feed_refused_total[$__rate_interval])",
                            "{{reason}}",
                        ),
                        about="By reason, see feed.refused in GET /status.",
                    ),
                    _graph(
                        "Clock ahead of the vendor's",
                        SECONDS,
                        Line("trading_bot_clock_offset_seconds", "machine"),
                        about="Above 5 s nothing is opened. A tape that is played has no offset.",
                    ),
                    _graph(
                        "Subscriptions",
                        "short",
                        Line("trading_bot_feed_subscriptions", "{{asset_class}} {{answer}}"),
                    ),
                )
                + _across(
                    _states(
                        "Connections",
                        Line("trading_bot_feed_connected", "{{asset_class}}"),
                        Line("trading_bot_market_open", "market open"),
                        Line("trading_bot_ready", "ready"),
                        no="dark-red",
                        yes="green",
                    ),
                    _states(
                        "Why it is not ready",
                        Line("trading_bot_not_ready", "{{reason}}"),
                        no="transparent",
                        yes="dark-red",
                    ),
                ),
            ),
            Section(
                "Feed of many readers, where one runs",
                _across(
                    _graph(
                        "Readers",
                        "short",
                        Line("trading_feed_readers", "{{asset_class}}"),
                    ),
                    _graph(
                        "From the vendor and to readers",
                        PER_SECOND,
                        Line("rate(trading_feed_events_total[$__rate_interval])", "from"),
                        Line("rate(trading_feed_sent_events_total[$__rate_interval])", "to"),
                    ),
                    _graph(
                        "What slow readers did not get",
                        PER_MINUTE,
                        Line(
                            "60 * rate(trading_feed_replaced_quotes_total[$__rate_interval])",
                            "quotes, for newer ones",
                        ),
                        Line(
                            "60 * rate(trading_feed_dropped_events_total[$__rate_interval])",
                            "trades and bars",
                        ),
                        about="GET /status of the feed says which reader.",
                    ),
                    _graph(
                        "Contracts that there is no room for",
                        "short",
                        Line("trading_feed_left_out_contracts", "{{asset_class}}"),
                    ),
                )
                + _across(
                    _states(
                        "Connections to the vendor",
                        Line("trading_feed_connected", "{{asset_class}} {{connection}}"),
                        no="dark-red",
                        yes="green",
                    ),
                    _graph(
                        "Connections opened anew",
                        "short",
                        Line(
                            "increase(trading_feed_reconnects_total[1h])",
                            "{{asset_class}} {{connection}}, in an hour",
                        ),
                    ),
                ),
            ),
            Section(
                "Process",
                _across(
                    _graph(
                        "CPU",
                        "short",
                        Line(
                            "rate(trading_bot_process_cpu_seconds_total[$__rate_interval])",
                            "live market",
                        ),
                    ),
                    _graph(
                        "Memory",
                        BYTES,
                        Line("trading_bot_process_resident_memory_bytes", "live market"),
                    ),
                    _graph("Disk free", SHARE, Line("trading_bot:disk_free:ratio", "{{folder}}")),
                    _graph(
                        "Times taken up again", "short", Line("trading_bot:restarts:max", "account")
                    ),
                ),
            ),
        ],
    )


def learning() -> grafana.Dashboard:
    """The learner, the gate, and the cluster below them."""
    return _dashboard(
        "trading-bot-learning",
        "Learning",
        [
            Section(
                "Now",
                _across(
                    _figure("Champion", "trading_bot_champion", "short"),
                    _figure("Champion's updates", "trading_bot_champion_version", "short"),
                    _figure("Challenger's updates", "trading_bot_challenger_version", "short"),
                    _figure("Promotions", "trading_bot_promotions_total", "short"),
                    _figure("Refusals in a row", "trading_bot_refusals_in_a_row", "short"),
                    _alarm("Rollbacks", "trading_bot_rollbacks_total"),
                ),
            ),
            Section(
                "Returns",
                _across(
                    _graph(
                        "Episode return in training markets",
                        "short",
                        Line("trading_bot_rehearsal_return", "mean"),
                    ),
                    _graph("Reward of trading", "short", Line("trading_bot_reward_total", "sum")),
                ),
            ),
            Section(
                "Updates",
                _across(
                    _graph(
                        "Losses",
                        "short",
                        Line("trading_bot_learner_policy_loss", "policy"),
                        Line("trading_bot_learner_value_loss", "value"),
                    ),
                    _graph(
                        "KL divergence (nats)",
                        "short",
                        Line("trading_bot_learner_kl", "of the last update"),
                        Line("trading_bot_challenger_kl", "challenger from champion"),
                    ),
                    _graph(
                        "Entropy (nats)", "short", Line("trading_bot_learner_entropy", "policy")
                    ),
                )
                + _across(
                    _graph(
                        "Explained variance",
                        SHARE,
                        Line("trading_bot_learner_explained_variance", "critic"),
                    ),
                    _graph("Gradient", "short", Line("trading_bot_learner_grad_norm", "norm")),
                    _graph(
                        "Clipped ratios",
                        SHARE,
                        Line("trading_bot_learner_clip_fraction", "of the last update"),
                    ),
                ),
            ),
            Section(
                "Throughput",
                _across(
                    _graph(
                        "Decisions",
                        PER_SECOND,
                        Line("rate(trading_bot_steps_total[$__rate_interval])", "made"),
                        Line(
                            "rate(trading_bot_learner_samples_total[$__rate_interval])",
                            "learned from",
                        ),
                        Line(
                            "rate(trading_bot_learner_rehearsed_samples_total[$__rate_interval])",
                            "learned from in rehearsal",
                        ),
                    ),
                    _graph(
                        "Waiting to be learned from",
                        "short",
                        Line("trading_bot_learner_backlog", "decisions"),
                        Line("trading_bot_learner_update_frequency", "an update's"),
                    ),
                    _graph(
                        "Wall time",
                        SECONDS,
                        Line("trading_bot_learner_update_seconds", "update"),
                        Line("trading_bot_judgement_seconds", "judgement"),
                    ),
                    _graph(
                        "Experience lost",
                        PER_MINUTE,
                        *(
                            Line(
                                f"60 * rate(trading_bot_learner_{name}_total[$__rate_interval])",
                                legend,
                            )
                            for name, legend in (
                                ("missing_samples", "decisions not delivered"),
                                ("dropped_fragments", "fragments dropped"),
                                ("refused_fragments", "fragments refused"),
                                ("lost_fragments", "fragments lost with a learner"),
                            )
                        ),
                    ),
                ),
            ),
            Section(
                "Promotions",
                _across(
                    _graph(
                        "Versions",
                        "short",
                        Line("trading_bot_champion_version", "champion"),
                        Line("trading_bot_challenger_version", "challenger"),
                        Line("trading_bot_weights_version", "trades"),
                    ),
                    _graph(
                        "Rulings",
                        "short",
                        Line("trading_bot_promotions_total", "promoted"),
                        Line("trading_bot:rollbacks:max", "rolled back"),
                        Line("trading_bot:learner_restarts:max", "learner brought back"),
                    ),
                    _graph("Refusals", "short", Line("trading_bot_refusals_total", "{{check}}")),
                ),
            ),
            Section(
                "Ray",
                _across(
                    _graph(
                        "CPU",
                        "percent",
                        Line("ray_node_cpu_utilization", "{{ip}}"),
                        about="Of each node.",
                    ),
                    _graph(
                        "Memory",
                        SHARE,
                        Line("ray_node_mem_used / ray_node_mem_total", "{{ip}}"),
                    ),
                    _graph(
                        "GPU",
                        "percent",
                        Line(
                            "avg by (ip) (ray_node_gpus_utilization) or vector(0)",
                            "{{ip}}",
                        ),
                        about="0 where no node has one.",
                    ),
                    _graph(
                        "Object store",
                        BYTES,
                        Line("sum(ray_object_store_used_memory)", "used"),
                        Line(
                            "sum(ray_object_store_used_memory + ray_object_store_available_memory)",
                            "size",
                        ),
                    ),
                )
                + _across(
                    _graph("Actors", "short", Line("sum by (State) (ray_actors)", "{{State}}")),
                    _graph(
                        "Processes' memory",
                        BYTES,
                        Line("sum by (Component) (ray_component_rss_bytes)", "{{Component}}"),
                    ),
                    _graph(
                        "Requests",
                        PER_SECOND,
                        Line(
                            "sum by (route, status_code) "
                            "(rate(ray_serve_num_http_requests_total[$__rate_interval]))",
                            "{{route}} {{status_code}}",
                        ),
                    ),
                ),
            ),
        ],
    )


def runbooks() -> grafana.Dashboard:
    """What to do about each alert, as docs/monitoring.md has it; nothing is asked of Prometheus."""
    groups = yaml.safe_load((MONITORING / "rules" / "alerts.yaml").read_text())["groups"]
    return _board(
        RUNBOOKS,
        "Runbooks",
        [
            Section(
                group["name"],
                [
                    _text(
                        rule["alert"],
                        f"Fires ({rule['labels']['severity']}) when {_condition(rule)}.\n\n"
                        f"{rule['annotations']['description']}",
                    )
                    for rule in group["rules"]
                ],
            )
            for group in groups
        ],
    )


def _condition(rule: dict[str, Any]) -> str:
    """What has to hold for an alert to fire, and for how long."""
    lasts = f" for {rule['for']}" if "for" in rule else ""
    return f"`{rule['expr']}`{lasts}"


def files() -> dict[Path, str]:
    """The content of every dashboard's file."""
    made = {"trading.json": trading(), "learning.json": learning(), "runbooks.json": runbooks()}
    return {
        FOLDER / name: json.dumps(dashboard.build(), cls=JSONEncoder, sort_keys=True, indent=1)
        + "\n"
        for name, dashboard in made.items()
    }


_EVENTS = (
    ("Promotions", "trading_bot_promotions_total", "green"),
    ("Rollbacks", "trading_bot_rollbacks_total", "red"),
)
"""What every panel marks on its time axis: name, total that rises, colour."""


def _dashboard(uid: str, title: str, sections: Sequence[Section]) -> grafana.Dashboard:
    board = _board(uid, title, sections)
    board.with_variable(_strategies()).link(_link_to_runbooks())
    for name, total, colour in _EVENTS:
        board.annotation(
            grafana.AnnotationQuery()
            .name(name)
            .datasource(_PROMETHEUS)
            .expr(_chosen(f"changes({total}[1m]) > 0"))
            .icon_color(colour)
            .enable(True)
        )
    return board


def _board(uid: str, title: str, sections: Sequence[Section]) -> grafana.Dashboard:
    board = (
        grafana.Dashboard(title)
        .uid(uid)
        .tags(["trading-bot"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    number = itertools.count(1)
    for section in sections:
        board.with_row(grafana.Row(section.title).id(next(number)))
        for panel in section.panels:
            board.with_panel(panel.id(next(number)))
    return board


def _across(*panels: Panel) -> list[Panel]:
    """Panels side by side over the whole width."""
    return [panel.span(_WIDTH // len(panels)) for panel in panels]


def _queries(lines: Sequence[Line]) -> list[Builder[AnyQuery]]:
    return [
        Dataquery()
        .ref_id(chr(ord("A") + i))
        .expr(_chosen(line.expr))
        .legend_format(line.legend + _STRATEGY_LEGEND * bool(_METRIC.search(line.expr)))
        .datasource(_PROMETHEUS)
        for i, line in enumerate(lines)
    ]


def _chosen(expr: str) -> str:
    """The query of the strategies that are chosen; an account that is none has no such label."""
    return _METRIC.sub(lambda found: f"{found[1]}{{{_CHOSEN}{',' if found[2] else '}'}", expr)


def _strategies() -> grafana.QueryVariable:
    """The choice of strategies; all of them at first."""
    every = VariableOption(selected=True, text="All", value="$__all")
    return (
        grafana.QueryVariable("strategy")
        .label("Strategy")
        .datasource(_PROMETHEUS)
        .query("label_values(trading_bot_ready, strategy)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(every)
    )


def _link_to_runbooks() -> grafana.DashboardLink:
    """It leads to the same Grafana, wherever that is."""
    return (
        grafana.DashboardLink("Runbooks")
        .type(DashboardLinkType.LINK)
        .url(f"/d/{RUNBOOKS}/runbooks")
    )


def _text(title: str, markdown: str) -> text.Panel:
    """A panel of text over a third of the width, as high as its text is long."""
    return (
        text.Panel()
        .title(title)
        .mode(TextMode.MARKDOWN)
        .content(markdown)
        .span(_WIDTH // 3)
        .height(2 + math.ceil(len(markdown) / 80))
    )


def _figure(title: str, expr: str, unit: str) -> stat.Panel:
    """The newest value, large, above its course."""
    return (
        stat.Panel()
        .title(title)
        .datasource(_PROMETHEUS)
        .targets(_queries([Line(expr, title)]))
        .unit(unit)
        .height(4)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(grafana.ThresholdsConfig().steps([Threshold(None, "text")]))
    )


def _alarm(title: str, expr: str) -> stat.Panel:
    """A count that is red above zero."""
    steps = [Threshold(None, "green"), Threshold(1.0, "red")]
    return _figure(title, expr, "short").thresholds(grafana.ThresholdsConfig().steps(steps))


def _graph(title: str, unit: str, *lines: Line, about: str = "") -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(_PROMETHEUS)
        .targets(_queries(lines))
        .unit(unit)
        .height(8)
        .line_width(1)
        .show_points(VisibilityMode.NEVER)
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    return panel.description(about) if about else panel


def _table(title: str, labels: Sequence[str], *columns: Column, about: str = "") -> table.Panel:
    """A row for each combination of labels, as it is now."""
    queries: list[Builder[AnyQuery]] = [
        Dataquery()
        .ref_id(chr(ord("A") + i))
        .expr(f"sum by ({', '.join(labels)}) ({_chosen(column.metric)})")
        .format(PromQueryFormat.TABLE)
        .instant()
        .datasource(_PROMETHEUS)
        for i, column in enumerate(columns)
    ]
    titles = {f"Value #{chr(ord('A') + i)}": column.title for i, column in enumerate(columns)}
    order = {name: place for place, name in enumerate((*labels, *titles))}
    organised = {"excludeByName": {"Time": True}, "renameByName": titles, "indexByName": order}
    panel = (
        table.Panel()
        .title(title)
        .description(about)
        .datasource(_PROMETHEUS)
        .targets(queries)
        .transformations(
            [
                DataTransformerConfig(id_val="merge", options={}),
                DataTransformerConfig(id_val="organize", options=organised),
            ]
        )
        .height(8)
    )
    for column in columns:
        panel.override_by_name(column.title, [DynamicConfigValue("unit", column.unit)])
    return panel


def _states(title: str, *lines: Line, no: str, yes: str) -> statetimeline.Panel:
    """A band in two colours for each series that is 0 or 1."""
    colours = {
        "0": ValueMappingResult(text="no", color=no),
        "1": ValueMappingResult(text="yes", color=yes),
    }
    return (
        statetimeline.Panel()
        .title(title)
        .datasource(_PROMETHEUS)
        .targets(_queries(lines))
        .mappings([ValueMap(options=colours)])
        .height(5)
        .show_value(VisibilityMode.NEVER)
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, content in files().items():
        path.write_text(content)
