"""What challengers are held to: simulated sessions, and whole recorded days once there are some."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.live.market import DAY, FirstMinutes, serving, settings_for, trade
from trading.app import fleet, up
from trading.app.display import Display
from trading.app.fleet_display import FleetDisplay
from trading.app.fleet_supervisor import FleetSupervisor
from trading.app.held_out import HeldOutSessions
from trading.config import Settings
from trading.data.recording import load_recording
from trading.envs.history import write_history
from trading.errors import ConfigError, DataError
from trading.evaluation.backtest import learnt
from trading.learning.champion.gate_sessions import check_enough
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


def test_halves_of_an_odd_number_have_as_many_episodes_each(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, *FEW, "learning.gate.sessions=21")
    assert gate_result_of(HeldOutSessions(settings))[1] == {"simulated": 22}


def test_days_of_too_few_underlyings_are_refused_or_left_out(
    tmp_path: Path, recorded: Path
) -> None:
    """The gate would trade them when it judges, and that would end the learner."""
    shared = (*QUICK, "env.underlyings_per_account=2")
    settings = settings_for(tmp_path, *shared)
    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    told, folder = [load_recording(recorded / "recordings", DAY, "AAA")], tmp_path / "history"
    write_history(folder, told, rules, fees, ExchangeCalendar())
    with pytest.raises(DataError, match="no date with the same bars of 2 underlyings"):
        HeldOutSessions(settings_for(tmp_path, *shared, f"learning.gate.history={folder}"))

    sessions, day = HeldOutSessions(settings), f"date={DAY}"
    (tmp_path / "recordings" / day).mkdir(parents=True)
    for name in ("underlying=AAA", "underlying=BBB"):
        here = tmp_path / "recordings" / day / name
        here.symlink_to(recorded / "recordings" / day / name)
        sessions._known = None
        sessions.renew()
        weights = Policy(assembly.model_config(settings), settings.seed).weights()
        result = sessions.gate.judge(weights, weights)
        compared = {each.held_out: each.sessions for each in result.compared}
        assert compared == {"simulated": 20} | ({"recent": 1} if "BBB" in name else {})


def test_too_few_episodes_for_a_bound_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = r"learning\.gate\.sessions: 64 sessions, 10 in a row .* are 8 episodes, .* least 200"
    learns = ("learning.online=true", "data.source=simulation")
    few = settings_for(tmp_path, "learning.gate.sessions=64", *learns)
    with pytest.raises(ConfigError, match=told):
        HeldOutSessions(few)

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a part was started")

    for module in (up, fleet):
        monkeypatch.setattr(module, "ray_runtime", started)
    shown = Console(file=io.StringIO())
    with pytest.raises(ConfigError, match=told):
        up.up(few, None, Display(shown))
    with pytest.raises(ConfigError, match=told):
        fleet.up_strategies(Settings(), {"a": few}, None, FleetDisplay(shown, ["a"]))
    with pytest.raises(ConfigError, match=told):
        FleetSupervisor(Settings(), {"a": few}, FleetDisplay(shown, ["a"]))


def test_who_learns_nothing_needs_no_sessions(tmp_path: Path) -> None:
    check_enough(settings_for(tmp_path, "learning.gate.sessions=64"))
