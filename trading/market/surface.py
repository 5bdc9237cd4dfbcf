"""The implied-volatility surface of the simulated market, and the clock it lives on."""

from math import log, pow, sqrt

from numba import njit

from trading.market.calendar import DAY_NS
from trading.market.model import MarketModel

_SESSION_NS = 6.5 * 3600 * 1_000_000_000
_NIGHT_NS = 17.5 * 3600 * 1_000_000_000
_WEEKDAYS_PER_YEAR = 261.0
_THIRTY_DAYS = 30.0 / 365.0
_ONE_DAY = 1.0 / 365.0
_MAX_CORRELATION = 0.95


@njit(cache=True, error_model="numpy")
def _weekdays(day: int) -> int:
    """Weekdays from Monday 1969-12-29 to a day since 1970-01-01, that day excluded."""
    week, rest = divmod(day + 3, 7)
    return int(5 * week + min(rest, 5))


@njit(cache=True, error_model="numpy")
def variance_years(model: MarketModel, now_ns: int, expiry_ns: int) -> float:
    """Years of variance from now to expiry: weekdays count, weekends do not.

    Prices move while the exchange is open, so options there lose value by this clock, not by the
    calendar's: each weekday weighs 1/261 year, of which `1 - overnight_share` passes evenly in
    the 6.5 hours up to the expiry's time of day. With calendar time a straddle bought at the open
    would gain each day more than it decays. Holidays are not taken out.
    """
    left = expiry_ns - now_ns
    if left <= 0:
        return 0.0
    full = left // DAY_NS
    rest = left - full * DAY_NS
    expiry_day = expiry_ns // DAY_NS
    current = expiry_day - full
    years = float(_weekdays(expiry_day + 1) - _weekdays(current + 1))
    if (current + 3) % 7 < 5:
        open_part = min(rest / _SESSION_NS, 1.0)
        night_part = max(rest - _SESSION_NS, 0.0) / _NIGHT_NS
        years += (1.0 - model.overnight_share) * open_part + model.overnight_share * night_part
    return years / _WEEKDAYS_PER_YEAR


@njit(cache=True, error_model="numpy")
def term_iv(model: MarketModel, t_years: float, atm_iv: float) -> float:
    """At-the-money volatility at an expiry, from `atm_iv` at 30 days.

    It follows a power of time that falls, and inverts, as volatility rises above its calm level.
    """
    exponent = model.term_slope - model.term_inversion * log(atm_iv / model.calm_vol)
    exponent = min(max(exponent, -0.15), 0.1)
    return atm_iv * pow(max(t_years, _ONE_DAY) / _THIRTY_DAYS, exponent)


@njit(cache=True, error_model="numpy")
def event_iv(model: MarketModel, now_ns: int, expiry_ns: int, t_years: float, term: float) -> float:
    """At-the-money volatility `term` of an expiry with the variance of news that come before it."""
    if not now_ns < model.event_ns <= expiry_ns:
        return term
    return sqrt(term * term + model.event_move * model.event_move / max(t_years, _ONE_DAY))


@njit(cache=True, error_model="numpy")
def smile_iv(
    model: MarketModel, log_moneyness: float, t_years: float, term: float, skew: float
) -> float:
    """Volatility of a strike at an expiry whose at-the-money volatility is `term`.

    The smile of each expiry is an SSVI slice with phi = eta / sqrt(theta), whose parameters here
    stay inside the bounds that exclude butterfly arbitrage (J. Gatheral and A. Jacquier,
    "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14 (2014), theorem 4.2).
    """
    eta = max(model.curvature, 1e-6)
    rho = min(max(2.0 * skew / eta, -_MAX_CORRELATION), _MAX_CORRELATION)
    x = log_moneyness * (eta / (term * sqrt(max(t_years, _ONE_DAY))))
    variance_ratio = 0.5 * (1.0 + rho * x + sqrt(x * x + 2.0 * rho * x + 1.0))
    return max(term * sqrt(variance_ratio), model.min_iv)


@njit(cache=True, error_model="numpy")
def surface_iv(
    model: MarketModel, log_moneyness: float, t_years: float, atm_iv: float, skew: float
) -> float:
    """Implied volatility per square root of year of variance time.

    Parameters
    ----------
    log_moneyness : log of strike over forward
    t_years : time to expiry, as `variance_years` counts it
    atm_iv : at-the-money volatility at 30 days
    skew : relative change of volatility per standard deviation of log moneyness, at the money
    """
    term = term_iv(model, t_years, atm_iv)
    return float(smile_iv(model, log_moneyness, t_years, term, skew))
