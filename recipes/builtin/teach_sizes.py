#!/usr/bin/env python3
"""Teach a vision transformer to see in small pictures what it sees at 224 pixels.

    teach_sizes.py START.safetensors POOL WORK OUT.safetensors [VIEWS]

START: weights of `vit_small_patch14_dinov2` in DINOv2's names, as dinov2.py writes them. POOL: a folder a set, of which
`COUNTS` are drawn; gather.py makes it. WORK: a folder for views and the teacher's embeddings, 150 KB a view; what
is there is not made again. VIEWS: that the student sees in all, 70,000 unless told otherwise.

The teacher is START at 224 pixels, frozen. The student begins as START and sees the same views at the sizes of `SIZES`,
each step at one of them. It learns the teacher's answers by MaSSL's loss, whose memory is the teacher's embeddings of
all views, and by the cosine of class tokens and of patch tokens, averaged to 4 by 4. Position embeddings stay as they
are, so the weights serve any size as before. Needs OpenVINO (`pip install openvino`).
"""

from __future__ import annotations

import math
import random
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional

from massl.core.images.decoding import decode
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.encoder.state_dicts import IMAGENET_MEAN, IMAGENET_STD
from massl.encoder.weights import load_backbone
from massl.method.augment import normalise
from massl.method.loss import massl_loss
from massl.method.network import build_backbone

NETWORK, WIDTH, SIDE, GRID = "vit_small_patch14_dinov2", 384, 224, 4
# Images of a set, and views of each.
COUNTS = {
    "tinyimagenet": (11_000, 1), "catsdogs": (2_500, 1), "imagenet_samples": (1_000, 3), "bsds500": (500, 2),
    "openclipart": (3_500, 1), "textures_0ad": (1_300, 1), "textures_nexuiz": (900, 1),
    "textures_supertuxkart": (600, 1), "textures_redeclipse": (900, 1),
}  # fmt: skip
SIZES = {112: 0.42, 126: 0.44, 168: 0.08, 224: 0.06}  # pixels, and the share of steps
BATCH, BLOCK, TEMPERATURE = 32, 8_192, 0.05
RATE, LAYER_DECAY, WARMUP = 9e-6, 0.9, 50  # the rate of the last block
COSINE, PATCHES = 2.0, 0.5  # weights beside the loss


def view(job: tuple[Path, int, int]) -> NDArray[np.uint8] | None:
    """The whole picture or a part of it, one in eight grey, one in ten of few pixels: `[SIDE, SIDE, 3]`."""
    path, turn, seed = job
    chance = random.Random(seed)
    try:
        picture = decode(path.read_bytes(), 512).picture.convert("RGB")
    except ImageError:
        return None
    if turn or chance.random() < 0.35:
        width, height = picture.size
        area, ratio = width * height * chance.uniform(0.35, 1.0), 2 ** chance.uniform(-0.4, 0.4)
        across = min(width, max(32, round((area * ratio) ** 0.5)))
        down = min(height, max(32, round((area / ratio) ** 0.5)))
        left = chance.randint(0, width - across) if width > across else 0
        top = chance.randint(0, height - down) if height > down else 0
        picture = picture.crop((left, top, left + across, top + down))
    if chance.random() < 0.12:
        picture = picture.convert("L").convert("RGB")
    if chance.random() < 0.10 and (factor := chance.randint(28, 72) / min(picture.size)) < 1:
        sides = [max(1, round(length * factor)) for length in picture.size]
        picture = picture.resize(sides, Image.Resampling.BICUBIC)
    return np.asarray(fit(picture, SIDE, SIDE))


def make_views(pool: Path, out: Path) -> None:
    """`[N, SIDE, SIDE, 3]` of all sets, in an order drawn by chance."""
    chance, jobs = random.Random(0), []
    for name, (count, turns) in COUNTS.items():
        files = sorted(file for file in (pool / name).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        chosen = chance.sample(files, min(count, len(files)))
        jobs += [(file, turn, chance.getrandbits(32)) for file in chosen for turn in range(turns)]
    chance.shuffle(jobs)
    with Pool() as workers:
        seen = [each for each in workers.imap(view, jobs, chunksize=32) if each is not None]
    np.save(out, np.stack(seen))


def network(start: dict[str, Tensor], side: int) -> Any:
    """The network with these weights, for pictures of `side` pixels."""
    found = build_backbone(NETWORK, side, dynamic=False)
    load_backbone(found, start, "the start")
    return found


class Teacher(nn.Module):
    """Class token and averaged patch tokens of the start, `[B, 3, S, S]` bytes as floats to `[B, D]` and a grid."""

    def __init__(self, start: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = network(start, SIDE).eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) * 255 for each in (IMAGENET_MEAN, IMAGENET_STD))
        return tokens(self.net.forward_features((pictures - mean) / std))


def tokens(found: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens, `[B, 1 + h·h, D]`, to the class token, `[B, D]`, and averaged patch tokens, `[B, D, GRID, GRID]`."""
    side = math.isqrt(found.shape[1] - 1)
    grid = found[:, 1:].transpose(1, 2).reshape(-1, WIDTH, side, side)  # of any batch once traced
    return found[:, 0], functional.adaptive_avg_pool2d(grid, GRID)


def ask_teacher(start: dict[str, Tensor], views: NDArray[np.uint8], class_file: Path, patch_file: Path) -> None:
    """The teacher's answers of all views: `[N, D]` to one file, `[N, D, GRID, GRID]` to the other."""
    import openvino

    model = openvino.convert_model(Teacher(start), example_input=torch.zeros(8, 3, SIDE, SIDE))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    classes = np.zeros((len(views), WIDTH), np.float32)
    patches = np.zeros((len(views), WIDTH, GRID, GRID), np.float16)

    def keep(request: Any, first: int) -> None:
        classes[first : first + 8] = request.get_output_tensor(0).data
        patches[first : first + 8] = request.get_output_tensor(1).data

    queue = openvino.AsyncInferQueue(compiled)
    queue.set_callback(keep)
    for first in range(0, len(views), 8):
        queue.start_async({0: views[first : first + 8].transpose(0, 3, 1, 2).astype(np.float32)}, first)
    queue.wait_all()
    np.save(class_file, classes)
    np.save(patch_file, patches)


def students(start: dict[str, Tensor]) -> dict[int, Any]:
    """A network a size; all share their weights, but for positions, which stay as they are."""
    nets = {side: network(start, side) for side in SIZES}
    first = nets[min(SIZES)]
    for net in nets.values():
        net.blocks, net.norm, net.cls_token = first.blocks, first.norm, first.cls_token
        net.patch_embed.proj = first.patch_embed.proj
        net.pos_embed.requires_grad_(False)
    return nets


def seen_at(views: NDArray[np.uint8], side: int) -> Tensor:
    """Views `[B, SIDE, SIDE, 3]` as a network takes them, at `side` pixels: `[B, 3, side, side]`."""
    pictures = torch.from_numpy(views).permute(0, 3, 1, 2)
    if side != SIDE:
        smaller = functional.interpolate(pictures.float(), (side, side), mode="bicubic", antialias=True)
        pictures = smaller.round_().clamp_(0, 255).to(torch.uint8)
    return normalise(pictures)


def learn(
    start: dict[str, Tensor], views: NDArray[np.uint8], classes: Tensor, patches: NDArray[np.float16], total: int
) -> dict[str, Tensor]:
    """The student's weights by the names of `start`, after it has seen `total` views."""
    torch.manual_seed(0)
    nets = students(start)
    held = dict(nets[min(SIZES)].named_parameters())
    parameters = {name: parameter for name, parameter in held.items() if parameter.requires_grad}
    groups = param_groups_layer_decay(nets[min(SIZES)], weight_decay=0.01, layer_decay=LAYER_DECAY)
    adam = torch.optim.AdamW(groups, lr=RATE)
    memory = functional.normalize(classes, dim=-1)
    chance, permuting = np.random.default_rng(0), torch.Generator().manual_seed(0)
    steps = total // BATCH
    order = np.concatenate([chance.permutation(len(views)) for _ in range(-(-total // len(views)))])
    sizes = chance.choice(list(SIZES), steps, p=list(SIZES.values()))
    began = time.monotonic()
    for step in range(steps):
        share = min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * max(0, step - WARMUP) / (steps - WARMUP))) / 2
        for group in adam.param_groups:
            group["lr"] = RATE * group["lr_scale"] * max(share, 0.01)
        rows, side = np.sort(order[step * BATCH : (step + 1) * BATCH]), int(sizes[step])
        with torch.autocast("cpu", torch.bfloat16):
            found = nets[side].forward_features(seen_at(views[rows], side))
        token, grid = tokens(found.float())
        student, teacher = functional.normalize(token, dim=-1), memory[rows]
        permutation = torch.randperm(len(memory), generator=permuting)
        both = torch.stack([student, student]), torch.stack([teacher, teacher])
        by_memory = massl_loss(*both, memory, permutation, BLOCK, TEMPERATURE, TEMPERATURE).loss
        apart = (1 - (student * teacher).sum(-1)).mean()
        patches_apart = (1 - functional.cosine_similarity(grid, torch.from_numpy(patches[rows]).float(), dim=1)).mean()
        adam.zero_grad(set_to_none=True)
        (by_memory + COSINE * apart + PATCHES * patches_apart).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        adam.step()
        if step % 50 == 49:
            print(
                f"step {step + 1} of {steps}, {side} px: 1 - cosine {apart:.3f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return {name: parameters[name].detach().clone() if name in parameters else kept for name, kept in start.items()}


def main(start_file: str, pool: str, work: str, out: str, total: str = "70000") -> None:
    start, folder = load_file(start_file), Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    view_file, class_file, patch_file = (folder / name for name in ("views.npy", "classes.npy", "patches.npy"))
    if not view_file.exists():
        make_views(Path(pool), view_file)
    views = np.load(view_file, mmap_mode="r")
    if not patch_file.exists():
        ask_teacher(start, views, class_file, patch_file)
    classes, patches = torch.from_numpy(np.load(class_file)), np.load(patch_file, mmap_mode="r")
    learnt = learn(start, views, classes, patches, int(total))
    source = "DINOv2 ViT-S/14 (facebookresearch/dinov2), taught to see at smaller sizes what it sees at 224 px"
    save_file(learnt, out, {"source": source, "licence": "Apache-2.0"})


if __name__ == "__main__":
    main(*sys.argv[1:])
