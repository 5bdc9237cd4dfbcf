"""The driver's side of the champions: offers a challenger, and follows what the account decides."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

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


PromotionDecision: TypeAlias = ChampionPromoted | ChallengerRejected
"""What was decided about a challenger, without the time and equity that the live market adds."""


class ChampionManager:
    """The champion that a challenger is learnt from and judged against.

    It is the account's, whose journal decides, or the one that is on offer: promoted by the gate,
    and not reported by the account yet. There is one offer at a time. Where the account's champion
    cannot be read there is nobody to learn from, which `fault` says, until one can.

    Parameters
    ----------
    champions
        On disk.
    """

    def __init__(self, champions: ChampionStore) -> None:
        self.champions = champions
        self.fault = ""
        """Why the account's champion cannot be read; empty: it can."""
        self.account = AccountChampion()
        """As it was reported last."""
        self._present: Champion | None = None
        self._before: Champion | None = None
        self._offer: ChampionPromoted | None = None
        """The promotion of the present champion, while the account may still take it up."""
        self._rejections: list[ChallengerRejected] = []
        self._unwritten: tuple[type[OSError], int | None] | None = None
        """The fault that keeps a lost champion from being written."""

    @property
    def champion(self) -> Champion:
        """The present one, once there is one."""
        assert self._present is not None, "begin comes first"
        return self._present

    @property
    def path(self) -> Path:
        """The checkpoint of the present champion."""
        return self.champions.path(self.champion.number)

    @property
    def may_offer(self) -> bool:
        """Whether a challenger may be offered: nothing else is, and the champion is known."""
        return self._offer is None and not self.fault

    @property
    def waiting(self) -> tuple[PromotionDecision, ...]:
        """Decisions that the account has not reported yet: sent until it has."""
        return (*self._rejections, *([self._offer] if self._offer else []))

    def needs_first(self, account: AccountChampion) -> bool:
        """Whether the account has no champion yet, and none is written for it."""
        return not account.champion and self.champions.news_for(account) is None

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
        self.account = account
        if self.needs_first(account):
            self.champions.write(fill, Promotion(version, PromotedBy.START, origin), account)
        self._present, news = first_state(self.champions, account)
        if news is not None and account.champion:
            # The account takes it up when it begins; what it reported before then is no refusal.
            self._offer = news
        before = account.before if news is None else account.champion
        if before:
            try:
                self._before = self.champions.load(before)
            except CheckpointError as error:
                log.warning("no champion to fall back to", reason=str(error))

    def promote(self, fill: Callable[[Path], object], why: Promotion) -> ChampionPromoted:
        """Offer a challenger, judged against the present champion, to the account.

        To be called where `may_offer` holds.

        Raises
        ------
        CheckpointError
            The champion cannot be written.
        """
        assert self.may_offer, "one offer at a time, over a champion that is known"
        number = self.champion.number
        over = self.account._replace(champion=number, newest=max(number, self.account.newest))
        try:
            event = self.champions.write(fill, why, over)
        except OSError as error:
            raise CheckpointError(
                f"no champion can be written to {self.champions.directory}: {error}"
            ) from error
        champion = self.champions.load(event.champion)
        self._before, self._present, self._offer = self._present, champion, event
        return event

    def reject(self, event: ChallengerRejected) -> ChallengerRejected:
        """Have the account journal a rejection, by its own count and under its champion."""
        number = 1 + max([self.account.refusals, *(each.number for each in self._rejections)])
        event = msgspec.structs.replace(event, number=number, champion=self.champion.number)
        self._rejections.append(event)
        return event

    def follow(self, account: AccountChampion) -> bool:
        """Take up the champion that an account reports; whether that is another one.

        An older report than the last one changes nothing.
        """
        if not account.champion or account.revision < self.account.revision:
            return False
        self.account = account
        self._write_lost()
        self._rejections = [each for each in self._rejections if each.number > account.refusals]
        offer = self._offer
        if offer and offer.champion > account.newest and offer.before == account.champion:
            return False
        self._offer = None
        return self._take_up(account)

    def settle(self) -> None:
        """Take up all that waits, for a learner that has no account of its own."""
        account = self.account
        if offer := self._offer:
            number, before = offer.champion, offer.before
            account = account._replace(champion=number, before=before, newest=number)
        self.account = account._replace(refusals=account.refusals + len(self._rejections))
        self._offer, self._rejections = None, []

    def _take_up(self, account: AccountChampion) -> bool:
        """Have the account's champion in memory; whether it is another one than before.

        The one before it is, too, where it can be read.
        """
        number = account.champion
        if number == self.champion.number:
            self.fault = ""
            return False
        known = {each.number: each for each in (self._before, self._present) if each}
        try:
            champion = known.get(number) or self.champions.load(number)
        except (CheckpointError, OSError) as error:
            fault = (
                f"the account's champion {number} cannot be read ({error}): let another one trade "
                "by `trading checkpoints promote`"
            )
            if fault != self.fault:
                log.error("nothing is learned, trading goes on", reason=fault)
            self.fault = fault
            return False
        self.fault = ""
        self._before, self._present = known.get(account.before), champion
        if account.before and self._before is None:
            with suppress(CheckpointError, OSError):
                self._before = self.champions.load(account.before)
        return True

    def _write_lost(self) -> None:
        """Write again what the folder has lost, an account needs, and memory has.

        A disk that takes nothing is told once, and tried again at the next report.
        """
        needed = (self.account.champion, self.account.before, self.champion.number)
        try:
            for champion in (self._before, self._present):
                if champion is None or champion.number not in needed:
                    continue
                if not self.champions.path(champion.number).is_dir():
                    self.champions.write_again(champion, self.account)
                    log.error("a lost champion is written again", champion=champion.number)
            self._unwritten = None
        except OSError as error:
            # Its text may hold the name of a folder that is another one each time.
            fault = (type(error), error.errno)
            if fault != self._unwritten:
                log.error("a lost champion cannot be written", reason=str(error))
            self._unwritten = fault
