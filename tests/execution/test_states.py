"""Every row of the table of states: what enters it, what leaves it, across restarts."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.execution.scene import NOW_NS, SECOND_NS, market, new_broker, open_order, quote
from tests.usual import risk_limits
from trading.errors import OwnerRefused
from trading.execution.events import (
    ChampionPromoted,
    OwnerCommand,
    PromotedBy,
    StateChanged,
    WeightsAdopted,
)
from trading.execution.orders import Fill, Rejection, RejectReason
from trading.execution.owner import Command, execute_command
from trading.execution.risk import RiskLimits
from trading.execution.states import RESTRICTION_RULES, Cause, TradingState

CAPITAL = 10_000.0
LIMITS = risk_limits(max_daily_loss_pct=20.0, max_drawdown_pct=25.0, allow_naked_shorts=True)
MINUTE_NS = 60 * SECOND_NS
ACTIVE, REDUCING, HALTED = TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED


class Scene:
    """An account that may be restarted at any point, with a clock of its own."""

    def __init__(self, folder: Path, limits: RiskLimits = LIMITS) -> None:
        self.folder, self.limits, self.now_ns, self.day = folder, limits, NOW_NS, 5
        self.broker = new_broker(folder, CAPITAL, limits=limits)

    def restart(self) -> None:
        before = self.broker.account.fingerprint()
        self.broker.journal.close()
        self.broker = new_broker(self.folder, CAPITAL, limits=self.limits)
        assert self.broker.account.fingerprint() == before

    def bar(self, equity: float = CAPITAL, **kwargs: object) -> None:
        self.now_ns += MINUTE_NS
        self.broker.on_bar(market(self.now_ns), self.now_ns, equity=equity, **kwargs)  # type: ignore[arg-type]

    def close(self, equity: float = CAPITAL) -> None:
        self.now_ns += MINUTE_NS
        self.broker.close_session(f"2026-01-{self.day:02}", equity, self.now_ns)
        self.day += 1

    def say(self, command: str, equity: float | None = None, **what: object) -> str:
        word = Command(OwnerCommand(command), "alice", "of the test", **what)  # type: ignore[arg-type]
        return execute_command(self.broker, word, self.now_ns, equity).said

    def open(self, shape: str = "long_call", units: int = 1) -> Fill | Rejection | None:
        order = open_order(self.broker, shape, units, ts_ns=self.now_ns)
        return self.broker.submit(order, market(self.now_ns), True, self.now_ns)

    @property
    def state(self) -> TradingState:
        return self.broker.account.trading_state

    @property
    def causes(self) -> list[str]:
        return list(self.broker.account.restrictions)


@contextmanager
def started(folder: Path) -> Iterator[Scene]:
    scene = Scene(folder)
    try:
        yield scene
    finally:
        scene.broker.journal.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with started(tmp_path) as made:
        yield made


def lose_under_a_champion(scene: Scene) -> None:
    for number in (1, 2):
        change = ChampionPromoted(scene.now_ns, number, 0, number - 1, PromotedBy.GATE, "", CAPITAL)
        scene.broker.change_champion(change, WeightsAdopted(scene.now_ns, 0, "digest"))
    scene.bar(9_150.0)


def call_margin(scene: Scene) -> None:
    assert isinstance(scene.open("short_stock"), Fill)
    scene.bar(9_900.0, spots={"SPY": 134.0})


ENTERS: dict[Cause, Callable[[Scene], object]] = {
    Cause.NOT_A_NUMBER: lambda scene: scene.bar(math.nan),
    Cause.DAILY_LOSS: lambda scene: scene.bar(7_999.0),
    Cause.MAX_DRAWDOWN: lambda scene: (scene.close(8_200.0), scene.bar(7_499.0)),
    Cause.CHAMPION_DRAWDOWN: lose_under_a_champion,
    Cause.MARGIN_CALL: call_margin,
    Cause.UNATTENDED: lambda scene: scene.broker.record(
        scene.broker.entering(Cause.UNATTENDED, scene.now_ns)
    ),
    Cause.OWNER_HALT: lambda scene: scene.say("halt"),
    Cause.OWNER_REDUCE: lambda scene: scene.say("reduce"),
    Cause.OWNER_FLATTEN: lambda scene: scene.say("flatten"),
}
WORTH = {Cause.DAILY_LOSS: 7_999.0, Cause.MAX_DRAWDOWN: 7_499.0, Cause.NOT_A_NUMBER: math.nan}
"""Equity at which a cause still holds."""
EITHER = pytest.mark.parametrize("restarts", [False, True])


def test_every_row_of_the_table_is_played() -> None:
    assert set(ENTERS) == set(RESTRICTION_RULES) == set(Cause)


@EITHER
@pytest.mark.parametrize("cause", list(Cause))
def test_a_cause_enters_its_state_and_a_restart_keeps_it(
    scene: Scene, cause: Cause, restarts: bool
) -> None:
    assert scene.state is ACTIVE
    ENTERS[cause](scene)
    if restarts:
        scene.restart()
    assert scene.causes == [cause]
    assert scene.state is RESTRICTION_RULES[cause].state
    answer = scene.open("long_put")
    assert isinstance(answer, Rejection)
    assert answer.reason in (RejectReason.HALTED, RejectReason.REDUCING)


@EITHER
@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.MARGIN_CALL}))
def test_the_sessions_end_leaves_a_daily_loss_alone(
    scene: Scene, cause: Cause, restarts: bool
) -> None:
    ENTERS[cause](scene)
    if restarts:
        scene.restart()
    scene.close(WORTH.get(cause, CAPITAL) if cause is not Cause.NOT_A_NUMBER else CAPITAL)
    assert scene.causes == ([] if cause is Cause.DAILY_LOSS else [cause])


@EITHER
@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.MARGIN_CALL}))
def test_when_all_is_well_again_the_owner_resumes(
    scene: Scene, cause: Cause, restarts: bool
) -> None:
    ENTERS[cause](scene)
    scene.bar(CAPITAL)
    if restarts:
        scene.restart()
    assert scene.causes == [cause], "only the owner ends it, or the session"
    scene.say("resume", CAPITAL)
    if restarts:
        scene.restart()
    assert scene.state is ACTIVE
    scene.bar(CAPITAL)
    scene.close(CAPITAL)
    scene.bar(CAPITAL)
    assert scene.state is ACTIVE
    assert isinstance(scene.open(), Fill)


@pytest.mark.parametrize("cause", sorted(WORTH))
def test_while_the_cause_stands_the_owner_cannot_resume(scene: Scene, cause: Cause) -> None:
    ENTERS[cause](scene)
    events = scene.broker.journal.last_seq
    with pytest.raises(OwnerRefused, match=f"{cause} stands"):
        scene.say("resume", WORTH[cause])
    assert scene.broker.journal.last_seq == events
    assert scene.causes == [cause]


@pytest.mark.parametrize("cause", sorted(WORTH))
def test_a_cause_that_nobody_could_look_at_enters_again_at_the_next_bar(
    scene: Scene, cause: Cause
) -> None:
    assert isinstance(scene.open(), Fill)
    ENTERS[cause](scene)
    scene.restart()
    assert "enters again" in scene.say("resume")
    assert scene.state is ACTIVE
    scene.bar(WORTH[cause])
    assert scene.causes == [cause]
    assert scene.broker.account.state_reason == cause


@EITHER
def test_a_margin_call_ends_when_it_is_met_and_no_resume_lifts_it_before(
    scene: Scene, restarts: bool
) -> None:
    call_margin(scene)
    if restarts:
        scene.restart()
    with pytest.raises(OwnerRefused, match="buying power is -"):
        scene.say("resume")
    scene.bar(9_900.0, spots={"SPY": 133.0})
    assert scene.state is ACTIVE


def test_a_deposit_meets_a_margin_call(scene: Scene) -> None:
    call_margin(scene)
    scene.say("deposit", amount=500.0)
    assert scene.state is ACTIVE


@EITHER
def test_reset_peak_accepts_a_drawdown_and_twice_is_once(scene: Scene, restarts: bool) -> None:
    ENTERS[Cause.MAX_DRAWDOWN](scene)
    for _ in range(2):
        scene.say("reset_peak", 7_499.0)
        if restarts:
            scene.restart()
        assert scene.state is ACTIVE
        assert scene.broker.account.peak_equity == 7_499.0
    scene.bar(7_400.0)
    assert scene.state is ACTIVE


@EITHER
def test_a_peak_to_reset_waits_for_a_bar_where_nobody_knows_the_equity(
    scene: Scene, restarts: bool
) -> None:
    assert isinstance(scene.open(), Fill)
    ENTERS[Cause.MAX_DRAWDOWN](scene)
    assert "next bar" in scene.say("reset_peak")
    if restarts:
        scene.restart()
    assert scene.state is REDUCING
    scene.bar(math.nan)
    scene.bar(7_300.0)
    assert scene.causes == [Cause.NOT_A_NUMBER]
    assert scene.broker.account.peak_equity == 7_300.0


@EITHER
def test_two_causes_stand_side_by_side_and_end_apart(scene: Scene, restarts: bool) -> None:
    ENTERS[Cause.MAX_DRAWDOWN](scene)
    scene.say("halt")
    scene.bar(6_500.0)
    assert scene.causes == [Cause.MAX_DRAWDOWN, Cause.OWNER_HALT, Cause.DAILY_LOSS]
    if restarts:
        scene.restart()
    said = scene.say("resume", 6_500.0)
    assert "ended: owner_halt" in said and "daily_loss stands" in said
    assert "max_drawdown stands" in said and "reset-peak" in said
    assert scene.state is HALTED
    scene.close(6_500.0)
    assert (scene.state, scene.causes) == (REDUCING, [Cause.MAX_DRAWDOWN])
    scene.say("reset_peak", 6_500.0)
    assert scene.state is ACTIVE


def test_a_daily_loss_and_the_champions_fall_at_one_bar_end_apart(scene: Scene) -> None:
    lose_under_a_champion(scene)
    scene.bar(7_000.0)
    assert scene.state is HALTED
    scene.close(7_600.0)
    assert scene.causes == [Cause.CHAMPION_DRAWDOWN, Cause.MAX_DRAWDOWN]
    scene.say("reset_peak", 7_600.0)
    assert scene.causes == [Cause.CHAMPION_DRAWDOWN]
    change = ChampionPromoted(scene.now_ns, 3, 0, 1, PromotedBy.OWNER, "", 7_600.0)
    scene.broker.change_champion(change, WeightsAdopted(scene.now_ns, 0, "digest"))
    assert scene.state is ACTIVE
    assert not scene.broker.account.is_rolled_back


def test_an_owners_resume_keeps_the_champion_that_came_back(scene: Scene) -> None:
    lose_under_a_champion(scene)
    scene.say("resume", 9_150.0)
    account = scene.broker.account
    assert (account.champion, account.is_rolled_back, scene.state) == (1, False, ACTIVE)
    scene.bar(7_000.0)
    scene.close(7_600.0)
    assert Cause.CHAMPION_DRAWDOWN in scene.causes, "it is a loss of the next champion's own"


def test_the_owners_newest_order_replaces_the_one_before(scene: Scene) -> None:
    for order, state in (
        ("halt", HALTED), ("reduce", REDUCING), ("flatten", REDUCING), ("halt", HALTED),
    ):  # fmt: skip
        scene.say(order)
        assert (scene.state, scene.causes) == (state, [f"owner_{order}"])
    events = list(scene.broker.journal.events())
    changes = [each for each in events if isinstance(each, StateChanged)]
    assert [each.trading_state for each in changes].count(ACTIVE) <= 3
    assert changes[-1].reason == "halt by alice: of the test"


def test_a_halt_cancels_what_waits_and_reducing_what_waits_to_open(scene: Scene) -> None:
    for order in ("reduce", "halt"):
        waiting = open_order(scene.broker, "long_call", limit=1.0, day=True, ts_ns=scene.now_ns)
        scene.broker.submit(waiting, market(scene.now_ns), True, scene.now_ns)
        assert scene.broker.account.working_orders
        scene.say(order)
        assert not scene.broker.account.working_orders
        scene.say("resume")


@pytest.mark.parametrize("cause", list(Cause))
def test_the_owner_closes_in_spite_of_every_cause_but_the_own_halt(
    scene: Scene, cause: Cause
) -> None:
    if cause is not Cause.MARGIN_CALL:
        assert isinstance(scene.open(), Fill)
    ENTERS[cause](scene)
    now_ns = scene.now_ns
    result = scene.broker.close_for_owner("SPY", market(now_ns), True, now_ns)
    assert (
        isinstance(result, Fill)
        is RESTRICTION_RULES[cause].owner_closes
        is (cause != Cause.OWNER_HALT)
    )
    assert bool(scene.broker.account.strategies) is not isinstance(result, Fill)


def test_what_has_no_usable_quote_waits_without_a_trace_and_never_loses_a_leg(
    scene: Scene,
) -> None:
    assert isinstance(scene.open("iron_condor", 2), Fill)
    scene.say("flatten")
    events = scene.broker.journal.last_seq
    legs = [leg.symbol for leg in scene.broker.account.strategies["SPY"].legs]
    now_ns = scene.now_ns
    for symbol in legs:
        for bad in (quote(0.0, 1.0), quote(1.0, 1.1, ts_ns=now_ns - 1000 * SECOND_NS), None):
            quotes = {name: view for name, view in market(now_ns).items() if name != symbol}
            quotes |= {} if bad is None else {symbol: bad}
            assert isinstance(scene.broker.close_for_owner("SPY", quotes, True, now_ns), str)
    closed = scene.broker.close_for_owner("SPY", market(now_ns), False, now_ns)
    assert isinstance(closed, str) and "outside_session" in closed
    assert scene.broker.journal.last_seq == events
    thin = market(now_ns, size=1.0)
    assert isinstance(scene.broker.close_for_owner("SPY", thin, True, now_ns), Fill)
    quantities = {abs(each.quantity) for each in scene.broker.account.positions.values()}
    assert quantities == {1}
    scene.restart()
    assert scene.broker.account.to_close == ["SPY"]
    assert isinstance(scene.broker.close_for_owner("SPY", thin, True, now_ns), Fill)
    assert not scene.broker.account.positions
    assert scene.causes == [Cause.OWNER_FLATTEN], "nothing is opened until the owner resumes"


def test_one_symbol_is_closed_and_others_go_on(scene: Scene) -> None:
    assert isinstance(scene.open(), Fill)
    with pytest.raises(OwnerRefused, match="nothing is open on QQQ: open are SPY"):
        scene.say("close", symbol="QQQ")
    leg = next(iter(scene.broker.account.positions))
    with pytest.raises(OwnerRefused, match="a leg of SPY: close that"):
        scene.say("close", symbol=leg)
    scene.say("close", symbol="SPY")
    scene.restart()
    assert (scene.broker.account.to_close, scene.state) == (["SPY"], ACTIVE)
    scene.say("resume")
    assert scene.broker.account.to_close == []
    scene.say("close", symbol="SPY")
    now_ns = scene.now_ns
    assert isinstance(scene.broker.close_for_owner("SPY", market(now_ns), True, now_ns), Fill)
    assert isinstance(scene.open(), Fill)
    assert scene.broker.account.to_close == [], "what is opened later is not closed"


def test_the_same_key_is_the_same_command(scene: Scene) -> None:
    word = Command(OwnerCommand.DEPOSIT, "alice", key="d-1", amount=250.0)
    first = execute_command(scene.broker, word, scene.now_ns)
    scene.restart()
    again = execute_command(scene.broker, word, scene.now_ns)
    assert (again.said, again.number, again.repeated) == (first.said, 1, True)
    assert scene.broker.account.cash == CAPITAL + 250.0
    other = Command(OwnerCommand.DEPOSIT, "alice", key="d-1", amount=300.0)
    with pytest.raises(OwnerRefused, match="a key of its own"):
        execute_command(scene.broker, other, scene.now_ns)


@pytest.mark.parametrize(
    "what",
    [{"by": ""}, {"by": "a\nb"}, {"why": "x" * 501}, {"key": "\x00"}, {"symbol": "S\x1b[2J"}],
)
def test_a_command_that_cannot_be_written_down_is_refused(
    scene: Scene, what: dict[str, str]
) -> None:
    with pytest.raises(OwnerRefused):
        execute_command(
            scene.broker, Command(OwnerCommand.HALT, **{"by": "alice", **what}), scene.now_ns
        )
    assert scene.state is ACTIVE


@pytest.mark.parametrize("amount", [0.0, -1.0, math.nan, math.inf, 1e13, 0.001, 10.005])
@pytest.mark.parametrize("command", ["deposit", "withdraw"])
def test_an_amount_is_whole_cents_above_zero(scene: Scene, command: str, amount: float) -> None:
    with pytest.raises(OwnerRefused, match="whole cents"):
        scene.say(command, amount=amount)


def test_no_more_than_the_buying_power_is_taken_out(scene: Scene) -> None:
    assert isinstance(scene.open("bear_call_credit", 5), Fill)
    power = scene.broker.account.buying_power
    with pytest.raises(OwnerRefused, match="buying power"):
        scene.say("withdraw", amount=round(power + 0.01, 2))
    scene.say("withdraw", amount=round(power, 2))
    assert scene.broker.account.buying_power == 0.0


USD = st.integers(1, 3_000_000).map(lambda cents: cents / 100.0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    moves=st.lists(st.tuples(st.sampled_from(["deposit", "withdraw"]), USD), max_size=6),
    gain=st.floats(-0.15, 0.5),
    known=st.booleans(),
    held=st.booleans(),
)
def test_moved_cash_is_no_profit_no_loss_and_no_other_scale(
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[tuple[str, float]],
    gain: float,
    known: bool,
    held: bool,
) -> None:
    with started(tmp_path_factory.mktemp("account")) as scene:
        if held:
            assert isinstance(scene.open(), Fill)
        account = scene.broker.account
        equity = CAPITAL * (1.0 + gain)
        # What the market made of it, so that cash and equity agree where nothing is held.
        if not held:
            account.cash = equity
        scene.bar(equity)
        shares = (
            equity / account.day_start_equity,
            equity / account.peak_equity,
            equity / account.initial_cash / account.scale,
        )
        profit, causes = equity - account.day_base, scene.causes
        for command, amount in moves:
            try:
                scene.say(command, equity if known else None, amount=amount)
            except OwnerRefused:
                continue
            equity += amount if command == "deposit" else -amount
        scene.bar(equity)
        assert scene.causes == causes
        assert equity - account.day_base == pytest.approx(profit, abs=1e-4)
        assert account.unscaled_cash == 0.0
        if equity > 1.0:
            now = (
                equity / account.day_start_equity,
                equity / account.peak_equity,
                equity / account.initial_cash / account.scale,
            )
            assert now == pytest.approx(shares, rel=1e-6)


def test_an_account_that_was_emptied_begins_anew(scene: Scene) -> None:
    scene.say("withdraw", amount=CAPITAL)
    scene.bar(0.0)
    assert scene.state is ACTIVE
    scene.say("deposit", amount=5_000.0)
    scene.bar(5_000.0)
    account = scene.broker.account
    assert (account.peak_equity, account.day_start_equity, account.scale) == (5_000, 5_000, 0.5)
    assert scene.state is ACTIVE


def test_a_deposit_cures_no_drawdown_and_a_withdrawal_makes_none(scene: Scene) -> None:
    scene.close(8_500.0)
    scene.broker.account.cash = 8_000.0
    scene.say("withdraw", amount=4_000.0)
    scene.bar(4_000.0)
    assert scene.state is ACTIVE
    scene.broker.account.cash = 3_600.0
    scene.bar(3_600.0)
    assert scene.causes == [Cause.MAX_DRAWDOWN]
    scene.say("deposit", amount=100_000.0)
    with pytest.raises(OwnerRefused, match="max_drawdown stands"):
        scene.say("resume")


def test_rows_of_older_journals_mean_what_they_meant(scene: Scene) -> None:
    account = scene.broker.account
    for event, causes in (
        (StateChanged(1, REDUCING, "margin_call"), ["margin_call"]),
        (StateChanged(2, HALTED, "daily_loss"), ["daily_loss"]),
        (StateChanged(3, ACTIVE, "session closed"), []),
        (StateChanged(4, REDUCING, "max_drawdown"), ["max_drawdown"]),
        (StateChanged(5, ACTIVE, "operator"), []),
    ):
        scene.broker.record([event])
        assert list(account.restrictions) == causes
    assert (account.trading_state, account.state_reason) == (ACTIVE, "operator")
