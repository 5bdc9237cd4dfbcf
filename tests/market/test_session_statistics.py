"""The figures of a session say what its quotes were made to show."""

from datetime import date, timedelta

import numpy as np
import pytest

from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.chain import Chain
from trading.market.contracts import OptionContract, Right
from trading.market.pricing import YEAR_NS, black_price
from trading.market.session_statistics import QuoteSamples, Statistic, session_figures

CALENDAR = ExchangeCalendar()
DAY = date(2026, 1, 5)
DAYS = (11, 39)
SPOT = 100.0
IV = {DAYS[0]: 0.20, DAYS[1]: 0.30}
AGE = 3


def flat_session(moments: int = 4) -> tuple[Chain, QuoteSamples]:
    """Quotes 0.04 wide around flat volatilities, three minutes old, of one size."""
    contracts = [
        OptionContract("ABC", DAY + timedelta(days=days), right, round(1000 * strike))
        for days in DAYS
        for strike in np.arange(80.0, 120.5, 0.5)
        for right in Right
    ]
    chain = Chain("ABC", contracts, [CALENDAR.expiry_ns(c.expiry) for c in contracts])
    session = CALENDAR.session_on(DAY)
    assert session is not None
    now_ns = session.open_ns + MINUTE_NS * np.arange(10, 10 + moments)
    prices, sizes = np.zeros((moments, len(chain))), np.full((moments, len(chain)), 7.0)
    for s, moment in enumerate(now_ns):
        for i, contract in enumerate(chain.contracts):
            t = (chain.columns.expiry_ns[i] - moment) / YEAR_NS
            iv = IV[(contract.expiry - DAY).days]
            prices[s, i] = black_price(int(contract.right), SPOT, contract.strike, t, 1.0, iv)
    quote_ns = np.repeat(now_ns[:, None] - AGE * MINUTE_NS, len(chain), axis=1)
    bid = np.maximum(prices - 0.02, 0.0)
    return chain, QuoteSamples(
        now_ns, np.full(moments, SPOT), bid, prices + 0.02, sizes, sizes.copy(), quote_ns
    )


def test_volatility_and_skew_of_each_expiry_are_read_from_its_quotes() -> None:
    chain, shown = flat_session()
    figures = session_figures(chain, shown, 0.0)
    for days, iv in IV.items():
        level = figures[Statistic("at-the-money IV", f"{days} d", "median")]
        assert level == pytest.approx(iv, abs=0.01)
        slope = figures[Statistic("25-delta skew over IV", f"{days} d", "median")]
        assert slope == pytest.approx(0.0, abs=0.02)
    step = figures[
        Statistic("at-the-money IV over that of the expiry before", "11 to 39 d", "median")
    ]
    assert step == pytest.approx(1.5, abs=0.05)


def test_spreads_ages_and_sizes_are_those_shown() -> None:
    chain, shown = flat_session()
    figures = session_figures(chain, shown, 0.0)
    spreads = {f: value for f, value in figures.items() if f.group.startswith("spread")}
    assert {figure.measure for figure in spreads} == {"5%", "50%", "95%"}
    assert list(spreads.values()) == pytest.approx([0.04] * len(spreads))
    ages = {f: value for f, value in figures.items() if f.group == "quote age, minutes"}
    assert {figure.bucket for figure in ages} >= {"0 to 1 sd", "1 to 2 sd", "2 to 4 sd"}
    assert set(ages.values()) == {AGE}
    assert figures[Statistic("size, contracts", "bid", "50%")] == 7.0


def test_absent_sides_are_counted_where_they_are() -> None:
    chain, shown = flat_session()
    calls = chain.columns.right > 0
    shown.bid[:, calls & (chain.columns.strike > 100.0)] = 0.0
    figures = session_figures(chain, shown, 0.0)
    share = figures[Statistic("no bid, out of the money", "0 to 1 sd", "share")]
    assert share == pytest.approx(0.5, abs=0.05)
    assert figures[Statistic("no ask, out of the money", "0 to 1 sd", "share")] == 0.0
    assert figures[Statistic("no bid, in the money", "0 to 1 sd", "share")] == pytest.approx(0.0)


def test_bucket_with_few_quotes_has_no_figure() -> None:
    chain, shown = flat_session(1)
    one = shown._replace(bid=np.zeros_like(shown.bid))
    figures = session_figures(chain, one, 0.0)
    assert not any(figure.group.startswith("spread") for figure in figures)
    assert not any(figure.group.startswith("at-the-money") for figure in figures)
