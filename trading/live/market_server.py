"""The market server as a Ray actor: what simulation and replay stream from."""

import secrets
from pathlib import Path

from trading.config import Settings
from trading.data.massive.server.server import MarketServer
from trading.data.massive.server.source import EventSource, ReplaySource, SimulationSource
from trading.errors import JournalError, StreamError
from trading.execution.journal import Journal
from trading.live.endpoint import Endpoint
from trading.live.simulated_world import simulated_spec, simulated_world
from trading.logs import configure_logging
from trading.market.calendar import ExchangeCalendar
from trading.market.corporate_actions import first_name
from trading.market.rare_events import RareEvents
from trading.market.rates import YieldCurve, yield_of
from trading.market.simulator import SimulatedExchange


def resume_ns(journal: Path) -> int:
    """Exchange time of the journal's last event, 0 without a journal."""
    try:
        with Journal(journal, read_only=True) as history:
            return history.last_ts_ns
    except JournalError:
        if journal.exists():
            raise
        return 0


def streamed_symbols(settings: Settings, journal: Path) -> tuple[str, ...]:
    """Return the underlyings that are traded, and those that are held besides and wind down.

    A company that was renamed is named as it was at first: the simulated world renames it again.
    """
    if not journal.exists():
        return settings.symbols
    with Journal(journal, read_only=True) as history:
        account = history.fold()
    held = list(account.strategies)
    if settings.data.source == "simulation":
        held = [first_name(name, account.actions) for name in held]
    return tuple(dict.fromkeys([*settings.symbols, *held]))


def _simulated_yields(settings: Settings) -> list[YieldCurve]:
    """Return the simulated world's rate as one flat curve; of no other market."""
    if settings.data.source != "simulation":
        return []
    percent = yield_of(simulated_world(settings.market).model.rate)
    return [YieldCurve(settings.data.simulation.first_session, {1 / 12: percent, 1.0: percent})]


def event_source(settings: Settings, journal: Path) -> EventSource:
    """Return what the settings ask to stream; a simulated world goes on where the journal ended.

    Raises
    ------
    FlatFileError
        The recorded day is missing or damaged.
    """
    data = settings.data
    calendar = ExchangeCalendar()
    if data.source == "replay":
        if data.replay.folder is None or data.replay.date is None:
            raise ValueError("a replay needs data.replay.folder and data.replay.date")
        symbols = streamed_symbols(settings, journal)
        return ReplaySource(data.replay.folder, data.replay.date, symbols)
    world = simulated_world(settings.market)
    exchange = SimulatedExchange(
        [simulated_spec(settings.market, each) for each in streamed_symbols(settings, journal)],
        first_session=data.simulation.first_session,
        seed=settings.seed,
        model=world.model,
        calendar=calendar,
        step_seconds=data.simulation.step_seconds,
        rare=RareEvents(**data.simulation.rare_events.model_dump()),
        comovement=world.comovement,
    )
    first = calendar.sessions(
        data.simulation.first_session, calendar.next_session(data.simulation.first_session).date
    )[0]
    return SimulationSource(exchange, max(resume_ns(journal), first.open_ns), seed=settings.seed)


_PORT_WAIT_S = 60.0
"""For the port of a server that has died."""


class MarketServerHost:
    """Runs one market server, as an asynchronous actor on the node of the live market."""

    def __init__(self, settings: Settings, journal: Path) -> None:
        configure_logging(settings.log_level)
        self._settings = settings
        self._journal = journal
        self._server: MarketServer | None = None

    async def start(self, former: Endpoint | None = None) -> Endpoint:
        """Load or simulate the market and listen, the exchange clock standing still.

        Parameters
        ----------
        former
            Of a server that has died: this one listens there, by the same key.

        Raises
        ------
        TradingError
            The recorded day is missing or damaged, or the settings ask for the impossible.
        """
        data = self._settings.data
        key = secrets.token_urlsafe(24) if former is None else former.api_key
        port = data.server.port if former is None else int(former.rest_url.rpartition(":")[2])
        self._server = MarketServer(
            event_source(self._settings, self._journal),
            [key],
            host=data.server.host,
            port=port,
            speed=data.replay.speed if data.source == "replay" else data.simulation.speed,
            max_quote_contracts=data.max_quote_contracts,
            treasury_yields=_simulated_yields(self._settings),
        )
        port = await self._server.start(0.0 if former is None else _PORT_WAIT_S)
        address = f"{data.server.host}:{port}"
        return Endpoint(f"ws://{address}", f"http://{address}", key)

    async def begin(self) -> None:
        """Start the exchange clock."""
        await self._started().begin()

    async def ping(self) -> None:
        """Answer while the server is not stuck."""

    async def wait_finished(self) -> None:
        """Return when the recording has been streamed to its end."""
        await self._started().wait_finished()

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._server is not None:
            await self._server.stop()

    def _started(self) -> MarketServer:
        if self._server is None:
            raise StreamError("the market server has not started: call start() first")
        return self._server
