"""The Helm chart gives what the kustomizations give, with the names and sizes of its values.

`helm` is taken from PATH; `.ci/run` unpacks one.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts.generate_chart import CHART, FEED, FORMS, MONITORING, files, linked
from tests.infra.manifests import ROOT, Object, build
from tests.waits import WAIT_S
from trading.config import load_settings

_KEEP = {"helm.sh/resource-policy": "keep"}
_CASES = [(form, gpu) for form in FORMS for gpu in (False, True)]


@pytest.fixture(scope="session")
def helm() -> str:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on PATH; .ci/run unpacks one")
    return found


def _run(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def _rendered(helm: str, values: dict[str, Any], namespace: str = "trading-bot") -> list[Object]:
    command = ["template", "bot", str(CHART), "--namespace", namespace]
    done = _run(helm, *command, "--set-json", ",".join(_flat(values)))
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def _flat(values: dict[str, Any], path: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{path}{key}.")
        else:
            lines.append(f"{path}{key}={json.dumps(value)}")
    return lines


def _comparable(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without the annotation that only Helm heeds."""
    for each in objects:
        if each["metadata"].get("annotations") == _KEEP:
            del each["metadata"]["annotations"]
    # The content's digest in a name is another one than kustomize's.
    text = yaml.dump(objects, Dumper=yaml.CSafeDumper)
    text = re.sub(r"(prometheus-rules|grafana-dashboards)-[a-z0-9]{10}\b", r"\1-DIGEST", text)
    objects = yaml.load(text, Loader=yaml.CSafeLoader)
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def _without_secrets(objects: dict[tuple[str, str], Object]) -> dict[tuple[str, str], Object]:
    return {key: each for key, each in objects.items() if key[0] != "Secret"}


def test_the_templates_are_those_of_the_manifests() -> None:
    made = files()
    for file, text in made.items():
        assert file.read_text() == text, f"{file}: run scripts/generate_chart.py"
        assert file.is_symlink() == (linked(file) is not None)
    kept = {*made, *CHART.glob("templates/_*"), CHART / "templates/check.yaml"}
    kept.add(CHART / "templates/passwords.yaml")
    found = {*CHART.glob("templates/*"), *(f for f in CHART.glob("files/**/*") if f.is_file())}
    assert found == kept


@pytest.mark.parametrize(("form", "gpu"), _CASES)
def test_the_chart_passes_helms_own_lint(helm: str, form: str, gpu: bool) -> None:
    flags = ["--set", f"form={form},gpu={str(gpu).lower()},monitoring=true"]
    done = _run(helm, "lint", "--strict", str(CHART), *flags)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("form", "gpu"), _CASES)
def test_it_renders_what_the_kustomizations_build(helm: str, form: str, gpu: bool) -> None:
    values = {"form": form, "gpu": gpu, "monitoring": True, "namespace": True}
    rendered = _comparable(_rendered(helm, values))
    monitoring = yaml.dump_all(build(MONITORING), Dumper=yaml.CSafeDumper)
    if gpu:  # One image of the release, Ray's dashboards are made by it too.
        monitoring = re.sub(r"(paper-trading-bot:[\d.]+)$", r"\1-cuda", monitoring, flags=re.M)
    added = yaml.load_all(monitoring, Loader=yaml.CSafeLoader)
    built = _comparable([*build(FORMS[form][gpu]), *added])
    secrets = {name for kind, name in rendered if kind == "Secret"}
    assert secrets == {"trading-grafana", *([] if form == "pod" else ["trading-redis"])}
    assert _without_secrets(rendered) == built


@pytest.mark.parametrize("form", FORMS)
def test_another_name_gives_the_names_of_the_scripts(helm: str, form: str) -> None:
    values = {"form": form, "name": "spy", "namespace": True}
    rendered = _without_secrets(_comparable(_rendered(helm, values, "options")))
    text = yaml.dump_all(build(FORMS[form][0]), Dumper=yaml.CSafeDumper, sort_keys=False)
    script = f". {ROOT}/scripts/names.sh; namespace=options name=spy; set_names; named"
    named = subprocess.run(
        ["bash", "-euc", script], input=text, capture_output=True, text=True, check=True
    ).stdout
    assert rendered == _comparable(list(yaml.load_all(named, Loader=yaml.CSafeLoader)))


def test_values_choose_image_sizes_class_secret_and_policies(helm: str) -> None:
    values = {
        "image": {"repository": "registry.example/bot", "tag": "7"},
        "storage": {"className": "fast", "checkpoints": "80Gi"},
        "secret": "keys",
        "networkPolicy": False,
    }
    objects = _rendered(helm, values)
    assert not [each for each in objects if each["kind"] in ("NetworkPolicy", "Namespace")]
    for each in objects:
        kubernetes_validate.validate(each, "1.37", strict=True)
    claims = {
        each["metadata"]["name"]: each["spec"]
        for each in objects
        if each["kind"] == "PersistentVolumeClaim"
    }
    assert {claim["storageClassName"] for claim in claims.values()} == {"fast"}
    requests = claims["trading-bot-checkpoints"]["resources"]["requests"]
    assert requests == {"storage": "80Gi"}
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    images = {each["image"] for each in (*pod["containers"], *pod["initContainers"])}
    assert images == {"registry.example/bot:7"}
    assert pod["containers"][0]["envFrom"][0]["secretRef"]["name"] == "keys"


@pytest.mark.parametrize("form", FORMS)
def test_settings_are_laid_over_those_of_the_manifests(
    helm: str, form: str, tmp_path: Path
) -> None:
    values = {"form": form, "account": "second", "settings": {"symbols": ["SPY"], "seed": 9}}
    objects = _rendered(helm, values)
    (config,) = [
        each
        for each in objects
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "trading-bot-config"
    ]
    file = tmp_path / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    changed = load_settings(file, environ={})
    (before,) = [
        each["data"]["config.yaml"]
        for each in build(FORMS[form][0])
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "trading-bot-config"
    ]
    file.write_text(before)
    account = {"account.id": "second", "symbols": "SPY", "seed": "9"}
    overrides = [f"{key}={value}" for key, value in account.items()]
    assert changed == load_settings(file, overrides, {})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"form": "cluster"}, "form is cluster; it must be pod, job or service"),
        ({"name": "Bot"}, "name is Bot; it must be 1 to 40 of a-z, 0-9 and -"),
    ],
)
def test_a_wrong_value_is_refused(helm: str, values: dict[str, Any], says: str) -> None:
    done = _run(helm, "template", str(CHART), "--set-json", ",".join(_flat(values)))
    assert done.returncode != 0
    assert says in done.stderr


def test_the_versions_are_those_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    match = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert match
    assert chart["appVersion"] == match[1]


def test_replicas_are_for_strategies_and_no_more_than_these(helm: str) -> None:
    settings = {"strategies": {"index": {"seed": 3}, "careful": {"seed": 4}}}
    deployment = next(
        each
        for each in _rendered(helm, {"replicas": 2, "settings": settings})
        if each["kind"] == "Deployment"
    )
    assert deployment["spec"]["replicas"] == 2
    together = {**settings, "learner": "shared"}
    one_apart = {**settings["strategies"], "frozen": {"learner": "own"}}
    assert _rendered(helm, {"replicas": 2, "settings": {**together, "strategies": one_apart}})
    for values in (
        {"replicas": 2},
        {"replicas": 3, "settings": settings},
        {"replicas": 2, "settings": together},
    ):
        command = ["template", "bot", str(CHART), "--set-json", ",".join(_flat(values))]
        done = _run(helm, *command)
        assert done.returncode != 0 and "one account has one owner" in done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_a_feed_is_the_one_of_the_manifests_and_the_settings_name_it(
    helm: str, form: str, tmp_path: Path
) -> None:
    values = {"form": form, "feed": True, "settings": {"data": {"bar_seconds": 30}}}
    rendered = _without_secrets(_comparable(_rendered(helm, values)))
    feed = _comparable(build(FEED))
    assert {key: rendered[key] for key in feed} == feed
    file = tmp_path / "config.yaml"
    file.write_text(rendered["ConfigMap", "trading-bot-config"]["data"]["config.yaml"])
    shown = {"MASSIVE_API_KEY": "of the feed"}
    settings = load_settings(file, ["data.source=massive"], shown)
    ((_, service),) = [(key, each) for key, each in feed.items() if key[0] == "Service"]
    (port,) = service["spec"]["ports"]
    url = f"http://{service['metadata']['name']}:{port['port']}"
    assert (settings.data.massive.rest_address, settings.data.bar_seconds) == (url, 30)
