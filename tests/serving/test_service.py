"""The HTTP service of several accounts, which share the Serve of their cluster."""

import threading
from typing import Any

import pytest
from ray.exceptions import ActorAlreadyExistsError

from trading.config import Settings
from trading.serving import service


class Client:
    """Serve's client, of a Serve that listens at an address of its own."""

    class http_config:  # noqa: N801
        host, port = "127.0.0.1", 18_123


def test_a_serve_that_another_account_starts_at_this_moment_is_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def start(**options: Any) -> None:
        asked.append(options)
        if len(asked) < 3:
            raise ActorAlreadyExistsError("Actor with name 'SERVE_CONTROLLER_ACTOR' exists")

    monkeypatch.setattr("ray.serve.start", start)
    monkeypatch.setattr("ray.serve.context._get_global_client", Client)
    monkeypatch.setattr(service, "_PAUSE_S", 0.0)
    assert service._listen(Settings(), threading.Event().is_set) == ("127.0.0.1", 18_123)
    assert len(asked) == 3
