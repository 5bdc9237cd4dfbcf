"""What the agent sees: one fixed-length float32 vector per underlying and decision.

The market's part comes first, written by `trading.envs.market_features`; the account's part
follows, written by `trading.envs.account_view`. `FEATURES` names the entries in order. Features of
a user's own stand behind them. Where accounts trade several underlyings
(`env.underlyings_per_account` above 1) what they hold in the others comes last, `OTHERS_FEATURES`,
written by `trading.envs.shared_accounts`.
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

OTHERS_FEATURES: tuple[Feature, ...] = (
    Feature("others_open", "strategies open on the other underlyings, over the most allowed"),
    Feature("others_delta", "their delta in USD per 1 % of spot, in 1 % of equity"),
    Feature("others_gamma", "change of that delta per 1 % of spot, in 1 % of equity"),
    Feature("others_vega", "their vega in USD per volatility point, in 0.1 % of equity"),
    Feature("others_margin", "margin that they reserve over equity"),
    Feature("others_pnl", "profit of the open ones after fees so far, in 1 % of equity"),
)
OTHERS_COUNT = len(OTHERS_FEATURES)


def others_shown(underlyings_per_account: int) -> tuple[Feature, ...]:
    """Return what is seen of an account's other underlyings: nothing where it trades one."""
    return OTHERS_FEATURES if underlyings_per_account > 1 else ()


def feature_table() -> str:
    """Return the observation as a Markdown table, for `docs/observation.md`."""
    rows = [f"| {k} | `{f.name}` | {f.meaning} |" for k, f in enumerate(FEATURES)]
    rows += [
        f"| {k - OTHERS_COUNT} | `{f.name}` | {f.meaning} |" for k, f in enumerate(OTHERS_FEATURES)
    ]
    return "\n".join(["| index | name | meaning |", "|---|---|---|", *rows]) + "\n"
