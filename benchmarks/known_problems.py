"""Problems whose answer is known, and controls that must fail or win at them.

CartPole without velocities and recall need memory. Of the option markets one has an edge that is
planted and pays its costs, one has an edge that takes most of a session to pay them, one has none.
"""

from math import sqrt
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES
from trading.envs.rules import stock_touch
from trading.envs.vector_env import Observation, OptionsVectorEnv, SimulatedOptionsVectorEnv
from trading.evaluation.backtest import FromTheOpen
from trading.evaluation.baselines import SessionTrader, action_named
from trading.learning.clstm import CLSTM, TensorState
from trading.market.chain import F64, I64
from trading.market.factors import SESSIONS_PER_YEAR
from trading.market.randomisation import ModelRanges, Range


class MemorylessCLSTM(CLSTM):
    """A CLSTM whose state is zero at every step: a feed-forward network of as many parameters."""

    def forward(
        self, observations: Tensor, action_mask: Tensor, state: TensorState, first: Tensor
    ) -> tuple[Tensor, Tensor, TensorState]:
        steps, sequences = first.shape
        rows = steps * sequences
        logits, values, _ = super().forward(
            observations.reshape(1, rows, -1),
            action_mask.reshape(1, rows, -1),
            self.initial_state(rows),
            torch.ones(1, rows, dtype=torch.bool, device=first.device),
        )
        return logits.reshape(steps, sequences, -1), values.reshape(steps, sequences), state


class PositionsOnlyCartPole(CartPoleVectorEnv):  # type: ignore[misc]
    """CartPole-v1 that shows where cart and pole are, but not how fast they move.

    Position and angle are shown as fractions of their limits, with both signs and beside ones,
    because the network's input LayerNorm takes the mean and the scale out of each observation.
    A step earns `REWARD`, so that values stay near one. Resets itself in the same step.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    REWARD = 0.02

    def __init__(self, num_envs: int, seed: int) -> None:
        super().__init__(num_envs)
        self.single_observation_space = gym.spaces.Dict(
            {
                "observations": gym.spaces.Box(-2.0, 2.0, (6,), np.float32),
                "action_mask": gym.spaces.MultiBinary(2),
            }
        )
        self._seed: int | None = seed
        self._mask = np.ones((num_envs, 2), np.bool_)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, Any]:
        super().reset(seed=self._seed if seed is None else seed, options=options)
        self._seed = None
        return self._observe(), {}

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        _, reward, terminated, truncated, info = super().step(action)
        reward *= self.REWARD
        done = terminated | truncated
        if done.any():
            info["final_obs"] = self._observe()
            info["episode"] = {"r": self.steps.astype(np.float32), "l": self.steps.copy()}
            info["_episode"] = done
            fresh = self.np_random.uniform(self.low, self.high, (4, int(done.sum())))
            self.state[:, done] = fresh
            self.steps[done] = 0
            self.prev_done[:] = False
        return self._observe(), reward, terminated, truncated, info

    def _observe(self) -> Observation:
        seen = np.stack(
            [self.state[0] / self.x_threshold, self.state[2] / self.theta_threshold_radians], axis=1
        )
        known = np.concatenate([seen, np.ones((self.num_envs, 1))], axis=1)
        observations = np.concatenate([known, -known], axis=1).astype(np.float32)
        return {"observations": observations, "action_mask": self._mask.copy()}


WEEKDAYS_PER_YEAR = 261.0
"""Sessions in a year by the options' clock, `trading.market.surface.variance_years`."""
FAIR_PREMIUM = sqrt(WEEKDAYS_PER_YEAR / SESSIONS_PER_YEAR) - 1.0
"""At this premium a session realises the variance that its options lose."""


def _always(**values: float) -> dict[str, Range]:
    return {name: Range(value, value) for name, value in values.items()}


_FAIR = _always(
    drift=0.0, rate=0.0, calm_premium=FAIR_PREMIUM, stressed_premium=FAIR_PREMIUM,
    stressed_vol=1.0, switch_shock=0.0, vol_correlation=0.0, jump_share=0.0, event_move=0.0,
    calm_skew=0.0, stressed_skew=0.0, skew_noise=0.0, curvature=0.0, term_slope=0.0,
    term_inversion=0.0, requote_per_bar=1.0, activity_noise=0.0, missing_side=0.0, quote_noise=0.0,
    spread_scale=0.3, spread_noise=0.1, spread_stress=0.0, size_mean=200.0,
)  # fmt: skip
"""The price is a martingale, the smile flat, the mid the fair value, spreads are tight."""

NO_EDGE = ModelRanges(**_FAIR | _always(calm_vol=0.3, vol_reversion=0.0, vol_of_vol=0.0))
"""Volatility stays where it is and options cost what they are worth: trading only costs."""

REVERTING_LEVEL = 0.5
REVERTING_VOLATILITY = ModelRanges(
    **_FAIR | _always(calm_vol=REVERTING_LEVEL, vol_reversion=13.0, vol_of_vol=28.0)
)
"""Volatility strays by a third from its level and is half way back in half an hour.

At every moment options are priced fairly for the volatility of that moment, so that only knowing
where it goes pays. It is known: the level is the same in all sessions, the volatility is seen.
"""

SLOW_EDGE = ModelRanges(
    **_FAIR | _always(calm_vol=0.15, vol_reversion=0.0, vol_of_vol=0.0, drift=1.5, spread_scale=3.0)
)
"""The price rises by 0.6 % a session, spreads are wide, and options are priced as if it did not.

A call is worth buying, and only to be kept: getting in costs what two and a half hours earn, and
getting out as much again.
"""


def option_markets(
    num_envs: int,
    seed: int,
    ranges: ModelRanges,
    accounts_per_market: int = 8,
    sessions_per_episode: int = 1,
) -> SimulatedOptionsVectorEnv:
    """The environment of training, with the default rules and fees."""
    return SimulatedOptionsVectorEnv(
        num_envs,
        DEFAULT_RULES,
        DEFAULT_FEES,
        ranges,
        seed,
        accounts_per_market,
        sessions_per_episode=sessions_per_episode,
    )


_ATM_IV = [feature.name for feature in FEATURES].index("far_atm_iv")
_STRADDLE = action_named("long_straddle_far_d50")


def buy_low_volatility(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Holds a straddle from a fifth below the level of `REVERTING_VOLATILITY` to a tenth above."""
    deviation = np.log(np.maximum(observation["observations"][:, _ATM_IV], 0.01) / REVERTING_LEVEL)
    mask = observation["action_mask"]
    buys = mask[:, _STRADDLE] & (deviation < -0.2)
    sells = mask[:, CLOSE] & (deviation > 0.1)
    return np.select([buys, sells], [_STRADDLE, CLOSE], HOLD)


_CALL = action_named("long_call_far_d50")


def buy_calls(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Holds a call for as long as it lasts."""
    return np.where(observation["action_mask"][:, _CALL], _CALL, HOLD)


class Sessions(NamedTuple):
    """What N sessions came to, as fractions of the initial capital."""

    returns: F64
    """[N]"""
    fills: I64
    """[N]"""
    underlying: F64
    """[N]: return of buying the underlying for all the capital at the open."""


class _WholeSessions(FromTheOpen):
    """A market for each account; keeps the prices of the close."""

    closes: F64

    def restart(self, accounts: I64) -> None:
        self.closes = self.snapshots.spot.copy()
        super().restart(accounts)


def play(
    trader: SessionTrader, ranges: ModelRanges, sessions: int, seed: int, in_a_row: int = 1
) -> Sessions:
    """Trades whole sessions, or so many `in_a_row`; equal seeds show every trader the same."""
    rules, rng = DEFAULT_RULES, np.random.default_rng(seed)
    markets = _WholeSessions(
        sessions, 1, rules, DEFAULT_FEES, ranges, rng, sessions_per_episode=in_a_row
    )
    env = OptionsVectorEnv(sessions, rules, DEFAULT_FEES, markets)
    observation, _ = env.reset()
    asks = np.array(
        [stock_touch(price, rules.stock_half_spread)[1] for price in markets.snapshots.spot]
    )
    first = np.ones(sessions, np.bool_)
    info: dict[str, Any] = {}
    while "episode" not in info:
        observation, _, _, first, info = env.step(trader(observation, first))
    episode = info["episode"]
    shares = np.floor(rules.initial_capital / asks)
    return Sessions(
        episode["equity"] / rules.initial_capital - 1.0,
        episode["trades"],
        shares * (markets.closes - asks) / rules.initial_capital,
    )
