"""What both sides of the golden test begin from: weights, memory, permutations and views of two toy runs.

Every number comes from PCG64's raw 64-bit stream, which NumPy promises to keep, and not from the distributions built on
it, which may change from one version to the next.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

WIDTH = 256  # of the projections


@dataclass(frozen=True)
class Case:
    """One toy run, in the terms of the authors' command line; warm-ups count epochs."""

    name: str
    mean_pooled: bool
    head_norm: bool
    memory: int
    block: int
    epochs: int
    epoch_steps: int
    learning_rate: float
    learning_rate_end: float
    warmup: int
    temperature_warmup: int
    momentum: float
    batch: int = 8
    patch: int = 16
    large: int = 48  # side of a global view, pixels
    small: int = 32
    small_views: int = 2
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    temperature_start: float = 0.04
    temperature: float = 0.07

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.epoch_steps


CASES = (
    # As the authors' recipes are, but for its size.
    Case("cls", False, False, 2048, 256, 10, 2, 0.016, 1e-5, 4, 6, 0.95),
    # The flags that their recipes leave off; a memory that is written over once round; no warm-up of the rate.
    Case("pooled", True, True, 128, 32, 10, 2, 0.016, 0.0, 0, 1, 0.9),
)


def uniform(name: str, *shape: int) -> np.ndarray:
    """float64 in [-1, 1), a stream of its own for each name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape, dtype=int)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def parameter(name: str, *shape: int) -> np.ndarray:
    """float32: larger than a network's first weights, so that its projections differ from image to image."""
    noise = uniform(name, *shape)
    if "norm" in name or (name.startswith("head") and len(shape) == 1):
        return (name.endswith("weight") + 0.1 * noise).astype(np.float32)
    return (0.1 * noise).astype(np.float32)


def memory(case: Case) -> np.ndarray:
    """float32 `[K, D]`, unit rows."""
    rows = uniform(f"{case.name} memory", case.memory, WIDTH)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def permutation(case: Case, step: int) -> np.ndarray:
    """int64 `[K]`."""
    return np.argsort(uniform(f"{case.name} permutation {step}", case.memory), kind="stable")


def views(case: Case, step: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 `[2, B, 3, G, G]` and `[N, B, 3, L, L]`, normalised pixels: coarse pictures, each view with its noise."""
    picture = uniform(f"{case.name} pictures {step}", 1, case.batch, 3, 4, 4)

    def show(kind: str, count: int, side: int) -> np.ndarray:
        enlarged = picture.repeat(side // 4, axis=3).repeat(side // 4, axis=4)
        noise = uniform(f"{case.name} {kind} {step}", count, case.batch, 3, side, side)
        return (1.5 * enlarged + 0.5 * noise).astype(np.float32)

    return show("large", 2, case.large), show("small", case.small_views, case.small)


def summary(tensors: dict[str, np.ndarray]) -> dict[str, float]:
    """Two figures that stand for many: the norm of all, and their product with a fixed direction of unit length.

    The keys' biases are left out: a softmax does not see them, so their gradient is rounding and AdamW makes of it
    steps of full length in any direction.
    """
    squares = product = length = 0.0
    for name in sorted(tensors):
        values = tensors[name].astype(np.float64).ravel()
        if name.endswith("qkv.bias"):
            values = np.delete(values.reshape(3, -1), 1, axis=0).ravel()
        direction = uniform(f"direction {name}", values.size)
        squares += float(values @ values)
        product += float(values @ direction)
        length += float(direction @ direction)
    return {"norm": squares**0.5, "product": product / length**0.5}
