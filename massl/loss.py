"""The loss: student and teacher compare themselves with the memory, inside random blocks of it.

Source: Silva, Pedrini and Ramírez Rivera, "Learning from Memory", ICML 2024 (arXiv 2407.17486), section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Loss(NamedTuple):
    """The loss and, detached, what a person watches: entropies in nats, each a mean over blocks and rows."""

    loss: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor


def massl_loss(
    student: Tensor,
    teacher: Tensor,
    memory: Tensor,
    permutation: Tensor,
    block: int,
    student_temperature: float,
    teacher_temperature: float,
) -> Loss:
    """Cross-entropy between the teacher's and the student's distribution over each stochastic block of the memory.

    One permutation of the memory's rows, shared by student, teacher and all views, cuts it into blocks of `block`
    rows (the last one is shorter if `block` does not divide K). In each block, `softmax(z M_bᵀ / τ)` is taken for
    both; the cross-entropies are averaged over blocks and images, then over the `2V - 2` pairs of a student view i
    with a teacher view j ≠ i.

    The memory takes no gradient and the cross-entropy is linear in its target, so with `w_i` the number of teacher
    views that view i is paired with and `q_i` the sum of their softmaxes,

        loss_i,b    = w_i · logsumexp(z_i M_bᵀ / τ_s) - z_i · (q_i M_b) / τ_s
        dloss/dz_i  = (w_i · softmax(z_i M_bᵀ / τ_s) M_b - q_i M_b) / τ_s

    which is computed in the forward pass, block by block: nothing of size `[V·B, K]` exists, and only `[V, B, D]`
    is kept for the backward pass.

    Args:
        student: `[V, B, D]`, unit rows; views 0 and 1 are the global ones, the rest local.
        teacher: `[2, B, D]`, unit rows, of the two global views, without gradient.
        memory: `[K, D]`, unit rows, as it stood before this step's update.
        permutation: int64 `[K]`.
        block: rows in a block, the paper's P, at least 1.
        student_temperature: τ_s, above 0.
        teacher_temperature: τ_t, above 0.

    Raises:
        ValueError: the shapes don't fit each other.
    """
    if student.ndim != 3 or teacher.shape != (2, *student.shape[1:]) or student.shape[0] < 2:
        raise ValueError(f"student must be [V >= 2, B, D] and teacher [2, B, D], not {student.shape}, {teacher.shape}")
    if memory.ndim != 2 or memory.shape[1] != student.shape[2] or permutation.shape != memory.shape[:1]:
        raise ValueError(f"memory must be [K, {student.shape[2]}] and permutation [K], not {memory.shape}")
    loss, student_entropy, teacher_entropy = _BlockwiseCrossEntropy.apply(
        student, teacher.detach(), memory.detach(), permutation, block, student_temperature, teacher_temperature
    )
    return Loss(loss, student_entropy, teacher_entropy)


class _BlockwiseCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        memory: Tensor,
        permutation: Tensor,
        block: int,
        student_temperature: float,
        teacher_temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        views, batch, _ = student.shape
        z, t = student.float(), teacher.float()
        blocks = permutation.split(block)
        scale = 1.0 / (len(blocks) * batch * (2 * views - 2))
        # A global view is paired with the other global view alone, a local one with both.
        weight = torch.full((views, 1), 2.0, device=z.device)
        weight[:2] = 1.0
        gradient = torch.zeros_like(z)
        loss = student_entropy = teacher_entropy = z.new_zeros(())
        for index in blocks:
            slots = memory[index].float()
            target = _Attention.over(t, slots, teacher_temperature)
            # q_i M_b, for all views: the teacher's two attentions, swapped for the global views, added for local ones.
            wanted = torch.cat([target.value.flip(0), target.value.sum(0, keepdim=True).expand(views - 2, -1, -1)])
            found = _Attention.over(z, slots, student_temperature)
            loss = loss + (weight * found.log_sum).sum() - (z * wanted).sum() / student_temperature
            gradient += (weight.unsqueeze(-1) * found.value - wanted) / student_temperature
            student_entropy = student_entropy + found.entropy(z, student_temperature)
            teacher_entropy = teacher_entropy + target.entropy(t, teacher_temperature)
        ctx.save_for_backward((gradient * scale).to(student.dtype))
        return loss * scale, student_entropy / len(blocks), teacher_entropy / len(blocks)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * outputs[0], None, None, None, None, None, None)


class _Attention(NamedTuple):
    """Attention over a block with its rows as keys and values: `value` `[V, B, D]`, `log_sum` `[V, B]`."""

    value: Tensor
    log_sum: Tensor

    @classmethod
    def over(cls, z: Tensor, slots: Tensor, temperature: float) -> _Attention:
        logits = (z @ slots.T).div_(temperature)
        log_sum = logits.logsumexp(-1)
        weights = logits.sub_(log_sum.unsqueeze(-1)).exp_()
        return cls(weights @ slots, log_sum)

    def entropy(self, z: Tensor, temperature: float) -> Tensor:
        # H(p) = logsumexp(s) - Σ p s, and Σ p s = z · (p M) / τ, so no [V, B, P] is needed again.
        return (self.log_sum - (z * self.value).sum(-1) / temperature).mean()
