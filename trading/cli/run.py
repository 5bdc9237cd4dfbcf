"""`trading up` and `trading train`: what runs with Ray until it is stopped."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trading.cli.common import (
    AddressOption,
    ConfigOption,
    SetOption,
    StrategyOption,
    failures,
    misuse,
    settings_for,
)
from trading.config import Settings


def up(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    symbols: Annotated[str | None, typer.Option(help="Underlyings, with commas: SPY,QQQ.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Trade a day from this folder of flat files, recordings, or the catalogue."
        ),
    ] = None,
    date: Annotated[str | None, typer.Option(help="The recorded day, YYYY-MM-DD.")] = None,
    speed: Annotated[
        float | None, typer.Option(help="Exchange seconds a second; 0: as fast as possible.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so many seconds of trading.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP service.")] = None,
    address: AddressOption = None,
    claim: Annotated[
        bool,
        typer.Option(
            "--claim", help="Of several strategies, trade the first that nobody else trades."
        ),
    ] = False,
    place: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of several strategies, trade the one at this place in the settings, from 0.",
        ),
    ] = None,
) -> None:
    """Run the whole application: market data, trading, online learning and the HTTP service.

    Settings that have strategies run all of them; --strategy and --place run one, --claim one that
    is free.
    """
    flags = [*_flags(symbols, replay, date, speed, port, address), *(overrides or [])]
    if place is not None:
        if claim or strategy is not None:
            misuse("--place says which strategy is traded: leave out --claim and --strategy")
        strategy = _at(place, config, flags)
    settings = settings_for(config, flags, strategy, several=True)
    if replay is not None:
        settings = _own_state(settings, overrides or [])
        flags.append(f"paths.state_dir={settings.paths.state_dir}")
    strategies = {name: settings_for(config, flags, name) for name in settings.strategies}
    with failures():
        _up(settings, strategies, duration, claim)


def _up(
    settings: Settings, strategies: dict[str, Settings], duration_s: float | None, claim: bool
) -> None:
    """Run one application, or one for each strategy where there are any."""
    console = Console(highlight=False)
    if strategies:
        from trading.app.fleet import up_strategies
        from trading.app.fleet_display import FleetDisplay

        shown = FleetDisplay(console, tuple(strategies))
        up_strategies(settings, strategies, duration_s, shown, claim=claim)
    else:
        from trading.app.display import Display
        from trading.app.up import up as run

        run(settings, duration_s, Display(console))


def _at(place: int, config: Path | None, flags: list[str]) -> str | None:
    """Return the strategy at this place, None where the settings have none.

    The state's folder is the place's own: what it holds of another strategy's was moved there by
    settings in another order.
    """
    from trading.live.assembly import journal_path

    settings = settings_for(config, flags, several=True)
    names = tuple(settings.strategies)
    if not names and place == 0:
        return None
    if place >= len(names):
        misuse(
            f"--place {place}: the settings have {len(names)} strategies"
            + (f", at the places 0 to {len(names) - 1}" if names else "")
        )
    for other in names:
        journal = journal_path(settings_for(config, flags, other))
        if other != names[place] and journal.exists():
            misuse(
                f"--place {place} is {names[place]}, and {journal} is the account of {other}: "
                "strategies keep their places in the settings, and new ones come last"
            )
    return names[place]


def train(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Decisions to learn from; those before an interruption count."),
    ] = None,
    address: AddressOption = None,
) -> None:
    """Train on simulated markets and write a checkpoint that `trading up` begins with.

    Started again after it was stopped or killed, it goes on from its last checkpoint and does the
    steps that are left. Started again after it came to its end, it does as many steps more.
    """
    flags = [] if steps is None else [f"learning.pretrain_steps={steps}"]
    flags += [] if address is None else [f"ray.address={address}"]
    settings = settings_for(config, [*flags, *(overrides or [])], strategy)

    from trading.app.display import Display
    from trading.app.train import train as run

    with failures():
        run(settings, Display(Console(highlight=False)))


def _flags(
    symbols: str | None,
    replay: Path | None,
    date: str | None,
    speed: float | None,
    port: int | None,
    address: str | None,
) -> list[str]:
    """Return the command-line flags as overrides.

    A replay subscribes to the whole recorded chain.
    """
    source = "simulation" if replay is None else "replay"
    flags = []
    if replay is not None:
        flags += ["data.source=replay", f"data.replay.folder={replay}"]
        flags.append("data.max_quote_contracts=100000")
    pairs = [
        ("symbols", symbols),
        ("data.replay.date", date),
        (f"data.{source}.speed", speed),
        ("serving.port", port),
        ("ray.address", address),
    ]
    return [*flags, *(f"{key}={value}" for key, value in pairs if value is not None)]


def _own_state(settings: Settings, overrides: list[str]) -> Settings:
    """Give every replay a fresh state folder unless one was named."""
    if any(each.startswith("paths.state_dir") for each in overrides):
        return settings
    base = settings.paths.state_dir / "replay" / str(settings.data.replay.date)
    number = 1 + sum(1 for _ in base.glob("run-*"))
    paths = settings.paths.model_copy(update={"state_dir": base / f"run-{number:03d}"})
    return settings.model_copy(update={"paths": paths})
