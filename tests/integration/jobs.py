"""Functions that tests run in workers. By name here, so that they travel by reference."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from supervisor import JobProcess, get_job_context


def double(number: int) -> int:
    return number * 2


def pid() -> int:
    return os.getpid()


def raise_value_error(text: str) -> None:
    raise ValueError(text)


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def exit_hard(status: int) -> None:
    os._exit(status)


def exit_softly(status: int) -> None:
    sys.exit(status)


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


async def sleep_for_ever_async() -> None:
    await asyncio.Event().wait()


def setup_marker(proc: JobProcess) -> None:
    proc.userdata["marker"] = "warm"


def read_marker() -> Any:
    return get_job_context().proc.userdata.get("marker")


def identity(value: Any) -> Any:
    return value
