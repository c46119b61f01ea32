#!/usr/bin/env python3
"""Precision and recall of `massl dupes`, and of results that `massl search` calls the same, on known copies.

    benchmarks/dupes.py IMAGES... [--encoder ENCODER.onnx] [--images 3000] [--copies 400] [--families 1,2,5,10]
        [--mobilenet WEIGHTS.pth]

Takes a sample of some folders' images, as many of each, and of some of them one edited copy each, as many of every kind
of edit; indexes all in a temporary folder; and prints, by kind of edit and by how many copies an image has, how many
copies are found and at which precision. With --families, some images have so many edited copies each.

A pair counts as right if both come of one image, so that copies that the folder already holds count as wrong: they are
many in most public sets. Where imagededup or ImageHash is installed its methods run on the same files. With --mobilenet
its CNN does, through its own facility for custom models: torchvision's MobileNetV2 with these weights, its features
averaged over the picture, at 224 pixels.
"""

from __future__ import annotations

import argparse
import io
import logging
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from indexer import Collection, Encoder, Query
from indexer.duplicates.plan import action
from indexer.store.vectors import CatalogVectors, unit
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image
from massl.core.images.image_errors import ImageError

Edit = Callable[[Image.Image, random.Random], Image.Image]


def again(format: str, quality: int) -> Edit:
    def edit(picture: Image.Image, draw: random.Random) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, format, quality=quality)
        return Image.open(buffer).convert("RGB")

    return edit


def scaled(by: float) -> Edit:
    return lambda picture, draw: picture.resize(
        (max(1, round(picture.width * by)), max(1, round(picture.height * by))), Image.Resampling.LANCZOS
    )


def cut(keep: float) -> Edit:
    def edit(picture: Image.Image, draw: random.Random) -> Image.Image:
        width, height = max(1, round(picture.width * keep)), max(1, round(picture.height * keep))
        left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
        return picture.crop((left, top, left + width, top + height))

    return edit


def written_on(picture: Image.Image, draw: random.Random) -> Image.Image:
    picture = picture.copy()
    size = max(8, picture.height // 8)
    ImageDraw.Draw(picture).text(
        (picture.width * 0.05, picture.height * draw.uniform(0.1, 0.75)), "HAPPY MONDAY!", fill="white",
        stroke_fill="black", stroke_width=max(1, size // 12), font=ImageFont.load_default(size),
    )  # fmt: skip
    return picture


def screenshot(picture: Image.Image, draw: random.Random) -> Image.Image:
    """On a telephone: the picture across the whole width, bars above and below."""
    width, height = picture.width, round(picture.height * 1.4)
    screen = Image.new("RGB", (width, height), draw.choice(["black", "white", "#18181c"]))
    screen.paste(picture, (0, (height - picture.height) // 2))
    font = ImageFont.load_default(max(8, height // 30))
    ImageDraw.Draw(screen).text((width * 0.04, height * 0.03), "12:41   4G", fill="grey", font=font)
    return screen


EDITS: dict[str, Edit] = {
    "JPEG, quality 30": again("JPEG", 30),
    "WebP, quality 50": again("WEBP", 50),
    "half the size": scaled(0.5),
    "a quarter of the size": scaled(0.25),
    "95% of each side": cut(0.95),
    "90% of each side": cut(0.9),
    "75% of each side": cut(0.75),
    "50% of each side": cut(0.5),
    "brighter by 40%": lambda picture, draw: ImageEnhance.Brightness(picture).enhance(1.4),
    "darker by 40%": lambda picture, draw: ImageEnhance.Brightness(picture).enhance(0.6),
    "grey": lambda picture, draw: ImageOps.grayscale(picture).convert("RGB"),
    "more colour": lambda picture, draw: ImageEnhance.Color(picture).enhance(1.8),
    "blurred": lambda picture, draw: picture.filter(ImageFilter.GaussianBlur(max(1, min(picture.size) / 150))),
    "text on it": written_on,
    "white border, 5%": lambda picture, draw: ImageOps.expand(picture, max(2, min(picture.size) // 20), "white"),
    "screenshot with bars": screenshot,
    "turned by 3 degrees": lambda picture, draw: picture.rotate(3, Image.Resampling.BICUBIC),
    "mirrored": lambda picture, draw: ImageOps.mirror(picture),
    "turned by 90 degrees": lambda picture, draw: picture.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda picture, draw: picture.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda picture, draw: picture.transpose(Image.Transpose.ROTATE_270),
}


def make(sources: list[Path], folder: Path, images: int, copies: int, families: list[int]) -> dict[str, str]:
    """Fills `folder` with a sample of images and edited copies of some; returns the edit of each copy's name."""
    draw = random.Random(0)
    chosen = []
    for source in sources:
        paths, _ = find_images(source)
        chosen += [source / path for path in draw.sample(paths, min(images // len(sources), len(paths)))]
    draw.shuffle(chosen)
    made: dict[str, str] = {}
    wanted = min(copies, len(chosen))
    for number, path in enumerate(chosen):
        name = f"{number:06d}"
        shutil.copy(path, folder / f"{name}{path.suffix.lower()}")
        size = families[number % len(families)] if families else 1
        for which in range(size if len(made) < wanted else 0):
            kind = list(EDITS)[len(made) % len(EDITS)]
            try:
                edited = EDITS[kind](open_image(path), random.Random(number))
            except ImageError:
                continue
            # A webp file is one whatever was done before; the others are stored without further loss.
            edited.save(folder / f"{name}-copy{which}.png")
            made[f"{name}-copy{which}.png"] = kind
    return made


def number(name: str) -> str:
    return name[:6]


def families_found(right: Iterable[tuple[str, str]]) -> Counter[str]:
    """Of each image how many copies are found: the files that right pairs join, of the largest such group, less one."""
    joined: dict[str, set[str]] = {}
    for one, other in right:
        group = joined.get(one, {one}) | joined.get(other, {other})
        joined |= dict.fromkeys(group, group)
    found: Counter[str] = Counter()
    for name, group in joined.items():
        found[number(name)] = max(found[number(name)], len(group) - 1)
    return found


def score(title: str, pairs: Iterable[tuple[str, str]], made: dict[str, str], seconds: float) -> dict[str, str]:
    """Prints precision and recall of pairs of names; returns both by edit, and by how many copies an image has.

    The precision of an edit is that of the pairs with a copy of that edit, and of a size that of the pairs with a file
    of an image that has so many copies.
    """
    pairs = {(min(pair), max(pair)) for pair in pairs}
    right = {pair for pair in pairs if number(pair[0]) == number(pair[1])}
    found = {name for pair in right for name in pair if name in made}
    precision = len(right) / len(pairs) if pairs else 1.0
    print(
        f"{title:<34} precision {precision:6.1%}  recall {len(found) / len(made):6.1%}  "
        f"pairs {len(pairs):>5}  {seconds:6.1f} s", flush=True,
    )  # fmt: skip
    sizes = Counter(number(name) for name in made)
    grown = families_found(right)
    said = {}
    for kind in dict.fromkeys(made.values()):
        there = [name for name in made if made[name] == kind]
        said[kind] = _cell(len(found.intersection(there)), len(there), *_of(pairs, right, set(there)))
    for size in sorted(set(sizes.values())):
        images = {image for image, copies in sizes.items() if copies == size}
        files = {name for pair in pairs for name in pair if number(name) in images}
        said[f"{size} copies"] = _cell(
            sum(grown[image] for image in images), size * len(images), *_of(pairs, right, files)
        )
    files = {name for pair in pairs for name in pair if number(name) not in sizes}
    said["no copies"] = f"{sum(not files.isdisjoint(pair) for pair in pairs - right)} wrong pairs"
    return said


def _of(pairs: set[tuple[str, str]], right: set[tuple[str, str]], files: set[str]) -> tuple[int, int]:
    """How many of the pairs with one of these files are right, and how many there are."""
    return tuple(sum(not files.isdisjoint(pair) for pair in some) for some in (right, pairs))  # type: ignore[return-value]


def _cell(found: int, there: int, right: int, pairs: int) -> str:
    return f"{found / there:.0%} at {right / pairs:.0%}" if pairs else f"{found / there:.0%}"


def ours(folder: Path, made: dict[str, str], encoder: Encoder) -> dict[str, dict[str, str]]:
    collection = Collection.create(folder, encoder)
    started = time.perf_counter()
    report = collection.update()
    print(f"{report.indexed} images, {len(made)} copies among them; indexed in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    found = collection.duplicates.find()
    pairs = [(group[0].path, item.path) for group in found.groups for item in group[1:]]
    title = f"massl dupes (agreement {found.threshold:.3f})"
    shown = [item for group in found.groups for item in group[1:]]
    print("actions: " + ", ".join(f"{a} {n}" for a, n in Counter(action(item) for item in shown).items()))
    wrong = [(group[0].path, item) for group in found.groups for item in group[1:]]
    for keep, item in wrong:
        if number(keep) != number(item.path):
            print(f"  not made: {keep} {item.path} {item.score:.3f} {action(item)}")
    recalls = {"massl dupes": score(title, pairs, made, time.perf_counter() - started)}
    started = time.perf_counter()
    pairs, expected, chosen = [], 0, random.Random(1).sample(collection.images.ready(), min(1000, len(collection)))
    chosen += [(collection.images.id_of(name), name) for name in made]
    for image, name in dict(chosen).items():
        results = collection.search([Query(image=image)], 20)
        pairs += [(name, result.path) for result in results if result.match == "same"]
        expected += sum(result.false_matches <= 0.01 for result in results)
    recalls["search: same"] = score("search: results called the same", pairs, made, time.perf_counter() - started)
    # What a threshold on the embeddings alone would give, at whatever precision it has.
    names = dict(collection.images.ready())
    ids, packed = CatalogVectors(collection.catalog).of(np.array(sorted(names), np.int64))
    vectors = unit(packed)
    for least in (0.9, 0.8):
        similar = np.triu(vectors @ vectors.T, 1) >= least
        pairs = [(names[int(ids[one])], names[int(ids[other])]) for one, other in np.argwhere(similar)]
        recalls[f"cosine {least}"] = score(f"embeddings alone, cosine {least}", pairs, made, 0.0)
    return recalls


def imagededup(folder: Path, made: dict[str, str], mobilenet: str | None) -> dict[str, dict[str, str]]:
    try:
        from imagededup.methods import CNN, DHash, PHash
    except ImportError as error:
        print(f"imagededup can't be imported, so nothing is compared with it ({error})")
        return {}
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    recalls = {}
    methods: list[tuple[str, Any, dict[str, Any]]] = [
        (f"{kind.__name__}, distance {distance}", kind(verbose=False), {"max_distance_threshold": distance})
        for kind in (PHash, DHash)
        for distance in (10, 4)  # 10 is its default
    ]
    if mobilenet:
        network = _mobilenet(mobilenet)
        methods += [(f"CNN, similarity {s}", network(CNN), {"min_similarity_threshold": s}) for s in (0.9, 0.95)]
    for title, method, settings in methods:
        started = time.perf_counter()
        extra = {} if "CNN" in title else {"num_enc_workers": 0}
        encodings = method.encode_images(image_dir=str(folder), **extra)
        workers = {"num_sim_workers": 1} if "CNN" in title else {"num_dist_workers": 0}
        found = method.find_duplicates(encoding_map=encodings, **settings, **workers)
        pairs = [(one, other) for one, others in found.items() for other in others]
        recalls[title] = score(f"imagededup {title}", pairs, made, time.perf_counter() - started)
    return recalls


def image_hash(folder: Path, made: dict[str, str]) -> dict[str, dict[str, str]]:
    """ImageHash's pHash of 64 and of 256 bits, each picture against each."""
    try:
        import imagehash as library
    except ImportError as error:
        print(f"ImageHash can't be imported, so nothing is compared with it ({error})")
        return {}
    recalls = {}
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for size, least in ((8, 4), (8, 10), (16, 40)):
        started = time.perf_counter()
        hashes = []
        for name in names:
            with Image.open(folder / name) as picture:
                hashes.append(library.phash(picture.convert("RGB"), hash_size=size).hash.ravel())
        table = np.array(hashes)
        pairs = []
        for row in range(len(names)):
            near = np.flatnonzero((table[row + 1 :] != table[row]).sum(1) <= least) + row + 1
            pairs += [(names[row], names[other]) for other in near.tolist()]
        title = f"ImageHash pHash {size * size} bits, {least}"
        recalls[title] = score(title, pairs, made, time.perf_counter() - started)
    return recalls


def _mobilenet(weights: str) -> Callable[[Any], Any]:
    import torch
    import torchvision
    from imagededup.utils import CustomModel

    class Features(torch.nn.Module):
        transform = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
        name = "MobileNetV2"

        def __init__(self) -> None:
            super().__init__()
            network = torchvision.models.mobilenet_v2()
            network.load_state_dict(torch.load(weights, weights_only=True))
            self.features = network.features.eval()

        def forward(self, pixels: Any) -> Any:
            return self.features(pixels).mean((2, 3))

    model = Features()
    return lambda kind: kind(
        verbose=False, model_config=CustomModel(name=model.name, model=model, transform=model.transform)
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("images", type=Path, nargs="+")
    arguments.add_argument("--encoder")
    arguments.add_argument("--images", type=int, default=3000, dest="count")
    arguments.add_argument("--copies", type=int, default=400)
    arguments.add_argument("--families", default="", help="how many copies images have, one after the other")
    arguments.add_argument("--mobilenet", help="imagededup's CNN with these MobileNetV2 weights of torchvision's")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        families = [int(size) for size in given.families.split(",") if size]
        made = make(given.images, folder, given.count, given.copies, families)
        recalls = ours(folder, made, Encoder.load(given.encoder))
        recalls |= imagededup(folder, made, given.mobilenet)
        recalls |= image_hash(folder, made)
    print()
    print("Copies found, at which precision:")
    print("| edit, or copies of an image | " + " | ".join(recalls) + " |")
    print("| --- |" + " --- |" * len(recalls))
    for kind in next(iter(recalls.values())):
        print(f"| {kind} | " + " | ".join(by[kind] for by in recalls.values()) + " |")


if __name__ == "__main__":
    main()
