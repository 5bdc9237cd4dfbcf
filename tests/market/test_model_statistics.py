"""What is measured of a market is what the market was made of."""

import pytest

from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.model_statistics import STRIKES, ModelStatistics, measure_model, variance_ratio

_CALM = DEFAULT_MODEL._replace(
    stress_rate=0.0, calm_premium=0.0, drift=0.0, rate=0.0, jump_share=0.0, vol_of_vol=1e-6,
    calm_skew=0.0, stressed_skew=0.0, skew_noise=0.0, curvature=0.0, term_slope=0.0,
    term_inversion=0.0,
)  # fmt: skip


def seen(model: MarketModel) -> ModelStatistics:
    return measure_model(model, 3, paths=300, sessions=126)


def test_a_market_without_an_edge_pays_no_option() -> None:
    found = seen(_CALM)
    for value, error in found.held.values():
        assert abs(value) < 2.0 * error
    premiums = found.figures["implied over realised volatility, minus one, %"]
    assert abs(premiums["all"].value) < 3.0
    assert found.figures["price"]["realised volatility in stress, % a year"].value != 0.0


def test_the_premium_of_the_night_is_found_in_the_night_alone() -> None:
    found = seen(_CALM._replace(night_premium=1.0, overnight_share=0.3))
    premiums = found.figures["implied over realised volatility, minus one, %"]
    assert premiums["by night"].value == pytest.approx(100.0, abs=8.0)
    assert premiums["by day"].value == pytest.approx(0.0, abs=4.0)
    straddle = found.held[21, STRIKES[1]]
    assert straddle.value + straddle.error < 0.0


def test_trends_and_reversion_show_in_the_variance_ratio() -> None:
    ratios = []
    for momentum in (0.15, 0.0, -0.3):
        walk = seen(_CALM._replace(momentum=momentum, trend_sessions=2.0)).paths
        ratios.append(variance_ratio(walk.by_day + walk.by_night, 5))
    assert ratios[0] > 1.2
    assert ratios[1] == pytest.approx(1.0, abs=0.06)
    assert ratios[2] < 0.85


def test_equal_seeds_give_equal_figures() -> None:
    first, again = (measure_model(_CALM, 3, 20, 60) for _ in range(2))
    assert first.held == again.held
