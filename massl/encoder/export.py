"""From weights to `encoder.onnx`, the self-describing file that all else reads (docs/reference/encoder-file.md)."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch.nn import functional

import massl
from massl.core.disk_errors import cannot_write
from massl.core.encoder_contract import FORMAT
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import whole
from massl.core.files.onnx_digest import sealed
from massl.core.files.run_folder import describe_run, is_run, run_shown_as
from massl.data.sampling import sampled
from massl.data.sources import Source as Images
from massl.data.sources import find_source
from massl.encoder import adapted, quantisation, weights
from massl.encoder.inference import WHITENED, Deployed, components, has_stages, takes_any_size, whitened_stages
from massl.encoder.onnx_graph import (
    name_weights,
    quantise,
    remove_notes,
    resize_positions_by,
    store_in_bytes,
    store_in_half,
)
from massl.encoder.whitening import OWN, SAMPLE, Whitening, fit_whitening, usual_strength

# Largest difference between torch and ONNX Runtime, per value of a unit vector, by precision. int8 is judged by
# direction instead: its cosine with float32 must stay above 0.98.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3}
INT8_COSINE = 0.98


def export_run(folder: Path, name: str, images: Images) -> Path:
    """Writes `encoder.onnx` into a run's folder.

    In float32, embedding as `massl.encoder.inference.whitened_stages` says; of a run that adapted an encoder file, that
    file with the layer that was learnt.

    Args:
        folder: the run's.
        name: what the encoder calls itself.
        images: those that the run was trained on.
    """
    path = folder / "encoder.onnx"
    export(str(folder), path, name=name, trained_on=images)
    return path


def _images_of(run: Path, source: weights.PretrainedBackbone, trained_on: Images | None) -> Images | None:
    """Those that a run's embeddings are whitened on, or None where it embeds by its last layer alone.

    They are `trained_on`, else looked for where the run found them.

    Raises:
        MasslError: they are no longer where they were.
    """
    if trained_on is not None:
        return trained_on if whitened_stages(source.backbone, len(trained_on), source.moments) else None
    about = describe_run(run)
    if not whitened_stages(source.backbone, about["images"], source.moments):
        return None
    try:
        return find_source(Path(about["root"]), run_shown_as(run))[0]
    except MasslError as error:
        raise MasslError(
            f"{run} embeds as the images that it learnt from let it, and those can't be had ({error}); give them, or "
            "others of their kind, as massl export --whiten IMAGES"
        ) from None


def export(
    source: str,
    out: Path,
    *,
    precision: str | None = None,
    image_sizes: Sequence[int] = (),
    resize: int | None = None,
    backbone: str | None = None,
    name: str | None = None,
    stages: bool = False,
    whiten: Images | None = None,
    calibrate: Images | None = None,
    default_images: Path | None = None,
    dim: int | None = None,
    strength: float | None = None,
    own: float = OWN,
    trained_on: Images | None = None,
    evaluation: Mapping[str, object] | None = None,
    projection: bool | None = None,
    tell: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Writes an encoder and holds it to torch before it takes its place.

    Args:
        source: a run's folder, whose embeddings are as `export_run` makes them, a checkpoint, a state dict, an encoder
            file, or `timm:NAME`; see `massl.encoder.weights.read`.
        out: the file to write, replaced only when all went well.
        precision: `fp32`; `fp16` (weights stored in half precision, computed in single: half the size, same speed);
            `int8` (a quarter of the size: of transformers linear layers in 8 bits, about twice as fast on a CPU; of
            convolutional networks the weights alone, computed in single, the same speed). An encoder file's own, else
            `fp32`, if left out.
        image_sizes: sides of the input in pixels, the usual one first; if left out those of an encoder file, the run's
            `export_size`, else that of training. More than one only of vision transformers, each a multiple of the
            patch.
        resize: shorter side before the centre is cut out at the usual size, in pixels.
        backbone: timm's name of the network, where a state dict doesn't tell; see `massl.encoder.weights.read`.
        name: what the encoder calls itself; the file's name if left out.
        stages: embed by all stages of a convolutional network; see `Deployed`.
        whiten: images to fit a whitening to, those of the training best; see `massl.encoder.whitening`.
        calibrate: images that show how large the values inside a transformer get, for `int8`; a run's own if left out.
        default_images: a folder of images to calibrate on where there are no others.
        dim: components that whitening keeps; as `massl.encoder.inference.components` says if left out.
        strength: of the whitening, 0 to 1; as `massl.encoder.whitening.usual_strength` says if left out.
        own: the share of `whiten` in the whitening of all stages of a run that began with an encoder.
        trained_on: the images of a run, where they are open already; found again if left out.
        evaluation: figures with the names of their data sets, kept in the metadata.
        projection: whether to embed by the projection head, too; as the run or the encoder file does if left out.
        tell: called with what it is about to do where that takes time.

    Returns:
        What was written: name, bytes, dim, image size, and the largest difference from torch.

    Raises:
        MasslError: the source can't be read, or the encoder file that a run adapts; a `strength` of no whitening; no
            `projection` that is known; the file can't be written; or the export doesn't agree with torch.
    """
    if stages and projection:
        raise MasslError("an encoder embeds by its stages or by its projection; leave --stages or --projection out")
    options = (precision, image_sizes, resize, stages, whiten, calibrate, dim, strength, evaluation)
    if not any(options) and projection is None and (start := adapted.find_start(Path(source))):
        return _export_adapted(Path(source), start, out, name)
    found = _projected(weights.read(source, image_sizes[0] if image_sizes else None, backbone), source, projection)
    sizes = _sizes(found, image_sizes)
    resize = resize or found.resize or found.image_size
    if stages and not has_stages(found.backbone):
        raise MasslError(f"{found.architecture} has no four stages to embed by; leave --stages out")
    precision = precision or str(found.facts.get("precision", "fp32"))
    of_a_run = trained_on is not None or is_run(Path(source))
    if of_a_run and has_stages(found.backbone) and not stages and not found.projected:
        whiten = whiten or _images_of(Path(source), found, trained_on)
        stages = whiten is not None
    stages = stages or found.stages
    if whiten is None:
        whitening, strength = _found_whitening(source, found, strength)
    else:
        whitening, strength = _fitted_whitening(found, stages, whiten, resize, dim, strength, own, tell)
    deployed = Deployed(found, stages, whitening).eval()
    _check_embeds(deployed, source, found.image_size)
    inputs = {}
    if precision == "int8" and not has_stages(found.backbone):
        inputs = _calibrated(deployed, calibrate or _images_to_calibrate(source, default_images), sizes, resize, tell)
    tell("writing the network, and comparing it with torch")
    model, shared = _to_onnx(deployed, found.image_size)
    _store(model, precision, has_stages(found.backbone), inputs)
    difference = max(_compare(deployed, model, each, precision) for each in sizes)
    nothing = torch.zeros((1, found.image_size, found.image_size, 3), dtype=torch.uint8)
    facts = {
        "format": FORMAT,
        "architecture": found.architecture,
        "dim": int(deployed(nothing)[0].shape[1]),
        "image_size": found.image_size,
        "image_sizes": ",".join(map(str, sizes)),
        "resize": resize,
        "crop": "center",
        "interpolation": "bicubic",
        "parameters": sum(parameter.numel() for parameter in found.backbone.parameters()),
        "pooling": weights.ALL_STAGES if stages else weights.PROJECTED if found.projected else "last",
        "whitening": strength,
        "creator": f"massl {massl.__version__}",
        **_named(found.facts, name or out.stem),
        "precision": precision,
        **({"shared_weights": json.dumps(shared)} if shared else {}),
        **({"evaluation": json.dumps(evaluation)} if evaluation else {}),
        **_mean_embedding(whitening),
    }
    helper.set_model_props(model, {f"massl.{key}": str(value) for key, value in facts.items()})
    data = sealed(model)
    _write(out, data)
    return {
        "path": str(out),
        "name": facts["name"],
        "bytes": len(data),
        "dim": facts["dim"],
        "image_size": found.image_size,
        "image_sizes": list(sizes),
        "precision": precision,
        "difference": difference,
    }


def _export_adapted(run: Path, start: Path, out: Path, name: str | None) -> dict[str, Any]:
    """Writes `start`, the encoder file that a run adapted, with the layer that was learnt; what `export` returns."""
    found = weights.read(str(run))
    facts = {**_named(found.facts, name or out.stem), "whitening": 0.0, "creator": f"massl {massl.__version__}"}
    data, difference = adapted.with_map(start, found.whitening, facts)
    _write(out, data)
    return {
        "path": str(out),
        "name": facts["name"],
        "bytes": len(data),
        "dim": found.backbone.num_features,
        "image_size": found.image_size,
        "image_sizes": list(found.image_sizes),
        "precision": facts["precision"],
        "difference": difference,
    }


def _projected(found: weights.PretrainedBackbone, source: str, projection: bool | None) -> weights.PretrainedBackbone:
    """The same, to embed by its projection head or not."""
    if projection is None or projection == found.projected:
        return found
    if projection and found.head is None:
        raise MasslError(f"{source} has no projection head that is known to embed by; leave --projection out")
    return dataclasses.replace(found, projected=projection)


def _found_whitening(
    source: str, found: weights.PretrainedBackbone, strength: float | None
) -> tuple[Whitening | None, float]:
    """The whitening that an encoder file has, and its strength.

    Raises:
        MasslError: it is an earlier version's, or `strength` is given where nothing is whitened.
    """
    if found.strength and not found.whitening:
        raise MasslError(f"{source} embeds as an earlier version of massl did; give --whiten IMAGES to embed anew")
    if strength is not None:
        raise MasslError("--whiten-strength needs --whiten IMAGES; give both or neither")
    return found.whitening, found.strength if found.whitening else 0.0


def _fitted_whitening(
    found: weights.PretrainedBackbone, stages: bool, images: Images, resize: int, dim: int | None,
    strength: float | None, own: float, tell: Callable[[str], None],
) -> tuple[Whitening, float]:  # fmt: skip
    """A whitening fitted to images, and its strength; as `export` says of its arguments."""
    plain = Deployed(found, stages).eval()
    before = found.moments if stages and own < 1 else None
    kept = dim or components(len(images), before)
    fewer = f", to {kept:,} numbers each, a third as many; from {3 * WHITENED:,} images on to {WHITENED}"
    few = not dim and before is None and kept < WHITENED
    tell(f"whitening on {min(len(images), SAMPLE):,} images{fewer if few else ''}")
    strength = usual_strength(before, own) if strength is None else strength
    with torch.no_grad():
        whitening = fit_whitening(
            lambda pixels: plain(pixels)[0], images, found.image_size, resize, kept, strength, before, own
        )
    return whitening, strength


def _store(
    model: onnx.ModelProto, precision: str, convolutional: bool, inputs: Mapping[str, tuple[float, int]]
) -> None:
    """Stores the weights in less than float32 where that is asked for; `inputs` as of `_calibrated`."""
    if precision == "fp16":
        store_in_half(model)
    elif precision == "int8" and convolutional:
        store_in_bytes(model)
        store_in_half(model)
    elif precision == "int8":
        quantise(model, inputs)


def _named(facts: Mapping[str, object], name: str) -> dict[str, object]:
    """What is known of the training, under a name; the name that the encoder had is where it comes from."""
    had = facts.get("name", name)
    return {**facts, **({"source": had} if had != name else {}), "name": name}


def _mean_embedding(whitening: Whitening | None) -> dict[str, str]:
    if whitening is None or whitening.mean_embedding is None:
        return {}
    stored = whitening.mean_embedding.numpy().astype("<f2").tobytes()
    return {"mean_embedding": base64.b64encode(stored).decode("ascii")}


def _write(out: Path, data: bytes) -> None:
    """Writes the file, whole or not at all.

    Raises:
        MasslError: it can't be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as written:
            written.write_bytes(data)
    except OSError as error:
        raise cannot_write(out, error, "name another file to write") from error


def _images_to_calibrate(source: str, otherwise: Path | None) -> Images:
    """A run's own images, else those of a folder.

    Raises:
        MasslError: there are neither.
    """
    if is_run(Path(source)):
        with contextlib.suppress(MasslError):
            return find_source(Path(describe_run(Path(source))["root"]), run_shown_as(Path(source)))[0]
    if otherwise is None:
        raise MasslError("int8 needs images to calibrate on; give some with --calibrate IMAGES")
    return find_source(otherwise)[0]


def _calibrated(
    deployed: Deployed, images: Images, sizes: Sequence[int], resize: int, tell: Callable[[str], None]
) -> dict[str, tuple[float, int]]:
    """The scales of the inputs that can be in 8 bits, by the names of the layers' weights; see
    `massl.encoder.quantisation`.

    `deployed` is smoothed in place, and computes what it did.

    Raises:
        MasslError: none of the images can be read.
    """
    most = quantisation.SAMPLE // len(sizes)
    tell(f"calibrating on {min(len(images), most):,} images of {images.where}")
    shown = [batch for each in sizes for batch in sampled(images, most, each, round(resize * each / sizes[0]))]
    if not shown:
        raise MasslError(f"none of the images of {images.where} can be read; give others as --calibrate IMAGES")
    ranges = quantisation.smooth(deployed, quantisation.observe(deployed, shown))
    fit = quantisation.fit_for_eight_bits(deployed, ranges, shown[0][: quantisation.JUDGED])
    return {f"{name}.weight": range.scale for name, range in fit.items()}


def _sizes(found: weights.PretrainedBackbone, wanted: Sequence[int]) -> tuple[int, ...]:
    """The sides of pictures that the file is held to torch at, the usual one first.

    Raises:
        MasslError: a size of which the network makes no whole patches, or several of a network that takes one.
    """
    sizes = tuple(dict.fromkeys([found.image_size, *wanted, *found.image_sizes]))
    if len(sizes) > 1 and not takes_any_size(found.backbone):
        raise MasslError(f"{found.architecture} takes pictures of one size; give one --image-size")
    patch = found.backbone.patch_embed.patch_size[0] if takes_any_size(found.backbone) else 1
    for size in sizes:
        if size % patch:
            near = max(1, round(size / patch)) * patch
            raise MasslError(f"{size} is not a multiple of the patch size ({patch} pixels); use --image-size {near}")
    return sizes


def _to_onnx(deployed: Deployed, size: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph, and which of a transformer's weights are stored under the name of another; see `name_weights`."""
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    count = {0: torch.export.Dim("N", min=1)}
    given: tuple[torch.Tensor, ...] = (example,)
    shapes: dict[str, Any] = {"pixels": count}
    any_size = takes_any_size(deployed.backbone)
    if any_size:
        patch = deployed.backbone.patch_embed.patch_size[0]
        side = torch.export.Dim("side", min=2)
        given = (example, deployed.grid_of(size))
        shapes = {"pixels": {**count, 1: patch * side, 2: patch * side}, "positions": {2: side, 3: side}}
    # The exporter reports its steps on standard output, which carries data only.
    quiet = contextlib.redirect_stdout(io.StringIO())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with quiet, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed,
            given,
            dynamo=True,
            input_names=list(shapes),
            output_names=["embedding", "patches"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    remove_notes(model)
    if any_size:
        grid = deployed.grid_of(patch * deployed.backbone.patch_embed.grid_size[0])
        resize_positions_by(model, "positions", grid.detach().numpy(), patch, deployed.positions)
    shared = name_weights(model, deployed.state_dict())
    return model, {name: same for name, same in shared.items() if any_size or name.startswith("head.")}


def _check_embeds(deployed: Deployed, source: str | Path, size: int) -> None:
    """Raises `MasslError` where the weights give a grey picture no embedding of unit length."""
    with torch.no_grad():
        length = float(deployed(torch.full((1, size, size, 3), 128, dtype=torch.uint8))[0].norm())
    if not abs(length - 1) < 1e-2:  # also where it is not a number
        raise MasslError(
            f"the weights of {source} give no embedding: they are all zero, or so large that numbers overflow; take "
            "other weights"
        )


def _compare(deployed: Deployed, model: onnx.ModelProto, size: int, precision: str) -> float:
    """Holds the ONNX model to torch on three batch sizes; returns the largest difference seen."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in (1, 2, 5):
        # Smooth random pictures: white noise is unlike anything that an encoder was made for.
        coarse = torch.rand((count, 3, 8, 8), generator=generator)
        pixels = (255 * functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)).byte()
        pixels = pixels.permute(0, 2, 3, 1).contiguous()
        with torch.no_grad():
            wanted = [output.numpy() for output in deployed(pixels)]
        got = session.run(["embedding", "patches"], {"pixels": pixels.numpy()})
        if precision == "int8":
            cosine = float((wanted[0] * got[0]).sum(1).min())
            if cosine < INT8_COSINE:
                raise MasslError(
                    f"in 8 bits this encoder's embeddings change too much (cosine {cosine:.3f}, at least "
                    f"{INT8_COSINE} is required); export it as fp16 instead"
                )
            worst = max(worst, 1 - cosine)
            continue
        difference = max(float(np.abs(one - other).max()) for one, other in zip(wanted, got, strict=True))
        if not difference <= TOLERANCE[precision]:
            raise MasslError(f"the exported encoder differs from torch by {difference:.1e}, which should not happen")
        worst = max(worst, difference)
    return worst
