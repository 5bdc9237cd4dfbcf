"""Messages to the owner: what is worth one, digests, and a real webhook by Apprise."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.execution.scene import NOW_NS, market, new_broker, open_order
from tests.live.market import Bars, FirstMinutes, serving, settings_for, trade
from tests.usual import risk_limits
from trading.execution.events import (
    ChampionPromoted,
    OwnerCommand,
    PromotedBy,
    WeightsAdopted,
)
from trading.execution.owner import Command, execute_command
from trading.live.alerts import FAULT_S, Alerts, SessionBaseline, session_report
from trading.live.bar_clock import Bar
from trading.live.metrics import LearnerFigures
from trading.live.notices import JournalNotices, Notices, by_apprise
from trading.live.trader import Trader

WAIT_S = 30.0


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class Post:
    """Takes messages; holds the first one back until it is let go."""

    def __init__(self, fails: int = 0, holds: bool = False) -> None:
        self.sent: list[tuple[str, str]] = []
        self.fails, self.go, self.began = fails, threading.Event(), threading.Event()
        if not holds:
            self.go.set()

    def __call__(self, title: str, body: str) -> bool:
        self.began.set()
        assert self.go.wait(WAIT_S)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("json://user:secret@host")
        self.sent.append((title, body))
        return True


def test_the_first_line_goes_out_at_once_and_a_storm_is_one_message() -> None:
    post = Post(holds=True)
    notices = Notices(post, "paper", 0.0)
    notices.tell("one")
    assert post.began.wait(WAIT_S)
    for number in range(5000):
        notices.tell(f"line {number}")
    post.go.set()
    notices.close()
    (first, storm) = post.sent
    assert first == ("trading, account paper: one", "one")
    assert storm[0] == "trading, account paper: 5000 messages"
    lines = storm[1].splitlines()
    assert lines[0].startswith("(4980 earlier ones") and lines[-1] == "line 4999"
    assert len(lines) == 21


def test_within_the_interval_nothing_goes_out_and_the_end_sends_what_is_left() -> None:
    post = Post()
    notices = Notices(post, "paper", 3600.0)
    notices.tell("one")
    await_that(lambda: len(post.sent) == 1)
    notices.tell("two\nlines")
    notices.tell("three")
    notices.close()
    assert [body for _, body in post.sent] == ["one", "two lines\nthree"]


def test_what_did_not_go_out_is_sent_again_and_no_address_is_logged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(fails=2)
    notices = Notices(post, "paper", 0.01)
    notices.tell("one")
    await_that(lambda: bool(post.sent))
    notices.close()
    assert post.sent == [("trading, account paper: one", "one")]
    out = capsys.readouterr()
    assert "secret" not in out.out + out.err + caplog.text
    assert "RuntimeError" in caplog.text


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real HTTP server, and what was posted to it."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://user:s3cret@127.0.0.1:{server.server_port}/", got
    server.shutdown()
    thread.join(WAIT_S)
    server.server_close()


def test_a_webhook_is_reached_by_apprise(
    webhook: tuple[str, list[dict[str, Any]]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, got = webhook
    send = by_apprise([address, "no-such-service://s3cret"])
    assert send("title", "body")
    assert (got[0]["title"], got[0]["message"]) == ("title", "body")
    # One that nobody listens at.
    assert not by_apprise(["json://user:s3cret@127.0.0.1:9/"])("title", "body")
    out = capfd.readouterr()
    assert "s3cret" not in out.out + out.err + caplog.text
    assert "NOTIFY_URLS" in caplog.text


def test_what_is_worth_a_message_is_told_from_the_journal(tmp_path: Path) -> None:
    told: list[str] = []
    broker = new_broker(tmp_path, limits=risk_limits(max_contracts_per_order=1))
    broker.followers.append(JournalNotices(told.append, rejections_in_a_row=3).follow)
    execute_command(broker, Command(OwnerCommand.HALT, "alice", "news"), NOW_NS)
    execute_command(broker, Command(OwnerCommand.RESUME, "alice"), NOW_NS)
    broker.suspend("QQQ", "not_a_number", NOW_NS)
    broker.reinstate("QQQ", "its values are numbers", NOW_NS)
    for number, by in enumerate((PromotedBy.START, PromotedBy.GATE), 1):
        change = ChampionPromoted(NOW_NS, number, 0, number - 1, by, "better", 10_000.0)
        broker.change_champion(change, WeightsAdopted(NOW_NS, 0, "digest"))
    broker.on_bar({}, NOW_NS, equity=9_000.0)
    for _ in range(7):
        broker.submit(open_order(broker, "long_call", 2), market(), True, NOW_NS)
    expected = [
        "halt by alice: halted",
        "HALTED: now, halt by alice: news",
        "resume by alice: ended: owner_halt",
        "ACTIVE: owner_halt ended, resumed by alice",
        "QQQ is suspended: not_a_number",
        "QQQ trades again",
        "champion 2 trades, by gate: better",
        "HALTED: now, daily_loss",
        "champion 1 trades again, by drawdown",
        "HALTED: now, champion_drawdown",
        "3 orders were rejected in a row, the last one for halted",
    ]
    assert len(told) == len(expected), told
    for line, beginning in zip(told, expected, strict=True):
        assert line.startswith(beginning)
    broker.journal.close()


def test_a_fill_ends_a_row_of_rejections(tmp_path: Path) -> None:
    told: list[str] = []
    broker = new_broker(tmp_path, limits=risk_limits(max_contracts_per_order=1))
    broker.followers.append(JournalNotices(told.append, rejections_in_a_row=2).follow)
    for units in (2, 1, 2):
        broker.submit(open_order(broker, "long_call", units), market(), True, NOW_NS)
    assert told == []
    broker.submit(open_order(broker, "long_call", 2), market(), True, NOW_NS)
    assert len(told) == 1
    broker.journal.close()


def test_a_fault_of_the_feed_is_told_when_it_lasts_and_when_it_ends() -> None:
    told: list[str] = []
    alerts = Alerts(told.append, 5.0)
    alerts.feed([], 0.0)
    alerts.feed(["options feed is retrying"], 1.0)
    alerts.feed([], 2.0)
    alerts.feed([], 60.0)
    assert told == []
    for now_s in (100.0, 100.0 + FAULT_S, 200.0):
        alerts.feed(["options feed is retrying"], now_s)
    assert told == ["options feed is retrying"]
    for now_s in (300.0, 300.0 + FAULT_S, 400.0):
        alerts.feed([], now_s)
    assert told == ["options feed is retrying", "every feed is live again"]


def test_a_full_disk_is_told_once_and_so_is_its_room() -> None:
    told: list[str] = []
    alerts = Alerts(told.append, 5.0)
    for free in (50.0, 4.9, 4.0, 5.1, 4.9, 6.1, 50.0):
        alerts.disks({"state": free})
    assert [line.partition(" free")[0] for line in told] == [
        "the disk of state has 4.9 %",
        "the disk of state has room again, 6.1 %",
    ]


def test_the_days_report_says_what_the_day_brought(tmp_path: Path) -> None:
    source = FirstMinutes(400)
    lines: list[str] = []

    class Reporter(Bars):
        day: SessionBaseline | None = None
        base = 0.0

        def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
            super().on_bar(trader, bar, latency_s)
            self.day = self.day or SessionBaseline.of(trader)
            if not bar.last:
                self.base = trader.env.broker.account.day_base
                return
            figures = LearnerFigures(updates=3)
            lines.append(
                session_report(trader, self.day, self.base, str(bar.session.date), figures)
            )

    with serving(source) as (endpoint, begin):
        result = trade(settings_for(tmp_path), endpoint, begin, bars=Reporter())
    (line,) = lines
    account = result.trader.env.broker.account
    profit = account.day_start_equity - account.initial_cash
    assert line.startswith(f"2026-01-05: {profit:+,.2f} USD ")
    assert f"{account.fees_paid:,.2f}" in line or "fees" in line
    assert "learner: 3 updates" in line and "champion 1" in line
