"""What the live market tells about itself, taken on the trading thread after every bar."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from trading.execution.exposure import usd_greeks
from trading.execution.legs import is_stock
from trading.execution.orders import Fill, Intent
from trading.execution.owner import account_status
from trading.execution.portfolio import Account
from trading.execution.risk import MINUTE_NS
from trading.learning.champion.store import AccountChampion
from trading.live.bar_clock import Bar
from trading.live.metrics import AccountFigures, UnderlyingFigures
from trading.live.trader import Trader


class AccountSnapshot(NamedTuple):
    """What other threads may know of the account, as the trading thread last left it."""

    decisions: int
    fills: int
    fees: float
    open_positions: int
    promotions: int
    rollbacks: int
    champion: AccountChampion

    @classmethod
    def of(cls, trader: Trader) -> "AccountSnapshot":
        """Take it, on the trading thread."""
        account = trader.env.broker.account
        return cls(
            account.decisions,
            account.fills,
            account.fees_paid,
            len(account.strategies),
            account.promotions,
            account.rollbacks,
            AccountChampion.of(trader.env.broker.account),
        )


def iso_time(ts_ns: int) -> str | None:
    """ISO 8601 in UTC, None for 0."""
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat() if ts_ns else None


def fill_line(ts_ns: int, fill: Fill, action: str, profit: float | None = None) -> str:
    """One fill for people: time (UTC), underlying, what was done, and what came of it.

    One that closes tells its `profit`, USD after fees; one that opens what was paid or received.
    """
    clock = datetime.fromtimestamp(ts_ns / 1e9, UTC)
    done = f"{clock:%H:%M} {fill.underlying} {action} x{fill.units}"
    if profit is not None:
        return f"{done}  profit {profit:+,.2f} USD"
    cash = fill.premium - fill.fees
    return f"{done}  {'received' if cash > 0.0 else 'paid'} {abs(cash):,.2f} USD"


def fill_lines(trader: Trader) -> tuple[str, ...]:
    """Return the last fills, one line each."""
    return tuple(
        fill_line(ts_ns, fill, action, trader.profits.get(fill.fill_id))
        for ts_ns, fill, action in trader.recent_fills
    )


def account_figures(trader: Trader, restarts: int) -> AccountFigures:
    """Return the account's figures for the metrics."""
    env, account = trader.env, trader.env.broker.account
    exposure, limits = env.exposure(), env.broker.risk.limits
    greeks = {symbol: env.greeks(symbol) for symbol in account.strategies}
    return AccountFigures(
        trades=account.fills,
        portfolio_value=env.equity(),
        win_rate=account.win_rate,
        decisions=account.decisions,
        reward=account.reward_total,
        cash=account.cash,
        open_positions=len(account.strategies),
        suspended=len(account.suspensions),
        unexplained=sum(env.is_unexplained(name) for name in account.suspensions),
        pending_settlements=env.pending_settlements,
        fees=account.fees_paid,
        trading_state=account.trading_state.value.upper(),
        restarts=restarts,
        champion=account.champion,
        champion_version=account.champion_version,
        promotions=account.promotions,
        refusals=account.refusals_by_check,
        refusals_in_a_row=account.refusals_in_a_row,
        rollbacks=account.rollbacks,
        initial_capital=account.paid_in,
        day_start_equity=account.day_start_equity,
        peak_equity=account.peak_equity,
        max_daily_loss=limits.max_daily_loss_pct / 100.0,
        max_drawdown=limits.max_drawdown_pct / 100.0,
        realised_pnl=account.realised_pnl,
        buying_power=account.buying_power,
        orders=account.orders,
        rejections=account.rejections,
        closed_trades=account.closed_trades,
        winning_trades=account.winning_trades,
        delta=exposure.delta,
        gamma=exposure.gamma,
        vega=exposure.vega,
        theta=sum(each["theta"] for each in greeks.values()),
        underlyings=_underlying_figures(trader, greeks),
    )


def _underlying_figures(
    trader: Trader, greeks: Mapping[str, Mapping[str, float]]
) -> dict[str, UnderlyingFigures]:
    """Of every underlying that is traded or ever brought the account anything.

    `greeks` has those of each underlying with a position, as `LiveEnv.greeks` tells them.
    """
    env, account, marks = trader.env, trader.env.broker.account, trader.env.marks()
    found = {}
    for symbol in dict.fromkeys((*env.symbols, *account.net_cash)):
        profit = account.contribution(symbol, marks)
        if symbol not in greeks:
            found[symbol] = UnderlyingFigures(profit)
            continue
        held = greeks[symbol]
        delta, gamma, _ = usd_greeks(held["delta"], held["gamma"], 0.0, env.spot(symbol))
        found[symbol] = UnderlyingFigures(
            profit, delta, gamma, vega=held["vega"], theta=held["theta"], is_open=True
        )
    return found


def unit_of(account: Account, symbol: str) -> str:
    """Return what a position's quantity counts."""
    if not is_stock(symbol):
        return "contracts"
    return "shares" if account.size(symbol) == 1.0 else "round lots"


def describe_account(trader: Trader) -> dict[str, Any]:
    """Return the account, its positions and their greeks as JSON values; money in USD."""
    env, account = trader.env, trader.env.broker.account
    greeks = {symbol: env.greeks(symbol) for symbol in account.strategies}
    total = {
        name: float(np.sum([each[name] for each in greeks.values()]))
        for name in ("delta", "gamma", "vega", "theta")
    }
    return {
        "account": _account_itself(trader),
        "trader": trader.trader or "policy",
        "champion": _champion(account),
        "limits": limits_used(trader),
        "recent_fills": list(fill_lines(trader)),
        "recent_rejections": [
            f"{iso_time(each.ts_ns)} {each.order_id} {each.reason}: {each.detail}"
            for each in trader.recent_rejections
        ],
        "positions": _positions(trader),
        "working_orders": working_orders(trader),
        "greeks": {
            "total": _known(total),
            "by_underlying": {symbol: _known(each) for symbol, each in greeks.items()},
            "not_quoted": env.greeks_not_quoted(),
        },
    }


def _account_itself(trader: Trader) -> dict[str, Any]:
    env, account = trader.env, trader.env.broker.account
    return {
        "id": account.account_id,
        "equity": env.equity(),
        "cash": account.cash,
        "buying_power": account.buying_power,
        "reserved": account.margin_used,
        "initial_capital": account.initial_cash,
        "realised_pnl": account.realised_pnl,
        "fees_paid": account.fees_paid,
        "interest": account.interest,
        "borrow_fees": account.borrow_fees,
        "trades": account.fills,
        "closed_trades": account.closed_trades,
        "win_rate": account.win_rate,
        "decisions": account.decisions,
        "orders": account.orders,
        "rejections": account.rejections,
        "reward_total": account.reward_total,
        "trading_state": account.trading_state.value.upper(),
        "trading_state_reason": account.state_reason,
        "restrictions": account_status(env.broker, env.equity())["restrictions"],
        "to_close": {name: env.unclosed.get(name, "") for name in env.to_close},
        "paid_in": account.paid_in,
        "profit_today": env.equity() - account.day_base,
        "day_start_equity": account.day_start_equity,
        "peak_equity": account.peak_equity,
        "suspended": account.suspended,
        "journal_events": env.broker.journal.last_seq,
        "fingerprint": account.fingerprint(),
    }


def _champion(account: Account) -> dict[str, Any]:
    return {
        "number": account.champion,
        "version": account.champion_version,
        "before": account.champion_before or None,
        "peak_equity": None if account.champion_peak_due else account.champion_peak_equity,
        "promotions": account.promotions,
        "refusals": account.refusals,
        "refusals_by_check": dict(account.refusals_by_check),
        "refusals_in_a_row": account.refusals_in_a_row,
        "rollbacks": account.rollbacks,
    }


def _positions(trader: Trader) -> list[dict[str, Any]]:
    """Return the open strategies, each with its legs and what it made up to the marks."""
    env, account, marks = trader.env, trader.env.broker.account, trader.env.marks()
    positions = []
    for strategy in account.strategies.values():
        legs, worth = [], 0.0
        for leg in strategy.legs:
            held = account.positions.get(leg.symbol)
            if held is None:
                continue
            mark, size = marks[leg.symbol], account.size(leg.symbol)
            worth += held.quantity * mark * size
            legs.append(
                {
                    "symbol": leg.symbol,
                    "quantity": held.quantity,
                    "unit": unit_of(account, leg.symbol),
                    "expires": iso_time(env.expiry_ns(leg.symbol)),
                    "average_price": held.average_price,
                    "mark": mark,
                    "profit": held.quantity * (mark - held.average_price) * size,
                }
            )
        positions.append(
            {
                "underlying": strategy.underlying,
                "strategy": strategy.strategy,
                "units": strategy.units,
                "opened": iso_time(strategy.opened_ns),
                "profit": strategy.net_cash + worth,
                "legs": legs,
            }
        )
    return positions


def _opening(account: Account) -> set[str]:
    """Return the underlyings on which an order waits to open."""
    waiting = account.working_orders.values()
    return {each.order.underlying for each in waiting if each.order.intent is Intent.OPEN}


def working_orders(trader: Trader) -> list[dict[str, Any]]:
    """Return the orders that wait, as JSON values; prices in USD a share, a credit negative."""
    account, steps = trader.env.broker.account, trader.env.broker.working_steps
    return [
        {
            "order_id": waiting.order.order_id,
            "underlying": waiting.order.underlying,
            "strategy": waiting.order.strategy,
            "intent": str(waiting.order.intent),
            "units": waiting.remaining,
            "limit": waiting.order.limit_price,
            "step": waiting.step,
            "steps": steps if waiting.order.leg_limits else 0,
            "placed": iso_time(waiting.order.ts_ns),
            "age_s": max(account.last_ts_ns - waiting.order.ts_ns, 0) / 1e9,
            "reserved": waiting.buying_power_held,
            "legs": [{"symbol": leg.symbol, "ratio": leg.ratio} for leg in waiting.order.legs],
        }
        for waiting in account.working_orders.values()
    ]


def limits_used(trader: Trader) -> dict[str, dict[str, float | None]]:
    """Each limit of the account, and what is used of it, in the limit's own unit."""
    env, account = trader.env, trader.env.broker.account
    limits, equity, exposure = env.broker.risk.limits, env.equity(), env.exposure()
    now_ns = account.last_ts_ns

    def lost_pct(base: float) -> float:
        return max(0.0, 100.0 * (base - equity) / base) if base > 0.0 else float("nan")

    def of_equity_pct(amount: float) -> float:
        return 100.0 * abs(amount) / equity if equity > 0.0 else float("nan")

    used = {
        "max_daily_loss_pct": lost_pct(account.day_start_equity),
        "max_drawdown_pct": lost_pct(account.peak_equity),
        "max_champion_drawdown_pct": lost_pct(account.champion_peak_equity),
        "max_positions": float(len(account.strategies.keys() | _opening(account))),
        "max_orders_per_minute": float(
            sum(now_ns - ts_ns < MINUTE_NS for ts_ns in account.recent_order_ns)
        ),
        "max_delta_pct": of_equity_pct(exposure.delta),
        "max_gamma_pct": of_equity_pct(exposure.gamma),
        "max_vega_pct": of_equity_pct(exposure.vega),
    }
    return {
        name: {"limit": float(getattr(limits, name)), **_known({"used": value})}
        for name, value in used.items()
    }


def _known(figures: dict[str, float]) -> dict[str, float | None]:
    """Figures as JSON has them: nothing where one is not known."""
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def describe_market(trader: Trader, bar: Bar) -> dict[str, Any]:
    """Exchange time, session and chains as JSON values."""
    return {
        "market": {
            "time": iso_time(bar.end_ns),
            "session": str(bar.session.date),
            "session_close": iso_time(bar.session.close_ns),
            "risk_free_rate": trader.env.rate,
            "underlyings": trader.env.market_state(bar.end_ns),
        }
    }
