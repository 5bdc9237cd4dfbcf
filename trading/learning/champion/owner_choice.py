"""The owner's choice of the champion: which one is meant, and the pointer moved to it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading.errors import CheckpointError
from trading.learning.champion.store import ChampionPointer, ChampionStore
from trading.learning.checkpoints import WEIGHTS_SUFFIX, CheckpointStore

if TYPE_CHECKING:
    from trading.learning.champion.manager import AccountChampion
    from trading.learning.clstm import CLSTMConfig

CHAMPION, STEP = "champion-", "step-"


class OwnerChoice:
    """Moves the pointer of one folder of checkpoints by the owner's word.

    Parameters
    ----------
    checkpoints
        The folder of the learner's checkpoints.
    keep
        As of both stores.
    noted
        What champions note, see `ChampionStore`; what is promoted is held against its catalogue.
    """

    def __init__(
        self, checkpoints: Path, keep: int, noted: Mapping[str, Any] | None = None
    ) -> None:
        self.champions = ChampionStore(checkpoints, keep, noted=noted)
        self.store = CheckpointStore(checkpoints, keep)

    def find(self, which: str) -> tuple[Path, bool]:
        """Return the folder that is meant, and whether it is one of our own.

        Raises
        ------
        CheckpointError
            There is no such folder; the message names those that there are.
        """
        champion, step = which.removeprefix(CHAMPION), which.removeprefix(STEP)
        if which.startswith(CHAMPION) and champion.isdecimal():
            path, known = self.champions.path(int(champion)), self.champions.numbers()
            own = CHAMPION
        elif step.isdecimal():
            path, known, own = self.store.path(int(step)), self.store.steps(), STEP
        else:
            path = Path(which)
            is_file = path.suffix == WEIGHTS_SUFFIX and path.is_file()
            if not which or not (path.is_dir() or is_file):
                raise CheckpointError(
                    f"{which or 'nothing'} is neither champion-N, step-N, a folder nor a "
                    f"{WEIGHTS_SUFFIX} file: see `trading checkpoints list`"
                )
            return path.resolve(), False
        if not path.is_dir():
            there = ", ".join(f"{own}{number}" for number in known) or "none"
            raise CheckpointError(f"there is no {path.name} in {path.parent}: there are {there}")
        return path, True

    def promote(
        self, which: str, config: "CLSTMConfig", account: "AccountChampion | None"
    ) -> ChampionPointer:
        """Let a champion, checkpoint or model trade; raises CheckpointError where it cannot."""
        path, own = self.find(which)
        return self._move(lambda: self.champions.promote_checkpoint(path, config, own=own), account)

    def roll_back(self, account: "AccountChampion | None") -> ChampionPointer:
        """Let the champion before trade again; raises CheckpointError where there is none."""
        return self._move(self.champions.roll_back, account)

    def _move(
        self, move: Callable[[], ChampionPointer], account: "AccountChampion | None"
    ) -> ChampionPointer:
        """Move the pointer from where the account is."""
        if account is not None:
            self.champions.know(account.newest)
            # A drawdown that the driver has not heard of yet comes first.
            self.champions.follow(*account[:3])
        return move()


def describe_pointer(pointer: ChampionPointer) -> tuple[str, str]:
    """Name the champion; say its version and the champion before it in words."""
    before = f"{CHAMPION}{pointer.before}" if pointer.before else "none"
    return (
        f"{CHAMPION}{pointer.champion}",
        f"(version {pointer.change.version}); the one before it: {before}",
    )
