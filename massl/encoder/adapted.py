"""An encoder file with a linear layer after it: what is exported of a run that adapted it.

All else in the file stays as it was, whatever precision its weights are stored in, and so takes the same time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import whole
from massl.core.files.onnx_digest import is_whole, sealed
from massl.core.files.run_folder import describe_run
from massl.encoder.whitening import Whitening

START = "start.onnx"  # in a run's folder: the encoder that it adapts
OUTPUTS = ("embedding", "patches")
TOLERANCE = 1e-4  # of a value of a unit vector


def keep_start(source: Path, run: Path) -> str:
    """Copies the encoder file that a run begins with into its folder; returns the copy's SHA-256.

    Raises:
        MasslError: it can't be written.
    """
    try:
        with whole(run / START) as written:
            shutil.copyfile(source, written)
            return hashlib.sha256(written.read_bytes()).hexdigest()
    except OSError as error:
        raise cannot_write(run / START, error, "choose another --out") from None


def find_start(run: Path) -> Path | None:
    """The encoder file that a run adapts; None where it adapts none, but weights of another kind, or all of a network.

    Raises:
        MasslError: the file is missing, or not what it was when the run began.
    """
    path = run / START
    wanted = str(describe_run(run).get("start", "")) if (run / "config.toml").exists() else ""
    back = f"copy the encoder that the run began with there{f' (SHA-256 {wanted[:12]}…)' if wanted else ''}"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):  # also of a source that is a file, or no path
        if not wanted:
            return None
        raise MasslError(f"{path}, the encoder that the run adapts, is missing; {back}, or start a new run") from None
    except OSError as error:
        raise MasslError(f"{path} can't be read: {error.strerror or error}") from None
    # Runs of earlier versions noted no digest; most encoder files carry one.
    if not is_whole(data) or (wanted and hashlib.sha256(data).hexdigest() != wanted):
        raise MasslError(
            f"{path}, the encoder that the run adapts, is damaged or another file than it was; {back}, or start a new "
            "run"
        )
    return path


def with_map(start: Path, change: Whitening | None, facts: Mapping[str, object]) -> tuple[bytes, float]:
    """The file of an encoder whose embeddings and patch tokens are mapped as `change` says, and how exactly.

    Args:
        start: an encoder file that maps nothing yet.
        change: None leaves them as they are.
        facts: of its metadata, each named `massl.*` in the file; those that it had stay.

    Raises:
        MasslError: the mapped file doesn't compute what it should.
    """
    model = onnx.load_model(start)
    told = {entry.key: entry.value for entry in model.metadata_props}
    difference = 0.0
    if change:
        _append(model.graph, change)
        difference = _check(start, model, change)
    told.pop("massl.evaluation", None)  # of another encoder
    told |= {f"massl.{name}": str(value) for name, value in facts.items()}
    helper.set_model_props(model, told)
    return sealed(model), difference


def _append(graph: onnx.GraphProto, change: Whitening) -> None:
    kept = {
        "centre": change.centre.numpy(),
        "matrix": change.matrix.numpy(),
        "map.least": np.float32(1e-12),
        "map.axis": np.array([-1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(values), name) for name, values in kept.items())
    for output in OUTPUTS:
        before = f"{output}.before"
        for node in graph.node:
            node.output[:] = [before if name == output else name for name in node.output]
            node.input[:] = [before if name == output else name for name in node.input]
        steps = (
            ("Sub", [before, "centre"], "seen"),
            ("MatMul", [f"{output}.seen", "matrix"], "mapped"),
            ("ReduceL2", [f"{output}.mapped", "map.axis"], "length"),
            ("Max", [f"{output}.length", "map.least"], "divisor"),
        )
        graph.node.extend(helper.make_node(kind, given, [f"{output}.{made}"]) for kind, given, made in steps)
        graph.node.append(helper.make_node("Div", [f"{output}.mapped", f"{output}.divisor"], [output]))


def _check(start: Path, model: onnx.ModelProto, change: Whitening) -> float:
    """The largest difference of a value from the start's output, mapped."""
    draw = np.random.default_rng(0)
    size = int(next(entry.value for entry in model.metadata_props if entry.key == "massl.image_size"))
    pixels = np.repeat(np.repeat(draw.integers(0, 256, (2, 7, 7, 3), np.uint8), -(-size // 7), 1), -(-size // 7), 2)
    pixels = np.ascontiguousarray(pixels[:, :size, :size])
    worst = 0.0
    plain, mapped = (_run(data, pixels) for data in (start.read_bytes(), model.SerializeToString()))
    for one, other in zip(plain, mapped, strict=True):
        wanted = (one - change.centre.numpy()) @ change.matrix.numpy()
        wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
        difference = float(np.abs(wanted - other).max())
        if not difference <= TOLERANCE:
            raise MasslError(f"the adapted encoder differs from what was learnt by {difference:.1e}; keep the start")
        worst = max(worst, difference)
    return worst


def _run(data: bytes, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(list(OUTPUTS), {"pixels": pixels}))
