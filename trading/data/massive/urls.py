"""Where the vendor is reached and with which key; the key never enters a message."""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from trading.errors import AuthenticationFailed, DataError

_LONGEST_MESSAGE = 200


def check_url(url: str, schemes: tuple[str, ...]) -> str:
    """Return `url` without a trailing slash.

    Raises
    ------
    DataError
        The URL has another scheme than `schemes`, has no host, or carries a query.
    """
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise DataError(f"URL {url!r} is unusable: write {' or '.join(schemes)}://<host>")
    if parts.query or parts.fragment:
        raise DataError(f"URL of host {parts.hostname!r} carries a query: leave it out")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether `url` points to this machine, which no proxy can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for `url`.

    Clients of HTTP do not all look there.
    """
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def check_api_key(api_key: str) -> str:
    """Return `api_key` stripped of surrounding white space.

    Raises
    ------
    AuthenticationFailed
        The key is empty or holds characters that no key has.
    """
    key = api_key.strip()
    if not key:
        raise AuthenticationFailed("the API key is empty: set MASSIVE_API_KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AuthenticationFailed(
            "the API key holds a space, a control or a non-ASCII character: check MASSIVE_API_KEY"
        )
    return key


def redact(text: str, api_key: str) -> str:
    """Return `text` fit to be shown: on one line, not too long, and without the key."""
    shown = " ".join(text.replace(api_key, "***").split())
    return shown if len(shown) <= _LONGEST_MESSAGE else shown[: _LONGEST_MESSAGE - 3] + "..."
