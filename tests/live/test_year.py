"""Every dollar of sessions with rare events: the year (soak), and its short form for CI.

Through the real server, stream, admission, broker and journal; a script decides.
"""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.live.dollars import Dollars, exact
from tests.live.year import CALENDAR, Lived, days, live, settings_for, world
from trading.cli.main import app
from trading.config import Settings
from trading.execution.catch_up import DELISTED, pending
from trading.live import assembly
from trading.market.rare_events import RareEvents, RareKind

SESSIONS = int(os.environ.get("YEAR_SESSIONS", "252"))
DAYS = days(12)
PLANNED = {
    ("AAA", DAYS[1]): RareKind.BAD_PRINTS,
    ("BBB", DAYS[1]): RareKind.BAD_PRINTS,
    ("EEE", DAYS[1]): RareKind.HALT,
    ("AAA", DAYS[2]): RareKind.SPLIT,
    ("BBB", DAYS[2]): RareKind.UNEVEN_SPLIT,
    ("EEE", DAYS[3]): RareKind.SPECIAL_DIVIDEND,
    ("CCC", DAYS[3]): RareKind.RENAME,
    ("DDD", DAYS[3]): RareKind.DELISTING,
    # The first Friday, on which weekly contracts expire.
    ("FFF", DAYS[4]): RareKind.WHOLE_SESSION_HALT,
    ("BBB", DAYS[3]): RareKind.BAD_PRINTS,
}


def journal_command(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["journal", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def open_ns(sessions: int) -> int:
    """The open of the session after so many."""
    session = CALENDAR.session_on(days(sessions + 1)[-1])
    assert session is not None
    return session.open_ns


def explained(settings: Settings, lived: Lived) -> Dollars:
    """The account by its printed rows alone; they must say all that the account itself says."""
    path = assembly.journal_path(settings)
    printed = dict(line.split(maxsplit=1) for line in journal_command("verify", path).splitlines())
    assert printed["integrity"] == "whole"
    rows = Dollars().read(journal_command("export", path).splitlines())
    account = lived.env.broker.account
    assert printed["fingerprint"] == account.fingerprint()
    assert rows.faults == []
    assert f"{rows.cash:.2f}" == printed["cash"]
    assert rows.cash == exact(account.cash)
    held = {symbol: each.quantity for symbol, each in account.positions.items()}
    assert rows.quantities == held
    assert float(rows.value(lived.marks)) == pytest.approx(lived.equity, abs=0.005)
    # What has expired is settled, wherever its close is known.
    late = pending(account, CALENDAR, account.last_ts_ns)
    assert {day for each in late.values() for day in each} == set()
    assert lived.watched.problems == []
    return rows


def suspended(settings: Settings) -> Counter[str]:
    """How often underlyings were suspended, by the first words of the reason."""
    rows = journal_command("export", assembly.journal_path(settings)).splitlines()
    reasons = (json.loads(row).get("reason", "") for row in rows if "_suspended" in row)
    return Counter(" ".join(reason.split()[:3]) for reason in reasons)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_rare_event_on_held_positions_leaves_every_dollar_explained(tmp_path: Path) -> None:
    symbols = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
    settings = settings_for(tmp_path, symbols, bar_seconds=1800)
    rare = RareEvents(planned=PLANNED)

    def again() -> object:
        return world(symbols, rare, strikes=5, requotes=0.2)

    # Three processes: the second one starts in the middle of a session, the last one at an open.
    first = live(settings, again(), open_ns(7), stop_after=13 * 2 + 4, closing=0.0)
    second = live(settings, again(), open_ns(5), closing=0.0)
    last = live(settings, again(), open_ns(7), closing=0.0)
    assert second.finished and last.finished
    rows = explained(settings, last)
    for kind in ("split", "special_dividend", "rename"):
        assert rows.kinds[f"action {kind}"] >= 1, rows.kinds
    assert rows.kinds["action split"] == 2
    reasons = suspended(settings)
    assert reasons["its stock is"] >= 2, reasons
    assert reasons[f"delisted on {DAYS[3]}"] == 1, reasons
    assert reasons["no official close"] >= 1, reasons
    assert sum(each.seen["crossed quotes"] for each in (first, second, last)) >= 2
    assert sum(each.refused["unconfirmed"] for each in (first, second, last)) >= 2
    account = last.env.broker.account
    assert any(each.startswith(DELISTED) for each in account.suspensions["DDD"])
    assert "CCC" not in account.strategies
    assert "CCCX" in account.strategies


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_year_with_all_rare_events_ends_with_every_dollar_explained(tmp_path: Path) -> None:
    symbols = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
    settings = settings_for(tmp_path, symbols, bar_seconds=1800)
    rare = RareEvents(2.0, 2.0, 2.0, 2.0, 12.0, 40.0)
    exchange = world(symbols, rare, strikes=5, requotes=0.2, seed=8)
    began_s = time.monotonic()
    lived = live(settings, exchange, open_ns(SESSIONS))
    print(f"{SESSIONS} sessions in {time.monotonic() - began_s:.0f} s")
    assert lived.finished
    rows = explained(settings, lived)
    print({**rows.kinds}, {**lived.seen}, lived.refused, suspended(settings), lived.equity)
    print({name: str(amount) for name, amount in rows.by_category.items()})
    assert rows.kinds["session_closed"] == SESSIONS
    if SESSIONS >= 252:
        for kind in ("split", "special_dividend", "rename"):
            assert rows.kinds[f"action {kind}"] >= 1
        reasons = suspended(settings)
        # What nobody held when it left is only seen to be listed no more.
        assert any(reason.startswith((DELISTED, "it cannot be")) for reason in reasons)
        assert reasons["its stock is"]
        assert lived.seen["crossed quotes"] and lived.refused["unconfirmed"]
