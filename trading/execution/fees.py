"""Commissions and regulatory fees of an order.

Sources of the defaults, as in force in 2026: Options Regulatory Fee, the sum over exchanges as
passed on by Interactive Brokers from 2025-03-03 (0.02815 a contract, both sides); OCC clearing
fee, Federal Register 90 FR 10544 (0.025 a contract from 2025-02-14, without the former cap of 55
USD); FINRA Trading Activity Fee, By-Laws Schedule A section 1 as amended by SR-FINRA-2024-019
(from 2026-01-01 0.00329 an option contract sold, 0.000195 a share sold and at most 9.79 a trade;
0.00279, 0.000166 and 8.30 before); SEC Section 31, sales of options and stock alike, release
34-104909, 91 FR 10643 (20.60 USD a million from 2026-04-04; zero from 2025-05-14 until then).
Exercise and assignment are free, as at most brokers.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class FeeSchedule(NamedTuple):
    """What one order pays, in USD; every rate is >= 0. A NamedTuple so that kernels take it."""

    commission: float
    """Broker's commission a contract."""
    exchange_fee: float
    """Exchange fee a contract; included in most retail commissions."""
    orf_fee: float
    """Options Regulatory Fee a contract, both sides."""
    occ_fee: float
    """Clearing fee of the Options Clearing Corporation a contract, both sides."""
    occ_cap: float
    """Most clearing fee one order pays; 55 USD before 2025-02-14."""
    taf_fee: float
    """FINRA Trading Activity Fee a contract sold."""
    sec_rate: float
    """SEC Section 31 fee as a fraction of the proceeds of sales, options and stock."""
    stock_commission: float
    """Broker's commission a share."""
    stock_taf_fee: float
    """FINRA Trading Activity Fee a share sold."""
    stock_taf_cap: float
    """Most Trading Activity Fee that the shares of one order pay."""


NO_FEES = FeeSchedule(0.0, 0.0, 0.0, 0.0, np.inf, 0.0, 0.0, 0.0, 0.0, np.inf)


@njit(cache=True)
def _cents_up(usd: float) -> float:
    # The allowance keeps 3 x 0.65 = 1.9500000000000002 from costing a cent more than 1.95;
    # adding zero turns -0.0 into 0.0.
    return float(np.ceil(usd * 100.0 - 1e-6) + 0.0)


@njit(cache=True)
def order_fees(
    schedule: FeeSchedule,
    contracts_bought: int,
    contracts_sold: int,
    sale_notional: float,
    shares_bought: float = 0.0,
    shares_sold: float = 0.0,
    stock_sale_notional: float = 0.0,
) -> float:
    """Fees of one order in USD, each kind rounded up to the cent; NaN in, NaN out.

    Parameters
    ----------
    contracts_bought, contracts_sold : int
        Option contracts.
    sale_notional : float
        Premium received for sold options in USD (price x multiplier x contracts).
    shares_bought, shares_sold : float
        Shares, not round lots.
    stock_sale_notional : float
        Proceeds of sold shares in USD.
    """
    contracts = contracts_bought + contracts_sold
    cents = (
        _cents_up(schedule.commission * contracts)
        + _cents_up(schedule.exchange_fee * contracts)
        + _cents_up(schedule.orf_fee * contracts)
        + _cents_up(min(schedule.occ_fee * contracts, schedule.occ_cap))
        + _cents_up(schedule.taf_fee * contracts_sold)
        + _cents_up(schedule.stock_commission * (shares_bought + shares_sold))
        + _cents_up(min(schedule.stock_taf_fee * shares_sold, schedule.stock_taf_cap))
        + _cents_up(schedule.sec_rate * (sale_notional + stock_sale_notional))
    )
    return float(cents / 100.0)
