"""`import trading as td`: light, whole, typed, and every example runs."""

import ast
import doctest
import inspect
import shutil
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

import trading as td
from tests.live.market import DAY, KEY, FirstMinutes, await_that, serving
from tests.reporting.conftest import journal  # noqa: F401 - a fixture
from trading.api.reference import api_reference, documented
from trading.config import Settings, load_settings
from trading.data.catalog import SCHEMAS, Kind
from trading.data.massive.wire import Aggregate
from trading.envs.features import FEATURE_COUNT
from trading.errors import ConfigError, DataError, JournalError, StreamError
from trading.evaluation.simulated_history import write_simulated_history
from trading.execution.journal import Journal
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.live import assembly
from trading.plugins.plugin_registry import REGISTRY
from trading.reporting.ledger import read_ledger
from trading.reporting.tables import TABLES

NAMES = td._PLACES


def test_importing_the_package_loads_nothing_that_is_heavy() -> None:
    asked = (
        "import sys, trading as td; td.register_trader; "
        "print([n for n in ('torch', 'ray', 'numba', 'numpy', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_type_checkers_are_told_the_same_names_as_the_interpreter() -> None:
    (told,) = (
        node for node in ast.parse(inspect.getsource(td)).body if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
    )  # fmt: skip
    typed = {
        alias.asname: (node.module or "").removeprefix("trading.")
        for node in told.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == NAMES
    assert set(NAMES) == set(td.__all__) == documented()
    assert set(NAMES) <= set(dir(td))


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        td.nothing  # noqa: B018


@pytest.fixture
def state(tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A folder `var` with an account, a model and a day of bars, where the examples look."""
    folder = tmp_path / "var"
    (folder / "model").mkdir(parents=True)
    shutil.copy(journal, folder / "journal-paper.sqlite")
    write_module_weights(folder / "model", Policy(assembly.model_config(Settings()), 3).weights())
    rows = {
        "symbol": ["SPY", "SPY"], "start_ns": [60, 0], "open": [1.0, 2.0], "high": [1.0, 2.0],
        "low": [1.0, 2.0], "close": [1.5, 2.5], "volume": [10.0, 20.0], "transactions": [1, 2],
    }  # fmt: skip
    schema = SCHEMAS[Kind.STOCK_BARS]
    with td.open_catalog(folder / "catalog").writing(Kind.STOCK_BARS, DAY, "test") as writer:
        writer.add("SPY", pa.RecordBatch.from_pydict(rows, schema=schema))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", ["accounts", "backtests", "environments", "policies"])
def test_the_examples_of_a_module_run(name: str, state: Path) -> None:
    result = doctest.testmod(import_module(f"trading.api.{name}"))
    assert result.attempted and not result.failed


def test_the_examples_of_market_data_run(state: Path) -> None:
    # Slow enough that it has bars to tell when the example has connected.
    with serving(FirstMinutes(380), speed=120.0) as (endpoint, begin):
        begin()
        globs = {"address": endpoint.websocket_url}
        result = doctest.testmod(import_module("trading.api.market_data"), extraglobs=globs)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", ["config.loading", "envs.by_name", "plugins.plugin_registry"])
def test_the_examples_beside_the_api_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("traders", "baselines", "fee_schedules"):
        monkeypatch.setattr(REGISTRY, kind, {})
    result = doctest.testmod(import_module(f"trading.{name}"))
    assert result.attempted and not result.failed


def test_every_function_has_an_example_and_typed_parameters() -> None:
    functions = [getattr(td, name) for name in NAMES if inspect.isfunction(getattr(td, name))]
    assert len(functions) == 17
    for each in functions:
        assert ">>> " in (each.__doc__ or ""), each
        signature = inspect.signature(each)
        assert signature.return_annotation is not signature.empty, each
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty, (each, parameter)
    assert "- `trader`: A function" in api_reference()


def test_the_tables_of_a_journal_have_their_columns_and_the_ledgers_figures(
    journal: Path,  # noqa: F811
) -> None:
    tables = td.open_journal(journal)
    with Journal(journal, read_only=True) as read:
        ledger = read_ledger(read.events())
    for name, columns in TABLES.items():
        table = getattr(tables, name)
        assert table.columns.tolist() == [each.name for each in columns]
        assert len(table), name
        for each in columns:
            kind = str(table[each.name].dtype)
            wanted = {"time": "datetime64[ns, UTC]", "str": ("object", "str", "string")}
            assert kind in wanted.get(each.kind, each.kind), (name, each.name, kind)
    assert tables.account.fingerprint() == ledger.account.fingerprint()
    ended = tables.trades.dropna(subset=["closed"])
    assert ended.profit.sum() == pytest.approx(ledger.account.realised_pnl)
    assert len(tables.trades) - len(ended) == len(ledger.account.strategies) == 1
    assert tables.fills.fees.sum() == pytest.approx(ledger.account.fees_paid)
    assert tables.fills.cash.sum() == pytest.approx(ledger.account.cash - 10_000.0)
    assert tables.legs.groupby("fill_id").size().sum() == len(tables.legs) > len(tables.fills)
    assert tables.equity.equity.tolist() == [equity for _, equity in ledger.equity]
    known = tables.decisions.profit.notna()
    assert tables.decisions.equity.notna().tolist() == known.tolist() and 0 < known.sum() < len(
        known
    )
    assert tables.decisions.probability.isna().all(), "they are of before it was journalled"
    assert tables.days.equity.iloc[-1] == ledger.days[-1].equity


def test_an_empty_journal_has_empty_tables_with_the_same_columns(tmp_path: Path) -> None:
    with Journal(tmp_path / "new.sqlite") as made:
        made.open_account("paper", 1000.0, 1)
    tables = td.open_journal(tmp_path / "new.sqlite")
    for name, columns in TABLES.items():
        assert getattr(tables, name).columns.tolist() == [each.name for each in columns]
        assert getattr(tables, name).empty
    assert str(tables.trades.closed.dtype) == "datetime64[ns, UTC]"
    with pytest.raises(JournalError):
        td.open_journal(load_settings(None, [f"paths.state_dir={tmp_path}"], {}))


@pytest.mark.parametrize("number", [0, -1, "4", 2.5, True])
def test_a_number_of_environments_that_is_none_is_refused(number: int) -> None:
    with pytest.raises(td.TradingError, match="must be a whole number, 1 or more"):
        td.make_vector_env(number)


def test_a_number_of_environments_may_be_numpys() -> None:
    number = np.int64(3)
    env = td.make_vector_env(number)  # type: ignore[arg-type]
    assert env.num_envs == 3 and type(env.num_envs) is int


def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with pytest.raises(td.TradingError, match="no journal at"):
        td.open_journal(tmp_path)


def test_a_policy_is_loaded_acts_and_trades_a_backtest(tmp_path: Path) -> None:
    settings = Settings()
    made = Policy(assembly.model_config(settings), 3)
    write_module_weights(tmp_path, made.weights())
    policy = td.load_policy(tmp_path, settings, acting="greedy")
    env = td.make_vector_env(2, settings)
    seen, _ = env.reset()
    decision, _ = policy.act(
        seen["observations"], seen["action_mask"], policy.initial_state(2), np.ones(2, np.bool_)
    )
    assert decision.probabilities.shape == (2, len(td.ACTIONS))
    assert seen["action_mask"][np.arange(2), decision.actions].all()
    assert seen["observations"].shape == (2, FEATURE_COUNT)
    result = td.backtest(policy, settings, simulated=1)
    assert result.frame()["return"].tolist() == result.returns.tolist()


def test_a_backtest_is_of_simulated_sessions_or_of_a_history() -> None:
    with pytest.raises(ConfigError, match="either simulated=SESSIONS or history=FOLDER"):
        td.backtest(lambda observation, first: first)
    with pytest.raises(DataError, match="no history in"):
        td.backtest(lambda observation, first: first, history="/nowhere")
    for sessions in (0, -3):
        with pytest.raises(ConfigError, match=f"simulated: {sessions}: must be 1 session or more"):
            td.backtest(lambda observation, first: first, simulated=sessions)


def test_days_without_nights_are_warned_of(tmp_path: Path) -> None:
    settings = load_settings(None, [], {})
    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    write_simulated_history(tmp_path, 2, 3, rules, fees)
    with capture_logs() as told:
        td.make_vector_env(2, settings, history=tmp_path)
        td.backtest(lambda seen, first: np.full(len(first), td.HOLD), settings, history=tmp_path)
    events = [each["event"] for each in told]
    assert events == ["the environment has no nights", "the backtest has no nights"]


def test_a_catalogue_gives_arrow_and_pandas(state: Path) -> None:
    catalog, day = td.open_catalog(state / "catalog"), DAY
    found = catalog.read("stock_bars", "SPY", day)
    assert found.to_pandas().close.tolist() == [2.5, 1.5]
    assert found.to_pandas().symbol.tolist() == ["SPY", "SPY"]
    assert found.to_arrow().column("start_ns").to_pylist() == [0, 60]
    with pytest.raises(DataError, match=r"no kind 'bars'.*stock_bars"):
        catalog.read("bars", "SPY", day)
    settings = load_settings(None, [f"paths.state_dir={state}"], {})
    assert td.open_catalog(settings).folder == state / "catalog"


def test_a_feed_tells_events_until_a_told_day_ends() -> None:
    with serving(FirstMinutes(2)) as (endpoint, begin):
        names = {"stocks": ["AM.AAA", "AM.BBB"]}
        with td.connect(endpoint.websocket_url, KEY, names, ends=True) as feed:
            await_that("subscribed", lambda: feed.health()["stocks"]["acknowledged"] == 2)
            begin()
            events = list(feed)
            health = feed.health()
    assert {type(each) for each in events} == {Aggregate}
    assert {each.sym for each in events} == {"AAA", "BBB"}
    assert health["stocks"]["acknowledged"] == 2


def test_a_feed_with_a_wrong_name_leaves_no_connection() -> None:
    with serving(FirstMinutes(2)) as (endpoint, _):
        names = {"stocks": ["AM.AAA"], "options": ["Q.no such contract"]}
        feed = td.connect(endpoint.websocket_url, KEY, names)
        with pytest.raises(StreamError, match="no such contract"), feed:
            pass
        assert "massive-stream" not in {each.name for each in threading.enumerate()}
