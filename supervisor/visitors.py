"""Which requests over TCP are answered: those of people and programs that mean this server.

The endpoints are read-only, so what is to be kept out is a web page that reads them
through somebody's browser:

* from another origin: no CORS header is ever sent, so a browser shows the answer to
  no script; one that says ``Origin`` is refused outright;
* by DNS rebinding, where a page's own name suddenly points to 127.0.0.1: a server on
  a loopback address answers to an IP address or ``localhost`` in ``Host`` only. One that
  listens for others is called by names that it cannot know, and takes any.

Pure: no sockets, no requests.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

# For every answer: no page of another origin may embed it, no browser guess what it is.
HEADERS: Final = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

# A client that has not sent its whole request head by then is stuck, or wants us to be.
HEAD_SECONDS: Final = 10.0
# The same for a body that nobody asked for: it is read and dropped for so long.
LINGERING_SECONDS: Final = 1.0


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a server that listens on *address*."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, or empty: all addresses
        return False


def refusal(*, host: str | None, origin: str | None, listens_on: str) -> tuple[int, str] | None:
    """Return the status and the sentence for a request that is not answered, None for others.

    Args:
        host: the header of that name.
        origin: the header of that name; browsers send it, probes and scrapers do not.
        listens_on: the address the server was told to listen on.
    """
    if host is not None and is_loopback(listens_on) and not _means_this_machine(host):
        return 421, "this server answers to localhost and to IP addresses\n"
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, "this server does not talk to pages of other origins\n"
    return None


def _means_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:  # brackets that do not match
        return False
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: never resolved elsewhere
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
