"""What a request for jobs may say, and the jobs that it stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from enum import Enum
from typing import Any

import msgspec
import pytest

from supervisor.errors import OptionError
from supervisor.intake import Agent, job_infos
from supervisor.job import JobInfo, Participant, Room, ServerType

ANY = Agent()
PUBLISHERS = Agent("greeter", ServerType.PUBLISHER)


class Name(str, Enum):
    """Text that is more than text."""

    ADA = "ada"


def infos(agent: Agent = ANY, **request: Any) -> list[JobInfo]:
    """Return the jobs of a request; those without an id are called J1, J2 and so on."""
    numbered = (f"J{number}" for number in range(1, 100))
    return job_infos(agent, numbered, **{"room": "studio", **request})


async def nobody() -> AsyncIterator[str]:
    yield "ada"


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"room": ""}, "room='': expected a room's name, or a Room"),
        ({"room": 3}, "room=3: expected a room's name, or a Room"),
        ({"room": "\ud800"}, "room='\\ud800': expected a string without lone surrogates"),
        ({"room": Room("")}, "room.name='': expected a room's name"),
        ({"room": Room(3)}, "room.name=3: expected a room's name"),  # type: ignore[arg-type]
        ({"room": Room("\ud800")}, "room.name='\\ud800': expected a string without lone"),
        ({"room": Room("r", sid=None)}, "room.sid=None: expected a string"),  # type: ignore[arg-type]
        ({"room": Room("r", metadata=b"")}, "room.metadata=b'': expected"),  # type: ignore[arg-type]
        ({"metadata": None}, "metadata=None: expected a string"),
        ({"agent_name": 3}, "agent_name=3: expected a string"),
        ({"agent_name": "\ud800"}, "agent_name='\\ud800': expected a string without lone"),
        ({"job_id": ""}, "job_id='': expected text, or None for an id that is made up"),
        ({"job_id": 3}, "job_id=3: expected a string"),
        ({"job_id": "\ud800"}, "job_id='\\ud800': expected a string without lone surrogates"),
        ({"publishers": None}, "publishers=None: expected a list of identities and Participants"),
        ({"publishers": 5}, "publishers=5: expected a list of identities and Participants"),
        ({"publishers": "ab"}, "publishers='ab': expected a list, such as ['ab']"),
        ({"publishers": b"ab"}, "publishers=b'ab': expected a list, such as [b'ab']"),
        ({"publishers": [""]}, "publishers[0]='': expected an identity, or a Participant"),
        ({"publishers": ["ada", 3]}, "publishers[1]=3: expected an identity, or a Participant"),
        ({"publishers": [Participant("")]}, "publishers[0].identity='': expected an identity"),
        ({"publishers": [Participant(3)]}, "publishers[0].identity=3: expected"),  # type: ignore[arg-type]
        (
            {"publishers": [Participant("a", attributes=None)]},  # type: ignore[arg-type]
            "publishers[0].attributes=None: expected a dict of strings",
        ),
        (
            {"publishers": [Participant("a", attributes={"k": 1})]},  # type: ignore[dict-item]
            "publishers[0].attributes['k']=1: expected a string",
        ),
    ],
)
@pytest.mark.parametrize("agent", [ANY, Agent(type=ServerType.PUBLISHER)], ids=["rooms", "people"])
def test_what_makes_no_sense_is_named(
    agent: Agent, request_: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(OptionError) as caught:
        infos(agent, **request_)
    assert str(caught.value).startswith(complaint)


def test_publishers_of_a_server_that_has_a_job_for_each_room_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"publishers=\['ada'\]: expected nobody: this server has a"
    ):
        infos(publishers=["ada"])
    assert len(infos(publishers=[])) == 1


def test_an_asynchronous_iterable_of_publishers_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a list of identities and Participants"):
        infos(PUBLISHERS, publishers=nobody())


def test_a_server_for_publishers_needs_one() -> None:
    with pytest.raises(OptionError, match="at least one: this server has a job for each"):
        infos(PUBLISHERS)


def test_another_agent_is_not_ours() -> None:
    with pytest.raises(OptionError, match="'greeter', this server's agent"):
        infos(PUBLISHERS, publishers=["ada"], agent_name="other")


def test_whoever_has_no_name_takes_any() -> None:
    (job,) = infos(agent_name="other")
    assert job.agent_name == "other"


def people() -> Iterator[str]:
    yield "ada"
    yield "bob"


@pytest.mark.parametrize("publishers", [["ada", "bob"], ("ada", "bob"), {"ada": 1, "bob": 2}])
def test_each_publisher_has_a_job(publishers: Any) -> None:
    jobs = infos(PUBLISHERS, publishers=publishers, metadata="m")
    assert [(job.id, job.publisher) for job in jobs] == [
        ("J1-1", Participant("ada")),
        ("J1-2", Participant("bob")),
    ]
    assert {(job.metadata, job.agent_name, job.room) for job in jobs} == {
        ("m", "greeter", Room("studio"))
    }


def test_publishers_may_be_any_iterable() -> None:
    assert len(infos(PUBLISHERS, publishers=people())) == 2


def test_subclasses_of_str_travel_as_the_text_that_they_are() -> None:
    (job,) = infos(
        Agent(type=ServerType.PUBLISHER),
        room=Room(Name.ADA, sid=Name.ADA, metadata=Name.ADA),
        metadata=Name.ADA,
        agent_name=Name.ADA,
        job_id=Name.ADA,
        publishers=[Participant(Name.ADA, attributes={Name.ADA: Name.ADA})],
    )
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=JobInfo)
    assert there == job
    assert there.id == "ada"
    assert there.publisher == Participant("ada", attributes={"ada": "ada"})
    assert infos(room=Name.ADA)[0].room == Room("ada")
