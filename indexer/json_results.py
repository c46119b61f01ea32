"""A collection, a search and a classification in plain values: the JSON of the commands and the page's endpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from indexer.fewshot.classification import EXAMPLES, SAMPLE, Classification
from indexer.search.query import Result
from indexer.store import tiles
from indexer.store.ordering import Placed
from indexer.store.picture_facts import PictureFacts

if TYPE_CHECKING:
    from indexer.collection import Collection


def of_search(results: Sequence[Result], started: float) -> dict[str, Any]:
    """A search that was begun at `started`, by `time.perf_counter`."""
    rows = [
        {
            "rank": result.rank,
            "path": result.path,
            "score": round(result.score, 4) + 0.0,  # never -0.0
            "match": result.match,
            "false_matches": float(f"{result.false_matches:.3g}"),
            "label": result.label,
            "taken": result.taken,
            **({"box": list(result.box)} if result.box else {}),
        }
        for result in results
    ]
    return {"results": rows, "milliseconds": round((time.perf_counter() - started) * 1000, 1)}


def of_listing(collection: Collection, listed: Sequence[Placed], started: float) -> dict[str, Any]:
    """Images in an order, as a search that was begun at `started`: nothing is said of likeness."""
    ids = [each.image for each in listed]
    labels, taken = collection.images.with_labels(ids), PictureFacts(collection.catalog).taken(ids)
    rows = [
        {
            "rank": rank,
            "path": each.path,
            "score": None,
            "match": None,
            "false_matches": None,
            "label": labels[each.image][1] if each.image in labels else None,
            "taken": taken.get(each.image),
            "value": round(each.value, 4) if isinstance(each.value, float) else each.value,
        }
        for rank, each in enumerate(listed, 1)
    ]
    return {"results": rows, "milliseconds": round((time.perf_counter() - started) * 1000, 1)}


NEEDS = {
    EXAMPLES: "label at least two images of every class by hand",
    SAMPLE: "label a random sample: many images are unlike everything that was labelled, and their predictions are "
    "wrong if they are of kinds without a label",
}


def of_classification(collection: Collection, result: Classification, sure: float = 0.0) -> dict[str, Any]:
    """A classification; predictions that are not `Classification.sure` have no label.

    Raises:
        MasslError: one of its images is no longer in the collection.
    """
    has = result.sure(sure)
    paths = collection.images.paths_of(result.images.tolist())
    rows = zip(paths, result.predicted, result.probability, has, result.familiar, strict=True)
    expected = result.expected(sure)
    return {
        "labels": result.counts,
        "estimated_accuracy": _share(result.estimated_accuracy),
        "interval": _shares(result.interval),
        "needs": NEEDS[result.needs] if result.needs else None,
        "unnamed": _shares(result.unnamed),
        "expected_accuracy": _share(expected.accuracy) if expected else None,
        "expected_interval": _shares(expected.interval) if expected else None,
        "expected_of": expected.images if expected else 0,
        "classes": [
            {
                "label": item.label,
                "proposed": item.proposed,
                "right": None if item.right is None else round(item.right, 1),
                "sampled": item.sampled,
                "at_most": item.at_most,
            }
            for item in result.proposals(sure)
        ],
        "method": result.method,
        "methods": [{"method": item.method, "accuracy": _share(item.accuracy)} for item in result.compared],
        "sure": sure,
        "unsure": int((~has).sum()),
        "unfamiliar": int((~result.familiar).sum()),
        "predictions": [
            {
                "path": path,
                "label": result.classes[label] if enough else None,
                "probability": round(float(probability), 4),
                "unfamiliar": not familiar,
            }
            for path, label, probability, enough, familiar in rows
        ],
    }


def _share(share: float | None) -> float | None:
    """With as many digits as it may mean something, and no more."""
    return None if share is None else round(float(share), 4)


def _shares(shares: tuple[float, float] | None) -> list[float | None] | None:
    return None if shares is None else [_share(share) for share in shares]


def of_collection(collection: Collection) -> dict[str, Any]:
    """Counts, encoder, drift and disk use, in plain values.

    Raises:
        CatalogDamaged: something in the catalog is not as it was written.
    """
    collection.catalog.examine(whole=True)
    meta = collection.meta
    training, sizes = collection.health.encoder_file()
    facts = PictureFacts(collection.catalog)
    return {
        "kind": "collection",
        "root": str(collection.root),
        "folder": str(collection.folder),
        "indexed": len(collection),
        "unembedded": collection.images.unembedded(),
        "labels": len(collection.labels.every()),
        "encoder": collection.storage.encoder_facts() | {"image_sizes": list(sizes)},
        "training": asdict(training) if training else None,
        "search": asdict(measured) if (measured := collection.searcher.measured()) else None,
        "scores": collection.searcher.calibration().bounds(len(collection)),
        "drift": _drift_in_brief(collection),
        "created": meta.created,
        "updated": meta.updated,
        "checked": meta.checked,
        "bytes": collection.health.disk_use(),
        "exclude": list(meta.exclude),
        "include": list(meta.include or ()),
        "left_out": meta.left_out,
        "range": {
            "of": meta.display_range,
            "channels": list(meta.channels),
            "plane": meta.plane,
            "kinds": {kind: asdict(known) for kind, known in meta.kind_ranges.items()},
        },
        "max_megapixels": meta.max_pixels / 1e6,
        "unseen_share": round(collection.images.unseen_share(), 4),
        "several_planes": {str(planes): count for planes, count in collection.images.several_planes().items()},
        "planes_of_stacks": dict(zip(("planes", "stacks"), facts.planes(), strict=True)),
        "tiles": {"size": meta.tiles.size, "overlap": meta.tiles.overlap, "count": tiles.count(collection.catalog)}
        if meta.tiles
        else None,
        "quality": {
            name: {"images": count, "bound": bound}
            for name, (count, bound) in collection.images.quality_counts(collection.anomalies.quickly_told()).items()
        },
        "skipped": [{"path": item.path, "reason": item.reason} for item in collection.images.skipped()],
    }


def _drift_in_brief(collection: Collection) -> dict[str, Any]:
    found = asdict(collection.health.drift())
    if found["newest"]:
        found["newest"].pop("examples")
    return found
