"""What a policy experienced: T steps of B sequences as NumPy arrays, and V-trace over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trading.errors import LearningError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
RecurrentState = dict[str, FloatArray]

OBSERVATIONS, ACTION_MASK = "observations", "action_mask"
"""What a policy is given, by its names in a space of RLlib."""
OTHER_BEHAVIOUR = -1
"""As `Rollout.weights_version`: the actions were not drawn from any weights' own distribution."""

_PER_STEP = (
    "observations",
    "action_mask",
    "actions",
    "log_probs",
    "values",
    "rewards",
    "first",
    "terminated",
    "truncated",
    "final_values",
    "valid",
)
_DTYPES: dict[str, type[np.generic]] = {
    "observations": np.float32,
    "action_mask": np.bool_,
    "actions": np.int64,
    "log_probs": np.float32,
    "values": np.float32,
    "rewards": np.float32,
    "first": np.bool_,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "final_values": np.float32,
    "last_values": np.float32,
    "valid": np.bool_,
}


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """T steps of B sequences, time-major. T and B are free: nothing downstream bakes them in.

    An episode that ends at step t sets `terminated[t]` or `truncated[t]`, and the next valid step
    of that sequence sets `first`. Steps with `valid` False are padding: they count for nothing.
    """

    observations: FloatArray
    """float32 [T, B, F]: what the policy saw before acting."""
    action_mask: BoolArray
    """bool [T, B, N]: the actions allowed."""
    actions: IntArray
    """int64 [T, B]: the action taken."""
    log_probs: FloatArray
    """float32 [T, B]: log probability of the action when it was taken."""
    values: FloatArray
    """float32 [T, B]: the value estimate when the action was taken."""
    rewards: FloatArray
    """float32 [T, B]: the reward that followed the action."""
    first: BoolArray
    """bool [T, B]: the step is an episode's first, so the state is zeroed before it."""
    terminated: BoolArray
    """bool [T, B]: the episode ended in a state without a future."""
    truncated: BoolArray
    """bool [T, B]: the episode was cut although there was a future."""
    final_values: FloatArray
    """float32 [T, B]: value of the episode's final observation where truncated, else 0."""
    last_values: FloatArray
    """float32 [B]: value of the observation after the last valid step of a running episode."""
    valid: BoolArray
    """bool [T, B]: False marks padding."""
    initial_state: RecurrentState
    """float32 [layers, B, hidden] by `CLSTMConfig.state_shapes`: the state before step 0."""
    weights_version: int = 0
    """Version of the weights that acted, the oldest where several did; or OTHER_BEHAVIOUR."""

    @property
    def shape(self) -> tuple[int, int]:
        """(T, B)."""
        steps, sequences = self.actions.shape
        return steps, sequences

    @property
    def steps(self) -> int:
        """Number of valid steps."""
        return int(self.valid.sum())

    def validate(self) -> None:
        """Check dtypes, shapes and contents.

        Raises
        ------
        LearningError
            Names the field and what is wrong with it.
        """
        self._validate_shapes()
        valid = self.valid
        for name in ("observations", "log_probs", "values", "rewards", "final_values"):
            if not np.isfinite(getattr(self, name)[valid]).all():
                raise LearningError(f"rollout.{name} holds NaN or infinity; it is refused")
        if not np.isfinite(self.last_values).all():
            raise LearningError("rollout.last_values holds NaN or infinity; it is refused")
        for key, array in self.initial_state.items():
            if not np.isfinite(array).all():
                raise LearningError(f"rollout.initial_state[{key!r}] holds NaN or infinity")
        count = self.action_mask.shape[-1]
        actions = self.actions[valid]
        if actions.size and (actions.min() < 0 or actions.max() >= count):
            raise LearningError(f"rollout.actions holds an action outside 0..{count - 1}")
        allowed = np.take_along_axis(
            self.action_mask, self.actions.clip(0, count - 1)[..., None], axis=-1
        )[..., 0]
        if not allowed[valid].all():
            raise LearningError("rollout.actions holds an action its own mask forbids")
        follows = valid[1:] & valid[:-1]
        ended = (self.terminated | self.truncated)[:-1]
        if (ended != self.first[1:])[follows].any():
            raise LearningError(
                "rollout.first disagrees with terminated/truncated: `first` must be set exactly on "
                "the step after an episode's last"
            )

    def _validate_shapes(self) -> None:
        if self.actions.ndim != 2 or 0 in self.actions.shape:
            raise LearningError(f"rollout.actions has shape {self.actions.shape}; want [T, B]")
        steps, sequences = self.shape
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype:
                raise LearningError(
                    f"rollout.{name} is {array.dtype}; it must be {np.dtype(dtype)}"
                )
            want = (sequences,) if name == "last_values" else (steps, sequences)
            rank = 3 if name in ("observations", "action_mask") else len(want)
            if array.ndim != rank or array.shape[: len(want)] != want:
                raise LearningError(f"rollout.{name} has shape {array.shape}; want {want} first")
        for key, array in self.initial_state.items():
            if array.ndim != 3 or array.shape[1] != sequences:
                raise LearningError(
                    f"rollout.initial_state[{key!r}] has shape {array.shape}; "
                    f"want [layers, {sequences}, hidden]"
                )

    def padded(self, steps: int) -> "Rollout":
        """Return the same rollout with invalid steps appended up to `steps`.

        Raises
        ------
        LearningError
            The rollout is already longer than `steps`.
        """
        extra = steps - self.shape[0]
        if extra < 0:
            raise LearningError(f"a rollout of {self.shape[0]} steps cannot be padded to {steps}")
        if extra == 0:
            return self
        columns: dict[str, Any] = {}
        for name in _PER_STEP:
            array = getattr(self, name)
            fill = np.zeros((extra, *array.shape[1:]), array.dtype)
            columns[name] = np.concatenate([array, fill])
        columns["action_mask"][-extra:, :, 0] = True
        return replace(self, **columns)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = [getattr(self, name) for name in _DTYPES]
        return sum(array.nbytes for array in (*arrays, *self.initial_state.values()))

    def parts(self, count: int) -> list["Rollout"]:
        """Cut the rollout along B into so many parts of nearly equal size, or one a sequence."""
        count = min(count, self.shape[1])
        if count < 2:
            return [self]
        bounds = [self.shape[1] * k // count for k in range(count + 1)]
        return [self._columns(slice(*each)) for each in pairwise(bounds)]

    def _columns(self, some: slice) -> "Rollout":
        # In memory of their own: Ray sends such arrays without copying them once more.
        columns: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(self, name)[:, some]) for name in _PER_STEP
        }
        columns["last_values"] = self.last_values[some].copy()
        columns["initial_state"] = {
            key: np.ascontiguousarray(array[:, some]) for key, array in self.initial_state.items()
        }
        return replace(self, **columns)

    @staticmethod
    def concatenate(rollouts: Sequence["Rollout"]) -> "Rollout":
        """Join rollouts of equal T along B; the weights version is the oldest of them.

        Raises
        ------
        LearningError
            There is no rollout, or their T differ (`padded` makes them equal).
        """
        if not rollouts:
            raise LearningError("there is no rollout to concatenate")
        if len(rollouts) == 1:
            return rollouts[0]
        lengths = sorted({rollout.shape[0] for rollout in rollouts})
        if len(lengths) > 1:
            raise LearningError(f"rollouts of {lengths} steps cannot be joined; pad them first")
        columns = {
            name: np.concatenate([getattr(rollout, name) for rollout in rollouts], axis=1)
            for name in _PER_STEP
        }
        return Rollout(
            **columns,
            last_values=np.concatenate([r.last_values for r in rollouts]),
            initial_state={
                key: np.concatenate([r.initial_state[key] for r in rollouts], axis=1)
                for key in rollouts[0].initial_state
            },
            weights_version=min(r.weights_version for r in rollouts),
        )


class Sequences(NamedTuple):
    """How T steps of B columns are rearranged into L steps of V sequences."""

    steps: IntArray
    """int64 [L, V]: which step of the flattened [T * B] is at this place."""
    inside: BoolArray
    """bool [L, V]: False where the sequence has already ended; `steps` repeats its last one."""
    column: IntArray
    """int64 [V]: the column that the sequence is a part of."""


def cut_at_episodes(first: BoolArray) -> Sequences:
    """Cut every column where an episode starts, so that a recurrent state is reset only at step 0.

    A network then runs over all steps at once instead of stopping wherever one column resets.
    Columns stay whole when cutting would more than double the places to compute.

    Parameters
    ----------
    first : bool [T, B]
    """
    steps, columns = first.shape
    begins = first.copy()
    begins[0] = True
    column, start = np.nonzero(begins.T)
    end = np.append(start[1:], steps)
    end[np.append(column[1:] != column[:-1], True)] = steps
    length = end - start
    if length.max() * len(start) > 2 * steps * columns:
        return whole_columns(first.shape)
    place = np.arange(length.max())[:, None]
    index = (start + np.minimum(place, length - 1)) * columns + column
    return Sequences(index, place < length, column)


def whole_columns(shape: tuple[int, int]) -> Sequences:
    """Every column of [T, B] as one sequence, for a network that resets states on its way."""
    steps, columns = shape
    index = np.arange(steps * columns).reshape(shape)
    return Sequences(index, np.ones(shape, np.bool_), np.arange(columns))


def vtrace(
    rollout: Rollout,
    gamma: float,
    lam: float,
    ratios: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """V-trace targets v and advantages v - V (Espeholt et al. 2018, arXiv:1802.01561, eq. 1).

    With rho = min(1, ratio), which is the paper's rho and c alike,

        v[t] - V[t] = rho * (reward + gamma * V[t + 1] - V[t]
                             + gamma * lam * (v[t + 1] - V[t + 1]))

    which for ratios of 1 is generalised advantage estimation (Schulman et al. 2016,
    arXiv:1506.02438, eq. 16). The value after a step is 0 where the episode terminated,
    `final_values` where it was truncated, and else the next valid step's value (`last_values` after
    the last one).

    Parameters
    ----------
    rollout
        T steps of B sequences; its `values` are V.
    gamma
        Discount per step, 0..1.
    lam
        Weight of longer estimates, 0..1.
    ratios : float32 [T, B]
        Probability of the action under the policy that learns over that under the policy that
        acted; None where they are the same.

    Returns
    -------
    tuple[FloatArray, FloatArray]
        Advantages v - V and returns v, float32 [T, B]; 0 on invalid steps.
    """
    ratios = np.ones_like(rollout.values) if ratios is None else ratios
    rho = np.minimum(ratios, np.float32(1.0))
    advantages = np.zeros_like(rollout.values)
    next_value = rollout.last_values
    next_advantage = np.zeros_like(rollout.last_values)
    ended = rollout.terminated | rollout.truncated
    bootstrap = np.where(rollout.terminated, np.float32(0), rollout.final_values)
    for t in range(rollout.shape[0] - 1, -1, -1):
        value = rollout.values[t]
        following = np.where(ended[t], bootstrap[t], next_value)
        error = rollout.rewards[t] + np.float32(gamma) * following - value
        carried = np.where(ended[t], np.float32(0), next_advantage)
        advantage = rho[t] * error + np.float32(gamma * lam) * (rho[t] * carried)
        valid = rollout.valid[t]
        next_value = np.where(valid, value, next_value)
        next_advantage = np.where(valid, advantage, next_advantage)
        advantages[t] = np.where(valid, advantage, np.float32(0))
    returns = np.where(rollout.valid, advantages + rollout.values, np.float32(0))
    return advantages, returns
