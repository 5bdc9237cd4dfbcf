"""Many simulated option markets stepped at once, as a Gymnasium vector environment.

Every market is one underlying, one account and one session day at a time. The step is compiled:
matching, fees, margin, actions and features are the functions the live market calls.
"""

from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numba import njit
from numpy.typing import NDArray

from trading.envs.actions import (
    ACTION_COUNT,
    BUCKETS,
    CLOSE,
    DAY_NS,
    MAX_LEGS,
    Funds,
    Menu,
    Position,
    TradingRules,
    build_menu,
    find_buckets,
)
from trading.envs.features import F32, FEATURE_COUNT, HISTORY_BARS, LIMIT, Bars, observe
from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.margin import reserve_per_unit
from trading.execution.matching import MatchCode, match_legs
from trading.market.chain import F64, I64, Columns, empty_columns, refresh, row
from trading.market.quotes import quote_chain
from trading.market.simulator import DEFAULT_MODEL, Factors, MarketModel, simulate_factors

Observation = dict[str, NDArray[Any]]

SESSION_OPEN_NS = 1_767_623_400_000_000_000
"""2026-01-05 14:30 UTC: every simulated episode is dated on this Monday."""
SESSION_BARS = 390
BAR_SECONDS = 60
BAR_NS = BAR_SECONDS * 1_000_000_000
SESSION_CLOSE_NS = SESSION_OPEN_NS + SESSION_BARS * BAR_NS
STRIKES_PER_EXPIRY = 15
STRIKE_REACH = 1.9
"""Standard deviations of the log price at expiry that the strikes reach out to."""

STRESSED_SHARE = 0.2
"""Share of episodes that begin in the stressed regime."""

_FILLED = int(MatchCode.OK)


class Books(NamedTuple):
    """Accounts of B markets."""

    cash: F64
    unit_reserve: F64
    """Cash that each open unit keeps reserved."""
    units: I64
    legs: I64
    """[B, MAX_LEGS]"""
    ratio: I64
    """[B, MAX_LEGS]"""
    net_cash: F64
    """Cash flow of the open strategy after fees."""
    opened_ns: I64
    equity: F64
    """At the last mark."""
    trades: I64
    """Fills of this episode."""


@njit(cache=True)
def _execute(
    chain: Columns,
    now_ns: int,
    rules: TradingRules,
    fees: FeeSchedule,
    menu: Menu,
    action: int,
    books: Books,
    b: int,
) -> None:
    """Send the order of a masked-in action to market `b` and book its fill."""
    n_legs = 0
    ratio = np.zeros(MAX_LEGS, dtype=np.int64)
    bid = np.zeros(MAX_LEGS)
    ask = np.zeros(MAX_LEGS)
    bid_size = np.zeros(MAX_LEGS)
    ask_size = np.zeros(MAX_LEGS)
    quote_ns = np.zeros(MAX_LEGS, dtype=np.int64)
    right = np.zeros(MAX_LEGS, dtype=np.int8)
    strike = np.zeros(MAX_LEGS)
    price = np.zeros(MAX_LEGS)
    for leg in range(MAX_LEGS):
        i = menu.legs[action, leg]
        if i < 0:
            break
        ratio[leg] = menu.ratio[action, leg]
        bid[leg], ask[leg] = chain.bid[i], chain.ask[i]
        bid_size[leg], ask_size[leg] = chain.bid_size[i], chain.ask_size[i]
        quote_ns[leg] = chain.quote_ns[i]
        right[leg], strike[leg] = chain.right[i], chain.strike[i]
        n_legs += 1
    code, units = match_legs(
        ratio, bid, ask, bid_size, ask_size, quote_ns, n_legs, now_ns, menu.units[action],
        rules.max_quote_age_ns, rules.slippage, price,
    )  # fmt: skip
    if code != _FILLED or units < 1:
        return
    premium = 0.0
    bought = 0
    sold = 0
    sale_notional = 0.0
    for leg in range(n_legs):
        quantity = ratio[leg] * units
        premium -= quantity * price[leg] * rules.multiplier
        if quantity > 0:
            bought += quantity
        else:
            sold -= quantity
            sale_notional -= quantity * price[leg] * rules.multiplier
    cash = premium - order_fees(fees, bought, sold, sale_notional)
    books.cash[b] += cash
    books.trades[b] += 1
    if action == CLOSE:
        books.units[b] -= units
        books.net_cash[b] += cash
        return
    books.units[b] = units
    books.net_cash[b] = cash
    books.opened_ns[b] = now_ns
    books.unit_reserve[b] = reserve_per_unit(right, strike, ratio, n_legs, rules.multiplier)
    for leg in range(MAX_LEGS):
        books.legs[b, leg] = menu.legs[action, leg]
        books.ratio[b, leg] = ratio[leg]


@njit(cache=True)
def _mark_to_mid(chain: Columns, rules: TradingRules, books: Books, b: int) -> float:
    value = 0.0
    if books.units[b] > 0:
        for leg in range(MAX_LEGS):
            i = books.legs[b, leg]
            if i >= 0:
                shares = books.ratio[b, leg] * books.units[b] * rules.multiplier
                value += shares * chain.mark[i]
    return float(books.cash[b] + value)


@njit(cache=True)
def _trade(
    batch: Columns,
    bar: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    menus: Menu,
    actions: I64,
    books: Books,
    invalid: NDArray[np.bool_],
) -> None:
    """Execute one action per market at its current bar; an action that is masked out is a hold."""
    for b in range(len(bar)):
        action = actions[b]
        invalid[b] = not menus.mask[b, action]
        if action > 0 and not invalid[b]:
            menu = Menu(menus.legs[b], menus.ratio[b], menus.units[b], menus.mask[b])
            now_ns = SESSION_OPEN_NS + bar[b] * BAR_NS
            _execute(row(batch, b), now_ns, rules, fees, menu, action, books, b)


@njit(cache=True)
def _quote_and_mark(
    batch: Columns,
    which: I64,
    bar: I64,
    offset: I64,
    model: MarketModel,
    factors: Factors,
    tick_class: I64,
    requote: float,
    rng: np.random.Generator,
    rules: TradingRules,
    books: Books,
    spot: F64,
    changed: NDArray[np.bool_],
) -> None:
    """Bring the quotes, implied values and equity of markets `which` to their current bar."""
    for b in which:
        chain = row(batch, b)
        now_ns = SESSION_OPEN_NS + bar[b] * BAR_NS
        k = bar[b] + offset[b]
        quote_chain(
            model, rng, factors.spot[b, k], factors.atm_iv[b, k], factors.skew[b, k], now_ns,
            chain.strike, chain.expiry_ns, chain.right, chain.bid, chain.ask, chain.bid_size,
            chain.ask_size, chain.quote_ns, tick_class[b], requote, changed,
        )  # fmt: skip
        spot[b] = refresh(chain, now_ns, factors.spot[b, k], rules.rate, rules.max_quote_age_ns)
        books.equity[b] = _mark_to_mid(chain, rules, books, b)


@njit(cache=True)
def _observe(
    batch: Columns,
    bar: I64,
    offset: I64,
    factors: Factors,
    spot: F64,
    rules: TradingRules,
    fees: FeeSchedule,
    books: Books,
    menus: Menu,
    which: I64,
    observations: F32,
) -> None:
    """Write the observations and menus of markets `which`."""
    bucket_group = np.zeros(len(BUCKETS), dtype=np.int64)
    for b in which:
        chain = row(batch, b)
        now_ns = SESSION_OPEN_NS + bar[b] * BAR_NS
        last = bar[b] + offset[b]
        first = max(0, last - HISTORY_BARS)
        bars = Bars(
            factors.high[b, first:last],
            factors.low[b, first:last],
            factors.spot[b, first + 1 : last + 1],
            last - first,
        )
        open_positions = 1 if books.units[b] > 0 else 0
        reserved = books.unit_reserve[b] * books.units[b]
        funds = Funds(books.equity[b], books.cash[b], reserved, open_positions)
        position = Position(
            books.legs[b], books.ratio[b], books.units[b], books.net_cash[b], books.opened_ns[b]
        )
        menu = Menu(menus.legs[b], menus.ratio[b], menus.units[b], menus.mask[b])
        find_buckets(chain, now_ns, bucket_group)
        build_menu(
            chain,
            now_ns,
            SESSION_CLOSE_NS,
            rules,
            fees,
            funds,
            position,
            True,
            True,
            bucket_group,
            menu,
        )
        observe(
            chain, now_ns, SESSION_OPEN_NS, SESSION_CLOSE_NS, spot[b], bars, rules, funds,
            position, bucket_group, observations[b],
        )  # fmt: skip


class SimulatedOptionsVectorEnv(VectorEnv):  # type: ignore[misc]
    """B independent simulated option markets.

    Autoreset mode is SAME_STEP: the step that ends an episode returns the first observation of the
    next one, and `info["final_obs"]` the last of the old. An episode is one session; it ends by
    truncation at the close with the position marked to mid. First episodes start at staggered
    times so that the markets do not march in step; half of the episodes know an hour of earlier
    bars, half start without history, as a live market may.

    Parameters
    ----------
    num_envs
        B.
    rules, fees
        The limits and fees of the account, as in live trading.
    model
        Parameters of the simulated markets.
    seed
        Seeds everything; `reset(seed=...)` starts over from another.

    Examples
    --------
    >>> from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
    >>> env = SimulatedOptionsVectorEnv(4, DEFAULT_RULES, DEFAULT_FEES, seed=1)
    >>> observation, _ = env.reset()
    >>> observation["observations"].shape == (4, FEATURE_COUNT)
    True
    >>> _, reward, _, _, _ = env.step(np.zeros(4, dtype=np.int64))
    >>> reward.dtype
    dtype('float32')
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        rules: TradingRules,
        fees: FeeSchedule,
        model: MarketModel = DEFAULT_MODEL,
        seed: int = 0,
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Dict(
            {
                "observations": gym.spaces.Box(-LIMIT, LIMIT, (FEATURE_COUNT,), np.float32),
                "action_mask": gym.spaces.MultiBinary(ACTION_COUNT),
            }
        )
        self.single_action_space = gym.spaces.Discrete(ACTION_COUNT)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rules, self._fees, self._model = rules, fees, model
        self._rng = np.random.default_rng(seed)
        self._allocate()

    def _allocate(self) -> None:
        b, n = self.num_envs, 2 * len(BUCKETS) * STRIKES_PER_EXPIRY
        per_expiry = 2 * STRIKES_PER_EXPIRY
        expiries = np.repeat(np.arange(len(BUCKETS)), per_expiry) + SESSION_CLOSE_NS
        strikes = np.tile(np.repeat(np.arange(1.0, STRIKES_PER_EXPIRY + 1), 2), len(BUCKETS))
        rights = np.tile(np.array([1, -1], dtype=np.int8), n // 2)
        template = empty_columns(expiries.astype(np.int64), strikes, rights)
        self._chains = Columns._make(np.repeat(column[None], b, axis=0) for column in template)
        self._books = Books(
            cash=np.zeros(b),
            unit_reserve=np.zeros(b),
            units=np.zeros(b, dtype=np.int64),
            legs=np.full((b, MAX_LEGS), -1, dtype=np.int64),
            ratio=np.zeros((b, MAX_LEGS), dtype=np.int64),
            net_cash=np.zeros(b),
            opened_ns=np.zeros(b, dtype=np.int64),
            equity=np.zeros(b),
            trades=np.zeros(b, dtype=np.int64),
        )
        self._menus = Menu(
            np.zeros((b, ACTION_COUNT, MAX_LEGS), dtype=np.int64),
            np.zeros((b, ACTION_COUNT, MAX_LEGS), dtype=np.int64),
            np.zeros((b, ACTION_COUNT), dtype=np.int64),
            np.zeros((b, ACTION_COUNT), dtype=np.bool_),
        )
        steps = SESSION_BARS + HISTORY_BARS
        self._factors = Factors(
            spot=np.zeros((b, steps + 1)),
            high=np.zeros((b, steps)),
            low=np.zeros((b, steps)),
            volume=np.zeros((b, steps)),
            atm_iv=np.zeros((b, steps + 1)),
            skew=np.zeros((b, steps + 1)),
            regime=np.zeros((b, steps + 1), dtype=np.int8),
        )
        self._bar = np.zeros(b, dtype=np.int64)
        self._offset = np.zeros(b, dtype=np.int64)
        self._tick_class = np.zeros(b, dtype=np.int64)
        self._spot = np.zeros(b)
        self._changed = np.zeros(n, dtype=np.bool_)
        self._invalid = np.zeros(b, dtype=np.bool_)
        self._returns = np.zeros(b)
        self._lengths = np.zeros(b, dtype=np.int64)
        self._observations = np.zeros((b, FEATURE_COUNT), dtype=np.float32)

    @property
    def equity(self) -> F64:
        """Equity of every account at its last mark, USD, [B]; a view."""
        return self._books.equity

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes in every market, at staggered times of the session."""
        if seed is not None:
            self._rng = np.random.default_rng(seed if isinstance(seed, int) else seed[0])
        every = np.arange(self.num_envs)
        strata = every * (SESSION_BARS - HISTORY_BARS) // self.num_envs
        self._start(every, self._rng.permutation(strata))
        return self._current(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One bar in every market.

        Returns observations f32[B, F] and masks bool[B, N], reward f32[B], terminated bool[B],
        truncated bool[B] and info; `info["invalid_action"]` marks actions that were masked out and
        therefore held.
        """
        every = np.arange(self.num_envs)
        before = self._books.equity.copy()
        self._trade(np.asarray(actions, dtype=np.int64))
        self._bar += 1
        self._advance(every)
        self._observe(every)
        rules = self._rules
        reward = (self._books.equity - before) / rules.initial_capital * rules.reward_scale
        self._returns += reward
        self._lengths += 1
        truncated = self._bar >= SESSION_BARS
        info: dict[str, Any] = {"invalid_action": self._invalid.copy()}
        done = np.flatnonzero(truncated)
        if len(done):
            info["final_obs"] = self._current()
            info["episode"] = {
                "r": self._returns.astype(np.float32),
                "l": self._lengths.copy(),
                "trades": self._books.trades.copy(),
            }
            info["_episode"] = truncated.copy()
            self._start(done, np.zeros(len(done), dtype=np.int64))
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return self._current(), reward.astype(np.float32), terminated, truncated, info

    def _current(self) -> Observation:
        return {
            "observations": self._observations.copy(),
            "action_mask": self._menus.mask.copy(),
        }

    def _start(self, which: NDArray[np.int64], bar: NDArray[np.int64]) -> None:
        """Begin an episode at `bar` in markets `which`."""
        n, rng, model = len(which), self._rng, self._model
        level = np.log(0.18) + 0.45 * rng.standard_normal(n)
        level = np.clip(level, np.log(0.08), np.log(0.9))
        stressed = rng.random(n) < STRESSED_SHARE
        factors = simulate_factors(
            model,
            np.exp(rng.uniform(np.log(40.0), np.log(900.0), n)),
            level,
            stressed.astype(np.int8),
            SESSION_BARS + HISTORY_BARS,
            float(BAR_SECONDS),
            rng,
            log_scale=level - np.log(np.where(stressed, model.stressed_vol, model.calm_vol)),
        )
        for name in Factors._fields:
            getattr(self._factors, name)[which] = getattr(factors, name)
        self._bar[which] = bar
        warm = rng.random(n) < 0.5
        self._offset[which] = np.where(warm, HISTORY_BARS, 0)
        self._tick_class[which] = rng.integers(0, 2, n)
        self._list_contracts(which)
        books = self._books
        books.cash[which] = books.equity[which] = self._rules.initial_capital
        books.unit_reserve[which] = books.net_cash[which] = 0.0
        books.units[which] = books.trades[which] = books.opened_ns[which] = 0
        books.legs[which] = -1
        books.ratio[which] = 0
        self._returns[which] = 0.0
        self._lengths[which] = 0
        self._advance(which, requote=1.0)
        self._observe(which)

    def _list_contracts(self, which: NDArray[np.int64]) -> None:
        """List strikes around the spot of the episode's start, one random expiry a bucket."""
        at = self._bar[which] + self._offset[which]
        spot, iv = self._factors.spot[which, at], self._factors.atm_iv[which, at]
        increment = np.where(spot < 100.0, 0.5, np.where(spot < 400.0, 1.0, 2.5))
        grid = np.linspace(-STRIKE_REACH, STRIKE_REACH, STRIKES_PER_EXPIRY)
        width = 2 * STRIKES_PER_EXPIRY
        for g, bucket in enumerate(BUCKETS):
            low, high = int(bucket.min_days) + 1, min(int(bucket.max_days) - 1, 45)
            days = self._rng.integers(low, high + 1, len(which))
            deviation = iv * np.sqrt((days + 0.27) / 365.0)
            ideal = spot[:, None] * np.exp(deviation[:, None] * grid)
            steps = np.round(ideal / increment[:, None])
            strikes = _spread_apart(steps) * increment[:, None]
            columns = slice(g * width, (g + 1) * width)
            self._chains.strike[which, columns] = np.repeat(strikes, 2, axis=1)
            self._chains.expiry_ns[which, columns] = (SESSION_CLOSE_NS + days * DAY_NS)[:, None]
        for column in (
            self._chains.bid,
            self._chains.ask,
            self._chains.bid_size,
            self._chains.ask_size,
            self._chains.quote_ns,
        ):
            column[which] = 0
        self._chains.mark[which] = np.nan

    def _trade(self, actions: I64) -> None:
        _trade(
            self._chains,
            self._bar,
            self._rules,
            self._fees,
            self._menus,
            actions,
            self._books,
            self._invalid,
        )

    def _advance(self, which: I64, requote: float | None = None) -> None:
        _quote_and_mark(
            self._chains,
            which,
            self._bar,
            self._offset,
            self._model,
            self._factors,
            self._tick_class,
            self._model.requote_per_bar if requote is None else requote,
            self._rng,
            self._rules,
            self._books,
            self._spot,
            self._changed,
        )

    def _observe(self, which: I64) -> None:
        _observe(
            self._chains,
            self._bar,
            self._offset,
            self._factors,
            self._spot,
            self._rules,
            self._fees,
            self._books,
            self._menus,
            which,
            self._observations,
        )


def _spread_apart(steps: F64) -> F64:
    """Make each row of whole numbers strictly rising by pushing equal neighbours apart."""
    rising = np.arange(steps.shape[1])
    apart: F64 = np.maximum.accumulate(steps - rising, axis=1) + rising
    positive: F64 = np.maximum(apart, rising + 1.0)
    return positive
