"""Rollouts from the environment runners; remote ones may sample one update ahead of the learner.

Every request carries the weights to act with, so the weights that each rollout is acted by are
fixed by the order of calls alone, and equal seeds give equal rollouts.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from trading.learning.rollout import Rollout
from trading.learning.runner import BatchedEnvRunner
from trading.learning.shards import pieces
from trading.logs import get_logger

logger = get_logger(__name__)

RolloutSource: TypeAlias = "Rollout | ray.ObjectRef"
"""A rollout, or a reference to a list of rollouts in Ray's object store."""

_TAG = "rollout"


class Taken(NamedTuple):
    """What one round of sampling gave."""

    sources: list[RolloutSource]
    metrics: list[Any]
    """RLlib's statistics of the runners that delivered."""
    missing: int
    """Decisions that a runner should have delivered and did not."""


class _Delivery(NamedTuple):
    runner: int
    sources: list[ray.ObjectRef]
    """References to a list of one rollout each: the parts of what the runner sampled."""
    steps: int
    version: int
    """Of the weights that acted."""
    metrics: Any


class Sampler:
    """Takes one rollout from every runner of a group.

    Without remote runners the local one samples. A rollout of weights that are more than one
    update old is dropped.

    Parameters
    ----------
    group
        The runners, all of them `BatchedEnvRunner`.
    config
        A `CLSTMPPOConfig`; `overlap` lets remote runners go on sampling while the learners update,
        with the weights before the update.
    """

    def __init__(self, group: EnvRunnerGroup, config: Any) -> None:
        self._group = group
        self._config = config
        self._remote = group.num_remote_env_runners() > 0
        self._kept: list[_Delivery] = []
        """Delivered, but not yet taken."""
        self._asked = 0
        """Version of the weights in the last request."""
        self._has_delivered = False

    def take(
        self, weights: Callable[[], dict[str, Any]], first_wait_s: float | None = None
    ) -> Taken:
        """One rollout of every runner that delivers within `sample_timeout_s`.

        Parameters
        ----------
        weights
            Gives the runners' state with the learner's weights; asked only for remote runners.
        first_wait_s
            Seconds to wait until one has delivered for the first time, None: as ever. Their nodes
            may come minutes later than the driver.
        """
        if not self._remote:
            runner = self._group.local_env_runner
            return Taken([runner.rollout()], [runner.get_metrics()], 0)
        state = weights()
        version = int(state[WEIGHTS_SEQ_NO])
        shared = ray.put(state)
        if self._asked < version - 1:
            self._collect(oldest=version - 1, first_wait_s=first_wait_s)
        self._ask(shared, version)
        self._collect(oldest=version - 1, first_wait_s=first_wait_s)
        fresh, self._kept = self._kept, []
        if self._config.overlap:
            self._ask(shared, version)
        steps = sum(delivery.steps for delivery in fresh)
        return Taken(
            [source for delivery in fresh for source in delivery.sources],
            [delivery.metrics for delivery in fresh],
            max(0, self._steps_per_round() - steps),
        )

    def drop_ahead(self) -> None:
        """Drop what was sampled ahead: it was acted by weights that were given up."""
        self._collect()
        self._kept = []

    def get_state(self) -> dict[str, Any]:
        """Where every runner stands, and the rollouts that were sampled ahead.

        Waits for runners that are sampling.
        """
        if not self._remote:
            runner = self._group.local_env_runner
            return {"runners": {0: runner.get_sampling_state()}, "ahead": []}
        self._collect()
        runners = self._group.foreach_env_runner(
            _state_of, local_env_runner=False, timeout_seconds=self._config.sample_timeout_s
        )
        ahead = [_by_value(kept) for kept in self._kept]
        return {"runners": dict(runners), "ahead": [parts for parts in ahead if parts is not None]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; a runner that it does not fit starts new episodes."""
        saved = state["runners"]
        if not self._remote:
            refusals = {0: self._group.local_env_runner.set_sampling_state(saved.get(0))}
            present = {0}
        else:
            self._collect()
            states = {runner: ray.put(own) for runner, own in saved.items()}
            answers = self._group.foreach_env_runner(
                _take_over,
                kwargs={"states": states},
                local_env_runner=False,
                timeout_seconds=self._config.sample_timeout_s,
            )
            refusals, present = dict(answers), set(range(1, self._count() + 1))
        ahead = [_Delivery(*parts) for parts in state["ahead"]]
        self._kept = [
            kept._replace(sources=[ray.put([each]) for each in kept.sources])
            for kept in ahead
            if kept.runner in present
        ]
        self._asked = max((kept.version for kept in self._kept), default=0)
        for runner, refusal in sorted(refusals.items()):
            if refusal is not None:
                logger.warning("runner %d starts new episodes: %s", runner, refusal)
        if gone := saved.keys() - present:
            logger.warning(
                "the checkpoint holds the episodes of %d runners, of which %d are no more: their "
                "episodes are dropped",
                len(saved),
                len(gone),
            )

    def _count(self) -> int:
        return int(self._group.num_remote_env_runners())

    def _steps_per_round(self) -> int:
        envs = self._config.num_envs_per_env_runner
        runners = range(1, self._count() + 1)
        return sum(int(self._config.get_rollout_fragment_length(r)) * envs for r in runners)

    def _ask(self, weights: ray.ObjectRef, version: int) -> None:
        """Ask every healthy runner that neither samples nor has something kept for a rollout."""
        delivered = {kept.runner for kept in self._kept}
        idle = [r for r in self._group.healthy_env_runner_ids() if r not in delivered]
        if idle:
            self._group.foreach_env_runner_async(
                _sample,
                tag=_TAG,
                kwargs={
                    "weights": weights,
                    "parts": pieces(self._count(), self._config.num_learners),
                },
                remote_worker_ids=idle,
            )
        self._asked = version

    def _collect(self, oldest: int = 0, first_wait_s: float | None = None) -> None:
        """Wait for the rollouts that were asked for, and keep those of a version not older."""
        wait_s = self._config.sample_timeout_s
        if first_wait_s is not None and not self._has_delivered:
            wait_s = min(wait_s, first_wait_s)
        arrived = self._group.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=wait_s)
        self._has_delivered |= bool(arrived)
        delivered = self._kept + [_Delivery(runner, *parts) for runner, parts in arrived]
        self._kept = sorted((d for d in delivered if d.version >= oldest), key=lambda d: d.runner)
        if old := sum(d.steps for d in delivered if d.version < oldest):
            logger.info("%d decisions by weights older than version %d are dropped", old, oldest)


def fetched(sources: Iterable[RolloutSource]) -> tuple[list[Rollout], int]:
    """Return the rollouts of sources, and how many sources are lost with their runner."""
    rollouts: list[Rollout] = []
    lost = 0
    for source in sources:
        if isinstance(source, Rollout):
            rollouts.append(source)
            continue
        try:
            rollouts += ray.get(source)
        except ray.exceptions.RayError as error:
            logger.warning("a rollout is lost: %s", error)
            lost += 1
    return rollouts, lost


def _sample(
    runner: BatchedEnvRunner, weights: dict[str, Any], parts: int
) -> tuple[Any, int, int, Any]:
    """On the runner: the parts of a `_Delivery` but the runner's number."""
    runner.set_state(weights)
    rollout = runner.rollout()
    sources = [ray.put([part]) for part in rollout.parts(parts)]
    return sources, rollout.steps, rollout.weights_version, runner.get_metrics()


def _state_of(runner: BatchedEnvRunner) -> tuple[int, dict[str, Any] | None]:
    return runner.worker_index, runner.get_sampling_state()


def _take_over(
    runner: BatchedEnvRunner, states: dict[int, ray.ObjectRef]
) -> tuple[int, str | None]:
    own = states.get(runner.worker_index)
    refusal = runner.set_sampling_state(None if own is None else ray.get(own))
    return runner.worker_index, refusal


def _by_value(kept: _Delivery) -> tuple[Any, ...] | None:
    """Return the parts of a delivery with the rollout itself.

    None when it is lost with its runner.
    """
    try:
        rollouts = [rollout for source in kept.sources for rollout in ray.get(source)]
        return tuple(kept._replace(sources=rollouts))
    except ray.exceptions.RayError as error:
        logger.warning("a rollout that was sampled ahead is lost: %s", error)
        return None
