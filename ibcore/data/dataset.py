"""Inputs, labels and a split, with the source they come from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and a split, with the source they come from.

    It is checked as it is made; `from_arrays` makes one of your own data.

    Args:
        name: the name that `load` takes.
        x: inputs, shape (n_samples, ...), any float dtype, finite.
        y: labels, shape (n_samples,), int64, from 0 to n_classes − 1.
        train: indices of the training samples, shape (n_train,), int64, each once.
        test: indices of the held-out samples, shape (n_test,), int64, none of them in `train`.
        classes: what the labels 0, 1, ... stand for.
        source: "original", "own", or the name of the stand-in.
        sha256: hash of x as it was first made, y and edge_index, whatever the split and the dtype;
            see `content_hash`.
        edge_index: edges of a graph over the samples, shape (2, n_edges), int64, or None.
    Raises:
        TypeError: a field that is no tensor.
        ValueError: a dtype, shape or value that doesn't fit; it names the field.
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

    def __post_init__(self) -> None:
        for field in ("x", "y", "train", "test", "edge_index"):
            _check_tensor(field, getattr(self, field))
        if self.x.ndim < 2 or len(self.x) != len(self.y) or not self.x.numel():
            raise ValueError(
                f"x and y must hold the same samples, (n, ...) and (n,): x has shape "
                f"{tuple(self.x.shape)}, y has shape {tuple(self.y.shape)}"
            )
        if not self.x.isfinite().all():
            raise ValueError(f"x has NaN or infinite values in {_bad_rows(self.x)} samples")
        _check_range("y", self.y, len(self.classes), "classes: count them from 0")
        for field in ("train", "test"):
            _check_range(field, getattr(self, field), len(self.x), "samples: give their indices")
        both = torch.cat([self.train, self.test])
        if not len(self.train) or len(both.unique()) < len(both):
            raise ValueError(
                "train needs a sample, and no sample may stand twice in train and test; got "
                f"{len(self.train)} and {len(self.test)} indices of {len(both.unique())} samples"
            )
        if self.edge_index is not None:
            _check_range("edge_index", self.edge_index, len(self.x), "nodes", ndim=2)

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        train: Any = None,
        test: Any = None,
        train_fraction: float = 0.8,
        seed: int = 0,
        name: str = "own",
        edge_index: Any = None,
    ) -> "Dataset":
        """Return your own data as a data set: source "own", hashed as all others are.

        Args:
            x: inputs, shape (n_samples, ...), a tensor or what NumPy takes; whole numbers become
                float32.
            y: labels, shape (n_samples,), whole numbers, truth values or strings: their sorted
                values become `classes`.
            train: indices of the training samples; None draws `train_fraction` of them.
            test: indices of the held-out samples; None takes all that are not in `train`.
            train_fraction: share of the samples to train on, where `train` is None.
            seed: decides that split.
            name: shown in its place.
            edge_index: edges of a graph over the samples, shape (2, n_edges).
        Raises:
            ValueError: see `Dataset` and `split`; `test` without `train`; labels that are floats;
                indices that are none.
        """
        x, edges = _tensor(x), None if edge_index is None else _tensor(edge_index)
        x = x if x.is_floating_point() else x.float()
        labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if labels.shape != x.shape[:1]:
            raise ValueError(f"{len(x)} samples need as many labels, got shape {labels.shape}")
        if labels.dtype.kind not in "biuUO":
            raise ValueError(
                f"labels must be whole numbers or strings, got {labels.dtype}: each value would be "
                "a class of its own; use y.astype(int)"
            )
        classes, codes = np.unique(labels, return_inverse=True)
        everything = torch.arange(len(x))
        if train is None and test is not None:
            raise ValueError("give train too: test alone doesn't say what to train on")
        rows = everything if train is None else _indices("train", train)
        rest = everything[~torch.isin(everything, rows)] if test is None else _indices("test", test)
        y = torch.from_numpy(codes.astype(np.int64))
        names = tuple(str(label) for label in classes)
        found = cls(name, x, y, rows, rest, names, "own", content_hash(x, y, edges), edges)
        return found.split(train_fraction, seed) if train is None else found

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


def content_hash(x: Tensor, y: Tensor, edge_index: Tensor | None = None) -> str:
    """Return the SHA-256 of x, y and the edges: of dtype, shape and bytes of each, in this order.

    Args:
        x: inputs, in the dtype in which they were made.
        y: labels.
        edge_index: edges, or None, which adds nothing.
    """
    found = hashlib.sha256()
    for part in (x, y, edge_index):
        if part is not None:
            known = part.float() if part.dtype == torch.bfloat16 else part  # NumPy has none
            array = known.detach().cpu().contiguous().numpy()
            found.update(f"{array.dtype.newbyteorder('<').str} {array.shape}".encode())
            found.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return found.hexdigest()


def _tensor(values: Sequence[Any] | np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.array(values)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _indices(field: str, values: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    found = _tensor(values)
    if found.numel() and (found.is_floating_point() or found.dtype == torch.bool):
        raise ValueError(f"{field} must hold indices, got {found.dtype}; use mask.nonzero()[0]")
    return found.long()


def _check_tensor(field: str, value: object) -> None:
    if field == "edge_index" and value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{field} must be a tensor, got {type(value).__name__}; "
            "Dataset.from_arrays takes NumPy arrays and lists"
        )
    if (field == "x" and not value.is_floating_point()) or (
        field != "x" and value.dtype != torch.int64
    ):
        wanted = "a float dtype" if field == "x" else "int64"
        raise ValueError(f"{field} must have {wanted}, got {value.dtype}")


def _check_range(field: str, value: Tensor, end: int, what: str, ndim: int = 1) -> None:
    if value.ndim != ndim or (ndim == 2 and len(value) != 2):
        wanted = "(n,)" if ndim == 1 else "(2, n_edges)"
        raise ValueError(f"{field} must have shape {wanted}, got {tuple(value.shape)}")
    if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < end:
        raise ValueError(
            f"{field} runs from {int(value.min())} to {int(value.max())}, but there are {end} "
            f"{what}"
        )


def _bad_rows(x: Tensor) -> str:
    return f"{int((~x.isfinite().flatten(1).all(1)).sum())} of its {len(x)}"
