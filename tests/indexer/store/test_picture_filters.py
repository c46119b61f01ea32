"""Filters by what pictures bring with them: camera, stars, how they lie, and words in their paths."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from indexer import Collection, Encoder, Query
from indexer.store.meta import Meta
from indexer.store.paths import folded
from massl.core.errors import MasslError

# Path, make, model, stars and size of each picture.
PICTURES = {
    "Rome 2019/forum.jpg": ("Canon", "Canon EOS R5", 4, (30, 20)),
    "Rome 2019/roma.jpg": ("Canon", "EOS R", 2, (20, 30)),
    unicodedata.normalize("NFD", "M\u00fcnchen/Stra\u00dfe.jpg"): ("Zorki", "4", None, (20, 20)),
    "plain.jpg": ("", "", None, (40, 20)),
    "rejected.jpg": ("", "EOS R", -1, (40, 20)),
}


@pytest.fixture(scope="module")
def brought(tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    root = tmp_path_factory.mktemp("brought")
    for number, (path, (make, model, stars, size)) in enumerate(PICTURES.items()):
        made = Image.Exif()
        if make:
            made[0x010F] = make
        if model:
            made[0x0110] = model
        (root / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (40 * number, 90, 200)).save(root / path, exif=made)
        if stars is not None:
            sidecar = (
                '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            )
            sidecar += f'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="{stars}"/>'
            (root / f"{path}.xmp").write_text(sidecar + "</rdf:RDF></x:xmpmeta>")
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    return collection


FORUM, ROMA, STREET, PLAIN, REJECTED = PICTURES


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"camera": "canon"}, {FORUM, ROMA}),
        ({"camera": "EOS R"}, {REJECTED}),  # the whole name of one
        ({"camera": "canon eos r"}, {ROMA}),
        ({"camera": ["zorki 4", "r5"]}, {FORUM, STREET}),
        ({"rating": 1}, {FORUM, ROMA}),
        ({"rating": 3}, {FORUM}),
        ({"orientation": "portrait"}, {ROMA}),
        ({"orientation": "square"}, {STREET}),
        ({"orientation": "landscape", "rating": 4}, {FORUM}),
        ({"named": ["rome", "ROMA"]}, {ROMA}),
        ({"named": ["m\u00dcnchen"]}, {STREET}),
        ({"named": ["strasse"]}, {STREET}),
        ({"named": [".jpg"], "camera": "canon"}, {FORUM, ROMA}),
    ],
)
def test_what_passes_is_what_was_asked_for(brought: Collection, wanted: dict[str, Any], expected: set[str]) -> None:
    passing = brought.images.filter(**wanted)
    assert {path for _, path, _ in brought.images.browse(passing)} == expected
    found = brought.search([Query.of_file(brought.root / PLAIN)], 9, **wanted)
    assert {result.path for result in found} == expected


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"camera": "leica"},
            "no picture is by a camera 'leica'; the cameras are: Canon EOS R, Canon EOS R5, EOS R, Zorki 4",
        ),
        ({"camera": " "}, "no picture is by a camera ' '"),
        ({"rating": 5}, "no picture has 5 stars or more; the best rated one has 4"),
        ({"orientation": "round"}, "there is no orientation 'round'; there are: landscape, portrait, square"),
        ({"named": ["rome", "atlantis"]}, "no image has 'rome' and 'atlantis' in its path"),
    ],
)
def test_what_none_passes_is_said(brought: Collection, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(MasslError, match=said):
        brought.search([Query.of_file(brought.root / PLAIN)], 9, **wanted)


def test_the_outline_follows_files_beside_pictures_that_change(brought: Collection) -> None:
    outline = brought.images.outline()
    assert outline.cameras == {"Canon EOS R": 1, "Canon EOS R5": 1, "EOS R": 1, "Zorki 4": 1}
    assert outline.stars == 4
    beside: Path = brought.root / f"{FORUM}.xmp"
    kept = beside.read_text()
    try:
        beside.write_text(kept.replace('"4"', '"5"'))
        brought.update()
        brought.catalog.set_meta(Meta.checked.to("2030-01-01T00:00:00+00:00"))  # as a second later
        assert brought.images.outline().stars == 5
    finally:
        beside.write_text(kept)
        brought.update()


def test_a_hostile_path_in_a_catalog_is_compared_without_harm() -> None:
    assert folded(b"A\xff\x00") == folded("A\udcff\0")
    assert folded(7) == "7"
