"""What must hold of an application after a part of it has died or hung."""

import time
from pathlib import Path
from typing import Any

from tests.e2e.application import Application
from tests.waits import STOP_S
from trading.execution.events import OrderAccepted
from trading.execution.journal import Journal
from trading.execution.portfolio import Account


def pairs(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def await_decisions(application: Application, more: int = 3) -> dict[str, Any]:
    """The status after so many more decisions; one that has just started has none to tell yet."""

    def open_account() -> int | None:
        told = application.status().get("account")
        return told["decisions"] if told else None

    before = application.wait_until("an account", open_account)

    def traded() -> dict[str, Any] | None:
        now = application.status()
        return now if now.get("account", {}).get("decisions", 0) >= before + more else None

    return application.wait_until(f"{more} decisions", traded)


def check_account(application: Application) -> None:
    """What is told of the account is what its journal says, and no order was sent twice."""
    journal = application.log.parent / "state" / "journal-paper.sqlite"
    same_account(journal, application.status()["account"])


def same_account(path: Path, told: dict[str, Any]) -> None:
    """Of `/status`'s account, and its journal."""
    account, orders = Account(), []
    with Journal(path, read_only=True) as journal:
        for number, event in enumerate(journal.events(), 1):
            account.apply(event)
            if isinstance(event, OrderAccepted):
                orders.append(event.order.order_id)
            if number == told["journal_events"]:
                break
    assert account.fingerprint() == told["fingerprint"]
    assert len(set(orders)) == len(orders), "an order was sent twice"


def is_gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def await_gone(processes: set[int]) -> None:
    """Until none of these processes is left."""
    deadline = time.monotonic() + STOP_S
    while left := [each for each in processes if not is_gone(each)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.2)
