"""Every check of the gate can fail, and only the right one does."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.learning.experience import SMALL
from tests.usual import gate_limits
from trading.errors import LearningError
from trading.execution.events import Compared
from trading.learning.champion.gate import (
    DRIFTED,
    KL,
    MASK,
    NOT_FINITE,
    UNPROVEN,
    WORSE,
    Gate,
    HeldOut,
    SessionTrader,
    compare,
    mean_kl,
    not_proven,
    output_fault,
)
from trading.learning.policy import Policy, Weights

STEPS, FORBIDDEN = 12, 3


def weights(seed: int = 0) -> Weights:
    return Policy(SMALL, seed).weights()


def preferring(action: int, by: float) -> Weights:
    """A policy that likes one action more than the others, the same in every state."""
    made = {name: np.zeros_like(array) for name, array in weights().items()}
    made["policy_head.bias"][action] = by
    return made


class Sessions:
    """A market in which action 1 earns, action 2 loses, and the last one is forbidden."""

    def __init__(self, sessions: int = 64, seed: int = 0) -> None:
        self.traded = 0
        self._sessions, self._seed = sessions, seed

    def __call__(self, trader: SessionTrader) -> np.ndarray:
        self.traded += 1
        rng = np.random.default_rng(self._seed)
        returns = rng.normal(scale=0.02, size=self._sessions)
        mask = np.ones((self._sessions, SMALL.action_count), np.bool_)
        mask[:, FORBIDDEN] = False
        for step in range(STEPS):
            seen = rng.normal(size=(self._sessions, SMALL.observation_size)).astype(np.float32)
            first = np.full(self._sessions, step == 0)
            actions = trader({"observations": seen, "action_mask": mask}, first)
            returns += np.array([0.0, 0.01, -0.01, 0.0])[actions]
        return returns


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def gate(*sets: Callable[[SessionTrader], np.ndarray], **limits: float) -> Gate:
    named = [HeldOut(f"set {number}", each) for number, each in enumerate(sets, 1)]
    return Gate(SMALL, gate_limits(**{"margin_pct": 0.5, **limits}), named)


def test_the_champion_itself_passes_with_all_numbers(sessions: Sessions) -> None:
    result = gate(sessions).judge(weights(), weights())
    assert result.passed and not result.harmful
    assert result.kl == pytest.approx(0.0, abs=1e-6)
    (each,) = result.compared
    assert (each.sessions, each.difference, each.low, each.high) == (64, 0.0, 0.0, 0.0)
    assert result.reason == "not worse on set 1"


def test_equal_weights_get_an_equal_result(sessions: Sessions) -> None:
    one, other = (gate(sessions).judge(weights(1), preferring(1, 2.0)) for _ in range(2))
    assert one.seconds > 0.0
    assert (one.kl, one.compared, one.failed) == (other.kl, other.compared, other.failed)


def test_the_sessions_of_a_set_may_be_traded_in_unequal_parts() -> None:
    parts = [Sessions(11), Sessions(10, seed=1), Sessions(40, seed=2)]

    def in_parts(trader: SessionTrader) -> np.ndarray:
        return np.concatenate([each(trader) for each in parts])

    result = gate(in_parts, max_kl=99.0).judge(preferring(2, 2.0), preferring(1, 2.0))
    assert result.passed and result.compared[0].sessions == 61
    alone = gate(parts[0], max_kl=99.0).judge(preferring(2, 2.0), preferring(1, 2.0))
    # The first accounts alone are as many again.
    assert result.kl == alone.kl


@pytest.mark.parametrize("acting", ["sampled", "greedy", 0.25])
def test_both_act_as_they_trade(acting: str | float) -> None:
    taken: list[int] = []

    def noted(trader: SessionTrader) -> np.ndarray:
        def watched(observation: dict[str, np.ndarray], first: np.ndarray) -> np.ndarray:
            actions = trader(observation, first)
            taken.extend(actions.tolist())
            return actions

        return Sessions()(watched)

    inclined = preferring(1, 0.5)
    made = Gate(SMALL, gate_limits(), [HeldOut("a set", noted)], acting)
    assert made.judge(inclined, inclined).passed
    share = taken.count(1) / len(taken)
    if acting == "greedy":
        assert share == 1.0
    else:
        # Of three allowed actions one is e^(0.5 / temperature) times as likely as each other.
        weight = np.exp(0.5 / (1.0 if acting == "sampled" else float(acting)))
        assert share == pytest.approx(weight / (weight + 2.0), abs=0.05)


def test_the_champion_is_traded_once(sessions: Sessions) -> None:
    judge = gate(sessions, max_kl=99.0).judge
    for seed in (1, 2, 3):
        judge(weights(), weights(seed))
    assert sessions.traded == 4
    judge(weights(3), weights(4))
    assert sessions.traded == 6


def test_a_set_is_renewed_for_each_judgement_and_both_trade_the_same(sessions: Sessions) -> None:
    traded: list[int] = []
    renewed = 0

    def renew() -> None:
        nonlocal renewed
        renewed += 1

    def trade(trader: SessionTrader) -> np.ndarray:
        traded.append(renewed)
        return Sessions(seed=renewed)(trader)

    judge = Gate(SMALL, gate_limits(margin_pct=0.5, max_kl=99.0), [HeldOut("fresh", trade, renew)])
    results = [judge.judge(weights(), weights(seed)) for seed in (1, 2)]
    assert traded == [1, 1, 2, 2]
    assert results[0].compared[0].champion != results[1].compared[0].champion


def test_each_judgement_against_a_champion_is_stricter_and_a_new_one_begins_anew(
    sessions: Sessions,
) -> None:
    judge = gate(sessions, max_kl=99.0)

    def reach(action: int) -> float:
        (each,) = judge.judge(preferring(action, 1.0), preferring(1, 0.5)).compared
        assert each.low is not None
        return each.difference - each.low

    first, second, third = (reach(0) for _ in range(3))
    assert 0.0 < first < second < third
    told = judge.judge(preferring(0, 1.0), preferring(1, 0.5)).summary
    assert told.count("with probability") == 4
    other = reach(2)
    assert reach(2) > other


def test_a_better_challenger_passes_and_a_worse_one_does_not(sessions: Sessions) -> None:
    wide = gate(sessions, max_kl=99.0)
    assert wide.judge(preferring(0, 1.0), preferring(1, 2.0)).passed
    result = gate(sessions, max_kl=99.0).judge(preferring(0, 1.0), preferring(2, 2.0))
    assert result.failed == (WORSE,) and result.harmful
    assert result.compared[0].high < 0.0


def test_one_set_on_which_it_is_worse_is_enough(sessions: Sessions) -> None:
    def old_regime(trader: SessionTrader) -> np.ndarray:
        return -Sessions(seed=7)(trader)

    result = gate(sessions, old_regime, max_kl=99.0).judge(preferring(0, 1.0), preferring(1, 2.0))
    assert result.failed == (WORSE,)
    assert "set 2" in result.reason and "set 1" not in result.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_fail(sessions: Sessions, value: float) -> None:
    bad = weights()
    next(iter(bad.values())).flat[0] = value
    result = gate(sessions).judge(weights(), bad)
    assert result.failed == (NOT_FINITE,) and result.harmful
    assert result.kl is None and result.compared == ()


def test_finite_weights_whose_outputs_are_no_numbers_fail(sessions: Sessions) -> None:
    bad = {name: np.full_like(array, 3e38) for name, array in weights().items()}
    assert gate(sessions).judge(weights(), bad).failed == (NOT_FINITE,)


def test_a_challenger_too_far_from_the_champion_fails(sessions: Sessions) -> None:
    result = gate(sessions, max_kl=0.05).judge(preferring(0, 1.0), preferring(1, 2.0))
    assert result.failed == (KL,) and result.harmful
    assert result.kl is not None and result.kl > 0.05
    assert result.compared[0].difference > 0.0


def test_a_chance_for_a_forbidden_action_fails() -> None:
    mask = np.array([[True, True, False]])
    values = np.zeros(1, np.float32)
    fine = np.array([[0.5, 0.5, 0.0]], np.float32)
    leaking = np.array([[0.5, 0.5, 1e-30]], np.float32)
    assert output_fault(fine, values, mask) is None
    fault = output_fault(leaking, values, mask)
    assert fault is not None and fault[0] == MASK
    fault = output_fault(fine, np.array([np.nan], np.float32), mask)
    assert fault is not None and fault[0] == NOT_FINITE


def test_a_network_that_forgets_the_mask_is_caught(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = gate(sessions)
    assert judge.judge(weights(), weights()).passed
    evaluate = Policy._evaluate

    def unmasked(self: Policy, observations, mask, state, first):  # type: ignore[no-untyped-def]
        return evaluate(self, observations, np.ones_like(mask), state, first)

    monkeypatch.setattr(Policy, "_evaluate", unmasked)
    assert judge.judge(weights(), weights(1)).failed == (MASK,)


def test_kl_is_that_of_the_distributions() -> None:
    mask = np.array([[[True, True, False]], [[True, False, False]]])
    with np.errstate(divide="ignore"):
        ours = np.log(np.array([[[0.25, 0.75, 0.0]], [[1.0, 0.0, 0.0]]], np.float32))
        theirs = np.log(np.array([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]], np.float32))
    expected = 0.5 * (0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    assert mean_kl(ours, theirs, mask) == pytest.approx(expected, abs=1e-7)


def test_the_bounds_are_students() -> None:
    rng = np.random.default_rng(3)
    champion = rng.normal(size=25)
    difference = rng.normal(scale=0.01, size=25)
    each = compare("set", champion, champion + difference, 0.95)
    mean, error = difference.mean(), difference.std(ddof=1) / 5.0
    assert each.difference == pytest.approx(100.0 * mean)
    assert each.low == pytest.approx(100.0 * (mean - 1.710882 * error))
    assert each.high == pytest.approx(100.0 * (mean + 1.710882 * error))


@pytest.mark.parametrize(
    ("difference", "low", "high", "failed"),
    [
        (0.1, -0.1, 0.3, None),
        (-0.1, -0.49, 0.3, None),
        (-0.3, -0.4, -0.2, None),
        (0.1, -0.6, 0.8, UNPROVEN),
        (-0.7, -0.9, -0.5, WORSE),
        (-0.4, None, None, None),
        (-0.6, None, None, UNPROVEN),
        (float("nan"), float("nan"), float("nan"), UNPROVEN),
    ],
)
def test_not_worse_is_proven_by_the_lower_bound(
    difference: float, low: float | None, high: float | None, failed: str | None
) -> None:
    each = Compared("set", 64, 0.0, difference, difference, low, high)
    fault = not_proven(each, 0.5)
    assert (fault and fault[0]) == failed


def test_a_few_recorded_sessions_are_held_to_their_mean(sessions: Sessions) -> None:
    few = gate(Sessions(3), max_kl=99.0)
    result = few.judge(preferring(0, 1.0), preferring(2, 2.0))
    assert result.failed == (UNPROVEN,) and not result.harmful
    assert result.compared[0].low is None


def test_small_losses_do_not_add_up_over_many_promotions() -> None:
    """Each is within the margin of the one before it, and the third far below the first."""
    levels = iter([0.0, -0.004, -0.004, -0.008])

    def falling(trader: SessionTrader) -> np.ndarray:
        return 0.0 * Sessions()(trader) + next(levels)

    judge = gate(falling, max_kl=99.0)
    assert judge.judge(weights(1), weights(2)).passed
    assert judge.judge(weights(2), weights(3)).failed == (DRIFTED,)


def test_sets_that_do_not_exist_are_named(sessions: Sessions) -> None:
    judge = gate(sessions)
    judge.hold_out([HeldOut("simulated", sessions)], missing=["recent"])
    assert judge.judge(weights(), weights()).reason == "not worse on simulated; recent: none"


def test_a_champion_that_fails_itself_is_an_error(sessions: Sessions) -> None:
    bad = {name: np.full_like(array, 3e38) for name, array in weights().items()}
    with pytest.raises(LearningError, match="trading checkpoints promote"):
        gate(sessions).judge(bad, weights())
