"""The figures of a backtest, as the commands and the tear sheet show them."""

from collections.abc import Mapping

import numpy as np

from trading.evaluation import return_statistics
from trading.evaluation.attribution import COMPONENTS, FEES
from trading.evaluation.backtest import Backtest
from trading.evaluation.baselines import BENCHMARK

Figures = list[tuple[str, str]]
"""Names and values."""


def summaries(
    results: Mapping[str, Backtest], trials: int, seed: int = 0
) -> dict[str, dict[str, Figures]]:
    """Figures of every trader under each heading; `seed` is that of the bootstrap.

    The Sharpe ratios are deflated for `trials` among which the best may have been picked, each as
    variable as a trader without skill is, see `return_statistics.chance_variance`. The variance
    among the traders compared would say nothing of luck: they differ by what they do.
    """
    tables: dict[str, dict[str, Figures]] = {}
    benchmark = results.get(BENCHMARK)
    for trader, result in results.items():
        beside = {} if benchmark is None else {_BESIDE: _beside(result, benchmark, seed)}
        groups = {
            "Return a session": _returns(result, seed),
            "Ratios, annualised": _ratios(result, trials, seed),
            **beside,
            "Trading": _trading(result),
            "Where it came from, USD a session": _attribution(result),
        }
        for heading, figures in groups.items():
            tables.setdefault(heading, {})[trader] = figures
    return tables


def default_trials(results: Mapping[str, Backtest]) -> int:
    """Traders that trade at all: keeping the cash is nobody's pick."""
    return max(1, sum(bool(result.trades.any()) for result in results.values()))


def _returns(result: Backtest, seed: int) -> Figures:
    returns = result.returns
    low, high = return_statistics.bootstrap_interval(
        returns, lambda r: float(np.mean(r)), generator=np.random.default_rng(seed)
    )
    return [
        ("sessions", str(len(returns))),
        ("mean", _percent(float(np.mean(returns)))),
        ("95 % interval", _interval(_percent(low), _percent(high))),
        ("mean, closed at the touch", _percent(float(np.mean(result.closed_returns)))),
        ("max drawdown", f"{return_statistics.max_drawdown(returns):.2%}"),
        ("win rate", _ratio(return_statistics.win_rate(returns))),
        ("profit factor", _ratio(return_statistics.profit_factor(returns))),
    ]


def _ratios(result: Backtest, trials: int, seed: int) -> Figures:
    returns = result.returns
    low, high = return_statistics.bootstrap_interval(
        returns, return_statistics.sharpe, generator=np.random.default_rng(seed)
    )
    variance = return_statistics.chance_variance(len(returns))
    deflated = return_statistics.deflated_sharpe(returns, trials=trials, trial_variance=variance)
    return [
        ("Sharpe", _ratio(return_statistics.sharpe(returns))),
        ("95 % interval", _interval(_ratio(low), _ratio(high))),
        (f"deflated, {trials} trials", _ratio(deflated)),
        ("Sortino", _ratio(return_statistics.sortino(returns))),
        ("Calmar", _ratio(return_statistics.calmar(returns))),
    ]


_BESIDE = f"Beside {BENCHMARK}, a session"


def _beside(result: Backtest, benchmark: Backtest, seed: int) -> Figures:
    """Return what it made beyond the benchmark in the same sessions, and how it moves with it."""
    difference = result.returns - benchmark.returns
    low, high = return_statistics.bootstrap_interval(
        difference, lambda r: float(np.mean(r)), generator=np.random.default_rng(seed)
    )
    return [
        ("mean difference", _percent(float(np.mean(difference)))),
        ("95 % interval", _interval(_percent(low), _percent(high))),
        ("beta", _ratio(return_statistics.beta(result.returns, benchmark.returns))),
        ("correlation", _ratio(return_statistics.correlation(result.returns, benchmark.returns))),
    ]


def _trading(result: Backtest) -> Figures:
    profit = result.returns * result.capital
    fees = -result.parts[:, :, FEES].sum(axis=1)
    return [
        ("fills", _ratio(float(np.mean(result.trades)))),
        ("turnover", f"{return_statistics.turnover(result.traded, result.capital):.2f}x"),
        ("fees share", _share(return_statistics.fees_share(fees, profit))),
        ("time in market", _share(return_statistics.time_in_market(result.position))),
        ("mean |delta|", _share(return_statistics.mean_exposure(result.delta))),
    ]


def _attribution(result: Backtest) -> Figures:
    sessions = len(result.returns)
    means = result.parts.sum(axis=(0, 1)) / sessions
    figures = [(name, _usd(float(value))) for name, value in zip(COMPONENTS, means, strict=True)]
    return [*figures, ("all", _usd(float(np.mean(result.returns)) * result.capital))]


def _percent(value: float) -> str:
    return f"{value:+.3%}" if np.isfinite(value) else "-"


def _share(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "-"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def _usd(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 0.5 else "0"


def _interval(low: str, high: str) -> str:
    return "-" if low == "-" else f"{low} to {high}"
