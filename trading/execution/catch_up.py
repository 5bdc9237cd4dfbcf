"""What falls due while nothing runs, gone through in order, and what is held back until it can be.

`catch_up` brings an account from the last session that it closed to the open of another one: at
each open corporate actions and dividends, at each close early assignments and what expires, all at
that session's own figures and journalled with that session's time. Every step is one transaction
and is idempotent: a process that dies in between goes on where it died. Nothing here asks anybody
for anything: `KnownEvents` holds what the sources told.

What cannot be done is held back for its underlying, which is suspended with the reason, and all
later steps of that underlying wait for it: an expiry without a closing price, and whatever happens
after a move that no action explains. It is done, in order, once the figure, the action or the
owner's word is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from trading.errors import DataError
from trading.execution.clearing import Clearing
from trading.execution.events import CorporateActionApplied
from trading.execution.journal_writer import AccountJournalWriter
from trading.execution.legs import is_stock
from trading.execution.orders import QuoteView
from trading.execution.portfolio import UNEXPLAINED, Account, unexplained_from
from trading.execution.settlement import value_at_expiry
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.closes import Closes
from trading.market.contracts import Right, parse_symbol
from trading.market.corporate_actions import (
    ActionKind,
    CorporateAction,
    Delisting,
    action_id,
    in_order,
    renames,
    special_dividends,
)
from trading.market.dividends import Dividend

PENDING = "no official close"
"""How the reason of a suspension begins that waits for a closing price."""
MAX_GAP = 0.32
"""Below the fall of a split of 3 for 2, the smallest usual one."""
DELISTED = "delisted on"
"""How the reason of one begins that waits for the stock to be listed again, or for its owner."""

_APPLIED = "was applied and"
"""In the reason of a suspension for an action that is told otherwise since."""
_SAME_ACTION_DAYS = 30
"""A vendor moves an announced action by less than this."""


@dataclass(frozen=True)
class KnownEvents:
    """What the sources have told.

    Parameters
    ----------
    dividends, actions
        Those of the underlyings; others are left out.
    closes
        Closing prices of stocks, and of options where they are known.
    adjusted_roots
        Root that the exchange lists adjusted contracts of an underlying under, where it is known.
    max_gap
        Share of its price that an underlying may move from one close to the next without an action.
    told_since
        From which date on `actions` holds every split of an underlying that there is.
    """

    dividends: Sequence[Dividend] = ()
    actions: Sequence[CorporateAction] = ()
    closes: Closes = field(default_factory=dict)
    adjusted_roots: dict[str, str] = field(default_factory=dict)
    max_gap: float = MAX_GAP
    told_since: Mapping[str, date] = field(default_factory=dict)

    def all_actions(self) -> list[CorporateAction]:
        """Actions in order, with what special dividends do to contracts."""
        return in_order([*self.actions, *special_dividends(self.dividends)])


def pending(
    account: Account, calendar: ExchangeCalendar, before_ns: int
) -> dict[str, dict[date, list[str]]]:
    """Held contracts that have expired before a time, by underlying and session of expiry."""
    found: dict[str, dict[date, list[str]]] = {}
    for symbol, position in account.positions.items():
        if is_stock(symbol):
            continue
        expiry_ns = calendar.expiry_ns(parse_symbol(symbol).expiry)
        if expiry_ns < before_ns:
            days = found.setdefault(position.underlying, {})
            days.setdefault(calendar.date_of(expiry_ns), []).append(symbol)
    return found


def unexplained_since(account: Account, underlying: str) -> date | None:
    """From which session on nothing explains what an underlying does; None where nothing is odd."""
    dates = [
        date.fromisoformat(since)
        for reason in account.suspensions.get(underlying, ())
        if (since := unexplained_from(reason)) is not None
    ]
    return min(dates, default=None)


def suspend_unexplained(
    writer: AccountJournalWriter, underlying: str, day: date, what: str, now_ns: int
) -> None:
    """Let an underlying neither trade nor move in value since no action explains what it does.

    Nothing happens where that is so already, or its owner said that the move of `day` was real.
    """
    reason = f"{UNEXPLAINED} {day}:"
    accepted = writer.account.accepted.get(underlying, ())
    is_known = any(each.startswith(reason) for each in accepted)
    if not is_known and unexplained_since(writer.account, underlying) is None:
        writer.suspend(underlying, f"{reason} {what}", now_ns)


def lift(writer: AccountJournalWriter, underlying: str, prefix: str, why: str, now_ns: int) -> None:
    """End the suspensions of an underlying whose reasons begin with `prefix`."""
    for reason in list(writer.account.suspensions.get(underlying, ())):
        if reason.startswith(prefix):
            writer.reinstate(underlying, why, now_ns, lifts=reason)


def is_a_gap(before: float, after: float, max_gap: float) -> bool:
    """Return whether a price moved by more than `max_gap` of what it was.

    Unknown ones (NaN) did not.
    """
    return before > 0.0 and after > 0.0 and abs(after / before - 1.0) > max_gap + 1e-9


def price_before(price: float, actions: Iterable[CorporateAction]) -> float:
    """Return what a price of before `actions` is after them."""
    for action in in_order(actions):
        price = action.price_after(price)
    return price


def wanted_closes(
    account: Account,
    calendar: ExchangeCalendar,
    known: KnownEvents,
    session: Session,
) -> list[tuple[str, date]]:
    """Symbols and sessions whose closing prices `catch_up` needs up to the open of `session`.

    Of every underlying that is held, under each of its names, from the last closed session on; and
    of sold calls and their puts before an ex-date, which tell whether they are assigned early.
    """
    wanted: dict[tuple[str, date], None] = {}
    names: dict[str, list[str]] = {}
    for each in known.actions:
        names.setdefault(each.underlying, []).extend(_names_after(each))
    starts = _starts(account, calendar, session, known.all_actions())
    for underlying in account.strategies:
        tickers = [underlying]
        for ticker in tickers:
            tickers += [name for name in names.get(ticker, ()) if name not in tickers]
        first = starts.get(underlying, session.date)
        for day in calendar.sessions(first, session.date):
            if day.close_ns <= session.open_ns:
                wanted |= dict.fromkeys((ticker, day.date) for ticker in tickers)
    ex_dates = {(each.underlying, each.ex_date) for each in known.dividends}
    for symbol, position in account.positions.items():
        if is_stock(symbol) or position.quantity > 0:
            continue
        first = starts.get(position.underlying, session.date)
        for day in calendar.sessions(first, session.date):
            after = calendar.next_session(day.date).date
            if day.close_ns <= session.open_ns and (position.underlying, after) in ex_dates:
                contract = parse_symbol(symbol)
                other = replace(contract, right=Right(-contract.right))
                wanted |= dict.fromkeys([(symbol, day.date), (other.symbol, day.date)])
    return list(wanted)


def catch_up(
    broker: Clearing, calendar: ExchangeCalendar, known: KnownEvents, session: Session
) -> list[CorporateActionApplied]:
    """Bring an account to the open of `session`, at which its actions and dividends come into it.

    `broker.marks` are the values of before. Returns the actions that were applied; `broker.marks`
    are of after them. Doing it again, with more known, goes on where something was held back.
    """
    dispute(broker, known, session)
    work = _CatchUp(broker, calendar, known, session)
    for day in work.days():
        work.open(day)
        if day.date < session.date:
            work.close(day)
    return work.applied


def dispute(writer: AccountJournalWriter, known: KnownEvents, session: Session) -> None:
    """Suspend what was converted by an action that is called off or told otherwise since.

    Until its owner takes the action back or keeps it, or it is told again as it was applied.
    """
    account = writer.account
    stands: dict[str, list[str]] = {}
    for name, (terms, identifier) in account.actions.items():
        underlying, kind, ex_date = _parts(name)
        holder = _now_named(account, underlying)
        if not ex_date or holder not in account.strategies:
            continue
        applied = (underlying, kind, date.fromisoformat(ex_date), terms, identifier)
        why = _contradiction(known, applied, session.date, renamed=holder != underlying)
        if why:
            stands.setdefault(holder, []).append(
                f"the {kind} of {ex_date} ({terms}) {_APPLIED} {why}: take it back with "
                f"`trading account undo-action {holder}`, or keep it with "
                f"`trading account reinstate {holder}`"
            )
    for underlying, reasons in list(account.suspensions.items()):
        for reason in reasons:
            if _APPLIED in reason and not reason.endswith(
                tuple(stands.get(underlying, ())) or "\0"
            ):
                why = "the corporate action is undone, or told as it was applied"
                writer.reinstate(underlying, why, session.open_ns, lifts=reason)
    for underlying, tails in stands.items():
        known_ones = [
            *account.suspensions.get(underlying, ()),
            *account.accepted.get(underlying, ()),
        ]
        for tail in tails:
            if not any(each.endswith(tail) for each in known_ones):
                reason = f"{UNEXPLAINED} {session.date}: {tail}"
                writer.suspend(underlying, reason, session.open_ns)


def _contradiction(
    known: KnownEvents,
    applied: tuple[str, str, date, str, str],
    today: date,
    *,
    renamed: bool,
) -> str:
    """Return how what is told contradicts an action that was applied; empty where it does not."""
    underlying, kind, ex_date, terms, identifier = applied
    told = [
        each for each in known.all_actions() if each.underlying == underlying and each.kind == kind
    ]
    same_day = [each.terms for each in told if each.ex_date == ex_date]
    if same_day:
        return "" if terms in same_day else f"is told as {', '.join(same_day)} now"
    for each in told:
        near = abs((each.ex_date - ex_date).days) <= _SAME_ACTION_DAYS
        if (identifier and identifier == each.identifier) or (each.terms == terms and near):
            return f"is told for {each.ex_date} now" if each.ex_date > today else ""
    since = known.told_since.get(underlying)
    tells = kind == ActionKind.SPLIT and not renamed
    return "is called off" if tells and since is not None and since <= ex_date else ""


def _parts(action: str) -> tuple[str, str, str]:
    """Underlying, kind and ex-date of an `action_id`; empty for one that undoes another."""
    parts = action.split("/")
    if len(parts) != 3 or " " in parts[0]:
        return "", "", ""
    return parts[0], parts[1], parts[2]


def _now_named(account: Account, underlying: str) -> str:
    """Under which symbol what was held on an underlying is held now."""
    return next((now for name, now in renames(account.actions) if name == underlying), underlying)


def _starts(
    account: Account,
    calendar: ExchangeCalendar,
    session: Session,
    actions: Sequence[CorporateAction],
) -> dict[str, date]:
    """Return the last session whose steps are done, of each underlying that is held."""
    late = pending(account, calendar, session.open_ns)
    last = date.fromisoformat(account.last_session) if account.last_session else None
    starts = {}
    for underlying in account.strategies:
        opened = calendar.date_of(account.strategies[underlying].opened_ns)
        start = last or opened - timedelta(days=1)
        if underlying in account.held_back:
            since = date.fromisoformat(account.held_back[underlying])
            start = min(start, since - timedelta(days=1))
        corrected = [
            each.ex_date - timedelta(days=1)
            for each in actions
            if each.underlying == underlying
            and (_was_undone(account, each) or _is_told_late(account, each, opened, start))
        ]
        starts[underlying] = min([start, *corrected, *late.get(underlying, ())])
    return starts


def _was_undone(account: Account, action: CorporateAction) -> bool:
    """Return whether an action was taken back that was told otherwise then."""
    return _has_undone(account, action) and action_id(action) not in account.actions


def _has_undone(account: Account, action: CorporateAction) -> bool:
    return any(each.endswith(f" of {action_id(action)}") for each in account.actions)


def _is_told_late(account: Account, action: CorporateAction, opened: date, done: date) -> bool:
    """Return whether an action that converts what is held was missed in its session."""
    if isinstance(action, Delisting) or not opened < action.ex_date <= done:
        return False
    return action_id(action) not in account.actions and not _has_undone(account, action)


def _told(actions: Sequence[CorporateAction]) -> str:
    return ", ".join(f"{each.terms}, ex {each.ex_date}" for each in actions)


def _names_after(action: CorporateAction) -> list[str]:
    name = getattr(action, "new_symbol", "")
    return [name] if name else []


class _CatchUp:
    """One run of `catch_up`."""

    def __init__(
        self, broker: Clearing, calendar: ExchangeCalendar, known: KnownEvents, session: Session
    ) -> None:
        self.broker = broker
        self.calendar = calendar
        self.known = known
        self.session = session
        self.actions = known.all_actions()
        self.applied: list[CorporateActionApplied] = []
        self.done = _starts(broker.account, calendar, session, self.actions)
        self.last_session = broker.account.last_session
        self.held_back = dict(broker.account.held_back)

    def days(self) -> list[Session]:
        """Return the sessions to go through, up to the one that opens.

        Where nothing is held, nothing falls due: the one before is closed, at what there is.
        """
        last = self.broker.account.last_session
        starts = list(self.done.values())
        if starts and last:
            starts.append(date.fromisoformat(last))
        if not starts:
            if not last:
                return []
            starts.append(self._session_before(self.session).date)
        return self.calendar.sessions(min(starts), self.session.date)

    def open(self, day: Session) -> None:
        """Book what comes when a session opens."""
        account = self.broker.account
        before = self._session_before(day)
        self._mark(before)
        for underlying in list(account.strategies):
            if day.date <= self.done.get(underlying, before.date):
                continue
            if pending(account, self.calendar, day.open_ns).get(underlying):
                continue
            self._open_underlying(underlying, before, day)

    def _open_underlying(self, underlying: str, before: Session, day: Session) -> None:
        broker, account = self.broker, self.broker.account
        due = [
            each
            for each in self.actions
            if each.underlying == underlying and before.date < each.ex_date <= day.date
        ]
        since = unexplained_since(account, underlying)
        explains = [each for each in due if self._explains(each, since)]
        if since is not None and day.date >= since and not explains:
            return
        opened_before = account.strategies[underlying].opened_ns < day.open_ns
        # What went ex since nothing explained it is paid for shares of before what explains it.
        waited = before.date if since is None else min(before.date, since - timedelta(days=1))
        owed = [
            each
            for each in self.known.dividends
            if each.underlying == underlying and waited < each.ex_date <= day.date
        ]
        if owed and opened_before:
            broker.pay_dividends(owed, day.open_ns)
        for action in due:
            if opened_before and not self._apply(action, before, day):
                return
        if explains:
            lift(broker, underlying, UNEXPLAINED, _told(explains), day.open_ns)
            for action in explains:
                for name in _names_after(action):
                    lift(broker, name, UNEXPLAINED, _told(explains), day.open_ns)

    def _explains(self, action: CorporateAction, since: date | None) -> bool:
        """Return whether an action may explain a move; one that was applied before it does not.

        But where it was put off after it was applied, that explains why prices did not follow.
        """
        account = self.broker.account
        name = action_id(action)
        if any(_APPLIED in each for each in account.suspensions.get(action.underlying, ())):
            return False
        if name in account.actions:
            return name in account.explained_by
        return not self._was_moved(action) or (since is not None and since < action.ex_date)

    def _apply(self, action: CorporateAction, before: Session, day: Session) -> bool:
        """Apply an action; False where it must wait, and all later ones with it."""
        broker, account = self.broker, self.broker.account
        name = action.underlying
        twins = [
            each
            for each in self.actions
            if action_id(each) == action_id(action) and each.terms != action.terms
        ]
        if twins and action_id(action) not in account.actions:
            terms = ", ".join(sorted({action.terms, *(each.terms for each in twins)}))
            suspend_unexplained(
                broker, name, day.date, f"{terms} are told of one date", day.open_ns
            )
            return False
        if isinstance(action, Delisting):
            broker.suspend(name, f"{DELISTED} {action.ex_date}", day.open_ns)
            return True
        if self._was_moved(action):
            return True
        close = self.known.closes.get((name, before.date))
        mark = broker.marks.get(name, float("nan"))
        spot = close.price if close is not None else mark
        root = self.known.adjusted_roots.get(name, "")
        try:
            event = broker.apply_action(action, day.open_ns, spot=spot, adjusted_root=root)
        except DataError as error:
            suspend_unexplained(broker, name, day.date, str(error), day.open_ns)
            return False
        if event is not None:
            self.applied.append(event)
            self.done[event.after] = max(
                self.done.get(event.after, date.min), self.done.get(name, date.min)
            )
        return True

    def _was_moved(self, action: CorporateAction) -> bool:
        """Return whether an action was applied under a date that the vendor no longer tells."""
        told = {action_id(each) for each in self.actions}
        prefix = f"{action.underlying}/{action.kind}/"
        for other, (terms, identifier) in self.broker.account.actions.items():
            if not other.startswith(prefix) or other in told:
                continue
            apart = abs((date.fromisoformat(other.rpartition("/")[2]) - action.ex_date).days)
            same_name = bool(identifier) and identifier == action.identifier
            if same_name or (terms == action.terms and apart <= _SAME_ACTION_DAYS):
                return True
        return False

    def close(self, day: Session) -> None:
        """Book what ends when a session that nothing traded any more closes."""
        broker, account = self.broker, self.broker.account
        for underlying in list(account.strategies):
            is_new = day.date > self.done.get(underlying, date.min)
            is_new = is_new and not self._was_closed(underlying, day)
            if is_new:
                self._screen(underlying, day)
            if unexplained_since(account, underlying) is not None:
                continue
            if is_new:
                self._assign_early(underlying, day)
            # What is delivered depends on what was delivered before: one after the other.
            if not pending(account, self.calendar, day.open_ns).get(underlying):
                settle_expired(broker, self.calendar, self.known.closes, underlying, day)
        if account.last_session and day.date <= date.fromisoformat(account.last_session):
            return
        self._mark(day)
        marks = {name: broker.last_mark(each) for name, each in account.positions.items()}
        broker.close_session(day.date.isoformat(), account.equity(marks), day.close_ns)

    def _was_closed(self, underlying: str, day: Session) -> bool:
        """Return whether what a session's end brings an underlying was done when it closed."""
        date_ = day.date.isoformat()
        since = self.held_back.get(underlying)
        return date_ <= self.last_session and (since is None or date_ < since)

    def _mark(self, day: Session) -> None:
        """Value holdings at a session's closing prices, those that are known."""
        account = self.broker.account
        for name, position in account.positions.items():
            close = self.known.closes.get((name, day.date))
            if close is not None and position.underlying not in account.suspensions:
                self.broker.marks[name] = close.price

    def _screen(self, underlying: str, day: Session) -> None:
        """Suspend an underlying whose close no action explains."""
        before = self._session_before(day)
        last = self.known.closes.get((underlying, before.date))
        now = self.known.closes.get((underlying, day.date))
        if last is None or now is None:
            return
        if self.last_session >= day.date.isoformat() and underlying in self.held_back:
            return  # Held back then, and explained since.
        between = [
            each
            for each in self.actions
            if each.underlying == underlying and before.date < each.ex_date <= day.date
        ]
        expected = price_before(last.price, between)
        if is_a_gap(expected, now.price, self.known.max_gap):
            what = f"{expected:.2f} -> {now.price:.2f} USD and no corporate action"
            suspend_unexplained(self.broker, underlying, day.date, what, day.close_ns)

    def _assign_early(self, underlying: str, day: Session) -> None:
        following = self.calendar.next_session(day.date).date
        due = [
            each
            for each in self.known.dividends
            if each.underlying == underlying and day.date < each.ex_date <= following
        ]
        close = self.known.closes.get((underlying, day.date))
        if not due or close is None:
            return
        if self.broker.account.strategies[underlying].opened_ns > day.close_ns:
            return
        quotes = {
            symbol: QuoteView(told.price, told.price, 1.0, 1.0, day.close_ns)
            for (symbol, date_), told in self.known.closes.items()
            if date_ == day.date and not is_stock(symbol)
        }
        self.broker.assign_early(
            due,
            quotes,
            {underlying: close.price},
            day.close_ns,
            {underlying: close.source},
        )

    def _session_before(self, day: Session) -> Session:
        start = day.date - timedelta(days=10)
        return self.calendar.sessions(start, day.date)[-2]


def settle_expired(
    broker: Clearing,
    calendar: ExchangeCalendar,
    closes: Closes,
    underlying: str,
    day: Session,
) -> bool:
    """Settle what expired on an underlying in the session `day`; False where it must wait.

    Without a closing price of that session the underlying is suspended; with it, what waited is
    settled at it and the suspension ends.
    """
    expired = pending(broker.account, calendar, day.close_ns + 1).get(underlying, {})
    symbols = expired.get(day.date, [])
    reason = f"{PENDING} of {day.date}"
    close = closes.get((underlying, day.date))
    if symbols and close is None:
        broker.suspend(underlying, f"{reason} to settle {', '.join(symbols)}", day.close_ns)
        return False
    if symbols and close is not None:
        broker.settle(symbols, {underlying: close.price}, day.close_ns, {underlying: close.source})
    lift(broker, underlying, reason, "settled at the official close", day.close_ns)
    return True


def value_when_settled(account: Account, symbol: str, spot: float) -> float:
    """Return what a held contract is worth when it settles at `spot`, USD a share as marked."""
    return value_at_expiry(symbol, spot, account.multiplier, account.adjusted)
