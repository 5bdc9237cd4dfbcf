"""What is learnt in each market that ships, and what it is worth where nothing was learnt from.

    python benchmarks/worlds.py                          # five seeds of six markets: hours
    python benchmarks/worlds.py --markets trend --seeds 1 --steps 20000 --sessions 20

For each market and seed `trading train` learns as `configs/train.yaml` says, on one core and in
episodes of several sessions, and `trading backtest` trades what was learnt in episodes of a seed of its own, beside the
baselines and a rule written by hand. Then the first seed's policy of each market trades in the
others, and the baselines alone trade many more sessions of the default one. What a market does not
define is as the exchange of `make run` has it (`market.unset=live`). Every run is the command that
its folder holds; a run that is there already is not run again. The tables go between the marks of
`docs/results.md`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    """Of each test."""
    in_a_row: int
    """Sessions of an episode."""

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
            *("backtest", "--json", "--simulated", str(self.sessions)),
            *("--model", os.path.relpath(checkpoint, ROOT), "--trader", RULE),
            *self._settings(market, 1000 + seed, f"plugins={PLUGINS}"),
        ]

    def baselines(self, market: str, seed: int) -> list[str]:
        """Return the arguments that test the baselines alone."""
        return [
            *("backtest", "--json", "--simulated", str(self.sessions)),
            *self._settings(market, 2000 + seed, f"plugins={PLUGINS}"),
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


def untaught(plan: Plan, market: str, seed: int) -> dict[str, Any]:
    """Return what the baselines alone come to in a market."""
    file = RESULTS / market / f"baselines-{seed}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(run(plan.baselines(market, seed), file.with_suffix(".log")))
    return dict(json.loads(file.read_text()))


def episodes(result: dict[str, Any], trader: str, in_a_row: int) -> NDArray[np.float64]:
    """Return the mean return a session of each episode, closed at the touch, [episodes]."""
    returns = np.array([each["closed_return"] for each in result["traders"][trader]["sessions"]])
    return returns.reshape(-1, in_a_row).mean(axis=1)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of [seeds, episodes]: both are drawn again.

    The percentiles of a bootstrap over seeds, and over the episodes of each seed that was drawn.
    """
    rng = np.random.default_rng(0)
    seeds, count = values.shape
    chosen = rng.integers(0, seeds, (RESAMPLES, seeds))
    drawn = rng.integers(0, count, (RESAMPLES, seeds, count))
    means = values[chosen[:, :, None], drawn].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _percent(value: float) -> str:
    return f"{value:+.3%}".replace("%", " %") if round(value, 5) else "0"


def _range(values: NDArray[np.float64]) -> str:
    low, high = interval(values)
    return f"{_percent(low)} to {_percent(high)}"


def market_table(
    plan: Plan, market: str, seeds: Iterable[int], horizon: str | None = None
) -> list[str]:
    """Return the lines of what all traders came to in one market, or policies of a horizon."""
    results = [tested(plan, market, seed, of=market, horizon=horizon) for seed in seeds]
    traders = list(results[0]["traders"])
    if horizon is not None:
        traders = [name for name in traders if name in (POLICY, GREEDY, CASH)]
    values = {
        name: np.stack([episodes(each, name, plan.in_a_row) for each in results])
        for name in traders
    }
    fills = {
        name: np.mean(
            [session["fills"] for each in results for session in each["traders"][name]["sessions"]]
        )
        for name in traders
    }
    title = market if horizon is None else f"{market}, learnt with a horizon of {horizon}"
    lines = [
        f"### {title}",
        "",
        "| trader | mean return a session | 95 % | policy less this, 95 % | fills | each seed |",
        "|---|--:|---|---|--:|---|",
    ]
    for name in traders:
        each = values[name]
        less = "" if name == POLICY else _range(values[POLICY] - each)
        own = ", ".join(_percent(mean) for mean in each.mean(axis=1))
        label = "the rule written by hand" if RULE in name else name
        cells = (label, _percent(each.mean()), _range(each), less, f"{fills[name]:.2f}", own)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def baselines_table(plan: Plan, market: str, seeds: Iterable[int]) -> list[str]:
    """Return the lines of what the baselines come to in more sessions."""
    results = [untaught(plan, market, seed) for seed in seeds]
    sessions = plan.sessions * len(results)
    lines = [
        f"### {market}, baselines over {sessions:,} sessions",
        "",
        "| baseline | mean return a session | 95 % | standard deviation of an episode | fills |",
        "|---|--:|---|--:|--:|",
    ]
    for name in results[0]["traders"]:
        told = [each["traders"][name]["sessions"] for each in results]
        each = np.stack([episodes(result, name, plan.in_a_row) for result in results])
        fills = np.mean([session["fills"] for sessions in told for session in sessions])
        spread = plan.in_a_row * each.std()
        cells = (name, _percent(each.mean()), _range(each), f"{100 * spread:.2f} %", f"{fills:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
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
    parser.add_argument("--sessions", type=int, default=320, help="of each test")
    parser.add_argument("--in-a-row", type=int, default=10, help="sessions of an episode")
    parser.add_argument("--baselines", type=int, default=1280, help="sessions of each seed's test")
    parser.add_argument("--no-crossing", action="store_true", help="each in its own market alone")
    parser.add_argument("--no-more", action="store_true", help="no other horizon, no longer test")
    options = parser.parse_args()
    plan = Plan(options.steps, options.sessions, options.in_a_row)
    longer = replace(plan, sessions=options.baselines)
    seeds = range(1, options.seeds + 1)
    for seed in seeds:
        for market in options.markets:
            result = tested(plan, market, seed, of=market)
            mean = episodes(result, POLICY, plan.in_a_row).mean()
            print(f"{market}, seed {seed}: {_percent(mean)} a session", flush=True)
    trained = [
        RESULTS / each / f"seed-{seed}" / "trained" for each in options.markets for seed in seeds
    ]
    commits = sorted({each.read_text() for each in trained})
    lines = [BEGIN, ""]
    lines += [
        f"{plan.steps:,} decisions, {len(seeds)} seeds; each is tested on {plan.sessions} sessions,"
        f" {plan.in_a_row} in a row, of a seed of its own, and closed at the touch after them."
        f" Trained at commit {', '.join(commits)}, {processor()}.",
        "",
    ]
    for market in options.markets:
        lines += market_table(plan, market, seeds)
        if market == "default" and not options.no_more:
            lines += market_table(plan, market, seeds, LONG)
            lines += baselines_table(longer, market, seeds)
    if not options.no_crossing:
        lines += crossed_table(plan, options.markets, 1)
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + "\n".join([*lines, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
