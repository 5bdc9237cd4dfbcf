"""What was seen on a cluster, as a page."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.kubernetes.bot import kubectl


class _Line(NamedTuple):
    form: str
    asked: str
    seen: str


class Report:
    """Lines of what was asked and seen, written to a file after each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: list[_Line] = []
        self._cluster = _cluster()

    def add(self, form: str, asked: str, seen: str) -> None:
        self._lines.append(_Line(form, asked, seen))
        began = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"
        rows = "\n".join(f"| {form} | {asked} | {seen} |" for form, asked, seen in self._lines)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(
            f"# The bot on a cluster, {began}\n\n{self._cluster}\n\n"
            f"| form | asked | seen |\n|---|---|---|\n{rows}\n"
        )

    @contextmanager
    def timed(self, form: str, asked: str) -> Iterator[list[str]]:
        """Adds a line with the seconds that the block took, and what it appended."""
        began, more = time.monotonic(), list[str]()
        yield more
        self.add(form, asked, "; ".join([f"{time.monotonic() - began:.0f} s", *more]))


def _cluster() -> str:
    version = json.loads(kubectl("version", "-o", "json")).get("serverVersion", {})
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    sizes = ", ".join(
        f"{node['status']['allocatable']['cpu']} CPUs and {node['status']['allocatable']['memory']}"
        for node in nodes
    )
    return f"Kubernetes {version.get('gitVersion', 'unknown')}, {len(nodes)} nodes: {sizes}."
