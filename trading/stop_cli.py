"""`trading stop`: whoever trades the account ends in order."""

import time
from typing import Annotated

import typer

from trading.command_line import ConfigOption, SetOption, failures, settings_for
from trading.errors import TradingError

_POLL_S = 0.25


class StillTrading(TradingError):
    """Who was asked to stop has not let go of the account in time."""


def stop(
    config: ConfigOption = None,
    overrides: SetOption = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only if it runs on this host, in this Ray cluster.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait until it has let go.")
    ] = 100.0,
) -> None:
    """Ask the application that trades the account to write its last checkpoint and let go.

    It asks by a file beside the journal, so it needs neither Ray nor a network.
    """
    settings = settings_for(config, overrides or [])

    from trading.execution.lease import ask_to_stop, holder_of
    from trading.live import assembly

    journal = assembly.journal_path(settings)
    holder = holder_of(journal)
    if holder is None:
        print(f"nobody trades the account {settings.account.id}")
        return
    if here and not holder.is_here:
        print(f"the account {settings.account.id} is traded elsewhere: {holder}")
        return
    with failures():
        ask_to_stop(journal, holder)
        deadline = time.monotonic() + timeout
        while (now := holder_of(journal)) is not None and now.key == holder.key:
            if time.monotonic() >= deadline:
                raise StillTrading(
                    f"the account {settings.account.id} was not let go within {timeout:g} s: "
                    f"{holder}"
                )
            time.sleep(_POLL_S)
    print(f"stopped: {holder}")
