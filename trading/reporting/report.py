"""The report of an account: every figure once, for the terminal, for JSON and for the page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from trading.evaluation import return_statistics
from trading.execution.money import round_usd
from trading.reporting import performance
from trading.reporting.ledger import PARTS, WORKED, Day, Ledger, Note, Period, Trade, new_york
from trading.reporting.stress import Stress

NOT_ASKED = "no running application was asked for the marks of the open position"


@dataclass(frozen=True)
class Group:
    """What trades of one kind came to; amounts are USD after fees."""

    name: str
    trades: int
    won: int
    profit: float
    fees: float
    best: float
    worst: float

    @property
    def won_share(self) -> float:
        """Fraction of the trades with a profit."""
        return self.won / self.trades if self.trades else 0.0


@dataclass(frozen=True)
class Report:
    """One account over one period."""

    account: str
    first: str
    last: str
    """Dates of the period's first and last session; empty where there is none."""
    summary: dict[str, float | int | None]
    """Figures by name, see `_summary`; None where one has no value yet."""
    days: list[Day]
    trades: list[Trade]
    open: list[Trade]
    by_underlying: list[Group]
    by_strategy: list[Group]
    by_day: list[Group]
    by_hour: list[Group]
    by_part: dict[str, float]
    """What closed trades earned by what, USD by `PARTS`; of those of which it is known."""
    months: dict[int, dict[int, float]]
    drawdowns: list[performance.Drawdown]
    rolling_sharpe: list[float]
    rolling_volatility: list[float]
    learner: list[Note]
    moves: list[Note]
    late: list[Note]
    rejections: dict[str, int]
    worked: dict[str, int]
    """How many orders worked from mid, and what they came to, by `ledger.WORKED`."""
    equity: list[tuple[int, float]]
    stress: Stress | None
    no_stress: str
    """Why `stress` is None; empty where it is not."""

    @property
    def returns(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of the sessions, fractions, the unfinished last one included."""
        return np.array([day.gain for day in self.days])

    def plain(self) -> dict[str, Any]:
        """Return the report as JSON values; times are ISO 8601 in UTC, amounts USD."""
        dates = [day.date for day in self.days]
        return {
            "account": self.account,
            "first": self.first,
            "last": self.last,
            "summary": self.summary,
            "days": [{**asdict(day), "return": day.gain} for day in self.days],
            "trades": [_plain_trade(trade) for trade in self.trades],
            "open": [_plain_trade(trade) for trade in self.open],
            **{
                name: [asdict(group) for group in getattr(self, name)]
                for name in ("by_underlying", "by_strategy", "by_day", "by_hour")
            },
            "by_part": self.by_part,
            "months": self.months,
            "drawdowns": [
                {
                    "begins": dates[fall.begins],
                    "lowest": dates[fall.lowest],
                    "recovers": None if fall.recovers is None else dates[fall.recovers],
                    "depth": fall.depth,
                }
                for fall in self.drawdowns
            ],
            "learner": [_plain_note(note) for note in self.learner],
            "cash_moved": [_plain_note(note) for note in self.moves],
            "late_cash": [_plain_note(note) for note in self.late],
            "rejections": self.rejections,
            "worked": self.worked,
            "stress": None if self.stress is None else asdict(self.stress),
            "no_stress": self.no_stress,
        }


def make_report(ledger: Ledger, period: Period, stress: Stress | str = NOT_ASKED) -> Report:
    """Put the figures of a period together.

    Parameters
    ----------
    stress
        Of the open position, or why it is not known.
    """
    returns = np.array([day.gain for day in period.days])
    dates = [day.date for day in period.days]
    sharpe, spread = performance.rolling(returns)
    return Report(
        account=ledger.account.account_id,
        first=dates[0] if dates else "",
        last=dates[-1] if dates else "",
        summary=_summary(period, returns),
        days=period.days,
        trades=period.trades,
        open=period.open,
        by_underlying=_grouped(period.trades, lambda trade: trade.underlying),
        by_strategy=_grouped(period.trades, lambda trade: trade.strategy),
        by_day=_in_order(period.trades, lambda trade: str(new_york(trade.closed_ns).date())),
        by_hour=_in_order(period.trades, lambda trade: f"{new_york(trade.closed_ns):%H}:00"),
        by_part=_by_part(period.trades),
        months=performance.by_month(dates, returns),
        drawdowns=performance.drawdowns(returns) if len(returns) else [],
        rolling_sharpe=sharpe.tolist(),
        rolling_volatility=spread.tolist(),
        learner=period.learner,
        moves=period.moves,
        late=period.late,
        rejections=dict(ledger.rejections.most_common()),
        worked={name: ledger.worked[name] for name in WORKED},
        equity=period.equity,
        stress=None if isinstance(stress, str) else stress,
        no_stress=stress if isinstance(stress, str) else "",
    )


def _by_part(trades: Iterable[Trade]) -> dict[str, float]:
    known = [trade.parts for trade in trades if trade.parts is not None]
    if not known:
        return {}
    return {name: round_usd(sum(parts[name] for parts in known)) for name in PARTS}


def _summary(period: Period, returns: return_statistics.Series) -> dict[str, float | int | None]:
    """Figures by name; shares and returns are fractions, amounts USD, ratios annualised."""
    days, trades = period.days, period.trades
    gains = np.array([trade.profit for trade in trades])
    late = sum(note.amount for note in period.late)
    growth = float(performance.compounded(returns)[-1]) - 1.0 if len(returns) else None
    deepest = performance.drawdowns(returns, 1) if len(returns) else []
    lowest = deepest[0].depth if deepest else 0.0
    told = returns if len(returns) >= performance.FEWEST else returns[:0]
    yearly = (
        return_statistics.SESSIONS_PER_YEAR * float(np.mean(returns))
        if len(returns) > 1
        else np.nan
    )
    figures: dict[str, float | int | None] = {
        "sessions": len(days),
        "equity": days[-1].equity if days else None,
        "cash_moved": round_usd(sum(day.moved for day in days)),
        "profit": round_usd(sum(day.profit for day in days)),
        "return": growth,
        "realised": round_usd(float(gains.sum()) + late),
        "fees": round_usd(sum(day.fees for day in days)),
        "interest": round_usd(sum(day.interest for day in days)),
        "volatility": performance.volatility(told),
        "sharpe": return_statistics.sharpe(told),
        "sortino": return_statistics.sortino(told),
        "calmar": yearly / lowest if lowest and len(told) else np.nan,
        "max_drawdown": lowest,
        "value_at_risk_95": performance.value_at_risk(returns),
        "expected_shortfall_95": performance.expected_shortfall(returns),
        "best_day": float(returns.max()) if len(returns) else None,
        "worst_day": float(returns.min()) if len(returns) else None,
        "trades": len(trades),
        "won": int((gains > 0.0).sum()),
        "win_rate": float((gains > 0.0).mean()) if trades else None,
        "profit_factor": return_statistics.profit_factor(gains),
        "mean_gain": float(gains[gains > 0.0].mean()) if (gains > 0.0).any() else None,
        "mean_loss": float(gains[gains < 0.0].mean()) if (gains < 0.0).any() else None,
        "mean_hours_held": _mean_hours(trades),
        "fills": sum(day.fills for day in days),
        "open": len(period.open),
        "mean_margin_used": _mean_margin(days),
    }
    return {name: _known(value) for name, value in figures.items()}


def _known(value: float | int | None) -> float | int | None:
    if value is None or isinstance(value, int):
        return value
    return float(value) if np.isfinite(value) else None


def _mean_hours(trades: Sequence[Trade]) -> float | None:
    held = [(trade.closed_ns - trade.opened_ns) / 3.6e12 for trade in trades]
    return float(np.mean(held)) if held else None


def _mean_margin(days: Sequence[Day]) -> float | None:
    used = [day.margin_used / day.equity for day in days if day.equity > 0.0]
    return float(np.mean(used)) if used else None


def _grouped(trades: Iterable[Trade], key: Callable[[Trade], str]) -> list[Group]:
    """Sort the most profitable first."""
    return sorted(_in_order(trades, key), key=lambda group: -group.profit)


def _in_order(trades: Iterable[Trade], key: Callable[[Trade], str]) -> list[Group]:
    kinds: dict[str, list[Trade]] = {}
    for trade in trades:
        kinds.setdefault(key(trade), []).append(trade)
    return [
        Group(
            name,
            len(kind),
            sum(trade.profit > 0.0 for trade in kind),
            round_usd(sum(trade.profit for trade in kind)),
            round_usd(sum(trade.fees for trade in kind)),
            max(trade.profit for trade in kind),
            min(trade.profit for trade in kind),
        )
        for name, kind in sorted(kinds.items())
    ]


def _iso(ts_ns: int) -> str | None:
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat() if ts_ns else None


def _plain_trade(trade: Trade) -> dict[str, Any]:
    plain = asdict(trade) | {"parts": trade.parts}
    del plain["earned"]
    plain["opened"], plain["closed"] = _iso(plain.pop("opened_ns")), _iso(plain.pop("closed_ns"))
    for leg in plain["legs"]:
        leg["time"] = _iso(leg.pop("ts_ns"))
    return plain


def _plain_note(note: Note) -> dict[str, Any]:
    return {"time": _iso(note.ts_ns), "what": note.what, "told": note.told, "amount": note.amount}
