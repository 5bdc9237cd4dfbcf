"""How one position ends, in numbers: shared by the account's books and by batched training."""

from numba import njit

from trading.execution.money import round_usd

EXERCISE_THRESHOLD = 0.01
"""USD a share in the money from which the OCC exercises an expiring option (OCC Rule 805)."""


@njit(cache=True)
def exercised(right: int, strike: float, value: float) -> float:
    """Intrinsic value where a contract's hundredth delivers `value`, 0 where nobody exercises.

    USD a share; `right` is +1 for a call and -1 for a put.
    """
    intrinsic = round_usd(max(0.0, right * (value - strike)))
    return float(intrinsic if intrinsic >= EXERCISE_THRESHOLD else 0.0)


@njit(cache=True)
def contracts_delivered(
    quantity: int, right: int, price: float, shares: float, each: float, in_cash: bool
) -> int:
    """Signed contracts of `quantity` that turn into stock, where `shares` of it are held so far.

    Parameters
    ----------
    price : what a contract is worth when it ends, see `exercised`
    each : shares that one contract delivers
    in_cash : the contracts deliver no stock
    """
    if in_cash or price == 0.0:
        return 0
    if quantity < 0:
        return quantity
    offset = int(-shares * right / each)
    return min(quantity, max(offset, 0))


@njit(cache=True)
def cash_at_end(
    quantity: int, contracts: int, right: int, price: float, multiplier: float, aggregate: float
) -> float:
    """Change of cash when `quantity` ends, of which `contracts` are delivered, USD.

    The others are paid their worth; `aggregate` changes hands for each that is delivered, USD.
    """
    paid = (quantity - contracts) * multiplier * price
    # Adding zero turns -0.0 into 0.0.
    return float(round_usd(paid - contracts * right * aggregate) + 0.0)


@njit(cache=True)
def dividend_is_worth_it(spot: float, strike: float, dividend: float, time_value: float) -> bool:
    """Return whether who holds a call takes the stock for the dividend.

    An unknown time value is none.

    All in USD a share.
    """
    worth_keeping = time_value >= dividend
    return spot > strike and not worth_keeping
