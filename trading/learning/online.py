"""Learning while trading: fragments of live experience in, answers with new weights out."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS

from trading.errors import LearningError
from trading.learning.checkpoints import CheckpointStore
from trading.learning.policy import Weights
from trading.learning.ppo import CLSTMPPO
from trading.learning.rollout import Rollout

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LearnerReport:
    """The learner after its last update; losses are NaN before the first."""

    updates: int = 0
    """Updates since the weights were new."""
    live_updates: int = 0
    """Updates of this run on live experience."""
    live_samples: int = 0
    """Live decisions learned from in this run."""
    refused: int = 0
    """Fragments that could not be learned from."""
    seconds: float = 0.0
    """Wall time of the last update."""
    policy_loss: float = float("nan")
    value_loss: float = float("nan")
    entropy: float = float("nan")
    kl: float = float("nan")
    explained_variance: float = float("nan")


class OnlineLearner:
    """Improves an algorithm by live fragments and checkpoints it.

    One thread learns; `report` may be read from any.

    Parameters
    ----------
    algorithm
        Built, and restored or pre-trained.
    store
        Where checkpoints go.
    save_frequency
        Live decisions between two checkpoints.
    publish
        Called with the version and the weights after every update that succeeded.
    """

    def __init__(
        self,
        algorithm: CLSTMPPO,
        store: CheckpointStore,
        save_frequency: int,
        publish: Callable[[int, Weights], None],
    ) -> None:
        self.report = LearnerReport(updates=algorithm.weights_version)
        self._algorithm = algorithm
        self._store = store
        self._save_frequency = save_frequency
        self._publish = publish
        self._unsaved = 0
        self._lock = threading.Lock()

    def learn(self, rollout: Rollout) -> tuple[int, Weights] | None:
        """One update on a live fragment; its version and weights, or None when it was refused."""
        with self._lock:
            started = time.perf_counter()
            try:
                self._algorithm.feed(rollout)
                results = self._algorithm.train()
            except LearningError as error:
                log.error("fragment refused", reason=str(error))
                self.report = replace(self.report, refused=self.report.refused + 1)
                return None
            version, weights = self._algorithm.weights_version, self._algorithm.weights()
            self._publish(version, weights)
            self.report = _reported(
                self.report, results, version, rollout.steps, time.perf_counter() - started
            )
            self._unsaved += rollout.steps
            if self._unsaved >= self._save_frequency:
                self._save()
            return version, weights

    def save(self) -> Path:
        """Write a checkpoint now."""
        with self._lock:
            return self._save()

    def _save(self) -> Path:
        self._unsaved = 0
        version = self._algorithm.weights_version
        path = self._store.save(self._algorithm.save_to_path, {"step": version})
        log.info("checkpoint written", path=str(path))
        return path


def _reported(
    report: LearnerReport, results: dict[str, Any], version: int, samples: int, seconds: float
) -> LearnerReport:
    stats = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
    return replace(
        report,
        updates=version,
        live_updates=report.live_updates + 1,
        live_samples=report.live_samples + samples,
        seconds=seconds,
        policy_loss=float(stats["policy_loss"]),
        value_loss=float(stats["value_loss"]),
        entropy=float(stats["entropy"]),
        kl=float(stats["kl"]),
        explained_variance=float(stats["explained_variance"]),
    )
