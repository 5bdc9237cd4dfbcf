"""An upgrade of a RayService: two clusters share the account's folder, one of them trades."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from tests.e2e.application import ROOT, environment
from tests.e2e.ray_nodes import Cluster, why_no_nodes
from tests.ports import free_port
from tests.waits import STOP_S, WAIT_S
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
from trading.execution.lease import holder_of
from trading.execution.portfolio import Account
from trading.learning.champion.store import AccountChampion, ChampionStore
from trading.learning.checkpoints import CheckpointStore

NO_NODES = why_no_nodes()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(NO_NODES is not None, reason=str(NO_NODES)),
]

SETTINGS = (
    "symbols=SPY",
    "ray.live_market_resource=live_market",
    "learning.pretrain_steps=1024",
    "learning.update_frequency=6",
    "learning.save_frequency=12",
)
"""An endpoint that is dark refuses, or says 503; one that is only slow waits for the processor."""
T = TypeVar("T")


class Service:
    """The application on a cluster of its own: a head, and a node for the live market."""

    def __init__(self, folder: Path, state: Path, number: int) -> None:
        self.name = f"trading-{number}"
        self.journal = state / "journal-paper.sqlite"
        self._settings = [f"paths.state_dir={state}", *SETTINGS]
        self._port = free_port()
        folder.mkdir()
        self.cluster = Cluster(folder, name=self.name, ip=f"127.0.{number}.1")
        try:
            self.cluster.start_head()
            self.cluster.start_worker(
                "live-market",
                f"127.0.{number}.2",
                "--num-cpus=0",
                '--resources={"live_market": 1}',
            )
            self.deploy()
        except BaseException:
            self.close()
            raise

    def deploy(self, *settings: str) -> None:
        """Start the application, or bring it up to date, as KubeRay's operator does."""
        arguments = {
            "set": [*self._settings, *settings],
            "live_market_resource": "live_market",
        }
        self.cluster.deploy(
            {
                "proxy_location": "EveryNode",
                "http_options": {"host": "127.0.0.1", "port": self._port},
                "applications": [
                    {
                        "name": "trading",
                        "route_prefix": "/",
                        "import_path": "trading.serving.entry:application",
                        "args": arguments,
                    }
                ],
            }
        )

    def close(self) -> None:
        self.cluster.close()

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}{path}", timeout=WAIT_S)
        except httpx.HTTPError:
            return None

    def answers(self, path: str) -> bool:
        response = self.get(path)
        return response is not None and response.status_code == 200

    def status(self) -> dict[str, Any]:
        def answered() -> dict[str, Any] | None:
            response = self.get("/status")
            return response.json() if response is not None and response.is_success else None

        return self.wait("an answer of /status", answered)

    def wait_running(self) -> None:
        """Until the operator would send it what the outside asks."""

        def running() -> bool | None:
            found = self.cluster.application("trading")
            assert found.get("status") != "DEPLOY_FAILED", found["message"]
            return found.get("status") == "RUNNING" or None

        self.wait("RUNNING", running)
        self.wait("healthy", lambda: self.answers("/health") or None)

    def wait_ready(self) -> None:
        self.wait("ready", lambda: self.answers("/ready") or None)

    def wait(self, what: str, probe: Callable[[], T | None]) -> T:
        try:
            answer: T = self.cluster.wait(what, probe)
        except AssertionError as error:
            response = self.get("/status")
            said = response.text[:3000] if response is not None else "no answer"
            found = self.cluster.application("trading")
            raise AssertionError(f"{error}\n{self.name}: {said}\n{found}") from None
        return answer

    def trading(self, *command: str) -> str:
        """A command as the pod's preStop hook runs it, and what it said."""
        overrides = [each for key in self._settings for each in ("--set", key)]
        done = subprocess.run(
            [sys.executable, "-m", "trading", *command, *overrides],
            cwd=ROOT,
            env=environment(RAY_CLUSTER_NAME=self.name),
            capture_output=True,
            text=True,
            timeout=STOP_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def process(self, name: str) -> int:
        """Id of the only process of the cluster that Ray calls so."""
        found = [
            process
            for process in self.cluster.processes()
            if name in Path(f"/proc/{process}/cmdline").read_text()
        ]
        assert len(found) == 1, found
        return found[0]

    def other_process(self, before: int) -> bool | None:
        """Whether a live market other than that process answers; None until then."""
        return self.status().get("process") not in (None, before) or None

    def open_files(self) -> set[str]:
        """Names of the files of the account's folder that any process of the cluster has open."""
        names = set()
        for process in self.cluster.processes():
            with suppress(OSError):
                for link in Path(f"/proc/{process}/fd").iterdir():
                    with suppress(OSError):
                        file = Path(os.readlink(link))
                        if file.is_relative_to(self.journal.parent):
                            names.add(str(file.relative_to(self.journal.parent)))
        return names


class Moment(NamedTuple):
    """What the clusters' endpoints answered at one moment, and who had the journal open."""

    said: dict[tuple[str, str], str]
    """`ok`, or what the answer was, by cluster and path."""
    writing: set[str]

    def good(self, path: str) -> set[str]:
        """Clusters whose answer was 200."""
        return {name for (name, at), answer in self.said.items() if at == path and answer == "ok"}


class Watch:
    """Asks all the time, on a thread of its own, until closed."""

    def __init__(self, *services: Service) -> None:
        self._services = services
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.moments: list[Moment] = []
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(STOP_S)
        assert not self._thread.is_alive()

    def assert_hand_over(self, first: Service, second: Service) -> None:
        """The endpoints were never dark, never were two ready, and never did two write."""
        assert not [at.said for at in self.moments if not at.good("/health")]
        assert not [at.said for at in self.moments if len(at.good("/ready")) > 1]
        assert not [at.writing for at in self.moments if len(at.writing) > 1]
        assert self.moments[0].good("/ready") == {first.name}
        assert self.moments[-1].good("/ready") == {second.name}

    def _run(self) -> None:
        questions = [(each, path) for each in self._services for path in ("/health", "/ready")]
        with ThreadPoolExecutor(len(questions)) as pool:
            while not self._stop.wait(0.2):
                answers = list(pool.map(lambda question: question[0].get(question[1]), questions))
                said = {
                    (service.name, path): _brief(answer)
                    for (service, path), answer in zip(questions, answers, strict=True)
                }
                writing = {
                    each.name for each in self._services if each.journal.name in each.open_files()
                }
                self.moments.append(Moment(said, writing))


def _brief(answer: httpx.Response | None) -> str:
    if answer is None:
        return "no answer"
    return "ok" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


class Services:
    """Clusters that share one account: one that trades and one that stands by."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._started = 0
        self._running: list[Service] = []

    def trading(self) -> Service:
        """The cluster that trades."""
        if not self._running:
            self._start().wait_ready()
        return self._running[0]

    def pair(self) -> tuple[Service, Service]:
        """The cluster that trades, and its successor, which is as the operator wants it."""
        first = self.trading()
        second = self._running[1] if len(self._running) > 1 else self._start()
        assert_stands_by(second, first)
        return first, second

    def succeed(self) -> None:
        """Count the successor as the one that trades, after the other one's end."""
        self._running.pop(0)

    def _start(self) -> Service:
        self._started += 1
        folder = self._folder / f"cluster-{self._started}"
        service = Service(folder, self._folder / "state", self._started)
        self._running.append(self._stack.enter_context(closing(service)))
        service.wait_running()
        return service


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(tmp_path_factory.mktemp("handover"), stack)


def assert_stands_by(second: Service, first: Service) -> None:
    ready, metrics = second.get("/ready"), second.get("/metrics")
    assert ready is not None and ready.status_code == 503
    (reason,) = ready.json()["reasons"]
    holder = holder_of(first.journal)
    assert holder is not None and holder.cluster == first.name
    assert reason == f"standby: the account is traded by {holder}"
    assert second.status()["phase"] == "standby"
    assert metrics is not None and "trading_bot_ready 0.0" in metrics.text
    assert "trading_bot_lease_held 0.0" in metrics.text
    assert second.open_files() <= {"journal-paper.sqlite.lease"}


def events(journal: Path) -> list[Any]:
    with Journal(journal, read_only=True) as history:
        return list(history.events())


def decisions(journal: Path) -> int:
    return sum(isinstance(event, DecisionMade) for event in events(journal))


class Left(NamedTuple):
    """What a cluster leaves in the account's folder."""

    events: list[Any]
    champion: int
    checkpoint: str

    @classmethod
    def by(cls, service: Service) -> "Left":
        checkpoints = service.journal.parent / "checkpoints"
        latest = CheckpointStore(checkpoints, 5).latest()
        assert latest is not None
        with Journal(service.journal, read_only=True) as journal:
            standing = AccountChampion.of(journal.fold())
        news = ChampionStore(checkpoints, 5).news_for(standing)
        champion = standing.champion if news is None else news.champion
        return cls(events(service.journal), champion, latest[0].name)


def assert_goes_on(journal: Path, left: Left) -> None:
    """What was journalled stays; what follows repeats nothing, and begins with that champion."""
    with Journal(journal, read_only=True) as history:
        after = list(history.events())
    before = len(left.events)
    assert after[:before] == left.events
    assert len({repr(event) for event in after}) == len(after)
    account = Account()
    for number, event in enumerate(after):
        account.apply(event)
        if number >= before and isinstance(event, DecisionMade):
            break
    assert account.champion == left.champion
    assert event.weights_version == account.champion_version


def wait_for_decisions(service: Service, more: int) -> None:
    before = decisions(service.journal)
    service.wait(f"{more} decisions", lambda: decisions(service.journal) >= before + more or None)


def test_wrong_settings_end_nothing(services: Services) -> None:
    service = services.trading()
    status = service.status()
    service.deploy("sed=8")

    def refused() -> str | None:
        found = service.cluster.application("trading")
        return found["message"] if found.get("status") == "DEPLOY_FAILED" else None

    assert "sed = 8 (--set): unknown key" in service.wait("the refusal", refused)
    wait_for_decisions(service, 2)
    assert service.status()["process"] == status["process"]


def test_other_settings_are_adopted_in_place(services: Services) -> None:
    service = services.trading()
    before, process = events(service.journal), service.status()["process"]
    service.deploy("learning.save_frequency=18")
    service.wait("another live market", lambda: service.other_process(process))
    service.wait_ready()
    wait_for_decisions(service, 2)
    assert events(service.journal)[: len(before)] == before
    assert service.status()["supervisor"]["failures"] == 0


def test_a_failure_is_counted_and_the_application_starts_again(services: Services) -> None:
    service = services.trading()
    before, process = events(service.journal), service.status()["process"]
    os.kill(service.process("MarketServerHost"), signal.SIGKILL)

    def named() -> str | None:
        response = service.get("/ready")
        text = response.text if response is not None else ""
        return text if "the market server failed" in text else None

    service.wait("the failure's name", named)
    service.wait("another live market", lambda: service.other_process(process))
    service.wait_ready()
    wait_for_decisions(service, 2)
    assert events(service.journal)[: len(before)] == before
    assert service.status()["supervisor"]["failures"] == 1


def test_a_killed_supervisor_is_replaced_and_goes_on(services: Services) -> None:
    service = services.trading()
    before, process = events(service.journal), service.status()["process"]
    os.kill(service.process("ServeReplica:trading:supervisor"), signal.SIGKILL)
    service.wait("another live market", lambda: service.other_process(process))
    service.wait_ready()
    wait_for_decisions(service, 2)
    assert events(service.journal)[: len(before)] == before


def test_a_restart_of_the_live_market_does_not_pass_the_account_on(services: Services) -> None:
    first, second = services.pair()
    status = first.status()
    with closing(Watch(first, second)) as watch:
        os.kill(first.process("LiveMarket"), signal.SIGKILL)
        first.wait("another live market", lambda: first.other_process(status["process"]))
        first.wait_ready()
        wait_for_decisions(first, 2)
    assert first.status()["supervisor"]["failures"] == 0
    assert {name for at in watch.moments for name in at.good("/ready")} == {first.name}
    assert {name for at in watch.moments for name in at.writing} == {first.name}
    assert_stands_by(second, first)


def test_the_successor_trades_when_its_predecessor_is_deleted(services: Services) -> None:
    first, second = services.pair()
    assert second.trading("stop", "--here").startswith("the account paper is traded elsewhere")
    with closing(Watch(first, second)) as watch:
        wait_for_decisions(first, 2)
        # The operator ends all pods at one instant; the live market's first runs its preStop.
        first.cluster.kill("head")
        assert first.trading("stop", "--here").startswith("stopped: ")
        stopped_s = time.monotonic()
        left = Left.by(first)
        first.cluster.kill("live-market")
        second.wait_ready()
        print(f"from release to ready: {time.monotonic() - stopped_s:.1f} s")
        wait_for_decisions(second, 3)
    services.succeed()
    watch.assert_hand_over(first, second)
    assert_goes_on(first.journal, left)


def test_the_successor_trades_when_its_predecessor_is_killed(services: Services) -> None:
    first, second = services.pair()
    with closing(Watch(first, second)) as watch:
        wait_for_decisions(first, 2)
        first.cluster.kill("live-market")
        first.cluster.kill("head")
        killed_s = time.monotonic()
        left = Left.by(first)
        second.wait_ready()
        print(f"from SIGKILL to ready: {time.monotonic() - killed_s:.1f} s")
        wait_for_decisions(second, 3)
    services.succeed()
    watch.assert_hand_over(first, second)
    assert_goes_on(first.journal, left)
