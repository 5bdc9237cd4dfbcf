"""What the live market counts, in the text format that Prometheus scrapes.

Totals are not counted here: they are copied from the account, the feed and the learner. Those of
the account are restored after a restart, so they never fall when the process is replaced. The
latency histogram and what the process uses start anew with each process.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trading.data.admission import Refusal
from trading.learning.champion.gate import CHECKS
from trading.live.prometheus_text import text_of

_PREFIX = "trading_bot_"
_LATENCY_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
TRADING_STATES = ("ACTIVE", "REDUCING", "HALTED")


@dataclass(frozen=True, slots=True)
class UnderlyingFigures:
    """What the account has in one underlying at one instant, USD."""

    profit: float = math.nan
    """What it made since the account was opened, fees and marks in it."""
    delta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    """As the account's."""
    is_open: bool = False
    """Whether a strategy is open."""


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """The account at one instant; money in USD."""

    trades: int = 0
    """Fills since the account was opened."""
    portfolio_value: float = math.nan
    """Cash and positions, marked at the mid."""
    win_rate: float = 0.0
    """Closed trades with a gain over all closed trades, 0..1; 0 before the first."""
    decisions: int = 0
    """Decisions since the account was opened."""
    reward: float = 0.0
    """Sum of all rewards; it may fall."""
    cash: float = math.nan
    open_positions: int = 0
    """Open strategies."""
    suspended: int = 0
    unexplained: int = 0
    """Of these, underlyings whose move no corporate action explains."""
    pending_settlements: int = 0
    """Contracts that have expired and wait for a closing price."""
    """Underlyings that do not trade for now."""
    fees: float = 0.0
    """Fees paid since the account was opened."""
    trading_state: str = "ACTIVE"
    """One of `TRADING_STATES`."""
    restarts: int = 0
    """Times that this account was taken up again."""
    champion: int = 0
    """Number of the policy that trades."""
    champion_version: int = 0
    """Updates that led to it."""
    promotions: int = 0
    """Champions since the first."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Challengers that did not pass each check of the gate."""
    refusals_in_a_row: int = 0
    rollbacks: int = 0
    initial_capital: float = math.nan
    day_start_equity: float = math.nan
    """Equity at the last session's close: the base of the daily loss."""
    peak_equity: float = math.nan
    """Highest equity at a session's close: the base of the drawdown."""
    max_daily_loss: float = math.nan
    """Fraction of `day_start_equity` whose loss halts trading."""
    max_drawdown: float = math.nan
    """Fraction of `peak_equity` whose loss leaves only closing."""
    realised_pnl: float = math.nan
    """Profit of closed strategies after fees."""
    buying_power: float = math.nan
    orders: int = 0
    rejections: int = 0
    closed_trades: int = 0
    """Strategies closed or settled."""
    winning_trades: int = 0
    """Those of them with a profit after fees."""
    delta: float = math.nan
    """Value of the stock that the account moves like."""
    gamma: float = math.nan
    """Change of `delta` when the spots move by 1 %."""
    vega: float = math.nan
    """Change of value a volatility point."""
    theta: float = math.nan
    """Change of value a day."""
    underlyings: Mapping[str, UnderlyingFigures] = field(default_factory=dict)
    """Of those that are traded or were: as many as the settings name, and no contract."""


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """The market data feed at one instant; totals over all connections."""

    events: int = 0
    reconnects: int = 0
    dropped_frames: int = 0
    quote_age_s: float = math.nan
    """Exchange time since the newest quote, in seconds."""
    connected: Mapping[str, bool] = field(default_factory=dict)
    """Whether each asset class's connection is live."""
    silence_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds since each asset class's newest frame; NaN before the first."""
    subscriptions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Subscriptions of each asset class by their answer: acknowledged, refused, unanswered."""
    late_events: int = 0
    """Events that came after their bar had closed."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Events that were not taken over as they came, by reason."""
    clock_offset_s: float = math.nan
    """Seconds that the machine's clock is ahead of the vendor's; NaN in a replay."""
    clock_steps: int = 0
    """Times that the machine's clock was set while a live market ran."""
    late_bars: int = 0
    """Bars of a live market that were closed too late to trade in."""
    rows_left_out: int = 0
    """Rows of REST answers that could not be read."""
    tradable_share: float = math.nan
    """Contracts with a quote that may fill over all contracts, of the worst underlying, 0..1."""
    market_time_s: float = math.nan
    """Exchange time of the last closed bar, in seconds of Unix time."""
    market_open: bool = False
    """Whether the market is expected to tick."""


@dataclass(frozen=True, slots=True)
class LearnerFigures:
    """The learner after its last update; NaN before the first."""

    updates: int = 0
    samples: int = 0
    """Decisions learned from."""
    challenger_version: int = 0
    """Updates that led to the weights that are learned; it falls when learning begins again."""
    refused_fragments: int = 0
    lost_fragments: int = 0
    restarts: int = 0
    """Times that a dead learner was brought back."""
    rehearsed_samples: int = 0
    """Decisions of training markets learned from beside the live ones."""
    missing_samples: int = 0
    """Decisions that environment runners should have delivered and did not."""
    judgement_seconds: float = math.nan
    kl_to_champion: float = math.nan
    rehearsal_return: float = math.nan
    clip_fraction: float = math.nan
    grad_norm: float = math.nan
    weights_version: int = 0
    """Version of the weights that trade."""
    policy_loss: float = math.nan
    value_loss: float = math.nan
    entropy: float = math.nan
    kl: float = math.nan
    explained_variance: float = math.nan
    update_s: float = math.nan
    """Wall time of the last update."""
    update_frequency: int = 0
    """Decisions that an update waits for; 0: learning is off."""
    backlog: int = 0
    """Decisions since the experience that was last learned from."""
    dropped_fragments: int = 0
    """Fragments of experience that the learner was too slow to take."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """The live market's process and its disks at one instant."""

    ready: bool = False
    """Whether the account trades, or its market is known to be closed."""
    not_ready: Mapping[str, bool] = field(default_factory=dict)
    """Whether each kind of reason keeps it from being ready."""
    disk_free_bytes: Mapping[str, int] = field(default_factory=dict)
    """By what is kept there: state, checkpoints."""
    disk_size_bytes: Mapping[str, int] = field(default_factory=dict)


class TradingMetrics:
    """The live market's metrics, in a registry of their own.

    Figures are replaced as a whole, so a scrape from another thread sees one instant of each.

    Parameters
    ----------
    strategy
        What each sample is labelled with; None: nothing.

    Examples
    --------
    >>> metrics = TradingMetrics()
    >>> metrics.update_account(AccountFigures(trades=3, portfolio_value=100_250.0))
    >>> b"trading_bot_trades_total 3.0" in metrics.text()
    True
    """

    def __init__(self, strategy: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._strategy = strategy
        self._account = AccountFigures()
        self._feed = FeedFigures()
        self._learner = LearnerFigures()
        self._process = ProcessFigures()
        self._latency = Histogram(
            _PREFIX + "action_latency_seconds",
            "From the end of a bar's data to the order's answer.",
            registry=self.registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.registry.register(_Figures(self))
        ProcessCollector(namespace=_PREFIX.rstrip("_"), registry=self.registry)

    def update_account(self, figures: AccountFigures) -> None:
        """Replace the account's figures."""
        self._account = figures

    def update_feed(self, figures: FeedFigures) -> None:
        """Replace the feed's figures."""
        self._feed = figures

    def update_learner(self, figures: LearnerFigures) -> None:
        """Replace the learner's figures."""
        self._learner = figures

    def update_process(self, figures: ProcessFigures) -> None:
        """Replace the process's figures."""
        self._process = figures

    def observe_action_latency(self, seconds: float) -> None:
        """Count one decision that took `seconds`."""
        self._latency.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the text format of `prometheus_client.CONTENT_TYPE_LATEST`."""
        return text_of(self.registry, self._strategy)

    def families(self) -> Iterable[Metric]:
        """One metric family for each figure, as they are now."""
        yield from _account_families(self._account)
        yield from _feed_families(self._feed)
        yield from _learner_families(self._learner)
        yield from _process_families(self._process)


class _Figures(Collector):
    def __init__(self, metrics: TradingMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, about, value=value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, about, value=value)


def _labelled_gauge(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _labelled_counter(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _account_families(figures: AccountFigures) -> Iterable[Metric]:
    states = {state: state == figures.trading_state for state in TRADING_STATES}
    yield _counter("trades_total", "Fills.", figures.trades)
    yield _gauge("portfolio_value", "Equity in USD.", figures.portfolio_value)
    yield _gauge(
        "win_rate", "Closed trades with a gain, in percent of them all.", 100.0 * figures.win_rate
    )
    yield _counter("steps_total", "Decisions.", figures.decisions)
    yield _gauge("reward_total", "Sum of rewards.", figures.reward)
    yield _gauge("cash", "Cash in USD.", figures.cash)
    yield _gauge("open_positions", "Open strategies.", figures.open_positions)
    yield _gauge(
        "suspended_underlyings", "Underlyings that do not trade for now.", figures.suspended
    )
    yield _gauge(
        "unexplained_underlyings",
        "Underlyings whose move no corporate action explains.",
        figures.unexplained,
    )
    yield _gauge(
        "pending_settlements",
        "Contracts that have expired and wait for a closing price.",
        figures.pending_settlements,
    )
    yield _counter("fees_total", "Fees paid in USD.", figures.fees)
    yield _labelled_gauge("trading_state", "1 for the state of trading.", "state", states)
    yield _counter("restarts_total", "Times that the account was taken up again.", figures.restarts)
    yield _gauge("champion", "Number of the policy that trades.", figures.champion)
    yield _gauge("champion_version", "Updates that led to the champion.", figures.champion_version)
    yield _counter("promotions_total", "Challengers that became champion.", figures.promotions)
    refusals = {check: figures.refusals.get(check, 0) for check in CHECKS}
    yield _labelled_counter("refusals_total", "Challengers refused, by check.", "check", refusals)
    yield _gauge(
        "refusals_in_a_row", "Refusals since a promotion or a reset.", figures.refusals_in_a_row
    )
    yield _counter("rollbacks_total", "Returns to an earlier champion.", figures.rollbacks)
    yield _gauge(
        "initial_capital",
        "Cash that the owner paid in, less what was taken out, USD.",
        figures.initial_capital,
    )
    yield _gauge(
        "day_start_equity", "Equity at the last session's close, USD.", figures.day_start_equity
    )
    yield _gauge("peak_equity", "Highest equity at a session's close, USD.", figures.peak_equity)
    yield _gauge(
        "max_daily_loss_ratio",
        "Share of the day's opening equity whose loss halts trading.",
        figures.max_daily_loss,
    )
    yield _gauge(
        "max_drawdown_ratio",
        "Share of the peak equity whose loss leaves only closing.",
        figures.max_drawdown,
    )
    yield _gauge(
        "realised_pnl", "Profit of closed strategies after fees, USD.", figures.realised_pnl
    )
    yield _gauge(
        "buying_power", "Cash less what is held back for margin, USD.", figures.buying_power
    )
    yield _counter("orders_total", "Orders, rejected ones too.", figures.orders)
    yield _counter("rejections_total", "Orders rejected.", figures.rejections)
    yield _counter("closed_trades_total", "Strategies closed or settled.", figures.closed_trades)
    yield _counter(
        "winning_trades_total", "Strategies closed or settled with a gain.", figures.winning_trades
    )
    yield _gauge("delta_usd", "Value of the stock that the account moves like.", figures.delta)
    yield _gauge("gamma_usd", "Change of delta_usd when the spots move by 1 %.", figures.gamma)
    yield _gauge("vega_usd", "Change of value a volatility point.", figures.vega)
    yield _gauge("theta_usd", "Change of value a day.", figures.theta)
    for name, about, of in _OF_AN_UNDERLYING:
        values = {each: of(each_figures) for each, each_figures in figures.underlyings.items()}
        yield _labelled_gauge(f"underlying_{name}", about, "underlying", values)


_OF_AN_UNDERLYING: tuple[tuple[str, str, Callable[[UnderlyingFigures], float]], ...] = (
    ("pnl_usd", "What it made since the account was opened, marks in it.", lambda u: u.profit),
    ("open_positions", "Open strategies in it.", lambda u: u.is_open),
    ("delta_usd", "Value of the stock that what is held of it moves like.", lambda u: u.delta),
    ("gamma_usd", "Change of that value when its spot moves by 1 %.", lambda u: u.gamma),
    ("vega_usd", "Change of value of what is held of it a volatility point.", lambda u: u.vega),
    ("theta_usd", "Change of value of what is held of it a day.", lambda u: u.theta),
)
"""Metrics that have the underlying as a label: name, meaning, where from."""


def _feed_families(figures: FeedFigures) -> Iterable[Metric]:
    yield _counter("feed_events_total", "Market events received.", figures.events)
    yield _labelled_gauge(
        "feed_connected", "1 while the connection is live.", "asset_class", figures.connected
    )
    subscriptions = GaugeMetricFamily(
        _PREFIX + "feed_subscriptions",
        "Subscriptions by the vendor's answer: acknowledged, refused, unanswered.",
        labels=["asset_class", "answer"],
    )
    for labels, count in figures.subscriptions.items():
        subscriptions.add_metric(labels, float(count))
    yield subscriptions
    yield _counter("feed_reconnects_total", "Connections opened anew.", figures.reconnects)
    yield _counter("feed_dropped_frames_total", "Frames dropped unread.", figures.dropped_frames)
    yield _gauge("feed_quote_age_seconds", "Age of the newest quote.", figures.quote_age_s)
    yield _labelled_gauge(
        "feed_silence_seconds", "Time since the newest frame.", "asset_class", figures.silence_s
    )
    yield _counter(
        "feed_late_events_total",
        "Market events that came after their bar had closed.",
        figures.late_events,
    )
    refused = {str(reason): figures.refused.get(reason, 0) for reason in Refusal}
    yield _labelled_counter(
        "feed_refused_total",
        "Market events that were not taken over as they came, by reason.",
        "reason",
        refused,
    )
    yield _gauge(
        "clock_offset_seconds",
        "Time that the machine's clock is ahead of the vendor's.",
        figures.clock_offset_s,
    )
    yield _counter(
        "clock_steps_total", "Times that the machine's clock was set.", figures.clock_steps
    )
    yield _counter("late_bars_total", "Bars closed too late to trade in.", figures.late_bars)
    yield _counter(
        "rest_rows_left_out_total",
        "Rows of the vendor's REST answers that could not be read.",
        figures.rows_left_out,
    )
    yield _gauge(
        "feed_tradable_ratio",
        "Share of contracts with a quote that may fill, of the worst underlying.",
        figures.tradable_share,
    )
    yield _gauge(
        "market_time_seconds", "Exchange time of the last closed bar, Unix.", figures.market_time_s
    )
    yield _gauge("market_open", "1 while the market is expected to tick.", figures.market_open)


def _learner_families(figures: LearnerFigures) -> Iterable[Metric]:
    yield _counter("learner_updates_total", "Learner updates.", figures.updates)
    yield _counter("learner_samples_total", "Live decisions learned from.", figures.samples)
    yield _gauge("learner_policy_loss", "Policy loss of the last update.", figures.policy_loss)
    yield _gauge("learner_value_loss", "Value loss of the last update.", figures.value_loss)
    yield _gauge("learner_entropy", "Entropy of the policy in nats.", figures.entropy)
    yield _gauge("learner_kl", "KL divergence of the last update in nats.", figures.kl)
    yield _gauge(
        "learner_explained_variance",
        "Share of the returns' variance that the critic explains.",
        figures.explained_variance,
    )
    yield _gauge(
        "challenger_version", "Version of the weights that are learned.", figures.challenger_version
    )
    yield _counter(
        "learner_refused_fragments_total", "Fragments refused.", figures.refused_fragments
    )
    yield _counter(
        "learner_lost_fragments_total",
        "Fragments lost with a learner.",
        figures.lost_fragments,
    )
    yield _counter("learner_restarts_total", "Dead learners brought back.", figures.restarts)
    yield _counter(
        "learner_missing_samples_total", "Decisions not delivered.", figures.missing_samples
    )
    yield _gauge("judgement_seconds", "Wall time of the last judgement.", figures.judgement_seconds)
    yield _gauge(
        "challenger_kl", "KL divergence from the champion in nats.", figures.kl_to_champion
    )
    yield _gauge(
        "rehearsal_return", "Mean return of episodes in training markets.", figures.rehearsal_return
    )
    yield _gauge("learner_clip_fraction", "Share of ratios clipped.", figures.clip_fraction)
    yield _gauge("learner_grad_norm", "Norm of the last update's gradient.", figures.grad_norm)
    yield _gauge("weights_version", "Version of the weights that trade.", figures.weights_version)
    yield _counter(
        "learner_rehearsed_samples_total",
        "Decisions of training markets learned from beside the live ones.",
        figures.rehearsed_samples,
    )
    yield _gauge("learner_update_seconds", "Wall time of the last update.", figures.update_s)
    yield _gauge(
        "learner_update_frequency",
        "Decisions that an update waits for; 0 where learning is off.",
        figures.update_frequency,
    )
    yield _gauge(
        "learner_backlog",
        "Decisions since the experience that was last learned from.",
        figures.backlog,
    )
    yield _counter(
        "learner_dropped_fragments_total",
        "Fragments of experience that the learner was too slow to take.",
        figures.dropped_fragments,
    )


def _process_families(figures: ProcessFigures) -> Iterable[Metric]:
    yield _gauge("ready", "1 while it trades, or the market is closed.", figures.ready)
    yield _labelled_gauge(
        "not_ready", "1 for each kind of reason why it is not ready.", "reason", figures.not_ready
    )
    yield _labelled_gauge(
        "disk_free_bytes", "Free space of the volume.", "folder", figures.disk_free_bytes
    )
    yield _labelled_gauge(
        "disk_size_bytes", "Size of the volume.", "folder", figures.disk_size_bytes
    )
