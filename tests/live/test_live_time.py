"""A live market by its clock: stalls, steps, and a journal that is dated ahead."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.market import (
    Bars,
    FirstMinutes,
    await_live,
    champions_of,
    serving,
    settings_for,
)
from tests.waits import WAIT_S
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.stream import StreamClient
from trading.envs.live_env import LiveEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade, OrderAccepted, StateChanged, TimeTakenBack
from trading.execution.journal import Journal
from trading.execution.portfolio import Account
from trading.execution.states import TradingState
from trading.learning.policy import Policy
from trading.live import assembly
from trading.live.bar_clock import Bar, first_bar_after
from trading.live.clock import LiveClock
from trading.live.markets import MarketDirectory
from trading.live.readiness import UnreadyKind, clock_reasons
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
CALENDAR = ExchangeCalendar()


class Live:
    """A trader by the wall clock, on the first minutes of a session."""

    def __init__(self, folder: Path, stack: ExitStack, minutes: int, **options: object) -> None:
        settings = settings_for(folder)
        endpoint, self.begin = stack.enter_context(serving(FirstMinutes(minutes)))
        self.rest = stack.enter_context(RestClient(endpoint.rest_url, endpoint.api_key))
        self.journal = stack.enter_context(Journal(assembly.journal_path(settings)))
        self.stream = stack.enter_context(
            StreamClient(assembly.stream_settings(settings, endpoint))
        )
        self.open_ns = self.rest.market_status().server_ns
        account = self.journal.open_account("paper", 1e5, self.open_ns)
        if dated := options.pop("dated_ahead_ns", 0):
            event = StateChanged(self.open_ns + dated, TradingState.ACTIVE, "by a wrong clock")
            self.journal.append(event)
            account.apply(event)
        fees = assembly.fee_schedule(settings)
        broker = PaperBroker(self.journal, account, fees, assembly.risk_limits(settings))
        rules = assembly.trading_rules(settings)
        env = LiveEnv(settings.symbols, rules, fees, CALENDAR, broker)
        policy = Policy(assembly.model_config(settings), settings.seed)
        self.bars = Bars()
        self.trader = Trader(
            replace(
                assembly.trader_settings(settings),
                learning=False,
                lockstep=False,
                wall_clock=True,
                **options,  # type: ignore[arg-type]
            ),
            env,
            policy,
            CALENDAR,
            self.stream,
            MarketDirectory(self.rest, self.stream, env, CALENDAR, 10_000),
            self.bars,
            self.open_ns,
            champions_of(settings.paths.checkpoints, policy),
        )
        self.trader.open()
        await_live(self.stream)

    def play(self, minutes: int) -> None:
        """Let the server tell all of its minutes, and wait until it has."""
        self.begin()
        deadline = time.monotonic() + 60
        while self.rest.market_status().server_ns < self.open_ns + minutes * MINUTE:
            assert time.monotonic() < deadline

    def run(self, after_open_s: float) -> None:
        """Trade until the stream ends, by a machine whose clock starts so long after the open."""
        started = time.monotonic_ns()
        ahead_ns = self.open_ns + round(after_open_s * 1e9) - started
        self.trader.run(lambda: time.monotonic_ns() + ahead_ns)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def test_bars_that_a_stall_made_late_are_decided_as_holding_and_trade_nothing(
    tmp_path: Path, stack: ExitStack
) -> None:
    live = Live(tmp_path, stack, minutes=9, max_decision_lag_ns=100_000_000_000)
    live.play(9)
    live.run(after_open_s=9 * 60 + 1)
    assert live.bars.ends == [live.open_ns + n * MINUTE for n in range(1, 10)]
    in_time = {live.open_ns + n * MINUTE for n in (8, 9)}
    late = {live.open_ns + n * MINUTE for n in range(1, 7)}
    events = list(live.journal.events())
    decided = [each for each in events if isinstance(each, DecisionMade)]
    assert {each.action_name for each in decided if each.ts_ns in late} == {"hold"}
    ordered = {each.ts_ns for each in events if isinstance(each, OrderAccepted)}
    assert ordered and not ordered & late and ordered <= in_time | {live.open_ns + 7 * MINUTE}
    assert live.trader.late_bars >= len(late)


@pytest.mark.parametrize("off_s", [3600.0, 26 * 3600.0, -3600.0])
def test_a_machine_whose_clock_is_wrong_closes_no_bar_by_it_and_opens_nothing(
    tmp_path: Path, stack: ExitStack, off_s: float
) -> None:
    live = Live(tmp_path, stack, minutes=3)
    live.play(3)
    live.run(after_open_s=180 + off_s)
    assert live.bars.ends == [live.open_ns + n * MINUTE for n in (1, 2, 3)]
    assert live.trader.live_clock is not None and live.trader.live_clock.is_off
    assert any(each.kind is UnreadyKind.CLOCK for each in clock_reasons(live.trader, CALENDAR))
    assert not any(isinstance(each, OrderAccepted) for each in live.journal.events())
    assert live.journal.last_ts_ns <= live.open_ns + 3 * MINUTE


def test_an_account_whose_journal_is_ahead_says_so_and_trades_nothing_until_then(
    tmp_path: Path, stack: ExitStack
) -> None:
    live = Live(tmp_path, stack, minutes=3, dated_ahead_ns=HOUR)
    live.play(3)
    before = live.journal.last_seq
    live.run(after_open_s=181)
    assert live.bars.ends == [] or live.bars.ends[0] > live.open_ns + HOUR
    [(_, reason), *_] = clock_reasons(live.trader, CALENDAR)
    assert "journal is ahead" in reason and "accept_journal_ahead" in reason
    decided = [each for each in live.journal.events(before) if isinstance(each, DecisionMade)]
    assert decided == []


@pytest.mark.parametrize("ahead_ns", [HOUR, 75 * 365 * 24 * HOUR])
def test_its_owner_may_let_it_go_on(tmp_path: Path, stack: ExitStack, ahead_ns: int) -> None:
    live = Live(tmp_path, stack, minutes=3, dated_ahead_ns=ahead_ns, accept_journal_ahead=True)
    live.play(3)
    live.run(after_open_s=181)
    assert live.bars.ends == [live.open_ns + n * MINUTE for n in (1, 2, 3)]
    events = list(live.journal.events())
    assert sum(isinstance(each, TimeTakenBack) for each in events) == 1
    account: Account = live.trader.env.broker.account
    assert account.decisions == 6 and account.last_ts_ns == live.open_ns + 3 * MINUTE
    assert live.journal.fold().fingerprint() == account.fingerprint()


def asked_for_the_time(live: Live, after_open_s: int = 0) -> list[int]:
    """Exchange times at which the trader asked the vendor what time it is; filled as it does.

    The vendor's clock stands so long after the open, and goes from there.
    """
    times: list[int] = []
    ask = live.rest.clock_ns

    def noted() -> int:
        times.append(live.trader.clock.bar.end_ns)
        return ask() + after_open_s * 1_000_000_000 + time.monotonic_ns() - began_ns

    began_ns = time.monotonic_ns()
    live.rest.clock_ns = noted  # type: ignore[method-assign]
    return times


def test_the_clock_is_compared_at_the_start_and_after_each_reconnection(
    tmp_path: Path, stack: ExitStack
) -> None:
    live = Live(tmp_path, stack, minutes=380)
    times = asked_for_the_time(live, after_open_s=58)

    class Drops(Bars):
        """Loses the options' connection at the first bar."""

        def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
            super().on_bar(trader, bar, latency_s)
            before = len(times)
            assert before >= 1, "compared before the first bar"
            connection = live.stream._connections["options"]
            socket = connection._socket
            assert socket is not None and live.stream._loop is not None
            live.stream._loop.call_soon_threadsafe(socket.transport.abort)
            deadline = time.monotonic() + WAIT_S
            while len(times) == before:
                trader._keep_time(trader.live_clock)
                assert time.monotonic() < deadline, live.stream.health()
                time.sleep(0.05)
            trader.stopping.set()

    live.trader._observer = Drops()
    live.run(after_open_s=58)
    assert len(times) >= 2


def test_the_clock_is_compared_when_a_session_begins(tmp_path: Path, stack: ExitStack) -> None:
    live = Live(tmp_path, stack, minutes=1)
    times = asked_for_the_time(live)
    trader = live.trader
    started = time.monotonic_ns()
    live_clock = LiveClock(lambda: live.open_ns + time.monotonic_ns() - started, None)
    compared: list[int] = []
    live_clock.check_soon = lambda: compared.append(1)  # type: ignore[method-assign]
    trader.live_clock = live_clock
    following = first_bar_after(trader.clock.bar.session.close_ns, CALENDAR, MINUTE)
    trader._unopened = following
    trader._open_if_begun(following.session.open_ns - 1)
    assert not compared
    trader._open_if_begun(following.session.open_ns)
    assert compared == [1] and times == []
