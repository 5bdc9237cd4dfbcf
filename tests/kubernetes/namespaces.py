"""Namespaces of these tests' own, that go away also where a run could not end in order."""

import datetime as dt
import json
import os
import secrets
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.kubernetes.bot import kubectl

PREFIX = "bot-test-"
OWNER = "trading-bot/tested-by"
"""Annotation: host and process of the run, as in `host/1234`."""
UNTIL = "trading-bot/tested-until"
"""Annotation: ISO 8601; no run takes longer."""
_LONGEST = dt.timedelta(hours=6)
_RAY_KINDS = ("rayservices.ray.io", "rayjobs.ray.io", "rayclusters.ray.io")
_NO_FINALIZERS = '{"metadata": {"finalizers": []}}'


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace whose name contains `name`; it is deleted in the end, also by SIGTERM.

    With KEEP=1 it stays, and is nobody's any more.
    """
    chosen = f"{PREFIX}{name}-{secrets.token_hex(2)}"
    until = dt.datetime.now(dt.UTC) + _LONGEST
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        kubectl("create", "namespace", chosen)
        kubectl(
            *("annotate", "namespace", chosen, f"{OWNER}={socket.gethostname()}/{os.getpid()}"),
            f"{UNTIL}={until.isoformat()}",
        )
        yield chosen
    finally:
        if os.environ.get("KEEP") == "1":
            kubectl("annotate", "namespace", chosen, f"{OWNER}-", f"{UNTIL}-", check=False)
        else:
            _delete([chosen])
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt("told to end: the namespace is deleted first")


def delete_abandoned() -> list[str]:
    """Delete the namespaces of runs that were killed; their names."""
    all_of_them = json.loads(kubectl("get", "namespaces", "-o", "json"))["items"]
    names = abandoned(all_of_them, dt.datetime.now(dt.UTC))
    _delete(names)
    return names


def _delete(names: list[str]) -> None:
    """Delete namespaces with all that is in them.

    Clusters of Ray go before: KubeRay clears their Redis by a job, which a namespace that is about
    to end takes no more, and it would wait for that for ever. Where Redis is gone already nothing
    is to be cleared.
    """
    known = [kind for kind in _RAY_KINDS if kubectl("get", "crd", kind, "--ignore-not-found")]
    for name in names:
        for kind in known:
            here = ("-n", name)
            kubectl(*here, "delete", kind, "--all", "--timeout=300s", check=False)
            for left in kubectl(*here, "get", kind, "-o", "name", check=False).split():
                kubectl(*here, "patch", left, "--type=merge", "-p", _NO_FINALIZERS, check=False)
        kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=600s")


def abandoned(namespaces: Iterable[dict[str, Any]], now: dt.datetime) -> list[str]:
    """Names of those whose run is over: its process on this host is gone, or its time is up."""
    found = []
    for each in namespaces:
        notes = each["metadata"].get("annotations", {})
        if OWNER not in notes or UNTIL not in notes:
            continue
        host, _, process = notes[OWNER].rpartition("/")
        is_gone = host == socket.gethostname() and not Path("/proc", process).exists()
        if is_gone or dt.datetime.fromisoformat(notes[UNTIL]) < now:
            found.append(each["metadata"]["name"])
    return found
