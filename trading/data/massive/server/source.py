"""Where a market server takes its events from: a simulated exchange or a recorded day."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from trading.data.flatfiles import QuoteTable
from trading.data.massive.columns import Quotes, Trades
from trading.data.massive.server.simulated_trades import (
    MINUTE_NS,
    MinuteBarBuilder,
    SimulatedTrades,
)
from trading.data.replayed_day import load_day
from trading.errors import FlatFileError
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.corporate_actions import CorporateAction
from trading.market.dividends import Dividend
from trading.market.rare_events import HaltNews

if TYPE_CHECKING:  # compiled code that a replay does not need
    from trading.market.simulator import MarketStep, SimulatedExchange, SimulatedSession

_STEP_NS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Listing:
    """The contracts that trade in one session; events name a contract by its position here.

    `actions` and `dividends` are what companies have announced by then, `closes` the prices that
    exchanges set for sessions in which a stock did not trade, by symbol and date.
    """

    session: Session
    contracts: Sequence[OptionContract]
    actions: Sequence[CorporateAction] = ()
    dividends: Sequence[Dividend] = ()
    closes: Mapping[tuple[str, date], float] = field(default_factory=dict)
    symbols: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        symbols = tuple(contract.symbol for contract in self.contracts)
        object.__setattr__(self, "symbols", symbols)


class SourceStep(NamedTuple):
    """What happened up to and including `ts_ns`, after the step before.

    `bars` are the minute bars whose window ended at `ts_ns`, of stocks and of option contracts
    (told apart by the contract's `O:`), `halts` tells of stocks that do not trade.
    """

    ts_ns: int
    listing: Listing
    quotes: Quotes
    trades: Trades
    bars: list[StockBar]
    halts: Sequence[HaltNews] = ()


class EventSource(Protocol):
    """A market's events in order of exchange time.

    Attributes
    ----------
    start_ns: the exchange clock when streaming begins
    listing: the contracts of the session at `start_ns`
    """

    @property
    def start_ns(self) -> int: ...

    @property
    def listing(self) -> Listing: ...

    def steps(self) -> Iterator[SourceStep]:
        """Yield the steps, `ts_ns` strictly rising, at each call from the beginning.

        Steps before `start_ns` are the session's past: they make the state of the market but
        are not streamed.
        """
        ...


class SimulationSource:
    """A simulated exchange, session after session without end.

    The exchange clock jumps from a session's close to the next one's open.

    Parameters
    ----------
    exchange: the simulated world
    start_ns: exchange time at which to begin; outside a session the next one's open
    seed: of the option trades, which the exchange itself does not have

    Raises
    ------
    CalendarError
        `start_ns` lies before the exchange's first session.
    """

    def __init__(self, exchange: SimulatedExchange, start_ns: int, *, seed: int = 0) -> None:
        self._exchange = exchange
        self._seed = seed
        self._calendar = exchange.calendar
        first = self._session_from(start_ns)
        self._first = exchange.session(first.date)
        self.start_ns = max(start_ns, first.open_ns)
        self.listing = _listing(self._first)

    def steps(self) -> Iterator[SourceStep]:
        """Yield the steps from the open of the first session on; never ends."""
        yield from self._session_steps(self._first, self.listing)
        session = self.listing.session
        while True:
            session = self._calendar.next_session(session.date)
            day = self._exchange.session(session.date)
            yield from self._session_steps(day, _listing(day))

    def _session_from(self, ts_ns: int) -> Session:
        """Return the session that is open at `ts_ns`, or the next one."""
        session = self._calendar.session_at(ts_ns)
        if session is not None and ts_ns < session.close_ns:
            return session
        today = self._calendar.date_of(ts_ns)
        session = self._calendar.next_session(today - timedelta(days=1))
        return session if ts_ns < session.open_ns else self._calendar.next_session(today)

    def _session_steps(self, day: SimulatedSession, listing: Listing) -> Iterator[SourceStep]:
        tape = SimulatedTrades(self._seed)
        minutes = MinuteBarBuilder(listing.symbols)
        sequence = 0
        for step in day.steps():
            quotes = _step_quotes(step, sequence)
            sequence += len(quotes.ts_ns)
            trades = tape.trades(step.ts_ns, quotes)
            sequence += len(trades.ts_ns)
            bars = [*step.bars, *minutes.advance(step.ts_ns, trades)]
            yield SourceStep(step.ts_ns, listing, quotes, trades, bars, step.halts)


class ReplaySource:
    """One recorded day, from flat files, recordings of live trading, or the catalogue.

    Steps are the seconds in which something happened. Option minute bars are replayed when
    their flat file is there.

    Parameters
    ----------
    folder: where the day is kept, see `load_day`
    day: the session's date in New York
    symbols: underlyings

    Raises
    ------
    DataError
        The day is missing or damaged, nothing of it can be traded, or `day` is no session.
    """

    def __init__(
        self,
        folder: Path,
        day: date,
        symbols: Collection[str],
        *,
        calendar: ExchangeCalendar | None = None,
    ) -> None:
        session = (calendar or ExchangeCalendar()).session_on(day)
        if session is None:
            raise FlatFileError(f"cannot replay {day}: the exchange was closed on that date")
        self._table, bars = load_day(folder, day, symbols)
        self._bars: dict[int, list[StockBar]] = {}
        for bar in bars:
            self._bars.setdefault(bar.start_ns + MINUTE_NS, []).append(bar)
        self.listing = Listing(session, [parse_symbol(name) for name in self._table.symbols])
        self._step_ns = -(-self._table.ts_ns // _STEP_NS) * _STEP_NS
        first = min([session.open_ns, *self._bars, *self._step_ns[:1].tolist()])
        self.start_ns = first

    def steps(self) -> Iterator[SourceStep]:
        """Yield the recorded day, from its start at each call."""
        times = np.union1d(self._step_ns, np.fromiter(self._bars, np.int64, len(self._bars)))
        ends = np.searchsorted(self._step_ns, times, side="right")
        begin = 0
        for ts_ns, end in zip(times.tolist(), ends.tolist(), strict=True):
            yield SourceStep(
                ts_ns,
                self.listing,
                _table_quotes(self._table, slice(begin, end)),
                Trades.none(),
                self._bars.get(ts_ns, []),
            )
            begin = end


def _listing(day: SimulatedSession) -> Listing:
    told = [each for company in day.companies for each in company.told]
    return Listing(
        day.session,
        day.contracts,
        [each for each in told if not isinstance(each, Dividend)],
        [each for each in told if isinstance(each, Dividend)],
        {(symbol, on): price for company in day.companies for symbol, on, price in company.closes},
    )


def _step_quotes(step: MarketStep, last_sequence: int) -> Quotes:
    """Return the requoted contracts of a simulated step, in order of time."""
    order = np.argsort(step.quote_ns, kind="stable")
    return Quotes(
        contract=step.index[order],
        bid=step.bid[order],
        ask=step.ask[order],
        bid_size=step.bid_size[order].astype(np.int64),
        ask_size=step.ask_size[order].astype(np.int64),
        ts_ns=step.quote_ns[order],
        sequence=np.arange(last_sequence + 1, last_sequence + 1 + len(order)),
    )


def _table_quotes(table: QuoteTable, rows: slice) -> Quotes:
    return Quotes(
        contract=table.contract[rows].astype(np.int64),
        bid=table.bid[rows],
        ask=table.ask[rows],
        bid_size=table.bid_size[rows],
        ask_size=table.ask_size[rows],
        ts_ns=table.ts_ns[rows],
        sequence=table.sequence[rows],
    )
