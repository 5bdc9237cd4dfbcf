"""Each form of the bot on the cluster of the current kubeconfig: kind, minikube, or any other.

    make test-kubernetes                        # builds the image and loads it
    make test-kubernetes IMAGE=registry.example/paper-trading-bot:1

Each form has a namespace of its own, which is deleted afterwards; the next run deletes what one
that was killed left. What a cluster lacks is skipped with the reason, CPUs too, where it does not
make nodes as they are asked for (GROWS=1). The tests of a form build on each other, in this order.
What was seen is written to var/kubernetes-report.md (REPORT names another file). An hour on two
cores.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.manifests import ROOT
from tests.kubernetes.bot import FORMS, START_S, Bot, kubectl, wait_for
from tests.kubernetes.namespaces import delete_abandoned, namespace
from tests.kubernetes.report import Report
from tests.kubernetes.room import lacks_room

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(4 * START_S)]

_ASKED = ["/health", "/ready", "/status", "/metrics"]


@pytest.fixture(scope="module")
def report() -> Report:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH")
    try:
        report = Report(Path(os.environ.get("REPORT", ROOT / "var" / "kubernetes-report.md")))
    except AssertionError as error:
        pytest.skip(f"the cluster of the current kubeconfig does not answer: {error}")
    if left := delete_abandoned():
        report.add("all", "namespaces of killed runs", f"deleted: {', '.join(left)}")
    return report


@pytest.fixture(scope="module", params=list(FORMS))
def bot(request: pytest.FixtureRequest, report: Report) -> Iterator[Bot]:
    """A bot of each form, deployed once; its namespace is deleted in the end."""
    form = FORMS[request.param]
    lacking = _lacks_kuberay() if form.options else ""
    if not lacking and os.environ.get("GROWS") != "1":
        lacking = lacks_room(form.name)
    if lacking:
        report.add(form.name, "all", f"skipped: {lacking}")
        pytest.skip(lacking)
    with namespace(form.name) as name:
        bot = Bot(form, name)
        with report.timed(form.name, "deploy until ready"):
            bot.deploy()
        yield bot


def _lacks_kuberay() -> str:
    """Why there can be no Ray cluster; empty when there can."""
    kinds = kubectl("get", "crd", "-o", "name", check=False)
    for kind in ("rayclusters", "rayservices"):
        if f"{kind}.ray.io" not in kinds:
            return f"the cluster does not know {kind}.ray.io: KubeRay is not installed"
    running = kubectl(
        *("get", "pods", "--all-namespaces", "-l", "app.kubernetes.io/name=kuberay-operator"),
        *("--field-selector", "status.phase=Running", "-o", "name"),
    )
    return "" if running.strip() else "no KubeRay operator runs (its resource kinds are known)"


def test_it_is_ready_and_its_endpoints_answer(bot: Bot, report: Report) -> None:
    bodies = {path: bot.get(path) for path in _ASKED}
    assert all(bodies.values()), [path for path, body in bodies.items() if not body]
    assert "trading_bot_portfolio_value" in str(bodies["/metrics"])
    addresses = [
        address
        for each in bot.objects("endpoints")
        if each["metadata"]["name"] == "paper-trading-bot"
        for subset in each.get("subsets", [])
        for address in subset.get("addresses", [])
    ]
    assert addresses
    report.add(bot.form.name, "endpoints", f"{len(_ASKED)} answer; {len(addresses)} ready address")


def test_its_pods_are_found_by_their_label_and_have_the_folders(bot: Bot, report: Report) -> None:
    found = bot.kubectl("get", "pods", "-l", "app=paper-trading-bot", "-o", "name").split()
    assert found
    listed = bot.manage("exec", "ls", "/checkpoints/", "/logs/", "/models/")
    assert "champions" in listed
    (pod, *_) = bot.pods()
    requests = [c["resources"]["requests"]["cpu"] for c in pod["spec"]["containers"]]
    report.add(bot.form.name, "pods by app=paper-trading-bot", f"{len(found)}, CPU {requests}")


def test_it_trades(bot: Bot, report: Report) -> None:
    with report.timed(bot.form.name, "first fills after ready") as seen:
        account = wait_for(
            "a decision and a fill",
            lambda: (a := bot.account())["decisions"] > 0 and a["trades"] > 0 and a,
            START_S,
        )
        seen.append(f"{account['decisions']} decisions, {account['trades']} fills")


def test_its_account_outlives_its_pod(bot: Bot, report: Report) -> None:
    before = bot.account()
    names = {pod["metadata"]["name"] for pod in bot.pods()}
    with report.timed(bot.form.name, "pod deleted until ready again") as seen:
        for name in names:
            bot.kubectl("delete", "pod", name, "--timeout=300s")
        wait_for(
            "another pod",
            lambda: {pod["metadata"]["name"] for pod in bot.pods()} - names,
            START_S,
        )
        if bot.form.name == "kuberay":
            bot.manage("start")  # nobody starts a job again by itself
        after = bot.account()
        seen.append(f"journal {before['journal_events']} to {after['journal_events']} events")
    _goes_on(before, after)


def _goes_on(before: dict[str, Any], after: dict[str, Any]) -> None:
    for total in ("journal_events", "decisions", "trades", "fees_paid"):
        assert after[total] >= before[total]
    assert (after["id"], after["initial_capital"]) == (before["id"], before["initial_capital"])
    equity, fewest = after["equity"], before["initial_capital"] / 2
    assert fewest < equity < 4 * fewest


def test_a_file_of_weights_trades_without_a_restart(
    bot: Bot, report: Report, tmp_path: Path
) -> None:
    before = bot.status()["champion"]["number"]
    config = ("--config", "/etc/trading/config.yaml", "--set", "paths.state_dir=/var/lib/trading")
    export = ("trading", "checkpoints", "export", f"champion-{before}", "/tmp/out.pt")
    bot.manage("exec", *export, *config)
    file = tmp_path / "weights.pt"
    bot.fetch("/tmp/out.pt", file)
    (pod, *_) = bot.pods()
    with report.timed(bot.form.name, "update-model FILE.pt") as seen:
        said = bot.manage("update-model", str(file))
        match = re.search(r"champion-(\d+) (?:trades|is to trade)", said)
        assert match, said
        number = int(match[1])
        wait_for(
            f"champion {number}",
            lambda: bot.status()["champion"]["number"] >= number,
            START_S,
        )
        seen.append(f"champion {before} to {number}")
    assert bot.pods()[0]["metadata"]["name"] == pod["metadata"]["name"]


def test_a_variable_of_the_deployment_changes_what_is_traded(bot: Bot, report: Report) -> None:
    if bot.form.name != "pod":
        pytest.skip("a Ray cluster has no Deployment")
    with report.timed(bot.form.name, "set env SYMBOLS=SPY until ready"):
        bot.kubectl("set", "env", "deployment/paper-trading-bot", "SYMBOLS=SPY")
        bot.kubectl(
            "rollout", "status", "deployment/paper-trading-bot", f"--timeout={START_S:.0f}s"
        )
        status = bot.status()
    # What is held of others is wound down, or keeps its value where nobody lists it any more.
    held = {each["underlying"] for each in status["positions"]}
    watched = set(status["market"]["underlyings"])
    assert "SPY" in watched
    assert watched - {"SPY"} <= held


def test_it_scales(bot: Bot, report: Report) -> None:
    if bot.form.name == "pod":
        with report.timed(bot.form.name, "scale 0, then 1, until ready"):
            before = bot.account()
            bot.manage("scale", "0")
            assert not bot.pods()
            bot.manage("scale", "1")
            _goes_on(before, bot.account())
        return
    bot.manage("scale", "3")
    for kind in ("rayclusters", "rayservices"):
        for each in bot.objects(kind):
            spec = each["spec"].get("rayClusterConfig", each["spec"])
            groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
            assert groups["env-runners"]["maxReplicas"] == 3
    report.add(bot.form.name, "scale 3", "cluster and its successor")


def test_it_restarts(bot: Bot, report: Report) -> None:
    before = bot.account()
    with report.timed(bot.form.name, "restart until ready"):
        bot.manage("restart")
        _goes_on(before, bot.account())


def test_it_stops_in_order_and_starts_again(bot: Bot, report: Report) -> None:
    before = bot.account()
    with report.timed(bot.form.name, "stop"):
        bot.manage("stop")
    assert not bot.ready()
    with report.timed(bot.form.name, "start until ready"):
        bot.manage("start")
    _goes_on(before, bot.account())


def test_the_head_may_be_lost(bot: Bot, report: Report) -> None:
    if bot.form.name == "pod":
        pytest.skip("one pod has no head")
    before = bot.account()
    heads = bot.kubectl("get", "pods", "-l", "ray.io/node-type=head", "-o", "name").split()
    with report.timed(bot.form.name, "head lost until it is back"):
        bot.kubectl("delete", *heads, "--timeout=300s")
        wait_for(
            "another head",
            lambda: [
                pod
                for pod in bot.objects("pods", "-l", "ray.io/node-type=head")
                if all(c.get("ready") for c in pod["status"].get("containerStatuses", [{}]))
            ],
            START_S,
        )
        _goes_on(before, bot.account())


def test_an_upgrade_hands_the_account_over(bot: Bot, report: Report, tmp_path: Path) -> None:
    if bot.form.name != "rayservice":
        pytest.skip("only a RayService hands over")
    before = bot.account()
    clusters = {each["metadata"]["name"] for each in bot.objects("rayclusters")}
    settings = tmp_path / "config.yaml"
    text = (ROOT / "infra/kuberay/cluster/config.yaml").read_text()
    settings.write_text(text.replace("[SPY, QQQ, IWM]", "[SPY, QQQ]"))
    with report.timed(bot.form.name, "hand-over to a second cluster"):
        bot.deploy("--config", str(settings))
        status = bot.status()
        held = {each["underlying"] for each in status["positions"]}
        assert {"SPY", "QQQ"} <= set(status["market"]["underlyings"]) <= {"SPY", "QQQ"} | held
        _goes_on(before, status["account"])
    assert {each["metadata"]["name"] for each in bot.objects("rayclusters")} != clusters


def test_prometheus_reaches_its_targets(bot: Bot, report: Report) -> None:
    # Grafana's image may not be there: what is asked is said by Prometheus.
    bot.deploy("--monitoring", "--timeout", "120", check=False)
    pods = bot.objects("pods", "-l", "app.kubernetes.io/name in (prometheus, grafana)")
    pulls = {
        pod["metadata"]["labels"]["app.kubernetes.io/name"]
        for pod in pods
        for container in pod["status"].get("containerStatuses", [])
        if "ImagePull" in container.get("state", {}).get("waiting", {}).get("reason", "")
    }
    if "prometheus" in pulls:
        report.add(bot.form.name, "monitoring", "skipped: Prometheus' image cannot be had")
        pytest.skip("Prometheus' image cannot be had")

    def up() -> str | None:
        text = bot.get("/api/v1/targets?state=active", "prometheus:9090")
        targets = json.loads(text)["data"]["activeTargets"] if text else []
        ours = [each for each in targets if each["labels"]["job"] == "trading-bot"]
        health = {each["health"] for each in targets}
        return f"{len(targets)} targets up" if ours and health == {"up"} else None

    with report.timed(bot.form.name, "monitoring: targets") as seen:
        seen.append(wait_for("targets that are up", up, 300.0))
        if pulls:
            seen.append("Grafana skipped: its image cannot be had")


def test_deletion_waits_for_the_account_and_leaves_it(bot: Bot, report: Report) -> None:
    bot.status()
    with report.timed(bot.form.name, "delete"):
        bot.manage("--yes", "delete")
        assert not bot.pods()
    claims = {each["metadata"]["name"] for each in bot.objects("persistentvolumeclaims")}
    assert claims >= {"trading-bot-models", "trading-bot-checkpoints", "trading-bot-logs"}
    assert not bot.objects("deployments", "-l", "app=paper-trading-bot")
    with report.timed(bot.form.name, "delete --with-data"):
        bot.manage("--yes", "--with-data", "delete")
    assert f"namespace/{bot.namespace}" not in kubectl("get", "namespaces", "-o", "name").split()
