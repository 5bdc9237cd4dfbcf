"""What the agent sees: one fixed-length float32 vector per underlying and decision.

The market's part comes first, written by `trading.envs.market_features`; the account's part
follows, written by `trading.envs.account_view`. `FEATURES` names the entries in order. Features of
a user's own stand behind them. Where accounts trade several underlyings
(`env.underlyings_per_account` above 1) what they hold in the others comes last, `OTHERS_FEATURES`,
written by `trading.envs.shared_accounts`.
"""

from collections.abc import Iterable, Sequence

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
ORDER_FEATURES: tuple[Feature, ...] = (
    Feature("order_opens", "1 if an order to open works on this underlying"),
    Feature("order_closes", "1 if an order to close does"),
    Feature("order_step", "how far its limit is from mid (0) to the touch (1)"),
)
"""What observations end with, behind those of a user's own, where orders work."""

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


def shown_last(underlyings_per_account: int, orders_work: bool) -> tuple[Feature, ...]:
    """Return what an observation ends with, behind features of a user's own.

    Orders work in accounts of training that trade one underlying.
    """
    orders = ORDER_FEATURES if orders_work else ()
    return orders + others_shown(underlyings_per_account)


def feature_table() -> str:
    """Return the observation as a Markdown table, for `docs/observation.md`."""
    rows = [*enumerate(FEATURES)]
    return _table([*rows, *_from_the_end(OTHERS_FEATURES)])


def order_feature_table() -> str:
    """Return what working orders add to it, as a Markdown table."""
    return _table(_from_the_end(ORDER_FEATURES))


def _from_the_end(features: Sequence[Feature]) -> list[tuple[int, Feature]]:
    return [(k - len(features), each) for k, each in enumerate(features)]


def _table(numbered: Iterable[tuple[int, Feature]]) -> str:
    rows = [f"| {k} | `{f.name}` | {f.meaning} |" for k, f in numbered]
    return "\n".join(["| index | name | meaning |", "|---|---|---|", *rows]) + "\n"
