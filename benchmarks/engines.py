#!/usr/bin/env python3
"""What embeds many pictures, side by side on this machine: images a second, and whether they embed alike.

    benchmarks/engines.py ENCODER.onnx ... [--sizes 112,224] [--rounds N] [--threads N] [--images FOLDER]

`builtin` is an encoder, too. Each file is measured at those of --sizes that it lists, or its usual one; without --sizes
at all. `onnxruntime` takes small batches side by side, as with many pictures; `one batch` takes one by all threads, as
with a few. In every round each embeds the same 32 pictures once with each file at each size, and a matrix product
in float32 is taken, so that whatever else the machine does falls on all of them. Printed are the median and the best
round, what that is of the matrix product's rate (a network in 8 bits or bfloat16 can do more), how long loading took,
and the cosines between both runtimes' embeddings of the pictures in FOLDER, by default the demo's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from index import PRODUCTS, SIDE, flops

from cli.options import or_builtin
from indexer import Encoder
from massl.core.errors import MasslError
from massl.core.files.scan import ImageFile, walk
from massl.core.images.decoding import open_image
from massl.core.machine import cores

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"
BATCH = 32


class Case:
    """A file at a size, loaded by both runtimes, and the seconds that its rounds took."""

    def __init__(self, file: Path, size: int, threads: int | None, images: list[Path]) -> None:
        started = time.perf_counter()
        plain = Encoder.load(file, threads, image_size=size)
        loaded = time.perf_counter()
        self.by = {"one batch": plain}
        self.loading = {"one batch": loaded - started}
        for name in ("onnxruntime", "openvino"):
            started = time.perf_counter()
            self.by[name] = plain.for_many(10**9, name)
            self.loading[name] = time.perf_counter() - started
        self.name = f"{file.name} at {size}"
        self.why = plain.choice().why
        self.chosen = plain.choice().runtime
        self.pixels = np.stack([plain.prepare(open_image(path)) for path in images])
        self.seconds: dict[str, list[float]] = {name: [] for name in self.by}
        self.work = flops(file, size)

    def round(self) -> None:
        """Every runtime once."""
        for name, encoder in self.by.items():
            started = time.perf_counter()
            encoder.embed(self.pixels[:BATCH])
            self.seconds[name].append(time.perf_counter() - started)

    def tell(self, best_product: float) -> None:
        """Prints what was found; `best_product` is the matrix product's best rate in operations a second."""
        print(f"\n{self.name}, {self.work / 1e9:.2f} GFLOP an image: {self.chosen} is chosen, as {self.why}")
        count = min(BATCH, len(self.pixels))
        for name, seconds in self.seconds.items():
            if name == "openvino" and self.by[name].runtime != name:
                print(f"  {name:<12} can't run it")
                continue
            median, best = count / np.median(seconds), count / min(seconds)
            print(f"  {name:<12} median {median:7.1f}, best {best:7.1f} images/s", end="")
            print(f" ({self.work * best / best_product:.0%} of the product's rate)", end="")
            print(f"; ready after {self.loading[name]:.2f} s")
        ratios = {
            name: np.median(np.divide(self.seconds["one batch"], seconds)) for name, seconds in self.seconds.items()
        }
        one, other = (
            np.concatenate([encoder.embed(self.pixels[row : row + BATCH]) for row in range(0, len(self.pixels), BATCH)])
            for encoder in (self.by["onnxruntime"], self.by["openvino"])
        )
        cosines = (one * other).sum(1)
        print("  times as fast as one batch, by the median of the rounds' ratios:", end="")
        print(*(f" {name} {ratio:.2f}" for name, ratio in ratios.items() if name != "one batch"), sep=",")
        print(f"  cosine of both on {len(cosines)} pictures: mean {cosines.mean():.4f}", end="")
        print(f", 5 % below {np.quantile(cosines, 0.05):.4f}, least {cosines.min():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--sizes", help="pixels, as 112,224")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--images", type=Path, default=PICTURES)
    given = parser.parse_args()
    images = [given.images / item.path for item in walk(given.images) if isinstance(item, ImageFile)]
    cases = []
    for named in given.encoders:
        file = Path(or_builtin(named))
        listed = Encoder.load(file).image_sizes
        wanted = [size for size in listed if given.sizes is None or str(size) in given.sizes.split(",")]
        sizes = wanted or listed[:1]
        cases += [Case(file, size, given.threads, images) for size in sizes]
    one, other = (np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32) for seed in (0, 1))
    products = []
    for number in range(given.rounds + 1):
        for case in cases:
            case.round()
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            one @ other
        products.append((time.perf_counter() - started) / PRODUCTS)
        if number == 0:  # to warm up
            products.clear()
            for case in cases:
                case.seconds = {name: [] for name in case.by}
    best = 2 * SIDE**3 / min(products)
    rate = 2 * SIDE**3 / np.median(products)
    print(f"{given.rounds} rounds of {min(BATCH, len(images))} pictures, {given.threads or cores()} threads")
    print(f"a matrix product in float32 on all cores: median {rate / 1e9:.0f}, best {best / 1e9:.0f} GFLOP/s")
    for case in cases:
        case.tell(best)


if __name__ == "__main__":
    try:
        main()
    except MasslError as error:
        sys.exit(str(error))
