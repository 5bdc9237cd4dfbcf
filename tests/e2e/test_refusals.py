"""What the command says when it cannot start: one readable line, and an exit code."""

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.application import ROOT, Application, environment
from tests.live.market import FirstMinutes, serving
from tests.waits import WAIT_S


def trading(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trading", *arguments],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def messages(application: Application) -> list[str]:
    """The lines in which the command itself speaks."""
    return [line for line in application.output().splitlines() if line.startswith("trading: ")]


def test_every_mistake_in_the_settings_is_one_line_and_the_exit_code_is_2(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(
        "acount: {id: x}\naccount: {initial_capital: -5}\nsymbols: [SPY, 'not a symbol']\n"
    )
    result = trading("up", "--config", str(config), "--set", "serving.port=web")
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 4
    for key in ("acount", "account.initial_capital = -5", "not a symbol", "serving.port"):
        assert sum(key in line for line in lines) == 1, result.stderr
    assert result.stdout == ""


def test_a_missing_settings_file_exits_2_and_names_it() -> None:
    result = trading("up", "--config", "no/such.yaml")
    assert result.returncode == 2, result.stderr
    assert (
        result.stderr.strip() == "trading: no/such.yaml: no such file; name an existing YAML file"
    )


def test_bad_values_of_environment_variables_exit_2() -> None:
    result = trading("up", MAX_POSITIONS="-1")
    assert result.returncode == 2, result.stderr
    assert "MAX_POSITIONS" in result.stderr


def test_massive_without_a_key_exits_2_and_names_the_variable() -> None:
    result = trading("up", "--config", "configs/paper.yaml", MASSIVE_API_KEY="")
    assert result.returncode == 2, result.stderr
    assert "MASSIVE_API_KEY" in result.stderr


def test_a_taken_port_exits_1_and_says_how_to_choose_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        state = f"paths.state_dir={tmp_path}"
        result = trading("up", "--set", state, "--port", str(port))
    assert result.returncode == 1, result.stderr
    assert f"127.0.0.1:{port}" in result.stderr and "--port" in result.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_wrong_key_ends_with_a_clear_message_and_without_the_key(tmp_path: Path) -> None:
    with serving(FirstMinutes(2)) as (endpoint, _):
        up = Application.up(
            tmp_path,
            "--set",
            "data.source=massive",
            "--set",
            f"data.massive.websocket_url={endpoint.websocket_url}",
            "--set",
            f"data.massive.rest_url={endpoint.rest_url}",
            "--set",
            "symbols=[AAA]",
            "--set",
            "learning.pretrain_steps=0",
            env=environment(MASSIVE_API_KEY="sesame-of-the-test"),
        )
        with closing(up):
            assert up.wait_exit() == 1, up.output()
    message, logs = messages(up)
    assert logs.startswith("trading: logs of its parts: ")
    assert "API key" in message and "MASSIVE_API_KEY" in message
    assert "sesame-of-the-test" not in up.output()


@pytest.mark.slow
@pytest.mark.long
def test_a_replay_of_a_missing_day_names_the_file(tmp_path: Path) -> None:
    up = Application.up(
        tmp_path, "--replay", str(tmp_path), "--date", "2020-01-02", "--symbols", "GOOG"
    )
    with closing(up):
        assert up.wait_exit() == 1, up.output()
    (message,) = messages(up)
    assert "2020-01-02.csv.gz" in message
