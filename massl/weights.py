"""Where weights come from: a run, a checkpoint of ours or the authors', timm, or an encoder that we exported."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from massl import checkpoint
from massl.errors import MasslError
from massl.network import build_backbone, resize_positions
from massl.seal import is_whole
from massl.settings import PATCHED, Begins, Settings
from massl.whitening import Moments, Whitening, moments_of

ALL_STAGES = "all stages: means, deviations, layouts"  # how an encoder's metadata calls `massl.deployed.all_stages`
# How `massl.export` calls weights that it stores in fewer bits: the name, and this.
HALF, EIGHT_BITS, SCALE = ".half", ".int8", ".int8.scale"


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
    moments: Moments | None = None  # see `Initial`
    stages: bool = False  # of an encoder file: whether it embeds by all stages
    whitening: Whitening | None = None  # of an encoder file: what its embeddings are whitened by
    strength: float = 0.0  # of that whitening, also where the file is an earlier version's and can't be read so


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights to begin a training with, on the CPU, and the network that they are for."""

    backbone: dict[str, Tensor]  # a state of `build_backbone(architecture, image_size, patch_size)`
    head: dict[str, Tensor] | None  # a state of `massl.network.Head`; None where only the backbone is known
    architecture: str  # timm's name
    patch_size: int | None  # pixels; None: not a vision transformer
    image_size: int  # pixels a side, for which its position embeddings are made
    export_size: int  # pixels a side, what an encoder of them takes; differs where it was trained on smaller views
    mean_pooled: bool = False  # embeds by the mean of its patch tokens; see `build_backbone`
    folded: bool = False  # batch normalisations were folded into convolutions; see `spread_normalisation`
    moments: Moments | None = None  # of all stages on what the encoder was whitened for that all this began with

    @property
    def begins(self) -> Begins:
        """What `massl.settings.plan` has to know of them."""
        return Begins(self.architecture, self.patch_size, self.mean_pooled, self.image_size, self.export_size)


def read_initial(source: str) -> Initial:
    """Reads what `massl train --init` begins with: the teacher's weights.

    Args:
        source: a run's folder, a checkpoint of ours or the authors', an `.onnx` of a network of convolutions that
            `massl export` wrote, or `timm:NAME`.

    Raises:
        MasslError: missing, damaged, of a kind that isn't known, or not to be had offline.
    """
    if source.startswith("timm:"):
        found = _from_timm(source.removeprefix("timm:"), None)
        patches = getattr(found.backbone, "patch_embed", None)
        side = patches.patch_size[0] if found.architecture.startswith(PATCHED) and patches else None
        name = found.architecture.split(".")[0]
        return Initial(found.backbone.state_dict(), None, name, side, found.image_size, found.image_size)
    if source.endswith(".onnx"):
        return _initial_from_onnx(Path(source), *_read_onnx(Path(source)))
    path, state = _read_checkpoint(source)
    return _initial_from_ours(state) if "settings" in state else _initial_from_authors(path, state)


def read(source: str, image_size: int | None = None) -> Source:
    """Loads the teacher's backbone from a run's folder, a checkpoint file, an encoder file, or `timm:NAME`.

    Args:
        source: what to load; see `read_initial`.
        image_size: side of the input in pixels; position embeddings are interpolated to it.

    Raises:
        MasslError: missing, damaged, of a kind that isn't known, or not to be had offline.
    """
    if source.startswith("timm:"):
        return _from_timm(source.removeprefix("timm:"), image_size)
    if source.endswith(".onnx"):
        return _source_from_onnx(Path(source), image_size)
    path, state = _read_checkpoint(source)
    ours = "settings" in state
    found = _initial_from_ours(state) if ours else _initial_from_authors(path, state)
    size = image_size or found.export_size
    backbone = build_backbone(
        found.architecture, size, found.patch_size, dynamic=False, mean_pooled=found.mean_pooled
    ).eval()
    load_backbone(backbone, found.backbone, source)
    architecture = found.architecture + (f", patch {found.patch_size}" if found.patch_size else "")
    if not ours:
        facts = {"training_method": "MaSSL (the authors' checkpoint)", "training_epochs": state.get("epoch", "unknown")}
        return Source(backbone, architecture, size, facts, resize=round(size / 0.875))
    facts = {
        "training_size": found.image_size,
        "training_images": state["images"],
        "training_epochs": round(state["images_seen"] / state["images"], 2),
        "training_images_seen": state["images_seen"],
        "training_seconds": round(state["seconds"]),
        "training_method": "MaSSL",
    }
    return Source(backbone, architecture, size, facts, moments=found.moments)


def load_backbone(backbone: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a backbone's state, position embeddings interpolated, everything else to the letter.

    Args:
        backbone: a network of `build_backbone`, changed in place.
        state: its tensors by name, position embeddings for any square grid.
        source: where they come from, for the error.

    Raises:
        MasslError: the tensors are not this network's.
    """
    tensors = dict(state)
    embeddings = getattr(backbone, "pos_embed", None)
    if isinstance(embeddings, Tensor) and "pos_embed" in tensors and embeddings.shape != tensors["pos_embed"].shape:
        # Networks with register tokens give their prefix no position.
        prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
        side = math.isqrt(tensors["pos_embed"].shape[1] - prefix)
        grid = backbone.patch_embed.grid_size
        tensors["pos_embed"] = resize_positions(tensors["pos_embed"], (side, side), grid, prefix)
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise MasslError(f"{source} doesn't fit its architecture: {' '.join(str(error).split())[:200]}") from None


def _read_checkpoint(source: str) -> tuple[Path, dict[str, Any]]:
    path = Path(source)
    if path.is_dir():
        path = checkpoint.latest(path / "checkpoints")
    # The authors' files hold their command line and, in the optimiser's groups, rates as NumPy's numbers.
    number: Any = np.float64(0).__reduce__()
    scalar, dtype = number[0], number[1][0]
    allowed = [argparse.Namespace, np.dtype, type(dtype), scalar, (scalar, "numpy.core.multiarray.scalar")]
    with torch.serialization.safe_globals(allowed):
        state = checkpoint.load(path)
    if "teacher" not in state:
        raise MasslError(f"{path} holds no teacher; give a run's folder, its checkpoint, or the authors' checkpoint")
    return path, state


def _initial_from_ours(state: Mapping[str, Any]) -> Initial:
    s = Settings(**state["settings"])
    side = s.patch_size if s.backbone.startswith(PATCHED) else None
    backbone, head = (_below(state["teacher"], part) for part in ("backbone.", "head."))
    moments = Moments(*state["moments"]) if state.get("moments") else None
    return Initial(backbone, head, s.backbone, side, s.image_size, s.encoder_size, s.mean_pooled, moments=moments)


def _initial_from_authors(path: Path, state: Mapping[str, Any]) -> Initial:
    """The authors' checkpoints name tensors as timm does; the architecture is read off the tensors' shapes."""
    teacher = state["teacher"]
    try:
        # With batch normalisation in the head, their teacher is wrapped for distribution as their student is.
        teacher = {name.removeprefix("module."): tensor for name, tensor in teacher.items()}
        patches = teacher["backbone.patch_embed.proj.weight"]
        width, side = patches.shape[0], patches.shape[-1]
        tokens = teacher["backbone.pos_embed"].shape[1] - 1
    except (KeyError, TypeError, AttributeError):
        raise MasslError(f"{path} is no vision transformer of ours or of MaSSL's authors") from None
    names = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
    if width not in names:
        raise MasslError(f"{path}: no vision transformer is {width} wide; known are {', '.join(map(str, names))}")
    backbone = _below(teacher, "backbone.")
    backbone.pop("masked_embed", None)  # their mask token, of no use here
    architecture = f"vit_{names[width]}_patch16_224"
    mean_pooled = "fc_norm.weight" in backbone
    size = side * math.isqrt(tokens)
    return Initial(backbone, _below(teacher, "head."), architecture, side, size, size, mean_pooled)


def _source_from_onnx(path: Path, image_size: int | None) -> Source:
    """An encoder file's network, to be put out otherwise: for other images, of another size, in another precision."""
    told, tensors = _read_onnx(path)
    found = _initial_from_onnx(path, told, tensors)
    size = image_size or found.export_size
    backbone = build_backbone(
        found.architecture, size, found.patch_size, dynamic=False, mean_pooled=found.mean_pooled
    ).eval()
    load_backbone(backbone, found.backbone, str(path))
    facts = {name.removeprefix("massl."): value for name, value in told.items() if name.startswith("massl.training_")}
    facts |= {"name": told.get("massl.name", path.stem), "precision": told.get("massl.precision", "fp32")}
    if "massl.source" in told:
        facts["source"] = told["massl.source"]
    resize = round(int(told.get("massl.resize", size)) * size / found.export_size)
    pooling = told.get("massl.pooling", "last")
    whitening = None
    if pooling in ("last", ALL_STAGES) and {"centre", "matrix"} <= tensors.keys():
        try:
            packed = base64.b64decode(told.get("massl.mean_embedding", ""))
            mean_embedding = torch.from_numpy(np.frombuffer(packed, "<f2").astype(np.float32)) if packed else None
        except ValueError as error:
            raise _not_ours(path, error) from None
        whitening = Whitening(tensors["centre"], tensors["matrix"], mean_embedding)
    return Source(
        backbone,
        told["massl.architecture"],
        size,
        facts,
        resize=resize,
        moments=found.moments,
        stages=pooling != "last",
        whitening=whitening,
        strength=float(told.get("massl.whitening", 0)),
    )


def _read_onnx(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What an encoder file tells, and its weights by name in float32, however they are stored."""
    tensors: dict[str, Tensor] = {}
    try:
        data = path.read_bytes()
        whole = is_whole(data)
        model = onnx.load_model_from_string(data)
        told = {entry.key: entry.value for entry in model.metadata_props}
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, values in stored.items():
            if name.endswith(EIGHT_BITS):
                plain = name.removesuffix(EIGHT_BITS)
                tensors[plain] = torch.from_numpy(values.astype(np.float32) * stored[plain + SCALE])
            elif values.dtype in (np.float16, np.float32) and not name.endswith(SCALE):
                tensors[name.removesuffix(HALF)] = torch.from_numpy(values.astype(np.float32))
        for node in model.graph.node:
            # A folded bias is called after its weights, unless several are alike (all zero, say) and are stored once.
            if node.op_type == "Conv" and node.input[1] in tensors:
                bias = tensors[node.input[2]] if len(node.input) > 2 else torch.zeros(len(tensors[node.input[1]]))
                tensors.setdefault(f"{node.input[1]}_bias", bias)
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
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
    """The weights of an encoder of convolutions that `massl export` wrote.

    The exporter folds each batch normalisation into the convolution before it. What comes back computes the same, by a
    normalisation that leaves its input's scale and adds the bias; before it is trained on, `spread_normalisation` has
    to find statistics for it.
    """
    try:
        architecture, _, patch = told["massl.architecture"].partition(", patch ")
        size, side = int(told["massl.image_size"]), int(patch) if patch else None
        trained_at = int(told.get("massl.training_size", size))
        strength = float(told.get("massl.whitening", 0))
    except (KeyError, ValueError) as error:
        raise _not_ours(path, error) from None
    stored = _below(tensors, "backbone.")
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
    missing = [name for name, tensor in wanted.items() if name not in stored or stored[name].shape != tensor.shape]
    if missing:
        raise MasslError(
            f"{path} does not hold all weights by their names ({missing[0]} is missing): only encoders of convolutions "
            "do; start from the run or the checkpoint that it was exported from"
        )
    backbone_state = {name: stored[name] for name in wanted}
    folded = bool(convolution)
    return Initial(backbone_state, None, architecture, side, trained_at, size, mean_pooled, folded, moments)


@torch.no_grad()
def spread_normalisation(backbone: nn.Module, images: Tensor) -> None:
    """Gives batch normalisations that were folded into convolutions the statistics of `images`, in place.

    In evaluation the network computes what it did before. In training, where a batch's own statistics take the place
    of the running ones, it now does so too, as far as a batch is like `images`.

    Args:
        backbone: a network with the weights that `read_initial` found in an `.onnx`.
        images: float `[n, 3, S, S]`, normalised, a few hundred that it is going to be trained on.
    """
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)  # the latter where several GPUs train together
    inputs: dict[nn.BatchNorm2d | nn.SyncBatchNorm, Tensor] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, kinds)
        inputs[module] = torch.stack(torch.var_mean(given[0].float(), (0, 2, 3)))

    found = [module for module in backbone.modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_pre_hook(note) for module in found]
    training = backbone.training
    backbone.eval()(images)
    backbone.train(training)
    for hook in hooks:
        hook.remove()
    for module, (variance, mean) in inputs.items():
        assert module.running_mean is not None
        assert module.running_var is not None
        # y = gain · x + offset, as it was, through other statistics.
        gain = module.weight / (module.running_var + module.eps).sqrt()
        offset = module.bias - gain * module.running_mean
        module.weight.copy_(gain * (variance + module.eps).sqrt())
        module.bias.copy_(offset + gain * mean)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)


def _from_timm(name: str, image_size: int | None) -> Source:
    options: dict[str, Any] = {"num_classes": 0, "pretrained": True}
    if image_size and name.startswith(PATCHED):
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


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
