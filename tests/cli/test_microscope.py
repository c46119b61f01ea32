"""The how-to on microscope images, run as it stands, and what is said of a wrong range."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydicom.data import get_testdata_file

from app.screens.picture_details import details
from cli.terminal import ProgressLine
from indexer import Collection, Encoder
from indexer.ingest.embedding import FileEmbedder
from indexer.store import vectors
from massl.core.errors import MasslError
from massl.core.images.rendering import RenderingChoice
from massl.core.images.rendering_facts import AS_AN_INDEX
from massl.evaluation.encoders import EncoderUnderTest
from massl.evaluation.evaluate import evaluate
from massl.evaluation.tasks import ProtocolOptions
from tests.indexer.tiny import write_encoder
from tests.massl.core.images.tiff_files import GREY, tiff

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "microscope.md"


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Frames of a 12-bit camera, named by nothing but their number, the last with a hot pixel."""
    (tmp_path / "frames").mkdir()
    for number in range(8):
        values = np.random.default_rng(number).gamma(2, 100, (16, 16, 1)).astype("u2")
        values[0, 0] = 4095 if number == 7 else values[0, 0]
        (tmp_path / "frames" / f"{number}.tif").write_bytes(tiff(values, GREY))
    return tmp_path / "frames"


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Three OME-TIFFs of two channels and four planes."""
    (tmp_path / "stacks").mkdir()
    for number in range(3):
        write_stack(tmp_path / "stacks" / f"{number}.ome.tif", number)
    return tmp_path / "stacks"


def write_stack(path: Path, number: int, channels: tuple[str, ...] = ("DAPI", "GFP")) -> None:
    values = np.random.default_rng(number).integers(0, 4000, (4, len(channels), 16, 16)).astype("u2")
    metadata = {"axes": "ZCYX", "Channel": {"Name": list(channels)}}
    tifffile.imwrite(path, values, ome=True, photometric="minisblack", metadata=metadata)


def test_other_channels_need_a_rebuild_which_reads_skipped_files_again(massl, stacks: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx")
    write_stack(stacks / "other.ome.tif", 9, ("GFP", "RFP"))
    first = massl("index", stacks, "--channels", "DAPI", "--encoder", encoder, "--json").json
    assert first["indexed"] == 3
    assert first["skipped"] == [{"path": "other.ome.tif", "reason": "no channel 'DAPI': it has GFP, RFP"}]
    refused = massl("index", stacks, "--channels", "GFP", "--plane", "middle")
    assert refused.code == 4
    assert "with the channels DAPI and the plane first, not GFP and middle; to embed" in refused.error
    command = shlex.split(refused.error.strip().splitlines()[-1].partition("run: ")[2])
    done = massl(*command[1:], "--json").json
    assert (done["indexed"], done["skipped"]) == (4, [])
    assert massl("index", stacks, "--plane", "middle", "--json").json["unchanged"] == 4
    assert massl("index", stacks, "--plane", "", "--channels", "", "--rebuild", "--json").json["indexed"] == 4
    assert massl("info", stacks, "--json").json["range"]["channels"] == []


def test_the_details_say_what_of_a_stack_is_shown(stacks: Path, tmp_path: Path) -> None:
    """They said that the first page is, whatever was chosen."""
    encoder = Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1)
    told = []
    for shown in (RenderingChoice(), RenderingChoice(None, ("GFP",), "max")):
        collection = Collection.create(stacks, encoder, rebuild=True, shown=shown)
        collection.update()
        told.append(dict(details(collection, collection.images.facts(1))["facts"])["Pictures"])
        collection.close()
    assert told == [
        "8 in this file; the first one is shown and compared",
        "8 in this file; shown and compared: channels GFP, the maximum of all planes",
    ]


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--channels", "1,2,3,4", "4 channels are too many"),
        ("--channels", "a,,b", "none between commas"),
        ("--channels", "a,A", "names a channel twice"),
        ("--plane", "0", "is no plane"),
        ("--plane", "last", "is no plane"),
    ],
)
def test_channels_and_planes_that_nobody_has_are_refused(
    massl, stacks: Path, option: str, value: str, why: str
) -> None:
    ran = massl("index", stacks, option, value)
    assert ran.code == 2
    assert why in " ".join(ran.error.replace("│", " ").split())
    assert not (stacks / ".massl").exists()


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Stacks of two plates, as `stacks` has them."""
    for number in range(3):
        folder = tmp_path / "series" / f"plate{min(number, 1) + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        write_stack(folder / f"{number}.ome.tif", number)
    return tmp_path / "series"


def test_the_how_to_runs_as_it_stands(massl, frames: Path, stacks: Path, series: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "scans")
    own = {"MASSL_ENCODER": str(write_encoder(tmp_path / "tiny.onnx"))}
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", HOW_TO.read_text(), re.DOTALL) for line in block.split("\n")
    ]
    commands = [words for line in lines if (words := shlex.split(re.sub(r"(^|\s)#.*", "", line)))]
    assert len(commands) >= 20
    ranges: list[tuple[str, dict]] = []
    for command in commands:
        if command[:2] == ["pip", "install"]:
            assert command[2] == ".[sci]"
            continue
        assert command[0] == "massl"
        if command[1] == "train":  # in tests/massl/training/test_deep_images.py, as it takes longer
            if "--out" in command:
                (tmp_path / "learnt").mkdir()
                write_encoder(tmp_path / "learnt" / "encoder.onnx")
            continue
        words, _, file = " ".join(command[1:]).partition(" > ")
        ran = massl(*words.split(" "), cwd=tmp_path, **own)
        assert ran.code == 0, (command, ran.error)
        if file:
            (tmp_path / file).write_text(ran.output)
        if command[1] == "index":
            index = words.split(" ")[words.split(" ").index("--index-dir") :] if "--index-dir" in words else []
            told = massl("info", tmp_path / command[2], *index, "--json", cwd=tmp_path).json
            ranges.append((command[2], told))
    of_frames = [told["range"] for folder, told in ranges if folder == "./frames"]
    assert [told["of"] for told in of_frames] == ["collection", "100:1500", "bits=12", "file", "file"]
    assert of_frames[0]["kinds"]["uint16"]["measured_on"] == 8
    assert of_frames[1]["kinds"]["uint16"]["clipped"] > 0.05
    (of_stacks,) = [told["range"] for folder, told in ranges if folder == "./stacks"]
    assert (of_stacks["channels"], of_stacks["plane"]) == (["DAPI", "GFP"], "max")
    measured_on = {kind: known["measured_on"] for kind, known in of_stacks["kinds"].items()}
    assert measured_on == {"uint16 DAPI": 3, "uint16 GFP": 3}
    (of_scans,) = [told["range"] for folder, told in ranges if folder == "./scans"]
    assert of_scans["kinds"]["DICOM CT"]["files"] == 1
    of_series = [told["planes_of_stacks"] for folder, told in ranges if folder == "./series"]
    assert of_series == [{"planes": 12, "stacks": 3}] * 3
    assert "stacks        channels DAPI, GFP, the maximum of all planes\n" in massl("info", tmp_path / "stacks").output
    assert "range         uint16: each file's own, of 8 files\n" in massl("info", frames).output


def test_a_folder_of_label_masks_is_said_to_be_one(massl, frames: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx")
    (tmp_path / "masks").mkdir()
    for number in range(4):
        mask = np.zeros((40, 40, 1), "u2")
        mask[number : number + 20, 5:25] = number + 1
        (tmp_path / "masks" / f"{number}.tif").write_bytes(tiff(mask, GREY))
    said = "uint16: most look like label masks"
    index = ("index", tmp_path / "masks", "--encoder", encoder)
    assert [said in massl(*index).error for _ in range(2)] == [True, False]  # once, when they are embedded
    assert said not in massl("index", frames, "--encoder", encoder).error


def test_a_range_is_refused_where_it_does_not_fit(massl, frames: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx")
    for wrong, why in (("9:3", "begins above its end"), ("5:5", "holds only one value"), ("x", "is no range")):
        ran = massl("index", frames, "--range", wrong, "--encoder", encoder)
        assert ran.code == 2
        assert why in " ".join(ran.error.split())
    assert not (frames / ".massl").exists()
    massl("index", frames, "--encoder", encoder)
    said = massl("index", frames, "--range", "0:99")
    assert (said.code, said.output) == (4, "")
    command = shlex.split(said.error.strip().splitlines()[-1].partition("run: ")[2])
    assert command == ["massl", "index", str(frames), "--range", "0:99", "--rebuild"]
    assert massl(*command[1:]).code == 0
    assert re.search(
        r"^range +uint16: 0 to 99; of 8 files \d+ % is clipped$", massl("info", frames).output, re.MULTILINE
    )


def test_a_mistyped_channel_leaves_the_index_as_it_is(massl, stacks: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx")
    first = massl("index", stacks, "--channels", "DAPI", "--encoder", encoder, "--json").json
    ran = massl("index", stacks, "--channels", "DAPI,Nix", "--rebuild")
    assert ran.code == 1
    assert "stays as it is: none of the 3 stacks" in ran.error
    assert "no channel 'Nix': it has" in ran.error
    again = massl("index", stacks, "--json").json
    assert (again["unchanged"], again["added"], again["changed"]) == (first["indexed"], 0, 0)


def test_a_channel_is_looked_for_beyond_the_first_stacks_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    for number in range(30):
        write_stack(tmp_path / "stacks" / f"{number:02}.ome.tif", number, ("RFP",) if number < 20 else ("DAPI",))
    encoder = Encoder.load(write_encoder(tmp_path / "tiny.onnx"))
    assert Collection.create(tmp_path / "stacks", encoder).update().indexed == 30
    again = Collection.create(tmp_path / "stacks", shown=RenderingChoice(channels=("DAPI",)), rebuild=True)
    assert len(again.update().skipped) == 20


def test_stacks_that_are_left_out_from_now_on_are_not_looked_at(tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    for folder, name in (("red", "RFP"), ("blue", "DAPI")):
        (root / folder / "day").mkdir(parents=True)
        write_stack(root / folder / "day" / "0.ome.tif", 0, (name,))
    encoder = Encoder.load(write_encoder(tmp_path / "tiny.onnx"))
    assert Collection.create(root, encoder).update().indexed == 2
    blue = RenderingChoice(channels=("DAPI",))
    with pytest.raises(MasslError, match=r"the stack that was looked at can't be shown so: red/day"):
        Collection.create(root, shown=blue, rebuild=True, exclude=["blue"])
    with pytest.raises(MasslError, match=r"the stack that was looked at can't be shown so: red/day"):
        Collection.create(root, shown=blue, rebuild=True, exclude=["bl*/*"])
    left = Collection.create(root, shown=blue, rebuild=True, exclude=["red"]).update(exclude=["red"])
    assert (left.indexed, left.skipped) == (1, [])


@pytest.mark.parametrize(("plane", "images"), [("each", 24), ("max", 6)])
def test_eval_sees_the_pictures_that_an_index_sees(stacks: Path, tmp_path: Path, plane: str, images: int) -> None:
    """Each file was shown by its own range, and of stacks the first page."""
    encoder = Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1)
    for number in range(6):
        (tmp_path / "labelled" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        write_stack(tmp_path / "labelled" / str(number % 2) / f"{number}.ome.tif", number)
    choice = RenderingChoice(None, ("GFP",), plane)
    collection = Collection.create(tmp_path / "labelled", encoder, shown=choice)
    collection.update()
    stored = {path: vectors.stored(collection.catalog, image) for image, path in collection.images.ready()}
    collection.close()
    tested = EncoderUnderTest("tiny", FileEmbedder(encoder))
    options = (ProtocolOptions(ks=(1,)), None, 2, 1, lambda what, unit: ProgressLine(what, unit, True))
    (result,) = evaluate("knn", tmp_path / "labelled", [tested], *options, AS_AN_INDEX.changed(choice))
    assert result.embedded is not None
    assert len(result.embedded.paths) == images == len(stored)
    for path, vector in zip(result.embedded.paths, result.embedded.vectors, strict=True):
        assert np.allclose(vector, stored[path], atol=1e-3)


@pytest.mark.parametrize("task", [("eval", "knn"), ("export", "builtin", "--whiten")])
def test_a_plane_that_nobody_has_is_refused_before_the_work(massl, stacks: Path, task: tuple[str, ...]) -> None:
    ran = massl(*task, stacks, "--plane", "0")
    assert (ran.code, "is no plane" in ran.error) == (2, True)
