"""What the style of fills changes for a trader of fixed rules, on the same simulated markets.

    python -m benchmarks.fill_styles              # a minute or two
    python -m benchmarks.fill_styles --action bull_call_debit_far_d50_25 --minutes 30

The trader opens one position of the catalogue wherever it may, keeps it for so many minutes, closes
it, and opens the next. Its decisions are the same by every style; what fills, when and at which
price is not. An order's improvement is what it traded at against the touch that its decision saw,
in percent of the spread of all legs then: 50 % is mid, below 0 the market ran away from it. Returns
are of a session, marked at the close, beside their standard error over the accounts' markets.
"""

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from trading.envs.by_name import action as action_named
from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules, stock_touch
from trading.envs.vector_env import Observation, SimulatedOptionsVectorEnv
from trading.execution.matching import FillStyle

OPEN = [each.name for each in FEATURES].index("position_open")


class Decided(NamedTuple):
    """A decision that waits to be filled: when, and what it saw of its legs, USD a unit a share."""

    bar: int
    touch: float
    spread: float


class NotedEnv(SimulatedOptionsVectorEnv):
    """Notes of every order when it was decided, and when and at which price it traded."""

    def __init__(self, accounts: int, rules: TradingRules, seed: int) -> None:
        super().__init__(accounts, rules, DEFAULT_FEES, seed=seed)
        self.bar, self.decided, self.orders = 0, dict[int, Decided](), 0
        self.waited: list[int] = []
        self.improved: list[float] = []

    def _trade(self, actions: NDArray[np.int64]) -> None:
        accounts, self.bar = self._accounts, self.bar + 1
        free = (actions != HOLD) & (accounts.orders.action == HOLD)
        allowed = accounts.views.mask[np.arange(self.num_envs), actions]
        ratios = {}
        for b in np.flatnonzero(free & allowed).tolist():
            self.orders += 1
            self.decided[b] = self._seen(b, int(actions[b]))
        for b, _ in self.decided.items():
            closes = accounts.holdings.units[b] > 0
            ratios[b] = -accounts.holdings.ratio[b] if closes else None
        trades = accounts.trades.copy()
        super()._trade(actions)
        for b in np.flatnonzero(accounts.trades != trades).tolist():
            decided = self.decided.pop(b)
            ratio = ratios[b] if ratios[b] is not None else accounts.holdings.ratio[b]
            paid = float((ratio * accounts.last_price[b]).sum())
            self.waited.append(self.bar - decided.bar)
            self.improved.append((decided.touch - paid) / decided.spread)
        for b in [each for each in self.decided if accounts.orders.action[each] == HOLD]:
            del self.decided[b]

    def _seen(self, b: int, action: int) -> Decided:
        accounts, markets = self._accounts, self._markets
        f, quotes = int(markets.snapshot_of[b]), markets.quotes
        closes = action == CLOSE
        legs = accounts.holdings.legs[b] if closes else markets.snapshots.legs[f, action]
        ratio = -accounts.holdings.ratio[b] if closes else self._ratios[action]
        touch = spread = 0.0
        for leg, lots in zip(legs.tolist(), ratio.tolist(), strict=True):
            if leg == NO_LEG:
                break
            if leg == STOCK_LEG:
                bid, ask = stock_touch(markets.snapshots.spot[f], self._rules.stock_half_spread)
            else:
                q = int(quotes.quote_offset[f]) + leg
                bid, ask = float(quotes.bid[q]), float(quotes.ask[q])
            touch += lots * (ask if lots > 0 else bid)
            spread += abs(lots) * (ask - bid)
        return Decided(self.bar, touch, spread)


class Trader:
    """Opens an action wherever it may, and closes what is open after so many bars."""

    def __init__(self, action: int, minutes: int, accounts: int) -> None:
        self._action, self._minutes = action, minutes
        self._held = np.zeros(accounts, dtype=np.int64)

    def __call__(self, observation: Observation) -> NDArray[np.int64]:
        """Return an action per account, [B]."""
        mask, is_open = observation["action_mask"], observation["observations"][:, OPEN] > 0.0
        self._held = np.where(is_open, self._held + 1, 0)
        closes = (self._held > self._minutes) & mask[:, CLOSE]
        opens = ~is_open & mask[:, self._action]
        return np.where(closes, CLOSE, np.where(opens, self._action, HOLD))


def measured(rules: TradingRules, action: int, minutes: int, bars: int, accounts: int) -> list[str]:
    """Trade by one style, and return the cells of its row."""
    env, trader = NotedEnv(accounts, rules, seed=7), Trader(action, minutes, accounts)
    observation, _ = env.reset()
    sessions: list[list[float]] = [[] for _ in range(accounts)]
    for _ in range(bars):
        observation, _, _, truncated, info = env.step(trader(observation))
        for b in np.flatnonzero(truncated).tolist():
            gain = float(info["episode"]["equity"][b]) / rules.initial_capital - 1.0
            sessions[b].append(100.0 * gain)
    means = np.array([np.mean(each) for each in sessions if each])
    waited = np.array(env.waited)
    return [
        f"{env.orders:,}",
        f"{100.0 * len(waited) / env.orders:.1f} %",
        f"{100.0 * (waited == 0).mean():.0f} %",
        f"{waited.mean():.2f}",
        f"{100.0 * np.mean(env.improved):.1f} %",
        f"{means.mean():+.3f} %",
        f"{means.std(ddof=1) / np.sqrt(len(means)):.3f}",
    ]


def main() -> None:
    """Print one row for each style."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--action", default="iron_condor_far_d30_15")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--bars", type=int, default=2000)
    parser.add_argument("--accounts", type=int, default=64)
    options = parser.parse_args()
    table = Table("style", "orders", "filled", "at once", "bars waited", "improved", "return", "se")
    styles = [("touch", FillStyle.TOUCH, 1), ("share_of_spread", FillStyle.SHARE_OF_SPREAD, 1)]
    styles += [(f"working, {k} steps", FillStyle.WORKING, k) for k in (1, 4, 10)]
    for name, style, steps in styles:
        rules = DEFAULT_RULES._replace(fill_style=int(style), working_steps=steps)
        action = action_named(options.action)
        row = measured(rules, action, options.minutes, options.bars, options.accounts)
        table.add_row(name, *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
