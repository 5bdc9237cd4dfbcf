"""Which markets training meets: every episode draws its own.

A policy that trained on one set of parameters learns that set. Drawing them anew for every episode
makes the real market one more draw among many (J. Tobin et al., "Domain randomization for
transferring deep neural networks from simulation to the real world", IROS 2017). The ranges are
wide enough that a real session lies inside what they produce; `docs/simulator.md` compares.
"""

from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.calendar import DAY_NS
from trading.market.factors import SESSIONS_PER_YEAR, STRESSED, Factors, simulate_path
from trading.market.model import YEAR_SECONDS, MarketModel

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]


_Number = TypeVar("_Number", float, F64)


class Range(NamedTuple):
    """An interval that a parameter is drawn from, evenly, or evenly in its logarithm."""

    low: float
    high: float
    in_logs: bool = False


class ModelRanges(NamedTuple):
    """Where each parameter of `MarketModel` is drawn from; the fields have its names.

    Four are drawn relative to another one, so that stress stays stress.
    """

    drift: Range = Range(-0.10, 0.20)
    """Both signs, since a session's trend says nothing about the next."""
    rate: Range = Range(0.0, 0.06)
    """From the zero rates of the 2010s to the level of 2000 and 2024."""
    calm_vol: Range = Range(0.10, 0.70, True)
    """From index funds to speculative single stocks."""
    stressed_vol: Range = Range(1.4, 2.6, True)
    """Times `calm_vol`: from a correction to a crash."""
    calm_premium: Range = Range(0.0, 0.35)
    """Option buyers overpay on average, in some names by nothing."""
    stressed_premium: Range = Range(-0.20, 0.10)
    """Around zero, since stress surprises."""
    stress_rate: Range = Range(0.01, 0.06, True)
    """A month to half a year between the beginnings of stress."""
    calm_rate: Range = Range(0.03, 0.15, True)
    """One to six weeks of stress."""
    switch_shock: Range = Range(0.15, 0.5)
    """Volatility jumps part of the way at once."""
    vol_reversion: Range = Range(0.02, 0.12, True)
    """One to seven weeks of half-life."""
    vol_of_vol: Range = Range(0.6, 1.8, True)
    """From sleepy single stocks to indices whose volatility is itself traded."""
    vol_correlation: Range = Range(-0.85, -0.2)
    """Strong in indices, weak in single stocks."""
    jump_rate: Range = Range(8.0, 60.0, True)
    """From one jump in six weeks to more than one a week."""
    jump_share: Range = Range(0.03, 0.25)
    """Estimates of the jumps' part in variance lie around a tenth."""
    overnight_share: Range = Range(0.15, 0.40)
    """Indices move mostly by day, single stocks much at night."""
    calm_skew: Range = Range(-0.28, -0.02)
    """Real single stocks lie near -0.1, indices near -0.2."""
    stressed_skew: Range = Range(-0.12, 0.0)
    """Added to `calm_skew`: fear steepens it."""
    skew_reversion: Range = Range(0.08, 0.30, True)
    """Two to nine sessions of half-life."""
    skew_noise: Range = Range(0.10, 0.40, True)
    """Around the default by a factor of two."""
    curvature: Range = Range(0.2, 1.0)
    """At least 2.15 times the steepest skew: from single stocks' nearly straight smiles upwards."""
    term_slope: Range = Range(-0.04, 0.10)
    """Rising in calm markets, falling before news."""
    term_inversion: Range = Range(0.05, 0.20)
    """Stress is expected to pass."""
    event_ns: Range = Range(0.0, 0.0)
    """`sample_markets` dates the news of some markets; the rest have none."""
    event_move: Range = Range(0.15, 0.70, True)
    """Times `calm_vol`: a week's to half a year's usual move; 0.3 in the real session."""
    min_iv: Range = Range(0.03, 0.03)
    """A floor, not a feature of the market."""
    daily_volume: Range = Range(3e5, 1e8, True)
    """From a mid-sized stock to the largest fund."""
    volume_noise: Range = Range(0.3, 0.9)
    """Minutes of the largest fund vary least."""
    requote_per_bar: Range = Range(0.5, 0.995)
    """Real contracts at the money: 0.57 for two years' expiry, 0.98 in the last week."""
    quiet_wings: Range = Range(0.02, 0.80, True)
    """Real renewals halve at 1.5 to 4 standard deviations, depending on the session."""
    activity_noise: Range = Range(0.0, 0.8)
    """Whole real chains fall silent in some minutes and are renewed in others."""
    quote_noise: Range = Range(0.05, 0.30)
    """Mids stray from fair value by a share of the spread."""
    spread_noise: Range = Range(0.12, 1.1)
    """Real contracts of one price differ by a factor of two to ten."""
    spread_scale: Range = Range(0.3, 2.5, True)
    """From index options, tight for the ticks of their class, to names that few makers quote."""
    spread_stress: Range = Range(0.3, 0.8)
    """Spreads follow volatility by about its root."""
    size_mean: Range = Range(8.0, 200.0, True)
    """From small single stocks to large funds."""
    worthless_ticks: Range = Range(0.5, 4.0)
    """Bids end at about one tick in tight classes, at two or three in wide ones."""
    worthless_ask_ticks: Range = Range(1.0, 12.0, True)
    """One cent in the tightest class; half a dollar, ten ticks, in the real session."""
    missing_side: Range = Range(0.001, 0.40, True)
    """Feeds that show every side, and minute files that leave out the side that did not change."""
    quote_lag_ms: Range = Range(20.0, 1000.0, True)
    """A feed's delay at its best and at its worst."""
    stress_drift: Range = Range(0.0, 0.0)
    """This and what follows is for markets that settings define; no wide range is known of it."""
    momentum: Range = Range(0.0, 0.0)
    trend_sessions: Range = Range(5.0, 5.0)
    jump_bias: Range = Range(0.0, 0.0)
    night_premium: Range = Range(0.0, 0.0)


DEFAULT_RANGES = ModelRanges()

_CALM_VOL = MarketModel._fields.index("calm_vol")
_STRESSED_VOL = MarketModel._fields.index("stressed_vol")
_EVENT_NS = MarketModel._fields.index("event_ns")
_EVENT_MOVE = MarketModel._fields.index("event_move")
_CALM_SKEW = MarketModel._fields.index("calm_skew")
_STRESSED_SKEW = MarketModel._fields.index("stressed_skew")
_CURVATURE = MarketModel._fields.index("curvature")
_MOMENTUM = MarketModel._fields.index("momentum")
_TREND_SESSIONS = MarketModel._fields.index("trend_sessions")
_ALWAYS_DRAWN = MarketModel._fields.index("stress_drift")
"""Parameters from here on draw a number only where their range is one: streams stay what they were
before there was a parameter."""
_SKEW_TO_CURVATURE = 2.15
_HOUR_NS = 3600 * 1_000_000_000

SPOT = Range(15.0, 1000.0, True)
"""USD per share: most optionable stocks and funds, and so every increment of strikes."""
STRESSED_SHARE = 0.2
"""Share of episodes that begin in the stressed regime."""
EVENT_SHARE = 0.5
"""Share of markets that expect news; stocks report four times a year, funds do not."""
EVENT_DAYS = (1, 50)
"""Days from the episode's date to the day whose close the news follows."""
LEVEL_NOISE = 0.25
"""Standard deviation of the first log volatility around its regime's level."""
IV_BOUNDS = (0.07, 1.5)
"""The first volatility stays inside: beyond are only expiring and bankrupt underlyings."""
TICK_CLASSES = 3
ANY_CLASS = -1


class InitialConditions(NamedTuple):
    """How the episodes of training begin, beside the parameters of their markets."""

    spot: Range = SPOT
    """USD per share."""
    stressed_share: float = STRESSED_SHARE
    """Share of them in the stressed regime."""
    event_share: float = EVENT_SHARE
    """Share of markets that expect news."""
    tick_class: int = ANY_CLASS
    """TickClass of all, or ANY_CLASS."""


DEFAULT_INITIAL_CONDITIONS = InitialConditions()
Beginnings = InitialConditions
"""Its name in the configuration of an algorithm that older checkpoints hold."""


class MarketDistribution(NamedTuple):
    """Which markets the sessions of training are drawn from."""

    ranges: ModelRanges = DEFAULT_RANGES
    initial_conditions: InitialConditions = DEFAULT_INITIAL_CONDITIONS


DEFAULT_DISTRIBUTION = MarketDistribution()


class SimulatedPaths(NamedTuple):
    """n markets, each as one episode begins in it."""

    models: F64
    """[n, K], parameters in the order of `MarketModel._fields`; `model_at` reads a row."""
    spot: F64
    """[n], USD per share."""
    log_iv: F64
    """[n], log of 30-day at-the-money volatility."""
    regime: I8
    """[n], CALM or STRESSED."""
    tick_class: I64
    """[n], TickClass."""
    gap: F64
    """[n], log of the spot over its trailing mean."""


def sample_models(rng: np.random.Generator, n: int, ranges: ModelRanges = DEFAULT_RANGES) -> F64:
    """Draw n independent `MarketModel`s, f64[n, K], columns in the order of its fields."""
    low, width, in_logs = _bounds(ranges)
    models: F64 = np.repeat(low[None], n, axis=0)
    models[:, :_ALWAYS_DRAWN] += width[:_ALWAYS_DRAWN] * rng.random((n, _ALWAYS_DRAWN))
    for each in range(_ALWAYS_DRAWN, len(low)):
        if width[each] > 0.0:
            models[:, each] += width[each] * rng.random(n)
    models[:, in_logs] = np.exp(models[:, in_logs])
    models[:, _STRESSED_VOL] *= models[:, _CALM_VOL]
    models[:, _EVENT_MOVE] *= models[:, _CALM_VOL]
    models[:, _STRESSED_SKEW] += models[:, _CALM_SKEW]
    models[:, _CURVATURE] = steep_enough(models[:, _CURVATURE], models[:, _STRESSED_SKEW])
    return models


def steep_enough(curvature: _Number, skew: _Number) -> _Number:
    """Return the curvature, or the least with which a skew's smile admits no butterfly."""
    enough: _Number = np.maximum(curvature, -_SKEW_TO_CURVATURE * skew)
    return enough


def sample_markets(
    rng: np.random.Generator,
    n: int,
    close_ns: int = 0,
    ranges: ModelRanges = DEFAULT_RANGES,
    initial_conditions: InitialConditions = DEFAULT_INITIAL_CONDITIONS,
) -> SimulatedPaths:
    """Draw n independent markets at their start: parameters, spot, volatility and tick class.

    `close_ns` is the close of the episode's session, which dates the news that some markets
    expect; at 0 none does.

    Examples
    --------
    >>> markets = sample_markets(np.random.default_rng(1), 64)
    >>> markets.models.shape == (64, len(MarketModel._fields))
    True
    """
    models = sample_models(rng, n, ranges)
    stressed = rng.random(n) < initial_conditions.stressed_share
    level = models[np.arange(n), np.where(stressed, _STRESSED_VOL, _CALM_VOL)]
    log_iv = np.log(level) + LEVEL_NOISE * rng.standard_normal(n)
    expects = rng.random(n) < initial_conditions.event_share
    days = rng.integers(*EVENT_DAYS, n)
    if close_ns > 0:
        models[:, _EVENT_NS] = np.where(expects, close_ns + days * DAY_NS + _HOUR_NS, 0.0)
    low, high = np.log(IV_BOUNDS)
    log_spot = rng.uniform(
        np.log(initial_conditions.spot.low), np.log(initial_conditions.spot.high), n
    )
    log_iv = np.minimum(np.maximum(log_iv, low), high)
    tick_class = rng.integers(0, TICK_CLASSES, n)
    if initial_conditions.tick_class != ANY_CLASS:
        tick_class[:] = initial_conditions.tick_class
    return SimulatedPaths(
        models,
        np.exp(log_spot),
        log_iv,
        stressed.astype(np.int8),
        tick_class,
        _first_gaps(rng, models, log_iv),
    )


def _first_gaps(rng: np.random.Generator, models: F64, log_iv: F64) -> F64:
    """Return how far each spot begins from its trailing mean.

    The stationary law at the first volatility.

    Nothing is drawn where no market has momentum.
    """
    momentum = models[:, _MOMENTUM]
    if not momentum.any():
        return np.zeros(len(models))
    session_vol = np.exp(log_iv) / np.sqrt(SESSIONS_PER_YEAR)
    pull = np.maximum(1.0 / models[:, _TREND_SESSIONS] - momentum, 1e-3)
    gaps: F64 = session_vol / np.sqrt(2.0 * pull) * rng.standard_normal(len(models))
    return gaps


@njit(cache=True, error_model="numpy")
def model_at(models: F64, row: int) -> MarketModel:
    """Return the model in one row of a table with the columns `MarketModel._fields`."""
    m = models[row]
    return MarketModel(
        drift=m[0],
        rate=m[1],
        calm_vol=m[2],
        stressed_vol=m[3],
        calm_premium=m[4],
        stressed_premium=m[5],
        stress_rate=m[6],
        calm_rate=m[7],
        switch_shock=m[8],
        vol_reversion=m[9],
        vol_of_vol=m[10],
        vol_correlation=m[11],
        jump_rate=m[12],
        jump_share=m[13],
        overnight_share=m[14],
        calm_skew=m[15],
        stressed_skew=m[16],
        skew_reversion=m[17],
        skew_noise=m[18],
        curvature=m[19],
        term_slope=m[20],
        term_inversion=m[21],
        event_ns=m[22],
        event_move=m[23],
        min_iv=m[24],
        daily_volume=m[25],
        volume_noise=m[26],
        requote_per_bar=m[27],
        quiet_wings=m[28],
        activity_noise=m[29],
        quote_noise=m[30],
        spread_noise=m[31],
        spread_scale=m[32],
        spread_stress=m[33],
        size_mean=m[34],
        worthless_ticks=m[35],
        worthless_ask_ticks=m[36],
        missing_side=m[37],
        quote_lag_ms=m[38],
        stress_drift=m[39],
        momentum=m[40],
        trend_sessions=m[41],
        jump_bias=m[42],
        night_premium=m[43],
    )


@njit(cache=True, error_model="numpy")
def simulate_markets(
    markets: SimulatedPaths,
    which: I64,
    factors: Factors,
    step_seconds: float,
    rng: np.random.Generator,
) -> None:
    """Fill rows `which` of the factors with the paths of these markets, from an open on.

    Parameters
    ----------
    markets : n markets
    which : [n], the row of each market
    factors : overwritten in these rows, over all of its steps
    step_seconds : exchange time of each step
    """
    for j in range(len(which)):
        b = which[j]
        model = model_at(markets.models, j)
        factors.spot[b, 0] = markets.spot[j]
        factors.atm_iv[b, 0] = np.exp(markets.log_iv[j])
        stressed = markets.regime[j] == STRESSED
        factors.skew[b, 0] = model.stressed_skew if stressed else model.calm_skew
        factors.regime[b, 0] = markets.regime[j]
        factors.gap[b, 0] = markets.gap[j]
        simulate_path(model, rng, factors, b, step_seconds, YEAR_SECONDS, 0.0)


@cache
def _bounds(ranges: ModelRanges) -> tuple[F64, F64, I64]:
    """Lower end and width of each range, and the columns where these are logarithms."""
    in_logs = np.flatnonzero([r.in_logs for r in ranges])
    ends = np.array([(r.low, r.high) for r in ranges])
    ends[in_logs] = np.log(ends[in_logs])
    return ends[:, 0], ends[:, 1] - ends[:, 0], in_logs
