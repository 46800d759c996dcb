"""cli.client: which server is talked to, and whose."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.client import ControlClient, ControlError, find_socket
from supervisor.dispatch.sockets import listen

SOMEBODY, SOMEBODY_ELSE = 65534, 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="being somebody else takes root")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


@contextlib.contextmanager
def being(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
def test_the_server_of_another_user_is_out_of_reach_and_says_so(directory: Path) -> None:
    path = directory / "s"
    with listen(path), being(SOMEBODY), pytest.raises(ControlError) as caught:
        ControlClient(path).connect()
    assert str(caught.value) == (
        f"{path} belongs to another user: a server can be reached by the user who runs it, "
        "and by root"
    )


@needs_root
def test_whoever_pretends_to_be_our_server_is_found_out(directory: Path) -> None:
    path = directory / "s"
    with being(SOMEBODY):
        listener = listen(path)
    with listener:
        os.chmod(path, 0o666)
        with being(SOMEBODY_ELSE), pytest.raises(ControlError) as caught:
            ControlClient(path).connect()
        assert str(caught.value) == (
            f"the server at {path} belongs to uid {SOMEBODY}, not to this user"
        )
        with ControlClient(path).connect():
            pass  # root may


def test_a_stale_socket_is_passed_over_and_named_if_it_is_asked_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    own = directory / "greenroom"
    own.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(own / "1.sock"))
        dead.listen()
    with pytest.raises(ControlError, match="no server of this user is running"):
        find_socket(None)
    with listen(own / "2.sock"):
        assert find_socket(None) == own / "2.sock"
    with pytest.raises(ControlError, match="the socket is there, but its server is gone"):
        ControlClient(own / "1.sock").connect()
