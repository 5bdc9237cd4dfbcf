"""Simulated option markets made on the fly, M at once, for one session or several in a row."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.account_view import Holdings
from trading.envs.catalogue import BUCKETS, MAX_LEGS
from trading.envs.market_features import HISTORY_BARS, Bars, log_price
from trading.envs.market_snapshots import (
    MarketSnapshots,
    Scratch,
    empty_snapshots,
    fill_snapshot,
    scratch,
)
from trading.envs.own_features import (
    MarketBar,
    OwnFeatures,
    market_bar,
    own_count,
    show_feature,
)
from trading.envs.quote_arrays import QuoteArrays, quote_arrays
from trading.envs.rules import NO_LEG, TradingRules
from trading.envs.saved_state import MarketsWithState
from trading.envs.structures import all_actions
from trading.execution.fees import FeeSchedule
from trading.market.borrowed import borrowed
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, ChainColumns, empty_columns, first_of, refresh, row
from trading.market.factors import (
    CALM,
    OWN_SHOCKS,
    STRESSED,
    Factors,
    FactorState,
    empty_factors,
    overnight,
    simulate_path,
)
from trading.market.model import YEAR_SECONDS, MarketModel
from trading.market.quotes import ChainQuotes, quote_chain
from trading.market.randomisation import (
    DEFAULT_INITIAL_CONDITIONS,
    InitialConditions,
    ModelRanges,
    model_at,
    sample_markets,
    simulate_markets,
)

SESSION_OPEN_NS = 1_767_623_400_000_000_000
"""2026-01-05 14:30 UTC: every simulated episode begins on this Monday; weekdays follow."""
SESSION_BARS = 390
BAR_SECONDS = 60
BAR_NS = BAR_SECONDS * 1_000_000_000
SESSION_CLOSE_NS = SESSION_OPEN_NS + SESSION_BARS * BAR_NS
STRIKES_PER_EXPIRY = 15
STRIKE_REACH = 1.9
"""Standard deviations of the log price at expiry that the strikes reach out to."""

_WEEKDAYS = 5
_EXPIRIES = len(BUCKETS)
_CONTRACTS = 2 * _EXPIRIES * STRIKES_PER_EXPIRY

WARM_SHARE = 0.5
"""Share of episodes that know an hour of earlier bars; the others start without history."""


@njit(cache=True)
def session_open_ns(session: int) -> int:
    """When a session of an episode opens; 0 is the first."""
    return SESSION_OPEN_NS + (7 * (session // _WEEKDAYS) + session % _WEEKDAYS) * DAY_NS


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
    session: I64
    """[M], sessions of the episode that are over."""
    extra: I64
    """[M], contracts listed beyond the usual number, since they are held."""
    later: I64
    """[M], expiries beyond the usual number."""
    expiry: I64
    """[M, BUCKETS], expiry of the contracts that each bucket lists, UTC ns."""


@njit(cache=True, error_model="numpy")
def _fill_logs(spot: F64, which: I64, out: F64) -> None:
    for m in which:
        for t in range(spot.shape[1]):
            out[m, t] = log_price(spot[m, t])


@njit(cache=True, error_model="numpy")
def _show_bar(
    chains: ChainColumns,
    day: _Day,
    snapshots: MarketSnapshots,
    which: I64,
    fresh: bool,
    rules: TradingRules,
    fees: FeeSchedule,
    rng: np.random.Generator,
    changed: NDArray[np.bool_],
    s: Scratch,
    opens: NDArray[np.bool_],
) -> None:
    """Bring quotes, implied values and snapshots of markets `which` to their current bar.

    `fresh` markets quote every contract anew. `opens` [M] as in `fill_snapshot`.
    """
    chains, day, snapshots, s = borrowed(chains), borrowed(day), borrowed(snapshots), borrowed(s)
    changed = borrowed(changed)
    for m in which:
        size = _CONTRACTS + day.extra[m]
        chain = first_of(row(chains, m), size, _EXPIRIES + day.later[m])
        model = model_at(day.models, m)
        requote = 1.0 if fresh else model.requote_per_bar
        now_ns = session_open_ns(day.session[m]) + day.bar[m] * BAR_NS
        last = day.bar[m] + day.offset[m]
        factors = day.factors
        quote_chain(
            model, rng, factors.spot[m, last], factors.atm_iv[m, last], factors.skew[m, last],
            now_ns,
            ChainQuotes(
                chain.strike, chain.expiry_ns, chain.right, chain.bid, chain.ask,
                chain.bid_size, chain.ask_size, chain.quote_ns,
            ),
            day.tick_class[m], requote, changed[:size],
        )  # fmt: skip
        snapshots.now_ns[m] = snapshots.spot_ns[m] = now_ns
        snapshots.spot[m] = refresh(
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
        fill_snapshot(chain, snapshots, m, bars, rules, fees, s, opens[m])


@njit(error_model="numpy")
def _chain_of(chains: ChainColumns, day: _Day, m: int) -> ChainColumns:
    size = _CONTRACTS + day.extra[m]
    chain: ChainColumns = first_of(row(chains, m), size, _EXPIRIES + day.later[m])
    return chain


@njit(error_model="numpy")
def _bars_of(day: _Day, m: int) -> Bars:
    """Return the last closed bars of market `m`, as `_show_bar` reads them."""
    last = day.bar[m] + day.offset[m]
    first = max(0, last - HISTORY_BARS)
    return Bars(
        day.factors.high[m, first:last],
        day.factors.low[m, first:last],
        day.factors.spot[m, first + 1 : last + 1],
        day.log_spot[m, first + 1 : last + 1],
        last - first,
    )


# A pass of its own: where there is no function of a user's own, `_show_bar` is what it was.
@njit(error_model="numpy")
def _show_feature(
    function: Any,
    chains: ChainColumns,
    day: _Day,
    snapshots: MarketSnapshots,
    which: I64,
    max_age_ns: int,
    number: int,
) -> None:
    """Write what one function makes of the current bar of markets `which`."""
    for m in which:
        chain, bars = _chain_of(chains, day, m), _bars_of(day, m)
        show_feature(function, chain, snapshots, m, bars, max_age_ns, number)


@njit(cache=True, error_model="numpy")
def _go_overnight(day: _Day, which: I64, rng: np.random.Generator) -> None:
    """Lead the paths of markets `which` through the night, and to the next session's first bar.

    What the last hour showed stays known, and the gap lies between two closes, as in the bars that
    live trading keeps.
    """
    factors = day.factors
    for m in which:
        model, last = model_at(day.models, m), day.bar[m] + day.offset[m]
        opened_ns, open_ns = session_open_ns(day.session[m]), session_open_ns(day.session[m] + 1)
        close_spot = factors.spot[m, last]
        regime = STRESSED if factors.regime[m, last] == STRESSED else CALM
        log_iv, gap = np.log(factors.atm_iv[m, last]), factors.gap[m, last]
        close = FactorState(close_spot, log_iv, factors.skew[m, last], regime, gap)
        close_ns = opened_ns + SESSION_BARS * BAR_NS
        state = overnight(model, rng, close, close_ns, open_ns, model.event_ns, OWN_SHOCKS, 0.0)
        for k in range(HISTORY_BARS):
            before = last - HISTORY_BARS + k
            factors.spot[m, k] = factors.spot[m, before]
            factors.high[m, k], factors.low[m, k] = factors.high[m, before], factors.low[m, before]
            factors.volume[m, k] = factors.volume[m, before]
        factors.spot[m, HISTORY_BARS] = state.spot
        factors.atm_iv[m, HISTORY_BARS] = np.exp(state.log_iv)
        factors.skew[m, HISTORY_BARS] = state.skew
        factors.regime[m, HISTORY_BARS] = state.regime
        factors.gap[m, HISTORY_BARS] = state.gap
        simulate_path(
            model, rng, factors, m, float(BAR_SECONDS), YEAR_SECONDS, 0.0, OWN_SHOCKS, 0.0,
            HISTORY_BARS,
        )  # fmt: skip
        factors.spot[m, HISTORY_BARS] = close_spot
        day.offset[m], day.bar[m] = HISTORY_BARS, 1
        day.session[m] += 1


class SimulatedMarkets(MarketsWithState):
    """M independent markets, each traded by `accounts_per_market` accounts.

    Accounts of several underlyings trade so many markets in a row, one row in each.

    Every episode draws its own market, see `trading.market.randomisation`. Half of the episodes
    know an hour of earlier bars, half start without history, as a live market may. An episode of
    several sessions goes through the nights between them: the price gaps, contracts are listed
    around it anew, and what an account holds stays listed until it expires.

    Attributes
    ----------
    snapshots, quotes : MarketSnapshots, QuoteArrays
        Snapshot m shows market m at its current bar.
    snapshot_of : i64[B]
        Snapshot of each account.
    """

    def __init__(
        self,
        num_accounts: int,
        accounts_per_market: int,
        rules: TradingRules,
        fees: FeeSchedule,
        ranges: ModelRanges,
        rng: np.random.Generator,
        initial_conditions: InitialConditions = DEFAULT_INITIAL_CONDITIONS,
        sessions_per_episode: int = 1,
        features: OwnFeatures | None = None,
    ) -> None:
        markets, rows = num_accounts // accounts_per_market, rules.underlyings_per_account
        self._per_market, self._per_episode = accounts_per_market, sessions_per_episode
        self._rows = rows
        row = np.arange(num_accounts, dtype=np.int64)
        self.snapshot_of: I64 = row // (rows * accounts_per_market) * rows + row % rows
        actions = len(all_actions(rules.structures))
        self.snapshots = empty_snapshots(markets, own_count(features), actions)
        self._features = features
        self.snapshots.open_ns[:] = SESSION_OPEN_NS
        self.snapshots.close_ns[:] = SESSION_CLOSE_NS
        self._rules, self._fees, self._ranges, self._rng = rules.numbers, fees, ranges, rng
        self._initial_conditions = initial_conditions
        spans = any(each.spans for each in rules.structures)
        held = accounts_per_market * (len(BUCKETS) if spans else 1)
        held = held if sessions_per_episode > 1 else 0
        self._chains = _empty_chains(markets, held)
        self.quotes: QuoteArrays = quote_arrays(self._chains)
        steps = SESSION_BARS + HISTORY_BARS
        self._day = _Day(
            empty_factors(markets, steps),
            np.zeros((markets, steps + 1)),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros((markets, len(MarketModel._fields))),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros(markets, dtype=np.int64),
            np.zeros((markets, len(BUCKETS)), dtype=np.int64),
        )
        self._every = np.arange(markets, dtype=np.int64)
        self._changed = np.zeros(self._chains.strike.shape[1], dtype=np.bool_)
        self._scratch = scratch(rules.structures)
        self._all_open = np.ones(markets, dtype=np.bool_)

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw from another generator from now on."""
        self._rng = rng

    def start_all(self) -> None:
        """Begin an episode in every market, at staggered sessions and times of the session.

        Those of the same accounts begin together.
        """
        count, rows = len(self._every) // self._rows, self._rows
        each = np.arange(count, dtype=np.int64)
        strata = each * (SESSION_BARS - HISTORY_BARS) // count
        bar, session = self._rng.permutation(strata), np.zeros(count, dtype=np.int64)
        if self._per_episode > 1:
            session = self._rng.permutation(each * self._per_episode // count)
        self._start(self._every, bar.repeat(rows), session.repeat(rows))

    def advance(self, opens: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Show every market's next bar; returns which accounts' sessions have closed, [B].

        `opens` [B] as in `trading.envs.vector_env.Markets`.
        """
        self._day.bar[:] += 1
        by_market = self._all_open
        if opens is not None:
            by_market = np.zeros(len(self._every), dtype=np.bool_)
            by_market[self.snapshot_of[opens]] = True
        self._show(self._every, False, by_market)
        ended: NDArray[np.bool_] = self._day.bar >= SESSION_BARS
        return ended[self.snapshot_of]

    def over(self) -> NDArray[np.bool_]:
        """Return the accounts whose episode ends with the session that they are in, bool[B]."""
        over: NDArray[np.bool_] = self._day.session >= self._per_episode - 1
        return over[self.snapshot_of]

    def night(self, accounts: I64) -> tuple[F64, NDArray[np.bool_]]:
        """Return what the night of these accounts brings; see `trading.envs.vector_env.Markets`."""
        return np.zeros(len(accounts)), np.zeros(len(accounts), dtype=np.bool_)

    def pass_night(self, accounts: I64, holdings: Holdings) -> None:
        """Bring the markets of these accounts to the first bar of their next session."""
        which = np.unique(self.snapshot_of[accounts])
        _go_overnight(self._day, which, self._rng)
        _fill_logs(self._day.factors.spot, which, self._day.log_spot)
        for m in which.tolist():
            self._list_again(m, holdings)
        self._date_snapshots(which)
        self._show(which, True)

    def restart(self, accounts: I64) -> None:
        """Begin new episodes at the open in the markets of these accounts, all of each market's."""
        which = np.unique(self.snapshot_of[accounts])
        none = np.zeros(len(which), dtype=np.int64)
        self._start(which, none, none)

    def market_bar(self, m: int) -> MarketBar:
        """Return what features of a user's own are given of market `m` now, as views."""
        chain = _chain_of(self._chains, self._day, m)
        bars = _bars_of(self._day, m)
        age = self._rules.max_quote_age_ns
        known: MarketBar = market_bar(chain, self.snapshots, m, bars, age)
        return known

    def _arrays(self) -> dict[str, Any]:
        return {"day": self._day, "chains": self._chains, "snapshots": self.snapshots}

    def _start(self, which: I64, bar: I64, session: I64) -> None:
        n, rng, day = len(which), self._rng, self._day
        markets = sample_markets(rng, n, SESSION_CLOSE_NS, self._ranges, self._initial_conditions)
        simulate_markets(markets, which, day.factors, float(BAR_SECONDS), rng)
        _fill_logs(day.factors.spot, which, day.log_spot)
        day.models[which] = markets.models
        day.tick_class[which] = markets.tick_class
        day.bar[which] = bar
        day.offset[which] = np.where(rng.random(n) < WARM_SHARE, HISTORY_BARS, 0)
        day.session[which] = session
        self._list_contracts(which)
        self._date_snapshots(which)
        self._show(which, True)

    def _date_snapshots(self, which: I64) -> None:
        open_ns = session_open_ns_of(self._day.session[which])
        self.snapshots.open_ns[which] = open_ns
        self.snapshots.close_ns[which] = open_ns + SESSION_BARS * BAR_NS

    def _list_contracts(self, which: I64) -> None:
        """List strikes around the spot of the episode's start, one random expiry a bucket."""
        chains, width = self._chains, 2 * STRIKES_PER_EXPIRY
        if self._per_episode > 1:
            _lay_out(chains, which)
            self._day.extra[which] = self._day.later[which] = 0
        at = self._day.bar[which] + self._day.offset[which]
        factors = self._day.factors
        spot, iv = factors.spot[which, at], factors.atm_iv[which, at]
        for g in range(len(BUCKETS)):
            days = self._draw_days(g, which)
            columns = slice(g * width, (g + 1) * width)
            close_ns = session_open_ns_of(self._day.session[which]) + SESSION_BARS * BAR_NS
            chains.strike[which, columns] = np.repeat(_strikes(spot, iv, days), 2, axis=1)
            self._day.expiry[which, g] = close_ns + days * DAY_NS
            chains.expiry_ns[which, columns] = self._day.expiry[which, g][:, None]
        self._forget_quotes(which)

    def _draw_days(self, bucket: int, which: I64) -> I64:
        """Days to a random expiry of a bucket; where nights are passed, on which there is trade."""
        low = int(BUCKETS[bucket].min_days) + 1
        high = min(int(BUCKETS[bucket].max_days) - 1, 45)
        days: I64 = self._rng.integers(low, high + 1, len(which))
        if self._per_episode > 1:
            beyond = (self._day.session[which] % _WEEKDAYS + days) % 7 - (_WEEKDAYS - 1)
            weekend = beyond > 0
            back = days - beyond >= low
            days = np.where(weekend, np.where(back, days - beyond, days + 3 - beyond), days)
        return days

    def _forget_quotes(self, which: I64 | int) -> None:
        for name in ("bid", "ask", "bid_size", "ask_size", "quote_ns"):
            getattr(self._chains, name)[which] = 0
        self._chains.mark[which] = np.nan

    def _list_again(self, m: int, holdings: Holdings) -> None:
        """List strikes around the spot of market `m` at its open, and what its accounts hold.

        A bucket keeps its expiry for as long as that is near enough, and draws another one then.
        """
        day, chains, rows = self._day, self._chains, self._rows
        first = m // rows * rows * self._per_market + m % rows
        accounts = slice(first, first + rows * self._per_market, rows)
        legs = holdings.legs[accounts]
        held = np.unique(legs[legs >= 0])
        held_strike, held_expiry = chains.strike[m, held], chains.expiry_ns[m, held]
        held_right, held_mark = chains.right[m, held], chains.mark[m, held]

        close_ns = session_open_ns(int(day.session[m])) + SESSION_BARS * BAR_NS
        at, which = day.bar[m] + day.offset[m], np.array([m])
        spot, iv = day.factors.spot[which, at], day.factors.atm_iv[which, at]
        strikes, expiries = [held_strike], [held_expiry]
        for g, bucket in enumerate(BUCKETS):
            left = (day.expiry[m, g] - close_ns) // DAY_NS
            if not bucket.min_days <= left < bucket.max_days - 1:
                left = self._draw_days(g, which)[0]
                day.expiry[m, g] = close_ns + left * DAY_NS
            strikes.append(_strikes(spot, iv, np.array([left]))[0])
            expiries.append(np.full(STRIKES_PER_EXPIRY, day.expiry[m, g]))
        strike, expiry = np.concatenate(strikes), np.concatenate(expiries)
        order = np.lexsort((strike, expiry))
        strike, expiry = strike[order], expiry[order]
        new = np.append(True, (np.diff(strike) != 0.0) | (np.diff(expiry) != 0))
        strike, expiry = strike[new], expiry[new]
        size = 2 * len(strike)
        starts = np.flatnonzero(np.append(True, np.diff(expiry) != 0))
        chains.strike[m, :size], chains.expiry_ns[m, :size] = strike.repeat(2), expiry.repeat(2)
        chains.group_start[m, : len(starts)] = 2 * starts
        chains.group_start[m, len(starts)] = size
        day.extra[m], day.later[m] = size - _CONTRACTS, len(starts) - _EXPIRIES
        self._forget_quotes(m)

        place = np.full(int(held.max(initial=-1)) + 1, NO_LEG)
        for i, each in enumerate(held.tolist()):
            line = np.flatnonzero((expiry == held_expiry[i]) & (strike == held_strike[i]))[0]
            place[each] = 2 * line + (held_right[i] < 0)
            # Until it is quoted, what is held is worth what it was.
            chains.mark[m, place[each]] = held_mark[i]
        if len(held):
            holdings.legs[accounts] = np.where(legs >= 0, place[np.maximum(legs, 0)], legs)

    def _show(self, which: I64, fresh: bool, opens: NDArray[np.bool_] | None = None) -> None:
        _show_bar(
            self._chains,
            self._day,
            self.snapshots,
            which,
            fresh,
            self._rules,
            self._fees,
            self._rng,
            self._changed,
            self._scratch,
            self._all_open if opens is None else opens,
        )
        if self._features is None:
            return
        age = self._rules.max_quote_age_ns
        for number, function in enumerate(self._features.functions):
            shown = (self._chains, self._day, self.snapshots, which, age)
            try:
                _show_feature(function, *shown, number)
            except Exception as error:
                raise self._features.failed(number, error) from error


def session_open_ns_of(sessions: I64) -> I64:
    """`session_open_ns` of several sessions."""
    days: I64 = 7 * (sessions // _WEEKDAYS) + sessions % _WEEKDAYS
    return SESSION_OPEN_NS + days * DAY_NS


def _strikes(spot: F64, iv: F64, days: I64) -> F64:
    """Strikes around the spot for an expiry in so many days, [n, STRIKES_PER_EXPIRY]."""
    increment = np.where(spot < 100.0, 0.5, np.where(spot < 400.0, 1.0, 2.5))
    grid = np.linspace(-STRIKE_REACH, STRIKE_REACH, STRIKES_PER_EXPIRY)
    deviation = iv * np.sqrt((days + 0.27) / 365.0)
    ideal = spot[:, None] * np.exp(deviation[:, None] * grid)
    strikes: F64 = _spread_apart(np.round(ideal / increment[:, None])) * increment[:, None]
    return strikes


def _empty_chains(count: int, held: int) -> ChainColumns:
    """Chains with room for so many expiries that accounts of each may hold beside the listed."""
    per_expiry = 2 * STRIKES_PER_EXPIRY
    expiries = np.repeat(np.arange(_EXPIRIES), per_expiry) + SESSION_CLOSE_NS
    strikes = np.tile(np.repeat(np.arange(1.0, STRIKES_PER_EXPIRY + 1), 2), _EXPIRIES)
    for k in range(held):
        expiries = np.append(expiries, np.full(2 * MAX_LEGS, SESSION_CLOSE_NS + _EXPIRIES + k))
        strikes = np.append(strikes, np.repeat(np.arange(1.0, MAX_LEGS + 1), 2))
    rights = np.tile(np.array([1, -1], dtype=np.int8), len(strikes) // 2)
    template = empty_columns(expiries.astype(np.int64), strikes, rights)
    return ChainColumns._make(np.repeat(column[None], count, axis=0) for column in template)


def _lay_out(chains: ChainColumns, which: I64) -> None:
    """Give chains the usual expiries, each with the usual number of contracts."""
    chains.group_start[which, : _EXPIRIES + 1] = 2 * STRIKES_PER_EXPIRY * np.arange(_EXPIRIES + 1)


def _spread_apart(steps: F64) -> F64:
    """Make each row of whole numbers strictly rising by pushing equal neighbours apart."""
    rising = np.arange(steps.shape[1])
    apart: F64 = np.maximum.accumulate(steps - rising, axis=1) + rising
    positive: F64 = np.maximum(apart, rising + 1.0)
    return positive
