"""The wheel is the whole package: its page, its data files and its command."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "trading").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built by the project's backend, from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "trading", folder / "trading", ignore=shutil.ignore_patterns("__pycache__")
    )
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    held = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert sorted(held) == sorted(SOURCES)
    assert {"trading/serving/page/document.html", "trading/py.typed"} <= set(held)


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = f"trading-{version}.dist-info"
    assert b"trading = trading.cli.main:main" in wheel.read(f"{about}/entry_points.txt")
    assert wheel.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
