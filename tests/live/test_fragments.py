"""The rewards that the learner gets are the rewards in the journal, wherever the process ends."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.market import Bars, FirstMinutes, champions_of, serving, settings_for, trade
from tests.usual import clstm_config, risk_limits
from trading.app.algorithm import online_rules
from trading.data.massive.server.source import SimulationSource, SourceStep
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import ActionResult, LiveEnv, TimeStep
from trading.envs.rewards import largest_reward
from trading.errors import LearningError
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade, Event, SessionClosed
from trading.execution.journal import Journal
from trading.learning.online import check_possible
from trading.learning.policy import Policy
from trading.learning.rollout import Rollout
from trading.live import assembly
from trading.live.bar_clock import Bar
from trading.live.fragments import FragmentBuilder
from trading.live.trader import Trader, TraderSettings
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

CALENDAR = ExchangeCalendar()
SYMBOLS = ("AAA", "BBB")
BARS = 4
"""Of each session here: the last ones before its close."""


def decided(count: int = 1) -> Any:
    return SimpleNamespace(
        actions=np.zeros(count, np.int64),
        log_probs=np.zeros(count, np.float32),
        values=np.zeros(count, np.float32),
    )


def begin_step(builder: FragmentBuilder, first: bool, ts_ns: int = 0) -> None:
    builder.decide(
        np.zeros((1, 3), np.float32),
        np.ones((1, 2), np.bool_),
        decided(),
        np.array([first]),
        {},
        1,
        ts_ns,
    )


def f32(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


def test_a_night_is_added_to_what_the_last_decision_earned() -> None:
    builder = FragmentBuilder(1)
    begin_step(builder, first=True)
    builder.reward(f32(-1.0))
    builder.truncate(f32(0.5))
    builder.reward(f32(5.0))
    builder.truncate(f32(0.75))
    rollout = builder.take(f32(0.0))
    assert rollout.rewards.tolist() == [[4.0]]
    assert rollout.truncated.all() and rollout.final_values.tolist() == [[0.75]]


def test_a_close_and_the_next_first_bar_may_each_pay_the_most(tmp_path: Path) -> None:
    """Of a step both are one reward, and one that no two bars can pay is refused."""
    usual = settings_for(tmp_path, "env.reward_scale=0.1")
    rules = online_rules(usual)
    most = largest_reward(usual.env.reward_scale, usual.env.risk_aversion)
    assert float(f32(most)[0] + f32(most)[0]) > 2.0 * most, "float32 rounds this one up"
    for second, is_possible in ((most, True), (1.001 * most, False)):
        builder = FragmentBuilder(1)
        begin_step(builder, first=True)
        builder.reward(f32(most))
        builder.reward(f32(second))
        rollout = builder.take(f32(0.0))
        if is_possible:
            check_possible(rollout, rules)
        else:
            with pytest.raises(LearningError, match=r"rollout\.rewards reaches .* is possible"):
                check_possible(rollout, rules)


def test_a_restart_goes_on_with_the_fragment(tmp_path: Path) -> None:
    file = tmp_path / "fragment.bin"
    builder = FragmentBuilder(4, file, SYMBOLS)
    for ts_ns in (1, 2):
        begin_step(builder, first=ts_ns == 1, ts_ns=ts_ns)
        builder.reward(f32(float(ts_ns)), ts_ns + 1)
    again = FragmentBuilder(4, file, SYMBOLS)
    again.resume(3)
    assert (again.waiting, again.rewarded_ns) == (2, 3)
    again.reward(f32(10.0), 4)
    again.truncate(f32(0.0), 4)
    rollout = again.take(f32(0.0))
    assert rollout.rewards.tolist() == [[1.0], [12.0]]
    assert rollout.first.tolist() == [[True], [False]]
    assert not file.exists()


def test_what_the_journal_does_not_have_is_left_out_and_done_again(tmp_path: Path) -> None:
    file = tmp_path / "fragment.bin"
    builder = FragmentBuilder(4, file, SYMBOLS)
    begin_step(builder, first=True, ts_ns=1)
    builder.reward(f32(1.0), 2)
    begin_step(builder, first=False, ts_ns=2)
    for _ in range(2):
        again = FragmentBuilder(4, file, SYMBOLS)
        again.resume(1)
        assert (again.waiting, again.rewarded_ns) == (1, 1)
    again.reward(f32(1.0), 2)
    assert again.take(f32(0.0)).rewards.tolist() == [[1.0]]


def test_a_fragment_of_other_underlyings_is_not_continued(tmp_path: Path) -> None:
    builder = FragmentBuilder(4, tmp_path / "fragment.bin", SYMBOLS)
    begin_step(builder, first=True, ts_ns=1)
    other = FragmentBuilder(4, tmp_path / "fragment.bin", ("CCC",))
    other.resume(1)
    assert other.waiting == 0
    begin_step(other, first=True, ts_ns=2)
    again = FragmentBuilder(4, tmp_path / "fragment.bin", ("CCC",))
    again.resume(2)
    assert again.waiting == 1


class _Killed(Exception):
    """The process ends here."""


@dataclass
class _Durable:
    """Counts what becomes durable, and ends the process before one of them."""

    left: int

    def __call__(self) -> None:
        if self.left == 0:
            raise _Killed
        self.left -= 1


class _Market(LiveEnv):
    """An environment whose profits are given."""

    def __init__(self, broker: PaperBroker, profits: dict[int, tuple[float, float]]) -> None:
        super().__init__(SYMBOLS, DEFAULT_RULES, DEFAULT_FEES, CALENDAR, broker)
        self._profits = profits

    def close_bar(self, now_ns: int, session: Session) -> TimeStep:
        made = dict(zip(SYMBOLS, self._profits[now_ns], strict=True))
        rewards = f32(*(made[symbol] - self._profit[symbol] for symbol in SYMBOLS))
        self._profit = made
        return TimeStep(np.zeros((2, 3), np.float32), np.ones((2, 2), np.bool_), rewards)

    def equity(self) -> float:
        return 1e5

    def trade(self, now_ns: int, actions: Sequence[int]) -> list[ActionResult]:
        return []


@dataclass
class _Life:
    """Processes of one account, one after another."""

    folder: Path
    profits: dict[int, tuple[float, float]]
    bars: list[Bar]
    decisions: int
    sessions_per_episode: int = 1
    taken: list[Rollout] = field(default_factory=list)
    waiting: Any = None

    def run(self, durable: _Durable, lost_bytes: int) -> bool:
        """Trade on until `durable` ends the process; False when all bars are closed."""
        file = self.folder / "fragment.bin"
        if lost_bytes and file.exists():
            file.write_bytes(file.read_bytes()[:-lost_bytes])
        with Journal(self.folder / "journal.sqlite") as journal, pytest.MonkeyPatch.context() as m:
            journal._connection.execute("PRAGMA synchronous = OFF")
            account = journal.open_account("paper", 1e5, self.bars[0].end_ns - MINUTE_NS)
            broker = PaperBroker(journal, account, DEFAULT_FEES, risk_limits())
            trader = self.trader(broker, file)
            record, store = broker.record, trader._builder._store
            append, clear = store.append, store.clear
            m.setattr(broker, "record", lambda events: (durable(), record(events)))
            m.setattr(store, "append", lambda entry: (durable(), append(entry)))
            m.setattr(store, "clear", lambda: (durable(), clear()))
            try:
                for bar in [each for each in self.bars if each.end_ns > account.last_ts_ns]:
                    trader.clock.bar = bar
                    trader._close_bar(None)
            except _Killed:
                return True
            finally:
                while not trader.fragments.empty():
                    self.taken.append(trader.fragments.get().rollout)
            self.waiting = trader._builder._steps
            return False

    def trader(self, broker: PaperBroker, file: Path) -> Trader:
        config = clstm_config(3, 2, feature_hidden=4, actor_hidden=4, critic_hidden=4)
        policy = Policy(config, seed=0)
        options = TraderSettings(
            bar_ns=MINUTE_NS,
            grace_ns=0,
            wall_clock=False,
            lockstep=False,
            lockstep_timeout_s=1.0,
            learning=True,
            update_frequency=self.decisions,
            sessions_per_episode=self.sessions_per_episode,
            fragment_file=file,
            fragment_backlog=1_000,
        )
        nothing: Any = SimpleNamespace()
        nothing.open_session = nothing.follow = nothing.on_bar = lambda *_: None
        market = _Market(broker, self.profits)
        trader = Trader(
            options,
            market,
            policy,
            CALENDAR,
            nothing,
            nothing,
            nothing,
            self.bars[0].end_ns - MINUTE_NS,
            champions_of(file.parent / "checkpoints", policy),
        )
        assert trader.champion_policy is not None
        trader.champion_policy.begin(
            max(self.bars[0].end_ns - MINUTE_NS, broker.account.last_ts_ns)
        )
        return trader


def test_a_restart_after_a_rename_goes_on_with_the_fragment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = last_bars(1)
    profits = {bar.end_ns: (float(number), 2.0 * number) for number, bar in enumerate(bars, 1)}
    life = _Life(tmp_path, profits, bars, decisions=100)
    assert not life.run(_Durable(1_000), 0)
    monkeypatch.setattr("tests.live.test_fragments.SYMBOLS", ("AAAX", "BBB"))
    with Journal(tmp_path / "journal.sqlite") as journal:
        account = journal.open_account("paper", 1e5, bars[0].end_ns)
        account.actions["AAA/rename/2026-01-06"] = ("now AAAX", "")
        broker = PaperBroker(journal, account, DEFAULT_FEES, risk_limits())
        file = tmp_path / "fragment.bin"
        # The reward of the session's close is not in the file yet: the journal has it by its name.
        file.write_bytes(file.read_bytes()[:-1])
        trader = life.trader(broker, file)
        given = given_to_the_learner([], trader._builder._steps)
        assert trader._builder.waiting == len(life.waiting)
        assert given == pytest.approx(given_to_the_learner([], life.waiting))


@pytest.mark.parametrize("sessions", [1, 2])
def test_the_memory_begins_anew_after_the_sessions_of_an_episode(
    tmp_path: Path, sessions: int
) -> None:
    bars = last_bars(4)
    profits = {bar.end_ns: (float(number), 2.0 * number) for number, bar in enumerate(bars)}
    life = _Life(tmp_path, profits, bars, 1_000, sessions)
    assert not life.run(_Durable(1_000), 0)
    # The close decides nothing, and what the night earned belongs to the decision before it.
    decided = BARS - 1
    begins = [k for k, step in enumerate(life.waiting) if step.first.all()]
    cuts = [k for k, step in enumerate(life.waiting) if step.truncated.all()]
    assert begins == list(range(0, 4 * decided, sessions * decided))
    assert cuts == [k - 1 for k in begins[1:]]
    nights = [float(life.waiting[decided * day - 1].rewards[0]) for day in (1, 2, 3)]
    assert nights == [2.0, 2.0, 2.0]


def last_bars(days: int) -> list[Bar]:
    bars, day = [], date(2026, 1, 5)
    for _ in range(days):
        session = CALENDAR.session_on(day)
        assert session is not None
        bars += [
            Bar(session, session.close_ns - back * MINUTE_NS) for back in range(BARS - 1, -1, -1)
        ]
        day = CALENDAR.next_session(day).date
    return bars


def rewards_of(events: Sequence[Event]) -> np.ndarray:
    total = np.zeros(len(SYMBOLS))
    for event in events:
        if isinstance(event, DecisionMade):
            total[SYMBOLS.index(event.underlying)] += event.reward
        elif isinstance(event, SessionClosed):
            total += [event.rewards[symbol] for symbol in SYMBOLS]
            assert event.reward == pytest.approx(sum(event.rewards.values()))
    return total


def given_to_the_learner(rollouts: Sequence[Rollout], waiting: Any = ()) -> np.ndarray:
    taken = [rollout.rewards.sum(axis=0, dtype=np.float64) for rollout in rollouts]
    return np.sum([*taken, *(step.rewards for step in waiting)], axis=0, dtype=np.float64)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), days=st.integers(1, 3), decisions=st.integers(1, 12))
def test_rewards_of_the_fragments_are_those_of_the_journal(
    data: st.DataObject, days: int, decisions: int
) -> None:
    """Over sessions, kills at any instant, and fragments of any length."""
    bars = last_bars(days)
    usd = st.integers(-64, 64).map(float)
    profits = {bar.end_ns: data.draw(st.tuples(usd, usd)) for bar in bars}
    # Before the first decision there is nothing that a decision could have earned.
    profits[bars[0].end_ns] = (0.0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        life = _Life(Path(folder), profits, bars, decisions)
        for stop in data.draw(st.lists(st.integers(0, 25), max_size=6)):
            life.run(_Durable(stop), 0)
        assert not life.run(_Durable(10_000), 0)
        with Journal(Path(folder) / "journal.sqlite", read_only=True) as journal:
            events = list(journal.events())
        earned = rewards_of(events)
        assert earned == pytest.approx(np.array(profits[bars[-1].end_ns]))
        assert given_to_the_learner(life.taken, life.waiting) == pytest.approx(earned)
        for rollout in life.taken:
            rollout.validate()
        account = Journal(Path(folder) / "journal.sqlite", read_only=True).fold()
        assert account.reward_total == pytest.approx(earned.sum())


@settings(max_examples=30, deadline=None)
@given(data=st.data(), stop=st.integers(1, 30), lost=st.integers(1, 900))
def test_rewards_survive_the_loss_of_the_files_end(
    data: st.DataObject, stop: int, lost: int
) -> None:
    """A power cut may take decisions from the file; what they earned comes from the journal."""
    bars = last_bars(2)
    usd = st.integers(-64, 64).map(float)
    profits = {bar.end_ns: data.draw(st.tuples(usd, usd)) for bar in bars}
    profits[bars[0].end_ns] = (0.0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        life = _Life(Path(folder), profits, bars, 1_000)
        cut = life.run(_Durable(stop), 0)
        file = Path(folder) / "fragment.bin"
        size = file.stat().st_size if file.exists() else 0
        if cut:
            assert not life.run(_Durable(10_000), lost)
        with Journal(Path(folder) / "journal.sqlite", read_only=True) as journal:
            earned = rewards_of(list(journal.events()))
        first_step = 700
        if not cut or size - lost > first_step:
            assert given_to_the_learner((), life.waiting) == pytest.approx(earned)


class AcrossTheNight:
    """The last minutes of a simulated session and the first ones of the next."""

    def __init__(self, before: int, after: int) -> None:
        specs = [UnderlyingSpec(symbol, 100.0, 0.25, n_strikes=15) for symbol in SYMBOLS]
        exchange = SimulatedExchange(specs, date(2026, 1, 5), seed=1, step_seconds=20)
        session = exchange.calendar.session_on(date(2026, 1, 5))
        assert session is not None
        following = exchange.calendar.next_session(session.date)
        self._source = SimulationSource(exchange, session.close_ns - before * MINUTE_NS)
        self._end_ns = following.open_ns + after * MINUTE_NS
        self.start_ns, self.listing = self._source.start_ns, self._source.listing

    def steps(self) -> Any:
        for step in self._source.steps():
            assert isinstance(step, SourceStep)
            if step.ts_ns > self._end_ns:
                return
            yield step


def journalled(folder: Path) -> np.ndarray:
    path = assembly.journal_path(settings_for(folder))
    with Journal(path, read_only=True) as journal:
        return rewards_of(list(journal.events()))


def fragments_of(trader: Trader) -> list[Rollout]:
    return [trader.fragments.get().rollout for _ in range(trader.fragments.qsize())]


def test_over_a_real_night_nothing_is_lost(tmp_path: Path) -> None:
    options = settings_for(tmp_path, "learning.update_frequency=10")
    with serving(AcrossTheNight(25, 5)) as (endpoint, begin):
        trader = trade(options, endpoint, begin, learning=True).trader
    account = trader.env.broker.account
    assert account.last_session and account.fills
    given = given_to_the_learner(fragments_of(trader), trader._builder._steps)
    assert given == pytest.approx(journalled(tmp_path), abs=1e-6)
    profits = [account.contribution(symbol, trader.env.marks()) for symbol in SYMBOLS]
    unit = options.env.reward_scale / options.account.initial_capital
    # The last bar's orders have changed the account since its reward was given.
    assert [trader.env.profit(s) for s in SYMBOLS] == pytest.approx(
        list(journalled(tmp_path) / unit), abs=1e-2
    )
    assert profits == pytest.approx([trader.env.profit(s) for s in SYMBOLS], abs=500.0)


def test_over_a_restart_the_same_rewards_are_given(tmp_path: Path) -> None:
    """What was earned while nothing ran is earned too, and a fragment goes on where it was."""
    options = settings_for(tmp_path, "learning.update_frequency=14")
    rollouts = []
    for stop_after in (5, 4, None):
        with serving(FirstMinutes(14)) as (endpoint, begin):
            bars = Bars(stop_after=stop_after)
            trader = trade(options, endpoint, begin, bars=bars, learning=True).trader
        rollouts += fragments_of(trader)
    assert [rollout.shape[0] for rollout in rollouts] == [7]
    rollouts[0].validate()
    assert rollouts[0].first[:, 0].tolist() == [True, *[False] * 4, True, False]
    given = given_to_the_learner(rollouts, trader._builder._steps)
    assert given == pytest.approx(journalled(tmp_path), abs=1e-6)
    assert trader.env.broker.account.fills


def test_a_disk_that_takes_no_steps_ends_nothing(tmp_path: Path) -> None:
    """The fragment goes on in memory; what the disk has of it is no fragment any more."""
    file = tmp_path / "state" / "fragment.bin"
    file.parent.mkdir()
    builder = FragmentBuilder(3, file, ("AAA",))
    begin_step(builder, True, ts_ns=1)
    # A file where the folder was: nothing can be written below it, also by root.
    file.parent.rename(tmp_path / "away")
    file.parent.write_text("no folder")
    for bar in (2, 3, 4):
        builder.reward(f32(1.0), bar)
        begin_step(builder, False, ts_ns=bar)
    assert builder.full
    assert builder.take(f32(0.0)).steps >= 3
    file.parent.unlink()
    (tmp_path / "away").rename(file.parent)
    begin_step(builder, False, ts_ns=5)
    builder.reward(f32(1.0), 6)
    begin_step(builder, False, ts_ns=6)
    builder.take(f32(0.0))
    begin_step(builder, False, ts_ns=7)
    again = FragmentBuilder(3, file, ("AAA",))
    again.resume(until_ns=10)
    assert again.waiting == builder.waiting
