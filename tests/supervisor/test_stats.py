"""What a pool tells about itself."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, strategies as st

from supervisor.stats import PoolStats

NAMES = [field.name for field in dataclasses.fields(PoolStats)]

snapshots = st.builds(PoolStats, **{name: st.integers(0, 1000) for name in NAMES})


def test_a_count_is_of_now_of_all_time_or_the_largest() -> None:
    assert NAMES[:6] == ["spawning", "warming", "idle", "running", "stopping", "waiting"]
    assert all(name.startswith(("total_", "peak_")) for name in NAMES[6:])


@given(snapshots)
def test_who_waits_is_no_worker(stats: PoolStats) -> None:
    workers = (stats.spawning, stats.warming, stats.idle, stats.running, stats.stopping)
    assert stats.alive == sum(workers)


@given(snapshots)
def test_it_is_plain_data(stats: PoolStats) -> None:
    assert list(stats.as_dict()) == NAMES
    assert PoolStats(**json.loads(json.dumps(stats.as_dict()))) == stats


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoolStats().idle = 1  # type: ignore[misc]  # what is tested
