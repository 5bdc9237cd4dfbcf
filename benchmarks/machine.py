"""The machine and the versions that figures were measured with."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VECTOR_UNITS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}
"""By the flag of `/proc/cpuinfo`."""
STAND_INS = (
    "ATEN_CPU_CAPABILITY",
    "OPENBLAS_CORETYPE",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
)
"""Variables that have libraries compute as another processor would."""
LIBRARIES = ("numpy", "numba", "torch", "ray")
PEERS = (
    *("sb3-contrib", "pufferlib", "FinRL", "gym-anytrading"),
    *("QuantLib", "fast-vollib", "massive"),
)


def processor() -> str:
    """Return its name, as the system tells it."""
    return _first("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or "unknown"


def vector_units() -> str:
    """Return those of `VECTOR_UNITS` that the processor has."""
    flags = _first("/proc/cpuinfo", r"(?:flags|Features)\s*:\s*(.+)").split()
    return ", ".join(name for flag, name in VECTOR_UNITS.items() if flag in flags) or "unknown"


def graphics() -> str:
    """Return the names of the GPUs that the driver tells."""
    with suppress(OSError, subprocess.CalledProcessError):
        return ", ".join(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"))
    return "none"


def described() -> dict[str, str]:
    """Return what figures of one run have in common, by what it is."""
    memory_kb = int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0)
    told = {
        "processor": processor(),
        "vector units": vector_units(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "memory": f"{memory_kb / 2**20:.1f} GiB",
        "GPU": graphics(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "peers": ", ".join(f"{name} {_version(name)}" for name in PEERS),
    }
    return told | {name: os.environ[name] for name in STAND_INS if name in os.environ}


def commit(root: Path) -> str:
    """Return the commit of a working tree; says so when files differ from it."""
    try:
        (name,) = _output("git", "-C", str(root), "rev-parse", "--short", "HEAD")
        changed = _output("git", "-C", str(root), "status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name} with changes" if changed else name


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first(file: str, pattern: str) -> str:
    with suppress(OSError):
        match = re.search(pattern, Path(file).read_text())
        return match[1].strip() if match else ""
    return ""


def _output(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
