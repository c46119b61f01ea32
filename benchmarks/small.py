#!/usr/bin/env python3
"""Does training from scratch on a small collection learn anything? Curves of k-NN, rank and spread over whole runs.

    benchmarks/small.py SET... --out CURVES [--init WEIGHTS]      SET: a folder with one subfolder a class
    benchmarks/small.py --plot CURVES/*.jsonl --out CURVES

Each set is shuffled and cut in two by a seed. The first half is trained on without its labels, with the settings that
`massl train` plans for so many images on a CPU and nothing else; it is also the bank of the k-NN. The second half is
asked. Labels are used for measuring alone. The network that the run begins with, untrained or of `--init`, is measured
as the trained one is, by the same code, its whitening fitted anew; an encoder file of `--init` (`builtin` is the one
that is shipped) also as it is.

Writes one `SET.jsonl` a set and `curves.svg`, and prints a Markdown table. `pip install matplotlib` for the figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image
from massl.core.images.fitting import fit
from massl.data.sources import Files
from massl.encoder import checkpoint, weights
from massl.encoder.inference import Deployed, whitened_stages
from massl.encoder.whitening import fit_whitening
from massl.evaluation import knn_top1, rankme
from massl.evaluation.fewshot import few_shot
from massl.method.network import build_backbone
from massl.method.seeding import seed_of
from massl.planning import plan
from massl.settings import Settings
from massl.training.loop import Interrupted, fast_precision, train

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
NEIGHBOURS, TEMPERATURE = 20, 0.07
BATCH = 64
SHOTS, DRAWS = 5, 100


class Split:
    """A labelled folder, cut in two by a seeded shuffle: `bank`, which is trained on, and `query`, which is asked."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        paths, _ = find_images(root)
        paths = sorted(path for path in paths if "/" in path)
        random.Random(seed).shuffle(paths)
        self.bank, self.query = paths[: len(paths) // 2], paths[len(paths) // 2 :]
        self.classes = sorted({path.split("/")[0] for path in paths})

    def pixels(self, size: int) -> tuple[Pixels, Pixels]:
        """Bank and query as squares, uint8 `[N, size, size, 3]`."""
        bank, query = (
            np.stack([np.asarray(fit(open_image(self.root / path, size), size, size)) for path in half])
            for half in (self.bank, self.query)
        )
        return bank, query

    def knn(self, bank: Floats, query: Floats) -> float:
        """Weighted k-NN top-1 of the query half."""
        bank, query = (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9) for rows in (bank, query))
        return knn_top1(bank, self.labels(self.bank), query, self.labels(self.query), NEIGHBOURS, TEMPERATURE)

    def five_shot(self, bank: Floats, query: Floats) -> float:
        """Mean accuracy over 100 draws of 5 images a class from the bank, over classes that have so many there."""
        known, asked = self.labels(self.bank), self.labels(self.query)
        enough = np.bincount(known, minlength=len(self.classes)) >= SHOTS
        number = np.cumsum(enough) - 1
        pool, tested = enough[known], enough[asked]
        drawn = few_shot(bank[pool], number[known[pool]], query[tested], number[asked[tested]], [SHOTS], DRAWS, 0)
        return drawn[SHOTS].mean

    def shipped(self, encoder: Encoder) -> dict[str, float]:
        """k-NN and 5-shot accuracy of an encoder file as it is."""
        halves = []
        for half in (self.bank, self.query):
            rows = [
                encoder.embed([encoder.prepare(open_image(self.root / path, encoder.resize)) for path in batch])
                for batch in (half[start : start + BATCH] for start in range(0, len(half), BATCH))
            ]
            halves.append(np.concatenate(rows))
        return {"as_exported": self.knn(*halves), "five_shot": self.five_shot(*halves)}

    def raw(self, size: int) -> float:
        """k-NN of raw pixels, each picture less its mean."""
        bank, query = (half.reshape(len(half), -1).astype(np.float32) for half in self.pixels(size))
        return self.knn(bank - bank.mean(1, keepdims=True), query - query.mean(1, keepdims=True))

    def labels(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Class numbers of paths, in the order of `classes`."""
        return np.array([self.classes.index(path.split("/")[0]) for path in paths])


def judge(split: Split, squares: tuple[Pixels, Pixels], source: weights.PretrainedBackbone) -> dict[str, float]:
    """k-NN of the last layer alone, k-NN and 5-shot accuracy as `massl train` exports it, rank and spread of the last.

    5-shot accuracy is that of nearest class means, 100 draws from the bank, over classes that have five images there.
    """
    last = Deployed(source).eval()
    bank, query = (embed(last, half) for half in squares)
    mean = query.mean(0, dtype=np.float64)
    found = {"last_layer": split.knn(bank, query), "rankme": rankme(query), "spread": float(1 - mean @ mean)}
    if dim := whitened_stages(source.backbone, len(split.bank), source.moments):
        plain = Deployed(source, stages=True).eval()
        size, images = source.image_size, Files(split.root, split.root, split.bank)
        with torch.no_grad():
            whitening = fit_whitening(lambda pixels: plain(pixels)[0], images, size, size, dim, before=source.moments)
        bank, query = (embed(Deployed(source, True, whitening).eval(), half) for half in squares)
    return found | {"as_exported": split.knn(bank, query), "five_shot": split.five_shot(bank, query)}


def run(root: Path, out: Path, seed: int, measurements: int, workers: int, init: str = "") -> Path:
    """Trains on one half of a set and writes what was measured on the way, a line a measurement."""
    split = Split(root, seed)
    given = str(builtin_encoder()) if init == "builtin" else init
    initial = weights.read_initial(given) if given else None
    precision = fast_precision(torch.device("cpu"))
    s, _ = plan("cpu", len(split.bank), None, None, precision, workers, initial.begins if initial else None)
    every = math.ceil(s.steps / measurements)
    squares = split.pixels(s.encoder_size)
    path = out / f"{root.name}.jsonl"
    with path.open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory() as folder:

        def write(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=file, flush=True)
            print(f"{root.name}: {json.dumps(row)}", flush=True)

        write(
            {
                "set": root.name,
                "images": len(split.bank) + len(split.query),
                "trained_on": len(split.bank),
                "classes": len(split.classes),
                "steps": s.steps,
                "batch": s.batch,
                "backbone": s.backbone,
                "init": init,
                "shipped": split.shipped(Encoder.load(Path(given))) if given.endswith(".onnx") else None,
                "pixels_16": split.raw(16),
                "pixels_32": split.raw(32),
            }
        )
        torch.manual_seed(seed_of(s.seed, "weights"))  # the very weights that the run begins with
        first = build_backbone(s.backbone, s.encoder_size, s.patch_size, dynamic=False).eval()
        if initial:
            first.load_state_dict(initial.backbone)
        moments = initial.moments if initial else None
        source = weights.PretrainedBackbone(first, s.backbone, s.encoder_size, {}, moments=moments)
        write({"step": 0, "seconds": 0.0} | judge(split, squares, source))
        seconds, done = 0.0, 0
        while done < s.steps:
            done = min(done + every, s.steps)
            metrics: dict[str, Any] = {}
            started = time.monotonic()
            _train_until(done, split, Path(folder), s, metrics, initial)
            seconds += time.monotonic() - started
            measured = judge(split, squares, weights.read(folder))
            write({"step": done, "seconds": round(seconds, 1)} | measured | metrics)
    return path


def _train_until(
    done: int, split: Split, folder: Path, s: Settings, metrics: dict[str, Any], initial: weights.Initial | None
) -> None:
    """Trains to step `done` and stops there, to be gone on with: on a CPU that changes no number."""
    kept = ("loss", "rank", "teacher_entropy", "student_entropy")
    resume = (folder / "config.toml").exists()
    step = int(checkpoint.load(checkpoint.latest(folder / "checkpoints"))["step"]) if resume else 0

    def stop() -> bool:
        nonlocal step
        step += 1
        return step >= done

    def report(progress: Any) -> None:
        metrics.update({f"batch_{name}": progress.metrics[name] for name in kept})

    with contextlib.suppress(Interrupted):
        images = Files(split.root, split.root, split.bank)
        begins = None if resume else initial
        train(images, folder, s, resume=resume, initial=begins, report=report, stop=stop)


def embed(deployed: Deployed, squares: Pixels) -> Floats:
    """Unit embeddings, float32 `[N, D]`."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(squares), BATCH):
            embedding, _ = deployed(torch.from_numpy(squares[start : start + BATCH]))
            rows.append(functional.normalize(embedding, dim=1).numpy())
    return np.concatenate(rows)


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A set's facts, and its measurements."""
    facts, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return facts, rows


def table(curves: Sequence[Path]) -> str:
    """The first and last measurement of every set, in Markdown."""
    lines = [
        "| set | trained on | steps | minutes | raw pixels | untrained, last layer | trained, last layer "
        "| untrained, as exported | trained, as exported | RankMe | spread |",
        "|" + " --- |" * 11,
    ]
    for path in curves:
        facts, rows = read(path)
        first, last = rows[0], rows[-1]
        pixels = max(facts["pixels_16"], facts["pixels_32"])
        cells = [facts["set"], f"{facts['trained_on']:,}", f"{last['step']:,}", f"{last['seconds'] / 60:.0f}"]
        cells += [f"{share:.1%}" for share in (pixels, first["last_layer"], last["last_layer"])]
        cells += [f"{share:.1%}" for share in (first["as_exported"], last["as_exported"])]
        cells += [f"{last['rankme']:.0f}", f"{last['spread']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(curves: Sequence[Path], out: Path) -> None:
    """k-NN above, rank and spread below, against the step, a column a set."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "massl"}
    figure, axes = pyplot.subplots(
        3, len(curves), figsize=(2.6 * len(curves) + 0.6, 6), sharex="col", squeeze=False, height_ratios=(3, 1, 1)
    )
    for column, path in enumerate(curves):
        facts, rows = read(path)
        steps = [row["step"] for row in rows]
        knn, rank, spread = axes[:, column]
        for name, colour, label in (("as_exported", "C0", "as exported"), ("last_layer", "C1", "last layer")):
            knn.plot(steps, [100 * row[name] for row in rows], f"{colour}o-", markersize=3, label=label)
            knn.axhline(100 * rows[0][name], color=colour, linestyle=":", label=f"untrained, {label}")
        pixels = 100 * max(facts["pixels_16"], facts["pixels_32"])
        knn.axhline(pixels, color="grey", linestyle="--", label="raw pixels")
        knn.set_title(f"{facts['set']}: {facts['trained_on']:,} images")
        rank.plot(steps, [row["rankme"] for row in rows], "C2o-", markersize=3)
        spread.plot(steps, [row["spread"] for row in rows], "C3o-", markersize=3)
        rank.set_ylim(bottom=0)
        spread.set_ylim(0, 1)
        spread.set_xlabel("step")
    for row, label in enumerate(("k-NN top-1 on the other half, %", "RankMe", "spread")):
        axes[row, 0].set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, 1 + len(curves)), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(out / "curves.svg", metadata={"Date": None})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="*", help="folders with one subfolder a class")
    parser.add_argument("--plot", type=Path, nargs="+", default=[], help="curves of earlier runs, to draw and tabulate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--init", default="", metavar="WEIGHTS", help="as of massl train")
    parser.add_argument("--measurements", type=int, default=8, help="on the way, the last at the end")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes; 0: none")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    curves = [
        *given.plot,
        *(run(folder, given.out, given.seed, given.measurements, given.workers, given.init) for folder in given.sets),
    ]
    print(table(curves))
    draw(curves, given.out)


if __name__ == "__main__":
    main()
