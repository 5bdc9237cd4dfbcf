"""Structures of a user's own: chosen, priced, limited and booked as the catalogue's are."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.envs.fortnight import CALENDAR, for_each, in_batch, live, recorded_sessions
from tests.envs.scene import EXPIRIES, NOW_NS, SPOT, Menu, menu_for, priced_chain
from tests.envs.shapes import STRUCTURES
from tests.execution.ledger import Ledger, exact
from trading.data.recorded_session import RecordedSession
from trading.envs.action_tables import action_tables
from trading.envs.by_name import feature_index
from trading.envs.catalogue import ACTION_COUNT, ACTIONS, CLOSE, HOLD, action_count, action_names
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import write_history
from trading.envs.rules import STOCK_LEG, TradingRules
from trading.envs.structures import Structure, StructureLeg, all_actions, structure_of
from trading.envs.vector_env import HistoricalOptionsVectorEnv, SimulatedOptionsVectorEnv
from trading.execution.broker import PaperBroker
from trading.execution.journal import Journal
from trading.execution.margin.reg_t import defined_risk_margin
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView
from trading.market.chain import Chain, ChainColumns

LIZARD = structure_of(
    "jade_lizard",
    [
        StructureLeg("put", -1, delta=0.20),
        StructureLeg("call", -1, delta=0.30),
        StructureLeg("call", 1, width=2, of=1),
    ],
    ["near", "far"],
)
BROKEN_WING = structure_of(
    "broken_wing",
    [
        StructureLeg("put", -2, delta=0.35),
        StructureLeg("put", 1, width=-1.0, of=0),
        StructureLeg("put", 1, width=3.0, of=0),
    ],
    ["far"],
)
COLLAR = structure_of(
    "collar",
    [
        StructureLeg("stock", 1),
        StructureLeg("put", 1, delta=0.25),
        StructureLeg("call", -1, delta=0.22, beyond=1),
    ],
    ["near"],
)
DIAGONAL = structure_of(
    "diagonal",
    [
        StructureLeg("call", 1, delta=0.60, expiry="far"),
        StructureLeg("call", -1, delta=0.25, beyond=0, expiry="near"),
    ],
    None,
)
CALENDAR_SPREAD = structure_of(
    "calendar",
    [
        StructureLeg("put", -1, delta=0.40, expiry="near"),
        StructureLeg("put", 1, at=0, expiry="far"),
    ],
    None,
)
OWN = (LIZARD, BROKEN_WING, COLLAR, DIAGONAL, CALENDAR_SPREAD)


def by(*structures: Structure, **changed: object) -> TradingRules:
    return DEFAULT_RULES._replace(structures=structures, **changed)


def strikes(chain: Chain, menu: Menu, a: int) -> list[float]:
    return [float(chain.columns.strike[i]) for i in menu.legs(a) if i != STOCK_LEG]


def test_their_actions_stand_behind_the_catalogue_whose_numbers_stay() -> None:
    actions = all_actions(OWN)
    assert actions[:ACTION_COUNT] == ACTIONS == all_actions(())
    assert [each.name for each in actions[ACTION_COUNT:]] == [
        "jade_lizard_near", "jade_lizard_far", "broken_wing_far", "collar_near",
        "diagonal_near_far", "calendar_near_far",
    ]  # fmt: skip
    names = action_names(action_count(3, len(actions)), actions)
    assert (
        names[len(actions)] == "long_call_near_d30_1of3" and names[-1] == "calendar_near_far_2of3"
    )
    for own, usual in zip(action_tables(OWN), action_tables(), strict=True):
        assert own[: len(usual)].tobytes() == usual.tobytes()


def test_legs_are_the_ones_that_were_asked_for() -> None:
    chain = priced_chain()
    menu = menu_for(chain, rules=by(*OWN))
    lizard, far, wing, collar = range(ACTION_COUNT, ACTION_COUNT + 4)
    for a in (lizard, far):
        put, call, above = strikes(chain, menu, a)
        assert put < SPOT < call and above == call + 0.02 * SPOT
    body, upper, lower = strikes(chain, menu, wing)
    assert upper == body + 1.0 and lower == body - 3.0
    legs = menu.legs(collar)
    assert legs[0] == STOCK_LEG
    put, call = strikes(chain, menu, collar)
    assert put < SPOT < call
    for a, bucket in ((lizard, 0), (far, 1), (wing, 1), (collar, 0)):
        expiries = {chain.contracts[i].expiry for i in menu.legs(a) if i != STOCK_LEG}
        assert expiries == {EXPIRIES[bucket]}
    assert menu.mask[ACTION_COUNT:].all()


def test_legs_of_two_expiries_are_the_ones_that_were_asked_for() -> None:
    chain = priced_chain()
    menu, columns = menu_for(chain, rules=by(DIAGONAL, CALENDAR_SPREAD)), chain.columns
    bought, sold = menu.legs(ACTION_COUNT)
    assert [chain.contracts[i].expiry for i in (sold, bought)] == [*EXPIRIES]
    assert columns.strike[bought] < SPOT < columns.strike[sold]
    near, far = menu.legs(ACTION_COUNT + 1)
    assert [chain.contracts[i].expiry for i in (near, far)] == [*EXPIRIES]
    assert columns.strike[near] == columns.strike[far] and columns.right[near] == -1
    for a, legs in ((ACTION_COUNT, (bought, sold)), (ACTION_COUNT + 1, (far, near))):
        paid = 100.0 * (columns.ask[legs[0]] - columns.bid[legs[1]])
        assert menu.snapshots.unit_cost[0, a] == pytest.approx(paid, abs=3.0)
        held = menu_for(chain, position=menu.position(a, 1), rules=by(DIAGONAL, CALENDAR_SPREAD))
        days = held.observation[feature_index("position_days")] * 30.0
        assert days == pytest.approx((columns.expiry_ns[legs[1]] - NOW_NS) / 86_400e9, rel=1e-5)


def test_the_catalogue_is_what_it_was_beside_them() -> None:
    usual, menu = menu_for(priced_chain()), menu_for(priced_chain(), rules=by(*OWN))
    for name in ("legs", "most_units", "unit_cost", "unit_need"):
        column = getattr(menu.snapshots, name)[:, :ACTION_COUNT]
        assert column.tobytes() == getattr(usual.snapshots, name).tobytes()
    assert menu.snapshots.features.tobytes() == usual.snapshots.features.tobytes()
    assert (menu.mask[:ACTION_COUNT] == usual.mask).all()


def test_what_is_sold_without_a_bought_cover_is_sized_by_what_it_ties_up() -> None:
    chain = priced_chain()
    menu = menu_for(chain, rules=by(*OWN, max_contracts=100))
    for a in (ACTION_COUNT, ACTION_COUNT + 3):
        cost = menu.snapshots.unit_cost[0, a]
        assert 5_000.0 < cost < 11_000.0
        assert menu.units[a] == int(DEFAULT_RULES.secured_fraction * 100_000.0 // cost) >= 1


def test_a_contract_that_two_legs_would_be_masks_the_action() -> None:
    twice = structure_of(
        "twice",
        [StructureLeg("call", -1, delta=0.300), StructureLeg("call", 2, delta=0.301)],
        ["far"],
    )
    menu = menu_for(priced_chain(), rules=by(twice))
    assert not menu.legs(ACTION_COUNT) and not menu.mask[ACTION_COUNT]


def test_a_strike_that_is_not_listed_near_enough_masks_the_action() -> None:
    wide = structure_of(
        "wide",
        [StructureLeg("put", -1, delta=0.30), StructureLeg("put", 1, width=45.0, of=0)],
        ["far"],
    )
    assert not menu_for(priced_chain(), rules=by(wide)).mask[ACTION_COUNT]


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(STRUCTURES)
def test_whatever_is_defined_is_quoted_margined_and_within_the_limits(structure: Structure) -> None:
    """Margin is held against the broker's own, of the symbols that would be ordered."""
    chain = priced_chain()
    menu = menu_for(chain, rules=by(structure))
    columns = chain.columns
    for a in range(ACTION_COUNT, len(menu.mask)):
        if not menu.mask[a]:
            continue
        legs, ratios = menu.legs(a), menu.ratios[a].tolist()
        assert len(set(legs)) == len(legs) == len(structure.legs)
        debit, contracts, ordered = 0.0, 0, []
        for i, ratio in zip(legs, ratios, strict=False):
            if i == STOCK_LEG:
                debit += ratio * SPOT * 1.0001
                ordered.append(Leg("XYZ", ratio))
                continue
            assert 0.0 < columns.bid[i] < columns.ask[i]
            debit += ratio * (columns.ask[i] if ratio > 0 else columns.bid[i])
            contracts += abs(ratio)
            ordered.append(Leg(chain.symbols[i], ratio))
        least = least_payoff(columns, legs, ratios)
        held_back = defined_risk_margin(tuple(ordered), 100.0)
        assert held_back == pytest.approx(max(0.0, -least) * 100.0)
        cost, units = menu.snapshots.unit_cost[0, a], int(menu.units[a])
        assert cost >= debit * 100.0 + held_back - 1e-6
        assert cost == pytest.approx(debit * 100.0 + held_back, abs=3.0 + contracts)
        assert units * cost <= 100_000.0
        assert units * contracts <= DEFAULT_RULES.max_contracts
        if action_tables((structure,)).secured[a]:
            assert units * cost <= DEFAULT_RULES.secured_fraction * 100_000.0 + 1e-6
        else:
            risked = units * (debit - least) * 100.0
            assert 0.0 < risked <= DEFAULT_RULES.risk_fraction * 100_000.0


def least_payoff(columns: ChainColumns, legs: list[int], ratios: list[int]) -> float:
    """Least value of one unit at the first expiry, USD a share: nothing sold is without cover."""
    options = [i for i in legs if i != STOCK_LEG]
    worth = []
    for spot in (0.0, *(float(columns.strike[i]) for i in options), 1000.0):
        value = 0.0
        for i, ratio in zip(legs, ratios, strict=False):
            paid = spot
            if i != STOCK_LEG:
                paid = max(int(columns.right[i]) * (spot - float(columns.strike[i])), 0.0)
            value += ratio * paid
        worth.append(value)
    return min(worth)


RULES = DEFAULT_RULES._replace(
    initial_capital=400_000.0, max_daily_loss=0.5, max_quote_age_ns=3_600_000_000_000
)
SESSIONS = 7


@pytest.fixture(scope="module")
def told() -> list[RecordedSession]:
    return recorded_sessions(SESSIONS, 1, vol=0.45)


@contextmanager
def watched(rules: TradingRules) -> Iterator[list[Fill]]:
    """Fills, each held against the quotes and the buying power that it was made with."""
    submit, fills = PaperBroker.submit, list[Fill]()

    def watching(
        broker: PaperBroker, order: Order, quotes: dict[str, QuoteView], *rest: object
    ) -> object:
        result = submit(broker, order, quotes, *rest)  # type: ignore[arg-type]
        if isinstance(result, Fill):
            fills.append(result)
            for leg in order.legs:
                quote = quotes[leg.symbol]
                assert 0.0 < quote.bid < quote.ask, (order, quote)
                assert order.ts_ns - quote.ts_ns <= rules.max_quote_age_ns
                shown = quote.ask_size if leg.ratio > 0 else quote.bid_size
                assert shown >= abs(leg.ratio) * result.units
            if order.intent is Intent.OPEN:
                assert broker.account.buying_power >= -0.005
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaperBroker, "submit", watching)
        yield fills


def choosing(seed: int, structures: tuple[Structure, ...]) -> Callable[[np.ndarray], int]:
    """Opens what is of its own wherever it may, and closes now and then."""
    names = action_names(len(all_actions(structures)), all_actions(structures))
    rng = np.random.default_rng(seed)

    def choose(mask: np.ndarray) -> int:
        draws = rng.random(2)
        opening = [a for a in range(ACTION_COUNT, len(names)) if mask[a]]
        if mask[CLOSE] and draws[0] < 0.3:
            return CLOSE
        return opening[int(draws[1] * len(opening))] if opening else HOLD

    return choose


def lived_and_trained(told: list[RecordedSession], structures: tuple[Structure, ...]) -> int:
    """Fills of days that were lived, which are the same days in training to the last bit."""
    rules = RULES._replace(structures=structures)
    with tempfile.TemporaryDirectory() as name, watched(rules) as fills:
        folder = Path(name)
        write_history(folder / "history", told, rules, DEFAULT_FEES, CALENDAR, nights=True)
        days = [(each,) for each in told]
        lived = live(folder, days, rules, DEFAULT_FEES, for_each(choosing(3, structures)))
        env = HistoricalOptionsVectorEnv(
            1, rules, DEFAULT_FEES, folder / "history", sessions_per_episode=SESSIONS
        )
        again = in_batch(env, for_each(choosing(3, structures)))
        assert lived.actions == again.actions
        assert len(lived.seen) == len(again.seen)
        for one, other in zip(lived.seen, again.seen, strict=True):
            assert one == other
        explained(folder / "journal.sqlite")
    return len(fills)


def explained(path: Path) -> None:
    """Cash and positions are the fold of the journal, and what an independent ledger books."""
    with Journal(path, read_only=True) as journal:
        account, ledger = journal.fold(), Ledger(exact(RULES.initial_capital))
        for (payload,) in journal._connection.execute("SELECT payload FROM events ORDER BY seq"):
            ledger.book(json.loads(payload))
        assert account.cash == pytest.approx(float(ledger.cash), abs=1e-5)
        held = {
            symbol: each.quantity * (1 if symbol.startswith("O:") else 100)
            for symbol, each in account.positions.items()
        }
        assert held == ledger.holdings()


def test_days_lived_with_them_are_the_same_days_in_training(told: list[RecordedSession]) -> None:
    assert lived_and_trained(told, OWN) > 5


@pytest.mark.slow
@settings(deadline=None, max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
@given(STRUCTURES)
def test_whatever_is_defined_is_lived_as_it_is_trained_and_explained_by_the_journal(
    told: list[RecordedSession], structure: Structure
) -> None:
    lived_and_trained(told, (structure,))


def test_a_part_of_them_is_opened_as_a_part_of_any() -> None:
    env = SimulatedOptionsVectorEnv(16, by(*OWN, size_levels=2), DEFAULT_FEES, seed=3)
    seen, _ = env.reset()
    actions = all_actions(OWN)
    names = action_names(seen["action_mask"].shape[1], actions)
    part = names.index("broken_wing_far_1of2")
    may = seen["action_mask"][:, part]
    assert may.any() and env.single_action_space.n == action_count(2, len(actions))
    env.step(np.where(may, part, HOLD))
    held = env._accounts.holdings
    assert (held.ratio[may, :3] == [-2, 1, 1]).all() and (held.units[may] >= 1).all()
