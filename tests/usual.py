"""Internal types as the default settings make them, but for what a test changes.

They have no defaults of their own, so there is nothing that could differ from the settings.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trading.config import Settings
from trading.data.massive.client import StreamSettings
from trading.execution import FeeSchedule, RiskLimits
from trading.feed import FeedOptions
from trading.feed.running import feed_options as configured_feed
from trading.learning.champion import GateLimits
from trading.learning.clstm import CLSTMConfig
from trading.learning.ppo_update import PPOSettings
from trading.live import assembly

GAMMA = 0.99


def risk_limits(**changed: Any) -> RiskLimits:
    return replace(assembly.risk_limits(Settings()), **changed)


def fee_schedule(**changed: Any) -> FeeSchedule:
    return assembly.fee_schedule(Settings())._replace(**changed)


def gate_limits(**changed: Any) -> GateLimits:
    return replace(assembly.gate_limits(Settings()), **changed)


def clstm_config(observation_size: int, action_count: int, **changed: Any) -> CLSTMConfig:
    return CLSTMConfig(observation_size, action_count, **(Settings().model.model_dump() | changed))


def ppo_settings(**changed: Any) -> PPOSettings:
    return replace(PPOSettings.of(Settings().learning, GAMMA), **changed)


def stream_settings(url: str, key: str, **changed: Any) -> StreamSettings:
    usual = {"silence_timeout_s": Settings().data.massive.silence_timeout_s}
    return StreamSettings(url, key, **(usual | changed))


def feed_options(
    websocket_url: str,
    rest_url: str,
    keys: Sequence[str],
    reader_keys: Sequence[str],
    **changed: Any,
) -> FeedOptions:
    """On any free port."""
    addresses = {"websocket_url": websocket_url, "rest_url": rest_url}
    told = {"massive_api_key": "a-key"}
    usual = configured_feed(Settings.model_validate({"feed": addresses, "credentials": told}))
    return replace(usual, **({"keys": keys, "reader_keys": reader_keys, "port": 0} | changed))
