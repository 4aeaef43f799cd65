"""What estimators share: their result, their protocol, and the checks on their input."""

import inspect
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class MutualInformation(NamedTuple):
    """Information of a representation Z about the input X and the label Y, in bits."""

    i_xz: float
    i_zy: float


class Estimate(NamedTuple):
    """Mutual information of two samples in bits, and its standard or numerical error in bits."""

    bits: float
    error: float


class Estimator(Protocol):
    """Anything that maps a representation and its labels to named estimates in bits.

    One that needs the inputs of the network takes them as x, shape (n_samples, ...), too.
    """

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return one `MutualInformation` for each bound or variant, by its name.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        """
        ...


def entropy(counts: Tensor) -> float:
    """Return the plug-in entropy of counts in bits.

    H = log₂ N − Σ n log₂ n / N

    Args:
        counts: how often each value was seen, any shape, non-negative.
    Source: Cover & Thomas (2006), eq. 2.1 [cover2006elements].
    """
    counts = counts[counts > 0].double()
    total = counts.sum()
    return float(total.log2() - (counts * counts.log2()).sum() / total)


def label_entropy(y: Tensor) -> float:
    """Return H(Y) of the labels at hand, in bits; y has shape (n_samples,)."""
    return entropy(torch.unique(y, return_counts=True)[1])


def plug_in(code: Tensor, y: Tensor) -> MutualInformation:
    """Return I(X;T) = H(T) and I(T;Y) = H(T) + H(Y) − H(T,Y) of a discrete T, in bits.

    Every sample counts as its own x, so that T is a function of X.

    Args:
        code: the value of T as a number from 0, shape (n_samples,), int64.
        y: labels, shape (n_samples,), any integer dtype.
    Source: Cover & Thomas (2006), eq. 2.43-2.45 [cover2006elements].
    """
    y = torch.unique(y, return_inverse=True)[1]
    h_t, h_y = entropy(torch.bincount(code)), entropy(torch.bincount(y))
    return MutualInformation(h_t, h_t + h_y - entropy(torch.bincount(code * (y.max() + 1) + y)))


def apply(
    estimator: Callable[..., dict[str, MutualInformation]], z: Tensor, y: Tensor, x: Tensor | None
) -> dict[str, MutualInformation]:
    """Return an estimator's estimates, and give it the inputs x if it takes them."""
    if x is None or "x" not in inspect.signature(estimator).parameters:
        return estimator(z, y)
    return estimator(z, y, x=x)


def check_inputs(x: Tensor | None, estimator: object) -> Tensor:
    """Return x; ValueError where an estimator that needs the network's inputs was given none."""
    if x is None:
        raise ValueError(
            f"{type(estimator).__name__} needs the network's inputs: estimator(z, y, x=ds.x), or "
            "PlaneRecorder(..., x=ds.x)"
        )
    return x


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a generator of random numbers whose stream is that of no other purpose.

    Data that were drawn from torch's generator with the same seed would otherwise be the very
    numbers that an estimator draws as noise.
    """
    return torch.Generator().manual_seed(zlib.crc32(purpose.encode()) * 2**20 + seed)


def check_variance(value: float, source: str = "") -> float:
    """Return the variance of a noise; ValueError where it is no positive number."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"noise_variance must be positive, got {value}{source}")
    return value


def check_samples(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return z as a matrix (n_samples, dim) and y as int64 on the same device.

    Args:
        z: representation, shape (n_samples, ...), any float dtype, finite.
        y: labels, shape (n_samples,), any integer dtype, at least two classes.
    Raises:
        ValueError: a shape, a dtype or a value that no estimate can be made from.
    """
    if z.ndim < 1 or y.shape != z.shape[:1]:
        raise ValueError(
            f"z and y must hold the same samples: z has shape {tuple(z.shape)}, "
            f"y has shape {tuple(y.shape)}; expected (n, ...) and (n,)"
        )
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"labels must be integers, got {y.dtype}; use y.long()")
    z = check_representation(z)
    if (y == y[0]).all():
        raise ValueError(f"all {len(y)} labels are {int(y[0])}: I(Z;Y) needs two classes")
    return z, y.to(z.device, torch.int64)


def check_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two representations of the same samples as matrices (n_samples, dim) on one device.

    Args:
        a: shape (n_samples, ...), any float dtype, finite.
        b: shape (n_samples, ...), any float dtype, finite.
    Raises:
        ValueError: a shape, a dtype or a value that no estimate can be made from.
    """
    if not a.shape[:1] == b.shape[:1]:
        raise ValueError(
            "two representations must hold the same samples, got shapes "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    return check_representation(a), check_representation(b).to(a.device)


def check_representation(z: Tensor) -> Tensor:
    """Return z as a matrix (n_samples, dim).

    Args:
        z: representation, shape (n_samples, ...), any float dtype, finite.
    Raises:
        ValueError: a shape, a dtype or a value that no estimate can be made from.
    """
    if not z.is_floating_point():
        raise ValueError(f"z must have a float dtype, got {z.dtype}; use z.float()")
    if z.ndim < 1 or len(z) < 2:
        raise ValueError(
            f"mutual information needs at least two samples, got {len(z) if z.ndim else 'a number'}"
        )
    if z.numel() == 0:
        raise ValueError(f"z has no values: its shape is {tuple(z.shape)}")
    if not z.isfinite().all():
        bad = int((~z.isfinite().flatten(1).all(1) if z.ndim > 1 else ~z.isfinite()).sum())
        raise ValueError(f"z has NaN or infinite values in {bad} of its {len(z)} samples")
    return z.detach().reshape(len(z), -1)
