"""Where LiveKit is, which proxy leads there, and what may be seen of the secrets."""

from __future__ import annotations

import base64
import json
import time

import pytest
from livekit import api

from supervisor import ServerOptions
from supervisor.address import checked_url
from supervisor.dispatch.livekit.access import Access, find_access, find_proxy
from supervisor.errors import OptionError

KEY = "APIkey"
SECRET = "a-secret-of-enough-length-for-hs256"


def options(**given: object) -> ServerOptions:
    replaced = ServerOptions().replace(**given)
    assert isinstance(replaced, ServerOptions)
    return replaced


@pytest.mark.parametrize(
    ("given", "room_url", "agent_url"),
    [
        ("ws://a", "ws://a", "ws://a/agent"),
        ("http://a:7880", "ws://a:7880", "ws://a:7880/agent"),
        ("wss://a.livekit.cloud", "wss://a.livekit.cloud", "wss://a.livekit.cloud/agent"),
        ("https://a/", "wss://a", "wss://a/agent"),
        ("https://a/sub/path/", "wss://a/sub/path", "wss://a/sub/path/agent"),
        (" wss://a ", "wss://a", "wss://a/agent"),
        ("ws://[::1]:7880", "ws://[::1]:7880", "ws://[::1]:7880/agent"),
    ],
)
def test_every_kind_of_address_is_taken(given: str, room_url: str, agent_url: str) -> None:
    access = Access(checked_url("ws_url", given), KEY, SECRET)
    assert (access.room_url, access.agent_url) == (room_url, agent_url)
    assert access.is_encrypted == room_url.startswith("wss")


@pytest.mark.parametrize(
    "given",
    [
        "livekit.example.com",
        "ftp://a",
        "ftp://user:hunter2@a",
        "user:hunter2@a",
        "wss://",
        "wss://a:port",
        "wss://user:hunter2@a",
        "wss://a?access_token=hunter2",
        "wss://[::1",
        "wss://a#hunter2",
    ],
)
def test_what_is_no_address_is_named_without_what_may_be_a_password(given: str) -> None:
    with pytest.raises(OptionError, match="ws_url") as caught:
        checked_url("ws_url", given)
    assert "hunter2" not in str(caught.value)


def test_options_count_before_the_environment() -> None:
    environment = {
        "LIVEKIT_URL": "ws://environment",
        "LIVEKIT_API_KEY": "environment",
        "LIVEKIT_API_SECRET": "environment",
    }
    found = find_access(ServerOptions(), environment)
    assert found is not None
    assert (found.room_url, found.api_key) == ("ws://environment", "environment")
    own = options(ws_url="ws://option", api_key=KEY, api_secret=SECRET)
    found = find_access(own, environment)
    assert found is not None
    assert (found.room_url, found.api_key, found.api_secret) == ("ws://option", KEY, SECRET)


def test_without_an_address_there_is_no_livekit() -> None:
    assert find_access(options(api_key=KEY, api_secret=SECRET), {}) is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"api_secret": SECRET}, "LIVEKIT_API_KEY"),
        ({"api_key": KEY}, "LIVEKIT_API_SECRET"),
        ({"api_key": KEY, "api_secret": ""}, "LIVEKIT_API_SECRET"),
    ],
)
def test_an_address_without_credentials_names_what_is_missing(
    given: dict[str, str], missing: str
) -> None:
    with pytest.raises(OptionError, match=missing):
        find_access(options(ws_url="ws://a", **given), {})


def test_the_token_allows_to_register_and_nothing_about_rooms() -> None:
    token = Access("ws://a", KEY, SECRET).token()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["iss"] == KEY
    assert claims["video"]["agent"] is True
    assert "roomJoin" not in claims["video"]
    assert "roomAdmin" not in claims["video"]
    assert claims["nbf"] <= time.time() + 1
    assert claims["exp"] - claims["nbf"] == 3600
    assert api.TokenVerifier(KEY, SECRET).verify(token).video is not None


def test_no_repr_shows_a_secret() -> None:
    access = Access("ws://a", KEY, SECRET, "worker-token", "http://user:hunter2@proxy")
    assert "worker_token=worker-token" in access.agent_url
    for secret in (SECRET, "worker-token", "hunter2"):
        assert secret not in repr(access)
        assert secret not in access.place


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (None, {}, None),
        (None, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (None, {"https_proxy": "p:1"}, "http://p:1"),
        (None, {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        (None, {"HTTP_PROXY": "http://q:1"}, "http://q:1"),
        (None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com"}, None),
        (None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        (None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other.com"}, "http://p:1"),
        ("http://o:1", {"HTTPS_PROXY": "http://p:1"}, "http://o:1"),
        ("", {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_the_proxy_is_the_option_or_what_the_environment_says(
    option: str | None, environment: dict[str, str], expected: str | None
) -> None:
    assert find_proxy(option, "lk.example.com", environment) == expected
