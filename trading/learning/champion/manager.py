"""Keeps three things in step: the pointer on disk, the weight registry, and who trades."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from trading.errors import ChampionMoved, CheckpointError
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
)
from trading.execution.portfolio import Account
from trading.learning.champion.registry import ChampionState
from trading.learning.champion.store import (
    Champion,
    ChampionPointer,
    ChampionStore,
    Promotion,
    not_finite,
)
from trading.logs import get_logger

log = get_logger(__name__)


class PromotionDecision(NamedTuple):
    """What was decided about champion or challenger, for the live market to journal and follow."""

    event: ChampionPromoted | ChampionRolledBack | ChallengerRejected
    """Without time and equity, which the live market adds."""
    champion: Champion | None = None
    """Whose weights trade from now on, where that changes."""


class AccountChampion(NamedTuple):
    """Which champion an account trades with, as its journal says."""

    champion: int = 0
    newest: int = 0
    """The highest number of a champion that it knows."""
    discarded: int = 0
    """The champion that the last drawdown ended."""
    refusals: int = 0

    @classmethod
    def of(cls, account: Account) -> "AccountChampion":
        """Read it from an account."""
        return cls(
            account.champion, account.newest_champion, account.discarded_champion, account.refusals
        )


class ChampionManager:
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
        Hands every new state to the registry.
    """

    def __init__(self, champions: ChampionStore, publish: Callable[[ChampionState], None]) -> None:
        self._champions = champions
        self._publish = publish
        self._state: ChampionState | None = None
        self._looked = 0
        """Moves of the pointer that were heeded, or refused."""
        self._overriding: PromotionDecision | None = None
        """An owner's, which a judgement gave way to, until `poll` has told of it."""
        self._is_published = False
        self._fault = ""

    @property
    def state(self) -> ChampionState:
        """The present champion state, once there is one."""
        assert self._state is not None, "begin comes first"
        return self._state

    @property
    def path(self) -> Path:
        """The checkpoint of the present champion."""
        return self._champions.path(self.state.champion.number)

    def begin(
        self,
        write: Callable[[Path], object],
        version: int,
        origin: str,
        account_champion: AccountChampion,
    ) -> None:
        """Take up the champion on disk, or make the first one of what `write` writes.

        A champion that a drawdown ended, unknown to the disk as yet, is left behind first. One
        that cannot be read is refused where the account's own champion can be.

        Raises
        ------
        CheckpointError
            Neither can be read.
        """
        self._champions.know(account_champion.newest)
        if self._champions.pointer() is None:
            self._champions.promote(write, Promotion(version, PromotedBy.START, origin))
        self._champions.follow(*account_champion[:3])
        pointer = self._pointer()
        self._looked = pointer.moves
        try:
            self._state = self._load_state(pointer)
        except CheckpointError as error:
            if account_champion.champion in (0, pointer.champion):
                raise
            self._state = self._load_state(
                msgspec.structs.replace(pointer, champion=account_champion.champion, before=0)
            )
            log.error(
                "the champion is refused", reason=str(error), trades=account_champion.champion
            )
        self._publish(self._state)
        self._is_published = True

    def promote(self, write: Callable[[Path], object], why: Promotion) -> PromotionDecision:
        """Make a challenger, judged against the present champion, the next one.

        Where the pointer was moved since, the challenger is given up: the decision is what moved
        it, and `poll` tells of it, too.

        Raises
        ------
        CheckpointError
            The champion cannot be written.
        """
        number = self.state.champion.number
        try:
            pointer = self._champions.promote(write, why, moves=self._looked, before=number)
        except ChampionMoved:
            decision = self.poll()
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
        return self._take_up(pointer)

    def poll(self) -> PromotionDecision | None:
        """Return what an owner's command changed since the last look; None where nothing was.

        A champion that cannot be read is refused, and told in the log once for each move.
        """
        self._publish_again()
        told, self._overriding = self._overriding, None
        try:
            pointer = self._pointer()
        except (CheckpointError, OSError) as error:
            self._tell_fault(error)
            return told
        self._fault = ""
        if pointer.moves == self._looked:
            return told
        self._looked = pointer.moves
        try:
            return self._take_up(pointer)
        except CheckpointError as error:
            log.error("the owner's champion is refused", reason=str(error))
            return told

    def follow(self, account_champion: AccountChampion) -> PromotionDecision | None:
        """Point to where a drawdown brought the account back; None where it points there."""
        self._champions.know(account_champion.newest)
        try:
            pointer = self._followed(account_champion)
            return None if pointer is None else self._take_up(pointer)
        except (CheckpointError, OSError) as error:
            self._tell_fault(error)
            return None

    def publish(self) -> None:
        """Hand the present state to the registry again, in case it was lost."""
        self._is_published = False
        self._publish_again()

    def _publish_again(self) -> None:
        if self._is_published:
            return
        try:
            self._publish(self.state)
        except Exception as error:
            log.error("the weight registry does not take the champion", reason=str(error))
        else:
            self._is_published = True

    def _pointer(self) -> ChampionPointer:
        """Return the pointer; one that was lost while trading is written again."""
        pointer = self._champions.pointer()
        if pointer is None and self._state is not None:
            log.error("the champions' folder was lost", folder=str(self._champions.directory))
            self._put_back()
            pointer = self._champions.pointer()
        if pointer is None:
            raise CheckpointError(
                f"{self._champions.directory} has lost its pointer: restore the folder"
            )
        return pointer

    def _put_back(self) -> None:
        champion, before = self.state.champion, self.state.before
        present = msgspec.structs.replace(
            self.state.pointer,
            moves=self._looked,
            champion=champion.number,
            before=before.number if before else 0,
        )
        self._champions.put_back(present, [champion, *([before] if before else [])])

    def _followed(self, account_champion: AccountChampion) -> ChampionPointer | None:
        try:
            return self._champions.follow(*account_champion[:3])
        except (CheckpointError, OSError):
            # Where the champion to go back to is gone from the disk, it may be in memory.
            self._put_back()
            return self._champions.follow(*account_champion[:3])

    def _take_up(self, pointer: ChampionPointer) -> PromotionDecision:
        champion_state = self._load_state(pointer)
        change = pointer.change
        if isinstance(change, ChampionPromoted) and self._state is not None:
            # Of several moves between two looks only the last one is decided.
            before = self._state.champion.number
            change = msgspec.structs.replace(change, before=before)
        self._state, self._looked, self._overriding = champion_state, pointer.moves, None
        self.publish()
        return PromotionDecision(change, champion_state.champion)

    def _load_state(self, pointer: ChampionPointer) -> ChampionState:
        return load_state(self._champions, pointer)

    def _tell_fault(self, error: Exception) -> None:
        if str(error) != self._fault:
            self._fault = str(error)
            log.error("the champions' folder cannot be used", reason=self._fault)


def load_state(champions: ChampionStore, pointer: ChampionPointer) -> ChampionState:
    """Load the champion that a pointer names, and the one before it.

    Raises
    ------
    CheckpointError
        The champion cannot be read.
    """
    champion = champions.load(pointer.champion)
    if wrong := not_finite(champion.weights):
        raise CheckpointError(f"champion {champion.number}: {wrong}")
    before: Champion | None = None
    if pointer.before:
        try:
            before = champions.load(pointer.before)
        except CheckpointError as error:
            log.warning("no champion to fall back to", reason=str(error))
    return ChampionState(pointer, champion, before)


def state_on_disk(checkpoints: Path, keep: int) -> ChampionState | None:
    """Load what the pointer on disk names; None where there is none, or it cannot be read.

    Parameters
    ----------
    checkpoints, keep
        As of `ChampionStore`.
    """
    champions = ChampionStore(checkpoints, keep)
    try:
        pointer = champions.pointer()
        return None if pointer is None else load_state(champions, pointer)
    except (CheckpointError, OSError) as error:
        log.error("no champion on disk for the weight registry", reason=str(error))
        return None
