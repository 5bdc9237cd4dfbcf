"""What the agent sees: one fixed-length float32 vector per underlying and decision.

The market's part comes first, see `trading.envs.market_features`; the account's part follows.
`FEATURES` names the entries in order.
"""

import numpy as np
from numba import njit

from trading.envs.board import Board, position_value
from trading.envs.catalogue import MAX_LEGS
from trading.envs.frames import DAY_NS, Frames
from trading.envs.market_features import F32, MARKET_FEATURE_COUNT, MARKET_FEATURES, Feature, put
from trading.envs.rules import NO_LEG, STOCK, Funds, Position, TradingRules

ACCOUNT_FEATURES: tuple[Feature, ...] = (
    Feature("equity", "equity over initial capital less 1, times 10"),
    Feature("buying_power", "buying power over equity"),
    Feature("reserved", "margin reserved over equity"),
    Feature("slots_used", "open strategies over the most allowed"),
    Feature("position_open", "1 if a strategy is open on this underlying"),
    Feature("position_delta", "position delta in USD per 1 % of spot, in 1 % of equity"),
    Feature("position_gamma", "change of that delta per 1 % of spot, in 1 % of equity"),
    Feature("position_vega", "position vega in USD per volatility point, in 0.1 % of equity"),
    Feature("position_theta", "position theta in USD a day, in 0.1 % of equity"),
    Feature("position_value", "mark value of the position, in 5 % of equity"),
    Feature("position_pnl", "profit of the open strategy after fees so far, in 1 % of equity"),
    Feature("position_days", "days to expiry of the position, in 30 days"),
    Feature("position_age", "time the position has been held, in days"),
)
FEATURES = (*MARKET_FEATURES, *ACCOUNT_FEATURES)
FEATURE_COUNT = len(FEATURES)


@njit(cache=True, error_model="numpy")
def _observe_position(
    board: Board,
    frames: Frames,
    f: int,
    rules: TradingRules,
    equity: float,
    position: Position,
    out: F32,
    k: int,
) -> None:
    if position.units <= 0:
        out[k:] = 0.0
        return
    now_ns, spot = frames.now_ns[f], frames.spot[f]
    net_delta = net_gamma = net_vega = net_theta = 0.0
    expiry_ns = 0
    for leg in range(MAX_LEGS):
        i = position.legs[leg]
        if i == NO_LEG:
            break
        shares = position.ratio[leg] * position.units * rules.multiplier
        if i == STOCK:
            net_delta += shares
            continue
        expiry_ns = board.expiry_ns[board.listed_at[f] + i]
        q = board.quoted_at[f] + i
        if not np.isnan(board.delta[q]):
            net_delta += shares * board.delta[q]
            net_gamma += shares * board.gamma[q]
            net_vega += shares * board.vega[q]
            net_theta += shares * board.theta[q]
    value = position_value(board, frames, f, rules.multiplier, position)
    days = (expiry_ns - now_ns) / DAY_NS if expiry_ns else np.nan
    k = put(out, k, 1.0)
    k = put(out, k, net_delta * spot / equity)
    k = put(out, k, net_gamma * spot * spot * 0.01 / equity)
    k = put(out, k, net_vega * 0.01 / (0.001 * equity))
    k = put(out, k, net_theta / 365.0 / (0.001 * equity))
    k = put(out, k, value / (0.05 * equity))
    k = put(out, k, (value + position.net_cash) / (0.01 * equity))
    k = put(out, k, days / 30.0)
    put(out, k, (now_ns - position.opened_ns) / DAY_NS)


@njit(cache=True, error_model="numpy")
def observe(
    board: Board,
    frames: Frames,
    f: int,
    rules: TradingRules,
    funds: Funds,
    position: Position,
    out: F32,
) -> None:
    """Write the observation of one account in the market of frame `f` to out[FEATURE_COUNT]."""
    out[:MARKET_FEATURE_COUNT] = frames.features[f]
    equity = max(funds.equity, 1.0)
    k = put(out, MARKET_FEATURE_COUNT, (funds.equity / rules.initial_capital - 1.0) * 10.0)
    k = put(out, k, (funds.cash - funds.reserved) / equity)
    k = put(out, k, funds.reserved / equity)
    k = put(out, k, funds.open_positions / rules.max_positions)
    _observe_position(board, frames, f, rules, equity, position, out, k)


def feature_table() -> str:
    """The observation as a Markdown table, for `docs/observation.md`."""
    rows = [f"| {k} | `{f.name}` | {f.meaning} |" for k, f in enumerate(FEATURES)]
    return "\n".join(["| index | name | meaning |", "|---|---|---|", *rows]) + "\n"
