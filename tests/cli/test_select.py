"""`massl select` as a person runs it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import failed

ROOT = Path(__file__).parent.parent.parent


def test_a_subset_is_listed_written_and_placed(massl, indexed: Path, tmp_path: Path) -> None:
    table, folder = tmp_path / "subset.csv", tmp_path / "subset"
    ran = massl("select", indexed, "-n", 6, "--curve", "--csv", table, "--copy-to", folder, "--json")
    found = ran.json
    assert set(found) == {"schema", "results", "among", "curve"}
    assert set(found["results"][0]) == {"rank", "path", "label"}
    assert [row["images"] for row in found["curve"]] == [1, 2, 5, 6]
    paths = [row["path"] for row in found["results"]]
    assert [row["path"] for row in csv.DictReader(table.open(newline=""))] == paths
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg")) == sorted(paths)
    plain = massl("select", indexed, "-n", 6, "--paths")
    assert plain.output.splitlines() == paths
    assert "6 of 24 images" in plain.error
    assert massl("select", indexed, "-n", 6, "-0", "-q").output.split("\0") == [*paths, ""]
    assert "mean similarity" in massl("select", indexed, "-n", 2, "--by", "typical", "--curve").error


def test_all_images_are_split_into_an_image_folder(massl, indexed: Path, tmp_path: Path) -> None:
    folder, table = tmp_path / "dataset", tmp_path / "split.csv"
    arguments = ("--split", "train=0.5,test=0.5", "--link-to", folder, "--csv", table)
    found = massl("select", indexed, *arguments, "--json").json
    assert found["split"]["parts"] == {"train": 12, "test": 12}
    assert len(list(folder.glob("*/*/*.jpg"))) == 24
    assert {path.parent.name for path in folder.glob("*/*/*.jpg")} == {"flag", "fruit", "space", "painting"}
    rows = list(csv.DictReader(table.open(newline="")))
    assert {(folder / row["target"]).resolve() for row in rows} == {(indexed / row["path"]).resolve() for row in rows}


def test_a_split_counts_what_has_a_class_not_what_was_looked_at(massl, indexed: Path, tmp_path: Path) -> None:
    some = sorted(str(path.relative_to(indexed)) for path in indexed.glob("f*/*.jpg"))[:4]
    assert massl("label", "add", indexed, "thing", *some).code == 0
    told = massl("select", indexed, "--split", "train=0.5,test=0.5", "--csv", tmp_path / "split.csv").error
    assert massl("label", "remove", indexed, *some).code == 0
    assert "4 of 24 images" in told
    assert "24 of 24" not in told


def test_what_goes_into_a_table_or_a_folder_is_not_listed_as_well(massl, indexed: Path, tmp_path: Path) -> None:
    ran = massl("select", indexed, "-n", 2, "--curve", "--csv", tmp_path / "subset.csv", "--link-to", tmp_path / "new")
    assert ran.output == ""
    for said in ("2 of 24 images", "the table is in", "2 images are in", "mean similarity"):
        assert said in ran.error
    listed = massl("select", indexed, "-n", 2, "--csv", tmp_path / "subset.csv", "--paths", "-q")
    assert (len(listed.output.splitlines()), listed.error) == (2, "")


def test_wrong_use_says_what_to_do(massl, indexed: Path, tmp_path: Path) -> None:
    assert "no image has the label" in failed(massl("select", indexed, "--label", "x"))
    more = massl("select", indexed, "-n", 5_000, "--paths")
    assert more.code == 0
    assert "fewer than the 5,000 asked for" in more.error
    assert "no image is labelled" in failed(massl("select", indexed, "--by", "balanced"))
    assert "no image lies below" in failed(massl("select", indexed, "--under", "nowhere"))
    assert "is not empty" in failed(massl("select", indexed, "--copy-to", indexed))
    assert "there is no such file" in failed(massl("select", indexed, "--like", "nowhere.jpg"))
    assert "there is no folder" in failed(massl("select", indexed, "--csv", tmp_path / "no" / "where.csv"))
    for arguments in (("--split", "train=2"), ("--link-to", "a", "--copy-to", "b"), ("-n", 0), ("--by", "magic")):
        assert massl("select", indexed, *arguments).code == 2


def test_an_empty_collection_has_nothing_to_choose(massl, tmp_path: Path, photos: Path) -> None:
    massl("index", photos, "-q")
    for picture in photos.rglob("*.jpg"):
        picture.unlink()
    massl("index", photos, "-q")
    assert "nothing to choose from" in failed(massl("select", photos))


def test_a_folder_that_can_not_be_written_is_said_before_the_work(
    indexed: Path, tmp_path: Path, bound: list[str]
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    command = [*bound, sys.executable, "-m", "cli", "select", indexed, "--copy-to", shut / "new"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"massl: {shut / 'new'} can't be made: permission denied; name another folder\n"
