"""Any sequence of orders, quotes, bars, expiries, dividends, corporate actions, halts and kills."""

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.execution.ledger import Announced, Ledger, exact
from tests.execution.scene import (
    NOW_NS,
    QQQ_CALL_100,
    QQQ_PUT_100,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    open_order,
    trade_bar,
)
from tests.usual import fee_schedule, risk_limits
from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    CashMoved,
    Converted,
    CorporateActionApplied,
    DividendPaid,
    Event,
    MarginChanged,
    OrderFilled,
    OwnerCommand,
    Settled,
)
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.execution.legs import is_stock
from trading.execution.margin.buying_power import underlying_prices
from trading.execution.margin.reg_t import defined_risk_margin, reg_t_margin
from trading.execution.matching import (
    LIMIT_TOLERANCE,
    MINIMUM_PRICE,
    FillStyle,
    MatchCode,
    check_quote,
    touch_price,
)
from trading.execution.money import round_usd
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView, Rejection
from trading.execution.owner import Command, execute_command
from trading.execution.portfolio import Account
from trading.execution.settlement import value_at_expiry
from trading.execution.states import TradingState
from trading.market.contracts import parse_symbol
from trading.market.corporate_actions import (
    CorporateAction,
    Merger,
    Rename,
    SpecialDividend,
    SpinOff,
    Split,
    action_id,
)
from trading.market.dividends import Dividend

SLIPPAGE = 0.01
STEPS = 3
EXPIRIES = (date(2026, 1, 16), date(2026, 2, 20))
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
RATIO = st.sampled_from([(2, 1), (10, 1), (3, 1), (3, 2), (7, 4), (5, 4), (1, 10), (1, 7), (2, 3)])
"""Whole splits, odd ones and reverse ones: shares after, for how many before."""
NAMES = ("SPY", "QQQ", "NEWCO", "SPUN")


def announced(action: CorporateAction, spot: float) -> Announced:
    """An action as the exchange tells it to a ledger."""
    price = exact(spot)
    kind = str(action.kind)
    if isinstance(action, Split):
        return Announced(kind, price, ratio=Fraction(action.new, action.old))
    if isinstance(action, SpecialDividend):
        return Announced(kind, price, amount=exact(action.amount))
    if isinstance(action, SpinOff):
        new = action.new_symbol
        return Announced(kind, price, action.ratio, exact(action.price), new)
    if isinstance(action, Merger):
        return Announced(kind, price, action.ratio, exact(action.cash), action.new_symbol)
    assert isinstance(action, Rename)
    return Announced(kind, price, new_symbol=action.new_symbol)


def lost_for_good(each: Converted) -> float:
    """What a contract gains that from now on delivers cash alone: it is settled at once."""
    delivered = each.deliverable
    if delivered is None or delivered.shares or delivered.others:
        return 0.0
    contract = parse_symbol(each.into)
    worth = max(int(contract.right) * (delivered.cash - contract.strike * 100.0), 0.0)
    return each.into_quantity * (worth - each.mark * 100.0)


class WatchedBroker(PaperBroker):
    """Compares, after every transaction, the account with the journal read back from its file."""

    twin: Account
    read: int
    ledger: Ledger
    told: int
    """Rows that the ledger has booked."""
    moved: bool
    """Whether margin moved, stock was delivered, a dividend paid or an action applied."""

    def watch(self, cash: float, before: Ledger | None = None) -> None:
        self.twin, self.read, self.ledger = Account(), 0, Ledger(exact(cash))
        self.told, self.moved = 0, False
        if before is not None:
            self.ledger.announced = before.announced
        self.follow()

    def record(self, events: Sequence[Event]) -> None:
        super().record(events)
        if hasattr(self, "twin"):
            self.follow()

    def equity_at(self, spots: dict[str, float], expired: tuple[str, ...]) -> float:
        """Equity with stock at `spots` and expired contracts at their settlement price."""
        marks = self.marks | spots
        for symbol in set(expired) & set(self.account.positions):
            spot = spots[self.account.positions[symbol].underlying]
            adjusted = self.account.adjusted
            marks[symbol] = value_at_expiry(symbol, spot, self.account.multiplier, adjusted)
        return self.account.equity(marks)

    def follow(self) -> None:
        for event in self.journal.events(after=self.read):
            self.read += 1
            self.twin.apply(event)
            self.moved |= isinstance(event, MarginChanged | DividendPaid | CorporateActionApplied)
            self.moved |= isinstance(event, Settled) and event.lots != 0
        for payload in self.journal._connection.execute(
            "SELECT payload FROM events WHERE seq > ? ORDER BY seq", (self.told,)
        ):
            self.told += 1
            self.ledger.book(json.loads(payload[0]))
        assert self.told == self.read
        assert self.twin.fingerprint() == self.account.fingerprint()


class TradingMachine(RuleBasedStateMachine):
    """The account must keep its promises whatever happens in whatever order."""

    @initialize(
        cash=st.sampled_from([3_000.0, 30_000.0, 300_000.0]),
        naked=st.booleans(),
        fees=st.sampled_from([fee_schedule(), fee_schedule(stock_commission=0.005)]),
        shape=st.sampled_from(sorted(SHAPES)),
        units=UNITS,
    )
    def start(self, cash: float, naked: bool, fees: FeeSchedule, shape: str, units: int) -> None:
        self.folders = [tempfile.TemporaryDirectory()]
        self.cash, self.fees = cash, fees
        self.limits = risk_limits(
            max_daily_loss_pct=60.0,
            max_drawdown_pct=90.0,
            max_orders_per_minute=10_000,
            max_order_notional=150_000.0,
            allow_naked_shorts=naked,
        )
        self.now_ns = NOW_NS
        self.day = date(2026, 1, 5)
        self.held_before: dict[str, dict[str, int]] = {}
        self.known_late: list[tuple[list[Dividend], float]] = []
        self.quotes: dict[str, QuoteView] = market()
        self.broker = self.opened()
        self.submit(open_order(self.broker, shape, units))

    def opened(self) -> WatchedBroker:
        journal = Journal(Path(self.folders[-1].name) / "journal.db")
        journal._connection.execute("PRAGMA synchronous = OFF")
        account = journal.open_account("paper", self.cash, NOW_NS)
        broker = WatchedBroker(
            journal, account, self.fees, self.limits, SLIPPAGE,
            style=FillStyle.WORKING, working_steps=STEPS,
        )  # fmt: skip
        broker.watch(self.cash, self.broker.ledger if hasattr(self, "broker") else None)
        return broker

    @rule(
        which=st.integers(0, 10_000),
        bid=st.one_of(CENTS, CENTS, CENTS, NO_PRICE),
        width=WIDTH,
        size=st.sampled_from([0.0, 1.0, 3.0, 50.0]),
        age_s=st.sampled_from([0, 0, 0, 60, 100]),
    )
    def requote(self, which: int, bid: float, width: float, size: float, age_s: int) -> None:
        symbol = sorted(self.quotes)[which % len(self.quotes)]
        ask = round(bid + width, 2) if math.isfinite(bid) else 1.0
        self.quotes[symbol] = QuoteView(bid, ask, size, size, self.now_ns - age_s * SECOND_NS)

    @rule(shift=st.integers(-2_000, 2_000).map(lambda cents: cents / 100.0))
    def move_the_market(self, shift: float) -> None:
        """Stocks move, options by half as much towards the side that pays."""
        self.tell_quotes()
        for symbol, view in self.quotes.items():
            sign = 1.0 if is_stock(symbol) else 0.5 * int(parse_symbol(symbol).right)
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

    @precondition(lambda self: self.is_free("SPY"))
    @rule(shape=st.sampled_from(sorted(SHAPES)), units=UNITS)
    def open_patiently(self, shape: str, units: int) -> None:
        order = open_order(self.broker, shape, units, ts_ns=self.now_ns)
        self.submit(self.broker.patient(order, self.quotes, self.now_ns))

    @precondition(lambda self: self.broker.account.strategies)
    @rule(data=st.data())
    def close_patiently(self, data: st.DataObject) -> None:
        underlying = data.draw(st.sampled_from(sorted(self.broker.account.strategies)))
        order = close_order(self.broker, underlying=underlying, ts_ns=self.now_ns)
        self.submit(self.broker.patient(order, self.quotes, self.now_ns))

    @precondition(lambda self: self.broker.account.working_orders)
    @rule()
    def step(self) -> None:
        """A step goes nearer to the touch of now, ends at it, and never past the buying power."""
        for waiting in list(self.broker.account.working_orders.values()):
            if not waiting.order.leg_limits:
                continue
            order_id, before = waiting.order.order_id, self.broker.account.buying_power
            filled = self.broker.step(waiting, self.quotes, self.now_ns)
            after = self.broker.account
            if filled is not None:
                self.check_fill(filled)
            if order_id in after.working_orders:
                now = after.working_orders[order_id]
                assert now.step in (waiting.step, waiting.step + 1) and now.step < STEPS
                opens = now.order.intent is Intent.OPEN
                assert after.buying_power >= (0.0 if opens and before >= 0.0 else before - 1e-6)

    @rule()
    def bar(self) -> None:
        self.now_ns += 60 * SECOND_NS
        waiting = dict(self.broker.account.working_orders)
        fills = trade_bar(self.broker, self.quotes, self.now_ns)
        for filled in fills:
            order = waiting[filled.order_id].order
            if order.leg_limits:
                self.check_worked(filled, order)
            else:
                self.check_fill(filled)
        if not fills and self.broker.account.trading_state is not TradingState.HALTED:
            self.margin_follows_the_market()

    @precondition(lambda self: self.broker.account.positions)
    @rule(spy=SPOT, qqq=SPOT, expiry=st.sampled_from(EXPIRIES))
    def expire(self, spy: float, qqq: float, expiry: date) -> None:
        """Settlement changes what is held, not what it is worth."""
        self.now_ns += SECOND_NS
        spots = {"SPY": spy, "QQQ": qqq, "NEWCO": spy, "SPUN": qqq}
        symbols = tuple(
            name
            for name in self.broker.account.positions
            if not is_stock(name) and parse_symbol(name).expiry == expiry
        )
        self.broker.mark({})
        before = self.broker.equity_at(spots, symbols)
        self.broker.settle(symbols, spots, self.now_ns)
        assert math.isclose(before, self.broker.equity_at(spots, ()), abs_tol=1e-6)
        assert not set(symbols) & set(self.broker.account.positions)

    @precondition(lambda self: self.broker.account.strategies)
    @rule(
        which=st.integers(0, 100),
        amounts=st.lists(st.integers(1, 500).map(lambda c: c / 100.0), min_size=1, max_size=2),
        spot=SPOT,
        held_over=st.booleans(),
        told_late=st.booleans(),
    )
    def go_ex_dividend(
        self, which: int, amounts: list[float], spot: float, held_over: bool, told_late: bool
    ) -> None:
        """One or two dividends of a morning are paid on what was held into it, each once."""
        self.now_ns += SECOND_NS
        self.day += timedelta(days=1)
        broker, name = self.broker, self.an_underlying(which)
        told = [Dividend(name, self.day, amount) for amount in amounts]
        broker.assign_early(told, self.quotes, {name: spot}, self.now_ns)
        if not held_over:
            return
        held = broker.account.shares_held(name)
        cash = broker.account.cash
        broker.pay_dividends(told[:1] if told_late else told, self.now_ns)
        if told_late:
            self.known_late.append((told, held))
        else:
            owed = held * sum(amounts)
            assert math.isclose(broker.account.cash - cash, owed, abs_tol=1e-5)
        assert broker.pay_dividends(told[:1] if told_late else told, self.now_ns) == []

    @precondition(lambda self: self.known_late)
    @rule()
    def tell_of_the_other_dividend(self) -> None:
        """It is paid on the shares of then, whatever became of them since."""
        told, held = self.known_late.pop()
        cash = self.broker.account.cash
        self.broker.pay_dividends(told, self.now_ns)
        owed = held * sum(each.amount for each in told[1:])
        assert math.isclose(self.broker.account.cash - cash, owed, abs_tol=1e-5)

    @precondition(lambda self: self.broker.account.strategies)
    @rule(
        which=st.integers(0, 100),
        kind=st.sampled_from(["split", "split", "special", "rename", "spin_off", "merger"]),
        ratio=RATIO,
        cents=st.integers(13, 3_000),
    )
    def take_a_corporate_action(
        self, which: int, kind: str, ratio: tuple[int, int], cents: int
    ) -> None:
        """Equity is the same before and after, to the cent, and it happens once."""
        self.now_ns += SECOND_NS
        self.day += timedelta(days=1)
        broker, name, (new, old) = self.broker, self.an_underlying(which), ratio
        if name == "SPUN" and kind in ("rename", "spin_off", "merger"):
            return
        broker.mark({})
        spot = broker.marks.get(name, 100.5)
        amount = min(cents / 100.0, round(spot / 3.0, 2))
        to = "QQQ" if name != "QQQ" else "SPY"
        action: CorporateAction
        if kind == "split":
            action = Split(name, self.day, new, old)
        elif kind == "special":
            action = SpecialDividend(name, self.day, max(amount, 0.01))
        elif kind == "rename":
            action = Rename(name, self.day, "NEWCO" if name != "NEWCO" else "SPY")
        elif kind == "spin_off":
            action = SpinOff(name, self.day, "SPUN", Fraction(1, 3), max(amount, 0.01))
        else:
            shares = Fraction(new, old) if cents % 3 else Fraction(0)
            action = Merger(name, self.day, to if shares else "", shares, max(amount, 0.01))
        if self.closes_by_joining(action) or self.gives_more_than_there_is(action, spot):
            return
        broker.ledger.announce(action_id(action), announced(action, spot))
        self.held_before[action_id(action)] = {
            symbol: each.quantity
            for symbol, each in broker.account.positions.items()
            if each.underlying == name
        }
        before = broker.equity()
        if isinstance(action, SpecialDividend):
            paid = Dividend(name, self.day, action.amount, special=True)
            broker.pay_dividends([paid], self.now_ns)
        elif isinstance(action, Merger) and not action.ratio:
            # What a share becomes is all it is worth.
            worth = {name: action.cash} if name in broker.account.positions else {}
            before = broker.account.equity(broker.marks | worth | self.worth_in_cash(action))
            spot = action.cash
            broker.ledger.announce(action_id(action), announced(action, spot))
        booked = broker.apply_action(
            action, self.now_ns, spot=spot, marks={name: spot} | self.worth_in_cash(action)
        )
        assert booked is not None
        before += sum(map(lost_for_good, booked.converted))
        assert math.isclose(before, broker.equity(), abs_tol=0.005), booked
        assert broker.apply_action(action, self.now_ns, spot=spot) is None
        self.tell_quotes(only_new=True)

    @precondition(lambda self: self.broker.account.actions and self.broker.account.strategies)
    @rule(which=st.integers(0, 100))
    def take_an_action_back(self, which: int) -> None:
        """All is as it was before it, at the same equity, to the cent."""
        self.now_ns += SECOND_NS
        broker, name = self.broker, self.an_underlying(which)
        before, digest = broker.equity(), broker.account.fingerprint()
        command = Command(OwnerCommand.UNDO_ACTION, "owner", "it was called off", symbol=name)
        try:
            execute_command(broker, command, self.now_ns)
        except OwnerRefused:
            assert broker.account.fingerprint() == digest
            return
        assert math.isclose(before, broker.equity(), abs_tol=0.005)
        undone = [e for e in broker.journal.events() if isinstance(e, CorporateActionApplied)][-1]
        held = {symbol: each.quantity for symbol, each in broker.account.positions.items()}
        assert {each.into: held[each.into] for each in undone.converted if each.into} == (
            self.held_before.pop(undone.undoes)
        )
        assert undone.undoes not in broker.account.actions
        self.tell_quotes(only_new=True)

    @precondition(lambda self: self.broker.account.strategies)
    @rule(which=st.integers(0, 100), reason=st.sampled_from(["halted", "unexplained", "odd"]))
    def suspend(self, which: int, reason: str) -> None:
        """What is suspended is worth what it was, and neither opens nor closes."""
        name, before = self.an_underlying(which), self.broker.equity()
        self.broker.suspend(name, reason, self.now_ns)
        assert self.broker.equity() == before
        self.broker.mark(self.quotes)
        marks, held = self.broker.account.kept_marks[name], self.broker.account.positions
        kept = {symbol: mark for symbol, mark in marks.items() if symbol in held}
        assert {symbol: self.broker.marks[symbol] for symbol in kept} == kept

    @precondition(lambda self: self.broker.account.suspensions)
    @rule(which=st.integers(0, 100), one=st.booleans())
    def reinstate(self, which: int, one: bool) -> None:
        suspensions = self.broker.account.suspensions
        name = sorted(suspensions)[which % len(suspensions)]
        lifts = suspensions[name][0] if one else None
        left = suspensions[name][1:] if one else []
        self.broker.reinstate(name, "it trades again", self.now_ns, lifts)
        assert self.broker.account.suspensions.get(name, []) == left

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
        marks = dict(self.broker.marks)
        self.broker.journal.close()
        self.broker = self.opened()
        self.broker.marks = marks
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
        self.tell_quotes(size=1e6)
        broker = self.broker
        for order_id in list(broker.account.working_orders):
            broker.cancel(order_id, self.now_ns)
        broker.mark(self.quotes)
        broker.reset_peak(broker.equity(), self.now_ns)
        self.end_session()
        broker.on_bar(self.quotes, self.now_ns)
        broker.set_trading_state(TradingState.ACTIVE, "operator", self.now_ns)
        for underlying in list(broker.account.suspended):
            broker.reinstate(underlying, "operator", self.now_ns)
        broker.record([CashMoved(self.now_ns, broker.account.cash_moves + 1, 1e8, broker.equity())])
        for underlying in list(broker.account.strategies):
            result = broker.submit(
                broker.liquidation(underlying, self.now_ns), self.quotes, True, self.now_ns
            )
            assert isinstance(result, Fill), result
        account = broker.account
        assert not account.positions
        assert not account.strategies
        assert account.margin_used == 0.0
        earned = account.paid_in + account.realised_pnl
        assert account.buying_power == account.cash
        assert math.isclose(account.cash, earned, abs_tol=1e-5)
        amount = round_usd(account.cash - self.cash) - 0.01
        broker.record([CashMoved(self.now_ns, account.cash_moves + 1, -amount, account.cash)])

    @invariant()
    def cash_and_value_change_only_by_fills_fees_settlement_and_marks(self) -> None:
        broker, ledger = self.broker, self.broker.ledger
        account = broker.account
        assert math.isclose(account.cash, float(ledger.cash), abs_tol=1e-5)
        held = {
            symbol: position.quantity * (round(account.size(symbol)) if is_stock(symbol) else 1)
            for symbol, position in account.positions.items()
        }
        assert held == ledger.holdings()
        equity = broker.equity()
        assert math.isclose(equity, ledger.value(broker.marks), rel_tol=1e-12, abs_tol=1e-4)
        parts = [account.contribution(symbol, broker.marks) for symbol in account.net_cash]
        assert math.isclose(account.paid_in + sum(parts), equity, abs_tol=1e-4)

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
            greatest_loss = defined_risk_margin(held.legs, 100.0, self.broker.account.adjusted)
            if held.margin_moves:
                assert 0.0 <= held.margin_per_unit < math.inf
            else:
                assert held.margin_per_unit == greatest_loss

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
            if held.margin_moves and name in spots and name not in broker.account.suspensions:
                adjusted = broker.account.adjusted
                now = reg_t_margin(held.legs, 100.0, spots[name], broker.marks, adjusted)
                assert math.isclose(held.margin_per_unit, now, rel_tol=0.011, abs_tol=0.011)

    def is_free(self, underlying: str) -> bool:
        account = self.broker.account
        waiting = {each.order.underlying for each in account.working_orders.values()}
        return underlying not in waiting | account.strategies.keys()

    def an_underlying(self, which: int) -> str:
        names = sorted(self.broker.account.strategies)
        return names[which % len(names)]

    def closes_by_joining(self, action: CorporateAction) -> bool:
        """Whether what comes closes what is held the other way round, and so realises a difference.

        Shares of one company become those of another; and a name that another company had here
        is taken over with its contracts.
        """
        account, new = self.broker.account, getattr(action, "new_symbol", "")
        pairs = [(new, action.underlying)]
        if isinstance(action, Rename):
            pairs += [
                (name.replace(f"O:{action.underlying}", f"O:{new}", 1), name)
                for name, position in account.positions.items()
                if position.underlying == action.underlying and not is_stock(name)
            ]
        return any(
            account.positions[ours].quantity * account.positions[theirs].quantity < 0
            for ours, theirs in pairs
            if ours in account.positions and theirs in account.positions
        )

    @staticmethod
    def gives_more_than_there_is(action: CorporateAction, spot: float) -> bool:
        """Whether a company gives away so much that less than a cent a share would be left.

        None can: the price stays at a cent, so that what is given comes from nowhere.
        """
        if isinstance(action, SpecialDividend):
            return spot - action.amount < 0.01
        if isinstance(action, SpinOff):
            return spot - float(action.ratio) * action.price < 0.01
        return isinstance(action, Merger) and action.ratio > 0 and spot - action.cash < 0.01

    def worth_in_cash(self, action: CorporateAction) -> dict[str, float]:
        """What options of a company are worth that is bought for cash: nobody quotes more."""
        if not isinstance(action, Merger) or action.ratio:
            return {}
        account = self.broker.account
        return {
            name: value_at_expiry(name, action.cash, account.multiplier, account.adjusted)
            for name, position in account.positions.items()
            if position.underlying == action.underlying and not is_stock(name)
        }

    def tell_quotes(self, size: float = 50.0, *, only_new: bool = False) -> None:
        """Quotes of what is listed, and of what is held besides at its last value."""
        listed = market(self.now_ns, size)
        broker = self.broker
        broker.mark({})
        held = {}
        for symbol, mark in broker.marks.items():
            bid = max(round(mark - 0.05, 2), 0.01)
            held[symbol] = QuoteView(bid, round(bid + 0.1, 2), size, size, self.now_ns)
        converted = {each.split("/")[0] for each in broker.account.actions}
        kept = {
            symbol: view
            for symbol, view in held.items()
            if symbol not in listed or broker.account.positions[symbol].underlying in converted
        }
        self.quotes = {**held, **self.quotes} if only_new else {**listed, **kept}

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
                assert self.lots(leg.symbol, leg.quantity) <= view.ask_size
            else:
                floor = min(view.bid, max(view.bid - SLIPPAGE, MINIMUM_PRICE))
                assert floor <= leg.price <= view.bid
                assert self.lots(leg.symbol, -leg.quantity) <= view.bid_size

    def check_worked(self, filled: Fill, order: Order) -> None:
        """A limit that lay trades at itself, once the touches together have come to it."""
        assert tuple(leg.price for leg in filled.legs) == order.leg_limits
        touches = []
        for leg in filled.legs:
            view, buys = self.quotes[leg.symbol], leg.quantity > 0
            age_ns = self.broker.max_quote_age_ns
            code = check_quote(view.bid, view.ask, view.ts_ns, self.now_ns, age_ns)
            assert code == MatchCode.OK
            size = view.ask_size if buys else view.bid_size
            assert self.lots(leg.symbol, abs(leg.quantity)) <= size
            touches.append(touch_price(view.bid, view.ask, buys, SLIPPAGE))
        ratios = [leg.ratio for leg in order.legs]
        possible = sum(ratio * price for ratio, price in zip(ratios, touches, strict=True))
        assert order.limit_price is not None
        assert possible <= order.limit_price + LIMIT_TOLERANCE
        assert filled.order_id not in self.broker.account.working_orders

    def lots(self, symbol: str, quantity: int) -> float:
        """Round lots of what was traded, by the unit it is held in; 0 where it no longer is."""
        if not is_stock(symbol) or symbol not in self.broker.account.positions:
            return 0.0 if is_stock(symbol) else quantity
        return quantity * self.broker.account.size(symbol) / 100.0

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.close_everything()
            self.broker.journal.close()
        for folder in getattr(self, "folders", []):
            folder.cleanup()
