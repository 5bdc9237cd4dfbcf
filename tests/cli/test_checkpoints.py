"""`trading checkpoints` on real folders."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from trading.cli.main import app
from trading.config import Settings
from trading.errors import OwnerRefused
from trading.execution.commands import Command
from trading.execution.events import (
    ChampionPromoted,
    Compared,
    OwnerCommand,
    OwnerCommanded,
    PromotedBy,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.lease import AccountLease
from trading.execution.mailbox import serve
from trading.learning.champion.store import (
    AccountChampion,
    ChampionStore,
    Promotion,
    weights_digest,
)
from trading.learning.checkpoints import CheckpointStore, write_module_weights
from trading.learning.policy import Policy, Weights
from trading.live import assembly


def weights(seed: int) -> Weights:
    return Policy(assembly.model_config(Settings()), seed).weights()


def journal_path(state: Path) -> Path:
    return assembly.journal_path(Settings.model_validate({"paths": {"state_dir": state}}))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An account with champions 1 and 2, and the learner's checkpoint of version 30."""
    champions = ChampionStore(tmp_path / "checkpoints", 5, clock=lambda: 1_767_625_200.0)
    compared = (Compared("simulated", 64, -0.5, -0.25, 0.25, 0.125, 0.375),)
    with Journal(journal_path(tmp_path)) as journal:
        journal.open_account("paper", 10_000.0, 1)
        for seed, why in (
            (1, Promotion(10, PromotedBy.START, "pre-training")),
            (2, Promotion(20, PromotedBy.GATE, "not worse on simulated", 0.0125, compared)),
        ):
            event = champions.write(
                lambda d, seed=seed: write_module_weights(d, weights(seed)),
                why,
                AccountChampion(seed - 1, 0, seed - 1),
            )
            journal.append(msgspec.structs.replace(event, ts_ns=1 + seed, equity=10_000.0))
    store = CheckpointStore(tmp_path / "checkpoints", 5)
    store.save(lambda d: write_module_weights(d, weights(3)), {"step": 30})
    return tmp_path


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        app,
        ["checkpoints", *arguments, "--set", f"paths.state_dir={state}"],
        env={"COLUMNS": "200"},
    )


def trades(state: Path) -> tuple[int, int, str]:
    """The account's champion, the one before it, and the digest of its weights."""
    with Journal(journal_path(state), read_only=True) as journal:
        account = journal.fold()
    digest = weights_digest(ChampionStore(state / "checkpoints", 5).load(account.champion).weights)
    return account.champion, account.champion_before, digest


def test_list_tells_which_champion_trades_and_its_numbers(state: Path) -> None:
    result = run(state, "list")
    assert result.exit_code == 0, result.output
    rows = {line.split()[1]: line for line in result.output.splitlines() if "-" in line[:12]}
    assert "before" in rows["champion-1"] and "pre-training" in rows["champion-1"]
    assert "trades" in rows["champion-2"] and "2026-01-05 15:00:00" in rows["champion-2"]
    for number in ("20", "gate", "0.0125", "+0.250 % [+0.125, +0.375]", "not worse"):
        assert number in rows["champion-2"]
    assert "30" in rows["step-30"]


def test_card_prints_what_was_written_and_makes_what_was_not(state: Path) -> None:
    written = run(state, "card", "champion-2")
    assert written.exit_code == 0, written.output
    file = state / "checkpoints" / "champions" / "champion-000000002" / "card.md"
    assert written.output == file.read_text()
    assert weights_digest(weights(2)) in written.output and "+0.125 to +0.375" in written.output
    made = run(state, "card", "step-30")
    assert made.exit_code == 0 and "# Model card: step-000000030" in made.output
    assert weights_digest(weights(3)) in made.output


def test_list_and_show_speak_json(state: Path) -> None:
    listed = {each["name"]: each for each in json.loads(run(state, "list", "--json").output)}
    assert list(listed) == ["champion-1", "champion-2", "step-30"]
    assert [each["trades"] for each in listed.values()] == [False, True, False]
    assert listed["champion-2"]["metadata"]["kl"] == 0.0125
    (state / "checkpoints" / "step-000000030" / "module_state.pkl").write_bytes(b"")
    assert "differs" in json.loads(run(state, "list", "--json").output)[2]["damaged"]
    told = json.loads(run(state, "show", "champion-2", "--json").output)
    assert (told["folder"], told["version"]) == (listed["champion-2"]["folder"], 20)
    assert told["parameters"] > 0


def test_names_and_folders_are_whole_where_no_terminal_is_wide(state: Path) -> None:
    arguments = ["checkpoints", "show", "champion-2", "--set", f"paths.state_dir={state}"]
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "40"}).output
    folder = json.loads(run(state, "show", "champion-2", "--json").output)["folder"]
    assert folder in told


def test_list_makes_no_folder_where_there_is_none(tmp_path: Path) -> None:
    result = run(tmp_path / "typo", "list")
    assert result.exit_code == 1
    assert f"no checkpoints at {tmp_path / 'typo' / 'checkpoints'}" in result.stderr
    assert not (tmp_path / "typo").exists()


def test_show_prints_the_manifest(state: Path) -> None:
    result = run(state, "show", "champion-2")
    assert result.exit_code == 0, result.output
    for text in ("champion-000000002", "on simulated", "+0.250 %", "parameters"):
        assert text in result.output
    assert run(state, "show", "30").exit_code == 0


@pytest.mark.parametrize("which", ["30", "step-30"])
def test_a_step_of_the_learner_is_promoted(state: Path, which: str) -> None:
    result = run(state, "promote", which)
    assert result.exit_code == 0, result.output
    told = "champion-3 trades from the next bar on (version 30); the one before it: champion-2\n"
    assert result.output == told
    assert trades(state) == (3, 2, weights_digest(weights(3)))
    with Journal(journal_path(state), read_only=True) as journal:
        *_, commanded, promoted, adopted = journal.events()
    assert isinstance(commanded, OwnerCommanded) and commanded.command is OwnerCommand.PROMOTE
    assert isinstance(promoted, ChampionPromoted) and promoted.by is PromotedBy.OWNER
    assert (promoted.reason, promoted.equity) == ("promoted from step-000000030", 10_000.0)
    assert isinstance(adopted, WeightsAdopted)
    assert adopted.digest == weights_digest(weights(3))


def test_an_account_goes_on_in_another_folder_with_what_is_promoted_there(state: Path) -> None:
    """The way out that a checkpoint is refused with which no longer fits."""
    other = state / "other"
    store = CheckpointStore(other, 5)
    store.save(lambda d: write_module_weights(d, weights(4)), {"step": 40})
    result = run(state, "promote", "step-40", "--set", f"paths.checkpoint_dir={other}")
    assert result.exit_code == 0, result.output
    with Journal(journal_path(state), read_only=True) as journal:
        champion = journal.fold().champion
    assert champion == 3
    assert weights_digest(ChampionStore(other, 5).load(champion).weights) == weights_digest(
        weights(4)
    )


def test_who_trades_the_account_is_asked_and_what_it_says_is_told(state: Path) -> None:
    path, asked, stopping = journal_path(state), [], threading.Event()

    def obey(command: Command | None) -> dict[str, Any]:
        assert command is not None
        asked.append((command.command, command.which))
        if command.command is OwnerCommand.ROLLBACK:
            raise OwnerRefused("no champion before the present one")
        return {"said": f"{command.which} trades from the next bar on"}

    def trade() -> None:
        while not stopping.wait(0.05):
            serve(path, obey)

    with AccountLease(path):
        nobody = run(state, "promote", "30", "--wait", "0")
        trader = threading.Thread(target=trade)
        trader.start()
        promoted = run(state, "promote", "30", "--wait", "60")
        refused = run(state, "rollback", "--wait", "60")
        stopping.set()
        trader.join()
    assert nobody.exit_code == 1 and "did not take the command within 0 s" in nobody.stderr
    assert promoted.output == "champion-4 trades from the next bar on\n"
    assert asked == [(OwnerCommand.PROMOTE, "champion-4"), (OwnerCommand.ROLLBACK, "")]
    assert refused.exit_code == 1 and "no champion before" in refused.stderr
    assert trades(state)[0] == 2, "what is not journalled did not happen"
    assert run(state, "promote", "champion-3").output.startswith("champion-3 trades")
    assert trades(state)[:2] == (3, 2)


def test_an_account_that_has_not_traded_begins_with_what_is_promoted(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_module_weights(tmp_path / "model", weights(7))
    for which in (str(tmp_path / "model"), "champion-1"):
        told = run(tmp_path, "promote", which)
        assert told.exit_code == 0, told.output
    assert told.output == "champion-2 trades from the first start on (version 0)\n"
    champions = ChampionStore(tmp_path / "checkpoints", 5)
    news = champions.news_for(AccountChampion())
    assert news is not None and news.champion == 2
    listed = json.loads(run(tmp_path, "list", "--json").output)
    assert [each["trades"] for each in listed] == [False, False]
    rolled = run(tmp_path, "rollback")
    assert rolled.exit_code == 1 and "has not traded yet" in rolled.stderr
    told = run(tmp_path, "promote", "champion-1", "--why", "holiday")
    assert "who and why are not kept" in told.output


def test_an_account_of_a_rule_based_trader_has_no_champion(state: Path) -> None:
    rules = ("--set", "policy.trader=patient")
    for words in (("promote", "30"), ("rollback",)):
        told = run(state, *words, *rules)
        assert told.exit_code == 1 and "the rule-based trader patient" in told.stderr
    assert trades(state)[0] == 2


def test_an_earlier_champion_and_a_model_are_promoted(state: Path, tmp_path: Path) -> None:
    assert run(state, "promote", "champion-1").exit_code == 0
    assert trades(state) == (3, 2, weights_digest(weights(1)))
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, weights(7))
    assert run(state, "promote", str(model)).exit_code == 0
    assert trades(state) == (4, 3, weights_digest(weights(7)))


def test_a_choice_says_who_and_why_and_answers_scripts(state: Path) -> None:
    words = ("--by", "alice", "--why", "a better one", "--json")
    told = json.loads(run(state, "promote", "30", *words).stdout)
    assert told["done"] and told["said"].startswith("champion-3 trades from the next bar on")
    assert told["account"]["owner_commands"] == 1
    assert json.loads(run(state, "rollback", *words).stdout)["account"]["owner_commands"] == 2
    with Journal(journal_path(state), read_only=True) as journal:
        said = [each for each in journal.events() if isinstance(each, OwnerCommanded)]
    assert [(str(each.command), each.by, each.why) for each in said] == [
        ("promote", "alice", "a better one"),
        ("rollback", "alice", "a better one"),
    ]
    bad = run(state, "promote", "30", "--why", "a\nb")
    assert bad.exit_code == 1 and "why: " in bad.stderr
    champions = ChampionStore(state / "checkpoints", 5)
    assert champions.numbers()[-1] == 3, "refused before another one is written"
    refused = run(state, "promote", "31", "--json")
    assert refused.exit_code == 1
    answer = json.loads(refused.stdout)
    assert not answer["done"] and "there are step-30" in answer["said"]


def test_rollback_goes_to_the_one_before(state: Path) -> None:
    result = run(state, "rollback")
    assert result.exit_code == 0, result.output
    assert result.output == "champion-1 trades from the next bar on (version 10)\n"
    assert trades(state) == (1, 0, weights_digest(weights(1)))
    again = run(state, "rollback")
    assert again.exit_code == 1
    assert "no champion before" in again.stderr


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("31", "there are step-30"),
        ("champion-9", "there are champion-1, champion-2"),
        ("nowhere", "trading checkpoints list"),
    ],
)
def test_what_does_not_exist_is_named(state: Path, which: str, told: str) -> None:
    result = run(state, "promote", which)
    assert result.exit_code == 1
    assert told in result.stderr and result.stderr.count("\n") == 1
    assert trades(state)[0] == 2


def test_what_cannot_trade_is_refused_and_a_damaged_one_is_listed(
    state: Path, tmp_path: Path
) -> None:
    bad = weights(3)
    next(iter(bad.values())).flat[0] = np.nan
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, bad)
    assert "NaN" in run(state, "promote", str(model)).stderr
    other_shape = run(state, "promote", "30", "--set", "model.actor_hidden=8")
    assert "does not fit the configured network" in other_shape.stderr
    damaged = state / "checkpoints" / "step-000000030" / "module_state.pkl"
    damaged.write_bytes(b"damaged")
    assert "differs from the manifest" in run(state, "promote", "30").stderr
    assert "damaged" in run(state, "list").output
    assert trades(state)[0] == 2


def test_exported_weights_are_promoted_from_their_file(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    told = run(state, "export", "step-30", str(file))
    assert told.exit_code == 0, told.output
    assert {each.name for each in tmp_path.glob("*mine*")} == {"mine.pt"}
    assert run(state, "show", str(file)).exit_code == 0
    assert run(state, "promote", str(file)).exit_code == 0
    assert trades(state) == (3, 2, weights_digest(weights(3)))


def test_a_file_of_weights_must_be_tensors_by_name_of_this_network(
    state: Path, tmp_path: Path
) -> None:
    before = trades(state)
    file = tmp_path / "other.pt"
    for content, says in (
        (None, "cannot be read"),
        ([1.0], "does not hold tensors by name"),
        ({"layer.weight": torch.zeros(3)}, "does not fit the configured network"),
        (os.system, "cannot be read"),
    ):
        if content is None:
            file.write_bytes(b"no weights")
        else:
            torch.save(content, file)
        told = run(state, "promote", str(file))
        assert told.exit_code == 1
        assert says in told.stderr
    assert trades(state) == before
    assert "must end in .pt" in run(state, "export", "step-30", str(tmp_path / "x.bin")).stderr
