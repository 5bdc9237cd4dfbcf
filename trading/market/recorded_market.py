"""Fits a simulated market to sessions that were recorded, and says what is left over.

Direct estimates first, then a few rounds of simulated moments: sessions of the fitted market are
looked at in the same moments, with the same contracts and by the same functions as the recorded
ones, and each parameter moves by the ratio of the two (D. McFadden, "A method of simulated
moments", Econometrica 57 (1989), 995-1026).
"""

from collections.abc import Callable, Sequence
from math import exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from trading.errors import DataError
from trading.market.calendar import MINUTE_NS
from trading.market.chain import Chain
from trading.market.factors import CALM, SESSIONS_PER_YEAR, simulate_factors
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.quotes import ChainQuotes, TickClass, quote_chain, tick_cents
from trading.market.session_statistics import QuoteSamples, Statistic, Statistics, session_figures

F64 = NDArray[np.float64]

ROUNDS = 4
"""Of simulated moments."""
_SESSIONS = 4
_AT_THE_MONEY, _WINGS = "0 to 1 sd", "2 to 4 sd"
_RISK_REVERSAL = 2.0 * 0.6744897501960817
"""Standard deviations between the strikes of 25-delta puts and calls."""
_TERM_DAYS = 6.0


class SampledSession(NamedTuple):
    """A recorded session as its quotes looked at some moments."""

    chain: Chain
    shown: QuoteSamples
    open_ns: int
    close_ns: int
    minute_closes: F64
    """Of the underlying, in order."""


class Residual(NamedTuple):
    """A figure as it was recorded, on average over sessions, and as the fitted market has it."""

    figure: Statistic
    recorded: float
    fitted: float


class Fit(NamedTuple):
    """A market that looks like what was recorded."""

    model: MarketModel
    tick_class: TickClass
    values: dict[str, float]
    """Of the parameters of `MarketModel` that were fitted."""
    residuals: list[Residual]
    sessions: int
    premium: tuple[float, float]
    """Implied over realised volatility of the sessions minus one, and half of its 95 % interval:
    infinite for a single session, which says next to nothing of it."""


def fit(
    watched: Sequence[SampledSession],
    rate: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Fit:
    """Fit spreads, sizes, ages, missing sides, volatility by expiry and strike, and the premium.

    `progress` is called with how many of the `ROUNDS` rounds of simulation have been made.

    Raises
    ------
    DataError
        There is no session, or its quotes show no volatility.
    """
    if not watched:
        raise DataError("there is no recorded session to fit to: name at least one day")
    recorded = _average([session_figures(each.chain, each.shown, rate) for each in watched])
    tick_class = _tick_class(watched)
    model = _first_guess(recorded, watched, rate)
    premium, error = _premium(watched, recorded)
    if np.isfinite(error):
        model = model._replace(calm_premium=max(premium, -0.5))
    fitted: Statistics = {}
    for turn in range(ROUNDS):
        fitted = _simulated(model, tick_class, watched, seed + turn, rate)
        if progress is not None:
            progress(turn + 1)
        if turn < ROUNDS - 1:
            model = _corrected(model, recorded, fitted)
    names = [name for name in model._fields if getattr(model, name) != getattr(DEFAULT_MODEL, name)]
    residuals = [
        Residual(figure, value, fitted[figure])
        for figure, value in recorded.items()
        if figure in fitted
    ]
    values = {name: float(getattr(model, name)) for name in names}
    return Fit(model, tick_class, values, residuals, len(watched), (premium, error))


def sample_session(
    chain: Chain,
    bars: tuple[NDArray[np.int64], F64],
    quotes: Sequence[NDArray[Any]],
    open_ns: int,
    close_ns: int,
    every_minutes: int = 19,
) -> SampledSession:
    """Look at a session each so many minutes.

    Parameters
    ----------
    bars : ends i64[n] and closes f64[n] of the underlying's minutes, rising
    quotes : columns contract (position in the chain), bid, ask, bid_size, ask_size, ts_ns, rising
    """
    contract, bid, ask, bid_size, ask_size, ts_ns = quotes
    ends, closes = bars
    last = (close_ns - open_ns) // MINUTE_NS
    moments = open_ns + MINUTE_NS * np.arange(20, last, every_minutes, dtype=np.int64)
    moments = moments[np.searchsorted(ends, moments, side="right") > 0]
    if not len(moments):
        raise DataError(
            "the recorded session has no minute of its underlying 20 minutes after the open: "
            "import its bars, or name another day"
        )
    sides = [np.zeros((len(moments), len(chain))) for _ in range(4)]
    times = np.zeros((len(moments), len(chain)), np.int64)
    spot = closes[np.searchsorted(ends, moments, side="right") - 1]
    for s, moment in enumerate(moments):
        seen = slice(0, int(np.searchsorted(ts_ns, moment, side="right")))
        for side, column in zip(sides, (bid, ask, bid_size, ask_size), strict=True):
            side[s, contract[seen]] = column[seen]
        times[s, contract[seen]] = ts_ns[seen]
    inside = (ends > open_ns) & (ends <= close_ns)
    shown = QuoteSamples(moments, spot, sides[0], sides[1], sides[2], sides[3], times)
    return SampledSession(chain, shown, open_ns, close_ns, closes[inside])


def _average(sessions: Sequence[Statistics]) -> Statistics:
    """Each figure over the sessions that have it."""
    every: dict[Statistic, list[float]] = {}
    for figures in sessions:
        for figure, value in figures.items():
            every.setdefault(figure, []).append(value)
    return {figure: float(np.mean(values)) for figure, values in every.items()}


def _tick_class(watched: Sequence[SampledSession]) -> TickClass:
    """Return the finest class whose ticks nearly all prices keep to."""
    prices = np.concatenate([np.ravel(side) for each in watched for side in each.shown[2:4]])
    cents = np.rint(100.0 * prices[prices > 0.0])[:20_000]
    for each in (TickClass.STANDARD, TickClass.PENNY_PROGRAM):
        ticks = np.array([tick_cents(value / 100.0, int(each)) for value in cents])
        if np.mean(cents % ticks == 0) > 0.98:
            return each
    return TickClass.PENNY


def _first_guess(
    recorded: Statistics, watched: Sequence[SampledSession], rate: float
) -> MarketModel:
    """Return what the figures say directly, without simulation."""
    days, levels = _by_days(recorded, "at-the-money IV")
    if not len(levels):
        raise DataError(
            "no volatility can be read from the recorded quotes: the session needs two-sided "
            "quotes near the money"
        )
    kept = days >= _TERM_DAYS
    days, levels = (days[kept], levels[kept]) if kept.sum() > 1 else (days, levels)
    slope, level = 0.0, float(np.log(levels).mean())
    if len(levels) > 1:
        slope, level = np.polyfit(np.log((days + 0.5) / 30.0), np.log(levels), 1)
    _, skews = _by_days(recorded, "25-delta skew over IV")
    skew = -float(np.median(skews)) / _RISK_REVERSAL if len(skews) else DEFAULT_MODEL.calm_skew
    shown = np.array([_renewed(each) for each in watched])
    renewal = float(np.clip(shown.mean(), 0.02, 0.995))
    calm_vol = exp(level)
    skew = min(max(skew, -0.4), 0.05)
    return DEFAULT_MODEL._replace(
        rate=rate,
        calm_vol=calm_vol,
        stressed_vol=2.0 * calm_vol,
        term_slope=float(np.clip(slope, -0.15, 0.1)),
        calm_skew=skew,
        stressed_skew=skew - 0.06,
        requote_per_bar=renewal,
        size_mean=max(_mean_size(watched), 1.0),
    )


def _by_days(figures: Statistics, group: str) -> tuple[F64, F64]:
    """Days and values of a group of figures by expiry."""
    found = {
        int(each.bucket.removesuffix(" d")): value
        for each, value in figures.items()
        if each.group == group
    }
    return np.array(list(found), np.float64), np.array(list(found.values()))


def _renewed(watched: SampledSession) -> float:
    """Share of the quotes near the money that are younger than a minute."""
    shown, chain = watched.shown, watched.chain
    near = np.abs(np.log(chain.columns.strike / shown.spot[:, None])) < 0.03
    known = near & (shown.quote_ns > 0)
    if not known.any():
        return DEFAULT_MODEL.requote_per_bar
    young = shown.now_ns[:, None] - shown.quote_ns < MINUTE_NS
    return float(np.mean(young[known]))


def _mean_size(watched: Sequence[SampledSession]) -> float:
    sizes = [size[size > 0] for each in watched for size in (each.shown[4], each.shown[5])]
    every = np.concatenate(sizes)
    return float(every.mean()) if len(every) else DEFAULT_MODEL.size_mean


def _premium(watched: Sequence[SampledSession], recorded: Statistics) -> tuple[float, float]:
    """Implied over realised volatility of the open hours, minus one, with its interval."""
    days, levels = _by_days(recorded, "at-the-money IV")
    implied = float(np.interp(30.0, days, levels))
    share = 1.0 - DEFAULT_MODEL.overnight_share
    variances = []
    for each in watched:
        moves = np.diff(np.log(each.minute_closes))
        part = (each.close_ns - each.open_ns) / (6.5 * 3600e9)
        if moves.size > 1 and (moves**2).sum() > 0.0:
            variances.append(float((moves**2).sum()) / (part * share) * SESSIONS_PER_YEAR)
    if not variances:
        return float("nan"), float("inf")
    mean, count = float(np.mean(variances)), len(variances)
    ratio = implied / sqrt(mean)
    if count == 1:
        return ratio - 1.0, float("inf")
    error = float(np.std(variances, ddof=1)) / sqrt(count) * float(student.ppf(0.975, count - 1))
    return ratio - 1.0, 0.5 * ratio * error / mean


def _simulated(
    model: MarketModel,
    tick_class: TickClass,
    watched: Sequence[SampledSession],
    seed: int,
    rate: float,
) -> Statistics:
    """Statistics of sessions of the model with the recorded contracts, first spots and moments."""
    rng = np.random.default_rng(seed)
    figures = []
    for each in watched:
        for _ in range(max(_SESSIONS // len(watched), 1)):
            figures.append(session_figures(each.chain, _seen(model, tick_class, each, rng), rate))
    return _average(figures)


def _seen(
    model: MarketModel, tick_class: TickClass, watched: SampledSession, rng: np.random.Generator
) -> QuoteSamples:
    moments = (watched.shown.now_ns - watched.open_ns) // MINUTE_NS
    columns, n = watched.chain.columns, len(watched.chain)
    paths = simulate_factors(
        model, watched.shown.spot[:1], np.array([log(model.calm_vol)]),
        np.array([CALM], dtype=np.int8), int(moments[-1]), 60.0, rng,
    )  # fmt: skip
    bid, ask, bid_size, ask_size = (np.zeros(n) for _ in range(4))
    quote_ns, changed = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    quotes = ChainQuotes(
        columns.strike, columns.expiry_ns, columns.right, bid, ask, bid_size, ask_size, quote_ns
    )
    shape = (len(moments), n)
    sides = np.zeros((4, *shape))
    shown = QuoteSamples(
        watched.shown.now_ns, paths.spot[0, moments].copy(), sides[0], sides[1], sides[2], sides[3],
        np.zeros(shape, np.int64),
    )  # fmt: skip
    at = {int(minute): s for s, minute in enumerate(moments)}
    for step in range(int(moments[-1]) + 1):
        quote_chain(
            model, rng, paths.spot[0, step], paths.atm_iv[0, step], paths.skew[0, step],
            watched.open_ns + step * MINUTE_NS, quotes, int(tick_class),
            model.requote_per_bar if step else 1.0, changed,
        )  # fmt: skip
        if step in at:
            s = at[step]
            shown.bid[s], shown.ask[s], shown.quote_ns[s] = bid, ask, quote_ns
            shown.bid_size[s], shown.ask_size[s] = bid_size, ask_size
    return shown


def _corrected(model: MarketModel, recorded: Statistics, fitted: Statistics) -> MarketModel:
    """Move each parameter by what recorded and simulated figures differ in."""
    spread = _ratio(recorded, fitted, "spread ", "50%")
    wide = _ratio(recorded, fitted, "spread ", "95%") / spread
    tight = _ratio(recorded, fitted, "spread ", "5%") / spread
    size = _ratio(recorded, fitted, "size", "50%")
    level = _ratio(recorded, fitted, "at-the-money IV", "median")
    gone, were = (
        _value(each, "no bid, in the money", _AT_THE_MONEY) for each in (recorded, fitted)
    )
    old, usual = (_mean_age(each, _WINGS) for each in (recorded, fitted))
    _, theirs = _by_days(recorded, "25-delta skew over IV")
    _, ours = _by_days(fitted, "25-delta skew over IV")
    steeper = 0.0
    if len(theirs) and len(ours):
        steeper = (float(np.median(ours)) - float(np.median(theirs))) / _RISK_REVERSAL
    skew = min(max(model.calm_skew + steeper, -0.4), 0.05)
    missing = model.missing_side
    if np.isfinite(gone) and np.isfinite(were):
        missing = float(np.clip(missing + gone - were, 0.0, 0.9))
    quiet = model.quiet_wings
    if np.isfinite(old) and np.isfinite(usual):
        quiet = float(np.clip(quiet * (old + 0.5) / (usual + 0.5), 0.001, 20.0))
    noise = model.spread_noise + 0.5 * (log(wide) - log(tight)) / 3.29
    return model._replace(
        spread_scale=float(np.clip(model.spread_scale * spread, 0.05, 50.0)),
        spread_noise=float(np.clip(noise, 0.02, 3.0)),
        size_mean=float(np.clip(model.size_mean * size, 1.0, 1e6)),
        calm_vol=float(np.clip(model.calm_vol * level, 0.04, 3.0)),
        stressed_vol=2.0 * float(np.clip(model.calm_vol * level, 0.04, 3.0)),
        missing_side=missing,
        quiet_wings=quiet,
        calm_skew=skew,
        stressed_skew=skew - 0.06,
    )


def _ratio(recorded: Statistics, fitted: Statistics, group: str, measure: str) -> float:
    """Geometric mean of recorded over fitted figures."""
    logs = [
        log(value / fitted[figure])
        for figure, value in recorded.items()
        if figure.group.startswith(group)
        and figure.measure == measure
        and value > 0.0
        and fitted.get(figure, 0.0) > 0.0
    ]
    return exp(float(np.mean(logs))) if logs else 1.0


def _value(figures: Statistics, group: str, bucket: str) -> float:
    return figures.get(Statistic(group, bucket, "share"), float("nan"))


def _mean_age(figures: Statistics, bucket: str) -> float:
    found = [
        v for f, v in figures.items() if f.group.startswith("quote age") and f.bucket == bucket
    ]
    return float(np.mean(found)) if found else float("nan")
