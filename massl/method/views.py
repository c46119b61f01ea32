"""Views: the random crops of an image that student and teacher are shown (DINO's augmentation, as the paper uses)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import InterpolationMode, v2

from massl.core.errors import MasslError
from massl.core.images.decoding import ImageError, within_memory
from massl.core.images.fitting import fit
from massl.data.sources import Source, decoded
from massl.method.augment import augment, change, draw, normalise
from massl.method.seeding import seed_of
from massl.settings import Settings


class MultiCrop:
    """Two global and several local crops of one picture, cut and resized, nothing else changed.

    They are cut by the loader's processes wherever the rest is done: pictures differ in size, Pillow's resampling reads
    every pixel of a crop, and the crops are fewer bytes to send than the picture that they come from.
    """

    def __init__(self, settings: Settings) -> None:
        def crop(size: int, scale: tuple[float, float]) -> v2.RandomResizedCrop:
            return v2.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC)

        self.large = crop(settings.image_size, settings.global_scale)
        self.small = crop(settings.local_size, settings.local_scale)
        self.local_views = settings.local_views

    def __call__(self, picture: Image.Image) -> list[Image.Image]:
        """Cuts with torch's global generator: the two global crops, then the local ones."""
        return [self.large(picture), self.large(picture), *(self.small(picture) for _ in range(self.local_views))]


def needed_side(settings: Settings) -> int:
    """The shorter side, in pixels, from which a picture gives every crop as many pixels as the view has.

    A crop of a share a of a square picture of side m has a * m^2 pixels, a view of side S has S^2, so m = S / sqrt(a);
    other pictures of the same shorter side have more pixels. A larger picture is decoded at a reduced size.
    """
    sides = [settings.image_size / math.sqrt(settings.global_scale[0])]
    if settings.local_views:
        sides.append(settings.local_size / math.sqrt(settings.local_scale[0]))
    return math.ceil(max(sides))


class Item(NamedTuple):
    """The views of one image: uint8 `[2, 3, G, G]` and `[N, 3, L, L]`, their draws, and the files passed over."""

    large: Tensor
    small: Tensor
    draws: Tensor  # float32 [2 + N, COLUMNS], see massl.method.augment.draw
    skipped: list[tuple[str, str]]  # (name, reason)


class Batch(NamedTuple):
    """The views of B images: uint8 `[2, B, 3, G, G]` and `[N, B, 3, L, L]`, their draws, and the files passed over."""

    large: Tensor
    small: Tensor
    draws: Tensor  # float32 [2 + N, B, COLUMNS]
    skipped: list[tuple[str, str]]
    embeddings: Tensor | None = None  # float32 [B, d], a frozen teacher's, where there is one


class Views(Dataset):
    """The views of a source's images, each drawn from a seed of its own.

    An item's views depend on (seed, epoch, index) alone, not on the worker that makes them or on what came before,
    so that a resumed run sees the very same ones. A file that can't be read gives way to its successor, so that
    batches keep their size; it is named in the item. With the setting `augment` at `device` views are only cut here,
    and `on_device` does the rest.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source = source
        self.settings = settings
        self.crop = MultiCrop(settings)
        self.shortest = needed_side(settings)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Makes the views for `key`, an (epoch, index) pair."""
        epoch, index = key
        skipped: list[tuple[str, str]] = []
        for attempt in range(len(self.source)):
            at = (index + attempt) % len(self.source)
            try:
                with within_memory():
                    large, small, draws = self._shown(decoded(self.source, at, self.shortest), epoch, index)
            except ImageError as error:
                skipped.append((self.source.name(at), str(error)))
                continue
            return Item(large, small, draws, skipped)
        raise MasslError(f"no image of {self.source.where} can be read; the first: {skipped[0][1]}")

    def _shown(self, picture: Image.Image, epoch: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of a picture, an item's views and draws."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which also notes a seed for every kind of device: a fifth of all the time.
            torch.default_generator.manual_seed(seed_of(self.settings.seed, "views", epoch, index))
            crops, draws = self.crop(picture), draw(self.settings)
        if self.settings.augment == "loader":
            crops = [change(crop, row) for crop, row in zip(crops, draws.tolist(), strict=True)]
        return _stack(crops[:2]), _stack(crops[2:], self.settings.local_size), draws


class WholePictures(Views):
    """The same images, each as an encoder takes it where it is used: uint8 `[1, 3, S, S]` in place of large views.

    A file that can't be read gives way to the same other one as in `Views`.
    """

    def __init__(self, source: Source, settings: Settings, size: int, resize: int) -> None:
        super().__init__(source, settings)
        self.size, self.shortest = size, resize

    def _shown(self, picture: Image.Image, epoch: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return _stack([fit(picture, self.size, self.shortest)]), _stack([]), torch.zeros(1, 0)


def collate(items: list[Item]) -> Batch:
    """Stacks items, and joins what they passed over."""
    large, small, draws, skipped = zip(*items, strict=True)
    passed_over = [pair for pairs in skipped for pair in pairs]
    return Batch(torch.stack(large, 1), torch.stack(small, 1), torch.stack(draws, 1), passed_over)


def on_device(batch: Batch, device: torch.device, settings: Settings) -> list[Tensor]:
    """Moves a batch to `device`, does there what the loader left undone, and normalises.

    Returns:
        float32 `[2, B, 3, G, G]`, and `[N, B, 3, L, L]` unless N is 0. Nothing here waits for the device.
    """
    views = [part.to(device, non_blocking=True) for part in (batch.large, batch.small) if len(part)]
    if settings.augment == "loader":
        return [normalise(part) for part in views]
    return [augment(part, draws) for part, draws in zip(views, (batch.draws[:2], batch.draws[2:]), strict=False)]


class EndlessBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys: a new permutation each epoch, from any step on, to `steps`.

    Each epoch's order depends on (seed, epoch) alone, so a run that goes on at step n needs no replay. Of several
    ranks, each is given its own share of every batch.
    """

    def __init__(
        self, images: int, batch: int, seed: int, start: int, steps: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.images, self.batch, self.seed, self.start, self.steps = images, batch, seed, start, steps
        share = batch // ranks
        self.share = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Any:
        """Yields the batches of steps `start` to `steps - 1`; a last partial batch of an epoch is left out."""
        each = self.images // self.batch
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, each)
            if position == 0 or step == self.start:
                generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
                order = torch.randperm(self.images, generator=generator).tolist()
            batch = order[position * self.batch : (position + 1) * self.batch]
            yield [(epoch, index) for index in batch[self.share]]

    def __len__(self) -> int:
        return self.steps - self.start


def _stack(pictures: list[Image.Image], size: int = 0) -> Tensor:
    if not pictures:
        return torch.empty((0, 3, size, size), dtype=torch.uint8)
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()
