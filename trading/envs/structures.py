"""Option structures of a user's own: legs in words that become further actions, behind the others.

They are values, not code: the rules that an environment trades by carry them (`TradingRules`), so
that live trading, training, backtests and histories choose, price and margin them by the same
kernels as the entries of the catalogue.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from trading.envs.catalogue import ACTIONS, BUCKETS, CALL, MAX_LEGS, PUT, STOCK_RIGHT, Action
from trading.errors import PluginError

RIGHTS = {"call": CALL, "put": PUT, "stock": STOCK_RIGHT}
_DELTAS = (0.05, 0.95)
_MOST_WIDTH_PCT = 50.0
_MOST_RATIO = 10
_STRIKE_KEYS = ("delta", "beyond", "width", "of", "at")
_BUCKETS = tuple(bucket.name for bucket in BUCKETS)


@dataclass(frozen=True, slots=True)
class StructureLeg:
    """One leg of a structure, and how its strike is found; legs are named by their place, from 0.

    Of an option exactly one of `delta`, `width` and `at` is given, of stock none.

    Attributes
    ----------
    right : "call", "put" or "stock"
    ratio : contracts of one unit, of stock round lots: +1 buys one, -1 sells one
    delta : the tradable contract nearest this absolute delta, at most 0.15 from it
    beyond : with `delta`: strictly further out of the money than the strike of this earlier leg
    width : the strike nearest so many percent of the underlying's price further out of the money
        than that of leg `of`, below 0 less far out; at most half of that width from there
    of : with `width`: which earlier leg
    at : the strike of this earlier leg, which has the other right or another expiry
    expiry : "near" or "far", of a structure whose options are of both

    Examples
    --------
    >>> import trading as td
    >>> td.StructureLeg("call", 1, width=2.0, of=0).describe()
    '+1 call 2 % of the price beyond leg 0'
    """

    right: str
    ratio: int
    delta: float | None = field(default=None, kw_only=True)
    beyond: int | None = field(default=None, kw_only=True)
    width: float | None = field(default=None, kw_only=True)
    of: int | None = field(default=None, kw_only=True)
    at: int | None = field(default=None, kw_only=True)
    expiry: str | None = field(default=None, kw_only=True)

    def describe(self) -> str:
        """Return the leg in words."""
        if self.right == "stock":
            return f"{self.ratio:+d} round lot of stock"
        where = f"at the strike of leg {self.at}"
        if self.delta is not None:
            beyond = "" if self.beyond is None else f" beyond leg {self.beyond}"
            where = f"at delta {self.delta:.2f}{beyond}"
        elif self.width is not None:
            side = "beyond" if self.width > 0.0 else "before"
            where = f"{abs(self.width):g} % of the price {side} leg {self.of}"
        expiry = "" if self.expiry is None else f"{self.expiry} "
        return f"{self.ratio:+d} {expiry}{self.right} {where}"


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure as it was registered, checked.

    One action for each of its expiry buckets, or one for all where its legs name theirs.
    """

    name: str
    legs: tuple[StructureLeg, ...]
    expiries: tuple[str, ...]
    """Names of `BUCKETS`, in their order."""

    @property
    def spans(self) -> bool:
        """Whether one position of it has options of several expiries."""
        return any(leg.expiry is not None for leg in self.legs)

    @property
    def digest(self) -> str:
        """12 digits of a SHA-256 of what it is, without its name."""
        return hashlib.sha256(repr((self.legs, self.expiries)).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} ({self.digest})"

    @property
    def actions(self) -> tuple[Action, ...]:
        """Its entries of the catalogue."""
        if self.spans:
            first = min(_BUCKETS.index(each) for each in self.expiries)
            return (Action("_".join((self.name, *self.expiries)), self.name, first, self.legs),)
        return tuple(
            Action(f"{self.name}_{bucket.name}", self.name, b, self.legs)
            for b, bucket in enumerate(BUCKETS)
            if bucket.name in self.expiries
        )


@cache
def all_actions(structures: tuple[Structure, ...] = ()) -> tuple[Action, ...]:
    """Actions of full size: those of the catalogue, and behind them those of structures."""
    return (*ACTIONS, *(action for each in structures for action in each.actions))


def noted_structures(structures: tuple[Structure, ...]) -> str:
    """Return their names and digests, in order; empty without one."""
    return ", ".join(map(str, structures))


def structure_of(name: str, legs: Any, expiries: Any) -> Structure:
    """Return a structure, once it is known that it can be one.

    Raises
    ------
    PluginError
        It cannot; the message names the leg, the key, the value and what to do.
    """
    if any(action.strategy == name for action in ACTIONS):
        raise PluginError("there is a strategy of this name in the catalogue: choose another name")
    if expiries is not None and (
        not isinstance(expiries, list | tuple)
        or not expiries
        or any(each not in _BUCKETS for each in expiries)
    ):
        raise PluginError(f"expiries={expiries!r}: give one or more of {', '.join(_BUCKETS)}")
    if not isinstance(legs, list | tuple) or not all(isinstance(e, StructureLeg) for e in legs):
        raise PluginError(
            f"it returned {legs!r:.200}: return a list of trading.StructureLeg, as in "
            '[td.StructureLeg("put", -1, delta=0.30)]'
        )
    if not 1 <= len(legs) <= MAX_LEGS:
        raise PluginError(f"it has {len(legs)} legs: give 1 to {MAX_LEGS}")
    for k, leg in enumerate(legs):
        for fault in _faults_of_leg(leg) or _faults_of_strike(legs, k):
            raise PluginError(f"leg {k} ({leg.ratio!r} {leg.right!r}): {fault}")
    for fault in _faults_of_expiries(legs, expiries) or _faults_of_all(legs):
        raise PluginError(fault)
    kept = tuple(
        replace(leg, delta=_as_float(leg.delta), width=_as_float(leg.width)) for leg in legs
    )
    named = {leg.expiry for leg in legs} - {None} or set(expiries or _BUCKETS)
    return Structure(name, kept, tuple(each for each in _BUCKETS if each in named))


def _faults_of_leg(leg: StructureLeg) -> list[str]:
    """Return what is wrong with a leg by itself, the first first."""
    faults = []
    if leg.right not in RIGHTS:
        faults.append(f"right={leg.right!r}: give one of {', '.join(RIGHTS)}")
    if not _is_int(leg.ratio) or not 1 <= abs(leg.ratio) <= _MOST_RATIO:
        faults.append(
            f"ratio={leg.ratio!r}: give whole contracts of one unit, at most {_MOST_RATIO}: +1 "
            "buys one, -1 sells one"
        )
    given = [name for name in _STRIKE_KEYS if getattr(leg, name) is not None]
    ways = [name for name in given if name in ("delta", "width", "at")]
    if leg.expiry is not None and (leg.expiry not in _BUCKETS or leg.right == "stock"):
        allowed = "stock has none; leave it out"
        if leg.right != "stock":
            allowed = f"give one of {', '.join(_BUCKETS)}"
        faults.append(f"expiry={leg.expiry!r}: {allowed}")
    if leg.right == "stock":
        if given:
            faults.append(
                f"{given[0]}={getattr(leg, given[0])!r}: stock has no strike; leave it out"
            )
        if not faults and leg.ratio < 0:
            faults.append(
                f"ratio={leg.ratio}: stock is not sold short, since its loss has no bound; buy puts"
            )
    elif len(ways) != 1:
        faults.append(
            f"{' and '.join(ways) or 'no strike'} given: say its strike by one of delta=0.30, "
            "width=2.0 with of=0, and at=0"
        )
    return faults


def _faults_of_strike(legs: Sequence[StructureLeg], k: int) -> list[str]:
    """Return what is wrong with how the strike of a leg is said, the first first."""
    leg, faults = legs[k], []
    low, high = _DELTAS
    if leg.delta is not None and not (_is_number(leg.delta) and low <= leg.delta <= high):
        faults.append(f"delta={leg.delta!r}: give an absolute delta of {low} to {high}, as 0.30")
    width = leg.width
    if width is not None and not (_is_number(width) and 0.0 < abs(width) <= _MOST_WIDTH_PCT):
        faults.append(
            f"width={width!r}: give percent of the underlying's price, other than 0 and at most "
            f"{_MOST_WIDTH_PCT:g} either way"
        )
    for name, goes_with in (("beyond", "delta"), ("of", "width")):
        if getattr(leg, name) is not None and getattr(leg, goes_with) is None:
            faults.append(f"{name}={getattr(leg, name)!r}: it goes with {goes_with}; leave it out")
    if width is not None and leg.of is None:
        faults.append(f"width={width!r}: say from which earlier leg, as in of=0")
    earlier = [n for n in range(k) if legs[n].right != "stock"]
    for name in ("beyond", "of", "at"):
        place = getattr(leg, name)
        if place is not None and (not _is_int(place) or place not in earlier):
            known = ", ".join(map(str, earlier)) or "there is none"
            faults.append(f"{name}={place!r}: name an earlier option leg by its place ({known})")
    if not faults and leg.at is not None and _alike(legs[leg.at], leg):
        faults.append(f"at={leg.at}: leg {leg.at} is that contract already; give it both ratios")
    return faults


def _alike(one: StructureLeg, other: StructureLeg) -> bool:
    return (one.right, one.expiry) == (other.right, other.expiry)


def _faults_of_expiries(legs: Sequence[StructureLeg], expiries: Any) -> list[str]:
    """Return what is wrong with the expiries that legs name, the first first.

    The greatest loss is that at the first expiry, where what lasts longer is worth its intrinsic
    value at least: it bounds what is sold in that one, see `trading.execution.margin.reg_t`.
    """
    faults = []
    options = [leg for leg in legs if leg.right != "stock"]
    named = {leg.expiry for leg in options}
    if named <= {None}:
        return []
    if None in named:
        k = next(k for k, leg in enumerate(legs) if leg.right != "stock" and leg.expiry is None)
        faults.append(f"leg {k} names no expiry and others do: give expiry=... to each option")
    elif len(named) == 1:
        only = options[0].expiry
        faults.append(f"all options are of expiry={only!r}: leave it out, give expiries=[{only!r}]")
    if expiries is not None:
        faults.append(f"expiries={expiries!r}: the legs name theirs; leave it out")
    for k, leg in enumerate(legs):
        if not faults and leg.ratio < 0 and leg.expiry != _BUCKETS[0]:
            faults.append(
                f"leg {k} is sold with expiry={leg.expiry!r}: what is bought in an earlier expiry "
                f"covers nothing after it, and no margin rule bounds that; sell {_BUCKETS[0]!r}"
            )
    return faults


def _faults_of_all(legs: Sequence[StructureLeg]) -> list[str]:
    """Return what is wrong with legs that are right each by itself, the first first."""
    faults = []
    lots = [leg.ratio for leg in legs if leg.right == "stock"]
    if len(lots) > 1:
        faults.append("two legs of stock: make one of them")
    if len(lots) == len(legs):
        faults.append("it has no option: add one")
    common = math.gcd(*(leg.ratio for leg in legs))
    if common > 1:
        faults.append(f"all ratios are multiples of {common}: divide them; units say how many")
    alike = [replace(leg, ratio=1) for leg in legs]
    for k, leg in enumerate(alike):
        if leg in alike[:k]:
            first = alike.index(leg)
            faults.append(f"legs {first} and {k} are the same contract: give one leg both ratios")
    calls = sum(leg.ratio for leg in legs if leg.right == "call")
    if calls + sum(lots) < 0:
        faults.append(
            f"{-calls} more calls are sold than bought, and {sum(lots)} lots of stock cover them: "
            "what is not covered can lose without bound, and no margin rule of what the policy "
            f"opens covers that; buy {-calls - sum(lots)} more calls or lots of stock"
        )
    return faults


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_float(value: float | None) -> float | None:
    return None if value is None else float(value)
