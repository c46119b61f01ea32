"""The tiles of a picture, cut out and embedded where the picture is read, so that no more than a few wait at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.contract import are_unit
from indexer.encoder.onnx_encoder import Encoder
from indexer.store.tiles import EmbeddedTile
from indexer.store.tiling import Box, Tiling
from massl.core.errors import MasslError
from massl.core.images.content import Content
from massl.core.images.cutting import cut
from massl.core.images.decoding import MAX_PIXELS
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import EACH_FILE, Rendering

_TOGETHER = 32  # tiles that are embedded at a time


@dataclass(frozen=True)
class TileEmbedder:
    """Embeds the tiles of pictures. Safe to share by threads, which embed one after the other."""

    tiling: Tiling
    encoder: Encoder
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def of(
        self,
        data: Content,
        width: int,
        height: int,
        max_pixels: int = MAX_PIXELS,
        rendering: Rendering = EACH_FILE,
    ) -> list[EmbeddedTile]:
        """The tiles of a picture; none where it is no larger than a tile, and so is its only one.

        Args:
            data: the file's content.
            width: of the upright picture, in pixels.
            height: likewise.
            max_pixels: larger pictures are refused.
            rendering: how numbers of more than 8 bits are shown: the same for all tiles.

        Raises:
            ImageError: it is damaged, it has too many tiles, or more than the memory holds.
        """
        try:
            boxes = self.tiling.boxes(width, height, self.encoder.image_size)
        except MasslError as error:
            raise ImageError(str(error)) from None
        if len(boxes) == 1:
            return []
        found: list[EmbeddedTile] = []
        pixels: list[NDArray[np.uint8]] = []
        waiting: list[Box] = []

        def embed() -> None:
            with self._turn:
                vectors = self.encoder.embed(np.stack(pixels))
            for box, vector, fits in zip(waiting, vectors.astype(np.float16), are_unit(vectors), strict=True):
                if fits:
                    found.append(EmbeddedTile(box, vector.tobytes()))
            pixels.clear()
            waiting.clear()

        side = self.encoder.image_size
        for box, part in cut(data, boxes, max_pixels, rendering):
            # The whole of a tile, also where the encoder is given only the middle of a picture.
            pixels.append(np.asarray(fit(part, side, side)))
            waiting.append(box)
            if len(pixels) == _TOGETHER:
                embed()
        if pixels:
            embed()
        return found
