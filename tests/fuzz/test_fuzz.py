"""Fuzzing, short: the same seed each time, and another one each time. Both are printed.

The long run is ``make fuzz``.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from ipc.errors import ProtocolError
from ipc.mark import moment_of, read_mark
from ipc.messages import Decoder
from supervisor.lifecycle import State
from supervisor.worker import Worker
from supervisor.workers import Workers
from tests.fuzz import __main__ as command, decoders, forkserver, handler
from tests.fuzz.measure import Figures

FIXED_SEED = 20_260_101
TARGETS = [
    pytest.param(decoders.run, 20_000, id="decoder"),
    pytest.param(handler.run, 2_000, id="message handler"),
    pytest.param(forkserver.run, 500, id="fork server"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [FIXED_SEED, None], ids=["fixed seed", "random seed"])
@pytest.mark.parametrize(("run", "inputs"), TARGETS)
def test_nothing_that_is_sent_raises_hangs_or_stays(
    run: Callable[[int, int], Figures],
    inputs: int,
    seed: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the supervisor has opened a pickle")

    monkeypatch.setattr(pickle, "loads", opened)
    figures = run(inputs, secrets.randbits(32) if seed is None else seed)
    with capsys.disabled():
        print(f"\n{figures}")
    assert figures.inputs >= inputs
    assert figures.accepted and figures.refused, "some are right and some are wrong"
    assert figures.descriptors == 0
    # Without a leak it is some hundred KiB, whatever the number of inputs.
    assert figures.growth_bytes < 16 * 2**20


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (decoders.run(2_000, 7) for _ in range(2))
    assert (first.accepted, first.refused) == (second.accepted, second.refused)


def test_an_exception_that_a_decoder_should_not_raise_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = Decoder.decode

    def fails_on_deep_nesting(self: Decoder[Any], payload: bytes) -> Any:
        try:
            return decode(self, payload)
        except ProtocolError as exc:
            if "recursion" in str(exc) or "truncated" in str(exc):
                raise RuntimeError("unhandled") from exc
            raise

    monkeypatch.setattr(Decoder, "decode", fails_on_deep_nesting)
    with pytest.raises(RuntimeError, match="unhandled"):
        decoders.run(5_000, FIXED_SEED)


def test_a_rule_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def tells_everything(self: Workers, worker: Worker, seconds: float) -> None:
        self._failures.warmed()
        self._listener.worker_warm(worker, seconds)

    monkeypatch.setattr(Workers, "warmed", tells_everything)
    with pytest.raises(AssertionError, match=r"episode .* of seed"):
        handler.run(20_000, FIXED_SEED)


def test_a_mark_that_is_not_expected_to_hold_nonsense_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_begun = Worker.has_begun

    def rounds(self: Worker) -> bool:
        if self.state is State.RUNNING:
            moment = moment_of(read_mark(self._beginning._fd))
            assert moment is not None and round(moment) is not None  # NaN and infinities refuse
        return has_begun(self)

    monkeypatch.setattr(Worker, "has_begun", rounds)
    with pytest.raises(AssertionError, match=r"episode .* of seed .*cannot convert float"):
        handler.run(20_000, FIXED_SEED)


def test_the_command_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--inputs", "1000", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed 3; ")
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "decoder",
        "message handler",
        "fork server",
    ]
    assert "1,000 inputs  seed 3" in lines[1]
