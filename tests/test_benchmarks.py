"""The benchmarks run at the smallest sizes and print what they promise; speeds are not judged."""

import gzip
import os
import runpy
import subprocess
import sys
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.waits import WAIT_S
from trading.config import load_settings

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

PEERS = {
    "FinRL, pandas, 1 stock": "finrl",
    "FinRL, pandas, 30 stocks": "finrl",
    "FinRL, pandas, 30 stocks, 10 years": "finrl",
    "FinRL, NumPy, 1 stock": "finrl",
    "FinRL, NumPy, 30 stocks": "finrl",
    "FinRL, NumPy, 1 stock, B = 64": "finrl",
    "gym-anytrading, 1 stock": "gym_anytrading",
    "gym-anytrading, 1 stock, B = 64": "gym_anytrading",
}


@cache
def printed(script: str, *arguments: str) -> str:
    """What a benchmark prints, in a process of its own because it keeps itself to one core."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(output: str) -> dict[str, list[str]]:
    """Cells of the tables' lines, by their first cell."""
    found = {}
    for line in output.splitlines():
        if line.startswith("│"):
            name, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            found[name] = cells
    return found


def number(cell: str) -> float:
    return float(cell.replace(",", "").strip().removesuffix("%").removesuffix(" x"))


def environments() -> str:
    sizes = ("--accounts", "1", "16", "--calls", "5", "--rounds", "2", "--seconds", "0")
    return printed("environment.py", *sizes)


def test_the_environment_benchmark_measures_every_number_of_accounts() -> None:
    found = rows(environments())
    for accounts in (1, 16):
        values, actions, rate, spread, microseconds, *_ = found[
            f"this project, a market each, B = {accounts}"
        ]
        assert number(values) > 1
        assert actions.endswith(", masked")
        assert number(rate) * number(microseconds) == pytest.approx(1e6, rel=0.05)
        assert number(spread) >= 0.0
    assert found["this project, a market each, B = 16"][-2] == "1.0 x"
    assert found["this project, 16 to a market, B = 16"][-1] == "1.0 x"


@pytest.mark.parametrize("peer", PEERS)
def test_the_environment_benchmark_measures_a_peer_or_says_that_it_is_missing(peer: str) -> None:
    module = PEERS[peer]
    if find_spec(module) is None:
        assert f"Left out, as {module} is not installed: " in environments()
        assert peer not in rows(environments())
        pytest.skip(f"{module} is not installed: pip install -e '.[bench]'")
    _, _, rate, _, microseconds, *ratios = rows(environments())[peer]
    assert number(rate) > 0.0
    assert number(microseconds) > 0.0
    assert len(ratios) == 2


def test_the_profile_of_the_environment_shares_out_the_whole_step() -> None:
    found = rows(
        printed(
            "environment.py", "--profile", "--accounts", "2", "--calls", "400", "--seconds", "0"
        )
    )
    shares = {name: number(cells[0].split("µs")[1]) for name, cells in found.items()}
    assert shares.pop("a step") == 100.0
    assert len(shares) > 5
    assert sum(shares.values()) == pytest.approx(100.0, abs=4.0)


def test_the_pricing_benchmark_measures_speed_and_error() -> None:
    output = printed("pricing.py", "--contracts", "200", "--americans", "20", "--rounds", "1")
    found = rows(output)
    for name in ("this project", "QuantLib", "QuantLib QD+"):
        rate, ratio, *errors = found[name]
        assert number(rate) > 0.0
        assert number(ratio) > 0.0
        assert all(float(error) < 1e-2 for error in errors)
    if find_spec("fast_vollib") is None:
        assert "Left out, as fast-vollib is not installed" in output


def test_the_learner_benchmark_measures_every_arithmetic_and_shares_out_its_time() -> None:
    sizes = ("--hidden", "16", "--steps", "8", "--sequences", "16", "--rounds", "2")
    variants = ("--variants", "fp32", "tf32", "bf16", "--peak-tflops", "0.1", "0.1", "0.2")
    found = rows(printed("gpu_learner.py", "--device", "cpu", *sizes, *variants))
    for variant, peak in (("fp32", 0.1), ("tf32", 0.1), ("bf16", 0.2)):
        parameters, rate, _, ratio, tflops, mfu, *shares, busy = found[f"16, {variant}"]
        assert number(parameters) == number(found["16, fp32"][0])
        assert number(ratio) == pytest.approx(number(rate) / number(found["16, fp32"][1]), abs=0.02)
        assert number(mfu) / 100 == pytest.approx(number(tflops) / peak, abs=1e-3)
        assert sum(map(number, shares)) == pytest.approx(100.0, abs=3.0)
        assert busy == ""


TRAINERS = {
    "this project": "trading",
    "RLlib PPO, use_lstm": "ray",
    "sb3-contrib RecurrentPPO": "sb3_contrib",
    "PufferLib LSTM PPO": "pufferlib",
}
SMALL_TRAINING = ("--rounds", "1", "--seconds", "0", "--envs", "8", "--steps", "8", "--cores", "1")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_learning_benchmark_measures_a_trainer_or_says_that_it_is_missing(
    trainer: str,
) -> None:
    output = printed("learning.py", "--warmup", "0", *SMALL_TRAINING)
    found = rows(output)
    if find_spec(TRAINERS[trainer]) is None:
        assert f"Left out, as {TRAINERS[trainer]} is not installed: {trainer}." in output
        assert trainer not in found
        pytest.skip(f"{TRAINERS[trainer]} is not installed, see docs/learning-benchmark.md")
    parameters, rate, _, cpu_rate, *ratios = found[trainer]
    assert number(parameters) == pytest.approx(number(found["this project"][0]), rel=0.02)
    assert number(rate) > 0.0
    assert number(cpu_rate) > 0.0
    assert all(number(ratio) > 0.0 for ratio in ratios)


def test_the_learning_benchmark_trains_until_the_mean_return_is_reached() -> None:
    found = rows(
        printed("learning.py", "--time-to-return", "--wanted", "0.05", *SMALL_TRAINING[:2],
                "--seconds", "60", "--trainers", "this project")
    )  # fmt: skip
    _, solved, steps, *seconds = found["this project"]
    assert solved == "1 of 1"
    assert number(steps) >= 200
    assert all(number(cell) > 0.0 for cell in seconds)


def test_the_profile_of_training_shares_out_the_whole_step() -> None:
    found = rows(printed("learning.py", "--profile", *SMALL_TRAINING))
    shares = {name: number(cells[1]) for name, cells in found.items()}
    assert shares.pop("a step") == 100.0
    assert {
        "environment",
        "acting: network",
        "advantages",
        "learning: forward, loss, backward",
    } <= shares.keys()
    assert sum(shares.values()) == pytest.approx(100.0, abs=8.0)


def test_stages_of_training_are_held_against_what_a_core_can_do() -> None:
    found = rows(printed("roofline.py", "--seconds", "0", "--envs", "8", "--steps", "8"))
    flops, bandwidth = next(iter(found.values()))
    assert number(flops) > 0.0 and number(bandwidth) > 0.0
    for stage in ("learning: forward, loss, backward", "learning: gradients of weights"):
        reached, share = number(found[stage][2]), number(found[stage][3])
        assert 0.0 < share < 100.0
        assert share == pytest.approx(100.0 * reached / number(flops), abs=1.5)
    assert number(found["learning: Adam"][4]) > 0.0
    assert found["environment"][2:] == [""] * 4


def test_the_scaling_benchmark_measures_every_role() -> None:
    sizes = ("--counts", "1", "--symbols", "2", "--minutes", "3", "--envs", "4", "--shares", "8")
    output = printed("scaling.py", *sizes, "--iterations", "1")
    lines = [line for line in output.splitlines() if line.startswith("│")]
    figures = [[number(cell) for cell in line.strip("│").split("│")] for line in lines]
    *markets, runners, learners, share = figures
    assert [row[0] for row in figures] == [1, 2, 1, 1, 8]
    assert share[1] * 8 * 64 == pytest.approx(1e3 * share[2], rel=0.05) and share[3] > 0
    for _, microseconds, rate, milliseconds, alike in markets:
        assert microseconds * rate == pytest.approx(1e6, rel=0.05)
        assert 0 < alike < milliseconds, "an account's own part is none of it"
    for row in (runners, learners):
        assert len(row) == 7 and min(row) >= 0 and row[-1] > 0
        assert row[5] > 100, "each decision is fetched once"


def test_a_years_journal_is_measured() -> None:
    sizes = ("--sessions", "2", "--bars", "20", "--trades", "1", "--underlyings", "1")
    found = rows(printed("journal.py", *sizes))
    assert number(found["events"][0]) > 40
    assert number(found["bytes an event"][0]) > 100
    assert "fold from the newest snapshot, s" in found


def test_the_feed_is_measured_beside_the_straight_way() -> None:
    output = printed("feed.py", "--rates", "400", "--readers", "1", "--seconds", "2")
    cells = rows(output)["400, 1"]
    assert all(number(cell) > 0.0 for cell in cells[:5])
    left_out, of_all = cells[5].split(" of ")
    assert left_out == "0" and number(of_all) > 400


def test_orders_are_timed_from_the_quote_behind_the_bar_and_overload_is_counted() -> None:
    sizes = ("--rates", "3000", "--seconds", "8", "--overload", "20000", "--overload-seconds", "3")
    found = rows(printed("latency.py", *sizes))
    for name in ("3,000, alone", "3,000, a learner beside it"):
        p50, p99, _, worst, bars, events, updates, _ = found[name]
        assert 0.0 < number(p50) <= number(p99) <= number(worst)
        assert number(bars) > 0 and number(events) > 0
        assert (number(updates) > 0) == ("learner" in name)
    offered, read, replaced, first, last, growth = found["20,000 quotes/s, 3 s"]
    assert 0 < number(read) <= 1.01 * number(offered) <= 1.05 * 20_000
    assert number(replaced) > 0, "the slow reader gets the newest"
    assert number(first) > 0 and number(last) > 0 and "%" in growth


def test_commands_are_timed_and_load_nothing_heavy() -> None:
    found = rows(printed("start.py", "--parts", "commands", "--rounds", "1"))
    assert found.keys() >= {"trading --help", "trading stop, nothing to stop"}
    for seconds, _, imports in found.values():
        assert number(seconds) > 0.0
        assert "torch" not in imports and "ray" not in imports


@pytest.mark.parametrize("frame", [1, 25])
def test_quotes_are_applied_beside_the_vendors_client(frame: int) -> None:
    sizes = ("--events", "2000", "--rounds", "1", "--in-a-frame", str(frame))
    output = printed("decode.py", *sizes)
    found = rows(output)
    ours = "this project: decode, admit, apply"
    for name in (ours, "this project: decode alone", "the vendor's client: parse alone"):
        rate, _, microseconds, ratio = map(number, found[name])
        assert rate * microseconds == pytest.approx(1e6, rel=0.05)
        assert ratio == pytest.approx(number(found[ours][0]) / rate, rel=0.05)
    assert f"2,000 quotes of 1,008 contracts, {frame} in a frame" in output


def test_real_quotes_take_the_same_way(tmp_path: Path) -> None:
    symbols = [f"O:SPY151224{right}{strike:08d}" for right in "CP" for strike in (200000, 205000)]
    folder = tmp_path / "us_options_opra" / "quotes_v1" / "2015" / "12"
    folder.mkdir(parents=True)
    head = "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size"
    lines = [f"{head},sequence_number,sip_timestamp"]
    lines += [
        f"{symbol},0,1.{k % 90 + 10},1,0,1.05,2,{k + 1},{1450967460000000000 + k * 10**8}"
        for symbol in symbols
        for k in range(50)
    ]
    with gzip.open(folder / "2015-12-24.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    day = ("--flat-files", str(tmp_path), "--day", "2015-12-24", "--underlying", "SPY")
    output = printed("decode.py", *day, "--rounds", "1")
    assert "200 quotes of 4 contracts" in output
    profile = rows(printed("decode.py", *day, "--profile"))
    assert any(name.startswith("bar_clock take") for name in profile)


def test_the_strategies_benchmark_asks_for_what_its_row_says_and_counts_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without starting the application, which takes a minute for each row."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "strategies.py"))
    file = tmp_path / "settings.yaml"
    file.write_text(benchmark["settings_text"](10, 300, 30.0, learn=False))
    settings = load_settings(file, (), {})
    assert (len(settings.strategies), len(set(settings.symbols))) == (10, 300)
    assert (settings.learning.online, settings.data.simulation.speed) == (False, 30.0)
    work = "import time; until = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); input()"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + WAIT_S
        while benchmark["cpu_s"](process) < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert benchmark["memory"](process) > 2**20
        process.communicate(b"\n")


def test_the_slow_edge_measures_each_learner_after_as_many_steps_and_seconds() -> None:
    short = ("--seeds", "1", "--steps", "4096", "--episodes", "2")
    ours, peer = "this project, horizon 5 sessions", "sb3-contrib RecurrentPPO"
    output = printed("slow_edge.py", *short, "--learners", ours, peer)
    found = rows(output)
    parameters, after, interval, _, in_seconds, _, decisions = found[ours]
    assert decisions == "4,096" and after == in_seconds and " to " in interval
    assert found["hold cash"][1] == "+0.000%"
    if find_spec("sb3_contrib") is None:
        assert f"Left out, as sb3_contrib is not installed: {peer}." in output
    else:
        assert number(found[peer][0]) == pytest.approx(number(parameters), rel=0.05)
