"""The `trading` command."""

import os
import sys
from typing import Annotated

import typer

from trading.cli.common import DEBUG_FLAG, DEBUG_VARIABLE, failures
from trading.cli.verbs import PROGRAM, Verbs

app = typer.Typer(
    cls=Verbs,
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="paper trading of US equity options.",
)


def _version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"{PROGRAM} {version(PROGRAM)}")
    except PackageNotFoundError:
        print(f"{PROGRAM}, from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def verbs(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_version, help="Which one.")
    ] = False,
) -> None:
    """Paper trading of US equity options by a policy that keeps learning."""


def main() -> None:
    """Entry point of the console script.

    `--debug`, anywhere, shows where a failure came from; without it one line says what it was.
    """
    if DEBUG_FLAG in sys.argv[1:]:
        sys.argv[1:] = [each for each in sys.argv[1:] if each != DEBUG_FLAG]
        os.environ[DEBUG_VARIABLE] = "1"
    try:
        with failures():
            app(prog_name=PROGRAM)
    except (SystemExit, typer.Exit) as ended:
        from trading.app import ray_threads

        code = ended.exit_code if isinstance(ended, typer.Exit) else ended.code
        ray_threads.leave(code if isinstance(code, int) else int(bool(code)))
        raise SystemExit(code) from None
