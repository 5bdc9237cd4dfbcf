"""One live market as an environment: chains and bars in, observations and orders out.

It knows exchange time only, and only what it is told; whether a socket, a recording or a test
tells it makes no difference. The kernels are those of the vectorised environment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.envs.actions import (
    ACTION_COUNT,
    ACTIONS,
    BUCKETS,
    CLOSE,
    MAX_LEGS,
    Funds,
    Menu,
    Position,
    TradingRules,
    build_menu,
    empty_menu,
    find_buckets,
)
from trading.envs.features import F32, FEATURE_COUNT, HISTORY_BARS, Bars, observe
from trading.execution.broker import PaperBroker, settlement_price
from trading.execution.fees import FeeSchedule
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView, Rejection
from trading.execution.risk import TradingState
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.chain import F64, I64, Chain, tradable_share
from trading.market.contracts import OptionContract, parse_symbol


@dataclass(slots=True)
class _History:
    """The last closed bars of one underlying, and the bar that is being built."""

    high: F64 = field(default_factory=lambda: np.zeros(HISTORY_BARS))
    low: F64 = field(default_factory=lambda: np.zeros(HISTORY_BARS))
    close: F64 = field(default_factory=lambda: np.zeros(HISTORY_BARS))
    count: int = 0
    building: tuple[float, float, float] | None = None

    def extend(self, high: float, low: float, close: float) -> None:
        """Merge an aggregate into the bar that is being built."""
        if self.building is not None:
            high, low = max(high, self.building[0]), min(low, self.building[1])
        self.building = (high, low, close)

    def roll(self, price: float) -> None:
        """Close the bar; without a trade it is flat at `price`, unknown (NaN) adds none."""
        high, low, close = self.building or (price, price, price)
        self.building = None
        if np.isnan(close):
            return
        if self.count == HISTORY_BARS:
            for column in (self.high, self.low, self.close):
                column[:-1] = column[1:]
            self.count -= 1
        self.high[self.count], self.low[self.count] = high, low
        self.close[self.count] = close
        self.count += 1

    def bars(self) -> Bars:
        return Bars(self.high, self.low, self.close, self.count)


@dataclass(slots=True)
class _Market:
    """One underlying as the environment keeps it."""

    chain: Chain
    history: _History = field(default_factory=_History)
    menu: Menu = field(default_factory=empty_menu)
    bucket_group: I64 = field(default_factory=lambda: np.full(len(BUCKETS), -1, dtype=np.int64))
    profit: float = float("nan")
    """USD: what the underlying contributed to equity, at the last mark."""


class Observed(NamedTuple):
    """What a closed bar shows of the U underlyings."""

    observations: F32
    """[U, F]"""
    action_mask: NDArray[np.bool_]
    """[U, N]"""
    rewards: F32
    """[U], since the bar before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action."""

    action: int
    masked: bool
    """The action was not allowed and became a hold."""
    result: Fill | Rejection | None = None


class LiveEnv:
    """The markets of one trading account.

    Parameters
    ----------
    symbols
        The U underlyings, in the order of every [U] array.
    rules, fees
        As in training.
    calendar
        Tells when contracts expire.
    broker
        Owns the account; every order goes through it.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        rules: TradingRules,
        fees: FeeSchedule,
        calendar: ExchangeCalendar,
        broker: PaperBroker,
    ) -> None:
        self.symbols = tuple(symbols)
        self.broker = broker
        self._rules, self._fees, self._calendar = rules, fees, calendar
        self._markets = {symbol: _Market(Chain(symbol, [], [])) for symbol in self.symbols}
        self._contracts: dict[str, tuple[Chain, int]] = {}
        self._observations: F32 = np.zeros((len(self.symbols), FEATURE_COUNT), dtype=np.float32)
        self._mask: NDArray[np.bool_] = np.zeros((len(self.symbols), ACTION_COUNT), dtype=np.bool_)

    def begin_session(self) -> None:
        """Forget the sequence numbers of quotes: they start over with each session."""
        for market in self._markets.values():
            market.chain.sequence[:] = -1

    def list_contracts(self, underlying: str, contracts: Iterable[OptionContract]) -> None:
        """Set what is listed; quotes of contracts listed before are kept, held ones stay listed."""
        listed = {c.symbol: c for c in contracts if not c.is_adjusted}
        for symbol in self.held_symbols(underlying):
            listed.setdefault(symbol, parse_symbol(symbol))
        expiries = {c.expiry: 0 for c in listed.values()}
        for expiry in expiries:
            expiries[expiry] = self._calendar.expiry_ns(expiry)
        chain = Chain(
            underlying, list(listed.values()), [expiries[c.expiry] for c in listed.values()]
        )
        market = self._markets[underlying]
        chain.adopt_quotes(market.chain)
        for symbol in market.chain.symbols:
            self._contracts.pop(symbol, None)
        market.chain = chain
        for symbol, i in chain.index.items():
            self._contracts[symbol] = (chain, i)
        for symbol in self.held_symbols(underlying):
            i = chain.index[symbol]
            if np.isnan(chain.columns.mark[i]):
                # Until it is quoted, a position is worth what was paid for it.
                chain.columns.mark[i] = self.broker.account.positions[symbol].average_price

    def listed_symbols(self) -> list[str]:
        """Every listed contract, underlying by underlying."""
        return [s for symbol in self.symbols for s in self._markets[symbol].chain.symbols]

    def spot(self, underlying: str) -> float:
        """Last known price of an underlying, NaN before the first."""
        chain = self._markets[underlying].chain
        return chain.last_price if chain.last_price > 0.0 else chain.spot

    def held_symbols(self, underlying: str) -> list[str]:
        """Contracts of the open strategy on an underlying."""
        strategy = self.broker.account.strategies.get(underlying)
        return [leg.symbol for leg in strategy.legs] if strategy else []

    def apply_quote(
        self,
        symbol: str,
        bid: float,
        ask: float,
        bid_size: float,
        ask_size: float,
        ts_ns: int,
        sequence: int,
    ) -> bool:
        """Take over a quote; False when the contract is unknown or the quote is out of order."""
        found = self._contracts.get(symbol)
        if found is None:
            return False
        chain, i = found
        if sequence < chain.sequence[i]:
            return False
        chain.sequence[i] = sequence
        columns = chain.columns
        columns.bid[i] = bid
        columns.ask[i] = ask
        columns.bid_size[i] = bid_size
        columns.ask_size[i] = ask_size
        columns.quote_ns[i] = ts_ns
        return True

    def apply_bar(self, bar: StockBar) -> bool:
        """Take over an aggregate of an underlying; False when it is not traded here."""
        market = self._markets.get(bar.symbol)
        if market is None:
            return False
        market.history.extend(bar.high, bar.low, bar.close)
        market.chain.last_price = bar.close
        return True

    def warm_up(self, underlying: str, bars: Iterable[StockBar]) -> None:
        """Fill the bar history from bars that closed before trading starts, oldest first."""
        market = self._markets[underlying]
        for bar in bars:
            self.apply_bar(bar)
            market.history.roll(bar.close)

    def rehearse(self, bar_end_ns: int, session: Session) -> None:
        """Compute what a decision needs and drop it, so that no compiler runs while trading."""
        self._refresh(bar_end_ns)
        self._observe(bar_end_ns, session)
        self.broker.rehearse()

    def close_bar(self, now_ns: int, session: Session) -> Observed:
        """Close the bar that ends at `now_ns`; rewards are 0 for the first one."""
        self._refresh(now_ns)
        account, marks = self.broker.account, self.marks()
        rewards = np.zeros(len(self.symbols), dtype=np.float32)
        for u, symbol in enumerate(self.symbols):
            market = self._markets[symbol]
            market.history.roll(self.spot(symbol))
            profit = account.contribution(symbol, marks)
            if not np.isnan(market.profit):
                change = (profit - market.profit) / self._rules.initial_capital
                rewards[u] = change * self._rules.reward_scale
            market.profit = profit
        self.broker.on_bar(self._held_quotes(), now_ns, equity=account.equity(marks))
        self._observe(now_ns, session)
        return Observed(self._observations.copy(), self._mask.copy(), rewards)

    def trade(self, now_ns: int, actions: Sequence[int]) -> list[Outcome]:
        """Send the orders of one action per underlying, in the order of `symbols`."""
        return [
            self._act(now_ns, symbol, int(action), bool(self._mask[u, action]))
            for u, (symbol, action) in enumerate(zip(self.symbols, actions, strict=True))
        ]

    def close_session(self, now_ns: int, session: Session, reward: float) -> None:
        """End the session: settle what has expired in cash at the price of the underlying.

        Without a price the position stays, trading halts with that reason, and the next session's
        end tries again. `reward` is what the last decisions earned.
        """
        prices: dict[str, float] = {}
        marks = self.marks()
        expiring: list[str] = []
        unpriced: list[str] = []
        for symbol in self.symbols:
            prices[symbol] = self._markets[symbol].chain.spot
            for held in self.held_symbols(symbol):
                contract = parse_symbol(held)
                if self._calendar.expiry_ns(contract.expiry) > now_ns:
                    continue
                if np.isnan(prices[symbol]):
                    unpriced.append(held)
                    continue
                expiring.append(held)
                marks[held] = settlement_price(contract, prices[symbol])
        self.broker.close_session(
            session.date.isoformat(),
            self.broker.account.equity(marks),
            now_ns,
            reward=reward,
            expiring=expiring,
            underlying_prices=prices,
        )
        if unpriced:
            reason = f"no closing price to settle {', '.join(unpriced)}"
            self.broker.set_trading_state(TradingState.HALTED, reason, now_ns)

    def equity(self) -> float:
        """Cash plus the mark value of every position, USD."""
        return self.broker.account.equity(self.marks())

    def marks(self) -> dict[str, float]:
        """Mark of every held contract, USD a share."""
        marks: dict[str, float] = {}
        for symbol in self.broker.account.positions:
            chain, i = self._contracts[symbol]
            marks[symbol] = float(chain.columns.mark[i])
        return marks

    def greeks(self, underlying: str) -> dict[str, float]:
        """Delta (shares), gamma, vega (USD per volatility point), theta (USD a day) held."""
        totals = {"delta": 0.0, "gamma": 0.0, "vega": 0.0, "theta": 0.0}
        for symbol in self.held_symbols(underlying):
            chain, i = self._contracts[symbol]
            columns = chain.columns
            shares = self.broker.account.positions[symbol].quantity * self._rules.multiplier
            if np.isnan(columns.delta[i]):
                continue
            totals["delta"] += shares * float(columns.delta[i])
            totals["gamma"] += shares * float(columns.gamma[i])
            totals["vega"] += shares * float(columns.vega[i]) / 100.0
            totals["theta"] += shares * float(columns.theta[i]) / 365.0
        return totals

    def market_state(self, now_ns: int) -> dict[str, dict[str, float]]:
        """Spot, at-the-money volatilities and tradable share of each chain, for people."""
        state = {}
        for symbol in self.symbols:
            chain = self._markets[symbol].chain
            state[symbol] = {
                "spot": chain.spot,
                "contracts": float(len(chain)),
                "tradable_share": tradable_share(
                    chain.columns, now_ns, self._rules.max_quote_age_ns
                ),
            }
        return state

    def _refresh(self, now_ns: int) -> None:
        """Bring what the quotes imply up to `now_ns`, in every chain."""
        for market in self._markets.values():
            market.chain.refresh(now_ns, self._rules.rate, self._rules.max_quote_age_ns)

    def _held_quotes(self) -> dict[str, QuoteView]:
        held = self.broker.account.positions
        return {symbol: _quote(*self._contracts[symbol]) for symbol in held}

    def _observe(self, now_ns: int, session: Session) -> None:
        account = self.broker.account
        funds = Funds(self.equity(), account.cash, account.reserved, len(account.strategies))
        may_open = account.trading_state is TradingState.ACTIVE
        may_close = account.trading_state is not TradingState.HALTED
        for u, symbol in enumerate(self.symbols):
            market = self._markets[symbol]
            columns = market.chain.columns
            position = self._position(symbol)
            find_buckets(columns, now_ns, market.bucket_group)
            build_menu(
                columns,
                now_ns,
                session.close_ns,
                self._rules,
                self._fees,
                funds,
                position,
                may_open,
                may_close,
                market.bucket_group,
                market.menu,
            )
            observe(
                columns,
                now_ns,
                session.open_ns,
                session.close_ns,
                market.chain.spot,
                market.history.bars(),
                self._rules,
                funds,
                position,
                market.bucket_group,
                self._observations[u],
            )
            self._mask[u] = market.menu.mask

    def _position(self, underlying: str) -> Position:
        legs = np.full(MAX_LEGS, -1, dtype=np.int64)
        ratio = np.zeros(MAX_LEGS, dtype=np.int64)
        strategy = self.broker.account.strategies.get(underlying)
        if strategy is None:
            return Position(legs, ratio, 0, 0.0, 0)
        for k, leg in enumerate(strategy.legs):
            legs[k] = self._contracts[leg.symbol][1]
            ratio[k] = leg.ratio
        return Position(legs, ratio, strategy.units, strategy.net_cash, strategy.opened_ns)

    def _act(self, now_ns: int, underlying: str, action: int, allowed: bool) -> Outcome:
        if not allowed:
            return Outcome(action, masked=True)
        market = self._markets[underlying]
        units = int(market.menu.units[action])
        if units == 0:
            return Outcome(action, masked=False)
        symbols = market.chain.symbols
        legs: list[Leg] = []
        quotes: dict[str, QuoteView] = {}
        for leg in range(MAX_LEGS):
            i = int(market.menu.legs[action, leg])
            if i >= 0:
                legs.append(Leg(symbols[i], int(market.menu.ratio[action, leg])))
                quotes[symbols[i]] = _quote(market.chain, i)
        strategy = self.broker.account.strategies.get(underlying)
        closing = action == CLOSE and strategy is not None
        order = Order(
            order_id=self.broker.next_order_id(),
            ts_ns=now_ns,
            underlying=underlying,
            strategy=strategy.strategy if closing and strategy else ACTIONS[action].name,
            intent=Intent.CLOSE if closing else Intent.OPEN,
            legs=tuple(legs),
            units=units,
        )
        result = self.broker.submit(order, quotes, True, now_ns, self.equity())
        return Outcome(action, masked=False, result=result)


def _quote(chain: Chain, i: int) -> QuoteView:
    columns = chain.columns
    return QuoteView(
        float(columns.bid[i]),
        float(columns.ask[i]),
        float(columns.bid_size[i]),
        float(columns.ask_size[i]),
        int(columns.quote_ns[i]),
    )
