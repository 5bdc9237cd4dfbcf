"""Rows read straight from the pages of a damaged SQLite file.

Format: https://www.sqlite.org/fileformat2.html, sections 1.3, 1.6 and 2.1.
"""

import re
from itertools import accumulate
from pathlib import Path

from trading.execution.journal.schema import Row, beside, fault_of

_TIME_IN_PAYLOAD = re.compile(rb'"ts_ns":(\d{1,19})[,}]')

_HEADER = 100
_LEAF = 0x0D
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}

TAIL_PAGES = 2
SMALLEST_ROW = 64


def is_truncated(path: Path) -> bool:
    """Return whether the file is shorter than its header says, and no log holds later pages."""
    log = beside(path, "-wal")
    if log.exists() and log.stat().st_size:
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER)
    pages = int.from_bytes(header[28:32], "big")
    return len(header) < _HEADER or path.stat().st_size < pages * _page_size(header)


def pages_later_than(path: Path, ts_ns: int) -> int:
    """On how many pages of the main file events later than `ts_ns` can still be seen."""
    content = path.read_bytes()
    size = _page_size(content)
    return len(
        {
            match.start() // size
            for match in _TIME_IN_PAYLOAD.finditer(content)
            if int(match[1]) > ts_ns
        }
    )


def rows_on_pages(path: Path) -> dict[int, Row]:
    """Whole events on the main file's leaf pages, by number.

    They are still there when the pages that lead to them are damaged or cut off. Rows never
    change and uncommitted ones are only in the log, so each is what was written.
    """
    content = path.read_bytes()
    size = _page_size(content)
    rows = {}
    for start in range(size, len(content), size):
        page = content[start : start + size]
        if page[0] != _LEAF:
            continue
        for index in range(8, 8 + 2 * int.from_bytes(page[3:5], "big"), 2):
            row = _row_at(page, int.from_bytes(page[index : index + 2], "big"))
            if row is not None and not fault_of(row):
                rows[row[0]] = row
    return rows


def _row_at(page: bytes, at: int) -> Row | None:
    """Return the events row of the cell that begins at `at`; None where there is none.

    See https://www.sqlite.org/fileformat.html, sections 1.6 and 2.1.
    """
    try:
        _, at = _varint(page, at)
        seq, at = _varint(page, at)
        size, kinds_at = _varint(page, at)
        at += size
        kinds = []
        while kinds_at < at:
            kind, kinds_at = _varint(page, kinds_at)
            kinds.append(kind)
    except IndexError:
        return None
    if len(kinds) != 5 or kinds[0] != 0 or not {kinds[1], kinds[4]} <= _INTEGER_BYTES.keys():
        return None
    texts = ((n - 13) // 2 for n in kinds[2:4])
    ends = list(accumulate([_INTEGER_BYTES[kinds[1]], *texts, _INTEGER_BYTES[kinds[4]]]))
    number, name, payload, summed = (
        page[at + start : at + end] for start, end in zip([0, *ends], ends, strict=False)
    )
    return seq, _integer(kinds[1], number), name, payload, _integer(kinds[4], summed)


def _integer(kind: int, content: bytes) -> int:
    # Zero and one are said by the kind alone.
    return kind - 8 if kind >= 8 else int.from_bytes(content, "big", signed=True)


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """Return an integer of one to eight bytes, and where it ends; event numbers need no ninth."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | page[place] & 0x7F
        if page[place] < 0x80:
            return value, place + 1
    raise IndexError(at)


def _page_size(header: bytes) -> int:
    """See https://www.sqlite.org/fileformat.html, section 1.3.2."""
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size or 4096
