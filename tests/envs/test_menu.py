"""The catalogue and the menu: what may be ordered, with which legs and how much of it."""

import numpy as np
import pytest

from tests.envs.scene import (
    NOW_NS,
    SESSION_CLOSE_NS,
    SPOT,
    Menu,
    balances_of,
    menu_for,
    priced_chain,
)
from trading.envs.action_tables import action_tables
from trading.envs.catalogue import ACTION_COUNT, ACTIONS, CLOSE, HOLD, Strategy
from trading.envs.defaults import DEFAULT_RULES
from trading.envs.rules import STOCK_LEG
from trading.execution.margin.formulas import worst_payoff
from trading.market.chain import Chain

OPENINGS = range(CLOSE + 1, ACTION_COUNT)
TABLES = action_tables()
RATIO = TABLES.ratio


def opening(strategy: Strategy) -> list[int]:
    return [a for a, action in enumerate(ACTIONS) if action.strategy is strategy]


def strikes(chain: Chain, menu: Menu, a: int) -> list[float]:
    return [float(chain.columns.strike[i]) for i in menu.legs(a) if i != STOCK_LEG]


def debit_and_loss(chain: Chain, menu: Menu, a: int) -> tuple[float, float]:
    """Net premium of one unit and its greatest loss before fees, USD."""
    columns, debit = chain.columns, 0.0
    right, strike = np.zeros(4, dtype=np.int8), np.zeros(4)
    legs = menu.legs(a)
    for k, i in enumerate(legs):
        ratio = RATIO[a, k]
        if i == STOCK_LEG:
            price = SPOT * (1.0001 if ratio > 0 else 0.9999)
        else:
            right[k], strike[k] = columns.right[i], columns.strike[i]
            price = columns.ask[i] if ratio > 0 else columns.bid[i]
        debit += ratio * price
    loss = debit - worst_payoff(right, strike, RATIO[a], len(legs))
    return debit * 100.0, max(0.0, loss) * 100.0


def test_the_catalogue_starts_with_hold_and_close_and_names_are_unique() -> None:
    assert ACTIONS[HOLD].strategy is Strategy.HOLD
    assert ACTIONS[CLOSE].strategy is Strategy.CLOSE
    assert len({action.name for action in ACTIONS}) == ACTION_COUNT
    assert {action.strategy for action in ACTIONS} == set(Strategy)


def test_a_fresh_chain_allows_every_opening_and_no_close() -> None:
    menu = menu_for(priced_chain())
    assert menu.mask[HOLD] and not menu.mask[CLOSE]
    assert [ACTIONS[a].name for a in OPENINGS if not menu.mask[a]] == []
    assert (menu.units[menu.mask][1:] >= 1).all()


@pytest.mark.parametrize("strategy", [Strategy.BULL_CALL_DEBIT, Strategy.BEAR_CALL_CREDIT])
def test_the_second_leg_of_a_call_vertical_is_further_out_of_the_money(strategy: Strategy) -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(strategy):
        first, second = menu.legs(a)
        assert chain.columns.strike[second] > chain.columns.strike[first]
        assert chain.columns.expiry_ns[second] == chain.columns.expiry_ns[first]


def test_a_straddle_buys_call_and_put_of_one_strike() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.LONG_STRADDLE):
        call, put = menu.legs(a)
        assert chain.columns.strike[call] == chain.columns.strike[put]
        assert (chain.columns.right[call], chain.columns.right[put]) == (1, -1)


def test_an_iron_condor_sells_inside_what_it_buys() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.IRON_CONDOR):
        sold_put, bought_put, sold_call, bought_call = strikes(chain, menu, a)
        assert bought_put < sold_put < SPOT < sold_call < bought_call
        debit, loss = debit_and_loss(chain, menu, a)
        width = max(sold_put - bought_put, bought_call - sold_call) * 100.0
        assert debit < 0.0
        assert loss == pytest.approx(width + debit)


def test_a_butterfly_buys_wings_equally_far_from_the_body_it_sells_twice() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.CALL_BUTTERFLY):
        body, upper, lower = strikes(chain, menu, a)
        assert upper - body == body - lower > 0.0
        assert list(RATIO[a, :3]) == [-2, 1, 1]
        debit, loss = debit_and_loss(chain, menu, a)
        assert 0.0 < debit == pytest.approx(loss)


def test_a_covered_call_buys_a_round_lot_for_every_call_it_sells() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.COVERED_CALL):
        call, stock = menu.legs(a)
        assert stock == STOCK_LEG and chain.columns.right[call] == 1
        assert list(RATIO[a, :2]) == [-1, 1]
        cost = menu.snapshots.unit_cost[0, a]
        assert SPOT * 95.0 < cost < SPOT * 100.0
        assert menu.units[a] * cost <= DEFAULT_RULES.secured_fraction * 100_000.0


def test_a_cash_secured_put_ties_up_its_strike() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.CASH_SECURED_PUT):
        (strike,) = strikes(chain, menu, a)
        debit, _ = debit_and_loss(chain, menu, a)
        assert menu.snapshots.unit_cost[0, a] == pytest.approx(100.0 * strike + debit, abs=2.0)
        assert menu.units[a] == int(75_000.0 // menu.snapshots.unit_cost[0, a])


def test_no_order_risks_more_than_the_risk_fraction_or_the_buying_power() -> None:
    chain = priced_chain()
    for cash in (100_000.0, 3_000.0, 400.0):
        menu = menu_for(chain, balances=balances_of(cash=cash))
        for a in OPENINGS:
            if not menu.mask[a]:
                continue
            _, loss = debit_and_loss(chain, menu, a)
            secured = TABLES.secured[a]
            share = DEFAULT_RULES.secured_fraction if secured else DEFAULT_RULES.risk_fraction
            assert 0.0 < loss * menu.units[a] <= share * cash + 1e-6
            assert menu.snapshots.unit_cost[0, a] * menu.units[a] <= cash


def test_a_greek_limit_bounds_the_units() -> None:
    chain = priced_chain()
    free = menu_for(chain)
    tight = menu_for(chain, rules=DEFAULT_RULES._replace(max_vega=0.0002))
    for a in opening(Strategy.LONG_STRADDLE):
        vega = sum(chain.columns.vega[i] for i in free.legs(a))
        assert tight.units[a] == int(0.0002 * 100_000.0 / vega) < free.units[a]


def test_stale_one_sided_and_crossed_quotes_allow_nothing_but_hold() -> None:
    for spoil in ("stale", "no bid", "crossed"):
        chain = priced_chain()
        if spoil == "stale":
            chain.columns.quote_ns[:] = NOW_NS - DEFAULT_RULES.max_quote_age_ns - 1
        elif spoil == "no bid":
            chain.columns.bid[:] = 0.0
        else:
            chain.columns.bid[:] = chain.columns.ask
        menu = menu_for(chain)
        assert menu.mask.sum() == 1, spoil


def test_an_open_position_may_be_closed_up_to_the_displayed_size_and_nothing_else_opened() -> None:
    chain = priced_chain()
    a = opening(Strategy.BULL_CALL_DEBIT)[0]
    units = 2 * int(chain.columns.bid_size[0])
    held = menu_for(chain).position(a, units)
    menu = menu_for(chain, position=held)
    assert list(np.flatnonzero(menu.mask)) == [HOLD, CLOSE]
    assert menu.units[CLOSE] == chain.columns.bid_size[0]


def test_reducing_allows_only_closing_and_a_halt_only_holding() -> None:
    chain = priced_chain()
    held = menu_for(chain).position(opening(Strategy.LONG_CALL)[0], 1)
    assert menu_for(chain, may_open=False).mask.sum() == 1
    assert menu_for(chain, position=held, may_open=False).mask[CLOSE]
    assert menu_for(chain, position=held, may_open=False, may_close=False).mask.sum() == 1


def test_nothing_is_opened_just_before_the_close() -> None:
    chain = priced_chain()
    close_ns = NOW_NS + DEFAULT_RULES.no_open_ns
    assert menu_for(chain, session_close_ns=close_ns).mask.sum() == 1
    assert menu_for(chain, session_close_ns=SESSION_CLOSE_NS).mask.sum() > 1


def test_the_position_limit_masks_every_opening() -> None:
    full = balances_of(open_positions=DEFAULT_RULES.max_positions)
    assert menu_for(priced_chain(), balances=full).mask.sum() == 1
