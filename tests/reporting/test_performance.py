"""Figures of compounded days, by hand."""

import numpy as np
import pytest

from trading.reporting import performance


def test_months_are_compounded() -> None:
    dates = ["2026-01-30", "2026-01-31", "2026-02-02"]
    months = performance.by_month(dates, np.array([0.1, -0.1, 0.05]))
    assert months == {2026: {1: pytest.approx(-0.01), 2: pytest.approx(0.05)}}


def test_drawdowns_are_told_from_the_peak_to_the_recovery() -> None:
    returns = np.array([0.1, -0.2, 0.1, 0.3, -0.05])
    deepest, last = performance.drawdowns(returns)
    assert (deepest.begins, deepest.lowest, deepest.recovers) == (1, 1, 3)
    assert deepest.depth == pytest.approx(0.2)
    assert (last.begins, last.recovers) == (4, None)
    assert performance.drawdowns(np.array([0.1, 0.2])) == []


def test_a_fall_from_the_start_counts() -> None:
    (fall,) = performance.drawdowns(np.array([-0.1, 0.05]))
    assert (fall.begins, fall.depth) == (0, pytest.approx(0.1))


def test_the_tail_is_that_of_the_worst_sessions() -> None:
    returns = np.arange(-20, 80) / 1000.0
    assert performance.value_at_risk(returns) == pytest.approx(0.016)
    assert performance.expected_shortfall(returns) == pytest.approx(0.018)
    assert np.isnan(performance.value_at_risk(returns[:19]))


def test_rolling_figures_begin_with_a_whole_window() -> None:
    returns = np.random.default_rng(1).normal(0.0, 0.01, 30)
    ratio, spread = performance.rolling(returns, 21)
    assert np.isnan(ratio[:20]).all() and np.isfinite(ratio[20:]).all()
    assert spread[-1] == pytest.approx(np.std(returns[-21:], ddof=1) * np.sqrt(252))
