"""Features of a user's own: what they are given, and where their numbers go.

They are of the market, alike for every account. Each is one compiled function of a closed bar,
which runs after the kernels that fill a snapshot: live, in training and while a history is written.
Its number stands behind those of the snapshot, and right behind `FEATURES` in an observation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.features import FEATURE_COUNT
from trading.envs.market_features import F32, MARKET_FEATURE_COUNT, Bars, Feature, put
from trading.envs.market_snapshots import MarketSnapshots
from trading.market.chain import F64, I64, ChainColumns


class MarketBar(NamedTuple):
    """What is known of one underlying when a bar closes, for a feature of one's own.

    NaN is what is not known. Contracts are sorted by expiry, then strike. Those that are only held
    and never opened (adjusted ones, index options that settle at the opening) stand last, behind
    any expiry, and their `iv` is NaN always.
    """

    now_ns: int
    """When the bar closed, UTC ns."""
    open_ns: int
    """When its session opened, and likewise closes."""
    close_ns: int
    max_age_ns: int
    """A quote that is older is neither traded nor read."""
    spot: float
    """Last price of the underlying, USD."""
    high: F64
    """[n], USD: of the closed bars, oldest first; at most 64, none at the start of a history."""
    low: F64
    close: F64
    strike: F64
    """[C], USD: of the listed contracts, and likewise the rest."""
    expiry_ns: I64
    right: NDArray[np.int8]
    """1 call, -1 put."""
    bid: F64
    """USD a share; 0 when nobody bids, and likewise `ask`."""
    ask: F64
    bid_size: F64
    """Contracts."""
    ask_size: F64
    quote_ns: I64
    """Exchange time of the quote; 0 before the first."""
    iv: F64
    """Implied volatility, a year, and the greeks that follow from it, of one share."""
    delta: F64
    gamma: F64
    vega: F64
    theta: F64
    mark: F64
    """USD a share: what the contract is worth in the books."""


class OwnFeatures(Protocol):
    """Features of a user's own, in their order."""

    @property
    def features(self) -> Sequence[Feature]:
        """Their names and meanings."""
        ...

    @property
    def digests(self) -> Sequence[str]:
        """Of their code."""
        ...

    @property
    def functions(self) -> Sequence[Any]:
        """Compiled functions of a `MarketBar` that return a float."""
        ...

    def failed(self, number: int, error: Exception) -> Exception:
        """Return the error to raise when one of them fails."""
        ...


def own_count(own: OwnFeatures | None) -> int:
    """How many numbers they add to an observation."""
    return 0 if own is None else len(own.features)


def own_in(snapshots: MarketSnapshots) -> int:
    """How many numbers of a user's own these snapshots have."""
    return int(snapshots.features.shape[1]) - MARKET_FEATURE_COUNT


def copy_own(snapshots: MarketSnapshots, snapshot_of: I64, which: I64, observations: F32) -> None:
    """Show accounts `which` the numbers of a user's own that their snapshots have."""
    shown = snapshots.features[snapshot_of[which], MARKET_FEATURE_COUNT:]
    observations[which, FEATURE_COUNT : FEATURE_COUNT + shown.shape[1]] = shown


def show_own(
    own: OwnFeatures,
    chain: ChainColumns,
    snapshots: MarketSnapshots,
    k: int,
    bars: Bars,
    max_age_ns: int,
) -> None:
    """Add the numbers of a user's own to snapshot `k`, which `fill_snapshot` has filled.

    Raises
    ------
    PluginError
        One of them fails.
    """
    for number, function in enumerate(own.functions):
        try:
            show_feature(function, chain, snapshots, k, bars, max_age_ns, number)
        except Exception as error:
            raise own.failed(number, error) from error


@njit(error_model="numpy")
def market_bar(
    chain: ChainColumns, snapshots: MarketSnapshots, k: int, bars: Bars, max_age_ns: int
) -> MarketBar:
    """Return what is known of the market of snapshot `k`."""
    n = bars.filled
    return MarketBar(
        snapshots.now_ns[k],
        snapshots.open_ns[k],
        snapshots.close_ns[k],
        max_age_ns,
        snapshots.spot[k],
        bars.high[:n],
        bars.low[:n],
        bars.close[:n],
        chain.strike,
        chain.expiry_ns,
        chain.right,
        chain.bid,
        chain.ask,
        chain.bid_size,
        chain.ask_size,
        chain.quote_ns,
        chain.iv,
        chain.delta,
        chain.gamma,
        chain.vega,
        chain.theta,
        chain.mark,
    )


# Compiled anew for each function, in every process: nothing of it is kept on disk.
@njit(error_model="numpy")
def show_feature(
    function: Any,
    chain: ChainColumns,
    snapshots: MarketSnapshots,
    k: int,
    bars: Bars,
    max_age_ns: int,
    number: int,
) -> None:
    """Write what one function makes of snapshot `k`; clipped, and 0 where that is not known."""
    bar = market_bar(chain, snapshots, k, bars, max_age_ns)
    put(snapshots.features, k, MARKET_FEATURE_COUNT + number, function(bar))
