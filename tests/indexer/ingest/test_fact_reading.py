"""What pictures bring with them and what is measured of them: read once, and again where it changed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder, Query
from indexer.ingest import fact_reading, indexing
from indexer.store.damage import CatalogDamaged
from indexer.store.filters import Filter, days, days_taken
from massl.core.errors import MasslError
from massl.core.images.metadata import Metadata
from tests.indexer.former import write_as_format
from tests.massl.core.images.test_metadata import packet, words

DAYS = ["2019:12:31 23:59:59", "2020:01:01 00:00:00", "2024:05:01 12:34:56", None]


def write_picture(path: Path, number: int, taken: str | None = None) -> Path:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    made = Image.Exif()
    if taken:
        made.get_ifd(0x8769)[0x9003] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((320, 240)).save(path, exif=made)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight pictures, two of each of `DAYS`; their files are of 2022."""
    for number in range(8):
        file = write_picture(tmp_path / "photos" / f"{number}.jpg", number, DAYS[number // 2])
        moment = datetime(2022, 6, 15, 12).timestamp()
        os.utime(file, (moment, moment))
    return tmp_path / "photos"


@pytest.fixture
def dated(root: Path, tiny_encoder: Encoder) -> Collection:
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    return collection


def known(collection: Collection, path: str) -> Metadata:
    found = collection.images.facts(collection.images.id_of(path)).metadata
    assert found is not None
    return found


def test_each_new_picture_is_read_and_measured_once(dated: Collection) -> None:
    assert [known(dated, f"{number}.jpg").taken for number in (0, 2, 4, 6)] == [
        "2019-12-31T23:59:59", "2020-01-01T00:00:00", "2024-05-01T12:34:56", None,
    ]  # fmt: skip
    assert all(dated.images.facts(image).measures is not None for image, _ in dated.images.ready())
    stages: list[str] = []
    dated.update(lambda progress: stages.append(progress.stage))
    assert not {"read", "measure"} & set(stages)


def test_a_sidecar_that_comes_changes_and_goes_is_noticed_and_nothing_is_embedded(dated: Collection) -> None:
    beside = dated.root / "3.jpg.xmp"
    for content, rating in ((packet('xmp:Rating="3"'), 3), (packet('xmp:Rating="5"', words("sea")), 5), (None, None)):
        if content is None:
            beside.unlink()
        else:
            beside.write_bytes(content)
        assert dated.update().embedded == 0
        assert known(dated, "3.jpg").rating == rating
    assert known(dated, "3.jpg").taken == DAYS[1].replace(":", "-", 2).replace(" ", "T")  # type: ignore[union-attr]


def test_a_sidecar_is_its_pictures_wherever_that_moves(dated: Collection) -> None:
    (dated.root / "3.jpg.xmp").write_bytes(packet('xmp:Rating="3"'))
    dated.update()
    (dated.root / "elsewhere").mkdir()
    (dated.root / "3.jpg").rename(dated.root / "elsewhere" / "3.jpg")
    dated.update()
    assert known(dated, "elsewhere/3.jpg").rating is None
    (dated.root / "3.jpg.xmp").rename(dated.root / "elsewhere" / "3.jpg.xmp")
    dated.update()
    assert known(dated, "elsewhere/3.jpg").rating == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_sidecar_that_is_no_file_is_left_alone(dated: Collection) -> None:
    os.mkfifo(dated.root / "1.jpg.xmp")
    (dated.root / "2.jpg.xmp").mkdir()
    (dated.root / "3.jpg.xmp").symlink_to("/etc/passwd")
    dated.update()
    assert [known(dated, f"{number}.jpg").trouble for number in (1, 2, 3)] == ["", "", ""]


def test_an_edit_forgets_what_was_known_of_the_former_content(dated: Collection) -> None:
    before = dated.images.facts(dated.images.id_of("0.jpg"))
    write_picture(dated.root / "0.jpg", 77, DAYS[2])
    assert dated.update().changed == 1
    after = dated.images.facts(before.image)
    assert after.metadata is not None
    assert after.metadata.taken == "2024-05-01T12:34:56"
    assert after.measures != before.measures


def test_a_copy_is_measured_by_its_like(dated: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(dated.root / "5.jpg", dated.root / "copy.jpg")
    for module in (fact_reading, indexing):
        monkeypatch.setattr(module, "measure", None)  # whoever calls it fails
    dated.update()
    one, other = (dated.images.facts(dated.images.id_of(name)) for name in ("5.jpg", "copy.jpg"))
    assert one.measures is not None
    assert one.measures == other.measures
    assert one.metadata == other.metadata


def test_dates_are_read_of_all_before_any_pixel_is(dated: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    dated.catalog.close()
    write_as_format(dated.folder / "catalog.sqlite", 5)
    opened = Collection.open(dated.root)

    class Decoded(Exception):
        pass

    def decode(*given: object) -> None:
        raise Decoded

    monkeypatch.setattr(fact_reading, "decode", decode)
    with pytest.raises(Decoded):
        opened.update()
    assert known(opened, "4.jpg").taken == "2024-05-01T12:34:56"
    assert opened.images.facts(1).measures is None


@pytest.mark.parametrize("step", ["read", "measure"])
def test_a_killed_run_goes_on_where_it_stopped(dated: Collection, step: str) -> None:
    dated.catalog.close()
    write_as_format(dated.folder / "catalog.sqlite", 5)
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from indexer import Collection; from indexer.ingest import fact_reading
        fact_reading.BATCH = 3
        def report(progress):
            if progress.stage == {step!r} and progress.done == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        Collection.open(Path({str(dated.root)!r})).update(report)"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    opened = Collection.open(dated.root)
    facts = [opened.images.facts(image) for image, _ in opened.images.ready()]
    done = [fact.metadata if step == "read" else fact.measures for fact in facts]
    assert sum(each is not None for each in done) == 6
    seen: list[int] = []
    opened.update(lambda progress: seen.append(progress.total) if progress.stage == step else None)
    assert set(seen) == {2}
    assert all(opened.images.facts(image).measures for image, _ in opened.images.ready())


def test_a_fact_that_the_disk_changed_is_damage_and_a_repair_reads_it_anew(
    dated: Collection, tiny_encoder: Encoder
) -> None:
    dated.labels.add("sea", [1, 2], "me")
    dated.catalog.close()
    with closing(sqlite3.connect(dated.folder / "catalog.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE file_metadata SET taken = '2024-05-02T12:34:56' WHERE image = 5")
    with pytest.raises(CatalogDamaged, match="1 picture fact changed"):
        Collection.open(dated.root)
    repaired = Collection.create(dated.root, tiny_encoder)
    assert repaired.update().embedded == 0
    assert known(repaired, "4.jpg").taken == "2024-05-01T12:34:56"
    assert len(repaired.labels.every()) == 2


@pytest.mark.parametrize(
    ("since", "until", "taken", "or_modified"),
    [
        (date(2020, 1, 1), None, {2, 3, 4, 5}, {2, 3, 4, 5, 6, 7}),
        (None, date(2019, 12, 31), {0, 1}, {0, 1}),
        (date(2019, 12, 31), date(2020, 1, 1), {0, 1, 2, 3}, {0, 1, 2, 3}),
        (date(2022, 6, 15), date(2022, 6, 15), set(), {6, 7}),
        (date(1, 1, 1), date(9999, 12, 31), {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5, 6, 7}),
    ],
)
def test_a_day_is_when_it_was_taken_and_the_files_own_only_if_that_is_asked_for(
    dated: Collection, since: date | None, until: date | None, taken: set[int], or_modified: set[int]
) -> None:
    for also, expected in ((False, taken), (True, or_modified)):
        wanted = Filter(taken_since=since, taken_until=until, or_modified=also)
        assert (
            {path for _, path, _ in dated.images.browse(wanted)} == {f"{number}.jpg" for number in expected}
            if (expected)
            else dated.images.count(wanted) == 0
        )
        assert dated.images.count(wanted) == len(expected)
        if expected:
            found = dated.searcher.rank([Query(image=1)], 8, wanted)
            assert {dated.images.paths_of([int(image)])[0] for image in found.images} == {
                f"{number}.jpg" for number in expected if number != 0
            }


def test_what_no_picture_was_taken_in_is_said_with_the_days_that_there_are(dated: Collection) -> None:
    with pytest.raises(
        MasslError, match="since 2030-01-01; the pictures that say it are from 2019-12-31 to 2024-05-01"
    ):
        dated.search([Query(image=1)], 3, taken=(date(2030, 1, 1), None))
    with pytest.raises(MasslError, match="change one of the two dates"):
        dated.search([Query(image=1)], 3, taken=(date(2030, 1, 1), date(2029, 1, 1)))
    assert days_taken(dated.catalog) == (date(2019, 12, 31), date(2024, 5, 1))
    assert days(dated.catalog) == (date(2019, 12, 31), date(2024, 5, 1))


def test_results_tell_when_they_were_taken(dated: Collection) -> None:
    found = {result.path: result.taken for result in dated.search([Query(image=1)], 8)}
    assert found["4.jpg"] == "2024-05-01T12:34:56"
    assert found["6.jpg"] is None
