"""The day that the page shows: kept bar by bar, recalled from the journal, bounded."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.live.market import Bars, FirstMinutes, serving, settings_for, trade
from trading.envs.catalogue import ACTIONS, CLOSE, HOLD
from trading.envs.live_env import ActionResult
from trading.execution.events import (
    CashMoved,
    ChallengerRejected,
    Compared,
    DecisionMade,
    OrderFilled,
    SessionClosed,
    StateChanged,
)
from trading.execution.journal import Journal
from trading.execution.money import round_usd
from trading.execution.orders import Fill, LegFill
from trading.execution.states import TradingState
from trading.learning.policy import Decision
from trading.live import assembly
from trading.live.bar_clock import Bar
from trading.live.chains import MOST_STRIKES, chains_as_json, snapshot_chains
from trading.live.profit_parts import OF_A_TRADE
from trading.live.recent_activity import MOST_BARS, MOST_FILLS, MOST_NOTES, RecentActivity
from trading.live.session_history import read_history
from trading.live.trader import BarDecisions, Trader
from trading.reporting.ledger import PARTS, read_ledger

SECOND_NS = 1_000_000_000


class Kept(Bars):
    """Keeps the recent activity as the live market's actor does."""

    def __init__(self) -> None:
        super().__init__()
        self.book = RecentActivity()
        self.is_open = False
        self.last: Trader
        self.sums: list[tuple[float, float]] = []
        self.chains: dict[str, bytes] = {}
        self.spots: dict[str, float] = {}

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)
        env = trader.env
        journal = env.broker.journal
        self.last, parts = trader, trader.profit_parts
        if not self.is_open:
            self.is_open = True
            self.book.open(journal.path, journal.last_seq)
            env.broker.followers.append(lambda events: self.book.follow(events, journal.last_seq))
        self.sums.append((env.equity(), sum(parts.parts.values())))
        base = env.broker.account.day_base
        self.book.bar(
            bar.end_ns,
            str(bar.session.date),
            env.equity(),
            base,
            trader.decided,
            parts.parts,
            parts.since_ns,
        )
        self.chains = chains_as_json(snapshot_chains(env, bar.end_ns))
        self.spots = {name: env.spot(name) for name in env.underlyings}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Path]:
    settings = settings_for(tmp_path_factory.mktemp("day"))
    observer = Kept()
    with serving(FirstMinutes(30)) as (endpoint, begin):
        trade(settings, endpoint, begin, bars=observer)
    return observer, assembly.journal_path(settings)


def test_the_parts_of_the_profit_add_up_to_it(kept: tuple[Kept, Path]) -> None:
    sums = kept[0].sums
    for (before, parts_before), (after, parts_after) in pairwise(sums):
        assert parts_after - parts_before == pytest.approx(after - before, abs=0.01)
    told = kept[0].book.as_values()["profit"]
    assert told["parts"]["fees"] < 0.0 and told["parts"]["spread"] < 0.0
    assert any(abs(told["parts"][name]) > 0.0 for name in ("delta", "theta", "vega"))
    assert sum(told["parts"].values()) == pytest.approx(told["total"], abs=0.1)


def test_what_each_trade_earned_by_what_is_journalled(kept: tuple[Kept, Path]) -> None:
    """Between them the trades earned what the day did, and each adds up to its own profit."""
    observer, path = kept
    with Journal(path, read_only=True) as journal:
        ledger = read_ledger(journal.events())
        decided = [each for each in journal.events() if isinstance(each, DecisionMade)]
    trades = [*ledger.trades, *ledger.open.values()]
    assert len(ledger.trades) > 2
    # Of a trade that the very last bar opened nothing is known yet.
    assert all(each.parts for each in trades if each.opened_ns < decided[-1].ts_ns)
    explained = left_over = 0.0
    for each in ledger.trades:
        assert each.parts is not None
        assert round_usd(sum(each.parts.values())) == each.profit
        if each.closed_ns < decided[-1].ts_ns:
            explained += sum(abs(each.parts[name]) for name in PARTS if name != "rest")
            left_over += abs(each.parts["rest"])
    # What is left when greeks, spread and fees are told is small beside them.
    assert left_over < 0.25 * explained
    day = observer.last.profit_parts.parts
    names = ("delta", "gamma", "theta", "vega", "spread")
    assert observer.last.profit_parts.take_earned([]) == []
    left = observer.last.profit_parts.take_earned(observer.last.env.symbols)
    assert observer.last.profit_parts.take_earned(observer.last.env.symbols) == [{}, {}]
    for name in names:
        journalled = sum(each.earned.get(name, 0.0) for each in trades)
        waiting = sum(e[OF_A_TRADE.index(name)] for each in left for e in each.values())
        assert journalled + waiting == pytest.approx(day[name], abs=0.05)


def test_every_bar_decision_and_fill_is_told(kept: tuple[Kept, Path]) -> None:
    observer, _ = kept
    day = observer.book.as_values()
    assert [t for t, _ in day["bars"].values()][-3:] == [e // SECOND_NS for e in observer.ends[-3:]]
    assert list(day["bars"].values())[-1][1] == pytest.approx(observer.equity[-1], abs=0.01)
    decisions = list(day["decisions"].values())
    assert len(decisions) == 2 * len(observer.ends)
    for each in decisions:
        assert each["action"] in each["allowed"]
        assert sum(chance for _, chance in each["best"]) <= 1.001
        assert day["actions"][each["action"]] == ACTIONS[each["action"]].name
    filled = [each for each in decisions if "filled" in each]
    assert {each["filled"] for each in filled} <= {each["order"] for each in day["fills"].values()}
    ended = [each for each in day["fills"].values() if "profit" in each]
    assert ended and not any(each["opens"] for each in ended)


def test_a_fill_of_an_earlier_order_is_told_as_that_of_its_own_action() -> None:
    """The decision of the bar came too late."""
    fill = Fill("fill", "paper-1", 1, "AAA", 1, (LegFill("AAA", 1, 1.0),), -100.0, 0.0)
    decision = Decision(
        np.array([CLOSE, HOLD]),
        np.zeros(2, np.float32),
        np.zeros(2, np.float32),
        np.full((2, len(ACTIONS)), 1.0 / len(ACTIONS), np.float32),
    )
    outcomes = (ActionResult(CLOSE, False, fill, 5), ActionResult(HOLD, False, waits="paper-2"))
    mask = np.ones((2, len(ACTIONS)), dtype=bool)
    decided = BarDecisions(1, ("AAA", "BBB"), decision, mask, outcomes, 1)
    book = RecentActivity()
    book.bar(SECOND_NS, "2026-01-05", 1.0, 1.0, decided, {}, 0)
    late, other = book.as_values()["decisions"].values()
    assert (late["action"], late["ordered"], late["filled"]) == (CLOSE, 5, "paper-1")
    assert "ordered" not in other and other["waits"] == "paper-2"


def test_after_a_restart_the_journal_tells_the_day(kept: tuple[Kept, Path]) -> None:
    observer, path = kept
    lived, again = observer.book.as_values(), RecentActivity()
    with Journal(path, read_only=True) as journal:
        again.open(path, journal.last_seq)
    told = again.as_values()
    assert told["session"] == lived["session"]
    assert lived["fills"].items() <= told["fills"].items()
    bars = dict(map(tuple, told["bars"].values()))
    marked = {
        end // SECOND_NS: each for end, each in zip(observer.ends, observer.equity, strict=True)
    }
    assert bars.keys() == marked.keys()
    # A decision is journalled before its orders, and equity is noted after them.
    for t, equity in bars.items():
        assert equity == pytest.approx(marked[t], abs=500.0)
    assert told["profit"]["total"] is None or np.isfinite(told["profit"]["total"])


def test_what_no_journal_tells_is_not_made_up(tmp_path: Path) -> None:
    assert read_history(tmp_path / "none.sqlite", 5).bars == ()
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no journal" * 100)
    assert read_history(damaged, 5).events == ()


def test_each_chain_is_told_around_its_forward(kept: tuple[Kept, Path]) -> None:
    observer, _ = kept
    assert set(observer.chains) == {"AAA", "BBB"}
    told: dict[str, Any] = msgspec.json.decode(observer.chains["AAA"])
    assert told["spot"] == pytest.approx(observer.spots["AAA"], abs=1e-3)
    days = [each["days"] for each in told["expiries"]]
    assert days == sorted(days) and days[0] >= 0.0
    for each in told["expiries"]:
        strikes = [row["strike"] for row in each["rows"]]
        assert strikes == sorted(strikes) and 0 < len(strikes) <= MOST_STRIKES
        assert min(strikes) < each["forward"] < max(strikes)
        assert 0.01 < each["iv"] < 3.0


def fill(number: int) -> OrderFilled:
    legs = (LegFill("O:AAA260109C00100000", 1, 1.0),)
    return OrderFilled(
        number, Fill(f"f{number}", f"o{number}", number, "AAA", 1, legs, -100.0, 0.65)
    )


def test_everything_has_a_bound() -> None:
    book = RecentActivity()
    for n in range(1, 3 * MOST_BARS):
        book.bar(n * SECOND_NS, "2026-01-05", float(n), 0.0, None, {}, 0)
    book.follow([fill(n) for n in range(2 * MOST_FILLS)], 2 * MOST_FILLS)
    states = [StateChanged(n, TradingState.ACTIVE, "again") for n in range(3 * MOST_NOTES)]
    book.follow(states, 10_000)
    told = book.as_values()
    bars = list(told["bars"].values())
    assert len(bars) <= MOST_BARS + 1
    assert bars[0] == [1, 1.0] and bars[-1] == [3 * MOST_BARS - 1, 3.0 * MOST_BARS - 1]
    times = [t for t, _ in bars]
    assert times == sorted(set(times)) and max(np.diff(times)) <= 8
    assert len(told["fills"]) == MOST_FILLS and len(told["notes"]) == MOST_NOTES


def test_a_new_session_begins_a_new_curve_and_the_closed_one_is_kept() -> None:
    book = RecentActivity()
    book.bar(SECOND_NS, "2026-01-05", 99.0, 100.0, None, {"delta": -1.0}, SECOND_NS)
    book.follow([SessionClosed(2 * SECOND_NS, "2026-01-05", 99.0)], 7)
    assert book.as_values()["profit"]["total"] == -1.0
    book.bar(9 * SECOND_NS, "2026-01-06", 98.0, 99.0, None, {}, 9 * SECOND_NS)
    told = book.as_values()
    assert list(told["bars"].values()) == [[9, 98.0]]
    assert told["sessions"] == {"2026-01-05": [2, 99.0]}


def test_cash_that_was_moved_is_told_with_its_time_after_a_restart_too(tmp_path: Path) -> None:
    moved = CashMoved(3 * SECOND_NS, 1, -250.0, 99.0)
    book = RecentActivity()
    book.follow([moved], 2)
    assert book.as_values()["moves"] == {"2": [3, -250.0, 99.0]}
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.open_account("paper", 1_000.0, SECOND_NS)
        journal.append_many([moved, *(fill(n) for n in range(2_000))])
        again = RecentActivity()
        again.open(path, journal.last_seq)
        told = again.as_values()
    assert told["moves"] == {"2": [3, -250.0, 99.0]}, "however much happened since"


def test_the_gates_numbers_are_kept() -> None:
    compared = Compared("simulated", 32, 0.1, -0.2, -0.3, -0.5, -0.1)
    event = ChallengerRejected(
        SECOND_NS, 1, 40, 1, ("worse",), "it is worse", 1, False, 0.02, (compared,)
    )
    book = RecentActivity()
    book.follow([event], 3)
    judged = book.as_values()["judgements"]["3"]
    assert judged["compared"] == [["simulated", 32, 0.1, -0.2, -0.3, -0.5, -0.1]]
    assert judged["failed"] == ["worse"] and judged["kl"] == 0.02


def test_the_learners_curves_are_kept_an_update_once() -> None:
    book = RecentActivity()
    book.learned({"live_updates": 9})
    # A reset of the challenger lowers its version; another driver begins at 1 again.
    report = {"updates": 5, "live_updates": 1, "entropy": 1.23456789, "kl": float("nan")}
    book.learned(report)
    book.learned(report)
    assert book.as_values()["learning"] == {
        "1": {
            "updates": 1,
            "entropy": 1.2346,
            "kl": None,
            "kl_to_champion": None,
            "policy_loss": None,
            "value_loss": None,
        }
    }
