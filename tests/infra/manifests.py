"""The objects that `kubectl kustomize` makes of this repository's manifests."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.waits import WAIT_S

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"

Object = dict[str, Any]

CLUSTERS = ["kuberay/cluster", "kuberay/overlays/cpu-only", "kuberay/overlays/gpu"]
TRAININGS = ["kuberay/train", "kuberay/overlays/train-cpu-only", "kuberay/overlays/train-gpu"]
SERVICES = ["kuberay/overlays/service-cpu-only", "kuberay/overlays/service-gpu"]
BUILDS = [
    "k8s",
    "k8s/overlays/gpu",
    "k8s/overlays/feed",
    "k8s/overlays/nodes",
    "k8s/feed",
    "k8s/monitoring",
    *CLUSTERS,
    *TRAININGS,
    *SERVICES,
]


def kubectl() -> str:
    """The real one: the environment's own, else the machine's."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("kubectl", path=os.pathsep.join([beside, os.environ["PATH"]]))
    if found is None:
        pytest.fail("kubectl is missing: install the extra `dev`")
    return found


@functools.cache
def _built(folder: Path) -> str:
    command = [kubectl(), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(name: str) -> list[Object]:
    """Every object of the kustomization in `infra/<name>`."""
    return [each for each in yaml.safe_load_all(_built(INFRA / name)) if each]


def one(name: str, kind: str) -> Object:
    """The only object of that kind in a build."""
    (found,) = [each for each in build(name) if each["kind"] == kind]
    return found


class PodTemplate(NamedTuple):
    """A pod as one object describes it."""

    owner: str
    """Kind and name of the object, and the Ray group within it."""
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pod_templates(objects: list[Object]) -> list[PodTemplate]:
    """All pods that these objects make, those inside Ray's own kinds too."""
    return [
        PodTemplate(f"{each['kind']}/{each['metadata']['name']}{group}", labels, spec)
        for each in objects
        for group, labels, spec in _pods_in(each, "")
    ]


def _pods_in(node: Any, group: str) -> Iterator[tuple[str, dict[str, str], Object]]:
    if isinstance(node, list):
        for each in node:
            yield from _pods_in(each, group)
    if not isinstance(node, dict):
        return
    group = f"/{node['groupName']}" if "groupName" in node else group
    template = node.get("template")
    if isinstance(template, dict) and "containers" in template.get("spec", {}):
        yield group, template.get("metadata", {}).get("labels", {}), template["spec"]
    for key, each in node.items():
        if key != "template":
            yield from _pods_in(each, group)


def milli_cpus(pod: Object) -> int:
    """Thousandths of a CPU that a pod asks for; 0 for what asks for none."""
    # Init containers run one after the other, before the others.
    groups = [pod["containers"], *([each] for each in pod.get("initContainers", []))]
    return max(sum(map(_requested, group)) for group in groups)


def _requested(container: Object) -> int:
    return milli(container.get("resources", {}).get("requests", {}).get("cpu", 0))


def milli(quantity: str | float) -> int:
    """Thousandths, of CPUs as Kubernetes writes them: `750m`, `2`, `0.5`."""
    text = str(quantity)
    return int(text[:-1]) if text.endswith("m") else round(float(text) * 1000)
