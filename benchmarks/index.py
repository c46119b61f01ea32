#!/usr/bin/env python3
"""What `massl index` spends its time on, and how near that is to what the machine can do.

    benchmarks/index.py speed IMAGES [ENCODER.onnx ...] [--rounds N]
    benchmarks/index.py unchanged [FILES]
    benchmarks/index.py memory IMAGES [ENCODER.onnx] [--counts 100,1000,10000]

`speed`, for each encoder: the whole run, decoding alone and the encoder alone, and a matrix product in float32, one
after the other in every round, so that whatever else the machine does falls on all of them. Both by the clock and by
CPU seconds, which is what holds where other work shares the cores.

`unchanged`: a run that has nothing to do, over many tiny files.

`memory`: the peak resident memory of runs over more and more images, each in a process of its own; there, files of the
folder are repeated under other names and with other contents where it has fewer.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from indexer import Collection, Encoder
from indexer.ingest.indexing import BATCH, batches, update
from massl.core.files.scan import ImageFile, walk

SIDE, PRODUCTS = 1536, 8  # of the matrices whose product is timed, and how often it is taken


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock, and of CPU time."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    work()
    return np.array([time.perf_counter() - clock, cpu_seconds() - cpu])


def flops(file: Path, side: int) -> float:
    """Operations of one image of so many pixels a side in products and convolutions, two for a multiply-add."""
    import onnx
    import onnxruntime

    model = onnx.load(file)
    kinds = ("MatMul", "MatMulInteger", "Gemm", "Conv")
    nodes = [node for node in model.graph.node if node.op_type in kinds]
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # Run once, as shapes that follow from the size can't be told from the file alone.
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])} - set(shapes)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted - {o.name for o in model.graph.output})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(list(wanted), {"pixels": np.zeros((1, side, side, 3), np.uint8)})
    shapes |= {name: list(value.shape) for name, value in zip(wanted, found, strict=True)}
    total = 0.0
    for node in nodes:
        each = np.prod(shapes[node.input[1]][1:]) if node.op_type == "Conv" else shapes[node.input[0]][-1]
        total += 2.0 * np.prod(shapes[node.output[0]]) * each
    return total


def speed(root: Path, encoder_files: list[Path | None], rounds: int) -> None:
    files = [item for item in walk(root) if isinstance(item, ImageFile)]
    one, other = (np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32) for seed in (0, 1))
    for file in encoder_files:
        encoder = Encoder.load(file).for_many(len(files))
        work = flops(encoder.path, encoder.image_size)
        pixels = np.stack(
            [item.pixels for batch in batches(root, files, encoder) for item in batch if item.pixels is not None]
        )

        def decode(encoder: Encoder = encoder) -> None:
            for _ in batches(root, files, encoder):
                pass

        def embed(encoder: Encoder = encoder, pixels: np.ndarray = pixels) -> None:
            for start in range(0, len(pixels), BATCH):
                encoder.embed(pixels[start : start + BATCH])

        def whole(encoder: Encoder = encoder) -> None:
            with tempfile.TemporaryDirectory() as folder:
                collection = Collection.create(root, encoder, folder)
                update(root, collection.catalog, lambda count: encoder, lambda progress: None)
                collection.catalog.close()

        tasks: dict[str, Callable[[], object]] = {
            "whole run": whole,
            "decoding alone": decode,
            "encoder alone": embed,
            "matrix product": lambda: [one @ other for _ in range(PRODUCTS)],
        }
        taken = {name: np.zeros((rounds, 2)) for name in tasks}
        for round in range(rounds):
            for name, task in tasks.items():
                taken[name][round] = timed(task)
        median = {name: np.median(values, 0) for name, values in taken.items()}
        count = len(pixels)
        print(
            f"\n{count} images, encoder {encoder.name} at {encoder.image_size} px on {encoder.device} by "
            f"{encoder.runtime}, {rounds} rounds"
        )
        for name in ("whole run", "decoding alone", "encoder alone"):
            clock, cpu = count / median[name]
            print(f"{name:<15} {clock:8.1f} images/s {cpu:8.1f} images a CPU second")
        for column, measure in enumerate(("by the clock", "by CPU seconds")):
            seconds = {name: values[column] for name, values in median.items()}
            slower = max(seconds["decoding alone"], seconds["encoder alone"])
            both = seconds["decoding alone"] + seconds["encoder alone"]
            print(f"{measure}: whole run {slower / seconds['whole run']:.2f} of the slower of the two, ", end="")
            print(f"{both / seconds['whole run']:.2f} of both after one another", end="")
            rate, best = work * count / seconds["encoder alone"], 2 * PRODUCTS * SIDE**3 / seconds["matrix product"]
            print(f"; encoder {rate / 1e9:.1f} GFLOP/s ({work / 1e9:.2f} an image), ", end="")
            print(f"{rate / best:.0%} of a matrix product's {best / 1e9:.1f}")


def unchanged(count: int) -> None:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        root, index = Path(folder, "photos"), Path(folder, "index")
        chance = np.random.default_rng(0)
        for number in range(count):
            place = root / f"{number // 1000:04}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{number}.bmp")
        Collection.create(root, index_dir=index).update()
        command = [sys.executable, "-c", "from cli import main; main()", "index", str(root), "--index-dir", str(index)]
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            subprocess.run([*command, "-q"], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{count:,} files, nothing to do: {time.perf_counter() - started:.2f} s, {cpu:.2f} CPU seconds")


def memory(root: Path, encoder_file: Path | None, counts: list[int]) -> None:
    originals = [root / item.path for item in walk(root) if isinstance(item, ImageFile)]
    given = ["--encoder", str(encoder_file)] if encoder_file else []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            for number, original in enumerate(islice(cycle(originals), count)):
                # Bytes after the end of a picture make it another content, and change nothing else.
                Path(folder, f"{number}{original.suffix}").write_bytes(
                    original.read_bytes() + number.to_bytes(4, "big")
                )
            command = [sys.executable, "-c", "from cli import main; main()", "index", folder, "-q", *given]
            code = f"import resource, subprocess; subprocess.run({command!r}, check=True); "
            code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            peak = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
            print(f"{count:>8,} images: peak {peak / 1024:,.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("speed")
    command.add_argument("images", type=Path)
    command.add_argument("encoders", type=Path, nargs="*")
    command.add_argument("--rounds", type=int, default=3)
    command = commands.add_parser("unchanged")
    command.add_argument("files", type=int, nargs="?", default=100_000)
    command = commands.add_parser("memory")
    command.add_argument("images", type=Path)
    command.add_argument("encoder", type=Path, nargs="?")
    command.add_argument("--counts", default="100,1000,10000")
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.images, given.encoders or [None], given.rounds)
    elif given.what == "unchanged":
        unchanged(given.files)
    else:
        memory(given.images, given.encoder, [int(count) for count in given.counts.split(",")])


if __name__ == "__main__":
    main()
