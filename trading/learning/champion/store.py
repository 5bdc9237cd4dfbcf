"""The policies that were promoted, on disk, and the pointer that says which of them trades.

    <checkpoints>/champions/champion-000000003/   a checkpoint: whole or not there
                           /champion.json         the pointer, replaced as a whole

A champion has a number, counted from 1 and never given twice. The learner and the commands
`trading checkpoints promote|rollback` may move the pointer; a lock on the folder keeps them apart.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from trading.errors import ChampionMoved, CheckpointError, LearningError
from trading.execution.events import (
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    PromotedBy,
    RolledBackBy,
)
from trading.files import FileLock, write
from trading.learning.champion.card import CARD, LEARNT_FROM, write_card
from trading.learning.checkpoints import (
    MANIFEST,
    CheckpointStore,
    load_module_weights,
    verify,
    write_module_weights,
)
from trading.learning.noted_settings import NOTED

if TYPE_CHECKING:
    from trading.learning.clstm import CLSTMConfig
    from trading.learning.policy import Weights

FOLDER = "champions"
"""Below the folder of checkpoints."""
_POINTER, _LOCK = "champion.json", ".lock"
_NAME = "champion"


class Champion(NamedTuple):
    """A policy that may trade."""

    number: int
    version: int
    """Updates that led to the weights; 0 where that is not known."""
    weights: "Weights"


class ChampionPointer(msgspec.Struct, frozen=True):
    """Which champion trades, and what made it so: the pointer's content."""

    moves: int
    """How often the pointer was moved."""
    champion: int
    before: int
    """The champion to go back to; 0: none."""
    change: ChampionPromoted | ChampionRolledBack
    """For the journal, which adds exchange time and equity."""


class Promotion(NamedTuple):
    """Why a policy becomes the champion."""

    version: int
    by: PromotedBy
    reason: str
    kl: float | None = None
    compared: tuple[Compared, ...] = ()


class ChampionStore:
    """The champions below one folder of checkpoints.

    Parameters
    ----------
    checkpoints
        The folder of the learner's checkpoints.
    keep
        Champions kept, at least 1; the one that trades and the one before it always are.
    newest_known
        The highest number that was ever given, as far as the account's journal knows.
    clock
        Seconds since 1970, for the time of a promotion.
    noted
        JSON values that the manifest of each champion tells of its origin.
    """

    def __init__(
        self,
        checkpoints: Path,
        keep: int,
        newest_known: int = 0,
        clock: Callable[[], float] = time.time,
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = CheckpointStore(Path(checkpoints) / FOLDER, keep, _NAME)
        self.directory = self._store.directory
        self._newest_known = newest_known
        self._clock = clock
        self._noted = dict(noted or {})

    def pointer(self) -> ChampionPointer | None:
        """Return what the pointer says now; None before the first champion.

        Raises
        ------
        CheckpointError
            The pointer cannot be read.
        """
        path = self.directory / _POINTER
        try:
            return msgspec.json.decode(path.read_bytes(), type=ChampionPointer)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): restore it, or remove it so that trading "
                "begins with the newest checkpoint as its champion"
            ) from error

    def numbers(self) -> list[int]:
        """Champions on disk, rising."""
        return self._store.steps()

    def path(self, number: int) -> Path:
        """Where a champion lies."""
        return self._store.path(number)

    def metadata(self, number: int) -> dict[str, Any]:
        """Return what a champion's manifest says: version, by, reason, kl, compared, before, time.

        Raises
        ------
        CheckpointError
            It is missing or damaged.
        """
        return verify(self.path(number))

    def load(self, number: int) -> Champion:
        """Return a champion's weights, checked against its manifest; raises CheckpointError."""
        metadata = self.metadata(number)
        return Champion(number, int(metadata["version"]), load_module_weights(self.path(number)))

    def know(self, newest: int) -> None:
        """Give no number again that the account's journal holds, whatever the disk has lost."""
        self._newest_known = max(self._newest_known, newest)

    def promote(
        self,
        write: Callable[[Path], object],
        why: Promotion,
        *,
        moves: int | None = None,
        before: int | None = None,
        noted: Mapping[str, Any] | None = None,
    ) -> ChampionPointer:
        """Write a new champion and let it trade.

        `write` fills the empty directory that it is given, as for `CheckpointStore.save`. A crash
        at any instant leaves the champion before in its place.

        Parameters
        ----------
        write, why
            The champion.
        moves
            Of the pointer when the decision was made; None promotes whatever came in between.
        before
            The champion that it is to take over from, and that it was compared with; None is the
            one that the pointer names.
        noted
            What its manifest and its card tell of its origin; None: what the store notes.

        Raises
        ------
        ChampionMoved
            The pointer was moved since `moves`; nothing was written.
        """
        with self._locked():
            now = self.pointer()
            if moves is not None and moves != (now.moves if now else 0):
                raise ChampionMoved(
                    f"{self.directory} has another champion since the decision was made"
                )
            pointed = now.champion if now else 0
            before = pointed if before is None else before
            numbers = (*self.numbers(), pointed, before, self._newest_known)
            number = 1 + max(numbers)
            metadata = {
                "step": number,
                "version": why.version,
                "before": before,
                "by": str(why.by),
                "reason": why.reason,
                "kl": why.kl,
                "compared": msgspec.to_builtins(why.compared),
                "time": self._clock(),
            }
            metadata = {**(self._noted if noted is None else noted), **metadata}
            spared = {before, *([now.before] if now else [])}
            self._save(write, metadata, spared)
            change = ChampionPromoted(
                0, number, why.version, before, why.by, why.reason, 0.0, why.kl, why.compared
            )
            return self._point(now, number, before, change)

    def promote_checkpoint(
        self, path: Path, config: "CLSTMConfig", *, own: bool
    ) -> ChampionPointer:
        """Let the policy of a checkpoint or model trade, by its owner's word.

        An `own` checkpoint is copied whole, so that learning can go on from it; of any other only
        the network's weights are.

        Raises
        ------
        CheckpointError
            It is damaged, no checkpoint, or does not fit the network.
        """
        from trading.learning.noted_catalogue import CATALOGUE, check_catalogue

        metadata = verify(path) if own or (path / MANIFEST).is_file() else {}
        check_catalogue(path, metadata, self._noted.get(CATALOGUE))
        version = int(metadata.get("version", metadata.get("step", 0)))

        def copy(directory: Path) -> None:
            if own:
                without = shutil.ignore_patterns(MANIFEST, CARD)
                shutil.copytree(path, directory, dirs_exist_ok=True, ignore=without)
            weights = load_module_weights(directory if own else path)
            fits(weights, config, path)
            if not own:
                write_module_weights(directory, weights)

        why = Promotion(version, PromotedBy.OWNER, f"promoted from {path.name}")
        kept = (NOTED, LEARNT_FROM, CATALOGUE)
        noted = {key: metadata[key] for key in kept if key in metadata}
        return self.promote(copy, why, noted=noted)

    def roll_back(self) -> ChampionPointer:
        """Let the champion before trade again, by its owner's word.

        Raises
        ------
        CheckpointError
            There is no earlier champion, or it is damaged.
        """
        with self._locked():
            now = self.pointer()
            if now is None or not now.before:
                raise CheckpointError(
                    f"{self.directory} knows no champion before the present one: name a "
                    "checkpoint with `trading checkpoints promote`"
                )
            return self._go_back(now, now.before, RolledBackBy.OWNER, "rolled back by its owner")

    def follow(self, champion: int, newest: int, discarded: int) -> ChampionPointer | None:
        """Point to where a drawdown brought the account back; None where nothing is to be done.

        The account trades with `champion` since `discarded` lost too much. A challenger that was
        promoted after `discarded` and that the account has not taken up (its `newest` is lower) is
        left behind with it.
        """
        with self._locked():
            now = self.pointer()
            if now is None or not discarded or now.champion == champion:
                return None
            void = now.before == discarded and now.champion > newest and _by_gate(now.change)
            if now.champion != discarded and not void:
                return None
            reason = f"equity fell too far under champion {discarded}"
            return self._go_back(now, champion, RolledBackBy.DRAWDOWN, reason)

    def put_back(self, pointer: ChampionPointer, champions: Sequence[Champion]) -> None:
        """Write again what the disk has lost: champions that are in memory, and the pointer.

        Of their checkpoints only the network's weights are; what is whole on disk stays.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            for champion in champions:
                if not self._is_whole(champion.number):
                    self._write_again(champion, pointer)
            if self.pointer() is None:
                self._write_pointer(pointer)

    def _is_whole(self, number: int) -> bool:
        try:
            self.metadata(number)
        except CheckpointError:
            return False
        return True

    def _write_again(self, champion: Champion, pointer: ChampionPointer) -> None:
        is_present = champion.number == pointer.champion
        metadata = {
            "step": champion.number,
            "version": champion.version,
            "before": pointer.before if is_present else 0,
            "by": str(pointer.change.by) if is_present else "",
            "reason": "written again from memory: the folder had lost it",
            "kl": None,
            "compared": [],
            "time": self._clock(),
        }
        spared = {pointer.champion, pointer.before}
        self._save(
            lambda directory: write_module_weights(directory, champion.weights), metadata, spared
        )

    def _save(
        self, write: Callable[[Path], object], metadata: dict[str, Any], spared: Collection[int]
    ) -> None:
        """Write a champion, with what it was learnt with, and its card beside it."""
        # Champions are listed without the compiled functions that actions and features need.
        from trading.learning.noted_catalogue import CATALOGUE, noted_catalogue

        def write_with_card(directory: Path) -> None:
            write(directory)
            write_card(
                directory,
                f"champion-{metadata['step']}",
                metadata,
                lambda: weights_digest(load_module_weights(directory)),
            )

        catalogue = self._noted.get(CATALOGUE) or noted_catalogue()
        self._store.save(write_with_card, {CATALOGUE: catalogue, **metadata}, spared)

    def _go_back(
        self, now: ChampionPointer, number: int, by: RolledBackBy, reason: str
    ) -> ChampionPointer:
        metadata = self.metadata(number)
        earlier = int(metadata["before"])
        before = earlier if earlier in self.numbers() else 0
        change = ChampionRolledBack(
            0, 0, number, int(metadata["version"]), now.champion, by, reason, 0.0, 0.0
        )
        return self._point(now, number, before, change)

    def _point(
        self,
        now: ChampionPointer | None,
        champion: int,
        before: int,
        change: ChampionPromoted | ChampionRolledBack,
    ) -> ChampionPointer:
        pointer = ChampionPointer((now.moves if now else 0) + 1, champion, before, change)
        self._write_pointer(pointer)
        return pointer

    def _write_pointer(self, pointer: ChampionPointer) -> None:
        content = msgspec.json.format(msgspec.json.encode(pointer))
        write(self.directory / _POINTER, content)

    def _locked(self) -> FileLock:
        return FileLock(self.directory / _LOCK, wait=True)


def _by_gate(change: ChampionPromoted | ChampionRolledBack) -> bool:
    return isinstance(change, ChampionPromoted) and change.by is PromotedBy.GATE


def fits(weights: "Weights", config: "CLSTMConfig", origin: Path) -> None:
    """Check that weights are finite and the configured network's.

    Raises
    ------
    CheckpointError
        They are not.
    """
    from trading.learning.policy import load_weights, seeded_clstm

    try:
        load_weights(seeded_clstm(config, 0), weights)
    except LearningError as error:
        raise CheckpointError(f"{origin} does not fit the configured network: {error}") from error


def not_finite(weights: "Weights") -> str:
    """Say which weight is no number, for people; empty where none is."""
    for name, array in weights.items():
        if not np.isfinite(array).all():
            return f"weight {name} holds NaN or infinity"
    return ""


def weights_digest(weights: "Weights") -> str:
    """SHA-256 over names and values, for the journal."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
