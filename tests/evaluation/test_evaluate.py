"""A walk forward: what each fold may learn from, what it trades, and how the folds are joined."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.waits import WAIT_S
from trading.cli.main import app
from trading.config import load_settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import History, history_of_days
from trading.errors import DataError
from trading.evaluation.backtest import backtest_history, learnt
from trading.evaluation.baselines import BUY_AND_HOLD, open_and_keep
from trading.evaluation.evaluate import days_of, evaluate_folds, joined
from trading.evaluation.simulated_history import write_simulated_history
from trading.evaluation.walk_forward import walk_forward
from trading.learning.policy import Policy
from trading.live import assembly

ROOT = Path(__file__).parents[2]
DAYS = 6
RULES = (DEFAULT_RULES, DEFAULT_FEES)


def untrained() -> Policy:
    """Greedy: what it does on a day does not depend on the days that are played beside it."""
    return Policy(assembly.model_config(load_settings(None, (), {})), seed=1, acting="greedy")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "history"
    write_simulated_history(folder, DAYS, 3, *RULES)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network where a checkpoint's would be."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "module_state.pkl").write_bytes(pickle.dumps(untrained().weights()))
    return folder


def test_simulated_days_are_whole_sessions_in_a_row(history: Path) -> None:
    opened = History(history, *RULES)
    assert [day.date for day in opened.days][:3] == ["2026-01-05", "2026-01-06", "2026-01-07"]
    snapshots = opened.snapshots
    for day in opened.days:
        of_day = slice(day.first, day.first + day.bars)
        assert snapshots.now_ns[of_day][0] == snapshots.open_ns[day.first]
        assert snapshots.now_ns[of_day][-1] == snapshots.close_ns[day.first]
    assert backtest_history(history, *RULES, BUY_AND_HOLD).trades.sum() > 1


def test_a_history_of_some_days_trades_as_these_days_do_in_the_whole(
    history: Path, tmp_path: Path
) -> None:
    dates = days_of(history, *RULES)
    whole = backtest_history(history, *RULES, open_and_keep("long_put_far_d50"))
    chosen = [dates[1], dates[4]]
    kept = history_of_days(history, tmp_path / "some", chosen)
    assert [day.date for day in kept] == [str(day) for day in chosen]
    some = backtest_history(tmp_path / "some", *RULES, open_and_keep("long_put_far_d50"))
    assert np.array_equal(some.returns, whole.returns[[1, 4]])
    assert np.array_equal(some.equity, whole.equity[[1, 4]])
    of_some = tmp_path / "one"
    history_of_days(tmp_path / "some", of_some, chosen[:1])
    assert days_of(of_some, *RULES) == chosen[:1]


def test_days_that_a_history_lacks_are_refused(history: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no day of none"):
        history_of_days(history, tmp_path / "none", [])
    with pytest.raises(DataError, match="no history in"):
        history_of_days(tmp_path, tmp_path / "none", days_of(history, *RULES))
    assert not (tmp_path / "none").exists()


def test_a_fold_learns_from_its_training_days_and_trades_its_test_days(
    history: Path, tmp_path: Path
) -> None:
    days = days_of(history, *RULES)
    folds = walk_forward(days, folds=2, test_days=1, purge=1, embargo=0)
    learnt_from: list[list[str]] = []

    def policy_of(train: Path, state: Path) -> Policy:
        learnt_from.append([day.date for day in History(train, *RULES).days])
        assert not state.exists()
        return untrained()

    results = evaluate_folds(history, folds, tmp_path, *RULES, 1, policy_of, lambda _: None)
    assert learnt_from == [[str(day) for day in days[:3]], [str(day) for day in days[:4]]]
    assert results["policy"].names == (f"SIM {days[4]}", f"SIM {days[5]}")
    whole = backtest_history(history, *RULES, learnt(untrained()))
    assert np.array_equal(results["policy"].returns, whole.returns[4:])
    kept = backtest_history(history, *RULES, BUY_AND_HOLD)
    assert np.array_equal(results["buy and hold"].returns, kept.returns[4:])


def test_joined_sessions_of_unequal_length_end_as_short_sessions_do(history: Path) -> None:
    one = backtest_history(history, *RULES, BUY_AND_HOLD)
    short = joined([one, one])
    assert short.equity.shape == (2 * DAYS, one.equity.shape[1])
    bars = 100
    cut = type(one)(
        **{
            **vars(one),
            **{n: getattr(one, n)[:, :bars] for n in ("equity", "parts", "position")},
            **{n: getattr(one, n)[:, :bars] for n in ("contracts", "delta")},
        }
    )
    both = joined([cut, one])
    assert np.isnan(both.equity[:DAYS, bars:]).all() and np.isfinite(both.equity[DAYS:]).all()
    assert (both.position[:DAYS, bars:] == -1).all() and both.position.dtype == np.int64
    assert not both.parts[:DAYS, bars:].any()
    assert both.actions.sum() == 2 * one.actions.sum()


def test_a_model_is_evaluated_as_it_is_and_only_once_in_a_folder(
    history: Path, model: Path, tmp_path: Path
) -> None:
    page, work = tmp_path / "sheet.html", tmp_path / "work"
    call = ("--history", history, "--no-training", "--model", model, "--folds", 2)
    call = (*call, "--test-days", 1, "--into", work, "--html", page)
    done = run(*call)
    assert done.exit_code == 0, done.output
    assert "fold 2 of 2" in done.output and "deflated, " in done.output
    assert "short strangle" in page.read_text()
    assert not (work / "fold-1" / "state").exists()
    again = run(*call)
    assert again.exit_code == 1 and "holds an evaluation" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "--simulated"),
        (("--simulated", 3, "--no-training"), 2, "needs the --model"),
        (
            ("--simulated", 3, "--no-training", "--model", ".", "--steps", 5),
            2,
            "exclude each other",
        ),
        (("--simulated", 3), 1, "ask for fewer folds"),
        (("--history", "nowhere"), 1, "no history in"),
        (("--simulated", 3, "--model", "nowhere"), 2, "paths.model_path"),
    ],
)
def test_a_wrong_call_is_refused_with_the_way_out(
    arguments: tuple[object, ...], code: int, told: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--into", tmp_path / "work")
    assert done.exit_code == code
    assert told in done.stderr


@pytest.mark.slow
def test_every_fold_learns_anew_and_leaves_its_checkpoint(history: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "trading", "evaluate", "--history", str(history)]
    program += ["--folds", "2", "--test-days", "1", "--steps", "64", "--into", str(tmp_path)]
    for value in ("learning.num_envs=4", "learning.rollout_length=16"):
        program += ["--set", value]
    done = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "policy" in done.stdout
    for fold in ("fold-1", "fold-2"):
        checkpoints = (tmp_path / fold / "state" / "checkpoints").glob("step-*")
        assert max(path.name for path in checkpoints) == "step-000000001"
