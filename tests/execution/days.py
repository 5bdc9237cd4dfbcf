"""Any sequence of days: trading, power cuts, corporate actions, halts, odd events, missing figures.

The account runs as it does live: frames pass the bar clock and the door for market data into a
`LiveEnv`, and a start goes through what fell due while nothing ran.
"""

import json
import math
import shutil
import tempfile
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.envs.desk import fair
from tests.execution.ledger import Announced, Ledger, Row, exact, terms
from tests.usual import risk_limits
from trading.data.massive.wire import TapeClock, encode
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import LiveEnv
from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.events import OwnerCommand
from trading.execution.journal import Journal
from trading.execution.legs import is_stock
from trading.execution.owner import Command, execute_command
from trading.execution.portfolio import Account
from trading.live.bar_clock import BarClock, first_bar_after
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.closes import OfficialClose
from trading.market.contracts import OptionContract, Right
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Rename,
    SpecialDividend,
    Split,
    action_id,
    special_dividends,
)
from trading.market.dividends import Dividend

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
EXPIRIES = [date(2026, 1, 9), date(2026, 1, 16), date(2026, 2, 20)]
CAPITAL = 200_000.0
HALTED = 9
"""The indicator by which this feed says that a stock is halted."""
RATIOS = [(2, 1), (4, 1), (3, 2), (5, 4), (1, 5), (1, 8)]
MOVES = st.integers(-30, 30).map(lambda permille: 1.0 + permille / 1000.0)


def session_on(day: date) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def as_announced(action: CorporateAction, spot: float) -> Announced:
    if isinstance(action, Split):
        return Announced("split", exact(spot), Fraction(action.new, action.old))
    if isinstance(action, SpecialDividend):
        return Announced("special_dividend", exact(spot), amount=exact(action.amount))
    assert isinstance(action, Rename)
    return Announced("rename", exact(spot), new_symbol=action.new_symbol)


class DaysMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, every dollar is one that the journal explains."""

    @initialize(naked=st.booleans(), which=st.integers(0, 1000))
    def start(self, naked: bool, which: int) -> None:
        self.folders = [tempfile.TemporaryDirectory()]
        self.limits = risk_limits(
            max_daily_loss_pct=90.0,
            max_drawdown_pct=95.0,
            max_orders_per_minute=10_000,
            max_order_notional=1e6,
            allow_naked_shorts=naked,
        )
        self.name, self.price = "ACME", 100.0
        self.session = session_on(FIRST)
        self.now_ns = self.session.open_ns
        self.in_session = True
        self.ticks = 0
        self.dividends: list[Dividend] = []
        self.actions: list[CorporateAction] = []
        self.hidden: list[CorporateAction] = []
        """Actions that took effect and are told only later."""
        self.closes: dict[tuple[str, date], float] = {}
        self.untold: dict[tuple[str, date], float] = {}
        self.ledger = Ledger(exact(CAPITAL))
        self.twin, self.read = Account(), 0
        self.fresh = False
        """Whether all that is held was just quoted, and nothing odd came since."""
        self.open_account()
        for _ in range(2):
            self.pass_minutes(1.0, 2, quiet=False)
            allowed = np.flatnonzero(self.mask)
            self.env.trade(self.now_ns, [int(allowed[which % len(allowed)])])
            self.traded = True

    def open_account(self) -> None:
        self.journal = Journal(Path(self.folders[-1].name) / "journal.db")
        self.journal._connection.execute("PRAGMA synchronous = OFF")
        account = self.journal.open_account("paper", CAPITAL, session_on(FIRST).open_ns)
        self.broker = PaperBroker(self.journal, account, DEFAULT_FEES, self.limits)
        self.env = LiveEnv(
            ("ACME",), DEFAULT_RULES, DEFAULT_FEES, CALENDAR, self.broker, official_closes=True
        )
        self.env.halt_indicators = frozenset({HALTED})
        self.begin()
        if self.name in self.env.underlyings:
            self.env.warm_up(
                self.name, self.env.converted(self.name, self.earlier_bars(), self.session)
            )

    def earlier_bars(self) -> list[StockBar]:
        """Bars that the vendor has of before: of the last close, and of the last minute."""
        last = [(session_on(day).close_ns, price) for (_, day), price in self.closes.items()]
        told = sorted(each for each in last if each[0] <= self.now_ns)[-1:]
        if self.now_ns > self.session.open_ns + MINUTE_NS:
            told.append((self.now_ns, self.price))
        return [
            StockBar(self.name, end_ns - MINUTE_NS, price, price, price, price, 100.0, price)
            for end_ns, price in told
        ]

    def begin(self) -> None:
        """A session begins, or goes on after a start: as the market directory does it."""
        self.env.set_dividends(self.dividends)
        self.env.set_actions(self.actions)
        for (name, day), price in self.closes.items():
            if (name, day) not in self.untold:
                self.env.tell_close(name, day, OfficialClose(price))
        self.env.begin_session(self.session)
        # The account's other names are listed too, as far as they are held.
        for name in self.env.underlyings:
            contracts = [
                OptionContract(name, expiry, right, 5000 * round(self.price * step / 5000))
                for expiry in EXPIRIES
                if expiry >= self.session.date
                for step in (800, 900, 950, 1000, 1050, 1100, 1200)
                for right in Right
                if name == self.name
            ]
            self.env.list_contracts(name, [each for each in contracts if each.strike_milli > 0])
        self.clock = BarClock(
            self.env, first_bar_after(self.now_ns, CALENDAR, MINUTE_NS), MINUTE_NS
        )
        self.fresh = False

    def frame(self, *events: dict[str, Any], at_ns: int | None = None) -> bytes:
        clock = encode([TapeClock((at_ns or self.now_ns) // 1_000_000)])[1:-1]
        return b"[" + b",".join([clock, *(json.dumps(each).encode() for each in events)]) + b"]"

    def quote(self, symbol: str, bid: float, ask: float, ts_ns: int) -> dict[str, Any]:
        self.ticks += 1
        return {
            "ev": "Q", "sym": symbol, "bp": bid, "ap": ask, "bs": 50, "as": 50,
            "t": ts_ns // 1_000_000, "q": self.ticks, "bx": 302, "ax": 302,
        }  # fmt: skip

    def bar(self, price: float, end_ns: int) -> dict[str, Any]:
        prices = dict.fromkeys(("o", "h", "l", "c", "vw", "a", "op"), round(price, 2))
        end_ms = end_ns // 1_000_000
        return prices | {
            "ev": "AM", "sym": self.name, "v": 1000, "av": 1000, "z": 10,
            "s": end_ms - 60_000, "e": end_ms,
        }  # fmt: skip

    def true_quotes(self, ts_ns: int) -> list[dict[str, Any]]:
        events = []
        for name in self.env.underlyings:
            for contract in self.env.listed_contracts(name):
                bid = round(max(fair(contract, self.price, ts_ns) - 0.02, 0.0), 2)
                events.append(self.quote(contract.symbol, bid, round(bid + 0.04, 2), ts_ns))
        return events

    @precondition(lambda self: self.in_session)
    @rule(move=MOVES, minutes=st.integers(1, 3), quiet=st.booleans())
    def minutes(self, move: float, minutes: int, quiet: bool) -> None:
        """Minutes of trading; `quiet` ones without quotes."""
        self.pass_minutes(move, minutes, quiet=quiet)

    def pass_minutes(self, move: float, minutes: int, *, quiet: bool) -> None:
        self.price = round(self.price * move, 2)
        for _ in range(minutes):
            end_ns = self.clock.bar.end_ns
            if self.clock.bar.last:
                return
            self.now_ns = end_ns
            events = [] if quiet else self.true_quotes(end_ns - 1_000_000)
            self.clock.take(self.frame(*events, self.bar(self.price, end_ns)))
            # A bar may jump only as far as another confirms it: it is told twice.
            later_ns = end_ns + 1_000_000
            self.clock.take(
                self.frame(self.quote("O:NONE260109C00001000", 1, 2, later_ns), at_ns=later_ns)
            )
            assert self.clock.due
            self.close_bar()
        self.fresh = not quiet and minutes > 1

    def close_bar(self) -> None:
        bar = self.clock.bar
        self.mask = self.env.close_bar(bar.end_ns, bar.session).action_mask[0]
        self.clock.advance(first_bar_after(bar.end_ns, CALENDAR, MINUTE_NS))
        self.traded = False

    @precondition(lambda self: self.in_session and not getattr(self, "traded", True))
    @rule(which=st.integers(0, 1000))
    def trade(self, which: int) -> None:
        allowed = np.flatnonzero(self.mask)
        self.env.trade(self.now_ns, [int(allowed[which % len(allowed)])])
        self.traded = True

    @precondition(lambda self: self.in_session)
    @rule(
        kind=st.sampled_from(
            ["ahead", "past", "tenfold", "tenth", "zero", "negative", "nan", "bytes", "huge"]
        ),
        by_s=st.sampled_from([90, 3_600, 86_400, 2_333_000_000]),
        of_stock=st.booleans(),
        which=st.integers(0, 10_000),
        closes=st.booleans(),
    )
    def odd_event(self, kind: str, by_s: int, of_stock: bool, which: int, closes: bool) -> None:
        """One odd event moves no mark, no price, no clock and no money."""
        if self.clock.bar.last:
            return
        before, watermark_ns = self.env.equity(), self.clock.watermark_ns
        ts_ns, factor = self.now_ns, 1.0
        if kind == "ahead":
            ts_ns, factor = self.now_ns + by_s * 1_000_000_000, 3.0
        elif kind == "past":
            ts_ns, factor = self.now_ns - by_s * 1_000_000_000, 3.0
        factor = {"tenfold": 10.0, "tenth": 0.1, "zero": 0.0, "negative": -1.0, "nan": math.nan,
                  "huge": 1e300, "bytes": 10.0}.get(kind, factor)  # fmt: skip
        listed = self.env.listed_symbols()
        held = [name for name in self.broker.account.positions if not is_stock(name)]
        symbol = (held or listed or ["O:ACME260109C00100000"])[which % len(held or listed or [1])]
        at = self.env.broker.last_mark(self.broker.account.positions[symbol]) if held else 5.0
        event = (
            self.bar(self.price, ts_ns) | dict.fromkeys("ohlc", self.price * factor)
            if of_stock
            else self.quote(symbol, at * factor, at * factor + 0.04, ts_ns)
        )
        frame = self.frame(event)
        if kind == "bytes":
            middle = len(frame) // 2
            frame = frame[:middle] + b"\xff\xfe" + frame[middle:]
        self.clock.take(frame)
        assert self.clock.watermark_ns <= max(watermark_ns, self.now_ns)
        assert not self.clock.due
        assert self.env.equity() == before
        # Where the chain has been silent too long to say anything, only bounds are left.
        # And what lies within the bands (a percent of the stock) is believed.
        if closes and self.fresh and (of_stock or at >= 0.04 * self.price):
            self.env.close_bar(self.clock.bar.end_ns, self.session)
            self.clock.advance(first_bar_after(self.clock.bar.end_ns, CALENDAR, MINUTE_NS))
            self.now_ns = self.clock.bar.end_ns - MINUTE_NS
            self.traded = True
            assert math.isclose(self.env.equity(), before, abs_tol=0.01), (kind, symbol)
        self.fresh = False

    @precondition(lambda self: self.in_session)
    @rule(halted=st.booleans())
    def halt(self, halted: bool) -> None:
        """A halted stock neither trades nor moves; the others do."""
        if self.name not in self.env.underlyings:
            return
        band = {"ev": "LULD", "T": self.name, "h": 0, "l": 0, "i": [HALTED] if halted else [1],
                "t": self.now_ns // 1_000_000, "q": self.ticks, "z": 1}  # fmt: skip
        self.clock.take(self.frame(band))
        self.env.apply_band(self.name, 0.0, 0.0, [HALTED] if halted else [1], self.now_ns)
        held_back = "its stock is halted" in self.broker.account.suspended.get(self.name, "")
        assert held_back == halted
        self.fresh = False

    @rule(
        kind=st.sampled_from(["dividend", "two", "special", "split", "split", "rename", "delist"]),
        sessions=st.integers(1, 4),
        ratio=st.sampled_from(RATIOS),
        cents=st.integers(10, 300),
        late=st.booleans(),
    )
    def announce(
        self, kind: str, sessions: int, ratio: tuple[int, int], cents: int, late: bool
    ) -> None:
        """What a company does from a coming session on; a split may be told days too late."""
        day = self.session.date
        for _ in range(sessions):
            day = CALENDAR.next_session(day).date
        taken = {each.ex_date for each in [*self.actions, *self.hidden, *self.dividends]}
        if day in taken or any(isinstance(each, Delisting) for each in self.actions):
            return
        amount = cents / 100.0
        if kind in ("dividend", "two", "special"):
            self.dividends.append(Dividend(self.name, day, amount, special=kind == "special"))
            if kind == "two":
                self.dividends.append(Dividend(self.name, day, 2 * amount, special=True))
        elif any(each.ex_date > self.session.date for each in [*self.actions, *self.hidden]):
            return
        elif kind == "split":
            (self.hidden if late else self.actions).append(Split(self.name, day, *ratio))
        elif kind == "rename" and self.name == "ACME":
            self.actions.append(Rename("ACME", day, "ACMX"))
        elif kind == "delist":
            self.actions.append(Delisting(self.name, day))

    @precondition(lambda self: self.in_session)
    @rule(told=st.booleans())
    def close_session(self, told: bool) -> None:
        """It ends with its official close, or that comes later."""
        self.know_close(told=told)
        self.env.close_session(self.session.close_ns, self.session, 0.0)
        self.now_ns, self.in_session, self.fresh = self.session.close_ns, False, False
        self.traded = True

    def know_close(self, *, told: bool) -> None:
        key = (self.name, self.session.date)
        self.closes[key] = self.price
        if told:
            self.env.tell_close(*key, OfficialClose(self.price))
        else:
            self.untold[key] = self.price

    @precondition(lambda self: not self.in_session and self.session.date < date(2026, 2, 20))
    @rule(move=MOVES)
    def next_session(self, move: float) -> None:
        self.pass_to_next(move)
        self.in_session, self.now_ns = True, self.session.open_ns
        self.begin()

    def pass_to_next(self, move: float) -> None:
        """Prices go on from the close by a move, and by what a company does that morning."""
        before, self.session = self.price, CALENDAR.next_session(self.session.date)
        self.price = before * move
        today = [each for each in [*self.actions, *self.hidden] if
                 each.ex_date == self.session.date]  # fmt: skip
        due = [*today, *special_dividends(
            each for each in self.dividends if each.ex_date == self.session.date
        )]  # fmt: skip
        for action in due:
            if not isinstance(action, Delisting):
                self.ledger.announce(action_id(action), as_announced(action, before))
            self.price = action.price_after(self.price)
        self.price = max(round(self.price, 2), 1.0)
        for action in due:
            if isinstance(action, Rename):
                self.name = action.new_symbol

    @precondition(lambda self: self.session.date < date(2026, 2, 13))
    @rule(
        moves=st.lists(MOVES, max_size=9),
        untold=st.integers(0, 1023),
        minutes=st.integers(0, 5),
    )
    def power_cut(self, moves: list[float], untold: int, minutes: int) -> None:
        """The power fails at this instant, for minutes or for sessions, and then a start."""
        before = self.broker.account.fingerprint()
        self.folders.append(tempfile.TemporaryDirectory())
        for part in Path(self.folders[-2].name).iterdir():
            shutil.copy(part, self.folders[-1].name)
        self.journal.close()
        for number, move in enumerate(moves):
            if self.in_session or number:
                key = (self.name, self.session.date)
                self.closes[key] = self.price
                if untold >> number & 1:
                    self.untold[key] = self.price
            self.pass_to_next(move)
        if moves:
            self.in_session, self.now_ns = True, self.session.open_ns
        elif self.in_session:
            latest_ns = self.session.close_ns - 2 * MINUTE_NS
            self.now_ns = min(self.now_ns + minutes * MINUTE_NS, max(latest_ns, self.now_ns))
        twin = Journal(Path(self.folders[-1].name) / "journal.db")
        assert twin.fold().fingerprint() == before
        twin.close()
        self.traded = True
        self.open_account()

    @precondition(lambda self: self.untold)
    @rule()
    def tell_closes(self) -> None:
        """The figures that were missing come."""
        for (name, day), price in self.untold.items():
            self.env.tell_close(name, day, OfficialClose(price))
        self.untold.clear()
        self.env.settle_pending(self.now_ns)
        self.fresh = False

    @precondition(
        lambda self: (
            any(each.ex_date <= self.session.date for each in self.hidden) and self.in_session
        )
    )
    @rule()
    def tell_actions(self) -> None:
        """What explains a move is told at last."""
        told = [each for each in self.hidden if each.ex_date <= self.session.date]
        self.hidden = [each for each in self.hidden if each not in told]
        self.actions += told
        self.begin()
        self.traded = True

    @invariant()
    def every_row_is_what_was_due(self) -> None:
        """Cash, positions and what is pending are those of the ledger; the fold is the account."""
        if not hasattr(self, "journal"):
            return
        account = self.broker.account
        self.follow()
        assert self.twin.fingerprint() == account.fingerprint()
        assert math.isclose(account.cash, float(self.ledger.cash), abs_tol=1e-5)
        held = {
            symbol: position.quantity * (round(account.size(symbol)) if is_stock(symbol) else 1)
            for symbol, position in account.positions.items()
        }
        assert held == self.ledger.holdings()
        marks = self.env.marks()
        assert math.isclose(self.env.equity(), self.ledger.value(marks), abs_tol=1e-4)

    def follow(self) -> None:
        """Book the new rows, and hold each against what was due."""
        query = "SELECT payload FROM events WHERE seq > ? ORDER BY seq"
        events = self.journal.events(after=self.read)
        rows = [json.loads(each[0]) for each in self.journal._connection.execute(
            query, (self.read,)
        )]  # fmt: skip
        for row, event in zip(rows, events, strict=True):
            self.read += 1
            self.twin.apply(event)
            self.ledger.book(row)
            self.check_due(row)

    def check_due(self, row: Row) -> None:
        """What ends or pays has its own session's figure and time."""
        if row["kind"] == "settled" and row["source"] == "official":
            day = CALENDAR.date_of(row["ts_ns"])
            assert row["ts_ns"] == session_on(day).close_ns
            name = self.ledger.owner[row["symbol"]]
            assert row["underlying_price"] == self.closes[name, day]
            if row["ending"] != "assigned_early":
                assert terms(row["symbol"]).expiry == day
        if row["kind"] == "dividend_paid":
            day = date.fromisoformat(row["ex_date"])
            told = sum(each.amount for each in self.dividends if each.ex_date == day)
            paid = self.ledger.into_ex_date[f"{row['underlying']} {row['ex_date']}"][1]
            assert math.isclose(float(paid), told, abs_tol=1e-6)

    @invariant()
    def what_is_pending_is_suspended_and_nothing_else_is_missing(self) -> None:
        if not hasattr(self, "journal"):
            return
        self.follow()
        account = self.broker.account
        today = self.session.date if self.in_session else self.session.date + timedelta(days=1)
        for symbol in self.ledger.expired(today):
            assert self.ledger.owner[symbol] in account.suspensions, symbol
        if self.untold or account.suspensions:
            return
        for name in {each.underlying for each in self.dividends}:
            stock = self.ledger.shares.get(name, 0)
            held = account.strategies.get(name)
            if not stock or held is None:
                continue
            for each in self.dividends:
                opened = CALENDAR.date_of(held.opened_ns)
                if (
                    each.underlying == name
                    and opened < each.ex_date <= self.session.date
                    and (self.in_session or each.ex_date <= self.session.date)
                ):
                    assert account.has_paid(name, each.ex_date.isoformat()), each

    @invariant()
    def equity_is_what_the_market_would_pay(self) -> None:
        """Right after quotes of all that is held, nothing is worth what it is not."""
        if not getattr(self, "fresh", False) or self.broker.account.suspensions:
            return
        self.follow()
        if self.ledger.delivers or self.hidden:
            return
        worth, allowed = float(self.ledger.cash), 1.0
        for symbol, count in self.ledger.contracts.items():
            option = terms(symbol)
            right = Right.CALL if option.right > 0 else Right.PUT
            contract = OptionContract(
                option.root, option.expiry, right, round(1000 * option.strike)
            )
            worth += 100 * count * fair(contract, self.price, self.now_ns)
            allowed += 100 * abs(count) * 0.06
        worth += sum(count * self.price for count in self.ledger.shares.values())
        allowed += sum(abs(count) * 0.011 for count in self.ledger.shares.values())
        assert abs(self.env.equity() - worth) <= allowed, (self.env.equity(), worth, allowed)

    @precondition(lambda self: self.broker.account.suspensions)
    @rule(which=st.integers(0, 9))
    def reinstate(self, which: int) -> None:
        """The owner says that a move was real; while a split is hidden, that would be wrong."""
        names = sorted(self.broker.account.suspensions)
        name = names[which % len(names)]
        if self.hidden:
            return
        command = Command(OwnerCommand.REINSTATE, "owner", symbol=name)
        before = self.broker.account.owner_commands
        try:
            execute_command(self.broker, command, max(self.now_ns, self.broker.account.last_ts_ns))
        except OwnerRefused:
            assert self.broker.account.owner_commands == before
        self.fresh = False

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
        for folder in getattr(self, "folders", []):
            folder.cleanup()
