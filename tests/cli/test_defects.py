"""The how-to on defects, run as it stands, on made pictures of parts of which one in a hundred has a dent."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.indexer.tiny import write_sizes_encoder

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "defects.md"
PARTS, SIDE = 240, 64
BAD = (31, 97, 203)  # their numbers


def part(number: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A grey part with a hole, in a light that changes a little."""
    draw = np.random.default_rng(number)
    pixels = draw.normal(150 * draw.uniform(0.95, 1.05), 4, (size[1], size[0], 3))
    pixels[12:24, 12:24] = 60
    if number in BAD:
        x, y = draw.integers(26, 38, 2)
        pixels[y : y + 16, x : x + 16] = (230, 120, 90)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A folder with `parts`, those of Monday in one of their own, `scans` of which one has a dent, and an encoder."""
    for folder in ("parts/monday", "scans"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(PARTS):
        folder = tmp_path / "parts" / ("monday" if number >= 200 else "")
        part(number).save(folder / f"{number:04}.png")
    for number in range(5):
        scan = part(1_000 + number, (600, 900))
        if number == 3:
            scan.paste((230, 120, 90), (300, 600, 420, 720))
        scan.save(tmp_path / "scans" / f"{number}.png")
    write_sizes_encoder(tmp_path / "parts.onnx", [32])
    return tmp_path


def is_bad(path: str) -> bool:
    return int(Path(path).stem) in BAD


def fill_in(table: Path, paths: list[str]) -> None:
    """As a person does who looks at the pictures."""
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([path, "bad" if is_bad(path) else "ok"] for path in paths)


def test_the_how_to_runs_and_finds_the_defects(massl, line: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    commands = [words for row in "".join(blocks).splitlines() if (words := shlex.split(row, comments=True))]
    told: dict[str, str] = {}
    for command in commands:
        assert command[0] == "massl"
        words, _, target = " ".join(command[1:]).partition(" > ")
        if "sample.csv" in command and command[2] == "import":
            with (line / "sample.csv").open() as file:
                drawn = [row["path"] for row in csv.DictReader(file)]
            assert len(drawn) == 160
            fill_in(line / "sample.csv", drawn)
        if "found.csv" in command:
            fill_in(line / "found.csv", (line / "suspects.txt").read_text().splitlines())
        ran = massl(*words.split(), cwd=line, MASSL_ENCODER=str(line / "parts.onnx"))
        assert ran.code == 0, ran.error
        if target:
            (line / target).write_text(ran.output)
        told[words] = ran.error
        if "./maps" in command:
            assert {row.split()[-1] for row in ran.output.splitlines()[:3]} == {
                f"{'monday/' if number >= 200 else ''}{number:04}.png" for number in BAD
            }
    assert len(list((line / "maps").glob("*.png"))) == 20
    labelled = {row["path"] for row in massl("label", "list", line / "parts", "--json").json["labels"]}
    suspects = (line / "suspects.txt").read_text().splitlines()
    # Those that the sample had not drawn are suspects; of good ones no more than a few.
    assert all(f"{'monday/' if number >= 200 else ''}{number:04}.png" in labelled for number in BAD)
    assert sum(not is_bad(path) for path in suspects) <= 4
    assert all(path.startswith("monday/") for path in (line / "monday.txt").read_text().splitlines())
    proposed = [row.split("\t") for row in (line / "classes.tsv").read_text().splitlines()]
    assert {path for label, _, path in proposed if label == "bad"} >= {path for path in labelled if is_bad(path)}
    assert "bad: " in told["classify ./parts"]
    best = json.loads((line / "scans.json").read_text())["results"][0]
    x, y, width, height = best["box"]
    assert (best["path"], x <= 300 < 420 <= x + width, y <= 600 < 720 <= y + height) == ("3.png", True, True)
    assert Path(line / best["map"]).exists()
