"""Which contracts are subscribed to when not all of them may be."""

from datetime import date
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.data.rest_service import Answer, running_service
from tests.live.market import FirstMinutes, serving, settings_for, trade
from trading.data.massive.rest import RestClient
from trading.data.massive.stream import StreamClient, StreamSettings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import LiveEnv
from trading.errors import DataError
from trading.execution.broker import PaperBroker
from trading.execution.journal import Journal
from trading.execution.risk import RiskLimits
from trading.live.markets import MarketDirectory, nearest_the_money
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import OptionContract, Right
from trading.market.dividends import Dividend

TODAY = date(2026, 1, 5)
CONTRACTS = [
    OptionContract("XYZ", expiry, right, strike * 1000)
    for expiry in (date(2026, 1, 9), date(2026, 2, 6), date(2027, 1, 15))
    for strike in range(50, 151, 5)
    for right in Right
]


def test_all_are_taken_while_they_fit() -> None:
    assert nearest_the_money(CONTRACTS, float("nan"), TODAY, len(CONTRACTS)) == CONTRACTS


def test_tradable_expiries_near_the_money_come_first() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 20)
    assert len(chosen) == 20
    assert {contract.expiry for contract in chosen} == {date(2026, 1, 9), date(2026, 2, 6)}
    near = [contract.strike for contract in chosen if contract.expiry == date(2026, 1, 9)]
    far = [contract.strike for contract in chosen if contract.expiry == date(2026, 2, 6)]
    assert max(abs(strike - 100.0) for strike in near) < max(abs(strike - 100.0) for strike in far)


def test_both_rights_of_a_strike_are_chosen_together() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 10)
    rights = {}
    for contract in chosen:
        rights.setdefault((contract.expiry, contract.strike), set()).add(contract.right)
    assert all(len(pair) == 2 for pair in rights.values())


def test_a_choice_without_a_price_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"data\.max_quote_contracts"):
        nearest_the_money(CONTRACTS, float("nan"), TODAY, 10)


DIVIDENDS = [Dividend("AAA", date(2026, 1, 7), 0.5), Dividend("AAA", date(2026, 3, 2), 0.5)]


def test_dividends_of_the_next_days_are_asked_for_at_a_sessions_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with serving(FirstMinutes(2), dividends=DIVIDENDS) as (endpoint, begin):
        run = trade(settings, endpoint, begin)
    assert run.trader.env._dividends == (DIVIDENDS[0],)


@pytest.mark.parametrize("status", [403, 404])
def test_dividends_that_the_vendor_does_not_tell_stay_what_they_were(
    status: int, tmp_path: Path
) -> None:
    path = "/stocks/v1/dividends"
    known = {"ticker": "AAA", "ex_dividend_date": "2026-01-07", "cash_amount": 0.5}
    with (
        capture_logs() as told,
        running_service() as service,
        RestClient(service.url, "key") as rest,
    ):
        service.answers_of[path] = service.paged(path, [known])
        env = LiveEnv(("AAA",), DEFAULT_RULES, DEFAULT_FEES, ExchangeCalendar(), broker(tmp_path))
        stream = StreamClient(StreamSettings("ws://127.0.0.1:9", "key"))
        directory = MarketDirectory(rest, stream, env, ExchangeCalendar(), 1000)
        assert directory._known_dividends(TODAY) == [DIVIDENDS[0]]
        service.answers_of[path] = [Answer({"status": "ERROR", "error": "no"}, status=status)]
        assert directory._known_dividends(TODAY) == [DIVIDENDS[0]]
    assert any("dividends are not known" in each["event"] for each in told)
    env.broker.journal.close()


def broker(folder: Path) -> PaperBroker:
    journal = Journal(folder / "journal.sqlite")
    account = journal.open_account("paper", 100_000.0, 1)
    return PaperBroker(journal, account, DEFAULT_FEES, RiskLimits())
