"""Parts that hang, and disks that are full: with the real processes, each stopped where it stands.

A process that is stopped (SIGSTOP) neither answers nor ends: it stands for whatever hangs.
"""

import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.application import SHARED, Application, processes_of
from tests.e2e.healed import await_decisions, await_gone, check_account, is_gone, pairs
from tests.e2e.test_kills import kill_part
from tests.sockets import descendants
from tests.waits import START_S, STOP_S
from trading.app.up import STOP_LIMIT_S
from trading.data.flatfiles import quotes_path
from trading.execution.journal import Journal
from trading.execution.journal.schema import beside

pytestmark = [pytest.mark.slow, pytest.mark.long]

DAY = date(2015, 12, 24)
FOLDER = SHARED / "data" / "flatfiles"
HANG_S = 30.0
ON_ACTORS = {
    "symbols": "SPY",
    "data.record": "true",
    "learning.num_learners": 1,
    "learning.num_env_runners": 1,
    "learning.answer_timeout_s": 30,
    "learning.pretrain_steps": 4096,
    "learning.update_frequency": 6,
    "learning.save_frequency": 6,
    "learning.keep_checkpoints": 2,
    "learning.gate.sessions": 20,
    "env.sessions_per_episode": 1,
    "safety.hang_s": HANG_S,
}
LEARNER, RUNNER = "_WrappedExecutable", "BatchedEnvRunner"


class Disk(NamedTuple):
    """What the application of this module has its state on."""

    folder: Path
    own: bool
    """Whether it is mounted for these tests, and small."""
    why_not: str = ""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A disk of 300 MB where one may be mounted."""
    folder = tmp_path_factory.mktemp("healing") / "state"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    yield Disk(folder, mounted.returncode == 0, mounted.stderr.strip())
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def application(disk: Disk) -> Iterator[Application]:
    with closing(Application.up(disk.folder.parent, *pairs(ON_ACTORS))) as running:
        running.wait_ready()
        yield running
        if running.alive:
            assert running.terminate() == 0, running.output()


def only(application: Application, part: str) -> int:
    (found,) = application.wait_until(part, lambda: processes_of(application, part) or None)
    return found


def learning(application: Application) -> dict[str, Any] | None:
    """The status, once it tells of the learner."""
    status = application.status()
    return status if "live_updates" in status["learner"] else None


def reasons(application: Application) -> list[str]:
    """Why it is not ready, of whichever form the answer has."""
    response = application.get("/ready")
    if response is None or response.status_code == 200:
        return []
    told = response.json()
    return told.get("reasons") or [told["reason"]]


def await_reason(application: Application, part: str) -> str:
    def told() -> str | None:
        return next((each for each in reasons(application) if part in each), None)

    return application.wait_until(f"not ready: {part}", told)


@pytest.mark.parametrize("part", ["live market", "replica"])
def test_a_killed_part_comes_back_and_who_asks_meanwhile_is_answered(
    application: Application, part: str
) -> None:
    kill_part(application, part)
    check_account(application)


def test_a_trading_thread_that_hangs_is_found_told_and_started_again(
    application: Application,
) -> None:
    """It waits for a disk that never answers: a pipe that nobody reads, in a file's place."""
    before = application.status()
    journal = application.log.parent / "state" / "journal-paper.sqlite"
    file = journal.with_name("fragment-paper.bin")
    trap = file.with_suffix(".trap")

    def hangs() -> str | None:
        if not file.exists() or not stat.S_ISFIFO(file.stat().st_mode):
            os.mkfifo(trap)
            trap.replace(file)
        return next((each for each in reasons(application) if "hangs" in each), None)

    assert "trading thread hangs" in application.wait_until("not ready: it hangs", hangs)
    file.unlink()

    def another() -> dict[str, Any] | None:
        now = application.status()
        return now if now["process"] != before["process"] else None

    application.wait_until("another process", another)
    after = await_decisions(application)
    assert after["restarts"] == before["restarts"] + 1
    application.wait_ready()
    check_account(application)
    assert "hung for" in beside(journal, ".faults").read_text()


@pytest.mark.faults
def test_a_live_market_that_is_stopped_is_started_again(application: Application) -> None:
    before = application.status()
    os.kill(before["process"], signal.SIGSTOP)
    assert "no status update for" in await_reason(application, "no status update for")
    assert application.answer("/health").status_code == 503

    def another() -> dict[str, Any] | None:
        response = application.get("/status")
        now = response.json() if response is not None and response.is_success else {}
        return now if now.get("process", before["process"]) != before["process"] else None

    application.wait_until("another process", another)
    await_decisions(application)
    application.wait_ready()
    check_account(application)
    assert is_gone(before["process"])


@pytest.mark.parametrize("part", ["MarketServerHost", LEARNER])
def test_a_part_that_hangs_is_replaced_and_trading_goes_on(
    application: Application, part: str
) -> None:
    # One that has just started again has nothing to tell of the learner before its next update.
    before = application.wait_until("the learner's figures", lambda: learning(application))
    stopped = only(application, part)
    os.kill(stopped, signal.SIGSTOP)
    application.wait_until(f"the end of the {part} that hangs", lambda: is_gone(stopped) or None)
    application.wait_until(
        f"another {part}", lambda: processes_of(application, part) - {stopped} or None
    )
    await_decisions(application)

    def learnt() -> dict[str, Any] | None:
        now = learning(application)
        updates = before["learner"]["live_updates"] + 2
        return now if now and now["learner"]["live_updates"] >= updates else None

    after = application.wait_until("updates after it", learnt)
    assert after["restarts"] == before["restarts"], "the live market never noticed"
    if part == LEARNER:
        assert after["learner"]["restarts"] > before["learner"]["restarts"]


def fill(folder: Path) -> Path:
    """A file that leaves no byte free.

    Nothing is kept in a buffer, which the close would write where there is no room any more.
    """
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (65_536, 4096, 512, 1):
            try:
                while True:
                    filler.write(b"\1" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return file


def test_a_full_disk_halts_with_the_reason_and_trading_goes_on_when_there_is_room(
    application: Application, disk: Disk
) -> None:
    if not disk.own:
        pytest.skip(f"no disk of its own can be mounted here: {disk.why_not}")
    application.wait_until("the learner's figures", lambda: learning(application))
    before = await_decisions(application)
    filler = fill(disk.folder)
    reason = await_reason(application, "disk is full")
    assert reason.startswith("halted: cannot write journal")
    assert application.answer("/health").status_code == 200
    told = application.status()
    assert told["account"]["trading_state"] == "HALTED"
    assert "disk is full" in told["account"]["trading_state_reason"]
    application.wait_until(
        "the driver says so", lambda: "HALTED until there is room" in application.output()
    )

    filler.unlink()
    application.wait_ready()
    after = await_decisions(application)
    assert after["account"]["trading_state"] == "ACTIVE"
    assert after["process"] == before["process"], "it went on by itself"
    check_account(application)

    def learns() -> bool | None:
        learner = application.status()["learner"]
        more = learner.get("live_updates", 0) > told["learner"]["live_updates"]
        return (learner.get("paused") == "" and more) or None

    application.wait_until("learning goes on", learns, START_S)


@pytest.mark.faults
def test_sigterm_ends_it_in_time_though_learner_and_runner_hang(application: Application) -> None:
    started = descendants(application.process.pid)
    for part in (LEARNER, RUNNER):
        os.kill(only(application, part), signal.SIGSTOP)
    application.process.send_signal(signal.SIGTERM)
    began_s = time.monotonic()
    code = application.wait_exit(STOP_S)
    assert time.monotonic() - began_s < STOP_LIMIT_S + STOP_S / 2
    assert code in (0, 3), application.output()
    await_gone(started)
    journal = application.log.parent / "state" / "journal-paper.sqlite"
    with Journal(journal) as opened:
        assert opened.fold().decisions > 0


@pytest.mark.faults
def test_a_disk_that_takes_no_checkpoint_and_no_recording_stops_no_trading(tmp_path: Path) -> None:
    """Files stand where the folders were: nothing can be written below them, also by root."""
    settings = {
        "symbols": "SPY",
        "data.record": "true",
        "learning.pretrain_steps": 4096,
        "learning.update_frequency": 8,
        "learning.save_frequency": 8,
    }
    with closing(Application.up(tmp_path, *pairs(settings))) as application:
        application.wait_ready()
        for name in ("checkpoints", "recordings"):
            folder = tmp_path / "state" / name
            folder.rename(folder.with_name(f"{name}-away"))
            folder.write_text("no folder")

        def told() -> dict[str, Any] | None:
            now = application.status()
            return now if now["learner"].get("paused") and now["recording"] != "on" else None

        paused = application.wait_until("learning and recording pause", told)
        assert "no checkpoint can be written" in paused["learner"]["paused"]
        after = await_decisions(application, 5)
        assert after["account"]["trading_state"] == "ACTIVE"
        assert after["restarts"] == paused["restarts"]
        for name in ("checkpoints", "recordings"):
            folder = tmp_path / "state" / name
            folder.unlink()
            folder.with_name(f"{name}-away").rename(folder)

        def goes_on() -> bool | None:
            now = application.status()["learner"]
            return (
                now["paused"] == "" and now["live_updates"] > paused["learner"]["live_updates"]
            ) or None

        application.wait_until("learning goes on", goes_on)


@pytest.mark.faults
def test_a_replay_whose_server_dies_ends_with_the_reason(tmp_path: Path) -> None:
    """A recording has one beginning: the next start goes on from the journal."""
    if not quotes_path(FOLDER, DAY).exists():
        pytest.skip(f"no recorded session at {FOLDER}: it is not part of this repository")
    replay = ["--replay", str(FOLDER), "--date", str(DAY), "--symbols", "GOOG"]
    slowly = {"data.replay.speed": 30, "learning.pretrain_steps": 0, "learning.online": "false"}
    with closing(Application.up(tmp_path, *replay, *pairs(slowly))) as application:
        application.wait_ready()
        os.kill(only(application, "MarketServerHost"), signal.SIGKILL)
        assert application.wait_exit() == 1, application.output()
        assert "the market server died" in application.output()
        assert "start again, which goes on from the journal" in application.output()
        assert "Traceback" not in application.output()
