"""Entropy and information of discrete values, and what makes values discrete."""

import math

import torch
from torch import Tensor

from ibcore.interface import MutualInformation


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
    i_zy = h_t + h_y - entropy(torch.bincount(code * (y.max() + 1) + y))
    return MutualInformation(h_t, i_zy, ceiling=math.log2(len(y)))


def quantise(z: Tensor, bits: int, low: float | None = None, high: float | None = None) -> Tensor:
    """Return each value rounded to the nearest of 2^bits evenly spaced levels.

    Args:
        z: activations, any shape, any float dtype.
        bits: b, from 1 to 16.
        low: lowest level, in the unit of z; None takes the smallest value. Values below go there.
        high: highest level; None takes the largest value.
    Raises:
        ValueError: bits out of range, limits that are not finite, or so near that
            there are no such levels.
    Source: Lorenzen, Igel & Nielsen (2022), section 3 [lorenzen2022information].
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must lie from 1 to 16, got {bits}")
    low = float(z.min()) if low is None else low
    high = float(z.max()) if high is None else high
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"levels need finite limits low ≤ high, got {low} and {high}")
    kind = torch.finfo(z.dtype)
    half = 0.5 if high / 2 - low / 2 > kind.max / 2 else 1.0  # or z − low would be infinite
    step = (half * high - half * low) / (2**bits - 1)
    if step < kind.smallest_normal * kind.eps and low < high:
        raise ValueError(f"no {2**bits} levels of {z.dtype} lie between {low} and {high}")
    steps = ((half * z.clamp(low, high) - half * low) / (step or 1.0)).round()
    levels: Tensor = (half * low + steps * step) / half
    return levels
