"""Whether the nodes of the cluster have the CPUs that a form of the bot asks for."""

import json
from collections.abc import Sequence

from tests.infra.manifests import Object, build, milli, milli_cpus, pod_templates
from tests.kubernetes.bot import kubectl

_OVERLAYS = {
    "pod": ("k8s", 1),
    "kuberay": ("kuberay/overlays/cpu-only", 1),
    # Its upgrade makes a second cluster beside the first.
    "rayservice": ("kuberay/overlays/service-cpu-only", 2),
}


def lacks_room(form: str) -> str:
    """Why its pods would wait for a node for ever; empty when they would not."""
    overlay, clusters = _OVERLAYS[form]
    return too_little(clusters * asked_by(build(overlay)), free_on_nodes())


def asked_by(objects: list[Object]) -> list[int]:
    """Thousandths of a CPU for each of the pods that these objects begin with."""
    asked = []
    for each in objects:
        spec = each.get("spec", {})
        spec = spec.get("rayClusterConfig", spec)
        if "headGroupSpec" not in spec:
            asked += [milli_cpus(pod.spec) for pod in pod_templates([each])]
            continue
        scaler = spec["autoscalerOptions"]["resources"]["requests"]["cpu"]
        asked.append(milli_cpus(spec["headGroupSpec"]["template"]["spec"]) + milli(scaler))
        for group in spec["workerGroupSpecs"]:
            asked += group["minReplicas"] * [milli_cpus(group["template"]["spec"])]
    return asked


def free_on_nodes() -> list[int]:
    """Thousandths of a CPU that nobody has asked for, of each node."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    pods = json.loads(kubectl("get", "pods", "--all-namespaces", "-o", "json"))["items"]
    free = {each["metadata"]["name"]: milli(each["status"]["allocatable"]["cpu"]) for each in nodes}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node in free and pod["status"]["phase"] not in ("Succeeded", "Failed"):
            free[node] -= milli_cpus(pod["spec"])
    return list(free.values())


def too_little(asked: Sequence[int], free: Sequence[int]) -> str:
    """Why pods that ask for these thousandths of a CPU do not fit the nodes; empty when they do."""
    left = list(free)
    for pod in sorted(asked, reverse=True):
        most = max(range(len(left)), key=left.__getitem__, default=None)
        if most is None or left[most] < pod:
            return (
                f"its pods ask for {sum(asked) / 1000:g} CPUs, of which one of "
                f"{pod / 1000:g} has no room on nodes with {[each / 1000 for each in free]} to give"
            )
        left[most] -= pod
    return ""
