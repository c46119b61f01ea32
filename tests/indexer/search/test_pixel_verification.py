"""The second look: copies agree whatever was done to them, look-alikes don't."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some
from PIL import Image, ImageOps

from indexer.search import pixel_verification
from indexer.search.pixel_verification import Looks, Sketch, agreement
from tests.indexer.copies import EDITS

PICTURES = Path(__file__).parents[3] / "cli" / "pictures"
PAINTINGS = [Image.open(path).convert("RGB") for path in sorted((PICTURES / "painting").glob("*.jpg"))[:6]]


@pytest.mark.parametrize("edit", EDITS)
def test_copies_agree(edit: str) -> None:
    for picture in PAINTINGS:
        assert agreement(Sketch.of(picture), Sketch.of(EDITS[edit](picture))) > 0.8


def test_different_pictures_do_not_agree() -> None:
    sketches = [Sketch.of(picture) for picture in PAINTINGS]
    assert max(agreement(one, other) for one in sketches for other in sketches if one is not other) < 0.7


@settings(max_examples=8, deadline=None)
@given(
    which=some.integers(0, len(PAINTINGS) - 1),
    keep=some.floats(0.8, 1.0),
    left=some.floats(0, 1),
    top=some.floats(0, 1),
    scale=some.floats(0.4, 1.5),
)
@example(which=0, keep=0.875, left=0, top=0, scale=1)  # between two steps of size and half a coarse pixel off
def test_a_part_of_a_picture_is_found_in_it(which: int, keep: float, left: float, top: float, scale: float) -> None:
    picture = PAINTINGS[which]
    width, height = keep * picture.width, keep * picture.height
    x, y = left * (picture.width - width), top * (picture.height - height)
    part = picture.crop((round(x), round(y), round(x + width), round(y + height)))
    part = part.resize((round(part.width * scale), round(part.height * scale)))
    assert agreement(Sketch.of(picture), Sketch.of(part)) > 0.6


def test_it_does_not_matter_which_is_given_first() -> None:
    one = Sketch.of(PAINTINGS[0])
    for other in map(Sketch.of, [*PAINTINGS[1:], *(edit(PAINTINGS[0]) for edit in EDITS.values())]):
        assert agreement(one, other) == agreement(other, one)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (40, 40)])
def test_pictures_without_detail_agree_with_nothing(size: tuple[int, int]) -> None:
    blank = Sketch.of(Image.new("RGB", size, "white"))
    assert agreement(blank, blank) <= 0
    assert agreement(blank, Sketch.of(PAINTINGS[0])) <= 0


def test_a_file_that_has_gone_agrees_with_nothing_until_it_is_back(tmp_path: Path) -> None:
    there = sorted((PICTURES / "fruit").glob("*.jpg"))[0]
    files, names, known = [there, tmp_path / "gone.jpg"], ["a" * 64, "b" * 64], dict[str, float]()
    assert Looks(files, names, known).agreement(0, 1) == 0
    shutil.copy(there, files[1])
    assert Looks(files, names, known).agreement(0, 1) > 0.99
    assert len(known) == 1


@pytest.mark.parametrize("share", [0.7, 0.8])
def test_different_pictures_in_one_frame_are_no_copies(pictures: Path, share: float) -> None:
    pattern = np.random.default_rng(0).integers(0, 255, (24, 30, 3), np.uint8)
    frame = Image.fromarray(pattern).resize((300, 240), Image.Resampling.NEAREST)
    framed = []
    for path in sorted(pictures.glob("painting/*.jpg"))[:6]:
        with Image.open(path) as picture:
            inside = picture.convert("RGB").resize((int(300 * share), int(240 * share)))
        whole = frame.copy()
        whole.paste(inside, ((300 - inside.width) // 2, (240 - inside.height) // 2))
        framed.append(Sketch.of(whole))
    for place, one in enumerate(framed):
        assert agreement(one, Sketch.of(one.fine)) > 0.95
        assert all(agreement(one, other) < 0.75 for other in framed[:place])


@pytest.mark.parametrize("name", ["fruit/apple.jpg", "flag/brazil.jpg"])
def test_a_copy_of_half_an_odd_size_is_not_called_cut(pictures: Path, tmp_path: Path, name: str) -> None:
    whole = Image.open(pictures / name).convert("RGB").resize((227, 227))
    files = [tmp_path / "whole.jpg", tmp_path / "half.jpg", tmp_path / "part.jpg"]
    whole.save(files[0], quality=92)
    whole.resize((113, 113)).save(files[1], quality=70)
    whole.crop((30, 30, 200, 200)).save(files[2], quality=92)
    looks = Looks(files, ["a" * 64, "b" * 64, "c" * 64], {})
    assert looks.edit(0, 1) == ""
    assert looks.edit(0, 2) == "cut"


@pytest.mark.parametrize("width", [10, 30, 33])
@pytest.mark.parametrize("colour", ["white", "black", "grey"])
def test_a_border_that_ends_within_a_pixel_of_a_reduced_jpeg_hides_no_copy(
    width: int, colour: str, tmp_path: Path
) -> None:
    """Of fine detail, as sand or grass have it, which a half pixel makes disagree."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(60, 190, (8, 6, 3), np.uint8)).resize((384, 512), Image.Resampling.BICUBIC)
    grain = Image.fromarray(draw.integers(0, 256, (256, 192, 3), np.uint8)).resize((384, 512))
    picture = Image.blend(coarse, grain, 0.4)
    files = [tmp_path / "plain.jpg", tmp_path / "bordered.jpg"]
    picture.save(files[0], quality=90)
    ImageOps.expand(picture, width, colour).save(files[1], quality=90)
    looks = Looks(files, ["a" * 64, "b" * 64], {})
    assert looks.agreement(0, 1) > 0.95
    assert looks.within_border(1) is not None
    assert looks.without_border(1, 0) > 0.95


def test_files_are_decoded_in_threads_and_compared_by_the_caller_who_may_leave_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads that compare wait for each other's small steps: they took twice the time of one."""
    by: dict[str, set[int]] = {"decode": set(), "compare": set()}
    paths = sorted((PICTURES / "painting").glob("*.jpg"))[:12]
    looks = Looks(paths, [f"{number:016x}" for number in range(len(paths))], {})
    decode, compare = looks.open, pixel_verification.agreement

    def decoded(position: int, shortest: int) -> Image.Image:
        by["decode"].add(threading.get_ident())
        return decode(position, shortest)

    def compared(one: Sketch, other: Sketch) -> float:
        by["compare"].add(threading.get_ident())
        return compare(one, other)

    monkeypatch.setattr(looks, "open", decoded)
    monkeypatch.setattr(pixel_verification, "agreement", compared)
    pairs = [(one, one + 1) for one in range(len(paths) - 1)]
    with closing(looks.agreements(pairs)) as agreements:
        first = [next(agreements), next(agreements)]
    assert by["compare"] == {threading.get_ident()}
    assert threading.get_ident() not in by["decode"]
    assert len(looks.known) == 2
    assert [*looks.agreements(pairs)][:2] == first
