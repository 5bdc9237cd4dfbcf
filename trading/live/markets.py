"""Reference data of the live market: what is listed, what to subscribe to, and earlier bars."""

import math
from collections.abc import Sequence
from datetime import date, timedelta

import structlog

from trading.data.massive.rest import RestClient
from trading.data.massive.stream import StreamClient
from trading.envs.catalogue import BUCKETS
from trading.envs.live_env import LiveEnv
from trading.envs.market_features import HISTORY_BARS
from trading.errors import DataError, NotEntitled, RestError
from trading.live.bar_clock import Bar
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.contracts import OptionContract
from trading.market.dividends import Dividend

log = structlog.get_logger(__name__)

_HORIZON_DAYS = max(bucket.max_days for bucket in BUCKETS)
_LOOK_BACK = timedelta(days=5)
_TYPICAL_VOL = 0.3
_DIVIDEND_HORIZON = timedelta(days=14)


class MarketDirectory:
    """Lists contracts by REST at each session's start and keeps the subscriptions in step.

    Parameters
    ----------
    rest, stream, env, calendar
        Where to ask, where to subscribe, what to fill, when sessions are.
    max_quote_contracts
        The vendor's limit of quote subscriptions for the connection; it is shared out evenly
        between the underlyings, and the contracts nearest the money are chosen.
    dividends
        Those of the underlyings; None asks the vendor for them at each session's start.
    """

    def __init__(
        self,
        rest: RestClient,
        stream: StreamClient,
        env: LiveEnv,
        calendar: ExchangeCalendar,
        max_quote_contracts: int,
        dividends: Sequence[Dividend] | None = None,
    ) -> None:
        self._rest = rest
        self._stream = stream
        self._env = env
        self._calendar = calendar
        self._quota = max_quote_contracts // len(env.symbols)
        self._dividends = dividends
        self._told_dividends: list[Dividend] = []
        self._subscribed: set[str] = set()
        self._opened = False

    def open_session(self, bar: Bar) -> None:
        """List the session's contracts and subscribe; the first time also warm up.

        Raises
        ------
        DataError
            An underlying has no listed options, or too many of them and no known price.
        """
        self._env.set_dividends(self._known_dividends(bar.session.date))
        self._env.begin_session(bar.session)
        for symbol in self._env.symbols:
            self._open_underlying(symbol, bar)
        names = {f"Q.{contract}" for contract in self._env.listed_symbols()}
        self._stream.unsubscribe("options", sorted(self._subscribed - names))
        self._stream.subscribe("options", sorted(names))
        self._stream.subscribe("stocks", [f"AM.{symbol}" for symbol in self._env.symbols])
        self._subscribed = names
        self._opened = True
        log.info("session listed", date=str(bar.session.date), contracts=len(names))

    def _known_dividends(self, today: date) -> Sequence[Dividend]:
        """Those since the last traded session and soon; untold ones stay what they were."""
        if self._dividends is not None:
            return self._dividends
        last = self._env.broker.account.last_session
        since = min(date.fromisoformat(last), today) if last else today
        try:
            self._told_dividends = [
                dividend
                for symbol in self._env.symbols
                for dividend in self._rest.dividends(symbol, since, today + _DIVIDEND_HORIZON)
            ]
        except (NotEntitled, RestError) as error:
            log.warning(
                "dividends are not known: calls may be assigned early unseen; name them in "
                "data.dividends",
                reason=str(error),
            )
        return self._told_dividends

    def _open_underlying(self, symbol: str, bar: Bar) -> None:
        if not self._opened:
            bars = self._earlier_bars(symbol, bar)
            self._env.warm_up(symbol, bars[-HISTORY_BARS:])
        today = bar.session.date
        listed = [
            each.contract
            for each in self._rest.option_contracts(symbol, as_of=today, expiry_from=today)
            if each.is_standard and not each.contract.is_adjusted
        ]
        if not listed:
            raise DataError(
                f"{symbol} has no listed options on {today}: check the symbol, the date and the "
                "data plan"
            )
        chosen = nearest_the_money(listed, self._env.spot(symbol), today, self._quota)
        self._env.list_contracts(symbol, chosen)
        if not self._opened:
            self._take_snapshot(symbol, chosen)

    def _earlier_bars(self, symbol: str, bar: Bar) -> list[StockBar]:
        """Minute bars of this session and the one before it that closed before `bar` began."""
        today = bar.session.date
        sessions = self._calendar.sessions(today - _LOOK_BACK, today)[-2:]
        try:
            bars = self._rest.aggregates(
                symbol, 1, "minute", sessions[0].open_ns, bar.end_ns - MINUTE_NS
            )
        except NotEntitled as error:
            log.warning("no earlier bars", underlying=symbol, reason=str(error))
            return []
        return [
            each
            for each in bars
            if each.start_ns + MINUTE_NS < bar.end_ns
            and any(s.open_ns <= each.start_ns < s.close_ns for s in sessions)
        ]

    def _take_snapshot(self, symbol: str, chosen: Sequence[OptionContract]) -> None:
        expiries = [contract.expiry for contract in chosen]
        strikes = [contract.strike for contract in chosen]
        try:
            snapshots = self._rest.option_chain_snapshot(
                symbol,
                expiry_from=min(expiries),
                expiry_to=max(expiries),
                strike_from=min(strikes),
                strike_to=max(strikes),
            )
        except NotEntitled as error:
            log.warning("no chain snapshot", underlying=symbol, reason=str(error))
            return
        for each in snapshots:
            if each.quote_ns > 0:
                self._env.apply_quote(
                    each.contract.symbol,
                    each.bid,
                    each.ask,
                    each.bid_size,
                    each.ask_size,
                    each.quote_ns,
                    sequence=0,
                )


def nearest_the_money(
    contracts: Sequence[OptionContract], spot: float, today: date, count: int
) -> list[OptionContract]:
    """The `count` contracts that matter most: tradable expiries first, then nearest the money.

    Distance from the money is counted in standard deviations at a typical volatility.

    Raises
    ------
    DataError
        A choice must be made but `spot` is NaN.
    """
    if len(contracts) <= count:
        return list(contracts)
    if math.isnan(spot):
        raise DataError(
            f"{contracts[0].underlying} lists {len(contracts)} contracts, {count} may be "
            "subscribed to, and its price is unknown: add a stock data plan, or raise "
            "data.max_quote_contracts"
        )

    def rank(contract: OptionContract) -> tuple[bool, float, str]:
        days = (contract.expiry - today).days
        deviation = _TYPICAL_VOL * math.sqrt((days + 1) / 365.0)
        distance = abs(math.log(contract.strike / spot)) / deviation
        return days > _HORIZON_DAYS, distance, contract.symbol

    return sorted(contracts, key=rank)[:count]
