"""How well unusual images are found, beside the order "most different" of the screen Label.

python benchmarks/anomalies.py --make-jig FOLDER     # 1,500 made-up pictures of a part, 12 with a scratch
python benchmarks/anomalies.py COLLECTION --odd FOLDER [--usual FOLDER] [--index-dir FOLDER] [--rare 12] [--draws 10]

Of the folder of odd images few are drawn at random, so that they are rare. AUROC, average precision, and how many of
them are among the first 50; means over the draws.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.metrics import average_precision_score, roc_auc_score

from indexer import Collection
from indexer.anomalies.neighbour_distance import distances
from indexer.fewshot.sampling import most_different
from indexer.search.near_copies import copies_from, one_of_each
from indexer.store.filters import Filter
from indexer.store.vectors import CatalogVectors, unit

FIRST = 50
DEFECTS = 12
PICTURES = 1_500


class FlatIndex:
    """Exact search by FAISS over rows. A `CurrentIndex`."""

    exact = True

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if among is None:
            return self._index.search(queries, k)
        assert not isinstance(among, Filter)
        part = faiss.IndexFlatIP(self._vectors.shape[1])
        part.add(self._vectors[among])
        scores, places = part.search(queries, min(k, len(among)))
        return scores, among[places]


def make_jig(folder: Path) -> None:
    """Pictures of a metal part with four holes in a jig: it shifts and turns a little, and light and noise change."""
    for name in ("good", "scratched"):
        (folder / name).mkdir(parents=True)
    for number in range(PICTURES):
        draw = random.Random(number)
        noise = np.random.default_rng(number)
        light = draw.uniform(0.85, 1.1)
        plate = Image.new("L", (256, 256), int(60 * light))
        pen = ImageDraw.Draw(plate)
        pen.rounded_rectangle((38, 58, 218, 198), 14, fill=int(165 * light))
        for left, top in ((66, 86), (190, 86), (66, 170), (190, 170)):
            pen.ellipse((left - 12, top - 12, left + 12, top + 12), fill=int(45 * light), outline=int(200 * light))
        pen.ellipse((100, 100, 156, 156), outline=int(110 * light), width=5)
        scratched = number % (PICTURES // DEFECTS) == 0
        if scratched:
            x, y = draw.uniform(70, 150), draw.uniform(80, 140)
            points = [(x + 14.0 * step, y + 6 * step + draw.uniform(-4, 4)) for step in range(5)]
            pen.line(points, fill=int(240 * light), width=3)
        plate = plate.rotate(draw.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=int(60 * light))
        shifted = Image.new("L", plate.size, int(60 * light))
        shifted.paste(plate, (draw.randint(-4, 4), draw.randint(-4, 4)))
        pixels = np.asarray(shifted.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.9))), np.float32)
        pixels = np.clip(pixels + noise.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        name = "scratched" if scratched else "good"
        Image.fromarray(pixels).save(folder / name / f"{number:04}.jpg", quality=92)


def measured(odd: NDArray[np.bool_], order: NDArray[np.int64], scores: NDArray[np.floating] | None) -> list[float]:
    """AUROC and average precision (nan without scores), and how many are among the first."""
    figures = [float("nan")] * 2
    if scores is not None:
        figures = [float(roc_auc_score(odd, scores)), float(average_precision_score(odd, scores))]
    return [*figures, float(odd[order[:FIRST]].sum())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, nargs="?")
    parser.add_argument("--make-jig", type=Path)
    parser.add_argument("--odd")
    parser.add_argument("--usual")
    parser.add_argument("--index-dir", type=Path)
    parser.add_argument("--rare", type=int, default=DEFECTS)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    if options.make_jig:
        make_jig(options.make_jig)
        return
    collection = Collection.open(options.collection, options.index_dir)
    blocks = list(CatalogVectors(collection.catalog).blocks())
    ids, packed = np.concatenate([own for own, _ in blocks]), np.concatenate([rows for _, rows in blocks])
    paths = dict(collection.images.ready())
    odd_rows = np.array([row for row, image in enumerate(ids.tolist()) if paths[image].startswith(f"{options.odd}/")])
    usual = f"{options.usual}/" if options.usual else ""
    usual_rows = np.setdiff1d(
        [row for row, image in enumerate(ids.tolist()) if paths[image].startswith(usual)], odd_rows
    )
    least = copies_from(collection.searcher.calibration(), len(ids))
    found: dict[str, list[list[float]]] = {}
    for draw in range(options.draws):
        rare = np.random.default_rng(draw).permutation(odd_rows)[: options.rare]
        rows = np.sort(np.concatenate([usual_rows, rare]))
        odd, vectors = np.isin(rows, rare), packed[rows]
        index, every = FlatIndex(unit(vectors)), np.arange(len(rows))
        reference = one_of_each(index, every, vectors, least)
        for k in (1, 5, 10, 20):
            scores = distances(index, every, vectors, reference, every, least, k=k)
            found.setdefault(f"k = {k}", []).append(measured(odd, np.argsort(-scores, kind="stable"), scores))
        different = most_different(unit(vectors), np.zeros(len(rows), np.bool_), FIRST)
        found.setdefault("most different", []).append(measured(odd, different, None))
        # One class: half of the usual ones are known to be good, and the rest is compared with these.
        good = np.flatnonzero(~odd & (np.random.default_rng(draw).random(len(rows)) < 0.5))
        rest = np.setdiff1d(every, good)
        reference = good[one_of_each(FlatIndex(unit(vectors[good])), np.arange(len(good)), vectors[good], least)]
        for k in (1, 3, 10):
            scores = distances(index, every, vectors, reference, rest, least, k=k)
            one = measured(odd[rest], np.argsort(-scores, kind="stable"), scores)
            found.setdefault(f"good alone, k = {k}", []).append(one)
    print(f"{options.odd}: {len(rare)} among {len(usual_rows):,} others, {options.draws} draws")
    for way, figures in found.items():
        auroc, precision, first = np.mean(figures, 0)
        print(f"{way:<18}  AUROC {auroc:.3f}  AP {precision:.3f}  in the first {FIRST}: {first:.1f}")


if __name__ == "__main__":
    main()
