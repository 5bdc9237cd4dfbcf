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

    @property
    def spot(self) -> float:
        """Last known price of the underlying, NaN before the first."""
        return self.chain.last_price if self.chain.last_price > 0.0 else self.chain.spot

    def begin_session(self) -> None:
        """Forget the sequence numbers of quotes: they start over with each session."""
        self.chain.sequence[:] = -1

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
        self.show(now_ns, session)
