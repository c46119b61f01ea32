"""Views: the random crops of an image that student and teacher are shown (DINO's augmentation, as the paper uses)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import InterpolationMode, v2

from massl.core.errors import MasslError
from massl.core.images.decoding import within_memory
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.core.images.plain_jpeg import PlainJpeg, plain_jpeg
from massl.data.sources import Source, as_shown
from massl.method.augment import augment, change, draw, normalise
from massl.method.seeding import seed_of
from massl.settings import Settings

# Bytes of a JPEG that the device may decode. Larger ones would fill the memory in which batches are handed over, and
# the loader decodes them at a reduced size.
MOST_UNDECODED = 1 << 20
NONE = torch.empty(0, dtype=torch.uint8)

T = TypeVar("T")


class MultiCrop:
    """Two global and several local crops of one picture, cut and resized, nothing else changed.

    They are cut by the loader's processes even where the rest is done on the device, but for JPEGs that are decoded
    there: pictures differ in size, and crops are fewer bytes to send than the decoded picture that they come from.
    """

    def __init__(self, settings: Settings) -> None:
        def crop(size: int, scale: tuple[float, float]) -> v2.RandomResizedCrop:
            return v2.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC)

        self.large = crop(settings.image_size, settings.global_scale)
        self.small = crop(settings.local_size, settings.local_scale)
        self.local_views = settings.local_views

    def __call__(self, picture: Image.Image) -> list[Image.Image]:
        """Cuts with torch's global generator: the two global crops, then the local ones."""
        return [crop(picture) for crop in self._crops()]

    def boxes(self, size: tuple[int, int]) -> Tensor:
        """What it would cut of a picture of a width and a height in pixels, by the same generator.

        Returns:
            float32 `[2 + N, 4]`: left, top, width and height of each view, in pixels.
        """
        blank = torch.empty(1, size[1], size[0], device="meta")
        found = [crop.make_params([blank]) for crop in self._crops()]
        return torch.tensor([[float(box[each]) for each in ("left", "top", "width", "height")] for box in found])

    def _crops(self) -> list[v2.RandomResizedCrop]:
        return [self.large, self.large, *[self.small] * self.local_views]


def needed_side(settings: Settings) -> int:
    """The shorter side, in pixels, from which a picture gives every crop as many pixels as the view has.

    A crop of a share a of a square picture of side m has a * m^2 pixels, a view of side S has S^2, so m = S / sqrt(a);
    other pictures of the same shorter side have more pixels. A larger picture is decoded at a reduced size.
    """
    sides = [settings.image_size / math.sqrt(settings.global_scale[0])]
    if settings.local_views:
        sides.append(settings.local_size / math.sqrt(settings.local_scale[0]))
    return math.ceil(max(sides))


class Undecoded(NamedTuple):
    """A JPEG that the training device is to decode and cut."""

    data: Tensor  # uint8, the file's content
    boxes: Tensor  # float32 [2 + N, 4]: left, top, width and height of each view, in pixels of `plain.size`
    plain: PlainJpeg
    key: tuple[int, int, int]  # of its item, epoch and index, and which image of the source was read for it


class Item(NamedTuple):
    """The views of one image: uint8 `[2, 3, G, G]` and `[N, 3, L, L]`, their draws, and the files passed over."""

    large: Tensor
    small: Tensor
    draws: Tensor  # float32 [2 + N, COLUMNS], see massl.method.augment.draw
    skipped: list[tuple[str, str]]  # (name, reason)
    jpeg: Undecoded | None = None  # in place of views, which are empty then


class Jpegs(NamedTuple):
    """Those J of a batch's images that the training device is to decode and cut.

    Two tensors and plain numbers, as each tensor that a process hands over takes a file of shared memory.
    """

    data: Tensor  # uint8, all files, one after the other
    boxes: Tensor  # float32 [J, 2 + N, 4], see Undecoded
    lengths: list[int]  # bytes of each file
    places: list[int]  # which of the batch's images each is
    plain: list[tuple[int, int, int, int]]  # width, height, factor and orientation of each, see PlainJpeg
    keys: list[tuple[int, int, int]]  # see Undecoded


class Batch(NamedTuple):
    """The views of B images: uint8 `[2, B, 3, G, G]` and `[N, B, 3, L, L]`, their draws, and the files passed over.

    Where there are `jpegs`, the views are those of the other images alone, until
    `massl.method.device_cutting.DeviceCutting` has made them complete.
    """

    large: Tensor
    small: Tensor
    draws: Tensor  # float32 [2 + N, B, COLUMNS]
    skipped: list[tuple[str, str]]
    embeddings: Tensor | None = None  # float32 [B, d], a frozen teacher's, where there is one
    jpegs: Jpegs | None = None


class Views(Dataset):
    """The views of a source's images, each drawn from a seed of its own.

    An item's views depend on (seed, epoch, index) alone, not on the worker that makes them or on what came before,
    so that a resumed run sees the very same ones. A file that can't be read gives way to its successor, so that
    batches keep their size; it is named in the item. With the setting `augment` at `device` views are only cut here,
    and `on_device` does the rest. With `decode` at `device` most JPEGs are only read, see `plain_jpeg`.
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
                    item = self._of_file(at, epoch, index)
            except ImageError as error:
                skipped.append((self.source.name(at), str(error)))
                continue
            return item._replace(skipped=skipped)
        raise MasslError(f"no image of {self.source.where} can be read; the first: {skipped[0][1]}")

    def _of_file(self, at: int, epoch: int, index: int) -> Item:
        data = self.source.read(at)
        small_enough = self.settings.decode == "device" and len(data) <= MOST_UNDECODED
        if small_enough and (plain := plain_jpeg(data, self.shortest)):
            boxes, draws = self._drawn(epoch, index, lambda: self.crop.boxes(plain.size))
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return Item(NONE, NONE, draws, [], Undecoded(content, boxes, plain, (epoch, index, at)))
        return self._shown(as_shown(self.source, data, self.shortest), epoch, index)

    def _shown(self, picture: Image.Image, epoch: int, index: int) -> Item:
        """Of a picture, an item."""
        crops, draws = self._drawn(epoch, index, lambda: self.crop(picture))
        if self.settings.augment == "loader":
            crops = [change(crop, row) for crop, row in zip(crops, draws.tolist(), strict=True)]
        return Item(_stack(crops[:2]), _stack(crops[2:], self.settings.local_size), draws, [])

    def _drawn(self, epoch: int, index: int, cut: Callable[[], T]) -> tuple[T, Tensor]:
        """What `cut` gives with an item's own random numbers, and its draws."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which also notes a seed for every kind of device: a fifth of all the time.
            torch.default_generator.manual_seed(seed_of(self.settings.seed, "views", epoch, index))
            return cut(), draw(self.settings)


class WholePictures(Views):
    """The same images, each as an encoder takes it where it is used: uint8 `[1, 3, S, S]` in place of large views.

    A file that can't be read gives way to the same other one as in `Views`.
    """

    def __init__(self, source: Source, settings: Settings, size: int, resize: int) -> None:
        super().__init__(source, dataclasses.replace(settings, decode="loader"))
        self.size, self.shortest = size, resize

    def _shown(self, picture: Image.Image, epoch: int, index: int) -> Item:
        return Item(_stack([fit(picture, self.size, self.shortest)]), _stack([]), torch.zeros(1, 0), [])


def collate(items: list[Item]) -> Batch:
    """Stacks items, and joins what they passed over."""
    cut = [item for item in items if item.jpeg is None]
    views = ([item.large for item in cut], [item.small for item in cut])
    large, small = (torch.stack(each, 1) if each else NONE for each in views)
    passed_over = [pair for item in items for pair in item.skipped]
    return Batch(large, small, torch.stack([item.draws for item in items], 1), passed_over, jpegs=_jpegs(items))


def _jpegs(items: list[Item]) -> Jpegs | None:
    found = {place: item.jpeg for place, item in enumerate(items) if item.jpeg}
    if not found:
        return None
    jpegs = found.values()
    return Jpegs(
        torch.cat([each.data for each in jpegs]),
        torch.stack([each.boxes for each in jpegs]),
        [len(each.data) for each in jpegs],
        list(found),
        [(*each.plain.size, each.plain.factor, each.plain.orientation) for each in jpegs],
        [each.key for each in jpegs],
    )


def on_device(
    batch: Batch, device: torch.device, settings: Settings, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Moves a batch to `device`, does there what the loader left undone, and normalises.

    Returns:
        `[2, B, 3, G, G]`, and `[N, B, 3, L, L]` unless N is 0. Nothing here waits for the device.
    """
    views = [part.to(device, non_blocking=True) for part in (batch.large, batch.small) if len(part)]
    if settings.augment == "loader":
        return [normalise(part, dtype) for part in views]
    draws = batch.draws[:2], batch.draws[2:]
    return [augment(part, rows, dtype) for part, rows in zip(views, draws, strict=False)]


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
