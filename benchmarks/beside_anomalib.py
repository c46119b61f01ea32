"""`massl odd --good` beside anomalib's PatchCore, on the same pictures, with the same good ones.

    benchmarks/beside_anomalib.py USUAL ODD --weights mobilenet_v2.pth [--draws 1] [--coreset 0.01]

USUAL and ODD are folders of pictures. Of the usual ones some are drawn as known to be good, and of the rest and the odd
ones as many as the options say are ranked. It needs an environment with anomalib and MaSSL. PatchCore gets a
MobileNetV2 of torchvision (its weights are a file, so nothing is downloaded), and again the built-in encoder's patch
tokens: its coreset and its score are then anomalib's, and the features are ours. Seconds are CPU seconds of all
threads, with the reading of the pictures, without imports.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.patchcore.lightning_model import Patchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torchvision.models import mobilenet_v2
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

from indexer import Collection, Encoder

FIRST = 50
Tokens = Callable[[list[Path]], Iterator[torch.Tensor]]


class Massl:
    """An index of a folder, in which the pictures below `good` are known to be good."""

    def __init__(self, folder: Path, size: int, place: str) -> None:
        started = time.process_time()
        self._collection = Collection.create(folder, Encoder.load(image_size=size), place)
        self._collection.update()
        self.seconds = time.process_time() - started
        self._images = self._collection.images.ready()
        good = [image for image, path in self._images if path.startswith("good/")]
        self._collection.labels.add("good", good, "benchmark")

    def scores(self, patches: bool) -> dict[str, float]:
        """By the names of the files."""
        found = self._collection.anomalies.find(len(self._images), good="good", patches=patches)
        return {Path(each.path).name: each.score for each in found.images}


def mobile_net(weights: Path) -> tuple[PatchcoreModel, Tokens]:
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights, weights_only=True))
    # Features at an eighth and a sixteenth of the side, as PatchCore's layers 2 and 3 of a ResNet.
    model = PatchcoreModel(layers=["features.6", "features.13"], backbone=network)
    prepared = Patchcore.configure_pre_processor().transform

    def tokens(paths: list[Path]) -> Iterator[torch.Tensor]:
        model.train()  # gives the features alone
        model.feature_extractor.eval()
        for path in paths:
            with Image.open(path) as picture:
                pixels = to_dtype(pil_to_tensor(picture.convert("RGB")), torch.float32, scale=True)
            yield model(prepared(pixels)[None])
        model.embedding_store.clear()

    return model, tokens


def own_tokens(size: int) -> tuple[PatchcoreModel, Tokens]:
    encoder = Encoder.load(image_size=size)
    model = PatchcoreModel(layers=["features.6"], backbone=mobilenet_v2())  # whose network is never run

    def tokens(paths: list[Path]) -> Iterator[torch.Tensor]:
        for path in paths:
            with Image.open(path) as picture:
                found = encoder.embed_patches(encoder.prepare(picture.convert("RGB"))[None])
            yield torch.from_numpy(found.reshape(-1, found.shape[-1]).astype(np.float32))

    return model, tokens


@torch.no_grad()
def by_patchcore(
    model: PatchcoreModel, tokens: Tokens, good: list[Path], asked: list[Path], coreset: float
) -> dict[str, float]:
    torch.manual_seed(0)
    features = list(tokens(good))
    model.embedding_store = features
    model.subsample_embedding(coreset)
    scores = {}
    for path, own in zip(asked, tokens(asked), strict=True):
        distances, places = (found.reshape(1, -1) for found in model.nearest_neighbors(own, 1))
        scores[path.name] = float(model.compute_anomaly_score(distances, places, own))
    return scores


def links(folder: Path, paths: list[Path]) -> list[Path]:
    """Links to files, in a new folder, under names of their own."""
    folder.mkdir()
    made = [folder / f"{number:04}{path.suffix}" for number, path in enumerate(paths)]
    for link, path in zip(made, paths, strict=True):
        link.symlink_to(path.resolve())
    return made


def figures(scores: dict[str, float], odd: set[str]) -> list[float]:
    names = list(scores)
    truth, values = np.array([name in odd for name in names]), np.array([scores[name] for name in names])
    first: NDArray[np.int64] = np.argsort(-values, kind="stable")[:FIRST]
    return [roc_auc_score(truth, values), average_precision_score(truth, values), float(truth[first].sum())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("usual", type=Path)
    parser.add_argument("odd", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--good", type=int, default=100)
    parser.add_argument("--rest", type=int, default=288)
    parser.add_argument("--rare", type=int, default=12)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--coreset", type=float, default=0.01)
    options = parser.parse_args()
    model, tokens = mobile_net(options.weights)
    ours, own = own_tokens(224)
    found: dict[str, list[list[float]]] = {}
    for draw in range(options.draws):
        chance = random.Random(draw)
        usual = chance.sample(sorted(options.usual.iterdir()), options.good + options.rest)
        rare = chance.sample(sorted(options.odd.iterdir()), options.rare)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            good = links(folder / "good", usual[: options.good])
            asked = links(folder / "asked", usual[options.good :] + rare)
            odd = {path.name for path in asked[-len(rare) :]}
            index = Massl(folder, 224, str(folder / "index"))
            ways: dict[str, Callable[[], dict[str, float]]] = {
                "massl odd": partial(index.scores, patches=False),
                "massl odd --patches": partial(index.scores, patches=True),
                "PatchCore, MobileNetV2": partial(by_patchcore, model, tokens, good, asked, options.coreset),
                "PatchCore, our tokens": partial(by_patchcore, ours, own, good, asked, options.coreset),
            }
            for way, run in ways.items():
                started = time.process_time()
                scores = run()
                seconds = time.process_time() - started + (index.seconds if way.startswith("massl") else 0)
                found.setdefault(way, []).append([*figures(scores, odd), seconds])
                print(f"draw {draw}, {way}: {found[way][-1]}", flush=True)
    for way, each in found.items():
        auroc, precision, first, seconds = np.mean(each, 0)
        print(f"{way:<26}AUROC {auroc:.3f}  AP {precision:.3f}  in the first {FIRST}: {first:.1f}  {seconds:.0f} CPU s")


if __name__ == "__main__":
    main()
