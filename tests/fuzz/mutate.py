"""Inputs that are nearly right: messages of the protocol, broken in structure or in bytes.

Random bytes die in the first header. What finds mistakes is a message that is
right but for one thing: a field of another type, a number nobody thinks of, one
element too few, a header that lies by one, a frame that ends early. So each
input begins as a real message and is broken at one to three places. Everything
is drawn from one generator: a seed names the whole run.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ipc.frames import HEADER
from ipc.messages import (
    ErrorText,
    Exited,
    Finished,
    Forked,
    ForkFailed,
    ForkServerReady,
    Hello,
    Lagging,
    Log,
    Message,
    Pong,
    Preloaded,
    PreloadError,
    Ready,
    SetupError,
    Started,
    encode,
)

ERROR: Final = ErrorText("ValueError", "no such luck", 'Traceback\n  File "a.py"\n')


def from_worker(job: str = "J-1") -> list[Message]:
    """Return one of each message that a worker may send."""
    return [
        Hello(4711),
        Ready(0.25),
        SetupError(ERROR),
        Started(job, 1000.0),
        Finished(job, "succeeded", "", b"\x80\x05K\x01.", None, 999.0, 1000.0, 0.1, 4096),
        Finished(job, "failed", "raised", None, ERROR, 999.0, 0.0, 0.0, 0),
        Pong(1),
        Lagging(0.5, "  File a.py, line 1\n"),
    ]


def from_fork_server(worker: int = 1) -> list[Message]:
    """Return one of each message that the fork server may send."""
    return [
        Hello(4711),
        Preloaded(0.5),
        ForkServerReady(4711),
        PreloadError(ERROR),
        Forked(worker, 4712),
        ForkFailed(worker, 11),
        Exited(worker, 9, 0.1, 4096),
    ]


def from_log() -> list[Message]:
    """Return log records, plain and with fields."""
    plain = Log(20, "app.part", "hello", 1.7e9, "/src/app.py", 12, "run", "MainThread")
    rich: dict[str, Any] = {"room": "studio", "n": 3, "list": [1, {"a": None}], "t": 0.5}
    return [plain, msgspec.structs.replace(plain, exception="Traceback\n", fields=rich)]


# Numbers and texts that code forgets. 64 bits are the most that MessagePack has.
INTEGERS: Final = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1),
    *(2**63, 2**64 - 1, -(2**31), -(2**63)),
)
FLOATS: Final = (*(0.0, -0.0, 1e-308, 1e308, -1e308, math.nan, math.inf, -math.inf),)
NUMBERS: Final[Sequence[Any]] = (*INTEGERS, *FLOATS)
TEXTS: Final = (
    "",
    "\0",
    "\n\r\t",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202e\u2066",
    "\ufffe\U0010ffff",
    "J-1",
    "..",
    "." * 3000,
    "x" * 5000,
    "%s %d %(a)s {0} {}",
    "__import__('os')",
)


class Mutator:
    """Draws broken messages, frames and streams.

    Args:
        chance: where every decision comes from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._breaks: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._cut_off,
            self._insert,
            self._repeat,
            self._overwrite,
        )

    def payload(self, messages: Sequence[Message]) -> bytes:
        """Return the bytes of one of *messages*, most often broken in some way."""
        chance = self._chance
        data = encode(chance.choice(messages))
        kind = chance.random()
        if kind < 0.1:
            return data
        if kind < 0.6:
            return self._restructured(data)
        if kind < 0.95:
            for _ in range(chance.randint(1, 3)):
                data = chance.choice(self._breaks)(data)
            return data
        return chance.randbytes(chance.randint(1, 200))

    def frame(self, payload: bytes, descriptors: int = 0) -> bytes:
        """Return *payload* in a frame whose header now and then lies."""
        chance = self._chance
        length = len(payload)
        if chance.random() < 0.05:
            length = chance.choice(
                (0, 1, length - 1, length + 1, length * 2, 2**20, 2**20 + 1, 2**31, 2**32 - 1)
            )
        if chance.random() < 0.03:
            descriptors = chance.choice((1, 4, 5, 255))
        return HEADER.pack(max(0, length) % 2**32, descriptors) + payload

    def cuts(self, stream: bytes) -> list[bytes]:
        """Return *stream* in pieces, as reads may bring it."""
        chance = self._chance
        if chance.random() < 0.5:
            return [stream]
        places = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randint(1, 4)))
        edges = [0, *places, len(stream)]
        return [stream[a:b] for a, b in itertools.pairwise(edges) if a != b]

    # ── structure ────────────────────────────────────────────────────────────

    def _restructured(self, data: bytes) -> bytes:
        tree = msgspec.msgpack.decode(data)
        for _ in range(self._chance.randint(1, 3)):
            tree = self._change(tree)
        try:
            return msgspec.msgpack.encode(tree) or b"\xc0"
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ):  # keys that JSON-like data has not
            return data

    def _change(self, tree: Any) -> Any:
        chance = self._chance
        if not isinstance(tree, list) or not tree:
            return self._value()
        tree = list(tree)
        place = chance.randrange(len(tree))
        kind = chance.random()
        if kind < 0.55:
            inner = isinstance(tree[place], list) and chance.random() < 0.5
            tree[place] = self._change(tree[place]) if inner else self._instead_of(tree[place])
        elif kind < 0.7:
            del tree[place]
        elif kind < 0.85:
            tree.insert(place, self._value())
        elif kind < 0.95:
            tree[0] = chance.choice(("Hello", "Finished", "Fork", "Stop", "Log", "", "\0", 0, None))
        else:
            return [tree]
        return tree

    def _instead_of(self, value: Any) -> Any:
        """Return another value, as often as not of the same type: it passes the decoder then."""
        kinds: dict[type, Sequence[Any]] = {str: TEXTS, int: INTEGERS, float: FLOATS}
        alike = kinds.get(type(value))
        if alike is None or self._chance.random() < 0.5:
            return self._value()
        return self._chance.choice(alike)

    def _value(self, depth: int = 0) -> Any:
        chance = self._chance
        kind = chance.randrange(11 if depth < 4 else 7)
        if kind < 3:
            return chance.choice(NUMBERS)
        if kind < 5:
            return chance.choice(TEXTS)
        if kind == 5:
            return chance.choice((None, True, False))
        if kind == 6:
            return chance.randbytes(chance.choice((0, 1, 40)))
        if kind == 7:
            return msgspec.msgpack.Ext(chance.randint(-128, 127), chance.randbytes(12))
        if kind == 8:
            deep: Any = 1
            for _ in range(chance.choice((3, 60, 400))):
                deep = [deep] if chance.random() < 0.5 else {"k": deep}
            return deep
        if kind == 9:
            return [self._value(depth + 1) for _ in range(chance.randint(0, 4))]
        return {chance.choice(TEXTS): self._value(depth + 1) for _ in range(chance.randint(0, 3))}

    # ── bytes ────────────────────────────────────────────────────────────────

    def _place(self, data: bytes) -> int:
        return self._chance.randrange(len(data)) if data else 0

    def _flip(self, data: bytes) -> bytes:
        place = self._place(data)
        if not data:
            return b"\xff"
        changed = data[place] ^ (1 << self._chance.randrange(8))
        return data[:place] + bytes([changed]) + data[place + 1 :]

    def _cut_off(self, data: bytes) -> bytes:
        return data[: self._place(data)] or b"\x90"

    def _insert(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self._chance.randbytes(self._chance.randint(1, 8)) + data[place:]

    def _repeat(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + data[place : place + 16] * 2 + data[place + 16 :]

    def _overwrite(self, data: bytes) -> bytes:
        """Put in the first bytes of something large: arrays, maps and texts of 4 GiB."""
        place = self._place(data)
        large = self._chance.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9")) + b"\xff" * 4
        return data[:place] + large + data[place + 5 :]
