"""`trading history` on recordings and flat files, and training on what it writes."""

import contextlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.data import test_odd_files as odd_files
from tests.envs.goog import FOLDER, recorded_goog
from tests.waits import WAIT_S
from trading.cli.main import app
from trading.config import load_settings
from trading.data.catalog import Catalog
from trading.data.recording import Recorder
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import History
from trading.errors import ConfigError, DataError, FlatFileError
from trading.learning.build import training_environment
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.contracts import parse_symbol
from trading.market.option_quote import OptionQuote
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

ROOT = Path(__file__).parents[2]
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
                columns = (step.bid, step.ask, step.bid_size, step.ask_size, step.quote_ns)
                quote = (column[row].item() for column in columns)
                symbol = market.contracts[contract].symbol
                recorder.quote(OptionQuote(symbol, *quote, sequence))
            for bar in step.bars:
                recorder.bar(bar)
            if step.bars:
                recorder.close_bar(step.ts_ns)
            if step.ts_ns >= SESSION.open_ns + MINUTES * MINUTE_NS:
                break
    return folder


def test_recorded_days_become_a_history_that_is_listed(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "history"
    days = ("--date", str(DAY), "--symbols", "AAA", "--into", str(folder))
    monkeypatch.setattr("trading.progress._QUIET_S", 0.0)
    done = run(*days, "--recordings", str(recordings))
    assert done.exit_code == 0, done.output
    assert "recorded days: 1 of 1 sessions, " in done.stderr
    assert "--set learning.history=" in done.output
    (day,) = History(folder, DEFAULT_RULES, DEFAULT_FEES).days
    assert (day.underlying, day.date, day.bars) == ("AAA", str(DAY), MINUTES)
    shown = run("--show", "--into", str(folder))
    assert shown.exit_code == 0
    assert "AAA" in shown.output and str(DAY) in shown.output
    told = json.loads(run("--show", "--into", str(folder), "--json").output)
    assert told["folder"] == str(folder)
    assert {(each["underlying"], each["date"]) for each in told["days"]} == {("AAA", str(DAY))}


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


FLAT_DAY = date(2016, 1, 4)


def one_sided(row: str) -> str:
    cells = row.split(",")
    cells[5] = "0"
    return ",".join(cells)


UNTRADABLE = {
    "no row of quotes": ([], odd_files.BAR_ROWS, "no contract of ACME is quoted"),
    "no row of bars": (odd_files.QUOTE_ROWS, [], "nothing could be opened"),
    "nothing of the symbol": (
        [row.replace("ACME", "OTHER") for row in odd_files.QUOTE_ROWS],
        odd_files.BAR_ROWS,
        "no contract of ACME is quoted",
    ),
    "one side": (
        [one_sided(row) for row in odd_files.QUOTE_ROWS],
        odd_files.BAR_ROWS,
        "8 contracts have 8 quotes, 0 of them with both sides",
    ),
    "all rows refused": (
        [row.replace(",1.1", ",-1.1") for row in odd_files.QUOTE_ROWS],
        odd_files.BAR_ROWS,
        "8 with negative ask_price",
    ),
    "all bars refused": (
        odd_files.QUOTE_ROWS,
        [row.replace(",100,100.1", ",-100,100.1") for row in odd_files.BAR_ROWS],
        "open not above 0",
    ),
    "quotes after the close": (
        [
            row.rsplit(",", 1)[0] + f",{(odd_files.OPEN_S + 8 * 3600 + n) * 10**9}"
            for n, row in enumerate(odd_files.QUOTE_ROWS)
        ],
        odd_files.BAR_ROWS,
        "nothing could be opened",
    ),
}


@pytest.mark.parametrize("kind", UNTRADABLE)
@pytest.mark.parametrize("source", ["flat files", "catalogue"])
def test_a_day_in_which_nothing_can_be_traded_is_refused_with_what_is_wrong(
    tmp_path: Path, kind: str, source: str
) -> None:
    quotes, bars, told = UNTRADABLE[kind]
    header = odd_files.QUOTE_HEADER
    odd_files.write(tmp_path, odd_files.QUOTES, odd_files.lines(header, quotes))
    odd_files.write(tmp_path, odd_files.BARS, odd_files.lines(odd_files.BAR_HEADER, bars))
    into = tmp_path / "history"
    arguments = ["--flat-files", str(tmp_path)]
    if source == "catalogue":
        catalog = tmp_path / "catalog"
        for each in (odd_files.QUOTES, odd_files.BARS):
            path = tmp_path / odd_files.flat_file_key(each, FLAT_DAY)
            with contextlib.suppress(FlatFileError):
                odd_files.import_flat_file(Catalog(catalog), path, each, FLAT_DAY)
        arguments = ["--catalog", str(catalog)]
    done = run(*arguments, "--date", str(FLAT_DAY), "--symbols", "ACME", "--into", str(into))
    assert done.exit_code == 1, done.output
    if source == "flat files":
        assert told in " ".join(done.stderr.split())
    assert "2016-01-04" in done.stderr and "download it again" not in done.stderr
    assert not into.exists()


def test_a_recording_in_which_nothing_can_be_traded_is_refused(tmp_path: Path) -> None:
    assert SESSION is not None
    with Recorder(tmp_path / "recordings", waits=True) as recorder:
        recorder.begin_session(SESSION)
        recorder.list_contracts("AAA", [parse_symbol("O:AAA260116C00100000")])
        recorder.close_bar(SESSION.open_ns + MINUTE_NS)
    into = tmp_path / "history"
    done = run(
        *("--recordings", str(tmp_path / "recordings"), "--date", str(DAY), "--symbols", "AAA"),
        *("--into", str(into)),
    )
    assert done.exit_code == 1, done.output
    assert "nothing could be opened in any of 1 bars" in " ".join(done.stderr.split())
    assert not into.exists()


def test_a_history_that_was_there_outlives_one_that_is_refused(
    recordings: Path, tmp_path: Path
) -> None:
    into = tmp_path / "history"
    days = ("--date", str(DAY), "--symbols", "AAA", "--into", str(into))
    assert run(*days, "--recordings", str(recordings)).exit_code == 0
    odd_files.write(
        tmp_path, odd_files.QUOTES, odd_files.lines(odd_files.QUOTE_HEADER, odd_files.QUOTE_ROWS)
    )
    odd_files.write(tmp_path, odd_files.BARS, odd_files.lines(odd_files.BAR_HEADER, []))
    flat = ("--flat-files", str(tmp_path), "--date", str(FLAT_DAY), "--symbols", "ACME")
    assert run(*flat, "--into", str(into)).exit_code == 1
    assert [day.underlying for day in History(into, DEFAULT_RULES, DEFAULT_FEES).days] == ["AAA"]


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
