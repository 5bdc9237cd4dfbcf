"""Records live days: what the environment is told, in order, so that it can be told again.

The trading thread packs each event into a buffer; a thread of the recorder's own writes full
buffers to Parquet files. Recordings hold the vendor's data, whose terms forbid to pass it on: they
stay on this machine and out of every repository.
"""

from __future__ import annotations

import math
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.closing import Closing
from trading.data.recorded_session import RecordedSession
from trading.data.recording_files import (
    QUOTE_ROW,
    Mark,
    Run,
    RunWriter,
    load_recording,
    recorded_runs,
)
from trading.errors import DataError
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.calendar import Session
from trading.market.contracts import OptionContract
from trading.market.option_quote import OptionQuote

__all__ = ["RecordedSession", "Recorder", "Run", "load_recording", "recorded_runs"]

_PACK = struct.Struct("<qddddqq").pack_into
_ROW_BYTES = QUOTE_ROW.itemsize
_WAITING_PARTS = 16
_STOP_TIMEOUT_S = 20.0
_CARRIED = -1  # sequence: before any of the session's own

log = get_logger(__name__)


class Recorder(Closing):
    """Writes down what one environment is told, on the thread that tells it.

    Memory is bounded: at most 16 parts wait for the disk. When it cannot keep up, the recording
    ends there, or with `waits` the caller waits; when the disk refuses, the recordings of that
    session end, and the next session is recorded again where it takes it. Meanwhile `failure` and
    the log tell why, and trading goes on. Every session stands for itself: what the environment
    keeps of the session before (bars, quotes of contracts that are still listed) is recorded as its
    warm-up and its first quotes.

    Parameters
    ----------
    folder : Path
        Recordings are written below it, see `trading.data.recording_files`.
    rows_per_part : int
        Quotes of one underlying in a part; a process that dies loses less than a part.
    bars_per_part : int
        A part is also written when so many bars were closed since the last one.
    history_bars : int
        Closed bars that a later session is warmed up with.
    waits : bool
        Whether to wait for a slow disk: for markets whose clock can stand still.

    Raises
    ------
    DataError
        The folder cannot be written.

    Examples
    --------
    >>> with Recorder(Path("var/recordings")) as recorder:  # doctest: +SKIP
    ...     recorder.begin_session(session)
    ...     recorder.warm_up("SPY", bars)
    ...     recorder.list_contracts("SPY", contracts)
    ...     recorder.quote(OptionQuote("O:SPY260109C00680000", 1.0, 1.1, 5.0, 7.0, ts_ns, 1))
    ...     recorder.close_bar(session.open_ns + 60_000_000_000)
    """

    def __init__(
        self,
        folder: Path,
        *,
        rows_per_part: int = 1 << 15,
        bars_per_part: int = 10,
        history_bars: int = 512,
        waits: bool = False,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"recordings cannot be written to {folder}: {error}; choose another state_dir"
            ) from error
        self.failure = ""
        """Why nothing is recorded at present; empty where all is."""
        self._lost = False
        """Whether parts were dropped: what was carried over is not known any more."""
        self._rate: float | None = None
        self._rows_per_part = rows_per_part
        self._bars_per_part = bars_per_part
        self._history_bars = history_bars
        self._waits = waits
        self._session: Session | None = None
        self._closed_ns = 0
        self._tapes: dict[str, _Tape] = {}
        self._places: dict[str, tuple[_Tape, int]] = {}
        self._writer = _Writer(folder, rows_per_part * _ROW_BYTES, self._fail, self._mend)

    def close(self) -> None:
        """Write what is there and end."""
        for tape in self._tapes.values():
            self._hand_over(tape)
        self._writer.stop()

    def begin_session(self, session: Session) -> None:
        """Have what is listed from now on trade in `session`."""
        self._session = session
        self._closed_ns = session.open_ns

    def set_rate(self, rate: float) -> None:
        """Options that are listed from now on are read with this risk-free rate."""
        self._rate = rate

    def warm_up(self, underlying: str, bars: Iterable[StockBar]) -> None:
        """Begin the environment's bar history with these, oldest first."""
        self._tape(underlying).history.extend(bars)

    def convert(self, underlying: str, factor: float, open_ns: int) -> None:
        """Note that a corporate action multiplied prices up to `open_ns`; quotes are forgotten."""
        tape = self._tape(underlying)
        converted = [bar.times(factor) if bar.start_ns < open_ns else bar for bar in tape.history]
        tape.history.clear()
        tape.history.extend(converted)
        tape.building = None
        tape.forgets = True

    def list_contracts(self, underlying: str, contracts: Sequence[OptionContract]) -> None:
        """Begin a recording of `underlying` with these contracts, in this order.

        Raises
        ------
        DataError
            No session was begun.
        """
        if self._session is None:
            raise DataError(f"{underlying} was listed before a session began")
        tape = self._tape(underlying)
        self._hand_over(tape)
        for symbol in tape.symbols:
            self._places.pop(symbol, None)
        tape.symbols = [contract.symbol for contract in contracts]
        for position, symbol in enumerate(tape.symbols):
            self._places[symbol] = (tape, position)
        tape.is_open = True
        history, forgets = list(tape.history), tape.forgets
        tape.forgets = False
        self._send(
            _Listing(underlying, self._session, list(contracts), history, self._rate, forgets)
        )

    def quote(self, quote: OptionQuote) -> None:
        """Note that a quote of a listed contract was applied; one of any other is not recorded."""
        place = self._places.get(quote.symbol)
        if place is None:
            return
        tape, position = place
        rows = tape.rows
        _PACK(
            tape.buffer,
            rows * _ROW_BYTES,
            position,
            quote.bid,
            quote.ask,
            quote.bid_size,
            quote.ask_size,
            quote.ts_ns,
            quote.sequence,
        )
        tape.rows = rows + 1
        if rows + 1 == self._rows_per_part:
            self._hand_over(tape)

    def bar(self, bar: StockBar) -> None:
        """Note that a minute bar of an underlying was applied; one of any other is not recorded."""
        tape = self._tapes.get(bar.symbol)
        if tape is not None:
            tape.marks.append((tape.rows, bar))
            tape.building = bar if tape.building is None else _merged(tape.building, bar)

    def close_bar(self, end_ns: int, prices: Mapping[str, float] | None = None) -> None:
        """Note that a decision bar was closed at `end_ns`, in every underlying.

        `prices` are what the environment takes the underlyings to be worth: it goes into the
        history where no minute bar came.
        """
        for underlying, tape in self._tapes.items():
            price = math.nan if prices is None else prices.get(underlying, math.nan)
            tape.roll(self._closed_ns or end_ns, price)
            if not tape.is_open:
                continue
            tape.marks.append((tape.rows, end_ns))
            tape.bars_waiting += 1
            last = self._session is not None and end_ns >= self._session.close_ns
            # A part that is not full can wait for a writer that is behind.
            if last or (tape.bars_waiting >= self._bars_per_part and not self._writer.is_behind):
                self._hand_over(tape)
            tape.is_open = not last
        self._closed_ns = end_ns

    def _tape(self, underlying: str) -> _Tape:
        tape = self._tapes.get(underlying)
        if tape is None:
            tape = _Tape(underlying, self._writer.buffer(), self._history_bars)
            self._tapes[underlying] = tape
        return tape

    def _hand_over(self, tape: _Tape) -> None:
        """Give what the tape holds to the writer, and the tape another buffer."""
        if tape.rows or tape.marks:
            self._send(_Part(tape.underlying, tape.buffer, tape.rows, tape.marks, tape.is_open))
            tape.buffer, tape.rows, tape.marks = self._writer.buffer(), 0, []
        tape.bars_waiting = 0

    def _send(self, message: _Listing | _Part) -> None:
        if not self._lost and not self._writer.accept(message, self._waits):
            self._lost = True
            self._fail(f"the disk is {_WAITING_PARTS} parts behind; restart to record again")

    def _fail(self, reason: str) -> None:
        if reason != self.failure:
            self.failure = reason
            log.error("recording ends here, trading goes on", reason=reason)

    def _mend(self) -> None:
        if self.failure and not self._lost:
            self.failure = ""
            log.warning("the disk takes recordings again")


class _Tape:
    """What the trading thread keeps of one underlying."""

    __slots__ = (
        "bars_waiting",
        "buffer",
        "building",
        "forgets",
        "history",
        "is_open",
        "marks",
        "rows",
        "symbols",
        "underlying",
    )

    def __init__(self, underlying: str, buffer: bytearray, history_bars: int) -> None:
        self.underlying = underlying
        self.symbols: list[str] = []
        self.buffer = buffer
        self.rows = 0
        self.marks: list[Mark] = []
        self.is_open = False
        """Between listing and close; what is told outside belongs to the next listing."""
        self.bars_waiting = 0
        self.history: deque[StockBar] = deque(maxlen=history_bars)
        self.building: StockBar | None = None
        self.forgets = False
        """The next listing begins without the quotes of the one before."""

    def roll(self, start_ns: int, price: float) -> None:
        """Add the bar that was closed to the history: flat at `price` without a minute bar."""
        bar = self.building
        if bar is None and not math.isnan(price):
            bar = StockBar(self.underlying, start_ns, price, price, price, price, 0.0, price)
        if bar is not None:
            self.history.append(bar)
        self.building = None


class _Listing(NamedTuple):
    """To the writer: a run begins."""

    underlying: str
    session: Session
    contracts: list[OptionContract]
    warm_up: list[StockBar]
    rate: float | None
    forgets: bool = False


class _Part(NamedTuple):
    """To the writer: events of the run, or with `in_session` False, events after its end."""

    underlying: str
    buffer: bytearray
    rows: int
    marks: list[Mark]
    in_session: bool


class _Known:
    """What the writer keeps of one underlying: its run, and the last quote of each contract."""

    def __init__(self) -> None:
        self.run: RunWriter | None = None
        self.symbols: list[str] = []
        self.last: NDArray[Any] = np.zeros(0, QUOTE_ROW)
        self.early: list[StockBar] = []
        """Minute bars that came after the close of one session and before the next listing."""
        self.is_broken = False
        """Whether the disk has refused a part of its run, which ended there."""

    def relist(self, contracts: Sequence[OptionContract]) -> NDArray[Any]:
        """Take over a listing; returns the quotes that the environment keeps for it."""
        former = {symbol: position for position, symbol in enumerate(self.symbols)}
        self.symbols = [contract.symbol for contract in contracts]
        last = np.zeros(len(contracts), QUOTE_ROW)
        last["contract"] = -1
        for position, symbol in enumerate(self.symbols):
            if symbol in former and self.last["contract"][former[symbol]] >= 0:
                last[position] = self.last[former[symbol]]
                last["contract"][position] = position
        last["sequence"] = _CARRIED
        self.last = last
        return last[last["contract"] >= 0]

    def learn(self, quotes: NDArray[Any]) -> None:
        """Keep the last quote of each contract: of equal positions the last one is assigned."""
        self.last[quotes["contract"]] = quotes


class _Writer:
    """The recorder's thread: takes listings and parts in order and writes them."""

    def __init__(
        self,
        folder: Path,
        buffer_bytes: int,
        fail: Callable[[str], None],
        mend: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._buffer_bytes = buffer_bytes
        self._fail, self._mend = fail, mend
        self._free: deque[bytearray] = deque()
        self._inbox: queue.Queue[_Listing | _Part | None] = queue.Queue(_WAITING_PARTS)
        self._known: dict[str, _Known] = {}
        self._thread = threading.Thread(target=self._main, name="recorder", daemon=True)
        self._thread.start()

    def buffer(self) -> bytearray:
        """Return a buffer of one part, used before where possible."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._buffer_bytes)

    @property
    def is_behind(self) -> bool:
        """Whether half of the messages that may wait do."""
        return self._inbox.qsize() >= _WAITING_PARTS // 2

    def accept(self, message: _Listing | _Part, waits: bool) -> bool:
        """Take a message; False when too many wait already and the caller does not."""
        try:
            self._inbox.put(message, block=waits)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """Write what was accepted and end the thread; does nothing the second time."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._inbox.put(None, timeout=_STOP_TIMEOUT_S)
            self._thread.join(_STOP_TIMEOUT_S)
            if self._thread.is_alive():
                self._fail(f"the disk did not take the last parts within {_STOP_TIMEOUT_S:g} s")

    def _main(self) -> None:
        while (message := self._inbox.get()) is not None:
            try:
                if isinstance(message, _Listing):
                    self._begin(message)
                else:
                    self._write(message)
            except Exception as error:
                # What follows a gap would not be a prefix: this run ends here.
                known = self._known.setdefault(message.underlying, _Known())
                known.run, known.is_broken = None, True
                self._fail(f"{type(error).__name__}: {error}; the next session is recorded again")

    def _begin(self, listing: _Listing) -> None:
        if listing.forgets:
            self._known.pop(listing.underlying, None)
        known = self._known.setdefault(listing.underlying, _Known())
        carried = known.relist(listing.contracts)
        early, known.early = known.early, []
        known.run = RunWriter(
            self._folder,
            listing.underlying,
            listing.session,
            listing.contracts,
            listing.warm_up,
            listing.rate,
        )
        if len(carried) or early:
            known.run.write(carried, [(len(carried), bar) for bar in early])
        known.is_broken = False
        if not any(each.is_broken for each in self._known.values()):
            self._mend()

    def _write(self, part: _Part) -> None:
        known = self._known.setdefault(part.underlying, _Known())
        quotes = np.frombuffer(part.buffer, QUOTE_ROW, part.rows)
        known.learn(quotes)
        if part.in_session and known.run is not None:
            known.run.write(quotes, part.marks)
        elif not (part.in_session and known.is_broken):
            known.early += [mark for _, mark in part.marks if isinstance(mark, StockBar)]
        if len(self._free) < _WAITING_PARTS:
            self._free.append(part.buffer)


def _merged(one: StockBar, other: StockBar) -> StockBar:
    volume = one.volume + other.volume
    notional = one.vwap * one.volume + other.vwap * other.volume
    return StockBar(
        one.symbol,
        one.start_ns,
        one.open,
        max(one.high, other.high),
        min(one.low, other.low),
        other.close,
        volume,
        notional / volume if volume > 0.0 else other.vwap,
    )
