"""Each plane of a stack as a picture of its own, through all that a collection does with pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from massl.core.images.decoding import decode
from massl.core.images.file_reading import read_bytes
from massl.core.images.rendering import Rendering
from tests.indexer.tiny import write_encoder

PLANES = 4
NAMES = ("DAPI", "GFP")


def write_stack(path: Path, number: int) -> np.ndarray:
    values = np.random.default_rng(number).integers(0, 4000, (PLANES, 2, 16, 16)).astype("u2")
    metadata = {"axes": "ZCYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(path, values, ome=True, photometric="minisblack", metadata=metadata)
    return values


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stacks of four planes; a file with a # in its name, and a single frame."""
    folder = tmp_path / "stacks"
    (folder / "more").mkdir(parents=True)
    write_stack(folder / "a.ome.tif", 1)
    write_stack(folder / "more" / "b.ome.tif", 2)
    for name, seed in (("photo#1.tif", 3), ("frame.tif", 4)):
        tifffile.imwrite(folder / name, np.random.default_rng(seed).integers(0, 4000, (16, 16)).astype("u2"))
    monkeypatch.setenv("MASSL_ENCODER", str(write_encoder(tmp_path / "tiny.onnx")))
    return folder


EACH = ("--plane", "each", "--channels", "GFP,DAPI")


def paths(massl, folder: Path) -> list[str]:
    return sorted(massl("select", folder, "-n", "99", "--paths").output.split())


def test_each_plane_is_found_labelled_and_taken_away(massl, stacks: Path, tmp_path: Path) -> None:
    done = massl("index", stacks, *EACH, "--json").json
    assert (done["indexed"], done["skipped"]) == (10, [])
    found = massl("search", stacks, "more/b.ome.tif#3", "-k", "1", "--json").json["results"]
    assert [(each["path"], each["match"]) for each in found] == [("more/b.ome.tif#3", "same")]
    assert massl("search", stacks, "a.ome.tif#9").error.strip().endswith("no plane 9: it has 4")
    assert massl("search", stacks, "photo#1.tif", "-k", "1", "--json").json["results"][0]["path"] == "photo#1.tif"

    massl("label", "add", stacks, "good", "a.ome.tif#2", "frame.tif")
    (tmp_path / "labels.csv").write_text("path,label\nmore/b.ome.tif#1,bad\na.ome.tif#4,bad\n")
    assert massl("label", "import", stacks, tmp_path / "labels.csv").code == 0
    listed = massl("label", "list", stacks, "--json").json
    assert len(listed["labels"]) == 4, listed

    told = massl("info", stacks, "--json").json
    assert told["planes_of_stacks"] == {"planes": 8, "stacks": 2}
    assert "8 planes of 2 stacks are pictures of their own" in massl("info", stacks).output

    taken = massl("select", stacks, "-n", "10", "--copy-to", tmp_path / "taken")
    assert taken.code == 0, taken.error
    own = sorted(str(path.relative_to(tmp_path / "taken")) for path in (tmp_path / "taken").rglob("*.tif"))
    assert len(own) == 10
    assert "a.ome.tif#2.tif" in own
    with tifffile.TiffFile(tmp_path / "taken" / "a.ome.tif#2.tif") as file:  # for other programs, too
        whole = tifffile.imread(stacks / "a.ome.tif")
        assert np.array_equal(file.series[0].asarray(), whole[1])
        assert 'Name="GFP"' in (file.ome_metadata or "")
    linked = massl("select", stacks, "-n", "10", "--link-to", tmp_path / "linked")
    assert "a plane of a stack can't be linked to" in linked.error


def test_planes_follow_their_file(massl, stacks: Path) -> None:
    massl("index", stacks, *EACH)
    massl("label", "add", stacks, "good", "a.ome.tif#2")
    again = massl("index", stacks, "--json").json
    assert (again["unchanged"], again["added"], again["changed"]) == (10, 0, 0)

    (stacks / "a.ome.tif").rename(stacks / "more" / "moved.ome.tif")
    moved = massl("index", stacks, "--json").json
    assert (moved["moved"], moved["removed"], moved["added"]) == (4, 0, 0)
    assert "more/moved.ome.tif#2" in massl("label", "export", stacks).output

    values = tifffile.imread(stacks / "more" / "moved.ome.tif")
    values[2] = values[2].max() - values[2]  # one plane is another now
    metadata = {"axes": "ZCYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(stacks / "more" / "moved.ome.tif", values, ome=True, photometric="minisblack", metadata=metadata)
    edited = massl("index", stacks, "--json").json
    assert (edited["changed"], edited["unchanged"], edited["removed"]) == (1, 9, 0)

    shorter = {"axes": "ZCYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(
        stacks / "more" / "moved.ome.tif", values[:3], ome=True, photometric="minisblack", metadata=shorter
    )
    cut = massl("index", stacks, "--json").json
    assert (cut["removed"], cut["unchanged"]) == (1, 9)
    (stacks / "more" / "moved.ome.tif").unlink()
    assert massl("index", stacks, "--json").json["removed"] == 3


def test_a_file_that_is_called_like_a_plane_keeps_its_name(massl, stacks: Path) -> None:
    shutil.copy(stacks / "frame.tif", stacks / "a.ome.tif#2")
    done = massl("index", stacks, *EACH, "--json").json
    assert (done["indexed"], done["skipped"]) == (10, [])
    assert done["left_out"] == {"plane that is called like a file beside it": 1}
    same = massl("search", stacks, "frame.tif", "-k", "2", "--json").json["results"]
    assert {each["path"] for each in same} == {"frame.tif", "a.ome.tif#2"}
    (stacks / "a.ome.tif#2").unlink()
    assert massl("index", stacks, "--json").json["indexed"] == 10  # it is the plane now


def test_duplicates_among_planes_are_told_and_no_stack_is_removed(massl, stacks: Path, tmp_path: Path) -> None:
    shutil.copy(stacks / "a.ome.tif", stacks / "copy.ome.tif")
    massl("index", stacks, *EACH)
    found = massl("dupes", stacks, "--exact-only", "--json").json
    assert len(found["groups"]) == PLANES
    plan = tmp_path / "plan.csv"
    massl("dupes", stacks, "--exact-only", "--plan", plan)
    before = sorted(path.name for path in stacks.iterdir())
    ran = massl("dupes", stacks, "--apply", plan, "--by", f"move:{tmp_path / 'away'}")
    assert "only whole files are changed" in ran.error + ran.output
    assert sorted(path.name for path in stacks.iterdir()) == before


def test_planes_can_be_left_out_and_given_up_again(massl, stacks: Path) -> None:
    assert massl("index", stacks, *EACH, "--exclude", "a.ome.tif#[12]", "--json").json["indexed"] == 8
    said = massl("index", stacks, "--plane", "max")
    assert (said.code, "with the plane each, not max" in said.error) == (4, True)
    assert massl("index", stacks, "--plane", "max", "--rebuild", "--json").json["indexed"] == 4
    assert massl("index", stacks, "--plane", "each", "--rebuild", "--json").json["indexed"] == 8


def test_embedding_and_training_see_the_same_planes(massl, stacks: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    massl("index", stacks, *EACH)
    assert massl("embed", stacks, "--out", tmp_path / "a.parquet").code == 0
    assert sorted(pq.read_table(tmp_path / "a.parquet")["path"].to_pylist()) == paths(massl, stacks)
    taken = massl("index", stacks, "--rebuild", "--embeddings", tmp_path / "a.parquet")
    assert "10 embeddings taken" in taken.error or taken.code == 0
    plan = massl("train", stacks, "--plan", "--json", "--preset", "cpu")
    assert plan.code == 0, plan.error
    assert json.loads(plan.output)["images"] == 10


def test_a_plane_is_the_plane_that_its_number_shows(stacks: Path) -> None:
    for channels in ((), ("GFP", "DAPI")):
        for number in range(1, PLANES + 1):
            one = Rendering(fixed=(0, 4000), channels=channels, plane=str(number))
            each = Rendering(fixed=(0, 4000), channels=channels, plane="each")
            whole = decode(read_bytes(stacks / "a.ome.tif"), rendering=one)
            own = decode(read_bytes(stacks / f"a.ome.tif#{number}"), rendering=each)
            assert np.array_equal(np.asarray(whole.picture), np.asarray(own.picture))
            assert whole.clipped == own.clipped
