"""The agent's actions: named strategies, how their legs are chosen, and which are allowed now.

An action is a strategy in an expiry bucket at a delta target. `build_menu` turns the catalogue
into orders for one market at one instant; whatever cannot be ordered is masked.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.margin import max_loss_per_unit
from trading.execution.matching import touch_price
from trading.market.chain import I64, Columns, is_tradable_at

MAX_LEGS = 4
DAY_NS = 86_400_000_000_000
DELTA_TOLERANCE = 0.15
"""A leg whose delta is further than this from its target is not that leg."""

HOLD = 0
CLOSE = 1


class Strategy(StrEnum):
    """Position shapes the agent can hold."""

    HOLD = "hold"
    CLOSE = "close"
    LONG_CALL = "long_call"
    LONG_PUT = "long_put"
    BULL_CALL_DEBIT = "bull_call_debit"
    BEAR_PUT_DEBIT = "bear_put_debit"
    BULL_PUT_CREDIT = "bull_put_credit"
    BEAR_CALL_CREDIT = "bear_call_credit"
    LONG_STRADDLE = "long_straddle"


class ExpiryBucket(NamedTuple):
    """Which expiry an action trades: the one nearest `target` days, within the bounds."""

    name: str
    target_days: float
    min_days: float
    max_days: float


class LegTemplate(NamedTuple):
    """One leg before a contract is chosen for it."""

    right: int
    ratio: int
    abs_delta: float


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of the catalogue.

    The second leg of a vertical is searched strictly further out of the money than the first; the
    second leg of a straddle is the pair of the first.
    """

    name: str
    strategy: Strategy
    bucket: int
    legs: tuple[LegTemplate, ...]


BUCKETS = (
    ExpiryBucket("near", 7.0, 2.0, 14.0),
    ExpiryBucket("far", 30.0, 14.0, 60.0),
)


def _catalogue() -> tuple[Action, ...]:
    call, put = 1, -1
    shapes: list[tuple[Strategy, str, tuple[LegTemplate, ...]]] = []
    for delta in (0.30, 0.50):
        label = f"d{round(delta * 100)}"
        shapes.append((Strategy.LONG_CALL, label, (LegTemplate(call, 1, delta),)))
        shapes.append((Strategy.LONG_PUT, label, (LegTemplate(put, 1, delta),)))
    for near, far in ((0.50, 0.25), (0.30, 0.15)):
        label = f"d{round(near * 100)}_{round(far * 100)}"
        debit_call = (LegTemplate(call, 1, near), LegTemplate(call, -1, far))
        debit_put = (LegTemplate(put, 1, near), LegTemplate(put, -1, far))
        credit_put = (LegTemplate(put, -1, near), LegTemplate(put, 1, far))
        credit_call = (LegTemplate(call, -1, near), LegTemplate(call, 1, far))
        shapes.append((Strategy.BULL_CALL_DEBIT, label, debit_call))
        shapes.append((Strategy.BEAR_PUT_DEBIT, label, debit_put))
        shapes.append((Strategy.BULL_PUT_CREDIT, label, credit_put))
        shapes.append((Strategy.BEAR_CALL_CREDIT, label, credit_call))
    straddle = (LegTemplate(call, 1, 0.50), LegTemplate(put, 1, 0.50))
    shapes.append((Strategy.LONG_STRADDLE, "d50", straddle))
    opening = tuple(
        Action(f"{strategy}_{bucket.name}_{label}", strategy, b, legs)
        for b, bucket in enumerate(BUCKETS)
        for strategy, label, legs in shapes
    )
    return (
        Action("hold", Strategy.HOLD, 0, ()),
        Action("close", Strategy.CLOSE, 0, ()),
        *opening,
    )


ACTIONS = _catalogue()
ACTION_COUNT = len(ACTIONS)

_N_LEGS = np.array([len(a.legs) for a in ACTIONS], dtype=np.int64)
_BUCKET = np.array([a.bucket for a in ACTIONS], dtype=np.int64)
_IS_STRADDLE = np.array([a.strategy is Strategy.LONG_STRADDLE for a in ACTIONS])
_RIGHT = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int8)
_RATIO = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int64)
_DELTA = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.float64)
for _a, _action in enumerate(ACTIONS):
    for _l, _leg in enumerate(_action.legs):
        _RIGHT[_a, _l], _RATIO[_a, _l], _DELTA[_a, _l] = _leg
_BUCKET_TARGET = np.array([b.target_days for b in BUCKETS])
_BUCKET_MIN = np.array([b.min_days for b in BUCKETS])
_BUCKET_MAX = np.array([b.max_days for b in BUCKETS])


class TradingRules(NamedTuple):
    """What limits an order at decision time; shared by live trading and training."""

    initial_capital: float
    """USD."""
    max_positions: int
    """Open strategies in the account."""
    risk_fraction: float
    """Greatest loss that one new strategy may risk, as a fraction of equity."""
    max_contracts: int
    """Contracts of one order, all legs together."""
    max_notional: float
    """USD of premium of one order."""
    max_quote_age_ns: int
    """A quote older than this is neither traded nor read."""
    slippage: float
    """USD a share and leg, paid beyond the touch."""
    multiplier: float
    """Shares a contract delivers."""
    rate: float
    """Risk-free rate, continuously compounded, a year."""
    no_open_ns: int
    """No new position this close to the end of the session."""
    reward_scale: float
    """Reward is the change of equity over the initial capital, times this."""


class Position(NamedTuple):
    """The open strategy of one underlying; `units` is 0 when there is none."""

    legs: I64
    """[MAX_LEGS]: contract indices, -1 where unused."""
    ratio: I64
    """[MAX_LEGS]: signed contracts of one unit."""
    units: int
    net_cash: float
    """USD: cash flow of the strategy so far after fees, negative when paid."""
    opened_ns: int


class Funds(NamedTuple):
    """What the account can do, USD."""

    equity: float
    cash: float
    reserved: float
    """Cash set aside for the greatest loss of short legs."""
    open_positions: int


class Menu(NamedTuple):
    """Every action as an order: the contracts, the ratios, the units, and whether it is allowed."""

    legs: I64
    """[N, MAX_LEGS]: contract indices, -1 where unused."""
    ratio: I64
    """[N, MAX_LEGS]: signed contracts of one unit."""
    units: I64
    """[N]"""
    mask: NDArray[np.bool_]
    """[N]"""


def empty_menu() -> Menu:
    """A menu for one market, to be filled by `build_menu`."""
    return Menu(
        np.full((ACTION_COUNT, MAX_LEGS), -1, dtype=np.int64),
        np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int64),
        np.zeros(ACTION_COUNT, dtype=np.int64),
        np.zeros(ACTION_COUNT, dtype=np.bool_),
    )


@njit(cache=True)
def find_buckets(chain: Columns, now_ns: int, bucket_group: I64) -> None:
    """Write the expiry group of each bucket, or -1, to bucket_group[len(BUCKETS)]."""
    for b in range(len(_BUCKET_TARGET)):
        bucket_group[b] = -1
        best = np.inf
        for g in range(len(chain.forward)):
            first, last = chain.group_start[g], chain.group_start[g + 1]
            days = (chain.expiry_ns[first] - now_ns) / DAY_NS
            if days < _BUCKET_MIN[b] or days >= _BUCKET_MAX[b]:
                continue
            distance = abs(days - _BUCKET_TARGET[b])
            if distance < best and not np.isnan(chain.iv[first:last]).all():
                best = distance
                bucket_group[b] = g


@njit(cache=True)
def nearest_delta(
    chain: Columns,
    g: int,
    right: int,
    abs_delta: float,
    beyond_strike: float,
    now_ns: int,
    max_age_ns: int,
) -> int:
    """Index of the tradable contract of expiry `g` nearest a delta target, or -1.

    With `beyond_strike` not NaN only strikes strictly further out of the money than it count.
    """
    best = DELTA_TOLERANCE
    found = -1
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        if chain.right[i] != right or np.isnan(chain.delta[i]):
            continue
        if not np.isnan(beyond_strike) and right * (chain.strike[i] - beyond_strike) <= 0.0:
            continue
        distance = abs(abs(chain.delta[i]) - abs_delta)
        if distance < best and is_tradable_at(chain, i, now_ns, max_age_ns):
            best = distance
            found = i
    return found


@njit(cache=True)
def _choose_legs(chain: Columns, a: int, g: int, now_ns: int, max_age_ns: int, legs: I64) -> bool:
    beyond = np.nan
    for leg in range(_N_LEGS[a]):
        if leg == 1 and _IS_STRADDLE[a]:
            i = chain.pair[legs[0]]
            if i >= 0 and not is_tradable_at(chain, i, now_ns, max_age_ns):
                i = -1
        else:
            right, delta = _RIGHT[a, leg], _DELTA[a, leg]
            i = nearest_delta(chain, g, right, delta, beyond, now_ns, max_age_ns)
        if i < 0:
            return False
        legs[leg] = i
        beyond = chain.strike[i]
    return True


@njit(cache=True)
def _size_opening(
    chain: Columns, a: int, legs: I64, rules: TradingRules, fees: FeeSchedule, funds: Funds
) -> int:
    """Units of an opening order that every limit allows; 0 when none."""
    right = np.zeros(MAX_LEGS, dtype=np.int8)
    strike = np.zeros(MAX_LEGS, dtype=np.float64)
    debit = 0.0
    gross = 0.0
    contracts = 0
    displayed = np.inf
    for leg in range(_N_LEGS[a]):
        i = legs[leg]
        r = _RATIO[a, leg]
        price = touch_price(chain.bid[i], chain.ask[i], r > 0, rules.slippage)
        size = chain.ask_size[i] if r > 0 else chain.bid_size[i]
        debit += r * price
        gross += abs(r) * price
        contracts += abs(r)
        displayed = min(displayed, np.floor(size / abs(r)))
        right[leg] = chain.right[i]
        strike[leg] = chain.strike[i]
    if _N_LEGS[a] == 2 and not _IS_STRADDLE[a]:
        width = abs(strike[1] - strike[0])
        if not 0.0 < abs(debit) < width or debit * _RATIO[a, 0] <= 0.0:
            return 0
    loss = max_loss_per_unit(right, strike, _RATIO[a], _N_LEGS[a], debit, rules.multiplier)
    if not 0.0 < loss < np.inf:
        return 0
    notional = gross * rules.multiplier
    cost = loss + order_fees(fees, contracts, contracts, notional)
    units = min(
        np.floor(rules.risk_fraction * funds.equity / cost),
        np.floor((funds.cash - funds.reserved) / cost),
        np.floor(rules.max_contracts / contracts),
        np.floor(rules.max_notional / notional),
        displayed,
    )
    return int(max(units, 0.0))


@njit(cache=True)
def _size_closing(chain: Columns, now_ns: int, rules: TradingRules, position: Position) -> int:
    """Units of the position that the displayed sizes let close at once; 0 when any leg is dead."""
    units = float(position.units)
    for leg in range(MAX_LEGS):
        i = position.legs[leg]
        if i < 0:
            continue
        if not is_tradable_at(chain, i, now_ns, rules.max_quote_age_ns):
            return 0
        size = chain.bid_size[i] if position.ratio[leg] > 0 else chain.ask_size[i]
        units = min(units, np.floor(size / abs(position.ratio[leg])))
    return int(units)


@njit(cache=True)
def build_menu(
    chain: Columns,
    now_ns: int,
    session_close_ns: int,
    rules: TradingRules,
    fees: FeeSchedule,
    funds: Funds,
    position: Position,
    may_open: bool,
    may_close: bool,
    bucket_group: I64,
    menu: Menu,
) -> None:
    """Fill the menu of one market; `may_open` and `may_close` are the state of trading.

    Units are sized by the risk fraction, the contract and notional limits, the buying power after
    fees, and the sizes displayed. Holding is always allowed; closing when every leg of the
    position can be traded; opening when no position is open on this underlying.
    """
    menu.legs[:, :] = -1
    menu.ratio[:, :] = _RATIO
    menu.units[:] = 0
    menu.mask[:] = False
    menu.mask[HOLD] = True
    if now_ns >= session_close_ns or not may_close:
        return
    if position.units > 0:
        menu.units[CLOSE] = _size_closing(chain, now_ns, rules, position)
        if menu.units[CLOSE] > 0:
            menu.legs[CLOSE, :] = position.legs
            menu.ratio[CLOSE, :] = -position.ratio
            menu.mask[CLOSE] = True
        return
    if (
        not may_open
        or funds.open_positions >= rules.max_positions
        or session_close_ns - now_ns <= rules.no_open_ns
        or not funds.equity > 0.0
    ):
        return
    for a in range(CLOSE + 1, ACTION_COUNT):
        g = bucket_group[_BUCKET[a]]
        if g < 0:
            continue
        legs = menu.legs[a]
        if not _choose_legs(chain, a, g, now_ns, rules.max_quote_age_ns, legs):
            continue
        menu.units[a] = _size_opening(chain, a, legs, rules, fees, funds)
        menu.mask[a] = menu.units[a] > 0


def action_table() -> str:
    """The catalogue as a Markdown table, for `docs/actions.md`."""
    rows = ["| index | name | legs | expiry |", "|---|---|---|---|"]
    for a, action in enumerate(ACTIONS):
        legs = ", ".join(
            f"{leg.ratio:+d} {'call' if leg.right > 0 else 'put'} at delta {leg.abs_delta:.2f}"
            for leg in action.legs
        )
        bucket = BUCKETS[action.bucket]
        days = f"{bucket.min_days:.0f} to {bucket.max_days:.0f} days, near {bucket.target_days:.0f}"
        rows.append(f"| {a} | `{action.name}` | {legs or '-'} | {days if legs else '-'} |")
    return "\n".join(rows) + "\n"
