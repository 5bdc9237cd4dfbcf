"""Many accounts in option markets stepped at once, as a Gymnasium vector environment.

An environment is one account that trades one underlying for a session, or several in a row; or it
is one of the rows of an account that trades several underlyings, see
`trading.envs.shared_accounts`. The step is compiled: matching, fees, margin, actions and features
are the functions the live market calls.
"""

from pathlib import Path
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from trading.envs.account_view import Holdings, empty_views, observe_accounts
from trading.envs.accounts import mark, new_accounts, open_accounts, trade
from trading.envs.action_tables import action_tables
from trading.envs.catalogue import action_count
from trading.envs.exits import closed_equity
from trading.envs.features import FEATURE_COUNT, shown_last
from trading.envs.history import HistoricalMarkets, History
from trading.envs.market_features import LIMIT
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.nights import close_accounts, pay_dividends, watch_margin
from trading.envs.own_features import OwnFeatures, copy_own, own_in
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rewards import RewardRule, largest_reward
from trading.envs.rules import TradingRules
from trading.envs.saved_state import copy_state, restore_state
from trading.envs.shared_accounts import observe_others, trade_accounts
from trading.envs.simulated_markets import SimulatedMarkets
from trading.envs.working_orders import is_working, observe_orders
from trading.envs.working_trades import (
    cancel_forbidden,
    cancel_orders,
    trade_with_working_orders,
)
from trading.errors import ConfigError, DataError
from trading.execution.fees import FeeSchedule
from trading.market.chain import F64, I64
from trading.market.randomisation import (
    DEFAULT_INITIAL_CONDITIONS,
    DEFAULT_RANGES,
    InitialConditions,
    ModelRanges,
)

Observation = dict[str, NDArray[Any]]


class Markets(Protocol):
    """Where the snapshots of B accounts come from.

    Attributes
    ----------
    snapshots, quotes : the snapshots, and the quotes in them
    snapshot_of : i64[B], the snapshot that each account is in
    """

    @property
    def snapshots(self) -> MarketSnapshots: ...

    @property
    def quotes(self) -> QuoteArrays: ...

    @property
    def snapshot_of(self) -> I64: ...

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw from another generator from now on."""
        ...

    def start_all(self) -> None:
        """Begin an episode for every account."""
        ...

    def advance(self, opens: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Go on by one bar; returns the accounts whose session has closed, bool[B].

        Accounts that do not open a position on that bar, as they hold one, need not see what one
        would cost: `opens` bool[B] says who may; None: all.
        """
        ...

    def over(self) -> NDArray[np.bool_]:
        """Return the accounts whose episode ends with the session that they are in, bool[B]."""
        ...

    def night(self, accounts: I64) -> tuple[F64, NDArray[np.bool_]]:
        """Of accounts whose session has closed and whose episode goes on, what the night brings.

        The dividend that goes ex at the next open, USD a share, and whether options settle in cash;
        each [len(accounts)].
        """
        ...

    def pass_night(self, accounts: I64, holdings: Holdings) -> None:
        """Bring these accounts to the first bar of their next session.

        The legs of `holdings` [B, MAX_LEGS] become those of that session's listing, in which all
        that has not expired is listed. Accounts of one market pass the night together.
        """
        ...

    def restart(self, accounts: I64) -> None:
        """Begin new episodes for accounts whose episode is over."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that later bars depend on."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state in place, so that views of quotes and snapshots stay.

        Raises
        ------
        DataError
            The state is of other markets; nothing is changed then.
        """
        ...


class OptionsVectorEnv(VectorEnv):  # type: ignore[misc]
    """B accounts in the markets of a `Markets`.

    Autoreset mode is SAME_STEP: the step that ends an episode returns the first observation of the
    next one, and `info["final_obs"]` the last of the old. An episode is one session or several; it
    ends by truncation at a close with the position marked to mid. A session's last step before the
    episode's end goes through the close, the night and the next open to the next session's first
    bar: what expires is settled, and the reward is of all of it, see `trading.envs.nights`.

    Parameters
    ----------
    num_envs
        B, rows of accounts. With `rules.underlyings_per_account` K each account has K in a row,
        which begin and end together.
    rules, fees
        The limits and fees of the account, as in live trading.
    markets
        What is traded.
    reward
        What turns the rewards of the rules into others; None: nothing.

    Raises
    ------
    ConfigError
        The rows are no whole number of accounts.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        rules: TradingRules,
        fees: FeeSchedule,
        markets: Markets,
        reward: RewardRule | None = None,
    ) -> None:
        self.num_envs = num_envs
        rows = rules.underlyings_per_account
        if num_envs % rows:
            raise ConfigError(
                [f"env.underlyings_per_account {rows}: {num_envs} rows are no whole accounts"]
            )
        if rows > 1 and is_working(rules):
            raise ConfigError(
                [
                    f"env.underlyings_per_account {rows}: with execution.style=working accounts of "
                    "training trade one underlying each; set it to 1, or another style"
                ]
            )
        self._ratios = action_tables(rules.structures).ratio
        whole, own = len(self._ratios), own_in(markets.snapshots)
        actions = action_count(rules.size_levels, whole)
        added = own + len(shown_last(rows, is_working(rules)))
        self.single_observation_space = gym.spaces.Dict(
            {
                "observations": gym.spaces.Box(-LIMIT, LIMIT, (FEATURE_COUNT + added,), np.float32),
                "action_mask": gym.spaces.Box(0, 1, (actions,), np.bool_),
            }
        )
        self.single_action_space = gym.spaces.Discrete(actions)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rules, self._fees, self._markets = rules.numbers, fees, markets
        self._reward = reward
        shape = (rules.size_levels, added, whole)
        self._accounts, self._own = new_accounts(num_envs, *shape), own
        self._orders_work = is_working(rules)
        self.rows, self._shares = rows, rows > 1
        """Rows of an account, one for each underlying."""
        self._spare = empty_views(num_envs if self._shares else 0, *shape)
        self._every = np.arange(num_envs, dtype=np.int64)
        self._invalid = np.zeros(num_envs, dtype=np.bool_)
        self._rewards = np.zeros(num_envs)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    @property
    def equity(self) -> F64:
        """Equity of every account at its last mark, USD, [B]; a view."""
        return self._accounts.balances.equity

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes for every account."""
        if seed is not None:
            self._markets.reseed(np.random.default_rng(seed if isinstance(seed, int) else seed[0]))
        self._markets.start_all()
        self._open(self._every)
        return self._current(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One bar for every account.

        Returns observations f32[B, F] and masks bool[B, N], reward f32[B], terminated bool[B],
        truncated bool[B] and info; `info["invalid_action"]` marks actions that were masked out and
        therefore held. Where an episode ended, `info["episode"]` has its return, length, number of
        fills, equity at the close, and what that is with all positions closed at the touch.
        """
        chosen = np.asarray(actions, dtype=np.int64)
        if chosen.shape != (self.num_envs,):
            raise DataError(
                f"actions have the shape {chosen.shape}: give one for each of {self.num_envs} "
                f"environments, shape ({self.num_envs},)"
            )
        self._trade(chosen)
        truncated = self._markets.advance(self._accounts.holdings.units == 0)
        self._observe(self._every)
        reward = self._rewards.astype(np.float32)
        self._returns += self._rewards
        self._lengths += 1
        info: dict[str, Any] = {"invalid_action": self._invalid.copy()}
        if truncated.any():
            over = self._markets.over()
            night = np.flatnonzero(truncated & ~over)
            truncated &= over
            if len(night):
                self._pass_night(night)
                reward[night] += self._rewards[night].astype(np.float32)
                self._returns[night] += self._rewards[night]
        done = np.flatnonzero(truncated)
        if len(done):
            info["final_obs"] = self._current()
            info["episode"] = {
                "r": self._returns.astype(np.float32),
                "l": self._lengths.copy(),
                "trades": self._accounts.trades.copy(),
                "equity": self.equity.copy(),
                "closed_equity": self._closed(done),
            }
            info["_episode"] = truncated.copy()
            self._markets.restart(done)
            self._open(done)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return self._current(), reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Return a copy of the accounts, the markets and the generator.

        Some tens of kB an account.
        """
        return {
            "rows": self.rows,
            "accounts": copy_state(self._state()),
            "markets": self._markets.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on, to the last bit, where another environment of equal arguments stood.

        Raises
        ------
        DataError
            The state is of an environment of another size or kind; reset this one then.
        """
        # Rows of other accounts have arrays of the same shapes, and states of before had one each.
        rows = state.get("rows", 1)
        if rows != self.rows:
            raise DataError(
                f"the state is of accounts of {rows} underlyings, and "
                f"env.underlyings_per_account is {self.rows}: start new episodes"
            )
        self._markets.set_state(state["markets"])
        restore_state(self._state(), state["accounts"], "accounts")

    def _state(self) -> dict[str, Any]:
        """Return the arrays that are not the markets'."""
        return {
            "accounts": self._accounts,
            "invalid": self._invalid,
            "rewards": self._rewards,
            "returns": self._returns,
            "lengths": self._lengths,
        }

    def _current(self) -> Observation:
        return {
            "observations": self._accounts.views.observations.copy(),
            "action_mask": self._accounts.views.mask.copy(),
        }

    def _open(self, which: I64) -> None:
        open_accounts(self._accounts, which, self._rules.initial_capital)
        self._returns[which] = 0.0
        self._lengths[which] = 0
        self._observe(which)

    def _trade(self, actions: I64) -> None:
        markets, accounts = self._markets, self._accounts
        view = (markets.quotes, markets.snapshots, markets.snapshot_of, self._rules)
        paid = (self._fees, self._ratios)
        if self._shares:
            trade_accounts(*view, *paid, accounts, actions, self._invalid, self._spare)
        else:
            execute = trade_with_working_orders if self._orders_work else trade
            execute(*view, *paid, accounts, self._every, actions, self._invalid)

    def _closed(self, which: I64) -> F64:
        """Equity of accounts with everything closed at the touch, USD, [B]; of others as marked."""
        worth, markets = self.equity.copy(), self._markets
        view = (markets.quotes, markets.snapshots, markets.snapshot_of, self._rules)
        closed_equity(*view, self._fees, self._accounts, which, worth)
        return worth

    def _pass_night(self, which: I64) -> None:
        """Lead accounts at their session's close to the first bar of the next one."""
        accounts, markets = self._accounts, self._markets
        view = (markets.quotes, markets.snapshots, markets.snapshot_of, self._rules)
        if self._orders_work:
            cancel_orders(accounts, which)
        dividend, in_cash = markets.night(which)
        close_accounts(*view, accounts, which, dividend, in_cash)
        markets.pass_night(which, accounts.holdings)
        rows = self._rules.underlyings_per_account
        pay_dividends(accounts, which, dividend, self._rules.multiplier, rows)
        self._observe(which)

    def _observe(self, which: I64) -> None:
        accounts = self._accounts
        view = (
            self._markets.quotes,
            self._markets.snapshots,
            self._markets.snapshot_of,
            self._rules,
        )
        profit = None if self._reward is None else accounts.profit.copy()
        mark(*view, accounts, which, self._rewards)
        if accounts.margin_moves.any():
            watch_margin(*view, accounts, which)
        if self._orders_work:
            cancel_forbidden(accounts, which)
        works = True if self._orders_work else None
        observe_accounts(*view, accounts.holdings, accounts.balances, which, accounts.views, works)
        if self._shares:
            observe_others(*view, self._ratios, accounts, which)
        if self._own:
            copy_own(*view[1:3], which, accounts.views.observations)
        if self._orders_work:
            orders = accounts.orders
            observe_orders(*view[1:], accounts.balances, orders, which, accounts.views)
        if self._reward is not None and profit is not None:
            capital = self._rules.initial_capital
            self._reward.pay(
                (accounts.profit - profit) / capital,
                accounts.balances.equity,
                capital,
                accounts.views.observations,
                which,
                largest_reward(self._rules.reward_scale, self._rules.risk_aversion),
                self._rewards,
            )


class SimulatedOptionsVectorEnv(OptionsVectorEnv):
    """B accounts in simulated markets that are made as they are traded.

    First episodes start at staggered times so that the markets do not march in step.

    Parameters
    ----------
    num_envs, rules, fees
        As in `OptionsVectorEnv`.
    ranges
        What the parameters of the simulated markets are drawn from.
    seed
        Seeds everything; `reset(seed=...)` starts over from another.
    accounts_per_market
        How many accounts trade the same market at the same time, each with its own orders; times
        the underlyings of an account it divides `num_envs`. Making a market costs far more than
        trading in it. Accounts that trade several markets share all of them.
    initial_conditions
        Spots, regimes and news that episodes begin with.
    sessions_per_episode
        So many sessions in a row make an episode.
    reward
        As in `OptionsVectorEnv`.
    features
        Those of a user's own that observations end with; None: none.

    Raises
    ------
    ConfigError
        `num_envs` cannot be had with so many accounts to a market and underlyings to an account.

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

    def __init__(
        self,
        num_envs: int,
        rules: TradingRules,
        fees: FeeSchedule,
        ranges: ModelRanges = DEFAULT_RANGES,
        seed: int = 0,
        accounts_per_market: int = 1,
        initial_conditions: InitialConditions = DEFAULT_INITIAL_CONDITIONS,
        sessions_per_episode: int = 1,
        reward: RewardRule | None = None,
        features: OwnFeatures | None = None,
    ) -> None:
        rows = rules.underlyings_per_account
        if accounts_per_market < 1 or num_envs % (accounts_per_market * rows):
            raise ConfigError(
                [
                    f"accounts_per_market {accounts_per_market}: use a divisor of num_envs "
                    f"{num_envs}"
                    + (f" over env.underlyings_per_account {rows}" if rows > 1 else "")
                ]
            )
        rng = np.random.default_rng(seed)
        markets = SimulatedMarkets(
            num_envs,
            accounts_per_market,
            rules,
            fees,
            ranges,
            rng,
            initial_conditions,
            sessions_per_episode,
            features,
        )
        super().__init__(num_envs, rules, fees, markets, reward)


class HistoricalOptionsVectorEnv(OptionsVectorEnv):
    """B accounts on recorded days, drawn at random.

    Parameters
    ----------
    num_envs, rules, fees
        As in `OptionsVectorEnv`.
    history
        Folder of a history that `trading.envs.history.write_history` wrote for these rules.
    seed
        Seeds the choice of days; `reset(seed=...)` starts over from another.
    sessions_per_episode
        At most so many sessions in a row make an episode.
    reward
        As in `OptionsVectorEnv`.
    features
        Those of a user's own that observations end with; None: none.

    Raises
    ------
    DataError
        There is no history in the folder, or it was written for other rules.
    """

    def __init__(
        self,
        num_envs: int,
        rules: TradingRules,
        fees: FeeSchedule,
        history: str | Path,
        seed: int = 0,
        sessions_per_episode: int = 1,
        reward: RewardRule | None = None,
        features: OwnFeatures | None = None,
    ) -> None:
        opened = History(Path(history), rules, fees, features)
        rng = np.random.default_rng(seed)
        common = opened.common_days(rules.underlyings_per_account)
        markets = HistoricalMarkets(num_envs, opened, rng, sessions_per_episode, common)
        super().__init__(num_envs, rules, fees, markets, reward)
