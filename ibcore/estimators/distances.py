"""Squared distances between samples, tile by tile, exact where it matters."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ibcore.checks import check_representation

TOLERANCE = 1e-10  # of a squared distance, as a share of the total variance
_BLOCK = 1024  # samples a tile: fewer than 1024² pairs give too little work for two threads


def squared_distances(z: Tensor, tolerance: float) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield ‖zᵢ − zⱼ‖² in float64, for the tiles on and above the diagonal.

    Each item is (rows i, rows j, squares of shape (len(i), len(j))); a sample's distance to itself
    is exactly 0, and a tile may be changed in place. Memory: O(N + 1024 (d + 1024)). A bar shows
    the progress of what takes over five seconds.

    Args:
        z: representation, shape (n_samples, dim), finite.
        tolerance: absolute error of a square that is accepted. Where ‖a‖² + ‖b‖² − 2ab would exceed
            it, as with tight clusters far from one another, the slower differences are taken.
    """
    centre = z.mean(0, dtype=torch.float64)
    tiles = [slice(start, start + _BLOCK) for start in range(0, len(z), _BLOCK)]
    squares = torch.cat([(z[i].double() - centre).square().sum(1) for i in tiles])[:, None]
    error = torch.finfo(torch.float64).eps * (z.shape[1] + 4) * float(squares.max())
    one = torch.ones_like(squares[:_BLOCK])
    few = len(tiles) < 8  # no need for a bar, which costs a millisecond
    rows = tqdm(tiles, "distances", unit="tiles", delay=5, leave=False, disable=few)
    for first, i in enumerate(rows):
        a = z[i].double() - centre
        left = torch.cat([-2 * a, squares[i], one[: len(a)]], 1)
        for j in tiles[first:]:
            b = a if i == j else z[j].double() - centre
            if error < tolerance:
                # One product adds up all three terms, which saves two passes over the tile.
                tile = (left @ torch.cat([b, one[: len(b)], squares[j]], 1).T).clamp_(min=0.0)
            else:
                tile = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()
            if i == j:
                tile.fill_diagonal_(0.0)
            yield i, j, tile


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
    tolerance = TOLERANCE * total_variance(z)
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


def order_statistic(z: Tensor, share: float, tolerance: float) -> float:
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


def total_variance(z: Tensor) -> float:
    """Return the trace of the covariance, which is half the mean squared distance."""
    centre = z.mean(0, dtype=torch.float64)
    total = sum(float((part.double() - centre).square().sum()) for part in z.split(1024))
    if total == 0 or bool((z == z[0]).all()):
        raise ValueError(
            f"all {len(z)} samples agree: no scale of noise can be read off a constant layer"
        )
    return total / len(z)
