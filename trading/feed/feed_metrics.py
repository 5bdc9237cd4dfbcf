"""What the feed counts, in the text format that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trading.data.massive.client.connection import ConnectionHealth, ConnectionState

_PREFIX = "trading_feed_"
_TOTALS = (
    ("refused_readers", "Readers refused, for their key or want of room.", "refused_readers"),
    ("events", "Events that came from the vendor.", "events"),
    ("malformed", "Events, or whole messages, of the vendor that nobody can read.", "malformed"),
    ("sent_events", "Events written to readers.", "sent"),
    ("replaced_quotes", "Quotes that slow readers did not get, for newer ones.", "replaced"),
    ("dropped_events", "Other events that slow readers did not get.", "dropped"),
)
"""Name of each counter, what it is, and the figure that it shows."""


@dataclass(slots=True)
class FeedCounts:
    """The feed at one instant; totals since its start, over all readers that there were."""

    readers: Mapping[str, int] = field(default_factory=dict)
    """Readers connected, of each asset class."""
    refused_readers: int = 0
    events: int = 0
    """Events that came from the vendor."""
    malformed: int = 0
    sent: int = 0
    """Events written to readers."""
    replaced: int = 0
    """Quotes that a slow reader did not get, for newer ones."""
    dropped: int = 0
    """Other events that a slow reader did not get."""
    waiting: int = 0
    """Events that wait for readers."""
    connections: Mapping[tuple[str, int], ConnectionHealth] = field(default_factory=dict)
    """Connections to the vendor, by asset class and number."""
    wanted: Mapping[str, int] = field(default_factory=dict)
    """Names that readers of each asset class want."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Of these, contracts whose quotes no connection has room for."""
    rest: Mapping[str, int] = field(default_factory=dict)
    """REST requests by what became of them."""
    rest_kept_bytes: int = 0
    now_ns: int = 0
    market_open: bool = False
    """Whether the vendor is expected to send."""


def feed_text(figures: FeedCounts) -> bytes:
    """Return the feed's metrics as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Families(figures))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def feed_families(figures: FeedCounts) -> Iterable[Metric]:
    """One metric family for each figure."""
    yield _by("readers", "Readers connected.", "asset_class", figures.readers)
    for name, about, value in _TOTALS:
        yield CounterMetricFamily(f"{_PREFIX}{name}_total", about, value=getattr(figures, value))
    yield GaugeMetricFamily(
        f"{_PREFIX}market_open",
        "1 while the vendor is expected to send.",
        value=float(figures.market_open),
    )
    yield GaugeMetricFamily(
        f"{_PREFIX}waiting_events", "Events that wait for readers.", value=figures.waiting
    )
    yield _by("wanted_names", "Subscriptions that readers want.", "asset_class", figures.wanted)
    yield _by(
        "left_out_contracts",
        "Contracts whose quotes readers want and no connection has room for.",
        "asset_class",
        figures.left_out,
    )
    rest = CounterMetricFamily(
        f"{_PREFIX}rest_requests_total",
        "REST requests: asked of the vendor, answered from memory (kept) or by another's request "
        "(shared), refused for their key, failed.",
        labels=["result"],
    )
    for result, count in figures.rest.items():
        rest.add_metric([result], count)
    yield rest
    yield GaugeMetricFamily(
        f"{_PREFIX}rest_kept_bytes", "REST answers that are kept.", value=figures.rest_kept_bytes
    )
    yield from _connection_families(figures)


def _connection_families(figures: FeedCounts) -> Iterable[Metric]:
    labels = ["asset_class", "connection"]
    live = GaugeMetricFamily(
        f"{_PREFIX}connected", "1 while a connection to the vendor is live.", labels=labels
    )
    silence = GaugeMetricFamily(
        f"{_PREFIX}silence_seconds", "Seconds since its newest message.", labels=labels
    )
    reconnects = CounterMetricFamily(
        f"{_PREFIX}reconnects_total", "Connections tried after its first.", labels=labels
    )
    answers = GaugeMetricFamily(
        f"{_PREFIX}subscriptions",
        "Its subscriptions by the vendor's answer: acknowledged, refused, unanswered.",
        labels=[*labels, "answer"],
    )
    for (name, number), health in figures.connections.items():
        where = [name, str(number)]
        live.add_metric(where, float(health["state"] is ConnectionState.LIVE))
        if health["last_frame_ns"]:
            silence.add_metric(where, (figures.now_ns - health["last_frame_ns"]) / 1e9)
        reconnects.add_metric(where, health["reconnects"])
        answers.add_metric([*where, "acknowledged"], health["acknowledged"])
        answers.add_metric([*where, "refused"], health["refused"])
        answers.add_metric([*where, "unanswered"], health["unanswered"])
    yield from (live, silence, reconnects, answers)


def _by(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}{name}", about, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


class _Families(Collector):
    def __init__(self, figures: FeedCounts) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        yield from feed_families(self._figures)
