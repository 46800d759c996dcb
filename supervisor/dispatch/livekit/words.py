"""LiveKit's messages, made from our words and turned into them. Pure.

There a "worker" is our server. Fields that LiveKit's own Python SDK does not send
are not sent here either, so that a server cannot tell the two apart by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError
from livekit.protocol import agent, models

from supervisor.dispatch.base import Answer
from supervisor.errors import OptionError
from supervisor.job import JobInfo, JobOutcome, JobStatus, Participant, Room, ServerType
from supervisor.options import AgentServerPermissions

AGENT_NAME_ATTRIBUTE: Final = "lk.agent.name"
TERMINATED: Final = "terminated"

# LiveKit shows the text in lists; the whole traceback is in our log.
MAX_ERROR_CHARACTERS: Final = 2000

_TYPES: Final = {
    ServerType.ROOM: agent.JobType.JT_ROOM,
    ServerType.PUBLISHER: agent.JobType.JT_PUBLISHER,
}


class BadMessage(Exception):
    """What LiveKit sent is none of its messages, or lacks what it must have."""


@dataclass(frozen=True)
class Registration:
    """What we register as.

    Args:
        type: what a job is for.
        agent_name: empty: jobs come for every room, without being asked for.
        permissions: what LiveKit may put into the tokens of our jobs.
        version: ours.
        deployment: the variant of the agent, for LiveKit Cloud.
    """

    type: ServerType = ServerType.ROOM
    agent_name: str = ""
    permissions: AgentServerPermissions = field(default_factory=AgentServerPermissions)
    version: str = ""
    deployment: str = ""


# ── out ──────────────────────────────────────────────────────────────────────


def register(registration: Registration) -> agent.WorkerMessage:
    """Return the first message of a connection."""
    return agent.WorkerMessage(
        register=agent.RegisterWorkerRequest(
            type=_TYPES[registration.type],
            agent_name=registration.agent_name,
            version=registration.version,
            allowed_permissions=allowed(registration.permissions),
            deployment=registration.deployment,
        )
    )


def allowed(permissions: AgentServerPermissions) -> models.ParticipantPermission:
    """Return what LiveKit may put into a job's token.

    Nobody could see who publishes if a hidden agent did, so it may not.

    Raises:
        OptionError: a source that LiveKit does not know.
    """
    return models.ParticipantPermission(
        can_publish=permissions.can_publish and not permissions.hidden,
        can_subscribe=permissions.can_subscribe,
        can_publish_data=permissions.can_publish_data,
        can_update_metadata=permissions.can_update_metadata,
        can_publish_sources=[_source(each) for each in permissions.can_publish_sources],
        hidden=permissions.hidden,
        agent=True,
    )


def _source(name: str) -> str:
    known = models.TrackSource.keys()
    if name.upper() not in known:
        names = ", ".join(each.lower() for each in known)
        raise OptionError("permissions.can_publish_sources", name, f"one of {names}")
    return name.upper()


def availability(job_id: str, answer: Answer, agent_name: str) -> agent.WorkerMessage:
    """Return our answer to an offer."""
    if not answer.accepted:
        return agent.WorkerMessage(
            availability=agent.AvailabilityResponse(
                job_id=job_id, available=False, terminate=answer.terminate
            )
        )
    given = answer.arguments
    return agent.WorkerMessage(
        availability=agent.AvailabilityResponse(
            job_id=job_id,
            available=True,
            participant_name=given.name,
            participant_identity=given.identity,
            participant_metadata=given.metadata,
            participant_attributes={AGENT_NAME_ATTRIBUTE: agent_name, **given.attributes},
        )
    )


def running(job_id: str) -> agent.WorkerMessage:
    """Return the news that a job has begun."""
    status = agent.UpdateJobStatus(job_id=job_id, status=agent.JobStatus.JS_RUNNING)
    return agent.WorkerMessage(update_job=status)


def failed(job_id: str, error: str) -> agent.WorkerMessage:
    """Return the news that a job has failed."""
    return agent.WorkerMessage(
        update_job=agent.UpdateJobStatus(
            job_id=job_id, status=agent.JobStatus.JS_FAILED, error=error[:MAX_ERROR_CHARACTERS]
        )
    )


def ended(job_id: str, outcome: JobOutcome, *, terminated: bool) -> agent.WorkerMessage:
    """Return the news of how a job ended.

    A job that ended because LiveKit said so, or because it ended its own session, is
    a success. One that somebody else cut short (a drain, an operator, the server's
    own code by its handle) has failed, for the reason that was given: the protocol
    has a ``JS_CANCELLED``, but servers take only success and failure for an end, and
    would believe that the job goes on.

    Args:
        job_id: which.
        outcome: how it ended.
        terminated: LiveKit had asked us to end it.
    """
    if outcome.status is JobStatus.CANCELLED:
        is_good = terminated or not outcome.asked_to_stop
    else:
        is_good = outcome.status is JobStatus.SUCCEEDED
    if is_good:
        done = agent.UpdateJobStatus(job_id=job_id, status=agent.JobStatus.JS_SUCCESS)
        return agent.WorkerMessage(update_job=done)
    return failed(job_id, str(outcome.error or outcome.reason or outcome.status.value))


def migrate(job_ids: Iterable[str]) -> agent.WorkerMessage:
    """Return the list of jobs that run here, for a server that does not know us yet."""
    return agent.WorkerMessage(migrate_job=agent.MigrateJobRequest(job_ids=list(job_ids)))


def worker_status(*, full: bool, load: float, jobs: int) -> agent.WorkerMessage:
    """Return how busy we are. A server picks us with a probability of 1 - load."""
    status = agent.WorkerStatus.WS_FULL if full else agent.WorkerStatus.WS_AVAILABLE
    return agent.WorkerMessage(
        update_worker=agent.UpdateWorkerStatus(status=status, load=load, job_count=jobs)
    )


# ── in ───────────────────────────────────────────────────────────────────────


def parse(data: bytes) -> agent.ServerMessage:
    """Return the message in *data*.

    Raises:
        BadMessage: there is none.
    """
    try:
        return agent.ServerMessage.FromString(data)
    except DecodeError:
        raise BadMessage(f"{len(data)} bytes are no message") from None


def job_info(offer: agent.AvailabilityRequest) -> JobInfo:
    """Return the job that is offered.

    Raises:
        BadMessage: it has no id, or is of a kind that we did not register for.
    """
    job = offer.job
    if not job.id:
        raise BadMessage("an offer without a job id")
    kinds = {number: kind for kind, number in _TYPES.items()}
    if job.type not in kinds:
        raise BadMessage(f"job {job.id} is of the unknown kind {job.type}")
    kind = kinds[job.type]
    if kind is ServerType.PUBLISHER and not job.participant.identity:
        raise BadMessage(f"job {job.id} is for a publisher and names none")
    return JobInfo(
        id=job.id,
        room=Room(job.room.name, job.room.sid, job.room.metadata),
        type=kind,
        metadata=job.metadata,
        agent_name=job.agent_name,
        publisher=participant(job.participant) if job.HasField("participant") else None,
        dispatch_id=job.dispatch_id,
        resuming=offer.resuming,
    )


def participant(info: models.ParticipantInfo) -> Participant:
    """Return somebody in a room."""
    return Participant(
        identity=info.identity,
        name=info.name,
        sid=info.sid,
        metadata=info.metadata,
        attributes=dict(info.attributes),
    )
