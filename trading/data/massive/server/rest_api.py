"""The market server's REST side: the vendor's paths, answered from the market state.

No sockets here: `RestApi.get` maps one GET to a status and a JSON body. Greeks, implied
volatility and the last trade are left out of snapshots, as the vendor may do; open interest is 0.
"""

from __future__ import annotations

import base64
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading.data.massive.encoding import EXCHANGE_ID
from trading.data.massive.server.market_state import DayTotals, MarketState
from trading.market.calendar import DAY_NS, NEW_YORK
from trading.market.contracts import OptionContract, Right
from trading.market.corporate_actions import CorporateAction, Delisting, Rename, Split
from trading.market.dividends import Dividend
from trading.market.products import product_of, underlying_named
from trading.market.rates import YieldCurve

UrlParameters = dict[str, str]
Json = dict[str, Any]

_FIGI: Final = "BBG-"
"""What our identifiers of companies begin with; their first symbols follow."""
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_SHARES_PER_CONTRACT: Final = 100
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "": lambda value, bound: bool(value == bound),
    ".gte": lambda value, bound: bool(value >= bound),
    ".gt": lambda value, bound: bool(value > bound),
    ".lte": lambda value, bound: bool(value <= bound),
    ".lt": lambda value, bound: bool(value < bound),
}
_YIELD_NAMES: Final = {
    **{months / 12.0: f"yield_{months}_month" for months in (1, 3, 6)},
    **{float(years): f"yield_{years}_year" for years in (1, 2, 3, 5, 7, 10, 20, 30)},
}
_SORT_KEYS: Final[dict[str, Callable[[OptionContract], Any]]] = {
    "ticker": lambda contract: contract.symbol,
    "underlying_ticker": lambda contract: (contract.underlying, contract.symbol),
    "expiration_date": lambda contract: (contract.expiry, contract.symbol),
    "strike_price": lambda contract: (contract.strike_milli, contract.symbol),
}


class RestReply(NamedTuple):
    """HTTP status and JSON body."""

    status: int
    body: bytes


class _BadRequest(Exception):
    """The query is malformed; the text goes into the reply."""


class _NotFound(Exception):
    """There is nothing under the path; the text goes into the reply."""


class RestApi:
    """Answers the vendor's REST paths.

    Parameters
    ----------
    state: what the market looks like now
    keys: API keys that are accepted, as `Authorization: Bearer` or as `apiKey` in the query
    dividends: cash dividends of the stocks
    treasury_yields: those of each day on which they changed
    actions: their splits and changes of symbol

    Attributes
    ----------
    actions: what is told of corporate actions; may be replaced while the market runs
    closes: official closes that differ from the last minute bar, by symbol and date
    """

    def __init__(
        self,
        state: MarketState,
        keys: Collection[str],
        dividends: Iterable[Dividend] = (),
        treasury_yields: Iterable[YieldCurve] = (),
        actions: Iterable[CorporateAction] = (),
    ) -> None:
        self._state = state
        self._keys = keys
        self.actions: Sequence[CorporateAction] = tuple(actions)
        self.closes: dict[tuple[str, date], float] = {}
        self._known_dividends = sorted(dividends, key=lambda each: (each.ex_date, each.underlying))
        self._yields = sorted(treasury_yields, key=lambda curve: curve.day)
        self._requests = 0
        self._routes: list[tuple[re.Pattern[str], Callable[[_Request], Json]]] = [
            (re.compile(r"/v3/reference/options/contracts"), self._contracts),
            (re.compile(r"/v3/snapshot/options/(?P<underlying>[^/]+)"), self._snapshot),
            (
                re.compile(
                    r"/v2/aggs/ticker/(?P<ticker>[^/]+)/range/(?P<multiplier>[^/]+)"
                    r"/(?P<timespan>[^/]+)/(?P<from>[^/]+)/(?P<to>[^/]+)"
                ),
                self._aggregates,
            ),
            (re.compile(r"/v3/quotes/(?P<contract>O:[^/]+)"), self._quotes),
            (re.compile(r"/stocks/v1/dividends"), self._dividends),
            (re.compile(r"/stocks/v1/splits"), self._splits),
            (re.compile(r"/vX/reference/tickers/(?P<ticker>[^/]+)/events"), self._ticker_events),
            (re.compile(r"/v3/reference/tickers/(?P<ticker>[^/]+)"), self._ticker_details),
            (
                re.compile(r"/v1/open-close/(?P<ticker>[^/]+)/(?P<date>[^/]+)"),
                self._open_close,
            ),
            (re.compile(r"/fed/v1/treasury-yields"), self._treasury_yields),
            (re.compile(r"/v1/marketstatus/now"), self._market_status),
        ]

    def get(self, target: str, headers: Mapping[str, str]) -> RestReply:
        """Answer a GET of `target`, path with query; `headers` are looked up as given."""
        self._requests += 1
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not self._authorised(headers.get("Authorization"), query.pop("apiKey", None)):
            return self._error(401, "Unknown API Key")
        for pattern, answer in self._routes:
            match = pattern.fullmatch(unquote(parts.path))
            if match is None:
                continue
            base = f"http://{headers.get('Host', 'localhost')}{parts.path}"
            try:
                request = _Request(match.groupdict(), _resume(query), base)
                return RestReply(200, msgspec.json.encode(answer(request)))
            except _BadRequest as error:
                return self._error(400, str(error))
            except _NotFound as error:
                return self._error(404, str(error))
        return self._error(404, f"unknown path {parts.path}")

    def _authorised(self, authorization: str | None, api_key: str | None) -> bool:
        bearer = (authorization or "").removeprefix("Bearer ")
        return bearer in self._keys or api_key in self._keys

    def _error(self, status: int, message: str) -> RestReply:
        body = {"status": "ERROR", "request_id": self._request_id(), "error": message}
        return RestReply(status, msgspec.json.encode(body))

    def _request_id(self) -> str:
        return f"{self._requests:032x}"

    def _page(self, request: _Request, rows: list[Any], default: int, maximum: int) -> Json:
        """One page of `rows` with the address of the next one; `results` still to be rendered."""
        limit = request.integer("limit", default)
        if not 1 <= limit <= maximum:
            raise _BadRequest(f"limit {limit} is not between 1 and {maximum}")
        offset = request.integer("offset", 0)
        page: Json = {
            "status": "OK",
            "request_id": self._request_id(),
            "results": rows[offset : offset + limit],
        }
        if offset + limit < len(rows):
            page["next_url"] = request.next_url(offset + limit)
        return page

    def _contracts(self, request: _Request) -> Json:
        as_of = request.day("as_of", self._state.listing.session.date)
        expired = request.query.get("expired", "false") == "true"
        rows = [
            contract
            for contract in self._state.listing.contracts
            if (contract.expiry < as_of) == expired
        ]
        page = self._page(request, _select(rows, request), default=10, maximum=1000)
        asked = underlying_named(request.query.get("underlying_ticker", ""))
        page["results"] = [
            _contract_row(contract, asked or contract.underlying) for contract in page["results"]
        ]
        return page

    def _snapshot(self, request: _Request) -> Json:
        underlying = underlying_named(request.path["underlying"])
        positions = {
            contract: position
            for position, contract in enumerate(self._state.listing.contracts)
            if contract.is_on(underlying)
        }
        page = self._page(request, _select(positions, request), default=10, maximum=250)
        page["results"] = [
            self._snapshot_row(contract, positions[contract], underlying)
            for contract in page["results"]
        ]
        return page

    def _snapshot_row(self, contract: OptionContract, position: int, underlying: str) -> Json:
        state = self._state
        bid, ask = float(state.bid[position]), float(state.ask[position])
        break_even = contract.strike + contract.right * (bid + ask) / 2
        row: Json = {
            "break_even_price": break_even,
            "day": _day_row(state.totals.get(contract.symbol)),
            "details": {
                "contract_type": _contract_type(contract),
                "exercise_style": _exercise_style(contract),
                "expiration_date": contract.expiry.isoformat(),
                "shares_per_contract": _SHARES_PER_CONTRACT,
                "strike_price": contract.strike,
                "ticker": contract.symbol,
            },
            "open_interest": 0,
            "underlying_asset": self._underlying_row(underlying, break_even),
        }
        if state.quote_ns[position] > 0:
            row["last_quote"] = {
                "ask": ask,
                "ask_size": int(state.ask_size[position]),
                "bid": bid,
                "bid_size": int(state.bid_size[position]),
                "last_updated": int(state.quote_ns[position]),
                "midpoint": (bid + ask) / 2,
                "timeframe": "REAL-TIME",
            }
        return row

    def _underlying_row(self, underlying: str, break_even: float) -> Json:
        totals = self._state.totals.get(underlying)
        if totals is None:
            return {"ticker": underlying, "change_to_break_even": 0.0}
        return {
            "ticker": underlying,
            "price": totals.close,
            "change_to_break_even": break_even - totals.close,
            "last_updated": totals.updated_ns,
            "timeframe": "REAL-TIME",
        }

    def _aggregates(self, request: _Request) -> Json:
        path = request.path
        if (path["multiplier"], path["timespan"]) != ("1", "minute"):
            raise _BadRequest(
                f"range {path['multiplier']}/{path['timespan']} is not served: only 1/minute is"
            )
        from_ms = _window_ms(path["from"], end=False)
        to_ms = _window_ms(path["to"], end=True)
        rows = [
            {
                "t": bar.start_ns // _NS_PER_MS,
                "o": bar.open,
                "h": bar.high,
                "l": bar.low,
                "c": bar.close,
                "v": bar.volume,
                "vw": bar.vwap,
            }
            for bar in self._state.bars(underlying_named(path["ticker"]))
            if from_ms <= bar.start_ns // _NS_PER_MS <= to_ms
        ]
        if request.query.get("sort", "asc") == "desc":
            rows.reverse()
        page = self._page(request, rows, default=5000, maximum=50_000)
        count = len(page["results"])
        return page | {
            "ticker": path["ticker"],
            "adjusted": request.query.get("adjusted", "true") == "true",
            "queryCount": count,
            "resultsCount": count,
        }

    def _dividends(self, request: _Request) -> Json:
        first = request.day("ex_dividend_date.gte", date.min)
        last = request.day("ex_dividend_date.lte", date.max)
        ticker = request.query.get("ticker")
        rows = [
            {
                "id": f"{each.underlying}-{each.ex_date}",
                "ticker": each.underlying,
                "ex_dividend_date": each.ex_date.isoformat(),
                "cash_amount": each.amount,
                "currency": "USD",
                "distribution_type": "special" if each.special else "recurring",
            }
            for each in [*self._known_dividends, *self._state.listing.dividends]
            if ticker in (None, each.underlying) and first <= each.ex_date <= last
        ]
        return self._page(request, rows, default=100, maximum=5000)

    def _splits(self, request: _Request) -> Json:
        first = request.day("execution_date.gte", date.min)
        last = request.day("execution_date.lte", date.max)
        ticker = request.query.get("ticker")
        rows = [
            {
                "id": each.identifier or f"{each.underlying}-{each.ex_date}",
                "ticker": each.underlying,
                "execution_date": each.ex_date.isoformat(),
                "split_from": float(each.old),
                "split_to": float(each.new),
                "adjustment_type": "forward_split" if each.ratio > 1 else "reverse_split",
            }
            for each in self._told_actions()
            if isinstance(each, Split)
            and ticker in (None, each.underlying)
            and first <= each.ex_date <= last
        ]
        return self._page(request, rows, default=100, maximum=5000)

    def _told_actions(self) -> list[CorporateAction]:
        return [*self.actions, *self._state.listing.actions]

    def _renames(self, until: date) -> list[Rename]:
        """Return changes of symbols up to a day, the newest first."""
        changes = [
            each
            for each in self._told_actions()
            if isinstance(each, Rename) and each.ex_date <= until
        ]
        return sorted(changes, key=lambda each: each.ex_date, reverse=True)

    def _first_name(self, ticker: str, on: date) -> str | None:
        """Return the first symbol of a company by the one of a day; None where none has it."""
        name, day = ticker, on
        for each in self._renames(on):
            if each.underlying == ticker == name:
                return None
            if each.new_symbol == name and each.ex_date <= day:
                name, day = each.underlying, each.ex_date
        return name

    def _ticker_events(self, request: _Request) -> Json:
        """Return the symbols that a company has had, by its symbol now or by its identifier."""
        asked = request.path["ticker"]
        today = self._state.listing.session.date
        first = asked.removeprefix(_FIGI)
        if first == asked:
            first = self._first_name(asked, today) or ""
        name, events = first, [_ticker_change(date(1990, 1, 2), first)]
        for each in reversed(self._renames(today)):
            if each.underlying == name:
                name = each.new_symbol
                events.append(_ticker_change(each.ex_date, name))
        if len(events) == 1:
            raise _NotFound(f"ticker {asked} has no events")
        return {
            "status": "OK",
            "request_id": self._request_id(),
            "results": {"name": name, "events": events[::-1]},
        }

    def _ticker_details(self, request: _Request) -> Json:
        """Which company has a symbol on a day, and whether it trades."""
        ticker = request.path["ticker"]
        day = request.day("date", self._state.listing.session.date)
        first = self._first_name(ticker, day)
        if first is None:
            raise _NotFound(f"nobody has the ticker {ticker} on {day}")
        gone = [
            each.ex_date
            for each in self._told_actions()
            if isinstance(each, Delisting) and each.underlying == ticker and each.ex_date <= day
        ]
        details: Json = {
            "ticker": ticker,
            "active": not gone,
            "market": "stocks",
            "composite_figi": _FIGI + first,
        }
        if gone:
            details["delisted_utc"] = f"{max(gone)}T00:00:00Z"
        return {"status": "OK", "request_id": self._request_id(), "results": details}

    def _open_close(self, request: _Request) -> Json:
        """Return a symbol's session as its minute bars tell it; the close is the last one's.

        A session that is not over has none, as the vendor's.
        """
        symbol, day = request.path["ticker"], _parse_day("date", request.path["date"])
        told = self.closes.get((symbol, day), self._state.listing.closes.get((symbol, day)))
        session = self._state.listing.session
        over = day < session.date or self._state.now_ns >= session.close_ns
        bars = [
            bar
            for bar in self._state.bars(symbol)
            if datetime.fromtimestamp(bar.start_ns // _NS_PER_S, NEW_YORK).date() == day
        ]
        if not over or (told is None and not bars):
            raise _NotFound(f"no data of {symbol} on {day}")
        close = bars[-1].close if told is None else told
        return {
            "status": "OK",
            "from": day.isoformat(),
            "symbol": symbol,
            "open": bars[0].open if bars else close,
            "high": max((bar.high for bar in bars), default=close),
            "low": min((bar.low for bar in bars), default=close),
            "close": close,
            "volume": sum(bar.volume for bar in bars),
        }

    def _treasury_yields(self, request: _Request) -> Json:
        """Return the newest yields of the days asked for, observed on the last of them."""
        today = self._state.listing.session.date
        last = min(request.day("date.lte", today), today)
        newest = [curve for curve in self._yields if curve.day <= last][-1:]
        rows = [
            {"date": last.isoformat()}
            | {
                name: curve.percent[years]
                for years, name in _YIELD_NAMES.items()
                if years in curve.percent
            }
            for curve in newest
        ]
        return self._page(request, rows, default=100, maximum=50_000)

    def _quotes(self, request: _Request) -> Json:
        """Return the session's quotes of a contract, newest first unless asked otherwise."""
        quotes = self._state.quotes(request.path["contract"])
        rows = np.flatnonzero(_in_window(quotes.ts_ns, request.query))
        if request.query.get("order", "desc") != "asc":
            rows = rows[::-1]
        page = self._page(request, rows.tolist(), default=1000, maximum=50_000)
        columns = zip(*(column[page["results"]].tolist() for column in quotes[1:]), strict=True)
        page["results"] = [
            {
                "bid_exchange": EXCHANGE_ID,
                "bid_price": bid,
                "bid_size": bid_size,
                "ask_exchange": EXCHANGE_ID,
                "ask_price": ask,
                "ask_size": ask_size,
                "sip_timestamp": ts_ns,
                "sequence_number": sequence,
            }
            for bid, ask, bid_size, ask_size, ts_ns, sequence in columns
        ]
        return page

    def _market_status(self, request: _Request) -> Json:
        session = self._state.listing.session
        now_ns = self._state.now_ns
        market = "open" if session.open_ns <= now_ns < session.close_ns else "closed"
        return {
            "market": market,
            "earlyHours": False,
            "afterHours": False,
            "exchanges": {"nasdaq": market, "nyse": market, "otc": market},
            "serverTime": datetime.fromtimestamp(now_ns // _NS_PER_S, NEW_YORK).isoformat(),
        }


class _Request(NamedTuple):
    """A matched GET: names in the path, the query, and the address without its query."""

    path: dict[str, str]
    query: UrlParameters
    base: str

    def integer(self, name: str, default: int) -> int:
        text = self.query.get(name, str(default))
        try:
            return int(text)
        except ValueError as error:
            raise _BadRequest(f"{name} {text!r} is not a whole number") from error

    def day(self, name: str, default: date) -> date:
        return _parse_day(name, self.query[name]) if name in self.query else default

    def next_url(self, offset: int) -> str:
        state = msgspec.json.encode(self.query | {"offset": str(offset)})
        return f"{self.base}?cursor={base64.urlsafe_b64encode(state).decode()}"


def _resume(query: UrlParameters) -> UrlParameters:
    """Return the query that a `cursor` stands for, or the query itself."""
    cursor = query.get("cursor")
    if cursor is None:
        return query
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=UrlParameters)
    except (ValueError, msgspec.MsgspecError) as error:
        raise _BadRequest(f"cursor {cursor!r} is not one of this server's") from error


def _select(contracts: Iterable[OptionContract], request: _Request) -> list[OptionContract]:
    """Return the contracts that pass the query's filters, in the order it asks for."""
    conditions = list(_conditions(request.query))
    rows = [row for row in contracts if all(condition(row) for condition in conditions)]
    sort = request.query.get("sort", "ticker")
    if sort not in _SORT_KEYS:
        raise _BadRequest(f"sort {sort!r} is not one of {', '.join(_SORT_KEYS)}")
    descending = request.query.get("order", "asc") == "desc"
    return sorted(rows, key=_SORT_KEYS[sort], reverse=descending)


def _conditions(query: UrlParameters) -> Iterable[Callable[[OptionContract], bool]]:
    if "ticker" in query:
        yield _compare(lambda contract: contract.symbol, "", query["ticker"])
    if "contract_type" in query:
        yield _compare(_contract_type, "", query["contract_type"])
    for suffix in _COMPARISONS:
        name = f"underlying_ticker{suffix}"
        if name in query:
            if suffix:
                yield _compare(lambda contract: contract.underlying, suffix, query[name])
            else:
                yield _on(underlying_named(query[name]))
        name = f"expiration_date{suffix}"
        if name in query:
            yield _compare(lambda contract: contract.expiry, suffix, _parse_day(name, query[name]))
        name = f"strike_price{suffix}"
        if name in query:
            strike = _parse_number(name, query[name])
            yield _compare(lambda contract: contract.strike, suffix, strike)


def _on(underlying: str) -> Callable[[OptionContract], bool]:
    return lambda contract: contract.is_on(underlying)


def _compare(
    attribute: Callable[[OptionContract], Any], suffix: str, bound: Any
) -> Callable[[OptionContract], bool]:
    comparison = _COMPARISONS[suffix]
    return lambda contract: comparison(attribute(contract), bound)


def _contract_row(contract: OptionContract, underlying: str) -> Json:
    return {
        "cfi": "OCASPS" if contract.right is Right.CALL else "OPASPS",
        "contract_type": _contract_type(contract),
        "exercise_style": _exercise_style(contract),
        "expiration_date": contract.expiry.isoformat(),
        "primary_exchange": "BATO",
        "shares_per_contract": _SHARES_PER_CONTRACT,
        "strike_price": contract.strike,
        "ticker": contract.symbol,
        "underlying_ticker": underlying,
    }


def _exercise_style(contract: OptionContract) -> str:
    return "european" if product_of(contract.root).european else "american"


def _ticker_change(day: date, ticker: str) -> Json:
    return {
        "type": "ticker_change",
        "date": day.isoformat(),
        "ticker_change": {"ticker": ticker},
    }


def _contract_type(contract: OptionContract) -> str:
    return "call" if contract.right is Right.CALL else "put"


def _day_row(totals: DayTotals | None) -> Json:
    if totals is None:
        return dict.fromkeys(_DAY_FIELDS, 0.0)
    previous = totals.open if math.isnan(totals.previous_close) else totals.previous_close
    change = totals.close - previous
    return {
        "change": change,
        "change_percent": 100.0 * change / previous,
        "close": totals.close,
        "high": totals.high,
        "last_updated": totals.updated_ns,
        "low": totals.low,
        "open": totals.open,
        "previous_close": previous,
        "volume": totals.volume,
        "vwap": totals.vwap,
    }


_DAY_FIELDS: Final = (
    "change",
    "change_percent",
    "close",
    "high",
    "low",
    "open",
    "previous_close",
    "volume",
    "vwap",
)


def _in_window(ts_ns: NDArray[np.int64], query: UrlParameters) -> NDArray[np.bool_]:
    """Which times pass the query's `timestamp` and its bounds, in nanoseconds or as dates.

    A date is the beginning of that day in New York; `timestamp` alone means all of the day.
    """
    inside = np.ones(len(ts_ns), np.bool_)
    for suffix, comparison in _TIME_COMPARISONS.items():
        name = f"timestamp{suffix}"
        if name in query:
            inside &= comparison(ts_ns, _instant_ns(name, query[name]))
    if "timestamp" in query:
        first_ns = last_ns = _instant_ns("timestamp", query["timestamp"])
        if not query["timestamp"].isdecimal():
            last_ns += DAY_NS - 1
        inside &= (ts_ns >= first_ns) & (ts_ns <= last_ns)
    return inside


_TIME_COMPARISONS: Final[dict[str, Callable[[Any, int], Any]]] = {
    ".gte": operator.ge,
    ".gt": operator.gt,
    ".lte": operator.le,
    ".lt": operator.lt,
}


def _instant_ns(name: str, text: str) -> int:
    if text.isdecimal():
        return int(text)
    day = _parse_day(name, text)
    midnight = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)
    return int(midnight.timestamp()) * _NS_PER_S


def _parse_day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _BadRequest(f"{name} {text!r} is not a date of the form YYYY-MM-DD") from error


def _parse_number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _BadRequest(f"{name} {text!r} is not a number") from error


def _window_ms(text: str, *, end: bool) -> int:
    """Return a bound of `/v2/aggs`: milliseconds, or a date in New York, with `end` its last ms."""
    if text.isdecimal():
        return int(text)
    day = _parse_day("date", text)
    if end and day < date.max:
        day += timedelta(days=1)
    midnight = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)
    return int(midnight.timestamp()) * 1000 - (1 if end else 0)
