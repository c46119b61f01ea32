"""What a run takes is told before it begins, and is what it takes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from cli.commands import app
from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import checkpoint
from massl.method.schedules import Rates
from massl.planning import differing, plan
from massl.training import learner, out_of_memory
from massl.training.cost import bytes_of_an_image, cost_of, operations_of_an_image
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.loop import train
from massl.training.out_of_memory import is_out_of_memory, parts_that_fit, remedy
from tests.massl.conftest import SMALL, small_settings

ALONE = World(torch.device("cpu"))


def test_a_checkpoint_takes_the_bytes_that_were_foretold(run: Path, pictures: Path) -> None:
    settings = small_settings(len(find_source(pictures / "flag")[0]))
    cost = cost_of(settings)
    written = (run / "checkpoints" / "step-00000008.pt").stat().st_size
    assert cost.checkpoint == pytest.approx(written, rel=0.1)  # the rest is names, of a small network
    assert sum(path.stat().st_size for path in run.rglob("*.pt")) < cost.disk
    assert cost.images_seen == checkpoint.load(run / "checkpoints" / "step-00000008.pt")["images_seen"]
    assert cost.parameters == sum(parameter.numel() for parameter in Learner(settings, ALONE).student.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t", "mobilenetv3_small_050"])
def test_what_an_image_keeps_is_what_a_real_pass_keeps(backbone: str, precision: str) -> None:
    settings = small_settings(backbone=backbone, precision=precision)
    student = Learner(settings, ALONE).student
    own = {tensor.untyped_storage().data_ptr() for tensor in (*student.parameters(), *student.buffers())}
    kept: dict[int, Tensor] = {}

    def real(images: int) -> int:
        kept.clear()
        views = [torch.randn(2, images, 3, 32, 32), torch.randn(2, images, 3, 16, 16)]
        with (
            torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t),
                                                     lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):  # fmt: skip
            student(*views)
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)

    # To a few bytes of rounding where kernels keep some of their own for a batch.
    assert bytes_of_an_image(settings) == pytest.approx((real(8) - real(4)) / 4, rel=0.05)


def test_what_is_computed_again_is_not_foretold() -> None:
    assert bytes_of_an_image(small_settings(checkpoint_activations="true")) is None


@pytest.mark.parametrize(
    ("share", "current", "fitting", "normed", "parts"),
    [
        (64, 64, 40, False, 2),  # 32 each
        (64, 64, 10, False, 7),
        (64, 64, 500, False, 2),  # it did not fit, whatever was computed
        (64, 16, 40, False, 8),
        (64, 64, None, False, 2),
        (64, 64, 0, False, 64),
        (64, 64, 0, True, 32),
        (64, 1, 0, False, None),
        (64, 2, 0, True, None),
        (7, 7, 3, True, None),  # 3, 3 and 1, or 2, 2, 2 and 1
    ],
)
def test_parts_are_as_large_as_fit(
    share: int, current: int, fitting: int | None, normed: bool, parts: int | None
) -> None:
    assert parts_that_fit(share, current, fitting, normed) == parts


def test_a_step_that_takes_too_much_memory_says_how_it_would_fit(photos: Path, tmp_path: Path, monkeypatch) -> None:
    source, _ = find_source(photos)
    settings = small_settings(batch="24", image_size="160", local_size="96", steps="4", checkpoint_every="100")
    plain, steps = learner.massl_loss, []

    def greedy(*given):
        steps.append(1)
        if len(steps) == fails_at:
            torch.empty(1 << 60)  # which the system refuses
        return plain(*given)

    monkeypatch.setattr(learner, "massl_loss", greedy)
    monkeypatch.setattr(out_of_memory, "available_memory", lambda: 60 << 20)
    fails_at = 1
    line = r"the memory does not hold a step of 24 images at a time; parts of \d+ should fit \(--accumulate \d+, or "
    with pytest.raises(MasslError, match=line + r".*--checkpoint-activations.*; nothing was learnt yet, start again"):
        train(source, tmp_path / "run", settings)
    steps.clear()
    fails_at = 3
    with pytest.raises(MasslError, match=line + r".*; go on with: massl train .* --resume .*run --accumulate \d+$"):
        train(source, tmp_path / "run", settings)  # the folder is free for another try
    assert losses(tmp_path / "run") == 2
    steps.clear()
    fails_at = 0
    again = small_settings(batch="24", image_size="160", local_size="96", steps="4", accumulate="3")
    assert train(source, tmp_path / "run", again, resume=True)["images_seen"] == 4 * 24
    assert len(steps) == 2 * 3
    assert losses(tmp_path / "run") == 4


def losses(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_a_failed_step_leaves_batch_statistics_as_they_were(monkeypatch) -> None:
    own = Learner(small_settings(backbone="resnet10t", head_norm="true"), ALONE)
    before = {name: buffer.clone() for name, buffer in own.student.named_buffers()}

    def refused(*given):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(learner, "massl_loss", refused)
    with pytest.raises(RuntimeError) as caught:
        own.step([torch.randn(2, 4, 3, 32, 32), torch.randn(2, 4, 3, 16, 16)], Rates(1e-3, 0.04, 0.9, 0.05), 0)
    assert is_out_of_memory(caught.value)
    assert all(torch.equal(buffer, before[name]) for name, buffer in own.student.named_buffers())


def test_torchs_own_errors_are_told_apart() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"))
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(caught.value)


def test_a_network_that_fits_in_no_part_says_so() -> None:
    line, flag = remedy(small_settings(batch="4", accumulate="4"), ALONE, 10**12)
    assert line.startswith("the memory is too small even for parts of 1 image; give a smaller --backbone")
    assert flag == ""


def test_what_differs_from_a_preset_is_shown() -> None:
    table = plan("gpu", 500_000, {"clip": "1.0", "seed": "0"}, workers=8)[1]
    assert {"clip", "memory", "steps"} <= {choice.name for choice in differing(table, "gpu")}
    assert not {"seed", "image_size", "batch"} & {choice.name for choice in differing(table, "gpu")}


def test_a_plan_is_printed_and_nothing_is_done(photos: Path, tmp_path: Path, massl_train) -> None:
    out = tmp_path / "run"
    told = massl_train(photos, "--init", "none", "--plan", "--out", out, "--set", "clip=inf", "--accumulate", "2")
    assert "batch normalisation takes its statistics over parts of 12" in told
    for name in ("setting", "backbone", "parameters", "checkpoint", "disk", "time"):
        assert name in told
    shutil.rmtree(photos / "flag")
    plan = json.loads(massl_train(photos, "--init", "none", "--plan", "--json", "--devices", "2", "--workers", "3"))
    assert (plan["images"], plan["devices"], plan["settings"]["workers"]) == (18, 2, {"value": 3, "why": "given"})
    assert plan["cost"]["part"] == 9
    assert not out.exists()
    assert not (tmp_path / "runs").exists()


def test_networks_that_do_not_fit_end_the_run_in_a_line(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def too_large(*given):
        torch.empty(1 << 60)

    monkeypatch.setattr("massl.training.loop.Learner", too_large)
    with pytest.raises(MasslError, match=r"does not hold the networks and the memory: give a smaller --backb"):
        train(find_source(photos)[0], tmp_path / "run", small_settings())
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_other_parts_and_workers_than_it_began_with(run: Path, pictures: Path, massl_train) -> None:
    words = (pictures / "flag", "--resume", run, "--plan", "--json", "--accumulate", "2", "--workers", "1")
    told = json.loads(massl_train(*words))["settings"]
    assert (told["accumulate"]["value"], told["workers"]["value"], told["memory"]["value"]) == (2, 1, 32)


def test_the_usual_table_is_short_and_all_of_it_is_there(photos: Path, tmp_path: Path) -> None:
    flags = [
        f"--set={name}={value}"
        for name, value in {"backbone": "vit_shallow_patch16", **SMALL, "steps": "1", "log_every": "1"}.items()
    ]
    shown = []
    for number, verbose in enumerate(([], ["-v"])):
        words = ["train", str(photos), "--out", str(tmp_path / str(number)), *flags, *verbose, "--seed", "7"]
        shown.append(CliRunner().invoke(app, words, catch_exceptions=False).stderr)
    short, long = shown
    for said in shown:
        assert " a step, " in said
        assert " of it waiting for images, peak memory " in said
        assert re.search(r"^ seed +7 +given", said, re.MULTILINE)
    assert "weight_decay_end" in long
    assert "weight_decay_end" not in short
    assert "-v or --plan prints all settings" in short


@pytest.mark.parametrize("saving", ["false", "true"])
def test_operations_are_those_that_one_counts_by_hand(saving: str) -> None:
    settings = small_settings(memory="4096", checkpoint_activations=saving)
    width, deep, hidden = 64, 2, 3 * 64  # of `vit_shallow_patch16`

    def forward(side: int) -> int:
        tokens = (side // 16) ** 2 + 1
        block = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
        head = 2 * (width * 32 + 32 * 32 + 32 * 256)
        return deep * block + 2 * (tokens - 1) * 768 * width + head

    wanted = (2 + 3 * 2) * forward(32) + 3 * 2 * forward(16) + 4 * (2 + 2 + 2) * 4096 * 256
    assert operations_of_an_image(settings) == pytest.approx(wanted, rel=0.1)
