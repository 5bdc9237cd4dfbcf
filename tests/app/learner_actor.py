"""The actor of the learner that strategies share, looked at from outside."""

import os
from functools import partial
from typing import Any

import ray

from tests import waits
from trading.app.shared_address import SharedLearnerAddress

until = partial(waits.until, within_s=waits.START_S, poll_s=0.2)
"""For what an actor does: it may have to start first."""


def actor_of(address: SharedLearnerAddress) -> Any:
    """The actor of that name; None where there is none."""
    try:
        return ray.get_actor(address.name, namespace=address.namespace)
    except ValueError:
        return None


def process_of(address: SharedLearnerAddress) -> int | None:
    """Its process; None while there is none."""
    try:
        actor = actor_of(address)
        return actor and int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
    except ray.exceptions.RayActorError:
        return None
