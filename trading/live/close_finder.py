"""Finds a session's closing price: the vendor's official one, else its bars, else our record."""

from datetime import date

from trading.data.massive.client.rest import RestClient
from trading.data.recorded_closes import RecordedCloses
from trading.errors import AuthenticationFailed, NotEntitled, RestError
from trading.logs import get_logger
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
from trading.market.closes import CloseSource, OfficialClose

log = get_logger(__name__)


class CloseFinder:
    """Asks the vendor for closing prices; asks by REST and changes nothing.

    The official close is waited for: minute bars take its place only where the plan does not
    include it, or from the next day on where the vendor still has none. The closing auction prints
    in the bar that starts at the close, whose first trade it is; without that bar the last one of
    the session counts. From the next day on, where the vendor tells neither, it is what was
    recorded here. Of all that is known later nothing is ever taken for it.

    Parameters
    ----------
    rest, calendar
        Where to ask, and when sessions end.
    delay_s
        Seconds after a close before its official price is asked for.
    recorded
        What was recorded; None: nothing.
    """

    def __init__(
        self,
        rest: RestClient,
        calendar: ExchangeCalendar,
        delay_s: float,
        recorded: RecordedCloses | None = None,
    ) -> None:
        self._rest = rest
        self._recorded = recorded
        self._calendar = calendar
        self._delay_ns = round(delay_s * SECOND_NS)

    def find(self, symbol: str, day: date, now_ns: int) -> OfficialClose | None:
        """Return the closing price of a stock or contract in the session of `day`; None: not yet.

        Raises
        ------
        AuthenticationFailed
            The key is refused.
        """
        session = self._calendar.session_on(day)
        if session is None or now_ns < session.close_ns + self._delay_ns:
            return None
        is_later = self._calendar.date_of(now_ns) > day
        told = self._ask(symbol, day, session, is_later=is_later)
        if told is not None or not is_later or self._recorded is None:
            return told
        price = self._recorded.find(symbol, day)
        if price is None:
            return None
        log.warning(
            "the vendor tells no close: the recorded one counts", symbol=symbol, price=price
        )
        return OfficialClose(price, CloseSource.RECORDED)

    def _ask(
        self, symbol: str, day: date, session: Session, *, is_later: bool
    ) -> OfficialClose | None:
        """Return what the vendor tells."""
        try:
            close = self._rest.official_close(symbol, day)
            if close is not None or not is_later:
                return close
        except AuthenticationFailed:
            raise
        except NotEntitled as error:
            log.info("no official close", symbol=symbol, date=str(day), reason=str(error))
        except RestError as error:
            log.warning("no official close", symbol=symbol, date=str(day), reason=str(error))
            return None
        try:
            bars = self._rest.aggregates(
                symbol, 1, "minute", session.open_ns, session.close_ns + MINUTE_NS
            )
        except AuthenticationFailed:
            raise
        except (NotEntitled, RestError) as error:
            log.warning("no minute bars", symbol=symbol, date=str(day), reason=str(error))
            return None
        auction = [bar.open for bar in bars if bar.start_ns == session.close_ns]
        before = [bar.close for bar in bars if bar.start_ns < session.close_ns]
        for price in [*auction, *before[-1:]]:
            if 0.0 < price < float("inf"):
                return OfficialClose(price, CloseSource.MINUTE_BAR)
        return None
