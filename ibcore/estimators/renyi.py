"""Matrix-based Rényi entropy and mutual information, from the spectra of kernel matrices."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ibcore.estimators.distances import squared_distances
from ibcore.interface import (
    Estimate,
    MutualInformation,
    check_pair,
    check_representation,
    check_samples,
)

_TOLERANCE = 1e-9  # nats: the rounding error of an exponent that we accept
_BLOCK, _STEPS = 32, 8
_NOISE = 1e-6
_CONVERGED = 1e-2  # residual of a Ritz pair, as a share of its value, that makes it an eigenpair


class _Entropy(NamedTuple):
    """An entropy, and what each random probe adds to its deviation; both in bits."""

    bits: float
    scatter: Tensor  # (n_probes,), or zero where nothing is random

    @property
    def error(self) -> float:
        """The standard error over the probes, in bits."""
        return float(self.scatter.std() / len(self.scatter) ** 0.5)


@dataclass(frozen=True)
class Renyi:
    """Matrix-based Rényi information: entropies of the spectra of normalised kernel matrices."""

    alpha: float = 2.0
    width: float | None = None
    limit: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.alpha != 1 and math.isfinite(self.alpha)):
            raise ValueError(
                f"alpha must be positive and not 1, got {self.alpha}; for the Shannon limit "
                "take 1.01"
            )
        if self.width is not None and not (self.width > 0 and math.isfinite(self.width)):
            raise ValueError(f"width must be positive, got {self.width}")
        if self.limit < 2:
            raise ValueError(f"limit must be at least 2 samples, got {self.limit}")

    def __call__(
        self, z: Tensor, y: Tensor, *, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return {"Rényi": information} in bits."""
        z, y = check_samples(z, y)
        shares = torch.unique(y, return_counts=True)[1].double() / len(y)
        s_y = self._bits(shares.pow(self.alpha).sum().reshape(1)).bits
        if x is None:
            s_z, s_zy = (s.bits for s in self._entropies([z, y], [(0,), (0, 1)]))
            return {"Rényi": MutualInformation(s_z, s_z + s_y - s_zy)}
        z, x = check_pair(z, x)
        terms = [(0,), (0, 1), (2,), (0, 2)]
        s_z, s_zy, s_x, s_xz = (s.bits for s in self._entropies([z, y, x], terms))
        return {"Rényi": MutualInformation(s_x + s_z - s_xz, s_z + s_y - s_zy)}

    def between(self, a: Tensor, b: Tensor) -> Estimate:
        """Return I(A;B) in bits."""
        a, b = check_pair(a, b)
        s_a, s_b, s_ab = self._entropies([a, b], [(0,), (1,), (0, 1)])
        bits = s_a.bits + s_b.bits - s_ab.bits
        return Estimate(bits, _Entropy(bits, s_a.scatter + s_b.scatter - s_ab.scatter).error)

    def entropy(self, z: Tensor) -> Estimate:
        """Return S(A) in bits."""
        entropy = self._entropies([check_representation(z)], [(0,)])[0]
        return Estimate(entropy.bits, entropy.error)

    def _bits(self, traces: Tensor) -> _Entropy:
        trace = float(traces.mean())
        scale = (1 - self.alpha) * math.log(2)
        scatter = (traces - trace) / (trace * scale)
        if len(traces) == 1:
            scatter = torch.zeros(2, dtype=torch.float64)
        return _Entropy(max(0.0, math.log(trace) / scale), scatter)

    def _entropies(self, samples: list[Tensor], terms: list[tuple[int, ...]]) -> list[_Entropy]:
        widths = [self._squared_width(s) if s.is_floating_point() else 1.0 for s in samples]
        n = len(samples[0])
        if self.alpha == 2:
            return [self._bits(t) for t in _collisions(samples, widths, terms)]
        exact = n <= self.limit or self.alpha < 1
        dtype = torch.float64 if exact else torch.float32
        kernels = [torch.empty(n, n, dtype=dtype, device=samples[0].device) for _ in samples]
        for i, j, tiles in _kernel_tiles(samples, widths, 1.0):
            for kernel, tile in zip(kernels, tiles, strict=True):
                kernel[i, j] = tile = tile.to(dtype)
                kernel[j, i] = tile.T.contiguous()  # in two steps, each is fast
        found = []
        for term in terms:
            kernel = kernels[term[0]] if len(term) == 1 else kernels[term[0]] * kernels[term[1]]
            if exact:
                values = torch.linalg.eigvalsh(kernel).clamp_(min=0) / n
                found.append(self._bits(values.pow(self.alpha).sum().reshape(1)))
            else:
                traces = _probed_traces(kernel, self.alpha, self.seed) / n**self.alpha
                found.append(self._bits(traces.mean(0)))
        return found

    def _squared_width(self, z: Tensor) -> float:
        if self.width is not None:
            return self.width**2
        if (z == z[0]).all():
            raise ValueError(
                f"all {len(z)} samples are the same: no kernel width can be read off them; "
                "give a width, or leave the constant representation out"
            )
        centre = z.mean(0, dtype=torch.float64)
        return float(sum((rows - centre).square().sum() for rows in z.split(1024))) / len(z) / 2


def _kernel_tiles(
    samples: Sequence[Tensor], widths: Sequence[float], power: float
) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    numbers = [k for k, s in enumerate(samples) if s.is_floating_point()]
    distances = [squared_distances(samples[k], 2 * widths[k] * _TOLERANCE) for k in numbers]
    for tiles in zip(*distances, strict=True):
        i, j, _ = tiles[0]
        found = [s[i, None] == s[j] for s in samples if not s.is_floating_point()]
        for k, (_, _, tile) in zip(numbers, tiles, strict=True):
            found.insert(k, tile.mul_(-power / (2 * widths[k])).exp_())
        yield i, j, found


def _collisions(
    samples: Sequence[Tensor], widths: Sequence[float], terms: Sequence[tuple[int, ...]]
) -> Tensor:
    sums = torch.zeros(len(terms), 1, dtype=torch.float64)
    for i, j, tiles in _kernel_tiles(samples, widths, 2.0):
        for number, term in enumerate(terms):
            tile = tiles[term[0]]
            if len(term) == 2:
                other = tiles[term[1]]
                tile = torch.where(other, tile, 0.0) if other.dtype == torch.bool else tile * other
            sums[number] += float(tile.sum()) * (1 if i == j else 2)
    return sums / len(samples[0]) ** 2


def _probed_traces(kernel: Tensor, alpha: float, seed: int) -> Tensor:
    """Return estimates of tr K^α from below and above, for each probe, (2, n_probes)."""
    n = len(kernel)
    square = float(torch.linalg.vector_norm(kernel, dim=1).double().square().sum())
    floor = _NOISE * square**0.5
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(n, _BLOCK, generator=generator, dtype=torch.float64).to(kernel.device)
    basis, small, residual = _lanczos(kernel, start, floor)
    values, vectors = torch.linalg.eigh(small)
    top = (residual @ vectors[-_BLOCK:]).norm(dim=0) + floor < _CONVERGED * values
    space, values = basis @ vectors[:, top], values[top]
    probes = 2.0 * torch.randint(2, (n, _BLOCK), generator=generator) - 1
    probes = probes.to(space)
    probes -= space @ (space.T @ probes)
    basis, small, _ = _lanczos(kernel, probes, floor)
    first = basis[:, :_BLOCK].T @ probes
    rest = [n - len(values), n - float(values.sum()), square - float(values.square().sum())]
    noise = _NOISE * torch.tensor([0.0, n, square]).to(space)
    known = values.pow(alpha).sum()
    return torch.stack(
        [known + _rest(t, first, rest, noise, alpha) for t in (small, _radau(small))]
    )


def _rest(
    small: Tensor, first: Tensor, moments: list[float], noise: Tensor, alpha: float
) -> Tensor:
    values, vectors = torch.linalg.eigh(small)
    weights = (vectors[:_BLOCK].T @ first).square()
    f = values.sign() * values.abs().pow(alpha)
    powers = torch.stack([values**k for k in range(3)], 1)
    root = weights.mean(1).sqrt()[:, None]
    rows = torch.cat([root * powers, noise.diag() * (_BLOCK / 2) ** 0.5])
    fit = torch.linalg.pinv(rows) @ torch.cat([root[:, 0] * f, torch.zeros_like(noise)])
    return (f - powers @ fit) @ weights + float(fit @ fit.new_tensor(moments))


def _radau(small: Tensor) -> Tensor:
    small = small.clone()
    head, side = small[:-_BLOCK, :-_BLOCK], small[:-_BLOCK, -_BLOCK:]
    ridge = _NOISE * small.norm() * torch.eye(len(head)).to(small)
    small[-_BLOCK:, -_BLOCK:] = side.T @ torch.linalg.solve(head + ridge, side)
    return small


def _lanczos(kernel: Tensor, start: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    basis = kernel.new_zeros(len(start), _STEPS * _BLOCK)
    small = start.new_zeros(basis.shape[1], basis.shape[1])
    image = start
    for step in range(_STEPS):
        here, known = slice(step * _BLOCK, (step + 1) * _BLOCK), basis[:, : (step + 1) * _BLOCK]
        basis[:, here] = _orthonormal(image.double(), floor if step else 0.0)
        image = kernel @ basis[:, here]
        for _ in range(2):  # what is left may be so small that one pass leaves its rounding errors
            part = known.T @ image
            image -= known @ part
            small[: len(part), here] += part
    return basis.double(), small.triu() + small.triu(1).T, image.double()


def _orthonormal(block: Tensor, floor: float) -> Tensor:
    """Return the principal directions of the columns of a block; those below a floor are zero."""
    values, vectors = torch.linalg.eigh(block.T @ block)
    keep = values > max(floor**2, 1e-14 * float(values[-1]))
    return block @ (vectors * torch.where(keep, values.clamp(min=1e-300).rsqrt(), 0.0))
