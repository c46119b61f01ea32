#!/usr/bin/env python3
"""What views cost where they are made, side by side in one run: all by the loader, or the loader and the device.

    benchmarks/augment.py IMAGES [PRESET] [COUNT]

IMAGES is anything that `massl train` takes. Prints milliseconds an image for each part on one core, and how many images
a second one worker process hands over in both settings of `augment`. The device is a CUDA GPU if there is one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from massl.core.images.decoding import decode
from massl.data.sources import find_source
from massl.method.views import MultiCrop, Views, collate, needed_side, on_device
from massl.planning import plan


def seconds(work: Callable[[], object], on_gpu: bool) -> float:
    """The shortest of three runs: of this process's own time, which others on the machine don't add to, or a GPU's."""
    times = []
    for _ in range(3):
        started = time.perf_counter() if on_gpu else time.process_time()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() if on_gpu else time.process_time()) - started)
    return min(times)


def main(images: str, preset: str = "gpu", count: str = "64") -> None:
    torch.set_num_threads(1)
    source, _ = find_source(Path(images))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    number = min(int(count), len(source))
    settings = {where: plan(preset, len(source), {"augment": where})[0] for where in ("loader", "device")}
    s = settings["loader"]
    side, crop = needed_side(s), MultiCrop(s)
    views = {where: Views(source, settings[where]) for where in settings}
    batch = collate([views["device"][0, index] for index in range(number)])
    pictures = [decode(source.read(index), side).picture for index in range(number)]

    print(f"{number} images, preset {preset}: 2 views of {s.image_size} px and {s.local_views} of {s.local_size} px")
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: [decode(source.read(index), side) for index in range(number)],
        "crops": lambda: [crop(picture) for picture in pictures],
        "augment=loader: a worker's whole work": lambda: [views["loader"][0, index] for index in range(number)],
        "augment=device: a worker's whole work": lambda: [views["device"][0, index] for index in range(number)],
        f"augment=device: what is left for {device}": lambda: on_device(batch, device, settings["device"]),
        f"augment=loader: what is left for {device}": lambda: on_device(batch, device, s),
    }
    for name, work in parts.items():
        took = seconds(work, on_gpu=name.endswith("cuda"))
        print(f"{name:<45} {took / number * 1e3:8.2f} ms an image  {number / took:8.1f} images/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
