"""Workers share one copy of a history, and an environment costs little beside it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.waits import WAIT_S
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.vector_env import HistoricalOptionsVectorEnv

ACCOUNTS = 4096
BYTES_PER_ACCOUNT = 2048
ROOT = Path(__file__).parents[2]

STEPPING = """
import sys
import numpy as np
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.vector_env import HistoricalOptionsVectorEnv

env = HistoricalOptionsVectorEnv(64, DEFAULT_RULES, DEFAULT_FEES, sys.argv[1], seed=1)
observation, _ = env.reset()
rng = np.random.default_rng(1)
for _ in range(300):
    mask = observation["action_mask"]
    observation, *_ = env.step(np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1))
inside, totals = False, {}
for line in open("/proc/self/smaps"):
    name, *values = line.split()
    if "-" in name and not name.endswith(":"):
        inside = sys.argv[1] in line
    elif inside and values[-1:] == ["kB"]:
        totals[name] = totals.get(name, 0) + int(values[0])
print(totals["Rss:"], totals["Anonymous:"])
"""


def arrays_of(owner: object) -> list[np.ndarray]:
    """Every array that an object holds in its attributes or in tuples of them."""
    if isinstance(owner, np.ndarray):
        return [owner]
    parts = owner if isinstance(owner, tuple) else vars(owner).values()
    found = []
    for part in parts:
        if isinstance(part, np.ndarray | tuple):
            found += arrays_of(part)
    return found


def test_an_environment_costs_at_most_two_kilobytes_beside_the_history(goog: Path) -> None:
    env = HistoricalOptionsVectorEnv(ACCOUNTS, DEFAULT_RULES, DEFAULT_FEES, goog)
    env.reset()
    env.step(np.zeros(ACCOUNTS, dtype=np.int64))
    markets = env._markets
    mapped = {id(array) for array in arrays_of((markets.snapshots, markets.quotes))}
    held = arrays_of(env) + [each for each in arrays_of(markets) if id(each) not in mapped]
    assert sum(array.nbytes for array in held) <= ACCOUNTS * BYTES_PER_ACCOUNT


@pytest.mark.slow
def test_a_worker_that_steps_makes_no_page_of_the_history_its_own(goog: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPPING, str(goog)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    resident_kb, own_kb = map(int, done.stdout.split())
    assert resident_kb > 10_000
    assert own_kb == 0
