"""Several strategies, by functions in place of their processes; what the terminal shows of them."""

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from tests.test_strategies import THREE
from tests.waits import WAIT_S, until
from trading.app import fleet as module
from trading.app.cluster_feed import ClusterFeed
from trading.app.display import Display
from trading.app.driver import ApplicationFailed, Summary
from trading.app.fleet import Fleet
from trading.app.fleet_display import FleetDisplay
from trading.app.shared_address import SharedLearnerAddress
from trading.app.strategy_process import StrategyStart
from trading.app.waiting import StopRequested
from trading.config import Settings, absolute_paths, load_settings
from trading.errors import ConfigError
from trading.execution.lease import AccountLease, holder_of
from trading.feed.embedded import reading_from
from trading.live import assembly
from trading.live.actor import Progress
from trading.serving.supervisor import RESTARTING, TRADING, Backoff, SupervisorState

NAMES = ("plain", "small", "still")
PROGRESS = Progress("trading", True, 1, 10, 20, 3, 4.5, 100_250.0, 2, 1_767_623_400_000_000_000)
SUMMARY = Summary(1, 20, 3, 4.5, 100_250.0, 0, 0, 0, 0, None, 6.0)


class FleetStates:
    """Takes what is posted."""

    class post:  # noqa: N801
        @staticmethod
        def remote(posted: object) -> None:
            return None


class Trades:
    """In place of the strategies' processes: by name, what each does."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.ending: set[str] = set()
        self.starts: list[StrategyStart] = []

    @property
    def started(self) -> list[str]:
        return [each.settings.strategy or "" for each in self.starts]

    def run(
        self,
        start: StrategyStart,
        display: Display,
        stop: threading.Event,
        traded: Callable[[], None],
    ) -> Summary:
        name = start.settings.strategy or ""
        self.starts.append(start)
        if name in self.failing:
            raise ApplicationFailed(f"{name} has no disk")
        traded()
        if name not in self.ending:
            stop.wait()
        return SUMMARY


@pytest.fixture
def trades(monkeypatch: pytest.MonkeyPatch) -> Trades:
    found = Trades()
    monkeypatch.setattr(module, "run_strategy", found.run)
    monkeypatch.setattr(module, "Backoff", lambda: Backoff(first_s=0.01, longest_s=0.01))
    return found


@pytest.fixture
def strategies(tmp_path: Path) -> dict[str, Settings]:
    path = tmp_path / "s.yaml"
    path.write_text(f"paths: {{state_dir: {tmp_path}}}\n{THREE}")
    return {name: load_settings(path, [f"strategy={name}"], {}) for name in NAMES}


@pytest.fixture
def fleet(strategies: dict[str, Settings], trades: Trades) -> Iterator[Fleet]:
    made = Fleet(Settings(), strategies, None, shown(), threading.Event(), "here")
    made._fleet_states = FleetStates
    yield made
    made.close()


def shown(terminal: bool = False) -> FleetDisplay:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return FleetDisplay(console, NAMES)


def phase(fleet: Fleet, name: str) -> str:
    return fleet._state(name).phase


def test_one_that_fails_is_started_again_and_the_others_do_not_notice(
    fleet: Fleet, trades: Trades
) -> None:
    trades.failing.add("small")
    for name in NAMES:
        fleet.keep(name)
    until(lambda: trades.started.count("small") >= 3)
    assert trades.started.count("plain") == trades.started.count("still") == 1
    until(lambda: "small has no disk" in fleet._state("small").reason)
    trades.failing.clear()
    until(lambda: {phase(fleet, name) for name in NAMES} == {TRADING})
    assert fleet.goes_on
    fleet.close()
    assert not fleet.goes_on
    fleet.conclude()


def test_it_ends_when_all_have_ended_and_does_not_wait_for_one_that_fails(
    fleet: Fleet, trades: Trades
) -> None:
    trades.ending |= {"plain", "still"}
    trades.failing.add("small")
    for name in NAMES:
        fleet.keep(name)
    until(lambda: not fleet.goes_on)
    fleet.close()
    with pytest.raises(ApplicationFailed, match=r"^small: small has no disk$"):
        fleet.conclude()


def test_each_holds_its_accounts_lease_and_lets_go_of_it(
    fleet: Fleet, trades: Trades, strategies: dict[str, Settings]
) -> None:
    for name in NAMES:
        fleet.keep(name)
    until(lambda: {phase(fleet, name) for name in NAMES} == {TRADING})
    assert all(fleet._state(name).leased for name in NAMES)
    fleet.close()
    for settings in strategies.values():
        AccountLease(assembly.journal_path(settings)).close()


def test_an_account_that_somebody_trades_is_waited_for(
    fleet: Fleet, trades: Trades, strategies: dict[str, Settings]
) -> None:
    with AccountLease(assembly.journal_path(strategies["plain"])):
        for name in NAMES:
            fleet.keep(name)
        until(lambda: "is traded by" in fleet._state("plain").reason)
        until(lambda: {phase(fleet, name) for name in NAMES[1:]} == {TRADING})
    until(lambda: phase(fleet, "plain") == TRADING)


def test_replicas_claim_one_strategy_each_and_the_last_stands_by(
    strategies: dict[str, Settings], trades: Trades
) -> None:
    replicas = [
        Fleet(Settings(), strategies, None, shown(), threading.Event(), "here", claim=True)
        for _ in range(4)
    ]
    claims = [threading.Thread(target=each._claim_one, daemon=True) for each in replicas]
    for claim in claims:
        claim.start()
    until(lambda: sorted(trades.started) == sorted(NAMES))
    until(lambda: any(each._waiting for each in replicas))
    until(lambda: sum(not each._supervisors for each in replicas) == 1)
    (idle,) = (each for each in replicas if not each._supervisors)
    assert idle._waiting == "no strategy is free: 3 of 3 taken" and idle.goes_on
    assert "traded by" in idle._state("small").reason
    ended = next(each for each in replicas if "small" in each._supervisors)
    ended.close()
    until(lambda: "small" in idle._supervisors and phase(idle, "small") == TRADING)
    assert idle._waiting == ""
    for each in replicas:
        each.close()
    for claim in claims:
        claim.join(WAIT_S)


class Learner:
    """In place of the hold on a shared learner: whom it is of, and whether it is held."""

    def __init__(self, common: Settings, strategies: Mapping[str, Settings]) -> None:
        self.address = SharedLearnerAddress("together", "terms")
        self.held = True

    def check(self) -> None:
        """Nothing is wrong."""

    def close(self) -> None:
        self.held = False


def test_strategies_that_share_a_learner_are_claimed_together(
    tmp_path: Path, trades: Trades, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"paths: {{state_dir: {tmp_path}}}\nlearner: shared\n"
        "strategies: {plain: , small: {learner: own}, still: }"
    )
    of = {name: load_settings(path, [f"strategy={name}"], {}) for name in NAMES}
    common = load_settings(path, [], {})
    monkeypatch.setattr(module, "ClusterLearner", Learner)
    replicas = [
        Fleet(common, of, None, shown(), threading.Event(), "here", claim=True) for _ in range(3)
    ]
    for each in replicas[:2]:
        each._claim_one()
    both, own = replicas[:2]
    until(lambda: sorted(trades.started) == sorted(NAMES))
    assert (set(both._supervisors), set(own._supervisors)) == ({"plain", "still"}, {"small"})
    assert own._learner is None and isinstance(both._learner, Learner) and both._learner.held
    shared = {each.settings.strategy: each.shared is not None for each in trades.starts}
    assert shared == {"plain": True, "small": False, "still": True}
    waits = threading.Thread(target=replicas[2]._claim_one, daemon=True)
    waits.start()
    until(lambda: replicas[2]._waiting == "no strategy is free: 3 of 3 taken")
    # One of them ends: what shares its learner stays together with it.
    both._supervisors["plain"].close(WAIT_S)
    until(lambda: holder_of(both._journals["plain"]) is None)
    waits.join(1.0)
    assert waits.is_alive() and not replicas[2]._supervisors
    both.close()
    assert not both._learner.held
    until(lambda: set(replicas[2]._supervisors) == {"plain", "still"})
    for each in replicas:
        each.close()
    waits.join(WAIT_S)


def test_who_cannot_claim_says_so(strategies: dict[str, Settings]) -> None:
    replica = Fleet(Settings(), strategies, None, shown(), threading.Event(), "here", claim=True)
    replica._claimer = threading.Thread(target=lambda: None)
    replica._claimer.start()
    replica._claimer.join(WAIT_S)
    with pytest.raises(ApplicationFailed, match="no strategy can be claimed"):
        replica._check_parts()


def test_the_terminal_has_a_row_for_each_strategy_and_says_why_one_does_not_trade() -> None:
    display = shown(terminal=True)
    trading = SupervisorState(TRADING, "", leased=True, failures=0)
    failed = SupervisorState(RESTARTING, "failed 2 times: no disk", leased=True, failures=2)
    with display.running():
        display.of("plain").progress(PROGRESS, None)
        display.stand({"plain": trading, "small": failed}, "")
        display.common.console.print(display.panel())
    text = display.common.console.file.getvalue()
    assert "100,250.00" in text and "01-05 14:30" in text
    assert "small: failed 2 times: no disk" in text


def test_elsewhere_each_line_begins_with_the_strategys_name() -> None:
    display = shown()
    display.of("small").phase("starting")
    display.of("small").note("policy: new")
    display.of("small").progress(PROGRESS, None)
    display.of("small").summary(SUMMARY)
    lines = display.common.console.file.getvalue().splitlines()
    assert lines[:2] == ["· small: starting", "• small: policy: new"]
    assert lines[2].startswith("small: state trading") and lines[3] == "small"


def reread(settings: Settings, environ: dict[str, str]) -> Settings:
    """The settings, read again from where they came, beside the secrets of the environment."""
    origin = settings.origin
    return load_settings(origin.path, origin.overrides, {**environ, **origin.environment})


def test_strategies_that_would_share_the_vendors_one_connection_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "data: {source: massive}\nstrategies: {a: , b: , c: {data: {source: simulation}}}"
    )
    environ = {"MASSIVE_API_KEY": "key"}

    def of(**more: str) -> dict[str, Settings]:
        return {n: load_settings(path, [f"strategy={n}"], {**environ, **more}) for n in "abc"}

    with pytest.raises(ConfigError, match=r"a, b: data\.source = massive.*FEED_URL"):
        module.up_strategies(Settings(), of(), None, shown(), claim=True)
    module._check_connections(of(FEED_URL="http://127.0.0.1:8765"))
    module._check_connections({"a": of()["a"], "c": of()["c"]})
    # In one application on one machine they share the connection of a feed inside of it.
    with module._one_connection(of()) as sharing:
        module._check_connections(sharing)
        (url,) = {sharing[name].data.massive.feed_url for name in "ab"}
        assert url is not None and url.startswith("http://127.0.0.1:")
        assert sharing["c"].data.massive.feed_url is None
        assert absolute_paths(reread(sharing["a"], environ)).data.massive.feed_url == url
        assert sharing["a"].strategy == "a"
    with module._one_connection({"a": of()["a"]}) as alone:
        assert alone["a"].data.massive.feed_url is None


class Feed(ClusterFeed):
    """A feed of a cluster, without one; a test says where it is."""

    def __init__(self, at: str) -> None:
        self.at = at

    @property
    def url(self) -> str:
        return self.at

    def reading(self, settings: Settings) -> Settings:
        return reading_from(settings, self.at)


def test_strategies_read_the_clusters_feed_and_are_started_again_when_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"paths: {{state_dir: {tmp_path}}}\ndata: {{source: massive}}\n"
        "strategies: {plain: , small: {data: {source: simulation}}, still: }"
    )
    environ = {"MASSIVE_API_KEY": "key"}
    of = {name: load_settings(path, [f"strategy={name}"], environ) for name in NAMES}
    seen: list[tuple[str, str | None]] = []

    def run(
        start: StrategyStart, display: Display, stop: threading.Event, traded: Callable[[], None]
    ) -> Summary:
        seen.append((start.settings.strategy or "", start.settings.data.massive.feed_url))
        traded()
        while not stop.wait(0.01):
            pass
        return SUMMARY

    monkeypatch.setattr(module, "run_strategy", run)
    monkeypatch.setattr(module, "Backoff", lambda: Backoff(first_s=0.01, longest_s=0.01))
    fleet = Fleet(Settings(), of, None, shown(), threading.Event(), "here")
    before, after = "http://10.0.0.1:8765", "http://10.0.0.2:8765"
    feed = Feed(before)
    fleet.read(feed)
    for name in NAMES:
        fleet.keep(name)
    until(lambda: len(seen) == 3)
    feed.at = after
    until(lambda: len(seen) == 5)
    until(lambda: {phase(fleet, name) for name in NAMES} == {TRADING})
    fleet.close()
    assert sorted(seen, key=str) == sorted(
        [
            *(("plain", url) for url in (before, after)),
            *(("still", url) for url in (before, after)),
            ("small", None),
        ],
        key=str,
    )


def test_who_is_told_to_stop_while_it_starts_ends_in_order(
    strategies: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    joined: list[bool] = []

    def told(*_: object) -> None:
        raise StopRequested("Serve")

    def ray_runtime(*_: object, others_join: bool) -> AbstractContextManager[None]:
        joined.append(others_join)
        return nullcontext()

    monkeypatch.setattr(module, "ray_runtime", ray_runtime)
    monkeypatch.setattr(module, "ray_address", lambda: "here")
    monkeypatch.setattr(Fleet, "begin", lambda *_: None)
    monkeypatch.setattr(Fleet, "serve", told)
    monkeypatch.setattr(Fleet, "close", lambda _: closed.append(True))
    module.up_strategies(Settings(), strategies, None, shown())
    assert closed == [True]
    assert joined == [True], "the strategies have logs shown, each in a file of its own"
