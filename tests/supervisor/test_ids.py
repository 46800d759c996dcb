"""Names for jobs that were given none."""

from __future__ import annotations

import re

from supervisor.ids import job_ids


def test_names_are_numbered_and_two_sources_never_agree() -> None:
    ours, theirs = job_ids(), job_ids()
    first = [next(ours) for _ in range(3)]
    assert all(re.fullmatch(r"J-[0-9a-f]{12}-[1-3]", name) for name in first)
    assert [name.rsplit("-")[-1] for name in first] == ["1", "2", "3"]
    assert next(theirs) not in first
