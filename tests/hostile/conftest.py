"""A stage for played children, and the leak check of the integration tests for real ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostile.stage import Stage, SteppedLoop, stepped_loop
from tests.integration.conftest import _leaves_nothing, greenroom_subreaper, leaves_nothing

__all__ = ["_leaves_nothing", "greenroom_subreaper", "leaves_nothing"]


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    """A loop whose clock the test puts forward."""
    with stepped_loop() as stepped:
        yield stepped


@pytest.fixture
def stage(loop: SteppedLoop) -> Iterator[Stage]:
    """A pool's workers with played children; whatever the test did, it ends as it must."""
    made = Stage(loop)
    yield made
    ends_well(made)


def ends_well(stage: Stage) -> None:
    """Finish *stage* and check what must hold after any history."""
    stage.finish()
    assert not stage.errors, f"raised on the loop: {stage.errors}"
    assert not stage.workers.all
    for handle in stage.handles:
        assert len(stage.outcomes.get(handle.id, [])) == 1, f"{handle} has not one outcome"


class Records(logging.Handler):
    """Keeps every record."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What arrives at the root logger, of any level."""
    root: Any = logging.getLogger()
    kept, level = Records(), root.level
    root.addHandler(kept)
    root.setLevel(1)
    yield kept.all
    root.setLevel(level)
    root.removeHandler(kept)
