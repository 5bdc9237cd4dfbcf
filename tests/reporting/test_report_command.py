"""`trading report` as it is typed, and the page that it writes."""

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.execution.scene import CALL_100
from trading.cli.main import app
from trading.execution.journal import Journal

MOST_BYTES = 1_500_000


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@contextmanager
def telling(status: object, path: str = "/status") -> Iterator[int]:
    """An HTTP service that answers this there, and of another account elsewhere; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = status if self.path == path else {"account": {"id": "another"}}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(account: str = "paper") -> dict[str, object]:
    leg = {"symbol": CALL_100, "quantity": 1, "mark": 3.05}
    return {
        "account": {"id": account},
        "market": {
            "time": "2026-01-12T15:00:00+00:00",
            "risk_free_rate": 0.04,
            "underlyings": {"SPY": {"spot": 100.5}},
        },
        "positions": [{"underlying": "SPY", "legs": [leg]}],
    }


def test_the_figures_are_the_journals(journal: Path) -> None:
    told = json.loads(run("--journal", journal, "--json", "--set", "serving.port=1").output)
    with Journal(journal, read_only=True) as opened:
        account = opened.fold()
    assert told["summary"]["realised"] == account.realised_pnl
    assert told["summary"]["trades"] == account.closed_trades == len(told["trades"])
    assert sum(leg["quantity"] for trade in told["trades"] for leg in trade["legs"]) == 0
    assert told["summary"]["equity"] == account.day_start_equity
    assert told["summary"]["value_at_risk_95"] > 0.0
    assert [trade["strategy"] for trade in told["open"]] == ["long_call"]
    assert told["learner"][0]["what"] == "promoted"
    assert told["stress"] is None
    assert "--set serving.port=N" in told["no_stress"]
    text = run("--journal", journal, "--set", "serving.port=1").output
    assert "By underlying" in text and "Last trades" in text
    assert f"{account.realised_pnl:,.2f}" in text
    assert "moved at once: not known" in text and "serving.port=N" in text


def test_the_terminal_shows_hours_legs_shares_and_stress_in_eighty_columns(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trading.cli.report._WIDTH", 80)
    arguments = ("--journal", journal, "--set")
    with telling(status()) as port:
        text = run(*arguments, f"serving.port={port}").output
        told = json.loads(run(*arguments, f"serving.port={port}", "--json").output)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    rows = [line.split() for line in text.splitlines()]

    def below(title: str) -> list[list[str]]:
        begin = next(n for n, line in enumerate(text.splitlines()) if line.startswith(title))
        return list(rows[begin + 1 :])

    for group in told["by_hour"]:
        assert [group["name"], str(group["trades"])] in [row[:2] for row in below("By hour")]
    last = told["trades"][-1]
    shares = next(row for row in below("Their profit") if row[:1] == ["10"])
    assert shares[1:] == [f"{amount:+,.2f}" for amount in last["parts"].values()]
    legs = [row for row in below("Their legs") if row[:1] == ["10"]]
    assert len(legs) == len(last["legs"])
    for row, leg in zip(legs, last["legs"], strict=True):
        expected = [leg["what"], leg["symbol"], f"{leg['quantity']:+d}", f"{leg['price']:,.2f}"]
        assert row[3:] == expected
    assert any(row[:2] == ["11", "open"] for row in below("Last trades"))
    for vol, changes in zip(told["stress"]["volatilities"], told["stress"]["changes"], strict=True):
        assert [f"{vol:+.0%}", *(f"{each:+,.0f}" for each in changes)] in below(
            "If prices (across)"
        )
    silent = run(*arguments, "serving.port=1").output
    assert "If prices and volatilities moved at once: not known" in silent


def test_the_page_is_whole_small_and_needs_no_network(journal: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with telling(status()) as port:
        result = run("--journal", journal, "--html", page, "--set", f"serving.port={port}")
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    shown = re.findall(r"<h2>(.*?)</h2>", text)
    for heading in (
        "Equity",
        "Returns by month",
        "Rolling Sharpe ratio and volatility",
        "Returns of sessions",
        "Worst drawdowns",
        "By underlying",
        "By strategy",
        "By hour",
        "By day",
        "Trades",
        "What the learner changed",
    ):
        assert heading in shown
    assert "&lt;near&gt;" in text and "<near>" not in text
    assert "passed &lt;all&gt;" in text
    assert "+20%" in text and "as of 2026-01-12" in text


def test_the_stress_is_of_the_running_account_alone(journal: Path) -> None:
    with telling(status("another")) as port:
        arguments = ("--journal", journal, "--json", "--set", f"serving.port={port}")
        assert json.loads(run(*arguments).output)["stress"] is None


@pytest.mark.parametrize("other", [None, "nothing", {"account": None}, {"account": "paper"}, [1]])
def test_another_service_at_the_port_is_no_fault(journal: Path, other: object) -> None:
    with telling(other) as port:
        result = run("--journal", journal, "--json", "--set", f"serving.port={port}")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["stress"] is None


def test_a_port_that_speaks_no_http_is_no_fault(journal: Path) -> None:
    class Greets(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"220 mail.example ready\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Greets) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        result = run(
            "--journal", journal, "--json", "--set", f"serving.port={server.server_address[1]}"
        )
        server.shutdown()
        thread.join()
    assert result.exit_code == 0, result.output
    assert "none of this account answers" in json.loads(result.output)["no_stress"]


def test_the_account_is_found_below_its_own_path_too(journal: Path) -> None:
    with telling(status(), "/paper/status") as port:
        arguments = ("--journal", journal, "--json", "--set", f"serving.port={port}")
        stress = json.loads(run(*arguments).output)["stress"]
        text = " ".join(run(*arguments[:2], *arguments[3:]).output.split())
        assert "moved at once: change of equity" in text
    assert stress["taken"] == "2026-01-12T15:00:00+00:00"
    assert len(stress["changes"]) == len(stress["volatilities"])


def test_a_period_without_a_session_says_so(journal: Path) -> None:
    arguments = ("--journal", journal, "--from", "2027-01-01", "--set", "serving.port=1")
    result = run(*arguments)
    assert result.exit_code == 0
    assert "no session yet" in result.output
    assert json.loads(run(*arguments, "--json").output)["summary"]["trades"] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--html", "nodir/x.html"), "there is no folder nodir"),
        (("--html", "x.pdf"), "must end in .html"),
        (("--html", "."), "must end in .html"),
        (("--from", "2026-02-30"), "--from 2026-02-30: must be a date"),
        (("--from", "2026-02-03", "--to", "2026-02-01"), "is before --from"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    journal: Path, options: tuple[str, ...], told: str
) -> None:
    result = run("--journal", journal, *options)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_journal_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    result = run("--set", f"paths.state_dir={tmp_path}")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "journal" in result.stderr
