"""Where weights come from: a run, a file of weights (`massl.encoder.state_dicts`), timm, or an encoder that we
exported.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from massl.core.errors import MasslError
from massl.core.files.onnx_digest import is_whole
from massl.encoder import onnx_graph
from massl.encoder.heads import head_of_checkpoint, head_of_file
from massl.encoder.state_dicts import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    USUAL_CROP,
    Recognised,
    of_timm,
    positions_of_timm,
    recognise,
)
from massl.encoder.weight_files import WeightsFile, read_weights
from massl.encoder.whitening import Moments, Whitening, moments_of
from massl.method.network import AS_DINO, AS_TIMM, PositionResizing, build_backbone, resize_positions
from massl.planning import Begins
from massl.settings import PATCHED, Settings

ALL_STAGES = (
    "all stages: means, deviations, layouts"  # how an encoder's metadata calls `massl.encoder.inference.all_stages`
)

PROJECTED = "last, projected"  # the same of a network with its projection head


@dataclasses.dataclass(frozen=True)
class PretrainedBackbone:
    """A backbone with its weights, on the CPU, and what is known of it."""

    backbone: Any  # a timm network
    architecture: str
    image_size: int  # pixels, of the input
    facts: Mapping[str, object]  # of its training, for the encoder's metadata
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: int | None = None  # pixels of the shorter side; None: the image size
    moments: Moments | None = None  # see `Initial`
    stages: bool = False  # of an encoder file: whether it embeds by all stages
    whitening: Whitening | None = None  # of an encoder file: what its embeddings are whitened by
    strength: float = 0.0  # of that whitening, also where the file is an earlier version's and can't be read so
    positions: PositionResizing = AS_DINO  # how its position embeddings are resized
    image_sizes: tuple[int, ...] = ()  # of an encoder file: all sides of pictures that it takes, in pixels
    head: nn.Sequential | None = None  # its projection head, where it is known; see `massl.method.network.folded_head`
    projected: bool = False  # whether it embeds by that head


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights to begin a training with, on the CPU, and the network that they are for."""

    backbone: dict[str, Tensor]  # of `build_backbone(architecture, image_size, patch_size)`; see `load_backbone`
    head: dict[str, Tensor] | None  # a state of a `ProjectionHead`; None where only the backbone is known
    architecture: str  # timm's name
    patch_size: int | None  # pixels; None: not a vision transformer
    image_size: int  # pixels a side of the views that it was trained on
    export_size: int  # pixels a side, what an encoder of them takes; differs where it was trained on smaller views
    mean_pooled: bool = False  # embeds by the mean of its patch tokens; see `build_backbone`
    folded: bool = False  # batch normalisations were folded into convolutions; see `massl.training.batch_normalisation`
    moments: Moments | None = None  # of all stages on what the encoder was whitened for that all this began with
    positions: PositionResizing = AS_DINO  # how its position embeddings are resized
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict)  # `source` and `licence`, where they are known
    precision: str = "fp32"  # in which an encoder file stores them
    image_sizes: tuple[int, ...] = ()  # of an encoder file: all sides of pictures that it takes, in pixels
    whitened: bool = False  # of an encoder file: a linear map or a head follows its backbone
    file: Path | None = None  # the encoder file

    @property
    def begins(self) -> Begins:
        """What `massl.planning.plan` has to know of them."""
        return Begins(self.architecture, self.patch_size, self.mean_pooled, self.image_size, self.export_size)


def read_initial(source: str, backbone: str | None = None) -> Initial:
    """Reads what `massl train --init` begins with: the teacher's weights.

    Args:
        source: a run's folder, a checkpoint of ours or the authors', a state dict of another network's, an `.onnx`
            that `massl export` wrote, or `timm:NAME`.
        backbone: timm's name of the network that a state dict is of, where its names and shapes don't tell; elsewhere
            it has to be the network that is found.

    Raises:
        MasslError: missing, damaged, of a kind that isn't known, of another network than `backbone`, or not to be had
            offline.
    """
    if source.startswith("timm:"):
        found = _from_timm(source.removeprefix("timm:"), None)
        patches = getattr(found.backbone, "patch_embed", None)
        side = patches.patch_size[0] if found.architecture.startswith(PATCHED) and patches else None
        name, size = found.architecture.split(".")[0], found.image_size
        origin = of_timm(found.architecture)
        initial = Initial(
            found.backbone.state_dict(), None, name, side, size, size, positions=found.positions, origin=origin
        )
    elif source.endswith(".onnx"):
        initial = _initial_from_onnx(Path(source), *_read_onnx(Path(source)))
    else:
        file = read_weights(Path(source))
        initial = _initial_from_ours(file) if _is_ours(file) else _initial_from_others(file, backbone)
    _check_named(source, initial.architecture, backbone)
    return initial


def read(source: str, image_size: int | None = None, backbone: str | None = None) -> PretrainedBackbone:
    """Loads the teacher's backbone from a run's folder, a file of weights, an encoder file, or `timm:NAME`.

    Args:
        source: what to load; see `read_initial`.
        image_size: side of the input in pixels; position embeddings are interpolated to it.
        backbone: as of `read_initial`.

    Raises:
        MasslError: missing, damaged, of a kind that isn't known, of another network than `backbone`, or not to be had
            offline.
    """
    if source.startswith("timm:"):
        found = _from_timm(source.removeprefix("timm:"), image_size)
    elif source.endswith(".onnx"):
        found = _source_from_onnx(Path(source), image_size)
    else:
        file = read_weights(Path(source))
        found = _ours(file, image_size) if _is_ours(file) else _others(file, image_size, backbone)
    _check_named(source, found.architecture, backbone)
    return found


def load_backbone(
    backbone: Any, state: Mapping[str, Tensor], source: str, positions: PositionResizing = AS_DINO
) -> None:
    """Loads a backbone's state, position embeddings interpolated, everything else to the letter.

    Args:
        backbone: a network of `build_backbone`, changed in place.
        state: its tensors by name, position embeddings for any square grid.
        source: where they come from, for the error.
        positions: how position embeddings are resized.

    Raises:
        MasslError: the tensors are not this network's.
    """
    tensors = dict(state)
    embeddings = getattr(backbone, "pos_embed", None)
    try:
        if isinstance(embeddings, Tensor) and "pos_embed" in tensors and embeddings.shape != tensors["pos_embed"].shape:
            # Networks with register tokens give their prefix no position.
            prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
            side = math.isqrt(tensors["pos_embed"].shape[1] - prefix)
            grid = backbone.patch_embed.grid_size
            tensors["pos_embed"] = resize_positions(tensors["pos_embed"], (side, side), grid, prefix, positions)
        backbone.load_state_dict(tensors)
    except (AttributeError, RuntimeError, ValueError) as error:
        raise MasslError(f"{source} doesn't fit its architecture: {' '.join(str(error).split())[:200]}") from None


def _is_ours(file: WeightsFile) -> bool:
    return isinstance(file.state.get("settings"), Mapping) and isinstance(file.state.get("teacher"), Mapping)


def _is_the_authors(file: WeightsFile) -> bool:
    return isinstance(file.state.get("memory_bank"), Mapping) and isinstance(file.state.get("teacher"), Mapping)


def _check_named(source: str, architecture: str, backbone: str | None) -> None:
    found = architecture.split(",")[0].split(".")[0]
    if backbone and backbone.split(".")[0] != found:
        raise MasslError(f"{source} is of the network {found}, not {backbone}; leave --backbone out")


def _initial_from_ours(file: WeightsFile) -> Initial:
    state = file.state
    try:
        s = Settings(**state["settings"])
        moments = Moments(*state["moments"]) if state.get("moments") else None
        positions = PositionResizing(*state.get("positions", ()))  # earlier versions' checkpoints hold none
    except TypeError as error:
        raise MasslError(f"{file.path} is no checkpoint of this version of massl: {error}") from None
    side = s.patch_size if s.backbone.startswith(PATCHED) else None
    backbone, head = (_below(state["teacher"], part) for part in ("backbone.", "head."))
    return Initial(
        backbone, head, s.backbone, side, s.image_size, s.encoder_size, s.mean_pooled, moments=moments,
        positions=positions, origin=state.get("origin", {}),
    )  # fmt: skip


def _initial_from_others(file: WeightsFile, backbone: str | None) -> Initial:
    found = recognise(file, backbone)
    head = None
    if _is_the_authors(file):
        # With batch normalisation in the head, their teacher is wrapped for distribution as their student is.
        teacher = {name.removeprefix("module."): tensor for name, tensor in file.state["teacher"].items()}
        head = _below(teacher, "head.")
    size, pooled = found.image_size, found.mean_pooled
    return Initial(
        found.tensors, head, found.architecture, found.patch_size, size, size, pooled, positions=found.positions,
        origin=found.origin,
    )  # fmt: skip


def _ours(file: WeightsFile, image_size: int | None) -> PretrainedBackbone:
    state, found = file.state, _initial_from_ours(file)
    origin = dict(found.origin)
    sizes = tuple(map(int, filter(None, origin.pop("image_sizes", "").split(","))))
    facts = {
        "training_size": found.image_size,
        "training_images": state["images"],
        "training_epochs": round(state["images_seen"] / state["images"], 2),
        "training_images_seen": state["images_seen"],
        "training_seconds": round(state["seconds"]),
        "training_method": "MaSSL",
        **origin,
    }
    size = image_size or found.export_size
    network = _network(str(file.path), found, found.backbone, size)
    adapted = _adapted(state["teacher"], state.get("share", 1.0))
    if adapted:
        facts["training_method"] = f"MaSSL, an adapter of a frozen backbone, {state.get('share', 1.0):.0%} of it"
    return PretrainedBackbone(
        network, _described(found), size, facts, moments=found.moments, whitening=adapted, positions=found.positions,
        image_sizes=() if image_size else sizes, head=_head_of(file, found),
        projected=Settings(**state["settings"]).export_projection,
    )  # fmt: skip


def _head_of(file: WeightsFile, found: Initial) -> nn.Sequential | None:
    """The head of a checkpoint of ours; an adapter has none."""
    s = Settings(**file.state["settings"])
    try:
        return None if s.adapter else head_of_checkpoint(found.head or {}, s)
    except ValueError as error:
        raise MasslError(f"{file.path} doesn't hold its head: {error}") from None


def _head_in_onnx(path: Path, tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The head that an encoder file embeds by."""
    try:
        return head_of_file(_below(tensors, "head."))
    except ValueError as error:
        raise _not_ours(path, error) from None


def _adapted(teacher: Mapping[str, Tensor], share: float) -> Whitening | None:
    """A share of an adapter's change as the linear map that it is; None where there is none, or nothing of it."""
    change = teacher.get("adapter.change.weight")
    if change is None or not share:
        return None
    return Whitening(torch.zeros(len(change)), torch.eye(len(change)) + share * change.T)


def _others(file: WeightsFile, image_size: int | None, backbone: str | None) -> PretrainedBackbone:
    found = recognise(file, backbone)
    size = image_size or found.image_size
    facts: dict[str, object] = dict(found.origin)
    crop = found.crop
    if _is_the_authors(file):
        epochs = file.state.get("epoch", "unknown")
        facts = {"training_method": "MaSSL (the authors' checkpoint)", "training_epochs": epochs}
        crop = USUAL_CROP
    return PretrainedBackbone(
        _network(str(file.path), found, found.tensors, size),
        _described(found),
        size,
        facts,
        found.mean,
        found.std,
        resize=round(size / crop),
        positions=found.positions,
    )


def _network(source: str, found: Initial | Recognised, tensors: Mapping[str, Tensor], size: int) -> Any:
    any_size = found.architecture.startswith(PATCHED) and {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys()
    if any_size:
        # It keeps the positions that it was trained with: they are resized where it is shown pictures.
        size = tensors["patch_embed.proj.weight"].shape[-1] * math.isqrt(tensors["pos_embed"].shape[1])
    network = build_backbone(
        found.architecture, size, found.patch_size, dynamic=any_size, mean_pooled=found.mean_pooled
    ).eval()
    load_backbone(network, tensors, source, found.positions)
    return network


def _described(found: Initial | Recognised) -> str:
    return found.architecture + (f", patch {found.patch_size}" if found.patch_size else "")


def _source_from_onnx(path: Path, image_size: int | None) -> PretrainedBackbone:
    """An encoder file's network, to be put out otherwise: for other images, of another size, in another precision."""
    told, tensors = _read_onnx(path)
    found = _initial_from_onnx(path, told, tensors)
    size = image_size or found.export_size
    backbone = _network(str(path), found, found.backbone, size)
    facts = {name.removeprefix("massl."): value for name, value in told.items() if name.startswith("massl.training_")}
    facts |= {"name": told.get("massl.name", path.stem), "precision": told.get("massl.precision", "fp32")}
    facts |= {name: told[f"massl.{name}"] for name in ("source", "licence") if f"massl.{name}" in told}
    resize = round(int(told.get("massl.resize", size)) * size / found.export_size)
    pooling = told.get("massl.pooling", "last")
    whitening = None
    if pooling in ("last", PROJECTED, ALL_STAGES) and {"centre", "matrix"} <= tensors.keys():
        try:
            packed = base64.b64decode(told.get("massl.mean_embedding", ""))
            mean_embedding = torch.from_numpy(np.frombuffer(packed, "<f2").astype(np.float32)) if packed else None
        except ValueError as error:
            raise _not_ours(path, error) from None
        whitening = Whitening(tensors["centre"], tensors["matrix"], mean_embedding)
    return PretrainedBackbone(
        backbone,
        told["massl.architecture"],
        size,
        facts,
        resize=resize,
        moments=found.moments,
        stages=pooling not in ("last", PROJECTED),
        whitening=whitening,
        strength=float(told.get("massl.whitening", 0)),
        positions=found.positions,
        image_sizes=() if image_size else tuple(map(int, told.get("massl.image_sizes", str(size)).split(","))),
        head=_head_in_onnx(path, tensors) if pooling == PROJECTED else None,
        projected=pooling == PROJECTED,
    )


def _read_onnx(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What an encoder file tells, and its weights by name in float32, however they are stored."""
    try:
        if not path.is_file() and path.exists():  # reading a pipe or a device may never end
            raise MasslError(f"{path} is not a regular file; give an encoder.onnx")
        data = path.read_bytes()
        whole = is_whole(data)
        model = onnx.load_model_from_string(data)
        told = {entry.key: entry.value for entry in model.metadata_props}
        shared = json.loads(told.get("massl.shared_weights", "{}"))
        tensors = {name: torch.from_numpy(values) for name, values in onnx_graph.weights_of(model, shared).items()}
        for node in model.graph.node:
            # A folded bias is called after its weights, unless several are alike (all zero, say) and are stored once.
            if node.op_type == "Conv" and node.input[1] in tensors:
                bias = tensors[node.input[2]] if len(node.input) > 2 else torch.zeros(len(tensors[node.input[1]]))
                tensors.setdefault(f"{node.input[1]}_bias", bias)
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
    except MasslError:
        raise
    except OSError as error:
        raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except Exception as error:  # protobuf's reader has an exception class of its own
        raise _not_ours(path, error) from None
    if not whole:
        raise MasslError(
            f"{path} is damaged: its content has changed since it was written; copy it again from its origin"
        )
    return told, tensors


def _not_ours(path: Path, error: Exception) -> MasslError:
    return MasslError(f"{path} is damaged or was not written by massl export: {error}")


def _initial_from_onnx(path: Path, told: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Initial:
    """The weights of an encoder that `massl export` wrote.

    The exporter folds each batch normalisation into the convolution before it. What comes back computes the same, by a
    normalisation that leaves its input's scale and adds the bias; before it is trained on, `spread_normalisation` has
    to find statistics for it.
    """
    if "massl.architecture" not in told:
        raise MasslError(f"{path} was not written by massl export, so it can't be read as weights")
    try:
        architecture, _, patch = told["massl.architecture"].partition(", patch ")
        size, side = int(told["massl.image_size"]), int(patch) if patch else None
        trained_at = int(told.get("massl.training_size", size))
        strength = float(told.get("massl.whitening", 0))
    except (KeyError, ValueError) as error:
        raise _not_ours(path, error) from None
    stored = _below(tensors, "backbone.")
    positions = AS_DINO
    if onnx_graph.GRID in tensors:
        patches = tensors[onnx_graph.GRID].flatten(2).transpose(1, 2)
        first = tensors.get("first_positions", patches[:, :0])
        stored["pos_embed"] = torch.cat([first, patches], 1)
        positions = AS_DINO if tensors[onnx_graph.OFFSET].item() else AS_TIMM
    moments = None
    if told.get("massl.pooling") == ALL_STAGES and strength > 0 and {"centre", "matrix"} <= tensors.keys():
        moments = moments_of(Whitening(tensors["centre"], tensors["matrix"]), strength)
    mean_pooled = "fc_norm.weight" in stored
    backbone = build_backbone(architecture, size, side, dynamic=False, mean_pooled=mean_pooled)
    convolution = ""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d) and f"{convolution}.weight_bias" in stored:
            bias = stored.pop(f"{convolution}.weight_bias")
            stored[f"{name}.weight"] = torch.ones_like(bias)
            stored[f"{name}.bias"] = bias
            stored[f"{name}.running_mean"] = torch.zeros_like(bias)
            stored[f"{name}.running_var"] = torch.full_like(bias, 1.0 - module.eps)
            stored[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    wanted = backbone.state_dict()
    missing = [
        name
        for name, tensor in wanted.items()
        if name not in stored or (stored[name].shape != tensor.shape and name != "pos_embed")
    ]
    if missing:
        raise MasslError(
            f"{path} does not hold all weights by their names ({missing[0]} is missing), as an earlier version "
            "of massl wrote it; start from the run or the checkpoint that it was exported from"
        )
    backbone_state = {name: stored[name] for name in wanted}
    folded = any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    origin = {name: told[f"massl.{name}"] for name in ("source", "licence") if f"massl.{name}" in told}
    return Initial(
        backbone_state, None, architecture, side, trained_at, size, mean_pooled, folded, moments, positions, origin,
        told.get("massl.precision", "fp32"), tuple(map(int, told.get("massl.image_sizes", str(size)).split(","))),
        {"centre", "matrix"} <= tensors.keys() or told.get("massl.pooling") == PROJECTED, path,
    )  # fmt: skip


def _from_timm(name: str, image_size: int | None) -> PretrainedBackbone:
    if not timm.is_model(name.split(".")[0]):
        raise MasslError(f"timm has no network called {name!r}; `timm.list_models(pretrained=True)` names them")
    positions = positions_of_timm(name)
    options: dict[str, Any] = {"num_classes": 0, "pretrained": True}
    try:
        backbone = timm.create_model(name, **options)
        if image_size and name.startswith(PATCHED) and not isinstance(backbone, VisionTransformer):
            backbone = timm.create_model(name, **options, img_size=image_size)  # of positions of another kind
    except Exception as error:  # the hub's client raises classes of several libraries, none of which we depend on
        first = " ".join(str(error).split())[:160]
        raise MasslError(f"the weights of {name} could not be fetched (is this machine online?): {first}") from None
    config = timm.data.resolve_model_data_config(backbone)
    size = image_size or config["input_size"][-1]
    if name.startswith(PATCHED) and isinstance(backbone, VisionTransformer):
        native = config["input_size"][-1]
        any_size = build_backbone(name, native, dynamic=True)
        load_backbone(any_size, backbone.state_dict(), name, positions)
        backbone = any_size
    return PretrainedBackbone(
        backbone.eval(),
        name,
        size,
        {"training_method": "timm", **of_timm(name)},
        tuple(config["mean"]),
        tuple(config["std"]),
        resize=round(size / config["crop_pct"]),
        positions=positions,
    )


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
