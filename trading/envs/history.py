"""Recorded markets as snapshots on disk, memory-mapped: workers share one copy of them.

A history is a folder of flat arrays, one file a column, and `meta.json`. It is written once from
recorded sessions, through the code that live trading runs, and opened without reading it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.closing import Closing
from trading.data.recorded_session import RecordedSession
from trading.envs.account_view import Holdings
from trading.envs.catalogue import CLOSE
from trading.envs.common_days import CommonDays, common_days
from trading.envs.consecutive_sessions import ConsecutiveSessions
from trading.envs.features import FEATURES
from trading.envs.market_snapshots import MarketSnapshots, empty_snapshots
from trading.envs.own_features import OwnFeatures, own_count
from trading.envs.quote_arrays import LISTED, QUOTED, QuoteArrays
from trading.envs.rules import NO_LEG, TradingRules
from trading.envs.saved_state import MarketsWithState
from trading.envs.structures import all_actions
from trading.envs.underlying import UnderlyingMarket
from trading.errors import DataError
from trading.execution.fees import FeeSchedule
from trading.execution.matching import FillStyle
from trading.files import folder_or_replaced, replace_folder, staging_folder
from trading.logs import get_logger
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import F64, I64, MARKS, MARKS_READ, ChainColumns
from trading.market.contracts import OptionContract
from trading.market.corporate_actions import CorporateAction
from trading.market.dividends import Dividend
from trading.market.option_quote import OptionQuote
from trading.market.products import is_index

log = get_logger(__name__)

_META = "meta.json"
_FORMERLY = "formerly"
_DISK_NAME = {"bars": "frames"}
_FIELD = {disk: field for field, disk in _DISK_NAME.items()}
"""Fields of `HistoryDay` that are written by another name."""
_FILES = {"contract_offset": "listed_at", "quote_offset": "quoted_at"}
"""Columns whose file has another name than the field of `QuoteArrays`."""
_TOLD = 5
"""Differences that an error names."""


@dataclass(frozen=True, slots=True)
class HistoryDay:
    """One underlying's session in a history: snapshots `first` to `first + bars - 1`.

    `after` is the date of the session that it goes on from, in the same market: what was listed
    there and has not expired is listed here too. It is empty where nothing is known of the night
    before. `dividend` is what goes ex at its open then, USD a share.
    """

    underlying: str
    date: str
    first: int
    bars: int
    contracts: int
    after: str = ""
    dividend: float = 0.0


_STYLE = "fill_style"
_NOT_RULES = (
    *("risk_aversion", "risk_measure", "size_levels", "underlyings_per_account"),
    *("structures", "working_steps"),
)
"""Rules that no snapshot depends on, and what stands among the actions."""


def _snapshot_rules(rules: TradingRules) -> dict[str, Any]:
    if rules.fill_style == FillStyle.WORKING:  # The touch is what its orders pay at most.
        rules = rules._replace(fill_style=int(FillStyle.TOUCH))
    return {name: value for name, value in rules._asdict().items() if name not in _NOT_RULES}


def snapshots_digest(
    rules: TradingRules,
    fees: FeeSchedule,
    marks: int = MARKS,
    features: OwnFeatures | None = None,
) -> str:
    """Return what snapshots depend on besides the market.

    Rules, fees, catalogue, features and marks.
    """
    # Histories of before there was a style were written for the touch, and are still read.
    kept = tuple(value for name, value in _snapshot_rules(rules).items() if name != _STYLE or value)
    parts: tuple[Any, ...] = (marks, kept, tuple(fees), all_actions(rules.structures), FEATURES)
    parts += (_noted(features),) if features is not None else ()
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def snapshots_terms(
    rules: TradingRules, fees: FeeSchedule, features: OwnFeatures | None = None
) -> dict[str, Any]:
    """Return the parts of that digest by name, so that a difference can be told."""
    named: dict[str, Any] = {
        f"rule {name}": value for name, value in _snapshot_rules(rules).items()
    }
    named[f"rule {_STYLE}"] = FillStyle(named[f"rule {_STYLE}"]).name.lower()
    named |= {f"fee {name}": value for name, value in fees._asdict().items()}
    actions = all_actions(rules.structures)
    named |= {f"action {number} ({each.name})": repr(each) for number, each in enumerate(actions)}
    named |= {f"feature {each.name}": repr((k, each)) for k, each in enumerate(FEATURES)}
    named |= {f"feature {each[0]}": repr(each) for each in _noted(features)}
    return named | {"marks": repr(MARKS)}


def _noted(own: OwnFeatures | None) -> tuple[tuple[str, int, str], ...]:
    """Name, place and digest of each feature of a user's own."""
    if own is None:
        return ()
    noted = zip(own.features, own.digests, strict=True)
    return tuple((each.name, k, digest) for k, (each, digest) in enumerate(noted))


def write_history(
    folder: Path,
    sessions: Iterable[RecordedSession],
    rules: TradingRules,
    fees: FeeSchedule,
    calendar: ExchangeCalendar,
    *,
    each_trades: bool = False,
    nights: bool = False,
    dividends: Iterable[Dividend] = (),
    actions: Iterable[CorporateAction] = (),
    features: OwnFeatures | None = None,
) -> list[HistoryDay]:
    """Write the snapshots of recorded sessions to `folder`, which appears whole or not at all.

    One session at a time is in memory. An existing history there is replaced, but not by one that
    is refused: with `each_trades`, where there is a session in which nothing could ever be opened.

    With `nights`, a session that follows the one before of its underlying goes on from it, see
    `trading.envs.consecutive_sessions`: positions can be held through the night. `dividends` and
    `actions` are those that may fall between them.

    Raises
    ------
    DataError
        There is no session, one is refused, or the folder cannot be written.
    """
    runs = ConsecutiveSessions(rules, fees, calendar, dividends, actions, features)
    with new_history(folder, rules, fees, features) as writer:
        for recorded in sessions:
            night = runs.night(recorded) if nights else runs.none(recorded)
            market, trades = night.market, False
            before = market.chain
            for bar in play(recorded, market, calendar, night.kept):
                formerly = market.chain.positions(before) if bar == 0 else None
                writer.add_bar(market.chain.columns, market.snapshots, formerly)
                trades = trades or bool((market.snapshots.most_units[0, CLOSE + 1 :] >= 1.0).any())
            if each_trades and not trades:
                raise DataError(_why_nothing_trades(recorded, market))
            name = recorded.session.date.isoformat()
            writer.end_day(recorded.underlying, name, night.after, night.dividend)
            if nights:
                runs.close(recorded, market)
    return writer.days


def _why_nothing_trades(recorded: RecordedSession, market: UnderlyingMarket) -> str:
    quotes = recorded.quotes
    quoted = int(((quotes.bid > 0.0) & (quotes.ask > quotes.bid)).sum())
    kept_apart = {name: count for name, count in market.refused.items() if count}
    told = ", ".join(f"{count} {name}" for name, count in kept_apart.items()) or "none"
    return (
        f"{recorded.underlying} on {recorded.session.date}: nothing could be opened in any of "
        f"{len(recorded.bar_end_ns)} bars: {len(recorded.contracts)} contracts have "
        f"{len(quotes.ts_ns)} quotes, {quoted} of them with both sides, the stock has "
        f"{len(recorded.bars.stock_bars(recorded.underlying))} minute bars; refused: {told}. "
        "Leave the day out, or see whether quotes and bars are of one day, symbol and unit"
    )


@contextmanager
def new_history(
    folder: Path, rules: TradingRules, fees: FeeSchedule, features: OwnFeatures | None = None
) -> Iterator["HistoryWriter"]:
    """Yield a writer whose days become the history in `folder` when the block ends well.

    Raises
    ------
    DataError
        No day was written, or the folder cannot be written.
    """
    try:
        with _staged(folder) as staging:
            with HistoryWriter(staging) as writer:
                yield writer
            if not writer.days:
                raise DataError(f"cannot write history {folder}: there is no recorded session")
            digest = snapshots_digest(rules, fees, features=features)
            meta = HistoryMetadata(digest, writer.days, snapshots_terms(rules, fees, features))
            _write_meta(staging, meta)
    except OSError as error:
        raise DataError(f"cannot write history {folder}: {error}") from error


def history_of_days(source: Path, folder: Path, dates: Collection[date]) -> list[HistoryDay]:
    """Write to `folder` a history that shows only the days of `source` with these dates.

    Its columns are links to those of `source`, which must stay where it is.

    Raises
    ------
    DataError
        There is no history in `source`, none of its days has such a date, or the folder cannot be
        written.
    """
    source = folder_or_replaced(source)
    meta = _read_meta(source)
    wanted = {day.isoformat() for day in dates}
    kept = [day for day in meta.days if day.date in wanted]
    if not kept:
        raise DataError(f"history {source} has no day of {', '.join(sorted(wanted)) or 'none'}")
    try:
        with _staged(folder) as staging:
            for column in source.resolve().iterdir():
                if column.name != _META:
                    (staging / column.name).symlink_to(column)
            _write_meta(staging, meta._replace(days=kept))
    except OSError as error:
        raise DataError(f"cannot write history {folder}: {error}") from error
    return kept


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place when the block ends without an error."""
    with staging_folder(folder.parent, f".{folder.name}-") as staging:
        yield staging
        replace_folder(staging, folder)


class HistoryMetadata(NamedTuple):
    """What a history says of itself."""

    digest: str
    days: list[HistoryDay]
    terms: dict[str, Any]
    """As `snapshots_terms`; empty in histories of older versions."""


def _write_meta(folder: Path, meta: HistoryMetadata) -> None:
    content = {
        "digest": meta.digest,
        "days": [{_DISK_NAME.get(k, k): v for k, v in asdict(day).items()} for day in meta.days],
        "terms": meta.terms,
    }
    (folder / _META).write_text(json.dumps(content, indent=1))


def _read_meta(folder: Path) -> HistoryMetadata:
    try:
        meta = json.loads((folder / _META).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"no history in {folder} ({error}): write one with `trading history`"
        ) from error
    days = [
        HistoryDay(**{_FIELD.get(name, name): value for name, value in day.items()})
        for day in meta["days"]
    ]
    return HistoryMetadata(meta["digest"], days, meta.get("terms", {}))


def _told_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs, the first few by name; what is known."""
    if not before:
        return "rules, fees, actions or features"
    before = {f"rule {_STYLE}": FillStyle.TOUCH.name.lower(), **before}
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    shown = [
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        if name.startswith(("rule ", "fee "))
        else name
        for name in names
    ]
    more = f", and {len(shown) - _TOLD} more" if len(shown) > _TOLD else ""
    return "; ".join(shown[:_TOLD]) + more


def play(
    recorded: RecordedSession,
    market: UnderlyingMarket,
    calendar: ExchangeCalendar,
    kept: Sequence[OptionContract] | None = None,
) -> Iterator[int]:
    """Tell a market the session and close its bars; yields the number of each closed bar.

    `kept` are contracts of the session before that stay listed, where the market goes on from it:
    it knows the bars of then.
    """
    market.begin_session()
    if recorded.rate is not None:
        market.rate = recorded.rate
    if kept is None:
        market.warm_up(recorded.warm_up.stock_bars(recorded.underlying))
    symbols = [contract.symbol for contract in recorded.contracts]
    known = set(symbols)
    listed = [*recorded.contracts, *(each for each in kept or () if each.symbol not in known)]
    held = {contract.symbol for contract in listed}
    market.list_contracts(listed, calendar.expiry_ns, held)
    index = market.chain.index
    place = [index[symbol] for symbol in symbols]
    quotes, stock_bars = recorded.quotes, recorded.bars.stock_bars(recorded.underlying)
    count = len(recorded.bar_end_ns)
    quote_ends = np.searchsorted(quotes.bar, np.arange(count), side="right")
    bar_ends = np.searchsorted(recorded.bars.bar, np.arange(count), side="right")
    rows = zip(*(column.tolist() for column in quotes[:7]), strict=True)
    applied = told = 0
    for bar, end_ns in enumerate(recorded.bar_end_ns.tolist()):
        while applied < quote_ends[bar]:
            contract, *quote = next(rows)
            market.apply_quote(place[contract], OptionQuote(symbols[contract], *quote))
            applied += 1
        for each in stock_bars[told : bar_ends[bar]]:
            market.apply_bar(each)
        told = bar_ends[bar]
        market.close_bar(end_ns, recorded.session)
        yield bar


class HistoryWriter(Closing):
    """Writes the columns of a history, day after day and bar after bar, see `new_history`."""

    def __init__(self, folder: Path) -> None:
        self.days: list[HistoryDay] = []
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._day_at = self._snapshots = self._listed = self._quoted = 0
        self._contracts = 0

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def add_bar(
        self,
        quotes: ChainColumns | QuoteArrays,
        snapshots: MarketSnapshots,
        formerly: I64 | None = None,
    ) -> None:
        """Append one bar of one market; what is listed is read at the first bar of a day.

        `formerly` [listed] is where each contract was listed in the session before, -1 where it
        was not.
        """
        if self._snapshots == self._day_at:
            for name in LISTED:
                self._write(name, getattr(quotes, name))
            self._contracts = len(quotes.strike)
            new = np.full(self._contracts, NO_LEG, dtype=np.int64)
            self._write(_FORMERLY, new if formerly is None else formerly)
        for name, offset in (("contract_offset", self._listed), ("quote_offset", self._quoted)):
            self._write(_FILES[name], np.array([offset], dtype=np.int64))
        for name in QUOTED:
            self._write(name, getattr(quotes, name))
        for name, column in snapshots._asdict().items():
            self._write(f"frame_{name}", column)
        self._quoted += self._contracts
        self._snapshots += 1

    def end_day(self, underlying: str, day: str, after: str = "", dividend: float = 0.0) -> None:
        """Name the day whose bars were added since the last one; see `HistoryDay`."""
        first, count = self._day_at, self._snapshots - self._day_at
        self.days.append(
            HistoryDay(underlying, day, first, count, self._contracts, after, dividend)
        )
        self._listed += self._contracts
        self._day_at = self._snapshots

    def _write(self, name: str, column: NDArray[Any]) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("wb")
        self._files[name].write(np.ascontiguousarray(column).data)


class History:
    """An opened history.

    Attributes
    ----------
    snapshots, quotes : MarketSnapshots, QuoteArrays
        Over the whole history; the pages are shared with every process that opens it.
    days : list[HistoryDay]
        In the order of their snapshots.
    following : i64[D]
        Of each day the one that goes on from it, -1 where none does.
    formerly : i64[listed]
        Where each contract was listed in the session before, -1 where it was not.

    Raises
    ------
    DataError
        There is no history in the folder, or it was written for other rules.
    """

    def __init__(
        self,
        folder: Path,
        rules: TradingRules,
        fees: FeeSchedule,
        features: OwnFeatures | None = None,
    ) -> None:
        folder = folder_or_replaced(folder)
        meta = _read_meta(folder)
        self.folder = folder
        self.days = meta.days
        known = {snapshots_digest(rules, fees, marks, features) for marks in MARKS_READ}
        if meta.digest not in known:
            told = _told_differences(meta.terms, snapshots_terms(rules, fees, features))
            raise DataError(
                f"history {folder} was written for other rules, fees, actions or features "
                f"({told}): write it again with `trading history`, or use the settings it was "
                "written with"
            )
        actions = len(all_actions(rules.structures))
        template = empty_snapshots(1, own_count(features), actions)
        self.snapshots = MarketSnapshots(
            **{
                name: _mapped(folder / f"frame_{name}", column.dtype, (-1, *column.shape[1:]))
                for name, column in template._asdict().items()
            }
        )
        types: dict[str, Any] = dict.fromkeys(QuoteArrays._fields, np.float64)
        types |= dict.fromkeys((*_FILES, "expiry_ns", "quote_ns"), np.int64)
        types["right"] = np.int8
        self.quotes = QuoteArrays(
            **{
                name: _mapped(folder / _FILES.get(name, name), np.dtype(types[name]), (-1,))
                for name in types
            }
        )
        place = {(day.underlying, day.date): k for k, day in enumerate(meta.days)}
        self.following: I64 = np.full(len(meta.days), NO_LEG, dtype=np.int64)
        self.formerly: I64 = np.zeros(0, dtype=np.int64)
        if (folder / _FORMERLY).exists():
            self.formerly = _mapped(folder / _FORMERLY, np.dtype(np.int64), (-1,))
            for k, day in enumerate(meta.days):
                before = place.get((day.underlying, day.after))
                if before is not None:
                    self.following[before] = k

    @property
    def dates(self) -> list[date]:
        """Dates of the days, in order, each once."""
        return sorted({date.fromisoformat(day.date) for day in self.days})

    def common_days(self, count: int, *, each_once: bool = False) -> CommonDays:
        """Return what accounts of `count` underlyings may trade here, see `common_days`.

        Raises
        ------
        DataError
            No date has so many underlyings.
        """
        now_ns = self.snapshots.now_ns
        found = common_days(
            [day.underlying for day in self.days],
            [day.date for day in self.days],
            [now_ns[day.first : day.first + day.bars] for day in self.days],
            self.following,
            count,
            each_once=each_once,
        )
        if not len(found.days):
            raise DataError(
                f"history {self.folder} has no date with the same bars of {count} underlyings, "
                f"and env.underlyings_per_account is {count}: write one of more symbols with "
                "`trading history`, or set that to fewer"
            )
        return found


def single_days(history: History, sessions_per_episode: int) -> str:
    """Return why each day of a history is an episode of its own; empty where none has to be.

    That is where episodes are to have several sessions, and a history of several dates knows of no
    night between any, as one that was written for single sessions.
    """
    dates = len(history.dates)
    if sessions_per_episode == 1 or dates == 1 or (history.following >= 0).any():
        return ""
    return (
        f"{history.folder} knows of no night between its {dates} dates, so each day is an episode "
        "of its own; `trading history` writes nights where env.sessions_per_episode is above 1"
    )


def tell_single_days(history: History, sessions_per_episode: int, who: str) -> None:
    """Warn, where each day of a history has to be an episode of its own, that `who` has no nights.

    See `single_days`.
    """
    single = single_days(history, sessions_per_episode)
    if single:
        log.warning(f"{who} has no nights", reason=single)


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    # Mapped copy-on-write: kernels want writable arrays, and nothing writes to these.
    return np.asarray(np.memmap(path, dtype=dtype, mode="c")).reshape(shape)


class HistoricalMarkets(MarketsWithState):
    """Accounts on the days of a history; see `trading.envs.vector_env.Markets`.

    Every episode begins on a day drawn at random of `episode_starts`, at its first bar, and goes on
    through the nights for at most `sessions_per_episode` sessions, as far as they follow each
    other. First episodes start at staggered times of their days. `common` is what accounts trade,
    None: one underlying each; the rows of an account of several trade the same date.
    """

    def __init__(
        self,
        num_accounts: int,
        history: History,
        rng: np.random.Generator,
        sessions_per_episode: int = 1,
        common: CommonDays | None = None,
    ) -> None:
        self.snapshots, self.quotes = history.snapshots, history.quotes
        self.snapshot_of: I64 = np.zeros(num_accounts, dtype=np.int64)
        self._first = np.array([day.first for day in history.days], dtype=np.int64)
        self._last = self._first + np.array([day.bars for day in history.days]) - 1
        self._ends = np.zeros(num_accounts, dtype=np.int64)
        self._sessions = np.zeros(num_accounts, dtype=np.int64)
        """Sessions of the episode that follow the present one."""
        self._following, self._formerly = history.following, history.formerly
        self._dividend = np.array([day.dividend for day in history.days])
        self._in_cash = np.array([is_index(day.underlying) for day in history.days])
        self.common = history.common_days(1) if common is None else common
        self._per_episode, self._rows = sessions_per_episode, self.common.days.shape[1]
        self._left = sessions_left(self.common.following)
        self._starts = episode_starts(self.common.following, sessions_per_episode)
        self._rng = rng

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw from another generator from now on."""
        self._rng = rng

    def start_all(self) -> None:
        """Begin an episode for every account; a single account begins at the open."""
        count = len(self.snapshot_of) // self._rows
        self.restart(np.arange(len(self.snapshot_of)))
        passed = (self._rng.permutation(count) / count).repeat(self._rows)
        self.snapshot_of += (passed * (self._ends - self.snapshot_of)).astype(np.int64)

    def advance(self, opens: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Go on by one bar; returns the accounts whose day is over, bool[B]."""
        self.snapshot_of += 1
        return self.snapshot_of >= self._ends

    def over(self) -> NDArray[np.bool_]:
        """Return the accounts whose episode ends with the session that they are in, bool[B]."""
        over: NDArray[np.bool_] = self._sessions == 0
        return over

    def night(self, accounts: I64) -> tuple[F64, NDArray[np.bool_]]:
        """Return what the night of these accounts brings; see `trading.envs.vector_env.Markets`."""
        day = self._day_of(accounts)
        return self._dividend[self._following[day]], self._in_cash[day]

    def pass_night(self, accounts: I64, holdings: Holdings) -> None:
        """Bring these accounts to the first bar of their next session, with what they hold."""
        following = self._following[self._day_of(accounts)]
        self.snapshot_of[accounts] = self._first[following]
        self._ends[accounts] = self._last[following]
        self._sessions[accounts] -= 1
        _list_again(
            self.quotes.contract_offset, self._formerly, self.snapshot_of, accounts, holdings.legs
        )

    def restart(self, accounts: I64) -> None:
        """Draw a new day for these accounts."""
        count = len(accounts) // self._rows
        self._begin(accounts, self._starts[self._rng.integers(0, len(self._starts), count)])

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state in place.

        Raises
        ------
        DataError
            The state is of another number of accounts or of another history; nothing is changed.
        """
        arrays = state["arrays"]
        days = {"first": self._first, "last": self._last}
        if not all(np.array_equal(arrays[name], column) for name, column in days.items()):
            raise DataError("the state is of another history: start new episodes")
        super().set_state(state)

    def _begin(self, accounts: I64, common: I64) -> None:
        """Begin episodes of these accounts at the open of these common days."""
        days, left = self.common.days[common].reshape(-1), self._left[common].repeat(self._rows)
        self.snapshot_of[accounts] = self._first[days]
        self._ends[accounts] = self._last[days]
        self._sessions[accounts] = np.minimum(left, self._per_episode - 1)

    def _day_of(self, accounts: I64) -> I64:
        return np.searchsorted(self._last, self._ends[accounts])

    def _arrays(self) -> dict[str, Any]:
        return {
            "snapshot_of": self.snapshot_of,
            "ends": self._ends,
            "first": self._first,
            "last": self._last,
            "sessions": self._sessions,
        }


def sessions_left(following: I64) -> I64:
    """Return how many sessions go on from each day without a gap, [D]."""
    left = np.zeros(len(following), dtype=np.int64)
    for day in range(len(following)):
        k = int(following[day])
        while k >= 0:
            left[day] += 1
            k = int(following[k])
    return left


def episode_starts(following: I64, sessions_per_episode: int) -> I64:
    """Return the days on which an episode may begin.

    So many sessions go on from each; where a run of days without a gap is shorter, all of the run.
    """
    left = sessions_left(following)
    run = left.copy()
    # The first days of runs before those that go on from them, which learn the length so.
    for day in np.argsort(-left, kind="stable"):
        if following[day] >= 0:
            run[following[day]] = run[day]
    return np.flatnonzero(left >= np.minimum(sessions_per_episode - 1, run))


@njit(cache=True, error_model="numpy")
def _list_again(
    contract_offset: I64, formerly: I64, snapshot_of: I64, which: I64, legs: I64
) -> None:
    """Turn `legs` of another session's listing into those of the accounts' present snapshots.

    What has expired is held no more; all else is listed, see `trading.envs.consecutive_sessions`.
    """
    for b in which:
        at = contract_offset[snapshot_of[b]]
        for leg in range(legs.shape[1]):
            i = legs[b, leg]
            if i < 0:
                continue
            k = at
            while formerly[k] != i:
                k += 1
            legs[b, leg] = k - at
