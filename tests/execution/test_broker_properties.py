"""What must hold for money whatever is ordered, quoted, restarted or killed."""

import math
import signal
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.execution import trader
from tests.execution.scene import (
    NOW_NS,
    QQQ_CALL_100,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    new_broker,
    open_order,
)
from trading.execution.broker import PaperBroker
from trading.execution.events import OrderFilled, Settled
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.execution.matching import MatchCode, check_quote
from trading.execution.orders import Fill, Leg, Order, QuoteView
from trading.execution.risk import RiskLimits

CASH = 3_000.0
LIMITS = RiskLimits(max_daily_loss_pct=60.0, max_orders_per_minute=10_000)

PRICE = st.one_of(
    st.integers(0, 1500).map(lambda cents: cents / 100.0),
    st.sampled_from([math.nan, -1.0, math.inf, 0.0]),
)
WIDTH = st.sampled_from([0.01, 0.05, 0.10, 0.50, 0.0, -0.05])


class TradingMachine(RuleBasedStateMachine):
    """Any sequence of orders, bars, restarts and expiries on any quotes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now_ns = NOW_NS
        self.quotes: dict[str, QuoteView] = market()
        self.broker = self.reopened()

    def reopened(self) -> PaperBroker:
        return new_broker(
            Path(self.folder.name), CASH, limits=LIMITS, schedule=FeeSchedule(), slippage=0.01
        )

    @rule(
        symbol=st.sampled_from(sorted(market())),
        bid=PRICE,
        width=WIDTH,
        size=st.sampled_from([0.0, 1.0, 3.0, 50.0]),
        age_s=st.sampled_from([0, 0, 0, 60, 100]),
    )
    def requote(self, symbol: str, bid: float, width: float, size: float, age_s: int) -> None:
        ask = round(bid + width, 2) if math.isfinite(bid) else 1.0
        ts_ns = self.now_ns - age_s * SECOND_NS
        self.quotes[symbol] = QuoteView(bid, ask, size, size, ts_ns)

    @rule()
    def refresh(self) -> None:
        self.quotes = market(self.now_ns)

    @rule(
        shape=st.sampled_from(sorted(SHAPES)),
        units=st.integers(1, 12),
        day=st.booleans(),
        limit=st.one_of(st.none(), st.integers(-500, 500).map(lambda cents: cents / 100.0)),
    )
    def open(self, shape: str, units: int, day: bool, limit: float | None) -> None:
        order = open_order(self.broker, shape, units, limit=limit, day=day, ts_ns=self.now_ns)
        self.submit(order)

    @rule(units=st.integers(1, 12))
    def open_another_underlying(self, units: int) -> None:
        legs = (Leg(QQQ_CALL_100, 1),)
        self.submit(open_order(self.broker, "long_call", units, underlying="QQQ", legs=legs))

    @precondition(lambda self: self.broker.account.strategies)
    @rule(
        data=st.data(),
        day=st.booleans(),
        limit=st.one_of(st.none(), st.integers(-500, 500).map(lambda cents: cents / 100.0)),
    )
    def close(self, data: st.DataObject, day: bool, limit: float | None) -> None:
        strategies = self.broker.account.strategies
        underlying = data.draw(st.sampled_from(sorted(strategies)))
        units = data.draw(st.integers(1, strategies[underlying].units))
        self.submit(
            close_order(
                self.broker, units, limit=limit, day=day, underlying=underlying, ts_ns=self.now_ns
            )
        )

    @rule()
    def bar(self) -> None:
        self.now_ns += 60 * SECOND_NS
        for filled in self.broker.on_bar(self.quotes, self.now_ns):
            self.check_fill(filled)

    @rule(price=st.integers(8_000, 12_000).map(lambda cents: cents / 100.0))
    def expire(self, price: float) -> None:
        self.now_ns += SECOND_NS
        self.broker.settle(market(), {"SPY": price, "QQQ": price}, self.now_ns)

    @rule()
    def end_session(self) -> None:
        self.broker.close_session("2026-01-05", self.broker.equity(), self.now_ns)
        assert not self.broker.account.working_orders

    @rule()
    def restart(self) -> None:
        before = self.broker.account.fingerprint()
        self.broker.journal.close()
        self.broker = self.reopened()
        assert self.broker.account.fingerprint() == before

    @invariant()
    def buying_power_is_never_negative(self) -> None:
        assert self.broker.account.buying_power >= 0.0

    @invariant()
    def the_journal_tells_the_account_even_when_it_is_told_twice(self) -> None:
        folded = self.broker.journal.fold()
        assert folded.fingerprint() == self.broker.account.fingerprint()
        for event in self.broker.journal.events(after=1):
            folded.apply(event)
        assert folded.fingerprint() == self.broker.account.fingerprint()

    @invariant()
    def cash_is_the_sum_of_what_the_journal_says(self) -> None:
        cash = Decimal(str(CASH))
        for event in self.broker.journal.events():
            if isinstance(event, OrderFilled):
                cash += Decimal(str(event.fill.premium)) - Decimal(str(event.fill.fees))
            elif isinstance(event, Settled):
                cash += Decimal(str(event.cash))
        assert self.broker.account.cash == float(cash)

    @invariant()
    def a_flat_account_has_booked_everything(self) -> None:
        account = self.broker.account
        if not account.strategies:
            assert not account.positions
            assert account.cash == round(CASH + account.realised_pnl, 6)
        assert account.winning_trades <= account.closed_trades

    @invariant()
    def positions_are_the_legs_of_the_strategies(self) -> None:
        account = self.broker.account
        legs = {
            leg.symbol: leg.ratio * strategy.units
            for strategy in account.strategies.values()
            for leg in strategy.legs
        }
        assert {s: position.quantity for s, position in account.positions.items()} == legs

    def submit(self, order: Order) -> None:
        result = self.broker.submit(order, self.quotes, True, self.now_ns)
        if isinstance(result, Fill):
            self.check_fill(result)

    def check_fill(self, filled: Fill) -> None:
        assert filled.fees > 0.0
        for leg in filled.legs:
            view = self.quotes[leg.symbol]
            age_ns = self.broker.max_quote_age_ns
            code = check_quote(view.bid, view.ask, view.ts_ns, self.now_ns, age_ns)
            assert code == MatchCode.OK
            if leg.quantity > 0:
                assert leg.price >= view.ask
                assert leg.quantity <= view.ask_size
            else:
                assert leg.price <= view.bid
                assert -leg.quantity <= view.bid_size

    def teardown(self) -> None:
        self.broker.journal.close()
        self.folder.cleanup()


TestTrading = TradingMachine.TestCase
TestTrading.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_trader_killed_at_any_instant_ends_like_one_that_never_was(tmp_path: Path) -> None:
    orders = 90
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    trader.trade(undisturbed, orders)
    for acknowledgements in (1, 7, 30):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.execution.trader", str(killed), str(orders)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(acknowledgements)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line for line in process.stdout if line.endswith("\n")]
        process.wait()
        with Journal(killed / "journal.db") as journal:
            assert journal.fold().orders >= int(acknowledged[-1])
    trader.trade(killed, orders)
    with Journal(killed / "journal.db") as resumed, Journal(undisturbed / "journal.db") as whole:
        assert resumed.fold().orders == orders
        assert resumed.digest() == whole.digest()
        assert resumed.fold().fingerprint() == whole.fold().fingerprint()
