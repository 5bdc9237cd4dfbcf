"""One typed, validated settings tree, read from YAML, environment variables and `--set`.

Examples
--------
>>> from trading.config import load_settings
>>> load_settings(overrides=["account.max_positions=3"], environ={}).account.max_positions
3
"""

from trading.config.fields import SHARED_LEARNER
from trading.config.loading import absolute_paths, environment_names, load_settings
from trading.config.market import MarketSettings
from trading.config.settings import (
    AccountSettings,
    CredentialSettings,
    DataSettings,
    EnvironmentSettings,
    ExecutionSettings,
    LearningSettings,
    MarketServerSettings,
    MassiveSettings,
    ModelSettings,
    PathSettings,
    RaySettings,
    ReplaySettings,
    RiskSettings,
    ServingSettings,
    Settings,
    SimulationSettings,
)
from trading.config.strategies import is_of_the_learner, shared_learner_checkpoints

__all__ = [
    "SHARED_LEARNER",
    "AccountSettings",
    "CredentialSettings",
    "DataSettings",
    "EnvironmentSettings",
    "ExecutionSettings",
    "LearningSettings",
    "MarketServerSettings",
    "MarketSettings",
    "MassiveSettings",
    "ModelSettings",
    "PathSettings",
    "RaySettings",
    "ReplaySettings",
    "RiskSettings",
    "ServingSettings",
    "Settings",
    "SimulationSettings",
    "absolute_paths",
    "environment_names",
    "is_of_the_learner",
    "load_settings",
    "shared_learner_checkpoints",
]
