"""The cards of the screen "Health": facts about a collection, its encoder and its search, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.formatting import deep_range, moment, of_several, other_sizes, picked, plural, readable, size, unseen
from indexer import Collection
from indexer.monitoring.drift import Drift, Newest
from indexer.monitoring.health import Health
from indexer.search.calibration import IDENTICAL
from indexer.storage.folder_images import FolderImages
from indexer.store.labels import NONE_OF_THESE
from indexer.store.meta import Meta
from massl.core.files.scan import left_out_line


def fact(name: str, value: str, hint: str = "") -> dict[str, str]:
    """A name and its value; what explains them is a `hint`."""
    return {"name": name, "value": readable(value), "hint": hint}


def numbers(total: int, skipped: int, labels: Mapping[str, int], found: Health | None) -> list[dict[str, str]]:
    """What is to be seen first, each a name, a value and a line below it.

    Args:
        total: pictures in the collection.
        skipped: files that could not be read.
        labels: how many pictures carry each label; `NONE_OF_THESE` is no class.
        found: the result of the last check.
    """
    classes = {name: count for name, count in labels.items() if name != NONE_OF_THESE}
    none, labelled = labels.get(NONE_OF_THESE, 0), sum(classes.values())
    share = f"{max(1, round(100 * labelled / total))} %" if labelled and total else "none yet"
    others = f", {none:,} {NONE_OF_THESE}" if none else ""
    drawn = [
        fact("Pictures", f"{total:,}", "indexed"),
        fact("Labelled", f"{labelled:,}", f"{share}, {plural(len(classes), 'class', 'classes')}{others}"),
        fact("Skipped", f"{skipped:,}", "listed below with reasons" if skipped else "every file could be read"),
    ]
    if found:
        since = found.behind
        if since is None:
            drawn.append(fact("Changed since", "?", "the folder can't be read"))
        else:
            kinds = f"{since.new:,} new, {since.changed:,} changed, {since.gone:,} gone"
            changed = since.new + since.changed + since.gone
            drawn.append(fact("Changed since", f"{changed:,}", kinds if changed else "the index is up to date"))
        drawn.append(fact("Disk use", size(found.bytes), "index and thumbnails"))
    return drawn


def pictures(images: FolderImages, meta: Meta) -> dict[str, Any]:
    """The collection."""
    lines = [
        ("Not seen", unseen(images.unseen_share())),
        ("Planes", of_several(images.several_planes(), picked(meta.channels, meta.plane))),
        ("Left out", left_out_line(images.left_out())),
    ]
    facts = [
        *(
            fact("Range", line, "Black and white in pictures of more than 8 bits; what lies beyond is clipped")
            for line in deep_range(meta.display_range, meta.kind_ranges)
        ),
        *(fact(name, line) for name, line in lines if line),
        fact("Last updated", moment(meta.checked or meta.updated)),
    ]
    return {"title": "Collection", "facts": facts, "figures": []}


def quality(hints: Mapping[str, int]) -> dict[str, Any]:
    """How many pictures each quality hint is about; each count leads to these pictures, by an address of Search."""
    facts = [
        fact(name.capitalize(), plural(count, "picture", "pictures"), "Show them on Search")
        | {"href": f"?quality={name}"}
        for name, count in sorted(hints.items(), key=lambda item: -item[1])
    ]
    return {"title": "Quality hints", "facts": facts, "figures": []}


def encoder(meta: Meta, found: Health | None) -> dict[str, Any]:
    """The encoder in use, with what its file says of it."""
    facts = [fact("Name", meta.encoder_name, f"SHA-256 {meta.encoder_sha256}")]
    if found and found.image_size:
        facts.append(
            fact("Input size", f"{found.image_size} x {found.image_size} pixels", "Pictures are resized to this")
        )
        if others := other_sizes(found.image_sizes, found.image_size):
            facts.append(fact("Other sizes", others, "Compare them on this screen"))
    training = found.training if found else None
    if training is None:
        return {"title": "Encoder", "facts": facts, "figures": []}
    if training.architecture:
        millions = f", {training.parameters / 1e6:,.1f} million parameters" if training.parameters else ""
        facts.append(fact("Network", training.architecture + millions))
    if training.source:
        facts.append(fact("Initial weights", training.source, "Source and licence"))
    images = f" on {training.images:,} images" if training.images else ""
    if training.method or images:
        facts.append(fact("Trained", f"{training.method}{images}".strip()))
    facts.append(fact("Embedding", f"{meta.dim} dimensions"))
    sizes = found.image_sizes if found else ()
    at = f", at {sizes[0]} px" if len(sizes) > 1 else ""
    figures = [{"name": name, "value": f"{100 * share:.1f} %"} for name, share in sorted(training.figures.items())]
    return {
        "title": "Encoder",
        "facts": facts,
        "figures": figures,
        "about": f"k-NN accuracy on {len(figures)} public data sets{at}",
    }


def search(collection: Collection, total: int) -> dict[str, Any]:
    """How exact the search is, and what its scores mean."""
    measured = collection.searcher.measured()
    facts = []
    if how := collection.searcher.how():
        facts.append(fact("Method", how))
    if measured:
        if measured.queries:
            found = f"{100 * measured.recall:.1f} % of the ten nearest, for {measured.queries:,} of your pictures"
            facts.append(fact("Recall", found, "Compared with an exact search"))
        else:
            facts.append(fact("Recall", "100 % (exact search)"))
    bounds = collection.searcher.calibration().bounds(total)
    if bounds:
        same = (
            "practically identical pictures only"
            if bounds["same"] >= IDENTICAL
            else f"similarity {bounds['same']:z.2f} or more"
        )
        facts.append(fact("Marked “Same”", same))
        facts.append(
            fact(
                "Marked “Alike”",
                f"similarity {bounds['alike']:z.2f} or more",
                "About one unrelated picture is this similar by chance",
            )
        )
    else:
        facts.append(fact("Similarity", "too few pictures to calibrate it"))
    return {"title": "Search", "facts": facts, "figures": []}


def familiar(drift: Drift) -> list[dict[str, Any]]:
    """The pictures beside the encoder's training images; nothing where its file or too few pictures can't tell."""
    title = "Your pictures and the encoder's training images"
    if drift.mean_score is None or drift.familiar is None:
        return []
    said = {
        "known": "Your pictures are about as varied as the training images.",
        "narrow": "Your pictures are less varied than the training images.",
        "foreign": "Your pictures differ from the training images, or are all of one kind. "
        "The encoder uses little of what it learnt.",
    }
    low, high = drift.bounds
    lines = [
        said[drift.familiar],
        f"Mean similarity between two of your pictures: {drift.mean_score:z.2f}, on a scale where two training images "
        f"have 0. Values up to {low:z.2f} count as similar to them, values from {high:z.2f} as different.",
    ]
    meter = {"value": min(1.0, max(0.0, drift.mean_score)), "low": low, "high": high}
    return [{"title": title, "lines": lines, "examples": [], "meter": meter}]


def told(newest: Newest) -> list[str]:
    """What is known of the newest pictures, in sentences; the first is the answer."""
    came = f"{newest.images:,} pictures were added on {moment(newest.since)} or later, {newest.older:,} before."
    if not newest.at_least:
        return [f"{came} No difference was found between them."]
    return [
        f"{newest.unlike:,} new pictures look different from the others.",
        f"{came} At least {newest.at_least:,} of them differ. Pictures of one occasion can also cause this.",
    ]
