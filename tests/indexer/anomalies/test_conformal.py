"""The rate of false alarms is what was asked for, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.anomalies.conformal import needed, p_values


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("shape", ["normal", "exponential", "cauchy"])
def test_good_pictures_are_called_unusual_as_rarely_as_asked(rate: float, shape: str) -> None:
    draw = np.random.default_rng(0)
    sample = {"normal": draw.standard_normal, "exponential": draw.exponential, "cauchy": draw.standard_cauchy}[shape]
    held_out = needed(rate) * 2 + 1
    alarms = []
    for _ in range(400):
        scores = sample(size=held_out + 50)
        alarms.append(float((p_values(scores[held_out:], scores[:held_out]) <= rate).mean()))
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert abs(np.mean(alarms) - rate) < 4 * error + 1e-9


def test_what_is_beyond_all_good_pictures_has_the_least_p_value_and_equals_count_as_unusual() -> None:
    held_out = np.array([1.0, 2.0, 3.0])
    assert p_values(np.array([9.0, 3.0, 0.0]), held_out).tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("rate", "fewest"), [(0.01, 99), (0.05, 19), (0.5, 1), (0.3, 3)])
def test_so_many_good_pictures_are_needed(rate: float, fewest: int) -> None:
    assert needed(rate) == fewest
    none = np.zeros(needed(rate))
    assert p_values(np.array([1.0]), none)[0] <= rate + 1e-12
    assert p_values(np.array([1.0]), none[1:])[0] > rate
