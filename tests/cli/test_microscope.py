"""The how-to on microscope images, run as it stands, and what is said of a wrong range."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

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


def test_the_how_to_runs_as_it_stands(massl, frames: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx")
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", HOW_TO.read_text(), re.DOTALL) for line in block.split("\n")
    ]
    commands = [words for line in lines if (words := shlex.split(line, comments=True))]
    assert len(commands) >= 5
    ranges = []
    for command in commands:
        assert command[0] == "massl"
        ran = massl(*command[1:], cwd=frames.parent, MASSL_ENCODER=str(encoder))
        assert ran.code == 0, ran.error
        ranges.append(massl("info", frames, "--json").json["range"])
    assert [told["of"] for told in ranges] == ["collection", "collection", "100:1500", "bits=12", "file"]
    assert ranges[0]["kinds"]["uint16"]["measured_on"] == 8
    assert ranges[2]["kinds"]["uint16"]["clipped"] > 0.05
    assert "range         uint16: each file's own, of 8 files\n" in massl("info", frames).output


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
