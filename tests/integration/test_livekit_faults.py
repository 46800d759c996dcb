"""A server and LiveKit, when things go wrong between them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit.protocol import agent

from supervisor import AgentServer, SupervisorError
from supervisor.dispatch.livekit import connection, dispatcher, retry
from tests.children.livekit_jobs import entrypoint, on_request
from tests.integration.conftest import PATIENCE, soon
from tests.integration.livekit_endpoint import Endpoint, listening
from tests.integration.serving import serving
from tests.integration.watch import Watch, make_server, until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "s"))


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SHORTEST_WAIT", 0.01)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.05)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening() as made:
        yield made


# ── what LiveKit says ────────────────────────────────────────────────────────


async def test_malformed_and_unknown_messages_disturb_nothing(endpoint: Endpoint) -> None:
    async with serving(entrypoint, **endpoint.options) as server:
        with Watch(server) as watch:
            await endpoint.send_raw(b"\xff\xff\xff")
            await endpoint.send_raw(b"")
            await endpoint.send_raw(bytes([0xFA, 0x07, 0x00]))  # a field of tomorrow
            await endpoint.send_raw('{"availability": {}}')
            await endpoint.send(pong=agent.WorkerPong())
            await endpoint.send(register=agent.RegisterWorkerResponse(worker_id="AW_2"))
            await endpoint.send(availability=agent.AvailabilityRequest())
            answer = await endpoint.take("availability")
            assert not answer.available
            await endpoint.offer("AJ_1")
            await endpoint.until_status("AJ_1", "JS_SUCCESS")
            assert watch.logged("what it should not")
            assert watch.logged("sent text")
        assert server.id == "AW_1"
    assert endpoint.connections == 1


async def test_an_assignment_that_never_comes_frees_the_place(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "ASSIGNMENT_TIMEOUT", 0.05)
    endpoint.assigns = False
    async with serving(entrypoint, max_jobs=1, **endpoint.options) as server:
        await endpoint.offer("AJ_1")
        assert (await endpoint.take("availability")).available
        await until(lambda: not server.active_jobs)
        # It comes after all, and LiveKit learns that nobody runs it.
        await endpoint.assign("AJ_1")
        await endpoint.until_status("AJ_1", "JS_FAILED")
        endpoint.assigns = True
        await endpoint.offer("AJ_2")
        await endpoint.until_status("AJ_2", "JS_SUCCESS")
    assert endpoint.statuses("AJ_1") == ["JS_FAILED"]


async def test_an_assignment_of_an_unknown_job_is_reported_as_failed(endpoint: Endpoint) -> None:
    async with serving(entrypoint, **endpoint.options) as server:
        await endpoint.assign("AJ_unknown")
        await endpoint.until_status("AJ_unknown", "JS_FAILED")
        assert server.active_jobs == []


async def test_an_assignment_before_the_answer_starts_nothing(endpoint: Endpoint) -> None:
    endpoint.assigns = False
    async with serving(entrypoint, on_request=on_request, **endpoint.options) as server:
        await endpoint.offer("AJ_1", room="slow")
        await until(lambda: server.active_jobs)
        await endpoint.assign("AJ_1")
        await endpoint.until_status("AJ_1", "JS_FAILED")
        await until(lambda: not server.active_jobs)
    assert endpoint.heard("availability") == []


async def test_a_job_id_that_is_used_twice_runs_once(endpoint: Endpoint, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options) as server:
        for _ in range(2):
            await endpoint.offer("AJ_1", room="waits", metadata=str(flag))
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        await endpoint.offer("AJ_1", room="waits", metadata=str(flag))
        await endpoint.until(lambda: len(endpoint.heard("availability")) == 3)
        assert not endpoint.heard("availability")[-1].available
        assert len(server.active_jobs) == 1
        flag.touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        # A job with the id of one that was submitted here.
        (handle,) = await server.submit_job(room="waits", job_id="J-1")
        await endpoint.offer("J-1")
        answer = await endpoint.take("availability", lambda each: each.job_id == "J-1")
        assert not answer.available
        handle.cancel()
        await soon(handle.wait())
    assert endpoint.statuses("AJ_1") == ["JS_RUNNING", "JS_SUCCESS"]


# ── losing the connection ────────────────────────────────────────────────────


@pytest.mark.usefixtures("_short_waits")
@pytest.mark.parametrize("step", ["register", "update_worker", "availability", "update_job"])
async def test_a_connection_lost_at_any_step_is_made_again_and_jobs_go_on(
    endpoint: Endpoint, step: str
) -> None:
    lost: list[str] = []

    def first_time(kind: str) -> bool:
        if kind == step and not lost:
            lost.append(kind)
            return True
        return False

    endpoint.drops_at = first_time
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options) as server:
        if step in ("register", "update_worker"):
            await endpoint.until(lambda: endpoint.connections == 2)
        await until(lambda: server.not_ready() is None)
        with_connection = endpoint.connections
        await endpoint.offer("AJ_1")
        if step == "availability":  # the offer died with its connection, and its place with it
            await endpoint.until(lambda: endpoint.connections > with_connection)
            await until(lambda: not server.active_jobs)
            await until(lambda: server.not_ready() is None)
            await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        assert lost == [step]
        await until(lambda: not server.active_jobs)
    assert endpoint.connections == 2


@pytest.mark.usefixtures("_short_waits")
async def test_running_jobs_survive_a_restart_of_livekit_and_report_after_it(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    flags = [tmp_path / name for name in ("during", "after")]
    async with serving(
        entrypoint, num_idle_processes=2, max_retry=1_000_000, **endpoint.options
    ) as server:
        for flag in flags:
            await endpoint.offer(f"AJ_{flag.name}", room="waits to raise", metadata=str(flag))
            await endpoint.until_status(f"AJ_{flag.name}", "JS_RUNNING")
        await endpoint.stop()
        flags[0].touch()
        await until(lambda: len(server.active_jobs) == 1)
        assert endpoint.statuses("AJ_during") == ["JS_RUNNING"]
        await endpoint.start()
        await endpoint.until_status("AJ_during", "JS_FAILED")
        (listed,) = endpoint.heard("migrate_job")
        assert list(listed.job_ids) == ["AJ_after"]
        flags[1].touch()
        await endpoint.until_status("AJ_after", "JS_FAILED")
    for name in ("during", "after"):
        assert endpoint.statuses(f"AJ_{name}") == ["JS_RUNNING", "JS_FAILED"]


@pytest.mark.usefixtures("_short_waits")
async def test_a_hundred_lost_connections_change_no_job_and_lose_no_status(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    kinds = ["waits", "waits to raise"] * 4
    flags = [tmp_path / str(number) for number in range(8)]
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options) as server:
        for number, kind in enumerate(kinds):
            await endpoint.offer(f"AJ_{number}", room=kind, metadata=str(flags[number]))
            await endpoint.until_status(f"AJ_{number}", "JS_RUNNING")
        ends = iter(range(8))
        for drop in range(100):
            registered = endpoint.registrations
            endpoint.drop()
            if drop % 12 == 6:  # a job ends while there is no connection
                flags[next(ends)].touch()
            await endpoint.until_registered(registered)
        assert endpoint.registrations == 101
        for number, kind in enumerate(kinds):
            final = "JS_SUCCESS" if kind == "waits" else "JS_FAILED"
            await endpoint.until_status(f"AJ_{number}", final)
            assert [s for s in endpoint.statuses(f"AJ_{number}") if s != "JS_RUNNING"] == [final]
        await until(lambda: not server.active_jobs)


async def test_a_server_that_ends_while_livekit_is_away_for_a_moment_reports_all_the_same(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "FLUSH_TIMEOUT", PATIENCE)  # it takes what it takes
    monkeypatch.setattr(retry, "SHORTEST_WAIT", 1000.0)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 1000.0)
    flag = tmp_path / "flag"
    async with serving(entrypoint, **endpoint.options) as server:
        await endpoint.offer("AJ_1", room="waits", metadata=str(flag))
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        endpoint.refuses = 503
        endpoint.drop()
        await until(lambda: len(endpoint.requests) == 2)  # and the next try is far away
        endpoint.refuses = None
        server.begin_drain(None)
        flag.touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")


async def test_a_server_that_accepts_and_hangs_up_is_not_called_without_a_pause(
    endpoint: Endpoint,
) -> None:
    endpoint.drops_at = lambda kind: kind == "register"
    with pytest.raises(SupervisorError, match=r"hung up .*\(4 attempts"):
        async with serving(entrypoint, max_retry=4, **endpoint.options):
            pytest.fail("it runs")
    assert endpoint.connections == 4


async def test_a_server_that_never_answers_the_registration_is_left(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "REGISTER_TIMEOUT", 0.05)
    endpoint.registers = False
    with pytest.raises(SupervisorError, match=r"did not answer the registration within 0\.05 s"):
        async with serving(entrypoint, max_retry=1, **endpoint.options):
            pytest.fail("it runs")


async def test_the_first_answer_must_be_the_registration(endpoint: Endpoint) -> None:
    endpoint.registers = False

    async def speak_out_of_turn() -> None:
        await endpoint.take("register")
        await endpoint.offer("AJ_1")

    speaking = asyncio.ensure_future(speak_out_of_turn())
    with pytest.raises(SupervisorError, match="does not speak its protocol"):
        async with serving(entrypoint, max_retry=1, **endpoint.options):
            pytest.fail("it runs")
    await soon(speaking)


@pytest.mark.usefixtures("_short_waits")
async def test_a_silent_connection_is_left_for_a_new_one(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT", 0.2)
    endpoint.answers_pings = False
    async with serving(entrypoint, **endpoint.options):
        await endpoint.until(lambda: endpoint.connections >= 2)


# ── out of reach ─────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("_short_waits")
async def test_when_livekit_stays_away_running_jobs_may_end_and_the_run_fails(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    server = make_server(entrypoint, max_retry=3, **endpoint.options)
    running = asyncio.ensure_future(server.run())
    await endpoint.until(lambda: endpoint.heard("update_worker"))
    await endpoint.offer("AJ_1", room="waits", metadata=str(flag))
    await endpoint.until_status("AJ_1", "JS_RUNNING")
    await endpoint.stop()
    await until(lambda: server.draining)
    assert len(server.active_jobs) == 1
    flag.touch()
    with pytest.raises(SupervisorError, match=r"out of reach: .*\(3 attempts"):
        await soon(running)


async def test_a_key_that_is_refused_later_is_tried_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SHORTEST_WAIT", 0.01)
    async with serving(entrypoint, **endpoint.options) as server:
        endpoint.refuses = 401
        endpoint.drop()
        await until(lambda: len(endpoint.requests) >= 3)
        endpoint.refuses = None
        await until(lambda: server.not_ready() is None)


# ── many at once ─────────────────────────────────────────────────────────────


class Busy:
    """A load function that counts jobs: room for ten."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, server: AgentServer) -> float:
        count = len(server.active_jobs)
        self.most = max(self.most, count)
        return min(count / 10, 1.0)


async def test_a_thousand_offers_at_once_are_each_answered_and_never_too_many_accepted(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    load, flag = Busy(), tmp_path / "flag"
    async with serving(
        entrypoint, load_fnc=load, load_threshold=0.9, num_idle_processes=2, **endpoint.options
    ):
        await asyncio.gather(
            *(
                endpoint.offer(f"AJ_{number}", room="waits", metadata=str(flag))
                for number in range(1000)
            )
        )
        await endpoint.until(lambda: len(endpoint.heard("availability")) == 1000)
        answers = Counter(each.job_id for each in endpoint.heard("availability"))
        assert set(answers.values()) == {1}
        taken = [each.job_id for each in endpoint.heard("availability") if each.available]
        assert len(taken) == 9
        assert load.most == 9
        flag.touch()
        for job_id in taken:
            await endpoint.until_status(job_id, "JS_SUCCESS")


async def test_offers_are_answered_in_time_when_each_measurement_is_slow(
    endpoint: Endpoint,
) -> None:
    async def slow() -> float:
        await asyncio.sleep(0.5)
        return 0.1

    async with serving(entrypoint, load_fnc=slow, load_threshold=0.7, **endpoint.options):
        began = asyncio.get_running_loop().time()
        for number in range(20):
            await endpoint.offer(f"AJ_{number}")
        await endpoint.until(lambda: len(endpoint.heard("availability")) == 20)
        # LiveKit's server gives up after 3 s.
        assert asyncio.get_running_loop().time() - began < 3.0
        taken = [each.job_id for each in endpoint.heard("availability") if each.available]
        assert taken
        for job_id in taken:
            await endpoint.until_status(job_id, "JS_SUCCESS")


@pytest.mark.usefixtures("_short_waits")
@pytest.mark.parametrize("seed", range(3))
async def test_drops_at_random_moments_of_many_jobs_lose_no_final_status(
    endpoint: Endpoint, seed: int
) -> None:
    chance = random.Random(seed)
    endpoint.drops_at = lambda kind: kind != "register" and chance.random() < 0.05
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options) as server:
        for number in range(60):
            registered = endpoint.registrations
            try:
                await endpoint.offer(f"AJ_{number}")
            except (AssertionError, ConnectionError):  # the connection was just cut
                await endpoint.until_registered(registered)
                continue
            await endpoint.until_told_or_lost(f"AJ_{number}", registered)
        endpoint.drops_at = lambda kind: False
        await until(lambda: not server.active_jobs)
        begun = {each.job_id for each in endpoint.heard("update_job")}
        for job_id in begun:
            await endpoint.until_status(job_id, "JS_SUCCESS")
    assert begun
