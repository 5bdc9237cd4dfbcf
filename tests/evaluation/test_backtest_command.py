"""`trading backtest` as it is typed."""

import re
from pathlib import Path

from typer.testing import CliRunner

from trading.cli import app


def run(*arguments: object):
    return CliRunner().invoke(app, ["backtest", *map(str, arguments)])


def test_a_tear_sheet_needs_no_network(tmp_path: Path):
    page = tmp_path / "sheet.html"
    result = run("--simulated", 2, "--html", page)
    assert result.exit_code == 0, result.output
    assert "hold cash" in result.output
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text.split("</script>")[-1])
    assert not re.search(r"<script[^>]+src=", text)


def test_a_folder_without_a_history_is_refused(tmp_path: Path):
    result = run("--history", tmp_path)
    assert result.exit_code == 1
    assert "no history in" in result.output


def test_neither_history_nor_simulation_is_refused():
    result = run()
    assert result.exit_code == 2
    assert "--simulated" in result.output
