"""How to reach the vendor's stream and how to behave on it."""

from dataclasses import dataclass, field, fields

from trading.data.massive.frames import MAX_BYTES
from trading.data.massive.urls import check_api_key, check_url
from trading.errors import StreamError


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How to reach the stream and how to behave on it; every time is in seconds.

    Parameters
    ----------
    url: scheme and host of the stream, such as `wss://socket.massive.com`; the asset class is added
    api_key: the vendor's key; not part of the `repr`
    silence_timeout_s: reconnect when nothing arrived for so long though something was asked for;
        None never does
    max_queue_frames: frames held for a consumer that is behind
    max_queue_bytes: bytes of these together
    max_frame_bytes: a larger frame is left out and counted
    block_when_full: slow the sender down (replay) instead of dropping the oldest frame (live)
    stop_on_close: a close with code 1000 or 1001 is the end (replay) instead of a lost connection
    asks_time: ask our own market server to say what time it is in every frame, see `TapeClock`
    outlasts_refusal: a key that was accepted before and is refused now is shown again after
        `cool_down_s`, and that is not the end: a vendor whose logins fail for a while says so of
        every key
    tells_need: tell a feed what is needed most, by asking for it again, see `trading.feed`; the
        vendor takes no notice of that
    connect_timeout_s: time for TCP, TLS and the opening handshake
    auth_timeout_s: time from the opening handshake to `auth_success`
    subscribe_timeout_s: time after which the connection counts as live with answers missing
    close_timeout_s: time for the closing handshake
    ping_interval_s: keepalive pings, each to be answered within the same time; None sends none, and
        none are sent with `block_when_full`, as pongs wait behind unread frames
    backoff_initial_s: pause after the first loss, doubled with each further one
    backoff_max_s: longest pause
    cool_down_s: shortest pause after `max_connections` or a close with code 1008
    stable_s: a connection that stood for so long makes the next pause short again; so does data
    subscribe_chunk: names in one subscribe message

    Raises
    ------
    DataError
        The URL or a number is unusable.
    AuthenticationFailed
        The key is empty or malformed.
    """

    url: str
    api_key: str = field(repr=False)
    silence_timeout_s: float | None
    max_queue_frames: int = 8192
    max_queue_bytes: int = MAX_BYTES
    max_frame_bytes: int = 16 * 2**20
    block_when_full: bool = False
    stop_on_close: bool = False
    asks_time: bool = False
    outlasts_refusal: bool = False
    tells_need: bool = False
    connect_timeout_s: float = 10.0
    auth_timeout_s: float = 10.0
    subscribe_timeout_s: float = 15.0
    close_timeout_s: float = 1.0
    ping_interval_s: float | None = 20.0
    backoff_initial_s: float = 0.5
    backoff_max_s: float = 30.0
    cool_down_s: float = 60.0
    stable_s: float = 60.0
    subscribe_chunk: int = 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url, ("ws", "wss")))
        object.__setattr__(self, "api_key", check_api_key(self.api_key))
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise StreamError(f"stream setting {each.name} is {value}: it must be above zero")
