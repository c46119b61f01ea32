"""Which images are like the labelled ones: a classifier knows nothing of the others, however sure it seems.

Whoever labels begins with what is easy to find, often with whole groups of like pictures. Of an image that is unlike
all of them neither a probability nor an estimate from the labelled ones says anything; it may be of no class so far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import nearest

RARE = 0.05  # share of labelled images that are as far from all others as an image may be and still be familiar
MOST = 500  # labelled images that the others are compared with
_BLOCK = 4096


def familiar(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each image is as near to some labelled one as these are to each other, bool `[N]`.

    The nearness of the nearest labelled image is compared with that of the labelled images to their nearest other one,
    as in conformal anomaly detection (Laxhammar and Falkman, 2010): of images drawn as the labelled ones were, about
    one in twenty is called unfamiliar.

    Args:
        vectors: unit vectors `[N, D]`.
        rows: of the labelled images, at least two. At random, `MOST` of them are compared with.
    """
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    known = vectors[rows]
    among = nearest(known, known, 1, leave_one_out=True)[1]
    least = np.quantile(among, RARE, method="lower")
    near = [(vectors[start : start + _BLOCK] @ known.T).max(1) for start in range(0, len(vectors), _BLOCK)]
    return np.concatenate(near) >= least - 1e-6
