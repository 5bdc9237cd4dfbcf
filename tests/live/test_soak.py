"""Many sessions in a row through the whole loop. SOAK_SESSIONS sets how many."""

import os
import resource
from pathlib import Path

import pytest

from tests.live.market import DAY, Bars, FirstMinutes, serving, settings_for, trade
from trading.execution.legs import is_stock
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import parse_symbol

SESSIONS = int(os.environ.get("SOAK_SESSIONS", "15"))
GROWTH_KIB = 150 * 1024
CALENDAR = ExchangeCalendar()


class Sessions(FirstMinutes):
    """Whole simulated sessions, one after the other; then the first step of one more."""

    def __init__(self, count: int) -> None:
        super().__init__(minutes=0)
        days = [DAY]
        while len(days) <= count:
            days.append(CALENDAR.next_session(days[-1]).date)
        last = CALENDAR.session_on(days[-1])
        assert last is not None
        self.end_ns = last.open_ns
        self.days = days[:-1]


class Watched(Bars):
    """Checks at every bar what must always hold, and notes the peak memory."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: list[int] = []

    def on_bar(self, trader: Trader, bar: object, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)  # type: ignore[arg-type]
        account = trader.env.broker.account
        # Stock that an assignment brought may cost more than there is, until it is sold.
        delivered = any(held.delivered for held in account.strategies.values())
        assert account.buying_power >= 0.0 or delivered
        for symbol in account.positions:
            if is_stock(symbol):
                continue
            expiry_ns = CALENDAR.expiry_ns(parse_symbol(symbol).expiry)
            assert expiry_ns > self.ends[-1], f"{symbol} outlived its expiry"
        self.peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_sessions_follow_each_other_without_loss_or_growth(tmp_path: Path) -> None:
    source, watched = Sessions(SESSIONS), Watched()
    settings = settings_for(tmp_path)
    with serving(source) as (endpoint, begin):
        result = trade(settings, endpoint, begin, bars=watched)
    account = result.trader.env.broker.account
    assert account.last_session == str(source.days[-1])
    assert account.decisions == 2 * 389 * SESSIONS
    assert result.fold == account.fingerprint()
    assert result.trader.barriers_missed == 0
    settled = watched.peaks[len(watched.peaks) // 2]
    assert watched.peaks[-1] - settled < GROWTH_KIB
