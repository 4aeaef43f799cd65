"""Bounds from pairwise distances: Bhattacharyya below, Kullback-Leibler above."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import Variance, check_samples, check_variance, variance_for
from ibcore.estimators.distances import squared_distances
from ibcore.interface import MutualInformation

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
        noise_variance: σ², in the squared unit of z; or a policy that reads it off each
            representation, see `ibcore.estimators.noise`.
    Raises:
        ValueError: σ² is not a positive number, as given or as a policy returns it.
    Source: Kolchinsky & Tracey (2017), eq. 10; the thesis, eq. 3.11-3.20
        [kolchinsky2017estimating, landsverk2021inductive].
    """

    noise_variance: Variance = 0.1

    def __post_init__(self) -> None:
        check_variance(self.noise_variance)

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
        variance = variance_for(z, self.noise_variance)
        sums = _kernel_sums(z, y, variance)
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
    for i, j, tile in squared_distances(z, tolerance=2 * noise_variance * _TOLERANCE):
        kernel = tile.mul_(-1 / (8 * noise_variance)).exp_()
        # exp(−d²/2σ²) is the fourth power of exp(−d²/8σ²): one exponential serves both.
        for sums, k in ((below, kernel), (above, kernel.square().square_())):
            sums[i] += k @ member[j]
            if i != j:
                sums[j] += k.T @ member[i]
    return below, above
