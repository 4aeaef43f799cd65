"""Gaussian kernels of samples, and their products, tile by tile."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ibcore.estimators.distances import SquaredDistances, in_threads, squared_distances, tiles

_TOLERANCE = 1e-9  # nats: the rounding error of an exponent that we accept


def _products(
    samples: Sequence[Tensor], widths: Sequence[float], terms: list[list[int]], dtype: torch.dtype
) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Yield for each tile of the samples (rows i, rows j, its part of the kernel of each term).

    Args:
        samples: representations (n_samples, dim), and labels (n_samples,).
        widths: w² of each, without meaning for labels.
        terms: which samples' kernels to multiply; a label never comes first.
        dtype: of the kernels.
    """
    dense = [k for k, sample in enumerate(samples) if sample.is_floating_point()]
    distances = [squared_distances(samples[k], 2 * widths[k] * _TOLERANCE) for k in dense]
    for parts in zip(*distances, strict=True):
        i, j, _ = parts[0]
        kernel = {
            k: tile.to(dtype).mul_(-1 / (2 * widths[k])).exp_()
            for k, (_, _, tile) in zip(dense, parts, strict=True)
        }
        products = []
        for first, *others in terms:
            product = kernel[first]
            for k in others:
                y = samples[k]
                product = (
                    product * kernel[k]
                    if k in kernel
                    else torch.where(y[i, None] == y[j], product, 0.0)
                )
            products.append(product)
        yield i, j, products


def collisions(
    samples: Sequence[Tensor], widths: Sequence[float], terms: list[list[int]]
) -> list[float]:
    """Return tr A² = Σᵢⱼ K(i,j)² / N² of each term; K² is the kernel of half the w²."""
    n = len(samples[0])
    own = torch.arange(n, device=samples[0].device)
    squares, members = {}, {}
    for k, sample in enumerate(samples):
        if sample.is_floating_point():
            squares[k] = SquaredDistances(sample, sample, own, widths[k] * _TOLERANCE)
        else:
            members[k] = one_hot(sample).double().T.contiguous()

    def sums(i: slice, j: slice) -> list[float]:
        kernel = {k: tile(i, j).mul_(-1 / widths[k]).exp_() for k, tile in squares.items()}
        found = []
        for first, *others in terms:
            tile = kernel[first]
            if not others:
                found.append(float(tile.sum()))
            elif (k := others[0]) in kernel:
                found.append(float(tile.flatten() @ kernel[k].flatten()))
            else:  # Σ over pairs of one label; with few classes as rows the product is fast
                found.append(float((members[k][:, i] @ tile).mul_(members[k][:, j]).sum()))
        return found

    totals = [0.0 for _ in terms]
    for (i, j), found in in_threads(sums, tiles(n, n, upper=True)):
        for k, part in enumerate(found):
            totals[k] += part if i == j else 2 * part
    return [total / n**2 for total in totals]


def kernels_of(
    samples: Sequence[Tensor], widths: Sequence[float], terms: list[list[int]], dtype: torch.dtype
) -> list[Tensor]:
    """Return the kernel matrix of each term, (n_samples, n_samples)."""
    shape = len(samples[0]), len(samples[0])
    kernels = [torch.empty(shape, dtype=dtype, device=samples[0].device) for _ in terms]
    for i, j, products in _products(samples, widths, terms, dtype):
        for kernel, tile in zip(kernels, products, strict=True):
            kernel[i, j] = tile
            kernel[j, i] = tile.T.contiguous()  # in two steps, of which each is fast
    return kernels
