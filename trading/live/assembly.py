"""Builds the parts of the live market from the settings."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trading.config import Settings

# What each function builds is imported there: a command that asks for a path loads no network.
if TYPE_CHECKING:
    from trading.data.admission import Bands
    from trading.data.massive.client.rest import RestClient
    from trading.data.massive.client.stream import StreamSettings
    from trading.data.recording import Recorder
    from trading.envs.market_features import Feature
    from trading.envs.rules import TradingRules
    from trading.envs.structures import Structure
    from trading.execution.broker import PaperBroker
    from trading.execution.carry import CarryRates
    from trading.execution.commands import Command
    from trading.execution.fees import FeeSchedule
    from trading.execution.journal import Journal
    from trading.execution.owner import Effect
    from trading.execution.portfolio import Account
    from trading.execution.risk import RiskLimits
    from trading.learning.champion.gate import GateLimits
    from trading.learning.champion.owner_choice import OwnerChoice
    from trading.learning.champion.store import AccountChampion, ChampionStore
    from trading.learning.clstm import CLSTMConfig
    from trading.learning.policy import Policy
    from trading.live.close_finder import CloseFinder
    from trading.live.endpoint import Endpoint
    from trading.live.trader import TraderSettings
    from trading.market.calendar import ExchangeCalendar
    from trading.market.corporate_actions import CorporateAction
    from trading.market.dividends import Dividend
    from trading.plugins.own_features import RegisteredFeatures
    from trading.plugins.own_reward import OwnReward
    from trading.plugins.rule_based import RuleBased

CONTRACT_MULTIPLIER = 100.0
LOCKSTEP_TIMEOUT_S = 120.0
_SECOND_NS = 1_000_000_000


def journal_path(settings: Settings) -> Path:
    """Return the journal of the settings' account."""
    return settings.paths.state_dir / f"journal-{settings.account.id}.sqlite"


def recordings_path(settings: Settings) -> Path:
    """Return the folder of recorded live days."""
    return settings.paths.state_dir / "recordings"


def recorder(settings: Settings) -> "Recorder | None":
    """Return a recorder of live days, or None where the settings ask for none.

    Raises
    ------
    DataError
        Its folder cannot be written.
    """
    from trading.data.recording import Recorder
    from trading.envs.market_features import HISTORY_BARS

    if not settings.data.record:
        return None
    return Recorder(
        recordings_path(settings),
        history_bars=HISTORY_BARS,
        waits=settings.data.source != "massive",
    )


def dividends(settings: Settings) -> "list[Dividend] | None":
    """Dividends of the file that the settings name, or None where the vendor is to be asked.

    Raises
    ------
    DataError
        The file is missing or wrong.
    """
    from trading.data.dividend_file import read_dividends

    file = settings.data.dividends
    return None if file is None else read_dividends(file)


def corporate_actions(settings: Settings) -> "tuple[list[CorporateAction], list[Dividend]]":
    """Actions, and special dividends, of the file that the settings name; nothing without one.

    Raises
    ------
    DataError
        The file is missing or wrong.
    """
    from trading.data.corporate_action_file import read_corporate_actions

    file = settings.data.corporate_actions
    return ([], []) if file is None else read_corporate_actions(file)


class BetweenSessions(NamedTuple):
    """What falls between sessions, as far as files tell it."""

    dividends: "list[Dividend]"
    actions: "list[CorporateAction]"


def between_sessions(settings: Settings) -> BetweenSessions:
    """Dividends and corporate actions of the files that the settings name, for histories.

    Raises
    ------
    DataError
        A file is missing or wrong.
    """
    from trading.live.markets import with_named

    actions, special = corporate_actions(settings)
    return BetweenSessions(with_named(dividends(settings) or [], special), actions)


def close_finder(
    settings: Settings, rest: "RestClient", calendar: "ExchangeCalendar"
) -> "CloseFinder | None":
    """Who is asked for official closes; None for a recorded day, which has its own.

    A simulated exchange is asked for those of sessions in which a stock did not trade.
    """
    from trading.data.recorded_closes import RecordedCloses
    from trading.live.close_finder import CloseFinder

    if settings.data.source == "replay":
        return None
    if settings.data.source == "simulation":
        return CloseFinder(rest, calendar, 0.0)
    folder = settings.paths.state_dir
    recorded = RecordedCloses(recordings_path(settings), folder / "catalog", calendar)
    return CloseFinder(rest, calendar, settings.data.official_close_delay_s, recorded)


def halt_indicators(settings: Settings) -> frozenset[int]:
    """Return what says that a stock is halted.

    The vendor's indicators, or those of our own server.
    """
    from trading.data.massive.encoding import HALT_INDICATOR

    if settings.data.source == "massive":
        return frozenset(settings.data.massive.halt_indicators)
    return frozenset({HALT_INDICATOR})


def takes_price_limits(settings: Settings) -> bool:
    """Whether price limits and halts of stocks are subscribed to."""
    data = settings.data
    return data.massive.luld if data.source == "massive" else data.source == "simulation"


def fee_schedule(settings: Settings) -> "FeeSchedule":
    """Fees as configured.

    Raises
    ------
    PluginError
        `execution.fee_schedule` names none that a plug-in registers, or that one is no schedule.
    """
    from trading.execution.configured_fees import configured_fees

    execution = settings.execution
    fees = configured_fees(execution)
    if execution.fee_schedule is None:
        return fees
    from trading.plugins.discovery import load_plugins
    from trading.plugins.plugin_registry import chosen, fees_of

    schedules, name = load_plugins(settings).fee_schedules, execution.fee_schedule
    return fees_of(chosen(schedules, "fee schedule", name, "execution.fee_schedule"), fees)


def carry_rates(settings: Settings) -> "CarryRates":
    """Interest and borrowing fees as configured."""
    from trading.execution.carry import CarryRates

    execution = settings.execution
    return CarryRates(execution.cash_interest_pct / 100.0, execution.borrow_fee_pct / 100.0)


def paper_broker(settings: Settings, journal: "Journal", account: "Account") -> "PaperBroker":
    """Return the broker of an account that trades."""
    from trading.execution.broker import PaperBroker
    from trading.execution.matching import FillStyle

    rules = rules_by_limits(settings)
    return PaperBroker(
        journal,
        account,
        fee_schedule(settings),
        risk_limits(settings),
        rules.slippage,
        rules.max_quote_age_ns,
        carry_rates(settings),
        FillStyle(rules.fill_style),
        rules.working_steps,
    )


def risk_limits(settings: Settings) -> "RiskLimits":
    """Limits that the broker enforces."""
    from trading.execution.risk import RiskLimits

    risk = settings.risk
    return RiskLimits(
        max_positions=settings.account.max_positions,
        max_contracts_per_order=risk.max_contracts_per_order,
        max_order_notional=risk.max_order_notional,
        max_daily_loss_pct=risk.max_daily_loss_pct,
        max_orders_per_minute=risk.max_orders_per_minute,
        max_delta_pct=risk.max_delta_pct,
        max_gamma_pct=risk.max_gamma_pct,
        max_vega_pct=risk.max_vega_pct,
        max_drawdown_pct=risk.max_drawdown_pct,
        max_champion_drawdown_pct=settings.learning.gate.max_drawdown_pct,
        min_short_equity=risk.min_short_equity,
        allow_naked_shorts=risk.allow_naked_shorts,
    )


def gate_limits(settings: Settings) -> "GateLimits":
    """Return what a challenger is held to."""
    from trading.learning.champion.gate import GateLimits

    gate = settings.learning.gate
    return GateLimits(gate.confidence, gate.margin_pct, gate.max_kl)


def trading_rules(settings: Settings) -> "TradingRules":
    """Rules that the agent's actions are built by, live and in training.

    Raises
    ------
    PluginError
        As of `own_structures`.
    ConfigError
        As of `rules_by_limits`.
    """
    return rules_by_limits(settings)._replace(structures=own_structures(settings))


def rules_by_limits(settings: Settings) -> "TradingRules":
    """Return the numbers of `trading_rules`, without structures of a user's own.

    Raises
    ------
    ConfigError
        Orders are to work in accounts of several underlyings, which training has not.
    """
    from trading.envs.rewards import RiskMeasure
    from trading.envs.rules import TradingRules
    from trading.execution.matching import FillStyle

    _check_working_orders(settings)
    risk = settings.risk
    return TradingRules(
        initial_capital=settings.account.initial_capital,
        max_positions=settings.account.max_positions,
        risk_fraction=risk.risk_per_trade_pct / 100.0,
        secured_fraction=risk.secured_pct / 100.0,
        max_contracts=risk.max_contracts_per_order,
        max_notional=risk.max_order_notional,
        max_delta=risk.max_delta_pct / 100.0,
        max_gamma=risk.max_gamma_pct / 100.0,
        max_vega=risk.max_vega_pct / 100.0,
        max_daily_loss=risk.max_daily_loss_pct / 100.0,
        max_drawdown=risk.max_drawdown_pct / 100.0,
        min_short_equity=risk.min_short_equity,
        max_quote_age_ns=round(settings.execution.max_quote_age_s * _SECOND_NS),
        slippage=settings.execution.slippage,
        stock_half_spread=settings.execution.stock_half_spread_bps / 10_000.0,
        multiplier=CONTRACT_MULTIPLIER,
        rate=settings.env.risk_free_rate_pct / 100.0,
        no_open_ns=settings.env.no_open_minutes_before_close * 60 * _SECOND_NS,
        reward_scale=settings.env.reward_scale,
        fill_style=int(FillStyle[settings.execution.style.upper()]),
        risk_aversion=settings.env.risk_aversion,
        risk_measure=int(RiskMeasure[settings.env.risk_measure.upper()]),
        size_levels=settings.env.size_levels,
        underlyings_per_account=settings.env.underlyings_per_account,
        working_steps=settings.execution.working_steps,
    )


def bands(settings: Settings) -> "Bands":
    """How far prices may lie from what their chain implies."""
    from trading.data.admission import Bands

    data = settings.data
    return Bands(data.band_spreads, data.band_pct, data.max_jump_pct)


def model_config(settings: Settings) -> "CLSTMConfig":
    """Shape of the network.

    Raises
    ------
    PluginError
        As of `own_structures`.
    """
    from trading.envs.catalogue import action_count
    from trading.envs.structures import all_actions
    from trading.learning.clstm import CLSTMConfig

    whole = len(all_actions(own_structures(settings)))
    return CLSTMConfig(
        observation_size=observation_size(settings),
        action_count=action_count(settings.env.size_levels, whole),
        **settings.model.model_dump(),
    )


def observation_size(settings: Settings) -> int:
    """Return how many numbers the policy sees: the features, a user's own, what stands last."""
    from trading.envs.features import FEATURE_COUNT

    return FEATURE_COUNT + len(settings.env.features) + len(_shown_last(settings))


def _shown_last(settings: Settings) -> "tuple[Feature, ...]":
    from trading.envs.features import shown_last

    works = settings.execution.style == "working"
    return shown_last(settings.env.underlyings_per_account, works)


def champion_store(settings: Settings, noted: Mapping[str, Any]) -> "ChampionStore":
    """Return the champions of the settings' account; those that are written note `noted`."""
    from trading.learning.champion.store import ChampionStore

    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    return ChampionStore(folder, keep, noted=noted, account_id=settings.account.id)


def owner_choice(settings: Settings, noted: Mapping[str, Any] | None = None) -> "OwnerChoice":
    """Return what an owner may name among the champions and checkpoints.

    Raises
    ------
    OwnerRefused
        A rule-based trader trades the account.
    """
    from trading.errors import OwnerRefused
    from trading.learning.champion.owner_choice import OwnerChoice

    if settings.policy.trader is not None:
        raise OwnerRefused(
            f"the rule-based trader {settings.policy.trader} trades this account "
            "(policy.trader), and there is no champion to change"
        )
    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    noted = champion_notes(settings) if noted is None else noted
    return OwnerChoice(folder, keep, noted, settings.account.id)


def champion_change(
    settings: Settings,
    command: "Command",
    account: "AccountChampion",
    noted: Mapping[str, Any] | None = None,
) -> "Effect":
    """Return what a `promote` or `rollback` does to an account.

    Parameters
    ----------
    noted
        The `champion_notes` of who trades now; None: those of the files as they are now.

    Raises
    ------
    TradingError
        It cannot be done; the message says why.
    """
    from trading.execution.events import OwnerCommand

    choice = owner_choice(settings, noted)
    config = model_config(settings)
    if command.command is OwnerCommand.PROMOTE:
        return choice.promote(command.which, config, account)
    return choice.roll_back(config, account)


def stream_settings(settings: Settings, endpoint: "Endpoint") -> "StreamSettings":
    """How the stream client behaves: a replay ends with its connections and loses no frame.

    Nor does a simulation that is as fast as its client reads.
    """
    from trading.data.massive.client.stream import StreamSettings

    replay = settings.data.source == "replay"
    waits = settings.data.source == "simulation" and settings.data.simulation.speed == 0.0
    return StreamSettings(
        url=endpoint.websocket_url,
        api_key=endpoint.api_key,
        block_when_full=replay or waits,
        stop_on_close=replay,
        asks_time=settings.data.source != "massive",
        outlasts_refusal=settings.data.source == "massive",
        tells_need=settings.data.source == "massive" and settings.data.massive.feed_url is not None,
        silence_timeout_s=None if replay else settings.data.massive.silence_timeout_s,
    )


def trader_settings(settings: Settings) -> "TraderSettings":
    """How the trading loop runs."""
    from trading.live.trader import TraderSettings

    # In lockstep trading waits for the learner by design, and a run must be repeatable.
    minds_nothing = settings.safety.unattended == "nothing" or settings.lockstep
    return TraderSettings(
        bar_ns=settings.data.bar_seconds * _SECOND_NS,
        grace_ns=settings.data.bar_grace_ms * 1_000_000,
        wall_clock=settings.data.source == "massive",
        max_ahead_ns=settings.data.max_ahead_ms * 1_000_000,
        max_decision_lag_ns=round(settings.data.max_decision_lag_s * _SECOND_NS),
        accept_journal_ahead=settings.data.accept_journal_ahead,
        lockstep=settings.lockstep,
        lockstep_timeout_s=LOCKSTEP_TIMEOUT_S,
        learning=settings.learns,
        update_frequency=settings.learning.update_frequency,
        sessions_per_episode=settings.env.sessions_per_episode,
        patience_s=math.inf if minds_nothing else settings.safety.patience_s,
        flatten_unattended=settings.safety.unattended == "flatten",
        fragment_file=settings.paths.state_dir / f"fragment-{settings.account.id}.bin",
    )


def chosen_plugins(settings: Settings) -> dict[str, str]:
    """Return the plug-ins that the settings name by key, each with a digest of its code.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, or none registers what is named.
    """
    trader, fees = settings.policy.trader, settings.execution.fee_schedule
    told = {}
    if trader is not None or fees is not None:
        from trading.plugins.discovery import load_plugins
        from trading.plugins.plugin_registry import chosen

        registry = load_plugins(settings)
        for known, kind, name, key in (
            (registry.traders, "trader", trader, "policy.trader"),
            (registry.fee_schedules, "fee schedule", fees, "execution.fee_schedule"),
        ):
            if name is not None:
                told[key] = f"{name} ({chosen(known, kind, name, key).digest})"
    for key, own in (
        ("env.reward", own_reward(settings)),
        ("env.features", own_features(settings)),
    ):
        if own is not None:
            told[key] = str(own)
    if settings.env.structures:
        from trading.envs.structures import noted_structures

        told["env.structures"] = noted_structures(own_structures(settings))
    return told


def check_begun_with(begun_with: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Whether plug-ins are those that a run began with, both as of `chosen_plugins`.

    Raises
    ------
    PluginError
        One was changed while the run went on; the message names it.
    """
    from trading.errors import PluginError

    changed = [
        f"{key}: {now.get(key, 'none')} is not {begun_with.get(key, 'none')}, which this run began "
        "with"
        for key in sorted({*begun_with, *now})
        if begun_with.get(key) != now.get(key)
    ]
    if changed:
        raise PluginError(
            f"{'; '.join(changed)}: a file of plugins was changed while it traded; put it back, or "
            "stop and start again"
        )


def check_plugins(settings: Settings) -> None:
    """Find out before anything starts that a plug-in is missing or wrong.

    Raises
    ------
    PluginError
        It is.
    """
    if settings.plugins:
        from trading.plugins.discovery import load_plugins

        load_plugins(settings)
    fee_schedule(settings)
    own_structures(settings)
    for own in (own_features(settings), own_reward(settings)):
        if own is not None:
            own.prepare()
    if settings.policy.trader is not None:
        rule_based(settings, settings.seed)


def _check_working_orders(settings: Settings) -> None:
    from trading.errors import ConfigError

    rows = settings.env.underlyings_per_account
    if settings.execution.style == "working" and rows > 1:
        raise ConfigError(
            [
                "execution.style: working is for accounts of training that trade one underlying, "
                f"and env.underlyings_per_account is {rows}: set that to 1, or take another style"
            ]
        )


def check_before_trading(settings: Settings) -> None:
    """Find out before anything starts that an account cannot trade, or could not learn.

    Raises
    ------
    PluginError
        As of `check_plugins`.
    ConfigError
        The gate has too few sessions, or orders are to work in accounts of several underlyings.
    """
    from trading.learning.champion.gate_sessions import check_enough

    _check_working_orders(settings)
    check_plugins(settings)
    check_enough(settings)


def own_reward(settings: Settings) -> "OwnReward | None":
    """Return the reward of a plug-in that the settings name; None: that of the settings.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, or none registers it.
    """
    if settings.env.reward is None:
        return None
    from trading.plugins.own_reward import registered_reward

    return registered_reward(settings, observation_size(settings))


def own_features(settings: Settings) -> "RegisteredFeatures | None":
    """Return the features of plug-ins that the settings name; None where they name none.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, none registers one of them, or it has the name of another one.
    """
    if not settings.env.features:
        return None
    from trading.plugins.own_features import registered_features

    return registered_features(settings)


def own_structures(settings: Settings) -> "tuple[Structure, ...]":
    """Return the option structures of plug-ins that the settings name, in their order.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, or none registers one of them.
    """
    if not settings.env.structures:
        return ()
    from trading.plugins.own_structures import registered_structures

    return registered_structures(settings)


def catalogue_of(settings: Settings) -> dict[str, dict[str, str]]:
    """Return the actions and features that these settings learn and trade with.

    See `trading.learning.noted_catalogue`.

    Raises
    ------
    PluginError
        As of `own_features` and `own_structures`.
    """
    from trading.learning.noted_catalogue import noted_catalogue

    return noted_catalogue(own_features(settings), _shown_last(settings), own_structures(settings))


def champion_notes(settings: Settings) -> dict[str, Any]:
    """Return what champions that the owner promotes note, beside what is known of them.

    Raises
    ------
    PluginError
        As of `own_features` and `own_structures`.
    """
    env = settings.env
    if not (env.features or env.structures or _shown_last(settings)):
        return {}
    from trading.learning.noted_catalogue import CATALOGUE

    return {CATALOGUE: catalogue_of(settings)}


def rule_based(settings: Settings, seed: int, name: str | None = None) -> "RuleBased":
    """Return the rule-based trader of a name, or the one that the settings choose.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, none registers it, or it makes nothing that can act.
    """
    from trading.plugins.discovery import load_plugins
    from trading.plugins.plugin_registry import chosen
    from trading.plugins.rule_based import RuleBased

    key = "policy.trader" if name is None else "--trader"
    wanted = name or settings.policy.trader or ""
    plugin = chosen(load_plugins(settings).traders, "trader", wanted, key)
    return RuleBased(plugin, seed, own_structures(settings), settings.env.features)


def policy_of(settings: Settings, model: Path, acting: str | float | None = None) -> "Policy":
    """Return the policy of a checkpoint; it acts as it trades, or as `acting` says.

    Raises
    ------
    LearningError
        There is none, it cannot be read, or it is of a network of another shape, or of other
        actions or features.
    """
    import torch

    from trading.learning.checkpoints import load_module_weights
    from trading.learning.noted_catalogue import check_catalogue
    from trading.learning.noted_settings import check_options
    from trading.learning.policy import Policy

    # As in training and in trading: matrices this small are slower on several threads.
    torch.set_num_threads(1)
    check_catalogue(model, now=catalogue_of(settings))
    check_options(model)
    acting = settings.policy.act if acting is None else acting
    policy = Policy(model_config(settings), settings.seed, acting=acting)
    policy.load_weights(load_module_weights(model))
    return policy


def policy_seed(seed: int, journal_events: int) -> int:
    """Seed of the policy's choices: repeatable, and fresh after every restart."""
    import numpy as np

    return int(np.random.SeedSequence([seed, journal_events]).generate_state(1)[0])
