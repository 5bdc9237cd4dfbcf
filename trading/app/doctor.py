"""Looks at what a run needs of the machine and of the vendor, and says what to do."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from trading.config import Settings
from trading.errors import AuthenticationFailed, DataError, NotEntitled

GIB = 2**30
_MIN_MEMORY_GIB, _MIN_DISK_GIB = 4.0, 2.0
_PYTHON = (3, 11)
_CLOCK_OFF_S = 1.0


class Finding(NamedTuple):
    """What one check found."""

    name: str
    level: str
    """ok, warn (it runs, but) or fail (it will not run)."""
    says: str
    do: str = ""
    """The way out."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; none of them changes anything."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python,
        _cores,
        _memory,
        _shared_memory,
        _state_disk,
        _checkpoint_disk,
        _port,
        _clock,
        _ray,
        _gpu,
        _compiler,
        _key,
    )
    for check in checks:
        try:
            yield check(settings)
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            yield Finding(name, "warn", f"cannot be looked at: {type(error).__name__}: {error}")


def _python(_: Settings) -> Finding:
    says = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < _PYTHON:
        return Finding("python", "fail", says, "use Python 3.11 or newer")
    return Finding("python", "ok", says)


def _cores(_: Settings) -> Finding:
    cores = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    allowed = min(cores, quota) if quota else cores
    load = os.getloadavg()[0]
    says = f"{allowed:g} of {os.cpu_count()} cores, load {load:.1f}"
    if allowed < 2:
        do = "trading and learning share one core: learning.online=false, or more cores"
        return Finding("cores", "warn", says, do)
    if load > 2 * allowed:
        return Finding("cores", "warn", says, "others keep the cores busy: starting takes minutes")
    return Finding("cores", "ok", says)


def _cpu_quota() -> float:
    """Cores that a container may use; 0 without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return 0.0
    return 0.0 if quota == "max" else int(quota) / int(period)


def _memory(settings: Settings) -> Finding:
    total, free = _memory_gib()
    says = f"{free:.1f} of {total:.1f} GiB free"
    if free < _MIN_MEMORY_GIB:
        do = (
            f"{_MIN_MEMORY_GIB:g} GiB are needed: end other programs, or lower learning.num_envs "
            f"({settings.learning.num_envs}) and ray.object_store_mb "
            f"({settings.ray.object_store_mb})"
        )
        return Finding("memory", "warn", says, do)
    return Finding("memory", "ok", says)


def _memory_gib() -> tuple[float, float]:
    """Of the machine, or of the container where that has less: all, and what is free."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):
        pass  # no limit
    return total / GIB, free / GIB


def _shared_memory(settings: Settings) -> Finding:
    needed = settings.ray.object_store_mb * 2**20
    free = shutil.disk_usage("/dev/shm").free
    says = f"{free / GIB:.2f} GiB free in /dev/shm"
    if free < needed:
        do = (
            f"ray.object_store_mb = {settings.ray.object_store_mb} does not fit, Ray would use the "
            "disk: give the container more (--shm-size), or lower the setting"
        )
        return Finding("shared memory", "warn", says, do)
    return Finding("shared memory", "ok", says)


def _state_disk(settings: Settings) -> Finding:
    return _disk("state", "paths.state_dir", settings.paths.state_dir)


def _checkpoint_disk(settings: Settings) -> Finding:
    return _disk("checkpoints", "paths.checkpoint_dir", settings.paths.checkpoints)


def _disk(name: str, key: str, folder: Path) -> Finding:
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        do = f"make it writable for {_user()}, or name another folder with {key}"
        what = "cannot be written" if there.is_dir() else "is no folder"
        return Finding(name, "fail", f"{there} {what}", do)
    free = shutil.disk_usage(there).free / GIB
    says = f"{free:.1f} GiB free at {folder}"
    if free < _MIN_DISK_GIB:
        do = f"make room: journal and checkpoints of a month need {_MIN_DISK_GIB:g} GiB"
        return Finding(name, "warn", says, do)
    return Finding(name, "ok", says)


def _user() -> str:
    return f"user {os.getuid()}"


def _port(settings: Settings) -> Finding:
    host, port = settings.serving.host, settings.serving.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            do = "end what uses it (is it trading already?), or choose another with --port"
            return Finding("port", "fail", f"{host}:{port}: {error.strerror}", do)
    return Finding("port", "ok", f"{host}:{port} is free")


def _clock(settings: Settings) -> Finding:
    """By the vendor's own clock where there is a key, else by what the kernel says."""
    if settings.data.source == "massive" and settings.credentials.massive_api_key is not None:
        from trading.data.massive.client.rest import RestClient

        massive, key = settings.data.massive, settings.credentials.massive_api_key
        try:
            with RestClient(massive.rest_address, key.get_secret_value()) as rest:
                off_s = time.time() - rest.market_status().server_ns / 1e9
        except DataError as error:
            return Finding("clock", "warn", f"the vendor does not tell the time: {error}")
        says = f"{off_s:+.1f} s from the vendor's"
        if abs(off_s) > _CLOCK_OFF_S + 1.0:  # which it tells in whole seconds
            return Finding("clock", "warn", says, "let NTP set the clock: timedatectl set-ntp true")
        return Finding("clock", "ok", says)
    done = subprocess.run(
        ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if done.stdout.strip() == "no":
        do = "let NTP set the clock: timedatectl set-ntp true"
        return Finding("clock", "warn", "not synchronised", do)
    return Finding("clock", "ok", "synchronised" if done.returncode == 0 else "nobody says")


def _ray(settings: Settings) -> Finding:
    from importlib.metadata import version

    address = settings.ray.address or os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding("ray", "ok", f"{version('ray')}, a local one")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return Finding("ray", "ok", f"{version('ray')}, {address}")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        do = "start the cluster, or correct ray.address or RAY_ADDRESS"
        return Finding("ray", "fail", f"{address} does not answer: {error}", do)
    return Finding("ray", "ok", f"{version('ray')}, {address} answers")


def _gpu(settings: Settings) -> Finding:
    wanted = settings.learning.gpus_per_learner or 0
    tool = shutil.which("nvidia-smi")
    if tool is None:
        if wanted:
            do = "install NVIDIA's driver, or set learning.gpus_per_learner to 0"
            return Finding("gpu", "fail", f"none, {wanted} are asked for", do)
        return Finding("gpu", "ok", "none: learning is on the processor")
    query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run([tool, *query], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        do = "the driver does not answer: see `nvidia-smi`"
        return Finding("gpu", "fail" if wanted else "warn", done.stdout.strip()[:200], do)
    import torch

    says = "; ".join(done.stdout.strip().splitlines())
    if not torch.cuda.is_available():
        do = "this PyTorch is for processors: install one that is built for CUDA"
        return Finding("gpu", "fail" if wanted else "warn", says, do)
    return Finding("gpu", "ok", says)


def _compiler(settings: Settings) -> Finding:
    cache = os.environ.get("NUMBA_CACHE_DIR")
    if settings.learning.compile and shutil.which("c++") is None:
        do = "install a C++ compiler (apt-get install g++), or set learning.compile to false"
        return Finding("compiler", "fail", "learning.compile is set and there is no c++", do)
    if cache is None:
        do = "every start compiles its kernels: make ~/.cache writable, or set NUMBA_CACHE_DIR"
        return Finding("compiler", "warn", "compiled kernels cannot be kept", do)
    return Finding("compiler", "ok", f"compiled kernels are kept in {cache}")


def _key(settings: Settings) -> Finding:
    key = settings.credentials.massive_api_key
    if settings.data.source != "massive":
        return Finding("vendor", "ok", f"not asked: data.source is {settings.data.source}")
    if key is None:
        do = "export MASSIVE_API_KEY, or use data.source=simulation"
        return Finding("vendor", "fail", "no API key", do)
    from trading.data.massive.client.rest import RestClient

    symbol = settings.symbols[0]
    try:
        with RestClient(settings.data.massive.rest_address, key.get_secret_value()) as rest:
            rest.market_status()
            rest.option_chain_snapshot(symbol)
    except AuthenticationFailed as error:
        return Finding("vendor", "fail", str(error), "correct MASSIVE_API_KEY")
    except NotEntitled as error:
        do = "the key's plan lacks it: option quotes in real time are needed"
        return Finding("vendor", "fail", str(error), do)
    except DataError as error:
        return Finding("vendor", "warn", str(error), "see the vendor's status page, try again")
    return Finding("vendor", "ok", f"the key is accepted, and options of {symbol} are included")
