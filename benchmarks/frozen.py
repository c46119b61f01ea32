#!/usr/bin/env python3
"""What freezing saves: processor time of a step of training by the number of blocks that stay as they are.

    benchmarks/frozen.py [BACKBONE] [BATCH] [SIZE] [LOCAL_SIZE] [BLOCKS,BLOCKS,…]

Learners of `massl train --preset cpu` on random views, a step of each in turns; the shortest and the median of five.
What adapting does by default, all of the backbone frozen and embedded once a view, takes no such step: see
`docs/measurements/adapting.md`.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from massl.method.schedules import Rates
from massl.planning import plan
from massl.training.distributed import World
from massl.training.learner import Learner

STEPS = 5


def main(
    backbone: str = "vit_small_patch14_dinov2",
    batch: str = "8",
    size: str = "126",
    local_size: str = "56",
    blocks: str = "0,4,8,11",
) -> None:
    """Prints a line a number of frozen blocks."""
    wanted = {"backbone": backbone, "batch": batch, "image_size": size, "local_size": local_size}
    settings = {count: plan("cpu", 1000, wanted | {"frozen_blocks": count})[0] for count in blocks.split(",")}
    s = next(iter(settings.values()))
    draws = torch.Generator().manual_seed(0)
    views = [
        torch.randn(count, s.batch, 3, side, side, generator=draws)
        for count, side in ((2, s.image_size), (s.local_views, s.local_size))
    ]
    learners = {count: Learner(each, World(torch.device("cpu"))) for count, each in settings.items()}
    taken: dict[str, list[float]] = {count: [] for count in learners}
    for step in range(STEPS + 1):
        for count, learner in learners.items():
            began = time.process_time()
            learner.step(views, Rates(1e-4, 0.04, 0.99, 0.04), step)
            if step:  # the first one also makes what later ones use again
                taken[count].append(time.process_time() - began)
    print(f"{s.backbone}, {s.batch} images, 2 views of {s.image_size} px and {s.local_views} of {s.local_size} px")
    first = statistics.median(next(iter(taken.values())))
    for count, times in taken.items():
        usual = statistics.median(times)
        print(f"{count} frozen: {min(times):.2f} s of processor time a step, median {usual:.2f} ({usual / first:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
