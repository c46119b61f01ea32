"""One training step (paper, section 3 and algorithm 1): what learns, and what it learns against."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from massl.core.errors import MasslError
from massl.encoder.weights import Initial, load_backbone
from massl.method.loss import massl_loss
from massl.method.memory import Memory
from massl.method.network import (
    AS_DINO,
    ComponentHead,
    PositionResizing,
    average_statistics,
    build_pair,
    build_parts,
    clip_gradients,
    freeze_blocks,
    layered_groups,
    parameter_groups,
    synchronise_normalisation,
    update_teacher,
)
from massl.method.schedules import Rates
from massl.method.seeding import seed_of
from massl.settings import Settings
from massl.training.accumulation import check_parts
from massl.training.cpu_convolution import quicken
from massl.training.distributed import World
from massl.training.monitor import memory_use

FUSED = ("cpu", "cuda")  # devices whose optimiser looks by itself at whether a step is finite
_BACKBONE = "backbone."  # how the names of its tensors begin
KERNELS = ("fused", "foreach", "capturable", "differentiable")  # of an optimiser: how it computes, not what
ACTIVATIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by a setting's `precision`


@dataclass(frozen=True)
class StepResult:
    """The results of a step. They stay on the device until they are read."""

    loss: Tensor  # scalar, the mean over all ranks
    finite: Tensor  # bool scalar: whether loss and gradient were; if not, the step changed nothing
    gradient_norm: Tensor  # scalar, before clipping
    student_entropy: Tensor  # scalar, nats; a mean over blocks and this rank's images
    teacher_entropy: Tensor
    teacher: Tensor  # [2, B, D], this rank's projections of the global views


class Learner:
    """Student, teacher, memory and optimiser.

    Ranks hold the same weights and the same memory, and each has its share of a step's images.

    With the setting `teacher_dim` = d a frozen encoder teaches. Of METHOD's step only the source of z_t is another one
    (docs/explanations/method.md, "Learning from another encoder"): z_t = C e / |C e|, with e `[d]` the encoder's
    embedding of the image and C its `min(256, d)` leading components over all images, as a common width for student,
    teacher and memory that leaves cosines as they are, up to what the smallest components add. A learnt head on the
    teacher's side would need a gradient or a moving average, and could collapse with the student; this one can't. The
    moving average `teacher` then teaches nothing: it is what is measured and exported.

    Args:
        settings: of the run; `batch` counts the images of all ranks.
        world: the ranks that learn together, and this one's device.
        initial: weights to begin with; drawn at random where there are none.

    Raises:
        MasslError: the network can't be built, or the weights are another one's, or a head would normalise over a
            single image.
    """

    def __init__(self, settings: Settings, world: World, initial: Initial | None = None) -> None:
        s = settings
        self.settings = s
        self.world = world
        device = world.device
        synchronised = world.linked and device.type == "cuda"  # elsewhere each rank normalises its own share
        check_parts(s, world.size, synchronised)
        torch.manual_seed(seed_of(s.seed, "weights"))  # the same first weights on every rank
        backbone, head, adapter = build_parts(s)
        if initial:
            load_backbone(backbone, initial.backbone, f"the network {initial.architecture}", initial.positions)
            if initial.head and not adapter and _shapes(initial.head) == _shapes(head.state_dict()):
                head.load_state_dict(initial.head)
        student, teacher = build_pair(backbone, head, initial.positions if initial else AS_DINO, adapter)
        freeze_blocks(student.backbone, s.frozen_blocks)
        if device.type == "cpu" and s.precision != "fp16" and not s.compile:
            quicken(student)
        if s.checkpoint_activations:
            _checkpoint_activations(student.backbone, s.backbone)
        if synchronised:
            student, teacher = map(synchronise_normalisation, (student, teacher))
        self.student, self.teacher = (network.to(device).train() for network in (student, teacher))
        self.target = ComponentHead(s.teacher_dim, head.out).to(device) if s.teacher_dim else None
        self.memory = Memory(s.memory, head.out, torch.Generator().manual_seed(seed_of(s.seed, "memory"))).to(device)
        self.fused = device.type in FUSED
        groups = self._groups()
        self._decays = [group.get("weight_decay") != 0.0 for group in groups]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, fused=self.fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=s.precision == "fp16")
        if s.compile:
            # In place, so that checkpoints name their tensors as without.
            self.student.compile()
            self.teacher.compile()
        self._parallel: nn.Module = self.student
        if world.linked:
            self._parallel = DistributedDataParallel(self.student, device_ids=world.device_ids)

    def step(
        self,
        views: Sequence[Tensor],
        rates: Rates,
        step: int,
        permutation: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> StepResult:
        """Takes one step, or none where loss or gradient are not finite, or where it raises, as out of memory.

        Nothing here waits for the device: a step that is not finite is undone by arithmetic, not by a branch.

        Args:
            views: this rank's, normalised float `[2, B, 3, G, G]` and, if there are local ones, `[N, B, 3, L, L]`.
            rates: what the schedules say for this step.
            step: its number; the step's random draws (permutation, drop-path) come from it and the seed alone, so
                that a run which goes on here needs no state of any generator.
            permutation: int64 `[K]` of the memory's rows; drawn, the same on all ranks, if left out.
            embeddings: a frozen teacher's, where there is one: float `[1, B, d]` of the images, or `[2, B, d]` of
                the global views.
        """
        statistics = _Statistics(self.student, self.teacher)
        try:
            result = self._learn(views, rates, step, permutation, embeddings)
        except BaseException:
            statistics.restore()
            raise
        statistics.restore(unless=result.finite)
        return result

    @torch.no_grad()
    def begin_with(self, features: Tensor) -> None:
        """Begins with the leading components of a frozen network's embeddings, and a memory that holds some of them.

        Args:
            features: float `[N, d]`, what the adapter's backbone, or the frozen teacher, makes of N of the images.
        """
        unit = normalize(features.float(), dim=1)
        _, components = torch.linalg.eigh(unit.T.double() @ unit.double())
        for head in (self.target,) if self.target else (self.student.head, self.teacher.head):
            assert isinstance(head, ComponentHead)
            head.components.copy_(components.flip(1)[:, : head.out])
        few = torch.randperm(
            len(features), generator=torch.Generator().manual_seed(seed_of(self.settings.seed, "fill"))
        )
        chosen = features[few[: self.settings.memory]].to(self.world.device)
        self.memory.push(self.target(chosen) if self.target else self.teacher(chosen[None])[0])

    def _groups(self) -> list[dict[str, Any]]:
        s = self.settings
        layered = s.layer_decay < 1 or s.head_only_steps > 0
        groups = layered_groups(self.student, s.layer_decay) if layered else parameter_groups(self.student)
        learning = [{**group, "params": [each for each in group["params"] if each.requires_grad]} for group in groups]
        return [group for group in learning if group["params"]]

    @property
    def compiled(self) -> bool:
        """Whether the networks are to run compiled."""
        return self.student._compiled_call_impl is not None

    def drop_compiling(self) -> None:
        """Runs the networks as they were written from here on."""
        self.student._compiled_call_impl = self.teacher._compiled_call_impl = None

    def _learn(
        self,
        views: Sequence[Tensor],
        rates: Rates,
        step: int,
        permutation: Tensor | None,
        embeddings: Tensor | None,
    ) -> StepResult:
        s, device = self.settings, self.world.device
        for group, decays in zip(self.optimiser.param_groups, self._decays, strict=True):
            waits = step < s.head_only_steps and not group.get("of_head", True)
            group["lr"] = 0.0 if waits else rates.learning_rate * group.get("lr_scale", 1.0)
            group["weight_decay"] = rates.weight_decay if decays else 0.0
        if permutation is None:
            permutation = self._permutation(step)
        torch.manual_seed(seed_of(s.seed, "drop-path", step, self.world.rank))

        self.optimiser.zero_grad(set_to_none=True)
        losses, entropies, projections = [], [], []
        # Of two groups of views or of one, and of a teacher's embeddings as one more.
        shares = list(_split(views if embeddings is None else [*views, embeddings], s.accumulate))
        for number, share in enumerate(shares):
            last = number + 1 == len(shares)
            with (
                nullcontext() if last or not self.world.linked else self._parallel.no_sync(),  # type: ignore[operator]
                torch.autocast(device.type, ACTIVATIONS[s.precision], enabled=s.precision != "fp32"),
            ):
                with torch.no_grad():
                    # What is the same whatever the view stands for both global ones.
                    z_teacher = self.target(share.pop()).expand(2, -1, -1) if self.target else self.teacher(share[0])
                z_student = self._parallel(*share)
                # The memory as it stands before this step's update: no image meets its own embedding.
                result = massl_loss(
                    z_student, z_teacher, self.memory.rows, permutation, s.block, s.student_temperature,
                    rates.teacher_temperature, "plain" if s.loss == "plain" else "fast",
                )  # fmt: skip
                weight = share[0].shape[1] / views[0].shape[1]
                self.scaler.scale(result.loss * weight).backward()
            losses.append(result.loss.detach() * weight)
            entropies.append(torch.stack([result.student_entropy, result.teacher_entropy]) * weight)
            projections.append(z_teacher)
        self.scaler.unscale_(self.optimiser)
        norm = clip_gradients(self.student, s.clip)
        loss = self.world.mean(torch.stack(losses).sum())
        z_teacher = torch.cat(projections, 1)
        finite = torch.isfinite(norm + loss)
        arriving = self.world.gather(z_teacher[1])  # the second global view alone

        # From here on no other rank is waited for: one that ends leaves the others before this step or after it.
        self._update(finite)
        update_teacher(self.student, self.teacher, rates.momentum, finite)
        if self.target:
            average_statistics(self.student, self.teacher, rates.momentum)
        self.memory.push(arriving, finite)
        student_entropy, teacher_entropy = torch.stack(entropies).sum(0)
        return StepResult(loss, finite, norm, student_entropy, teacher_entropy, z_teacher)

    def memory_use(self, teacher: Tensor, rates: Rates, step: int) -> float:
        """`massl.training.monitor.memory_use` of this rank's teacher projections `[B, D]`, over a block of this
        step's.
        """
        s = self.settings
        rows = self._permutation(step)[: s.block]
        return float(memory_use(teacher, self.memory.rows[rows], rates.teacher_temperature))

    def _permutation(self, step: int) -> Tensor:
        s, device = self.settings, self.world.device
        draws = torch.Generator(device).manual_seed(seed_of(s.seed, "permutation", step))
        return torch.randperm(s.memory, generator=draws, device=device)

    def _update(self, finite: Tensor) -> None:
        if self.fused:
            # The fused optimiser looks at this on the device, as it does for a gradient scaler.
            self.optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimiser.step()
        elif finite:
            self.optimiser.step()
        if self.scaler.is_enabled():
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes, and `positions`: how its first weights have their positions resized."""
        parts = ("student", "teacher", "memory", "optimiser", "scaler", *(("target",) if self.target else ()))
        state = {part: getattr(self, part).state_dict() for part in parts}
        if self.settings.adapter:  # its backbone is the teacher's
            state["student"] = {name: each for name, each in state["student"].items() if not name.startswith(_BACKBONE)}
        return {**state, "positions": dataclasses.astuple(self.student.positions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`.

        Raises:
            MasslError: it is another network's.
        """
        try:
            shared = {name: each for name, each in state["teacher"].items() if name.startswith(_BACKBONE)}
            self.student.load_state_dict((shared if self.settings.adapter else {}) | state["student"])
            for part in ("teacher", "memory", *(("target",) if self.target else ())):
                getattr(self, part).load_state_dict(state[part])
            self.optimiser.load_state_dict(_for_this_device(state["optimiser"], self.optimiser))
            if state["scaler"]:  # empty where the device that wrote it scales nothing
                self.scaler.load_state_dict(state["scaler"])
            positions = PositionResizing(*state.get("positions", ()))  # earlier versions' checkpoints hold none
            self.student.positions = self.teacher.positions = positions
        except (KeyError, RuntimeError, ValueError) as error:
            first = " ".join(str(error).split())[:160]
            raise MasslError(f"the checkpoint doesn't fit the run's config.toml: {first}") from None


class _Statistics:
    """What batch normalisations have counted, which a forward pass changes, kept so that a step can be undone.

    In a few operations a kind of number, however many buffers there are.
    """

    def __init__(self, *networks: nn.Module) -> None:
        buffers = [buffer for network in networks for buffer in network.buffers()]
        kinds = {buffer.dtype for buffer in buffers}
        self._buffers = [[buffer for buffer in buffers if buffer.dtype == kind] for kind in kinds]
        self._kept = [self._flat(group) for group in self._buffers]

    @torch.no_grad()
    def restore(self, unless: Tensor | None = None) -> None:
        """Brings back what was counted at the beginning; where `unless`, a bool scalar on the device, is not true."""
        for buffers, kept in zip(self._buffers, self._kept, strict=True):
            wanted = kept if unless is None else torch.where(unless, self._flat(buffers), kept)
            parts = wanted.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(
                buffers, [part.view(buffer.shape) for part, buffer in zip(parts, buffers, strict=True)]
            )

    @staticmethod
    def _flat(buffers: list[Tensor]) -> Tensor:
        return torch.cat([buffer.reshape(-1) for buffer in buffers])


def _for_this_device(saved: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state that another device's optimiser saved, to be computed with as `optimiser` does on its own."""
    groups = zip(saved["param_groups"], optimiser.param_groups, strict=True)
    own = [{**group, **{name: mine[name] for name in KERNELS if name in mine}} for group, mine in groups]
    return {**saved, "param_groups": own}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _split(views: Sequence[Tensor], parts: int) -> Iterator[list[Tensor]]:
    """Cuts views `[v, B, ...]` into up to `parts` shares of the images."""
    for share in zip(*(group.chunk(min(parts, group.shape[1]), dim=1) for group in views), strict=True):
        yield list(share)


def _checkpoint_activations(backbone: nn.Module, name: str) -> None:
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, TypeError):
        raise MasslError(f"{name} can't checkpoint its activations; leave --checkpoint-activations out") from None
