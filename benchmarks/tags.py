#!/usr/bin/env python3
"""How far the probabilities of proposed tags can be believed: claimed against true, on pictures with several tags.

Run: python benchmarks/tags.py FOLDER... (each with one subfolder a class). No set with several tags is at hand, so they
are made: each picture has its class as a tag, the tag of a group of classes (every other class, of two orders), and
`dark` or `wide`, which its pixels tell. A simulated person either tags pictures drawn at random with all of their tags,
or picks pictures for one tag after another and gives them that tag alone, as one does who searches for it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.encoder_file import builtin_encoder
from indexer.encoder.onnx_encoder import Encoder
from indexer.fewshot.tag_proposals import TagProposals, propose
from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image

MOST = 400  # pictures of a set
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0001)


def read(folder: Path, encoder: Encoder) -> tuple[NDArray[np.float32], list[frozenset[str]]]:
    """Unit vectors of up to `MOST` pictures of a set, float32 `[N, D]`, and the tags of each."""
    draw = np.random.default_rng(0)
    files = [folder / path for path in sorted(find_images(folder)[0]) if "/" in path]
    files = [files[place] for place in sorted(draw.permutation(len(files))[:MOST].tolist())]
    classes = sorted({path.parent.name for path in files})
    orders = [draw.permutation(len(classes)).tolist() for _ in range(2)]
    vectors, tags = [], []
    bright, wide = [], []
    for path in files:
        picture = open_image(path, encoder.image_size)
        pixels = encoder.prepare(picture)
        vectors.append(encoder.embed(pixels[None])[0])
        bright.append(float(pixels.mean()))
        wide.append(picture.width > picture.height)
        place = classes.index(path.parent.name)
        groups = {f"group {number}" for number, order in enumerate(orders) if order[place] % 2}
        tags.append(frozenset({f"class {path.parent.name}", *groups}))
    dark = np.array(bright) < np.quantile(bright, 0.3)
    made = [
        own | ({"dark"} if is_dark else set()) | ({"wide"} if is_wide else set())
        for own, is_dark, is_wide in zip(tags, dark, wide, strict=True)
    ]
    return np.stack(vectors), made


def tagged(tags: list[frozenset[str]], way: str, count: int, draw: np.random.Generator) -> list[set[str]]:
    """What the simulated person says, picture by picture: `drawn` or `picked` (see the module)."""
    said: list[set[str]] = [set() for _ in tags]
    if way == "drawn":
        for row in draw.permutation(len(tags))[:count]:
            said[row] |= tags[row]
        return said
    for tag in sorted(set().union(*tags)):
        own = [row for row, has in enumerate(tags) if tag in has]
        for row in draw.permutation(own)[: count // 10]:
            said[row].add(tag)
    return said


def judged(found: TagProposals, tags: list[frozenset[str]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Claimed probabilities of the familiar proposals, and whether each is right."""
    right = np.array([found.tag in tags[image] for image in found.images[found.familiar]], np.bool_)
    return found.probability[found.familiar], right


def main() -> None:
    """Measures, and prints a JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    encoder = Encoder.load(builtin_encoder())
    bins: dict[str, list[list[tuple[float, bool]]]] = defaultdict(lambda: [[] for _ in EDGES[1:]])
    counts: dict[str, int] = defaultdict(int)
    for folder in parser.parse_args().folders:
        vectors, tags = read(folder, encoder)
        ids = np.arange(len(tags))
        for way, count in (("drawn", 100), ("drawn", 200), ("picked", 100), ("picked", 200)):
            for seed in range(2):
                said = tagged(tags, way, count, np.random.default_rng(seed))
                any_tag = {row for row, own in enumerate(said) if own}
                for tag in sorted(set().union(*tags)):
                    has = {row for row in any_tag if tag in said[row]}
                    try:
                        found = propose(tag, ids, vectors, has, any_tag, frozenset())
                    except MasslError:
                        continue
                    if not found.claimed:
                        continue
                    key = f"{way} {count}"
                    counts[key] += 1
                    claimed, right = judged(found, tags)
                    for place in range(len(EDGES) - 1):
                        inside = (claimed >= EDGES[place]) & (claimed < EDGES[place + 1])
                        bins[key][place] += list(zip(claimed[inside].tolist(), right[inside].tolist(), strict=True))
    table = {
        key: [
            {
                "from": EDGES[place],
                "proposals": len(rows),
                "claimed": round(float(np.mean([claim for claim, _ in rows])), 3),
                "true": round(float(np.mean([hit for _, hit in rows])), 3),
            }
            for place, rows in enumerate(parts)
            if rows
        ]
        for key, parts in bins.items()
    }
    print(json.dumps({"tags": counts, "table": table}, indent=1))


if __name__ == "__main__":
    main()
