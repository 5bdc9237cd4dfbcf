"""The simulated world that the settings define: the live exchange's, and that of training."""

from typing import NamedTuple, TypeVar

import numpy as np

from trading.config import MarketSettings, Settings
from trading.config.market import Drawn, Pair, drawn_settings, ends
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import F64, I64, Chain
from trading.market.listing import UnderlyingSpec, default_spec
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.quotes import TickClass
from trading.market.randomisation import (
    DEFAULT_INITIAL_CONDITIONS,
    DEFAULT_RANGES,
    InitialConditions,
    MarketDistribution,
    ModelRanges,
    Range,
    steep_enough,
)
from trading.market.session_statistics import QuoteSamples
from trading.market.simulated_underlying import Comovement
from trading.market.simulator import SimulatedExchange

_T = TypeVar("_T")

_FIELDS: dict[str, tuple[str, float]] = {
    "price.drift_pct": ("drift", 0.01),
    "price.rate_pct": ("rate", 0.01),
    "price.trend_sessions": ("trend_sessions", 1.0),
    "price.momentum": ("momentum", 1.0),
    "price.overnight_share": ("overnight_share", 1.0),
    "price.jumps_a_year": ("jump_rate", 1.0),
    "price.jump_share": ("jump_share", 1.0),
    "price.jump_bias": ("jump_bias", 1.0),
    "price.daily_volume": ("daily_volume", 1.0),
    "price.volume_noise": ("volume_noise", 1.0),
    "regimes.stress_a_session": ("stress_rate", 1.0),
    "regimes.calm_a_session": ("calm_rate", 1.0),
    "regimes.shock": ("switch_shock", 1.0),
    "regimes.stress_drift_pct": ("stress_drift", 0.01),
    "volatility.calm": ("calm_vol", 1.0),
    "volatility.stress_multiple": ("stressed_vol", 1.0),
    "volatility.reversion": ("vol_reversion", 1.0),
    "volatility.vol_of_vol": ("vol_of_vol", 1.0),
    "volatility.correlation": ("vol_correlation", 1.0),
    "premium.calm_pct": ("calm_premium", 0.01),
    "premium.stress_pct": ("stressed_premium", 0.01),
    "premium.night_pct": ("night_premium", 0.01),
    "skew.calm": ("calm_skew", 1.0),
    "skew.stress": ("stressed_skew", 1.0),
    "skew.reversion": ("skew_reversion", 1.0),
    "skew.noise": ("skew_noise", 1.0),
    "skew.curvature": ("curvature", 1.0),
    "term.slope": ("term_slope", 1.0),
    "term.inversion": ("term_inversion", 1.0),
    "news.move": ("event_move", 1.0),
    "quotes.spread": ("spread_scale", 1.0),
    "quotes.spread_noise": ("spread_noise", 1.0),
    "quotes.spread_stress": ("spread_stress", 1.0),
    "quotes.size": ("size_mean", 1.0),
    "quotes.renewal": ("requote_per_bar", 1.0),
    "quotes.quiet_wings": ("quiet_wings", 1.0),
    "quotes.activity_noise": ("activity_noise", 1.0),
    "quotes.noise": ("quote_noise", 1.0),
    "quotes.missing_side": ("missing_side", 1.0),
    "quotes.worthless_ticks": ("worthless_ticks", 1.0),
    "quotes.worthless_ask_ticks": ("worthless_ask_ticks", 1.0),
    "quotes.lag_ms": ("quote_lag_ms", 1.0),
}
"""Of each setting the parameter of the model, and its unit in the parameter's."""
_SHIFTS = {"premium.tenor": "term_slope", "premium.skew": "calm_skew"}
"""Settings that add to a parameter."""
_MULTIPLES = {"stressed_vol": "calm_vol", "event_move": "calm_vol"}
"""Parameters that are given, and drawn, as multiples of another one."""
_TICKS = {each.name.lower(): each for each in TickClass}


class SimulatedWorld(NamedTuple):
    """What the live exchange simulates, and what each session of training draws its market from."""

    model: MarketModel
    comovement: Comovement
    distribution: MarketDistribution


def simulated_world(market: MarketSettings) -> SimulatedWorld:
    """Return the world of these settings.

    Of the default ones what it always was, to the last bit.
    """
    given = drawn_settings(market)
    values = {_FIELDS[key][0]: _scaled(given[key], _FIELDS[key][1]) for key in _FIELDS}
    shifts = {field: ends(given[key], 0.0) for key, field in _SHIFTS.items()}
    model = _live_model(values, shifts)
    tick = market.quotes.tick
    return SimulatedWorld(
        model,
        Comovement(market.ties.correlation, market.ties.regimes, market.news.every_days),
        MarketDistribution(
            _ranges(model, values, shifts, as_live=market.unset == "live"),
            InitialConditions(
                spot=_range(given["price.spot"], DEFAULT_INITIAL_CONDITIONS.spot),
                stressed_share=market.regimes.begins_stressed,
                event_share=market.news.share,
                tick_class=DEFAULT_INITIAL_CONDITIONS.tick_class
                if tick is None
                else int(_TICKS[tick]),
            ),
        ),
    )


def simulated_spec(market: MarketSettings, symbol: str) -> UnderlyingSpec:
    """Return an underlying of the live exchange."""
    usual, own = default_spec(symbol), market.underlyings.get(symbol)
    spot = _middle(market.price.spot, usual.spot)
    volatility = _middle(market.volatility.calm, usual.annual_vol)
    tick, strikes = market.quotes.tick, usual.n_strikes
    if own is not None:
        spot, volatility = _given(own.spot, spot), _given(own.volatility, volatility)
        tick, strikes = own.tick or tick, _given(own.strikes, strikes)
    named = usual.tick if tick is None else _TICKS[tick]
    return UnderlyingSpec(symbol, spot, volatility, strikes, usual.penny, named)


def _live_model(values: dict[str, Drawn], shifts: dict[str, Pair]) -> MarketModel:
    """Each parameter in the middle of what it may be."""
    found = {
        field: _middle(values[field], getattr(DEFAULT_MODEL, field))
        for field in MarketModel._fields
        if values.get(field) is not None
    }
    calm_vol = found.get("calm_vol", DEFAULT_MODEL.calm_vol)
    for field in _MULTIPLES:
        if field in found:
            found[field] *= calm_vol
        elif "calm_vol" in found:
            found[field] = getattr(DEFAULT_MODEL, field) * calm_vol / DEFAULT_MODEL.calm_vol
    base = DEFAULT_MODEL._replace(**found)
    stress = DEFAULT_MODEL.stressed_skew - DEFAULT_MODEL.calm_skew
    if "stressed_skew" in found:
        base = base._replace(stressed_skew=base.calm_skew + base.stressed_skew)
    elif "calm_skew" in found:
        base = base._replace(stressed_skew=base.calm_skew + stress)
    slope, skew = (0.5 * sum(shifts[field]) for field in ("term_slope", "calm_skew"))
    base = base._replace(
        term_slope=base.term_slope + slope,
        calm_skew=base.calm_skew + skew,
        stressed_skew=base.stressed_skew + skew,
    )
    return base._replace(curvature=steep_enough(base.curvature, base.stressed_skew))


def _ranges(
    model: MarketModel, values: dict[str, Drawn], shifts: dict[str, Pair], *, as_live: bool
) -> ModelRanges:
    """Return what training draws from; some parameters are relative, as in `sample_models`."""
    ranges = DEFAULT_RANGES
    if as_live:
        relative = model._asdict() | {
            "stressed_vol": model.stressed_vol / model.calm_vol,
            "event_move": model.event_move / model.calm_vol,
            "stressed_skew": model.stressed_skew - model.calm_skew,
            "term_slope": model.term_slope - 0.5 * sum(shifts["term_slope"]),
            "calm_skew": model.calm_skew - 0.5 * sum(shifts["calm_skew"]),
        }
        ranges = ModelRanges(**{field: Range(value, value) for field, value in relative.items()})
    found = {
        field: _range(values[field], getattr(ranges, field))
        for field in ModelRanges._fields
        if values.get(field) is not None
    }
    ranges = ranges._replace(**found)
    for field, (low, high) in shifts.items():
        own = getattr(ranges, field)
        ranges = ranges._replace(**{field: own._replace(low=own.low + low, high=own.high + high)})
    return ranges


def _scaled(value: Drawn, unit: float) -> Drawn:
    if value is None or unit == 1.0:
        return value
    low, high = ends(value, 0.0)
    return (low * unit, high * unit) if isinstance(value, tuple) else low * unit


def _middle(value: Drawn, otherwise: float) -> float:
    low, high = ends(value, otherwise)
    return 0.5 * (low + high) if low < high else low


def _range(value: Drawn, otherwise: Range) -> Range:
    return otherwise if value is None else Range(*ends(value, 0.0))


def _given(value: _T | None, otherwise: _T) -> _T:
    return otherwise if value is None else value


def settings_of_model(model: MarketModel, tick: TickClass) -> dict[str, dict[str, float | str]]:
    """Return the `market` section by key, where a model is not the default one."""
    found: dict[str, dict[str, float | str]] = {}
    for key, (field, unit) in _FIELDS.items():
        value, usual = _relative(model, field), _relative(DEFAULT_MODEL, field)
        if value != usual:
            section, name = key.split(".")
            found.setdefault(section, {})[name] = float(f"{value / unit:.4g}")
    found.setdefault("quotes", {})["tick"] = tick.name.lower()
    return found


def _relative(model: MarketModel, field: str) -> float:
    """Return a parameter as the settings give it."""
    value = float(getattr(model, field))
    if field in _MULTIPLES:
        return value / float(getattr(model, _MULTIPLES[field]))
    return round(value - model.calm_skew, 12) if field == "stressed_skew" else value


def quoted_session(settings: Settings) -> tuple[Chain, QuoteSamples, float]:
    """Return what the first symbol's chain shows every 19 minutes of a session, and the rate."""
    market, symbol = settings.market, settings.symbols[0]
    world, calendar = simulated_world(market), ExchangeCalendar()
    day = settings.data.simulation.first_session
    exchange = SimulatedExchange(
        [simulated_spec(market, symbol)], day, settings.seed, world.model, calendar, 60,
        comovement=world.comovement,
    )  # fmt: skip
    session = exchange.session(day)
    expiries = [calendar.expiry_ns(each.expiry, each.root) for each in session.contracts]
    chain = Chain(symbol, session.contracts, expiries)
    column = np.array([chain.index[each.symbol] for each in session.contracts])
    sides, times = np.zeros((4, len(chain))), np.zeros(len(chain), np.int64)
    moments: list[tuple[int, float, F64, I64]] = []
    spot = 0.0
    for number, step in enumerate(session.steps()):
        at = column[step.index]
        for side, values in zip(
            sides, (step.bid, step.ask, step.bid_size, step.ask_size), strict=True
        ):
            side[at] = values
        times[at] = step.quote_ns
        spot = step.bars[-1].close if step.bars else spot
        if number >= 20 and (number - 20) % 19 == 0:
            moments.append((step.ts_ns, spot, sides.copy(), times.copy()))
    now, spots, shown, quoted = zip(*moments, strict=True)
    bid, ask, bid_size, ask_size = np.stack(shown, axis=1)
    return (
        chain,
        QuoteSamples(
            np.array(now), np.array(spots), bid, ask, bid_size, ask_size, np.stack(quoted)
        ),
        world.model.rate,
    )
