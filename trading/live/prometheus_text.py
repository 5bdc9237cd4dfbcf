"""A registry of metrics as Prometheus text.

It knows nothing of what is counted: who answers by HTTP writes some metrics too, and loads neither
network nor kernels.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric


def text_of(registry: CollectorRegistry, strategy: str | None = None) -> bytes:
    """Return a registry in the text format, with the strategy as a label where there is one."""
    return generate_latest(registry if strategy is None else _Labelled(registry, strategy))


class _Labelled(CollectorRegistry):
    """What a registry holds, with a label more."""

    def __init__(self, registry: CollectorRegistry, strategy: str) -> None:
        super().__init__()
        self._registry, self._strategy = registry, strategy

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                each._replace(labels={"strategy": self._strategy, **each.labels})
                for each in metric.samples
            ]
            yield metric
