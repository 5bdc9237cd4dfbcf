"""Orders that work from mid to the touch: one rule for the batch of training and the broker."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.envs.desk import LISTING, SYMBOL, Desk, at, desk, session
from tests.envs.fortnight import CALENDAR, for_each, in_batch, live, recorded_sessions
from trading.config import load_settings
from trading.envs.catalogue import ACTIONS, CLOSE, HOLD, action_names
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURE_COUNT, ORDER_FEATURES
from trading.envs.history import write_history
from trading.envs.size_levels import of_full_size
from trading.envs.vector_env import HistoricalOptionsVectorEnv, SimulatedOptionsVectorEnv
from trading.envs.working_trades import cancel_orders
from trading.errors import ConfigError
from trading.execution.events import (
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRepriced,
    OwnerCommand,
    StateChanged,
)
from trading.execution.journal import Journal
from trading.execution.matching import FillStyle
from trading.execution.orders import Fill, Intent, QuoteView, Rejection, RejectReason
from trading.execution.owner import Command, execute_command
from trading.execution.states import TradingState
from trading.live.assembly import (
    check_before_trading,
    model_config,
    observation_size,
    trading_rules,
)
from trading.live.status import working_orders as told_working_orders

BATCH = 64
WORKING = DEFAULT_RULES._replace(fill_style=int(FillStyle.WORKING))
RULES = WORKING._replace(
    initial_capital=400_000.0, max_daily_loss=0.5, max_quote_age_ns=3_600_000_000_000
)
LONG_CALL = next(a for a, each in enumerate(ACTIONS) if each.name == "long_call_far_d50")
LONG_PUT = next(a for a, each in enumerate(ACTIONS) if each.name == "long_put_far_d50")


def restless(seed: int) -> Callable[[np.ndarray], int]:
    """Opens anything, holds often, closes and thinks better of it now and then."""
    rng = np.random.default_rng(seed)

    def choose(mask: np.ndarray) -> int:
        draws = rng.random(3)
        if mask[CLOSE] and draws[0] < 0.25:
            return CLOSE
        allowed = np.flatnonzero(mask[CLOSE + 1 :]) + CLOSE + 1
        if len(allowed) and draws[1] < 0.5:
            return int(allowed[int(draws[2] * len(allowed))])
        return HOLD

    return choose


def told_of(events: list[Event]) -> set[str]:
    """What became of orders in a journal."""
    found, waiting = set(), {}
    for event in events:
        if isinstance(event, OrderAccepted):
            if event.order.leg_limits:
                waiting[event.order.order_id] = (event.order.intent, 0)
                found.add(f"{event.order.intent} placed")
        elif isinstance(event, OrderRepriced):
            waiting[event.order_id] = (waiting[event.order_id][0], event.ts_ns)
            found.add(f"{waiting[event.order_id][0]} stepped")
        elif isinstance(event, OrderFilled) and event.fill.order_id in waiting:
            intent, stepped_ns = waiting[event.fill.order_id]
            where = "touch" if stepped_ns == event.ts_ns else "limit"
            found.add(f"{intent} at {where}")
        elif isinstance(event, OrderCancelled) and event.order_id in waiting:
            found.add(f"cancelled: {event.reason.split(' ')[-1]}")
        elif isinstance(event, StateChanged):
            found.add(f"trading is {event.trading_state}")
    return found


@pytest.mark.parametrize(("steps", "daily_loss"), [(1, 0.5), (3, 0.5), (4, 0.0005)])
def test_orders_of_a_fortnight_lived_are_the_same_in_training(
    tmp_path: Path, steps: int, daily_loss: float
) -> None:
    told = recorded_sessions(6, 7, vol=0.45)
    history = tmp_path / "history"
    slippage = 0.01 if steps > 1 else 0.0
    touch = RULES._replace(
        fill_style=int(FillStyle.TOUCH), slippage=slippage, max_daily_loss=daily_loss
    )
    write_history(history, told, touch, DEFAULT_FEES, CALENDAR, nights=True)
    found: set[str] = set()
    for seed in range(4):
        rules = RULES._replace(
            working_steps=steps,
            size_levels=1 + seed % 3,
            slippage=slippage,
            max_daily_loss=daily_loss,
        )
        folder = tmp_path / str(seed)
        folder.mkdir()
        days = list(zip(told))
        lived = live(folder, days, rules, DEFAULT_FEES, for_each(restless(seed)))
        env = HistoricalOptionsVectorEnv(1, rules, DEFAULT_FEES, history, sessions_per_episode=6)
        again = in_batch(env, for_each(restless(seed)))
        assert lived.actions == again.actions
        assert len(lived.seen) == len(again.seen)
        for one, other in zip(lived.seen, again.seen, strict=True):
            assert one == other
        found |= told_of(lived.events)
    expected = {"open placed", "close placed", "cancelled: expired"}
    if daily_loss < 0.5:
        expected |= {"trading is halted"}
    else:
        expected |= {"open at touch", "open at limit", "close at limit", "cancelled: place"}
        expected |= {"open stepped", "close stepped"} if steps > 1 else set()
    assert found >= expected, found


def stepped(env: SimulatedOptionsVectorEnv, actions: np.ndarray) -> dict[str, np.ndarray]:
    return env.step(actions)[0]


def test_an_order_begins_between_mid_and_touch_and_pays_no_more_than_the_touch() -> None:
    """What is paid at each fill, and that all is bought in time."""
    env = SimulatedOptionsVectorEnv(BATCH, WORKING, DEFAULT_FEES, seed=3)
    observation, _ = env.reset()
    accounts, orders = env._accounts, env._accounts.orders
    assert observation["observations"].shape == (BATCH, FEATURE_COUNT + len(ORDER_FEATURES))
    may = observation["action_mask"][:, LONG_CALL]
    quotes, snapshots, of = env._markets.quotes, env._markets.snapshots, env._markets.snapshot_of
    leg = snapshots.legs[of, LONG_CALL, 0]
    ask = quotes.ask[quotes.quote_offset[of] + leg].copy()
    mid = 0.5 * (quotes.bid[quotes.quote_offset[of] + leg] + ask)
    units = accounts.views.units[:, LONG_CALL].copy()
    seen = stepped(env, np.where(may, LONG_CALL, HOLD))
    waits = orders.action == LONG_CALL
    assert waits.sum() > BATCH // 4
    assert not accounts.holdings.units[waits].any()
    assert (orders.limits[waits, 0] >= mid[waits] - 1e-9).all()
    assert (orders.limits[waits, 0] < ask[waits]).all()
    assert (accounts.balances.margin_used[waits] > 100.0 * orders.limits[waits, 0]).all()
    tail = seen["observations"][:, FEATURE_COUNT:]
    assert (tail[waits] == [1.0, 0.0, 0.0]).all() and not tail[~waits].any()
    assert seen["action_mask"][waits][:, [HOLD, CLOSE]].all()
    for k in range(WORKING.working_steps):
        seen = stepped(env, np.zeros(BATCH, np.int64))
        tail = seen["observations"][:, FEATURE_COUNT:]
        still = orders.action == LONG_CALL
        moved = still & (orders.step == k + 1)
        assert (tail[moved, 2] == np.float32((k + 1) / WORKING.working_steps)).all()
    # Some are not quoted for a while: then they neither move nor trade.
    done = waits & (orders.action == HOLD)
    assert done.sum() > 0.5 * waits.sum()
    assert (accounts.holdings.units[done] <= units[done]).all()
    assert (accounts.holdings.units[done] > 0).all()
    net = accounts.balances.cash
    paid = accounts.last_price[done, 0] * 100.0 * accounts.holdings.units[done]
    fees = accounts.fees[done]
    assert np.allclose(net[done], WORKING.initial_capital - paid - fees, atol=1e-6)


def test_hold_and_the_same_action_keep_an_order_another_replaces_it_and_close_cancels_it() -> None:
    rules = WORKING._replace(size_levels=2, working_steps=50)
    env = SimulatedOptionsVectorEnv(BATCH, rules, DEFAULT_FEES, seed=5)
    observation, _ = env.reset()
    orders, balances = env._accounts.orders, env._accounts.balances
    seen = stepped(env, np.where(observation["action_mask"][:, LONG_CALL], LONG_CALL, HOLD))
    names = action_names(observation["action_mask"].shape[1])
    half = names.index("long_call_far_d50_1of2")
    assert of_full_size(half, len(ACTIONS)) == LONG_CALL
    waits = orders.action == LONG_CALL
    assert waits.any()
    units = orders.units.copy()
    seen = stepped(env, np.where(waits & seen["action_mask"][:, half], half, HOLD))
    kept = waits & (orders.action == LONG_CALL)
    assert kept.any() and (orders.step[kept] <= 1).all() and (orders.step[kept] == 1).any()
    assert (orders.units[kept] == units[kept]).all()

    may = kept & seen["action_mask"][:, LONG_PUT]
    seen = stepped(env, np.where(may, LONG_PUT, HOLD))
    replaced = may & (orders.action == LONG_PUT)
    assert replaced.any() and (orders.step[replaced] == 0).all()
    assert (balances.open_positions[replaced] == 1).all()

    stepped(env, np.where(replaced, CLOSE, HOLD))
    gone = replaced & (env._accounts.holdings.units == 0)
    assert gone.any() and (orders.action[gone] == HOLD).all()
    assert not balances.margin_used[gone].any() and not balances.open_positions[gone].any()
    assert (balances.cash[gone] == rules.initial_capital).all()


@pytest.mark.parametrize("seed", range(4))
def test_no_order_goes_beyond_the_margin_and_none_outlives_its_session(seed: int) -> None:
    rules = WORKING._replace(working_steps=3)
    env = SimulatedOptionsVectorEnv(BATCH, rules, DEFAULT_FEES, seed=seed, sessions_per_episode=2)
    observation, _ = env.reset()
    rng, accounts = np.random.default_rng(seed), env._accounts
    orders, balances = accounts.orders, accounts.balances
    worked = 0
    for _ in range(800):
        mask = observation["action_mask"]
        actions = (rng.random(mask.shape) * mask).argmax(axis=1)
        observation, _, _, _, _ = env.step(actions)
        power = balances.cash - balances.margin_used
        assert (power >= -1e-6).all()
        waits = orders.action != HOLD
        worked += int(waits.sum())
        held = accounts.margin_per_unit * accounts.holdings.units
        assert np.allclose(balances.margin_used, held + orders.held * orders.units * waits)
        assert (orders.step[waits] < rules.working_steps).all()
        assert (balances.order_opens == (orders.action > CLOSE)).all()
        assert (
            (accounts.holdings.units > 0) | balances.order_opens == balances.open_positions
        ).all()
        assert not (accounts.holdings.units[orders.action == CLOSE] == 0).any()
    assert worked > 1_000
    cancel_orders(accounts, np.arange(BATCH))
    assert not orders.held.any() and not balances.order_opens.any()


def test_a_limit_of_losses_cancels_what_it_forbids() -> None:
    rules = WORKING._replace(working_steps=50)
    env = SimulatedOptionsVectorEnv(BATCH, rules, DEFAULT_FEES, seed=5)
    observation, _ = env.reset()
    accounts, orders = env._accounts, env._accounts.orders
    stepped(env, np.where(observation["action_mask"][:, LONG_CALL], LONG_CALL, HOLD))
    waits = orders.action == LONG_CALL
    halted, reduced, free = (np.arange(BATCH) % 3 == k for k in range(3))
    accounts.day_start[halted] = accounts.peak[reduced] = 1e9
    stepped(env, np.zeros(BATCH, np.int64))
    empty = waits & (accounts.holdings.units == 0)
    assert accounts.halted[halted].all() and accounts.reduced[reduced].all()
    for which in (empty & halted, empty & reduced):
        assert which.any() and (orders.action[which] == HOLD).all()
        assert not accounts.balances.margin_used[which].any()
    assert (orders.action[empty & free] == LONG_CALL).any()


def begun(told: Desk, action: int = LONG_CALL) -> str:
    """A minute of quotes four cents wide, and the order of an action, which then works."""
    told.minute(30, 100.0)
    (done,) = told.env.trade(at(30), [action])
    assert done.result is None and not done.masked
    (order_id,) = told.broker.account.working_orders
    return order_id


def next_bar(told: Desk, minute: float, action: int = HOLD, chain: bool = True) -> Fill | None:
    told.minute(minute, 100.0, chain)
    (done,) = told.env.trade(at(minute), [action])
    assert not isinstance(done.result, Rejection)
    return done.result


def limit_of(told: Desk) -> float:
    (waiting,) = told.broker.account.working_orders.values()
    assert waiting.order.limit_price is not None
    return waiting.order.limit_price


def the_leg(told: Desk) -> tuple[str, QuoteView]:
    (waiting,) = told.broker.account.working_orders.values()
    symbol = waiting.order.legs[0].symbol
    return symbol, told.held_against(symbol)


def test_an_order_goes_cent_by_cent_to_the_touch_and_trades_there(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING._replace(working_steps=2)) as told:
        begun(told)
        _, view = the_leg(told)
        assert limit_of(told) == pytest.approx(view.ask - 0.02)
        held = told.broker.account.margin_used
        assert held >= 100.0 * limit_of(told)
        assert next_bar(told, 31) is None
        _, view = the_leg(told)
        assert limit_of(told) == pytest.approx(view.ask - 0.01)
        fill = next_bar(told, 32)
        assert fill is not None and not told.broker.account.working_orders
        touch = told.held_against(fill.legs[0].symbol).ask
        assert fill.legs[0].price == pytest.approx(touch)
        assert told.broker.account.buying_power >= 0.0


def test_a_market_that_comes_to_the_limit_trades_at_it_though_it_goes_further(
    tmp_path: Path,
) -> None:
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
        symbol, view = the_leg(told)
        limit = limit_of(told)
        told.minute(31, 100.0)
        told.quote(round(limit - 0.30, 2), round(limit - 0.10, 2), 31, symbol)
        (done,) = told.env.trade(at(31), [CLOSE])
        assert isinstance(done.result, Fill) and done.result.order_id == order_id
        assert done.ordered == LONG_CALL
        assert done.result.legs[0].price == limit < view.ask
        assert SYMBOL in told.broker.account.strategies


def test_an_order_that_is_beyond_the_buying_power_at_its_limit_ends_and_the_action_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in training: the action does not go on with what the order leaves."""
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
        symbol, limit, account = the_leg(told)[0], limit_of(told), told.broker.account
        told.minute(31, 100.0)
        told.quote(round(limit - 0.30, 2), round(limit - 0.10, 2), 31, symbol)
        # Only of orders that wait: a new one would be accepted.
        monkeypatch.setattr("trading.execution.broker.is_affordable", lambda *_: False)
        (done,) = told.env.trade(at(31), [LONG_CALL])
        assert (done.result, done.ordered, done.waits) == (None, None, "")
        assert not account.working_orders and not account.positions
        ended = [each for each in told.journal.events() if isinstance(each, OrderCancelled)]
        assert [(each.order_id, each.reason) for each in ended] == [
            (order_id, RejectReason.BUYING_POWER)
        ]


def test_training_too_frees_all_that_an_order_held_for_the_part_of_it_that_trades() -> None:
    env = SimulatedOptionsVectorEnv(BATCH, WORKING, DEFAULT_FEES, seed=3)
    observation, _ = env.reset()
    accounts, orders = env._accounts, env._accounts.orders
    stepped(env, np.where(observation["action_mask"][:, LONG_CALL], LONG_CALL, HOLD))
    quotes, of = env._markets.quotes, env._markets.snapshot_of
    at_leg = quotes.quote_offset[of] + orders.legs[:, 0]
    comes = (orders.action == LONG_CALL) & (orders.units > 2) & (orders.limits[:, 0] > 1.0)
    assert comes.any()
    leg = at_leg[comes]
    quotes.ask[leg], quotes.bid[leg] = orders.limits[comes, 0], orders.limits[comes, 0] - 0.1
    quotes.ask_size[leg] = 2.0
    accounts.balances.cash[comes] = accounts.balances.margin_used[comes] - 1.0
    units = accounts.holdings.units
    stepped(env, np.zeros(BATCH, np.int64))
    assert (units[comes] == 2).all() and (orders.action[comes] == HOLD).all()


@pytest.mark.parametrize(
    "shown",
    [(1.0, 1.0), (1.1, 1.0), (0.0, 1.0), (1.0, 0.0)],
    ids=["locked", "crossed", "no bid", "no ask"],
)
def test_an_order_neither_trades_nor_moves_on_a_quote_that_is_none(
    tmp_path: Path, shown: tuple[float, float]
) -> None:
    with desk(tmp_path, WORKING._replace(working_steps=1)) as told:
        begun(told)
        symbol, limit = the_leg(told)[0], limit_of(told)
        told.chain(31, 100.0, without=[symbol])
        told.stock(31, 100.0)
        market, i = told.env._contracts[symbol]
        columns = market.chain.columns
        columns.bid[i], columns.ask[i] = shown
        columns.quote_ns[i] = at(31)
        told.close_bar(31)
        (done,) = told.env.trade(at(31), [HOLD])
        assert done.result is None
        assert limit_of(told) == limit and not told.broker.account.positions
        assert next_bar(told, 32) is not None


def test_a_process_that_is_killed_neither_loses_nor_repeats_an_order(tmp_path: Path) -> None:
    """At each step the file is what a killed process leaves."""
    rules = WORKING._replace(working_steps=3)
    with desk(tmp_path, rules) as told:
        order_id = begun(told)
        before = told.broker.account.fingerprint()
    steps = []
    for minute in (31, 32, 33, 34):
        with desk(tmp_path, rules) as told:
            assert told.broker.account.fingerprint() == before
            steps.append([each.step for each in told.broker.account.working_orders.values()])
            next_bar(told, minute)
            before = told.broker.account.fingerprint()
    assert steps[:2] == [[0], [1]] and steps[-1] == []
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        events = list(journal.events())
    fills = [each.fill.order_id for each in events if isinstance(each, OrderFilled)]
    accepted = [each for each in events if isinstance(each, OrderAccepted)]
    assert fills == [order_id] and len(accepted) == 1


def test_the_legs_of_an_order_stay_listed_where_the_nearest_contracts_are_others(
    tmp_path: Path,
) -> None:
    """After a restart at another price a feed of few contracts leaves the legs out."""
    with desk(tmp_path, WORKING._replace(working_steps=50)) as told:
        order_id = begun(told)
        symbol, _ = the_leg(told)
        assert told.env.needed_symbols(SYMBOL) == [symbol] and not told.env.held_symbols(SYMBOL)
    with desk(tmp_path, WORKING._replace(working_steps=50)) as told:
        others = [each for each in LISTING if each.symbol != symbol]
        told.env.list_contracts(SYMBOL, others)
        assert symbol in told.env.listed_symbols(SYMBOL)
        next_bar(told, 31)
        assert np.isfinite(told.env._order_greeks()).all()
        (waiting,) = told.broker.account.working_orders.values()
        assert (waiting.order.order_id, waiting.step) == (order_id, 1)


@pytest.mark.parametrize("command", [OwnerCommand.HALT, OwnerCommand.REDUCE, OwnerCommand.FLATTEN])
def test_the_owners_word_cancels_an_order_to_open(tmp_path: Path, command: OwnerCommand) -> None:
    with desk(tmp_path, WORKING) as told:
        begun(told)
        word = Command(command, "owner", "enough", "key")
        execute_command(told.broker, word, at(30.5), told.env.equity())
        assert not told.broker.account.working_orders
        assert told.broker.account.margin_used == 0.0
        assert next_bar(told, 31) is None


def test_the_owner_cancels_an_order_to_open_and_closes_nothing_that_is_opened_later(
    tmp_path: Path,
) -> None:
    with desk(tmp_path, WORKING._replace(working_steps=1)) as told:
        order_id = begun(told)
        word = Command(OwnerCommand.CLOSE, "owner", key="key", symbol=SYMBOL.lower())
        answer = execute_command(told.broker, word, at(30.5), told.env.equity()).said
        assert answer == f"{order_id} is cancelled: it was to open on {SYMBOL}"
        account = told.broker.account
        assert not account.working_orders and account.margin_used == 0.0
        assert next_bar(told, 31) is None
        ended = [each for each in told.journal.events() if isinstance(each, OrderCancelled)]
        assert [(each.order_id, each.reason) for each in ended] == [
            (order_id, "cancelled by the owner")
        ]
        next_bar(told, 32, LONG_CALL)
        assert next_bar(told, 33) is not None
        assert account.strategies and not account.to_close


def closing(told: Desk) -> None:
    """A position that was bought, and an order to close it, which works."""
    begun(told)
    next_bar(told, 31)
    assert told.broker.account.strategies
    told.broker.working_steps = 50
    assert next_bar(told, 32, CLOSE) is None
    (waiting,) = told.broker.account.working_orders.values()
    assert waiting.order.intent is Intent.CLOSE


def test_reducing_keeps_an_order_to_close_and_a_halt_cancels_it(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING._replace(working_steps=1)) as told:
        closing(told)
        for minute, command in ((32.5, OwnerCommand.REDUCE), (33.5, OwnerCommand.HALT)):
            word = Command(command, "owner", "enough", f"key {minute}")
            execute_command(told.broker, word, at(minute), told.env.equity())
            kept = command is OwnerCommand.REDUCE
            assert bool(told.broker.account.working_orders) == kept
            next_bar(told, minute + 0.5)
            assert bool(told.broker.account.working_orders) == kept
        assert told.broker.account.strategies


def test_a_daily_loss_cancels_an_order(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        begun(told)
        told.broker.on_bar({}, at(30.5), equity=1_000.0)
        assert told.broker.account.trading_state is TradingState.HALTED
        assert not told.broker.account.working_orders
        assert next_bar(told, 31) is None


def test_an_order_of_a_day_whose_close_nobody_saw_is_over_on_the_next(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
    with desk(tmp_path, WORKING) as told:
        assert list(told.broker.account.working_orders) == [order_id]
        told.env.begin_session(session(date(2026, 1, 6)))
        assert not told.broker.account.working_orders
        events = list(told.journal.events())
        ended = [each for each in events if isinstance(each, OrderCancelled)]
        assert [(each.order_id, each.reason) for each in ended] == [(order_id, "expired")]


def test_a_restart_with_another_style_cancels_what_works(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
        last_ns = told.broker.account.last_ts_ns
    with desk(tmp_path, DEFAULT_RULES) as told:
        assert not told.broker.account.working_orders and told.broker.account.margin_used == 0.0
        events = list(told.journal.events())
        (ended,) = [each for each in events if isinstance(each, OrderCancelled)]
        assert (ended.order_id, ended.ts_ns) == (order_id, last_ns)
        assert ended.reason == "execution.style is no longer working"


def test_a_restart_without_the_underlying_cancels_at_the_time_of_then(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
        last_ns = told.broker.account.last_ts_ns
        assert last_ns > session().open_ns
        told.env.winding_down = frozenset({SYMBOL})
        told.env.begin_session(session())
        (ended,) = [each for each in told.journal.events() if isinstance(each, OrderCancelled)]
        assert (ended.order_id, ended.ts_ns) == (order_id, last_ns)


def test_the_status_tells_what_works(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        order_id = begun(told)
        next_bar(told, 31)
        (order,) = told_working_orders(SimpleNamespace(env=told.env))  # type: ignore[arg-type]
        assert (order["order_id"], order["intent"]) == (order_id, "open")
        assert (order["step"], order["steps"], order["age_s"]) == (1, 4, 60.0)
        assert order["limit"] == limit_of(told)
        assert order["reserved"] == told.broker.account.margin_used


def test_a_suspension_and_the_close_cancel_an_order(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING) as told:
        begun(told)
        told.broker.suspend(SYMBOL, "its stock is halted", at(30.5))
        assert not told.broker.account.working_orders
        told.broker.reinstate(SYMBOL, "it trades", at(30.6))
        told.minute(31, 100.0)
        told.env.trade(at(31), [LONG_CALL])
        assert told.broker.account.working_orders
        told.env.close_session(session().close_ns, session(), 0.0)
        assert not told.broker.account.working_orders


def test_the_owner_closes_at_the_market_what_an_order_was_to_close(tmp_path: Path) -> None:
    with desk(tmp_path, WORKING._replace(working_steps=1)) as told:
        closing(told)
        word = Command(OwnerCommand.CLOSE, "owner", key="key", symbol=SYMBOL)
        execute_command(told.broker, word, at(32.5), told.env.equity())
        told.minute(33, 100.0)
        told.env.trade(at(33), [HOLD])
        assert not told.broker.account.strategies and not told.broker.account.working_orders


def test_the_settings_are_the_rules_of_training_and_of_the_account() -> None:
    chosen = load_settings(
        overrides=["execution.style=working", "execution.working_steps=2"], environ={}
    )
    rules = trading_rules(chosen)
    assert (rules.fill_style, rules.working_steps) == (FillStyle.WORKING, 2)
    assert observation_size(chosen) == FEATURE_COUNT + len(ORDER_FEATURES)
    assert model_config(chosen).observation_size == observation_size(chosen)
    several = ["execution.style=working", "env.underlyings_per_account=2"]
    with pytest.raises(ConfigError, match=r"execution.style: working .* set that to 1"):
        trading_rules(load_settings(overrides=several, environ={}))
    with pytest.raises(ConfigError, match=r"execution.style: working .* set that to 1"):
        check_before_trading(load_settings(overrides=several, environ={}))
    with pytest.raises(ConfigError, match=r"underlyings_per_account 2: .* set it to 1"):
        SimulatedOptionsVectorEnv(2, rules._replace(underlyings_per_account=2), DEFAULT_FEES)
