"""The critic behind the neural bounds, and how samples are prepared for it."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ibcore.checks import stream
from ibcore.estimators.spectra import eigh, svd

TILE = 2048  # held-out samples of which all pairs are formed at once
_COMPONENTS = 64  # principal components of each side that the critic sees
_WIDE = 1024  # dimensions above which the principal directions are found by random projection
_APART = 1e-8  # of the norm of a matrix: far above rounding, far below what is estimated
_ITERATIONS = 5  # of that projection
_WIDTH, _EMBEDDING = 32, 16  # units of the critic's hidden layers, and of its output
_VALIDATION = 0.2  # share of the training folds that decides when to stop
_MOST = 1024  # samples that decide, at most


class Folds:
    """The samples of each critic; there is one for each pair and fold.

    `train` and `validation` are (a, b), each (n_critics, n_samples, dim) in canonical directions;
    `correlations` is (n_critics, n_directions).
    """

    def __init__(
        self, pairs: list[tuple[Tensor, Tensor]], folds: int, generator: torch.Generator
    ) -> None:
        n, device = len(pairs[0][0]), pairs[0][0].device
        parts = torch.randperm(n, generator=generator).to(device).tensor_split(folds)
        size = n - len(parts[0])  # samples outside a fold; of some folds one more, left out
        keep = size - held_back(n, folds)
        splits = []
        for number, part in enumerate(parts):
            rest = torch.cat([p for i, p in enumerate(parts) if i != number])[:size]
            splits.append((rest[:keep], rest[keep:], part[: n // folds]))
        rotated = [(rows, *_canonical(a, b, rows[0])) for a, b in pairs for rows in splits]
        self.correlations = _padded([r[None] for *_, r in rotated])[:, 0]
        self.train, self.validation, self._held_out = (
            (
                _padded([a[rows[part]] for rows, a, _, _ in rotated]),
                _padded([b[rows[part]] for rows, _, b, _ in rotated]),
            )
            for part in range(3)
        )

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        """Return the folds' own samples, in tiles of which all pairs fit in memory."""
        a, b = self._held_out
        count = -(-a.shape[1] // TILE)
        return list(zip(a.tensor_split(count, 1), b.tensor_split(count, 1), strict=True))


def held_back(n_samples: int, folds: int) -> int:
    """Return how many samples outside a fold decide when to stop."""
    outside = n_samples - -(-n_samples // folds)  # of some folds one more
    return min(_MOST, max(2, int(_VALIDATION * outside)))


def _padded(parts: list[Tensor]) -> Tensor:
    """Return matrices of as many rows stacked, with zeros to the widest one's columns."""
    width = max(part.shape[1] for part in parts)
    return torch.stack([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])


def _canonical(a: Tensor, b: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a and b in canonical directions of the rows, and the correlations they keep.

    Correlations that as many independent samples would show are taken to be none, and the others
    lose what they gain from chance.
    """
    sides, n = [], len(rows)
    for z in (a, b):
        z = z - z[rows].mean(0)
        values, vectors = _axes(z[rows].T @ z[rows] / n)
        sides.append(z @ (vectors / values.clamp(min=0.1).sqrt()))
    a, b = sides
    left, r, right = svd(_apart(a[rows].T @ b[rows] / n))
    signs = _signs(left)
    left *= signs
    right[: len(r)] *= signs[: len(r), None]
    chance = math.sqrt(a.shape[1] / n) + math.sqrt(b.shape[1] / n)
    gain = (1 - r * r) * (a.shape[1] + b.shape[1]) / n
    r = torch.where(r > chance, (r * r - gain).clamp(min=0).sqrt(), torch.zeros_like(r))
    return a @ left, b @ right.T, r.clamp(max=0.9999)


def components(a: Tensor) -> Tensor:
    """Return normal scores in their leading principal directions, each of variance 1.

    Information does not change under monotone maps of a coordinate or rotations, but for ties and
    for the directions that are left out: more than 64, or a tenth of the samples.
    """
    scores = normal_scores(a)
    values, vectors = _principal(scores)
    count = min(_COMPONENTS, len(a) // 10)
    kept = values[:count] > 1e-6 * values[0].clamp(min=1e-6)
    found: Tensor = scores @ (vectors[:, :count][:, kept] / values[:count][kept].sqrt())
    return found


def _principal(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances along the principal directions, largest first, and the directions."""
    n, dim = scores.shape
    if dim <= _WIDE:
        values, vectors = _axes(scores.T @ scores / n)
        return values.flip(0), vectors.flip(1)
    drawn = torch.randn(
        dim, min(2 * _COMPONENTS, n), generator=stream(0, "principal"), dtype=torch.float64
    )
    basis = drawn.to(scores)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(scores.T @ (scores @ basis)).Q
    image = scores @ basis
    values, vectors = _axes(image.T @ image / n)
    return values.flip(0), basis @ vectors.flip(1)


def _axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, smallest first, and eigenvectors that rounding doesn't turn.

    Where variances agree, as those of independent bits, any axes would do, and which ones come out
    hangs on the last digits of a processor's sums.
    """
    values, vectors = eigh(_apart(covariance))
    return values, vectors * _signs(vectors)


def _apart(matrix: Tensor) -> Tensor:
    """Return the matrix with a diagonal of up to 1e-8 of its norm that tells equal values apart."""
    found = matrix.clone()
    diagonal = found.diagonal()
    diagonal += _APART * matrix.norm() * torch.linspace(0, 1, len(diagonal)).to(matrix)
    return found


def _signs(vectors: Tensor) -> Tensor:
    """Return ±1 a column, such that each times it lies on the same side of a fixed direction."""
    fixed = torch.arange(1, len(vectors) + 1).to(vectors).sqrt()
    return torch.where(fixed @ vectors < 0, -1.0, 1.0).to(vectors)


def normal_scores(a: Tensor) -> Tensor:
    """Return each column's quantiles of the normal distribution by rank; ties share their rank."""
    scores = torch.empty(a.shape, dtype=torch.float64, device=a.device)
    for number, column in enumerate(a.unbind(1)):
        _, inverse, counts = torch.unique(column, return_inverse=True, return_counts=True)
        middle = counts.cumsum(0) - counts / 2
        scores[:, number] = torch.special.ndtri(middle.double() / len(a))[inverse]
    return scores - scores.mean(0)


class Critic:
    """F(a,b) for many critics at once: a Gaussian's log density ratio plus a separable network."""

    def __init__(
        self, correlations: Tensor, dim_a: int, dim_b: int, generator: torch.Generator
    ) -> None:
        self._device, self._generator = correlations.device, generator
        self._correlations = correlations
        self._gaussian = correlations.atanh()
        self._networks = [self._network(len(correlations), dim) for dim in (dim_a, dim_b)]
        self._networks[0][-2].zero_()  # the network starts at f(a)·h(b) = 0
        self._networks[0][-1].zero_()
        self.parameters = [self._gaussian, *self._networks[0], *self._networks[1]]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def _network(self, count: int, dim: int) -> list[Tensor]:
        sizes = [dim, _WIDTH, _WIDTH, _EMBEDDING]
        found = []
        for inputs, outputs in pairwise(sizes):
            for rows in (inputs, 1):  # weights, then biases
                uniform = torch.rand(
                    count, rows, outputs, generator=self._generator, dtype=torch.float64
                )
                found.append(((2 * uniform - 1) / math.sqrt(inputs)).to(self._device))
        return found

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return F of all pairs, (n_critics, n_a, n_b), from (n_critics, n, dim) each."""
        r = self._gaussian.tanh()[:, None, :]
        k = r.shape[2]
        slope = r / (1 - r * r)
        constant = torch.log1p(-r * r).sum(2, keepdim=True) / 2
        f, h = (_forward(p, z) for p, z in zip(self._networks, (a, b), strict=True))
        of_a, of_b = (-(z[..., :k].square() * (r * slope)).sum(2, keepdim=True) / 2 for z in (a, b))
        # One product adds up all terms, which saves passes over the pairs.
        left = torch.cat([f, a[..., :k] * slope, of_a - constant, torch.ones_like(of_a)], 2)
        return left @ torch.cat([h, b[..., :k], torch.ones_like(of_b), of_b], 2).mT

    @torch.no_grad()
    def start(self, score: Callable[[Tensor], Tensor], samples: tuple[Tensor, Tensor]) -> Tensor:
        """Shrink the correlations to what validates best, and return that score, (n_critics,).

        Where the data are far from Gaussian, as labels are, nothing of them may be of use.
        """
        best = torch.full_like(self._correlations[:, 0], -math.inf)
        kept = torch.zeros_like(self._gaussian)
        for share in (0.0, 0.4, 0.7, 0.9, 1.0):
            self._gaussian.copy_((share * self._correlations).atanh())
            found = score(self(*samples))
            better = found > best
            kept[better], best = self._gaussian[better], torch.where(better, found, best)
        self._gaussian.copy_(kept)
        return best

    def clip(self, most: float = 5.0) -> None:
        """Shorten each critic's gradient to a norm of at most 5."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = (most / norm.clamp(min=most)).nan_to_num()
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))

    def freeze(self) -> None:
        """End the training: no more gradients."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)


def _forward(p: list[Tensor], z: Tensor) -> Tensor:
    hidden = torch.baddbmm(p[1], z, p[0]).relu_()
    hidden = torch.baddbmm(p[3], hidden, p[2]).relu_()
    return torch.baddbmm(p[5], hidden, p[4])
