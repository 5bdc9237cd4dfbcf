"""Any sequence of orders, quotes, bars, expiries, assignments, dividends and kills."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.execution.ledger import Ledger
from tests.execution.scene import (
    CALL_100,
    CALL_105,
    LATER_CALL_100,
    NOW_NS,
    PUT_95,
    PUT_100,
    QQQ_CALL_100,
    QQQ_PUT_100,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    open_order,
)
from trading.execution.broker import PaperBroker
from trading.execution.buying_power import underlying_prices
from trading.execution.events import DividendPaid, Event, MarginChanged, OrderFilled, Settled
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.execution.matching import MINIMUM_PRICE, MatchCode, check_quote
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView, Rejection
from trading.execution.portfolio import Account
from trading.execution.requirement import legs_reserve, market_requirement
from trading.execution.risk import RiskLimits, TradingState
from trading.execution.settlement import settlement_price
from trading.market.contracts import parse_symbol
from trading.market.dividends import Dividend

SLIPPAGE = 0.01
EXPIRIES = (
    (CALL_100, CALL_105, PUT_100, PUT_95, QQQ_CALL_100, QQQ_PUT_100),
    (LATER_CALL_100,),
)
QQQ_SHAPES: dict[str, tuple[Leg, ...]] = {
    "long_call": (Leg(QQQ_CALL_100, 1),),
    "short_strangle": (Leg(QQQ_CALL_100, -1), Leg(QQQ_PUT_100, -1)),
    "collar": (Leg("QQQ", 1), Leg(QQQ_CALL_100, -1), Leg(QQQ_PUT_100, 1)),
}

CENTS = st.integers(0, 1500).map(lambda cents: cents / 100.0)
NO_PRICE = st.sampled_from([0.0, -1.0, math.nan, math.inf])
WIDTH = st.sampled_from([0.01, 0.05, 0.10, 0.50, 0.0, -0.05])
LIMIT = st.one_of(st.none(), st.integers(-500, 500).map(lambda cents: cents / 100.0))
UNITS = st.sampled_from([1, 1, 2, 3, 5, 12])
SPOT = st.integers(8_000, 12_000).map(lambda cents: cents / 100.0)


class WatchedBroker(PaperBroker):
    """Compares, after every transaction, the account with the journal read back from its file."""

    twin: Account
    read: int
    ledger: Ledger
    moved: bool
    """Whether margin moved, stock was delivered or a dividend paid."""

    def watch(self, cash: float) -> None:
        self.twin, self.read, self.ledger = Account(), 0, Ledger(Decimal(str(cash)))
        self.moved = False
        self.follow()

    def record(self, events: Sequence[Event]) -> None:
        super().record(events)
        if hasattr(self, "twin"):
            self.follow()

    def equity_at(self, spots: dict[str, float], expired: tuple[str, ...]) -> float:
        """Equity with stock at `spots` and expired contracts at their settlement price."""
        marks = self.marks | spots
        for symbol in set(expired) & set(self.account.positions):
            contract = parse_symbol(symbol)
            marks[symbol] = settlement_price(contract, spots[contract.underlying])
        return self.account.equity(marks)

    def follow(self) -> None:
        for event in self.journal.events(after=self.read):
            self.read += 1
            self.twin.apply(event)
            self.ledger.book(event)
            self.moved |= isinstance(event, MarginChanged | DividendPaid)
            self.moved |= isinstance(event, Settled) and event.lots != 0
        assert self.twin.fingerprint() == self.account.fingerprint()


class TradingMachine(RuleBasedStateMachine):
    """The account must keep its promises whatever happens in whatever order."""

    @initialize(
        cash=st.sampled_from([3_000.0, 30_000.0, 300_000.0]),
        naked=st.booleans(),
        fees=st.sampled_from([FeeSchedule(), FeeSchedule(stock_commission=0.005)]),
        shape=st.sampled_from(sorted(SHAPES)),
        units=UNITS,
    )
    def start(self, cash: float, naked: bool, fees: FeeSchedule, shape: str, units: int) -> None:
        self.folders = [tempfile.TemporaryDirectory()]
        self.cash, self.fees = cash, fees
        self.limits = RiskLimits(
            max_daily_loss_pct=60.0,
            max_drawdown_pct=90.0,
            max_orders_per_minute=10_000,
            max_order_notional=150_000.0,
            allow_naked_shorts=naked,
        )
        self.now_ns = NOW_NS
        self.day = date(2026, 1, 5)
        self.quotes: dict[str, QuoteView] = market()
        self.broker = self.opened()
        self.submit(open_order(self.broker, shape, units))

    def opened(self) -> WatchedBroker:
        journal = Journal(Path(self.folders[-1].name) / "journal.db")
        journal._connection.execute("PRAGMA synchronous = OFF")
        account = journal.open_account("paper", self.cash, NOW_NS)
        broker = WatchedBroker(journal, account, self.fees, self.limits, SLIPPAGE)
        broker.watch(self.cash)
        return broker

    @rule(
        symbol=st.sampled_from(sorted(market())),
        bid=st.one_of(CENTS, CENTS, CENTS, NO_PRICE),
        width=WIDTH,
        size=st.sampled_from([0.0, 1.0, 3.0, 50.0]),
        age_s=st.sampled_from([0, 0, 0, 60, 100]),
    )
    def requote(self, symbol: str, bid: float, width: float, size: float, age_s: int) -> None:
        ask = round(bid + width, 2) if math.isfinite(bid) else 1.0
        self.quotes[symbol] = QuoteView(bid, ask, size, size, self.now_ns - age_s * SECOND_NS)

    @rule(shift=st.integers(-2_000, 2_000).map(lambda cents: cents / 100.0))
    def move_the_market(self, shift: float) -> None:
        """Stocks move, options by half as much towards the side that pays."""
        self.quotes = market(self.now_ns)
        for symbol, view in self.quotes.items():
            sign = 1 if not symbol.startswith("O:") else (0.5 if "C00" in symbol else -0.5)
            bid = max(round(view.bid + sign * shift, 2), 0.01)
            self.quotes[symbol] = view._replace(bid=bid, ask=round(bid + 0.1, 2))

    @precondition(lambda self: self.is_free("SPY"))
    @rule(
        shape=st.sampled_from(sorted(SHAPES)), units=UNITS, day=st.booleans(), limit=LIMIT,
    )  # fmt: skip
    def open(self, shape: str, units: int, day: bool, limit: float | None) -> None:
        order = open_order(self.broker, shape, units, limit=limit, day=day, ts_ns=self.now_ns)
        self.submit(order)

    @precondition(lambda self: self.is_free("QQQ"))
    @rule(shape=st.sampled_from(sorted(QQQ_SHAPES)), units=UNITS)
    def open_on_another_underlying(self, shape: str, units: int) -> None:
        legs = QQQ_SHAPES[shape]
        self.submit(open_order(self.broker, shape, units, underlying="QQQ", legs=legs))

    @precondition(lambda self: self.broker.account.strategies)
    @rule(data=st.data(), day=st.booleans(), limit=LIMIT)
    def close(self, data: st.DataObject, day: bool, limit: float | None) -> None:
        strategies = self.broker.account.strategies
        underlying = data.draw(st.sampled_from(sorted(strategies)))
        units = data.draw(st.integers(1, strategies[underlying].units))
        order = close_order(self.broker, units, limit=limit, day=day, underlying=underlying)
        self.submit(order)

    @rule()
    def bar(self) -> None:
        self.now_ns += 60 * SECOND_NS
        fills = self.broker.on_bar(self.quotes, self.now_ns)
        for filled in fills:
            self.check_fill(filled)
        if not fills and self.broker.account.trading_state is not TradingState.HALTED:
            self.margin_follows_the_market()

    @precondition(lambda self: self.broker.account.positions)
    @rule(spy=SPOT, qqq=SPOT, symbols=st.sampled_from(EXPIRIES))
    def expire(self, spy: float, qqq: float, symbols: tuple[str, ...]) -> None:
        """Settlement changes what is held, not what it is worth."""
        self.now_ns += SECOND_NS
        spots = {"SPY": spy, "QQQ": qqq}
        self.broker.mark({})
        before = self.broker.equity_at(spots, symbols)
        self.broker.settle(symbols, spots, self.now_ns)
        assert math.isclose(before, self.broker.equity_at(spots, ()), abs_tol=1e-6)
        assert not set(symbols) & set(self.broker.account.positions)

    @precondition(lambda self: "SPY" in self.broker.account.strategies)
    @rule(
        amount=st.integers(1, 500).map(lambda cents: cents / 100.0),
        spot=SPOT,
        held_over=st.booleans(),
    )
    def go_ex_dividend(self, amount: float, spot: float, held_over: bool) -> None:
        self.now_ns += SECOND_NS
        self.day += timedelta(days=1)
        dividend = Dividend("SPY", self.day, amount)
        self.broker.assign_early([dividend], self.quotes, {"SPY": spot}, self.now_ns)
        if held_over:
            held = self.broker.account.positions.get("SPY")
            (paid,) = self.broker.pay_dividends([dividend], self.now_ns)
            assert paid.lots == (held.quantity if held else 0)
            assert self.broker.pay_dividends([dividend], self.now_ns) == []

    @precondition(lambda self: self.broker.stock_to_liquidate())
    @rule()
    def liquidate_delivered_stock(self) -> None:
        for underlying in self.broker.stock_to_liquidate():
            self.submit(self.broker.liquidation(underlying, self.now_ns))

    @precondition(lambda self: self.broker.account.orders)
    @rule()
    def end_session(self) -> None:
        self.day += timedelta(days=1)
        self.broker.close_session(self.day.isoformat(), self.broker.equity(), self.now_ns)
        assert not self.broker.account.working_orders
        assert vars(self.broker.journal.restore()) == vars(self.broker.account)

    @precondition(lambda self: self.broker.account.trading_state is not TradingState.ACTIVE)
    @rule()
    def resume(self) -> None:
        self.broker.set_trading_state(TradingState.ACTIVE, "operator", self.now_ns)
        self.broker.reset_peak(self.broker.equity(), self.now_ns)

    @precondition(lambda self: self.broker.account.orders)
    @rule()
    def kill_and_refold(self) -> None:
        """Go on with the file as a process that was killed leaves it."""
        before = self.broker.account.fingerprint()
        self.folders.append(tempfile.TemporaryDirectory())
        for part in Path(self.folders[-2].name).iterdir():
            shutil.copy(part, self.folders[-1].name)
        self.broker.journal.close()
        self.broker = self.opened()
        assert self.broker.account.fingerprint() == before

    @precondition(lambda self: self.broker.account.fills)
    @rule(data=st.data())
    def deliver_fills_again(self, data: st.DataObject) -> None:
        """Replaying, duplicating or shuffling delivered fills leaves the account identical."""
        delivered = [e for e in self.broker.journal.events() if isinstance(e, OrderFilled)]
        before = self.broker.account.fingerprint()
        for event in data.draw(st.lists(st.sampled_from(delivered), min_size=1, max_size=8)):
            self.broker.account.apply(event)
        assert self.broker.account.fingerprint() == before

    @precondition(lambda self: self.broker.account.strategies)
    @rule()
    def close_everything(self) -> None:
        """Closing everything leaves zero positions and zero margin."""
        self.now_ns += 60 * SECOND_NS
        self.quotes = market(self.now_ns, size=500.0)
        broker = self.broker
        broker.expire_day_orders(self.now_ns)
        broker.mark(self.quotes)
        broker.reset_peak(broker.equity(), self.now_ns)
        self.end_session()
        broker.on_bar(self.quotes, self.now_ns)
        broker.set_trading_state(TradingState.ACTIVE, "operator", self.now_ns)
        for underlying in list(broker.account.suspended):
            broker.reinstate(underlying, "operator", self.now_ns)
        for underlying in list(broker.account.strategies):
            result = broker.submit(
                broker.liquidation(underlying, self.now_ns), self.quotes, True, self.now_ns
            )
            assert isinstance(result, Fill), result
        account = broker.account
        assert not account.positions
        assert not account.strategies
        assert account.reserved == 0.0
        assert account.buying_power == account.cash == round(self.cash + account.realised_pnl, 6)

    @invariant()
    def cash_and_value_change_only_by_fills_fees_settlement_and_marks(self) -> None:
        broker, ledger = self.broker, self.broker.ledger
        account = broker.account
        assert account.cash == float(ledger.cash)
        held = {symbol: position.quantity for symbol, position in account.positions.items()}
        assert held == ledger.quantities
        equity = broker.equity()
        assert math.isclose(equity, ledger.value(broker.marks), rel_tol=1e-12, abs_tol=1e-6)
        parts = [account.contribution(symbol, broker.marks) for symbol in ("SPY", "QQQ")]
        assert math.isclose(account.initial_cash + sum(parts), equity, abs_tol=1e-6)

    @invariant()
    def units_of_the_strategies_are_the_positions(self) -> None:
        account = self.broker.account
        legs = {
            leg.symbol: leg.ratio * strategy.units
            for strategy in account.strategies.values()
            for leg in strategy.legs
        }
        assert {s: position.quantity for s, position in account.positions.items()} == legs
        assert account.winning_trades <= account.closed_trades

    @invariant()
    def a_strategy_holds_back_its_greatest_loss_or_a_margin_that_moves(self) -> None:
        for held in self.broker.account.strategies.values():
            greatest_loss = legs_reserve(held.legs, 100.0)
            if held.margin_moves:
                assert 0.0 <= held.reserve_per_unit < math.inf
            else:
                assert held.reserve_per_unit == greatest_loss

    @invariant()
    def buying_power_is_negative_only_after_the_market_moved_margin_and_then_calls(self) -> None:
        account = self.broker.account
        if account.buying_power < 0.0:
            assert self.broker.moved
            by_hand = account.state_reason == "operator"
            assert account.trading_state is not TradingState.ACTIVE or by_hand

    def margin_follows_the_market(self) -> None:
        broker = self.broker
        spots = underlying_prices(self.quotes, broker.marks)
        for name, held in broker.account.strategies.items():
            if held.margin_moves and name in spots:
                now = market_requirement(held.legs, 100.0, spots[name], broker.marks)
                assert math.isclose(held.reserve_per_unit, now, rel_tol=0.011, abs_tol=0.011)

    def is_free(self, underlying: str) -> bool:
        account = self.broker.account
        waiting = {each.order.underlying for each in account.working_orders.values()}
        return underlying not in waiting | account.strategies.keys()

    def submit(self, order: Order) -> None:
        before = self.broker.account.buying_power
        result = self.broker.submit(order, self.quotes, True, self.now_ns)
        if isinstance(result, Rejection):
            return
        after = self.broker.account.buying_power
        assert after >= (0.0 if order.intent is Intent.OPEN else min(0.0, before - 1e-6))
        if result is not None:
            self.check_fill(result)

    def check_fill(self, filled: Fill) -> None:
        """No fill outside the touch and its slippage, nor on a quote that is none."""
        assert filled.fees >= 0.0
        for leg in filled.legs:
            view = self.quotes[leg.symbol]
            age_ns = self.broker.max_quote_age_ns
            code = check_quote(view.bid, view.ask, view.ts_ns, self.now_ns, age_ns)
            assert code == MatchCode.OK
            if leg.quantity > 0:
                assert view.ask <= leg.price <= view.ask + SLIPPAGE
                assert leg.quantity <= view.ask_size
            else:
                floor = min(view.bid, max(view.bid - SLIPPAGE, MINIMUM_PRICE))
                assert floor <= leg.price <= view.bid
                assert -leg.quantity <= view.bid_size

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.close_everything()
            self.broker.journal.close()
        for folder in getattr(self, "folders", []):
            folder.cleanup()
