"""Why an image was found: which parts of it are like the examples, by the encoder's patch tokens."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.onnx_encoder import Encoder
from indexer.search.query import Query, with_content
from indexer.store.catalog import Catalog
from indexer.store.vectors import stored
from massl.core.errors import MasslError
from massl.core.images.decoding import within_memory
from massl.core.images.fitting import fitted_part

NEAREST = 3  # tokens of an example that a part is compared with: on pictures of four, better than one or all
KEPT = 32  # pictures whose tokens are remembered, in half precision


@dataclass(frozen=True, eq=False)
class Heat:
    """How alike each part of an image is to the examples.

    Attributes:
        cosines: float32 `[h, w]`, from -1 to 1: the mean cosine of a patch token with the most similar tokens of an
            example; over several examples, its sum by their weights, divided by that of the weights' sizes.
        part: x, y, width, height of what the encoder saw, as shares of the upright image: the parts divide it evenly.
    """

    cosines: NDArray[np.float32]
    part: tuple[float, float, float, float]


class HeatMaps:
    """The heat maps of a collection's images. Safe to be shared by threads; remembers a few pictures' tokens."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        self._catalog = catalog
        self._root = root
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, tuple[NDArray[np.float16], tuple[float, float, float, float]]] = OrderedDict()

    def of(self, queries: Sequence[Query], image: int, encoder: Encoder) -> Heat:
        """Compares an image of the collection with what it was found by.

        Raises:
            MasslError: the encoder has no patch tokens, or the image's file can't be read any more.
        """
        _check_patches(encoder)
        with within_memory():
            tokens, part = self._look(with_content(Query(image=image), self._catalog, self._root), encoder)
        total = np.zeros(tokens.shape[:2], np.float32)
        for query in queries:
            alike = tokens.astype(np.float32) @ self._example(query, encoder).astype(np.float32).T
            nearest = -np.sort(-alike, -1)[..., :NEAREST]
            total += query.weight * nearest.mean(-1)
        return Heat(total / max(1e-6, sum(abs(query.weight) for query in queries)), part)

    def beside(self, asked: Query, others: Sequence[Query], encoder: Encoder) -> Heat:
        """Compares each part of a picture with the part of all the others that is most similar to it.

        Args:
            asked: the picture, or a part of it.
            others: pictures, or parts of some; those whose files have gone are left out.
            encoder: what compares them.

        Raises:
            MasslError: the encoder has no patch tokens, or no picture can be read any more.
        """
        _check_patches(encoder)
        with within_memory():
            tokens, part = self._look(with_content(asked, self._catalog, self._root), encoder)
        best = np.full(tokens.shape[:2], -1, np.float32)
        for query in others:
            try:
                beside = self._example(query, encoder).astype(np.float32)
            except MasslError:
                continue
            best = np.maximum(best, (tokens.astype(np.float32) @ beside.T).max(-1))
        if not (best > -1).any():
            raise MasslError("none of the pictures to compare with can be read any more; run massl index to update")
        return Heat(best, part)

    def _example(self, query: Query, encoder: Encoder) -> NDArray[np.float16]:
        """Tokens `[n, D]` of an example; its one embedding if it is an image whose file has gone since."""
        try:
            with within_memory():
                tokens, _ = self._look(with_content(query, self._catalog, self._root), encoder)
        except MasslError:
            if query.image is None:
                raise
            return stored(self._catalog, query.image)[None].astype(np.float16)
        return tokens.reshape(-1, tokens.shape[-1])

    def _look(self, query: Query, encoder: Encoder) -> tuple[NDArray[np.float16], tuple[float, float, float, float]]:
        looked = f"{encoder.sha256} {encoder.image_size} {query.crop} "
        name = looked.encode() + hashlib.sha256(query.data or b"").digest()
        with self._lock:
            if name in self._tokens:
                self._tokens.move_to_end(name)
                return self._tokens[name]
        with query.picture(encoder.resize, self._catalog.max_pixels, self._catalog.rendering) as picture:
            pixels = encoder.prepare(picture)
            part = fitted_part(picture, encoder.image_size, encoder.resize)
        tokens = encoder.embed_patches(pixels[None])[0].astype(np.float16)
        with self._lock:
            self._tokens[name] = tokens, part
            while len(self._tokens) > KEPT:
                self._tokens.popitem(last=False)
        return tokens, part


def _check_patches(encoder: Encoder) -> None:
    if not encoder.has_patches:
        raise MasslError(
            f"the encoder {encoder.name} describes pictures only as a whole, not part by part; one that "
            "`massl export` writes does both"
        )
