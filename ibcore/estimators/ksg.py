"""Nearest neighbours: Kraskov-Stögbauer-Grassberger for X, Ross for the label."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from ibcore.checks import check_inputs, check_pair, check_samples, stream
from ibcore.estimators.critic import normal_scores
from ibcore.interface import Estimate, MutualInformation

_TREE = 10  # dimensions of the joint space above which a tree looks at most of the pairs anyway
_BLOCK = 512  # rows of distances at once, without a tree
_LOT = 1e-6  # of a column's range: far below what tells values apart, far above rounding


@dataclass(frozen=True)
class Ksg:
    """Information from the distances to nearest neighbours, in the largest coordinate.

    I(A;B) = ψ(N) + ψ(k) − ⟨ψ(n_a) + ψ(n_b)⟩, with n_a the samples whose A lies closer than the
    k-th neighbour of the pair (A,B), oneself included. I(Z;Y) = ψ(N) + ⟨ψ(k) − ψ(n_y) − ψ(m)⟩, with
    m the samples closer than the k-th neighbour of one's own label, and n_y those of that label.

    It estimates a density, which values without ties have: values that several samples share are
    moved apart by lot, by 1e-6 of their column's range at most, which takes no information away.
    Samples with more than k copies are counted by their copies instead, so that discrete samples
    get their plug-in information. Up to k copies whose A and whose B no other sample has are one
    sample seen again, and count once.

    What it doesn't find. It is biased low in many dimensions (20 pairs of Gaussians, 1000 samples:
    0.38 of 1.87 bits; 12 bits seen once each, with themselves: 3.8 of 12), and where A and B hold
    more than log N − ψ(k) can show; a little negative near independence. More than k copies of
    everything are taken for discrete values that determine each other (500 Gaussian samples 4
    times, k = 3: 9.2 for 0.6 bits), so that a bootstrap needs a larger k; copies count as new
    samples towards labels (twice: 0.66 for 0.50). With ties, A and B change places to within the
    lot, not exactly.

    Args:
        neighbours: k.
        ranks: whether each coordinate is replaced by the normal scores of its ranks, which changes
            no information and makes the estimate independent of units and of heavy tails.
    Raises:
        ValueError: fewer than one neighbour.
    Source: Kraskov, Stögbauer & Grassberger (2004), eq. 8, and its remark on degenerate data for
        the lot; Ross (2014), eq. 2; Gao et al. (2017), for copies [kraskov2004estimating,
        ross2014mutual, gao2017estimating].
    """

    neighbours: int = 3
    ranks: bool = True

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {self.neighbours}")

    def __call__(
        self, z: Tensor, y: Tensor, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return {"Ksg": estimate} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype. A class of one sample is left out, one
                of fewer than k + 1 uses all its other samples.
            x: inputs of the network, shape (n_samples, ...), any float dtype. Needed.
        Raises:
            ValueError: no x, as few samples as neighbours, or see `check_samples`.
        """
        z, y = check_samples(z, y)
        i_xz, i_zy = self.between(check_inputs(x, self), z), self.label(z, y)
        return {"Ksg": MutualInformation(i_xz.bits, i_zy.bits, i_xz.error, i_zy.error)}

    def between(self, a: Tensor, b: Tensor) -> Estimate:
        """Return I(A;B) in bits, with the standard error of its mean over the samples.

        The error leaves out the bias, and that neighbours share samples.

        Args:
            a: shape (n_samples, ...), any float dtype.
            b: shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: as few samples, copies aside, as neighbours, or see `check_pair`.
        """
        one, two = (self._prepared(side) for side in check_pair(a, b))
        points, k = np.concatenate([one, two], 1), self.neighbours
        both, first = _copies(points)
        own_a, own_b = (both if first.all() else _copies(side)[0] for side in (one, two))
        kept = first | (both > k) | (both < own_a) | (both < own_b)
        if (n := int(kept.sum())) <= k:
            raise ValueError(
                f"{k} neighbours need more samples than that, got {n} that are no copies of another"
            )
        sides = np.split(_apart(points[kept]), [one.shape[1]], 1)
        near = (_tree_counts if points.shape[1] <= _TREE else _tile_counts)(sides, k)
        copies = np.stack([both, own_a, own_b])[:, kept]
        found, n_a, n_b = np.where(copies[0] > k, copies, near)
        return _estimate(digamma(n) + digamma(found) - digamma(n_a) - digamma(n_b))

    def label(self, z: Tensor, y: Tensor) -> Estimate:
        """Return I(Z;Y) of labels in bits, with its standard error; see `__call__`."""
        z, y = check_samples(z, y)
        points, labels = self._prepared(z), y.cpu().numpy()
        kinds, sizes = np.unique(labels, return_counts=True)
        kept = np.isin(labels, kinds[sizes > 1])
        points, labels = points[kept], labels[kept]
        if not len(points):
            raise ValueError(f"each of the {len(z)} samples is alone in its class")
        marked = np.column_stack([points, labels])
        (both, _), (own_z, _) = _copies(marked), _copies(points)
        points = _apart(marked, points.shape[1])
        k, size, radius = (np.empty(len(points)) for _ in range(3))
        for kind in np.unique(labels):
            own = labels == kind
            size[own], k[own] = own.sum(), min(self.neighbours, own.sum() - 1)
            radius[own] = _radii(points[own], int(k[own][0]))
        k, near = np.where(both > k, [both, own_z], [k, _within(points, radius)])
        return _estimate(digamma(len(points)) + digamma(k) - digamma(size) - digamma(near))

    def _prepared(self, z: Tensor) -> np.ndarray:
        if len(z) <= self.neighbours:
            raise ValueError(
                f"{self.neighbours} neighbours need more samples than that, got {len(z)}"
            )
        found: np.ndarray = (normal_scores(z) if self.ranks else z.double()).cpu().numpy()
        return found


def _estimate(terms: np.ndarray) -> Estimate:
    terms = terms / math.log(2)
    return Estimate(float(terms.mean()), float(terms.std(ddof=1) / math.sqrt(len(terms))))


def _copies(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many samples equal each one, with itself, and a mask that holds one of each."""
    if len(np.unique(points[:, 0])) == len(points):
        return np.ones(len(points), int), np.ones(len(points), bool)
    order = np.lexsort(points.T)
    line, group, first = points[order], *(np.empty(len(points), t) for t in (int, bool))
    first[order] = new = np.append(True, (line[1:] != line[:-1]).any(1))
    group[order] = new.cumsum() - 1
    return np.bincount(group)[group], first


def _apart(points: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Return the first columns, or all, with values that several samples share moved by lot.

    The lot goes with the place of the whole row among the sorted ones, not with that in the data.
    """
    moved = points[:, :columns].copy()
    line = np.sort(moved, 0)
    if not (tied := np.flatnonzero((line[1:] == line[:-1]).any(0))).size:
        return moved
    order, size = np.lexsort(points.T), (len(points), len(tied))
    lots = torch.rand(size, dtype=torch.float64, generator=stream(0, "ties")).numpy() - 0.5
    for column, lot in zip(tied, lots.T, strict=True):
        _, value, counts = np.unique(moved[:, column], return_inverse=True, return_counts=True)
        shared = (counts[value] > 1)[order]
        moved[order, column] += _LOT * np.ptp(moved[:, column]) * shared * lot
    return moved


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Return each point's distance to its k-th neighbour."""
    if points.shape[1] <= _TREE:
        return np.asarray(cKDTree(points).query(points, [k + 1], p=np.inf)[0][:, 0])
    return np.concatenate([tile.kthvalue(k + 1, 1).values for tile in _tiles(points)])


def _within(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return how many points lie closer than the radius; with oneself."""
    inside = _inside(radius, np.abs(points).max())
    if points.shape[1] == 1:
        order = points[:, 0].argsort()  # neighbours looked up one after the other: half the time
        line, inside, found = points[order, 0], inside[order], np.empty(len(points), int)
        low = np.searchsorted(line, line - inside, "left")
        found[order] = np.searchsorted(line, line + inside, "right") - low
        return found
    if points.shape[1] <= _TREE:
        tree = cKDTree(points)
        return np.asarray(tree.query_ball_point(points, inside, p=np.inf, return_length=True))
    parts = np.split(inside, range(_BLOCK, len(points), _BLOCK))
    tiles = zip(_tiles(points), parts, strict=True)
    return np.concatenate([(tile.numpy() <= r[:, None]).sum(1) for tile, r in tiles])


def _inside(radius: np.ndarray, largest: float) -> np.ndarray:
    """Return what is closer than a radius by more than rounding: ranks lie on a symmetric grid."""
    return np.maximum(radius * (1 - 1e-10) - 1e-15 * largest, 0)


def _tiles(points: np.ndarray) -> Iterator[Tensor]:
    """Yield the largest difference of a coordinate, of some rows to all points."""
    z = torch.from_numpy(points)
    for rows in z.split(_BLOCK):
        yield torch.cdist(rows, z, p=math.inf)


def _tree_counts(sides: list[np.ndarray], k: int) -> np.ndarray:
    """Return k, n_a and n_b of each sample, by trees."""
    radius = _radii(np.concatenate(sides, 1), k)
    return np.stack([np.full(len(radius), k), *(_within(side, radius) for side in sides)])


def _tile_counts(sides: list[np.ndarray], k: int) -> np.ndarray:
    """Return k, n_a and n_b of each sample, from all distances, tile by tile."""
    found = []
    for a, b in zip(_tiles(sides[0]), _tiles(sides[1]), strict=True):
        radius = torch.maximum(a, b).kthvalue(k + 1, 1, keepdim=True).values
        near_a, near_b = (
            tile <= torch.from_numpy(_inside(radius.numpy(), np.abs(side).max()))
            for tile, side in zip((a, b), sides, strict=True)
        )
        found.append(torch.stack([torch.full((len(a),), k), near_a.sum(1), near_b.sum(1)]))
    return torch.cat(found, 1).numpy()
