"""Squared distances between samples, tile by tile, exact where it matters."""

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

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
