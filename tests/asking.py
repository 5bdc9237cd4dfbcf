"""Asks HTTP services on this machine, as often as a test likes."""

import httpx

client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
"""One for all: each of its own would first read every certificate of the machine, which takes a
processor longer than the answer. It keeps no connection: who answers may be killed meanwhile."""
