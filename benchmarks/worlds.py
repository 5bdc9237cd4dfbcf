"""What is learnt in each market that ships, and what it is worth where nothing was learnt from.

    python benchmarks/worlds.py                          # five seeds of six markets: hours
    python benchmarks/worlds.py --markets trend --seeds 1 --steps 20000 --sessions 20

For each market and seed `trading train` learns as `configs/train.yaml` says, on one core and in
episodes of several sessions, and `trading backtest` trades what was learnt in episodes of a seed of
its own. The baselines and a rule written by hand trade as many sessions as the policies of all
seeds together. Then the first seed's policy of each market trades in the others. In the default
market policies learn with a longer horizon as well. What a market does not define is as the
exchange of `make run` has it (`market.unset=live`). Every run is the command that its folder holds;
a run that is there already is not run again. The tables go between the marks of `docs/results.md`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import commit, processor
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "var" / "worlds"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- worlds: written by benchmarks/worlds.py -->", "<!-- worlds: end -->"
MARKETS = (
    "default",
    "no-edge",
    "reverting-volatility",
    "variance-premium",
    "trend",
    "crash",
)
LONG = "10 sessions"
"""The horizon of the discount that the default market is learnt with as well."""
RULE = "calm_condor"
PLUGINS = "examples/plugins/calm_condor.py,examples/plugins/secured_put.py"
POLICY, GREEDY, CASH = "policy, sampled", "policy, greedy", "hold cash"
RESAMPLES = 4000


@dataclass(frozen=True)
class Plan:
    """How much is learnt and tested."""

    steps: int
    sessions: int
    """Of the test of each policy; the baselines trade as many as all seeds together."""
    in_a_row: int
    """Sessions of an episode."""
    seeds: range

    def train(self, market: str, seed: int, horizon: str | None) -> list[str]:
        """Return the arguments that train one policy."""
        more = ["learning.num_env_runners=0", "learning.threads=1"]
        more += [] if horizon is None else [f"learning.horizon={horizon}"]
        state = os.path.relpath(_folder(market, seed, horizon), ROOT)
        return [
            *("train", "--config", "configs/train.yaml", "--steps", str(self.steps)),
            *self._settings(market, seed, *more, f"paths.state_dir={state}"),
        ]

    def backtest(self, market: str, seed: int, checkpoint: Path) -> list[str]:
        """Return the arguments that test one policy in a market."""
        return [
            *("backtest", "--json", "--simulated", str(self.sessions), "--no-baselines"),
            *("--model", os.path.relpath(checkpoint, ROOT)),
            *self._settings(market, 1000 + seed),
        ]

    def baselines(self, market: str) -> list[str]:
        """Return the arguments that test the baselines in a market, and the rule beside them."""
        sessions = str(self.sessions * len(self.seeds))
        return [
            *("backtest", "--json", "--simulated", sessions, "--trader", RULE),
            *self._settings(market, 2000, f"plugins={PLUGINS}"),
        ]

    def _settings(self, market: str, seed: int, *more: str) -> Iterable[str]:
        yield from ("--set", f"seed={seed}", "--set", f"env.sessions_per_episode={self.in_a_row}")
        yield from ("--set", "symbols=SPY", "--set", "market.unset=live")
        if market != "default":
            yield from ("--set", f"market.file=configs/markets/{market}.yaml")
        for each in more:
            yield from ("--set", each)


def _folder(market: str, seed: int, horizon: str | None) -> Path:
    longer = "" if horizon is None else "-horizon-" + horizon.replace(" ", "-")
    return RESULTS / market / f"seed-{seed}{longer}"


def run(arguments: list[str], log: Path) -> str:
    """Run one command of the project to its end; its answer."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.with_suffix(".command").write_text("trading " + shlex.join(arguments) + "\n")
    with log.open("w") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "trading", *arguments],
            check=False,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"trading {shlex.join(arguments)} ended with {done.returncode}: see {log}")
    return done.stdout


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a state folder, if there is one."""
    steps = sorted((folder / "checkpoints").glob("step-*"))
    return steps[-1] if steps else None


def learnt(plan: Plan, market: str, seed: int, horizon: str | None = None) -> Path:
    """Return the checkpoint of a market and seed, which is trained if it is not there."""
    folder = _folder(market, seed, horizon)
    done = folder / "trained"
    if not done.exists():
        run(plan.train(market, seed, horizon), folder / "train.log")
        done.write_text(commit(ROOT))
    checkpoint = newest(folder)
    assert checkpoint is not None, folder
    return checkpoint


def tested(
    plan: Plan, market: str, seed: int, of: str, horizon: str | None = None
) -> dict[str, Any]:
    """Return what the policy `of` a market comes to in another, or the same."""
    policy = _folder(of, seed, horizon).name.replace("seed", of)
    file = RESULTS / market / f"test-of-{policy}.json"
    if not file.exists():
        arguments = plan.backtest(market, seed, learnt(plan, of, seed, horizon))
        file.write_text(run(arguments, file.with_suffix(".log")))
    return dict(json.loads(file.read_text()))


def untaught(plan: Plan, market: str) -> dict[str, Any]:
    """Return what the baselines come to in a market."""
    file = RESULTS / market / "baselines.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(run(plan.baselines(market), file.with_suffix(".log")))
    return dict(json.loads(file.read_text()))


def episodes(result: dict[str, Any], trader: str, in_a_row: int) -> NDArray[np.float64]:
    """Return the mean return a session of each episode, closed at the touch, [episodes]."""
    returns = np.array([each["closed_return"] for each in result["traders"][trader]["sessions"]])
    return returns.reshape(-1, in_a_row).mean(axis=1)


def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bootstrapped means of [seeds, episodes]: of each seed drawn, episodes are drawn."""
    rng = np.random.default_rng(0)
    seeds, count = values.shape
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, seeds, seeds)
        drawn.append(values[rows[:, None], rng.integers(0, count, (seeds, count))].mean())
    return np.array(drawn)


def _percent(value: float) -> str:
    return f"{value:+.3%}".replace("%", " %") if round(value, 5) else "0"


def _range(drawn: NDArray[np.float64]) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{_percent(low)} to {_percent(high)}"


def _row(
    plan: Plan, label: str, results: list[dict[str, Any]], trader: str, policy: NDArray[np.float64]
) -> str:
    """Return a line of a market's table; `policy` [seeds, episodes] is what it is compared with."""
    each = np.stack([episodes(result, trader, plan.in_a_row) for result in results])
    told = [result["traders"][trader]["sessions"] for result in results]
    fills = np.mean([session["fills"] for sessions in told for session in sessions])
    less = ""
    if trader != POLICY:
        paired = each.shape == policy.shape
        less = _range(means(policy - each) if paired else means(policy) - means(each)[::-1])
    own = ", ".join(_percent(mean) for mean in each.mean(axis=1)) if len(results) > 1 else ""
    spread = f"{100 * plan.in_a_row * each.std():.1f} %"
    cells = (label, _percent(each.mean()), _range(means(each)), less, f"{fills:.2f}", spread, own)
    return "| " + " | ".join(cells) + " |"


def market_table(plan: Plan, market: str, horizons: Iterable[str | None]) -> list[str]:
    """Return the lines of what all traders came to in one market, policies of these horizons."""
    lines = [
        f"### {market}",
        "",
        "| trader | mean return a session | 95 % | policy less this, 95 % | fills | deviation of an"
        " episode | each seed |",
        "|---|--:|---|---|--:|--:|---|",
    ]
    usual = [tested(plan, market, seed, of=market) for seed in plan.seeds]
    policy = np.stack([episodes(each, POLICY, plan.in_a_row) for each in usual])
    for horizon in horizons:
        results = [tested(plan, market, seed, market, horizon) for seed in plan.seeds]
        longer = "" if horizon is None else f", horizon of {horizon}"
        for trader in (POLICY, GREEDY):
            lines.append(_row(plan, trader + longer, results, trader, policy))
    baselines = untaught(plan, market)
    for name in baselines["traders"]:
        label = "the rule written by hand" if RULE in name else name
        lines.append(_row(plan, label, [baselines], name, policy))
    return [*lines, ""]


def crossed_table(plan: Plan, markets: list[str], seed: int) -> list[str]:
    """Return the lines of the policy of each market in every other."""
    lines = [
        "### A policy of one market in another",
        "",
        f"Mean return a session of the first seed's policies, each over {plan.sessions} sessions.",
        "",
        "| learnt in | " + " | ".join(markets) + " |",
        "|---|" + "--:|" * len(markets),
    ]
    for of in markets:
        means = [
            _percent(episodes(tested(plan, market, seed, of), POLICY, plan.in_a_row).mean())
            for market in markets
        ]
        lines.append(f"| {of} | " + " | ".join(means) + " |")
    return [*lines, ""]


def main() -> None:
    """Run what is not there yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", nargs="*", choices=MARKETS, default=list(MARKETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="decisions of each training")
    parser.add_argument("--sessions", type=int, default=640, help="of the test of each policy")
    parser.add_argument("--in-a-row", type=int, default=10, help="sessions of an episode")
    parser.add_argument("--no-crossing", action="store_true", help="each in its own market alone")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    plan = Plan(options.steps, options.sessions, options.in_a_row, seeds)
    of_market = {each: (None, LONG) if each == "default" else (None,) for each in options.markets}
    for market, horizons in of_market.items():
        untaught(plan, market)
        for horizon in horizons:
            for seed in seeds:
                result = tested(plan, market, seed, market, horizon)
                mean = episodes(result, POLICY, plan.in_a_row).mean()
                longer = "" if horizon is None else f", horizon {horizon}"
                print(f"{market}{longer}, seed {seed}: {_percent(mean)} a session", flush=True)
    trained = [
        _folder(market, seed, horizon) / "trained"
        for market, horizons in of_market.items()
        for horizon in horizons
        for seed in seeds
    ]
    commits = sorted({each.read_text() for each in trained})
    lines = [BEGIN, ""]
    lines += [
        f"{plan.steps:,} decisions, {len(seeds)} seeds; each is tested on {plan.sessions} sessions,"
        f" {plan.in_a_row} in a row, of a seed of its own, and closed at the touch after them."
        f" Trained at commit {', '.join(commits)}, {processor()}.",
        "",
    ]
    for market, horizons in of_market.items():
        lines += market_table(plan, market, horizons)
    if not options.no_crossing:
        lines += crossed_table(plan, options.markets, 1)
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + "\n".join([*lines, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
