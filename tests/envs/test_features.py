"""The observation: what each entry says, and that bad data never becomes NaN."""

import numpy as np

from tests.envs.scene import (
    IV,
    NOW_NS,
    SESSION_CLOSE_NS,
    SESSION_OPEN_NS,
    buckets,
    flat,
    funds,
    menu_for,
    priced_chain,
)
from trading.envs.actions import ACTIONS, Position, Strategy
from trading.envs.defaults import DEFAULT_RULES
from trading.envs.features import (
    FEATURE_COUNT,
    FEATURES,
    HISTORY_BARS,
    LIMIT,
    Bars,
    feature_table,
    observe,
)
from trading.market.chain import Chain

INDEX = {feature.name: k for k, feature in enumerate(FEATURES)}


def bars(closes: np.ndarray) -> Bars:
    n = len(closes)
    column = np.zeros(HISTORY_BARS)
    column[:n] = closes
    return Bars(column + 0.05 * (column > 0), column - 0.05 * (column > 0), column, n)


def observed(
    chain: Chain, history: Bars | None = None, position: Position | None = None
) -> dict[str, float]:
    out = np.full(FEATURE_COUNT, np.nan, dtype=np.float32)
    spot = chain.spot if np.isfinite(chain.spot) else 100.0
    observe(
        chain.columns,
        NOW_NS,
        SESSION_OPEN_NS,
        SESSION_CLOSE_NS,
        spot,
        history or bars(np.full(HISTORY_BARS, 100.0)),
        DEFAULT_RULES,
        funds(),
        position or flat(),
        buckets(chain),
        out,
    )
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= LIMIT
    return dict(zip(INDEX, out.tolist(), strict=True))


def refreshed() -> Chain:
    chain = priced_chain()
    chain.refresh(NOW_NS, DEFAULT_RULES.rate, DEFAULT_RULES.max_quote_age_ns)
    return chain


def test_the_surface_is_read_back_from_the_quotes() -> None:
    seen = observed(refreshed())
    assert seen["near_known"] == seen["far_known"] == 1.0
    assert abs(seen["near_atm_iv"] - IV) < 0.01
    assert abs(seen["far_atm_iv"] - IV) < 0.01
    assert abs(seen["near_skew"]) < 0.2
    assert seen["near_quote_age"] == 0.0


def test_the_time_of_day_runs_from_zero_to_one() -> None:
    seen = observed(refreshed())
    assert abs(seen["session_elapsed"] - 1 / 6.5) < 1e-6
    assert abs(seen["session_left"] - 5.5 / 6.5) < 1e-6


def test_returns_are_of_closed_bars() -> None:
    closes = np.full(HISTORY_BARS, 100.0)
    closes[-1] = 100.1
    seen = observed(refreshed(), bars(closes))
    assert abs(seen["return_1"] - np.log(1.001) * 1000) < 1e-4
    assert seen["rsi"] == 1.0
    assert seen["macd"] > 0.0


def test_without_history_or_quotes_every_entry_is_neutral_and_finite() -> None:
    chain = refreshed()
    chain.columns.bid[:] = 0.0
    chain.columns.ask[:] = 0.0
    chain.refresh(NOW_NS, DEFAULT_RULES.rate, DEFAULT_RULES.max_quote_age_ns)
    seen = observed(chain, bars(np.zeros(0)))
    assert seen["near_known"] == seen["return_1"] == seen["realised_vol_15"] == 0.0


def test_a_long_call_shows_positive_delta_gamma_and_vega_and_pays_theta() -> None:
    chain = refreshed()
    menu = menu_for(chain)
    a = next(k for k, action in enumerate(ACTIONS) if action.strategy is Strategy.LONG_CALL)
    held = Position(menu.legs[a], menu.ratio[a], 2, -300.0, NOW_NS)
    seen = observed(chain, position=held)
    assert seen["position_open"] == 1.0
    assert seen["position_delta"] > 0 and seen["position_gamma"] > 0 and seen["position_vega"] > 0
    assert seen["position_theta"] < 0.0
    value = 200.0 * chain.columns.mark[menu.legs[a, 0]]
    assert abs(seen["position_pnl"] - (value - 300.0) / 1000.0) < 1e-4


def test_the_table_lists_every_feature_once_with_its_index() -> None:
    lines = feature_table().splitlines()[2:]
    assert len(lines) == FEATURE_COUNT == len(INDEX)
    assert lines[INDEX["rsi"]].startswith(f"| {INDEX['rsi']} | `rsi` |")
