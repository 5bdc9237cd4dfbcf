"""Where market data comes from, whoever serves it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Addresses of the stream and of the REST service, and the key to both."""

    websocket_url: str
    rest_url: str
    api_key: str = field(repr=False)
