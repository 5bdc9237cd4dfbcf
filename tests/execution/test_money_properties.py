"""What must hold for every single order, quote and permutation."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.execution.machine import QQQ_SHAPES
from tests.execution.scene import (
    CALL_105,
    NOW_NS,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
    trade_bar,
)
from tests.usual import fee_schedule, risk_limits
from trading.execution.broker import PaperBroker
from trading.execution.exposure import Greeks
from trading.execution.orders import Fill, QuoteView, Rejection, RejectReason
from trading.execution.states import TradingState

LIMITS = risk_limits(
    max_contracts_per_order=1_000,
    max_order_notional=1e9,
    max_daily_loss_pct=100.0,
    max_drawdown_pct=100.0,
    max_orders_per_minute=10_000,
    allow_naked_shorts=True,
)
RANDOM = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
CASH = 10_000_000.0
BAD = st.sampled_from([math.nan, math.inf, -math.inf])


@contextmanager
def rich_broker(slippage: float = 0.0) -> Iterator[PaperBroker]:
    with tempfile.TemporaryDirectory() as folder:
        broker = new_broker(
            Path(folder), CASH, limits=LIMITS, schedule=fee_schedule(), slippage=slippage
        )
        broker.journal._connection.execute("PRAGMA synchronous = OFF")
        yield broker
        broker.journal.close()


def quotes_of(draw: st.DrawFn) -> dict[str, QuoteView]:
    """Two-sided quotes of every contract and stock."""
    quotes = {}
    for symbol in market():
        bid = draw(st.integers(1, 20_000)) / 100.0
        ask = bid + draw(st.integers(1, 300)) / 100.0
        quotes[symbol] = quote(bid, ask, size=1_000.0)
    return quotes


QUOTES = st.composite(quotes_of)()


@RANDOM
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    units=st.integers(1, 20),
    quotes=QUOTES,
    slippage=st.sampled_from([0.0, 0.01, 0.25]),
)
def test_a_round_trip_without_a_quote_change_loses_at_least_the_fees(
    shape: str, units: int, quotes: dict[str, QuoteView], slippage: float
) -> None:
    with rich_broker(slippage) as broker:
        opened = broker.submit(open_order(broker, shape, units), quotes, True, NOW_NS)
        assert isinstance(opened, Fill)
        closed = broker.submit(close_order(broker), quotes, True, NOW_NS)
        assert isinstance(closed, Fill)
        assert broker.account.cash <= round(CASH - opened.fees - closed.fees, 6)
        assert not broker.account.positions


def numbers(draw: st.DrawFn) -> dict[str, Any]:
    """A sound submission in which exactly one number is none."""
    name = draw(
        st.sampled_from(
            ["equity", "bid", "ask", "limit", "spot"]
            + [f"{which}.{greek}" for which in ("held", "unit") for greek in Greeks._fields]
        )
    )
    return {"name": name, "bad": draw(BAD), "shape": draw(st.sampled_from(sorted(SHAPES)))}


@RANDOM
@given(case=st.composite(numbers)())
def test_not_a_number_anywhere_suspends_or_halts_and_never_passes_a_limit(
    case: dict[str, Any],
) -> None:
    name, bad, shape = case["name"], case["bad"], case["shape"]
    with rich_broker() as broker:
        order = open_order(broker, shape, limit=bad if name == "limit" else None)
        quotes = market()
        symbol = order.legs[-1].symbol
        if name in {"bid", "ask"}:
            quotes[symbol] = quotes[symbol]._replace(**{name: bad})
        greeks = {"held": Greeks(0.0, 0.0, 0.0), "unit": Greeks(1.0, 1.0, 1.0)}
        if "." in name:
            which, greek = name.split(".")
            greeks[which] = greeks[which]._replace(**{greek: bad})
        result = broker.submit(
            order, quotes, True, NOW_NS, bad if name == "equity" else None,
            greeks["held"], greeks["unit"], {"SPY": bad} if name == "spot" else None,
        )  # fmt: skip
        if name == "spot" and isinstance(result, Fill):
            # Only where the greatest loss is known without a price of the underlying.
            assert math.isfinite(broker.account.margin_used)
            assert not broker.account.strategies["SPY"].margin_moves
            return
        assert isinstance(result, Rejection)
        assert result.reason is RejectReason.NOT_A_NUMBER
        of_the_account = name == "equity" or name.startswith("held.")
        assert (broker.account.trading_state is TradingState.HALTED) is of_the_account
        assert broker.account.suspended == ({} if of_the_account else {"SPY": "not_a_number"})
        assert not broker.account.positions


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bar_with_an_equity_that_is_no_number_halts(bad: float) -> None:
    with rich_broker() as broker:
        broker.on_bar(market(), NOW_NS, equity=bad)
        assert broker.account.trading_state is TradingState.HALTED
        assert broker.account.state_reason == RejectReason.NOT_A_NUMBER


def test_a_bar_with_a_spot_that_is_no_number_suspends_where_margin_needs_it() -> None:
    with rich_broker() as broker:
        broker.submit(open_order(broker, "short_straddle"), market(), True, NOW_NS)
        broker.on_bar(market(), NOW_NS, spots={"SPY": math.nan})
        assert broker.account.suspended == {"SPY": RejectReason.NOT_A_NUMBER}
        assert broker.account.trading_state is TradingState.ACTIVE


def test_a_waiting_order_that_meets_a_quote_that_is_no_number_suspends() -> None:
    with rich_broker() as broker:
        order = open_order(broker, "bull_call_debit", limit=1.0, day=True)
        assert broker.submit(order, market(), True, NOW_NS) is None
        trade_bar(broker, market() | {CALL_105: quote(math.nan, 1.0)})
        assert broker.account.suspended == {"SPY": RejectReason.NOT_A_NUMBER}
        assert not broker.account.working_orders


STEP = st.tuples(
    st.sampled_from(["open", "open", "close", "expire"]),
    st.integers(0, 10),
    st.integers(1, 5),
)


def play(broker: PaperBroker, underlying: str, step: tuple[str, int, int], now_ns: int) -> None:
    """One step on one underlying, decided by nothing but that underlying."""
    what, choice, units = step
    shapes = SHAPES if underlying == "SPY" else QQQ_SHAPES
    held = underlying in broker.account.strategies
    quotes = market(now_ns)
    if what == "open" and not held:
        shape = sorted(shapes)[choice % len(shapes)]
        order = open_order(broker, shape, units, underlying=underlying, legs=shapes[shape])
        broker.submit(order, quotes, True, now_ns)
    elif what == "close" and held:
        broker.submit(close_order(broker, underlying=underlying), quotes, True, now_ns)
    elif what == "expire":
        symbols = [symbol for symbol in quotes if symbol.startswith(f"O:{underlying}2601")]
        broker.settle(symbols, {underlying: 95.0 + choice}, now_ns)
    broker.on_bar(quotes, now_ns)


@settings(RANDOM, max_examples=150)
@given(
    spy=st.lists(STEP, min_size=1, max_size=6),
    qqq=st.lists(STEP, min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_permuting_independent_underlyings_changes_nothing(
    spy: list[tuple[str, int, int]], qqq: list[tuple[str, int, int]], order: Any
) -> None:
    steps = [("SPY", step) for step in spy] + [("QQQ", step) for step in qqq]
    shuffled = ["SPY"] * len(spy) + ["QQQ"] * len(qqq)
    order.shuffle(shuffled)
    queues = {"SPY": iter(spy), "QQQ": iter(qqq)}
    mixed = [(underlying, next(queues[underlying])) for underlying in shuffled]
    assert outcome(steps) == outcome(mixed)


def outcome(steps: Sequence[tuple[str, tuple[str, int, int]]]) -> dict[str, Any]:
    """What remains of an account once order ids and the time are left out."""
    with rich_broker() as broker:
        for number, (underlying, step) in enumerate(steps):
            play(broker, underlying, step, NOW_NS + number * SECOND_NS)
        account = broker.account
        strategies = {
            name: (held.legs, held.units, held.net_cash, held.fees, held.margin_per_unit)
            for name, held in account.strategies.items()
        }
        return {
            "cash": account.cash,
            "buying_power": account.buying_power,
            "net_cash": {name: cash for name, cash in account.net_cash.items() if cash},
            "positions": dict(account.positions),
            "strategies": strategies,
            "realised": account.realised_pnl,
            "fees": account.fees_paid,
            "trades": (account.closed_trades, account.winning_trades, account.fills),
            "orders": (account.orders, account.rejections),
        }
