"""`massl index --tiles` as a person runs it, and what search, odd and info say of a collection with tiles."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran, failed
from tests.indexer.test_tiles import SPOT, holds, scan, spotted
from tests.indexer.tiny import write_encoder

Massl = Callable[..., Ran]
COUNT = 14
EACH = 7 * 4  # tiles of 64 pixels that overlap by 16, of 192 x 320


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of which the seventh has a spot, and an encoder beside their folder. Not to be changed."""
    folder = tmp_path_factory.mktemp("scans") / "scans"
    folder.mkdir()
    write_encoder(folder.parent / "tiny.onnx")
    for number in range(COUNT):
        (spotted(number) if number == 6 else scan(number)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def cloth(scans: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scans, tmp_path / "cloth")


def crop(box: tuple[int, int, int, int]) -> str:
    """The square of a tile around the spot."""
    x, y = box[0] - 22, box[1] - 11
    return f"{x},{y},64,64"


def test_a_small_thing_in_a_scan_is_found_by_search_and_odd_with_its_place(
    massl: Massl, scans: Path, cloth: Path, tmp_path: Path
) -> None:
    index = ("index", cloth, "--encoder", scans.parent / "tiny.onnx", "--runtime", "onnxruntime", "--json")
    query = ("search", cloth, tmp_path / "spot.png", "-k", COUNT)
    spotted(6).crop((128, 192, 192, 256)).save(tmp_path / "spot.png")
    assert massl(*index).json["indexed"] == COUNT
    before = massl(*query, "--json").json["results"]
    assert all(set(row) == {"rank", "path", "score", "match", "false_matches", "label", "taken"} for row in before)
    assert json.loads(massl("info", cloth, "--json").output)["tiles"] is None

    line = failed(massl(*index, "--tiles", "64:16"), 4)
    assert "was indexed without tiles, not with tiles of 64:16" in line
    assert line.endswith("--tiles 64:16 --rebuild")
    assert massl(*index, "--tiles", "64:16", "--rebuild").json["indexed"] == COUNT
    assert massl("info", cloth, "--json").json["tiles"] == {"size": 64, "overlap": 16, "count": COUNT * EACH}
    assert f"{COUNT * EACH:,} of 64 pixels, overlapping by 16" in massl("info", cloth).output

    first = massl(*query, "--json").json["results"][0]
    assert (first["path"], holds(tuple(first["box"]))) == ("06.png", True)
    assert "at " + ",".join(map(str, first["box"])) in massl(*query).output.splitlines()[0]
    part = massl("search", cloth, cloth / "06.png", "--crop", crop(SPOT), "--json").json["results"]
    assert [row["path"] for row in part].count("06.png") == 1
    odd = massl("odd", cloth, "--json").json["results"][0]
    assert (odd["path"], holds(tuple(odd["box"]))) == ("06.png", True)
    assert "at " + ",".join(map(str, odd["box"])) in massl("odd", cloth).output.splitlines()[0]

    assert "tiles of 64:16 pixels, not with tiles of 96" in failed(massl(*index, "--tiles", "96"), 4)
    assert massl(*index).json["unchanged"] == COUNT  # remembered
    assert massl(*index, "--tiles", "none").json["unchanged"] == COUNT
    assert massl("info", cloth, "--json").json["tiles"] is None
    assert [(row["path"], "box" in row) for row in massl(*query, "--json").json["results"]] == [
        (row["path"], False) for row in before
    ]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("0", "32 to 16,384"),
        ("8", "32 to 16,384"),
        ("512:512", "overlap by 256"),
        ("-4", "a size in pixels"),
        ("512:x", "a size in pixels"),
    ],
)
def test_a_size_that_is_none_is_a_line_and_nothing_is_embedded(massl: Massl, scans: Path, size: str, said: str) -> None:
    ran = massl("index", scans, f"--tiles={size}", "--encoder", scans.parent / "tiny.onnx")
    assert (ran.code, ran.output) == (2, "")
    assert said in " ".join(ran.error.replace("│", " ").split())
    assert not (scans / ".massl").exists()


@pytest.mark.skipif(importlib.util.find_spec("milvus_lite") is None, reason="needs pip install milvus-lite")
def test_tiles_are_searched_by_milvus_as_by_faiss(massl: Massl, scans: Path, cloth: Path, tmp_path: Path) -> None:
    index = ("index", cloth, "--encoder", scans.parent / "tiny.onnx", "--runtime", "onnxruntime")
    spotted(6).crop((128, 192, 192, 256)).save(tmp_path / "spot.png")
    query = ("search", cloth, tmp_path / "spot.png", "-k", COUNT, "--json")
    assert massl(*index, "--tiles", "64:16").code == 0
    wanted = massl(*query).json["results"]
    assert massl(*index, "--engine", "milvus", "--engine-uri", tmp_path / "vectors.db").code == 0
    found = massl(*query).json["results"]
    assert [(row["path"], row.get("box")) for row in found] == [(row["path"], row.get("box")) for row in wanted]
    assert (found[0]["path"], holds(tuple(found[0]["box"]))) == ("06.png", True)
