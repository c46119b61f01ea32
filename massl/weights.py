"""Where an encoder's weights come from: a run, a checkpoint of ours or the authors', or timm."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from massl import checkpoint
from massl.errors import MasslError
from massl.network import build_backbone
from massl.settings import Settings


@dataclasses.dataclass(frozen=True)
class Source:
    """A backbone with its weights, on the CPU, and what is known of it."""

    backbone: Any  # a timm network
    architecture: str
    image_size: int  # pixels, of the input
    facts: Mapping[str, object]  # of its training, for the encoder's metadata
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: int | None = None  # pixels of the shorter side; None: the image size


def read(source: str, image_size: int | None = None) -> Source:
    """Loads the teacher's backbone from a run's folder, a checkpoint file, or `timm:NAME`.

    Args:
        source: what to load.
        image_size: side of the input in pixels; position embeddings are interpolated to it.

    Raises:
        MasslError: missing, damaged, of a kind that isn't known, or not to be had offline.
    """
    if source.startswith("timm:"):
        return _from_timm(source.removeprefix("timm:"), image_size)
    path = Path(source)
    if path.is_dir():
        path = checkpoint.latest(path / "checkpoints")
    with torch.serialization.safe_globals([argparse.Namespace]):  # the authors' files hold one
        state = checkpoint.load(path)
    if "teacher" not in state:
        raise MasslError(f"{path} holds no teacher; give a run's folder, its checkpoint, or the authors' checkpoint")
    if "settings" in state:
        return _from_ours(path, state, image_size)
    return _from_authors(path, state, image_size)


def _from_ours(path: Path, state: Mapping[str, Any], image_size: int | None) -> Source:
    settings = Settings(**state["settings"])
    size = image_size or settings.image_size
    facts = {
        "training_images": state["images"],
        "training_epochs": round(state["images_seen"] / state["images"], 2),
        "training_images_seen": state["images_seen"],
        "training_seconds": round(state["seconds"]),
        "training_method": "MaSSL",
    }
    backbone = build_backbone(settings.backbone, size, settings.patch_size, dynamic=False)
    _load(backbone, state["teacher"], "backbone.", path)
    patched = settings.backbone.startswith(("vit_", "deit"))
    architecture = settings.backbone + (f", patch {settings.patch_size}" if patched else "")
    return Source(backbone.eval(), architecture, size, facts)


def _from_authors(path: Path, state: Mapping[str, Any], image_size: int | None) -> Source:
    """The authors' checkpoints name tensors as timm does; the architecture is read off the tensors' shapes."""
    teacher = state["teacher"]
    try:
        patches = teacher["backbone.patch_embed.proj.weight"]
        width, side = patches.shape[0], patches.shape[-1]
        tokens = teacher["backbone.pos_embed"].shape[1] - 1
    except (KeyError, TypeError, AttributeError):
        raise MasslError(f"{path} is no vision transformer of ours or of MaSSL's authors") from None
    names = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
    if width not in names:
        raise MasslError(f"{path}: no vision transformer is {width} wide; known are {', '.join(map(str, names))}")
    architecture = f"vit_{names[width]}_patch16_224"
    trained = side * math.isqrt(tokens)
    size = image_size or trained
    backbone = build_backbone(architecture, size, side, dynamic=False)
    _load(backbone, teacher, "backbone.", path)
    facts = {"training_method": "MaSSL (the authors' checkpoint)", "training_epochs": state.get("epoch", "unknown")}
    return Source(backbone.eval(), f"{architecture}, patch {side}", size, facts, resize=round(size / 0.875))


def _from_timm(name: str, image_size: int | None) -> Source:
    options: dict[str, Any] = {"num_classes": 0, "pretrained": True}
    if image_size and name.startswith(("vit_", "deit")):
        options["img_size"] = image_size
    if not timm.is_model(name.split(".")[0]):
        raise MasslError(f"timm has no network called {name!r}; `timm.list_models(pretrained=True)` names them")
    try:
        backbone = timm.create_model(name, **options)
    except Exception as error:  # the hub's client raises classes of several libraries, none of which we depend on
        first = " ".join(str(error).split())[:160]
        raise MasslError(f"the weights of {name} could not be fetched (is this machine online?): {first}") from None
    config = timm.data.resolve_model_data_config(backbone)
    size = image_size or config["input_size"][-1]
    return Source(
        backbone.eval(),
        name,
        size,
        {"training_method": "timm", "source": f"timm:{name}"},
        tuple(config["mean"]),
        tuple(config["std"]),
        resize=round(size / config["crop_pct"]),
    )


def _load(backbone: Any, state: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Loads the tensors under `prefix`, position embeddings interpolated, everything else to the letter."""
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    tensors.pop("masked_embed", None)  # the authors' mask token, of no use here
    embeddings = getattr(backbone, "pos_embed", None)
    if isinstance(embeddings, Tensor) and "pos_embed" in tensors and embeddings.shape != tensors["pos_embed"].shape:
        grid = backbone.patch_embed.grid_size
        # Networks with register tokens give their prefix no position.
        prefixed = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
        tensors["pos_embed"] = timm.layers.resample_abs_pos_embed(
            tensors["pos_embed"], grid, num_prefix_tokens=prefixed
        )
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise MasslError(f"{path} doesn't fit its architecture: {' '.join(str(error).split())[:200]}") from None
