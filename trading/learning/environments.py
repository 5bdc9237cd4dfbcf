"""The environments that RLlib's and Gymnasium's users have, as the runner steps them.

An environment is named as everywhere in RLlib: `config.environment("CartPole-v1")`, a name that was
given to `register_env`, a class, or its dotted path; or as a factory of a vector environment in
`env_config["factory"]`, the fastest way. Whatever its observations are, the network sees one row of
numbers per environment and a mask of the allowed actions; without a mask all are allowed.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry

from trading.errors import LearningError
from trading.learning.rollout import ACTION_MASK, OBSERVATIONS, BoolArray, FloatArray, IntArray

AnyVectorEnv: TypeAlias = "VectorEnv[Any, Any, Any]"
Situation: TypeAlias = dict[str, Any]
"""`observations` float32 [B, F] and `action_mask` bool [B, N]."""

_CONFIG_NAMES = ("config", "cfg", "ctx", "context")
"""In the name of a constructor's first parameter: it wants RLlib's one dict of settings."""


class Step(NamedTuple):
    """What one step of B environments gave."""

    situation: Situation
    """What is seen now; of an ended episode the next one's first, except after NEXT_STEP."""
    rewards: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    last: Callable[[IntArray], tuple[FloatArray, BoolArray]]
    """The last observation and mask of the episodes that ended in these rows."""
    episode: dict[str, Any]
    """What the environment itself tells of ended episodes, arrays [B] by name."""


class SteppedEnv:
    """B environments with one observation, one mask, and one way to begin anew.

    Gymnasium's vector environments begin anew in the same step as an episode ends (`SAME_STEP`), in
    the next one, whose action then counts for nothing (`NEXT_STEP`), or when they are told to
    (`DISABLED`). All three work: `resetting` says which environments only begin anew in the next
    step, so that it is not learned from.

    Parameters
    ----------
    env
        A vector environment.
    mask_key
        Of the action mask in its observations, where they are a `Dict`.
    seed
        For its first reset; None where the environment was made with one.

    Raises
    ------
    LearningError
        It does not say how it begins anew, or its actions are not `Discrete`.
    """

    def __init__(self, env: AnyVectorEnv, mask_key: str = ACTION_MASK, seed: int | None = None):
        self.env = env
        self.num_envs: int = env.num_envs
        self.mode = _autoreset_mode(env)
        self.resetting = np.zeros(self.num_envs, np.bool_)
        self._seed = seed
        self._view = _View(env.single_observation_space, env.single_action_space, mask_key)

    @property
    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Observation and action space of one environment, as the network is shaped by them."""
        return self._view.spaces

    def reset(self) -> Situation:
        """Begin an episode in every environment."""
        with self._explained():
            raw, _ = self.env.reset() if self._seed is None else self.env.reset(seed=self._seed)
        self._seed = None
        self.resetting[:] = False
        return self._view.batch(raw, self.num_envs)

    def step(self, actions: IntArray) -> Step:
        """Act once in every environment.

        Raises
        ------
        LearningError
            A truncated episode's last observation is missing.
        """
        with self._explained():
            raw, rewards, terminated, truncated, info = self.env.step(self._view.actions(actions))
        ended = np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_)
        shown = self._view.batch(raw, self.num_envs)
        if self.mode is AutoresetMode.SAME_STEP:
            last = self._last_of(info)
        else:
            final = {name: array.copy() for name, array in shown.items()} if ended.any() else shown
            last = lambda rows: (final[OBSERVATIONS][rows], final[ACTION_MASK][rows])  # noqa: E731
        if self.mode is AutoresetMode.NEXT_STEP:
            self.resetting = ended
            # A state without a future may allow nothing; the action there counts for nothing.
            if ended.any():
                shown = {**shown, ACTION_MASK: shown[ACTION_MASK] | ended[:, None]}
        elif self.mode is AutoresetMode.DISABLED and ended.any():
            raw, _ = self.env.reset(options={"reset_mask": ended})
            shown = self._view.batch(raw, self.num_envs)
        return Step(
            shown,
            np.asarray(rewards, np.float32),
            np.asarray(terminated, np.bool_),
            np.asarray(truncated, np.bool_),
            last,
            _told(info),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say so where an environment of Gymnasium's loop gives what its space does not hold."""
        try:
            yield
        except (ValueError, TypeError, KeyError) as error:
            for one in getattr(self.env.unwrapped, "_env_obs", ()):
                if misfit := _misfit(self.env.single_observation_space, one):
                    raise LearningError(
                        f"the environment gives {misfit}: correct its observation_space, or what "
                        "it gives"
                    ) from error
            raise

    def _last_of(self, info: Mapping[str, Any]) -> Callable[..., tuple[FloatArray, BoolArray]]:
        def last(rows: IntArray) -> tuple[FloatArray, BoolArray]:
            final = info.get("final_obs")
            if final is None:
                raise LearningError(
                    f"{type(self.env.unwrapped).__name__} truncated an episode in "
                    'AutoresetMode.SAME_STEP and left no info["final_obs"], its last observation, '
                    "whose value goes on with the return: put it there, or use another mode"
                )
            return self._view.rows(final, rows, self.num_envs)

        return last

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


class _View:
    """Observations, masks and actions of one kind of environment, in arrays for the network."""

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any], mask_key: str) -> None:
        self._mask_key = mask_key
        self._space = observation
        self._count = 0
        if isinstance(action, gym.spaces.Discrete):
            self._count, self._first_action = int(action.n), int(action.start)
        self._key: str | None = None
        parts = dict(observation) if isinstance(observation, gym.spaces.Dict) else {}
        self._masked = mask_key in parts
        rest: gym.Space[Any] = observation
        if self._masked:
            del parts[mask_key]
            self._key = next(iter(parts), None) if len(parts) == 1 else None
            rest = parts[self._key] if self._key is not None else gym.spaces.Dict(parts)
        self._rest = rest
        self._plain = isinstance(rest, gym.spaces.Box)
        flat = rest if _is_row(rest) else _flat(rest)
        self._size = int(np.prod(flat.shape or ()))
        mask = gym.spaces.MultiBinary(self._count or 1)
        self.spaces = (
            gym.spaces.Dict(
                {OBSERVATIONS: flat, ACTION_MASK: observation[mask_key] if self._masked else mask}
            ),
            gym.spaces.Discrete(self._count) if self._count else action,
        )

    def actions(self, actions: IntArray) -> IntArray:
        """As the environment counts them."""
        return actions + self._first_action if self._first_action else actions

    def batch(self, raw: Any, rows: int) -> Situation:
        """Of B environments, as a vector environment gives them."""
        rest, mask = self._split(raw)
        if self._plain:
            observations = np.asarray(rest, np.float32).reshape(rows, -1)
        else:
            space = gym.vector.utils.batch_space(self._rest, rows)
            each = gym.vector.utils.iterate(space, rest)
            observations = np.stack([self._flatten(one) for one in each])
        if observations.shape[1] != self._size:
            raise LearningError(
                f"the environment gives rows of {observations.shape[1]} numbers where its "
                f"observation_space says {self._size}: correct the one or the other"
            )
        if mask is None:
            allowed = np.ones((rows, self._count), np.bool_)
        else:
            allowed = np.asarray(mask, np.bool_)
        return {OBSERVATIONS: observations, ACTION_MASK: allowed}

    def rows(self, final: Any, rows: IntArray, total: int) -> tuple[FloatArray, BoolArray]:
        """Of some rows, from a batch or from an array of single observations."""
        if not (isinstance(final, np.ndarray) and final.dtype == object):
            whole = self.batch(final, total)
            return whole[OBSERVATIONS][rows], whole[ACTION_MASK][rows]
        seen = [self._split(final[row]) for row in rows]
        observations = np.stack([self._flatten(rest) for rest, _ in seen])
        allowed = [np.ones(self._count) if mask is None else mask for _, mask in seen]
        return observations, np.asarray(allowed, np.bool_)

    def _split(self, raw: Any) -> tuple[Any, Any]:
        if not self._masked:
            return raw, None
        mask = raw[self._mask_key]
        if self._key is not None:
            return raw[self._key], mask
        return {name: raw[name] for name in cast(gym.spaces.Dict, self._rest)}, mask

    def _flatten(self, one: Any) -> FloatArray:
        if self._plain:
            return np.asarray(one, np.float32).reshape(-1)
        return np.asarray(gym.spaces.flatten(self._rest, one), np.float32)


def stepped_env(config: Any, seed: int, worker: tuple[int, int] = (0, 0)) -> SteppedEnv:
    """Return the environments that a config names.

    Parameters
    ----------
    config
        A `CLSTMPPOConfig`.
    seed
        Of everything random in them.
    worker
        Index of the runner and number of runners, for RLlib's `EnvContext`.

    Raises
    ------
    LearningError
        There is none, it cannot be made, or it is of a kind that does not work here.
    """
    arguments = dict(config.env_config)
    if "beginnings" in arguments:  # of an older checkpoint
        arguments["initial_conditions"] = arguments.pop("beginnings")
    factory = arguments.pop("factory", None)
    envs: int = config.num_envs_per_env_runner
    if factory is not None and config.env is not None:
        raise LearningError(
            f'environment({config.env!r}) and env_config["factory"] both name an environment: '
            "give one of them"
        )
    if isinstance(factory, str):
        factory = _from_path(factory)
    context = EnvContext(arguments, worker_index=worker[0], num_workers=worker[1])
    if factory is not None and not _is_single(factory):
        env = factory(num_envs=envs, seed=seed, **arguments)
    else:
        env = _vectorised(config, factory if factory is not None else config.env, context)
    if not isinstance(env, VectorEnv):
        raise LearningError(
            f'env_config["factory"] made a {type(env).__name__}; it must make a '
            "gymnasium.vector.VectorEnv of num_envs environments. A single environment is given "
            "by environment(ITS CLASS)"
        )
    if env.num_envs != envs:
        raise LearningError(
            f"{type(env).__name__} holds {env.num_envs} environments; "
            f"num_envs_per_env_runner is {envs}"
        )
    unwrapped = env.unwrapped
    # Gymnasium's own know a seed by their reset only; others were made with it.
    own_seed = isinstance(unwrapped, SyncVectorEnv | AsyncVectorEnv) or factory is None
    return SteppedEnv(env, config.action_mask_key, seed if own_seed else None)


def _vectorised(config: Any, named: Any, context: EnvContext) -> Any:
    """Many environments of one that is named by id, registered name, path or class."""
    envs: int = config.num_envs_per_env_runner
    if named is None:
        raise LearningError(
            'no environment is named: environment("CartPole-v1"), a registered name or a class, or '
            'environment(env_config={"factory": ...}) with a callable that makes a '
            "gymnasium.vector.VectorEnv, or its dotted path"
        )
    mode = gym.VectorizeMode(config.gym_env_vectorize_mode)
    registered = isinstance(named, str) and _global_registry.contains(ENV_CREATOR, named)
    make: Callable[[], Any]
    if registered:
        creator = _global_registry.get(ENV_CREATOR, named)
        make = lambda: creator(context)  # noqa: E731
    elif isinstance(named, str) and not _is_gym_id(named):
        named = _from_path(named)
        make = lambda: _constructed(named, context)  # noqa: E731
    elif isinstance(named, str):
        make = lambda: gym.make(named, **context)  # noqa: E731
    else:
        make = lambda: _constructed(named, context)  # noqa: E731
    if mode is gym.VectorizeMode.VECTOR_ENTRY_POINT:
        if isinstance(named, str) and not registered:
            return gym.make_vec(named, envs, mode, **context)
        return creator(EnvContext({**context, "num_envs": envs}, context.worker_index))
    one = make()
    if isinstance(one, VectorEnv):
        raise LearningError(
            f"{named!r} makes a vector environment: give what makes it by "
            'env_config["factory"], which is called with num_envs and seed, or set '
            'env_runners(gym_env_vectorize_mode="vector_entry_point")'
        )
    if not isinstance(one, gym.Env):
        raise LearningError(
            f"{named!r} makes a {type(one).__name__}, which is no gymnasium.Env; several agents "
            "are not for this algorithm"
        )
    if mode is gym.VectorizeMode.ASYNC:
        one.close()
        return AsyncVectorEnv([make] * envs, autoreset_mode=AutoresetMode.SAME_STEP)
    first = iter([one])
    makers = [lambda: next(first), *[make] * (envs - 1)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def _constructed(cls: Any, context: EnvContext) -> Any:
    """Make an environment of a class, of RLlib's kind with a dict or Gymnasium's with names."""
    parameters = list(inspect.signature(cls).parameters.values())
    if not parameters:
        return cls()
    name = parameters[0].name.lower()
    if any(word in name for word in _CONFIG_NAMES):
        return cls(context)
    return cls(**context)


def _is_single(factory: Any) -> bool:
    return isinstance(factory, type) and issubclass(factory, gym.Env)


def _is_gym_id(name: str) -> bool:
    if name in gym.registry or ":" in name:
        return True
    try:
        gym.spec(name)
    except gym.error.Error:
        return "." not in name
    return True


def _from_path(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LearningError(
            f"the environment {path!r} cannot be imported ({error}): it is neither registered nor "
            "a Gymnasium id, and as a factory or class it must read package.module.name"
        ) from error


def _autoreset_mode(env: AnyVectorEnv) -> AutoresetMode:
    """How a vector environment begins anew.

    Gymnasium's own keep it in an attribute; their metadata is the environment class's, which all
    that were made of it share.
    """
    said = getattr(env.unwrapped, "autoreset_mode", None) or env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(said)
    except ValueError as error:
        modes = ", ".join(str(mode) for mode in AutoresetMode)
        raise LearningError(
            f"{type(env.unwrapped).__name__} says {said!r} of how it begins anew after an "
            f'episode: set metadata["autoreset_mode"] to one of {modes}'
        ) from error


def _told(info: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of ended episodes, where a wrapper or the environment itself keeps them."""
    told = info.get("episode") or (info.get("final_info") or {}).get("episode") or {}
    return {
        name: values
        for name, values in dict(told).items()
        if not name.startswith("_") and isinstance(values, np.ndarray) and values.dtype != object
    }


def _misfit(space: gym.Space[Any], given: Any) -> str:
    """Say what of an observation is of another shape than its space; empty where nothing is."""
    if given is None:
        return ""
    if isinstance(space, gym.spaces.Dict):
        parts = dict(space)
        if not isinstance(given, Mapping) or parts.keys() - given.keys():
            return f"{type(given).__name__} without all of {', '.join(parts)}"
        told = [(f" in {name!r}", part, given[name]) for name, part in parts.items()]
    elif isinstance(space, gym.spaces.Tuple):
        told = [(f" in part {i}", *pair) for i, pair in enumerate(zip(space, given, strict=False))]
    elif space.shape is not None and np.shape(given) != space.shape:
        return f"an observation of shape {np.shape(given)} where its space says {space.shape}"
    else:
        return ""
    return next((found + at for at, part, one in told if (found := _misfit(part, one))), "")


def _is_row(space: gym.Space[Any]) -> bool:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def _flat(space: gym.Space[Any]) -> gym.Space[Any]:
    flat = gym.spaces.flatten_space(space)
    if not isinstance(flat, gym.spaces.Box):
        raise LearningError(
            f"the observation space {space} has no fixed number of values; the network wants one "
            "row of numbers"
        )
    return cast(gym.Space[Any], flat)
