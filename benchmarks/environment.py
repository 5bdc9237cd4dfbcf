"""Environment steps on one core, beside FinRL and gym-anytrading in the same run.

To repeat it:

    pip install -c constraints.txt -e '.[dev,bench]'
    python benchmarks/environment.py              # where the time goes: --profile

A step is one account led through one bar: an action in, an observation out. Actions are random
valid ones, a new one for every step, and choosing them is timed for nobody. Which ones are valid
here depends on the step before, so the clock runs around each call of our `step`; the peers' are
drawn ahead, and one clock runs around all their steps and the resets at the ends of episodes. A
round is whole sessions; the contenders take turns, and the median of the rounds counts. Compilation
and a tenth of a session before are outside of it.

The process keeps to one core and one thread, and seconds are those of the processor, so that others
on the machine disturb less. The peers run their own code as published: FinRL's
environments are loaded from their files, because importing its package also loads its training and
the clients of its data vendors, which they do not use. A peer that is not installed is left out and
named below the table.
"""

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from time import process_time
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import gymnasium as gym  # noqa: E402 (threads are set before it loads its libraries)
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from figures import Figures, add_json, publish  # noqa: E402
from gymnasium.vector import SyncVectorEnv, VectorEnv  # noqa: E402
from numba import njit  # noqa: E402

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES  # noqa: E402
from trading.envs.market_features import HISTORY_BARS, Bars  # noqa: E402
from trading.envs.market_snapshots import fill_snapshot, scratch  # noqa: E402
from trading.envs.simulated_markets import SimulatedMarkets  # noqa: E402
from trading.envs.vector_env import (  # noqa: E402
    HistoricalOptionsVectorEnv,
    SimulatedOptionsVectorEnv,
)
from trading.errors import TradingError  # noqa: E402
from trading.market.chain import refresh, row  # noqa: E402

HOLD = 0
SESSION_BARS = 390
TRADING_DAYS = 2_516
"""Ten years of daily bars; FinRL's own settings and example train on six and thirteen."""

FINRL_INDICATORS = (
    "macd",
    "boll_ub",
    "boll_lb",
    "rsi_30",
    "cci_30",
    "dx_30",
    "close_30_sma",
    "close_60_sma",
)
"""`finrl.config.INDICATORS`"""


@dataclass(frozen=True)
class Market:
    """What our environment is fed with; `make` takes the number of accounts."""

    name: str
    make: Callable[[int], VectorEnv]
    sharing: int = 1
    """Accounts that trade the same market at the same time."""

    def counts(self, accounts: list[int]) -> list[int]:
        """The numbers of accounts that it can be had for."""
        return [count for count in accounts if count % self.sharing == 0]

    def title(self, count: int) -> str:
        return f"this project, {self.name}, B = {count}"


def simulated(accounts: int, **options: Any) -> VectorEnv:
    return SimulatedOptionsVectorEnv(accounts, DEFAULT_RULES, DEFAULT_FEES, seed=1, **options)


def recorded(accounts: int, history: Path) -> VectorEnv:
    return HistoricalOptionsVectorEnv(accounts, DEFAULT_RULES, DEFAULT_FEES, history, seed=1)


MARKETS = [
    Market("a market each", simulated),
    Market("4 to a market", partial(simulated, accounts_per_market=4), sharing=4),
    Market("16 to a market", partial(simulated, accounts_per_market=16), sharing=16),
]

PHASES = {
    "_markets.advance": "markets: quotes, bars",
    "_markets.restart": "markets: new sessions",
    "_trade": "accounts: orders, fills, fees, margin",
    "_observe": "accounts: marks, features, masks",
}
"""Methods of our environment, and of the markets it holds, that `step` is made of."""


def random_actions(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One allowed action a row, all equally likely."""
    actions: np.ndarray = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return actions


class Ours:
    """A vector environment under random masked actions."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.mask = env.reset()[0]["action_mask"]
        self.rng = np.random.default_rng(2)
        self.steps = self.orders = 0

    def play(self, calls: int) -> tuple[int, float]:
        """Steps made by so many calls, and the seconds they took."""
        spent = 0.0
        for _ in range(calls):
            actions = random_actions(self.mask, self.rng)
            start = process_time()
            observation = self.env.step(actions)[0]
            spent += process_time() - start
            self.mask = observation["action_mask"]
            self.orders += int(np.count_nonzero(actions != HOLD))
        self.steps += calls * len(self.mask)
        return calls * len(self.mask), spent


class Peer:
    """A single environment under random actions, started anew at the end of an episode."""

    def __init__(self, env: gym.Env) -> None:
        self.env = env
        env.action_space.seed(2)
        env.reset()

    def play(self, calls: int) -> tuple[int, float]:
        """Steps made by so many calls, and the seconds they took."""
        env = self.env
        actions = [env.action_space.sample() for _ in range(calls)]
        start = process_time()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return calls, process_time() - start


class PeerBatch:
    """A peer's environment many times under random actions, in Gymnasium's vector environment."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        env.action_space.seed(2)
        env.reset()

    def play(self, calls: int) -> tuple[int, float]:
        """Steps made by so many calls, and the seconds they took."""
        env = self.env
        drawn = [env.action_space.sample() for _ in range(calls)]
        start = process_time()
        for actions in drawn:
            env.step(actions)
        return calls * env.num_envs, process_time() - start


def random_bars(stocks: int, bars: int, frequency: str) -> pd.DataFrame:
    """Bars of random walks with the indicators, laid out as FinRL's examples do.

    One row a stock and bar, sorted by time and ticker; the index counts the bars.
    """
    from stockstats import StockDataFrame

    rng = np.random.default_rng(3)
    dates = pd.date_range("2016-01-04 09:31", periods=bars, freq=frequency)
    frames = []
    for stock in range(stocks):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, bars)))
        opened = np.concatenate(([100.0], close[:-1]))
        reach = 1.0 + np.abs(rng.normal(0.0, 0.003, bars))
        frame = pd.DataFrame(
            {
                "date": dates.astype(str),
                "tic": f"S{stock:02d}",
                "open": opened,
                "high": np.maximum(opened, close) * reach,
                "low": np.minimum(opened, close) / reach,
                "close": close,
                "volume": rng.integers(10_000, 1_000_000, bars).astype(float),
            }
        )
        indicators = StockDataFrame.retype(frame.copy())
        for name in FINRL_INDICATORS:
            frame[name] = np.nan_to_num(indicators[name].to_numpy())
        frames.append(frame)
    table = pd.concat(frames).sort_values(["date", "tic"], ignore_index=True)
    table.index = pd.Index(table["date"].factorize()[0])
    return table


def finrl_environment(module_name: str) -> Any:
    """FinRL's `StockTradingEnv` of one of its modules."""
    package = importlib.util.find_spec("finrl")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'finrl'", name="finrl")
    path = Path(package.origin).parent / "meta" / "env_stock_trading" / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(f"finrl_{module_name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"FinRL has no {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StockTradingEnv


def finrl_pandas(stocks: int, bars: int, frequency: str) -> gym.Env:
    """With the settings of its training examples, its printing turned down."""
    environment = finrl_environment("env_stocktrading")
    return environment(
        df=random_bars(stocks, bars, frequency),
        stock_dim=stocks,
        hmax=100,
        initial_amount=1_000_000,
        num_stock_shares=[0] * stocks,
        buy_cost_pct=[0.001] * stocks,
        sell_cost_pct=[0.001] * stocks,
        reward_scaling=1e-4,
        state_space=1 + (2 + len(FINRL_INDICATORS)) * stocks,
        action_space=stocks,
        tech_indicator_list=list(FINRL_INDICATORS),
        print_verbosity=sys.maxsize,
    )


def finrl_numpy(stocks: int, bars: int, frequency: str) -> gym.Env:
    """On the same bars, without turbulence, in which it would sell everything and be faster."""
    environment = finrl_environment("env_stocktrading_np")
    table = random_bars(stocks, bars, frequency)
    return environment(
        {
            "price_array": table["close"].to_numpy().reshape(bars, stocks),
            "tech_array": table[list(FINRL_INDICATORS)].to_numpy().reshape(bars, -1),
            "turbulence_array": np.zeros(bars),
            "if_train": True,
        }
    )


def anytrading(bars: int, window: int) -> gym.Env:
    from gym_anytrading.envs import StocksEnv

    table = random_bars(1, bars, "min").rename(columns={"close": "Close"})
    return StocksEnv(df=table, window_size=window, frame_bound=(window, bars))


def batch(make: Callable[[], gym.Env], count: int) -> VectorEnv:
    """As a trainer runs them on one core."""
    return SyncVectorEnv([make] * count)


PEERS: dict[str, Callable[[], gym.Env | VectorEnv]] = {
    "FinRL, pandas, 1 stock": partial(finrl_pandas, 1, SESSION_BARS, "min"),
    "FinRL, pandas, 30 stocks": partial(finrl_pandas, 30, SESSION_BARS, "min"),
    "FinRL, pandas, 30 stocks, 10 years": partial(finrl_pandas, 30, TRADING_DAYS, "B"),
    "FinRL, NumPy, 1 stock": partial(finrl_numpy, 1, SESSION_BARS, "min"),
    "FinRL, NumPy, 30 stocks": partial(finrl_numpy, 30, SESSION_BARS, "min"),
    "FinRL, NumPy, 1 stock, B = 64": partial(
        batch, partial(finrl_numpy, 1, SESSION_BARS, "min"), 64
    ),
    "gym-anytrading, 1 stock": partial(anytrading, SESSION_BARS, 30),
    "gym-anytrading, 1 stock, B = 64": partial(batch, partial(anytrading, SESSION_BARS, 30), 64),
}


@dataclass
class Contender:
    player: Ours | Peer | PeerBatch
    values: str
    """Numbers in an observation."""
    actions: str
    rates: list[float] = field(default_factory=list)
    """Steps per second of each round."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        return (max(self.rates) - min(self.rates)) / self.rate


def our_contenders(markets: list[Market], accounts: list[int]) -> dict[str, Contender]:
    found = {}
    for market in markets:
        for count in market.counts(accounts):
            env = market.make(count)
            values = env.single_observation_space["observations"].shape[0]
            actions = f"{env.single_action_space.n}, masked"
            found[market.title(count)] = Contender(Ours(env), str(values), actions)
    return found


def peer_contenders() -> tuple[dict[str, Contender], dict[str, str]]:
    """Those that are installed, and why the others are not there."""
    found, missing = {}, {}
    for name, make in PEERS.items():
        try:
            env = make()
        except ModuleNotFoundError as error:
            missing[name] = f"{error.name} is not installed"
            continue
        many = isinstance(env, VectorEnv)
        seen = env.single_observation_space if many else env.observation_space
        space = env.single_action_space if many else env.action_space
        sizes = isinstance(space, gym.spaces.Box)
        actions = f"sizes of {space.shape[0]}" if sizes else str(space.n)
        player = PeerBatch(env) if many else Peer(env)
        found[name] = Contender(player, str(int(np.prod(seen.shape))), actions)
    return found, missing


def take_turns(contenders: list[Contender], rounds: int, seconds: float, calls: int) -> None:
    """A tenth of a session to warm up, then rounds of sessions that each fill `seconds`."""
    for contender in contenders:
        contender.player.play(max(calls // 10, 1))
    for _ in range(rounds):
        for contender in contenders:
            steps, spent = contender.player.play(calls)
            while spent < seconds:
                more, longer = contender.player.play(calls)
                steps, spent = steps + more, spent + longer
            contender.rates.append(steps / spent)


def compare(markets: list[Market], arguments: argparse.Namespace) -> None:
    ours = our_contenders(markets, arguments.accounts)
    peers, missing = peer_contenders()
    take_turns(
        [*ours.values(), *peers.values()], arguments.rounds, arguments.seconds, arguments.calls
    )
    bases = {
        f"{market.name} is": ours[market.title(max(counts))]
        for market in (MARKETS[0], MARKETS[-1])
        if (counts := market.counts(arguments.accounts))
    }
    columns = {"sees": "{}", "chooses": "{}", "steps/s": "{:,.0f}", "spread": "{:.0%}"}
    columns |= {"µs a step": "{:,.2f}", **dict.fromkeys(bases, "{:,.1f} x")}
    figures = Figures("environment", columns)
    for name, contender in {**ours, **peers}.items():
        figures.add(
            name,
            contender.values,
            contender.actions,
            contender.rate,
            contender.spread,
            1e6 / contender.rate,
            *(base.rate / contender.rate for base in bases.values()),
        )
    player = ours[markets[0].title(max(arguments.accounts))].player
    if isinstance(player, Ours):
        share = player.orders / player.steps
        figures.note = f"Simulated markets got an order in {share:.0%} of the steps."
    publish(arguments, [figures], missing)


class Stopwatch:
    """Seconds spent in each phase of an environment, a phase inside another not counted twice."""

    def __init__(self, env: VectorEnv) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)
        self._inner = [0.0]
        for path in PHASES:
            *owners, name = path.split(".")
            owner = attrgetter(".".join(owners))(env) if owners else env
            setattr(owner, name, self._timed(path, getattr(owner, name)))

    def clear(self) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)

    def _timed(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = process_time()
            result = method(*args, **options)
            whole = process_time() - start
            self.spent[path] += whole - self._inner.pop()
            self._inner[-1] += whole
            return result

        return run


@njit
def refresh_all(chains, snapshots, rules):  # type: ignore[no-untyped-def]
    for m in range(snapshots.now_ns.size):
        chain = row(chains, m)
        refresh(chain, snapshots.now_ns[m], snapshots.spot[m], rules.rate, rules.max_quote_age_ns)


@njit
def fill_all(chains, snapshots, bars, rules, fees, s):  # type: ignore[no-untyped-def]
    for m in range(snapshots.now_ns.size):
        fill_snapshot(row(chains, m), snapshots, m, bars, rules, fees, s)


def repeated(work: Callable[[], None], seconds: float) -> float:
    """Seconds of one call, once it is compiled."""
    work()
    calls, start = 0, process_time()
    while not calls or process_time() - start < seconds:
        work()
        calls += 1
    return (process_time() - start) / calls


def market_kernels(markets: SimulatedMarkets, seconds: float) -> dict[str, float]:
    """Seconds that all markets' implied values and snapshots take when computed once more.

    They are parts of one compiled function, in which no clock can run. The bars are others than the
    markets', which costs the same.
    """
    close = np.exp(np.random.default_rng(4).normal(4.0, 0.01, HISTORY_BARS))
    bars = Bars(close * 1.01, close * 0.99, close, np.log(close), HISTORY_BARS)
    chains, snapshots, space = markets._chains, markets.snapshots, scratch()
    return {
        "markets: implied values, greeks": repeated(
            lambda: refresh_all(chains, snapshots, DEFAULT_RULES), seconds
        ),
        "markets: features, legs of orders": repeated(
            lambda: fill_all(chains, snapshots, bars, DEFAULT_RULES, DEFAULT_FEES, space), seconds
        ),
    }


def profile(market: Market, arguments: argparse.Namespace) -> Figures:
    """Microseconds of a step, by phase; what is in no phase is Python around them and copies."""
    counts = market.counts(arguments.accounts)
    shares = []
    for count in counts:
        env = market.make(count)
        watch = Stopwatch(env)
        player = Ours(env)
        player.play(max(arguments.calls // 10, 1))
        watch.clear()
        steps, spent = player.play(arguments.calls)
        while spent < arguments.seconds * arguments.rounds:
            more, longer = player.play(arguments.calls)
            steps, spent = steps + more, spent + longer
        parts = {}
        if isinstance(env._markets, SimulatedMarkets):
            parts = {
                kernel: seconds / count
                for kernel, seconds in market_kernels(env._markets, arguments.seconds).items()
            }
            watch.spent["_markets.advance"] -= sum(parts.values()) * steps
        parts |= {PHASES[path]: seconds / steps for path, seconds in watch.spent.items()}
        parts["the rest"] = spent / steps - sum(parts.values())
        parts["a step"] = spent / steps
        shares.append(parts)
    figures = Figures(f"this project, {market.name}", {f"B = {count}": "{}" for count in counts})
    for phase in shares[0]:
        cells = [(parts[phase], parts[phase] / parts["a step"]) for parts in shares]
        figures.add(phase, *(f"{seconds * 1e6:.2f} µs {share:4.0%}" for seconds, share in cells))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Environment steps per second on one core.")
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 64, 1024], help="each a B")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round, at least")
    parser.add_argument("--calls", type=int, default=SESSION_BARS, help="of step, in a session")
    parser.add_argument("--history", type=Path, help="folder of recorded sessions, for more rows")
    parser.add_argument("--profile", action="store_true", help="where our time goes, instead")
    add_json(parser)
    arguments = parser.parse_args()
    markets = MARKETS.copy()
    if arguments.history is not None:
        markets.append(Market("recorded", partial(recorded, history=arguments.history)))
    try:
        if not arguments.profile:
            compare(markets, arguments)
            return
        profiles = [profile(each, arguments) for each in markets if each.counts(arguments.accounts)]
        publish(arguments, profiles)
    except TradingError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
