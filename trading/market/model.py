"""The parameters of the simulated market."""

from typing import NamedTuple

YEAR_SECONDS = 252 * 6.5 * 3600
"""Seconds of open market in a year."""


class MarketModel(NamedTuple):
    """Everything that shapes a simulated underlying and its quotes; every field is a float.

    "Years" are years of variance time: 252 sessions, of which `overnight_share` passes while the
    market is closed.
    """

    drift: float = 0.05
    """Expected return of the underlying, per year."""
    rate: float = 0.04
    """Risk-free rate, per year, continuously compounded; it prices the options."""
    calm_vol: float = 0.15
    """Level that 30-day at-the-money volatility reverts to in the calm regime."""
    stressed_vol: float = 0.30
    """The same level in the stressed regime."""
    calm_premium: float = 0.20
    """Implied over realised volatility minus one in the calm regime, as paid by option buyers."""
    stressed_premium: float = -0.05
    """The same in the stressed regime, where the market moves more than was implied."""
    stress_rate: float = 0.02
    """Switches from calm to stressed, per session."""
    calm_rate: float = 0.06
    """Switches from stressed to calm, per session."""
    switch_shock: float = 0.3
    """Share of the gap to the new regime's level that log volatility jumps at once."""
    vol_reversion: float = 0.05
    """Speed at which log volatility reverts to its level, per session."""
    vol_of_vol: float = 1.1
    """Volatility of log at-the-money volatility, per square root of year."""
    vol_correlation: float = -0.7
    """Correlation of returns and changes of log volatility."""
    jump_rate: float = 25.0
    """Price jumps per year."""
    jump_share: float = 0.12
    """Share of the return's variance that comes from jumps."""
    overnight_share: float = 0.2
    """Share of a session's variance that arrives as the gap before the open."""
    calm_skew: float = -0.20
    """Relative change of volatility per standard deviation of log moneyness, at the money, calm."""
    stressed_skew: float = -0.26
    """The same in the stressed regime."""
    skew_reversion: float = 0.15
    """Speed at which skew reverts to its level, per session."""
    skew_noise: float = 0.25
    """Volatility of skew, per square root of year."""
    curvature: float = 0.9
    """Width of the smile: eta of the SSVI surface; 0 is a flat smile."""
    term_slope: float = 0.04
    """Exponent by which at-the-money volatility grows with time to expiry at the calm level."""
    term_inversion: float = 0.12
    """Fall of that exponent per unit of log volatility above the calm level."""
    event_ns: float = 0.0
    """When scheduled news comes, as earnings after a close: UTC nanoseconds, 0 for none."""
    event_move: float = 0.0
    """Standard deviation of the log price move that the news brings."""
    min_iv: float = 0.03
    """No volatility of the surface is lower."""
    daily_volume: float = 20e6
    """Shares that trade in a session at the calm level."""
    volume_noise: float = 0.5
    """Standard deviation of log volume."""
    requote_per_bar: float = 0.9
    """Probability that an at-the-money quote is renewed in a minute, whether or not it must be."""
    quiet_wings: float = 0.05
    """How much rarer renewals get with the squared distance of a strike in standard deviations."""
    activity_noise: float = 0.1
    """Standard deviation of the log of all renewal probabilities, from one step to the next."""
    quote_noise: float = 0.15
    """Standard deviation of a quote's mid around fair value, as a share of the spread."""
    spread_noise: float = 0.35
    """Standard deviation of the log of a spread around its median."""
    spread_scale: float = 1.0
    """Median spread over that of the tick class."""
    spread_stress: float = 0.5
    """Power of implied over calm volatility by which spreads widen."""
    size_mean: float = 25.0
    """Mean displayed size of penny classes, in contracts; half of that in penny-program classes."""
    worthless_ticks: float = 0.5
    """Nobody bids for a contract whose value is below this many ticks."""
    worthless_ask_ticks: float = 1.0
    """Such a contract is offered at this many ticks at least."""
    missing_side: float = 0.004
    """Probability that a renewed quote lacks a given side."""
    quote_lag_ms: float = 200.0
    """A renewed quote is stamped up to this many milliseconds before the step ends."""
    stress_drift: float = 0.0
    """Added to `drift` in the stressed regime."""
    momentum: float = 0.0
    """Share of its distance from its trailing mean by which the log price moves on, per session;
    below zero it moves back. Less than one over `trend_sessions`, or nothing holds it."""
    trend_sessions: float = 5.0
    """Sessions over which that mean trails."""
    jump_bias: float = 0.0
    """Mean of a jump over its standard deviation; below zero jumps fall. The drift makes up for
    them, so that `drift` stays what the price gains on average."""
    night_premium: float = 0.0
    """Further premium of the nights, on top of the regime's: above zero the market moves less by
    night than the options of the evening say, which is where index options pay their sellers."""


DEFAULT_MODEL = MarketModel()
"""An index fund in ordinary times."""
