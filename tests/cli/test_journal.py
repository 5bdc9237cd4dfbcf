"""`trading journal` on real files, in processes of its own where it follows or is piped."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.execution.scene import (
    CALL_105,
    NOW_NS,
    SECOND_NS,
    close_order,
    market,
    new_broker,
    open_order,
)
from tests.usual import fee_schedule, risk_limits
from tests.waits import WAIT_S
from trading.cli.main import app
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    DecisionMade,
    PromotedBy,
    RolledBackBy,
)
from trading.execution.journal import Journal
from trading.market.corporate_actions import Split
from trading.market.dividends import Dividend


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Nine events of every common kind: an account that traded once and was refused once."""
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    broker.record([DecisionMade(NOW_NS, "SPY", 4, "iron_condor", 7, 0.25, -0.5, True)])
    broker.submit(open_order(broker, "iron_condor"), market(), True, NOW_NS)
    broker.submit(open_order(broker, "short_call"), market(), True, NOW_NS)
    later_ns = NOW_NS + 60 * SECOND_NS
    order = close_order(broker, limit=9.0, ts_ns=later_ns)
    broker.submit(order, market(later_ns), True, later_ns)
    broker.close_session("2026-01-05", 9_990.0, later_ns + SECOND_NS)
    broker.journal.close()
    return tmp_path / "journal.db"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["journal", *map(str, arguments)])


def damage(path: Path, seq: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER events_are_final_update")
    connection.execute("UPDATE events SET payload = 'no json' WHERE seq = ?", (seq,))
    connection.close()


def test_verify_prints_the_account_its_digest_and_what_was_found(journal: Path) -> None:
    result = run("verify", journal)
    assert result.exit_code == 0, result.output
    printed = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    with Journal(journal, read_only=True) as reader:
        account = reader.fold()
        assert printed["events"] == str(reader.last_seq)
        assert printed["digest"] == reader.digest()
    assert printed["account"] == "paper"
    assert printed["fingerprint"] == account.fingerprint()
    assert printed["integrity"] == "whole"


def test_verify_and_tail_speak_json(journal: Path) -> None:
    told = json.loads(run("verify", journal, "--json").output)
    with Journal(journal, read_only=True) as reader:
        account, last = reader.fold(), reader.last_seq
    assert (told["fills"], told["cash"], told["fees"]) == (
        account.fills,
        account.cash,
        account.fees_paid,
    )
    assert (told["events"], told["integrity"]) == (last, "whole")
    tail = [
        json.loads(line) for line in run("tail", journal, "-n", 2, "--json").output.splitlines()
    ]
    whole = [json.loads(line) for line in run("export", journal).output.splitlines()]
    assert tail == whole[-2:]


def test_verify_ends_with_1_on_a_damaged_tail_and_says_what_will_happen(journal: Path) -> None:
    with Journal(journal, read_only=True) as reader:
        last = reader.last_seq
    damage(journal, last)
    before = journal.read_bytes()
    result = run("verify", journal)
    assert result.exit_code == 1
    assert f"event {last} is damaged" in result.stderr
    assert "keeps the damaged file" in result.stderr
    assert journal.read_bytes() == before


def test_verify_ends_with_1_on_damage_in_the_middle_and_names_the_way_out(journal: Path) -> None:
    damage(journal, 2)
    result = run("verify", journal)
    assert result.exit_code == 1
    assert "event 2 is damaged" in result.stderr
    assert "restore the file from a copy" in result.stderr


def test_verify_ends_with_1_on_a_truncated_file(journal: Path) -> None:
    with journal.open("rb+") as file:
        file.truncate(journal.stat().st_size - 5000)
    result = run("verify", journal)
    assert result.exit_code == 1
    assert "damaged" in result.stderr


@pytest.mark.parametrize("command", ["verify", "export", "tail"])
def test_what_is_no_journal_is_refused_in_one_line(tmp_path: Path, command: str) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 100)
    for path in (text, tmp_path / "absent.sqlite"):
        result = run(command, path)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("trading: ")
        assert path.name in result.stderr
        assert result.stderr.count("\n") == 1


def test_json_lines_hold_every_event_as_it_is_stored(journal: Path) -> None:
    result = run("export", journal)
    assert result.exit_code == 0
    records = [json.loads(line) for line in result.stdout.splitlines()]
    connection = sqlite3.connect(journal)
    rows = connection.execute("SELECT seq, payload FROM events ORDER BY seq").fetchall()
    connection.close()
    assert [record.pop("seq") for record in records] == [seq for seq, _ in rows]
    assert records == [json.loads(payload) for _, payload in rows]


def test_csv_has_one_row_an_event_and_the_fields_of_orders_and_fills(
    journal: Path, tmp_path: Path
) -> None:
    output = tmp_path / "events.csv"
    result = run("export", journal, "--output", output)
    assert (result.exit_code, result.output) == (0, "")
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Journal(journal, read_only=True) as reader:
        events = list(reader.events())
        fees = reader.fold().fees_paid
    assert [int(row["seq"]) for row in rows] == list(range(1, len(events) + 1))
    assert [int(row["ts_ns"]) for row in rows] == [event.ts_ns for event in events]
    assert rows[0]["time_utc"] == "2026-01-05 15:00:00.000"
    assert rows[0]["cash"] == "10000.0"
    fills = [row for row in rows if row["kind"] == "order_filled"]
    assert sum(float(row["fees"]) for row in fills) == pytest.approx(fees)
    assert all(len(json.loads(row["legs"])) == 4 for row in fills)
    rejected = [row for row in rows if row["kind"] == "order_rejected"]
    assert rejected
    assert all(row["reason"] and row["order_id"] for row in rejected)
    assert run("export", journal, "--format", "csv").stdout == output.read_text()


def test_an_export_overwrites_nothing(journal: Path) -> None:
    before = journal.read_bytes()
    result = run("export", journal, "--output", journal)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert journal.read_bytes() == before


def test_an_export_to_nowhere_and_of_a_damaged_journal_leaves_no_file(
    journal: Path, tmp_path: Path
) -> None:
    result = run("export", journal, "--output", tmp_path / "absent" / "events.jsonl")
    assert result.exit_code == 2
    assert f"there is no folder {tmp_path / 'absent'}" in result.stderr
    result = run("export", journal, "--output", tmp_path / "events.xlsx")
    assert result.exit_code == 2
    assert "must end in .jsonl" in result.stderr
    damage(journal, 3)
    result = run("export", journal, "--output", tmp_path / "events.jsonl")
    assert result.exit_code == 1
    assert "event 3" in result.stderr
    assert not list(tmp_path.glob("events*"))
    result = run("export", journal)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2


def test_tail_prints_the_last_events_in_readable_lines(journal: Path) -> None:
    everything = run("tail", journal, "-n", 100).stdout.splitlines()
    with Journal(journal, read_only=True) as reader:
        assert len(everything) == reader.last_seq
    assert run("tail", journal, "-n", 3).stdout.splitlines() == everything[-3:]
    assert run("tail", journal, "-n", 0).stdout == ""
    opened = "1 2026-01-05 15:00:00.000 account_opened paper with 10000.00 USD"
    assert " ".join(everything[0].split()) == opened
    assert "SPY iron_condor (masked), value +0.2500, reward -0.5000, weights 7" in everything[1]
    assert "paper-1 open 1 iron_condor on SPY, market ioc: +1 O:SPY260116P00095000" in everything[2]
    assert "premium +" in everything[3]
    assert "session_closed" in everything[-1]
    assert everything[-1].endswith("2026-01-05, equity 9990.00")


@pytest.fixture
def following(journal: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "trading", "journal", "tail", str(journal), "-n", "1", "-f"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    yield process
    process.kill()
    process.communicate()


def test_tail_tells_stock_assignment_dividends_and_margin(tmp_path: Path) -> None:
    limits = risk_limits(allow_naked_shorts=True)
    broker = new_broker(tmp_path, 20_000.0, limits=limits)
    broker.submit(open_order(broker, "covered_call"), market(), True, NOW_NS)
    dividend = Dividend("SPY", date(2026, 1, 6), 0.8)
    broker.pay_dividends([dividend], NOW_NS)
    broker.settle([CALL_105], {"SPY": 107.0}, NOW_NS)
    broker.submit(open_order(broker, "short_stock"), market(), True, NOW_NS)
    broker.on_bar(market(), NOW_NS, equity=20_000.0, spots={"SPY": 110.0})
    broker.reset_peak(19_000.0, NOW_NS)
    broker.apply_action(Split("SPY", date(2026, 1, 7), 3, 2), NOW_NS)
    broker.journal.close()
    printed = run("tail", tmp_path / "journal.db").output
    for told in (
        "+1 lots SPY at 100.55, -1 O:SPY260116C00105000 at 1.00; premium -9955.00",
        "0.8000 a share on +1 lots of SPY, ex 2026-01-06: cash +80.00",
        "-1 O:SPY260116C00105000 assigned at 2.00, underlying 107.00 (official): cash +10500.00, "
        "stock -1",
        "SPY split 3 for 2, ex 2026-01-07: -1 SPY -> -150 SPY; cash +0.00",
        "SPY holds back 16500.00 a unit",
        "drawdown from 19000.00 on",
    ):
        assert told in printed


def test_following_prints_what_a_live_writer_appends_until_ctrl_c(
    journal: Path, following: subprocess.Popen[str]
) -> None:
    assert following.stdout is not None
    assert "session_closed" in following.stdout.readline()
    with Journal(journal) as writer:
        for number in range(1, 4):
            ts_ns = writer.last_ts_ns + SECOND_NS
            writer.append(DecisionMade(ts_ns, f"S{number}", 0, "hold", 0, 0.0, 0.0))
            line = following.stdout.readline()
            assert line.split()[0] == str(writer.last_seq)
            assert f"S{number} hold" in line
    following.send_signal(signal.SIGINT)
    rest, errors = following.communicate(timeout=WAIT_S)
    assert (following.returncode, rest, errors) == (0, "", "")


def test_a_copy_of_a_journal_that_is_being_written_reads_like_the_original(
    journal: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy" / "journal.db"
    copied.parent.mkdir()
    with Journal(journal) as writer:
        writer.append(DecisionMade(writer.last_ts_ns + 1, "NEW", 0, "hold", 0, 0.0, 0.0))
        for suffix in ("", "-wal"):
            source = journal.with_name(journal.name + suffix)
            shutil.copy(source, copied.with_name(copied.name + suffix))
        expected = run("verify", journal).output
    assert run("verify", copied).output == expected


def test_tail_tells_what_the_gate_decided_with_its_numbers(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, 10_000.0)
    compared = (Compared("simulated", 64, -0.5, -0.75, -0.25, -0.5, 0.0),)
    few = (Compared("recent", 3, 0.5, 0.25, -0.25, None, None),)
    when = (NOW_NS, 1)
    broker.record(
        [
            ChampionPromoted(*when, 17, 0, PromotedBy.GATE, "passed", 10_000.0, 0.01, compared),
            ChallengerRejected(*when, 25, 1, ("kl",), "kl too high", 2, True, 0.2, few),
            ChampionRolledBack(
                *when, 1, 0, 1, RolledBackBy.DRAWDOWN, "equity fell 9 %", 9_100.0, 10_000.0
            ),
        ]
    )
    broker.journal.close()
    printed = run("tail", tmp_path / "journal.db").stdout.splitlines()
    lines = [line.split(maxsplit=4)[3:] for line in printed]
    assert lines[1:] == [
        [
            "champion_promoted",
            "1 (version 17) after none, by gate: passed "
            "(kl 0.0100, simulated -0.250 % [-0.500, +0.000] on 64)",
        ],
        [
            "challenger_refused",
            "version 25, 2 in a row: kl too high; learning begins again from the champion "
            "(kl 0.2000, recent -0.250 % on 3)",
        ],
        [
            "champion_rolled_back",
            "1 (version 0) after 1, by drawdown: equity fell 9 %; equity 9100.00, peak 10000.00",
        ],
    ]
