"""Recorded sessions in a row: which of them positions can be held between, and what a night brings.

A session goes on from the one before of its underlying where the exchange's calendar has none in
between, the earlier one was recorded to its close and has a closing price, and no corporate action
falls between them: what an action makes of contracts no array of standard contracts can hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading.data.recorded_session import RecordedSession
from trading.envs.own_features import OwnFeatures
from trading.envs.rules import TradingRules
from trading.envs.underlying import UnderlyingMarket
from trading.execution.clearing import added_up
from trading.execution.fees import FeeSchedule
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import OptionContract
from trading.market.corporate_actions import CorporateAction, special_dividends
from trading.market.dividends import Dividend


@dataclass(frozen=True)
class SessionStart:
    """How a session begins.

    Attributes
    ----------
    market
        What the session is told to: as the session before left it, or a new one.
    kept
        Contracts of the session before that have not expired; None where it goes on from none.
    after
        The date of that session, YYYY-MM-DD; empty where it goes on from none.
    dividend
        What goes ex at the open, USD a share.
    """

    market: UnderlyingMarket
    kept: list[OptionContract] | None = None
    after: str = ""
    dividend: float = 0.0


class ConsecutiveSessions:
    """Recorded sessions of any underlyings, told one after the other.

    Parameters
    ----------
    rules, fees, calendar
        As for a history.
    dividends, actions
        What may fall between sessions.
    features
        Those of a user's own, as for a history.
    """

    def __init__(
        self,
        rules: TradingRules,
        fees: FeeSchedule,
        calendar: ExchangeCalendar,
        dividends: Iterable[Dividend] = (),
        actions: Iterable[CorporateAction] = (),
        features: OwnFeatures | None = None,
    ) -> None:
        told = list(dividends)
        self._rules, self._fees, self._calendar = rules, fees, calendar
        self._features = features
        self._dividends = added_up(told)
        self._actions = [*actions, *special_dividends(told)]
        self._closed: dict[str, tuple[UnderlyingMarket, RecordedSession]] = {}

    def none(self, recorded: RecordedSession) -> SessionStart:
        """Return a session by itself."""
        rules, fees, features = self._rules, self._fees, self._features
        return SessionStart(UnderlyingMarket(recorded.underlying, rules, fees, features=features))

    def night(self, recorded: RecordedSession) -> SessionStart:
        """Return how a session begins after those that were closed before."""
        found = self._closed.get(recorded.underlying)
        if found is None or not self._goes_on(*found, recorded):
            return self.none(recorded)
        market, before = found
        first, last = before.session.date, recorded.session.date
        chain, close_ns = market.chain, before.session.close_ns
        kept = [
            contract
            for contract, expiry_ns in zip(chain.contracts, chain.columns.expiry_ns, strict=True)
            if expiry_ns > close_ns
        ]
        due = [each for each in self._dividends if self._is_between(each, recorded, first, last)]
        return SessionStart(market, kept, first.isoformat(), round(sum(d.amount for d in due), 6))

    def close(self, recorded: RecordedSession, market: UnderlyingMarket) -> None:
        """Remember how a session ended."""
        market.end_session()
        self._closed[recorded.underlying] = market, recorded

    def _goes_on(
        self, market: UnderlyingMarket, before: RecordedSession, recorded: RecordedSession
    ) -> bool:
        first, last = before.session.date, recorded.session.date
        known_ns = market.chain.last_price_ns
        is_old = 0 < known_ns <= before.session.open_ns
        has_close = bool(np.isfinite(market.spot)) and market.spot > 0.0 and not is_old
        changed = any(self._is_between(each, recorded, first, last) for each in self._actions)
        return (
            self._calendar.next_session(first).date == last
            and before.is_complete
            and has_close
            and not changed
        )

    @staticmethod
    def _is_between(
        each: Dividend | CorporateAction, recorded: RecordedSession, first: date, last: date
    ) -> bool:
        return each.underlying == recorded.underlying and first < each.ex_date <= last
