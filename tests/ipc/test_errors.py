"""The errors of a channel: whose fault it is, and what the text says."""

from __future__ import annotations

import copy
import pickle

import pytest

from ipc.errors import ChannelBroken, ChannelClosed, IpcError, PayloadTooLarge, ProtocolError


@pytest.mark.parametrize("error", [ProtocolError, ChannelClosed, ChannelBroken])
def test_every_error_of_a_channel_is_an_ipc_error(error: type[Exception]) -> None:
    assert issubclass(error, IpcError)


def test_broken_by_the_world_and_closed_by_us_are_not_the_same() -> None:
    assert not issubclass(ChannelBroken, ChannelClosed)
    assert not issubclass(ChannelClosed, ChannelBroken)


@pytest.mark.parametrize(
    ("remedy", "text"),
    [
        pytest.param("", "a job has 12 bytes, the limit is 10", id="without a remedy"),
        pytest.param(
            "raise max_payload_mb",
            "a job has 12 bytes, the limit is 10; raise max_payload_mb",
            id="with a remedy",
        ),
    ],
)
def test_a_payload_that_is_too_large_says_by_how_much(remedy: str, text: str) -> None:
    error = PayloadTooLarge("a job", 12, 10, remedy)
    assert str(error) == text
    assert isinstance(error, ProtocolError)


def test_a_payload_error_survives_a_pickle_and_a_copy() -> None:
    error = PayloadTooLarge("a job", 12, 10, "raise it")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (twin.what, twin.size, twin.limit, twin.remedy) == ("a job", 12, 10, "raise it")
        assert str(twin) == str(error)
