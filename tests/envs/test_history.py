"""Recorded days as training markets: what they show, what they may not know, and real decisions."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.envs.goog import CALENDAR, recorded_goog
from trading.data.recorded_session import RecordedBars, RecordedQuotes, RecordedSession
from trading.envs.catalogue import ACTIONS
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES
from trading.envs.history import History, play, snapshots_digest, write_history
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.underlying import UnderlyingMarket
from trading.envs.vector_env import HistoricalOptionsVectorEnv
from trading.errors import DataError
from trading.market.chain import MARKS


def frames_of(recorded: RecordedSession, until: int) -> list[MarketSnapshots]:
    """Copies of the snapshots of the first `until` bars."""
    market = UnderlyingMarket(recorded.underlying, DEFAULT_RULES, DEFAULT_FEES)
    snapshots = []
    for bar in play(recorded, market, CALENDAR):
        if bar >= until:
            break
        snapshots.append(MarketSnapshots(*(column.copy() for column in market.snapshots)))
    return snapshots


def first_bars(recorded: RecordedSession, count: int) -> RecordedSession:
    """The session as if it had been recorded up to a bar only."""
    return replace(recorded, bar_end_ns=recorded.bar_end_ns[:count])


def test_a_history_maps_the_frames_that_the_session_showed(goog: Path) -> None:
    history = History(goog, DEFAULT_RULES, DEFAULT_FEES)
    recorded = recorded_goog()
    (day,) = history.days
    assert (day.underlying, day.bars) == ("GOOG", len(recorded.bar_end_ns))
    assert not history.snapshots.features.flags.owndata
    for k, snapshot in enumerate(frames_of(recorded, 20)):
        for name, column in snapshot._asdict().items():
            mapped = getattr(history.snapshots, name)[k]
            assert np.array_equal(mapped, column[0], equal_nan=column.dtype.kind == "f"), name


def test_a_history_names_the_style_of_fills_that_it_was_not_written_for(goog: Path) -> None:
    rules = DEFAULT_RULES._replace(fill_style=1)
    with pytest.raises(DataError, match="rule fill_style: touch there, share_of_spread here"):
        History(goog, rules, DEFAULT_FEES)


def test_a_history_of_before_there_were_styles_is_read() -> None:
    """The digest of rules at the touch is the one that such a history has."""
    then = DEFAULT_RULES._fields.index("fill_style")
    parts = (MARKS, tuple(DEFAULT_RULES)[:then], tuple(DEFAULT_FEES), ACTIONS, FEATURES)
    old = hashlib.sha256(repr(parts).encode()).hexdigest()
    averse = DEFAULT_RULES._replace(risk_aversion=2.0, risk_measure=1)
    assert snapshots_digest(averse, DEFAULT_FEES) == old, "no snapshot depends on rewards"
    assert snapshots_digest(DEFAULT_RULES, DEFAULT_FEES) == old


def test_a_history_for_other_rules_is_refused_with_the_way_out(goog: Path) -> None:
    with pytest.raises(
        DataError, match=r"written for other rules.*rule risk_fraction: .* 0.1 here"
    ):
        History(goog, DEFAULT_RULES._replace(risk_fraction=0.1), DEFAULT_FEES)
    with pytest.raises(DataError, match=r"\(fee commission: 0.65 there, 1.0 here\)"):
        History(goog, DEFAULT_RULES, DEFAULT_FEES._replace(commission=1.0))


def test_a_folder_without_a_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no history in"):
        History(tmp_path, DEFAULT_RULES, DEFAULT_FEES)


def test_writing_nothing_leaves_what_was_there(goog: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    write_history(folder, [first_bars(recorded_goog(), 3)], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    with pytest.raises(DataError, match="no recorded session"):
        write_history(folder, [], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    assert History(folder, DEFAULT_RULES, DEFAULT_FEES).days[0].bars == 3
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


Perturb = Callable[[RecordedSession, int], RecordedSession]


def other_future(recorded: RecordedSession, bar: int) -> RecordedSession:
    """The same session, with everything that came after a bar made up."""
    rng = np.random.default_rng(0)
    quotes, bars = recorded.quotes, recorded.bars
    later = quotes.bar > bar
    columns = {name: column.copy() for name, column in quotes._asdict().items()}
    for name in ("bid", "ask", "bid_size", "ask_size"):
        columns[name][later] = rng.uniform(0.0, 500.0, int(later.sum()))
    columns["contract"][later] = rng.permutation(columns["contract"][later])
    told = {name: column.copy() for name, column in bars._asdict().items()}
    after = bars.bar > bar
    for name in ("open", "high", "low", "close", "vwap"):
        told[name][after] = rng.uniform(1.0, 5_000.0, int(after.sum()))
    return replace(recorded, quotes=RecordedQuotes(**columns), bars=RecordedBars(**told))


def without_warm_up(recorded: RecordedSession) -> RecordedSession:
    return replace(recorded, warm_up=RecordedBars.of([]))


@pytest.mark.parametrize("bar", [0, 7, 90])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_nothing_that_comes_later_changes_what_is_seen_or_allowed(bar: int, warm: bool) -> None:
    recorded = recorded_goog() if warm else without_warm_up(recorded_goog())
    seen = frames_of(recorded, bar + 1)
    otherwise = frames_of(other_future(recorded, bar), bar + 1)
    for one, other in zip(seen, otherwise, strict=True):
        for name, column in one._asdict().items():
            assert column.tobytes() == getattr(other, name).tobytes(), name
    beyond = frames_of(other_future(recorded, bar), bar + 2)[-1]
    assert beyond.features.tobytes() != frames_of(recorded, bar + 2)[-1].features.tobytes()


@pytest.mark.parametrize("bar", [20, 120])
def test_nothing_that_comes_later_changes_what_was_decided_and_filled(
    bar: int, goog: Path, tmp_path: Path
) -> None:
    changed = other_future(recorded_goog(), bar)
    write_history(tmp_path / "other", [changed], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    for script in range(4):
        past, other = (
            [line for line in scripted_trades(folder, script) if int(line.split()[0]) <= bar]
            for folder in (goog, tmp_path / "other")
        )
        assert past == other != []


def scripted(mask: np.ndarray, step: int, script: int) -> int:
    """An allowed action that depends on nothing but the mask and the step."""
    allowed = np.flatnonzero(mask)
    return int(allowed[((step + 1_009 * script) * 2_654_435_761 >> 7) % len(allowed)])


def scripted_trades(history: Path, script: int) -> list[str]:
    """Every fill of one scripted day: bar, action, contracts, units, and the cash after it."""
    env = HistoricalOptionsVectorEnv(1, DEFAULT_RULES, DEFAULT_FEES, history)
    seen, _ = env.reset()
    accounts, lines, ended, step = env._accounts, [], False, 0
    while not ended:
        action = scripted(seen["action_mask"][0], step, script)
        before = int(accounts.trades[0])
        seen, _, _, truncated, _ = env.step(np.array([action]))
        ended = bool(truncated[0])
        if not ended and accounts.trades[0] > before:
            legs, units = accounts.holdings.legs[0].tolist(), accounts.holdings.units[0]
            lines.append(f"{step} {action} {legs} {units} {accounts.balances.cash[0]:.6f}")
        step += 1
    return lines


GOOG_SESSION = "fc0a0ab3d6631e39939bd46bcfe88b0aa627d5554bb31fbd3b0ca10a57dbcb33"
"""SHA-256 of the fills below. It changes when fills, fees, margin, masks or the choice of
contracts change: say in CHANGELOG.md which, and why."""


def test_the_decisions_and_fills_of_the_real_session_are_what_they_were(goog: Path) -> None:
    lines = [line for script in range(8) for line in scripted_trades(goog, script)]
    assert len(lines) > 80
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GOOG_SESSION
