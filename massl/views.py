"""Views: the random crops of an image that student and teacher are shown (DINO's augmentation, as the paper uses)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import InterpolationMode, v2

from massl.errors import MasslError
from massl.images import ImageError, open_image
from massl.settings import Settings


class GaussianBlur(v2.Transform):
    """Blurs a picture with a sigma drawn from [0.1, 2] pixels of a 224-pixel view, so in proportion to `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = size / 224

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Blurs through Pillow, whose cost doesn't grow with sigma as a convolution's does."""
        sigma = self.scale * float(torch.empty(()).uniform_(0.1, 2.0))
        return inpt.filter(ImageFilter.GaussianBlur(sigma))


class Solarise(v2.Transform):
    """Inverts every value of a picture from 128 up."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Solarises through Pillow."""
        return ImageOps.solarize(inpt, 128)


class MultiCrop:
    """Two global and several local views of one picture.

    Called with an RGB picture, returns uint8 `[2, 3, G, G]` and `[N, 3, L, L]`.
    """

    def __init__(self, settings: Settings) -> None:
        def view(
            size: int, scale: tuple[float, float], blur: float, solarise: float
        ) -> Callable[[Image.Image], Tensor]:
            crop = v2.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC)
            change = settings.colour_change
            jitter = v2.ColorJitter(*(change * amount for amount in (0.4, 0.4, 0.2, 0.1)))
            steps = [crop, v2.RandomHorizontalFlip(), v2.RandomApply([jitter], 0.8), v2.RandomGrayscale(0.2 * change)]
            steps += [v2.RandomApply([GaussianBlur(settings.image_size)], blur)]
            steps += [v2.RandomApply([Solarise()], solarise * change)] if solarise else []
            return v2.Compose([*steps, v2.PILToTensor()])

        s = settings
        self.globals = [
            view(s.image_size, s.global_scale, blur=1.0, solarise=0.0),
            view(s.image_size, s.global_scale, blur=0.1, solarise=0.2),
        ]
        self.local = view(s.local_size, s.local_scale, blur=0.5, solarise=0.0)
        self.local_views = s.local_views
        self.local_size = s.local_size

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        """Draws the views with torch's global generator."""
        local = [self.local(picture) for _ in range(self.local_views)]
        empty = torch.empty((0, 3, self.local_size, self.local_size), dtype=torch.uint8)
        return torch.stack([view(picture) for view in self.globals]), torch.stack(local) if local else empty


class Views(Dataset):
    """The views of image files, each drawn from a seed of its own.

    An item's views depend on (seed, epoch, index) alone, not on the worker that makes them or on what came before,
    so that a resumed run sees the very same ones. A file that can't be read gives way to its successor, so that
    batches keep their size; it is named in the item.
    """

    def __init__(self, root: Path, paths: Sequence[str], settings: Settings) -> None:
        self.root = root
        self.paths = paths
        self.seed = settings.seed
        self.crop = MultiCrop(settings)
        # A crop of the smallest area asked for should not have to be enlarged more than it must.
        self.shortest = 2 * settings.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
        """Makes the views for `key`, an (epoch, index) pair; third, the (path, reason) pairs of files passed over."""
        epoch, index = key
        skipped: list[tuple[str, str]] = []
        for attempt in range(len(self.paths)):
            path = self.paths[(index + attempt) % len(self.paths)]
            try:
                picture = open_image(self.root / path, self.shortest)
            except ImageError as error:
                skipped.append((path, str(error)))
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(self.seed, epoch, index))
                return *self.crop(picture), skipped
        raise MasslError(f"not one image below {self.root} can be read; the first: {skipped[0][1]}")


def collate(items: list[tuple[Tensor, Tensor, list[tuple[str, str]]]]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Stacks items to uint8 `[2, B, 3, G, G]` and `[N, B, 3, L, L]`, and joins what they passed over."""
    large, small, skipped = zip(*items, strict=True)
    return torch.stack(large, 1), torch.stack(small, 1), [pair for pairs in skipped for pair in pairs]


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
                generator = torch.Generator().manual_seed(_seed(self.seed, epoch))
                order = torch.randperm(self.images, generator=generator).tolist()
            batch = order[position * self.batch : (position + 1) * self.batch]
            yield [(epoch, index) for index in batch[self.share]]

    def __len__(self) -> int:
        return self.steps - self.start


def normalise(views: Tensor) -> Tensor:
    """uint8 `[..., 3, S, S]` to float with ImageNet's mean and standard deviation, on the views' own device."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=views.device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=views.device).view(3, 1, 1)
    return (views.float() / 255.0 - mean) / std


def _seed(*parts: int) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
