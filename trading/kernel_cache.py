"""Keeps compiled kernels apart by the source they came from.

Numba's cache watches only the file of the outermost kernel. A kernel that calls one of another
module would go on with old machine code after that module changed. So the kernels of a module are
kept in a folder named after a digest of its source and of all that it imports of this package; any
of these folders may be deleted at any time.

Kernels may come with an installation (the image has them, made by `trading compile-kernels`). They
are for the processors in `BASELINES`. Where this machine is one of these they are used; elsewhere,
and for arguments that nobody foresaw, kernels are compiled.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from trading.files import place_folder, staging_folder

_PACKAGE = Path(__file__).parent
_NO_VALUES = _PACKAGE / "errors.py"
"""A kernel holds nothing of it but names."""
_IMPORT = re.compile(
    rf"^[ \t]*from[ \t]+({_PACKAGE.name}[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)"
    rf"|^[ \t]*import[ \t]+({_PACKAGE.name}[\w.]*)",
    re.MULTILINE,
)

SHIPPED = Path(sys.prefix) / "share" / "trading" / "kernels"
"""Kernels that came with this installation."""

CPUS_FILE = "cpus"
"""Beside them: the processors that they were compiled for, the most capable first."""

_SHIPPED_VARIABLE = "TRADING_SHIPPED_KERNELS"
"""Tells child processes that shipped kernels are used, and from where."""

_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})

BASELINES: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {
        "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
        "x86-64-v3": _V3,
    }
}
"""For each kind of machine the processors that kernels are shipped for, by LLVM's names (the levels
of the x86-64 psABI), and the flags in /proc/cpuinfo that such a one has at least."""


def use_cache_of_this_source() -> None:
    """Point numba to caches by source, in the folder that NUMBA_CACHE_DIR names.

    Unset, it becomes one in the user's cache folder, or in the temporary one where that cannot be
    written; and shipped kernels are used where they fit, with the processor that they are for.
    Set, kernels are compiled for this very processor. Numba reads these variables when it is
    imported.
    """
    os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", f"{__name__}.BySource")
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for base in (home, Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"):
        folder = base / "trading" / "kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        break
    cpu = best_shipped(SHIPPED, supported_cpus())
    if cpu is not None and "NUMBA_CPU_NAME" not in os.environ:
        os.environ[_SHIPPED_VARIABLE] = str(SHIPPED)
        compile_for(cpu, os.environ)


def compile_for(cpu: str, environment: MutableMapping[str, str]) -> None:
    """Have numba compile for this processor, in processes with that environment."""
    environment["NUMBA_CPU_NAME"] = cpu
    # What the name stands for and no more: else the features of this machine would be added.
    environment["NUMBA_CPU_FEATURES"] = ""


def best_shipped(shipped: Path, supported: list[str]) -> str | None:
    """Return the most capable of this machine's processors that kernels were shipped for."""
    try:
        names = (shipped / CPUS_FILE).read_text().split()
    except OSError:
        return None
    return next((name for name in names if name in supported), None)


def supported_cpus() -> list[str]:
    """Return the baselines whose every feature this machine has, the most capable first."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((set(line.split()[2:]) for line in lines if line.startswith("flags")), set())
    known = BASELINES.get(platform.machine(), {})
    return [name for name, needed in known.items() if needed <= flags]


class BySource:
    """Where numba keeps the kernels of one module: by their source, wherever that file lies.

    Two checkouts share what is equal in both, and a change costs the modules that it can reach.
    What else a kernel depends on (signature, processor, versions) numba tells apart itself.
    """

    def __init__(self, function: Any, file: Path) -> None:
        self._line = function.__code__.co_firstlineno
        self._digest = source_digest(file)
        self._folder = Path(os.environ["NUMBA_CACHE_DIR"]) / f"{file.stem}-{self._digest[:16]}"

    @classmethod
    def from_function(cls, function: Any, file: str) -> "BySource | None":
        """Numba's constructor; None where nothing can be kept."""
        if not Path(file).is_file() or "NUMBA_CACHE_DIR" not in os.environ:
            return None
        self = cls(function, Path(file).resolve())
        try:
            self.ensure_cache_path()
        except OSError:
            return None
        return self

    def ensure_cache_path(self) -> None:
        """Make the folder, with what was shipped for it; raises OSError where that cannot be."""
        if shipped := os.environ.get(_SHIPPED_VARIABLE):
            _begin_with(Path(shipped) / self._folder.name, self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """Of the source and all that it imports."""
        return self._digest

    def get_disambiguator(self) -> str:
        """Tell functions of one name in one file apart."""
        return str(self._line)


def _begin_with(shipped: Path, folder: Path) -> None:
    """Copy a folder of shipped kernels where there is none yet, as a whole."""
    if folder.exists() or not shipped.is_dir():
        return
    with staging_folder(folder.parent, f".{folder.name}-") as staged:
        shutil.copytree(shipped, staged, copy_function=shutil.copyfile, dirs_exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was faster
            place_folder(staged, folder)


@cache
def source_digest(file: Path) -> str:
    """SHA-256 of the Python version, a module, and all modules of this package below it."""
    digest = hashlib.sha256(sys.version.encode())
    for each in sorted(_reached(file)):
        digest.update(each.name.encode())
        digest.update(each.read_bytes())
    return digest.hexdigest()


def _reached(file: Path) -> set[Path]:
    """Return the module and all that it imports of this package, directly or not."""
    found, left = set[Path](), [file]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += imported_modules(module)
    return found


@cache
def imported_modules(file: Path) -> tuple[Path, ...]:
    """Files of this package's modules that a module imports itself."""
    found = set()
    for source, names, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
        folder = _PACKAGE.joinpath(*(source or plain).split(".")[1:])
        found.add(folder.with_suffix(".py"))
        # What is imported from a package may be one of its modules.
        found |= {folder / f"{name}.py" for name in re.findall(r"\w+", names)}
    return tuple(sorted(each for each in found if each != _NO_VALUES and each.is_file()))
