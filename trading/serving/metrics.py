"""What the supervisor counts, beside the metrics of the live market."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trading.serving.supervisor import TRADING, Standing


def supervisor_text(standing: Standing) -> bytes:
    """The supervisor's metrics as Prometheus text; while nobody trades, that it is not ready."""
    registry = CollectorRegistry()
    registry.register(_Families(standing))
    return generate_latest(registry)


def supervisor_families(standing: Standing) -> Iterable[Metric]:
    """One metric family for each figure that only the supervisor has."""
    yield GaugeMetricFamily(
        "trading_bot_lease_held",
        "1 while this application holds the account's lease; with RayService only.",
        value=float(standing.leased),
    )
    yield CounterMetricFamily(
        "trading_bot_application_failures_total",
        "Times that the application failed and was started again; with RayService only.",
        value=standing.failures,
    )


class _Families(Collector):
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        yield from supervisor_families(self._standing)
        if self._standing.phase != TRADING:
            about = "1 while it trades, or the market is closed."
            yield GaugeMetricFamily("trading_bot_ready", about, value=0.0)
