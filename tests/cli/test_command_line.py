"""The command as a whole: its help, what a wrong word gets, and what each verb leaves unloaded."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from trading.cli import reference
from trading.cli.common import DEBUG_VARIABLE
from trading.cli.main import app, main
from trading.cli.verbs import EXAMPLES, GROUPS
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal

VERBS = [verb for verbs in GROUPS.values() for verb in verbs]
HEAVY = ("torch", "ray", "numba")
SAYS_WHAT_IT_LOADED = """
import json, sys
from trading.cli.main import app

for call in json.loads(sys.argv[1]):
    try:
        app(call, prog_name="trading", standalone_mode=False)
    except BaseException as ended:
        if getattr(ended, "exit_code", getattr(ended, "code", None)) not in (0, None):
            raise
    loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    print(f"LOADED {loaded} by {' '.join(call)}", file=sys.stderr)
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words, prog_name="trading")


def test_a_fault_outside_of_every_verb_ends_with_its_line_and_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise ValueError("an odd number")

    left: list[int] = []
    monkeypatch.setattr("trading.cli.main.app", fails)
    monkeypatch.setattr("trading.app.ray_threads.leave", left.append)
    monkeypatch.setattr("sys.argv", ["trading", "status"])
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and left == [1]
    assert "trading: a fault of the application: ValueError: an odd" in capsys.readouterr().err


def loaded_by(calls: list[list[str]], names: tuple[str, ...]) -> list[str]:
    """What one process after these calls has loaded, a line for each call that loaded any."""
    command = [sys.executable, "-c", SAYS_WHAT_IT_LOADED, json.dumps(calls), json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert len(told) == len(calls)
    return [line for line in told if not line.startswith("LOADED []")]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with a journal of one decision."""
    with Journal(tmp_path / "journal-paper.sqlite") as journal:
        account = journal.open_account("paper", 10_000.0, 1)
        journal.append(DecisionMade(account.last_ts_ns + 1, "SPY", 0, "hold", 0, 0.0, 0.0))
    return tmp_path


def test_the_help_fits_a_screen_and_names_every_verb_in_its_group() -> None:
    result = run("--help")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 79
    for group, verbs in GROUPS.items():
        assert sum(line.startswith(f"{group} ") for line in lines) == 1
        for verb in verbs:
            shown = any(f" {verb.name} " in line and verb.about in line for line in lines)
            assert shown is not verb.is_hidden
    assert all(any(example in line for line in lines) for example, _ in EXAMPLES)
    assert run("-h").output == result.output


def test_every_example_of_the_help_is_a_call_that_its_verb_takes() -> None:
    for example, _ in EXAMPLES:
        verb, *options = example.split()[1:]
        names = [word for word in options if word.startswith("--")]
        told = run(verb, "-h").output
        assert all(name in told for name in names)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_explains_itself(verb: object) -> None:
    name = verb.name  # type: ignore[attr-defined]
    result = run(name, "-h")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: trading {name} ")
    assert max(map(len, result.output.splitlines())) <= 80


def test_every_verb_takes_settings_alike_and_what_prints_data_speaks_json() -> None:
    """But those that run until they are stopped, write a file, or say in a line what they did."""
    quiet = {"up", "train", "feed", "compile-kernels", "market plot", "journal export"}
    quiet |= {f"checkpoints {each}" for each in ("card", "export")}
    for group, words, command in reference.verbs():
        if getattr(command, "commands", None):
            continue
        takes = {name for each in command.params for name in each.opts}
        if words != "config reference" and "compile-kernels" not in words:
            assert {"--config", "--set"} <= takes, (group, words)
        assert ("--json" in takes) is (words not in quiet), words


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("backtst",), "trading backtest"),
        (("start",), "trading up"),
        (("status",), "trading account status"),
        (("flaten",), "trading account flatten"),
        (("verfy",), "trading journal verify"),
        (("zzz",), "trading --help"),
        (("journal", "tial"), "tail"),
        (("backtest", "--simulate", "3"), "--simulated"),
    ],
)
def test_a_wrong_word_gets_what_may_have_been_meant(words: tuple[str, ...], meant: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_the_version_is_the_installed_one() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"trading {version('trading')}\n")


def test_a_shell_completes_verbs_and_options() -> None:
    def completed(words: str, place: int) -> list[str]:
        asked = {
            "_TRADING_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": f"{place}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "trading"],
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert completed("trading jo", 1) == ["journal"]
    assert completed("trading backtest --sim", 2) == ["--simulated"]


def test_the_help_of_no_verb_loads_torch_ray_or_numba() -> None:
    calls = [["--help"], ["--version"], *([verb.name, "--help"] for verb in VERBS)]
    assert loaded_by(calls, HEAVY) == []


def test_the_top_help_loads_no_settings() -> None:
    assert loaded_by([["--help"]], ("pydantic", "numpy", "rich", "yaml", *HEAVY)) == []


def test_verbs_that_fold_no_account_load_neither_torch_nor_ray_nor_numba(state: Path) -> None:
    journal = str(state / "journal-paper.sqlite")
    own = ["--set", f"paths.state_dir={state}"]
    calls = [
        ["stop", *own],
        ["journal", "tail", journal],
        ["journal", "tail", *own],
        ["journal", "export", journal],
        ["config", *own],
    ]
    assert loaded_by(calls, HEAVY) == []


def test_the_journal_is_the_settings_accounts_where_none_is_named(state: Path) -> None:
    own = ("--set", f"paths.state_dir={state}")
    named = run("journal", "tail", str(state / "journal-paper.sqlite"))
    assert named.exit_code == 0 and "SPY hold" in named.output
    assert run("journal", "tail", *own).output == named.output
    assert run("journal", "export", *own).output.count("\n") == 2
    other = run("journal", "verify", *own, "--set", "account.id=another")
    assert other.exit_code == 1
    assert "journal-another.sqlite" in other.stderr


def test_verbs_that_only_keep_accounts_load_neither_torch_nor_ray(state: Path) -> None:
    (state / "checkpoints").mkdir()
    own = ["--set", f"paths.state_dir={state}"]
    calls = [
        ["checkpoints", "list", *own],
        ["journal", "verify", str(state / "journal-paper.sqlite")],
        ["account", "status", *own],
        ["account", "halt", *own],
        ["account", "resume", *own],
        ["doctor", *own, "--set", "serving.port=0"],
    ]
    assert loaded_by(calls, ("torch", "ray")) == []


def test_the_reference_command_filters_by_key_and_speaks_json() -> None:
    told = run("config", "reference", "max_daily").output
    assert told.startswith("risk.max_daily_loss_pct = 5 %\n")
    listed = json.loads(run("config", "reference", "--json").output)
    assert {"key", "about", "unit", "allowed", "default", "environment"} == set(listed[0])
    wrong = run("config", "reference", "no_such_setting")
    assert wrong.exit_code == 2
    assert "no_such_setting" in wrong.stderr


def test_config_prints_the_settings_as_json_too() -> None:
    plain = run("config", "--set", "seed=9").output
    as_json = run("config", "--set", "seed=9", "--json").output
    assert yaml.safe_load(plain) == json.loads(as_json)
    assert json.loads(as_json)["seed"] == 9
