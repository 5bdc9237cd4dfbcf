import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trading.errors import CheckpointError
from trading.learning.checkpoints import (
    CheckpointStore,
    load_module_weights,
    verify,
    write_weights_file,
)


def write(content: bytes) -> object:
    def fill(directory: Path) -> None:
        (directory / "learner").mkdir()
        (directory / "learner" / "state").write_bytes(content)

    return fill


def content(path: Path) -> bytes:
    return (path / "learner" / "state").read_bytes()


def test_the_latest_is_the_one_saved_last_with_its_metadata(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new" / "store", keep=3)
    assert store.latest() is None
    store.save(write(b"one"), {"step": 9})
    path = store.save(write(b"two"), {"step": 10, "seed": 7, "note": "x"})
    assert path.name == "step-000000010"
    assert store.latest() == (path, {"step": 10, "seed": 7, "note": "x"})
    assert content(path) == b"two"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3, 1_000_000_000):
        store.save(write(b"x"), {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000003", "step-1000000000"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for text in (b"old", b"new"):
        path = store.save(write(text), {"step": 5})
    assert content(path) == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000005"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no_manifest", "garbage"])
def test_a_damaged_latest_is_skipped_with_a_warning(tmp_path: Path, caplog, damage: str) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    good = store.save(write(b"good"), {"step": 1})
    bad = store.save(write(b"later"), {"step": 2})
    file, manifest = bad / "learner" / "state", bad / "manifest.json"
    if damage == "truncated":
        file.write_bytes(b"lat")
    elif damage == "flipped":
        file.write_bytes(b"latex")
    elif damage == "missing":
        file.unlink()
    elif damage == "no_manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(b"\xff{")
    assert store.latest() == (good, {"step": 1})
    assert "step-000000002" in caplog.text


def test_a_failing_writer_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    good = store.save(write(b"good"), {"step": 1})

    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(fail, {"step": 2})
    assert store.latest() == (good, {"step": 1})
    store.save(write(b"next"), {"step": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000001", "step-000000003"]


def test_a_second_owner_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    one, two = (CheckpointStore(tmp_path, keep=3) for _ in range(2))
    with one.owned():
        with pytest.raises(CheckpointError, match=f"trains into {tmp_path}"), two.owned():
            pass
        one.save(write(b"x"), {"step": 1})
    with two.owned():
        assert two.steps() == [1]


@pytest.mark.parametrize("metadata", [{}, {"step": -1}, {"step": "7"}])
def test_a_checkpoint_needs_a_step(tmp_path: Path, metadata: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="step"):
        CheckpointStore(tmp_path, keep=1).save(write(b""), metadata)


def test_an_empty_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing was written"):
        CheckpointStore(tmp_path, keep=1).save(lambda _: None, {"step": 1})


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at least 1"):
        CheckpointStore(tmp_path, keep=0)


ENDLESS_WRITER = """
import sys
from pathlib import Path
from trading.learning.checkpoints import CheckpointStore

store = CheckpointStore(Path(sys.argv[1]), keep=2)

def fill(directory):
    for name in range(8):
        (directory / f"part-{name}").write_bytes(bytes(65536))

for step in range(1_000_000):
    store.save(fill, {"step": step // 2})
    print(step // 2, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 3, 4, 8, 13])
def test_a_killed_writer_leaves_what_it_had_acknowledged(tmp_path: Path, kill_after: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    acknowledged = -1
    for _ in range(kill_after):
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready, "the writer made no progress"
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = CheckpointStore(tmp_path, keep=2)
    latest = store.latest()
    assert latest is not None
    path, metadata = latest
    assert metadata["step"] >= acknowledged
    assert verify(path) == metadata
    store.save(write(b"goes on"), {"step": metadata["step"] + 1})
    assert store.latest()[1] == {"step": metadata["step"] + 1}


def test_module_weights_are_read_without_running_code(tmp_path: Path) -> None:
    module = tmp_path / "learner_group" / "learner" / "rl_module" / "default_policy"
    module.mkdir(parents=True)
    state = {"clstm.value_head.bias": np.ones(1, np.float32)}
    (module / "module_state.pkl").write_bytes(pickle.dumps(state))
    for path in (tmp_path, module):
        np.testing.assert_array_equal(load_module_weights(path)["value_head.bias"], [1.0])
    marker = tmp_path / "ran"
    (module / "module_state.pkl").write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(CheckpointError, match="not allowed"):
        load_module_weights(tmp_path)
    assert not marker.exists()


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1]),
        pickle.dumps({5: np.zeros(1)}),
        pickle.dumps({"a": np.array([None])}),
        # Of damaged ones: what no memory has room for, and a frame that no system knows.
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
        b"\x80\x04\x8e" + b"\x00" * 6 + b"\xff\x7f.",
        None,
    ],
)
def test_unreadable_module_weights_are_refused(tmp_path: Path, state: bytes | None) -> None:
    if state is not None:
        (tmp_path / "module_state.pkl").write_bytes(state)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_module_weights(tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 100, -40, -1])
def test_a_cut_file_of_weights_is_refused(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "model.pt"
    write_weights_file(file, {"value_head.bias": np.ones(64, np.float32)})
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=str(file)):
        load_module_weights(file)
