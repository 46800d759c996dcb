"""The conversation with LiveKit, event by event, without a connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from livekit.protocol import agent, models

from supervisor.dispatch.base import Answer
from supervisor.dispatch.livekit.dialogue import (
    Act,
    Ask,
    Await,
    Dialogue,
    GiveBack,
    HangUp,
    Ping,
    Registered,
    Send,
    Start,
    Stop,
)
from supervisor.dispatch.livekit.words import Registration
from supervisor.job import AcceptArguments, JobInfo, JobOutcome, JobStatus


class Place:
    """A place that knows only whose it is."""

    def __init__(self, job_id: str) -> None:
        self.job = JobInfo(job_id, accept_arguments=AcceptArguments(identity=f"agent-{job_id}"))

    def check(self) -> None:
        raise NotImplementedError

    def start(self, *, url: str = "", token: str = "") -> Any:
        raise NotImplementedError

    def give_back(self) -> None:
        raise NotImplementedError


def server(**message: Any) -> bytes:
    return agent.ServerMessage(**message).SerializeToString()


def said(acts: list[Act]) -> list[agent.WorkerMessage]:
    """Return the messages among *acts*."""
    return [agent.WorkerMessage.FromString(act.data) for act in acts if isinstance(act, Send)]


def kinds(acts: list[Act]) -> list[str | None]:
    return [message.WhichOneof("message") for message in said(acts)]


def statuses(acts: list[Act]) -> list[tuple[str, str]]:
    """Return the statuses of jobs among *acts*."""
    return [
        (each.update_job.job_id, agent.JobStatus.Name(each.update_job.status))
        for each in said(acts)
        if each.WhichOneof("message") == "update_job"
    ]


REGISTER = server(register=agent.RegisterWorkerResponse(worker_id="AW_1"))
SUCCESS = JobOutcome(JobStatus.SUCCEEDED)


def offer_of(job_id: str) -> bytes:
    job = agent.Job(id=job_id, room=models.Room(name="studio"))
    return server(availability=agent.AvailabilityRequest(job=job))


def assignment_of(job_id: str) -> bytes:
    return server(assignment=agent.JobAssignment(job=agent.Job(id=job_id), token="t"))


def termination_of(job_id: str) -> bytes:
    return server(termination=agent.JobTermination(job_id=job_id))


@pytest.fixture
def dialogue() -> Dialogue:
    """A dialogue that is registered."""
    made = Dialogue(Registration(agent_name="greeter"))
    made.connected()
    made.received(REGISTER)
    return made


def asked(dialogue: Dialogue, job_id: str) -> int:
    """Have a job offered; return the number of the offer."""
    (act,) = dialogue.received(offer_of(job_id))
    assert isinstance(act, Ask)
    return act.offer


def accepted(dialogue: Dialogue, job_id: str) -> int:
    """Have a job offered and accepted; return the number of the offer."""
    number = asked(dialogue, job_id)
    dialogue.answered(number, job_id, Answer(place=Place(job_id)))
    return number


def running(dialogue: Dialogue, job_id: str) -> None:
    accepted(dialogue, job_id)
    assert [type(act) for act in dialogue.received(assignment_of(job_id))] == [Start]


# ── the connection ───────────────────────────────────────────────────────────


def test_the_first_word_is_the_registration_and_nothing_else() -> None:
    dialogue = Dialogue(Registration(agent_name="greeter"))
    assert dialogue.status(full=False, load=0.1, jobs=0) == []
    assert kinds(dialogue.connected()) == ["register"]
    assert dialogue.status(full=False, load=0.1, jobs=0) == []
    assert not dialogue.is_registered
    (act,) = dialogue.received(REGISTER)
    assert act == Registered("AW_1", "", "")
    assert dialogue.is_registered
    assert kinds(dialogue.status(full=False, load=0.1, jobs=0)) == ["update_worker"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(offer_of("AJ_1"), id="an offer"),
        pytest.param(assignment_of("AJ_1"), id="an assignment"),
        pytest.param(termination_of("AJ_1"), id="a termination"),
        pytest.param(server(pong=agent.WorkerPong()), id="a pong"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff\xff", id="garbage"),
    ],
)
def test_anything_but_an_answer_to_the_registration_ends_the_attempt(data: bytes) -> None:
    dialogue = Dialogue(Registration())
    dialogue.connected()
    (act,) = dialogue.received(data)
    assert isinstance(act, HangUp)
    assert not dialogue.is_registered


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff", id="garbage"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes([0xFA, 0x07, 0x00]), id="a kind of tomorrow"),
        pytest.param(REGISTER, id="a second registration"),
        pytest.param(server(pong=agent.WorkerPong()), id="a pong"),
        pytest.param(server(go_away=agent.AgentHttp.GoAway()), id="a farewell"),
    ],
)
def test_what_makes_no_sense_later_has_no_effect(dialogue: Dialogue, data: bytes) -> None:
    running(dialogue, "AJ_1")
    assert dialogue.received(data) == []
    assert dialogue.is_registered
    assert dialogue.running == ["AJ_1"]


# ── a job ────────────────────────────────────────────────────────────────────


def test_a_job_from_its_offer_to_its_end(dialogue: Dialogue) -> None:
    (ask,) = dialogue.received(offer_of("AJ_1"))
    assert isinstance(ask, Ask)
    assert ask.job.room.name == "studio"
    place = Place("AJ_1")
    acts = dialogue.answered(ask.offer, "AJ_1", Answer(place=place))
    assert kinds(acts) == ["availability"]
    assert acts[-1] == Await(ask.offer, "AJ_1")
    assert dialogue.received(assignment_of("AJ_1")) == [Start(place, "", "t")]
    assert dialogue.overdue(ask.offer, "AJ_1") == []
    assert statuses(dialogue.began("AJ_1")) == [("AJ_1", "JS_RUNNING")]
    assert statuses(dialogue.ended("AJ_1", SUCCESS)) == [("AJ_1", "JS_SUCCESS")]
    assert dialogue.running == []


def test_a_rejected_job_is_answered_and_forgotten(dialogue: Dialogue) -> None:
    number = asked(dialogue, "AJ_1")
    acts = dialogue.answered(number, "AJ_1", Answer(reason="load"))
    assert kinds(acts) == ["availability"]
    assert not said(acts)[0].availability.available
    # LiveKit may try again, and is answered again.
    assert asked(dialogue, "AJ_1") != number


def test_an_assignment_that_never_comes_gives_the_place_back(dialogue: Dialogue) -> None:
    number = accepted(dialogue, "AJ_1")
    (act,) = dialogue.overdue(number, "AJ_1")
    assert isinstance(act, GiveBack)
    # It comes after all: LiveKit must not believe that the job runs.
    assert statuses(dialogue.received(assignment_of("AJ_1"))) == [("AJ_1", "JS_FAILED")]


def test_the_clock_of_an_old_offer_does_not_end_a_new_one(dialogue: Dialogue) -> None:
    old = accepted(dialogue, "AJ_1")
    dialogue.received(termination_of("AJ_1"))
    new = accepted(dialogue, "AJ_1")
    assert dialogue.overdue(old, "AJ_1") == []
    assert len(dialogue.overdue(new, "AJ_1")) == 1


@pytest.mark.parametrize("early", [False, True], ids=["unknown", "not answered yet"])
def test_an_assignment_of_what_was_not_accepted_is_reported_as_failed(
    dialogue: Dialogue, early: bool
) -> None:
    number = asked(dialogue, "AJ_1") if early else 0
    assert statuses(dialogue.received(assignment_of("AJ_1"))) == [("AJ_1", "JS_FAILED")]
    if early:
        place = Place("AJ_1")
        assert dialogue.answered(number, "AJ_1", Answer(place=place)) == [GiveBack(place)]


def test_an_assignment_that_comes_twice_starts_one_job(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    assert dialogue.received(assignment_of("AJ_1")) == []
    dialogue.ended("AJ_1", SUCCESS)
    assert dialogue.received(assignment_of("AJ_1")) == []


def test_a_job_that_cannot_be_started_is_reported_as_failed(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    acts = dialogue.not_started("AJ_1", "not admitted: draining")
    assert statuses(acts) == [("AJ_1", "JS_FAILED")]
    assert said(acts)[0].update_job.error == "not admitted: draining"
    assert dialogue.running == []


def test_jobs_of_others_are_none_of_livekits_business(dialogue: Dialogue) -> None:
    assert dialogue.began("J-local") == []


def test_an_offer_of_no_known_kind_is_declined(dialogue: Dialogue) -> None:
    job = agent.Job(id="AJ_1", type=agent.JobType.JT_PARTICIPANT)
    acts = dialogue.received(server(availability=agent.AvailabilityRequest(job=job)))
    assert [each.availability.available for each in said(acts)] == [False]


# ── duplicates ───────────────────────────────────────────────────────────────


def test_an_offer_that_comes_again_is_asked_once_and_answered_as_often(dialogue: Dialogue) -> None:
    number = asked(dialogue, "AJ_1")
    assert dialogue.received(offer_of("AJ_1")) == []
    acts = dialogue.answered(number, "AJ_1", Answer(place=Place("AJ_1")))
    assert kinds(acts) == ["availability", "availability"]
    again = dialogue.received(offer_of("AJ_1"))
    assert kinds(again) == ["availability"]
    assert said(again)[0].availability.available
    assert said(again)[0] == said(acts)[0]


def test_an_offer_of_a_job_that_runs_here_is_declined(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    acts = dialogue.received(offer_of("AJ_1"))
    assert [each.availability.available for each in said(acts)] == [False]
    assert dialogue.running == ["AJ_1"]


# ── termination ──────────────────────────────────────────────────────────────


def test_a_running_job_is_stopped_and_its_end_is_a_success(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    assert dialogue.received(termination_of("AJ_1")) == [Stop("AJ_1")]
    cancelled = JobOutcome(JobStatus.CANCELLED, reason="cancelled", asked_to_stop=True)
    assert statuses(dialogue.ended("AJ_1", cancelled)) == [("AJ_1", "JS_SUCCESS")]


def test_a_termination_of_a_job_that_has_just_ended_has_no_effect(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    dialogue.ended("AJ_1", SUCCESS)
    assert dialogue.received(termination_of("AJ_1")) == []
    assert dialogue.received(termination_of("AJ_unknown")) == []


def test_a_termination_before_the_assignment_gives_the_place_back(dialogue: Dialogue) -> None:
    accepted(dialogue, "AJ_1")
    (act,) = dialogue.received(termination_of("AJ_1"))
    assert isinstance(act, GiveBack)
    number = asked(dialogue, "AJ_2")
    assert dialogue.received(termination_of("AJ_2")) == []
    place = Place("AJ_2")
    assert dialogue.answered(number, "AJ_2", Answer(place=place)) == [GiveBack(place)]
    number = asked(dialogue, "AJ_3")
    dialogue.received(termination_of("AJ_3"))
    assert dialogue.answered(number, "AJ_3", Answer(reason="load")) == []


# ── losing the connection ────────────────────────────────────────────────────


def reconnected(dialogue: Dialogue) -> list[Act]:
    dialogue.connected()
    return dialogue.received(REGISTER)


def test_what_waits_for_livekit_dies_with_the_connection(dialogue: Dialogue) -> None:
    number = asked(dialogue, "AJ_1")
    accepted(dialogue, "AJ_2")
    running(dialogue, "AJ_3")
    (act,) = dialogue.lost()
    assert isinstance(act, GiveBack)
    assert act.place.job.id == "AJ_2"
    place = Place("AJ_1")
    assert dialogue.answered(number, "AJ_1", Answer(place=place)) == [GiveBack(place)]
    assert dialogue.running == ["AJ_3"]


def test_after_a_reconnect_running_jobs_are_listed_before_anything_else(
    dialogue: Dialogue,
) -> None:
    running(dialogue, "AJ_1")
    running(dialogue, "AJ_2")
    running(dialogue, "AJ_3")
    dialogue.lost()
    dialogue.ended("AJ_2", SUCCESS)
    acts = reconnected(dialogue)
    assert kinds(acts) == ["migrate_job", "update_job"]
    assert list(said(acts)[0].migrate_job.job_ids) == ["AJ_1", "AJ_3"]
    assert statuses(acts) == [("AJ_2", "JS_SUCCESS")]


def test_without_running_jobs_there_is_nothing_to_list(dialogue: Dialogue) -> None:
    dialogue.lost()
    assert [type(act) for act in reconnected(dialogue)] == [Registered]


def test_a_status_is_sent_again_until_it_is_confirmed(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    dialogue.began("AJ_1")
    dialogue.ended("AJ_1", SUCCESS)
    for _ in range(3):
        assert dialogue.has_untold
        dialogue.lost()
        again = statuses(reconnected(dialogue))
        assert again == [("AJ_1", "JS_RUNNING"), ("AJ_1", "JS_SUCCESS")]
    dialogue.lost()
    ping = reconnected(dialogue)[-1]
    assert isinstance(ping, Ping)
    dialogue.confirmed(ping.serial)
    assert not dialogue.has_untold
    dialogue.lost()
    assert statuses(reconnected(dialogue)) == []


def test_a_pong_confirms_what_was_sent_before_it_and_no_more(dialogue: Dialogue) -> None:
    running(dialogue, "AJ_1")
    _, ping = dialogue.began("AJ_1")
    assert isinstance(ping, Ping)
    dialogue.ended("AJ_1", SUCCESS)
    dialogue.confirmed(ping.serial)
    dialogue.lost()
    assert statuses(reconnected(dialogue)) == [("AJ_1", "JS_SUCCESS")]


# ── any order ────────────────────────────────────────────────────────────────

IDS = st.sampled_from(["AJ_1", "AJ_2"])
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["offer", "assign", "terminate", "end", "began"]), IDS),
    st.tuples(st.sampled_from(["yes", "no", "overdue", "not started"]), IDS),
    st.tuples(st.sampled_from(["lost", "connect", "register", "garbage", "pong"]), st.just("")),
)


class World:
    """Plays LiveKit and the host at random, and keeps the books."""

    def __init__(self) -> None:
        self.dialogue = Dialogue(Registration())
        self.asking: dict[int, str] = {}
        self.awaiting: list[tuple[int, str]] = []
        self.kept: set[Place] = set()
        self.started: list[str] = []
        self.finals: list[tuple[str, str]] = []
        self.pings: list[int] = []
        self.state = "offline"

    def play(self, event: str, job_id: str) -> None:
        self.carry_out(self.acts(event, job_id))

    def acts(self, event: str, job_id: str) -> list[Act]:
        dialogue = self.dialogue
        online = self.state != "offline"
        if event == "connect" and not online:
            self.state = "open"
            return dialogue.connected()
        if event == "lost" and online:
            self.state = "offline"
            self.pings.clear()
            return dialogue.lost()
        incoming = {
            "register": REGISTER,
            "offer": offer_of(job_id),
            "assign": assignment_of(job_id),
            "terminate": termination_of(job_id),
            "garbage": b"\xff",
        }
        if event in incoming:
            return dialogue.received(incoming[event]) if online else []
        if event == "pong" and self.pings:
            return dialogue.confirmed(self.pings.pop(0))
        if event in ("yes", "no") and self.asking:
            number = next(iter(self.asking))
            asked_id = self.asking.pop(number)
            if event == "no":
                return dialogue.answered(number, asked_id, Answer(reason="load"))
            place = Place(asked_id)
            self.kept.add(place)
            return dialogue.answered(number, asked_id, Answer(place=place))
        if event == "overdue" and self.awaiting:
            return dialogue.overdue(*self.awaiting.pop(0))
        if event in ("end", "not started") and job_id in self.started:
            self.started.remove(job_id)
            if event == "end":
                return dialogue.ended(job_id, SUCCESS)
            return dialogue.not_started(job_id, "no")
        return dialogue.began(job_id) if event == "began" else []

    def carry_out(self, acts: list[Act]) -> None:
        for act in acts:
            if isinstance(act, (Send, Ping)):
                assert self.state != "offline", "nothing is sent without a connection"
            if isinstance(act, Ping):
                self.pings.append(act.serial)
            elif isinstance(act, Ask):
                self.asking[act.offer] = act.job.id
            elif isinstance(act, Await):
                self.awaiting.append((act.offer, act.job_id))
            elif isinstance(act, (Start, GiveBack)):
                # Each place is used exactly once.
                assert isinstance(act.place, Place)
                self.kept.remove(act.place)
                if isinstance(act, Start):
                    assert act.place.job.id not in self.started, "a job runs once at a time"
                    self.started.append(act.place.job.id)
            elif isinstance(act, Stop):
                assert act.job_id in self.started
            elif isinstance(act, HangUp):
                self.play("lost", "")


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_each_place_is_used_once_and_each_status_arrives(
    events: list[tuple[str, str]],
) -> None:
    world = World()
    for event, job_id in events:
        world.play(event, job_id)
        assert sorted(world.started) == sorted(world.dialogue.running)
    # In the end nothing is kept but by those who are still asked or awaited.
    world.play("lost", "")
    while world.asking:
        world.play("yes", "")
    assert not world.kept
    # And once a connection holds, LiveKit knows everything.
    for job_id in list(world.started):
        world.play("end", job_id)
    world.play("connect", "")
    world.play("register", "")
    while world.pings:
        world.play("pong", "")
    assert not world.dialogue.has_untold
