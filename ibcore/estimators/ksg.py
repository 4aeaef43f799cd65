"""Nearest neighbours: Kraskov-Stögbauer-Grassberger for X, Ross for the label."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from ibcore.checks import check_inputs, check_pair, check_samples
from ibcore.estimators.critic import normal_scores
from ibcore.interface import Estimate, MutualInformation

_TREE = 10  # dimensions of the joint space above which a tree looks at most of the pairs anyway
_BLOCK = 512  # rows of distances at once, without a tree


@dataclass(frozen=True)
class Ksg:
    """Information from the distances to nearest neighbours, in the largest coordinate.

    I(A;B) = ψ(N) + ψ(k) − ⟨ψ(n_a) + ψ(n_b)⟩, with n_a the samples whose A lies closer than the
    k-th neighbour of the pair (A,B), oneself included. I(Z;Y) = ψ(N) + ⟨ψ(k) − ψ(n_y) − ψ(m)⟩, with
    m the samples closer than the k-th neighbour of one's own label, and n_y those of that label.

    It estimates a density and needs values without ties. Where the k-th neighbour is a copy, k and
    all counts are those of the copies, so that discrete samples get their plug-in information.
    Ties at other distances break it: values on a grid in several coordinates, such as many bits or
    words, all lie equally far apart, and the estimate is too high even where there is nothing.
    Biased low in many dimensions, or where A and B hold more than log k + log N can show; a little
    negative near independence.

    Args:
        neighbours: k.
        ranks: whether each coordinate is replaced by the normal scores of its ranks, which changes
            no information and makes the estimate independent of units and of heavy tails.
    Raises:
        ValueError: fewer than one neighbour.
    Source: Kraskov, Stögbauer & Grassberger (2004), eq. 8; Ross (2014), eq. 2; Gao et al. (2017),
        for ties [kraskov2004estimating, ross2014mutual, gao2017estimating].
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
            ValueError: as few samples as neighbours, or see `check_pair`.
        """
        sides = [self._prepared(side) for side in check_pair(a, b)]
        n = len(sides[0])
        counts = _tree_counts if sum(s.shape[1] for s in sides) <= _TREE else _tile_counts
        k, n_a, n_b = counts(sides, self.neighbours)
        return _estimate(digamma(n) + digamma(k) - digamma(n_a) - digamma(n_b))

    def label(self, z: Tensor, y: Tensor) -> Estimate:
        """Return I(Z;Y) of labels in bits, with its standard error; see `__call__`."""
        z, y = check_samples(z, y)
        points, labels = self._prepared(z), y.cpu().numpy()
        kinds, sizes = np.unique(labels, return_counts=True)
        kept = np.isin(labels, kinds[sizes > 1])
        points, labels = points[kept], labels[kept]
        if not len(points):
            raise ValueError(f"each of the {len(z)} samples is alone in its class")
        k, size, radius = (np.empty(len(points)) for _ in range(3))
        for kind in np.unique(labels):
            own = labels == kind
            size[own] = own.sum()
            radius[own], k[own] = _radii(points[own], min(self.neighbours, int(own.sum()) - 1))
        near = _within(points, radius)
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


def _radii(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's distance to its k-th neighbour, and k; of copies, 0 and their number."""
    if points.shape[1] <= _TREE:
        radius = cKDTree(points).query(points, [k + 1], p=np.inf)[0][:, 0]
    else:
        radius = np.concatenate([tile.kthvalue(k + 1, 1).values for tile in _tiles(points)])
    found = np.full(len(points), k)
    if not radius.all():
        found[radius == 0] = _within(points, radius)[radius == 0]
    return radius, found


def _within(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return how many points lie closer than the radius, or at 0 where that is 0; with oneself."""
    inside = _inside(radius, np.abs(points).max())
    if points.shape[1] == 1:
        line, point = np.sort(points[:, 0]), points[:, 0]
        high, low = np.searchsorted(line, point + inside, "right"), point - inside
        found: np.ndarray = high - np.searchsorted(line, low, "left")
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


def _tree_counts(sides: list[np.ndarray], k: int) -> tuple[np.ndarray, ...]:
    """Return k, n_a and n_b of each sample, by trees."""
    radius, found = _radii(np.concatenate(sides, 1), k)
    return found, _within(sides[0], radius), _within(sides[1], radius)


def _tile_counts(sides: list[np.ndarray], k: int) -> tuple[np.ndarray, ...]:
    """Return k, n_a and n_b of each sample, from all distances, tile by tile."""
    found = []
    for a, b in zip(_tiles(sides[0]), _tiles(sides[1]), strict=True):
        both = torch.maximum(a, b)
        radius = both.kthvalue(k + 1, 1, keepdim=True).values
        near_a, near_b = (
            tile <= torch.from_numpy(_inside(radius.numpy(), np.abs(side).max()))
            for tile, side in zip((a, b), sides, strict=True)
        )
        own = torch.where(radius[:, 0] > 0, k, (both <= 0).sum(1))
        found.append(torch.stack([own, near_a.sum(1), near_b.sum(1)]))
    return tuple(torch.cat(found, 1).numpy())
