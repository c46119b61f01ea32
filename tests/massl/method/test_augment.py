"""What is changed about views: each step held to torchvision's, the whole to DINO's recipe in its transforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from massl.data.sources import find_source
from massl.method import augment as steps
from massl.method.augment import (
    BLUR,
    BRIGHTNESS,
    COLUMNS,
    CONTRAST,
    FLIP,
    GREY,
    HUE,
    ORDER,
    ORDERS,
    SATURATION,
    SOLARISE,
    augment,
    change,
    draw,
    normalise,
)
from massl.method.views import Batch, Views, collate, on_device
from tests.massl.conftest import small_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def crops(pictures: Path) -> Tensor:
    """uint8 `[64, 3, 48, 48]`, cut from as many real pictures."""
    source, _ = find_source(pictures)
    views = Views(source, small_settings(image_size="48", local_views="0", augment="device"))
    return torch.stack([views[0, 3 * index].large[0] for index in range(64)])


def to_pictures(crops: Tensor) -> list[Image.Image]:
    return [Image.fromarray(crop.permute(1, 2, 0).numpy()) for crop in crops]


# Step by step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "torchvision", "amounts"),
    [
        (steps.flip, lambda view, amount: functional.horizontal_flip(view), (1, 1)),
        (steps.brightness, functional.adjust_brightness, (0, 2)),
        (steps.contrast, functional.adjust_contrast, (0, 2)),
        (steps.saturation, functional.adjust_saturation, (0, 2)),
        (steps.hue, functional.adjust_hue, (-0.5, 0.5)),
        (steps.greyscale, lambda view, amount: functional.rgb_to_grayscale(view, 3), (1, 1)),
        (steps.solarise, lambda view, amount: functional.solarize(view, 128 / 255), (1, 1)),
    ],
)
def test_a_step_is_torchvisions_with_an_amount_of_its_own_for_each_picture(
    crops: Tensor, step, torchvision, amounts
) -> None:
    views = crops.float() / 255
    amount = torch.linspace(*amounts, len(views))
    expected = torch.stack([torchvision(view, float(value)) for view, value in zip(views, amount, strict=True)])
    torch.testing.assert_close(step(views, amount.view(-1, 1, 1, 1)), expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("shape", [(48, 48), (5, 48)])
def test_blur_is_pillows(crops: Tensor, shape: tuple[int, int]) -> None:
    views = crops[:, :, : shape[0]].contiguous()
    sigma = torch.linspace(0.01, 3.0, len(views))
    blurred = steps.blur(views.float() / 255, sigma.view(-1, 1, 1, 1)) * 255
    for view, value, ours in zip(to_pictures(views), sigma, blurred, strict=True):
        theirs = torch.from_numpy(np.array(view.filter(ImageFilter.GaussianBlur(float(value))))).permute(2, 0, 1)
        assert float((ours - theirs).abs().mean()) < 1  # Pillow rounds six times
        assert float((ours - theirs).abs().max()) < 4


# The whole ------------------------------------------------------------------------------------------------------------


def test_the_device_gives_the_views_that_the_loader_gives(pictures: Path) -> None:
    source, _ = find_source(pictures)
    views = {}
    for where in ("loader", "device"):
        settings = small_settings(image_size="64", local_size="32", local_views="4", augment=where)
        items = Views(source, settings)
        views[where] = on_device(collate([items[1, index] for index in range(40)]), CPU, settings)
    assert [part.shape for part in views["device"]] == [(2, 40, 3, 64, 64), (4, 40, 3, 32, 32)]
    for loader, device in zip(views["loader"], views["device"], strict=True):
        levels = (loader - device).abs().mean((2, 3, 4)) * 0.226 * 255
        assert float(levels.max()) < 3.5  # of 255, the worst view
        assert float(levels.mean()) < 1.5


def test_a_view_does_not_depend_on_the_batch_that_it_is_in(pictures: Path) -> None:
    source, _ = find_source(pictures)
    settings = small_settings(local_views="2", augment="device")
    items = [Views(source, settings)[0, index] for index in range(12)]
    whole = on_device(collate(items), CPU, settings)
    parts = [on_device(collate(items[start : start + 3]), CPU, settings) for start in range(0, 12, 3)]
    for kind, together in enumerate(whole):
        torch.testing.assert_close(torch.cat([part[kind] for part in parts], 1), together, atol=1e-5, rtol=0)


def test_batches_larger_than_a_part_come_out_the_same(crops: Tensor, monkeypatch) -> None:
    settings = small_settings(local_views="0")
    draws = torch.stack([draw(settings) for _ in crops], 1)
    views = torch.stack([crops, crops])
    whole = augment(views, draws)
    monkeypatch.setattr(steps, "CPU_VALUES", 30 * crops[0].numel())
    torch.testing.assert_close(augment(views, draws), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", ["loader", "device"])
def test_views_come_in_the_type_and_the_layout_that_networks_read(crops: Tensor, where: str) -> None:
    settings = small_settings(local_views="0", augment=where)
    draws = torch.stack([draw(settings) for _ in crops], 1)
    batch = Batch(torch.stack([crops, crops]), crops[:0], draws, [])
    (exact,) = on_device(batch, CPU, settings)
    (rounded,) = on_device(batch, CPU, settings, torch.bfloat16)
    assert exact.dtype == torch.float32
    assert torch.equal(rounded, exact.bfloat16())
    for views in (exact, rounded):
        assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert views.flatten(0, 1).data_ptr() == views.data_ptr()


def test_nothing_drawn_changes_nothing(crops: Tensor) -> None:
    rows = torch.zeros(1, len(crops), COLUMNS)
    rows[..., BRIGHTNESS:HUE] = 1
    torch.testing.assert_close(augment(crops[None], rows), normalise(crops[None]))
    assert change(to_pictures(crops)[0], rows[0, 0].tolist()) == to_pictures(crops)[0]


def test_colours_can_be_left_alone() -> None:
    settings = small_settings(colour_change="0")
    rows = torch.cat([draw(settings) for _ in range(100)])
    assert (rows[:, BRIGHTNESS:HUE] == 1).all()
    assert (rows[:, [HUE, GREY, SOLARISE]] == 0).all()
    assert 0.3 < rows[:, FLIP].mean() < 0.7


def test_draws_are_those_of_the_recipe() -> None:
    torch.manual_seed(0)
    settings = small_settings(image_size="224", local_size="96", local_views="1")
    rows = torch.stack([draw(settings) for _ in range(4000)], 1)

    def share(chosen: Tensor) -> list[float]:
        return chosen.float().mean(-1).tolist()

    assert share(rows[..., FLIP]) == pytest.approx([0.5] * 3, abs=0.03)
    assert share(rows[..., GREY]) == pytest.approx([0.2] * 3, abs=0.03)
    assert share(rows[..., SOLARISE]) == pytest.approx([0, 0.2, 0], abs=0.03)
    assert share(rows[..., BLUR] > 0) == pytest.approx([1, 0.1, 0.5], abs=0.03)
    assert set(rows[..., ORDER].flatten().tolist()) == set(range(len(ORDERS)))
    ranges = [(BRIGHTNESS, 0.6, 1.4), (CONTRAST, 0.6, 1.4), (SATURATION, 0.8, 1.2), (HUE, -0.1, 0.1), (BLUR, 0.1, 2.0)]
    for column, low, high in ranges:
        changed = rows[..., column] != (0 if column in (HUE, BLUR) else 1)
        if column != BLUR:
            assert share(changed) == pytest.approx([0.8] * 3, abs=0.03)
        drawn = ((rows[..., column][changed] - low) / (high - low)).numpy()
        assert kstest(drawn, "uniform").statistic < 0.03


class PillowBlur(v2.Transform):
    """DINO's blur: sigma from [0.1, 2] pixels of a 224-pixel view."""

    def transform(self, inpt, params):
        return inpt.filter(ImageFilter.GaussianBlur(48 / 224 * float(torch.empty(()).uniform_(0.1, 2.0))))


def dino(blur: float, solarise: float) -> v2.Compose:
    """DINO's recipe after the crop, written with torchvision's own transforms."""
    return v2.Compose([
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([PillowBlur()], blur),
        v2.RandomSolarize(128, solarise),
        v2.PILToTensor(),
    ])  # fmt: skip


def figures(views: Tensor, crops: Tensor) -> dict[str, np.ndarray]:
    """What can be told of each view beside the crop that it was made from; both float `[n, 3, S, S]` from 0 to 1."""

    def grey(x: Tensor) -> Tensor:
        return x.mean(1)

    def sharpness(x: Tensor) -> Tensor:
        g = grey(x)
        laplacian = 4 * g[:, 1:-1, 1:-1] - g[:, :-2, 1:-1] - g[:, 2:, 1:-1] - g[:, 1:-1, :-2] - g[:, 1:-1, 2:]
        return laplacian.square().mean((1, 2)) / (g.var((1, 2)) + 1e-4)

    def chroma(x: Tensor) -> Tensor:
        return (x.amax(1) - x.amin(1)).mean((1, 2))

    def colour(x: Tensor) -> Tensor:
        red, green, blue = x.mean((2, 3)).unbind(1)
        return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)

    def likeness(x: Tensor, y: Tensor) -> Tensor:
        x, y = (g - g.mean((1, 2), keepdim=True) for g in (grey(x), grey(y)))
        return (x * y).sum((1, 2)) / (x.norm(dim=(1, 2)) * y.norm(dim=(1, 2)) + 1e-6)

    def relative(figure: Callable[[Tensor], Tensor]) -> Tensor:
        return figure(views) / (figure(crops) + 1e-3)

    found = {f"mean of channel {c}": views[:, c].mean((1, 2)) for c in range(3)}
    found |= {f"deviation of channel {c}": views[:, c].std((1, 2)) for c in range(3)}
    found["change of brightness"] = relative(lambda x: x.mean((1, 2, 3)) + 0.05)
    # Each by a ratio that the changes before it in this list leave as it is.
    found["change of contrast"] = relative(lambda x: grey(x).std((1, 2)) / (x.mean((1, 2, 3)) + 0.02))
    found["change of saturation"] = relative(lambda x: chroma(x) / (grey(x).std((1, 2)) + 0.02))
    turn = colour(views) - colour(crops)
    found["change of hue"] = torch.where(chroma(views) > 0.02, torch.atan2(turn.sin(), turn.cos()), 0)
    # In steps, as 8-bit rounding, which the loader does after each change and the device once, shows as well.
    found["change of sharpness"] = (relative(sharpness) * 20).round() / 20
    found["share of grey"] = (chroma(views) < 1e-3).float()
    found["share of solarised"] = (views.amax((1, 2, 3)) < 128.6 / 255).float()
    found["share of flipped"] = (likeness(views, crops.flip(-1)).abs() > likeness(views, crops).abs()).float()
    return {name: value.numpy() for name, value in found.items()}


REPEATS = 12
RECIPES = (dino(1.0, 0.0), dino(0.1, 0.2), dino(0.5, 0.0))  # the first and second global view, a local one


@pytest.fixture(scope="module")
def recipe_figures(crops: Tensor) -> list[dict[str, np.ndarray]]:
    """The figures of torchvision's views, for each of `RECIPES`."""
    torch.manual_seed(1)
    many, pictures = crops.repeat(REPEATS, 1, 1, 1), to_pictures(crops) * REPEATS
    return [figures(torch.stack([recipe(picture) for picture in pictures]) / 255, many / 255) for recipe in RECIPES]


@pytest.mark.parametrize("where", ["loader", "device"])
def test_views_have_the_statistics_of_the_recipe_in_torchvision(crops: Tensor, recipe_figures, where: str) -> None:
    torch.manual_seed(0)
    many = crops.repeat(REPEATS, 1, 1, 1)
    settings = small_settings(image_size="48", local_views="1")
    draws = torch.stack([draw(settings) for _ in many], 1)
    for kind, expected in enumerate(recipe_figures):
        if where == "device":
            made = augment(many[None], draws[kind][None])[0]
            black, white = normalise(torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
            made = ((made - black) / (white - black) * 255).round() / 255
        else:
            pictures = zip(to_pictures(crops) * REPEATS, draws[kind].tolist(), strict=True)
            made = torch.stack([functional.pil_to_tensor(change(*pair)) for pair in pictures]) / 255
        for name, values in figures(made, many / 255).items():
            # The largest distance of the two cumulative distributions: 0.07 comes by chance once in forty times. The
            # loader's rounding swallows the faintest blurs, the device's floats show them.
            distance = ks_2samp(values, expected[name], method="asymp").statistic
            assert distance < (0.16 if name == "change of sharpness" else 0.1), (kind, name)
            assert abs(values.mean() - expected[name].mean()) < 0.3 * max(values.std(), 0.02), (kind, name)
