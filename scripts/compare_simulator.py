"""Compares simulated markets with the real GOOG session of 2015-12-24.

    python scripts/compare_simulator.py ../shared/data/flatfiles

writes the tables of `docs/simulator.md` and the picture beside it.
"""

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trading.data.flatfiles import load_minute_bars, load_quotes
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.chain import Chain
from trading.market.contracts import parse_symbol
from trading.market.factors import empty_factors
from trading.market.quotes import ChainQuotes, TickClass, quote_chain
from trading.market.randomisation import model_at, sample_markets, simulate_markets
from trading.market.session_statistics import QuoteSamples, Statistic, Statistics, session_figures

DAY = date(2015, 12, 24)
UNDERLYING = "GOOG"
REAL_RATE = 0.005
"""Three-month bills at the end of 2015, per year."""
MOMENTS = range(20, 211, 19)
"""Minutes after the open at which the quotes are looked at."""
SESSIONS, SEED = 200, 7
_BAND = (0.01, 0.1, 0.5, 0.9, 0.99)
_BEGIN, _END = "<!-- begin: scripts/compare_simulator.py -->", "<!-- end -->"
DOCS = Path(__file__).parents[1] / "docs"


def real_session(folder: Path) -> tuple[Chain, QuoteSamples]:
    """The real chain and what it showed; the files hold the quotes of each minute's end."""
    calendar = ExchangeCalendar()
    session = calendar.trading_hours(UNDERLYING, DAY)
    assert session is not None
    quotes = load_quotes(folder, DAY, [UNDERLYING])
    contracts = [parse_symbol(symbol) for symbol in quotes.symbols]
    expiries = [calendar.expiry_ns(contract.expiry, contract.root) for contract in contracts]
    chain = Chain(UNDERLYING, contracts, expiries)
    column_of = np.array([chain.index[symbol] for symbol in quotes.symbols])
    now_ns = session.open_ns + MINUTE_NS * np.array(MOMENTS)
    shown = _nothing_shown(now_ns, len(chain))
    bars = load_minute_bars(folder, DAY, [UNDERLYING])
    ends = np.array([bar.start_ns + MINUTE_NS for bar in bars])
    closes = np.array([bar.close for bar in bars])
    shown.spot[:] = closes[np.searchsorted(ends, now_ns, side="right") - 1]
    for s, moment in enumerate(now_ns):
        seen = slice(0, int(np.searchsorted(quotes.ts_ns, moment, side="right")))
        at = column_of[quotes.contract[seen]]
        shown.bid[s, at], shown.ask[s, at] = quotes.bid[seen], quotes.ask[seen]
        shown.bid_size[s, at], shown.ask_size[s, at] = quotes.bid_size[seen], quotes.ask_size[seen]
        shown.quote_ns[s, at] = quotes.ts_ns[seen]
    return chain, shown


def simulated_sessions(
    chain: Chain, spot: float, open_ns: int, close_ns: int, count: int, seed: int
) -> Iterator[tuple[QuoteSamples, float]]:
    """Sessions of sampled markets with the real chain's contracts, first spot and tick class.

    Yields what the contracts showed at the same moments, and the market's rate.
    """
    rng = np.random.default_rng(seed)
    markets = sample_markets(rng, count, close_ns)
    markets.spot[:] = spot
    n_steps = MOMENTS[-1]
    factors = empty_factors(count, n_steps)
    simulate_markets(markets, np.arange(count), factors, 60.0, rng)
    columns, n = chain.columns, len(chain)
    for b in range(count):
        model = model_at(markets.models, b)
        bid, ask, bid_size, ask_size = (np.zeros(n) for _ in range(4))
        quote_ns, changed = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        quotes = ChainQuotes(
            columns.strike, columns.expiry_ns, columns.right, bid, ask, bid_size, ask_size, quote_ns
        )
        shown = _nothing_shown(open_ns + MINUTE_NS * np.array(MOMENTS), n)
        shown.spot[:] = factors.spot[b, MOMENTS]
        for step in range(n_steps + 1):
            quote_chain(
                model, rng, factors.spot[b, step], factors.atm_iv[b, step], factors.skew[b, step],
                open_ns + step * MINUTE_NS, quotes, int(TickClass.STANDARD),
                model.requote_per_bar if step else 1.0, changed,
            )  # fmt: skip
            if step in MOMENTS:
                s = MOMENTS.index(step)
                shown.bid[s], shown.ask[s], shown.quote_ns[s] = bid, ask, quote_ns
                shown.bid_size[s], shown.ask_size[s] = bid_size, ask_size
        yield shown, model.rate


def compare(folder: Path, count: int, seed: int) -> tuple[Statistics, list[Statistics]]:
    """Statistics of the real session and of `count` simulated ones."""
    chain, shown = real_session(folder)
    open_ns = int(shown.now_ns[0]) - MOMENTS[0] * MINUTE_NS
    real = session_figures(chain, shown, REAL_RATE)
    close_ns = open_ns + MOMENTS[-1] * MINUTE_NS
    sessions = simulated_sessions(chain, float(shown.spot[0]), open_ns, close_ns, count, seed)
    return real, [session_figures(chain, session, rate) for session, rate in sessions]


def simulated_values(figure: Statistic, simulated: list[Statistics]) -> NDArray[np.float64]:
    """Values of one figure over the simulated sessions that have it."""
    return np.array([figures[figure] for figures in simulated if figure in figures])


def uncovered(real: Statistics, simulated: list[Statistics]) -> list[Statistic]:
    """Statistics whose real value lies outside everything that was simulated."""
    outside = []
    for figure, value in real.items():
        values = simulated_values(figure, simulated)
        if not len(values) or not values.min() <= value <= values.max():
            outside.append(figure)
    return outside


def tables(real: Statistics, simulated: list[Statistics]) -> str:
    """Markdown: per bucket the real figures, and the span of each over the simulated sessions."""
    groups: dict[str, dict[str, list[Statistic]]] = {}
    for figure in real:
        groups.setdefault(figure.group, {}).setdefault(figure.bucket, []).append(figure)
    lines: list[str] = []
    for group, buckets in groups.items():
        measures = " / ".join(figure.measure for figure in next(iter(buckets.values())))
        lines += ["", f"| {group}: {measures} | real | simulated |", "|---|---|---|"]
        for bucket, figures in buckets.items():
            known = " / ".join(_short(real[figure]) for figure in figures)
            spans = " / ".join(_span(simulated_values(figure, simulated)) for figure in figures)
            lines.append(f"| {bucket} | {known} | {spans} |")
    return "\n".join(lines).strip() + "\n"


def picture(real: Statistics, simulated: list[Statistics], path: Path) -> None:
    """Small multiples: the real session on the band of the simulated ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    grid, axes = pyplot.subplots(2, 3, figsize=(12.0, 7.0), layout="constrained")
    panels = (
        ("spread out of the money, USD", "50%", "Median spread out of the money, USD",
         "price, USD", True),
        ("spread in the money, USD", "50%", "Median spread in the money, USD", "price, USD", True),
        ("quote age, minutes", "95%", "Age of the oldest twentieth of quotes, minutes",
         "distance from the money", True),
        ("at-the-money IV", "median", "At-the-money volatility", "days to expiry", True),
        ("25-delta skew over IV", "median", "25-delta put minus call, over at-the-money volatility",
         "days to expiry", False),
        ("no bid, out of the money", "share", "Share of quotes without a bid, out of the money",
         "distance from the money", False),
    )  # fmt: skip
    for axis, (group, measure, title, label, in_logs) in zip(axes.flat, panels, strict=True):
        figures = [f for f in real if f.group == group and f.measure == measure]
        places = np.arange(len(figures))
        spans = np.array([np.quantile(simulated_values(f, simulated), _BAND) for f in figures])
        axis.fill_between(places, spans[:, 0], spans[:, 4], color="#c6d8ea", label="1 to 99 %")
        axis.fill_between(places, spans[:, 1], spans[:, 3], color="#8fb3d4", label="10 to 90 %")
        axis.plot(places, spans[:, 2], color="#2f5f8f", label="median simulated session")
        axis.plot(places, [real[f] for f in figures], "o", color="#c1440e", label="real session")
        if in_logs:
            axis.set_yscale("log" if spans.min() > 0.0 else "symlog")
            axis.yaxis.set_major_formatter("{x:g}")
        else:
            axis.set_ylim(bottom=0.0)
        buckets = [f.bucket.removesuffix(" d").removesuffix(" sd") for f in figures]
        axis.set_xticks(places, [_tick_label(bucket) for bucket in buckets])
        axis.set_title(title, fontsize=9.5, loc="left")
        axis.set_xlabel(label + (", standard deviations" if "distance" in label else ""))
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
    axes.flat[0].legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.savefig(path, dpi=110)


def write_pages(folder: Path, count: int = SESSIONS, seed: int = SEED) -> None:
    """Renew the tables of `docs/simulator.md`, between the markers, and the picture."""
    real, simulated = compare(folder, count, seed)
    page = DOCS / "simulator.md"
    before, rest = page.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    outside = uncovered(real, simulated)
    summary = (
        f"{len(real)} figures, {count} simulated sessions; the real value lies inside the span of "
        f"the simulated ones in {len(real) - len(outside)}."
    )
    text = f"{before}{_BEGIN}\n{summary}\n\n{tables(real, simulated)}{_END}{after}"
    page.write_text(text)
    picture(real, simulated, DOCS / "images" / "simulator-vs-goog.png")


def _nothing_shown(now_ns: NDArray[np.int64], n: int) -> QuoteSamples:
    moments = len(now_ns)
    prices = [np.zeros((moments, n)) for _ in range(4)]
    return QuoteSamples(now_ns, np.zeros(moments), *prices, np.zeros((moments, n), np.int64))


def _tick_label(bucket: str) -> str:
    label = bucket.replace(" to ", "\u2013")
    return label.replace("above ", "> ").replace("beyond ", "> ")


def _short(value: float) -> str:
    return f"{round(value, 2):g}" if value < 10.0 else f"{value:.0f}"


def _span(values: NDArray[np.float64]) -> str:
    low, high = np.quantile(values, (_BAND[0], _BAND[-1]))
    return f"{_short(float(low))}\u2013{_short(float(high))}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/compare_simulator.py <folder of flat files>")
    write_pages(Path(sys.argv[1]))
