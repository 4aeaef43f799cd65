"""Laws of two variables of which the mutual information is known, to try estimators on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Law:
    """A joint distribution of A and B, and its true information.

    Args:
        name: short enough for the label of an axis.
        bits: I(A;B) in bits.
        draw: n and a random generator → n rows of A and of B, float64.
    """

    name: str
    bits: float
    draw: Callable[[int, Generator], Pair]

    def sample(self, n: int, seed: int) -> Pair:
        """Return n independent draws of (A, B), the same for the same seed.

        Returns:
            Two float64 tensors, shapes (n, d_a) and (n, d_b).
        Raises:
            ValueError: n below 1, or seed below 0.
        """
        _require(n >= 1, "a sample needs n of at least 1", n)
        _require(seed >= 0, "seed must not be negative", seed)
        return self.draw(n, np.random.default_rng(seed))


def gaussian(dim: int, correlation: float) -> Law:
    """Return d independent pairs of standard normal variables, each with correlation ρ.

    I(A;B) = −d/2 log₂(1 − ρ²); `correlation_for` gives the ρ of some information.

    Raises:
        ValueError: dim below 1, or correlation not between −1 and 1.
    Source: Cover & Thomas (2006), example 8.5.1 [cover2006elements].
    """
    _require(dim >= 1, "dim must be at least 1", dim)
    _require(-1 < correlation < 1, "correlation must lie between -1 and 1", correlation)

    def draw(n: int, random: Generator) -> Pair:
        a, noise = random.standard_normal((2, n, dim))
        return _tensors(a, correlation * a + math.sqrt(1 - correlation**2) * noise)

    return Law(f"Gaussian, d = {dim}", -dim / 2 * math.log1p(-(correlation**2)) / math.log(2), draw)


def correlation_for(bits: float, dim: int) -> float:
    """Return the correlation that gives a `gaussian` some bits: ρ = √(1 − 2^(−2I/d)).

    Raises:
        ValueError: bits below 0 or infinite, or dim below 1.
    """
    _require(0 <= bits < math.inf, "bits must be finite and not negative", bits)
    _require(dim >= 1, "dim must be at least 1", dim)
    return math.sqrt(-math.expm1(-2 * bits * math.log(2) / dim))


def student(dim: int, correlation: float, freedom: float) -> Law:
    """Return a `gaussian` over √(W/ν), one W ~ χ²(ν) for all of A and B: multivariate Student-t.

    I(A;B) = −d/2 log₂(1 − ρ²) + (g(ν) + g(ν+2d) − 2 g(ν+d)) / ln 2,
    g(x) = ln Γ(x/2) − (x/2) ψ(x/2)

    W tells how far out both are, so that ρ = 0 leaves information. The fewer degrees of freedom
    ν, the heavier the tails; the variance is infinite for ν ≤ 2.

    Raises:
        ValueError: see `gaussian`; or freedom is no positive number.
    Source: from the entropy in Arellano-Valle, Contreras-Reyes & Genton (2013); Czyż et al.
        (2023) [arellano2013shannon, czyz2023beyond].
    """
    _require(0 < freedom < math.inf, "freedom must be positive and finite", freedom)
    normal = gaussian(dim, correlation)
    half = torch.tensor([freedom, freedom + dim, freedom + 2 * dim], dtype=torch.float64) / 2
    low, middle, high = (half.lgamma() - half * half.digamma()).tolist()
    bits = normal.bits + (low + high - 2 * middle) / math.log(2)

    def draw(n: int, random: Generator) -> Pair:
        a, b = normal.draw(n, random)
        scale = torch.from_numpy(random.chisquare(freedom, (n, 1)) / freedom).rsqrt()
        return a * scale, b * scale

    return Law(f"Student-t, d = {dim}", bits, draw)


def additive(width: float) -> Law:
    """Return A ~ U(0, 1) and B = A + U(−ε, ε), ε the width.

    I(A;B) = (ε − ln 2ε) / ln 2 for ε ≤ ½,  1 / (4ε ln 2) for ε ≥ ½

    Raises:
        ValueError: width is no positive number.
    Source: Czyż et al. (2023) [czyz2023beyond].
    """
    _require(0 < width < math.inf, "width must be positive and finite", width)
    nats = width - math.log(2 * width) if width <= 0.5 else 1 / (4 * width)

    def draw(n: int, random: Generator) -> Pair:
        a = random.random((n, 1))
        return _tensors(a, a + random.uniform(-width, width, (n, 1)))

    return Law(f"Additive noise, ε = {width:g}", nats / math.log(2), draw)


def symmetric(flip: float) -> Law:
    """Return a fair bit A, and B, the other bit with probability p: binary symmetric channel.

    I(A;B) = 1 − H₂(p),  H₂(p) = −p log₂ p − (1−p) log₂(1−p)

    Raises:
        ValueError: flip is no probability.
    Source: Cover & Thomas (2006), section 7.1.4 [cover2006elements].
    """
    _require(0 <= flip <= 1, "flip must be a probability from 0 to 1", flip)
    bits = 1 + sum(p * math.log2(p) for p in (flip, 1 - flip) if p > 0)

    def draw(n: int, random: Generator) -> Pair:
        a = random.integers(2, size=(n, 1))
        return _tensors(a, np.where(random.random((n, 1)) < flip, 1 - a, a))

    return Law(f"Symmetric channel, p = {flip:g}", bits, draw)


def erasure(loss: float) -> Law:
    """Return a fair bit A, and B, the same bit, or 2 with probability p: binary erasure channel.

    I(A;B) = 1 − p

    Raises:
        ValueError: loss is no probability.
    Source: Cover & Thomas (2006), section 7.1.5 [cover2006elements].
    """
    _require(0 <= loss <= 1, "loss must be a probability from 0 to 1", loss)

    def draw(n: int, random: Generator) -> Pair:
        a = random.integers(2, size=(n, 1))
        return _tensors(a, np.where(random.random((n, 1)) < loss, 2, a))

    return Law(f"Erasure channel, p = {loss:g}", 1 - loss, draw)


def independent(dim_a: int, dim_b: int) -> Law:
    """Return standard normal variables A and B that know nothing of each other: I(A;B) = 0.

    Raises:
        ValueError: a dimension below 1.
    """
    for dim in (dim_a, dim_b):
        _require(dim >= 1, "dimensions must be at least 1", dim)

    def draw(n: int, random: Generator) -> Pair:
        return _tensors(random.standard_normal((n, dim_a)), random.standard_normal((n, dim_b)))

    return Law(f"Independent, d = {dim_a} + {dim_b}", 0.0, draw)


def half_cube(law: Law) -> Law:
    """Return the law with each coordinate x at sign(x) abs(x)^(3/2): longer tails, the same I(A;B).

    Source: Czyż et al. (2023) [czyz2023beyond].
    """
    return _mapped(law, "half-cube", lambda a, b: (a * a.abs().sqrt(), b * b.abs().sqrt()))


def asinh(law: Law) -> Law:
    """Return the law with each coordinate x at asinh x: shorter tails, the same I(A;B).

    Source: Czyż et al. (2023) [czyz2023beyond].
    """
    return _mapped(law, "asinh", lambda a, b: (a.asinh(), b.asinh()))


def spiral(law: Law, speed: float) -> Law:
    """Return the law with A's first two coordinates turned by the angle v ‖a‖², v the speed.

    A turn keeps ‖a‖, so that it can be turned back and I(A;B) stays.

    Raises:
        ValueError: A has one dimension, or speed is not finite.
    Source: Czyż et al. (2023) [czyz2023beyond].
    """
    _require(math.isfinite(speed), "speed must be finite", speed)
    dim = law.sample(1, seed=0)[0].shape[1]
    _require(dim >= 2, f"a spiral needs two dimensions of A in {law.name!r}", dim)

    def turn(a: Tensor, b: Tensor) -> Pair:
        angle, x, y = speed * a.square().sum(1), a[:, 0], a[:, 1]
        sin, cos = angle.sin(), angle.cos()
        return torch.column_stack([cos * x - sin * y, sin * x + cos * y, a[:, 2:]]), b

    return _mapped(law, "spiral", turn)


def _mapped(law: Law, label: str, one_to_one: Callable[[Tensor, Tensor], Pair]) -> Law:
    """Return the law of what A and B become; maps that can be undone keep I(A;B)."""
    return Law(f"{law.name}, {label}", law.bits, lambda n, random: one_to_one(*law.draw(n, random)))


def _tensors(a: np.ndarray, b: np.ndarray) -> Pair:
    return torch.from_numpy(a).double(), torch.from_numpy(b).double()


def _require(holds: bool, rule: str, value: float) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {value}")


STANDARD = (
    symmetric(0.1),
    erasure(0.3),
    gaussian(1, 0.75),
    additive(0.75),
    additive(0.1),
    half_cube(gaussian(1, 0.75)),
    independent(5, 5),
    asinh(student(2, 0.5, 2)),
    student(2, 0.5, 2),
    gaussian(5, 0.5),
    spiral(gaussian(3, 0.75), 1.0),
    gaussian(20, correlation_for(4 / math.log(2), 20)),
)
