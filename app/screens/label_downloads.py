"""Taking labels away: the files that the screen "Label" offers, and how each reaches the browser."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from pathlib import Path

from app.formatting import readable
from indexer import Collection
from massl.core.errors import MasslError

EXPORTS = {
    "csv+": ("predictions.csv", "text/csv", "Labels and proposals (CSV)"),
    "csv": ("labels.csv", "text/csv", "Labels only (CSV)"),
    "imagefolder": ("metadata.csv", "text/csv", "Labels only (ImageFolder manifest)"),
    "coco": ("coco.json", "application/json", "Labels only (COCO)"),
    "label-studio": ("label-studio.json", "application/json", "Labels and proposals (Label Studio)"),
    "onnx": ("classifier.onnx", "application/octet-stream", "Classifier (ONNX)"),
}
_FETCHED_WITHIN = 300  # seconds
_MOST_WAITING = 3  # classifiers that nobody has fetched yet, at some 50 MB each; the oldest makes room


def export(collection: Collection, uploads: Path, kind: str, sure: float) -> tuple[dict[str, str], str]:
    """What the browser needs to save a file, and what was exported as a sentence.

    Args:
        collection: whose labels.
        uploads: the folder that downloads lie in, too.
        kind: one of `EXPORTS`.
        sure: the least probability of proposals, above 0 to 1.

    Raises:
        MasslError: no such kind, or there are too few labels for it.
    """
    if kind not in EXPORTS:
        raise MasslError("The page is older than the program; reload it")
    name, mime, title = EXPORTS[kind]
    if kind == "onnx":
        return {"name": name, "href": _classifier(collection, uploads, name)}, f"Exported {name}: {title}"
    holds = ""
    predictions = kind in ("csv+", "label-studio") and len(collection.labels.counts()) >= 2
    result = collection.fewshot.classify() if predictions else None
    text = collection.exports.labels(kind.rstrip("+"), predictions, sure)
    if result is not None:
        number = len(collection.fewshot.predictions(sure))
        holds = f", {number:,} proposed at least {100 * sure:.0f} % sure"
    # As text, made into a file by the browser: nothing is written that would have to be cleared away.
    return {"name": name, "type": mime, "text": readable(text)}, f"Exported {name}: {title}{holds}"


def _classifier(collection: Collection, uploads: Path, name: str) -> str:
    """Writes the classifier and returns where it can be fetched, by a name that nobody can guess.

    Too large for a message: it is gone once fetched. What nobody fetched goes when another is made, and at the latest
    with the server.
    """
    waiting = []
    for old in uploads.glob(f"*/{name}"):
        with contextlib.suppress(FileNotFoundError):  # it is fetched at this moment
            waiting.append((old.stat().st_mtime, old))
    waiting.sort()
    for place, (made, old) in enumerate(waiting, start=1):
        if time.time() - made > _FETCHED_WITHIN or len(waiting) - place >= _MOST_WAITING - 1:
            shutil.rmtree(old.parent, ignore_errors=True)
    folder = uploads / secrets.token_hex(16)
    folder.mkdir()
    try:
        collection.fewshot.export(folder / name, collection.encoder)
    except MasslError:
        folder.rmdir()
        raise
    return f"download/{folder.name}/{name}"
