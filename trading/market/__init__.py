"""What an option market is: contracts, calendar, pricing, chains, simulated markets."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.market.bars import StockBar as StockBar
    from trading.market.calendar import ExchangeCalendar as ExchangeCalendar
    from trading.market.calendar import Session as Session
    from trading.market.chain import Chain as Chain
    from trading.market.chain import ChainColumns as ChainColumns
    from trading.market.contracts import OptionContract as OptionContract
    from trading.market.contracts import Right as Right
    from trading.market.contracts import parse_symbol as parse_symbol
    from trading.market.corporate_actions import Delisting as Delisting
    from trading.market.corporate_actions import Merger as Merger
    from trading.market.corporate_actions import Rename as Rename
    from trading.market.corporate_actions import SpecialDividend as SpecialDividend
    from trading.market.corporate_actions import SpinOff as SpinOff
    from trading.market.corporate_actions import Split as Split
    from trading.market.dividends import Dividend as Dividend
    from trading.market.listing import UnderlyingSpec as UnderlyingSpec
    from trading.market.model import MarketModel as MarketModel
    from trading.market.pricing import black_price as black_price
    from trading.market.pricing import bsm_price as bsm_price
    from trading.market.pricing import greeks as greeks
    from trading.market.pricing import implied_volatility as implied_volatility
    from trading.market.products import Product as Product
    from trading.market.products import product_of as product_of
    from trading.market.rates import YieldCurve as YieldCurve
    from trading.market.simulator import SimulatedExchange as SimulatedExchange
    from trading.market.simulator import SimulatedSession as SimulatedSession

_PLACES = {
    "StockBar": "bars",
    "ExchangeCalendar": "calendar",
    "Session": "calendar",
    "Chain": "chain",
    "ChainColumns": "chain",
    "OptionContract": "contracts",
    "Right": "contracts",
    "parse_symbol": "contracts",
    "Delisting": "corporate_actions",
    "Merger": "corporate_actions",
    "Rename": "corporate_actions",
    "SpecialDividend": "corporate_actions",
    "SpinOff": "corporate_actions",
    "Split": "corporate_actions",
    "Dividend": "dividends",
    "UnderlyingSpec": "listing",
    "MarketModel": "model",
    "black_price": "pricing",
    "bsm_price": "pricing",
    "greeks": "pricing",
    "implied_volatility": "pricing",
    "Product": "products",
    "product_of": "products",
    "YieldCurve": "rates",
    "SimulatedExchange": "simulator",
    "SimulatedSession": "simulator",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
