"""How many dimensions of an embedding are in use."""

from __future__ import annotations

import numpy as np

from massl.core.similarities import Floats


def rankme(embeddings: Floats) -> float:
    """Effective rank of `[N, D]` embeddings: the exponential of the entropy of their singular values.

    Between 1 (all alike: collapsed) and min(N, D); NaN where one of them is no number. Source: Garrido et al.,
    "RankMe", ICML 2023, equation 1.
    """
    if not np.isfinite(embeddings).all():
        return float("nan")  # LAPACK would only say that it did not converge
    values = np.linalg.svd(np.asarray(embeddings, dtype=np.float64), compute_uv=False)
    shares = values / max(values.sum(), 1e-12) + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))
