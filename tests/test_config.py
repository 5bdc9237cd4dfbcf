import math
import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from trading.config import Settings, environment_names, load_settings
from trading.config.fields import horizon_of, horizon_seconds
from trading.config.tree import settings_by_key
from trading.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def settings_from(folder: Path, yaml: str, *overrides: str, **environ: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(yaml, encoding="utf-8")
    return load_settings(path, overrides, environ)


def mistakes_in(folder: Path, yaml: str, *overrides: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        settings_from(folder, yaml, *overrides, **environ)
    assert str(raised.value) == "\n".join(raised.value.lines)
    assert all("\n" not in line for line in raised.value.lines)
    return raised.value.lines


def only_mistake_in(folder: Path, yaml: str, *overrides: str, **environ: str) -> str:
    lines = mistakes_in(folder, yaml, *overrides, **environ)
    assert len(lines) == 1, lines
    return lines[0]


def test_without_any_source_every_setting_has_its_default() -> None:
    assert load_settings(environ={}) == Settings()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    load_settings(path, environ={"MASSIVE_API_KEY": "k"})


def test_the_local_config_writes_out_the_defaults() -> None:
    (local,) = (path for path in CONFIGS if path.stem == "local")
    assert load_settings(local, environ={}) == Settings()


def test_every_setting_is_described_by_one_sentence() -> None:
    sentences = [setting.description for setting in settings_by_key().values()]
    assert all(text[:1].isupper() and text.endswith(".") for text in sentences)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(environ={}).account.max_positions = 3  # type: ignore[misc]


def test_later_sources_win(tmp_path: Path) -> None:
    yaml = "account: {initial_capital: 2, max_positions: 2, id: file}"
    environ = {"INITIAL_CAPITAL": "3", "MAX_POSITIONS": "3"}
    account = settings_from(tmp_path, yaml, "account.max_positions=4", **environ).account
    assert (account.id, account.initial_capital, account.max_positions) == ("file", 3.0, 4)


def test_the_last_of_two_overrides_wins() -> None:
    assert load_settings(overrides=["seed=1", "seed=2"], environ={}).seed == 2


def test_a_wrong_value_that_a_later_source_replaces_is_no_mistake(tmp_path: Path) -> None:
    assert settings_from(tmp_path, "seed: many", "seed=3").seed == 3


def test_environment_variables_set_their_keys(tmp_path: Path) -> None:
    settings = load_settings(
        environ={
            "SYMBOLS": "AAPL, BRK.B",
            "LOG_LEVEL": "DEBUG",
            "INITIAL_CAPITAL": "25000",
            "MAX_POSITIONS": "3",
            "CHECKPOINT_DIR": "/c",
            "MODEL_PATH": str(tmp_path),
            "COMMISSION": "0.5",
            "UPDATE_FREQUENCY": "16",
            "SAVE_FREQUENCY": "32",
            "MASSIVE_API_KEY": "12345",
            "S3_ACCESS_KEY": "a",
            "S3_SECRET_KEY": "b",
        },
    )
    assert settings.symbols == ("AAPL", "BRK.B")
    assert settings.log_level == "DEBUG"
    assert settings.account.initial_capital == 25_000.0
    assert settings.account.max_positions == 3
    assert settings.paths.checkpoints == Path("/c")
    assert settings.paths.model_path == tmp_path
    assert settings.execution.commission == 0.5
    assert (settings.learning.update_frequency, settings.learning.save_frequency) == (16, 32)
    assert settings.credentials.values() == ("12345", "a", "b")


@pytest.mark.parametrize(
    ("written", "number"), [("010", 10), ("0010", 10), ("+7", 7), ("1_000", 1000), ("10", 10)]
)
def test_whole_numbers_are_decimal(tmp_path: Path, written: str, number: int) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"account: {{max_positions: {written}}}\n")
    assert load_settings(file, [], {}).account.max_positions == number
    assert load_settings(None, [], {"MAX_POSITIONS": written}).account.max_positions == number


@pytest.mark.parametrize("written", ["1:30", "0x10", "0b11", "0o17", "1__:0", "_1"])
def test_what_is_no_decimal_number_is_no_number(tmp_path: Path, written: str) -> None:
    for key in ("account.max_positions", "account.initial_capital"):
        with pytest.raises(ConfigError, match="must be a"):
            load_settings(None, [f"{key}={written}"], {})


def test_a_secret_that_ends_with_a_line_is_the_secret() -> None:
    """As `kubectl create secret` makes it of a file, and `echo` in a pipe."""
    told = {"CONTROL_TOKEN": "0123456789abcdef\n", "MASSIVE_API_KEY": " key\r\n"}
    credentials = load_settings(None, [], told).credentials
    assert credentials.values() == ("key", "0123456789abcdef")
    with pytest.raises(ConfigError, match="16"):
        load_settings(None, [], {"CONTROL_TOKEN": "0123456789abcde\n"})


def test_every_environment_name_sets_an_existing_key() -> None:
    assert set(environment_names().values()) <= set(settings_by_key())


def test_an_empty_environment_variable_is_unset() -> None:
    assert load_settings(environ={"SYMBOLS": "", "INITIAL_CAPITAL": ""}) == Settings()


def test_a_wrong_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ={"INITIAL_CAPITAL": "lots"})
    assert raised.value.lines == [
        "account.initial_capital = 'lots' (INITIAL_CAPITAL): must be a number"
    ]


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_POSITIONS", "6")
    assert load_settings().account.max_positions == 6


def test_override_values_are_yaml() -> None:
    settings = load_settings(
        overrides=[
            "symbols=[ON, T]",
            "learning.learning_rate=1e-4",
            "learning.online=false",
            "risk.max_daily_loss_pct=3",
            "data.simulation.first_session=2026-02-03",
            "data.replay={speed: 2, date: 2015-12-24}",
        ],
        environ={},
    )
    assert settings.symbols == ("ON", "T")
    assert settings.learning.learning_rate == 1e-4
    assert settings.learning.online is False
    assert settings.risk.max_daily_loss_pct == 3.0
    assert settings.data.simulation.first_session == date(2026, 2, 3)
    assert settings.data.replay.speed == 2.0
    assert settings.data.replay.date == date(2015, 12, 24)


def test_symbols_may_be_given_with_commas() -> None:
    assert load_settings(overrides=["symbols=SPY,QQQ"], environ={}).symbols == ("SPY", "QQQ")


def test_a_section_without_keys_keeps_its_defaults(tmp_path: Path) -> None:
    assert settings_from(tmp_path, "account:\ndata:\n  replay:\n") == Settings()


def test_an_empty_file_keeps_the_defaults(tmp_path: Path) -> None:
    assert settings_from(tmp_path, "# nothing\n") == Settings()


@pytest.mark.parametrize(
    ("yaml", "value", "allowed"),
    [
        (
            "data: {sorce: massive}",
            "data.sorce = 'massive'",
            "unknown key; did you mean data.source?",
        ),
        (
            "initial_capitl: 5",
            "initial_capitl = 5",
            "unknown key; did you mean account.initial_capital?",
        ),
        (
            "paths: {zzz: 5}",
            "paths.zzz = 5",
            "unknown key; allowed here: checkpoint_dir, model_path, state_dir",
        ),
        (
            "learning: {burn_in: 0}",
            "learning.burn_in = 0",
            "there is no such setting any more, as it took time and taught nothing more: remove it",
        ),
        (
            "account: {initial_capital: -5}",
            "account.initial_capital = -5",
            "must be greater than 0",
        ),
        (
            "account: {initial_capital: .inf}",
            "account.initial_capital = inf",
            "must be a finite number",
        ),
        ("account: {max_positions: 1.5}", "account.max_positions = 1.5", "must be a whole number"),
        (
            "account: {max_positions: true}",
            "account.max_positions = True",
            "must be a whole number",
        ),
        (
            "account: {max_positions: '10'}",
            "account.max_positions = '10'",
            "must be a whole number",
        ),
        ("account: {id: 7}", "account.id = 7", "must be text (quote it)"),
        (
            "account: 7",
            "account = 7",
            "must be a section with any of the keys id, initial_capital, max_positions",
        ),
        (
            "symbols: [SPY, spy]",
            "symbols[1] = 'spy'",
            "must be 1 to 6 capital letters, with a class like .B if it has one",
        ),
        ("symbols: []", "symbols = []", "must name at least one symbol"),
        (
            "symbols: [SPY, SPY]",
            "symbols = ['SPY', 'SPY']",
            "must name each symbol once; repeated: SPY",
        ),
        ("symbols: 7", "symbols = 7", "must be a list"),
        ("learning: {online: yes}", "learning.online = 'yes'", "must be true or false"),
        ("seed: {a: 1}", "seed = {'a': 1}", "must be a whole number"),
        (
            "data: {source: csv}",
            "data.source = 'csv'",
            "must be one of 'simulation', 'massive' or 'replay'",
        ),
        (
            "data: {simulation: {first_session: 2026-02-30}}",
            "data.simulation.first_session = '2026-02-30'",
            "must be a date written YYYY-MM-DD",
        ),
        (
            "data: {massive: {rest_url: api.massive.com}}",
            "data.massive.rest_url = 'api.massive.com'",
            "must be an address that starts with http:// or https://",
        ),
        (
            "paths: {model_path: /no/such/place}",
            "paths.model_path = '/no/such/place'",
            "must be an existing file or folder",
        ),
        ("serving: {port: 65536}", "serving.port = 65536", "must be 65535 or less"),
        (
            "log_level: LOUD",
            "log_level = 'LOUD'",
            "must be one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
        ),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(
    tmp_path: Path, yaml: str, value: str, allowed: str
) -> None:
    origin = tmp_path / "settings.yaml"
    assert only_mistake_in(tmp_path, yaml) == f"{value} ({origin}): {allowed}"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    yaml = "sede: 1\naccount: {initial_capital: -1, max_positions: 0}\nsymbols: [spy, '1']"
    lines = mistakes_in(tmp_path, yaml, "serving.port=x", "nonsense", LOG_LEVEL="LOUD")
    keys = {re.split(r" = | '", line)[0] for line in lines}
    assert keys == {
        "sede",
        "account.initial_capital",
        "account.max_positions",
        "symbols[0]",
        "symbols[1]",
        "serving.port",
        "--set",
        "log_level",
    }


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    assert len(only_mistake_in(tmp_path, f"seed: {'x' * 1000}")) < 200


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(ConfigError) as raised:
        load_settings(path, environ={})
    assert raised.value.lines == [f"{path}: no such file; name an existing YAML file"]


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, environ={})


def test_a_binary_file_is_no_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read: is not UTF-8 text"):
        load_settings(path, environ={})


@pytest.mark.parametrize(
    ("yaml", "place"),
    [
        ("seed: [1", "line 1, column 9"),
        ("seed: 1\n\tx: 2", "line 2, column 1"),
        ("a: b: c", "line 1, column 5"),
        ("!!python/object:os.system {}", "line 1, column 1"),
        ("? [seed]\n: 1", "line 1, column 3"),
        ("seed: 1\nseed: 2", "line 2, column 1: the key 'seed' is written twice"),
    ],
)
def test_malformed_yaml_names_the_place(tmp_path: Path, yaml: str, place: str) -> None:
    line = only_mistake_in(tmp_path, yaml)
    assert line.startswith(f"{tmp_path / 'settings.yaml'}: is not valid YAML: {place}")


@pytest.mark.parametrize("yaml", ["- SPY", "SPY", "7"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, yaml: str) -> None:
    assert "must be a mapping of settings" in only_mistake_in(tmp_path, yaml)


@pytest.mark.parametrize("override", ["seed", "=1", "", "hunter2key"])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str) -> None:
    assert "must be written section.key=value" in only_mistake_in(tmp_path, "", override)


def test_an_override_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    line = only_mistake_in(tmp_path, "", "symbols=[SPY")
    assert line.startswith("symbols = '[SPY' (--set): is not YAML: line 1")


def test_secrets_are_refused_outside_the_environment_and_never_shown(tmp_path: Path) -> None:
    yaml = "credentials: {massive_api_key: hunter2}\nmassive_api_key: hunter2\n"
    lines = mistakes_in(tmp_path, yaml, "credentials.s3_secret_key=hunter2")
    assert "hunter2" not in "".join(lines)
    assert lines[0].endswith("read only from the environment variable MASSIVE_API_KEY")
    assert lines[1].endswith("did you mean credentials.massive_api_key?")
    assert lines[2].endswith("read only from the environment variable S3_SECRET_KEY")


def test_credentials_are_hidden_when_settings_are_shown() -> None:
    settings = load_settings(environ={"MASSIVE_API_KEY": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_live_data_needs_an_api_key(tmp_path: Path) -> None:
    line = only_mistake_in(tmp_path, "data: {source: massive}")
    assert line.startswith("credentials.massive_api_key = ***")
    assert line.endswith("set it to the variable MASSIVE_API_KEY")


def test_a_replay_needs_a_folder_and_a_day(tmp_path: Path) -> None:
    lines = mistakes_in(tmp_path, "data: {source: replay}")
    assert [line.partition(" ")[0] for line in lines] == ["data.replay.folder", "data.replay.date"]


def test_lockstep_is_for_replays_at_full_speed_unless_set() -> None:
    replay = ["data.source=replay", "data.replay={folder: ., date: 2015-12-24}"]
    assert load_settings(overrides=replay, environ={}).lockstep
    assert not load_settings(overrides=[*replay, "data.replay.speed=1"], environ={}).lockstep
    assert not load_settings(overrides=[*replay, "learning.lockstep=false"], environ={}).lockstep
    assert not load_settings(environ={}).lockstep


def test_checkpoints_lie_in_the_state_folder_by_default() -> None:
    settings = load_settings(overrides=["paths.state_dir=/s"], environ={})
    assert settings.paths.checkpoints == Path("/s/checkpoints")


@pytest.mark.parametrize("given", ["sampled", "greedy", "0.5", "2"])
def test_a_policy_acts_by_draws_by_the_most_likely_or_at_a_temperature(given: str) -> None:
    acting = load_settings(None, [f"policy.act={given}"], {}).policy.act
    assert acting == (given if given.isalpha() else float(given))


@pytest.mark.parametrize("given", ["best", "0", "-1", "true"])
def test_another_way_to_act_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.act"):
        load_settings(None, [f"policy.act={given}"], {})


def test_aliases_end_in_a_line_and_not_in_a_full_memory(tmp_path: Path) -> None:
    levels = "abcdefghijklmnop"
    laughs = f"{levels[0]}: &{levels[0]} [{', '.join(['x'] * 9)}]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(levels)
    )
    line = only_mistake_in(tmp_path, laughs)
    assert "line 2, column 8: the alias *a is not read: write its value out" in line
    line = only_mistake_in(tmp_path, "", "symbols=[&a SPY, *a]")
    assert "the alias *a is not read" in line


def test_deep_nesting_ends_in_a_line(tmp_path: Path) -> None:
    assert "nested too deeply" in only_mistake_in(tmp_path, "symbols: " + "[" * 100_000)


def test_a_file_that_is_far_too_long_is_no_file_of_settings(tmp_path: Path) -> None:
    assert "more than 1,048,576 bytes" in only_mistake_in(tmp_path, "# a\n" * 300_000)


def test_the_reference_explains_every_setting_once_with_what_the_checks_say() -> None:
    from trading.config.reference import explain_settings
    from trading.config.tree import settings_by_key

    explained = {each.key: each for _, settings in explain_settings().values() for each in settings}
    assert list(explained) == list(dict.fromkeys(explained))
    assert set(explained) == set(settings_by_key())
    assert all(each.about.endswith((".", ")")) and each.allowed for each in explained.values())
    daily = explained["risk.max_daily_loss_pct"]
    assert (daily.unit, daily.allowed, daily.default) == ("%", "number, above 0, at most 100", "5")
    assert explained["execution.commission"].environment == "COMMISSION"
    assert explained["account.id"].allowed.startswith("1 to 32 of A-Z")
    assert explained["data.source"].allowed == "simulation, massive, replay"
    assert explained["ray.address"].allowed == "text, or unset"
    assert explained["credentials.massive_api_key"].allowed.startswith("a secret")


def test_the_discount_is_a_horizon_in_market_time() -> None:
    def discount(*overrides: str) -> float:
        return load_settings(None, overrides, {}).discount

    assert discount("learning.horizon=100 minutes") == pytest.approx(math.exp(-1 / 100))
    assert discount("learning.horizon=1 session") == discount("learning.horizon=6.5 hours")
    assert discount("learning.horizon=5 sessions") == pytest.approx(math.exp(-1 / 1950))
    # Ten bars of six seconds lose what one of a minute does.
    short = discount("learning.horizon=2hours", "data.bar_seconds=6")
    assert short**10 == pytest.approx(discount("learning.horizon=2 hours"))


def test_a_discount_of_today_still_opens_and_holds(tmp_path: Path) -> None:
    assert settings_from(tmp_path, "learning: {gamma: 0.97}").discount == 0.97
    lines = mistakes_in(tmp_path, "learning: {gamma: 0.99, horizon: 5 sessions}")
    assert lines == [
        f"learning.gamma = 0.99 ({tmp_path / 'settings.yaml'}): learning.horizon is set as well: "
        "keep one of the two; this is learning.horizon = 99.4992 minutes"
    ]
    told = only_mistake_in(
        tmp_path, "strategies: {one: {learning: {gamma: 0.9}}}\nlearning: {horizon: 1 session}"
    )
    assert told.startswith("strategies.one.learning.gamma = 0.9") and "keep one" in told
    assert horizon_seconds(horizon_of(1.0 - 1e-9, 60.0) or "") == pytest.approx(60e9)


@pytest.mark.parametrize("wrong", ["5", "5 days", "0 sessions", "-1 hour", "inf hours"])
def test_a_horizon_is_a_number_and_its_unit(tmp_path: Path, wrong: str) -> None:
    told = only_mistake_in(tmp_path, f"learning: {{horizon: {wrong!r}}}")
    assert "minutes, hours or sessions of market time" in told
