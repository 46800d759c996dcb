"""Every option is checked once, and every complaint names the option, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from supervisor import cpus as granted, options
from supervisor.checks import LOG_LEVELS
from supervisor.cpus import cpu_count
from supervisor.errors import OptionError
from supervisor.options import (
    CHANGEABLE,
    AgentServerPermissions,
    PerMode,
    PoolOptions,
    ResourceLimits,
    ServerOptions,
    default_idle,
    default_start_method,
)

POOL = {field.name for field in dataclasses.fields(PoolOptions)}
SERVER = {field.name for field in dataclasses.fields(ServerOptions)}

# ── what is refused ──────────────────────────────────────────────────────────

NOT_A_COUNT: list[object] = ["3", 2.0, True, [3], -1]
NOT_A_POSITIVE_COUNT: list[object] = [*NOT_A_COUNT, 0]
NOT_A_TIME: list[object] = ["3", True, [3], math.nan, -0.1, -math.inf, 10**400]
NOT_A_POSITIVE_TIME: list[object] = [*NOT_A_TIME, 0, 0.0]

BAD: dict[str, list[object]] = {
    "setup_fnc": ["prewarm", 3],
    "preload_fnc": ["preload", 3],
    "preload_modules": ["numpy", 3, [3], ["no module"], [""], ["a..b"], [None]],
    "num_idle_processes": [*NOT_A_COUNT, None],
    "max_idle_processes": NOT_A_COUNT,
    "max_processes": NOT_A_POSITIVE_COUNT,
    "max_jobs": NOT_A_POSITIVE_COUNT,
    "max_idle_age": NOT_A_POSITIVE_TIME,
    "max_jobs_per_process": NOT_A_POSITIVE_COUNT,
    "initialize_process_timeout": [*NOT_A_POSITIVE_TIME, None],
    "shutdown_process_timeout": [*NOT_A_TIME, None],
    "job_timeout": NOT_A_POSITIVE_TIME,
    "job_memory_warn_mb": [*NOT_A_TIME, None],
    "job_memory_limit_mb": [*NOT_A_TIME, None],
    "job_limits": [{"open_files": 100}, 5],
    "ping_interval": [*NOT_A_POSITIVE_TIME, None],
    "ping_timeout": [*NOT_A_POSITIVE_TIME, None, 2.5],
    "high_ping_threshold": [*NOT_A_POSITIVE_TIME, None],
    "multiprocessing_context": ["fork", "Spawn", "", None, 3],
    "max_payload_mb": [*NOT_A_POSITIVE_TIME, None, math.inf, 2**30 + 1, 1e30],
    "capture_output": ["yes", 1, None],
    "log_level": ["LOUD", "", 10, b"INFO"],
    "http_proxy": [b"http://proxy", 8080],
    "cgroup": [b"/sys/fs/cgroup/a", True],
    # of a server only
    "load_fnc": ["load", 0.5],
    "load_threshold": [*NOT_A_TIME, None],
    "drain_timeout": NOT_A_TIME,
    "session_end_timeout": [*NOT_A_TIME, None],
    "permissions": [None, {"hidden": True}],
    "host": [None, 8081, b"localhost"],
    "port": ["8081", -1, 65536, 80.0, True],
    "ws_url": [b"wss://host", 1, "host", "ftp://host", "wss://host:port"],
    "api_key": [b"key", 1],
    "api_secret": [b"secret", 1],
    "max_retry": [*NOT_A_COUNT, None],
}

# Handed through to the job as it is.
ANYTHING = {"user_arguments"}


def test_every_option_is_in_the_list_of_what_is_refused() -> None:
    assert set(BAD) | ANYTHING == SERVER


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name} is not {str(value)[:20]!r} of {type(value).__name__}")
        for name, values in BAD.items()
        for value in values
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    classes: list[Callable[..., object]] = [ServerOptions]
    if name in POOL:
        classes.append(PoolOptions)
    for make in classes:
        with pytest.raises(OptionError) as caught:
            make(**{name: value})
        assert caught.value.name == name
        assert str(caught.value).startswith(f"{name}=")
        assert ": expected " in str(caught.value)
        if name not in ("api_key", "api_secret", "preload_modules"):
            assert caught.value.value is value


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(
            lambda: PoolOptions(num_idle_processes=-1),
            "num_idle_processes=-1: expected a whole number of at least 0",
            id="out of range",
        ),
        pytest.param(
            lambda: PoolOptions(job_timeout=0),
            "job_timeout=0: expected a number above 0",
            id="not above a bound",
        ),
        pytest.param(
            lambda: PoolOptions(multiprocessing_context="fork"),
            "multiprocessing_context='fork': expected one of forkserver, spawn",
            id="not one of a few",
        ),
        pytest.param(
            lambda: PoolOptions(log_level="loud"),
            "log_level='loud': expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
            id="no log level",
        ),
        pytest.param(
            lambda: PoolOptions(ping_timeout=1.0),
            "ping_timeout=1.0: expected more than ping_interval=2.5",
            id="two that do not go together",
        ),
        pytest.param(
            lambda: PoolOptions(num_idle_processes=5, max_processes=4),
            "num_idle_processes=5: expected at most max_processes=4",
            id="more idle ones than there may be",
        ),
        pytest.param(
            lambda: PoolOptions(num_idle_processes=3, max_idle_processes=2),
            "max_idle_processes=2: expected at least num_idle_processes=3",
            id="a ceiling below its floor",
        ),
        pytest.param(
            lambda: PoolOptions(preload_modules=("os", "no module")),
            "preload_modules='no module': expected a dotted module name",
            id="one of several",
        ),
        pytest.param(
            lambda: ServerOptions(port=70000),
            "port=70000: expected at most 65535; 0 for any; None for no HTTP",
            id="no port",
        ),
        pytest.param(
            lambda: ResourceLimits(open_files=3),
            "job_limits.open_files=3: expected at least 20: a worker uses a dozen itself",
            id="too few for a worker",
        ),
        pytest.param(
            lambda: AgentServerPermissions(can_publish_sources="camera"),  # type: ignore[arg-type]
            "permissions.can_publish_sources='camera': expected a list of source names",
            id="a text where a list belongs",
        ),
    ],
)
def test_a_complaint_says_what_is_allowed(make: Callable[[], object], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert str(caught.value) == text


def test_a_secret_of_the_wrong_type_is_not_in_the_complaint() -> None:
    with pytest.raises(OptionError) as caught:
        ServerOptions(api_secret=b"hush")  # type: ignore[arg-type]  # what is tested
    assert "hush" not in str(caught.value) + repr(caught.value)


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(ServerOptions(api_key="key-17", api_secret="hush"))
    assert "key-17" not in shown
    assert "hush" not in shown


odd_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
    | st.just(object())
    | st.just(len)
    | st.builds(PerMode, st.integers(), st.floats() | st.none())
)


@given(st.sampled_from(sorted(SERVER)), odd_values)
def test_any_value_is_taken_or_gives_an_option_error(name: str, value: object) -> None:
    try:
        ServerOptions(**{name: value}).resolve(devmode=True)  # type: ignore[arg-type]
    except OptionError:
        pass  # any other exception fails the test


LIMITS = [field.name for field in dataclasses.fields(ResourceLimits)]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", ["many", 0.5, -1])
def test_a_bad_limit_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=rf"job_limits\.{name}="):
        ResourceLimits(**{name: value})  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("can_publish", 1, id="a number for a flag"),
        pytest.param("can_subscribe", None, id="nothing for a flag"),
        pytest.param("can_publish_data", "yes", id="a word for a flag"),
        pytest.param("can_update_metadata", 0, id="a zero for a flag"),
        pytest.param("hidden", "no", id="another word for a flag"),
        pytest.param("can_publish_sources", 5, id="a number for a list"),
        pytest.param("can_publish_sources", ["camera", 5], id="a number in a list"),
    ],
)
def test_a_bad_permission_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=rf"permissions\.{name}="):
        AgentServerPermissions(**{name: value})  # type: ignore[arg-type]  # what is tested


# ── what is taken ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given_options", "expected"),
    [
        pytest.param({"preload_modules": ["os", "a.b"]}, ("os", "a.b"), id="a list of modules"),
        pytest.param({"preload_modules": None}, (), id="no modules"),
        pytest.param({"log_level": "warning"}, "WARNING", id="a level in lower case"),
        pytest.param({"log_level": None}, None, id="the host's level"),
        pytest.param({"setup_fnc": len}, len, id="a function"),
        pytest.param({"setup_fnc": None}, None, id="no function"),
        pytest.param({"max_jobs_per_process": None}, None, id="as many jobs as come"),
        pytest.param({"num_idle_processes": 0}, 0, id="no idle worker at all"),
        pytest.param({"max_idle_processes": 64}, 64, id="a ceiling for a target that follows"),
        pytest.param({"shutdown_process_timeout": 0}, 0, id="no grace"),
        pytest.param({"job_timeout": math.inf}, math.inf, id="for ever"),
        pytest.param({"job_timeout": 1}, 1, id="whole seconds"),
        pytest.param(
            {"job_limits": ResourceLimits(open_files=20)},
            ResourceLimits(open_files=20),
            id="limits of the kernel",
        ),
        pytest.param({"multiprocessing_context": "spawn"}, "spawn", id="another start method"),
        pytest.param({"user_arguments": {"a": 1}}, {"a": 1}, id="anything for the job"),
    ],
)
def test_a_good_value_is_kept(given_options: dict[str, object], expected: object) -> None:
    [name] = given_options
    for made in (PoolOptions(**given_options), ServerOptions(**given_options)):  # type: ignore[arg-type]
        assert getattr(made, name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("drain_timeout", None, id="a drain for ever"),
        pytest.param("drain_timeout", 0, id="no drain"),
        pytest.param("load_threshold", math.inf, id="no threshold"),
        pytest.param("port", None, id="no HTTP"),
        pytest.param("port", 0, id="any port"),
        pytest.param("port", 65535, id="the last port"),
        pytest.param("load_fnc", len, id="a load function"),
        pytest.param("ws_url", "wss://host", id="a LiveKit server"),
    ],
)
def test_a_good_value_of_a_server_is_kept(name: str, value: object) -> None:
    made = ServerOptions(**{name: value}).resolve(devmode=False)  # type: ignore[arg-type]
    assert getattr(made, name) == value


def test_sources_may_be_given_as_a_list() -> None:
    permissions = AgentServerPermissions(can_publish_sources=["camera"])  # type: ignore[arg-type]
    assert permissions.can_publish_sources == ("camera",)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoolOptions().max_jobs = 3  # type: ignore[misc]  # what is tested


# ── start and dev ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("devmode", "expected"),
    [
        pytest.param(
            False,
            {
                "load_threshold": 0.7,
                "drain_timeout": 1800.0,
                "port": 8081,
                "log_level": "INFO",
                "num_idle_processes": default_idle(),
            },
            id="start",
        ),
        pytest.param(
            True,
            {
                "load_threshold": math.inf,
                "drain_timeout": 0.0,
                "port": 0,
                "log_level": "DEBUG",
                "num_idle_processes": 1,
            },
            id="dev",
        ),
    ],
)
def test_twofold_defaults_are_settled_for(devmode: bool, expected: dict[str, object]) -> None:
    resolved = ServerOptions().resolve(devmode=devmode)
    assert {name: getattr(resolved, name) for name in expected} == expected
    assert resolved.idle_target == expected["num_idle_processes"]
    assert not any(
        isinstance(getattr(resolved, field.name), PerMode) for field in dataclasses.fields(resolved)
    )


def test_what_the_user_gave_counts_in_both_modes() -> None:
    given_options = ServerOptions(num_idle_processes=2, port=None, drain_timeout=None)
    for devmode in (False, True):
        resolved = given_options.resolve(devmode=devmode)
        assert (resolved.idle_target, resolved.port, resolved.drain_timeout) == (2, None, None)


def test_a_twofold_value_is_checked_once_it_is_known_which_one_counts() -> None:
    twofold = ServerOptions(port=PerMode(start=8081, dev=70000))
    assert twofold.resolve(devmode=False).port == 8081
    with pytest.raises(OptionError, match="port=70000"):
        twofold.resolve(devmode=True)


def test_a_pool_has_one_default_for_every_option() -> None:
    made = PoolOptions()
    assert made.idle_target == default_idle()
    assert made.capture_output is False
    assert made.log_level is None


def test_the_defaults_are_those_of_the_documentation() -> None:
    made = ServerOptions()
    assert (made.initialize_process_timeout, made.shutdown_process_timeout) == (10.0, 10.0)
    assert (made.session_end_timeout, made.job_timeout) == (300.0, None)
    assert (made.job_memory_warn_mb, made.job_memory_limit_mb) == (1000.0, 0.0)
    assert (made.ping_interval, made.ping_timeout, made.high_ping_threshold) == (2.5, 60.0, 0.5)
    assert (made.host, made.max_retry, made.capture_output) == ("127.0.0.1", 16, True)
    assert (made.max_processes, made.max_jobs, made.max_jobs_per_process) == (None, None, 1)
    assert made.permissions == AgentServerPermissions()
    assert not made.permissions.hidden


@pytest.mark.parametrize("cpus", [1, 2, 64])
@pytest.mark.parametrize("limit", ["max_processes", "max_idle_processes"])
def test_a_default_that_nobody_asked_for_gives_way_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, cpus: int, limit: str
) -> None:
    monkeypatch.setattr(options, "cpu_count", lambda: cpus)
    changes: dict[str, object] = {limit: 1}
    made = PoolOptions(**changes)  # type: ignore[arg-type]  # one field
    assert made.idle_target == 1
    assert type(made.idle_target) is int
    assert PoolOptions().replace(**changes).idle_target == 1
    for devmode in (False, True):
        server = ServerOptions(**changes)  # type: ignore[arg-type]  # one field
        assert server.resolve(devmode=devmode).idle_target == 1
    with pytest.raises(OptionError):
        PoolOptions(num_idle_processes=2, **changes)  # type: ignore[arg-type]  # one field


# ── copies ───────────────────────────────────────────────────────────────────


def test_a_copy_has_the_changes_and_is_of_the_same_kind() -> None:
    before = ServerOptions(num_idle_processes=2)
    after = before.replace(num_idle_processes=3, drain_timeout=5.0)
    assert isinstance(after, ServerOptions)
    assert (after.num_idle_processes, after.drain_timeout) == (3, 5.0)
    assert before.num_idle_processes == 2


def test_a_copy_is_checked_as_a_whole() -> None:
    with pytest.raises(OptionError, match="num_idle_processes=3: expected at most max_proc"):
        PoolOptions(num_idle_processes=3).replace(max_processes=2)


def test_an_option_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(OptionError) as caught:
        PoolOptions().replace(num_idle_proceses=3)
    assert caught.value.name == "num_idle_proceses"
    assert str(caught.value).startswith("num_idle_proceses=3: expected an option that exists: ")
    assert "num_idle_processes" in str(caught.value)


def test_what_may_change_while_running_is_an_option() -> None:
    assert CHANGEABLE <= SERVER
    assert not CHANGEABLE & {"setup_fnc", "preload_fnc", "multiprocessing_context", "job_limits"}


# ── the machine ──────────────────────────────────────────────────────────────


def test_the_cpus_are_at_least_one_and_the_idle_default_at_most_four() -> None:
    assert cpu_count() >= 1
    assert default_idle() == min(cpu_count(), 4)


@pytest.mark.parametrize(
    ("cpus", "quota", "expected"),
    [
        pytest.param(8, None, 8, id="all of them"),
        pytest.param(8, 2.0, 2, id="what the cgroup grants"),
        pytest.param(8, 2.5, 3, id="a part of a CPU counts as one"),
        pytest.param(8, 0.1, 1, id="at least one"),
        pytest.param(2, 16.0, 2, id="never more than there are"),
    ],
)
def test_the_cpus_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, cpus: int, quota: float | None, expected: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
        patched.setattr(granted, "cgroup_cpu_quota", lambda: quota)
        assert cpu_count() == expected


def test_without_an_affinity_all_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(os, "sched_getaffinity")
        patched.setattr(os, "cpu_count", lambda: None)
        patched.setattr(granted, "cgroup_cpu_quota", lambda: None)
        assert cpu_count() == 1


def test_outside_linux_workers_are_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_start_method() == "forkserver"
    here = os.uname()
    elsewhere = os.uname_result(("Darwin", *here[1:]))
    with monkeypatch.context() as patched:
        patched.setattr(os, "uname", lambda: elsewhere)
        assert PoolOptions().multiprocessing_context == "spawn"
        with pytest.raises(OptionError, match="'spawn': the fork server needs Linux"):
            PoolOptions(multiprocessing_context="forkserver")


def test_there_are_five_log_levels() -> None:
    assert LOG_LEVELS == ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
