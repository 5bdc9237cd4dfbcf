"""Simulated markets cover real ones: a whole session of GOOG, and medians of other classes."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trading.market.quotes import ChainQuotes, TickClass, quote_chain
from trading.market.randomisation import model_at, sample_markets

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "data" / "flatfiles"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "compare_simulator.py"))

NOW_NS = 1_767_627_000_000_000_000
"""2026-01-05 15:30 UTC, an hour into a Monday's session."""
DAY_NS = 86_400 * 10**9


def test_every_figure_of_the_real_session_is_that_of_some_simulated_one() -> None:
    quotes = FOLDER / "us_options_opra/quotes_v1/2015/12/2015-12-24.csv.gz"
    if not quotes.is_file():
        pytest.skip(f"the real option session is absent: no {quotes}")
    real, simulated = SCRIPT["compare"](FOLDER, SCRIPT["SESSIONS"], SCRIPT["SEED"])
    groups = {figure.group for figure in real}
    assert {
        "spread out of the money, USD",
        "spread in the money, USD",
        "quote age, minutes",
        "no bid, out of the money",
        "size, contracts",
        "at-the-money IV",
        "25-delta skew over IV",
        "at-the-money IV over that of the expiry before",
    } <= groups
    assert SCRIPT["uncovered"](real, simulated) == []


def median_spreads(
    tick_class: TickClass, spot: float, days: int, low: float, high: float, in_the_money: bool
) -> NDArray[np.float64]:
    """Median spread of quotes with a mid from `low` to `high`, for each of 300 sampled markets."""
    rng = np.random.default_rng(2)
    markets = sample_markets(rng, 300)
    strikes = spot * np.linspace(0.7, 1.3, 400)
    strike, n = np.repeat(strikes, 2), 800
    right = np.tile(np.array([1, -1], dtype=np.int8), 400)
    expiry_ns = np.full(n, NOW_NS + days * DAY_NS)
    medians = []
    for b in range(300):
        bid, ask, bid_size, ask_size = (np.zeros(n) for _ in range(4))
        quote_chain(
            model_at(markets.models, b), rng, spot, float(np.exp(markets.log_iv[b])), -0.1, NOW_NS,
            ChainQuotes(
                strike, expiry_ns, right, bid, ask, bid_size, ask_size, np.zeros(n, np.int64)
            ),
            int(tick_class), 1.0, np.zeros(n, np.bool_),
        )  # fmt: skip
        mid = 0.5 * (bid + ask)
        chosen = (bid > 0.0) & (ask > 0.0) & (mid >= low) & (mid < high)
        chosen &= (right * (spot - strike) > 0.0) == in_the_money
        if chosen.sum() >= 10:
            medians.append(np.median((ask - bid)[chosen]))
    assert len(medians) >= 50
    return np.array(medians)


@pytest.mark.parametrize(
    ("tick_class", "spot", "days", "low", "high", "in_the_money", "real"),
    [
        pytest.param(TickClass.PENNY, 450.0, 29, 0.4, 0.9, False, 0.01, id="SPY, 0.66"),
        pytest.param(TickClass.PENNY, 450.0, 29, 1.5, 2.5, False, 0.01, id="SPY, 1.96"),
        pytest.param(TickClass.PENNY, 450.0, 29, 18.0, 22.0, True, 0.46, id="SPY, 20 inside"),
        pytest.param(TickClass.PENNY, 450.0, 29, 18.0, 22.0, True, 0.65, id="SPY, 20 inside, wide"),
        pytest.param(TickClass.STANDARD, 2050.0, 7, 0.1, 1.0, False, 0.10, id="SPXW, to 1"),
        pytest.param(TickClass.STANDARD, 2050.0, 7, 1.0, 3.0, False, 0.15, id="SPXW, 1 to 3"),
        pytest.param(TickClass.STANDARD, 2050.0, 7, 5.0, 20.0, False, 0.30, id="SPXW, 5 to 20"),
        pytest.param(TickClass.PENNY_PROGRAM, 75.0, 30, 0.5, 1.0, False, 0.05, id="TWX, to 1"),
        pytest.param(TickClass.PENNY_PROGRAM, 75.0, 30, 5.0, 10.0, True, 0.30, id="TWX, 5 to 10"),
        pytest.param(TickClass.PENNY_PROGRAM, 75.0, 30, 20.0, 40.0, True, 1.20, id="TWX, from 20"),
        pytest.param(TickClass.STANDARD, 750.0, 30, 0.1, 0.5, False, 0.15, id="GOOG, to 0.5"),
        pytest.param(TickClass.STANDARD, 750.0, 30, 1.0, 3.0, False, 0.45, id="GOOG, 1 to 3"),
        pytest.param(TickClass.STANDARD, 750.0, 30, 10.0, 20.0, False, 1.50, id="GOOG, 10 to 20"),
        pytest.param(TickClass.STANDARD, 750.0, 30, 20.0, 90.0, True, 3.00, id="GOOG, from 20"),
    ],
)
def test_median_spread_of_a_real_class_is_that_of_some_sampled_market(
    tick_class: TickClass,
    spot: float,
    days: int,
    low: float,
    high: float,
    in_the_money: bool,
    real: float,
) -> None:
    spreads = median_spreads(tick_class, spot, days, low, high, in_the_money)
    below, above = np.quantile(spreads, [0.02, 0.98])
    assert below - 0.005 <= real <= above + 0.005
