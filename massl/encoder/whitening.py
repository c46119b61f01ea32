"""Whitening: the linear map after which a collection's features have no common direction, and a more equal spread.

Features of a network that was trained for a short while point mostly the same way, so that their cosines say little.
Subtracting their mean and scaling their principal components to equal variance undoes that; it is fitted without
labels, and folded into the exported network. Source: Jégou and Chum, "Negative evidences and co-occurrences in image
retrieval: the benefit of PCA and whitening", ECCV 2012. Whitened in full, a component in which images of one kind
differ weighs as much as one that tells kinds apart. Nearest neighbours survive that, class means of a few images don't
(docs/measurements/small-collections.md): so it is done by half unless told otherwise.

A thousand images of one kind say how they differ among themselves, in fewer directions than features have. A run that
begins with an encoder has another source, what that encoder was whitened for: so components and their scales are those
of a mixture of both, and features are seen from halfway between both means. From the mean of images of one kind alone,
what little tells them apart is all there is, noise along with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from massl.core.errors import MasslError
from massl.data.sampling import sampled
from massl.data.sources import Source

# All figures: docs/measurements/small-collections.md
SAMPLE = 2048  # images that it is fitted to; twice as many changed no figure by more than 0.1
STRENGTH = 0.5  # of the scaling: 0 leaves the components' variances as they are, 1 makes them equal
MIXED = 0.75  # the same of a mixture, whose components are better known
SHRINKAGE = 1e-2  # of the mean variance, added to each: directions that hold only noise must not be blown up
OWN = 0.15  # share of a run's own images in its whitening where it began with an encoder


class Whitening(NamedTuple):
    """`(x - centre) @ matrix`, for features x of unit length: float32 `[d]` and `[d, D]`.

    `mean_embedding` is that of what it was fitted to, float32 `[D]`: next to nothing where `centre` is the mean of
    their features. None where it isn't known.
    """

    centre: Tensor
    matrix: Tensor
    mean_embedding: Tensor | None = None


class Moments(NamedTuple):
    """Mean and covariance of features of unit length: float32 `[d]`, and `[d, r]` times its own transpose."""

    mean: Tensor
    factor: Tensor


def fit_whitening(
    features: Callable[[Tensor], Tensor],
    images: Source,
    size: int,
    resize: int,
    dim: int,
    strength: float | None = None,
    before: Moments | None = None,
    own: float = OWN,
) -> Whitening:
    """Fits a whitening to a sample of images.

    Args:
        features: uint8 `[N, S, S, 3]` to float32 `[N, d]`.
        images: to draw it from.
        size: S, in pixels.
        resize: shorter side before the centre is cut out, in pixels.
        dim: D, the components kept, at most d.
        strength: 0 to 1, of the scaling; `MIXED` of a mixture, else `STRENGTH`, if left out.
        before: of the features of other images, to scale as for a mixture with them, seen from between both means.
        own: the share of `images` in that mixture; of 1, there is none.

    Raises:
        MasslError: fewer readable images than twice the components that are to be kept; two do for a mixture.
    """
    rows = [features(pixels) for pixels in sampled(images, SAMPLE, size, resize)]
    count = sum(len(part) for part in rows)
    least = 2 if before else 2 * dim
    if count < least:
        raise MasslError(f"{count} images can be read of {images.where}; whitening to {dim} components takes {least}")
    return whitening_of(torch.cat(rows), dim, strength, before, own)


def whitening_of(
    features: Tensor, dim: int, strength: float | None = None, before: Moments | None = None, own: float = OWN
) -> Whitening:
    """The whitening of features `[N, d]` to `dim` components, at most d; for the rest see `fit_whitening`."""
    found = functional.normalize(features, dim=1).double()
    mean = centre = found.mean(0)
    # The covariance is `spread.T @ spread`; its components are found on the smaller side.
    spread = (found - mean) / (len(found) - 1) ** 0.5
    if before and own < 1:
        if before.mean.shape != mean.shape:
            raise MasslError("the run began with an encoder of another version of massl; give --whiten-own 1")
        # How far apart both means are is left out: it says what sort of images these are, not what tells them apart.
        spread = torch.cat([own**0.5 * spread, (1 - own) ** 0.5 * before.factor.double().T])
        centre = (mean + before.mean) / 2
    few = len(spread) < spread.shape[1]
    variance, directions = torch.linalg.eigh(spread @ spread.T if few else spread.T @ spread)
    variance, directions = variance.flip(0)[:dim].clamp(min=0), directions.flip(1)[:, :dim]
    if few:
        directions = functional.normalize(spread.T @ directions, dim=0)
    power = (usual_strength(before, own) if strength is None else strength) / 2
    matrix = directions / (variance + SHRINKAGE * variance.mean()) ** power
    mean_embedding = functional.normalize((found - centre) @ matrix, dim=1).mean(0)
    return Whitening(centre.float(), matrix.float(), mean_embedding.float())


def usual_strength(before: Moments | None, own: float) -> float:
    """The strength of a whitening unless told otherwise; see `fit_whitening`."""
    return MIXED if before and own < 1 else STRENGTH


def moments_of(whitening: Whitening, strength: float) -> Moments:
    """The moments that a whitening of that `strength`, above 0, was made of, as far as its components reach."""
    lengths = whitening.matrix.norm(dim=0)  # (variance)^(-strength / 2), as the directions are of unit length
    return Moments(whitening.centre, whitening.matrix * lengths ** (-1 - 1 / strength))
