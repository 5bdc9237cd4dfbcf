"""What an internal type begins with without settings is what they begin with."""

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel

from trading.config.settings import (
    AccountSettings,
    ExecutionSettings,
    FeedSettings,
    GateSettings,
    LearningSettings,
    MassiveSettings,
    ModelSettings,
    RiskSettings,
)
from trading.data.massive.client import StreamSettings
from trading.execution import FeeSchedule, RiskLimits
from trading.feed import FeedOptions
from trading.learning.champion import GateLimits
from trading.learning.clstm import CLSTMConfig
from trading.learning.ppo_update import PPOSettings

TOLD: list[tuple[type, list[type[BaseModel]], set[str]]] = [
    (RiskLimits, [AccountSettings, RiskSettings], set()),
    (FeeSchedule, [ExecutionSettings], set()),
    (GateLimits, [GateSettings], set()),
    (CLSTMConfig, [ModelSettings], set()),
    # The discount of a day comes of a horizon, see `learning.horizon`.
    (PPOSettings, [LearningSettings], {"gamma"}),
    # A feed of one's own takes any free port.
    (FeedOptions, [FeedSettings, MassiveSettings], {"port"}),
    (StreamSettings, [MassiveSettings], set()),
]
"""Each type, the sections that tell what it has, and what differs on purpose."""


def defaults_of(kind: type) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return {each.name: each.default for each in dataclasses.fields(kind)}
    return dict(kind._field_defaults)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "sections", "apart"), TOLD, ids=lambda each: getattr(each, "__name__", "")
)
def test_an_internal_type_begins_with_the_defaults_of_its_settings(
    kind: type, sections: list[type[BaseModel]], apart: set[str]
) -> None:
    settings = {
        name: field.default for section in sections for name, field in section.model_fields.items()
    }
    own = {
        name: value
        for name, value in defaults_of(kind).items()
        if value is not dataclasses.MISSING and name in settings and name not in apart
    }
    assert own
    assert own == {name: settings[name] for name in own}
