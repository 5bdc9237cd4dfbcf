"""Learning while trading: live fragments in, decisions about the challenger out."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN, LEARNER_RESULTS

from trading.errors import LearnerLostError, LearningError
from trading.execution.events import ChallengerRejected, PromotedBy
from trading.learning.champion.gate import Gate, GateResult
from trading.learning.champion.manager import ChampionManager, PromotionDecision
from trading.learning.champion.store import AccountChampion, Promotion
from trading.learning.checkpoints import CheckpointStore, holds_algorithm
from trading.learning.ppo import CLSTMPPO, NUM_ENV_STEPS_MISSING_LIFETIME, CLSTMPPOLearner
from trading.learning.replay_mix import ReplayMix
from trading.learning.rollout import Rollout
from trading.logs import get_logger

log = get_logger(__name__)

_NAN = float("nan")
_REVIVALS = 5
_FIRST_BACKOFF_S = 1.0
_PAUSE_S = 10.0
"""Between two tries to write a checkpoint that could not be written."""


class OnlineRules(NamedTuple):
    """How the learner goes about it; see the settings of the same names."""

    save_frequency: int
    """Live decisions between two checkpoints."""
    replay_share: float
    updates: int
    """Updates between two judgements."""
    patience: int
    max_observation: float = math.inf
    max_reward: float = math.inf
    """No live decision sees or earns more, either way; a fragment that does is corrupt."""
    first_replay_s: float | None = None
    """Seconds that an update waits for runners until one has delivered once; None: as later on."""


@dataclass(frozen=True, slots=True)
class LearnerReport:
    """The learner after its last update; figures are NaN before the first."""

    updates: int = 0
    """Updates that led to the challenger's weights: its version."""
    live_updates: int = 0
    """Updates of this run on live experience."""
    live_samples: int = 0
    """Live decisions learned from in this run."""
    rehearsed_samples: int = 0
    """Decisions in training markets that were learned beside them."""
    refused: int = 0
    """Fragments that could not be learned from."""
    lost: int = 0
    """Fragments that a dying learner took with it."""
    restarts: int = 0
    """Times that a dead learner was brought back."""
    paused: str = ""
    """Why nothing is learned at present: what was learned could not be kept."""
    seconds: float = 0.0
    """Wall time of the last update."""
    judgements: int = 0
    """Judgements of this run."""
    judgement_seconds: float = _NAN
    """Wall time of the last judgement."""
    verdict: str = ""
    """What it found, for people."""
    kl_to_champion: float = _NAN
    missing_samples: int = 0
    """Decisions that environment runners should have delivered and did not."""
    rehearsal_return: float = _NAN
    """Mean return of the episodes that ended while training markets were sampled."""
    policy_loss: float = _NAN
    value_loss: float = _NAN
    entropy: float = _NAN
    kl: float = _NAN
    explained_variance: float = _NAN
    clip_fraction: float = _NAN
    grad_norm: float = _NAN


def check_possible(rollout: Rollout, rules: OnlineRules) -> None:
    """Refuse what no live market can have made.

    Raises
    ------
    LearningError
        It holds a number that is none, or one that is larger than any can be.
    """
    rollout.validate()
    for name, most in (("observations", rules.max_observation), ("rewards", rules.max_reward)):
        found = float(np.abs(getattr(rollout, name)[rollout.valid]).max())
        if found > most:
            raise LearningError(f"rollout.{name} reaches {found:g}; at most {most:g} is possible")


class OnlineLearner:
    """Improves the challenger by live fragments beside a replay mix, and asks the gate.

    A challenger that passes becomes the champion. One that does harm (no numbers, too far away,
    clearly worse) is given up: learning begins again from the champion. One that is only not
    proven goes on, `patience` times in a row.

    One thread learns; `report` may be read from any.

    Parameters
    ----------
    algorithm
        Built, and restored or pre-trained; it holds the challenger.
    store
        Where the challenger's checkpoints go.
    manager, gate, rules
        The champions, the judge, and how often he is asked.
    in_a_row
        Rejections since the champion last changed, as the account's journal has them.
    wait
        Sleeps so many seconds; returns True where learning is to end at once.
    """

    def __init__(
        self,
        algorithm: CLSTMPPO,
        store: CheckpointStore,
        manager: ChampionManager,
        gate: Gate,
        rules: OnlineRules,
        in_a_row: int = 0,
        wait: Callable[[float], bool] = lambda _: False,
    ) -> None:
        self.report = LearnerReport(updates=algorithm.weights_version)
        self._algorithm = algorithm
        self._store = store
        self._manager = manager
        self._gate = gate
        self._rules = rules
        self._replay_mix = ReplayMix(
            partial(algorithm.sample, rules.first_replay_s), rules.replay_share
        )
        self._in_a_row = in_a_row
        self._wait = wait
        self._unsaved = 0
        self._tried_s = 0.0
        """When a checkpoint could not be written last."""
        self._unjudged = 0
        self._ahead = self._steps_ahead(algorithm.weights_version)
        self._lock = threading.Lock()

    def learn(self, rollout: Rollout) -> PromotionDecision | None:
        """One update on a live fragment; what the gate decided, where it was asked.

        A fragment that cannot be learned from is counted and changes nothing; a learner that has
        died is brought back, or tried again with the next fragment.
        """
        with self._lock:
            decision: PromotionDecision | None = None
            try:
                if not self._may_learn() or not self._update(rollout):
                    return None
                self._unjudged += 1
                if self._unjudged >= self._rules.updates and self._manager.may_offer:
                    decision = self._judged()
                if isinstance(decision, ChallengerRejected) and decision.reset:
                    self._begin_again()
                if self._unsaved >= self._rules.save_frequency:
                    self._save()
            except LearnerLostError as error:
                # What was decided stands: its number is given.
                self._revive(error)
            return decision

    def _judged(self) -> PromotionDecision | None:
        """Ask the gate; None where it cannot decide, which stops neither learning nor saving."""
        try:
            return self._judge()
        except LearnerLostError:
            raise
        except LearningError as error:
            log.error("the gate cannot judge", reason=str(error))
            self.report = replace(self.report, verdict=str(error))
            return None

    def follow(self, account_champion: AccountChampion) -> bool:
        """Learn on from the champion that the account reports, where it is another one."""
        with self._lock:
            is_other = self._manager.follow(account_champion)
            if is_other:
                self._begin_again()
            return is_other

    def save(self) -> Path | None:
        """Write a checkpoint now; None where the learner is dead, and the newest one stays."""
        with self._lock:
            try:
                return self._save()
            except LearnerLostError as error:
                log.error("no last checkpoint", reason=str(error))
                return None

    def _update(self, rollout: Rollout) -> bool:
        """Whether the fragment was learned from."""
        started = time.perf_counter()
        try:
            check_possible(rollout, self._rules)
            try:
                results, replayed = self._learn_beside(rollout)
            except LearnerLostError as error:
                if not self._revive(error):
                    raise
                results, replayed = self._learn_beside(rollout)
        except LearnerLostError:
            self.report = replace(self.report, lost=self.report.lost + 1)
            return False
        except LearningError as error:
            log.error("fragment refused", reason=str(error))
            self.report = replace(self.report, refused=self.report.refused + 1)
            return False
        self.report = _with_results(self.report, results, time.perf_counter() - started)
        self.report = replace(
            self.report,
            updates=self._algorithm.weights_version,
            live_updates=self.report.live_updates + 1,
            live_samples=self.report.live_samples + rollout.steps,
            rehearsed_samples=self.report.rehearsed_samples + replayed,
        )
        self._unsaved += rollout.steps
        return True

    def _learn_beside(self, rollout: Rollout) -> tuple[dict[str, Any], int]:
        """Results of one update, and how many replayed decisions were in it."""
        # First, so that a learner found dead while sampling leaves nothing fed to be learned twice.
        replayed = self._replay_mix.beside(rollout.steps)
        for each in (rollout, *replayed):
            self._algorithm.feed(each)
        return self._algorithm.train(), sum(each.steps for each in replayed)

    def _judge(self) -> PromotionDecision:
        self._unjudged = 0
        version = self._algorithm.weights_version
        champion = self._manager.champion
        result = self._gate.judge(champion.weights, self._algorithm.weights())
        self.report = replace(
            self.report,
            judgements=self.report.judgements + 1,
            judgement_seconds=result.seconds,
            verdict=result.summary,
            kl_to_champion=_NAN if result.kl is None else result.kl,
        )
        if result.passed:
            return self._promote(result, version)
        return self._reject(result, version)

    def _promote(self, result: GateResult, version: int) -> PromotionDecision:
        why = Promotion(version, PromotedBy.GATE, result.reason, result.kl, result.compared)
        decision = self._manager.promote(self._algorithm.save_to_path, why)
        self._in_a_row = 0
        log.info("challenger promoted", version=version, reason=result.reason)
        return decision

    def _reject(self, result: GateResult, version: int) -> PromotionDecision:
        self._in_a_row += 1
        event = ChallengerRejected(
            ts_ns=0,
            number=0,
            version=version,
            champion=0,
            failed=result.failed,
            reason=result.reason,
            in_a_row=self._in_a_row,
            reset=result.harmful or self._in_a_row >= self._rules.patience,
            kl=result.kl,
            compared=result.compared,
        )
        log.warning("challenger rejected", version=version, reason=result.reason)
        return self._manager.reject(event)

    def _begin_again(self) -> None:
        """Learn on from the champion, which becomes the newest checkpoint."""
        self._in_a_row = self._unjudged = 0
        path = self._manager.path
        from_whole = path if holds_algorithm(path) else None
        try:
            if from_whole is not None:
                self._algorithm.restore_from_path(from_whole)
            else:
                self._algorithm.load_weights(self._manager.champion.weights)
                self._algorithm.learner_group.foreach_learner(_forget_moments)
        except LearnerLostError as error:
            if not self._revive(error, from_whole):
                return
        self._replay_mix.renew()
        version = self._algorithm.weights_version
        self._ahead = self._steps_ahead(version - 1)
        try:
            self._save()
        except LearnerLostError as error:
            if not self._revive(error, from_whole):
                return
        self.report = replace(self.report, updates=version)
        log.info("learning begins again", champion=self._manager.champion.number)

    def _revive(self, lost: LearnerLostError, path: Path | None = None) -> bool:
        """Bring dead learners back from `path`, or the newest checkpoint, with growing pauses."""
        log.error("the learner is lost", reason=str(lost))
        if path is None:
            found = self._store.latest()
            path = found[0] if found else self._manager.path
        for attempt in range(_REVIVALS):
            try:
                self._algorithm.revive(path)
            except Exception as error:
                log.warning("the learner does not come back", reason=str(error))
                if self._wait(_FIRST_BACKOFF_S * 2**attempt):
                    return False
                continue
            self._replay_mix.renew()
            self.report = replace(
                self.report,
                restarts=self.report.restarts + 1,
                updates=self._algorithm.weights_version,
            )
            log.info("the learner is back", checkpoint=path.name)
            return True
        log.error("the learner stays lost until the next fragment", checkpoint=str(path))
        return False

    def _save(self) -> Path | None:
        """Write a checkpoint; where the disk does not take it learning pauses, trading does not."""
        version = self._algorithm.weights_version
        metadata = {"step": version + self._ahead, "version": version}
        try:
            path = self._store.save(self._algorithm.save_to_path, metadata)
        except Exception as error:
            reason = _of_the_disk(error)
            if reason is None:
                raise
            self._pause(f"no checkpoint can be written to {self._store.directory}: {reason}")
            return None
        self._unsaved = 0
        if self.report.paused:
            log.info("learning goes on")
            self.report = replace(self.report, paused="")
        log.info("checkpoint written", path=str(path))
        return path

    def _pause(self, reason: str) -> None:
        if reason != self.report.paused:
            log.error("learning pauses, trading goes on", reason=reason)
        self.report = replace(self.report, paused=reason)
        self._tried_s = time.monotonic()

    def _may_learn(self) -> bool:
        """Whether there is a champion to learn from, and what is learned can be kept.

        Where it could not be written that is tried again now and then.
        """
        if self._manager.fault:
            self.report = replace(self.report, paused=self._manager.fault)
            return False
        if not self.report.paused:
            return True
        if time.monotonic() - self._tried_s < _PAUSE_S:
            return False
        return self._save() is not None

    def _steps_ahead(self, version: int) -> int:
        """By how much the newest checkpoint's step exceeds the version that it holds.

        Steps rise also where versions fall, when learning begins again: so the newest checkpoint is
        the one to resume, and what was given up stays for its owner until it is the oldest.
        """
        return max([version, *self._store.steps()]) - version


def _of_the_disk(error: BaseException) -> str | None:
    """Return what the disk said, also in another process; None where it is another fault."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen.strerror or str(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _forget_moments(learner: CLSTMPPOLearner) -> None:
    """Drop what the optimizer remembers of gradients that led elsewhere."""
    learner.get_optimizer(DEFAULT_MODULE_ID).state.clear()


def _with_results(report: LearnerReport, results: dict[str, Any], seconds: float) -> LearnerReport:
    stats = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
    runners = results.get(ENV_RUNNER_RESULTS, {})
    return replace(
        report,
        seconds=seconds,
        missing_samples=int(runners.get(NUM_ENV_STEPS_MISSING_LIFETIME, report.missing_samples)),
        rehearsal_return=float(runners.get(EPISODE_RETURN_MEAN, report.rehearsal_return)),
        policy_loss=float(stats["policy_loss"]),
        value_loss=float(stats["value_loss"]),
        entropy=float(stats["entropy"]),
        kl=float(stats["kl"]),
        explained_variance=float(stats["explained_variance"]),
        clip_fraction=float(stats["clip_fraction"]),
        grad_norm=float(stats["grad_norm"]),
    )
