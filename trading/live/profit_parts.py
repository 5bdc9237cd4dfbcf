"""Where the day's profit came from, as it is earned: the attribution of a backtest, live.

Every leg is a row of `trading.evaluation.attribution`, read at the close of two bars that follow
each other. What fills paid beyond the marks they met is their spread. What neither explains, such
as interest, dividends and settlements, is the difference to the day's profit.
"""

from collections.abc import Sequence

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
from trading.execution.events import Event, OrderFilled
from trading.execution.orders import Fill
from trading.market.pricing import YEAR_NS


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
        self._fills: list[Fill] = []
        self._held: list[str] = []
        self._quantity = np.zeros(0)
        self._before: PositionGreeks | None = None

    def follow(self, events: Sequence[Event]) -> None:
        """Note the fills of what was journalled."""
        self._fills += [event.fill for event in events if isinstance(event, OrderFilled)]

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
            # A leg without a mark any more has ended: it was settled, which no greek explains.
            ended = np.isnan(after.mark[:, 0]) | np.isnan(self._before.mark[:, 0])
            for name, amount in zip(COMPONENTS, rows[~ended].sum(axis=0), strict=True):
                self.parts[name] += float(amount)
        for fill in self._fills:
            self.parts[COMPONENTS[FEES]] -= fill.fees
            self.parts[COMPONENTS[SPREAD]] += self._gained(fill, marks)
        self._fills.clear()
        account = self._env.broker.account
        self._held = list(account.positions)
        self._quantity = np.array(
            [each.quantity * account.size(name) for name, each in account.positions.items()]
        )
        self._before = None
        if self._held:
            self._before = self._read(self._held, self._quantity, marks, now_ns)

    def _gained(self, fill: Fill, marks: dict[str, float]) -> float:
        """Return what a fill brought beyond its marks, fees aside, USD; below zero as a rule."""
        account = self._env.broker.account
        worth = [
            leg.quantity * self._mark(leg.symbol, marks) * account.size(leg.symbol)
            for leg in fill.legs
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
