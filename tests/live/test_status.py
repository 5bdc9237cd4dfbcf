"""What the live market tells about its account."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.live.market import Bars, FirstMinutes, serving, settings_for, trade
from trading.execution.events import OwnerCommand
from trading.execution.owner import Command
from trading.execution.portfolio import Account
from trading.live.bar_clock import Bar
from trading.live.metrics import AccountFigures
from trading.live.status import account_figures, describe_account, iso_time, unit_of
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import parse_symbol


@dataclass
class Moment:
    """An account at one bar, told twice."""

    figures: AccountFigures
    open_profit: float
    delta: float
    theta: float


@dataclass
class Moments(Bars):
    """Notes the figures at every bar."""

    noted: list[Moment] = field(default_factory=list)

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        env, account = trader.env, trader.env.broker.account
        greeks = {symbol: env.greeks(symbol) for symbol in account.strategies}
        self.noted.append(
            Moment(
                account_figures(trader, restarts=0),
                sum(each["profit"] for each in describe_account(trader)["positions"]),
                sum(each["delta"] * env.spot(symbol) for symbol, each in greeks.items()),
                sum(each["theta"] for each in greeks.values()),
            )
        )


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    settings = settings_for(tmp_path_factory.mktemp("account"))
    observer = Moments()
    with serving(FirstMinutes(30)) as (endpoint, begin):
        trade(settings, endpoint, begin, bars=observer)
    return observer.noted


def test_realised_and_open_profit_make_up_the_equity(moments: list[Moment]) -> None:
    for each in moments:
        figures = each.figures
        unrealised = figures.portfolio_value - figures.initial_capital - figures.realised_pnl
        assert unrealised == pytest.approx(each.open_profit, abs=0.01)
    assert any(each.open_profit for each in moments)


def test_greeks_are_those_of_the_holdings_in_usd(moments: list[Moment]) -> None:
    for each in moments:
        assert each.figures.delta == pytest.approx(each.delta)
        assert each.figures.theta == pytest.approx(each.theta)
    assert any(each.figures.delta and each.figures.gamma and each.figures.vega for each in moments)


def test_what_underlyings_made_and_hold_adds_up_to_the_account(moments: list[Moment]) -> None:
    for each in moments:
        figures, of = each.figures, each.figures.underlyings.values()
        made = figures.portfolio_value - figures.initial_capital
        assert sum(one.profit for one in of) == pytest.approx(made, abs=0.01)
        for name in ("delta", "gamma", "vega", "theta"):
            assert sum(getattr(one, name) for one in of) == pytest.approx(getattr(figures, name))
        assert sum(one.is_open for one in of) == figures.open_positions
    assert any(one.is_open for each in moments for one in each.figures.underlyings.values())


def test_orders_end_as_fills_or_rejections_and_trades_as_wins_or_losses(
    moments: list[Moment],
) -> None:
    last = moments[-1].figures
    assert 0 < last.trades <= last.orders - last.rejections
    assert 0 < last.closed_trades < last.trades
    assert last.win_rate == last.winning_trades / last.closed_trades


def test_limits_and_their_bases_are_the_settings_and_the_first_days(moments: list[Moment]) -> None:
    figures = moments[0].figures
    assert (figures.max_daily_loss, figures.max_drawdown) == (0.05, 0.25)
    assert figures.day_start_equity == figures.peak_equity == figures.initial_capital == 100_000.0


def test_status_says_what_stands_what_the_day_brought_and_what_is_used(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    class Owner(Bars):
        def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
            super().on_bar(trader, bar, latency_s)
            told.append(describe_account(trader))
            if len(self.ends) == 3:
                trader.command(Command(OwnerCommand.DEPOSIT, "alice", amount=5_000.0))
                trader.command(Command(OwnerCommand.REDUCE, "alice", "of the test"))

        def on_command(self, trader: Trader) -> None:
            pass

    with serving(FirstMinutes(8)) as (endpoint, begin):
        trade(settings_for(tmp_path), endpoint, begin, bars=Owner())
    last = told[-1]["account"]
    assert [each["cause"] for each in last["restrictions"]] == ["owner_reduce"]
    assert "`resume`" in last["restrictions"][0]["owner"]
    assert last["paid_in"] == 105_000.0
    assert last["profit_today"] == pytest.approx(last["equity"] - 105_000.0)
    assert told[2]["account"]["profit_today"] == pytest.approx(
        told[2]["account"]["equity"] - 100_000.0
    )
    limits = told[-1]["limits"]
    assert limits["max_positions"] == {"limit": 10.0, "used": float(len(told[-1]["positions"]))}
    lost = max(0.0, 1.0 - last["equity"] / last["day_start_equity"])
    assert limits["max_daily_loss_pct"]["used"] == pytest.approx(100.0 * lost)
    assert limits["max_orders_per_minute"]["used"] >= 0.0
    assert told[-1]["recent_fills"]
    assert all(re.search(r" (paid|received|profit) ", line) for line in told[-1]["recent_fills"])
    held = {leg["symbol"] for each in told[-1]["positions"] for leg in each["legs"]}
    calendar = ExchangeCalendar()
    for leg in (
        leg for told_then in told for each in told_then["positions"] for leg in each["legs"]
    ):
        expiry = parse_symbol(leg["symbol"]).expiry
        session = calendar.session_on(expiry)
        assert session is not None
        assert leg["expires"] == iso_time(session.close_ns)
    late = told[-1]["greeks"]["not_quoted"]
    assert late.keys() <= held and set(late.values()) <= {"last", "unknown"}


def test_the_unit_of_a_position_is_the_one_that_the_books_count_in() -> None:
    account = Account()
    account.stock_lots["NEW"] = 1.0
    symbols = ("NEW", "SPY", "O:SPY260116C00100000")
    assert [unit_of(account, each) for each in symbols] == ["shares", "round lots", "contracts"]
