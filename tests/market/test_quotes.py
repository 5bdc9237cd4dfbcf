"""Simulated quotes look like those of real market makers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.pricing import YEAR_NS, IvReason, black_price, implied_volatility
from trading.market.quotes import ChainQuotes, TickClass, quote_chain, tick_cents
from trading.market.surface import surface_iv, variance_years

NOW_NS = 1_767_627_000_000_000_000
"""2026-01-05 15:30 UTC, an hour into a Monday's session."""
EXPIRY_NS = NOW_NS + 5_400 * 10**9 + 4 * 3600 * 10**9 + 29 * 86_400 * 10**9
F64 = NDArray[np.float64]


def empty_chain(strikes: F64, expiry_ns: int = EXPIRY_NS) -> ChainQuotes:
    n = 2 * len(strikes)
    strike = np.repeat(strikes, 2)
    right = np.tile(np.array([1, -1], dtype=np.int8), len(strikes))
    expiries = np.full(n, expiry_ns, dtype=np.int64)
    bid, ask, bid_size, ask_size = np.zeros((4, n))
    quote_ns = np.zeros(n, dtype=np.int64)
    return ChainQuotes(strike, expiries, right, bid, ask, bid_size, ask_size, quote_ns)


def quote(
    chain: ChainQuotes,
    rng: np.random.Generator,
    spot: float = 600.0,
    atm_iv: float = 0.15,
    now_ns: int = NOW_NS,
    tick_class: TickClass = TickClass.PENNY,
    requote_prob: float = 1.0,
    model: MarketModel = DEFAULT_MODEL,
) -> NDArray[np.bool_]:
    changed = np.zeros(len(chain.strike), dtype=np.bool_)
    count = quote_chain(
        model, rng, spot, atm_iv, -0.2, now_ns, chain, int(tick_class), requote_prob, changed
    )
    assert count == changed.sum()
    return changed


def median_spread_near(
    tick_class: TickClass, spot: float, low: float, high: float, in_the_money: bool = False
) -> float:
    """Median spread of two-sided quotes whose mid is between `low` and `high`."""
    chain = empty_chain(spot * np.linspace(0.8, 1.2, 2000))
    quote(chain, np.random.default_rng(5), spot, atm_iv=0.15, tick_class=tick_class)
    mid = 0.5 * (chain.bid + chain.ask)
    itm = chain.right * (spot - chain.strike) > 0.0
    chosen = (chain.bid > 0) & (chain.ask > 0) & (mid > low) & (mid < high)
    chosen &= itm == in_the_money
    assert chosen.sum() >= 10
    return float(np.median(chain.ask[chosen] - chain.bid[chosen]))


@pytest.mark.parametrize(
    ("tick_class", "spot", "low", "high", "in_the_money", "real"),
    [
        (TickClass.PENNY, 450.0, 0.4, 0.9, False, 0.01),
        (TickClass.PENNY, 450.0, 1.5, 2.5, False, 0.01),
        (TickClass.PENNY, 450.0, 18.0, 22.0, True, 0.55),
        (TickClass.PENNY_PROGRAM, 75.0, 0.5, 1.0, False, 0.05),
        (TickClass.PENNY_PROGRAM, 300.0, 5.0, 10.0, False, 0.30),
        (TickClass.PENNY_PROGRAM, 75.0, 10.0, 30.0, True, 0.60),
        (TickClass.STANDARD, 750.0, 0.1, 0.5, False, 0.15),
        (TickClass.STANDARD, 750.0, 1.0, 3.0, False, 0.45),
        (TickClass.STANDARD, 750.0, 10.0, 20.0, False, 1.50),
        (TickClass.STANDARD, 750.0, 20.0, 60.0, True, 3.00),
    ],
)
def test_spread_medians_are_near_those_of_real_sessions(
    tick_class: TickClass, spot: float, low: float, high: float, in_the_money: bool, real: float
) -> None:
    spread = median_spread_near(tick_class, spot, low, high, in_the_money)
    assert real / 1.5 - 1e-9 <= spread <= real * 1.5 + 1e-9


@pytest.mark.parametrize("tick_class", TickClass)
@pytest.mark.parametrize("atm_iv", [0.08, 0.3, 1.2])
def test_bid_is_below_ask_and_both_are_on_the_grid(tick_class: TickClass, atm_iv: float) -> None:
    chain = empty_chain(np.arange(300.0, 900.0, 2.5))
    quote(chain, np.random.default_rng(2), atm_iv=atm_iv, tick_class=tick_class)
    both = (chain.bid > 0) & (chain.ask > 0)
    assert both.mean() > 0.5
    assert np.all(chain.bid[both] < chain.ask[both])
    for price in np.concatenate([chain.bid, chain.ask]):
        cents = round(100 * price)
        assert price == cents / 100
        assert cents % tick_cents(price, int(tick_class)) == 0


def test_absent_side_has_neither_price_nor_size() -> None:
    chain = empty_chain(np.arange(500.0, 700.0, 1.0))
    quote(chain, np.random.default_rng(2), model=DEFAULT_MODEL._replace(missing_side=0.2))
    for price, size in ((chain.bid, chain.bid_size), (chain.ask, chain.ask_size)):
        assert 0.1 < np.mean(price == 0.0) < 0.6
        assert np.array_equal(price == 0.0, size == 0.0)
        assert np.all(size == np.floor(size))


def test_mid_inverts_to_the_surface() -> None:
    chain = empty_chain(np.arange(560.0, 641.0, 5.0))
    quote(chain, np.random.default_rng(2), model=DEFAULT_MODEL._replace(missing_side=0.0))
    discount = np.exp(-DEFAULT_MODEL.rate * (EXPIRY_NS - NOW_NS) / YEAR_NS)
    forward = 600.0 / discount
    t = variance_years(DEFAULT_MODEL, NOW_NS, EXPIRY_NS)
    for i, strike in enumerate(chain.strike):
        right = int(chain.right[i])
        if right * (forward - strike) > 0.0:
            continue
        mid = 0.5 * (chain.bid[i] + chain.ask[i])
        iv, reason = implied_volatility(mid, right, forward, strike, t, discount, 0.005)
        fair = surface_iv(DEFAULT_MODEL, np.log(strike / forward), t, 0.15, -0.2)
        assert reason == IvReason.OK
        assert iv == pytest.approx(fair, abs=0.004)


def test_calendar_volatility_stays_close_to_that_of_the_variance_clock() -> None:
    t = variance_years(DEFAULT_MODEL, NOW_NS, EXPIRY_NS)
    assert np.sqrt(t / ((EXPIRY_NS - NOW_NS) / YEAR_NS)) == pytest.approx(1.0, abs=0.03)


def test_unrenewed_quotes_grow_stale_while_their_value_holds() -> None:
    chain = empty_chain(np.arange(560.0, 641.0, 5.0))
    rng = np.random.default_rng(2)
    quote(chain, rng, tick_class=TickClass.STANDARD)
    first = chain.quote_ns.copy()
    for second in range(1, 61):
        changed = quote(
            chain,
            rng,
            now_ns=NOW_NS + second * 10**9,
            tick_class=TickClass.STANDARD,
            requote_prob=0.02,
        )
        assert np.array_equal(changed, chain.quote_ns > NOW_NS + (second - 1) * 10**9)
    assert 0.1 < np.mean(chain.quote_ns == first) < 0.6


def test_quote_moves_at_once_when_its_value_leaves_it() -> None:
    chain = empty_chain(np.arange(560.0, 641.0, 5.0))
    rng = np.random.default_rng(2)
    quote(chain, rng)
    now_ns = NOW_NS + 10**9
    quote(chain, rng, spot=606.0, now_ns=now_ns, requote_prob=0.0)
    discount = np.exp(-DEFAULT_MODEL.rate * (EXPIRY_NS - now_ns) / YEAR_NS)
    forward = 606.0 / discount
    t = variance_years(DEFAULT_MODEL, now_ns, EXPIRY_NS)
    for i, strike in enumerate(chain.strike):
        iv = surface_iv(DEFAULT_MODEL, np.log(strike / forward), t, 0.15, -0.2)
        fair = black_price(int(chain.right[i]), forward, strike, t, discount, iv)
        slack = 0.02 + 0.05 * fair
        assert chain.bid[i] <= fair + slack
        assert chain.ask[i] == 0.0 or chain.ask[i] >= fair - slack


def test_quote_is_stamped_in_whole_milliseconds_before_the_step() -> None:
    chain = empty_chain(np.arange(560.0, 641.0, 5.0))
    quote(chain, np.random.default_rng(2))
    assert np.all(chain.quote_ns <= NOW_NS)
    assert np.all(chain.quote_ns > NOW_NS - 10**9)
    assert np.all(chain.quote_ns % 10**6 == 0)


def test_expired_contract_is_left_alone() -> None:
    chain = empty_chain(np.arange(560.0, 641.0, 5.0), expiry_ns=NOW_NS - 1)
    assert not quote(chain, np.random.default_rng(2)).any()
    assert np.all(chain.quote_ns == 0)


def stale_share(
    model: MarketModel, strikes: F64, requote_prob: float, calls: int = 200
) -> NDArray[np.float64]:
    """Share of calls in which each contract of a chain kept its quote; values do not move."""
    chain = empty_chain(strikes)
    rng = np.random.default_rng(4)
    quote(chain, rng, model=model)
    kept = np.zeros(len(chain.strike))
    for _ in range(calls):
        kept += ~quote(chain, rng, model=model, requote_prob=requote_prob)
    return kept / calls


CALM_QUOTES = DEFAULT_MODEL._replace(activity_noise=0.0, quote_noise=0.0, missing_side=0.0)


def test_quotes_of_far_strikes_grow_older() -> None:
    model = CALM_QUOTES._replace(quiet_wings=0.5)
    kept = stale_share(model, np.array([480.0, 540.0, 600.0]), 0.5).reshape(3, 2).mean(axis=1)
    assert kept[2] == pytest.approx(0.5, abs=0.08)
    assert kept[0] > kept[1] + 0.05 > kept[2] + 0.1


def test_whole_chain_falls_silent_in_some_steps() -> None:
    def spread_of_counts(model: MarketModel) -> float:
        chain = empty_chain(np.arange(560.0, 641.0, 1.0))
        rng = np.random.default_rng(4)
        quote(chain, rng, model=model)
        return float(np.std([quote(chain, rng, model=model, requote_prob=0.4).mean()
                             for _ in range(200)]))  # fmt: skip

    even = spread_of_counts(CALM_QUOTES)
    assert spread_of_counts(CALM_QUOTES._replace(activity_noise=0.5)) > 2.0 * even


def test_certain_renewal_spares_no_quote() -> None:
    chain = empty_chain(np.arange(300.0, 900.0, 10.0))
    rng = np.random.default_rng(4)
    model = DEFAULT_MODEL._replace(quiet_wings=1.0, activity_noise=0.5)
    for _ in range(5):
        assert quote(chain, rng, model=model).all()


def test_nobody_bids_for_what_is_nearly_worthless() -> None:
    model = CALM_QUOTES._replace(worthless_ticks=2.0, worthless_ask_ticks=10.0)
    chain = empty_chain(np.arange(450.0, 590.0, 2.5))
    quote(chain, np.random.default_rng(2), model=model, tick_class=TickClass.STANDARD)
    puts = chain.right < 0
    bid, ask = chain.bid[puts], chain.ask[puts]
    unbid = bid == 0.0
    assert 0.2 < unbid.mean() < 0.9
    assert np.all(ask[unbid] >= 0.50)
    assert np.all(ask[unbid] <= 0.60)
    assert np.all(bid[~unbid] >= 0.05)


def test_spread_scale_widens_quotes_in_proportion() -> None:
    def median_spread_at(scale: float) -> float:
        chain = empty_chain(np.linspace(560.0, 640.0, 400))
        model = CALM_QUOTES._replace(spread_scale=scale)
        quote(chain, np.random.default_rng(2), model=model, tick_class=TickClass.STANDARD)
        return float(np.median(chain.ask - chain.bid))

    assert median_spread_at(2.0) == pytest.approx(2.0 * median_spread_at(1.0), rel=0.1)


def test_generator_moves_on_alike_whatever_the_chain() -> None:
    small, large = np.random.default_rng(8), np.random.default_rng(8)
    quote(empty_chain(np.array([600.0])), small)
    quote(empty_chain(np.arange(300.0, 900.0, 1.0)), large, requote_prob=0.1)
    assert small.random() == large.random()


def test_quote_depends_on_its_own_past_alone() -> None:
    strikes = np.arange(560.0, 641.0, 5.0)
    one, other = empty_chain(strikes), empty_chain(strikes)
    rngs = np.random.default_rng(6), np.random.default_rng(6)
    for chain, rng in zip((one, other), rngs, strict=True):
        quote(chain, rng)
    other.quote_ns[10:] = 0
    for chain, rng in zip((one, other), rngs, strict=True):
        quote(chain, rng, now_ns=NOW_NS + 10**9, requote_prob=0.3)
    for column_of_one, column_of_other in zip(one[3:], other[3:], strict=True):
        assert np.array_equal(column_of_one[:10], column_of_other[:10])
