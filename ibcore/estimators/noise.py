"""How σ² is chosen: policies that read the variance of the noise off a representation.

A policy takes the place of a number in `Pairwise(noise_variance=...)`. Constant noise needs no
policy, and noise for each layer is a mapping from layers to estimators, see `PlaneRecorder`.
`Noisy` adds noise in front of an estimator that has none of its own.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ibcore.estimators.distances import squared_distances
from ibcore.interface import (
    Estimator,
    MutualInformation,
    apply,
    check_representation,
    check_variance,
    stream,
)

_TOLERANCE = 1e-10  # of a squared distance, as a share of the total variance
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
        tolerance = _TOLERANCE * _total_variance(z)
        square = _order_statistic(z, self.share, tolerance)
        if square < _SMALL * tolerance:
            square = _order_statistic(z, self.share, 0.0)
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
        return self.fraction * _total_variance(check_representation(z))


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
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
        while high > low * (1 + 1e-6):
            # Expectation maximisation climbs, so the maximum lies where it goes; halving the way
            # gets there in few steps, which it does not where kernels overlap.
            middle = math.sqrt(low * high)
            if _maximisation(squares, nearest, z.shape[1], middle)[1] > middle:
                low = middle
            else:
                high = middle
        return math.sqrt(low * high)


@dataclass(frozen=True)
class Noisy:
    """An estimator of the noisy representation T = Z + ε, ε ~ N(0, σ² I), one draw a sample.

    It gives estimators that see only samples the noise that `Pairwise` and `MonteCarlo` assume, so
    that all of them estimate the same quantity.

    Args:
        estimator: takes T in the place of the representation.
        noise_variance: σ², in the squared unit of z; or a policy that reads it off each
            representation.
        seed: of the noise.
    Raises:
        ValueError: σ² is not a positive number, as given or as a policy returns it.
    """

    estimator: Estimator
    noise_variance: float | Callable[[Tensor], float] = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not callable(self.noise_variance):
            check_variance(self.noise_variance)

    def __call__(
        self, z: Tensor, y: Tensor, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return the estimator's estimates for T, under its names, in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
            x: inputs of the network, for an estimator that takes them.
        Raises:
            ValueError: what the estimator or the policy raises.
        """
        z = check_representation(z).double()
        chosen = self.noise_variance
        variance = check_variance(chosen(z), f" from {chosen}") if callable(chosen) else chosen
        generator = stream(self.seed, "Noisy")
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
        return apply(self.estimator, z + math.sqrt(variance) * noise, y, x)

    def ceiling(self, n_samples: int) -> float:
        """Return what no estimate of I(X;T) from so many samples can pass, in bits."""
        found: float = getattr(self.estimator, "ceiling", math.log2)(n_samples)
        return found


def distance_histogram(z: Tensor, bins: int = 100, power: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the pairs of samples in each bin of distance, and the bins' edges.

    Bins are of one width, from zero to the largest distance. Distances are counted tile by tile
    and not stored.

    Args:
        z: representation, shape (n_samples, ...), any float dtype.
        bins: number of bins.
        power: 1 for distances, 2 for their squares.
    Returns:
        Shares, shape (bins,), which sum to 1; edges, shape (bins + 1,), in the unit of z, or its
        square.
    Raises:
        ValueError: all samples agree, no bins, another power, or z is no representation.
    """
    if bins < 1 or power not in (1, 2):
        raise ValueError(f"bins must be at least 1 and power 1 or 2, got {bins} and {power}")
    z = check_representation(z)
    tolerance = _TOLERANCE * _total_variance(z)
    largest = max(float(tile.max()) for _, _, tile in squared_distances(z, tolerance))
    counts = torch.zeros(bins, dtype=torch.int64, device=z.device)
    for squares in _pairs(z, tolerance):
        index = squares.div_(largest).pow_(power / 2).mul_(bins).long().clamp_(max=bins - 1)
        counts += torch.bincount(index, minlength=bins)
    return (counts.double() / counts.sum()).cpu().numpy(), np.linspace(
        0, largest ** (power / 2), bins + 1
    )


def _pairs(z: Tensor, tolerance: float) -> Iterator[Tensor]:
    """Yield the squared distances of all pairs i < j, in one dimension, tile by tile."""
    for i, j, tile in squared_distances(z, tolerance):
        yield tile[torch.ones_like(tile, dtype=torch.bool).triu(1)] if i == j else tile.flatten()


def _order_statistic(z: Tensor, share: float, tolerance: float) -> float:
    """Return the smallest squared distance that a share of the pairs does not pass, to 10⁻⁶.

    The order of positive floats is that of their bits, of which each pass settles sixteen.
    """
    rank = math.ceil(share * (len(z) * (len(z) - 1) // 2))
    known = 0
    for shift in (48, 32):
        counts = torch.zeros(2**16, dtype=torch.int64, device=z.device)
        for squares in _pairs(z, tolerance):
            bits = squares.abs_().view(torch.int64) >> shift  # −0 has another sign bit
            counts += torch.bincount(bits[bits >> 16 == known] & 0xFFFF, minlength=2**16)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, rank))
        rank -= int(below[digit] - counts[digit])
        known = known << 16 | digit
    return float(np.int64(known << 32).view(np.float64))


def _neighbours(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return all squared distances, (n, n), and that to the nearest other sample, (n, 1)."""
    tolerance = _TOLERANCE * _total_variance(z)
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


def _total_variance(z: Tensor) -> float:
    """Return the trace of the covariance, which is half the mean squared distance."""
    centre = z.mean(0, dtype=torch.float64)
    total = sum(float((part.double() - centre).square().sum()) for part in z.split(1024))
    if total == 0 or bool((z == z[0]).all()):
        raise ValueError(
            f"all {len(z)} samples agree: no scale of noise can be read off a constant layer"
        )
    return total / len(z)
