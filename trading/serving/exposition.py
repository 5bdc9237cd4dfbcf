"""What the supervisor counts, beside the metrics of the live market."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trading.live.prometheus_text import text_of
from trading.serving.supervisor import TRADING, SupervisorState


def supervisor_text(state: SupervisorState, strategy: str | None = None) -> bytes:
    """Return the metrics as Prometheus text; while nobody trades, that it is not ready."""
    registry = CollectorRegistry()
    registry.register(_Families(state))
    return text_of(registry, strategy)


def merged(texts: Iterable[bytes]) -> bytes:
    """Several Prometheus texts as one, in which each family is described once.

    The same family may be in several of them, with samples that differ by a label.
    """
    described: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for text in texts:
        name = b""
        for line in text.splitlines():
            if line.startswith(b"#"):
                name = line.split(b" ", 3)[2]
                lines = described.setdefault(name, [])
                if line not in lines:
                    lines.append(line)
            elif line:
                samples.setdefault(name, []).append(line)
    every = (line for name, about in described.items() for line in (*about, *samples.get(name, ())))
    return b"".join(line + b"\n" for line in every)


def supervisor_families(state: SupervisorState) -> Iterable[Metric]:
    """One metric family for each figure that only the supervisor has."""
    yield GaugeMetricFamily(
        "trading_bot_lease_held",
        "1 while this application holds the account's lease; with RayService or strategies only.",
        value=float(state.leased),
    )
    yield CounterMetricFamily(
        "trading_bot_application_failures_total",
        "Times that it failed and was started again; with RayService or strategies only.",
        value=state.failures,
    )


class _Families(Collector):
    def __init__(self, state: SupervisorState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        yield from supervisor_families(self._state)
        if self._state.phase != TRADING:
            about = "1 while it trades, or the market is closed."
            yield GaugeMetricFamily("trading_bot_ready", about, value=0.0)
