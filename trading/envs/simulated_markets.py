"""Simulated option markets made on the fly, M at once, one session day each."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.board import Board, board_of
from trading.envs.catalogue import BUCKETS
from trading.envs.frames import Frames, Scratch, empty_frames, fill_frame, scratch
from trading.envs.market_features import HISTORY_BARS, Bars, log_price
from trading.envs.rules import TradingRules
from trading.envs.snapshots import Resumable
from trading.execution.fees import FeeSchedule
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, Columns, empty_columns, refresh, row
from trading.market.factors import Factors, empty_factors
from trading.market.model import MarketModel
from trading.market.quotes import quote_chain
from trading.market.randomisation import (
    ModelRanges,
    model_at,
    sample_markets,
    simulate_markets,
)

SESSION_OPEN_NS = 1_767_623_400_000_000_000
"""2026-01-05 14:30 UTC: every simulated episode is dated on this Monday."""
SESSION_BARS = 390
BAR_SECONDS = 60
BAR_NS = BAR_SECONDS * 1_000_000_000
SESSION_CLOSE_NS = SESSION_OPEN_NS + SESSION_BARS * BAR_NS
STRIKES_PER_EXPIRY = 15
STRIKE_REACH = 1.9
"""Standard deviations of the log price at expiry that the strikes reach out to."""

WARM_SHARE = 0.5
"""Share of episodes that know an hour of earlier bars; the others start without history."""


class _Day(NamedTuple):
    """The paths of M markets and where each of them stands."""

    factors: Factors
    log_spot: F64
    """[M, T + 1], logarithm of the spot."""
    bar: I64
    """[M], bars of the session that have closed."""
    offset: I64
    """[M], bars of history before the session's open."""
    tick_class: I64
    """[M]"""
    models: F64
    """[M, K], parameters of each market, see `model_at`."""


@njit(cache=True, error_model="numpy")
def _fill_logs(spot: F64, which: I64, out: F64) -> None:
    for m in which:
        for t in range(spot.shape[1]):
            out[m, t] = log_price(spot[m, t])


@njit(cache=True, error_model="numpy")
def _show_bar(
    chains: Columns,
    day: _Day,
    frames: Frames,
    which: I64,
    fresh: bool,
    rules: TradingRules,
    fees: FeeSchedule,
    rng: np.random.Generator,
    changed: NDArray[np.bool_],
    s: Scratch,
) -> None:
    """Bring quotes, implied values and frames of markets `which` to their current bar.

    `fresh` markets quote every contract anew.
    """
    for m in which:
        chain, model = row(chains, m), model_at(day.models, m)
        requote = 1.0 if fresh else model.requote_per_bar
        now_ns = SESSION_OPEN_NS + day.bar[m] * BAR_NS
        last = day.bar[m] + day.offset[m]
        factors = day.factors
        quote_chain(
            model, rng, factors.spot[m, last], factors.atm_iv[m, last], factors.skew[m, last],
            now_ns, chain.strike, chain.expiry_ns, chain.right, chain.bid, chain.ask,
            chain.bid_size, chain.ask_size, chain.quote_ns, day.tick_class[m], requote, changed,
        )  # fmt: skip
        frames.now_ns[m] = frames.spot_ns[m] = now_ns
        frames.spot[m] = refresh(
            chain, now_ns, factors.spot[m, last], rules.rate, rules.max_quote_age_ns
        )
        first = max(0, last - HISTORY_BARS)
        bars = Bars(
            factors.high[m, first:last],
            factors.low[m, first:last],
            factors.spot[m, first + 1 : last + 1],
            day.log_spot[m, first + 1 : last + 1],
            last - first,
        )
        fill_frame(chain, frames, m, bars, rules, fees, s)


class SimulatedMarkets(Resumable):
    """M independent markets, each traded by `accounts_per_market` accounts.

    Every episode draws its own market, see `trading.market.randomisation`. Half of the episodes
    know an hour of earlier bars, half start without history, as a live market may.

    Attributes
    ----------
    frames, board : Frames, Board
        Frame m shows market m at its current bar.
    frame_of : i64[B]
        Frame of each account.
    """

    def __init__(
        self,
        num_accounts: int,
        accounts_per_market: int,
        rules: TradingRules,
        fees: FeeSchedule,
        ranges: ModelRanges,
        rng: np.random.Generator,
    ) -> None:
        markets = num_accounts // accounts_per_market
        self.frame_of: I64 = np.repeat(np.arange(markets, dtype=np.int64), accounts_per_market)
        self.frames = empty_frames(markets)
        self.frames.open_ns[:] = SESSION_OPEN_NS
        self.frames.close_ns[:] = SESSION_CLOSE_NS
        self._rules, self._fees, self._ranges, self._rng = rules, fees, ranges, rng
        self._chains = _empty_chains(markets)
        self.board: Board = board_of(self._chains)
        steps = SESSION_BARS + HISTORY_BARS
        self._day = _Day(
            empty_factors(markets, steps),
            np.zeros((markets, steps + 1)),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros((markets, len(MarketModel._fields))),
        )
        self._every = np.arange(markets, dtype=np.int64)
        self._changed = np.zeros(self._chains.strike.shape[1], dtype=np.bool_)
        self._scratch = scratch()

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw from another generator from now on."""
        self._rng = rng

    def start_all(self) -> None:
        """Begin an episode in every market, at staggered times of the session."""
        count = len(self._every)
        strata = self._every * (SESSION_BARS - HISTORY_BARS) // count
        self._start(self._every, self._rng.permutation(strata))

    def advance(self) -> NDArray[np.bool_]:
        """Show every market's next bar; returns which accounts' sessions have closed, [B]."""
        self._day.bar[:] += 1
        self._show(self._every, False)
        ended: NDArray[np.bool_] = self._day.bar >= SESSION_BARS
        return ended[self.frame_of]

    def over(self) -> NDArray[np.bool_]:
        """The accounts whose episode ends with the session that they are in, bool[B]."""
        return np.ones(len(self.frame_of), dtype=np.bool_)

    def restart(self, accounts: I64) -> None:
        """Begin new episodes at the open in the markets of these accounts, all of each market's."""
        which = np.unique(self.frame_of[accounts])
        self._start(which, np.zeros(len(which), dtype=np.int64))

    def _arrays(self) -> dict[str, Any]:
        return {"day": self._day, "chains": self._chains, "frames": self.frames}

    def _start(self, which: I64, bar: I64) -> None:
        n, rng, day = len(which), self._rng, self._day
        markets = sample_markets(rng, n, SESSION_CLOSE_NS, self._ranges)
        simulate_markets(markets, which, day.factors, float(BAR_SECONDS), rng)
        _fill_logs(day.factors.spot, which, day.log_spot)
        day.models[which] = markets.models
        day.tick_class[which] = markets.tick_class
        day.bar[which] = bar
        day.offset[which] = np.where(rng.random(n) < WARM_SHARE, HISTORY_BARS, 0)
        self._list_contracts(which)
        self._show(which, True)

    def _list_contracts(self, which: I64) -> None:
        """List strikes around the spot of the episode's start, one random expiry a bucket."""
        at = self._day.bar[which] + self._day.offset[which]
        factors, chains = self._day.factors, self._chains
        spot, iv = factors.spot[which, at], factors.atm_iv[which, at]
        increment = np.where(spot < 100.0, 0.5, np.where(spot < 400.0, 1.0, 2.5))
        grid = np.linspace(-STRIKE_REACH, STRIKE_REACH, STRIKES_PER_EXPIRY)
        width = 2 * STRIKES_PER_EXPIRY
        for g, bucket in enumerate(BUCKETS):
            low, high = int(bucket.min_days) + 1, min(int(bucket.max_days) - 1, 45)
            days = self._rng.integers(low, high + 1, len(which))
            deviation = iv * np.sqrt((days + 0.27) / 365.0)
            ideal = spot[:, None] * np.exp(deviation[:, None] * grid)
            strikes = _spread_apart(np.round(ideal / increment[:, None])) * increment[:, None]
            columns = slice(g * width, (g + 1) * width)
            chains.strike[which, columns] = np.repeat(strikes, 2, axis=1)
            chains.expiry_ns[which, columns] = (SESSION_CLOSE_NS + days * DAY_NS)[:, None]
        for name in ("bid", "ask", "bid_size", "ask_size", "quote_ns"):
            getattr(chains, name)[which] = 0
        chains.mark[which] = np.nan

    def _show(self, which: I64, fresh: bool) -> None:
        _show_bar(
            self._chains,
            self._day,
            self.frames,
            which,
            fresh,
            self._rules,
            self._fees,
            self._rng,
            self._changed,
            self._scratch,
        )


def _empty_chains(count: int) -> Columns:
    n, per_expiry = 2 * len(BUCKETS) * STRIKES_PER_EXPIRY, 2 * STRIKES_PER_EXPIRY
    expiries = np.repeat(np.arange(len(BUCKETS)), per_expiry) + SESSION_CLOSE_NS
    strikes = np.tile(np.repeat(np.arange(1.0, STRIKES_PER_EXPIRY + 1), 2), len(BUCKETS))
    rights = np.tile(np.array([1, -1], dtype=np.int8), n // 2)
    template = empty_columns(expiries.astype(np.int64), strikes, rights)
    return Columns._make(np.repeat(column[None], count, axis=0) for column in template)


def _spread_apart(steps: F64) -> F64:
    """Make each row of whole numbers strictly rising by pushing equal neighbours apart."""
    rising = np.arange(steps.shape[1])
    apart: F64 = np.maximum.accumulate(steps - rising, axis=1) + rising
    positive: F64 = np.maximum(apart, rising + 1.0)
    return positive
