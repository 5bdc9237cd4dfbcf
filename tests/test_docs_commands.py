"""Every command of the pages runs in a test, or it says here why it does not.

What needs an account, a market or the settings alone runs here as the page has it, page by page,
each page beside an account of its own. Whatever starts the application, trains or asks the vendor
has its tests elsewhere, which are named. What is left needs a cluster, a device or hours.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from typer.testing import CliRunner

from tests.documented import LINES, OTHERS, ROOT, Line
from tests.execution.scene import NOW_NS, SECOND_NS, close_order, market, new_broker, open_order
from trading.cli.main import app
from trading.config import Settings, load_settings
from trading.execution.events import PromotedBy
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import CheckpointStore, write_module_weights
from trading.learning.policy import Policy, Weights
from trading.live import assembly
from trading.plugins import discovery
from trading.plugins.plugin_registry import REGISTRY

DAY_NS = 24 * 3600 * SECOND_NS


class How(NamedTuple):
    """What is done about the lines that match a pattern as a whole."""

    pattern: str
    test: str = ""
    """The test that runs them, with other numbers; empty: they run here."""
    why: str = ""
    """Why nothing runs them."""


_EVALUATED = "tests/evaluation/test_backtest_command.py::"
_HELD = "tests/e2e/test_up.py::test_status_tells_account_market_feed_learner_and_versions"
_CLUSTER = "a cluster: tests/kubernetes runs such on one, by make test-kubernetes"
_HOURS = "hours of training"
_RECORDED = "tests/cli/test_history.py::test_recorded_days_become_a_history_that_is_listed"

HOW = [
    How(r".*\$config.*|account status --config /etc/trading/config\.yaml .*", why=_CLUSTER),
    # Here.
    How(r".*\[OPTIONS\]|VERB -h|(import )?--help|\[OPTIONS\]"),
    How(r"account( .*)?"),
    How(r"checkpoints( .*)?(?<!\$config)"),
    How(r"report( .*)?"),
    How(r"journal( (verify|export|tail)(?!.* -f).*)?"),
    How(r"stop( .*)?"),
    How(r"config( .*)?"),
    How(r"doctor"),
    How(r"market( (describe|plot)( .*)?)?"),
    How(r"backtest --simulated (20|64) (--trader calm_condor .*|--html sheet\.html)"),
    How(r"backtest --simulated 64 --model CHECKPOINT( --html .*)?"),
    # Elsewhere.
    How(
        r"--install-completion",
        "tests/cli/test_command_line.py::test_a_shell_completes_verbs_and_options",
    ),
    How(
        r"journal tail -f",
        "tests/cli/test_journal.py::test_following_prints_what_a_live_writer_appends_until_ctrl_c",
    ),
    How(r"market fit .*", "tests/cli/test_market.py::test_fit_writes_a_market_that_can_be_traded"),
    How(
        r"feed",
        "tests/feed/test_feed_command.py::test_several_keys_of_the_vendor_are_used_and_hidden",
    ),
    How(r"history( --recordings .*)?", _RECORDED),
    How(
        r"history --flat-files .*",
        "tests/cli/test_history.py::test_a_real_day_of_flat_files_becomes_a_history",
    ),
    How(r"import", "tests/data/test_import.py::test_the_command_imports_a_folder"),
    How(
        r"download( --date .*)?",
        "tests/data/test_download.py::test_the_command_fetches_bars_and_trades_and_quotes_only_when_asked",
    ),
    How(
        r"download --chains .*",
        "tests/data/test_rest_import.py::test_the_command_takes_snapshots_of_chains",
    ),
    How(
        r"backtest .*env\.sessions_per_episode=20 .*",
        _EVALUATED + "test_a_tear_sheet_needs_no_network",
    ),
    How(r"backtest( --trader| --model)?", _EVALUATED + "test_a_tear_sheet_needs_no_network"),
    How(
        r"backtest --history .*",
        "tests/evaluation/test_backtest.py::test_every_bar_of_a_recorded_day_is_traded",
    ),
    How(
        r"backtest .* --model CHECKPOINT --set plugins=my_feature.py .*",
        "tests/plugins/test_own_features.py::test_the_example_is_shown_and_backtests_go_with_it",
    ),
    How(
        r"backtest .*plugins=my_positions.py.*",
        "tests/plugins/test_own_structures.py::test_rules_open_them_in_a_backtest_that_names_them",
    ),
    How(
        r"evaluate( .*)?",
        "tests/evaluation/test_evaluate.py::test_every_fold_learns_anew_and_leaves_its_checkpoint",
    ),
    How(
        r"tune( .*)?", "tests/app/test_tuning.py::test_a_search_that_was_stopped_goes_on_to_its_end"
    ),
    How(
        r"train( --config configs/train\.yaml)?",
        "tests/e2e/test_train.py::test_a_training_that_was_stopped_or_killed_goes_on_with_the_rest",
    ),
    How(
        r"train .*plugins=my_reward.py.*",
        "tests/plugins/test_own_reward.py::test_training_ends_before_ray_starts",
    ),
    How(
        r"train .*plugins=my_feature.py.*",
        "tests/plugins/test_own_features.py::test_a_policy_learns_from_them_on_runners_of_their_own",
    ),
    How(
        r"train .*learning\.history=var/history",
        "tests/cli/test_history.py::test_the_algorithm_trains_on_a_history",
    ),
    How(r"up( --config configs/local\.yaml)?", _HELD),
    How(
        r"up --set (market\.file|paths\.state_dir|account\.id)=.*",
        "tests/e2e/test_two_accounts.py::test_each_account_is_served_where_its_application_says",
    ),
    How(
        r"up --duration 60", "tests/e2e/test_up.py::test_a_second_start_resumes_account_and_learner"
    ),
    How(
        r"up --set ray\.dashboard=true",
        "tests/app/test_local_ray.py::test_the_dashboard_is_told_where_it_is_and_wants_the_token",
    ),
    How(
        r"up --replay .*",
        "tests/e2e/test_replay.py::test_the_whole_session_is_traded_and_a_second_run_gives_the_same_journal",
    ),
    How(
        r"up --config configs/strategies\.yaml( --claim| --strategy careful)?",
        "tests/e2e/test_strategies.py::test_a_replica_without_a_free_strategy_stands_by_and_takes_over_when_another_dies",
    ),
    # Not.
    How(r"(up|doctor) --config configs/paper\.yaml.*", why="a key of the vendor"),
    How(r"train .*--steps (500000|300000|50000).*", why=_HOURS),
    How(r"backtest --json --simulated 640 .*", why=_HOURS),
    How(r"train .*gpus_per_learner=1.*", why="a GPU"),
    How(r"train --config var/tune/best\.yaml", why=_HOURS),
]

OTHER = [
    How(
        r"(mkdir|cd|export|echo|beside=|config=|\. \.venv/bin/activate|\(umask).*",
        why="the shell's own",
    ),
    How(
        r"python -m trading\.app\.ray_dashboards .*",
        "tests/infra/test_monitoring.py::test_rays_own_dashboards_are_written_where_grafana_reads_them",
    ),
    How(
        r"scripts/(deploy|manage)_k8s\.sh( .*)?",
        "tests/infra/test_scripts.py::test_the_real_kubectl_understands_every_call",
    ),
    How(
        r"kubectl -n bots .*|kubectl create namespace bots",
        "tests/infra/test_manifests.py::test_the_second_bot_of_three_lines_trades_its_symbol",
    ),
    How(
        r"kubectl apply -[kf] .*",
        "tests/infra/test_manifests.py::test_objects_fit_the_schemas_of_kubernetes",
    ),
    How(
        r"helm install (bot|spy) .*",
        "tests/infra/test_chart.py::test_it_renders_what_the_kustomizations_build",
    ),
    How(r"(\w+=\S+ )*(kubectl|helm|kind) .*", why=_CLUSTER),
    How(r"docker .*", "tests/infra/test_image.py::test_it_trades_on_a_read_only_root"),
    How(r"make (run|test|test-all)", why="that is .ci/run: an environment of its own, then these"),
    How(
        r"make bench.*|python benchmarks/report\.py.*",
        "tests/test_benchmarks_page.py::test_a_benchmark_leaves_data_that_the_page_is_made_of",
    ),
    How(
        r"python benchmarks/environment\.py( --profile)?",
        "tests/test_benchmarks.py::test_the_environment_benchmark_measures_every_number_of_accounts",
    ),
    How(
        r"python benchmarks/learning\.py( .*)?",
        "tests/test_benchmarks.py::test_the_profile_of_training_shares_out_the_whole_step",
    ),
    How(
        r"python benchmarks/gpu_learner\.py",
        "tests/test_benchmarks.py::test_the_learner_benchmark_measures_every_arithmetic_and_shares_out_its_time",
    ),
    How(r"python -m benchmarks\.(learn\w+|horizons).*", why=_HOURS),
    How(r"python benchmarks/worlds\.py.*", why=_HOURS),
    How(
        r".*python benchmarks/pricing\.py",
        "tests/test_benchmarks.py::test_the_pricing_benchmark_measures_speed_and_error",
    ),
    How(r"(NO_OCEAN=1 )?(\S*/)?pip .*|python3 -m venv .*", why="packages of a registry"),
    How(r"(tar|sed) .*", why="a peer's sdist, which is fetched by hand"),
    How(r"pytest .*", why="it is a test"),
    How(
        r"ray (get-auth-token|start|job) .*",
        "tests/e2e/test_two_accounts.py::test_a_submitted_job_that_is_waited_for_tells_how_it_ended",
    ),
    How(
        r"curl .*/control/halt",
        "tests/serving/test_control.py::test_each_command_is_obeyed_journalled_and_answered",
    ),
]
"""The same for lines of other programs in blocks of shell."""

_INSTEAD = {
    "SYMBOL": "SPY", "AMOUNT": "1000", "WORD": "risk", "KEY": "seed", "WHICH": "step-120",
    "FILE.csv": "file.csv", "champion-N": "champion-2", "step-N": "step-120", "…": "",
    "CHECKPOINT": "var/checkpoints/step-000000120",
}  # fmt: skip
"""What stands in place of a page's placeholders."""
_FEWER = {"--simulated": "1", "--paths": "20"}
"""Options that cost time, and how much of it is enough."""
_NOTHING_TO_DO = {
    "account close": "SPY",
    "account reinstate": "SPY",
    "account undo-action": "SPY",
}
"""What is refused beside an account to which nothing of the kind has happened, and names what."""
_VERBS_ONLY = {"account", "checkpoints", "journal", "market"}
_TAKES_WHAT = {
    ("checkpoints", "promote"): "step-120", ("checkpoints", "card"): "step-120",
    ("account", "deposit"): "1000", ("account", "withdraw"): "1000",
    ("account", "close"): "SPY", ("account", "reinstate"): "SPY", ("account", "undo-action"): "SPY",
}  # fmt: skip
"""What text leaves out where it names a command without what it is about."""


def text_of(line: Line) -> str:
    return " ".join(line.words)


def how(text: str, among: list[How]) -> How | None:
    return next((each for each in among if re.fullmatch(each.pattern, text)), None)


def is_run_here(line: Line) -> bool:
    found = how(text_of(line), HOW)
    return found is not None and not found.test and not found.why


@pytest.mark.parametrize(
    ("texts", "among", "share"),
    [([text_of(line) for line in LINES], HOW, 0.8), (OTHERS, OTHER, 0.5)],
    ids=["trading", "others"],
)
def test_every_command_runs_in_a_test_or_says_why_not(
    texts: list[str], among: list[How], share: float
) -> None:
    assert sorted({text for text in texts if how(text, among) is None}) == []
    used = {how(text, among) for text in texts}
    assert [each.pattern for each in among if each not in used] == []
    for each in among:
        assert not (each.test and each.why)
        if each.test:
            file, _, name = each.test.partition("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), each.test
    kinds = [how(text, among) for text in texts]
    assert sum(not each.why for each in kinds if each) > share * len(texts)


def write_account(settings: Settings) -> None:
    """An account that traded five sessions, with champions 1 to 3 and the learner's step 120."""
    path = assembly.journal_path(settings)
    path.parent.mkdir(parents=True)
    broker = new_broker(path.parent, 100_000.0)
    for day in range(5):
        now_ns = NOW_NS + day * DAY_NS
        broker.submit(open_order(broker, "long_call", ts_ns=now_ns), market(now_ns), True, now_ns)
        broker.submit(close_order(broker, ts_ns=now_ns + 1), market(now_ns + 1), True, now_ns + 1)
        broker.close_session(f"2026-01-{day + 5:02d}", broker.account.cash, now_ns + 2)
    folder = settings.paths.checkpoints
    champions = ChampionStore(folder, 5)
    for number in (1, 2, 3):
        event = champions.write(
            lambda into, seed=number: write_module_weights(into, weights(settings, seed)),
            Promotion(10 * number, PromotedBy.GATE, "not worse"),
            AccountChampion(number - 1, 0, number - 1),
        )
        at_ns = NOW_NS + 6 * DAY_NS + number
        broker.record([msgspec.structs.replace(event, ts_ns=at_ns, equity=broker.account.cash)])
    broker.journal.close()
    (path.parent / "journal.db").rename(path)
    store = CheckpointStore(folder, 5)
    store.save(lambda into: write_module_weights(into, weights(settings, 4)), {"step": 120})


def weights(settings: Settings, seed: int) -> Weights:
    return Policy(assembly.model_config(settings), seed).weights()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after some sessions: accounts at rest, champions, a checkpoint, own files."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "examples" / "plugins" / "calm_condor.py", folder / "my_rules.py")
    several = ROOT / "configs" / "strategies.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_account(load_settings(None, (), {}))
        write_account(load_settings(several, ["strategy=careful"], {}))
    return folder


def called(line: Line) -> list[str]:
    """The words of a call as a page has it, with something in place of what it leaves open."""
    words = [word for word in line.words if word != "…"]
    if "[OPTIONS]" in words:
        return [*(word for word in words if word.islower()), "--help"]
    if words[0] == "VERB":
        return ["up", "-h"]
    if words[0] == "report" and "--strategy" in words:
        words += ["--config", "configs/strategies.yaml"]
        words[words.index("--strategy") + 1] = "careful"
    words = [_INSTEAD.get(word, word) for word in words]
    for k, word in enumerate(words[:-1]):
        words[k + 1] = _FEWER.get(word, words[k + 1])
    if words in (["market", "describe"],) or words[:2] in (
        ["market", "describe"],
        ["market", "plot"],
    ):
        words += ["--paths", _FEWER["--paths"]]
    if (what := _TAKES_WHAT.get(tuple(words))) is not None:
        words.append(what)
    if words[-1] in ("-o", "--into"):
        words.append("file.csv")
    return [*words, "--help"] if words[0] in _VERBS_ONLY and len(words) == 1 else words


_DONE: set[tuple[object, ...]] = set()
RUN_HERE = sorted({line.page for line in LINES if is_run_here(line)})


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_asks_of_an_account_or_a_market_runs(
    begun: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the page's order, in a folder as a user's, while nobody trades its account."""
    folder = tmp_path / "own"
    shutil.copytree(begun, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(discovery, "_loaded", {})
    monkeypatch.setattr(REGISTRY, "traders", {})
    done = 0
    for line in (each for each in LINES if each.page == page and is_run_here(each)):
        words = called(line)
        # What knows no account is the same on every page.
        place = page if words[0] not in ("backtest", "market") else None
        done += 1
        if (place, *words) in _DONE:
            continue
        _DONE.add((place, *words))
        result = CliRunner().invoke(app, words, prog_name="trading")
        refused = _NOTHING_TO_DO.get(" ".join(words[:2])) if "--help" not in words else None
        if refused is None:
            assert result.exit_code == 0, (words, result.output, result.exception)
        else:
            assert result.exit_code == 1 and refused in result.output, (words, result.output)
    assert done
