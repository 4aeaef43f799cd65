"""Rounding of one matrix: by its inputs and the cost of bits, or by that cost alone."""

import math

import numpy as np
import torch
from torch import Tensor

from ibcore.codec import mixing

_DAMP = 0.003  # of the mean curvature, added to each
_SUMS = 1e-6  # of all curvature: what moments that were summed in float32 may be off by
_LEVELS = 48  # magnitudes whose cost is told apart
_SLOPE = math.log(2) / 6  # d(step²/12) a bit: at fine steps, what a bit saves in squared steps


def float_step(size: float) -> float:
    """Return a step as the file keeps it: a float32 above 0."""
    return float(np.float32(max(size, 1e-30)))


def curvature(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return what rounding needs of a layer's second moments, shape (inputs, inputs).

    Returns:
        The upper Cholesky factor of their inverse, and the curvature along each column while the
        later ones adapt, 0 where an input is always 0.
    """
    diagonal = moments.diagonal()
    idle = diagonal == 0
    damp = _DAMP * diagonal.mean() + _SUMS * diagonal.sum()
    moments = moments + torch.diag(damp + idle.double())
    upper = torch.linalg.cholesky(torch.linalg.inv(moments), upper=True)
    return upper, torch.where(idle, 0.0, upper.diagonal() ** -2)


def second_order(
    weight: Tensor, upper: Tensor, importance: Tensor, g: Tensor, step: float, trade: float
) -> tuple[Tensor, float]:
    """Return the levels of a matrix, shape (units, inputs), and their step; see `curvature`."""
    idle = importance == 0
    mean = float(importance[~idle].mean()) if not idle.all() else 1.0
    size = float_step(step / math.sqrt(mean * float(g.mean())))
    price = trade * _SLOPE * step**2
    levels = _rounded_half(weight / size)
    arrays = [w.cpu().contiguous().numpy() for w in (weight, upper, importance, g)]
    for _ in range(2):
        costs = _costs(levels).cpu().contiguous().numpy()
        rounded = _columns(*arrays, size, price, costs)  # type: ignore[call-arg]
        levels = torch.from_numpy(rounded).to(weight)
    return levels.long(), size


@mixing.njit(cache=True)  # type: ignore[attr-defined]
def _columns(weight, upper, importance, g, size, price, costs):  # type: ignore[no-untyped-def]
    """Return levels, rounded column by column, each error made good in those to come.

    Of three levels (nearest, one nearer to 0, and 0) the cheapest in error and bits is taken.
    """
    rows, columns = weight.shape
    levels = np.zeros((rows, columns))
    for i in range(rows):
        rest = weight[i].copy()
        for j in range(columns):
            exact = rest[j] / size
            curvature = g[i] * importance[j] * size**2
            nearest = np.rint(exact)
            best, least = 0.0, np.inf
            for level in (nearest, nearest - np.sign(nearest), 0.0):
                bits = costs[j, min(int(abs(level)), costs.shape[1] - 1)]
                cost = curvature * (level - exact) ** 2 + price * bits
                if cost < least:
                    best, least = level, cost
            levels[i, j] = best
            error = (rest[j] - best * size) / upper[j, j]
            if error != 0:
                for k in range(j + 1, columns):
                    rest[k] -= error * upper[j, k]
    return levels


def _cheapest(exact: Tensor, price: float, costs: Tensor) -> Tensor:
    """Return of three levels (nearest, one nearer to 0, and 0) the cheapest in error and bits."""
    nearest = exact.round()
    tried = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
    column = torch.arange(exact.shape[1], device=exact.device)
    bits = costs[column, tried.abs().clamp(max=_LEVELS - 1).long()]
    best = ((tried - exact) ** 2 + price * bits).argmin(0)
    return tried.gather(0, best[None])[0]


def _costs(levels: Tensor) -> Tensor:
    """Return bits of each magnitude in each column, (columns, `_LEVELS`), among columns alike."""
    busy = levels.abs().mean(0)
    group = (busy.clamp(min=2**-7).log2() * 2 + 14).round().long().clamp(0, 31)
    sizes = levels.abs().clamp(max=_LEVELS - 1).long()
    counts = torch.zeros(32, _LEVELS, dtype=torch.float64, device=levels.device)
    index = group[None].expand_as(sizes)
    counts.index_put_((index.reshape(-1), sizes.reshape(-1)), torch.ones(()).to(counts), True)
    overall = counts.sum(0) + 2.0 ** -torch.arange(1, _LEVELS + 1).to(counts)
    counts += 8 * overall / overall.sum()
    bits = -(counts / counts.sum(1, keepdim=True)).log2()
    bits[:, 1:] += 1  # the sign
    return bits[group]


def _rounded_half(exact: Tensor) -> Tensor:
    """Return levels that err towards 0, as the cheapest will."""
    return exact.sign() * (exact.abs() + 0.3).floor()


def plain(exact: Tensor, trade: float) -> Tensor:
    """Return levels where nothing is known of the inputs."""
    levels = _rounded_half(exact)
    for _ in range(2):
        levels = _cheapest(exact, trade * _SLOPE, _costs(levels))
    return levels.long()
