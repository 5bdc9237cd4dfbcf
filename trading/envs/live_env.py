"""One live market as an environment: chains and bars in, observations and orders out.

It knows exchange time only, and only what it is told; whether a socket, a recording or a test
tells it makes no difference. The kernels are those of the vectorised environment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading.data.admission import Bands, Refusal, Refusals, is_price
from trading.envs.account_view import (
    AccountViews,
    cap_openings,
    empty_balances,
    empty_views,
    keep_greeks,
    legs_greeks,
    no_holdings,
    observe_accounts,
    unit_greeks,
)
from trading.envs.action_tables import action_tables
from trading.envs.adjusted_contracts import (
    NO_QUOTE,
    AdjustedContracts,
    adjusted_greeks,
    nearest_volatility,
)
from trading.envs.catalogue import CLOSE, HOLD, MAX_LEGS, action_names
from trading.envs.features import shown_last
from trading.envs.held_greeks import UNKNOWN, GreeksSource, HeldGreeks, Sensitivities
from trading.envs.market_features import F32
from trading.envs.own_features import OwnFeatures, copy_own, own_count
from trading.envs.rewards import RewardRule, largest_reward, reward_of
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.shared_accounts import show_others
from trading.envs.size_levels import of_full_size
from trading.envs.structures import all_actions
from trading.envs.underlying import UnderlyingMarket
from trading.envs.working_orders import (
    is_working,
    no_orders,
    observe_orders,
    replaces,
)
from trading.execution.broker import PaperBroker
from trading.execution.catch_up import (
    MAX_GAP,
    KnownEvents,
    catch_up,
    is_a_gap,
    pending,
    settle_expired,
    suspend_unexplained,
    unexplained_since,
    value_when_settled,
    wanted_closes,
)
from trading.execution.exposure import Greeks, usd_greeks
from trading.execution.fees import FeeSchedule
from trading.execution.holdings import StrategyPosition, WorkingOrder
from trading.execution.legs import is_stock
from trading.execution.orders import (
    Fill,
    Intent,
    Leg,
    Order,
    QuoteView,
    Rejection,
    RejectReason,
)
from trading.execution.states import Cause, TradingState
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.chain import F64, I64, tradable_share
from trading.market.closes import CloseSource, OfficialClose
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.corporate_actions import (
    ActionKind,
    CorporateAction,
    Rename,
    action_id,
    bars_after,
    in_order,
    price_factor,
    renames,
)
from trading.market.dividends import Dividend
from trading.market.option_quote import OptionQuote
from trading.market.pricing import YEAR_NS

log = get_logger(__name__)


class TimeStep(NamedTuple):
    """What a closed bar shows of the U underlyings."""

    observations: F32
    """[U, F]"""
    action_mask: NDArray[np.bool_]
    """[U, N]"""
    rewards: F32
    """[U], since the bar before."""


HALTED_STOCK = "its stock is halted or at its price limit"


class PriceLimits(NamedTuple):
    """Between which prices a stock may trade, USD, told at `ts_ns`; 0 where there is none."""

    low: float
    high: float
    halted: bool
    ts_ns: int = 0

    def stop(self, price: float) -> bool:
        """Return whether trading at a price has come to a halt."""
        at_limit = 0.0 < self.low < self.high and not self.low < price < self.high
        return self.halted or (at_limit and price > 0.0)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What became of one action."""

    action: int
    masked: bool
    """The action was not allowed and became a hold."""
    result: Fill | Rejection | None = None
    ordered: int | None = None
    """The action that the order came from which filled or waits, where that is an earlier one."""
    waits: str = ""
    """The order that works on."""


class Worked(NamedTuple):
    """What an order that waited filled, and the action that it came from."""

    action: int
    fill: Fill


class LiveEnv:
    """The markets of one trading account.

    Parameters
    ----------
    symbols
        The underlyings that are traded. Those that the account holds besides, since its owner took
        them out of `symbols`, follow: they are winding down, which leaves holding and closing.
    rules, fees
        As in training.
    calendar
        Tells when contracts expire.
    broker
        Owns the account; every order goes through it.
    dividends
        Of the underlyings: who holds stock is paid them, and calls may be assigned before them.
    actions
        Corporate actions of the underlyings: they convert what is held, and bars of before them.
    official_closes
        Whether contracts settle only at closing prices that `tell_close` told. Otherwise the last
        price of the session is the official one, as on a tape that is played.
    max_gap
        Share of its price that an underlying may move from one session to the next without an
        action, before it is suspended.
    bands
        How far prices may lie from what their chain implies before they are kept apart.
    reward
        What turns the rewards of the rules into others, as in training; None: nothing.
    features
        Those of a user's own that observations end with, as in training; None: none.

    Attributes
    ----------
    refused : Refusals
        How many events were not taken over, by reason.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        rules: TradingRules,
        fees: FeeSchedule,
        calendar: ExchangeCalendar,
        broker: PaperBroker,
        dividends: Iterable[Dividend] = (),
        actions: Iterable[CorporateAction] = (),
        official_closes: bool = False,
        max_gap: float = MAX_GAP,
        bands: Bands | None = None,
        reward: RewardRule | None = None,
        features: OwnFeatures | None = None,
    ) -> None:
        self.broker = broker
        self.winding_down: frozenset[str] = frozenset()
        """Underlyings that only close."""
        self._rules, self._calendar = rules.numbers, calendar
        self._structures = rules.structures
        self._catalogue = all_actions(rules.structures)
        self._ratios = action_tables(rules.structures).ratio
        self._fees, self._bands = fees, bands
        self._own_reward, self._own_features = reward, features
        self.refused = Refusals()
        self.rate = rules.rate
        """Risk-free rate that options are read with, a year."""
        self._greeks = HeldGreeks()
        self._now_ns = 0
        """When the last bar closed."""
        self._markets: dict[str, UnderlyingMarket] = {}
        self._contracts: dict[str, tuple[UnderlyingMarket, int]] = {}
        self._profit: dict[str, float] = {}
        self._adjusted = AdjustedContracts()
        self._official_closes, self._max_gap = official_closes, max_gap
        self._closes: dict[tuple[str, date], OfficialClose] = {}
        self._session: Session | None = None
        self._caught_up: set[tuple[str, str]] = set()
        """Reinstated underlyings for which what was held back, and since when, was done."""
        self._references: dict[str, float] = {}
        """Prices that the first ones of the session are held against."""
        self._begun: dict[str, date] = {}
        """The last session that each market was told of."""
        self._converted: dict[str, tuple[str, float, int]] = {}
        """Actions that bars and prices were converted for: their terms, factor and first open."""
        self.price_factors: list[tuple[str, float, int]] = []
        """What bars of an underlying up to a time were multiplied with when the session began."""
        self.halt_indicators: frozenset[int] = frozenset()
        """Indicators of price bands that say that a stock is halted."""
        self._price_bands: dict[str, PriceLimits] = {}
        self.adjusted_roots: dict[str, str] = {}
        """Roots that the exchange lists adjusted contracts under, where they are known."""
        self._configured = frozenset(symbols)
        self._include(self._as_called_now(symbols))
        self._include_held()
        self.symbols = self.underlyings
        """The U underlyings that are decided on, in the order of every [U] array.

        A company that is renamed while it is traded keeps its place under its new symbol.
        """
        self.closes_winding_down = True
        """Whether what winds down is closed at the next bars; otherwise the agent may hold it."""
        self.set_dividends(dividends)
        self.set_actions(actions)
        self.closed: list[Fill] = []
        """What was closed by the owner's word at the last bar."""
        self.unclosed: dict[str, str] = {}
        """Why what the owner wants closed was not, by underlying."""
        self.worked: dict[str, Worked] = {}
        """What orders that waited filled at the last bar, by underlying."""
        self._over: frozenset[str] = frozenset()
        """Underlyings whose order came to its limit at the last bar and was cancelled there."""
        count = len(self.symbols)
        self._holdings = no_holdings(count)
        self._balances = empty_balances(count)
        self._shows_others = rules.underlyings_per_account > 1
        added = own_count(features)
        added += len(shown_last(rules.underlyings_per_account, is_working(rules)))
        shape = (count, rules.size_levels, added, len(self._catalogue))
        self._views = empty_views(*shape)
        self._spare = empty_views(*shape)
        """Where an underlying is looked at again after another one has traded."""
        whole, sizes = len(self._catalogue), range(self._views.units.shape[1])
        self._full_size = np.array([of_full_size(a, whole) for a in sizes])
        """The action of full size that each action is a part of, or is."""
        self._orders = no_orders(count)
        self._snapshot_of = np.zeros(count, dtype=np.int64)
        self._shown: dict[int, tuple[int, tuple[str, ...]]] = {}
        """Whose greeks each row of the holdings keeps: when it was opened, and its legs."""
        self._at_opening: dict[str, F64] = {}
        """Greeks of contracts when they were bought or sold, and the underlying's price then."""

    @property
    def underlyings(self) -> tuple[str, ...]:
        """All that are listed and marked: `symbols`, and what the account came to hold since."""
        return tuple(self._markets)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Of every action, in the order of the mask."""
        return action_names(self._views.mask.shape[1], self._catalogue)

    def set_rate(self, rate: float) -> None:
        """Read options with another risk-free rate from here on, see `TradingRules.rate`."""
        self.rate = rate
        for market in self._markets.values():
            market.rate = rate

    def _include(self, symbols: Iterable[str]) -> None:
        account = self.broker.account
        for symbol in symbols:
            self._markets[symbol] = UnderlyingMarket(
                symbol,
                self._rules._replace(structures=self._structures),
                self._fees,
                self._bands,
                self.refused,
                self._own_features,
            )
            self._markets[symbol].rate = self.rate
            self._contracts[symbol] = (self._markets[symbol], STOCK_LEG)
            # Of an older journal it is not known what the last reward was given for.
            unknown = float("nan") if symbol in account.last_decision_ns else 0.0
            self._profit[symbol] = account.rewarded_profit.get(symbol, unknown)

    def _as_called_now(self, symbols: Sequence[str]) -> list[str]:
        """Symbols, those of companies that are held under another one since by that."""
        account = self.broker.account
        called = dict(renames(account.actions))
        names = []
        for symbol in symbols:
            seen, name = {symbol}, symbol
            while name not in account.strategies and called.get(name, name) not in seen:
                name = called[name]
                seen.add(name)
            follows = name in account.strategies and name not in symbols
            names.append(name if follows else symbol)
        return names

    def _go_on_as(self, before: str, after: str) -> None:
        """Let a company trade under its new symbol, in the same place of every [U] array."""
        if after not in self._markets:
            self._include([after])
        self._markets[after].succeed(self._markets[before])
        self._references[after] = self._references.pop(before, float("nan"))
        self._unlist(self._markets[after])
        if self.held_symbols(before) or before not in self.symbols or after in self.symbols:
            return
        self.symbols = tuple(after if each == before else each for each in self.symbols)
        self.winding_down -= {after}
        if before in self.winding_down:
            self.winding_down = self.winding_down - {before} | {after}
        # What the old symbol made since its last reward is for the next one.
        earned = self.broker.account.contribution(before, {})
        self._profit[after] += self._profit.pop(before) - earned
        self._price_bands.pop(before, None)
        del self._markets[before]
        for symbol in [name for name, (at, _) in self._contracts.items() if at.symbol == before]:
            del self._contracts[symbol]
        log.warning("a company is renamed: name it so in symbols", before=before, after=after)

    def _follow_renames(self, session: Session) -> None:
        """Follow companies of which nothing is held as well."""
        for action in self.known.all_actions():
            begun = self._begun.get(action.underlying)
            if (
                isinstance(action, Rename)
                and begun is not None
                and begun <= action.ex_date <= session.date
                and action.underlying in self._markets
                and not self.held_symbols(action.underlying)
            ):
                self._go_on_as(action.underlying, action.new_symbol)

    def _include_held(self) -> None:
        """Let what is held or ordered beyond the traded underlyings wind down."""
        account = self.broker.account
        waiting = {each.order.underlying: None for each in account.working_orders.values()}
        extra = [name for name in {**account.strategies, **waiting} if name not in self._markets]
        if extra:
            self.winding_down |= set(extra) - self._configured
            self._include(extra)

    def set_rules(self, rules: TradingRules) -> None:
        """Trade by other rules from the next bar on; capital, actions and observations stay."""
        own = self._rules
        self._rules = rules.numbers._replace(
            initial_capital=own.initial_capital,
            size_levels=own.size_levels,
            underlyings_per_account=own.underlyings_per_account,
        )
        for market in self._markets.values():
            market.set_rules(self._rules)

    def set_dividends(self, dividends: Iterable[Dividend]) -> None:
        """Replace the dividends that are known; those of other underlyings are left out."""
        self._dividends = tuple(each for each in dividends if each.underlying in self._markets)

    def set_actions(
        self,
        actions: Iterable[CorporateAction],
        told_since: Mapping[str, date] | None = None,
    ) -> None:
        """Replace the corporate actions that are known; `told_since` as in `KnownEvents`."""
        self._actions = tuple(in_order(actions))
        self._told_since = dict(told_since or {})

    def tell_close(self, symbol: str, day: date, close: OfficialClose) -> None:
        """Let a closing price be known: an official one takes the place of any other.

        What can be no price is told in the log and not taken: nothing settles at it.
        """
        if not is_price(close.price):
            log.warning("a close is no price", symbol=symbol, date=str(day), price=close.price)
            return
        known = self._closes.get((symbol, day))
        if known is None or known.source is not CloseSource.OFFICIAL:
            self._closes[symbol, day] = close

    @property
    def known(self) -> KnownEvents:
        """What was told, for what falls due."""
        return KnownEvents(
            self._dividends,
            self._actions,
            self._closes,
            self.adjusted_roots,
            self._max_gap,
            self._told_since,
        )

    def wanted_closes(self, session: Session) -> list[tuple[str, date]]:
        """Return closing prices that are missing to bring the account to the open of `session`."""
        wanted = wanted_closes(self.broker.account, self._calendar, self.known, session)
        return [each for each in wanted if each not in self._closes]

    def awaited_closes(self, now_ns: int) -> list[tuple[str, date]]:
        """Return closing prices that something which has expired waits for."""
        late = pending(self.broker.account, self._calendar, now_ns + 1)
        return [
            (underlying, day)
            for underlying, days in late.items()
            for day in days
            if (underlying, day) not in self._closes
        ]

    @property
    def open_since(self) -> date | None:
        """The session from which on something may still have to be done."""
        account = self.broker.account
        late = pending(account, self._calendar, account.last_ts_ns + 1)
        days = [day for each in late.values() for day in each]
        days += [date.fromisoformat(since) for since in account.held_back.values()]
        if account.last_session:
            days.append(date.fromisoformat(account.last_session))
        return min(days, default=None)

    @property
    def pending_settlements(self) -> int:
        """Held contracts that expired before the session, or before the account's last event."""
        account = self.broker.account
        before_ns = max(account.last_ts_ns, self._session.open_ns if self._session else 0)
        late = pending(account, self._calendar, before_ns)
        return sum(len(symbols) for days in late.values() for symbols in days.values())

    def is_unexplained(self, underlying: str) -> bool:
        """Return whether an underlying is suspended because no corporate action explains it."""
        return unexplained_since(self.broker.account, underlying) is not None

    def adjusts_today(self, today: date) -> set[str]:
        """Underlyings with held options that an action may adjust when a session begins."""
        account = self.broker.account
        return {
            each.underlying
            for each in self.known.all_actions()
            if each.ex_date <= today
            and action_id(each) not in account.actions
            and any(name.startswith("O:") for name in self.held_symbols(each.underlying))
        }

    def converted(
        self, underlying: str, bars: Iterable[StockBar], session: Session
    ) -> list[StockBar]:
        """Bars of before corporate actions in the prices of after them, those up to `session`."""
        actions = self.known.all_actions()
        return bars_after(bars, underlying, actions, self._calendar, session.date)

    def begin_session(self, session: Session) -> None:
        """Bring the account to the open of a session, and forget the sequence numbers of quotes.

        All sessions since the last one that was closed are gone through, see `catch_up`: what
        expired, dividends, corporate actions. The numbers start over with each session. Calling it
        again in a session changes nothing, unless more is known. What waits to open on an
        underlying that winds down is cancelled.
        """
        self._include_held()
        now_ns = max(session.open_ns, self.broker.account.last_ts_ns)
        for order_id, waiting in list(self.broker.account.working_orders.items()):
            order = waiting.order
            if order.underlying in self.winding_down and order.intent is Intent.OPEN:
                why = f"{order.underlying} is traded no more: it is not in symbols"
                self.broker.cancel(order_id, now_ns, why)
        another = self._session is not None and self._session.date != session.date
        # At a start within a session what was halted in it is, until the stream says otherwise.
        if another or self.broker.account.last_ts_ns < session.open_ns:
            self._price_bands.clear()
            for underlying in list(self.broker.account.suspensions):
                why, now_ns = "a new session begins", session.open_ns
                self.broker.reinstate(underlying, why, now_ns, lifts=HALTED_STOCK)
        self._session = session
        self._end_daily_loss(session)
        self._catch_up(session)
        self._expire_orders(session)
        self._follow_renames(session)
        for market in self._markets.values():
            market.begin_session()
        self._convert_markets(session)
        self._adjusted.begin_session()

    def _end_daily_loss(self, session: Session) -> None:
        """End the halt of a day whose close nobody saw: it lasts for its own session."""
        halt = self.broker.account.restrictions.get(Cause.DAILY_LOSS)
        if halt is not None and halt.since_ns < session.open_ns:
            why = "its session is over"
            self.broker.record(self.broker.ending([Cause.DAILY_LOSS], why, session.open_ns))

    def _expire_orders(self, session: Session) -> None:
        """Cancel orders of a day whose close nobody saw: they were for their own session.

        Also those that worked, where the style of fills is another one since: nothing steps them.
        """
        now_ns = max(session.open_ns, self.broker.account.last_ts_ns)
        for order_id, waiting in list(self.broker.account.working_orders.items()):
            if waiting.order.ts_ns < session.open_ns:
                self.broker.cancel(order_id, now_ns, "expired")
            elif waiting.order.leg_limits and not is_working(self._rules):
                self.broker.cancel(order_id, now_ns, "execution.style is no longer working")

    def _catch_up(self, session: Session) -> None:
        """Do what has fallen due up to the open of `session`, as far as it is known."""
        self.broker.marks.update(self.marks())
        applied = catch_up(self.broker, self._calendar, self.known, session)
        self._include_held()
        for event in applied:
            for each in event.converted:
                self._contracts.pop(each.symbol, None)
            if event.what is ActionKind.RENAME and event.underlying in self._markets:
                self._go_on_as(event.underlying, event.after)
        for symbol, market in self._markets.items():
            self._contracts[symbol] = (market, STOCK_LEG)
        self._adjusted.keep(self.broker.account.deliverables)

    def _do_what_was_held_back(self) -> None:
        """Do what fell due on an underlying that its owner has reinstated, before it trades."""
        account = self.broker.account
        explained = {
            (name, since)
            for name, since in account.held_back.items()
            if unexplained_since(account, name) is None
        }
        if self._session is not None and explained - self._caught_up:
            self._catch_up(self._session)
        self._caught_up = explained

    def _convert_markets(self, session: Session) -> None:
        """Convert bars and prices of before the actions that took effect since the last session."""
        self.price_factors = []
        for underlying, market in self._markets.items():
            before = self._begun.get(underlying)
            self._begun[underlying] = session.date
            self._turn_back(market, session)
            for action in self.known.all_actions():
                if action.underlying != underlying or action.ex_date > session.date:
                    continue
                if action_id(action) in self._converted:
                    continue
                # What a market is warmed up with at first was converted already.
                if before is None:
                    self._converted[action_id(action)] = (action.terms, 1.0, 0)
                elif not self._is_undone(action):
                    self._convert_market(market, action, before, session)

    def _is_undone(self, action: CorporateAction) -> bool:
        """Return whether an action is not the one that was applied.

        Told with other terms, or moved.
        """
        applied = self.broker.account.actions
        prefix = f"{action.underlying}/{action.kind}/"
        told = {action_id(each) for each in self.known.all_actions()}
        moved = any(
            name.startswith(prefix) and name not in told and terms == action.terms
            for name, (terms, _) in applied.items()
        )
        return moved or unexplained_since(self.broker.account, action.underlying) is not None

    def _convert_market(
        self, market: UnderlyingMarket, action: CorporateAction, before: date, session: Session
    ) -> None:
        underlying = market.symbol
        reference = self._references.get(underlying, float("nan"))
        price = market.spot if np.isnan(reference) else reference
        factor = price_factor([action], price)
        first = self._calendar.next_session(action.ex_date - timedelta(days=1))
        self._converted[action_id(action)] = (action.terms, factor, first.open_ns)
        if factor == 1.0:
            return
        if action.ex_date > before or before == session.date == action.ex_date:
            self._references[underlying] = reference * factor
        self._rescale(market, factor, first.open_ns)

    def _turn_back(self, market: UnderlyingMarket, session: Session) -> None:
        """Take the conversion back for an action that is called off or told otherwise since."""
        told = {(action_id(each), each.terms) for each in self.known.all_actions()}
        prefix = f"{market.symbol}/{ActionKind.SPLIT}/"
        since = self._told_since.get(market.symbol)
        for name, (terms, factor, open_ns) in list(self._converted.items()):
            if not name.startswith(prefix) or (name, terms) in told:
                continue
            is_told_otherwise = any(name == each for each, _ in told)
            ex_date = date.fromisoformat(name.removeprefix(prefix))
            if is_told_otherwise or (since is not None and since <= ex_date):
                del self._converted[name]
                if factor != 1.0:
                    if market.symbol in self._references and ex_date >= session.date:
                        self._references[market.symbol] /= factor
                    self._rescale(market, 1.0 / factor, open_ns)

    def _rescale(self, market: UnderlyingMarket, factor: float, open_ns: int) -> None:
        market.rescale(factor, open_ns)
        self.price_factors.append((market.symbol, factor, open_ns))
        self._unlist(market)

    def _unlist(self, market: UnderlyingMarket) -> None:
        """Forget the contracts of a market whose chain began anew."""
        for symbol in [each for each, (at, _) in self._contracts.items() if at is market]:
            if symbol != market.symbol:
                del self._contracts[symbol]

    def list_contracts(self, underlying: str, contracts: Iterable[OptionContract]) -> None:
        """Set what is listed; quotes of contracts listed before are kept.

        What is held stays listed, and so do the legs of an order that waits. A contract on
        something else is left out, and told in the log: it costs only itself.
        """
        told = list(contracts)
        listed = {c.symbol: c for c in told if c.is_on(underlying) and not c.is_adjusted}
        kept = [
            symbol
            for symbol in self.needed_symbols(underlying)
            if not is_stock(symbol) and symbol not in self._adjusted
        ]
        others = [c.symbol for c in told if not c.is_on(underlying) and c.symbol not in kept]
        if others:
            log.warning(
                "contracts on something else are left out",
                underlying=underlying,
                contracts=len(others),
                first=others[0],
            )
        for symbol in kept:
            listed.setdefault(symbol, parse_symbol(symbol))
        market = self._markets[underlying]
        for symbol in market.chain.symbols:
            self._contracts.pop(symbol, None)
        market.list_contracts(listed.values(), self._calendar.expiry_ns, kept)
        for symbol, i in market.chain.index.items():
            self._contracts[symbol] = (market, i)
        mark, positions = market.chain.columns.mark, self.broker.account.positions
        for symbol in kept:
            i = market.chain.index[symbol]
            if symbol in positions and np.isnan(mark[i]):
                # Until it is quoted, a position is worth what it was last, or what was paid for it.
                mark[i] = self.broker.last_mark(positions[symbol])

    def listed_symbols(self, underlying: str | None = None) -> list[str]:
        """Every listed contract, underlying by underlying; or those of one."""
        chosen = self.underlyings if underlying is None else (underlying,)
        listed = [s for symbol in chosen for s in self._markets[symbol].chain.symbols]
        positions = self.broker.account.positions
        adjusted = [
            symbol
            for symbol in self.broker.account.deliverables
            if symbol in self._adjusted and positions[symbol].underlying in chosen
        ]
        return listed + adjusted

    def listed_contracts(self, underlying: str) -> list[OptionContract]:
        """Return what is listed of one underlying."""
        return list(self._markets[underlying].chain.contracts)

    def spot(self, underlying: str) -> float:
        """Last known price of an underlying, NaN before the first."""
        return self._markets[underlying].spot

    def expiry_ns(self, symbol: str) -> int:
        """When a contract ceases to trade, UTC nanoseconds; 0 for a stock."""
        if is_stock(symbol):
            return 0
        contract = parse_symbol(symbol)
        return self._calendar.expiry_ns(contract.expiry, contract.root)

    def listed_in(self, symbol: str) -> tuple[UnderlyingMarket, int] | None:
        """Return the market that lists a symbol and its column, or `STOCK_LEG`; else None."""
        return self._contracts.get(symbol)

    def market(self, underlying: str) -> UnderlyingMarket:
        """Return the market of an underlying, to look at."""
        return self._markets[underlying]

    def held_symbols(self, underlying: str) -> list[str]:
        """Return what the open strategy on an underlying holds.

        Contracts, and the stock by its ticker.
        """
        strategy = self.broker.account.strategies.get(underlying)
        return [leg.symbol for leg in strategy.legs] if strategy else []

    def needed_symbols(self, underlying: str) -> list[str]:
        """Return what is held on an underlying, then what an order that waits is to trade."""
        waiting = self.broker.waiting_on(underlying)
        ordered = [leg.symbol for leg in waiting.order.legs] if waiting is not None else []
        return list(dict.fromkeys([*self.held_symbols(underlying), *ordered]))

    def apply_quote(self, quote: OptionQuote) -> bool:
        """Take over a quote; False when it is refused."""
        listed = self._contracts.get(quote.symbol)
        if listed is None and quote.symbol in self._adjusted:
            return self._apply_adjusted(quote)
        if listed is None or listed[1] == STOCK_LEG:
            self.refused.count(Refusal.UNKNOWN_CONTRACT)
            return False
        market, i = listed
        return market.apply_quote(i, quote)

    def _apply_adjusted(self, quote: OptionQuote) -> bool:
        account, symbol = self.broker.account, quote.symbol
        position = account.positions.get(symbol)
        if position is None:  # It was closed since the session began.
            self.refused.count(Refusal.UNKNOWN_CONTRACT)
            return False
        spot = self._markets[position.underlying].spot
        delivered = account.deliverables[symbol]
        shares = delivered.shares / account.multiplier
        percent = (self._bands or Bands()).percent / 100.0
        unit = percent * shares * spot if np.isfinite(spot) else 0.0
        worth = self.broker.last_mark(position)
        contract = parse_symbol(symbol)
        # No call is worth more than what it delivers, no put more than its strike.
        most = contract.strike
        if contract.right is Right.CALL:
            value = delivered.value(spot) / account.multiplier
            most = value if np.isfinite(value) else np.inf
        refusal = self._adjusted.apply_quote(quote, worth, unit, most)
        if refusal is not None:
            self.refused.count(refusal)
        return refusal is None

    def apply_bar(self, bar: StockBar) -> bool:
        """Take over an aggregate of an underlying; False when it is refused or not traded here."""
        market = self._markets.get(bar.symbol)
        return market is not None and market.apply_bar(bar)

    def apply_band(
        self, symbol: str, low: float, high: float, indicators: Sequence[int], ts_ns: int
    ) -> bool:
        """Take over between which prices a stock may trade; False when refused or not traded here.

        A stock that is halted, or whose price has come to its limit, is suspended until it trades
        between its limits again.
        """
        if symbol not in self._markets:
            return False
        known = self._price_bands.get(symbol)
        if known is not None and ts_ns < known.ts_ns:
            self.refused.count(Refusal.OLDER)
            return False
        halted = not self.halt_indicators.isdisjoint(indicators)
        self._price_bands[symbol] = PriceLimits(low, high, halted, ts_ns)
        self._suspend_halted(ts_ns)
        return True

    def _suspend_halted(self, now_ns: int) -> None:
        now_ns = max(now_ns, self.broker.account.last_ts_ns)
        for underlying, limits in self._price_bands.items():
            spot = self._markets[underlying].spot
            if limits.stop(spot):
                self.broker.suspend(underlying, HALTED_STOCK, now_ns)
            else:
                why = "it trades between its limits"
                self.broker.reinstate(underlying, why, now_ns, lifts=HALTED_STOCK)

    def warm_up(self, underlying: str, bars: Iterable[StockBar]) -> None:
        """Fill the bar history from bars that closed before trading starts, oldest first."""
        told = list(bars)
        self._markets[underlying].warm_up(told)
        before = [
            each.close
            for each in told
            if self._session is None or each.start_ns < self._session.open_ns
        ]
        if before and underlying not in self._references:
            self._references[underlying] = before[-1]

    def warm_up_kernels(self, bar_end_ns: int, session: Session) -> None:
        """Compute what a decision needs and drop it, so that no compiler runs while trading."""
        for market in self._markets.values():
            market.refresh(bar_end_ns)
            market.show(bar_end_ns, session)
            if len(market.chain):
                age = self._rules.max_quote_age_ns
                HeldGreeks().of("", market.quotes, 0, market.spot, bar_end_ns, age)
        self._observe()
        self._rewards(np.zeros(len(self.symbols)), 0.0, np.arange(len(self.symbols)))
        self.broker.warm_up_kernels()

    def close_bar(self, now_ns: int, session: Session) -> TimeStep:
        """Close the bar that ends at `now_ns`; orders that wait meet its quotes in `trade`.

        Rewards are for what changed since the last one in the journal, through nights and restarts.
        """
        self._include_held()
        self._do_what_was_held_back()
        for market in self._markets.values():
            market.close_bar(now_ns, session)
        self._adjusted.close_bar()
        self._now_ns = now_ns
        self._greeks.keep(set(self.broker.account.positions))
        self._suspend_unknown(now_ns)
        self._suspend_jumps(now_ns, session)
        self._suspend_halted(now_ns)
        account, marks = self.broker.account, self.marks()
        changes, rewarded = np.zeros(len(self.symbols)), []
        for u, symbol in enumerate(self.symbols):
            profit = account.contribution(symbol, marks)
            if not np.isfinite(profit):
                continue  # Not valued now; the next reward covers this bar too.
            if np.isfinite(self._profit[symbol]):
                changes[u] = (profit - self._profit[symbol]) / self._capital
                rewarded.append(u)
            self._profit[symbol] = profit
        quotes = self._quotes(account.positions)
        equity = account.equity(marks)
        below = (account.peak_equity - equity) / self._capital
        self.broker.on_bar(quotes, now_ns, equity=equity, spots=self._spots(), marks=marks)
        self._observe()
        rewards = self._rewards(changes, below, np.array(rewarded, dtype=np.int64))
        return TimeStep(self._views.observations.copy(), self._views.mask.copy(), rewards)

    def _rewards(self, changes: F64, below: float, which: I64) -> F32:
        """Rewards [U] of what underlyings `which` earned since their last, over the capital.

        `below` is what the account lacks to its peak, over the capital too.
        """
        rules, rewards = self._rules, np.zeros(len(changes))
        scale, aversion, measure = rules.reward_scale, rules.risk_aversion, rules.risk_measure
        for u in which.tolist():
            rewards[u] = reward_of(float(changes[u]), below, scale, aversion, measure)
        if self._own_reward is not None:
            # As in training, what is seen before the first decision is no reward of one.
            decided = self.broker.account.last_decision_ns
            paid = [u for u in which.tolist() if self.symbols[u] in decided]
            self._own_reward.pay(
                changes,
                self._balances.equity,
                self._capital,
                self._views.observations,
                np.array(paid, dtype=np.int64),
                largest_reward(scale, aversion),
                rewards,
            )
        return rewards.astype(np.float32)

    def trade(self, now_ns: int, actions: Sequence[int]) -> list[ActionResult]:
        """Send the orders of one action per underlying, in the order of `symbols`.

        What waits and the quotes have come to is filled before anything else, and the action on
        that underlying comes too late; `worked` tells of it. Then what the owner wants closed is
        closed, and stock that an expiry or assignment left behind is sold off, whatever the action.
        `closed` and `unclosed` tell what became of it. Each order is at most for what the ones
        before it left of the limits and the buying power.
        """
        self._suspend_unknown(now_ns)
        self._fill_waiting(now_ns)
        self._close_for_owner(now_ns)
        closing = self.to_close
        # In the order of the rows that train; what is beyond `symbols` comes last.
        place = {symbol: u for u, symbol in enumerate(self.symbols)}
        delivered = self.broker.stock_to_liquidate()
        for underlying in sorted(delivered, key=lambda name: place.get(name, len(place))):
            if underlying not in closing:
                self._submit(self.broker.liquidation(underlying, now_ns))
        return [
            self._act(now_ns, u, symbol, int(action))
            for u, (symbol, action) in enumerate(zip(self.symbols, actions, strict=True))
        ]

    @property
    def to_close(self) -> list[str]:
        """Underlyings that are closed without the agent: the owner commands it, or they wind down.

        What winds down keeps to the limits; a command does not, see `states`.
        """
        account = self.broker.account
        commanded = account.to_close
        if not self.closes_winding_down:
            return commanded
        left = self.winding_down.intersection(account.strategies)
        return [*commanded, *(each for each in account.strategies if each in left - {*commanded})]

    def _fill_waiting(self, now_ns: int) -> None:
        """Fill the orders that wait where the quotes of the bar have come to them."""
        self.worked = {}
        orders = {name: each.order for name, each in self.broker.account.working_orders.items()}
        symbols: list[str] = []
        for order in orders.values():
            legs = [leg.symbol for leg in order.legs]
            if self._is_open(order.underlying, legs, now_ns):
                symbols += legs
        for fill in self.broker.fill_waiting(self._quotes(symbols), now_ns, self._spots()):
            self._note_worked(orders[fill.order_id], fill)
        ended = [name for name in orders if name not in self.broker.account.working_orders]
        self._over = frozenset(orders[name].underlying for name in ended) - self.worked.keys()

    def _note_worked(self, order: Order, fill: Fill) -> None:
        self.worked[order.underlying] = Worked(self._action_of(order), fill)
        if order.intent is Intent.OPEN:
            self._keep_greeks(order.underlying, [leg.symbol for leg in order.legs])

    def _close_for_owner(self, now_ns: int) -> None:
        self.closed, self.unclosed = [], {}
        commanded = self.broker.account.to_close
        for underlying in self.to_close:
            waiting = self.broker.waiting_on(underlying)
            if waiting is not None:
                why = "its strategy is closed at the market"
                self.broker.cancel(waiting.order.order_id, now_ns, why)
            held = [each for each in self.held_symbols(underlying) if each in self._contracts]
            result = self.broker.close_for_owner(
                underlying,
                self._quotes(held),
                self._is_open(underlying, held, now_ns),
                now_ns,
                self._spots(),
                by_owner=underlying in commanded,
            )
            if isinstance(result, Fill):
                self.closed.append(result)
            else:
                self.unclosed[underlying] = result

    def profit(self, underlying: str) -> float | None:
        """Return what rewards were given for since the account was opened, USD.

        None if not known.
        """
        profit = self._profit[underlying]
        return profit if np.isfinite(profit) else None

    def close_session(
        self,
        now_ns: int,
        session: Session,
        reward: float,
        rewards: Sequence[float] | None = None,
    ) -> None:
        """End the session: calls are assigned ahead of a dividend, and what has expired is settled.

        It settles at the session's official close. Where that is not known the position stays, its
        underlying is suspended with that reason, and it is settled at that price once it is told.
        `reward` is what the last decisions earned, `rewards` [U] each underlying's part.
        """
        self._suspend_jumps(now_ns, session)
        for symbol, market in self._markets.items():
            # A price of an earlier session, or none, is no close of this one.
            is_old = 0 < market.chain.last_price_ns <= session.open_ns
            is_price = np.isfinite(market.spot) and market.spot > 0.0
            if not self._official_closes and is_price and not is_old:
                self.tell_close(symbol, session.date, OfficialClose(market.spot))
            self._references[symbol] = market.spot
            market.end_session()
        closes = {
            symbol: close
            for (symbol, day), close in self._closes.items()
            if day == session.date and is_stock(symbol)
        }
        self._assign_early(now_ns, session, closes)
        following = self._calendar.next_session(session.date).date
        self.broker.book_carry(session.date, following, self._spots(), now_ns)
        account = self.broker.account
        marks = self.marks()
        expiring: list[str] = []
        late = pending(account, self._calendar, now_ns + 1)
        for underlying, days in late.items():
            is_clear = unexplained_since(account, underlying) is None
            if is_clear and underlying in closes and list(days) == [session.date]:
                expiring += days[session.date]
        for symbol in expiring:
            close = closes[account.positions[symbol].underlying]
            marks[symbol] = value_when_settled(account, symbol, close.price)
        self.broker.close_session(
            session.date.isoformat(),
            account.equity(marks),
            now_ns,
            reward=reward,
            rewards=dict(zip(self.symbols, rewards or (), strict=False)),
            profits={
                symbol: profit
                for symbol in self.symbols
                if (profit := self.profit(symbol)) is not None
            },
            expiring=expiring,
            underlying_prices={symbol: close.price for symbol, close in closes.items()},
            sources={symbol: close.source for symbol, close in closes.items()},
        )
        self.settle_pending(now_ns)

    def settle_pending(self, now_ns: int) -> None:
        """Settle what waits for a closing price that has been told since, and what waited for it.

        To be called after `tell_close`. What still has no price keeps its underlying suspended.
        """
        account = self.broker.account
        if self._session is not None:
            self._catch_up(self._session)
        for underlying, days in pending(account, self._calendar, now_ns + 1).items():
            if unexplained_since(account, underlying) is not None:
                continue
            for day in sorted(days):
                session = self._calendar.session_on(day)
                if session is None or not settle_expired(
                    self.broker, self._calendar, self._closes, underlying, session
                ):
                    break

    def _suspend_jumps(self, now_ns: int, session: Session) -> None:
        """Suspend underlyings whose first price of the session no action explains."""
        for underlying, market in self._markets.items():
            reference = self._references.get(underlying, float("nan"))
            chain = market.chain
            if np.isnan(reference) or not chain.last_price_ns > session.open_ns:
                continue
            self._references[underlying] = float("nan")
            if is_a_gap(reference, chain.last_price, self._max_gap):
                what = f"{reference:.2f} -> {chain.last_price:.2f} USD and no corporate action"
                suspend_unexplained(self.broker, underlying, session.date, what, now_ns)

    def suspend_unlisted(self, underlying: str, symbols: Sequence[str], session: Session) -> None:
        """Suspend an underlying of which contracts are held that are listed no more."""
        what = f"{', '.join(symbols)} held and no longer listed, and no corporate action"
        suspend_unexplained(self.broker, underlying, session.date, what, session.open_ns)

    def _assign_early(
        self, now_ns: int, session: Session, closes: Mapping[str, OfficialClose]
    ) -> None:
        """Assign sold calls that are worth less to their holders than tomorrow's dividend."""
        following = self._calendar.next_session(session.date).date
        prices = {symbol: market.spot for symbol, market in self._markets.items()}
        sources = dict.fromkeys(prices, CloseSource.RECORDED)
        for symbol, close in closes.items():
            prices[symbol], sources[symbol] = close.price, close.source
        due = [
            each
            for each in self._dividends
            if session.date < each.ex_date <= following
            and not np.isnan(prices.get(each.underlying, np.nan))
            and unexplained_since(self.broker.account, each.underlying) is None
        ]
        if due:
            wanted = set(self.broker.account.positions)
            for symbol in self.broker.account.positions:
                market, i = self._contracts.get(symbol, (None, NO_LEG))
                if market is None or i == STOCK_LEG:
                    continue
                if (pair := int(market.chain.columns.pair[i])) >= 0:
                    wanted.add(market.chain.symbols[pair])
            self.broker.assign_early(due, self._quotes(wanted), prices, now_ns, sources)

    def equity(self) -> float:
        """Cash plus the mark value of every position, USD."""
        return self.broker.account.equity(self.marks())

    def marks(self) -> dict[str, float]:
        """Mark of everything that is held, USD a share.

        It is the last known one of what is suspended, or has a mark that is no number.
        """
        suspended = self.broker.account.suspensions
        marks = {}
        for symbol, position in self.broker.account.positions.items():
            mark = self._mark(symbol)
            keeps = position.underlying in suspended or not np.isfinite(mark)
            marks[symbol] = self.broker.last_mark(position) if keeps else mark
        return marks

    def _mark(self, symbol: str) -> float:
        market, i = self._contracts.get(symbol, (None, NO_LEG))
        if market is None:
            known = self._adjusted.mark(symbol) if symbol in self._adjusted else float("nan")
            position = self.broker.account.positions[symbol]
            return self.broker.last_mark(position) if np.isnan(known) else known
        if i != STOCK_LEG:
            return float(market.chain.columns.mark[i])
        # Until its price is known, a stock is worth what was paid for it.
        spot = market.spot
        return self.broker.account.positions[symbol].average_price if np.isnan(spot) else spot

    def _suspend_unknown(self, now_ns: int) -> None:
        """Suspend underlyings with a mark or price that is no number, until it is one again."""
        reason = str(RejectReason.NOT_A_NUMBER)
        account = self.broker.account
        for underlying in {*account.strategies, *account.suspensions}:
            values = [self._mark(symbol) for symbol in self.held_symbols(underlying)]
            if underlying in self._markets:
                spot = self._markets[underlying].spot
                values.append(0.0 if np.isnan(spot) else spot)
            if not np.isfinite(values).all():
                self.broker.suspend(underlying, reason, now_ns)
            elif reason in account.suspensions.get(underlying, ()):
                self.broker.reinstate(underlying, "its values are numbers", now_ns, lifts=reason)

    @property
    def _capital(self) -> float:
        """What the policy measures in, USD: cash paid in or taken out is no gain or loss."""
        return self._rules.initial_capital * self.broker.account.scale

    def greeks(self, underlying: str) -> dict[str, float]:
        """Delta (shares), gamma, vega (USD per volatility point), theta (USD a day) held.

        NaN where they are not known, see `greeks_not_quoted`.
        """
        totals = {"delta": 0.0, "gamma": 0.0, "vega": 0.0, "theta": 0.0}
        for symbol in self.held_symbols(underlying):
            delta, gamma, vega, theta = self._sensitivities(symbol)
            totals["delta"] += delta
            totals["gamma"] += gamma
            totals["vega"] += vega / 100.0
            totals["theta"] += theta / 365.0
        return totals

    def exposure(self) -> Greeks:
        """Return the account's greeks.

        The last known ones, moved by spot, of what cannot be read now.

        NaN where a holding's were never known: then no limit on greeks leaves any room.
        """
        return _added(each for legs in self._leg_greeks().values() for each in legs)

    def _leg_greeks(self) -> dict[str, list[Greeks]]:
        """Greeks of each leg of the open strategies, by underlying in the order of the books."""
        found = {}
        for underlying in self.broker.account.strategies:
            spot = self._markets[underlying].spot
            found[underlying] = [
                Greeks(*usd_greeks(*self._sensitivities(symbol)[:3], spot))
                for symbol in self.held_symbols(underlying)
            ]
        return found

    def greeks_not_quoted(self) -> dict[str, str]:
        """Return holdings whose greeks are not those of their quotes now: `last`, or `unknown`."""
        sources = {symbol: self._held_greeks(symbol)[1] for symbol in self.broker.account.positions}
        return {
            symbol: str(each) for symbol, each in sources.items() if each is not GreeksSource.QUOTE
        }

    def _held_greeks(self, symbol: str) -> tuple[Sensitivities, GreeksSource]:
        if symbol in self._adjusted:
            if not np.isfinite(
                self._markets[self.broker.account.positions[symbol].underlying].spot
            ):
                return UNKNOWN, GreeksSource.UNKNOWN
            return self._adjusted_greeks(symbol), GreeksSource.QUOTE
        market, i = self._contracts.get(symbol, (None, NO_LEG))
        if market is None:
            return UNKNOWN, GreeksSource.UNKNOWN
        if i == STOCK_LEG:
            return Sensitivities(1.0, 0.0, 0.0, 0.0), GreeksSource.QUOTE
        age = self._rules.max_quote_age_ns
        return self._greeks.of(symbol, market.quotes, i, market.spot, self._now_ns, age)

    def _sensitivities(self, symbol: str) -> tuple[float, float, float, float]:
        """Delta, gamma, vega and theta of a holding, as in `ChainColumns` times its shares."""
        account = self.broker.account
        shares = account.positions[symbol].quantity * account.size(symbol)
        delta, gamma, vega, theta = self._held_greeks(symbol)[0]
        return shares * delta, shares * gamma, shares * vega, shares * theta

    def _adjusted_greeks(self, symbol: str) -> Sensitivities:
        """Of a hundredth of an adjusted contract, by the volatility of the nearest listed one."""
        account = self.broker.account
        market = self._markets[account.positions[symbol].underlying]
        expiry_ns = self._calendar.expiry_ns(parse_symbol(symbol).expiry)
        strike = account.adjusted.terms(symbol, account.multiplier).strike
        each = adjusted_greeks(
            symbol,
            account.adjusted,
            account.multiplier,
            market.spot,
            nearest_volatility(market.chain, strike, expiry_ns),
            (expiry_ns - self._now_ns) / YEAR_NS,
        )
        return Sensitivities(*(value / account.multiplier for value in each))

    def market_state(self, now_ns: int) -> dict[str, dict[str, float]]:
        """Spot, at-the-money volatilities and tradable share of each chain, for people."""
        state = {}
        for symbol, market in self._markets.items():
            chain = market.chain
            state[symbol] = {
                "spot": chain.spot,
                "contracts": float(len(chain)),
                "tradable_share": tradable_share(
                    chain.columns, now_ns, self._rules.max_quote_age_ns
                ),
            }
        return state

    def _spots(self) -> dict[str, float]:
        """Prices of the underlyings that have one, USD."""
        spots = {symbol: market.spot for symbol, market in self._markets.items()}
        return {symbol: spot for symbol, spot in spots.items() if not np.isnan(spot)}

    def _quotes(self, symbols: Iterable[str]) -> dict[str, QuoteView]:
        return {symbol: self._quote(symbol) for symbol in symbols}

    def _quote(self, symbol: str) -> QuoteView:
        market, i = self._contracts.get(symbol, (None, NO_LEG))
        if market is None:
            return self._adjusted.quote(symbol) if symbol in self._adjusted else NO_QUOTE
        if i == STOCK_LEG:
            snapshots = market.snapshots
            bid, ask = stock_touch(float(snapshots.spot[0]), self._rules.stock_half_spread)
            return QuoteView(bid, ask, STOCK_LOTS, STOCK_LOTS, int(snapshots.spot_ns[0]))
        market.vet_news()
        columns = market.chain.columns
        return QuoteView(
            float(columns.bid[i]),
            float(columns.ask[i]),
            float(columns.bid_size[i]),
            float(columns.ask_size[i]),
            int(columns.quote_ns[i]),
        )

    def _observe(self) -> None:
        account, balances, marks = self.broker.account, self._balances, self.marks()
        self._read_balances(marks)
        balances.may_open[:] = account.trading_state is TradingState.ACTIVE
        balances.may_close[:] = account.trading_state is not TradingState.HALTED
        left = {*self.broker.stock_to_liquidate(), *self.to_close}
        greeks = self._leg_greeks()
        total = np.array(_added(each for legs in greeks.values() for each in legs))
        for u, symbol in enumerate(self.symbols):
            self._hold(u, symbol)
            self._show_order(u, symbol)
            if symbol in self.winding_down:
                balances.may_open[u] = False
            strategy = account.strategies.get(symbol)
            hidden = strategy is not None and not self._is_shown(strategy)
            if hidden or symbol in left or symbol in account.suspensions:
                balances.may_open[u] = balances.may_close[u] = False
            self._look(u, total, self._views)
            if self._own_features is not None:
                which, snapshots = np.array([u], dtype=np.int64), self._markets[symbol].snapshots
                copy_own(snapshots, self._snapshot_of, which, self._views.observations)
            if self._shows_others:
                self._show_others(u, symbol, greeks, marks)
            if is_working(self._rules):
                view = (self._markets[symbol].snapshots, self._snapshot_of, self._rules)
                which = np.array([u], dtype=np.int64)
                observe_orders(*view, balances, self._orders, which, self._views)

    def _read_balances(self, marks: Mapping[str, float]) -> None:
        """Write what the account has now as the kernels see it."""
        account, balances = self.broker.account, self._balances
        balances.equity[:], balances.cash[:] = account.equity(marks), account.cash
        balances.margin_used[:] = account.margin_used
        balances.open_positions[:] = len(account.strategies.keys() | self._opening())

    def _opening(self) -> set[str]:
        """Return the underlyings on which an order waits to open."""
        waiting = self.broker.account.working_orders.values()
        return {each.order.underlying for each in waiting if each.order.intent is Intent.OPEN}

    def _look(self, u: int, greeks: F64, views: AccountViews) -> None:
        """Write what is seen and may be ordered, given the `greeks` [3] of all that is held."""
        rules, symbol = self._rules, self.symbols[u]
        market = self._markets[symbol]
        if self.broker.account.scale != 1.0:
            rules = rules._replace(initial_capital=self._capital)
        view = (market.quotes, market.snapshots, self._snapshot_of, rules)
        which = np.array([u], dtype=np.int64)
        works = True if is_working(self._rules) else None
        observe_accounts(*view, self._holdings, self._balances, which, views, works)
        if self.broker.account.positions or self._opening() - {symbol}:
            greeks = greeks + self._order_greeks(but=symbol)
            cap_openings(*view, self._ratios, self._balances, u, greeks, views)

    def _show_others(
        self,
        u: int,
        symbol: str,
        greeks: Mapping[str, Sequence[Greeks]],
        marks: Mapping[str, float],
    ) -> None:
        """Write what is open on the other underlyings to an observation."""
        account = self.broker.account
        others = [name for name in account.strategies if name != symbol]
        margin = profit = 0.0
        for name in others:
            strategy = account.strategies[name]
            margin += strategy.margin
            profit += account.value(name, marks) + strategy.net_cash
        show_others(
            self._views.observations,
            u,
            len(others),
            np.array(_added(each for name in others for each in greeks[name])),
            margin,
            profit,
            float(self._balances.equity[u]),
            self._rules.max_positions,
        )

    def _limit(self, u: int) -> None:
        """Lower what may be ordered of an underlying to what the orders before it left."""
        self._read_balances(self.marks())
        self._show_order(u, self.symbols[u])
        self._look(u, np.array(self.exposure()), self._spare)
        room = self._spare.units[u, self._full_size]
        np.minimum(self._views.units[u], room, out=self._views.units[u])

    def _hold(self, u: int, underlying: str) -> None:
        """Write the open strategy of an underlying as the kernels see it."""
        holdings = self._holdings
        holdings.legs[u], holdings.ratio[u], holdings.units[u] = NO_LEG, 0, 0
        strategy = self.broker.account.strategies.get(underlying)
        if strategy is None or not self._is_shown(strategy):
            return
        for k, leg in enumerate(strategy.legs):
            holdings.legs[u, k] = self._contracts[leg.symbol][1]
            holdings.ratio[u, k] = leg.ratio
        key = (strategy.opened_ns, tuple(leg.symbol for leg in strategy.legs))
        if self._shown.get(u) != key:
            self._shown[u] = key
            holdings.known[u] = 0.0
            for k, leg in enumerate(strategy.legs):
                holdings.known[u, k] = self._at_opening.pop(leg.symbol, 0.0)
        holdings.units[u], holdings.net_cash[u] = strategy.units, strategy.net_cash
        holdings.opened_ns[u] = strategy.opened_ns

    def _show_order(self, u: int, underlying: str) -> None:
        """Write what waits on an underlying as the kernels see it."""
        orders, balances = self._orders, self._balances
        orders.action[u] = HOLD
        balances.order_opens[u], balances.order_hold[u] = False, 0.0
        waiting = self.broker.waiting_on(underlying)
        if waiting is None:
            return
        orders.action[u], orders.step[u] = self._action_of(waiting.order), waiting.step
        if waiting.order.intent is Intent.OPEN:
            balances.order_opens[u], balances.order_hold[u] = True, waiting.buying_power_held

    def _order_greeks(self, but: str = "") -> F64:
        """Return the greeks [3] that orders to open would add to the account's, in USD.

        Without the order on the underlying `but`, whose place another one would take.
        """
        added = np.zeros(3)
        for waiting in self.broker.account.working_orders.values():
            order = waiting.order
            if order.intent is Intent.OPEN and order.underlying != but:
                market = self._markets[order.underlying]
                found = [self._contracts.get(leg.symbol, (market, NO_LEG))[1] for leg in order.legs]
                if NO_LEG in found:
                    added[:] = np.nan
                    continue
                ratio = np.array([leg.ratio for leg in order.legs])
                unit = legs_greeks(
                    market.quotes,
                    market.snapshots,
                    0,
                    self._rules.multiplier,
                    np.array(found),
                    ratio,
                )
                added += np.array(unit) * waiting.remaining
        return added

    def _is_shown(self, strategy: StrategyPosition) -> bool:
        """Return whether the kernels can read a strategy; others are closed without the agent."""
        adjusted = self.broker.account.adjusted.touches(strategy.legs)
        listed = all(leg.symbol in self._contracts for leg in strategy.legs)
        return listed and not adjusted and len(strategy.legs) <= MAX_LEGS

    def _act(self, now_ns: int, u: int, underlying: str, action: int) -> ActionResult:
        masked = not self._views.mask[u, action]
        done = self.worked.get(underlying)
        if done is not None:
            return ActionResult(action, masked, done.fill, done.action)
        if underlying in self._over:
            return ActionResult(action, masked)  # It came too late, as where it was filled.
        waiting = self.broker.waiting_on(underlying)
        if waiting is not None:
            ordered = self._action_of(waiting.order)
            if masked or not replaces(action, ordered, len(self._catalogue)):
                stepped = self._step(waiting, now_ns)
                return ActionResult(action, masked, stepped, ordered, self._works_on(underlying))
            why = f"{self.action_names[action]} takes its place"
            self.broker.cancel(waiting.order.order_id, now_ns, why)
        if not masked and action != HOLD:
            self._limit(u)
        units = 0 if masked else int(self._views.units[u, action])
        if units == 0:
            return ActionResult(action, masked)
        if action == CLOSE:
            order = msgspec.structs.replace(
                self.broker.liquidation(underlying, now_ns), units=units
            )
            sent = self._send(order)
            return ActionResult(action, False, sent, waits=self._works_on(underlying))
        opening = of_full_size(action, len(self._catalogue))
        order = Order(
            order_id=self.broker.next_order_id(),
            ts_ns=now_ns,
            underlying=underlying,
            strategy=self._catalogue[opening].name,
            intent=Intent.OPEN,
            legs=self._opening_legs(underlying, opening),
            units=units,
        )
        market = self._markets[underlying]
        greeks = unit_greeks(
            market.quotes,
            market.snapshots,
            0,
            self._rules.multiplier,
            self._ratios,
            opening,
        )
        result = self._send(order, Greeks(*greeks))
        if isinstance(result, Fill):
            self._keep_greeks(underlying, [each.symbol for each in order.legs])
        return ActionResult(action, False, result, waits=self._works_on(underlying))

    def _action_of(self, order: Order) -> int:
        """Return the action of full size that an order came from; HOLD where it is none."""
        if order.intent is Intent.CLOSE:
            return CLOSE
        names = [each.name for each in self._catalogue]
        return names.index(order.strategy) if order.strategy in names else HOLD

    def _works_on(self, underlying: str) -> str:
        waiting = self.broker.waiting_on(underlying)
        return waiting.order.order_id if waiting is not None else ""

    def _keep_greeks(self, underlying: str, symbols: Sequence[str]) -> None:
        """Keep the greeks that options are opened at."""
        market = self._markets[underlying]
        for symbol in [each for each in symbols if not is_stock(each)]:
            self._held_greeks(symbol)  # They are remembered from here on.
            known = self._at_opening[symbol] = np.zeros(self._holdings.known.shape[-1])
            keep_greeks(market.quotes, market.chain.index[symbol], market.snapshots.spot[0], known)

    def _step(self, waiting: WorkingOrder, now_ns: int) -> Fill | None:
        """Let an order that waits work on; one without limits of its legs only waits."""
        order = waiting.order
        symbols = [leg.symbol for leg in order.legs]
        if not order.leg_limits or not self._is_open(order.underlying, symbols, now_ns):
            return None
        fill = self.broker.step(waiting, self._quotes(symbols), now_ns, self._spots())
        if fill is not None:
            self._note_worked(order, fill)
        return fill

    def _send(self, order: Order, unit: Greeks | None = None) -> Fill | Rejection | None:
        """Submit the order of an action, in the way that the style of fills says."""
        quotes = self._quotes([leg.symbol for leg in order.legs])
        return self._submit(self.broker.patient(order, quotes, order.ts_ns), unit)

    def _submit(self, order: Order, unit: Greeks | None = None) -> Fill | Rejection | None:
        held = Greeks(*(np.array(self.exposure()) + self._order_greeks()).tolist())
        symbols = [leg.symbol for leg in order.legs]
        return self.broker.submit(
            order,
            self._quotes(symbols),
            self._is_open(order.underlying, symbols, order.ts_ns),
            order.ts_ns,
            self.equity(),
            held if unit is not None and np.isfinite(held).all() else None,
            unit,
            self._spots(),
        )

    def _is_open(self, underlying: str, symbols: Iterable[str], now_ns: int) -> bool:
        """Return whether every leg may trade now: those on their last day may stop earlier."""
        calendar = self._calendar
        hours = calendar.trading_hours(underlying, calendar.date_of(now_ns))
        if hours is None or not hours.open_ns <= now_ns <= hours.close_ns:
            return False
        contracts = [parse_symbol(symbol) for symbol in symbols if symbol.startswith("O:")]
        return all(now_ns <= calendar.expiry_ns(each.expiry, each.root) for each in contracts)

    def _opening_legs(self, underlying: str, action: int) -> tuple[Leg, ...]:
        market = self._markets[underlying]
        chosen = [int(market.snapshots.legs[0, action, leg]) for leg in range(MAX_LEGS)]
        return tuple(
            Leg(
                underlying if i == STOCK_LEG else market.chain.symbols[i],
                int(self._ratios[action, leg]),
            )
            for leg, i in enumerate(chosen)
            if i != NO_LEG
        )


def _added(legs: Iterable[Greeks]) -> Greeks:
    """Greeks of several legs together, added one after the other."""
    delta = gamma = vega = 0.0
    for leg in legs:
        delta, gamma, vega = delta + leg.delta, gamma + leg.gamma, vega + leg.vega
    return Greeks(delta, gamma, vega)
