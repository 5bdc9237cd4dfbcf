"""Files of a user's own: what they register is there, and what is wrong is told."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trading as td
from trading.cli.main import app
from trading.config import Settings, load_settings
from trading.envs.catalogue import ACTION_COUNT, CLOSE, HOLD
from trading.envs.features import FEATURE_COUNT
from trading.errors import ConfigError, PluginError, TradingError, UnknownName
from trading.evaluation.baselines import baselines
from trading.live.assembly import check_plugins, fee_schedule, rule_based
from trading.live.changed_settings import trading_settings
from trading.plugins import discovery
from trading.plugins.discovery import load_plugins
from trading.plugins.plugin_registry import REGISTRY, Plugin
from trading.plugins.rule_based import RuleBased

HOLDS = """
import numpy as np
import trading as td

@td.register_trader("holds")
def holds(seed):
    return lambda observation, first: np.full(len(first), td.HOLD)
"""


def settings_with(folder: Path, content: str, *overrides: str, name: str = "mine.py") -> Settings:
    (folder / name).write_text(content)
    return load_settings(None, [f"plugins={folder / name}", *overrides], {})


def situation(rows: int, *allowed: int) -> dict[str, np.ndarray]:
    mask = np.zeros((rows, ACTION_COUNT), np.bool_)
    mask[:, [HOLD, *allowed]] = True
    return {"observations": np.zeros((rows, FEATURE_COUNT), np.float32), "action_mask": mask}


def acting(act: object) -> RuleBased:
    return RuleBased(Plugin("trader", "mine", lambda seed: act, "m", "mine.py", ""), 7)


def test_a_file_is_loaded_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, HOLDS, "policy.trader=holds")
    first = load_plugins(settings).traders["holds"]
    assert load_plugins(settings).traders["holds"] is first
    trader = rule_based(settings, 7)
    assert trader(situation(3), np.ones(3, np.bool_)).tolist() == [HOLD] * 3
    assert first.file == str(tmp_path / "mine.py") and len(first.digest) == 12


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1 / 0", "line 1: ZeroDivisionError: division by zero"),
        ("\nx = (", "line 2: SyntaxError"),
        ("import no_such_package_of_mine", "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (HOLDS + HOLDS, "the name is taken by trader holds of"),
        (HOLDS.replace('"holds"', '"not a name"'), "a name is 1 to 32 of A-Z"),
        (HOLDS.replace("(seed)", "()"), "it must be a function of one argument, seed"),
    ],
)
def test_a_file_that_cannot_be_is_told_and_leaves_nothing(
    tmp_path: Path, content: str, told: str
) -> None:
    settings = settings_with(tmp_path, content)
    with pytest.raises(PluginError, match=f"(?s)plugins: .*mine.py.*{told}"):
        load_plugins(settings)
    assert not REGISTRY.traders


@pytest.mark.parametrize("name", ["gone.py", "notes.txt"])
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("")
    settings = load_settings(None, [f"plugins={tmp_path / name}"], {})
    with pytest.raises(PluginError, match=f"plugins: .*{name}.*name an existing one"):
        load_plugins(settings)


def test_two_files_cannot_have_one_name(tmp_path: Path) -> None:
    load_plugins(settings_with(tmp_path, HOLDS, name="one.py"))
    with pytest.raises(PluginError, match=r"two\.py: the name is taken by trader holds of .*one"):
        load_plugins(settings_with(tmp_path, HOLDS, name="two.py"))
    assert REGISTRY.traders["holds"].file.endswith("one.py")


def test_a_trader_that_nobody_registered_is_told_with_those_there_are(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, HOLDS, "policy.trader=hodls")
    with pytest.raises(PluginError, match=r"policy\.trader: .*no trader hodls; registered are"):
        check_plugins(settings)
    with pytest.raises(PluginError, match=r"plugins=my_rules\.py"):
        td.backtest("nobody", Settings(), simulated=1)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda observation, first: [0], r"returned int64 \[1\]: .* int64 \[2\]"),
        (lambda observation, first: np.zeros(2), "returned float64"),
        (lambda observation, first: np.array([0, 999]), "chose action 999 in row 1"),
        (lambda observation, first: np.array([0, -1]), "chose action -1 in row 1"),
        (lambda observation, first: np.array([0, CLOSE]), "chose close in row 1, where the mask"),
        (
            lambda observation, first: observation["nothing"],
            "failed at a decision: KeyError: 'nothing': mend it, or .* policy.trader",
        ),
    ],
)
def test_a_trader_is_held_to_what_it_may_return(act: object, told: str) -> None:
    with pytest.raises(PluginError, match=f"trader mine of mine.py {told}"):
        acting(act)(situation(2), np.zeros(2, np.bool_))


def test_a_trader_cannot_change_what_it_is_shown() -> None:
    def act(observation: dict[str, np.ndarray], first: np.ndarray) -> np.ndarray:
        observation["action_mask"][:] = True
        return np.full(len(first), CLOSE)

    with pytest.raises(PluginError, match="mask does not allow"):
        acting(act)(situation(1), np.zeros(1, np.bool_))


@pytest.mark.parametrize("made", [None, lambda observation: 0])
def test_what_cannot_act_is_refused_before_anything_is_traded(made: object) -> None:
    with pytest.raises(PluginError, match=r"it must return a function of two arguments"):
        acting(made)


FEES = """
import trading as td

@td.register_fees("mine")
def mine(configured):
    return {value}
"""


def test_a_fee_schedule_takes_the_place_of_the_configured_one(tmp_path: Path) -> None:
    content = FEES.format(value="configured._replace(commission=configured.commission / 2)")
    settings = settings_with(
        tmp_path, content, "execution.fee_schedule=mine", "execution.commission=1.0"
    )
    assert fee_schedule(settings).commission == 0.5
    assert fee_schedule(settings).orf_fee == settings.execution.orf_fee
    told = trading_settings(settings)["execution.fee_schedule"]
    assert told == f"mine ({REGISTRY.fee_schedules['mine'].digest})"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0.0", "returned 0.0: it must return a trading.FeeSchedule"),
        ("configured._replace(commission=-1.0)", "commission=-1.0: every rate must be"),
        ("configured._replace(orf_fee=float('nan'))", "orf_fee=nan"),
        ("configured._replace(orf_fee=float('inf'))", "orf_fee=inf"),
        ("configured._replace(commission=True)", "commission=True"),
        ("configured.nothing", "line 6: AttributeError"),
    ],
)
def test_a_fee_schedule_that_is_none_is_refused(tmp_path: Path, value: str, told: str) -> None:
    settings = settings_with(tmp_path, FEES.format(value=value), "execution.fee_schedule=mine")
    with pytest.raises(PluginError, match=f"fee schedule mine of .*{told}"):
        check_plugins(settings)


def test_a_baseline_stands_beside_the_others(tmp_path: Path) -> None:
    load_plugins(settings_with(tmp_path, HOLDS.replace("register_trader", "register_baseline")))
    assert list(baselines(7))[-1] == "holds"


def test_a_baseline_cannot_take_the_name_of_another(tmp_path: Path) -> None:
    content = HOLDS.replace("register_trader", "register_baseline").replace('"holds"', '"random"')
    load_plugins(settings_with(tmp_path, content))
    with pytest.raises(PluginError, match=r"baseline random of .*choose another name"):
        baselines(7)


def test_an_installed_package_tells_of_its_modules_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package_of_a_test.py").write_text(HOLDS)
    (tmp_path / "broken_of_a_test.py").write_text(HOLDS + "1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    found = [EntryPoint("mine", "package_of_a_test", discovery.GROUP)]
    monkeypatch.setattr(discovery, "entry_points", lambda group: found)
    assert "holds" in load_plugins(Settings()).traders
    found[:] = [EntryPoint("broken", "broken_of_a_test", discovery.GROUP)]
    REGISTRY.traders.clear()
    with pytest.raises(PluginError, match=r"plug-in broken \(broken_of_a_test\).*ZeroDivision"):
        load_plugins(Settings())
    assert not REGISTRY.traders


def test_a_file_that_was_edited_is_loaded_again_and_its_digest_says_so(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, HOLDS, "policy.trader=holds")
    before = trading_settings(settings)["policy.trader"]
    settings_with(tmp_path, HOLDS.replace("td.HOLD)", "0 + 1  )"))
    assert trading_settings(settings)["policy.trader"] != before
    closes = situation(2, CLOSE), np.zeros(2, np.bool_)
    assert rule_based(settings, 7)(*closes).tolist() == [CLOSE, CLOSE]
    (tmp_path / "mine.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            load_plugins(settings)
    assert not REGISTRY.traders


def test_a_name_that_is_none_is_told_with_those_near_it() -> None:
    with pytest.raises(UnknownName, match=r"iron_condor_far_d30_15.*docs/actions.md"):
        td.action("iron_condor_far_d30")
    with pytest.raises(UnknownName, match=r"rsi.*docs/observation.md"):
        td.feature(situation(1), "rsi_14")


def test_strategies_have_their_plugins_in_common(tmp_path: Path) -> None:
    file = tmp_path / "several.yaml"
    file.write_text("strategies: {one: {plugins: [a.py]}, two: {policy: {trader: calm}}}")
    with pytest.raises(ConfigError, match=r"strategies\.one\.plugins.*in common"):
        load_settings(file, [], {})
    file.write_text("plugins: [a.py]\nstrategies: {one: {}, two: {policy: {trader: calm}}}")
    assert load_settings(file, ["strategy=two"], {}).policy.trader == "calm"
    assert not load_settings(file, ["strategy=two"], {}).learns
    assert load_settings(file, ["strategy=one"], {}).learns


def test_every_error_of_a_plugin_is_one_of_the_family() -> None:
    assert issubclass(PluginError, TradingError) and issubclass(UnknownName, TradingError)


def test_the_examples_stand_in_a_backtest_beside_the_baselines() -> None:
    files = sorted((Path(__file__).parents[2] / "examples" / "plugins").glob("*.py"))
    result = CliRunner().invoke(
        app,
        [
            *("backtest", "--simulated", "3", "--json", "--trader", "calm_condor"),
            *("--set", f"plugins={','.join(map(str, files))}"),
            *("--set", "execution.fee_schedule=no_commission"),
            *("--set", "env.sessions_per_episode=1"),
        ],
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["asked"] == "calm_condor, rule-based"
    assert told["about"]["trader"].startswith("trader calm_condor of ")
    named = {"calm_condor, rule-based", "weekly_straddle", "secured_put", "hold cash"}
    assert named < set(told["traders"])
    bought = told["traders"]["weekly_straddle"]["sessions"]
    assert [each["fills"] for each in bought] == [1, 1, 1]
    assert "no_commission" in told["about"]["fees"]


def test_a_trader_that_is_none_ends_the_command_with_one_line() -> None:
    result = CliRunner().invoke(app, ["backtest", "--simulated", "1", "--trader", "nobody"])
    assert result.exit_code == 1
    assert "--trader: there is no trader nobody" in result.output
    assert "Traceback" not in result.output
