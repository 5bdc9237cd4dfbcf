"""The dead man's switch: positions are not left open while nobody decides, sees or drives."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.market import FirstMinutes, serving, settings_for, trade
from tests.live.test_owner import Owner
from trading.envs.catalogue import HOLD
from trading.envs.live_env import ActionResult, LiveEnv
from trading.execution.events import OwnerCommand, StateChanged
from trading.execution.journal import Journal
from trading.execution.orders import Intent, Leg, Order, OrderType, QuoteView, TimeInForce
from trading.execution.states import Cause
from trading.live import assembly
from trading.live.dead_man import DeadMan
from trading.live.trader import Trader

SECOND_NS = 1_000_000_000
HELD = ActionResult(HOLD, False)
OPEN_NS = 1_767_623_400 * SECOND_NS


class Watch:
    def __init__(self, patience_s: float = 300.0) -> None:
        self.now_s = 0.0
        self.dead_man = DeadMan(patience_s, lambda: self.now_s)

    def missing(
        self, market_s: float | None = None, decided_s: float = 0.0, seen_s: float = 0.0
    ) -> list[str]:
        market_ns = None if market_s is None else OPEN_NS + int(market_s * SECOND_NS)
        return self.dead_man.missing(
            market_ns,
            OPEN_NS + int(decided_s * SECOND_NS),
            OPEN_NS,
            OPEN_NS + int(seen_s * SECOND_NS),
        )


@pytest.mark.parametrize(
    ("market_s", "decided_s", "seen_s", "told"),
    [
        (299.0, 0.0, 0.0, []),
        (301.0, 300.0, 300.0, []),
        (301.0, 0.0, 300.0, ["no decision for 301 s"]),
        (301.0, 300.0, 0.0, ["nothing from the feed for 301 s"]),
        # Yesterday's last decision counts from this session's beginning.
        (200.0, -60_000.0, -60_000.0, []),
        (301.0, -60_000.0, 300.0, ["no decision for 301 s"]),
    ],
)
def test_a_market_by_the_wall_clock_is_watched_by_exchange_time(
    market_s: float, decided_s: float, seen_s: float, told: list[str]
) -> None:
    assert Watch().missing(market_s, decided_s, seen_s) == told


def test_a_market_with_a_clock_of_its_own_is_watched_by_this_machines() -> None:
    watch = Watch()
    watch.now_s = 301.0
    assert watch.missing() == ["no decision for 301 s", "nothing from the feed for 301 s"]
    watch.dead_man.framed()
    assert watch.missing() == ["no decision for 301 s"]
    watch.dead_man.decided()
    assert watch.missing() == []


def test_a_driver_is_missed_only_once_it_was_there() -> None:
    watch = Watch()
    watch.now_s = 1000.0
    watch.dead_man.framed()
    watch.dead_man.decided()
    assert watch.missing() == []
    watch.dead_man.driven()
    watch.now_s = 1301.0
    watch.dead_man.framed()
    watch.dead_man.decided()
    assert watch.missing() == ["no word of the driver for 301 s"]
    watch.dead_man.driven()
    assert watch.missing() == []


def test_a_clock_that_stays_off_is_told_of_and_one_that_is_set_is_not() -> None:
    watch = Watch()
    watch.dead_man.timed(-7.0)
    for watch.now_s in (200.0, 301.0):
        watch.dead_man.framed()
        watch.dead_man.decided()
        watch.dead_man.timed(-8.0)
    assert watch.missing() == ["this machine's clock is -8 s off, for 301 s"]
    watch.dead_man.timed(0.0)
    assert watch.missing() == []
    watch.dead_man.timed(9.0)
    watch.now_s = 500.0
    watch.dead_man.framed()
    watch.dead_man.decided()
    assert watch.missing() == [], "it counts from when it was off anew"


def test_without_patience_nothing_is_minded() -> None:
    watch = Watch(math.inf)
    watch.now_s = 1e9
    assert watch.missing(1e6) == []


@pytest.mark.parametrize("unattended", ["reduce", "flatten", "nothing"])
def test_while_it_is_missing_the_account_reduces_or_flattens_and_then_goes_on(
    tmp_path: Path, unattended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, f"safety.unattended={unattended}", "learning.lockstep=false")
    is_missing = {"now": False}
    real: Callable[..., list[str]] = DeadMan.missing

    def missing(self: DeadMan, *args: int) -> list[str]:
        return ["no word of the driver for 400 s"] if is_missing["now"] else real(self, *args)

    if unattended != "nothing":
        monkeypatch.setattr(DeadMan, "missing", missing)

    def set_missing(value: bool) -> Callable[[Trader], None]:
        def at(trader: Trader) -> None:
            is_missing["now"] = value
            states.append(list(trader.env.broker.account.restrictions))

        return at

    states: list[list[str]] = []
    owner = Owner({5: set_missing(True), 8: set_missing(False), 10: set_missing(False)})
    with serving(FirstMinutes(14)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, bars=owner)
    assert owner.open[4], "something was open"
    account = result.trader.env.broker.account
    assert account.restrictions == {}
    with Journal(assembly.journal_path(settings), read_only=True) as journal:
        changes = [
            each
            for each in journal.events()
            if isinstance(each, StateChanged) and each.cause == Cause.UNATTENDED
        ]
    if unattended == "nothing":
        assert not changes
        return
    entered, ended = changes
    assert "no word of the driver" in entered.reason
    assert (entered.flatten, ended.reason) == (unattended == "flatten", "attended again")
    assert states[1] == [Cause.UNATTENDED]
    if unattended == "flatten":
        assert owner.open[6] == owner.open[7] == []
    assert all(set(owner.open[bar]) <= set(owner.open[bar - 1]) for bar in (5, 6, 7))


def test_an_account_with_an_order_that_waits_and_no_position_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeadMan, "missing", lambda *_: ["no word of the driver for 400 s"])
    monkeypatch.setattr(LiveEnv, "trade", lambda _, now_ns, actions: [HELD for _ in actions])
    settings = settings_for(tmp_path, "learning.lockstep=false")

    def order(trader: Trader) -> None:
        broker, now_ns = trader.env.broker, trader._now_ns
        legs = (Leg(trader.env.listed_symbols("AAA")[0], 1),)
        limit = (OrderType.LIMIT, TimeInForce.DAY, 0.5)
        number = broker.next_order_id()
        waits = Order(number, now_ns, "AAA", "case", Intent.OPEN, legs, 1, *limit)
        quotes = {legs[0].symbol: QuoteView(1.0, 1.1, 50.0, 50.0, now_ns)}
        assert broker.submit(waits, quotes, True, now_ns) is None
        assert broker.account.working_orders and not broker.account.restrictions

    with serving(FirstMinutes(5)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, bars=Owner({2: order}))
    account = result.trader.env.broker.account
    assert list(account.restrictions) == [Cause.UNATTENDED] and not account.working_orders


def test_the_setting_reaches_the_loop(tmp_path: Path) -> None:
    free = "learning.lockstep=false"
    made = assembly.trader_settings(settings_for(tmp_path, "safety.patience_s=12", free))
    assert (made.patience_s, made.flatten_unattended) == (12.0, False)
    flat = assembly.trader_settings(settings_for(tmp_path, "safety.unattended=flatten", free))
    assert flat.flatten_unattended
    never = assembly.trader_settings(settings_for(tmp_path, "safety.unattended=nothing", free))
    assert never == replace(made, patience_s=math.inf)
    # Repeatable runs mind no clock of this machine.
    assert assembly.trader_settings(settings_for(tmp_path)).patience_s == math.inf


def test_the_owner_may_still_command(tmp_path: Path) -> None:
    """Both stand side by side: neither ends the other."""
    settings = settings_for(tmp_path, "learning.lockstep=false")

    def alone(trader: Trader) -> None:
        broker = trader.env.broker
        broker.record(broker.entering(Cause.UNATTENDED, trader._now_ns, reason="of the test"))

    owner = Owner({4: alone, 5: OwnerCommand.HALT})
    with serving(FirstMinutes(9)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, bars=owner)
    assert list(result.trader.env.broker.account.restrictions) == [Cause.OWNER_HALT]
