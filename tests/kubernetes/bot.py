"""A bot on a real cluster, looked after by the scripts, as its owner would."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.infra.manifests import ROOT

Object = dict[str, Any]
T = TypeVar("T")

START_S = 900.0
"""For pods that are made, pull their image, perhaps compile, and pre-train."""
_POLL_S = 1.0


class Form(NamedTuple):
    """One of the ways in which the bot is deployed."""

    name: str
    options: tuple[str, ...]
    """Of both scripts."""
    container: str
    """Where its commands run."""
    pods: str
    """Selects the pods that hold the account."""


FORMS = {
    "pod": Form("pod", (), "trading", "app=paper-trading-bot"),
    "kuberay": Form("kuberay", ("--kuberay",), "ray-worker", "ray.io/group=live-market"),
    "rayservice": Form("rayservice", ("--rayservice",), "ray-worker", "ray.io/group=live-market"),
}


def kubectl(*arguments: str, check: bool = True) -> str:
    """What kubectl prints for the current context."""
    done = subprocess.run(
        ["kubectl", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def wait_for(what: str, condition: Callable[[], T | None], timeout_s: float) -> T:
    """The first value of `condition` that is neither None nor False."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(_POLL_S)


class Bot:
    """A bot in a namespace of its own."""

    def __init__(self, form: Form, namespace: str) -> None:
        self.form = form
        self.namespace = namespace
        image = os.environ.get("IMAGE")
        self._image = ("--no-build", "--image", image) if image else ()

    def deploy(self, *options: str, check: bool = True) -> str:
        """Run deploy_k8s.sh to its end; what it said."""
        return self._script("deploy_k8s.sh", "--yes", *self._image, *options, check=check)

    def manage(self, *words: str) -> str:
        """Run a command of manage_k8s.sh to its end; what it said."""
        return self._script("manage_k8s.sh", *words)

    def _script(self, name: str, *words: str, check: bool = True) -> str:
        command = [str(ROOT / "scripts" / name), *self.form.options]
        done = subprocess.run(
            [*command, "--namespace", self.namespace, "--timeout", f"{START_S:g}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * START_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, f"{name} {' '.join(words)}: {said}\n{self.seen()}"
        return said

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return kubectl("-n", self.namespace, *arguments, check=check)

    def objects(self, kind: str, *selection: str) -> list[Object]:
        """All of a kind in the namespace; none where the cluster does not know the kind."""
        text = self.kubectl("get", kind, *selection, "-o", "json", check=False)
        return json.loads(text)["items"] if text else []

    def pods(self) -> list[Object]:
        """Those that hold the account and are not about to end."""
        found = self.objects("pods", "-l", self.form.pods)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def get(self, path: str, service: str = "paper-trading-bot:8000") -> str | None:
        """The body of an endpoint, through the API server; None where the answer is no 200."""
        url = f"/api/v1/namespaces/{self.namespace}/services/{service}/proxy{path}"
        done = subprocess.run(
            ["kubectl", "get", "--raw", url], capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else None

    def ready(self) -> bool:
        return self.get("/ready") is not None

    def status(self) -> Object:
        """/status of a bot that is ready."""
        wait_for("/ready", lambda: self.ready() or None, START_S)
        text = wait_for("/status", lambda: self.get("/status"), 60.0)
        found: Object = json.loads(text)
        return found

    def account(self) -> Object:
        found: Object = self.status()["account"]
        return found

    def fetch(self, path: str, file: Path) -> None:
        """Copy a file from beside the bot."""
        (pod, *_) = self.pods()
        command = ["kubectl", "-n", self.namespace, "exec", pod["metadata"]["name"]]
        with file.open("wb") as target:
            subprocess.run(
                [*command, "-c", self.form.container, "--", "cat", path],
                stdout=target,
                timeout=300,
                check=True,
            )

    def seen(self) -> str:
        """What a person would look at first when something went wrong."""
        lines = [
            self.kubectl("get", "pods", "-o", "wide", check=False),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False)[-3000:],
        ]
        for pod in self.objects("pods"):
            name = pod["metadata"]["name"]
            lines.append(
                self.kubectl("logs", name, "--all-containers", "--tail", "20", check=False)
            )
        return "\n".join(lines)
