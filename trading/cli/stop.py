"""`trading stop`: whoever trades the account ends in order."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from trading.cli.common import (
    ConfigOption,
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
) -> None:
    """Ask the application that trades the account to write its last checkpoint and let go.

    It asks by a file beside the journal, so it needs neither Ray nor a network. Where the settings
    have strategies, and none is named, all of them are asked before the first is waited for.
    """
    asked = {
        name: (settings, holder)
        for name, settings in each_strategy(config, overrides or [], strategy).items()
        if (holder := _ask(settings, here)) is not None
    }
    deadline = time.monotonic() + timeout
    with failures():
        for settings, holder in asked.values():
            _wait(settings, holder, deadline, timeout)
            print(f"stopped: {holder}")


def _ask(settings: Settings, here: bool) -> "LeaseHolder | None":
    """Ask who trades the account to end; None where there is nobody to be asked, which is told."""
    from trading.execution.lease import ask_to_stop, holder_of
    from trading.live import assembly

    journal = assembly.journal_path(settings)
    holder = holder_of(journal)
    if holder is None:
        print(f"nobody trades the account {settings.account.id}")
        return None
    if here and not holder.is_here:
        print(f"the account {settings.account.id} is traded elsewhere: {holder}")
        return None
    with failures():
        ask_to_stop(journal, holder)
    return holder


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
