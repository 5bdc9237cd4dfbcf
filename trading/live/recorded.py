"""Puts a recorder between the live market and its environment."""

from collections.abc import Iterable
from typing import Any, cast

from trading.data.recording import Recorder
from trading.envs.live_env import LiveEnv, TimeStep
from trading.live.bar_clock import Bar
from trading.live.trader import ReferenceData
from trading.market.bars import StockBar
from trading.market.calendar import Session
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.option_quote import OptionQuote


def recorded_env(env: LiveEnv, recorder: Recorder | None) -> LiveEnv:
    """`env`, with all that it is told written down; without a recorder `env` itself."""
    return env if recorder is None else cast(LiveEnv, _RecordedEnv(env, recorder))


def recorded_markets(markets: ReferenceData, recorder: Recorder | None) -> ReferenceData:
    """`markets`, with the recorder told of each session; without a recorder `markets` itself."""
    return markets if recorder is None else _RecordedMarkets(markets, recorder)


class _RecordedEnv:
    """Passes everything on, and to the recorder what the environment accepted."""

    def __init__(self, env: LiveEnv, recorder: Recorder) -> None:
        self._env = env
        self._recorder = recorder
        self._apply_quote = env.apply_quote
        self._record_quote = recorder.quote

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def set_rate(self, rate: float) -> None:
        self._env.set_rate(rate)
        self._recorder.set_rate(rate)

    def warm_up(self, underlying: str, bars: Iterable[StockBar]) -> None:
        told = list(bars)
        self._env.warm_up(underlying, told)
        self._recorder.warm_up(underlying, told)

    def begin_session(self, session: Session) -> None:
        self._env.begin_session(session)
        for underlying, factor, open_ns in self._env.price_factors:
            self._recorder.convert(underlying, factor, open_ns)

    def list_contracts(self, underlying: str, contracts: Iterable[OptionContract]) -> None:
        told = list(contracts)
        self._env.list_contracts(underlying, told)
        # The environment leaves adjusted contracts out and adds held ones.
        listed = {symbol: parse_symbol(symbol) for symbol in self._env.listed_symbols()}
        listed = {each.symbol: each for each in told if each.symbol in listed} | {
            symbol: each for symbol, each in listed.items() if each.is_on(underlying)
        }
        self._recorder.list_contracts(underlying, list(listed.values()))

    def apply_quote(self, quote: OptionQuote) -> bool:
        accepted = self._apply_quote(quote)
        if accepted:
            self._record_quote(quote)
        return accepted

    def apply_bar(self, bar: StockBar) -> bool:
        accepted = self._env.apply_bar(bar)
        if accepted:
            self._recorder.bar(bar)
        return accepted

    def close_bar(self, now_ns: int, session: Session) -> TimeStep:
        observed = self._env.close_bar(now_ns, session)
        prices = {symbol: self._env.spot(symbol) for symbol in self._env.symbols}
        self._recorder.close_bar(now_ns, prices)
        return observed


class _RecordedMarkets:
    """Tells the recorder which session is opened, then opens it."""

    def __init__(self, markets: ReferenceData, recorder: Recorder) -> None:
        self._markets = markets
        self._recorder = recorder

    def open_session(self, bar: Bar) -> None:
        self._recorder.begin_session(bar.session)
        self._markets.open_session(bar)

    def follow(self, bar: Bar) -> None:
        self._markets.follow(bar)

    def vendor_ns(self) -> int:
        return self._markets.vendor_ns()

    def settle(self, now_ns: int) -> None:
        self._markets.settle(now_ns)
