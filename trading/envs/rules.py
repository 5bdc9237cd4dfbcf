"""What the environments share: the rules of trading, and what stands for stock in an order."""

from typing import NamedTuple

import numpy as np
from numba import njit

from trading.envs.structures import Structure

NO_LEG = -1
STOCK_LEG = -2
"""In the place of a contract's index: the leg is the underlying itself, in round lots."""

STOCK_LOTS = 1_000_000.0
"""Displayed size of a stock: bars show a price but no size, and no order here would exhaust it."""


class TradingRules(NamedTuple):
    """What limits an order at decision time; shared by live trading and training."""

    initial_capital: float
    """USD."""
    max_positions: int
    """Open strategies in the account."""
    risk_fraction: float
    """Greatest loss that one new strategy may risk, as a fraction of equity."""
    secured_fraction: float
    """Buying power that a covered call or cash-secured put may take, as a fraction of equity."""
    max_contracts: int
    """Option contracts of one order, all legs together."""
    max_notional: float
    """USD of premium and stock of one order, all legs added up."""
    max_delta: float
    """Account delta, USD per 100 % of spot, as a multiple of equity."""
    max_gamma: float
    """Change of that delta per 1 % of spot, as a multiple of equity."""
    max_vega: float
    """Account vega, USD per volatility point, as a multiple of equity."""
    max_daily_loss: float
    """Loss since the last close that halts trading, as a fraction of the equity there."""
    max_drawdown: float
    """Loss from the peak that leaves only closing, as a fraction of the peak."""
    min_short_equity: float
    """USD of equity that selling short needs."""
    max_quote_age_ns: int
    """A quote older than this is neither traded nor read."""
    slippage: float
    """USD a share and leg, paid beyond the touch."""
    stock_half_spread: float
    """Half the spread of a stock around its last price, as a fraction of it."""
    multiplier: float
    """Shares a contract delivers, which is also a round lot."""
    rate: float
    """Risk-free rate, continuously compounded, a year."""
    no_open_ns: int
    """No new position this close to the end of the session."""
    reward_scale: float
    """Reward is the change of equity over the initial capital, times this."""
    fill_style: int = 0
    """How much of the spread fills pay: a `trading.execution.matching.FillStyle`."""
    risk_aversion: float = 0.0
    """How much the risk of a bar weighs in its reward, see `trading.envs.rewards`."""
    risk_measure: int = 0
    """What counts as that risk: a `trading.envs.rewards.RiskMeasure`."""
    size_levels: int = 1
    """Sizes of each opening, see `trading.envs.size_levels`."""
    underlyings_per_account: int = 1
    """Underlyings that an account of training trades, see `trading.envs.shared_accounts`; with more
    than one the observation ends with what the account holds in the others, live too."""
    structures: tuple[Structure, ...] = ()
    """Those of a user's own, in the order of their actions."""
    working_steps: int = 4
    """In so many bars an order of `FillStyle.WORKING` comes from mid to the touch."""

    @property
    def numbers(self) -> "TradingRules":
        """These rules as compiled functions take them: structures reach them as `ActionTables`."""
        return self._replace(structures=())


@njit(cache=True)
def stock_touch(price: float, half_spread: float) -> tuple[float, float]:
    """Bid and ask of a stock around its last price, USD a share, in whole cents.

    Half the spread is a fraction of the price, at least half a cent; both sides are rounded away
    from the price. The stock feed has minute bars and no quotes, so this is a model of the touch.
    NaN gives NaN.
    """
    half = max(half_spread * price, 0.005)
    bid = np.floor((price - half) * 100.0 + 1e-6) / 100.0
    ask = np.ceil((price + half) * 100.0 - 1e-6) / 100.0
    return bid, ask
