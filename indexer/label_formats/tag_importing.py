"""Tags from files of other tools: CSV, COCO and Label Studio, told apart by their content; and from pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from indexer.store.tags import MAX_TAGS, split
from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_columns, read_csv
from massl.core.regular_files import open_regular, read_regular

_MOST_BYTES = 1 << 29  # of a JSON file


def read(file: Path, folder: str) -> Iterator[tuple[str, str, str, str]]:
    """What a file says, as (place in it, path, tags with commas between, author or nothing); see `TablePaths`.

    Args:
        file: a CSV table with the columns path and tag (or tags), a COCO file, or an export of Label Studio.
        folder: the name of the folder of images, which Label Studio's paths begin with.

    Raises:
        MasslError: it can't be read, or is none of these.
    """
    try:
        with open_regular(file) as opened:
            start = opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise MasslError(f"{file} can't be read ({error.strerror or error}); name a CSV or JSON file") from None
    yield from _of_json(file, folder) if start in (b"{", b"[") else _of_csv(file)


def of_keywords(
    keywords: Mapping[int, tuple[str, Sequence[str]]], had: Mapping[int, Sequence[str]]
) -> tuple[list[tuple[int, str]], list[tuple[str, str]]]:
    """The words that pictures bring, as tags.

    Args:
        keywords: path and words of each image, by id.
        had: the tags of those that have some.

    Returns:
        Images and tags; and paths of which words are left out, each with the reason: words that are no tags, or more
        tags than an image may have.
    """
    wanted: list[tuple[int, str]] = []
    left: list[tuple[str, str]] = []
    for image, (path, words) in keywords.items():
        tags: dict[str, None] = {}
        for word in words:
            try:
                tags |= dict.fromkeys(split(word))
            except MasslError as error:
                left.append((path, str(error)))
        if len({*tags, *had.get(image, ())}) > MAX_TAGS:
            left.append((path, f"it would have more than {MAX_TAGS} tags; remove some first"))
        else:
            wanted += [(image, tag) for tag in tags]
    return wanted, left


def _of_csv(file: Path) -> Iterator[tuple[str, str, str, str]]:
    names = csv_columns(file)
    column = "tags" if "tags" in names and "tag" not in names else "tag"
    for line, row in read_csv(file, ("path", column)):
        if any(value.strip() for value in row.values()):
            author = row.get("author", "").strip() if "at" in row else ""  # else no table of ours
            yield f"{file}, line {line}", row["path"], row[column], author


def _of_json(file: Path, folder: str) -> Iterator[tuple[str, str, str, str]]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise MasslError(f"{file} has more than {_MOST_BYTES >> 20} MiB; split it")
        found = json.loads(read_regular(file).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise MasslError(f"{file} can't be read as JSON ({' '.join(str(error).split())[:80]})") from None
    try:
        rows = list(_coco(found) if isinstance(found, dict) else _label_studio(found, folder))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise MasslError(f"{file} is neither COCO nor an export of Label Studio with choices") from None
    for number, path, tag in rows:
        yield f"{file}, {number}", path, tag, ""


def _coco(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    images = {image["id"]: _text(image["file_name"]) for image in found["images"]}
    names = {category["id"]: _text(category["name"]) for category in found["categories"]}
    for number, annotation in enumerate(found["annotations"], 1):
        yield f"annotation {number}", images[annotation["image_id"]], names[annotation["category_id"]]


def _label_studio(found: list[Any], folder: str) -> Iterator[tuple[str, str, str]]:
    for number, task in enumerate(found, 1):
        address = urlsplit(_text(task["data"]["image"]))
        place = parse_qs(address.query, errors="surrogateescape").get("d") or [unquote(address.path)]
        path = place[0].lstrip("/").removeprefix(f"{folder}/")
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled"):
                continue
            for result in annotation["result"]:
                choices = result["value"].get("choices", [])
                if not isinstance(choices, list):  # a text would be taken for its letters
                    raise TypeError("choices are no list")
                for choice in choices:
                    yield f"task {number}", path, _text(choice)


def _text(value: object) -> str:
    """A text or number as text; raises TypeError for what is neither."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("neither text nor number")
    return str(value)
