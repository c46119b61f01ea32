"""The loss as it is defined, with all its logits: what `massl.method.loss` is held to, and measured beside."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def plain_loss(
    student: Tensor, teacher: Tensor, memory: Tensor, permutation: Tensor, block: int, tau_s: float, tau_t: float
) -> Tensor:
    """Every logit, permuted and cut into blocks; a log-softmax for every pair of views and block; autograd's gradient.

    Arguments as `massl.method.loss.massl_loss` has them.
    """
    student_blocks = (student @ memory.T / tau_s)[..., permutation].split(block, dim=-1)
    teacher_blocks = (teacher @ memory.T / tau_t)[..., permutation].split(block, dim=-1)
    targets = [functional.softmax(logits, dim=-1) for logits in teacher_blocks]
    total, pairs = student.new_zeros(()), 0
    for i in range(len(student)):
        for j in range(2):
            if i != j:
                pairs += 1
                for logits, target in zip(student_blocks, targets, strict=True):
                    crossed = -(target[j] * functional.log_softmax(logits[i], dim=-1)).sum(-1)
                    total = total + crossed.mean() / len(targets)
    return total / pairs
