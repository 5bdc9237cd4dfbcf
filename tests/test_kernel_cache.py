"""The cache of compiled kernels, asked by checkouts of its own in processes of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trading import kernel_cache
from trading.kernel_cache import source_digest

PACKAGE = Path(kernel_cache.__file__).parent
MONEY = Path("execution/money.py")
CASH = """
import numpy as np
from trading.execution.fees import FeeSchedule
from trading.execution.matching import fill_cash
one = np.ones(1, np.int64)
print(fill_cash(one.astype(np.int8), one, np.full(1, 1.5), 1, 1, 100.0, FeeSchedule())[0])
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
    code = "from trading.execution.money import usd; print(usd(1.0000004))"
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
for name in ("envs/frames.py", "market/draws.py", "learning/kernels/network.py"):
    print(source_digest(Path("trading").resolve() / name))
"""
    cache = checkout / "cache"
    before = run(checkout, digests, cache).splitlines()
    for unrelated in ("execution/journal.py", "errors.py", "cli.py"):
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
