"""What is changed about a view once it is cut: flip, colours, blur, solarisation (DINO's, as the paper uses).

What happens to a view is drawn by the loader from the seed of its (seed, epoch, image), a row of numbers a view. It is
then done either by the loader's processes, a picture at a time with Pillow, or in batches on the training device. Both
give the same views up to rounding, so a run depends neither on where that is done nor on how a batch is split up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from massl.settings import Settings

# A row of draws, by column.
COLUMNS = 9
FLIP, ORDER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY, BLUR, SOLARISE = range(COLUMNS)
JITTER = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
ORDERS = tuple(itertools.permutations(JITTER))  # ORDER's value is an index of this

JITTER_AMOUNTS = (0.4, 0.4, 0.2, 0.1)
JITTER_CHANCE, GREY_CHANCE, SOLARISE_CHANCE = 0.8, 0.2, 0.2
BLUR_CHANCES = (1.0, 0.1, 0.5)  # of the first and the second global view, of local ones
BLUR_SIGMAS = (0.1, 2.0)  # pixels of a 224-pixel view; in proportion where views are smaller

IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))  # mean and standard deviation of each channel

# Floats of one temporary, so that a large batch needs no more memory than a small one. On a CPU: what caches hold.
GPU_VALUES, CPU_VALUES = 2**25, 2**20


def draw(settings: Settings) -> Tensor:
    """Draws what happens to the views of one image, with torch's global generator.

    Returns:
        float32 `[2 + N, COLUMNS]`, a row a view: the global ones, then the local ones. Flip, grey and solarise are 0 or
        1; brightness, contrast and saturation factors; hue a turn from -0.5 to 0.5; blur a sigma in pixels; order an
        index of `ORDERS`. What does nothing is 1 for a factor and 0 for all else.
    """
    s = settings
    views = 2 + s.local_views
    chance = torch.rand(views, 6)
    amount = torch.rand(views, 5)
    blur = torch.tensor([*BLUR_CHANCES[:2], *[BLUR_CHANCES[2]] * s.local_views])
    solarise = torch.zeros(views)
    solarise[1] = SOLARISE_CHANCE * s.colour_change
    rows = torch.zeros(views, COLUMNS)
    rows[:, FLIP] = (chance[:, 0] < 0.5).float()
    rows[:, ORDER] = (chance[:, 1] * len(ORDERS)).floor()
    jitter = torch.tensor(JITTER_AMOUNTS) * s.colour_change * (2 * amount[:, :4] - 1)
    rows[:, BRIGHTNESS : HUE + 1] = (chance[:, 2:3] < JITTER_CHANCE) * jitter
    rows[:, BRIGHTNESS:HUE] += 1
    rows[:, GREY] = (chance[:, 3] < GREY_CHANCE * s.colour_change).float()
    low, high = (sigma * s.image_size / 224 for sigma in BLUR_SIGMAS)
    rows[:, BLUR] = (chance[:, 4] < blur) * (low + (high - low) * amount[:, 4])
    rows[:, SOLARISE] = (chance[:, 5] < solarise).float()
    return rows


def change(picture: Image.Image, row: list[float]) -> Image.Image:
    """Does to one RGB view what `row` of `draw` says, with Pillow, whose blur costs the same for every sigma."""
    if row[FLIP]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for step in ORDERS[int(row[ORDER])]:
        if row[step] != _neutral(step):
            picture = _ADJUST[step](picture, row[step])
    if row[GREY]:
        picture = picture.convert("L").convert("RGB")
    if row[BLUR]:
        picture = picture.filter(ImageFilter.GaussianBlur(row[BLUR]))
    return ImageOps.solarize(picture, 128) if row[SOLARISE] else picture


@torch.no_grad()
def augment(views: Tensor, draws: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Does to a batch of views what `draws` say, on the views' own device, and normalises them.

    Nothing waits for the device: which views a step concerns is known on the CPU, where the draws are.

    Args:
        views: uint8 `[V, B, 3, S, S]`.
        draws: float32 `[V, B, COLUMNS]` on the CPU, see `draw`.
        dtype: of what is returned. It is computed in float32.

    Returns:
        `[V, B, 3, S, S]`, as `normalise` gives them.
    """
    flat, rows = views.flatten(0, 1), draws.flatten(0, 1)
    out = _as_networks_read(flat, dtype)
    values = CPU_VALUES if flat.device.type == "cpu" else GPU_VALUES
    part = max(1, values // max(1, flat[0].numel()))
    for start in range(0, len(flat), part):
        x = flat[start : start + part].float() / 255
        for step, index, amount in _on_device(rows[start : start + part], x.device):
            x[index] = _STEPS[step](x[index], amount.view(-1, 1, 1, 1))
        out[start : start + part].copy_(_standardise(x))
    return out.view(views.shape)


def normalise(views: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 `[..., 3, S, S]` to floats with ImageNet's mean and standard deviation, on the views' own device.

    They lie in memory as `torch.channels_last` has it.
    """
    flat = views.reshape(-1, *views.shape[-3:])
    return _as_networks_read(flat, dtype).copy_(_standardise(flat.float() / 255)).view(views.shape)


def _as_networks_read(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for views `[N, 3, S, S]`, in the layout that convolutions are fastest in, which then isn't made again."""
    return torch.empty(flat.shape, dtype=dtype, device=flat.device, memory_format=torch.channels_last)


def pixels_of(views: Tensor) -> Tensor:
    """The reverse of `normalise`: floats from 0 to 255, as a person can look at them."""
    mean, std = (torch.tensor(column, device=views.device).view(3, 1, 1) for column in zip(*IMAGENET, strict=True))
    return ((views * std + mean) * 255).clamp(0, 255)


def _standardise(views: Tensor) -> Tensor:
    for channel, (mean, std) in enumerate(IMAGENET):
        views[..., channel, :, :].sub_(mean).div_(std)
    return views


def _on_device(rows: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The steps of a batch in their order: which, the indexes of the views that it concerns, and its amounts."""
    steps = list(_steps(rows))
    lengths = [len(index) for _, index in steps]
    if not steps:
        return
    indexes = torch.cat([index for _, index in steps])
    amounts = torch.cat([rows[index, step] for step, index in steps])
    if device.type == "cuda":  # from pinned memory, as other copies make the CPU wait
        indexes, amounts = indexes.pin_memory(), amounts.pin_memory()
    indexes, amounts = indexes.to(device, non_blocking=True), amounts.to(device, non_blocking=True)
    for (step, _), index, amount in zip(steps, indexes.split(lengths), amounts.split(lengths), strict=True):
        yield step, index, amount


def _steps(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    order = torch.tensor(ORDERS)[rows[:, ORDER].long()]
    turns = [(step, order[:, turn] == step) for turn in range(len(JITTER)) for step in JITTER]
    everywhere = torch.ones(len(rows), dtype=torch.bool)
    for step, turn in [(FLIP, everywhere), *turns, *((step, everywhere) for step in (GREY, BLUR, SOLARISE))]:
        index = (turn & (rows[:, step] != _neutral(step))).nonzero().flatten()
        if len(index):
            yield step, index


def _neutral(step: int) -> float:
    return 1.0 if step in (BRIGHTNESS, CONTRAST, SATURATION) else 0.0


# The steps, on float RGB [B, 3, S, S] from 0 to 1, with an amount a picture, [B, 1, 1, 1] -----------------------------


def flip(views: Tensor, amount: Tensor) -> Tensor:
    """Left to right."""
    return views.flip(-1)


def brightness(views: Tensor, factor: Tensor) -> Tensor:
    """Towards black (0), unchanged (1), brighter."""
    return (views * factor).clamp_(0, 1)


def contrast(views: Tensor, factor: Tensor) -> Tensor:
    """Towards the mean grey of the picture (0), unchanged (1), away from it."""
    return torch.lerp(_luminance(views).mean((1, 2, 3), keepdim=True), views, factor).clamp_(0, 1)


def saturation(views: Tensor, factor: Tensor) -> Tensor:
    """Towards each pixel's grey (0), unchanged (1), away from it."""
    return torch.lerp(_luminance(views), views, factor).clamp_(0, 1)


def hue(views: Tensor, turn: Tensor) -> Tensor:
    """Turns hue round the circle by a share of it; saturation and value, as HSV defines them, stay."""
    red, green, blue = views.unbind(1)
    value, which = views.max(1)
    chroma = value - views.amin(1)
    scale = 1 / torch.where(chroma == 0, 1, chroma)
    # Sixths of the circle, from red.
    place = torch.where(which == 0, (green - blue) * scale, (blue - red) * scale + 2)
    place = torch.where(which == 2, (red - green) * scale + 4, place) + 6 * turn.squeeze(1)
    channels = [(place + offset) % 6 for offset in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1) for k in channels], 1)


def greyscale(views: Tensor, amount: Tensor) -> Tensor:
    """Every channel the luminance."""
    return _luminance(views).expand_as(views)


def blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's Gaussian blur: three box blurs of a fractional width that has the variance asked for, edges repeated.

    (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", 2011, equation 14.)
    One matrix a picture does all three, so that pictures of different sigma go together; a sampled Gaussian would blur
    far too little where sigma is below half a pixel, as it is for small views.
    """
    variance = sigma.view(-1, 1, 1).square() / 3
    whole = ((12 * variance + 1).sqrt() - 1).div(2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    radius = whole + part
    rows, columns = (_box(size, radius) for size in views.shape[-2:])
    return (rows.unsqueeze(1) @ views @ columns.mT.unsqueeze(1)).clamp_(0, 1)


def solarise(views: Tensor, amount: Tensor) -> Tensor:
    """Inverts every value of a picture from 128 of 255 up."""
    return torch.where(views < 128 / 255, views, 1 - views)


def _box(size: int, radius: Tensor) -> Tensor:
    """`[B, size, size]`: three times the mean over `2 * radius + 1` neighbours, whose outermost count in part."""
    position = torch.arange(size, device=radius.device, dtype=radius.dtype)
    weights = (radius + 1 - (position[:, None] - position).abs()).clamp_(0, 1)
    # What would lie outside falls on the edges.
    outside = (radius - (position[:, None] + position)).clamp_(0, 1).sum(-1)
    weights[:, :, 0] += outside
    weights[:, :, -1] += outside.flip(-1)
    once = weights / (2 * radius + 1)
    return once @ once @ once


def _luminance(views: Tensor) -> Tensor:
    red, green, blue = views.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


_ADJUST: dict[int, Any] = {
    BRIGHTNESS: functional.adjust_brightness,
    CONTRAST: functional.adjust_contrast,
    SATURATION: functional.adjust_saturation,
    HUE: functional.adjust_hue,
}
_STEPS: dict[int, Any] = {
    FLIP: flip,
    BRIGHTNESS: brightness,
    CONTRAST: contrast,
    SATURATION: saturation,
    HUE: hue,
    GREY: greyscale,
    BLUR: blur,
    SOLARISE: solarise,
}
