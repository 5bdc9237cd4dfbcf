"""Downloads from an S3 server on the loopback, over connections that are cut, and REST chains."""

import gzip
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from tests.data.command import run_download
from trading.data.catalog import Catalog, Kind
from trading.data.download import (
    BUCKET,
    FlatFileStore,
    download_flat_file,
    import_remote_file,
)
from trading.data.flatfile_import import FlatFileKind, Selection, flat_file_key
from trading.data.flatfiles import load_quotes
from trading.errors import AuthenticationFailed, FlatFileError, NotEntitled

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "flatfiles"
ACCESS_KEY, SECRET_KEY = "4cc3ss-key", "s3cr3t-key-that-must-stay-secret"
GOOG_DAY = date(2015, 12, 24)
DAY = date(2026, 1, 5)
OPEN_NS = 1_767_623_400_000_000_000
GOOG_OPEN_NS = 1_450_967_400_000_000_000
CHRISTMAS = date(2025, 12, 25)
QUOTES = Kind.OPTION_QUOTES
TRADES = Kind.OPTION_TRADES

TRADE_HEADER = "ticker,conditions,correction,exchange,price,sip_timestamp,size\n"
BAR_HEADER = "ticker,volume,open,close,high,low,window_start,transactions\n"


class Bucket:
    """The vendor's bucket on a server of this test's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.s3 = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
            "s3", endpoint_url=url
        )
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, kind: FlatFileKind, day: date, body: bytes) -> bytes:
        self.s3.put_object(Bucket=BUCKET, Key=flat_file_key(kind, day), Body=body)
        return body

    def deny(self, folder: str) -> None:
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/{folder}/*",
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))

    def remove(self) -> None:
        for each in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.s3.delete_object(Bucket=BUCKET, Key=each["Key"])
        self.s3.delete_bucket(Bucket=BUCKET)
        self.s3.close()


class CuttingProxy:
    """Forwards TCP to `upstream`, and cuts the n-th transfer after `cuts[n]` bytes of its reply.

    Later transfers hold, and so do requests for the first byte, by which a file is looked up.
    `ranges` lists the bytes that clients asked for.
    """

    def __init__(self, upstream: str, *cuts: int) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ranges: list[str] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._forward, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, client: socket.socket) -> None:
        """One request without a body, and as much of its reply as the cut allows."""
        client.settimeout(10.0)
        with client, socket.create_connection(self._upstream, 10.0) as server, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                piece = client.recv(1 << 16)
                if not piece:
                    return
                request += piece
            left = self._allowed(request)
            server.sendall(request)
            while left and (piece := server.recv(min(left, 1 << 16))):
                client.sendall(piece)
                left -= len(piece)

    def _allowed(self, request: bytes) -> int:
        asked = request.decode("latin-1").lower().partition("range: bytes=")[2].partition("\r")[0]
        self.ranges.append(asked)
        return self._cuts.pop(0) if self._cuts and asked != "0-0" else sys.maxsize


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url: str) -> Iterator[Bucket]:
    made = Bucket(s3_url)
    yield made
    made.remove()


@pytest.fixture
def proxies() -> Iterator[list[CuttingProxy]]:
    made: list[CuttingProxy] = []
    yield made
    for proxy in made:
        proxy.close()


@pytest.fixture
def pauses() -> list[float]:
    """The pauses between attempts, in seconds."""
    return []


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "flatfiles"


@pytest.fixture
def goog_quotes() -> bytes:
    path = SHARED / flat_file_key(QUOTES, GOOG_DAY)
    if not path.is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file {path}")
    return path.read_bytes()


def store(url: str, pauses: list[float], attempts: int = 4) -> FlatFileStore:
    return FlatFileStore(
        ACCESS_KEY, SECRET_KEY, endpoint=url, attempts=attempts, pause=pauses.append
    )


def trades(count: int) -> bytes:
    """A flat file that hardly compresses, so that there is something to cut."""
    prices = np.random.default_rng(7).uniform(1.0, 2.0, count)
    rows = (
        f"O:SPY260109C00600000,209,0,302,{price:.15f},{OPEN_NS + number},1\n"
        for number, price in enumerate(prices)
    )
    return gzip.compress((TRADE_HEADER + "".join(rows)).encode())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_real_day_is_downloaded_byte_for_byte(
    bucket: Bucket, folder: Path, pauses: list[float], goog_quotes: bytes
) -> None:
    bucket.put(QUOTES, GOOG_DAY, goog_quotes)
    seen: list[tuple[int, int]] = []
    with store(bucket.url, pauses) as s3:
        path = download_flat_file(
            s3, QUOTES, GOOG_DAY, folder, lambda done, total: seen.append((done, total))
        )
    assert path == folder / flat_file_key(QUOTES, GOOG_DAY)
    assert path.read_bytes() == goog_quotes
    assert files(folder) == ["2015-12-24.csv.gz"]
    assert seen[-1] == (len(goog_quotes), len(goog_quotes))
    assert pauses == []


def test_a_cut_download_goes_on_at_the_byte_where_it_was_cut(
    bucket: Bucket, folder: Path, pauses: list[float], proxies: list[CuttingProxy]
) -> None:
    body = bucket.put(TRADES, DAY, trades(200_000))
    proxies.append(CuttingProxy(bucket.url, 600_000, 700_000))
    with store(proxies[0].url, pauses) as s3:
        path = download_flat_file(s3, TRADES, DAY, folder)
    assert path.read_bytes() == body
    first, *rest = proxies[0].ranges
    starts = [int(each.partition("-")[0]) for each in rest]
    assert first == "0-0"
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2] < len(body)
    assert len(pauses) == 2


def test_a_later_process_goes_on_with_what_an_earlier_one_left(
    bucket: Bucket, folder: Path, pauses: list[float], proxies: list[CuttingProxy]
) -> None:
    body = bucket.put(TRADES, DAY, trades(200_000))
    proxies += [CuttingProxy(bucket.url, 900_000), CuttingProxy(bucket.url)]
    with (
        store(proxies[0].url, pauses, attempts=1) as s3,
        pytest.raises(FlatFileError, match="try again later"),
    ):
        download_flat_file(s3, TRADES, DAY, folder)
    (part,) = [path for path in folder.rglob("*") if path.is_file()]
    assert part.name.startswith("2026-01-05.csv.gz.")
    kept = part.stat().st_size
    assert 0 < kept < len(body)
    with store(proxies[1].url, pauses) as s3:
        path = download_flat_file(s3, TRADES, DAY, folder)
    assert path.read_bytes() == body
    assert proxies[1].ranges == ["0-0", f"{kept}-{len(body) - 1}"]
    assert files(folder) == ["2026-01-05.csv.gz"]


def test_a_file_that_was_replaced_is_not_glued_to_the_old_one(
    bucket: Bucket, folder: Path, pauses: list[float], proxies: list[CuttingProxy]
) -> None:
    bucket.put(TRADES, DAY, trades(200_000))
    proxies.append(CuttingProxy(bucket.url, 900_000))
    with store(proxies[0].url, pauses, attempts=1) as s3, pytest.raises(FlatFileError):
        download_flat_file(s3, TRADES, DAY, folder)
    newer = bucket.put(TRADES, DAY, trades(150_000))
    with store(bucket.url, pauses) as s3:
        assert download_flat_file(s3, TRADES, DAY, folder).read_bytes() == newer
    assert files(folder) == ["2026-01-05.csv.gz"]


def test_a_file_that_is_replaced_while_it_is_read_is_refused(
    bucket: Bucket, catalog: Catalog, pauses: list[float]
) -> None:
    bucket.put(TRADES, DAY, trades(100))
    with store(bucket.url, pauses) as s3:
        remote = s3.find(TRADES, DAY)
        bucket.put(TRADES, DAY, trades(200))
        with s3.open(remote) as reader, pytest.raises(FlatFileError, match="was replaced"):
            reader.read()


def test_a_file_that_is_there_is_not_fetched_again_until_it_changes(
    bucket: Bucket, folder: Path, pauses: list[float], proxies: list[CuttingProxy]
) -> None:
    bucket.put(TRADES, DAY, trades(100))
    proxies.append(CuttingProxy(bucket.url))
    with store(proxies[0].url, pauses) as s3:
        download_flat_file(s3, TRADES, DAY, folder)
        download_flat_file(s3, TRADES, DAY, folder)
        assert [each == "0-0" for each in proxies[0].ranges] == [True, False, True]
        newer = bucket.put(TRADES, DAY, trades(200))
        assert download_flat_file(s3, TRADES, DAY, folder).read_bytes() == newer


def test_a_corrupt_object_is_refused_and_not_kept(
    bucket: Bucket, folder: Path, pauses: list[float]
) -> None:
    body = trades(10_000)
    bucket.put(TRADES, DAY, body[:5_000] + b"\0\0\0\0" + body[5_004:])
    with store(bucket.url, pauses) as s3, pytest.raises(FlatFileError) as caught:
        download_flat_file(s3, TRADES, DAY, folder)
    assert flat_file_key(TRADES, DAY) in str(caught.value)
    assert files(folder) == []


def test_quotes_are_filtered_while_they_stream_over_cut_connections(
    bucket: Bucket,
    catalog: Catalog,
    pauses: list[float],
    proxies: list[CuttingProxy],
    goog_quotes: bytes,
) -> None:
    bucket.put(QUOTES, GOOG_DAY, goog_quotes)
    proxies.append(CuttingProxy(bucket.url, 600_000, 600_000, 600_000))
    with store(proxies[0].url, pauses) as s3:
        report = import_remote_file(s3, QUOTES, GOOG_DAY, catalog, Selection(["GOOG"]))
    assert report.rows_kept == 275_552
    expected = load_quotes(SHARED, GOOG_DAY, ["GOOG"])
    quotes = catalog.read(QUOTES, "GOOG", GOOG_DAY)
    assert quotes.symbols == expected.symbols
    assert np.array_equal(quotes["ts_ns"], expected.ts_ns)
    assert np.array_equal(quotes["ask"], expected.ask)
    assert len(pauses) == 3


def test_a_corrupt_stream_of_quotes_leaves_the_catalogue_as_it_was(
    bucket: Bucket, catalog: Catalog, pauses: list[float], goog_quotes: bytes
) -> None:
    wanted = Selection(["GOOG"])
    with store(bucket.url, pauses) as s3:
        bucket.put(QUOTES, GOOG_DAY, goog_quotes)
        import_remote_file(s3, QUOTES, GOOG_DAY, catalog, wanted)
        before = {path: path.read_bytes() for path in catalog.folder.rglob("*.parquet")}
        middle = len(goog_quotes) // 2
        bucket.put(
            QUOTES, GOOG_DAY, goog_quotes[:middle] + b"\xff" * 64 + goog_quotes[middle + 64 :]
        )
        with pytest.raises(FlatFileError, match=flat_file_key(QUOTES, GOOG_DAY)):
            import_remote_file(s3, QUOTES, GOOG_DAY, catalog, wanted)
    assert {path: path.read_bytes() for path in catalog.folder.rglob("*.parquet")} == before


def test_a_stream_that_never_comes_back_is_no_damaged_file(
    bucket: Bucket, catalog: Catalog, pauses: list[float], proxies: list[CuttingProxy]
) -> None:
    bucket.put(TRADES, DAY, trades(200_000))
    proxies.append(CuttingProxy(bucket.url, 100_000, 0, 0, 0, 0, 0, 0))
    with (
        store(proxies[0].url, pauses, attempts=4) as s3,
        pytest.raises(FlatFileError, match="4 times in a row") as caught,
    ):
        import_remote_file(s3, TRADES, DAY, catalog, Selection(["SPY"]))
    assert "damaged" not in str(caught.value)
    assert pauses == [0.5, 1.0, 2.0]
    assert catalog.partitions() == []


def test_a_holiday_is_named_with_the_key(bucket: Bucket, folder: Path, pauses: list[float]) -> None:
    with store(bucket.url, pauses) as s3:
        with pytest.raises(FlatFileError, match=r"2025-12-25\.csv\.gz.*Thursday is a holiday"):
            download_flat_file(s3, TRADES, CHRISTMAS, folder)
        with pytest.raises(FlatFileError, match=r"2026-01-05\.csv\.gz.*the morning after"):
            download_flat_file(s3, TRADES, DAY, folder)
    assert files(folder) == []
    assert pauses == []


def test_a_plan_without_the_file_is_named(
    bucket: Bucket, catalog: Catalog, folder: Path, pauses: list[float]
) -> None:
    bucket.put(QUOTES, DAY, trades(1))
    bucket.deny("us_options_opra/quotes_v1")
    with store(bucket.url, pauses) as s3:
        with pytest.raises(NotEntitled, match=r"plan .* does not include option_quotes of 2026"):
            import_remote_file(s3, QUOTES, DAY, catalog, Selection(["SPY"]))
        bucket.put(TRADES, DAY, trades(1))
        download_flat_file(s3, TRADES, DAY, folder)
    assert pauses == []


class Refusal(BaseHTTPRequestHandler):
    """Answers as S3 does to a request that it refuses, and shows the key that it was given."""

    protocol_version = "HTTP/1.1"
    status, code = 403, "InvalidAccessKeyId"

    def do_GET(self) -> None:
        key = self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        body = f"<Error><Code>{self.code}</Code><Message>key {key}</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Overload(Refusal):
    status, code = 503, "SlowDown"


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10.0)
        assert not thread.is_alive()


@pytest.mark.parametrize("service", [Refusal], indirect=True)
def test_refused_keys_are_no_matter_of_the_plan_and_are_not_shown(
    service: str, pauses: list[float]
) -> None:
    with (
        store(service, pauses) as s3,
        pytest.raises(AuthenticationFailed, match="S3_SECRET_KEY") as caught,
    ):
        s3.find(TRADES, DAY)
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


@pytest.mark.parametrize("service", [Overload], indirect=True)
def test_an_overloaded_server_is_asked_again_after_growing_pauses(
    service: str, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with store(service, pauses) as s3, pytest.raises(FlatFileError, match=r"503 \(SlowDown\)"):
        s3.find(TRADES, DAY)
    assert pauses == [0.5, 1.0, 2.0]
    assert "SlowDown" in caplog.text
    assert ACCESS_KEY not in caplog.text


def test_a_profile_of_the_environment_is_not_used(
    bucket: Bucket, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(TRADES, DAY, trades(1))
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with store(bucket.url, pauses) as s3:
        assert s3.find(TRADES, DAY).size > 0


def test_empty_keys_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(AuthenticationFailed, match="S3_ACCESS_KEY"):
        FlatFileStore(" ", SECRET_KEY)


def test_a_file_that_another_process_downloads_is_left_to_it(
    bucket: Bucket, folder: Path, pauses: list[float]
) -> None:
    bucket.put(TRADES, DAY, trades(100))
    with store(bucket.url, pauses) as s3, store(bucket.url, pauses) as other:

        def begin_another(done: int, total: int) -> None:
            with pytest.raises(FlatFileError, match="another process"):
                download_flat_file(other, TRADES, DAY, folder)

        download_flat_file(s3, TRADES, DAY, folder, begin_another)
    assert files(folder) == ["2026-01-05.csv.gz"]


def compressed(text: str) -> bytes:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wt") as file:
        file.write(text)
    return buffer.getvalue()


def test_the_command_fetches_bars_and_trades_and_quotes_only_when_asked(
    bucket: Bucket, catalog: Catalog, folder: Path, goog_quotes: bytes
) -> None:
    stock_bars = (SHARED / flat_file_key(Kind.STOCK_BARS, GOOG_DAY)).read_bytes()
    contract = "O:GOOG151224C00590000"
    bucket.put(Kind.STOCK_BARS, GOOG_DAY, stock_bars)
    bucket.put(
        Kind.OPTION_BARS,
        GOOG_DAY,
        compressed(f"{BAR_HEADER}{contract},1,2,2,2,2,{GOOG_OPEN_NS},1\n"),
    )
    bucket.put(
        TRADES, GOOG_DAY, compressed(f"{TRADE_HEADER}{contract},209,0,302,2,{GOOG_OPEN_NS},1\n")
    )
    bucket.put(QUOTES, GOOG_DAY, goog_quotes)
    arguments = [
        *("--date", "2015-12-24", "--symbols", "GOOG", "--endpoint", bucket.url),
        *("--folder", str(folder), "--catalog", str(catalog.folder)),
    ]
    keys = {"S3_ACCESS_KEY": ACCESS_KEY, "S3_SECRET_KEY": SECRET_KEY}
    result = run_download(*arguments, **keys)
    assert result.returncode == 0, result.stderr
    kinds = [Kind.OPTION_BARS, TRADES, Kind.STOCK_BARS]
    assert [each.kind for each in catalog.partitions()] == kinds
    assert len(catalog.read(Kind.STOCK_BARS, "GOOG", GOOG_DAY)) == 227
    wanted = folder / "contracts.txt"
    wanted.write_text(f"{contract}\n")
    result = run_download(*arguments, "--quotes", "--contracts", str(wanted), **keys)
    assert result.returncode == 0, result.stderr
    assert catalog.read(QUOTES, "GOOG", GOOG_DAY).symbols == [contract]
    assert not (folder / flat_file_key(QUOTES, GOOG_DAY)).exists()
    assert SECRET_KEY not in result.stdout + result.stderr


def test_the_command_says_in_one_line_why_it_cannot_start() -> None:
    unset = run_download("--date", "2026-01-05")
    assert unset.returncode == 2
    assert unset.stderr.startswith("trading: S3_ACCESS_KEY is not set")
    keys = {"S3_ACCESS_KEY": ACCESS_KEY, "S3_SECRET_KEY": SECRET_KEY}
    holiday = run_download("--date", "2025-12-25", **keys)
    assert holiday.returncode == 1
    assert "no session from 2025-12-25" in holiday.stderr
    nothing = run_download()
    assert nothing.returncode == 2
    assert "--date" in nothing.stderr
