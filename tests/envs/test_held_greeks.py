"""Greeks of a holding: quoted, remembered, or unknown, and never silently none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.scene import NOW_NS, SPOT, priced_chain
from trading.envs.held_greeks import UNKNOWN, GreeksSource, HeldGreeks
from trading.envs.quote_arrays import quote_arrays

AGE_NS = 90_000_000_000
LATER_NS = NOW_NS + 10 * AGE_NS


def test_deep_in_the_money_without_time_value_moves_like_the_stock() -> None:
    chain = priced_chain()
    chain.refresh(NOW_NS, 0.04, AGE_NS)
    i = chain.index["O:XYZ260113C00080000"]
    columns = chain.columns
    columns.bid[i], columns.ask[i] = 19.9, 20.1
    put = columns.pair[i]
    columns.bid[put], columns.ask[put] = 0.0, 0.01
    for name in ("delta", "gamma", "vega", "theta"):
        getattr(columns, name)[i] = np.nan
    greeks, source = HeldGreeks().of("it", quote_arrays(columns), i, SPOT, NOW_NS, AGE_NS)
    assert source is GreeksSource.QUOTE and greeks == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("bid", "ask", "delta"), [(0.0, 0.02, 0.0), (0.0, 3.0, None)])
def test_what_nobody_bids_for_is_worthless_only_where_the_ask_says_so(
    bid: float, ask: float, delta: float | None
) -> None:
    chain = priced_chain()
    i = chain.index["O:XYZ260113C00120000"]
    chain.columns.bid[i], chain.columns.ask[i] = bid, ask
    greeks, source = HeldGreeks().of("it", quote_arrays(chain.columns), i, SPOT, NOW_NS, AGE_NS)
    assert source is (GreeksSource.UNKNOWN if delta is None else GreeksSource.QUOTE)
    assert greeks == UNKNOWN or greeks.delta == delta


@settings(deadline=None, max_examples=50)
@given(
    strike=st.integers(85, 115),
    right=st.sampled_from("CP"),
    spots=st.lists(st.floats(1.0, 400.0) | st.just(float("nan")), max_size=5),
)
def test_once_known_greeks_stay_known_and_within_their_bounds(
    strike: int, right: str, spots: list[float]
) -> None:
    chain = priced_chain()
    chain.refresh(NOW_NS, 0.04, AGE_NS)
    i = chain.index[f"O:XYZ260113{right}{1000 * strike:08d}"]
    held = HeldGreeks()
    first, source = held.of("it", quote_arrays(chain.columns), i, chain.spot, NOW_NS, AGE_NS)
    assert source is GreeksSource.QUOTE
    chain.refresh(LATER_NS, 0.04, AGE_NS)
    for spot in spots:
        moved, source = held.of("it", quote_arrays(chain.columns), i, spot, LATER_NS, AGE_NS)
        assert source is GreeksSource.LAST
        assert np.isfinite(moved).all() and abs(moved.delta) <= 1.0
        assert moved.delta * (1 if right == "C" else -1) >= 0.0
        assert (moved.gamma, moved.vega) == (first.gamma, first.vega)
    held.keep(set())
    assert held.of("it", quote_arrays(chain.columns), i, SPOT, LATER_NS, AGE_NS) == (
        UNKNOWN,
        GreeksSource.UNKNOWN,
    )
