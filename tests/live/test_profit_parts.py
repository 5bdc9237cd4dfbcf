"""What each bar earned by what, where something else than the market moved what is held."""

from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from tests.envs.desk import CALL, FRIDAY, LISTING, SYMBOL, Desk, desk, fair, session
from trading.envs.catalogue import HOLD
from trading.execution.events import DecisionMade
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView
from trading.live.profit_parts import ProfitParts
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS
from trading.market.corporate_actions import CorporateAction, Rename, SpinOff, Split
from trading.market.option_quote import OptionQuote
from trading.reporting.ledger import Trade, read_ledger

MON, TUE, NEXT = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 12)
DUE = "O:ACME260109C00100000"
MARKET = ("delta", "gamma", "vega", "theta", "quotes", "unexplained")


class Watched:
    """A desk whose bars are followed, as the trader follows its own."""

    def __init__(self, told: Desk) -> None:
        self.env, self.broker, self.journal = told.env, told.broker, told.journal
        self.parts = ProfitParts(told.env)
        told.broker.followers.append(self.parts.follow)
        self._told = 0

    def bar(self, day: date, minute: int, **prices: float) -> None:
        """Quotes of what is listed, the stocks' bars, and the close."""
        now_ns = session(day).open_ns + minute * MINUTE_NS
        for contract in LISTING:
            if self.env.listed_in(contract.symbol) and contract.expiry >= day:
                bid = round(max(fair(contract, prices[SYMBOL], now_ns) - 0.02, 0.0), 2)
                self._told += 1
                self.env.apply_quote(
                    OptionQuote(contract.symbol, bid, bid + 0.04, 50.0, 50.0, now_ns, self._told)
                )
        for symbol, price in prices.items():
            bar = StockBar(symbol, now_ns - MINUTE_NS, price, price, price, price, 1e4, price)
            assert self.env.apply_bar(bar)
        self.env.close_bar(now_ns, session(day))

    def note(self, day: date, minute: int) -> None:
        self.parts.bar(session(day).open_ns + minute * MINUTE_NS, str(day))

    def buy(self, *legs: tuple[str, int]) -> None:
        """One unit on Monday, 30 minutes after the open, a cent from the marks."""
        now_ns, marks = session(MON).open_ns + 30 * MINUTE_NS, {}
        for symbol, _ in legs:
            market, i = self.env.listed_in(symbol) or pytest.fail(symbol)
            marks[symbol] = market.spot if symbol == SYMBOL else market.chain.columns.mark[i]
        quotes = {
            name: QuoteView(mark - 0.01, mark + 0.01, 1e6, 1e6, now_ns)
            for name, mark in marks.items()
        }
        order = Order(
            self.broker.next_order_id(),
            now_ns,
            SYMBOL,
            "case",
            Intent.OPEN,
            tuple(Leg(*leg) for leg in legs),
            1,
        )
        got = self.broker.submit(order, quotes, True, now_ns, self.env.equity(), spots={})
        assert isinstance(got, Fill), got

    def over_the_night(self, *actions: CorporateAction) -> None:
        self.bar(MON, 390, ACME=100.0)
        self.env.close_session(session(MON).close_ns, session(MON), 0.0)
        self.note(MON, 390)
        self.env.set_actions(actions)
        self.env.begin_session(session(TUE))

    def earned(self, ts_ns: int) -> dict[str, Trade]:
        """The trades with what they earned so far, as their journal tells it, by underlying."""
        earned = self.parts.take_earned(self.env.symbols)[0]
        event = DecisionMade(ts_ns, SYMBOL, HOLD, "hold", 1, 0.0, 0.0, earned=earned)
        self.broker.record([event])
        ledger = read_ledger(self.journal.events())
        trades = [*ledger.trades, *ledger.open.values()]
        return {each.underlying: each for each in trades if each.earned}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with desk(tmp_path) as told:
        yield Watched(told)


def begin(watched: Watched, *legs: tuple[str, int]) -> None:
    watched.bar(MON, 30, ACME=100.0)
    watched.buy(*legs)
    watched.note(MON, 30)


def market_moves(watched: Watched) -> float:
    return sum(abs(watched.parts.parts[name]) for name in MARKET)


def test_shares_of_a_spin_off_that_are_sold_cost_their_spread_alone(watched: Watched) -> None:
    begin(watched, (SYMBOL, 1))
    watched.over_the_night(SpinOff(SYMBOL, TUE, "NEW", Fraction(6, 25), 20.0))
    assert watched.broker.account.shares_held("NEW") == 24
    assert watched.broker.account.size("NEW") == 1.0
    watched.bar(TUE, 1, ACME=95.2, NEW=20.0)
    watched.note(TUE, 1)
    now_ns = session(TUE).open_ns + 2 * MINUTE_NS
    watched.bar(TUE, 2, ACME=95.2, NEW=20.0)
    order = watched.broker.liquidation("NEW", now_ns)
    sold = watched.broker.submit(
        order, {"NEW": QuoteView(19.9, 20.1, 1e6, 1e6, now_ns)}, True, now_ns
    )
    assert isinstance(sold, Fill) and "NEW" not in watched.broker.account.positions
    watched.note(TUE, 2)
    assert watched.parts.parts["spread"] == pytest.approx(24 * -0.1)
    assert sum(abs(watched.parts.parts[name]) for name in MARKET) < 1.0

    trades = watched.earned(now_ns)
    assert {name: each.earned["spread"] for name, each in trades.items()} == {
        SYMBOL: pytest.approx(-1.0),
        "NEW": pytest.approx(24 * -0.1),
    }


def test_what_was_spun_off_earns_by_itself(watched: Watched) -> None:
    begin(watched, (SYMBOL, 1))
    watched.over_the_night(SpinOff(SYMBOL, TUE, "NEW", Fraction(6, 25), 20.0))
    watched.bar(TUE, 1, ACME=95.2, NEW=20.0)
    watched.note(TUE, 1)
    watched.parts.take_earned(watched.env.symbols)
    watched.bar(TUE, 2, ACME=96.2, NEW=21.0)
    watched.note(TUE, 2)
    earned = watched.parts.take_earned([SYMBOL])[0]
    assert {order: amounts[0] for order, amounts in earned.items()} == {
        "paper-1": pytest.approx(100.0),
        "paper-1/ACME/spin_off/2026-01-06": pytest.approx(24.0),
    }


def test_amounts_of_a_trade_under_two_names_add_up(watched: Watched) -> None:
    begin(watched, (SYMBOL, 1))
    watched.over_the_night(Rename(SYMBOL, TUE, "NEW"))
    watched.bar(TUE, 1, NEW=100.0)
    watched.note(TUE, 1)
    watched.bar(TUE, 2, NEW=101.0)
    watched.note(TUE, 2)
    earned = watched.parts.take_earned([SYMBOL])[0]
    assert {order: (amounts[0], amounts[-1]) for order, amounts in earned.items()} == {
        "paper-1": (pytest.approx(100.0), pytest.approx(-1.0))
    }


def test_a_split_is_no_profit_of_the_market(watched: Watched) -> None:
    begin(watched, (SYMBOL, 1))
    watched.over_the_night(Split(SYMBOL, TUE, 2, 1))
    watched.bar(TUE, 1, ACME=50.0)
    watched.note(TUE, 1)
    assert watched.broker.account.shares_held(SYMBOL) == 200
    assert market_moves(watched) == 0.0
    watched.bar(TUE, 2, ACME=51.0)
    watched.note(TUE, 2)
    assert watched.parts.parts["delta"] == pytest.approx(200.0)


def test_stock_that_was_called_away_after_the_last_bar_earns_nothing_more(watched: Watched) -> None:
    begin(watched, (SYMBOL, 1), (DUE, -1))
    watched.env.begin_session(session(FRIDAY))
    watched.bar(FRIDAY, 390, ACME=104.0)
    watched.note(FRIDAY, 390)
    watched.env.close_session(session(FRIDAY).close_ns, session(FRIDAY), 0.0)
    assert watched.broker.account.positions == {}
    watched.env.begin_session(session(NEXT))
    watched.bar(NEXT, 1, ACME=110.0)
    watched.note(NEXT, 1)
    assert market_moves(watched) == 0.0


def test_what_is_suspended_earns_nothing_of_the_market(watched: Watched) -> None:
    begin(watched, (CALL, 1))
    watched.bar(MON, 31, ACME=100.0)
    assert watched.env.apply_band(SYMBOL, 95.0, 105.0, [21], session(MON).open_ns + 31 * MINUTE_NS)
    watched.note(MON, 31)
    before = market_moves(watched)
    watched.bar(MON, 32, ACME=105.0)
    watched.note(MON, 32)
    assert watched.broker.account.suspended
    watched.env.apply_band(SYMBOL, 100.0, 110.0, [21], session(MON).open_ns + 32 * MINUTE_NS)
    watched.bar(MON, 33, ACME=108.0)
    watched.note(MON, 33)
    assert not watched.broker.account.suspended
    assert market_moves(watched) == before
    watched.bar(MON, 34, ACME=108.5)
    watched.note(MON, 34)
    assert watched.parts.parts["delta"] > 0.0
