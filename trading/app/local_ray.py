"""Starts a Ray of this process's own, on the loopback only, also where the machine is slow."""

import contextlib
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trading.errors import TradingError
from trading.logs import get_logger

log = get_logger(__name__)

TRIES = 5
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0 Ray has the address 127.0.0.1, as on desktops, and every part of it listens there only."""
_METRICS = "RAY_enable_metrics_collection"
_SERVE = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
    "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "10",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
"""Serve ends a proxy that is not ready in 5 s, and passes over a replica that does not say within a
second how busy it is: less than these take on a busy machine. And it looks only every 10 s whether
a proxy was killed. With the last it answers a quarter more requests, see docs/reliability.md: each
changes threads less often."""
_GONE_S = 10.0
_AGENTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
_NOT_EPHEMERAL = (20_000, 30_000)
"""Above the ports of Ray's workers, below those that Linux gives out."""
STANDS_IN = (
    *("-I", "-S", "-c"),
    "import os, sys, time; "
    "runs = lambda: open(sys.argv[1] % os.getppid()).read().startswith(sys.argv[2]); "
    "any(time.sleep(0.5) for _ in iter(runs, False))",
    *("/proc/%d/comm", "raylet"),
)
"""What Python runs where a raylet wants an agent that nobody would ask: it ends when that one does,
also where the raylet was gone before Python was up. A raylet may not take quotes in it."""
_MISSES_AGENT = "metrics exporter agent"
"""A server of Ray's logs this, half a minute after its start, of the agent that takes metrics."""


class RayDidNotStart(TradingError):
    """No local Ray came up; the message says why, where its logs lie, and what to do."""


def prepare(*, local: bool, dashboard: bool = False) -> None:
    """Set what Ray reads when it is imported: nothing may import it before.

    A local Ray wants a token of everybody, listens on the loopback only, and its token's file is
    for its owner alone. Without a dashboard nobody collects its own metrics.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in _SERVE.items():
        os.environ.setdefault(name, value)
    if local:
        if not dashboard:
            os.environ.setdefault(_METRICS, "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ[_LOOPBACK_ONLY] = "0"
        if os.environ["RAY_AUTH_MODE"] == "token":
            _keep_token_private()


def keep_replica_on_loopback() -> None:
    """Have this replica of Serve listen on the loopback only, where its Ray does.

    Serve binds the port by which deployments call one another to every interface.
    """
    if os.environ.get(_LOOPBACK_ONLY) != "0":
        return
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server

    def on_loopback(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = on_loopback


def start(
    tell: Callable[[str], None] = lambda _: None, *, follow_logs: bool = True, **options: Any
) -> None:
    """`ray.init` of a local Ray with these options, tried again where it does not come up.

    On a machine that is busy, or that reads Ray from its disk for the first time, a part may come
    later than another waits for it; the next try finds it in memory.

    Parameters
    ----------
    tell
        Told before every try but the first.
    follow_logs
        Whether anybody who joins it may be shown what its processes log.

    Raises
    ------
    RayDidNotStart
        It did not, `TRIES` times.
    """
    import ray

    forbid_auto_connect()
    reason = ""
    for attempt in range(1, TRIES + 1):
        before = children()
        try:
            # Without "local" Ray would join a cluster that somebody else left running here.
            with _patched_ray(follow_logs, **options):
                ray.init(address="local", **options)
        except ValueError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("Ray did not start", attempt=attempt, reason=reason)
            ray.shutdown()
            end(children() - before)
            if attempt < TRIES:
                tell(f"starting Ray once more: {reason}")
        else:
            return
    raise RayDidNotStart(
        f"Ray did not start in {TRIES} tries: {reason} Its logs: {logs()}. Is the machine very "
        "busy, or short of memory or of /dev/shm? `trading doctor` looks"
    )


def forbid_auto_connect() -> None:
    """Have this process's threads told that Ray has ended, where they would start another one.

    The variable that Ray has for this would bind every process that this one starts, too.
    """
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False


@contextlib.contextmanager
def own_handler_kept() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM, where it has one.

    `ray.init` takes the signal for itself, and so does what it is built on, below Python.
    """
    from ray._private import utils

    handler, set_handler = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    if not callable(handler):
        yield
        return
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _patched_ray(follow_logs: bool, *, include_dashboard: bool = True, **_: Any) -> Iterator[None]:
    """Have a node of Ray start where the machine is slow, and without what nobody would ask.

    A raylet that has to be told by its agents where they listen gives these Python processes 15 s,
    and dies without them, which is too short for a busy machine. So the agents are given their
    ports, and it finds the files that they will write, too.

    Left out are processes which start before it is there. Without a dashboard these are its server,
    the agent that tells it of this node, and the autoscaler, which makes no nodes here; where logs
    are shown nobody, who follows their files. A raylet ends when its agent does, so something small
    stands in for that one.
    """
    from ray._private import parameter, ray_constants, services, utils
    from ray._private.node import Node

    ray_params, start_raylet = parameter.RayParams, Node.start_raylet
    python = services._build_python_executable_command_memory_profileable

    def params(**options: Any) -> Any:
        ports = dict(zip(_AGENTS, free_ports(len(_AGENTS)), strict=True))
        parts = {"no_monitor": not include_dashboard, "include_log_monitor": follow_logs}
        return ray_params(**{**options, **ports, **parts})

    def start_and_tell(node: Any, *arguments: Any, **options: Any) -> Any:
        for name in _AGENTS:
            port = getattr(node._ray_params, name)
            Path(node.get_session_dir_path(), f"{name}_{node._node_id}").write_text(str(port))
        return start_raylet(node, *arguments, **options)

    def start_none(node: Any, **_: Any) -> None:
        node._webui_url = ""

    def stand_in(component: str, *arguments: Any, **options: Any) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT:
            return [sys.executable, *STANDS_IN]
        command: list[str] = python(component, *arguments, **options)
        return command

    with contextlib.ExitStack() as stack:

        def patch(owner: Any, name: str, replacement: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)

        patch(parameter, "RayParams", params)
        patch(Node, "start_raylet", start_and_tell)
        if not include_dashboard:
            patch(Node, "start_api_server", start_none)
            patch(services, "_build_python_executable_command_memory_profileable", stand_in)
            # Ray imports a dashboard to see whether it could be there.
            patch(utils, "get_dashboard_dependency_error", lambda: None)
        yield


def say_nothing_of_missing_agents() -> None:
    """Leave out of what is shown of Ray's logs that nobody takes its metrics, where none is to.

    To be called once it is started or joined.
    """
    if os.environ.get(_METRICS) != "0":
        return
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as shown

    def without(show: Callable[[Any], None]) -> Callable[[Any], None]:
        def show_others(data: Any) -> None:
            lines = [line for line in data["lines"] if _MISSES_AGENT not in line]
            if lines:
                show({**data, "lines": lines})

        return show_others

    shown.handlers = [(name, without(handler)) for name, handler in shown.handlers]


def free_ports(count: int) -> list[int]:
    """Ports that are free, and that nobody who asks the system for any will be given."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            port = random.SystemRandom().randrange(*_NOT_EPHEMERAL)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def logs() -> str:
    """Folder of the logs of the Ray that this process started last."""
    root = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray"
    found = sorted(root.glob(f"session_*_{os.getpid()}"))
    return str((found[-1] if found else root / "session_latest") / "logs")


class Process(NamedTuple):
    """A process, told from a later one with the same id by when it began."""

    pid: int
    began: int
    """Ticks of the kernel."""


def children() -> set[int]:
    """Ids of the processes that this one started, and that still are."""
    own = os.getpid()
    return {each.pid for each, parent in _processes().items() if parent == own}


def descendants() -> set[Process]:
    """Return the processes that this one started, that these started, and so on."""
    parents, known = _processes(), {os.getpid()}
    found: set[Process] = set()
    while more := {each for each, parent in parents.items() if parent in known} - found:
        found |= more
        known |= {each.pid for each in more}
    return found


def end_descendants(processes: set[Process], grace_s: float = 0.0) -> None:
    """SIGKILL for those that are not gone by themselves in time.

    One that hangs, or is stopped, does not notice that its Ray is gone.
    """
    deadline = time.monotonic() + grace_s
    while (left := processes & set(_processes())) and time.monotonic() < deadline:
        time.sleep(0.1)
    end({each.pid for each in left})


def _processes() -> dict[Process, int]:
    """All that are alive, with the id of who started each."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[Process(int(folder.name), int(fields[19]))] = int(fields[1])
    return found


def end(processes: set[int]) -> None:
    """SIGKILL; what these processes started goes with them. Returns when they are gone."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + _GONE_S
    while processes and time.monotonic() < deadline:
        for process in list(processes):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG)[0] == 0:
                    continue
            processes.discard(process)
        time.sleep(0.05)


def _keep_token_private() -> None:
    """Make the token's file before Ray does, which would let everybody read it."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            # Another process may have been faster, and its Ray may run by that token.
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
            part.unlink()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise RayDidNotStart(
            f"the token of the local Ray cannot be kept in {path}: {error.strerror}: make that "
            "folder writable, or set RAY_AUTH_TOKEN"
        ) from error
