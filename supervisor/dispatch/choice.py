"""Where a server's jobs come from: always this machine, and LiveKit where options name it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from supervisor.dispatch.base import Dispatcher
from supervisor.errors import SupervisorError
from supervisor.handle import JobHandle
from supervisor.intake import Agent
from supervisor.options import ServerOptions

logger = logging.getLogger("greenroom.server")


def make_dispatchers(
    options: ServerOptions,
    agent: Agent,
    environment: Mapping[str, str] = os.environ,
    *,
    path: str | None = None,
    listener: socket.socket | None = None,
) -> list[Dispatcher]:
    """Return the dispatchers, in the order in which they are to start.

    The control socket comes first: it shows how the server is while LiveKit is
    still out of reach.

    Args:
        options: of the server.
        agent: what its entrypoint was registered as.
        environment: where ``LIVEKIT_…`` variables are looked up.
        path: of the control socket; a new one unless given.
        listener: the control socket itself, if somebody else keeps it.

    Raises:
        SupervisorError: LiveKit is named, and the options for it are wrong or the
            packages for it are not installed.
    """
    local: list[Dispatcher] = []
    show: Callable[[JobHandle[Any]], object] = _show_nowhere
    try:
        from supervisor.dispatch.local import LocalDispatcher
    except ImportError as exc:
        logger.warning(
            "no control socket: %s; install it with: pip install 'greenroom[server]'", exc
        )
    else:
        control = LocalDispatcher(path, listener=listener)
        local, show = [control], control.track
    if not (options.ws_url or environment.get("LIVEKIT_URL")):
        return local
    try:
        from supervisor.dispatch.livekit.access import find_access
        from supervisor.dispatch.livekit.dispatcher import LiveKitDispatcher
        from supervisor.dispatch.livekit.words import Registration, allowed
    except ImportError as exc:
        text = f"no connection to LiveKit: {exc}; install it with: pip install 'greenroom[livekit]'"
        raise SupervisorError(text) from exc
    access = find_access(options, environment)
    assert access is not None, "a URL was found above"
    allowed(options.permissions)  # complains of a source that LiveKit does not know
    registration = Registration(
        agent.type,
        agent_name(agent, environment),
        options.permissions,
        _version(),
        environment.get("LIVEKIT_AGENT_DEPLOYMENT", ""),
    )
    livekit = LiveKitDispatcher(access, registration, max_retry=options.max_retry, on_job=show)
    return [*local, livekit]


def _show_nowhere(handle: JobHandle[Any]) -> None:
    """There is no control socket that would show the job."""


def agent_name(agent: Agent, environment: Mapping[str, str]) -> str:
    """Return the name to register under; the environment may override or supply it."""
    override = environment.get("LIVEKIT_AGENT_NAME_OVERRIDE", "")
    return override or agent.name or environment.get("LIVEKIT_AGENT_NAME", "")


def _version() -> str:
    try:
        return metadata.version("greenroom")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "0"
