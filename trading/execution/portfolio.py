"""The paper account: cash, positions and statistics as a fold of the journal's events."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from trading.errors import JournalError
from trading.execution.deliverables import AdjustedSymbols, Deliverable
from trading.execution.events import (
    AccountOpened,
    BasesScaled,
    Carried,
    CashMoved,
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    Converted,
    CorporateActionApplied,
    DecisionMade,
    DividendPaid,
    Event,
    MarginChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderRepriced,
    OwnerCommand,
    OwnerCommanded,
    PeakReset,
    PromotedBy,
    RolledBackBy,
    SessionClosed,
    Settled,
    StateChanged,
    TermsAdopted,
    TimeTakenBack,
    UnderlyingReinstated,
    UnderlyingSuspended,
    WeightsAdopted,
)
from trading.execution.holdings import Position, StrategyPosition, WorkingOrder, as_units
from trading.execution.legs import is_stock
from trading.execution.margin.reg_t import defined_risk_margin
from trading.execution.money import round_usd
from trading.execution.orders import Fill, Intent, LegFill, Order
from trading.execution.states import RESTRICTION_RULES, Cause, Restriction, TradingState, strictest

MINUTE_NS = 60_000_000_000
UNEXPLAINED = "unexplained since"
"""How the reason of a suspension begins that waits for a corporate action or its owner's word."""
_SINCE = re.compile(rf"{UNEXPLAINED} (\d{{4}}-\d\d-\d\d)")
_KEYS_KEPT = 256
"""Commands of the owner that are known again when they come a second time."""


class Account:
    """State of one paper account.

    Only `apply` changes it, and its state depends on nothing but the events applied. Applying an
    order, fill, decision, settlement or dividend a second time changes nothing. At most one
    strategy is open for each underlying.

    Attributes
    ----------
    cash, realised_pnl, fees_paid, reward_total : float
        USD, USD, USD, and the sum of rewards. A strategy's profit or loss after all its fees is
        booked to `realised_pnl` when its last unit is closed or settled.
    positions, strategies, working_orders : dict
        By symbol, by underlying, by order id. A stock's symbol is its ticker.
    closed_trades, winning_trades, fills, decisions, orders : int
        Strategies closed or settled, those with a profit, fills, decisions, orders submitted.
    terms : dict
        What it trades by, as the journal says: settings by key, actions and features.
    restrictions : dict
        What restricts trading now, by its cause, in the order in which it came; see `states`.
    commands : dict
        The owner's newest commands by their key, so that one that comes again is known.
    closing : dict
        Underlyings whose strategy the owner wants closed, and the reason.
    interest, borrow_fees : float
        Interest on cash and fees of borrowed stock, USD, up to `carried_through` (YYYY-MM-DD).
        Interest is no underlying's.
    paid_in : float
        Initial cash and what the owner paid in since, less what was taken out, USD.
    deliverables : dict
        What each adjusted contract that is held delivers, by symbol.
    stock_lots : dict
        Shares of one unit of a stock that is not held in round lots, by ticker.
    actions : dict
        Corporate actions that were applied: their terms and the vendor's names, by `action_id`.
    dividends_paid : dict
        Units of stock held into an ex-date, the shares of one where these are no round lots (else
        0), USD a share paid so far and the number of payments, by underlying and ex-date.
    suspensions, kept_marks : dict
        Why each suspended underlying neither trades nor moves in value, and the values at which
        its holdings stay, USD a share: both by underlying.
    held_back : dict
        Since which session (YYYY-MM-DD) nothing explained what an underlying does: what fell due
        on it since then is done once something does. Forgotten when a session closes after that.
    accepted : dict
        Reasons of suspensions that the owner ended, by underlying: they do not come again.
    explained_by : dict
        Actions that were applied while nothing explained what an underlying does, with its name.
    rewarded_profit : dict
        By underlying, USD: what of its `contribution` the rewards so far were given for. An
        underlying that was decided on without it said (in older journals) is absent.
    day_start_equity : float
        Equity at the last session's close, or the initial cash: the base of the daily loss. Cash
        that is paid in or taken out scales it, as it does the peaks and `scale`: gains and losses
        in percent stay what they were.
    day_base : float
        The same for the day's profit in USD: such cash is added to it.
    scale : float
        How many times the initial cash the account would hold if it had neither gained nor lost.
    peak_equity : float
        Highest of the initial cash and the equities at sessions' closes since the last reset: the
        base of the drawdown.
    champion, champion_before : int
        Numbers of the policy that trades and of the one to roll back to; 0: none.
    champion_peak_equity : float
        Highest of the equity when the champion was adopted and those at sessions' closes since; 0,
        so that nothing is lost by it, while `champion_peak_due`.
    champion_peak_due : bool
        The champion was adopted while the equity was not known: the next known one is its peak.
    is_rolled_back : bool
        A drawdown ended a champion, and the owner has not chosen one since.

    Raises
    ------
    JournalError
        From `apply`, when an event contradicts the events before it; nothing is changed then.

    Examples
    --------
    >>> account = Account()
    >>> account.apply(AccountOpened(ts_ns=1, account_id="paper", cash=100_000.0))
    >>> account.buying_power
    100000.0
    """

    def __init__(self) -> None:
        self.account_id = ""
        self.multiplier = 100.0
        self.initial_cash = 0.0
        self.cash = 0.0
        self.realised_pnl = 0.0
        self.fees_paid = 0.0
        self.reward_total = 0.0
        self.positions: dict[str, Position] = {}
        self.strategies: dict[str, StrategyPosition] = {}
        self.working_orders: dict[str, WorkingOrder] = {}
        self.net_cash: dict[str, float] = {}
        self.deliverables: dict[str, Deliverable] = {}
        self.stock_lots: dict[str, float] = {}
        self.actions: dict[str, tuple[str, str]] = {}
        self.dividends_paid: dict[str, tuple[int, float, float, int]] = {}
        self.closed_trades = 0
        self.winning_trades = 0
        self.fills = 0
        self.decisions = 0
        self.orders = 0
        self.rejections = 0
        self.terms: dict[str, str] = {}
        self.restrictions: dict[str, Restriction] = {}
        self.closing: dict[str, str] = {}
        self.commands: dict[str, OwnerCommanded] = {}
        self.owner_commands = self.cash_moves = self.scalings = 0
        self.paid_in = self.unscaled_cash = 0.0
        self.peak_reset_due = False
        self.scale = 1.0
        self.interest = self.borrow_fees = 0.0
        self.carried_through = ""
        self.day_base = 0.0
        self.day_start_equity = 0.0
        self.peak_equity = 0.0
        self.peak_resets = 0
        self.margin_changes = 0
        self.suspensions: dict[str, list[str]] = {}
        self.suspension_changes = 0
        self.held_back: dict[str, str] = {}
        self.accepted: dict[str, list[str]] = {}
        self.explained_by: dict[str, str] = {}
        self.kept_marks: dict[str, dict[str, float]] = {}
        self.last_session = ""
        self.last_ts_ns = 0
        self.last_decision_ns: dict[str, int] = {}
        self.rewarded_profit: dict[str, float] = {}
        self.last_reward_ns = 0
        self.recent_order_ns: list[int] = []
        self.weights_version = 0
        self.champion = self.champion_version = 0
        self.champion_before = self.champion_before_version = 0
        self.newest_champion = 0
        self.champion_peak_equity = 0.0
        self.champion_peak_due = False
        self.is_rolled_back = False
        self.promotions = self.refusals = self.rollbacks = 0
        self.refusals_in_a_row = 0
        self.refusals_by_check: dict[str, int] = {}
        self._booked: set[str] = set()
        self._why_active = ""

    @property
    def trading_state(self) -> TradingState:
        """What may be traded: the strictest of what the restrictions leave."""
        return strictest(self.restrictions)[0]

    @property
    def state_reason(self) -> str:
        """Why; while ACTIVE, what ended the last restriction."""
        return strictest(self.restrictions)[1] if self.restrictions else self._why_active

    @property
    def to_close(self) -> list[str]:
        """Underlyings whose strategies the owner wants closed."""
        if any(each.flatten for each in self.restrictions.values()):
            return list(self.strategies)
        return [name for name in self.strategies if name in self.closing]

    @property
    def margin_used(self) -> float:
        """USD held back by open strategies and working orders."""
        strategies = sum(strategy.margin for strategy in self.strategies.values())
        working = sum(waiting.buying_power_held for waiting in self.working_orders.values())
        return strategies + working

    @property
    def buying_power(self) -> float:
        """Cash less what open strategies and working orders hold back, USD.

        Below zero only where margin moved with the market, stock was assigned, or a dividend was
        owed.
        """
        return float(round_usd(self.cash - self.margin_used))

    @property
    def suspended(self) -> dict[str, str]:
        """Underlyings that neither trade nor move in value for now, with the reasons."""
        return {underlying: "; ".join(reasons) for underlying, reasons in self.suspensions.items()}

    @property
    def win_rate(self) -> float:
        """Fraction of closed strategies with a profit after fees; 0 before the first."""
        return self.winning_trades / self.closed_trades if self.closed_trades else 0.0

    @property
    def next_order_id(self) -> str:
        """The id that the next order must carry."""
        return f"{self.account_id}-{self.orders + 1}"

    def equity(self, marks: Mapping[str, float]) -> float:
        """Cash plus positions at `marks` (USD a share); NaN when a holding has no mark."""
        return self.cash + sum(self._value(leg, marks) for leg in self._legs(self.strategies))

    def contribution(self, underlying: str, marks: Mapping[str, float]) -> float:
        """Part of equity that `underlying` made since the account was opened, USD.

        Contributions of all underlyings and the cash paid in add up to `equity`.
        """
        return self.net_cash.get(underlying, 0.0) + self.value(underlying, marks)

    def value(self, underlying: str, marks: Mapping[str, float]) -> float:
        """Return what is held on `underlying` at `marks` (USD a share), USD; NaN as of `equity`."""
        return sum(self._value(leg, marks) for leg in self._legs((underlying,)))

    @property
    def adjusted(self) -> AdjustedSymbols:
        """What of the holdings is not standard."""
        return AdjustedSymbols(self.deliverables, self.stock_lots)

    def size(self, symbol: str) -> float:
        """Return the multiplier of one unit of a symbol, USD for each USD a share."""
        return self.stock_lots.get(symbol, self.multiplier)

    def shares_held(self, underlying: str) -> float:
        """Signed shares of an underlying's stock."""
        position = self.positions.get(underlying)
        return position.quantity * self.size(underlying) if position else 0.0

    def has_paid(self, underlying: str, ex_date: str) -> bool:
        """Return whether a dividend of an underlying's ex-date (YYYY-MM-DD) is booked."""
        return _dividend_id(underlying, ex_date) in self.dividends_paid

    def paid_so_far(self, underlying: str, ex_date: str) -> tuple[int, float, float, int]:
        """Units held into an ex-date, shares of one, USD a share paid, number of payments."""
        return self.dividends_paid.get(_dividend_id(underlying, ex_date), (0, 0.0, 0.0, 0))

    def _legs(self, underlyings: Iterable[str]) -> Iterator[Position]:
        """Positions, strategy by strategy in the order of its legs."""
        for underlying in underlyings:
            strategy = self.strategies.get(underlying)
            for leg in strategy.legs if strategy else ():
                yield self.positions[leg.symbol]

    def _value(self, position: Position, marks: Mapping[str, float]) -> float:
        size = self.size(position.symbol)
        return position.quantity * size * marks.get(position.symbol, math.nan)

    def fingerprint(self) -> str:
        """SHA-256 of the whole state: equal exactly when every field is equal."""
        state = dict(vars(self), _booked=sorted(self._booked))
        return hashlib.sha256(msgspec.json.encode(state, order="sorted")).hexdigest()

    def apply(self, event: Event) -> None:
        """Take one event into the state; see the class for what is refused or ignored."""
        if not self.account_id and not isinstance(event, AccountOpened):
            raise JournalError(
                f"{type(event).__name__} comes before AccountOpened: an account opens first"
            )
        _FOLD[type(event)](self, event)
        self.last_ts_ns = max(self.last_ts_ns, event.ts_ns)

    def _open(self, event: AccountOpened) -> None:
        if self.account_id or not event.account_id:
            raise JournalError(
                f"account {event.account_id!r} is opened in the journal of account "
                f"{self.account_id!r}: one journal holds one named account"
            )
        self.account_id = event.account_id
        self.multiplier = event.multiplier
        self.initial_cash = self.cash = self.paid_in = event.cash
        self.day_start_equity = self.day_base = self.peak_equity = event.cash

    def _decide(self, event: DecisionMade) -> None:
        if event.ts_ns <= self.last_decision_ns.get(event.underlying, -1):
            return
        self.last_decision_ns[event.underlying] = event.ts_ns
        self.decisions += 1
        self.reward_total += event.reward
        self.last_reward_ns = max(self.last_reward_ns, event.ts_ns)
        if event.profit is not None:
            self.rewarded_profit[event.underlying] = event.profit

    def _accept(self, event: OrderAccepted) -> None:
        if not self._is_new_order(event.order.order_id):
            return
        self.orders += 1
        recent = [ts_ns for ts_ns in self.recent_order_ns if event.ts_ns - ts_ns < MINUTE_NS]
        self.recent_order_ns = [*recent, event.ts_ns]
        self.working_orders[event.order.order_id] = WorkingOrder(
            event.order, event.order.units, event.reserved_per_unit
        )

    def _reprice(self, event: OrderRepriced) -> None:
        waiting = self.working_orders.get(event.order_id)
        if waiting is None or event.step <= waiting.step:
            return
        order = msgspec.structs.replace(
            waiting.order, limit_price=event.limit_price, leg_limits=event.leg_limits
        )
        self.working_orders[event.order_id] = WorkingOrder(
            order, waiting.remaining, event.reserved_per_unit, event.step
        )

    def _reject(self, event: OrderRejected) -> None:
        if self._is_new_order(event.rejection.order_id):
            self.orders += 1
            self.rejections += 1

    def _cancel(self, event: OrderCancelled) -> None:
        self.working_orders.pop(event.order_id, None)

    def _close_session(self, event: SessionClosed) -> None:
        if event.date <= self.last_session:
            return
        self.last_session = event.date
        self.held_back = {
            name: since
            for name, since in self.held_back.items()
            if any(unexplained_from(each) for each in self.suspensions.get(name, ()))
        }
        self.day_start_equity = self.day_base = event.equity
        self.peak_equity = max(self.peak_equity, event.equity)
        self.champion_peak_equity = max(self.champion_peak_equity, event.equity)
        self.reward_total += event.reward
        self.last_reward_ns = max(self.last_reward_ns, event.ts_ns)
        self.rewarded_profit.update(event.profits)

    def _reset_peak(self, event: PeakReset) -> None:
        if self._is_next(event.number, self.peak_resets, "reset of the peak"):
            self.peak_resets += 1
            self.peak_equity = self.champion_peak_equity = event.equity
            self.peak_reset_due = self.champion_peak_due = False

    def _adopt_terms(self, event: TermsAdopted) -> None:
        self.terms = dict(event.terms)

    def _obey(self, event: OwnerCommanded) -> None:
        if not self._is_next(event.number, self.owner_commands, "command of the owner"):
            return
        self.owner_commands += 1
        if event.key:
            self.commands[event.key] = event
            while len(self.commands) > _KEYS_KEPT:
                del self.commands[min(self.commands, key=lambda k: self.commands[k].number)]
        if event.command is OwnerCommand.CLOSE and event.symbol in self.strategies:
            self.closing[event.symbol] = event.why
        elif event.command in (OwnerCommand.HALT, OwnerCommand.RESUME):
            self.closing.clear()
        elif event.command is OwnerCommand.RESET_PEAK:
            self.peak_reset_due = True
        elif event.command is OwnerCommand.REINSTATE:
            reasons = self.suspensions.get(event.symbol, ())
            accepted = self.accepted.setdefault(event.symbol, [])
            accepted += [each for each in reasons if unexplained_from(each) is not None]

    def _carry(self, event: Carried) -> None:
        if event.through <= self.carried_through:
            return
        self.carried_through = event.through
        self.interest = round_usd(self.interest + event.interest)
        self.cash = round_usd(self.cash + event.interest)
        for underlying, fee in event.borrow_fees.items():
            self.borrow_fees = round_usd(self.borrow_fees + fee)
            self._book_cash(underlying, -fee)
            held = self.strategies.get(underlying)
            if held is not None:
                self.strategies[underlying] = msgspec.structs.replace(
                    held, exit_cash=round_usd(held.exit_cash - fee)
                )

    def _move_cash(self, event: CashMoved) -> None:
        if not self._is_next(event.number, self.cash_moves, "move of cash"):
            return
        self.cash_moves += 1
        self.cash = round_usd(self.cash + event.amount)
        self.paid_in = round_usd(self.paid_in + event.amount)
        self.day_base = round_usd(self.day_base + event.amount)
        self.unscaled_cash = round_usd(self.unscaled_cash + event.amount)
        if event.equity is not None:
            self._scale_bases(event.equity + event.amount)

    def _scale(self, event: BasesScaled) -> None:
        if self._is_next(event.number, self.scalings, "scaling"):
            self.scalings += 1
            self._scale_bases(event.equity)
            if self.champion_peak_due:
                self.champion_peak_equity, self.champion_peak_due = event.equity, False

    def _scale_bases(self, equity: float) -> None:
        """Take moved cash out of gains and losses; `equity` is the account's after it, USD."""
        amount, self.unscaled_cash = self.unscaled_cash, 0.0
        before = equity - amount
        if before > 0.0 and equity >= 0.0:
            ratio = equity / before
            self.day_start_equity *= ratio
            self.peak_equity *= ratio
            self.champion_peak_equity *= ratio
            self.scale *= ratio or 1.0
            return
        # Without worth there are no percent to keep: the loss in USD stays.
        self.day_start_equity += amount
        self.peak_equity += amount
        self.champion_peak_equity += amount if self.champion else 0.0
        if equity > 0.0:
            self.scale = equity / self.initial_cash

    def _change_margin(self, event: MarginChanged) -> None:
        if not self._is_next(event.number, self.margin_changes, "change of margin"):
            return
        held = self.strategies.get(event.underlying)
        if held is None:
            raise JournalError(f"margin of {event.underlying} changes, where nothing is open")
        self.margin_changes += 1
        self.strategies[event.underlying] = msgspec.structs.replace(
            held, margin_per_unit=event.reserve_per_unit, margin_moves=True
        )

    @staticmethod
    def _is_next(number: int, before: int, what: str) -> bool:
        """Return whether a numbered event is new; False when it was applied before."""
        if number > before + 1:
            raise JournalError(f"{what} {number} follows number {before}: one is missing")
        return number == before + 1

    def _change_state(self, event: StateChanged) -> None:
        if not event.cause:
            # Set by hand, or a row of an older version, which knew one reason at a time.
            self.restrictions.clear()
            if event.trading_state is TradingState.ACTIVE:
                self.is_rolled_back = False
            else:
                self._restrict(event.reason, event.trading_state, event.reason, event.ts_ns)
                if self.is_rolled_back:
                    self._restrict_champion(event.ts_ns)
        elif event.restricts is TradingState.ACTIVE:
            self.restrictions.pop(event.cause, None)
            if event.cause == Cause.CHAMPION_DRAWDOWN:
                self.is_rolled_back = False
        else:
            self._restrict(event.cause, event.restricts, event.reason, event.ts_ns, event.flatten)
        if not self.restrictions:
            self._why_active = event.reason

    def _restrict(
        self, cause: str, state: TradingState, reason: str, ts_ns: int, flatten: bool = False
    ) -> None:
        self.restrictions[str(cause)] = Restriction(state, str(reason), ts_ns, flatten)

    def _restrict_champion(self, ts_ns: int) -> None:
        cause = Cause.CHAMPION_DRAWDOWN
        if cause not in self.restrictions:
            self._restrict(cause, RESTRICTION_RULES[cause].state, str(cause), ts_ns)

    def _suspend(self, event: UnderlyingSuspended) -> None:
        if not self._is_next(event.number, self.suspension_changes, "suspension"):
            return
        self.suspension_changes += 1
        if event.underlying not in self.suspensions:
            self.kept_marks[event.underlying] = dict(event.marks)
        reasons = self.suspensions.setdefault(event.underlying, [])
        if event.reason not in reasons:
            reasons.append(event.reason)
        since = unexplained_from(event.reason)
        if since is not None:
            before = self.held_back.get(event.underlying, since)
            self.held_back[event.underlying] = min(before, since)

    def _take_time_back(self, event: TimeTakenBack) -> None:
        self.last_ts_ns = event.ts_ns
        self.last_session = min(self.last_session, event.last_session)
        decided = self.last_decision_ns
        self.last_decision_ns = {name: min(at, event.ts_ns) for name, at in decided.items()}
        self.recent_order_ns = [at for at in self.recent_order_ns if at <= event.ts_ns]

    def _reinstate(self, event: UnderlyingReinstated) -> None:
        if not self._is_next(event.number, self.suspension_changes, "reinstatement"):
            return
        self.suspension_changes += 1
        reasons = self.suspensions.get(event.underlying, [])
        left = [each for each in reasons if event.lifts not in (None, each)]
        if left:
            self.suspensions[event.underlying] = left
        else:
            self.suspensions.pop(event.underlying, None)
            self.kept_marks.pop(event.underlying, None)
        if not any(unexplained_from(each) for each in left):
            self.explained_by = {
                name: holder
                for name, holder in self.explained_by.items()
                if holder != event.underlying
            }

    def _adopt_weights(self, event: WeightsAdopted) -> None:
        self.weights_version = event.version

    def _promote(self, event: ChampionPromoted) -> None:
        if event.champion <= self.newest_champion:
            return
        self.newest_champion = event.champion
        self.champion_before, self.champion_before_version = self.champion, self.champion_version
        self._change_champion(event.champion, event.version, event.equity)
        self.promotions += event.by is not PromotedBy.START
        if event.by is PromotedBy.OWNER:
            self.is_rolled_back = False
            self.restrictions.pop(Cause.CHAMPION_DRAWDOWN, None)

    def _reject_challenger(self, event: ChallengerRejected) -> None:
        if not self._is_next(event.number, self.refusals, "refusal of a challenger"):
            return
        self.refusals += 1
        self.refusals_in_a_row = 0 if event.reset else event.in_a_row
        for check in event.failed:
            self.refusals_by_check[check] = self.refusals_by_check.get(check, 0) + 1

    def _roll_back(self, event: ChampionRolledBack) -> None:
        if not self._is_next(event.number, self.rollbacks, "rollback"):
            return
        self.rollbacks += 1
        self.newest_champion = max(self.newest_champion, event.champion, event.discarded)
        self.champion_before = self.champion_before_version = 0
        self._change_champion(event.champion, event.version, event.equity)
        self.is_rolled_back = event.by is RolledBackBy.DRAWDOWN
        if self.is_rolled_back:
            self._restrict_champion(event.ts_ns)
        else:
            self.restrictions.pop(Cause.CHAMPION_DRAWDOWN, None)

    def _change_champion(self, champion: int, version: int, equity: float | None) -> None:
        self.champion, self.champion_version = champion, version
        self.champion_peak_equity = equity or 0.0
        self.champion_peak_due = equity is None
        self.refusals_in_a_row = 0

    def _is_new_order(self, order_id: str) -> bool:
        if order_id == self.next_order_id:
            return True
        account_id, _, number = order_id.rpartition("-")
        if account_id == self.account_id and number.isdecimal() and int(number) <= self.orders:
            return False
        raise JournalError(
            f"order {order_id!r} follows {self.orders} orders of account {self.account_id!r}: "
            f"the next id is {self.next_order_id!r}"
        )

    def _fill(self, event: OrderFilled) -> None:
        fill = event.fill
        if fill.fill_id in self._booked:
            return
        waiting = self.working_orders.get(fill.order_id)
        if waiting is None or not 0 < fill.units <= waiting.remaining:
            raise JournalError(
                f"fill {fill.fill_id!r} trades {fill.units} units of order {fill.order_id!r}, "
                f"which has {waiting.remaining if waiting else 0} waiting"
            )
        # A batch of accounts books the same in `trading.envs.accounts.trade`, which names the tests
        # that tie the two.
        if waiting.order.intent is Intent.OPEN:
            strategy = self._opened(waiting.order, event)
        else:
            strategy = self._reduced(fill)
        for leg in fill.legs:
            self._trade(fill.underlying, leg)
        self._booked.add(fill.fill_id)
        self.fills += 1
        self.fees_paid = round_usd(self.fees_paid + fill.fees)
        self._book_cash(fill.underlying, fill.premium - fill.fees)
        self._keep_working(waiting, fill.units)
        self._keep_strategy(strategy, closed=strategy.units == 0)

    def _opened(self, order: Order, event: OrderFilled) -> StrategyPosition:
        fill = event.fill
        moves = event.reserve_per_unit is not None
        margin = event.reserve_per_unit
        if margin is None:
            margin = defined_risk_margin(order.legs, self.multiplier, self.adjusted)
        held = self.strategies.get(fill.underlying)
        if held is None:
            held = StrategyPosition(
                underlying=fill.underlying,
                strategy=order.strategy,
                order_id=order.order_id,
                legs=order.legs,
                units=0,
                opened_ns=fill.ts_ns,
                entry_cash=0.0,
                exit_cash=0.0,
                fees=0.0,
                margin_per_unit=margin,
                margin_moves=moves,
            )
        elif held.order_id != order.order_id or held.legs != order.legs:
            raise JournalError(
                f"fill {fill.fill_id!r} opens a second strategy on {fill.underlying}: close "
                f"{held.strategy} first"
            )
        units = held.units + fill.units
        if moves:
            margin = (held.margin + margin * fill.units) / units
        return msgspec.structs.replace(
            held,
            units=units,
            entry_cash=round_usd(held.entry_cash + fill.premium),
            fees=round_usd(held.fees + fill.fees),
            margin_per_unit=margin,
            margin_moves=moves or held.margin_moves,
        )

    def _reduced(self, fill: Fill) -> StrategyPosition:
        held = self.strategies.get(fill.underlying)
        if held is None or fill.units > held.units:
            raise JournalError(
                f"fill {fill.fill_id!r} closes {fill.units} units on {fill.underlying}, "
                f"where {held.units if held else 0} are open"
            )
        return msgspec.structs.replace(
            held,
            units=held.units - fill.units,
            exit_cash=round_usd(held.exit_cash + fill.premium),
            fees=round_usd(held.fees + fill.fees),
        )

    def _settle(self, event: Settled) -> None:
        settlement_id = f"{event.symbol}/{event.ts_ns}"
        if settlement_id in self._booked:
            return
        position = self.positions.get(event.symbol)
        held = self.strategies.get(position.underlying) if position else None
        if position is None or held is None or position.quantity != event.quantity:
            raise JournalError(
                f"settlement of {event.quantity} {event.symbol} does not match the "
                f"{position.quantity if position else 0} held"
            )
        self._booked.add(settlement_id)
        self._drop(event.symbol)
        if event.lots:
            lots = self._in_lots(position.underlying, event.lots, event.lot)
            delivery = LegFill(position.underlying, lots, event.underlying_price)
            self._trade(position.underlying, delivery)
        self._book_cash(position.underlying, event.cash)
        strategy = msgspec.structs.replace(held, exit_cash=round_usd(held.exit_cash + event.cash))
        remaining = self._remaining(strategy, stock_moved=event.lots != 0)
        self._keep_strategy(remaining or strategy, closed=remaining is None)

    def _remaining(self, held: StrategyPosition, *, stock_moved: bool) -> StrategyPosition | None:
        """Return what is left of a strategy after some of its positions ended.

        None when nothing is.

        Where margin depends on prices it stays what it was in total: a `MarginChanged` follows.
        """
        symbols = dict.fromkeys([*(leg.symbol for leg in held.legs), held.underlying])
        left = {s: self.positions[s].quantity for s in symbols if s in self.positions}
        if not left:
            return None
        units, legs = as_units(left)
        margin = defined_risk_margin(legs, self.multiplier, self.adjusted)
        moves = held.margin_moves or not math.isfinite(margin)
        arose = held.delivered or stock_moved or all(is_stock(symbol) for symbol in left)
        return msgspec.structs.replace(
            held,
            legs=legs,
            units=units,
            margin_per_unit=held.margin / units if moves else margin,
            margin_moves=moves,
            delivered=(arose and held.underlying in left) or self.adjusted.touches(legs),
        )

    def _pay_dividend(self, event: DividendPaid) -> None:
        payment_id = _dividend_id(event.underlying, event.ex_date)
        into_ex_date, _, paid, count = self.dividends_paid.get(payment_id, (0, 0.0, 0.0, 0))
        if not self._is_next(event.number, count, f"dividend of {payment_id}"):
            return
        position = self.positions.get(event.underlying)
        lots = (position.quantity if position else 0) if count == 0 else into_ex_date
        if lots != event.lots:
            raise JournalError(
                f"dividend on {event.lots} lots of {event.underlying} does not match the {lots} "
                "held"
            )
        paid = round(paid + event.amount, 6)
        self.dividends_paid[payment_id] = (lots, event.lot, paid, event.number)
        if not lots:
            return
        self._book_cash(event.underlying, event.cash)
        held = self.strategies.get(event.underlying)
        if held is None:  # A later payment, after the stock was sold.
            self.realised_pnl = round_usd(self.realised_pnl + event.cash)
            return
        self.strategies[event.underlying] = msgspec.structs.replace(
            held, exit_cash=round_usd(held.exit_cash + event.cash)
        )

    def _apply_action(self, event: CorporateActionApplied) -> None:
        if event.action in self.actions:
            return
        before = self.strategies.get(event.underlying)
        self._check_converted(event, is_open=before is not None)
        self.actions[event.action] = (event.terms, event.identifier)
        self.actions.pop(event.undoes, None)
        for each in event.converted:
            if each.symbol:
                self._drop(each.symbol)
        for each in event.converted:
            if each.into:
                self._receive(each, event)
        self._carry_suspension(event)
        self._book_cash(event.underlying, event.cash)
        other = event.spun_off or event.after
        if other != event.underlying:
            # Also where nothing moved: what came is worth nothing yet, and contributes from now on.
            self._book_net(event.underlying, event.moved)
            self._book_net(other, -event.moved)
        if before is None:
            return
        exit_cash = before.exit_cash + event.cash
        if event.spun_off:
            exit_cash += event.moved
        after = msgspec.structs.replace(
            before, underlying=event.after, exit_cash=round_usd(exit_cash)
        )
        if event.undoes:
            self.strategies.pop(event.spun_off, None)
            after = msgspec.structs.replace(after, delivered=event.to_close)
        elif event.spun_off:
            self._spin_off(event, before)
        del self.strategies[event.underlying]
        self._go_on(after, event)

    def _check_converted(self, event: CorporateActionApplied, *, is_open: bool) -> None:
        for each in event.converted:
            position = self.positions.get(each.symbol)
            held = position.quantity if position else 0
            if held != each.quantity or (each.symbol and not is_open):
                raise JournalError(
                    f"{event.action} converts {each.quantity} {each.symbol}, {held} are held"
                )

    def _carry_suspension(self, event: CorporateActionApplied) -> None:
        """Keep suspended what is, at values that are converted too."""
        if self.kept_marks.pop(event.underlying, None) is None:
            return
        reasons = self.suspensions.pop(event.underlying)
        kept = self.kept_marks.setdefault(event.after, {})
        kept |= {each.into: each.mark for each in event.converted if each.symbol and each.into}
        if any(unexplained_from(each) for each in reasons) and not event.undoes:
            self.explained_by[event.action] = event.after
        ours = self.suspensions.setdefault(event.after, [])
        ours += [reason for reason in reasons if reason not in ours]
        since = self.held_back.pop(event.underlying, None)
        if since is not None:
            self.held_back[event.after] = min(self.held_back.get(event.after, since), since)

    def _receive(self, each: Converted, event: CorporateActionApplied) -> None:
        """Take what a position became into the books."""
        if each.deliverable is not None:
            self.deliverables[each.into] = each.deliverable
        underlying = event.spun_off if each.into == event.spun_off else event.after
        quantity = each.into_quantity
        if is_stock(each.into):
            quantity = self._in_lots(each.into, quantity, each.lot)
        self._trade(underlying, LegFill(each.into, quantity, each.average_price))

    def _spin_off(self, event: CorporateActionApplied, before: StrategyPosition) -> None:
        """Shares of the company that was spun off are a strategy of their own, to be closed.

        No order opened it: its id is that of the one before, and the action.
        """
        own = self.strategies.pop(event.spun_off, None)
        if own is None:
            own = msgspec.structs.replace(
                before,
                underlying=event.spun_off,
                strategy=str(event.what),
                order_id=f"{before.order_id}/{event.action}",
                legs=(),
                entry_cash=0.0,
                exit_cash=0.0,
                fees=0.0,
                margin_per_unit=0.0,
                margin_moves=False,
            )
        entry_cash = round_usd(own.entry_cash - event.moved)
        self._go_on(msgspec.structs.replace(own, entry_cash=entry_cash, delivered=True), event)

    def _go_on(self, strategy: StrategyPosition, event: CorporateActionApplied) -> None:
        """Keep a strategy with the legs that its underlying has now, beside one already there."""
        other = self.strategies.get(strategy.underlying)
        if other is not None:
            strategy = msgspec.structs.replace(
                other,
                entry_cash=round_usd(other.entry_cash + strategy.entry_cash),
                exit_cash=round_usd(other.exit_cash + strategy.exit_cash),
                fees=round_usd(other.fees + strategy.fees),
                margin_per_unit=(other.margin + strategy.margin) / other.units,
                margin_moves=other.margin_moves or strategy.margin_moves,
                delivered=True,
            )
        quantities = {
            symbol: position.quantity
            for symbol, position in self.positions.items()
            if position.underlying == strategy.underlying
        }
        order = {
            each.into: place
            for place, each in enumerate(event.converted)
            if each.into and each.symbol
        }
        # A snapshot keeps positions in the order of their symbols, the journal as they came.
        quantities = dict(
            sorted(quantities.items(), key=lambda each: (order.get(each[0], len(order)), each[0]))
        )
        if not quantities:
            self._keep_strategy(strategy, closed=True)
            return
        units, legs = as_units(quantities)
        margin = defined_risk_margin(legs, self.multiplier, self.adjusted)
        moves = strategy.margin_moves or not math.isfinite(margin)
        to_close = strategy.delivered or self.adjusted.touches(legs)
        self.strategies[strategy.underlying] = msgspec.structs.replace(
            strategy,
            legs=legs,
            units=units,
            margin_per_unit=strategy.margin / units if moves else margin,
            margin_moves=moves,
            delivered=to_close,
        )

    def _in_lots(self, ticker: str, quantity: int, lot: float) -> int:
        """Return a quantity of stock that comes, in the unit that the books then count it in.

        `lot` is the shares of one, 0 for a round lot. Where either what comes or what is held is
        counted in shares, both are from here on.
        """
        ours = self.size(ticker)
        theirs = lot or self.multiplier
        if ticker not in self.positions and lot:
            self.stock_lots[ticker] = lot
            return quantity
        if theirs == ours:
            return quantity
        unit = min(ours, theirs)
        held = self.positions.get(ticker)
        if held is not None and unit != ours:
            self.positions[ticker] = msgspec.structs.replace(
                held, quantity=round(held.quantity * ours / unit)
            )
        if unit == self.multiplier:
            self.stock_lots.pop(ticker, None)
        else:
            self.stock_lots[ticker] = unit
        return round(quantity * theirs / unit)

    def _drop(self, symbol: str) -> None:
        """Forget a position that has ended, and what was not standard about it."""
        del self.positions[symbol]
        self.deliverables.pop(symbol, None)
        self.stock_lots.pop(symbol, None)

    def _trade(self, underlying: str, leg: LegFill) -> None:
        held = self.positions.get(leg.symbol)
        before = held.quantity if held else 0
        quantity = before + leg.quantity
        if quantity == 0:
            self._drop(leg.symbol)
            return
        price = leg.price
        if held is not None:
            if before * leg.quantity > 0:
                price = held.average_price
                price += (leg.price - price) * leg.quantity / quantity
            elif before * quantity > 0:
                price = held.average_price
        self.positions[leg.symbol] = Position(leg.symbol, underlying, quantity, price)

    def _book_cash(self, underlying: str, amount: float) -> None:
        self.cash = round_usd(self.cash + amount)
        self._book_net(underlying, amount)

    def _book_net(self, underlying: str, amount: float) -> None:
        self.net_cash[underlying] = round_usd(self.net_cash.get(underlying, 0.0) + amount)

    def _keep_working(self, waiting: WorkingOrder, filled: int) -> None:
        order_id = waiting.order.order_id
        if filled == waiting.remaining:
            del self.working_orders[order_id]
        else:
            self.working_orders[order_id] = msgspec.structs.replace(
                waiting, remaining=waiting.remaining - filled
            )

    def _keep_strategy(self, strategy: StrategyPosition, *, closed: bool) -> None:
        if not closed:
            self.strategies[strategy.underlying] = strategy
            return
        self.strategies.pop(strategy.underlying, None)
        self.closing.pop(strategy.underlying, None)
        self.closed_trades += 1
        self.winning_trades += strategy.net_cash > 0.0
        self.realised_pnl = round_usd(self.realised_pnl + strategy.net_cash)


def unexplained_from(reason: str) -> str | None:
    """Return since which session (YYYY-MM-DD) nothing explains a move.

    None for any other reason.
    """
    match = _SINCE.match(reason)
    return match.group(1) if match else None


def _dividend_id(underlying: str, ex_date: str) -> str:
    return f"{underlying}/dividend/{ex_date}"


_FOLD: dict[type[Any], Callable[[Account, Any], None]] = {
    AccountOpened: Account._open,
    DecisionMade: Account._decide,
    OrderAccepted: Account._accept,
    OrderRepriced: Account._reprice,
    OrderRejected: Account._reject,
    OrderFilled: Account._fill,
    OrderCancelled: Account._cancel,
    Settled: Account._settle,
    DividendPaid: Account._pay_dividend,
    CorporateActionApplied: Account._apply_action,
    MarginChanged: Account._change_margin,
    PeakReset: Account._reset_peak,
    TermsAdopted: Account._adopt_terms,
    OwnerCommanded: Account._obey,
    Carried: Account._carry,
    CashMoved: Account._move_cash,
    BasesScaled: Account._scale,
    SessionClosed: Account._close_session,
    StateChanged: Account._change_state,
    UnderlyingSuspended: Account._suspend,
    UnderlyingReinstated: Account._reinstate,
    TimeTakenBack: Account._take_time_back,
    WeightsAdopted: Account._adopt_weights,
    ChampionPromoted: Account._promote,
    ChallengerRejected: Account._reject_challenger,
    ChampionRolledBack: Account._roll_back,
}
