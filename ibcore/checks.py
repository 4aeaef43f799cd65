"""Checks on what estimators are given, and their streams of random numbers."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a generator of random numbers whose stream is that of no other purpose.

    Data that were drawn from torch's generator with the same seed would otherwise be the very
    numbers that an estimator draws as noise.
    """
    return torch.Generator().manual_seed(zlib.crc32(purpose.encode()) * 2**20 + seed)


Variance = float | Callable[[Tensor], float]  # σ², or a policy that reads it off a representation


def check_variance(value: Variance, source: str = "") -> None:
    """Raise ValueError where the variance of a noise is neither a policy nor a positive number."""
    if not callable(value) and not 0 < value < math.inf:
        raise ValueError(f"noise_variance must be positive, got {value}{source}")


def variance_for(z: Tensor, noise_variance: Variance) -> float:
    """Return σ² for a representation: the number, or what the policy reads off it.

    Raises:
        ValueError: the policy returns no positive number.
    """
    if not callable(noise_variance):
        return noise_variance
    found = noise_variance(z)
    check_variance(found, f" from {noise_variance}")
    return found


def as_tensor(value: Any, name: str) -> Tensor:
    """Return a tensor as it is, and the numbers of an array or a list as a tensor.

    Raises:
        ValueError: what it holds are no numbers.
    """
    if isinstance(value, Tensor):
        return value
    try:
        return torch.from_numpy(np.array(value))  # a copy: arrays may be read-only
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a tensor, or an array of numbers, got {type(value).__name__}: "
            f"{error}; np.unique(names, return_inverse=True)[1] gives numbers for names"
        ) from error


def check_samples(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return z as a matrix (n_samples, dim) and y as int64 on the same device.

    Args:
        z: representation, shape (n_samples, ...), any float dtype, finite.
        y: labels, shape (n_samples,), any integer dtype, at least two classes.
    Raises:
        ValueError: a shape, a dtype or a value that no estimate can be made from.
    """
    z, y = as_tensor(z, "z"), as_tensor(y, "y")
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
    a, b = as_tensor(a, "a representation"), as_tensor(b, "a representation")
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
    z = as_tensor(z, "z")
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


def check_inputs(x: Tensor | None, estimator: object) -> Tensor:
    """Return x; ValueError where an estimator that needs the network's inputs was given none."""
    if x is None:
        raise ValueError(
            f"{type(estimator).__name__} needs the network's inputs: estimator(z, y, x=ds.x), or "
            "PlaneRecorder(..., x=ds.x)"
        )
    return as_tensor(x, "x")
