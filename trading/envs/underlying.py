"""One underlying as an environment keeps it: its chain, its closed bars, and their snapshot.

Live trading and the making of a recorded history both go through here, event by event, so a
recording shows exactly the snapshots that were traded.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import date
from itertools import zip_longest
from typing import Any

import numpy as np

from trading.data.admission import (
    LAST_NS,
    AdmissionState,
    Bands,
    Refusal,
    Refusals,
    cut_at_jumps,
    gap_is_confirmed,
    is_bar,
    is_jump,
    is_older,
    new_admission_state,
    quoted_until,
    vet,
)
from trading.data.massive.wire import MAX_PRICE
from trading.envs.market_features import HISTORY_BARS, Bars, log_price
from trading.envs.market_snapshots import empty_snapshots, fill_snapshot, scratch
from trading.envs.own_features import OwnFeatures, own_count, show_own
from trading.envs.quote_arrays import QuoteArrays, quote_arrays
from trading.envs.rules import TradingRules
from trading.envs.structures import all_actions
from trading.execution.fees import FeeSchedule
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, Session
from trading.market.chain import Chain
from trading.market.contracts import OptionContract
from trading.market.option_quote import OptionQuote
from trading.market.products import is_index


class BarHistory:
    """The last closed bars of one underlying, and the bar that is being built.

    A minute may be told again: the newest one replaces what was told of it, and one that is over
    corrects the closed bar that it went into.
    """

    def __init__(self) -> None:
        self._columns = np.zeros((4, HISTORY_BARS))
        self._ends_ns = np.zeros(HISTORY_BARS, np.int64)
        self._count = 0
        self._before: tuple[float, float] | None = None
        """High and low of the minutes of the bar being built that are over."""
        self._minute: tuple[int, float, float, float] | None = None
        """Start, high, low and close of the newest minute in it."""

    def extend(self, start_ns: int, high: float, low: float, close: float) -> None:
        """Merge a minute into the bar that is being built, in place of what was told of it."""
        if self._minute is not None and self._minute[0] != start_ns:
            _, newest_high, newest_low, _ = self._minute
            self._before = _joined(self._before, newest_high, newest_low)
        self._minute = (start_ns, high, low, close)

    def correct(self, start_ns: int, high: float, low: float, close: float, bands: Bands) -> bool:
        """Correct the closed bar that a minute went into; False when it tells nothing usable.

        A bar of that minute alone is replaced, one of several is widened. What is too far from the
        close that is held is not believed.
        """
        over_ns = start_ns + MINUTE_NS
        row = int(np.searchsorted(self._ends_ns[: self._count], over_ns))
        if row == self._count:
            if self._minute is None or is_jump(close, self._minute[3], bands):
                return False
            self._before = _joined(self._before, high, low)
            return True
        before_ns = self._ends_ns[row - 1] if row else self._ends_ns[0] - MINUTE_NS
        if not before_ns < over_ns or is_jump(close, self._columns[2, row], bands):
            return False
        if self._ends_ns[row] - before_ns > MINUTE_NS:
            high = max(high, self._columns[0, row])
            low = min(low, self._columns[1, row])
        if over_ns < self._ends_ns[row]:
            close = self._columns[2, row]
        self._columns[:, row] = high, low, close, log_price(close)
        return True

    def roll(self, price: float, end_ns: int) -> None:
        """Close the bar at `end_ns`; without a trade it is flat at `price`, NaN adds none."""
        high = low = close = price
        if self._minute is not None:
            _, high, low, close = self._minute
            high, low = _joined(self._before, high, low)
        self._before = self._minute = None
        if np.isnan(close):
            return
        if self._count == HISTORY_BARS:
            self._columns[:, :-1] = self._columns[:, 1:]
            self._ends_ns[:-1] = self._ends_ns[1:]
            self._count -= 1
        self._columns[:, self._count] = high, low, close, log_price(close)
        self._ends_ns[self._count] = end_ns
        self._count += 1

    def forget(self) -> None:
        """Drop the bar that is being built: it was none."""
        self._before = self._minute = None

    def rescale(self, factor: float, open_ns: int) -> None:
        """Multiply prices of bars that had closed by `open_ns`; drop the one that is being built.

        After a corporate action prices of before it go on without a jump.
        """
        self.forget()
        end = int(np.searchsorted(self._ends_ns[: self._count], open_ns, side="right"))
        self._columns[:3, :end] *= factor
        self._columns[3, :end] = [log_price(price) for price in self._columns[2, :end]]

    def adopt(self, other: "BarHistory") -> None:
        """Go on where another history ended: the same company under another symbol."""
        self._columns, self._count = other._columns.copy(), other._count
        self._ends_ns = other._ends_ns.copy()

    @property
    def count(self) -> int:
        """Closed bars."""
        return self._count

    def bars(self) -> Bars:
        """Return the closed bars; views that the next `roll` changes."""
        high, low, close, log_close = self._columns
        return Bars(high, low, close, log_close, self._count)


def _joined(extremes: tuple[float, float] | None, high: float, low: float) -> tuple[float, float]:
    return (high, low) if extremes is None else (max(high, extremes[0]), min(low, extremes[1]))


class UnderlyingMarket:
    """The chain, the bars and the snapshot of one underlying.

    Attributes
    ----------
    chain : Chain
    snapshots : MarketSnapshots
        K = 1: the snapshot of the last closed bar.
    quotes : QuoteArrays
        The chain's quotes as accounts see them, in snapshot 0.

    Parameters
    ----------
    symbol, rules, fees
        As in training.
    bands
        How far prices may lie from what the chain implies.
    refused
        Counts what is not taken over, by reason.
    features
        Those of a user's own that snapshots show; None: none.
    """

    def __init__(
        self,
        symbol: str,
        rules: TradingRules,
        fees: FeeSchedule,
        bands: Bands | None = None,
        refused: Refusals | None = None,
        features: OwnFeatures | None = None,
    ) -> None:
        self.symbol = symbol
        self.rate = rules.rate
        """Risk-free rate that the options are read with, see `TradingRules.rate`."""
        self._show(Chain(symbol, [], []))
        actions = len(all_actions(rules.structures))
        self.snapshots = empty_snapshots(1, own_count(features), actions)
        self.refused = Refusals() if refused is None else refused
        self._rules, self._fees, self._features = rules.numbers, fees, features
        self._bands = bands or Bands()
        self._kept: AdmissionState = new_admission_state(0)
        self._told = False
        """A quote was taken over that `vet` has not seen."""
        self._newest_ns = 0
        """Start of the newest minute that was told."""
        self._gap: StockBar | None = None
        """The newest bar of a price that is kept apart."""
        self._gap_since_ns = 0
        """When the first bar of that price was over."""
        self._gap_seconded = False
        self._price_is_supported = False
        """The price was compared with one before it, or with the chain."""
        self._history = BarHistory()
        self._scratch = scratch(rules.structures)
        self._before_session = (float("nan"), 0)
        """Last price before the session, and when it was known."""
        self._price_before = (float("nan"), 0)
        """Last price before the newest bar, and when it was known."""

    def set_rules(self, rules: TradingRules) -> None:
        """Show snapshots by other rules from the next bar on; structures stay."""
        self._rules = rules.numbers

    @property
    def spot(self) -> float:
        """Last known price of the underlying, NaN before the first."""
        return self.chain.last_price if self.chain.last_price > 0.0 else self.chain.spot

    def begin_session(self) -> None:
        """Forget the sequence numbers of quotes: they start over with each session."""
        self.chain.sequence[:] = -1

    def end_session(self) -> None:
        """Keep the price that the next session is held against."""
        self._before_session = (self.spot, self.chain.last_price_ns)

    def rescale(self, factor: float, open_ns: int) -> None:
        """Take over a corporate action that multiplies prices of before its session's open.

        Bars and the last price of before it are converted; quotes are forgotten.
        """
        self._history.rescale(factor, open_ns)
        price, known_ns = self._before_session
        last, last_ns = self.chain.last_price, self.chain.last_price_ns
        if last_ns <= open_ns:
            if not np.isnan(price):
                # What traded outside of sessions since is told in the units of either side.
                last, last_ns = price, known_ns
            last *= factor
        if known_ns <= open_ns:
            self._before_session = (price * factor, known_ns)
        self._forget_quotes(last, last_ns)

    def succeed(self, other: "UnderlyingMarket") -> None:
        """Go on as the company that `other` was, unless newer prices of this symbol are known."""
        is_unknown = not self._history.count and np.isnan(self.spot)
        if is_unknown or self.chain.last_price_ns < other.chain.last_price_ns:
            self._history.adopt(other._history)
            # Quotes that were told of this symbol are those of long ago.
            self._forget_quotes(other.spot, other.chain.last_price_ns)
            self._before_session = other._before_session

    def _forget_quotes(self, price: float, known_ns: int) -> None:
        """Begin an empty chain at a price that was known at a time."""
        chain = Chain(self.symbol, [], [])
        chain.last_price = chain.spot = price
        chain.last_price_ns = known_ns
        self._kept, self._gap = new_admission_state(0), None
        self._price_before = (float("nan"), 0)
        self._show(chain)

    def _show(self, chain: Chain) -> None:
        """Let this be the chain, with the views of its columns."""
        self.chain = chain
        self.quotes: QuoteArrays = quote_arrays(chain.columns)
        c = chain.columns
        told = (c.bid, c.ask, c.bid_size, c.ask_size, c.quote_ns, chain.sequence)
        self._told_columns: tuple[Any, ...] = tuple(column.data for column in told)
        """What quotes are written into: a memoryview takes a number in half an array's time."""

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
        kept = new_admission_state(len(chain))
        former = self.chain.index
        mine = [i for i, symbol in enumerate(chain.symbols) if symbol in former]
        theirs = [former[chain.symbols[i]] for i in mine]
        for column, old in zip(kept, self._kept, strict=True):
            column[mine] = old[theirs]
        self._kept = kept
        self._show(chain)

    def apply_quote(self, i: int, quote: OptionQuote) -> bool:
        """Take over a quote of contract `i` of the chain; False when it is refused."""
        bids, asks, bid_sizes, ask_sizes, times, sequences = self._told_columns
        bid, ask, ts_ns, sequence = quote.bid, quote.ask, quote.ts_ns, quote.sequence
        held_ns = times[i]
        if ts_ns <= held_ns and (ts_ns <= 0 or is_older(ts_ns, sequence, held_ns, sequences[i])):
            self.refused.count(Refusal.OLDER if ts_ns > 0 else Refusal.MISTIMED)
            return False
        if not (0.0 <= bid <= MAX_PRICE and 0.0 <= ask <= MAX_PRICE) or ts_ns >= LAST_NS:
            self.refused.count(Refusal.MISTIMED if ts_ns >= LAST_NS else Refusal.NOT_A_PRICE)
            return False
        bids[i], asks[i] = bid, ask
        bid_sizes[i], ask_sizes[i] = quote.bid_size, quote.ask_size
        times[i], sequences[i] = ts_ns, sequence
        self._told = True
        return True

    def apply_bar(self, bar: StockBar) -> bool:
        """Take over a minute bar of the underlying; False when it is refused.

        The newest minute gives the price, also when it is told again; an older one corrects the
        history and moves nothing else. A price that jumps is kept apart until `close_bar` finds
        it confirmed.
        """
        if not is_bar(bar):
            self.refused.count(Refusal.NOT_A_PRICE)
            return False
        last, bands = self.chain.last_price, self._bands
        if bar.start_ns < self._newest_ns:
            self.refused.count(Refusal.LATE_BAR)
            high, low = cut_at_jumps(bar, bar.close, bands)
            return self._history.correct(bar.start_ns, high, low, bar.close, bands)
        self._newest_ns = bar.start_ns
        if last > 0.0 and is_jump(bar.close, last, bands):
            self._keep_apart(bar)
            return True
        self._gap = None
        self._take(bar, supported=last > 0.0)
        return True

    def _keep_apart(self, bar: StockBar) -> None:
        gap = self._gap
        if gap is None or is_jump(bar.close, gap.close, self._bands):
            self._gap_since_ns, self._gap_seconded = bar.start_ns + MINUTE_NS, False
        elif bar.start_ns != gap.start_ns:
            self._gap_seconded = True
        self._gap = bar
        self.refused.count(Refusal.UNCONFIRMED)

    def _take(self, bar: StockBar, supported: bool) -> None:
        high, low = cut_at_jumps(bar, self.chain.last_price, self._bands)
        self._history.extend(bar.start_ns, high, low, bar.close)
        over_ns = bar.start_ns + MINUTE_NS
        if over_ns != self.chain.last_price_ns:
            self._price_before = (self.chain.last_price, self.chain.last_price_ns)
        self.chain.last_price, self.chain.last_price_ns = bar.close, over_ns
        self._price_is_supported = self._price_is_supported or supported

    def _settle_price(self, now_ns: int) -> None:
        """Let a price in that was kept apart, or keep a first one apart that the chain denies."""
        rules, chain = self._rules, self.chain
        if self._gap is not None:
            known, candidate, last = True, self._gap.close, chain.last_price
        elif chain.last_price > 0.0 and not self._price_is_supported:
            known, candidate, last = False, chain.last_price, float("nan")
        else:
            return
        confirmed = gap_is_confirmed(
            chain.columns,
            candidate,
            last,
            self._gap_seconded,
            self._gap_since_ns,
            now_ns,
            self.rate,
            rules.max_quote_age_ns,
        )
        if known and confirmed:
            assert self._gap is not None
            self._take(self._gap, supported=True)
            self._gap = None
        elif not known and confirmed:
            self._price_is_supported = True
        elif not known:
            self.refused.count(Refusal.UNCONFIRMED)
            chain.last_price, chain.last_price_ns = float("nan"), 0
            self._history.forget()

    def _drop_ahead(self, now_ns: int) -> None:
        """Forget what is dated ahead, so that it does not bar what is told in its time.

        Quotes stay where a tape has run ahead of its bars. A bar of a part of a minute may count as
        one of a whole minute, which ends later.
        """
        columns = self.chain.columns
        ahead = np.flatnonzero(columns.quote_ns > now_ns)
        if len(ahead) and quoted_until(columns.quote_ns[columns.quote_ns > 0], now_ns) == now_ns:
            self.refused.count(Refusal.AHEAD, len(ahead))
            for column in (columns.bid, columns.ask, columns.bid_size, columns.ask_size):
                column[ahead] = 0.0
            columns.quote_ns[ahead] = 0
            self.chain.sequence[ahead] = -1
        if self._newest_ns > now_ns:
            self.refused.count(Refusal.AHEAD)
            self._newest_ns, self._gap = 0, None
            if self.chain.last_price_ns > now_ns + MINUTE_NS:
                price, known_ns = self._price_before
                if known_ns > now_ns + MINUTE_NS:
                    price, known_ns = float("nan"), 0
                self.chain.last_price, self.chain.last_price_ns = price, known_ns
                self._history.forget()

    def vet(self, now_ns: int) -> None:
        """Keep apart the quotes told since the last time that nothing supports."""
        rules, chain = self._rules, self.chain
        self._told = False
        unconfirmed, bounded = vet(
            chain.columns,
            self._kept,
            now_ns,
            chain.last_price,
            self.rate,
            rules.max_quote_age_ns,
            self._bands,
        )
        self.refused.count(Refusal.UNCONFIRMED, unconfirmed)
        self.refused.count(Refusal.OUT_OF_BOUNDS, bounded)

    def vet_news(self) -> None:
        """`vet` as of the newest quote, if any came since the last time: for one who trades now."""
        if self._told:
            self.vet(int(self.chain.columns.quote_ns.max()))

    def warm_up(self, bars: Iterable[StockBar]) -> None:
        """Fill the bar history from bars that closed before trading starts, oldest first.

        A lone bar that jumps away and back is left out.
        """
        usable = [bar for bar in bars if is_bar(bar)]
        for bar, following in zip_longest(usable, usable[1:]):
            last, bands = self.chain.last_price, self._bands
            if bar.start_ns < self._newest_ns:
                continue
            if (
                last > 0.0
                and following is not None
                and is_jump(bar.close, last, bands)
                and not is_jump(following.close, last, bands)
            ):
                self.refused.count(Refusal.UNCONFIRMED)
                continue
            self._newest_ns = bar.start_ns
            self._take(bar, supported=last > 0.0)
            self._history.roll(bar.close, bar.start_ns + MINUTE_NS)

    def refresh(self, now_ns: int) -> None:
        """Bring what the admitted quotes imply up to `now_ns`."""
        self._drop_ahead(now_ns)
        self._settle_price(now_ns)
        self.vet(now_ns)
        self.chain.refresh(now_ns, self.rate, self._rules.max_quote_age_ns)

    def roll(self, end_ns: int) -> None:
        """Close the bar that was being built."""
        self._history.roll(self.spot, end_ns)

    def show(self, now_ns: int, session: Session) -> None:
        """Fill the snapshot from the refreshed chain and the closed bars."""
        snapshots, chain = self.snapshots, self.chain
        snapshots.now_ns[0], snapshots.open_ns[0] = now_ns, session.open_ns
        snapshots.close_ns[0] = session.close_ns
        snapshots.spot[0] = chain.spot
        snapshots.spot_ns[0] = chain.last_price_ns if chain.last_price > 0.0 else now_ns
        if is_index(self.symbol):
            snapshots.spot_ns[0] = 0  # An index has no shares: what needs stock is not to be had.
        bars = self._history.bars()
        fill_snapshot(
            chain.columns,
            snapshots,
            0,
            bars,
            self._rules,
            self._fees,
            self._scratch,
        )
        if self._features is not None:
            age = self._rules.max_quote_age_ns
            show_own(self._features, chain.columns, snapshots, 0, bars, age)

    def close_bar(self, now_ns: int, session: Session) -> None:
        """Refresh, roll and show: the market's part of closing a bar."""
        self.refresh(now_ns)
        self.roll(now_ns)
        self.show(now_ns, session)
