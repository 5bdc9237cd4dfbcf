"""Traders that learn nothing: what a policy must beat to have learnt something.

Most choose among the catalogue's actions. Two hold what the catalogue leaves out: stock alone, and
a short strangle, whose loss has no bound. They are traded as the live account would with
`risk.allow_naked_shorts`: matched at the touch, with all fees and Reg-T margin, in whole round
lots, and marked and halted with the other accounts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.envs.account_view import keep_greeks, legs_greeks
from trading.envs.accounts import Accounts, share
from trading.envs.by_name import action as action_named
from trading.envs.catalogue import HOLD
from trading.envs.market_snapshots import ABOVE_ROUNDING, MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.shared_accounts import account_greeks
from trading.envs.structures import Structure
from trading.envs.vector_env import Observation
from trading.errors import PluginError
from trading.execution.exposure import headroom
from trading.execution.fees import FeeSchedule
from trading.execution.legs import terms_of
from trading.execution.margin.buying_power import order_buying_power_effect
from trading.execution.margin.maintenance import cents_up
from trading.execution.margin.reg_t import defined_risk_margin, reg_t_margin, sells_short
from trading.execution.matching import FillStyle
from trading.execution.money import round_usd
from trading.execution.order_matching import MatchResult, match_order
from trading.execution.orders import Intent, Leg, Order, QuoteView
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import F64, I64
from trading.market.contracts import OptionContract, Right
from trading.plugins.plugin_registry import REGISTRY, SessionTrader
from trading.plugins.rule_based import RuleBased

_CALENDAR = ExchangeCalendar()


def hold(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Keep the cash."""
    return np.full(len(first), HOLD, dtype=np.int64)


def open_and_keep(action_name: str) -> SessionTrader:
    """Take one action wherever it is allowed, and keep the position until it expires.

    The mask allows none while something is held, so an account opens again after an expiry.
    """
    action = action_named(action_name)

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.where(observation["action_mask"][:, action], action, HOLD).astype(np.int64)

    return trader


def random_masked(seed: int) -> SessionTrader:
    """Any allowed action, each as likely as the others."""
    rng = np.random.default_rng(seed)

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        mask = observation["action_mask"]
        return np.asarray((rng.random(mask.shape) * mask).argmax(axis=1), dtype=np.int64)

    return trader


@dataclass(frozen=True)
class MarketView:
    """The markets that B accounts trade, as they stand now."""

    quotes: QuoteArrays
    snapshots: MarketSnapshots
    snapshot_of: I64
    """[B]"""
    underlyings: Sequence[str]
    """[B], tickers; an option's root decides its margin."""


@dataclass(frozen=True)
class HeldToClose:
    """A position opened wherever nothing is held, and kept until it expires or the episode ends.

    Its greatest loss has no bound or is the whole price, so it is sized as the catalogue sizes
    covered calls and secured puts: by the capital that it ties up, at most `secured_fraction` of
    equity. That is what it takes from buying power, Reg-T margin included, or with cash behind its
    sold puts, whichever is more; margin alone would let a strangle carry several times its
    equity. The limits on one order's contracts and notional, on the account's greeks, on buying
    power, and on equity for selling short apply as to any order.
    """

    name: str
    ratio: tuple[int, ...]
    """Signed contracts or round lots of one unit."""
    contracts_of: str | None = None
    """Action of the catalogue whose contracts it takes; None: it holds the stock."""

    def __call__(self, observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Hold: the position is no action, `open_all` orders it."""
        return hold(observation, first)

    def open_all(
        self, view: MarketView, rules: TradingRules, fees: FeeSchedule, accounts: Accounts
    ) -> None:
        """Open the position in every account that holds none, as far as it may."""
        balances, snapshots = accounts.balances, view.snapshots
        for b in np.flatnonzero((accounts.holdings.units == 0) & balances.may_open).tolist():
            if balances.open_positions[b] >= rules.max_positions:
                continue
            f = int(view.snapshot_of[b])
            legs = self._legs(snapshots, f)
            closing = snapshots.close_ns[f] - snapshots.now_ns[f] <= rules.no_open_ns
            if legs[0] != NO_LEG and not closing:
                _open(self, view, b, legs, rules, fees, accounts)

    def _legs(self, snapshots: MarketSnapshots, f: int) -> list[int]:
        if self.contracts_of is None:
            return [STOCK_LEG]
        row = snapshots.legs[f, action_named(self.contracts_of)]
        return [int(i) for i in row[: len(self.ratio)]]


BUY_AND_HOLD = HeldToClose("stock", (1,))
SHORT_STRANGLE = HeldToClose("short_strangle", (-1, -1), contracts_of="long_strangle_far_d30")


BENCHMARK = "buy and hold"
"""The baseline that others are drawn beside: the stock alone."""


def baselines(
    seed: int, structures: tuple[Structure, ...] = (), features: Sequence[str] = ()
) -> Mapping[str, SessionTrader]:
    """Every baseline by name; `seed` is that of random choices. A trader serves one backtest.

    Those that plug-ins have registered come last, and may open the `structures` of the rules;
    `features` are the names of a user's own that they see.

    Raises
    ------
    PluginError
        A registered one cannot be made, or has the name of another.
    """
    own: dict[str, SessionTrader] = {
        "hold cash": hold,
        BENCHMARK: BUY_AND_HOLD,
        "covered call": open_and_keep("covered_call_far_d30"),
        "short strangle": SHORT_STRANGLE,
        "iron condor": open_and_keep("iron_condor_far_d30_15"),
        "random": random_masked(seed),
    }
    for name, plugin in REGISTRY.baselines.items():
        if name in own:
            raise PluginError(f"{plugin}: there is a baseline of this name; choose another name")
        own[name] = RuleBased(plugin, seed, structures, features)
    return own


def quote_of(view: MarketView, b: int, leg: int, rules: TradingRules) -> QuoteView:
    """Return what account `b` can trade a contract, or the stock, at."""
    snapshots, quotes, f = view.snapshots, view.quotes, int(view.snapshot_of[b])
    if leg == STOCK_LEG:
        bid, ask = stock_touch(float(snapshots.spot[f]), rules.stock_half_spread)
        return QuoteView(bid, ask, STOCK_LOTS, STOCK_LOTS, int(snapshots.spot_ns[f]))
    q = int(quotes.quote_offset[f]) + leg
    return QuoteView(
        float(quotes.bid[q]),
        float(quotes.ask[q]),
        float(quotes.bid_size[q]),
        float(quotes.ask_size[q]),
        int(quotes.quote_ns[q]),
    )


def _open(
    position: HeldToClose,
    view: MarketView,
    b: int,
    legs: list[int],
    rules: TradingRules,
    fees: FeeSchedule,
    accounts: Accounts,
) -> None:
    """Order as many units as the limits allow, and book what trades."""
    f, underlying = int(view.snapshot_of[b]), view.underlyings[b]
    symbols = [_symbol(view, f, leg, underlying) for leg in legs]
    order = Order(
        order_id=f"{position.name}-{b}",
        ts_ns=int(view.snapshots.now_ns[f]),
        underlying=underlying,
        strategy=position.name,
        intent=Intent.OPEN,
        legs=tuple(Leg(s, r) for s, r in zip(symbols, position.ratio, strict=True)),
        units=rules.max_contracts,
    )
    quotes = {s: quote_of(view, b, leg, rules) for s, leg in zip(symbols, legs, strict=True)}
    offered = match_order(
        order, order.units, quotes, order.ts_ns, rules.max_quote_age_ns, rules.slippage,
        style=FillStyle(rules.fill_style),
    )  # fmt: skip
    if offered.units == 0:
        return
    spot = float(view.snapshots.spot[f])
    margin = cents_up(reg_t_margin(order.legs, rules.multiplier, spot, offered.marks))
    greeks = legs_greeks(
        view.quotes, view.snapshots, f, rules.multiplier, np.array(legs), np.array(position.ratio)
    )
    balances = accounts.balances
    power = float(balances.cash[b] - balances.margin_used[b])
    rows = rules.underlyings_per_account
    seen = (view.quotes, view.snapshots, view.snapshot_of, rules)
    held = account_greeks(*seen, accounts, b) if rows > 1 else np.zeros(3)
    units = _units(offered, margin, greeks, held, float(balances.equity[b]), power, rules, fees)
    if units >= 1:
        premium, fee = offered.cash(fees, units, rules.multiplier)
        _book(accounts, b, legs, position.ratio, units, premium, fee, margin, order.ts_ns)
        accounts.last_price[b, : len(legs)] = offered.prices
        _note_greeks(accounts, b, legs, view, f)
        accounts.kept[b] = 0.0
        share(accounts, np.array([b]), rows)


def _units(
    offered: MatchResult,
    margin: float,
    greeks: tuple[float, float, float],
    held: F64,
    equity: float,
    power: float,
    rules: TradingRules,
    fees: FeeSchedule,
) -> int:
    """Units that the displayed sizes and every limit allow; `held` [3] are the account's greeks.

    As the environment sizes a covered call or a put secured by cash; `tests/evaluation/
    test_baselines.py` ties the two.
    """
    order = offered.order
    cost = order_buying_power_effect(offered, 1, offered.net, margin, fees, rules.multiplier)
    without_calls = tuple(leg for leg in order.legs if terms_of(leg.symbol).right <= 0)
    secured = defined_risk_margin(without_calls, rules.multiplier)
    tied_up = order_buying_power_effect(
        offered, 1, offered.net, max(margin, secured), fees, rules.multiplier
    )
    if not 0.0 < cost <= tied_up < math.inf:
        return 0
    if not equity >= rules.min_short_equity and sells_short(order.legs):
        return 0
    base = equity / ABOVE_ROUNDING
    limits = (rules.max_delta, rules.max_gamma, rules.max_vega)
    rooms = [
        headroom(limit * base, float(current), unit)
        for limit, current, unit in zip(limits, held, greeks, strict=True)
    ]
    contracts = order.contracts_per_unit
    most = min(
        float(offered.units),
        equity * rules.secured_fraction // tied_up,
        power // cost,
        rules.max_notional // (offered.gross * rules.multiplier),
        rules.max_contracts // contracts if contracts else math.inf,
        *rooms,
    )
    return int(most) if math.isfinite(most) else 0


def _symbol(view: MarketView, f: int, leg: int, underlying: str) -> str:
    if leg == STOCK_LEG:
        return underlying
    quotes, i = view.quotes, int(view.quotes.contract_offset[f]) + leg
    expiry = _CALENDAR.date_of(int(quotes.expiry_ns[i]))
    strike_milli = round(1000 * float(quotes.strike[i]))
    return OptionContract(underlying, expiry, Right(int(quotes.right[i])), strike_milli).symbol


def _book(
    accounts: Accounts,
    b: int,
    legs: Sequence[int],
    ratio: Sequence[int],
    units: int,
    premium: float,
    fee: float,
    margin: float,
    now_ns: int,
) -> None:
    """Write an opening fill to account `b`, as `trading.envs.accounts.trade` does."""
    holdings, balances = accounts.holdings, accounts.balances
    balances.cash[b] = round_usd(balances.cash[b] + (premium - fee))
    accounts.net_cash[b] = round_usd(accounts.net_cash[b] + (premium - fee))
    accounts.trades[b] += 1
    accounts.entry_cash[b], accounts.exit_cash[b], accounts.fees[b] = premium, 0.0, fee
    accounts.margin_per_unit[b], accounts.margin_moves[b] = margin, False
    holdings.units[b], holdings.opened_ns[b] = units, now_ns
    holdings.legs[b], holdings.ratio[b] = NO_LEG, 0
    holdings.legs[b, : len(legs)], holdings.ratio[b, : len(legs)] = legs, ratio
    holdings.net_cash[b] = round_usd(premium - fee)
    balances.open_positions[b] = 1
    balances.margin_used[b] = margin * units


def _note_greeks(accounts: Accounts, b: int, legs: Sequence[int], view: MarketView, f: int) -> None:
    """Keep the greeks that options are opened at, as `trading.envs.accounts.trade` does."""
    known, quotes = accounts.holdings.known[b], view.quotes
    known[:] = 0.0
    for place, leg in enumerate(legs):
        if leg != STOCK_LEG:
            keep_greeks(
                quotes, int(quotes.quote_offset[f]) + leg, view.snapshots.spot[f], known[place]
            )
