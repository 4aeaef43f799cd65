"""Data sets by name: the original, or a stand-in."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibcore.data import originals, standins
from ibcore.data.dataset import Dataset, content_hash
from ibcore.data.tishby import tishby_inputs, tishby_labels


def load(
    name: str,
    *,
    source: str = "any",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Dataset:
    """Return a data set.

    "tishby": all 4096 inputs of 12 bits. Option: train_fraction = 0.8.
    "cora": 2708 papers with 1433 words and their citations, in the split of 140 and 1000 nodes.
    Option of the stand-in: homophily = 0.81, the share of edges within a class.
    "names": 18 languages × 60 names, chosen by the seed; one-hot letters, (1080, 12, 57). Option:
    train_fraction = 0.8.
    "mnist": images (n, 1, 28, 28) from 0 to 1, chosen by the seed with each class in its share,
    training images first. Options: size = 4000 training images, test_size = 1000.

    Original files are looked for in the folder that IBCORE_DATA names, then in the cache of
    earlier downloads, then at their address, and are checked by their hash.

    Args:
        name: "tishby", "cora", "names" or "mnist".
        source: "original", "stand-in", or "any": the original where it can be had, else the
            stand-in, with a warning.
        seed: decides the split and the choice of samples, and makes the stand-in.
        dtype: float dtype of x.
        options: what the data set takes, as listed above.
    Raises:
        ValueError: an unknown name, source or option; a file that is not the original; a subset
            larger than the data; a split that leaves a class empty.
        FileNotFoundError: IBCORE_DATA names a folder that doesn't exist.
        DataUnavailableError: no original to be had, and source="original".
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}: known are {sorted(_LOADERS)}")
    if source not in ("any", "original", "stand-in"):
        raise ValueError(f"source must be 'any', 'original' or 'stand-in', got {source!r}")
    known = list(inspect.signature(_LOADERS[name]).parameters)[2:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"unknown option {unknown} of data set {name!r}: it takes {known}")
    if source == "any":
        try:
            ds = _LOADERS[name]("original", seed, **options)
        except originals.DataUnavailableError as error:
            warnings.warn(f"a stand-in takes the place of {name}: {error}", stacklevel=2)
            ds = _LOADERS[name]("stand-in", seed, **options)
    else:
        ds = _LOADERS[name](source, seed, **options)
    return replace(ds, x=ds.x.to(dtype))


def _tishby(source: str, seed: int, train_fraction: float = 0.8) -> Dataset:
    if source != "original":
        raise ValueError("tishby needs no stand-in: the original is made from its rule")
    bits = tishby_inputs()
    x, y = torch.from_numpy(bits).float(), torch.from_numpy(tishby_labels(bits))
    return _dataset("tishby", x, y, ("0", "1"), source).split(train_fraction, seed)


def _cora(source: str, seed: int, homophily: float | None = None) -> Dataset:
    if source == "original" and homophily is not None:
        raise ValueError('only the stand-in has a homophily to choose: ask for source="stand-in"')
    if source == "original":
        graph, kind = originals.cora(), source
    else:
        graph = standins.cora(0.81 if homophily is None else homophily, seed)
        kind = "stochastic block model"
    classes = tuple(map(str, range(int(graph["y"].max()) + 1)))
    return _dataset("cora", classes=classes, source=kind, **graph)


def _names(source: str, seed: int, train_fraction: float = 0.8) -> Dataset:
    if source == "original":
        known, kind = originals.names(), source
    else:
        known, kind = standins.names(seed), "letter chains"
    rng = np.random.default_rng(seed)
    chosen = [name for found in known.values() for name in rng.choice(found, 60, replace=False)]
    x, y = originals.one_hot(chosen), torch.arange(len(known)).repeat_interleave(60)
    return _dataset("names", x, y, tuple(known), kind).split(train_fraction, seed)


def _mnist(source: str, seed: int, size: int = 4000, test_size: int = 1000) -> Dataset:
    if source == "original":
        images, kind = originals.mnist(), source
    else:
        images, kind = standins.mnist(seed), "8 × 8 digits"
    rng = np.random.default_rng(seed)
    train = _stratified(images["train_y"], size, rng, f"{kind} training images")
    test = _stratified(images["test_y"], test_size, rng, f"{kind} test images")
    x = np.concatenate([images["train_x"][train], images["test_x"][test]])
    y = np.concatenate([images["train_y"][train], images["test_y"][test]])
    return _dataset(
        "mnist",
        torch.from_numpy(x)[:, None].float() / 255,
        torch.from_numpy(y).long(),
        tuple("0123456789"),
        kind,
        train=torch.arange(size),
        test=torch.arange(size, size + test_size),
    )


def _dataset(
    name: str,
    x: Tensor,
    y: Tensor,
    classes: tuple[str, ...],
    source: str,
    *,
    train: Tensor | None = None,
    test: Tensor | None = None,
    edge_index: Tensor | None = None,
) -> Dataset:
    """Return the data set with its hash; without a split all samples are to train on."""
    train = torch.arange(len(y)) if train is None else train
    test = train[:0] if test is None else test
    sha256 = content_hash(x, y, edge_index)
    return Dataset(name, x, y, train, test, classes, source, sha256, edge_index)


def _stratified(y: np.ndarray, size: int, rng: np.random.Generator, what: str) -> np.ndarray:
    """Return `size` indices in random order, each class in its share to the nearest whole."""
    counts = np.bincount(y)
    if not len(counts) <= size <= len(y):
        raise ValueError(
            f"a subset of {size} of {len(y)} {what} is larger than the data or leaves one of "
            f"{len(counts)} classes empty"
        )
    exact = size * counts / len(y)
    take = np.ones(len(counts), dtype=int)
    while take.sum() < size:  # to the class that lacks most: the largest remainders come last
        take[np.argmax(exact - take)] += 1
    order = rng.permutation(len(y))
    chosen = np.concatenate([order[y[order] == c][:n] for c, n in enumerate(take)])
    return rng.permutation(chosen)


_LOADERS: dict[str, Callable[..., Dataset]] = {
    "tishby": _tishby,
    "cora": _cora,
    "names": _names,
    "mnist": _mnist,
}
