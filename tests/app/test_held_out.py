"""What challengers are held to: simulated sessions, and whole recorded days once there are some."""

from pathlib import Path

import numpy as np
import pytest

from tests.live.market import DAY, FirstMinutes, serving, settings_for, trade
from trading.app.held_out import HeldOutSessions
from trading.config import Settings
from trading.data.recording import load_recording
from trading.envs.history import write_history
from trading.errors import ConfigError
from trading.evaluation.backtest import learnt
from trading.learning.policy import Policy
from trading.live import assembly
from trading.market.calendar import ExchangeCalendar

pytestmark = pytest.mark.slow

FEW = ("learning.gate.sessions=20", "env.sessions_per_episode=1")
QUICK = (*FEW, "data.record=true")


def gate_result_of(sessions: HeldOutSessions) -> tuple[str, dict[str, int]]:
    settings = Settings()
    weights = Policy(assembly.model_config(settings), settings.seed).weights()
    result = sessions.gate.judge(weights, weights)
    assert result.passed
    return result.reason, {each.held_out: each.sessions for each in result.compared}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which one session was traded from open to close, and recorded."""
    folder = tmp_path_factory.mktemp("recorded")
    settings = settings_for(folder, *QUICK)
    session = ExchangeCalendar().session_on(DAY)
    assert session is not None
    minutes = (session.close_ns - session.open_ns) // 60_000_000_000
    recorder = assembly.recorder(settings)
    assert recorder is not None
    with recorder, serving(FirstMinutes(minutes)) as (endpoint, begin):
        trade(settings, endpoint, begin, recorder=recorder)
    return folder


def test_without_a_recorded_day_the_gate_result_says_so(tmp_path: Path) -> None:
    reason, sessions = gate_result_of(HeldOutSessions(settings_for(tmp_path, *QUICK)))
    assert reason == "not worse on simulated; recent: none"
    assert sessions == {"simulated": 20}


def test_half_of_the_simulated_sessions_are_others_at_each_judgement(tmp_path: Path) -> None:
    sessions = HeldOutSessions(settings_for(tmp_path, *FEW))
    settings = Settings()
    policy = Policy(assembly.model_config(settings), settings.seed, acting="greedy")
    seen = []
    for _ in range(2):
        gate_result_of(sessions)
        seen.append(sessions._trade_simulated(learnt(policy)))
    assert np.array_equal(seen[0][:10], seen[1][:10])
    assert not np.isin(seen[0][10:], seen[1]).any()


def test_whole_recorded_days_are_held_out(recorded: Path) -> None:
    settings = settings_for(recorded, *QUICK)
    reason, sessions = gate_result_of(HeldOutSessions(settings))
    assert reason == "not worse on simulated, recent"
    assert sessions == {"simulated": 20, "recent": 2}


def test_a_day_is_held_out_once_it_is_there(tmp_path: Path, recorded: Path) -> None:
    sessions = HeldOutSessions(settings_for(tmp_path, *QUICK))
    (tmp_path / "recordings").symlink_to(recorded / "recordings")
    sessions.renew()
    assert gate_result_of(sessions)[1] == {"simulated": 20, "recent": 2}


def test_a_history_is_held_out_unless_it_is_trained_on(tmp_path: Path, recorded: Path) -> None:
    settings = settings_for(tmp_path, *QUICK)
    told = [load_recording(recorded / "recordings", DAY, "AAA")]
    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    folder = tmp_path / "history"
    write_history(folder, told, rules, fees, ExchangeCalendar())
    apart = settings_for(tmp_path, *QUICK, f"learning.gate.history={folder}")
    assert gate_result_of(HeldOutSessions(apart))[1] == {"simulated": 20, "history": 1}
    both = settings_for(
        tmp_path, *QUICK, f"learning.gate.history={folder}", f"learning.history={folder}"
    )
    with pytest.raises(ConfigError, match=r"learning\.gate\.history: AAA 2026-01-05"):
        HeldOutSessions(both)


def test_too_few_episodes_for_a_bound_are_refused(tmp_path: Path) -> None:
    told = r"learning\.gate\.sessions: 64 sessions, 10 in a row .* are 8 episodes, .* least 200"
    with pytest.raises(ConfigError, match=told):
        HeldOutSessions(settings_for(tmp_path, "learning.gate.sessions=64"))
