"""`trading config`: the settings as they are, and what each one means."""

import json

import typer
import yaml

from trading.command_line import ConfigOption, JsonOption, SetOption, settings_for

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
