"""Commissions and regulatory fees of an option order.

Sources of the defaults: Options Regulatory Fee, the sum over exchanges as passed on by Interactive
Brokers from 2025-03-03 (0.02815 a contract, both sides); OCC clearing fee, Federal Register
90 FR 10544 (0.025 a contract from 2025-02-14, without the former cap of 55 USD); FINRA Trading
Activity Fee for options, By-Laws Schedule A section 1 (0.00279 a contract sold); SEC Section 31,
sales only, set twice a year (27.80 USD a million until 2025-05-13, then zero).
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class FeeSchedule(NamedTuple):
    """What one order pays, in USD; every rate is >= 0. A NamedTuple so that kernels take it."""

    commission: float = 0.65
    """Broker's commission a contract."""
    exchange_fee: float = 0.0
    """Exchange fee a contract; included in most retail commissions."""
    orf_fee: float = 0.02815
    """Options Regulatory Fee a contract, both sides."""
    occ_fee: float = 0.025
    """Clearing fee of the Options Clearing Corporation a contract, both sides."""
    occ_cap: float = np.inf
    """Most clearing fee one order pays; 55 USD before 2025-02-14."""
    taf_fee: float = 0.00279
    """FINRA Trading Activity Fee a contract sold."""
    sec_rate: float = 0.0
    """SEC Section 31 fee as a fraction of the premium of sales."""


NO_FEES = FeeSchedule(0.0, 0.0, 0.0, 0.0, np.inf, 0.0, 0.0)


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

    `sale_notional` is the premium received for sold legs in USD (price x multiplier x contracts).
    """
    contracts = contracts_bought + contracts_sold
    cents = (
        _cents_up(schedule.commission * contracts)
        + _cents_up(schedule.exchange_fee * contracts)
        + _cents_up(schedule.orf_fee * contracts)
        + _cents_up(min(schedule.occ_fee * contracts, schedule.occ_cap))
        + _cents_up(schedule.taf_fee * contracts_sold)
        + _cents_up(schedule.sec_rate * sale_notional)
    )
    return float(cents / 100.0)
