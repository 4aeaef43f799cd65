"""What estimators share: their result, their protocol, and the checks on their input."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class MutualInformation(NamedTuple):
    """Information of a representation Z about the input X and the label Y, in bits."""

    i_xz: float
    i_zy: float


class Estimator(Protocol):
    """Anything that maps a representation and its labels to named estimates in bits."""

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
