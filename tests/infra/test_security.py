"""What every pod of ours must refuse, and whom it may talk to."""

from typing import Any

import pytest

from tests.infra.manifests import BUILDS, Object, PodTemplate, build, pod_templates

_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"

_PODS = [
    pytest.param(pod, id=f"{name}:{pod.owner}")
    for name in BUILDS
    for pod in pod_templates(build(name))
]
_RAY = [
    pytest.param(each, id=f"{name}:{each['kind']}")
    for name in BUILDS
    for each in build(name)
    if each["kind"] in ("RayCluster", "RayJob", "RayService")
]


def _locked(context: Object) -> bool:
    return context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("pod", _PODS)
def test_pods_are_hardened(pod: PodTemplate) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["runAsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
    assert not [volume for volume in pod.spec.get("volumes", []) if "hostPath" in volume]
    for container in pod.containers:
        assert _locked(container["securityContext"]), container["name"]
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert {"cpu", "memory"} <= resources["limits"].keys()
        assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("pod", _PODS)
def test_only_prometheus_is_given_a_token(pod: PodTemplate) -> None:
    asks = pod.owner == "Deployment/prometheus"
    assert pod.spec["automountServiceAccountToken"] is asks
    for container in pod.containers:
        assert _TOKEN not in [each["mountPath"] for each in container.get("volumeMounts", [])]


@pytest.mark.parametrize("pod", _PODS)
def test_what_a_read_only_root_needs_is_writable(pod: PodTemplate) -> None:
    for container in pod.spec["containers"]:
        if not container["image"].startswith("paper-trading-bot"):
            continue
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        for folder in ("/tmp", "/home/trading"):
            assert not mounts[folder].get("readOnly")


@pytest.mark.parametrize("each", _RAY)
def test_ray_asks_for_a_token_and_only_the_autoscaler_for_kubernetes(each: Object) -> None:
    spec = each["spec"]
    spec = spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec))
    assert spec["authOptions"] == {"mode": "token"}
    autoscaler = spec["autoscalerOptions"]
    assert autoscaler["version"] == "v2"
    assert _locked(autoscaler["securityContext"])
    assert _TOKEN in [mount["mountPath"] for mount in autoscaler["volumeMounts"]]
    templates = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    policies = {group["template"]["spec"].get("restartPolicy", "Never") for group in templates}
    assert policies == {"Never"}  # what the autoscaler's second version asks for


def test_credentials_reach_the_live_market_only() -> None:
    holders = {
        pod.owner
        for name in BUILDS
        for pod in pod_templates(build(name))
        for container in pod.containers
        for source in container.get("envFrom", [])
        if source["secretRef"]["name"] == "trading-bot-secrets"
    }
    assert holders == {
        "Deployment/paper-trading-bot",
        "StatefulSet/paper-trading-bot",
        "RayCluster/trading/live-market",
        "RayService/trading/live-market",
    }


def test_the_namespace_enforces_it() -> None:
    (namespace,) = [each for each in build("k8s") if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def _policies(name: str) -> dict[str, Any]:
    return {
        each["metadata"]["name"]: each["spec"]
        for each in build(name)
        if each["kind"] == "NetworkPolicy"
    }


_PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}


def _reaches(rule: Object) -> tuple[set[int], set[str], bool]:
    """The ports, the label values, and whether public addresses are among what a rule allows."""
    ports = {port["port"] for port in rule.get("ports", [])}
    labels: set[str] = set()
    public = "to" not in rule and "from" not in rule
    for peer in rule.get("to", rule.get("from", [])):
        for selector in ("podSelector", "namespaceSelector"):
            labels |= set(peer.get(selector, {}).get("matchLabels", {}).values())
        block = peer.get("ipBlock", {"cidr": ""})
        if block["cidr"] == "0.0.0.0/0":
            assert set(block["except"]) == _PRIVATE
            public = True
    return ports, labels, public


def test_the_bot_reaches_names_and_public_https_and_is_reached_by_prometheus() -> None:
    policy = _policies("k8s")["paper-trading-bot"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [_reaches(rule) for rule in policy["ingress"]] == [({8000}, {"prometheus"}, False)]
    assert [_reaches(rule) for rule in policy["egress"]] == [
        ({53}, {"kube-system"}, False),
        ({8765}, {"trading-feed"}, False),
        ({443}, set(), True),
    ]


def test_the_feed_is_reached_by_bots_and_prometheus_and_alone_shows_the_vendors_key() -> None:
    policy = _policies("k8s/feed")["trading-feed"]
    (feed,) = pod_templates(build("k8s/feed"))
    assert policy["podSelector"]["matchLabels"].items() <= feed.labels.items()
    assert [_reaches(rule) for rule in policy["ingress"]] == [
        ({8765}, {"paper-trading", "prometheus"}, False)
    ]
    assert [_reaches(rule) for rule in policy["egress"]] == [
        ({53}, {"kube-system"}, False),
        ({443}, set(), True),
    ]
    bots = [
        next(each for each in pod_templates(build(name)) if each.owner.endswith(owner))
        for name, owner in (
            ("k8s", "Deployment/paper-trading-bot"),
            ("kuberay/cluster", "/live-market"),
            ("kuberay/overlays/service-cpu-only", "/live-market"),
        )
    ]
    for bot in bots:
        assert bot.labels["app.kubernetes.io/part-of"] == "paper-trading"
    (secret,) = feed.spec["containers"][0]["envFrom"]
    assert secret == {"secretRef": {"name": "trading-feed-secrets"}}


def test_of_the_ray_nodes_only_the_live_market_reaches_outside() -> None:
    policies = _policies("kuberay/cluster")
    live = policies["live-market-to-massive"]
    assert live["podSelector"]["matchLabels"] == {"ray.io/group": "live-market"}
    assert [_reaches(rule) for rule in live["egress"]] == [
        ({443}, set(), True),
        ({8765}, {"trading-feed"}, False),
    ]
    assert not any(_reaches(rule)[2] for rule in policies["ray-nodes"]["egress"])
    head = policies["ray-head-to-api-server"]
    assert head["podSelector"]["matchLabels"] == {"ray.io/node-type": "head"}
    assert [_reaches(rule)[0] for rule in head["egress"]] == [{443, 6443}]
    assert policies["trading-redis"]["egress"] == []
