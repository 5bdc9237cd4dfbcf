"""Reads gzip files that others made: damage, an early end and bombs are found on the way."""

import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from trading.errors import FlatFileError

_GZIP = 31  # zlib's window bits for the gzip format, whose trailer it then checks
_MAGIC = b"\x1f\x8b"
_READ_BYTES = 1 << 18
_MOST_UNFOLDED = 200
"""Quotes and bars unfold to five to twenty times their size; gzip can do a thousand."""
_FREE_BYTES = 1 << 28
"""So much is read of any file: a short one may well be very regular."""


def verify_gzip(path: Path, name: str) -> int:
    """Read a gzip file to its end and return its decompressed size in bytes.

    Raises
    ------
    FlatFileError
        A checksum or size does not hold, or the file ends early; the message calls it `name`.
    """
    size = 0
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb") as file:
        reader = GunzipReader(file, name)
        while count := reader.readinto(buffer):
            size += count
    return size


class GunzipReader(io.RawIOBase):
    """Decompresses a gzip stream of one or more members and checks each one's CRC and size.

    Parameters
    ----------
    source : binary file
        Read in pieces of 256 KiB.
    name : str
        What messages call the stream.

    Raises
    ------
    FlatFileError
        From reading: the stream is damaged, ends early, or unfolds to more than any market data.
    """

    def __init__(self, source: io.RawIOBase | BinaryIO, name: str) -> None:
        super().__init__()
        self._source = source
        self._name = name
        self._member = zlib.decompressobj(_GZIP)
        self._pending = b""
        self._read = 0
        self._unfolded = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._member.eof and not self._next_member():
                return 0
            if not self._pending and not self._fill():
                raise FlatFileError(
                    f"flat file {self._name} ends after {self._read} bytes in the middle of its "
                    "compressed data: download it again"
                )
            try:
                plain = self._member.decompress(self._pending, len(view))
            except zlib.error as error:
                begins_otherwise = not self._pending.startswith(_MAGIC)
                if self._read <= _READ_BYTES and not self._unfolded and begins_otherwise:
                    raise FlatFileError(
                        f"flat file {self._name} is no gzip file, it begins with "
                        f"{self._pending[:24]!r}: compress it with gzip, or get the file itself"
                    ) from error
                raise FlatFileError(
                    f"flat file {self._name} is damaged near byte {self._read}: {error}; "
                    "download it again"
                ) from error
            self._pending = self._member.unconsumed_tail
            if plain:
                self._unfolded += len(plain)
                self._check_size()
                view[: len(plain)] = plain
                return len(plain)

    def _check_size(self) -> None:
        if self._unfolded > max(_FREE_BYTES, _MOST_UNFOLDED * self._read):
            raise FlatFileError(
                f"flat file {self._name} unfolds to more than {_MOST_UNFOLDED} times its size "
                f"({self._unfolded:,} bytes of {self._read:,} so far), as no market data does: "
                "download it again"
            )

    def _next_member(self) -> bool:
        """Go on behind the end of a member; False at the end of the stream."""
        rest = self._member.unused_data
        while not rest.strip(b"\0"):  # gzip allows padding by zeros
            if not self._fill():
                return False
            rest = self._pending
        self._pending = rest.lstrip(b"\0")
        self._member = zlib.decompressobj(_GZIP)
        return True

    def _fill(self) -> bool:
        piece = self._source.read(_READ_BYTES) or b""
        self._pending = piece
        self._read += len(piece)
        return bool(piece)
