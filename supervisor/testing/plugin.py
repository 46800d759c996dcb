"""Fixtures for pytest. In the top ``conftest.py``::

    pytest_plugins = ["supervisor.testing.plugin"]

``pool`` and ``server`` are the context managers of :mod:`supervisor.testing.running`, with
the leak check around the test. They need no plugin for asyncio of their own; the test
uses whichever it has. ``leaves_nothing`` is the leak check alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from supervisor.pool import ProcessPool
from supervisor.server import AgentServer
from supervisor.testing import leaks
from supervisor.testing.running import running_pool, running_server


@pytest.fixture(scope="session")
def greenroom_subreaper() -> None:
    """Make the test process the one that orphans fall to."""
    leaks.take_in_orphans()


@pytest.fixture
def leaves_nothing(greenroom_subreaper: None) -> Iterator[None]:
    """Fail a test that leaves a process, a zombie, a descriptor or a thread behind."""
    with leaks.leaves_nothing():
        yield


@pytest.fixture
def pool(leaves_nothing: None) -> Callable[..., AbstractAsyncContextManager[ProcessPool]]:
    """``async with pool(setup_fnc=…) as p:`` runs a pool for the block."""
    return running_pool


@pytest.fixture
def server(
    leaves_nothing: None,
) -> Callable[..., AbstractAsyncContextManager[AgentServer]]:
    """``async with server(entrypoint or AgentServer, …) as s:`` runs a server for the block."""
    return running_server
