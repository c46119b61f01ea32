"""Ours beside the authors' own code: `golden/authors.json` holds what theirs did; `golden/make.py` made it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from massl.method.memory import Memory
from massl.method.network import Network, ProjectionHead, build_backbone, build_pair, parameter_groups
from massl.method.schedules import Rates
from massl.planning import plan
from massl.settings import Settings
from massl.training.distributed import World
from massl.training.learner import Learner
from tests.massl.method.golden import inputs
from tests.massl.method.golden.inputs import CASES, WIDTH, Case

THEIRS: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "authors.json").read_text(encoding="utf-8"))
IMAGENET = 1_281_167  # images to train on


def our_settings(case: Case) -> Settings:
    """The same run in our words."""
    return Settings(
        backbone="vit_tiny_patch16_224", patch_size=case.patch, drop_path=0.0, head_norm=case.head_norm,
        memory=case.memory, block=case.block, momentum=case.momentum, teacher_temperature_start=case.temperature_start,
        teacher_temperature=case.temperature, temperature_warmup=case.temperature_warmup * case.epoch_steps,
        batch=case.batch, steps=case.steps, learning_rate=case.learning_rate, precision="fp32",
        learning_rate_end=case.learning_rate_end, warmup=case.warmup * case.epoch_steps,
        weight_decay=case.weight_decay, weight_decay_end=case.weight_decay_end, mean_pooled=case.mean_pooled,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_twenty_steps_are_the_authors(case: Case) -> None:
    """From the same weights, memory, permutations and views; whole runs, so that every schedule ends too."""
    theirs = THEIRS["runs"][case.name]
    settings = our_settings(case)
    learner = Learner(settings, World(torch.device("cpu")))
    with torch.no_grad():
        for network in (learner.student, learner.teacher):
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(inputs.parameter(name, *parameter.shape)))
        learner.memory.rows.copy_(torch.from_numpy(inputs.memory(case)))
    for number in range(20):
        rates = Rates.at(number, settings)
        for name in ("learning_rate", "weight_decay", "momentum", "teacher_temperature"):
            assert getattr(rates, name) == pytest.approx(theirs[name][number], rel=1e-9, abs=1e-15), (name, number)
        views = [torch.from_numpy(group) for group in inputs.views(case, number)]
        step = learner.step(views, rates, number, torch.from_numpy(inputs.permutation(case, number)))
        assert float(step.loss) == pytest.approx(theirs["losses"][number], abs=1e-4), number
        if wanted := theirs["after"].get(str(number + 1)):
            assert tensors(learner.student) == pytest.approx(wanted["student"], rel=1e-6, abs=2e-5)
            assert tensors(learner.teacher) == pytest.approx(wanted["teacher"], rel=1e-6, abs=2e-5)
            assert inputs.summary({"rows": learner.memory.rows.numpy()}) == pytest.approx(
                wanted["memory"], rel=1e-6, abs=2e-5
            )
    assert len(theirs["losses"]) == settings.steps == 20
    assert int(learner.memory.position) == theirs["position"]


def tensors(network: nn.Module) -> dict[str, float]:
    return inputs.summary({name: parameter.detach().numpy() for name, parameter in network.named_parameters()})


@pytest.fixture(scope="module")
def fresh() -> tuple[Network, Network]:
    """A pair as a run with the ViT-S/16 recipe begins."""
    torch.manual_seed(0)
    return build_pair(build_backbone("vit_small_patch16_224", 224, 16, drop_path=0.1), ProjectionHead(384))


def starred(name: str) -> str:
    return re.sub(r"blocks\.\d+\.", "blocks.*.", name)


def test_weights_begin_as_the_authors_do(fresh: tuple[Network, Network]) -> None:
    drawn: dict[str, list[Tensor]] = {}
    for name, parameter in fresh[0].named_parameters():
        drawn.setdefault(starred(name), []).append(parameter.detach().flatten())
    wanted = THEIRS["first"]["network"]
    assert set(drawn) == set(wanted)
    for name, parts in drawn.items():
        mean, deviation, _, _ = wanted[name]
        values = torch.cat(parts)
        # Four standard errors of each figure; constants are to the letter.
        error = 4 * max(deviation, 1e-9) / len(values) ** 0.5
        assert float(values.mean()) == pytest.approx(mean, abs=2 * error), name
        assert float(values.std()) == pytest.approx(deviation, abs=2 * error), name
    head = THEIRS["first"]["head"]
    layers = ProjectionHead(384).mlp
    assert [f"{type(layer).__name__}{list(getattr(layer, 'weight', torch.empty(0)).shape)}" for layer in layers] == head


def test_the_same_parameters_decay(fresh: tuple[Network, Network]) -> None:
    student = fresh[0]
    names = {id(parameter): starred(name) for name, parameter in student.named_parameters()}
    groups: list[Any] = [group["params"] for group in parameter_groups(student)]
    found = [sorted({names[id(parameter)] for parameter in group}) for group in groups]
    assert found == [THEIRS["first"]["decaying"], THEIRS["first"]["plain"]]


def test_paths_drop_in_the_student_alone_and_more_with_depth(fresh: tuple[Network, Network]) -> None:
    def rates(network: Network, which: str) -> list[float]:
        return [getattr(getattr(block, which), "drop_prob", 0.0) for block in network.backbone.blocks]  # type: ignore

    student, teacher = fresh
    for which in ("drop_path1", "drop_path2"):
        assert rates(student, which) == pytest.approx(THEIRS["first"]["drop_path"])
        assert not any(rates(teacher, which))


def test_the_memory_begins_as_the_authors_does() -> None:
    rows = Memory(4096, WIDTH, torch.Generator().manual_seed(0)).rows
    for values, wanted in ((rows, "entries"), (rows.norm(dim=1), "lengths")):
        mean, deviation, _, _ = THEIRS["first"]["memory"][wanted]
        assert float(values.mean()) == pytest.approx(mean, abs=1e-3)
        assert float(values.std()) == pytest.approx(deviation, abs=1e-3)


@pytest.mark.parametrize(("preset", "theirs"), [("vit-s16-paper", "vit_small"), ("vit-b16-paper", "vit_base")])
def test_the_paper_presets_are_the_authors_commands(preset: str, theirs: str) -> None:
    """As their own parser reads the two commands of their README."""
    told = THEIRS["recipes"][theirs]
    settings = plan(preset, IMAGENET)[0]
    batch = told["batch_size_per_gpu"] * told["gpus"]
    each = IMAGENET // batch
    wanted = {
        "backbone": f"{told['arch']}_patch16_224",
        "patch_size": told["patch_size"],
        "drop_path": told["drop_path_rate"],
        "head_norm": told["use_bn_in_head"],
        "local_views": told["local_crops_number"],
        "global_scale": tuple(told["global_crops_scale"]),
        "local_scale": tuple(told["local_crops_scale"]),
        "colour_change": 1.0,
        "memory": told["out_dim"],
        "block": told["partition_size"],
        "student_temperature": told["student_temp"],
        "teacher_temperature_start": told["warmup_teacher_temp"],
        "teacher_temperature": told["teacher_temp"],
        "temperature_warmup": told["warmup_teacher_temp_epochs"] * each,
        "momentum": told["momentum_teacher"],
        "batch": batch,
        "steps": told["epochs"] * each,
        "learning_rate": told["lr"],
        "learning_rate_end": told["min_lr"],
        "warmup": told["warmup_epochs"] * each,
        "weight_decay": told["weight_decay"],
        "weight_decay_end": told["weight_decay_end"],
        "clip": told["clip_grad"],
    }
    assert {name: getattr(settings, name) for name in wanted} == wanted
    crops = [THEIRS["augmentation"][view][0] for view in ("global_transfo1", "global_transfo2", "local_transfo")]
    sides = [int(found[1]) for crop in crops if (found := re.search(r"size=\((\d+), \1\)", crop))]
    assert [settings.image_size, settings.image_size, settings.local_size] == sides
    # What ours have no setting for, theirs leave at nothing.
    assert (told["koleo_loss_weight"], told["use_mean_pooling"], told["use_masked_im_modeling"]) == (0.0, False, False)
    assert (told["optimizer"], told["bottleneck_dim"]) == ("adamw", WIDTH)
