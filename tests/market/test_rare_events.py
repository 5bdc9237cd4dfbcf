"""Rare events of a simulated world: what they do to prices, contracts, quotes and listings."""

from datetime import date

import numpy as np
import pytest

from trading.config import load_settings
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.companies import LEAD, Company, company_at_open
from trading.market.contracts import parse_symbol
from trading.market.corporate_actions import Delisting, Rename, Split, adjusted_strike
from trading.market.dividends import Dividend
from trading.market.rare_events import Misprint, RareEvents, RareKind, bad_prints_of, halt_of
from trading.market.simulated_underlying import COMPANY
from trading.market.simulator import (
    MarketStep,
    SimulatedExchange,
    SimulatedSession,
    UnderlyingSpec,
)

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
DAYS = [each.date for each in CALENDAR.sessions(FIRST, date(2026, 6, 30))]
EX = DAYS[LEAD]


def world(kind: RareKind | None = None, on: date = EX, spot: float = 100.0) -> SimulatedExchange:
    """One company, `AAA`, with one thing planned; none at all without a kind."""
    rare = RareEvents(planned={("AAA", on): kind} if kind else {})
    spec = UnderlyingSpec("AAA", spot, 0.25, n_strikes=9)
    return SimulatedExchange([spec], FIRST, 3, calendar=CALENDAR, step_seconds=60, rare=rare)


def first_step(session: SimulatedSession) -> MarketStep:
    return next(session.steps())


def mids(session: SimulatedSession) -> dict[str, float]:
    """The middle of each contract that is quoted on both sides at the open, by symbol."""
    step = first_step(session)
    return {
        session.contracts[i].symbol: 0.5 * (bid + ask)
        for i, bid, ask in zip(step.index.tolist(), step.bid, step.ask, strict=True)
        if bid > 0.0
    }


def first_price(session: SimulatedSession) -> float:
    return next(bar.open for step in session.steps() for bar in step.bars)


def test_without_rates_and_plans_the_world_is_what_it_was() -> None:
    plain = SimulatedExchange(
        [UnderlyingSpec("AAA", 100.0, 0.25, n_strikes=9)],
        FIRST,
        3,
        calendar=CALENDAR,
        step_seconds=60,
    )
    for left, right in zip(
        plain.session(EX).steps(), world(RareKind.HALT, on=DAYS[9]).session(EX).steps(), strict=True
    ):
        assert left.bars == right.bars
        assert np.array_equal(left.bid, right.bid)


@pytest.mark.parametrize("kind", [RareKind.SPLIT, RareKind.SPECIAL_DIVIDEND])
def test_an_action_is_announced_before_and_changes_price_and_strikes_on_its_ex_date(
    kind: RareKind,
) -> None:
    plain, rare = world(), world(kind, spot=400.0 if kind is RareKind.SPLIT else 100.0)
    plain = world(spot=400.0) if kind is RareKind.SPLIT else plain
    (company,) = rare.session(DAYS[LEAD - 1]).companies
    (told,) = company.told
    assert told.ex_date == EX
    (action,) = [company.ahead]
    assert action is not None
    before, after = first_price(plain.session(EX)), first_price(rare.session(EX))
    assert after == pytest.approx(action.price_after(before), rel=2e-3)
    if isinstance(action, Split) and not action.is_whole:
        return
    listed = {c.strike_milli for c in rare.session(EX).contracts}
    kept = {
        adjusted_strike(action, each.strike_milli)
        for each in plain.session(DAYS[LEAD - 1]).contracts
        if each.expiry >= EX
    }
    assert {each for each in kept if each is not None} <= listed
    (company,) = rare.session(EX).companies
    assert company.ahead is None


def test_after_an_uneven_split_the_old_contracts_are_quoted_as_what_they_deliver() -> None:
    before, after = world().session(EX), world(RareKind.UNEVEN_SPLIT).session(EX)
    unsplit, split = mids(before), mids(after)
    adjusted = {symbol: mid for symbol, mid in split.items() if parse_symbol(symbol).is_adjusted}
    assert len(adjusted) > 20
    for symbol, mid in adjusted.items():
        assert mid == pytest.approx(unsplit.get(symbol.replace("AAA1", "AAA"), mid), abs=0.6)
    step = first_step(after)
    both = (step.bid > 0.0) & (step.ask > 0.0)
    assert (step.ask > step.bid)[both].all()
    standard = [each for each in after.contracts if not each.is_adjusted]
    assert standard, "new contracts are listed on what the stock costs now"
    assert not [each for each in world().session(DAYS[70]).contracts if each.is_adjusted]


def test_a_renamed_company_goes_on_under_another_symbol_and_comes_back() -> None:
    exchange, plain = world(RareKind.RENAME), world()
    assert {c.root for c in exchange.session(DAYS[LEAD - 1]).contracts} == {"AAA"}
    renamed = exchange.session(EX)
    assert {c.root for c in renamed.contracts} == {"AAAX"}
    assert first_price(renamed) == first_price(plain.session(EX))
    back = next(each for each in DAYS if (each - EX).days >= 91)
    (company,) = exchange.session(back).companies
    assert company.symbol == "AAA"
    assert [each for each in company.told if isinstance(each, Rename)] == [
        Rename("AAA", EX, "AAAX"),
        Rename("AAAX", back, "AAA"),
    ]


def test_a_delisted_stock_does_not_trade_has_closes_all_the_same_and_is_listed_again() -> None:
    exchange = world(RareKind.DELISTING)
    gone = exchange.session(EX)
    assert gone.contracts == []
    assert not [bar for step in gone.steps() for bar in step.bars]
    (company,) = exchange.session(DAYS[LEAD + 3]).companies
    assert [(symbol, day) for symbol, day, _ in company.closes] == [
        ("AAA", day) for day in DAYS[LEAD : LEAD + 3]
    ]
    assert Delisting("AAA", EX) in company.told
    back = next(each for each in DAYS if (each - EX).days >= 91)
    assert exchange.session(back).contracts
    assert exchange.session(back).companies[0].told == ()


def test_while_it_is_halted_nothing_trades_and_the_exchange_says_so_every_minute() -> None:
    session = world(RareKind.HALT).session(EX)
    steps = list(session.steps())
    halted = {step.ts_ns for step in steps for news in step.halts if news.halted}
    assert len(halted) >= 5
    (resumed,) = [n.ts_ns for step in steps for n in step.halts if not n.halted]
    assert resumed == max(halted) + MINUTE_NS
    for step in steps:
        if step.ts_ns in halted:
            assert len(step.index) == 0
            assert not step.bars or step.ts_ns == min(halted)
        elif step.ts_ns == resumed:
            assert len(step.index) == len(session.contracts)


def test_a_session_can_be_halted_whole_and_its_close_is_told_the_next_morning() -> None:
    exchange = world(RareKind.WHOLE_SESSION_HALT)
    steps = list(exchange.session(EX).steps())
    assert not any(len(step.index) or step.bars for step in steps)
    (company,) = exchange.session(DAYS[LEAD + 1]).companies
    ((symbol, day, price),) = company.closes
    assert (symbol, day) == ("AAA", EX)
    assert price == pytest.approx(100.0, rel=0.2)


def test_bad_prints_are_followed_by_the_right_ones() -> None:
    wrong, right = world(RareKind.BAD_PRINTS).session(EX), world().session(EX)
    odd = 0
    for a, b in zip(wrong.steps(), right.steps(), strict=True):
        crossed = (a.bid > a.ask) & (a.ask > 0.0)
        odd += int(crossed.sum())
        shown = {i: (bid, ask) for i, bid, ask in zip(b.index.tolist(), b.bid, b.ask, strict=True)}
        told = dict(zip(a.index.tolist(), zip(a.bid, a.ask, strict=True), strict=True))
        assert shown.keys() <= told.keys()
        differ = [i for i in shown if shown[i] != told[i]]
        assert len(differ) <= 2
        odd += len(differ)
    assert odd >= 2
    closes = [bar.close for step in wrong.steps() for bar in step.bars]
    truth = [bar.close for step in right.steps() for bar in step.bars]
    jumps = [a / b for a, b in zip(closes, truth, strict=True) if a != b]
    assert len(jumps) == 2
    assert all(abs(jump - 1.0) > 0.3 for jump in jumps)
    assert closes[-5:] == truth[-5:]


def session_of(day: date) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def test_rates_are_how_often_a_year() -> None:
    rates = RareEvents(halts=25.0, bad_prints=50.0)
    halts = prints = 0
    for number in range(4000):
        rng = np.random.default_rng([1, number])
        halts += halt_of(rates, "AAA", session_of(FIRST), rng) is not None
        prints += bool(bad_prints_of(rates, "AAA", session_of(FIRST), MINUTE_NS, rng))
    assert halts == pytest.approx(4000 * 25 / 252, rel=0.15)
    assert prints == pytest.approx(4000 * 50 / 252, rel=0.15)
    kinds = [rates.drawn_action(u) for u in np.linspace(0.0, 0.999, 100)]
    assert set(kinds) == {None}


def test_the_world_of_the_default_settings_meets_every_kind_within_a_year() -> None:
    """The draws are those of the exchange; which ratio a split has depends on its prices too."""
    settings = load_settings(None, [], {})
    rare = RareEvents(**settings.data.simulation.rare_events.model_dump())
    spec = [UnderlyingSpec(symbol, 100.0, 0.2) for symbol in settings.symbols]
    first = settings.data.simulation.first_session
    exchange = SimulatedExchange(spec, first, settings.seed, rare=rare)
    sessions = [exchange.calendar.session_on(first)]
    while len(sessions) < 252:
        assert sessions[-1] is not None
        sessions.append(exchange.calendar.next_session(sessions[-1].date))
    met: set[object] = set()
    for rules in exchange._rules:
        company = Company(rules.spec.symbol)
        for session in sessions:
            assert session is not None
            rng = rules.rng(session.date, COMPANY)
            name = rules.spec.symbol
            company, _, _ = company_at_open(
                company, rare, name, session.date, 100.0, 100.0, {}, rng, CALENDAR
            )
            met |= {type(each) for each in company.told if each.ex_date <= session.date}
            halt = rules.halt(session)
            if halt is not None:
                met.add("whole" if halt.start_ns == session.open_ns else "halt")
            met |= {each.misprint for each in rules.bad_prints(session)}
    assert met >= {Split, Dividend, Rename, Delisting, "halt", *Misprint}
