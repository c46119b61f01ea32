"""Views that the training device cuts itself, of JPEGs that it decodes: on a GPU by nvJPEG, through torchvision.

The loader's processes read these files and draw what is cut of them. Everything else, and what the device can't decode,
is decoded and cut on the CPU as usual. Both give the same views, up to the rounding of two decoders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Generator, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from massl.core.errors import MasslError
from massl.data.sources import Source
from massl.method.views import Batch, Jpegs, Views
from massl.settings import Settings

DECODED = 1 << 27  # pixels that are decoded at a time
CANVAS = 1 << 24  # pixels of the pictures that are cut at a time, each with as much room as the largest
SHARPNESS = -0.5  # of bicubic resampling, as Pillow's


def check_decoder(device: torch.device) -> None:
    """Raises a `MasslError` unless torchvision can decode a JPEG on a device."""
    file = io.BytesIO()
    Image.new("RGB", (32, 16), "red").save(file, "JPEG")
    try:
        decode_jpegs([torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)], device)
    except (ImportError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())[:160]
        line = f"decode=device: this torchvision can't decode JPEGs on {device.type} ({why}); leave it out"
        raise MasslError(line) from None


def decode_jpegs(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """Decodes JPEGs of uint8 `[bytes]` to RGB, uint8 `[3, H, W]` on the device; not turned by their EXIF orientation.

    On a CPU, and for devices that are no CUDA GPU, by libjpeg.

    Raises:
        RuntimeError: one of them can't be decoded, or there is no decoder.
        ImportError: likewise.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    if device.type == "cuda":
        return decode_jpeg(files, ImageReadMode.RGB, device=device)
    return [decode_jpeg(file, ImageReadMode.RGB).to(device) for file in files]


class DeviceCutting:
    """Makes batches complete whose JPEGs the loader has left to the device.

    A file that the device can't decode is decoded and cut on the CPU, or gives way to another one, as everywhere.

    Args:
        source: the images.
        settings: the run's, with `decode` at `device`.
        device: that trains.

    Attributes:
        images: so many were asked for so far.
        by_loader: so many of them were none that a device is given.
        failed: so many the device could not decode.
        first_failed: the name of the first of these, and why.
    """

    def __init__(self, source: Source, settings: Settings, device: torch.device) -> None:
        self.source, self.settings, self.device = source, settings, device
        self.images = self.by_loader = self.failed = 0
        self.first_failed = ""
        self._told_of_loader = self._told_of_failed = False
        self._views = Views(source, dataclasses.replace(settings, decode="loader"))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batches(self, arriving: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """Complete batches."""
        with contextlib.closing(arriving):
            for batch in arriving:
                yield self.complete(batch)

    def complete(self, batch: Batch) -> Batch:
        """A batch with the views of all its images, uint8 on the device."""
        jpegs, count = batch.jpegs, batch.draws.shape[1]
        self.images += count
        self.by_loader += count - (len(jpegs.places) if jpegs else 0)
        if jpegs is None:
            return batch
        with self._apart():
            large, small = self._with_room(batch, jpegs)
            skipped = list(batch.skipped)
            files = jpegs.data.split(jpegs.lengths)
            for part in _parts(jpegs):
                skipped += self._fill(large, small, jpegs, files, part)
        if self._stream:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            for views in (large, small):
                views.record_stream(torch.cuda.current_stream(self.device))
        return batch._replace(large=large, small=small, skipped=skipped, jpegs=None)

    def notes(self) -> list[str]:
        """What a person should know of the files so far, a line each, once: what the loader decodes, what failed."""
        said = []
        if self.by_loader and not self._told_of_loader:
            self._told_of_loader = True
            share = self.by_loader / self.images
            said.append(
                f"{share:.0%} of the images so far are decoded by the loader: no JPEGs, or large or unusual ones"
            )
        if self.first_failed and not self._told_of_failed:
            self._told_of_failed = True
            said.append(f"a JPEG could not be decoded on the device, so the CPU does that: {self.first_failed}")
        return [f"decode=device: {line}" for line in said]

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """A stream of its own, so that the CPU waits for nothing but the decoding, and a step goes on meanwhile.

        torchvision's decoder writes in a stream of its own into memory that it takes in the current one, and does not
        wait for what still uses it there. So nothing may be left to do in that one.
        """
        if self._stream is None:
            yield
            return
        self._stream.synchronize()
        with torch.cuda.stream(self._stream):
            yield

    def _with_room(self, batch: Batch, jpegs: Jpegs) -> tuple[Tensor, Tensor]:
        """The batch's views, with room for those of the JPEGs: uint8 `[2, B, 3, G, G]` and `[N, B, 3, L, L]`."""
        s, count = self.settings, batch.draws.shape[1]
        there = sorted({*range(count)} - {*jpegs.places})
        views = []
        for number, side, cut in ((2, s.image_size, batch.large), (s.local_views, s.local_size, batch.small)):
            room = torch.empty((number, count, 3, side, side), dtype=torch.uint8, device=self.device)
            if there and number:
                room[:, there] = cut.to(self.device, non_blocking=True)
            views.append(room)
        return views[0], views[1]

    def _fill(
        self, large: Tensor, small: Tensor, jpegs: Jpegs, files: tuple[Tensor, ...], part: list[int]
    ) -> list[tuple[str, str]]:
        """Fills in the views of some JPEGs. Gives the files that were passed over, with reasons."""
        try:
            decoded = decode_jpegs([files[each] for each in part], self.device)
            upright = [reduced(picture, *jpegs.plain[each][2:]) for picture, each in zip(decoded, part, strict=True)]
            boxes = jpegs.boxes[part].to(self.device, non_blocking=True)
            places = [jpegs.places[each] for each in part]
            large[:, places] = cut(upright, boxes[:, :2], self.settings.image_size)
            if len(small):
                small[:, places] = cut(upright, boxes[:, 2:], self.settings.local_size)
            return []
        except RuntimeError as error:  # a damaged file, or no memory for it on the device
            if len(part) > 1:
                return [pair for each in part for pair in self._fill(large, small, jpegs, files, [each])]
            why = re.sub(r"^.*\.cpp:\d+, ", "", " ".join(str(error).split()))[:100]
        (each,) = part
        epoch, index, at = jpegs.keys[each]
        if not self.failed:
            self.first_failed = f"{self.source.name(at)!r} ({why})"
        self.failed += 1
        item = self._views[epoch, index]
        large[:, jpegs.places[each]] = item.large.to(self.device)
        if len(small):
            small[:, jpegs.places[each]] = item.small.to(self.device)
        return item.skipped


def reduced(picture: Tensor, factor: int, orientation: int) -> Tensor:
    """A decoded picture averaged down by a factor and turned by EXIF's orientation: uint8 to float32 `[3, H, W]`."""
    small = picture.float()
    if factor > 1:
        small = avg_pool2d(small, factor, ceil_mode=True)
    if orientation > 4:
        small = small.mT
    flipped = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation)
    return small.flip(flipped) if flipped else small


def cut(pictures: list[Tensor], boxes: Tensor, side: int) -> Tensor:
    """Cuts views and resizes them as Pillow does: bicubic, averaging where they get smaller, along rows first.

    All in two products of matrices, as pictures and views of many sizes would take some thousand operations a batch.

    Args:
        pictures: J of float32 `[3, H, W]`, from 0 to 255, of any sizes.
        boxes: float32 `[J, V, 4]`: left, top, width and height of each view, in pixels.
        side: of a view, in pixels.

    Returns:
        uint8 `[V, J, 3, side, side]`.
    """
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    canvas = boxes.new_zeros(len(pictures), height, 3, width)
    for place, picture in enumerate(pictures):
        canvas[place, : picture.shape[1], :, : picture.shape[2]] = picture.transpose(0, 1)
    columns = resampling(boxes[..., 0], boxes[..., 2], side, width)
    rows = resampling(boxes[..., 1], boxes[..., 3], side, height)
    narrow = torch.einsum("jhcw,jvsw->jvhcs", canvas, columns).round_().clamp_(0, 255)
    return torch.einsum("jvth,jvhcs->vjcts", rows, narrow).round_().clamp_(0, 255).to(torch.uint8)


def resampling(start: Tensor, length: Tensor, side: int, extent: int) -> Tensor:
    """Matrices that resample a part of a line of pixels, by Pillow's bicubic filter.

    Args:
        start: float32 `[...]`, where the parts begin, in pixels.
        length: float32 `[...]`, how long they are.
        side: pixels that each is to have.
        extent: pixels of the line.

    Returns:
        float32 `[..., side, extent]`. Nothing outside of a part has a weight.
    """
    scale = (length / side)[..., None, None]
    wide = scale.clamp(min=1)
    pixel = torch.arange(extent, device=start.device) + 0.5 - start[..., None, None]
    x = (pixel - (torch.arange(side, device=start.device)[:, None] + 0.5) * scale).abs() / wide
    near = ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * SHARPNESS
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    weights = torch.where((pixel > 0) & (pixel < length[..., None, None]), weights, 0)
    return weights / weights.sum(-1, keepdim=True)


def _parts(jpegs: Jpegs) -> Iterator[list[int]]:
    """Which JPEGs are decoded and cut together."""
    part: list[int] = []
    decoded = across = down = 0
    for each, (width, height, factor, _) in enumerate(jpegs.plain):
        pixels = width * height * factor * factor
        wider, higher = max(across, width), max(down, height)
        if part and (decoded + pixels > DECODED or (len(part) + 1) * wider * higher > CANVAS):
            yield part
            part, decoded, wider, higher = [], 0, width, height
        part.append(each)
        decoded, across, down = decoded + pixels, wider, higher
    if part:
        yield part
