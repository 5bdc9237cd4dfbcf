"""Commands of the owner as files beside the journal: they reach whoever trades the account.

The command line leaves a request in a folder, and the process that writes the journal takes it and
leaves the answer. So neither Ray, nor a network, nor a token is needed: who may write the state
folder owns the account. A request is taken once, by renaming it, and one whose sender has gone away
is void after its time.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from trading.errors import JournalError, OwnerRefused, TradingError
from trading.execution.commands import Command
from trading.execution.journal.schema import beside
from trading.files import write
from trading.logs import get_logger

log = get_logger(__name__)

POLL_S = 0.1
_GRACE_S = 10.0
"""Once a request was taken, its answer is worth waiting so much longer for."""
_REQUEST, _TAKEN, _ANSWER = ".request", ".taken", ".answer"


class OwnerRequest(msgspec.Struct, frozen=True):
    """What the command line asks; None: only how the account stands."""

    command: Command | None
    until: float
    """Seconds since 1970: who asked does not wait longer."""


class OwnerReply(msgspec.Struct, frozen=True):
    """What the owner is told; `refused` says why nothing was done, empty when it was."""

    refused: str = ""
    answer: dict[str, Any] = {}


class RequestNotTaken(OwnerRefused):
    """Nobody took the request in time; it was withdrawn."""


def mailbox_path(journal: Path) -> Path:
    """Return the folder of requests and answers."""
    return beside(journal, ".commands")


def ask(journal: Path, command: Command | None, timeout_s: float) -> OwnerReply:
    """Leave a request for whoever trades the account of `journal`, and wait for the answer.

    Raises
    ------
    RequestNotTaken
        Nobody took it in time; nothing was done, and nothing will be.
    OwnerRefused
        It was taken, and no answer came.
    JournalError
        The folder cannot be written.
    """
    folder = mailbox_path(journal)
    base = folder / secrets.token_hex(8)
    request = base.with_suffix(_REQUEST)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(request, msgspec.json.encode(OwnerRequest(command, time.time() + timeout_s)))
    except OSError as error:
        raise JournalError(f"cannot leave a command in {folder}: {error}") from error
    reply = _await(base.with_suffix(_ANSWER), timeout_s)
    if reply is not None:
        return reply
    try:
        request.unlink()
    except FileNotFoundError:
        reply = _await(base.with_suffix(_ANSWER), _GRACE_S)
        if reply is not None:
            return reply
        key = command.key if command is not None else ""
        raise OwnerRefused(
            "the command was taken and not answered: see `trading account status` and the "
            "journal for whether it was obeyed, and give it again if not"
            + (f", with the same --key {key}" if key else "")
        ) from None
    raise RequestNotTaken(
        f"whoever trades the account did not take the command within {timeout_s:g} s"
    )


def serve(journal: Path, do: Callable[[Command | None], dict[str, Any]]) -> None:
    """Take every request that waits, and answer it with what `do` returns or refuses.

    A fault of the disk is a refusal too, where the answer can still be written.

    Raises
    ------
    OSError
        The folder cannot be used: a request cannot be taken, or not be answered.
    """
    folder = mailbox_path(journal)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(_REQUEST):
            _serve(folder / name, do)


def _serve(request: Path, do: Callable[[Command | None], dict[str, Any]]) -> None:
    taken = request.with_suffix(_TAKEN)
    try:
        request.rename(taken)
    except FileNotFoundError:
        return
    try:
        reply = _reply(taken, do)
        if reply is not None:
            write(request.with_suffix(_ANSWER), msgspec.json.encode(reply))
    finally:
        taken.unlink(missing_ok=True)


def _reply(taken: Path, do: Callable[[Command | None], dict[str, Any]]) -> OwnerReply | None:
    """Return what a request is answered; None where nobody waits for it any more."""
    try:
        asked = msgspec.json.decode(taken.read_bytes(), type=OwnerRequest)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        return OwnerReply(refused=f"the request cannot be read: {error}")
    if time.time() > asked.until:
        return None
    try:
        return OwnerReply(answer=do(asked.command))
    except (TradingError, OSError) as error:
        return OwnerReply(refused=str(error))
    except Exception as error:  # a fault of one command must not leave the owner without a hearing
        return OwnerReply(refused=fault_of_command(error))


def fault_of_command(error: Exception) -> str:
    """Log an error that no command should end in, and return what the owner is told of it."""
    log.exception("a command of the owner failed")
    return (
        f"the command failed ({type(error).__name__}: {' '.join(str(error).split())}), which is a "
        "fault of the application: see `trading account status` for whether it was obeyed, and "
        "please report it with its log"
    )


def _await(answer: Path, timeout_s: float) -> OwnerReply | None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            reply = msgspec.json.decode(answer.read_bytes(), type=OwnerReply)
            answer.unlink()
            return reply
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_S)
