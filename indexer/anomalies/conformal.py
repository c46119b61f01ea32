"""How often a picture known to be good would be as unusual: conformal p-values.

Of n held-out good pictures, and a further good one like them, each is as likely as any other to be the most unusual.
So the share of good pictures whose p-value is `alpha` or less is `alpha` at most, whatever the score is and however
the pictures are distributed (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; Bates et al.,
"Testing for outliers with conformal p-values", Annals of Statistics 2023).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def p_values(scores: NDArray[np.floating], held_out: NDArray[np.floating]) -> NDArray[np.float64]:
    """The share of good pictures that are as unusual, float64 `[N]`, each counted with those held out.

    Args:
        scores: `[N]`, greater where more unusual.
        held_out: `[n]`, of good pictures on which nothing was fitted.
    """
    rising = np.sort(held_out)
    as_unusual = len(rising) - np.searchsorted(rising, scores, side="left")
    values: NDArray[np.float64] = (1 + as_unusual) / (1 + len(rising))
    return values


def needed(rate: float) -> int:
    """How many held-out good pictures it takes for any p-value to be as low as a rate of false alarms."""
    return max(1, math.ceil(1 / rate - 1e-9) - 1)
