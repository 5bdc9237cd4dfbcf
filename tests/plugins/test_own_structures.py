"""Option structures of a user's own: registered, noted by what is made with them, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trading as td
from tests.live.market import FirstMinutes, serving, settings_for, trade
from trading.app.tuning.plan import plan_of_markets
from trading.cli.main import app
from trading.cli.tune import _begin
from trading.config import Settings, load_settings
from trading.envs.catalogue import ACTION_COUNT, action_count
from trading.envs.history import History
from trading.errors import CheckpointError, DataError, PluginError, UnknownName
from trading.evaluation.simulated_history import write_simulated_history
from trading.evaluation.watched_env import POSITIONS, position_names
from trading.execution.events import DecisionMade, OrderAccepted, TermsAdopted
from trading.execution.journal import Journal
from trading.learning.champion import AccountChampion
from trading.learning.champion.owner_choice import OwnerChoice
from trading.learning.checkpoints import CheckpointStore, verify, write_module_weights
from trading.learning.noted_catalogue import CATALOGUE
from trading.learning.policy import Policy
from trading.live.assembly import (
    catalogue_of,
    champion_notes,
    check_begun_with,
    check_plugins,
    chosen_plugins,
    fee_schedule,
    journal_path,
    model_config,
    policy_of,
    trading_rules,
)
from trading.live.changed_settings import trading_settings
from trading.plugins.plugin_registry import REGISTRY

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "jade_lizard.py"
MINE = """
import numpy as np
import trading as td

@td.register_structure("wing", expiries=["far"])
def wing():
    return [
        td.StructureLeg("put", -2, delta=0.35),
        td.StructureLeg("put", 1, width=-2.0, of=0),
        td.StructureLeg("put", 1, width=4.0, of=0),
    ]

@td.register_structure("lizard")
def lizard():
    return [
        td.StructureLeg("put", -1, delta=0.20),
        td.StructureLeg("call", -1, delta=0.30),
        td.StructureLeg("call", 1, width=2.0, of=1),
    ]

@td.register_trader("wings")
def wings(seed):
    wing = td.action("wing_far")

    def act(observation, first):
        allowed = observation["action_mask"]
        closes = np.where(allowed[:, td.CLOSE], td.CLOSE, td.HOLD)
        return np.where(allowed[:, wing], td.action("wing_far"), closes)

    return act
"""
NEAR_BOUGHT = (
    'td.StructureLeg("put", 1, delta=0.3, expiry="near"), '
    'td.StructureLeg("put", -1, delta=0.3, expiry="far")'
)
OTHER = MINE.replace("width=4.0", "width=5.0")


def overrides(folder: Path, content: str, *others: str, names: str = "wing,lizard") -> list[str]:
    (folder / "mine.py").write_text(content)
    return [f"plugins={folder / 'mine.py'}", f"env.structures={names}", *others]


def settings_with(folder: Path, content: str, *others: str, names: str = "wing,lizard") -> Settings:
    return load_settings(None, overrides(folder, content, *others, names=names), {})


def one_leg(leg: str, name: str = "wrong") -> str:
    return (
        "import trading as td\n\n"
        f'@td.register_structure("{name}")\ndef wrong():\n    return [{leg}]\n'
    )


LEG, PUT = "td.StructureLeg", 'td.StructureLeg("put", 1, delta=0.3), '


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (one_leg(f'{LEG}("cal", 1, delta=0.3)'), r"leg 0 \(1 'cal'\): right='cal': give one of"),
        (one_leg(f'{LEG}("call", 0, delta=0.3)'), "ratio=0: give whole contracts of one unit"),
        (one_leg(f'{LEG}("call", 1.5, delta=0.3)'), r"ratio=1\.5: give whole contracts"),
        (one_leg(f'{LEG}("call", 1)'), r"no strike given: say its strike by one of delta=0\.30"),
        (one_leg(f'{LEG}("call", 1, delta=0.3, at=0)'), "delta and at given: say its strike by"),
        (one_leg(f'{LEG}("call", 1, delta=30)'), r"delta=30: give an absolute delta of 0\.05 to"),
        (one_leg(f'{LEG}("call", 1, delta=0.3, of=0)'), "of=0: it goes with width; leave it out"),
        (one_leg(f'{PUT}{LEG}("put", 1, width=2)'), "leg 1 .* width=2: say from which earlier leg"),
        (one_leg(f'{PUT}{LEG}("put", 1, width=0, of=0)'), "width=0: give percent of the underly"),
        (one_leg(f'{PUT}{LEG}("call", 1, at=1)'), r"at=1: name an earlier option leg .*\(0\)"),
        (one_leg(f'{PUT}{LEG}("put", -1, at=0)'), "at=0: leg 0 is that contract already"),
        (one_leg(f'{PUT}{LEG}("put", 2, delta=0.3)'), "legs 0 and 1 are the same contract"),
        (one_leg(f'{LEG}("put", 2, delta=0.3)'), "all ratios are multiples of 2: divide them"),
        (one_leg(f'{LEG}("stock", 1)'), "it has no option: add one"),
        (one_leg(f'{PUT}{LEG}("stock", -1)'), "ratio=-1: stock is not sold short"),
        (one_leg(f'{PUT}{LEG}("stock", 1, delta=0.5)'), r"delta=0\.5: stock has no strike"),
        (
            one_leg(f'{PUT}{LEG}("call", -1, delta=0.3)'),
            "1 more calls are sold than bought, and 0 lots .* can lose without bound",
        ),
        (one_leg(PUT * 5), "it has 5 legs: give 1 to 4"),
        (one_leg("7"), r"it returned \[7\]: return a list of trading\.StructureLeg"),
        (one_leg(f'{LEG}("put", 1, strike=9)'), "failed in line 5: TypeError: .*'strike'"),
        (one_leg(PUT, "iron_condor"), "there is a strategy of this name in the catalogue"),
        (one_leg(PUT, "no name"), "a name is 1 to 32 of A-Z"),
        (one_leg(f'{LEG}("put", 1, delta=0.3, expiry="weekly")'), "expiry='weekly': give one of"),
        (one_leg(f'{LEG}("put", 1, delta=0.3, expiry="far")'), "leave it out, give expiries=.'far"),
        (
            one_leg(f'{PUT}{LEG}("put", -1, delta=0.2, expiry="near")'),
            "leg 0 names no expiry and others do",
        ),
        (
            one_leg(NEAR_BOUGHT),
            "leg 1 is sold with expiry='far': what is bought in an earlier expiry covers nothing",
        ),
        (MINE + MINE, "the name is taken by structure wing of"),
        (MINE.replace('["far"]', '["weekly"]'), r"expiries=\['weekly'\]: give one or more of near"),
        (MINE.replace("wing():", "wing(seed):"), "it must be a function without arguments"),
    ],
)
def test_what_is_no_structure_is_refused_by_key_and_value_with_the_way_out(
    tmp_path: Path, content: str, told: str
) -> None:
    settings = settings_with(tmp_path, content)
    with pytest.raises(PluginError, match=rf"plugins: structure .*mine\.py:? ?.*{told}"):
        check_plugins(settings)
    assert not REGISTRY.structures


def test_one_that_nobody_registers_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"env\.structures: there is no structure gone; registered are lizard, w"
    ):
        trading_rules(settings_with(tmp_path, MINE, names="gone"))


def test_they_are_actions_behind_the_others_of_rules_network_and_environment(
    tmp_path: Path,
) -> None:
    settings = settings_with(tmp_path, MINE, "env.size_levels=2")
    rules, count = trading_rules(settings), action_count(2, ACTION_COUNT + 3)
    assert [each.name for each in rules.structures] == ["wing", "lizard"]
    assert model_config(settings).action_count == count
    env = td.make_vector_env(4, settings, seed=1)
    assert env.single_action_space.n == count
    own = rules.structures
    assert td.action("lizard_near", structures=own) == ACTION_COUNT + 1
    assert td.action("wing_far_1of2", structures=own) == ACTION_COUNT + 3 + ACTION_COUNT - 2
    with pytest.raises(UnknownName, match="wing_far"):
        td.action("wing_far")
    assert trading_rules(Settings()).structures == ()


def test_a_file_that_is_edited_while_it_runs_changes_no_rules_that_were_made(
    tmp_path: Path,
) -> None:
    rules = trading_rules(settings_with(tmp_path, MINE))
    begun_with = chosen_plugins(settings_with(tmp_path, MINE))
    settings = settings_with(tmp_path, OTHER)
    assert trading_rules(settings).structures != rules.structures
    with pytest.raises(PluginError, match=r"env\.structures: wing \(\w+\), lizard .* is not wing"):
        check_begun_with(begun_with, chosen_plugins(settings))


def test_a_history_belongs_to_them(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE)
    made_for, folder = (trading_rules(settings), fee_schedule(settings)), tmp_path / "history"
    write_simulated_history(folder, 1, 3, *made_for)
    opened = History(folder, *made_for)
    assert opened.snapshots.legs.shape[1] == ACTION_COUNT + 3
    assert (opened.snapshots.most_units[:, ACTION_COUNT:] > 0.0).any()
    env = td.make_vector_env(2, settings, history=folder)
    assert env.reset()[0]["action_mask"].shape == (2, ACTION_COUNT + 3)
    with pytest.raises(DataError, match=r"\(action 38 \(wing_far\); action 39 \(lizard_near\); a"):
        td.make_vector_env(2, Settings(), history=folder)
    with pytest.raises(DataError, match=r"features \(action 38 \(wing_far\)\): write it again"):
        td.make_vector_env(2, settings_with(tmp_path, OTHER), history=folder)


def test_the_journal_names_them_with_their_digests(tmp_path: Path) -> None:
    before = trading_settings(settings_with(tmp_path, MINE))
    changed = trading_settings(settings_with(tmp_path, OTHER))
    assert before["env.structures"].startswith("wing (")
    wing, lizard = changed["env.structures"].split(", ")
    assert lizard in before["env.structures"] and wing not in before["env.structures"]
    assert before["actions"] == changed["actions"] == trading_settings(Settings())["actions"]


def test_a_model_is_refused_without_them_and_where_they_are_others(tmp_path: Path) -> None:
    state = f"paths.state_dir={tmp_path}"
    settings = settings_with(tmp_path, MINE, state)
    weights = Policy(model_config(settings), 3).weights()
    store = CheckpointStore(
        settings.paths.checkpoints, 5, noted={CATALOGUE: catalogue_of(settings)}
    )
    path = store.save(lambda directory: write_module_weights(directory, weights), {"step": 30})
    assert policy_of(settings, path).config.action_count == ACTION_COUNT + 3
    choice = OwnerChoice(settings.paths.checkpoints, 5, champion_notes(settings))
    choice.promote("step-30", model_config(settings), AccountChampion())
    champion = choice.champions.path(1)
    assert verify(champion)[CATALOGUE]["actions"].keys() >= {"wing_far", "lizard_near", "close"}
    plain = load_settings(None, [state], {})
    told = r"actions only there: lizard_far, lizard_near, wing_far\): use the program, env\.fea"
    for which in (path, champion):
        with pytest.raises(CheckpointError, match=told):
            policy_of(plain, which)
    with pytest.raises(CheckpointError, match=r"actions another here: wing_far\)"):
        policy_of(settings_with(tmp_path, OTHER), champion)
    with pytest.raises(CheckpointError, match="actions another here: lizard_near, lizard_far, win"):
        policy_of(settings_with(tmp_path, MINE, names="lizard,wing"), champion)


def test_a_model_of_today_is_taken_where_there_is_none(tmp_path: Path) -> None:
    settings = load_settings(None, [f"paths.state_dir={tmp_path}"], {})
    assert champion_notes(settings) == {}
    with_a_file = settings_with(tmp_path, MINE, names="[]")
    assert catalogue_of(with_a_file) == catalogue_of(settings)
    assert model_config(with_a_file).action_count == ACTION_COUNT


def test_a_search_goes_on_with_the_structures_that_it_was_begun_with(tmp_path: Path) -> None:
    plan = plan_of_markets(settings_with(tmp_path, MINE), 1, folds=1)
    _begin(tmp_path, plan, [], resume=False)
    _begin(tmp_path, plan, [], resume=True)
    edited = plan_of_markets(settings_with(tmp_path, OTHER), 1, folds=1)
    with pytest.raises(DataError, match=r"another search \(own structures is not what it was\)"):
        _begin(tmp_path, edited, [], resume=True)


def test_rules_open_them_in_a_backtest_that_names_them(tmp_path: Path) -> None:
    single = "env.sessions_per_episode=1"
    settings = settings_with(tmp_path, MINE, single, names="lizard,wing")
    result = td.backtest("wings", settings, simulated=4)
    names = position_names(result.structures)
    held = {names[k] for k in np.unique(result.position[result.position >= 0])}
    assert names[: len(POSITIONS)] == POSITIONS and "wing" in held <= {"none", "wing"}
    chosen = overrides(tmp_path, MINE, single, names="lizard,wing")
    words = [word for each in chosen for word in ("--set", each)]
    page = tmp_path / "sheet.html"
    result = CliRunner().invoke(
        app,
        ["backtest", "--simulated", "4", "--trader", "wings", "--html", str(page), *words],
    )
    assert result.exit_code == 0, result.output
    assert '"wing_far"' in page.read_text() and ">wing<" in page.read_text()


def test_the_example_has_structures_that_trade(tmp_path: Path) -> None:
    names = "jade_lizard,collar,broken_wing,diagonal"
    settings = load_settings(None, [f"plugins={EXAMPLE}", f"env.structures={names}"], {})
    env = td.make_vector_env(16, settings, seed=1)
    may = env.reset()[0]["action_mask"].any(axis=0)
    own = trading_rules(settings).structures
    for action in (
        "jade_lizard_far",
        "collar_near",
        "collar_far",
        "broken_wing_far",
        "diagonal_near_far",
    ):
        assert may[td.action(action, structures=own)], action


def test_live_orders_are_named_by_them_and_the_journal_is_read_without_the_file(
    tmp_path: Path,
) -> None:
    content = MINE.replace(
        "closes = np.where(allowed[:, td.CLOSE], td.CLOSE, td.HOLD)", "closes = 0"
    )
    chosen = overrides(tmp_path, content, "policy.trader=wings")
    settings = settings_for(tmp_path, *chosen)
    with serving(FirstMinutes(12)) as (endpoint, begin):
        trade(settings, endpoint, begin)
    (tmp_path / "mine.py").unlink()
    with Journal(journal_path(settings), read_only=True) as journal:
        events, account = list(journal.events()), journal.fold()
    ordered = [each.order for each in events if isinstance(each, OrderAccepted)]
    assert ordered and {each.strategy for each in ordered} == {"wing_far"}
    assert {each.action_name for each in events if isinstance(each, DecisionMade)} >= {"wing_far"}
    assert [e for e in events if isinstance(e, TermsAdopted)] == []  # The actor's, not the trader's
    assert {each.strategy for each in account.strategies.values()} == {"wing_far"}
    state = ["--set", f"paths.state_dir={tmp_path}", "--set", "symbols=[AAA, BBB]"]
    for words in (["report", "--json"], ["account", "status", "--json"]):
        result = CliRunner().invoke(app, [*words, *state])
        assert result.exit_code == 0, result.output
        assert "wing_far" in json.dumps(json.loads(result.stdout))
    closes = settings_for(tmp_path, "policy.trader=closes", f"plugins={tmp_path / 'closes.py'}")
    (tmp_path / "closes.py").write_text(
        "import numpy as np\nimport trading as td\n\n"
        '@td.register_trader("closes")\ndef closes(seed):\n'
        "    return lambda seen, first: np.where(seen['action_mask'][:, td.CLOSE], td.CLOSE, 0)\n"
    )
    with serving(FirstMinutes(16)) as (endpoint, begin):
        trade(closes, endpoint, begin)
    with Journal(journal_path(settings), read_only=True) as journal:
        assert not journal.fold().strategies
