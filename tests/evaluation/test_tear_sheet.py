"""The page: what it shows of one session, of many, and of traders that did nothing."""

import json
import re
from dataclasses import replace

import pytest

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.evaluation.backtest import Backtest, backtest_simulation
from trading.evaluation.baselines import SessionTrader, hold, open_and_keep, random_masked
from trading.evaluation.evaluate import joined
from trading.evaluation.summary import summaries
from trading.evaluation.tear_sheet import tear_sheet


def traded(trader: SessionTrader, sessions: int) -> Backtest:
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


def test_the_model_asked_about_is_looked_at_though_it_did_not_trade(condor: Backtest) -> None:
    results = {"condor": condor, "policy": traded(hold, 4)}
    about = [("model", "runs/<a>"), ("weights", "d1ge57")]
    page = tear_sheet("t", results, summaries(results, trials=1), about, "policy")
    assert "Closely looked at: <b>policy</b>" in page
    assert "runs/&lt;a&gt;" in page and "d1ge57" in page
    assert "<h2>Positions of policy</h2>" in page and "It traded nothing." in page
    first_rows = re.findall(r"<tbody><tr><td class=\"text\">(.*?)</td>", page)
    assert first_rows[0] == "policy"


def test_the_axes_name_the_days_and_the_page_is_small(condor: Backtest) -> None:
    days = tuple(f"SPY 2026-01-0{day}" for day in (5, 6, 7, 8))
    results = {"condor": replace(condor, names=days), "buy and hold": condor}
    page = tear_sheet("t", results, summaries(results, trials=1))
    assert len(page.encode()) < 1_500_000
    figures = [json.loads(each) for each in re.findall(r'class="figure">(.*?)</script>', page)]
    assert figures[0]["data"][0]["x"] == list(days)
    dashed = [trace["name"] for trace in figures[0]["data"] if trace["line"].get("dash")]
    assert dashed == ["buy and hold"]


def test_the_trades_add_up_to_the_profit_of_the_sessions() -> None:
    result = traded(random_masked(2), 3)
    page = tear_sheet("t", {"random": result}, summaries({"random": result}, trials=1))
    listed = page[page.index("<h2>Trades of random</h2>") : page.index("<h2>Sessions of random")]
    profits = [
        float(row.rsplit(">", 1)[1].replace(",", ""))
        for row in re.findall(r"<tr>(.*?)</td></tr>", listed)
    ]
    assert len(profits) > 30
    expected = float(result.returns.sum()) * result.capital
    assert sum(profits) == pytest.approx(expected, abs=0.005 * len(profits))
