"""Collapse and stalls are named in a sentence, once, and healthy runs are left in peace."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from torch.nn import functional

from massl.settings import Settings
from massl.training.monitor import Monitor, memory_use

SETTINGS = Settings(memory=1024, block=128, batch=64, steps=1000, warmup=100, temperature_warmup=100)
HEALTHY = {
    "rankme": 60.0, "spread": 0.7, "student_entropy": 3.1, "gradient_norm": 1.2, "data_wait_share": 0.1,
    "knn_top1": 0.5,
}  # fmt: skip


def said(rows: list[dict[str, float]]) -> list[str]:
    monitor = Monitor(SETTINGS)
    lines: list[str] = []
    for number, row in enumerate(rows, 1):
        lines += monitor.look({"step": number * 100, **HEALTHY, **row})
    return lines


def test_a_healthy_run_is_left_in_peace() -> None:
    assert said([{"knn_top1": 0.3 + number / 50, "data_wait_share": 0.33} for number in range(10)]) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rankme": 1.4}, "is collapsing"),
        ({"spread": 0.004}, "is collapsing"),
        ({"student_entropy": math.log(128) - 0.001}, "nothing is being learnt"),
        ({"gradient_norm": 1e-9}, "the gradient has vanished"),
        ({"data_wait_share": 0.8}, "80% of the time goes into waiting for images"),
        ({"data_wait_share": 0.34}, "34% of the time goes into waiting for images"),
        ({"processor_share": 0.3}, "this run gets 30% of its cores' time"),
    ],
)
def test_what_goes_wrong_is_named_once_with_what_to_try(wrong: dict[str, float], sentence: str) -> None:
    lines = said([wrong] * 10)
    assert len(lines) == 1
    assert sentence in lines[0]
    assert any(flag in lines[0] for flag in ("--set ", "--workers", "--resume"))
    assert said([wrong, {}, wrong, {}, wrong, {}]) == []  # a passing dip is none


@pytest.mark.parametrize(
    ("settings", "tried"),
    [
        ({}, ["learning_rate=0.000125", "teacher_temperature=0.04", "projection_norm=true"]),
        ({"projection_norm": True}, ["learning_rate=0.000125", "teacher_temperature=0.04"]),
        ({"adapter": True, "teacher_temperature": 0.04}, ["learning_rate=0.000125"]),
    ],
)
def test_against_collapse_only_what_a_run_does_not_have_yet_is_named(
    settings: dict[str, Any], tried: list[str]
) -> None:
    monitor = Monitor(dataclasses.replace(SETTINGS, **settings))
    lines = [line for step in range(500, 1000, 100) for line in monitor.look({"step": step, **HEALTHY, "rankme": 1.4})]
    assert [re.findall(r"--set (\S+?)[,)]?(?=\s|$|,)", line) for line in lines] == [tried]


def test_an_adapted_encoder_that_began_with_images_all_alike_does_not_collapse() -> None:
    monitor = Monitor(dataclasses.replace(SETTINGS, adapter=True))
    alike = {**HEALTHY, "rankme": 1.4, "rankme_start": 1.5}
    assert not [line for step in range(500, 1000, 100) for line in monitor.look({"step": step, **alike})]


def test_a_crowded_processor_is_remembered() -> None:
    monitor = Monitor(SETTINGS)
    for number in range(1, 6):
        assert monitor.crowded == (number > 3)
        monitor.look({"step": number * 100, **HEALTHY, "processor_share": 0.2})


def test_a_fall_of_knn_points_to_the_best_checkpoint() -> None:
    rising, falling = [{"knn_top1": 0.6}, {"knn_top1": 0.7}], [{"knn_top1": 0.5}] * 4
    assert ["k-NN has fallen from 70.0% at step 200 to 50.0%" in line for line in said(rising + falling)] == [True]


def test_memory_use_tells_one_slot_from_all() -> None:
    slots = functional.normalize(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(memory_use(slots[:1].expand(32, -1), slots, 0.01)) == pytest.approx(1 / 64, rel=0.01)
    assert float(memory_use(slots, slots, 0.01)) == pytest.approx(1, rel=0.01)
