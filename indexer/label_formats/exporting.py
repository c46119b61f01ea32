"""The labels in the forms that other tools read: CSV, a manifest for ImageFolder, COCO, Label Studio."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.labels import NONE_OF_THESE, PREDICTED, Label, Labels
from indexer.store.tags import Tags
from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_text, is_formula

_LONGEST_NAME = 255  # bytes that file systems take
_LONGEST_ENDING = 16  # characters


@dataclass(frozen=True)
class LabelRow:
    """An image and its label.

    Attributes:
        path: relative to the collection's root.
        label: a person's, or a predicted one.
        author: who gave it; `labels.PREDICTED` for a predicted one.
        at: when, ISO 8601 in UTC; empty for a predicted one.
        probability: of a predicted one, 0 to 1; None for a person's.
        width, height: of the image as it stands upright, in pixels.
    """

    path: str
    label: str
    author: str
    at: str
    probability: float | None
    width: int
    height: int


def rows(catalog: Catalog, predictions: Iterable[tuple[int, str, float]] = ()) -> list[LabelRow]:
    """Every labelled image, and those of `predictions` (id, label, probability) that have none, by path.

    Images of no named class are left out: to other tools `NONE_OF_THESE` would be a class.
    """
    found = {
        given.path: LabelRow(given.path, given.label, given.author, given.at, None, width, height)
        for given, width, height in Labels(catalog).with_sides()
    }
    guesses = {image: (label, probability) for image, label, probability in predictions}
    for image, (name, width, height) in Images(catalog).sides(list(guesses)).items():
        label, probability = guesses[image]
        found.setdefault(name, LabelRow(name, label, PREDICTED, "", probability, width, height))
    return [found[path] for path in sorted(found) if found[path].label != NONE_OF_THESE]


def of_labels(given: Iterable[Label]) -> str:
    """Labels that people gave as CSV: all that can be told where the catalog is damaged."""
    classes = (item for item in given if item.label != NONE_OF_THESE)
    return _csv([LabelRow(item.path, item.label, item.author, item.at, None, 0, 0) for item in classes], "")


def tag_rows(catalog: Catalog) -> list[LabelRow]:
    """Every tag as `rows` has labels, so that an image has a row for each of its tags."""
    sides = {
        name: (width, height) for name, width, height in Images(catalog).sides(list(Tags(catalog).images())).values()
    }
    return [
        LabelRow(given.path, given.tag, given.author, given.at, None, *sides.get(given.path, (0, 0)))
        for given in Tags(catalog).every()
    ]


def write_tags(kind: str, tagged: Sequence[LabelRow], folder: str) -> str:
    """Tags as the text of a file of this kind, one of `TAG_FORMATS`.

    Raises:
        MasslError: no such format.
    """
    if kind not in TAG_FORMATS:
        raise MasslError(f"there is no format {kind[:20]!r}; choose one of {', '.join(TAG_FORMATS)}, or xmp")
    if kind == "csv":
        return csv_text(["path", "tag", "author", "at"], [[row.path, row.label, row.author, row.at] for row in tagged])
    return FORMATS[kind](tagged, folder)


def write(kind: str, labelled: Sequence[LabelRow], folder: str) -> str:
    """The labels as the text of a file of this kind, one of `FORMATS`.

    Args:
        kind: the format's name.
        labelled: what to write.
        folder: the name of the folder of images.

    Raises:
        MasslError: no such format.
    """
    if kind not in FORMATS:
        raise MasslError(f"there is no format {kind[:20]!r}; choose one of {', '.join(FORMATS)}, or onnx")
    return FORMATS[kind](labelled, folder)


def _csv(labelled: Sequence[LabelRow], folder: str) -> str:
    predicted = any(row.probability is not None for row in labelled)
    table = [[row.path, row.label, row.author, row.at] for row in labelled]
    if predicted:
        for line, row in zip(table, labelled, strict=True):
            line.append("" if row.probability is None else f"{row.probability:.4f}")
    return csv_text(["path", "label", "author", "at", *(["probability"] if predicted else [])], table)


def _imagefolder(labelled: Sequence[LabelRow], folder: str) -> str:
    """`metadata.csv`, which `datasets` takes beside the images, with the place of each in torchvision's layout."""
    table = []
    for row, target in zip(labelled, imagefolder_targets([(row.path, row.label) for row in labelled]), strict=True):
        # An apostrophe before a name that looks like a formula would make it another file's; `./` doesn't.
        place = f"./{row.path}" if is_formula(row.path) else row.path
        table.append([place, row.label, target])
    return csv_text(["file_name", "label", "target"], table)


def imagefolder_targets(images: Sequence[tuple[str, str]]) -> list[str]:
    """Where each image, a path and a label, goes in torchvision's layout: `label/name`, no two in one place."""
    folders = _folders(sorted({label for _, label in images}))
    taken: set[str] = set()
    return [_free_place(folders[label], path.rpartition("/")[2], taken) for path, label in images]


def same_targets(paths: Sequence[str]) -> list[str]:
    """Where each image goes in a folder that has the same folders, also where a disk takes `A` and `a` for one."""
    taken: set[str] = set()
    return [_free_place(path.rpartition("/")[0], path.rpartition("/")[2], taken) for path in paths]


def _free_place(folder: str, name: str, taken: set[str]) -> str:
    """A place for a file that no other has; `taken` learns of it."""
    stem, dot, ending = name.rpartition(".")
    # What follows a dot is an ending if something is before it, and it isn't most of a long name.
    stem, ending = (stem, dot + ending) if stem and len(ending) < _LONGEST_ENDING else (name, "")
    folder += "/" if folder else ""
    target, turn = f"{folder}{_fitted(stem, ending)}", 1
    while target.casefold() in taken:  # two folders may have files of one name
        turn += 1
        target = f"{folder}{_fitted(stem, f'-{turn}{ending}')}"
    taken.add(target.casefold())
    return target


def _fitted(stem: str, ending: str) -> str:
    """A name that file systems take: a stem that is too long loses its last characters."""
    while len(os.fsencode(stem + ending)) > _LONGEST_NAME:
        stem = stem[:-1]
    return stem + ending


def _coco(labelled: Sequence[LabelRow], folder: str) -> str:
    """Images, categories, and an annotation a label that is of the whole image: readers of COCO expect a box."""
    names = sorted({row.label for row in labelled})
    numbers = {name: number for number, name in enumerate(names, 1)}
    images = {row.path: row for row in labelled}
    places = {path: number for number, path in enumerate(images, 1)}
    annotations = []
    for number, row in enumerate(labelled, 1):
        annotation = {
            "id": number,
            "image_id": places[row.path],
            "category_id": numbers[row.label],
            "bbox": [0, 0, row.width, row.height],
            "area": row.width * row.height,
            # Its outline, as a reader that makes masks expects one.
            "segmentation": [[0, 0, row.width, 0, row.width, row.height, 0, row.height]],
            "iscrowd": 0,
        }
        if row.probability is not None:
            annotation["score"] = round(row.probability, 4)
        annotations.append(annotation)
    return _json(
        {
            "info": {"description": f"Annotations of {folder}, each of a whole image, made with MaSSL"},
            "images": [
                {"id": number, "file_name": row.path, "width": row.width, "height": row.height}
                for number, row in enumerate(images.values(), 1)
            ],
            "categories": [{"id": numbers[name], "name": name, "supercategory": ""} for name in names],
            "annotations": annotations,
        }
    )


def _label_studio(labelled: Sequence[LabelRow], folder: str) -> str:
    """Tasks for a labelling interface with `<Image name="image" value="$image"/>` and `<Choices name="choice" ...>`.

    The images are served by Label Studio's local storage, whose root is to be the folder that holds `folder`.
    """
    tasks = []
    several: dict[str, list[LabelRow]] = {}
    for row in labelled:
        several.setdefault(row.path, []).append(row)
    for number, rows_of_image in enumerate(several.values(), 1):
        row = rows_of_image[0]
        choice = {
            "id": f"massl-{number}",
            "type": "choices",
            "from_name": "choice",
            "to_name": "image",
            "value": {"choices": [each.label for each in rows_of_image]},
        }
        place = quote(f"{folder}/{row.path}", errors="surrogateescape")
        # Numbered, as Label Studio's own exports are: its converter takes nothing else.
        task: dict[str, object] = {"id": number, "data": {"image": f"/data/local-files/?d={place}"}}
        if row.probability is None:
            task["annotations"] = [{"id": number, "result": [choice]}]
        else:
            task["predictions"] = [{"model_version": PREDICTED, "score": round(row.probability, 4), "result": [choice]}]
        tasks.append(task)
    return _json(tasks)


FORMATS: dict[str, Callable[[Sequence[LabelRow], str], str]] = {
    "csv": _csv,
    "imagefolder": _imagefolder,
    "coco": _coco,
    "label-studio": _label_studio,
}


TAG_FORMATS = ("csv", "coco", "label-studio")


def _folders(names: Sequence[str]) -> dict[str, str]:
    """A folder's name for each label: one that every file system takes, and no other label has."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in names:
        plain = re.sub(r'[\\/:*?"<>|]', "_", label).strip(" .") or "_"
        plain = f"_{plain}" if is_formula(plain) else plain
        name, turn = _fitted(plain, ""), 1
        while name.casefold() in taken:
            turn += 1
            name = _fitted(plain, f"-{turn}")
        taken.add(name.casefold())
        found[label] = name
    return found


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
