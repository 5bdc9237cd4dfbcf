"""A session's closing price from what lies on disk: recordings of live days, and the catalogue."""

from datetime import date
from pathlib import Path

from trading.data.catalog import Catalog, Kind
from trading.data.recorded_session import catalogued_bars
from trading.data.recording_files import load_recording, recorded_runs
from trading.errors import DataError
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session

log = get_logger(__name__)


class RecordedCloses:
    """Closing prices of stocks, where a whole session of them was recorded.

    The auction prints in the bar that starts at the close; without that bar the last one of the
    session counts. A recording that ended before the session did tells no close: its last price is
    of another time. Nor does one without a bar in the session's last hour.

    Parameters
    ----------
    recordings, catalog
        Folders of recorded live days and of the catalogue; either may be absent.
    calendar
        When sessions end.
    """

    def __init__(self, recordings: Path, catalog: Path, calendar: ExchangeCalendar) -> None:
        self._recordings, self._catalog, self._calendar = recordings, catalog, calendar

    def find(self, symbol: str, day: date) -> float | None:
        """Return a stock's closing price on `day`, USD; None where none is known."""
        session = self._calendar.session_on(day)
        if session is None or symbol.startswith("O:"):
            return None
        for bars in (self._of_recordings, self._of_catalogue):
            try:
                price = close_of(bars(symbol, session), session)
            except (DataError, OSError) as error:
                log.warning("no recorded close", symbol=symbol, date=str(day), reason=str(error))
                continue
            if price is not None:
                return price
        return None

    def _of_recordings(self, symbol: str, session: Session) -> list[StockBar]:
        found: dict[int, StockBar] = {}
        is_whole = False
        for run in recorded_runs(self._recordings, session.date, symbol):
            recording = load_recording(self._recordings, session.date, symbol, run.number)
            is_whole = is_whole or recording.is_complete
            found |= {bar.start_ns: bar for bar in recording.bars.stock_bars(symbol)}
        return list(found.values()) if is_whole else []

    def _of_catalogue(self, symbol: str, session: Session) -> list[StockBar]:
        catalog = Catalog(self._catalog)
        if not any(catalog.partitions(Kind.STOCK_BARS, session.date, symbol)):
            return []
        return catalogued_bars(catalog, symbol, session.date)


def close_of(bars: list[StockBar], session: Session) -> float | None:
    """Return the closing price that minute bars of a stock tell; None where they do not."""
    first_ns = max(session.open_ns, session.close_ns - 60 * MINUTE_NS)
    auction = [bar.open for bar in bars if bar.start_ns == session.close_ns]
    last = [
        bar.close
        for bar in sorted(bars, key=lambda bar: bar.start_ns)
        if first_ns <= bar.start_ns < session.close_ns
    ]
    prices = [price for price in [*auction, *last[-1:]] if 0.0 < price < float("inf")]
    return prices[0] if prices else None
