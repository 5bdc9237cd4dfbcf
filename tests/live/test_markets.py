"""Which contracts are subscribed to when not all of them may be."""

from datetime import date

import pytest

from trading.errors import DataError
from trading.live.markets import nearest_the_money
from trading.market.contracts import OptionContract, Right

TODAY = date(2026, 1, 5)
CONTRACTS = [
    OptionContract("XYZ", expiry, right, strike * 1000)
    for expiry in (date(2026, 1, 9), date(2026, 2, 6), date(2027, 1, 15))
    for strike in range(50, 151, 5)
    for right in Right
]


def test_all_are_taken_while_they_fit() -> None:
    assert nearest_the_money(CONTRACTS, float("nan"), TODAY, len(CONTRACTS)) == CONTRACTS


def test_tradable_expiries_near_the_money_come_first() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 20)
    assert len(chosen) == 20
    assert {contract.expiry for contract in chosen} == {date(2026, 1, 9), date(2026, 2, 6)}
    near = [contract.strike for contract in chosen if contract.expiry == date(2026, 1, 9)]
    far = [contract.strike for contract in chosen if contract.expiry == date(2026, 2, 6)]
    assert max(abs(strike - 100.0) for strike in near) < max(abs(strike - 100.0) for strike in far)


def test_both_rights_of_a_strike_are_chosen_together() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 10)
    rights = {}
    for contract in chosen:
        rights.setdefault((contract.expiry, contract.strike), set()).add(contract.right)
    assert all(len(pair) == 2 for pair in rights.values())


def test_a_choice_without_a_price_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"data\.max_quote_contracts"):
        nearest_the_money(CONTRACTS, float("nan"), TODAY, 10)
