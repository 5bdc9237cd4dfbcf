"""The simulated market, as settings: everything that shapes prices, volatility and quotes.

Every figure is a number, or two numbers in a list. Each session of training draws between the two;
the simulated exchange that is traded live takes their middle. What is not given is as always: the
default of the live market, and a wide range in training (`market.unset`).
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from trading.config.fields import Count, CountOrZero, FilePath, Fraction, Positive, Symbol
from trading.config.section import Section, about

Pair: TypeAlias = tuple[float, float]
Drawn: TypeAlias = float | Pair | None
"""A number, two that training draws between, or None: as always."""
TickName: TypeAlias = Literal["penny", "penny_program", "standard"]


def between(low: float, high: float) -> BeforeValidator:
    """Accept a number from `low` to `high`, or two of them in order."""

    def check(value: object) -> object:
        if value is None:
            return None
        parts = value.split(",") if isinstance(value, str) else value
        numbers: list[Any] = [*parts] if isinstance(parts, list | tuple) else [parts]
        try:
            if any(isinstance(each, bool) for each in numbers):
                raise TypeError
            found = [float(each) for each in numbers]
        except (TypeError, ValueError):
            found = []
        inside = [math.isfinite(each) and low <= each <= high for each in found]
        if len(found) not in (1, 2) or not all(inside) or found != sorted(found):
            raise ValueError(
                f"must be a number from {low:g} to {high:g}, or two of them, the lower one first, "
                "that each session of training draws between"
            )
        return found[0] if len(found) == 1 else (found[0], found[1])

    return BeforeValidator(check)


def ends(value: Drawn, otherwise: float) -> Pair:
    """Return the lowest and the highest that a figure may be."""
    if value is None:
        return otherwise, otherwise
    return value if isinstance(value, tuple) else (value, value)


def _check_momentum(value: Drawn, info: ValidationInfo) -> Drawn:
    """Refuse a trend that feeds itself faster than its mean follows: it grows without end."""
    sessions = info.data.get("trend_sessions", DEFAULT_TREND_SESSIONS)
    _, longest = ends(sessions, DEFAULT_TREND_SESSIONS)
    if ends(value, 0.0)[1] >= 1.0 / longest:
        raise ValueError(
            f"must be below 1 / market.price.trend_sessions, {1.0 / longest:g}, or prices run away "
            "from their mean without end: lower one of the two"
        )
    return value


DEFAULT_TREND_SESSIONS = 5.0


class PriceSettings(Section):
    """How the price of an underlying moves."""

    drift_pct: Annotated[
        Drawn, between(-200, 200), about("Expected return in percent a year (5).")
    ] = None
    rate_pct: Annotated[
        Drawn, between(-5, 50), about("Risk-free rate that prices the options, in percent (4).")
    ] = None
    trend_sessions: Annotated[
        Drawn,
        between(0.02, 500),
        about("Sessions over which the mean trails that momentum is measured from (5)."),
    ] = None
    momentum: Annotated[
        Drawn,
        between(-20, 20),
        AfterValidator(_check_momentum),
        about(
            "Share of its distance from its trailing mean that the log price moves on by in a "
            "session; below 0 it moves back: mean reversion (0)."
        ),
    ] = None
    overnight_share: Annotated[
        Drawn, between(0.01, 0.9), about("Share of a session's variance that comes by night (0.2).")
    ] = None
    jumps_a_year: Annotated[Drawn, between(0.01, 5000), about("Price jumps a year (25).")] = None
    jump_share: Annotated[
        Drawn, between(0, 0.95), about("Share of the variance that comes from jumps (0.12).")
    ] = None
    jump_bias: Annotated[
        Drawn,
        between(-20, 20),
        about(
            "Mean of a jump over its standard deviation; below 0 jumps fall, and the drift makes "
            "up for them (0)."
        ),
    ] = None
    daily_volume: Annotated[
        Drawn, between(1, 1e11), about("Shares that trade in a session in calm times (20 million).")
    ] = None
    volume_noise: Annotated[
        Drawn, between(0, 5), about("Standard deviation of log volume (0.5).")
    ] = None
    spot: Annotated[
        Drawn,
        between(0.5, 100_000),
        about("USD a share at first; unset: of each underlying its own, 15 to 1,000 in training."),
    ] = None


class RegimeSettings(Section):
    """Calm and stress, between which a market switches."""

    stress_a_session: Annotated[
        Drawn, between(0, 100), about("Switches from calm to stress, a session (0.02).")
    ] = None
    calm_a_session: Annotated[
        Drawn, between(0, 100), about("Switches from stress to calm, a session (0.06).")
    ] = None
    shock: Annotated[
        Drawn,
        between(0, 1),
        about("Share of the way to the new regime's level that log volatility jumps (0.3)."),
    ] = None
    stress_drift_pct: Annotated[
        Drawn,
        between(-2000, 2000),
        about("Added to the expected return in stress, in percent a year (0)."),
    ] = None
    begins_stressed: Annotated[
        Fraction, about("Share of the episodes of training that begin in stress.")
    ] = 0.2


class VolatilitySettings(Section):
    """At-the-money volatility at 30 days, as the options imply it."""

    calm: Annotated[
        Drawn,
        between(0.04, 3),
        about("Level in calm times; unset: of each underlying its own, 0.1 to 0.7 in training."),
    ] = None
    stress_multiple: Annotated[
        Drawn, between(1, 20), about("Level in stress over that in calm times (2).")
    ] = None
    reversion: Annotated[
        Drawn,
        between(0, 5),
        about("Share of its way back to its level that log volatility goes in a session (0.05)."),
    ] = None
    vol_of_vol: Annotated[
        Drawn, between(0, 10), about("Volatility of log volatility, a root of a year (1.1).")
    ] = None
    correlation: Annotated[
        Drawn, between(-0.99, 0.99), about("Of returns and changes of log volatility (-0.7).")
    ] = None


class PremiumSettings(Section):
    """What option buyers pay above what comes: implied over realised volatility, minus one."""

    calm_pct: Annotated[
        Drawn, between(-50, 200), about("In calm times, in percent of realised volatility (20).")
    ] = None
    stress_pct: Annotated[Drawn, between(-80, 200), about("In stress, in percent (-5).")] = None
    night_pct: Annotated[
        Drawn, between(-80, 500), about("Further premium of the nights, in percent (0).")
    ] = None
    tenor: Annotated[
        Drawn,
        between(-0.5, 0.5),
        about(
            "Exponent of time to expiry by which implied volatility grows beyond what is expected: "
            "above 0 long options cost more, below 0 short ones; added to market.term.slope (0)."
        ),
    ] = None
    skew: Annotated[
        Drawn,
        between(-0.3, 0.3),
        about("Added to the skew, in calm and in stress: below 0 puts cost more (0)."),
    ] = None


class SkewSettings(Section):
    """Volatility by strike."""

    calm: Annotated[
        Drawn,
        between(-0.4, 0.05),
        about("Relative change of volatility a standard deviation of log moneyness (-0.2)."),
    ] = None
    stress: Annotated[Drawn, between(-0.3, 0.3), about("Added to it in stress (-0.06).")] = None
    reversion: Annotated[
        Drawn, between(0, 5), about("Share of the way back to its level in a session (0.15).")
    ] = None
    noise: Annotated[
        Drawn, between(0, 5), about("Volatility of skew, a root of a year (0.25).")
    ] = None
    curvature: Annotated[
        Drawn, between(0, 1.2), about("Width of the smile, eta of SSVI; 0 is flat (0.9).")
    ] = None


class TermSettings(Section):
    """Volatility by time to expiry."""

    slope: Annotated[
        Drawn,
        between(-0.15, 0.1),
        about("Exponent by which volatility grows with time to expiry at the calm level (0.04)."),
    ] = None
    inversion: Annotated[
        Drawn,
        between(0, 1),
        about("Fall of that exponent a unit of log volatility above the calm level (0.12)."),
    ] = None


class NewsSettings(Section):
    """Scheduled news after a close, as earnings."""

    share: Annotated[
        Fraction, about("Share of the markets of training that expect news within 50 days.")
    ] = 0.5
    move: Annotated[
        Drawn,
        between(0, 5),
        about(
            "Standard deviation of the move that news bring, times the calm volatility (0; 0.15 to "
            "0.7 in training)."
        ),
    ] = None
    every_days: Annotated[
        CountOrZero,
        about("Calendar days between two news of an underlying on the live exchange; 0: none."),
    ] = 0


class TieSettings(Section):
    """What underlyings of the live exchange share; those of training know nothing of each other."""

    correlation: Annotated[
        Fraction, about("Correlation of the diffusive returns of any two underlyings.")
    ] = 0.0
    regimes: Annotated[bool, about("Whether stress comes to all underlyings at once.")] = False


class QuoteSettings(Section):
    """How the options are quoted."""

    tick: Annotated[
        TickName | None,
        about(
            "How they tick: penny, penny_program or standard; unset: of each underlying its own, "
            "any in training."
        ),
    ] = None
    spread: Annotated[
        Drawn, between(0, 50), about("Median spread over that of its tick class (1).")
    ] = None
    spread_noise: Annotated[
        Drawn, between(0, 3), about("Standard deviation of a log spread around its median (0.35).")
    ] = None
    spread_stress: Annotated[
        Drawn,
        between(0, 3),
        about("Power of implied over calm volatility by which spreads widen (0.5)."),
    ] = None
    size: Annotated[
        Drawn, between(1, 1e6), about("Mean displayed size in contracts, of penny classes (25).")
    ] = None
    renewal: Annotated[
        Drawn,
        between(0.01, 1),
        about("Probability that a quote at the money is renewed in a minute (0.9)."),
    ] = None
    quiet_wings: Annotated[
        Drawn,
        between(0, 20),
        about("How much rarer that gets with the squared distance of a strike (0.05)."),
    ] = None
    activity_noise: Annotated[
        Drawn, between(0, 5), about("Standard deviation of the log of all renewals (0.1).")
    ] = None
    noise: Annotated[
        Drawn,
        between(0, 2),
        about("Standard deviation of a mid around fair value, as a share of the spread (0.15)."),
    ] = None
    missing_side: Annotated[
        Drawn, between(0, 0.9), about("Probability that a renewed quote lacks a side (0.004).")
    ] = None
    worthless_ticks: Annotated[
        Drawn, between(0, 100), about("Ticks of value below which nobody bids (0.5).")
    ] = None
    worthless_ask_ticks: Annotated[
        Drawn, between(1, 1000), about("Ticks that such a contract is offered at, at least (1).")
    ] = None
    lag_ms: Annotated[
        Drawn, between(0, 60_000), about("Milliseconds that a quote is dated back at most (200).")
    ] = None


class UnderlyingSettings(Section):
    """One underlying of the live exchange."""

    spot: Annotated[Positive | None, about("USD a share at first.")] = None
    volatility: Annotated[
        Annotated[float, Field(ge=0.04, le=3)] | None,
        about("30-day at-the-money volatility in calm times."),
    ] = None
    strikes: Annotated[Count | None, about("Strikes listed around the spot, an expiry.")] = None
    tick: Annotated[TickName | None, about("How its options tick.")] = None


def _read_underlyings(value: object) -> object:
    """Name the underlying of a section that is none, instead of a type."""
    if isinstance(value, Mapping):
        for symbol, each in value.items():
            if not isinstance(each, Mapping | UnderlyingSettings):
                raise ValueError(
                    f"must give {symbol} a section with any of the keys "
                    f"{', '.join(UnderlyingSettings.model_fields)}"
                )
    return value


class MarketSettings(Section):
    """The simulated market; see docs/markets.md."""

    file: Annotated[
        FilePath | None,
        about(
            "YAML file with a `market` section, as configs/markets/trend.yaml: what is given "
            "elsewhere goes before it."
        ),
    ] = None
    unset: Annotated[
        Literal["drawn", "live"],
        about(
            "Whether training draws what is not given from wide ranges, or takes what the live "
            "exchange has."
        ),
    ] = "drawn"
    price: PriceSettings = PriceSettings()
    regimes: RegimeSettings = RegimeSettings()
    volatility: VolatilitySettings = VolatilitySettings()
    premium: PremiumSettings = PremiumSettings()
    skew: SkewSettings = SkewSettings()
    term: TermSettings = TermSettings()
    news: NewsSettings = NewsSettings()
    ties: TieSettings = TieSettings()
    quotes: QuoteSettings = QuoteSettings()
    underlyings: Annotated[
        dict[Symbol, UnderlyingSettings],
        BeforeValidator(_read_underlyings),
        about("By symbol: spot, volatility, strikes and tick of underlyings of the live exchange."),
    ] = {}

    @property
    def is_default(self) -> bool:
        """Whether it is the market that nobody defined."""
        return self.model_dump(exclude={"file"}) == MarketSettings().model_dump(exclude={"file"})


def drawn_settings(market: MarketSettings) -> dict[str, Any]:
    """Every figure that may be drawn, by its key below `market`, in the tree's order."""
    found = {}
    for name, section in MarketSettings.model_fields.items():
        branch = getattr(market, name)
        if isinstance(section.annotation, type) and issubclass(section.annotation, Section):
            for leaf, field in section.annotation.model_fields.items():
                if field.annotation == Drawn:
                    found[f"{name}.{leaf}"] = getattr(branch, leaf)
    return found
