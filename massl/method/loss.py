"""The loss: student and teacher compare themselves with the memory, inside random blocks of it.

Source: Silva, Pedrini and Ramírez Rivera, "Learning from Memory", ICML 2024 (arXiv 2407.17486), section 3.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# No temporary has more elements than this, or than the `[(V + 2)·B, D]` queries where those are more. Where all logits
# would be fewer, a quarter of them is the limit instead, down to pieces of the memory of so many slots.
BUDGET = 2**22
FEWEST_SLOTS = 64


class Loss(NamedTuple):
    """The loss and, detached, what a person watches: entropies in nats, each a mean over blocks and rows."""

    loss: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor


def plain_loss(
    student: Tensor,
    teacher: Tensor,
    memory: Tensor,
    permutation: Tensor,
    block: int,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Every logit, permuted and cut into blocks; a log-softmax for every pair of views and block; autograd's gradient.

    The definition, to be held against the paper, and what the tests hold the fast form to. Arguments as `massl_loss`
    has them; returns the scalar that is its `loss`. It keeps all `[V, B, K]` logits, so training uses the other unless
    it is told to take this one (`loss=plain`).
    """
    student_blocks = (student @ memory.T / student_temperature)[..., permutation].split(block, dim=-1)
    teacher_blocks = (teacher @ memory.T / teacher_temperature)[..., permutation].split(block, dim=-1)
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


def massl_loss(
    student: Tensor,
    teacher: Tensor,
    memory: Tensor,
    permutation: Tensor,
    block: int,
    student_temperature: float,
    teacher_temperature: float,
    form: Literal["fast", "plain"] = "fast",
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

    which is attention over the block, with its rows as keys and values, and attention's log-sum-exp. Both are
    computed in the forward pass, over pieces of the memory small enough for `BUDGET`, whatever K and `block` are:
    nothing of size `[V·B, K]` exists, and only `[V, B, D]` is kept for the backward pass.

    Attention is torch's flash kernel where there is one that fits, else two matrix products a piece; in which
    precision, says `flash_precision`.

    Args:
        student: `[V, B, D]`, unit rows; views 0 and 1 are the global ones, the rest local.
        teacher: `[2, B, D]`, unit rows, of the two global views, without gradient.
        memory: `[K, D]`, unit rows, as it stood before this step's update.
        permutation: int64 `[K]`.
        block: rows in a block, the paper's P, at least 1.
        student_temperature: τ_s, above 0.
        teacher_temperature: τ_t, above 0.
        form: `fast` as above, or `plain`: by `plain_loss`, in float32 or better.

    Raises:
        ValueError: the shapes don't fit each other, or `block` or a temperature is not above 0.
    """
    if student.ndim != 3 or teacher.shape != (2, *student.shape[1:]) or student.shape[0] < 2:
        raise ValueError(f"student must be [V >= 2, B, D] and teacher [2, B, D], not {student.shape}, {teacher.shape}")
    if memory.ndim != 2 or memory.shape[1] != student.shape[2] or permutation.shape != memory.shape[:1]:
        raise ValueError(f"memory must be [K, {student.shape[2]}] and permutation [K], not {memory.shape}")
    if block < 1 or student_temperature <= 0 or teacher_temperature <= 0:
        raise ValueError(f"not above 0: one of {block=}, {student_temperature=}, {teacher_temperature=}")
    rest = memory.detach(), permutation, block, student_temperature, teacher_temperature
    if form == "plain":
        return _plain(student, teacher.detach(), *rest)
    return Loss(*_BlockwiseCrossEntropy.apply(student, teacher.detach(), *rest))


def _plain(
    student: Tensor,
    teacher: Tensor,
    memory: Tensor,
    permutation: Tensor,
    block: int,
    student_temperature: float,
    teacher_temperature: float,
) -> Loss:
    """`plain_loss` with the entropies that go with it; arguments as `massl_loss` has them."""
    precise = torch.promote_types(student.dtype, torch.float32)

    def entropy(z: Tensor, temperature: float) -> Tensor:
        blocks = (z.detach() @ memory.T / temperature)[..., permutation].split(block, dim=-1)
        each = [torch.special.entr(functional.softmax(logits, dim=-1)).sum(-1).mean() for logits in blocks]
        return torch.stack(each).mean()

    with torch.autocast(student.device.type, enabled=False):
        student, teacher, memory = student.to(precise), teacher.to(precise), memory.to(precise)
        loss = plain_loss(student, teacher, memory, permutation, block, student_temperature, teacher_temperature)
        return Loss(loss, entropy(student, student_temperature), entropy(teacher, teacher_temperature))


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
        views, batch, width = student.shape
        precise = torch.promote_types(student.dtype, torch.float32)
        half = student.dtype.itemsize == 2 or torch.is_autocast_enabled(student.device.type)
        precision = flash_precision(student.device.type, precise, half, width, _capability(student.device))
        # Student and teacher meet the memory together, each already divided by its temperature.
        queries = torch.cat([student.to(precise) / student_temperature, teacher.to(precise) / teacher_temperature])
        with torch.autocast(student.device.type, enabled=False):
            found = _over_blocks(queries.flatten(0, 1), memory, permutation, block, precision)
        value, log_sum = found.value.view_as(queries), found.log_sum.view(views + 2, batch)

        # H(p) = logsumexp(s) - Σ p s, and Σ p s = (z / τ) · (p M).
        entropy = log_sum - (queries * value).sum(-1)
        # A global view is paired with the other global view alone, a local one with both; so their q_i M_b are the
        # teacher's two values, swapped for the global views and added for the local ones.
        weight = queries.new_full((views,), 2.0)
        weight[:2] = 1.0
        target = value[views:]
        wanted = torch.cat([target.flip(0), target.sum(0, keepdim=True).expand(views - 2, -1, -1)])
        ctx.scale = 1.0 / (batch * (2 * views - 2))
        loss = (weight[:, None] * log_sum[:views]).sum() - (queries[:views] * wanted).sum()
        gradient = (weight[:, None, None] * value[:views] - wanted) / student_temperature
        # Scaled in the backward pass only: in float16 the scaled one could underflow before a loss scaler meets it.
        ctx.save_for_backward(gradient.to(student.dtype))
        student_entropy, teacher_entropy = entropy[:views].mean(), entropy[views:].mean()
        ctx.mark_non_differentiable(student_entropy, teacher_entropy)
        return loss * ctx.scale, student_entropy, teacher_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * (outputs[0] * ctx.scale), None, None, None, None, None, None)


class _Attention(NamedTuple):
    """What `[N, D]` queries get from G sets of rows, keys and values at once: `[G, N, D]` and `[G, N]`."""

    value: Tensor
    log_sum: Tensor

    def joined(self, other: _Attention) -> _Attention:
        """Attention over both sets of rows, each having the share of the sum of exponentials that it had."""
        log_sum = torch.logaddexp(self.log_sum, other.log_sum)
        value = self.value * (self.log_sum - log_sum).exp().unsqueeze(-1)
        return _Attention(value.add_(other.value * (other.log_sum - log_sum).exp().unsqueeze(-1)), log_sum)


def _over_blocks(
    queries: Tensor, memory: Tensor, permutation: Tensor, block: int, precision: torch.dtype | None
) -> _Attention:
    """Attention of `[N, D]` queries over each block, averaged over the blocks: `[N, D]` and `[N]`."""
    budget = min(BUDGET, len(queries) * len(memory) // 4)
    slots = max(FEWEST_SLOTS, budget // memory.shape[1])
    together = max(1, min(slots // block, budget // queries.numel()))  # several small blocks, or a part of a large one
    attend = (
        functools.partial(_flash, precision=precision) if precision else functools.partial(_products, budget=budget)
    )
    value, log_sum = torch.zeros_like(queries), queries.new_zeros(len(queries))
    whole = len(permutation) // block * block
    tables = [permutation[:whole].view(-1, block), permutation[whole:].view(1, -1)]  # the second: the shorter block
    for blocks in (blocks for table in tables if table.numel() for blocks in table.split(together)):
        pieces = (attend(queries, memory[index]) for index in blocks.split(slots, dim=1))
        found = functools.reduce(_Attention.joined, pieces)
        value += found.value.sum(0)
        log_sum += found.log_sum.sum(0)
    number = -(-len(permutation) // block)
    return _Attention(value.div_(number), log_sum.div_(number))


def _products(queries: Tensor, rows: Tensor, budget: int) -> _Attention:
    """Attention of `[N, D]` queries over `[G, C, D]` rows by two matrix products, in the queries' precision."""
    rows = rows.to(queries.dtype)
    parts = []
    for part in queries.split(max(1, budget // rows[..., 0].numel())):
        logits = part.expand(len(rows), -1, -1) @ rows.mT
        largest = logits.amax(-1, keepdim=True)
        weights = logits.sub_(largest).exp_()
        total = weights.sum(-1, keepdim=True)
        parts.append(_Attention((weights @ rows).div_(total), (largest + total.log()).squeeze(-1)))
    return parts[0] if len(parts) == 1 else _Attention(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))


def _flash(queries: Tensor, rows: Tensor, precision: torch.dtype) -> _Attention:
    """The same by torch's flash attention, which makes no logits; its log-sum-exp is in float32 or better."""
    aten = torch.ops.aten
    flash = (
        aten._scaled_dot_product_flash_attention if rows.is_cuda else aten._scaled_dot_product_flash_attention_for_cpu
    )
    heads = rows.to(precision).unsqueeze(1)  # one head
    value, log_sum = flash(queries.to(precision).expand(len(rows), 1, -1, -1), heads, heads, scale=1.0)[:2]
    return _Attention(value.squeeze(1).to(queries.dtype), log_sum.squeeze(1).to(queries.dtype))


def flash_precision(
    device: str, precise: torch.dtype, half: bool, width: int, capability: tuple[int, int]
) -> torch.dtype | None:
    """In which precision attention over the memory goes to the flash kernel; None: to plain products in `precise`.

    On a GPU in float16, never bfloat16: rows and values are at most 1 in size and queries at most 1 / τ, so float16's
    range is enough, and its three more bits matter where logits reach 25 (docs/explanations/method.md).

    Args:
        device: type of the device, as `cuda`.
        precise: float32, or float64 for float64 inputs.
        half: whether half precision is wanted, by the inputs' type or by autocast.
        width: of the head, D; the GPU's kernel takes multiples of 8 up to 256.
        capability: of the GPU, as `(9, 0)`; the kernel needs 8.0. `(0, 0)` where there is no such kernel.
    """
    if device == "cpu":
        return precise
    fits = device == "cuda" and half and width % 8 == 0 and width <= 256 and capability >= (8, 0)
    return torch.float16 if fits else None


def _capability(device: torch.device) -> tuple[int, int]:
    cuda = torch.backends.cuda
    # Whoever switches torch's flash attention off, for all of torch, gets plain products here too.
    if (
        device.type != "cuda"
        or torch.version.hip
        or not cuda.is_flash_attention_available()
        or not cuda.flash_sdp_enabled()
    ):
        return (0, 0)
    return torch.cuda.get_device_capability(device)
