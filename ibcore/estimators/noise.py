"""How σ² is chosen: policies that read the variance of the noise off a representation.

A policy takes the place of a number in `Pairwise(noise_variance=...)`. Constant noise needs no
policy, and noise for each layer is a mapping from layers to estimators, see `PlaneRecorder`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ibcore.estimators.distances import squared_distances
from ibcore.interface import check_representation

_TOLERANCE = 1e-9  # of a squared distance, as a share of the total variance
_BINS = 4096  # from the smallest to the largest distance


@dataclass(frozen=True)
class Percentile:
    """σ² = a percentile of the pairwise distances, divided by a number.

    The thesis reads the 90th percentile off a figure and divides it by 1000. Whether of distances
    or of their squares it does not say. With squares (power 2) σ² grows as the square of the
    layer's unit, so that the estimate does not depend on it; with distances (power 1) it does.

    Args:
        share: share of the pairs that lie closer, between 0 and 1.
        divisor: what the percentile is divided by.
        power: 1 for distances, 2 for their squares.
    Raises:
        ValueError: a share outside (0, 1), a divisor that is not positive, another power.
    Source: the thesis, section 5.2 [landsverk2021inductive].
    """

    share: float = 0.9
    divisor: float = 1000.0
    power: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not self.divisor > 0 or self.power not in (1, 2):
            raise ValueError(
                "share must lie between 0 and 1, divisor above 0, and power must be 1 or 2; got "
                f"{self.share}, {self.divisor} and {self.power}"
            )

    def __call__(self, z: Tensor) -> float:
        """Return σ², to within 1/4096 of the largest distance.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: input without distances; see `distance_histogram`.
        """
        shares, edges = distance_histogram(z, _BINS)
        below = np.concatenate([[0.0], shares.cumsum()])
        return float(np.interp(self.share, below, edges) ** self.power / self.divisor)


@dataclass(frozen=True)
class Proportional:
    """σ² = a fraction of the total variance of the representation.

    σ² = f Σ_k Var(z_k). The sum is half the mean squared distance of two samples. Rescaling the
    representation, or repeating each of its units, leaves the estimate as it is.

    Args:
        fraction: f, without unit.
    Raises:
        ValueError: a fraction that is not positive.
    """

    fraction: float = 0.01

    def __post_init__(self) -> None:
        if not self.fraction > 0:
            raise ValueError(f"fraction must be positive, got {self.fraction}")

    def __call__(self, z: Tensor) -> float:
        """Return σ².

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: all samples agree, or z is no representation.
        """
        return self.fraction * _total_variance(check_representation(z))


@dataclass(frozen=True)
class MaximumLikelihood:
    """σ² under which each sample is most likely, given a Gaussian on each other sample.

    σ² = argmax Σᵢ ln (1/(N−1)) Σ_{j≠i} N(zᵢ; zⱼ, σ² I), found by expectation maximisation:
    σ² ← Σᵢⱼ r(i,j) ‖zᵢ − zⱼ‖² / (N d), with r(i,j) the share of j in the density at zᵢ.

    Args:
        limit: samples that are used; of more, `limit` evenly spaced rows are taken. They need
            limit² numbers of memory.
        tolerance: relative change of σ² at which the iteration ends.
    Raises:
        ValueError: a limit below two, or a tolerance that is not positive.
    Source: leave-one-out likelihood of a kernel density, Duin (1976) [duin1976choice].
    """

    limit: int = 2000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.limit < 2 or not self.tolerance > 0:
            raise ValueError(
                "limit must be at least 2 and tolerance positive, got "
                f"{self.limit} and {self.tolerance}"
            )

    def __call__(self, z: Tensor) -> float:
        """Return σ².

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: each sample has an exact copy, so that the likelihood grows without bound
                as σ² falls; or z is no representation.
        """
        z = check_representation(z)
        rows = torch.linspace(0, len(z) - 1, min(len(z), self.limit)).round().long()
        squares = _distance_matrix(z[rows.to(z.device)]).fill_diagonal_(torch.inf)
        nearest = squares.min(1, keepdim=True).values
        variance = float(nearest.mean()) / z.shape[1]
        if variance == 0:
            raise ValueError(
                f"each of the {len(rows)} samples has an exact copy: no noise is the most likely; "
                "choose another policy"
            )
        for _ in range(1000):
            share = torch.exp((nearest - squares) / (2 * variance))
            share = share / share.sum(1, keepdim=True)
            before, moved = variance, share.mul_(squares.nan_to_num(posinf=0.0))
            variance = float(moved.sum(1).mean()) / z.shape[1]
            if abs(variance - before) <= self.tolerance * before:
                break
        return variance


def distance_histogram(z: Tensor, bins: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the pairs of samples in each bin of distance, and the bins' edges.

    Bins are of one width, from zero to the largest distance. Distances are counted tile by tile
    and not stored.

    Args:
        z: representation, shape (n_samples, ...), any float dtype.
        bins: number of bins.
    Returns:
        Shares, shape (bins,), which sum to 1; edges, shape (bins + 1,), in the unit of z.
    Raises:
        ValueError: all samples agree, no bins, or z is no representation.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    z = check_representation(z)
    tolerance = _TOLERANCE * _total_variance(z)
    largest = max(float(tile.max()) for _, _, tile in squared_distances(z, tolerance)) ** 0.5
    counts = torch.zeros(bins, dtype=torch.float64, device=z.device)
    for i, j, tile in squared_distances(z, tolerance):
        index = tile.sqrt_().mul_(bins / largest).long().clamp_(max=bins - 1)
        found = torch.bincount(index.flatten(), minlength=bins)
        if i == j:
            found[0] -= len(tile)  # a sample and itself
            found = found / 2  # both orders of a pair
        counts += found
    return (counts / counts.sum()).cpu().numpy(), np.linspace(0, largest, bins + 1)


def _distance_matrix(z: Tensor) -> Tensor:
    matrix = torch.empty(len(z), len(z), dtype=torch.float64, device=z.device)
    for i, j, tile in squared_distances(z, _TOLERANCE * _total_variance(z)):
        matrix[i, j] = tile
        matrix[j, i] = tile.T
    return matrix


def _total_variance(z: Tensor) -> float:
    """Return the trace of the covariance, which is half the mean squared distance."""
    variance = float(z.double().var(0, correction=0).sum())
    if variance == 0:
        raise ValueError(
            f"all {len(z)} samples agree: no scale of noise can be read off a constant layer"
        )
    return variance
