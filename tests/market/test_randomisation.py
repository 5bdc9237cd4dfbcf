"""Every episode draws a market of its own, and each draw is a market that could be."""

import numpy as np
import pytest
from numba import njit

from trading.market.factors import CALM, STRESSED, Factors, empty_factors, simulate_factors
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.quotes import TickClass
from trading.market.randomisation import (
    DEFAULT_RANGES,
    IV_BOUNDS,
    SPOT,
    ModelRanges,
    Range,
    model_at,
    sample_markets,
    sample_models,
    simulate_markets,
)

COUNT = 4000
FIELDS = MarketModel._fields


def column(models: np.ndarray, field: str) -> np.ndarray:
    return models[:, FIELDS.index(field)]


def test_every_parameter_has_a_range_of_its_name() -> None:
    assert ModelRanges._fields == FIELDS


def test_row_of_a_table_is_read_back_field_by_field() -> None:
    table = np.arange(3.0 * len(FIELDS)).reshape(3, -1)
    model = model_at(table, 1)
    assert isinstance(model, MarketModel)
    assert list(model) == table[1].tolist()
    assert model_at(np.array([DEFAULT_MODEL]), 0) == DEFAULT_MODEL


def test_row_can_be_read_in_a_kernel() -> None:
    @njit  # type: ignore[untyped-decorator]
    def spread_noise_of(table: np.ndarray, row: int) -> float:
        return float(model_at(table, row).spread_noise)

    models = sample_models(np.random.default_rng(1), 5)
    assert spread_noise_of(models, 3) == column(models, "spread_noise")[3]


RELATIVE = ("stressed_vol", "stressed_skew", "curvature", "event_move")


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in RELATIVE])
def test_draws_stay_in_their_range_and_fill_it(field: str) -> None:
    drawn = column(sample_models(np.random.default_rng(1), COUNT), field)
    low, high, _ = getattr(DEFAULT_RANGES, field)
    assert low - 1e-12 <= drawn.min()
    assert drawn.max() <= high + 1e-12
    assert np.ptp(drawn) >= 0.99 * (high - low)


def test_default_market_lies_inside_the_ranges() -> None:
    for field in FIELDS:
        if field not in RELATIVE:
            low, high, _ = getattr(DEFAULT_RANGES, field)
            assert low <= getattr(DEFAULT_MODEL, field) <= high, field


def test_stress_is_worse_than_calm() -> None:
    models = sample_models(np.random.default_rng(1), COUNT)
    assert np.all(column(models, "stressed_vol") > 1.3 * column(models, "calm_vol"))
    assert np.all(column(models, "stressed_skew") <= column(models, "calm_skew"))


def test_smile_of_every_draw_admits_no_butterfly() -> None:
    """Theorem 4.2 of Gatheral and Jacquier: eta squared times one plus |rho| is at most four."""
    models = sample_models(np.random.default_rng(1), COUNT)
    eta = column(models, "curvature")
    rho = 2.0 * np.abs(column(models, "stressed_skew")) / eta
    assert np.all(rho < 0.95)
    assert np.all(eta * eta * (1.0 + rho) < 4.0)


def test_markets_are_told_completely() -> None:
    markets = sample_markets(np.random.default_rng(1), COUNT)
    assert markets.models.shape == (COUNT, len(FIELDS))
    assert SPOT.low <= markets.spot.min() < 20.0
    assert 900.0 < markets.spot.max() <= SPOT.high
    assert np.all(np.abs(markets.log_iv - np.log(IV_BOUNDS).mean()) < np.ptp(np.log(IV_BOUNDS)))
    assert set(markets.tick_class.tolist()) == {int(tick_class) for tick_class in TickClass}
    assert set(markets.regime.tolist()) == {CALM, STRESSED}
    assert markets.regime.dtype == np.int8
    assert markets.tick_class.dtype == np.int64
    assert np.mean(markets.regime == STRESSED) == pytest.approx(0.2, abs=0.03)


def test_volatility_begins_near_the_level_of_its_regime() -> None:
    markets = sample_markets(np.random.default_rng(1), COUNT)
    stressed = markets.regime == STRESSED
    level = np.where(
        stressed, column(markets.models, "stressed_vol"), column(markets.models, "calm_vol")
    )
    away = markets.log_iv - np.log(level)
    assert np.median(away) == pytest.approx(0.0, abs=0.03)
    assert away.std() == pytest.approx(0.25, abs=0.05)


def test_some_markets_expect_news_after_a_close_to_come() -> None:
    close_ns = 1_767_646_800_000_000_000
    dated = column(sample_markets(np.random.default_rng(1), COUNT, close_ns).models, "event_ns")
    none = column(sample_markets(np.random.default_rng(1), COUNT).models, "event_ns")
    assert np.all(none == 0.0)
    assert np.mean(dated > 0.0) == pytest.approx(0.5, abs=0.03)
    days = (dated[dated > 0.0] - close_ns) / (86_400 * 10**9)
    assert days.min() > 1.0
    assert days.max() < 50.1


def test_equal_seeds_give_equal_markets() -> None:
    first, again, other = (sample_markets(np.random.default_rng(seed), 8) for seed in (3, 3, 4))
    for name, mine, same in zip(first._fields, first, again, strict=True):
        assert np.array_equal(mine, same), name
    assert not np.array_equal(first.models, other.models)


def test_range_without_width_holds_a_parameter() -> None:
    ranges = DEFAULT_RANGES._replace(spread_scale=Range(1.0, 1.0))
    models = sample_models(np.random.default_rng(1), 50, ranges)
    assert np.all(column(models, "spread_scale") == 1.0)


def test_paths_of_sampled_markets_are_those_of_their_models() -> None:
    markets = sample_markets(np.random.default_rng(5), 3)
    factors = empty_factors(6, 40)
    which = np.array([4, 0, 2])
    simulate_markets(markets, which, factors, 60.0, np.random.default_rng(9))
    assert np.all(factors.spot[[1, 3, 5]] == 0.0)
    rng = np.random.default_rng(9)
    for j, row in enumerate(which):
        alone = simulate_factors(
            model_at(markets.models, j),
            markets.spot[j : j + 1],
            markets.log_iv[j : j + 1],
            markets.regime[j : j + 1],
            40,
            60.0,
            rng,
        )
        for name in Factors._fields:
            assert getattr(factors, name)[row] == pytest.approx(getattr(alone, name)[0]), name


def test_parameters_that_are_not_drawn_take_no_number_of_the_stream() -> None:
    """Training meets the markets that it met before there were more parameters."""
    drawn, counted = np.random.default_rng(2), np.random.default_rng(2)
    sample_models(drawn, 7)
    counted.random((7, FIELDS.index("stress_drift")))
    assert drawn.random() == counted.random()
    ranges = DEFAULT_RANGES._replace(jump_bias=Range(-1.0, 0.0))
    wide = column(sample_models(np.random.default_rng(2), 400, ranges), "jump_bias")
    assert wide.min() < -0.9
    assert wide.max() > -0.1
    usual, other = (sample_models(np.random.default_rng(2), 5, r) for r in (DEFAULT_RANGES, ranges))
    same = [name != "jump_bias" for name in FIELDS]
    assert np.array_equal(usual[:, same], other[:, same])


def test_a_trend_begins_anywhere_of_its_law() -> None:
    ranges = DEFAULT_RANGES._replace(
        momentum=Range(0.2, 0.2), trend_sessions=Range(2.0, 2.0), calm_vol=Range(0.2, 0.2)
    )
    markets = sample_markets(np.random.default_rng(2), COUNT, 0, ranges)
    expected = np.exp(markets.log_iv) / np.sqrt(252.0) / np.sqrt(2.0 * (0.5 - 0.2))
    assert (markets.gap / expected).std() == pytest.approx(1.0, abs=0.05)
    assert np.all(sample_markets(np.random.default_rng(2), 9).gap == 0.0)
