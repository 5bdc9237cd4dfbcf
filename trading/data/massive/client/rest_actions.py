"""The vendor's corporate actions and official closes, as values."""

import math
from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from trading.data.massive.client.rest_transport import Failure, RestTransport
from trading.errors import DataError, RestError
from trading.logs import get_logger
from trading.market.closes import OfficialClose
from trading.market.corporate_actions import Rename, Split
from trading.market.products import underlying_named

_SPLITS_PER_PAGE = 1000
_NOT_FOUND = "HTTP 404"
_LARGEST_RATIO = 1_000_000

log = get_logger(__name__)


class _SplitRow(msgspec.Struct):
    ticker: str
    execution_date: date
    split_from: float
    split_to: float
    id: str | None = None


class _TickerEvents(msgspec.Struct):
    events: list[Any] | None = None


class _EventsReply(Failure):
    results: _TickerEvents | None = None


class _Details(msgspec.Struct):
    active: bool | None = None
    composite_figi: str | None = None
    delisted_utc: str | None = None


class _DetailsReply(Failure):
    results: _Details | None = None


class TickerDetails(NamedTuple):
    """Which company has a symbol: its identifier, empty where unknown, and since when it is gone.

    `delisted` is None while it trades.
    """

    figi: str
    delisted: date | None


class _OpenClose(Failure):
    close: Any = None
    day: Any = msgspec.field(default=None, name="from")
    symbol: Any = None


def finite_number(value: Any) -> float:
    """Return a number of a reply, also one that is told as text; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def read_splits(
    transport: RestTransport, underlying: str, from_date: date, to_date: date
) -> list[Split]:
    """Return splits of a stock by execution date, both dates included, oldest first."""
    query = {
        "ticker": underlying,
        "execution_date.gte": from_date.isoformat(),
        "execution_date.lte": to_date.isoformat(),
        "limit": str(_SPLITS_PER_PAGE),
    }
    found = []
    for row in transport.rows(
        lambda client: client.list_stocks_splits(params=query, raw=True),
        "/stocks/v1/splits",
        _SplitRow,
    ):
        if row.ticker != underlying:
            continue
        try:
            # The vendor tells ratios as they were announced: 3 for 2, and 1.05 for 1 alike.
            ratio = Fraction(str(row.split_to)) / Fraction(str(row.split_from))
            ratio = ratio.limit_denominator(_LARGEST_RATIO)
            if ratio > _LARGEST_RATIO:
                raise DataError(f"{row.split_to:g} for {row.split_from:g} is no split")
            split = Split(
                underlying, row.execution_date, ratio.numerator, ratio.denominator, row.id or ""
            )
        except (ValueError, ZeroDivisionError, DataError) as error:
            log.warning("split left out", symbol=underlying, reason=str(error))
            continue
        if ratio != 1:
            found.append(split)
    return sorted(found, key=lambda each: each.ex_date)


def read_ticker_details(
    transport: RestTransport, underlying: str, on: date
) -> TickerDetails | None:
    """Which company has a symbol on a day; None where the vendor knows none."""
    name = quote(underlying, safe="")
    try:
        reply = transport.one(
            lambda client: client.get_ticker_details(name, date=on.isoformat(), raw=True),
            f"/v3/reference/tickers/{name}",
            _DetailsReply,
        )
    except RestError as error:
        if _NOT_FOUND in str(error):
            return None
        raise
    found = reply.results
    if found is None:
        return None
    delisted = None
    if found.active is False:
        try:
            delisted = date.fromisoformat((found.delisted_utc or "")[:10])
        except ValueError:
            delisted = on
    return TickerDetails(found.composite_figi or "", delisted)


def read_ticker_events(transport: RestTransport, underlying: str) -> list[Rename]:
    """Return the changes of a company's symbol, by the one that it has now or its identifier.

    Oldest first.
    """
    name = quote(underlying, safe="")
    path = f"/vX/reference/tickers/{name}/events"
    try:
        reply = transport.one(
            lambda client: client.get_ticker_events(name, types="ticker_change", raw=True),
            path,
            _EventsReply,
        )
    except RestError as error:
        if _NOT_FOUND in str(error):
            return []
        raise
    changes = []
    for event in (reply.results.events if reply.results else None) or []:
        try:
            day, ticker = event["date"], event["ticker_change"]["ticker"]
            if ticker:
                changes.append((date.fromisoformat(day), underlying_named(ticker)))
        except (AttributeError, KeyError, TypeError, ValueError):
            log.warning("event left out", symbol=underlying, event_was=event)
    changes.sort()
    return [
        Rename(before, day, after)
        for (_, before), (day, after) in pairwise(changes)
        if before != after
    ]


def read_official_close(transport: RestTransport, symbol: str, day: date) -> OfficialClose | None:
    """Return the official close of a session, None while the vendor has none."""
    name = quote(symbol, safe=":")
    path = f"/v1/open-close/{name}/{day}"
    try:
        reply = transport.one(
            lambda client: client.get_daily_open_close_agg(name, day, adjusted=False, raw=True),
            path,
            _OpenClose,
        )
    except RestError as error:
        if _NOT_FOUND in str(error):
            return None
        raise
    # The day may come with a time.
    its_day = reply.day[:10] if isinstance(reply.day, str) else day.isoformat()
    its_symbol = reply.symbol if isinstance(reply.symbol, str) else symbol
    same_symbol = underlying_named(its_symbol) == underlying_named(symbol)
    if its_day != day.isoformat() or not same_symbol:
        log.warning(
            "reply to another question left out", path=path, its_from=its_day, its_symbol=its_symbol
        )
        return None
    price = finite_number(reply.close)
    return OfficialClose(price) if price > 0.0 else None
