"""The main job: market data, live market, learner and HTTP service, from start to clean end.

`up` starts or joins Ray, holds the account's lease, and drives `trading.application`.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from trading import local_ray
from trading.application import (
    NAMESPACE,
    SMALL_SHARE,
    ApplicationFailed,
    Summary,
    absolute_paths,
    run_application,
    share_of_node,
)
from trading.config import Settings
from trading.display import Display
from trading.errors import AccountLeased
from trading.execution.lease import wait_for_lease
from trading.live import assembly

SERVE_APP = "trading"
_LEASE_TIMEOUT_S = 10.0
"""For a predecessor that was killed: its processes may live some seconds longer."""
_QUIET = {"log_level": "WARNING", "enable_access_log": False}


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
    stop = threading.Event()

    def waiting(leased: AccountLeased) -> None:
        display.phase(f"waiting for {leased.holder}")

    journal = assembly.journal_path(settings)
    with ExitStack() as stack:
        lease = wait_for_lease(journal, stop, _LEASE_TIMEOUT_S, waiting)
        assert lease is not None
        stack.enter_context(lease)
        stack.enter_context(ray_runtime(settings, display))
        stack.enter_context(stop_signals(stop))
        lease.heed_requests(stop)
        summary = run_application(
            settings, display, stop, duration_s, lambda parts: _serve(settings, display, parts)
        )
    display.summary(summary)
    return summary


@contextmanager
def ray_runtime(settings: Settings, display: Display) -> Iterator[None]:
    """Join the cluster that the settings or the environment name, else start a local one."""
    address = settings.ray.address or os.environ.get("RAY_ADDRESS")
    if not address:
        _check_port(settings)
    local_ray.prepare(local=not address)
    import ray

    for chatty in ("ray.serve", "ray.rllib", "ray.tune"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "logging_level": "ERROR",
        "log_to_driver": not display.is_terminal,
    }
    display.phase("joining Ray at " + address if address else "starting Ray")
    if address:
        ray.init(address=address, **common)
    else:
        local_ray.start(
            display.phase,
            include_dashboard=settings.ray.dashboard,
            object_store_memory=settings.ray.object_store_mb * 2**20,
            **common,
        )
    try:
        yield
    finally:
        # A thread that still waits for Ray's own services would report their end as an error.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        ray.shutdown()


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on Ctrl-C and SIGTERM; a second Ctrl-C interrupts."""

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(settings: Settings, display: Display, stack: ExitStack) -> None:
    """Start the HTTP service; the stack removes it again."""
    from ray import serve

    from trading.live.actor import ACTOR_NAME
    from trading.serving.app import build_app

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    host, port = settings.serving.host, settings.serving.port
    display.phase("starting the HTTP service")
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config=_QUIET)
    except RuntimeError as error:
        if "Failed to bind" not in str(error):
            raise
        raise _port_taken(host, port, "in use") from error
    stack.callback(_stop_serving)
    app = build_app(ACTOR_NAME, NAMESPACE, resources=share_of_node(settings, SMALL_SHARE))
    serve.run(app, name=SERVE_APP, route_prefix="/", logging_config=_QUIET)
    display.note(f"serving: http://{host}:{port}/status")


def _check_port(settings: Settings) -> None:
    """Find out at once, not after a minute, that the HTTP service's port is taken."""
    serving = settings.serving
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            raise _port_taken(serving.host, serving.port, str(error)) from error


def _port_taken(host: str, port: int, reason: str) -> ApplicationFailed:
    return ApplicationFailed(
        f"serving.port: cannot listen on {host}:{port} ({reason}): end what uses it, or choose "
        "another with --port"
    )


def _stop_serving() -> None:
    """Remove the application; Serve stays, with the cluster that it belongs to."""
    from ray import serve

    serve.delete(SERVE_APP)
