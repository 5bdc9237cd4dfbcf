"""An account's own history, read from its journal: trades, days, and what the learner changed.

Nothing is computed anew that the account's fold says: what a trade gained is what the fold booked
when it ended, what a day gained is the difference of the equities at its ends. So a report and the
account agree to the cent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from trading.envs.catalogue import CLOSE, HOLD
from trading.execution.events import (
    AccountOpened,
    CashMoved,
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    CorporateActionApplied,
    DecisionMade,
    DividendPaid,
    Ending,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderRepriced,
    SessionClosed,
    Settled,
)
from trading.execution.holdings import StrategyPosition
from trading.execution.money import round_usd
from trading.execution.orders import Intent, Order
from trading.execution.portfolio import Account

NEW_YORK = ZoneInfo("America/New_York")
_SECOND_NS = 1_000_000_000
GREEKS = ("delta", "gamma", "theta", "vega")
PARTS = (*GREEKS, "spread", "fees", "rest")
"""What the profit of a trade is split into, see `Trade.parts`."""
_EARNED = (*GREEKS, "quotes", "unexplained", "spread")
"""Of `DecisionMade.earned`, in order."""


def new_york(ts_ns: int) -> datetime:
    """Exchange time of an instant."""
    return datetime.fromtimestamp(ts_ns / _SECOND_NS, UTC).astimezone(NEW_YORK)


@dataclass(frozen=True)
class LegDone:
    """One thing that happened to one leg of a trade."""

    ts_ns: int
    symbol: str
    quantity: int
    """Signed contracts or round lots, + bought."""
    price: float
    """USD a share."""
    what: str
    """opened, closed, or how it ended without a trade."""


@dataclass
class Trade:
    """One strategy from its first fill to its end; amounts are USD."""

    underlying: str
    strategy: str
    order_id: str
    opened_ns: int
    reason_open: str
    champion: int
    legs: list[LegDone] = field(default_factory=list)
    units: int = 0
    """Most that were open at once."""
    fees: float = 0.0
    closed_ns: int = 0
    """0 while it is open."""
    reason_close: str = ""
    profit: float = 0.0
    """After all fees; 0 while it is open."""
    net_cash: float = 0.0
    """Change of cash so far, after fees."""
    earned: dict[str, float] = field(default_factory=dict)
    """What its bars earned by what, unrounded; empty where the journal tells nothing of it."""

    def earn(self, amounts: Sequence[float]) -> None:
        """Add what a bar earned, USD by the parts that `DecisionMade.earned` has."""
        for name, amount in zip(_EARNED, amounts, strict=True):
            self.earned[name] = self.earned.get(name, 0.0) + amount

    @property
    def parts(self) -> dict[str, float] | None:
        """Its profit by `PARTS`, which add up to it to the cent.

        The greeks and the spread are what the bars brought while the account was watched. The rest
        is of higher order, marks without a two-sided quote, settlements and dividends, and bars
        that nobody watched or journalled, as those since the last decision before a stop; it is
        not known before the trade ends, and not told then. None where an older journal tells
        nothing of it.
        """
        if not self.earned:
            return None
        told = {name: round_usd(self.earned.get(name, 0.0)) for name in (*GREEKS, "spread")}
        told["fees"] = round_usd(-self.fees)
        if self.closed_ns:
            told["rest"] = round_usd(self.profit - sum(told.values()))
        return told


@dataclass(frozen=True)
class Day:
    """One session; amounts are USD. The last one may not have ended yet."""

    date: str
    equity: float
    moved: float
    """Paid in (+) or taken out (-) since the close before."""
    profit: float
    """Change of equity since the close before, without cash moved."""
    base: float
    """What the profit is a fraction of: equity at the close before, and cash moved."""
    realised: float
    fees: float
    fills: int
    interest: float
    open_trades: int
    margin_used: float
    """Buying power that positions hold back at the close."""
    is_over: bool = True

    @property
    def gain(self) -> float:
        """The profit as a fraction."""
        return self.profit / self.base if self.base > 0.0 else 0.0


@dataclass(frozen=True)
class Note:
    """Something that happened once."""

    ts_ns: int
    what: str
    told: str
    amount: float = 0.0


@dataclass
class OrderTold:
    """An order, and the decision that it came from."""

    order: Order
    """With the limit of now."""
    action: int
    """Of that decision; HOLD where there was none."""
    why: str
    """The decision for people; empty where there was none."""
    step: int = 0
    """So often its limit came nearer to the touch."""
    is_filled: bool = False
    """A unit of it was."""

    @property
    def told(self) -> str:
        """The decision, and the limit that it traded at, for people; empty as `why`."""
        limit = self.order.limit_price
        if limit is None or not self.why:
            return self.why
        side = "debit" if limit >= 0.0 else "credit"
        steps = f"{self.step} step" if self.step == 1 else f"{self.step} steps"
        nearer = f" after {steps}" if self.order.leg_limits else ""
        return f"{self.why}, a limit at {abs(limit):.2f} {side}{nearer}"


WORKED = ("placed", "filled", "cancelled")
"""What orders that worked from mid came to; cancelled are those of which nothing was filled."""


class Ledger:
    """Takes the events of one journal in order; what it holds then is the account's history."""

    def __init__(self) -> None:
        self.account = Account()
        self.trades: list[Trade] = []
        """Ended ones, in the order in which they ended."""
        self.open: dict[str, Trade] = {}
        """By underlying."""
        self.days: list[Day] = []
        self.late: list[Note] = []
        """Cash that came for trades that had ended before."""
        self.learner: list[Note] = []
        self.moves: list[Note] = []
        self.rejections: Counter[str] = Counter()
        self.worked: Counter[str] = Counter()
        """Orders that worked from mid, by `WORKED`."""
        self.equity: list[tuple[int, float]] = []
        """After each bar, as far as the decisions tell what each underlying made."""
        self.first_ns = 0
        self._before = (0.0, 0.0, 0, 0.0)
        self._moved = self._base = 0.0
        self._last_close_ns = 0
        self._decisions: dict[str, DecisionMade] = {}
        self._orders: dict[str, OrderTold] = {}
        """By their ids."""
        self._by_order: dict[str, Trade] = {}
        """The first trade of each order that opened any."""

    def take(self, event: Event) -> None:
        """Fold one event.

        Raises
        ------
        JournalError
            It contradicts the events before it.
        """
        account = self.account
        held = account.positions.get(event.symbol) if isinstance(event, Settled) else None
        before = dict(account.strategies)
        closed, realised = account.closed_trades, account.realised_pnl
        session = account.last_session
        account.apply(event)
        handler = _TAKEN.get(type(event))
        if handler is not None:
            handler(self, event)
        if isinstance(event, OrderFilled | Settled | CorporateActionApplied):
            underlying = held.underlying if held else ""
            self._follow(event, before, underlying)
            gained = round_usd(account.realised_pnl - realised)
            self._end(event, account.closed_trades - closed, gained)
        elif isinstance(event, SessionClosed) and account.last_session != session:
            self._close_day(event.date, event.equity)

    def order(self, order_id: str) -> OrderTold:
        """Return an order as it stands now."""
        return self._orders[order_id]

    def finish(self) -> "Ledger":
        """Add the day that has not ended yet, where anything is known of it."""
        if self.equity and (not self.days or self.equity[-1][0] > self._last_close_ns):
            ts_ns, equity = self.equity[-1]
            self._close_day(str(new_york(ts_ns).date()), equity, is_over=False)
        for trade in self.open.values():
            trade.net_cash = self.account.strategies[trade.underlying].net_cash
        return self

    def between(self, first: date | None, last: date | None) -> "Period":
        """Return what falls on days from `first` to `last`, both included; None: no bound."""

        def holds(day: str) -> bool:
            return (first is None or str(first) <= day) and (last is None or day <= str(last))

        def falls(ts_ns: int) -> bool:
            return holds(str(new_york(ts_ns).date()))

        return Period(
            days=[day for day in self.days if holds(day.date)],
            trades=[trade for trade in self.trades if falls(trade.closed_ns)],
            late=[note for note in self.late if falls(note.ts_ns)],
            learner=[note for note in self.learner if falls(note.ts_ns)],
            moves=[note for note in self.moves if falls(note.ts_ns)],
            equity=[each for each in self.equity if falls(each[0])],
            open=list(self.open.values()),
        )

    def _opened(self, event: AccountOpened) -> None:
        self.first_ns = event.ts_ns
        self._base = event.cash

    def _decided(self, event: DecisionMade) -> None:
        self._decisions[event.underlying] = event
        for order_id, amounts in event.earned.items():
            trade = self._by_order.get(order_id)
            if trade is not None:
                trade.earn(amounts)
        account = self.account
        if event.profit is None:
            return
        made = sum(account.rewarded_profit.values())
        equity = account.paid_in + account.interest + made
        if self.equity and self.equity[-1][0] == event.ts_ns:
            self.equity[-1] = (event.ts_ns, equity)
        else:
            self.equity.append((event.ts_ns, equity))

    def _accepted(self, event: OrderAccepted) -> None:
        order = event.order
        if order.leg_limits:
            self.worked["placed"] += 1
        why = self._decided_on(order.underlying, event.ts_ns)
        action = self._decisions[order.underlying].action if why else HOLD
        self._orders[order.order_id] = OrderTold(order, action, why)

    def _repriced(self, event: OrderRepriced) -> None:
        told = self._orders[event.order_id]
        told.step = event.step
        told.order = msgspec.structs.replace(
            told.order, limit_price=event.limit_price, leg_limits=event.leg_limits
        )

    def _cancelled(self, event: OrderCancelled) -> None:
        told = self._orders.get(event.order_id)
        if told is not None and told.order.leg_limits and not told.is_filled:
            self.worked["cancelled"] += 1

    def _filled(self, event: OrderFilled) -> None:
        told = self._orders[event.fill.order_id]
        if told.order.leg_limits and not told.is_filled:
            self.worked["filled"] += 1
        told.is_filled = True

    def _rejected(self, event: OrderRejected) -> None:
        self.rejections[str(event.rejection.reason)] += 1

    def _cash_moved(self, event: CashMoved) -> None:
        self._moved = round_usd(self._moved + event.amount)
        what = "paid in" if event.amount > 0.0 else "taken out"
        self.moves.append(Note(event.ts_ns, what, f"{event.amount:+,.2f} USD", event.amount))

    def _dividend(self, event: DividendPaid) -> None:
        if event.underlying in self.account.strategies:
            if event.lots:
                self._touch(event.underlying, event.ts_ns, event.lots, event.amount, "dividend")
        elif event.lots:
            told = f"{event.amount:.4f} USD a share, ex {event.ex_date}, after the sale"
            self.late.append(Note(event.ts_ns, f"dividend on {event.underlying}", told, event.cash))

    def _promoted(self, event: ChampionPromoted) -> None:
        kl = "" if event.kl is None else f", KL {event.kl:.4f}"
        told = f"champion {event.champion} (version {event.version}) by {event.by}{kl}"
        self.learner.append(Note(event.ts_ns, "promoted", f"{told}: {event.reason}"))

    def _refused(self, event: ChallengerRejected) -> None:
        told = f"version {event.version}, {event.in_a_row} in a row: {event.reason}"
        self.learner.append(Note(event.ts_ns, "refused", told))

    def _rolled_back(self, event: ChampionRolledBack) -> None:
        told = f"champion {event.champion} after {event.discarded} by {event.by}: {event.reason}"
        self.learner.append(Note(event.ts_ns, "rolled back", told))

    def _touch(self, underlying: str, ts_ns: int, quantity: int, price: float, what: str) -> None:
        trade = self.open.get(underlying)
        if trade is not None:
            trade.legs.append(LegDone(ts_ns, underlying, quantity, price, what))

    def _follow(
        self,
        event: OrderFilled | Settled | CorporateActionApplied,
        before: dict[str, StrategyPosition],
        underlying: str,
    ) -> None:
        """Take into the open trades what an event did to them."""
        now = self.account.strategies
        if isinstance(event, CorporateActionApplied):
            self._converted(event)
        for name, strategy in now.items():
            if name not in self.open:
                self.open[name] = self._begun(name, strategy, event)
                self._by_order[strategy.order_id] = self.open[name]
        if isinstance(event, OrderFilled):
            fill = event.fill
            trade = self.open[fill.underlying]
            told = self._orders[fill.order_id]
            what = "opened" if told.order.intent is Intent.OPEN else "closed"
            trade.legs += [
                LegDone(event.ts_ns, leg.symbol, leg.quantity, leg.price, what) for leg in fill.legs
            ]
            trade.fees = round_usd(trade.fees + fill.fees)
            if fill.underlying in now:
                trade.units = max(trade.units, now[fill.underlying].units)
        elif isinstance(event, Settled):
            self.open[underlying].legs.append(
                LegDone(event.ts_ns, event.symbol, -event.quantity, event.price, _said(event))
            )

    def _converted(self, event: CorporateActionApplied) -> None:
        """Let a trade go on under the name that its underlying has now."""
        trade = self.open.pop(event.underlying, None)
        if trade is None:
            return
        trade.legs += [
            LegDone(
                event.ts_ns,
                each.into or each.symbol,
                each.into_quantity,
                each.mark,
                f"by {str(event.what).replace('_', ' ')} ({event.terms})",
            )
            for each in event.converted
        ]
        joined = self.open.get(event.after)
        if joined is not None:
            joined.legs += trade.legs
            joined.fees = round_usd(joined.fees + trade.fees)
            for name, amount in trade.earned.items():
                joined.earned[name] = joined.earned.get(name, 0.0) + amount
            for order_id, each in self._by_order.items():
                if each is trade:
                    self._by_order[order_id] = joined
        else:
            trade.underlying = event.after
            self.open[event.after] = trade

    def _begun(self, name: str, strategy: StrategyPosition, event: Event) -> Trade:
        if isinstance(event, CorporateActionApplied):
            reason = event.terms
        elif isinstance(event, OrderFilled):
            reason = self._orders[event.fill.order_id].told or "ordered"
        else:
            reason = self._decided_on(name, event.ts_ns) or "ordered"
        return Trade(
            name,
            strategy.strategy,
            strategy.order_id,
            event.ts_ns,
            reason,
            self.account.champion,
            units=strategy.units,
        )

    def _decided_on(self, underlying: str, ts_ns: int) -> str:
        """Return the decision of that instant, for people; empty where there was none."""
        decision = self._decisions.get(underlying)
        if decision is None or decision.ts_ns != ts_ns or decision.masked:
            return ""
        if decision.trader:
            return f"{decision.trader} chose {decision.action_name}"
        return f"policy chose {decision.action_name}, value {decision.value:+.3f}"

    def _end(self, event: Event, ended: int, gained: float) -> None:
        """Move trades that are no more to the ended ones; at most one of them was booked."""
        gone = [each for each in self.open if each not in self.account.strategies]
        booked = event.after if isinstance(event, CorporateActionApplied) else "".join(gone)
        for name in gone:
            trade = self.open.pop(name)
            if not ended or name != booked:
                continue  # Taken back with the action that had brought it.
            trade.closed_ns, trade.profit = event.ts_ns, gained
            trade.net_cash = gained
            trade.reason_close = self._why_ended(name, event)
            self.trades.append(trade)

    def _why_ended(self, underlying: str, event: Event) -> str:
        if isinstance(event, Settled):
            return f"{_said(event)} at {event.price:.2f}, underlying {event.underlying_price:.2f}"
        if isinstance(event, CorporateActionApplied):
            return event.terms
        if isinstance(event, OrderFilled):
            order = self._orders[event.fill.order_id]
            if order.told and order.action == CLOSE:
                return order.told
        flattened = [each.reason for each in self.account.restrictions.values() if each.flatten]
        return "; ".join(flattened) or "closed by its owner, or wound down"

    def _close_day(self, day: str, equity: float, *, is_over: bool = True) -> None:
        account = self.account
        realised, fees, fills, interest = self._before
        base = round_usd(self._base + self._moved)
        self.days.append(
            Day(
                date=day,
                equity=equity,
                moved=self._moved,
                profit=round_usd(equity - base),
                base=base,
                realised=round_usd(account.realised_pnl - realised),
                fees=round_usd(account.fees_paid - fees),
                fills=account.fills - fills,
                interest=round_usd(account.interest - account.borrow_fees - interest),
                open_trades=len(account.strategies),
                margin_used=account.margin_used,
                is_over=is_over,
            )
        )
        self._before = (
            account.realised_pnl,
            account.fees_paid,
            account.fills,
            round_usd(account.interest - account.borrow_fees),
        )
        self._base, self._moved = equity, 0.0
        self._last_close_ns = account.last_ts_ns


@dataclass(frozen=True)
class Period:
    """A part of an account's history."""

    days: list[Day]
    trades: list[Trade]
    late: list[Note]
    learner: list[Note]
    moves: list[Note]
    equity: list[tuple[int, float]]
    open: list[Trade]


def read_ledger(
    events: Iterable[Event], progress: Callable[[int], None] = lambda _: None
) -> Ledger:
    """Return the history that events tell; `progress` is called with how many were read.

    Raises
    ------
    JournalError
        An event is damaged, or contradicts those before it.
    """
    ledger = Ledger()
    for number, event in enumerate(events, 1):
        ledger.take(event)
        if number % 1000 == 0:
            progress(number)
    return ledger.finish()


def _said(event: Settled) -> str:
    if event.ending is Ending.CASH:
        return "paid out in cash"
    return str(event.ending).replace("_", " ")


_TAKEN: dict[type[Any], Callable[[Ledger, Any], None]] = {
    AccountOpened: Ledger._opened,
    DecisionMade: Ledger._decided,
    OrderAccepted: Ledger._accepted,
    OrderRepriced: Ledger._repriced,
    OrderFilled: Ledger._filled,
    OrderCancelled: Ledger._cancelled,
    OrderRejected: Ledger._rejected,
    CashMoved: Ledger._cash_moved,
    DividendPaid: Ledger._dividend,
    ChampionPromoted: Ledger._promoted,
    ChallengerRejected: Ledger._refused,
    ChampionRolledBack: Ledger._rolled_back,
}
