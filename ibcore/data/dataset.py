"""Inputs, labels and a split, with the source they come from."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
