"""What must hold for money whatever is ordered, quoted, restarted or killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.execution import trader
from tests.execution.days import DaysMachine
from tests.execution.machine import TradingMachine
from trading.execution.journal import Journal

SESSIONS = int(os.environ.get("SOAK_SESSIONS", "15"))
SAME = settings(
    max_examples=300,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
"""What every change must pass plays the same examples each time; the soak searches among others."""
SAME_DAYS = settings(SAME, max_examples=120, stateful_step_count=25)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_account_keeps_every_promise_in_any_sequence_of_events() -> None:
    run_state_machine_as_test(TradingMachine, settings=SAME)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_dollar_is_explained_over_days_that_nobody_planned() -> None:
    run_state_machine_as_test(DaysMachine, settings=SAME_DAYS)


def searching(examples: int) -> settings:
    """Long sequences, others each time; the same ones in the soak's short form, of one session."""
    return settings(
        SAME,
        max_examples=examples * SESSIONS,
        stateful_step_count=50,
        derandomize=SESSIONS == 1,
        database=None if SESSIONS == 1 else settings.get_profile("default").database,
    )


@pytest.mark.soak
def test_every_dollar_is_explained_over_many_days_that_nobody_planned() -> None:
    run_state_machine_as_test(DaysMachine, settings=searching(100))


@pytest.mark.soak
def test_an_account_keeps_every_promise_in_long_sequences() -> None:
    run_state_machine_as_test(TradingMachine, settings=searching(200))


def test_a_trader_killed_at_any_instant_ends_like_one_that_never_was(tmp_path: Path) -> None:
    orders = 90
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    trader.trade(undisturbed, orders)
    # Each life has an end of its own: one that outruns its killer leaves orders to the next.
    for acknowledgements, end in ((1, 30), (7, 60), (30, orders)):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.execution.trader", str(killed), str(end)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(acknowledgements)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line for line in process.stdout if line.endswith("\n")]
        process.wait()
        with Journal(killed / "journal.db") as journal:
            assert journal.fold().orders >= int(acknowledged[-1])
    trader.trade(killed, orders)
    with Journal(killed / "journal.db") as resumed, Journal(undisturbed / "journal.db") as whole:
        assert resumed.fold().orders == orders
        assert resumed.digest() == whole.digest()
        assert resumed.fold().fingerprint() == whole.fold().fingerprint()
