"""A day that was traded live and recorded, traded again in training: equal to the last bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.envs.goog import CALENDAR, DAY, FOLDER, recorded_goog
from tests.live.market import DAY as SIMULATED_DAY
from tests.live.market import FirstMinutes, serving, settings_for, trade
from trading.config import Settings
from trading.data.massive.server.source import EventSource, ReplaySource
from trading.data.recorded_session import RecordedSession
from trading.data.recording import load_recording
from trading.envs.catalogue import ACTION_COUNT
from trading.envs.features import FEATURES
from trading.envs.history import History, write_history
from trading.envs.live_env import LiveEnv, TimeStep
from trading.envs.vector_env import HistoricalOptionsVectorEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import Event, OrderFilled, OrderRejected, OrderRepriced
from trading.learning.policy import Policy
from trading.live import assembly
from trading.market.calendar import Session

SESSION_MINUTES = 390


class Seen(NamedTuple):
    """What the account saw at one bar, before it decided."""

    end_ns: int
    observation: bytes
    mask: bytes
    reward: bytes
    equity: float


class Traded(NamedTuple):
    """One fill: when, units of the strategy, and the account's cash afterwards."""

    end_ns: int
    units: int
    cash: float


class Day(NamedTuple):
    """A day of one account."""

    seen: list[Seen]
    actions: list[int]
    fills: list[Traded]
    steps: list[int]
    """When working orders came nearer to the touch, where that is told."""


def live_day(
    settings: Settings, source: EventSource, symbol: str, patch: pytest.MonkeyPatch
) -> tuple[Day, RecordedSession]:
    """Trade a source through the server, the stream and the broker, recording it."""
    day = Day([], [], [], [])
    close_bar, act, record = LiveEnv.close_bar, LiveEnv.trade, PaperBroker.record

    def watched_bar(env: LiveEnv, now_ns: int, session: Session) -> TimeStep:
        seen = close_bar(env, now_ns, session)
        parts = (seen.observations.tobytes(), seen.action_mask.tobytes(), seen.rewards.tobytes())
        day.seen.append(Seen(now_ns, *parts, env.equity()))
        return seen

    def watched_act(env: LiveEnv, now_ns: int, actions: list[int]) -> object:
        day.actions.extend(actions)
        return act(env, now_ns, actions)

    def watched_record(broker: PaperBroker, events: Sequence[Event]) -> None:
        record(broker, events)
        for event in events:
            assert not isinstance(event, OrderRejected), event
            if isinstance(event, OrderFilled):
                fill = event.fill
                day.fills.append(Traded(fill.ts_ns, fill.units, broker.account.cash))
            elif isinstance(event, OrderRepriced):
                day.steps.append(event.ts_ns)

    patch.setattr(LiveEnv, "close_bar", watched_bar)
    patch.setattr(LiveEnv, "trade", watched_act)
    patch.setattr(PaperBroker, "record", watched_record)
    recorder = assembly.recorder(settings)
    assert recorder is not None and settings.data.replay.date is not None
    with recorder, serving(source, max_quote_contracts=10_000) as (endpoint, begin):
        trade(settings, endpoint, begin, recorder=recorder)
    folder = settings.paths.state_dir / "recordings"
    return day, load_recording(folder, settings.data.replay.date, symbol)


def day_in_training(settings: Settings, recording: RecordedSession, folder: Path) -> Day:
    """The same session in the training environment; the policy has the same weights and seed."""
    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    own, reward = assembly.own_features(settings), assembly.own_reward(settings)
    write_history(folder, [recording], rules, fees, CALENDAR, features=own)
    env = HistoricalOptionsVectorEnv(1, rules, fees, folder, reward=reward, features=own)
    policy = Policy(assembly.model_config(settings), settings.seed)
    times = History(folder, rules, fees, own).snapshots.now_ns.tolist()
    accounts, day = env._accounts, Day([], [], [], [])
    state, first = policy.initial_state(1), np.ones(1, np.bool_)
    trade = env._trade

    def noted(actions: np.ndarray) -> None:
        held, cash = int(accounts.holdings.units[0]), float(accounts.balances.cash[0])
        trade(actions)
        if accounts.balances.cash[0] != cash:
            units = abs(int(accounts.holdings.units[0]) - held)
            day.fills.append(Traded(end_ns, units, float(accounts.balances.cash[0])))

    env._trade = noted  # type: ignore[method-assign]
    seen, _ = env.reset()
    reward, equity, truncated = np.zeros(1, np.float32), env.equity, np.zeros(1, np.bool_)
    for end_ns in times:
        parts = (seen["observations"].tobytes(), seen["action_mask"].tobytes(), reward.tobytes())
        day.seen.append(Seen(end_ns, *parts, float(equity[0])))
        if truncated[0]:
            break
        decision, state = policy.act(seen["observations"], seen["action_mask"], state, first)
        day.actions.extend(decision.actions.tolist())
        first[:] = False
        seen, reward, _, truncated, info = env.step(decision.actions)
        if truncated[0]:
            seen, equity = info["final_obs"], info["episode"]["equity"]
    return day


def assert_same_day(one: Day, other: Day) -> None:
    assert one.actions == other.actions
    assert one.fills == other.fills
    assert len(one.seen) == len(other.seen)
    for seen, again in zip(one.seen, other.seen, strict=True):
        assert seen == again


OWN_FROM = len(FEATURES)
OWN = """
import numpy as np
import trading as td

DELTA = td.feature_index("position_delta")
OWN = len(td.FEATURES)

@td.register_feature("depth")
def depth(market):
    seen = 0.0
    for i in range(len(market.strike)):
        if market.now_ns - market.quote_ns[i] <= market.max_age_ns:
            weight = np.exp(-abs(np.log(market.strike[i] / market.spot)))
            seen += weight * (market.bid_size[i] - market.ask_size[i]) / 1000.0
    return seen

@td.register_feature("swing")
def swing(market):
    return 300.0 * np.log(market.high.max() / market.low.min()) if len(market.high) else np.nan

@td.register_structure("wing")
def wing():
    return [
        td.StructureLeg("put", -2, delta=0.35),
        td.StructureLeg("put", 1, width=-2.0, of=0),
        td.StructureLeg("put", 1, width=4.0, of=0),
    ]

@td.register_structure("diagonal")
def diagonal():
    return [
        td.StructureLeg("call", 1, delta=0.60, expiry="far"),
        td.StructureLeg("call", -1, delta=0.25, beyond=0, expiry="near"),
    ]

@td.register_reward("mine")
def mine(bar):
    lost = min(bar.equity / bar.capital - 1.0, 0.0)
    seen = 0.01 * bar.observation[OWN]
    return np.tanh(bar.reward) + lost / 3.0 + seen - 0.1 * abs(bar.observation[DELTA])
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["as it is", "with plug-ins", "orders that work"])
def test_a_simulated_live_day_is_the_same_day_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    own, plugins = way != "as it is", []
    works = way == "orders that work"
    if own:
        text = OWN
        for name in ("depth", "swing", "mine", "wing", "diagonal"):
            text = text.replace(f'"{name}"', f'"{name}_{works:d}"')
        (tmp_path / "own.py").write_text(text)
        plugins = [
            f"plugins={tmp_path / 'own.py'}",
            f"env.reward=mine_{works:d}",
            f"env.features=depth_{works:d},swing_{works:d}",
            f"env.structures=wing_{works:d},diagonal_{works:d}",
        ]
    if works:
        plugins += ["execution.style=working", "env.size_levels=2", "execution.slippage=0.01"]
    settings = settings_for(
        tmp_path / "live",
        "symbols=[AAA]",
        "data.record=true",
        f"data.replay.date={SIMULATED_DAY}",
        *plugins,
    )
    source = FirstMinutes(SESSION_MINUTES, symbols=("AAA",))
    live, recording = live_day(settings, source, "AAA", monkeypatch)
    assert len(live.seen) == SESSION_MINUTES and len(live.fills) > 10
    if own:
        seen = np.array([np.frombuffer(each.observation, np.float32) for each in live.seen])
        shown = seen[:, OWN_FROM : OWN_FROM + 2]
        assert (shown.std(axis=0) > 0.0).all()
        assert {a for a in live.actions if a >= ACTION_COUNT}, "none of its own is chosen"
        assert len(live.steps) > 5 or not works
        assert not works or (seen[:, OWN_FROM + 2 :].max(axis=0) > 0.0).all()
    assert_same_day(live, day_in_training(settings, recording, tmp_path / "history"))


@pytest.mark.slow
def test_the_real_session_replayed_live_is_the_same_session_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_goog()
    settings = settings_for(
        tmp_path / "live", "symbols=[GOOG]", "data.record=true", f"data.replay.date={DAY}"
    )
    live, recording = live_day(settings, ReplaySource(FOLDER, DAY, ["GOOG"]), "GOOG", monkeypatch)
    assert len(live.seen) == 210 and len(live.fills) > 3
    assert_same_day(live, day_in_training(settings, recording, tmp_path / "history"))
