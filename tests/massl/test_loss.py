"""The loss against its definition, written out with all its logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from massl.loss import massl_loss


def plain_loss(
    student: Tensor, teacher: Tensor, memory: Tensor, permutation: Tensor, block: int, tau_s: float, tau_t: float
) -> Tensor:
    """METHOD, steps 3 to 5, to the letter: every pair, every block, every logit."""
    shuffled = memory[permutation]
    total, pairs = student.new_zeros(()), 0
    for i in range(len(student)):
        for j in range(2):
            if i == j:
                continue
            pairs += 1
            parts = [
                -(functional.softmax(teacher[j] @ rows.T / tau_t, -1)
                  * functional.log_softmax(student[i] @ rows.T / tau_s, -1)).sum(-1).mean()
                for rows in shuffled.split(block)
            ]  # fmt: skip
            total = total + torch.stack(parts).mean()
    return total / pairs


def draw(views: int, batch: int, slots: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float32), dim=-1)

    permutation = torch.randperm(slots, generator=generator)
    return unit(views, batch, width), unit(2, batch, width), unit(slots, width), permutation


@settings(max_examples=40, deadline=None)
@given(
    views=st.integers(2, 7),
    batch=st.integers(1, 9),
    slots=st.integers(1, 70),
    block=st.integers(1, 80),
    width=st.integers(2, 33),
    seed=st.integers(0, 999),
)
def test_loss_and_gradient_equal_the_plain_form(
    views: int, batch: int, slots: int, block: int, width: int, seed: int
) -> None:
    student, teacher, memory, permutation = draw(views, batch, slots, width, seed)
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    loss = massl_loss(ours, teacher, memory, permutation, block, 0.1, 0.05).loss
    wanted = plain_loss(theirs, teacher, memory, permutation, block, 0.1, 0.05)
    (3 * loss).backward()
    (3 * wanted).backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_it_is_the_gradient_of_the_loss() -> None:
    student, teacher, memory, permutation = draw(4, 3, 12, 5, 0)
    step = 1e-3
    direction = functional.normalize(torch.randn(student.shape, generator=torch.Generator().manual_seed(1)), dim=-1)

    def at(z: Tensor) -> Tensor:
        return massl_loss(z, teacher, memory, permutation, 4, 0.5, 0.3).loss

    z = student.clone().requires_grad_()
    at(z).backward()
    assert z.grad is not None
    numeric = (at(student + step * direction) - at(student - step * direction)) / (2 * step)
    torch.testing.assert_close((z.grad * direction).sum(), numeric, rtol=1e-2, atol=1e-4)


def test_entropies_are_those_of_the_distributions() -> None:
    student, teacher, memory, permutation = draw(3, 4, 24, 6, 3)
    result = massl_loss(student, teacher, memory, permutation, 8, 0.1, 0.05)
    wanted = []
    for z, tau in ((student, 0.1), (teacher, 0.05)):
        shares = torch.stack([functional.softmax(z @ rows.T / tau, -1) for rows in memory[permutation].split(8)])
        wanted.append(-(shares * shares.log()).sum(-1).mean())
    torch.testing.assert_close(result.student_entropy, wanted[0])
    torch.testing.assert_close(result.teacher_entropy, wanted[1])


def test_neither_teacher_nor_memory_gets_a_gradient() -> None:
    student, teacher, memory, permutation = draw(3, 4, 8, 6, 0)
    tensors = [tensor.requires_grad_() for tensor in (student, teacher, memory)]
    massl_loss(*tensors, permutation, 4, 0.1, 0.05).loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert memory.grad is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    student, teacher, memory, permutation = draw(3, 4, 8, 6, 0)
    with pytest.raises(ValueError, match="student must be"):
        massl_loss(student, teacher[:1], memory, permutation, 4, 0.1, 0.05)
    with pytest.raises(ValueError, match="memory must be"):
        massl_loss(student, teacher, memory, permutation[:5], 4, 0.1, 0.05)
