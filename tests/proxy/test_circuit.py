"""When an upstream that fails is left alone, and when it is tried again: values, without a network or a clock."""

from __future__ import annotations

import pytest

from proxy.upstream.circuit import CLOSED, NOT_REACHED, SERVER_ERROR, TIMED_OUT, Circuit, Pace

PACE = Pace(first_s=1.0, limit_s=5.0, probe_s=20.0)


@pytest.mark.parametrize(
    ("weights", "opens"),
    [
        ([], False),
        ([TIMED_OUT], True),
        ([NOT_REACHED], False),
        ([NOT_REACHED, NOT_REACHED], True),
        ([SERVER_ERROR] * 3, False),
        ([SERVER_ERROR] * 4, True),
        ([SERVER_ERROR, SERVER_ERROR, NOT_REACHED], True),
    ],
)
def test_what_opens_it(weights: list[int], opens: bool):
    circuit = CLOSED
    for weight in weights:
        circuit = circuit.failed(weight, 100.0, PACE)
    assert circuit.wait_s(100.0) == (1.0 if opens else 0.0)


def opened(times: int, now: float = 100.0) -> Circuit:
    circuit = CLOSED
    for _ in range(times):
        circuit = circuit.failed(TIMED_OUT, now, PACE)
    return circuit


@pytest.mark.parametrize(("times", "open_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (2000, 5.0)])
def test_it_stays_open_longer_each_time(times: int, open_s: float):
    circuit = opened(times)
    assert circuit.wait_s(100.0) == open_s
    assert circuit.wait_s(100.0 + open_s) == 0.0


def test_one_request_at_a_time_tries_whether_it_is_back():
    trial = opened(1).entered(101.0, PACE)
    assert trial.wait_s(101.0) == 20.0
    assert trial.wait_s(121.0) == 0.0  # the trial was lost: another one
    assert trial.failed(SERVER_ERROR, 102.0, PACE).wait_s(102.0) == 2.0


def test_while_it_is_closed_everything_passes():
    assert CLOSED.entered(100.0, PACE) == CLOSED
    once = CLOSED.failed(SERVER_ERROR, 100.0, PACE)
    assert once.entered(100.0, PACE).wait_s(100.0) == 0.0


@pytest.mark.parametrize(("asked_s", "open_s"), [(0.5, 1.0), (3.0, 3.0), (600.0, 5.0)])
def test_an_upstream_that_asks_for_a_pause_gets_it_within_limits(asked_s: float, open_s: float):
    assert CLOSED.failed(SERVER_ERROR, 100.0, PACE, asked_s).wait_s(100.0) == open_s
