"""Digests of functions of a user's own: of all that they use, and the same wherever they are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trading.errors import PluginError
from trading.plugins.digests import code_digest
from trading.plugins.discovery import load_files

MINE = """
import math
from typing import NamedTuple

import numpy as np
import trading as td
from numba import njit, vectorize
from numpy import mean
from own_helpers import scaled
import own_helpers

DEEP, INNER, BY = 3, 7, 2.0
TABLE = np.array([[1.0, 2.0], [3.0, 4.0]])
TEXTS = {"b", "a", "c", "d"}
ROOTS = (math.sqrt, njit(lambda x: x + 1.0))

class Point(NamedTuple):
    x: float = 1.5

@njit
def down(n):
    return 0 if n == 0 else down(n - 1)

@vectorize
def twice(x):
    return 2.5 * x

def helper(values, by=BY, *, wide=(1, 8)):
    def inner(y):
        return y * INNER
    return len([inner(DEEP * each) for each in values]) + down(3) + down(2)

@td.register_feature("mine")
def mine(market):
    p = Point().x + ROOTS[0](4.0) + TABLE[0, 0] + len(TEXTS) + mean(market.close)
    return helper(market.close) + scaled(p) + own_helpers.shifted(p) + twice(p)
"""
HELPERS = """
FACTOR = 2.0

def scaled(x):
    return FACTOR * x

def shifted(x):
    return x + 4.5
"""
DIGEST = """
import sys
from pathlib import Path
from trading.plugins.digests import code_digest
from trading.plugins.discovery import load_files
print(code_digest(load_files([Path(sys.argv[1])]).features["mine"].make))
"""


def loaded(folder: Path, content: str) -> Callable[..., Any]:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(content)
    return load_files([folder / "mine.py"]).features["mine"].make


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Of MINE as it would be with other texts of it and of the file that it imports."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(content: str = MINE, helpers: str = HELPERS) -> str:
        sys.modules.pop("own_helpers", None)
        # Of another length each time, so that no bytecode of the last second is taken for it.
        of.count += 1  # type: ignore[attr-defined]
        (tmp_path / "own_helpers.py").write_text(helpers + "\n" * of.count)  # type: ignore[attr-defined]
        return code_digest(loaded(tmp_path, content))

    of.count = 0  # type: ignore[attr-defined]
    return of


def test_it_is_the_same_in_other_processes_and_folders(tmp_path: Path) -> None:
    found = set()
    for number in range(3):
        folder = tmp_path / f"machine{number % 2}"
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(MINE)
        (folder / "own_helpers.py").write_text(HELPERS)
        paths = os.pathsep.join([str(folder), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", DIGEST, folder / "mine.py"],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_every_version_of_python_has_the_same(tmp_path: Path) -> None:
    """Models, champions and histories of users hold it."""
    content = """
import trading as td

DEEP, INNER = 3, 7

def helper(values, by=2.0):
    def inner(y):
        return y * INNER
    return sum([inner(DEEP * each) for each in values])

@td.register_feature("mine")
def mine(market):
    return by_itself(helper(market.close), 2)

def by_itself(x, n):
    return x if n == 0 else by_itself(x, n - 1)
"""
    assert code_digest(loaded(tmp_path, content)) == "2e9792a58ff3"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("DEEP, INNER, BY = 3,", "DEEP, INNER, BY = 4,"),
        ("INNER, BY = 3, 7,", "INNER, BY = 3, 8,"),
        ("7, 2.0", "7, 2.5"),
        ("wide=(1, 8)", "wide=(1, 9)"),
        ("[[1.0, 2.0], [3.0, 4.0]]", "[1.0, 2.0, 3.0, 4.0]"),
        ("[[1.0, 2.0], [3.0, 4.0]]", "[[1.0, 2.0], [3.0, 4.0]], dtype='>f8'"),
        ('"a", "c"', '"a", "e"'),
        ("math.sqrt,", "math.exp,"),
        ("x + 1.0", "x + 2.0"),
        ("x: float = 1.5", "x: float = 2.5"),
        ("2.5 * x", "3.5 * x"),
        ("down(n - 1)", "down(n - 2)"),
        ("from numpy import mean", "from numpy import median as mean"),
    ],
)
def test_whatever_it_uses_counts(
    digest: Callable[[str, str], str], before: str, after: str
) -> None:
    assert MINE.count(before) == 1
    assert digest(MINE, HELPERS) != digest(MINE.replace(before, after), HELPERS)
    assert digest(MINE, HELPERS) == digest(MINE + "\nUNUSED = 1\n", HELPERS)


@pytest.mark.parametrize(
    ("before", "after"), [("FACTOR = 2.0", "FACTOR = 3.0"), ("x + 4.5", "x + 5.5")]
)
def test_so_does_what_it_imports_from_another_file_of_its_owner(
    digest: Callable[[str, str], str], before: str, after: str
) -> None:
    assert digest(MINE, HELPERS) != digest(MINE, HELPERS.replace(before, after))
    assert digest(MINE, HELPERS) == digest(MINE, HELPERS + "\nUNUSED = 1\n")


def test_an_attribute_is_no_name_of_the_file(digest: Callable[[str, str], str]) -> None:
    """`market.close` is of the market, whatever `close` is in the file."""
    assert digest(MINE + "\nclose = 1\n", HELPERS) == digest(MINE + "\nclose = 2\n", HELPERS)


@pytest.mark.parametrize("value", ["object()", "np.array([None])", "(1.0, object())"])
def test_what_no_two_processes_tell_alike_is_refused(tmp_path: Path, value: str) -> None:
    content = f"""
import numpy as np
import trading as td
THING = {value}
@td.register_feature("mine")
def mine(market):
    return len(THING)
"""
    with pytest.raises(
        PluginError, match=r"mine of .*mine\.py: THING.* is .*in every process: use"
    ):
        code_digest(loaded(tmp_path, content))


def test_it_is_of_what_was_imported_and_not_of_what_the_file_is_now(tmp_path: Path) -> None:
    content = (
        "import trading as td\n@td.register_feature('mine')\ndef mine(market):\n    return 1.0\n"
    )
    function = loaded(tmp_path, content)
    before = code_digest(function)
    (tmp_path / "mine.py").write_text("\n" + content.replace("1.0", "22.0"))
    assert code_digest(function) == before
    assert code_digest(loaded(tmp_path, content.replace("1.0", "22.0"))) != before
