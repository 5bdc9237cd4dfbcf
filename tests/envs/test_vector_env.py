"""The vectorised environment: Gymnasium's contract, money, and determinism."""

import numpy as np
import pytest

from trading.envs.catalogue import ACTION_COUNT, CLOSE
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURE_COUNT
from trading.envs.market_features import MARKET_FEATURE_COUNT
from trading.envs.simulated_markets import SESSION_BARS
from trading.envs.vector_env import SimulatedOptionsVectorEnv
from trading.errors import ConfigError, DataError
from trading.execution.fees import NO_FEES

BATCH = 6


def make(seed: int = 3, **kwargs: object) -> SimulatedOptionsVectorEnv:
    arguments = {"rules": DEFAULT_RULES, "fees": DEFAULT_FEES, **kwargs}
    return SimulatedOptionsVectorEnv(BATCH, seed=seed, **arguments)


def allowed(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return (rng.random(mask.shape) * mask).argmax(axis=1)


def test_shapes_and_types_are_those_of_the_spaces() -> None:
    env = make()
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    assert observation["observations"].shape == (BATCH, FEATURE_COUNT)
    assert observation["observations"].dtype == np.float32
    assert observation["action_mask"].shape == (BATCH, ACTION_COUNT)
    _, reward, terminated, truncated, _ = env.step(np.zeros(BATCH, dtype=np.int64))
    assert reward.dtype == np.float32
    assert not terminated.any() and not truncated.any()


def test_equal_seeds_give_equal_worlds_and_others_differ() -> None:
    def run(seed: int) -> np.ndarray:
        env, rng = make(seed), np.random.default_rng(0)
        observation, _ = env.reset()
        rewards = []
        for _ in range(40):
            observation, reward, *_ = env.step(allowed(rng, observation["action_mask"]))
            rewards.append(np.concatenate([reward, observation["observations"].ravel()]))
        return np.array(rewards)

    assert np.array_equal(run(5), run(5))
    assert not np.array_equal(run(5), run(6))


def test_rewards_of_an_episode_add_up_to_its_return_and_reset_is_in_the_same_step() -> None:
    env, rng = make(), np.random.default_rng(1)
    observation, _ = env.reset()
    totals = np.zeros(BATCH)
    seen = np.zeros(BATCH, dtype=bool)
    for _ in range(2 * SESSION_BARS):
        observation, reward, _, truncated, info = env.step(allowed(rng, observation["action_mask"]))
        totals += reward
        if truncated.any():
            assert np.allclose(info["episode"]["r"][truncated], totals[truncated], atol=1e-3)
            final = info["final_obs"]["observations"][truncated]
            assert not np.array_equal(final, observation["observations"][truncated])
            totals[truncated] = 0.0
            seen |= truncated
        if seen.all():
            return
    pytest.fail("no episode ended")


def test_holding_earns_nothing() -> None:
    env = make()
    env.reset()
    for _ in range(30):
        _, reward, *_ = env.step(np.zeros(BATCH, dtype=np.int64))
        assert (reward == 0.0).all()


def test_an_action_that_is_masked_out_is_a_hold_and_is_reported() -> None:
    env = make()
    env.reset()
    _, reward, _, _, info = env.step(np.full(BATCH, CLOSE))
    assert info["invalid_action"].all()
    assert (reward == 0.0).all()


@pytest.mark.parametrize("actions", [[0], [0, 0, 0], [[0, 0]], 0])
def test_actions_of_another_number_than_the_environments_are_refused(actions: object) -> None:
    env = SimulatedOptionsVectorEnv(2, DEFAULT_RULES, DEFAULT_FEES, seed=1)
    env.reset()
    with pytest.raises(DataError, match="give one for each of 2"):
        env.step(np.asarray(actions))


def test_opening_and_closing_at_once_loses_the_spread_and_the_fees() -> None:
    costs = {}
    for name, fees in (("free", NO_FEES), ("paid", DEFAULT_FEES)):
        env, rng = make(fees=fees), np.random.default_rng(2)
        observation, _ = env.reset()
        mask = observation["action_mask"].copy()
        mask[:, :2] = False
        actions = allowed(rng, mask)
        before = env.equity.copy()
        observation, _, _, _, _ = env.step(actions)
        closing = np.where(observation["action_mask"][:, CLOSE], CLOSE, 0)
        env.step(closing)
        costs[name] = before - env.equity
    assert (costs["paid"] > costs["free"] - 1e-9).all()
    assert (costs["paid"] - costs["free"]).max() > 1.0


def test_the_future_of_a_simulated_market_changes_nothing_before_it() -> None:
    steps = 30

    def run(spoil: bool) -> list[bytes]:
        env, rng = make(seed=4), np.random.default_rng(0)
        observation, _ = env.reset()
        day = env._markets._day
        if spoil:
            for m in range(BATCH):
                later = day.bar[m] + day.offset[m] + steps + 1
                for path in day.factors:
                    path[m, later:] = 99
                day.log_spot[m, later:] = np.nan
        seen = []
        for _ in range(steps):
            seen.append(observation["observations"].tobytes())
            observation, reward, *_ = env.step(allowed(rng, observation["action_mask"]))
            seen.append(reward.tobytes())
        env.step(np.zeros(BATCH, dtype=np.int64))
        seen.append(env._markets.snapshots.spot.tobytes())
        return seen

    plain, spoilt = run(False), run(True)
    assert plain[:-1] == spoilt[:-1]
    assert plain[-1] != spoilt[-1]


def test_accounts_of_one_market_see_the_same_and_trade_for_themselves() -> None:
    env = make(accounts_per_market=3)
    observation, _ = env.reset()
    seen = observation["observations"].reshape(2, 3, FEATURE_COUNT)
    assert (seen == seen[:, :1]).all()
    actions = np.zeros(BATCH, dtype=np.int64)
    actions[0] = np.flatnonzero(observation["action_mask"][0])[-1]
    observation, reward, *_ = env.step(actions)
    assert reward[0] != 0.0 and (reward[1:] == 0.0).all()
    market = slice(0, MARKET_FEATURE_COUNT)
    seen = observation["observations"].reshape(2, 3, FEATURE_COUNT)[..., market]
    assert (seen == seen[:, :1]).all()


def test_a_number_of_accounts_that_does_not_fill_the_markets_is_refused() -> None:
    with pytest.raises(ConfigError, match="accounts_per_market 4: use a divisor of num_envs 6"):
        make(accounts_per_market=4)


@pytest.mark.parametrize(("accounts_per_market", "underlyings"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_what_nobody_can_open_is_not_priced_and_nobody_sees_a_difference(
    accounts_per_market: int, underlyings: int
) -> None:
    rules = DEFAULT_RULES._replace(underlyings_per_account=underlyings)
    lazy, whole = (make(rules=rules, accounts_per_market=accounts_per_market) for _ in range(2))
    advance = whole._markets.advance
    whole._markets.advance = lambda opens=None: advance()  # type: ignore[method-assign]
    rng, unpriced = np.random.default_rng(1), 0
    seen, other = lazy.reset()[0], whole.reset()[0]
    for _ in range(60):
        actions = allowed(rng, seen["action_mask"])
        (seen, reward, *_), (other, same, *_) = lazy.step(actions), whole.step(actions)
        np.testing.assert_array_equal(seen["observations"], other["observations"])
        np.testing.assert_array_equal(seen["action_mask"], other["action_mask"])
        np.testing.assert_array_equal(reward, same)
        costs = [env._markets.snapshots.most_units.any(axis=1) for env in (lazy, whole)]
        unpriced += int((costs[1] & ~costs[0]).sum())
    assert unpriced > 0
