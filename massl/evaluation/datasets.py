"""Labelled images, read from a folder, a CSV file or a table of embeddings, and embedded: what evaluation works on."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_columns, read_csv
from massl.core.files.path_notation import as_on_disk
from massl.core.files.scan import Contents, ImageFile, Skipped, check_folder, walk
from massl.core.images import plane_files
from massl.core.images.rendering_facts import BY_EACH_FILE, ShownAs
from massl.core.progress import CountReport
from massl.core.regular_files import read_regular

EmbedPaths = Callable[[Path, Sequence[str], CountReport], tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]]
"""Embeds image files below a folder: float32 `[n, D]`, which of the paths the rows are, and the unreadable ones."""

TRAIN = frozenset({"train", "training"})
TEST = frozenset({"test", "val", "valid", "validation", "testing"})
SAME = {"1": True, "true": True, "yes": True, "same": True, "0": False, "false": False, "no": False, "different": False}


@dataclass(frozen=True)
class LabelledFiles:
    """Image files and their labels.

    Attributes:
        name: of the set, to show.
        root: the folder that `paths` are relative to.
        paths: one an image.
        labels: the class of each.
        train: whether each is a training image, where the data says so.
        skipped: files that were passed over.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    train: tuple[bool, ...] | None = None
    skipped: tuple[Skipped, ...] = ()

    def without_small(self, least: int) -> LabelledFiles:
        """Without the classes of fewer than `least` images.

        Raises:
            MasslError: fewer than two classes are left.
        """
        counts = Counter(self.labels)
        kept = [row for row, label in enumerate(self.labels) if counts[label] >= least]
        if len({self.labels[row] for row in kept}) < 2:
            raise MasslError(f"{self.name} has fewer than two classes of {least} images or more")
        train = None if self.train is None else tuple(self.train[row] for row in kept)
        paths, labels = (tuple(values[row] for row in kept) for values in (self.paths, self.labels))
        return replace(self, paths=paths, labels=labels, train=train)


@dataclass(frozen=True)
class Embedded:
    """Labelled embeddings.

    Attributes:
        vectors: float32 `[N, D]`, rows of unit length.
        labels: int64 `[N]`, an index into `classes`.
        classes: the classes' names, sorted.
        paths: one an image; empty where a table has none.
        skipped: files that were passed over.
        train: bool `[N]`, the training images, where the data says so.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    train: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Table:
    """Embeddings made elsewhere: an `.npz` file with `embeddings`, and `labels`, `paths`, `split` where it has them.

    Attributes:
        name: the file's name without suffix.
        sha256: of the file.
        vectors: float32 `[N, D]`, brought to unit length.
        labels: the class of each, or None.
        paths: one an image, or None.
        train: whether each is a training image, or None.
    """

    name: str
    sha256: str
    vectors: NDArray[np.float32]
    labels: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    train: tuple[bool, ...] | None

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return self.vectors.shape[1]

    def labelled(self, least: int = 1) -> Embedded:
        """With its own labels, without classes of fewer than `least` images.

        Raises:
            MasslError: it has no labels, or those of fewer than two classes.
        """
        if self.labels is None:
            raise MasslError(f"{self.name} has no labels: an array `labels` must stand beside `embeddings`")
        paths = self.paths or tuple("" for _ in self.labels)
        files = LabelledFiles(self.name, Path(), tuple(map(str, range(len(self.labels)))), self.labels, self.train)
        files = files.without_small(least)
        rows = np.array([int(row) for row in files.paths])
        kept = tuple(paths[row] for row in rows) if self.paths else ()
        return _embedded(files, range(len(rows)), self.vectors[rows], kept, ())

    def find(self, files: LabelledFiles) -> Embedded:
        """The embeddings of `files`, found by their paths; files that the table lacks are passed over.

        Raises:
            MasslError: the table has no paths, or those of fewer than two classes.
        """
        if self.paths is None:
            raise MasslError(f"{self.name} has no array `paths`, so nothing tells which image is which")
        place = {path: row for row, path in enumerate(self.paths)}
        rows = [row for row, path in enumerate(files.paths) if path in place]
        if len({files.labels[row] for row in rows}) < 2:
            raise MasslError(f"{self.name} has the paths of other images than those of {files.name}")
        lacking = tuple(Skipped(path, f"not in {self.name}") for path in files.paths if path not in place)
        paths = [files.paths[row] for row in rows]
        vectors = self.vectors[[place[path] for path in paths]]
        return _embedded(files, rows, vectors, paths, (*files.skipped, *lacking))


@dataclass(frozen=True)
class Pairs:
    """Pairs of images and whether both show the same: `first` and `second` index `paths`, relative to `root`."""

    name: str
    root: Path
    paths: tuple[str, ...]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def read_labelled(data: Path, shown: ShownAs = BY_EACH_FILE) -> LabelledFiles:
    """Labelled images, as a folder or a CSV file lists them.

    A folder has a subfolder a class, at any depth below it; where its subfolders are `train` and `test` (or `val`), the
    classes lie in those. A CSV file has the columns path and label, and split (train, test or val) if it likes; its
    paths are absolute or relative to where it lies. If `shown` says so, each plane of a stack in a folder is an image.

    Raises:
        MasslError: missing, unreadable, no labels, or fewer than two classes.
    """
    if data.suffix.lower() == ".csv":
        return _classes(_read_csv(data))
    check_folder(data)
    found, skipped = _walk(data, shown)
    classes, halved = classes_below(found)
    train = tuple(path.split("/", 1)[0].lower() in TRAIN for path in classes) if halved else None
    name, paths, labels = data.resolve().name, tuple(classes), tuple(classes.values())
    return _classes(LabelledFiles(name, data, paths, labels, train, skipped))


def classes_below(paths: Iterable[str]) -> tuple[dict[str, str], bool]:
    """The class of each image of a labelled folder, and whether the folder is two: of training and of test images.

    A class is a subfolder, with all that lies below it; where the subfolders are `train` and `test` (or `val`), a
    subfolder of theirs. Images beside the classes have none, and are left out.

    Args:
        paths: of the images, relative to the folder.
    """
    inside = [path for path in paths if "/" in path]
    tops = {path.split("/", 1)[0].lower() for path in inside}
    halved = len(tops) > 1 and tops <= TRAIN | TEST and bool(tops & TRAIN and tops & TEST)
    place = 1 if halved else 0
    return {path: path.split("/")[place] for path in inside if path.count("/") > place}, halved


def read_halves(train: Path, test: Path, shown: ShownAs = BY_EACH_FILE) -> LabelledFiles:
    """Training and test images from two folders or two CSV files, each as in `read_labelled`.

    Raises:
        MasslError: as `read_labelled`.
    """
    parts = read_labelled(train, shown), read_labelled(test, shown)
    name = f"{parts[0].name} and {parts[1].name}"
    paths = tuple(str((part.root / path).resolve()) for part in parts for path in part.paths)
    labels = tuple(label for part in parts for label in part.labels)
    split = tuple(first for part, first in zip(parts, (True, False), strict=True) for _ in part.paths)
    return LabelledFiles(name, Path("/"), paths, labels, split, (*parts[0].skipped, *parts[1].skipped))


def read_images(data: Path, shown: ShownAs = BY_EACH_FILE) -> LabelledFiles:
    """All images below a folder, whatever the labels: each gets the empty one. See `read_labelled` for `shown`.

    Raises:
        MasslError: no folder, or no image in it.
    """
    check_folder(data)
    found, skipped = _walk(data, shown)
    if not found:
        raise MasslError(f"{data} holds no image files")
    return LabelledFiles(data.resolve().name, data, tuple(found), ("",) * len(found), None, skipped)


def read_pairs(data: Path) -> Pairs:
    """A CSV file with the columns path_a, path_b and same (1 or 0), paths relative to where it lies.

    Raises:
        MasslError: missing, unreadable, another form, or not both kinds of pairs.
    """
    rows = read_csv(data, ("path_a", "path_b", "same"))
    place: dict[str, int] = {}
    pairs = [[_on_disk(data, line, row[name]) for name in ("path_a", "path_b")] for line, row in rows]
    first, second = (
        np.array([place.setdefault(pair[side], len(place)) for pair in pairs], np.int64) for side in (0, 1)
    )
    same = []
    for line, row in rows:
        word = row["same"].strip().lower()
        if word not in SAME:
            raise MasslError(f"{data}, line {line}: same must be 1 or 0, not {row['same']!r}")
        same.append(SAME[word])
    if len(set(same)) < 2:
        raise MasslError(f"{data} needs pairs that are the same and pairs that are not")
    return Pairs(data.stem, data.parent, tuple(place), first, second, np.array(same))


def is_pair_list(data: Path) -> bool:
    """Whether a file is a CSV file of pairs."""
    if data.suffix.lower() != ".csv" or not data.is_file():
        return False
    try:
        return {"path_a", "path_b"} <= set(csv_columns(data))
    except MasslError:  # which is said when it is read
        return False


def read_table(path: Path) -> Table:
    """Reads embeddings from an `.npz` file; arrays of Python objects are refused, as reading them would run code.

    Raises:
        MasslError: missing, damaged, or arrays of the wrong form.
    """
    try:
        data = read_regular(path)
        with np.load(path, allow_pickle=False) as arrays:
            told = {name: arrays[name] for name in arrays.files if name in ("embeddings", "labels", "paths", "split")}
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such table of embeddings") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise MasslError(f"{path} can't be read as a table of embeddings (.npz without objects): {detail}") from None
    vectors = told.pop("embeddings", None)
    if vectors is None or vectors.ndim != 2 or not len(vectors) or vectors.dtype.kind not in "fiu":
        raise MasslError(f"{path} needs an array `embeddings` of numbers, [N, D]")
    for name, values in told.items():
        if values.shape != (len(vectors),):
            raise MasslError(f"{path}: `{name}` has shape {list(values.shape)}, not [{len(vectors)}]")
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise MasslError(f"{path}: row {int(np.argmin(np.isfinite(lengths) & (lengths > 0)))} is zero or not finite")
    split = told.get("split")
    return Table(
        path.stem,
        hashlib.sha256(data).hexdigest(),
        vectors / lengths,
        tuple(map(str, told["labels"].tolist())) if "labels" in told else None,
        tuple(map(str, told["paths"].tolist())) if "paths" in told else None,
        None if split is None else tuple(_is_train(path, str(word)) for word in split.tolist()),
    )


def embed(files: LabelledFiles, embed_paths: EmbedPaths, report: CountReport) -> Embedded:
    """Embeds labelled images. Those that can't be read are passed over, and listed with the reason.

    Raises:
        MasslError: images of fewer than two classes can be read.
    """
    found, rows, skipped = embed_paths(files.root, files.paths, report)
    if len({files.labels[row] for row in rows}) < 2:
        raise _one_class(files.name)
    return _embedded(files, rows, found, [files.paths[row] for row in rows], (*files.skipped, *skipped))


def _walk(root: Path, shown: ShownAs) -> tuple[list[str], tuple[Skipped, ...]]:
    files: list[str] = []
    skipped: list[Skipped] = []
    for item in walk(root, contents=Contents(planes=plane_files.counter(shown.plane, shown.channels))):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif isinstance(item, ImageFile):
            files.append(item.path)
    return files, tuple(skipped)


def _classes(files: LabelledFiles) -> LabelledFiles:
    if len(set(files.labels)) < 2:
        raise _one_class(files.name)
    return files


def _one_class(name: str) -> MasslError:
    return MasslError(
        f"{name} must hold images of at least two classes: a folder with a subfolder for each, "
        "or a CSV file with the columns path and label"
    )


def _embedded(
    files: LabelledFiles,
    rows: Iterable[int],
    vectors: NDArray[np.float32],
    paths: Sequence[str],
    skipped: tuple[Skipped, ...],
) -> Embedded:
    names = [files.labels[row] for row in rows]
    classes = tuple(sorted(set(names)))
    index = {name: place for place, name in enumerate(classes)}
    labels = np.array([index[name] for name in names], np.int64)
    train = None if files.train is None else np.array([files.train[row] for row in rows])
    return Embedded(vectors, labels, classes, tuple(paths), skipped, train)


def _read_csv(data: Path) -> LabelledFiles:
    rows = [(line, row) for line, row in read_csv(data, ("path", "label")) if any(row.values())]
    for line, row in rows:
        if not row["label"]:
            raise MasslError(f"{data}, line {line}: {row['path']!r} has no label")
    train = tuple(_is_train(data, row["split"] or "") for _, row in rows) if rows and "split" in rows[0][1] else None
    paths = tuple(_on_disk(data, line, row["path"]) for line, row in rows)
    labels = tuple(row["label"] for _, row in rows)
    return LabelledFiles(data.stem, data.parent, paths, labels, train)


def _on_disk(data: Path, line: int, path: str) -> str:
    try:
        return as_on_disk(data.parent, path)
    except MasslError as error:
        raise MasslError(f"{data}, line {line}: {error}") from None


def _is_train(where: Path, word: str) -> bool:
    word = word.strip().lower()
    if word not in TRAIN | TEST:
        raise MasslError(f"{where}: a split must be train or test (or val), not {word!r}")
    return word in TRAIN
