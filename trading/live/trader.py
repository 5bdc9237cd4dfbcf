"""The trading loop: frames in, a decision per underlying and bar, orders out, fragments kept.

The loop runs on one thread and is the only one that touches the environment, the policy and the
journal. Other threads see it through `Snapshot` values, a queue of fragments and `deliver`.
"""

import contextlib
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from trading.data.massive.client.stream import StreamClient
from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.live_env import ActionResult, LiveEnv
from trading.envs.rules import TradingRules
from trading.errors import LearningError, TradingError
from trading.execution.events import DecisionMade, SessionClosed, TimeTakenBack
from trading.execution.holdings import Position, StrategyPosition, profit_of_close
from trading.execution.orders import Fill, Rejection
from trading.execution.owner import (
    Command,
    CommandResult,
    Effect,
    account_status,
    execute_command,
)
from trading.execution.risk import RiskEngine, RiskLimits
from trading.execution.states import Cause
from trading.learning.champion.manager import PromotionDecision
from trading.learning.champion.store import AccountChampion, ChampionStore
from trading.learning.policy import Decision, Policy
from trading.learning.rollout import OTHER_BEHAVIOUR, RecurrentState, Rollout
from trading.live.bar_clock import MAX_AHEAD_NS, Bar, BarClock, first_bar_after
from trading.live.champion_policy import ChampionPolicy
from trading.live.clock import OFF_NS, LiveClock
from trading.live.dead_man import DeadMan
from trading.live.fragments import FragmentBuilder
from trading.live.profit_parts import ProfitParts
from trading.live.pulse import Pulse
from trading.live.rule_based import Decider, RuleBasedDecider
from trading.logs import get_logger
from trading.market.calendar import ExchangeCalendar
from trading.market.corporate_actions import first_name

log = get_logger(__name__)

_FRAME_TIMEOUT_S = 0.25
_BARRIER_TIMEOUT_S = 5.0
_SECOND_NS = 1_000_000_000
_LONGEST_BREAK = timedelta(days=10)
_RECENT_FILLS = 5


class FragmentId(NamedTuple):
    """Which fragment: numbers start over when the process does."""

    process: int
    number: int


class Fragment(NamedTuple):
    """A rollout of live experience, and where the account stood at its end."""

    id: FragmentId
    rollout: Rollout
    account_champion: AccountChampion


class LearnerReply(NamedTuple):
    """What the driver has to say: after a fragment, or by itself where that is None."""

    fragment: FragmentId | None
    decisions: tuple[PromotionDecision, ...]


class BarDecisions(NamedTuple):
    """What was decided at the end of a bar, and what became of it."""

    ts_ns: int
    symbols: tuple[str, ...]
    """The U underlyings; every other field has a row for each."""
    decision: Decision
    mask: np.ndarray
    """bool [U, N]: what was allowed."""
    outcomes: tuple[ActionResult, ...]
    """Empty where the bar was closed too late to trade in."""
    version: int
    """Of the weights that decided."""


@dataclass(frozen=True, slots=True)
class TraderSettings:
    """How the loop runs; see the settings of the same names."""

    bar_ns: int
    grace_ns: int
    wall_clock: bool
    """Bars also close by the wall clock, for feeds that may fall silent."""
    lockstep: bool
    """After every fragment, wait for the learner's answer."""
    lockstep_timeout_s: float
    learning: bool
    """Build fragments at all."""
    update_frequency: int
    """Decisions in a fragment."""
    sessions_per_episode: int = 1
    """Sessions after which the policy's memory begins anew."""
    fragment_file: Path | None = None
    """Where the fragment that is not yet full is kept through a restart."""
    patience_s: float = math.inf
    """Of the dead man's switch."""
    flatten_unattended: bool = False
    """Whether it closes all, and does not only reduce."""
    fragment_backlog: int = 8
    """Fragments kept for a learner that is behind; the oldest is dropped beyond it."""
    max_ahead_ns: int = MAX_AHEAD_NS
    """An event may be dated so far ahead of the clock."""
    max_decision_lag_ns: int = 10_000_000_000
    """A bar that ended longer ago by the wall clock trades nothing."""
    accept_journal_ahead: bool = False
    """Whether to trade on though the journal is dated ahead of the wall clock."""


class ReferenceData(Protocol):
    """What the loop asks of the market's reference data."""

    def open_session(self, bar: Bar) -> None:
        """List the session's contracts in the environment and subscribe to them."""
        ...

    def follow(self, bar: Bar) -> None:
        """Ask again for what could not be listed: a bar was closed."""
        ...

    def vendor_ns(self) -> int:
        """Return the vendor's clock, cut to a second; asked from any thread."""
        ...

    def settle(self, now_ns: int) -> None:
        """Settle what waits for closing prices, once they are known."""
        ...


class Observer(Protocol):
    """Who is told what happened, on the loop's thread."""

    def on_bar(self, trader: "Trader", bar: Bar, latency_s: float | None) -> None:
        """Note a closed bar; `latency_s` is from the last frame to the last order, if any."""
        ...

    def on_command(self, trader: "Trader") -> None:
        """Note that the owner was obeyed, or that what restricts trading has changed."""
        ...


class Trader:
    """Trades one account from a stream of frames until told to stop or the stream ends.

    Parameters
    ----------
    settings, env, policy, calendar
        See their types; the policy's generator makes the choices.
    stream
        A started client.
    markets
        Lists and subscribes at each session's start.
    observer
        Told of every bar.
    start_ns
        Exchange time now.
    champions
        On disk; a rule-based trader needs none.
    """

    def __init__(
        self,
        settings: TraderSettings,
        env: LiveEnv,
        policy: Policy | RuleBasedDecider,
        calendar: ExchangeCalendar,
        stream: StreamClient,
        markets: ReferenceData,
        observer: Observer,
        start_ns: int,
        champions: ChampionStore | None,
    ) -> None:
        self.env = env
        self.profit_parts = ProfitParts(env)
        """What the day and each trade earned by what."""
        env.broker.followers.append(self.profit_parts.follow)
        self.policy: Decider = policy
        self.trader = policy.config if isinstance(policy, RuleBasedDecider) else ""
        """Name of the rule-based trader; empty where the policy trades."""
        self.fragments: queue.Queue[Fragment] = queue.Queue()
        self.fragments_dropped = 0
        self.champion_policy: ChampionPolicy | None = None
        """None of a rule-based trader."""
        if not isinstance(policy, RuleBasedDecider):
            assert champions is not None, "a policy trades with a champion's weights"
            self.champion_policy = ChampionPolicy(env.broker, policy, champions)
        self.decisions = 0
        self.barriers_missed = 0
        self.stopping = threading.Event()
        self.recent_fills: deque[tuple[int, Fill, str]] = deque(maxlen=_RECENT_FILLS)
        """Exchange time, fill, and name of the action, oldest first."""
        self.profits: dict[str, float] = {}
        """USD, of those of them that close, by fill id."""
        self._commands: queue.Queue[tuple[Future[CommandResult], Command | None, Effect | None]] = (
            queue.Queue()
        )
        self.dead_man = DeadMan(settings.patience_s)
        self.pulse = Pulse()
        self._limits: queue.Queue[tuple[RiskLimits, TradingRules]] = queue.Queue()
        self._now_ns = start_ns
        self._has_closed = False
        """Whether a bar was closed, so that holdings have their prices."""
        self.recent_rejections: deque[Rejection] = deque(maxlen=_RECENT_FILLS)
        """Oldest first."""
        self.decided: BarDecisions | None = None
        """At the last bar; None before the first and at the end of a session."""
        self.finished = False
        """The stream ended and every bar is closed."""
        self._unopened: Bar | None = None
        self._settings = settings
        self._calendar = calendar
        self._stream = stream
        self._markets = markets
        self._observer = observer
        self._inbox: queue.Queue[LearnerReply] = queue.Queue()
        count = len(env.symbols)
        self._state: RecurrentState = policy.initial_state(count)
        self._builder = FragmentBuilder(
            settings.update_frequency,
            settings.fragment_file if settings.learning else None,
            (*self._first_names(env.symbols), repr(policy.config)),
        )
        self._go_on_with_the_fragment()
        self._first = np.ones(count, dtype=np.bool_)
        self._sessions = 0
        """Sessions of the policy's episode that are over."""
        self._start_ns = start_ns
        self.live_clock: LiveClock | None = None
        """What time it is, once a live market runs."""
        self.late_bars = 0
        """Bars closed too late to trade in."""
        self.ahead_until_ns = 0
        """The journal's time while that is ahead of the clock and nothing is traded; else 0."""
        self._reconnects_seen_s = 0.0
        last_ns = env.broker.account.last_ts_ns
        resume_ns = max(start_ns, last_ns)
        if settings.wall_clock and last_ns > start_ns + OFF_NS:
            resume_ns = start_ns
            self._meet_journal_ahead(last_ns)
        self.clock = BarClock(
            env,
            first_bar_after(resume_ns, calendar, settings.bar_ns),
            slice_ns=settings.bar_ns,
            grace_ns=settings.grace_ns,
            max_ahead_ns=settings.max_ahead_ns,
        )

    def _meet_journal_ahead(self, last_ns: int) -> None:
        """Go on at once where the owner says so, and wait for the journal's time otherwise."""
        ahead_s = (last_ns - self._start_ns) / 1e9
        if not self._settings.accept_journal_ahead:
            self.ahead_until_ns = last_ns
            log.error(
                "the account's journal is dated ahead of the clock: nothing is traded until then; "
                "if a wrong clock wrote it, start with data.accept_journal_ahead=true",
                ahead_s=ahead_s,
            )
            return
        log.warning("the journal's time is taken back: its owner says so", ahead_s=ahead_s)
        now = first_bar_after(self._start_ns, self._calendar, self._settings.bar_ns)
        before = self._calendar.sessions(now.session.date - _LONGEST_BREAK, now.session.date)[-2]
        self.env.broker.record([TimeTakenBack(self._start_ns, before.date.isoformat())])

    @property
    def weights_version(self) -> int:
        """Version of the weights that trade; 0 of a rule-based trader."""
        return 0 if self.champion_policy is None else self.champion_policy.version

    def command(
        self, command: Command | None, effect: Effect | None = None
    ) -> "Future[CommandResult]":
        """Hand over the owner's word (None: only how the account stands), obeyed between bars.

        `effect` as in `owner.execute_command`. Cancelled before it was obeyed, it never is.
        """
        future: Future[CommandResult] = Future()
        self._commands.put((future, command, effect))
        return future

    def limit(self, limits: RiskLimits, rules: TradingRules) -> None:
        """Trade within other limits from the next bar on."""
        self._limits.put((limits, rules))

    def deliver(self, answer: LearnerReply) -> None:
        """Hand over the driver's answer; its decisions hold from the next bar on."""
        self._inbox.put(answer)

    def open(self) -> None:
        """List and subscribe the contracts of the first session, and get ready to decide."""
        bar = self.clock.bar
        last_ns = 0 if self.ahead_until_ns else self.env.broker.account.last_ts_ns
        if self.champion_policy is not None:
            self.champion_policy.begin(max(self._start_ns, last_ns))
        self._markets.open_session(bar)
        self.env.warm_up_kernels(bar.end_ns, bar.session)

    def run(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Trade until `stopping` is set or the stream ends; `now_ns` is the machine's clock."""
        if self._settings.wall_clock:
            self.live_clock = LiveClock(now_ns, self._markets.vendor_ns)
            self.live_clock.check()
            self.clock.follow(self.live_clock.now_ns)
        tells = now_ns if self.live_clock is None else self.live_clock.now_ns
        try:
            self._loop(tells)
        finally:
            self.pulse.rest()

    def _loop(self, tells: Callable[[], int]) -> None:
        """Go round until told to stop or the stream ends; `tells` is the market's time."""
        while not self.stopping.is_set():
            self.pulse.beat()
            received_s = self._receive(_FRAME_TIMEOUT_S)
            if self.live_clock is not None:
                self._keep_time(self.live_clock)
            self._obey()
            self._watch(tells)
            while self._due() and not self.stopping.is_set():
                self.pulse.beat()
                self._confirm()
                self._obey()
                self._watch(tells)
                self._close_bar(received_s)
            if self._stream.finished and not self.stopping.is_set():
                if self.clock.complete and not self.ahead_until_ns:
                    self._close_bar(received_s)
                self.finished = True
                return

    def _keep_time(self, clock: LiveClock) -> None:
        """Do what is due by the clock: sessions, silence, waiting for the journal."""
        now_ns = clock.now_ns()
        if self.ahead_until_ns:
            self._pass_bars(now_ns)
        self._open_if_begun(now_ns)
        if not self.ahead_until_ns:
            self._markets.settle(now_ns)
        self._stream.expect_data(self._calendar.session_at(now_ns) is not None)
        if time.monotonic() - self._reconnects_seen_s > 1.0:
            self._reconnects_seen_s = time.monotonic()
            clock.follow(sum(each["reconnects"] for each in self._stream.health().values()))

    def _pass_bars(self, now_ns: int) -> None:
        """Let the bars pass until the clock has come to the journal's time."""
        if now_ns > self.ahead_until_ns:
            self.ahead_until_ns = 0
            log.info("the clock has come to the journal's time: trading goes on")
        following = first_bar_after(now_ns, self._calendar, self._settings.bar_ns)
        if following.session != self.clock.bar.session:
            self._unopened = following
        if following != self.clock.bar:
            self.clock.advance(following)

    def _obey(self) -> None:
        """Do what the owner wants since the last look."""
        with contextlib.suppress(queue.Empty):
            limits, rules = self._limits.get_nowait()
            self.env.broker.risk = RiskEngine(limits)
            self.env.set_rules(rules)
        while True:
            try:
                future, command, effect = self._commands.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            broker = self.env.broker
            equity = self.env.equity() if self._has_closed else broker.known_equity()
            try:
                if command is None:
                    answer = CommandResult("", 0, False, account_status(broker, equity))
                else:
                    now_ns = max(self._now_ns, broker.account.last_ts_ns)
                    answer = execute_command(broker, command, now_ns, equity, effect)
                    self._follow_account(now_ns)
                    log.info("the owner commands", command=command.command, said=answer.said)
                    self._observer.on_command(self)
            except TradingError as error:
                future.set_exception(error)
                continue
            future.set_result(answer)

    def _watch(self, now_ns: Callable[[], int]) -> None:
        """Reduce or flatten while nobody decides, sees or drives, and go on when all is back."""
        broker = self.env.broker
        account = broker.account
        standing = account.restrictions.get(Cause.UNATTENDED)
        if standing is None and not account.strategies and not account.working_orders:
            return
        market_ns, opened_ns = None, 0
        if self._settings.wall_clock:
            market_ns = now_ns()
            session = self._calendar.session_at(market_ns)
            if session is None:
                return
            opened_ns = session.open_ns
        if self.live_clock is not None:
            clock = self.live_clock
            self.dead_man.timed(clock.offset_s if clock.is_off else 0.0)
        missing = self.dead_man.missing(market_ns, self._now_ns, opened_ns, self.clock.watermark_ns)
        at_ns = max(self._now_ns, account.last_ts_ns)
        flattens = standing is not None and standing.flatten and account.strategies
        if missing and standing is None:
            reason = f"{Cause.UNATTENDED}: {'; '.join(missing)}"
            flatten = self._settings.flatten_unattended
            broker.record(broker.entering(Cause.UNATTENDED, at_ns, reason=reason, flatten=flatten))
            log.error("nobody attends to the open positions", reason=reason, flatten=flatten)
            self._observer.on_command(self)
        elif standing is not None and not missing and not flattens:
            broker.record(broker.ending([Cause.UNATTENDED], "attended again", at_ns))
            log.info("attended again")
            self._observer.on_command(self)

    def _receive(self, timeout_s: float) -> float | None:
        frames = self._stream.frames(timeout_s)
        received_s = time.perf_counter() if frames else None
        if frames:
            self.dead_man.framed()
        for frame in frames:
            self.clock.take(frame.data)
        if self.clock.new_contracts:
            self._stream.tick("options", [f"Q.{name}" for name in self.clock.new_contracts])
            self.clock.new_contracts.clear()
        if self.clock.new_underlyings:
            self._stream.tick("stocks", [f"AM.{name}" for name in self.clock.new_underlyings])
            self.clock.new_underlyings.clear()
        return received_s

    def _due(self) -> bool:
        if self.ahead_until_ns:
            return False
        if self.clock.due:
            return True
        deadline = self.clock.bar.end_ns + self._settings.grace_ns + _SECOND_NS
        return self.live_clock is not None and self.live_clock.now_ns() > deadline

    def _is_late(self, bar: Bar) -> bool:
        """Whether a bar ended too long ago to trade in, after a stall or a sleep."""
        if self.live_clock is None:
            return False
        return self.live_clock.now_ns() - bar.end_ns > self._settings.max_decision_lag_ns

    def _allowed(self, mask: np.ndarray, late: bool) -> np.ndarray:
        """Return what may be decided.

        Nothing but holding when late, no opening by a clock that is off.
        """
        allowed = mask.copy()
        if late:
            allowed[:] = False
            allowed[:, HOLD] = True
        elif self.live_clock is not None and self.live_clock.is_off:
            allowed[:, CLOSE + 1 :] = False
        return allowed

    def _confirm(self) -> None:
        """Take every frame that any connection sent before the bar became due."""
        if not self._stream.barrier(_BARRIER_TIMEOUT_S):
            self.barriers_missed += 1
        self._receive(0.0)

    def _close_bar(self, received_s: float | None) -> None:
        bar = self.clock.bar
        late = self._is_late(bar)
        told = (bar.end_ns, bar.session)
        observations, mask, rewards = self.env.close_bar(*told)
        self._follow_account(bar.end_ns)
        latency_s = None
        self.decided = None
        self._builder.reward(rewards, bar.end_ns)
        if bar.last:
            self._close_session(bar, rewards)
        else:
            self._decide(bar, observations, mask, rewards, late)
            if received_s is not None:
                latency_s = time.perf_counter() - received_s
        self._now_ns, self._has_closed = bar.end_ns, True
        self.dead_man.decided()
        self._markets.follow(bar)
        self.profit_parts.bar(bar.end_ns, str(bar.session.date))
        self._observer.on_bar(self, bar, latency_s)
        following = first_bar_after(bar.end_ns, self._calendar, self._settings.bar_ns)
        if following.session != bar.session:
            self._unopened = following
            # The tape may say that it has begun before any event of it is dated so.
            self._open_if_begun(max(self.clock.watermark_ns, self.clock.tape_ns))
        self.clock.advance(following)

    def _close_session(self, bar: Bar, rewards: np.ndarray) -> None:
        """End a session, and the policy's episode where it was the last one of it."""
        self.env.close_session(
            bar.end_ns, bar.session, float(rewards.sum()), [float(each) for each in rewards]
        )
        self._sessions += 1
        if self._sessions >= self._settings.sessions_per_episode:
            self._sessions = 0
            self._state = self.policy.initial_state(len(rewards))
            self._first[:] = True

    def _decide(
        self, bar: Bar, observations: np.ndarray, mask: np.ndarray, rewards: np.ndarray, late: bool
    ) -> None:
        """Decide at the end of a bar, by whichever champion is due then, and trade."""
        if self._settings.learning and self._first.all():
            # What the night or the restart changed belongs to the step before it, so what
            # follows that step begins here.
            self._builder.truncate(self.policy.value(observations, mask, self._state), bar.end_ns)
        if self._settings.learning and self._builder.full:
            self._emit(self.policy.value(observations, mask, self._state))
        self._take_decisions(bar.end_ns)
        late = late or self._is_late(bar)
        self.late_bars += late
        mask = self._allowed(mask, late)
        decision, state = self.policy.act(observations, mask, self._state, self._first)
        if self._settings.learning:
            # Before it is journalled: what the journal does not have is left out at a restart.
            self._builder.decide(
                observations,
                mask,
                decision,
                self._first,
                self._state,
                self.weights_version if self.policy.is_on_policy else OTHER_BEHAVIOUR,
                bar.end_ns,
            )
        outcomes = self._trade(bar.end_ns, decision, rewards, late)
        self.decided = BarDecisions(
            bar.end_ns,
            self.env.symbols,
            decision,
            mask,
            tuple(outcomes),
            self.weights_version,
        )
        self._state = state
        self._first[:] = False

    def _open_if_begun(self, now_ns: int) -> None:
        """List the next session once it has begun: what it trades is not known before."""
        if self._unopened is not None and now_ns >= self._unopened.session.open_ns:
            self._markets.open_session(self._unopened)
            self._unopened = None
            if self.live_clock is not None:
                self.live_clock.check_soon()

    def _note(
        self,
        now_ns: int,
        fill: Fill,
        action: str,
        strategies: Mapping[str, StrategyPosition],
        positions: Mapping[str, Position],
    ) -> None:
        """Keep a fill in view; holdings are those before it."""
        self.recent_fills.append((now_ns, fill, action))
        held = strategies.get(fill.underlying)
        if held is not None and held.order_id != fill.order_id:
            account = self.env.broker.account
            self.profits[fill.fill_id] = profit_of_close(held, positions, fill, account.size)
        shown = {each.fill_id for _, each, _ in self.recent_fills}
        self.profits = {name: each for name, each in self.profits.items() if name in shown}

    def _trade(
        self, now_ns: int, decision: Decision, rewards: np.ndarray, late: bool
    ) -> list[ActionResult]:
        """Journal a bar's decisions and send their orders; nothing is sent where it is too late."""
        names = self.env.action_names
        earned = self.profit_parts.take_earned(self.env.symbols)
        events = [
            DecisionMade(
                ts_ns=now_ns,
                underlying=symbol,
                action=int(action),
                action_name=names[int(action)],
                weights_version=self.weights_version,
                value=float(decision.values[u]),
                reward=float(rewards[u]),
                fragment=self._builder.number,
                profit=self.env.profit(symbol),
                probability=round(float(decision.probabilities[u, int(action)]), 6),
                trader=self.trader,
                earned=earned[u],
            )
            for u, (symbol, action) in enumerate(
                zip(self.env.symbols, decision.actions, strict=True)
            )
        ]
        self.env.broker.record(events)
        self.decisions += len(events)
        if late:
            log.warning("a bar was closed too late to trade in", ended_ns=now_ns)
            return []
        account = self.env.broker.account
        before = dict(account.strategies), dict(account.positions)
        outcomes = self.env.trade(now_ns, [int(action) for action in decision.actions])
        for fill in self.env.closed:
            self._note(now_ns, fill, "closed by the owner", *before)
            log.info("closed by the owner", underlying=fill.underlying, units=fill.units)
        for outcome in outcomes:
            if isinstance(outcome.result, Fill):
                ordered = outcome.action if outcome.ordered is None else outcome.ordered
                name = names[ordered]
                self._note(now_ns, outcome.result, name, *before)
                log.info(
                    "filled",
                    order=outcome.result.order_id,
                    strategy=name,
                    underlying=outcome.result.underlying,
                    units=outcome.result.units,
                    premium=outcome.result.premium,
                    fees=outcome.result.fees,
                )
            elif isinstance(outcome.result, Rejection):
                self.recent_rejections.append(outcome.result)
                log.warning(
                    "rejected",
                    order=outcome.result.order_id,
                    reason=str(outcome.result.reason),
                    detail=outcome.result.detail,
                )
        return outcomes

    def _first_names(self, symbols: Iterable[str]) -> list[str]:
        """Return what companies were called at first: a fragment goes on through a renaming."""
        applied = self.env.broker.account.actions
        return [first_name(symbol, applied) for symbol in symbols]

    def _go_on_with_the_fragment(self) -> None:
        """Take up the fragment that an earlier process left, and what the journal adds to it."""
        broker, builder = self.env.broker, self._builder
        builder.resume(broker.account.last_reward_ns)
        if not builder.waiting or builder.rewarded_ns >= broker.account.last_reward_ns:
            return
        names = self._first_names(self.env.symbols)
        for event in broker.journal.events():
            if event.ts_ns <= builder.rewarded_ns:
                continue
            if isinstance(event, DecisionMade):
                earned = {event.underlying: event.reward}
            elif isinstance(event, SessionClosed):
                earned = event.rewards
            else:
                continue
            by_name = dict(zip(self._first_names(earned), earned.values(), strict=True))
            rewards = [by_name.get(name, 0.0) for name in names]
            builder.reward(np.array(rewards, dtype=np.float32))
        builder.reward(
            np.zeros(len(self.env.symbols), dtype=np.float32), broker.account.last_reward_ns
        )

    def _emit(self, last_values: np.ndarray) -> None:
        rollout = self._builder.take(last_values)
        fragment = FragmentId(os.getpid(), self._builder.number)
        account_champion = AccountChampion.of(self.env.broker.account)
        self.fragments.put(Fragment(fragment, rollout, account_champion))
        if self._settings.lockstep:
            self._await_answer(fragment)
        while self.fragments.qsize() > self._settings.fragment_backlog:
            self.fragments.get_nowait()
            self.fragments_dropped += 1

    def _await_answer(self, fragment: FragmentId) -> None:
        """Block until the learner has answered `fragment`.

        Raises
        ------
        LearningError
            When it does not in time: going on would not be repeatable.
        """
        deadline = time.monotonic() + self._settings.lockstep_timeout_s
        answers: list[LearnerReply] = []
        while not self.stopping.is_set() and time.monotonic() < deadline:
            self.pulse.beat()
            try:
                answers.append(self._inbox.get(timeout=_FRAME_TIMEOUT_S))
            except queue.Empty:
                continue
            if answers[-1].fragment == fragment:
                break
        else:
            if not self.stopping.is_set():
                raise LearningError(
                    f"the learner did not answer fragment {fragment.number} within "
                    f"{self._settings.lockstep_timeout_s:g} s: see its log, or set "
                    "learning.lockstep=false"
                )
        for answer in answers:
            self._inbox.put(answer)

    def _take_decisions(self, now_ns: int) -> None:
        while True:
            try:
                answer = self._inbox.get_nowait()
            except queue.Empty:
                return
            for decision in answer.decisions:
                if self.champion_policy is not None:
                    self.champion_policy.receive(decision, now_ns, self.env.equity())

    def _follow_account(self, now_ns: int) -> None:
        """Trade with the account's champion, whoever made it that."""
        if self.champion_policy is not None:
            self.champion_policy.follow_account(now_ns)
