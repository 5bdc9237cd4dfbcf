"""Speed and error of pricing on one core, beside QuantLib and fast-vollib in the same run.

To repeat it:

    pip install -e '.[dev,bench]'
    python benchmarks/pricing.py

The process keeps to one core. Every contender gets the same contracts and the best of its rounds
counts; the rounds of the contenders take turns, so that a change of the machine's speed meets all
of them. A library that is not installed is left out and named.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from functools import partial

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402 (threads are set before it loads its libraries)
import QuantLib as ql  # noqa: E402, N813
from figures import Figures, add_json, publish  # noqa: E402
from numba import njit  # noqa: E402

from trading.market.american import american_price  # noqa: E402
from trading.market.chain import empty_columns, refresh  # noqa: E402
from trading.market.pricing import (  # noqa: E402
    YEAR_NS,
    black_price,
    greeks,
    implied_volatility,
)

try:
    import fast_vollib
    from fast_vollib.jackel.jackel_iv import jackel_iv_black
except ImportError:
    fast_vollib = None

Columns = dict[str, np.ndarray]
TODAY = ql.Date(5, 1, 2026)


def contracts(count: int, widest: float) -> Columns:
    """Contracts of a day to two years, strikes up to `widest` standard deviations away."""
    rng = np.random.default_rng(1)
    right = rng.choice([1, -1], count)
    spot = np.exp(rng.uniform(np.log(20.0), np.log(1000.0), count))
    t = np.exp(rng.uniform(np.log(1.0 / 365.0), np.log(2.0), count))
    rate, div = rng.uniform(0.0, 0.08, count), rng.uniform(0.0, 0.08, count)
    iv = np.exp(rng.uniform(np.log(0.1), np.log(1.0), count))
    strike = spot * np.exp(rng.uniform(-widest, widest, count) * iv * np.sqrt(t))
    forward, discount = spot * np.exp((rate - div) * t), np.exp(-rate * t)
    return {
        "right": right,
        "spot": spot,
        "strike": strike,
        "t": t,
        "rate": rate,
        "div": div,
        "iv": iv,
        "forward": forward,
        "discount": discount,
    }


@njit
def price_european(right, forward, strike, t, discount, iv, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = black_price(right[i], forward[i], strike[i], t[i], discount[i], iv[i])


@njit
def price_american(right, spot, strike, t, rate, div, iv, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = american_price(right[i], spot[i], strike[i], t[i], rate[i], div[i], iv[i])


@njit
def invert(price, right, forward, spot, strike, t, discount, out):  # type: ignore[no-untyped-def]
    for i in range(price.size):
        contract = (right[i], forward[i], spot[i], strike[i], t[i], discount[i])
        iv, _ = implied_volatility(
            price[i], right[i], forward[i], strike[i], t[i], discount[i], 0.0
        )
        out[i, 0] = iv
        out[i, 1], out[i, 2], out[i, 3], out[i, 4] = greeks(*contract, iv)


def ours(market: Columns, price: np.ndarray) -> np.ndarray:
    names = ("right", "forward", "spot", "strike", "t", "discount")
    out = np.zeros((price.size, 5))
    invert(price, *(market[name] for name in names), out)
    return out[:, 0]


def quantlib_rows(market: Columns, price: np.ndarray) -> np.ndarray:
    """Its solver by rational approximation (Li), then the calculator of its engine."""
    names = ("right", "forward", "spot", "strike", "t", "discount")
    columns = [market[name].tolist() for name in names]
    out = np.empty(price.size)
    for i, (right, forward, spot, strike, t, discount, value) in enumerate(
        zip(*columns, price.tolist(), strict=True)
    ):
        kind = ql.Option.Call if right == 1 else ql.Option.Put
        deviation = ql.blackFormulaImpliedStdDevLiRS(
            kind, strike, forward, value, discount, 0.0, ql.nullDouble(), 1.0, 1e-10, 100
        )
        payoff = ql.PlainVanillaPayoff(kind, strike)
        calculator = ql.BlackCalculator(payoff, forward, deviation, discount)
        calculator.delta(spot)
        calculator.gamma(spot)
        calculator.vega(t)
        calculator.theta(spot, t)
        out[i] = deviation / math.sqrt(t)
    return out


def vollib(market: Columns, price: np.ndarray, solver: str) -> np.ndarray:
    """Its vectorised solver, or its Jaeckel one, then all its greeks (rho is one of them)."""
    flag = np.where(market["right"] > 0, "c", "p")
    spot, strike, t, rate, div = (market[name] for name in ("spot", "strike", "t", "rate", "div"))
    model = "black_scholes_merton"
    if solver == "jackel":
        undiscounted = price / market["discount"]
        iv = jackel_iv_black(undiscounted, market["forward"], strike, t, market["right"] > 0)
    else:
        iv = fast_vollib.fast_implied_volatility(
            price,
            spot,
            strike,
            t,
            rate,
            flag,
            q=div,
            model=model,
            return_as="numpy",
            backend="numpy",
            on_error="ignore",
        )
    fast_vollib.get_all_greeks(
        flag, spot, strike, t, rate, iv, q=div, model=model, return_as="dict", backend="numpy"
    )
    return np.asarray(iv)


Contender = tuple[str, int, Callable[[], np.ndarray]]


def take_turns(contenders: list[Contender], rounds: int) -> dict[str, tuple[float, np.ndarray]]:
    """Contracts per second in the best round, and the result, of each (name, count, work)."""
    found: dict[str, tuple[float, np.ndarray]] = {}
    for name, _, work in contenders:
        found[name] = (0.0, work())
    for _ in range(rounds):
        for name, count, work in contenders:
            start = time.perf_counter()
            result = work()
            rate = count / (time.perf_counter() - start)
            found[name] = (max(rate, found[name][0]), result)
    return found


def inversion(count: int, rounds: int) -> Figures:
    market = contracts(count, 2.0)
    price = np.empty(count)
    names = ("right", "forward", "strike", "t", "discount", "iv")
    price_european(*(market[name] for name in names), price)
    few = max(count // 10, 1)
    part = {name: column[:few] for name, column in market.items()}
    contenders: list[Contender] = [
        ("this project", count, partial(ours, market, price)),
        ("QuantLib", few, partial(quantlib_rows, part, price[:few])),
    ]
    if fast_vollib is not None:
        for solver in ("default", "jackel"):
            name = f"fast-vollib, {solver} solver"
            contenders.append((name, count, partial(vollib, market, price, solver)))
    found = take_turns(contenders, rounds)
    figures = Figures(
        "implied volatility and greeks",
        {"contracts/s": "{:,.0f}", "ours is": "{:.1f} x", "greatest IV error": "{}"},
    )
    base = found["this project"][0]
    for name, (rate, iv) in found.items():
        error = np.abs(iv - market["iv"][: iv.size])
        shown = f"{np.nanmax(error):.1e}"
        if np.isnan(error).any():
            shown += f", {np.isnan(error).sum()} NaN"
        figures.add(name, rate, base / rate, shown)
    return figures


def chains(count: int, rounds: int) -> Figures:
    """A chain of ten expiries, every quote of it good: forwards, volatilities, greeks, marks."""
    now_ns, spot, rate, expiries = 1_767_623_400_000_000_000, 100.0, 0.04, 10
    strikes = np.linspace(60.0, 160.0, count // (2 * expiries))
    days = 7 * np.arange(1, expiries + 1)
    expiry_ns = np.repeat(now_ns + days * 86_400 * 10**9, 2 * strikes.size).astype(np.int64)
    right = np.tile(np.array([1, -1], dtype=np.int8), strikes.size * expiries)
    chain = empty_columns(expiry_ns, np.tile(np.repeat(strikes, 2), expiries), right)
    t = (expiry_ns - now_ns) / YEAR_NS
    discount, fair = np.exp(-rate * t), np.empty(right.size)
    iv = np.full(right.size, 0.4)
    price_european(right, spot / discount, chain.strike, t, discount, iv, fair)
    chain.bid[:], chain.ask[:], chain.quote_ns[:] = fair, fair + 1e-9, now_ns
    seconds = math.inf
    for _ in range(rounds + 1):  # the first compiles it
        start = time.perf_counter()
        refresh(chain, now_ns, spot, rate, 90 * 10**9)
        seconds = min(seconds, time.perf_counter() - start)
    read = np.isfinite(chain.iv)
    figures = Figures(
        "a whole chain refreshed",
        {"ms": "{:.3f}", "contracts/s": "{:,.0f}", "volatilities": "{:,.0f}"},
        note="Those far from the money have no time value to read a volatility from.",
    )
    figures.add(f"{right.size:,} contracts", 1e3 * seconds, right.size / seconds, int(read.sum()))
    return figures


def quantlib_engine(
    market: Columns,
    make: Callable[[ql.BlackScholesMertonProcess], ql.PricingEngine],
    exercise: ql.Exercise,
) -> np.ndarray:
    """Scaled to contracts of one year, as prices depend on rates and variance times t only."""
    rate, div, iv = (ql.SimpleQuote(0.1) for _ in range(3))
    days = ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = TODAY
    rates = ql.FlatForward(TODAY, ql.QuoteHandle(rate), days)
    divs = ql.FlatForward(TODAY, ql.QuoteHandle(div), days)
    ivs = ql.BlackConstantVol(TODAY, ql.NullCalendar(), ql.QuoteHandle(iv), days)
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(1.0)),
        ql.YieldTermStructureHandle(divs),
        ql.YieldTermStructureHandle(rates),
        ql.BlackVolTermStructureHandle(ivs),
    )
    engine = make(process)
    names = ("right", "spot", "strike", "t", "rate", "div", "iv")
    columns = [market[name].tolist() for name in names]
    out = np.full(len(columns[0]), np.nan)
    for i, (right, spot, strike, t, r, q, volatility) in enumerate(zip(*columns, strict=True)):
        rate.setValue(r * t)
        div.setValue(q * t)
        iv.setValue(volatility * math.sqrt(t))
        kind = ql.Option.Call if right == 1 else ql.Option.Put
        option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike / spot), exercise)
        option.setPricingEngine(engine)
        try:
            out[i] = spot * option.NPV()
        except RuntimeError:
            continue
    return out


def americans(count: int, rounds: int) -> Figures:
    market = contracts(count, 2.0)
    names = ("right", "spot", "strike", "t", "rate", "div", "iv")
    out = np.empty(count)

    def own() -> np.ndarray:
        price_american(*(market[name] for name in names), out)
        return out

    fixed_point = ql.QdFpAmericanEngine
    engines: dict[str, Callable[[ql.BlackScholesMertonProcess], ql.PricingEngine]] = {
        "QuantLib Andersen-Lake-Offengenden, fast": lambda process: fixed_point(
            process, fixed_point.fastScheme()
        ),
        "QuantLib Andersen-Lake-Offengenden, accurate": lambda process: fixed_point(
            process, fixed_point.accurateScheme()
        ),
        "QuantLib QD+": ql.QdPlusAmericanEngine,
        "QuantLib Ju-Zhong": ql.JuQuadraticApproximationEngine,
        "QuantLib Bjerksund-Stensland": ql.BjerksundStenslandApproximationEngine,
        "QuantLib Barone-Adesi-Whaley": ql.BaroneAdesiWhaleyApproximationEngine,
    }
    year = ql.AmericanExercise(TODAY, TODAY + 365)
    oracle = quantlib_engine(
        market, lambda process: fixed_point(process, ql.QdFpLegendreScheme(32, 8, 16, 64)), year
    )
    contenders: list[Contender] = [("this project", count, own)]
    for name, make in engines.items():
        contenders.append((name, count, partial(quantlib_engine, market, make, year)))
    expiry = ql.EuropeanExercise(TODAY + 365)
    european = partial(quantlib_engine, market, ql.AnalyticEuropeanEngine, expiry)
    contenders.append(("QuantLib European: cost of a call of it", count, european))
    found = take_turns(contenders, rounds)
    figures = Figures(
        "American price",
        {
            **{"contracts/s": "{:,.0f}", "ours is": "{:.1f} x"},
            **{"RMS error": "{:.0e}", "greatest error": "{}"},
        },
        note="Errors of American prices are in units of the greater of spot and strike. "
        "QuantLib is called from Python, contract by contract: it has no batches there.",
    )
    base = found["this project"][0]
    size = np.maximum(market["spot"], market["strike"])
    for name, (rate, price) in found.items():
        error = np.abs(price - oracle) / size
        greatest = f"{np.nanmax(error):.0e}"
        if np.isnan(error).any():
            greatest += f", {np.isnan(error).sum()} refused"
        rms = math.sqrt(float(np.nanmean(error**2)))
        figures.add(name, rate, base / rate, rms, greatest)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and error of pricing on one core.")
    parser.add_argument("--contracts", type=int, default=200_000)
    parser.add_argument("--americans", type=int, default=5_000)
    parser.add_argument("--chain", type=int, default=3_000, help="contracts of a whole chain")
    parser.add_argument("--rounds", type=int, default=5)
    add_json(parser)
    arguments = parser.parse_args()
    missing = {} if fast_vollib is not None else {"fast-vollib": "fast-vollib is not installed"}
    european = inversion(arguments.contracts, arguments.rounds)
    american = americans(arguments.americans, arguments.rounds)
    publish(arguments, [european, chains(arguments.chain, 20), american], missing)


if __name__ == "__main__":
    main()
