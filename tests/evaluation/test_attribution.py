"""What a profit is made of: it adds up, the greeks explain it, and what they cannot is told."""

import numpy as np
import pytest

from tests.envs.scene import IV, NOW_NS, SPOT, priced_chain, snapshot_of
from trading.envs.account_view import Holdings, no_holdings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.quote_arrays import quote_arrays
from trading.envs.rules import STOCK_LEG
from trading.evaluation.attribution import (
    COMPONENTS,
    UNEXPLAINED,
    PositionGreeks,
    explain,
    greeks_of_holdings,
)
from trading.evaluation.backtest import backtest_simulation
from trading.evaluation.baselines import SHORT_STRANGLE, SessionTrader, open_and_keep, random_masked
from trading.execution.fees import order_fees
from trading.market.chain import Chain

FIRST = np.zeros(1, dtype=np.int64)
NONE = np.zeros(1)
GREEKS = slice(0, 4)


def at_the_money_call(chain: Chain) -> int:
    strikes = chain.columns.strike * (chain.columns.right > 0)
    return int(np.argmin(np.abs(strikes - SPOT)))


def held(*legs: int) -> Holdings:
    """One contract or round lot of each."""
    holdings = no_holdings(1)
    holdings.units[0] = 1
    holdings.legs[0, : len(legs)], holdings.ratio[0, : len(legs)] = legs, 1
    return holdings


def reading(chain: Chain, holdings: Holdings) -> PositionGreeks:
    snapshots = snapshot_of(chain)
    return greeks_of_holdings(
        quote_arrays(chain.columns), snapshots, FIRST, holdings, DEFAULT_RULES
    )


def part(parts: np.ndarray, name: str) -> float:
    return float(parts[0, COMPONENTS.index(name)])


def test_a_mark_gives_back_the_volatility_it_was_priced_at() -> None:
    chain = priced_chain(spread=1e-6)
    seen = reading(chain, held(at_the_money_call(chain), STOCK_LEG))
    assert seen.iv[0, 0] == pytest.approx(IV, rel=1e-6)
    assert seen.delta[0, :2] == pytest.approx([0.54, 1.0], abs=0.03)
    assert seen.quantity[0].tolist() == [100.0, 100.0, 0.0, 0.0]


@pytest.mark.parametrize(("spot", "iv", "explains"), [(100.5, IV, "delta"), (SPOT, 0.27, "vega")])
def test_greeks_explain_a_move_of_what_they_are_about(
    spot: float, iv: float, explains: str
) -> None:
    chain, moved = priced_chain(spread=1e-6), priced_chain(spot, iv, spread=1e-6)
    call = held(at_the_money_call(chain))
    before, after = reading(chain, call), reading(moved, call)
    parts = explain(before, after, NONE, NONE)
    profit = float((after.value - before.value)[0])
    assert parts.sum() == pytest.approx(profit)
    assert part(parts, explains) == pytest.approx(profit, rel=0.05)
    assert abs(part(parts, "unexplained")) < 0.001 * abs(profit)
    assert (part(parts, "gamma") > 0.0) == (spot != SPOT)


def test_stock_moves_by_delta_alone() -> None:
    before, after = (
        reading(priced_chain(), held(STOCK_LEG)),
        reading(priced_chain(101.0), held(STOCK_LEG)),
    )
    parts = explain(before, after, NONE, NONE)
    assert part(parts, "delta") == pytest.approx(100.0) == parts.sum()


def test_a_mark_without_a_bid_is_told_apart_from_the_market() -> None:
    chain, one_sided = priced_chain(), priced_chain()
    call = at_the_money_call(chain)
    one_sided.columns.bid[call] = 0.0
    before, after = reading(chain, held(call)), reading(one_sided, held(call))
    parts = explain(before, after, NONE, NONE)
    assert part(parts, "quotes") == pytest.approx(parts.sum()) == (after.value - before.value)[0]
    assert part(parts, "quotes") < -50.0
    assert part(parts, "unexplained") == 0.0


def test_an_expired_quote_leaves_no_number_behind() -> None:
    chain, later = priced_chain(), priced_chain()
    call = at_the_money_call(chain)
    later.columns.ask[call] = later.columns.bid[call]
    after = reading(later, held(call))
    assert np.isnan(after.iv[0, 0])
    assert np.isfinite(explain(reading(chain, held(call)), after, NONE, NONE)).all()
    assert after.now_ns[0] == NOW_NS


@pytest.mark.parametrize("trader", [random_masked(1), SHORT_STRANGLE], ids=["random", "strangle"])
def test_parts_add_up_to_every_bars_profit_and_little_is_unexplained(trader: SessionTrader) -> None:
    result = backtest_simulation(8, 5, DEFAULT_RULES, DEFAULT_FEES, trader)
    before = np.concatenate([np.full((8, 1), result.capital), result.equity[:, :-1]], axis=1)
    assert result.parts.sum(axis=2) == pytest.approx(result.equity - before, abs=1e-6)
    gross = np.abs(result.parts[:, :, GREEKS]).sum()
    assert gross > 10_000.0
    assert np.abs(result.parts[:, :, UNEXPLAINED]).sum() < 0.01 * gross


def test_a_position_that_is_kept_pays_once() -> None:
    result = backtest_simulation(
        4, 5, DEFAULT_RULES, DEFAULT_FEES, open_and_keep("long_call_far_d50")
    )
    spread, fees = (result.parts[:, :, COMPONENTS.index(n)] for n in ("spread", "fees"))
    assert ((spread < -1e-6).sum(axis=1) == result.trades).all()
    for session in np.flatnonzero(result.trades).tolist():
        contracts = int(np.nanmax(result.contracts[session]))
        expected = order_fees(DEFAULT_FEES, contracts, 0, 0.0)
        assert -fees[session].sum() == pytest.approx(expected)
        half_spread = -spread[session].sum()
        assert 0.0 < half_spread < 0.5 * result.traded[session]
