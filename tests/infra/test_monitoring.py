"""Rules, dashboards, and how Prometheus and Grafana find them."""

import json
import os
import queue
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
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
from trading.feed.feed_metrics import FeedCounts, feed_text
from trading.live.metrics import TradingMetrics

RULE_TESTS = Path(__file__).parent / "alerts.promtool.yaml"
DASHBOARDS = runpy.run_path(str(ROOT / "scripts" / "generate_dashboards.py"))["files"]()
(RUNBOOKS,) = [path for path in DASHBOARDS if path.name == "runbooks.json"]
ASKING = [path for path in DASHBOARDS if path != RUNBOOKS]
"""Dashboards that ask Prometheus."""
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
        if panel["type"] not in ("row", "text")
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
    assert page == "{{ $externalLabels.runbooks }}"
    assert anchor == alert.lower()
    text = (ROOT / "docs" / "monitoring.md").read_text()
    assert alert in re.findall(r"^### (\w+)$", text, re.MULTILINE)
    content = json.loads(RUNBOOKS.read_text())
    shown = {
        each["title"]: each["options"]["content"] for each in content["panels"] if "options" in each
    }
    assert ALERTS[alert]["annotations"]["description"] in shown[alert]


def test_alerts_lead_to_where_the_operator_says_that_runbooks_are(tmp_path: Path) -> None:
    """A variable of Prometheus' pod is a label of all alerts, which is sent with none."""
    pod = the("Deployment", "prometheus")["spec"]["template"]["spec"]
    told = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    address = json.loads(RUNBOOKS.read_text())["uid"]
    assert told == {"RUNBOOKS_URL": f"http://127.0.0.1:3000/d/{address}"}
    config = committed_config()
    assert config["global"]["external_labels"] == {"runbooks": "${RUNBOOKS_URL}"}
    assert config["alerting"]["alert_relabel_configs"] == [
        {"action": "labeldrop", "regex": "runbooks"}
    ]
    page = "https://docs.example/monitoring.html"
    test = {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "tests": [
            {
                "external_labels": {"runbooks": page},
                "interval": "1m",
                "input_series": [{"series": 'up{job="trading-bot"}', "values": "0x10"}],
                "alert_rule_test": [
                    {
                        "alertname": "TradingBotDown",
                        "eval_time": "5m",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical"},
                                "exp_annotations": ALERTS["TradingBotDown"]["annotations"]
                                | {"runbook_url": f"{page}#tradingbotdown"},
                            }
                        ],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    command = [tool("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_alertmanager_is_sent_the_address_and_no_label_of_it(tmp_path: Path) -> None:
    """By a Prometheus with the committed configuration, which hears nothing of a bot."""
    told: queue.Queue[Any] = queue.Queue()

    class Alertmanager(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Alertmanager)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = local_config({})
    rules = yaml.safe_load((RULES / "alerts.yaml").read_text())
    for each in (rule for group in rules["groups"] for rule in group["rules"]):
        each.pop("for", None)
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    config["rule_files"] = [str(tmp_path / "alerts.yaml")]
    config["alerting"]["alertmanagers"] = [
        {"static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
    ]
    page = "https://docs.example/monitoring.html"
    # Version 3, which the cluster runs, knows no such flag: it always does so.
    flags = ("--enable-feature=expand-external-labels", "--rules.alert.resend-delay=1s")
    prometheus = Prometheus(tmp_path / "prometheus", config, *flags, RUNBOOKS_URL=page)
    try:
        (alert, *_) = told.get(timeout=WAIT_S)
    finally:
        prometheus.close()
        server.shutdown()
        server.server_close()
    assert alert["labels"] == {"alertname": "TradingBotDown", "severity": "critical"}
    assert alert["annotations"]["runbook_url"] == f"{page}#tradingbotdown"


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.name)
def test_a_dashboard_leads_to_the_runbooks(path: Path) -> None:
    content = json.loads(path.read_text())
    uid = json.loads(RUNBOOKS.read_text())["uid"]
    assert [each["url"] for each in content["links"]] == [f"/d/{uid}/runbooks"]
    leading = [each for each in content["panels"] if each.get("links")]
    assert [each["title"] for each in leading] == (
        ["Alerts"] if path.name == "trading.json" else []
    )


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
    assert provided_from("trading-bot") == folder
    assert config_map["data"] == {path.name: path.read_text() for path in DASHBOARDS}


def provided_from(name: str) -> str:
    """The folder of one of Grafana's providers of dashboards."""
    provisioning = the("ConfigMap", "grafana-config")["data"]
    providers = yaml.safe_load(provisioning["dashboards.yaml"])["providers"]
    folders = {each["name"]: str(each["options"]["path"]) for each in providers}
    assert folders.keys() == {"trading-bot", "ray"}
    return folders[name]


def test_rays_own_dashboards_are_written_where_grafana_reads_them(tmp_path: Path) -> None:
    """By the very command of the pod, whose folder is one of this machine here.

    One that fails, as where the image is older than they are, does not keep Grafana from starting.
    """
    pod = the("Deployment", "grafana")["spec"]["template"]["spec"]
    (writer,), (grafana,) = pod["initContainers"], pod["containers"]
    places = {
        container["name"]: each["mountPath"]
        for container in (writer, grafana)
        for each in container["volumeMounts"]
        if each["name"] == "ray-dashboards"
    }
    assert places["grafana"] == provided_from("ray")
    shell, option, line = writer["command"]
    assert line.count(places["ray-dashboards"]) == 1

    def write(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shell, option, line.replace(places["ray-dashboards"], str(folder))],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            check=False,
        )

    failed = write(tmp_path / "missing")
    assert (failed.returncode, failed.stdout) == (0, "no dashboards of Ray\n"), failed.stderr
    assert "FileNotFoundError" in failed.stderr
    done = write(tmp_path)
    assert (done.returncode, "no dashboards" in done.stdout) == (0, False), done.stderr
    written = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert len({each["uid"] for each in written.values()}) == len(written) == 3
    for name, content in written.items():
        assert f"rayVersion:{ray.__version__}" in content["tags"], name
        shown = [each for each in content["panels"] if each["type"] != "row"]
        shown += [each for row in content["panels"] for each in row.get("panels", [])]
        queries = [target["expr"] for each in shown for target in each["targets"]]
        asking = [query for query in queries if not query.isdigit()]
        assert len(asking) > 5, name
        assert all(re.search(r"\b(ray|autoscaler)_", query) for query in asking), name
        # The Prometheus that Grafana has: a variable of that kind, not a name of somebody else's.
        sources = {str(each.get("datasource")) for each in shown}
        assert sources == {"${datasource}"}, name
        (source,) = [v for v in content["templating"]["list"] if v["type"] == "datasource"]
        assert (source["name"], source["query"]) == ("datasource", "prometheus")


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


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.name)
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
        # A local Ray has figures of its own only where it has an agent, which a dashboard brings.
        *("--set", "ray.dashboard=true"),
        *("--set", "learning.pretrain_steps=0"),
        *("--set", "learning.update_frequency=16"),
        # Whole sessions in the first rollout: so there is a return of an episode.
        *("--set", "learning.num_envs=4"),
        *("--set", "learning.rollout_length=400"),
        *("--set", "learning.gate.sessions=20"),
        *("--set", "env.sessions_per_episode=1"),
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
    deadline = time.monotonic() + WAIT_S
    while missing and time.monotonic() < deadline:
        missing = {query for query in missing if not prometheus.values(query)}
        time.sleep(0.5)
    assert not missing, sorted(missing)


@pytest.mark.slow
@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.name)
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


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.name)
def test_every_panel_shows_the_strategies_that_are_chosen(path: Path) -> None:
    (chosen,) = json.loads(path.read_text())["templating"]["list"]
    assert (chosen["name"], chosen["allValue"], chosen["includeAll"]) == ("strategy", ".*", True)
    for title, queries in panels(path):
        for query in queries:
            names = re.findall(r"\btrading_bot[\w:]*", query)
            assert query.count('{strategy=~"$strategy"') == len(names), (title, query)


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.name)
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
