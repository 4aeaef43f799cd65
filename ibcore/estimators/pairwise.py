"""Bounds from pairwise distances: Bhattacharyya below, Kullback-Leibler above."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.interface import MutualInformation, check_samples

_BLOCK = 1024  # samples a tile: fewer than 1024² pairs give too little work for two threads
_TOLERANCE = 1e-6  # nats: the rounding error of an exponent that we accept


@dataclass(frozen=True)
class Pairwise:
    """Estimates of the information of T = Z + ε, ε ~ N(0, σ² I), from one pass over the distances.

    Ĩ(X;T) = −⟨log₂ (1/N) Σⱼ k(i,j)⟩ᵢ,  k(i,j) = exp(−‖zᵢ−zⱼ‖²/8σ²) for BD, /2σ² for KL;
    Ĩ(T;Y) = Ĩ(X;T) − Σ p_c Ĩ(X;T | Y=c).

    BD is a lower and KL an upper bound of I(X;T), and 0 ≤ Ĩ(X;T) ≤ log₂ N. Both estimates of
    I(T;Y) are differences of bounds: they stay below H(Y) and Ĩ(X;T), yet bound nothing, and can
    be negative. Distances and sums are float64. Memory: O(N (d + n_classes)).

    Args:
        noise_variance: σ², in the squared unit of z.
    Raises:
        ValueError: σ² is not a positive number.
    Source: Kolchinsky & Tracey (2017), eq. 10; the thesis, eq. 3.11-3.20
        [kolchinsky2017estimating, landsverk2021inductive].
    """

    noise_variance: float = 0.1

    def __post_init__(self) -> None:
        if not (self.noise_variance > 0 and math.isfinite(self.noise_variance)):
            raise ValueError(f"noise_variance must be positive, got {self.noise_variance}")

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return the estimates "BD" (I(X;T) from below) and "KL" (from above) in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: input that no estimate can be made from; see `check_samples`.
        """
        z, y = check_samples(z, y)
        y = torch.unique(y, return_inverse=True)[1]
        sums = _kernel_sums(z, y, self.noise_variance)
        size = torch.bincount(y)[y].double()
        return {name: _information(s, y, size) for name, s in zip(("BD", "KL"), sums, strict=True)}


def _information(sums: Tensor, y: Tensor, size: Tensor) -> MutualInformation:
    """Return the estimates from each sample's kernel sums by class, (n_samples, n_classes)."""
    all_bits = -(sums.sum(1) / len(y)).log2()
    own_bits = -(sums.gather(1, y[:, None])[:, 0] / size).log2()
    return MutualInformation(float(all_bits.mean()), float((all_bits - own_bits).mean()))


def _kernel_sums(z: Tensor, y: Tensor, noise_variance: float) -> tuple[Tensor, Tensor]:
    """Return Σⱼ k(i,j) over the j of each class, for BD and KL, each (n_samples, n_classes)."""
    classes = int(y.max()) + 1
    below = torch.zeros(len(z), classes, dtype=torch.float64, device=z.device)
    above = torch.zeros_like(below)
    member = torch.nn.functional.one_hot(y, classes).double()
    centre, scale = z.mean(0, dtype=torch.float64), (8 * noise_variance) ** -0.5
    gram = _gram_is_exact(z, centre, noise_variance)
    tiles = [slice(start, start + _BLOCK) for start in range(0, len(z), _BLOCK)]
    for first, i in enumerate(tiles):
        a = (z[i].double() - centre) * scale
        for j in tiles[first:]:
            b = a if i == j else (z[j].double() - centre) * scale
            kernel = _exponents(a, b, gram).exp_()
            if i == j:
                kernel.fill_diagonal_(1.0)
            # exp(−d²/2σ²) is the fourth power of exp(−d²/8σ²): one exponential serves both.
            for sums, k in ((below, kernel), (above, kernel.square().square_())):
                sums[i] += k @ member[j]
                if i != j:
                    sums[j] += k.T @ member[i]
    return below, above


def _exponents(a: Tensor, b: Tensor, gram: bool) -> Tensor:
    """Return −‖aᵢ−bⱼ‖², shape (len(a), len(b))."""
    if gram:
        squares = torch.addmm(-b.square().sum(1), a, b.T, alpha=2.0)
        return squares.sub_(a.square().sum(1, keepdim=True)).clamp_(max=0.0)
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_().neg_()


def _gram_is_exact(z: Tensor, centre: Tensor, noise_variance: float) -> bool:
    """Return whether ‖a‖² + ‖b‖² − 2ab loses nothing that the kernel can see.

    Its error is about ε (d + 4) max‖z‖²; tight clusters far from one another exceed it, and take
    the slower differences instead.
    """
    farthest = max(float((b.double() - centre).square().sum(1).max()) for b in z.split(_BLOCK))
    error = torch.finfo(torch.float64).eps * (z.shape[1] + 4) * farthest
    return error / (2 * noise_variance) < _TOLERANCE
