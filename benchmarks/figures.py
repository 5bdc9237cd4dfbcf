"""What a benchmark has measured: a table on the terminal, and data for the page of all of them."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

Cell = float | str | None
"""A number is shown by its column's format, a text as it is, None as nothing."""


@dataclass
class Figures:
    """A table: a name for each row, and a number for each column."""

    head: str
    """What the rows are."""
    columns: dict[str, str]
    """By its head: how a number of it is shown, as `str.format` takes it."""
    rows: list[list[Cell]] = field(default_factory=list)
    """Each with its name before the numbers."""
    title: str = ""
    note: str = ""
    """What stands below it."""

    def add(self, name: str, *cells: Cell) -> None:
        """Take a row."""
        assert len(cells) == len(self.columns), name
        self.rows.append([name, *cells])

    def column(self, head: str) -> list[Cell]:
        """Return what the rows have in a column."""
        place = 1 + list(self.columns).index(head)
        return [row[place] for row in self.rows]

    def shown(self) -> list[list[str]]:
        """Return the rows as texts."""
        formats = ["{}", *self.columns.values()]
        return [
            [shown(cell, how) for cell, how in zip(row, formats, strict=True)] for row in self.rows
        ]

    def table(self) -> Table:
        """Return the table of a terminal."""
        table = Table(self.head, title=self.title or None)
        table.columns[0].no_wrap = True
        for head in self.columns:
            table.add_column(head, justify="right")
        for row in self.shown():
            table.add_row(*row)
        return table


def shown(cell: Cell, how: str) -> str:
    """Return a cell as a text."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else how.format(cell)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that all benchmarks share."""
    parser.add_argument("--json", type=Path, help="file that the figures are written to as data")


def publish(
    options: argparse.Namespace,
    figures: Sequence[Figures],
    left_out: Mapping[str, str] | None = None,
    width: int = 120,
) -> None:
    """Print the tables, name what is left out with the reason, and write the file of `--json`."""
    console, left_out = Console(width=width), dict(left_out or {})
    for each in figures:
        console.print(each.table())
        if each.note:
            console.print(each.note)
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, why in left_out.items() if why == reason]
        console.print(f"Left out, as {reason}: {'; '.join(names)}.")
    if options.json is not None:
        told = {"figures": [asdict(each) for each in figures], "left_out": left_out}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
