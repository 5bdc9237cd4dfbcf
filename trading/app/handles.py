"""Ray's handles of the application's parts, as types: what is called from afar, and with what.

Ray makes these objects; here stands what the driver may ask of each. `tests/app/test_handles.py`
holds each against the class that runs in the actor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from trading.config.settings import CredentialSettings
    from trading.learning.champion.store import AccountChampion, Champion
    from trading.live.actor import Progress
    from trading.live.endpoint import Endpoint
    from trading.live.metrics import LearnerFigures
    from trading.live.trader import Fragment, LearnerReply

Asked = ParamSpec("Asked")
Told_co = TypeVar("Told_co", covariant=True)


class Reference(Generic[Told_co]):
    """An answer that is not there yet: what `ray.get` takes."""


class Call(Protocol[Asked, Told_co]):
    """A method of an actor."""

    def remote(self, *args: Asked.args, **named: Asked.kwargs) -> Reference[Told_co]:
        """Ask, and do not wait."""


class Answering(Protocol):
    """Any actor that says that it lives."""

    ping: Call[[], object]


class LiveMarketHandle(Answering, Protocol):
    """Of `trading.live.actor.LiveMarket`."""

    unlock: Call[[CredentialSettings, str], None]
    progress: Call[[], Progress]
    next_fragment: Call[[float], Fragment | None]
    account_champion: Call[[], AccountChampion | None]
    deliver: Call[[LearnerReply, LearnerFigures, dict[str, Any]], None]
    learner_fault: Call[[str], None]
    stop: Call[[], Progress]


class MarketServerHandle(Answering, Protocol):
    """Of `trading.live.market_server.MarketServerHost`."""

    start: Call[[Endpoint | None], Endpoint]
    begin: Call[[], None]
    wait_finished: Call[[], None]
    stop: Call[[], None]


class RegistryHandle(Answering, Protocol):
    """Of `trading.learning.champion.registry.WeightRegistry`."""

    champion: Call[[int], Champion | None]
