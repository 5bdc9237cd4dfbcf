"""One live market as an environment: chains and bars in, observations and orders out.

It knows exchange time only, and only what it is told; whether a socket, a recording or a test
tells it makes no difference. The kernels are those of the vectorised environment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading.envs.catalogue import ACTIONS, CLOSE, MAX_LEGS
from trading.envs.frames import RATIO
from trading.envs.held_greeks import UNKNOWN, HeldGreeks, Sensitivities, Source
from trading.envs.market_features import F32
from trading.envs.rules import NO_LEG, STOCK, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.sight import (
    cap_openings,
    empty_purses,
    empty_sights,
    no_holdings,
    see,
    unit_greeks,
)
from trading.envs.underlying import UnderlyingMarket
from trading.execution.broker import PaperBroker, settlement_price
from trading.execution.exposure import Greeks
from trading.execution.fees import FeeSchedule
from trading.execution.orders import (
    Fill,
    Intent,
    Leg,
    Order,
    QuoteView,
    Rejection,
    RejectReason,
)
from trading.execution.risk import TradingState
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.chain import tradable_share
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.dividends import Dividend


class Observed(NamedTuple):
    """What a closed bar shows of the U underlyings."""

    observations: F32
    """[U, F]"""
    action_mask: NDArray[np.bool_]
    """[U, N]"""
    rewards: F32
    """[U], since the bar before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action."""

    action: int
    masked: bool
    """The action was not allowed and became a hold."""
    result: Fill | Rejection | None = None


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
    """

    def __init__(
        self,
        symbols: Sequence[str],
        rules: TradingRules,
        fees: FeeSchedule,
        calendar: ExchangeCalendar,
        broker: PaperBroker,
        dividends: Iterable[Dividend] = (),
    ) -> None:
        self.broker = broker
        self.winding_down: frozenset[str] = frozenset()
        """Underlyings that only close."""
        self._rules, self._calendar = rules, calendar
        self._fees = fees
        self._greeks = HeldGreeks()
        self._now_ns = 0
        """When the last bar closed."""
        self._markets: dict[str, UnderlyingMarket] = {}
        self._contracts: dict[str, tuple[UnderlyingMarket, int]] = {}
        self._profit: dict[str, float] = {}
        self._include(symbols)
        self._include_held()
        self.symbols = self.underlyings
        """The U underlyings that are decided on, in the order of every [U] array."""
        self.set_dividends(dividends)
        self.closed: list[Fill] = []
        """What was closed by the owner's word at the last bar."""
        self.unclosed: dict[str, str] = {}
        """Why what the owner wants closed was not, by underlying."""
        count = len(self.symbols)
        self._holdings = no_holdings(count)
        self._purses = empty_purses(count)
        self._sights = empty_sights(count)
        self._frame_of = np.zeros(count, dtype=np.int64)

    @property
    def underlyings(self) -> tuple[str, ...]:
        """All that are listed and marked: `symbols`, and what the account came to hold since."""
        return tuple(self._markets)

    def _include(self, symbols: Iterable[str]) -> None:
        account = self.broker.account
        for symbol in symbols:
            self._markets[symbol] = UnderlyingMarket(symbol, self._rules, self._fees)
            self._contracts[symbol] = (self._markets[symbol], STOCK)
            # Of an older journal it is not known what the last reward was given for.
            unknown = float("nan") if symbol in account.last_decision_ns else 0.0
            self._profit[symbol] = account.rewarded_profit.get(symbol, unknown)

    def _include_held(self) -> None:
        """Let what is held or ordered beyond the traded underlyings wind down."""
        account = self.broker.account
        waiting = {each.order.underlying: None for each in account.working_orders.values()}
        extra = [name for name in {**account.strategies, **waiting} if name not in self._markets]
        if extra:
            self.winding_down |= set(extra)
            self._include(extra)

    def set_dividends(self, dividends: Iterable[Dividend]) -> None:
        """Replace the dividends that are known; those of other underlyings are left out."""
        self._dividends = tuple(each for each in dividends if each.underlying in self._markets)

    def begin_session(self, session: Session) -> None:
        """Pay what stock went ex-dividend, and forget the sequence numbers of quotes.

        What went ex since the last session that was traded is paid too. The numbers start over
        with each session. Calling it again in a session changes nothing. What waits to open on an
        underlying that winds down is cancelled.
        """
        self._include_held()
        for order_id, waiting in list(self.broker.account.working_orders.items()):
            order = waiting.order
            if order.underlying in self.winding_down and order.intent is Intent.OPEN:
                why = f"{order.underlying} is traded no more: it is not in symbols"
                self.broker.cancel(order_id, session.open_ns, why)
        due = [each for each in self._dividends if self._is_due(each, session)]
        self.broker.pay_dividends(due, session.open_ns)
        for market in self._markets.values():
            market.begin_session()

    def _is_due(self, dividend: Dividend, session: Session) -> bool:
        """Whether a dividend went ex after the last closed session, on what was held before."""
        account = self.broker.account
        held = account.strategies.get(dividend.underlying)
        if held is None or not account.last_session < dividend.ex_date.isoformat():
            return False
        before = self._calendar.expiry_ns(dividend.ex_date - timedelta(days=1))
        return dividend.ex_date <= session.date and held.opened_ns <= before

    def list_contracts(self, underlying: str, contracts: Iterable[OptionContract]) -> None:
        """Set what is listed; quotes of contracts listed before are kept, held ones stay listed."""
        listed = {c.symbol: c for c in contracts if not c.is_adjusted}
        held = [symbol for symbol in self.held_symbols(underlying) if symbol != underlying]
        for symbol in held:
            listed.setdefault(symbol, parse_symbol(symbol))
        market = self._markets[underlying]
        for symbol in market.chain.symbols:
            self._contracts.pop(symbol, None)
        market.list_contracts(listed.values(), self._calendar.expiry_ns, held)
        for symbol, i in market.chain.index.items():
            self._contracts[symbol] = (market, i)
        mark = market.chain.columns.mark
        for symbol in held:
            i = market.chain.index[symbol]
            if np.isnan(mark[i]):
                # Until it is quoted, a position is worth what was paid for it.
                mark[i] = self.broker.account.positions[symbol].average_price

    def listed_symbols(self, underlying: str | None = None) -> list[str]:
        """Every listed contract, underlying by underlying; or those of one."""
        chosen = self.underlyings if underlying is None else (underlying,)
        return [s for symbol in chosen for s in self._markets[symbol].chain.symbols]

    def listed_contracts(self, underlying: str) -> list[OptionContract]:
        """What is listed of one underlying."""
        return list(self._markets[underlying].chain.contracts)

    def spot(self, underlying: str) -> float:
        """Last known price of an underlying, NaN before the first."""
        return self._markets[underlying].spot

    def held_symbols(self, underlying: str) -> list[str]:
        """What the open strategy on an underlying holds: contracts, and the stock by its ticker."""
        strategy = self.broker.account.strategies.get(underlying)
        return [leg.symbol for leg in strategy.legs] if strategy else []

    def apply_quote(
        self,
        symbol: str,
        bid: float,
        ask: float,
        bid_size: float,
        ask_size: float,
        ts_ns: int,
        sequence: int,
    ) -> bool:
        """Take over a quote; False when the contract is unknown or the quote is out of order."""
        market, i = self._contracts.get(symbol, (None, NO_LEG))
        if market is None or i == STOCK:
            return False
        return market.apply_quote(i, bid, ask, bid_size, ask_size, ts_ns, sequence)

    def apply_bar(self, bar: StockBar) -> bool:
        """Take over an aggregate of an underlying; False when it is not traded here."""
        market = self._markets.get(bar.symbol)
        if market is None:
            return False
        market.apply_bar(bar)
        return True

    def warm_up(self, underlying: str, bars: Iterable[StockBar]) -> None:
        """Fill the bar history from bars that closed before trading starts, oldest first."""
        self._markets[underlying].warm_up(bars)

    def rehearse(self, bar_end_ns: int, session: Session) -> None:
        """Compute what a decision needs and drop it, so that no compiler runs while trading."""
        for market in self._markets.values():
            market.refresh(bar_end_ns)
            market.show(bar_end_ns, session)
        self._observe()
        self.broker.rehearse()

    def close_bar(self, now_ns: int, session: Session) -> Observed:
        """Close the bar that ends at `now_ns`.

        Rewards are for what changed since the last one in the journal, through nights and restarts.
        """
        for market in self._markets.values():
            market.close_bar(now_ns, session)
        self._now_ns = now_ns
        self._greeks.keep(set(self.broker.account.positions))
        self._suspend_unknown(now_ns)
        account, marks = self.broker.account, self.marks()
        rewards = np.zeros(len(self.symbols), dtype=np.float32)
        for u, symbol in enumerate(self.symbols):
            profit = account.contribution(symbol, marks)
            if not np.isfinite(profit):
                continue  # Not valued now; the next reward covers this bar too.
            if np.isfinite(self._profit[symbol]):
                change = (profit - self._profit[symbol]) / self._capital
                rewards[u] = change * self._rules.reward_scale
            self._profit[symbol] = profit
        quotes = self._quotes(account.positions)
        equity = account.equity(marks)
        self.broker.on_bar(quotes, now_ns, equity=equity, spots=self._spots(), marks=marks)
        self._observe()
        return Observed(self._sights.observations.copy(), self._sights.mask.copy(), rewards)

    def trade(self, now_ns: int, actions: Sequence[int]) -> list[Outcome]:
        """Send the orders of one action per underlying, in the order of `symbols`.

        What the owner wants closed is closed first, and stock that an expiry or assignment left
        behind is sold off, whatever the action. `closed` and `unclosed` tell what became of it.
        """
        self._suspend_unknown(now_ns)
        self._close_for_owner(now_ns)
        for underlying in self.broker.stock_to_liquidate():
            self._submit(self.broker.liquidation(underlying, now_ns))
        return [
            self._act(now_ns, u, symbol, int(action))
            for u, (symbol, action) in enumerate(zip(self.symbols, actions, strict=True))
        ]

    def _close_for_owner(self, now_ns: int) -> None:
        self.closed, self.unclosed = [], {}
        for underlying in self.broker.account.to_close:
            held = [each for each in self.held_symbols(underlying) if each in self._contracts]
            result = self.broker.close_for_owner(
                underlying,
                self._quotes(held),
                self._is_open(underlying, held, now_ns),
                now_ns,
                self._spots(),
            )
            if isinstance(result, Fill):
                self.closed.append(result)
            else:
                self.unclosed[underlying] = result

    def profit(self, underlying: str) -> float | None:
        """What rewards were given for since the account was opened, USD; None if not known."""
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

        Without a price of the underlying the position stays, trading halts with that reason, and
        the next session's end tries again. `reward` is what the last decisions earned, `rewards`
        [U] each underlying's part.
        """
        prices = {symbol: market.spot for symbol, market in self._markets.items()}
        self._assign_early(now_ns, session, prices)
        marks = self.marks()
        expiring: list[str] = []
        unpriced: list[str] = []
        for symbol, position in self.broker.account.positions.items():
            if self._contracts[symbol][1] == STOCK:
                continue
            contract = parse_symbol(symbol)
            if self._calendar.expiry_ns(contract.expiry) > now_ns:
                continue
            price = prices[position.underlying]
            if np.isnan(price):
                unpriced.append(symbol)
                continue
            expiring.append(symbol)
            marks[symbol] = settlement_price(contract, price)
        self.broker.close_session(
            session.date.isoformat(),
            self.broker.account.equity(marks),
            now_ns,
            reward=reward,
            rewards=dict(zip(self.symbols, rewards or (), strict=False)),
            profits={
                symbol: profit
                for symbol in self.symbols
                if (profit := self.profit(symbol)) is not None
            },
            expiring=expiring,
            underlying_prices=prices,
        )
        if unpriced:
            reason = f"no closing price to settle {', '.join(unpriced)}"
            self.broker.set_trading_state(TradingState.HALTED, reason, now_ns)

    def _assign_early(self, now_ns: int, session: Session, prices: dict[str, float]) -> None:
        """Assign sold calls that are worth less to their holders than tomorrow's dividend."""
        following = self._calendar.next_session(session.date).date
        due = [
            each
            for each in self._dividends
            if each.ex_date == following and not np.isnan(prices[each.underlying])
        ]
        if due:
            wanted = set(self.broker.account.positions)
            for symbol in self.broker.account.positions:
                market, i = self._contracts[symbol]
                if i != STOCK and (pair := int(market.chain.columns.pair[i])) >= 0:
                    wanted.add(market.chain.symbols[pair])
            self.broker.assign_early(due, self._quotes(wanted), prices, now_ns)

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
            return float("nan")
        if i != STOCK:
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
        """The account's greeks: the last known ones, moved by spot, of what cannot be read now.

        NaN where a holding's were never known: then no limit on greeks leaves any room.
        """
        delta = gamma = vega = 0.0
        for symbol, position in self.broker.account.positions.items():
            spot = self._markets[position.underlying].spot
            leg_delta, leg_gamma, leg_vega, _ = self._sensitivities(symbol)
            delta += leg_delta * spot
            gamma += leg_gamma * spot * spot * 0.01
            vega += leg_vega * 0.01
        return Greeks(delta, gamma, vega)

    def greeks_not_quoted(self) -> dict[str, str]:
        """Holdings whose greeks are not those of their quotes now: `last`, or `unknown`."""
        sources = {symbol: self._held_greeks(symbol)[1] for symbol in self.broker.account.positions}
        return {symbol: str(each) for symbol, each in sources.items() if each is not Source.QUOTE}

    def _held_greeks(self, symbol: str) -> tuple[Sensitivities, Source]:
        market, i = self._contracts.get(symbol, (None, NO_LEG))
        if market is None:
            return UNKNOWN, Source.UNKNOWN
        if i == STOCK:
            return Sensitivities(1.0, 0.0, 0.0, 0.0), Source.QUOTE
        columns, age = market.chain.columns, self._rules.max_quote_age_ns
        return self._greeks.of(symbol, columns, i, market.spot, self._now_ns, age)

    def _sensitivities(self, symbol: str) -> tuple[float, float, float, float]:
        """Delta, gamma, vega and theta of a holding, as in `Columns` times its shares."""
        shares = self.broker.account.positions[symbol].quantity * self._rules.multiplier
        delta, gamma, vega, theta = self._held_greeks(symbol)[0]
        return shares * delta, shares * gamma, shares * vega, shares * theta

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
        market, i = self._contracts[symbol]
        if i == STOCK:
            frames = market.frames
            bid, ask = stock_touch(float(frames.spot[0]), self._rules.stock_half_spread)
            return QuoteView(bid, ask, STOCK_LOTS, STOCK_LOTS, int(frames.spot_ns[0]))
        columns = market.chain.columns
        return QuoteView(
            float(columns.bid[i]),
            float(columns.ask[i]),
            float(columns.bid_size[i]),
            float(columns.ask_size[i]),
            int(columns.quote_ns[i]),
        )

    def _observe(self) -> None:
        account, purses = self.broker.account, self._purses
        purses.equity[:], purses.cash[:] = self.equity(), account.cash
        purses.reserved[:] = account.reserved
        purses.open_positions[:] = len(account.strategies)
        purses.may_open[:] = account.trading_state is TradingState.ACTIVE
        purses.may_close[:] = account.trading_state is not TradingState.HALTED
        left = {*self.broker.stock_to_liquidate(), *account.to_close}
        greeks = np.array(self.exposure())
        rules = self._rules
        if account.scale != 1.0:
            rules = rules._replace(initial_capital=self._capital)
        for u, symbol in enumerate(self.symbols):
            self._hold(u, symbol)
            if symbol in self.winding_down:
                purses.may_open[u] = False
            if symbol in left or symbol in account.suspensions:
                purses.may_open[u] = purses.may_close[u] = False
            market = self._markets[symbol]
            view = (market.board, market.frames, self._frame_of, rules)
            which = np.array([u], dtype=np.int64)
            see(*view, self._holdings, purses, which, self._sights)
            if account.positions:
                cap_openings(*view, purses, u, greeks, self._sights)

    def _hold(self, u: int, underlying: str) -> None:
        """Write the open strategy of an underlying as the kernels see it."""
        holdings = self._holdings
        holdings.legs[u], holdings.ratio[u], holdings.units[u] = NO_LEG, 0, 0
        strategy = self.broker.account.strategies.get(underlying)
        if strategy is None:
            return
        for k, leg in enumerate(strategy.legs):
            holdings.legs[u, k] = self._contracts[leg.symbol][1]
            holdings.ratio[u, k] = leg.ratio
        holdings.units[u], holdings.net_cash[u] = strategy.units, strategy.net_cash
        holdings.opened_ns[u] = strategy.opened_ns

    def _act(self, now_ns: int, u: int, underlying: str, action: int) -> Outcome:
        if not self._sights.mask[u, action]:
            return Outcome(action, masked=True)
        units = int(self._sights.units[u, action])
        if units == 0:
            return Outcome(action, masked=False)
        if action == CLOSE:
            order = msgspec.structs.replace(
                self.broker.liquidation(underlying, now_ns), units=units
            )
            return Outcome(action, masked=False, result=self._submit(order))
        order = Order(
            order_id=self.broker.next_order_id(),
            ts_ns=now_ns,
            underlying=underlying,
            strategy=ACTIONS[action].name,
            intent=Intent.OPEN,
            legs=self._opening_legs(underlying, action),
            units=units,
        )
        market = self._markets[underlying]
        greeks = unit_greeks(market.board, market.frames, 0, self._rules.multiplier, action)
        return Outcome(action, masked=False, result=self._submit(order, Greeks(*greeks)))

    def _submit(self, order: Order, unit: Greeks | None = None) -> Fill | Rejection | None:
        held = self.exposure()
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
        """Whether every leg may trade now: those on their last day may stop earlier."""
        calendar = self._calendar
        hours = calendar.trading_hours(underlying, calendar.date_of(now_ns))
        if hours is None or not hours.open_ns <= now_ns <= hours.close_ns:
            return False
        contracts = [parse_symbol(symbol) for symbol in symbols if symbol.startswith("O:")]
        return all(now_ns <= calendar.expiry_ns(each.expiry, each.root) for each in contracts)

    def _opening_legs(self, underlying: str, action: int) -> tuple[Leg, ...]:
        market = self._markets[underlying]
        chosen = [int(market.frames.legs[0, action, leg]) for leg in range(MAX_LEGS)]
        return tuple(
            Leg(
                underlying if i == STOCK else market.chain.symbols[i],
                int(RATIO[action, leg]),
            )
            for leg, i in enumerate(chosen)
            if i != NO_LEG
        )
