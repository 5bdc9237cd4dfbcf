"""The streaming client against a server that does what the vendor's does on bad days."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.usual import stream_settings
from trading.data.massive.client.stream import (
    ConnectionState,
    StreamClient,
    TaggedFrame,
)
from trading.data.massive.frames import FrameQueue
from trading.data.massive.wire import Aggregate, Quote, Status, decode, decode_action, encode
from trading.errors import AuthenticationFailed, DataError, StreamError

if TYPE_CHECKING:
    from tests.data.conftest import Peer, ScriptedServer

KEY = "k3y-that-must-stay-secret"
SPY = "Q.O:SPY251219C00650000"
QQQ = "Q.O:QQQ251219P00500000"
IWM = "Q.O:IWM251219C00200000"
BAR = Aggregate("SPY", 1_766_154_600_000, 1_766_154_660_000, 650.0, 651.0, 649.0, 650.5)

Start = Callable[..., "ScriptedServer"]
Connect = Callable[..., StreamClient]


@pytest.fixture(autouse=True)
def leaves_no_thread() -> Iterator[None]:
    yield
    assert "massive-stream" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def connect(leaves_no_thread: None, start: Start) -> Iterator[Connect]:
    """Start a client; short pauses unless said otherwise."""
    clients: list[StreamClient] = []

    def begin(server: ScriptedServer, **settings: object) -> StreamClient:
        quick = {"backoff_initial_s": 0.001, "backoff_max_s": 0.01, "cool_down_s": 0.01}
        client = StreamClient(stream_settings(server.url, KEY, **(quick | settings)), seed=1)
        clients.append(client)
        client.start()
        return client

    yield begin
    for client in clients:
        client.close()


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Return once `condition` holds; fails when it does not in time."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError(f"not within {timeout_s:g} s")


def quote(number: int) -> Quote:
    return Quote(SPY.removeprefix("Q."), 1_766_154_600_000 + number, 1.0, 1.1, 5, 6, number)


def take(client: StreamClient, count: int) -> list[TaggedFrame]:
    """Take `count` frames, waiting for each batch; fails when they stop coming."""
    frames: list[TaggedFrame] = []
    while len(frames) < count:
        batch = client.frames(timeout_s=20.0)
        assert batch, f"{len(frames)} of {count} frames came"
        frames += batch
    return frames


def numbers(frames: list[TaggedFrame]) -> list[int]:
    return [event.q for frame in frames for event in decode(frame.data) if isinstance(event, Quote)]


async def serve_one_quote(peer: Peer) -> None:
    await peer.authenticate()
    await peer.acknowledge(1)
    await peer.send(quote(1))
    await peer.hold()


def test_frames_arrive_untouched_and_statuses_alone_do_not(start: Start, connect: Connect) -> None:
    odd = b'[ {"ev":"Q","sym":"X","t":1,"extra":[1]},{"ev":"unheard of"} ]'

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send_raw(odd)
        await peer.hold()

    client = connect(start(script))
    client.subscribe("options", [SPY])
    assert client.frames(timeout_s=20.0) == [TaggedFrame("options", odd)]


def test_a_status_beside_data_is_heard_and_the_frame_kept(start: Start, connect: Connect) -> None:
    mixed = encode([Status("success", f"subscribed to: {SPY}"), quote(1)])

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.receive()
        await peer.send_raw(mixed)
        await peer.hold()

    client = connect(start(script))
    client.subscribe("options", [SPY])
    assert client.frames(timeout_s=20.0) == [TaggedFrame("options", mixed)]
    assert client.health()["options"]["acknowledged"] == 1


def test_each_asset_class_has_its_connection(start: Start, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send(quote(1) if peer.path == "/options" else BAR)
        await peer.hold()

    server = start(script)
    client = connect(server)
    client.subscribe("options", [SPY])
    client.subscribe("stocks", ["AM.SPY"])
    frames = take(client, 2)
    assert {frame.asset_class for frame in frames} == {"options", "stocks"}
    assert {peer.path for peer in server.peers} == {"/options", "/stocks"}
    assert set(client.health()) == {"options", "stocks"}


def test_subscriptions_are_sent_in_chunks(start: Start, connect: Connect) -> None:
    names = [f"Q.O:SPY251219C{strike:05d}000" for strike in range(1, 451)]

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(len(names))
        await peer.hold()

    server = start(script)
    client = connect(server, subscribe_chunk=200)
    client.subscribe("options", names)
    wait_until(lambda: client.health()["options"]["acknowledged"] == 450)
    sent = [message["params"].split(",") for message in server.peers[0].messages[1:]]
    assert [len(chunk) for chunk in sent] == [200, 200, 50]
    assert [name for chunk in sent for name in chunk] == names


def test_names_can_be_added_and_withdrawn_while_live(start: Start, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.acknowledge(1)
        await peer.receive()
        await peer.send(quote(1))
        await peer.hold()

    server = start(script)
    client = connect(server)
    client.subscribe("options", [SPY])
    wait_until(lambda: client.health()["options"]["state"] is ConnectionState.LIVE)
    client.subscribe("options", [SPY, QQQ])
    wait_until(lambda: client.health()["options"]["acknowledged"] == 2)
    client.unsubscribe("options", [SPY])
    take(client, 1)
    assert server.peers[0].messages[2:] == [
        {"action": "subscribe", "params": QQQ},
        {"action": "unsubscribe", "params": SPY},
    ]
    assert client.health()["options"]["asked"] == 1


def test_subscriptions_survive_a_drop_while_authenticating_again(
    start: Start, connect: Connect
) -> None:
    async def live_then_gone(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(2)
        peer.drop()

    async def gone_on_connect(peer: Peer) -> None:
        peer.drop()

    async def gone_on_auth(peer: Peer) -> None:
        await peer.status("connected")
        await peer.receive()
        peer.drop()

    async def back(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(2)
        await peer.send(quote(1))
        await peer.hold()

    server = start(live_then_gone, gone_on_connect, gone_on_auth, None, back)
    client = connect(server)
    client.subscribe("options", [SPY, QQQ])
    take(client, 1)
    assert server.peers[-1].messages[1] == {"action": "subscribe", "params": f"{SPY},{QQQ}"}
    health = client.health()["options"]
    assert health["reconnects"] == 4
    assert health["acknowledged"] == 2


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012])
def test_a_close_by_the_server_leads_to_a_new_connection(
    start: Start, connect: Connect, code: int
) -> None:
    async def closes(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.connection.close(code)

    client = connect(start(closes, serve_one_quote))
    client.subscribe("options", [SPY])
    take(client, 1)
    health = client.health()["options"]
    assert health["reconnects"] == 1
    assert str(code) in health["last_error"]
    assert not client.finished


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_replay_ends_with_all_its_frames_delivered(
    start: Start, connect: Connect, code: int
) -> None:
    async def replay(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(3000):
            await peer.send(quote(number))
        await peer.connection.close(code)

    server = start(replay)
    client = connect(server, stop_on_close=True, block_when_full=True, max_queue_frames=50)
    client.subscribe("options", [SPY])
    assert numbers(take(client, 3000)) == list(range(3000))
    wait_until(lambda: client.finished)
    assert client.frames(timeout_s=60.0) == []
    assert client.barrier(timeout_s=5.0)
    assert client.health()["options"]["state"] is ConnectionState.CLOSED
    assert server.attempts == 1


def test_a_broken_replay_is_not_taken_for_its_end(start: Start, connect: Connect) -> None:
    async def breaks(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        peer.drop()

    client = connect(start(breaks, serve_one_quote), stop_on_close=True)
    client.subscribe("options", [SPY])
    take(client, 1)
    assert not client.finished


async def refuse_the_key(peer: Peer) -> None:
    await peer.status("connected")
    await peer.receive()
    await peer.status("auth_failed", "authentication failed")


@pytest.mark.parametrize("outlasts", [False, True])
def test_a_refused_key_is_final(start: Start, connect: Connect, outlasts: bool) -> None:
    server = start(refuse_the_key)
    client = connect(server, outlasts_refusal=outlasts)
    client.subscribe("options", [SPY])
    with pytest.raises(AuthenticationFailed, match="options stream"):
        client.frames(timeout_s=20.0)
    with pytest.raises(AuthenticationFailed):
        client.frames(timeout_s=20.0)
    assert client.health()["options"]["state"] is ConnectionState.CLOSED
    assert not client.barrier(timeout_s=5.0)
    client.close()
    assert server.attempts == 1


@pytest.mark.parametrize("outlasts", [False, True])
def test_a_key_that_was_accepted_before_is_shown_again(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture, outlasts: bool
) -> None:
    """By live trading: a vendor whose logins fail for a while refuses every key."""

    async def fails_later(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send(quote(1))
        await peer.status("auth_failed", "authentication failed")

    server = start(fails_later, refuse_the_key, serve_one_quote)
    client = connect(server, outlasts_refusal=outlasts, cool_down_s=0.5)
    client.subscribe("options", [SPY])
    take(client, 1)
    if not outlasts:
        with pytest.raises(AuthenticationFailed):
            take(client, 1)
        return
    take(client, 1)
    assert server.attempts == 3
    assert all(pause >= 0.5 for pause in pauses(caplog))
    assert "auth_failed" in client.health()["options"]["last_error"]


def test_max_connections_after_auth_success_cools_down(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def crowded(peer: Peer) -> None:
        await peer.authenticate()
        await peer.status("max_connections", "Maximum number of websocket connections exceeded")
        await peer.connection.close(1008)

    client = connect(start(crowded), cool_down_s=3600.0)
    client.subscribe("options", [SPY])
    wait_until(lambda: client.health()["options"]["state"] is ConnectionState.BACKOFF)
    wait_until(lambda: pauses(caplog))
    assert "max_connections" in client.health()["options"]["last_error"]
    assert pauses(caplog)[0] >= 3600.0
    assert not client.barrier(timeout_s=5.0)


def test_a_close_for_policy_without_a_word_cools_down(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def crowded(peer: Peer) -> None:
        await peer.authenticate()
        await peer.connection.close(1008)

    client = connect(start(crowded), cool_down_s=3600.0)
    client.subscribe("options", [SPY])
    wait_until(lambda: pauses(caplog))
    assert pauses(caplog)[0] >= 3600.0


def test_after_the_cool_down_it_goes_on(start: Start, connect: Connect) -> None:
    async def crowded(peer: Peer) -> None:
        await peer.authenticate()
        await peer.status("max_connections")
        await peer.connection.close(1008)

    client = connect(start(crowded, serve_one_quote))
    client.subscribe("options", [SPY])
    take(client, 1)


def test_pauses_grow_until_data_comes_whatever_authentication_says(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def useless(peer: Peer) -> None:
        await peer.authenticate()
        peer.drop()

    async def useful(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send(quote(1))
        await peer.connection.close(1011)

    server = start(useless, useless, useless, useless, useful, serve_one_quote)
    client = connect(server, backoff_initial_s=0.001, backoff_max_s=60.0)
    client.subscribe("options", [SPY])
    take(client, 2)
    drawn = pauses(caplog)
    for pause_s, largest_s in zip(drawn, [0.001, 0.002, 0.004, 0.008, 0.001], strict=True):
        assert largest_s / 2 <= pause_s <= largest_s


def pauses(caplog: pytest.LogCaptureFixture) -> list[float]:
    """The pauses before reconnecting that were logged, in seconds."""
    return [
        record.msg["next_attempt_s"]
        for record in caplog.records
        if isinstance(record.msg, dict) and record.msg["event"] == "stream lost"
    ]


def test_a_refusal_without_a_name_is_charged_to_the_name_in_its_place(
    start: Start, connect: Connect
) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.receive()
        await peer.status("success", f"subscribed to: {SPY}")
        await peer.status("error", "not authorized")
        await peer.status("success", f"subscribed to: {IWM}")
        await peer.send(quote(1))
        await peer.hold()

    client = connect(start(script))
    client.subscribe("options", [SPY, QQQ, IWM])
    take(client, 1)
    assert client.refused("options") == [QQQ]
    health = client.health()["options"]
    assert health["state"] is ConnectionState.LIVE
    assert (health["acknowledged"], health["refused"], health["unanswered"]) == (2, 1, 0)
    assert "not authorized" in health["last_error"]


def test_a_name_that_is_never_answered_does_not_hold_up_the_rest(
    start: Start, connect: Connect
) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.receive()
        await peer.status("success", f"subscribed to: {IWM}")
        await peer.hold()

    client = connect(start(script), subscribe_timeout_s=0.05)
    client.subscribe("options", [SPY, IWM])
    wait_until(lambda: client.health()["options"]["acknowledged"] == 1)
    wait_until(lambda: client.health()["options"]["state"] is ConnectionState.LIVE)
    assert client.health()["options"]["unanswered"] == 1


def test_a_misspelt_symbol_shows_as_acknowledged_and_silent(start: Start, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(2)
        await peer.send(quote(1))
        await peer.hold()

    client = connect(start(script))
    client.subscribe("options", [SPY, QQQ])
    for event in decode(take(client, 1)[0].data):
        assert isinstance(event, Quote)
        client.tick("options", [f"Q.{event.sym}"])
    assert client.silent("options") == [QQQ]
    assert client.health()["options"]["ticking"] == 1


def test_a_connection_alive_but_silent_is_replaced(start: Start, connect: Connect) -> None:
    async def silent(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.hold()

    client = connect(start(silent, serve_one_quote), silence_timeout_s=0.2)
    client.subscribe("options", [SPY])
    take(client, 1)
    assert "nothing arrived" in client.health()["options"]["last_error"]


def test_silence_is_no_fault_while_nothing_is_asked_for(start: Start, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.hold()

    client = connect(start(script), silence_timeout_s=0.01)
    client.subscribe("stocks", [])
    wait_until(lambda: client.health()["stocks"]["state"] is ConnectionState.LIVE)
    assert all(client.barrier(timeout_s=5.0) for _ in range(100))
    assert client.health()["stocks"]["reconnects"] == 0


def test_an_authentication_that_gets_no_answer_is_given_up(start: Start, connect: Connect) -> None:
    async def mute(peer: Peer) -> None:
        await peer.status("connected")
        await peer.hold()

    async def tired(peer: Peer) -> None:
        await peer.status("connected")
        await peer.receive()
        await peer.status("auth_timeout")
        await peer.hold()

    client = connect(start(mute, tired, serve_one_quote), auth_timeout_s=0.2)
    client.subscribe("options", [SPY])
    take(client, 1)
    assert "auth_timeout" in client.health()["options"]["last_error"]


def test_a_consumer_that_is_behind_loses_the_oldest_frames_and_no_connection(
    start: Start, connect: Connect
) -> None:
    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(1000):
            await peer.send(quote(number))
        await peer.hold()

    client = connect(start(script), max_queue_frames=10)
    client.subscribe("options", [SPY])
    wait_until(lambda: client.health()["options"]["dropped"] == 990)
    assert numbers(client.frames(timeout_s=20.0)) == list(range(990, 1000))
    assert client.dropped_frames == 990
    assert client.health()["options"]["reconnects"] == 0


def test_a_consumer_that_is_behind_slows_a_replay_down(start: Start, connect: Connect) -> None:
    padding = b" " * 2**16
    count = 400

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(count):
            await peer.send_raw(encode([quote(number)]) + padding)
        await peer.hold()

    server = start(script)
    client = connect(server, max_queue_frames=4, block_when_full=True, silence_timeout_s=0.05)
    client.subscribe("options", [SPY])
    wait_until(lambda: client.health()["options"]["frames"] >= 6)
    assert client.health()["options"]["frames"] <= 7
    assert server.written < count
    assert numbers(take(client, count)) == list(range(count))
    assert client.dropped_frames == 0


@pytest.mark.parametrize("block_when_full", [False, True])
def test_the_barrier_holds_for_every_frame_written_before_it(
    start: Start, connect: Connect, block_when_full: bool
) -> None:
    count = 20_000
    done = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(count):
            await peer.send(quote(number))
            if number % 50 == 0:
                await asyncio.sleep(0)
        done.set()
        await peer.hold()

    server = start(script)
    client = connect(server, max_queue_frames=200, block_when_full=block_when_full)
    client.subscribe("options", [SPY])
    taken = numbers(take(client, 1))
    barriers, complete = 0, False
    while not complete or barriers < 50:
        complete, written = done.is_set(), server.written
        assert client.barrier(timeout_s=20.0)
        taken += numbers(client.frames(timeout_s=0.0))
        assert len(taken) + client.dropped_frames >= written
        barriers += 1
    assert len(taken) + client.dropped_frames == count
    assert taken == sorted(taken)
    if block_when_full:
        assert taken == list(range(count))


def answer_pings_behind_bursts(listener: socket.socket, bursts: list[int]) -> None:
    """Serve one client; each ping is answered by a burst of quotes and its pong, in one write."""
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(20.0)
        protocol = ServerProtocol()
        number = 0
        while data := accepted.recv(2**16):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                    protocol.send_text(encode([Status("connected")]))
                elif event.opcode is Opcode.TEXT:
                    action = decode_action(bytes(event.data))
                    answer = "auth_success" if action.action == "auth" else "success"
                    protocol.send_text(encode([Status(answer, f"subscribed to: {action.params}")]))
                elif event.opcode is Opcode.PING:
                    pong = b"".join(protocol.data_to_send())
                    for _ in range(bursts.pop(0)):
                        protocol.send_text(encode([quote(number)]))
                        number += 1
                    accepted.sendall(b"".join(protocol.data_to_send()) + pong)
            accepted.sendall(b"".join(protocol.data_to_send()))


@pytest.mark.parametrize("block_when_full", [False, True])
def test_the_barrier_holds_for_frames_that_arrive_together_with_the_pong(
    block_when_full: bool,
) -> None:
    bursts = [1, 16, 17, 5000] + [37 * n % 400 for n in range(100)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20.0)
        server = threading.Thread(
            target=answer_pings_behind_bursts, args=(listener, bursts.copy()), daemon=True
        )
        server.start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        settings = stream_settings(
            url,
            KEY,
            max_queue_frames=8,
            block_when_full=block_when_full,
            ping_interval_s=None,
            close_timeout_s=0.1,
        )
        with StreamClient(settings) as client:
            client.subscribe("options", [SPY])
            wait_until(lambda: client.health()["options"]["state"] is ConnectionState.LIVE)
            first = 0
            for burst in bursts:
                assert client.barrier(timeout_s=20.0)
                taken = numbers(client.frames(timeout_s=0.0))
                assert taken == list(range(first, first + burst))
                first += burst
            assert client.dropped_frames == 0
        server.join(20.0)
        assert not server.is_alive()


def test_the_barrier_holds_for_all_connections_together(start: Start, connect: Connect) -> None:
    count = 5000
    finished = [threading.Event(), threading.Event()]

    async def script(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(count):
            await peer.send(quote(number))
        finished[peer.path == "/stocks"].set()
        await peer.hold()

    client = connect(start(script), max_queue_frames=2 * count)
    client.subscribe("options", [SPY])
    client.subscribe("stocks", ["AM.SPY"])
    assert all(event.wait(20.0) for event in finished)
    assert client.barrier(timeout_s=20.0)
    assert len(client.frames(timeout_s=0.0)) == 2 * count


def test_the_barrier_fails_when_the_server_does_not_answer(start: Start, connect: Connect) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        peer.connection.transport.pause_reading()
        await peer.send(quote(1))
        await peer.hold()

    client = connect(start(deaf), close_timeout_s=0.1)
    client.subscribe("options", [SPY])
    take(client, 1)
    assert not client.barrier(timeout_s=0.1)


def test_the_key_shows_nowhere(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def tells_and_drops(peer: Peer) -> None:
        await peer.authenticate()
        await peer.receive()
        await peer.status("error", f"no such thing for {KEY}")
        await peer.status("key_report", f"{KEY} is in use")
        await peer.connection.close(1011, f"goodbye {KEY}")

    async def tells_and_refuses(peer: Peer) -> None:
        await peer.status("connected")
        await peer.receive()
        await peer.status("auth_failed", f"unknown key {KEY}")

    caplog.set_level(logging.DEBUG)
    server = start(tells_and_drops, tells_and_refuses)
    client = connect(server)
    client.subscribe("options", [SPY])
    with pytest.raises(AuthenticationFailed) as caught:
        client.frames(timeout_s=20.0)
    assert server.peers[0].messages[0]["params"] == KEY
    shown = [str(caught.value), repr(caught.value), repr(client.health()), caplog.text]
    shown.append(repr(stream_settings(server.url, KEY)))
    shown += [str(record.__dict__) for record in caplog.records]
    assert not [text for text in shown if KEY in text]
    assert "***" in client.health()["options"]["last_error"]


@pytest.mark.parametrize("key", ["", "  ", "two words", "l\u00ebtters", "line\nbreak"])
def test_an_unusable_key_is_refused_before_it_is_sent(key: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        stream_settings("ws://127.0.0.1", key)
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://127.0.0.1", {}),
        ("ws://", {}),
        ("ws://127.0.0.1/?key=1", {}),
        ("ws://127.0.0.1", {"backoff_initial_s": 0.0}),
        ("ws://127.0.0.1", {"max_queue_frames": -1}),
        ("ws://127.0.0.1", {"silence_timeout_s": float("nan")}),
    ],
)
def test_unusable_settings_are_refused(url: str, settings: dict[str, float]) -> None:
    with pytest.raises(DataError):
        stream_settings(url, KEY, **settings)


def test_a_client_that_does_not_run_says_so(start: Start, connect: Connect) -> None:
    client = StreamClient(stream_settings("ws://127.0.0.1:9", KEY))
    with pytest.raises(StreamError, match="start"):
        client.subscribe("options", [SPY])
    assert not client.barrier(timeout_s=1.0)
    client.start()
    with pytest.raises(StreamError, match="started before"):
        client.start()
    with pytest.raises(StreamError, match="futures"):
        client.subscribe("futures", ["AM.ES"])
    with pytest.raises(StreamError, match="wildcard"):
        client.subscribe("options", ["Q.*"])
    assert client.health() == {}
    assert client.barrier(timeout_s=5.0)
    assert client.frames(timeout_s=0.0) == []
    client.close()
    client.close()
    assert client.frames(timeout_s=60.0) == []
    with pytest.raises(StreamError, match="start"):
        client.subscribe("options", [SPY])


def test_close_does_not_wait_for_a_pause_or_a_full_queue(start: Start, connect: Connect) -> None:
    async def floods(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        for number in range(1000):
            await peer.send(quote(number))
        await peer.hold()

    blocked = connect(start(floods), max_queue_frames=5, block_when_full=True, close_timeout_s=0.1)
    blocked.subscribe("options", [SPY])
    wait_until(lambda: blocked.health()["options"]["frames"] > 5)
    blocked.close()
    assert numbers(blocked.frames(timeout_s=60.0)) == list(range(5))
    paused = connect(start(None), backoff_initial_s=3600.0, backoff_max_s=3600.0)
    paused.subscribe("options", [SPY])
    wait_until(lambda: paused.health()["options"]["state"] is ConnectionState.BACKOFF)
    paused.close()


def test_the_queue_is_bounded_in_bytes_too() -> None:
    queue = FrameQueue(100, max_bytes=1000)
    for n in range(5):
        queue.put(TaggedFrame("options", bytes(400)))
        assert len(queue) <= 2, n
    assert queue.dropped("options") == 3
    assert sum(len(frame.data) for frame in queue.take_all(0.0)) == 800
    queue.put(TaggedFrame("options", bytes(5000)))
    assert len(queue) == 1 and queue.is_full, "one larger than the bound has a place, alone"


def test_a_frame_too_large_to_be_read_is_counted_and_leads_to_a_new_connection(
    start: Start, connect: Connect
) -> None:
    async def floods(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send_raw(b"[" + b" " * 900 + b"]")
        await peer.hold()

    async def bulky(peer: Peer) -> None:
        await peer.authenticate()
        await peer.acknowledge(1)
        await peer.send_raw(b"[" + b" " * 300 + b"]")
        await peer.send(quote(1))
        await peer.hold()

    client = connect(start(floods, bulky), max_frame_bytes=100, backoff_initial_s=0.001)
    client.subscribe("options", [SPY])
    wait_until(lambda: client.health()["options"]["reconnects"] >= 1)
    assert "a frame of more than 800 bytes" in client.health()["options"]["last_error"]
    wait_until(lambda: client.oversize >= 3)
    assert client.health()["options"]["reconnects"] == 1, "one that can be read ends nothing"
