"""From what a request says to the jobs that it stands for, checked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from supervisor.checks import check_text
from supervisor.errors import OptionError
from supervisor.job import JobInfo, Participant, Room, ServerType


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
    publishers: Iterable[object] = (),
    agent_name: str | None = None,
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
    checked_room = _room(room)
    people = list(map(_participant, publishers))
    base = JobInfo(
        id=next(ids) if job_id is None else _id(job_id),
        room=checked_room,
        type=agent.type,
        metadata=check_text("metadata", metadata),
        agent_name=agent.name if agent_name is None else _name(agent, agent_name),
    )
    if agent.type is ServerType.ROOM:
        return [base]
    if not people:
        raise OptionError("publishers", [], "at least one: this server has a job for each")
    many = len(people) > 1
    return [
        msgspec.structs.replace(
            base, id=f"{base.id}-{number}" if many else base.id, publisher=person
        )
        for number, person in enumerate(people, 1)
    ]


def _room(room: object) -> Room:
    if isinstance(room, Room):
        return room
    if not isinstance(room, str) or not room:
        raise OptionError("room", room, "a room's name, or a Room")
    return Room(check_text("room", room))


def _participant(person: object) -> Participant:
    if isinstance(person, Participant):
        return person
    if not isinstance(person, str) or not person:
        raise OptionError("publishers", person, "an identity, or a Participant")
    return Participant(check_text("publishers", person))


def _id(job_id: object) -> str:
    if not isinstance(job_id, str) or not job_id:
        raise OptionError("job_id", job_id, "text, or None for an id that is made up")
    return check_text("job_id", job_id)


def _name(agent: Agent, asked: str) -> str:
    if agent.name and asked != agent.name:
        raise OptionError("agent_name", asked, f"{agent.name!r}, this server's agent")
    return asked
