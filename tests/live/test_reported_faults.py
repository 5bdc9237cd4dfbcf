"""Faults of market data that users of this vendor and of systems like this one have reported.

Each names the public report. What is played is its shape, on a market of 100 USD.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.envs.desk import CALL, SYMBOL, Desk, at, desk
from tests.live.test_bar_clock import bar, clock_of, quote
from trading.execution.orders import Fill, Rejection, RejectReason
from trading.market.option_quote import OptionQuote

HOUR = 3_600_000_000_000


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as one:
        for minute in (29, 30):
            one.minute(minute, 100.0)
        yield one


def tell(market: Desk, *events: dict[str, object], minute: float = 30.5) -> dict[str, int]:
    """Tell events as the stream does, at that time by the clock; what was refused of them."""
    clock = clock_of(market)
    clock.follow(lambda: at(minute))
    before = dict(clock.refused())
    clock.take(json.dumps(list(events)).encode())
    return {k: count - before[k] for k, count in clock.refused().items() if count > before[k]}


@pytest.mark.parametrize("hours", [4, 5, -4, -5])
def test_quotes_dated_by_another_time_zone(market: Desk, hours: int) -> None:
    """polygon-io/issues 31: whole days of quotes dated 4 or 5 hours off."""
    mark = market.mark()
    refused = tell(market, quote(at(30.4) + hours * HOUR, bp=9.0, ap=9.1))
    assert refused == ({"ahead": 1} if hours > 0 else {"older": 1})
    market.close_bar(31)
    assert market.mark() == mark


def test_one_time_that_is_none_for_every_event(market: Desk) -> None:
    """polygon-io/issues 37: every tick dated 5815519660978."""
    events = [quote(at(30), bp=3.0 + n, ap=3.1 + n) | {"t": 5815519660978} for n in range(5)]
    assert tell(market, *events) == {"mistimed": 5}
    assert market.held_against().ts_ns < at(31)


@pytest.mark.parametrize(
    "sides", [{"bp": 0, "ap": 0}, {"bp": 0, "ap": 0, "bs": 0, "as": 0}, {"ap": 0, "as": 0}]
)
def test_zero_prices_are_no_prices(market: Desk, sides: dict[str, object]) -> None:
    """QuantConnect/Lean.DataSource.Polygon 37, deepentropy/ibx 140: bids and asks of zero."""
    mark = market.mark()
    tell(market, quote(at(30.4), bp=mark) | sides)
    market.close_bar(31)
    assert market.mark() == pytest.approx(mark, abs=0.05)
    refused = market.order(31, 1)
    assert isinstance(refused, Rejection)


def test_an_ask_that_stands_for_none(market: Desk) -> None:
    """sanko/Robinhood 43: asks of 199999.99 where nobody asks."""
    mark = market.mark()
    tell(market, quote(at(30.4), bp=mark - 0.02, ap=199_999.99))
    market.close_bar(31)
    assert market.mark() == pytest.approx(mark, abs=0.05)
    assert not isinstance(market.order(31, 1), Fill)


@pytest.mark.parametrize(("high", "low"), [(110.8, 100.0), (109.2, 100.0), (113.1, 98.0)])
def test_a_bar_with_a_high_off_the_market(market: Desk, high: float, low: float) -> None:
    """polygon-io/issues 261, 263, 264: highs of 9 to 13 % above a close that did not move."""
    tell(market, bar(at(31), 100.0) | {"h": high, "l": low}, minute=31.01)
    market.close_bar(31)
    history = market.env._markets[SYMBOL]._history
    newest, bars = history.count - 1, history.bars()
    assert bars.high[newest] < 104.0
    assert bars.low[newest] == low
    assert market.env.spot(SYMBOL) == 100.0


def test_an_average_price_outside_of_its_bar(market: Desk) -> None:
    """polygon-io/issues 47: one bar in ten has its average price outside of low and high."""
    refused = tell(market, bar(at(31), 100.5) | {"vw": 90.0, "v": 1e6}, minute=31.01)
    market.close_bar(31)
    assert refused == {} and market.env.spot(SYMBOL) == 100.5


def test_a_stock_whose_bars_stop_while_its_options_go_on(market: Desk) -> None:
    """polygon-io/issues 122: no aggregates of one stock for an hour, quotes and trades go on."""
    for minute in range(31, 36):
        market.chain(minute, 103.0)
        market.close_bar(minute)
    stock = market.held_against(SYMBOL)
    assert at(35) - stock.ts_ns >= 5 * 60 * 10**9, "the stock does not fill on its old price"
    columns = market.env._markets[SYMBOL].chain.columns
    assert np.nanmedian(columns.forward) == pytest.approx(103.0, abs=0.5)
    assert market.mark() == pytest.approx(market.mark("O:ACME260206C00101000") + 0.5, abs=0.2)


def test_a_first_quote_of_weeks_ago(tmp_path: Path) -> None:
    """marketcalls/openalgo 1638: a new subscription filled at the last tick of weeks before."""
    with desk(tmp_path) as market:
        market.chain(30, 100.0, without=[CALL])
        market.stock(30, 100.0)
        old = OptionQuote(CALL, 3.6, 3.7, 50.0, 50.0, at(30) - 38 * 24 * HOUR, 0)
        market.env.apply_quote(old)
        market.close_bar(30)
        refused = market.order(30, 1)
        assert isinstance(refused, Rejection) and refused.reason is RejectReason.STALE_QUOTE
