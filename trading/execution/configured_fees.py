"""The fees that the settings tell, as the kernels take them."""

import numpy as np

from trading.config import ExecutionSettings
from trading.execution.fees import FeeSchedule


def configured_fees(execution: ExecutionSettings) -> FeeSchedule:
    """Return what one order pays by these settings, USD; a schedule of plug-ins left aside."""
    return FeeSchedule(
        commission=execution.commission,
        exchange_fee=execution.exchange_fee,
        orf_fee=execution.orf_fee,
        occ_fee=execution.occ_fee,
        occ_cap=np.inf,
        taf_fee=execution.taf_fee,
        sec_rate=execution.sec_fee_per_million / 1e6,
        stock_commission=execution.stock_commission,
        stock_taf_fee=execution.stock_taf_fee,
        stock_taf_cap=execution.stock_taf_cap,
    )
