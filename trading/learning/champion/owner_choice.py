"""The owner's choice of the champion: which one is meant, and what the account journals of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading.errors import CheckpointError, OwnerRefused
from trading.execution.events import (
    ChampionPromoted,
    ChampionRolledBack,
    Event,
    PromotedBy,
    RolledBackBy,
    WeightsAdopted,
)
from trading.learning.champion.store import (
    AccountChampion,
    Champion,
    ChampionStore,
    fits,
    weights_digest,
)
from trading.learning.checkpoints import WEIGHTS_SUFFIX, CheckpointStore

# A broker compiles; who only lists champions needs none.
if TYPE_CHECKING:
    from trading.execution.broker import PaperBroker
    from trading.execution.owner import Command, Effect
    from trading.learning.clstm import CLSTMConfig

CHAMPION, STEP = "champion-", "step-"


class OwnerChoice:
    """Finds what an owner names in one folder of checkpoints, and lets an account trade with it.

    Parameters
    ----------
    checkpoints
        The folder of the learner's checkpoints.
    keep
        As of both stores.
    noted
        What champions note, see `ChampionStore`; what is promoted is held against its catalogue.
    account_id
        Whose owner chooses.
    """

    def __init__(
        self,
        checkpoints: Path,
        keep: int,
        noted: Mapping[str, Any] | None = None,
        account_id: str = "",
    ) -> None:
        self.champions = ChampionStore(checkpoints, keep, noted=noted, account_id=account_id)
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

    def prepare(self, which: str, config: "CLSTMConfig", account: AccountChampion) -> Champion:
        """Return the champion that is meant, written where it is none yet.

        One that the account has had before, or that is another account's, is written again under a
        new number; one whose number the account does not know is taken as it is.

        Raises
        ------
        CheckpointError
            It is not there, is damaged, or does not fit the network.
        """
        path, own = self.find(which)
        number = int(which.removeprefix(CHAMPION)) if which.startswith(CHAMPION) and own else 0
        if number <= account.newest or not self.champions.is_own(number):
            written = self.champions.write_checkpoint(path, config, account, own=own)
            return self.champions.load(written.champion)
        champion = self.champions.load(number)
        fits(champion.weights, config, path)
        return champion

    def promote(self, which: str, config: "CLSTMConfig", account: AccountChampion) -> "Effect":
        """Return what lets a champion, checkpoint or model trade; raises as `prepare` does."""
        champion = self.prepare(which, config, account)
        reason = str(self.champions.metadata(champion.number)["reason"])

        def effect(
            broker: "PaperBroker", _: "Command", now_ns: int, equity: float | None
        ) -> tuple[str, list[Event]]:
            account = broker.account
            if champion.number <= account.newest_champion:
                raise OwnerRefused(
                    f"champion {account.newest_champion} was promoted meanwhile: give the command "
                    "again"
                )
            change = ChampionPromoted(
                now_ns,
                champion.number,
                champion.version,
                account.champion,
                PromotedBy.OWNER,
                reason,
                worth(broker, equity),
            )
            return _said(champion, account.champion), _events(broker, change, champion)

        return effect

    def roll_back(self, config: "CLSTMConfig", account: AccountChampion) -> "Effect":
        """Return what lets the champion before trade again.

        Raises
        ------
        CheckpointError
            There is none, it cannot be read, or does not fit the network.
        """
        champion = self.champions.load(self.champions.before(account))
        fits(champion.weights, config, self.champions.path(champion.number))

        def effect(
            broker: "PaperBroker", _: "Command", now_ns: int, equity: float | None
        ) -> tuple[str, list[Event]]:
            now = broker.account
            if now.champion != account.champion:
                raise OwnerRefused(
                    f"champion {now.champion} has taken over meanwhile: give the command again"
                )
            change = ChampionRolledBack(
                now_ns,
                now.rollbacks + 1,
                champion.number,
                champion.version,
                now.champion,
                RolledBackBy.OWNER,
                "rolled back by its owner",
                worth(broker, equity),
                peak(broker),
            )
            return _said(champion, 0), _events(broker, change, champion)

        return effect


def worth(broker: "PaperBroker", equity: float | None) -> float | None:
    """Return the account's worth, USD; None where it holds something that no market values."""
    return broker.known_equity() if equity is None or not math.isfinite(equity) else equity


def peak(broker: "PaperBroker") -> float | None:
    """Return the highest equity under the account's champion, USD; None where none is known."""
    account = broker.account
    return None if account.champion_peak_due else account.champion_peak_equity


def adopted(champion: Champion, now_ns: int) -> WeightsAdopted:
    """Say for the journal that these weights trade."""
    return WeightsAdopted(now_ns, champion.version, weights_digest(champion.weights))


def _events(
    broker: "PaperBroker", change: ChampionPromoted | ChampionRolledBack, champion: Champion
) -> list[Event]:
    return broker.champion_events(change, adopted(champion, change.ts_ns))


def _said(champion: Champion, before: int) -> str:
    earlier = f"; the one before it: {CHAMPION}{before}" if before else ""
    return (
        f"{CHAMPION}{champion.number} trades from the next bar on (version {champion.version})"
        f"{earlier}"
    )
