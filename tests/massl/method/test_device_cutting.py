"""Views of JPEGs that the training device decodes: those of the loader, whatever the files are. Here it is a CPU."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageCms

from massl.core.errors import MasslError
from massl.core.images.plain_jpeg import MOST_PIXELS, plain_jpeg
from massl.data.sources import find_source
from massl.method import device_cutting
from massl.method.device_cutting import DeviceCutting, check_decoder, decode_jpegs
from massl.method.views import MOST_UNDECODED, Batch, Views, collate, needed_side
from massl.settings import Settings
from massl.training.loading import Keys, Loading, batches, make_loader, plan_loading
from massl.training.loop import TrainingProgress, train
from tests.massl.conftest import small_settings

CPU = torch.device("cpu")
SETTINGS = small_settings(decode="device")


def photo(size: tuple[int, int] = (97, 75), mode: str = "RGB") -> Image.Image:
    """Colours that change smoothly but for an edge and some noise."""
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    channels = [across, down, across * down, 1 - across][: len(Image.new(mode, (1, 1)).getbands())]
    noise = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 1))
    values = 255 * np.stack(channels, -1) * np.where(across > down, 1, 0.6)[..., None] + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).squeeze(), mode if mode == "CMYK" else None)


def jpeg(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **{"quality": 90} | options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(photo(), exif=exif)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_IS_GREEN = SRGB.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
WHOLE = jpeg(photo())

PLAIN = {
    "baseline": WHOLE,
    "every pixel's colour": jpeg(photo(), subsampling=0),
    "grey": jpeg(photo(mode="L")),
    "progressive": jpeg(photo(), progressive=True),
    "of sRGB": jpeg(photo(), icc_profile=SRGB),
    "one pixel": jpeg(photo((1, 1))),
    "a strip": jpeg(photo((600, 3))),
    **{f"orientation {number}": turned(number) for number in range(2, 9)},
}
REDUCED = {f"reduced by {factor}": jpeg(photo((factor * 99 + 1, factor * 75 + 3))) for factor in (2, 4, 8)}
OTHERS = {
    "CMYK": jpeg(photo(mode="CMYK")),
    "stored as RGB": jpeg(photo(), keep_rgb=True),
    "of other colours": jpeg(photo(), icc_profile=RED_IS_GREEN),
    "filled up": WHOLE + bytes(100),
    "without its end mark": WHOLE[:-2],
    "16 bits": None,
}


def write(folder: Path, files: dict[str, bytes | None]) -> Path:
    for name, data in files.items():
        if data is None:
            values = np.random.default_rng(1).integers(0, 60_000, (40, 50), np.uint16)
            Image.fromarray(values).save(folder / f"{name}.png")
        else:
            (folder / f"{name}.jpg").write_bytes(data)
    return folder


def by_both(folder: Path, settings: Settings = SETTINGS) -> tuple[Batch, Batch, DeviceCutting]:
    """A batch of all images by the device and by the loader, and what the device has to tell."""
    source, _ = find_source(folder)
    loader = Views(source, dataclasses.replace(settings, decode="loader"))
    cutting = DeviceCutting(source, settings, CPU)
    keys = [(0, index) for index in range(len(source))]
    found = cutting.complete(collate([Views(source, settings)[key] for key in keys]))
    return found, collate([loader[key] for key in keys]), cutting


def off(found: Batch, wanted: Batch) -> tuple[float, float]:
    """By how much values differ, of 255: the mean of the image that is off most, and at most."""
    assert torch.equal(found.draws, wanted.draws)
    pairs = [(found.large, wanted.large), (found.small, wanted.small)]
    differences = [(one.int() - other.int()).abs().float() for one, other in pairs]
    return max(float(each.mean((0, 2, 3, 4)).max()) for each in differences), max(float(d.max()) for d in differences)


def test_the_device_cuts_the_views_of_the_loader_from_every_plain_jpeg(tmp_path: Path) -> None:
    found, wanted, cutting = by_both(write(tmp_path, PLAIN))
    assert (cutting.images, cutting.by_loader, cutting.failed) == (len(PLAIN), 0, 0)
    mean, most = off(found, wanted)
    assert mean < 0.02
    assert most <= 2
    assert cutting.notes() == []


def test_pictures_that_the_loader_decodes_at_a_reduced_size_are_averaged_down_to_it(tmp_path: Path) -> None:
    shortest = needed_side(SETTINGS)
    assert {plain_jpeg(data, shortest).factor for data in REDUCED.values()} == {2, 4, 8}
    found, wanted, cutting = by_both(write(tmp_path, REDUCED))
    assert cutting.by_loader == 0
    mean, most = off(found, wanted)
    assert mean < 1
    assert most <= 16


def test_all_other_files_are_decoded_by_the_loader_to_the_same_pixels(tmp_path: Path) -> None:
    found, wanted, cutting = by_both(write(tmp_path, OTHERS | {"baseline": WHOLE}))
    assert cutting.by_loader == len(OTHERS)
    names = find_source(tmp_path)[0].paths
    for place, name in enumerate(names):
        same = torch.equal(found.large[:, place], wanted.large[:, place])
        assert same or name == "baseline.jpg"
    (line,) = cutting.notes()
    assert "86% of the images so far are decoded by the loader" in line
    assert cutting.notes() == []


def test_large_files_and_large_pictures_are_left_to_the_loader(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    large = jpeg(noise, quality=100, subsampling=0)
    assert len(large) > MOST_UNDECODED
    found, wanted, cutting = by_both(write(tmp_path, {"large": large, "other": WHOLE}))
    assert cutting.by_loader == 1
    assert torch.equal(found.large[:, 0], wanted.large[:, 0])
    side = int(MOST_PIXELS**0.5)
    header = bytearray(WHOLE)
    at = header.index(b"\xff\xc0")
    header[at + 5 : at + 9] = (side + 1).to_bytes(2, "big") * 2
    assert plain_jpeg(WHOLE, 32)
    assert plain_jpeg(bytes(header), 32) is None


def damaged() -> bytes:
    """A JPEG whose header is right, and whose coded pixels come to an end early."""
    start = WHOLE.index(b"\xff\xda")
    return WHOLE[: start + 40] + b"\xff\xd9"


def broken_tables() -> bytes:
    """A JPEG with tables of codes that no decoder takes."""
    data = bytearray(WHOLE)
    at = data.index(b"\xff\xc4")
    data[at + 5 : at + 21] = b"\xff" * 16
    return bytes(data)


def test_what_the_device_can_not_decode_gives_way_as_everywhere_and_is_told_once(tmp_path: Path) -> None:
    files = {
        "a": WHOLE,
        "b broken": broken_tables(),
        "c cut off": WHOLE[:900],
        "d": jpeg(photo((50, 60))),
        "e": damaged(),
    }
    found, wanted, cutting = by_both(write(tmp_path, files))
    assert cutting.failed == 1
    assert sorted(found.skipped) == sorted(wanted.skipped)
    assert {name for name, _ in found.skipped} == {"b broken.jpg", "c cut off.jpg"}
    assert off(found, wanted)[1] <= 2
    assert cutting.notes() == [
        "decode=device: a JPEG could not be decoded on the device, so the CPU does that: 'b broken.jpg' (Bogus Huffman "
        "table definition)"
    ]
    assert cutting.notes() == []


def test_a_device_without_memory_for_a_picture_leaves_it_to_the_cpu(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(device_cutting, "decode_jpegs", full)
    source, _ = find_source(write(photos, PLAIN))
    found, wanted, cutting = by_both(photos)
    assert cutting.failed == len(source)
    assert off(found, wanted) == (0, 0)


def test_pictures_are_cut_in_parts_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PLAIN)
    whole, _, _ = by_both(tmp_path)
    monkeypatch.setattr(device_cutting, "CANVAS", 3 * 97 * 97)
    asked: list[int] = []

    def counted(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        asked.append(len(files))
        return decode_jpegs(files, device)

    monkeypatch.setattr(device_cutting, "decode_jpegs", counted)
    parts, _, _ = by_both(tmp_path)
    assert sum(asked) == len(PLAIN)
    assert max(asked) == 3
    assert off(parts, whole)[1] <= 1


@pytest.mark.parametrize("shared", [True, False])
def test_batches_come_whole_from_a_process_that_loads_images(tmp_path: Path, shared: bool) -> None:
    files = {"grey": PLAIN["grey"], "CMYK": OTHERS["CMYK"], "turned": turned(6), "cut off": WHOLE[:900]}
    source, _ = find_source(write(tmp_path, files))
    keys = Keys([[(0, 0), (0, 1), (0, 2)], [(1, 3), (1, 0), (1, 1)]])
    loader = make_loader(Views(source, SETTINGS), keys, Loading(1, 1, shared))
    cutting = DeviceCutting(source, SETTINGS, CPU)
    _, wanted, _ = by_both(tmp_path)
    arriving = list(cutting.batches(batches(loader, 60, lambda: False)))
    assert [batch.large.shape for batch in arriving] == [(2, 3, 3, 32, 32)] * 2
    assert (arriving[0].large.int() - wanted.large[:, :3].int()).abs().max() <= 2
    assert cutting.by_loader == 2


def test_a_run_decodes_on_the_device_and_a_bad_file_does_not_end_it(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(broken_tables())
    source, _ = find_source(write(photos, {"baseline": WHOLE}))
    told: list[str] = []

    def report(progress: TrainingProgress) -> None:
        told.extend(progress.warnings)

    settings = small_settings(len(source), decode="device", steps="7", probe_every="7", checkpoint_every="7")
    summary = train(source, tmp_path / "run", settings, report=report)
    assert [each["path"] for each in summary["skipped"]] == ["broken.jpg"]
    (line,) = (line for line in told if line.startswith("decode=device"))
    assert "'broken.jpg'" in line
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] is not None for line in lines] == [True] * 7


def test_the_setting_is_checked_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SETTINGS.augment == "device"
    assert small_settings().decode == "loader"
    with pytest.raises(MasslError, match="set augment=device"):
        small_settings(decode="device", augment="loader")
    with pytest.raises(MasslError, match="decode must be loader or device"):
        small_settings(decode="gpu")
    check_decoder(CPU)
    monkeypatch.delattr(torchvision.io, "decode_jpeg")
    with pytest.raises(MasslError, match=r"can't decode JPEGs on cpu .*; leave it out"):
        check_decoder(CPU)


def test_room_for_files_is_planned_where_they_are_handed_over_undecoded() -> None:
    some = {"batch": "8", "workers": "1"}
    by_loader, by_device = (
        plan_loading(small_settings(**some, decode=where), free=40 << 20) for where in ("loader", "device")
    )
    assert (by_loader.ahead, by_device.ahead) == (4, 2)
    assert "/dev/shm has 42 MB free" in by_device.note
