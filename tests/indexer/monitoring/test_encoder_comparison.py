"""A new encoder beside the present one, on labelled images."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer import Collection, Encoder
from indexer.monitoring.encoder_comparison import Comparison
from massl.core.errors import MasslError


@pytest.fixture
def labelled(photos: Path, tiny_encoder: Encoder) -> Collection:
    """24 pictures of four kinds, all labelled but four, indexed by an encoder that knows nothing."""
    made = Collection.create(photos, tiny_encoder)
    made.update()
    for kind in ("flag", "fruit", "space", "painting"):
        made.labels.add(kind, [image for image, path in made.images.ready() if path.startswith(kind)][1:], "me")
    return made


def test_a_better_encoder_is_seen_to_be_better(labelled: Collection, encoder: Encoder) -> None:
    told: list[tuple[int, int]] = []
    before = labelled.catalog.meta()
    found = labelled.encoders.compare(encoder, lambda done, total: told.append((done, total)))
    assert (found.images, found.classes) == (20, 4)
    assert found.other > found.present
    assert found.only_other - found.only_present == round(20 * (found.other - found.present))
    assert 0 < found.chance < 1
    assert told[-1] == (20, 20)
    assert labelled.catalog.meta() == before  # nothing was changed


def test_an_encoder_beside_itself_is_no_better(labelled: Collection, tiny_encoder: Encoder) -> None:
    found = labelled.encoders.compare(tiny_encoder)
    share = found.present
    assert found == Comparison(20, 4, share, share, 0, 0, 1.0)


def test_an_image_that_can_no_longer_be_read_is_left_out(labelled: Collection, encoder: Encoder) -> None:
    next((labelled.root / "fruit").glob("*.jpg")).write_text("no picture")
    assert labelled.encoders.compare(encoder).images in (19, 20)  # the first of a kind has no label


def test_without_labels_it_says_what_is_missing(collection: Collection, tiny_encoder: Encoder) -> None:
    with pytest.raises(MasslError, match="two classes of at least two"):
        collection.encoders.compare(tiny_encoder)
    image = collection.images.ready(1)[0][0]
    collection.labels.add("one", [image], "me")
    with pytest.raises(MasslError, match="two classes of at least two"):
        collection.encoders.compare(tiny_encoder)
