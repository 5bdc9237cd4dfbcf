"""Where the actors of an account are placed, on a cluster with several live-market nodes."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from trading.app.cluster_learner import learner_options
from trading.app.driver import LIVE_SHARE, SMALL_SHARE, actor_place
from trading.config import Settings, load_settings

FIRST, SECOND, HEAD = (letter * 56 for letter in "abc")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    live = {"live_market": 1.0}
    resources: dict[str, dict[str, float]] = {FIRST: live, SECOND: live, HEAD: {}}
    nodes = [{"NodeID": node, "Resources": has} for node, has in resources.items()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


def settings_at(monkeypatch: pytest.MonkeyPatch, driver: str, resource: str | None) -> Settings:
    context = SimpleNamespace(get_node_id=lambda: driver)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    lines = [f"ray.live_market_resource={resource}"] if resource else []
    return load_settings(None, lines, {})


def placed(monkeypatch: pytest.MonkeyPatch, driver: str, resource: str | None) -> dict[str, Any]:
    return actor_place(settings_at(monkeypatch, driver, resource), LIVE_SHARE)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("driver", [FIRST, SECOND])
def test_an_accounts_actors_are_where_its_files_are(
    monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    options = placed(monkeypatch, driver, "live_market")
    strategy = options["scheduling_strategy"]
    assert (strategy.node_id, strategy.soft) == (driver, False)
    assert options["resources"] == {"live_market": LIVE_SHARE}
    assert placed(monkeypatch, driver, None)["scheduling_strategy"].node_id == driver


@pytest.mark.usefixtures("cluster")
def test_a_driver_elsewhere_leaves_the_node_to_the_resource(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = placed(monkeypatch, HEAD, "live_market")
    assert "scheduling_strategy" not in options
    assert options["resources"] == {"live_market": LIVE_SHARE}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("driver", [FIRST, SECOND])
def test_a_shared_learner_is_where_its_checkpoints_are(
    monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    common = settings_at(monkeypatch, driver, "live_market")
    options = learner_options(common, {"a": common, "b": common})
    strategy = options["scheduling_strategy"]
    assert (strategy.node_id, strategy.soft) == (driver, False)
    assert options["resources"] == {"live_market": SMALL_SHARE}
    assert options["max_restarts"] == -1, "Ray starts it again, on that node"
