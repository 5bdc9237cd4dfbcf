"""Promotions, an owner's commands, and the frozen mode, in the whole application."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.application import ROOT, Application, environment, write_model
from tests.waits import WAIT_S
from trading.execution.events import ChampionPromoted, ChampionRolledBack, PromotedBy, RolledBackBy
from trading.execution.journal import Journal
from trading.learning.champions import ChampionStore

pytestmark = [pytest.mark.slow, pytest.mark.long]

QUICK = (
    *("--set", "learning.pretrain_steps=4096"),
    *("--set", "learning.update_frequency=12"),
    *("--set", "learning.gate.sessions=20"),
    # A gate that lets every working policy pass: the test is of what follows a promotion.
    *("--set", "learning.gate.margin_pct=50"),
    *("--set", "learning.gate.max_kl=10"),
)


def command(state: Path, *arguments: str) -> str:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "trading", "checkpoints", *arguments),
            *("--set", f"paths.state_dir={state}"),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def state_of(application: Application) -> Path:
    return application.log.parent / "state"


def changes(application: Application) -> list[ChampionPromoted | ChampionRolledBack]:
    path = state_of(application) / "journal-paper.sqlite"
    with Journal(path, read_only=True) as journal:
        kinds = (ChampionPromoted, ChampionRolledBack)
        return [each for each in journal.events() if isinstance(each, kinds)]


def await_champion(application: Application, number: int) -> None:
    def trades() -> bool | None:
        return application.status()["champion"]["number"] == number or None

    application.wait_until(f"champion {number} trades", trades)


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("champions")
    with closing(Application.up(folder, *QUICK)) as running:
        running.wait_ready()
        yield running


def test_a_challenger_is_promoted_and_its_numbers_are_journalled(learning: Application) -> None:
    def promoted() -> dict[str, object] | None:
        status = learning.status()
        return status if status["champion"]["promotions"] >= 1 else None

    status = learning.wait_until("a promotion", promoted)
    assert status["champion"]["number"] >= 2
    assert status["learner"]["judgements"] >= 1
    first, second = changes(learning)[:2]
    assert isinstance(first, ChampionPromoted) and isinstance(second, ChampionPromoted)
    assert (first.by, second.by) == (PromotedBy.START, PromotedBy.GATE)
    assert second.before == 1 and second.kl is not None
    assert second.compared[0].sessions == 20
    response = learning.get("/metrics")
    assert response is not None
    shown = {
        sample.name: sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert shown["trading_bot_promotions_total"] >= 1
    assert shown["trading_bot_champion"] >= 2
    assert shown["trading_bot_judgement_seconds"] > 0.0


def test_the_champion_is_taken_up_after_a_restart(learning: Application) -> None:
    assert learning.terminate() == 0, learning.output()
    assert "promotions" in learning.output()
    champions = ChampionStore(state_of(learning) / "checkpoints", 5)
    standing = champions.standing()
    assert standing is not None
    before = changes(learning)
    folder = learning.log.parent
    frozen = ("--set", "learning.online=false")
    with closing(Application.up(folder, *QUICK, *frozen)) as again:
        again.wait_ready()
        await_champion(again, standing.champion)
        # A promotion whose bar never came is journalled now; nothing else is.
        after = changes(again)
        news = before[-1].champion != standing.champion
        assert after[: len(before)] == before and len(after) == len(before) + news
        assert after[-1].champion == standing.champion
        own_words(again, standing.champion)


def own_words(frozen: Application, champion: int) -> None:
    """An owner's commands take effect while it trades, in frozen mode as well."""
    state = state_of(frozen)
    model = write_model(frozen.log.parent / "model")
    assert f"champion-{champion + 1} trades" in command(state, "promote", str(model))
    await_champion(frozen, champion + 1)
    assert f"champion-{champion} trades" in command(state, "rollback")
    await_champion(frozen, champion)
    by_owner = changes(frozen)[-2:]
    assert isinstance(by_owner[0], ChampionPromoted) and by_owner[0].by is PromotedBy.OWNER
    assert isinstance(by_owner[1], ChampionRolledBack)
    assert by_owner[1].by is RolledBackBy.OWNER
    status = frozen.status()
    assert status["learner"] == {} and status["phase"] == "trading"
    listed = command(state, "list")
    assert f"champion-{champion}" in listed and "trades" in listed
    assert frozen.terminate() == 0, frozen.output()
