"""Strategies: each the one settings tree with changes of its own, checked as such."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_config import mistakes_in, only_mistake_in, settings_from
from trading.cli.main import app
from trading.config import load_settings

ROOT = Path(__file__).parents[1]
THREE = """
symbols: [SPY]
account: {max_positions: 7}
strategies:
  plain:
  small: {symbols: [QQQ, IWM], account: {initial_capital: 5000}}
  still: {learning: {online: false}, seed: 9}
"""


def test_a_strategy_is_the_tree_with_its_changes_and_a_folder_of_its_own(tmp_path: Path) -> None:
    small = settings_from(tmp_path, THREE, "strategy=small", "paths.state_dir=/state")
    assert small.symbols == ("QQQ", "IWM")
    assert (small.account.id, small.account.initial_capital) == ("small", 5000.0)
    assert small.account.max_positions == 7
    assert small.paths.state_dir == Path("/state/small")
    assert small.paths.checkpoints == Path("/state/small/checkpoints")
    assert (small.strategy, small.strategies) == ("small", {})
    still = settings_from(tmp_path, THREE, STRATEGY="still")
    assert (still.symbols, still.seed, still.learning.online) == (("SPY",), 9, False)
    assert settings_from(tmp_path, THREE, "strategy=plain").symbols == ("SPY",)


def test_without_a_choice_the_settings_are_the_common_ones_and_tell_all_strategies(
    tmp_path: Path,
) -> None:
    settings = settings_from(tmp_path, THREE)
    assert list(settings.strategies) == ["plain", "small", "still"]
    assert (settings.strategy, settings.account.id, settings.symbols) == (None, "paper", ("SPY",))


def test_common_checkpoints_have_a_folder_for_each_strategy(tmp_path: Path) -> None:
    common = "paths: {checkpoint_dir: /c}\n" + THREE
    assert settings_from(tmp_path, common, "strategy=small").paths.checkpoints == Path("/c/small")
    own = f"{common}  own: {{paths: {{checkpoint_dir: /own}}}}\n"
    assert settings_from(tmp_path, own, "strategy=own").paths.checkpoints == Path("/own")


def test_a_strategys_change_goes_before_the_environment_and_set_before_it(tmp_path: Path) -> None:
    of = "strategy=small"
    assert settings_from(tmp_path, THREE, of, SYMBOLS="AAPL").symbols == ("QQQ", "IWM")
    assert settings_from(tmp_path, THREE, of, MAX_POSITIONS="3").account.max_positions == 3
    assert settings_from(tmp_path, THREE, of, "symbols=AAPL").symbols == ("AAPL",)
    last = "strategies.small.symbols=TSLA"
    assert settings_from(tmp_path, THREE, of, last, "symbols=AAPL").symbols == ("TSLA",)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ("{seed: many}", "seed = 'many' ({file}): must be a whole number"),
        ("{sed: 3}", "sed = 3 ({file}): unknown key; did you mean seed?"),
        ("{risk: {max_delta_pct: -1}}", "risk.max_delta_pct = -1 ({file}): must be greater than 0"),
        ("{symbols: [spy]}", "symbols[0] = 'spy' ({file}): must be 1 to 6 capital letters"),
        ("{risk: 3}", "risk = 3 ({file}): must be a section with any of the keys"),
        ("{serving: {port: 1}}", "serving = {'port': 1} ({file}): all strategies of one"),
        ("{paths: {state_dir: x}}", "paths.state_dir = 'x' ({file}): the state of a strategy is"),
        ("{learner: ours}", "learner = 'ours' ({file}): must be one of 'own' or 'shared'"),
        ("{strategies: {b: {}}}", "strategies = {'b': {}} ({file}): all strategies of one"),
        (
            "{data: {source: massive}}",
            "credentials.massive_api_key = *** (needed by data.source = massive): set it to",
        ),
    ],
)
def test_a_mistake_names_strategy_key_value_and_way_out(
    tmp_path: Path, changes: str, line: str
) -> None:
    said = only_mistake_in(tmp_path, f"strategies: {{a: {changes}, fine: {{seed: 3}}}}")
    file = str(tmp_path / "settings.yaml")
    assert said.startswith("strategies.a." + line.replace("{file}", file))


SHARED = """
learner: shared
strategies:
  first: {symbols: [SPY], risk: {max_delta_pct: 50}}
  second: %s
  alone: {learner: own, learning: {online: false}, env: {size_levels: 3}}
"""


def test_strategies_share_a_learner_whatever_their_symbols_money_and_limits(
    tmp_path: Path,
) -> None:
    changes = "{symbols: [QQQ], seed: 9, account: {initial_capital: 5000}, risk: {max_vega_pct: 9}}"
    found = {
        name: settings_from(tmp_path, SHARED % changes, f"strategy={name}").learner
        for name in ("first", "second", "alone")
    }
    assert found == {"first": "shared", "second": "shared", "alone": "own"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ("{model: {feature_hidden: 8}}", "model.feature_hidden = 8 ({file}): must be 64 as of"),
        ("{env: {size_levels: 3}}", "env.size_levels = 3 ({file}): must be 1 as of"),
        ("{data: {bar_seconds: 300}}", "data.bar_seconds = 300 ({file}): must be 60 as of"),
        ("{learning: {clip: 0.3}}", "learning.clip = 0.3 ({file}): must be 0.2 as of"),
        (
            "{learning: {online: false}}",
            "learning.online = False ({file}): must be true where learner = shared",
        ),
        (
            "{execution: {style: working}}",
            "execution.style = 'working' ({file}): working orders are part of what the network",
        ),
        ("{policy: {trader: rules}}", "policy.trader = 'rules' ({file}): rules learn nothing"),
    ],
)
def test_what_keeps_a_strategy_from_sharing_a_learner_is_named(
    tmp_path: Path, changes: str, line: str
) -> None:
    said = only_mistake_in(tmp_path, SHARED % changes)
    file = str(tmp_path / "settings.yaml")
    assert said.startswith("strategies.second." + line.replace("{file}", file))
    if "must be true" not in line and "rules learn" not in line:
        assert "the strategy first, with which it shares a learner" in said


def test_fills_of_other_styles_than_working_keep_nobody_from_sharing(tmp_path: Path) -> None:
    changes = "{execution: {style: share_of_spread}}"
    assert settings_from(tmp_path, SHARED % changes, "strategy=second").learner == "shared"


def test_what_the_others_have_from_the_environment_differs_too(tmp_path: Path) -> None:
    yaml = "learner: shared\nstrategies: {a: {model: {feature_hidden: 8}}, b: {}}"
    said = only_mistake_in(tmp_path, yaml)
    assert said.startswith("strategies.b.model.feature_hidden = 64 (default): must be 8 as of")


def test_a_shared_learner_without_strategies_is_refused(tmp_path: Path) -> None:
    said = only_mistake_in(tmp_path, "learner: shared")
    assert "the settings have no section strategies" in said


def test_a_secret_in_a_strategy_is_refused_and_hidden(tmp_path: Path) -> None:
    yaml = "strategies: {a: {credentials: {massive_api_key: k123456}}}"
    assert "k123456" not in only_mistake_in(tmp_path, yaml)


def test_a_mistake_of_the_common_tree_is_told_once(tmp_path: Path) -> None:
    assert len(mistakes_in(tmp_path, "seed: many\n" + THREE.strip())) == 1


@pytest.mark.parametrize(
    "name", ["checkpoints", "shared-learner", "page", "status", "ready", "a/b", "x y"]
)
def test_a_strategys_name_is_checked(tmp_path: Path, name: str) -> None:
    said = only_mistake_in(tmp_path, f"strategies: {{'{name}': {{seed: 3}}}}")
    assert said.startswith(f"strategies.{name} = '{name}' (its name): must ")


def test_an_unknown_strategy_is_named_beside_those_there_are(tmp_path: Path) -> None:
    said = only_mistake_in(tmp_path, THREE, "strategy=nobody")
    assert said == "strategy = 'nobody' (--set): must be one of plain, small, still"
    assert "no section strategies" in only_mistake_in(tmp_path, "seed: 3", "strategy=small")


def test_two_market_servers_on_one_port_are_refused(tmp_path: Path) -> None:
    yaml = "data: {server: {port: 9000}}\nstrategies: {a: {}, b: {}}"
    said = only_mistake_in(tmp_path, yaml)
    assert said.startswith("strategies.b.data.server.port = 9000")
    assert "the strategy a has it already" in said


@pytest.mark.parametrize(
    ("yaml", "who"),
    [
        ("strategies: {a: {%s}, b: {%s}}", "the strategy a has its checkpoints there"),
        ("learner: shared\nstrategies: {a: {%s}, b: {%s}}", "the strategy a has its"),
        ("paths: {checkpoint_dir: /c}\nstrategies: {a: {%s}, c: {}}", "the strategy a has its"),
        (
            "paths: {checkpoint_dir: /c/..}\nlearner: shared\nstrategies: {a: {}, b: {%s}}",
            "the learner that strategies share has its checkpoints there",
        ),
    ],
)
def test_two_with_one_folder_of_checkpoints_are_refused(
    tmp_path: Path, yaml: str, who: str
) -> None:
    folder = "/c/c" if "{checkpoint_dir: /c}" in yaml else "/shared-learner"
    said = only_mistake_in(tmp_path, yaml.replace("%s", f"paths: {{checkpoint_dir: {folder}}}"))
    second = "c" if folder == "/c/c" else "b"
    assert said.startswith(f"strategies.{second}.paths.checkpoint_dir = '{folder}'")
    assert who in said


def test_no_strategies_section_may_hold_something_else(tmp_path: Path) -> None:
    assert "must be a section" in only_mistake_in(tmp_path, "strategies: [a, b]")
    assert "must be a section" in only_mistake_in(tmp_path, "strategies: {a: 3}")


def test_the_example_has_three_that_differ_for_a_reason() -> None:
    path = ROOT / "configs" / "strategies.yaml"
    names = load_settings(path, environ={}).strategies
    index, careful, frozen = (load_settings(path, [f"strategy={n}"], {}) for n in names)
    assert index.symbols == frozen.symbols != careful.symbols
    assert careful.risk.max_daily_loss_pct < index.risk.max_daily_loss_pct
    assert (index.learning.online, frozen.learning.online) == (True, False)


def test_commands_about_one_account_ask_which(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"paths: {{state_dir: {tmp_path}}}\n{THREE}")
    for command in (["account", "status"], ["checkpoints", "list"], ["train"]):
        result = CliRunner().invoke(app, [*command, "--config", str(path)])
        assert result.exit_code == 2
        assert "the strategies plain, small, still: name one" in result.output
    named = ["account", "status", "--config", str(path), "--strategy", "small"]
    result = CliRunner().invoke(app, named)
    assert f"no journal at {tmp_path}/small/journal-small.sqlite" in result.output


def test_stop_asks_every_strategy(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"paths: {{state_dir: {tmp_path}}}\n{THREE}")
    result = CliRunner().invoke(app, ["stop", "--config", str(path)])
    said = [f"nobody trades the account {name}" for name in ("plain", "small", "still")]
    assert result.output.splitlines() == said
