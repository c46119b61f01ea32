"""The experiment of one forward pass for views of two sizes: it computes what two passes do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.massl.conftest import small_settings

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "packed.py"
if not SCRIPT.exists():
    pytest.skip("benchmarks come with a clone alone", allow_module_level=True)

found = importlib.util.spec_from_file_location("packed", SCRIPT)
assert found is not None
assert found.loader is not None
packed = importlib.util.module_from_spec(found)
found.loader.exec_module(packed)


@pytest.fixture(scope="module")
def case() -> tuple[torch.nn.Module, list[torch.Tensor]]:
    return packed.prepare("vit_shallow_patch16", 3, torch.device("cpu"), small_settings(local_views="3"))


@pytest.mark.parametrize("form", ["split", "mask"])
def test_one_pass_gives_the_outputs_and_gradients_of_two(form: str, case) -> None:
    outputs, gradients = packed.apart(*case, packed.FORMS[form])
    assert outputs < 1e-5
    assert gradients < 1e-5


def test_what_lets_views_see_each_other_is_noticed(case, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = packed._attend
    monkeypatch.setattr(packed, "_attend", lambda backbone, qkv, allowed=None: attend(backbone, qkv))
    outputs, gradients = packed.apart(*case, packed.FORMS["mask"])
    assert outputs > 1e-3
    assert gradients > 1e-3


def test_times_are_taken_of_both(case) -> None:
    taken = packed.times(*case, rounds=2, precision=torch.bfloat16, forms=["split", "mask"])
    assert {name: len(each) for name, each in taken.items()} == {"two passes": 2, "split": 2, "mask": 2}
    assert all(second > 0 for each in taken.values() for second in each)
