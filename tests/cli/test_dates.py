"""`massl search` by the day taken, and `massl info` of a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.screens.health_cards import pictures
from indexer import Collection
from tests.cli.conftest import failed
from tests.massl.core.images.test_metadata import packet, words

DAYS = {"old.jpg": "2001:02:03 04:05:06", "new.jpg": "2024:05:01 12:34:56", "none.jpg": None}


@pytest.fixture
def photos(tmp_path: Path, massl: Any) -> Path:
    root = tmp_path / "dated"
    root.mkdir()
    for number, (name, taken) in enumerate(DAYS.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        made = Image.Exif()
        made[0x0110] = "EOS \x1b[31mR5"
        if taken:
            made.get_ifd(0x8769)[0x9003] = taken
        Image.fromarray(pixels).resize((360, 240)).save(root / name, exif=made)
    (root / "old.jpg.xmp").write_bytes(packet('xmp:Rating="4"', words("sea", "harbour")))
    assert "33 % of an average picture lies outside of its middle square" in massl("index", root).error
    return root


def test_search_is_confined_to_days_and_sorted_by_them(massl: Any, photos: Path) -> None:
    def found(*options: str) -> list[str]:
        ran = massl("search", photos, photos / "none.jpg", "--paths", *options)
        assert ran.code == 0, ran.error
        return list(ran.output.splitlines())

    assert found("--taken-since", "2002-01-01") == ["new.jpg"]
    assert found("--taken-until", "2001-02-03") == ["old.jpg"]
    assert found("--sort", "taken") == ["old.jpg", "new.jpg", "none.jpg"]
    rows = massl("search", photos, photos / "none.jpg", "--sort", "taken", "--json").json["results"]
    assert [row["taken"] for row in rows] == ["2001-02-03T04:05:06", "2024-05-01T12:34:56", None]
    assert sorted(row["rank"] for row in rows) == [1, 2, 3]
    assert rows[2]["rank"] == 1  # the picture itself is the most similar one, whatever the order
    plain = massl("search", photos, photos / "none.jpg", "--sort", "taken").output.splitlines()
    assert [line.split()[3] for line in plain] == ["2001-02-03", "2024-05-01", "none.jpg"]
    os.utime(photos / "none.jpg", (1_577_880_000, 1_577_880_000))  # 2020-01-01
    massl("index", photos)
    assert found("--sort", "oldest") == ["old.jpg", "none.jpg", "new.jpg"]
    assert found("--sort", "newest") == ["new.jpg", "none.jpg", "old.jpg"]
    plain = massl("search", photos, photos / "none.jpg", "--sort", "newest").output.splitlines()
    assert [line.split()[3] for line in plain] == ["2024-05-01", "2020-01-01", "2001-02-03"]
    sizes = {path.name: path.stat().st_size for path in photos.glob("*.jpg")}
    assert found("--sort", "size") == sorted(sizes, key=lambda name: (-sizes[name], name))
    assert found("--sort", "folder") == sorted(sizes)
    refused = failed(massl("search", photos, photos / "none.jpg", "--taken-since", "2030-01-01"))
    assert "the pictures that say it are from 2001-02-03 to 2024-05-01" in refused
    assert massl("search", photos, photos / "none.jpg", "--taken-since", "May").code == 2


def test_search_and_select_are_confined_to_what_pictures_bring(massl: Any, photos: Path) -> None:
    massl("tag", "add", photos, "beach", photos / "old.jpg", photos / "none.jpg")
    for given, expected in (
        (("--rating", "4"), ["old.jpg"]),
        (("--camera", "r5", "--without-tag", "beach"), ["new.jpg"]),
        (("--orientation", "landscape", "--named", "NONE"), ["none.jpg"]),
        (("--taken-since", "2002-01-01"), ["new.jpg"]),
    ):
        for command in ("search", "select"):
            ran = massl(command, photos, "--paths", *given)
            assert (ran.code, ran.output.splitlines()) == (0, expected), (command, given, ran.error)
    assert "the best rated one has 4" in failed(massl("select", photos, "--rating", "5"))
    assert "no picture is unusual" in failed(massl("search", photos, "--quality", "unusual", "-q"))
    for wrong in (("--rating", "9"), ("--orientation", "round"), ("--since", "May")):
        assert massl("select", photos, *wrong).code == 2


def test_info_of_a_picture_says_what_it_brings_with_it(massl: Any, photos: Path) -> None:
    told = massl("info", photos / "old.jpg").output
    assert "taken     2001-02-03 04:05:06" in told
    assert "rating    4 of 5" in told
    assert "keywords  sea, harbour" in told
    assert "sidecar   old.jpg.xmp" in told
    assert "\x1b" not in told
    assert "taken    not known" in massl("info", photos / "none.jpg").output
    found = massl("info", photos / "old.jpg", "--json").json
    assert (found["kind"], found["width"], found["height"], found["sidecar"]) == ("picture", 360, 240, "old.jpg.xmp")
    assert found["metadata"]["keywords"] == ["sea", "harbour"]


def test_info_of_a_picture_says_what_is_wrong_with_its_sidecar_and_of_a_file_that_is_none(
    massl: Any, photos: Path
) -> None:
    (photos / "new.jpg.xmp").write_bytes(b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    assert "sidecar  not read: it has a document type" in massl("info", photos / "new.jpg").output
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff" + b"no picture")
    assert "broken.jpg" in failed(massl("info", photos / "broken.jpg"))


def test_info_of_a_collection_counts_planes_and_hints_and_says_what_is_not_seen(massl: Any, photos: Path) -> None:
    pages = [Image.fromarray(np.full((240, 900), 120 + number, np.uint8)) for number in range(5)]
    pages[0].save(photos / "pages.tif", save_all=True, append_images=pages[1:])
    indexed = massl("index", photos).error
    assert "lies outside of its middle square" not in indexed  # that was said the first time
    assert "1 file holds several pictures, of which the first is read" in indexed
    assert "several pictures" not in massl("index", photos).error
    told = massl("info", photos).output
    assert "of which the first is read: 1 with 5" in told
    assert "1 one-colour" in told
    assert "outside of its middle square" in told
    collection = Collection.open(photos)
    on_health = {each["name"]: each["value"] for each in pictures(collection.images, collection.meta)["facts"]}
    assert on_health["Planes"].endswith("of which the first is read: 1 with 5")
    assert "outside of its middle square" in on_health["Not seen"]
    found = massl("info", photos, "--json").json
    assert found["several_planes"] == {"5": 1}
    assert found["quality"]["one-colour"]["images"] == 1
    assert 0.2 < found["unseen_share"] < 0.5
    assert "5 in this file; the first one is shown and compared" in massl("info", photos / "pages.tif").output
    ran = massl("search", photos, photos / "old.jpg", "--quality", "one-colour", "--paths")
    assert ran.output.split() == ["pages.tif"]
