"""What falls due while nothing runs, corporate actions in the environment, and what suspends."""

import contextlib
import math
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.usual import risk_limits
from trading.data.admission import Refusal
from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES
from trading.envs.live_env import LiveEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    CorporateActionApplied,
    DividendPaid,
    Ending,
    Event,
    OwnerCommand,
    SessionClosed,
    Settled,
)
from trading.execution.journal import Journal
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView
from trading.execution.owner import Command, execute_command
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.closes import CloseSource, OfficialClose
from trading.market.contracts import OptionContract, Right
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Rename,
    SpecialDividend,
    Split,
)
from trading.market.dividends import Dividend
from trading.market.option_quote import OptionQuote
from trading.market.pricing import YEAR_NS, black_price

CALENDAR = ExchangeCalendar()
MON, TUE, WED, THU, FRI = (date(2026, 1, day) for day in (5, 6, 7, 8, 9))
NEXT_MON, NEXT_FRI, LATER = date(2026, 1, 12), date(2026, 1, 16), date(2026, 2, 2)
CALL, PUT = "O:ACME260109C00100000", "O:ACME260109P00095000"
NEXT_CALL, FEB_CALL = "O:ACME260116C00100000", "O:ACME260206C00105000"


def session(day: date) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def contracts(symbol: str, strikes: Iterable[float], day: date) -> list[OptionContract]:
    return [
        OptionContract(symbol, expiry, right, round(1000 * strike))
        for expiry in (FRI, NEXT_FRI, date(2026, 2, 6))
        if expiry >= day
        for strike in strikes
        for right in Right
    ]


class Desk:
    """One account and its environment; begins again where the journal in `folder` ends."""

    def __init__(
        self,
        folder: Path,
        *,
        dividends: Sequence[Dividend] = (),
        actions: Sequence[CorporateAction] = (),
        official: bool = False,
        symbols: tuple[str, ...] = ("ACME",),
    ) -> None:
        self.symbol = symbols[0]
        self.journal = Journal(folder / "journal.sqlite")
        account = self.journal.open_account("paper", 100_000.0, session(MON).open_ns)
        limits = risk_limits(max_order_notional=1e6, max_contracts_per_order=50)
        self.broker = PaperBroker(self.journal, account, DEFAULT_FEES, limits)
        self.env = LiveEnv(
            symbols,
            DEFAULT_RULES,
            DEFAULT_FEES,
            CALENDAR,
            self.broker,
            dividends,
            actions=actions,
            official_closes=official,
        )
        self.strikes: Iterable[float] = range(80, 121)
        self.seen: np.ndarray = np.zeros(0)
        self.rewards: np.ndarray = np.zeros(0)
        self._sequence = 0

    def begin(self, day: date) -> None:
        self.env.begin_session(session(day))
        self.env.list_contracts(self.symbol, contracts(self.symbol, self.strikes, day))

    def bar(self, day: date, minute: int, price: float, quotes: bool = True) -> np.ndarray:
        now_ns = session(day).open_ns + minute * MINUTE_NS
        for contract in contracts(self.symbol, self.strikes, day) if quotes else ():
            t = max(CALENDAR.expiry_ns(contract.expiry) - now_ns, 0) / YEAR_NS
            discount = math.exp(-DEFAULT_RULES.rate * t)
            forward = price / discount
            fair = black_price(int(contract.right), forward, contract.strike, t, discount, 0.3)
            bid = round(max(fair - 0.02, 0.0), 2)
            self._sequence += 1
            self.quote(contract.symbol, bid, bid + 0.04, now_ns)
        self.env.apply_bar(
            StockBar(self.symbol, now_ns - MINUTE_NS, price, price, price, price, 1e4, price)
        )
        observed = self.env.close_bar(now_ns, session(day))
        self.rewards = observed.rewards
        return observed.observations

    def quote(self, symbol: str, bid: float, ask: float, now_ns: int) -> None:
        self._sequence += 1
        self.env.apply_quote(OptionQuote(symbol, bid, ask, 50.0, 50.0, now_ns, self._sequence))

    def buy(self, day: date, minute: int, legs: Sequence[tuple[str, int]], units: int = 5) -> None:
        now_ns = session(day).open_ns + minute * MINUTE_NS
        order = Order(
            self.broker.next_order_id(),
            now_ns,
            self.symbol,
            "test",
            Intent.OPEN,
            tuple(Leg(symbol, ratio) for symbol, ratio in legs),
            units,
        )
        quotes = {
            symbol: QuoteView(100.0, 100.02, 1e6, 1e6, now_ns)
            if symbol == self.symbol
            else self.env._quote(symbol)
            for symbol, _ in legs
        }
        got = self.broker.submit(order, quotes, True, now_ns, self.env.equity(), spots={})
        assert isinstance(got, Fill), got

    def close(self, day: date, price: float | None = None, quotes: bool = True) -> None:
        ends = session(day)
        if price is not None:
            self.seen = self.bar(day, (ends.close_ns - ends.open_ns) // MINUTE_NS, price, quotes)
        self.env.close_session(ends.close_ns, ends, 0.0)

    def tell(self, symbol: str, closes: dict[date, float]) -> None:
        for day, price in closes.items():
            self.env.tell_close(symbol, day, OfficialClose(price))

    def events(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.journal.events() if isinstance(event, kind)]

    def settled(self) -> list[tuple[str, int, float, CloseSource | None]]:
        return [
            (event.symbol, event.ts_ns, event.underlying_price, event.source)
            for event in self.journal.events()
            if isinstance(event, Settled)
        ]

    @property
    def suspended(self) -> str:
        return self.broker.account.suspended.get(self.symbol, "")


def held_over_monday(
    folder: Path, legs: Sequence[tuple[str, int]], units: int = 5, **options: object
) -> Desk:
    desk = Desk(folder, **options)  # type: ignore[arg-type]
    desk.begin(MON)
    desk.bar(MON, 30, 100.0)
    desk.buy(MON, 30, legs, units)
    desk.close(MON, 100.0)
    return desk


def test_without_a_figure_an_expiry_of_the_gap_stays_pending_and_is_settled_when_it_comes(
    tmp_path: Path,
) -> None:
    held_over_monday(tmp_path, [(CALL, 1)]).journal.close()
    desk = Desk(tmp_path)
    desk.begin(LATER)
    assert desk.suspended.startswith("no official close of 2026-01-09")
    desk.bar(LATER, 1, 110.0)
    desk.close(LATER, 110.0)
    assert desk.settled() == []
    assert CALL in desk.broker.account.positions
    desk.tell("ACME", {FRI: 103.0})
    desk.env.settle_pending(session(LATER).close_ns)
    assert desk.settled() == [(CALL, session(FRI).close_ns, 103.0, CloseSource.OFFICIAL)]
    assert desk.suspended == ""
    assert desk.broker.account.positions == {}
    # Doing it again, or after another start, changes nothing.
    desk.env.settle_pending(session(LATER).close_ns)
    state = desk.broker.account.fingerprint()
    desk.journal.close()
    again = Desk(tmp_path)
    again.begin(date(2026, 2, 3))
    assert again.broker.account.fingerprint() == state


def test_two_expiries_of_the_gap_each_settle_at_their_own_close(tmp_path: Path) -> None:
    held_over_monday(tmp_path, [(CALL, -1), (NEXT_CALL, 1)]).journal.close()
    desk = Desk(tmp_path)
    desk.tell("ACME", {MON: 100.0, FRI: 99.0, NEXT_FRI: 108.0})
    desk.begin(LATER)
    assert desk.settled() == [
        (CALL, session(FRI).close_ns, 99.0, CloseSource.OFFICIAL),
        (NEXT_CALL, session(NEXT_FRI).close_ns, 108.0, CloseSource.OFFICIAL),
    ]
    closed = [event.date for event in desk.events(SessionClosed)]  # type: ignore[union-attr]
    days = [each.date.isoformat() for each in CALENDAR.sessions(MON, date(2026, 1, 30))]
    assert closed == days


def test_an_early_assignment_and_its_dividend_fall_into_the_gap(tmp_path: Path) -> None:
    dividend = Dividend("ACME", WED, 2.0)
    legs = [("ACME", 1), ("O:ACME260206C00095000", -1)]
    held_over_monday(tmp_path, legs).journal.close()
    desk = Desk(tmp_path, dividends=[dividend])
    desk.tell("ACME", {MON: 100.0, TUE: 110.0, WED: 108.0})
    desk.tell("O:ACME260206P00095000", {TUE: 0.4})
    desk.begin(FRI)
    (ended,) = desk.events(Settled)
    assert isinstance(ended, Settled)
    assert (ended.ending, ended.ts_ns) == (Ending.ASSIGNED_EARLY, session(TUE).close_ns)
    # The stock was delivered before the ex-date: no dividend.
    assert desk.events(DividendPaid) == []


def test_a_dividend_of_the_gap_is_paid_on_its_ex_date(tmp_path: Path) -> None:
    held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)]).journal.close()
    desk = Desk(tmp_path, dividends=[Dividend("ACME", WED, 0.5), Dividend("ACME", NEXT_MON, 0.25)])
    desk.tell("ACME", {each.date: 100.0 for each in CALENDAR.sessions(MON, NEXT_FRI)})
    desk.begin(LATER)
    paid = [(e.ex_date, e.cash, e.ts_ns) for e in desk.events(DividendPaid)]  # type: ignore[union-attr]
    assert paid == [
        (WED.isoformat(), 250.0, session(WED).open_ns),
        (NEXT_MON.isoformat(), 125.0, session(NEXT_MON).open_ns),
    ]


def test_a_split_of_the_gap_is_applied_before_what_expires_after_it(tmp_path: Path) -> None:
    held_over_monday(tmp_path, [(PUT, 1)]).journal.close()
    desk = Desk(tmp_path, actions=[Split("ACME", WED, 10, 1)])
    desk.tell("ACME", {MON: 100.0, TUE: 96.0, WED: 9.4, FRI: 9.0})
    desk.begin(NEXT_MON)
    (applied,) = desk.events(CorporateActionApplied)
    assert applied.ts_ns == session(WED).open_ns
    assert [(s, price) for s, _, price, _ in desk.settled()] == [("O:ACME260109P00009500", 9.0)]
    (ended,) = desk.events(Settled)
    assert isinstance(ended, Settled)
    assert ended.cash == pytest.approx(50 * 100 * 0.5)


def test_an_untold_split_of_the_gap_settles_nothing_until_it_is_told(tmp_path: Path) -> None:
    before = held_over_monday(tmp_path, [(PUT, 1)])
    equity = before.env.equity()
    before.journal.close()
    desk = Desk(tmp_path)
    closes = {MON: 100.0, TUE: 96.0, WED: 9.8, FRI: 9.7}
    desk.tell("ACME", closes)
    desk.begin(NEXT_MON)
    assert "unexplained since 2026-01-07: 96.00 -> 9.80" in desk.suspended
    assert desk.settled() == []
    assert desk.env.equity() == pytest.approx(equity, abs=200.0)
    desk.journal.close()
    again = Desk(tmp_path, actions=[Split("ACME", WED, 10, 1)])
    again.tell("ACME", closes)
    again.begin(NEXT_MON)
    assert again.suspended == ""
    assert [(s, price) for s, _, price, _ in again.settled()] == [("O:ACME260109P00009500", 9.7)]


@pytest.mark.parametrize("shares", [False, True])
def test_a_split_too_small_to_be_missed_is_applied_when_it_is_told_sessions_later(
    tmp_path: Path, shares: bool
) -> None:
    held_over_monday(tmp_path, [("ACME", 1), (NEXT_CALL, -1)] if shares else [(NEXT_CALL, 1)])
    desk = Desk(tmp_path)
    desk.strikes = range(60, 121)
    desk.tell("ACME", {MON: 100.0, TUE: 80.0})
    desk.begin(WED)
    assert desk.suspended == ""
    desk.bar(WED, 1, 80.0)
    desk.env.set_actions([Split("ACME", TUE, 5, 4)])
    desk.begin(WED)
    held = desk.broker.account.positions
    assert {name: each.quantity for name, each in held.items() if name != "ACME"} == {
        "O:ACME1260116C00100000": -5 if shares else 5
    }
    if shares:
        assert held["ACME"].quantity * desk.broker.account.size("ACME") == 625
    again = desk.broker.account.fingerprint()
    desk.begin(WED)
    assert desk.broker.account.fingerprint() == again
    assert len(desk.events(CorporateActionApplied)) == 1


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_kill_amid_the_catch_up_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    told = {
        "dividends": [Dividend("ACME", TUE, 0.5), Dividend("ACME", NEXT_MON, 3.0)],
        "actions": [Split("ACME", WED, 3, 2)],
    }
    closes = {each.date: 70.0 for each in CALENDAR.sessions(WED, NEXT_FRI)}
    closes |= {MON: 100.0, TUE: 100.0}
    legs = [("ACME", 1), (CALL, -1)]

    def started(folder: Path) -> Desk:
        folder.mkdir(exist_ok=True)
        held_over_monday(folder, legs).journal.close()
        desk = Desk(folder, **told)  # type: ignore[arg-type]
        desk.tell("ACME", closes)
        return desk

    whole = started(tmp_path / "whole")
    whole.begin(LATER)
    killed = started(tmp_path / "killed")
    append = Journal.append_many
    count = 0

    def dying(journal: Journal, events: Sequence[Event]) -> int:
        nonlocal count
        count += len(events) > 0
        if count > steps:
            raise Killed
        return append(journal, events)

    monkeypatch.setattr(Journal, "append_many", dying)
    with contextlib.suppress(Killed):
        killed.begin(LATER)
    monkeypatch.undo()
    killed.journal.close()
    again = Desk(tmp_path / "killed", **told)  # type: ignore[arg-type]
    again.tell("ACME", closes)
    again.begin(LATER)
    assert again.broker.account.fingerprint() == whole.broker.account.fingerprint()


def test_an_official_close_is_waited_for_and_settles_the_day(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(CALL, 1)], official=True)
    desk.begin(FRI)
    desk.close(FRI, 99.98)
    assert desk.suspended.startswith("no official close of 2026-01-09 to settle")
    assert desk.settled() == []
    desk.tell("ACME", {FRI: 100.60})
    desk.env.settle_pending(session(FRI).close_ns + MINUTE_NS)
    assert desk.settled() == [(CALL, session(FRI).close_ns, 100.60, CloseSource.OFFICIAL)]
    assert desk.suspended == ""


def test_a_figure_that_is_there_settles_with_the_session_and_says_its_source(
    tmp_path: Path,
) -> None:
    desk = held_over_monday(tmp_path, [(CALL, 1)], official=True)
    desk.begin(FRI)
    desk.env.tell_close("ACME", FRI, OfficialClose(100.60, CloseSource.MINUTE_BAR))
    desk.close(FRI, 99.98)
    assert desk.settled() == [(CALL, session(FRI).close_ns, 100.60, CloseSource.MINUTE_BAR)]


@pytest.mark.parametrize("odd", [0.0, -3.0, math.nan, math.inf])
@pytest.mark.parametrize("in_time", [True, False])
def test_a_close_that_is_no_price_settles_nothing(
    tmp_path: Path, odd: float, in_time: bool
) -> None:
    desk = held_over_monday(tmp_path, [(CALL, 1)], official=True)
    desk.begin(FRI)
    if in_time:
        desk.tell("ACME", {FRI: odd})
    desk.close(FRI, 99.98)
    desk.tell("ACME", {FRI: odd})
    desk.env.settle_pending(session(FRI).close_ns + MINUTE_NS)
    assert desk.settled() == []
    assert desk.suspended.startswith("no official close of 2026-01-09 to settle")
    desk.tell("ACME", {FRI: 100.60})
    desk.env.settle_pending(session(FRI).close_ns + MINUTE_NS)
    assert desk.settled() == [(CALL, session(FRI).close_ns, 100.60, CloseSource.OFFICIAL)]


def test_the_auctions_bar_settles_on_a_tape(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(CALL, 1)])
    desk.begin(FRI)
    desk.bar(FRI, 390, 99.98)
    close_ns = session(FRI).close_ns
    desk.env.apply_bar(StockBar("ACME", close_ns, 100.6, 100.6, 100.6, 100.6, 1e6, 100.6))
    desk.close(FRI)
    assert [price for _, _, price, _ in desk.settled()] == [100.6]


def after_a_night(
    folder: Path,
    action: CorporateAction | None,
    legs: Sequence[tuple[str, int]],
    price: float,
    strikes: Iterable[float],
) -> tuple[Desk, float, np.ndarray, np.ndarray]:
    """An account that is told of an action overnight: its equity before, and both observations."""
    desk = held_over_monday(folder, legs)
    before = desk.env.equity()
    desk.env.set_actions([action] if action else [])
    desk.strikes = strikes
    desk.begin(TUE)
    return desk, before, desk.seen, desk.bar(TUE, 1, price)


@pytest.mark.parametrize(
    "legs",
    [[(PUT, 1)], [("ACME", 1), (FEB_CALL, -1)], [("ACME", 1)], [(CALL, -1), (NEXT_CALL, 1)]],
    ids=["put", "covered call", "stock", "calendar"],
)
def test_a_split_overnight_keeps_equity_and_shows_no_jump(
    tmp_path: Path, legs: list[tuple[str, int]]
) -> None:
    strikes = [each / 10 for each in range(80, 121)]
    desk, before, seen, after = after_a_night(
        tmp_path, Split("ACME", TUE, 10, 1), legs, 10.0, strikes
    )
    assert desk.suspended == ""
    # Quotes move by a few cents a share of a tenth: no more than the new spread.
    assert desk.env.equity() == pytest.approx(before, abs=150.0)
    held = desk.broker.account.positions
    assert all(position.quantity % 50 == 0 for position in held.values())
    assert np.abs(after - seen).max() < 8.0


def test_returns_after_a_split_are_those_of_a_market_without_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, _, _, split = after_a_night(
        tmp_path / "a",
        Split("ACME", TUE, 10, 1),
        [(PUT, 1)],
        10.0,
        [x / 10 for x in range(80, 121)],
    )
    _, _, _, plain = after_a_night(tmp_path / "b", None, [(PUT, 1)], 100.0, range(80, 121))
    for k, feature in enumerate(FEATURES):
        name = getattr(feature, "name", str(feature))
        if name.startswith(("return", "realised")):
            assert split[0, k] == pytest.approx(plain[0, k], abs=1e-4), name


def test_an_untold_split_suspends_and_is_applied_when_it_is_told(tmp_path: Path) -> None:
    strikes = [each / 10 for each in range(80, 121)]
    desk, before, _, _ = after_a_night(tmp_path, None, [(PUT, 1)], 10.0, strikes)
    assert "unexplained since 2026-01-06: 100.00 -> 10.00" in desk.suspended
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    desk.env.set_actions([Split("ACME", TUE, 10, 1)])
    desk.begin(TUE)
    assert desk.suspended == ""
    assert "O:ACME260109P00009500" in desk.broker.account.positions
    assert desk.env.equity() == pytest.approx(before, abs=0.01)


def test_bars_have_no_jump_where_a_split_is_told_days_late(tmp_path: Path) -> None:
    strikes = [each / 10 for each in range(80, 121)]
    desk, _, _, _ = after_a_night(tmp_path, None, [(PUT, 1)], 10.0, strikes)
    desk.bar(TUE, 2, 10.0)
    desk.env.close_session(session(TUE).close_ns, session(TUE), 0.0)
    desk.env.set_actions([Split("ACME", TUE, 10, 1)])
    desk.begin(WED)
    assert desk.suspended == ""
    seen = desk.bar(WED, 1, 10.0)
    closes = desk.env._markets["ACME"]._history.bars()
    assert np.ptp(closes.close[: closes.filled]) < 0.2
    assert np.isfinite(seen).all()


def test_a_gap_that_its_owner_explains_goes_on_at_the_markets_prices(tmp_path: Path) -> None:
    desk, _, _, _ = after_a_night(tmp_path, None, [(PUT, 1)], 60.0, range(40, 121))
    assert desk.suspended
    now_ns = session(TUE).open_ns + 2 * MINUTE_NS
    desk.broker.reinstate("ACME", "its owner: earnings", now_ns)
    desk.bar(TUE, 3, 60.0)
    assert desk.suspended == ""
    assert desk.env.equity() > 100_000.0 + 5 * 100 * 30.0


def held_back_with_dividends(folder: Path, *, told: Sequence[CorporateAction] = ()) -> Desk:
    """Stock with sold calls; unexplained since Tuesday, ex-dividend on Wednesday and Thursday."""
    paid = [Dividend("ACME", day, 0.25) for day in (WED, THU)]
    desk = held_over_monday(folder, [("ACME", 1), (FEB_CALL, -1)], dividends=paid)
    desk.begin(TUE)
    desk.bar(TUE, 5, 40.0)
    desk.bar(TUE, 6, 40.0)
    assert "unexplained since 2026-01-06: 100.00 -> 40.00" in desk.suspended
    desk.close(TUE, 40.0)
    for day in (WED, THU):
        desk.begin(day)
        desk.close(day, 40.0)
    assert desk.events(DividendPaid) == [], "of how many shares is not known"
    return desk


@pytest.mark.parametrize("stopped", [False, True])
def test_dividends_of_a_suspension_are_paid_once_its_owner_explains_it(
    tmp_path: Path, stopped: bool
) -> None:
    desk = held_back_with_dividends(tmp_path)
    if not stopped:
        desk.begin(FRI)
    said = execute_command(
        desk.broker,
        Command(OwnerCommand.REINSTATE, "alice", symbol="ACME"),
        desk.broker.account.last_ts_ns,
    ).said
    assert said == "ACME trades again; what fell due on it meanwhile is done first"
    if stopped:
        desk.journal.close()
        dividends = [Dividend("ACME", day, 0.25) for day in (WED, THU)]
        desk = Desk(tmp_path, dividends=dividends)
        desk.begin(FRI)
    desk.bar(FRI, 5, 40.0)
    paid = [(each.ex_date, each.lots, each.cash) for each in desk.events(DividendPaid)]
    assert paid == [("2026-01-07", 5, 125.0), ("2026-01-08", 5, 125.0)]
    assert desk.suspended == "", "its owner has said that the move was real"
    desk.bar(FRI, 6, 40.0)
    desk.close(FRI, 40.0)
    desk.begin(NEXT_MON)
    desk.bar(NEXT_MON, 5, 40.0)
    assert len(desk.events(DividendPaid)) == 2, "nothing is paid twice"
    assert desk.broker.account.held_back == {}


@pytest.mark.parametrize(
    ("ex_date", "shares"), [(TUE, [12.5 * 100] * 2), (THU, [5 * 100, 5 * 100])]
)
def test_dividends_of_a_suspension_are_paid_once_an_action_explains_it(
    tmp_path: Path, ex_date: date, shares: list[float]
) -> None:
    """On the shares that were held on each ex-date, before or after what explains it."""
    desk = held_back_with_dividends(tmp_path)
    desk.env.set_actions([Split("ACME", ex_date, 5, 2)])
    for day in (FRI, NEXT_MON):
        desk.begin(day)
        desk.bar(day, 5, 40.0)
        assert desk.suspended == ""
        assert desk.broker.account.shares_held("ACME") == 1250
        paid = [(each.ex_date, each.cash) for each in desk.events(DividendPaid)]
        assert paid == [("2026-01-07", 0.25 * shares[0]), ("2026-01-08", 0.25 * shares[1])]
        desk.close(day, 40.0)


def test_a_gap_below_the_limit_suspends_nothing(tmp_path: Path) -> None:
    desk, _, _, _ = after_a_night(tmp_path, None, [(PUT, 1)], 70.0, range(50, 121))
    assert desk.suspended == ""


def test_a_contract_that_is_listed_no_more_suspends(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(PUT, 1)])
    before = desk.env.equity()
    desk.begin(TUE)
    desk.env.suspend_unlisted("ACME", [PUT], session(TUE))
    desk.bar(TUE, 1, 70.0)
    assert f"{PUT} held and no longer listed" in desk.suspended
    assert desk.env.equity() == pytest.approx(before)


def test_an_adjusted_contract_is_marked_where_it_is_quoted_and_closed(tmp_path: Path) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    legs = [("ACME", 1), (FEB_CALL, -1)]
    desk, before, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), legs, 66.67, strikes)
    adjusted = "O:ACME1260206C00105000"
    assert desk.broker.account.shares_held("ACME") == 750
    assert adjusted in desk.env.listed_symbols()
    assert desk.env.equity() == pytest.approx(before, abs=5.0)
    assert 0.0 < desk.env.greeks("ACME")["delta"] < 750.0
    now_ns = session(TUE).open_ns + 2 * MINUTE_NS
    desk.quote(adjusted, 1.9, 2.1, now_ns)
    desk.bar(TUE, 2, 66.67)
    assert desk.env.marks()[adjusted] == pytest.approx(2.0)
    assert not desk.env.trade(now_ns, [0])[0].masked
    assert desk.broker.account.positions == {}
    assert desk.broker.account.strategies == {}
    desk.quote(adjusted, 1.9, 2.1, now_ns + MINUTE_NS)
    assert desk.env.refused["unknown_contract"] == 1


def test_an_adjusted_contract_is_held_to_its_expiry_where_nobody_quotes_it(
    tmp_path: Path,
) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    desk, _, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), [(CALL, 1)], 66.67, strikes)
    desk.env.trade(session(TUE).open_ns + MINUTE_NS, [0])
    assert len(desk.broker.account.positions) == 1
    desk.begin(FRI)
    desk.close(FRI, 70.0)
    (ended,) = desk.events(Settled)
    assert isinstance(ended, Settled)
    # 150 shares at 70 for 100 times 100.
    assert ended.cash == pytest.approx(5 * 500.0)


def test_a_split_on_the_day_of_expiry_converts_before_it_settles(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(PUT, 1)])
    desk.begin(TUE)
    desk.close(TUE, 98.0)
    desk.env.set_actions([Split("ACME", FRI, 10, 1)])
    desk.strikes = [each / 10 for each in range(80, 121)]
    desk.begin(FRI)
    desk.close(FRI, 9.3)
    assert [(s, price) for s, _, price, _ in desk.settled()] == [("O:ACME260109P00009500", 9.3)]


def test_two_splits_in_a_row_each_convert_once(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.set_actions([Split("ACME", TUE, 2, 1), Split("ACME", WED, 5, 1)])
    for day, price in ((TUE, 50.0), (WED, 10.0)):
        desk.strikes = [price * each / 100 for each in range(80, 121)]
        desk.begin(day)
        desk.begin(day)
        desk.close(day, price)
    assert desk.suspended == ""
    assert desk.broker.account.positions["O:ACME260206C00010500"].quantity == 50


def test_a_split_told_under_two_names_or_another_date_is_one(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.set_actions([Split("ACME", TUE, 2, 1, "first"), Split("ACME", TUE, 2, 1, "second")])
    desk.strikes = [each / 2 for each in range(80, 121)]
    desk.begin(TUE)
    assert desk.broker.account.positions["O:ACME260206C00052500"].quantity == 10
    # The price did not follow: the split was put off by a day.
    for minute in (1, 2, 3):  # The first bar of a jump is kept apart until another confirms it.
        desk.bar(TUE, minute, 100.0)
    assert "unexplained since 2026-01-06" in desk.suspended
    desk.env.close_session(session(TUE).close_ns, session(TUE), 0.0)
    desk.env.set_actions([Split("ACME", WED, 2, 1, "first")])
    desk.begin(WED)
    assert desk.broker.account.positions["O:ACME260206C00052500"].quantity == 10
    assert desk.suspended == ""


@pytest.mark.parametrize("told", [[Split("ACME", TUE, 5, 1)], []])
def test_a_split_that_is_corrected_after_its_date_is_taken_back_and_done_again(
    tmp_path: Path, told: list[Split]
) -> None:
    wrong, price = Split("ACME", TUE, 10, 1), 100.0 / (told[0].new if told else 1)
    desk = held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)], actions=[wrong])
    since = {"ACME": date(2025, 12, 1)}
    desk.env.set_actions([wrong], since)
    before = desk.env.equity()
    desk.begin(TUE)
    assert desk.broker.account.shares_held("ACME") == 5000
    for minute in (5, 6):
        desk.bar(TUE, minute, price, quotes=False)
    assert "unexplained since 2026-01-06: 10.00 -> " in desk.suspended
    desk.close(TUE, price, quotes=False)
    desk.env.set_actions(told, since)
    desk.begin(WED)
    why = "told as 5 for 1 now" if told else "called off"
    assert f"the split of 2026-01-06 (10 for 1) was applied and is {why}" in desk.suspended
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    word = Command(OwnerCommand.UNDO_ACTION, "alice", symbol="ACME")
    execute_command(desk.broker, word, desk.broker.account.last_ts_ns)
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    if not told:
        execute_command(
            desk.broker,
            Command(OwnerCommand.REINSTATE, "alice", symbol="ACME"),
            desk.broker.account.last_ts_ns,
        )
    desk.begin(WED)
    assert desk.suspended == ""
    times = 5 if told else 1
    account = desk.broker.account
    assert account.shares_held("ACME") == 500 * times
    assert f"O:ACME260206C{105_000 // times:08}" in account.positions
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    assert vars(desk.journal.fold()) == vars(account)
    desk.strikes = [number / times for number in range(80, 121)]
    desk.begin(WED)
    desk.bar(WED, 5, price)
    assert desk.suspended == ""
    assert desk.env.spot("ACME") == price


def test_a_split_that_is_called_off_before_its_date_converts_nothing(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.set_actions([Split("ACME", WED, 2, 1)])
    desk.begin(TUE)
    desk.close(TUE, 100.0)
    desk.env.set_actions([])
    desk.begin(WED)
    desk.close(WED, 100.0)
    assert desk.suspended == ""
    assert desk.broker.account.positions[FEB_CALL].quantity == 5


def test_two_different_splits_of_one_date_suspend(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.set_actions([Split("ACME", TUE, 2, 1), Split("ACME", TUE, 3, 1)])
    desk.begin(TUE)
    assert "2 for 1, 3 for 1 are told of one date" in desk.suspended
    assert desk.broker.account.positions[FEB_CALL].quantity == 5


def test_a_special_dividend_is_paid_and_lowers_strikes(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)])
    before = desk.env.equity()
    told = [Dividend("ACME", TUE, 0.5), Dividend("ACME", TUE, 15.0, special=True)]
    desk.env.set_dividends(told)
    desk.begin(TUE)
    assert sum(e.cash for e in desk.events(DividendPaid)) == 500 * 15.5  # type: ignore[union-attr]
    assert "O:ACME260206C00090000" in desk.broker.account.positions
    # The regular one is in the price until the market takes it out.
    assert desk.env.equity() == pytest.approx(before + 500 * 0.5, abs=0.01)
    desk.bar(TUE, 1, 84.5)
    assert desk.suspended == ""


def test_a_rename_moves_what_is_held_to_the_new_symbols_market(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)])
    before = desk.env.equity()
    desk.env.set_actions([Rename("ACME", TUE, "NEWCO")])
    desk.env.begin_session(session(TUE))
    assert set(desk.broker.account.positions) == {"NEWCO", "O:NEWCO260206C00105000"}
    assert "NEWCO" in desk.env.underlyings
    desk.env.list_contracts("NEWCO", contracts("NEWCO", range(80, 121), TUE))
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    desk.symbol = "NEWCO"
    desk.bar(TUE, 1, 100.0)
    assert desk.env.equity() == pytest.approx(before, abs=25.0)


def renamed(desk: Desk) -> None:
    """Tuesday begins, with ACME now called NEWCO and listed."""
    desk.env.set_actions([Rename("ACME", TUE, "NEWCO")])
    desk.env.begin_session(session(TUE))
    desk.symbol = "NEWCO"
    desk.env.list_contracts("NEWCO", contracts("NEWCO", range(80, 121), TUE))


def test_a_renamed_company_is_decided_on_in_its_place_without_a_restart(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)])
    start, scale = desk.env.equity(), DEFAULT_RULES.reward_scale / DEFAULT_RULES.initial_capital
    renamed(desk)
    assert desk.env.symbols == desk.env.underlyings == ("NEWCO",)
    assert desk.env.winding_down == set() and desk.env.to_close == []
    assert any(name.startswith("O:NEWCO") for name in desk.env.listed_symbols())
    earned = 0.0
    for minute, price in ((1, 101.0), (2, 102.0)):
        desk.bar(TUE, minute, price)
        now_ns = session(TUE).open_ns + minute * MINUTE_NS
        earned += float(desk.rewards[0])
        desk.env.trade(now_ns, [HOLD])
    assert earned / scale == pytest.approx(desk.env.equity() - start, abs=0.05)
    assert desk.env._views.mask[0, CLOSE]
    desk.journal.close()
    again = Desk(tmp_path)
    assert again.env.symbols == ("NEWCO",) and again.env.winding_down == set()
    again.journal.close()
    left = Desk(tmp_path, symbols=("OTHER",))
    assert left.env.symbols == ("OTHER", "NEWCO") and left.env.winding_down == {"NEWCO"}
    left.journal.close()


def test_a_renamed_company_of_which_nothing_is_held_is_followed_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(MON)
    desk.bar(MON, 1, 100.0)
    desk.close(MON, 100.0)
    renamed(desk)
    assert desk.env.symbols == ("NEWCO",) and desk.env.spot("NEWCO") == 100.0
    desk.bar(TUE, 1, 100.0)
    assert desk.env._views.mask[0].sum() > 1, "it is opened"


def test_what_winds_down_goes_on_doing_so_under_another_symbol(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.journal.close()
    desk = Desk(tmp_path, symbols=("OTHER",))
    desk.env.set_actions([Rename("ACME", TUE, "NEWCO")])
    desk.env.begin_session(session(TUE))
    assert desk.env.symbols == ("OTHER", "NEWCO") and desk.env.winding_down == {"NEWCO"}
    assert desk.env.to_close == ["NEWCO"]


def test_a_delisting_suspends_and_settles_nothing(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(CALL, 1)], official=True)
    before = desk.env.equity()
    desk.env.set_actions([Delisting("ACME", TUE)])
    desk.begin(TUE)
    assert desk.suspended == "delisted on 2026-01-06"
    desk.begin(FRI)
    desk.env.close_session(session(FRI).close_ns, session(FRI), 0.0)
    assert desk.settled() == []
    assert desk.env.equity() == pytest.approx(before)


def test_a_special_dividend_of_a_stock_that_nobody_holds_scales_its_bars(tmp_path: Path) -> None:
    desk = Desk(tmp_path, actions=[SpecialDividend("ACME", TUE, 20.0)])
    desk.begin(MON)
    desk.close(MON, 100.0)
    desk.begin(TUE)
    assert desk.env.price_factors == [("ACME", pytest.approx(0.8), session(TUE).open_ns)]
    assert desk.env.spot("ACME") == pytest.approx(80.0)


def test_a_stock_at_its_price_limit_is_suspended_until_it_trades_between_them(
    tmp_path: Path,
) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.begin(TUE)
    desk.bar(TUE, 1, 100.0)
    before = desk.env.equity()
    now_ns = session(TUE).open_ns + 90 * 10**9
    assert desk.env.apply_band("ACME", 95.0, 105.0, [21], now_ns)
    assert desk.suspended == ""
    desk.bar(TUE, 2, 105.0)
    desk.bar(TUE, 3, 105.0)
    assert desk.suspended == "its stock is halted or at its price limit"
    assert desk.env.equity() == pytest.approx(before)
    desk.env.apply_band("ACME", 100.0, 110.0, [21], now_ns + 300 * 10**9)
    assert desk.suspended == ""
    assert not desk.env.apply_band("OTHER", 1.0, 2.0, [], now_ns)


def test_an_indicator_of_a_halt_suspends_until_the_next_band_or_session(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.halt_indicators = frozenset([17])
    desk.begin(TUE)
    desk.bar(TUE, 1, 100.0)
    now_ns = session(TUE).open_ns + 90 * 10**9
    desk.env.apply_band("ACME", 0.0, 0.0, [17], now_ns)
    assert desk.suspended
    desk.env.apply_band("ACME", 95.0, 105.0, [21], now_ns + 1)
    assert desk.suspended == ""
    desk.env.apply_band("ACME", 0.0, 0.0, [17], now_ns + 2)
    desk.begin(WED)
    assert desk.suspended == ""


def test_an_older_band_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.begin(TUE)
    desk.bar(TUE, 1, 100.0)
    now_ns = session(TUE).open_ns + 90 * 10**9
    assert desk.env.apply_band("ACME", 90.0, 110.0, [], now_ns)
    assert not desk.env.apply_band("ACME", 95.0, 99.0, [], now_ns - 1)
    assert desk.suspended == ""


@pytest.mark.parametrize(
    ("quote", "reason"),
    [
        ((500.0, 500.2), Refusal.OUT_OF_BOUNDS),
        ((30.0, 30.1), Refusal.UNCONFIRMED),
        ((math.nan, 2.1), Refusal.NOT_A_PRICE),
        ((2.0, -1.0), Refusal.NOT_A_PRICE),
        ((1e12, 1e12), Refusal.NOT_A_PRICE),
    ],
)
def test_an_adjusted_contract_is_neither_traded_nor_marked_at_an_odd_price(
    tmp_path: Path, quote: tuple[float, float], reason: Refusal
) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    desk, _, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), [(CALL, 1)], 66.67, strikes)
    adjusted = "O:ACME1260109C00100000"
    now_ns = session(TUE).open_ns + 2 * MINUTE_NS
    good = OptionQuote(adjusted, 1.2, 1.3, 50.0, 50.0, now_ns - MINUTE_NS - 5, 7)
    assert desk.env.apply_quote(good)
    desk.bar(TUE, 1, 66.67)
    before = desk.env.equity()
    assert not desk.env.apply_quote(OptionQuote(adjusted, *quote, 50.0, 50.0, now_ns - 4, 8))
    assert desk.env.refused[reason] == 1
    desk.bar(TUE, 2, 66.67)
    assert desk.env.marks()[adjusted] == pytest.approx(1.25)
    assert desk.env.equity() == pytest.approx(before)
    desk.env.trade(now_ns, [0])
    assert desk.env.equity() == pytest.approx(before, abs=60.0)


def test_quotes_of_an_adjusted_contract_go_by_time_and_a_second_one_confirms(
    tmp_path: Path,
) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    desk, _, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), [(CALL, 1)], 66.67, strikes)
    adjusted = "O:ACME1260109C00100000"
    now_ns = session(TUE).open_ns + 2 * MINUTE_NS

    def tell(bid: float, ts_ns: int, sequence: int) -> bool:
        quote = OptionQuote(adjusted, bid, bid + 0.1, 50.0, 50.0, ts_ns, sequence)
        return desk.env.apply_quote(quote)

    assert not tell(1.0, 0, 9)
    assert tell(1.2, now_ns, 9)
    assert not tell(1.1, now_ns, 8) and not tell(1.1, now_ns - 1, 10)
    assert tell(1.3, now_ns + 1, 2)
    assert not tell(6.0, now_ns + 2, 3)
    assert desk.env._quote(adjusted)[:2] == (0.0, 0.0)
    assert tell(6.0, now_ns + 3, 4)
    assert desk.env._quote(adjusted)[:2] == (6.0, 6.1)


def test_a_quote_of_an_adjusted_contract_moves_no_mark_before_the_bar_closes(
    tmp_path: Path,
) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    desk, _, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), [(CALL, 1)], 66.67, strikes)
    adjusted, open_ns = "O:ACME1260109C00100000", session(TUE).open_ns
    desk.quote(adjusted, 0.8, 0.9, open_ns + 2 * MINUTE_NS)
    desk.bar(TUE, 2, 66.67)
    before = desk.env.equity()
    # A tenth of its worth, which is within a percent of what it delivers.
    desk.quote(adjusted, 0.08, 0.12, open_ns + 2 * MINUTE_NS + 1)
    assert desk.env.refused["unconfirmed"] == 0
    assert desk.env.marks()[adjusted] == pytest.approx(0.85)
    assert desk.env.equity() == before
    desk.quote(adjusted, 0.82, 0.92, open_ns + 3 * MINUTE_NS)
    desk.bar(TUE, 3, 66.67)
    assert desk.env.marks()[adjusted] == pytest.approx(0.87)


def test_what_was_halted_stays_so_at_a_start_within_the_session(tmp_path: Path) -> None:
    desk = held_over_monday(tmp_path, [(FEB_CALL, 1)])
    desk.env.halt_indicators = frozenset([17])
    desk.begin(TUE)
    desk.bar(TUE, 1, 100.0)
    desk.env.apply_band("ACME", 0.0, 0.0, [17], session(TUE).open_ns + 90 * 10**9)
    desk.journal.close()
    again = Desk(tmp_path)
    again.begin(TUE)
    assert again.suspended == "its stock is halted or at its price limit"
    again.begin(WED)
    assert again.suspended == ""


def test_a_wild_quote_of_an_adjusted_contract_is_kept_apart_until_another_says_the_same(
    tmp_path: Path,
) -> None:
    strikes = [each / 2 for each in range(100, 161)]
    legs = [("ACME", 1), (FEB_CALL, -1)]
    desk, _, _, _ = after_a_night(tmp_path, Split("ACME", TUE, 3, 2), legs, 66.67, strikes)
    adjusted, open_ns = "O:ACME1260206C00105000", session(TUE).open_ns
    desk.quote(adjusted, 1.9, 2.1, open_ns + 2 * MINUTE_NS)
    desk.bar(TUE, 2, 66.67)
    held = dict(desk.broker.account.positions)
    for bid, ask in ((0.0, 0.01), (60.0, 70.0), (math.nan, 2.0), (-1.0, 2.0)):
        desk.quote(adjusted, bid, ask, open_ns + 3 * MINUTE_NS)
        assert desk.env.marks()[adjusted] == pytest.approx(2.0)
        desk.env.trade(open_ns + 3 * MINUTE_NS, [0])
        sold = held.keys() - desk.broker.account.positions.keys()
        assert adjusted not in sold
    assert desk.env.refused["unconfirmed"] >= 2
    assert desk.env.refused["not_a_price"] >= 2
    desk.quote(adjusted, 8.0, 8.4, open_ns + 4 * MINUTE_NS)
    desk.quote(adjusted, 8.1, 8.5, open_ns + 5 * MINUTE_NS)
    desk.quote(adjusted, 8.1, 8.5, open_ns + 5 * MINUTE_NS + 1)
    desk.bar(TUE, 5, 66.67)
    assert desk.env.marks()[adjusted] == pytest.approx(8.3)


def test_a_company_that_takes_its_old_symbol_back_goes_on_from_its_own_price(
    tmp_path: Path,
) -> None:
    desk = held_over_monday(tmp_path, [("ACME", 1), (FEB_CALL, -1)])
    desk.env.set_actions([Rename("ACME", TUE, "NEWCO"), Rename("NEWCO", WED, "ACME")])
    desk.symbol, desk.strikes = "NEWCO", range(50, 121)
    desk.begin(TUE)
    desk.bar(TUE, 1, 99.0)
    # A fall that the old symbol has not seen.
    desk.bar(TUE, 2, 70.0)
    desk.bar(TUE, 3, 70.0)
    assert desk.env.spot("NEWCO") == 70.0
    desk.close(TUE, 70.0)
    before = desk.env.equity()
    desk.symbol = "ACME"
    desk.begin(WED)
    assert set(desk.broker.account.positions) == {"ACME", FEB_CALL}
    assert desk.env.equity() == pytest.approx(before, abs=0.01)
    desk.bar(WED, 1, 64.0)
    assert desk.suspended == ""
    assert desk.env.spot("ACME") == 64.0


@pytest.mark.parametrize("restart", [False, True])
def test_a_later_expiry_waits_for_the_close_of_an_earlier_one(
    tmp_path: Path, restart: bool
) -> None:
    held_over_monday(tmp_path, [(CALL, -1), (NEXT_CALL, 1)]).journal.close()
    desk = Desk(tmp_path)
    cash = desk.broker.account.cash
    desk.tell("ACME", {NEXT_FRI: 107.0})
    desk.begin(LATER)
    assert desk.settled() == []
    desk.bar(LATER, 1, 110.0)
    if restart:
        desk.journal.close()
        desk = Desk(tmp_path)
        desk.tell("ACME", {NEXT_FRI: 107.0})
        desk.begin(LATER)
    desk.tell("ACME", {FRI: 104.0})
    desk.env.settle_pending(session(LATER).open_ns + 2 * MINUTE_NS)
    assert [(symbol, price) for symbol, _, price, _ in desk.settled()] == [
        (CALL, 104.0),
        (NEXT_CALL, 107.0),
    ]
    # The shares that were owed from the first Friday on are those that the second call brings.
    assert desk.broker.account.cash == pytest.approx(cash)
    assert desk.broker.account.positions == {} and desk.suspended == ""
