"""What the owner is told beside the journal: faults of the feed, full disks, the day's report."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from trading.live.metrics import LearnerFigures
from trading.live.trader import Trader

FAULT_S = 10.0
"""A fault of the feed that ends sooner is worth no message: it mends itself."""


class Alerts:
    """Tells of what began and what ended, once each.

    Parameters
    ----------
    tell
        Takes a line.
    disk_free_pct
        A disk with less free space, in percent of it, is told of.
    """

    def __init__(self, tell: Callable[[str], None], disk_free_pct: float) -> None:
        self._tell, self._least_pct = tell, disk_free_pct
        self._faults: list[str] = []
        self._since_s = math.inf
        self._told: list[str] = []
        self._full: set[str] = set()

    def feed(self, faults: Sequence[str], now_s: float) -> None:
        """Hear what is wrong with the feed now; nothing where it is well."""
        if list(faults) != self._faults:
            self._faults, self._since_s = list(faults), now_s
        if self._faults == self._told or now_s - self._since_s < FAULT_S:
            return
        self._told = list(self._faults)
        self._tell("; ".join(self._faults) or "every feed is live again")

    def disks(self, free_pct: Mapping[str, float]) -> None:
        """Hear how much of each disk is free, in percent of it."""
        for name, free in free_pct.items():
            if free < self._least_pct and name not in self._full:
                self._full.add(name)
                self._tell(f"the disk of {name} has {free:.1f} % free: make room")
            elif free >= 1.2 * self._least_pct and name in self._full:
                self._full.discard(name)
                self._tell(f"the disk of {name} has room again, {free:.1f} % free")


class SessionBaseline(NamedTuple):
    """Where a session began, for its report."""

    base: float
    """Equity that its profit is counted from, USD; see `Account.day_base`."""
    fills: int
    fees: float
    rejections: int
    promotions: int

    @classmethod
    def of(cls, trader: Trader) -> "SessionBaseline":
        """Where the account stands."""
        account = trader.env.broker.account
        return cls(
            account.day_base,
            account.fills,
            account.fees_paid,
            account.rejections,
            account.promotions,
        )


def session_report(
    trader: Trader, day: SessionBaseline, base: float, date: str, learner: LearnerFigures
) -> str:
    """Return a day's report in one line.

    Profit, fills, fees, positions, greeks, what the learner did.

    `base` is `day.base` with the cash that was moved since.
    """
    account, env = trader.env.broker.account, trader.env
    equity = account.day_start_equity
    greeks = [env.greeks(name) for name in account.strategies]
    total = {
        name: sum(each[name] for each in greeks) for name in ("delta", "gamma", "vega", "theta")
    }
    held = ", ".join(f"{each.strategy} on {name}" for name, each in account.strategies.items())
    who = (
        f"traded by {trader.trader}"
        if trader.trader
        else f"learner: {learner.updates} updates, {account.promotions - day.promotions} "
        f"promotions, champion {account.champion}"
    )
    percent = 100.0 * (equity - base) / base if base > 0.0 else math.nan
    return (
        f"{date}: {equity - base:+,.2f} USD ({percent:+.2f} %), equity {equity:,.2f}; "
        f"{account.fills - day.fills} fills, fees {account.fees_paid - day.fees:,.2f}, "
        f"{account.rejections - day.rejections} rejections; open: {held or 'nothing'}; "
        f"delta {total['delta']:+,.0f} shares, gamma {total['gamma']:+,.1f}, vega "
        f"{total['vega']:+,.0f} USD a point, theta {total['theta']:+,.0f} USD a day; {who}; "
        f"{account.trading_state.upper()}"
    )
