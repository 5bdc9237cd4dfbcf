"""The live environment over nights: expiry, assignment, dividends, and what it sells afterwards."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.usual import risk_limits
from trading.envs.catalogue import ACTION_COUNT, ACTIONS, CLOSE, HOLD, Strategy
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES
from trading.envs.live_env import LiveEnv
from trading.execution.broker import PaperBroker
from trading.execution.carry import CarryRates
from trading.execution.events import OwnerCommand
from trading.execution.exposure import Greeks
from trading.execution.journal import Journal
from trading.execution.orders import (
    Fill,
    Intent,
    Leg,
    Order,
    OrderType,
    Rejection,
    RejectReason,
    TimeInForce,
)
from trading.execution.owner import Command, execute_command
from trading.execution.states import TradingState
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.dividends import Dividend
from trading.market.option_quote import OptionQuote
from trading.market.pricing import YEAR_NS, black_price

CALENDAR = ExchangeCalendar()
MONDAY, FRIDAY, NEXT = date(2026, 1, 5), date(2026, 1, 9), date(2026, 1, 12)
THURSDAY = date(2026, 1, 8)
SPOT, IV, RATE = 100.0, 0.30, DEFAULT_RULES.rate
LIMITS = risk_limits(
    max_order_notional=DEFAULT_RULES.max_notional,
    max_contracts_per_order=DEFAULT_RULES.max_contracts,
)


def session(day: date) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def contracts(underlying: str = "XYZ") -> list[OptionContract]:
    return [
        OptionContract(underlying, expiry, right, 1000 * strike)
        for expiry in (FRIDAY, date(2026, 2, 6))
        for strike in range(80, 121)
        for right in Right
    ]


class Scene:
    """A market that is told in whole chains, and the environment that trades it."""

    def __init__(
        self,
        folder: Path,
        symbols: tuple[str, ...],
        dividends: list[Dividend],
        roots: dict[str, str] | None = None,
    ) -> None:
        self.journal = Journal(folder / "journal.sqlite")
        account = self.journal.open_account("paper", 100_000.0, session(MONDAY).open_ns)
        self.broker = PaperBroker(self.journal, account, DEFAULT_FEES, LIMITS)
        self.env = LiveEnv(symbols, DEFAULT_RULES, DEFAULT_FEES, CALENDAR, self.broker, dividends)
        self.symbols = symbols
        self._roots = {symbol: symbol for symbol in symbols} | (roots or {})
        for symbol in symbols:
            self.env.list_contracts(symbol, contracts(self._roots[symbol]))
        self._sequence = 0

    def bar(
        self, day: date, minute: int, spot: float, quoted: tuple[str, ...] | None = None
    ) -> np.ndarray:
        """Close a bar at which every contract is quoted around its value; returns the masks.

        Only the underlyings that are `quoted` have new quotes; by default all.
        """
        now_ns = session(day).open_ns + minute * MINUTE_NS
        for symbol in self.symbols if quoted is None else quoted:
            for contract in contracts(self._roots[symbol]):
                if contract.expiry < day:
                    continue
                t = max(CALENDAR.expiry_ns(contract.expiry) - now_ns, 0) / YEAR_NS
                discount = float(np.exp(-RATE * t))
                fair = black_price(
                    int(contract.right), spot / discount, contract.strike, t, discount, IV
                )
                bid = round(max(fair - 0.02, 0.0), 2)
                self._sequence += 1
                quote = (bid, bid + 0.04, 50.0, 50.0, now_ns, self._sequence)
                self.env.apply_quote(OptionQuote(contract.symbol, *quote))
        for symbol in self.symbols:
            bar = StockBar(symbol, now_ns - MINUTE_NS, spot, spot, spot, spot, 1e4, spot)
            assert self.env.apply_bar(bar)
        return self.env.close_bar(now_ns, session(day)).action_mask

    def begin(self, day: date) -> None:
        self.env.begin_session(session(day))
        for symbol in self.symbols:
            listed = contracts(self._roots[symbol])
            self.env.list_contracts(symbol, [c for c in listed if c.expiry >= day])

    def hold_a_covered_call(self) -> None:
        """Open one on Monday and keep it over the night."""
        self.begin(MONDAY)
        self.bar(MONDAY, 30, SPOT)
        (fill,) = self.trade(MONDAY, 30, near(Strategy.COVERED_CALL))
        assert isinstance(fill, Fill)
        self.close(MONDAY, SPOT)

    def close(self, day: date, spot: float) -> None:
        self.bar(day, 390, spot)
        self.env.close_session(session(day).close_ns, session(day), 0.0)

    def trade(self, day: date, minute: int, *actions: int) -> list[object]:
        now_ns = session(day).open_ns + minute * MINUTE_NS
        return [outcome.result for outcome in self.env.trade(now_ns, actions)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, ("XYZ",), [])
    yield made
    made.journal.close()


def strike_of(symbol: str) -> float:
    return parse_symbol(symbol).strike


def near(strategy: Strategy) -> int:
    return next(a for a, each in enumerate(ACTIONS) if each.strategy is strategy)


def test_an_assigned_put_leaves_stock_that_is_sold_at_the_next_open(scene: Scene) -> None:
    scene.begin(MONDAY)
    assert scene.bar(MONDAY, 30, SPOT)[0, near(Strategy.CASH_SECURED_PUT)]
    (fill,) = scene.trade(MONDAY, 30, near(Strategy.CASH_SECURED_PUT))
    assert isinstance(fill, Fill)
    account = scene.broker.account
    (held,) = account.positions.values()
    sold, strike = -held.quantity, strike_of(held.symbol)
    scene.close(MONDAY, SPOT)

    scene.begin(FRIDAY)
    cash = account.cash
    scene.close(FRIDAY, strike - 3.0)
    assert account.positions["XYZ"].quantity == sold
    assert account.cash == pytest.approx(cash - sold * 100.0 * strike)
    assert scene.env.equity() == pytest.approx(account.cash + sold * 100.0 * (strike - 3.0))

    scene.begin(NEXT)
    mask = scene.bar(NEXT, 1, strike - 2.0)
    assert list(np.flatnonzero(mask[0])) == [HOLD]
    scene.trade(NEXT, 1, HOLD)
    assert account.positions == {} and account.strategies == {}
    assert account.trading_state is TradingState.ACTIVE
    assert scene.bar(NEXT, 2, strike - 2.0)[0].sum() > 1


def test_a_covered_call_in_the_money_is_called_away_and_leaves_nothing(scene: Scene) -> None:
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    (fill,) = scene.trade(MONDAY, 30, near(Strategy.COVERED_CALL))
    assert isinstance(fill, Fill)
    account = scene.broker.account
    assert {symbol for symbol in account.positions if symbol == "XYZ"} == {"XYZ"}
    (call,) = (symbol for symbol in account.positions if symbol != "XYZ")
    paid = -fill.premium / fill.units / 100.0
    scene.close(MONDAY, SPOT)
    scene.begin(FRIDAY)
    scene.close(FRIDAY, strike_of(call) + 5.0)
    assert account.positions == {} and account.margin_used == 0.0
    profit = (strike_of(call) - paid) * fill.units * 100.0 - fill.fees
    assert account.cash == pytest.approx(100_000.0 + profit)


def test_a_call_is_assigned_early_before_a_dividend_that_outweighs_its_time_value(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("XYZ",), [Dividend("XYZ", FRIDAY, 2.0)])
    scene.hold_a_covered_call()
    account = scene.broker.account
    assert len(account.positions) == 2
    scene.begin(THURSDAY)
    scene.close(THURSDAY, 110.0)
    assert account.positions == {}
    cash = account.cash
    scene.begin(FRIDAY)
    assert account.cash == cash
    scene.journal.close()


def test_stock_held_over_the_ex_date_is_paid_once_although_the_session_begins_again(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("XYZ",), [Dividend("XYZ", FRIDAY, 0.25)])
    scene.hold_a_covered_call()
    scene.begin(THURSDAY)
    scene.close(THURSDAY, 95.0)
    account = scene.broker.account
    lots, cash = account.positions["XYZ"].quantity, account.cash
    scene.begin(FRIDAY)
    scene.begin(FRIDAY)
    assert account.cash == pytest.approx(cash + lots * 25.0)
    scene.journal.close()


@pytest.mark.parametrize(("ex_date", "paid"), [(MONDAY, False), (date(2026, 1, 7), True)])
def test_a_dividend_that_was_missed_while_nothing_ran_is_paid_afterwards_and_no_other(
    tmp_path: Path, ex_date: date, paid: bool
) -> None:
    scene = Scene(tmp_path, ("XYZ",), [Dividend("XYZ", ex_date, 0.25)])
    scene.hold_a_covered_call()
    account = scene.broker.account
    lots, cash = account.positions["XYZ"].quantity, account.cash
    scene.begin(THURSDAY)
    scene.begin(THURSDAY)
    assert account.cash == pytest.approx(cash + (lots * 25.0 if paid else 0.0))
    scene.journal.close()


def test_what_one_underlying_holds_leaves_less_room_below_the_greek_limits_for_another(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.env._rules = DEFAULT_RULES._replace(max_vega=0.002)
    for market in scene.env._markets.values():
        market._rules = scene.env._rules
    scene.begin(MONDAY)
    straddle = [a for a, each in enumerate(ACTIONS) if each.strategy is Strategy.LONG_STRADDLE][-1]
    scene.bar(MONDAY, 30, SPOT)
    free = int(scene.env._views.units[1, straddle])
    scene.trade(MONDAY, 30, straddle, HOLD)
    scene.bar(MONDAY, 31, SPOT)
    assert int(scene.env._views.units[1, straddle]) < free
    vega = scene.env.exposure().vega
    assert 0.0 < vega <= 0.002 * 100_000.0
    scene.journal.close()


def test_every_opening_that_the_mask_allows_is_filled_by_the_broker(tmp_path: Path) -> None:
    refused = []
    for action in range(CLOSE + 1, ACTION_COUNT):
        folder = tmp_path / str(action)
        folder.mkdir()
        scene = Scene(folder, ("XYZ",), [])
        scene.begin(MONDAY)
        mask = scene.bar(MONDAY, 30, SPOT)
        assert mask[0, action], ACTIONS[action].name
        (result,) = scene.trade(MONDAY, 30, action)
        if not isinstance(result, Fill):
            refused.append((ACTIONS[action].name, result))
        scene.journal.close()
    assert refused == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_mark_that_is_no_number_suspends_its_underlying_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.begin(MONDAY)
    call = near(Strategy.LONG_CALL)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    scene.bar(MONDAY, 31, SPOT)
    account, equity = scene.broker.account, scene.env.equity()
    (held,) = account.positions
    market, i = scene.env._contracts[held]
    close_bar = market.close_bar

    def spoilt(now_ns: int, session: Session) -> None:
        close_bar(now_ns, session)
        market.chain.columns.mark[i] = bad

    monkeypatch.setattr(market, "close_bar", spoilt)
    now_ns = session(MONDAY).open_ns + 32 * MINUTE_NS
    observed = scene.env.close_bar(now_ns, session(MONDAY))
    assert account.suspended == {"AAA": "not_a_number"}
    assert account.trading_state is TradingState.ACTIVE
    assert scene.env.equity() == equity
    assert np.isfinite(observed.observations).all() and (observed.rewards == 0.0).all()
    assert list(np.flatnonzero(observed.action_mask[0])) == [HOLD]
    assert observed.action_mask[1, call]
    _, bought = scene.trade(MONDAY, 32, CLOSE, call)
    assert isinstance(bought, Fill)
    monkeypatch.undo()
    assert scene.bar(MONDAY, 33, SPOT)[0, CLOSE]
    assert account.suspended == {}
    scene.journal.close()


def test_a_mark_that_turns_into_no_number_after_the_bar_halts_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.begin(MONDAY)
    call = near(Strategy.LONG_CALL)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    scene.bar(MONDAY, 31, SPOT)
    equity = scene.env.equity()
    scene.env._markets["AAA"].chain.columns.mark[:] = np.nan
    assert scene.env.equity() == equity
    closed, bought = scene.trade(MONDAY, 31, CLOSE, call)
    assert isinstance(closed, Rejection) and closed.reason is RejectReason.SUSPENDED
    assert isinstance(bought, Fill)
    assert scene.broker.account.trading_state is TradingState.ACTIVE
    scene.journal.close()


def test_options_on_a_class_of_a_stock_trade_by_their_own_root(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("BRK.B",), [], {"BRK.B": "BRKB"})
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    (fill,) = scene.trade(MONDAY, 30, near(Strategy.COVERED_CALL))
    assert isinstance(fill, Fill) and fill.underlying == "BRK.B"
    assert {leg.symbol[:6] for leg in fill.legs} == {"O:BRKB", "BRK.B"}
    scene.bar(MONDAY, 31, SPOT)
    (closed,) = scene.trade(MONDAY, 31, CLOSE)
    assert isinstance(closed, Fill) and not scene.broker.account.positions
    scene.journal.close()


def test_an_index_trades_its_afternoon_options_has_no_shares_and_settles_in_cash(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("SPX",), [], {"SPX": "SPXW"})
    scene.begin(MONDAY)
    mask = scene.bar(MONDAY, 30, SPOT)[0]
    for action, each in enumerate(ACTIONS):
        if each.strategy is Strategy.COVERED_CALL:
            assert not mask[action]
    put = near(Strategy.CASH_SECURED_PUT)
    assert mask[put]
    (fill,) = scene.trade(MONDAY, 30, put)
    assert isinstance(fill, Fill)
    (held,) = scene.broker.account.positions.values()
    assert held.symbol.startswith("O:SPXW")
    scene.begin(FRIDAY)
    cash = scene.broker.account.cash
    scene.close(FRIDAY, strike_of(held.symbol) - 3.0)
    assert scene.broker.account.positions == {}
    paid = scene.broker.account.cash - cash
    assert paid == pytest.approx(held.quantity * 100.0 * 3.0, abs=0.02 * 100 * -held.quantity)
    scene.journal.close()


def test_morning_settled_options_are_listed_and_never_opened(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("SPX",), [], {"SPX": "SPX"})
    scene.begin(MONDAY)
    mask = scene.bar(MONDAY, 30, SPOT)[0]
    assert list(np.flatnonzero(mask)) == [HOLD]
    assert scene.env.listed_symbols()
    symbol = next(each for each in scene.env.listed_symbols() if "C00100000" in each)
    now_ns = session(MONDAY).open_ns + 30 * MINUTE_NS
    order = Order(
        scene.broker.next_order_id(), now_ns, "SPX", "mine", Intent.OPEN, (Leg(symbol, 1),), 1
    )
    refused = scene.env._submit(order)
    assert isinstance(refused, Rejection) and "settle at the opening" in refused.detail
    scene.journal.close()


def test_a_contract_stops_at_the_end_of_its_own_last_day(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("SPX",), [], {"SPX": "SPXW"})
    last, later = (f"O:SPXW{day}C00100000" for day in ("260109", "260206"))
    for minute, symbol, is_open in [
        (390, last, True),
        (391, last, False),
        (405, later, True),
        (406, later, False),
    ]:
        now_ns = session(FRIDAY).open_ns + minute * MINUTE_NS
        assert scene.env._is_open("SPX", ["SPX", symbol], now_ns) is is_open
    scene.journal.close()


def wound_down(tmp_path: Path) -> tuple[Scene, float]:
    """Both underlyings are held and one of them is no longer traded; the equity of before."""
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.begin(MONDAY)
    call = near(Strategy.LONG_CALL)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, call)
    equity = scene.env.equity()
    scene.journal.close()
    scene = Scene(tmp_path, ("AAA",), [])
    assert scene.env.symbols == ("AAA", "BBB") and scene.env.winding_down == {"BBB"}
    scene.symbols = scene.env.symbols
    scene._roots = {"AAA": "AAA", "BBB": "BBB"}
    scene.begin(MONDAY)
    return scene, equity


def test_what_is_held_of_an_underlying_that_left_the_symbols_is_marked_and_closed(
    tmp_path: Path,
) -> None:
    scene, equity = wound_down(tmp_path)
    scene.bar(MONDAY, 31, SPOT, quoted=("AAA",))
    assert scene.env.equity() == pytest.approx(equity, rel=1e-3)
    scene.trade(MONDAY, 31, HOLD, HOLD)
    assert set(scene.env.unclosed) == {"BBB"} and not scene.env.closed, "its quotes are late"
    mask = scene.bar(MONDAY, 35, SPOT)
    assert set(np.flatnonzero(mask[1])) == {HOLD}, "nobody is asked"
    scene.trade(MONDAY, 35, HOLD, HOLD)
    assert [each.underlying for each in scene.env.closed] == ["BBB"]
    assert list(scene.broker.account.strategies) == ["AAA"] and scene.env.to_close == []
    scene.journal.close()


@pytest.mark.parametrize("command", [OwnerCommand.HALT, OwnerCommand.REDUCE])
def test_winding_down_keeps_to_what_restricts_trading(
    tmp_path: Path, command: OwnerCommand
) -> None:
    scene, _ = wound_down(tmp_path)
    scene.bar(MONDAY, 31, SPOT)
    now_ns = session(MONDAY).open_ns + 31 * MINUTE_NS
    execute_command(scene.broker, Command(command, "alice"), now_ns, scene.env.equity(), "")
    scene.trade(MONDAY, 31, HOLD, HOLD)
    halted = command is OwnerCommand.HALT
    assert ("BBB" in scene.broker.account.strategies) is halted
    assert ("halted" in scene.env.unclosed.get("BBB", "")) is halted
    assert scene.broker.account.rejections == 0, "what would be refused is not sent"
    scene.journal.close()


def test_the_policy_may_be_left_to_decide_on_what_winds_down(tmp_path: Path) -> None:
    scene, equity = wound_down(tmp_path)
    scene.env.closes_winding_down = False
    mask = scene.bar(MONDAY, 31, SPOT)
    assert set(np.flatnonzero(mask[1])) == {HOLD, CLOSE}
    assert scene.env.equity() == pytest.approx(equity, rel=1e-3)
    _, closed = scene.trade(MONDAY, 31, HOLD, CLOSE)
    assert isinstance(closed, Fill) and list(scene.broker.account.strategies) == ["AAA"]
    mask = scene.bar(MONDAY, 32, SPOT)
    assert set(np.flatnonzero(mask[1])) == {HOLD}
    scene.journal.close()


def test_what_waits_to_open_on_an_underlying_that_left_the_symbols_is_cancelled(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    now_ns = session(MONDAY).open_ns + 30 * MINUTE_NS
    order = Order(
        scene.broker.next_order_id(),
        now_ns,
        "BBB",
        "mine",
        Intent.OPEN,
        (Leg("O:BBB260206C00100000", 1),),
        1,
        OrderType.LIMIT,
        TimeInForce.DAY,
        0.05,
    )
    assert scene.env._submit(order) is None
    scene.journal.close()
    scene = Scene(tmp_path, ("AAA",), [])
    scene.begin(MONDAY)
    assert not scene.broker.account.working_orders
    scene.journal.close()


def near_delta(scene: Scene, limit: float) -> None:
    """Let the account's delta be at most `limit` times its equity."""
    scene.env._rules = DEFAULT_RULES._replace(max_delta=limit)
    for market in scene.env._markets.values():
        market._rules = scene.env._rules
    scene.broker.risk.limits = replace(LIMITS, max_delta_pct=100.0 * limit)


def test_limits_on_greeks_do_not_open_while_the_quotes_of_a_holding_are_late(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    near_delta(scene, 1.1)
    call = next(a for a, each in enumerate(ACTIONS) if each.name == "long_call_near_d50")
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    scene.bar(MONDAY, 31, SPOT)
    fresh, room = scene.env.exposure(), int(scene.env._views.units[1, call])
    assert fresh.delta > 0.0
    assert scene.env.greeks_not_quoted() == {}
    scene.bar(MONDAY, 34, SPOT, quoted=("BBB",))
    (held,) = scene.broker.account.positions
    assert scene.env.greeks_not_quoted() == {held: "last"}
    assert scene.env.exposure() == pytest.approx(fresh)
    assert int(scene.env._views.units[1, call]) <= room
    _, bought = scene.trade(MONDAY, 34, HOLD, call)
    assert bought is None or isinstance(bought, Fill)
    scene.bar(MONDAY, 35, SPOT)
    assert abs(scene.env.exposure().delta) <= 1.11 * scene.env.equity()
    scene.journal.close()


GREEKS = [
    place
    for place, each in enumerate(FEATURES)
    if each.name in ("position_delta", "position_gamma", "position_vega", "position_theta")
]


@pytest.mark.parametrize("minute", [31, 40])
def test_the_policy_sees_the_last_greeks_while_quotes_are_late(tmp_path: Path, minute: int) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    call = next(a for a, each in enumerate(ACTIONS) if each.name == "long_call_near_d50")
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    if minute == 40:  # Otherwise it was never quoted since it was bought.
        scene.bar(MONDAY, 31, SPOT)
    scene.bar(MONDAY, minute + 4, SPOT + 1.0, quoted=())
    told, equity = scene.env.greeks("AAA"), scene.env.equity()
    seen = scene.env._views.observations[0, GREEKS]
    spot = scene.env.spot("AAA")
    if minute == 40:
        assert seen[0] == pytest.approx(told["delta"] * spot / equity, rel=1e-5)
        assert seen[1] == pytest.approx(told["gamma"] * spot * spot * 0.01 / equity, rel=1e-5)
        assert seen[2] == pytest.approx(told["vega"] / (0.001 * equity), rel=1e-5)
        assert seen[3] == pytest.approx(told["theta"] / (0.001 * equity), rel=1e-5)
    assert (np.abs(seen) > 0.0).all()
    scene.journal.close()


def test_last_greeks_move_with_the_spot(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    call = next(a for a, each in enumerate(ACTIONS) if each.name == "long_call_near_d50")
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    scene.bar(MONDAY, 31, SPOT)
    before = scene.env.greeks("AAA")
    scene.bar(MONDAY, 34, SPOT + 1.0, quoted=())
    after = scene.env.greeks("AAA")
    assert after["delta"] == pytest.approx(before["delta"] + before["gamma"] * 1.0)
    scene.bar(MONDAY, 36, SPOT + 19.0, quoted=())
    (position,) = scene.broker.account.positions.values()
    assert scene.env.greeks("AAA")["delta"] <= 100.0 * position.quantity
    scene.journal.close()


def test_greeks_that_were_never_known_leave_no_room(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    call = next(a for a, each in enumerate(ACTIONS) if each.name == "long_call_near_d50")
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    scene.trade(MONDAY, 30, call, HOLD)
    scene.journal.close()
    scene = Scene(tmp_path, ("AAA", "BBB"), [])
    scene.begin(MONDAY)
    mask = scene.bar(MONDAY, 31, SPOT, quoted=("BBB",))
    (held,) = scene.broker.account.positions
    assert scene.env.greeks_not_quoted() == {held: "unknown"}
    assert np.isnan(scene.env.exposure().delta)
    assert set(np.flatnonzero(mask[1])) == {HOLD}
    now_ns = session(MONDAY).open_ns + 31 * MINUTE_NS
    order = Order(
        scene.broker.next_order_id(),
        now_ns,
        "BBB",
        "mine",
        Intent.OPEN,
        (Leg("O:BBB260206C00100000", 1),),
        1,
    )
    refused = scene.env._submit(order, Greeks(1.0, 1.0, 1.0))
    assert isinstance(refused, Rejection) and refused.reason is RejectReason.MAX_DELTA
    assert scene.broker.account.trading_state is TradingState.ACTIVE
    assert scene.bar(MONDAY, 32, SPOT)[1].sum() > 1
    scene.journal.close()


def test_interest_is_booked_at_the_close_and_is_part_of_the_equity(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("AAA",), [])
    scene.broker.carry = CarryRates(cash_interest=0.0365)
    scene.begin(MONDAY)
    scene.close(MONDAY, SPOT)
    assert scene.broker.account.interest == pytest.approx(10.0)
    assert scene.broker.account.day_start_equity == pytest.approx(100_010.0)
    assert scene.broker.account.carried_through == "2026-01-06"
    scene.journal.close()


def test_a_halt_of_a_day_whose_close_nobody_saw_ends_with_its_session(scene: Scene) -> None:
    scene.begin(MONDAY)
    scene.bar(MONDAY, 30, SPOT)
    broker = scene.broker
    broker.on_bar({}, session(MONDAY).open_ns + 40 * MINUTE_NS, equity=90_000.0)
    assert list(broker.account.restrictions) == ["daily_loss"]
    scene.begin(MONDAY)
    assert broker.account.trading_state is TradingState.HALTED, "the same session goes on"
    # It was down at the close, and comes back days later.
    scene.begin(THURSDAY)
    assert broker.account.trading_state is TradingState.ACTIVE
    scene.bar(THURSDAY, 1, SPOT)
    assert broker.account.trading_state is TradingState.ACTIVE
    broker.on_bar({}, session(THURSDAY).open_ns + 2 * MINUTE_NS, equity=90_000.0)
    assert broker.account.trading_state is TradingState.HALTED, "a loss that stands halts again"
