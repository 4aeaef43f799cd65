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
_WIDER = 3.0  # squared error by a trellis, at fine steps, over step²/12
_SHARES = (0.25, 0.5, 1.0, 1.0)  # of the price: costs of few levels, once followed, come true


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


def _costs(levels: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return bits of each magnitude in each column, (columns, `_LEVELS`), among columns alike.

    `counted` says which of the levels count; None: all do.
    """
    busy = levels.abs().mean(0)
    group = (busy.clamp(min=2**-7).log2() * 2 + 14).round().long().clamp(0, 31)
    sizes = levels.abs().clamp(max=_LEVELS - 1).long()
    counts = torch.zeros(32, _LEVELS, dtype=torch.float64, device=levels.device)
    index = group[None].expand_as(sizes)
    ones = torch.ones(()) if counted is None else counted.reshape(-1)
    counts.index_put_((index.reshape(-1), sizes.reshape(-1)), ones.to(counts), True)
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


def trellis(exact: Tensor, trade: float) -> Tensor:
    """Return levels that follow the trellis `mixing.NEXT`, where nothing is known of the inputs.

    At each node only every other level is at hand, which saves a bit; the path that is cheapest in
    error and bits makes up for most of the error. Costs are by column and kind of node.

    Args:
        exact: weights by step, shape (rows, columns).
        trade: what a bit may cost; see `quantise`.
    Source: Haase et al. (2020) [haase2020dependent]; Marcellin & Fischer (1990)
    [marcellin1990trellis].
    """
    flat = exact.reshape(-1).clamp(-4.0 * mixing.LARGEST, 4.0 * mixing.LARGEST).cpu().numpy()
    numbers = _rounded_half(exact.cpu() / 2)
    odd = torch.arange(exact.numel()).reshape(exact.shape) % 2
    price = trade * _WIDER * _SLOPE
    for share in _SHARES:
        costs = torch.stack([_costs(numbers, odd == kind) for kind in (0, 1)])
        found = _cheapest_path(flat, share * price, costs.numpy())
        numbers, odd = (torch.from_numpy(part).reshape(exact.shape) for part in found)
    return (2 * numbers - odd * numbers.sign()).long().to(exact.device)


@mixing.njit(cache=True)  # type: ignore[attr-defined]
def _cheapest_path(exact, price, costs):  # type: ignore[no-untyped-def]
    """Return the numbers of the cheapest path, float64, and 1 where its node is odd, else 0.

    Each node's predecessor and candidate are kept, a byte: of the numbers above and below the exact
    one, the next nearer to 0, and 0.
    """
    columns, most = costs.shape[1], costs.shape[2] - 1
    totals, after = np.full(8, np.inf), np.zeros(8)
    totals[0] = 0.0
    kept = np.zeros((len(exact), 8), np.int8)
    least, chosen = np.zeros((2, 2)), np.zeros((2, 2), np.int64)  # (kind of node, is it odd)
    for i in range(len(exact)):
        size, column = abs(exact[i]), i % columns
        least[:] = np.inf
        for odd in range(2):
            above = int((size + odd) / 2) + 1
            for candidate in range(4):
                number = above - candidate if candidate < 3 else 0
                if number >= 0:
                    off = max(2 * number - odd, 0) - size
                    cost = off * off + price * costs[odd, column, min(number, most)]
                    if cost < least[odd, number & 1]:
                        least[odd, number & 1] = cost
                        chosen[odd, number & 1] = candidate
        after[:] = np.inf
        for node in range(8):
            for parity in range(2):
                to, cost = mixing.NEXT[node, parity], totals[node] + least[node & 1, parity]
                if cost < after[to]:
                    after[to] = cost
                    kept[i, to] = node << 2 | chosen[node & 1, parity]
        totals[:] = after
    numbers, kinds = np.zeros(len(exact)), np.zeros(len(exact))
    node = int(np.argmin(totals))
    for i in range(len(exact) - 1, -1, -1):
        step = int(kept[i, node])
        candidate, node = step & 3, step >> 2
        above = int((abs(exact[i]) + (node & 1)) / 2) + 1
        number = above - candidate if candidate < 3 else 0
        numbers[i], kinds[i] = number if exact[i] >= 0 else -number, node & 1
    return numbers, kinds
