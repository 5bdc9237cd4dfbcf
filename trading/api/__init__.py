"""What `import trading as td` offers beside the names of the packages; see `docs/api.md`."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.api.accounts import open_journal as open_journal
    from trading.api.backtests import backtest as backtest
    from trading.api.environments import make_env as make_env
    from trading.api.environments import make_vector_env as make_vector_env
    from trading.api.market_data import EventFeed as EventFeed
    from trading.api.market_data import connect as connect
    from trading.api.market_data import open_catalog as open_catalog
    from trading.api.policies import load_policy as load_policy

_PLACES = {
    "open_journal": "accounts",
    "backtest": "backtests",
    "make_env": "environments",
    "make_vector_env": "environments",
    "EventFeed": "market_data",
    "connect": "market_data",
    "open_catalog": "market_data",
    "load_policy": "policies",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
