"""A search: its plan, its record, its order, what it writes, and one run of Ray Tune."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from trading.app.tuning.outcome import (
    HeldBackReturns,
    MeanReturn,
    mean_return,
    ranked,
    settings_layer,
    winner_of,
)
from trading.app.tuning.plan import SearchPlan, plan_of_days, plan_of_markets
from trading.app.tuning.record import Trial, TrialEnd, TrialLog, TrialScore
from trading.cli.main import app
from trading.cli.tune import _begin, _said
from trading.cli.tune_picture import draw
from trading.config import Settings, load_settings
from trading.config.space import Choices, Point, SearchRange, Space, with_point
from trading.envs.history import History
from trading.errors import DataError
from trading.evaluation.simulated_history import write_simulated_history
from trading.evaluation.walk_forward import FoldsError
from trading.files import FileLock
from trading.live.assembly import fee_schedule, trading_rules
from trading.live.simulated_world import simulated_world

SMALL = [
    "learning.num_envs=4",
    "learning.rollout_length=16",
    "learning.pretrain_steps=128",
    "model.feature_hidden=8",
    "model.actor_hidden=8",
    "model.critic_hidden=8",
    "tune.judgements=2",
    "tune.trials=2",
    "tune.concurrent=1",
    "env.sessions_per_episode=1",
]
SPACE: Space = {"learning.learning_rate": SearchRange(1e-4, 1e-2, is_log=True)}
FOLDS = {"folds": 1, "test_days": 1, "purge": 1, "embargo": 0, "last_days": 1}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(None, SMALL, {})


@pytest.fixture(scope="module")
def history(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("days") / "history"
    rules, distribution = trading_rules(settings), simulated_world(settings.market).distribution
    write_simulated_history(folder, 5, 3, rules, fee_schedule(settings), distribution)
    return folder


def days(folder: Path, settings: Settings) -> list[str]:
    opened = History(folder, trading_rules(settings), fee_schedule(settings))
    return [day.date for day in opened.days]


def judged(trial: int, judgement: int, score: float, rate: float = 1e-3) -> TrialScore:
    returns = [score - 0.1, score + 0.1, score, score]
    point = {"learning.learning_rate": rate}
    return TrialScore(trial, judgement, 64 * judgement, score, returns, point)


def of(number: int, *scores: float, failure: str = "") -> Trial:
    each = {place: judged(number, place, score) for place, score in enumerate(scores, 1)}
    return Trial(number, each, has_ended=True, failure=failure)


def test_the_last_days_of_a_history_are_in_no_fold(
    history: Path, settings: Settings, tmp_path: Path
) -> None:
    plan = plan_of_days(settings, history, tmp_path, **FOLDS)
    every = days(history, settings)
    (fold,) = plan.folds
    assert fold.learns_from is not None
    assert days(fold.learns_from, settings) == every[:2]
    assert days(fold.trade.folder, settings) == [every[3]]  # type: ignore[attr-defined]
    assert days(plan.last.folder, settings) == [every[4]]  # type: ignore[attr-defined]
    assert plan.notes == (
        "the last 1 days are 1 episode of sessions in a row, and fewer than 4 have no interval: "
        "give more by --last-days, or make episodes shorter (env.sessions_per_episode)",
    )
    with pytest.raises(FoldsError, match="--last-days 5 of the 5 days"):
        plan_of_days(settings, history, tmp_path, **{**FOLDS, "last_days": 5})


def test_simulated_folds_learn_and_trade_markets_of_their_own(settings: Settings) -> None:
    plan = plan_of_markets(settings, 20, folds=3)
    assert [fold.seed for fold in plan.folds] == [settings.seed + k for k in range(3)]
    traded = [*(fold.trade for fold in plan.folds), plan.last]
    assert len({each.seed for each in traded}) == 4  # type: ignore[attr-defined]
    assert plan.notes == ()


def test_a_search_says_how_many_episodes_its_sessions_are(settings: Settings) -> None:
    longer = settings.model_copy(
        update={"env": settings.env.model_copy(update={"sessions_per_episode": 10})}
    )
    plan = plan_of_markets(longer, 64, folds=1)
    assert "trade 70 held-out sessions each; the winner trades 70 others" in plan.told
    assert plan.notes == ("70 sessions are 7 of 10 in a row, and each counts once",)
    few = plan_of_markets(longer, 20, folds=1)
    assert few.notes[1].startswith("20 sessions are 2 episodes of sessions in a row, and fewer")
    trial = of(1, 0.5)
    last = HeldBackReturns(MeanReturn(0.1, 0.0, 0.2, 7), None)
    assert _said(plan, trial, last, False)[1].startswith("on 7 episodes that no trial")
    assert _said(plan_of_markets(settings, 7, folds=1), trial, last, False)[1].startswith(
        "on 7 sessions that no trial"
    )


def test_a_line_that_a_kill_cut_off_is_no_entry_and_spoils_none(tmp_path: Path) -> None:
    record = TrialLog(tmp_path / "results.jsonl")
    record.append(judged(1, 1, -0.5))
    whole = record.path.read_bytes()
    for cut in range(1, len(whole)):
        record.path.write_bytes(whole + whole[:cut])
        record.append(judged(1, 2, 0.25))
        record.append(TrialEnd(2, "no memory"))
        trials = record.trials()
        assert trials[1].newest == judged(1, 2, 0.25)
        assert set(trials[1].judged) == {1, 2} and not trials[1].has_ended
        assert trials[2].failure == "no memory"


def test_a_judgement_that_is_made_again_replaces_the_one_before(tmp_path: Path) -> None:
    record = TrialLog(tmp_path / "results.jsonl")
    for entry in (judged(1, 1, -0.5), TrialEnd(1, "lost"), judged(1, 1, -0.4)):
        record.append(entry)
    (trial,) = record.trials().values()
    assert [each.score for each in trial.judged.values()] == [-0.4]
    assert not trial.has_ended and not trial.failure


def test_who_came_further_is_first_and_only_who_came_to_the_end_wins() -> None:
    trials = {each.number: each for each in (
        of(1, -0.5, -0.2), of(2, 0.9), of(3, -0.6, -0.1), of(4, 0.5, 0.5, failure="lost"), of(5),
    )}  # fmt: skip
    assert [each.number for each in ranked(trials)] == [3, 1, 2, 5, 4]
    winner = winner_of(trials, 2)
    assert winner is not None and winner.number == 3
    assert winner_of({2: trials[2], 4: trials[4]}, 2) is None


def test_a_score_has_its_interval() -> None:
    found = mean_return(np.linspace(-1.0, 1.2, 40), 1)
    assert found.mean == pytest.approx(0.1) and found.low < 0.1 < found.high
    assert found.sessions == 40


def test_the_winners_settings_are_a_file_that_config_takes(tmp_path: Path) -> None:
    base, best = tmp_path / "base.yaml", tmp_path / "best.yaml"
    base.write_text(
        "symbols: [SPY]\nlearning: {num_envs: 8}\ntune: {space: {learning.epochs: [2, 8]}}\n"
    )
    environ = {"MASSIVE_API_KEY": "a-vendor-key", "MAX_POSITIONS": "4"}
    settings = load_settings(base, ["execution.commission=0.5"], environ)
    point = {"learning.epochs": 8, "learning.gamma": None, "model.feature_hidden": 32}
    best.write_text(yaml.safe_dump(settings_layer(settings, point)))
    assert "a-vendor-key" not in best.read_text() and "account" not in best.read_text()
    read = load_settings(best, (), environ)
    wanted = with_point(settings, point)
    assert read.model_dump(exclude={"tune"}) == wanted.model_dump(exclude={"tune"})


def test_the_picture_shows_every_kind_of_setting(tmp_path: Path) -> None:
    space = {
        "learning.learning_rate": SearchRange(1e-5, 1e-2, is_log=True),
        "learning.clip": SearchRange(0.1, 0.2, is_log=True),
        "learning.epochs": SearchRange(2, 8, is_whole=True),
        "learning.gamma": Choices((None, 0.95)),
        "model.layer_norm": Choices((True, False)),
    }
    trials = []
    for number, values in enumerate(((3e-4, 0.2, 4, None, False), (1e-3, 0.15, 8, 0.95, True)), 1):
        trial = of(number, -0.5, -0.2)
        point = dict(zip(space, values, strict=True))
        trial.judged = {
            place: TrialScore(number, place, each.decisions, each.score, each.returns, point)
            for place, each in trial.judged.items()
        }
        trials.append(trial)
    for name in ("a.png", "a.svg"):
        draw(trials, space, 2, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5_000
    told = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {key} -->" in told for key in space)
    assert "<!-- trial 2, the winner -->" in told and "<!-- as given -->" in told


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "give either --history FOLDER or --simulated SESSIONS"),
        (("--simulated", 9), 2, "tune.space is empty"),
        (("--simulated", 9, "--space", "none.yaml"), 2, "no such file"),
        (("--simulated", 9, "--picture", "a.gif"), 2, "must end in .png or .svg or .pdf"),
        (("--simulated", 9, "--best", "nodir/best.yaml"), 2, "there is no folder nodir"),
        (("--simulated", 9, "--set", "tune.space={learning.epochs: [0]}"), 2, "must be 1 or"),
        (
            ("--simulated", 9, "--steps", 2, "--set", "tune.space={learning.epochs: [2]}"),
            2,
            "less than tune.judgements",
        ),
        (
            (
                *("--simulated", 9, "--set", "tune.space={model.feature_hidden: [8]}"),
                *("--set", "tune.method=pbt"),
            ),
            2,
            "take tune.method asha",
        ),
        (
            (
                *("--simulated", 9, "--set", "tune.method=pbt", "--set"),
                "tune.space={learning.gamma: {low: 0.9, high: 0.99}}",
            ),
            2,
            "multiplies the value that is set, which is None: set a number of the range",
        ),
        (
            (
                *("--simulated", 9, "--set", "learning.gamma=0.9", "--set"),
                "tune.space={learning.horizon: [10 minutes, 1 session]}",
            ),
            2,
            "two forms of one setting: search and set one of them",
        ),
        (
            ("--simulated", 9, "--resume", "--set", "tune.space={learning.epochs: [2]}"),
            1,
            "holds no search",
        ),
        (("--history", "none", "--set", "tune.space={learning.epochs: [2]}"), 1, "no history in"),
    ],
)
def test_a_wrong_call_is_refused_before_the_work_with_the_way_out(
    arguments: tuple[object, ...], code: int, told: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--into", tmp_path / "work")
    assert done.exit_code == code
    assert told in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_search_is_not_begun_where_one_is_or_runs(tmp_path: Path) -> None:
    searched = ("--set", "tune.space={learning.epochs: [2]}", "--history", tmp_path / "none")
    kept = tmp_path / "folds" / "last"
    kept.mkdir(parents=True)
    (tmp_path / "search.json").write_text("{}")
    done = run(*searched, "--into", tmp_path)
    assert done.exit_code == 1 and "holds a search: go on with it by --resume" in done.stderr
    assert kept.exists(), "nothing of the other search has changed"
    with FileLock(tmp_path / ".lock"):
        done = run(*searched, "--resume", "--into", tmp_path)
    assert done.exit_code == 1
    assert f"another search runs in {tmp_path} (process {os.getpid()}" in done.stderr


def test_a_search_of_a_setting_that_is_gone_does_not_go_on_and_says_why(
    settings: Settings, tmp_path: Path
) -> None:
    plan = plan_of_markets(settings, 9, folds=1)
    made = [{"learning.clip": 0.1}, {"learning.clip": 0.2}]
    _begin(tmp_path, plan, made, resume=False)
    _begin(tmp_path, plan, made, resume=True)
    file = tmp_path / "search.json"
    begun = json.loads(file.read_text())
    begun["points"] = [{"learning.target_kl": 0.02}, {"learning.target_kl": 0.05}]
    file.write_text(json.dumps(begun))
    told = "it searches learning.target_kl: there is no such setting any more.* by --into"
    with pytest.raises(DataError, match=told):
        _begin(tmp_path, plan, made, resume=True)


def run_until(
    stopped: Callable[[TrialLog], bool],
    plan: SearchPlan,
    points: list[Point],
    work: Path,
    told: list[str],
) -> dict[int, Path]:
    """Run the trials of a search, or go on with them, until it is told to stop."""
    from trading.app.tuning.search import run_trials

    record = TrialLog(work / "results.jsonl")
    return run_trials(plan, SPACE, points, work, record, told.append, lambda: stopped(record))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_search_that_was_stopped_goes_on_to_its_end(
    history: Path, settings: Settings, tmp_path: Path
) -> None:
    from trading.app.tuning.outcome import elsewhere

    plan = plan_of_days(settings, history, tmp_path / "folds", **FOLDS)
    record, told = TrialLog(tmp_path / "results.jsonl"), list[str]()
    points = [{"learning.learning_rate": 3e-4}, {"learning.learning_rate": 3e-3}]
    search = (plan, points, tmp_path, told)

    run_until(lambda known: any(trial.judged for trial in known.trials().values()), *search)
    before = record.trials()
    assert 0 < sum(len(trial.judged) for trial in before.values()) < 4
    kept = run_until(lambda _: False, *search)
    trials = record.trials()
    assert all(trial.has_ended and not trial.failure for trial in trials.values())
    made = [json.loads(line) for line in record.path.read_text().splitlines()]
    scored = [(each["trial"], each["judgement"]) for each in made if each["type"] == "judged"]
    assert len(scored) == len(set(scored)), "what was judged is not judged again"
    assert [trials[1].judged[k].decisions for k in (1, 2)] == [64, 128]
    assert {each.trial for trial in trials.values() for each in trial.judged.values()} == {1, 2}
    winner = winner_of(trials, 2)
    assert winner is not None
    _is_worth_what_it_learnt(plan, trials, winner.number, kept)
    assert any(
        line.startswith("trial 1 of 2: ") and "128 decisions (2 of 2)" in line for line in told
    )
    assert run_until(lambda _: False, *search) == kept, "nothing is left to do"
    found = elsewhere(plan, trials, winner.number, kept)
    assert found.winner.sessions == 1
    if winner.number != 1:
        assert found.beside_given is not None
        assert found.beside_given.challenger == pytest.approx(found.winner.mean)


def _is_worth_what_it_learnt(
    plan: SearchPlan, trials: dict[int, Trial], number: int, kept: dict[int, Path]
) -> None:
    """The checkpoint is the policy that was scored."""
    from trading.app.tuning.trial import settings_of_trial, trial_policy
    from trading.evaluation.backtest import learnt

    newest = trials[number].newest
    assert newest is not None
    policy = trial_policy(kept[number], 0, settings_of_trial(plan.settings, newest.point))
    returns = 100.0 * plan.folds[0].trade(learnt(policy))
    np.testing.assert_array_equal(returns, newest.returns)
