"""Data sets: the 12-bit data, regenerated from its rule."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

# Vertices of an icosahedron: the five neighbours of each, and the vertex opposite.
_NEIGHBOURS = (
    (1, 3, 5, 10, 11), (0, 2, 3, 4, 11), (1, 3, 4, 8, 9), (0, 1, 2, 8, 10),
    (1, 2, 6, 9, 11), (0, 6, 7, 10, 11), (4, 5, 7, 9, 11), (5, 6, 8, 9, 10),
    (2, 3, 7, 9, 10), (2, 4, 6, 7, 8), (0, 3, 5, 7, 8), (0, 1, 4, 5, 6),
)  # fmt: skip
_ANTIPODES = (9, 7, 5, 6, 10, 2, 3, 1, 11, 0, 4, 8)


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and a split, with the source they come from.

    Args:
        name: the name that `load` takes.
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,), int64.
        train: indices of the training samples, shape (n_train,), int64.
        test: indices of the held-out samples, shape (n_test,), int64.
        classes: what the labels 0, 1, ... stand for.
        source: "original", or the name of the stand-in.
        sha256: hash of what the data was made from.
        edge_index: edges of a graph over the samples, shape (2, n_edges), or None.
    """

    name: str
    x: Tensor
    y: Tensor
    train: Tensor
    test: Tensor
    classes: tuple[str, ...]
    source: str
    sha256: str
    edge_index: Tensor | None = None

    def split(self, train_fraction: float, seed: int = 0) -> "Dataset":
        """Return the same samples with a new shuffled split.

        Args:
            train_fraction: share of the samples to train on, between 0 and 1.
            seed: decides which samples; the same seed gives the same split.
        Raises:
            ValueError: a share that leaves a class without training samples.
        """
        n_train = round(train_fraction * len(self.y)) if 0 < train_fraction < 1 else 0
        if not 0 < n_train < len(self.y):
            raise ValueError(
                f"train_fraction={train_fraction} of {len(self.y)} samples leaves nothing to "
                "train on or to test on; give a share between 0 and 1"
            )
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))
        train, test = order[:n_train], order[n_train:]
        missing = sorted(set(self.y.tolist()) - set(self.y[train].tolist()))
        if missing:
            raise ValueError(
                f"train_fraction={train_fraction} with seed={seed} leaves no training sample "
                f"of class {missing}; train on more samples or take another seed"
            )
        return replace(self, train=train, test=test)


def load(
    name: str,
    *,
    train_fraction: float = 0.8,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Dataset:
    """Return a data set with a shuffled split.

    Args:
        name: "tishby", the 4096 inputs of 12 bits.
        train_fraction: share of the samples to train on, between 0 and 1.
        seed: decides the split.
        dtype: float dtype of x.
    Raises:
        ValueError: an unknown name, or a split that leaves a class empty.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}: known are {sorted(_LOADERS)}")
    return _LOADERS[name](dtype).split(train_fraction, seed)


def _tishby(dtype: torch.dtype) -> Dataset:
    bits = tishby_inputs()
    labels = tishby_labels(bits)
    everything = torch.arange(len(labels))
    return Dataset(
        name="tishby",
        x=torch.from_numpy(bits).to(dtype),
        y=torch.from_numpy(labels),
        train=everything,
        test=everything[:0],
        classes=("0", "1"),
        source="original",
        sha256=hashlib.sha256(np.packbits(labels.astype(bool)).tobytes()).hexdigest(),
    )


def tishby_inputs() -> np.ndarray:
    """Return the numbers 0 to 4095 in 12 bits, highest bit first, shape (4096, 12), int64."""
    return np.arange(4096)[:, None] >> np.arange(11, -1, -1) & 1


def tishby_labels(bits: np.ndarray) -> np.ndarray:
    """Return the label of each 12-bit input, shape (n,), int64.

    y = 1 ⇔ 23 n + a − 5 b − 8 c > 98, where the bits are occupied vertices of an icosahedron:
    n of them, a pairs of neighbours, b of second neighbours, c of antipodes.

    Args:
        bits: zeros and ones, shape (n, 12).
    Source: the rotation-invariant rule of Shwartz-Ziv & Tishby (2017) [shwartz2017opening];
        this form gives the labels of their file `var_u.mat` bit for bit.
    """
    near, opposite = np.zeros((2, 12, 12), dtype=np.int64)
    for vertex, neighbours in enumerate(_NEIGHBOURS):
        near[vertex, neighbours] = 1
        opposite[vertex, _ANTIPODES[vertex]] = 1
    second = 1 - near - opposite - np.eye(12, dtype=np.int64)
    occupied = bits.sum(1)
    a, b, c = (((bits @ pairs) * bits).sum(1) // 2 for pairs in (near, second, opposite))
    occupied_enough: np.ndarray = 23 * occupied + a - 5 * b - 8 * c > 98
    return occupied_enough.astype(np.int64)


_LOADERS = {"tishby": _tishby}
