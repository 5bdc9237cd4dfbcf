"""`trading stop`: whoever trades the account ends in order."""

import json
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from trading.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    StrategyOption,
    each_strategy,
    failures,
)
from trading.config import Settings
from trading.errors import TradingError

if TYPE_CHECKING:
    from trading.execution.lease import LeaseHolder

_POLL_S = 0.25


class StillTrading(TradingError):
    """Who was asked to stop has not let go of the account in time."""


def stop(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only if it runs on this host, in this Ray cluster.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait until it has let go.")
    ] = 100.0,
    as_json: JsonOption = False,
) -> None:
    """Ask the application that trades the account to write its last checkpoint and let go.

    It asks by a file beside the journal, so it needs neither Ray nor a network. Where the settings
    have strategies, and none is named, all of them are asked before the first is waited for.
    """
    asked = [
        _ask(settings, here)
        for settings in each_strategy(config, overrides or [], strategy).values()
    ]
    if not as_json:
        for each in asked:
            if each.outcome is not Outcome.STOPPED:
                print(each)
    deadline = time.monotonic() + timeout
    with failures():
        for each in asked:
            if each.holder is not None and each.outcome is Outcome.STOPPED:
                _wait(each.settings, each.holder, deadline, timeout)
                if not as_json:
                    print(each)
    if as_json:
        print(json.dumps({"accounts": [each.plain() for each in asked]}))


class Outcome(StrEnum):
    """What came of a request to stop."""

    NOBODY = "nobody"
    """Trades the account."""
    ELSEWHERE = "elsewhere"
    """It is traded, so nobody was asked."""
    STOPPED = "stopped"


class StopAnswer(NamedTuple):
    """An account whose trader is to end."""

    settings: Settings
    outcome: Outcome
    """Of one that was asked and has not let go yet, what is waited for."""
    holder: "LeaseHolder | None" = None

    def __str__(self) -> str:
        account = self.settings.account.id
        match self.outcome:
            case Outcome.NOBODY:
                return f"nobody trades the account {account}"
            case Outcome.ELSEWHERE:
                return f"the account {account} is traded elsewhere: {self.holder}"
            case Outcome.STOPPED:
                return f"stopped: {self.holder}"

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values; `holder` is who traded it, or trades it elsewhere."""
        holder = self.holder
        return {
            "account": self.settings.account.id,
            "strategy": self.settings.strategy,
            "outcome": self.outcome.value,
            "holder": None
            if holder is None
            else {
                "host": holder.host,
                "pid": holder.pid,
                "cluster": holder.cluster,
                "since": holder.since,
            },
        }


def _ask(settings: Settings, here: bool) -> StopAnswer:
    """Ask who trades the account to end, if anybody is to be asked."""
    from trading.execution.lease import ask_to_stop, holder_of
    from trading.live import assembly

    journal = assembly.journal_path(settings)
    holder = holder_of(journal)
    if holder is None:
        return StopAnswer(settings, Outcome.NOBODY)
    if here and not holder.is_here:
        return StopAnswer(settings, Outcome.ELSEWHERE, holder)
    with failures():
        ask_to_stop(journal, holder)
    return StopAnswer(settings, Outcome.STOPPED, holder)


def _wait(settings: Settings, holder: "LeaseHolder", deadline: float, timeout_s: float) -> None:
    from trading.execution.lease import holder_of
    from trading.live import assembly

    journal = assembly.journal_path(settings)
    while (now := holder_of(journal)) is not None and now.key == holder.key:
        if time.monotonic() >= deadline:
            raise StillTrading(
                f"the account {settings.account.id} was not let go within {timeout_s:g} s: {holder}"
            )
        time.sleep(_POLL_S)
