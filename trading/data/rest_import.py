"""Brings what the vendor tells by REST into the catalogue: chains as of now, and past quotes.

A whole day of option quotes is a file of over 100 GB; the quotes of chosen contracts are a request
for each 50,000 of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from trading.data.catalog import REST, SCHEMAS, Catalog, Kind
from trading.data.flatfile_import import ImportReport
from trading.data.massive.client.rest import HistoricalQuote, RestClient
from trading.errors import DataError
from trading.market.calendar import NEW_YORK, SECOND_NS, ExchangeCalendar
from trading.market.contracts import OptionContract
from trading.progress import ProgressCallback

_WORKERS = 8  # each holds a page of 50,000 quotes


@dataclass(frozen=True, slots=True)
class QuotesReport:
    """What the quotes of one day gave.

    Parameters
    ----------
    contracts : int
        Contracts that were asked for and had not expired.
    fetched : int
        Those that were fetched now; the others had been before.
    rows : int
        Quotes that were fetched now.
    silent : int
        Of the fetched contracts, those without a quote on that day.
    """

    day: date
    contracts: int
    fetched: int
    rows: int
    silent: int


def import_chain_snapshot(
    rest: RestClient, catalog: Catalog, underlying: str, now_ns: int
) -> ImportReport:
    """Bring the latest quote and greeks of every contract of `underlying` into the catalogue.

    Each call adds a snapshot to the New York date of `now_ns`.

    Raises
    ------
    DataError
        The vendor knows no contract of it, or as `RestClient` says.
    """
    kind = Kind.CHAIN_SNAPSHOTS
    chain = rest.option_chain_snapshot(underlying)
    if not chain:
        raise DataError(f"the vendor's chain of {underlying} is empty: check the symbol")
    figures = [name for name in SCHEMAS[kind].names if name not in ("symbol", "ts_ns")]
    rows = [
        {"symbol": each.contract.symbol, "ts_ns": now_ns}
        | {name: getattr(each, name) for name in figures}
        for each in chain
    ]
    day = ExchangeCalendar().date_of(now_ns)
    with catalog.writing(kind, day, f"snapshot-{now_ns}") as writer:
        writer.add(underlying, pa.RecordBatch.from_pylist(rows, SCHEMAS[kind]))
    return ImportReport(kind, day, len(rows), len(rows), 1)


def import_quotes(
    rest: RestClient,
    catalog: Catalog,
    contracts: Sequence[OptionContract],
    day: date,
    now_ns: int,
    progress: ProgressCallback | None = None,
) -> QuotesReport:
    """Bring all quotes of some contracts on a New York date into the catalogue.

    Each contract enters it when its quotes were read to the last page, and is not fetched again:
    a call that was interrupted goes on where it was. Eight contracts are fetched at once; those
    that had expired before `day` are passed over.

    Raises
    ------
    DataError
        `day` is not over at `now_ns`, when its quotes would be partial; or as `RestClient` says.
        What was fetched until then stays.
    """
    if ExchangeCalendar().date_of(now_ns) <= day:
        raise DataError(f"{day} is not over in New York: fetch its quotes the day after")
    alive = sorted({each for each in contracts if each.expiry >= day})
    missing = _not_fetched(catalog, alive, day)
    stopped = threading.Event()
    done = len(alive) - len(missing)
    counts: list[int] = []
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="quotes") as pool:
        tasks = [
            pool.submit(_import_contract, rest, catalog, each, day, stopped) for each in missing
        ]
        try:
            for task in as_completed(tasks):
                counts.append(task.result())
                done += 1
                if progress is not None:
                    progress(done, len(alive))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return QuotesReport(day, len(alive), len(counts), sum(counts), counts.count(0))


def _not_fetched(
    catalog: Catalog, contracts: Sequence[OptionContract], day: date
) -> list[OptionContract]:
    there = {
        underlying: set(catalog.sources(Kind.OPTION_QUOTES, underlying, day))
        for underlying in {each.underlying for each in contracts}
    }
    return [each for each in contracts if _source(each) not in there[each.underlying]]


def _import_contract(
    rest: RestClient,
    catalog: Catalog,
    contract: OptionContract,
    day: date,
    stopped: threading.Event,
) -> int:
    """Fetch one contract, and return how many quotes it had."""
    kind = Kind.OPTION_QUOTES
    first_ns, before_ns = _midnight_ns(day), _midnight_ns(day + timedelta(days=1))
    with catalog.writing(kind, day, _source(contract)) as writer:
        writer.add(contract.underlying, pa.RecordBatch.from_pylist([], SCHEMAS[kind]))
        for page in rest.option_quotes(contract.symbol, first_ns, before_ns):
            if stopped.is_set():
                raise DataError(f"fetching the quotes of {contract.symbol} was stopped")
            writer.add(contract.underlying, _batch(contract.symbol, page))
        return writer.rows


def _batch(symbol: str, quotes: Sequence[HistoricalQuote]) -> Any:
    schema = SCHEMAS[Kind.OPTION_QUOTES]
    rows = [msgspec.structs.astuple(quote) for quote in quotes]
    fields = msgspec.structs.fields(HistoricalQuote)
    columns: dict[str, Any] = {
        field.name: [row[i] for row in rows] for i, field in enumerate(fields)
    }
    columns["symbol"] = [symbol] * len(rows)
    return pa.RecordBatch.from_arrays(
        [_typed(columns[name], schema.field(name).type) for name in schema.names],
        schema=schema,
    )


def _typed(values: list[Any], kind: Any) -> Any:
    return pa.array(values).cast(kind) if values else pa.array([], kind)


def _source(contract: OptionContract) -> str:
    return f"{REST}.{contract.symbol.removeprefix('O:')}"


def _midnight_ns(day: date) -> int:
    return int(datetime.combine(day, time(), NEW_YORK).timestamp()) * SECOND_NS
