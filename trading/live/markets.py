"""Reference data of the live market: what is listed, what to subscribe to, and earlier bars."""

import math
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from trading.data.admission import Refusal, quoted_until
from trading.data.massive.client.rest import ContractSnapshot, RestClient
from trading.data.massive.client.stream import StreamClient
from trading.envs.catalogue import BUCKETS
from trading.envs.live_env import LiveEnv
from trading.envs.market_features import HISTORY_BARS
from trading.errors import AuthenticationFailed, ContractError, DataError, NotEntitled, RestError
from trading.execution.catch_up import DELISTED
from trading.live.bar_clock import Bar
from trading.live.close_finder import CloseFinder
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.closes import OfficialClose
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.corporate_actions import CorporateAction, Delisting
from trading.market.dividends import Dividend
from trading.market.products import data_ticker, is_index

log = get_logger(__name__)

_HORIZON_DAYS = max(bucket.max_days for bucket in BUCKETS)
_LOOK_BACK = timedelta(days=5)
_TYPICAL_VOL = 0.3
_MOVED = 0.5 * _TYPICAL_VOL * math.sqrt(1.0 / 365.0)
"""Half a day's typical move, after which other contracts are near the money."""
_DIVIDEND_HORIZON = timedelta(days=14)
_TERM_YEARS = BUCKETS[-1].target_days / 365.0
_ASK_AGAIN_NS = 5 * MINUTE_NS
_LOOK_AGAIN_NS = MINUTE_NS
_ACTION_LOOK_BACK = timedelta(days=31)
"""So that an action that was moved is told with its new date only."""
_UNLISTED = "it cannot be listed"
_OF_ONE_SYMBOL = (DataError, ContractError)
"""What concerns the underlying that was asked for; a key that is refused concerns all."""


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
    actions
        Corporate actions that are known besides what the vendor tells at each session's start,
        and likewise `special_dividends`.
    closes
        Finds official closes; None where the tape that is played has them.
    treasury_yields
        Whether the risk-free rate is asked of the vendor at each session's start.
    calls_off
        Whether an action that was applied and is told no more is called off; a simulation that
        begins again knows nothing of those before.
    price_limits
        Whether price limits of stocks are subscribed to.
    """

    def __init__(
        self,
        rest: RestClient,
        stream: StreamClient,
        env: LiveEnv,
        calendar: ExchangeCalendar,
        max_quote_contracts: int,
        dividends: Sequence[Dividend] | None = None,
        actions: Sequence[CorporateAction] = (),
        closes: CloseFinder | None = None,
        special_dividends: Sequence[Dividend] = (),
        *,
        treasury_yields: bool = False,
        price_limits: bool = False,
        calls_off: bool = True,
    ) -> None:
        self._rest = rest
        self._stream = stream
        self._env = env
        self._calendar = calendar
        self._max_contracts = max_quote_contracts
        self._dividends = dividends
        self._told_dividends: list[Dividend] = []
        self._subscribed: set[str] = set()
        self._today = date.min
        self._ranked_at: dict[str, float] = {}
        """Price of each underlying when it was told last what is needed most."""
        self._needed_ranked: set[str] = set()
        self._opened = False
        self._asks_for_yields = treasury_yields
        self._warm: set[str] = set()
        """Underlyings whose earlier bars and first quotes the environment has."""
        self._left_out: dict[str, int] = {}
        """When each underlying could last not be listed."""
        self._asked: dict[str, Future[_Listing]] = {}
        self._asker: ThreadPoolExecutor | None = None
        self._actions = tuple(actions)
        self._special_dividends = tuple(special_dividends)
        self._takes_limits = price_limits
        self._calls_off = calls_off
        self._told_actions: dict[str, list[CorporateAction]] = {}
        self._delisted: set[str] = set()
        self._figi: dict[str, str] = {}
        """Which company each symbol was last of."""
        self._closes = closes
        self._found: Future[list[_Found]] | None = None
        self._looked_ns = 0
        """When closing prices were asked for last."""
        self._explained_ns = 0
        """When what explains a move was."""

    @property
    def _quota(self) -> int:
        return self._max_contracts // len(self._env.underlyings)

    def open_session(self, bar: Bar) -> None:
        """List the session's contracts and subscribe; the first time also warm up.

        An underlying that cannot be listed is suspended with the reason, keeps what was listed
        before, and is asked for again by `follow`: the others go on.

        Raises
        ------
        DataError
            At the start of a run nothing at all can be listed.
        """
        self._today = bar.session.date
        told = self._known_dividends(bar.session.date)
        self._env.set_dividends(with_named(told, self._special_dividends))
        self._tell_actions(bar.session.date)
        self._tell_roots(bar.session.date)
        if self._closes is not None:
            for found in self._find(self._env.wanted_closes(bar.session), bar.end_ns):
                self._env.tell_close(*found)
        self._env.begin_session(bar.session)
        if self._asks_for_yields:
            self._take_rate(bar.session.date)
        failures = {}
        for symbol in self._env.underlyings:
            try:
                self._take(self._look_up(symbol, bar), bar)
            except AuthenticationFailed:
                raise
            except _OF_ONE_SYMBOL as error:
                failures[symbol] = error
                self._leave_out(symbol, bar, error)
        if not self._opened and not self._env.listed_symbols() and failures:
            raise next(iter(failures.values()))
        self._subscribe()
        self._stream.opened(bar.session.date.isoformat())
        self._opened = True
        log.info(
            "session listed",
            date=str(bar.session.date),
            contracts=len(self._subscribed),
            left_out=sorted(failures),
        )

    def vendor_ns(self) -> int:
        """Return the vendor's clock, cut to a second; raises RestError when it does not answer."""
        return self._rest.clock_ns()

    def settle(self, now_ns: int) -> None:
        """Ask, now and then and beside the trading, for closing prices that something waits for."""
        if self._closes is None:
            return
        if self._found is not None:
            if not self._found.done():
                return
            found, self._found = self._found.result(), None
            for each in found:
                self._env.tell_close(*each)
            if found:
                self._env.settle_pending(now_ns)
        elif now_ns - self._looked_ns >= _LOOK_AGAIN_NS:
            self._looked_ns = now_ns
            wanted = self._env.awaited_closes(now_ns)
            if wanted:
                self._found = self._worker.submit(self._find, wanted, now_ns)

    @property
    def _worker(self) -> ThreadPoolExecutor:
        if self._asker is None:
            self._asker = ThreadPoolExecutor(1, thread_name_prefix="listing")
        return self._asker

    def _find(self, wanted: Sequence[tuple[str, date]], now_ns: int) -> "list[_Found]":
        """Return closing prices, those that are known by now; asks and changes nothing."""
        assert self._closes is not None
        found = []
        for symbol, day in wanted:
            close = self._closes.find(symbol, day, now_ns)
            if close is not None:
                found.append(_Found(symbol, day, close))
        return found

    def _tell_actions(self, today: date) -> None:
        """Those of the file and those that the vendor tells; untold ones stay what they were.

        Where the vendor answers, one that it told before and tells no more is called off.
        """
        since = self._env.open_since or today
        told_since = {}
        for symbol in self._env.underlyings:
            told: list[CorporateAction] = []
            try:
                told += self._rest.splits(
                    symbol, since - _ACTION_LOOK_BACK, today + _DIVIDEND_HORIZON
                )
                told += [
                    each
                    for each in self._rest.ticker_events(symbol)
                    if each.ex_date >= since - _ACTION_LOOK_BACK
                ]
            except AuthenticationFailed:
                raise
            except (NotEntitled, RestError) as error:
                log.warning(
                    "corporate actions are not known: a split would suspend; name them in "
                    "data.corporate_actions",
                    underlying=symbol,
                    reason=str(error),
                )
                continue
            try:
                told += self._left_or_gone(symbol, since, today)
            except AuthenticationFailed:
                raise
            except (NotEntitled, RestError) as error:
                log.warning(
                    "not known whether the company has this symbol still: name a change or a "
                    "delisting in data.corporate_actions",
                    underlying=symbol,
                    reason=str(error),
                )
            self._told_actions[symbol] = told
            if self._calls_off:
                told_since[symbol] = since - _ACTION_LOOK_BACK
        told_by_all = [each for told in self._told_actions.values() for each in told]
        self._env.set_actions([*self._actions, *told_by_all], told_since)

    def _left_or_gone(self, symbol: str, since: date, today: date) -> list[CorporateAction]:
        """Return the change by which a company gave up a symbol that is held, or its delisting.

        By its own symbol the vendor tells only what a company that has it now was called before:
        one that has another one now is found by its identifier.
        """
        now = self._rest.ticker_details(symbol, today)
        if symbol not in self._figi:
            then = now if since == today else self._rest.ticker_details(symbol, since)
            self._figi[symbol] = then.figi if then is not None else ""
        figi = self._figi[symbol]
        self._delisted.discard(symbol)
        if now is not None and now.delisted is not None:
            self._delisted.add(symbol)
            return [Delisting(symbol, now.delisted)]
        if not figi or (now is not None and now.figi in ("", figi)):
            return []
        first = since - _ACTION_LOOK_BACK
        changes = [each for each in self._rest.ticker_events(figi) if each.ex_date >= first]
        return [each for each in changes if each.ex_date <= today and each.underlying == symbol]

    def _tell_roots(self, today: date) -> None:
        """Find the roots that the exchange lists contracts under that an action adjusts now."""
        account = self._env.broker.account
        for symbol in sorted(self._env.adjusts_today(today)):
            held = {
                (contract.expiry, contract.right, contract.strike_milli)
                for name in self._env.held_symbols(symbol)
                if name.startswith("O:") and name not in account.deliverables
                for contract in [parse_symbol(name)]
            }
            try:
                listed = self._rest.option_contracts(symbol, as_of=today, expiry_from=today)
            except (NotEntitled, RestError) as error:
                log.warning("adjusted contracts not known", underlying=symbol, reason=str(error))
                continue
            roots = {
                each.contract.root
                for each in listed
                if each.contract.is_adjusted
                and (each.contract.expiry, each.contract.right, each.contract.strike_milli) in held
            }
            if len(roots) == 1:
                self._env.adjusted_roots[symbol] = roots.pop()

    def follow(self, bar: Bar) -> None:
        """Ask again, now and then and beside the trading, for what could not be listed.

        And for corporate actions, where nothing explains what an underlying does.
        """
        self._today = bar.session.date
        self._ask_what_explains(bar)
        self._tell_needs()
        for gone in {*self._left_out, *self._asked}.difference(self._env.underlyings):
            self._left_out.pop(gone, None)
            self._asked.pop(gone, None)
        for symbol, answer in list(self._asked.items()):
            if not answer.done():
                continue
            del self._asked[symbol]
            try:
                self._take(answer.result(), bar)
            except AuthenticationFailed:
                raise
            except _OF_ONE_SYMBOL as error:
                self._leave_out(symbol, bar, error)
            else:
                self._subscribe()
        for symbol, failed_ns in self._left_out.items():
            if symbol not in self._asked and bar.end_ns - failed_ns >= _ASK_AGAIN_NS:
                self._asked[symbol] = self._worker.submit(self._look_up, symbol, bar)

    def _ask_what_explains(self, bar: Bar) -> None:
        odd = [name for name in self._env.underlyings if self._env.is_unexplained(name)]
        if not odd or bar.end_ns - self._explained_ns < _ASK_AGAIN_NS:
            return
        self._explained_ns = bar.end_ns
        self._tell_actions(bar.session.date)
        self._tell_roots(bar.session.date)
        known = set(self._env.underlyings)
        self._env.begin_session(bar.session)
        for name in self._env.underlyings:
            if name not in known:
                self._left_out[name] = bar.end_ns - _ASK_AGAIN_NS
        for name in odd:
            if not self._env.is_unexplained(name):
                log.info("a corporate action explains the move", underlying=name)
                # What is held is another contract now: list it at the next bar.
                self._left_out[name] = bar.end_ns - _ASK_AGAIN_NS

    def _leave_out(self, symbol: str, bar: Bar, error: Exception) -> None:
        today = bar.session.date
        kept = [each for each in self._env.listed_contracts(symbol) if each.expiry >= today]
        self._env.list_contracts(symbol, kept)
        self._left_out[symbol] = bar.end_ns
        if not self._unlisted_reasons(symbol):
            # Said once: it is asked for again every few minutes.
            log.error(
                "underlying suspended: it cannot be listed", underlying=symbol, reason=str(error)
            )
            reason = f"{_UNLISTED}: {error}"
            self._env.broker.suspend(symbol, reason, self._event_ns(bar))

    def _unlisted_reasons(self, symbol: str) -> list[str]:
        reasons = self._env.broker.account.suspensions.get(symbol, [])
        return [each for each in reasons if each.startswith(_UNLISTED)]

    def _event_ns(self, bar: Bar) -> int:
        """No later than the bar that is being built, and not before what is written already."""
        return max(self._env.broker.account.last_ts_ns, bar.session.open_ns)

    def _subscribe(self) -> None:
        """Bring the subscriptions in step with what is listed."""
        ordered = self._by_need()
        names = set(ordered)
        self._stream.unsubscribe("options", sorted(self._subscribed - names))
        self._stream.subscribe(
            "options", [name for name in ordered if name not in self._subscribed]
        )
        # The price of an index is implied by its options: that needs no plan for indices.
        stocks = [name for name in self._env.underlyings if not is_index(name)]
        channels = ("AM", "LULD") if self._takes_limits else ("AM",)
        self._stream.subscribe("stocks", [f"{each}.{name}" for name in stocks for each in channels])
        self._subscribed = names

    def _by_need(self) -> list[str]:
        """Return the subscriptions of all that is listed: held or ordered, then what matters."""
        today = self._today
        needs: dict[str, tuple[bool, bool, float, str]] = {}
        for underlying in self._env.underlyings:
            spot = self._ranked_at[underlying] = self._env.spot(underlying)
            for contract in self._env.listed_contracts(underlying):
                needs[contract.symbol] = (True, *_need(contract, spot, today))
        for name in self._needed():
            needs[name] = (False, False, 0.0, name)
        listed = self._env.listed_symbols()
        # What was adjusted is listed because it is held.
        ordered = sorted(listed, key=lambda name: needs.get(name, (False, False, 0.0, name)))
        return [f"Q.{name}" for name in ordered]

    def _needed(self) -> set[str]:
        """Return the contracts that are held, and those of orders that wait."""
        return {
            name
            for underlying in self._env.underlyings
            for name in self._env.needed_symbols(underlying)
            if name.startswith("O:")
        }

    def _tell_needs(self) -> None:
        """Tell anew what is needed most: a price has moved, or other contracts are held or ordered.

        It decides whose quotes a feed carries that many read, see `trading.feed`.
        """
        needed = self._needed()
        moved = any(
            not abs(math.log(self._env.spot(name) / (self._ranked_at.get(name) or math.nan)))
            < _MOVED
            for name in self._env.underlyings
            if self._env.spot(name) > 0.0
        )
        if moved or needed != self._needed_ranked:
            self._needed_ranked = needed
            self._stream.rank("options", self._by_need())

    def _take_rate(self, today: date) -> None:
        """Read options with the newest yield of the options' term; without one, as before."""
        try:
            curve = self._rest.treasury_yields(today)
        except AuthenticationFailed:
            raise
        except DataError as error:
            log.warning(
                "treasury yields are not known: the rate stays", rate=self._env.rate, why=str(error)
            )
            return
        if curve is None:
            log.warning("the vendor has no treasury yields: the rate stays", rate=self._env.rate)
            return
        self._env.set_rate(curve.rate(_TERM_YEARS))

    def _known_dividends(self, today: date) -> Sequence[Dividend]:
        """Those since the last traded session and soon; untold ones stay what they were."""
        if self._dividends is not None:
            return self._dividends
        since = min(self._env.open_since or today, today)
        for symbol in self._env.underlyings:
            try:
                told = self._rest.dividends(symbol, since, today + _DIVIDEND_HORIZON)
            except (NotEntitled, RestError) as error:
                log.warning(
                    "dividends are not known: calls may be assigned early unseen; name them in "
                    "data.dividends",
                    underlying=symbol,
                    reason=str(error),
                )
                continue
            others = [each for each in self._told_dividends if each.underlying != symbol]
            self._told_dividends = [*others, *told]
        return self._told_dividends

    def _look_up(self, symbol: str, bar: Bar) -> "_Listing":
        """Return what may be opened of what the vendor lists; ask and change nothing.

        Raises
        ------
        DataError
            It has no listed options, too many of them and no known price, or the vendor refuses.
        """
        bars = [] if symbol in self._warm else self._earlier_bars(symbol, bar)
        bars = self._env.converted(symbol, bars, bar.session)
        today = bar.session.date
        all_listed = self._rest.option_contracts(symbol, as_of=today, expiry_from=today)
        listed = [
            each.contract
            for each in all_listed
            if each.is_standard and not each.contract.refusal and each.contract.is_on(symbol)
        ]
        if not listed:
            raise DataError(
                f"{symbol} has no listed options on {today}: check the symbol, the date and the "
                "data plan"
            )
        spot = bars[-1].close if bars else self._env.spot(symbol)
        needed = [each for each in self._env.needed_symbols(symbol) if each.startswith("O:")]
        room = self._quota - len(needed)
        if len(listed) > room and math.isnan(spot):
            spot = self._price_by_options(symbol, today)
        chosen = nearest_the_money(listed, spot, today, room)
        snapshots = [] if symbol in self._warm else self._snapshots(symbol, chosen)
        names = frozenset(each.contract.symbol for each in all_listed)
        return _Listing(symbol, bars, chosen, snapshots, names)

    def _take(self, listing: "_Listing", bar: Bar) -> None:
        """Let the environment trade what is listed."""
        symbol, bars, chosen, snapshots, listed = listing
        self._suspend_unlisted(symbol, listed, bar)
        if symbol not in self._warm:
            self._env.warm_up(symbol, bars[-HISTORY_BARS:])
        self._env.list_contracts(symbol, chosen)
        self._warm.add(symbol)
        quoted = [each for each in snapshots if each.quote_ns > 0]
        usable = not_ahead(quoted, bar.end_ns)
        self._env.refused.count(Refusal.AHEAD, len(quoted) - len(usable))
        for each in usable:
            self._env.apply_quote(each.quote)
        self._left_out.pop(symbol, None)
        lifted = self._unlisted_reasons(symbol)
        if symbol not in self._delisted:
            reasons = self._env.broker.account.suspensions.get(symbol, [])
            lifted += [each for each in reasons if each.startswith(DELISTED)]
        for reason in lifted:
            why = f"{len(chosen)} contracts are listed"
            self._env.broker.reinstate(symbol, why, self._event_ns(bar), lifts=reason)

    def _suspend_unlisted(self, symbol: str, listed: Collection[str], bar: Bar) -> None:
        """Suspend an underlying of which a contract is held that is gone before its expiry.

        Adjusted contracts are left out: not every source lists them.
        """
        gone = []
        for name in self._env.held_symbols(symbol):
            if name.startswith("O:") and name not in listed:
                contract = parse_symbol(name)
                if contract.expiry >= bar.session.date and not contract.is_adjusted:
                    gone.append(name)
        if gone:
            self._env.suspend_unlisted(symbol, gone, bar.session)

    def _price_by_options(self, symbol: str, today: date) -> float:
        """Price that the vendor names beside its chain, or that the nearest expiry implies."""
        chain = self._rest.option_chain_snapshot(data_ticker(symbol), expiry_from=today)
        told = [each.underlying_price for each in chain if each.underlying_price > 0.0]
        if told:
            return told[0]
        mids = {
            each.contract: 0.5 * (each.bid + each.ask)
            for each in chain
            if 0.0 < each.bid < each.ask
        }
        nearest = min((contract.expiry for contract in mids), default=None)
        differences = {
            contract.strike: mid - mids[put]
            for contract, mid in mids.items()
            if contract.expiry == nearest
            and contract.right is Right.CALL
            and (put := replace(contract, right=Right.PUT)) in mids
        }
        if not differences:
            return math.nan
        strike = min(differences, key=lambda each: abs(differences[each]))
        return strike + differences[strike]

    def _earlier_bars(self, symbol: str, bar: Bar) -> list[StockBar]:
        """Minute bars of this session and the one before it that closed before `bar` began."""
        today = bar.session.date
        sessions = self._calendar.sessions(today - _LOOK_BACK, today)[-2:]
        try:
            bars = self._rest.aggregates(
                data_ticker(symbol), 1, "minute", sessions[0].open_ns, bar.end_ns - MINUTE_NS
            )
        except (NotEntitled, RestError) as error:
            log.warning("no earlier bars", underlying=symbol, reason=str(error))
            return []
        return [
            each
            for each in bars
            if each.start_ns + MINUTE_NS < bar.end_ns
            and any(s.open_ns <= each.start_ns < s.close_ns for s in sessions)
        ]

    def _snapshots(
        self, symbol: str, chosen: Sequence[OptionContract]
    ) -> Sequence[ContractSnapshot]:
        expiries = [contract.expiry for contract in chosen]
        strikes = [contract.strike for contract in chosen]
        try:
            return self._rest.option_chain_snapshot(
                data_ticker(symbol),
                expiry_from=min(expiries),
                expiry_to=max(expiries),
                strike_from=min(strikes),
                strike_to=max(strikes),
            )
        except (NotEntitled, RestError) as error:
            log.warning("no chain snapshot", underlying=symbol, reason=str(error))
            return ()


class _Listing(NamedTuple):
    """What the vendor told of an underlying."""

    symbol: str
    bars: Sequence[StockBar]
    """Closed before trading starts, oldest first; empty once the environment has them."""
    chosen: Sequence[OptionContract]
    snapshots: Sequence[ContractSnapshot]
    listed: Collection[str]
    """Symbols of all contracts, adjusted and not chosen ones too."""


class _Found(NamedTuple):
    """A closing price that was found."""

    symbol: str
    day: date
    close: OfficialClose


def with_named(told: Sequence[Dividend], named: Sequence[Dividend]) -> list[Dividend]:
    """Dividends that a source tells and special ones that the owner names besides.

    One that is named is not paid again where the source tells it too, as a regular one perhaps.
    """
    known = [replace(each, special=False) for each in named]
    return [*(each for each in told if replace(each, special=False) not in known), *named]


def not_ahead(quoted: Sequence[ContractSnapshot], end_ns: int) -> list[ContractSnapshot]:
    """Return the snapshots that are not dated ahead: one that is keeps all until then out."""
    until_ns = quoted_until(np.array([each.quote_ns for each in quoted], np.int64), end_ns)
    return [each for each in quoted if each.quote_ns <= until_ns]


def nearest_the_money(
    contracts: Sequence[OptionContract], spot: float, today: date, count: int
) -> list[OptionContract]:
    """Return the `count` contracts that matter most.

    Tradable expiries first, then nearest the money.

    Distance from the money is counted in standard deviations at a typical volatility.

    Raises
    ------
    DataError
        A choice must be made but `spot` is NaN.
    """
    if len(contracts) <= count:
        return list(contracts)
    if count < 2:
        raise DataError(
            f"{contracts[0].underlying} is left {max(count, 0)} of the quote subscriptions: raise "
            "data.max_quote_contracts, or trade fewer symbols"
        )
    if math.isnan(spot):
        raise DataError(
            f"{contracts[0].underlying} lists {len(contracts)} contracts, {count} may be "
            "subscribed to, and its price is unknown: add a stock data plan, or raise "
            "data.max_quote_contracts"
        )

    return sorted(contracts, key=lambda contract: _need(contract, spot, today))[:count]


def _need(contract: OptionContract, spot: float, today: date) -> tuple[bool, float, str]:
    """How much a contract matters, the lowest most; without a price only by its expiry."""
    days = (contract.expiry - today).days
    deviation = _TYPICAL_VOL * math.sqrt((max(days, 0) + 1) / 365.0)
    distance = abs(math.log(contract.strike / spot)) / deviation if spot > 0.0 else math.inf
    return days > _HORIZON_DAYS, distance, contract.symbol
