"""A part of a scan searched by in a collection with tiles: at their scale, as `massl search` has it, or alone.

    benchmarks/tile_parts.py STAMPS CLOTH [--scans 24] [--tiles 512]

Scans are made of pictures of CLOTH, with cut-outs of STAMPS laid on them, turned and in three sizes. Two questions:
- A thing is marked. At which place comes the first tile of another scan that holds the same kind of thing?
- A place is marked in a brighter and noisier copy of a scan. At which place comes that scan, by its best tile or whole?
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Encoder
from indexer.store.tiling import Box, Tiling
from massl.core.images.fitting import fit

SIDE = 2_048
KINDS, THINGS, THING_SIDES = 48, 8, (40, 70, 110)


def cloth(file: Path, seed: int) -> Image.Image:
    """A weave of its own for each scan, in light that changes slowly, with noise."""
    draw = np.random.default_rng(seed)
    light = Image.fromarray(draw.integers(90, 165, (SIDE // 64, SIDE // 64, 3), dtype=np.uint8))
    weave = np.asarray(Image.open(file).convert("L").resize((256, 256)), np.float32) - 128
    pixels = np.asarray(light.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    pixels = pixels + draw.normal(0, 10, (SIDE, SIDE, 1)) + 0.35 * np.tile(weave, (SIDE // 256, SIDE // 256))[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def scan(file: Path, kinds: list[Image.Image], seed: int) -> tuple[Image.Image, list[tuple[int, Box]]]:
    draw, picture = random.Random(seed), cloth(file, seed)
    things = []
    for _ in range(THINGS):
        kind = draw.randrange(len(kinds))
        thing = kinds[kind].copy()
        thing.thumbnail((size := draw.choice(THING_SIDES), size))
        thing = thing.rotate(draw.uniform(-25, 25), Image.Resampling.BICUBIC, expand=True)
        x, y = draw.randrange(SIDE - thing.width), draw.randrange(SIDE - thing.height)
        picture.paste(thing, (x, y), thing)
        things.append((kind, (x, y, thing.width, thing.height)))
    return picture, things


def changed(picture: Image.Image, seed: int) -> Image.Image:
    draw = np.random.default_rng(seed)
    pixels = np.asarray(picture, np.float32) * draw.uniform(0.85, 1.15) + draw.normal(0, 8, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def cut(picture: Image.Image, box: Box) -> Image.Image:
    x, y, width, height = box
    return picture.crop((x, y, x + width, y + height))


def about(box: Box, times: float) -> Box:
    """A square of so many times the size of a box, around it."""
    size = min(SIDE, int(times * max(box[2:])))
    x, y = (int(min(max(0, box[at] + box[at + 2] / 2 - size / 2), SIDE - size)) for at in (0, 1))
    return x, y, size, size


def covered(box: Box, by: Box) -> float:
    across, down = (min(box[at] + box[at + 2], by[at] + by[at + 2]) - max(box[at], by[at]) for at in (0, 1))
    return max(0, across) * max(0, down) / (box[2] * box[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("cloth", type=Path)
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--tiles", type=int, default=512)
    options = parser.parse_args()
    encoder, tiling = Encoder.load(), Tiling(options.tiles)
    side = encoder.image_size
    chosen = random.Random(1).sample(sorted(options.stamps.rglob("*.png")), KINDS)
    kinds = [Image.open(path).convert("RGBA") for path in chosen]
    files = sorted(path for path in options.cloth.iterdir() if path.is_file())
    scans = [scan(files[number], kinds, number) for number in range(options.scans)]

    def alone(picture: Image.Image, part: Box) -> NDArray[np.float32]:
        return encoder.embed([encoder.prepare(cut(picture, part))])[0]

    def as_tiles(picture: Image.Image, part: Box) -> NDArray[np.float32]:
        x, y, width, height = tiling.about(part, *picture.size, side)
        boxes = [(x + left, y + top, wide, high) for left, top, wide, high in tiling.boxes(width, height, side)]
        total = encoder.embed([np.asarray(fit(cut(picture, box), side, side)) for box in boxes]).sum(0)
        return total / np.linalg.norm(total)

    boxes = tiling.boxes(SIDE, SIDE, side)
    tiles = np.concatenate(
        [encoder.embed([np.asarray(fit(cut(picture, box), side, side)) for box in boxes]) for picture, _ in scans]
    )
    owners, places = np.repeat(np.arange(len(scans)), len(boxes)), boxes * len(scans)
    wholes = encoder.embed([encoder.prepare(picture) for picture, _ in scans])
    ranks: dict[tuple[str, str], list[int]] = {}
    for number, (picture, things) in enumerate(scans):
        for kind, box in things[:4]:
            right = np.array([
                owner != number
                and any(other == kind and covered(place, tile) > 0.6 for other, place in scans[owner][1])
                for owner, tile in zip(owners, places, strict=True)
            ])  # fmt: skip
            for times in (1.2, 2, 4):
                for way in (alone, as_tiles) if right.any() else ():
                    scores = np.where(owners == number, -1, tiles @ way(picture, about(box, times)))
                    rank = 1 + int((scores > scores[right].max()).sum())
                    ranks.setdefault((f"thing, {times} times its size", way.__name__), []).append(rank)
        copy, draw = changed(picture, number), random.Random(number)
        for size in (options.tiles // 4, options.tiles // 2, options.tiles, 2 * options.tiles, 3 * options.tiles):
            part = draw.randrange(SIDE - size), draw.randrange(SIDE - size), size, size
            for way in (alone, as_tiles):
                vector = way(copy, part)
                best = np.maximum((tiles @ vector).reshape(len(scans), -1).max(1), wholes @ vector)
                rank = 1 + int((best > best[number]).sum())
                ranks.setdefault((f"place of {size:5} pixels", way.__name__), []).append(rank)
    for (what, name), found in sorted(ranks.items()):
        first, ten = np.mean(np.array(found) == 1), np.mean(np.array(found) <= 10)
        said = f"first {first:.2f}, in the first ten {ten:.2f}, median {np.median(found):g}"
        print(f"{what} ({len(found)}), {name:<9} {said}")


if __name__ == "__main__":
    main()
