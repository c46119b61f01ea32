"""Steps on CUDA without a GPU: torch's fake tensors have devices and types, and no content.

Whatever mixes a tensor of the CPU with one of the GPU, or one type with another, fails here as it would there. Kernels
are not run, so nothing is learnt about numbers and speed, and torch's engine of backward passes asks for a driver:
gradients are made by hand.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from massl.method import augment as augmentation
from massl.method import loss as losses
from massl.method.augment import normalise
from massl.method.network import build_pair, build_parts, embed
from massl.method.schedules import Rates
from massl.method.views import Batch, on_device
from massl.training import learner as learning
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.monitor import memory_use
from tests.massl.conftest import small_settings

CUDA = torch.device("cuda", 0)
RATES = Rates(1e-3, 0.04, 0.9, 0.05)
NEW, OLD = (9, 0), (7, 5)  # GPUs with and without the flash kernel
BY_NAME = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NORMS = {"head_norm": "true", "projection_norm": "true"}
SWIN = "swin_tiny_patch4_window7_224"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if there were a GPU: what torch would ask a driver is answered, and all tensors are fake."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *given, **more: True)
    monkeypatch.setattr(losses, "_capability", lambda device: NEW)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)

    def really(build: Callable[..., Any], *given: Any, **more: Any) -> Any:
        with unset_fake_temporarily():  # what draws first weights asks for numbers
            return build(*given, **more)

    for build in (build_parts, build_pair):
        monkeypatch.setattr(learning, build.__name__, functools.partial(really, build))

    swap = torch.utils.swap_tensors

    def swap_what_differs(old: torch.Tensor, new: torch.Tensor) -> None:
        # A backbone that two networks share is moved twice. Torch remembers, by a weak reference, each kind of move
        # that is the first in its process, and refuses to swap what it remembers. Fake tensors have no content, so
        # alike ones need no swap.
        if not (on_gpu(old, new) and (old.dtype, old.stride()) == (new.dtype, new.stride())):
            swap(old, new)

    monkeypatch.setattr(torch.utils, "swap_tensors", swap_what_differs)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_gpu(*tensors: torch.Tensor) -> bool:
    return all(isinstance(tensor, FakeTensor) and tensor.device == CUDA for tensor in tensors)


@pytest.mark.parametrize(
    ("capability", "precision", "settings"),
    [
        (NEW, "fp32", {"drop_path": "0.2"}),
        (NEW, "bf16", {"drop_path": "0.2"}),
        (NEW, "fp16", {"accumulate": "2"}),
        (OLD, "fp16", {"mean_pooled": "true", "local_views": "0"}),
        (NEW, "bf16", {"backbone": "resnet10t", "accumulate": "2", **NORMS}),
        (NEW, "fp16", {"backbone": "resnet10t", **NORMS}),
        (NEW, "bf16", {"backbone": "test_efficientnet"}),
        (NEW, "bf16", {"backbone": SWIN, "checkpoint_activations": "true"}),
        (OLD, "fp16", {"backbone": SWIN}),
    ],
    ids=str,
)
def test_a_step_stays_on_the_device_and_in_its_types(
    cuda: None, capability: tuple[int, int], precision: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_capability", lambda device: capability)
    values = small_settings(precision=precision, **settings)
    learner = Learner(values, World(CUDA))
    assert learner.fused
    assert learner.scaler.is_enabled() == (precision == "fp16")
    multiplied: list[torch.dtype] = []
    of_backbone: list[torch.dtype] = []
    layer_kinds = (torch.nn.Linear, torch.nn.Conv2d)
    for network in (learner.student, learner.teacher):
        layer = next(module for module in network.backbone.modules() if isinstance(module, layer_kinds))
        layer.register_forward_hook(lambda layer, given, result: of_backbone.append(result.dtype))
        network.head.mlp[0].register_forward_hook(lambda layer, given, result: multiplied.append(result.dtype))

    def backward(loss: torch.Tensor) -> None:
        assert on_gpu(loss)
        assert loss.requires_grad
        for parameter in learner.student.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    views = [torch.zeros(2, 4, 3, 32, 32, device=CUDA), torch.zeros(2, 4, 3, 16, 16, device=CUDA)]
    permutation = torch.arange(values.memory, device=CUDA)
    for number in range(2):
        step = learner.step(views[: 1 + bool(values.local_views)], RATES, number, permutation)
    assert on_gpu(step.loss, step.finite, step.gradient_norm, step.student_entropy, step.teacher_entropy, step.teacher)
    assert step.loss.dtype == step.teacher.dtype == torch.float32
    assert set(multiplied) == {torch.float32}  # the head is, whatever the backbone's precision
    assert set(of_backbone) == {BY_NAME[precision]}
    for network in (learner.student, learner.teacher):
        assert on_gpu(*network.parameters(), *network.buffers())
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert on_gpu(learner.memory.rows, learner.memory.position, learner.memory.written)
    moments = [tensor for state in learner.optimiser.state.values() for tensor in state.values()]
    assert moments
    assert on_gpu(*moments)
    assert on_gpu(memory_use(step.teacher[0], learner.memory.rows[permutation[: values.block]], 0.05))


@pytest.mark.parametrize("precision", BY_NAME)
def test_an_adapter_s_step_stays_on_the_device(cuda: None, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = dataclasses.replace(small_settings(precision=precision, local_views="0"), adapter=True)
    learner = Learner(values, World(CUDA))

    def backward(loss: torch.Tensor) -> None:
        assert on_gpu(loss)
        assert loss.requires_grad
        for parameter in learner.student.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    width = learner.student.adapter.change.in_features
    step = learner.step([torch.zeros(2, 4, width, device=CUDA)], RATES, 0, torch.arange(values.memory, device=CUDA))
    assert on_gpu(step.loss, step.finite, step.gradient_norm, step.teacher, learner.memory.rows)
    assert step.loss.dtype == step.teacher.dtype == torch.float32
    assert len(learner.optimiser.state) == 1  # of the adapter alone


@pytest.mark.parametrize("precision", BY_NAME)
@pytest.mark.parametrize("backbone", ["vit_shallow_patch16", "resnet10t"])
def test_a_step_with_a_frozen_teacher_stays_on_the_device(
    cuda: None, precision: str, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_settings(precision=precision, backbone=backbone, local_views="0", accumulate="2")
    values = dataclasses.replace(small, teacher_dim=384)
    learner = Learner(values, World(CUDA))

    def backward(loss: torch.Tensor) -> None:
        assert on_gpu(loss)
        assert loss.requires_grad
        for parameter in learner.student.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    views, embeddings = torch.zeros(2, 4, 3, 32, 32, device=CUDA), torch.zeros(1, 4, 384, device=CUDA)
    step = learner.step([views], RATES, 0, torch.arange(values.memory, device=CUDA), embeddings)
    assert on_gpu(step.loss, step.finite, step.gradient_norm, step.teacher, learner.memory.rows)
    assert on_gpu(*learner.target.buffers(), *learner.teacher.buffers())
    assert step.loss.dtype == step.teacher.dtype == torch.float32
    assert step.teacher.shape == (2, 4, 256)


def test_a_loss_s_gradient_stays_on_the_device_and_in_its_type(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for capability in (NEW, OLD):
        for kind in BY_NAME.values():
            monkeypatch.setattr(losses, "_capability", lambda device, found=capability: found)
            student = torch.empty(4, 4, 256, device=CUDA, dtype=kind, requires_grad=True)
            memory, permutation = torch.empty(64, 256, device=CUDA), torch.arange(64, device=CUDA)
            found = losses.massl_loss(student, student[:2].detach(), memory, permutation, 24, 0.1, 0.05)
            assert on_gpu(*found)
            (kept,) = found.loss.grad_fn.saved_tensors
            gradient = losses._BlockwiseCrossEntropy.backward(
                SimpleNamespace(saved_tensors=(kept,), scale=0.5), found.loss.detach(), None, None
            )[0]
            assert on_gpu(gradient)
            assert (gradient.shape, kept.dtype) == (student.shape, kind)


@pytest.mark.parametrize("where", ["device", "loader"])
def test_views_are_changed_on_the_device(where: str, cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small_settings(augment=where)
    with unset_fake_temporarily():  # what is drawn is on the CPU, as numbers
        torch.manual_seed(0)
        draws = torch.stack([augmentation.draw(settings) for _ in range(24)], 1)
        steps = [list(augmentation._steps(part.flatten(0, 1))) for part in (draws[:2], draws[2:])]
    assert {step for part in steps for step, _ in part} == set(augmentation._STEPS)
    halves = iter(steps)
    monkeypatch.setattr(augmentation, "_steps", lambda rows: next(halves))
    large = torch.zeros(2, 24, 3, 32, 32, dtype=torch.uint8)
    small = torch.zeros(2, 24, 3, 16, 16, dtype=torch.uint8)
    for given, views in zip((large, small), on_device(Batch(large, small, draws, []), CUDA, settings), strict=True):
        assert on_gpu(views)
        assert (views.shape, views.dtype) == (given.shape, torch.float32)


@pytest.mark.parametrize("precision", BY_NAME)
def test_measuring_takes_the_device_s_answers(cuda: None, precision: str) -> None:
    """As far as the answers: numbers of fake tensors there are none."""
    learner = Learner(small_settings(), World(CUDA))
    pixels = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cuda", BY_NAME[precision], enabled=precision != "fp32"):
        rows = embed(learner.teacher.backbone.eval(), normalise(pixels.to(CUDA)), learner.teacher.positions)
    assert on_gpu(rows)
    assert rows.shape == (4, 64)
