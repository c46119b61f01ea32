"""Schedules at their ends and in between."""

from __future__ import annotations

import pytest

from massl.method.schedules import cosine, linear


def test_cosine_rises_over_the_warmup_and_falls_to_its_end() -> None:
    values = [cosine(step, 100, 1.0, 0.1, warmup=10) for step in range(101)]
    assert values[0] == 0
    assert values[3] == pytest.approx(1 / 3)
    assert values[9] == values[10] == pytest.approx(1.0)
    assert values[55] == pytest.approx(0.55)
    assert values[100] == pytest.approx(0.1)
    assert values[10:] == sorted(values[10:], reverse=True)


def test_momentum_rises_to_one() -> None:
    assert cosine(0, 10, 0.992, 1.0) == pytest.approx(0.992)
    assert cosine(10, 10, 0.992, 1.0) == 1.0


def test_linear_reaches_its_end_and_stays() -> None:
    assert linear(0, 30, 0.04, 0.07) == pytest.approx(0.04)
    assert linear(15, 31, 0.04, 0.07) == pytest.approx(0.055)
    assert linear(29, 30, 0.04, 0.07) == linear(30, 30, 0.04, 0.07) == linear(99, 30, 0.04, 0.07) == 0.07
    assert linear(0, 1, 0.04, 0.07) == 0.04
    assert linear(0, 0, 0.04, 0.07) == 0.07
