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
    gap: F64
    """[B, T + 1], log of the spot over its trailing mean."""


class FactorState(NamedTuple):
    """One market at one time."""

    spot: float
    log_iv: float
    skew: float
    regime: int
    gap: float = 0.0
    """Log of the spot over its trailing mean, which `momentum` acts on."""


OWN_SHOCKS = np.empty((2, 0))
"""Of a market that moves by itself: no shocks that others share."""


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
    jump_bias: float
    jump_mean: float
    """Of what jumps add to the step's return, over its standard deviation."""
    momentum: float
    fade: float
    """What a step leaves of the gap between the spot and its trailing mean."""


@njit(cache=True, error_model="numpy")
def _law(
    model: MarketModel, regime: int, years: float, log_scale: float, is_night: bool = False
) -> _Law:
    sessions = years * SESSIONS_PER_YEAR
    calm, stressed = log(model.calm_vol) + log_scale, log(model.stressed_vol) + log_scale
    in_stress = regime == STRESSED
    premium = model.stressed_premium if in_stress else model.calm_premium
    by_night = 1.0 + model.night_premium if is_night else 1.0
    bias = model.jump_bias
    jump_probability = 1.0 - exp(-model.jump_rate * years)
    jump_size = sqrt(model.jump_share / (model.jump_rate * years * (1.0 + bias * bias)))
    return _Law(
        1.0 - exp(-(model.calm_rate if in_stress else model.stress_rate) * sessions),
        stressed if in_stress else calm,
        calm if in_stress else stressed,
        years / ((1.0 + premium) * by_night) ** 2,
        (model.drift + model.stress_drift if in_stress else model.drift) * years,
        min(model.vol_reversion * sessions, 1.0),
        model.vol_of_vol * sqrt(years),
        min(model.skew_reversion * sessions, 1.0),
        model.stressed_skew if in_stress else model.calm_skew,
        model.skew_noise * sqrt(years),
        jump_probability,
        model.jump_share,
        jump_size,
        bias,
        jump_probability * jump_size * bias,
        model.momentum * sessions,
        exp(-sessions / model.trend_sessions),
    )


@njit(cache=True, error_model="numpy")
def _step(
    model: MarketModel,
    law: _Law,
    rng: np.random.Generator,
    state: FactorState,
    iv: float,
    common: float,
    loading: float,
) -> tuple[FactorState, float, float]:
    """`advance` without a switch, by the law of the state's regime; `iv` is exp(state.log_iv)."""
    spot, log_iv, skew, regime, gap = state
    variance = iv * iv * law.variance_per_iv2
    diffusive = variance * (1.0 - law.jump_share)
    shock = loading * common + sqrt(1.0 - loading * loading) * rng.standard_normal()
    pull = law.momentum * gap - sqrt(variance) * law.jump_mean
    move = law.drift + pull - 0.5 * variance + sqrt(diffusive) * shock
    bridge = -2.0 * diffusive
    highest = 0.5 * (move + sqrt(move * move + bridge * log(1.0 - rng.random())))
    lowest = 0.5 * (move - sqrt(move * move + bridge * log(1.0 - rng.random())))
    if rng.random() < law.jump_probability:
        move += sqrt(variance) * law.jump_size * (law.jump_bias + rng.standard_normal())

    rho = model.vol_correlation
    vol_shock = rho * shock + sqrt(1.0 - rho * rho) * rng.standard_normal()
    log_iv += law.vol_pull * (law.level - log_iv) + law.vol_scale * vol_shock
    log_iv = min(max(log_iv, _MIN_LOG_IV), _MAX_LOG_IV)
    skew += law.skew_pull * (law.skew_level - skew) + law.skew_scale * rng.standard_normal()
    skew = min(max(skew, _MIN_SKEW), _MAX_SKEW)
    following = FactorState(spot * exp(move), log_iv, skew, regime, (gap + move) * law.fade)
    return following, spot * exp(max(highest, move)), spot * exp(min(lowest, move))


@njit(cache=True, error_model="numpy")
def advance(
    model: MarketModel,
    rng: np.random.Generator,
    state: FactorState,
    years: float,
    log_scale: float,
    is_night: bool = False,
    shared: F64 = OWN_SHOCKS,
    loading: float = 0.0,
) -> tuple[FactorState, float, float]:
    """Return the state after `years` of variance time, with the highest and lowest spot on the way.

    The volatility levels are the model's times the exponential of `log_scale`; `is_night` where
    the exchange is closed. `shared` and `loading` as in `simulate_path`, of one step.
    Log volatility is an Ornstein-Uhlenbeck process around the regime's level, stepped by Euler;
    the return is diffusive at the realised volatility of the step's start, plus normal jumps
    (R. Merton, J. Financial Economics 3 (1976), 125-144). The extremes are drawn from the law of
    the maximum of a Brownian bridge (P. Glasserman, "Monte Carlo Methods", section 6.4).
    """
    law = _law(model, state.regime, years, log_scale, is_night)
    common, switch = _shared_at(shared, 0)
    own = rng.random()
    if (own if np.isnan(switch) else switch) < law.switch_probability:
        state = _switched(model, law, state)
        law = _law(model, state.regime, years, log_scale, is_night)
    following, high, low = _step(model, law, rng, state, exp(state.log_iv), common, loading)
    return following, high, low


@njit(cache=True, error_model="numpy")
def overnight(
    model: MarketModel,
    rng: np.random.Generator,
    close: FactorState,
    close_ns: int,
    open_ns: int,
    event_ns: float,
    shared: F64,
    loading: float,
) -> FactorState:
    """Return the state at the next open, from that at a close.

    News that falls between moves the spot.

    `shared` and `loading` as in `simulate_path`, of one step.
    """
    years = model.overnight_share / SESSIONS_PER_YEAR
    state: FactorState = advance(model, rng, close, years, 0.0, True, shared, loading)[0]
    if close_ns < event_ns <= open_ns:
        spot = state.spot * exp(model.event_move * rng.standard_normal())
        state = FactorState(spot, state.log_iv, state.skew, state.regime, state.gap)
    return state


@njit(cache=True, error_model="numpy")
def _shared_at(shared: F64, step: int) -> tuple[float, float]:
    """Return the shock of a step that all markets share, and what switches their regimes.

    NaN: own.
    """
    if shared.shape[1] == 0:
        return 0.0, np.nan
    return shared[0, step], shared[1, step]


@njit(cache=True, error_model="numpy")
def _switched(model: MarketModel, law: _Law, state: FactorState) -> FactorState:
    """Return the state as it enters the other regime."""
    spot, log_iv, skew, regime, gap = state
    log_iv += model.switch_shock * (law.other_level - log_iv)
    return FactorState(spot, log_iv, skew, STRESSED if regime == CALM else CALM, gap)


@njit(cache=True, error_model="numpy")
def simulate_path(
    model: MarketModel,
    rng: np.random.Generator,
    factors: Factors,
    b: int,
    step_seconds: float,
    year_seconds: float,
    log_scale: float,
    shared: F64 = OWN_SHOCKS,
    loading: float = 0.0,
    first: int = 0,
) -> None:
    """Fill the path of market `b` from its state at index `first`, whose step starts at an open.

    The same as `advance` for every step, with volume. `shared` [2, T] holds a standard normal
    shock of each step, of which this market's own takes `loading` (the root of the correlation of
    two such markets), and what decides switches of the regime, uniform on [0, 1) or NaN where each
    market has its own; T = 0 for a market that moves by itself.
    """
    step_years = step_seconds / year_seconds * (1.0 - model.overnight_share)
    share = step_seconds / _SESSION_SECONDS
    noise = model.volume_noise
    volume_level = model.daily_volume * share / model.calm_vol * exp(-0.5 * noise * noise)
    iv, gap = factors.atm_iv[b, first], factors.gap[b, first]
    regime = STRESSED if factors.regime[b, first] == STRESSED else CALM
    state = FactorState(factors.spot[b, first], log(iv), factors.skew[b, first], regime, gap)
    law = _law(model, regime, step_years, log_scale)
    for step in range(first, factors.high.shape[1]):
        passed = (step - first) * step_seconds
        middle = 2.0 * (passed % _SESSION_SECONDS) / _SESSION_SECONDS - 1.0
        smile = 0.6 + 1.2 * middle * middle
        volume = volume_level * smile * iv * exp(noise * rng.standard_normal())
        factors.volume[b, step] = np.rint(volume)
        common, switch = _shared_at(shared, step)
        own = rng.random()
        if (own if np.isnan(switch) else switch) < law.switch_probability:
            state = _switched(model, law, state)
            law = _law(model, state.regime, step_years, log_scale)
            iv = exp(state.log_iv)
        state, factors.high[b, step], factors.low[b, step] = _step(
            model, law, rng, state, iv, common, loading
        )
        iv = exp(state.log_iv)
        factors.spot[b, step + 1] = state.spot
        factors.atm_iv[b, step + 1] = iv
        factors.skew[b, step + 1] = state.skew
        factors.regime[b, step + 1] = state.regime
        factors.gap[b, step + 1] = state.gap


@njit(cache=True, error_model="numpy")
def _simulate(
    model: MarketModel,
    rng: np.random.Generator,
    factors: Factors,
    step_seconds: float,
    year_seconds: float,
    log_scale: F64,
    shared: F64,
    loading: float,
) -> None:
    for b in range(factors.spot.shape[0]):
        simulate_path(
            model, rng, factors, b, step_seconds, year_seconds, log_scale[b], shared, loading
        )


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
        gap=np.zeros((count, n_steps + 1)),
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
    gap0: F64 | None = None,
    shared: F64 = OWN_SHOCKS,
    loading: float = 0.0,
) -> Factors:
    """Paths of B markets through open hours, the first step starting at an open.

    They are independent of each other, but for what `shared` and `loading` say.

    Parameters
    ----------
    spot0, log_iv0, regime0 : [B], the states at the start; `log_iv0` is the log of 30-day ATM IV
    n_steps, step_seconds : T steps of this many seconds of exchange time
    year_seconds : seconds of open market in a year
    skew0 : [B], the regime's level where None
    log_scale : [B], log of each market's volatility levels over the model's; zeros where None
    gap0 : [B], log of each spot over its trailing mean; zeros where None
    shared, loading : see `simulate_path`
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
    if gap0 is not None:
        factors.gap[:, 0] = gap0
    _simulate(
        model, rng, factors, float(step_seconds), float(year_seconds), log_scale, shared, loading
    )
    return factors
