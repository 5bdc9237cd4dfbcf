"""What the agent sees: one fixed-length float32 vector per underlying and decision.

The market's part comes first, written by `trading.envs.market_features`; the account's part
follows, written by `trading.envs.account_view`. `FEATURES` names the entries in order.
"""

from trading.envs.market_features import MARKET_FEATURES, Feature

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


def feature_table() -> str:
    """Return the observation as a Markdown table, for `docs/observation.md`."""
    rows = [f"| {k} | `{f.name}` | {f.meaning} |" for k, f in enumerate(FEATURES)]
    return "\n".join(["| index | name | meaning |", "|---|---|---|", *rows]) + "\n"
