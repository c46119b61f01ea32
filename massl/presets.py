"""The presets: what `massl train` begins from, and where its numbers come from."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """What a preset fixes; `massl.planning.plan` computes the rest."""

    about: str
    epochs: int | None  # None: as many as it takes to see `seen` images
    seen: int
    values: Mapping[str, object]
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a value
    batches: tuple[int, ...] = ()  # larger than the one of `values`, where memory and the number of steps allow them


_PAPER = {"image_size": 224, "local_size": 96, "local_views": 10, "memory": 131072, "block": 16384}

PRESETS: Mapping[str, Preset] = types.MappingProxyType({
    "adapt": Preset(
        "a linear layer on an encoder's embeddings, its backbone frozen: minutes on two CPU cores",
        None,
        0,
        {"adapter": True, "batch": 128, "local_views": 0, "drop_path": 0.0, "learning_rate": 2e-3,
         "weight_decay": 0.0, "weight_decay_end": 0.0, "momentum": 0.98, "teacher_temperature": 0.05,
         "teacher_temperature_start": 0.05, "global_scale": (0.3, 1.0), "colour_change": 0.5},
        {"adapter": "strong weights stay as they are; a small collection spoils them",
         "batch": "steps are cheap: views are embedded once",
         "local_views": "one size of views, as each is embedded once",
         "drop_path": "nothing is left out of a frozen backbone",
         "learning_rate": "1e-3 at this batch; three times as much changed embeddings too far",
         "weight_decay": "what is learnt is a change, which begins at zero",
         "weight_decay_end": "as above",
         "momentum": "the teacher averages over 50 steps of some hundreds",
         "teacher_temperature": "fixed: nothing has to warm up",
         "teacher_temperature_start": "the same from the start",
         "global_scale": "views of a third of a picture and more still have it in common",
         "colour_change": "colour often tells the kinds of a small collection apart; the paper's is 1"},
    ),
    "cpu": Preset(
        "a small convolutional network on small views: for two CPU cores",
        None,
        120_000,
        {"backbone": "resnet10t", "image_size": 64, "local_size": 32, "local_views": 4, "head_width": 1024,
         "head_norm": True, "projection_norm": True, "drop_path": 0.0, "learning_rate": 4e-3,
         "global_scale": (0.25, 1.0), "local_scale": (0.1, 0.4), "colour_change": 0.4, "teacher_temperature": 0.04},
        {"backbone": "learns from few steps, where a vision transformer did not; a CPU takes about 50 images a second "
         "and core",
         "image_size": "what a CPU has time for",
         "local_size": "half of image_size",
         "local_views": "cheap: a quarter of a global view each",
         "head_width": "half of the paper's: the head should not cost more than the network",
         "head_norm": "keeps a young network's projections apart",
         "projection_norm": "without, 1,000 images of one kind collapsed within 200 steps",
         "drop_path": "a short run has nothing to over-fit with",
         "learning_rate": "high, as the run is short; in trials twice as much taught no more",
         "global_scale": "views of a quarter of a picture and more still have it in common",
         "local_scale": "as above, for small views",
         "colour_change": "colour often tells the kinds of a small collection apart; the paper's is 1",
         "teacher_temperature": "never rises: a sharp teacher works against collapse"},
    ),
    "gpu": Preset(
        "ViT-S/16 at 224 pixels, sized to the collection: one GPU",
        None,
        1_000_000,
        {"backbone": "vit_small_patch16_224", "image_size": 224, "local_size": 96, "local_views": 8, "batch": 64},
        {"batch": "a multiple of 64 keeps a GPU busy"},
        batches=(128, 256),
    ),
    "vit-s16-paper": Preset(
        "the authors' ViT-S/16: 800 epochs of ImageNet on 2 GPUs",
        800,
        0,
        {**_PAPER, "backbone": "vit_small_patch16_224", "batch": 128, "learning_rate": 5e-4,
         "learning_rate_end": 1e-6, "momentum": 0.992},
    ),
    "vit-b16-paper": Preset(
        "the authors' ViT-B/16: 400 epochs of ImageNet on 4 GPUs",
        400,
        0,
        {**_PAPER, "backbone": "vit_base_patch16_224", "batch": 128, "learning_rate": 7.5e-4,
         "learning_rate_end": 2e-6, "momentum": 0.996},
    ),
})  # fmt: skip

# Where a preset says nothing of these, their default is that of the authors' recipes.
AUTHORS = {
    "student_temperature",
    "learning_rate_end",
    "weight_decay",
    "weight_decay_end",
    "clip",
    "teacher_temperature",
    "teacher_temperature_start",
    "drop_path",
    "head_norm",
    "global_scale",
    "local_scale",
    "colour_change",
}

# Warm-ups of the authors' recipes, in epochs: (learning rate, teacher temperature).
PAPER_WARMUPS = {"vit-s16-paper": (0, 30), "vit-b16-paper": (10, 50)}
