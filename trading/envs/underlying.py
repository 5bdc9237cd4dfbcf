"""One underlying as an environment keeps it: its chain, its closed bars, and the frame they show.

Live trading and the making of a recorded history both go through here, event by event, so a
recording shows exactly the frames that were traded.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import date

import numpy as np

from trading.envs.board import Board, board_of
from trading.envs.frames import empty_frames, fill_frame, scratch
from trading.envs.market_features import HISTORY_BARS, Bars, log_price
from trading.envs.rules import TradingRules
from trading.execution.fees import FeeSchedule
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, Session
from trading.market.chain import Chain
from trading.market.contracts import OptionContract
from trading.market.products import is_index


class BarHistory:
    """The last closed bars of one underlying, and the bar that is being built."""

    def __init__(self) -> None:
        self._columns = np.zeros((4, HISTORY_BARS))
        self._count = 0
        self._building: tuple[float, float, float] | None = None

    def extend(self, high: float, low: float, close: float) -> None:
        """Merge an aggregate into the bar that is being built."""
        if self._building is not None:
            high, low = max(high, self._building[0]), min(low, self._building[1])
        self._building = (high, low, close)

    def roll(self, price: float) -> None:
        """Close the bar; without a trade it is flat at `price`, unknown (NaN) adds none."""
        high, low, close = self._building or (price, price, price)
        self._building = None
        if np.isnan(close):
            return
        if self._count == HISTORY_BARS:
            self._columns[:, :-1] = self._columns[:, 1:]
            self._count -= 1
        self._columns[:, self._count] = high, low, close, log_price(close)
        self._count += 1

    def rescale(self, factor: float, newest: int) -> None:
        """Multiply prices by `factor`, but those of the `newest` bars; drop the one being built.

        After a corporate action prices of before it go on without a jump.
        """
        self._building = None
        end = max(self._count - newest, 0)
        self._columns[:3, :end] *= factor
        self._columns[3, :end] = [log_price(price) for price in self._columns[2, :end]]

    def adopt(self, other: "BarHistory") -> None:
        """Go on where another history ended: the same company under another symbol."""
        self._columns, self._count = other._columns.copy(), other._count

    @property
    def count(self) -> int:
        """Closed bars."""
        return self._count

    def bars(self) -> Bars:
        """The closed bars; views that the next `roll` changes."""
        high, low, close, log_close = self._columns
        return Bars(high, low, close, log_close, self._count)


class UnderlyingMarket:
    """The chain, the bars and the frame of one underlying.

    Attributes
    ----------
    chain : Chain
    frames : Frames
        K = 1: the frame of the last closed bar.
    board : Board
        The chain's quotes as accounts see them, in frame 0.
    """

    def __init__(self, symbol: str, rules: TradingRules, fees: FeeSchedule) -> None:
        self.symbol = symbol
        self.chain = Chain(symbol, [], [])
        self.frames = empty_frames(1)
        self.board: Board = board_of(self.chain.columns)
        self._rules, self._fees = rules, fees
        self._history = BarHistory()
        self._scratch = scratch()
        self._bars_today = 0
        self._before_session = (float("nan"), 0)
        """Last price before the session, and when it was known."""

    def set_rules(self, rules: TradingRules) -> None:
        """Show frames by other rules from the next bar on."""
        self._rules = rules

    @property
    def spot(self) -> float:
        """Last known price of the underlying, NaN before the first."""
        return self.chain.last_price if self.chain.last_price > 0.0 else self.chain.spot

    def begin_session(self, *, again: bool = False) -> None:
        """Forget the sequence numbers of quotes: they start over with each session.

        `again` says that the session was begun before.
        """
        self.chain.sequence[:] = -1
        if not again:
            self._bars_today = 0

    def end_session(self) -> None:
        """Keep the price that the next session is held against."""
        self._before_session = (self.spot, self.chain.last_price_ns)

    def rescale(self, factor: float, *, open_ns: int) -> None:
        """Take over a corporate action that prices of before the session are multiplied for.

        Bars, last price and quotes of before it are in other units than those after: the first are
        converted, quotes are forgotten.
        """
        self._history.rescale(factor, self._bars_today)
        price, known_ns = self._before_session
        chain = Chain(self.symbol, [], [])
        if self.chain.last_price_ns > open_ns:
            chain.last_price, chain.last_price_ns = self.chain.last_price, self.chain.last_price_ns
        elif np.isnan(price):
            chain.last_price = self.chain.last_price * factor
            chain.last_price_ns = self.chain.last_price_ns
        else:
            # What traded outside of sessions since is told in the units of either side.
            chain.last_price, chain.last_price_ns = price * factor, known_ns
        chain.spot = chain.last_price
        self._before_session = (price * factor, known_ns)
        self.chain = chain
        self.board = board_of(chain.columns)

    def succeed(self, other: "UnderlyingMarket") -> None:
        """Go on as the company that `other` was, unless prices of this symbol are known."""
        if not self._history.count and np.isnan(self.spot):
            self._history.adopt(other._history)
            self.chain.last_price, self.chain.last_price_ns = other.spot, other.chain.last_price_ns
            self.chain.spot = self.chain.last_price
            self._before_session = other._before_session

    def list_contracts(
        self,
        contracts: Iterable[OptionContract],
        expiry_ns: Callable[[date], int],
        held: Collection[str] = (),
    ) -> None:
        """Set what is listed, `held` ones in any case; quotes of those listed before are kept."""
        listed = list(contracts)
        times = {expiry: expiry_ns(expiry) for expiry in {c.expiry for c in listed}}
        chain = Chain(self.symbol, listed, [times[c.expiry] for c in listed], held)
        chain.adopt_quotes(self.chain)
        self.chain = chain
        self.board = board_of(chain.columns)

    def apply_quote(
        self,
        i: int,
        bid: float,
        ask: float,
        bid_size: float,
        ask_size: float,
        ts_ns: int,
        sequence: int,
    ) -> bool:
        """Take over a quote of contract `i`; False when it is out of order."""
        chain = self.chain
        if sequence < chain.sequence[i]:
            return False
        chain.sequence[i] = sequence
        columns = chain.columns
        columns.bid[i] = bid
        columns.ask[i] = ask
        columns.bid_size[i] = bid_size
        columns.ask_size[i] = ask_size
        columns.quote_ns[i] = ts_ns
        return True

    def apply_bar(self, bar: StockBar) -> None:
        """Take over a minute bar of the underlying."""
        self._history.extend(bar.high, bar.low, bar.close)
        self.chain.last_price = bar.close
        self.chain.last_price_ns = bar.start_ns + MINUTE_NS

    def warm_up(self, bars: Iterable[StockBar]) -> None:
        """Fill the bar history from bars that closed before trading starts, oldest first."""
        for bar in bars:
            self.apply_bar(bar)
            self._history.roll(bar.close)

    def refresh(self, now_ns: int) -> None:
        """Bring what the quotes imply up to `now_ns`."""
        self.chain.refresh(now_ns, self._rules.rate, self._rules.max_quote_age_ns)

    def roll(self) -> None:
        """Close the bar that was being built."""
        self._history.roll(self.spot)

    def show(self, now_ns: int, session: Session) -> None:
        """Fill the frame from the refreshed chain and the closed bars."""
        frames, chain = self.frames, self.chain
        frames.now_ns[0], frames.open_ns[0] = now_ns, session.open_ns
        frames.close_ns[0] = session.close_ns
        frames.spot[0] = chain.spot
        frames.spot_ns[0] = chain.last_price_ns if chain.last_price > 0.0 else now_ns
        if is_index(self.symbol):
            frames.spot_ns[0] = 0  # An index has no shares: what needs stock is not to be had.
        fill_frame(
            chain.columns, frames, 0, self._history.bars(), self._rules, self._fees, self._scratch
        )

    def close_bar(self, now_ns: int, session: Session) -> None:
        """Refresh, roll and show: the market's part of closing a bar."""
        self.refresh(now_ns)
        self.roll()
        self._bars_today += 1
        self.show(now_ns, session)
