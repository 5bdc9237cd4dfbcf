"""Keeps three things in step: the pointer on disk, the weight registry, and who trades."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from trading.errors import CheckpointError
from trading.execution.events import (
    ChallengerRefused,
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
)
from trading.execution.portfolio import Account
from trading.learning.champions import Champion, ChampionStore, Promotion, Standing
from trading.learning.weights import Reign

log = structlog.get_logger(__name__)


class Ruling(NamedTuple):
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

        A champion that a drawdown ended, unknown to the disk as yet, is left behind first.

        Raises
        ------
        CheckpointError
            The champion cannot be read.
        """
        if self._champions.standing() is None:
            self._champions.promote(write, Promotion(version, PromotedBy.START, origin))
        self._champions.follow(*reported[:3])
        self._take_up(self._standing())

    def promote(self, write: Callable[[Path], object], why: Promotion) -> Ruling:
        """Make a challenger the champion."""
        return self._take_up(self._champions.promote(write, why))

    def moved(self) -> Ruling | None:
        """What an owner's command changed since the last look; None where nothing was.

        A champion that cannot be read is refused, and told in the log once for each move.
        """
        standing = self._standing()
        if standing.moves == self.reign.standing.moves:
            return None
        try:
            return self._take_up(standing)
        except CheckpointError as error:
            log.error("the owner's champion is refused", reason=str(error))
            self._reign = self.reign._replace(standing=standing)
            return None

    def follow(self, reported: Reported) -> Ruling | None:
        """Point to where a drawdown brought the account back; None where it points there."""
        standing = self._champions.follow(*reported[:3])
        return None if standing is None else self._take_up(standing)

    def publish(self) -> None:
        """Hand the present reign to the registry again, in case it was lost."""
        self._publish(self.reign)

    def _standing(self) -> Standing:
        standing = self._champions.standing()
        if standing is None:
            raise CheckpointError(
                f"{self._champions.directory} has lost its pointer while trading: end trading and "
                "start again"
            )
        return standing

    def _take_up(self, standing: Standing) -> Ruling:
        champion = self._champions.load(standing.champion)
        before = self._champions.load(standing.before) if standing.before else None
        self._reign = Reign(standing, champion, before)
        self._publish(self._reign)
        return Ruling(standing.change, champion)
