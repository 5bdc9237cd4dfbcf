from math import sqrt

import numpy as np
import pytest
from scipy import stats

from trading.evaluation import return_statistics

RETURNS = np.array([0.01, -0.02, 0.03, 0.0, -0.01])


def test_ratios_of_a_short_series_by_hand():
    assert return_statistics.sharpe(RETURNS) == pytest.approx(sqrt(252) * 0.002 / sqrt(0.00037))
    assert return_statistics.sortino(RETURNS) == pytest.approx(sqrt(252) * 0.002 / sqrt(0.0001))
    assert return_statistics.max_drawdown(RETURNS) == pytest.approx(0.02)
    assert return_statistics.calmar(RETURNS) == pytest.approx(252 * 0.002 / 0.02)
    assert return_statistics.win_rate(RETURNS) == 0.5
    assert return_statistics.profit_factor(RETURNS) == pytest.approx(4 / 3)


def test_a_series_that_never_moves_has_no_ratios():
    still = np.zeros(5)
    assert np.isnan(return_statistics.sharpe(still))
    assert np.isnan(return_statistics.sortino(still))
    assert np.isnan(return_statistics.calmar(still))
    assert np.isnan(return_statistics.win_rate(still))
    assert np.isnan(return_statistics.profit_factor(still))
    assert return_statistics.max_drawdown(still) == 0.0
    assert np.isnan(return_statistics.sharpe(np.full(5, 0.1)))


def test_drawdown_counts_a_loss_from_the_start():
    assert return_statistics.max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(0.1)


def test_probabilistic_sharpe_by_its_formula_with_scipy():
    ratio = RETURNS.mean() / RETURNS.std(ddof=1)
    skew, kurtosis = stats.skew(RETURNS), stats.kurtosis(RETURNS, fisher=False)
    deviation = sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
    expected = stats.norm.cdf(ratio * 2 / deviation)
    assert return_statistics.probabilistic_sharpe(RETURNS) == pytest.approx(expected)


def test_more_trials_deflate_the_sharpe_ratio():
    one = return_statistics.deflated_sharpe(RETURNS, trials=1, trial_variance=0.01)
    ten = return_statistics.deflated_sharpe(RETURNS, trials=10, trial_variance=0.01)
    many = return_statistics.deflated_sharpe(RETURNS, trials=1000, trial_variance=0.01)
    assert one == return_statistics.probabilistic_sharpe(RETURNS)
    assert one > ten > many


def test_expected_best_of_ten_lucky_trials_agrees_with_simulation():
    best = np.random.default_rng(1).standard_normal((200_000, 10)).max(axis=1).mean()
    ratio = RETURNS.mean() / RETURNS.std(ddof=1)
    at_best = return_statistics.deflated_sharpe(
        RETURNS, trials=10, trial_variance=(ratio / best) ** 2
    )
    assert at_best == pytest.approx(0.5, abs=0.02)


def test_bootstrap_interval_of_a_mean_agrees_with_its_standard_error():
    returns = np.random.default_rng(2).normal(0.0, 1.0, 400)
    low, high = return_statistics.bootstrap_interval(
        returns,
        lambda r: float(r.mean()),
        generator=np.random.default_rng(3),
    )
    assert low < returns.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / sqrt(400), rel=0.25)


@pytest.mark.parametrize("sessions", [10, 24])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_bootstrap_intervals_of_few_sessions_cover_what_they_claim(kind: str, sessions: int):
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        returns = rng.normal(size=sessions)
        if kind == "skewed":
            returns = 1.0 - rng.exponential(size=sessions)
        low, high = return_statistics.bootstrap_interval(
            returns, lambda r: float(r.mean()), generator=rng, resamples=300
        )
        covered += low <= 0.0 <= high
    assert covered / 200 >= 0.9


def test_bootstrap_of_equal_sessions_has_no_interval():
    interval = return_statistics.bootstrap_interval(
        np.full(9, 0.25), lambda r: float(r.mean()), generator=np.random.default_rng(0)
    )
    assert np.isnan(interval).all()


def test_sessions_that_differ_by_rounding_alone_make_no_interval_endless():
    """Most resamples of one loss among nothing hold none: what they vary by is rounding."""
    returns = np.full(20, 1e-17) * np.arange(20)
    returns[[4, 11]] = -0.006, 0.002
    low, high = return_statistics.bootstrap_interval(
        returns, lambda r: float(r.mean()), generator=np.random.default_rng(0)
    )
    assert -0.1 < low < returns.mean() < high < 0.1


def test_bootstrap_of_one_session_has_no_interval():
    interval = return_statistics.bootstrap_interval(
        np.ones(1), lambda r: float(r.mean()), generator=np.random.default_rng(0)
    )
    assert np.isnan(interval).all()


def test_one_session_is_not_annualised():
    one = np.array([-0.01])
    assert np.isnan(
        [
            return_statistics.sharpe(one),
            return_statistics.sortino(one),
            return_statistics.calmar(one),
        ]
    ).all()


def test_trading_figures_by_hand():
    assert return_statistics.turnover(np.array([50.0, 150.0]), 100.0) == 1.0
    fees, profit = np.array([1.0, 1.0]), np.array([4.0, -6.0])
    assert return_statistics.fees_share(fees, profit) == pytest.approx(2.0 / (5.0 + 5.0))
    assert np.isnan(return_statistics.fees_share(np.zeros(2), np.zeros(2)))
    position = np.array([[0, 3, 3, 3], [0, 0, -1, -1]])
    assert return_statistics.time_in_market(position) == pytest.approx(3 / 6)
    delta = np.array([[0.5, -0.5], [0.2, np.nan]])
    assert return_statistics.mean_exposure(delta) == pytest.approx(0.4)
    assert np.isnan(return_statistics.mean_exposure(np.full((1, 2), np.nan)))


def test_chance_varies_the_sharpe_ratio_as_in_simulation():
    returns = np.random.default_rng(4).standard_normal((20_000, 30))
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    assert return_statistics.chance_variance(30) == pytest.approx(ratios.var(), rel=0.1)
    assert np.isnan(return_statistics.chance_variance(1))


def test_beta_and_correlation_beside_a_benchmark():
    benchmark = np.array([0.01, -0.02, 0.03, 0.0])
    assert return_statistics.beta(2.0 * benchmark + 0.5, benchmark) == pytest.approx(2.0)
    assert return_statistics.correlation(-3.0 * benchmark, benchmark) == pytest.approx(-1.0)
    assert np.isnan(return_statistics.beta(benchmark, np.zeros(4)))
    assert np.isnan(return_statistics.correlation(np.ones(4), benchmark))
