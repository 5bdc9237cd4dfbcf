"""Simulated sessions as a history, so that a walk forward needs no recorded days."""

from pathlib import Path

import numpy as np

from trading.envs.history import HistoryDay, new_history
from trading.envs.own_features import OwnFeatures
from trading.envs.rules import TradingRules
from trading.envs.simulated_markets import SESSION_OPEN_NS, SimulatedMarkets
from trading.execution.fees import FeeSchedule
from trading.market.calendar import ExchangeCalendar
from trading.market.randomisation import DEFAULT_DISTRIBUTION, MarketDistribution

SIMULATED = "SIM"
"""Ticker of simulated underlyings."""


def write_simulated_history(
    folder: Path,
    sessions: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    distribution: MarketDistribution = DEFAULT_DISTRIBUTION,
    features: OwnFeatures | None = None,
) -> list[HistoryDay]:
    """Write whole simulated sessions, each of a market of its own, as a history.

    They are named by sessions of the exchange in a row; the clock inside each is that of every
    simulated session, see `trading.envs.simulated_markets`.

    Raises
    ------
    DataError
        There is no session, or the folder cannot be written.
    """
    rng, calendar = np.random.default_rng(seed), ExchangeCalendar()
    conditions = distribution.initial_conditions
    markets = SimulatedMarkets(
        1, 1, rules, fees, distribution.ranges, rng, conditions, features=features
    )
    day = calendar.date_of(SESSION_OPEN_NS)
    with new_history(folder, rules, fees, features) as writer:
        for _ in range(sessions):
            markets.restart(np.zeros(1, dtype=np.int64))
            writer.add_bar(markets.quotes, markets.snapshots)
            while not markets.advance().any():
                writer.add_bar(markets.quotes, markets.snapshots)
            writer.add_bar(markets.quotes, markets.snapshots)
            writer.end_day(SIMULATED, day.isoformat())
            day = calendar.next_session(day).date
    return writer.days
