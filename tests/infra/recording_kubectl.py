"""Stands where `kubectl` does: writes every call down, and answers what a cluster would.

Objects that are applied are kept, so a second `apply` says `unchanged`. What needs no cluster
(`kustomize`, `--dry-run=client`) the real kubectl does. Commands that are executed in a pod are run
here: Ray's job commands against a job that is a file, shell commands with `/models` in the
recorder's folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonpatch

FOLDER = Path(os.environ["RECORDER_FOLDER"])
REAL = os.environ["RECORDER_REAL_KUBECTL"]
_OBJECTS, _JOB = FOLDER / "objects.json", FOLDER / "job"


def main(arguments: list[str]) -> int:
    """The exit code of this call."""
    if "kustomize" in arguments or "--dry-run=client" in arguments:
        # Without the context: this machine's kubectl need not know it.
        os.execv(
            REAL,
            [
                REAL,
                *(["-n", "trading-bot"] if "-n" in arguments else []),
                *_without_globals(arguments),
            ],
        )
    text = sys.stdin.read() if arguments[-2:] == ["-f", "-"] else ""
    with (FOLDER / "calls.jsonl").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    rest = _without_globals(arguments)
    answer = {
        "config": _context,
        "get": _get,
        "apply": _apply,
        "diff": _diff,
        "delete": _delete,
        "exec": _exec,
        "patch": _patch,
        "scale": _scale,
    }.get(rest[0])
    return answer(rest[1:], text) if answer else 0


def _without_globals(arguments: list[str]) -> list[str]:
    """The call from its verb on: without the context, the namespace."""
    rest = list(arguments)
    while rest[0] in ("-n", "--context"):
        del rest[:2]
    return rest


def _objects() -> dict[str, Any]:
    return json.loads(_OBJECTS.read_text()) if _OBJECTS.exists() else {}


def _changes(text: str) -> list[tuple[str, str, Any]]:
    """Name, what `apply` would say, and content of each object."""
    import yaml  # slow, and most calls do without

    kept, changes = _objects(), []
    for each in yaml.load_all(text, Loader=yaml.CSafeLoader):
        group = each["apiVersion"].partition("/")[0] if "." in each["apiVersion"] else ""
        kind = each["kind"].lower() + (f".{group}" if group else "")
        name = f"{kind}/{each['metadata']['name']}"
        did = "created" if name not in kept else "unchanged"
        changes.append((name, "configured" if kept.get(name, each) != each else did, each))
    return changes


def _context(_: list[str], __: str) -> int:
    print((FOLDER / "context").read_text())
    return 0


def _apply(_: list[str], text: str) -> int:
    changes = _changes(text)
    for name, did, _each in changes:
        print(name, did)
    _OBJECTS.write_text(json.dumps(_objects() | {name: each for name, _did, each in changes}))
    return 0


def _diff(_: list[str], text: str) -> int:
    changed = [each for _name, did, each in _changes(text) if did != "unchanged"]
    for each in changed:
        version = each["apiVersion"].replace("/", ".")
        print(f"diff -u -N LIVE/{version}.{each['kind']}.trading-bot.{each['metadata']['name']}")
    return 1 if changed else 0


def _get(arguments: list[str], _: str) -> int:
    output = arguments[-1]
    if output == "name":
        wanted = arguments[0] if "/" in arguments[0] else "/".join(arguments[:2])
        kind, _slash, name = wanted.partition("/")
        for key in _objects():
            if key.startswith(kind) and key.endswith("/" + name):
                print(key)
    elif "groupName" in output:
        groups = _groups(arguments[0], output)
        if "?(" in output:
            key = output.rpartition(".")[2].rstrip("}")
            print(*(group[key] for group in groups if group["groupName"] == "env-runners"))
        else:
            print(*(group["groupName"] for group in groups))
    elif "rayClusterName" in output:
        print("trading-x7k2p")
    elif "RUNBOOKS_URL" in output or "spec.replicas" in output:
        spec = _objects().get(arguments[0], {}).get("spec", {})
        print(_runbooks(spec) if "RUNBOOKS_URL" in output else spec.get("replicas", ""))
    elif "config" in output:
        print(_objects().get(arguments[0], {}).get("data", {}).get("config.yaml", ""))
    elif "generation" in output:
        print(2)
    elif arguments[0] == "secret":
        data = _objects().get(f"secret/{arguments[1]}", {}).get("data", {})
        one = output.removeprefix("jsonpath={.data").rstrip("}").removeprefix(".")
        print(data.get(one, "") if one else json.dumps(data or ""))
    elif output.startswith("jsonpath"):
        print("trading-head" if "node-type=head" in " ".join(arguments) else "trading-live-market")
    return 0


def _runbooks(spec: Any) -> str:
    """Where the pod of a deployment says that runbooks are; nothing where it does not say so."""
    pod = spec.get("template", {}).get("spec", {})
    told = [each for one in pod.get("containers", []) for each in one.get("env", [])]
    return " ".join(each["value"] for each in told if each["name"] == "RUNBOOKS_URL")


def _scale(arguments: list[str], _: str) -> int:
    kept, wanted = _objects(), arguments[0]
    if wanted in kept:
        kept[wanted]["spec"]["replicas"] = int(arguments[1].partition("=")[2])
        _OBJECTS.write_text(json.dumps(kept))
    return 0


def _groups(wanted: str, path: str) -> list[Any]:
    """The groups of workers of a Ray cluster; of one that the operator made its RayService's."""
    kind, _, name = wanted.partition("/")
    objects = _objects()
    spec = objects.get(f"{kind}.ray.io/{name}", {}).get("spec", {})
    if not spec and kind == "raycluster":
        (spec,) = [
            each["spec"]["rayClusterConfig"]
            for key, each in objects.items()
            if name.startswith(key.rpartition("/")[2] + "-")
        ] or [{}]
    if "rayClusterConfig" in path:
        spec = spec.get("rayClusterConfig", {})
    return spec.get("workerGroupSpecs", [])


def _patch(arguments: list[str], _: str) -> int:
    wanted = arguments[0].replace("/", ".ray.io/", 1)
    kept = _objects()
    if "--type=json" in arguments and wanted in kept:
        kept[wanted] = jsonpatch.apply_patch(
            kept[wanted], json.loads(arguments[arguments.index("-p") + 1])
        )
        _OBJECTS.write_text(json.dumps(kept))
    return 0


def _delete(arguments: list[str], _: str) -> int:
    kept = _objects()
    for wanted in arguments:
        kind, slash, name = wanted.partition("/")
        for key in list(kept):
            if slash and key.startswith(kind) and key.endswith("/" + name):
                del kept[key]
    _OBJECTS.write_text(json.dumps(kept))
    return 0


def _exec(arguments: list[str], _: str) -> int:
    command = arguments[arguments.index("--") + 1 :]
    if command[:2] == ["ray", "job"]:
        return _ray_job(command[2])
    if "promote" in command:
        return 1 if (FOLDER / "refuses").exists() else 0
    if command[:2] == ["python", "-c"]:
        print(json.dumps({"asked": command[-1]}))
        return 0
    local = [
        word.replace("/models", str(FOLDER / "models")).replace("/tmp/ray", str(FOLDER / "ray"))
        for word in command
    ]
    return subprocess.run(local, check=False).returncode


def _ray_job(verb: str) -> int:
    state = _JOB.read_text() if _JOB.exists() else ""
    if verb == "submit":
        if state:
            print("a job of that name exists", file=sys.stderr)
            return 1
        _JOB.write_text("RUNNING")
        return 0
    if not state:
        print("no such job", file=sys.stderr)
        return 1
    if verb == "delete":
        if state == "RUNNING":
            return 1
        _JOB.unlink()
    if verb == "stop":
        _JOB.write_text("STOPPED")
    print(f"Status for job 'paper-trading-bot': {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
