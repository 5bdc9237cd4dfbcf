"""Writes the Helm chart's templates from the kustomizations, so that each manifest is written once.

    python scripts/generate_chart.py

Every object that a kustomization builds becomes part of a template. What the chart's values choose
is put in its place: names, namespace, image, sizes, a condition around it. Contents of ConfigMaps
become files of the chart; those that are files already are linked, so that only a change of a
manifest itself asks for writing the templates again.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "infra" / "helm" / "trading"
HEADER = "# Written by scripts/generate_chart.py from infra/{}; change it there.\n"

FORMS = {
    "pod": ("k8s", "k8s/overlays/gpu"),
    "job": ("kuberay/overlays/cpu-only", "kuberay/overlays/gpu"),
    "service": ("kuberay/overlays/service-cpu-only", "kuberay/overlays/service-gpu"),
}
"""For each form of the chart the kustomizations without and with a GPU."""
MONITORING, FEED = "k8s/monitoring", "k8s/feed"

_NAMES = [
    (r"\btrading-bot-secrets\b", '{{ include "trading.secret" . }}'),
    (
        r"\btrading-bot-(config|models|checkpoints|logs)\b",
        r'{{ include "trading.objects" . }}-\1',
    ),
    (r"\btrading-redis\b", '{{ include "trading.redis" . }}'),
    (r"\bpaper-trading-bot\b", "{{ .Values.name }}"),
]
_OWN = re.compile(r"ray-nodes|ray-head-to-api-server|live-market-to-massive|trading-live-market")
_SIZES = {"trading-bot-models": "models", "trading-bot-checkpoints": "checkpoints"}
_SIZES |= {"trading-bot-logs": "logs"}
_IMAGE = re.compile(r"paper-trading-bot:.*")
_HASHED = re.compile(r"(prometheus-rules|grafana-dashboards)-[a-z0-9]{10}")
_RUNBOOKS = re.compile(r"(- name: RUNBOOKS_URL\n +value: ).*")
_FOLDERS = {"prometheus-rules": "rules", "grafana-dashboards": "dashboards"}
"""Of the monitoring's kustomization, whose files these ConfigMaps hold."""


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def build(name: str) -> list[dict[str, Any]]:
    """The objects of a kustomization below infra/."""
    beside = Path(sys.executable).parent / "kubectl"
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl") or "kubectl"
    command = [kubectl, "kustomize", str(ROOT / "infra" / name)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def files() -> dict[Path, str]:
    """Every generated file of the chart and its content; of a link what it leads to."""
    made: dict[Path, str] = {}
    for form, (plain, gpu) in FORMS.items():
        body = _objects(form, build(plain), build(gpu), made)
        made[CHART / "templates" / f"{form}.yaml"] = (
            HEADER.format(plain) + f'{{{{- if eq .Values.form "{form}" }}}}\n{body}{{{{- end }}}}\n'
        )
    for name in (MONITORING, FEED):
        objects, part = build(name), Path(name).name
        body = _objects(part, objects, objects, made)
        made[CHART / "templates" / f"{part}.yaml"] = (
            HEADER.format(name) + f"{{{{- if .Values.{part} }}}}\n{body}{{{{- end }}}}\n"
        )
    return made


def _objects(
    part: str, plain: list[dict[str, Any]], gpu: list[dict[str, Any]], made: dict[Path, str]
) -> str:
    texts = []
    for without, with_gpu in zip(plain, gpu, strict=True):
        text = _object(part, without, made)
        other = _object(part, with_gpu, made)
        if text != other:
            text = f"{{{{- if .Values.gpu }}}}\n{other}{{{{- else }}}}\n{text}{{{{- end }}}}\n"
        condition = {"NetworkPolicy": ".Values.networkPolicy", "Namespace": ".Values.namespace"}
        if without["kind"] in condition:
            text = f"{{{{- if {condition[without['kind']]} }}}}\n{text}{{{{- end }}}}\n"
        texts.append(text)
    return "".join(texts)


def _object(part: str, each: dict[str, Any], made: dict[Path, str]) -> str:
    """One object as a piece of a template."""
    kind, name = each["kind"], each["metadata"]["name"]
    data = each.get("data") if kind == "ConfigMap" else None
    each = {key: value for key, value in each.items() if key != "data" or data is None}
    each = _renamed(each)
    if kind == "Namespace":
        each["metadata"]["name"] = "{{ .Release.Namespace }}"
    else:
        each["metadata"]["namespace"] = "{{ .Release.Namespace }}"
    if kind in ("RayCluster", "RayService"):
        each["metadata"]["name"] = '{{ include "trading.cluster" . }}'
    if kind == "PersistentVolumeClaim":
        each["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
        if name in _SIZES:
            size = f"{{{{ .Values.storage.{_SIZES[name]} }}}}"
            each["spec"]["resources"]["requests"]["storage"] = size
    text = yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=1000)
    if part == "monitoring":
        text = _RUNBOOKS.sub(r"\1{{ .Values.runbooks }}", text)
    if kind == "Deployment" and part == "pod":
        text = text.replace("\n  replicas: 1\n", "\n  replicas: {{ .Values.replicas }}\n")
    if kind == "PersistentVolumeClaim":
        text += (
            "  {{- with .Values.storage.className }}\n  storageClassName: {{ . }}\n  {{- end }}\n"
        )
    if data is not None:
        text += "data:\n"
        for key, content in data.items():
            hashed = _HASHED.fullmatch(name)
            file = Path("files") / part / (hashed[1] if hashed else name) / key
            made[CHART / file] = content
            source = f'.Files.Get "{file}"'
            if name == "trading-bot-config":
                text += (
                    f'  {key}: {{{{ include "trading.settings" (list . ({source})) | toJson }}}}\n'
                )
            else:
                text += f"  {key}: {{{{ {source} | toJson }}}}\n"
    return "---\n" + text


def _renamed(node: Any, key: str = "") -> Any:
    """The same with every name of ours as an expression of the chart's values."""
    if isinstance(node, list):
        return [_renamed(each) for each in node]
    if isinstance(node, dict):
        return {name: _renamed(each, name) for name, each in node.items()}
    return _renamed_text(node, key) if isinstance(node, str) else node


def _renamed_text(text: str, key: str) -> str:
    if _IMAGE.fullmatch(text):
        return '{{ include "trading.image" . }}'
    whole = {
        ("namespace", "trading-bot"): "{{ .Release.Namespace }}",
        ("ray.io/cluster", "trading"): '{{ include "trading.cluster" . }}',
    }
    if (key, text) in whole:
        return whole[key, text]
    if hashed := _HASHED.fullmatch(text):
        files = f"files/monitoring/{hashed[1]}/*"
        return f'{hashed[1]}-{{{{ include "trading.digest" (list . "{files}") }}}}'
    if key == "name" and _OWN.fullmatch(text):
        return f'{{{{ include "trading.own" . }}}}{text}'
    for pattern, expression in _NAMES:
        text = re.sub(pattern, expression, text)
    return text


def main() -> None:
    """Write them all, and remove what is no longer made."""
    made = files()
    for folder in (CHART / "templates", CHART / "files"):
        for file in folder.rglob("*"):
            if not file.is_file() or file in made:
                continue
            if folder.name == "files" or HEADER[:20] in file.read_text():
                file.unlink()
    for file, text in made.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        if (original := linked(file)) is not None:
            file.unlink(missing_ok=True)
            file.symlink_to(os.path.relpath(original, file.parent))
        else:
            file.write_text(text)


def linked(file: Path) -> Path | None:
    """The file below infra/ that this one of the chart is a link to, None where there is none."""
    original = None
    if file.parent.name in _FOLDERS:
        original = ROOT / "infra" / MONITORING / _FOLDERS[file.parent.name] / file.name
    elif file.parent.name == "trading-bot-config" and file.parent.parent.name != "pod":
        original = ROOT / "infra" / "kuberay" / "cluster" / file.name
    return original


if __name__ == "__main__":
    main()
