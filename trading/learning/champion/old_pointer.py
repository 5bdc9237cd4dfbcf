"""The pointer file of versions before the journal alone said who trades: read once, then removed.

Only what it says and the journal does not have yet matters: a word of the owner, or a promotion.
"""

from pathlib import Path

import msgspec

from trading.errors import CheckpointError
from trading.execution.events import ChampionPromoted, ChampionRolledBack, PromotedBy, RolledBackBy

POINTER = "champion.json"


class Pointer(msgspec.Struct, frozen=True):
    """Which champion was to trade, and what made it so."""

    champion: int
    change: ChampionPromoted | ChampionRolledBack


def read(folder: Path) -> Pointer | None:
    """Return the pointer in a folder of champions; None where there is none.

    Raises
    ------
    CheckpointError
        It cannot be read.
    """
    path = folder / POINTER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pointer)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): restore it, or remove it so that trading goes on "
            "with the champion of the account's journal"
        ) from error


def news(
    pointer: Pointer, champion: int, newest: int
) -> ChampionPromoted | ChampionRolledBack | None:
    """Return what an account has yet to hear that knows numbers up to `newest`."""
    change = pointer.change
    if not champion:
        version, reason = change.version, change.reason
        return ChampionPromoted(0, pointer.champion, version, 0, PromotedBy.START, reason, 0.0)
    if isinstance(change, ChampionRolledBack):
        is_owners = change.by is RolledBackBy.OWNER and change.discarded == champion
        return change if is_owners and change.champion != champion else None
    is_void = change.by is PromotedBy.GATE and change.before != champion
    return None if change.champion <= newest or is_void else change


def remove(folder: Path) -> None:
    """Remove the pointer."""
    (folder / POINTER).unlink(missing_ok=True)
