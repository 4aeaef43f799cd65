"""Matrix-based Rényi information: the entropy of the eigenvalues of kernel matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ibcore.checks import check_inputs, check_pair, check_representation, check_samples, stream
from ibcore.estimators.kernels import collisions, kernels_of
from ibcore.estimators.spectra import eigvalsh, power_trace
from ibcore.interface import Estimate, MutualInformation

_SMALLEST = 512  # samples from which on probes can be fewer than samples, with all their steps
_LARGEST_ALPHA = 50.0  # tr A^α ≥ N^(1−α), which must be a float


class _Entropy(NamedTuple):
    """An entropy and what it may be off by, in bits."""

    bits: float
    scatter: Tensor  # deviation of each random probe, (n_probes,)
    bound: float  # of the errors that are not random


@dataclass(frozen=True)
class Renyi:
    """Matrix-based Rényi information, which estimates no density: I(A;B) = S(A) + S(B) − S(A∘B).

    S_α(A) = log₂ tr(A^α) / (1−α), A = K/N, K(i,j) = exp(−‖aᵢ−aⱼ‖²/2w²); A∘B is the elementwise
    product of both kernels, divided by N. A label's kernel is 1 where labels agree, so that S(Y) is
    the Rényi entropy of its shares: at α = 2 the collision entropy −log₂ Σ p².

    It is a quantity of its own, in bits, and no estimate of Shannon's information: **it depends on
    the width**, from 0 bits for wide kernels to S = log₂ N for narrow ones. 0 ≤ S ≤ log₂ N and
    I(A;B) ≤ min(S(A), S(B)) always, so that I(Z;Y) ≤ H(Y) where α > 1. I ≥ 0 holds in the limit
    α → 1 alone: at α = 2 it can be slightly negative.

    Three ways to tr(A^α). α = 2 is the sum of the squared entries, tile by tile: exact, with memory
    O(N d). Up to `limit` samples, and for α < 1, all eigenvalues: time O(N³), memory a float64 N×N
    matrix an entropy (128 MiB at N = 4096), three for I(A;B). Above it, for α > 1: the largest
    eigenvalues one by one, and the rest by random probes (Lanczos quadrature) that carry what the
    known tr 1, tr A and tr A² leave open; float32 N×N matrices. Its `error` is one standard error
    of the probes, with half the distance of the quadrature's bounds and rounding. There a
    permutation of the samples changes the estimate within this error.

    Args:
        alpha: order α, above 0 and not 1; 1.01 is usual for the Shannon limit.
        width: w, in the unit of each representation, x included. None takes half the
            root-mean-square distance of two samples, w² = ½ Σ_k Var(z_k), which costs O(N d): then
            scale, the order of samples, constant dimensions, and samples counted twice change
            nothing. With it S₂ can't pass 4 / ln 2 = 5.8 bits (Jensen), for two samples at the
            typical distance count as alike by k = e⁻². Narrower kernels reach log₂ N, yet tell
            independent samples less well from dependent ones.
        limit: samples up to which all eigenvalues are computed, at least 512.
        seed: of the probes.
    Raises:
        ValueError: a setting out of range.
    Source: Sánchez Giraldo, Rao & Príncipe (2015), eq. 8 and 20; Yu et al. (2019); stochastic
        traces: Gong et al. (2021); bounds of the quadrature: Golub & Meurant (2010), chapter 6
        [sanchezgiraldo2015measures, yu2019multivariate, gong2021computationally,
        golub2010matrices].
    """

    alpha: float = 2.0
    width: float | None = None
    limit: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.alpha == 1:
            raise ValueError("alpha must not be 1: take 1.01 for the Shannon limit")
        if not 0 < self.alpha <= _LARGEST_ALPHA:
            raise ValueError(f"alpha must lie above 0, up to {_LARGEST_ALPHA:g}, got {self.alpha}")
        if self.width is not None and not 0 < self.width < math.inf:
            raise ValueError(f"width must be positive, got {self.width}")
        if self.limit < _SMALLEST:
            raise ValueError(f"limit must be at least {_SMALLEST} samples, got {self.limit}")

    def __call__(
        self, z: Tensor, y: Tensor, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return {"Renyi": information} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
            x: inputs of the network, shape (n_samples, ...), any float dtype. Needed.
        Raises:
            ValueError: no x; samples that are all the same, where no width is given; or see
                `check_samples`.
        """
        z, y = check_samples(z, y)
        _, y, counts = torch.unique(y, return_inverse=True, return_counts=True)
        s_y = _of_values(counts.double() / len(y), self.alpha)
        z, x = check_pair(z, check_inputs(x, self))
        terms = [[0], [0, 1], [2], [0, 2]]
        s_z, s_zy, s_x, s_xz = self._entropies([z, y, x], terms)
        i_xz = _estimate([(1, s_x), (1, s_z), (-1, s_xz)])
        i_zy = _estimate([(1, s_z), (1, s_y), (-1, s_zy)])
        return {"Renyi": MutualInformation(i_xz.bits, i_zy.bits, i_xz.error, i_zy.error)}

    def between(self, a: Tensor, b: Tensor) -> Estimate:
        """Return I(A;B) and its error in bits.

        Args:
            a: shape (n_samples, ...), any float dtype.
            b: shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: samples that are all the same, where no width is given; or see `check_pair`.
        """
        s_a, s_b, s_ab = self._entropies([*check_pair(a, b)], [[0], [1], [0, 1]])
        return _estimate([(1, s_a), (1, s_b), (-1, s_ab)])

    def entropy(self, z: Tensor) -> Estimate:
        """Return S(Z) and its error in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: samples that are all the same, where no width is given; or see
                `check_representation`.
        """
        return _estimate([(1, self._entropies([check_representation(z)], [[0]])[0])])

    def _entropies(self, samples: list[Tensor], terms: list[list[int]]) -> list[_Entropy]:
        """Return S of each term: of the product of the kernels of the samples that it lists."""
        widths = [self._squared_width(s) if s.is_floating_point() else 1.0 for s in samples]
        if self.alpha == 2:
            return [_entropy(2.0, trace) for trace in collisions(samples, widths, terms)]
        direct = len(samples[0]) <= self.limit or self.alpha < 1
        kernels = kernels_of(samples, widths, terms, torch.float64 if direct else torch.float32)
        if direct:
            return [_of_values(eigvalsh(k) / len(k), self.alpha) for k in kernels]
        return [_probed(k, self.alpha, stream(self.seed, "Renyi")) for k in kernels]

    def _squared_width(self, z: Tensor) -> float:
        """Return w²; z has shape (n_samples, dim)."""
        if self.width is not None:
            return self.width**2
        centre = z.mean(0, dtype=torch.float64)
        variance = float(sum((r - centre).square().sum() for r in z.split(1024))) / len(z)
        if not 0 < variance < math.inf or (z == z[0]).all():
            raise ValueError(
                f"no kernel width can be read off {len(z)} samples that are all the same, or whose "
                f"variance is no float (it is {variance:.3g}): give Renyi(width=...)"
            )
        return variance / 2


def _estimate(entropies: Sequence[tuple[int, _Entropy]]) -> Estimate:
    """Return a sum of entropies, each with its sign; errors of the same probes may cancel."""
    scatter = sum((sign * s.scatter for sign, s in entropies), torch.zeros(()))
    random = float(scatter.square().sum()) ** 0.5 / max(1, len(scatter) - 1)
    error = math.hypot(random, sum(s.bound for _, s in entropies))
    return Estimate(sum(sign * s.bits for sign, s in entropies), error)


def _entropy(alpha: float, trace: float, bound: float = 0.0) -> _Entropy:
    """Return log₂ tr(A^α) / (1−α), from the trace and the bound of its error."""
    bits = max(0.0, math.log2(trace) / (1 - alpha))
    return _Entropy(bits, torch.zeros(1), bound / trace / abs(1 - alpha) / math.log(2))


def _of_values(values: Tensor, alpha: float) -> _Entropy:
    """Return the entropy of all eigenvalues of A; those below rounding count as zero."""
    smallest = len(values) * torch.finfo(torch.float64).eps * float(values.max())
    trace = float(values[values > smallest].pow(alpha).sum())
    return _entropy(alpha, trace, len(values) * smallest**alpha)


def _probed(kernel: Tensor, alpha: float, generator: torch.Generator) -> _Entropy:
    """Return the entropy of K/N, from its largest eigenvalues and random probes of the rest."""
    n = len(kernel)
    traces, bound = power_trace(kernel, alpha, generator)
    traces, bound = traces / n**alpha, bound / n**alpha
    trace = float(traces.mean())
    scatter = (traces - trace) / (trace * (1 - alpha) * math.log(2))
    entropy = _entropy(alpha, trace, bound)
    return entropy._replace(scatter=scatter, bits=min(entropy.bits, math.log2(n)))
