"""What others used is what was used, less what was ours."""

from __future__ import annotations

import pytest

from benchmarks.noise import Moment, Noise


def moment(at: float, busy: float, own: float, stolen: float = 0.0) -> Moment:
    return Moment(at, busy, stolen, own)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(moment(20, 105, 6), Noise(0.0, 0.0), id="all of it was ours"),
        pytest.param(moment(20, 110, 6), Noise(25.0, 0.0), id="a quarter of two CPUs was not"),
        pytest.param(moment(20, 105, 6, 2), Noise(0.0, 10.0), id="the host took some"),
        pytest.param(moment(20, 104, 6), Noise(0.0, 0.0), id="clocks that disagree a little"),
    ],
)
def test_noise_over_ten_seconds_of_two_cpus(after: Moment, expected: Noise) -> None:
    assert Noise.between(moment(10, 100, 1), after, cpus=2) == expected


def test_the_machine_can_be_asked() -> None:
    before = Moment.now()
    after = Moment.now()
    assert after.at > before.at
    assert after.busy >= before.busy > 0
    assert after.own >= before.own > 0
