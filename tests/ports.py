"""Ports for servers that cannot be asked which one the system gave them."""

import random
import socket


def free_port() -> int:
    """A port that is free, and that nobody who asks the system for any port will be given.

    Ray's own processes do so by the dozen, and use 10002 to 19999 for its workers.
    """
    start = 20_000 + random.SystemRandom().randrange(10_000)
    for port in range(start, start + 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below the ephemeral ones")
