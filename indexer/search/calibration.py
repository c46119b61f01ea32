"""What a score means in one collection, without any labels.

Two sources: edited copies of a sample of the collection's own images (what the same picture scores), and pairs of
different images (what chance scores, of which the best of as many draws as the collection has images counts). Pairs
that score highest may be copies that the collection holds; their pixels are looked at, and true copies are no chance.

A score is judged twice: as it stands, and by how far it stands out from what the query's farther neighbours score, as
a picture in a crowd of like ones is no copy of any (the thought behind Lowe's ratio test, IJCV 2004, section 7.1).
"""

from __future__ import annotations

import functools
import io
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder.onnx_encoder import Encoder
from indexer.search.pixel_verification import Looks
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta
from indexer.store.paths import below
from indexer.store.vectors import by_content, unit
from massl.core.images.decoding import within_memory
from massl.core.images.image_errors import ImageError
from massl.core.lookahead import ahead

FEWEST = 8  # images, under which nothing can be told
BACKGROUND = 16_384  # images that chance is drawn from
PROBES = 512  # of these, each scored against all of the background
COPIES = 48  # of these, whose edited copies are embedded
LOOKS = 48  # of the highest-scoring pairs, whose pixels are looked at
FAR = (9, 16)  # ranks of neighbours that are seldom copies, and yet alike: a query's neighbourhood
UNRELATED = (65, 128)  # ranks of neighbours that are alike and yet no copies: a burst's own frames come before them
FAR_LOOKS = 24  # images whose far neighbours' pixels are looked at
TAIL = 100  # pairs of the null to which its tail is fitted
LEVELS = 256  # of the null that are kept
IDENTICAL = 0.9995  # what a picture scores with itself, after rounding to half precision
CROWD = 0.5  # of the neighbourhood's score, how much is taken off: all of it would leave no room where all are alike
SAME = 0.003  # false matches expected among all images of the collection, at most, of a result called the same
COINCIDE = 0.8  # agreement of pixels from which a pair is a copy,
UNLIKE = 0.7  # if unrelated neighbours agree less than this: where all look alike, pixels can't tell


@dataclass(frozen=True)
class Null:
    """What chance brings: empty while the collection is too small (fewer than 8 images) to tell.

    Attributes:
        values: falling, of unrelated pairs.
        shares: of all unrelated pairs, how many reach each of `values`.
        fall: by how much the value rises, beyond the highest, as pairs become e times rarer.
    """

    values: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    fall: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64], unrelated: NDArray[np.float64]) -> Null:
        """From the falling values of pairs, and how likely each pair is to be unrelated."""
        so_far = np.cumsum(unrelated)
        count = float(so_far[-1]) if len(so_far) else 0.0
        if count < FEWEST:
            return cls()
        tail = max(4.0, min(float(TAIL), count / 4))
        knee = int(np.searchsorted(so_far, tail))
        fall = max(1e-4, float(np.average(values[: knee + 1], weights=unrelated[: knee + 1]) - values[knee]))
        # From the tenth pair on: the very highest are single draws, and say less than the fall of the hundred does.
        levels = np.geomspace(max(1.0, min(10.0, tail / 4)), count, LEVELS)
        at = np.unique(np.searchsorted(so_far, levels * (1 - 1e-9)))
        falling = values[at] - 1e-7 * np.arange(len(at))
        shares = tuple(float(f"{share:.6g}") for share in so_far[at] / count)
        return cls(tuple(round(float(value), 6) for value in falling), shares, fall)

    def expected(self, value: float, images: int) -> float:
        """How many of `images` unrelated images reach `value`.

        Beyond the pairs that were measured the tail goes on as an exponential (peaks over a threshold).
        """
        if not self.values:
            return float(images)
        if value >= self.values[0]:
            return images * self.shares[0] * float(np.exp((self.values[0] - value) / self.fall))
        return images * float(np.exp(np.interp(value, *self._rising)))

    @functools.cached_property
    def _rising(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`values`, rising, and the logarithms of their `shares`."""
        return np.array(self.values[::-1]), np.log(self.shares[::-1])


@dataclass(frozen=True)
class Calibration:
    """What scores mean in one collection.

    Attributes:
        copies_from: what nineteen of twenty edited copies of the collection's images score at least; None while the
            collection is too small to tell.
        scores: chance's scores.
        standing_out: by how much they stand out from their query's neighbourhood.
    """

    copies_from: float | None = None
    scores: Null = Null()
    standing_out: Null = Null()

    def false_matches(self, score: float, images: int, neighbourhood: float | None = None) -> float:
        """How many images that are no copies of the query one expects to score this, or to stand out as far.

        Args:
            score: a result's.
            images: in the collection.
            neighbourhood: of the query, see `neighbourhood`; judged by the score alone if left out.
        """
        plain = self.scores.expected(score, images)
        if neighbourhood is None or not self.standing_out.values:
            return plain
        # Two chances to be found remarkable, so twice as many false ones (Bonferroni).
        return 2 * min(plain, self.standing_out.expected(score - CROWD * neighbourhood, images))

    def match(self, score: float, images: int, neighbourhood: float | None = None) -> str:
        """`same`: a copy or an edited copy; `alike`: better than chance would give; else `weak`."""
        if score >= IDENTICAL:
            return "same"
        expected = self.false_matches(score, images, neighbourhood)
        if self.copies_from is not None and score >= self.copies_from and expected <= SAME:
            return "same"
        return "alike" if self.scores.values and expected < 1 else "weak"

    def bounds(self, images: int) -> dict[str, float] | None:
        """From which score on a result is called `same` and `alike`, by the score alone; None where nothing tells.

        One that stands out from its query's neighbourhood may be so called below, one in a crowd not even above.
        """
        if not self.scores.values:
            return None

        def least(expected: float) -> float:
            low, high = -1.0, IDENTICAL
            for _ in range(30):
                middle = (low + high) / 2
                low, high = (middle, high) if self.scores.expected(middle, images) > expected else (low, middle)
            return high

        same = IDENTICAL if self.copies_from is None else max(self.copies_from, least(SAME))
        return {"same": round(min(IDENTICAL, same), 4), "alike": round(least(1.0), 4)}

    def to_json(self) -> str:
        """As the catalog keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Calibration:
        """The reverse of `to_json`; an empty calibration for None, and for what an earlier version wrote."""
        values = json.loads(text) if text else {}
        if "standing_out" not in values:
            return cls()
        nulls = (
            Null(tuple(null["values"]), tuple(null["shares"]), null["fall"])
            for null in (values["scores"], values["standing_out"])
        )
        return cls(values["copies_from"], *nulls)


def neighbourhood(falling: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a query's farther neighbours score, the 9th to the 16th: float32 `[Q, k]`, falling, to `[Q]`.

    Of a shorter list, what its last half scores.
    """
    first = min(FAR[0] - 1, falling.shape[1] // 2)
    return falling[:, first : FAR[1]].mean(1)


def unrelated_ranks(count: int) -> tuple[int, int]:
    """The first and the last rank of an image's neighbours that are taken for unrelated, among `count` images.

    Many folders hold bursts and several versions of a picture. Their members are each other's nearest neighbours; the
    first ranks would then tell how well copies agree, not how well unrelated images do. In a small collection it is the
    lower half of the ranks.
    """
    last = min(UNRELATED[1], count - 1)
    return min(UNRELATED[0], count // 2 + 1), last


def of_collection(root: Path, catalog: Catalog, encoder: Encoder) -> Calibration:
    """Calibrates on a collection's own images.

    The sample is drawn by content, so that it is the same whatever the order in which images came in; what was seen
    of it is remembered in the catalog, so that a few new images cost a few new looks.
    """
    paths, hashes, packed = by_content(catalog, BACKGROUND, encoder.dim)
    names = [digest.hex() for digest in hashes]
    meta = catalog.meta()
    files = [below(root, path) for path in paths]
    looks = Looks(files, names, dict(meta.calibration_looks), meta.max_pixels, meta.rendering)
    fitted = fit(unit(packed), looks, encoder)
    catalog.set_meta(Meta.calibration_looks.to(looks.used))
    return fitted


def fit(vectors: NDArray[np.float32], looks: Looks, encoder: Encoder) -> Calibration:
    """Calibrates on a sample of different contents.

    Args:
        vectors: their embeddings, float32 `[N, D]` of unit length.
        looks: their files, in the same order.
        encoder: the one that made the embeddings.
    """
    count = len(vectors)
    if count < FEWEST:
        return Calibration()
    copies_from = _copies_from(vectors, looks, encoder)
    probes = min(PROBES, count)
    similar = vectors[:probes] @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    others = min(count - 1, FAR[1])
    highest = -np.sort(-np.partition(similar, count - others)[:, -others:])
    outstanding = similar - CROWD * neighbourhood(highest)[:, None]
    coincide = COINCIDE if far_agreement(similar, looks) < UNLIKE else np.inf
    floor = similar >= (-np.inf if copies_from is None else copies_from)

    def chance(values: NDArray[np.float32]) -> Null:
        return Null.of(*_unrelated(values, floor, coincide, looks))

    return Calibration(copies_from, chance(similar), chance(outstanding))


def _unrelated(
    values: NDArray[np.float32], possible: NDArray[np.bool_], coincide: float, looks: Looks
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The falling values of all pairs, and how likely each is no copy, as far as `LOOKS` looks at pixels tell.

    Args:
        values: of probes and images, float32 `[P, N]`, -inf of an image with itself.
        possible: which pairs could be copies, of the same shape; only these are looked at.
        coincide: the agreement from which pixels are those of copies.
        looks: what to look with.
    """
    from scipy.optimize import (
        isotonic_regression,  # takes a third of a second to import, which no search should wait for
    )

    flat = values.ravel()
    unrelated = np.ones(flat.size)
    places = np.flatnonzero(possible & np.isfinite(values))
    places = places[np.lexsort((places, -flat[places]))][: 8 * len(values)]
    if np.isfinite(coincide) and len(places):
        ranks = _spread(len(places), LOOKS)
        pairs = [divmod(int(places[rank]), values.shape[1]) for rank in ranks]
        copies = np.array([agreement >= coincide for agreement in looks.agreements(pairs)], float)
        # Copies get rarer as values fall: what was seen at some ranks holds in between, single surprises smoothed out.
        rarer = isotonic_regression(copies, increasing=False).x
        unrelated[places] = 1 - np.interp(np.arange(len(places)), ranks, rarer)
    order = np.flatnonzero(np.isfinite(flat))
    order = order[np.argsort(-flat[order], kind="stable")]
    return flat[order].astype(np.float64), unrelated[order]


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Ranks to look at: the first half of `wanted` one by one, the others ever farther apart."""
    first = np.arange(min(count, wanted // 2))
    if count <= wanted // 2:
        return first
    return np.unique(np.append(first, np.geomspace(wanted // 2, count - 1, wanted // 2).astype(np.int64)))


def far_agreement(similar: NDArray[np.float32], looks: Looks) -> float:
    """What the pixels of alike, but unrelated images agree at most, but for a tenth of them.

    Args:
        similar: scores of probes and images, float32 `[P, N]`, -inf of an image with itself.
        looks: what to look with.
    """
    rows, count = similar.shape
    first, last = unrelated_ranks(count)
    pairs = []
    for row in range(min(FAR_LOOKS, rows)):
        rank = first + row * 7 % (last - first + 1)
        pairs.append((row, int(np.argpartition(-similar[row], rank - 1)[rank - 1])))
    return float(np.quantile(list(looks.agreements(pairs)), 0.9))


def _copies_from(vectors: NDArray[np.float32], looks: Looks, encoder: Encoder) -> float | None:
    def copy_of(row: int) -> NDArray[np.uint8] | None:
        try:
            with within_memory():
                picture = looks.open(row, encoder.resize)
                return encoder.prepare(_edited(picture, random.Random(looks.names[row])))
        except ImageError:
            return None  # changed since it was embedded, or memory is short

    keys = [name[:16] for name in looks.names[: min(COPIES, len(vectors))]]
    unseen = [row for row, key in enumerate(keys) if key not in looks.known]
    copies = dict(zip(unseen, ahead(copy_of, unseen), strict=True))

    def score(row: int) -> float | None:
        pixels = copies[row]
        return None if pixels is None else float(encoder.embed(pixels[None])[0] @ vectors[row])

    scores = [looks.remember(key, functools.partial(score, row)) for row, key in enumerate(keys)]
    found = [value for value in scores if value is not None and value > -1.0]
    return round(float(np.quantile(found, 0.05)), 5) if len(found) >= FEWEST else None


def _edited(picture: Image.Image, draw: random.Random) -> Image.Image:
    """What happens to pictures on their way: cut by up to a twentieth a side, scaled down, compressed again."""
    width, height = picture.size
    left, top = draw.uniform(0, 0.05) * width, draw.uniform(0, 0.05) * height
    right, bottom = width * (1 - draw.uniform(0, 0.05)), height * (1 - draw.uniform(0, 0.05))
    picture = picture.crop((int(left), int(top), max(int(left) + 1, int(right)), max(int(top) + 1, int(bottom))))
    scale = draw.uniform(0.5, 1.0)
    picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=draw.randint(40, 90))
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
