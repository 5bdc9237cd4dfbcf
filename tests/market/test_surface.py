"""The simulated volatility surface admits no arbitrage, and its clock counts trading days."""

from datetime import date

import numpy as np
import pytest

from trading.market.calendar import ExchangeCalendar
from trading.market.model import DEFAULT_MODEL
from trading.market.pricing import black_price
from trading.market.surface import event_iv, surface_iv, variance_years

CALENDAR = ExchangeCalendar()


def clock(now_ns: int, expiry: date) -> float:
    return variance_years(DEFAULT_MODEL, now_ns, CALENDAR.expiry_ns(expiry))


def test_surface_passes_through_the_given_level_and_slope() -> None:
    k = 1e-4
    level = surface_iv(DEFAULT_MODEL, 0.0, 30 / 365, 0.2, -0.2)
    up = surface_iv(DEFAULT_MODEL, k, 30 / 365, 0.2, -0.2)
    deviations = k / (0.2 * np.sqrt(30 / 365))
    assert level == pytest.approx(0.2)
    assert (up / level - 1.0) / deviations == pytest.approx(-0.2, abs=1e-3)


@pytest.mark.parametrize("atm_iv", [0.1, 0.15, 0.4, 1.0])
@pytest.mark.parametrize("skew", [-0.42, -0.2, 0.05])
def test_smile_has_no_butterfly_arbitrage(atm_iv: float, skew: float) -> None:
    for t in (0.003, 0.08, 0.25):
        strikes = 100.0 * np.exp(np.linspace(-5.0, 5.0, 201) * atm_iv * np.sqrt(t))
        calls = np.array(
            [
                black_price(
                    1,
                    100.0,
                    strike,
                    t,
                    1.0,
                    surface_iv(DEFAULT_MODEL, np.log(strike / 100.0), t, atm_iv, skew),
                )
                for strike in strikes
            ]
        )
        slopes = np.diff(calls) / np.diff(strikes)
        assert np.all(slopes < 1e-12)
        assert np.all(slopes > -1.0 - 1e-12)
        assert np.all(np.diff(slopes) > -1e-9)


@pytest.mark.parametrize("atm_iv", [0.1, 0.15, 0.4, 1.0])
def test_later_expiry_has_more_total_variance(atm_iv: float) -> None:
    terms = np.linspace(0.003, 1.0, 100)
    total = [surface_iv(DEFAULT_MODEL, 0.0, t, atm_iv, -0.2) ** 2 * t for t in terms]
    assert np.all(np.diff(total) > 0.0)


def test_stress_inverts_the_term_structure() -> None:
    def slope(level: float) -> float:
        near, far = (surface_iv(DEFAULT_MODEL, 0.0, t, level, -0.2) for t in (0.02, 0.2))
        return far - near

    assert slope(DEFAULT_MODEL.calm_vol) > 0.0
    assert slope(2 * DEFAULT_MODEL.calm_vol) < 0.0


def test_variance_clock_counts_weekdays_and_spares_the_weekend() -> None:
    friday, monday = (CALENDAR.session_on(date(2026, 1, day)) for day in (9, 12))
    assert friday is not None
    assert monday is not None
    expiry = date(2026, 1, 16)
    night = DEFAULT_MODEL.overnight_share
    assert clock(friday.close_ns, expiry) == pytest.approx(5 / 261)
    assert clock(monday.open_ns, expiry) == pytest.approx((5 - night) / 261)
    assert clock(monday.close_ns, expiry) == pytest.approx(4 / 261)
    saturday_ns = friday.close_ns + 24 * 3600 * 10**9
    assert clock(saturday_ns, expiry) == pytest.approx(5 / 261)


def test_variance_clock_runs_to_zero_without_turning_back() -> None:
    end = CALENDAR.expiry_ns(date(2026, 2, 20))
    times = np.linspace(end - 45 * 86_400 * 10**9, end, 5000).astype(np.int64)
    years = np.array([variance_years(DEFAULT_MODEL, now, end) for now in times])
    assert np.all(np.diff(years) <= 1e-15)
    assert years[-1] == 0.0
    assert years[0] == pytest.approx(45 / 365, rel=0.05)
    assert variance_years(DEFAULT_MODEL, end + 1, end) == 0.0


def test_expiries_after_the_news_carry_its_variance() -> None:
    now, news, before, after = (
        1_767_623_400_000_000_000 + d * 86_400 * 10**9 for d in (0, 20, 18, 25)
    )
    model = DEFAULT_MODEL._replace(event_ns=float(news), event_move=0.06)
    assert event_iv(model, now, before, 18 / 365, 0.2) == 0.2
    t = 25 / 365
    assert event_iv(model, now, after, t, 0.2) ** 2 * t == pytest.approx(0.04 * t + 0.06**2)
    assert event_iv(model, news, after, 5 / 365, 0.2) == 0.2
    assert event_iv(DEFAULT_MODEL, now, after, t, 0.2) == 0.2
