"""What drives a simulated market: spot, volatility, skew and the regime they live in."""

from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.model import YEAR_SECONDS, MarketModel

F64 = NDArray[np.float64]
I8 = NDArray[np.int8]

SESSIONS_PER_YEAR = 252.0
CALM = 0
STRESSED = 1

_SESSION_SECONDS = 6.5 * 3600
_MIN_LOG_IV = log(0.04)
_MAX_LOG_IV = log(3.0)
_MIN_SKEW = -0.42
_MAX_SKEW = 0.05


class Factors(NamedTuple):
    """Paths of B markets over T steps; index t + 1 holds the state at the end of step t."""

    spot: F64
    """[B, T + 1], USD per share."""
    high: F64
    """[B, T], the highest spot inside each step."""
    low: F64
    """[B, T]"""
    volume: F64
    """[B, T], shares traded in each step."""
    atm_iv: F64
    """[B, T + 1], at-the-money implied volatility at 30 days."""
    skew: F64
    """[B, T + 1], relative change of volatility per standard deviation of log moneyness."""
    regime: I8
    """[B, T + 1], CALM or STRESSED."""


class State(NamedTuple):
    """One market at one time."""

    spot: float
    log_iv: float
    skew: float
    regime: int


class _Law(NamedTuple):
    """What a step of a given length does in one regime, apart from the state it starts in."""

    switch_probability: float
    level: float
    """Level that log volatility reverts to."""
    other_level: float
    """The same in the other regime."""
    variance_per_iv2: float
    """Variance of the step's return over the square of at-the-money volatility."""
    drift: float
    vol_pull: float
    vol_scale: float
    skew_pull: float
    skew_level: float
    skew_scale: float
    jump_probability: float
    jump_share: float
    jump_size: float
    """Standard deviation of one jump over that of the step's return."""


@njit(cache=True, error_model="numpy")
def _law(model: MarketModel, regime: int, years: float, log_scale: float) -> _Law:
    sessions = years * SESSIONS_PER_YEAR
    calm, stressed = log(model.calm_vol) + log_scale, log(model.stressed_vol) + log_scale
    in_stress = regime == STRESSED
    premium = model.stressed_premium if in_stress else model.calm_premium
    return _Law(
        1.0 - exp(-(model.calm_rate if in_stress else model.stress_rate) * sessions),
        stressed if in_stress else calm,
        calm if in_stress else stressed,
        years / (1.0 + premium) ** 2,
        model.drift * years,
        min(model.vol_reversion * sessions, 1.0),
        model.vol_of_vol * sqrt(years),
        min(model.skew_reversion * sessions, 1.0),
        model.stressed_skew if in_stress else model.calm_skew,
        model.skew_noise * sqrt(years),
        1.0 - exp(-model.jump_rate * years),
        model.jump_share,
        sqrt(model.jump_share / (model.jump_rate * years)),
    )


@njit(cache=True, error_model="numpy")
def _step(
    model: MarketModel, law: _Law, rng: np.random.Generator, state: State, iv: float
) -> tuple[State, float, float]:
    """`advance` without a switch, by the law of the state's regime; `iv` is exp(state.log_iv)."""
    spot, log_iv, skew, regime = state
    variance = iv * iv * law.variance_per_iv2
    diffusive = variance * (1.0 - law.jump_share)
    shock = rng.standard_normal()
    move = law.drift - 0.5 * variance + sqrt(diffusive) * shock
    bridge = -2.0 * diffusive
    highest = 0.5 * (move + sqrt(move * move + bridge * log(1.0 - rng.random())))
    lowest = 0.5 * (move - sqrt(move * move + bridge * log(1.0 - rng.random())))
    if rng.random() < law.jump_probability:
        move += sqrt(variance) * law.jump_size * rng.standard_normal()

    rho = model.vol_correlation
    vol_shock = rho * shock + sqrt(1.0 - rho * rho) * rng.standard_normal()
    log_iv += law.vol_pull * (law.level - log_iv) + law.vol_scale * vol_shock
    log_iv = min(max(log_iv, _MIN_LOG_IV), _MAX_LOG_IV)
    skew += law.skew_pull * (law.skew_level - skew) + law.skew_scale * rng.standard_normal()
    skew = min(max(skew, _MIN_SKEW), _MAX_SKEW)
    following = State(spot * exp(move), log_iv, skew, regime)
    return following, spot * exp(max(highest, move)), spot * exp(min(lowest, move))


@njit(cache=True, error_model="numpy")
def advance(
    model: MarketModel,
    rng: np.random.Generator,
    state: State,
    years: float,
    log_scale: float,
) -> tuple[State, float, float]:
    """The state after `years` of variance time, with the highest and lowest spot on the way.

    The volatility levels are the model's times the exponential of `log_scale`.
    Log volatility is an Ornstein-Uhlenbeck process around the regime's level, stepped by Euler;
    the return is diffusive at the realised volatility of the step's start, plus normal jumps
    (R. Merton, J. Financial Economics 3 (1976), 125-144). The extremes are drawn from the law of
    the maximum of a Brownian bridge (P. Glasserman, "Monte Carlo Methods", section 6.4).
    """
    law = _law(model, state.regime, years, log_scale)
    if rng.random() < law.switch_probability:
        state = _switched(model, law, state)
        law = _law(model, state.regime, years, log_scale)
    following, high, low = _step(model, law, rng, state, exp(state.log_iv))
    return following, high, low


@njit(cache=True, error_model="numpy")
def overnight(
    model: MarketModel, rng: np.random.Generator, close: State, close_ns: int, open_ns: int
) -> State:
    """The state at the next open, from that at a close; news that falls between moves the spot."""
    years = model.overnight_share / SESSIONS_PER_YEAR
    state, _, _ = advance(model, rng, close, years, 0.0)
    if close_ns < model.event_ns <= open_ns:
        spot = state.spot * exp(model.event_move * rng.standard_normal())
        state = State(spot, state.log_iv, state.skew, state.regime)
    return state


@njit(cache=True, error_model="numpy")
def _switched(model: MarketModel, law: _Law, state: State) -> State:
    """The state as it enters the other regime."""
    spot, log_iv, skew, regime = state
    log_iv += model.switch_shock * (law.other_level - log_iv)
    return State(spot, log_iv, skew, STRESSED if regime == CALM else CALM)


@njit(cache=True, error_model="numpy")
def simulate_path(
    model: MarketModel,
    rng: np.random.Generator,
    factors: Factors,
    b: int,
    step_seconds: float,
    year_seconds: float,
    log_scale: float,
    first: int = 0,
) -> None:
    """Fill the path of market `b` from its state at index `first`, whose step starts at an open.

    The same as `advance` for every step, with volume.
    """
    step_years = step_seconds / year_seconds * (1.0 - model.overnight_share)
    share = step_seconds / _SESSION_SECONDS
    noise = model.volume_noise
    volume_level = model.daily_volume * share / model.calm_vol * exp(-0.5 * noise * noise)
    iv = factors.atm_iv[b, first]
    regime = STRESSED if factors.regime[b, first] == STRESSED else CALM
    state = State(factors.spot[b, first], log(iv), factors.skew[b, first], regime)
    law = _law(model, regime, step_years, log_scale)
    for step in range(first, factors.high.shape[1]):
        passed = (step - first) * step_seconds
        middle = 2.0 * (passed % _SESSION_SECONDS) / _SESSION_SECONDS - 1.0
        smile = 0.6 + 1.2 * middle * middle
        volume = volume_level * smile * iv * exp(noise * rng.standard_normal())
        factors.volume[b, step] = np.rint(volume)
        if rng.random() < law.switch_probability:
            state = _switched(model, law, state)
            law = _law(model, state.regime, step_years, log_scale)
            iv = exp(state.log_iv)
        state, factors.high[b, step], factors.low[b, step] = _step(model, law, rng, state, iv)
        iv = exp(state.log_iv)
        factors.spot[b, step + 1] = state.spot
        factors.atm_iv[b, step + 1] = iv
        factors.skew[b, step + 1] = state.skew
        factors.regime[b, step + 1] = state.regime


@njit(cache=True, error_model="numpy")
def _simulate(
    model: MarketModel,
    rng: np.random.Generator,
    factors: Factors,
    step_seconds: float,
    year_seconds: float,
    log_scale: F64,
) -> None:
    for b in range(factors.spot.shape[0]):
        simulate_path(model, rng, factors, b, step_seconds, year_seconds, log_scale[b])


def empty_factors(count: int, n_steps: int) -> Factors:
    """Paths of B = `count` markets over T = `n_steps`, to be filled."""
    return Factors(
        spot=np.zeros((count, n_steps + 1)),
        high=np.zeros((count, n_steps)),
        low=np.zeros((count, n_steps)),
        volume=np.zeros((count, n_steps)),
        atm_iv=np.zeros((count, n_steps + 1)),
        skew=np.zeros((count, n_steps + 1)),
        regime=np.zeros((count, n_steps + 1), dtype=np.int8),
    )


def simulate_factors(
    model: MarketModel,
    spot0: F64,
    log_iv0: F64,
    regime0: I8,
    n_steps: int,
    step_seconds: float,
    rng: np.random.Generator,
    year_seconds: float = YEAR_SECONDS,
    skew0: F64 | None = None,
    log_scale: F64 | None = None,
) -> Factors:
    """Paths of B independent markets through open hours, the first step starting at an open.

    Parameters
    ----------
    spot0, log_iv0, regime0 : [B], the states at the start; `log_iv0` is the log of 30-day ATM IV
    n_steps, step_seconds : T steps of this many seconds of exchange time
    year_seconds : seconds of open market in a year
    skew0 : [B], the regime's level where None
    log_scale : [B], log of each market's volatility levels over the model's; zeros where None
    """
    count = len(spot0)
    if skew0 is None:
        skew0 = np.where(regime0 == STRESSED, model.stressed_skew, model.calm_skew)
    if log_scale is None:
        log_scale = np.zeros(count)
    factors = empty_factors(count, n_steps)
    factors.spot[:, 0] = spot0
    factors.atm_iv[:, 0] = np.exp(log_iv0)
    factors.skew[:, 0] = skew0
    factors.regime[:, 0] = regime0
    _simulate(model, rng, factors, float(step_seconds), float(year_seconds), log_scale)
    return factors
