"""What a machine with a GPU and no network may lack, put into a folder of at most 64 MB."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path

from gpu_cases import PICTURES
from PIL import Image

from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image
from massl.core.images.image_errors import ImageError

LIMIT = 64_000_000  # bytes of the whole folder
PACKAGES = ("faiss-cpu", "pi-heif", "platformdirs", "tomli-w", "watchfiles")
PLATFORMS = [f"manylinux_2_{number}_x86_64" for number in (39, 35, 34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]
JPEGS, SIZE = 500, (500, 375)  # pixels, as photographs of a data set commonly have


def gather(folder: Path, python: str, images: Path | None, packages: list[str] | None) -> None:
    """Downloads wheels for Linux on x86-64 by pip, and writes JPEGs: cuts of pictures, each at random but the same.

    Raises:
        SystemExit: pip failed, there is no picture, or all of it is larger than the limit.
    """
    wheels, jpegs = folder / "wheels", folder / "images"
    for place in (wheels, jpegs):
        place.mkdir(parents=True, exist_ok=True)
    names = list(PACKAGES) if packages is None else packages
    if names:
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
        command = [sys.executable, "-m", "pip", "download", "-q", *options, *platforms, "-d", str(wheels), *names]
        subprocess.run(command, check=True)
    made = write_jpegs(images or PICTURES, jpegs)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        sys.exit(f"{folder} takes {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}: leave out --packages")
    print(f"{folder}: {len(list(wheels.iterdir()))} wheels and {made} JPEGs, {size / 1e6:.1f} MB")


def write_jpegs(pictures: Path, folder: Path) -> int:
    """Writes `JPEGS` cuts of the pictures below a folder; returns how many."""
    paths, _ = find_images(pictures)
    draws = random.Random(0)
    written = 0
    for number in range(4 * JPEGS):
        if written == JPEGS or not paths:
            break
        try:
            picture = open_image(pictures / paths[number % len(paths)])
        except (ImageError, MasslError):
            continue
        share = draws.uniform(0.5, 1.0)
        width, height = (max(1, round(share * side)) for side in picture.size)
        left, top = draws.randint(0, picture.width - width), draws.randint(0, picture.height - height)
        file = io.BytesIO()
        cut = picture.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        cut.save(file, "JPEG", quality=85)
        (folder / f"{written:04d}.jpg").write_bytes(file.getvalue())
        written += 1
    if not written:
        sys.exit(f"{pictures} holds no picture that can be read")
    return written
