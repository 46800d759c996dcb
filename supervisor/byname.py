"""Calls that are named instead of pickled: a module's function, with numbers and texts for it.

Most calls are of this kind, and pickle is dear for them where it counts: right after the
CPU has slept, when nothing of it is in the caches. To pickle a function's name and to open
it again, pickle imports its module anew on either side, through some forty functions of C.
Here a name is looked up where it was left, and the arguments take the way of the message
around them.

What cannot be said so goes by pickle (travel.py), which knows how to name what is inside of
something else, and how to carry any value.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ipc.messages import Name


class _NamedCall(msgspec.Struct, array_like=True, gc=False):
    """The order on the wire, which is between two processes of one installation."""

    module: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Beginning(msgspec.Struct, array_like=True, gc=False):
    """The same, of which only the name is opened: the arguments may be a gigabyte."""

    module: str
    function: str
    args: msgspec.Raw
    kwargs: msgspec.Raw


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_NamedCall)
_beginning_decoder: Final = msgspec.msgpack.Decoder(_Beginning)

# These arrive as what they were sent as. A subclass would not.
PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_TEXT: Final = frozenset({str})


def pack(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes | None:
    """Return the call as bytes; None if it has to be pickled."""
    if type(function) is not types.FunctionType or not PLAIN.issuperset(map(type, args)):
        return None
    if kwargs and not (
        _TEXT.issuperset(map(type, kwargs)) and PLAIN.issuperset(map(type, kwargs.values()))
    ):
        return None
    # The qualified name, as for pickle: a closure that a module keeps in a global is not what
    # another process has there. A wrapper has the name of what it wraps, and a module may have
    # replaced either.
    module, name = function.__module__, function.__qualname__
    if (
        type(module) is not str
        or type(name) is not str
        or getattr(sys.modules.get(module), name, None) is not function
    ):
        return None
    try:
        return _encoder.encode(_NamedCall(module, name, args, kwargs))
    except (OverflowError, UnicodeEncodeError):
        return None  # more than 64 bits; half a character


def name_of(packed: bytes) -> tuple[Name, bytes]:
    """Return the function's name in what :func:`pack` made, and all that comes before its arguments."""
    call = _beginning_decoder.decode(packed)
    # Empty arguments take a byte each.
    beginning = _encoder.encode(_NamedCall(call.module, call.function, (), {}))[:-2]
    return Name(call.module, call.function), beginning


def find(module: str, function: str) -> Any:
    """Return what is called so here; None if it has to be imported. Imports nothing, runs no code.

    Not by ``getattr``: Python would keep that name, which has just come with a message, in its
    table of attributes, and let go of another. A page is copied for either.
    """
    found = sys.modules.get(module)
    if type(found) is not types.ModuleType:  # one of another class may have its own way
        return None
    names = vars(found)
    if getattr(names.get("__spec__"), "_initializing", False):
        return None  # another thread imports it: importing it again waits for that
    return names.get(function)


def open_call(body: bytes | bytearray) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
    """Return function, arguments and keyword arguments of a call that :func:`pack` made.

    Runs the user's code where the function's module has to be imported first, and raises
    what that raises.

    Raises:
        ModuleNotFoundError: there is no such module here.
        AttributeError: there is no such function in it.
    """
    call = _decoder.decode(body)
    function = find(call.module, call.function)
    if function is None:
        function = _imported(call.module, call.function)
    return function, call.args, call.kwargs


def _imported(module: str, function: str) -> Any:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise  # the module is there, and what it needs is not
        raise ModuleNotFoundError(_absent(module, function, exc), name=module) from exc
    try:
        return getattr(found, function)
    except AttributeError as exc:  # a module's own says what it likes, or only the name
        raise AttributeError(_absent(module, function, exc)) from exc


def _absent(module: str, function: str, exc: Exception) -> str:
    return (
        f"a worker has no {module}.{function} ({exc}): it imports the module itself, and does not "
        "see what the program has put there, or into sys.path, since its pool has started"
    )
