"""What the page is told, edition by edition, without a browser and without Ray."""

import asyncio
import gzip
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.exceptions import TaskCancelledError

from tests.execution.scene import new_broker
from tests.serving.described import ask_all
from trading.errors import TradingError
from trading.execution.events import Event
from trading.live.status_updates import StatusUpdate, as_json
from trading.serving import page_stream
from trading.serving.app import build_api
from trading.serving.live_market import NamedActor
from trading.serving.page_routes import EventStream
from trading.serving.page_stream import (
    PageInput,
    PageStream,
    Viewers,
    account_edition,
    compressed,
    merge_patch,
)

LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
JSON = st.recursive(
    LEAVES | st.lists(LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = applied(result.get(name), value)
    return result


def bare(value: Any) -> Any:
    """Without what is null."""
    if not isinstance(value, dict):
        return value
    return {name: bare(each) for name, each in value.items() if each is not None}


@patient
@given(OBJECTS, OBJECTS)
def test_a_patch_leads_from_one_edition_to_the_next(before: Any, after: Any) -> None:
    assert bare(applied(bare(before), merge_patch(before, after))) == bare(after)


@patient
@given(OBJECTS)
def test_nothing_changed_is_an_empty_patch(content: Any) -> None:
    assert merge_patch(content, content) == {}


def update(number: int, day: dict[str, Any], **status: Any) -> StatusUpdate:
    told = {"process": 7, **status}
    return StatusUpdate(number, True, (), as_json(told), b"", as_json(day), "")


class Desk:
    """Tells what it is given, in turn, and the last of it again."""

    def __init__(self, *editions: StatusUpdate | str) -> None:
        self.editions = list(editions)

    async def tell(self) -> PageInput:
        first = self.editions.pop(0) if len(self.editions) > 1 else self.editions[0]
        if isinstance(first, str):
            raise TradingError(first)
        return PageInput(first)


def events(
    desk: Desk, count: int, last_id: str = "", stream: PageStream | None = None
) -> list[Any]:
    """The first events: kind, id and content."""

    async def read() -> list[Any]:
        found = []
        made = stream or PageStream(desk.tell, account_edition, Viewers())
        async for text in made.events(last_id):
            fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n"))
            if "event" in fields:
                content = msgspec.json.decode(fields["data"])
                found.append((fields["event"], fields.get("id", ""), content))
            if len(found) == count:
                break
        return found

    return asyncio.run(read())


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stream, "PAUSE_S", 0.0)


def test_a_viewer_is_told_the_whole_and_then_what_changed() -> None:
    desk = Desk(
        update(1, {"bars": {"1": [60, 5.0]}}, account={"equity": 5.0, "id": "paper"}),
        update(
            2, {"bars": {"1": [60, 5.0], "2": [120, 6.0]}}, account={"equity": 6.0, "id": "paper"}
        ),
    )
    (whole, first, content), (change, second, patch) = events(desk, 2)
    assert (whole, change) == ("whole", "change") and first != second
    assert content["status"]["account"]["id"] == "paper"
    assert patch == {"status": {"account": {"equity": 6.0}}, "day": {"bars": {"2": [120, 6.0]}}}


def test_a_viewer_goes_on_from_the_edition_that_it_has() -> None:
    desk = Desk(update(1, {}, a=1))
    stream = PageStream(desk.tell, account_edition, Viewers())
    ((_, known, _),) = events(desk, 1, stream=stream)
    desk.editions = [update(2, {}, a=2)]
    ((kind, _, patch),) = events(desk, 1, known, stream)
    assert (kind, patch) == ("change", {"status": {"a": 2}})
    ((kind, _, content),) = events(desk, 1, "of another process", stream)
    assert kind == "whole" and content["status"]["a"] == 2


def test_no_update_is_told_with_its_reason_and_updates_again() -> None:
    desk = Desk(update(1, {}, a=1), "the actor is dead", update(1, {}, a=1))
    kinds = [(kind, content) for kind, _, content in events(desk, 3)]
    assert kinds[1:] == [("gone", {"reason": "the actor is dead"}), ("change", {})]


def test_counters_of_the_feed_alone_wait_for_the_beat() -> None:
    first = update(1, {}, feed={"quotes": 1}, a=1)
    counted = [update(n, {}, feed={"quotes": n}, a=1) for n in range(2, 6)]
    desk = Desk(first, *counted, update(9, {}, feed={"quotes": 9}, a=2))
    assert events(desk, 2)[1][2] == {"status": {"feed": {"quotes": 9}, "a": 2}}


def test_squeezed_events_come_one_by_one() -> None:
    async def read() -> None:
        async def told() -> AsyncIterator[bytes]:
            for n in range(3):
                yield b"data: %d\n\n" % n * 50

        opened = zlib.decompressobj(wbits=31)
        count = 0
        async for part in compressed(told()):
            if content := opened.decompress(part):
                assert content == b"data: %d\n\n" % count * 50
                count += 1
        assert count == 3 and opened.eof

    asyncio.run(read())


def test_an_answer_ends_before_serve_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stream, "STREAM_S", 0.0)
    desk = Desk(update(1, {}))
    stream = PageStream(desk.tell, account_edition, Viewers())
    assert events(desk, 1, stream=stream) == []
    assert stream.viewers.count == 0


def test_a_day_of_bars_is_small() -> None:
    """A day with the page's files is below 300 kB, all that is ever kept below 100 as sent."""
    from trading.live import recent_activity as kept
    from trading.serving.page_routes import _page_files

    day = {
        "bars": {str(n): [1767623400 + 60 * n, 100_000.0 + n / 7] for n in range(390)},
        "fills": {
            str(n): {
                "t": 1767623400,
                "order": f"paper-{n}",
                "underlying": "SPY",
                "strategy": "iron_condor_far_d30_15",
                "opens": True,
                "units": 4,
                "premium": 123.45,
                "fees": 6.78,
                "legs": [["O:SPY260206P00097500", 4, 1.94]] * 3,
            }
            for n in range(kept.MOST_FILLS)
        },
        "decisions": {
            str(n): {
                "t": 1767623400,
                "underlying": "SPY",
                "action": 7,
                "value": 0.0123,
                "chance": 0.0271,
                "best": [[k, 0.0271] for k in range(5)],
                "allowed": list(range(37)),
                "weights": 40,
            }
            for n in range(kept.MOST_DECISIONS)
        },
    }
    files = [each for name, each in _page_files().items() if not name.endswith(".txt")]
    assert sum(len(each.content) for each in files) + len(as_json(day)) < 300_000
    day["sessions"] = {f"{n}": [1767623400 + n, 1e5 + n / 7] for n in range(kept.MOST_SESSIONS)}
    day["learning"] = {str(n): {"updates": n, "kl": n / 7} for n in range(kept.MOST_UPDATES)}
    day["notes"] = {str(n): {"t": n, "said": f"{n} of it. " * 20} for n in range(kept.MOST_NOTES)}
    whole = as_json({"status": {}, "day": day})
    assert len(whole) < 300_000
    sent = sum(len(each.compressed) for each in files) + len(gzip.compress(whole))
    assert sent < 100_000


def test_the_journal_can_be_searched_by_every_kind_of_event() -> None:
    from trading.serving.page_routes import _page_files

    source = _page_files()["journal.js"].content.decode()
    offered = re.findall(r'"(\w+)"', source.partition("const KINDS = [")[2].partition("]")[0])
    assert sorted(offered) == sorted(kind.__struct_config__.tag for kind in get_args(Event))


class Quiet(NamedActor):
    """A live market whose journal is there, and whose chains are of one underlying."""

    def __init__(self, journal: str) -> None:
        super().__init__("live-market", "")
        self.told = update(1, {}, market={"time": "now"})._replace(journal=journal)

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        if method == "chains":
            return {"SPY": b"{}"}
        await asyncio.sleep(0.1)
        self.told = self.told._replace(number=self.told.number + 1)
        return self.told


def test_the_pages_questions_are_answered_as_described(tmp_path: Path) -> None:
    broker = new_broker(tmp_path)
    app = build_api("live-market", "", market=Quiet(str(broker.journal.path)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked = schema.include(path_regex="^/(journal|chain)")
    statuses = ask_all(asked, {}, 20)
    assert statuses and set(statuses) <= {200, 404, 422}
    broker.journal.close()


def test_a_reader_that_goes_ends_its_stream_without_an_error() -> None:
    """Serve says so by an exception; the stream is closed, so that the reader counts no more."""
    desk = Desk(update(1, {}))
    stream = PageStream(desk.tell, account_edition, Viewers())
    sent: list[Any] = []

    async def ask() -> None:
        told = asyncio.Event()

        async def receive() -> Any:
            await told.wait()
            raise TaskCancelledError

        async def send(message: Any) -> None:
            sent.append(message)
            if b"event: whole" in message.get("body", b""):
                assert stream.viewers.count == 1
                told.set()

        scope = {"type": "http", "asgi": {"spec_version": "2.1"}, "headers": []}
        await EventStream(stream.events(""))(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["type"] == "http.response.start"
    assert stream.viewers.count == 0
