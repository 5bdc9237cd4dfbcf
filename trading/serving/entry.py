"""The whole application as a Serve application: what a RayService, or `serve run`, starts.

    serve run trading.serving.entry:application config=/etc/trading/config.yaml

Serve imports this where nothing of the application is: the settings are read in the supervisor's
replica, on the node of the live market, which has their file, the credentials and the volumes.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from rich.console import Console

from trading.app.cluster_feed import reading_the_clusters
from trading.app.cluster_learner import learning_with_the_others
from trading.app.display import Display
from trading.app.driver import SMALL_SHARE, account_name, run_application
from trading.app.fleet import namespaces_of
from trading.app.fleet_display import FleetDisplay
from trading.app.fleet_supervisor import FleetSupervisor
from trading.app.shared_address import fleet_name
from trading.config import Settings, absolute_paths, load_settings
from trading.config.problems import problem_line
from trading.errors import ConfigError
from trading.live import assembly
from trading.live.actor import ACTOR_NAME
from trading.logs import configure_logging
from trading.serving.app import SUPERVISOR, SupervisorReader, build_api, service_of
from trading.serving.strategies import build_strategies_api
from trading.serving.supervisor import Backoff, Supervisor, SupervisorState

CLOSE_TIMEOUT_S = 95.0
"""For the end of trading, of an update at hand, and for the last checkpoint."""
_OVERRIDE = "--set"
"""Where the mistakes of overrides come from, by their lines."""
_LINE_INTERVAL_S = 60.0


class Arguments(BaseModel):
    """What `args` of the Serve configuration may hold."""

    model_config = ConfigDict(extra="forbid")

    config: Path | None = None
    """YAML file of settings, on the live market's node; None: defaults."""
    set: tuple[str, ...] = Field(default=())
    """Overrides, as in `seed=8`."""
    live_market_resource: str | None = None
    """Where the supervisor runs; the same as `ray.live_market_resource` of the settings."""


class ApplicationSupervisor:
    """The deployment that trades and learns, or stands by: one account, or each strategy.

    Raises
    ------
    ConfigError
        The settings are wrong; Serve reports it as the reason that the deployment failed.
    """

    def __init__(self, arguments: Arguments) -> None:
        settings = read_settings(arguments)
        configure_logging(settings.log_level, settings.credentials.values())
        self._account = account_name(settings)
        self._supervisor: Supervisor | FleetSupervisor
        if settings.strategies:
            strategies = read_strategies(arguments, settings)
            display = FleetDisplay(Console(highlight=False), tuple(strategies))
            self._supervisor = FleetSupervisor(settings, strategies, display)
        else:
            self._supervisor = Supervisor(
                assembly.journal_path(settings), partial(_trade, settings), Backoff()
            )

    async def state(self) -> SupervisorState:
        """Where the application of one account stands."""
        assert isinstance(self._supervisor, Supervisor)
        return self._supervisor.state

    async def account(self) -> str:
        """Ray namespace of the one account's actors."""
        return self._account

    async def check_health(self) -> None:
        """Raise where the replica is ill; Serve calls this, and replaces the replica then."""
        self._supervisor.check()

    async def __del__(self) -> None:
        """End what the replica began; Serve calls this before it ends the replica."""
        supervisor = getattr(self, "_supervisor", None)
        if supervisor is not None:
            await asyncio.to_thread(supervisor.close, CLOSE_TIMEOUT_S)


def application(arguments: Arguments) -> serve.Application:
    """Return the Serve application: the HTTP service as ingress, and the supervisor behind it.

    Raises
    ------
    ConfigError
        An override is wrong; Serve leaves the application as it was.
    """
    _check_overrides(arguments.set)
    resource = arguments.live_market_resource
    node = {resource: SMALL_SHARE} if resource else {}
    deployment = serve.deployment(
        name=SUPERVISOR,
        num_replicas=1,
        max_ongoing_requests=100,
        # The driver's work may keep the interpreter for itself.
        health_check_timeout_s=120.0,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=CLOSE_TIMEOUT_S + 5.0,
        ray_actor_options={"num_cpus": 0, "resources": node},
    )
    supervisor = deployment(ApplicationSupervisor).bind(arguments)
    return service_of(partial(api_of, arguments), node, supervisor)


def api_of(arguments: Arguments) -> FastAPI:
    """Return the HTTP routes: of each strategy where the settings have any, else of the account.

    Called in a replica, which is where the settings are.

    Raises
    ------
    ConfigError
        One line for each mistake.
    """
    settings = read_settings(arguments)
    if settings.strategies:
        namespaces = namespaces_of(read_strategies(arguments, settings))
        return build_strategies_api(ACTOR_NAME, namespaces, fleet_name(settings))
    return build_api(ACTOR_NAME, None, SupervisorReader())


def read_settings(arguments: Arguments) -> Settings:
    """Return the settings, with absolute paths.

    Raises
    ------
    ConfigError
        One line for each mistake.
    """
    settings = load_settings(arguments.config, arguments.set, os.environ)
    key, value = "ray.live_market_resource", settings.ray.live_market_resource
    if value != arguments.live_market_resource:
        allowed = (
            f"must be {arguments.live_market_resource!r}, the live_market_resource in the "
            "arguments of the Serve application, or that must be changed"
        )
        raise ConfigError([problem_line(key, value, str(arguments.config), allowed)])
    return absolute_paths(settings)


def read_strategies(arguments: Arguments, common: Settings) -> dict[str, Settings]:
    """Return the settings of each strategy by its name, with absolute paths."""
    return {
        name: absolute_paths(
            load_settings(arguments.config, [*arguments.set, f"strategy={name}"], os.environ)
        )
        for name in common.strategies
    }


def _check_overrides(overrides: tuple[str, ...]) -> None:
    """Find out before a running application is ended that its successor would not start.

    The settings' file and the credentials are on another node: what is missing here says nothing.
    """
    # Which strategies there are is in the file.
    checked = [each for each in overrides if each.partition("=")[0].strip() != "strategy"]
    try:
        load_settings(None, checked, {})
    except ConfigError as error:
        if wrong := [line for line in error.lines if _OVERRIDE in line]:
            raise ConfigError(wrong) from None


def _trade(settings: Settings, stop: threading.Event, traded: Callable[[], None]) -> None:
    display = Display(Console(highlight=False), line_interval_s=_LINE_INTERVAL_S)
    with (
        reading_the_clusters(settings, stop) as (read, until),
        learning_with_the_others(settings, until) as (shared, ends),
    ):
        display.summary(run_application(read, display, ends, traded=traded, shared=shared))
