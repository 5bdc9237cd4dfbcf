"""The account's HTTP service on the cluster's Serve: where it listens, and its end."""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from trading.app.display import Display
from trading.app.driver import SMALL_SHARE, ApplicationFailed, account_name, share_of_node
from trading.app.waiting import unless_stopped
from trading.config import Settings
from trading.logs import get_logger

log = get_logger(__name__)

REQUEST_TIMEOUT_S = 35.0
"""After so long a request is answered that it timed out, whatever has died. A replica answers
questions itself in a fraction of that; a command of the owner may take most of it."""
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_PROXY_TIMEOUT_S = 300.0
_PAUSE_S = 0.5
ROOT = "/"


def load() -> None:
    """Import what serving an account takes."""
    import trading.serving.app  # noqa: F401


def serve_account(
    settings: Settings, display: Display, stack: ExitStack, stopped: Callable[[], bool]
) -> None:
    """Start the account's HTTP service, and say where it is; the stack removes it again.

    Accounts of one cluster share its Serve, and with that the port of the first: that one has the
    root, and each of the others a path of its own, named after the account.

    Raises
    ------
    ApplicationFailed
        The port is taken, or the service does not come up.
    StopRequested
        `stopped` said so before it was there.
    """
    from trading.live.actor import ACTOR_NAME
    from trading.serving.app import build_app

    name = account_name(settings)
    app = build_app(ACTOR_NAME, name, resources=share_of_node(settings, SMALL_SHARE))
    serve_application(settings, display, stack, stopped, app, name, settings.account.id)


def serve_application(
    settings: Settings,
    display: Display,
    stack: ExitStack,
    stopped: Callable[[], bool],
    app: Any,
    name: str,
    path: str,
) -> None:
    """Start a Serve application, and say where it is; the stack removes it again.

    Parameters
    ----------
    app
        The Serve application.
    name
        Its name, which no other of the cluster has.
    path
        Where it is found when another has the root.

    Raises
    ------
    ApplicationFailed
        The port is taken, or the service does not come up.
    StopRequested
        `stopped` said so before it was there.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    host, port = _listen(settings, stopped)
    remove = partial(_remove, name)
    stack.callback(remove)
    for route in _free_routes(path, name):
        try:
            run = partial(serve.run, app, name=name, route_prefix=route, logging_config=_QUIET)
            unless_stopped(run, "the HTTP service", stopped, lambda _: remove())
        except Exception as error:
            # Another account may have taken it just now.
            if "is being used by application" not in str(error):
                raise
            continue
        break
    else:
        raise ApplicationFailed(
            f"the HTTP service found no free path for {path}: another account.id has another one"
        )
    address = f"http://{host}:{port}{route.rstrip('/')}"
    said = f"serving: {address}/status; the page: {address}/"
    if port != settings.serving.port or host != settings.serving.host:
        said += (
            f" (Serve of this cluster listens there already: serving.host and serving.port = "
            f"{settings.serving.host}:{settings.serving.port} have no effect)"
        )
    display.note(said)


def check_port(settings: Settings) -> None:
    """Find out at once, not after a minute, that the HTTP service's port is taken.

    Raises
    ------
    ApplicationFailed
        It is.
    """
    serving = settings.serving
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            raise _port_taken(serving.host, serving.port, str(error)) from error


def _listen(settings: Settings, stopped: Callable[[], bool]) -> tuple[str, int]:
    """Start Serve where it does not run yet; the address that it listens on."""
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    host, port = settings.serving.host, settings.serving.port
    options = {"host": host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_S}
    deadline = time.monotonic() + _PROXY_TIMEOUT_S
    while True:
        try:
            start = partial(serve.start, http_options=options, logging_config=_QUIET)
            # Serve stays, with the cluster that it belongs to: nothing is undone.
            unless_stopped(start, "Serve", stopped, lambda _: None)
            break
        except RuntimeError as error:
            if "Failed to bind" not in str(error):
                raise
            raise _port_taken(host, port, "in use") from error
        except (
            # Serve gives its proxy a while, and makes another: on a busy machine it is to come.
            TimeoutError,
            ray.exceptions.RayActorError,
            # Another account starts Serve at this moment: it is joined as soon as it is there.
            ray.exceptions.ActorAlreadyExistsError,
        ) as error:
            time.sleep(_PAUSE_S)
            if time.monotonic() > deadline:
                raise ApplicationFailed(
                    f"the HTTP service did not listen on {host}:{port} within "
                    f"{_PROXY_TIMEOUT_S:g} s: {error}"
                ) from error
    config: Any = _get_global_client().http_config
    return str(config.host), int(config.port)


def _free_routes(path: str, name: str) -> list[str]:
    """Paths that no other account has, the best first."""
    from ray.serve.context import _get_global_client

    applications: dict[str, Any] = _get_global_client().get_serve_details()["applications"]
    taken = {each.get("route_prefix") for other, each in applications.items() if other != name}
    wanted = [ROOT, f"/{path}", f"/{name}"]
    return [route for route in wanted if route not in taken]


def _port_taken(host: str, port: int, reason: str) -> ApplicationFailed:
    return ApplicationFailed(
        f"serving.port: cannot listen on {host}:{port} ({reason}): end what uses it, or choose "
        "another with --port"
    )


def _remove(name: str) -> None:
    """Remove the application; Serve stays, with the cluster that it belongs to.

    One that does not go, as in time on a busy machine, keeps nothing else from its end.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        serve.delete(name)
    except (TimeoutError, RayServeException, RayError) as error:
        log.warning("the HTTP service did not end in order", name=name, reason=str(error))
