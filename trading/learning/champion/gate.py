"""Whether a challenger may trade: what it must not break, and what it must not lose.

Everything is repeatable: equal weights give an equal result, but for the time it took.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from trading.errors import LearningError
from trading.execution.events import Compared
from trading.learning.champion.non_inferiority import (
    DRIFTED,
    UNPROVEN,
    WORSE,
    Levels,
    Returns,
    chances,
    compare,
    not_proven,
    spent_confidence,
)
from trading.learning.champion.store import not_finite, weights_digest
from trading.learning.clstm import CLSTMConfig
from trading.learning.policy import Policy, Weights
from trading.learning.rollout import ACTION_MASK, OBSERVATIONS, BoolArray, FloatArray, IntArray
from trading.plugins.plugin_registry import SessionTrader

__all__ = [
    "CHECKS",
    "DRIFTED",
    "KL",
    "MASK",
    "NOT_FINITE",
    "UNPROVEN",
    "WORSE",
    "Gate",
    "GateLimits",
]
__all__ += ["GateResult", "HeldOut", "Returns", "SessionTrader", "compare", "mean_kl", "not_proven"]
__all__ += ["output_fault"]

NOT_FINITE, MASK, KL = "not_finite", "mask", "kl"
CHECKS = (NOT_FINITE, MASK, KL, WORSE, UNPROVEN, DRIFTED)

_HARMFUL = frozenset({NOT_FINITE, MASK, KL, WORSE})
_PROBE_ACCOUNTS = 16
_DRAWS_SEED = 0x6A7E


class HeldOut(NamedTuple):
    """Sessions that nothing is trained on."""

    name: str
    trade: Callable[[SessionTrader], Returns]
    """Trades the same ones until `renew`; gives fractions of the initial capital, [D]."""
    renew: Callable[[], None] | None = None
    """Called before each judgement: takes other sessions, in place of some or of all."""


@dataclass(frozen=True)
class GateLimits:
    """What a challenger is held to."""

    confidence: float
    """That none of all challengers judged against one champion is promoted who loses the margin."""
    margin_pct: float
    """Percent of the initial capital a session by which a challenger may be worse."""
    max_kl: float
    """Nats, mean over the states that the champion comes to."""


@dataclass(frozen=True)
class GateResult:
    """What the gate found."""

    failed: tuple[str, ...]
    """The checks of `CHECKS` that the challenger did not pass."""
    reason: str
    """For people: why it failed, or on what it passed."""
    kl: float | None
    """KL(champion || challenger) in nats; None where the challenger's outputs are no numbers."""
    compared: tuple[Compared, ...]
    seconds: float
    chances: tuple[tuple[float, float], ...] = ()
    """Losses in percent a session, and with what probability a challenger of such a loss passes."""

    @property
    def passed(self) -> bool:
        """Whether the challenger may trade."""
        return not self.failed

    @property
    def harmful(self) -> bool:
        """Whether learning must not go on from the challenger."""
        return not _HARMFUL.isdisjoint(self.failed)

    @property
    def summary(self) -> str:
        """The reason, and how strict the test was."""
        if not self.chances:
            return self.reason
        each = [f"{loss:g} with probability {chance:.2g}" for loss, chance in self.chances]
        return f"{self.reason}; who is worse by so many % a session passes: {', '.join(each)}"


class Gate:
    """Judges challengers against the champion.

    Both trade the same held-out sessions as they would trade live, and where actions are drawn with
    equal draws for both, so that only where the policies differ do the sessions. The champion's are
    traded once, but for sets that are renewed. Where the sessions are too few for a bound their
    plain mean decides.

    Each judgement against one champion spends a part of the error that is allowed, 1 / (k (k + 1))
    of it the k-th one, which adds up to all of it: asking again and again does not get a worse
    challenger through.

    A champion's margin must not be given away again and again: a challenger is also held to the
    best level that any champion reached. Levels are sums of paired differences, so that they do
    not depend on which sessions were traded.

    Parameters
    ----------
    config
        Shape of the network.
    limits
        What challengers are held to.
    held_out
        At least one; the states that the champion comes to on the first are where KL is measured.
    acting
        How both act, see `Policy`: as they trade.
    """

    def __init__(
        self,
        config: CLSTMConfig,
        limits: GateLimits,
        held_out: Sequence[HeldOut],
        acting: str | float = "sampled",
    ) -> None:
        if not held_out:
            raise LearningError("the gate needs at least one set of held-out sessions")
        self.limits = limits
        self._config = config
        self._acting = acting
        self._held_out = list(held_out)
        self._champion: _Trial | None = None
        self._judged = 0
        """Challengers, against the present champion."""
        self._levels = Levels()
        self._missing: tuple[str, ...] = ()

    def hold_out(self, held_out: Sequence[HeldOut], missing: Sequence[str] = ()) -> None:
        """Judge on these sessions from now on; `missing` names sets that do not exist yet."""
        self._held_out = list(held_out)
        self._champion = None
        self._missing = tuple(missing)

    def judge(self, champion: Weights, challenger: Weights) -> GateResult:
        """Hold a challenger to every check; the champion's part is remembered.

        Raises
        ------
        LearningError
            The weights are another network's, or the champion itself fails.
        """
        started = time.perf_counter()
        for held_out in self._held_out:
            if held_out.renew is not None:
                held_out.renew()
        incumbent = self._champion_trial(champion)
        self._judged += 1
        faults, kl, policy = self._probe(incumbent, challenger)
        compared: list[Compared] = []
        if policy is not None:
            trial = self._trade(challenger)
            if trial.fault is not None:
                faults.append(trial.fault)
            else:
                compared, worse = self._compare(incumbent, trial)
                faults += worse
        if not faults:
            self._levels.passed(weights_digest(challenger), compared)
        return GateResult(
            failed=tuple(dict.fromkeys(check for check, _ in faults)),
            reason=self._reason([why for _, why in faults], compared),
            kl=kl,
            compared=tuple(compared),
            seconds=time.perf_counter() - started,
            chances=chances(compared, self._confidence, self.limits.margin_pct),
        )

    @property
    def _confidence(self) -> float:
        """Of the lower bounds of this judgement."""
        return spent_confidence(self.limits.confidence, self._judged)

    def _champion_trial(self, champion: Weights) -> "_Trial":
        digest = weights_digest(champion)
        if self._levels.digest != digest:
            self._judged = 0
            self._levels.begin(digest)
        renewed = any(held_out.renew is not None for held_out in self._held_out)
        if renewed or self._champion is None or self._champion.digest != digest:
            trial = self._trade(champion)
            if trial.fault is not None:
                raise LearningError(
                    f"the champion itself fails the gate ({trial.fault[1]}): promote another one "
                    "with `trading checkpoints promote`"
                )
            self._champion = trial
        return self._champion

    def _trade(self, weights: Weights) -> "_Trial":
        returns = []
        probe: _Probe | None = None
        for held_out in self._held_out:
            policy = Policy(self._config, _DRAWS_SEED, acting=self._acting)
            policy.load_weights(weights)
            trader = _Watched(policy)
            try:
                returns.append(held_out.trade(trader))
            except _Misbehaved as fault:
                return _Trial(weights_digest(weights), [], None, (fault.check, str(fault)))
            probe = probe or trader.probe()
        return _Trial(weights_digest(weights), returns, probe, None)

    def _probe(
        self, champion: "_Trial", challenger: Weights
    ) -> tuple[list[tuple[str, str]], float | None, Policy | None]:
        """Faults and KL in the champion's states, and the challenger if it can act at all."""
        if wrong := not_finite(challenger):
            return [(NOT_FINITE, wrong)], None, None
        policy = Policy(self._config, _DRAWS_SEED)
        policy.load_weights(challenger)
        probe = champion.probe
        assert probe is not None, "a trial without a fault has a probe"
        log_probs, values = probe.outputs_of(policy)
        fault = output_fault(np.exp(log_probs), values, probe.mask)
        if fault is not None:
            return [fault], None, None
        kl = mean_kl(probe.log_probs, log_probs, probe.mask)
        if not kl <= self.limits.max_kl:
            return [(KL, f"KL {kl:.4f} above {self.limits.max_kl:g}")], kl, policy
        return [], kl, policy

    def _compare(
        self, champion: "_Trial", trial: "_Trial"
    ) -> tuple[list[Compared], list[tuple[str, str]]]:
        compared, faults = [], []
        margin = self.limits.margin_pct
        for held_out, ours, theirs in zip(
            self._held_out, champion.returns, trial.returns, strict=True
        ):
            limits = self.limits
            each = compare(held_out.name, ours, theirs, self._confidence, limits.confidence)
            compared.append(each)
            fault = not_proven(each, margin)
            below = self._levels.below_best(each)
            if fault is not None:
                faults.append(fault)
            elif not below <= margin:
                faults.append(
                    (
                        DRIFTED,
                        f"{each.challenger:+.3f} % a session on {each.held_out}, {below:.3f} "
                        f"below the best champion and so more than {margin:g}",
                    )
                )
        return compared, faults

    def _reason(self, faults: Sequence[str], compared: Sequence[Compared]) -> str:
        names = ", ".join(each.held_out for each in compared)
        parts = [*faults] if faults else [f"not worse on {names}"]
        return "; ".join([*parts, *(f"{name}: none" for name in self._missing)])


def output_fault(
    probabilities: FloatArray, values: FloatArray, mask: BoolArray
) -> tuple[str, str] | None:
    """Return what is wrong with a policy's outputs.

    No numbers, or a chance for what is forbidden.
    """
    if not (np.isfinite(probabilities).all() and np.isfinite(values).all()):
        return NOT_FINITE, "the policy's outputs hold NaN or infinity"
    chance = float(np.where(mask, 0.0, probabilities).max())
    if chance != 0.0:
        return MASK, f"a forbidden action has the probability {chance:g}"
    return None


def mean_kl(champion: FloatArray, challenger: FloatArray, mask: BoolArray) -> float:
    """KL(champion || challenger) in nats, from log probabilities [..., N], over allowed actions."""
    ours = np.where(mask, champion, 0.0).astype(np.float64)
    theirs = np.where(mask, challenger, 0.0).astype(np.float64)
    chance = np.where(mask, np.exp(ours), 0.0)
    # What the champion all but never does counts for nothing, whatever the challenger thinks of it.
    terms = np.where(chance > 0.0, chance * (ours - theirs), 0.0)
    return float(terms.sum(axis=-1).mean())


class _Misbehaved(Exception):
    """A policy failed a check while it traded."""

    def __init__(self, check: str, why: str) -> None:
        super().__init__(why)
        self.check = check


class _Probe(NamedTuple):
    """Whole sequences of states, [T, P, ...], from the zero state on."""

    observations: FloatArray
    mask: BoolArray
    first: BoolArray
    log_probs: FloatArray
    """[T, P, N], of the policy that came to these states; -inf where forbidden."""

    @torch.no_grad()
    def outputs_of(self, policy: Policy) -> tuple[FloatArray, FloatArray]:
        """Log probabilities [T, P, N] and values [T, P] of another policy in the same states."""
        state = policy.initial_state(self.first.shape[1])
        logits, values, _ = policy.model(
            torch.from_numpy(self.observations),
            torch.from_numpy(self.mask),
            {key: torch.from_numpy(array) for key, array in state.items()},
            torch.from_numpy(self.first),
        )
        return torch.log_softmax(logits, dim=-1).numpy(), values.numpy()


class _Trial(NamedTuple):
    """What one policy came to on every held-out set."""

    digest: str
    returns: list[Returns]
    probe: _Probe | None
    fault: tuple[str, str] | None


class _Watched:
    """Trades by a policy's actions, and looks at every output."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._accounts = 0
        self._state = policy.initial_state(0)
        self._kept: list[tuple[FloatArray, BoolArray, BoolArray, FloatArray]] = []

    def __call__(self, observation: dict[str, npt.NDArray[Any]], first: BoolArray) -> IntArray:
        if len(first) != self._accounts:
            # Other sessions of the set begin, of another number of accounts.
            self._accounts = len(first)
            self._state = self._policy.initial_state(self._accounts)
        seen = np.asarray(observation[OBSERVATIONS], dtype=np.float32)
        mask = np.asarray(observation[ACTION_MASK], dtype=np.bool_)
        decision, self._state = self._policy.act(seen, mask, self._state, first)
        fault = output_fault(decision.probabilities, decision.values, mask)
        if fault is not None:
            raise _Misbehaved(*fault)
        if not mask[np.arange(len(first)), decision.actions].all():
            raise _Misbehaved(MASK, "a forbidden action was taken")
        some = slice(_PROBE_ACCOUNTS)
        if not self._kept or len(first[some]) == len(self._kept[0][2]):
            with np.errstate(divide="ignore"):
                log_probs = np.log(decision.probabilities[some])
            self._kept.append((seen[some], mask[some], first[some].copy(), log_probs))
        return decision.actions

    def probe(self) -> _Probe:
        """Return the states that the first accounts came to, as many of them at a time."""
        seen, mask, first, log_probs = zip(*self._kept, strict=True)
        return _Probe(np.stack(seen), np.stack(mask), np.stack(first), np.stack(log_probs))
