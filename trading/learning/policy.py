"""A CLSTM that acts: seeded, bit-deterministic on CPU, and unable to pick a forbidden action."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from trading.errors import LearningError
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.compiled import CompiledNetwork, supports
from trading.learning.kernels.network import decide
from trading.learning.rollout import BoolArray, FloatArray, IntArray, RecurrentState

Weights = dict[str, npt.NDArray[np.float32]]

_NO_DRAWS = np.zeros(0)
_OPTIONS = {
    "feature_skip.weight": "they were learnt with model.residual, which there is no more",
    "feature.weight_ih_l1": "they were learnt with model.feature_layers, which there is no more",
    "feature_norm.weight": "they were learnt with model.layer_norm",
}
"""Of a weight that only a network with an option has: that option."""


class Decision(NamedTuple):
    """One action per row, with what PPO needs to learn from it."""

    actions: IntArray
    """int64 [B]."""
    log_probs: FloatArray
    """float32 [B]: log probability with which the action was taken; 0 where it had to be."""
    values: FloatArray
    """float32 [B]: estimated return from here."""
    probabilities: FloatArray
    """float32 [B, N]: the network's own distribution, 0 where forbidden."""


class Policy:
    """Acts for B rows at once; one row is one underlying (live) or one environment (training).

    Parameters
    ----------
    config
        Shape of the network.
    seed
        Seeds the initial weights and the sampling, apart from torch's global generator.
    model
        A network to act with instead of a new one; it is shared, not copied.
    acting
        How actions follow from the network's distribution: "sampled", "greedy" (the most likely
        one), or a temperature that the logits are divided by before one is drawn.

    Examples
    --------
    >>> from trading.config import ModelSettings
    >>> config = CLSTMConfig(observation_size=3, action_count=2, **ModelSettings().model_dump())
    >>> policy = Policy(config, seed=7)
    >>> decision, state = policy.act(
    ...     np.zeros((1, 3), np.float32),
    ...     np.array([[False, True]]),
    ...     policy.initial_state(1),
    ...     np.array([True]),
    ... )
    >>> int(decision.actions[0])
    1
    """

    def __init__(
        self,
        config: CLSTMConfig,
        seed: int,
        model: CLSTM | None = None,
        acting: str | float = "sampled",
    ) -> None:
        self.config = config
        self.acting = acting
        self._seed = seed
        self.model = model if model is not None else seeded_clstm(config, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self._compiled = CompiledNetwork(self.model) if supports(self.model) else None
        self._warm_up()

    @property
    def is_on_policy(self) -> bool:
        """Whether actions are drawn from the distribution that is learned, and no other."""
        return self.acting in ("sampled", 1.0)

    def draw_again(self) -> None:
        """Begin the random numbers again: equal situations then lead to equal actions."""
        self.generator.manual_seed(self._seed)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Return the state at the start of an episode: zeros [layers, B, hidden]."""
        return {
            key: np.zeros((layers, batch_size, hidden), np.float32)
            for key, (layers, hidden) in self.config.state_shapes.items()
        }

    @torch.no_grad()
    def act(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        state: RecurrentState,
        first: BoolArray,
        greedy: bool = False,
    ) -> tuple[Decision, RecurrentState]:
        """Choose one allowed action per row.

        Parameters
        ----------
        observations : float32 [B, F]
        action_mask : bool [B, N]
            At least one True per row.
        state
            Arrays [layers, B, hidden], from `initial_state` or the last call.
        first : bool [B]
            True where an episode starts.
        greedy
            Take the most likely action, whatever `acting` says. Neither it nor "greedy" draws a
            random number.

        Returns
        -------
        tuple[Decision, RecurrentState]
            The decision and the state to pass next time.

        Raises
        ------
        LearningError
            A shape does not fit, an observation is not finite, or a row allows no action.
        """
        self._check(observations, action_mask)
        logits, values, new_state = self._evaluate(observations, action_mask, state, first)
        if greedy or self.acting == "greedy":
            actions, log_probs, probabilities = decide(logits, _NO_DRAWS, True)
            return Decision(actions, np.zeros_like(log_probs), values, probabilities), new_state
        actions, log_probs, probabilities = decide(
            self._tempered(logits), self._draws(len(logits)), False
        )
        if not self.is_on_policy:
            probabilities = decide(logits, _NO_DRAWS, True)[2]
        return Decision(actions, log_probs, values, probabilities), new_state

    @torch.no_grad()
    def value(
        self, observations: FloatArray, action_mask: BoolArray, state: RecurrentState
    ) -> FloatArray:
        """Value float32 [B] of the observations that follow `state`; changes nothing.

        Raises
        ------
        LearningError
            As `act`, except that a row may allow no action.
        """
        self._check(observations, action_mask, need_action=False)
        first = np.zeros(observations.shape[0], np.bool_)
        _, values, _ = self._evaluate(observations, action_mask, state, first)
        return values

    def weights(self) -> Weights:
        """Return a copy of the weights by parameter name."""
        return {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in self.model.state_dict().items()
        }

    def load_weights(self, weights: Weights) -> None:
        """Take over weights of the same shape.

        Raises
        ------
        LearningError
            A name or a shape does not fit, or a weight is not finite; nothing is changed then.
        """
        load_weights(self.model, weights)

    def _evaluate(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        state: RecurrentState,
        first: BoolArray,
    ) -> tuple[FloatArray, FloatArray, RecurrentState]:
        """Masked logits float32 [B, N], values float32 [B], and the state after the step."""
        step = (observations[None], action_mask[None], first[None])
        if self._compiled is not None:
            logits, values, after = self._compiled.forward(*step[:2], state, step[2])
            return logits[0], values[0], after
        before = {key: torch.from_numpy(array) for key, array in state.items()}
        seen, mask, begins = map(torch.from_numpy, step)
        of_step, value, new_state = self.model(seen, mask, before, begins)
        after = {key: tensor.numpy() for key, tensor in new_state.items()}
        return of_step[0].numpy(), value[0].numpy(), after

    def _tempered(self, logits: FloatArray) -> FloatArray:
        if self.is_on_policy:
            return logits
        with np.errstate(over="ignore"):
            tempered: FloatArray = logits / np.float32(self.acting)
        # What is forbidden is the lowest number, which division makes infinite.
        return np.maximum(tempered, np.finfo(np.float32).min, dtype=np.float32)

    def _draws(self, rows: int) -> npt.NDArray[np.float64]:
        """Return a uniform number a row: the only source of randomness."""
        return torch.rand(rows, generator=self.generator, dtype=torch.float64).numpy()

    def _warm_up(self) -> None:
        """Have what a decision needs compiled now, or read from the cache, not while it is due."""
        self.act(
            np.zeros((1, self.config.observation_size), np.float32),
            np.ones((1, self.config.action_count), np.bool_),
            self.initial_state(1),
            np.ones(1, np.bool_),
            greedy=True,
        )

    def _check(
        self, observations: FloatArray, action_mask: BoolArray, need_action: bool = True
    ) -> None:
        rows = observations.shape[0]
        if observations.shape != (rows, self.config.observation_size):
            raise LearningError(
                f"observations have shape {observations.shape}; "
                f"the model wants [B, {self.config.observation_size}]"
            )
        if action_mask.shape != (rows, self.config.action_count):
            raise LearningError(
                f"action_mask has shape {action_mask.shape}; "
                f"the model wants [{rows}, {self.config.action_count}]"
            )
        if not np.isfinite(observations).all():
            raise LearningError("observations hold NaN or infinity; a decision needs finite ones")
        if need_action and not action_mask.any(axis=1).all():
            raise LearningError("action_mask has a row that allows no action; allow at least hold")


def seeded_clstm(config: CLSTMConfig, seed: int) -> CLSTM:
    """Return a CLSTM whose initial weights depend on `seed` only.

    Torch's global generator is kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLSTM(config)


def load_weights(model: CLSTM, weights: Weights) -> None:
    """Copy `weights` into `model` in place, all or nothing.

    Raises
    ------
    LearningError
        A name or a shape does not fit, or a weight is not finite.
    """
    own = model.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise LearningError(f"weights lack {', '.join(missing)}; they belong to another model")
    if unknown := sorted(weights.keys() - own.keys()):
        why = next(
            (_OPTIONS[name] for name in unknown if name in _OPTIONS), "another model's weights?"
        )
        raise LearningError(f"weights hold unknown {', '.join(unknown)}; {why}")
    for name, tensor in own.items():
        array = weights[name]
        if array.shape != tuple(tensor.shape):
            raise LearningError(
                f"weight {name} has shape {array.shape}; this model wants {tuple(tensor.shape)}"
                + _misfit(name, array.shape, tuple(tensor.shape))
            )
        if not np.isfinite(array).all():
            raise LearningError(f"weight {name} holds NaN or infinity; the weights are refused")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))


def _misfit(name: str, there: tuple[int, ...], here: tuple[int, ...]) -> str:
    """Return what a shape that differs means, where that can be told."""
    if len(there) != len(here):
        return ""
    if name == "policy_head.weight" and there[0] != here[0]:
        return (
            f": it has {there[0]} actions and {here[0]} are asked for; env.size_levels says how "
            "many sizes each opening has, env.structures which ones there are beside the "
            "catalogue's (docs/actions.md)"
        )
    if name.startswith(("input_norm.", "feature.weight_ih_l0")) and there[-1] != here[-1]:
        return (
            f": it reads {there[-1]} features, this program shows {here[-1]} (docs/observation.md);"
            " env.features adds some, and env.underlyings_per_account above 1"
        )
    part = name.partition(".")[0]
    if part in ("feature", "actor", "critic") and there[0] != here[0]:
        return f": model.{part}_hidden is {there[0] // 4} there and {here[0] // 4} here"
    return ""
