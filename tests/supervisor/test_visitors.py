"""visitors.py: who is answered over TCP, as a table."""

from __future__ import annotations

import pytest

from supervisor.visitors import is_loopback, refusal


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("10.0.0.5", False),
        ("agent.example.org", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    ("host", "listens_on", "answered"),
    [
        pytest.param("127.0.0.1:8081", "127.0.0.1", True, id="the address"),
        pytest.param("localhost", "127.0.0.1", True, id="localhost"),
        pytest.param("a.localhost:1", "127.0.0.1", True, id="a name under localhost"),
        pytest.param("[::1]:8081", "::1", True, id="an address of version 6"),
        pytest.param("10.0.0.5", "127.0.0.1", True, id="another address: no name was rebound"),
        pytest.param(None, "127.0.0.1", True, id="HTTP/1.0, without a host"),
        pytest.param("evil.example", "127.0.0.1", False, id="a page's own name"),
        pytest.param("localhost.evil.example", "127.0.0.1", False, id="a name that begins right"),
        pytest.param("127.0.0.1.evil.example", "127.0.0.1", False, id="one like an address"),
        pytest.param("127.0.0.1@evil.example", "127.0.0.1", False, id="with a user"),
        pytest.param("[::1", "127.0.0.1", False, id="half a bracket"),
        pytest.param("", "127.0.0.1", False, id="nothing"),
        pytest.param("agent.svc:8081", "0.0.0.0", True, id="a service's name, where others may"),
        pytest.param("agent.svc:8081", "", True, id="a service's name, on all addresses"),
    ],
)
def test_a_server_on_a_loopback_address_answers_to_no_stranger_name(
    host: str | None, listens_on: str, answered: bool
) -> None:
    refused = refusal(host=host, origin=None, listens_on=listens_on)
    assert (refused is None) == answered
    assert answered or (refused is not None and refused[0] == 421)


@pytest.mark.parametrize(
    ("origin", "answered"),
    [
        (None, True),
        ("http://localhost:8081", True),
        ("http://localhost:9000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str | None, answered: bool) -> None:
    refused = refusal(host="localhost:8081", origin=origin, listens_on="127.0.0.1")
    assert (refused is None) == answered
    assert answered or (refused is not None and refused[0] == 403)
