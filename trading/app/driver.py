"""The parts of the application that trade and learn, on a Ray that runs: from start to clean end.

One code path for whoever drives them: `trading up` (`trading.app.up`), and the supervisor of the
Serve application (`trading.serving.supervisor`). The driver places the parts on the cluster, keeps
the learner going on a thread of its own, and takes everything down in order.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from trading.app import ray_threads
from trading.app.display import Display
from trading.app.restarts import Restarts
from trading.app.shared_address import APART
from trading.app.waiting import Begun, Heartbeat, StopRequested, arrived, unless_ending
from trading.config import Settings
from trading.config.settings import CredentialSettings
from trading.errors import AuthenticationFailed, ConfigError, TradingError
from trading.execution.journal import Journal
from trading.execution.journal.schema import has_tables
from trading.execution.portfolio import Account
from trading.learning.precedence import LEARNING, give_way
from trading.live import assembly
from trading.live.faults import FaultNotes, describe_fault
from trading.logs import get_logger

# Settings become parts before Ray and torch are imported, see `up.ray_runtime`.
if TYPE_CHECKING:
    from trading.app.handles import (
        LiveMarketHandle,
        MarketServerHandle,
        PingedActor,
        ResultReference,
    )
    from trading.app.held_out import HeldOutSessions
    from trading.app.learning_loop import LearningLoop
    from trading.app.shared_address import SharedLearnerAddress
    from trading.app.shared_learning import SharedLearning
    from trading.learning.champion.manager import ChampionManager
    from trading.learning.champion.store import ChampionStore
    from trading.learning.online import OnlineLearner
    from trading.live.actor import Progress
    from trading.live.endpoint import Endpoint

Result = TypeVar("Result")

log = get_logger(__name__)

NAMESPACE = "trading"
"""What the name of every account on a Ray cluster begins with."""
CALL_TIMEOUT_S = 30.0
_START_TIMEOUT_S = 1200.0
"""For what may have to compile its kernels first, beside others that do, on a slow machine."""
_POLL_S = 0.5
_LEARNING_HANGS = 1.5
"""Times `learning.answer_timeout_s`: a learner on an actor is replaced meanwhile."""
LIVE_SHARE = 0.1
SMALL_SHARE = 0.001
"""Shares of the live market's custom resource, so that it fits on its one node with those that it
lives by (market server, HTTP replicas, the driver), and other accounts beside."""


class ApplicationFailed(TradingError):
    """A part of the application ended for good; the message says which and why."""


class Summary(NamedTuple):
    """What a run did; money in USD."""

    events: int
    decisions: int
    fills: int
    fees: float
    equity: float
    learner_updates: int
    promotions: int
    refusals: int
    rollbacks: int
    checkpoint: Path | None
    wall_s: float


def run_application(
    settings: Settings,
    display: Display,
    stop: threading.Event,
    duration_s: float | None = None,
    serve: Callable[[ExitStack, Callable[[], bool]], None] | None = None,
    traded: Callable[[], None] | None = None,
    shared: SharedLearnerAddress | None = None,
) -> Summary:
    """Trade and learn until told to stop, the recording ends, or time is up.

    The caller holds the account's lease, before and after.

    Parameters
    ----------
    settings
        The whole tree; paths are absolute.
    display
        Where progress is shown.
    stop
        Ends it in order, whatever part of it is still starting.
    duration_s
        Seconds of trading, counted from the start of trading; None is no limit.
    serve
        Called on a thread of its own while the parts start; told by its second argument when nobody
        waits for it any more. What it adds to the stack ends before the live market does.
    traded
        Called when every feed is live.
    shared
        The learner of several strategies, where this is one that shares it.

    Raises
    ------
    ConfigError
        `learner` is shared, and there is none to share.
    TradingError
        A part cannot start or ended for good.
    """
    if settings.learner == "shared" and shared is None:
        raise ConfigError([APART])
    started = time.monotonic()
    with ExitStack() as stack:
        application = _Application(settings, display, stop, stack, shared)
        with suppress(StopRequested):
            with unless_ending("its parts", stop.is_set):
                application.start(serve)
            if traded is not None:
                traded()
            application.run(duration_s)
        return application.finish(started)


def without_secrets(settings: Settings) -> Settings:
    """Return the same settings, to be kept where others may read them."""
    return settings.model_copy(update={"credentials": CredentialSettings()})


def account_name(settings: Settings) -> str:
    """Name all that belongs to one account, on its Ray cluster.

    It is the Ray namespace of the account's actors and the name of its Serve application: accounts
    of one cluster never meet. Two journals are two accounts, whatever they are called.
    """
    journal = assembly.journal_path(settings).resolve()
    digest = hashlib.sha256(str(journal).encode()).hexdigest()[:8]
    return f"{NAMESPACE}-{settings.account.id}-{digest}"


def share_of_node(settings: Settings, share: float) -> dict[str, float]:
    """So much of the live market's custom resource, nothing where there is none."""
    resource = settings.ray.live_market_resource
    return {resource: share} if resource else {}


class _Application:
    """The running parts, in the order in which they start; the stack takes them down."""

    def __init__(
        self,
        settings: Settings,
        display: Display,
        stop: threading.Event,
        stack: ExitStack,
        shared: SharedLearnerAddress | None,
    ) -> None:
        self._settings = settings
        self._display = display
        self._stop = stop
        self._stack = stack
        self._shared = shared
        self._server: MarketServerHandle | None = None
        self._endpoint: Endpoint | None = None
        self._key = ""
        self._live: LiveMarketHandle | None = None
        self._unlocked = False
        self._champion_manager: ChampionManager | None = None
        self._held_out: HeldOutSessions | None = None
        self._learner: OnlineLearner | SharedLearning | None = None
        self._checkpoint: Path | None = None
        self._learner_thread: threading.Thread | None = None
        self._stop_learning = threading.Event()
        self._learner_failure: Exception | None = None
        self._served: ResultReference[None] | None = None
        self._before = Account()
        self._plugins: dict[str, str] = {}
        self._last: Progress | None = None
        self._faults = FaultNotes(assembly.journal_path(settings))
        self._server_restarts = Restarts()
        self._heard_s: float | None = None
        """When the live market's process answered last; None before this one ever did."""
        self._halted = ""
        self._server_heartbeat = Heartbeat()
        self._loop: LearningLoop | None = None
        self._learning_hangs = ""

    def start(self, serve: Callable[[ExitStack, Callable[[], bool]], None] | None) -> None:
        """Bring up market server, algorithm, live market, and what `serve` adds.

        Processes import while others do: those of the market server, of `serve` and of the live
        market begin first, and nobody waits for the last two before the algorithm is there.

        Raises
        ------
        StopRequested
            Before all of it was there.
        """
        from trading.live.changed_settings import changed_settings

        settings, display = self._settings, self._display
        assembly.check_before_trading(settings)
        self._plugins = assembly.chosen_plugins(settings)
        settings.paths.state_dir.mkdir(parents=True, exist_ok=True)
        self._faults.begin()
        self._before = _folded(settings, display, read_only=False)
        for line in changed_settings(settings, self._before):
            display.note(line)
        if self._stop.is_set():
            raise StopRequested("its parts")
        listening = None
        if settings.data.source == "massive":
            endpoint = _massive_endpoint(settings)
        else:
            display.phase("starting the market server")
            self._stack.callback(self._stop_market_server)
            listening = self._start_market_server(None)
        served = None if serve is None else self._begin_serving(serve)
        if listening is not None:
            endpoint = self._endpoint = _get(listening, "the market server", self._stop)
        self._begin_live_market(endpoint)
        if settings.policy.trader is not None:
            self._introduce_trader(settings.policy.trader)
        elif self._shared is not None:
            self._join_learner(self._shared)
        else:
            self._start_learner()
        self._start_live_market()
        if served is not None:
            display.phase("starting the HTTP service")
            self._stack.push(served.result(self._stop.is_set))
        self._await_trading()

    def run(self, duration_s: float | None) -> None:
        """Show progress until told to stop, time is up, or the stream has ended."""
        deadline = None if duration_s is None else time.monotonic() + duration_s
        with self._display.running():
            while not self._stop.wait(_POLL_S):
                self._check_parts()
                progress = self._progress()
                if progress is None:
                    continue
                report = self._learner.report if self._learner else None
                self._display.progress(progress, report)
                self._tell_halt(progress)
                if progress.phase == "failed":
                    raise _failure(progress)
                if progress.phase == "finished":
                    return
                if deadline is not None and time.monotonic() >= deadline:
                    return

    def finish(self, started: float) -> Summary:
        """Stop trading and learning, write the last checkpoint, and sum up."""
        self._stop_learning.set()
        self._display.phase("stopping")
        progress = self._stop_live_market()
        self._end_learning()
        checkpoint = self._learner.save() if self._learner else self._checkpoint
        account = _folded(self._settings, self._display, read_only=True)
        before = self._before
        return Summary(
            events=progress.events if progress else 0,
            decisions=account.decisions - before.decisions,
            fills=account.fills - before.fills,
            fees=account.fees_paid - before.fees_paid,
            equity=progress.equity if progress else float("nan"),
            learner_updates=self._learner.report.live_updates if self._learner else 0,
            promotions=account.promotions - before.promotions,
            refusals=account.refusals - before.refusals,
            rollbacks=account.rollbacks - before.rollbacks,
            checkpoint=checkpoint,
            wall_s=time.monotonic() - started,
        )

    def _begin_serving(
        self, serve: Callable[[ExitStack, Callable[[], bool]], None]
    ) -> Begun[ExitStack]:
        """Begin what `serve` does; it is taken back where the application ends before it is there.

        Returns what will give the stack of what it added.
        """
        from trading.serving import service

        # On this thread: no two are to import at the same time.
        service.load()
        ended = threading.Event()

        def called() -> ExitStack:
            with ExitStack() as parts:
                serve(parts, lambda: ended.is_set() or self._stop.is_set())
                return parts.pop_all()

        begun = Begun(called, "the HTTP service", ExitStack.close)

        def end() -> None:
            ended.set()
            begun.take_back(CALL_TIMEOUT_S)

        self._stack.callback(end)
        return begun

    def _introduce_trader(self, name: str) -> None:
        """Let a rule-based trader trade: no algorithm, no champion, and nothing is learned.

        Raises
        ------
        ConfigError
            The account is the learned policy's.
        """
        from trading.live.rule_based import check_account

        check_account(self._before, name)
        plugin = assembly.rule_based(self._settings, self._settings.seed).plugin
        self._display.note(f"{plugin} trades; nothing is learned (policy.trader)")

    def _start_learner(self) -> None:
        from trading.app.algorithm import learnt_algorithm, online_rules
        from trading.app.held_out import HeldOutSessions
        from trading.learning.champion.manager import ChampionManager
        from trading.learning.champion.store import AccountChampion
        from trading.learning.online import OnlineLearner

        settings, account = self._settings, self._before
        learnt = learnt_algorithm(settings, self._display, self._stack, self._stop.is_set)
        algorithm, self._checkpoint = learnt.algorithm, learnt.checkpoint
        manager = ChampionManager(self._champions())
        manager.begin(
            algorithm.save_to_path,
            algorithm.weights_version,
            learnt.origin,
            AccountChampion.of(account),
        )
        self._introduce_champion(manager)
        if settings.learns:
            self._held_out = HeldOutSessions(settings)
            self._learner = OnlineLearner(
                algorithm,
                learnt.store,
                manager,
                self._held_out.gate,
                online_rules(settings),
                account.refusals_in_a_row,
                self._stop_learning.wait,
            )

    def _join_learner(self, address: SharedLearnerAddress) -> None:
        """Learn by what several strategies share; begin with its champion, or with one's own.

        Raises
        ------
        LearningError
            There is neither.
        StopRequested
            Before there was one.
        """
        from trading.app.shared_learning import SharedLearning
        from trading.learning.champion.manager import ChampionManager
        from trading.learning.champion.store import AccountChampion

        settings, account = self._settings, AccountChampion.of(self._before)
        manager = ChampionManager(self._champions())
        learner = SharedLearning(
            address,
            settings.strategy or settings.account.id,
            manager,
            # The rest of what the live market waits is for the news around it.
            min(settings.learning.answer_timeout_s, assembly.LOCKSTEP_TIMEOUT_S / 2),
        )
        if not learner.begin(account, self._stop.is_set, self._display.phase):
            raise StopRequested("the shared learner")
        self._introduce_champion(manager)
        self._learner = learner

    def _champions(self) -> ChampionStore:
        from trading.learning.champion.card import LEARNT_FROM, describe_experience
        from trading.learning.noted_settings import NOTED, noted_settings

        settings = self._settings
        noted = {
            NOTED: noted_settings(settings),
            LEARNT_FROM: describe_experience(settings),
            **assembly.champion_notes(settings),
        }
        return assembly.champion_store(settings, noted)

    def _introduce_champion(self, manager: ChampionManager) -> None:
        """Say who trades."""
        self._champion_manager = manager
        champion = manager.champion
        self._display.note(f"champion: {champion.number} (version {champion.version})")

    def _begin_live_market(self, endpoint: Endpoint) -> None:
        """Have the live market's process begin; it trades once it is unlocked."""
        import ray

        from trading.live.actor import ACTOR_NAME, LiveMarket
        from trading.live.remote_class import remote_class

        self._key = endpoint.api_key
        # Its arguments would be in the cluster's store, in clear: see `_unlock`.
        settings, endpoint = without_secrets(self._settings), replace(endpoint, api_key="")
        self._live = (
            ray.remote(remote_class(LiveMarket))
            .options(
                name=ACTOR_NAME,
                namespace=account_name(self._settings),
                max_restarts=-1,
                max_concurrency=16,
                **self._actor_options(LIVE_SHARE),
            )
            .remote(settings, endpoint, self._plugins)
        )
        self._stack.callback(_kill, self._live)

    def _start_live_market(self) -> None:
        """Let the live market trade, and learn from what it lives through."""
        assert self._live is not None
        self._display.phase("starting the live market")
        self._unlock()
        # Before what it learns by ends.
        self._stack.callback(_kill, self._live)
        if self._champion_manager is not None:
            learn = partial(self._learn_until_stopped, self._live, self._champion_manager)
            self._learner_thread = ray_threads.begin(learn, "online-learner")
        self._stack.callback(self._end_learning)

    def _unlock(self) -> None:
        """Hand the live market its secrets, from process to process."""
        assert self._live is not None
        self._unlocked = True
        self._live.unlock.remote(self._settings.credentials, self._key)

    def _await_trading(self) -> None:
        """Wait until every feed is live, then start the exchange clock of our own server."""
        self._display.phase("connecting the feeds")
        shown = ""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._stop.wait(0.1):
            progress = self._progress()
            if progress is not None and progress.phase == "failed":
                raise _failure(progress)
            if progress is not None and progress.connected:
                break
            if time.monotonic() > deadline:
                phase = progress.phase if progress is not None else "not answering"
                raise ApplicationFailed(
                    f"the feeds did not connect within {_START_TIMEOUT_S:g} s, the live market is "
                    f"{phase}: its log says on what it waits"
                )
            if progress is not None and progress.phase != shown:
                shown = progress.phase
                self._display.phase(f"the live market is {shown}")
        self._begin_market_server()

    def _check_parts(self) -> None:
        """Raise what ended the learner's thread or the market server."""
        import ray

        if self._learner_failure is not None:
            raise ApplicationFailed(
                f"the learner failed: {self._learner_failure!r}; trading can go on without it "
                "with learning.online=false"
            ) from self._learner_failure
        if self._served is not None and ray.wait([self._served], timeout=0)[0]:
            try:
                ray.get(self._served)
                self._served = None
            except ray.exceptions.RayActorError as error:
                self._revive_market_server(error)
            except ray.exceptions.RayError as error:
                raise ApplicationFailed(f"the market server failed: {_cause(error)}") from error
        self._mind_hangs()

    def _mind_hangs(self) -> None:
        """End a market server that hangs, and tell of a learner that does.

        The market server's death is seen at the next look.
        """
        import ray

        now_s, hang_s = time.monotonic(), self._settings.safety.hang_s
        server = self._server if self._served is not None else None
        if server is not None and self._server_heartbeat.is_lost(server, now_s, hang_s):
            log.error("the market server hangs and is ended")
            ray.kill(server)
        self._mind_learning()

    def _mind_learning(self) -> None:
        """Tell once where the learner's thread is at one fragment for longer than it may take.

        A learner on an actor is replaced before that; what runs in this process cannot be, and
        trading goes on without it.
        """
        if self._loop is None:
            return
        most_s = _LEARNING_HANGS * self._settings.learning.answer_timeout_s
        reason = ""
        if self._loop.busy_s > most_s:
            reason = (
                f"the learner has been at one fragment for more than {most_s:.0f} s: trading goes "
                "on with its champion; start the application again, or set learning.num_learners=1 "
                "for a learner that is replaced where it hangs"
            )
        if bool(reason) == bool(self._learning_hangs):
            return
        self._learning_hangs = reason
        if reason:
            log.error("the learner hangs", reason=reason)
            self._display.note(reason)
        assert self._live is not None
        self._live.learner_fault.remote(reason)

    def _tell_halt(self, progress: Progress) -> None:
        """Say once that trading halts for want of a disk, and that it goes on."""
        halted = progress.failure if progress.phase == "halted" else ""
        if halted and not self._halted:
            self._display.note(f"HALTED until there is room: {halted}")
        elif self._halted and not halted:
            self._display.note("the journal's disk has room again: trading goes on")
        self._halted = halted

    def _start_market_server(self, former: Endpoint | None) -> ResultReference[Endpoint]:
        """Start it, where it was before if there is a former endpoint; gives the endpoint."""
        import ray

        from trading.live.market_server import MarketServerHost

        server: MarketServerHandle = (
            ray.remote(MarketServerHost)
            .options(**self._actor_options(SMALL_SHARE))
            .remote(without_secrets(self._settings), assembly.journal_path(self._settings))
        )
        self._server = server
        return server.start.remote(former)

    def _begin_market_server(self) -> None:
        """Start the clock of our own server, where there is one, and hear of its end."""
        if self._server is not None:
            self._served = self._server.wait_finished.remote()
            _get(self._server.begin.remote(), "the market server", self._stop)

    def _revive_market_server(self, error: Exception) -> None:
        """Start a simulated exchange again where it was: it goes on where the journal ends.

        Raises
        ------
        ApplicationFailed
            It has died again and again without a bar in between, or streams a recording, which has
            only one beginning.
        """
        decisions = self._last.decisions if self._last is not None else 0
        if self._settings.data.source != "simulation" or self._server_restarts.is_spent(decisions):
            raise ApplicationFailed(
                f"the market server died ({_cause(error)}): start again, which goes on from the "
                "journal"
            ) from error
        log.warning("the market server died and is started again", reason=_cause(error))
        self._display.note("the market server died and is started again")
        _get(self._start_market_server(self._endpoint), "the market server", self._stop)
        self._begin_market_server()

    def _learn_until_stopped(self, live: LiveMarketHandle, manager: ChampionManager) -> None:
        from trading.app.learning_loop import LearningLoop

        give_way(LEARNING)
        try:
            self._loop = LearningLoop(
                live,
                manager,
                self._learner,
                self._held_out,
                self._settings.lockstep,
                self._stop_learning,
            )
            self._loop.run()
        except Exception as error:
            log.exception("the learner failed")
            self._learner_failure = error

    def _end_learning(self) -> None:
        """End the learner's thread, also after a failure: it must not outlive what it talks to."""
        self._stop_learning.set()
        if self._learner_thread is not None:
            self._learner_thread.join(CALL_TIMEOUT_S)

    def _progress(self) -> Progress | None:
        """Return the live market's figures, None while it restarts.

        Raises
        ------
        ApplicationFailed
            It will not come back, or not for long.
        """
        import ray

        try:
            assert self._live is not None
            asked = self._live.progress.remote()
            arrived(asked, "the live market", self._stop.is_set, CALL_TIMEOUT_S)
            progress: Progress = ray.get(asked, timeout=0)
        except ray.exceptions.ActorDiedError as error:
            raise ApplicationFailed(f"the live market ended: {_cause(error)}") from error
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            self._mind_silence(dead=isinstance(error, ray.exceptions.RayActorError))
            reason = self._faults.why_no_restart()
            if reason is not None:
                raise ApplicationFailed(
                    f"the live market died {reason}; the account is as its journal says. A fault "
                    "of the application: please report it with its log"
                ) from None
            return None
        self._last, self._heard_s = progress, time.monotonic()
        if progress.locked:
            self._unlock()
        return progress

    def _mind_silence(self, *, dead: bool) -> None:
        """End a live market whose process answered once and is silent since too long.

        Ray starts it again. One that has just started may take its time.
        """
        import ray

        if dead:
            self._heard_s = None
        if self._heard_s is None:
            return
        silent_s = time.monotonic() - self._heard_s
        if silent_s > self._settings.safety.hang_s:
            log.error("the live market hangs and is started again", silent_s=silent_s)
            self._display.note(
                f"the live market has not answered for {silent_s:.0f} s and is started again"
            )
            self._heard_s = None
            ray.kill(self._live, no_restart=False)

    def _stop_live_market(self) -> Progress | None:
        import ray

        if self._live is None or not self._unlocked:
            return None  # It has nothing to end, and its process may not even have begun.
        try:
            self._last = ray.get(self._live.stop.remote(), timeout=CALL_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            log.warning("the live market did not stop in order", reason=_cause(error))
            _kill(self._live)
        return self._last

    def _stop_market_server(self) -> None:
        import ray

        if self._server is None:
            return
        if self._served is not None:
            try:
                ray.get(self._server.stop.remote(), timeout=CALL_TIMEOUT_S)
            except ray.exceptions.RayError as error:
                log.warning("the market server did not stop in order", reason=_cause(error))
        _kill(self._server)

    def _actor_options(self, share: float) -> dict[str, Any]:
        return actor_place(self._settings, share)


def actor_place(settings: Settings, share: float) -> dict[str, Any]:
    """Options that place an actor on the live market's node.

    That is the driver's own where it has the resource, of however many that have: an account's
    files are on one node. Where the driver is elsewhere the resource alone says which.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    resources = share_of_node(settings, share)
    nodes = {each["NodeID"]: each["Resources"] for each in ray.nodes()}
    has: dict[str, float] = nodes.get(here, {})
    options: dict[str, Any] = {"num_cpus": 0, "resources": resources}
    if all(has.get(name) for name in resources):
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return options


def _folded(settings: Settings, display: Display, *, read_only: bool) -> Account:
    """Return the account that the journal describes, a new one without a journal.

    Read only, also where its writer has ended before there was a table in it.

    Opened for writing, a damaged journal is made whole first; what was cut is told.
    """
    path = assembly.journal_path(settings)
    if not path.exists() or (read_only and not has_tables(path)):
        return Account()
    with Journal(path, read_only=read_only) as journal:
        if journal.repair is not None:
            display.note(str(journal.repair))
        return journal.fold()


def _massive_endpoint(settings: Settings) -> Endpoint:
    from trading.live.endpoint import Endpoint

    key = settings.credentials.massive_api_key
    if key is None:
        raise AuthenticationFailed(
            "data.source is massive but MASSIVE_API_KEY is not set: export it, or use "
            "data.source=simulation"
        )
    massive = settings.data.massive
    return Endpoint(massive.stream_address, massive.rest_address, key.get_secret_value())


def _failure(progress: Progress) -> TradingError:
    kind = AuthenticationFailed if progress.failure_kind == "AuthenticationFailed" else None
    return (kind or ApplicationFailed)(progress.failure)


def _get(reference: ResultReference[Result], what: str, stop: threading.Event) -> Result:
    """Return the result of a remote call, with its own error or one that names the part.

    Raises
    ------
    StopRequested
        `stop` was set before it was there.
    """
    import ray

    if not arrived(reference, what, stop.is_set, _START_TIMEOUT_S):
        raise ApplicationFailed(f"{what} gave no answer within {_START_TIMEOUT_S:g} s")
    try:
        answer: Result = ray.get(reference)
        return answer
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TradingError):
            raise error.cause from None
        raise ApplicationFailed(f"{what} failed: {_cause(error)}") from error
    except ray.exceptions.RayError as error:
        raise ApplicationFailed(f"{what} failed: {_cause(error)}") from error


def _cause(error: Any) -> str:
    """Return what a remote call failed of, in one line.

    A remote error's text is a whole traceback.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return describe_fault(cause)
    return " ".join(str(error).split())[:500]


def _kill(actor: PingedActor) -> None:
    """End an actor; one that Ray cannot end is told of, and keeps nothing else from its end."""
    import ray

    try:
        ray.kill(actor, no_restart=True)
    except ray.exceptions.RayError as error:
        log.warning("an actor was not ended", actor=str(actor), reason=_cause(error))
