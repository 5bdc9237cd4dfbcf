"""Command lines that the pages of the project show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    [
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "infra").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_RUNS = re.compile(r"^(?:\w+=\S* )*(?:exec )?(?:\S*/)?(?:python -m )?trading ")


class Line(NamedTuple):
    """A command line that a page shows, without the program's name."""

    page: Path
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: trading {' '.join(self.words)}"


def _blocks(text: str) -> list[str]:
    """Blocks of code of a page, each line whole."""
    rest = FENCE.sub("", text)
    blocks = [*FENCE.findall(text), *re.findall(r"^(?:    .*\n)+", rest, re.MULTILINE)]
    return [block.replace("\\\n", " ") for block in blocks]


def _of_this_program(line: str) -> list[str] | None:
    told = re.split(r"\s(?:--|\S*exec) (?=\S*trading |python )", line.strip())[-1]
    found = _RUNS.match(told)
    if not found:
        return None
    words = shlex.split(told[found.end() :], comments=True)
    ends = [k for k, word in enumerate(words) if word in ("|", ">", "&&", "&")]
    return words[: ends[0] if ends else None]


def lines_of(page: Path) -> Iterator[Line]:
    """Every command line of this program in a page's blocks and spans of code."""
    text = page.read_text()
    for block in _blocks(text):
        for line in block.splitlines():
            if (words := _of_this_program(line)) is not None:
                yield Line(page, words)
    for span in re.findall(r"`(?:python -m )?trading ([^`]+)`", FENCE.sub("", text)):
        words = span.replace("\\|", "|").split()
        first = next((k for k, word in enumerate(words) if "|" in word), len(words))
        for choice in " ".join(words[first:]).split("|"):
            yield Line(page, [*words[:first], *shlex.split(choice)])


def others_of(page: Path) -> Iterator[str]:
    """Lines of a page's shell blocks that call another program."""
    for block in _blocks(page.read_text()):
        if not block.lstrip().startswith("```sh"):
            continue
        for line in block.splitlines()[1:-1]:
            told = re.sub(r"\s+#.*", "", line).strip()
            if told and not told.startswith("#") and _of_this_program(line) is None:
                yield told


LINES = [line for page in TEXTS for line in lines_of(page)]
OTHERS = sorted({line for page in TEXTS for line in others_of(page)})
