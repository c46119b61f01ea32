"""One step of learning: what changes nothing, and what must not change the result."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from massl.core.errors import MasslError
from massl.method.network import ProjectionHead, freeze_blocks
from massl.method.schedules import Rates
from massl.method.seeding import seed_of
from massl.training import learner as learning
from massl.training.accumulation import check_parts, part_sizes, parts_note
from massl.training.distributed import World
from massl.training.learner import Learner
from tests.massl.conftest import small_settings

SWIN = "swin_tiny_patch4_window7_224"
ALONE = World(torch.device("cpu"))


def views(images: int = 4) -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    return [torch.randn(2, images, 3, 32, 32, generator=draws), torch.randn(2, images, 3, 16, 16, generator=draws)]


def learn(steps: int, **settings: str) -> Learner:
    """A learner after a few steps, drop-path off and no batch statistics unless asked for."""
    values = small_settings(**{"backbone": "test_vit", "head_norm": "false", "drop_path": "0", **settings})
    learner = Learner(values, ALONE)
    for step in range(steps):
        learner.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), step)
    return learner


def weights(learner: Learner) -> dict[str, Tensor]:
    return {f"{part}.{name}": t for part in ("student", "teacher", "memory") for name, t in
            getattr(learner, part).state_dict().items()}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "plain"},
        {"accumulate": "2"},
        {"accumulate": "3"},
        {"checkpoint_activations": "true"},
        {"compile": "true"},
    ],
    ids=str,
)
def test_saving_memory_or_time_changes_no_gradient(settings: dict[str, str], monkeypatch) -> None:
    # Traced, split into forward and backward, but not turned into C++, which takes minutes.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    plain, saving = learn(1), learn(1, **settings)
    assert list(weights(plain)) == list(weights(saving))
    for (name, one), (_, other) in zip(
        plain.student.named_parameters(), saving.student.named_parameters(), strict=True
    ):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(saving.memory.rows, plain.memory.rows)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_learn_nearly_the_same(precision: str) -> None:
    plain, lower = learn(1), learn(0, precision=precision)
    while not lower.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), 0).finite:
        assert precision == "fp16"  # which finds its gradients' scale by overflowing
    assert lower.memory.written == 4
    for one, other in zip(plain.student.parameters(), lower.student.parameters(), strict=True):
        assert other.dtype == torch.float32
        # Adam's first steps have the size of the rate, whatever the gradient's.
        assert (one - other).abs().max() <= 2.1e-3
    torch.testing.assert_close(lower.memory.rows, plain.memory.rows, atol=0.05, rtol=0)


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_views_that_come_in_the_run_s_precision_change_nothing(backbone: str) -> None:
    """Networks round them at once, and put them into this layout."""
    values = small_settings(backbone=backbone, precision="bf16", drop_path="0")
    done = []
    for ready in (False, True):
        learner = Learner(values, ALONE)
        given = views()
        if ready:
            last = torch.channels_last
            given = [v.flatten(0, 1).bfloat16().contiguous(memory_format=last).view(v.shape) for v in given]
        learner.step(given, Rates(1e-3, 0.04, 0.9, 0.05), 0)
        done.append(weights(learner))
    assert all(torch.equal(tensor, done[1][name]) for name, tensor in done[0].items())


def test_the_head_rounds_logits_no_more_than_the_backbone_does() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(64, 256)
    features = functional.normalize(torch.randn(64, 64), dim=1) * 8
    whole = head(features)
    rounded = head(features.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        projections = head(features.bfloat16())
    assert projections.dtype == torch.float32
    # The logits: of the rounded features, and nothing rounded again. With the head in bfloat16 they are off by 0.01.
    torch.testing.assert_close(projections @ whole.T / 0.04, rounded @ whole.T / 0.04, atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("poison", ["images", "loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(poison: str, precision: str, monkeypatch) -> None:
    learner = learn(1, backbone="resnet18", head_norm="true")  # both have batch statistics that a NaN would enter
    before = copy.deepcopy(weights(learner)), copy.deepcopy(learner.optimiser.state_dict())
    given = views()
    if poison == "images":
        given[0][1, 2, 0, 5, 5] = float("nan")
    elif poison == "loss":
        plain = learning.massl_loss
        monkeypatch.setattr(
            learning, "massl_loss", lambda *rest: (r := plain(*rest))._replace(loss=r.loss * float("inf"))
        )
    else:
        next(learner.student.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    result = learner.step(given, Rates(1e-3, 0.04, 0.9, 0.05), 1)
    assert not result.finite
    for name, tensor in weights(learner).items():
        assert torch.equal(tensor, before[0][name]), name
    for index, moments in learner.optimiser.state_dict()["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, before[1]["state"][index][name]), name


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before() -> None:
    values = small_settings(drop_path="0.5")
    one, other = Learner(values, ALONE), Learner(values, ALONE)
    torch.randn(7)  # as a worker or a probe might
    for learner in (one, other):
        result = learner.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), 5)
        assert result.finite
        torch.rand(3)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


@pytest.mark.parametrize("backbone", ["resnet18", "swin_tiny_patch4_window7_224", "vit_wee_patch16_reg1_gap_256"])
def test_other_networks_take_a_step_by_the_same_setting(backbone: str) -> None:
    learner = Learner(small_settings(backbone=backbone), ALONE)
    result = learner.step(views(2), Rates(1e-3, 0.04, 0.9, 0.05), 0)
    assert result.finite
    assert result.teacher.shape == (2, 2, 256)
    assert all(parameter.grad is not None for parameter in learner.student.parameters())


def as_saved_by(learner: Learner, **kernels: bool | None) -> dict[str, Any]:
    """A learner's state as a device saves it whose optimiser computes by other kernels, counting steps on the device.

    As `checkpoint.load` gives it, all on the CPU.
    """
    state = copy.deepcopy(learner.state_dict())
    for group in state["optimiser"]["param_groups"]:
        group |= kernels
    return state


ON_CUDA = {"fused": True, "foreach": None, "capturable": False, "differentiable": False}
ON_MPS = {"fused": False, "foreach": None, "capturable": False, "differentiable": False}


@pytest.mark.parametrize(("here", "there"), [("cpu", ON_MPS), ("mps", ON_CUDA), ("cpu", ON_CUDA)], ids=str)
def test_a_run_goes_on_on_another_kind_of_device(here: str, there: dict[str, Any], monkeypatch) -> None:
    monkeypatch.setattr(learning, "FUSED", ("cpu", "cuda") if here == "cpu" else ())  # MPS's is not fused
    whole, parts = learn(2), learn(3)
    parts.load_state_dict(as_saved_by(whole, **there))
    own = {name: value for name, value in parts.optimiser.param_groups[0].items() if name in learning.KERNELS}
    assert own["fused"] is (here == "cpu")
    for learner in (whole, parts):
        assert learner.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), 2).finite
    for (name, one), other in zip(weights(whole).items(), weights(parts).values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("there", [{}, {"scale": 512.0, "growth_factor": 2.0, "backoff_factor": 0.5,
                                        "growth_interval": 2000, "_growth_tracker": 7}], ids=str)  # fmt: skip
def test_a_gradient_scale_is_taken_where_there_was_one(there: dict[str, Any]) -> None:
    learner = learn(1, precision="fp16")
    learner.load_state_dict(as_saved_by(learner) | {"scaler": there})
    assert learner.scaler.get_scale() == there.get("scale", learner.scaler.get_scale())
    while not learner.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), 1).finite:
        pass


def test_runs_of_different_seeds_share_no_draws(monkeypatch) -> None:
    seeds: list[int] = []
    plain = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), plain(seed))[1])
    permutations = set()
    for seed in range(3):
        for rank in range(2):
            learner = learn(0, seed=str(seed))
            learner.world = World(torch.device("cpu"), rank, 1)
            for step in range(3):
                learner.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), step)
                permutations.add((seed, step, tuple(learner._permutation(step).tolist())))
    assert len({values for *_, values in permutations}) == len(permutations) == 9  # ranks share theirs
    begun, drawn = seeds[::4], [seed for place, seed in enumerate(seeds) if place % 4]
    assert len(set(begun)) == 3
    assert len(set(drawn)) == 18
    assert not set(begun) & set(drawn)


def test_a_run_draws_each_of_its_numbers_from_a_seed_of_its_own() -> None:
    places = [("weights",), ("memory",), ("order", 0), ("views", 0, 0), ("drop-path", 0, 0), ("permutation", 0)]
    assert len({seed_of(seed, *place) for seed in (-1, 0, 1) for place in places}) == 18


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, True),
        ({"head_norm": "true"}, False),
        ({"projection_norm": "true"}, False),
        ({"backbone": "resnet10t"}, False),
    ],
    ids=str,
)
def test_it_is_said_where_parts_of_a_batch_are_not_the_same_gradient(settings: dict[str, str], same: bool) -> None:
    plain, parts = (learn(1, accumulate=number, **settings) for number in ("1", "2"))
    gradients = zip(plain.student.parameters(), parts.student.parameters(), strict=True)
    assert same == all(torch.allclose(one.grad, other.grad, atol=1e-5, rtol=1e-4) for one, other in gradients)
    assert not parts_note(plain.settings)
    assert same == (not parts_note(parts.settings))
    if not same:
        assert parts_note(parts.settings).startswith("batch normalisation takes its statistics over parts of 2 images")


@pytest.mark.parametrize("settings", [{"head_norm": "true"}, {"projection_norm": "true"}], ids=str)
def test_a_head_does_not_normalise_the_views_of_one_image_among_themselves(settings: dict[str, str]) -> None:
    for wrong in ({"accumulate": "4"}, {"batch": "1"}, {"batch": "3", "accumulate": "2"}):
        with pytest.raises(MasslError, match="parts of one image, whose views the head would normalise"):
            learn(0, **settings, **wrong)
    values = small_settings(batch="2", **settings)
    with pytest.raises(MasslError, match="a batch of 2 on 2 devices has parts of one image"):
        check_parts(values, 2)
    check_parts(values, 2, synchronised=True)
    learn(0, accumulate="4")


@given(st.integers(1, 200), st.integers(1, 200))
def test_parts_are_as_large_as_torch_cuts_them(images: int, parts: int) -> None:
    assert part_sizes(images, parts) == [len(part) for part in torch.empty(images).chunk(parts)]


def moved(learner: Learner, before: dict[str, Tensor]) -> dict[str, float]:
    """How far each of the student's parameters has moved at most."""
    return {
        name: float((value.detach() - before[name]).abs().max()) for name, value in learner.student.named_parameters()
    }


def test_layers_learn_the_slower_the_earlier_they_are_and_first_ones_not_at_all() -> None:
    plain = learn(0, backbone="vit_shallow_patch16")
    for settings, scales in (
        ({"layer_decay": "0.5"}, {"patch_embed": 0.25, "blocks.0": 0.5, "blocks.1": 1.0, "head": 1.0}),
        ({"frozen_blocks": "1"}, {"patch_embed": 0.0, "blocks.0": 0.0, "blocks.1": 1.0, "head": 1.0}),
        ({"frozen_blocks": "1", "layer_decay": "0.5"}, {"patch_embed": 0.0, "blocks.1": 1.0, "head": 1.0}),
        ({"head_only_steps": "1"}, {"patch_embed": 0.0, "blocks.1": 0.0, "head": 1.0}),
    ):
        learner = learn(0, backbone="vit_shallow_patch16", **settings)
        before = {name: value.detach().clone() for name, value in learner.student.named_parameters()}
        learner.step(views(), Rates(1e-3, 0.0, 0.9, 0.05), 0)
        found = moved(learner, before)
        for part, scale in scales.items():
            # Adam's first step has the size of the rate.
            steps = [step for name, step in found.items() if name.removeprefix("backbone.").startswith(part)]
            assert max(steps) == pytest.approx(1e-3 * scale, rel=0.05, abs=1e-9), (settings, part)
        state = copy.deepcopy(learner.state_dict())
        other = learn(0, backbone="vit_shallow_patch16", **settings)
        other.load_state_dict(state)
        for each in (learner, other):
            each.step(views(), Rates(1e-3, 0.04, 0.9, 0.05), 1)
        for name, tensor in weights(learner).items():
            assert torch.equal(tensor, weights(other)[name]), name
        assert max(moved(learner, before).values()) > 1.5e-3
    assert len(plain.optimiser.param_groups) == 2


@pytest.mark.parametrize("layer_decay", ["1", "0.5"])
@pytest.mark.parametrize("backbone", ["vit_shallow_patch16", "test_resnet", "test_efficientnet", SWIN])
def test_every_parameter_that_learns_is_in_one_group(backbone: str, layer_decay: str) -> None:
    learner = learn(0, backbone=backbone, layer_decay=layer_decay, frozen_blocks="1", head_only_steps="1")
    groups = learner.optimiser.param_groups
    inside = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(inside) == sorted(id(each) for each in learner.student.parameters() if each.requires_grad)
    assert 0 < len(inside) < len(list(learner.student.parameters()))
    for group in groups:
        plain = {parameter.ndim <= 1 for parameter in group["params"]}
        assert plain == {group["weight_decay"] == 0.0}
    head = {id(parameter) for parameter in learner.student.head.parameters()}
    assert {id(each) for group in groups if group["of_head"] for each in group["params"]} == head


def test_a_network_with_nothing_left_to_learn_is_refused() -> None:
    with pytest.raises(MasslError, match=r"frozen_blocks \(2\) leaves no block to train; give fewer"):
        learn(0, backbone="vit_shallow_patch16", frozen_blocks="2")
    with pytest.raises(MasslError, match="leave frozen_blocks out"):
        freeze_blocks(torch.nn.Linear(2, 2), 1)
