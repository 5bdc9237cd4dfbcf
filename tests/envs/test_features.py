"""The observation: what each entry says, and that bad data never becomes NaN."""

import numpy as np

from tests.envs.scene import IV, menu_for, priced_chain
from trading.envs.account_view import Holdings
from trading.envs.catalogue import ACTIONS, Strategy
from trading.envs.features import FEATURE_COUNT, FEATURES, OTHERS_COUNT, feature_table
from trading.envs.market_features import HISTORY_BARS, LIMIT, Bars
from trading.market.chain import Chain

INDEX = {feature.name: k for k, feature in enumerate(FEATURES)}


def bars(closes: np.ndarray) -> Bars:
    n = len(closes)
    column = np.full(HISTORY_BARS, np.nan)
    column[:n] = closes
    return Bars(column + 0.05, column - 0.05, column, np.log(column), n)


def observed(
    chain: Chain, history: Bars | None = None, position: Holdings | None = None
) -> dict[str, float]:
    out = menu_for(chain, bars=history, position=position).observation
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= LIMIT
    return dict(zip(INDEX, out.tolist(), strict=True))


def test_the_surface_is_read_back_from_the_quotes() -> None:
    seen = observed(priced_chain())
    assert seen["near_known"] == seen["far_known"] == 1.0
    assert abs(seen["near_atm_iv"] - IV) < 0.01
    assert abs(seen["far_atm_iv"] - IV) < 0.01
    assert abs(seen["near_skew"]) < 0.2
    assert seen["near_quote_age"] == 0.0


def test_the_time_of_day_runs_from_zero_to_one() -> None:
    seen = observed(priced_chain())
    assert abs(seen["session_elapsed"] - 1 / 6.5) < 1e-6
    assert abs(seen["session_left"] - 5.5 / 6.5) < 1e-6


def test_returns_are_of_closed_bars() -> None:
    closes = np.full(HISTORY_BARS, 100.0)
    closes[-1] = 100.1
    seen = observed(priced_chain(), bars(closes))
    assert abs(seen["return_1"] - np.log(1.001) * 1000) < 1e-4
    assert seen["rsi"] == 1.0
    assert seen["macd"] > 0.0


def test_without_history_or_quotes_every_entry_is_neutral_and_finite() -> None:
    chain = priced_chain()
    chain.columns.bid[:] = 0.0
    chain.columns.ask[:] = 0.0
    seen = observed(chain, bars(np.zeros(0)))
    assert seen["near_known"] == seen["return_1"] == seen["realised_vol_15"] == 0.0


def test_a_long_call_shows_positive_delta_gamma_and_vega_and_pays_theta() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    a = next(k for k, action in enumerate(ACTIONS) if action.strategy is Strategy.LONG_CALL)
    seen = observed(chain, position=menu.position(a, 2, net_cash=-300.0))
    assert seen["position_open"] == 1.0
    assert seen["position_delta"] > 0 and seen["position_gamma"] > 0 and seen["position_vega"] > 0
    assert seen["position_theta"] < 0.0
    value = 200.0 * chain.columns.mark[menu.legs(a)[0]]
    assert abs(seen["position_pnl"] - (value - 300.0) / 1000.0) < 1e-4


def test_a_covered_call_has_the_delta_of_its_stock_less_that_of_its_call() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    a = next(k for k, action in enumerate(ACTIONS) if action.strategy is Strategy.COVERED_CALL)
    call = menu.legs(a)[0]
    seen = observed(chain, position=menu.position(a, 3))
    shares = 300.0 * (1.0 - chain.columns.delta[call])
    assert abs(seen["position_delta"] - shares * chain.spot / 100_000.0) < 1e-5
    assert seen["position_days"] > 0.0


def test_the_table_lists_every_feature_once_with_its_index() -> None:
    lines = feature_table().splitlines()[2:]
    assert len(lines) - OTHERS_COUNT == FEATURE_COUNT == len(INDEX)
    assert lines[INDEX["rsi"]].startswith(f"| {INDEX['rsi']} | `rsi` |")
    assert lines[-1].startswith("| -1 | `others_pnl` |")
