"""Checkpoints on disk that are either whole or not there.

A checkpoint is a directory such as `step-000000123` whose `manifest.json` lists every file with
its size and SHA-256. It is written under another name, flushed to disk, and renamed into place.
"""

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading.errors import CheckpointError
from trading.files import (
    REPLACED,
    FileLock,
    LockHeld,
    replace_folder,
    replacing,
    staging_folder,
)
from trading.logs import get_logger

# A list of checkpoints is read without torch, which takes seconds to load.
if TYPE_CHECKING:
    from trading.learning.policy import Weights

logger = get_logger(__name__)

MANIFEST = "manifest.json"
WEIGHTS_SUFFIX = ".pt"
"""Of a file that holds the network's weights alone."""
BEGIN_ANEW = (
    "or begin anew: name another paths.checkpoint_dir, learn there by `trading train` and, where "
    "the account has had a champion, let the result trade by `trading checkpoints promote step-N`"
)
"""The way out of a checkpoint that no longer fits: the account's journal names its champion, and a
start does not look for another one in an empty folder."""
_FORMAT = 1
_WRITING = ".writing-"
_OWNER = ".owner"
_MODULE_STATE = "module_state.pkl"
_LEARNERS = "learner_group"
_MODULE_IN_ALGORITHM = Path(_LEARNERS) / "learner/rl_module/default_policy"
_NETWORK_PREFIX = "clstm."


class CheckpointStore:
    """Keeps the last K checkpoints of one writer in one directory.

    Parameters
    ----------
    directory
        Made when missing. One process writes, see `owned`; any may read.
    keep
        Checkpoints kept, at least 1; older ones are removed after each save.
    name
        What their directories' names begin with.
    noted
        JSON values that every checkpoint's metadata tells beside its own.

    Raises
    ------
    CheckpointError
        `keep` is less than 1.
    """

    def __init__(
        self,
        directory: Path,
        keep: int,
        name: str = "step",
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"keep is {keep}; at least 1 checkpoint must be kept")
        self.directory = Path(directory).resolve()
        self.keep = keep
        self._name = name
        self._noted = dict(noted or {})
        self._pattern = re.compile(rf"{name}-(\d{{9,}})({re.escape(REPLACED)})?")
        self.directory.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keep out other writers that ask for it, until the body or the process ends.

        Raises
        ------
        CheckpointError
            Another process has it.
        """
        try:
            lock = FileLock(self.directory / _OWNER)
        except LockHeld as held:
            raise CheckpointError(
                f"another process trains into {self.directory} ({held.holder}): end it, or name "
                "another paths.checkpoint_dir"
            ) from None
        with lock:
            yield

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies, if it exists."""
        return self.directory / f"{self._name}-{step:09d}"

    def steps(self) -> list[int]:
        """Return steps of the checkpoints on disk, rising; damaged ones too."""
        return sorted({step for step, _ in self._found()})

    def save(
        self,
        write: Callable[[Path], object],
        metadata: dict[str, Any],
        spared: Collection[int] = (),
        others: Collection[int] = (),
    ) -> Path:
        """Write one checkpoint; a crash at any instant leaves the earlier ones whole.

        Parameters
        ----------
        write
            Fills the empty directory that it is given.
        metadata
            JSON values; `metadata["step"]` is an integer >= 0 and names the checkpoint. A
            checkpoint of the same step is replaced.
        spared
            Steps that are kept however old they are.
        others
            Steps that are not this writer's: neither counted nor removed.

        Returns
        -------
        Path
            The checkpoint's directory.

        Raises
        ------
        CheckpointError
            `metadata` lacks a valid step, or `write` wrote nothing.
        """
        step = metadata.get("step")
        if not isinstance(step, int) or step < 0:
            raise CheckpointError(f'metadata["step"] is {step!r}; it must be an integer >= 0')
        target = self.path(step)
        with staging_folder(self.directory, _WRITING) as temporary:
            write(temporary)
            _write_manifest(temporary, {**self._noted, **metadata})
            replace_folder(temporary, target)
        own = [each for each in self._found() if each[0] not in others]
        for kept, path in own[self.keep :]:
            if kept not in spared:
                shutil.rmtree(path)
        return target

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint that is whole, with its metadata; None when there is none.

        A damaged one is skipped with a warning.
        """
        for _, path in self._found():
            try:
                return path, verify(path)
            except CheckpointError as error:
                logger.warning("skipping a damaged checkpoint: %s", error)
        return None

    def _found(self) -> list[tuple[int, Path]]:
        """Return steps and directories, the newest first."""
        found = []
        for path in self.directory.iterdir():
            if match := self._pattern.fullmatch(path.name):
                found.append((int(match[1]), match[2] is None, path))
        return [(step, path) for step, _, path in sorted(found, reverse=True)]


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest; return the metadata.

    Raises
    ------
    CheckpointError
        The manifest or a file is missing or differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files, metadata = dict(manifest["files"]), dict(manifest["metadata"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has no readable {MANIFEST}: {error}") from error
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest.get('format')!r}; this version reads {_FORMAT}"
        )
    for name, expected in files.items():
        try:
            actual = _describe(path / name)
        except OSError as error:
            raise CheckpointError(f"{path} lacks {name}: {error}") from error
        if actual != expected:
            raise CheckpointError(f"{path / name} differs from the manifest")
    return metadata


def load_module_weights(path: Path) -> "Weights":
    """Read the weights of an algorithm's checkpoint, an RLModule's, or a file of weights.

    Raises
    ------
    CheckpointError
        There is no module state at `path`, it cannot be read, or it holds something else than
        arrays.
    """
    path = Path(path)
    if path.is_file():
        return _load_weights_file(path)
    candidates = [path / _MODULE_STATE, path / _MODULE_IN_ALGORITHM / _MODULE_STATE]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{path} holds no {_MODULE_STATE}; give the directory of an algorithm's or an "
            f"RLModule's checkpoint, or a file of weights ({WEIGHTS_SUFFIX})"
        )
    try:
        with file.open("rb") as stream:
            state = _ArrayUnpickler(stream).load()
    except Exception as error:  # damaged, it may fail in any way
        raise _unreadable(file, error) from error
    if not _is_by_name(state, np.ndarray) or any(
        v.dtype.kind not in "fiub" for v in state.values()
    ):
        raise CheckpointError(f"{file} does not hold numbers by name; is it another model's?")
    return {name.removeprefix(_NETWORK_PREFIX): array for name, array in state.items()}


def _load_weights_file(file: Path) -> "Weights":
    import torch

    try:
        # Tensors and nothing that could run code.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, it may fail in any way
        raise _unreadable(file, error) from error
    if not _is_by_name(state, torch.Tensor):
        raise CheckpointError(
            f"{file} does not hold tensors by name, as `trading checkpoints export` writes them"
        )
    return {name.removeprefix(_NETWORK_PREFIX): v.float().numpy() for name, v in state.items()}


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    """Return the error of a file of weights that cannot be read; the first line says enough."""
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{file} cannot be read: {told}")


def _is_by_name(state: object, kind: type) -> bool:
    """Whether it is a dict of such values by names."""
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, kind) for name, value in state.items()
    )


def write_weights_file(file: Path, weights: "Weights") -> None:
    """Write the network's weights as one file of tensors by name (`torch.save`), as a whole."""
    import torch

    tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    with replacing(file) as staged:
        torch.save(tensors, staged)


def write_module_weights(directory: Path, weights: "Weights") -> None:
    """Write the network's weights as an RLModule's checkpoint keeps them."""
    state = {f"{_NETWORK_PREFIX}{name}": array for name, array in weights.items()}
    (directory / _MODULE_STATE).write_bytes(pickle.dumps(state))


def holds_algorithm(path: Path) -> bool:
    """Whether a whole algorithm can be restored from there, not the network alone."""
    return (path / _LEARNERS).is_dir()


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts of NumPy arrays and refuses everything else, which could run code."""

    _ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")
        return super().find_class(module, name)


def _write_manifest(directory: Path, metadata: dict[str, Any]) -> None:
    files = sorted(_files(directory))
    if not files:
        raise CheckpointError(f"nothing was written to {directory}; a checkpoint needs a file")
    manifest = {
        "format": _FORMAT,
        "metadata": metadata,
        "files": {file.relative_to(directory).as_posix(): _describe(file) for file in files},
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def _describe(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
