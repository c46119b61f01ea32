"""Student and teacher: a timm backbone and a projection head. The memory takes the place of prototypes."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import Format, PatchEmbed, convert_sync_batchnorm
from timm.models import VisionTransformer, group_parameters
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.fusion import fuse_linear_bn_weights

from massl.core.errors import MasslError
from massl.settings import PATCHED, Settings

PROJECTION = 256  # [D]


@dataclass(frozen=True)
class PositionResizing:
    """How position embeddings of one grid of patches are made into those of another. Always bicubic.

    `AS_DINO`, the default, is the way of DINO, DINOv2 and MaSSL's authors; `AS_TIMM` that of timm and of DINOv2 with
    registers.
    """

    offset: float = 0.1  # patches that the new grid is taken to have more; 0: exactly the new grid
    antialias: bool = False


AS_DINO = PositionResizing()
AS_TIMM = PositionResizing(offset=0.0, antialias=True)


class ProjectionHead(nn.Module):
    """Three linear layers with GELU between, then L2 normalisation: `[B, d]` to `[B, out]` of unit length.

    Truncated-normal weights (std 0.02) and zero biases, as the authors initialise it. With `normed`, batch
    normalisation before each GELU (a flag of the authors' code, off in their recipes): it keeps the projections of
    an untrained network apart, which on small collections decides between learning and collapse. With `spread`,
    batch normalisation (without scale or shift) of the projections too, before they are scaled to unit length: what
    all images have in common is taken away, so that they can't all come to lie at one point. Not in the paper.
    """

    def __init__(
        self, width: int, hidden: int = 2048, out: int = 256, normed: bool = False, spread: bool = False
    ) -> None:
        super().__init__()
        self.out = out

        def norm() -> list[nn.Module]:
            return [nn.BatchNorm1d(hidden)] if normed else []

        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), *norm(), nn.GELU(),
            nn.Linear(hidden, hidden), *norm(), nn.GELU(),
            nn.Linear(hidden, out), *([nn.BatchNorm1d(out, affine=False)] if spread else []),
        )  # fmt: skip
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        with _in_float32(features):
            return functional.normalize(self.mlp(features.float()), dim=-1, eps=1e-6)


def folded_head(head: ProjectionHead) -> nn.Sequential:
    """A copy on the CPU that projects as the head does where it is used: `[B, d]` to `[B, out]`, not of unit length.

    Three linear layers with GELU between; what batch normalisations counted is folded into them.
    """
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(head.mlp).cpu():
        if isinstance(layer, nn.BatchNorm1d):
            linear = layers[-1]
            assert isinstance(linear, nn.Linear)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nothing = torch.zeros_like(layer.running_mean)
            scale, shift = (nothing + 1, nothing) if layer.weight is None else (layer.weight, layer.bias)
            linear.weight, linear.bias = fuse_linear_bn_weights(
                linear.weight, linear.bias, layer.running_mean, layer.running_var, layer.eps, scale, shift
            )
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


class Adapter(nn.Module):
    """A linear layer on a frozen backbone's embeddings, the only part that learns: `[B, d]` to `[B, d]`, unit length.

    The layer adds to what it is given: y = x + W x, with W at zero in the beginning. Not in the paper.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.change.weight)

    def forward(self, features: Tensor) -> Tensor:
        with _in_float32(features):
            unit = functional.normalize(features.float(), dim=-1)
            return functional.normalize(unit + self.change(unit), dim=-1)


def scaled(adapter: Adapter, share: float) -> Adapter:
    """An adapter on the CPU with a share of another's change: 0 leaves embeddings as they are, 1 is the same.

    Between both, weights are interpolated (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """
    part = Adapter(adapter.change.in_features)
    with torch.no_grad():
        part.change.weight.copy_(share * adapter.change.weight.cpu())
    return part


class ComponentHead(nn.Module):
    """The leading components of embeddings, scaled to unit length: `[B, d]` to `[B, out]`. It learns nothing.

    An `Adapter` has it in place of a `ProjectionHead`, and so has a frozen teacher: an untrained head would say of
    strong embeddings that they are all alike.
    """

    components: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.out = out
        self.register_buffer("components", torch.eye(width)[:, :out].clone())

    def forward(self, features: Tensor) -> Tensor:
        with _in_float32(features):
            return functional.normalize(features.float() @ self.components, dim=-1, eps=1e-6)


def _in_float32(features: Tensor) -> AbstractContextManager[Any]:
    """Computes in float32 whatever autocast says, on the device of `features`.

    The temperatures magnify rounding by up to 25, and a head in bfloat16 rounds the logits three times as much as a
    whole backbone's output in it does.
    """
    kind = features.device.type
    # Shapes alone are asked for on `meta`. To ask torch whether a device has autocast breaks the graph in torch 2.11.
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


class Network(nn.Module):
    """A backbone with its head; `forward` takes views of several sizes.

    Args:
        backbone: of `build_backbone`.
        head: what projects its output.
        positions: how a vision transformer's position embeddings are resized for views of other sizes.
        adapter: between both, of a backbone that is frozen.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: ProjectionHead | ComponentHead,
        positions: PositionResizing = AS_DINO,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.positions = positions
        self.adapter = adapter

    def forward(self, *views: Tensor) -> Tensor:
        """Projects float views, each group `[v, B, 3, S, S]` of one size, to `[V, B, out]` in the order given.

        A group `[v, B, d]` holds what the backbone, which is frozen then, made of such views.
        """
        features = torch.cat([self._features(group.flatten(0, 1)) for group in views])
        projections = self.head(self.adapter(features) if self.adapter else features)
        return projections.unflatten(0, (-1, views[0].shape[1]))

    def _features(self, views: Tensor) -> Tensor:
        if views.ndim == 2:
            return views
        # Channels last is the layout that convolutions are fastest in, by a fifth on a CPU.
        return embed(self.backbone, views.contiguous(memory_format=torch.channels_last), self.positions)


def embed(backbone: Any, images: Tensor, way: PositionResizing = AS_DINO) -> Tensor:
    """Normalised images `[N, 3, S, S]` of whatever size to a network's own output `[N, d]`."""
    if isinstance(backbone, VisionTransformer) and not backbone.dynamic_img_size and backbone.pos_embed is not None:
        old = backbone.patch_embed.grid_size
        rows, columns = backbone.patch_embed.patch_size
        new = (images.shape[-2] // rows, images.shape[-1] // columns)
        if new != old:
            prefix = backbone.pos_embed.shape[1] - old[0] * old[1]
            positions = resize_positions(backbone.pos_embed, old, new, prefix, way)
            return functional_call(backbone, {"pos_embed": positions}, (images,))
    return backbone(images)


def resize_positions(
    positions: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    prefix: int,
    way: PositionResizing = AS_DINO,
) -> Tensor:
    """Position embeddings of one grid of patches for another, the way that the weights were trained for.

    The ways differ: a first step's loss changes in the fourth digit with timm's instead of DINO's.

    Args:
        positions: `[1, prefix + h·w, d]`.
        old: (h, w), the grid that they were made for.
        new: the grid that they are wanted for; the same grid leaves them as they are.
        prefix: how many of the first belong to tokens that are no patch, and stay as they are.
        way: how those of the patches are resized.
    """
    if new == old:
        return positions
    first, rest = positions[:, :prefix], positions[:, prefix:]
    grid = rest.unflatten(1, old).permute(0, 3, 1, 2)
    if way.offset:
        scale = tuple((wanted + way.offset) / had for wanted, had in zip(new, old, strict=True))
        resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=way.antialias)
    else:
        resized = functional.interpolate(grid, new, mode="bicubic", antialias=way.antialias)
    return torch.cat([first, resized.flatten(2).transpose(1, 2)], dim=1)


def build_backbone(
    name: str,
    image_size: int,
    patch_size: int | None = None,
    drop_path: float = 0.0,
    dynamic: bool = True,
    mean_pooled: bool = False,
) -> nn.Module:
    """A timm network without its classifier, whose output is the pooled embedding `[B, d]`.

    Args:
        name: any timm vision transformer, as `vit_small_patch16_224`, a Swin, or a convolutional network.
        image_size: side in pixels for which position embeddings or windows are made; other sizes are interpolated.
        patch_size: overrides the side of a patch that a vision transformer's name implies.
        drop_path: rate of stochastic depth.
        dynamic: whether `Network` may show a transformer other sizes too; not where it is exported.
        mean_pooled: embed by the normalised mean of a vision transformer's patch tokens instead of by its class token.

    Raises:
        MasslError: timm knows no such network, or it can't be built for these sizes.
    """
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path}
    if name.startswith(PATCHED):
        options |= {"img_size": image_size, "dynamic_img_size": dynamic}
        if patch_size:
            options["patch_size"] = patch_size
        if mean_pooled:
            options["global_pool"] = "avg"
    elif name.startswith("swin"):
        # Windows are fitted to this size; other sizes are padded to whole windows.
        options |= {"img_size": image_size, "strict_img_size": not dynamic}
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        hint = f", for instance {', '.join(close)}" if close else ""
        raise MasslError(f"timm has no network called {name!r}; `timm.list_models()` names them{hint}")
    try:
        try:
            network = timm.create_model(name, **options)
        except TypeError as error:
            if "'drop_path_rate'" not in str(error):
                raise
            if drop_path:
                raise MasslError(f"{name} has no stochastic depth; give --set drop_path=0") from None
            del options["drop_path_rate"]  # left in where it is taken, as some networks' own default is not 0
            network = timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise MasslError(f"{name} can't be built for {image_size} px images: {error}") from error
    patches = getattr(network, "patch_embed", None)
    if isinstance(patches, PatchEmbed) and patches.strict_img_size and patches.img_size != (image_size, image_size):
        raise MasslError(f"{name} takes only pictures of {patches.img_size[0]} pixels, not {image_size}")
    if isinstance(network, VisionTransformer):
        transformer: Any = network
        if type(transformer.patch_embed) is PatchEmbed and image_size % transformer.patch_embed.patch_size[0]:
            side = transformer.patch_embed.patch_size[0]
            fitting = max(1, round(image_size / side)) * side
            raise MasslError(f"{name} takes pictures of a multiple of {side} pixels, not {image_size}; try {fitting}")
        if transformer.cls_token is not None:
            nn.init.trunc_normal_(transformer.cls_token, std=0.02)  # as the authors; timm begins it at next to nothing
        if dynamic and type(transformer.patch_embed) is PatchEmbed:
            # Its positions are brought to a view's size by `Network`, so it takes the patches in a row as they come.
            transformer.dynamic_img_size = False
            transformer.patch_embed.flatten, transformer.patch_embed.output_fmt = True, Format.NCHW
    return network


def build_parts(settings: Settings) -> tuple[nn.Module, ProjectionHead | ComponentHead, Adapter | None]:
    """The backbone that a run's settings ask for, its head, and the adapter between both where there is to be one.

    Raises:
        MasslError: as of `build_backbone`.
    """
    s = settings
    backbone = build_backbone(s.backbone, s.image_size, s.patch_size, s.drop_path, mean_pooled=s.mean_pooled)
    width = output_width(backbone)
    if s.adapter:
        backbone.requires_grad_(False)
        return backbone, ComponentHead(width, min(PROJECTION, width)), Adapter(width)
    out = min(PROJECTION, s.teacher_dim or PROJECTION)
    return backbone, ProjectionHead(width, s.head_width, out, s.head_norm, s.projection_norm), None


def output_width(backbone: Any) -> int:
    """d, of the pooled embedding `[B, d]` of a network without its classifier."""
    # MobileNetV3 and others have one more layer between the features and the classifier, which stays.
    return getattr(backbone, "head_hidden_size", None) or backbone.num_features


def build_pair(
    backbone: nn.Module,
    head: ProjectionHead | ComponentHead,
    positions: PositionResizing = AS_DINO,
    adapter: Adapter | None = None,
) -> tuple[Network, Network]:
    """The student, and a teacher that starts as its copy, takes no gradient and drops no path."""
    student = Network(backbone, head, positions, adapter).to(memory_format=torch.channels_last)
    # A backbone that is frozen whole is the same for both, and copied by nothing.
    same = {id(backbone): backbone} if adapter else {}
    teacher = copy.deepcopy(student, same).requires_grad_(False)
    for module in teacher.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0  # type: ignore[assignment]
    return student, teacher


def synchronise_normalisation(network: Network) -> Network:
    """The same network, whose batch normalisations take the statistics of all ranks' images; for GPUs alone.

    By timm's own conversion: torch's makes timm's `BatchNormAct2d`, which holds its activation too, a normalisation
    without it, as in EfficientNet, RegNet, MobileNetV3, ResNetV2 and DenseNet.
    """
    converted: Network = convert_sync_batchnorm(network)
    return converted


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Weights that decay, then biases and other one-dimensional tensors, which don't."""
    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in network.parameters():
        (plain if parameter.ndim <= 1 else decaying).append(parameter)
    return [{"params": decaying}, {"params": plain, "weight_decay": 0.0}]


def layered_groups(student: Network, layer_decay: float) -> list[dict[str, Any]]:
    """The same, a group or two a layer of the backbone, then the head's.

    Layers are timm's: the patch embedding or stem is the first, each block one more.

    Returns:
        Groups with `lr_scale`, the factor of their learning rate: `layer_decay` to the power of the layers that follow,
        1 for the head; and with `of_head`.
    """
    groups = []
    for layer in param_groups_layer_decay(student.backbone, weight_decay=1.0, layer_decay=layer_decay):
        plain = {} if layer["weight_decay"] else {"weight_decay": 0.0}
        groups.append(
            {"params": list(layer["params"]), **plain, "lr_scale": float(layer["lr_scale"]), "of_head": False}
        )
    return [*groups, *({**group, "lr_scale": 1.0, "of_head": True} for group in parameter_groups(student.head))]


def freeze_blocks(backbone: Any, count: int) -> None:
    """Takes the gradient from the first `count` blocks and from what comes before them, in place.

    Raises:
        MasslError: the network has no more blocks than that, or doesn't tell them.
    """
    if not count:
        return
    if not hasattr(backbone, "group_matcher"):
        raise MasslError("this backbone doesn't tell its blocks apart; leave frozen_blocks out")
    layers = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    # The first layer is what comes before the blocks.
    if count >= max(layers.values()):
        raise MasslError(f"frozen_blocks ({count}) leaves no block to train; give fewer")
    for name, parameter in backbone.named_parameters():
        if layers[name] <= count:
            parameter.requires_grad_(False)


@torch.no_grad()
def update_teacher(student: Network, teacher: Network, momentum: float, wanted: Tensor | None = None) -> None:
    """Teacher = momentum · teacher + (1 - momentum) · student, over parameters.

    With `wanted`, a bool scalar on the device, nothing happens where it is false. Batch statistics are left alone:
    the teacher keeps its own, of global views only, which is what it is used on.
    """
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    students, averages = zip(*((own, average) for own, average in pairs if own.requires_grad), strict=True)
    moves = list(torch._foreach_sub(students, averages))
    torch._foreach_mul_(moves, 1.0 - momentum if wanted is None else (1.0 - momentum) * wanted)
    torch._foreach_add_(averages, moves)


@torch.no_grad()
def average_statistics(student: Network, teacher: Network, momentum: float) -> None:
    """The same of what batch normalisations count, for a moving average that is shown no images itself."""
    for own, average in zip(student.buffers(), teacher.buffers(), strict=True):
        average.lerp_(own, 1.0 - momentum) if own.is_floating_point() else average.copy_(own)


@torch.no_grad()
def clip_gradients(network: nn.Module, limit: float) -> Tensor:
    """Scales each parameter's gradient to a norm of at most `limit`, as the authors do; returns the norm of all.

    All parameters at once and without waiting for the device.
    """
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.norm()
