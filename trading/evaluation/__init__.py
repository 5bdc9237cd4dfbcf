"""Whole sessions traded with what was learnt, and their figures."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.evaluation.attribution import explain as explain
    from trading.evaluation.backtest import Backtest as Backtest
    from trading.evaluation.backtest import backtest_history as backtest_history
    from trading.evaluation.backtest import backtest_simulation as backtest_simulation
    from trading.evaluation.summary import summaries as summaries
    from trading.evaluation.walk_forward import Fold as Fold
    from trading.evaluation.walk_forward import FoldsError as FoldsError

_PLACES = {
    "explain": "attribution",
    "Backtest": "backtest",
    "backtest_history": "backtest",
    "backtest_simulation": "backtest",
    "summaries": "summary",
    "Fold": "walk_forward",
    "FoldsError": "walk_forward",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
