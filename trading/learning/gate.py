"""Whether a challenger may trade: what it must not break, and what it must not lose.

Everything is repeatable: equal weights give an equal verdict, but for the time it took.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from trading.errors import LearningError
from trading.execution.events import Compared
from trading.learning.champions import weights_digest
from trading.learning.clstm import CLSTMConfig
from trading.learning.module import ACTION_MASK, OBSERVATIONS
from trading.learning.policy import Policy, Weights
from trading.learning.rollout import BoolArray, FloatArray, IntArray

Returns = npt.NDArray[np.float64]
SessionTrader = Callable[[dict[str, npt.NDArray[Any]], BoolArray], IntArray]
"""Chooses an action per account from observations, and where an episode begins, bool[B]."""

NOT_FINITE, MASK, KL = "not_finite", "mask", "kl"
WORSE, UNPROVEN, CREPT = "worse", "unproven", "crept"
CHECKS = (NOT_FINITE, MASK, KL, WORSE, UNPROVEN, CREPT)

_HARMFUL = frozenset({NOT_FINITE, MASK, KL, WORSE})
_ENOUGH_SESSIONS = 20
_PROBE_ACCOUNTS = 16
_DRAWS_SEED = 0x6A7E


class HeldOut(NamedTuple):
    """Sessions that nothing is trained on."""

    name: str
    trade: Callable[[SessionTrader], Returns]
    """Trades the same ones every time; gives fractions of the initial capital, [D]."""


@dataclass(frozen=True)
class GateLimits:
    """What a challenger is held to."""

    confidence: float = 0.95
    """Of each one-sided bound of the mean difference of session returns."""
    margin_pct: float = 0.5
    """Percent of the initial capital a session by which a challenger may be worse."""
    max_kl: float = 0.1
    """Nats, mean over the states that the champion comes to."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    failed: tuple[str, ...]
    """The checks of `CHECKS` that the challenger did not pass."""
    reason: str
    """For people: why it failed, or on what it passed."""
    kl: float | None
    """KL(champion || challenger) in nats; None where the challenger's outputs are no numbers."""
    compared: tuple[Compared, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the challenger may trade."""
        return not self.failed

    @property
    def harmful(self) -> bool:
        """Whether learning must not go on from the challenger."""
        return not _HARMFUL.isdisjoint(self.failed)


class Gate:
    """Judges challengers against the champion.

    Both trade the same held-out sessions as they would trade live, and where actions are drawn with
    equal draws for both, so that only where the policies differ do the sessions. The champion's are
    traded once. Where the sessions are too few for a bound their plain mean decides.

    A champion's margin must not be given away again and again: a challenger is also held to the
    best mean that any champion reached on the same sessions.

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
        self._best: dict[str, float] = {}
        self._missing: tuple[str, ...] = ()

    def hold_out(self, held_out: Sequence[HeldOut], missing: Sequence[str] = ()) -> None:
        """Judge on these sessions from now on; `missing` names sets that do not exist yet."""
        self._held_out = list(held_out)
        self._champion, self._best = None, {}
        self._missing = tuple(missing)

    def judge(self, champion: Weights, challenger: Weights) -> Verdict:
        """Hold a challenger to every check; the champion's part is remembered.

        Raises
        ------
        LearningError
            The weights are another network's, or the champion itself fails.
        """
        started = time.perf_counter()
        reigning = self._reigning(champion)
        faults, kl, policy = self._probe(reigning, challenger)
        compared: list[Compared] = []
        if policy is not None:
            trial = self._trade(challenger)
            if trial.fault is not None:
                faults.append(trial.fault)
            else:
                compared, worse = self._compare(reigning, trial)
                faults += worse
        if not faults:
            self._remember_best(compared)
        return Verdict(
            failed=tuple(dict.fromkeys(check for check, _ in faults)),
            reason=self._told([why for _, why in faults], compared),
            kl=kl,
            compared=tuple(compared),
            seconds=time.perf_counter() - started,
        )

    def _reigning(self, champion: Weights) -> "_Trial":
        digest = weights_digest(champion)
        if self._champion is None or self._champion.digest != digest:
            trial = self._trade(champion)
            if trial.fault is not None:
                raise LearningError(
                    f"the champion itself fails the gate ({trial.fault[1]}): promote another one "
                    "with `trading checkpoints promote`"
                )
            self._champion = trial
            for held_out, returns in zip(self._held_out, trial.returns, strict=True):
                mean = 100.0 * float(returns.mean())
                self._best[held_out.name] = max(mean, self._best.get(held_out.name, -math.inf))
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
        self, reigning: "_Trial", challenger: Weights
    ) -> tuple[list[tuple[str, str]], float | None, Policy | None]:
        """Faults and KL in the champion's states, and the challenger if it can act at all."""
        for name, array in challenger.items():
            if not np.isfinite(array).all():
                return [(NOT_FINITE, f"weight {name} holds NaN or infinity")], None, None
        policy = Policy(self._config, _DRAWS_SEED)
        policy.load_weights(challenger)
        probe = reigning.probe
        assert probe is not None, "a trial without a fault has a probe"
        log_probs, values = probe.evaluate(policy)
        fault = output_fault(np.exp(log_probs), values, probe.mask)
        if fault is not None:
            return [fault], None, None
        kl = mean_kl(probe.log_probs, log_probs, probe.mask)
        if not kl <= self.limits.max_kl:
            return [(KL, f"KL {kl:.4f} above {self.limits.max_kl:g}")], kl, policy
        return [], kl, policy

    def _compare(
        self, reigning: "_Trial", trial: "_Trial"
    ) -> tuple[list[Compared], list[tuple[str, str]]]:
        compared, faults = [], []
        margin = self.limits.margin_pct
        for held_out, ours, theirs in zip(
            self._held_out, reigning.returns, trial.returns, strict=True
        ):
            each = compare(held_out.name, ours, theirs, self.limits.confidence)
            compared.append(each)
            fault = not_proven(each, margin)
            best = self._best[held_out.name]
            if fault is not None:
                faults.append(fault)
            elif not each.challenger >= best - margin:
                faults.append(
                    (
                        CREPT,
                        f"{each.challenger:+.3f} % a session on {each.held_out}, more than "
                        f"{margin:g} below the best champion's {best:+.3f} %",
                    )
                )
        return compared, faults

    def _remember_best(self, compared: Sequence[Compared]) -> None:
        for each in compared:
            self._best[each.held_out] = max(self._best[each.held_out], each.challenger)

    def _told(self, faults: Sequence[str], compared: Sequence[Compared]) -> str:
        names = ", ".join(each.held_out for each in compared)
        parts = [*faults] if faults else [f"not worse on {names}"]
        return "; ".join([*parts, *(f"{name}: none" for name in self._missing)])


def compare(held_out: str, champion: Returns, challenger: Returns, confidence: float) -> Compared:
    """Session returns of both, paired; bounds of the mean difference by Student's t."""
    difference = 100.0 * (challenger - champion)
    count, mean = len(difference), float(difference.mean())
    low = high = None
    if count >= _ENOUGH_SESSIONS:
        error = float(difference.std(ddof=1)) / math.sqrt(count)
        reach = float(stats.t.ppf(confidence, count - 1)) * error
        low, high = mean - reach, mean + reach
    return Compared(
        held_out,
        count,
        100.0 * float(champion.mean()),
        100.0 * float(challenger.mean()),
        mean,
        low,
        high,
    )


def not_proven(each: Compared, margin_pct: float) -> tuple[str, str] | None:
    """Why a challenger does not count as not worse by more than the margin; None where it does."""
    at_least = each.difference if each.low is None else each.low
    if at_least > -margin_pct:
        return None
    lost = f"{each.difference:+.3f} % a session on {each.held_out}"
    if each.high is None:
        return UNPROVEN, f"{lost} ({each.sessions} sessions)"
    if each.high < 0.0:
        return WORSE, f"{lost}, at most {each.high:+.3f} %"
    return UNPROVEN, f"{lost}, perhaps {each.low:+.3f} %"


def output_fault(
    probabilities: FloatArray, values: FloatArray, mask: BoolArray
) -> tuple[str, str] | None:
    """What is wrong with a policy's outputs: no numbers, or a chance for what is forbidden."""
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
    def evaluate(self, policy: Policy) -> tuple[FloatArray, FloatArray]:
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
        self._state = policy.initial_state(0)
        self._kept: list[tuple[FloatArray, BoolArray, BoolArray, FloatArray]] = []

    def __call__(self, observation: dict[str, npt.NDArray[Any]], first: BoolArray) -> IntArray:
        if not self._kept:
            self._state = self._policy.initial_state(len(first))
        seen = np.asarray(observation[OBSERVATIONS], dtype=np.float32)
        mask = np.asarray(observation[ACTION_MASK], dtype=np.bool_)
        decision, self._state = self._policy.act(seen, mask, self._state, first)
        fault = output_fault(decision.probabilities, decision.values, mask)
        if fault is not None:
            raise _Misbehaved(*fault)
        if not mask[np.arange(len(first)), decision.actions].all():
            raise _Misbehaved(MASK, "a forbidden action was taken")
        some = slice(_PROBE_ACCOUNTS)
        with np.errstate(divide="ignore"):
            log_probs = np.log(decision.probabilities[some])
        self._kept.append((seen[some], mask[some], first[some].copy(), log_probs))
        return decision.actions

    def probe(self) -> _Probe:
        """The states that the first accounts came to."""
        seen, mask, first, log_probs = zip(*self._kept, strict=True)
        return _Probe(np.stack(seen), np.stack(mask), np.stack(first), np.stack(log_probs))
