"""Where the LiveKit server is, and what proves who we are.

Secrets live in the fields of :class:`Access` and leave this file in two ways only:
as the signature of a token, and as the ``worker_token`` of the request's address.
No ``repr`` and no error text holds them.
"""

from __future__ import annotations

import datetime
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

from livekit import api

from supervisor.address import checked_url
from supervisor.errors import OptionError
from supervisor.options import ServerOptions

# The token opens the connection and is not looked at again. An hour forgives two
# machines whose clocks are far apart.
TOKEN_LIFE: Final = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Access:
    """One LiveKit server, and the credentials for it.

    Args:
        room_url: what jobs join their rooms at, unless told otherwise: ``ws`` or
            ``wss``, no trailing slash.
        api_key: names the secret.
        api_secret: signs our tokens.
        worker_token: what LiveKit Cloud gives to agents that it hosts.
        proxy: the address of an HTTP proxy, possibly with a password; None for none.
    """

    room_url: str
    api_key: str
    api_secret: str = field(repr=False)
    worker_token: str = field(default="", repr=False)
    proxy: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """The server as host and port, for logs and errors."""
        return urlsplit(self.room_url).netloc

    @property
    def is_encrypted(self) -> bool:
        """True for ``wss``."""
        return self.room_url.startswith("wss:")

    @property
    def agent_url(self) -> str:
        """Where servers register. Not for logs: it may hold the worker token."""
        query = f"?{urlencode({'worker_token': self.worker_token})}" if self.worker_token else ""
        return f"{self.room_url}/agent{query}"

    def token(self) -> str:
        """Return a fresh token that allows to register as an agent's server."""
        grants = api.VideoGrants(agent=True)
        token = api.AccessToken(self.api_key, self.api_secret)
        return token.with_grants(grants).with_ttl(TOKEN_LIFE).to_jwt()


def find_access(options: ServerOptions, environment: Mapping[str, str]) -> Access | None:
    """Return the server that the options name, or else the environment; None: neither does.

    Raises:
        OptionError: the address is none, or the key or the secret is missing.
    """
    url = options.ws_url or environment.get("LIVEKIT_URL", "")
    if not url:
        return None
    room_url = checked_url("ws_url", url)
    host = urlsplit(room_url).hostname or ""
    return Access(
        room_url,
        _needed("api_key", options.api_key, environment),
        _needed("api_secret", options.api_secret, environment),
        worker_token=environment.get("LIVEKIT_WORKER_TOKEN", ""),
        proxy=find_proxy(options.http_proxy, host, environment),
    )


def _needed(name: str, given: str | None, environment: Mapping[str, str]) -> str:
    variable = f"LIVEKIT_{name.upper()}"
    value = given or environment.get(variable, "")
    if not value:
        raise OptionError(name, None, f"a string, or {variable} set, as there is a LiveKit URL")
    return value


def find_proxy(option: str | None, host: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy for connections to *host*: the option, or what the environment says.

    ``HTTPS_PROXY`` comes first whatever the scheme, as LiveKit's own clients have
    it; ``NO_PROXY`` lists hosts that it is not for. An empty option: no proxy.
    """
    if option is not None:
        return option or None
    low = {name.lower(): value for name, value in environment.items()}
    proxy = low.get("https_proxy") or low.get("http_proxy")
    exempt = {"no": low.get("no_proxy", "")}
    # What urllib itself asks on Linux.
    bypass: Callable[[str, Mapping[str, str]], bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed
    if not proxy or bypass(host, exempt):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
