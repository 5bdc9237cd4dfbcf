"""How an account's journal grows in a year, and what a start and a check of it cost.

Every bar is a transaction with a decision for each underlying; some bars also open and close a
strategy. Writing is measured without flushes to the disk, whose time is the disk's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from figures import Figures, add_json, publish

from trading.config import Settings
from trading.envs.defaults import DEFAULT_FEES
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
from trading.execution.journal.integrity import inspect_journal
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView
from trading.live.assembly import risk_limits

_SECOND_NS = 1_000_000_000
_OPEN_NS = 1_767_623_400 * _SECOND_NS
_DAY_NS = 86_400 * _SECOND_NS


def underlying(number: int) -> str:
    return f"U{chr(65 + number // 26)}{chr(65 + number % 26)}"


def spread(symbol: str) -> tuple[Leg, Leg]:
    return Leg(f"O:{symbol}281215C00100000", 1), Leg(f"O:{symbol}281215C00105000", -1)


def write(
    path: Path, symbols: list[str], sessions: int, bars: int, trades: int, bar_ns: int
) -> None:
    """A year of one account: `trades` openings and closings a session and underlying."""
    with Journal(path) as journal:
        journal._connection.execute("PRAGMA synchronous = OFF")
        account = journal.open_account("paper", 1e7, _OPEN_NS)
        usual = risk_limits(Settings())
        limits = replace(usual, max_positions=len(symbols), max_orders_per_minute=1_000_000)
        broker = PaperBroker(journal, account, DEFAULT_FEES, limits)
        every = max(bars // max(2 * trades, 1), 1)
        for session in range(sessions):
            for bar in range(bars):
                now_ns = _OPEN_NS + session * _DAY_NS + (bar + 1) * bar_ns
                broker.record(
                    [
                        DecisionMade(now_ns, s, 0, "hold", session, 0.0123, -0.0456, profit=12.345)
                        for s in symbols
                    ]
                )
                if trades and bar % every == 0 and bar // every < 2 * trades:
                    for symbol in symbols:
                        _trade(broker, symbol, now_ns)
            day = date(2026, 1, 5) + timedelta(days=session)
            broker.close_session(day.isoformat(), broker.equity(), now_ns)


def _trade(broker: PaperBroker, symbol: str, now_ns: int) -> None:
    legs = spread(symbol)
    quotes = {
        legs[0].symbol: QuoteView(3.00, 3.05, 50.0, 50.0, now_ns),
        legs[1].symbol: QuoteView(1.00, 1.05, 50.0, 50.0, now_ns),
    }
    held = symbol in broker.account.strategies
    if held:
        order = broker.liquidation(symbol, now_ns)
    else:
        order = Order(
            broker.next_order_id(), now_ns, symbol, "bull_call_debit", Intent.OPEN, legs, 1
        )
    filled = broker.submit(order, quotes, True, now_ns)
    assert isinstance(filled, Fill), filled


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--underlyings", type=int, default=2)
    parser.add_argument("--sessions", type=int, default=252)
    parser.add_argument("--bars", type=int, default=390, help="a session")
    parser.add_argument("--trades", type=int, default=10, help="a session and underlying")
    add_json(parser)
    chosen = parser.parse_args()
    symbols = [underlying(number) for number in range(chosen.underlyings)]
    bar_ns = 23_400 * _SECOND_NS // chosen.bars
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        wrote_s = seconds(
            lambda: write(path, symbols, chosen.sessions, chosen.bars, chosen.trades, bar_ns)
        )
        checked_s = seconds(lambda: inspect_journal(path))
        with Journal(path, read_only=True) as journal:
            events = journal.last_seq
            folded_s = seconds(journal.fold)
            restored_s = seconds(journal.restore)
            assert journal.fold().fingerprint() == journal.restore().fingerprint()
            snapshot = journal._connection.execute(
                "SELECT max(length(state)) FROM snapshots"
            ).fetchone()[0]

        def start() -> None:
            with Journal(path) as journal:
                journal.open_account("paper", 1e7, 0)

        started_s = seconds(start)
        size = path.stat().st_size
    table = Figures("figure", {"value": "{}"})
    table.add("events", f"{events:,}")
    table.add("size, MB", f"{size / 1e6:,.1f}")
    table.add("bytes an event", f"{size / events:,.0f}")
    table.add("of it newest snapshot, kB", f"{snapshot / 1e3:,.1f}")
    table.add("writing, us an event", f"{wrote_s / events * 1e6:,.1f}")
    table.add("check of the whole file, s", f"{checked_s:.2f}")
    table.add("fold from the first event, s", f"{folded_s:.2f}")
    table.add("fold from the newest snapshot, s", f"{restored_s:.4f}")
    table.add("start of a writer, s", f"{started_s:.2f}")
    publish(chosen, [table], width=80)


if __name__ == "__main__":
    main()
