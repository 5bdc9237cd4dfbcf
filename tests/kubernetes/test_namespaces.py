"""Which namespaces of earlier runs are left to be deleted; no cluster is asked."""

import datetime as dt
import os
import socket
import subprocess
import sys

from tests.kubernetes.namespaces import OWNER, UNTIL, abandoned

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
LATER, EARLIER = NOW + dt.timedelta(hours=1), NOW - dt.timedelta(hours=1)


def of(name: str, host: str, process: int, until: dt.datetime) -> dict[str, object]:
    notes = {OWNER: f"{host}/{process}", UNTIL: until.isoformat()}
    return {"metadata": {"name": name, "annotations": notes}}


def test_those_of_killed_runs_are_deleted_and_nobody_elses() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    namespaces = [
        of("killed", here, ended.pid, LATER),
        of("runs", here, os.getpid(), LATER),
        of("runs-elsewhere", f"not-{here}", ended.pid, LATER),
        of("forgotten-elsewhere", f"not-{here}", ended.pid, EARLIER),
        {"metadata": {"name": "trading-bot", "annotations": {"a": "b"}}},
        {"metadata": {"name": "default"}},
    ]
    assert abandoned(namespaces, NOW) == ["killed", "forgotten-elsewhere"]
