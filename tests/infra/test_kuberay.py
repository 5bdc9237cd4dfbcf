"""Ray's own autoscaler reads the cluster as it is meant, and the application's settings fit it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.serve.schema import ServeDeploySchema

from tests.infra.manifests import (
    CLUSTERS,
    INFRA,
    ROOT,
    SERVICES,
    TRAININGS,
    Object,
    build,
    one,
    pod_templates,
)
from tests.waits import WAIT_S
from trading.app.driver import CALL_TIMEOUT_S, LIVE_SHARE, SMALL_SHARE
from trading.config import Settings, load_settings
from trading.learning.build import place_learner
from trading.serving.entry import CLOSE_TIMEOUT_S, Arguments, application, read_settings

_GB = 2**30


def _cluster(name: str) -> Object:
    if name in CLUSTERS:
        return one(name, "RayCluster")
    if name in SERVICES:
        service = one(name, "RayService")
        return {"metadata": service["metadata"], "spec": service["spec"]["rayClusterConfig"]}
    job = one(name, "RayJob")
    return {"metadata": job["metadata"], "spec": job["spec"]["rayClusterSpec"]}


def _node_types(name: str) -> dict[str, Any]:
    """Fewest and most nodes and the resources of each node type, memory in GiB."""
    config = _derive_autoscaling_config_from_ray_cr(_cluster(name))
    assert config["head_node_type"] == "headgroup"
    return {
        kind: (
            each["min_workers"],
            each["max_workers"],
            {**each["resources"], "memory": each["resources"]["memory"] // _GB},
        )
        for kind, each in config["available_node_types"].items()
    }


def _learner(gpu: bool) -> dict[str, Any]:
    if gpu:
        return {"CPU": 0, "GPU": 1, "learner": 1, "memory": 8}
    return {"CPU": 0, "learner": 1, "memory": 4}


@pytest.mark.parametrize("name", [*CLUSTERS, *SERVICES])
def test_the_autoscaler_sees_the_nodes_of_the_trading_cluster(name: str) -> None:
    assert _node_types(name) == {
        "headgroup": (0, 0, {"CPU": 0, "memory": 4}),
        "live-market": (1, 1, {"CPU": 0, "live_market": 1, "memory": 8}),
        "learner": (1, 1, _learner(gpu="cpu" not in name)),
        "env-runners": (0, 8, {"CPU": 2, "memory": 4}),
    }


@pytest.mark.parametrize("name", TRAININGS)
def test_the_autoscaler_sees_the_nodes_of_a_training_cluster(name: str) -> None:
    assert _node_types(name) == {
        "headgroup": (0, 0, {"CPU": 0, "memory": 8}),
        "learner": (1, 1, _learner(gpu="cpu" not in name)),
        "env-runners": (0, 16, {"CPU": 2, "memory": 4}),
    }


def _settings(name: str, environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(INFRA / "kuberay" / name / "config.yaml", environ=environ or {})


def _drivers_environment(name: str) -> dict[str, str]:
    """Of the container that the driver runs in: the live market's, in training the head's."""
    spec = _cluster(name)["spec"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    group = groups.get("live-market", spec["headGroupSpec"])
    (container,) = [
        each
        for each in group["template"]["spec"]["containers"]
        if each["name"] in ("ray-head", "ray-worker")
    ]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_the_cluster_has_the_settings_of_configs() -> None:
    text = (INFRA / "kuberay/cluster/config.yaml").read_text()
    assert text == (ROOT / "configs/cluster.yaml").read_text()
    assert one("kuberay/cluster", "ConfigMap")["data"]["config.yaml"] == text


@pytest.mark.parametrize("name", [*CLUSTERS, *TRAININGS, *SERVICES])
def test_every_actor_has_a_node(name: str) -> None:
    """Learners fit on the learner's node, env runners elsewhere, the live market on its own."""
    folder = "train" if name in TRAININGS else "cluster"
    settings = _settings(folder, _drivers_environment(name))
    types = {kind: resources for kind, (_, _, resources) in _node_types(name).items()}
    # The driver may come up before any node with a GPU.
    placement = place_learner(settings, cluster_gpus=0)
    assert placement.gpus_per_learner == types["learner"].get("GPU", 0)
    cpus, gpus = placement.cpus_per_learner, placement.gpus_per_learner
    asked = {"CPU": cpus, "GPU": gpus, **placement.resources}
    fitting = [
        kind
        for kind, has in types.items()
        if all(has.get(resource, 0) >= amount for resource, amount in asked.items())
    ]
    assert placement.num_learners == 1
    assert fitting == ["learner"]

    assert types["learner"]["CPU"] == 0, "an env runner would share the learner's node"
    _, most, runner = _node_types(name)["env-runners"]
    assert most * runner["CPU"] >= settings.learning.num_env_runners
    if name not in TRAININGS:
        assert settings.ray.live_market_resource in types["live-market"]
        driver = 0.001
        assert LIVE_SHARE + 4 * SMALL_SHARE + driver <= types["live-market"]["live_market"]


def test_a_stopped_driver_has_time_for_its_checkpoint() -> None:
    """From SIGTERM to SIGKILL, and the pod's grace is longer than that."""
    for name, group in (("kuberay/cluster", "/live-market"), ("kuberay/train", "")):
        (pod,) = [
            pod
            for pod in pod_templates([*_ray_objects(name)])
            if pod.owner.endswith(group) and pod.owner.count("/") == 1 + bool(group)
        ]
        environment = {each["name"]: each.get("value") for each in pod.spec["containers"][0]["env"]}
        wait_s = float(environment["RAY_JOB_STOP_WAIT_TIME_S"])
        assert 3 * CALL_TIMEOUT_S <= wait_s < pod.spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", [*CLUSTERS, *TRAININGS, *SERVICES])
def test_somebody_reaps_what_ray_leaves(name: str) -> None:
    """`ray job stop` waits for each process of a job until it is gone, and a zombie is not."""
    ray = [pod for pod in pod_templates(build(name)) if pod.owner.startswith("Ray")]
    assert len(ray) > 2
    assert all(pod.spec["shareProcessNamespace"] is True for pod in ray)


@pytest.mark.parametrize(("reaps", "gone"), [(False, False), (True, True)])
def test_a_job_whose_dead_are_not_reaped_does_not_end(reaps: bool, gone: bool) -> None:
    """What Ray's job supervisor does, below a first process that reaps nothing, and one that does.

    The shell of the job ends at once by SIGTERM, its command a moment later and as an orphan.
    """
    first = "p = subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
    first += "while os.wait()[0] != p.pid: pass" if reaps else "p.wait()"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    within_s = WAIT_S if gone else 5.0
    done = subprocess.run(
        [*command, f"import os, subprocess, sys\n{first}", _SUPERVISOR, str(within_s)],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no PID namespaces here: {done.stderr.strip()}")
    assert done.stdout.split() == [str(gone)], done.stderr


_SUPERVISOR = """
import os, subprocess, sys, time
from ray.dashboard.modules.job.job_supervisor import psutil
job = subprocess.Popen(
    "sh -c 'trap \\"sleep 0.2; exit\\" TERM; echo; while :; do sleep 0.1; done'; true",
    shell=True, start_new_session=True, stdout=subprocess.PIPE)
job.stdout.readline()
all_of_it = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
for each in all_of_it:
    os.kill(each.pid, 15)
until = time.monotonic() + float(sys.argv[1])
while (alive := psutil.wait_procs(all_of_it, timeout=0)[1]) and time.monotonic() < until:
    time.sleep(0.1)
print(not alive)
"""


def _ray_objects(name: str) -> list[Object]:
    return [one(name, "RayCluster" if name in CLUSTERS else "RayJob")]


def test_the_head_finds_its_state_in_redis() -> None:
    options = one("kuberay/cluster", "RayCluster")["spec"]["gcsFaultToleranceOptions"]
    redis = one("kuberay/cluster", "StatefulSet")
    (port,) = redis["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert options["redisAddress"] == f"{redis['spec']['serviceName']}:{port['containerPort']}"
    (password,) = redis["spec"]["template"]["spec"]["containers"][0]["env"]
    assert options["redisPassword"]["valueFrom"] == password["valueFrom"]


def test_the_versions_of_ray_agree() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for name in (*CLUSTERS, *TRAININGS, *SERVICES):
        assert f"ray[rllib,serve]=={_cluster(name)['spec']['rayVersion']}" in project


def test_training_leaves_its_checkpoint_on_the_claim_of_the_models() -> None:
    job = one("kuberay/train", "RayJob")["spec"]
    assert job["shutdownAfterJobFinishes"] is True
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in head["containers"][0]["volumeMounts"]}
    checkpoints = _settings("train").paths.checkpoints
    assert checkpoints.is_relative_to(Path(mounts["models"]))
    (models,) = [volume for volume in head["volumes"] if volume["name"] == "models"]
    assert models["persistentVolumeClaim"] == {"claimName": "trading-bot-models"}


def test_a_training_that_failed_is_tried_again_some_times() -> None:
    """It goes on from the claim's newest checkpoint; a mistake in its settings must end, though."""
    job = one("kuberay/train", "RayJob")["spec"]
    assert 1 <= job["backoffLimit"] <= 5
    assert "--steps" not in job["entrypoint"], "the settings say how many, for every try the same"


def test_the_budget_of_the_live_market_counts_pods() -> None:
    """Of pods whose owner has no scale, Kubernetes can only count the available ones."""
    budget = one("kuberay/cluster", "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    assert "maxUnavailable" not in budget
    groups = yaml.safe_load((INFRA / "kuberay/cluster/raycluster.yaml").read_text())["spec"]
    names = [group["groupName"] for group in groups["workerGroupSpecs"]]
    assert budget["selector"]["matchLabels"]["ray.io/group"] in names


def _service_arguments(name: str) -> Arguments:
    config = ServeDeploySchema.model_validate(
        yaml.safe_load(one(name, "RayService")["spec"]["serveConfigV2"])
    )
    (app,) = config.applications
    assert app.import_path == f"{application.__module__}:{application.__name__}"
    return Arguments.model_validate(app.args)


@pytest.mark.parametrize("name", SERVICES)
def test_serve_starts_the_application_with_the_clusters_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _service_arguments(name)
    pod = _live_market(name)
    container = pod["containers"][0]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert arguments.config is not None
    assert mounts[str(arguments.config.parent)] == "config"
    file = tmp_path / arguments.config.name
    file.write_text(one(name, "ConfigMap")["data"][arguments.config.name])
    for key, value in _drivers_environment(name).items():
        monkeypatch.setenv(key, value)
    settings = read_settings(arguments.model_copy(update={"config": file}))
    assert mounts[str(settings.paths.state_dir)] == "checkpoints"
    application(arguments)

    stop = container["lifecycle"]["preStop"]["exec"]["command"]
    assert stop[:3] == ["trading", "stop", "--here"]
    options = dict(zip(stop[3::2], stop[4::2], strict=True))
    assert options["--config"] == str(arguments.config)
    assert [options["--set"]] == list(arguments.set)
    assert CLOSE_TIMEOUT_S >= 3 * CALL_TIMEOUT_S
    assert CLOSE_TIMEOUT_S < float(options["--timeout"]) < pod["terminationGracePeriodSeconds"]


def _live_market(name: str) -> Object:
    (pod,) = [each for each in pod_templates(build(name)) if each.owner.endswith("/live-market")]
    return pod.spec


@pytest.mark.parametrize("name", SERVICES)
def test_serve_answers_where_the_service_asks(name: str) -> None:
    service = one(name, "RayService")["spec"]
    http = yaml.safe_load(service["serveConfigV2"])["http_options"]
    (port,) = service["serveService"]["spec"]["ports"]
    assert (http["host"], http["port"]) == ("0.0.0.0", port["port"])
    head = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    named = {each["name"]: each["containerPort"] for each in head["ports"]}
    assert named[port["name"]] == port["port"]  # the operator takes it from the head's container
    assert service["serveService"]["metadata"]["name"] == "paper-trading-bot"
    assert not [each for each in build(name) if each["metadata"]["name"] == "paper-trading-bot"]


@pytest.mark.parametrize("name", SERVICES)
def test_two_clusters_of_one_account_fit_on_a_node(name: str) -> None:
    """The claims are held by one node at a time; so is the lease's lock by one kernel."""
    pod = _live_market(name)
    (together,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert together["topologyKey"] == "kubernetes.io/hostname"
    assert together["labelSelector"]["matchLabels"] == {"ray.io/group": "live-market"}
    claims = [each for each in build(name) if each["kind"] == "PersistentVolumeClaim"]
    assert {tuple(each["spec"]["accessModes"]) for each in claims} == {("ReadWriteOnce",)}
    # Ray's sockets lie below, and must not be those of the other cluster.
    (logs,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "logs"]
    assert logs["subPathExpr"] == "$(POD_NAME)"
    assert "POD_NAME" in {each["name"] for each in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", SERVICES)
def test_an_upgrade_makes_a_second_cluster(name: str) -> None:
    spec = one(name, "RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert "upgradeStrategy" not in spec["rayClusterConfig"]  # refused by the operator there
    assert not [each for each in build(name) if each["kind"] == "RayCluster"]
    budget = one(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget == {"ray.io/group": "live-market"}  # whatever the clusters are called


@pytest.mark.parametrize("name", SERVICES)
def test_head_and_learner_outlive_the_last_checkpoint(name: str) -> None:
    spec = _cluster(name)["spec"]
    groups = {each["groupName"]: each for each in spec["workerGroupSpecs"]}
    for group in (spec["headGroupSpec"], groups["learner"]):
        pod = group["template"]["spec"]
        sleep, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert sleep == "sleep"
        assert float(seconds) < pod["terminationGracePeriodSeconds"]
