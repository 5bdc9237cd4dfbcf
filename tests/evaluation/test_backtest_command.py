"""`trading backtest` as it is typed."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trading.cli.evaluation import _about_episodes
from trading.cli.main import app
from trading.config import Settings
from trading.learning.champion.store import weights_digest
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.live import assembly


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


@pytest.mark.parametrize(
    ("acting", "rows"),
    [
        ("sampled", ["policy, sampled", "policy, greedy"]),
        ("greedy", ["policy, greedy", "policy, sampled"]),
        (0.5, ["policy, at temperature 0.5", "policy, greedy"]),
    ],
)
def test_a_checkpoint_is_shown_as_it_trades_first(tmp_path: Path, acting: object, rows: list[str]):
    model = assembly.model_config(Settings())
    write_module_weights(tmp_path, Policy(model, 3).weights())
    result = run("--simulated", 2, "--model", tmp_path, "--set", f"policy.act={acting}")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.output.splitlines()]
    shown = [line for line in lines if line.startswith("policy, ")]
    names = [re.split(r"  +", line)[0] for line in shown]
    assert names[:2] == rows
    assert f"the policy trades {rows[0].removeprefix('policy, ')}" in result.output


def test_progress_is_told_in_sessions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trading.progress._QUIET_S", 0.0)
    result = run("--simulated", 2, "--json")
    told = re.findall(r"^backtest: (\d+) of (\d+) sessions, \S*", result.stderr, re.MULTILINE)
    traders = len(json.loads(result.stdout)["traders"])
    done = [int(each) for each, _ in told]
    assert {int(total) for _, total in told} == {2 * traders}
    assert done == sorted(done) and set(done) == set(range(2 * traders + 1))


def test_how_many_sessions_are_traded_in_a_row_is_said(tmp_path: Path):
    settings = Settings()
    assert _about_episodes(settings, None, 64) == "7 of 10 sessions in a row each"
    assert _about_episodes(settings, None, 1) == "1 of 1 session in a row each"
    told = _about_episodes(settings, tmp_path, 40)
    assert told == "1 session each: each simulated day is a market of its own"


def test_a_folder_without_a_history_is_refused(tmp_path: Path):
    result = run("--history", tmp_path)
    assert result.exit_code == 1
    assert "no history in" in result.output


def test_neither_history_nor_simulation_is_refused():
    result = run()
    assert result.exit_code == 2
    assert "--simulated" in result.output


def test_json_and_the_page_tell_of_the_model_that_was_asked_about(tmp_path: Path):
    weights = Policy(assembly.model_config(Settings()), 3).weights()
    write_module_weights(tmp_path, weights)
    page = tmp_path / "sheet.html"
    result = run(
        "--simulated", 2, "--model", tmp_path, "--json", "--html", page,
        "--set", "execution.commission=0.5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["asked"] == "policy, sampled"
    assert told["about"]["weights"] == weights_digest(weights)
    assert told["about"]["model"] == str(tmp_path)
    assert "execution.commission=0.5" in told["about"]["settings"]
    assert {"hold cash", "buy and hold"} < set(told["traders"])
    assert len(told["traders"]["hold cash"]["sessions"]) == 2
    first, last = told["traders"]["buy and hold"]["sessions"]
    assert first["closed_return"] == first["return"], "the position goes through the night"
    assert last["closed_return"] < last["return"], "selling it pays half the spread"
    assert weights_digest(weights) in page.read_text()


def test_a_model_may_trade_without_the_baselines(tmp_path: Path):
    write_module_weights(tmp_path, Policy(assembly.model_config(Settings()), 3).weights())
    result = run("--simulated", 1, "--model", tmp_path, "--json", "--no-baselines")
    assert result.exit_code == 0, result.output
    assert [*json.loads(result.stdout)["traders"]] == ["policy, sampled", "policy, greedy"]
    nobody = run("--simulated", 1, "--no-baselines")
    assert nobody.exit_code == 2
    assert "name --model or --trader" in nobody.stderr


@pytest.mark.parametrize("verb", ["backtest", "evaluate"])
@pytest.mark.parametrize("name", ["nodir/sheet.html", "sheet.pdf"])
def test_a_page_that_cannot_be_written_is_refused_before_the_work(verb: str, name: str):
    result = CliRunner().invoke(app, [verb, "--simulated", "2", "--html", name])
    assert result.exit_code == 2
    assert name in result.stderr
