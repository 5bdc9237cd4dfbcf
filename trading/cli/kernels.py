"""`trading compile-kernels`: machine code that a start would otherwise compile."""

import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from trading.cli.common import failures
from trading.errors import TradingError
from trading.kernel_cache import BASELINES, CPUS_FILE, SHIPPED, compile_for, supported_cpus

_TRADING_S = 20.0
_WARM_UP_RUN = (
    "up",
    *("--duration", str(_TRADING_S)),
    # Few of everything: what counts is that each part runs once.
    *("--set", "learning.pretrain_steps=4096", "--set", "learning.update_frequency=16"),
    *("--set", "data.simulation.speed=600", "--set", "learning.gate.sessions=200"),
)
_BACKTEST = ("backtest", "--simulated", "2")
_TRIES = 8
"""Ray gives its own parts half a minute to start, which is too little on a busy machine."""


class WarmUpRunFailed(TradingError):
    """The run that shows which kernels are needed did not come to its end."""


def compile_kernels(
    folder: Annotated[Path, typer.Argument(help="Where they go.")] = SHIPPED,
) -> None:
    """Compile the kernels for common processors, so that starts from this installation need not.

    The application runs once, on a simulated market, for the least capable of these processors.
    What it compiled is compiled for the others as well. An installation with kernels uses them
    where the machine is one of these processors, and compiles everywhere else.
    """
    cpus = list(BASELINES.get(platform.machine(), {}))
    if not cpus:
        print(f"no kernels are shipped for {platform.machine()}: they are compiled when first used")
        return
    least = cpus[-1]
    with failures():
        if least not in supported_cpus():
            raise WarmUpRunFailed(
                f"this machine is no {least}: compile the kernels on a newer one, or do without"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as state:
            for words in (_warm_up_run(Path(state)), _backtest(Path(state))):
                _run([sys.executable, "-m", "trading", *words], folder, least)
        for cpu in cpus[:-1]:
            _run([sys.executable, "-m", "trading.cli.kernels", str(folder)], folder, cpu)
        (folder / CPUS_FILE).write_text("\n".join(cpus) + "\n")
    print(f"kernels for {', '.join(cpus)} in {folder}")


def compile_what_is_there(folder: Path) -> int:
    """Compile every kernel that the cache has, for its arguments, for this process's processor.

    Nothing of it runs, so the machine need not be such a processor. Returns how many there are.
    """
    import importlib
    import pkgutil

    from numba.core.registry import CPUDispatcher

    import trading

    stems = {each.name.rpartition("-")[0] for each in folder.iterdir()}
    kernels = {}
    for found in pkgutil.walk_packages(trading.__path__, "trading."):
        if found.name.rpartition(".")[2] in stems:
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, CPUDispatcher):
                    kernels[id(value)] = value
    count = 0
    for kernel in kernels.values():
        for signature in {key[0] for key in kernel._cache._cache_file._load_index()}:
            kernel.compile(signature)
            count += 1
    return count


def _warm_up_run(state: Path) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [*_WARM_UP_RUN, "--port", str(port), "--set", f"paths.state_dir={state}"]


def _backtest(state: Path) -> list[str]:
    return [*_BACKTEST, "--set", f"paths.state_dir={state}"]


def _run(command: list[str], folder: Path, cpu: str) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder.resolve())}
    compile_for(cpu, environment)
    for _ in range(_TRIES):
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            return
    raise WarmUpRunFailed(f"failed {_TRIES} times: {' '.join(command)}")


if __name__ == "__main__":
    print(f"{compile_what_is_there(Path(sys.argv[1]))} for {os.environ['NUMBA_CPU_NAME']}")
