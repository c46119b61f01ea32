"""The loss against its definition, by each of its paths, and what it makes and keeps on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from massl.method import loss as module
from massl.method.loss import BUDGET, flash_precision, massl_loss

# What `flash_precision` answers on a CPU, on a GPU under autocast, and where no flash kernel fits.
FORMS: tuple[Literal["fast", "plain"], ...] = ("fast", "plain")
PATHS = {"cpu": torch.float32, "gpu": torch.float16, "fallback": None}


@contextmanager
def taking(path: str, budget: int = BUDGET, fewest: int = 64) -> Iterator[None]:
    """Sends the loss down one of its paths, on the CPU; there, the GPU's goes to the CPU's flash kernel in float16."""
    with pytest.MonkeyPatch.context() as patch:
        if path != "cpu":
            patch.setattr(module, "flash_precision", lambda *_: PATHS[path])
        patch.setattr(module, "BUDGET", budget)
        patch.setattr(module, "FEWEST_SLOTS", fewest)
        yield


def draw(views: int, batch: int, slots: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float32), dim=-1)

    permutation = torch.randperm(slots, generator=generator)
    return unit(views, batch, width), unit(2, batch, width), unit(slots, width), permutation


def value_and_gradient(form: Callable[..., Tensor], student: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    leaf = student.clone().requires_grad_()
    value = form(leaf, *rest)
    (3 * value).backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def streamed(*arguments: Any) -> Tensor:
    return massl_loss(*arguments).loss


def plain(*arguments: Any) -> Tensor:
    return massl_loss(*arguments, form="plain").loss


sizes = given(
    views=st.integers(2, 14),
    batch=st.integers(1, 9),
    slots=st.integers(1, 300),
    block=st.integers(1, 320),
    width=st.integers(2, 33),
    budget=st.sampled_from([BUDGET, 2048, 64]),
    fewest=st.integers(1, 64),
    seed=st.integers(0, 999),
)


@pytest.mark.parametrize("path", ["cpu", "fallback"])
@settings(max_examples=40, deadline=None)
@sizes
def test_loss_and_gradient_equal_the_plain_form_in_float32(
    path: str, views: int, batch: int, slots: int, block: int, width: int, budget: int, fewest: int, seed: int
) -> None:
    student, *rest = draw(views, batch, slots, width, seed)
    rest += [block, 0.1, 0.05]
    with taking(path, budget, fewest):
        loss, gradient = value_and_gradient(streamed, student, *rest)
    wanted, wanted_gradient = value_and_gradient(plain, student, *rest)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["cpu", "gpu", "fallback"])
@settings(max_examples=20, deadline=None)
@sizes
def test_loss_and_gradient_equal_the_plain_form_in_bfloat16(
    path: str, views: int, batch: int, slots: int, block: int, width: int, budget: int, fewest: int, seed: int
) -> None:
    student, teacher, memory, permutation = draw(views, batch, slots, width, seed)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    with taking(path, budget, fewest):
        loss, gradient = value_and_gradient(streamed, student, teacher, memory, permutation, block, 0.1, 0.04)
    exact = (student.float(), teacher.float(), memory, permutation, block, 0.1, 0.04)
    wanted, wanted_gradient = value_and_gradient(plain, *exact)
    # The same bfloat16 numbers go in. Float32 paths round nothing on the way; the GPU's rounds queries, rows and
    # values to float16 (relative 2^-11): a logit of at most 25 is off by at most 25 · 2 · 2^-11, and so is a loss.
    off = 25 * 2**-10 if path == "gpu" else 1e-6
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=off)
    assert gradient.dtype == torch.bfloat16
    # The gradient is rounded to bfloat16 (2^-9) twice: kept, and multiplied. In float16 each softmax's share is off by
    # a factor of at most exp(25 · 2^-10), so a value, of length at most 1, by 0.025; a view has at most 2 + 2 of them.
    off = 3 * 4 * 0.025 / 0.1 / (batch * (2 * views - 2)) if path == "gpu" else 1e-5
    torch.testing.assert_close(gradient.float(), wanted_gradient, rtol=2**-7, atol=off)


@pytest.mark.parametrize("path", PATHS)
def test_at_the_papers_width_and_temperatures_rounding_is_small(path: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher, memory, permutation = draw(6, 8, 3000, 256, 0)
    # As in training: some slots lie close to the teacher's embeddings, and those to the student's.
    teacher = functional.normalize(student[:2] + 0.03 * torch.randn(2, 8, 256, generator=generator), dim=-1)
    memory[:16] = functional.normalize(teacher.flatten(0, 1) + 0.02 * torch.randn(16, 256, generator=generator), dim=-1)
    rest = (teacher, memory, permutation, 700, 0.1, 0.04)
    with taking(path):
        loss, gradient = value_and_gradient(streamed, student, *rest)
        result = massl_loss(student, *rest)
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in (student, teacher, memory)]
    wanted, wanted_gradient = value_and_gradient(plain, *exact, *rest[2:])
    within = 1e-3 if path == "gpu" else 1e-5
    torch.testing.assert_close(loss.double(), wanted, rtol=0, atol=within)
    assert float((gradient - wanted_gradient).norm() / wanted_gradient.norm()) < within
    for entropy, z, tau in ((result.student_entropy, exact[0], 0.1), (result.teacher_entropy, exact[1], 0.04)):
        torch.testing.assert_close(
            entropy.double(), plain_entropy(z, exact[2], permutation, 700, tau), rtol=0, atol=within
        )


@pytest.mark.parametrize("path", ["cpu", "fallback"])
def test_the_gradient_is_that_of_the_loss_in_float64(path: str) -> None:
    student, teacher, memory, permutation = (
        tensor.double() if tensor.is_floating_point() else tensor for tensor in draw(4, 2, 11, 5, 0)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEWEST_SLOTS", 2)
        if path == "fallback":
            patch.setattr(module, "flash_precision", lambda *_: None)
        assert torch.autograd.gradcheck(
            lambda z: massl_loss(z, teacher, memory, permutation, 4, 0.1, 0.05).loss, student.requires_grad_()
        )


def plain_entropy(z: Tensor, memory: Tensor, permutation: Tensor, block: int, tau: float) -> Tensor:
    shares = [functional.softmax(z @ rows.T / tau, -1) for rows in memory[permutation].split(block)]
    return torch.stack([torch.special.entr(share).sum(-1).mean() for share in shares]).mean()


@pytest.mark.parametrize("path", PATHS)
def test_entropies_are_those_of_the_distributions(path: str) -> None:
    student, teacher, memory, permutation = draw(3, 4, 27, 8, 3)
    with taking(path, fewest=3):
        results = [massl_loss(student, teacher, memory, permutation, 8, 0.1, 0.05, form) for form in FORMS]
    off = 1e-2 if path == "gpu" else 1e-5
    wanted = plain_entropy(student, memory, permutation, 8, 0.1), plain_entropy(teacher, memory, permutation, 8, 0.05)
    for result in results:
        torch.testing.assert_close(result.student_entropy, wanted[0], rtol=0, atol=off)
        torch.testing.assert_close(result.teacher_entropy, wanted[1], rtol=0, atol=off)
        assert not result.student_entropy.requires_grad


def test_only_the_students_loss_takes_part_in_the_gradient() -> None:
    student, teacher, memory, permutation = draw(3, 4, 8, 6, 0)
    tensors = [tensor.requires_grad_() for tensor in (student, teacher, memory)]
    result = massl_loss(*tensors, permutation, 4, 0.1, 0.05)
    result.loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert memory.grad is None
    assert not result.student_entropy.requires_grad
    assert not result.teacher_entropy.requires_grad


class Largest(TorchDispatchMode):
    """Notes every tensor that an operation makes, other than views of what there was before."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.there = {tensor.untyped_storage()._cdata for tensor in there}
        self.elements = 0
        self.operations: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.add(str(func))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.there:
                self.elements = max(self.elements, tensor.numel())
        return out


def largest(form: Callable[..., Tensor], student: Tensor, *rest: Any) -> int:
    """Elements of the largest tensor made in a step, forward and backward."""
    leaf = student.clone().requires_grad_()
    with Largest(leaf, *(tensor for tensor in rest if isinstance(tensor, Tensor))) as made:
        form(leaf, *rest).backward()
    return made.elements


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("block", [131072, 100000, 16384, 640])
def test_nothing_above_the_budget_is_made_whatever_the_block(path: str, block: int) -> None:
    views, batch, slots, width = 5, 8, 131072, 16
    everything = views * batch * slots
    assert everything > BUDGET
    with taking(path):
        assert largest(streamed, *draw(views, batch, slots, width, 0), block, 0.1, 0.04) <= BUDGET


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("views", "batch", "slots", "width"), [(2, 8, 4096, 256), (12, 4, 2048, 64), (4, 200, 1500, 8)]
)
def test_nothing_as_large_as_all_logits_is_made_where_the_budget_would_allow_it(
    path: str, views: int, batch: int, slots: int, width: int
) -> None:
    everything = views * batch * slots
    assert everything < BUDGET
    for block in (slots, slots // 3, 32):
        arguments = (*draw(views, batch, slots, width, 0), block, 0.1, 0.04)
        with taking(path):
            assert largest(streamed, *arguments) < everything
    assert largest(plain, *arguments) >= everything  # which shows that the test would see it


def test_only_one_tensor_of_the_students_shape_is_kept_for_the_backward_pass() -> None:
    arguments = (*draw(5, 4, 100, 8, 0), 30, 0.1, 0.05)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        massl_loss(arguments[0].requires_grad_(), *arguments[1:])
        assert kept == [(5, 4, 8)]
        plain(*arguments)
    assert len(kept) > 10  # which shows that the test would see more


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_get_lost(path: str, bad: float) -> None:
    student, teacher, memory, permutation = draw(3, 4, 200, 8, 0)
    student[2, 1, 3] = bad
    with taking(path):
        loss, gradient = value_and_gradient(streamed, student, teacher, memory, permutation, 64, 0.1, 0.05)
    assert not loss.isfinite()
    if path != "gpu" or bad != bad:
        # For an infinite query torch's flash kernel may find a finite value on processors without AVX-512, though never
        # a finite log-sum; so it is the loss that tells.
        assert not gradient[2, 1].isfinite().any()
    assert gradient[0].isfinite().all()


def test_the_flash_kernel_is_taken_where_it_fits() -> None:
    f16, f32, f64 = torch.float16, torch.float32, torch.float64
    assert flash_precision("cpu", f32, False, 33, (0, 0)) == f32
    assert flash_precision("cpu", f32, True, 256, (0, 0)) == f32  # half precision is no gain there
    assert flash_precision("cpu", f64, False, 256, (0, 0)) == f64
    assert flash_precision("cuda", f32, True, 256, (8, 0)) == f16
    assert flash_precision("cuda", f32, True, 64, (9, 0)) == f16
    assert flash_precision("cuda", f32, False, 256, (9, 0)) is None  # float32 was asked for
    assert flash_precision("cuda", f32, True, 257, (9, 0)) is None
    assert flash_precision("cuda", f32, True, 264, (9, 0)) is None
    assert flash_precision("cuda", f32, True, 256, (7, 5)) is None
    assert flash_precision("cuda", f32, True, 256, (0, 0)) is None
    assert flash_precision("mps", f32, True, 256, (0, 0)) is None


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_half_precision_goes_to_its_flash_kernel_and_float32_does_not(
    autocast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tensors without contents: torch checks each operation's arguments, shapes and devices as on the GPU itself.
    monkeypatch.setattr(module, "_capability", lambda device: (8, 0))
    with FakeTensorMode():
        student, teacher = (torch.empty(views, 16, 256, dtype=dtype, device="cuda") for views in (12, 2))
        memory = torch.empty(131072, 256, device="cuda")
        permutation = torch.empty(131072, dtype=torch.int64, device="cuda")
        torch.set_autocast_enabled("cuda", autocast)  # torch.autocast itself refuses where there is no GPU
        try:
            with Largest(student, teacher, memory, permutation) as made:
                loss = massl_loss(student, teacher, memory, permutation, 131072, 0.1, 0.04).loss
        finally:
            torch.set_autocast_enabled("cuda", False)
    flash = {name for name in made.operations if "attention" in name}
    products = {name for name in made.operations if "mm" in name}
    half = autocast or dtype == torch.bfloat16
    assert flash == ({"aten._scaled_dot_product_flash_attention.default"} if half else set())
    assert bool(products) == (not half)
    assert made.elements <= BUDGET
    assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())


def test_autocast_takes_no_precision_from_the_cpu() -> None:
    arguments = (*draw(3, 4, 200, 16, 0), 64, 0.1, 0.05)
    for path in ("cpu", "fallback"):
        with taking(path):
            wanted = streamed(*arguments)
            with torch.autocast("cpu", torch.bfloat16):
                assert streamed(*arguments) == wanted


def test_arguments_that_do_not_fit_are_refused() -> None:
    student, teacher, memory, permutation = draw(3, 4, 8, 6, 0)
    with pytest.raises(ValueError, match="student must be"):
        massl_loss(student, teacher[:1], memory, permutation, 4, 0.1, 0.05)
    with pytest.raises(ValueError, match="memory must be"):
        massl_loss(student, teacher, memory, permutation[:5], 4, 0.1, 0.05)
    for bad in ((0, 0.1, 0.05), (4, 0.0, 0.05), (4, 0.1, -1.0)):
        with pytest.raises(ValueError, match="above 0"):
            massl_loss(student, teacher, memory, permutation, *bad)
