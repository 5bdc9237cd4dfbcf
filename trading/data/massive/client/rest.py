"""The vendor's REST service: contracts, chains, quotes, aggregates and the market's status."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from trading.closing import Closing
from trading.data.admission import LAST_NS, is_bar
from trading.data.massive.client.rest_actions import (
    TickerDetails,
    finite_number,
    read_official_close,
    read_splits,
    read_ticker_details,
    read_ticker_events,
)
from trading.data.massive.client.rest_transport import RequestPace, RestTransport
from trading.data.massive.wire import MAX_PRICE, event_ns
from trading.errors import ContractError, DataError, RestError
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.closes import OfficialClose
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.corporate_actions import Rename, Split
from trading.market.dividends import Dividend
from trading.market.option_quote import OptionQuote
from trading.market.products import underlying_named
from trading.market.rates import YieldCurve

_CONTRACTS_PER_PAGE = 1000
_SNAPSHOTS_PER_PAGE = 250
_AGGREGATES_PER_PAGE = 50_000
_QUOTES_PER_PAGE = 50_000
_DIVIDENDS_PER_PAGE = 1000
_STANDARD_DELIVERABLE = 100
_YIELDS_PER_PAGE = 100
_YIELDS_LOOK_BACK = timedelta(days=14)
_SPECIAL = "special"
"""The `distribution_type` of a dividend outside of the regular ones."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListedContract:
    """A contract with what one of it delivers.

    Parameters
    ----------
    contract: what the symbol says
    underlying: ticker of the stock or ETF
    shares_per_contract: shares of it that one contract delivers
    exercise_style: `american`, `european` or `bermudan`
    delivers_other: whether other shares or cash are delivered besides, as after a corporate action
    """

    contract: OptionContract
    underlying: str
    shares_per_contract: float
    exercise_style: str
    delivers_other: bool

    @property
    def is_standard(self) -> bool:
        """Whether one contract delivers 100 shares of the underlying and nothing else."""
        return self.shares_per_contract == _STANDARD_DELIVERABLE and not self.delivers_other


@dataclass(frozen=True, slots=True)
class ContractSnapshot:
    """The latest the vendor knows of a contract.

    Prices are in USD per share, sizes and open interest in contracts. A bid or ask of 0 is absent;
    NaN stands for a figure that the plan or the contract lacks. `delta` is per USD of the
    underlying, `theta` per day, `vega` per percentage point of volatility, as the vendor has them;
    `open_interest` is the prior day's. `quote_ns` is 0 without a quote.
    """

    contract: OptionContract
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    quote_ns: int
    iv: float
    delta: float
    gamma: float
    theta: float
    vega: float
    open_interest: float
    underlying_price: float

    @property
    def quote(self) -> OptionQuote:
        """The quote as the feed would have told it; a snapshot has no sequence number."""
        sizes = self.bid_size, self.ask_size
        return OptionQuote(self.contract.symbol, self.bid, self.ask, *sizes, self.quote_ns, 0)


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """The vendor's view of the market: `market` is `open`, `closed` or `extended-hours`."""

    market: str
    server_ns: int
    early_hours: bool
    after_hours: bool


class HistoricalQuote(
    msgspec.Struct,
    frozen=True,
    rename={
        "ts_ns": "sip_timestamp",
        "sequence": "sequence_number",
        "bid": "bid_price",
        "ask": "ask_price",
    },
):
    """A quote of a past time.

    Prices are in USD per share and 0 where a side is absent, sizes in contracts; `ts_ns` is SIP
    time in UTC nanoseconds, `sequence` rises per contract with holes, exchanges are the vendor's
    numbers and 0 where it names none.
    """

    ts_ns: int
    sequence: int
    bid: float = 0.0
    ask: float = 0.0
    bid_size: float = 0.0
    ask_size: float = 0.0
    bid_exchange: int = 0
    ask_exchange: int = 0


class _DividendRow(msgspec.Struct):
    ticker: str
    ex_dividend_date: date
    cash_amount: float = 0.0
    distribution_type: Any = None
    currency: str | None = "USD"


class _YieldsRow(msgspec.Struct):
    date: date
    yield_1_month: float | None = None
    yield_3_month: float | None = None
    yield_6_month: float | None = None
    yield_1_year: float | None = None
    yield_2_year: float | None = None
    yield_3_year: float | None = None
    yield_5_year: float | None = None
    yield_7_year: float | None = None
    yield_10_year: float | None = None
    yield_20_year: float | None = None
    yield_30_year: float | None = None


_YIELDS_OF = {
    **{f"yield_{months}_month": months / 12.0 for months in (1, 3, 6)},
    **{f"yield_{years}_year": float(years) for years in (1, 2, 3, 5, 7, 10, 20, 30)},
}
"""Years to maturity of each field."""


class _ContractRow(msgspec.Struct):
    ticker: str
    underlying_ticker: str | None = None
    shares_per_contract: float | None = float(_STANDARD_DELIVERABLE)
    exercise_style: Any = None
    additional_underlyings: Any = None


class _Details(msgspec.Struct):
    ticker: str


class _LastQuote(msgspec.Struct):
    bid: float | None = None
    ask: float | None = None
    bid_size: Any = None
    ask_size: Any = None
    last_updated: int | float | None = None


class _SnapshotRow(msgspec.Struct):
    details: _Details
    last_quote: _LastQuote | None = None
    # Figures beside the quote may be of any kind: what is none is not known.
    greeks: Any = None
    underlying_asset: Any = None
    implied_volatility: Any = None
    open_interest: Any = None


class _AggregateRow(msgspec.Struct):
    t: int
    o: float
    h: float
    l: float  # noqa: E741 - the vendor's field name
    c: float
    v: Any = 0.0
    vw: Any = None


class _StatusReply(msgspec.Struct, rename="camel"):
    market: str
    server_time: str
    early_hours: Any = False
    after_hours: Any = False


class RestClient(Closing):
    """Ask the vendor and page to the end, or raise: a partial answer is never returned.

    Requests are made by the vendor's own client. Overload (429), passing failures (5xx) and broken
    connections are tried again, and so is a key that is refused (401) after it was accepted, as by
    a vendor whose logins fail for a while; `attempts` times in all, after the pause that the server
    names in `Retry-After` or one that doubles. After a call that was refused each time the next
    ones try once, until the key is accepted. The key travels in the `Authorization` header only,
    and only to `base_url`. Several threads may ask at once.

    Parameters
    ----------
    base_url: scheme and host, such as `https://api.massive.com`
    api_key: the vendor's key
    timeout_s: time for each step of a request (connecting, each read)
    attempts: how often one request is tried
    pause: waits for so many seconds
    max_requests_per_s: the vendor throttles above 100

    Raises
    ------
    AuthenticationFailed
        The vendor refused the key (401) and never accepted it, or it is malformed.
    NotEntitled
        The key's plan does not include what was asked for (403).
    RestError
        Anything else: the message names the path and the page.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 10.0,
        attempts: int = 4,
        pause: Callable[[float], None] = time.sleep,
        max_requests_per_s: float = 80.0,
    ) -> None:
        self._transport = RestTransport(
            base_url, api_key, timeout_s, attempts, pause, RequestPace(max_requests_per_s)
        )

    @property
    def rows_left_out(self) -> int:
        """Rows of answers that could not be read, since the start."""
        return self._transport.rows_left_out

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def option_contracts(
        self,
        underlying: str,
        *,
        as_of: date | None = None,
        expiry_from: date | None = None,
        expiry_to: date | None = None,
    ) -> list[ListedContract]:
        """Return the contracts listed on `as_of` (default: today), sorted by symbol.

        Both bounds of the expiry are inclusive. A row that cannot be read, or whose symbol is
        malformed, is logged and left out; a contract that is listed twice counts once. What a
        contract delivers is not known where its row does not say it: then it is not standard.
        """
        query = {
            "underlying_ticker": underlying,
            "limit": str(_CONTRACTS_PER_PAGE),
            "sort": "ticker",
            "order": "asc",
            **_expiry_range(expiry_from, expiry_to),
        }
        if as_of is not None:
            query["as_of"] = as_of.isoformat()
        listed: dict[str, ListedContract] = {}
        for row in self._transport.rows(
            lambda client: client.list_options_contracts(params=query, raw=True),
            "/v3/reference/options/contracts",
            _ContractRow,
        ):
            contract = _contract_of(row.ticker)
            if contract is not None:
                told = underlying_named(row.underlying_ticker or "")
                usual = underlying if contract.is_on(underlying) else contract.underlying
                shares = row.shares_per_contract
                listed.setdefault(
                    contract.symbol,
                    ListedContract(
                        contract=contract,
                        underlying=told or usual,
                        shares_per_contract=math.nan if shares is None else shares,
                        exercise_style=str(row.exercise_style or ""),
                        delivers_other=bool(row.additional_underlyings),
                    ),
                )
        return list(listed.values())

    def dividends(self, underlying: str, from_date: date, to_date: date) -> list[Dividend]:
        """Return the cash dividends of a stock by ex-date, both dates included, oldest first."""
        query = {
            "ticker": underlying,
            "ex_dividend_date.gte": from_date.isoformat(),
            "ex_dividend_date.lte": to_date.isoformat(),
            "limit": str(_DIVIDENDS_PER_PAGE),
        }
        found: dict[Dividend, set[str]] = {}
        for row in self._transport.rows(
            lambda client: client.list_stocks_dividends(params=query, raw=True),
            "/stocks/v1/dividends",
            _DividendRow,
        ):
            if row.ticker != underlying or not row.cash_amount > 0.0 or not _is_in_usd(row):
                continue
            kind = str(row.distribution_type or "").lower()
            try:
                dividend = Dividend(
                    underlying, row.ex_dividend_date, row.cash_amount, special=kind == _SPECIAL
                )
            except DataError as error:
                log.warning("dividend left out", reason=str(error))
                continue
            found.setdefault(dividend, set()).add(kind)
        # Told twice it is one; of the same amount but another kind it is another one.
        each_once = [
            dividend for dividend, kinds in found.items() for _ in range(len(kinds - {""}) or 1)
        ]
        return sorted(each_once, key=lambda dividend: dividend.ex_date)

    def treasury_yields(self, on: date) -> YieldCurve | None:
        """Return the newest yields of treasuries up to a date; None where two weeks have none."""
        query = {
            "date.gte": (on - _YIELDS_LOOK_BACK).isoformat(),
            "date.lte": on.isoformat(),
            "limit": str(_YIELDS_PER_PAGE),
        }
        curves = []
        for row in self._transport.rows(
            lambda client: client.list_treasury_yields(params=query, raw=True),
            "/fed/v1/treasury-yields",
            _YieldsRow,
        ):
            known = {
                years: percent
                for name, years in _YIELDS_OF.items()
                if (percent := getattr(row, name)) is not None
            }
            if not known or row.date > on:
                continue
            try:
                curves.append(YieldCurve(row.date, known))
            except DataError as error:
                log.warning("yields left out", reason=str(error))
        return max(curves, key=lambda curve: curve.day, default=None)

    def splits(self, underlying: str, from_date: date, to_date: date) -> list[Split]:
        """Return the splits of a stock by execution date, both dates included, oldest first."""
        return read_splits(self._transport, underlying, from_date, to_date)

    def ticker_details(self, underlying: str, on: date) -> TickerDetails | None:
        """Return which company has a symbol on a day; None where the vendor knows none."""
        return read_ticker_details(self._transport, underlying, on)

    def ticker_events(self, underlying: str) -> list[Rename]:
        """Return the changes of a company's symbol, oldest first.

        `underlying` is the symbol that the company has now, or its identifier (FIGI), by which it
        is found when it has another one.
        """
        return read_ticker_events(self._transport, underlying)

    def official_close(self, symbol: str, day: date) -> OfficialClose | None:
        """Return the official close of a stock or contract, None while the vendor has none."""
        return read_official_close(self._transport, symbol, day)

    def option_chain_snapshot(
        self,
        underlying: str,
        *,
        expiry_from: date | None = None,
        expiry_to: date | None = None,
        strike_from: float | None = None,
        strike_to: float | None = None,
        right: Right | None = None,
    ) -> list[ContractSnapshot]:
        """Return the latest of each contract of `underlying`, sorted by symbol.

        All bounds are inclusive; strikes are in USD per share. A row whose symbol is malformed is
        logged and left out.
        """
        query = {
            "limit": str(_SNAPSHOTS_PER_PAGE),
            "sort": "ticker",
            "order": "asc",
            **_expiry_range(expiry_from, expiry_to),
        }
        if strike_from is not None:
            query["strike_price.gte"] = f"{strike_from:.10g}"
        if strike_to is not None:
            query["strike_price.lte"] = f"{strike_to:.10g}"
        if right is not None:
            query["contract_type"] = right.name.lower()
        name = quote(underlying, safe="")
        snapshots = []
        for row in self._transport.rows(
            lambda client: client.list_snapshot_options_chain(name, params=query, raw=True),
            f"/v3/snapshot/options/{name}",
            _SnapshotRow,
        ):
            contract = _contract_of(row.details.ticker)
            if contract is not None:
                snapshots.append(_snapshot_of(contract, row))
        return snapshots

    def option_quotes(
        self, symbol: str, from_ns: int, before_ns: int
    ) -> Iterator[list[HistoricalQuote]]:
        """Yield the quotes of a contract in `[from_ns, before_ns)` page by page, oldest first.

        The pages read so far are a beginning: only an iteration that ends without an error has
        been told all. Rows that are no quotes are logged and left out.
        """
        query = {
            "timestamp.gte": str(from_ns),
            "timestamp.lt": str(before_ns),
            "order": "asc",
            "sort": "timestamp",
            "limit": str(_QUOTES_PER_PAGE),
        }
        name = quote(symbol, safe=":")
        path = f"/v3/quotes/{name}"
        last_ns = from_ns
        for page in self._transport.whole_pages(
            lambda client: client.list_quotes(name, params=query, raw=True),
            path,
            HistoricalQuote,
            _is_quote,
        ):
            for row in page:
                if not last_ns <= row.ts_ns < before_ns:
                    raise RestError(
                        f"{path}: a quote of {row.ts_ns} ns follows one of {last_ns} ns, in a "
                        f"window up to {before_ns} ns: the vendor did not keep the order asked for"
                    )
                last_ns = row.ts_ns
            yield page

    def aggregates(
        self,
        symbol: str,
        multiplier: int,
        timespan: str,
        from_ns: int,
        to_ns: int,
        *,
        adjusted: bool = False,
    ) -> list[StockBar]:
        """Return the bars that start in `[from_ns, to_ns]`, oldest first.

        A bar spans `multiplier` times `timespan` (`second`, `minute`, `hour`, `day`). The vendor
        counts in milliseconds. Prices are as traded by default, since strikes are not adjusted for
        splits either. Without a volume-weighted price, `vwap` is the typical price,
        (high + low + close) / 3. Bars with prices or times that are none are logged and left out.
        """
        from_ms = -(-from_ns // 1_000_000)
        to_ms = to_ns // 1_000_000
        name = quote(symbol, safe=":")
        path = f"/v2/aggs/ticker/{name}/range/{multiplier}/{timespan}/{from_ms}/{to_ms}"
        query = {
            "adjusted": str(adjusted).lower(),
            "sort": "asc",
            "limit": str(_AGGREGATES_PER_PAGE),
        }
        bars, odd = {}, 0
        for row in self._transport.rows(
            lambda client: client.list_aggs(
                name, multiplier, timespan, from_ms, to_ms, params=query, raw=True
            ),
            path,
            _AggregateRow,
        ):
            volume, vwap = finite_number(row.v), finite_number(row.vw)
            bar = StockBar(
                symbol=symbol,
                start_ns=event_ns(row.t),
                open=row.o,
                high=row.h,
                low=row.l,
                close=row.c,
                volume=0.0 if math.isnan(volume) else volume,
                vwap=(row.h + row.l + row.c) / 3 if math.isnan(vwap) else vwap,
            )
            if is_bar(bar) and 0 < bar.start_ns < LAST_NS:
                # One that is told again replaces the one before.
                bars[bar.start_ns] = bar
            else:
                odd += 1
        if odd:
            log.warning("bars without price or time left out", path=path, bars=odd)
        return [bars[start_ns] for start_ns in sorted(bars)]

    def market_status(self) -> MarketStatus:
        """Return whether the market is open, and the server's clock."""
        path = _STATUS_PATH
        reply = self._transport.one(
            lambda client: client.get_market_status(raw=True), path, _StatusReply
        )
        return MarketStatus(
            market=reply.market,
            server_ns=_server_ns(reply),
            early_hours=reply.early_hours is True,
            after_hours=reply.after_hours is True,
        )

    def clock_ns(self) -> int:
        """Return the server's clock, UTC nanoseconds cut to a second, by one request.

        That is the market status' `serverTime` or, where it is refused or unreadable, the `Date`
        of the reply. Raises `RestError` where neither is told, or a cache answered.
        """
        body, date_ns = self._transport.tried_once(_STATUS_PATH)
        try:
            return _server_ns(msgspec.json.decode(body, type=_StatusReply))
        except (msgspec.MsgspecError, UnicodeDecodeError, RestError) as error:
            if date_ns is None:
                raise RestError(f"{_STATUS_PATH}: tells no time, neither does its Date") from error
            return date_ns


_STATUS_PATH = "/v1/marketstatus/now"


def _server_ns(reply: _StatusReply) -> int:
    try:
        server_time = datetime.fromisoformat(reply.server_time)
    except ValueError:
        server_time = None
    if server_time is None or server_time.tzinfo is None:
        raise RestError(f"{_STATUS_PATH}: serverTime {reply.server_time!r} is no RFC 3339 time")
    return int(server_time.timestamp()) * 1_000_000_000 + server_time.microsecond * 1000


def _expiry_range(expiry_from: date | None, expiry_to: date | None) -> dict[str, str]:
    query = {}
    if expiry_from is not None:
        query["expiration_date.gte"] = expiry_from.isoformat()
    if expiry_to is not None:
        query["expiration_date.lte"] = expiry_to.isoformat()
    return query


def _contract_of(ticker: str) -> OptionContract | None:
    try:
        return parse_symbol(ticker)
    except ContractError as error:
        log.warning("contract left out", reason=str(error))
        return None


def _snapshot_of(contract: OptionContract, row: _SnapshotRow) -> ContractSnapshot:
    last = row.last_quote or _LastQuote()
    greeks = row.greeks if isinstance(row.greeks, dict) else {}
    asset = row.underlying_asset if isinstance(row.underlying_asset, dict) else {}
    price = finite_number(asset.get("price"))
    bid, ask = last.bid or 0.0, last.ask or 0.0
    updated = last.last_updated or 0
    quote_ns = event_ns(int(updated)) if 0 <= updated <= LAST_NS else 0
    if not (0.0 <= bid <= MAX_PRICE and 0.0 <= ask <= MAX_PRICE and quote_ns <= LAST_NS):
        bid, ask, quote_ns = 0.0, 0.0, 0
    return ContractSnapshot(
        contract=contract,
        bid=bid,
        ask=ask,
        bid_size=_size(last.bid_size),
        ask_size=_size(last.ask_size),
        quote_ns=quote_ns,
        iv=finite_number(row.implied_volatility),
        delta=finite_number(greeks.get("delta")),
        gamma=finite_number(greeks.get("gamma")),
        theta=finite_number(greeks.get("theta")),
        vega=finite_number(greeks.get("vega")),
        open_interest=finite_number(row.open_interest),
        underlying_price=finite_number(asset.get("value")) if math.isnan(price) else price,
    )


def _is_quote(quote: HistoricalQuote) -> bool:
    prices = (quote.bid, quote.ask)
    sizes = (quote.bid_size, quote.ask_size)
    return (
        0 < quote.ts_ns < LAST_NS
        and all(0.0 <= price <= MAX_PRICE for price in prices)
        and all(0.0 <= size < math.inf for size in sizes)
    )


def _size(value: Any) -> float:
    """Return a size; one that is no number displays nothing."""
    size = finite_number(value)
    return size if size >= 0.0 else 0.0


def _is_in_usd(row: _DividendRow) -> bool:
    if (row.currency or "USD").upper() == "USD":
        return True
    log.warning(
        "dividend in another currency left out: name it in USD in data.dividends",
        symbol=row.ticker,
        ex_date=row.ex_dividend_date,
        currency=row.currency,
    )
    return False
