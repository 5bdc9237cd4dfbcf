"""CLSTM-PPO as an RLlib algorithm: RLlib places, checkpoints and restarts; the update is our own.

One iteration learns from the rollouts that were fed to it (live experience) or, when there are
none, from rollouts sampled in simulated environments. Rollouts go from the sampling actors to the
learners without passing through the driver, each to one of them.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import ray
import torch
import torch.distributed
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import (
    ALL_MODULES,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)

from trading.errors import LearnerLostError, LearningError
from trading.learning.allocator import keep_freed_memory, leave_new_memory_as_it_is
from trading.learning.clstm import CLSTM
from trading.learning.policy import Weights, load_weights
from trading.learning.ppo_config import CLSTMPPOConfig, scheduled
from trading.learning.ppo_update import PPOSettings, update
from trading.learning.precedence import LEARNING, give_way
from trading.learning.rollout import Rollout
from trading.learning.runner import network_weights
from trading.learning.sampling import RolloutSource, Sampler, fetched
from trading.learning.shards import RefusedElsewhere, Replica
from trading.learning.uncompiled import Adam, leave_the_compiler_out
from trading.logs import get_logger

__all__ = ["CLSTMPPO", "CLSTMPPOConfig", "CLSTMPPOLearner"]

logger = get_logger(__name__)

T = TypeVar("T")

NUM_FED_STEPS_TRAINED_LIFETIME = "num_fed_steps_trained_lifetime"
NUM_ROLLOUTS_LOST_LIFETIME = "num_rollouts_lost_lifetime"
NUM_ENV_STEPS_MISSING_LIFETIME = "num_env_steps_missing_lifetime"
WEIGHTS_VERSION = "weights_version"
SAMPLING = "sampling"
"""Part of a checkpoint: where the runners stand."""
_STEPS_TRAINED = (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME)


class CLSTMPPOLearner(TorchLearner):  # type: ignore[misc]
    """Holds network and optimizer, and improves them by `ppo_update.update`.

    Of several learners each is given rollouts of its own. They average their gradients themselves,
    so the module is not wrapped in DistributedDataParallel.
    """

    def build(self) -> None:
        """Build the network and the optimizer."""
        if self.config.torch_threads is not None:
            torch.set_num_threads(self.config.torch_threads)
        if self.config.num_learners > 0:
            give_way(LEARNING)
        keep_freed_memory()
        leave_new_memory_as_it_is()
        leave_the_compiler_out()
        super().build()

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take over the optimizer's moments; its step size is the configured one."""
        super()._set_optimizer_state(state)
        self._set_learning_rate(0)

    def _set_learning_rate(self, decisions: int) -> float:
        rate = scheduled(self.config.lr, decisions)
        self._set_optimizer_lr(self.get_optimizer(DEFAULT_MODULE_ID), rate)
        return rate

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register one Adam, which RLlib saves in checkpoints."""
        parameters = self.get_parameters(self._module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=scheduled(config.lr, 0),
        )

    def compute_loss_for_module(self, **_: Any) -> Any:
        """Not part of this learner.

        Raises
        ------
        LearningError
            Always; rollouts are learned from by `update_from_rollouts`.
        """
        raise LearningError("this learner learns from rollouts; call update_from_rollouts")

    def _make_modules_ddp_if_necessary(self) -> None:
        if self.config.num_learners > 1:
            for parameter in self.network.parameters():
                torch.distributed.broadcast(parameter.data, src=0)

    @property
    def network(self) -> CLSTM:
        """The network being learned."""
        return cast(CLSTM, self.module[DEFAULT_MODULE_ID].clstm)

    @property
    def weights_version(self) -> int:
        """Number of updates that led to the weights."""
        return int(self._weights_seq_no)

    def update_from_rollouts(
        self, rollouts: Sequence[Rollout], decisions: int = 0
    ) -> dict[str, float]:
        """One PPO update on the rollouts of all learners together; shorter ones are padded.

        The order of minibatches depends on the seed and the weights version only, so a restored
        learner continues exactly as it would have.

        Parameters
        ----------
        rollouts
            This learner's; there may be none where another one has some.
        decisions
            That were learned from before: where schedules stand.

        Returns
        -------
        dict[str, float]
            The statistics of `ppo_update.update`, `weights_version`, the new one, the
            `learning_rate`, and `rollout_bytes`, which the learners fetched; of no rollout at all
            0 `samples` alone.

        Raises
        ------
        LearningError
            A rollout is unusable or the loss is not finite; nothing has changed.
        """
        replica, device = self.replica, self.device
        joined = replica.agreed(device, lambda: _joined(rollouts))
        steps, count, sizes = replica.total(
            device,
            float(joined.steps if joined else 0),
            float(len(rollouts)),
            float(sum(rollout.nbytes for rollout in rollouts)),
        )
        if not count:
            return {"samples": 0.0}
        own = [replica.rank] if replica.rank else []
        entropy = np.random.SeedSequence([self.config.seed or 0, self.weights_version, *own])
        rate = self._set_learning_rate(decisions)
        stats = update(
            self.network,
            self.get_optimizer(DEFAULT_MODULE_ID),
            joined,
            self._settings_of(steps, decisions),
            torch.Generator().manual_seed(int(entropy.generate_state(1)[0])),
            replica,
            self.weights_version,
        )
        self._weights_seq_no += 1
        return {
            **stats,
            WEIGHTS_VERSION: float(self.weights_version),
            "learning_rate": rate,
            "rollout_bytes": sizes,
        }

    @property
    def replica(self) -> Replica:
        """Place among the learners."""
        return Replica(self._learner_index, max(1, self.config.num_learners))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _settings_of(self, steps: float, decisions: int) -> PPOSettings:
        """Return the settings of one update, where they follow from its size or from a schedule."""
        settings: PPOSettings = self.config.ppo
        coefficient = scheduled(self.config.entropy_coeff, decisions)
        settings = replace(settings, entropy_coefficient=coefficient)
        if self.config.minibatch_size is None:
            return settings
        of_learner = steps / max(1, self.config.num_learners)
        minibatches = max(1, math.ceil(of_learner / self.config.minibatch_size))
        return replace(settings, minibatches=minibatches)


def _joined(rollouts: Sequence[Rollout]) -> Rollout | None:
    for rollout in rollouts:
        rollout.validate()
    if not rollouts:
        return None
    steps = max(rollout.shape[0] for rollout in rollouts)
    return Rollout.concatenate([rollout.padded(steps) for rollout in rollouts])


class CLSTMPPO(Algorithm):  # type: ignore[misc]
    """Proximal policy optimisation of a CLSTM policy, from simulated and from live experience.

    Examples
    --------
    ```
    algorithm = CLSTMPPOConfig().environment("CartPole-v1").build_algo()
    algorithm.train()               # one update on sampled rollouts
    algorithm.feed(live_rollout)
    algorithm.train()               # one update on the live rollout
    algorithm.evaluate()            # greedy episodes, which leave training as it was
    algorithm.save_to_path(path)
    ```
    """

    @classmethod
    def get_default_config(cls) -> CLSTMPPOConfig:
        """Return a config with the defaults."""
        return CLSTMPPOConfig()

    learner_group: LearnerGroup

    def setup(self, config: Any) -> None:
        """Build runners and learners."""
        self._fed: list[RolloutSource] = []
        leave_the_compiler_out()
        super().setup(config)
        self._limit_answers()
        self._sampler = Sampler(self.env_runner_group, self.config)

    def feed(self, rollout: RolloutSource) -> None:
        """Queue experience for the next iteration, which then does not sample.

        Parameters
        ----------
        rollout
            Any T and B, or a reference to a list of such rollouts.

        Raises
        ------
        LearningError
            The rollout is malformed or not finite; it is not queued.
        """
        if isinstance(rollout, Rollout):
            rollout.validate()
        self._fed.append(rollout)

    def sample(self, first_wait_s: float | None = None) -> list[RolloutSource]:
        """Sample one rollout from every runner without learning from it.

        What is returned may be fed beside other rollouts, so that one update learns from both:
        live experience and a replay mix of what it does not hold.

        Parameters
        ----------
        first_wait_s
            Seconds to wait for remote runners of which none has delivered yet; None:
            `sample_timeout_s`, as for all later ones.

        Returns
        -------
        list[RolloutSource]
            A source for each runner that delivered: a rollout, or a reference to a list of one.
        """
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            taken = self._sampler.take(self._acting_state, first_wait_s)
        if taken.metrics:
            self.metrics.aggregate(taken.metrics, key=ENV_RUNNER_RESULTS)
        self.metrics.log_value(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_MISSING_LIFETIME),
            taken.missing,
            reduce="lifetime_sum",
        )
        if taken.missing:
            group = self.env_runner_group
            logger.warning(
                "%d decisions are missing: %d of %d environment runners delivered, %d are healthy",
                taken.missing,
                len(taken.sources),
                group.num_remote_env_runners(),
                group.num_healthy_remote_env_runners(),
            )
        return taken.sources

    def training_step(self) -> None:
        """One update: fed rollouts if there are any, else sampled ones; then new weights for all.

        Raises
        ------
        LearnerLostError
            A learner has died; see `revive`.
        LearningError
            No learner could do the update, or every fed rollout is lost. The rollouts are dropped,
            the weights are unchanged, the next iteration may be tried.
        """
        fed, self._fed = self._fed, []
        sources = fed or [each for _ in range(self.config.rounds) for each in self.sample()]
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            stats = self._update(sources)
        self._log(stats, fed=bool(fed))
        if not stats["samples"]:
            if fed:
                raise LearningError("every rollout that was fed is lost: its owner has died")
            logger.warning("no environment runner delivered a rollout; nothing was learned")
            return
        self._update_local_runner()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's state, and where the runners stand, which RLlib's does not hold.

        An algorithm restored from it continues to the last bit (on CPU, see `BatchedEnvRunner`).
        Waits for runners that are sampling.
        """
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, **kwargs
        )
        if self._check_component(SAMPLING, components, not_components):
            state[SAMPLING] = self._sampler.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; runners that it does not fit start new episodes."""
        super().set_state(state)
        if SAMPLING in state:
            self._sampler.set_state(state[SAMPLING])

    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        """As RLlib's, and what it wrote is whole.

        Raises
        ------
        LearnerLostError
            A learner has died, which RLlib would not say: what was written may lack its weights.
        """
        with self._learners_stay():
            path: str = super().save_to_path(*args, **kwargs)
        return path

    def restore_from_path(self, *args: Any, **kwargs: Any) -> None:
        """As RLlib's, and every learner has taken its weights over.

        Raises
        ------
        LearnerLostError
            A learner has died, or could not take the weights over and so ended itself.
        """
        with self._learners_stay():
            super().restore_from_path(*args, **kwargs)

    @contextmanager
    def _learners_stay(self) -> Iterator[None]:
        """Raise LearnerLostError where a learner is lost before the body, in it or by its end."""
        self._ask_learners(_version_of)
        try:
            yield
        except ray.exceptions.RayActorError as error:
            raise LearnerLostError(f"an actor was lost ({error})") from error
        except Exception:
            # RLlib trips over the answer of a learner that hangs; then that is what is wrong.
            self._ask_learners(_version_of)
            raise
        self._ask_learners(_version_of)

    def _limit_answers(self) -> None:
        """Have RLlib wait for no answer of a learner for longer than `answer_timeout_s`.

        Where it asks for an answer without a limit it would wait for good for a process that hangs.
        """
        limit_s = self.config.answer_timeout_s
        if limit_s is None or not self.learner_group.is_remote:
            return
        manager = self.learner_group._worker_manager
        ask = manager.foreach_actor

        def ask_in_time(*args: Any, timeout_seconds: float | None = None, **kwargs: Any) -> Any:
            limit = limit_s if timeout_seconds is None else timeout_seconds
            return ask(*args, timeout_seconds=limit, **kwargs)

        manager.foreach_actor = ask_in_time

    def revive(self, checkpoint: Path | str) -> None:
        """Build new learners in place of lost ones and go on from a checkpoint.

        What was fed and not yet learned from stays queued.

        Parameters
        ----------
        checkpoint
            Of this algorithm, from `save_to_path`.

        Raises
        ------
        LearnerLostError
            No new learner could be started, for want of room perhaps; call this again.
        """
        self.learner_group.shutdown()
        try:
            self.learner_group = self.config.build_learner_group(
                rl_module_spec=self.config.get_multi_rl_module_spec(
                    spaces=self.spaces, inference_only=False
                )
            )
        except Exception as error:
            raise LearnerLostError(
                f"no new learner could be started ({error}); try again when the cluster has room"
            ) from error
        self._limit_answers()
        self.restore_from_path(str(checkpoint))

    def weights(self) -> Weights:
        """Return a copy of the learner's weights, as `Policy.load_weights` takes them."""
        state = self._acting_state()[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
        return {name: array.copy() for name, array in network_weights(state).items()}

    def load_weights(self, weights: Weights) -> None:
        """Give learners and runners these weights; optimizer and version stay.

        Raises
        ------
        LearningError
            A name or a shape does not fit; nothing is changed then.
        """
        self._ask_learners(_load_weights, weights=weights)
        self._sampler.drop_ahead()
        self._update_local_runner()

    @property
    def weights_version(self) -> int:
        """Number of updates that led to the learner's weights."""
        return self._ask_learners(_version_of)[0]

    @property
    def steps_trained(self) -> int:
        """Decisions that were learned from so far, sampled and fed."""
        return int(self.metrics.peek(_STEPS_TRAINED, default=0))

    def _acting_state(self) -> dict[str, Any]:
        """Return weights of the learner and their version, for `BatchedEnvRunner.set_state`."""
        return self._ask_learners(_acting_state)[0]

    def _update_local_runner(self) -> None:
        """Give the driver's runner the weights; remote ones get them when they sample."""
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            if self.env_runner is not None:
                self.env_runner.set_state(self._acting_state())

    def _update(self, sources: list[RolloutSource]) -> dict[str, float]:
        if self.learner_group.is_remote:
            sources = list(self._by_reference(sources))
        decisions = self.steps_trained
        return self._ask_learners(_update_learner, sources=sources, decisions=decisions)[0]

    def _by_reference(self, sources: Iterable[RolloutSource]) -> Iterator[RolloutSource]:
        """Give references alone; what lies in this process is cut for all learners."""
        for source in sources:
            if not isinstance(source, Rollout):
                yield source
                continue
            for part in source.parts(self.config.num_learners):
                yield ray.put([part])

    def _ask_learners(self, question: Callable[..., T], **kwargs: Any) -> list[T]:
        """Call `question(learner)` on every learner.

        An error is returned, not raised, on the learner: RLlib takes an actor that raises out of
        service for good.

        Raises
        ------
        LearnerLostError
            A learner has died, now or before.
        LearningError
            What a learner answered.
        """
        results = self.learner_group.foreach_learner(_answer, question=question, **kwargs)
        answers: list[T] = []
        refusals: list[LearningError] = []
        for result in results:
            answer = result.get()
            if not result.ok:
                reason = (str(answer) or type(answer).__name__).splitlines()[0]
                raise LearnerLostError(
                    f"a learner is lost ({reason}); restore the algorithm from its checkpoint"
                ) from answer
            if isinstance(answer, LearningError):
                refusals.append(answer)
            else:
                answers.append(answer)
        if refusals:
            raise min(refusals, key=lambda each: isinstance(each, RefusedElsewhere))
        if len(answers) < (wanted := max(1, self.config.num_learners)):
            raise LearnerLostError(
                f"{len(answers)} of {wanted} learners are alive; restore the algorithm from its "
                "checkpoint"
            )
        return answers

    def _log(self, stats: dict[str, float], fed: bool) -> None:
        lost, samples = int(stats.pop(NUM_ROLLOUTS_LOST_LIFETIME)), int(stats["samples"])
        log = self.metrics.log_value
        for name, value in stats.items():
            log((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), value, window=1)
        log(_STEPS_TRAINED, samples, reduce="lifetime_sum")
        log(
            (LEARNER_RESULTS, ALL_MODULES, NUM_FED_STEPS_TRAINED_LIFETIME),
            samples if fed else 0,
            reduce="lifetime_sum",
        )
        log((LEARNER_RESULTS, ALL_MODULES, NUM_ROLLOUTS_LOST_LIFETIME), lost, reduce="lifetime_sum")


def _answer(learner: CLSTMPPOLearner, question: Callable[..., T], **kwargs: Any) -> T | Exception:
    try:
        return question(learner, **kwargs)
    except LearningError as error:
        return error


def _version_of(learner: CLSTMPPOLearner) -> int:
    return learner.weights_version


def _acting_state(learner: CLSTMPPOLearner) -> dict[str, Any]:
    state = learner.get_state(components=COMPONENT_RL_MODULE, inference_only=True)
    return {key: state[key] for key in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)}


def _load_weights(learner: CLSTMPPOLearner, weights: Weights) -> None:
    load_weights(learner.network, weights)


def _update_learner(
    learner: CLSTMPPOLearner, sources: list[RolloutSource], decisions: int
) -> dict[str, float]:
    """Fetch its share of the rollouts and learn from it; those of a dead owner are lost."""
    rollouts, lost = fetched(learner.replica.share(sources))
    stats = learner.update_from_rollouts(rollouts, decisions)
    (all_lost,) = learner.replica.total(learner.device, float(lost))
    return {**stats, NUM_ROLLOUTS_LOST_LIFETIME: all_lost}
