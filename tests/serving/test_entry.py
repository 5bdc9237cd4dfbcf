"""The import path of the Serve application: its arguments and its settings."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from ray import serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app

from trading.app.fleet import namespaces_of
from trading.errors import ConfigError
from trading.serving.app import SUPERVISOR
from trading.serving.entry import (
    CLOSE_TIMEOUT_S,
    Arguments,
    api_of,
    application,
    read_settings,
    read_strategies,
)

ENVIRONMENT = ("MASSIVE_API_KEY", "DATA_SOURCE", "SYMBOLS", "MAX_POSITIONS")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config.yaml"
    file.write_text("symbols: [SPY]\nray: {live_market_resource: live_market}\n")
    return file


def built(**arguments: object) -> serve.Application:
    """As Serve builds it, from what `args` of its configuration holds."""
    return call_user_app_builder_with_args_if_necessary(application, arguments)


def test_it_is_the_api_before_a_supervisor_on_the_live_markets_node(config: Path) -> None:
    app = built(config=str(config), set=["seed=8"], live_market_resource="live_market")
    parts = {each.name: each for each in build_app(app, name="trading").deployments}
    assert parts.keys() == {"api", SUPERVISOR}
    for part in parts.values():
        assert part.ray_actor_options["num_cpus"] == 0
        assert part.ray_actor_options["resources"] == {"live_market": 0.001}
    lasts_s = parts[SUPERVISOR]._deployment_config.graceful_shutdown_timeout_s
    assert parts[SUPERVISOR].num_replicas == 1 and lasts_s > CLOSE_TIMEOUT_S


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValidationError, match="configs"):
        built(configs="a.yaml")


def test_a_wrong_override_is_refused_before_anything_ends(config: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        built(config=str(config), set=["sed=8", "account.max_positions=-1"])
    assert [line.split()[0] for line in refused.value.lines] == ["sed", "account.max_positions"]


def test_what_is_missing_where_it_is_built_is_no_mistake() -> None:
    assert built(config="/no/such.yaml", set=["data.source=massive"])


def test_settings_are_read_where_the_supervisor_runs(config: Path) -> None:
    arguments = Arguments(
        config=config, set=("paths.state_dir=here",), live_market_resource="live_market"
    )
    settings = read_settings(arguments)
    assert settings.symbols == ("SPY",)
    assert settings.paths.state_dir == Path.cwd() / "here"


def test_the_node_is_the_one_of_the_settings(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"ray\.live_market_resource = 'live_market'.*None"):
        read_settings(Arguments(config=config))


def test_a_file_of_strategies_runs_all_of_them_or_the_one_that_is_named(config: Path) -> None:
    config.write_text(f"{config.read_text()}strategies: {{index: {{seed: 3}}, careful: }}\n")
    node = {"live_market_resource": "live_market"}
    every = Arguments(config=config, **node)
    common = read_settings(every)
    strategies = read_strategies(every, common)
    assert [each.account.id for each in strategies.values()] == ["index", "careful"]
    assert all(each.paths.state_dir.is_absolute() for each in strategies.values())
    assert len(set(namespaces_of(strategies).values())) == 2
    one = Arguments(config=config, set=("strategy=index",), **node)
    assert read_settings(one).account.id == "index"
    assert built(config=str(config), set=["strategy=index"])
    of_all, of_one = (
        {getattr(route, "path", None) for route in api_of(arguments).routes}
        for arguments in (every, one)
    )
    assert {"/status/{strategy}", "/ready/{strategy}", "/index"} <= of_all
    assert "/status" in of_one and "/status/{strategy}" not in of_one
