"""The deployment scripts, run for real against a `kubectl` that records and answers."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate
import pytest

from tests.infra.manifests import ROOT, kubectl, one
from tests.waits import WAIT_S

_HERE = Path(__file__).parent
_SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"]
_CLAIMS = {
    f"persistentvolumeclaim/trading-bot-{name}" for name in ("models", "checkpoints", "logs")
}


class Workplace:
    """A folder whose `kubectl`, `docker` and `kind` record their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "bin"
        self.tools.mkdir()
        self.set_context("kind-lab")
        python = f'#!/bin/sh\nexec {sys.executable} {_HERE / "recording_kubectl.py"} "$@"\n'
        self._tool("kubectl", python)
        for name in ("docker", "kind", "minikube", "k3d"):
            self._tool(name, f'#!/bin/sh\necho {name} "$@" >> {folder}/tools.log\n')

    def _tool(self, name: str, text: str) -> None:
        file = self.tools / name
        file.write_text(text)
        file.chmod(0o755)

    def set_context(self, name: str) -> None:
        (self.folder / "context").write_text(name)

    def run(self, script: str, *arguments: str, code: int = 0) -> str:
        """Run a script of `scripts/` to its end; what it said."""
        environment = {
            **os.environ,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "RECORDER_FOLDER": str(self.folder),
            "RECORDER_REAL_KUBECTL": kubectl(),
        }
        command = [str(ROOT / "scripts" / script), *arguments]
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    def deploy(self, *arguments: str, code: int = 0) -> str:
        return self.run("deploy_k8s.sh", *arguments, code=code)

    def manage(self, *arguments: str, code: int = 0) -> str:
        return self.run("manage_k8s.sh", *arguments, code=code)

    def calls(self) -> list[str]:
        """The recorded calls of kubectl, each as one line."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [" ".join(json.loads(line)) for line in lines]

    def forget(self) -> None:
        (self.folder / "calls.jsonl").unlink(missing_ok=True)

    def tool_calls(self) -> list[str]:
        file = self.folder / "tools.log"
        return file.read_text().splitlines() if file.exists() else []

    def objects(self) -> dict[str, Any]:
        objects: dict[str, Any] = json.loads((self.folder / "objects.json").read_text())
        return objects

    def add_operator(self) -> None:
        crd = {"customresourcedefinition/rayclusters.ray.io": {}, "crd/rayclusters.ray.io": {}}
        (self.folder / "objects.json").write_text(json.dumps(crd))

    def job(self) -> str:
        file = self.folder / "job"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def env_file(tmp_path: Path) -> str:
    file = tmp_path / "secrets.env"
    file.write_text("MASSIVE_API_KEY=topsecret\nSYMBOLS=SPY,QQQ\n")
    return str(file)


def _changing(calls: list[str]) -> list[str]:
    verbs = {"apply", "delete", "scale", "rollout", "patch", "exec", "create"}
    return [call for call in calls if verbs & set(call.split())]


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck is not None, "install the extra `dev`"
    done = subprocess.run(
        [shellcheck, "-x", str(script)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout


def test_deploy_brings_image_secret_and_application(place: Workplace, env_file: str) -> None:
    said = place.deploy("--yes", "--env-file", env_file)

    image = "paper-trading-bot:0.1.0"
    assert place.tool_calls() == [
        f"docker build --build-arg VARIANT=cpu -t {image} {ROOT}",
        f"kind load docker-image {image} --name lab",
    ]
    objects = place.objects()
    secret = objects["secret/trading-bot-secrets"]["data"]
    assert base64.b64decode(secret["MASSIVE_API_KEY"]) == b"topsecret"
    assert "topsecret" not in said
    assert objects.keys() >= _CLAIMS
    pod = objects["deployment/paper-trading-bot"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == image
    assert "-n trading-bot rollout status deployment/paper-trading-bot --timeout=900s" in (
        place.calls()
    )
    assert "port-forward -n trading-bot service/paper-trading-bot 8000" in said
    for each in objects.values():
        kubernetes_validate.validate(each, "1.37", strict=True)


def _runbooks_at(place: Workplace) -> str:
    pod = place.objects()["deployment/prometheus"]["spec"]["template"]["spec"]
    (told,) = [each["value"] for each in pod["containers"][0]["env"]]
    return str(told)


def test_where_runbooks_are_is_said_once(place: Workplace) -> None:
    place.deploy("--yes", "--no-build", "--monitoring")
    assert _runbooks_at(place) == "http://127.0.0.1:3000/d/trading-bot-runbooks"
    page = "https://docs.example/monitoring.html"
    place.deploy("--yes", "--no-build", "--monitoring", "--runbooks", page)
    assert _runbooks_at(place) == page
    place.deploy("--yes", "--no-build", "--monitoring", "--image", "registry.example/bot:7")
    assert _runbooks_at(place) == page
    pod = place.objects()["deployment/grafana"]["spec"]["template"]["spec"]
    assert [each["image"] for each in pod["initContainers"]] == ["registry.example/bot:7"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--runbooks", "https://docs.example"], "--runbooks is for --monitoring"),
        (["--monitoring", "--runbooks", "docs/monitoring.md"], "it must be an address as https:"),
        (
            ["--monitoring", "--runbooks", "https://docs.example#x"],
            "it must be an address as https:",
        ),
    ],
)
def test_a_wrong_address_of_runbooks_is_refused(
    place: Workplace, arguments: list[str], says: str
) -> None:
    assert says in place.deploy("--yes", *arguments, code=2)
    assert place.calls() == []


def test_deploying_again_changes_nothing(place: Workplace, env_file: str) -> None:
    place.deploy("--yes", "--env-file", env_file, "--monitoring")
    before = place.objects()
    place.forget()
    said = place.deploy("--yes", "--env-file", env_file, "--monitoring")
    assert place.objects() == before
    assert "created" not in said
    assert "configured" not in said
    assert not [call for call in place.calls() if "restart" in call]


def test_new_settings_restart_the_bot(place: Workplace) -> None:
    place.deploy("--yes", "--no-build")
    place.deploy("--yes", "--no-build", "--config", str(ROOT / "configs/paper.yaml"))
    text = (ROOT / "configs/paper.yaml").read_text()
    assert place.objects()["configmap/trading-bot-config"]["data"]["config.yaml"] == text
    restarts = [call for call in place.calls() if "rollout restart" in call]
    assert restarts == ["-n trading-bot rollout restart deployment/paper-trading-bot"]


def test_a_new_key_restarts_the_bot(place: Workplace, env_file: str) -> None:
    place.deploy("--yes", "--no-build", "--env-file", env_file)
    assert not [call for call in place.calls() if "restart" in call]
    Path(env_file).write_text("MASSIVE_API_KEY=another\n")
    place.deploy("--yes", "--no-build", "--env-file", env_file)
    assert len([call for call in place.calls() if "rollout restart" in call]) == 1


def test_new_settings_replace_the_live_markets_pod(place: Workplace) -> None:
    """Its ConfigMap's volume would be old for a minute, its environment for ever."""
    place.add_operator()
    place.deploy("--yes", "--kuberay", "--no-build")
    place.forget()
    place.deploy("--yes", "--kuberay", "--no-build", "--config", str(ROOT / "configs/local.yaml"))
    calls = place.calls()
    pod = "delete pods -n trading-bot -l ray.io/cluster=trading,ray.io/group=live-market"
    (stop,) = [index for index, call in enumerate(calls) if "ray job stop" in call]
    (submit,) = [index for index, call in enumerate(calls) if "ray job submit" in call]
    assert stop < calls.index(pod) < submit


def test_a_secret_is_left_alone_without_an_env_file(place: Workplace, env_file: str) -> None:
    place.deploy("--yes", "--no-build", "--env-file", env_file)
    secret = place.objects()["secret/trading-bot-secrets"]
    if (ROOT / ".env").exists():
        pytest.skip("this checkout has an .env file, which is the default")
    said = place.deploy("--yes", "--no-build")
    assert "stays as it is" in said
    assert place.objects()["secret/trading-bot-secrets"] == secret


def test_a_dry_run_changes_nothing_and_shows_no_secret(place: Workplace, env_file: str) -> None:
    arguments = ("--env-file", env_file, "--monitoring", "--gpu", "--model", str(_HERE))
    said = place.deploy("--dry-run", *arguments)
    assert not _changing(place.calls())
    assert not place.tool_calls()
    assert "docker build --build-arg VARIANT=cuda -t paper-trading-bot:0.1.0-cuda" in said
    assert "name: trading-bot-secrets" in said
    assert "topsecret" not in said
    assert base64.b64encode(b"topsecret").decode() not in said


@pytest.mark.parametrize(
    ("context", "loads"),
    [
        ("minikube", "minikube -p minikube image load paper-trading-bot:0.1.0"),
        ("k3d-lab", "k3d image import paper-trading-bot:0.1.0 -c lab"),
        ("cloud", None),
    ],
)
def test_the_image_is_loaded_where_the_context_is_local(
    place: Workplace, context: str, loads: str | None
) -> None:
    place.set_context(context)
    said = place.deploy("--yes")
    assert place.tool_calls()[1:] == ([loads] if loads else [])
    assert ("--push" in said) == (loads is None)


def test_a_pushed_image_is_the_one_that_runs(place: Workplace) -> None:
    place.deploy("--yes", "--push", "--image", "registry.example:5000/bots/trading:7", "--gpu")
    assert place.tool_calls()[1] == "docker push registry.example:5000/bots/trading:7"
    pod = place.objects()["deployment/paper-trading-bot"]["spec"]["template"]["spec"]
    images = {each["image"] for each in (*pod["containers"], *pod["initContainers"])}
    assert images == {"registry.example:5000/bots/trading:7"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_kuberay_needs_its_operator(place: Workplace) -> None:
    said = place.deploy("--yes", "--kuberay", "--no-build", code=1)
    assert "the KubeRay operator is not installed" in said
    assert not _changing(place.calls())


def test_kuberay_starts_the_job_once(place: Workplace) -> None:
    place.add_operator()
    place.deploy("--yes", "--kuberay", "--no-build")
    objects = place.objects()
    assert "raycluster.ray.io/trading" in objects
    assert "deployment/paper-trading-bot" not in objects
    submits = [call for call in place.calls() if "ray job submit" in call]
    assert len(submits) == 1
    assert "exec -i trading-head -c ray-head -- ray job submit" in submits[0]
    assert (
        '--entrypoint-resources {"live_market": 0.001} -- exec python -m trading up' in submits[0]
    )
    password = objects["secret/trading-redis"]["data"]["password"]
    assert len(base64.b64decode(password)) == 48

    place.forget()
    place.deploy("--yes", "--kuberay", "--no-build")
    assert not [call for call in place.calls() if "submit" in call or "job stop" in call]
    assert place.objects()["secret/trading-redis"]["data"]["password"] == password


def test_kuberay_stops_the_job_before_the_cluster_is_replaced(place: Workplace) -> None:
    place.add_operator()
    place.deploy("--yes", "--kuberay", "--no-build")
    place.forget()
    place.deploy("--yes", "--kuberay", "--no-build", "--image", "paper-trading-bot:0.2.0")
    calls = place.calls()
    (stop,) = [index for index, call in enumerate(calls) if "ray job stop" in call]
    applies = [index for index, call in enumerate(calls) if "apply" in call]
    (submit,) = [index for index, call in enumerate(calls) if "ray job submit" in call]
    assert stop < applies[-1] < submit
    assert place.job() == "RUNNING"


def test_a_rayservice_is_upgraded_by_what_its_pods_read_at_their_start(
    place: Workplace, env_file: str
) -> None:
    place.add_operator()
    arguments = ("--yes", "--rayservice", "--no-build")
    place.deploy(*arguments)
    name = "rayservice.ray.io/trading"
    before = place.objects()
    assert "raycluster.ray.io/trading" not in before
    assert "service/paper-trading-bot" not in before
    place.forget()
    place.deploy(*arguments)
    assert place.objects() == before
    assert not [call for call in place.calls() if "job" in call or "delete" in call]

    seen = [before[name]]
    config = ("--config", str(ROOT / "configs/local.yaml"))
    for more in (config, (*config, "--env-file", env_file)):
        place.deploy(*arguments, *more)
        upgraded = place.objects()[name]
        assert upgraded["spec"]["rayClusterConfig"] not in [
            each["spec"]["rayClusterConfig"] for each in seen
        ]
        seen.append(upgraded)
    Path(env_file).write_text("MASSIVE_API_KEY=another\n")
    place.deploy(*arguments, *config, "--env-file", env_file)
    assert place.objects()[name] not in seen


def test_the_forms_of_the_bot_are_not_mixed(place: Workplace) -> None:
    place.add_operator()
    place.deploy("--yes", "--rayservice", "--no-build")
    said = place.deploy("--yes", "--kuberay", "--no-build", code=1)
    assert "manage_k8s.sh --rayservice --yes delete" in said
    place.manage("--rayservice", "--yes", "delete")
    place.deploy("--yes", "--kuberay", "--no-build")
    assert "--kuberay --yes delete" in place.deploy("--yes", "--rayservice", "--no-build", code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--colour"], 2, "unknown option --colour"),
        (["--image"], 2, "--image needs a value"),
        (["--image", "registry.example:5000/trading"], 2, "it must have a tag"),
        (["--timeout", "soon"], 2, "--timeout is soon"),
        (["--env-file", "/nowhere/.env"], 1, "/nowhere/.env is no file"),
        (["--model", "/nowhere"], 1, "there is no /nowhere"),
        (["--namespace", "Über"], 2, "--namespace is Über"),
        (["--name", "-x"], 2, "--name is -x"),
        (["--no-build"], 1, "needs --yes where nobody can be asked"),
    ],
)
def test_deploy_refuses_before_it_changes_anything(
    place: Workplace, arguments: list[str], code: int, says: str
) -> None:
    assert says in place.deploy(*arguments, code=code)
    assert not _changing(place.calls())


@pytest.mark.parametrize("line", ["export A=1", 'A="1"', "A='1'", "A=1\r"])
def test_an_env_file_of_another_dialect_is_refused(place: Workplace, line: str) -> None:
    """kubectl would make the quotes part of the key."""
    file = place.folder / "secrets.env"
    file.write_text(f"MASSIVE_API_KEY=topsecret\n{line}\n")
    said = place.deploy("--yes", "--env-file", str(file), code=1)
    assert f"{file}: line 2: write NAME=value" in said
    assert "topsecret" not in said
    assert not _changing(place.calls())


_POD = "-n trading-bot exec -i deployment/paper-trading-bot -c trading --"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["logs", "-f"], ["-n trading-bot logs deployment/paper-trading-bot -c trading -f"]),
        (["exec", "true"], [f"{_POD} true"]),
        (["exec"], [f"{_POD} bash"]),
        (
            ["stop"],
            [
                "-n trading-bot scale deployment/paper-trading-bot --replicas=0",
                "-n trading-bot wait pods -l app=paper-trading-bot --for=delete --timeout=900s",
            ],
        ),
        (
            ["--context", "lab", "--timeout", "5", "scale", "1"],
            [
                "-n trading-bot --context lab scale deployment/paper-trading-bot --replicas=1",
                "-n trading-bot --context lab rollout status deployment/paper-trading-bot "
                "--timeout=5s",
            ],
        ),
        (
            ["restart"],
            [
                "-n trading-bot rollout restart deployment/paper-trading-bot",
                "-n trading-bot get deployment/paper-trading-bot --ignore-not-found "
                "-o jsonpath={.spec.replicas}",
                "-n trading-bot scale deployment/paper-trading-bot --replicas=1",
                "-n trading-bot rollout status deployment/paper-trading-bot --timeout=900s",
            ],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and len(value) < 3 else None,
)
def test_commands_call_kubectl(place: Workplace, command: list[str], expected: list[str]) -> None:
    place.manage(*command)
    looks = "get statefulset/paper-trading-bot --ignore-not-found -o name"
    assert [call for call in place.calls() if looks not in call] == expected


@pytest.mark.parametrize(("command", "path"), [("metrics", "/metrics"), ("status", "/status")])
@pytest.mark.parametrize("variant", [[], ["--kuberay"], ["--rayservice"]])
def test_endpoints_are_asked_from_inside(
    place: Workplace, command: str, path: str, variant: list[str]
) -> None:
    (place.folder / "job").write_text("RUNNING")
    assert f'{{"asked": "{path}"}}' in place.manage(*variant, command)


def test_kuberay_job_is_stopped_started_and_followed(place: Workplace) -> None:
    place.manage("--kuberay", "start")
    assert place.job() == "RUNNING"
    assert "runs already" in place.manage("--kuberay", "start")
    place.manage("--kuberay", "stop")
    assert place.job() == "STOPPED"
    assert "does not run" in place.manage("--kuberay", "stop")
    place.manage("--kuberay", "restart")
    assert place.job() == "RUNNING"
    place.forget()
    place.manage("--kuberay", "logs", "-f")
    assert place.calls()[-1].endswith(
        "ray job logs --address http://127.0.0.1:8265 paper-trading-bot -f"
    )


def test_a_rayservice_is_suspended_resumed_and_followed(place: Workplace) -> None:
    place.manage("--rayservice", "restart")
    changes = [call for call in place.calls() if " patch " in call or " wait " in call]
    patch = "-n trading-bot patch rayservice/trading --type=merge -p"
    wait = "-n trading-bot wait rayservice/trading"
    assert changes == [
        patch + ' {"spec": {"suspend": true}}',
        wait + " --for=condition=Suspended --timeout=900s",
        patch + ' {"spec": {"suspend": false}}',
        wait + " --for=jsonpath={.status.observedGeneration}=2 --timeout=900s",
        wait + " --for=condition=UpgradeInProgress=false --timeout=900s",
        wait + " --for=condition=Ready --timeout=900s",
    ]
    logs = place.folder / "ray/session_latest/logs"
    logs.mkdir(parents=True)
    (logs / "worker-1.err").write_text("one\ntwo\n")
    assert place.manage("--rayservice", "logs", "-n", "1") == "two\n"
    assert "ray.io/cluster=trading-x7k2p,ray.io/group=live-market" in place.calls()[-2]


def test_scale_keeps_one_owner(place: Workplace) -> None:
    place.deploy("--yes", "--no-build")
    place.forget()
    said = place.manage("scale", "2", code=1)
    assert "one account has one owner" in said and "strategies" in said
    assert not _changing(place.calls())


def test_strategies_are_scaled_to_as_many_replicas(place: Workplace) -> None:
    config = ("--config", str(ROOT / "configs" / "strategies.yaml"))
    place.deploy("--yes", "--no-build", *config)
    replicas = "deployment/paper-trading-bot"
    place.manage("scale", "3")
    assert place.objects()[replicas]["spec"]["replicas"] == 3
    assert "have 3 strategies" in place.manage("scale", "4", code=1)
    for again in (lambda: place.manage("restart"), lambda: place.deploy("--yes", "--no-build")):
        again()
        assert place.objects()[replicas]["spec"]["replicas"] == 3
    place.deploy("--yes", "--no-build", *config)
    place.manage("scale", "1")
    assert place.objects()[replicas]["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("learner: shared\nstrategies: \n  a: {seed: 1}\n  b:\n    seed: 2\n", 1),
        ("strategies:\n  a: {learner: shared}\n  b:\n    learner: shared  # both\n  c:\n", 2),
        ("strategies:\n  a:\n  b: {learner: own}\n  # learner: shared\n\nlearner: shared\n", 2),
        ("strategies:\n  a:\n  b:\n    env: {seed: 1}\nlog_level: INFO\n", 2),
    ],
)
def test_strategies_that_share_a_learner_are_one_replica(
    place: Workplace, text: str, most: int
) -> None:
    config = place.folder / "shared.yaml"
    config.write_text(text)
    place.deploy("--yes", "--no-build", "--config", str(config))
    if most > 1:
        place.manage("scale", str(most))
    said = place.manage("scale", str(most + 1), code=1)
    assert f"have {most} strategies to claim, all that share a learner as one" in said


def test_a_model_is_for_the_strategy_that_is_named(place: Workplace) -> None:
    (place.folder / "models").mkdir()
    weights = place.folder / "weights.pt"
    weights.write_bytes(b"weights")
    place.manage("--strategy", "index", "update-model", str(weights))
    assert place.calls()[-1].endswith("--set strategy=index")


def test_scale_bounds_the_env_runners_of_a_ray_cluster(place: Workplace) -> None:
    place.add_operator()
    place.deploy("--yes", "--kuberay", "--no-build")
    place.manage("--kuberay", "scale", "3")
    lines = (place.folder / "calls.jsonl").read_text().splitlines()
    patch = json.loads(lines[-1])
    cluster = one("kuberay/overlays/cpu-only", "RayCluster")
    patched = jsonpatch.apply_patch(cluster, json.loads(patch[patch.index("-p") + 1]))
    most = {each["groupName"]: each["maxReplicas"] for each in patched["spec"]["workerGroupSpecs"]}
    assert most == {"live-market": 1, "learner": 1, "env-runners": 3}


@pytest.mark.parametrize("variant", [[], ["--kuberay"], ["--rayservice"]])
def test_delete_asks_and_keeps_the_account(place: Workplace, variant: list[str]) -> None:
    place.add_operator()
    place.deploy("--yes", "--no-build", *variant)
    place.forget()
    assert "needs --yes" in place.manage(*variant, "delete", code=1)
    assert not place.calls()

    place.manage(*variant, "--yes", "delete")
    left = place.objects().keys()
    kept = {"namespace/trading-bot", *_CLAIMS}
    if variant:
        kept.add("secret/trading-redis")
    assert {each for each in left if "crd" not in each and "custom" not in each} == kept
    place.manage(*variant, "--yes", "--with-data", "delete")
    assert "namespace/trading-bot" not in place.objects()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-000000123"
    (folder / "learner").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "learner" / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    return folder


def _uploaded(place: Workplace) -> list[Path]:
    return sorted((place.folder / "models").iterdir())


@pytest.mark.parametrize("variant", [[], ["--kuberay"], ["--rayservice"]])
def test_update_model_uploads_all_of_it_and_promotes_it(
    place: Workplace, checkpoint: Path, variant: list[str]
) -> None:
    (place.folder / "models").mkdir()
    place.manage(*variant, "update-model", str(checkpoint))
    (model,) = _uploaded(place)
    assert model.name.startswith("step-000000123-")
    sent = (checkpoint / "learner/weights.bin").read_bytes()
    assert (model / "learner/weights.bin").read_bytes() == sent
    assert f"-m trading checkpoints promote /models/{model.name} " in place.calls()[-1]


def test_update_model_takes_an_archive(place: Workplace, checkpoint: Path) -> None:
    (place.folder / "models").mkdir()
    archive = shutil.make_archive(str(checkpoint), "gztar", checkpoint)
    place.manage("update-model", archive)
    (model,) = _uploaded(place)
    assert (model / "manifest.json").read_text() == "{}"


def test_a_refused_model_leaves_nothing(place: Workplace, checkpoint: Path) -> None:
    (place.folder / "models").mkdir()
    (place.folder / "refuses").touch()
    assert "was refused" in place.manage("update-model", str(checkpoint), code=1)
    assert not _uploaded(place)


def test_what_is_no_checkpoint_is_not_uploaded(place: Workplace, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no archive")
    assert "neither a folder nor a .tar.gz" in place.manage("update-model", str(text), code=1)
    assert "there is no" in place.manage("update-model", "/nowhere", code=1)
    assert [each for each in place.calls() if " get " not in each] == []


def _until_command(call: list[str]) -> list[str]:
    """A call without what is executed in a pod, of which kubectl knows nothing."""
    return [*call[: call.index("--")], "--", "true"] if "--" in call else call


def test_the_real_kubectl_understands_every_call(
    place: Workplace, env_file: str, checkpoint: Path
) -> None:
    """Each call gets past kubectl's own parsing: it fails at the server that is not there."""
    place.add_operator()
    (place.folder / "models").mkdir()
    place.deploy("--yes", "--no-build", "--env-file", env_file, "--monitoring")
    place.deploy("--yes", "--no-build", "--kuberay", "--context", "kind-lab")
    place.deploy("--yes", "--no-build", "--kuberay", "--image", "paper-trading-bot:2")
    (place.folder / "ray/session_latest/logs").mkdir(parents=True)
    (place.folder / "ray/session_latest/logs/worker-1.err").touch()
    for variant in ([], ["--kuberay"], ["--rayservice"]):
        if variant == ["--rayservice"]:
            place.add_operator()
            place.deploy("--yes", "--no-build", *variant)
        place.manage(*variant, "status")
        place.manage(*variant, "logs")
        place.manage(*variant, "scale", "1")
        place.manage(*variant, "restart")
        place.manage(*variant, "port-forward")
        place.manage(*variant, "exec", "true")
        place.manage(*variant, "update-model", str(checkpoint))
        place.manage(*variant, "--yes", "--with-data", "delete")
    nowhere = place.folder / "kubeconfig"
    nowhere.write_text(
        "{apiVersion: v1, kind: Config, current-context: kind-lab,"
        " clusters: [{name: lab, cluster: {server: 'http://127.0.0.1:1'}}],"
        " contexts: [{name: kind-lab, context: {cluster: lab}}]}"
    )
    lines = (place.folder / "calls.jsonl").read_text().splitlines()
    shapes = {json.dumps(_until_command(json.loads(line))) for line in lines}
    assert len(shapes) > 30
    for line in sorted(shapes):
        done = subprocess.run(
            [kubectl(), "--kubeconfig", str(nowhere), *json.loads(line)],
            input="{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        refused = "connection refused" in done.stderr or "was refused" in done.stderr
        assert refused or done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("variant", [[], ["--kuberay"], ["--rayservice"]])
def test_a_second_bot_shares_nothing_with_the_first(
    place: Workplace, env_file: str, variant: list[str]
) -> None:
    place.add_operator()
    place.deploy("--yes", "--no-build", *variant)
    first = place.objects()
    other = ("--namespace", "options", "--name", "spy")
    place.deploy("--yes", "--no-build", "--env-file", env_file, *variant, *other)
    both = place.objects()
    second = {name: each for name, each in both.items() if first.get(name) != each}
    assert not [name for name in second if name in first], "an object of the first was changed"
    assert "secret/spy-secrets" in second
    for each in second.values():
        if each["kind"] == "Namespace":
            assert each["metadata"]["name"] == "options"
        else:
            assert each["metadata"]["namespace"] == "options"
    text = json.dumps(list(second.values()))
    rest = text.replace("paper-trading-bot:0.1.0", "").replace("trading-bot/settings", "")
    assert not re.findall(r'"(?:paper-)?trading-bot[^"]*|trading-redis|"trading-live', rest)
    names = {each["metadata"]["name"] for each in second.values()}
    wanted = set(re.findall(r'"(?:claimName|redisAddress)": "([^":]+)', text))
    wanted |= {each["name"] for each in _named(list(second.values()), ("configMap", "secretRef"))}
    made = {"kube-root-ca.crt"}  # by Kubernetes
    assert wanted - made <= names
    selectors = [each["spec"]["selector"] for each in second.values() if each["kind"] == "Service"]
    assert not [s for s in selectors if "paper-trading-bot" in s.values()]
    place.forget()
    place.manage(*variant, *other, "--yes", "--with-data", "delete")
    assert all(call.startswith("-n options") for call in place.calls())
    assert place.objects().keys() == first.keys()


def _named(node: Any, kinds: tuple[str, ...]) -> list[Any]:
    if isinstance(node, list):
        return [found for each in node for found in _named(each, kinds)]
    if not isinstance(node, dict):
        return []
    here = [node[kind] for kind in kinds if kind in node]
    return here + [found for each in node.values() for found in _named(each, kinds)]


@pytest.mark.parametrize("variant", ["--kuberay", "--rayservice"])
def test_an_upgrade_keeps_the_bound_of_env_runners(place: Workplace, variant: str) -> None:
    place.add_operator()
    place.deploy("--yes", "--no-build", variant)
    place.manage(variant, "scale", "3")
    name = next(name for name in place.objects() if name.endswith(".ray.io/trading"))
    place.deploy("--yes", "--no-build", variant, "--image", "paper-trading-bot:0.2.0")
    spec = place.objects()[name]["spec"]
    groups = spec.get("rayClusterConfig", spec)["workerGroupSpecs"]
    assert groups[2]["template"]["spec"]["containers"][0]["image"] == "paper-trading-bot:0.2.0"
    most = {each["groupName"]: each["maxReplicas"] for each in groups}
    assert most == {"live-market": 1, "learner": 1, "env-runners": 3}


def test_env_runners_that_the_autoscaler_made_are_no_change_of_the_cluster(
    place: Workplace,
) -> None:
    place.add_operator()
    place.deploy("--yes", "--no-build", "--kuberay")
    objects = place.objects()
    objects["raycluster.ray.io/trading"]["spec"]["workerGroupSpecs"][2]["replicas"] = 2
    (place.folder / "objects.json").write_text(json.dumps(objects))
    place.forget()
    place.deploy("--yes", "--no-build", "--kuberay")
    assert place.objects() == objects
    assert not [call for call in place.calls() if "job stop" in call or "delete" in call]


@pytest.mark.parametrize(
    ("variant", "rest"),
    [
        ([], "wait pods -l app=paper-trading-bot --for=delete"),
        (["--kuberay"], "ray job stop"),
        (["--rayservice"], "wait rayservice/trading --for=condition=Suspended"),
    ],
)
def test_nothing_is_deleted_before_the_account_is_at_rest(
    place: Workplace, variant: list[str], rest: str
) -> None:
    place.add_operator()
    place.deploy("--yes", "--no-build", *variant)
    place.forget()
    place.manage(*variant, "--yes", "delete")
    calls = place.calls()
    at_rest = next(index for index, call in enumerate(calls) if rest in call)
    deletes = [index for index, call in enumerate(calls) if " delete " in f"{call} "]
    assert at_rest < min(index for index in deletes if "--for=delete" not in calls[index])
    pods_gone = "wait pods -l app=paper-trading-bot --for=delete"
    redis = [index for index, call in enumerate(calls) if "statefulset/trading-redis" in call]
    assert not redis or calls.index(f"-n trading-bot {pods_gone} --timeout=900s") < redis[0]


def test_port_forward_opens_what_is_deployed(place: Workplace) -> None:
    bot = "-n trading-bot port-forward service/paper-trading-bot"
    place.deploy("--yes", "--no-build")
    place.forget()
    place.manage("port-forward", "9000")
    assert [call for call in place.calls() if "port-forward" in call] == [f"{bot} 9000:8000"]
    place.deploy("--yes", "--no-build", "--monitoring")
    place.forget()
    place.manage("port-forward")
    assert sorted(call for call in place.calls() if "port-forward" in call) == [
        "-n trading-bot port-forward service/grafana 3000",
        f"{bot} 8000:8000",
        "-n trading-bot port-forward service/prometheus 9090",
    ]


def test_update_model_takes_a_file_of_weights(place: Workplace, tmp_path: Path) -> None:
    (place.folder / "models").mkdir()
    file = tmp_path / "weights.pt"
    file.write_bytes(bytes(range(256)))
    place.manage("update-model", str(file))
    (model,) = _uploaded(place)
    assert re.fullmatch(r"weights-\d{8}T\d{6}Z\.pt", model.name)
    assert model.read_bytes() == file.read_bytes()
    assert f"checkpoints promote /models/{model.name} " in place.calls()[-1]


@pytest.mark.parametrize("variant", [[], ["--kuberay"], ["--rayservice"]])
def test_a_feed_keeps_the_vendors_key_from_the_bot(
    place: Workplace, env_file: str, variant: list[str]
) -> None:
    place.add_operator()
    arguments = ("--yes", "--no-build", "--feed", "--env-file", env_file, *variant)
    said = place.deploy(*arguments)
    objects = place.objects()
    bot, feed = (
        {name: base64.b64decode(value).decode() for name, value in each["data"].items()}
        for each in (objects["secret/trading-bot-secrets"], objects["secret/trading-feed-secrets"])
    )
    assert feed == {"MASSIVE_API_KEY": "topsecret", "FEED_KEYS": bot["MASSIVE_API_KEY"]}
    assert bot.keys() == {"MASSIVE_API_KEY", "SYMBOLS"} and len(feed["FEED_KEYS"]) == 48
    assert not {*feed.values()} & {*said.split()}
    url = json.dumps({"name": "FEED_URL", "value": "http://trading-feed:8765"})
    form = {"--kuberay": "raycluster.ray.io/trading", "--rayservice": "rayservice.ray.io/trading"}
    owner = form[variant[0]] if variant else "deployment/paper-trading-bot"
    assert url in json.dumps(objects[owner])
    assert {"deployment/trading-feed", "service/trading-feed"} <= objects.keys()
    assert "rollout status deployment/trading-feed -n trading-bot --timeout=900s" in place.calls()
    place.deploy(*arguments)
    assert place.objects() == objects
    assert not [call for call in place.calls() if "rollout restart" in call]
    Path(env_file).write_text("MASSIVE_API_KEYS=one two\n")
    place.deploy(*arguments)
    restarts = [call for call in place.calls() if "rollout restart deployment/trading-feed" in call]
    assert len(restarts) == 1


def test_a_feed_needs_the_vendors_key(place: Workplace, env_file: str) -> None:
    Path(env_file).write_text("SYMBOLS=SPY\n")
    arguments = ("--yes", "--no-build", "--feed", "--env-file", env_file)
    assert "neither MASSIVE_API_KEY nor MASSIVE_API_KEYS" in place.deploy(*arguments, code=1)
    assert not _changing(place.calls())


def test_replicas_on_several_nodes_are_deployed_scaled_and_deleted(
    place: Workplace, env_file: str
) -> None:
    config = ("--config", str(ROOT / "configs" / "strategies.yaml"))
    arguments = ("--yes", "--no-build", "--nodes", "--feed", "--env-file", env_file, *config)
    place.deploy(*arguments)
    bot = place.objects()["statefulset/paper-trading-bot"]
    assert "deployment/paper-trading-bot" not in place.objects()
    (container,) = bot["spec"]["template"]["spec"]["containers"]
    assert {each["name"] for each in container["env"]} == {"PLACE", "FEED_URL"}
    place.manage("scale", "3")
    assert place.objects()["statefulset/paper-trading-bot"]["spec"]["replicas"] == 3
    assert "have 3 strategies" in place.manage("scale", "4", code=1)
    place.deploy(*arguments)
    assert place.objects()["statefulset/paper-trading-bot"]["spec"]["replicas"] == 3
    assert "deploy with --nodes" in place.deploy("--yes", "--no-build", code=1)
    place.forget()
    place.manage("exec", "true")
    assert place.calls()[-1].split()[:5] == [
        *("-n", "trading-bot", "exec", "-i", "statefulset/paper-trading-bot"),
    ]
    place.manage("--yes", "--with-data", "delete")
    assert "statefulset/paper-trading-bot" not in place.objects()
    assert [call for call in place.calls() if "persistentvolumeclaims -l" in call] == [
        "-n trading-bot delete persistentvolumeclaims -l app.kubernetes.io/name=paper-trading-bot "
        "--ignore-not-found --timeout=900s"
    ]
