"""What a chain implies from its quotes equals what the scalar pricing functions say."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.market.calendar import ExchangeCalendar
from trading.market.chain import MIN_TIME_VALUE, Chain
from trading.market.contracts import OptionContract, Right
from trading.market.pricing import YEAR_NS, black_price, greeks, implied_volatility

CALENDAR = ExchangeCalendar()
SESSION = CALENDAR.session_on(date(2026, 1, 5))
assert SESSION is not None
NOW_NS = SESSION.open_ns + 3_600_000_000_000
MAX_AGE_NS = 90_000_000_000
EXPIRIES = [date(2026, 1, 5), date(2026, 1, 9), date(2026, 2, 6), date(2027, 1, 15)]


def quoted_chain(seed: int, spot: float, iv: float, rate: float, missing: float) -> Chain:
    """Four expiries from hours to a year, far strikes too; a share of the quotes is missing."""
    rng = np.random.default_rng(seed)
    strikes = np.unique(np.round(spot * np.exp(rng.normal(0.0, 0.3, 25)), 1))
    contracts = [
        OptionContract("XYZ", expiry, right, round(1000 * strike))
        for expiry in EXPIRIES
        for strike in strikes
        for right in Right
        if rng.random() > 0.1
    ]
    chain = Chain("XYZ", contracts, [CALENDAR.expiry_ns(c.expiry) for c in contracts])
    c = chain.columns
    for i in range(len(chain)):
        t = (c.expiry_ns[i] - NOW_NS) / YEAR_NS
        discount = float(np.exp(-rate * t))
        smile = iv * (1.0 + 0.5 * np.log(c.strike[i] / spot) ** 2)
        fair = black_price(int(c.right[i]), spot / discount, c.strike[i], t, discount, smile)
        half = 0.5 * (0.01 + 0.02 * fair)
        if rng.random() > missing:
            c.bid[i], c.ask[i] = max(fair - half, 0.0), fair + half
            c.quote_ns[i] = NOW_NS - int(rng.integers(0, 2 * MAX_AGE_NS))
    chain.last_price = spot
    return chain


def readable(chain: Chain, i: int) -> bool:
    c = chain.columns
    fresh = c.quote_ns[i] > 0 and NOW_NS - c.quote_ns[i] <= MAX_AGE_NS
    return bool(fresh and c.bid[i] > 0.0 and c.ask[i] > c.bid[i])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spot=st.floats(5.0, 900.0),
    iv=st.floats(0.05, 2.5),
    rate=st.floats(0.0, 0.08),
    missing=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_every_volatility_and_greek_is_that_of_the_scalar_functions(
    seed: int, spot: float, iv: float, rate: float, missing: float
) -> None:
    chain = quoted_chain(seed, spot, iv, rate, missing)
    chain.refresh(NOW_NS, rate, MAX_AGE_NS)
    c = chain.columns
    for g in range(len(c.forward)):
        for i in range(c.group_start[g], c.group_start[g + 1]):
            t = (c.expiry_ns[i] - NOW_NS) / YEAR_NS
            discount, forward = float(np.exp(-rate * t)), c.forward[g]
            pair = int(c.pair[i])
            otm = i if c.right[i] * (forward - c.strike[i]) <= 0.0 or pair < 0 else pair
            source = otm if readable(chain, otm) or c.pair[otm] < 0 else int(c.pair[otm])
            expected = np.nan
            if readable(chain, source):
                mid = 0.5 * (c.bid[source] + c.ask[source])
                expected, _ = implied_volatility(
                    mid, int(c.right[source]), forward, c.strike[i], t, discount, MIN_TIME_VALUE
                )
            assert c.iv[i] == pytest.approx(expected, rel=1e-8, nan_ok=True)
            if np.isfinite(expected):
                known = greeks(
                    int(c.right[i]), forward, chain.spot, c.strike[i], t, discount, expected
                )
                found = (c.delta[i], c.gamma[i], c.vega[i], c.theta[i])
                scale = (1.0, 1.0 / spot, spot, spot)
                for value, exact, unit in zip(found, known, scale, strict=True):
                    assert value == pytest.approx(exact, rel=1e-6, abs=1e-8 * unit / min(t, 1.0))
            else:
                assert np.isnan([c.delta[i], c.gamma[i], c.vega[i], c.theta[i]]).all()


def test_a_missing_bid_leaves_the_mark_as_far_as_the_ask_allows() -> None:
    contract = OptionContract("XYZ", EXPIRIES[2], Right.CALL, 100_000)
    chain = Chain("XYZ", [contract], [CALENDAR.expiry_ns(contract.expiry)])
    chain.last_price = 100.0
    c = chain.columns

    def mark(bid: float, ask: float) -> float:
        c.bid[0], c.ask[0], c.quote_ns[0] = bid, ask, NOW_NS
        chain.refresh(NOW_NS, 0.04, MAX_AGE_NS)
        return float(c.mark[0])

    assert mark(0.0, 4.4) == pytest.approx(2.2)  # nothing is known of it but that it costs less
    assert mark(4.0, 4.4) == pytest.approx(4.2)
    assert mark(0.0, 4.4) == pytest.approx(4.2)
    assert mark(0.0, 3.0) == pytest.approx(3.0)
    assert mark(0.0, 9.0) == pytest.approx(3.0)
    assert mark(2.0, 2.2) == pytest.approx(2.1)
