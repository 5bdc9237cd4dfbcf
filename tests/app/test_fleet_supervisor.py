"""Strategies of two clusters: each account changes hands by its own lease."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from rich.console import Console

from tests.test_strategies import THREE
from tests.waits import WAIT_S, until
from trading.app import fleet, fleet_supervisor
from trading.app.display import Display
from trading.app.driver import ApplicationFailed, Summary
from trading.app.fleet_display import FleetDisplay
from trading.app.fleet_supervisor import FleetSupervisor
from trading.app.strategy_process import StrategyStart
from trading.config import Settings, load_settings
from trading.execution.lease import AccountLease, ask_to_stop, holder_of
from trading.live import assembly
from trading.serving.supervisor import STANDBY, STOPPED, TRADING, Backoff, SupervisorDied

NAMES = ("plain", "small", "still")
SUMMARY = Summary(1, 20, 3, 4.5, 100_250.0, 0, 0, 0, 0, None, 6.0)


def trade(
    start: StrategyStart, display: Display, stop: threading.Event, traded: Callable[[], None]
) -> Summary:
    """In place of a strategy's process."""
    traded()
    stop.wait()
    return SUMMARY


class FleetStates:
    """In place of the actor."""

    class post:  # noqa: N801
        @staticmethod
        def remote(posted: object) -> None:
            return None


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "run_strategy", trade)
    monkeypatch.setattr(fleet, "Backoff", lambda: Backoff(first_s=0.01, longest_s=0.01))
    monkeypatch.setattr(fleet.Fleet, "_start_states", lambda *_: FleetStates)
    monkeypatch.setattr(fleet_supervisor, "ray_address", lambda: "here")


@pytest.fixture
def strategies(tmp_path: Path) -> dict[str, Settings]:
    path = tmp_path / "s.yaml"
    path.write_text(f"paths: {{state_dir: {tmp_path}}}\n{THREE}")
    return {name: load_settings(path, [f"strategy={name}"], {}) for name in NAMES}


class Closing(FleetSupervisor):
    """Closed without a limit."""

    def __init__(self, strategies: dict[str, Settings]) -> None:
        display = FleetDisplay(Console(file=io.StringIO()), NAMES)
        super().__init__(Settings(), strategies, display)

    def close(self, timeout_s: float = WAIT_S) -> None:
        super().close(timeout_s)

    def phases(self) -> dict[str, str]:
        return {name: self._fleet._state(name).phase for name in NAMES}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as closed:
        yield closed


def test_each_account_changes_hands_by_its_own_lease(
    strategies: dict[str, Settings], stack: ExitStack
) -> None:
    journals = {name: assembly.journal_path(each) for name, each in strategies.items()}
    elsewhere = stack.enter_context(AccountLease(journals["plain"]))
    first = stack.enter_context(closing(Closing(strategies)))
    until(lambda: first.phases() == {"plain": STANDBY, "small": TRADING, "still": TRADING})
    elsewhere.close()
    until(lambda: set(first.phases().values()) == {TRADING})

    second = stack.enter_context(closing(Closing(strategies)))
    until(lambda: second.phases() == dict.fromkeys(NAMES, STANDBY))
    holder = holder_of(journals["small"])
    assert holder is not None
    ask_to_stop(journals["small"], holder)
    until(lambda: second.phases() == {"plain": STANDBY, "small": TRADING, "still": STANDBY})
    assert first.phases() == {"plain": TRADING, "small": STOPPED, "still": TRADING}
    first.close()
    until(lambda: set(second.phases().values()) == {TRADING})
    second.check()
    second.close()
    for journal in journals.values():
        AccountLease(journal).close()


def test_what_only_a_new_process_mends_is_told_to_serve(
    strategies: dict[str, Settings], monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    def fails(*_: object) -> None:
        raise ApplicationFailed("no actor")

    monkeypatch.setattr(fleet.Fleet, "_start_states", fails)
    broken = stack.enter_context(closing(Closing(strategies)))
    until(lambda: bool(broken._fault))
    with pytest.raises(SupervisorDied, match="no actor"):
        broken.check()
