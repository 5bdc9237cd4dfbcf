"""The learner that strategies of one cluster share, whichever applications trade them."""

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tests.app.learner_actor import actor_of, process_of, until
from tests.app.test_shared_learner import SMALL, YAML
from tests.waits import WAIT_S
from trading.app import cluster_learner as module
from trading.app.cluster_learner import ClusterLearner, learning_with_the_others
from trading.app.shared_address import claimed_together, with_the_others
from trading.app.waiting import Heartbeat
from trading.config import Settings, load_settings
from trading.errors import ConfigError


def settings_of(folder: Path, *overrides: str, name: str = "a") -> Settings:
    path = folder / "s.yaml"
    path.write_text(YAML)
    return load_settings(
        path, [*SMALL, f"paths.state_dir={folder}", *overrides, f"strategy={name}"], {}
    )


def all_settings(folder: Path, *overrides: str) -> tuple[Settings, dict[str, Settings]]:
    return with_the_others(settings_of(folder, *overrides))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_EVERY_S", 0.2)


def join(folder: Path, *overrides: str) -> ClusterLearner:
    learner = ClusterLearner(*all_settings(folder, *overrides))
    try:
        learner.join(lambda: False)
    except ConfigError:
        learner.close()
        raise
    return learner


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "at_once")
def test_applications_share_one_learner_which_ends_with_the_last(tmp_path: Path) -> None:
    first = join(tmp_path)
    address = first.address
    process = until(lambda: process_of(address))
    with closing(join(tmp_path)) as second:
        assert second.address == address and process_of(address) == process
        with pytest.raises(ConfigError) as refused:
            join(tmp_path, "learning.clip=0.3")
        (line,) = refused.value.lines
        assert line.startswith("learning.clip = 0.3: must be 0.2, by which the shared learner goes")
        first.close()
        assert process_of(address) == process, "the other one learns by it"

        # Its process dies, and Ray starts it again; it is lost for good, and is made anew.
        os.kill(process, signal.SIGKILL)
        again = until(lambda: (now := process_of(address)) != process and now)
        ray.kill(actor_of(address), no_restart=True)
        until(lambda: (now := process_of(address)) != again and now)
    until(lambda: actor_of(address) is None)
    assert (tmp_path / "checkpoints" / "shared-learner").is_dir()


def test_one_strategy_reads_again_what_the_others_are(tmp_path: Path) -> None:
    chosen = settings_of(tmp_path, "strategies.a.seed=11", name="a")
    common, strategies = with_the_others(chosen)
    assert common.strategy is None and set(common.strategies) == {"a", "b"}
    assert strategies["a"] == chosen and strategies["b"].seed == 9
    assert claimed_together(strategies) == {"a": ["a", "b"]}


def test_a_state_apart_from_the_others_shares_nothing(tmp_path: Path) -> None:
    chosen = settings_of(tmp_path)
    paths = chosen.paths.model_copy(update={"state_dir": tmp_path / "replay" / "run-001"})
    apart = chosen.model_copy(update={"paths": paths})
    with (
        pytest.raises(ConfigError, match=r"the state of a is in .*run-001, apart from that"),
        learning_with_the_others(apart, threading.Event()),
    ):
        pass


def test_who_learns_alone_asks_for_no_learner() -> None:
    stop = threading.Event()
    with learning_with_the_others(Settings(), stop) as (address, until):
        assert address is None and until is stop


class Elsewhere(ClusterLearner):
    """A hold on a learner that is lost whenever it is asked."""

    made = 0
    closed = False

    def _made(self) -> Any:
        self.made += 1
        return SimpleNamespace(hold=SimpleNamespace(remote=lambda *_: None))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        self.closed = True


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def arrived(*_: object) -> bool:
        raise ray.exceptions.ActorDiedError

    monkeypatch.setattr(Heartbeat, "is_lost", lambda *_: False)
    monkeypatch.setattr(module, "arrived", arrived)
    monkeypatch.setattr(module, "learner_options", lambda *_: {})
    monkeypatch.setattr(module, "ClusterLearner", Elsewhere)
    monkeypatch.setattr(module, "_JOIN_TIMEOUT_S", 0.5)


@pytest.mark.usefixtures("lost")
def test_trading_begins_without_a_learner_that_does_not_answer_and_ends_where_it_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop, wrong = threading.Event(), ConfigError(["learning.clip = 0.3: must be 0.2"])
    held: list[Elsewhere] = []
    with (
        pytest.raises(ConfigError, match=r"learning\.clip = 0\.3"),
        pytest.MonkeyPatch.context() as patch,
    ):
        begin = Elsewhere.join
        patch.setattr(
            Elsewhere, "join", lambda own, stopped: (held.append(own), begin(own, stopped))
        )
        with learning_with_the_others(settings_of(tmp_path), stop) as (address, until):
            (learner,) = held
            assert address == learner.address and not until.is_set()
            assert "does not answer; trading begins without it" in caplog.text
            assert "it was lost and is made anew" in caplog.text
            learner._refusal = wrong
            assert until.wait(WAIT_S) and not stop.is_set()
    assert learner.closed


@pytest.mark.usefixtures("lost")
def test_one_that_is_lost_again_and_again_is_made_anew_with_pauses(tmp_path: Path) -> None:
    with closing(Elsewhere(*all_settings(tmp_path))) as learner:
        until(lambda: learner.made > 1)
        time.sleep(1.0)
        assert learner.made == 2, "the next one is made two seconds later"
