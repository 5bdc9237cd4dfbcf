"""Features of a user's own: behind the others, noted by what is made with them, or refused."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

import trading as td
from trading.app.shared_learner import shared_champions
from trading.app.tuning.plan import plan_of_markets
from trading.cli.main import app
from trading.cli.tune import _begin
from trading.config import Settings, load_settings
from trading.envs.features import OTHERS_COUNT
from trading.envs.history import History
from trading.envs.market_features import MARKET_FEATURE_COUNT
from trading.envs.simulated_markets import SimulatedMarkets
from trading.errors import CheckpointError, ConfigError, DataError, PluginError, UnknownName
from trading.evaluation.simulated_history import write_simulated_history
from trading.execution.events import OwnerCommand, PromotedBy
from trading.execution.owner import Command
from trading.learning import build
from trading.learning.build import Placement
from trading.learning.champion import AccountChampion
from trading.learning.champion.owner_choice import OwnerChoice
from trading.learning.champion.store import ChampionStore, Promotion
from trading.learning.checkpoints import CheckpointStore, verify, write_module_weights
from trading.learning.noted_catalogue import CATALOGUE, noted_catalogue
from trading.learning.policy import Policy
from trading.live.actor import LiveMarket
from trading.live.assembly import (
    champion_change,
    champion_notes,
    check_plugins,
    chosen_plugins,
    fee_schedule,
    journal_path,
    model_config,
    own_features,
    own_reward,
    policy_of,
    rule_based,
    trading_rules,
)
from trading.live.changed_settings import trading_settings
from trading.live.endpoint import Endpoint

COUNT = len(td.FEATURES)
MINE = """
import numpy as np
import trading as td

SCALE = 1000.0

@td.register_feature("last_range")
def last_range(market):
    \"\"\"High less low of the last bar, in 0.1 % of the price.\"\"\"
    if len(market.close) == 0:
        return np.nan
    return SCALE * (market.high[-1] - market.low[-1]) / market.close[-1]

@td.register_feature("listed")
def listed(market):
    return len(market.strike) / 100.0

@td.register_reward("seen")
def seen(bar):
    return float(bar.observation[42])
"""


def settings_with(
    folder: Path, content: str, *overrides: str, names: str = "last_range,listed"
) -> Settings:
    (folder / "mine.py").write_text(content)
    chosen = [f"plugins={folder / 'mine.py'}", f"env.features={names}", *overrides]
    return load_settings(None, chosen, {})


def test_they_stand_behind_the_others_and_change_nothing_else(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE)
    own, usual = td.make_vector_env(6, settings, seed=2), td.make_vector_env(6, Settings(), seed=2)
    assert own.single_observation_space["observations"].shape == (COUNT + 2,)
    (seen, _), (same, _) = own.reset(), usual.reset()
    markets = own._markets
    assert isinstance(markets, SimulatedMarkets)
    rng, ranges = np.random.default_rng(5), []
    for _ in range(420):
        mask = seen["action_mask"]
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
        (seen, rewards, *_), (same, before, *_) = own.step(actions), usual.step(actions)
        assert seen["observations"][:, :COUNT].tobytes() == same["observations"].tobytes()
        assert rewards.tobytes() == before.tobytes()
        assert (seen["action_mask"] == same["action_mask"]).all()
        for b in range(6):
            bar, (last_range, listed) = markets.market_bar(b), seen["observations"][b, COUNT:]
            if len(bar.close) == 0:
                assert last_range == 0.0
                continue
            ranges.append(1000.0 * (bar.high[-1] - bar.low[-1]) / bar.close[-1])
            assert last_range == np.float32(min(ranges[-1], 5.0))
            assert listed == np.float32(len(bar.strike) / 100.0)
            assert bar.close_ns > bar.now_ns >= bar.open_ns and bar.close[-1] == bar.spot
    assert len(set(ranges)) > 1000


SIX = [f"number_{k}" for k in range(6)]
NUMBERED = "import trading as td\n" + "".join(
    f'@td.register_feature("{name}")\ndef {name}(market):\n    return {k} / 2\n'
    for k, name in enumerate(SIX)
)
SEES = """
import numpy as np

@td.register_trader("sees")
def sees(seed):
    def act(observation, first):
        assert (td.feature(observation, "number_5") == 2.5).all()
        print(td.feature(observation, "others_delta").tolist())
        return np.full(len(first), td.HOLD)

    return act
"""


def test_what_is_open_on_other_underlyings_is_not_taken_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six of them are as many numbers as tell of the other underlyings."""
    names, first = ",".join(SIX), np.ones(2, np.bool_)
    chosen = settings_with(tmp_path, NUMBERED + SEES, names=names)
    seen, _ = td.make_vector_env(2, chosen, seed=1).reset()
    with pytest.raises(UnknownName, match=r"the 6 numbers .* not known which .*features=settings"):
        td.feature(seen, "others_delta")
    with pytest.raises(UnknownName, match=r"set env\.underlyings_per_account above 1"):
        td.feature(seen, "others_delta", features=chosen.env.features)
    with pytest.raises(PluginError, match=r"set env\.underlyings_per_account above 1"):
        rule_based(chosen, 7, "sees")(seen, first)
    assert td.feature(seen, "number_1", features=SIX).tolist() == [0.5, 0.5]
    with pytest.raises(
        UnknownName, match=r"no feature 'number_1'.*features=settings\.env\.features"
    ):
        td.feature(seen, "number_1")
    with pytest.raises(UnknownName, match=r"no feature 'numbr_1'; near it are number_1, "):
        td.feature(seen, "numbr_1", features=SIX)

    both = settings_with(tmp_path, NUMBERED + SEES, "env.underlyings_per_account=2", names=names)
    env = td.make_vector_env(2, both, seed=1)
    seen, _ = env.reset()
    opens = int(np.flatnonzero(seen["action_mask"][0])[2])
    seen, *_ = env.step(np.array([opens, td.HOLD]))
    shown = seen["observations"]
    assert shown.shape == (2, COUNT + 6 + OTHERS_COUNT) and shown[1, -5] != 0.0
    for name, place in (("others_open", -6), ("others_delta", -5), ("others_pnl", -1)):
        assert (td.feature(seen, name, features=SIX) == shown[:, place]).all()
    with pytest.raises(UnknownName, match=r"the 12 numbers .* not known"):
        td.feature(seen, "others_delta")
    with pytest.raises(UnknownName, match=r"the 12 numbers .* not known"):
        td.feature(seen, "others_delta", features=SIX[:2])
    with pytest.raises(UnknownName, match=r"number_0, .*the observation has 12 numbers behind"):
        td.feature(seen, "rsi", features=[*SIX, *SIX, "more"])
    assert rule_based(both, 7, "sees")(seen, first).tolist() == [td.HOLD] * 2
    assert json.loads(capsys.readouterr().out) == shown[:, -5].tolist()


WATCHES = """
import numpy as np

@td.register_trader("watches")
def watches(seed):
    def act(observation, first):
        print(td.feature(observation, "order_step").tolist())
        return np.full(len(first), td.HOLD)

    return act
"""


def test_orders_that_work_are_seen_behind_them_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, works = ",".join(SIX[:3]), "execution.style=working"
    settings = settings_with(tmp_path, NUMBERED + WATCHES, works, names=names)
    env = td.make_vector_env(2, settings, seed=1)
    seen, _ = env.reset()
    opens = int(np.flatnonzero(seen["action_mask"][0])[2])
    seen, *_ = env.step(np.array([opens, td.HOLD]))
    shown = seen["observations"]
    assert shown.shape == (2, COUNT + 3 + 3)
    for name, place in (("order_opens", -3), ("order_closes", -2), ("order_step", -1)):
        assert (td.feature(seen, name, features=SIX[:3]) == shown[:, place]).all()
        assert (shown[:, td.feature_index(name)] == shown[:, place]).all()
    assert td.feature(seen, "order_opens", features=SIX[:3]).tolist() == [1.0, 0.0]
    assert rule_based(settings, 7, "watches")(seen, np.ones(2, np.bool_)).tolist() == [td.HOLD] * 2
    assert json.loads(capsys.readouterr().out) == shown[:, -1].tolist()
    with pytest.raises(
        UnknownName, match=r"seen with execution\.style=working; .*features=settings"
    ):
        td.feature(seen, "order_step")

    not_working = settings_with(tmp_path, NUMBERED + WATCHES, names=names)
    seen, _ = td.make_vector_env(2, not_working, seed=1).reset()
    for known in (None, SIX[:3]):
        with pytest.raises(UnknownName, match=r"order_step is seen with execution\.style=working"):
            td.feature(seen, "order_step", features=known)


def test_a_reward_reads_them(tmp_path: Path) -> None:
    env = td.make_vector_env(3, settings_with(tmp_path, MINE, "env.reward=seen"), seed=1)
    env.reset()
    seen, rewards, *_ = env.step(np.full(3, td.HOLD))
    assert rewards.tolist() == seen["observations"][:, COUNT].tolist() != [0.0] * 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return market.volume", r"cannot be compiled \(line 9\): .*volume"),
        ("market.iv[:] = 0.2; return 0.0", r"cannot be compiled \(line 9\): .*setitem"),
        ("return len(market.close)", "returns int64: it must return one float"),
        ("return np.random.rand()", "gave .* and then .* for the same bar"),
        ("return np.nan * market.spot", "gave nan where all is known"),
        ("return market.high[-1]", "failed: IndexError"),
    ],
)
def test_what_is_no_feature_is_refused_before_anything_starts(
    tmp_path: Path, code: str, message: str
) -> None:
    content = (
        "import numpy as np\nimport trading as td\n\n\n\n\n"
        f'@td.register_feature("wrong")\ndef wrong(market):\n    {code}\n'
    )
    settings = settings_with(tmp_path, content, names="wrong")
    with pytest.raises(PluginError, match=rf"feature wrong of .*mine\.py {message}"):
        check_plugins(settings)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("gone", r"env\.features: there is no feature gone; registered are last_range, listed"),
        ("rsi", "there is a feature of this name already"),
        ("others_pnl", "there is a feature of this name already"),
        ("order_step", "there is a feature of this name already"),
    ],
)
def test_training_ends_before_ray_starts(tmp_path: Path, names: str, message: str) -> None:
    settings_with(tmp_path, MINE.replace('"seen"', '"other"'))
    if names != "gone":
        (tmp_path / "mine.py").write_text(MINE.replace('"listed"', f'"{names}"'))
    chosen = (f"plugins={tmp_path / 'mine.py'}", f"env.features={names}")
    result = CliRunner().invoke(
        app,
        [
            *("train", "--steps", "1000", "--set", f"paths.state_dir={tmp_path / 'var'}"),
            *(word for each in chosen for word in ("--set", each)),
        ],
    )
    assert result.exit_code == 1, result.output
    assert message.replace("\\", "") in " ".join(result.output.split())
    assert "Ray" not in result.output and not (tmp_path / "var").exists()


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"env\.features.*repeated: mine"):
        load_settings(None, ["env.features=mine,other,mine"], {})


def test_a_history_belongs_to_them(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE)
    made_for = (trading_rules(settings), fee_schedule(settings))
    own, folder = own_features(settings), tmp_path / "history"
    write_simulated_history(folder, 1, 3, *made_for, features=own)
    opened = History(folder, *made_for, own)
    assert opened.snapshots.features.shape[1] == MARKET_FEATURE_COUNT + 2
    env = td.make_vector_env(2, settings, history=folder)
    seen, _ = env.reset()
    at = env._markets.snapshot_of
    assert (seen["observations"][:, COUNT:] == opened.snapshots.features[at, -2:]).all()
    with pytest.raises(DataError, match=r"\(feature last_range; feature listed\)"):
        td.make_vector_env(2, Settings(), history=folder)
    settings = settings_with(tmp_path, MINE.replace("1000.0", "500.0"))
    with pytest.raises(DataError, match=r"features \(feature last_range\): write it again"):
        td.make_vector_env(2, settings, history=folder)


def test_the_journal_names_them_with_their_digests(tmp_path: Path) -> None:
    before = trading_settings(settings_with(tmp_path, MINE))["env.features"]
    assert before.startswith("last_range (") and ", listed (" in before
    changed = trading_settings(settings_with(tmp_path, MINE.replace("1000.0", "500.0")))
    assert changed["env.features"] != before
    assert changed["env.features"].split(", ")[1] == before.split(", ")[1]


def test_a_champion_is_refused_without_them_and_where_they_are_others(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE, f"paths.state_dir={tmp_path}")
    weights = Policy(model_config(settings), 3).weights()
    noted = {CATALOGUE: noted_catalogue(own_features(settings))}
    store = CheckpointStore(settings.paths.checkpoints, 5, noted=noted)
    path = store.save(lambda directory: write_module_weights(directory, weights), {"step": 30})
    assert policy_of(settings, path).config.observation_size == COUNT + 2
    choice = OwnerChoice(settings.paths.checkpoints, 5, champion_notes(settings))
    choice.promote("step-30", model_config(settings), AccountChampion())
    champion = choice.champions.path(1)
    assert verify(champion)[CATALOGUE]["features"].keys() >= {"last_range", "listed", "rsi"}

    plain = load_settings(None, [f"paths.state_dir={tmp_path}"], {})
    told = r"features only there: last_range, listed\): use the program, env\.features, env"
    for which in (path, champion):
        with pytest.raises(CheckpointError, match=told):
            policy_of(plain, which)
    result = CliRunner().invoke(
        app, ["checkpoints", "promote", "champion-1", "--set", f"paths.state_dir={tmp_path}"]
    )
    assert result.exit_code == 1
    assert "features only there: last_range, listed" in " ".join(result.output.split())
    changed = settings_with(tmp_path, MINE.replace("1000.0", "500.0"))
    with pytest.raises(CheckpointError, match=r"features another here: last_range\)"):
        policy_of(changed, champion)
    turned = settings_with(tmp_path, MINE, names="listed,last_range")
    with pytest.raises(CheckpointError, match=r"features another here: listed, last_range\)"):
        policy_of(turned, champion)


def test_no_champion_is_loaded_that_saw_another_feature(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE)
    weights = Policy(model_config(settings), 3).weights()
    store = ChampionStore(tmp_path, 3, noted=champion_notes(settings))
    why = Promotion(1, PromotedBy.START, "of the test")
    store.write(lambda folder: write_module_weights(folder, weights), why, AccountChampion())
    assert store.load(1).version == 1
    edited = champion_notes(settings_with(tmp_path, MINE.replace("1000.0", "500.0")))
    with pytest.raises(CheckpointError, match=r"features another here: last_range\): use the"):
        ChampionStore(tmp_path, 3, noted=edited).load(1)


def test_champions_of_a_shared_learner_note_them(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MINE, f"paths.state_dir={tmp_path}")
    weights, champions = Policy(model_config(settings), 3).weights(), shared_champions(settings)
    why = Promotion(1, PromotedBy.START, "of the test")
    champions.write(lambda folder: write_module_weights(folder, weights), why, AccountChampion())
    assert verify(champions.path(1))[CATALOGUE] == noted_catalogue(own_features(settings))


def test_a_search_goes_on_with_the_features_that_it_was_begun_with(tmp_path: Path) -> None:
    plan = plan_of_markets(settings_with(tmp_path, MINE), 1, folds=1)
    _begin(tmp_path, plan, [], resume=False)
    _begin(tmp_path, plan, [], resume=True)
    changed = settings_with(tmp_path, MINE.replace("1000.0", "500.0"))
    edited = plan_of_markets(changed, 1, folds=1)
    with pytest.raises(DataError, match=r"another search \(own features is not what it was\)"):
        _begin(tmp_path, edited, [], resume=True)
    file = tmp_path / "search.json"
    then = json.loads(file.read_text())
    del then["own features"]
    file.write_text(json.dumps(then))
    _begin(tmp_path, edited, [], resume=True)  # One of an older version does not tell.


def test_a_promotion_while_it_trades_is_held_against_what_trades(tmp_path: Path) -> None:
    """A file that was edited meanwhile says nothing of the code that trades."""
    settings = settings_with(tmp_path, MINE, f"paths.state_dir={tmp_path}")
    weights = Policy(model_config(settings), 3).weights()
    trades = champion_notes(settings)
    for number, content in enumerate((MINE, MINE.replace("1000.0", "500.0")), 1):
        notes = champion_notes(settings_with(tmp_path, content))
        store = CheckpointStore(settings.paths.checkpoints, 5, noted=notes)
        store.save(lambda folder: write_module_weights(folder, weights), {"step": number})
    command = Command(OwnerCommand.PROMOTE, "alice", which="step-1")
    champion_change(settings, command, AccountChampion(), trades)
    assert ChampionStore(settings.paths.checkpoints, 5, noted=trades).load(1).number == 1
    with pytest.raises(CheckpointError, match=r"features another here: last_range\)"):
        champion_change(
            settings, msgspec.structs.replace(command, which="step-2"), AccountChampion(), trades
        )


def test_a_live_market_that_begins_again_refuses_a_file_that_was_edited(tmp_path: Path) -> None:
    """As after its process died: it imports the file anew, and champions saw the former feature."""
    begun_with = chosen_plugins(settings_with(tmp_path, MINE))
    settings = settings_with(
        tmp_path, MINE.replace("1000.0", "500.0"), f"paths.state_dir={tmp_path / 'var'}"
    )
    live = LiveMarket(settings, Endpoint("ws://nowhere", "http://nowhere", "key"), begun_with)
    live._thread.join(60.0)
    progress = live.progress()
    assert (progress.phase, progress.failure_kind) == ("failed", "PluginError")
    assert "env.features: last_range (" in progress.failure
    assert "which this run began with: a file of plugins was changed" in progress.failure
    assert not journal_path(settings).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_policy_learns_from_them_on_runners_of_their_own(tmp_path: Path) -> None:
    chosen = [
        "env.reward=seen",
        "learning.num_env_runners=1",
        "learning.num_envs=8",
        "learning.rollout_length=16",
        f"paths.state_dir={tmp_path}",
        "model.feature_hidden=8",
        "model.actor_hidden=8",
        "model.critic_hidden=8",
    ]
    settings = settings_with(tmp_path, MINE, *chosen)
    made_for = (trading_rules(settings), fee_schedule(settings), Placement(0, 0, {}))
    own, reward = own_features(settings), own_reward(settings)
    algorithm = build.build_algorithm(
        settings, model_config(settings), *made_for, reward=reward, features=own
    )
    try:
        while algorithm.steps_trained < 3 * 8 * 16:
            algorithm.train()
        noted = {CATALOGUE: noted_catalogue(own)}
        store = CheckpointStore(settings.paths.checkpoints, 5, noted=noted)
        path = store.save(algorithm.save_to_path, {"step": 1, "version": 1})
        assert build.warm_start(algorithm, store, None, noted[CATALOGUE]).origin is not None
        with pytest.raises(CheckpointError, match="features only there: last_range, listed"):
            build.warm_start(algorithm, store, None, noted_catalogue())
    finally:
        algorithm.stop()
    act = td.load_policy(path, settings)
    assert td.backtest(act, settings, simulated=1).trades.shape == (1,)


def test_the_example_is_shown_and_backtests_go_with_it() -> None:
    file = Path(__file__).parents[2] / "examples" / "plugins" / "put_call_balance.py"
    chosen = (f"plugins={file}", "env.features=put_call_balance")
    env = td.make_vector_env(4, load_settings(None, chosen, {}), seed=1)
    balance = env.reset()[0]["observations"][:, COUNT]
    assert (np.abs(balance) <= 1.0).all() and (balance != 0.0).any()
    words = [word for each in chosen for word in ("--set", each)]
    result = CliRunner().invoke(app, ["backtest", "--simulated", "1", "--json", *words])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["traders"]
