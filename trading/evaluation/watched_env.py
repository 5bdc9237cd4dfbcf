"""The training environment with a note of every bar: what was held, and what it earned by what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.envs.account_view import Holdings
from trading.envs.catalogue import CLOSE, Strategy
from trading.envs.rules import NO_LEG, TradingRules
from trading.envs.structures import Structure, all_actions
from trading.envs.vector_env import Markets, OptionsVectorEnv
from trading.evaluation.attribution import ENDINGS, PositionGreeks, explain, greeks_of_holdings
from trading.evaluation.baselines import (
    BUY_AND_HOLD,
    SHORT_STRANGLE,
    HeldToClose,
    MarketView,
)
from trading.execution.fees import FeeSchedule
from trading.market.chain import F64, I64

POSITIONS = (
    "none",
    *(each.value for each in Strategy if each not in (Strategy.HOLD, Strategy.CLOSE)),
    BUY_AND_HOLD.name,
    SHORT_STRANGLE.name,
)
"""What an account may hold, but for structures of a user's own."""


def position_names(structures: tuple[Structure, ...] = ()) -> tuple[str, ...]:
    """Return what an account may hold: `POSITIONS`, and behind them structures by name."""
    return (*POSITIONS, *(each.name for each in structures))


def _positions_of(rules: TradingRules) -> I64:
    """Return what each action of full size opens, as an index into `position_names`; else 0."""
    actions, own = all_actions(rules.structures), [each.name for each in rules.structures]
    opened = [0] * (CLOSE + 1)
    for action in actions[CLOSE + 1 :]:
        if isinstance(action.strategy, Strategy):
            opened.append(POSITIONS.index(action.strategy))
        else:
            opened.append(len(POSITIONS) + own.index(action.strategy))
    return np.array(opened, dtype=np.int64)


@dataclass(frozen=True)
class WatchedBar:
    """One bar of B accounts; amounts are USD."""

    equity: F64
    """[B], at the bar's close, and likewise `trades`."""
    trades: I64
    """[B], fills since the open."""
    parts: F64
    """[B, COMPONENTS], see `trading.evaluation.attribution`."""
    traded: F64
    """[B], options and stock that changed hands."""
    position: I64
    """[B], index into `position_names` of what was held during the bar, and likewise the rest."""
    contracts: I64
    """[B], option contracts, sold ones counted too."""
    delta: F64
    """[B], delta in USD over equity."""
    session: I64
    """[B], sessions of the episode that were over when the bar began."""

    def of_accounts(self, rows: int) -> "WatchedBar":
        """Return the bar of whole accounts of so many rows.

        What is held is that of the first row that holds something; equity and session are alike in
        all rows, and the rest is added up.
        """
        if rows == 1:
            return self
        held = self.position.reshape(-1, rows)
        first = (held > 0).argmax(axis=1)
        return WatchedBar(
            equity=self.equity[::rows],
            trades=self.trades.reshape(-1, rows).sum(axis=1),
            parts=self.parts.reshape(-1, rows, self.parts.shape[1]).sum(axis=1),
            traded=self.traded.reshape(-1, rows).sum(axis=1),
            position=held[np.arange(len(held)), first],
            contracts=self.contracts.reshape(-1, rows).sum(axis=1),
            delta=self.delta.reshape(-1, rows).sum(axis=1),
            session=self.session[::rows],
        )


class WatchedEnv(OptionsVectorEnv):
    """An `OptionsVectorEnv` that appends each of its steps to `bars`.

    With a `held_to_close` position it opens that one by itself wherever it may, and the actions
    should hold. `underlyings` are the accounts' tickers, [B].
    """

    def __init__(
        self,
        num_envs: int,
        rules: TradingRules,
        fees: FeeSchedule,
        markets: Markets,
        underlyings: Sequence[str],
        held_to_close: HeldToClose | None = None,
    ) -> None:
        super().__init__(num_envs, rules, fees, markets)
        self.bars: list[WatchedBar] = []
        self._underlyings, self._held_to_close = underlyings, held_to_close
        self._opens = _positions_of(rules)
        self._position = np.zeros(num_envs, dtype=np.int64)
        self._pending: tuple[PositionGreeks, F64, F64, F64] | None = None
        self._session = np.zeros(num_envs, dtype=np.int64)

    def _trade(self, actions: I64) -> None:
        accounts = self._accounts
        before = Holdings._make(column.copy() for column in accounts.holdings)
        fees, trades = accounts.fees.copy(), accounts.trades.copy()
        super()._trade(actions)
        if self._held_to_close is not None:
            self._held_to_close.open_all(self._view(), self._rules, self._fees, accounts)
        filled = accounts.trades != trades
        opened = filled & (before.units == 0)
        kind = self._opens[accounts.last_action]
        if self._held_to_close is not None:
            kind = np.full(self.num_envs, POSITIONS.index(self._held_to_close.name))
        self._position[opened] = kind[opened]
        self._position[accounts.holdings.units == 0] = 0
        reading = self._read()
        # `profit` is of the last mark, which is the one that the order met.
        paid = accounts.profit - accounts.net_cash - reading.value
        fee = np.where(opened, accounts.fees, accounts.fees - fees)
        self._pending = reading, paid, fee, self._traded(before, filled)

    def _observe(self, which: I64) -> None:
        super()._observe(which)
        if self._pending is None:
            return
        before, paid, fees, traded = self._pending
        self._pending = None
        held, accounts = self._accounts.holdings, self._accounts
        contracts = np.where(held.legs >= 0, np.abs(held.ratio), 0).sum(axis=1) * held.units
        self.bars.append(
            WatchedBar(
                equity=self.equity.copy(),
                trades=accounts.trades.copy(),
                parts=explain(before, self._read(), paid, fees),
                traded=traded,
                position=self._position.copy(),
                contracts=contracts,
                delta=before.delta_usd / np.maximum(self.equity, 1.0),
                session=self._session.copy(),
            )
        )

    def _open(self, which: I64) -> None:
        self._session[which] = 0
        super()._open(which)

    def _pass_night(self, which: I64) -> None:
        """Count the night to the bar before it, and tell what of its profit came from what."""
        accounts, none = self._accounts, np.zeros(self.num_envs)
        before, profit, cash = self._read(), accounts.profit.copy(), accounts.net_cash.copy()
        super()._pass_night(which)
        self._session[which] += 1
        bar, change = self.bars[-1], accounts.profit - profit
        bar.equity[which] = self.equity[which]
        parts = explain(before, self._read(), none, none)
        ended = accounts.net_cash != cash
        ended |= (before.quantity != self._read().quantity).any(axis=1)
        parts[ended] = 0.0
        parts[ended, ENDINGS] = change[ended]
        bar.parts[which] += parts[which]

    def _view(self) -> MarketView:
        markets = self._markets
        return MarketView(markets.quotes, markets.snapshots, markets.snapshot_of, self._underlyings)

    def _read(self) -> PositionGreeks:
        markets = self._markets
        held = self._accounts.holdings
        return greeks_of_holdings(
            markets.quotes, markets.snapshots, markets.snapshot_of, held, self._rules
        )

    def _traded(self, before: Holdings, filled: NDArray[np.bool_]) -> F64:
        """USD of options and stock that the accounts' orders moved, [B]."""
        traded = np.zeros(self.num_envs)
        after, price = self._accounts.holdings, self._accounts.last_price
        for b in np.flatnonzero(filled).tolist():
            opens = before.units[b] == 0
            units = int(after.units[b] - before.units[b])
            legs, ratio = (after.legs, after.ratio) if opens else (before.legs, before.ratio)
            n_legs = int((legs[b] != NO_LEG).sum())
            lots = np.abs(ratio[b, :n_legs] * units)
            traded[b] = self._rules.multiplier * (lots * price[b, :n_legs]).sum()
        return traded
