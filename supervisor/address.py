"""What an address of a LiveKit server looks like. Pure, and needs none of LiveKit's packages."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from supervisor.errors import OptionError

SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

_EXPECTED: Final = (
    f"an address with {', '.join(SCHEMES)} before its ://, such as wss://example.livekit.cloud"
)
# What comes with a user's name, or with a query, may be a password.
_SECRETIVE: Final = frozenset("@?#")


def checked_url(name: str, url: str) -> str:
    """Return *url* as ``ws`` or ``wss``, without a trailing slash.

    Args:
        name: the option that it was given for.
        url: as somebody wrote it.

    Raises:
        OptionError: it is no address of a server. Its text shows no password.
    """
    shown = url if _SECRETIVE.isdisjoint(url) else "…"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise OptionError(name, shown, _EXPECTED) from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise OptionError(name, shown, _EXPECTED)
    place = f"{SCHEMES[parts.scheme]}://{_host_and_port(parts, port)}"
    if parts.username or parts.password or parts.query or parts.fragment:
        raise OptionError(name, place, f"{_EXPECTED}: no user, no query; keys are options")
    return place + parts.path.rstrip("/")


def _host_and_port(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"
