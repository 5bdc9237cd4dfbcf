"""Runs commands in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.waits import WAIT_S

ROOT = Path(__file__).parents[2]


def trading(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command gives."""
    return subprocess.run(
        [sys.executable, "-m", "trading", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def run_download(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command gives, with no credentials but those in `environment`."""
    program = "import typer; from trading.cli.data import download; typer.run(download)"
    secret = ("S3_ACCESS_KEY", "S3_SECRET_KEY", "MASSIVE_API_KEY")
    inherited = {name: value for name, value in os.environ.items() if name not in secret}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
