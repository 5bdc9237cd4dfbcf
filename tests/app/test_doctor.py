"""`trading doctor` and how commands fail, as processes of their own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.market import FirstMinutes, serving
from tests.waits import WAIT_S

ROOT = Path(__file__).parents[2]


def trading(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MASSIVE_"))}
    return subprocess.run(
        [sys.executable, "-m", "trading", *arguments],
        cwd=ROOT,
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def findings(*arguments: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = trading("doctor", "--json", *arguments, **env)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    return done.returncode, {row["name"]: row for row in rows}


def test_every_part_is_looked_at(tmp_path: Path) -> None:
    code, found = findings("--set", f"paths.state_dir={tmp_path}", "--set", "serving.port=0")
    assert code == 0
    assert set(found) == {
        *("python", "cores", "memory", "shared memory", "state", "checkpoints", "port"),
        *("clock", "ray", "gpu", "compiler", "vendor"),
    }
    assert all(each["level"] in ("ok", "warn") for each in found.values())
    assert all(each["do"] for each in found.values() if each["level"] == "warn")


def test_a_taken_port_and_a_folder_that_is_a_file_fail_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, found = findings("--set", f"paths.state_dir={file}", "--set", f"serving.port={port}")
    assert code == 1
    assert found["port"]["level"] == "fail" and "--port" in found["port"]["do"]
    assert found["state"]["level"] == "fail" and "paths.state_dir" in found["state"]["do"]


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    code, found = findings(
        *("--set", f"paths.state_dir={tmp_path}", "--set", "serving.port=0"),
        *("--set", "ray.address=127.0.0.1:1"),
    )
    assert code == 1
    assert found["ray"]["level"] == "fail" and "RAY_ADDRESS" in found["ray"]["do"]


@pytest.mark.slow
def test_a_wrong_key_is_told_without_the_key(tmp_path: Path) -> None:
    with serving(FirstMinutes(2)) as (endpoint, _):
        code, found = findings(
            *("--set", f"paths.state_dir={tmp_path}", "--set", "serving.port=0"),
            *("--set", "data.source=massive", "--set", "symbols=[AAA]"),
            *("--set", f"data.massive.rest_url={endpoint.rest_url}"),
            MASSIVE_API_KEY="sesame-of-the-test",
        )
    assert code == 1
    assert found["vendor"]["level"] == "fail" and "MASSIVE_API_KEY" in found["vendor"]["do"]
    assert "sesame-of-the-test" not in json.dumps(found)


def test_a_missing_day_is_told_before_ray_starts_and_debug_shows_where(tmp_path: Path) -> None:
    replay = ("up", "--replay", str(tmp_path), "--date", "2020-01-02", "--symbols", "GOOG")
    plain = trading(*replay)
    assert plain.returncode == 1
    (line,) = plain.stderr.strip().splitlines()
    assert line.startswith("trading: flat file ") and "2020-01-02.csv.gz does not exist" in line
    assert "starting Ray" not in plain.stdout
    debug = trading(*replay, "--debug")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr and "FlatFileError" in debug.stderr
