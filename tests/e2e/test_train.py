"""`trading train` stopped, killed, and started again."""

import re
import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.application import Application
from tests.waits import STOP_S
from trading.learning.build import PRETRAINED
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROLLOUT = 64 * 64
STEPS = 12 * ROLLOUT


def train(tmp_path: Path, run: str) -> Application:
    return Application(
        tmp_path / run,
        *("train", "--steps", str(STEPS), "--set", f"paths.state_dir={tmp_path / 'state'}"),
        *("--set", f"learning.pretrain_save_frequency={ROLLOUT}"),
    )


def wait_for_decisions(training: Application, more_than: int) -> None:
    def learned() -> bool | None:
        lines = re.findall(r"pre-training ([\d,]+) of", training.output())
        return True if lines and int(lines[-1].replace(",", "")) > more_than else None

    training.wait_until(f"more than {more_than} decisions", learned)


def test_a_training_that_was_stopped_or_killed_goes_on_with_the_rest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "state" / "checkpoints", 5)

    def newest() -> dict[str, int]:
        found = store.latest()
        assert found is not None
        return found[1]

    with closing(train(tmp_path, "stopped")) as stopped:
        wait_for_decisions(stopped, 0)
        assert stopped.terminate() == 0, stopped.output()
    assert "interrupted: the same command goes on with the rest" in stopped.output()
    done = newest()[PRETRAINED]
    assert 0 < done < STEPS
    assert newest()["step"] == done // ROLLOUT

    with closing(train(tmp_path, "killed")) as killed:
        wait_for_decisions(killed, done + ROLLOUT)
        killed.process.send_signal(signal.SIGKILL)
        assert killed.wait_exit(STOP_S) == -signal.SIGKILL, killed.output()
    assert f"had learned {done:,} decisions" in killed.output()
    done, before = newest()[PRETRAINED], done
    assert before < done < STEPS

    with closing(train(tmp_path, "finished")) as finished:
        assert finished.wait_exit() == 0, finished.output()
    assert f"had learned {done:,} decisions" in finished.output()
    assert f"learned {STEPS:,} of {STEPS:,} decisions" in finished.output()
    assert newest() == {"step": 12, "version": 12}

    with closing(train(tmp_path, "more")) as more:
        wait_for_decisions(more, 0)
        assert more.terminate() == 0, more.output()
    assert "had learned" not in more.output()
    assert newest()["step"] > 12 and newest()[PRETRAINED] < STEPS


def test_a_second_training_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "state" / "checkpoints", 5)
    with store.owned(), closing(train(tmp_path, "second")) as second:
        assert second.wait_exit() == 1, second.output()
    assert f"trading: another process trains into {store.directory}" in second.output()
    assert store.latest() is None


def test_trading_begins_with_what_was_trained_to_the_end_only(tmp_path: Path) -> None:
    quick = ("--set", f"learning.pretrain_steps={STEPS}")
    with closing(Application.up(tmp_path, *quick)) as stopped:
        wait_for_decisions(stopped, 0)
        assert stopped.terminate() == 0, stopped.output()
    store = CheckpointStore(tmp_path / "state" / "checkpoints", 5)
    found = store.latest()
    assert found is not None and PRETRAINED in found[1]
    assert not (store.directory / "champions").exists(), "half a training is no champion"
    with closing(Application.up(tmp_path, *quick)) as second:
        second.wait_until("a champion", lambda: "champion: 1" in second.output() or None)
        assert second.terminate() == 0, second.output()
    assert f"policy: pre-training on {STEPS:,} simulated decisions" in second.output()
    assert "champion: 1 (version 12)" in second.output()
