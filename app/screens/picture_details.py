"""What is known of one picture, as the page shows it beside the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.formatting import brought, moment, picked, plural, readable, sentence, size
from app.screens.classification_advice import percent
from app.screens.listings import LIKELY
from app.screens.tiles import tile
from app.session import Payload, Session, number
from indexer import Collection
from indexer.store.image_facts import Facts
from massl.core.errors import MasslError

NEIGHBOURS = 6
_MOST_TAGS = 4  # that are proposed
_TROUBLE = {
    "there": "",
    "gone": "The file is missing: deleted, moved, or on a disk that is not connected. Run massl index to update.",
    "changed": "The file has changed since it was indexed. This is the indexed version. Run massl index to update.",
}


def details(collection: Collection, facts: Facts) -> dict[str, Any]:
    """Its name, file and label, what is wrong with the file, and the labelled pictures that are most like it."""
    meta = collection.meta
    return {
        "image": facts.image,
        "name": readable(facts.path),
        "path": readable(str((collection.root / facts.path).absolute())),
        "src": f"preview/{facts.image}",
        "ratio": round(facts.width / facts.height, 4),
        "facts": _facts(facts, picked(meta.channels, meta.plane)),
        "trouble": _TROUBLE[collection.images.file_state(facts.image)],
        "label": facts.label,
        "tags": list(collection.tags.of([facts.image]).get(facts.image, ())),
        "neighbours": [
            tile(near.image, near.path, near.label) | {"score": f"{near.score:z.2f}"}
            for near in collection.searcher.labelled_like(facts.image, NEIGHBOURS)
        ],
    }


def proposed_tags(collection: Collection, session: Session, payload: Payload) -> dict[str, Any]:
    """The tags that a picture probably has too; an aside, as finding them takes a while.

    Raises:
        MasslError: it is no longer in the collection.
    """
    image = number(payload.get("image"))
    collection.images.paths_of([image])
    found = collection.tag_proposals.for_image(image, LIKELY, _MOST_TAGS)
    return {
        "image": image,
        "tags": [
            {"name": tag, "likely": "" if probability is None else f"{percent(probability)} %"}
            for tag, probability in found
        ],
    }


def where_unusual(collection: Collection, image: int) -> dict[str, Any]:
    """Which parts of a picture, or of its most unusual tile, are unlike those of the pictures that are most like it."""
    try:
        parts = collection.anomalies.parts_of(image, collection.anomalies.worst_tile(image))
    except MasslError as error:
        return {"image": image, "said": sentence(str(error))}
    rows, columns = parts.distances.shape
    return {
        "image": image,
        "title": "Where it is unusual",
        "cosines": [[round(float(distance), 3) for distance in row] for row in parts.distances],
        "part": [round(share, 4) for share in parts.part],
        "said": (
            f"Bright parts are least like any part of the {plural(parts.beside, 'picture', 'pictures')} most like this "
            f"one (distance {parts.distances.max():.2f}), dark parts most ({parts.distances.min():.2f}). It is "
            f"compared in {rows} by {columns} parts."
        ),
    }


def _facts(facts: Facts, read: str) -> list[Sequence[str]]:
    return [
        ("Picture", f"{facts.width:,} by {facts.height:,} pixels"),
        ("File", size(facts.size)),
        ("Modified", moment(facts.changed)),
        *brought(facts.metadata, read),
        ("Label", f"{facts.label} (by {facts.author})" if facts.label is not None else "none yet"),
    ]
