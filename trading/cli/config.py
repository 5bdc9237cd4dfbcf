"""`trading config`: the settings as they are, and what each one means."""

import json
import textwrap
from typing import Annotated

import typer
import yaml

from trading.cli.common import ConfigOption, JsonOption, SetOption, misuse, settings_for

_WIDTH = 78

config_app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    help="Check the settings and print them all; secrets stay hidden.",
)


@config_app.callback()
def show(
    context: typer.Context,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the settings and print them all; secrets stay hidden."""
    if context.invoked_subcommand:
        return
    settings = settings_for(config, overrides or [], several=True)
    told = settings.model_dump(mode="json")
    print(json.dumps(told) if as_json else yaml.safe_dump(told, sort_keys=False).rstrip("\n"))


@config_app.command()
def reference(
    part: Annotated[
        str, typer.Argument(help="Only keys that contain this, as in risk or bar_seconds.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain every setting: unit, what is allowed, default, environment variable."""
    from trading.config.reference import explain_settings
    from trading.config.tree import suggestion

    sections = explain_settings().values()
    found = [each for _, settings in sections for each in settings if part in each.key]
    if not found:
        misuse(f"no setting's key contains {part!r}: {suggestion(part)}")
    if as_json:
        print(json.dumps([each._asdict() for each in found]))
        return
    for each in found:
        unit = "" if each.unit == "-" else f" {each.unit}"
        variable = "" if each.environment == "-" else f" ({each.environment})"
        print(f"{each.key} = {each.default}{unit}{variable}")
        told = f"{each.about} Allowed: {each.allowed}."
        print(textwrap.indent(textwrap.fill(told, _WIDTH - 4), "    "))
