"""How much of what a device can multiply a run makes use of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from massl.data.sources import find_source
from massl.planning import plan
from massl.training import utilisation
from massl.training.cost import operations_of_an_image
from massl.training.loop import train
from massl.training.utilisation import Utilisation, matrix_rate
from tests.massl.conftest import small_settings

CPU = torch.device("cpu")


def test_a_run_that_did_nothing_but_multiply_would_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation, "matrix_rate", lambda device, kind: 6e9)
    settings, _ = plan("cpu", 100, {"backbone": "vit_shallow_patch16"})
    operations = operations_of_an_image(settings)
    assert operations
    for ranks in (1, 3):
        used = Utilisation(settings, CPU, ranks)
        assert used.share(1, 29) is None
        assert used.share(ranks * 6e9 / operations, 31) == pytest.approx(1)
        assert used.share(ranks * 3e9 / operations, 31) == pytest.approx(0.5)


def test_measuring_the_rate_leaves_the_draws_of_a_run_alone() -> None:
    before = torch.get_rng_state()
    assert matrix_rate(CPU, torch.float32, 64) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_each_line_says_it_once_a_run_has_settled(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utilisation, "SETTLED", 0.0)
    source, _ = find_source(photos)
    train(source, tmp_path / "run", small_settings(steps="2", log_every="1"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(0 < row["utilisation"] < 1 for row in rows)
