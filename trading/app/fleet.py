"""Several strategies in one application: one Ray, one HTTP service, a process for each strategy.

The driver holds a lease for each account, keeps its process going by a supervisor of its own, and
posts where each stands for those who answer. A strategy that fails is started again after a pause,
and the others do not notice.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from trading.app.cluster_feed import (
    ClusterFeed,
    StoppedOrMoved,
    cluster_feed,
    feed_moved,
    reads_the_vendor,
)
from trading.app.cluster_learner import ClusterLearner
from trading.app.driver import (
    SMALL_SHARE,
    ApplicationFailed,
    Summary,
    account_name,
    share_of_node,
)
from trading.app.fleet_display import FleetDisplay
from trading.app.shared_address import claimed_together, fleet_name
from trading.app.strategy_process import StrategyStart, run_strategy
from trading.app.up import (
    STOP_LIMIT_S,
    check_replay,
    joins_a_cluster,
    ray_runtime,
    stop_signals,
)
from trading.app.waiting import StopRequested, unless_ending
from trading.config import Settings, absolute_paths, shared_learner_checkpoints
from trading.errors import ConfigError
from trading.execution.lease import AccountLease, wait_for_any
from trading.feed.embedded import embedded_feed, reading_from
from trading.live import assembly
from trading.logs import get_logger
from trading.serving.service import serve_application
from trading.serving.strategy_states import FLEET_STATES, FleetState, FleetStates
from trading.serving.supervisor import (
    FINISHED,
    RESTARTING,
    STANDBY,
    STOPPED,
    Backoff,
    Supervisor,
    SupervisorState,
)

log = get_logger(__name__)

_POLL_S = 0.5
_CLOSE_TIMEOUT_S = STOP_LIMIT_S
_LOG = "driver.log"
"""Beside a strategy's journal: what its process logs while a terminal shows figures."""


class _Outcome(NamedTuple):
    summary: Summary | None
    failure: str


def up_strategies(
    common: Settings,
    strategies: Mapping[str, Settings],
    duration_s: float | None,
    display: FleetDisplay,
    *,
    claim: bool = False,
) -> None:
    """Run strategies until told to stop, all of them have ended, or time is up.

    Parameters
    ----------
    common
        The settings that the strategies share: Ray, and the HTTP service.
    strategies
        The settings of each, by its name.
    duration_s
        Seconds of trading of each; None is no limit.
    claim
        Trades one strategy alone, the first that nobody else trades; waits until there is one.
        Those that share a learner are taken together.

    Raises
    ------
    TradingError
        Ray or the HTTP service cannot start, or what has ended did so by failing.
    """
    common = absolute_paths(common)
    strategies = {name: absolute_paths(each) for name, each in strategies.items()}
    for each in strategies.values():
        check_replay(each)
        assembly.check_before_trading(each)
    joins = joins_a_cluster(common)
    stop = threading.Event()
    name = fleet_name(common)
    with ExitStack() as stack:
        if not joins:
            if not claim:
                strategies = stack.enter_context(_one_connection(strategies))
            _check_connections(strategies)
        stack.enter_context(stop_signals(stop))
        stack.enter_context(ray_runtime(common, display.common, name, others_join=True))
        fleet = Fleet(common, strategies, duration_s, display, stop, ray_address(), claim=claim)
        with suppress(StopRequested):
            if joins and (direct := direct_readers(strategies)):
                feed = cluster_feed(strategies[direct[0]], stop.is_set)
                fleet.read(stack.enter_context(feed))
            stack.callback(fleet.close)
            with unless_ending("the strategies", stop.is_set):
                fleet.begin(name)
                fleet.serve(stack, name)
            fleet.run()
    fleet.conclude()


def direct_readers(strategies: Mapping[str, Settings]) -> list[str]:
    """Return the strategies that would connect to the vendor themselves."""
    return [name for name, each in strategies.items() if reads_the_vendor(each)]


@contextmanager
def _one_connection(strategies: Mapping[str, Settings]) -> Iterator[Mapping[str, Settings]]:
    """Yield the strategies, with a feed of this process for the vendor where several read it.

    All of them run on this machine, which alone reaches that feed.
    """
    direct = direct_readers(strategies)
    if len(direct) < 2:
        yield strategies
        return
    with embedded_feed(strategies[direct[0]]) as url:
        yield {
            name: reading_from(each, url) if name in direct else each
            for name, each in strategies.items()
        }


def _check_connections(strategies: Mapping[str, Settings]) -> None:
    """Find out before anything starts that strategies would shut one another out.

    Raises
    ------
    ConfigError
        More than one of them would connect to the vendor, which allows one connection a key.
    """
    direct = direct_readers(strategies)
    if len(direct) > 1:
        raise ConfigError(
            [
                f"strategies {', '.join(direct)}: data.source = massive, and Massive.com allows "
                "one connection a key: run `trading feed`, and name it by FEED_URL "
                "(data.massive.feed_url)"
            ]
        )


def namespaces_of(strategies: Mapping[str, Settings]) -> dict[str, str]:
    """Ray namespace of each strategy's actors, by its name."""
    return {name: account_name(each) for name, each in strategies.items()}


def ray_address() -> str:
    """Address of the Ray cluster that this process is on."""
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address


class Fleet:
    """The strategies' supervisors, and what is told of them; see `up_strategies`.

    Parameters
    ----------
    stop
        Ends all of them in order.
    address
        Of the Ray cluster that they run on.
    """

    def __init__(
        self,
        common: Settings,
        strategies: Mapping[str, Settings],
        duration_s: float | None,
        display: FleetDisplay,
        stop: threading.Event,
        address: str,
        *,
        claim: bool = False,
    ) -> None:
        self._common = common
        self._strategies = strategies
        self._duration_s = duration_s
        self._display = display
        self._stop = stop
        self._claim = claim
        self._waiting = ""
        self._address = address
        self._journals = {name: assembly.journal_path(each) for name, each in strategies.items()}
        self._supervisors: dict[str, Supervisor] = {}
        self._outcomes: dict[str, _Outcome] = {}
        self._claimer: threading.Thread | None = None
        self._fleet_states: Any = None
        self._feed: ClusterFeed | None = None
        self._learner: ClusterLearner | None = None
        self._unit_leases: list[AccountLease] = []
        """Of strategies that were claimed together, until all of them have ended."""

    def read(self, feed: ClusterFeed) -> None:
        """Let strategies that would connect to the vendor read this feed."""
        self._feed = feed

    def begin(self, name: str) -> None:
        """Start the actor that knows their states, and the strategies."""
        self._fleet_states = self._start_states(name)
        if self._claim:
            self._claimer = threading.Thread(target=self._claim_one, name="claim", daemon=True)
            self._claimer.start()
        else:
            self._learn_together(tuple(self._strategies))
            for each in self._strategies:
                self.keep(each)
        self._post()

    def _start_states(self, name: str) -> Any:
        import ray

        states: Any = ray.remote(FleetStates)
        return states.options(
            name=FLEET_STATES,
            namespace=name,
            num_cpus=0,
            max_restarts=-1,
            resources=share_of_node(self._common, SMALL_SHARE),
        ).remote()

    def serve(self, stack: ExitStack, name: str) -> None:
        """Start the HTTP service; the stack ends it."""
        from trading.live.actor import ACTOR_NAME
        from trading.serving.strategies import build_strategies_app

        namespaces = namespaces_of(self._strategies)
        resources = share_of_node(self._common, SMALL_SHARE)
        app = build_strategies_app(ACTOR_NAME, namespaces, name, resources)
        display, stopped = self._display.common, self._stop.is_set
        display.phase("starting the HTTP service")
        serve_application(self._common, display, stack, stopped, app, name, "strategies")

    def run(self) -> None:
        """Trade until told to stop, or nothing is left to trade."""
        with self._display.running():
            while not self._stop.wait(_POLL_S):
                self._post()
                self._check_parts()
                if not self.goes_on:
                    return

    def _check_parts(self) -> None:
        """Raise what keeps all of them from trading, or from learning together.

        Raises
        ------
        ApplicationFailed
            Nobody waits for a free strategy any more.
        ConfigError
            Their learner runs already, and goes by other settings.
        """
        if self._learner is not None:
            self._learner.check()
        claimer = self._claimer
        ended = claimer is not None and not claimer.is_alive() and not self._stop.is_set()
        if ended and not self._supervisors:
            raise ApplicationFailed("no strategy can be claimed: see the log")

    def close(self) -> None:
        """End all of them in order, at the same time."""
        self._stop.set()
        if self._claimer is not None:
            self._claimer.join(_CLOSE_TIMEOUT_S)
        closing = [
            threading.Thread(target=each.close, args=(_CLOSE_TIMEOUT_S,), daemon=True)
            for each in self._supervisors.values()
        ]
        for each in closing:
            each.start()
        for each in closing:
            each.join()
        if self._learner is not None:
            self._learner.close()
        for lease in self._unit_leases:
            lease.close()

    def check(self) -> None:
        """Raise what only a new process can mend.

        Raises
        ------
        SupervisorDied
            Nobody would start a strategy again.
        """
        for each in tuple(self._supervisors.values()):
            each.check()

    @property
    def goes_on(self) -> bool:
        """Whether any strategy trades, or will, or one is still to be claimed."""
        begun = tuple(self._supervisors)
        return not begun or any(self._goes_on(name, begun) for name in begun)

    def conclude(self) -> None:
        """Sum up.

        Raises
        ------
        ApplicationFailed
            A strategy ended by failing.
        """
        for name, outcome in self._outcomes.items():
            if outcome.summary is not None:
                self._display.of(name).summary(outcome.summary)
        failed = [
            f"{name}: {each.failure}" for name, each in self._outcomes.items() if each.failure
        ]
        if failed:
            raise ApplicationFailed("; ".join(failed))

    def keep(self, name: str, lease: Any = None) -> None:
        """Keep a strategy going from now on, by a lease that is held already or is waited for."""
        journal, trade = self._journals[name], partial(self._trade, name)
        self._supervisors[name] = Supervisor(journal, trade, Backoff(), lease)

    def _claim_one(self) -> None:
        """Wait until a strategy is free, and trade that, with those that share its learner."""
        units = claimed_together(self._strategies)
        # Those that share a learner have a lease of their own, for one of them may end before the
        # others, whose replica would make another learner.
        of_all = shared_learner_checkpoints(self._common)
        taken = {
            name: [*([of_all] if len(unit) > 1 else []), self._journals[name]]
            for name, unit in units.items()
        }
        claimed = wait_for_any(taken, self._stop, self._wait_for)
        if claimed is not None:
            name, (*self._unit_leases, lease) = claimed
            self._waiting = ""
            first, *others = units[name]
            said = f"claimed the strategy {first}"
            if others:
                said += f", and with it {', '.join(others)}, which share its learner"
            self._display.common.note(said)
            self._learn_together(units[name])
            self.keep(name, lease)
            for other in others:
                self.keep(other)

    def _learn_together(self, names: Sequence[str]) -> None:
        """Start the learner of those among them that share it: they wait for its champion."""
        if any(self._strategies[name].learner == "shared" for name in names):
            self._learner = ClusterLearner(self._common, self._strategies)

    def _wait_for(self, _: int) -> None:
        taken = len(self._strategies)
        self._waiting = f"no strategy is free: {taken} of {taken} taken"
        self._display.common.phase(self._waiting)

    def _trade(self, name: str, stop: threading.Event, traded: Callable[[], None]) -> None:
        """Run a strategy's process once; raises what it failed of."""
        settings, feed = self._strategies[name], self._feed
        until = stop
        if feed is not None and reads_the_vendor(settings):
            settings = feed.reading(settings)
            until = StoppedOrMoved(stop, feed)
        written = settings.paths.state_dir / _LOG if self._display.is_terminal else None
        learner = self._learner if settings.learner == "shared" else None
        shared = learner.address if learner is not None else None
        start = StrategyStart(settings, self._address, self._duration_s, written, shared)
        try:
            summary = run_strategy(start, self._display.of(name), until, traded)
            if feed is not None and until.is_set() and not stop.is_set():
                # Started again, it reads the feed where that is now.
                raise ApplicationFailed(str(feed_moved(feed)))
        except ApplicationFailed as error:
            self._outcomes[name] = _Outcome(None, str(error))
            self._display.of(name).note(f"failed: {error}")
            raise
        self._outcomes[name] = _Outcome(summary, "")

    def _goes_on(self, name: str, begun: tuple[str, ...]) -> bool:
        """Whether a strategy trades, or will again.

        A recording has one beginning: what failed in it ends with it. Otherwise one that fails is
        not waited for when the others have ended.
        """
        phase = self._supervisors[name].state.phase
        if phase == RESTARTING:
            others = [each for each in begun if each != name]
            ended = all(self._ended(each) for each in others) and bool(others)
            return self._strategies[name].data.source != "replay" and not ended
        return phase not in (STOPPED, FINISHED)

    def _ended(self, name: str) -> bool:
        return self._supervisors[name].state.phase in (STOPPED, FINISHED)

    def _post(self) -> None:
        """Tell the HTTP service and the display where each stands."""
        states = {name: self._state(name) for name in self._strategies}
        ours = tuple(name for name in self._strategies if name in self._supervisors)
        self._fleet_states.post.remote(FleetState(states, ours, self._waiting))
        self._display.stand(states, self._waiting)

    def _state(self, name: str) -> SupervisorState:
        supervisor = self._supervisors.get(name)
        if supervisor is not None:
            return supervisor.state
        reason = self._elsewhere(name) if self._claim else "it is starting"
        return SupervisorState(STANDBY, reason, leased=False, failures=0)

    def _elsewhere(self, name: str) -> str:
        from trading.execution.lease import holder_of

        holder = holder_of(self._journals[name])
        return f"traded by {holder}" if holder is not None else "nobody trades it"
