"""From what a request says to the jobs that it stands for, checked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from supervisor.checks import check_id, check_pairs, check_text
from supervisor.errors import OptionError
from supervisor.job import JobInfo, Participant, Room, ServerType, accept_by_default


@dataclass(frozen=True)
class Agent:
    """What a server's entrypoint was registered as: its name, and what it is started for."""

    name: str = ""
    type: ServerType = ServerType.ROOM


def job_infos(
    agent: Agent,
    ids: Iterator[str],
    *,
    room: object,
    metadata: object = "",
    publishers: object = (),
    agent_name: object = None,
    job_id: object = None,
) -> list[JobInfo]:
    """Return the jobs of one request: one for each publisher, or one.

    Args:
        agent: what the jobs are for.
        ids: names for jobs that are given none.
        room: and the others: as ``AgentServer.submit_job`` takes them.

    Raises:
        OptionError: something is not what it should be.
    """
    # The first as the second would: most rooms are names, and this is on each job's way.
    is_name = isinstance(room, str) and room != ""
    checked_room = Room(check_text("room", room)) if is_name else _room(room)
    # Asked first: most requests name nobody, and this is on each job's way.
    people = _participants(publishers) if publishers != () else []
    job_id = next(ids) if job_id is None else check_id("job_id", job_id)
    base = JobInfo(
        job_id,
        checked_room,
        agent.type,
        "" if metadata == "" else check_text("metadata", metadata),
        agent.name if agent_name is None else _name(agent, agent_name),
        accept_arguments=accept_by_default(job_id),
    )
    if agent.type is ServerType.ROOM:
        if people:
            raise OptionError(
                "publishers", publishers, "nobody: this server has a job for each room"
            )
        return [base]
    if not people:
        raise OptionError("publishers", [], "at least one: this server has a job for each")
    names = [job_id] if len(people) == 1 else [f"{job_id}-{n + 1}" for n in range(len(people))]
    return [
        msgspec.structs.replace(
            base, id=name, publisher=person, accept_arguments=accept_by_default(name)
        )
        for name, person in zip(names, people, strict=True)
    ]


def _room(room: object) -> Room:
    if not isinstance(room, Room):
        raise OptionError("room", room, "a room's name, or a Room")
    return Room(
        _named("room.name", room.name, "a room's name"),
        sid=check_text("room.sid", room.sid),
        metadata=check_text("room.metadata", room.metadata),
    )


def _participants(people: object) -> list[Participant]:
    if isinstance(people, (str, bytes, bytearray)):
        raise OptionError("publishers", people, f"a list, such as [{people!r}]")
    if not isinstance(people, Iterable):
        raise OptionError("publishers", people, "a list of identities and Participants")
    return [_participant(f"publishers[{n}]", person) for n, person in enumerate(people)]


def _participant(name: str, person: object) -> Participant:
    if isinstance(person, Participant):
        return Participant(
            _named(f"{name}.identity", person.identity, "an identity"),
            name=check_text(f"{name}.name", person.name),
            sid=check_text(f"{name}.sid", person.sid),
            metadata=check_text(f"{name}.metadata", person.metadata),
            attributes=check_pairs(f"{name}.attributes", person.attributes),
        )
    return Participant(_named(name, person, "an identity, or a Participant"))


def _named(name: str, value: object, expected: str) -> str:
    if not isinstance(value, str) or not value:
        raise OptionError(name, value, expected)
    return check_text(name, value)


def _name(agent: Agent, asked: object) -> str:
    name = check_text("agent_name", asked)
    if agent.name and name != agent.name:
        raise OptionError("agent_name", asked, f"{agent.name!r}, this server's agent")
    return name
