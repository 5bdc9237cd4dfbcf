"""One strategy of several: today's application in a process of its own, on the driver's Ray.

Its driver starts it, hands it the settings through a pipe, hears through it what a terminal would
be shown, and tells it by that to end. The driver's end ends it too.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from rich.console import Console

from trading.app import ray_threads
from trading.app.display import Display
from trading.app.driver import ApplicationFailed, Summary, run_application
from trading.app.shared_address import SharedLearnerAddress
from trading.app.up import (
    LEARNING_TAKES,
    STOP_LIMIT_S,
    end_at_once,
    ray_runtime,
    stop_signals,
)
from trading.config import Settings
from trading.errors import TradingError
from trading.logs import get_logger

_POLL_S = 0.25


class StrategyStart(NamedTuple):
    """What a process begins with."""

    settings: Settings
    """The strategy's own, with absolute paths and the secrets."""
    address: str
    """Of the Ray cluster."""
    duration_s: float | None
    log: Path | None
    """File that it writes its log to; None: where the driver does."""
    shared: SharedLearnerAddress | None = None
    """The learner of several strategies, where it shares one."""


def run_strategy(
    start: StrategyStart, display: Display, stop: threading.Event, traded: Callable[[], None]
) -> Summary:
    """Trade one strategy in a process of its own until it ends, or `stop` is set.

    Parameters
    ----------
    start
        What it begins with.
    display
        Shows what it does.
    stop
        Ends it in order.
    traded
        Called when it has begun to trade.

    Raises
    ------
    ApplicationFailed
        It failed, or its process died.
    """
    ours, theirs = Pipe()
    with ours:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        ours.send(start)
        summary, failure = _heard(ours, display, stop, traded)
    # Without the pipe it ends by itself, whatever it was at.
    code = process.wait()
    where = f"; its log is {start.log}" if start.log is not None else ""
    if failure:
        raise ApplicationFailed(failure + where)
    if summary is None:
        died = f"by signal {-code}" if code < 0 else f"with code {code}"
        raise ApplicationFailed(f"its process ended {died}{where}")
    return summary


def _heard(
    pipe: "Connection[Any, Any]",
    display: Display,
    stop: threading.Event,
    traded: Callable[[], None],
) -> tuple[Summary | None, str]:
    """Show what the process tells until it has ended; its summary, and what it failed of."""
    summary, failure, told = None, "", False
    while True:
        if stop.is_set() and not told:
            told = True
            _send(pipe, "stop")
        try:
            if not pipe.poll(_POLL_S):
                continue
            kind, said = pipe.recv()
        except (EOFError, OSError):
            return summary, failure
        match kind:
            case "phase":
                display.phase(said)
            case "note":
                display.note(said)
            case "progress":
                display.progress(*said)
            case "traded":
                traded()
            case "summary":
                summary = said
            case "failed":
                failure = said


class _Relay(Display):
    """Tells the driver what is to be shown."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        super().__init__(Console(quiet=True))
        self._pipe = pipe

    def phase(self, text: str) -> None:
        self.tell("phase", text)

    def note(self, text: str) -> None:
        self.tell("note", text)

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def progress(self, progress: Any, report: Any | None) -> None:
        self.tell("progress", (progress, report))

    def tell(self, kind: str, said: object) -> None:
        """Send one thing; a driver that is gone is seen by who listens."""
        _send(self._pipe, (kind, said))


_sending = threading.Lock()


def _send(pipe: "Connection[Any, Any]", what: object) -> None:
    with _sending:
        try:
            pipe.send(what)
        except OSError:
            return


def _listen(pipe: "Connection[Any, Any]", stop: threading.Event) -> None:
    """End this process in order when the driver says so, or is gone; at once where that hangs."""
    with suppress(EOFError, OSError):
        pipe.recv()
    stop.set()
    limit = threading.Timer(STOP_LIMIT_S, end_at_once)
    limit.daemon = True
    limit.start()


def _trade(start: StrategyStart, pipe: "Connection[Any, Any]") -> None:
    settings, display, stop = start.settings, _Relay(pipe), threading.Event()
    if start.log is not None:
        start.log.parent.mkdir(parents=True, exist_ok=True)
        with start.log.open("ab", buffering=0) as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
    from trading.logs import configure_logging

    configure_logging(settings.log_level, settings.credentials.values())
    structlog.contextvars.bind_contextvars(strategy=settings.strategy)
    os.environ["RAY_ADDRESS"] = start.address
    listen = threading.Thread(target=_listen, args=(pipe, stop), name="driver", daemon=True)
    listen.start()
    with stop_signals(stop):
        # Ctrl-C is the driver's, who ends all of them in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with ray_runtime(settings, display, ahead=LEARNING_TAKES):
            summary = run_application(
                settings,
                display,
                stop,
                start.duration_s,
                traded=lambda: display.tell("traded", None),
                shared=start.shared,
            )
    display.tell("summary", summary)


def main() -> int:
    """Trade what the pipe says, whose file descriptor is the first argument."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    pipe: Connection[Any, Any] = Connection(descriptor)
    try:
        _trade(pipe.recv(), pipe)
    except Exception as error:
        known = isinstance(error, TradingError | OSError)
        text = " ".join(str(error).split()) or type(error).__name__
        said = text if known else f"a fault of the application: {type(error).__name__}: {text}"
        get_logger(__name__).error("the strategy failed", exc_info=error)
        _send(pipe, ("failed", said[:1000]))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    ray_threads.leave(code)
    sys.exit(code)
