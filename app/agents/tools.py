"""The tools that agents get. Each answers in plain values, with thumbnails for the pictures that it names.

The docstrings and the types are what an agent reads: Gradio makes the description of a tool from them.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.formatting import of_readable, readable
from app.uploads import of_bytes, take
from indexer import Collection, Query
from indexer.json_results import of_classification, of_collection, of_search
from indexer.store.filters import Filter
from indexer.store.labels import AGENT, NONE_OF_THESE, normalised
from indexer.store.paths import can_name_a_file
from massl.core.errors import MasslError

PICTURES = "pictures"  # the key of an answer's thumbnails: path and WebP in base64 of each
_MOST = 200  # pictures that one answer names
_MOST_THUMBNAILS = 24
_MOST_LABELLED = 1_000
_MOST_EXAMPLES = 16
_MOST_TAGS = 20  # in one call
_BYTES = 3_000_000  # of a picture that comes in a call: the MCP library takes 4 MiB, of base64 and all else
_MOST_FOLDERS = 100


class AgentTools:
    """The tools on one collection. Safe to share by threads.

    Args:
        collection: what is asked.
        uploads: the folder that uploads arrive in.
        write: whether agents may label and tag.
    """

    def __init__(self, collection: Collection, uploads: Path, write: bool) -> None:
        self._collection = collection
        self._uploads = uploads
        self._write = write

    @property
    def functions(self) -> Sequence[Callable[..., dict[str, Any]]]:
        """The tools; each is called as its function."""
        return [self.search, self.similar, self.classify, self.select, self.info, self.label, self.tag]

    def search(
        self, picture: str, k: int = 12, label: str = "", folder: str = "", tag: str = "", thumbnails: int = 12
    ) -> dict:
        """Finds the pictures of the collection that are most similar to a picture, best first.

        Args:
            picture: what to search with: a picture's path in the collection, a data: URL or the base64 of an image file of at most 3 MB, or for larger ones a path that POST /gradio_api/upload returned.
            k: how many results, at most 200.
            label: only pictures with this label; empty for all.
            folder: only pictures below this folder of the collection; empty for all.
            tag: only pictures with this tag; empty for all.
            thumbnails: how many of the first results come with a thumbnail, at most 24.
        """  # noqa: E501, Gradio reads one line a parameter
        return self._found([self._query(picture)], k, label, folder, tag, thumbnails)

    def similar(
        self,
        paths: list[str],
        unlike: list[str] = [],  # noqa: B006, never changed, and None would be no list in the tool's schema
        k: int = 12,
        thumbnails: int = 12,
    ) -> dict:
        """Finds pictures similar to several pictures of the collection taken together, and unlike others.

        Args:
            paths: paths in the collection, as other tools return them.
            unlike: paths in the collection of pictures that the results should not be like.
            k: how many results, at most 200.
            thumbnails: how many of the first results come with a thumbnail, at most 24.
        """
        wanted, unwanted = _paths(paths, _MOST_EXAMPLES), _paths(unlike, _MOST_EXAMPLES, fewest=0)
        examples = [Query(image=self._image(path)) for path in wanted]
        examples += [Query(image=self._image(path), weight=-1.0) for path in unwanted]
        return self._found(examples, k, "", "", "", thumbnails)

    def classify(self, k: int = 50, label: str = "", min_probability: float = 0.0) -> dict:
        """Predicts a class for every picture without a label from the labels so far, and estimates the accuracy.

        Args:
            k: how many predictions to list, the most probable first, at most 200; all are counted.
            label: list only pictures predicted as this label; empty for all.
            min_probability: from 0 to 1; less probable predictions have no label.
        """
        sure = _share(min_probability)
        described = of_classification(self._collection, self._collection.fewshot.classify(), sure)
        rows = described.pop("predictions")
        counts: dict[str, int] = {}
        for row in rows:
            if row["label"] is not None:
                counts[row["label"]] = counts.get(row["label"], 0) + 1
        listed = [row for row in rows if row["label"] is not None and normalised(label) in ("", row["label"])]
        listed = sorted(listed, key=lambda row: -row["probability"])[: _number(k, _MOST)]
        return {"schema": 1, **described, "predicted": counts, "predictions": _readable(listed)}

    def select(self, n: int = 12, by: str = "diverse", label: str = "", folder: str = "", thumbnails: int = 12) -> dict:
        """Chooses pictures that show what is in the collection, without near copies.

        Args:
            n: how many, at most 200.
            by: diverse (far from each other), typical (from the middle of each group) or balanced (equally many of each label).
            label: only pictures with this label; empty for all.
            folder: only pictures below this folder of the collection; empty for all.
            thumbnails: how many of the first come with a thumbnail, at most 24.
        """  # noqa: E501, as above
        if by not in ("diverse", "typical", "balanced"):
            raise MasslError('"by" must be diverse, typical or balanced')
        wanted = Filter(_given(label), _given(folder))
        chosen = self._collection.subsets.choose(_number(n, _MOST), by, wanted=wanted)
        rows = [{"rank": item.rank, "path": item.path, "label": item.label} for item in chosen.images]
        pictures = self._pictures([(item.image, item.path) for item in chosen.images], thumbnails)
        return {"schema": 1, "results": _readable(rows), "among": chosen.among, PICTURES: pictures}

    def info(self) -> dict:
        """Says what the collection holds: how many pictures, folders, labels, tags, days, quality hints, and which encoder."""  # noqa: E501, as above
        told = of_collection(self._collection)
        outline = self._collection.images.outline()
        folders = sorted(outline.folders.items(), key=lambda item: -item[1])[:_MOST_FOLDERS]
        kept = ("indexed", "created", "updated", "scores", "quality", "encoder")
        return {
            "schema": 1,
            "name": readable(self._collection.root.resolve().name),
            **{key: told[key] for key in kept},
            "skipped": len(told["skipped"]),
            "labels": self._collection.labels.counts(),
            "tags": self._collection.tags.counts(),
            "folders": {readable(path): count for path, count in folders},
            "more_folders": max(0, len(outline.folders) - _MOST_FOLDERS),
            "first_day": str(outline.first or ""),
            "last_day": str(outline.last or ""),
            "can_label": self._write,
        }

    def label(self, paths: list[str], label: str) -> dict:
        """Gives pictures a label, in place of the one they had. An empty label takes theirs away.

        Args:
            paths: paths in the collection, as other tools return them, at most 1000; others are named and left out.
            label: a class of your own words, or "none of these" for pictures of no class.
        """
        self._check_may_write()
        images, unknown = self._images(paths)
        before = self._collection.labels.of(list(images))
        if label:  # blanks alone are no label, and no wish to take one away
            self._collection.labels.add(label, images, AGENT)
        else:
            self._collection.labels.remove(images)
        rows = [
            {"path": path, "before": had.label if (had := before[image]) else None} for image, path in images.items()
        ]
        counts = self._collection.labels.counts()
        none = counts.pop(NONE_OF_THESE, 0)
        told = {"schema": 1, "labelled": _readable(rows), "labels": counts, "none_of_these": none}
        return told | ({"not_in_collection": unknown} if unknown else {})

    def tag(self, paths: list[str], add: list[str] = [], remove: list[str] = []) -> dict:  # noqa: B006, as above
        """Gives pictures tags beside those that they have, and takes tags off them.

        Args:
            paths: paths in the collection, as other tools return them, at most 1000; others are named and left out.
            add: tags to give, of up to 100 characters each, without commas.
            remove: tags to take off.
        """
        self._check_may_write()
        images, unknown = self._images(paths)
        added, removed = ([(image, each) for image in images for each in _tags(tags)] for tags in (add, remove))
        tags = self._collection.tags
        new = tags.give(added, AGENT)
        gone = tags.remove(removed)
        now = tags.of(list(images))
        rows = [{"path": path, "tags": list(now.get(image, ()))} for image, path in images.items()]
        told = {
            "schema": 1, "added": len(new), "removed": len(gone), "tagged": _readable(rows), "tags": tags.counts()
        }  # fmt: skip
        return told | ({"not_in_collection": unknown} if unknown else {})

    def _check_may_write(self) -> None:
        if not self._write:
            raise MasslError("labelling is off here: whoever runs massl serve can allow it with --mcp-write")

    def _found(
        self, examples: list[Query], k: int, label: str, folder: str, tag: str, thumbnails: int
    ) -> dict[str, Any]:
        started = time.perf_counter()
        found = self._collection.search(
            examples, _number(k, _MOST), label=_given(label), under=_given(folder), tags=_given(tag)
        )
        described = of_search(found, started)
        described["results"] = _readable(described["results"])
        pictures = self._pictures([(result.image, result.path) for result in found], thumbnails)
        return {"schema": 1, **described, PICTURES: pictures}

    def _query(self, picture: str) -> Query:
        """What somebody searches with: a path of the collection, an upload, or a file's content."""
        if not isinstance(picture, str) or not picture.strip():
            raise MasslError('"picture" is empty: give a path in the collection, or the content of a file in base64')
        resize, rendering = self._collection.encoder.resize, self._collection.meta.rendering
        if len(picture) <= 4_096:
            if (image := self._found_at(picture)) is not None:
                return Query(image=image)
            if can_name_a_file(picture) and Path(picture).is_absolute() and Path(picture).is_relative_to(self._uploads):
                return take(picture, self._uploads, resize, "The upload", rendering).query
        content = picture.partition(",")[2] if picture.startswith("data:") else picture
        if len(content) > _BYTES * 4 // 3 + 4:
            raise MasslError(f"the picture is larger than {_BYTES // 1_000_000} MB; reduce or upload it first")
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise MasslError(
                f"{readable(picture[:100])!r} is neither a path in the collection nor a picture in base64; paths are "
                "as the tools return them"
            ) from None
        return of_bytes(data, resize, "The picture", rendering).query

    def _image(self, path: str) -> int:
        image = self._found_at(path)
        if image is None:  # nothing is said of files that are not in the collection
            raise MasslError(f"{readable(path[:200])!r} is not in the collection; paths are as the tools return them")
        return image

    def _images(self, paths: object) -> tuple[dict[int, str], list[str]]:
        """Those of some paths that are of pictures, by id, and the others, as far as they are to be named.

        Raises:
            MasslError: there are none, or too many.
        """
        images: dict[int, str] = {}
        unknown: list[str] = []
        for path in _paths(paths, _MOST_LABELLED):
            if (image := self._found_at(path)) is None:
                unknown.append(path)
            else:
                images[image] = path
        if not images:
            self._image(unknown[0])
        return images, [readable(path[:200]) for path in unknown]

    def _found_at(self, path: str) -> int | None:
        """The picture at a path, as the file system has it or as the tools return it; None for none."""
        for way in dict.fromkeys((path, of_readable(path))):
            row = self._collection.images.at_path(way)
            if row is not None and row[1] == "ready":
                return row[0]
        return None

    def _pictures(self, found: Sequence[tuple[int, str]], most: int) -> list[tuple[str, str]]:
        shown = found[: _number(most, _MOST_THUMBNAILS, fewest=0)]
        made = [(path, self._collection.images.thumbnail(image)) for image, path in shown]
        return [(readable(path), base64.b64encode(data).decode()) for path, data in made if data]


def _readable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"path": readable(row["path"])} for row in rows]


def _given(text: object) -> tuple[str, ...]:
    if not isinstance(text, str) or "\0" in text:
        raise MasslError('"label", "folder" and "tag" are texts; leave them empty for all pictures')
    return (text,) if text else ()


def _paths(paths: object, most: int, fewest: int = 1) -> list[str]:
    if not isinstance(paths, list) or not all(isinstance(path, str) and "\0" not in path for path in paths):
        raise MasslError('"paths" must be a list of paths in the collection, as the tools return them')
    if not fewest <= len(paths) <= most:
        raise MasslError(f"give {fewest} to {most:,} paths, not {len(paths):,}")
    return list(dict.fromkeys(paths))


def _tags(tags: object) -> list[str]:
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or len(tags) > _MOST_TAGS:
        raise MasslError(f'"add" and "remove" must be lists of tags, of at most {_MOST_TAGS}')
    return tags


def _number(value: object, most: int, fewest: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -math.inf < value < math.inf:
        raise MasslError(f"the number of pictures must be from {fewest} to {most}")
    return max(fewest, min(int(value), most))


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise MasslError("min_probability must be from 0 to 1")
    return float(value)
