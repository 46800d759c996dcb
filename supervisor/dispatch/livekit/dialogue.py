"""The conversation with LiveKit, without a connection: events in, acts out.

It outlives connections, as jobs do. One connection after the other::

    OFFLINE ──connected──► REGISTERING ──register──► REGISTERED ──lost──► OFFLINE

One job::

    offer ──► ASKING ──yes──► AWAITING ──assignment──► RUNNING ──ended──► told
                └─no─► answered   └─overdue, terminated, lost─► given back

Rule 1: what waits for an answer of LiveKit dies with the connection. A server
forgets its offers when a worker is gone, so their places are given back at once.
What runs is not touched: a job needs us only to tell how it ended.
Rule 2: the status of a job is kept until it is known to have arrived. LiveKit
confirms nothing, but frames arrive in order: so each status is followed by a
ping, and its pong stands for everything before it. What is unconfirmed when a
connection ends is sent again, first thing on the next.
Rule 3: LiveKit may say what it likes in whatever order. What cannot be true is
logged and has no effect, except before the registration, where it ends the
attempt. A job that LiveKit believes to run here and that does not is reported as
failed, so that nobody waits for it.
"""

from __future__ import annotations

import enum
import itertools
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Union

from livekit.protocol import agent

from supervisor.dispatch.base import Answer, Place
from supervisor.dispatch.livekit import words
from supervisor.dispatch.livekit.words import BadMessage, Registration
from supervisor.job import JobInfo, JobOutcome

logger = logging.getLogger("greenroom.dispatch.livekit")

# Jobs whose end is remembered, so that an echo of them is known as one.
MAX_REMEMBERED: Final = 1000


# ── acts ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Send:
    """Send *data*, in the order of the acts."""

    data: bytes


@dataclass(frozen=True)
class Ping:
    """Send a ping that carries *serial*; its pong is :meth:`Dialogue.confirmed`."""

    serial: int


@dataclass(frozen=True)
class Registered:
    """LiveKit knows us, as *worker_id*."""

    worker_id: str
    version: str
    region: str


@dataclass(frozen=True)
class Ask:
    """Offer *job* to the host; its word is :meth:`Dialogue.answered`."""

    offer: int
    job: JobInfo


@dataclass(frozen=True)
class Await:
    """Start the clock of an assignment; when it is over: :meth:`Dialogue.overdue`."""

    offer: int
    job_id: str


@dataclass(frozen=True)
class Start:
    """Start the job in *place*. If that fails: :meth:`Dialogue.not_started`."""

    place: Place
    url: str
    token: str


@dataclass(frozen=True)
class GiveBack:
    """The job of *place* does not come."""

    place: Place


@dataclass(frozen=True)
class Stop:
    """Ask the running job to stop."""

    job_id: str


@dataclass(frozen=True)
class HangUp:
    """End the connection: the other side does not speak the protocol."""

    reason: str


Act = Union[Send, Ping, Registered, Ask, Await, Start, GiveBack, Stop, HangUp]


# ── the conversation ─────────────────────────────────────────────────────────


class Line(enum.Enum):
    """How the connection stands."""

    OFFLINE = "offline"
    REGISTERING = "registering"  # connected, and our name was said
    REGISTERED = "registered"


@dataclass
class _Offer:
    """One offer that LiveKit has made and that is not settled. Place: it was accepted."""

    number: int
    times: int = 1  # the same offer may come again before it was answered
    answer: Answer | None = None


class Dialogue:
    """What we and LiveKit have said to each other, and what follows from it.

    Every method takes what happened and returns what is to be done, in order.

    Args:
        registration: what we register as.
    """

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._line = Line.OFFLINE
        self._offers: dict[str, _Offer] = {}
        self._running: dict[str, bool] = {}  # job id: LiveKit asked us to end it
        self._over: OrderedDict[str, None] = OrderedDict()
        # Statuses that are not known to have arrived, by their serial, oldest first.
        self._unconfirmed: OrderedDict[int, bytes] = OrderedDict()
        self._numbers = itertools.count(1)

    @property
    def is_registered(self) -> bool:
        """True while LiveKit knows us."""
        return self._line is Line.REGISTERED

    @property
    def has_untold(self) -> bool:
        """True while a status is not known to have arrived."""
        return bool(self._unconfirmed)

    @property
    def running(self) -> list[str]:
        """The ids of jobs that LiveKit gave us and that have not ended."""
        return list(self._running)

    # ── the connection ───────────────────────────────────────────────────────

    def connected(self) -> list[Act]:
        """A connection is open."""
        assert self._line is Line.OFFLINE, "there is one connection at a time"
        self._line = Line.REGISTERING
        return [_send(words.register(self._registration))]

    def lost(self) -> list[Act]:
        """The connection has ended, whoever ended it."""
        self._line = Line.OFFLINE
        offers, self._offers = self._offers, {}
        answers = [offer.answer for offer in offers.values()]
        return [GiveBack(each.place) for each in answers if each is not None and each.place]

    def confirmed(self, serial: int) -> list[Act]:
        """The pong of the ping *serial* has come."""
        while self._unconfirmed and next(iter(self._unconfirmed)) <= serial:
            self._unconfirmed.popitem(last=False)
        return []

    def received(self, data: bytes) -> list[Act]:
        """LiveKit sent *data*."""
        try:
            message = words.parse(data)
            kind = message.WhichOneof("message")
            if self._line is Line.REGISTERING:
                return self._registered(message.register if kind == "register" else None, kind)
            if kind == "availability":
                return self._offered(message.availability)
            if kind == "assignment":
                return self._assigned(message.assignment)
            if kind == "termination":
                return self._terminated(message.termination.job_id)
        except BadMessage as exc:
            logger.warning("LiveKit sent what it should not: %s", exc)
            return self._hang_up(str(exc))
        if kind == "go_away":
            logger.info("LiveKit is going away; the connection will be made anew when it ends")
        elif kind != "pong":
            logger.warning("a message of LiveKit is ignored: %s", kind or "of an unknown kind")
        return []

    def _hang_up(self, reason: str) -> list[Act]:
        return [HangUp(reason)] if self._line is Line.REGISTERING else []

    def _registered(
        self, response: agent.RegisterWorkerResponse | None, kind: str | None
    ) -> list[Act]:
        if response is None:
            return [HangUp(f"it answered a registration with {kind or 'an unknown message'}")]
        self._line = Line.REGISTERED
        info = response.server_info
        acts: list[Act] = [Registered(response.worker_id, info.version, info.region)]
        if self._running:
            acts.append(_send(words.migrate(self._running)))
        acts += [Send(data) for data in self._unconfirmed.values()]
        if self._unconfirmed:
            acts.append(Ping(next(reversed(self._unconfirmed))))
        return acts

    # ── offers ───────────────────────────────────────────────────────────────

    def _offered(self, request: agent.AvailabilityRequest) -> list[Act]:
        job_id = request.job.id
        known = self._offers.get(job_id)
        if known is not None:
            logger.warning("job %s is offered again", job_id)
            if known.answer is not None:
                return [self._availability(job_id, known.answer)]
            known.times += 1
            return []
        if job_id in self._running:
            logger.warning("job %s is offered, and runs here: declined", job_id)
            return [self._availability(job_id, Answer(reason="rejected"))]
        try:
            job = words.job_info(request)
        except BadMessage as exc:
            logger.warning("an offer is declined: %s", exc)
            return [self._availability(job_id, Answer(reason="rejected"))]
        offer = self._offers[job_id] = _Offer(next(self._numbers))
        return [Ask(offer.number, job)]

    def answered(self, number: int, job_id: str, answer: Answer) -> list[Act]:
        """The host has answered the offer of that number."""
        offer = self._offers.get(job_id)
        if offer is None or offer.number != number:
            # LiveKit took it back, or is gone, while the host thought.
            return [] if answer.place is None else [GiveBack(answer.place)]
        said = [self._availability(job_id, answer)] * offer.times
        if answer.place is None:
            del self._offers[job_id]
            return list(said)
        offer.answer = answer
        return [*said, Await(number, job_id)]

    def overdue(self, number: int, job_id: str) -> list[Act]:
        """The assignment of an accepted offer has not come in time."""
        offer = self._offers.get(job_id)
        if offer is None or offer.number != number:
            return []
        del self._offers[job_id]
        logger.warning("job %s was accepted, but LiveKit did not assign it", job_id)
        assert offer.answer is not None and offer.answer.place is not None
        return [GiveBack(offer.answer.place)]

    def _availability(self, job_id: str, answer: Answer) -> Send:
        return _send(words.availability(job_id, answer, self._registration.agent_name))

    # ── jobs ─────────────────────────────────────────────────────────────────

    def _assigned(self, assignment: agent.JobAssignment) -> list[Act]:
        job_id = assignment.job.id
        if job_id in self._running or job_id in self._over:
            logger.warning("job %s is assigned again", job_id)
            return []
        offer = self._offers.pop(job_id, None)
        if offer is None or offer.answer is None or offer.answer.place is None:
            logger.warning("job %s is assigned, but was not accepted (any more)", job_id)
            return self._tell(words.failed(job_id, "assigned to a server that had not accepted it"))
        self._running[job_id] = False
        return [Start(offer.answer.place, assignment.url, assignment.token)]

    def not_started(self, job_id: str, why: str) -> list[Act]:
        """An assigned job could not be started after all."""
        self._forget(job_id)
        return self._tell(words.failed(job_id, why))

    def began(self, job_id: str) -> list[Act]:
        """A worker has begun the job. Jobs that are not LiveKit's are none of its business."""
        return self._tell(words.running(job_id)) if job_id in self._running else []

    def ended(self, job_id: str, outcome: JobOutcome) -> list[Act]:
        """The job has its outcome."""
        terminated = self._forget(job_id)
        return self._tell(words.ended(job_id, outcome, terminated=terminated))

    def _forget(self, job_id: str) -> bool:
        self._over[job_id] = None
        if len(self._over) > MAX_REMEMBERED:
            self._over.popitem(last=False)
        return self._running.pop(job_id)

    def _terminated(self, job_id: str) -> list[Act]:
        if job_id in self._running:
            self._running[job_id] = True
            return [Stop(job_id)]
        offer = self._offers.pop(job_id, None)
        if offer is None:
            # It has just ended, and the two messages crossed.
            logger.debug("LiveKit terminates job %s, which does not run here", job_id)
            return []
        if offer.answer is None or offer.answer.place is None:
            return []
        return [GiveBack(offer.answer.place)]

    def _tell(self, message: agent.WorkerMessage) -> list[Act]:
        serial, data = next(self._numbers), message.SerializeToString()
        self._unconfirmed[serial] = data
        return [Send(data), Ping(serial)] if self.is_registered else []

    # ── the server ───────────────────────────────────────────────────────────

    def status(self, *, full: bool, load: float, jobs: int) -> list[Act]:
        """This is how busy we are."""
        if not self.is_registered:
            return []
        return [_send(words.worker_status(full=full, load=load, jobs=jobs))]


def _send(message: agent.WorkerMessage) -> Send:
    return Send(message.SerializeToString())
