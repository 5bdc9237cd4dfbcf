"""The policies that were promoted, on disk: immutable, by number.

    <checkpoints>/champions/champion-000000003/   a checkpoint: whole or not there

A champion has a number, counted from 1 and never given twice. Which of them trades is in the
account's journal and nowhere else: the folder holds weights, and for what each was written.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from trading.errors import CheckpointError, LearningError
from trading.execution.events import ChampionPromoted, Compared, PromotedBy
from trading.files import FileLock
from trading.learning.champion.card import CARD, LEARNT_FROM, write_card
from trading.learning.checkpoints import (
    MANIFEST,
    CheckpointStore,
    load_module_weights,
    verify,
    write_module_weights,
)
from trading.learning.noted_settings import NOTED, check_options
from trading.logs import get_logger

if TYPE_CHECKING:
    from trading.execution.portfolio import Account
    from trading.learning.clstm import CLSTMConfig
    from trading.learning.policy import Weights

log = get_logger(__name__)

FOLDER = "champions"
"""Below the folder of checkpoints."""
PASSED_OVER = ".passed-over"
"""In a champion that an older version left aside: no start takes it up, its owner may."""
ACCOUNT = "account"
"""In a champion's manifest: for which account it was written."""
FEWEST = 4
"""Of an account's newest champions, which are kept whatever the setting: a driver that has not
heard yet whom the owner chose removes none of what may trade, or be fallen back to."""
_LOCK = ".lock"
_NAME = "champion"


class Champion(NamedTuple):
    """A policy that may trade."""

    number: int
    version: int
    """Updates that led to the weights; 0 where that is not known."""
    weights: "Weights"


class AccountChampion(NamedTuple):
    """Which champion an account trades with, as its journal says."""

    champion: int = 0
    before: int = 0
    """The champion to go back to; 0: none."""
    newest: int = 0
    """The highest number of a champion that it knows."""
    changes: int = 0
    """Promotions and rollbacks."""
    refusals: int = 0

    @property
    def revision(self) -> tuple[int, int]:
        """Of two reports the one with the larger revision is the later one."""
        return self.changes, self.refusals

    @classmethod
    def of(cls, account: "Account") -> "AccountChampion":
        """Read it from an account."""
        return cls(
            account.champion,
            account.champion_before,
            account.newest_champion,
            account.promotions + account.rollbacks,
            account.refusals,
        )


class Promotion(NamedTuple):
    """Why a policy is to become the champion."""

    version: int
    by: PromotedBy
    reason: str
    kl: float | None = None
    compared: tuple[Compared, ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Promotion":
        """Read it from a champion's manifest."""
        return cls(
            int(metadata["version"]),
            PromotedBy(metadata["by"] or PromotedBy.START),
            metadata["reason"],
            metadata["kl"],
            msgspec.convert(metadata["compared"], tuple[Compared, ...]),
        )


class ChampionStore:
    """The champions below one folder of checkpoints.

    Parameters
    ----------
    checkpoints
        The folder of the learner's checkpoints.
    keep
        Champions of the account kept, at least `FEWEST`; the one that trades and the one before it
        always are.
    clock
        Seconds since 1970, for the time of a promotion.
    noted
        JSON values that the manifest of each champion tells of its origin. Where they have a
        catalogue, see `trading.learning.noted_catalogue`, no champion of another one is loaded.
    account_id
        For whom champions are written, which their manifests note. Those of another account in the
        same folder are left alone; those without a note are everybody's. Empty: all are its own.
    """

    def __init__(
        self,
        checkpoints: Path,
        keep: int,
        clock: Callable[[], float] = time.time,
        noted: Mapping[str, Any] | None = None,
        account_id: str = "",
    ) -> None:
        self._store = CheckpointStore(Path(checkpoints) / FOLDER, max(keep, FEWEST), _NAME)
        self.directory = self._store.directory
        self._clock = clock
        self._noted = dict(noted or {})
        self._account_id = account_id

    def numbers(self) -> list[int]:
        """Champions on disk, rising."""
        return self._store.steps()

    def path(self, number: int) -> Path:
        """Where a champion lies."""
        return self._store.path(number)

    def metadata(self, number: int) -> dict[str, Any]:
        """Return what a manifest says: why, when, over which and for whom it was written.

        Raises
        ------
        CheckpointError
            It is missing or damaged.
        """
        return verify(self.path(number))

    def is_own(self, number: int) -> bool:
        """Whether a champion is not another account's; a damaged one is as one without a note."""
        try:
            manifest = json.loads((self.path(number) / MANIFEST).read_bytes())
            noted = manifest["metadata"].get(ACCOUNT)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return True
        return not noted or self._account_id in ("", noted)

    def load(self, number: int) -> Champion:
        """Return a champion's weights, checked against its manifest.

        Raises
        ------
        CheckpointError
            It is missing or damaged, has an option that is gone, a weight is no number, or it was
            learnt with other actions or features than the store's notes tell of.
        """
        from trading.learning.noted_catalogue import CATALOGUE, check_catalogue

        metadata = self.metadata(number)
        if catalogue := self._noted.get(CATALOGUE):
            check_catalogue(self.path(number), metadata, catalogue)
        check_options(self.path(number), metadata)
        champion = Champion(
            number, int(metadata["version"]), load_module_weights(self.path(number))
        )
        if wrong := not_finite(champion.weights):
            raise CheckpointError(f"champion {number}: {wrong}")
        return champion

    def write(
        self,
        fill: Callable[[Path], object],
        why: Promotion,
        account: AccountChampion,
        noted: Mapping[str, Any] | None = None,
    ) -> ChampionPromoted:
        """Write a new champion; it trades once the account's journal says so.

        `fill` fills the empty directory that it is given, as for `CheckpointStore.save`. A crash at
        any instant leaves the whole champion or nothing.

        Parameters
        ----------
        fill, why
            The champion.
        account
            Whose champion it is to take over from, and was compared with.
        noted
            What its manifest and its card tell of its origin; None: what the store notes.

        Returns
        -------
        ChampionPromoted
            For the journal, which adds exchange time and equity.
        """
        with FileLock(self.directory / _LOCK, wait=True):
            number = 1 + max(0, account.newest, *self.numbers())
            metadata = self._manifest(number, account.champion, why)
            metadata = {**(self._noted if noted is None else noted), **metadata}
            self._save(fill, metadata, {account.champion, account.before})
        return promotion_of(number, metadata)

    def write_checkpoint(
        self, path: Path, config: "CLSTMConfig", account: AccountChampion, *, own: bool
    ) -> ChampionPromoted:
        """Make a champion of a checkpoint or model, by its owner's word.

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
        check_options(path, metadata)
        version = int(metadata.get("version", metadata.get("step", 0)))

        def copy(directory: Path) -> None:
            if own:
                without = shutil.ignore_patterns(MANIFEST, CARD, PASSED_OVER)
                shutil.copytree(path, directory, dirs_exist_ok=True, ignore=without)
            weights = load_module_weights(directory if own else path)
            fits(weights, config, path)
            if not own:
                write_module_weights(directory, weights)

        why = Promotion(version, PromotedBy.OWNER, f"promoted from {path.name}")
        kept = (NOTED, LEARNT_FROM, CATALOGUE)
        noted = {key: metadata[key] for key in kept if key in metadata}
        return self.write(copy, why, account, noted)

    def write_again(self, champion: Champion, account: AccountChampion) -> None:
        """Write a champion that the disk has lost and memory has; of it only the weights are."""
        number = champion.number
        before = account.before if number == account.champion else 0
        reason = "written again from memory: the folder had lost it"
        why = Promotion(champion.version, PromotedBy.START, reason)
        metadata = {**self._manifest(number, before, why), "by": ""}
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self.directory / _LOCK, wait=True):
            self._save(
                lambda directory: write_module_weights(directory, champion.weights),
                metadata,
                {account.champion, account.before},
            )

    def before(self, account: AccountChampion) -> int:
        """Return the champion that an owner's rollback goes to.

        Raises
        ------
        CheckpointError
            None is known.
        """
        number = account.before
        if not number and account.champion in self.numbers():
            number = int(self.metadata(account.champion)["before"])
        if number not in self.numbers():
            raise CheckpointError(
                f"{self.directory} has no champion before the present one: name a checkpoint with "
                "`trading checkpoints promote`"
            )
        return number

    def news_for(self, account: AccountChampion) -> ChampionPromoted | None:
        """Return what an account takes up at its start; None where it goes on with its champion.

        It is the newest champion that passed the gate against the account's own and that a crash
        kept out of the journal. What an owner wrote is not: the command that wrote it journals it,
        or did not happen. An account without a champion begins with the newest one there is. What
        was written for another account is no news.
        """
        for number in reversed(self.numbers()):
            if number <= account.newest:
                return None
            if not self.is_own(number):
                continue
            try:
                metadata = self.metadata(number)
            except CheckpointError as error:
                log.warning("a champion is passed over", reason=str(error))
                continue
            judged = metadata["by"] == PromotedBy.GATE and metadata["before"] == account.champion
            left_aside = (self.path(number) / PASSED_OVER).exists()
            if (judged and not left_aside) or not account.champion:
                return promotion_of(number, metadata)
        return None

    def _manifest(self, number: int, before: int, why: Promotion) -> dict[str, Any]:
        return {
            "step": number,
            "version": why.version,
            "before": before,
            "by": str(why.by),
            "reason": why.reason,
            "kl": why.kl,
            "compared": msgspec.to_builtins(why.compared),
            "time": self._clock(),
            ACCOUNT: self._account_id,
        }

    def _save(
        self, fill: Callable[[Path], object], metadata: dict[str, Any], spared: Collection[int]
    ) -> None:
        """Write a champion, with what it was learnt with, and its card beside it."""
        # Champions are listed without the compiled functions that actions and features need.
        from trading.learning.noted_catalogue import CATALOGUE, noted_catalogue

        def fill_with_card(directory: Path) -> None:
            fill(directory)
            write_card(
                directory,
                f"champion-{metadata['step']}",
                metadata,
                lambda: weights_digest(load_module_weights(directory)),
            )

        catalogue = self._noted.get(CATALOGUE) or noted_catalogue()
        others = [number for number in self.numbers() if not self.is_own(number)]
        self._store.save(fill_with_card, {CATALOGUE: catalogue, **metadata}, spared, others)


def promotion_of(number: int, metadata: Mapping[str, Any]) -> ChampionPromoted:
    """Return the promotion of a champion, without time and equity, as its manifest tells it."""
    version, by, reason, kl, compared = Promotion.of(metadata)
    before = int(metadata["before"])
    return ChampionPromoted(0, number, version, before, by, reason, 0.0, kl, compared)


def first_state(
    champions: ChampionStore, account: AccountChampion
) -> tuple[Champion, ChampionPromoted | None]:
    """Who trades from a start on: the one place that says so.

    Returns
    -------
    tuple[Champion, ChampionPromoted | None]
        What `ChampionStore.news_for` has for the account, with its promotion, which the journal has
        to have first; or the champion of the account's journal, and None.

    Raises
    ------
    CheckpointError
        There is no champion, or it cannot be read.
    """
    news = champions.news_for(account)
    if news is not None:
        try:
            return champions.load(news.champion), news
        except CheckpointError as error:
            if not account.champion:
                raise _unreadable(error) from error
            log.error("a champion is refused", reason=str(error), trades=account.champion)
    if not account.champion:
        raise CheckpointError(f"{champions.directory} has no champion: start `trading up`")
    try:
        return champions.load(account.champion), None
    except CheckpointError as error:
        raise _unreadable(error) from error


def _unreadable(error: CheckpointError) -> CheckpointError:
    return CheckpointError(
        f"the champion cannot be read ({error}): let another one trade by `trading checkpoints "
        "promote`"
    )


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
    """Return what is wrong with weights of which one is no number; empty where none is."""
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
