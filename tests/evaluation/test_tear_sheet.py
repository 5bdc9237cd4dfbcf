"""The page: what it shows of one session, of many, and of traders that did nothing."""

import re

import pytest

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.evaluation.backtest import Backtest, backtest_simulation
from trading.evaluation.baselines import Trader, hold, open_and_keep, random_masked
from trading.evaluation.evaluate import joined
from trading.evaluation.summary import summaries
from trading.evaluation.tear_sheet import tear_sheet


def traded(trader: Trader, sessions: int) -> Backtest:
    return backtest_simulation(sessions, 5, DEFAULT_RULES, DEFAULT_FEES, trader)


def headings(results: dict[str, Backtest]) -> list[str]:
    page = tear_sheet("Title & more", results, summaries(results, trials=1))
    assert "<h1>Title &amp; more</h1>" in page
    return re.findall(r"<h2>(.*?)</h2><p>(.*?)</p>", page)


@pytest.fixture(scope="module")
def condor() -> Backtest:
    return traded(open_and_keep("iron_condor_far_d30_15"), 4)


def test_the_first_trader_that_traded_is_looked_at_closely(condor: Backtest) -> None:
    shown = headings({"hold cash": traded(hold, 4), "condor": condor})
    assert (
        "Positions of condor",
        "Share of the sessions that hold each strategy, by bar.",
    ) in shown
    assert [head for head, _ in shown][:3] == ["Summary", "Equity", "Drawdown"]


def test_one_session_is_shown_bar_by_bar() -> None:
    shown = dict(headings({"random": traded(random_masked(1), 1)}))
    assert "Equity" not in shown and "Drawdown" not in shown
    assert shown["Where the profit of random came from"].startswith("USD since the open;")


def test_many_sessions_are_put_together_until_they_can_be_read(condor: Backtest) -> None:
    shown = dict(headings({"condor": joined([condor] * 20)}))
    assert "4 sessions together" in shown["Where the profit of condor came from"]


def test_a_page_of_nobody_who_trades_says_so() -> None:
    results = {"hold cash": traded(hold, 2)}
    page = tear_sheet("t", results, summaries(results, trials=1))
    assert "It held nothing." in page and "It took no other." in page
