"""State dicts of other people's networks: which network one is of, told by its names and shapes."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer
from torch import Tensor

from massl.core.errors import MasslError
from massl.encoder.weight_files import WeightsFile, is_part
from massl.method.network import AS_DINO, AS_TIMM, PositionResizing, build_backbone
from massl.settings import PATCHED

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL_CROP = 0.875  # the side of the centre that is cut out, as a share of the shorter side: 224 of 256
DINOV2_GRID = 37  # patches a side of DINOv2's published positions, for 518 pixels, at which it ended its training
DINOV2_SIZE = 224  # pixels a side, at which it learnt most of the time and is measured
LARGEST_GRID = 512  # patches a side

# What holds the tensors in checkpoints, the best first: averaged weights before those that were being trained.
_WRAPPERS = (
    *("teacher", "model_ema", "state_dict_ema", "ema", "state_dict", "model", "module", "network", "backbone"),
    *("encoder", "student"),
)
_AVERAGED = {"teacher", "ema", "model_ema", "momentum_encoder", "target_encoder"}  # as parts of names
_TRAINED = {"student"}

_MARK = "patch_embed.proj.weight"  # a vision transformer in the names of timm, DINO, DINOv2, iBOT or MaSSL's authors
_MARKS = {_MARK, "patch_embed.proj.bias", "cls_token", "pos_embed", "norm.weight", "fc_norm.weight"}
# Widths of the well-known ones. Shapes don't tell how many attention heads they have, but these names do.
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}
_CHUNKED = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.")  # DINOv2's chunks of blocks; the second number counts all blocks
# Classifiers, heads of self-supervised methods, mask tokens, and what networks compute by themselves.
_DROPPED = re.compile(
    r"(head|head_dist|fc|classifier|pre_logits|dino_head|ibot_head)\.|mask_token$|masked_embed$"
    r"|(.*\.)?(relative_position_index|attn_mask|num_batches_tracked)$"
)
_CLASSIFIER = re.compile(r"(head|head_dist|fc|classifier)\.(fc\.)?(weight|bias)$")

# What the authors of DINO and DINOv2 publish under the Apache License 2.0, by the file's name: the network, the side of
# its patches, and what it is called.
_PUBLISHED = {
    "dino_deitsmall16_pretrain": ("vit_small_patch16_224", 16, "DINO ViT-S/16"),
    "dino_deitsmall8_pretrain": ("vit_small_patch16_224", 8, "DINO ViT-S/8"),
    "dino_vitbase16_pretrain": ("vit_base_patch16_224", 16, "DINO ViT-B/16"),
    "dino_vitbase8_pretrain": ("vit_base_patch16_224", 8, "DINO ViT-B/8"),
}
for _letter, _size in (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant")):
    _name = f"DINOv2 ViT-{_letter.upper()}/14"
    _PUBLISHED[f"dinov2_vit{_letter}14_pretrain"] = (f"vit_{_size}_patch14_dinov2", 14, _name)
    _PUBLISHED[f"dinov2_vit{_letter}14_reg4_pretrain"] = (
        f"vit_{_size}_patch14_reg4_dinov2", 14, f"{_name} with registers"
    )  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """A network's tensors in timm's names and float32, and what is known of it."""

    tensors: dict[str, Tensor]  # position embeddings as they were found, for any square grid
    architecture: str  # timm's name, with a tag where it was given with one
    patch_size: int | None  # pixels; None: not a vision transformer
    image_size: int  # pixels a side that it is shown unless told otherwise
    mean_pooled: bool
    positions: PositionResizing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float  # the side of the centre that is cut out, as a share of the shorter side
    origin: Mapping[str, str] = field(default_factory=dict)  # `source` and `licence`, where they are known


def recognise(file: WeightsFile, backbone: str | None = None) -> Recognised:
    """Finds out which network a file's tensors are of, and checks that it holds all of them.

    Args:
        file: tensors in the names of timm, DINO, DINOv2 (also with registers), iBOT or MaSSL's authors; with `backbone`
            also in those that timm converts for that network.
        backbone: timm's name of the network, with or without a tag, where names and shapes don't tell.

    Raises:
        MasslError: the network can't be told or timm doesn't have it, or tensors are missing, too many, of other
            shapes, or hold values that are no numbers.
    """
    path = file.path
    named = _unwrapped(file.state)
    plain = _below_best_prefix(_unchunked(named), _MARKS)
    likely = architecture_of(plain) if _is_patched(plain) else None
    name = backbone or likely or _not_told(path, named, plain)
    usual_size = _usual_size(name)
    usual = _on_meta(name, usual_size)
    tensors = _of_network(named, usual) if backbone else plain
    tensors = {key: _in_float32(path, key, tensor) for key, tensor in tensors.items()}

    size, side = usual_size, None
    if name.startswith(PATCHED) and _is_patched(tensors) and isinstance(usual.patch_embed, PatchEmbed):
        side = int(tensors[_MARK].shape[-1])
        if "pos_embed" in tensors:
            size = side * _grid(path, tensors["pos_embed"])
    mean_pooled = name.startswith(PATCHED) and "fc_norm.weight" in tensors
    network = _on_meta(name, size, side, mean_pooled)
    converted = _by_timm(path, tensors, network, name)
    advice = _advice(path, name, likely, given=backbone is not None)
    config = timm.get_pretrained_cfg(name) if "." in name else None
    dinov2 = name.split(".")[0].endswith("_dinov2")
    timms = "reg_token" in tensors or any(_CLASSIFIER.match(key) for key in tensors)
    return Recognised(
        _matched(path, converted, network, name, advice),
        name,
        side,
        DINOV2_SIZE if dinov2 and size == DINOV2_GRID * 14 else size,
        mean_pooled,
        positions_of_timm(name) if config or dinov2 or timms else AS_DINO,
        tuple(config.mean) if config else IMAGENET_MEAN,
        tuple(config.std) if config else IMAGENET_STD,
        config.crop_pct if config else 1.0 if side == 14 else USUAL_CROP,
        _origin(file, name, side),
    )


def architecture_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The name in timm of the well-known vision transformer that such tensors are of, by names and widths, or none."""
    size = _SIZES.get(tensors[_MARK].shape[0])
    registers = next((tensors[name].shape[1] for name in ("reg_token", "register_tokens") if name in tensors), 0)
    if registers:
        name = f"vit_{size}_patch14_reg{registers}_dinov2"
    elif "dist_token" in tensors:
        name = f"deit_{size}_distilled_patch16_224"
    elif "blocks.0.ls1.gamma" in tensors:
        tokens = tensors["pos_embed"].shape[1] if "pos_embed" in tensors else 0
        # Those of DeiT III give the class token no position.
        name = f"deit3_{size}_patch16_224" if math.isqrt(tokens) ** 2 == tokens else f"vit_{size}_patch14_dinov2"
    else:
        name = f"vit_{size}_patch16_224"
    known = (name, name.replace("patch16", "patch14"))  # the huge ones
    return next((each for each in known if timm.is_model(each)), None)


def positions_of_timm(name: str) -> PositionResizing:
    """How weights that timm has by this name, with or without a tag, have their position embeddings resized."""
    architecture, _, tag = name.partition(".")
    dinov2 = architecture.endswith("_dinov2") and "_reg" not in architecture
    return AS_DINO if dinov2 or tag == "dino" else AS_TIMM


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors, out of whatever a checkpoint wraps them in."""
    for _ in range(len(_WRAPPERS)):
        inner = next((state[name] for name in _WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = inner
    return {name: tensor for name, tensor in state.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def _unchunked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {_CHUNKED.sub(r"\1blocks.\2.", name): tensor for name, tensor in tensors.items()}
    return renamed if len(renamed) == len(tensors) else tensors  # fewer: these are no chunks


def _below_best_prefix(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """The tensors below the prefix (`module.backbone.`, say) under which most names are known, without it."""
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        counts.update(
            name[: len(name) - len(rest)]
            for start in range(len(parts))
            if (rest := ".".join(parts[start:])) in known
        )  # fmt: skip
    if not counts:
        return dict(tensors)

    def preference(prefix: str) -> int:
        parts = set(prefix.split("."))
        return bool(parts & _AVERAGED) - bool(parts & _TRAINED)

    most = max(counts.values())
    best = max((prefix for prefix in counts if counts[prefix] > 0.9 * most), key=preference)
    return {name.removeprefix(best): tensor for name, tensor in tensors.items() if name.startswith(best)}


def _is_patched(tensors: Mapping[str, Tensor]) -> bool:
    return _MARK in tensors and tensors[_MARK].ndim == 4


def _not_told(path: Path, named: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> NoReturn:
    if _is_patched(plain):
        width, _, *patch = plain[_MARK].shape
        raise MasslError(
            f"{path} is of a vision transformer that MaSSL doesn't know by itself ({width} wide, patches of "
            f"{' x '.join(map(str, patch))}); say which with --backbone NAME, as timm calls it"
        )
    first = f" (it has {', '.join(sorted(named)[:3])})" if named else ""
    raise MasslError(
        f"{path} holds no tensors by names that MaSSL knows a vision transformer by{first}; if they are another "
        "network's, say which with --backbone NAME, as timm calls it"
    )


def _of_network(named: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The tensors of a network of which the name was given."""
    wanted = network.state_dict().keys()
    tensors = _below_best_prefix(_unchunked(named) if isinstance(network, VisionTransformer) else named, wanted)
    # Where few names are timm's, it may know how to convert them, whatever stands before them.
    return tensors if len(wanted & tensors.keys()) > len(wanted) / 2 else named


def _on_meta(name: str, size: int, side: int | None = None, mean_pooled: bool = False) -> Any:
    """The network without its weights."""
    with torch.device("meta"):
        return build_backbone(name, size, side, dynamic=False, mean_pooled=mean_pooled)


def _usual_size(name: str) -> int:
    """Pixels a side that timm makes a network of this name for."""
    if not timm.is_model(name):
        return 224  # `build_backbone` says what is wrong
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture = name.split(".")[0]
        tags = ", ".join(timm.list_pretrained(architecture)) or architecture
        raise MasslError(f"timm has no weights called {name!r}; it has {tags}") from None
    return int(config.input_size[-1]) if config else 224


def _in_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    whole = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
    # A tensor may claim to be far larger than what is stored for it.
    if not whole or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise MasslError(f"{path}: {name} is not stored in full; give plain tensors, best as .safetensors")
    return tensor.float() if tensor.is_floating_point() else tensor


def _grid(path: Path, positions: Tensor) -> int:
    """Patches a side, of position embeddings `[1, prefix + h·w, d]`."""
    tokens = positions.shape[1] if positions.ndim == 3 else 0
    # Up to two of them belong to tokens that are no patch; of networks with registers more, in some of timm's.
    for prefix in range(10):
        side = math.isqrt(max(0, tokens - prefix))
        if 0 < side <= LARGEST_GRID and side * side + prefix == tokens:
            return side
    raise MasslError(f"{path}: pos_embed is {_shape(positions)}; MaSSL takes positions of square grids of patches")


def _by_timm(path: Path, tensors: dict[str, Tensor], network: Any, name: str) -> dict[str, Tensor]:
    """The tensors in timm's names, by its own function for this kind of network."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    if "register_tokens" in tensors or any(".mlp.w12." in key for key in tensors):
        tensors = {"mask_token": torch.zeros(0), **tensors}  # by which timm knows DINOv2's names
    try:
        return dict(convert(dict(tensors), network))
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:120]
        raise MasslError(f"{path} doesn't fit {name}: {first}; say which network it is of with --backbone") from None


def _matched(path: Path, tensors: Mapping[str, Tensor], network: Any, name: str, advice: str) -> dict[str, Tensor]:
    """The tensors that the network wants, without heads and the like.

    Raises:
        MasslError: they are not all there, there are others, of other shapes, or with values that are no numbers.
    """
    wanted = network.state_dict()
    found = dict(tensors)
    for key in wanted.keys() - found.keys():
        if key.endswith("num_batches_tracked"):  # files of before 2018 have none
            found[key] = torch.zeros((), dtype=torch.int64)
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted and not _DROPPED.match(key)]
    other = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    wrong = ""
    if other:
        key = other[0]
        wrong = f"{key} is {_shape(found[key])}, where {name} has {_shape(wanted[key])}"
    elif missing:
        wrong = f"{_some(missing)} of {name} {'is' if len(missing) == 1 else 'are'} missing"
    elif extra:
        wrong = f"{name} has no {_some(extra)}"
    if wrong:
        raise MasslError(f"{path} holds other weights: {wrong}; {advice}")
    endless = [key for key in wanted if found[key].is_floating_point() and not found[key].isfinite().all()]
    if endless:
        raise MasslError(f"{path} holds values that are no numbers, in {_some(endless)}; take other weights")
    return {key: found[key] for key in wanted}


def _advice(path: Path, name: str, likely: str | None, given: bool) -> str:
    """What to do where a file doesn't hold what the network wants."""
    if is_part(path):
        return "by its name it is one of several parts, and MaSSL takes one file: save them as one"
    if not given:
        return "if they are another network's, say which with --backbone NAME, as timm calls it"
    if likely and likely != name.split(".")[0]:
        return f"by its names and shapes it is {likely}: leave --backbone out"
    return "give the name of the network that they are of with --backbone"


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _origin(file: WeightsFile, name: str, side: int | None) -> dict[str, str]:
    """Where weights came from and their licence, as far as the file's own notes or its name tell."""
    noted = {key: file.notes.get(key, "") for key in ("source", "licence", "license")}
    noted = {key: " ".join(text.split())[:200] for key, text in noted.items()}
    if noted["source"]:
        licence = noted["licence"] or noted["license"]
        return {"source": noted["source"], **({"licence": licence} if licence else {})}
    published = _PUBLISHED.get(file.path.stem.removesuffix("_full_checkpoint"))
    if published and published[:2] == (name.split(".")[0], side):
        return {"source": published[2], "licence": "Apache-2.0"}
    if "." in name:
        return of_timm(name)
    return {"source": file.path.name}


def of_timm(name: str) -> dict[str, str]:
    """Where timm's weights of this name come from, and their licence as timm tells it."""
    config = timm.get_pretrained_cfg(name)
    licence = config.license if config else None
    spelt = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
    return {"source": f"timm:{name}", **({"licence": spelt.get(licence, licence)} if licence else {})}
