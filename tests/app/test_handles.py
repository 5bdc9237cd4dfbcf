"""What the driver asks of each part is what the part's class has."""

from typing import get_args, get_type_hints

import pytest

from trading.app import handles
from trading.app.cluster_feed import RayFeedActor
from trading.app.shared_learner import SharedLearner
from trading.config.settings import CredentialSettings
from trading.learning.champion.store import AccountChampion
from trading.live.actor import LiveMarket, Progress
from trading.live.endpoint import Endpoint
from trading.live.market_server import MarketServerHost
from trading.live.metrics import LearnerFigures
from trading.live.trader import Fragment, LearnerReply

TYPES = {
    each.__name__: each
    for each in (
        AccountChampion,
        CredentialSettings,
        Endpoint,
        Fragment,
        LearnerFigures,
        LearnerReply,
        Progress,
    )
}


@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        (handles.LiveMarketHandle, LiveMarket),
        (handles.MarketServerHandle, MarketServerHost),
        (handles.FeedHandle, RayFeedActor),
        (handles.LearnerHandle, SharedLearner),
    ],
)
def test_a_handle_has_the_methods_of_its_actor_with_their_types(handle: type, kind: type) -> None:
    calls = get_type_hints(handle, {**vars(handles), **TYPES})
    assert len(calls) > 1
    for name, call in calls.items():
        method = getattr(kind, name)
        own = get_type_hints(method)
        taken, told = get_args(call)
        # Not by the signature: Ray adds to that of an actor's method once it has made one.
        assert [hint for each, hint in own.items() if each != "return"] == list(taken)
        assert told in (own["return"], object)
