"""The driver's side of the champions: offers a challenger, and follows what the account decides."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trading.errors import CheckpointError
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.store import (
    AccountChampion,
    Champion,
    ChampionStore,
    Promotion,
    first_state,
)
from trading.logs import get_logger

log = get_logger(__name__)


class PromotionDecision(NamedTuple):
    """What was decided about a challenger, for the live market to journal and follow."""

    event: ChampionPromoted | ChallengerRejected
    """Without time and equity, which the live market adds."""
    champion: Champion | None = None
    """Whose weights trade from now on, where that changes."""


class ChampionManager:
    """The champion that a challenger is learnt from and judged against.

    It is the account's, whose journal decides, or the last one that has been offered to the account
    and that it may still take up. A disk that fails for a while is told in the log, and tried again
    at the next report.

    Parameters
    ----------
    champions
        On disk.
    """

    def __init__(self, champions: ChampionStore) -> None:
        self._champions = champions
        self._account = AccountChampion()
        self._present: Champion | None = None
        self._before: Champion | None = None
        self._faults = {"read": "", "written": ""}
        self.offered: list[PromotionDecision] = []
        """Promotions that the account has not reported yet, each one over the one before."""

    @property
    def champion(self) -> Champion:
        """The present one, once there is one."""
        assert self._present is not None, "begin comes first"
        return self._present

    @property
    def path(self) -> Path:
        """The checkpoint of the present champion."""
        return self._champions.path(self.champion.number)

    def begin(
        self,
        fill: Callable[[Path], object],
        version: int,
        origin: str,
        account: AccountChampion,
    ) -> None:
        """Take up who is to trade; where there is nobody yet, what `fill` writes.

        Raises
        ------
        CheckpointError
            The champion cannot be read.
        """
        self._account = account
        if not account.champion and self._champions.news_for(account) is None:
            self._champions.write(fill, Promotion(version, PromotedBy.START, origin), account)
        self._present, self._before, news = first_state(self._champions, account)
        if news is not None and account.champion:
            # The account takes it up when it begins; what it reported before then is no refusal.
            self.offered.append(PromotionDecision(news, self._present))

    def promote(self, fill: Callable[[Path], object], why: Promotion) -> PromotionDecision:
        """Offer a challenger, judged against the present champion, to the account.

        Raises
        ------
        CheckpointError
            The champion cannot be written.
        """
        number = self.champion.number
        over = self._account._replace(champion=number, newest=max(number, self._account.newest))
        try:
            event = self._champions.write(fill, why, over, spared={self._account.champion})
        except OSError as error:
            raise CheckpointError(
                f"no champion can be written to {self._champions.directory}: {error}"
            ) from error
        self._before, self._present = self._present, self._champions.load(event.champion)
        decision = PromotionDecision(event, self._present)
        self.offered.append(decision)
        return decision

    def follow(self, account: AccountChampion) -> bool:
        """Take up the champion that an account reports; whether that is another one.

        An older report than the last one changes nothing.
        """
        if not account.champion or account.changes < self._account.changes:
            return False
        self._account = account
        self._write_lost()
        self.offered = [
            each for each in self.offered if each.champion and each.champion.number > account.newest
        ]
        due = self.offered[0].event if self.offered else None
        if isinstance(due, ChampionPromoted) and due.before == account.champion:
            return False
        self.offered.clear()
        if account.champion == self.champion.number:
            return False
        before = self._before
        try:
            if before is not None and before.number == account.champion:
                champion = before
            else:
                champion = self._champions.load(account.champion)
        except (CheckpointError, OSError) as error:
            self._tell_fault("read", error)
            return False
        self._faults["read"] = ""
        self._before, self._present = self._present, champion
        return True

    def _write_lost(self) -> None:
        """Write again what the folder has lost, an account needs, and memory has."""
        needed = (self._account.champion, self._account.before, self.champion.number)
        try:
            for champion in (self._before, self._present):
                if champion is None or champion.number not in needed:
                    continue
                if not self._champions.path(champion.number).is_dir():
                    self._champions.write_again(champion, self._account)
                    log.error("a lost champion is written again", champion=champion.number)
            self._faults["written"] = ""
        except OSError as error:
            self._tell_fault("written", error)

    def _tell_fault(self, cannot_be: str, error: Exception) -> None:
        """Log what a champion cannot be, once for as long as it is the same."""
        reason = str(error)
        if reason != self._faults[cannot_be]:
            self._faults[cannot_be] = reason
            log.error(f"a champion cannot be {cannot_be}", reason=reason)
