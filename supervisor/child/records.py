"""A worker's log record, made fit to travel: plain, bounded, and never raising.

Everything about a record may be the user's: its arguments, its extras, their
``__repr__``, the fields of its job. All of it is called here, outside any lock,
in the thread that logs. What raises is replaced by a text that says so: a log
call must not fail because of what it was to log, and nothing is lost silently.

What is no ``Exception`` passes through on purpose: ``JobCancelled`` comes out of a
signal handler, not out of the record; to swallow it would be to overlook that the job
is to stop. ``SystemExit`` and ``KeyboardInterrupt`` are not ours to judge.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Final

import msgspec

from ipc.errors import NotEncodable
from ipc.frames import MAX_FRAME_BYTES
from ipc.messages import MAX_TEXT, Log, cut, encode
from supervisor.clock import wall

# Bounds of the fields of one record, all together. Fields are for looking things
# up; who logs a whole document puts it into the message, which may be longer.
MAX_DEPTH: Final = 4
MAX_NODES: Final = 256
MAX_FIELD_CHARACTERS: Final = 32 * 1024

# Names of loggers, files, functions and threads. Linux's PATH_MAX is 4096.
MAX_NAME: Final = 4096

Fields = Callable[[], Mapping[str, object]]

# What a record has by itself; everything else was passed as ``extra``. The last
# two are set by formatters, and ``taskName`` by Python 3.12 and newer.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}

_INT64: Final = range(-(2**63), 2**64)


def from_logging(record: logging.LogRecord, fields: Fields) -> Log:
    """Return what is sent for a record of the standard library. Does not change it."""
    return Log(
        level=int(record.levelno),
        logger=_short(record.name),
        message=_message(record),
        created=float(record.created),
        path=_short(record.pathname),
        line=int(record.lineno or 0),
        function=_short(record.funcName),
        thread=_short(record.threadName),
        exception=_exception(record),
        fields=_all_fields(fields, _extras(record)),
    )


def from_loguru(record: Mapping[str, Any], fields: Fields) -> Log:
    """Return what is sent for a record of loguru. Its message is formatted already."""
    raised = record["exception"]
    return Log(
        level=int(record["level"].no),
        logger=_short(record["name"] or "root"),
        message=cut(str(record["message"])),
        created=float(record["time"].timestamp()),
        path=_short(record["file"].path),
        line=int(record["line"]),
        function=_short(record["function"]),
        thread=_short(record["thread"].name),
        exception=None if raised is None else _traceback(*raised),
        fields=_all_fields(fields, record["extra"]),
    )


def instead(level: int, logger: str, what: str) -> Log:
    """Return the record that is sent in the place of one that could not be made."""
    return Log(
        level=level,
        logger=_short(logger),
        message=cut(f"a log record was lost: {what}"),
        created=wall(),
        path="",
        line=0,
        function="",
        thread="",
    )


def encoded(log: Log, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Return *log* as a payload of at most *max_bytes* (16 KiB or more).

    Texts are cut as far as is needed for that. A text that UTF-8 cannot carry
    (lone surrogates, as in names of odd files) is escaped.
    """
    try:
        payload = encode(log)
    except NotEncodable:
        log = _exact(log)
        payload = encode(log)
    limit = MAX_TEXT
    while len(payload) > max_bytes:
        # Halving ends: at 256 characters a text has 2 KiB at most, however it is
        # encoded, and there are six of them.
        limit = max(256, limit // 2)
        log = _shorter(log, limit, max_bytes)
        payload = encode(log)
    return payload


def safe_repr(value: object, limit: int = MAX_FIELD_CHARACTERS) -> str:
    """Return ``repr(value)``, cut at *limit* characters; if it raises, a text that says so."""
    if isinstance(value, (bytes, bytearray)) and len(value) > limit:
        return f"<{len(value)} bytes, beginning with {bytes(value[:64])!r}>"
    try:
        return cut(repr(value), limit)
    except Exception as exc:  # noqa: BLE001 - the user's __repr__
        return f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"


def plain_fields(fields: Mapping[str, object]) -> dict[str, Any]:
    """Return *fields* made of None, bool, int, float, str, list and dict alone, bounded."""
    plainer = _Plainer()
    return {
        _name(key): plainer.plain(value, MAX_DEPTH)
        for key, value in itertools.islice(fields.items(), MAX_NODES)
    }


class _Plainer:
    """Makes values plain, within one budget for all that it is given."""

    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._characters = MAX_FIELD_CHARACTERS

    def plain(self, value: object, depth: int) -> object:
        if value is None or value is True or value is False:
            return value
        # Exact types from here on: the encoder knows no subclass of str.
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, int):
            number = int.__int__(value)
            return number if number in _INT64 else self._text(safe_repr(value))
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            return self._container(value, depth)
        return self._text(safe_repr(value))

    def _container(self, value: Collection[object], depth: int) -> object:
        if depth == 0 or self._nodes <= 0:
            return f"<{type(value).__name__} of {len(value)}>"
        try:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            items = list(itertools.islice(pairs, self._nodes))
        except Exception as exc:  # noqa: BLE001 - another thread changes it, or it is a subclass
            return f"<{type(value).__name__} that raises {type(exc).__name__}>"
        self._nodes -= len(items)
        left_out = len(value) - len(items)
        if isinstance(value, dict):
            mapping = {_name(key): self.plain(each, depth - 1) for key, each in items}
            return {**mapping, "…": f"{left_out} left out"} if left_out > 0 else mapping
        sequence = [self.plain(each, depth - 1) for _, each in items]
        return [*sequence, f"… {left_out} left out"] if left_out > 0 else sequence

    def _text(self, text: str) -> str:
        # Once the budget is used up a field still shows how it begins and ends.
        text = cut(text, max(64, self._characters))
        self._characters -= len(text)
        return text


def _short(value: object) -> str:
    if value is None:
        return ""
    return cut(value if isinstance(value, str) else safe_repr(value), MAX_NAME)


def _name(key: object) -> str:
    return cut(str.__str__(key) if isinstance(key, str) else safe_repr(key), 256)


def _message(record: logging.LogRecord) -> str:
    try:
        return cut(record.getMessage())
    except Exception as exc:  # noqa: BLE001 - the user's arguments, and their __str__
        return cut(
            f"a log message could not be formatted ({type(exc).__name__}: {safe_repr(exc, 1024)}): "
            f"{safe_repr(record.msg)} with {safe_repr(record.args)}"
        )


def _exception(record: logging.LogRecord) -> str | None:
    text = record.exc_text
    if not text and record.exc_info and record.exc_info[0] is not None:
        text = _traceback(*record.exc_info)
    if record.stack_info:
        # Where formatters put it: after the exception.
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return None if not text else cut(text)


def _traceback(
    kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
) -> str:
    try:
        return cut("".join(traceback.format_exception(kind, value, trace)).rstrip("\n"))
    except Exception as exc:  # noqa: BLE001 - the user's exception class
        return f"{safe_repr(kind)}, which could not be formatted: {type(exc).__name__}"


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _all_fields(fields: Fields, extras: Mapping[str, object]) -> dict[str, Any]:
    try:
        merged: dict[str, object] = dict(fields())
    except Exception as exc:  # noqa: BLE001 - the user's mapping
        merged = {"log_context_fields": f"unreadable: {type(exc).__name__}"}
    # What one call says of itself counts for more than what holds for its job.
    merged.update(extras)
    return plain_fields(merged) if merged else {}


def _exact(log: Log) -> Log:
    """Return *log* with exactly the types that the wire has."""
    return Log(
        level=int(log.level),
        logger=_valid(log.logger),
        message=_valid(log.message),
        created=float(log.created),
        path=_valid(log.path),
        line=int(log.line),
        function=_valid(log.function),
        thread=_valid(log.thread),
        exception=None if log.exception is None else _valid(log.exception),
        fields={_valid(name): _valid_field(value) for name, value in log.fields.items()},
    )


def _valid(text: str) -> str:
    return str.__str__(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _valid_field(value: object) -> object:
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, dict):
        return {_valid(name): _valid_field(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_valid_field(each) for each in value]
    return value


def _shorter(log: Log, limit: int, max_bytes: int) -> Log:
    fields = log.fields
    if len(msgspec.msgpack.encode(fields)) > max_bytes // 4:
        fields = {"…": f"{len(fields)} fields left out: too large"}
    return Log(
        level=log.level,
        logger=cut(log.logger, limit),
        message=cut(log.message, limit),
        created=log.created,
        path=cut(log.path, limit),
        line=log.line,
        function=cut(log.function, limit),
        thread=cut(log.thread, limit),
        exception=None if log.exception is None else cut(log.exception, limit),
        fields=fields,
    )
