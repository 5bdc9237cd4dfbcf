"""Files and folders that are whole or not there; locks that say who has them."""

import os
import pickle
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trading import files
from trading.files import (
    REPLACED,
    FileLock,
    LockHeld,
    folder_or_replaced,
    is_locked,
    place_folder,
    replace_folder,
    replacing,
    staging_folder,
    write,
)

SYSTEM_CALLS = ("fsync", "replace", "rename")
"""What brings a file or folder to its place, in stages."""


class Died(BaseException):
    """The process or the power died."""


def dying_at(call: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Let the process die at its call-th system call of these, and all that it does after it."""
    made: list[str] = []

    def stage(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **named: object) -> object:
            made.append(name)
            if len(made) >= call:
                raise Died
            return original(*arguments, **named)

        return called

    for name in SYSTEM_CALLS:
        patch.setattr(os, name, stage(name, getattr(os, name)))
    return made


@contextmanager
def process(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has run `code` and waits; killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "\n"
        yield child
    finally:
        child.kill()
        child.communicate()


LOCKING = "import sys; from trading.files import *; lock = FileLock(Path(sys.argv[1]))"


def test_a_lock_that_another_process_has_names_it_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with process(LOCKING, path) as holder:
        with pytest.raises(LockHeld) as held:
            FileLock(path)
        assert held.value.holder.startswith(f"process {holder.pid} (")
        assert str(held.value) == f"{path} is locked by {held.value.holder}"
        assert str(pickle.loads(pickle.dumps(held.value))) == str(held.value)
        assert is_locked(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with FileLock(path) as lock:
        assert lock.is_open
    assert not lock.is_open
    assert not is_locked(path)


def test_where_the_system_does_not_name_the_holder_there_is_still_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_KERNEL_LOCKS", tmp_path / "absent")
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(LockHeld, match="is locked by another process"),
    ):
        FileLock(tmp_path / "lock")


def test_a_lock_that_is_dropped_is_free(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    del lock
    FileLock(tmp_path / "lock").close()


def test_a_lock_is_of_the_file_that_has_the_name_now(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    before = FileLock(path)
    path.rename(tmp_path / "moved")
    with FileLock(path) as now:
        assert now.is_of_its_path
        assert not before.is_of_its_path
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "absent", make=False)


def test_the_content_of_a_lock_is_replaced(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        lock.write(b"a long one")
        lock.write(b"short")
    assert (tmp_path / "lock").read_bytes() == b"short"


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_file_is_the_old_or_the_new_one_whatever_moment_its_writer_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with monkeypatch.context() as patch:
        made = dying_at(call, patch)
        if call < 4:
            with pytest.raises(Died):
                write(path, b"new")
        else:
            write(path, b"new")
    # The content is on the disk before the name is, and the name before anybody is told.
    assert made == ["fsync", "replace", "fsync"][:call]
    assert path.read_bytes() == (b"old" if call < 3 else b"new")
    write(path, b"newest")
    assert path.read_bytes() == b"newest"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writing = (
        "import sys; from trading.files import *; at = replacing(Path(sys.argv[1]));"
        "staged = at.__enter__(); staged.write_bytes(b'half and more')"
    )
    with process(writing, path) as writer:
        assert len(os.listdir(tmp_path)) == 1
        assert not path.exists()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as staged:
        staged.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, b"told")
    assert os.read(reader, 10) == b"told"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def fill(folder: Path, content: str) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text(content)
    (folder / "link").symlink_to("nowhere")


def content_of(folder: Path) -> str:
    assert (folder / "link").is_symlink()
    return (folder / "below" / "file").read_text()


def test_an_abandoned_folder_is_removed_and_one_that_is_in_use_is_not(tmp_path: Path) -> None:
    staging = (
        "import sys; from trading.files import *; at = staging_folder(Path(sys.argv[1]), '.new-');"
        "(at.__enter__() / 'file').touch()"
    )
    (tmp_path / "other").mkdir()
    with process(staging, tmp_path) as writer:
        (used,) = tmp_path.glob(".new-*")
        with staging_folder(tmp_path, ".new-") as staged:
            assert set(tmp_path.glob(".new-*")) == {used, staged}
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert list(tmp_path.glob(".new-*")) == [used]
    with staging_folder(tmp_path, ".new-") as staged:
        assert list(tmp_path.glob(".new-*")) == [staged]
    assert os.listdir(tmp_path) == ["other"]


def test_a_folder_takes_a_name_that_is_free_and_no_other(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with staging_folder(tmp_path, ".new-") as staged:
            fill(staged, content)
            if content == "first":
                place_folder(staged, tmp_path / "folder")
            else:
                with pytest.raises(FileExistsError, match="folder exists"):
                    place_folder(staged, tmp_path / "folder")
    assert content_of(tmp_path / "folder") == "first"
    assert os.listdir(tmp_path) == ["folder"]


STAGES = ["fsync", "fsync", "fsync", "rename", "rename", "fsync"]
"""The file, its folder, the staged folder; the old one away, the new one there; the names."""


@pytest.mark.parametrize("call", range(1, len(STAGES) + 2))
def test_a_folder_is_the_old_or_the_new_one_whatever_moment_its_writer_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    folder = tmp_path / "folder"

    def replace_by(content: str) -> None:
        with staging_folder(tmp_path, ".new-") as staged:
            fill(staged, content)
            replace_folder(staged, folder)

    replace_by("old")
    with monkeypatch.context() as patch:
        made = dying_at(call, patch)
        if call <= len(STAGES):
            with pytest.raises(Died):
                replace_by("new")
        else:
            replace_by("new")
    assert made == STAGES[:call]
    assert content_of(folder_or_replaced(folder)) == ("old" if call < 6 else "new")
    replace_by("newest")
    assert content_of(folder) == "newest"
    assert os.listdir(tmp_path) == ["folder"]
    assert not (tmp_path / f"folder{REPLACED}").exists()


def test_no_other_module_locks_flushes_or_stages_files_by_itself() -> None:
    package = Path(files.__file__).parent
    own = re.compile(r"\bfcntl\b|os\.(replace|rename|fsync)\b|\bmkdtemp\b|\.replace\(\w*path\)")
    found = {file.name for file in package.rglob("*.py") if own.search(file.read_text())}
    assert found == {"files.py"}
