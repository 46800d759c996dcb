"""How functions and values travel to another process.

By reference where the child can import them (module and qualified name): small,
fast, and both sides mean the same object. The user's main script counts as
importable when the children import it as ``__mp_main__``, which they do exactly
when ``multiprocessing`` would. By value with cloudpickle otherwise: closures,
lambdas, notebooks, ``python -c``.

What cannot travel is refused where it is handed in, and the error names the
object inside that is at fault, since "cannot pickle '_thread.lock' object" does
not say whose lock it is.
"""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from supervisor import byname

# How deep to look for the object at fault. Deeper than people nest arguments,
# shallow enough that a self-referring structure ends.
_BLAME_DEPTH: Final = 6


# Where the user's script is. Python takes `__file__` from the main module when the
# script has ended, and only then waits for threads; children that are made until
# then would not find the script any more.
_MAIN_FILE: Final[str | None] = getattr(sys.modules.get("__main__"), "__file__", None)


def keep_main_importable() -> None:
    """Have children find the user's script also while the interpreter exits."""
    main = sys.modules.get("__main__")
    if main is None or _MAIN_FILE is None:
        return
    if main.__spec__ is None and not hasattr(main, "__file__"):
        main.__file__ = _MAIN_FILE


def main_travels() -> bool:
    """Return whether children import the user's main module.

    The rule is multiprocessing's (``spawn.get_preparation_data`` and what it
    leaves out): a script or ``-m module`` does, a package's ``__main__``, a
    notebook, ``-c`` and standard input do not.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    return _is_imported(None if spec is None else spec.name, getattr(main, "__file__", None))


@functools.lru_cache(maxsize=8)
def _is_imported(name: str | None, path: str | None) -> bool:
    # Asked for each job, and the answer costs a look at the file system.
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    if path is None or os.path.splitext(os.path.basename(path))[0] == "ipython":
        return False
    return os.path.exists(path)


def _resolves(obj: Any) -> bool:
    """Return whether *obj* is what its module and qualified name lead to in ``__main__``."""
    found: Any = sys.modules.get("__main__")
    for name in getattr(obj, "__qualname__", "<locals>").split("."):
        found = getattr(found, name, None)
    return found is obj


def _reducers() -> ChainMap[Any, Any]:
    """Return how objects travel that know it not themselves: connections, queues, sockets.

    Without these a connection would be pickled as the bare number of its
    descriptor, which is another file, or none, in the child.
    """
    # A module that another thread imports just now may be there half: then nobody
    # has an object of its kinds yet.
    return _live_table(
        getattr(sys.modules.get("multiprocess.reduction"), "ForkingPickler", None),
        getattr(sys.modules.get("multiprocessing.reduction"), "ForkingPickler", None),
    )


@functools.lru_cache(maxsize=4)
def _live_table(*picklers: Any) -> ChainMap[Any, Any]:
    # Made once, as it is asked for with each job; what is registered later is seen.
    own = [pickler._extra_reducers for pickler in reversed(picklers) if pickler is not None]
    return ChainMap(*own, copyreg.dispatch_table)


def _make_pickler() -> type[pickle.Pickler]:
    # Imported late: cloudpickle costs 20 ms, and most programs never need it.
    import cloudpickle

    class TravelPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """cloudpickle, except that an importable ``__main__`` goes by reference."""

        # Without the last, copyreg's: cloudpickle chains it behind its own.
        dispatch_table = ChainMap(*_reducers().maps[:-1], cloudpickle.Pickler.dispatch_table)

        def reducer_override(self, obj: Any) -> Any:
            if (
                isinstance(obj, (types.FunctionType, type))
                and getattr(obj, "__module__", None) == "__main__"
                and main_travels()
                and _resolves(obj)
            ):
                return NotImplemented
            return super().reducer_override(obj)

    return TravelPickler


def pack(value: Any, what: str) -> bytes:
    """Return *value* as bytes that a child can open.

    Args:
        value: what is to travel.
        what: its name for an error, such as ``"setup_fnc"``.

    Raises:
        PicklingError, TypeError, AttributeError: it cannot travel; the class is
            the one that pickling raised, if it is one of these; the text names the object
            at fault.
    """
    if type(value) in byname.PLAIN:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if main_travels():
        # The fast way: a tenth of cloudpickle's time, and right for everything
        # that an import can find.
        try:
            return _dumps_by_reference(value)
        except Exception:  # noqa: BLE001 - a class may raise whatever it likes
            pass  # cloudpickle may still know how
    try:
        return _dumps(value)
    except Exception as exc:  # noqa: BLE001 - see above
        raise _named(exc, value, what) from exc


def _dumps_by_reference(value: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _reducers()
    pickler.dump(value)
    return buffer.getvalue()


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _make_pickler()(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


# How a job is packed, as the worker that opens it is told.
NAMED: Final = "named call"
PICKLED: Final = "call"
SESSION: Final = "session"


def pack_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, bytes]:
    """Return how a call was packed, and its bytes. Raises what :func:`pack` raises, naming the argument."""
    named = byname.pack(function, args, kwargs)
    if named is not None and (function.__module__ != "__main__" or main_travels()):
        return NAMED, named
    return PICKLED, pack((function, args, kwargs), "")


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# What opens it again, by how it was packed. Each runs the user's code, and raises what that raises.
OPENERS: Final[Mapping[str, Callable[[bytes | bytearray], Call]]] = {
    NAMED: byname.open_call,
    PICKLED: pickle.loads,
}


# ── whose fault is it ────────────────────────────────────────────────────────


def _named(exc: Exception, value: Any, what: str) -> Exception:
    path, culprit = _blame(value, what, _BLAME_DEPTH)
    kind = type(exc) if type(exc) in (TypeError, AttributeError) else pickle.PicklingError
    return kind(
        f"{path or what} cannot be sent to another process: {_short(culprit)} "
        f"cannot be pickled ({type(exc).__name__}: {exc}); create it in the job or in setup_fnc"
    )


def _short(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    name = getattr(value, "__qualname__", None)
    return f"{name} (a {kind})" if isinstance(name, str) else f"a {kind}"


def _travels(value: Any) -> bool:
    try:
        _dumps(value)
    except Exception:  # noqa: BLE001 - a class may raise whatever it likes
        return False
    return True


def _refuses(value: Any) -> bool:
    """Return whether it is *value* itself that refuses, and not something inside of it."""
    try:
        value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - that is the question
        return True
    return False


def _blame(value: Any, path: str, depth: int) -> tuple[str, Any]:
    """Return where in *value* the innermost object is that cannot travel, and the object."""
    if depth > 0:
        for step, part in _parts(value, path):
            if not _travels(part):
                return _blame(part, step, depth - 1)
    return path, value


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if _is_call(value, path):
        function, args, kwargs = value
        name = getattr(function, "__qualname__", repr(function))
        yield f"the function {name}", function
        for number, argument in enumerate(args, 1):
            yield f"argument {number} of {name}", argument
        for key, argument in kwargs.items():
            yield f"argument {key}= of {name}", argument
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield f"{path}[{number}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield f"an element of {path}", item
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value, path)
    elif not _refuses(value):
        for name, item in getattr(value, "__dict__", {}).items():
            yield f"{path}.{name}", item


def _parts_of_function(function: types.FunctionType, path: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"{path}, closed over {name}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet: nothing that could be at fault
    for name in function.__code__.co_names:
        if name in function.__globals__ and not isinstance(
            function.__globals__[name], types.ModuleType
        ):
            yield f"{path}, global {name}", function.__globals__[name]


def _is_call(value: Any, path: str) -> bool:
    return path == "" and isinstance(value, tuple) and len(value) == 3 and callable(value[0])
