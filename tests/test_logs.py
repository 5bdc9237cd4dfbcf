import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from trading.logs import configure_logging, get_logger

SECRET = 'hunter"2\\é'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_json_where_nobody_watches() -> None:
    out = io.StringIO()
    configure_logging("INFO", stream=out)
    get_logger("trading.example").info("order filled", symbol="SPY", units=2)
    line = json.loads(out.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "order filled",
        "level": "info",
        "logger": "trading.example",
        "symbol": "SPY",
        "units": 2,
    }


def test_lines_are_for_people_on_a_terminal() -> None:
    out = Terminal()
    configure_logging("INFO", stream=out)
    get_logger("trading.example").info("order filled", symbol="SPY")
    assert "order filled" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_a_line_leaves_a_display_on_the_same_terminal_whole(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging("INFO")
    console = Console(file=terminal, force_terminal=True, width=200, height=10)
    with Live("figures", console=console, auto_refresh=False):
        get_logger("trading.example").info("order filled", symbol="SPY")
    erased, drawn_again = r"figures\r\x1b\[2K", r"\nfigures"
    assert re.search(f"{erased}[^\n]*order filled[^\n]*{drawn_again}", terminal.getvalue())


def test_lines_for_a_file_stay_in_it_while_a_display_runs(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logging("INFO")
    console = Console(file=Terminal(), force_terminal=True, width=200, height=10)
    with Live("figures", console=console, auto_refresh=False):
        get_logger("trading.example").info("order filled", symbol="SPY")
    assert json.loads(out.getvalue())["event"] == "order filled"


def test_the_level_hides_what_is_less_severe() -> None:
    out = io.StringIO()
    configure_logging("WARNING", stream=out)
    log = get_logger("trading.example")
    log.info("hidden")
    log.warning("shown")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["shown"]


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    log = get_logger("trading.example")
    configure_logging("INFO", stream=first)
    log.info("one")
    configure_logging("DEBUG", stream=second)
    log.debug("two")
    assert len(first.getvalue().splitlines()) == len(second.getvalue().splitlines()) == 1


def test_other_libraries_warn_in_the_same_form_and_do_not_chat() -> None:
    out = io.StringIO()
    configure_logging("DEBUG", stream=out)
    logging.getLogger("httpx").info("GET %s", "/v3")
    logging.getLogger("httpx").warning("slow %s", "/v3")
    (line,) = (json.loads(line) for line in out.getvalue().splitlines())
    assert (line["event"], line["level"], line["logger"]) == ("slow /v3", "warning", "httpx")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_secret_is_hidden_wherever_it_occurs(stream: type[io.StringIO]) -> None:
    out = stream()
    configure_logging("INFO", secrets=[SECRET], stream=out)
    log = get_logger("trading.example")
    log.info(f"key {SECRET}", value=SECRET, nested={"header": [f"Bearer {SECRET}"]})
    try:
        key = SECRET
        raise RuntimeError(f"refused: {key}")
    except RuntimeError:
        log.exception("failed")
    logging.getLogger("websockets").error("sent %r", SECRET)
    assert out.getvalue().count("***") >= 5
    assert "hunter" not in out.getvalue()


def test_an_empty_secret_hides_nothing() -> None:
    out = io.StringIO()
    configure_logging("INFO", secrets=[""], stream=out)
    get_logger("trading.example").info("plain")
    assert "***" not in out.getvalue()


def test_what_sets_nothing_up_has_warnings_on_standard_error_and_no_output() -> None:
    code = (
        "from trading.logs import get_logger; log = get_logger('trading.example');"
        "log.info('not shown'); log.warning('stream lost', next_attempt_s=0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "stream lost" in done.stderr and "0.5" in done.stderr
    assert "not shown" not in done.stderr


def test_every_module_logs_through_the_one_logger() -> None:
    package = Path(__file__).parents[1] / "trading"
    own = r"structlog\.get_logger|getLogger\(__name__\)|^import structlog$"
    own_logger = re.compile(own, re.MULTILINE)
    found = {file.name for file in package.rglob("*.py") if own_logger.search(file.read_text())}
    # One binds what each line of its process says, and has no logger of its own.
    assert found == {"logs.py", "strategy_process.py"}
