"""Prometheus as the cluster runs it, but for where it finds its targets."""

import copy
import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.asking import client
from tests.infra.manifests import INFRA
from tests.ports import free_port
from tests.waits import WAIT_S

MONITORING = INFRA / "k8s" / "monitoring"
RULES = MONITORING / "rules"


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where they are not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH: it is in Debian's package prometheus")
    return found


def committed_config() -> dict[str, Any]:
    """The `prometheus.yml` that the cluster mounts."""
    config_map = yaml.safe_load((MONITORING / "prometheus-config.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(config_map["data"]["prometheus.yml"])
    return config


def local_config(targets: dict[str, int]) -> dict[str, Any]:
    """The committed one with the repository's rules, and a port on this machine for each job."""
    config = copy.deepcopy(committed_config())
    config["global"] |= {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["rule_files"] = [str(RULES / "*.yaml")]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [_found_at(jobs[name], port) for name, port in targets.items()]
    return config


def _found_at(job: dict[str, Any], port: int) -> dict[str, Any]:
    kept = {k: v for k, v in job.items() if k not in ("kubernetes_sd_configs", "relabel_configs")}
    return {**kept, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}


class Prometheus:
    """One `prometheus` process; its data and its log are in `folder`."""

    def __init__(self, folder: Path, config: dict[str, Any], *flags: str, **variables: str) -> None:
        folder.mkdir()
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        self._log = folder / "output.log"
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            tool("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            *flags,
        ]
        environment = {**os.environ, **variables}
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def wait_ready(self) -> None:
        """Return once it can be asked; fails when it ended or takes too long."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if client.get(f"{self._url}/-/ready", timeout=10.0).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"prometheus does not answer:\n{self._log.read_text()[-4000:]}")

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer that succeeded."""
        answer = client.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=WAIT_S).json()
        assert answer["status"] == "success", f"{parameters}: {json.dumps(answer)}"
        return answer["data"]

    def values(self, expr: str) -> list[float]:
        """The numbers that `expr` gives now; what is none is left out."""
        result = self.ask("query", query=expr)["result"]
        found = [float(sample["value"][1]) for sample in result]
        return [value for value in found if math.isfinite(value)]

    def close(self) -> None:
        """Make sure that the process is gone."""
        self.process.terminate()
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(WAIT_S)
