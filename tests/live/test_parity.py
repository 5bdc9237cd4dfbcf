"""A day that was traded live and recorded, traded again in training: equal to the last bit."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.envs.goog import CALENDAR, DAY, FOLDER
from tests.envs.goog import recorded_goog as _recorded_goog
from tests.live.market import DAY as SIMULATED_DAY
from tests.live.market import FirstMinutes, serving, settings_for, trade
from trading.config import Settings
from trading.data.massive.source import EventSource, ReplaySource
from trading.data.recorded import RecordedSession
from trading.data.recording import load_recording
from trading.envs.history import History, write_history
from trading.envs.live_env import LiveEnv, Observed
from trading.envs.vector_env import HistoricalOptionsVectorEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
from trading.execution.orders import Fill
from trading.learning.policy import Policy
from trading.live import assembly
from trading.market.calendar import Session

SESSION_MINUTES = 390


class Seen(NamedTuple):
    """What the account saw at one bar, before it decided."""

    end_ns: int
    observations: bytes
    mask: bytes
    reward: bytes
    equity: float
    cash: float
    net_cash: float


class LiveDay(NamedTuple):
    """What was lived, and what was recorded of it."""

    seen: list[Seen]
    actions: list[int]
    fills: list[tuple[int, int, float]]
    """Time, units, and change of cash of every fill."""
    recording: RecordedSession


def live_day(
    settings: Settings, source: EventSource, symbol: str, monkeypatch: pytest.MonkeyPatch
) -> LiveDay:
    """Trade a source through the server, the stream and the broker, recording it."""
    seen: list[Seen] = []
    fills: list[tuple[int, int, float]] = []
    close_bar, submit = LiveEnv.close_bar, PaperBroker.submit

    def watched_bar(env: LiveEnv, now_ns: int, session: Session) -> Observed:
        observed = close_bar(env, now_ns, session)
        account = env.broker.account
        seen.append(
            Seen(
                now_ns,
                observed.observations.tobytes(),
                observed.action_mask.tobytes(),
                observed.rewards.tobytes(),
                env.equity(),
                account.cash,
                account.net_cash.get(symbol, 0.0),
            )
        )
        return observed

    def watched_submit(broker: PaperBroker, *args: object, **kwargs: object) -> object:
        result = submit(broker, *args, **kwargs)  # type: ignore[arg-type]
        assert isinstance(result, Fill), result
        fills.append((result.ts_ns, result.units, result.premium - result.fees))
        return result

    monkeypatch.setattr(LiveEnv, "close_bar", watched_bar)
    monkeypatch.setattr(PaperBroker, "submit", watched_submit)
    with ExitStack() as stack:
        recorder = stack.enter_context(assembly.recorder(settings))  # type: ignore[arg-type]
        endpoint, begin = stack.enter_context(serving(source, max_quote_contracts=10_000))
        trade(settings, endpoint, begin, recorder=recorder)
    with Journal(assembly.journal_path(settings), read_only=True) as journal:
        actions = [each.action for each in journal.events() if isinstance(each, DecisionMade)]
    day = settings.data.replay.date
    assert day is not None
    folder = settings.paths.state_dir / "recordings"
    return LiveDay(seen, actions, fills, load_recording(folder, day, symbol))


def trained_day(settings: Settings, recording: RecordedSession, folder: Path) -> Iterator[Seen]:
    """The same session in the training environment; the policy has the same weights and seed."""
    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    write_history(folder, [recording], rules, fees, CALENDAR)
    env = HistoricalOptionsVectorEnv(1, rules, fees, folder)
    policy = Policy(assembly.model_config(settings), settings.seed)
    times = History(folder, rules, fees).frames.now_ns.tolist()
    accounts, state, first = env._accounts, policy.initial_state(1), np.ones(1, np.bool_)
    observation, _ = env.reset()
    reward = np.zeros(1, np.float32)
    for bar, end_ns in enumerate(times):
        yield Seen(
            end_ns,
            observation["observations"].tobytes(),
            observation["action_mask"].tobytes(),
            reward.tobytes(),
            float(accounts.purses.equity[0]),
            float(accounts.purses.cash[0]),
            float(accounts.net_cash[0]),
        )
        if bar == len(times) - 1:
            return
        decision, state = policy.act(
            observation["observations"], observation["action_mask"], state, first
        )
        first[:] = False
        if bar == len(times) - 2:
            restart, env._markets.restart = env._markets.restart, lambda _: None  # type: ignore[method-assign]
            env._open = lambda _: None  # type: ignore[method-assign]
        observation, reward, _, truncated, info = env.step(decision.actions)
        if truncated[0]:
            env._markets.restart = restart  # type: ignore[method-assign]
            observation = info["final_obs"]


def assert_equal_days(live: LiveDay, settings: Settings, folder: Path) -> None:
    again = list(trained_day(settings, live.recording, folder))
    assert len(live.seen) == len(again)
    for one, other in zip(live.seen, again, strict=True):
        assert one == other


def simulated_settings(folder: Path) -> Settings:
    return settings_for(
        folder, "symbols=[AAA]", "data.record=true", f"data.replay.date={SIMULATED_DAY}"
    )


@pytest.mark.slow
def test_a_simulated_live_day_is_the_same_day_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = simulated_settings(tmp_path / "live")
    source = FirstMinutes(SESSION_MINUTES, symbols=("AAA",))
    live = live_day(settings, source, "AAA", monkeypatch)
    assert len(live.fills) > 10
    assert_equal_days(live, settings, tmp_path / "history")


@pytest.mark.slow
def test_the_real_session_replayed_live_is_the_same_session_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _recorded_goog()
    settings = settings_for(
        tmp_path / "live", "symbols=[GOOG]", "data.record=true", f"data.replay.date={DAY}"
    )
    live = live_day(settings, ReplaySource(FOLDER, DAY, ["GOOG"]), "GOOG", monkeypatch)
    assert len(live.fills) > 3
    assert_equal_days(live, settings, tmp_path / "history")
