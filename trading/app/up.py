"""The main job: market data, live market, learner and HTTP service, from start to clean end.

`up` starts or joins Ray, holds the account's lease, and drives `trading.app.driver`.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

from trading.app import local_ray, ray_threads
from trading.app.cluster_feed import reading_the_clusters
from trading.app.cluster_learner import learning_with_the_others
from trading.app.display import Display
from trading.app.driver import Summary, account_name, run_application
from trading.app.shared_address import APART
from trading.config import Settings, absolute_paths
from trading.data.flatfiles import minute_bars_path, quotes_path
from trading.errors import AccountLeased, ConfigError, FlatFileError
from trading.execution.lease import wait_for_lease
from trading.live import assembly
from trading.serving.service import check_port, serve_account

LEARNING_TAKES = ("torch", "scipy.linalg")
"""What takes longest to import of all that learning needs beside Ray."""
STOP_LIMIT_S = 120.0
"""For an update at hand, the last checkpoint, and the end of Ray."""
_ENDED_AT_ONCE = 3
_ASKING_S = 10.0
"""For threads that still wait for Ray: for a part that was starting when all of it was to end."""
_GRACE_S = 5.0
"""For Ray's processes to end by themselves."""
_LEASE_TIMEOUT_S = 10.0
"""For a predecessor that was killed: its processes may live some seconds longer."""


def up(settings: Settings, duration_s: float | None, display: Display) -> Summary:
    """Run the application until it is told to stop, the recording ends, or time is up.

    Parameters
    ----------
    settings
        The whole tree.
    duration_s
        Seconds of trading, counted from the start of trading; None is no limit.

    Raises
    ------
    TradingError
        A part cannot start or ended for good.
    """
    settings = absolute_paths(settings)
    check_replay(settings)
    assembly.check_before_trading(settings)
    joins = joins_a_cluster(settings)
    if settings.learner == "shared" and not joins:
        raise ConfigError([APART])
    stop = threading.Event()

    def waiting(leased: AccountLeased) -> None:
        display.phase(f"waiting for {leased.holder}")

    journal = assembly.journal_path(settings)
    with ExitStack() as stack:
        lease = wait_for_lease(journal, stop, _LEASE_TIMEOUT_S, waiting)
        assert lease is not None
        stack.enter_context(lease)
        lease.answer_requests(stop)
        stack.enter_context(stop_signals(stop))
        stack.enter_context(ray_runtime(settings, display, ahead=LEARNING_TAKES))
        read, until, shared = settings, stop, None
        if joins:
            read, until = stack.enter_context(reading_the_clusters(settings, stop))
            shared, until = stack.enter_context(learning_with_the_others(settings, until))
        summary = run_application(
            read,
            display,
            until,
            duration_s,
            lambda parts, stopped: serve_account(settings, display, parts, stopped),
            shared=shared,
        )
    display.summary(summary)
    return summary


def joins_a_cluster(settings: Settings) -> bool:
    """Whether the settings or the environment name a Ray cluster, so that none is started here."""
    return bool(settings.ray.address or os.environ.get("RAY_ADDRESS"))


@contextmanager
def ray_runtime(
    settings: Settings,
    display: Display,
    namespace: str | None = None,
    shows_logs: bool | None = None,
    ahead: Sequence[str] = (),
    *,
    others_join: bool = False,
) -> Iterator[None]:
    """Join the cluster that the settings or the environment name, else start a local one.

    Parameters
    ----------
    namespace
        The Ray namespace; None: the account's.
    shows_logs
        Whether what its processes log is shown; None: where no terminal has people watching.
    ahead
        Packages that are imported meanwhile, since starting Ray is waiting for processes. None of
        them may know Ray: two threads would import the same.
    others_join
        Whether further drivers join it, who may have logs shown where this one has not.
    """
    address = settings.ray.address or os.environ.get("RAY_ADDRESS")
    if not address:
        check_port(settings)
    local_ray.prepare(local=not address, dashboard=settings.ray.dashboard)
    import ray

    for chatty in ("ray.serve", "ray.rllib", "ray.tune"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "namespace": namespace or account_name(settings),
        "logging_level": "ERROR",
        "log_to_driver": not display.is_terminal if shows_logs is None else shows_logs,
    }
    display.phase("joining Ray at " + address if address else "starting Ray")
    importing = threading.Thread(target=_import, args=(ahead,), name="imports", daemon=True)
    importing.start()
    with local_ray.own_handler_kept():
        if address:
            local_ray.forbid_auto_connect()
            ray.init(address=address, **common)
        else:
            local_ray.start(
                display.phase,
                include_dashboard=settings.ray.dashboard,
                object_store_memory=settings.ray.object_store_mb * 2**20,
                follow_logs=common["log_to_driver"] or others_join,
                **common,
            )
    if not address:
        display.note(_dashboard_note())
    local_ray.say_nothing_of_missing_agents()
    importing.join()
    try:
        yield
    except Exception as error:
        if not address:
            error.add_note(f"logs of its parts: {local_ray.logs()}")
        raise
    finally:
        # A thread that still waits for Ray's own services would report their end as an error.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        started: set[local_ray.Process] = set() if address else local_ray.descendants()
        if ray_threads.await_end(_ASKING_S):
            ray.shutdown()
            local_ray.end_descendants(started, _GRACE_S)
        else:
            # Its own end would be this process's: see `ray_threads.leave`.
            local_ray.end_descendants(started)


def _import(packages: Sequence[str]) -> None:
    """Import them; who uses one that cannot be imported is told then."""
    for each in packages:
        with suppress(ImportError):
            import_module(each)


def _dashboard_note() -> str:
    """Tell where the dashboard of the local Ray is, or how to have one."""
    from ray._private.worker import get_dashboard_url

    address = get_dashboard_url()
    if not address:
        return "Ray's dashboard: off, for it takes 400 MB; --set ray.dashboard=true serves it"
    return f"Ray's dashboard: http://{address}, which asks for what `ray get-auth-token` prints"


def check_replay(settings: Settings) -> None:
    """Find out before Ray starts that the day to be replayed is not there.

    Raises
    ------
    FlatFileError
        It is not.
    """
    replay = settings.data.replay
    if settings.data.source != "replay" or replay.folder is None or replay.date is None:
        return
    for path in (
        quotes_path(replay.folder, replay.date),
        minute_bars_path(replay.folder, replay.date),
    ):
        if not path.is_file():
            raise FlatFileError(
                f"flat file {path} does not exist: download that day or choose another folder or "
                "date"
            )


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on Ctrl-C and SIGTERM; a second Ctrl-C interrupts.

    Whatever hangs then, the process ends `STOP_LIMIT_S` later: what is journalled and checkpointed
    is on disk.
    """
    limits: list[threading.Timer] = []

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        if not limits:
            limits.append(threading.Timer(STOP_LIMIT_S, end_at_once))
            limits[0].daemon = True
            limits[0].start()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for limit in limits:
            limit.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """End this process and what it started, which did not come to its end in time."""
    print(
        f"trading: it did not end within {STOP_LIMIT_S:g} s of being told to, and is ended now: "
        f"journal and checkpoints are as they were; logs of its parts: {local_ray.logs()}",
        file=sys.stderr,
        flush=True,
    )
    local_ray.end_descendants(local_ray.descendants())
    os._exit(_ENDED_AT_ONCE)
