"""What perceptual hashes propose as duplicates: turned and bordered copies; no forms, frames, bursts or plain ones."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from indexer import Collection, Encoder
from indexer.duplicates import detection
from indexer.duplicates import hash_candidates as module
from indexer.duplicates.detection import Duplicates
from indexer.duplicates.hash_candidates import hash_candidates
from indexer.duplicates.plan import action
from massl.core.images.measures import orientations

COPIES = {
    "left": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "right": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
    "upside down": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "mirrored": ImageOps.mirror,
    "mirrored, turned": lambda picture: picture.transpose(Image.Transpose.TRANSVERSE),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "border": lambda picture: ImageOps.expand(picture, picture.width // 12, "white"),
    "screenshot": lambda picture: on_a_screen(picture),
}


def on_a_screen(picture: Image.Image) -> Image.Image:
    screen = Image.new("RGB", (picture.width, round(picture.height * 1.5)), "black")
    screen.paste(picture, (0, picture.height // 4))
    ImageDraw.Draw(screen).text((8, 8), "12:41", fill="grey", font=ImageFont.load_default(picture.height // 16))
    return screen


def form(draw: random.Random) -> Image.Image:
    """The same print each time, filled in differently."""
    page = Image.new("RGB", (450, 600), "white")
    pen = ImageDraw.Draw(page)
    pen.text((30, 20), "APPLICATION FORM 27-B", fill="black", font=ImageFont.load_default(26))
    for line in range(14):
        top = 80 + 35 * line
        pen.text((30, top), f"Question {line}:", fill="black", font=ImageFont.load_default(15))
        pen.line((140, top + 20, 420, top + 20), fill="black")
        answer = "".join(draw.choice("abcdefghij klmnopqr") for _ in range(draw.randint(4, 26)))
        pen.text((145, top - 1), answer, fill="#141478", font=ImageFont.load_default(15))
    return page.rotate(draw.uniform(-0.3, 0.3), Image.Resampling.BICUBIC, fillcolor="white")


def through_a_window(picture: Image.Image) -> Image.Image:
    view = picture.resize((420, 320))
    pen = ImageDraw.Draw(view)
    for left in (0, 130, 260, 390):
        pen.rectangle((left, 0, left + 30, 320), fill="#5c3c1e")
    for top in (0, 150, 300):
        pen.rectangle((0, top, 420, top + 20), fill="#5c3c1e")
    return view


def burst(scene: Image.Image, thing: Image.Image, frame: int) -> Image.Image:
    """One frame of a fixed camera's: something goes through the picture."""
    view = scene.resize((480, 360))
    view.paste(thing.resize((170, 170)), (20 + 38 * frame, 60 + 5 * (frame % 3)))
    return ImageEnhance.Brightness(view.crop((frame, 2, 470 + frame, 350))).enhance(0.95 + 0.015 * frame)


@pytest.fixture(scope="module")
def found(pictures: Path, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Duplicates:
    """What hashes alone find among 40 pictures and eight copies, forms, windows, frames of a burst and plain ones."""
    folder = tmp_path_factory.mktemp("proposed")
    draw, chance = random.Random(0), np.random.default_rng(0)
    files = [file for kind in sorted(pictures.iterdir()) if kind.is_dir() for file in sorted(kind.glob("*.jpg"))]
    files = [file for file in files if file.parent.name not in ("flag", "icon")]  # two of one layout look alike
    draw.shuffle(files)
    loaded = [Image.open(file).convert("RGB") for file in files[:64]]
    for place in range(40):
        shutil.copy(files[place], folder / f"picture-{place}.jpg")
    for place, (name, edit) in enumerate(COPIES.items()):
        edit(loaded[5 * place]).save(folder / f"copy-{5 * place}-{name}.png")
    for number in range(12):
        form(draw).save(folder / f"form-{number}.jpg", quality=85)
        through_a_window(loaded[40 + number]).save(folder / f"window-{number}.jpg", quality=90)
        plain = np.full((240, 320, 3), chance.integers(0, 256, 3)) + chance.normal(0, 2, (240, 320, 3))
        Image.fromarray(plain.clip(0, 255).astype(np.uint8)).save(folder / f"plain-{number}.jpg", quality=90)
    for frame in range(7):
        burst(loaded[60], loaded[61], frame).save(folder / f"burst-{frame}.jpg", quality=90)
    made = Collection.create(folder, tiny_encoder)
    made.update()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(detection, "candidates", lambda *given: [])
        return made.duplicates.find()


def test_turned_mirrored_brighter_and_bordered_copies_are_found_and_to_be_looked_at(found: Duplicates) -> None:
    actions = {}
    for group in found.groups:
        for item in group[1:]:
            names = sorted((group[0].path, item.path))
            assert names[0].startswith("copy-")
            assert names[1] == f"picture-{names[0].split('-')[1]}.jpg"
            actions[names[0].rsplit("-", 1)[1].removesuffix(".png")] = action(item)
    assert set(actions) | {"border"} == set(COPIES)  # of which embeddings propose it, too, less agreement is asked
    assert {name for name, does in actions.items() if does != "look"} <= {"brighter"}


def test_forms_windows_bursts_and_plain_pictures_are_no_copies(found: Duplicates) -> None:
    named = {item.path.split("-")[0] for group in found.groups for item in group}
    assert named <= {"copy", "picture"}


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def with_flipped(hashes: np.ndarray, bits: int, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    flips = np.zeros((len(hashes), 256), np.uint8)
    for row in flips:
        row[chance.choice(256, bits, replace=False)] = 1
    return hashes ^ np.packbits(flips, axis=1)


def proposed(hashes: np.ndarray, positions: np.ndarray | None = None) -> list[tuple[int, int]]:
    places = np.arange(len(hashes)) if positions is None else positions
    return hash_candidates(places, hashes, len(hashes), lambda step, done, total: None)


@pytest.mark.parametrize("exact", [True, False])
def test_a_copy_in_any_orientation_is_proposed(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(module, "BLOCK", 77)
    hashes = random_hashes(3_000)
    copies = [with_flipped(orientations(hashes[way : way + 1])[way], 5 * way, way) for way in range(8)]
    pairs = proposed(np.concatenate([hashes, *copies]))
    assert set(pairs) == {(way, 3_000 + way) for way in range(8)}
    assert pairs[:3] == [(0, 3_000), (1, 3_001), (2, 3_002)]  # the nearest first


def test_two_hashes_of_one_picture_are_no_pair() -> None:
    hashes = random_hashes(2)
    assert proposed(np.concatenate([hashes, hashes]), np.array([0, 1, 0, 1])) == []
    assert proposed(np.concatenate([hashes, hashes[:1]]), np.array([0, 1, 2])) == [(0, 2)]


def test_a_copy_stands_out_from_a_crowd_and_the_crowd_is_not_proposed() -> None:
    one = random_hashes(1)
    crowd = np.concatenate([with_flipped(one, 14, seed) for seed in range(30)])
    copy = with_flipped(crowd[3:4], 4, 99)
    assert proposed(np.concatenate([crowd, copy])) == [(3, 30)]


def test_a_family_of_copies_is_no_crowd() -> None:
    family = np.concatenate([with_flipped(random_hashes(1), 3, seed) for seed in range(12)])
    pairs = proposed(family)
    assert {place for pair in pairs for place in pair} == set(range(12))


@pytest.mark.parametrize("count", [0, 1])
def test_there_is_nothing_to_propose_of_one(count: int) -> None:
    assert proposed(random_hashes(count)) == []
