"""Messages: what was said arrives as it was said, and nothing else counts as a message."""

from __future__ import annotations

import typing
from typing import Any, Union

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from ipc import messages
from ipc.errors import NotEncodable, PayloadTooLarge, ProtocolError
from ipc.frames import MAX_FRAME_BYTES, MAX_FRAME_DESCRIPTORS, encode_frame
from ipc.messages import (
    MAX_TEXT,
    Decoder,
    ErrorText,
    Exited,
    Fork,
    Log,
    Message,
    Ping,
    Stop,
    cut,
    encode,
    framed,
)

DIRECTIONS: dict[str, object] = {
    "ToForkServer": messages.ToForkServer,
    "FromForkServer": messages.FromForkServer,
    "ToWorker": messages.ToWorker,
    "FromWorker": messages.FromWorker,
    "FromWorkerLog": messages.FromWorkerLog,
}
DECODERS: dict[str, Decoder[Message]] = {name: Decoder(kind) for name, kind in DIRECTIONS.items()}


def members(direction: str) -> tuple[type[Message], ...]:
    """Return the message types of one direction."""
    kind = DIRECTIONS[direction]
    return typing.get_args(kind) or (typing.cast("type[Message]", kind),)


EVERY_MESSAGE = [
    pytest.param(direction, kind, id=f"{kind.__name__} in {direction}")
    for direction in DIRECTIONS
    for kind in members(direction)
]

# ── strategies, built from the annotations ───────────────────────────────────

# NaN is a number on the wire too, but it is not equal to itself.
floats = st.floats(allow_nan=False)
# MessagePack has 64 bits.
integers = st.integers(-(2**63), 2**64 - 1)

plain = st.recursive(
    st.none() | st.booleans() | integers | floats | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field annotated with *hint*."""
    simple: dict[object, st.SearchStrategy[Any]] = {
        int: integers,
        float: floats,
        str: st.text(),
        bytes: st.binary(),
        bool: st.booleans(),
        type(None): st.none(),
        Any: plain,
    }
    if hint in simple:
        return simple[hint]
    if typing.get_origin(hint) is Union:
        return st.one_of([values(each) for each in typing.get_args(hint)])
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is dict:
        key, value = typing.get_args(hint)
        return st.dictionaries(values(key), values(value), max_size=4)
    if typing.get_origin(hint) is tuple:
        each, _ = typing.get_args(hint)
        return st.lists(values(each), max_size=4).map(tuple)
    assert issubclass(hint, msgspec.Struct), f"no strategy for {hint}"
    return instances(hint)


def instances(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of a struct."""
    hints = typing.get_type_hints(kind)
    fields = {name: values(hints[name]) for name in kind.__struct_fields__}
    return st.builds(kind, **fields)


def any_of(direction: str) -> st.SearchStrategy[Message]:
    """Return a strategy for the messages of one direction."""
    return st.one_of([instances(kind) for kind in members(direction)])


any_message = st.one_of([any_of(direction) for direction in DIRECTIONS])


# ── round trips ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("direction", "kind"), EVERY_MESSAGE)
@settings(max_examples=40)
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(
    direction: str, kind: type[Message], data: st.DataObject
) -> None:
    message = data.draw(instances(kind))
    received = DECODERS[direction].decode(encode(message))
    assert received == message
    assert type(received) is kind


@given(any_message, st.integers(0, MAX_FRAME_DESCRIPTORS))
def test_a_framed_message_is_a_frame_of_it(message: Message, descriptors: int) -> None:
    assert framed(message, descriptors) == encode_frame(encode(message), descriptors)


@pytest.mark.parametrize("descriptors", [-1, MAX_FRAME_DESCRIPTORS + 1])
def test_what_would_be_no_frame_is_not_framed(descriptors: int) -> None:
    with pytest.raises(ProtocolError, match="descriptors, the limit is"):
        framed(Ping(1), descriptors)
    with pytest.raises(PayloadTooLarge):
        framed(Stop("x" * MAX_FRAME_BYTES, 1.0))
    with pytest.raises(NotEncodable, match="a Stop cannot be sent"):
        framed(Stop("\ud800", 1.0))


def test_every_message_has_a_direction() -> None:
    placed = {kind for direction in DIRECTIONS for kind in members(direction)}
    # Other channels have messages of their own, in the file that is about them.
    here = {kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__}
    assert placed == here


def test_no_two_messages_share_a_tag() -> None:
    tags = [kind.__name__ for kind in Message.__subclasses__()]
    assert len(tags) == len(set(tags))


def test_messages_are_tagged_and_positional_on_the_wire() -> None:
    assert msgspec.msgpack.decode(encode(Ping(7))) == ["Ping", 7]


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ping(7).number = 8  # type: ignore[misc]  # what is tested


# ── what is no message ───────────────────────────────────────────────────────


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_a_message_of_another_direction_is_refused(direction: str, data: st.DataObject) -> None:
    foreign = set(Message.__subclasses__()) - set(members(direction))
    message = data.draw(st.sampled_from(sorted(foreign, key=str)).flatmap(instances))
    with pytest.raises(ProtocolError, match="not a message of this direction"):
        DECODERS[direction].decode(encode(message))


def decodes_or_is_refused(data: bytes) -> None:
    """Any other exception than ProtocolError fails the test that calls this."""
    for decoder in DECODERS.values():
        try:
            decoder.decode(data)
        except ProtocolError:
            pass


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_is_refused_and_raises_nothing_else(data: bytes) -> None:
    decodes_or_is_refused(data)


@settings(max_examples=300)
@given(any_message, st.data())
def test_a_message_with_wrong_bytes_raises_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    wire = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(wire) - 1))
        wire[place] = data.draw(st.integers(0, 255))
    decodes_or_is_refused(bytes(wire))


@given(any_message, st.data())
def test_a_message_that_is_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    wire = encode(message)
    short = wire[: data.draw(st.integers(0, len(wire) - 1))]
    for decoder in DECODERS.values():
        with pytest.raises(ProtocolError):
            decoder.decode(short)


@given(any_message, st.binary(min_size=1, max_size=20))
def test_bytes_behind_a_message_are_refused(message: Message, more: bytes) -> None:
    for decoder in DECODERS.values():
        with pytest.raises(ProtocolError):
            decoder.decode(encode(message) + more)


tags = st.sampled_from([kind.__name__ for name in DIRECTIONS for kind in members(name)])


@settings(max_examples=150)
@given(tags, st.lists(plain, max_size=12))
def test_a_right_tag_with_any_fields_raises_nothing_else(tag: str, fields: list[object]) -> None:
    decodes_or_is_refused(msgspec.msgpack.encode([tag, *fields]))


def log_with(fields: bytes) -> bytes:
    """Return a log record whose ``fields`` are these bytes: the one place that takes any data."""
    wire = encode(Log(10, "l", "m", 0.0, "p", 1, "f", "t"))
    assert wire.endswith(b"\x80")
    return wire[:-1] + fields


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="the byte that MessagePack never uses"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four thousand million"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="four gigabytes announced"),
        pytest.param(b"\x91" * 200_000, id="arrays in arrays without end"),
        pytest.param(b"\x92\xa4Ping\xa1x", id="a text where a number belongs"),
        pytest.param(b"\x91\xa4Ping", id="a field that is missing"),
        pytest.param(b"\x92\xa4Pong\xcf" + b"\xff" * 7, id="half a number"),
        pytest.param(b"\x92\xa4\xff\xfe\xfd\xfc\x01", id="a tag that is no text"),
        pytest.param(b"\x93\xa4Stop\xa1\xff\x01", id="a text that is no UTF-8"),
        pytest.param(b"\x82\xa4type\xa4Ping\xa6number\x01", id="a map in place of an array"),
        pytest.param(log_with(b"\x81\x80\x01"), id="a map as the key of the fields"),
        pytest.param(log_with(b"\x81\xa1a\x81\x80\x01"), id="a map as the key of a map"),
        pytest.param(log_with(b"\x81\xa1a\x81\x91\x80\x01"), id="a map in a key of a map"),
        pytest.param(log_with(b"\x81\xa1a\x81\x93\x01\x80\x02\x01"), id="a list with a map as key"),
        pytest.param(log_with(b"\x81\xa1a\x81\xd4\x05\x00\x01"), id="an extension as key"),
        pytest.param(log_with(b"\x81\xa1a\xa1\xff"), id="a field that is no UTF-8"),
        pytest.param(log_with(b"\x81\xa1a" + b"\x91" * 200_000), id="fields without end"),
        pytest.param(log_with(b"\x81\xa1a\xdd\x7f\xff\xff\xff"), id="a long list in the fields"),
        pytest.param(
            log_with(b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12), id="a time that does not exist"
        ),
        pytest.param(
            log_with(b"\x81\xa1a\xd7\xff" + b"\x00" * 4 + b"\xff" * 4), id="a time in far future"
        ),
    ],
)
def test_hostile_bytes_are_a_message_or_a_protocol_error(wire: bytes) -> None:
    decodes_or_is_refused(wire)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_as_log_fields_raise_nothing_else(fields: bytes) -> None:
    decodes_or_is_refused(log_with(b"\x81\xa1a" + fields))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(
            Stop("\udcff", 1.0),
            "a Stop cannot be sent: .* surrogates not allowed",
            id="a lone surrogate, as of a file name",
        ),
        pytest.param(
            Fork(2**64), "a Fork cannot be sent: .* ints", id="a number of more than 64 bits"
        ),
        pytest.param(
            Log(10, "l", "m", 0.0, "p", 1, "f", "t", None, {"a": object()}),
            "a Log cannot be sent: .* object",
            id="a field that is not plain",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_by_the_sender(message: Message, reason: str) -> None:
    with pytest.raises(NotEncodable, match=reason) as caught:
        encode(message)
    assert isinstance(caught.value, ProtocolError)
    assert isinstance(caught.value, ValueError)


def test_fields_that_contain_themselves_are_refused_by_the_sender() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    with pytest.raises(NotEncodable, match="a Log cannot be sent"):
        encode(Log(10, "l", "m", 0.0, "p", 1, "f", "t", None, endless))


def test_a_refusal_says_where_it_is_wrong() -> None:
    wire = msgspec.msgpack.encode(["Exited", 1, 0, "much", 5])
    with pytest.raises(ProtocolError, match="Expected `float`, got `str`"):
        DECODERS["FromForkServer"].decode(wire)
    assert DECODERS["FromForkServer"].decode(encode(Exited(1, 0, 0.5, 5))) == Exited(1, 0, 0.5, 5)


def test_an_error_as_text_is_no_message_by_itself() -> None:
    for decoder in DECODERS.values():
        with pytest.raises(ProtocolError):
            decoder.decode(msgspec.msgpack.encode(ErrorText("E", "m", "t")))


# ── cutting ──────────────────────────────────────────────────────────────────


@given(st.text(max_size=60), st.integers(0, 70))
def test_a_text_is_cut_in_its_middle_and_only_if_it_is_too_long(text: str, limit: int) -> None:
    short = cut(text, limit)
    if len(text) <= limit:
        assert short == text
        return
    half = limit // 2
    left_out = f"\n… {len(text) - 2 * half} characters left out …\n"
    assert short == text[:half] + left_out + text[len(text) - half :]


def test_a_long_traceback_keeps_its_first_and_its_last_line() -> None:
    text = "first\n" + "x" * (2 * MAX_TEXT) + "\nlast"
    assert cut(text).startswith("first\n")
    assert cut(text).endswith("\nlast")
    assert len(cut(text)) < MAX_TEXT + 100


@given(st.text(st.characters(), max_size=60), st.integers(64, 100))
def test_a_text_that_was_cut_can_always_be_sent(text: str, limit: int) -> None:
    short = cut(text, limit)
    encode(Stop(short, 1.0))
    assert len(short) <= limit + 40


def test_a_lone_surrogate_is_escaped_and_the_rest_stays() -> None:
    assert cut("open('caf\udce9.txt'): ✗") == "open('caf\\udce9.txt'): ✗"
