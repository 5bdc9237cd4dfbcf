"""Which of RLlib's own settings `CLSTMPPO` honours, and what to use instead of the others.

RLlib keeps the settings of all its algorithms in one class. One that this algorithm would not look
at is refused where it differs from its default: nothing that a user sets is without effect.
"""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from textwrap import shorten
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list

from trading.config.gone import GONE, gone, in_effect
from trading.learning.clstm import CLSTMConfig
from trading.logs import get_logger

log = get_logger(__name__)

_HONOURED = """
algo_class placement_strategy num_cpus_for_main_process custom_resources_for_main_process
extra_python_environs_for_driver extra_python_environs_for_worker framework_str env env_config
observation_space action_space clip_rewards normalize_actions clip_actions disable_env_checking
action_mask_key env_runner_cls num_env_runners num_envs_per_env_runner gym_env_vectorize_mode
num_cpus_per_env_runner num_gpus_per_env_runner custom_resources_per_env_runner
validate_env_runners_after_construction sample_timeout_s create_env_on_local_worker
rollout_fragment_length num_learners num_gpus_per_learner num_cpus_per_learner
custom_resources_per_learner local_gpu_idx learner_config_dict _learner_class gamma lr grad_clip
num_epochs minibatch_size _train_batch_size_per_learner callbacks_class
callbacks_on_algorithm_init callbacks_on_env_runners_recreated callbacks_on_checkpoint_loaded
callbacks_on_environment_created callbacks_on_evaluate_start callbacks_on_evaluate_end
callbacks_on_sample_end callbacks_on_train_result evaluation_interval evaluation_duration
evaluation_duration_unit evaluation_sample_timeout_s
evaluation_auto_duration_min_env_steps_per_sample
evaluation_auto_duration_max_env_steps_per_sample evaluation_parallel_to_training
evaluation_unhealthy_workers_timeout_s evaluation_error_after_n_consecutive_skips
evaluation_config evaluation_num_env_runners custom_evaluation_function in_evaluation
metrics_num_episodes_for_smoothing min_time_s_per_iteration min_train_timesteps_per_iteration
min_sample_timesteps_per_iteration metrics_episode_collection_timeout_s stats_cls_lookup
log_level log_sys_usage seed restart_failed_env_runners ignore_env_runner_failures
max_num_env_runner_restarts delay_between_env_runner_restarts_s
num_consecutive_env_runner_failures_tolerance env_runner_health_probe_timeout_s
env_runner_restore_timeout_s _model_config _per_module_overrides _is_frozen _validate_config
_is_atari _use_msgpack_checkpoints _dont_auto_sync_env_runner_states _prior_exploration_config
simple_optimizer class
"""
HONOURED = frozenset(_HONOURED.split())
"""By RLlib itself or by this algorithm. Actions are `Discrete`: nothing of them can be clipped."""

_OF_EVALUATION = frozenset({"explore", "batch_mode", "rollout_fragment_length"})
"""Of an evaluation's config: `explore` is honoured there, the others are set by RLlib."""

_CONNECTORS = (
    "the runner has no connectors, which would run once a step and environment: change "
    "observations, rewards or actions by a wrapper of the environment"
)
_ROLLOUTS = "rollouts are arrays [T, B], not episodes"
_EPISODES = (
    "rollouts are arrays, there is no Episode: use on_sample_end, whose samples are Rollouts, or "
    'let the environment put arrays into info["episode"], which become metrics'
)

GONE_HERE = {
    section: {key.partition(".")[2]: key for key in GONE if key.startswith(f"{section}.")}
    for section in ("learning", "model")
}
"""Of the settings that are gone, those of the update and of the network: the key by the name."""

INSTEAD = {
    "train_batch_size": "set train_batch_size_per_learner",
    "grad_clip_by": "gradients are clipped by their norm over all parameters: leave global_norm",
    "shuffle_batch_per_epoch": "sequences are shuffled in every pass: leave it at True",
    "batch_mode": (
        "a rollout is rollout_fragment_length steps of every environment, and recurrent states go "
        "on in the next: leave truncate_episodes"
    ),
    "explore": (
        "PPO learns from the actions that its own distribution draws: set it for evaluation alone, "
        'by evaluation(evaluation_config={"explore": False})'
    ),
    "exploration_config": "actions are drawn from the policy: set entropy_coeff",
    "num_gpus": "set num_gpus_per_learner",
    "model": "set rl_module(model_config={...}) with the fields of CLSTMConfig",
    "_rl_module_spec": "set rl_module(model_config={...}): the network is the CLSTM",
    "optimizer": "it is Adam: set lr",
    "observation_filter": _CONNECTORS,
    "_env_to_module_connector": _CONNECTORS,
    "_module_to_env_connector": _CONNECTORS,
    "_learner_connector": _CONNECTORS,
    "add_default_connectors_to_env_to_module_pipeline": _CONNECTORS,
    "add_default_connectors_to_module_to_env_pipeline": _CONNECTORS,
    "add_default_connectors_to_learner_pipeline": _CONNECTORS,
    "torch_compile_learner": "set training(compile=True)",
    "torch_skip_nan_gradients": "an update whose loss is no number is undone and told anyway",
    "episode_lookback_horizon": _ROLLOUTS,
    "episodes_to_numpy": _ROLLOUTS,
    "compress_observations": _ROLLOUTS,
    "callbacks_on_episode_created": _EPISODES,
    "callbacks_on_episode_start": _EPISODES,
    "callbacks_on_episode_step": _EPISODES,
    "callbacks_on_episode_end": _EPISODES,
    "remote_worker_envs": 'set gym_env_vectorize_mode="async"',
    "policies": "there is one policy",
    "policy_mapping_fn": "there is one policy",
    "policies_to_train": "there is one policy",
    "algorithm_config_overrides_per_module": "there is one policy: set it for the algorithm",
    "evaluation_force_reset_envs_before_iteration": "evaluations begin with new episodes: True",
    "log_gradients": "grad_norm is logged",
    # RLlib's PPO has these.
    "use_critic": "the value estimate is the baseline: leave it out",
    "use_gae": "advantages are V-trace's, which are GAE's on policy: set lambda_",
    "use_kl_loss": "the clip bounds an update: set clip_param, or lr",
    "kl_coeff": "the clip bounds an update: set clip_param, or lr",
    "kl_target": "the clip bounds an update: set clip_param, or lr",
    "vf_clip_param": "values are not clipped: set vf_loss_coeff, or grad_clip",
    "lr_schedule": "set lr=[[0, 1e-3], [1000000, 1e-5]]",
    "entropy_coeff_schedule": "set entropy_coeff=[[0, 0.01], [1000000, 0.0]]",
    "sgd_minibatch_size": "set minibatch_size",
    "num_sgd_iter": "set num_epochs",
    "lambda": "set lambda_",
    "learning_rate": "set lr",
    **{name: gone(key) for name, key in GONE_HERE["learning"].items()},
}
"""What to do instead, by setting."""


def without_gone(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a saved config without settings of the update that are gone.

    One that had an effect is told in the log. An option of the network stays where it had one:
    weights that were learnt with it mean something else without it, so `without_effect` tells it.
    """
    kept = dict(state)
    for name, key in GONE_HERE["learning"].items():
        value = kept.pop(name, None)
        if in_effect(key, value):
            log.warning("a setting of a saved algorithm is gone", name=name, value=value)
    model = kept.get("_model_config")
    if isinstance(model, dict):
        keys = GONE_HERE["model"]
        kept["_model_config"] = {
            name: value
            for name, value in model.items()
            if name not in keys or in_effect(keys[name], value)
        }
    return kept


_EPISODE_EVENTS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


def without_effect(config: Any, default: Any, own: frozenset[str]) -> Iterator[str]:
    """Yield a sentence for each setting that differs from its default and would have no effect.

    Parameters
    ----------
    config
        Of `CLSTMPPO`.
    default
        One of the same class with its defaults.
    own
        Names of this algorithm's own settings.
    """
    defaults = vars(default)
    fine = HONOURED | own | (_OF_EVALUATION if config.in_evaluation else frozenset())
    for name, value in vars(config).items():
        if name in fine or (name in defaults and _same(value, defaults[name])):
            continue
        if name.startswith("_") and name not in defaults:
            continue  # Ray Tune's notes for itself
        if name == "policies" and set(value) == set(defaults[name]):
            continue  # RLlib fills in the one policy's spec.
        shown = name.removeprefix("_")
        instead = INSTEAD.get(name)
        if instead is None and name in defaults:
            instead = f"this algorithm does not use it: leave it at {_short(defaults[name])}"
        yield f"{shown}={_short(value)}: {instead or 'there is no such setting'}"
    yield from _of_callbacks(config)
    yield from _of_model(config)


def _of_callbacks(config: Any) -> Iterator[str]:
    for callbacks in force_list(config.callbacks_class):
        for event in _EPISODE_EVENTS:
            if getattr(callbacks, event, None) is not getattr(RLlibCallback, event):
                yield f"callbacks_class {callbacks.__name__}.{event}: {_EPISODES}"


def _of_model(config: Any) -> Iterator[str]:
    model = config._model_config
    names = set(CLSTMConfig.__dataclass_fields__) - {"observation_size", "action_count"}
    if is_dataclass(model):
        yield f"rl_module(model_config={model!r}): give a dict with some of {sorted(names)}"
        return
    keys = GONE_HERE["model"]
    for name, value in (model or {}).items():
        if name in keys and in_effect(keys[name], value):
            yield f"rl_module(model_config=...): {name}={_short(value)}: {gone(keys[name])}"
    if unknown := sorted(set(model or {}) - names - keys.keys() - {"vf_share_layers"}):
        yield (
            f"rl_module(model_config=...): {', '.join(unknown)} is no part of the CLSTM; it has "
            f"{', '.join(sorted(names))}"
        )


def _short(value: Any) -> str:
    return shorten(repr(value), 80, placeholder="...")


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, dict) and isinstance(default, dict) and value.keys() != default.keys():
        return False
    try:
        return bool(value is default or value == default)
    except Exception:  # of whatever is compared
        return False
