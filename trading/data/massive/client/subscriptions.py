"""What a connection asked the vendor for, and what came of it."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from threading import Lock

from trading.errors import StreamError

CHANNELS = ("Q", "T", "A", "AM", "LULD", "NOI", "V")
_WILDCARD_CHANNELS = ("T", "A", "AM")


@dataclass(frozen=True, slots=True)
class SubscriptionCounts:
    """How many names were asked for, and how many of them were answered in which way.

    `unanswered` counts the names that were sent on this connection and got no answer yet: the
    vendor never answers an unknown channel or a duplicate. A name that is `acknowledged` but never
    `ticking` may be misspelt, since the vendor acknowledges those too.
    """

    asked: int
    acknowledged: int
    refused: int
    unanswered: int
    ticking: int


def check_name(name: str) -> None:
    """Check that `name` is a subscription such as `Q.O:SPY251219C00650000`, `AM.SPY` or `T.*`.

    Raises
    ------
    StreamError
        The channel is unknown, the symbol is absent, or quotes are asked for by `*`.
    """
    channel, _, symbol = name.partition(".")
    if channel not in CHANNELS:
        raise StreamError(f"subscription {name!r} has an unknown channel: use one of {CHANNELS}")
    if not symbol or any(c.isspace() or c == "," for c in symbol):
        raise StreamError(f"subscription {name!r} names no symbol: write {channel}.<symbol>")
    if symbol == "*" and channel not in _WILDCARD_CHANNELS:
        raise StreamError(f"subscription {name!r}: quotes take no wildcard, name each contract")


class SubscriptionTracker:
    """Keeps, for each subscription name (`Q.O:…`, `AM.SPY`), how far it got.

    The names asked for outlive the connection; whether they were sent, acknowledged or refused and
    whether they tick belongs to the present connection and starts anew with `reconnected`. A
    refusal names no symbol, so it is charged to the oldest name still waiting behind the last one
    that was answered, as answers come in the order of asking. Where the vendor skips an answer that
    guess can be wrong; a later acknowledgement overrides it.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked: dict[str, None] = {}
        self._unsent: dict[str, None] = {}
        self._withdrawn: dict[str, None] = {}
        self._ranked: list[str] = []
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._acknowledged: set[str] = set()
        self._refused: set[str] = set()
        self._ticking: set[str] = set()

    @property
    def expects_nothing(self) -> bool:
        """Whether no data can be expected: nothing was asked for, or all of it was refused."""
        with self._lock:
            return len(self._refused) == len(self._asked)

    def ask(self, names: Iterable[str]) -> int:
        """Add `names` to what is wanted and return how many of them are new.

        Raises
        ------
        StreamError
            A name is malformed (see `check_name`); then none of them is added.
        """
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            check_name(name)
        with self._lock:
            new = [name for name in wanted if name not in self._asked]
            for name in new:
                self._asked[name] = None
                self._unsent[name] = None
            return len(new)

    def withdraw(self, names: Iterable[str]) -> int:
        """Stop wanting `names` and return how many of them were wanted."""
        count = 0
        with self._lock:
            for name in names:
                if name not in self._asked:
                    continue
                count += 1
                del self._asked[name]
                if name in self._unsent:
                    del self._unsent[name]
                else:
                    self._withdrawn[name] = None
                self._waiting.pop(name, None)
                self._acknowledged.discard(name)
                self._refused.discard(name)
                self._ticking.discard(name)
        return count

    def rank(self, names: Iterable[str]) -> None:
        """Put `names` in front of what is wanted, in their order: they are needed most."""
        with self._lock:
            first = dict.fromkeys(name for name in names if name in self._asked)
            self._asked = first | self._asked
            self._ranked = list(first)

    def reconnected(self) -> None:
        """Begin anew on a fresh connection: everything asked for is unsent again."""
        with self._lock:
            self._unsent = dict(self._asked)
            self._ranked.clear()
            self._withdrawn.clear()
            self._waiting.clear()
            self._acknowledged.clear()
            self._refused.clear()
            self._ticking.clear()

    def take_unsent(self, limit: int) -> list[str]:
        """Return at most `limit` names to send now, and count them as sent."""
        with self._lock:
            names = list(self._unsent)[:limit]
            for name in names:
                del self._unsent[name]
                self._waiting[name] = None
            return names

    def take_withdrawn(self, limit: int) -> list[str]:
        """Return at most `limit` names to unsubscribe now."""
        with self._lock:
            names = list(self._withdrawn)[:limit]
            for name in names:
                del self._withdrawn[name]
            return names

    def take_ranked(self, limit: int) -> list[str]:
        """Return at most `limit` names to ask for again, see `rank`: those needed least at first.

        Whoever puts what is asked for again in front has them in order after the last ones.
        """
        with self._lock:
            while self._ranked:
                names, self._ranked = self._ranked[-limit:], self._ranked[:-limit]
                again = [name for name in names if name in self._asked and name not in self._unsent]
                if again:
                    return again
            return []

    def acknowledge(self, name: str) -> None:
        """Record that the vendor acknowledged `name`."""
        with self._lock:
            if name not in self._asked:
                return
            self._acknowledged.add(name)
            self._refused.discard(name)
            if name in self._waiting:
                skipped = list(takewhile(lambda earlier: earlier != name, self._waiting))
                del self._waiting[name]
                for earlier in skipped:
                    self._waiting.move_to_end(earlier)

    def refuse(self) -> str | None:
        """Record a refusal and return the name it is charged to, or None when none waits."""
        with self._lock:
            name = next(iter(self._waiting), None)
            if name is not None:
                del self._waiting[name]
                self._refused.add(name)
            return name

    def displace(self, name: str) -> None:
        """Record that `name`, acknowledged before, is subscribed to no longer."""
        with self._lock:
            if name in self._asked:
                self._acknowledged.discard(name)
                self._ticking.discard(name)
                self._refused.add(name)

    def tick(self, names: Iterable[str]) -> None:
        """Record that data arrived for `names`; the consumer, which decodes, calls this."""
        with self._lock:
            self._ticking.update(name for name in names if name in self._asked)

    @property
    def is_answered(self) -> bool:
        """Whether everything asked for was sent and answered on the present connection."""
        with self._lock:
            return not self._unsent and not self._waiting

    @property
    def refused(self) -> list[str]:
        """The names charged with a refusal, sorted."""
        with self._lock:
            return sorted(self._refused)

    @property
    def silent(self) -> list[str]:
        """The names acknowledged for which no data arrived yet, sorted."""
        with self._lock:
            return sorted(self._acknowledged - self._ticking)

    def counts(self) -> SubscriptionCounts:
        """Return the number of names in each state."""
        with self._lock:
            return SubscriptionCounts(
                asked=len(self._asked),
                acknowledged=len(self._acknowledged),
                refused=len(self._refused),
                unanswered=len(self._waiting),
                ticking=len(self._ticking),
            )
