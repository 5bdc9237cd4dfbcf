"""Everything that can happen to an account, one frozen struct each.

Events are what the journal stores and what `Account.apply` folds. They carry no wall clock and no
random identifier: `ts_ns` is exchange time, UTC nanoseconds. Amounts are USD, quantities are
contracts, or round lots of the account's multiplier for stock.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from trading.execution.deliverables import Deliverable
from trading.execution.orders import Fill, Order, Rejection
from trading.execution.states import TradingState
from trading.market.closes import CloseSource
from trading.market.corporate_actions import ActionKind


class Ending(StrEnum):
    """How an option position ended without a trade."""

    CASH = "cash"
    """Paid its intrinsic value in cash."""
    WORTHLESS = "worthless"
    EXERCISED = "exercised"
    """Bought options, for stock that offsets other stock."""
    ASSIGNED = "assigned"
    """Sold options, for stock, at expiry."""
    ASSIGNED_EARLY = "assigned_early"
    """Sold calls, before a dividend."""


class AccountOpened(msgspec.Struct, frozen=True, tag_field="kind", tag="account_opened"):
    """The first event of every journal: the account and its initial cash."""

    ts_ns: int
    account_id: str
    cash: float
    multiplier: float = 100.0
    """Shares that one contract delivers."""


class DecisionMade(msgspec.Struct, frozen=True, tag_field="kind", tag="decision_made"):
    """The policy, or a rule-based trader, chose an action for one underlying at one bar.

    `reward` is the one that the previous decision of this underlying earned, `value` the policy's
    estimate at this one, `masked` says that the action was not allowed and became a hold, and
    `fragment` numbers the rollout fragment that the decision belongs to. `profit` is what the
    underlying has made since the account was opened, USD, up to which rewards are given; None where
    it is not known. `probability` is the one that the action had (None in older journals), and
    `trader` the rule-based trader's name, empty for the policy.

    `earned` is what the underlying's trades earned since the decision before, by the order that
    opened each: USD by delta, gamma, theta, vega, quotes, unexplained and spread, as
    `trading.evaluation.attribution` has them. Trades of which nothing is known are left out. What
    was spun off is by the order behind it, `/` and the action; in older journals by that order.
    """

    ts_ns: int
    underlying: str
    action: int
    action_name: str
    weights_version: int
    value: float
    reward: float
    masked: bool = False
    fragment: int = 0
    profit: float | None = None
    probability: float | None = None
    trader: str = ""
    earned: dict[str, tuple[float, ...]] = {}


class OrderAccepted(msgspec.Struct, frozen=True, tag_field="kind", tag="order_accepted"):
    """An order passed every check; each unit that waits holds `reserved_per_unit` USD back."""

    ts_ns: int
    order: Order
    reserved_per_unit: float = 0.0


class OrderRepriced(msgspec.Struct, frozen=True, tag_field="kind", tag="order_repriced"):
    """A working order goes a step toward the touch; the first one is step 1.

    `limit_price` and `leg_limits` take the place of the order's, USD a share, and each unit that
    waits holds `reserved_per_unit` USD back from here on.
    """

    ts_ns: int
    order_id: str
    step: int
    limit_price: float
    leg_limits: tuple[float, ...]
    reserved_per_unit: float


class OrderRejected(msgspec.Struct, frozen=True, tag_field="kind", tag="order_rejected"):
    """An order was refused and has no effect."""

    ts_ns: int
    rejection: Rejection


class OrderFilled(msgspec.Struct, frozen=True, tag_field="kind", tag="order_filled"):
    """Units of an accepted order traded.

    `reserve_per_unit` is the margin of each of these units in USD where it depends on prices
    (uncovered sales); None stands for the greatest loss of the legs.
    """

    ts_ns: int
    fill: Fill
    reserve_per_unit: float | None = None


class OrderCancelled(msgspec.Struct, frozen=True, tag_field="kind", tag="order_cancelled"):
    """What is left of an accepted order will not trade; `reason` is for people."""

    ts_ns: int
    order_id: str
    reason: str


class Settled(msgspec.Struct, frozen=True, tag_field="kind", tag="settled"):
    """An option position ended by expiry, exercise or assignment.

    `quantity` is the signed position that ends, `price` its intrinsic value in USD a share, `cash`
    the change of cash, `lots` the round lots of stock delivered to (+) or by (-) the account; they
    come into the books at `underlying_price`, which is from `source` (None in older journals).
    `ts_ns` is the close of the session that it ended in, also where the figure came days later.
    `lot` is the shares of one of `lots` where these are no round lots, else 0.
    """

    ts_ns: int
    symbol: str
    quantity: int
    price: float
    cash: float
    underlying_price: float
    lots: int = 0
    ending: Ending = Ending.CASH
    source: CloseSource | None = None
    lot: float = 0.0


class DividendPaid(msgspec.Struct, frozen=True, tag_field="kind", tag="dividend_paid"):
    """Stock held (or short) into its ex-date received (or paid) the dividend.

    `ex_date` is YYYY-MM-DD, `lots` the signed round lots (shares, where the stock is held in
    shares), 0 where none were held, `amount` USD a share, `cash` the change of cash. Several of
    one ex-date add up: `number` counts them from 1. `lot` is the shares of one of `lots` where
    these are no round lots, else 0: what is told later is paid for the shares of then.
    """

    ts_ns: int
    underlying: str
    ex_date: str
    lots: int
    amount: float
    cash: float
    number: int = 1
    lot: float = 0.0


class Converted(msgspec.Struct, frozen=True):
    """One position before and after a corporate action.

    `symbol` is empty for shares that were not held before, `into` where a position has ended; both
    quantities are signed. `average_price` is what `into` counts as opened at and `mark` what it is
    worth at first, USD a share; `deliverable` is set where it is an adjusted contract, and `lot`
    where it is stock in other units than round lots, in shares.
    """

    symbol: str
    quantity: int
    into: str
    into_quantity: int
    average_price: float
    mark: float = 0.0
    deliverable: Deliverable | None = None
    lot: float = 0.0


class CorporateActionApplied(
    msgspec.Struct, frozen=True, tag_field="kind", tag="corporate_action_applied"
):
    """What a corporate action made of everything held on one underlying.

    Equity is the same before and after. `action` names it, `terms` tells it to people. `cash` is
    the change of cash in USD, of which `cash_in_lieu` was paid for fractions of shares. Positions
    go on under `after`; `moved` is what their value adds to `after` and takes from `underlying`,
    or, for a spin-off, to and from the company that was spun off (`spun_off`), in USD. One that
    `undoes` an earlier one, by that one's `action`, turns it back; `to_close` is then whether what
    is held again is to be closed.
    """

    ts_ns: int
    action: str
    what: ActionKind
    underlying: str
    ex_date: str
    terms: str
    converted: tuple[Converted, ...]
    after: str
    cash: float = 0.0
    cash_in_lieu: float = 0.0
    moved: float = 0.0
    spun_off: str = ""
    identifier: str = ""
    undoes: str = ""
    to_close: bool = False


class MarginChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="margin_changed"):
    """The margin of an open strategy moved with the market: `reserve_per_unit` in USD.

    `number` counts these events of the account from 1.
    """

    ts_ns: int
    number: int
    underlying: str
    reserve_per_unit: float


class PeakReset(msgspec.Struct, frozen=True, tag_field="kind", tag="peak_reset"):
    """The drawdown is measured from `equity` from here on; `number` counts resets from 1."""

    ts_ns: int
    number: int
    equity: float


class SessionClosed(msgspec.Struct, frozen=True, tag_field="kind", tag="session_closed"):
    """A session ended; `date` is YYYY-MM-DD in New York, `equity` the next daily-loss base.

    The highest `equity` is the peak that the drawdown is measured from.

    `reward` is what the last decisions of the session earned, all underlyings together, `rewards`
    each underlying's, and `profits` as `DecisionMade.profit`. What the settlement, the night and
    the next open bring is the next session's first reward.
    """

    ts_ns: int
    date: str
    equity: float
    reward: float = 0.0
    rewards: dict[str, float] = {}
    profits: dict[str, float] = {}


class StateChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="state_changed"):
    """A cause restricts trading from here on, or has ended, see `states`.

    `trading_state` is what holds from here on, all causes together. `restricts` is what this
    `cause` leaves to be traded, ACTIVE where it has ended; `flatten` says that everything is to be
    closed while it stands. Without a cause (set by hand) it stands in place of all there were.
    """

    ts_ns: int
    trading_state: TradingState
    reason: str
    cause: str = ""
    restricts: TradingState = TradingState.ACTIVE
    flatten: bool = False


class TermsAdopted(msgspec.Struct, frozen=True, tag_field="kind", tag="terms_adopted"):
    """From here on the account trades by these terms: settings by key, actions and features."""

    ts_ns: int
    terms: dict[str, str]


class OwnerCommand(StrEnum):
    """What an owner may order."""

    HALT = "halt"
    """Nothing trades until the owner says otherwise."""
    REDUCE = "reduce"
    """Only what closes a strategy trades."""
    RESUME = "resume"
    """Ends what the owner ordered before, and every restriction whose cause is gone."""
    FLATTEN = "flatten"
    """Everything is closed, bar by bar, and nothing is opened."""
    CLOSE = "close"
    """What is open on one underlying is closed, bar by bar."""
    RESET_PEAK = "reset_peak"
    """The drawdown is measured from the present equity."""
    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    REINSTATE = "reinstate"
    """An underlying whose move nothing explains trades again: the move was real."""
    UNDO_ACTION = "undo_action"
    """The last corporate action of an underlying is taken back: it was none."""
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RELOAD = "reload"


class OwnerCommanded(msgspec.Struct, frozen=True, tag_field="kind", tag="owner_commanded"):
    """The owner's word was obeyed; `number` counts these from 1.

    `by` is who said it, `why` in that person's words, `at` when by the wall clock (ISO 8601, UTC),
    `key` what makes it the same command when it comes again, and `answer` what was answered.
    `symbol` is the underlying that it concerns, `amount` the USD to pay in or take out, and `which`
    what was to be promoted (empty in older journals).
    """

    ts_ns: int
    number: int
    command: OwnerCommand
    by: str
    why: str
    key: str
    at: str
    answer: str
    symbol: str = ""
    amount: float = 0.0
    which: str = ""


class Carried(msgspec.Struct, frozen=True, tag_field="kind", tag="carried"):
    """What the days from the last booking to `through` (YYYY-MM-DD) earned and cost, USD.

    `interest` on cash, and by underlying the `borrow_fees` of stock held short; booked at the close
    of the session of `date`.
    """

    ts_ns: int
    date: str
    through: str
    interest: float
    borrow_fees: dict[str, float] = {}


class CashMoved(msgspec.Struct, frozen=True, tag_field="kind", tag="cash_moved"):
    """The owner paid `amount` USD in (+) or took it out (-); `number` counts these from 1.

    It is neither profit nor loss. `equity` is the account's before it, None where that was not
    known: a `BasesScaled` follows then.
    """

    ts_ns: int
    number: int
    amount: float
    equity: float | None = None


class BasesScaled(msgspec.Struct, frozen=True, tag_field="kind", tag="bases_scaled"):
    """Equity is known after cash was moved, or after a champion took over while it was not.

    What losses are measured from follows it; `number` counts these from 1.
    """

    ts_ns: int
    number: int
    equity: float


class UnderlyingSuspended(
    msgspec.Struct, frozen=True, tag_field="kind", tag="underlying_suspended"
):
    """An underlying neither trades nor moves in value any more; all others go on.

    `number` counts suspensions and reinstatements of the account from 1. An underlying may be
    suspended for several reasons; `marks` are the values at which its holdings stay, USD a share.
    """

    ts_ns: int
    number: int
    underlying: str
    reason: str
    marks: dict[str, float] = {}


class UnderlyingReinstated(
    msgspec.Struct, frozen=True, tag_field="kind", tag="underlying_reinstated"
):
    """A suspension ended; `reason` says why, and `lifts` which one, where it was not every one."""

    ts_ns: int
    number: int
    underlying: str
    reason: str
    lifts: str | None = None


class TimeTakenBack(msgspec.Struct, frozen=True, tag_field="kind", tag="time_taken_back"):
    """Its owner lets an account go on now whose journal is dated ahead of the clock.

    What is dated later stays booked, and holds nothing up any more. `last_session` is the last one
    that counts as closed.
    """

    ts_ns: int
    last_session: str


class WeightsAdopted(msgspec.Struct, frozen=True, tag_field="kind", tag="weights_adopted"):
    """From here on the policy decides with these weights; `digest` identifies their content."""

    ts_ns: int
    version: int
    digest: str


class PromotedBy(StrEnum):
    """Who made a policy the champion."""

    START = "start"
    """The first champion of an account: what trading began with."""
    GATE = "gate"
    """It was learnt, and passed the gate."""
    OWNER = "owner"


class RolledBackBy(StrEnum):
    """Why an earlier champion trades again."""

    DRAWDOWN = "drawdown"
    """The account lost too much under the champion."""
    OWNER = "owner"


class Compared(msgspec.Struct, frozen=True):
    """A challenger beside the champion on sessions that both traded.

    `sessions` counts episodes, each of which is one session or several in a row and counts once.
    All but that are percent of the initial capital a session. The mean `difference`
    (challenger less champion) lies above `low` and below `high`, each at the gate's confidence;
    None where the sessions are too few to tell.
    """

    held_out: str
    sessions: int
    champion: float
    challenger: float
    difference: float
    low: float | None
    high: float | None


class ChampionPromoted(msgspec.Struct, frozen=True, tag_field="kind", tag="champion_promoted"):
    """From here on `champion` trades in place of `before` (0: none).

    Champions are numbered from 1 and never twice. `version` counts the updates that led to the
    weights, `equity` is the account's (USD; null where it is not known: a `BasesScaled` follows
    then), `kl` the divergence from the champion before in nats.
    """

    ts_ns: int
    champion: int
    version: int
    before: int
    by: PromotedBy
    reason: str
    equity: float | None
    kl: float | None = None
    compared: tuple[Compared, ...] = ()


class ChallengerRejected(msgspec.Struct, frozen=True, tag_field="kind", tag="challenger_refused"):
    """A challenger did not pass the gate; `number` counts refusals from 1.

    `failed` names the checks, `in_a_row` the refusals since a promotion or a reset, and `reset`
    says that learning begins again from the champion.
    """

    ts_ns: int
    number: int
    version: int
    champion: int
    failed: tuple[str, ...]
    reason: str
    in_a_row: int
    reset: bool
    kl: float | None = None
    compared: tuple[Compared, ...] = ()


class ChampionRolledBack(msgspec.Struct, frozen=True, tag_field="kind", tag="champion_rolled_back"):
    """From here on `champion` trades again, in place of `discarded`; `number` counts from 1.

    The two are the same where no earlier champion is known. `equity` (as of `ChampionPromoted`) and
    `peak` (since the discarded one was adopted; null where no equity was known since) are USD.
    """

    ts_ns: int
    number: int
    champion: int
    version: int
    discarded: int
    by: RolledBackBy
    reason: str
    equity: float | None
    peak: float | None


Event: TypeAlias = (
    AccountOpened
    | DecisionMade
    | OrderAccepted
    | OrderRepriced
    | OrderRejected
    | OrderFilled
    | OrderCancelled
    | Settled
    | DividendPaid
    | CorporateActionApplied
    | MarginChanged
    | PeakReset
    | SessionClosed
    | StateChanged
    | TermsAdopted
    | OwnerCommanded
    | Carried
    | CashMoved
    | BasesScaled
    | UnderlyingSuspended
    | UnderlyingReinstated
    | TimeTakenBack
    | WeightsAdopted
    | ChampionPromoted
    | ChallengerRejected
    | ChampionRolledBack
)
