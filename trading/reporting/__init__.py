"""An account's journal as a report."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.reporting.ledger import Ledger as Ledger
    from trading.reporting.ledger import Period as Period
    from trading.reporting.ledger import read_ledger as read_ledger
    from trading.reporting.report import Report as Report
    from trading.reporting.report import make_report as make_report
    from trading.reporting.sheet import report_page as report_page
    from trading.reporting.stress import Stress as Stress
    from trading.reporting.stress import stress_of_status as stress_of_status

_PLACES = {
    "Ledger": "ledger",
    "Period": "ledger",
    "read_ledger": "ledger",
    "Report": "report",
    "make_report": "report",
    "report_page": "sheet",
    "Stress": "stress",
    "stress_of_status": "stress",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
