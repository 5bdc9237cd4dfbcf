"""Ray's handles of the application's parts, as types: what is called from afar, and with what.

Ray makes these objects; here stands what the driver may ask of each. `tests/app/test_handles.py`
holds each against the class that runs in the actor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from trading.config.settings import CredentialSettings
    from trading.learning.champion.store import AccountChampion
    from trading.live.actor import Progress
    from trading.live.endpoint import Endpoint
    from trading.live.metrics import LearnerFigures
    from trading.live.trader import Fragment, LearnerReply

Parameters = ParamSpec("Parameters")
Result_co = TypeVar("Result_co", covariant=True)


class ResultReference(Generic[Result_co]):
    """An answer that is not there yet: what `ray.get` takes."""


class RemoteMethod(Protocol[Parameters, Result_co]):
    """A method of an actor."""

    def remote(
        self, *args: Parameters.args, **named: Parameters.kwargs
    ) -> ResultReference[Result_co]:
        """Ask, and do not wait."""


class PingedActor(Protocol):
    """Any actor that says that it lives."""

    ping: RemoteMethod[[], object]


class LiveMarketHandle(PingedActor, Protocol):
    """Of `trading.live.actor.LiveMarket`."""

    unlock: RemoteMethod[[CredentialSettings, str], None]
    progress: RemoteMethod[[], Progress]
    next_fragment: RemoteMethod[[float], Fragment | None]
    account_champion: RemoteMethod[[], AccountChampion | None]
    deliver: RemoteMethod[[LearnerReply, LearnerFigures, dict[str, Any]], None]
    learner_fault: RemoteMethod[[str], None]
    stop: RemoteMethod[[], Progress]


class MarketServerHandle(PingedActor, Protocol):
    """Of `trading.live.market_server.MarketServerHost`."""

    start: RemoteMethod[[Endpoint | None], Endpoint]
    begin: RemoteMethod[[], None]
    wait_finished: RemoteMethod[[], None]
    stop: RemoteMethod[[], None]


class FeedHandle(Protocol):
    """Of `trading.app.cluster_feed.RayFeedActor`."""

    where: RemoteMethod[[str, CredentialSettings | None, int], tuple[str, str]]
    let_go: RemoteMethod[[str], bool]
    close: RemoteMethod[[], None]


class LearnerHandle(PingedActor, Protocol):
    """Of `trading.app.shared_learner.SharedLearner`."""

    hold: RemoteMethod[[str, dict[str, Any]], bool]
    let_go: RemoteMethod[[str], bool]
    close: RemoteMethod[[], None]
