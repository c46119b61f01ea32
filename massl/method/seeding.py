"""Seeds of random draws: a run's own seed, what is drawn, and where in the run, hashed together."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, purpose: str, *place: int) -> int:
    """A seed for one draw of a run, from 0 to 2^63 - 1.

    If a step were added to the seed, seed 1 would draw at step n what seed 0 drew at step n + 1. If two purposes shared
    a seed, they would draw alike.

    Args:
        seed: the run's; any whole number.
        purpose: what is drawn, as `permutation`.
        place: where in the run, as the step, or the epoch and the image.
    """
    digest = hashlib.blake2b(repr((seed, purpose, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
