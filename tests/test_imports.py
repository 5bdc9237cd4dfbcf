"""In which direction the packages know one another: no package imports one that stands above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TRADING = Path(__file__).parents[1] / "trading"
LAYERS = [
    {"errors", "closing", "lazy"},
    {"files"},
    {"logs", "kernel_cache", "progress"},
    {"config", "market"},
    {"data", "execution"},
    {"envs", "feed"},
    {"plugins"},
    {"learning"},
    {"evaluation"},
    {"reporting"},
    {"live"},
    {"api", "app", "serving"},
    {"cli"},
]
"""From the lowest: a layer knows those before it, and its members do not know one another.

But `app`, which starts the application, and `serving`, whose import path lets Serve start it, do.
"""
TOGETHER = {"app", "serving"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(file: Path) -> Iterator[str]:
    """Names below `trading` that a module imports anywhere, and where nothing runs it too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trading":
            inner = node.module.split(".")[1:]  # type: ignore[union-attr]
            yield from inner[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (name[1] for name in names if name[0] == "trading" and len(name) > 1)


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_no_package_imports_one_above_or_beside_it(name: str) -> None:
    place = TRADING / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    wrong = [
        f"{file.relative_to(TRADING.parent)} imports trading.{other}"
        for file in files
        for other in imported(file)
        if other != name and LEVEL[other] >= LEVEL[name] and {name, other} != TOGETHER
    ]
    assert wrong == []


def test_every_module_at_the_root_and_every_package_has_its_place() -> None:
    packages = {each.parent.name for each in TRADING.glob("*/__init__.py")}
    modules = {each.stem for each in TRADING.glob("*.py")} - {"__init__", "__main__"}
    assert packages | modules == set(LEVEL)
