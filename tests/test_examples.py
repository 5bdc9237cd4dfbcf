"""The examples run, and Gymnasium finds the environment."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import gymnasium
import pytest

ROOT = Path(__file__).parents[1]


def example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cartpole() -> None:
    told = example("cartpole.py", "2").splitlines()
    assert len([line for line in told if line.endswith(" steps in balance")]) == 2


def test_a_day_of_the_options_environment() -> None:
    assert "a random trader's day: " in example("options_env.py", "3")


def test_gymnasium_learns_of_the_environment_where_the_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (value,) = project["entry-points"]["gymnasium.envs"].values()
    gymnasium.registry.pop("trading/Options-v0", None)
    EntryPoint("__root__", value, "gymnasium.envs").load()()
    env = gymnasium.make("trading/Options-v0")
    assert env.reset(seed=1)[0]["action_mask"][0]
