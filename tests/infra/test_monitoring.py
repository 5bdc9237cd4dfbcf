"""Rules, dashboards, and how Prometheus and Grafana find them."""

import json
import re
import runpy
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.application import Application, environment
from tests.infra.manifests import ROOT, Object, build
from tests.infra.prometheus import (
    RULES,
    Prometheus,
    committed_config,
    local_config,
    tool,
)
from tests.waits import WAIT_S
from trading.data.massive.client.connection import ConnectionHealth, ConnectionState
from trading.feed.exposition import FeedCounts, feed_text
from trading.live.metrics import TradingMetrics

RULE_TESTS = Path(__file__).parent / "alerts.promtool.yaml"
DASHBOARDS = runpy.run_path(str(ROOT / "scripts" / "generate_dashboards.py"))["files"]()
_DATA_S = 100.0
# A simulated market is its own clock, so that there is no offset to be measured.
_NOT_SIMULATED = {"trading_bot_clock_offset_seconds"}
_METRIC = re.compile(r"\b(?:trading_bot|ray)_?[a-z0-9_:]+\b|\bup\b")


def rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    groups = [yaml.safe_load(path.read_text())["groups"] for path in sorted(RULES.glob("*.yaml"))]
    return [rule for file in groups for group in file for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels(dashboard: Path) -> list[tuple[str, list[str]]]:
    """Title and queries of every panel of a committed dashboard."""
    content = json.loads(dashboard.read_text())
    return [
        (panel["title"], [target["expr"] for target in panel["targets"]])
        for panel in content["panels"]
        if panel["type"] != "row"
    ]


def the(kind: str, name: str) -> Object:
    """An object of the monitoring kustomization, by the name without its content's suffix."""
    (found,) = [
        each
        for each in build("k8s/monitoring")
        if each["kind"] == kind and re.sub(r"-[a-z0-9]{10}$", "", each["metadata"]["name"]) == name
    ]
    return found


def mounted(deployment: Object, config_map: str) -> list[tuple[str, Object]]:
    """Where the pod of a deployment sees a ConfigMap, and how."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {each["name"]: each.get("configMap", {}) for each in pod["volumes"]}
    return [
        (mount["mountPath"], volumes[mount["name"]])
        for mount in container["volumeMounts"]
        if volumes[mount["name"]].get("name") == config_map
    ]


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    command = [tool("promtool"), "test", "rules", str(RULE_TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_both_ways(alert: str) -> None:
    (test,) = [
        each for each in yaml.safe_load(RULE_TESTS.read_text())["tests"] if each["name"] == alert
    ]
    firing = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    expected = [
        bool(case["exp_samples"]) for case in test["promql_expr_test"] if case["expr"] == firing
    ]
    assert set(expected) == {False, True}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_names_its_section_of_the_runbooks(alert: str) -> None:
    page, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    heads = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert.lower()
    assert alert in heads


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_committed_dashboard_is_the_generated_one(path: Path) -> None:
    assert path.read_text() == DASHBOARDS[path], "run python scripts/generate_dashboards.py"


def test_the_committed_configuration_is_valid(tmp_path: Path) -> None:
    config = {**committed_config(), "rule_files": [str(RULES / "*.yaml")]}
    for job in config["scrape_configs"]:
        # Debian's build knows no discovery by Kubernetes.
        job.pop("kubernetes_sd_configs", None)
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [tool("promtool"), "check", "config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules_where_they_are_mounted() -> None:
    config_map = the("ConfigMap", "prometheus-rules")
    deployment = the("Deployment", "prometheus")
    ((folder, _),) = mounted(deployment, config_map["metadata"]["name"])
    assert committed_config()["rule_files"] == [f"{folder}/*.yaml"]
    assert config_map["data"] == {path.name: path.read_text() for path in RULES.glob("*.yaml")}


def test_grafana_reads_the_dashboards_where_they_are_mounted() -> None:
    config_map = the("ConfigMap", "grafana-dashboards")
    deployment = the("Deployment", "grafana")
    ((folder, _),) = mounted(deployment, config_map["metadata"]["name"])
    provisioning = the("ConfigMap", "grafana-config")["data"]
    (provider,) = yaml.safe_load(provisioning["dashboards.yaml"])["providers"]
    assert provider["options"]["path"] == folder
    assert config_map["data"] == {path.name: path.read_text() for path in DASHBOARDS}


def test_grafana_finds_each_provisioning_file_in_its_folder() -> None:
    places = mounted(the("Deployment", "grafana"), "grafana-config")
    assert {
        f"{folder}/{item['path']}": item["key"]
        for folder, volume in places
        for item in volume["items"]
    } == {
        "/etc/grafana/provisioning/datasources/datasources.yaml": "datasources.yaml",
        "/etc/grafana/provisioning/dashboards/dashboards.yaml": "dashboards.yaml",
    }


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_query_asks_the_provisioned_datasource(path: Path) -> None:
    provisioning = the("ConfigMap", "grafana-config")["data"]
    (source,) = yaml.safe_load(provisioning["datasources.yaml"])["datasources"]
    targets = [
        target
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    assert targets
    assert {target["datasource"]["uid"] for target in targets} == {source["uid"]}


@pytest.fixture(scope="module")
def monitored() -> Iterator[Prometheus]:
    """A Prometheus that scrapes the application and its Ray while it trades and learns."""
    tool("prometheus")
    # Ray's sockets are in it, and their paths may not be long.
    folder = Path(tempfile.mkdtemp(prefix="monitored-"))
    application = Application.up(
        folder / "application",
        *("--set", "symbols=SPY"),
        *("--set", "data.simulation.speed=120"),
        *("--set", "learning.pretrain_steps=0"),
        *("--set", "learning.update_frequency=16"),
        # Whole sessions in the first rollout: so there is a return of an episode.
        *("--set", "learning.num_envs=4"),
        *("--set", "learning.rollout_length=400"),
        *("--set", "learning.gate.sessions=20"),
        env=environment(RAY_TMPDIR=str(folder)),
    )
    try:
        application.wait_ready()
        (port_file,) = (folder / "ray" / "session_latest").glob("metrics_export_port_*")
        targets = {"trading-bot": application.port, "ray": int(port_file.read_text())}
        prometheus = Prometheus(folder / "prometheus", local_config(targets))
        try:
            prometheus.wait_ready()
            yield prometheus
        finally:
            prometheus.close()
    finally:
        application.close()
        shutil.rmtree(folder)


def wait_for_data(prometheus: Prometheus, queries: set[str]) -> None:
    """Return once every query has given a number; fails with those that did not in time."""
    missing = set(queries)
    deadline = time.monotonic() + _DATA_S
    while missing and time.monotonic() < deadline:
        missing = {query for query in missing if not prometheus.values(query)}
        time.sleep(0.5)
    assert not missing, sorted(missing)


@pytest.mark.slow
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_shows_data_of_the_running_application(
    monitored: Prometheus, path: Path
) -> None:
    queries = {
        query.replace("$__rate_interval", "30s").replace("$strategy", ".*")
        for _, targets in panels(path)
        for query in targets
        if not any(name in query for name in _NOT_SIMULATED) and "trading_feed_" not in query
    }
    assert queries
    wait_for_data(monitored, queries)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_shows_the_strategies_that_are_chosen(path: Path) -> None:
    (chosen,) = json.loads(path.read_text())["templating"]["list"]
    assert (chosen["name"], chosen["allValue"], chosen["includeAll"]) == ("strategy", ".*", True)
    for title, queries in panels(path):
        for query in queries:
            names = re.findall(r"\btrading_bot[\w:]*", query)
            assert query.count('{strategy=~"$strategy"') == len(names), (title, query)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_promotions_and_rollbacks_are_marked_on_the_time_axis(path: Path) -> None:
    marked = {each["name"]: each for each in json.loads(path.read_text())["annotations"]["list"]}
    assert {"Promotions", "Rollbacks"} <= set(marked)
    known = {f"{family.name}_total" for family in TradingMetrics().families()}
    for each in marked.values():
        (name,) = re.findall(r"\btrading_bot\w*", each["expr"])
        assert name in known
        assert '{strategy=~"$strategy"}' in each["expr"]


def test_tables_have_a_column_for_each_query() -> None:
    (path,) = [path for path in DASHBOARDS if path.name == "trading.json"]
    tables = {
        panel["title"]: panel
        for panel in json.loads(path.read_text())["panels"]
        if panel["type"] == "table"
    }
    assert set(tables) == {"What is held", "What was done"}
    for panel in tables.values():
        columns = panel["transformations"][-1]["options"]["renameByName"]
        assert [f"Value #{each['refId']}" for each in panel["targets"]] == list(columns)
        assert all(each["instant"] and each["format"] == "table" for each in panel["targets"])


@pytest.mark.parametrize("rule", rules(), ids=lambda each: each.get("alert") or each["record"])
def test_no_rule_adds_strategies_up(rule: dict[str, Any]) -> None:
    assert all("strategy" in by for by in re.findall(r"by \(([^)]*)\)", rule["expr"]))


def test_what_is_asked_of_the_feed_is_what_it_tells() -> None:
    """No feed runs beside a simulated market."""
    health = ConnectionHealth(
        state=ConnectionState.LIVE,
        last_frame_ns=1,
        reconnects=1,
        frames=1,
        bytes=1,
        dropped=0,
        asked=1,
        acknowledged=1,
        refused=0,
        unanswered=0,
        ticking=1,
        last_error="",
    )
    told = FeedCounts(
        readers={"options": 1},
        wanted={"options": 1},
        left_out={"options": 1},
        connections={("options", 1): health},
    )
    names = set(re.findall(r"^(trading_feed_\w+?)(?:\{| )", feed_text(told).decode(), re.MULTILINE))
    queries = [rule["expr"] for rule in rules()]
    queries += [query for path in DASHBOARDS for _, asked in panels(path) for query in asked]
    asked_for = {name for query in queries for name in re.findall(r"trading_feed_\w+", query)}
    assert len(asked_for) > 6
    assert asked_for <= names


@pytest.mark.slow
def test_every_rule_evaluates_and_reads_metrics_that_exist(monitored: Prometheus) -> None:
    names = {name for rule in rules() for name in _METRIC.findall(rule["expr"])}
    names -= _NOT_SIMULATED
    wait_for_data(monitored, names | {rule["record"] for rule in rules() if "record" in rule})
    groups = monitored.ask("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) == len(rules())
    assert {rule["name"]: rule["health"] for rule in found} == dict.fromkeys(
        [rule["name"] for rule in found], "ok"
    )
