"""Names for jobs that were given none."""

from __future__ import annotations

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

from supervisor.ids import job_ids


def test_names_are_numbered_and_two_sources_never_agree() -> None:
    ours, theirs = job_ids(), job_ids()
    first = [next(ours) for _ in range(3)]
    assert all(re.fullmatch(r"J-[0-9a-f]{12}-[1-3]", name) for name in first)
    assert [name.rsplit("-")[-1] for name in first] == ["1", "2", "3"]
    assert next(theirs) not in first


def test_names_are_in_order_for_as_many_as_are_asked_for() -> None:
    names = list(itertools.islice(job_ids(), 100))
    assert [int(name.rsplit("-")[-1]) for name in names] == list(range(1, 101))


def test_threads_that_ask_at_once_get_different_names() -> None:
    names = job_ids()
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(lambda _: list(itertools.islice(names, 500)), range(8)))
    given = [name for batch in batches for name in batch]
    assert len(set(given)) == len(given) == 4000
