"""The few-shot classifier as one `.onnx` file: the encoder's graph, then the head. It classifies pictures anywhere.

Input `pixels`, uint8 `[N, S, S, 3]`, as the encoder's; outputs `probabilities`, float32 `[N, C]`, and `embedding`, as
the encoder's. The labels stand in the metadata, as JSON under `massl.labels`, in the order of the probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.encoder.onnx_encoder import Encoder
from indexer.fewshot.classification import Classifier
from indexer.fewshot.classifiers import FLOOR, TEMPERATURE, Linear, Neighbours
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import whole
from massl.core.files.onnx_digest import sealed
from massl.core.images.rendering import EACH_FILE, Rendering

MOST = 1 << 30  # bytes of examples: an ONNX file has at most twice as many in all
ALIKE = 1e-2  # of a number of an embedding
TOLERANCE = 1e-3  # of a probability: the encoder may compute in half precision


def write(fitted: Classifier, encoder: Encoder, path: Path, shown: Rendering = EACH_FILE) -> None:
    """Writes the file, whole or not at all, once ONNX Runtime agrees with the classifier.

    Args:
        fitted: see `indexer.fewshot.classification.train`.
        encoder: the collection's.
        path: the file to write.
        shown: how the collection's deep files are: whoever uses the file has to show pictures likewise.

    Raises:
        MasslError: it can't be written, or the file doesn't do what the classifier does.
    """
    import onnx

    if isinstance(fitted.head, Neighbours) and fitted.head.features.nbytes > MOST:
        raise MasslError(
            f"a file with the embeddings of all {len(fitted.head.features):,} labelled images would be too large; "
            "massl classify names the images here"
        )
    model = onnx.load_model_from_string(encoder.path.read_bytes())
    _fix_size(model, encoder.image_size)
    _append(model, fitted)
    _describe(model, fitted, encoder, shown)
    onnx.checker.check_model(model)
    data = sealed(model)
    _verify(data, fitted, encoder)
    try:
        with whole(path) as written:
            written.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error, "choose another place") from None


def _fix_size(model: Any, image_size: int) -> None:
    """Has the network take pictures of one size, that of the embeddings which the classifier learnt from."""
    _, *sides, _ = next(value for value in model.graph.input if value.name == "pixels").type.tensor_type.shape.dim
    symbols = {side.dim_param for side in sides if side.dim_param}
    for value in (*model.graph.input, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = image_size


def _append(model: Any, fitted: Classifier) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph, classes = model.graph, len(fitted.classes)

    def own(name: str) -> str:
        return f"massl/head/{name}"  # as no exporter calls anything, so that no name is taken

    def constant(name: str, value: Any, kind: type = np.float32) -> str:
        name = own(f"constants/{name}")
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    match fitted.head:
        case Linear(weights, bias):
            product = node("MatMul", ["embedding", constant("weights", weights)], own("product"))
            logits = node("Add", [product, constant("bias", bias)], own("logits"))
        case Neighbours(features, targets, _, count):
            cosines = node("MatMul", ["embedding", constant("examples", features.T)], own("cosines"))
            near, nearest = own("near"), own("nearest")
            voting = min(count, len(features))
            most = constant("count", [voting], np.int64)
            graph.node.append(helper.make_node("TopK", [cosines, most], [near, nearest]))
            warmed = node("Div", [near, constant("warmth", TEMPERATURE)], own("warmed"))
            votes = node("Softmax", [warmed], own("votes"), axis=1)
            theirs = node("Gather", [constant("targets", targets, np.int64), nearest], own("theirs"))
            kinds = [constant("classes", classes, np.int64), constant("none_and_one", [0, 1])]
            voters = node("OneHot", [theirs, *kinds], own("voters"))
            row = node("Reshape", [votes, constant("row", [-1, 1, voting], np.int64)], own("row"))
            counted = node("MatMul", [row, voters], own("counted"))  # [N, 1, k] by [N, k, C]
            shares = node("Reshape", [counted, constant("flat", [-1, classes], np.int64)], own("of_classes"))
            scaled = node("Mul", [shares, constant("counting", 1 - FLOOR)], own("scaled"))
            spread = node("Add", [scaled, constant("floor", FLOOR / classes)], own("spread"))
            logits = node("Log", [spread], own("logits"))
        case other:
            raise AssertionError(f"no head is a {type(other).__name__}")
    cooled = node("Div", [logits, constant("temperature", fitted.choice.temperature)], own("cooled"))
    shares = node("Softmax", [cooled], own("shares"), axis=1)
    kept = node("Mul", [shares, constant("keep", 1 - fitted.doubt)], own("kept"))
    node("Add", [kept, constant("rest", fitted.doubt / classes)], "probabilities")
    embedding = next(output for output in graph.output if output.name == "embedding")
    batch = embedding.type.tensor_type.shape.dim[0].dim_param or "N"
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, classes]), embedding]
    del graph.output[:]
    graph.output.extend(outputs)


def _describe(model: Any, fitted: Classifier, encoder: Encoder, shown: Rendering) -> None:
    from onnx import helper

    facts = dict(encoder.metadata) | {
        "kind": "classifier",
        "labels": json.dumps(list(fitted.classes)),
        "encoder_sha256": encoder.sha256,
        "image_size": str(encoder.image_size),
        "image_sizes": str(encoder.image_size),
        "resize": str(encoder.resize),
        "head": fitted.choice.candidate.method,
    }
    if shown.key:
        ranges = dict(shown.limits) | ({"": shown.fixed} if shown.fixed else {})
        facts["ranges"] = json.dumps({kind: list(limits) for kind, limits in sorted(ranges.items())})
        facts |= {"channels": json.dumps(list(shown.channels)), "plane": shown.plane} if shown.picks else {}
    if fitted.choice.accuracy is not None and fitted.choice.interval is not None:
        low, high = fitted.choice.interval
        facts["estimated_accuracy"] = json.dumps(
            {"accuracy": round(fitted.choice.accuracy, 4), "low": round(low, 4), "high": round(high, 4)}
        )
    helper.set_model_props(model, {f"massl.{key}": value for key, value in facts.items()})


def _verify(data: bytes, fitted: Classifier, encoder: Encoder) -> None:
    """Runs both on the same pictures, which need not be of anything."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    side = encoder.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    told, vectors = session.run(["probabilities", "embedding"], {"pixels": pixels})
    # Of its own embeddings: those of a GPU differ by so much that another neighbour may be the last to vote.
    wanted = fitted.probabilities(vectors)
    same = np.allclose(vectors, encoder.embed(pixels), atol=ALIKE)
    if not same or not np.allclose(told, wanted, atol=TOLERANCE):
        most = float(np.abs(told - wanted).max())
        raise MasslError(f"the classifier's file differs from the classifier by {most:.3g}; it was not written")
