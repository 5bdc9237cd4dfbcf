"""Simulated paths have the statistics that the model promises."""

import numpy as np
import pytest

from trading.market.factors import CALM, STRESSED, Factors, FactorState, advance, simulate_factors
from trading.market.model import DEFAULT_MODEL, YEAR_SECONDS, MarketModel


def paths(
    count: int, steps: int, model: MarketModel = DEFAULT_MODEL, seed: int = 1, regime: int = CALM
) -> Factors:
    return simulate_factors(
        model,
        np.full(count, 100.0),
        np.full(count, np.log(0.15)),
        np.full(count, regime, dtype=np.int8),
        steps,
        60.0,
        np.random.default_rng(seed),
    )


def test_equal_seeds_give_equal_paths() -> None:
    first, again, other = paths(3, 50), paths(3, 50), paths(3, 50, seed=2)
    for name in Factors._fields:
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.spot, other.spot)


def test_shapes_and_dtypes_are_those_documented() -> None:
    factors = paths(3, 5)
    assert factors.spot.shape == factors.atm_iv.shape == factors.skew.shape == (3, 6)
    assert factors.high.shape == factors.low.shape == factors.volume.shape == (3, 5)
    assert factors.regime.shape == (3, 6)
    assert factors.regime.dtype == np.int8
    assert np.all(factors.spot[:, 0] == 100.0)


def test_extremes_enclose_both_ends_of_each_step() -> None:
    factors = paths(50, 390)
    before, after = factors.spot[:, :-1], factors.spot[:, 1:]
    assert np.all(factors.high >= np.maximum(before, after))
    assert np.all(factors.low <= np.minimum(before, after))
    assert np.all(factors.volume >= 0.0)


def test_market_realises_less_than_is_implied_in_calm_times() -> None:
    model = DEFAULT_MODEL._replace(stress_rate=0.0)
    factors = paths(4000, 390, model)
    variance = np.diff(np.log(factors.spot)).var(axis=1).mean() * 390 * 252
    intraday = 1.0 - model.overnight_share
    expected = (0.15 / (1.0 + model.calm_premium)) ** 2 * intraday
    assert variance == pytest.approx(expected, rel=0.05)


def test_volatility_rises_when_the_market_falls() -> None:
    factors = paths(50, 390, DEFAULT_MODEL._replace(stress_rate=0.0))
    returns = np.diff(np.log(factors.spot)).ravel()
    changes = np.diff(np.log(factors.atm_iv)).ravel()
    assert -0.8 < np.corrcoef(returns, changes)[0, 1] < -0.5


def test_regimes_switch_both_ways_and_move_volatility() -> None:
    factors = paths(8, 390 * 250)
    regime = factors.regime
    assert np.any((regime[:, :-1] == CALM) & (regime[:, 1:] == STRESSED))
    assert np.any((regime[:, :-1] == STRESSED) & (regime[:, 1:] == CALM))
    stressed = regime == STRESSED
    assert 0.1 < stressed.mean() < 0.45
    assert np.median(factors.atm_iv[stressed]) > 1.25 * np.median(factors.atm_iv[~stressed])
    assert factors.skew[stressed].mean() < factors.skew[~stressed].mean()


def test_log_scale_moves_the_level_that_volatility_reverts_to() -> None:
    scale = np.log(3.0)
    factors = simulate_factors(
        DEFAULT_MODEL,
        np.full(200, 50.0),
        np.full(200, np.log(0.45)),
        np.zeros(200, dtype=np.int8),
        390,
        60.0,
        np.random.default_rng(3),
        log_scale=np.full(200, scale),
    )
    assert np.log(factors.atm_iv[:, -1]).mean() == pytest.approx(np.log(0.45), abs=0.05)


def test_path_is_a_chain_of_single_steps() -> None:
    model = DEFAULT_MODEL._replace(stress_rate=500.0, calm_rate=500.0, jump_rate=20_000.0)
    path = paths(1, 60, model, seed=4)
    rng = np.random.default_rng(4)
    state = FactorState(100.0, float(np.log(0.15)), model.calm_skew, CALM)
    years = 60.0 / YEAR_SECONDS * (1.0 - model.overnight_share)
    regimes = set()
    for step in range(60):
        rng.standard_normal()  # the volume's
        state, high, low = advance(model, rng, state, years, 0.0)
        regimes.add(state.regime)
        seen = (path.spot[0, step + 1], path.high[0, step], path.low[0, step])
        assert seen == pytest.approx((state.spot, high, low))
        assert path.atm_iv[0, step + 1] == pytest.approx(np.exp(state.log_iv))
        assert path.skew[0, step + 1] == pytest.approx(state.skew)
        assert path.regime[0, step + 1] == state.regime
    assert regimes == {CALM, STRESSED}


def test_jumps_carry_their_share_of_the_variance() -> None:
    model = DEFAULT_MODEL._replace(
        stress_rate=0.0, jump_share=0.5, jump_rate=25_000.0, vol_of_vol=1e-9
    )
    returns = np.diff(np.log(paths(500, 390, model).spot)).ravel()
    step_years = (1.0 - model.overnight_share) / 390 / 252
    expected = (0.15 / (1.0 + model.calm_premium)) ** 2 * step_years
    assert returns.var() == pytest.approx(expected, rel=0.12)


def minute_returns(model: MarketModel, count: int = 400, regime: int = CALM) -> np.ndarray:
    returns: np.ndarray = np.diff(np.log(paths(count, 390, model, regime=regime).spot))
    return returns


@pytest.mark.parametrize(("momentum", "sign"), [(8.0, 1.0), (-30.0, -1.0)])
def test_momentum_goes_on_and_reversion_goes_back(momentum: float, sign: float) -> None:
    """Half an hour after half an hour, at a strength that an hour shows."""
    model = DEFAULT_MODEL._replace(
        stress_rate=0.0, jump_share=0.0, momentum=momentum, trend_sessions=0.1
    )
    halves = minute_returns(model).reshape(400, 13, 30).sum(axis=2)
    assert sign * np.corrcoef(halves[:, :-1].ravel(), halves[:, 1:].ravel())[0, 1] > 0.1
    plain = minute_returns(model._replace(momentum=0.0)).reshape(400, 13, 30).sum(axis=2)
    assert abs(np.corrcoef(plain[:, :-1].ravel(), plain[:, 1:].ravel())[0, 1]) < 0.05


def test_the_gap_is_the_log_price_over_its_trailing_mean() -> None:
    model = DEFAULT_MODEL._replace(trend_sessions=0.05, momentum=2.0)
    path = paths(1, 50, model)
    trailing, fade = np.log(100.0), np.exp(-(1.0 - model.overnight_share) / 390 / 0.05)
    for step in range(50):
        log_spot = np.log(path.spot[0, step + 1])
        trailing = log_spot - fade * (log_spot - trailing)
        assert path.gap[0, step + 1] == pytest.approx(log_spot - trailing, abs=1e-12)


def test_jumps_that_fall_leave_the_drift_and_the_variance() -> None:
    model = DEFAULT_MODEL._replace(
        stress_rate=0.0, drift=0.0, jump_share=0.5, jump_rate=2000.0, vol_of_vol=1e-9
    )
    even, falling = (
        minute_returns(model._replace(jump_bias=bias), count=1500) for bias in (0.0, -2.0)
    )
    skewness = [float(((r - r.mean()) ** 3).mean() / r.std() ** 3) for r in (even, falling)]
    assert abs(skewness[0]) < 1.0 < -skewness[1]
    assert falling.var() == pytest.approx(even.var(), rel=0.1)
    error = falling.std() / np.sqrt(falling.size)
    assert abs(falling.mean() + 0.5 * falling.var()) < 4.0 * error


def test_stress_has_a_drift_of_its_own() -> None:
    model = DEFAULT_MODEL._replace(
        stress_rate=0.0, calm_rate=0.0, drift=0.0, stress_drift=-40.0, jump_share=0.0
    )
    assert minute_returns(model).sum(axis=1).mean() == pytest.approx(0.0, abs=0.002)
    stressed = minute_returns(model, regime=STRESSED).sum(axis=1).mean()
    assert stressed == pytest.approx(-40.0 / 252 * (1.0 - model.overnight_share), rel=0.05)


def test_nights_pay_their_own_premium() -> None:
    model = DEFAULT_MODEL._replace(
        stress_rate=0.0, calm_premium=0.0, night_premium=0.5, jump_share=0.0, vol_of_vol=1e-9
    )
    rng, start = np.random.default_rng(1), FactorState(100.0, float(np.log(0.15)), -0.2, CALM)
    moves = {
        is_night: np.std(
            [
                np.log(advance(model, rng, start, 1.0 / 252, 0.0, is_night)[0].spot)
                for _ in range(4000)
            ]
        )
        for is_night in (False, True)
    }
    assert moves[False] == pytest.approx(0.15 / np.sqrt(252), rel=0.05)
    assert moves[True] == pytest.approx(0.15 / np.sqrt(252) / 1.5, rel=0.05)


def test_markets_that_share_shocks_move_together() -> None:
    rng = np.random.default_rng(5)
    shared = np.stack([rng.standard_normal(2000), np.full(2000, np.nan)])

    def moves(seed: int) -> np.ndarray:
        model = DEFAULT_MODEL._replace(jump_share=0.0)
        path = simulate_factors(
            model, np.array([100.0]), np.array([np.log(0.15)]), np.zeros(1, np.int8), 2000, 60.0,
            np.random.default_rng(seed), shared=shared, loading=float(np.sqrt(0.6)),
        )  # fmt: skip
        returns: np.ndarray = np.diff(np.log(path.spot[0]))
        return returns

    assert np.corrcoef(moves(1), moves(2))[0, 1] == pytest.approx(0.6, abs=0.06)


def test_regimes_that_are_shared_switch_at_the_same_steps() -> None:
    rng = np.random.default_rng(5)
    shared = np.stack([rng.standard_normal(300), rng.random(300)])
    model = DEFAULT_MODEL._replace(stress_rate=20.0, calm_rate=20.0)
    regimes = [
        simulate_factors(
            model, np.array([100.0]), np.array([np.log(0.15)]), np.zeros(1, np.int8), 300, 60.0,
            np.random.default_rng(seed), shared=shared, loading=0.0,
        ).regime
        for seed in (1, 2)
    ]  # fmt: skip
    assert np.array_equal(*regimes)
    assert len(set(regimes[0].ravel().tolist())) == 2
