"""Episodes of many sessions: what was held over nights live is the same in training, to the bit."""

from pathlib import Path

import numpy as np
import pytest

from tests.envs.fortnight import CALENDAR, SYMBOL, days, in_batch, kinds, live, recorded_sessions
from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import History, write_history
from trading.envs.vector_env import HistoricalOptionsVectorEnv
from trading.market.dividends import Dividend

SESSIONS = 10
RULES = DEFAULT_RULES._replace(
    initial_capital=400_000.0, max_quote_age_ns=3_600_000_000_000, max_daily_loss=0.5
)


def keeps(seed: int, closing: float = 0.01):
    """Opens anything that it may, at random, and closes hardly ever."""
    rng = np.random.default_rng(seed)

    def choose(mask: np.ndarray) -> int:
        draws = rng.random(2)
        opening = np.flatnonzero(mask[CLOSE + 1 :]) + CLOSE + 1
        if mask[CLOSE] and draws[0] < closing:
            return CLOSE
        return int(opening[int(draws[1] * len(opening))]) if len(opening) else HOLD

    return choose


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_fortnight_lived_is_the_same_fortnight_in_training(tmp_path: Path, world: int) -> None:
    told = recorded_sessions(SESSIONS, world)
    write_history(tmp_path / "h", told, RULES, DEFAULT_FEES, CALENDAR, nights=True)
    happened: dict[str, int] = {}
    for script in range(6):
        folder = tmp_path / str(script)
        folder.mkdir()
        lived = live(folder, told, RULES, DEFAULT_FEES, keeps(script))
        env = HistoricalOptionsVectorEnv(
            1, RULES, DEFAULT_FEES, tmp_path / "h", sessions_per_episode=SESSIONS
        )
        again = in_batch(env, keeps(script))
        assert len(again.seen) == len(lived.seen)
        for k, (one, other) in enumerate(zip(lived.seen, again.seen, strict=True)):
            assert one == other, (script, k)
        assert lived.actions == again.actions
        for name, count in kinds(lived.events).items():
            happened[name] = happened.get(name, 0) + count
    print(happened)
