"""Which weights trade: the champion, what lets a challenger become it, and where it is kept."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.learning.champion.gate import Gate as Gate
    from trading.learning.champion.gate import GateLimits as GateLimits
    from trading.learning.champion.gate import GateResult as GateResult
    from trading.learning.champion.manager import ChampionManager as ChampionManager
    from trading.learning.champion.store import AccountChampion as AccountChampion
    from trading.learning.champion.store import Champion as Champion
    from trading.learning.champion.store import ChampionStore as ChampionStore

_PLACES = {
    "Gate": "gate",
    "GateLimits": "gate",
    "GateResult": "gate",
    "AccountChampion": "store",
    "ChampionManager": "manager",
    "Champion": "store",
    "ChampionStore": "store",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
