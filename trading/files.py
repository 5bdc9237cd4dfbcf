"""Files and folders that are whole or not there, whatever moment a process or the power dies.

A file is written under another name, flushed to the disk, and renamed into its place (`replacing`);
so is a folder (`staging_folder`, then `place_folder` or `replace_folder`). Who may write is said by
a lock (`FileLock`) that the kernel drops when its holder dies, however it dies.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trading.closing import Closing

_STAGED = ".staged"
REPLACED = ".replaced"
"""What follows the name of a folder that is being replaced."""
_KERNEL_LOCKS = Path("/proc/locks")


class LockHeld(OSError):
    """Somebody else has the lock; `holder` says who, as far as the system does."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder}")
        self.path = path
        self.holder = holder

    def __reduce__(self) -> tuple[type["LockHeld"], tuple[Path, str]]:
        return type(self), (self.path, self.holder)


class FileLock(Closing):
    """An exclusive lock of a file or folder (`flock`), from the start until `close`.

    It holds among processes that share a kernel, and among several such objects in one process.

    Parameters
    ----------
    path
        A file or folder.
    wait
        Wait for the lock; else it is taken at once or refused.
    make
        Make the file where there is none, for `write`; else it must be there, and is only read.

    Raises
    ------
    LockHeld
        Somebody else has it, and `wait` is False.
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path, *, wait: bool = False, make: bool = True) -> None:
        self.path = path
        self._descriptor = -1
        while not self.is_of_its_path:  # Who had it before may have moved the file away.
            self.close()
            self._take(wait, make)

    def _take(self, wait: bool, make: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
        self._descriptor = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.close()
            raise LockHeld(self.path, lock_holder(self.path)) from None
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        # Whoever drops a lock without closing it keeps neither the lock nor its descriptor.
        if hasattr(self, "_descriptor"):
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether this object has the lock still."""
        return self._descriptor >= 0

    @property
    def is_of_its_path(self) -> bool:
        """Whether the file that is locked is still the one that the path names."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def write(self, content: bytes) -> None:
        """Replace what the file holds; a reader may see a part of it."""
        os.pwrite(self._descriptor, content, 0)
        if os.fstat(self._descriptor).st_size > len(content):
            os.ftruncate(self._descriptor, len(content))

    def close(self) -> None:
        """Let others have it; twice is allowed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody has the exclusive lock of a file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_holder(path: Path) -> str:
    """Who has the lock of a file: its process, or that this cannot be known from here.

    The kernel names processes of this PID namespace only.
    """
    try:
        stat = path.stat()
        locked = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
        lines = [line.split() for line in _KERNEL_LOCKS.read_text().splitlines()]
    except OSError:
        lines = []
    for line in lines:
        # 1: FLOCK ADVISORY WRITE 4711 fe:00:2147759 0 EOF; one that waits has "->" after the number
        if line[1] == "FLOCK" and line[5] == locked and int(line[4]) > 0:
            try:
                name = Path(f"/proc/{line[4]}/comm").read_text().strip()
            except OSError:
                continue
            return f"process {line[4]} ({name})"
    return "another process"


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(staged: Path, path: Path) -> None:
    """Give a finished file its name, in place of what had it; it survives a power cut."""
    sync(staged)
    os.replace(staged, path)
    sync(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name to write a file under that becomes `path` when the block ends well.

    Until then `path` is as it was, also when the process or the power dies. What such a death
    leaves is written over by the next; two that write one file at a time wait for each other.
    Where `path` is a link, what it leads to is replaced; a pipe or device is written to directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    staged = path.with_name(f".{path.name}{_STAGED}")
    with FileLock(staged, wait=True) as lock:
        try:
            lock.write(b"")
            yield staged
            replace(staged, path)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise


def write(path: Path, content: bytes) -> None:
    """Write a file that is whole or as it was before."""
    with replacing(path) as staged:
        staged.write_bytes(content)


@contextlib.contextmanager
def staging_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """Yield a new folder below `parent`, made where it is missing, that is gone after the block.

    What is finished in it is moved to its place by `place_folder`, `replace_folder` or `replace`.
    Folders that were left by processes that died are removed first.

    Parameters
    ----------
    prefix
        What its name begins with, and the name of nothing else below `parent`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # Nobody tidies up between the folder and its lock.
    with FileLock(parent, wait=True, make=False):
        for left in parent.iterdir():
            if left.name.startswith(prefix):
                _remove_abandoned(left)
        folder = parent / f"{prefix}{os.urandom(6).hex()}"
        folder.mkdir()
        lock = FileLock(folder, make=False)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(LockHeld, FileNotFoundError), FileLock(folder, make=False):
        shutil.rmtree(folder, ignore_errors=True)


def place_folder(staged: Path, path: Path) -> None:
    """Give a finished folder its name; it survives a power cut.

    Raises
    ------
    FileExistsError
        Something has that name.
    OSError
        The folder cannot be moved.
    """
    _sync_tree(staged)
    _rename_folder(staged, path)
    sync(path.parent)


def replace_folder(staged: Path, path: Path) -> None:
    """Give a finished folder its name, in place of what had it, which is removed.

    Between two renames neither is there by its name: `folder_or_replaced` finds it then.
    """
    _sync_tree(staged)
    replaced = _replaced(path)
    if path.exists():
        _remove(replaced)
        _rename_folder(path, replaced)
    _rename_folder(staged, path)
    sync(path.parent)
    _remove(replaced)


def folder_or_replaced(path: Path) -> Path:
    """Where the content of a folder lies: elsewhere, if its replacement was cut off."""
    replaced = _replaced(path)
    return replaced if not path.exists() and replaced.exists() else path


def _replaced(path: Path) -> Path:
    return path.with_name(path.name + REPLACED)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _rename_folder(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(f"{target} exists") from error
        raise


def _sync_tree(folder: Path) -> None:
    """Flush all that lies below a folder, and the folder; what links lead to is not flushed."""
    for below, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not (file := Path(below, name)).is_symlink():
                sync(file)
        sync(Path(below))


def takes_writes(folder: Path, size: int = 1 << 20) -> bool:
    """Whether a file of `size` bytes can be written below the folder now; it is removed again."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"\1" * size)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return True
