"""Tiles of large pictures: written with them, kept with them, searched, and found by what a whole picture hides."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from indexer import Collection, Encoder, Query
from indexer.search.engines.milvus_engine import Kept
from indexer.search.engines.milvus_server import MilvusServer
from indexer.search.query import Result, embed
from indexer.storage.tiling_fit import TilesMismatch
from indexer.store import tiles
from indexer.store.meta import Meta
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from massl.core.images import row_files, row_reading
from massl.core.images.decoding import Reading, decode
from massl.core.images.fitting import fit
from massl.core.images.rendering import Rendering, RenderingChoice
from tests.massl.core.images.tiff_files import GREY, tiff

SPOT = (150, 203, 180, 233)


def scan(seed: int, size: tuple[int, int] = (192, 320)) -> Image.Image:
    """A cloth of nothing but weave."""
    weave = np.random.default_rng(seed).integers(110, 145, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(weave).resize(size, Image.Resampling.BICUBIC)


def spotted(seed: int) -> Image.Image:
    picture = scan(seed)
    picture.paste((15, 15, 25), SPOT)
    return picture


@pytest.fixture(scope="module")
def cloth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen scans, the seventh with a spot near its edge, and a small picture. Not to be changed."""
    folder = tmp_path_factory.mktemp("cloth") / "scans"
    folder.mkdir()
    for number in range(14):
        (spotted(number) if number == 6 else scan(number)).save(folder / f"{number:02}.png")
    scan(99, (40, 48)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def made(cloth: Path, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of these in tiles of 64. Not to be changed."""
    index = tmp_path_factory.mktemp("index") / "tiled"
    assert Collection.create(cloth, tiny_encoder, index, tiling=Tiling(64, 16)).update().skipped == []
    return index


@pytest.fixture
def tiled(cloth: Path, made: Path, tmp_path: Path, tiny_encoder: Encoder) -> Collection:
    shutil.copytree(cloth, tmp_path / "scans", copy_function=shutil.copy2)
    shutil.copytree(made, tmp_path / "scans" / ".massl")
    opened = Collection.open(tmp_path / "scans")
    opened.storage._encoder = tiny_encoder
    return opened


def spot_query(tmp_path: Path) -> Query:
    x, y = SPOT[0] - 22, SPOT[1] - 11  # the last tile of its row begins at 128, and one of its column at 192
    spotted(6).crop((x, y, x + 64, y + 64)).save(tmp_path / "spot.png")
    return Query.of_file(tmp_path / "spot.png")


def holds(box: tuple[int, int, int, int] | None) -> bool:
    return box is not None and box[0] <= 165 < box[0] + box[2] and box[1] <= 218 < box[1] + box[3]


@given(st.integers(32, 80), st.data(), st.integers(1, 400), st.integers(1, 400))
def test_every_pixel_lies_in_a_tile_and_tiles_lie_inside(
    size: int, data: st.DataObject, width: int, height: int
) -> None:
    tiling = Tiling(size, data.draw(st.integers(0, size // 2)))
    boxes = tiling.boxes(width, height, 8)
    seen = np.zeros((height, width), np.bool_)
    for x, y, across, down in boxes:
        assert 0 <= x <= x + across <= width
        assert 0 <= y <= y + down <= height
        assert across <= size
        seen[y : y + down, x : x + across] = True
    assert seen.all()
    assert len(set(boxes)) == len(boxes)
    assert Tiling.of(str(tiling)) == tiling
    assert (len(boxes) == 1) == (max(width, height) <= size)


def test_neighbours_overlap_by_what_was_asked() -> None:
    first = [box[0] for box in Tiling(64, 16).boxes(1000, 64)]
    assert {after - before for before, after in pairwise(first[:-1])} == {48}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "32 to 16,384 pixels"),
        ("13", "32 to 16,384 pixels"),
        ("512:512", "overlap by 256 at most, not by 512"),
        ("-5", "not '-5'"),
        ("512:", "not '512:'"),
        ("many", "not 'many'"),
    ],
)
def test_what_is_no_tile_size_is_a_line(text: str, said: str) -> None:
    with pytest.raises(MasslError, match=said):
        Tiling.of(text)


def test_a_spot_that_the_whole_hides_is_found_first_and_where_it_is(tiled: Collection, tmp_path: Path) -> None:
    query = spot_query(tmp_path)
    for exact in (False, True):
        found = tiled.search([query], 5, exact=exact)
        assert found[0].path == "06.png"
        assert holds(found[0].box)
    few = [tiled.images.id_of(name) for name in ("03.png", "06.png")]
    tiled.labels.add("few", few, "test")
    best = tiled.search([query], 20, label="few")[0]
    assert (best.path, holds(best.box)) == ("06.png", True)
    assert {result.image for result in tiled.search([query], 20, label="few")} == set(few)
    odd = tiled.anomalies.find()
    best = next(item for item in odd.images if item.path != "small.png")
    assert (best.path, len(odd.images)) == ("06.png", 15)
    assert holds(best.box)
    assert tiled.anomalies.by_image()[1][5:8].argmax() == 1


def test_a_hit_by_a_tile_is_judged_by_what_tiles_score_by_chance(tiled: Collection, tmp_path: Path) -> None:
    found = tiled.search([spot_query(tmp_path)], 15)
    assert (found[0].path, found[0].match) == ("06.png", "same")  # it is the very tile
    assert found[0].false_matches < 0.1
    assert {result.match for result in found[1:]} == {"weak"}
    # Parts of scans without a spot are like all others: about one result of each search seems to be more.
    called = []
    for number in (0, 2, 3, 5, 8, 9, 11, 12):
        part = Query(image=tiled.images.id_of(f"{number:02}.png"), crop=(20 + 5 * number, 9 * number, 64, 64))
        called.append(sum(result.match != "weak" for result in tiled.search([part], 14)))
    assert np.mean(called) <= 2.5  # 14, if chance were not known
    # As before where that is not known, as of a collection of before.
    tiled.catalog.forget_meta(Meta.calibration_tiles)
    assert tiled.search([spot_query(tmp_path)], 1)[0].score == found[0].score


def test_a_picture_is_as_good_as_the_better_of_its_whole_and_its_tiles(tiled: Collection, tmp_path: Path) -> None:
    """By every tile of all pictures, one by one."""
    target = tiled.encoder.embed([tiled.encoder.prepare(Image.open(tmp_path / "scans" / "03.png"))])[0]
    found = tiled.search([Query.of_file(tmp_path / "scans" / "03.png")], 15)
    places = tiles.places(tiled.catalog)
    (_, vectors) = next(tiles.TileVectors(tiled.catalog).blocks())
    cosines = vectors.astype(np.float32) @ target
    assert len(found) == 15
    for result in found:
        best = float(cosines[places.images == result.image].max())
        if result.box is not None:
            assert result.score == pytest.approx(best, abs=2e-3)
        assert result.score >= best - 2e-3
    assert found[0].path == "03.png"
    assert found[0].box is None  # the whole is itself


def test_tiles_follow_their_pictures_and_the_index_follows_them(
    tiled: Collection, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    query, scans = spot_query(tmp_path), tmp_path / "scans"
    tiled.search([query])
    before = tiles.count(tiled.catalog)
    (scans / "06.png").rename(scans / "moved.png")
    shutil.copy(scans / "moved.png", scans / "twin.png")
    (scans / "00.png").unlink()
    scan(50, (64, 64)).save(scans / "01.png")
    report = tiled.update()
    assert (report.moved, report.added, report.removed, report.changed) == (1, 1, 1, 1)
    each = len(Tiling(64, 16).boxes(192, 320))
    assert tiles.count(tiled.catalog) == before - each + 1  # one more, one gone, one that became a single tile
    found = tiled.search([query], 3)
    assert {found[0].path, found[1].path} == {"moved.png", "twin.png"}
    assert holds(found[0].box)
    assert holds(found[1].box)
    same_as_new(tiled, query, scans, tmp_path / "new", tiny_encoder)


def same_as_new(tiled: Collection, query: Query, scans: Path, index: Path, encoder: Encoder) -> None:
    def told(results: list[Result]) -> list[object]:
        return sorted((result.path, round(result.score, 3), result.box) for result in results)

    fresh = Collection.create(scans, encoder, index, tiling=Tiling(64, 16))
    fresh.update()
    assert told(tiled.search([query], 30)) == told(fresh.search([query], 30))


@pytest.mark.skipif(importlib.util.find_spec("milvus_lite") is None, reason="needs pip install milvus-lite")
def test_milvus_finds_tiles_by_filters_follows_changes_and_forgets_them(
    tiled: Collection, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    query, scans, address = spot_query(tmp_path), tmp_path / "scans", str(tmp_path / "vectors.db")
    few = [tiled.images.id_of(name) for name in ("03.png", "06.png")]
    tiled.labels.add("few", few, "test")
    wanted = [(item.path, item.box, round(item.score, 4)) for item in tiled.search([query], 15)]
    odd = [(item.path, item.box) for item in tiled.anomalies.find().images]
    tiled.searcher.use_engine("milvus", address)
    assert [(item.path, item.box, round(item.score, 4)) for item in tiled.search([query], 15)] == wanted
    assert [(item.path, item.box) for item in tiled.anomalies.find().images] == odd
    assert {item.image for item in tiled.search([query], 20, label="few")} == set(few)
    (scans / "sub").mkdir()
    (scans / "06.png").rename(scans / "sub" / "moved.png")
    shutil.copy(scans / "sub" / "moved.png", scans / "twin.png")
    (scans / "00.png").unlink()
    tiled.update()
    assert [item.path for item in tiled.search([query], 20, under="sub")] == ["sub/moved.png"]
    found = tiled.search([query], 3)
    assert {found[0].path, found[1].path} == {"sub/moved.png", "twin.png"}
    assert (holds(found[0].box), holds(found[1].box)) == (True, True)
    same_as_new(tiled, query, scans, tmp_path / "new", tiny_encoder)
    server = MilvusServer(address)
    kept = Kept.of(tiled.catalog.meta().engine_kept_tiles)
    assert server.count(kept.collection) == tiles.count(tiled.catalog)
    tiled.close()
    whole = Collection.create(scans, tiny_encoder, tiling=Tiling())
    whole.update()
    assert server.stamp(kept.collection) is None
    assert whole.search([query], 1)[0].box is None


def test_another_size_is_refused_and_rebuilt_and_none_goes_back(tiled: Collection, tiny_encoder: Encoder) -> None:
    root = tiled.root
    with pytest.raises(TilesMismatch, match=r"tiles of 64:16 pixels, not with tiles of 96; .* --tiles 96 --rebuild"):
        Collection.create(root, tiny_encoder, tiling=Tiling(96))
    assert Collection.create(root, tiny_encoder).update().unchanged == 15
    # OpenVINO may compute in bfloat16, and is taken for many tiles, not for few pictures.
    again = Collection.create(root, tiny_encoder, rebuild=True, tiling=Tiling(96), runtime="onnxruntime")
    assert again.update().embedded == 15
    assert {tuple(box[2:]) for box in tiles.places(again.catalog).boxes.tolist()} == {(96, 96), (40, 48)}
    whole = Collection.create(root, tiny_encoder, tiling=Tiling())
    assert whole.update().unchanged == 15
    assert tiles.count(whole.catalog) == 0
    plain = Collection.create(root, tiny_encoder, root.parent / "plain", runtime="onnxruntime")
    plain.update()
    query = Query.of_file(root / "02.png")
    found, wanted = whole.search([query], 15), plain.search([query], 15)
    assert [(result.path, result.box) for result in found] == [(result.path, None) for result in wanted]
    with pytest.raises(TilesMismatch, match="indexed without tiles, not with tiles of 64"):
        Collection.create(root, tiny_encoder, tiling=Tiling(64))


def test_a_picture_that_is_damaged_in_its_middle_leaves_no_tiles(tiled: Collection) -> None:
    broken = bytearray((tiled.root / "05.png").read_bytes())
    broken[len(broken) // 2 : len(broken) // 2 + 64] = bytes(64)
    (tiled.root / "05.png").write_bytes(broken)
    before = tiles.count(tiled.catalog)
    report = tiled.update()
    assert [item.path for item in report.skipped] == ["05.png"]
    assert tiles.count(tiled.catalog) == before - len(Tiling(64, 16).boxes(192, 320))


def test_killed_at_its_commit_a_run_leaves_pictures_with_all_their_tiles_or_none(
    cloth: Path, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    code = f"""if True:
        import os, signal, sqlite3
        from indexer import Collection, Encoder; from indexer.store import catalog
        from indexer.store.tiling import Tiling
        class Killed(sqlite3.Connection):
            written = 0
            def executemany(self, statement, *arguments):
                self.written += "INTO tiles" in statement
                if self.written == 9:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().executemany(statement, *arguments)
        connect = sqlite3.connect
        catalog.sqlite3.connect = lambda *a, **k: connect(*a, factory=Killed, **k)
        encoder = Encoder.load({str(tiny_encoder.path)!r})
        Collection.create({str(cloth)!r}, encoder, {str(tmp_path / "index")!r}, tiling=Tiling(64, 16)).update()"""
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == -signal.SIGKILL
    going_on = Collection.create(cloth, tiny_encoder, tmp_path / "index")
    assert tiles.count(going_on.catalog) == 0
    assert going_on.update().embedded == 15
    assert tiles.count(going_on.catalog) == 14 * len(Tiling(64, 16).boxes(192, 320)) + 1  # the small one


def test_a_damaged_tile_is_found_and_the_repaired_index_has_its_tiles(tiled: Collection, tiny_encoder: Encoder) -> None:
    count = tiles.count(tiled.catalog)
    tiled.close()
    with sqlite3.connect(tiled.catalog.path) as connection:
        connection.execute("UPDATE tiles SET embedding = zeroblob(32) WHERE id = 3")
        connection.execute("UPDATE meta SET value = '2000-01-01', checksum = NULL WHERE key = 'verified'")
    connection.close()
    repaired = Collection.create(tiled.root, tiny_encoder)
    repaired.update()
    assert tiles.count(repaired.catalog) == count
    assert repaired.meta.tiles == Tiling(64, 16)


def test_a_picture_with_too_many_tiles_is_skipped_with_what_to_do(tmp_path: Path, tiny_encoder: Encoder) -> None:
    (tmp_path / "scans").mkdir()
    scan(0).save(tmp_path / "scans" / "fine.png")
    Image.new("L", (8_000, 8_000)).save(tmp_path / "scans" / "vast.png", compress_level=1)
    made = Collection.create(tmp_path / "scans", tiny_encoder, tiling=Tiling(32, 16))
    (skipped,) = made.update().skipped
    assert (skipped.path, "more than 100,000 tiles of 32:16 pixels" in skipped.reason) == ("vast.png", True)


def test_one_rebuild_takes_another_range_and_tiles_and_both_hold_for_every_tile(
    tmp_path: Path, tiny_encoder: Encoder
) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    for number in range(9):
        values = np.random.default_rng(number).gamma(2, 300, (96, 160, 1)).astype("u2")
        (root / f"{number}.tif").write_bytes(tiff(values, GREY))
    before = Collection.create(root, tiny_encoder)
    before.update()
    assert before.meta.kind_ranges["uint16"].limits != (100.0, 900.0)
    shown = RenderingChoice("100:900")
    again = Collection.create(root, tiny_encoder, rebuild=True, shown=shown, tiling=Tiling(64), runtime="onnxruntime")
    assert again.update().embedded == 9
    assert (again.meta.display_range, str(again.meta.tiles)) == ("100:900", "64")
    places = tiles.places(again.catalog)
    (_, vectors) = next(tiles.TileVectors(again.catalog).blocks())
    paths = dict(again.images.ready())
    for image, box, vector in zip(places.images.tolist(), places.boxes.tolist(), vectors, strict=True):
        picture = decode((root / paths[image]).read_bytes(), rendering=Rendering(fixed=(100, 900))).picture
        x, y, width, height = box
        wanted = tiny_encoder.embed([tiny_encoder.prepare(picture.crop((x, y, x + width, y + height)))])[0]
        assert np.allclose(vector, wanted, atol=2e-3)


@given(st.integers(32, 80), st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_tile_about_a_part_holds_it_and_lies_inside(size: int, width: int, height: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    part = x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    left, top, across, down = Tiling(size).about(part, width, height, 8)
    assert 0 <= left <= x
    assert 0 <= top <= y
    assert x + part[2] <= left + across <= width
    assert y + part[3] <= top + down <= height
    tiles_of_it = Tiling(size).boxes(width, height, 8)
    if max(width, height) > size:
        assert across == max(part[2], tiles_of_it[0][2])
        assert down == max(part[3], tiles_of_it[0][3])


def test_a_small_part_is_looked_for_as_tiles_show_it(tiled: Collection, tmp_path: Path) -> None:
    spotted(6).save(tmp_path / "asked.png")
    x, y = SPOT[0] + 5, SPOT[1] + 5
    # Of twenty pixels from within the spot alone, nothing could be said: it is black.
    found = tiled.search([Query.of_file(tmp_path / "asked.png", crop=(x, y, 20, 20))], 3)
    assert (found[0].path, holds(found[0].box)) == ("06.png", True)


def test_a_part_is_compared_with_tiles_at_their_scale(tiled: Collection) -> None:
    side = tiled.encoder.image_size

    def tile(x: int) -> np.ndarray:
        part = scan(3).crop((x, 48, x + 64, 112))
        return tiled.encoder.embed([np.asarray(fit(part, side, side))])[0]

    for asked, vector in (
        ((48, 48, 64, 64), tile(48)),  # a tile of the collection
        ((70, 65, 20, 30), tile(48)),  # a smaller part: the tile about it
        ((0, 48, 192, 64), tile(0) + tile(64) + tile(128)),  # a larger one: the tiles it is cut into
    ):
        query = Query(image=tiled.images.id_of("03.png"), crop=asked)
        target = embed([query], tiled.catalog, tiled.root, lambda: tiled.encoder)
        assert target == pytest.approx(vector / np.linalg.norm(vector), abs=1e-5), asked


def test_a_part_of_a_large_scan_is_read_without_decoding_the_whole(
    tiled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Query.of_file(tmp_path / "scans" / "06.png", crop=(*SPOT[:2], 20, 20))
    before = [(result.path, result.score) for result in tiled.search([part], 14)]
    monkeypatch.setattr(row_reading, "LARGE", 1)
    monkeypatch.setattr(row_files, "_BAND", 11 * 192)
    monkeypatch.setattr(Reading, "as_it_is", None)
    monkeypatch.setattr(Reading, "decoded", None)
    assert [(result.path, result.score) for result in tiled.search([part], 14)] == before
    with pytest.raises(MasslError, match=r"crop 0,0,193,20 is not inside .*06.png, which is 192 x 320 pixels"):
        tiled.search([Query.of_file(tmp_path / "scans" / "06.png", crop=(0, 0, 193, 20))], 14)
