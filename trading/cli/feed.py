"""`trading feed`: one connection to the vendor, for many readers."""

import asyncio
from typing import Annotated

import typer

from trading.cli.common import ConfigOption, SetOption, failures, misuse, settings_for
from trading.errors import ConfigError


def feed(
    config: ConfigOption = None,
    overrides: SetOption = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
) -> None:
    """Hold the connection to Massive.com and share it out among readers, until told to stop.

    Readers connect to it as to Massive.com: `trading up` by FEED_URL, the vendor's own client by
    its address. It serves the stream, REST, /health, /status and /metrics on one port.
    """
    flags = [] if port is None else [f"feed.port={port}"]
    settings = settings_for(config, [*flags, *(overrides or [])], several=True)

    from trading.feed.running import feed_options, market_hours, run_feed

    def listening(at: int) -> None:
        address = f"{options.host}:{at}"
        print(
            f"feed: listening on {address}; readers: FEED_URL=http://{address}; "
            f"{len(options.keys)} connection(s) an asset class to {options.websocket_url}",
            flush=True,
        )

    with failures():
        try:
            options = feed_options(settings)
        except ConfigError as error:
            misuse(*error.lines)
        asyncio.run(run_feed(options, market_hours(), listening, settings.seed))
