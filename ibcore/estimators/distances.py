"""Squared distances between samples, tile by tile, exact where it matters."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ibcore.checks import check_representation
from ibcore.threads import one_thread

TOLERANCE = 1e-10  # of a squared distance, as a share of the total variance
_BLOCK = 1024  # samples a tile, where torch's threads share the work on one
_SMALL_BLOCK = 512  # where each thread has a tile of its own: it stays in the processor's cache
_DIFFERENCES = 2**22  # numbers at once where all differences are needed

Found = TypeVar("Found")
Tile = tuple[slice, slice]


@dataclass
class SquaredDistances:
    """‖aᵢ + εᵢ − bⱼ‖² − ‖εᵢ‖² = ‖aᵢ − bⱼ‖² + 2 εᵢ·(aᵢ − bⱼ) in float64, a tile at a time.

    So written nothing is lost where the samples are large and ε is small.

    Args:
        a: samples of the rows, shape (n_rows, dim), finite.
        b: samples of the columns, shape (n_columns, dim), finite.
        own: the column that is each row's own sample, (n_rows,): what stands there is not computed.
        tolerance: absolute error of a square that is accepted. Where ‖a‖² + ‖b‖² − 2ab would exceed
            it, as with tight clusters far from one another, the slower differences are taken.
        shift: ε of each row, (n_rows, dim), float64; None for none.
        own_square: what stands at a row's own sample, (n_rows,); None for 0.
    """

    a: Tensor
    b: Tensor
    own: Tensor
    tolerance: float
    shift: Tensor | None = None
    own_square: Tensor | None = None

    def __post_init__(self) -> None:
        # The median of some samples is near all of them, wherever a few may lie.
        some = self.b[:: max(1, len(self.b) // 128)].double()
        self.centre = some.median(0).values

    def __call__(self, i: slice, j: slice) -> Tensor:
        """Return the tile of rows i and columns j, which may be changed in place."""
        product = self._product(i, j)
        tile = self._differences(i, j) if product is None else product
        if self.shift is None:
            tile.clamp_(min=0.0)
        mine = ((self.own[i] >= j.start) & (self.own[i] < j.stop)).nonzero()[:, 0]
        at = self.own[i][mine] - j.start
        tile[mine, at] = 0.0 if self.own_square is None else self.own_square[i][mine]
        return tile

    def _product(self, i: slice, j: slice) -> Tensor | None:
        """Return the tile from one product of matrices, which adds up all terms, or None."""
        a, b = self.a[i] - self.centre, self.b[j] - self.centre
        a_squares, b_squares = (s.square().sum(1, keepdim=True) for s in (a, b))
        largest = max(float(a_squares.max()), float(b_squares.max()))
        if self.shift is not None:
            # ‖a‖² + 2ε·a − 2(a + ε)·b + ‖b‖², and ‖a + ε‖² ≤ 2‖a‖² + 2‖ε‖² bounds the rounding.
            largest = 2 * largest + 2 * float(self.shift[i].square().sum(1).max())
            a_squares += 2 * (a * self.shift[i]).sum(1, keepdim=True)
            a = a + self.shift[i]
        if not torch.finfo(torch.float64).eps * (a.shape[1] + 4) * largest < self.tolerance:
            return None
        left = torch.cat([a.mul_(-2), a_squares, torch.ones_like(a_squares)], 1)
        return left @ torch.cat([b, torch.ones_like(b_squares), b_squares], 1).T

    def _differences(self, i: slice, j: slice) -> Tensor:
        """Return the tile from the differences of samples as they are, which lose nothing."""
        a, b = self.a[i].double(), self.b[j].double()
        if self.shift is None:
            return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()
        tile = torch.empty(len(a), len(b), dtype=torch.float64, device=a.device)
        for rows in torch.arange(len(a)).split(max(1, _DIFFERENCES // b.numel())):
            apart = a[rows, None] - b
            tile[rows] = (apart + 2 * self.shift[i][rows, None]).mul_(apart).sum(2)
        return tile


def blocks(size: int, block: int) -> list[slice]:
    """Return slices of at most `block` that cover `size` samples."""
    return [slice(start, min(start + block, size)) for start in range(0, size, block)]


def tiles(rows: int, columns: int, upper: bool = False) -> list[Tile]:
    """Return the tiles of a matrix for `in_threads`; with upper those from the diagonal up."""
    every, wide = blocks(rows, _SMALL_BLOCK), blocks(columns, _SMALL_BLOCK)
    return [(i, j) for i in every for j in wide if not upper or i.start <= j.start]


def in_threads(
    work: Callable[[slice, slice], Found], tiles: Sequence[Tile]
) -> Iterator[tuple[Tile, Found]]:
    """Yield each tile with what the work on it returns, in the order of the tiles.

    Each thread has tiles of its own and waits for no other within one, as torch's do in every
    operation: a thread that loses its core to another program holds up its own tile alone. Results
    don't depend on the number of threads. A bar shows the progress of what takes over five seconds.
    """
    threads = min(torch.get_num_threads(), len(tiles))
    few = len(tiles) < 64  # no need for a bar, which costs a millisecond
    bar = tqdm(tiles, "distances", unit="tiles", delay=5, leave=False, disable=few)
    if threads == 1:
        yield from ((tile, work(*tile)) for tile in bar)
        return
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Tile, Future[Found]]] = deque()
        for tile in bar:
            waiting.append((tile, pool.submit(work, *tile)))
            if len(waiting) > 2 * threads:
                yield waiting[0][0], waiting.popleft()[1].result()
        yield from ((tile, found.result()) for tile, found in waiting)


def squared_distances(z: Tensor, tolerance: float) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield ‖zᵢ − zⱼ‖² in float64, for the tiles on and above the diagonal.

    Each item is (rows i, rows j, squares of shape (len(i), len(j))); a sample's distance to itself
    is exactly 0, and a tile may be changed in place. Memory: O(N + 1024 (d + 1024)). A bar shows
    the progress of what takes over five seconds.

    Args:
        z: representation, shape (n_samples, dim), finite.
        tolerance: absolute error of a square that is accepted, see `SquaredDistances`.
    """
    squares = SquaredDistances(z, z, torch.arange(len(z), device=z.device), tolerance)
    every = blocks(len(z), _BLOCK)
    few = len(every) < 8  # no need for a bar, which costs a millisecond
    for i in tqdm(every, "distances", unit="tiles", delay=5, leave=False, disable=few):
        for j in every[i.start // _BLOCK :]:
            yield i, j, squares(i, j)


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
