"""The settings of CLSTM-PPO, by RLlib's names."""

import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Self, TypeAlias

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.schedules.scheduler import Scheduler

from trading.config import LearningSettings
from trading.config.gone import in_effect
from trading.errors import LearningError, SettingRefused
from trading.learning.module import CLSTMModule
from trading.learning.ppo_update import PPOSettings
from trading.learning.rllib_settings import GONE_HERE, INSTEAD, without_effect, without_gone
from trading.learning.runner import BatchedEnvRunner

Schedule: TypeAlias = float | list[Any]
"""A number, or RLlib's [[decisions, value], ...] with straight lines between."""

_OWN_NAMES = {
    "gamma": "gamma",
    "gae_lambda": "lambda_",
    "learning_rate": "lr",
    "clip": "clip_param",
    "epochs": "num_epochs",
    "entropy_coefficient": "entropy_coeff",
    "value_coefficient": "vf_loss_coeff",
    "max_grad_norm": "grad_clip",
}
"""A field of `PPOSettings` and RLlib's name for it; the other fields have their own."""

_PPO = tuple(field.name for field in fields(PPOSettings))
_OWN = frozenset(
    {
        *(_OWN_NAMES.get(name, name) for name in _PPO),
        "torch_threads",
        "overlap",
        "lambda_",
        "answer_timeout_s",
    }
)
_FROM_PPO = frozenset({"gamma", "num_epochs", "grad_clip"})
"""Those that RLlib's class has always had, and that once only `ppo` was asked for."""


class CLSTMPPOConfig(AlgorithmConfig):  # type: ignore[misc]
    """Builds a `CLSTMPPO`.

    RLlib's own settings hold, by RLlib's names: `gamma`, `lr`, `grad_clip`, `num_epochs`,
    `minibatch_size`, `train_batch_size_per_learner`, and of its PPO `lambda_`, `clip_param`,
    `entropy_coeff`, `vf_loss_coeff`; `lr` and `entropy_coeff` may be schedules over the decisions
    that were learned from. What would have no effect is refused by `validate`.

    Beside them: `training(ppo=PPOSettings(...))`, which sets all of these at once, or one by one
    the fields that RLlib has no name for; `torch_threads`, `overlap`;
    `rl_module(model_config={"feature_hidden": 64, ...})` for the network,
    `env_runners(num_envs_per_env_runner=B, rollout_fragment_length=T)` for the shape of a rollout,
    and `environment("CartPole-v1")`, a registered name, a class, or
    `environment(env_config={"factory": ...})`, see `trading.learning.environments`.

    An update learns from one rollout of every runner, B * T decisions each, or from so many that
    they hold `train_batch_size_per_learner` decisions for each learner. Minibatches are whole
    sequences: as many as `minibatches` says, or of about `minibatch_size` decisions.
    """

    answer_timeout_s: float | None = None
    """Here too, for configs that were pickled before they had it."""

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        from trading.learning.ppo import CLSTMPPO

        super().__init__(algo_class=algo_class or CLSTMPPO)
        self.ppo = PPOSettings.of(LearningSettings(), self.gamma)
        self.torch_threads: int | None = None
        self.answer_timeout_s = None
        self.overlap = False
        self.shuffle_batch_per_epoch = True
        # The runners have no connectors to merge, and asking for them would wait for a rollout.
        self._dont_auto_sync_env_runner_states = True
        self.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        self.env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=0,
            num_envs_per_env_runner=64,
            rollout_fragment_length=64,
        )
        self.fault_tolerance(
            restart_failed_env_runners=True,
            delay_between_env_runner_restarts_s=1.0,
            env_runner_health_probe_timeout_s=5.0,
        )
        self.reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=0)
        self.evaluation(evaluation_config={"explore": False})

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Open what `get_state` told, of a version with settings that are gone as well."""
        opened: Self = super().from_state(without_gone(state))
        return opened

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute.

        One that is gone is passed over where its value had no effect: the experiments of Ray Tune
        that a former version began hold every setting.

        Raises
        ------
        SettingRefused
            It is a setting that is gone, and had an effect.
        """
        gone = GONE_HERE["learning"].get(key)
        if gone is None:
            super().__setattr__(key, value)
        elif in_effect(gone, value):
            raise SettingRefused(
                f"{key}={value!r}: {INSTEAD[key]}. An experiment of Ray Tune that has it "
                "does not go on: begin another without it; its checkpoints open, by "
                "CLSTMPPO.from_checkpoint"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a config that was pickled when it held `ppo` as one value."""
        ppo = state.pop("ppo", None)
        if ppo is not None:
            now = CLSTMPPOConfig()
            now.ppo = ppo
            of_ppo = {
                name: vars(now)[name] for name in _OWN if name not in state or name == "gamma"
            }
            state = {**vars(now), **state, **of_ppo, "grad_clip": ppo.max_grad_norm}
            state["num_epochs"] = ppo.epochs
        self.__dict__.update(without_gone(state))

    @property
    def ppo(self) -> PPOSettings:
        """Hyperparameters of the update; of a schedule the first value.

        Raises
        ------
        LearningError
            A value is outside its range.
        """
        values = {name: getattr(self, _OWN_NAMES.get(name, name)) for name in _PPO}
        values["learning_rate"] = scheduled(self.lr, 0)
        values["entropy_coefficient"] = scheduled(self.entropy_coeff, 0)
        if values["max_grad_norm"] is None:
            values["max_grad_norm"] = sys.float_info.max
        return PPOSettings(**values)

    @ppo.setter
    def ppo(self, settings: PPOSettings) -> None:
        for name in _PPO:
            setattr(self, _OWN_NAMES.get(name, name), getattr(settings, name))

    def training(
        self,
        *,
        ppo: PPOSettings = NotProvided,
        lambda_: float = NotProvided,
        clip_param: float = NotProvided,
        entropy_coeff: Schedule = NotProvided,
        vf_loss_coeff: float = NotProvided,
        torch_threads: int | None = NotProvided,
        overlap: bool = NotProvided,
        answer_timeout_s: float | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the update.

        Parameters
        ----------
        ppo
            Hyperparameters of the update; one that is given by its own name beside it holds.
        lambda_
            Weight of longer advantage estimates, 0..1.
        clip_param
            A probability ratio counts only within 1 ± clip_param.
        entropy_coeff
            Weight of the entropy bonus, or a schedule of it.
        vf_loss_coeff
            Weight of the value loss beside the policy loss.
        torch_threads
            Threads of each sampling and learning process; None leaves torch's own choice. A
            learner's threads share out the sequences of a minibatch.
        overlap
            Whether remote runners sample while the learners update, with the weights before the
            update.
        answer_timeout_s
            Seconds that a learner's actor may take to answer, an update included, until it counts
            as lost; None: for ever.
        **kwargs
            RLlib's own settings, and fields of `PPOSettings` that RLlib has no name for.

        Raises
        ------
        SettingRefused
            A setting is gone; says why.
        """
        if ppo is not NotProvided:
            self.ppo = ppo
        own = {name: kwargs.pop(name) for name in _PPO if name in kwargs and name != "gamma"}
        for name, value in own.items():
            setattr(self, _OWN_NAMES.get(name, name), value)
        given = {
            "lambda_": lambda_,
            "clip_param": clip_param,
            "entropy_coeff": entropy_coeff,
            "vf_loss_coeff": vf_loss_coeff,
            "torch_threads": torch_threads,
            "overlap": overlap,
            "answer_timeout_s": answer_timeout_s,
        }
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        # Of RLlib's own PPO, or of its older names: refused by `validate`, which says why.
        for name in [name for name in kwargs if name in INSTEAD and not hasattr(self, name)]:
            setattr(self, name, kwargs.pop(name))
        super().training(**kwargs)
        return self

    def validate(self) -> None:
        """Check the settings, and that each has an effect.

        Raises
        ------
        SettingRefused
            One has none, or is outside its range; says what to do instead.
        """
        super().validate()
        problems = list(without_effect(self, type(self)(), _OWN))
        for name in ("lr", "entropy_coeff"):
            try:
                Scheduler.validate(
                    fixed_value_or_schedule=getattr(self, name),
                    setting_name=name,
                    description=name,
                )
            except ValueError as error:
                problems.append(str(error))
        if not problems:
            try:
                _ = self.ppo
            except (LearningError, TypeError) as error:
                problems.append(str(error))
        if not self.in_evaluation:
            problems += self._batch_problems()
        if problems:
            raise SettingRefused("\n".join(problems))

    def _batch_problems(self) -> Iterator[str]:
        """Yield what is wrong with the sizes of rollout, batch and minibatch."""
        batch = self._train_batch_size_per_learner
        if self.rollout_fragment_length == "auto":
            if batch is None:
                yield "rollout_fragment_length='auto' needs train_batch_size_per_learner"
                return
        elif batch is not None and batch * max(1, self.num_learners) < self.decisions_per_round:
            yield (
                f"train_batch_size_per_learner={batch}: one round of sampling is "
                f"{self.decisions_per_round} decisions (num_envs_per_env_runner "
                f"{self.num_envs_per_env_runner} x rollout_fragment_length "
                f"{self.rollout_fragment_length} x {max(1, self.num_env_runners)} runners): lower "
                "these, or set rollout_fragment_length='auto'"
            )
        size = self.minibatch_size
        if size is not None:
            steps = self.get_rollout_fragment_length()
            if size < steps:
                yield (
                    f"minibatch_size={size}: a minibatch is whole sequences, and one has "
                    f"{steps} decisions (rollout_fragment_length): give at least so many"
                )
            if batch is not None and size > batch:
                yield f"minibatch_size={size}: is above train_batch_size_per_learner={batch}"

    @property
    def decisions_per_round(self) -> int:
        """Decisions in one rollout of every runner."""
        runners = range(1, self.num_env_runners + 1) or range(1)
        steps = sum(int(self.get_rollout_fragment_length(runner)) for runner in runners)
        envs: int = self.num_envs_per_env_runner
        return steps * envs

    @property
    def rounds(self) -> int:
        """Rollouts of every runner in an update."""
        batch = self._train_batch_size_per_learner
        if batch is None:
            return 1
        decisions: int = batch * max(1, self.num_learners)
        return max(1, math.ceil(decisions / self.decisions_per_round))

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the CLSTM, shaped by the spaces and `model_config`."""
        return RLModuleSpec(module_class=CLSTMModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the learner that understands rollouts."""
        from trading.learning.ppo import CLSTMPPOLearner

        return CLSTMPPOLearner


def scheduled(value: Schedule, decisions: int) -> float:
    """Return the value of a setting after so many decisions."""
    return float(Scheduler(fixed_value_or_schedule=value).update(timestep=decisions))
