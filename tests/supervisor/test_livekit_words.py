"""Each message to LiveKit, field by field, and what is made of its messages."""

from __future__ import annotations

from typing import Any

import pytest
from livekit.protocol import agent, models

from supervisor.dispatch.base import Answer
from supervisor.dispatch.livekit import words
from supervisor.dispatch.livekit.words import BadMessage, Registration
from supervisor.errors import OptionError
from supervisor.job import (
    AcceptArguments,
    JobError,
    JobInfo,
    JobOutcome,
    JobStatus,
    Participant,
    Room,
    ServerType,
)
from supervisor.options import AgentServerPermissions


class Place:
    """A place that is not used here."""

    def __init__(self, arguments: AcceptArguments) -> None:
        self.job = JobInfo("AJ_1", accept_arguments=arguments)

    def check(self) -> None:
        raise NotImplementedError

    def start(self, *, url: str = "", token: str = "") -> Any:
        raise NotImplementedError

    def give_back(self) -> None:
        raise NotImplementedError


def fields(message: Any) -> dict[str, Any]:
    """Return the fields that are on the wire, by name."""
    return {field.name: value for field, value in message.ListFields()}


# ── out ──────────────────────────────────────────────────────────────────────


def test_a_registration_says_what_livekits_own_sdk_says() -> None:
    message = words.register(Registration(agent_name="greeter", version="0.1.0"))
    assert fields(message).keys() == {"register"}
    said = fields(message.register)
    assert fields(said.pop("allowed_permissions")) == {
        "can_subscribe": True,
        "can_publish": True,
        "can_publish_data": True,
        "can_update_metadata": True,
        "agent": True,
    }
    # A room's type is 0 and therefore not on the wire.
    assert said == {"agent_name": "greeter", "version": "0.1.0"}


def test_a_registration_for_publishers_in_a_deployment() -> None:
    registration = Registration(ServerType.PUBLISHER, "a", version="1", deployment="blue")
    said = fields(words.register(registration).register)
    assert said["type"] == agent.JobType.JT_PUBLISHER
    assert said["deployment"] == "blue"


def test_permissions_travel_one_by_one() -> None:
    given = AgentServerPermissions(
        can_publish=True,
        can_subscribe=False,
        can_publish_data=False,
        can_update_metadata=False,
        can_publish_sources=("camera", "SCREEN_SHARE"),
    )
    said = words.allowed(given)
    assert said.can_publish
    assert not said.can_subscribe
    assert not said.can_publish_data
    assert not said.can_update_metadata
    assert list(said.can_publish_sources) == [
        models.TrackSource.CAMERA,
        models.TrackSource.SCREEN_SHARE,
    ]


def test_a_hidden_agent_cannot_publish_tracks() -> None:
    said = words.allowed(AgentServerPermissions(can_publish=True, hidden=True))
    assert said.hidden
    assert not said.can_publish
    assert said.can_publish_data


def test_an_unknown_source_is_an_option_error() -> None:
    with pytest.raises(OptionError, match=r"telepathy.*microphone"):
        words.allowed(AgentServerPermissions(can_publish_sources=("telepathy",)))


def test_an_accepted_job() -> None:
    given = AcceptArguments("agent", "me", "meta", {"tier": "vip"})
    message = words.availability("AJ_1", Answer(place=Place(given)), "greeter")
    said = fields(message.availability)
    attributes = dict(said.pop("participant_attributes"))
    assert attributes == {"lk.agent.name": "greeter", "tier": "vip"}
    assert said == {
        "job_id": "AJ_1",
        "available": True,
        "participant_name": "agent",
        "participant_identity": "me",
        "participant_metadata": "meta",
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(reason="rejected"), {"job_id": "AJ_1"}),
        (Answer(reason="load"), {"job_id": "AJ_1"}),
        (Answer(reason="rejected", terminate=True), {"job_id": "AJ_1", "terminate": True}),
    ],
    ids=["rejected", "not admitted", "rejected for good"],
)
def test_a_job_that_is_not_taken(answer: Answer, expected: dict[str, Any]) -> None:
    assert fields(words.availability("AJ_1", answer, "greeter").availability) == expected


def outcome(
    status: JobStatus, *, reason: str = "", error: JobError | None = None, asked: bool = False
) -> JobOutcome:
    return JobOutcome(status, reason=reason, error=error, asked_to_stop=asked)


ERROR = JobError("ValueError", "no such room", "Traceback …")


@pytest.mark.parametrize(
    ("ended", "terminated", "status", "error"),
    [
        (outcome(JobStatus.SUCCEEDED), False, "JS_SUCCESS", ""),
        (outcome(JobStatus.SUCCEEDED), True, "JS_SUCCESS", ""),
        (outcome(JobStatus.FAILED, error=ERROR), False, "JS_FAILED", "ValueError: no such room"),
        (outcome(JobStatus.FAILED, error=ERROR), True, "JS_FAILED", "ValueError: no such room"),
        (outcome(JobStatus.TIMED_OUT, reason="timeout"), False, "JS_FAILED", "timeout"),
        (outcome(JobStatus.KILLED), False, "JS_FAILED", "killed"),
        (outcome(JobStatus.CANCELLED, reason="terminated", asked=True), True, "JS_SUCCESS", ""),
        (outcome(JobStatus.CANCELLED, reason="bye"), False, "JS_SUCCESS", ""),
        (outcome(JobStatus.CANCELLED, reason="drain"), False, "JS_SUCCESS", ""),
        (outcome(JobStatus.CANCELLED, reason="drain", asked=True), False, "JS_FAILED", "drain"),
        (outcome(JobStatus.CANCELLED, reason="fraud", asked=True), False, "JS_FAILED", "fraud"),
        (outcome(JobStatus.SUCCEEDED, reason="fraud", asked=True), False, "JS_SUCCESS", ""),
    ],
    ids=[
        "succeeded",
        "succeeded although it was to end",
        "raised",
        "raised when it was to end",
        "over its timeout",
        "killed",
        "ended by LiveKit",
        "ended by itself",
        "ended by itself, for a reason that a drain gives too",
        "cut short by a drain",
        "cut short by the server's own code",
        "succeeded although the server's own code asked it to stop",
    ],
)
def test_how_a_job_ended(ended: JobOutcome, terminated: bool, status: str, error: str) -> None:
    said = words.ended("AJ_1", ended, terminated=terminated).update_job
    assert (said.job_id, agent.JobStatus.Name(said.status), said.error) == ("AJ_1", status, error)


def test_the_text_of_an_error_is_bounded() -> None:
    assert len(words.failed("AJ_1", "x" * 10**6).update_job.error) == 2000


def test_a_server_that_is_full_says_so() -> None:
    said = words.worker_status(full=True, load=0.5, jobs=3).update_worker
    assert fields(said) == {"status": agent.WorkerStatus.WS_FULL, "load": 0.5, "job_count": 3}
    free = words.worker_status(full=False, load=0.0, jobs=0).update_worker
    assert free.HasField("status")  # although it is zero
    assert free.status == agent.WorkerStatus.WS_AVAILABLE


def test_running_jobs_are_listed_by_their_ids() -> None:
    said = words.migrate(["AJ_1", "AJ_2"]).migrate_job
    assert fields(said) == {"job_ids": ["AJ_1", "AJ_2"]}


# ── in ───────────────────────────────────────────────────────────────────────


def test_an_offer_becomes_a_job() -> None:
    offer = agent.AvailabilityRequest(
        job=agent.Job(
            id="AJ_1",
            dispatch_id="AD_1",
            type=agent.JobType.JT_PUBLISHER,
            room=models.Room(name="studio", sid="RM_1", metadata="room's"),
            participant=models.ParticipantInfo(
                identity="ann", name="Ann", sid="PA_1", metadata="hers", attributes={"a": "b"}
            ),
            metadata="job's",
            agent_name="greeter",
        ),
        resuming=True,
    )
    assert words.job_info(offer) == JobInfo(
        id="AJ_1",
        room=Room("studio", "RM_1", "room's"),
        type=ServerType.PUBLISHER,
        metadata="job's",
        agent_name="greeter",
        publisher=Participant("ann", "Ann", "PA_1", "hers", {"a": "b"}),
        dispatch_id="AD_1",
        resuming=True,
    )


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (agent.Job(), "without a job id"),
        (agent.Job(id="J", type=agent.JobType.JT_PARTICIPANT), "unknown kind"),
        (agent.Job(id="J", type=agent.JobType.JT_PUBLISHER), "names none"),
    ],
)
def test_an_offer_that_nobody_can_take(job: agent.Job, said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        words.job_info(agent.AvailabilityRequest(job=job))


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x7f", b"GET / HTTP/1.1"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        words.parse(data)
