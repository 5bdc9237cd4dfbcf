"""One learner for several strategies: an actor that trains one policy by the fragments of all.

It has a challenger, a gate and champions of its own, as the learner of a single account has. What
passes the gate is offered to every strategy that shares it, and each account's journal tells what
became of that. None of them waits for another one, and all trade on without it.
"""

import queue
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from trading.app.algorithm import learnt_algorithm, online_rules
from trading.app.display import Display
from trading.app.driver import CALL_TIMEOUT_S
from trading.app.held_out import HeldOutSessions
from trading.app.holders import FORGOTTEN_S, Holders
from trading.app.shared_address import learner_terms, terms_digest
from trading.config import Settings
from trading.errors import ConfigError, DataError
from trading.execution.events import ChallengerRejected
from trading.files import replacing
from trading.learning.champion.card import LEARNT_FROM, describe_training_markets
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import (
    AccountChampion,
    Champion,
    ChampionStore,
    Promotion,
)
from trading.learning.noted_settings import NOTED, noted_settings
from trading.learning.online import LearnerReport, OnlineLearner
from trading.learning.precedence import LEARNING, give_way
from trading.learning.rollout import Rollout
from trading.live import assembly
from trading.logs import configure_logging, get_logger

log = get_logger(__name__)

_PAUSE_S = 10.0
"""Between two tries to begin, as where another application has the folder."""
_REJECTIONS_KEPT = 256
"""For strategies that have not heard of them; of those before, nobody hears any more."""
_OTHER_SETTINGS = (
    "the shared learner goes by other settings than this strategy: set them alike, or end all "
    "applications that learn by it, with the last of which it ends"
)
_IDENTITY = "identity"
"""File in the folder of checkpoints: another folder counts its champions anew."""


class SharedChampion(NamedTuple):
    """Whom the gate let pass last."""

    champion: Champion
    why: Promotion
    folder: str
    """Identity of the learner's folder, within which its champions are numbered."""


class Heard(NamedTuple):
    """What a strategy has heard of the learner until now."""

    champion: int = 0
    folder: str = ""
    """In which the champion has that number; empty: not known."""
    life: str = ""
    """Of the learner's process, which counts its rejections; empty: what is before is no news."""
    rejections: int = 0
    takes_champion: bool = True
    """Whether the strategy could take up a champion now: if not, it is sent none."""
    terms: str = ""
    """Digest of what it expects the learner to go by: where that differs, nothing is learned."""


class News(NamedTuple):
    """What the learner has for a strategy."""

    life: str
    fault: str
    """Why nothing is learned at present; empty: it is."""
    report: LearnerReport
    champion: SharedChampion | None
    """None where the strategy has heard of it, or cannot take it up now."""
    rejections: tuple[ChallengerRejected, ...]
    """Those that it has not heard of, at most the last 256."""
    rejected: int
    """In this life."""
    fragments: Mapping[str, int]
    """Live fragments learned from in this life, by strategy."""
    rollbacks: Mapping[str, int]
    """Champions that accounts went back from in this life, by strategy."""
    is_final: bool
    """Whether the fault is one of the settings, which no other try mends."""


class Rejections:
    """The last ones of a learner's life, and how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: deque[ChallengerRejected] = deque(maxlen=_REJECTIONS_KEPT)

    def add(self, event: ChallengerRejected) -> None:
        """Count one more."""
        self._kept.append(event)
        self.count += 1

    def since(self, count: int) -> tuple[ChallengerRejected, ...]:
        """Return those after the first `count`, of which the oldest may be forgotten."""
        kept = tuple(self._kept)
        return kept[max(0, len(kept) - (self.count - count)) :]


class _Fragment(NamedTuple):
    strategy: str
    rollout: Rollout
    until_s: float
    """When nobody waits for it any more, by the monotonic clock."""
    done: "Future[None]"


def shared_champions(settings: Settings) -> ChampionStore:
    """Return the champions of a shared learner, which note what they are learnt with."""
    noted = {
        NOTED: noted_settings(settings),
        LEARNT_FROM: describe_training_markets(settings),
        **assembly.champion_notes(settings),
    }
    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    return ChampionStore(folder, keep, noted=noted)


class SharedLearner:
    """Learns on a thread of its own until it is closed; begins again when it fails.

    Parameters
    ----------
    settings
        As of `shared_settings`, without secrets.
    forgotten_s
        After so many seconds without word of any application that holds it, it ends.
    """

    def __init__(self, settings: Settings, forgotten_s: float = FORGOTTEN_S) -> None:
        configure_logging(settings.log_level)
        self._settings = settings
        self._life = secrets.token_hex(4)
        self._fragments: queue.Queue[_Fragment | None] = queue.Queue()
        self._fault, self._is_final = "it is starting", False
        self._learner: OnlineLearner | None = None
        self._report = LearnerReport()
        self._champion: SharedChampion | None = None
        self._identity = ""
        self._rejections = Rejections()
        self._learned: Counter[str] = Counter()
        self._rollbacks: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._terms = learner_terms(settings)
        self._digest = terms_digest(self._terms)
        self._holders = Holders(self._end, forgotten_s)
        self._thread = threading.Thread(target=self._run, name="shared-learner", daemon=True)
        self._thread.start()

    def hold(self, application: str, terms: dict[str, Any]) -> bool:
        """Note that an application learns by it.

        Parameters
        ----------
        application
            A name of its own.
        terms
            What it expects the learner to go by, see `learner_terms`.

        Returns
        -------
        bool
            Whether it does: not where the learner is about to end.

        Raises
        ------
        ConfigError
            The learner goes by other settings.
        """
        lines = [
            f"{key} = {value!r}: must be {self._terms.get(key)!r}, by which the shared learner "
            "goes that runs on this cluster: set it so, or end all applications that learn by it, "
            f"with the last of which it ends ({FORGOTTEN_S:g} s later where that was killed)"
            for key, value in terms.items()
            if self._terms.get(key) != value
        ]
        if lines:
            raise ConfigError(lines)
        return self._holders.hear(application)

    def let_go(self, application: str) -> bool:
        """Note that an application learns by it no more; whether that was the last one."""
        return self._holders.let_go(application)

    def learn(self, strategy: str, rollout: Rollout, heard: Heard, timeout_s: float) -> News:
        """Learn from a live fragment of a strategy, after those that came before; then the news.

        While the learner cannot learn, or does not come to it in time, the fragment is left out.
        """
        until_s = time.monotonic() + timeout_s
        with self._lock:
            if not heard.life:
                heard = heard._replace(life=self._life, rejections=self._rejections.count)
            fragment = _Fragment(strategy, rollout, until_s, Future())
            learns = self._learner is not None and heard.terms == self._digest
            if learns:
                self._fragments.put(fragment)
        if learns:
            try:
                fragment.done.result(timeout_s)
            except TimeoutError:
                fault = f"the shared learner is not done with a fragment after {timeout_s:g} s"
                return self.news(heard)._replace(fault=fault)
        return self.news(heard)

    def news(self, heard: Heard) -> News:
        """Tell what a strategy has not heard yet."""
        with self._lock:
            learner, champion = self._learner, self._champion
            rejected = self._rejections.count
            known = {"": rejected, self._life: heard.rejections}.get(heard.life, 0)
            rejections = self._rejections.since(known)
        fits = heard.terms == self._digest
        return News(
            self._life,
            self._fault if fits else _OTHER_SETTINGS,
            learner.report if learner is not None else self._report,
            champion if fits and champion is not None and _is_news(heard, champion) else None,
            rejections,
            rejected,
            dict(self._learned),
            dict(self._rollbacks),
            self._is_final or not fits,
        )

    def rolled_back(self, strategy: str, champion: int, discarded: int) -> None:
        """Hear that a strategy's account went back; the others and the learner go on."""
        self._rollbacks[strategy] += 1
        log.warning(
            "an account went back to an earlier champion; those that share its learner go on",
            strategy=strategy,
            champion=champion,
            discarded=discarded,
        )

    def ping(self) -> None:
        """Answer, while the process is not stuck."""

    def close(self) -> None:
        """End in order, with a last checkpoint."""
        self._tell_to_stop()
        self._thread.join()

    def _tell_to_stop(self) -> None:
        self._stop.set()
        self._fragments.put(None)

    def _end(self) -> None:
        """End for good: those who held it have died."""
        import ray

        log.info("nobody learns by the shared learner any more")
        # What hangs does not keep it.
        self._tell_to_stop()
        self._thread.join(CALL_TIMEOUT_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def _run(self) -> None:
        give_way(LEARNING)
        while not self._stop.is_set():
            try:
                with ExitStack() as stack:
                    learner, held_out, manager = self._begin(stack)
                    self._learn_until_stopped(learner, held_out, manager)
            except Exception as error:
                if self._stop.is_set():
                    return
                log.exception("the shared learner failed")
                self._fault = " ".join(str(error).split())[:500] or type(error).__name__
                self._is_final = isinstance(error, ConfigError)
            finally:
                self._leave_out_the_rest()
            self._stop.wait(_PAUSE_S)

    def _begin(self, stack: ExitStack) -> tuple[OnlineLearner, HeldOutSessions, ChampionManager]:
        settings, display = self._settings, _Phases(self)
        learnt = learnt_algorithm(settings, display, stack, self._stop.is_set)
        champions = shared_champions(settings)
        manager = ChampionManager(champions)
        algorithm = learnt.algorithm
        manager.begin(
            algorithm.save_to_path, algorithm.weights_version, learnt.origin, AccountChampion()
        )
        held_out = HeldOutSessions(settings)
        rules = online_rules(settings)
        learner = OnlineLearner(
            algorithm, learnt.store, manager, held_out.gate, rules, wait=self._stop.wait
        )
        present = manager.champion
        why = Promotion.of(champions.metadata(present.number))
        self._identity = folder_identity(settings.paths.checkpoints)
        with self._lock:
            self._champion = SharedChampion(present, why, self._identity)
            self._learner, self._fault, self._is_final = learner, "", False
        log.info("the shared learner learns", champion=present.number, origin=learnt.origin)
        return learner, held_out, manager

    def _learn_until_stopped(
        self, learner: OnlineLearner, held_out: HeldOutSessions, manager: ChampionManager
    ) -> None:
        while not self._stop.is_set():
            fragment = self._fragments.get()
            if fragment is None:
                break
            try:
                if time.monotonic() < fragment.until_s:
                    self._take(fragment, learner, held_out, manager)
                else:
                    log.warning("a fragment came too late to be learned", of=fragment.strategy)
            finally:
                fragment.done.set_result(None)
        learner.save()

    def _take(
        self,
        fragment: _Fragment,
        learner: OnlineLearner,
        held_out: HeldOutSessions,
        manager: ChampionManager,
    ) -> None:
        try:
            held_out.renew()
        except DataError as error:
            log.error("recorded days cannot be held out", reason=str(error))
        before = learner.report.live_updates
        decision = learner.learn(fragment.rollout)
        self._learned[fragment.strategy] += learner.report.live_updates - before
        if decision is None:
            return
        if isinstance(decision, ChallengerRejected):
            with self._lock:
                self._rejections.add(decision)
        else:
            of = decision
            why = Promotion(of.version, of.by, of.reason, of.kl, of.compared)
            self._champion = SharedChampion(manager.champion, why, self._identity)
        manager.settle()

    def _leave_out_the_rest(self) -> None:
        with self._lock:
            if self._learner is not None:
                self._report, self._learner = self._learner.report, None
            while not self._fragments.empty():
                fragment = self._fragments.get()
                if fragment is not None:
                    fragment.done.set_result(None)

    def tell_phase(self, phase: str) -> None:
        """Note what the learner is at before it learns."""
        self._fault, self._is_final = phase, False
        log.info("the shared learner", at=phase)


class _Phases(Display):
    """Tells those who wait for the learner what it is at."""

    def __init__(self, learner: SharedLearner) -> None:
        super().__init__(Console(quiet=True))
        self._learner = learner

    def phase(self, text: str) -> None:
        self._learner.tell_phase(text)

    def note(self, text: str) -> None:
        log.info("the shared learner", note=text)


def _is_news(heard: Heard, champion: SharedChampion) -> bool:
    """Whether a strategy can use it; numbers of another folder do not say that it is known."""
    known = heard.folder in ("", champion.folder) and champion.champion.number <= heard.champion
    return heard.takes_champion and not known


def folder_identity(folder: Path) -> str:
    """Return what tells a learner's folder from one that began anew in its place."""
    path = folder / _IDENTITY
    if not path.exists():
        with replacing(path) as staged:
            staged.write_text(secrets.token_hex(8))
    return path.read_text().strip()
