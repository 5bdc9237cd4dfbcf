"""`trading market` shows, draws and fits."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from trading.cli.main import app

GOOG = Path(__file__).parents[3] / "shared" / "data" / "flatfiles"
TREND = Path(__file__).parents[2] / "configs" / "markets" / "trend.yaml"


def call(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["market", *arguments])
    return found.exit_code, found.output


def test_describe_says_what_a_market_is() -> None:
    code, text = call("describe", "--paths", "20", "--set", f"market.file={TREND}")
    assert code == 0, text
    for told in ("trend: live", "market.price.momentum", "variance ratio over 5 sessions", "never"):
        assert told in text
    assert "25-delta put" in text
    assert "quotes of SPY in a session" in text


def test_describe_answers_scripts_with_json_and_tells_its_progress_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trading.progress._QUIET_S", 0.0)
    options = ("--paths", "40", "--set", f"market.file={TREND}", "--json")
    result = CliRunner().invoke(app, ["market", "describe", *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["market"] == "trend" and "market.price.momentum" in told["given"]
    assert told["figures"]["price"]["variance ratio over 5 sessions"]["value"] > 1.0
    assert told["figures"]["price"]["variance ratio over 5 sessions"]["error"] is None
    assert {each["sessions"] for each in told["held_to_expiry_pct"]} == {5, 10, 21, 42}
    assert all({"group", "bucket", "measure", "value"} <= set(each) for each in told["quotes"])
    assert "simulating: 20 of 40 years, " in result.stderr


@pytest.mark.parametrize(
    ("name", "begins"),
    [("market.png", b"\x89PNG"), ("market.PDF", b"%PDF"), ("market.jpg", b"\xff\xd8\xff")],
)
def test_plot_draws_a_picture(tmp_path: Path, name: str, begins: bytes) -> None:
    into = tmp_path / name
    code, text = call("plot", "--paths", "20", "--into", str(into))
    assert code == 0, text
    assert into.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("verb", "name", "told"),
    [
        ("plot", "market.doc", ".png or "),
        ("plot", "nowhere/market.png", "there is no folder"),
        ("fit", "market", "--date"),
        ("fit", "nowhere/market.yaml", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, name: str, told: str
) -> None:
    """Which is minutes of simulation."""
    monkeypatch.setattr("trading.cli.market._portrait", None)
    code, text = call(verb, "--into", str(tmp_path / name))
    assert code == 2
    assert told in " ".join(text.split())


def test_fit_asks_for_a_day() -> None:
    code, text = call("fit")
    assert code == 2
    assert "--date" in text


@pytest.mark.skipif(not GOOG.is_dir(), reason="the recorded session of GOOG is not at hand")
def test_fit_writes_a_market_that_can_be_traded(tmp_path: Path) -> None:
    into = tmp_path / "goog.yaml"
    code, text = call(
        "fit", "--flat-files", str(GOOG), "--date", "2015-12-24", "--symbols", "GOOG",
        "--set", "env.risk_free_rate_pct=0.5", "--into", str(into),
    )  # fmt: skip
    assert code == 0, text
    assert "what is left over" in text
    assert "says next to nothing" in text
    market = yaml.safe_load(into.read_text())["market"]
    assert 0.15 < market["volatility"]["calm"] < 0.30
    assert market["quotes"]["tick"] == "standard"
    code, text = call("describe", "--paths", "20", "--set", f"market.file={into}")
    assert code == 0, text


@pytest.mark.skipif(not GOOG.is_dir(), reason="the recorded session of GOOG is not at hand")
def test_fit_answers_scripts_with_json_and_tells_its_progress_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trading.progress._QUIET_S", 0.0)
    options = ("--flat-files", str(GOOG), "--date", "2015-12-24", "--symbols", "GOOG", "--json")
    result = CliRunner().invoke(app, ["market", "fit", *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["sessions"], told["file"]) == (1, None)
    assert told["market"]["quotes"]["tick"] == "standard"
    assert all({"recorded", "fitted", "measure"} <= set(each) for each in told["left_over"])
    assert told["premium"]["error"] is None, "a single session says next to nothing of it"
    assert "fitting: 4 of 4 rounds, " in result.stderr
