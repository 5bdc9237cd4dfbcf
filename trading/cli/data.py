"""The verbs `trading download` and `trading import`: history into the catalogue."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date as Date  # noqa: N812 - `date` is an option's name
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from trading.cli.common import ConfigOption, JsonOption, SetOption, failures, misuse, settings_for
from trading.config import Settings
from trading.errors import ContractError

if TYPE_CHECKING:
    from trading.data.catalog import Catalog
    from trading.data.download import FlatFileStore
    from trading.data.flatfile_import import FlatFileKind, ImportReport, Selection
    from trading.data.massive.client.rest import RestClient

SymbolsOption = Annotated[
    str | None,
    typer.Option(help="Underlyings whose rows are kept, with commas; default: the settings'."),
]
CatalogOption = Annotated[
    Path | None, typer.Option(help="Folder of the Parquet catalogue; default: state_dir/catalog.")
]
FirstDayOption = Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD.")]
LastDayOption = Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD; default: --date.")]
RecordingsOption = Annotated[
    Path | None, typer.Option(help="Folder of recorded live days; default: state_dir/recordings.")
]
FlatFilesOption = Annotated[
    Path | None, typer.Option(help="Folder in the vendor's flat-file layout, instead.")
]
CatalogInsteadOption = Annotated[
    Path | None, typer.Option(help="Folder of the Parquet catalogue, instead.")
]


def download(
    date: Annotated[str | None, typer.Option(help="Day to fetch, YYYY-MM-DD.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Last day, YYYY-MM-DD: fetch every session from --date on.")
    ] = None,
    symbols: SymbolsOption = None,
    contracts: Annotated[
        Path | None,
        typer.Option(
            help="Text file of option symbols, one a line: fetch all their quotes by REST, and "
            "keep only these contracts of the files."
        ),
    ] = None,
    files: Annotated[
        bool, typer.Option(help="Whether to fetch the flat files of minute bars and trades.")
    ] = True,
    quotes: Annotated[
        bool,
        typer.Option(
            "--quotes",
            help="Option quotes from the flat file and not by REST: over 100 GB a day pass "
            "through, only the rows kept stay.",
        ),
    ] = False,
    chains: Annotated[
        bool, typer.Option("--chains", help="A snapshot of each underlying's chain, as of now.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the files; default: state_dir/flatfiles.")
    ] = None,
    catalog: CatalogOption = None,
    endpoint: Annotated[
        str | None, typer.Option(help="S3 endpoint of the flat files; default: the vendor's.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch history into the catalogue: minute bars and trades, and quotes of chosen contracts.

    Past days come as flat files by S3 (S3_ACCESS_KEY, S3_SECRET_KEY).
    The quotes of --contracts, and --chains, come by REST (MASSIVE_API_KEY).
    A command that was interrupted goes on where it was when it is given again.
    """
    settings = settings_for(config, with_symbols(symbols, overrides), several=True)
    days = _days(date, until, chains)
    if not files and quotes:
        misuse("--no-files contradicts --quotes: quotes by REST need --contracts alone")
    if not files and contracts is None and not chains:
        misuse("--no-files leaves nothing to fetch: name --contracts, or ask for --chains")
    named = contracts if days is not None and not quotes else None
    if named is not None or chains:
        _required(settings.credentials.massive_api_key, "MASSIVE_API_KEY")
    with failures():
        from trading.data.catalog import Catalog

        target = Catalog(catalog or settings.paths.state_dir / "catalog")
        console = Console(highlight=False, stderr=as_json)
        sessions = [] if days is None else sessions_between(*days)
        if files and days is not None:
            into = folder or settings.paths.state_dir / "flatfiles"
            selection = _selection(settings, contracts)
            with _store(settings, endpoint) as store:
                _download_days(store, sessions, into, target, selection, quotes, console)
        if named is not None:
            _download_quotes(settings, target, _named_in(named), sessions, console)
        if chains:
            _download_chains(settings, target, console)


def _days(date: str | None, until: str | None, chains: bool) -> tuple[Date, Date] | None:
    """Return the first and the last day to fetch, None for none; a mistake ends the command."""
    first, last = day_of("--date", date), day_of("--until", until)
    if first is None and not chains:
        misuse("name a day with --date, or ask for --chains")
    if last is not None and (first is None or last < first):
        misuse("--until needs a --date that is not later")
    return None if first is None else (first, last or first)


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder in the vendor's flat-file layout.")],
    date: FirstDayOption = None,
    until: LastDayOption = None,
    symbols: SymbolsOption = None,
    contracts: Annotated[
        Path | None,
        typer.Option(help="Text file of option symbols, one a line: keep only these contracts."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Keep the rows of every underlying.")
    ] = False,
    catalog: CatalogOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import flat files that were downloaded already; a day imported again is replaced."""
    settings = settings_for(config, with_symbols(symbols, overrides), several=True)
    first, last = day_of("--date", date), day_of("--until", until)
    if everything and (symbols is not None or contracts is not None):
        misuse("--all contradicts --symbols and --contracts")
    with failures():
        from trading.data.catalog import Catalog
        from trading.data.flatfile_import import Selection, find_flat_files, import_flat_file
        from trading.errors import FlatFileError

        target = Catalog(catalog or settings.paths.state_dir / "catalog")
        selection = Selection() if everything else _selection(settings, contracts)
        files = [
            (kind, day, path)
            for kind, day, path in find_flat_files(folder)
            if (first is None or first <= day) and (day <= (last or first or day))
        ]
        if not files:
            raise FlatFileError(
                f"folder {folder} holds no flat file of these days: it must have the vendor's "
                "layout, as in us_options_opra/quotes_v1/2026/01/2026-01-05.csv.gz"
            )
        console = Console(highlight=False, stderr=as_json)
        for kind, day, path in files:
            with _bar(console, f"{kind} {day}") as advance:
                report = import_flat_file(target, path, kind, day, selection, advance)
            _say(console, report)
            if report.rows_read and not report.rows_kept:
                console.print("  nothing was wanted: name others with --symbols, or all by --all")


def _download_days(
    store: "FlatFileStore",
    days: list[Date],
    folder: Path,
    catalog: "Catalog",
    selection: "Selection",
    quotes: bool,
    console: Console,
) -> None:
    from trading.data.catalog import Kind
    from trading.data.download import download_flat_file, import_remote_file
    from trading.data.flatfile_import import import_flat_file

    kept: tuple[FlatFileKind, ...] = (Kind.STOCK_BARS, Kind.OPTION_BARS, Kind.OPTION_TRADES)
    for day in days:
        for kind in kept:
            with _bar(console, f"{kind} {day}") as advance:
                path = download_flat_file(store, kind, day, folder, advance)
            _say(console, import_flat_file(catalog, path, kind, day, selection))
        if quotes:
            with _bar(console, f"{Kind.OPTION_QUOTES} {day}") as advance:
                report = import_remote_file(
                    store, Kind.OPTION_QUOTES, day, catalog, selection, advance
                )
            _say(console, report)


def _download_quotes(
    settings: Settings,
    catalog: "Catalog",
    symbols: list[str],
    days: list[Date],
    console: Console,
) -> None:
    from trading.data.rest_import import import_quotes
    from trading.market.contracts import parse_symbol

    contracts = [parse_symbol(symbol) for symbol in symbols]
    with _rest(settings) as rest:
        for day in days:
            with _bar(console, f"quotes {day}", MofNCompleteColumn()) as advance:
                report = import_quotes(rest, catalog, contracts, day, time.time_ns(), advance)
            told = (
                f"option_quotes {day}: {report.rows:,} quotes of {report.fetched:,} contracts by "
                f"REST, {report.silent:,} of them without any; "
                f"{report.contracts - report.fetched:,} were there"
            )
            _tell(console, {"kind": "option_quotes", "day": str(day), **asdict(report)}, told)


def _download_chains(settings: Settings, catalog: "Catalog", console: Console) -> None:
    from trading.data.rest_import import import_chain_snapshot

    with _rest(settings) as rest:
        for symbol in settings.symbols:
            _say(console, import_chain_snapshot(rest, catalog, symbol, time.time_ns()))


def _rest(settings: Settings) -> "RestClient":
    from trading.data.massive.client.rest import RestClient

    key = _required(settings.credentials.massive_api_key, "MASSIVE_API_KEY")
    return RestClient(settings.data.massive.rest_address, key)


def _store(settings: Settings, endpoint: str | None) -> "FlatFileStore":
    from trading.data.download import ENDPOINT, FlatFileStore

    return FlatFileStore(
        _required(settings.credentials.s3_access_key, "S3_ACCESS_KEY"),
        _required(settings.credentials.s3_secret_key, "S3_SECRET_KEY"),
        endpoint=endpoint or ENDPOINT,
    )


@contextmanager
def _bar(
    console: Console, text: str, *counts: ProgressColumn
) -> Iterator[Callable[[int, int], None]]:
    """Yield a bar for the length of the block, moved by calls with what is done and the total.

    `counts` show these numbers; by default they are bytes.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *(counts or (DownloadColumn(), TransferSpeedColumn())),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say(console: Console, report: "ImportReport") -> None:
    told = (
        f"{report.kind} {report.day}: kept {report.rows_kept:,} of {report.rows_read:,} rows "
        f"({report.underlyings} underlying{'s' * (report.underlyings != 1)})"
    )
    if report.dropped:
        told += f"\n  left out: {report.dropped}"
    _tell(console, {**asdict(report), "kind": str(report.kind), "day": str(report.day)}, told)


def _tell(console: Console, plain: dict[str, Any], told: str) -> None:
    """Say what was done to people, or as a line of JSON where they hear on standard error."""
    if console.stderr:
        print(json.dumps(plain), flush=True)
    else:
        console.print(told, soft_wrap=True)


def sessions_between(first: Date, last: Date) -> list[Date]:
    """Return the sessions of these days, both included.

    Raises FlatFileError where there is none.
    """
    from trading.errors import FlatFileError
    from trading.market.calendar import ExchangeCalendar

    days = [session.date for session in ExchangeCalendar().sessions(first, last)]
    if not days:
        raise FlatFileError(f"there is no session from {first} to {last}: choose other days")
    return days


def _selection(settings: Settings, contracts: Path | None) -> "Selection":
    from trading.data.flatfile_import import Selection
    from trading.market.contracts import parse_symbol

    if contracts is None:
        return Selection(settings.symbols)
    symbols = _named_in(contracts)
    return Selection(
        underlyings={parse_symbol(each).underlying for each in symbols}, contracts=symbols
    )


def _named_in(contracts: Path) -> list[str]:
    """Return the option symbols of a text file."""
    try:
        symbols = contracts.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"--contracts {contracts} cannot be read: {error}") from error
    if not symbols:
        raise ContractError(f"{contracts} names no contract: write one option symbol a line")
    return symbols


def day_of(option: str, text: str | None) -> Date | None:
    """Return the day that an option names.

    One that is no date ends the command with exit code 2.
    """
    try:
        return None if text is None else Date.fromisoformat(text)
    except ValueError:
        misuse(f"{option} {text}: must be a date written YYYY-MM-DD")


def _required(secret: SecretStr | None, variable: str) -> str:
    if secret is None:
        misuse(f"{variable} is not set: export it, for it is read from the environment only")
    return secret.get_secret_value()


def with_symbols(symbols: str | None, overrides: list[str] | None) -> list[str]:
    """Return the overrides, with `--symbols` among them."""
    flags = [] if symbols is None else [f"symbols={symbols}"]
    return [*flags, *(overrides or [])]
