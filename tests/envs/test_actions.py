"""The catalogue and the menu: what may be ordered, with which legs and how much of it."""

import numpy as np
import pytest

from tests.envs.scene import NOW_NS, SESSION_CLOSE_NS, flat, funds, menu_for, priced_chain
from trading.envs.actions import (
    ACTION_COUNT,
    ACTIONS,
    CLOSE,
    HOLD,
    MAX_LEGS,
    Position,
    Strategy,
)
from trading.envs.defaults import DEFAULT_RULES


def opening(strategy: Strategy) -> list[int]:
    return [a for a, action in enumerate(ACTIONS) if action.strategy is strategy]


def test_the_catalogue_starts_with_hold_and_close_and_names_are_unique() -> None:
    assert ACTIONS[HOLD].strategy is Strategy.HOLD
    assert ACTIONS[CLOSE].strategy is Strategy.CLOSE
    assert len({action.name for action in ACTIONS}) == ACTION_COUNT


def test_a_fresh_chain_allows_every_opening_and_no_close() -> None:
    menu = menu_for(priced_chain())
    assert menu.mask[HOLD] and not menu.mask[CLOSE]
    assert menu.mask[2:].all()
    assert (menu.units[menu.mask][1:] >= 1).all()


@pytest.mark.parametrize("strategy", [Strategy.BULL_CALL_DEBIT, Strategy.BEAR_CALL_CREDIT])
def test_the_second_leg_of_a_call_vertical_is_further_out_of_the_money(strategy: Strategy) -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(strategy):
        first, second = menu.legs[a, :2]
        assert chain.columns.strike[second] > chain.columns.strike[first]
        assert chain.columns.expiry_ns[second] == chain.columns.expiry_ns[first]


def test_a_straddle_buys_call_and_put_of_one_strike() -> None:
    chain = priced_chain()
    menu = menu_for(chain)
    for a in opening(Strategy.LONG_STRADDLE):
        call, put = menu.legs[a, :2]
        assert chain.columns.strike[call] == chain.columns.strike[put]
        assert (chain.columns.right[call], chain.columns.right[put]) == (1, -1)


def test_no_order_risks_more_than_the_risk_fraction_or_the_buying_power() -> None:
    chain = priced_chain()
    for cash in (100_000.0, 3_000.0, 400.0):
        menu = menu_for(chain, funds=funds(cash=cash))
        for a in np.flatnonzero(menu.mask):
            if a <= CLOSE:
                continue
            debit = worst = 0.0
            for leg in range(MAX_LEGS):
                i = menu.legs[a, leg]
                if i < 0:
                    continue
                ratio = menu.ratio[a, leg]
                debit += ratio * (chain.columns.ask[i] if ratio > 0 else chain.columns.bid[i])
            if debit < 0.0:
                strikes = chain.columns.strike[menu.legs[a, :2]]
                worst = abs(strikes[1] - strikes[0])
            risk = (debit + worst) * 100.0 * menu.units[a]
            assert 0.0 < risk <= min(cash, DEFAULT_RULES.risk_fraction * cash) + 1e-6


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
    first = menu_for(chain)
    a = opening(Strategy.BULL_CALL_DEBIT)[0]
    units = 2 * int(chain.columns.bid_size[0])
    held = Position(first.legs[a].copy(), first.ratio[a].copy(), units, -100.0, NOW_NS)
    menu = menu_for(chain, position=held)
    assert list(np.flatnonzero(menu.mask)) == [HOLD, CLOSE]
    assert menu.units[CLOSE] == chain.columns.bid_size[0]
    assert (menu.ratio[CLOSE] == -held.ratio).all()


def test_reducing_allows_only_closing_and_a_halt_only_holding() -> None:
    chain = priced_chain()
    a = opening(Strategy.LONG_CALL)[0]
    first = menu_for(chain)
    held = Position(first.legs[a].copy(), first.ratio[a].copy(), 1, -100.0, NOW_NS)
    assert menu_for(chain, may_open=False).mask.sum() == 1
    assert menu_for(chain, position=held, may_open=False).mask[CLOSE]
    assert menu_for(chain, position=held, may_open=False, may_close=False).mask.sum() == 1


def test_nothing_is_opened_just_before_the_close() -> None:
    chain = priced_chain()
    close_ns = NOW_NS + DEFAULT_RULES.no_open_ns
    assert menu_for(chain, session_close_ns=close_ns).mask.sum() == 1
    assert menu_for(chain, session_close_ns=SESSION_CLOSE_NS).mask.sum() > 1


def test_the_position_limit_masks_every_opening() -> None:
    full = funds(open_positions=DEFAULT_RULES.max_positions)
    assert menu_for(priced_chain(), funds=full, position=flat()).mask.sum() == 1
