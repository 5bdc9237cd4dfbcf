"""The owner's word while it trades, over real sockets, across restarts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.live.market import Bars, FirstMinutes, serving, settings_for, trade
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    DecisionMade,
    OrderAccepted,
    OrderFilled,
    OwnerCommand,
    OwnerCommanded,
)
from trading.execution.journal import Journal
from trading.execution.orders import Intent
from trading.execution.owner import Command, execute_command
from trading.live import assembly
from trading.live.bar_clock import Bar
from trading.live.trader import Trader

MINUTES = 14
ALICE = "alice"


class Owner(Bars):
    """Says something after some of the bars, and notes what was open at each."""

    def __init__(
        self,
        says: dict[int, OwnerCommand | Callable[[Trader], None]],
        stop_after: int | None = None,
    ) -> None:
        super().__init__(stop_after)
        self.open: list[list[str]] = []
        self.unclosed: list[dict[str, str]] = []
        self.obeyed = 0
        self._says = says

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)
        self.open.append(list(trader.env.broker.account.strategies))
        self.unclosed.append(dict(trader.env.unclosed))
        said = self._says.get(len(self.ends))
        if isinstance(said, OwnerCommand):
            trader.command(Command(said, ALICE))
        elif said is not None:
            said(trader)

    def on_command(self, trader: Trader) -> None:
        self.obeyed += 1


def test_flatten_closes_all_and_opens_nothing_until_the_owner_resumes(tmp_path: Path) -> None:
    owner = Owner({6: OwnerCommand.FLATTEN, 10: OwnerCommand.RESUME})
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(settings_for(tmp_path), endpoint, begin, bars=owner)
    assert owner.obeyed == 2
    assert owner.open[5], "something was open to close"
    assert owner.open[6:10] == [[]] * 4
    assert any(owner.open[10:]), "it trades again"
    assert result.fold == result.trader.env.broker.account.fingerprint()
    with Journal(assembly.journal_path(settings_for(tmp_path)), read_only=True) as journal:
        events = list(journal.events())
    told = [each for each in events if isinstance(each, OwnerCommanded)]
    assert [each.ts_ns for each in told] == [owner.ends[5], owner.ends[9]]
    closed = [e for e in events if isinstance(e, OrderAccepted) and e.ts_ns == owner.ends[6]]
    assert {e.order.intent for e in closed} == {Intent.CLOSE}
    assert len(closed) == len({e.order.underlying for e in closed})
    decisions = [each for each in events if isinstance(each, DecisionMade)]
    assert len(decisions) == 2 * MINUTES, "the policy goes on deciding"


def test_flatten_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    unheard = Owner({5: OwnerCommand.FLATTEN}, stop_after=5)
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        trade(settings, endpoint, begin, bars=unheard)
    with Journal(assembly.journal_path(settings), read_only=True) as journal:
        assert journal.fold().owner_commands == 0, "a command that nobody took does nothing"

    def hide_quotes(trader: Trader) -> None:
        """From here on no bar may close anything: the market's hours are over."""
        trader.command(Command(OwnerCommand.FLATTEN, ALICE))
        trader.env._is_open = lambda *_: False  # type: ignore[method-assign]

    first = Owner({1: hide_quotes}, stop_after=4)
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        trade(settings, endpoint, begin, bars=first)
    assert first.open[-1] and set(first.unclosed[-1]) == set(first.open[-1])
    assert all("outside_session" in why for why in first.unclosed[-1].values())
    second = Owner({})
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, bars=second)
    assert second.open[-1] == [] and len(second.open) > 3
    account = result.trader.env.broker.account
    assert list(account.restrictions) == ["owner_flatten"]
    assert not account.positions


def test_a_deposit_changes_nothing_that_the_policy_sees_or_earns(tmp_path: Path) -> None:
    """Halted from the start, so that nothing but the cash differs."""

    def observations(folder: Path, amount: float) -> tuple[np.ndarray, Trader]:
        seen: list[np.ndarray] = []

        def look(trader: Trader) -> None:
            seen.append(trader.env._views.observations.copy())

        def pay(trader: Trader) -> None:
            if amount:
                kind = OwnerCommand.DEPOSIT if amount > 0 else OwnerCommand.WITHDRAW
                trader.command(Command(kind, ALICE, amount=abs(amount)))

        settings, source = settings_for(folder), FirstMinutes(5, seed=3)
        folder.mkdir()
        with Journal(assembly.journal_path(settings)) as journal:
            account = journal.open_account("paper", 100_000.0, source.start_ns)
            limits = assembly.risk_limits(settings)
            broker = PaperBroker(journal, account, assembly.fee_schedule(settings), limits)
            execute_command(broker, Command(OwnerCommand.HALT, ALICE), source.start_ns)
        with serving(source) as (endpoint, begin):
            bars = Owner({2: pay, 1: look, 3: look, 4: look})
            result = trade(settings, endpoint, begin, bars=bars)
        return np.array(seen), result.trader

    plain, before = observations(tmp_path / "plain", 0.0)
    assert not before.env.broker.account.positions, "an account that holds nothing is compared"
    for name, amount in (("more", 100_000.0), ("less", -50_000.0)):
        moved, after = observations(tmp_path / name, amount)
        assert after.env.broker.account.cash == before.env.broker.account.cash + amount
        assert np.array_equal(moved, plain)


def test_fills_of_the_owner_are_among_the_recent_ones(tmp_path: Path) -> None:
    owner = Owner({6: OwnerCommand.FLATTEN}, stop_after=8)
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(settings_for(tmp_path), endpoint, begin, bars=owner)
    assert "closed by the owner" in {name for _, _, name in result.trader.recent_fills}
    with Journal(assembly.journal_path(settings_for(tmp_path)), read_only=True) as journal:
        fills = [each for each in journal.events() if isinstance(each, OrderFilled)]
    assert fills[-1].ts_ns == owner.ends[6]
