"""What every test of plug-ins stands on."""

import pytest

from trading.plugins import discovery
from trading.plugins.plugin_registry import REGISTRY


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten with it."""
    monkeypatch.setattr(discovery, "_loaded", {})
    for kind in vars(REGISTRY):
        monkeypatch.setattr(REGISTRY, kind, {})
