"""When a live market is not ready, and why: its actor by the wall clock, on a server's stream."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.live.market import DAY, FirstMinutes, serving, settings_for, write_first_champion
from tests.live.test_actor_owner import await_that
from trading.data.massive.protocol import FeedProtocol
from trading.data.massive.server.source import SimulationSource, SourceStep
from trading.live import assembly, readiness
from trading.live.actor import LiveMarket
from trading.live.trader import Trader
from trading.market.simulator import SimulatedExchange, UnderlyingSpec


class Seconds(FirstMinutes):
    """A session told second by second, which can be held."""

    def __init__(self) -> None:
        spec = UnderlyingSpec("AAA", 100.0, 0.25, n_strikes=15)
        exchange = SimulatedExchange([spec], DAY, seed=1, step_seconds=1)
        session = exchange.calendar.session_on(DAY)
        assert session is not None
        self._source = SimulationSource(exchange, session.open_ns)
        self.start_ns = session.open_ns
        self.listing = self._source.listing
        self.flows = threading.Event()
        self.flows.set()

    def steps(self) -> Iterator[SourceStep]:
        for step in self._source.steps():
            self.flows.wait()
            yield step


class Live:
    """A live market, the tape that it trades, and a machine whose clock is off by `off_s`."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack, **options: Any
    ) -> None:
        self.tape, self.off_s = Seconds(), 0.0
        stack.callback(self.tape.flows.set)
        stream, overrides = options.pop("stream", {}), options.pop("settings", ())
        endpoint, begin = stack.enter_context(serving(self.tape, speed=1.0, **options))
        made = assembly.stream_settings
        patch.setattr(assembly, "stream_settings", lambda *which: replace(made(*which), **stream))
        settings = settings_for(folder, "symbols=[AAA]", "data.bar_seconds=1", *overrides)
        data = settings.data.model_copy(update={"source": "massive"})
        settings = settings.model_copy(update={"data": data})
        begin()
        begun_ns = time.monotonic_ns()

        def machine_ns() -> int:
            passed_ns = time.monotonic_ns() - begun_ns
            return self.tape.start_ns + passed_ns + round(self.off_s * 1e9)

        patch.setattr(Trader.run, "__defaults__", (machine_ns,))
        write_first_champion(settings)
        self.market = LiveMarket(settings, endpoint, assembly.chosen_plugins(settings))
        stack.callback(self.market.stop)

    def await_ready(self) -> None:
        await_that(f"ready, but {self.market.readiness()}", lambda: self.market.readiness()[0])
        assert self.told("ready") == 1.0

    def await_reason(self, kind: str, words: str) -> None:
        """Wait until it is not ready, with a reason of that kind and these words."""

        def is_told() -> bool:
            ready, reasons = self.market.readiness()
            return not ready and any(words in each for each in reasons)

        await_that(f"{words}; told was {self.market.readiness()}", is_told)
        assert self.told("not_ready", reason=kind) == 1.0
        assert self.told("ready") == 0.0

    def told(self, name: str, **labels: str) -> float:
        """A sample of the metrics."""
        (value,) = [
            sample.value
            for family in text_string_to_metric_families(self.market.metrics().decode())
            for sample in family.samples
            if sample.name == f"trading_bot_{name}" and sample.labels == labels
        ]
        return value


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    with ExitStack() as stack:
        yield lambda **options: Live(tmp_path, monkeypatch, stack, **options)


def test_refused_subscriptions_are_a_reason(start: Callable[..., Live]) -> None:
    live = start(max_quote_contracts=100)
    live.await_reason("subscriptions", "subscriptions are refused: see the data plan")
    health = live.market.status()["feed"]["connections"]["options"]
    assert health["refused"] == health["asked"] - 100
    assert (
        live.told("feed_subscriptions", asset_class="options", answer="refused")
        == (health["refused"])
    )
    assert live.told("feed_subscriptions", asset_class="options", answer="unanswered") == 0.0


def test_subscriptions_without_an_answer_are_a_reason(
    start: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FeedProtocol._subscribe
    monkeypatch.setattr(
        FeedProtocol,
        "_subscribe",
        lambda self, topics: [s for s in answer(self, topics) if "AM." not in s.message],
    )
    live = start(stream={"subscribe_timeout_s": 0.2})
    live.await_reason("subscriptions", "stocks feed: 1 of 1 subscriptions are unanswered")
    assert live.told("feed_subscriptions", asset_class="stocks", answer="unanswered") == 1.0


def test_a_market_that_is_open_and_does_not_tick_is_a_reason_until_it_does(
    start: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "SILENT_NS", 10_000_000_000)
    live = start()
    live.await_ready()
    live.tape.flows.clear()
    live.await_reason("silent", "nothing ticks")
    live.tape.flows.set()
    live.await_ready()


def test_a_clock_that_is_off_is_a_reason_until_it_is_set(start: Callable[..., Live]) -> None:
    live = start()
    live.await_ready()
    live.off_s = -3600.0
    live.await_reason("clock", "s off the vendor's: set it by NTP")
    assert live.told("clock_offset_seconds") < -3500.0
    await_that("the step is counted", lambda: live.told("clock_steps_total") == 1.0)
    live.off_s = 0.0
    live.await_ready()


def test_a_frame_that_cannot_be_read_closes_the_connection_and_is_the_reason(
    start: Callable[..., Live],
) -> None:
    live = start(stream={"max_frame_bytes": 200, "backoff_initial_s": 600.0, "stable_s": 1e6})
    live.await_reason("connection", "options feed is BACKOFF: a frame of more than 1600 bytes")
    assert live.told("feed_refused_total", reason="oversize") >= 1.0
    assert live.market.status()["feed"]["refused"]["oversize"] >= 1


def test_rows_that_rest_could_not_read_are_told(start: Callable[..., Live]) -> None:
    live = start()
    live.await_ready()
    assert live.market.status()["feed"]["rest_rows_left_out"] == 0
    assert live.market._rest is not None
    live.market._rest._transport.rows_left_out = 3
    assert live.market.status()["feed"]["rest_rows_left_out"] == 3
    assert live.told("rest_rows_left_out_total") == 3.0


def test_price_limits_and_halts_are_subscribed_to_where_the_settings_say_so(
    start: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = start(settings=("data.massive.luld=true",))
    live.await_ready()
    stocks = live.market.status()["feed"]["connections"]["stocks"]
    assert (stocks["asked"], stocks["acknowledged"]) == (2, 2), "AM.AAA and LULD.AAA"


def test_a_plan_without_price_limits_says_so(
    start: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = FeedProtocol._refusal
    monkeypatch.setattr(
        FeedProtocol,
        "_refusal",
        lambda self, channel, symbol: (
            "not authorized" if channel == "LULD" else refuse(self, channel, symbol)
        ),
    )
    live = start(settings=("data.massive.luld=true",))
    live.await_reason("subscriptions", "stocks feed: 1 of 2 subscriptions are refused")
