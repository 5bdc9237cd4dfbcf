"""`trading doctor`: whether this machine can run it, and what to do where not."""

import json
from typing import Annotated

import typer

from trading.cli.common import ConfigOption, SetOption, settings_for


def doctor(
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Look at Python, cores, memory, disks, port, clock, Ray, GPU, compiler, and the API key.

    Exit code 1 where something keeps it from running.
    """
    settings = settings_for(config, overrides or [], several=True)

    from trading.app.doctor import examine

    failed = False
    for finding in examine(settings):
        failed = failed or finding.level == "fail"
        if as_json:
            print(json.dumps(finding._asdict()), flush=True)
            continue
        print(f"{finding.level:4}  {finding.name:13}  {finding.says}", flush=True)
        if finding.do:
            print(f"      {'':13}  {finding.do}", flush=True)
    if failed:
        raise typer.Exit(1)
