"""Fetches the vendor's flat files by S3.

A file of moderate size is downloaded, verified and kept. A day of option quotes is far too large
for that: it is decompressed and filtered while it streams, and only its wanted rows are kept.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from boto3.session import Session  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.session import Session as BotocoreSession  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from trading.closing import Closing
from trading.data.catalog import Catalog
from trading.data.flatfile_import import (
    FlatFileKind,
    ImportReport,
    Selection,
    flat_file_key,
    import_stream,
)
from trading.data.gunzip import verify_gzip
from trading.data.massive.urls import check_url, is_loopback
from trading.errors import AuthenticationFailed, FlatFileError, NotEntitled
from trading.files import FileLock, LockHeld, replace
from trading.logs import get_logger
from trading.market.calendar import ExchangeCalendar
from trading.progress import ProgressCallback

ENDPOINT = "https://files.massive.com"
BUCKET = "flatfiles"

_PIECE_BYTES = 1 << 18  # what a cut loses at most
_LONGEST_PAUSE_S = 60.0
_BROKEN = (BotoCoreError, HTTPError, OSError)
_REFUSED_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
# Profiles and files of another S3 account on this machine have no say here.
_NO_OTHER_SETTINGS = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A flat file as the server has it: `version` changes when the vendor replaces the file."""

    kind: FlatFileKind
    day: date
    key: str
    size: int
    version: str
    modified_s: int


class FlatFileStore(Closing):
    """The vendor's flat files behind an S3 endpoint.

    Broken connections, overload (429, 503) and passing failures (5xx) are tried again after a
    pause that doubles; a read goes on at the byte where it broke. `attempts` in a row without a
    byte end it.

    Parameters
    ----------
    access_key, secret_key : str
        The keys of the flat files. They are sent as a signature only, and are in no message.
    endpoint : str
        Scheme and host.
    timeout_s : float
        Time to connect, and for each read.
    attempts : int
        How often in a row a request is tried.
    pause : callable
        Waits for so many seconds.

    Raises
    ------
    AuthenticationFailed
        The server refused the keys, or one is empty.
    NotEntitled
        The keys' plan does not include the file.
    FlatFileError
        The file does not exist, was replaced meanwhile, or cannot be reached.
    """

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        *,
        endpoint: str = ENDPOINT,
        bucket: str = BUCKET,
        timeout_s: float = 30.0,
        attempts: int = 6,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not access_key.strip() or not secret_key.strip():
            raise AuthenticationFailed(
                "the flat files need S3 keys: set S3_ACCESS_KEY and S3_SECRET_KEY"
            )
        self._endpoint = check_url(endpoint, ("http", "https"))
        self._bucket = bucket
        self._attempts = attempts
        self._pause = pause
        self._secrets = (access_key.strip(), secret_key.strip())
        session = Session(
            *self._secrets,
            region_name="us-east-1",
            botocore_session=BotocoreSession(session_vars=_NO_OTHER_SETTINGS),
        )
        self._s3 = session.client(
            "s3",
            endpoint_url=self._endpoint,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},  # tried again here, where progress is known
                connect_timeout=timeout_s,
                read_timeout=timeout_s,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={} if is_loopback(self._endpoint) else None,
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._s3.close()

    def find(self, kind: FlatFileKind, day: date) -> RemoteFile:
        """Look a file up; asking for its first byte tells more about a refusal than HEAD does."""
        key = flat_file_key(kind, day)
        failures = 0
        while True:
            try:
                reply = self._s3.get_object(Bucket=self._bucket, Key=key, Range="bytes=0-0")
                reply["Body"].close()
            except (ClientError, *_BROKEN) as error:
                failures += 1
                self._wait_or_raise(error, kind, day, failures)
            else:
                whole = reply.get("ContentRange", "").rpartition("/")[2]
                return RemoteFile(
                    kind=kind,
                    day=day,
                    key=key,
                    size=int(whole or reply["ContentLength"]),
                    version="".join(each for each in reply["ETag"] if each.isalnum()),
                    modified_s=int(reply["LastModified"].timestamp()),
                )

    def open(
        self, file: RemoteFile, offset: int = 0, progress: ProgressCallback | None = None
    ) -> RemoteReader:
        """Read a file from a byte on."""
        return RemoteReader(self, file, offset, progress)

    def body(self, file: RemoteFile, offset: int) -> Any:
        """Return the rest of a file from a byte on, as long as the connection holds."""
        reply = self._s3.get_object(
            Bucket=self._bucket, Key=file.key, Range=f"bytes={offset}-{file.size - 1}"
        )
        version = "".join(each for each in reply["ETag"] if each.isalnum())
        whole = reply.get("ContentRange", "").rpartition("/")[2] or reply["ContentLength"]
        if version != file.version or int(whole) != file.size:
            reply["Body"].close()
            raise FlatFileError(
                f"flat file {file.key} was replaced on the server while it was read: start again"
            )
        if offset and reply["ResponseMetadata"]["HTTPStatusCode"] != 206:
            reply["Body"].close()
            raise FlatFileError(
                f"flat file {file.key}: the server at {self._endpoint} cannot resume; "
                "remove the partial file and start again"
            )
        return reply["Body"]

    def _wait_or_raise(
        self, error: Exception, kind: FlatFileKind, day: date, failures: int
    ) -> None:
        """Pause before the next attempt, or raise what the failure means."""
        key = flat_file_key(kind, day)
        if isinstance(error, ClientError):
            reason = self._refusal(error, kind, day)
        else:
            reason = f"{type(error).__name__}: {self._shown(str(error))}"
        if failures >= self._attempts:
            raise FlatFileError(
                f"flat file {key} cannot be read from {self._endpoint}: {reason}, "
                f"{failures} times in a row; what was downloaded is kept, so try again later"
            ) from None
        pause_s = min(0.5 * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
        log.warning("download failed", file=key, reason=reason, next_attempt_s=pause_s)
        self._pause(pause_s)

    def _refusal(self, error: ClientError, kind: FlatFileKind, day: date) -> str:
        """Why a request that may pass later failed; raises for any other."""
        key = flat_file_key(kind, day)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = self._shown(str(error.response.get("Error", {}).get("Code", status)))
        if status == 401 or code in _REFUSED_KEYS:
            raise AuthenticationFailed(
                f"{key}: the server refused the S3 keys ({code}): "
                "check S3_ACCESS_KEY and S3_SECRET_KEY"
            ) from None
        if code == "RequestTimeTooSkewed":
            raise FlatFileError(f"{key}: this machine's clock is wrong ({code}): set it") from None
        if status == 403:
            raise NotEntitled(
                f"{key}: the plan of these S3 keys does not include {kind} of {day} ({code}): "
                "choose another kind or date, or another plan"
            ) from None
        if code == "NoSuchBucket":
            raise FlatFileError(f"{self._endpoint} has no bucket {self._bucket!r}") from None
        if status == 404:
            raise FlatFileError(
                f"flat file {key} of {day} does not exist: {_why_absent(day)}"
            ) from None
        if status == 416:
            raise FlatFileError(
                f"flat file {key} is empty, or shrank while it was read: start again"
            ) from None
        if status != 429 and status < 500:
            raise FlatFileError(f"flat file {key}: HTTP {status} ({code})") from None
        return f"HTTP {status} ({code})"

    def _shown(self, text: str) -> str:
        """`text` on one line and without the keys."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:200]


class RemoteReader(io.RawIOBase):
    """Reads a remote file to its end, over as many connections as that takes."""

    def __init__(
        self, store: FlatFileStore, file: RemoteFile, offset: int, progress: ProgressCallback | None
    ) -> None:
        super().__init__()
        self._position = offset
        self._store = store
        self._file = file
        self._progress = progress
        self._body: Any = None
        self._failures = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = _PIECE_BYTES, /) -> bytes:
        """Up to `size` bytes; none at the end of the file."""
        while self._position < self._file.size:
            try:
                if self._body is None:
                    self._body = self._store.body(self._file, self._position)
                piece: bytes = self._body.read(size)
                if not piece:
                    raise ConnectionError("the connection ended before the file did")
            except (ClientError, *_BROKEN) as error:
                self._drop()
                self._failures += 1
                self._store._wait_or_raise(error, self._file.kind, self._file.day, self._failures)
            else:
                self._failures = 0
                self._position += len(piece)
                if self._progress is not None:
                    self._progress(self._position, self._file.size)
                return piece
        return b""

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def download_flat_file(
    store: FlatFileStore,
    kind: FlatFileKind,
    day: date,
    folder: Path,
    progress: ProgressCallback | None = None,
) -> Path:
    """Download a day's file to its place below `folder`, and return that path.

    What an earlier call began is gone on with, unless the vendor has replaced the file since. The
    file gets its name only when its size and its checksums hold; one that is there already with
    the size and time of the server's is not fetched again.

    Raises
    ------
    FlatFileError
        As `FlatFileStore` says; or the downloaded file is damaged, or another process is
        downloading it.
    """
    remote = store.find(kind, day)
    final = folder / remote.key
    if final.is_file() and _size_and_time(final) == (remote.size, remote.modified_s):
        if progress is not None:
            progress(remote.size, remote.size)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.{remote.version}.part")
    with _locked(part), part.open("ab") as file:
        _fetch(store, remote, file, progress)
        try:
            verify_gzip(part, remote.key)
        except FlatFileError:
            part.unlink()
            raise
        os.utime(part, (remote.modified_s, remote.modified_s))
        replace(part, final)
    for stale in final.parent.glob(f"{final.name}.*.part"):
        stale.unlink()
    return final


def import_remote_file(
    store: FlatFileStore,
    kind: FlatFileKind,
    day: date,
    catalog: Catalog,
    selection: Selection,
    progress: ProgressCallback | None = None,
) -> ImportReport:
    """Filter a day's file into the catalogue while it streams; nothing else is kept.

    A cut connection is resumed. A process that ends has to begin anew, since gzip cannot be
    decompressed from the middle.
    """
    remote = store.find(kind, day)
    with store.open(remote, progress=progress) as reader:
        return import_stream(catalog, reader, remote.key, kind, day, selection)


def _locked(part: Path) -> FileLock:
    """Have a partial file for this process alone."""
    try:
        return FileLock(part)
    except LockHeld as held:
        raise FlatFileError(
            f"flat file {part} is being downloaded by another process ({held.holder}): wait for it"
        ) from None


def _fetch(
    store: FlatFileStore, remote: RemoteFile, file: BinaryIO, progress: ProgressCallback | None
) -> None:
    """Append what is missing of `remote`."""
    offset = os.fstat(file.fileno()).st_size
    with store.open(remote, offset, progress) as reader:
        while piece := reader.read(_PIECE_BYTES):
            file.write(piece)
    file.flush()
    size = os.fstat(file.fileno()).st_size
    if size != remote.size:
        raise FlatFileError(
            f"flat file {remote.key} has {remote.size} bytes on the server and {size} in "
            f"{file.name}: remove that and start again"
        )


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, int(stat.st_mtime)


def _why_absent(day: date) -> str:
    if ExchangeCalendar().session_on(day) is None:
        return f"that {day:%A} is a holiday or weekend without a session"
    return "a session's file appears the morning after, and plans reach back only so far"
