"""The figures that are shown."""

import pytest

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.evaluation.backtest import Backtest, backtest_simulation
from trading.evaluation.baselines import BUY_AND_HOLD, hold
from trading.evaluation.return_statistics import chance_variance, deflated_sharpe
from trading.evaluation.summary import default_trials, summaries


@pytest.fixture(scope="module")
def results() -> dict[str, Backtest]:
    traders = {"stock": BUY_AND_HOLD, "cash": hold}
    return {
        name: backtest_simulation(6, 5, DEFAULT_RULES, DEFAULT_FEES, trader)
        for name, trader in traders.items()
    }


def test_only_traders_that_trade_are_trials(results: dict[str, Backtest]) -> None:
    assert default_trials(results) == 1
    assert default_trials({"cash": results["cash"]}) == 1


def test_the_deflated_sharpe_ratio_names_its_trials(results: dict[str, Backtest]) -> None:
    figures = dict(summaries(results, trials=9)["Ratios, annualised"]["stock"])
    returns = results["stock"].returns
    expected = deflated_sharpe(returns, trials=9, trial_variance=chance_variance(len(returns)))
    assert figures["deflated, 9 trials"] == f"{expected:.2f}"


def test_what_is_shown_of_a_profit_adds_up_to_it(results: dict[str, Backtest]) -> None:
    tables = summaries(results, trials=1)
    parts = dict(tables["Where it came from, USD a session"]["stock"])
    numbers = {name: float(value.replace(",", "")) for name, value in parts.items()}
    profit = numbers.pop("all")
    assert sum(numbers.values()) == pytest.approx(profit, abs=len(numbers))
    assert profit == pytest.approx(results["stock"].returns.mean() * 100_000.0, abs=0.5)


def test_what_has_no_value_is_a_dash(results: dict[str, Backtest]) -> None:
    cash = summaries(results, trials=1)
    assert dict(cash["Ratios, annualised"]["cash"])["Sharpe"] == "-"
    assert dict(cash["Trading"]["cash"])["fees share"] == "-"
