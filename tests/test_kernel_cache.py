"""The cache of compiled kernels, asked by checkouts of its own in processes of their own."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from trading import kernel_cache
from trading.kernel_cache import source_digest

PACKAGE = Path(kernel_cache.__file__).parent
MONEY = Path("execution/money.py")
CASH = """
import numpy as np
from trading.execution.fees import NO_FEES
from trading.execution.matching import fill_cash
one = np.ones(1, np.int64)
print(fill_cash(one.astype(np.int8), one, np.full(1, 1.5), 1, 1, 100.0, NO_FEES)[0])
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package, the parent of `trading`."""
    return copied(tmp_path / "one")


def copied(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "trading", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(checkout: Path, code: str, cache: Path) -> str:
    """What a process of this checkout prints."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")},
        "PYTHONPATH": str(checkout),
        "NUMBA_CACHE_DIR": str(cache),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=env, cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiled(cache: Path) -> set[Path]:
    return set(cache.rglob("*.nbc"))


def test_two_checkouts_share_their_kernels(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = "from trading.execution.money import round_usd; print(round_usd(1.0000004))"
    assert run(checkout, code, cache) == "1.0"
    made = compiled(cache)
    assert len(made) == 1
    assert run(copied(tmp_path / "two"), code, cache) == "1.0"
    assert compiled(cache) == made


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(
    checkout: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert run(checkout, CASH, cache) == "-150.0"
    money = checkout / "trading" / MONEY
    money.write_text(money.read_text().replace("amount * 1e6) / 1e6", "amount * 1e6) / 1e6 + 1.0"))
    assert run(checkout, CASH, cache) == "-149.0"


def test_the_digest_is_of_what_a_module_reaches_and_of_nothing_else(checkout: Path) -> None:
    package = checkout / "trading"
    digests = """
from pathlib import Path
from trading.kernel_cache import source_digest
for name in ("envs/market_snapshots.py", "market/draws.py", "learning/kernels/network.py"):
    print(source_digest(Path("trading").resolve() / name))
"""
    cache = checkout / "cache"
    before = run(checkout, digests, cache).splitlines()
    for unrelated in ("execution/journal/journal.py", "errors.py", "cli/main.py"):
        (package / unrelated).write_text((package / unrelated).read_text() + "\nCHANGED = 1\n")
    assert run(checkout, digests, cache).splitlines() == before
    (package / MONEY).write_text((package / MONEY).read_text() + "\nCHANGED = 1\n")
    after = run(checkout, digests, cache).splitlines()
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_modules_imported_from_a_package_or_in_parentheses_count() -> None:
    module = PACKAGE / "learning" / "kernels" / "network.py"
    reached = kernel_cache.imported_modules(module)
    assert PACKAGE / "learning" / "kernels" / "lstm.py" in reached
    assert source_digest(module) != source_digest(PACKAGE / "learning" / "kernels" / "lstm.py")


USD = "from trading.execution.money import round_usd; print(round_usd(1.0000004))"
AVX2 = "x86-64-v3"


@pytest.fixture
def installation(checkout: Path, tmp_path: Path) -> Path:
    """A prefix of its own, with a kernel that was shipped for processors with AVX2."""
    if AVX2 not in kernel_cache.supported_cpus():
        pytest.skip(f"this machine is no {AVX2}: shipped kernels would not run on it")
    prefix = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    shipped = prefix / "share" / "trading" / "kernels"
    shipped.mkdir(parents=True)
    environment = {"NUMBA_CACHE_DIR": str(shipped)}
    kernel_cache.compile_for(AVX2, environment)
    assert installed(prefix, checkout, USD, environment) == "1.0"
    assert len(compiled(shipped)) == 1
    (shipped / kernel_cache.CPUS_FILE).write_text(f"{AVX2}\n")
    return prefix


def installed(prefix: Path, checkout: Path, code: str, environment: dict[str, str]) -> str:
    """What a process of this installation prints; its own cache is `cache` in the prefix."""
    paths = [str(checkout), *(path for path in sys.path if path.endswith("site-packages"))]
    mine = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "TRADING_"))},
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_CACHE_HOME": str(prefix / "cache"),
        **environment,
    }
    done = subprocess.run(
        [str(prefix / "bin" / "python"), "-c", code],
        env=mine,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_shipped_kernels_are_used_where_the_processor_is_one_of_theirs(
    checkout: Path, installation: Path
) -> None:
    shipped = installation / "share" / "trading" / "kernels"
    assert installed(installation, checkout, USD, {}) == "1.0"
    names = {each.relative_to(shipped) for each in compiled(shipped)}
    cache = installation / "cache" / "trading" / "kernels"
    assert {each.relative_to(cache) for each in compiled(cache)} == names
    # In a child that inherits what this process set, and for other arguments.
    child = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {USD!r}], check=True);"
        "from trading.execution.money import round_usd; round_usd(3)"
    )
    assert installed(installation, checkout, child, {}) == "1.0"
    assert len(compiled(cache)) == len(names) + 1


def test_kernels_of_other_processors_or_sources_are_not_used(
    checkout: Path, installation: Path
) -> None:
    cache = installation / "cache" / "trading" / "kernels"
    cpus = installation / "share" / "trading" / "kernels" / kernel_cache.CPUS_FILE
    cpus.write_text("x86-64-v9\n")
    name = "import trading, numba; print(numba.config.CPU_NAME)"
    assert installed(installation, checkout, name, {}) == "None"
    cpus.write_text(f"x86-64-v9\n{AVX2}\n")
    assert installed(installation, checkout, name, {}) == AVX2
    money = checkout / "trading" / MONEY
    money.write_text(money.read_text().replace("amount * 1e6) / 1e6", "amount * 1e6) / 1e6 + 1.0"))
    assert installed(installation, checkout, USD, {}) == "2.0"
    assert len(compiled(cache)) == 1


def test_a_level_is_only_what_has_all_of_its_features() -> None:
    for levels in kernel_cache.BASELINES.values():
        needed = list(levels.values())
        assert all(more > less for more, less in pairwise(needed))
    assert kernel_cache.best_shipped(Path("/nowhere"), [AVX2]) is None
