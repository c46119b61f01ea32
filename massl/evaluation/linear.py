"""Linear probing: how far one linear layer gets on frozen embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.progress import CountReport
from massl.core.similarities import Floats, Targets
from massl.evaluation.splits import stratified

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
STRENGTHS = tuple(10.0 ** np.linspace(-6, 5, 45))
STEPS = 12_500
BATCH = 128
MOMENTUM = 0.9
SMALL = 50_000_000  # multiplications of a product below which one thread does it
HELD_OUT = 0.1  # of the training images, to choose by


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier's answers.

    Attributes:
        predicted: int `[M]`.
        chosen: the learning rate or the strength that did best on the held-out part.
        held_out: accuracy there by learning rate or strength.
    """

    predicted: NDArray[np.int64]
    chosen: float
    held_out: dict[float, float]


def linear_probe(
    train: Floats,
    labels: Targets,
    test: Floats,
    steps: int = STEPS,
    seed: int = 0,
    rates: Sequence[float] = RATES,
    report: CountReport = lambda done, total: None,
) -> LinearProbe:
    """A linear layer trained by SGD at thirteen learning rates, as DINOv2's linear evaluation.

    Oquab et al., "DINOv2", 2023, appendix B.3, and the published script: SGD with momentum 0.9 and no weight decay,
    12,500 steps of 128 images, cosine decay to 0, learning rates from 1e-5 to 0.1 times batch / 256, weights from a
    normal distribution of deviation 0.01. What differs: the rate is chosen on a stratified tenth of the training
    images, not on the test images, and the layer trained again on all; there is one embedding, not four
    concatenations of tokens; images are not augmented; and the embeddings, of unit length in our encoder files, are
    brought to the length sqrt(D) of a layer-normalised token, which those learning rates are made for.

    Args:
        train: `[N, D]`, rows of unit length.
        labels: int `[N]`, from 0.
        test: `[M, D]`, rows of unit length.
        steps: of each layer.
        seed: of the held-out part, the first weights and the order of images.
        rates: learning rates before the factor batch / 256.
        report: called with steps done and steps in all.

    Raises:
        MasslError: no class has two training images.
    """
    inside = _inside(labels, seed)
    scale = np.sqrt(train.shape[1])
    train, test = scale * train, scale * test
    classes = int(labels.max()) + 1

    def judge(sweep: Sequence[float], rows: NDArray[np.bool_], on: Floats, before: int) -> NDArray[np.int64]:
        def told(done: int) -> None:
            report(before + done, 2 * steps)

        weights, biases = train_layers(train[rows], labels[rows], classes, sweep, steps, seed, report=told)
        return np.stack([(on @ w + b).argmax(1) for w, b in zip(weights, biases, strict=True)])

    answers = judge(rates, inside, train[~inside], 0)
    accuracies = (answers == labels[~inside]).mean(1)
    chosen = rates[int(accuracies.argmax())]
    predicted = judge((chosen,), np.ones(len(labels), bool), test, steps)[0]
    return LinearProbe(predicted, chosen, dict(zip(rates, accuracies.tolist(), strict=True)))


def train_layers(
    vectors: Floats,
    labels: Targets,
    classes: int,
    rates: Sequence[float],
    steps: int,
    seed: int,
    batch: int = BATCH,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Floats, Floats]:
    """Trains a linear layer for each learning rate, all on the same batches: see `linear_probe`.

    Returns:
        Weights `[R, D, C]` and biases `[R, C]`, in the precision of `vectors`.
    """
    from threadpoolctl import threadpool_limits

    generator = np.random.default_rng(seed)
    count, width = vectors.shape
    kind = vectors.dtype
    # The layers side by side in one matrix, so that a step is two products, whatever the number of rates.
    first = generator.normal(scale=0.01, size=(width, classes))
    weights = np.tile(first, (1, len(rates))).astype(kind)
    biases = np.zeros(len(rates) * classes, kind)
    moving, moving_bias = np.zeros_like(weights), np.zeros_like(biases)
    highest = np.repeat(np.asarray(rates), classes) * batch / 256
    order = np.empty(0, np.int64)
    # Threads cost more than they bring on so small a product, and very much more on a machine that is busy.
    small = batch * width * len(biases) < SMALL
    with threadpool_limits(1 if small else None, "blas"):
        for step in range(steps):
            while len(order) < batch:
                order = np.concatenate([order, generator.permutation(count)])
            rows, order = order[:batch], order[batch:]
            x = vectors[rows]
            logits = (x @ weights + biases).reshape(batch, len(rates), classes)
            logits -= logits.max(2, keepdims=True)
            np.exp(logits, out=logits)
            logits /= logits.sum(2, keepdims=True)
            logits[np.arange(batch), :, labels[rows]] -= 1  # from here on the gradient of the cross-entropy
            gradient = logits.reshape(batch, -1) / batch
            rate = (highest * (1 + np.cos(np.pi * step / steps)) / 2).astype(kind)
            moving *= MOMENTUM
            moving += x.T @ gradient
            moving_bias *= MOMENTUM
            moving_bias += gradient.sum(0)
            weights -= rate * moving
            biases -= rate * moving_bias
            if (step + 1) % 100 == 0 or step + 1 == steps:
                report(step + 1)
    return weights.reshape(width, len(rates), classes).transpose(1, 0, 2), biases.reshape(len(rates), classes)


def logistic_probe(
    train: Floats,
    labels: Targets,
    test: Floats,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
    report: CountReport = lambda done, total: None,
) -> LinearProbe:
    """Logistic regression, its L2 penalty chosen on a held-out tenth, as DINOv2's evaluation by logistic regression.

    Oquab et al., "DINOv2", 2023, the published `log_regression.py`: 45 strengths from 1e-6 to 1e5, a tenth of the
    training images to choose by, then a fit on all of them. What differs: the tenth is stratified, and embeddings
    have the length sqrt(D), as in `linear_probe`.

    Raises:
        MasslError: no class has two training images.
    """
    inside = _inside(labels, seed)
    scale = np.sqrt(train.shape[1])
    train, test = scale * train.astype(np.float64), scale * test.astype(np.float64)
    accuracies = {}
    model = _regression()
    for done, strength in enumerate(strengths, 1):
        # Each fit begins where the one before ended: the solutions lie on a path.
        _fit(model.set_params(C=strength), train[inside], labels[inside])
        accuracies[float(strength)] = float(model.score(train[~inside], labels[~inside]))
        report(done, len(strengths) + 1)
    chosen = max(accuracies, key=lambda strength: accuracies[strength])
    final = _fit(_regression().set_params(C=chosen), train, labels)
    report(len(strengths) + 1, len(strengths) + 1)
    return LinearProbe(final.predict(test).astype(np.int64), chosen, accuracies)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000, warm_start=True)


def _fit(model: Any, vectors: Floats, labels: Targets) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties stop at the limit, as DINOv2's do
        return model.fit(vectors, labels)


def _inside(labels: Targets, seed: int) -> NDArray[np.bool_]:
    inside = stratified(labels, 1 - HELD_OUT, seed)
    if inside.all():
        raise MasslError("linear probing needs a class with at least two training images, to choose its settings by")
    return inside
