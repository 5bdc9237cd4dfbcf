"""Where the day's profit came from, as it is earned: the attribution of a backtest, live.

Every leg is a row of `trading.evaluation.attribution`, read at the close of two bars that follow
each other. What fills paid beyond the marks they met is their spread. What neither explains, such
as interest, dividends, settlements and corporate actions, is the difference to the day's profit, or
to the trade's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trading.envs.live_env import LiveEnv
from trading.envs.rules import STOCK_LEG
from trading.evaluation.attribution import (
    COMPONENTS,
    FEES,
    SPREAD,
    PositionGreeks,
    explain,
    greeks_of_mark,
)
from trading.execution.events import CorporateActionApplied, Event, OrderFilled, Settled
from trading.execution.orders import Fill
from trading.market.pricing import YEAR_NS

OF_A_TRADE = COMPONENTS[: SPREAD + 1]
"""Components that a trade's profit is split by; its fees are known by its fills."""


class _Filled(NamedTuple):
    trade: str
    """The order that opened it; empty where it is in none."""
    fill: Fill
    sizes: tuple[float, ...]
    """USD that one unit of each leg is worth for each USD a share."""


class ProfitParts:
    """Adds up, on the trading thread, what each bar of a session earned by what.

    Parameters
    ----------
    env
        Of the account.

    Attributes
    ----------
    parts : dict
        USD since `since_ns`, by the names of `COMPONENTS`.
    since_ns : int
        Exchange time from which on they count; 0 before the first bar.
    """

    def __init__(self, env: LiveEnv) -> None:
        self.parts = dict.fromkeys(COMPONENTS, 0.0)
        self.since_ns = 0
        self._env = env
        self._session = ""
        self._fills: list[_Filled] = []
        self._sizes: dict[str, float] = {}
        """Of what is held; the books forget that of stock in shares with its last one."""
        self._ended: set[str] = set()
        """Symbols that a settlement or a corporate action ended or changed since the bar before."""
        self._converted: set[str] = set()
        """Underlyings of the corporate actions since the bar before."""
        self._suspended: frozenset[str] = frozenset()
        """Underlyings at the bar before; their marks stood still."""
        self._held: list[str] = []
        self._underlying_of_leg: list[str] = []
        self._trade_of_leg: list[str] = []
        """The order that opened the trade of each leg that is held; empty for what is in none."""
        self._trade_of: dict[str, str] = {}
        """The newest trade of each underlying."""
        self._earned: dict[tuple[str, str], np.ndarray] = {}
        self._quantity = np.zeros(0)
        self._before: PositionGreeks | None = None

    def follow(self, events: Sequence[Event]) -> None:
        """Note fills, and what ended otherwise, of what was journalled and applied."""
        for event in events:
            if isinstance(event, OrderFilled):
                self._know_trades()
                trade = self._trade_of.get(event.fill.underlying, "")
                sizes = tuple(self._size(leg.symbol) for leg in event.fill.legs)
                self._fills.append(_Filled(trade, event.fill, sizes))
            elif isinstance(event, Settled):
                self._ended.add(event.symbol)
                if event.lots:
                    self._ended |= self._stock_of(event.symbol)
                self._know_sizes()
            elif isinstance(event, CorporateActionApplied):
                self._ended |= {each.symbol for each in event.converted}
                self._converted.add(event.underlying)
                self._know_trades()
                self._know_sizes()

    def take_earned(self, underlyings: Sequence[str]) -> list[dict[str, tuple[float, ...]]]:
        """Return what trades earned since this was last asked, and forget it.

        Parameters
        ----------
        underlyings
            Those that are decided on; where there are none, all is kept.

        Returns
        -------
        list
            For each underlying its trades by the order that opened them, USD by `OF_A_TRADE`;
            trades of others are with the first.
        """
        taken: list[dict[str, tuple[float, ...]]] = [{} for _ in underlyings]
        if not taken:
            return taken
        places = {name: place for place, name in enumerate(underlyings)}
        for (underlying, trade), amounts in self._earned.items():
            told = taken[places.get(underlying, 0)]
            # A trade goes on under another underlying where its company is renamed or merged.
            before = told.get(trade, (0.0,) * len(amounts))
            told[trade] = tuple(
                round(one + float(amount), 4) for one, amount in zip(before, amounts, strict=True)
            )
        self._earned.clear()
        return taken

    def bar(self, now_ns: int, session: str) -> None:
        """Note that a bar was closed, and its orders are out."""
        if session != self._session:
            self._session = session
            self.parts = dict.fromkeys(COMPONENTS, 0.0)
            # What the night brought is explained with the first bar, if it was held then.
            self.since_ns = int(self._before.now_ns[0]) if self._before is not None else now_ns
        marks = self._env.marks()
        if self._before is not None:
            after = self._read(self._held, self._quantity, marks, now_ns)
            nothing = np.zeros(len(self._held))
            rows = explain(self._before, after, nothing, nothing)
            ended = np.isnan(after.mark[:, 0]) | np.isnan(self._before.mark[:, 0])
            ended |= self._beyond_greeks()
            for name, amount in zip(COMPONENTS, rows[~ended].sum(axis=0), strict=True):
                self.parts[name] += float(amount)
            for leg in np.flatnonzero(~ended):
                self._earn(self._underlying_of_leg[leg], self._trade_of_leg[leg], rows[leg])
        for trade, fill, sizes in self._fills:
            gained = self._gained(fill, sizes, marks)
            self.parts[COMPONENTS[FEES]] -= fill.fees
            self.parts[COMPONENTS[SPREAD]] += gained
            paid = np.zeros(len(COMPONENTS))
            paid[SPREAD] = gained
            self._earn(fill.underlying, trade, paid)
        self._fills.clear()
        self._know_trades()
        account = self._env.broker.account
        self._held = list(account.positions)
        self._underlying_of_leg = [each.underlying for each in account.positions.values()]
        self._trade_of_leg = [
            account.strategies[name].order_id if name in account.strategies else ""
            for name in self._underlying_of_leg
        ]
        self._sizes.clear()
        self._know_sizes()
        self._ended.clear()
        self._converted.clear()
        self._suspended = frozenset(account.suspensions)
        self._quantity = np.array(
            [each.quantity * self._sizes[name] for name, each in account.positions.items()]
        )
        self._before = None
        if self._held:
            self._before = self._read(self._held, self._quantity, marks, now_ns)

    def _know_trades(self) -> None:
        strategies = self._env.broker.account.strategies
        self._trade_of |= {name: each.order_id for name, each in strategies.items()}

    def _know_sizes(self) -> None:
        account = self._env.broker.account
        self._sizes |= {name: account.size(name) for name in account.positions}

    def _size(self, symbol: str) -> float:
        """Return what a unit is worth for each USD a share, also of the last one that was held."""
        account = self._env.broker.account
        return (
            account.size(symbol)
            if symbol in account.positions
            else self._sizes.get(symbol, account.multiplier)
        )

    def _stock_of(self, symbol: str) -> set[str]:
        """Return the stock that the exercise of a contract moves; none where it was not held."""
        held = zip(self._held, self._underlying_of_leg, strict=True)
        return {underlying for name, underlying in held if name == symbol}

    def _beyond_greeks(self) -> np.ndarray:
        """Return of which legs something else than the market moved the value; `(legs,)`.

        It ended by settlement, a corporate action changed it, or it is or was suspended: its mark
        is then not that of what was held, or does not follow its spot.
        """
        out = self._converted | self._suspended | self._env.broker.account.suspensions.keys()
        held = zip(self._held, self._underlying_of_leg, strict=True)
        return np.array([name in self._ended or underlying in out for name, underlying in held])

    def _earn(self, underlying: str, trade: str, amounts: np.ndarray) -> None:
        """Add amounts by `COMPONENTS` to what a trade earned."""
        if trade:
            nothing = np.zeros(len(OF_A_TRADE))
            before = self._earned.get((underlying, trade), nothing)
            self._earned[underlying, trade] = before + amounts[: len(OF_A_TRADE)]

    def _gained(self, fill: Fill, sizes: Sequence[float], marks: dict[str, float]) -> float:
        """Return what a fill brought beyond its marks, fees aside, USD; below zero as a rule."""
        worth = [
            leg.quantity * self._mark(leg.symbol, marks) * size
            for leg, size in zip(fill.legs, sizes, strict=True)
        ]
        total = fill.premium + sum(worth)
        return total if np.isfinite(total) else 0.0

    def _mark(self, symbol: str, marks: dict[str, float]) -> float:
        """Value in the books, USD a share, also of what is not held any more; NaN if unknown."""
        if symbol in marks:
            return marks[symbol]
        found = self._env.listed_in(symbol)
        if found is None:
            return float("nan")
        market, i = found
        return market.spot if i == STOCK_LEG else float(market.chain.columns.mark[i])

    def _read(
        self, symbols: Sequence[str], quantity: np.ndarray, marks: dict[str, float], now_ns: int
    ) -> PositionGreeks:
        count = len(symbols)
        columns = [np.full((count, 1), np.nan) for _ in range(6)]
        reading = PositionGreeks(
            np.full(count, now_ns, dtype=np.int64),
            np.full(count, np.nan),
            quantity.reshape(count, 1),
            *columns,
        )
        for row, symbol in enumerate(symbols):
            reading.mark[row] = mark = self._mark(symbol, marks)
            found = self._env.listed_in(symbol)
            if found is None:
                continue
            market, i = found
            reading.spot[row] = market.spot
            if i == STOCK_LEG:
                reading.delta[row], reading.iv[row] = 1.0, 0.0
                continue
            chain = market.chain.columns
            years = (int(chain.expiry_ns[i]) - now_ns) / YEAR_NS
            if not years > 0.0:
                continue
            read = greeks_of_mark(
                mark,
                float(chain.bid[i]),
                float(chain.ask[i]),
                int(chain.right[i]),
                float(chain.strike[i]),
                years,
                market.spot,
                self._env.rate,
            )
            for column, value in zip(
                (reading.iv, reading.delta, reading.gamma, reading.vega, reading.theta),
                read,
                strict=True,
            ):
                column[row] = value
        return reading
