"""Roots of options and the underlyings that they are on."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.errors import DataError
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import Chain
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.products import (
    INDEX_ROOTS,
    data_ticker,
    is_index,
    is_root_of,
    main_root,
    option_prefixes,
    product_of,
    products_table,
    roots_of,
    underlying_named,
    underlying_of,
)

CALENDAR = ExchangeCalendar()
FEBRUARY = date(2026, 2, 6)


@pytest.mark.parametrize(
    ("underlying", "roots"),
    [
        ("GOOG", ("GOOG",)),
        ("BRK.B", ("BRKB",)),
        ("BRK/B", ("BRKB",)),
        ("BF.B", ("BFB",)),
        ("SPX", ("SPX", "SPXW")),
        ("I:SPX", ("SPX", "SPXW")),
        ("NDX", ("NDX", "NDXP")),
        ("RUT", ("RUT", "RUTW")),
        ("XSP", ("XSP",)),
    ],
)
def test_roots_of_an_underlying(underlying: str, roots: tuple[str, ...]) -> None:
    assert roots_of(underlying) == roots
    assert all(is_root_of(root, underlying) for root in roots)


@pytest.mark.parametrize(
    ("root", "underlying"),
    [
        ("GOOG1", "GOOG"),
        ("BRKB1", "BRK.B"),
        ("BRK.B", "BRK.B"),
        ("BRKB", "BRKB"),
        ("SPXW", "SPXW"),
    ],
)
def test_other_roots_of_an_underlying(root: str, underlying: str) -> None:
    assert is_root_of(root, underlying)


@pytest.mark.parametrize(
    ("root", "underlying"),
    [("SPY", "SPX"), ("GOOGL", "GOOG"), ("BRKA", "BRK.B"), ("SPX", "SPY"), ("XSP", "SPX")],
)
def test_roots_of_another_underlying(root: str, underlying: str) -> None:
    assert not is_root_of(root, underlying)


@pytest.mark.parametrize("root", ["SPXW", "XSP", "NDXP", "RUTW", "MRUT", "XEO"])
def test_cash_settled_european_options_that_settle_at_the_close_are_opened(root: str) -> None:
    product = product_of(root)
    assert product.cash_settled and product.european and not product.refusal
    assert is_index(underlying_of(root))


@pytest.mark.parametrize("root", ["SPX", "NDX", "RUT", "DJX", "VIX", "VIXW", "OEX"])
def test_options_that_settle_at_the_opening_or_may_be_exercised_for_cash_are_not(root: str) -> None:
    assert product_of(root).refusal
    assert parse_symbol(f"O:{root}260116C00500000").refusal


def test_an_adjusted_option_trades_as_long_as_the_standard_one() -> None:
    assert product_of("SPY1") is product_of("SPY")
    assert OptionContract("SPY1", FEBRUARY, Right.CALL, 1000).refusal


def test_the_vendors_tickers() -> None:
    assert data_ticker("SPX") == "I:SPX" and data_ticker("SPXW") == "I:SPX"
    assert data_ticker("BRK.B") == "BRK.B"
    assert underlying_named("I:SPX") == "SPX" and underlying_named("BRK/B") == "BRK.B"
    assert main_root("SPX") == "SPXW" and main_root("VIX") == "VIX"
    assert "O:BRKB" in option_prefixes(["BRK.B"]) and "O:SPXW" in option_prefixes(["SPX"])


def test_the_table_names_every_root_once() -> None:
    rows = products_table().splitlines()[2:]
    for index, roots in INDEX_ROOTS.items():
        for root in roots:
            (row,) = (row for row in rows if row.startswith(f"| {index} | {root} |"))
            assert ("no: " in row) is bool(product_of(root).refusal)


def chain_of(underlying: str, *contracts: OptionContract, held: tuple[str, ...] = ()) -> Chain:
    times = [CALENDAR.expiry_ns(each.expiry) for each in contracts]
    return Chain(underlying, contracts, times, held)


def both(root: str, expiry: date = FEBRUARY, strike: int = 100_000) -> list[OptionContract]:
    return [OptionContract(root, expiry, right, strike) for right in Right]


def test_each_root_of_an_index_is_an_expiry_of_its_own_and_only_one_is_opened() -> None:
    chain = chain_of("SPX", *both("SPX"), *both("SPXW"))
    assert [each.root for each in chain.contracts] == ["SPXW", "SPXW", "SPX", "SPX"]
    assert chain.columns.pair.tolist() == [1, 0, 3, 2]
    quote(chain, 0, 2.0)
    now_ns = CALENDAR.expiry_ns(FEBRUARY) - 10 * 86_400_000_000_000
    chain.refresh(now_ns, 0.04, 90_000_000_000)
    assert np.isfinite(chain.columns.iv[:2]).all() and np.isnan(chain.columns.iv[2:]).all()
    assert np.isfinite(chain.columns.delta).all()


def quote(chain: Chain, first: int, mid: float) -> None:
    now_ns = CALENDAR.expiry_ns(FEBRUARY) - 10 * 86_400_000_000_000
    columns = chain.columns
    columns.bid[first:], columns.ask[first:] = mid - 0.05, mid + 0.05
    columns.bid_size[first:] = columns.ask_size[first:] = 10.0
    columns.quote_ns[first:] = now_ns
    chain.last_price = 100.0


def test_an_adjusted_contract_is_listed_only_where_it_is_held() -> None:
    adjusted = OptionContract("ACME1", FEBRUARY, Right.CALL, 100_000)
    with pytest.raises(DataError, match="only standard contracts"):
        chain_of("ACME", *both("ACME"), adjusted)
    chain = chain_of("ACME", *both("ACME"), adjusted, held=(adjusted.symbol,))
    assert chain.contracts[-1] == adjusted and chain.columns.pair.tolist() == [1, 0, -1]


def test_a_contract_on_another_underlying_is_refused() -> None:
    with pytest.raises(DataError, match="only standard contracts"):
        chain_of("ACME", *both("EMCA"))


GOOD_FRIDAY = date(2026, 4, 3)


def test_two_expiry_dates_that_stop_at_one_instant_are_two_expiries() -> None:
    thursday = date(2026, 4, 2)
    assert CALENDAR.expiry_ns(GOOD_FRIDAY) == CALENDAR.expiry_ns(thursday)
    chain = chain_of("ACME", *both("ACME", thursday), *both("ACME", GOOD_FRIDAY))
    assert chain.columns.group_start.tolist() == [0, 2, 4]
    assert chain.columns.pair.tolist() == [1, 0, 3, 2]
    columns = chain.columns
    now_ns = CALENDAR.expiry_ns(thursday) - 86_400_000_000_000
    columns.quote_ns[:] = now_ns
    for i, mid in enumerate((3.0, 2.0, 5.0, 2.0)):
        columns.bid[i], columns.ask[i] = mid - 0.05, mid + 0.05
    chain.refresh(now_ns, 0.0, 90_000_000_000)
    assert columns.forward.tolist() == pytest.approx([101.0, 103.0])


@settings(deadline=None)
@given(
    days=st.lists(st.sampled_from([date(2026, 4, 1), date(2026, 4, 2), GOOD_FRIDAY]), min_size=1),
    roots=st.lists(st.sampled_from(["SPX", "SPXW"]), min_size=1),
    strikes=st.lists(st.integers(1, 6), min_size=1),
)
def test_a_pair_has_one_strike_one_date_and_one_root(
    days: list[date], roots: list[str], strikes: list[int]
) -> None:
    contracts = {
        OptionContract(root, day, right, 1000 * strike)
        for day in days
        for root in roots
        for strike in strikes
        for right in Right
    }
    chain = chain_of("SPX", *contracts)
    groups = np.searchsorted(chain.columns.group_start, np.arange(len(chain)), side="right")
    keys = [(each.refusal, each.expiry, each.root) for each in chain.contracts]
    for i, j in enumerate(chain.columns.pair.tolist()):
        one, other = chain.contracts[i], chain.contracts[j]
        assert (one.root, one.expiry, one.strike_milli) == (
            other.root,
            other.expiry,
            other.strike_milli,
        )
        assert one.right is not other.right
        assert [keys[k] for k in range(len(keys)) if groups[k] == groups[i]].count(keys[i]) == sum(
            key == keys[i] for key in keys
        )
    assert len(set(zip(groups.tolist(), keys, strict=True))) == len(set(keys))


def test_a_forward_that_cannot_be_read_grows_from_the_spot_as_the_last_one_did() -> None:
    """A dividend of 3 USD before the expiry stays in the forward while its pairs are stale."""
    expiry = date(2026, 4, 2)
    chain = chain_of("ACME", *both("ACME", expiry))
    columns, age_ns = chain.columns, 90_000_000_000
    now_ns = CALENDAR.expiry_ns(expiry) - 40 * 86_400_000_000_000
    columns.quote_ns[:] = now_ns
    for i, mid in enumerate((2.0, 5.0)):
        columns.bid[i], columns.ask[i] = mid - 0.05, mid + 0.05
    chain.last_price = 100.0
    chain.refresh(now_ns, 0.0, age_ns)
    assert columns.forward[0] == pytest.approx(97.0)
    chain.last_price = 110.0
    chain.refresh(now_ns + 2 * age_ns, 0.0, age_ns)
    assert columns.forward[0] == pytest.approx(110.0 * 0.97, rel=1e-4)
    listed_again = chain_of("ACME", *both("ACME", date(2026, 2, 6)), *both("ACME", expiry))
    listed_again.adopt_quotes(chain)
    listed_again.refresh(now_ns + 2 * age_ns, 0.0, age_ns)
    assert listed_again.columns.forward[1] == pytest.approx(110.0 * 0.97, rel=1e-4)
    assert chain_of("ACME", *both("ACME", expiry)).carry.tolist() == pytest.approx(
        [np.nan], nan_ok=True
    )
