"""Keeps three things in step: the pointer on disk, the weight registry, and who trades."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from trading.errors import ChampionMoved, CheckpointError
from trading.execution.events import (
    ChallengerRefused,
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
)
from trading.execution.portfolio import Account
from trading.learning.champions import Champion, ChampionStore, Promotion, Standing
from trading.learning.weights import Reign
from trading.logs import get_logger

log = get_logger(__name__)


class PromotionDecision(NamedTuple):
    """What was decided about champion or challenger, for the live market to journal and follow."""

    event: ChampionPromoted | ChampionRolledBack | ChallengerRefused
    """Without time and equity, which the live market adds."""
    champion: Champion | None = None
    """Whose weights trade from now on, where that changes."""


class Reported(NamedTuple):
    """Where the account stands, as its journal says."""

    champion: int = 0
    newest: int = 0
    """The highest number of a champion that it knows."""
    discarded: int = 0
    """The champion that the last drawdown ended."""
    refusals: int = 0


def reported_by(account: Account) -> Reported:
    """Where an account stands."""
    return Reported(
        account.champion, account.newest_champion, account.discarded_champion, account.refusals
    )


class Succession:
    """The champions of one account, as the driver sees them.

    The pointer on disk says who is to trade; the account's journal says who does. Each move of the
    pointer becomes one decision, whoever made it, and a judgement that ends after an owner's
    command gives way to it. A disk or a registry that fails for a while costs no decision: it is
    told in the log, and tried again at the next look.

    Parameters
    ----------
    champions
        On disk.
    publish
        Hands every new reign to the registry.
    """

    def __init__(self, champions: ChampionStore, publish: Callable[[Reign], None]) -> None:
        self._champions = champions
        self._publish = publish
        self._reign: Reign | None = None
        self._looked = 0
        """Moves of the pointer that were heeded, or refused."""
        self._overriding: PromotionDecision | None = None
        """An owner's, which a judgement gave way to, until `moved` has told of it."""
        self._is_published = False
        self._fault = ""

    @property
    def reign(self) -> Reign:
        """The present reign, once it has begun."""
        assert self._reign is not None, "begin comes first"
        return self._reign

    @property
    def path(self) -> Path:
        """The checkpoint of the present champion."""
        return self._champions.path(self.reign.champion.number)

    def begin(
        self, write: Callable[[Path], object], version: int, origin: str, reported: Reported
    ) -> None:
        """Take up the champion on disk, or make the first one of what `write` writes.

        A champion that a drawdown ended, unknown to the disk as yet, is left behind first. One
        that cannot be read is refused where the account's own champion can be.

        Raises
        ------
        CheckpointError
            Neither can be read.
        """
        self._champions.know(reported.newest)
        if self._champions.standing() is None:
            self._champions.promote(write, Promotion(version, PromotedBy.START, origin))
        self._champions.follow(*reported[:3])
        standing = self._standing()
        self._looked = standing.moves
        try:
            self._reign = self._reign_of(standing)
        except CheckpointError as error:
            if reported.champion in (0, standing.champion):
                raise
            self._reign = self._reign_of(
                msgspec.structs.replace(standing, champion=reported.champion, before=0)
            )
            log.error("the champion is refused", reason=str(error), trades=reported.champion)
        self._publish(self._reign)
        self._is_published = True

    def promote(self, write: Callable[[Path], object], why: Promotion) -> PromotionDecision:
        """Make a challenger, judged against the present champion, the next one.

        Where the pointer was moved since, the challenger is given up: the decision is what moved
        it, and `moved` tells of it, too.

        Raises
        ------
        CheckpointError
            The champion cannot be written.
        """
        number = self.reign.champion.number
        try:
            standing = self._champions.promote(write, why, moves=self._looked, before=number)
        except ChampionMoved:
            decision = self.moved()
            if decision is None:
                # What moved it was refused: the champion that was judged against trades on.
                return self.promote(write, why)
            self._overriding = decision
            log.info("a challenger gives way", champion=decision.event.champion)
            return decision
        except OSError as error:
            raise CheckpointError(
                f"no champion can be written to {self._champions.directory}: {error}"
            ) from error
        return self._take_up(standing)

    def moved(self) -> PromotionDecision | None:
        """What an owner's command changed since the last look; None where nothing was.

        A champion that cannot be read is refused, and told in the log once for each move.
        """
        self._publish_again()
        told, self._overriding = self._overriding, None
        try:
            standing = self._standing()
        except (CheckpointError, OSError) as error:
            self._tell_fault(error)
            return told
        self._fault = ""
        if standing.moves == self._looked:
            return told
        self._looked = standing.moves
        try:
            return self._take_up(standing)
        except CheckpointError as error:
            log.error("the owner's champion is refused", reason=str(error))
            return told

    def follow(self, reported: Reported) -> PromotionDecision | None:
        """Point to where a drawdown brought the account back; None where it points there."""
        self._champions.know(reported.newest)
        try:
            standing = self._followed(reported)
            return None if standing is None else self._take_up(standing)
        except (CheckpointError, OSError) as error:
            self._tell_fault(error)
            return None

    def publish(self) -> None:
        """Hand the present reign to the registry again, in case it was lost."""
        self._is_published = False
        self._publish_again()

    def _publish_again(self) -> None:
        if self._is_published:
            return
        try:
            self._publish(self.reign)
        except Exception as error:
            log.error("the weight registry does not take the champion", reason=str(error))
        else:
            self._is_published = True

    def _standing(self) -> Standing:
        """The pointer; one that was lost while trading is written again."""
        standing = self._champions.standing()
        if standing is None and self._reign is not None:
            log.error("the champions' folder was lost", folder=str(self._champions.directory))
            self._put_back()
            standing = self._champions.standing()
        if standing is None:
            raise CheckpointError(
                f"{self._champions.directory} has lost its pointer: restore the folder"
            )
        return standing

    def _put_back(self) -> None:
        champion, before = self.reign.champion, self.reign.before
        present = msgspec.structs.replace(
            self.reign.standing,
            moves=self._looked,
            champion=champion.number,
            before=before.number if before else 0,
        )
        self._champions.put_back(present, [champion, *([before] if before else [])])

    def _followed(self, reported: Reported) -> Standing | None:
        try:
            return self._champions.follow(*reported[:3])
        except (CheckpointError, OSError):
            # Where the champion to go back to is gone from the disk, it may be in memory.
            self._put_back()
            return self._champions.follow(*reported[:3])

    def _take_up(self, standing: Standing) -> PromotionDecision:
        reign = self._reign_of(standing)
        change = standing.change
        if isinstance(change, ChampionPromoted) and self._reign is not None:
            # Of several moves between two looks only the last one is decided.
            before = self._reign.champion.number
            change = msgspec.structs.replace(change, before=before)
        self._reign, self._looked, self._overriding = reign, standing.moves, None
        self.publish()
        return PromotionDecision(change, reign.champion)

    def _reign_of(self, standing: Standing) -> Reign:
        return reign_of(self._champions, standing)

    def _tell_fault(self, error: Exception) -> None:
        if str(error) != self._fault:
            self._fault = str(error)
            log.error("the champions' folder cannot be used", reason=self._fault)


def reign_of(champions: ChampionStore, standing: Standing) -> Reign:
    """Whose weights a pointer asks for.

    Raises
    ------
    CheckpointError
        The champion cannot be read.
    """
    champion = champions.load(standing.champion)
    for name, array in champion.weights.items():
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"champion {champion.number}: weight {name} holds NaN or infinity"
            )
    before: Champion | None = None
    if standing.before:
        try:
            before = champions.load(standing.before)
        except CheckpointError as error:
            log.warning("no champion to fall back to", reason=str(error))
    return Reign(standing, champion, before)


def reign_on_disk(checkpoints: Path, keep: int) -> Reign | None:
    """The reign that the pointer on disk asks for; None where there is none, or it cannot be read.

    Parameters
    ----------
    checkpoints, keep
        As of `ChampionStore`.
    """
    champions = ChampionStore(checkpoints, keep)
    try:
        standing = champions.standing()
        return None if standing is None else reign_of(champions, standing)
    except (CheckpointError, OSError) as error:
        log.error("no champion on disk for the weight registry", reason=str(error))
        return None
