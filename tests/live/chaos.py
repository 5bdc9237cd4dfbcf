"""Disturbs a stream as bad days do: in time, order, price, bytes and by telling twice."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

KINDS = ("ahead", "past", "unit", "price", "side", "null", "bytes", "twice", "late")


class Chaos:
    """Disturbs a share of the events of frames, each in one way drawn at random.

    Parameters
    ----------
    rng
        Draws what is disturbed, and how.
    share
        Of the events, 0 to 1.

    Attributes
    ----------
    counts
        How many events were disturbed, by kind.
    disturbed
        Symbol and own time (ms) of each event that did not come, once and in time, as it was told.
    """

    def __init__(self, rng: np.random.Generator, share: float = 0.01) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self.disturbed: set[tuple[str, int]] = set()
        self._rng, self._share = rng, share
        self._held: list[str] = []

    def frames(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The frames, disturbed; events that are late come up to a hundred frames later."""
        for frame in frames:
            told: list[str] = []
            for event in json.loads(frame):
                told += self._event(event)
            if self._held and self._rng.random() < 0.01:
                told += self._held
                self._held = []
            yield ("[" + ",".join(told) + "]").encode("utf-8", "surrogateescape")

    def _event(self, event: dict[str, Any]) -> list[str]:
        plain = json.dumps(event)
        if event.get("ev") not in ("Q", "AM") or self._rng.random() >= self._share:
            return [plain]
        kind = str(self._rng.choice(KINDS))
        self.counts[kind] += 1
        if kind != "twice":
            self.disturbed.add((event["sym"], event["t" if event["ev"] == "Q" else "e"]))
        return self._disturbed(kind, event, plain)

    def _disturbed(self, kind: str, event: dict[str, Any], plain: str) -> list[str]:
        times = ("t",) if event["ev"] == "Q" else ("s", "e")
        prices = ("bp", "ap") if event["ev"] == "Q" else ("o", "h", "l", "c")
        change: dict[str, Any] = {}
        if kind in ("ahead", "past"):
            by_ms = int(self._rng.choice([90_000, 3_600_000, 86_400_000, 31_536_000_000]))
            sign = 1 if kind == "ahead" else -1
            change = {name: event[name] + sign * by_ms for name in times}
        elif kind == "unit":
            unit = int(self._rng.choice([1000, 1_000_000]))
            change = {name: event[name] * unit for name in times}
        elif kind == "price":
            factor = float(self._rng.choice([0.0, 0.001, 30.0, 1000.0, 1e300]))
            change = {name: event[name] * factor for name in prices}
        elif kind == "side":
            change = {prices[-1]: event[prices[-1]] * 100.0}
        elif kind == "null":
            change = {str(self._rng.choice(list(event))): None}
        told = [json.dumps(event | change)]
        if kind == "bytes":
            at = int(self._rng.integers(1, len(plain) - 1))
            told = [plain[:at] + "\udcff" + plain[at + 1 :]]
        elif kind == "twice":
            told = [plain, plain]
        elif kind == "late":
            self._held.append(plain)
            told = []
        return told
