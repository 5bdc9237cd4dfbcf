import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trading.learning.champion.gate import CHECKS
from trading.live.metrics import (
    AccountFigures,
    FeedFigures,
    LearnerFigures,
    ProcessFigures,
    TradingMetrics,
    UnderlyingFigures,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: TradingMetrics) -> Samples:
    return {
        (sample.name.removeprefix("trading_bot_"), tuple(sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def plain(metrics: TradingMetrics) -> dict[str, float]:
    return {name: value for (name, labels), value in samples(metrics).items() if not labels}


def types(metrics: TradingMetrics) -> dict[str, str]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {family.name.removeprefix("trading_bot_"): family.type for family in families}


def test_every_name_is_there_before_anything_happened() -> None:
    names = {name for name in types(TradingMetrics()) if not name.startswith("process_")}
    assert names - {"action_latency_seconds_created"} == {
        "trades",
        "portfolio_value",
        "win_rate",
        "steps",
        "reward_total",
        "action_latency_seconds",
        "cash",
        "open_positions",
        "suspended_underlyings",
        "unexplained_underlyings",
        "pending_settlements",
        "fees",
        "trading_state",
        "underlying_pnl_usd",
        "underlying_open_positions",
        "underlying_delta_usd",
        "underlying_gamma_usd",
        "underlying_vega_usd",
        "underlying_theta_usd",
        "restarts",
        "feed_events",
        "feed_connected",
        "feed_reconnects",
        "feed_dropped_frames",
        "feed_quote_age_seconds",
        "learner_updates",
        "learner_samples",
        "learner_policy_loss",
        "learner_value_loss",
        "learner_entropy",
        "learner_kl",
        "learner_explained_variance",
        "weights_version",
        "champion",
        "champion_version",
        "promotions",
        "refusals",
        "refusals_in_a_row",
        "rollbacks",
        "challenger_version",
        "learner_refused_fragments",
        "learner_lost_fragments",
        "learner_restarts",
        "learner_missing_samples",
        "judgement_seconds",
        "challenger_kl",
        "rehearsal_return",
        "learner_clip_fraction",
        "learner_grad_norm",
        "initial_capital",
        "day_start_equity",
        "peak_equity",
        "max_daily_loss_ratio",
        "max_drawdown_ratio",
        "realised_pnl",
        "buying_power",
        "orders",
        "rejections",
        "closed_trades",
        "winning_trades",
        "delta_usd",
        "gamma_usd",
        "vega_usd",
        "theta_usd",
        "feed_silence_seconds",
        "feed_late_events",
        "feed_refused",
        "clock_offset_seconds",
        "clock_steps",
        "late_bars",
        "feed_tradable_ratio",
        "market_time_seconds",
        "market_open",
        "learner_update_seconds",
        "learner_update_frequency",
        "learner_backlog",
        "learner_dropped_fragments",
        "learner_rehearsed_samples",
        "ready",
        "disk_free_bytes",
        "disk_size_bytes",
        "feed_subscriptions",
        "not_ready",
        "rest_rows_left_out",
    }


def test_totals_are_counters_and_the_reward_is_a_gauge() -> None:
    kinds = types(TradingMetrics())
    counters = {name for name, kind in kinds.items() if kind == "counter"}
    counters = {name for name in counters if not name.startswith("process_")}
    assert counters == {
        "trades",
        "steps",
        "fees",
        "restarts",
        "feed_events",
        "feed_reconnects",
        "feed_dropped_frames",
        "learner_updates",
        "learner_samples",
        "promotions",
        "refusals",
        "rollbacks",
        "learner_refused_fragments",
        "learner_lost_fragments",
        "learner_restarts",
        "learner_missing_samples",
        "orders",
        "rejections",
        "closed_trades",
        "winning_trades",
        "feed_late_events",
        "feed_refused",
        "clock_steps",
        "late_bars",
        "learner_dropped_fragments",
        "learner_rehearsed_samples",
        "rest_rows_left_out",
    }
    assert kinds["reward_total"] == "gauge"
    assert kinds["action_latency_seconds"] == "histogram"


def test_the_account_is_shown_as_it_was_given() -> None:
    metrics = TradingMetrics()
    figures = AccountFigures(
        trades=3,
        portfolio_value=100_250.5,
        win_rate=0.5,
        decisions=40,
        reward=-1.25,
        cash=90_000.0,
        open_positions=2,
        fees=12.34,
        restarts=1,
    )
    metrics.update_account(figures)
    shown = plain(metrics)
    assert shown["trades_total"] == 3
    assert shown["portfolio_value"] == 100_250.5
    assert shown["win_rate"] == 50.0, "in percent"
    assert shown["steps_total"] == 40
    assert shown["reward_total"] == -1.25
    assert shown["cash"] == 90_000.0
    assert shown["open_positions"] == 2
    assert shown["fees_total"] == 12.34
    assert shown["restarts_total"] == 1


def test_underlyings_are_a_label() -> None:
    metrics = TradingMetrics()
    held = {"SPY": UnderlyingFigures(12.5, delta=300.0, is_open=True), "QQQ": UnderlyingFigures()}
    metrics.update_account(AccountFigures(underlyings=held))
    shown = samples(metrics)
    assert shown["underlying_pnl_usd", (("underlying", "SPY"),)] == 12.5
    assert shown["underlying_delta_usd", (("underlying", "SPY"),)] == 300.0
    assert shown["underlying_open_positions", (("underlying", "QQQ"),)] == 0
    assert math.isnan(shown["underlying_pnl_usd", (("underlying", "QQQ"),)])


def test_totals_survive_a_restart() -> None:
    before, after = TradingMetrics(), TradingMetrics()
    for metrics in (before, after):
        metrics.update_account(AccountFigures(trades=7, decisions=100))
    assert plain(after)["trades_total"] == plain(before)["trades_total"] == 7


@pytest.mark.parametrize("state", ["ACTIVE", "REDUCING", "HALTED"])
def test_exactly_one_trading_state_is_on(state: str) -> None:
    metrics = TradingMetrics()
    metrics.update_account(AccountFigures(trading_state=state))
    states = {
        labels[0][1]: on for (name, labels), on in samples(metrics).items() if "state" in name
    }
    assert states == {name: float(name == state) for name in ("ACTIVE", "REDUCING", "HALTED")}


def test_refusals_are_told_by_check_and_every_check_is_there() -> None:
    metrics = TradingMetrics()
    metrics.update_account(
        AccountFigures(champion=3, champion_version=40, promotions=2, refusals={"kl": 4})
    )
    shown = samples(metrics)
    refusals = {
        labels[0][1]: count for (name, labels), count in shown.items() if name == "refusals_total"
    }
    assert refusals == {**dict.fromkeys(CHECKS, 0.0), "kl": 4.0}
    assert (shown["champion", ()], shown["champion_version", ()]) == (3.0, 40.0)
    assert shown["promotions_total", ()] == 2.0


def test_the_feed_shows_each_connection_and_its_totals() -> None:
    metrics = TradingMetrics()
    metrics.update_feed(
        FeedFigures(
            events=10**9,
            reconnects=2,
            dropped_frames=1,
            quote_age_s=0.25,
            connected={"options": True, "stocks": False},
            subscriptions={("stocks", "refused"): 2},
            rows_left_out=4,
        )
    )
    shown = samples(metrics)
    assert shown["feed_subscriptions", (("answer", "refused"), ("asset_class", "stocks"))] == 2.0
    assert shown["rest_rows_left_out_total", ()] == 4
    assert shown["feed_connected", (("asset_class", "options"),)] == 1.0
    assert shown["feed_connected", (("asset_class", "stocks"),)] == 0.0
    assert shown["feed_events_total", ()] == 10**9
    assert shown["feed_reconnects_total", ()] == 2
    assert shown["feed_dropped_frames_total", ()] == 1
    assert shown["feed_quote_age_seconds", ()] == 0.25


def test_the_learner_is_unknown_before_its_first_update() -> None:
    metrics = TradingMetrics()
    assert math.isnan(plain(metrics)["learner_policy_loss"])
    metrics.update_learner(LearnerFigures(updates=1, samples=128, policy_loss=0.5, kl=0.01))
    shown = plain(metrics)
    assert shown["learner_updates_total"] == 1
    assert shown["learner_samples_total"] == 128
    assert shown["learner_policy_loss"] == 0.5
    assert shown["learner_kl"] == 0.01


def test_action_latency_is_a_histogram_in_seconds() -> None:
    metrics = TradingMetrics()
    for seconds in (0.0002, 0.004, 2.0):
        metrics.observe_action_latency(seconds)
    shown = samples(metrics)
    assert shown["action_latency_seconds_count", ()] == 3
    assert shown["action_latency_seconds_sum", ()] == pytest.approx(2.0042)
    assert shown["action_latency_seconds_bucket", (("le", "0.005"),)] == 2
    assert shown["action_latency_seconds_bucket", (("le", "+Inf"),)] == 3


def test_two_accounts_in_one_process_do_not_mix() -> None:
    first, second = TradingMetrics(), TradingMetrics()
    first.update_account(AccountFigures(trades=1))
    assert plain(second)["trades_total"] == 0


def test_each_disk_is_shown_by_what_is_kept_there() -> None:
    metrics = TradingMetrics()
    metrics.update_process(
        ProcessFigures(ready=True, disk_free_bytes={"state": 10}, disk_size_bytes={"state": 40})
    )
    shown = samples(metrics)
    assert shown["ready", ()] == 1
    assert shown["disk_free_bytes", (("folder", "state"),)] == 10
    assert shown["disk_size_bytes", (("folder", "state"),)] == 40


def test_the_process_tells_its_own_use() -> None:
    assert plain(TradingMetrics())["process_resident_memory_bytes"] > 0
