"""What one more process costs: environment runners, learners, live markets.

To repeat it:

    python benchmarks/scaling.py

Seconds are those of the processor, by role, so that they mean something where there are fewer cores
than processes and others use them too: a role scales as long as its seconds per unit of work stay
what they are, and the role that serves all of them (driver, learner) is the next limit. Rates by
the wall clock stand beside, for this machine as it was.

A learner of several gets a share of each update's rollouts: `--parts shares` says what shares of
different sizes cost. Runners and learners are those of `trading train` with the default network, on
a Ray of their own.
A live market is what the live actor's trading thread does, without sockets: frames of quotes are
decoded and applied, and at every bar's end chains are refreshed, the account is marked, and the
policy decides and trades by the journal. Each runs in a process of its own, at the same time as the
others. What of a bar is the same for all accounts of these symbols, chains and market snapshots, is
told apart: it is all that accounts of one node could share.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase
from time import perf_counter, process_time
from typing import Any, NamedTuple

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402 (threads are set before it loads its libraries)
import torch  # noqa: E402
from figures import Figures, add_json, publish  # noqa: E402
from ray.rllib.core import DEFAULT_MODULE_ID  # noqa: E402
from ray.rllib.utils.metrics import LEARNER_RESULTS  # noqa: E402

from trading.config import load_settings  # noqa: E402
from trading.data.massive.encoding import encode_quotes, frames  # noqa: E402
from trading.data.massive.server.source import SimulationSource  # noqa: E402
from trading.envs.live_env import LiveEnv  # noqa: E402
from trading.execution.broker import PaperBroker  # noqa: E402
from trading.execution.journal import Journal  # noqa: E402
from trading.learning.build import Placement, build_algorithm, ppo_settings  # noqa: E402
from trading.learning.policy import Policy, seeded_clstm  # noqa: E402
from trading.learning.ppo_update import update  # noqa: E402
from trading.learning.rollout import Rollout  # noqa: E402
from trading.live import assembly  # noqa: E402
from trading.live.bar_clock import BarClock, first_bar_after  # noqa: E402
from trading.live.markets import nearest_the_money  # noqa: E402
from trading.market.simulator import SimulatedExchange, UnderlyingSpec  # noqa: E402

DAY = date(2026, 1, 5)
BAR_NS = 60_000_000_000
SPOT = 100.0
CONTRACTS_OF_A_STRIKE = 8
"""Calls and puts of the simulator's expiries."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Work(NamedTuple):
    """Processor seconds by role, and what was done in them."""

    decisions: int
    wall_s: float
    cpu_s: dict[str, float]
    rollout_bytes: float = 0.0
    """That learners fetched, all together."""

    def microseconds(self, role: str) -> float:
        """Of the processor, for each decision."""
        return 1e6 * self.cpu_s[role] / self.decisions


def train(runners: int, learners: int, envs: int, iterations: int) -> Work:
    """Sample and learn, without overlap, after an iteration that is not counted."""
    settings = load_settings(
        None,
        [
            f"learning.num_env_runners={runners}",
            f"learning.num_envs={envs}",
            "learning.overlap=false",
        ],
        {},
    )
    algorithm = build_algorithm(
        settings,
        assembly.model_config(settings),
        assembly.trading_rules(settings),
        assembly.fee_schedule(settings),
        Placement(learners, 0, {}),
    )
    try:
        algorithm.train()
        roles = {
            "runner": algorithm.env_runner_group.foreach_env_runner(
                _process, local_env_runner=False
            ),
            "learner": [each.get() for each in algorithm.learner_group.foreach_learner(_process)],
            "driver": [os.getpid()],
        }
        known = {process for processes in roles.values() for process in processes}
        roles["Ray"] = [each for each in _descendants(os.getpid()) if each not in known]
        before = {role: _cpu_s(processes) for role, processes in roles.items()}
        steps, started = algorithm.steps_trained, perf_counter()
        fetched = 0.0
        for _ in range(iterations):
            fetched += algorithm.train()[LEARNER_RESULTS][DEFAULT_MODULE_ID]["rollout_bytes"]
        spent = {role: _cpu_s(processes) - before[role] for role, processes in roles.items()}
        wall_s = perf_counter() - started
        return Work(algorithm.steps_trained - steps, wall_s, spent, fetched)
    finally:
        algorithm.stop()


def _process(_: Any) -> int:
    return os.getpid()


def _stat(process: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name: state, parent, …"""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(processes: Iterable[int]) -> float:
    total = 0.0
    for process in processes:
        with suppress(OSError):
            fields = _stat(process)
            total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _descendants(process: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        child = int(folder.name)
        with suppress(OSError):
            if int(_stat(child)[1]) == process:
                yield child
                yield from _descendants(child)


class Market(NamedTuple):
    """What a live market took for its work, in processor seconds."""

    quotes: int
    apply_s: float
    bars: int
    bar_s: float
    alike_s: float
    """Of `bar_s`, what is the same for every account of these symbols."""
    wall_s: float


class Stopwatch:
    """Processor seconds of the calls that it times."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def timed(self, call: Callable[..., None]) -> Callable[..., None]:
        """Return the call, timed."""

        def timed(*arguments: Any) -> None:
            began = process_time()
            call(*arguments)
            self.spent_s += process_time() - began

        return timed


def market(symbols: int, contracts: int, minutes: int) -> Market:
    """Trade the first minutes of a simulated session; the first bar is not counted."""
    torch.set_num_threads(1)
    names = ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=3), symbols)]
    settings = load_settings(None, [f"symbols=[{', '.join(names)}]"], {})
    fees, quota = assembly.fee_schedule(settings), contracts // symbols
    strikes = max(15, quota // CONTRACTS_OF_A_STRIKE + 2)
    specs = [UnderlyingSpec(name, SPOT, 0.25, n_strikes=strikes) for name in names]
    exchange = SimulatedExchange(specs, DAY, seed=1, step_seconds=5)
    source = SimulationSource(exchange, exchange.calendar.session_on(DAY).open_ns)
    session = source.listing.session
    listings = defaultdict(list)
    for contract in source.listing.contracts:
        listings[contract.underlying].append(contract)
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite") as journal,
    ):
        account = journal.open_account("paper", 100_000.0, session.open_ns)
        broker = PaperBroker(journal, account, fees, assembly.risk_limits(settings))
        env = LiveEnv(names, assembly.trading_rules(settings), fees, exchange.calendar, broker)
        env.begin_session(session)
        alike = Stopwatch()
        for each in env._markets.values():
            each.close_bar = alike.timed(each.close_bar)  # type: ignore[method-assign]
        for name in names:
            env.list_contracts(name, nearest_the_money(listings[name], SPOT, DAY, quota))
        policy = Policy(assembly.model_config(settings), seed=1)
        state, first = policy.initial_state(symbols), np.ones(symbols, dtype=np.bool_)
        clock = BarClock(env, first_bar_after(session.open_ns, exchange.calendar, BAR_NS), BAR_NS)
        quoted = set(env.listed_symbols())
        rows_of = np.array([symbol in quoted for symbol in source.listing.symbols])
        apply_s = bar_s = alike_s = counted = 0.0
        bars, wall = 0, perf_counter()
        for step in source.steps():
            if step.ts_ns > session.open_ns + minutes * BAR_NS:
                break
            rows = np.flatnonzero(rows_of[step.quotes.contract])
            events = encode_quotes(step.quotes, rows, source.listing.symbols)
            for bar in step.bars:
                env.apply_bar(bar)
            packed = list(frames(events, 500))
            began, before = process_time(), clock.quotes
            for frame in packed:
                clock.take(frame)
            if bars:
                apply_s += process_time() - began
                counted += clock.quotes - before
            if step.ts_ns == clock.bar.end_ns:
                began, alike.spent_s = process_time(), 0.0
                observations, mask, _ = env.close_bar(step.ts_ns, session)
                decision, state = policy.act(observations, mask, state, first)
                env.trade(step.ts_ns, decision.actions.tolist())
                if bars:
                    bar_s += process_time() - began
                    alike_s += alike.spent_s
                first[:], bars = False, bars + 1
                clock.advance(first_bar_after(step.ts_ns, exchange.calendar, BAR_NS))
        return Market(int(counted), apply_s, bars - 1, bar_s, alike_s, perf_counter() - wall)


def markets(processes: int, symbols: int, contracts: int, minutes: int) -> list[Market]:
    """So many live markets at once, each in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.starmap(market, [(symbols, contracts, minutes)] * processes, chunksize=1)


MARKET_COLUMNS = {
    **{"µs/quote": "{:.2f}", "quotes/s": "{:,.0f}"},
    **{"ms/bar": "{:.1f}", "alike ms": "{:.1f}"},
}
ROLES = ("runner", "learner", "driver", "Ray")
ROLE_COLUMNS = {
    **{f"{role} µs": "{:.1f}" for role in ROLES},
    **{"bytes": "{:.0f}", "decisions/s": "{:,.0f}"},
}


def of_training(work: Work) -> list[float]:
    """Microseconds of each role and bytes that learners fetched, for each decision; their rate."""
    fetched = work.rollout_bytes / work.decisions
    return [*map(work.microseconds, ROLES), fetched, work.decisions / work.wall_s]


def of_markets(results: list[Market]) -> list[float]:
    """Means over the processes."""
    quotes = sum(each.quotes for each in results)
    apply_us = 1e6 * sum(each.apply_s for each in results) / quotes
    bars = sum(each.bars for each in results)
    bar_ms = 1e3 * sum(each.bar_s for each in results) / bars
    alike_ms = 1e3 * sum(each.alike_s for each in results) / bars
    return [apply_us, 1e6 / apply_us, bar_ms, alike_ms]


def live_markets(options: argparse.Namespace) -> list[Figures]:
    """Processes beside each other, and one with more and more symbols."""
    contracts, minutes = options.contracts, options.minutes
    beside = Figures(
        "processes",
        MARKET_COLUMNS,
        title=f"live markets in processes, 3 symbols and {contracts} contracts each",
    )
    for count in options.counts:
        beside.add(str(count), *of_markets(markets(count, 3, contracts, minutes)))
    title = f"one live market, {contracts} contracts in all"
    alone = Figures("symbols", MARKET_COLUMNS, title=title)
    for count in options.symbols:
        alone.add(str(count), *of_markets(markets(1, count, contracts, minutes)))
    return [beside, alone]


def runners(options: argparse.Namespace) -> list[Figures]:
    """More and more runners."""
    return training(options, "environment runners, one learner", lambda n: (n, 1))


def learners(options: argparse.Namespace) -> list[Figures]:
    """More and more learners."""
    return training(options, "learners, two environment runners", lambda n: (2, n))


class Share(NamedTuple):
    """What a learner's part of one update took."""

    sequences: int
    decisions: int
    rollout_bytes: int
    cpu_s: float


def share(sequences: int, length: int = 64, repeats: int = 3) -> Share:
    """Update once on so many sequences of random experience, on one core; the best of a few."""
    torch.set_num_threads(1)
    settings = load_settings(None, [], {})
    config = assembly.model_config(settings)
    rng, shape = np.random.default_rng(0), (length, sequences)
    rollout = Rollout(
        observations=rng.normal(size=(*shape, config.observation_size)).astype(np.float32),
        action_mask=np.ones((*shape, config.action_count), np.bool_),
        actions=rng.integers(0, config.action_count, shape),
        log_probs=np.full(shape, -np.log(config.action_count), np.float32),
        values=np.zeros(shape, np.float32),
        rewards=rng.normal(size=shape).astype(np.float32),
        first=np.zeros(shape, np.bool_),
        terminated=np.zeros(shape, np.bool_),
        truncated=np.zeros(shape, np.bool_),
        final_values=np.zeros(shape, np.float32),
        last_values=np.zeros(sequences, np.float32),
        valid=np.ones(shape, np.bool_),
        initial_state={
            key: np.zeros((layers, sequences, units), np.float32)
            for key, (layers, units) in config.state_shapes.items()
        },
    )
    module, best_s = seeded_clstm(config, 1), np.inf
    optimizer = torch.optim.Adam(module.parameters())
    ppo = ppo_settings(settings)
    for _ in range(1 + repeats):
        began = process_time()
        update(module, optimizer, rollout, ppo, torch.Generator().manual_seed(1), version=1)
        best_s = min(best_s, process_time() - began)
    return Share(sequences, rollout.steps, rollout.nbytes, best_s)


def shares(options: argparse.Namespace) -> list[Figures]:
    """One learner's part of an update, by its size."""
    columns = {"µs a decision": "{:.1f}", "ms an update": "{:.1f}", "MB of rollouts": "{:.1f}"}
    title = "a learner's share of an update, 64 decisions a sequence"
    found = Figures("sequences", columns, title=title)
    for sequences in options.shares:
        each = share(sequences)
        spent = (1e6 * each.cpu_s / each.decisions, 1e3 * each.cpu_s)
        found.add(str(sequences), *spent, each.rollout_bytes / 1e6)
    return [found]


def training(
    options: argparse.Namespace, title: str, sizes: Callable[[int], tuple[int, int]]
) -> list[Figures]:
    """Numbers of runners and learners, by the count that is varied."""
    import ray

    figures = Figures("processes", ROLE_COLUMNS, title=title)
    ray.init(
        num_cpus=2 * max(options.counts) + 1,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=400_000_000,
    )
    try:
        for count in options.counts:
            work = train(*sizes(count), options.envs, options.iterations)
            figures.add(str(count), *of_training(work))
    finally:
        ray.shutdown()
    return [figures]


def main() -> None:
    """Measure and print."""
    parts = {
        "markets": live_markets,
        "runners": runners,
        "learners": learners,
        "shares": shares,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4], help="of processes")
    parser.add_argument("--symbols", type=int, nargs="+", default=[1, 3, 10, 30, 100])
    parser.add_argument("--contracts", type=int, default=1000, help="of all symbols together")
    parser.add_argument("--minutes", type=int, default=20, help="bars, the first is not counted")
    parser.add_argument("--envs", type=int, default=64, help="accounts of a runner")
    parser.add_argument(
        "--shares", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="sequences"
    )
    parser.add_argument("--iterations", type=int, default=8)
    add_json(parser)
    options = parser.parse_args()
    publish(options, [table for part in options.parts for table in parts[part](options)])


if __name__ == "__main__":
    main()
