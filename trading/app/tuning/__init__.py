"""Settings are searched, scored on sessions that nothing learns from."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.app.tuning.outcome import settings_layer as settings_layer
    from trading.app.tuning.outcome import winner_of as winner_of
    from trading.app.tuning.plan import SearchPlan as SearchPlan
    from trading.app.tuning.plan import TrialFold as TrialFold
    from trading.app.tuning.plan import plan_of_days as plan_of_days
    from trading.app.tuning.plan import plan_of_markets as plan_of_markets
    from trading.app.tuning.record import TrialEnd as TrialEnd
    from trading.app.tuning.record import TrialLog as TrialLog
    from trading.app.tuning.record import TrialScore as TrialScore

_PLACES = {
    "settings_layer": "outcome",
    "winner_of": "outcome",
    "TrialFold": "plan",
    "SearchPlan": "plan",
    "plan_of_days": "plan",
    "plan_of_markets": "plan",
    "TrialEnd": "record",
    "TrialScore": "record",
    "TrialLog": "record",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
