"""Which idle worker gets the next job, and which is let go."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.idle import Idle


@dataclass
class One:
    number: int
    jobs_served: int = 0


def idle(*workers: One, reused: bool = False) -> Idle[One]:
    made: Idle[One] = Idle()
    for worker in workers:
        made.add(worker, reused=reused)
    return made


def taken(workers: Idle[One]) -> list[int]:
    return [workers.take().number for _ in range(len(workers))]


def test_the_youngest_is_taken_first() -> None:
    assert taken(idle(One(1), One(2), One(3))) == [3, 2, 1]


def test_the_oldest_is_let_go_first() -> None:
    workers = idle(One(1), One(2), One(3))
    assert [workers.take_stalest().number for _ in range(3)] == [1, 2, 3]
    assert not workers


def test_who_has_served_is_taken_before_a_fresh_one_where_processes_are_reused() -> None:
    assert taken(idle(One(1, jobs_served=5), One(2), One(3), reused=True)) == [1, 2, 3]


def test_one_that_is_gone_is_not_taken() -> None:
    workers = idle(One(1), One(2))
    workers.discard(One(2))
    workers.discard(One(7))
    assert taken(workers) == [1]
