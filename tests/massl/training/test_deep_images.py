"""Training on images of more than 8 bits: shown as an index shows them, and the same when a run goes on."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.commands import app
from indexer import Collection, Encoder
from massl.core.errors import MasslError
from massl.core.files.run_folder import run_shown_as
from massl.core.images.rendering import RenderingChoice
from massl.core.images.rendering_facts import AS_AN_INDEX, BY_EACH_FILE, ShownAs
from massl.data.source_rendering import measured
from massl.data.sources import decoded, find_source
from massl.settings import write_toml
from massl.training.loop import train
from tests.indexer.tiny import write_encoder
from tests.massl.conftest import small_settings
from tests.massl.core.images.tiff_files import GREY, tiff

FRAMES = 12


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Frames of a camera of 12 bits, each of another exposure."""
    (tmp_path / "frames").mkdir()
    for number in range(FRAMES):
        values = np.random.default_rng(number).gamma(2, 20 * (number + 1), (40, 40, 1)).astype("u2")
        (tmp_path / "frames" / f"{number:02}.tif").write_bytes(tiff(values, GREY))
    return tmp_path / "frames"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx"), threads=1)


def means(source) -> list[float]:
    return [float(np.asarray(decoded(source, index)).mean()) for index in range(len(source))]


def lines_of(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_source_is_measured_as_an_index_measures_it(frames: Path, tiny: Encoder, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "frames.tar", "w") as archive:
        for path in sorted(frames.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            archive.addfile(member, io.BytesIO(path.read_bytes()))
    collection = Collection.create(frames, tiny, tmp_path / "index")
    collection.update()
    for place in (frames, tmp_path / "frames.tar"):
        source, _ = find_source(place)
        by_file = means(source)
        source.shown_as = measured(source, AS_AN_INDEX)
        assert source.shown_as.limits.keys() == {"uint16"}
        if place == frames:
            assert source.shown_as == collection.meta.shown_as
        assert by_file != sorted(by_file)
        assert means(source) == sorted(means(source))  # which shows the exposures


def test_a_run_keeps_how_its_images_are_shown_and_goes_on_so(massl_train, frames: Path, tmp_path: Path) -> None:
    settings = small_settings(FRAMES, steps="4", checkpoint_every="2")
    losses = {}
    for name, shown in (("file", BY_EACH_FILE), ("range", AS_AN_INDEX)):
        source, _ = find_source(frames)
        source.shown_as = measured(source, shown)
        train(source, tmp_path / name, settings)
        assert run_shown_as(tmp_path / name) == source.shown_as
        losses[name] = lines_of(tmp_path / name)
    assert losses["file"] != losses["range"]
    source, _ = find_source(frames)
    source.shown_as = measured(source, AS_AN_INDEX)
    ended: list[int] = []
    with pytest.raises(MasslError, match="stopped at step 2"):
        train(
            source, tmp_path / "parts", settings,
            report=lambda progress: ended.append(progress.step), stop=lambda: ended[-1] == 2,
        )  # fmt: skip
    resume = [frames, "--resume", tmp_path / "parts", "--plan", "--json"]
    assert json.loads(massl_train(*resume))["shown_as"] == source.shown_as.facts()
    refused = CliRunner().invoke(app, ["train", *map(str, resume), "--range", "file"])
    assert refused.exit_code == 2
    assert "what may change is" in re.sub(r"[\s│]+", " ", refused.output)
    again, _ = find_source(frames)  # which nobody told how it is shown
    train(again, tmp_path / "parts", settings, resume=True)
    assert lines_of(tmp_path / "parts") == losses["range"]


def test_the_command_shows_images_as_their_index_does_unless_it_is_told(
    massl_train, frames: Path, tiny: Encoder, tmp_path: Path
) -> None:
    def planned(*words: object) -> dict[str, object]:
        return json.loads(massl_train(frames, "--init", "none", "--plan", "--json", *words))["shown_as"]

    assert planned("--range", "file") == BY_EACH_FILE.facts()
    assert planned("--range", "bits=12", "--plane", "max")["plane"] == "max"
    without = planned()
    assert without["range"] == "collection"
    collection = Collection.create(frames, tiny, shown=RenderingChoice("100:900"))
    collection.update()
    collection.close()
    assert planned() == ShownAs("100:900", (), "", {}).facts()
    assert planned("--range", "collection") == without
    for words, why in ((["--range", "9:3"], "begins above its end"), (["--channels", "1,2,3,4"], "are too many")):
        refused = CliRunner().invoke(app, ["train", str(frames), *words])
        assert refused.exit_code == 2
        assert why in re.sub(r"[\s│]+", " ", refused.output)


def test_a_run_of_a_former_version_shows_each_file_by_itself_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    write_toml(tmp_path / "config.toml", {"run": {"images": 3}, "settings": {}})
    assert run_shown_as(tmp_path) == BY_EACH_FILE
    for wrong in ({"range": "9:3"}, {"limits": {"uint16": [3, 3]}}, {"limits": 3}, {"channels": [1, 1]}):
        write_toml(tmp_path / "config.toml", {"shown_as": wrong})
        with pytest.raises(MasslError, match="doesn't say how its images are shown"):
            run_shown_as(tmp_path)
