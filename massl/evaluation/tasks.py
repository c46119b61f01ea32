"""One protocol by its name, on labelled embeddings, to plain figures: what `massl eval` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.progress import CountReport
from massl.core.similarities import Floats, Targets
from massl.evaluation.accuracy import mean_per_class
from massl.evaluation.clustering import cluster
from massl.evaluation.copies import Copies
from massl.evaluation.fewshot import few_shot, low_shot
from massl.evaluation.knn import knn_predict
from massl.evaluation.linear import STEPS, linear_probe, logistic_probe
from massl.evaluation.retrieval import retrieval
from massl.evaluation.revisited import AT, GroundTruth, revisited
from massl.evaluation.splits import stratified

SHOTS = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class ProtocolOptions:
    """What a caller may change of the protocols; the defaults are the field's."""

    ks: tuple[int, ...] = (10, 20)
    temperature: float = 0.07
    shots: tuple[int, ...] | None = None  # None: those of SHOTS that the smallest class allows
    draws: int = 100
    shares: tuple[float, ...] = (0.01, 0.1)
    low_shot_draws: int = 10
    logistic: bool = False  # linear probing by logistic regression, not by SGD
    steps: int = STEPS
    seed: int = 0


@dataclass(frozen=True)
class Labelled:
    """Labelled embeddings.

    Attributes:
        vectors: float `[N, D]`, rows of unit length.
        labels: int `[N]`, an index into `classes`.
        classes: the classes' names.
        train: bool `[N]`, the training images where the data says so; the others are the test images.
    """

    vectors: Floats
    labels: Targets
    classes: Sequence[str]
    train: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class TaskResult:
    """Figures, and what was predicted for which images.

    Attributes:
        metrics: shares between 0 and 1 and their like, by name.
        protocol: how they came about, in a line.
        rows: int `[M]`, the images that were tested; empty where the task names no class.
        predicted: int `[M]`, the class that each was taken for.
    """

    metrics: dict[str, Any]
    protocol: str
    rows: NDArray[np.int64]
    predicted: Targets


def measure(
    task: str, data: Labelled, choices: ProtocolOptions, report: CountReport = lambda done, total: None
) -> TaskResult:
    """Runs the protocol `task`, one of `TASKS`.

    Raises:
        MasslError: fewer than two classes, or too few images in one of them; the message says which.
    """
    if len(data.classes) < 2:
        raise MasslError("evaluation needs images of at least two classes")
    if data.train is not None:
        missing = np.setdiff1d(data.labels[~data.train], data.labels[data.train])
        if len(missing):
            raise MasslError(f"class {data.classes[missing[0]]!r} has test images but no training image")
        if data.train.all():
            raise MasslError("there are training images but no test image")
    return _PROTOCOLS[task](data, choices, report)


def _knn(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    ks = sorted(set(choices.ks))
    if data.train is None:
        rows = np.arange(len(data.labels))
        train, how = np.ones(len(data.labels), bool), "leave-one-out"
    else:
        rows = np.flatnonzero(~data.train)
        train, how = data.train, _halves(data.train)
    predicted = knn_predict(
        data.vectors[train], data.labels[train], data.vectors[rows], ks, choices.temperature, data.train is None
    )
    truth = data.labels[rows]
    metrics: dict[str, Any] = {
        "top1": float((predicted[-1] == truth).mean()),
        "mean_per_class": mean_per_class(truth, predicted[-1]),
        "k": ks[-1],
        "temperature": choices.temperature,
    }
    if len(ks) > 1:
        metrics["top1_by_k"] = {str(k): float((at == truth).mean()) for k, at in zip(ks, predicted, strict=True)}
    return TaskResult(metrics, f"weighted {ks[-1]}-nearest-neighbour, {how}", rows, predicted[-1])


def _linear(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    train, how = _split(data, choices)
    rows = np.flatnonzero(~train)
    parts = data.vectors[train], data.labels[train], data.vectors[rows]
    if choices.logistic:
        probe = logistic_probe(*parts, seed=choices.seed, report=report)
        name, protocol = "strength", "logistic regression, its penalty chosen on a tenth of the training images"
    else:
        probe = linear_probe(*parts, steps=choices.steps, seed=choices.seed, report=report)
        name, protocol = "learning_rate", "SGD, its learning rate chosen on a tenth of the training images"
    truth = data.labels[rows]
    metrics = {
        "top1": float((probe.predicted == truth).mean()),
        "mean_per_class": mean_per_class(truth, probe.predicted),
        "protocol": "logistic" if choices.logistic else "sgd",
        name: probe.chosen,
        "held_out": {f"{setting:.6g}": share for setting, share in probe.held_out.items()},
    }
    return TaskResult(metrics, f"{protocol}; {how}", rows, probe.predicted)


def _fewshot(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    pool = np.ones(len(data.labels), bool) if data.train is None else data.train
    smallest = _smallest(data, pool) - (data.train is None)
    shots = choices.shots or tuple(count for count in SHOTS if count <= smallest)
    if not shots:
        raise _too_few(data, pool, 2, "one to learn from and one to test on")
    known, labels = np.unique(data.labels[pool], return_inverse=True)
    test = None if data.train is None else data.vectors[~pool]
    test_labels = None if data.train is None else np.searchsorted(known, data.labels[~pool])
    found = few_shot(data.vectors[pool], labels, test, test_labels, shots, choices.draws, choices.seed, report)
    metrics = {
        "shots": {str(count): {"mean": draws.mean, "ci95": draws.ci95} for count, draws in found.items()},
        "draws": choices.draws,
        "left_out_shots": [] if choices.shots else [count for count in SHOTS if count not in shots],
    }
    how = "tested on what was not drawn" if data.train is None else _halves(data.train)
    return TaskResult(metrics, f"nearest class mean, {choices.draws} draws; {how}", *_nothing())


def _low_shot(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    train, how = _split(data, choices)
    found = low_shot(
        data.vectors[train], data.labels[train], data.vectors[~train], data.labels[~train],
        choices.shares, choices.low_shot_draws, choices.seed, report,
    )  # fmt: skip
    metrics = {
        "shares": {
            f"{share:g}": {"mean": draws.mean, "ci95": draws.ci95, "images": draws.labelled}
            for share, draws in found.items()
        },
        "draws": choices.low_shot_draws,
    }
    return TaskResult(metrics, f"logistic regression, {choices.low_shot_draws} draws; {how}", *_nothing())


def _retrieval(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    if data.train is None:
        rows = np.arange(len(data.labels))
        found = retrieval(data.vectors, data.labels, data.vectors, data.labels, leave_one_out=True)
        how = "leave-one-out: every image is a query to all the others"
    else:
        rows, gallery = np.flatnonzero(~data.train), data.train
        found = retrieval(data.vectors[rows], data.labels[rows], data.vectors[gallery], data.labels[gallery])
        how = f"test images are queries to the training images; {_halves(data.train)}"
    if not found.queries:
        raise MasslError("no class has two images; retrieval needs at least two images of a class")
    metrics = {
        "map": found.map,
        **{f"precision_at_{k}": share for k, share in found.precision_at.items()},
        "queries": found.queries,
        "queries_without_match": len(rows) - found.queries,
    }
    return TaskResult(metrics, how, *_nothing())


def _clustering(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    rows = np.arange(len(data.labels)) if data.train is None else np.flatnonzero(~data.train)
    occurring, labels = np.unique(data.labels[rows], return_inverse=True)
    found = cluster(data.vectors[rows], labels, choices.seed)
    metrics = {"nmi": found.nmi, "ari": found.ari, "accuracy": found.accuracy, "clusters": len(occurring)}
    which = "all images" if data.train is None else "the test images"
    return TaskResult(metrics, f"k-means, {len(occurring)} clusters of {which}", rows, occurring[found.predicted])


def _transfer(data: Labelled, choices: ProtocolOptions, report: CountReport) -> TaskResult:
    """The figures that tables of transfer show, one of each kind."""
    knn = _knn(data, choices, report)
    linear = _linear(data, choices, report)
    most = _smallest(data, data.train) - (data.train is None)  # without a split one has to be left to ask
    shown = [count for count in choices.shots or (1, 5) if count <= most]
    few = _fewshot(data, replace(choices, shots=tuple(shown)), report) if shown else None
    found = _retrieval(data, choices, report)
    metrics: dict[str, Any] = {
        "knn_top1": knn.metrics["top1"],
        "linear_top1": linear.metrics["top1"],
        "retrieval_map": found.metrics["map"],
        "retrieval_precision_at_1": found.metrics["precision_at_1"],
        "shots": few.metrics["shots"] if few else {},
        "k": knn.metrics["k"],
        "linear_protocol": linear.metrics["protocol"],
    }
    protocol = f"k-NN: {knn.protocol}; linear: {linear.protocol}"
    return TaskResult(metrics, protocol, knn.rows, knn.predicted)


def measure_revisited(queries: Floats, images: Floats, truth: GroundTruth) -> TaskResult:
    """Revisited Oxford or Paris; `map` and the like at the top are those of the medium set-up."""
    found = revisited(queries, images, truth)
    by_setup: dict[str, dict[str, Any]] = {
        name: {
            "map": setup.map,
            **{f"precision_at_{k}": setup.precision_at[k] for k in AT},
            "queries": setup.queries,
        }
        for name, setup in found.items()
    }
    metrics = {**by_setup["medium"], "setups": by_setup}
    return TaskResult(metrics, "Revisited Oxford and Paris, one scale, queries cropped to their box", *_nothing())


def describe_copies(found: Copies) -> dict[str, Any]:
    """The figures of copy detection by name."""
    figures = {"micro_ap": found.micro_ap, "recall_at_precision_90": found.recall_at_p90}
    return figures if found.recall_at_1 is None else {**figures, "recall_at_1": found.recall_at_1}


def _split(data: Labelled, choices: ProtocolOptions) -> tuple[NDArray[np.bool_], str]:
    """The training images, and how they came to be those."""
    if data.train is not None:
        return data.train, _halves(data.train)
    if _smallest(data, None) < 2:
        raise _too_few(data, np.ones(len(data.labels), bool), 2, "one to learn from and one to test on")
    train = stratified(data.labels, 0.5, choices.seed)
    return train, f"half of each class to train, drawn by seed {choices.seed}: {_halves(train)}"


def _halves(train: NDArray[np.bool_]) -> str:
    return f"{int(train.sum()):,} training and {int((~train).sum()):,} test images"


def _smallest(data: Labelled, rows: NDArray[np.bool_] | None) -> int:
    counts = np.bincount(data.labels if rows is None else data.labels[rows])
    return int(counts[counts > 0].min())


def _too_few(data: Labelled, rows: NDArray[np.bool_], needed: int, why: str) -> MasslError:
    counts = np.bincount(data.labels[rows], minlength=len(data.classes))
    small = [name for name, count in zip(data.classes, counts, strict=True) if 0 < count < needed]
    others = f" and {len(small) - 1} more classes have" if len(small) > 1 else " has"
    return MasslError(
        f"class {small[0]!r}{others} fewer than {needed} images ({why}); leave such classes out with "
        f"--min-images {needed}"
    )


def _nothing() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.empty(0, np.int64), np.empty(0, np.int64)


_PROTOCOLS: dict[str, Callable[[Labelled, ProtocolOptions, CountReport], TaskResult]] = {
    "knn": _knn, "linear": _linear, "fewshot": _fewshot, "low-shot": _low_shot, "retrieval": _retrieval,
    "clustering": _clustering, "transfer": _transfer,
}  # fmt: skip
TASKS = tuple(_PROTOCOLS)
