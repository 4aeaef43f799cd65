"""How σ² is chosen: policies that read the variance of the noise off a representation.

A policy takes the place of a number in `Pairwise(noise_variance=...)`. Constant noise needs no
policy, and noise for each layer is a mapping from layers to estimators, see `PlaneRecorder`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ibcore.checks import check_representation
from ibcore.estimators.distances import (
    TOLERANCE,
    order_statistic,
    squared_distances,
    total_variance,
)

_SMALL = 1e4  # a square that matters and is fewer tolerances than this is computed again, exactly
_GRID = 24  # values of σ² among which the highest maximum is sought


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
        if not 0 < self.share < 1 or not 0 < self.divisor < math.inf or self.power not in (1, 2):
            raise ValueError(
                "share must lie between 0 and 1, divisor above 0, and power must be 1 or 2; got "
                f"{self.share}, {self.divisor} and {self.power}"
            )

    def __call__(self, z: Tensor) -> float:
        """Return σ², to one part in 10⁴; distances are counted tile by tile and not stored.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: all samples agree, or so many that the percentile is zero; or z is no
                representation.
        """
        z = check_representation(z)
        tolerance = TOLERANCE * total_variance(z)
        square = order_statistic(z, self.share, tolerance)
        if square < _SMALL * tolerance:
            square = order_statistic(z, self.share, 0.0)
        if square == 0:
            raise ValueError(
                f"the distance of {self.share:.0%} of the pairs is zero: no scale of noise can be "
                "read off it; take a higher share, or another policy"
            )
        return float(square ** (self.power / 2)) / self.divisor


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
        if not 0 < self.fraction < math.inf:
            raise ValueError(f"fraction must be positive, got {self.fraction}")

    def __call__(self, z: Tensor) -> float:
        """Return σ².

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: all samples agree, or z is no representation.
        """
        return self.fraction * total_variance(check_representation(z))


@dataclass(frozen=True)
class MaximumLikelihood:
    """σ² under which each sample is most likely, given a Gaussian on each other sample.

    σ² = argmax Σᵢ ln (1/(N−1)) Σ_{j≠i} N(zᵢ; zⱼ, σ² I). There σ² = Σᵢⱼ r(i,j) ‖zᵢ − zⱼ‖² / (N d),
    with r(i,j) the share of j in the density at zᵢ: a fixed point of expectation maximisation.

    Args:
        limit: samples that are used; of more, `limit` evenly spaced rows are taken. Memory is a
            few times limit² numbers.
    Raises:
        ValueError: a limit below two.
    Source: leave-one-out likelihood of a kernel density, Duin (1976) [duin1976choice].
    """

    limit: int = 2000

    def __post_init__(self) -> None:
        if self.limit < 2:
            raise ValueError(f"limit must be at least 2 samples, got {self.limit}")

    def __call__(self, z: Tensor) -> float:
        """Return σ², to one part in 10⁴.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: all samples agree; each has an exact copy, so that the likelihood grows
                without bound as σ² falls; or z is no representation.
        """
        z = check_representation(z)
        count = min(len(z), self.limit)
        rows = torch.linspace(0, len(z) - 1, count, dtype=torch.float64).round().long()
        z = z[rows.to(z.device)]
        squares, nearest = _neighbours(z)
        if not nearest.any():
            raise ValueError(
                f"each of the {count} samples has an exact copy: the likelihood has no maximum; "
                "take another policy"
            )
        # A mean of squares weighted by r lies between that of the nearest and that of all.
        low = float(nearest.mean()) / z.shape[1]
        high = float(squares.sum()) / (count * (count - 1) * z.shape[1])
        grid = np.geomspace(low, high, _GRID)
        best = int(np.argmax([_maximisation(squares, nearest, z.shape[1], v)[0] for v in grid]))
        around = math.log(grid[max(best - 1, 0)]), math.log(grid[min(best + 1, _GRID - 1)])

        def climb(power: float) -> float:
            """Return how far one step goes, which is 0 at the maximum, as it always climbs."""
            variance = math.exp(power)
            return math.log(_maximisation(squares, nearest, z.shape[1], variance)[1]) - power

        ends = [climb(power) for power in around]
        if ends[0] <= 0 or ends[1] >= 0:  # the maximum is at an end of the grid
            return math.exp(around[ends[0] > 0])
        return math.exp(brentq(climb, *around, xtol=1e-6))


def _neighbours(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return all squared distances, (n, n), and that to the nearest other sample, (n, 1)."""
    tolerance = TOLERANCE * total_variance(z)
    for accepted in (tolerance, 0.0):
        squares = torch.empty(len(z), len(z), dtype=torch.float64, device=z.device)
        for i, j, tile in squared_distances(z, accepted):
            squares[i, j] = tile
            squares[j, i] = tile.T
        nearest = squares.fill_diagonal_(math.inf).min(1, keepdim=True).values
        squares.fill_diagonal_(0.0)
        if float(nearest.mean()) >= _SMALL * tolerance:
            break
    return squares, nearest


def _maximisation(
    squares: Tensor, nearest: Tensor, dim: int, variance: float
) -> tuple[float, float]:
    """Return the mean log-likelihood at σ², up to a constant, and the σ² that EM goes to."""
    share = torch.exp((nearest - squares) / (2 * variance)).fill_diagonal_(0.0)
    total = share.sum(1, keepdim=True)
    likelihood = (total.log() - nearest / (2 * variance)).mean() - dim / 2 * math.log(variance)
    moved = (share.mul_(squares).sum(1, keepdim=True) / total).mean() / dim
    return float(likelihood), float(moved)
