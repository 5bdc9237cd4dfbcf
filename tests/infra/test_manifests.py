"""Every manifest builds, fits its schema, and names what exists."""

import datetime as dt
import functools
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.infra.manifests import (
    BUILDS,
    INFRA,
    ROOT,
    SERVICES,
    Object,
    PodTemplate,
    build,
    kubectl,
    milli_cpus,
    one,
    pod_templates,
)
from trading.app.driver import CALL_TIMEOUT_S
from trading.config import Settings, load_settings
from trading.config.loading import environment_names
from trading.feed.running import feed_options
from trading.serving.app import build_api

_OLDEST, _NEWEST = "1.30", "1.37"
_CRDS = ROOT.parent / "shared" / "vendor" / "kuberay"
_FOREIGN = ("ray.io", "monitoring.coreos.com")


def _is_foreign(each: Object) -> bool:
    return str(each["apiVersion"]).startswith(_FOREIGN)


def test_every_kustomization_is_tested() -> None:
    found = {
        str(file.parent.relative_to(INFRA))
        for file in INFRA.rglob("kustomization.yaml")
        if yaml.safe_load(file.read_text())["kind"] == "Kustomization"
    }
    parts = {"configs", "volumes", "deployments", "services", "policies", "statefulsets", "base"}
    assert found == {*BUILDS, "kuberay/policies", *(f"k8s/{part}" for part in parts)}


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
@pytest.mark.parametrize("name", BUILDS)
def test_objects_fit_the_schemas_of_kubernetes(name: str, version: str) -> None:
    for each in build(name):
        if not _is_foreign(each):
            kubernetes_validate.validate(each, version, strict=True)


def test_the_template_of_the_secret_fits_and_is_not_applied() -> None:
    secret = yaml.safe_load((INFRA / "k8s/configs/secrets.yaml").read_text())
    kubernetes_validate.validate(secret, _NEWEST, strict=True)
    assert set(secret["stringData"]) <= set(environment_names())
    assert not any(secret["stringData"].values())
    assert not [each for name in BUILDS for each in build(name) if each["kind"] == "Secret"]


def _strict(schema: Any) -> Any:
    """The OpenAPI schema of a CRD as a JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: _strict(each) for key, each in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict.setdefault("additionalProperties", bool(open_ended))
    return strict


@functools.cache
def _crd_schema(kind: str) -> Any:
    file = _CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip(f"the CRDs of KubeRay are not at {_CRDS}")
    crd = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    return _strict(version["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_ray_objects_fit_the_schemas_of_kuberay(kind: str) -> None:
    schema = _crd_schema(kind)
    validator = jsonschema.Draft202012Validator(schema)
    objects = [each for name in BUILDS for each in build(name) if each["kind"] == kind]
    assert objects
    for each in objects:
        assert each["apiVersion"] == "ray.io/v1"
        validator.validate(each)


def test_a_misspelt_field_of_a_ray_object_is_refused() -> None:
    schema = _crd_schema("RayCluster")
    cluster = one("kuberay/cluster", "RayCluster")
    cluster["spec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(cluster, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", BUILDS)
def test_one_image_entry_reaches_every_container_of_ours(name: str) -> None:
    tag = "0.1.0-cuda" if name.endswith("gpu") else "0.1.0"
    images = [c["image"] for pod in pod_templates(build(name)) for c in pod.containers]
    ours = {image for image in images if image.startswith("paper-trading-bot")}
    assert ours == {f"paper-trading-bot:{tag}"}
    assert all(":" in image and not image.endswith(":latest") for image in images)


def _ports(pod: PodTemplate) -> set[str]:
    return {port["name"] for c in pod.containers for port in c.get("ports", [])}


def _selected(selector: dict[str, str], pod: PodTemplate) -> bool:
    return selector.items() <= pod.labels.items()


@pytest.mark.parametrize("name", BUILDS)
def test_services_name_ports_of_their_pods_and_their_protocol(name: str) -> None:
    objects = build(name)
    pods = pod_templates(objects)
    for service in (each for each in objects if each["kind"] == "Service"):
        selector = service["spec"]["selector"]
        if "ray.io/cluster" in selector:
            chosen = [pod for pod in pods if pod.owner == "RayCluster/trading"]
        else:
            chosen = [pod for pod in pods if _selected(selector, pod)]
        assert chosen, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert port["protocol"] == "TCP"
            assert all(port["targetPort"] in _ports(pod) for pod in chosen)


def _own_claims(objects: list[Object], pod: PodTemplate) -> set[str]:
    """Names of the claims that a StatefulSet makes for each pod."""
    kind, _, name = pod.owner.partition("/")
    return {
        claim["metadata"]["name"]
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
        for claim in each["spec"].get("volumeClaimTemplates", [])
    }


@pytest.mark.parametrize("name", BUILDS)
def test_volumes_are_declared_and_claims_and_settings_exist(name: str) -> None:
    objects = build(name)
    made = {(each["kind"], each["metadata"]["name"]) for each in objects}
    if "train" in name:  # the claim is the trading cluster's
        made |= {(each["kind"], each["metadata"]["name"]) for each in build("k8s/volumes")}
    made.add(("ConfigMap", "kube-root-ca.crt"))
    for pod in pod_templates(objects):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        own = _own_claims(objects, pod)
        assert not own & volumes.keys()
        for container in pod.containers:
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes.keys() | own, pod.owner
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in made
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made


def test_claims_have_the_sizes_of_the_table() -> None:
    claims = {
        each["metadata"]["name"]: each["spec"]["resources"]["requests"]["storage"]
        for each in build("k8s")
        if each["kind"] == "PersistentVolumeClaim"
    }
    assert claims == {
        "trading-bot-models": "10Gi",
        "trading-bot-checkpoints": "50Gi",
        "trading-bot-logs": "20Gi",
    }
    readme = (INFRA / "k8s/README.md").read_text()
    for claim, size in claims.items():
        assert f"| `{claim}` | {size} |" in readme


@pytest.mark.parametrize("page", sorted(INFRA.rglob("*.md")), ids=lambda page: page.parent.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert targets
    for target in targets:
        assert (page.parent / target).exists(), target


def test_old_logs_are_pruned_wherever_their_claim_is_mounted(tmp_path: Path) -> None:
    """The very command, on folders of both ages."""
    pods = [
        pod
        for name in ("k8s", "kuberay/cluster")
        for pod in pod_templates(build(name))
        if "trading-bot-logs" in json.dumps(pod.spec)
    ]
    assert len(pods) == 2
    for number, pod in enumerate(pods):
        folder = tmp_path / str(number)
        for name, days in (("session_old", 20), ("session_new", 3), ("kept", 20)):
            (folder / name / "logs").mkdir(parents=True)
            _make_old(folder / name, days)
        _prune(pod, folder)
        assert {each.name for each in folder.iterdir()} == {"session_new", "kept"}


def test_of_the_logs_of_other_pods_only_old_files_go(tmp_path: Path) -> None:
    """Another cluster's live market may run with a session that began long ago."""
    (pod,) = [
        pod
        for pod in pod_templates(build(SERVICES[0]))
        if "trading-bot-logs" in json.dumps(pod.spec)
    ]
    logs = tmp_path / "pod" / "session_old" / "logs"
    (logs / "empty").mkdir(parents=True)
    for name, days in (
        ("raylet.out", 20),
        ("gcs.log.1", 20),
        ("worker.err", 3),
        ("ports.json", 20),
    ):
        (logs / name).touch()
        _make_old(logs / name, days)
    for folder in (logs / "empty", logs, logs.parent, tmp_path / "pod"):
        _make_old(folder, 20)
    _prune(pod, tmp_path)
    assert {each.name for each in logs.iterdir()} == {"worker.err", "ports.json"}


def _make_old(path: Path, days: int) -> None:
    when = time.time() - days * 86_400
    os.utime(path, (when, when))


def _prune(pod: PodTemplate, folder: Path) -> None:
    """Run the init container's command, its claim being this folder."""
    (prune,) = pod.spec["initContainers"]
    mount = prune["volumeMounts"][0]["mountPath"]
    command = [str(folder) if word == mount else word for word in prune["command"]]
    subprocess.run(command, check=True)


def _bot(name: str = "k8s") -> Object:
    bot: Object = one(name, "Deployment")["spec"]["template"]["spec"]
    return bot


def test_the_bots_settings_are_valid_and_keep_its_state_on_a_claim(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(one("k8s", "ConfigMap")["data"]["config.yaml"])
    container = _bot()["containers"][0]
    up, claim, config, path, *rest = container["args"]
    assert (up, claim) == ("up", "--claim")
    assert (config, path) == ("--config", "/etc/trading/config.yaml")
    assert rest[::2] == ["--set"] * (len(rest) // 2)
    settings = load_settings(file, rest[1::2], {})

    assert settings.serving.host == "0.0.0.0"
    assert settings.serving.port == container["ports"][0]["containerPort"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(settings.paths.state_dir)] == "checkpoints"
    assert settings.paths.checkpoints.is_relative_to(settings.paths.state_dir)
    assert settings.data.source == "simulation"  # starts without a secret


def _sentences(text: str) -> dict[tuple[str, ...], str]:
    """Each setting of a YAML text, by its path, and the comment above it."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment = ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            comment += bare.removeprefix("#")
        elif match := re.match(r"( *)(\w+):(.*)", line):
            depth = len(match[1])
            path = [*((at, key) for at, key in path if at < depth), (depth, match[2])]
            if match[3].strip():
                found[tuple(key for _, key in path)] = comment.strip()
            comment = ""
    return found


def test_the_settings_of_the_first_document_stand_there_with_their_sentences() -> None:
    sentences = _sentences(one("k8s", "ConfigMap")["data"]["config.yaml"])
    variables = {
        *("SYMBOLS", "INITIAL_CAPITAL", "MAX_POSITIONS", "COMMISSION"),
        *("UPDATE_FREQUENCY", "SAVE_FREQUENCY"),
    }
    for path, sentence in sentences.items():
        model: Any = Settings
        for section in path[:-1]:
            model = model.model_fields[section].annotation
        field = model.model_fields[path[-1]]
        assert sentence == field.description, path
        variables.discard((field.json_schema_extra or {}).get("environment"))
    assert not variables


def test_variables_of_the_pod_go_before_the_settings_of_the_file(tmp_path: Path) -> None:
    """`kubectl set env deployment/paper-trading-bot SYMBOLS=SPY`."""
    file = tmp_path / "config.yaml"
    file.write_text(one("k8s", "ConfigMap")["data"]["config.yaml"])
    overrides = _bot()["containers"][0]["args"][5::2]
    assert load_settings(file, overrides, {}).symbols == ("SPY", "QQQ", "IWM")
    assert load_settings(file, overrides, {"SYMBOLS": "SPY"}).symbols == ("SPY",)


def test_live_quotes_need_no_more_than_the_secret(tmp_path: Path) -> None:
    text = one("k8s", "ConfigMap")["data"]["config.yaml"]
    file = tmp_path / "config.yaml"
    file.write_text(text.replace("source: simulation", "source: massive"))
    settings = load_settings(file, environ={"MASSIVE_API_KEY": "key"})
    assert settings.data.source == "massive"
    assert _bot()["containers"][0]["envFrom"] == [
        {"secretRef": {"name": "trading-bot-secrets", "optional": True}}
    ]


def test_probes_ask_endpoints_that_the_application_has() -> None:
    container = _bot()["containers"][0]
    routes = {getattr(route, "path", None) for route in build_api("live", "trading").routes}
    probes = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "liveness", "readiness")
    }
    assert probes == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert set(probes.values()) <= routes


def test_one_account_has_one_pod() -> None:
    deployment = one("k8s", "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")


def test_termination_leaves_time_for_the_last_checkpoint() -> None:
    """The live market and the learner may each take the call's limit before it is written."""
    pod = _bot()
    pause = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    needed = dt.timedelta(seconds=3 * CALL_TIMEOUT_S + pause)
    assert dt.timedelta(seconds=pod["terminationGracePeriodSeconds"]) >= needed


_SYSTEM_OF_KIND = {
    "kube-apiserver": 250,
    "kube-controller-manager": 200,
    "kube-scheduler": 100,
    "etcd": 100,
    "coredns, twice": 200,
    "kindnet": 100,
}
"""Thousandths of a CPU that the system of a kind cluster asks for; minikube's asks for no more."""


def test_requests_leave_room_on_a_node_of_two_cpus() -> None:
    """For the system, the bot, Prometheus and Grafana; else one of them would wait for ever."""
    asked = sum(_SYSTEM_OF_KIND.values())
    for _, _, pod in pod_templates([*build("k8s"), *build("k8s/monitoring")]):
        asked += milli_cpus(pod)
    assert asked <= 2000


def test_the_bot_asks_for_a_gpu_only_in_the_overlay() -> None:
    plain, gpu = (_bot(name)["containers"][0]["resources"] for name in ("k8s", "k8s/overlays/gpu"))
    assert plain["requests"] == {"cpu": "750m", "memory": "4Gi"}
    assert "nvidia.com/gpu" not in plain["limits"]
    assert gpu["limits"]["nvidia.com/gpu"] == "1"
    assert _bot("k8s/overlays/gpu")["tolerations"]


def test_prometheus_scrapes_the_application_and_every_ray_node() -> None:
    (config,) = [
        each for each in build("k8s/monitoring") if each["metadata"]["name"] == "prometheus-config"
    ]
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"]
    }
    kept = jobs["trading-bot"]["relabel_configs"][0]["regex"]
    for name in ("k8s", "kuberay/cluster", *SERVICES):
        services = [each for each in build(name) if each["kind"] == "Service"]
        services += [
            each["spec"]["serveService"] for each in build(name) if each["kind"] == "RayService"
        ]
        named = {
            f"{each['metadata'].get('labels', {}).get('app.kubernetes.io/part-of')};{port['name']}"
            for each in services
            for port in each["spec"]["ports"]
        }
        assert [each for each in named if re.fullmatch(kept, each)]
    kept = jobs["trading-feed"]["relabel_configs"][0]["regex"]
    service = one("k8s/feed", "Service")
    (port,) = service["spec"]["ports"]
    part = service["metadata"]["labels"]["app.kubernetes.io/part-of"]
    assert re.fullmatch(kept, f"{part};{port['name']}")
    ports = set(jobs["ray"]["relabel_configs"][0]["regex"].split("|"))
    head, *workers = [
        pod for pod in pod_templates(build("kuberay/cluster")) if pod.owner.startswith("RayCluster")
    ]
    assert ports <= _ports(head)
    assert all("metrics" in _ports(worker) for worker in workers)


def test_the_pod_monitor_names_ports_of_ray_nodes() -> None:
    file = INFRA / "kuberay/components/podmonitor/podmonitor.yaml"
    monitor = yaml.safe_load(file.read_text())
    ports = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert ports <= set().union(*map(_ports, pod_templates(build("kuberay/cluster"))))


def _feed() -> Object:
    pod: Object = one("k8s/feed", "Deployment")["spec"]["template"]["spec"]
    return pod["containers"][0]


def test_the_feed_listens_where_its_service_and_its_readers_look() -> None:
    container = _feed()
    verb, *rest = container["args"]
    assert verb == "feed" and rest[::2] == ["--set"] * (len(rest) // 2)
    keys = {"MASSIVE_API_KEYS": "one two", "FEED_KEYS": "reader"}
    settings = load_settings(None, rest[1::2], keys)
    options = feed_options(settings)
    assert (options.host, options.keys, options.reader_keys) == (
        "0.0.0.0",
        ("one", "two"),
        ("reader",),
    )
    (port,) = container["ports"]
    service = one("k8s/feed", "Service")
    (served,) = service["spec"]["ports"]
    assert (options.port, port["name"]) == (port["containerPort"], served["targetPort"])
    deployment = one("k8s/feed", "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    url = f"http://{service['metadata']['name']}:{served['port']}"
    (variable,) = _bot_of("k8s/overlays/feed")["env"]
    assert variable == {"name": "FEED_URL", "value": url}
    shown = {"FEED_URL": url, "MASSIVE_API_KEY": "reader"}
    reading = load_settings(None, ["data.source=massive"], shown)
    assert reading.data.massive.rest_address == url


def _bot_of(name: str) -> Object:
    (bot,) = [
        pod
        for pod in pod_templates(build(name))
        if pod.owner.partition("/")[2] == "paper-trading-bot"
    ]
    container: Object = bot.spec["containers"][0]
    return container


def test_probes_of_the_feed_ask_what_does_not_tell_of_the_vendor() -> None:
    """A new process does not mend a key that the vendor refuses."""
    container = _feed()
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert paths == {"/status"}


def test_on_several_nodes_each_pod_has_claims_and_a_strategy_of_its_own() -> None:
    name = "k8s/overlays/nodes"
    objects = build(name)
    kinds = [each["kind"] for each in objects]
    assert "Deployment" not in kinds and "PersistentVolumeClaim" not in kinds
    replicas = one(name, "StatefulSet")
    claims = {
        claim["metadata"]["name"]: claim["spec"]
        for claim in replicas["spec"]["volumeClaimTemplates"]
    }
    for claim in (each for each in build("k8s") if each["kind"] == "PersistentVolumeClaim"):
        own = claims[claim["metadata"]["name"].removeprefix("trading-bot-")]
        assert own == claim["spec"]
    assert set(replicas["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    pod, single = replicas["spec"]["template"]["spec"], _bot()
    assert "affinity" in single and "affinity" not in pod
    (spread,) = pod["topologySpreadConstraints"]
    selected = spread["labelSelector"]["matchLabels"]
    assert selected.items() <= replicas["spec"]["template"]["metadata"]["labels"].items()
    (ours,), (theirs,) = pod["containers"], single["containers"]
    (place,) = ours["env"]
    index = "metadata.labels['apps.kubernetes.io/pod-index']"
    assert place == {"name": "PLACE", "valueFrom": {"fieldRef": {"fieldPath": index}}}
    assert ours["args"] == ["up", "--place=$(PLACE)", *theirs["args"][2:]]
    assert {key: each for key, each in ours.items() if key not in ("args", "env")} == {
        key: each for key, each in theirs.items() if key != "args"
    }
    headless = replicas["spec"]["serviceName"]
    (service,) = [
        each
        for each in objects
        if each["kind"] == "Service" and each["metadata"]["name"] == headless
    ]
    assert service["spec"]["clusterIP"] == "None"
    # Prometheus finds each pod once, by the other Service.
    assert "app.kubernetes.io/part-of" not in service["metadata"]["labels"]


SECOND_BOT = """kubectl create namespace bots
kubectl -n bots create deployment bot-qqq --image=paper-trading-bot:0.1.0
kubectl -n bots set env deployment/bot-qqq SYMBOLS=QQQ"""


def test_the_second_bot_of_three_lines_trades_its_symbol() -> None:
    """The very lines of the page, what kubectl makes of them, and what the image starts."""
    assert SECOND_BOT in (INFRA / "k8s/README.md").read_text()
    _, create, set_variable = (line.split() for line in SECOND_BOT.splitlines())
    made = _kubectl(*create[3:], "--dry-run=client", "-o", "yaml")
    variables = [word for word in set_variable[3:] if word != f"deployment/{create[5]}"]
    bot = yaml.safe_load(_kubectl(*variables, "--local", "-f", "-", "-o", "yaml", given=made))
    assert f"deployment/{bot['metadata']['name']}" in set_variable
    assert bot["spec"]["replicas"] == 1
    (container,) = bot["spec"]["template"]["spec"]["containers"]
    assert container["image"].partition(":")[0] == "paper-trading-bot"
    assert not container.keys() & {"args", "command"}
    image = (ROOT / "Dockerfile").read_text()
    (start,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.MULTILINE)
    command = [*json.loads(start), *json.loads(re.findall(r"^CMD (.*)$", image, re.MULTILINE)[-1])]
    assert command[command.index("trading") + 1] == "up"
    overrides = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    settings = load_settings(None, overrides, environment)
    assert (settings.symbols, settings.data.source) == (("QQQ",), "simulation")


def _kubectl(*words: str, given: str = "") -> str:
    """What the real one prints; it needs no cluster for that."""
    command = [kubectl(), *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
