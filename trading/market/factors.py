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
    spot, log_iv, skew, regime = state
    sessions = years * SESSIONS_PER_YEAR
    switch_rate = model.stress_rate if regime == CALM else model.calm_rate
    switched = rng.random() < 1.0 - exp(-switch_rate * sessions)
    if switched:
        regime = STRESSED if regime == CALM else CALM
    stressed = regime == STRESSED
    level = log(model.stressed_vol if stressed else model.calm_vol) + log_scale
    if switched:
        log_iv += model.switch_shock * (level - log_iv)
    premium = model.stressed_premium if stressed else model.calm_premium
    variance = (exp(log_iv) / (1.0 + premium)) ** 2 * years
    diffusive = variance * (1.0 - model.jump_share)
    jump_variance = variance * model.jump_share / (model.jump_rate * years)

    shock = rng.standard_normal()
    move = model.drift * years - 0.5 * variance + sqrt(diffusive) * shock
    bridge = -2.0 * diffusive
    highest = 0.5 * (move + sqrt(move * move + bridge * log(1.0 - rng.random())))
    lowest = 0.5 * (move - sqrt(move * move + bridge * log(1.0 - rng.random())))
    if rng.random() < 1.0 - exp(-model.jump_rate * years):
        move += sqrt(jump_variance) * rng.standard_normal()

    rho = model.vol_correlation
    vol_shock = rho * shock + sqrt(1.0 - rho * rho) * rng.standard_normal()
    pull = min(model.vol_reversion * sessions, 1.0)
    log_iv += pull * (level - log_iv) + model.vol_of_vol * sqrt(years) * vol_shock
    log_iv = min(max(log_iv, _MIN_LOG_IV), _MAX_LOG_IV)
    skew_level = model.stressed_skew if stressed else model.calm_skew
    skew += min(model.skew_reversion * sessions, 1.0) * (skew_level - skew)
    skew += model.skew_noise * sqrt(years) * rng.standard_normal()
    skew = min(max(skew, _MIN_SKEW), _MAX_SKEW)
    following = State(spot * exp(move), log_iv, skew, regime)
    return following, spot * exp(max(highest, move)), spot * exp(min(lowest, move))


@njit(cache=True, error_model="numpy")
def _volume(
    model: MarketModel, rng: np.random.Generator, share: float, seconds: float, iv: float
) -> float:
    """Shares in a step that begins `seconds` after the open and lasts `share` of a session."""
    middle = 2.0 * seconds / _SESSION_SECONDS - 1.0
    smile = 0.6 + 1.2 * middle * middle
    level = model.daily_volume * share * smile * iv / model.calm_vol
    noise = model.volume_noise
    return float(np.rint(level * exp(noise * rng.standard_normal() - 0.5 * noise * noise)))


@njit(cache=True, error_model="numpy")
def _simulate(
    model: MarketModel,
    factors: Factors,
    log_scale: F64,
    step_years: float,
    step_seconds: float,
    rng: np.random.Generator,
) -> None:
    """Fill every path from its state at index 0."""
    for b in range(factors.spot.shape[0]):
        state = State(
            factors.spot[b, 0],
            log(factors.atm_iv[b, 0]),
            factors.skew[b, 0],
            STRESSED if factors.regime[b, 0] == STRESSED else CALM,
        )
        for step in range(factors.high.shape[1]):
            seconds = (step * step_seconds) % _SESSION_SECONDS
            factors.volume[b, step] = _volume(
                model, rng, step_seconds / _SESSION_SECONDS, seconds, factors.atm_iv[b, step]
            )
            state, factors.high[b, step], factors.low[b, step] = advance(
                model, rng, state, step_years, log_scale[b]
            )
            factors.spot[b, step + 1] = state.spot
            factors.atm_iv[b, step + 1] = exp(state.log_iv)
            factors.skew[b, step + 1] = state.skew
            factors.regime[b, step + 1] = state.regime


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
    factors = Factors(
        spot=np.empty((count, n_steps + 1)),
        high=np.empty((count, n_steps)),
        low=np.empty((count, n_steps)),
        volume=np.empty((count, n_steps)),
        atm_iv=np.empty((count, n_steps + 1)),
        skew=np.empty((count, n_steps + 1)),
        regime=np.empty((count, n_steps + 1), dtype=np.int8),
    )
    factors.spot[:, 0] = spot0
    factors.atm_iv[:, 0] = np.exp(log_iv0)
    factors.skew[:, 0] = skew0
    factors.regime[:, 0] = regime0
    step_years = step_seconds / year_seconds * (1.0 - model.overnight_share)
    _simulate(model, factors, log_scale, step_years, float(step_seconds), rng)
    return factors
