"""The live-market actor: stream, chains, broker and policy of one trading account.

It starts trading by itself when Ray creates it and again when Ray restarts it after a crash; the
account is then what the journal says.
"""

import faulthandler
import hashlib
import importlib.metadata
import os
import queue
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import ray
import torch

from trading.config import Settings
from trading.config.settings import CredentialSettings
from trading.data.admission import Refusal, Refusals
from trading.data.massive.client.connection import ConnectionHealth, ConnectionState
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.stream import StreamClient
from trading.data.recording import Recorder
from trading.envs.live_env import LiveEnv
from trading.errors import (
    DataError,
    JournalDiskError,
    JournalLocked,
    OwnerRefused,
    TradingError,
)
from trading.execution.broker import PaperBroker
from trading.execution.events import OwnerCommand, TermsAdopted
from trading.execution.journal import Journal
from trading.execution.mailbox import POLL_S, fault_of_command, serve
from trading.execution.owner import Command, Effect
from trading.execution.portfolio import Account
from trading.files import takes_writes
from trading.learning.champion.store import (
    AccountChampion,
    ChampionStore,
)
from trading.learning.policy import Policy
from trading.live import assembly
from trading.live.alerts import Alerts, SessionBaseline, session_report
from trading.live.bar_clock import Bar
from trading.live.chains import ChainSnapshots, chains_as_json, snapshot_chains
from trading.live.changed_settings import trading_settings
from trading.live.endpoint import Endpoint
from trading.live.faults import FaultNotes, describe_fault
from trading.live.markets import MarketDirectory
from trading.live.metrics import FeedFigures, LearnerFigures, ProcessFigures, TradingMetrics
from trading.live.notices import JournalNotices, Notices, by_apprise
from trading.live.readiness import (
    UnreadyKind,
    UnreadyReason,
    clock_reasons,
    connection_reasons,
    subscription_reasons,
)
from trading.live.recent_activity import RecentActivity
from trading.live.recorded import recorded_env, recorded_markets
from trading.live.reloading import reload
from trading.live.rule_based import RuleBasedDecider, check_account
from trading.live.status import (
    AccountSnapshot,
    account_figures,
    describe_account,
    describe_market,
    fill_lines,
    iso_time,
)
from trading.live.status_updates import StatusPublisher, StatusUpdate
from trading.live.trader import Fragment, LearnerReply, Trader
from trading.logs import configure_logging, get_logger
from trading.market.calendar import ExchangeCalendar

log = get_logger(__name__)

ACTOR_NAME = "live-market"
_LOCK_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 20.0
_COMMAND_TIMEOUT_S = 10.0
_DISKS_S = 60.0
_ROOM_POLL_S = 2.0
_UNLOCK_TIMEOUT_S = 4.0


class Progress(NamedTuple):
    """Where the live market stands, for the driver."""

    phase: str
    """starting, connecting, trading, halted (by the journal's disk), finished, stopped, failed."""
    connected: bool
    """Every connection is live."""
    process: int
    events: int
    decisions: int
    fills: int
    fees: float
    equity: float
    open_positions: int
    market_time_ns: int
    recent_fills: tuple[str, ...] = ()
    """The last fills, one line each."""
    champion: int = 0
    promotions: int = 0
    rollbacks: int = 0
    """Totals of the account."""
    failure: str = ""
    failure_kind: str = ""
    """Name of the error's type when failed."""
    locked: bool = False
    """It waits for its secrets, see `LiveMarket.unlock`."""
    profit_today: float = 0.0
    """Change of equity since the last session's close, without cash moved, USD."""


class LiveMarket:
    """Trades one account from its own thread.

    Every method tells of the account from snapshots that the trading thread takes after each bar
    and each command. The feed's counters, the weights' version and the keys of commands are single
    values, and read as they are.

    Parameters
    ----------
    settings
        The whole tree; paths are absolute.
    endpoint
        Where market data comes from. Without a key it begins once `unlock` has handed over the
        secrets: Ray keeps an actor's arguments in the cluster's store, which may be on a disk.
    plugins
        What the driver has loaded, see `assembly.chosen_plugins`. A file that is another one when
        this process begins to trade, as after a restart, is refused.
    """

    def __init__(
        self,
        settings: Settings,
        endpoint: Endpoint,
        plugins: Mapping[str, str],
    ) -> None:
        configure_logging(settings.log_level, (*settings.credentials.values(), endpoint.api_key))
        torch.set_num_threads(1)
        self._settings = settings
        self._endpoint = endpoint
        self._plugins = plugins
        self._noted: dict[str, Any] = {}
        """Of the features that it trades with, for what its owner promotes."""
        self._unlocked = threading.Event()
        if endpoint.api_key:
            self._unlocked.set()
        self._calendar = ExchangeCalendar()
        self._metrics = TradingMetrics(settings.strategy)
        self._learner = LearnerFigures()
        self._learner_status: dict[str, Any] = {}
        self._decisions_learned = 0
        self._status: dict[str, Any] = {}
        self._trader: Trader | None = None
        self._stream: StreamClient | None = None
        self._rest: RestClient | None = None
        self._recorder: Recorder | None = None
        self._not_recorded = "off"
        self._owner_lock = threading.Lock()
        """One choice of the champion, or reload, at a time."""
        self._phase = "starting"
        self._failure: BaseException | None = None
        self._bar: Bar | None = None
        self._restarts = 0
        self._equity = float("nan")
        self._account: AccountSnapshot | None = None
        self._recent_fills: tuple[str, ...] = ()
        self._profit_today = 0.0
        self._notices: Notices | None = None
        self._day: SessionBaseline | None = None
        self._day_base: float | None = None
        self._stopping = threading.Event()
        self._warn_after_s = settings.safety.hang_s / 4
        """A trading thread that is silent for longer is told of."""
        self._activity = RecentActivity()
        self._chains: ChainSnapshots | None = None
        journal = assembly.journal_path(settings)
        self._publisher = StatusPublisher(self._edition, self._activity.as_values, str(journal))
        self._faults = FaultNotes(journal)
        self._faults.note()
        self._thread = threading.Thread(target=self._main, name="trader", daemon=True)
        self._thread.start()

    def unlock(self, credentials: CredentialSettings, api_key: str) -> None:
        """Take over the secrets and the endpoint's key, and begin; once."""
        if self._unlocked.is_set():
            return
        self._settings = self._settings.model_copy(update={"credentials": credentials})
        self._endpoint = replace(self._endpoint, api_key=api_key)
        configure_logging(self._settings.log_level, (*credentials.values(), api_key))
        self._unlocked.set()

    def ping(self) -> str:
        """Answer while the actor lives."""
        return "ok"

    def readiness(self) -> tuple[bool, list[str]]:
        """Whether the account trades or its market is known to be closed, and why not."""
        reasons = self._unready()
        return not reasons, [each.text for each in reasons]

    def _unready(self) -> list[UnreadyReason]:
        """Return what keeps it from being ready; a closed market needs clock and subscriptions."""
        trades = self._phase == "trading"
        is_closed = trades and self._market_is_closed()
        reasons = []
        if not trades:
            text = f"{self._phase}: {self._failure}" if self._failure else self._phase
            kind = UnreadyKind.HALTED if self._phase == "halted" else UnreadyKind.PHASE
            reasons.append(UnreadyReason(kind, text))
        if (silent_s := self._silent_s()) > self._warn_after_s:
            text = f"the trading thread hangs: no sign of life for {silent_s:.0f} s"
            reasons.append(UnreadyReason(UnreadyKind.HANGS, text))
        if not is_closed:
            reasons += self._feed_reasons()
        if self._stream is not None:
            reasons += subscription_reasons(self._stream.health())
        if self._trader is not None:
            reasons += clock_reasons(self._trader, self._calendar)
        if is_closed:
            return reasons
        if trades and self._bar is None:
            reasons.append(UnreadyReason(UnreadyKind.WARMING, "warming up: no bar has closed yet"))
        account = self._status.get("account", {})
        if account.get("trading_state") == "HALTED":
            text = f"halted: {account['trading_state_reason']}"
            reasons.append(UnreadyReason(UnreadyKind.HALTED, text))
        return reasons

    def status(self) -> dict[str, Any]:
        """Account, positions, greeks, market, feed, learner and versions as JSON values."""
        feed = self._stream.health() if self._stream is not None else {}
        return {
            "phase": self._phase,
            **self._status,
            **self._halted_status(),
            "feed": {"connections": feed, **self._feed_counts()},
            "recording": (
                (self._recorder.failure or "on") if self._recorder else self._not_recorded
            ),
            "learner": self._learner_status,
            "versions": {
                "trading": importlib.metadata.version("trading"),
                "ray": ray.__version__,
                "torch": torch.__version__,
                "weights": self._trader.weights_version if self._trader else None,
            },
            "market_open": not self._market_is_closed(),
            "process": os.getpid(),
            "restarts": self._restarts,
        }

    def metrics(self) -> bytes:
        """Prometheus text."""
        connections = self._stream.health() if self._stream is not None else {}
        clock = self._trader.clock if self._trader else None
        live_clock = self._trader.live_clock if self._trader else None
        newest = clock.watermark_ns if clock else 0
        age_s = (self._bar.end_ns - newest) / 1e9 if self._bar and newest else float("nan")
        underlyings = self._status.get("market", {}).get("underlyings", {}).values()
        self._metrics.update_feed(
            FeedFigures(
                events=clock.quotes + clock.bars if clock else 0,
                reconnects=sum(each["reconnects"] for each in connections.values()),
                dropped_frames=sum(each["dropped"] for each in connections.values()),
                quote_age_s=max(age_s, 0.0),
                connected={
                    k: each["state"] is ConnectionState.LIVE for k, each in connections.items()
                },
                subscriptions={
                    (k, answer): count
                    for k, each in connections.items()
                    for answer, count in (
                        ("acknowledged", each["acknowledged"]),
                        ("refused", each["refused"]),
                        ("unanswered", each["unanswered"]),
                    )
                },
                silence_s={k: _silence_s(each) for k, each in connections.items()},
                late_events=clock.late if clock else 0,
                refused=self._refused(),
                clock_offset_s=live_clock.offset_s if live_clock else float("nan"),
                clock_steps=live_clock.steps if live_clock else 0,
                late_bars=self._trader.late_bars if self._trader else 0,
                rows_left_out=self._rest.rows_left_out if self._rest else 0,
                tradable_share=min(
                    (each["tradable_share"] for each in underlyings), default=float("nan")
                ),
                market_time_s=self._bar.end_ns / 1e9 if self._bar else float("nan"),
                market_open=not self._market_is_closed(),
            )
        )
        self._metrics.update_learner(self._learner_figures())
        self._metrics.update_process(self._process_figures())
        return self._metrics.text()

    def next_update(self, after: int, timeout_s: float) -> StatusUpdate | None:
        """Return the newest status update once it is not `after`; None where time is up."""
        return self._publisher.after(after, timeout_s)

    def chains(self) -> dict[str, bytes]:
        """Every option chain at the last bar as a JSON object, by underlying."""
        return {} if self._chains is None else chains_as_json(self._chains)

    def progress(self) -> Progress:
        """Return the figures that the driver shows; asking is its sign of life."""
        trader = self._trader
        if trader is not None:
            trader.dead_man.driven()
        account = self._account
        return Progress(
            phase=self._phase,
            connected=not self._feed_reasons() and self._phase == "trading",
            process=os.getpid(),
            events=trader.clock.quotes + trader.clock.bars if trader else 0,
            decisions=account.decisions if account else 0,
            fills=account.fills if account else 0,
            fees=account.fees if account else 0.0,
            equity=self._equity,
            open_positions=account.open_positions if account else 0,
            market_time_ns=self._bar.end_ns if self._bar else 0,
            recent_fills=self._recent_fills,
            champion=account.champion.champion if account else 0,
            promotions=account.promotions if account else 0,
            rollbacks=account.rollbacks if account else 0,
            failure=str(self._failure or ""),
            failure_kind=type(self._failure).__name__ if self._failure else "",
            locked=not self._unlocked.is_set(),
            profit_today=self._profit_today,
        )

    def next_fragment(self, timeout_s: float) -> Fragment | None:
        """Return the oldest fragment of experience that nobody took yet, or None in time."""
        if self._trader is None:
            self._stopping.wait(timeout_s)
            return None
        try:
            return self._trader.fragments.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def deliver(
        self, answer: LearnerReply, figures: LearnerFigures, status: dict[str, Any]
    ) -> None:
        """Take the driver's answer and the learner's figures.

        What is decided while nobody trades is sent again, until the account tells of it.
        """
        trader = self._trader
        if trader is not None:
            if figures.updates != self._learner.updates:
                self._decisions_learned = trader.decisions
            trader.deliver(answer)
        self._learner = figures
        self._learner_status = status
        self._activity.learned(status)

    def learner_fault(self, fault: str) -> None:
        """Hear from the driver why its learner says nothing; empty when it does again."""
        self._learner_status = {**self._learner_status, "paused": fault}
        self._tell(fault or "the learner goes on")

    def account_champion(self) -> AccountChampion | None:
        """Where the account stands, None before it is open."""
        account = self._account
        return account.champion if self._trader is not None and account is not None else None

    def control_digest(self) -> bytes | None:
        """SHA-256 of the owner's token; None where none is configured.

        Raises
        ------
        OwnerRefused
            It is not known yet.
        """
        if not self._unlocked.wait(_UNLOCK_TIMEOUT_S):
            raise OwnerRefused("the live market is starting: give the command again")
        token = self._settings.credentials.control_token
        return hashlib.sha256(token.get_secret_value().encode()).digest() if token else None

    def control(self, command: Command) -> tuple[str, dict[str, Any]]:
        """Obey the owner: why not (then nothing was done), or empty and what happened."""
        try:
            return "", self._obey(command)
        except (TradingError, OSError) as error:
            return " ".join(str(error).split()), {}
        except Exception as error:  # as by the command line, see `mailbox`
            return fault_of_command(error), {}

    def _obey(self, command: Command | None) -> dict[str, Any]:
        trader = self._trader
        if trader is None or self._phase not in ("connecting", "trading"):
            raise OwnerRefused(f"the live market is {self._phase}: give the command again")
        effect = None
        with self._owner_lock:
            known = trader.env.broker.account.commands
            if command is not None and not (command.key and command.key in known):
                effect = self._prepare(trader, command)
            future = trader.command(command, effect)
        try:
            answer = future.result(_COMMAND_TIMEOUT_S)
        except TimeoutError:
            # What a reload read is taken up in any case: it is only its answer that is late.
            is_reload = command is not None and command.command is OwnerCommand.RELOAD
            if not is_reload and future.cancel():
                raise OwnerRefused(
                    f"the trading thread was busy for {_COMMAND_TIMEOUT_S:g} s: give the command "
                    "again"
                ) from None
            try:
                answer = future.result(_COMMAND_TIMEOUT_S)
            except TimeoutError:
                raise OwnerRefused(
                    f"the trading thread has not answered within {2 * _COMMAND_TIMEOUT_S:g} s: "
                    "see the account's status for whether the command was obeyed"
                ) from None
        said: dict[str, Any] = msgspec.to_builtins(answer)
        said["account"]["unclosed"] = dict(trader.env.unclosed)
        return said

    def _prepare(self, trader: Trader, command: Command) -> Effect | None:
        """Do what is no matter of the trading thread; return what is left for it."""
        if command.command is OwnerCommand.RELOAD:
            said = self._reload(trader)
            return lambda *_: (said, [])
        if command.command not in (OwnerCommand.PROMOTE, OwnerCommand.ROLLBACK):
            return None
        account = self.account_champion() or AccountChampion()
        return assembly.champion_change(self._settings, command, account, self._noted)

    def _reload(self, trader: Trader) -> str:
        """Read the settings again, and take up the limits that changed."""
        self._settings, taken_up, need_restart = reload(self._settings)
        if taken_up:
            trader.limit(
                assembly.risk_limits(self._settings), assembly.rules_by_limits(self._settings)
            )
        said = f"taken up: {'; '.join(taken_up) or 'nothing had changed'}"
        return said + (f"; after a restart: {'; '.join(need_restart)}" if need_restart else "")

    def stop(self) -> Progress:
        """End trading, close the stream and the journal; return the last figures."""
        self._stopping.set()
        if self._trader is not None:
            self._trader.stopping.set()
        self._thread.join(_STOP_TIMEOUT_S)
        return self.progress()

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        """Renew the snapshots; called on the trading thread."""
        self._bar = bar
        self._take_snapshot(trader, bar)
        self._record_bar(trader, bar)
        self._report(trader, bar)
        if latency_s is not None:
            self._metrics.observe_action_latency(latency_s)
        self._publisher.bar()

    def _record_bar(self, trader: Trader, bar: Bar) -> None:
        """Keep what the page shows of a bar; called on the trading thread."""
        parts = trader.profit_parts
        self._activity.bar(
            bar.end_ns,
            str(bar.session.date),
            self._equity,
            trader.env.broker.account.day_base,
            trader.decided,
            parts.parts,
            parts.since_ns,
        )
        self._chains = snapshot_chains(trader.env, bar.end_ns)

    def on_command(self, trader: Trader) -> None:
        """Renew the snapshots; called on the trading thread."""
        self._take_snapshot(trader, trader.clock.bar)
        self._publisher.bar()

    def _serve_commands(self) -> None:
        """Obey what the command line leaves beside the journal, until trading ends."""
        journal = assembly.journal_path(self._settings)
        trader, fault = self._trader, ""
        while not self._stopping.wait(POLL_S) and self._is_alive(trader):
            try:
                serve(journal, self._obey)
                fault = ""
            except OSError as error:
                if str(error) != fault:
                    fault = str(error)
                    log.error("the folder of the owner's commands cannot be used", reason=fault)

    def _is_alive(self, trader: Trader | None) -> bool:
        """Whether this is who trades, or gets ready to."""
        return trader is self._trader and self._phase in ("connecting", "trading")

    def _watch_for_hangs(self) -> None:
        """End this process when the trading thread shows no sign of life, until trading ends.

        Ray starts it again, and the journal tells where it goes on. A thread that lets no other
        run is found by the driver, which then gets no answer.
        """
        trader, told = self._trader, False
        limit_s = self._settings.safety.hang_s
        while not self._stopping.wait(1.0) and self._is_alive(trader):
            silent_s = self._silent_s()
            if silent_s > self._warn_after_s and not told:
                log.error("the trading thread hangs", silent_s=silent_s, ends_after_s=limit_s)
                self._tell(f"the trading thread hangs: no sign of life for {silent_s:.0f} s")
            told = silent_s > self._warn_after_s
            if silent_s > limit_s:
                faulthandler.dump_traceback(all_threads=True)
                self._end_process(f"the trading thread hung for {silent_s:.0f} s")

    def _silent_s(self) -> float:
        """Seconds since the trading thread's last sign of life."""
        return self._trader.pulse.silent_s if self._trader is not None else 0.0

    def _keep_watch(self, alerts: Alerts) -> None:
        """Look at the feed every second, and at the disks every minute, until trading ends."""
        trader, looked_s = self._trader, -_DISKS_S
        while not self._stopping.wait(1.0) and self._is_alive(trader):
            now_s = time.monotonic()
            if self._phase == "trading" and not self._market_is_closed():
                alerts.feed([each.text for each in self._feed_reasons()], now_s)
            if now_s - looked_s >= _DISKS_S:
                looked_s = now_s
                figures = self._process_figures()
                sizes = figures.disk_size_bytes
                free = figures.disk_free_bytes
                alerts.disks({name: 100.0 * free[name] / sizes[name] for name in sizes})

    def _report(self, trader: Trader, bar: Bar) -> None:
        """Tell the owner of the day when its session is over."""
        if self._day is None:
            self._day = SessionBaseline.of(trader)
        if not bar.last:
            self._day_base = trader.env.broker.account.day_base
            return
        base = self._day.base if self._day_base is None else self._day_base
        line = session_report(trader, self._day, base, str(bar.session.date), self._learner)
        self._day, self._day_base = SessionBaseline.of(trader), None
        log.info("the day's report", report=line)
        self._tell(line)

    def _tell(self, line: str) -> None:
        """Tell the owner, where the settings say how."""
        if self._notices is not None:
            self._notices.tell(line)

    def _take_snapshot(self, trader: Trader, bar: Bar) -> None:
        self._account = AccountSnapshot.of(trader)
        figures = account_figures(trader, self._restarts)
        self._equity = figures.portfolio_value
        self._metrics.update_account(figures)
        self._recent_fills = fill_lines(trader)
        self._profit_today = figures.portfolio_value - trader.env.broker.account.day_base
        self._status = {
            **describe_account(trader),
            **describe_market(trader, bar),
        }

    def _edition(self) -> tuple[bool, list[str], dict[str, object], bytes]:
        return *self.readiness(), self.status(), self.metrics()

    def _learner_figures(self) -> LearnerFigures:
        """Return the learner's own figures, and what the live market knows about its experience."""
        learning, trader = self._settings.learning, self._trader
        return replace(
            self._learner,
            weights_version=trader.weights_version if trader else 0,
            update_frequency=learning.update_frequency if self._settings.learns else 0,
            backlog=trader.decisions - self._decisions_learned if trader else 0,
            dropped_fragments=trader.fragments_dropped if trader else 0,
        )

    def _process_figures(self) -> ProcessFigures:
        paths = self._settings.paths
        folders = {"state": paths.state_dir, "checkpoints": paths.checkpoints}
        # The learner may keep its checkpoints on another node.
        disks = {name: shutil.disk_usage(at) for name, at in folders.items() if at.exists()}
        unready = {each.kind for each in self._unready()}
        return ProcessFigures(
            ready=not unready,
            not_ready={str(kind): kind in unready for kind in UnreadyKind},
            disk_free_bytes={name: disk.free for name, disk in disks.items()},
            disk_size_bytes={name: disk.total for name, disk in disks.items()},
        )

    def _market_is_closed(self) -> bool:
        """Whether the exchange is shut by the wall clock; only a real market keeps it."""
        if self._settings.data.source != "massive":
            return False
        clock = self._trader.live_clock if self._trader else None
        now_ns = time.time_ns() if clock is None else clock.time_ns
        return self._calendar.session_at(now_ns) is None

    def _feed_reasons(self) -> list[UnreadyReason]:
        return [] if self._stream is None else connection_reasons(self._stream.health())

    def _refused(self) -> dict[str, int]:
        """Market events that were not taken over as they came, by reason."""
        refused = self._trader.clock.refused() if self._trader else dict(Refusals())
        if self._stream is not None:
            refused[Refusal.OVERSIZE] += self._stream.oversize
        return refused

    def _feed_counts(self) -> dict[str, Any]:
        if self._trader is None:
            return {}
        clock = self._trader.clock
        return {
            "quotes": clock.quotes,
            "bars": clock.bars,
            "unknown": clock.unknown + clock.decoder.unknown,
            "malformed": clock.decoder.malformed,
            "late": clock.late,
            "refused": self._refused(),
            "clock": self._describe_clock(self._trader),
            "late_bars": self._trader.late_bars,
            "rest_rows_left_out": self._rest.rows_left_out if self._rest else 0,
            "barriers_missed": self._trader.barriers_missed,
            "fragments_dropped": self._trader.fragments_dropped,
        }

    def _describe_clock(self, trader: Trader) -> dict[str, Any] | None:
        """Return the clock that a live market goes by; None where the tape is the clock."""
        clock = trader.live_clock
        if clock is None:
            return None
        return {
            "time": iso_time(clock.time_ns),
            "machine_is_ahead_s": clock.offset_s,
            "is_off": clock.is_off,
            "steps": clock.steps,
            "failed_comparisons": clock.failures,
            "journal_ahead_until": iso_time(trader.ahead_until_ns),
        }

    def _main(self) -> None:
        try:
            self._trade_while_there_is_room()
        except TradingError as error:
            log.error("trading ended", reason=str(error), kind=type(error).__name__)
            self._failure, self._phase = error, "failed"
            self._tell(f"trading ended: {error}")
        except BaseException as error:
            log.exception("the trading thread failed")
            self._failure, self._phase = error, "failed"
            self._end_process(describe_fault(error), type(error).__name__)
        if self._notices is not None:
            self._notices.close()

    def _end_process(self, fault: str, told: str = "") -> None:
        """End this process by a fault: Ray starts it again and the journal tells the state.

        The owner is told `told`, for a fault's own text may not be meant for people.
        """
        self._faults.note(fault)
        if self._notices is not None:
            self._notices.tell(f"the live market failed and starts again: {told or fault}")
            self._notices.close()
        os._exit(1)

    def _trade_while_there_is_room(self) -> None:
        """Trade; where the journal's disk takes nothing, halt until it does, and begin again.

        What could not be journalled has not happened: the account is as its journal says.
        """
        while True:
            try:
                return self._trade()
            except JournalDiskError as error:
                log.error("halted: the journal's disk takes nothing", reason=str(error))
                self._failure, self._trader, self._phase = error, None, "halted"
                self._tell(f"HALTED: {error}; trading goes on when its disk has room")
                self._publisher.bar()
                if not self._await_room():
                    self._phase = "stopped"
                    return
                log.info("the journal's disk has room again")
                self._tell("the journal's disk has room again: trading goes on")
                self._failure, self._phase = None, "starting"

    def _await_room(self) -> bool:
        """Wait until the journal can be written; False when told to stop before."""
        folder = assembly.journal_path(self._settings).parent
        while not self._stopping.wait(_ROOM_POLL_S):
            if takes_writes(folder):
                return True
        return False

    def _halted_status(self) -> dict[str, Any]:
        """Return what of `/status` a journal that cannot be written changes.

        The journal has it not.
        """
        if self._phase != "halted" or "account" not in self._status:
            return {}
        state = {"trading_state": "HALTED", "trading_state_reason": str(self._failure)}
        return {"account": self._status["account"] | state}

    def _trade(self) -> None:
        """Open what an account trades by, and trade until told to stop or the stream ends."""
        while not self._unlocked.wait(0.1):
            if self._stopping.is_set():
                self._phase = "stopped"
                return
        settings = self._settings
        self._noted = assembly.champion_notes(settings)
        assembly.check_begun_with(self._plugins, assembly.chosen_plugins(settings))
        with (
            RestClient(
                self._endpoint.rest_url, self._endpoint.api_key, pause=self._pause_for_vendor
            ) as rest,
            self._open_journal() as journal,
            StreamClient(
                assembly.stream_settings(settings, self._endpoint), seed=settings.seed
            ) as stream,
            self._open_recorder() or nullcontext() as recorder,
        ):
            self._stream, self._recorder, self._rest = stream, recorder, rest
            self._run(self._make_trader(rest, journal, stream, recorder))

    def _pause_for_vendor(self, seconds: float) -> None:
        """Wait before the vendor is asked again; a trading thread that waits so does not hang.

        A session of many symbols may wait for minutes while the vendor answers nothing.
        """
        time.sleep(seconds)
        if self._trader is not None and threading.current_thread() is self._thread:
            self._trader.pulse.go_on()

    def _make_trader(
        self, rest: RestClient, journal: Journal, stream: StreamClient, recorder: Recorder | None
    ) -> Trader:
        """Put together account, markets and who decides; what is new of them is journalled."""
        settings, calendar = self._settings, self._calendar
        now_ns = rest.market_status().server_ns
        capital = settings.account.initial_capital
        account = journal.open_account(settings.account.id, capital, now_ns)
        self._restarts = journal.openings - 1
        policy, champions = self._who_decides(account, journal.last_seq)
        broker = assembly.paper_broker(settings, journal, account)
        terms = trading_settings(settings)
        if account.terms != terms:
            broker.record([TermsAdopted(max(now_ns, account.last_ts_ns), terms)])
        actions, special_dividends = assembly.corporate_actions(settings)
        markets = LiveEnv(
            settings.symbols,
            assembly.trading_rules(settings),
            assembly.fee_schedule(settings),
            calendar,
            broker,
            actions=actions,
            official_closes=settings.data.source == "massive",
            max_gap=settings.data.unexplained_gap_pct / 100.0,
            bands=assembly.bands(settings),
            reward=assembly.own_reward(settings),
            features=assembly.own_features(settings),
        )
        self._activity.actions = markets.action_names
        markets.halt_indicators = assembly.halt_indicators(settings)
        markets.closes_winding_down = settings.risk.wind_down == "close"
        env = recorded_env(markets, recorder)
        directory = MarketDirectory(
            rest,
            stream,
            env,
            calendar,
            settings.data.max_quote_contracts,
            assembly.dividends(settings),
            actions,
            assembly.close_finder(settings, rest, calendar),
            special_dividends,
            treasury_yields=settings.data.treasury_yields,
            price_limits=assembly.takes_price_limits(settings),
            calls_off=settings.data.source == "massive",
        )
        return Trader(
            assembly.trader_settings(settings),
            env,
            policy,
            calendar,
            stream,
            recorded_markets(directory, recorder),
            self,
            now_ns,
            champions,
        )

    def _who_decides(
        self, account: Account, journal_events: int
    ) -> tuple[Policy | RuleBasedDecider, ChampionStore | None]:
        """Return the policy, with the champions of whom one trades, or the rule-based trader."""
        settings = self._settings
        seed = assembly.policy_seed(settings.seed, journal_events)
        if settings.policy.trader is not None:
            check_account(account, settings.policy.trader)
            return RuleBasedDecider(assembly.rule_based(settings, seed)), None
        champions = assembly.champion_store(settings, self._noted)
        policy = Policy(assembly.model_config(settings), seed, acting=settings.policy.act)
        return policy, champions

    def _run(self, trader: Trader) -> None:
        """Watch over a trader and let it trade to its end."""
        self._keep_activity(trader)
        self._account, self._trader = AccountSnapshot.of(trader), trader
        self._phase = "connecting"
        threading.Thread(target=self._serve_commands, name="owner", daemon=True).start()
        threading.Thread(target=self._watch_for_hangs, name="watchdog", daemon=True).start()
        self._notify(trader.env.broker)
        trader.open()
        self._take_snapshot(trader, trader.clock.bar)
        if self._stopping.is_set():
            trader.stopping.set()
        self._phase = "trading"
        trader.run()
        self._take_snapshot(trader, trader.clock.bar)
        self._phase = "finished" if trader.finished else "stopped"

    def _keep_activity(self, trader: Trader) -> None:
        """Note from here on what the account does; what it did before, its journal tells."""
        broker = trader.env.broker
        journal = broker.journal
        self._activity.open(journal.path, journal.last_seq)
        broker.followers.append(lambda events: self._activity.follow(events, journal.last_seq))

    def _notify(self, broker: PaperBroker) -> None:
        """Tell the owner from here on, where the settings say how."""
        addresses = self._settings.credentials.notify_addresses
        if not addresses:
            return
        notify = self._settings.notify
        name = self._settings.account.id
        first = self._notices is None
        if self._notices is None:
            self._notices = Notices(by_apprise(addresses), name, notify.interval_s)
        tell = self._notices.tell
        broker.followers.append(JournalNotices(tell, notify.rejections_in_a_row).follow)
        alerts = Alerts(tell, notify.disk_free_pct)
        threading.Thread(
            target=self._keep_watch, args=(alerts,), name="alerts", daemon=True
        ).start()
        if self._restarts and first:
            tell(f"the live market has started again, restart {self._restarts}")

    def _open_recorder(self) -> Recorder | None:
        """Return the recorder of live days; without room for it trading goes on unrecorded."""
        try:
            return assembly.recorder(self._settings)
        except DataError as error:
            log.error("nothing is recorded, trading goes on", reason=str(error))
            self._not_recorded = str(error)
            self._tell(f"nothing is recorded: {error}")
            return None

    def _open_journal(self) -> Journal:
        """Open the journal, waiting for a predecessor of this process to be gone."""
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                journal = Journal(assembly.journal_path(self._settings))
                if journal.repair is not None:
                    log.warning("journal repaired", what=str(journal.repair))
                return journal
            except JournalLocked:
                if time.monotonic() > deadline or self._stopping.wait(0.2):
                    raise


def _silence_s(connection: ConnectionHealth) -> float:
    newest_ns = connection["last_frame_ns"]
    return max(time.time_ns() - newest_ns, 0) / 1e9 if newest_ns else float("nan")
