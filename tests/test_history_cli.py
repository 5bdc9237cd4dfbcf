"""`trading history` on recordings and flat files, and training on what it writes."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.envs.goog import FOLDER, recorded_goog
from tests.waits import WAIT_S
from trading.cli import app
from trading.config import load_settings
from trading.data.recording import Recorder
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import History
from trading.errors import ConfigError, DataError
from trading.learning.build import training_environment
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

ROOT = Path(__file__).parents[1]
DAY = date(2026, 1, 5)
SESSION = ExchangeCalendar().session_on(DAY)
MINUTES = 40


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["history", *arguments])


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first minutes of a simulated session, told to a recorder."""
    assert SESSION is not None
    folder = tmp_path_factory.mktemp("recordings")
    exchange = SimulatedExchange([UnderlyingSpec("AAA", 100.0, 0.25, 15)], DAY, 3, step_seconds=20)
    market = exchange.session(DAY)
    with Recorder(folder, waits=True) as recorder:
        recorder.begin_session(SESSION)
        recorder.list_contracts("AAA", market.contracts)
        sequence = 0
        for step in market.steps():
            for row, contract in enumerate(step.index.tolist()):
                sequence += 1
                recorder.quote(
                    market.contracts[contract].symbol,
                    float(step.bid[row]),
                    float(step.ask[row]),
                    float(step.bid_size[row]),
                    float(step.ask_size[row]),
                    int(step.quote_ns[row]),
                    sequence,
                )
            for bar in step.bars:
                recorder.bar(bar)
            if step.bars:
                recorder.close_bar(step.ts_ns)
            if step.ts_ns >= SESSION.open_ns + MINUTES * MINUTE_NS:
                break
    return folder


def test_recorded_days_become_a_history_that_is_listed(recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    days = ("--date", str(DAY), "--symbols", "AAA", "--into", str(folder))
    done = run(*days, "--recordings", str(recordings))
    assert done.exit_code == 0, done.output
    assert "--set learning.history=" in done.output
    (day,) = History(folder, DEFAULT_RULES, DEFAULT_FEES).days
    assert (day.underlying, day.date, day.frames) == ("AAA", str(DAY), MINUTES)
    shown = run("--show", "--into", str(folder))
    assert shown.exit_code == 0
    assert "AAA" in shown.output and str(DAY) in shown.output


def test_a_real_day_of_flat_files_becomes_a_history(tmp_path: Path) -> None:
    recorded_goog()
    done = run(
        *("--flat-files", str(FOLDER), "--date", "2015-12-24", "--symbols", "GOOG"),
        *("--into", str(tmp_path / "history")),
    )
    assert done.exit_code == 0, done.output
    assert "2,192" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "name the days with --date"),
        (("--date", "yesterday"), 2, "--date yesterday: must be a date"),
        (("--date", "2026-01-05", "--until", "2026-01-02"), 2, "--until needs a --date"),
        (("--date", "2026-01-05", "--flat-files", "a", "--catalog", "b"), 2, "exclude each other"),
        (("--show", "--date", "2026-01-05"), 2, "--show only reads"),
        (("--date", "2026-01-05", "--recordings", "nowhere"), 1, "data.record=true"),
        (
            (
                "--date",
                "2026-01-04",
            ),
            1,
            "no session from 2026-01-04",
        ),
    ],
)
def test_a_wrong_call_is_refused_with_the_way_out(
    arguments: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--into", str(tmp_path / "history"))
    assert done.exit_code == code
    assert told in done.stderr
    assert not (tmp_path / "history").exists()


def test_accounts_that_do_not_fill_the_markets_and_missing_histories_end_the_start(
    tmp_path: Path,
) -> None:
    settings = load_settings(None, ["learning.accounts_per_market=3"], {})
    with pytest.raises(ConfigError, match=r"learning\.accounts_per_market: 3 does not divide"):
        training_environment(settings, DEFAULT_RULES, DEFAULT_FEES)
    settings = load_settings(None, [f"learning.history={tmp_path}"], {})
    with pytest.raises(DataError, match="trading history"):
        training_environment(settings, DEFAULT_RULES, DEFAULT_FEES)


@pytest.mark.slow
def test_the_algorithm_trains_on_a_history(recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    days = ("--date", str(DAY), "--symbols", "AAA", "--into", str(folder))
    assert run(*days, "--recordings", str(recordings)).exit_code == 0
    program = [sys.executable, "-m", "trading", "train", "--steps", "64"]
    values = (
        f"learning.history={folder}",
        f"paths.state_dir={tmp_path / 'state'}",
        f"paths.checkpoint_dir={tmp_path / 'checkpoints'}",
        "learning.num_envs=4",
        "learning.rollout_length=16",
    )
    options = [part for value in values for part in ("--set", value)]
    done = subprocess.run(
        [*program, *options], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "checkpoints").iterdir())
