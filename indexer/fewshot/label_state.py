"""What is learned from a collection's labels: classes for the rest, labels to doubt, and which images to label next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.onnx_encoder import Encoder
from indexer.fewshot import label_errors, onnx_export
from indexer.fewshot.classification import Classification, Classifier, classify, examples, train
from indexer.fewshot.clusters import GROUPS, Group, find_groups
from indexer.fewshot.label_errors import Suspect
from indexer.fewshot.learning_curve import LearningCurve, learning_curve
from indexer.fewshot.model_selection import choose
from indexer.fewshot.sampling import most_different
from indexer.store import labels, revision
from indexer.store.catalog import Catalog
from indexer.store.confirmations import Confirmations
from indexer.store.labels import Labels
from indexer.store.rejections import Rejections
from indexer.store.revision import Revision
from indexer.store.vectors import CatalogVectors, unit


class CollectionFewshot:
    """What a collection's labels teach. Threads may share it: each of what it keeps is swapped whole.

    All that learns from labels raises `MasslError` while they are of fewer than two classes.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._vectors: tuple[object, NDArray[np.int64], NDArray[np.float32]] | None = None
        self._classified: tuple[object, Classification] | None = None

    def vectors(self, now: Revision | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64 `[N]` and unit vectors float32 `[N, D]` of all searchable images; kept until one changes.

        Args:
            now: the collection's revision, if that was asked for just before.
        """
        embedded, kept = (now or revision.read(self._catalog)).embedded, self._vectors
        if kept is not None and kept[0] == embedded:
            return kept[1:]
        self._vectors = kept = None  # before more of them are read: never twice in memory
        blocks = list(CatalogVectors(self._catalog).blocks())
        ids = np.concatenate([np.empty(0, np.int64), *(own for own, _ in blocks)])
        dim = self._catalog.meta().dim
        vectors = np.empty((len(ids), dim), np.float32)
        start = 0
        for _, packed in blocks:
            vectors[start : start + len(packed)] = unit(packed)
            start += len(packed)
        self._vectors = embedded, ids, vectors
        return ids, vectors

    def classify(self) -> Classification:
        """Every searchable image's class; kept until a label, a rejection or a vector changes."""
        now = revision.read(self._catalog)
        kept = self._classified
        if kept is None or kept[0] != now.classified:
            given, rejected = Labels(self._catalog).by_image(), Rejections(self._catalog).by_image()
            accepted, drawn = (Labels(self._catalog).by_author(author) for author in (labels.ACCEPTED, labels.DRAWN))
            kept = now.classified, classify(*self.vectors(now), given, rejected, accepted, drawn)
            self._classified = kept
        return kept[1]

    def predictions(self, sure: float) -> list[tuple[int, str, float]]:
        """Id, class and probability of the images without a label that are `Classification.sure`."""
        result = self.classify()
        return [
            (int(result.images[row]), result.classes[result.predicted[row]], float(result.probability[row]))
            for row in np.flatnonzero(result.sure(sure) & ~result.labelled)
        ]

    def classifier(self) -> Classifier:
        """What names the images that nobody has labelled."""
        ids, vectors, targets, classes = self._examples()
        given = {int(identity): classes[target] for identity, target in zip(ids, targets, strict=True)}
        accepted, drawn = (Labels(self._catalog).by_author(author) for author in (labels.ACCEPTED, labels.DRAWN))
        return train(ids, vectors, given, accepted=accepted, drawn=drawn)

    def export(self, path: Path | str, encoder: Encoder) -> Classifier:
        """Writes the classifier that `classify` asks as an `.onnx` file that takes pictures; see
        `indexer.fewshot.onnx_export`.

        Args:
            path: the file.
            encoder: the collection's.

        Raises:
            MasslError: labels of fewer than two classes, or the file can't be written.
        """
        fitted = self.classifier()
        onnx_export.write(fitted, encoder, Path(path), self._catalog.rendering)
        return fitted

    def learning_curve(self, report: Callable[[int, int], None] = lambda done, total: None) -> LearningCurve:
        """How the accuracy grew with the labels that somebody gave, not merely agreed to."""
        ids, vectors, targets, classes = self._examples()
        given = ~np.isin(ids, list(Labels(self._catalog).by_author(labels.ACCEPTED)))
        return learning_curve(vectors[given], targets[given], len(classes), report)

    def suspects(self) -> list[Suspect]:
        """Labels that are probably wrong, the most suspect first, without those that somebody confirmed."""
        ids, vectors, targets, classes = self._examples()
        kept = Confirmations(self._catalog).every()
        found = label_errors.suspects(ids, vectors, targets, classes, choose(vectors, targets))
        return [suspect for suspect in found if (suspect.image, suspect.given) not in kept]

    def likeliest(self, label: str, now: Revision | None = None) -> NDArray[np.int64]:
        """Unlabelled images, the likeliest of a class first, whichever class is proposed for them.

        Without those of which somebody said that they are not of the class. This finds a rare class where its own
        proposals are wrong, or few. `now` is as of `vectors`.
        """
        result = self.classify()
        if label not in result.fitted.classes:
            return np.empty(0, np.int64)
        ids, vectors = self.vectors(now)
        shares = result.fitted.probabilities(vectors)[:, result.fitted.classes.index(label)]
        refused = [image for image, names in Rejections(self._catalog).by_image().items() if label in names]
        order = ids[np.argsort(-shares, kind="stable")]
        return order[~self._labelled(order) & ~np.isin(order, np.array(refused, np.int64))]

    def different(self, count: int, now: Revision | None = None) -> list[int]:
        """Unlabelled images that are unlike the labelled ones and each other; `now` is as of `vectors`."""
        ids, vectors = self.vectors(now)
        return [int(identity) for identity in ids[most_different(vectors, self._labelled(ids), count)]]

    def random_sample(self, count: int) -> list[int]:
        """Unlabelled images that chance has drawn, others at each call."""
        ids, _ = self.vectors()
        return [int(identity) for identity in np.random.default_rng().permutation(ids[~self._labelled(ids)])[:count]]

    def groups(self, count: int = GROUPS) -> list[Group]:
        """Groups of like images that nobody has labelled, the closest first."""
        ids, vectors = self.vectors()
        free = ~self._labelled(ids)
        return find_groups(ids[free], vectors[free], count)

    def _labelled(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(ids, np.array(list(Labels(self._catalog).by_image()), np.int64))

    def _examples(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], tuple[str, ...]]:
        """Ids `[n]`, vectors `[n, D]` and targets `[n]` of the labelled images, and the classes."""
        given = Labels(self._catalog).by_image()
        ids, packed = CatalogVectors(self._catalog).of(np.array(sorted(given), np.int64))
        rows, targets, classes = examples(ids, given)
        return ids[rows], unit(packed)[rows], targets, classes
