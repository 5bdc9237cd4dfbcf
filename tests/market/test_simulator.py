"""The simulated exchange is one world, whoever looks at it and whenever."""

import hashlib
from datetime import date
from itertools import pairwise

import numpy as np
import pytest

from trading.errors import CalendarError, ConfigError
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.simulator import (
    DEFAULT_MODEL,
    Comovement,
    MarketStep,
    SimulatedExchange,
    SimulatedSession,
    UnderlyingSpec,
    default_spec,
    listing_expiries,
    listing_strikes,
)

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
LATER = date(2026, 1, 20)


def exchange(
    *symbols: str, seed: int = 7, first: date = FIRST, step_seconds: int = 30
) -> SimulatedExchange:
    specs = [default_spec(symbol) for symbol in symbols or ("SPY", "AAPL")]
    return SimulatedExchange(specs, first, seed, calendar=CALENDAR, step_seconds=step_seconds)


def assert_same(left: list[MarketStep], right: list[MarketStep]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.ts_ns == b.ts_ns
        assert a.bars == b.bars
        for name in ("index", "bid", "ask", "bid_size", "ask_size", "quote_ns"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def quotes_of(session: SimulatedSession, symbol: str) -> list[tuple[str, int, float, float]]:
    symbols = [contract.symbol for contract in session.contracts]
    roots = [contract.root for contract in session.contracts]
    return [
        (symbols[i], quote_ns, bid, ask)
        for step in session.steps()
        for i, quote_ns, bid, ask in zip(
            step.index.tolist(), step.quote_ns.tolist(), step.bid, step.ask, strict=True
        )
        if roots[i] == symbol
    ]


def test_restart_at_a_later_time_continues_the_same_world() -> None:
    simulate_paths = exchange()
    for session in CALENDAR.sessions(FIRST, LATER):
        simulate_paths.session(session.date)
    before = simulate_paths.session(LATER)
    after = exchange().session(LATER)
    assert after.contracts == before.contracts
    whole = list(before.steps())
    from_ns = before.session.open_ns + 3 * 3600 * 10**9 + 1
    tail = list(after.steps(from_ns))
    assert_same(tail, [step for step in whole if step.ts_ns >= from_ns])
    assert tail[0].ts_ns > from_ns


def test_session_can_be_walked_again() -> None:
    session = exchange("SPY").session(FIRST)
    assert_same(list(session.steps()), list(session.steps()))


def test_symbol_does_not_depend_on_its_neighbours() -> None:
    alone = exchange("AAPL").session(LATER)
    together = exchange("SPY", "AAPL").session(LATER)
    assert quotes_of(alone, "AAPL") == quotes_of(together, "AAPL")


def test_another_seed_is_another_world() -> None:
    one, two = (next(exchange(seed=seed).session(LATER).steps()) for seed in (7, 8))
    assert not np.array_equal(one.bid, two.bid)


def test_open_quotes_everything_and_steps_run_to_the_close() -> None:
    session = exchange().session(FIRST)
    steps = list(session.steps())
    assert np.array_equal(steps[0].index, np.arange(len(session.contracts)))
    times = [step.ts_ns for step in steps]
    assert times[0] == session.session.open_ns
    assert times[-1] == session.session.close_ns
    assert set(np.diff(times)) == {30 * 10**9}
    for step in steps:
        both = (step.bid > 0) & (step.ask > 0)
        assert np.all(step.bid[both] < step.ask[both])
        assert np.all(step.quote_ns <= step.ts_ns)
        assert np.all(np.diff(step.index) > 0)


def test_half_day_ends_at_one() -> None:
    session = exchange("SPY", first=date(2026, 11, 25)).session(date(2026, 11, 27))
    *_, last = session.steps()
    assert last.ts_ns - session.session.open_ns == 3.5 * 3600e9
    assert last.bars[0].start_ns == last.ts_ns - MINUTE_NS


def test_every_minute_ends_with_one_bar_a_symbol() -> None:
    session = exchange().session(FIRST)
    steps = list(session.steps())
    bars = [bar for step in steps for bar in step.bars]
    assert len(bars) == 2 * 390
    for step in steps:
        whole_minute = (step.ts_ns - session.session.open_ns) % MINUTE_NS == 0
        expected = ["SPY", "AAPL"] if whole_minute and step is not steps[0] else []
        assert [bar.symbol for bar in step.bars] == expected
        for bar in step.bars:
            assert bar.start_ns + MINUTE_NS == step.ts_ns
            assert bar.low <= min(bar.open, bar.close, bar.vwap + 0.01)
            assert bar.high >= max(bar.open, bar.close, bar.vwap - 0.01)
            assert bar.volume >= 0.0
    spy = [bar for bar in bars if bar.symbol == "SPY"]
    assert all(a.close == b.open for a, b in pairwise(spy))


def test_night_brings_a_gap() -> None:
    world = exchange("SPY")
    *_, evening = world.session(FIRST).steps()
    morning = next(step for step in world.session(date(2026, 1, 6)).steps() if step.bars)
    assert evening.bars[0].close != morning.bars[0].open
    assert morning.bars[0].open == pytest.approx(evening.bars[0].close, rel=0.1)


def test_scheduled_news_moves_the_night_it_comes_in_and_no_other() -> None:
    def opens(event_move: float) -> list[float]:
        evening = CALENDAR.session_on(date(2026, 1, 6))
        assert evening is not None
        news = float(evening.close_ns + 3600 * 10**9)
        model = DEFAULT_MODEL._replace(event_ns=news, event_move=event_move)
        world = SimulatedExchange(
            [default_spec("AAPL")], FIRST, 7, model=model, calendar=CALENDAR, step_seconds=60
        )
        days = [session.date for session in CALENDAR.sessions(FIRST, date(2026, 1, 7))]
        return [
            next(step for step in world.session(day).steps() if step.bars).bars[0].open
            for day in days
        ]

    quiet, news = opens(0.0), opens(0.5)
    assert news[:2] == quiet[:2]
    assert abs(np.log(news[2] / quiet[2])) > 0.02


def test_contract_stays_listed_until_it_expires() -> None:
    world = exchange("TSLA")
    listed: set[str] = set()
    for session in CALENDAR.sessions(FIRST, date(2026, 2, 27)):
        contracts = world.session(session.date).contracts
        assert contracts == sorted(contracts)
        today = {contract.symbol for contract in contracts}
        assert len(today) == len(contracts)
        alive = {symbol for symbol in listed if f"20{symbol[6:12]}" >= f"{session.date:%Y%m%d}"}
        assert alive <= today
        assert all(contract.expiry >= session.date for contract in contracts)
        listed |= today


def test_quotes_grow_stale_between_renewals() -> None:
    session = exchange("AAPL", step_seconds=5).session(FIRST)
    latest = np.zeros(len(session.contracts), dtype=np.int64)
    for step in session.steps():
        latest[step.index] = step.quote_ns
        if step.ts_ns >= session.session.open_ns + 30 * MINUTE_NS:
            break
    age_s = (step.ts_ns - latest) / 1e9
    assert 5.0 < np.quantile(age_s, 0.9) < 90.0


def test_strikes_surround_the_spot_in_usual_increments() -> None:
    strikes = listing_strikes(683.2, 21, coverage=0.07)
    assert len(strikes) == 21
    assert strikes[0] == 635.0
    assert set(np.diff(strikes)) == {5.0}
    assert set(np.diff(listing_strikes(25.0, 21))) == {0.5}
    assert np.all(listing_strikes(1.0, 21) > 0.0)


def test_expiries_are_two_near_fridays_and_about_one_and_two_months() -> None:
    expiries = listing_expiries(FIRST, CALENDAR)
    assert expiries == [date(2026, 1, 9), date(2026, 1, 16), date(2026, 2, 6), date(2026, 3, 6)]


def test_expiry_on_good_friday_moves_to_thursday() -> None:
    assert date(2026, 4, 2) in listing_expiries(date(2026, 3, 30), CALENDAR)


def test_unknown_symbol_has_a_lasting_spec() -> None:
    assert default_spec("SPY").penny
    assert default_spec("ZZZT") == default_spec("ZZZT")
    assert default_spec("ZZZT") != default_spec("ZZZU")
    assert 20.0 <= default_spec("ZZZT").spot <= 400.0


def test_wrong_questions_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="step_seconds 7"):
        exchange(step_seconds=7)
    with pytest.raises(ConfigError, match="SPY"):
        exchange("SPY", "SPY")
    with pytest.raises(ConfigError, match="at least one"):
        SimulatedExchange(list[UnderlyingSpec](), FIRST, 7)
    with pytest.raises(CalendarError, match="2026-01-01"):
        exchange(first=date(2026, 1, 1))
    with pytest.raises(CalendarError, match="2025-12-31"):
        exchange().session(date(2025, 12, 31))


def test_the_default_world_is_the_one_it_always_was() -> None:
    """Journals go on in it: a world that changes would meet an account that it does not fit."""
    digest = hashlib.sha256()
    world = exchange(step_seconds=60)
    for day in (FIRST, date(2026, 1, 9)):
        for step in world.session(day).steps():
            for name in ("index", "bid", "ask", "bid_size", "ask_size", "quote_ns"):
                digest.update(getattr(step, name).tobytes())
            digest.update(repr(step.bars).encode())
    assert digest.hexdigest().startswith("0e2184eef1e46b72b6f4230061baaa68")


def closes(comovement: Comovement, *symbols: str, sessions: int = 30) -> np.ndarray:
    model = DEFAULT_MODEL._replace(jump_share=0.0, stress_rate=0.2, calm_rate=0.2, event_move=0.4)
    specs = [UnderlyingSpec(symbol, 100.0, 0.2, n_strikes=3) for symbol in symbols]
    world = SimulatedExchange(
        specs, FIRST, 7, model=model, calendar=CALENDAR, step_seconds=60, comovement=comovement
    )
    last = CALENDAR.sessions(FIRST, date(2026, 12, 31))[sessions].date
    world.session(last)
    openings = [world._openings[day] for day in sorted(world._openings)]
    spots: np.ndarray = np.array([[each.state.spot for each in opening] for opening in openings])
    return spots


def test_correlated_underlyings_move_together_by_day_and_by_night() -> None:
    together = np.diff(np.log(closes(Comovement(0.95), "AAA", "BBB")), axis=0)
    assert np.corrcoef(together.T)[0, 1] > 0.8
    apart = np.diff(np.log(closes(Comovement(0.0), "AAA", "BBB")), axis=0)
    assert abs(np.corrcoef(apart.T)[0, 1]) < 0.5


def test_a_tied_symbol_does_not_depend_on_its_neighbours_either() -> None:
    comovement = Comovement(0.5, regimes=True, news_every_days=20)
    alone, together = (
        closes(comovement, "BBB", sessions=5),
        closes(comovement, "AAA", "BBB", sessions=5),
    )
    assert np.array_equal(alone[:, 0], together[:, 1])


def test_recurring_news_come_each_so_many_days() -> None:
    comovement = Comovement(news_every_days=14)
    moves = [
        np.diff(np.log(closes(each, "AAA")), axis=0)[:, 0] for each in (comovement, Comovement())
    ]
    nights = np.flatnonzero(~np.isclose(*moves, rtol=0.0, atol=1e-9))
    days = [session.date for session in CALENDAR.sessions(FIRST, date(2026, 12, 31))]
    dates = [days[i] for i in nights]
    # News of a day without a session come at the last close before it.
    assert len(dates) in (3, 4)
    assert all((b - a).days in range(10, 19) for a, b in pairwise(dates))
