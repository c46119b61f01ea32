#!/usr/bin/env python3
"""`massl index` beside rclip's indexer on the same photos, in turns, each in a fresh process with a fresh index.

    benchmarks/beside_rclip.py model FOLDER                      # once: a model of the size that rclip ships with
    benchmarks/beside_rclip.py run IMAGES FOLDER RCLIP_PYTHON [ENCODER.onnx ...] [--rounds N]

RCLIP_PYTHON is the Python of an environment in which `pip install rclip` was run. rclip's own model can't be had
offline: `model` writes the image half of a ViT-B/32 at 256 pixels with random weights in float32, of the same shape as
the ViT-B-32-256 that rclip loads, in the place where rclip looks for it (`FOLDER` is its RCLIP_DATADIR). rclip's own
code does the rest: its walk, its threads, its decoder, its ONNX Runtime, its database; only its search, which needs the
text half, isn't run. Ours is the whole command, calibration and vectors included, with the built-in encoder and each
one named.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PLACE = "ViT-B-32-256-datacomp_s34b_b86k"
LEGAL = ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md")  # rclip asks whether they are there

RCLIP = """
import pathlib, sys
from rclip import db, model
from rclip.main import RClip
database = db.DB(pathlib.Path(sys.argv[2]))
RClip(model.Model(), database, int(sys.argv[3]), None).ensure_index(sys.argv[1])
print(len(list(database.get_image_vectors_by_dir_path(sys.argv[1]))))
"""


def make_model(folder: Path) -> None:
    import onnx
    import timm
    import torch

    network = timm.create_model("vit_base_patch32_clip_224", img_size=256, num_classes=512, pretrained=False).eval()
    example = torch.zeros((2, 3, 256, 256))
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes={"x": {0: torch.export.Dim("N", min=1)}},
    )
    assert program is not None
    (folder / PLACE).mkdir(parents=True, exist_ok=True)
    onnx.save(program.model_proto, folder / PLACE / "visual.onnx")
    for name in LEGAL:
        (folder / name).touch()


def measure(command: list[str], **environment: str) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(images: Path, folder: Path, python: Path, encoders: list[Path], rounds: int, batch: int) -> None:
    count = sum(path.is_file() for path in images.rglob("*"))
    names = ["rclip", "massl", *(f"massl {path.name}" for path in encoders)]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, encoder in zip(names, (None, None, *encoders), strict=True):
            with tempfile.TemporaryDirectory() as place:
                if name == "rclip":
                    command = [str(python), "-c", RCLIP, str(images), f"{place}/db.sqlite3", str(batch)]
                    taken[name].append(measure(command, RCLIP_DATADIR=str(folder)))
                else:
                    command = [sys.executable, "-c", "from cli import main; main()", "index", str(images), "-q"]
                    command += ["--index-dir", f"{place}/index"] + (["--encoder", str(encoder)] if encoder else [])
                    taken[name].append(measure(command))
    base = np.median(taken["rclip"], 0)
    for name, seconds in taken.items():
        clock, cpu = np.median(seconds, 0)
        print(
            f"{name:<24} {count / clock:7.2f} images/s {count / cpu:7.2f} images a CPU second; "
            f"{base[0] / clock:.1f} times rclip's by the clock, {base[1] / cpu:.1f} by CPU seconds"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("model")
    command.add_argument("folder", type=Path)
    command = commands.add_parser("run")
    command.add_argument("images", type=Path)
    command.add_argument("folder", type=Path)
    command.add_argument("python", type=Path)
    command.add_argument("encoders", type=Path, nargs="*")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--batch", type=int, default=8, help="rclip's own default")
    given = parser.parse_args()
    if given.what == "model":
        make_model(given.folder)
    else:
        run(given.images, given.folder, given.python, given.encoders, given.rounds, given.batch)


if __name__ == "__main__":
    main()
