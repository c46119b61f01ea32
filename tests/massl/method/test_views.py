"""What of a picture is decoded and cut, and what that depends on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from massl.core.memory_budget import BUDGET
from massl.data.sources import Source, doubts, find_source
from massl.method.views import EndlessBatches, Views, collate, needed_side, on_device
from massl.settings import Settings
from massl.training.loading import begin_worker
from tests.massl.conftest import small_settings
from tests.memory import little_memory


def test_views_depend_on_seed_epoch_and_image_alone(photos: Path) -> None:
    source, _ = find_source(photos)
    views = Views(source, small_settings())
    first = views[2, 5]
    torch.manual_seed(99)
    views[0, 1], views[2, 6]
    for kind in ("large", "small", "draws"):
        again, other, elsewhere = (getattr(views[key], kind) for key in ((2, 5), (3, 5), (2, 6)))
        assert torch.equal(getattr(first, kind), again)
        assert not torch.equal(again, other)
        assert not torch.equal(again, elsewhere)
    assert not torch.equal(first.large, Views(source, small_settings(seed="1"))[2, 5].large)
    state = torch.get_rng_state()
    views[2, 5]
    assert torch.equal(torch.get_rng_state(), state)  # what training draws from is left alone


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_every_batch_without_overlap_from_any_step_on(ranks: int) -> None:
    whole = list(EndlessBatches(50, 8, 3, 0, 20))
    shares = zip(*(EndlessBatches(50, 8, 3, 4, 20, rank, ranks) for rank in range(ranks)), strict=True)
    for batch, several in zip(whole[4:], shares, strict=True):
        assert {len(share) for share in several} == {8 // ranks}
        assert [key for share in several for key in share] == batch
        assert len(set(batch)) == 8


def test_the_crops_are_the_same_wherever_the_rest_is_done(photos: Path) -> None:
    source, _ = find_source(photos)
    plain = {"colour_change": "0", "local_views": "0"}
    loader, device = (Views(source, small_settings(**plain, augment=where)) for where in ("loader", "device"))
    found = 0
    for index in range(24):
        row = loader[0, index].draws[1]
        if not row[0] and not row[7]:  # neither flipped nor blurred
            assert torch.equal(loader[0, index].large[1], device[0, index].large[1])
            found += 1
    assert found > 3


def test_no_local_views_are_no_batch_of_them(photos: Path) -> None:
    source, _ = find_source(photos)
    for where in ("loader", "device"):
        settings = small_settings(local_views="0", augment=where)
        (large,) = on_device(collate([Views(source, settings)[0, 0]]), torch.device("cpu"), settings)
        assert large.shape == (2, 1, 3, 32, 32)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        (Settings(), 430),  # 96 / sqrt(0.05), the paper's local views
        (Settings(local_views=0), 396),  # 224 / sqrt(0.32)
        (Settings(global_scale=(0.08, 1.0)), 792),
        (Settings(image_size=64, local_size=32, global_scale=(0.25, 1.0), local_scale=(0.1, 0.4)), 128),
    ],
)
def test_pictures_are_decoded_as_large_as_the_smallest_crop_needs(tmp_path: Path, settings, side: int) -> None:
    assert needed_side(settings) == side
    Image.effect_noise((2000, 1500), 40).save(tmp_path / "large.jpg")
    views, seen = Views(find_source(tmp_path)[0], settings), []
    cut = views.crop
    views.crop = lambda picture: seen.append(picture.size) or cut(picture)
    views[0, 0]
    ((_, height),) = seen
    assert side <= height < 2 * side


def test_a_picture_that_the_memory_does_not_hold_gives_way_to_the_next(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_memory(monkeypatch)
    Image.new("RGB", (10_000, 4_000), "red").save(photos / "a large one.png", compress_level=1)
    source, _ = find_source(photos)
    views = Views(source, small_settings())
    index = next(index for index in range(25) if source.name(index) == "a large one.png")
    ((name, reason),) = views[0, index].skipped
    assert name == "a large one.png"
    assert reason.startswith("not enough memory to decode it")
    assert torch.equal(views[0, index].large, views[0, index].large)
    assert doubts(source, 32) == []  # a look at its header takes next to nothing


def test_the_processes_that_make_views_share_the_memory(photos: Path) -> None:
    source, _ = find_source(photos)
    loader = DataLoader(_Shares(source), num_workers=2, worker_init_fn=partial(begin_worker, 6))
    assert [int(share) for share in loader] == [6] * 24


class _Shares(Dataset):
    """For each image, by how many the process that makes its views divides the memory."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> int:
        return BUDGET.processes
