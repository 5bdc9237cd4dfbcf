"""What an account did, kept for who looks at it: the session bar by bar, and how others ended.

The trading thread only puts things down; they are written up on the thread that asks. Everything
has a bound, beyond which the oldest goes, or a curve is drawn from fewer points.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from trading.envs.catalogue import action_names
from trading.execution.events import (
    CashMoved,
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    Event,
    OrderAccepted,
    OrderFilled,
    OrderRepriced,
    SessionClosed,
)
from trading.execution.journal.lines import describe_event, kind_of
from trading.execution.orders import Intent, Rejection
from trading.live.session_history import SHOWN, SessionHistory, read_history
from trading.live.trader import BarDecisions

MOST_BARS = 800
"""Points of the session's curve; of more, every other one is left out."""
MOST_SESSIONS = 260
MOST_FILLS = 200
MOST_MOVES = 200
MOST_DECISIONS = 120
MOST_NOTES = 100
MOST_JUDGEMENTS = 30
MOST_UPDATES = 300
_BEST = 5
"""Likeliest actions that a decision is shown with."""
_WAITING = 20_000
_ORDERS_KNOWN = 64
_CURVES = ("entropy", "kl", "kl_to_champion", "policy_loss", "value_loss")
"""Of the learner's report: what is shown from update to update."""


_Row = TypeVar("_Row")


class _Opened(NamedTuple):
    """The account's journal, and its last event before anything is put down here."""

    path: Path
    seq: int


class _Closed(NamedTuple):
    """A bar that was closed."""

    ts_ns: int
    session: str
    equity: float
    base: float
    decided: BarDecisions | None
    parts: dict[str, float]
    parts_since_ns: int


class _Learned(NamedTuple):
    """The learner's account of an update, as `LearnerReport` has it."""

    report: dict[str, Any]


class _Journalled(NamedTuple):
    seq: int
    event: Event


class RecentActivity:
    """Put down by the trading thread, read by one other.

    Tables are objects by number, so that what changed between two readings is what was added.
    """

    def __init__(self) -> None:
        self.actions = action_names()
        """Names of what may be decided, in the order of a decision's numbers."""
        self._waiting: deque[_Opened | _Closed | _Journalled | _Learned] = deque(maxlen=_WAITING)
        self._session = ""
        self._base = float("nan")
        self._equity = float("nan")
        self._every, self._seen = 1, 0
        """Every so many bars one is kept, of those seen."""
        self._bars: dict[str, list[float]] = {}
        self._sessions: dict[str, list[float]] = {}
        """Time of the close and equity (USD) of each session, by its date."""
        self._moves: dict[str, list[float | None]] = {}
        """Time, USD paid in (+) or taken out, and the equity before it where known, by number."""
        self._fills: dict[str, dict[str, Any]] = {}
        self._decisions: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._judgements: dict[str, dict[str, Any]] = {}
        self._learning: dict[str, dict[str, Any]] = {}
        self._parts: dict[str, Any] = {}
        self._orders: dict[str, OrderAccepted] = {}
        self._trades: dict[str, tuple[float, int]] = {}
        """Cash and units of what is open, by underlying, where its opening is known."""
        self._decided = 0

    def open(self, path: Path, seq: int) -> None:
        """Begin with what the journal tells up to its event `seq`."""
        self._waiting.append(_Opened(path, seq))

    def follow(self, events: Sequence[Event], seq: int) -> None:
        """Events were journalled; the last one is number `seq`."""
        first = seq - len(events) + 1
        for number, event in enumerate(events, first):
            if isinstance(event, SHOWN):
                self._waiting.append(_Journalled(number, event))

    def bar(
        self,
        ts_ns: int,
        session: str,
        equity: float,
        base: float,
        decided: BarDecisions | None,
        parts: dict[str, float],
        parts_since_ns: int,
    ) -> None:
        """Note a closed bar: equity, what the day's profit is measured from, its parts, USD."""
        told = _Closed(ts_ns, session, equity, base, decided, dict(parts), parts_since_ns)
        self._waiting.append(told)

    def learned(self, report: dict[str, Any]) -> None:
        """Put down what the learner tells of itself, from any thread."""
        self._waiting.append(_Learned(report))

    def as_values(self) -> dict[str, Any]:
        """All of it, as JSON values; times in UTC seconds, money in USD."""
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, _Closed):
                self._close(item)
            elif isinstance(item, _Journalled):
                self._note(item.seq, item.event)
            elif isinstance(item, _Learned):
                self._learn(item.report)
            else:
                self._load_history(read_history(item.path, item.seq))
        return {
            "session": self._session,
            "bars": self._bars,
            "sessions": self._sessions,
            "moves": self._moves,
            "profit": self._profit(),
            "fills": self._fills,
            "decisions": self._decisions,
            "notes": self._notes,
            "judgements": self._judgements,
            "learning": self._learning,
            "actions": [*self.actions],
        }

    def _load_history(self, before: SessionHistory) -> None:
        self._session, self._base = before.session, before.base
        self._bars, self._every, self._seen = {}, 1, 0
        self._trades.clear()
        for ts_ns, equity in before.bars:
            self._point(ts_ns, equity)
        for seq, event in before.events:
            self._note(seq, event)

    def _close(self, bar: _Closed) -> None:
        if bar.session != self._session:
            self._session = bar.session
            self._bars, self._every, self._seen = {}, 1, 0
        # At the session's last bar the base is the next one's already.
        if bar.decided is not None or not np.isfinite(self._base):
            self._base = bar.base
        self._equity = bar.equity
        self._point(bar.ts_ns, bar.equity)
        self._parts = {"since": _seconds(bar.parts_since_ns), **bar.parts}
        if bar.decided is not None:
            self._decide(bar.decided)

    def _point(self, ts_ns: int, equity: float) -> None:
        """Keep a point of the curve, its newest one always."""
        self._seen += 1
        names = list(self._bars)
        if self._seen > 2 and (self._seen - 2) % self._every:
            del self._bars[names[-1]]
        elif len(names) >= MOST_BARS:
            for name in names[1:-1:2]:
                del self._bars[name]
            self._every *= 2
        self._bars[str(self._seen)] = [_seconds(ts_ns), round(equity, 2)]

    def _profit(self) -> dict[str, Any]:
        """Return the day's profit and where it came from; `other` is what nothing else explains."""
        total = self._equity - self._base
        amounts = {name: each for name, each in self._parts.items() if name != "since"}
        other = total - sum(amounts.values())
        rounded = {name: round(each, 2) for name, each in amounts.items()}
        return {
            "total": round(total, 2) if np.isfinite(total) else None,
            "since": self._parts.get("since"),
            "parts": rounded | ({"other": round(other, 2)} if np.isfinite(other) else {}),
        }

    def _decide(self, decided: BarDecisions) -> None:
        decision = decided.decision
        for u, symbol in enumerate(decided.symbols):
            self._decided += 1
            action = int(decision.actions[u])
            chances = decision.probabilities[u]
            best = np.argsort(-chances, kind="stable")[:_BEST]
            outcome = decided.outcomes[u] if decided.outcomes else None
            told: dict[str, Any] = {
                "t": _seconds(decided.ts_ns),
                "underlying": symbol,
                "action": action,
                "value": round(float(decision.values[u]), 4),
                "chance": round(float(chances[action]), 4),
                "best": [[int(i), round(float(chances[i]), 4)] for i in best if chances[i] > 0.0],
                "allowed": np.flatnonzero(decided.mask[u]).tolist(),
                "weights": decided.version,
            }
            if not decided.outcomes:
                told["late"] = True
            elif outcome is not None and outcome.masked:
                told["masked"] = True
            elif outcome is not None and isinstance(outcome.result, Rejection):
                result = outcome.result
                told["refused"] = [result.order_id, str(result.reason), result.detail]
            elif outcome is not None and outcome.result is not None:
                told["filled"] = outcome.result.order_id
            elif outcome is not None and outcome.waits:
                told["waits"] = outcome.waits
            if outcome is not None and outcome.ordered is not None:
                told["ordered"] = int(outcome.ordered)
            _put(self._decisions, self._decided, told, MOST_DECISIONS)

    def _learn(self, report: dict[str, Any]) -> None:
        updates = int(report.get("live_updates", 0))
        newest = int(next(reversed(self._learning), 0))
        if updates < newest:  # Another driver counts anew.
            self._learning = {}
        if updates and updates != newest:
            told = {name: _plain(report.get(name)) for name in _CURVES}
            _put(self._learning, updates, {"updates": updates, **told}, MOST_UPDATES)

    def _note(self, seq: int, event: Event) -> None:
        match event:
            case OrderAccepted():
                self._orders[event.order.order_id] = event
                if len(self._orders) > _ORDERS_KNOWN:
                    del self._orders[next(iter(self._orders))]
            case OrderFilled():
                _put(self._fills, seq, self._filled(event), MOST_FILLS)
            case SessionClosed():
                self._sessions[event.date] = [_seconds(event.ts_ns), round(event.equity, 2)]
                if len(self._sessions) > MOST_SESSIONS:
                    del self._sessions[next(iter(self._sessions))]
            case OrderRepriced():
                pass  # The status shows the order as it is; the steps would push out the rest.
            case _:
                if isinstance(event, CashMoved):
                    moved = [_seconds(event.ts_ns), event.amount, event.equity]
                    _put(self._moves, seq, moved, MOST_MOVES)
                told = {
                    "t": _seconds(event.ts_ns),
                    "kind": kind_of(event),
                    "said": describe_event(event),
                }
                _put(self._notes, seq, told, MOST_NOTES)
                if isinstance(event, ChampionPromoted | ChallengerRejected | ChampionRolledBack):
                    _put(self._judgements, seq, _judged(event), MOST_JUDGEMENTS)

    def _filled(self, event: OrderFilled) -> dict[str, Any]:
        """Return a fill, with the profit of the trade where it ends one whose opening is known."""
        fill = event.fill
        accepted = self._orders.get(fill.order_id)
        cash = fill.premium - fill.fees
        told: dict[str, Any] = {
            "t": _seconds(fill.ts_ns),
            "order": fill.order_id,
            "underlying": fill.underlying,
            "units": fill.units,
            "premium": round(fill.premium, 2),
            "fees": round(fill.fees, 2),
            "legs": [[leg.symbol, leg.quantity, leg.price] for leg in fill.legs],
        }
        if accepted is None:
            return told
        order = accepted.order
        told |= {"strategy": order.strategy, "opens": order.intent is Intent.OPEN}
        known = self._trades.get(fill.underlying)
        if order.intent is Intent.OPEN:
            before, units = known or (0.0, 0)
            self._trades[fill.underlying] = (before + cash, units + fill.units)
        elif known is not None:
            earned, left = known[0] + cash, known[1] - fill.units
            if left > 0:
                self._trades[fill.underlying] = (earned, left)
            else:
                del self._trades[fill.underlying]
                told["profit"] = round(earned, 2)
        return told


def _judged(event: ChampionPromoted | ChallengerRejected | ChampionRolledBack) -> dict[str, Any]:
    """Who was to trade, and what the gate measured."""
    told: dict[str, Any] = {
        "t": _seconds(event.ts_ns),
        "kind": kind_of(event),
        "champion": event.champion,
        "version": event.version,
        "reason": event.reason,
    }
    if isinstance(event, ChampionRolledBack):
        return told | {"by": str(event.by), "discarded": event.discarded}
    if isinstance(event, ChampionPromoted):
        told |= {"by": str(event.by), "before": event.before}
    else:
        told |= {"failed": list(event.failed), "in_a_row": event.in_a_row}
    compared = [
        [getattr(each, name) for name in Compared.__struct_fields__] for each in event.compared
    ]
    return told | {"kl": event.kl, "compared": compared}


def _plain(value: Any) -> float | None:
    return float(f"{value:.5g}") if value is not None and np.isfinite(value) else None


def _put(table: dict[str, _Row], number: int, row: _Row, most: int) -> None:
    table[str(number)] = row
    if len(table) > most:
        del table[next(iter(table))]


def _seconds(ts_ns: int) -> int:
    return ts_ns // 1_000_000_000
