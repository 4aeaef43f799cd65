"""A mean over some of the samples, where all of them are too many."""

import torch
from torch import Tensor

from ibcore.checks import stream
from ibcore.interface import Estimate


def check_queries(queries: int | None) -> None:
    """Raise ValueError where there are too few queries for a standard error."""
    if queries is not None and queries < 2:
        raise ValueError(f"queries must be at least 2, or None for all samples, got {queries}")


def drawn(queries: int | None, size: int, seed: int, device: torch.device) -> Tensor:
    """Return the indices of the queries in order, drawn without replacement from `size` samples."""
    if queries is None or queries >= size:
        return torch.arange(size, device=device)
    return torch.randperm(size, generator=stream(seed, "queries"))[:queries].sort()[0].to(device)


def mean_of(values: Tensor, size: int) -> Estimate:
    """Return the mean over draws and queries, and its standard error.

    error² = (1 − f) s²/q + f ⟨s_w²⟩/(q r), with the share f = q/size of the samples, s² the
    variance of their means over draws, and s_w² that of each sample's draws.

    Args:
        values: in bits, shape (r draws, q queries).
        size: number of samples that the queries were drawn from.
    Source: Cochran (1977), Sampling Techniques, on two-stage sampling [cochran1977sampling].
    """
    draws, queries = values.shape
    share = queries / size
    variance = (1 - share) * values.mean(0).var() if share < 1 else values.new_zeros(())
    if draws > 1:
        variance = variance + share * values.var(0).mean() / draws
    return Estimate(float(values.mean()), float((variance / queries).sqrt()))
