"""A shape to begin with, read off the data before any training."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from ibcore.discrete import label_entropy

PER_PARAMETER = 2.0  # bits of labels that a parameter holds
_ROOM = 0.15  # of a layer, that the directions of the answer take


def initial_widths(x: Tensor, y: Tensor, *, layers: int = 2) -> tuple[int, ...]:
    """Return widths of hidden layers to begin with, from inputs and labels alone.

    Two needs are met by the least width that all layers share. The answer needs n_classes − 1
    directions, and they are to take 0.15 of a layer: training wants room. And where the
    labels follow no rule the network has to hold a table of them: N·H(Y) bits, at 2 a parameter of
    a fully connected network. How hard the rule is the data don't say before training; train, and
    let `diagnose` correct the shape.

    Args:
        x: inputs to train on, shape (n_samples, ...).
        y: their labels, shape (n_samples,), from 0.
        layers: how many are hidden.
    Raises:
        ValueError: no layer, labels that are not one a sample, or of one class.
    Source: this study; two bits a parameter: MacKay (2003), chapter 40 [mackay2003information].
    """
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    if y.shape != x.shape[:1] or y.is_floating_point() or len(torch.unique(y)) < 2:
        raise ValueError(
            f"{len(x)} samples need as many labels of two classes or more, got shape "
            f"{tuple(y.shape)} of {y.dtype}"
        )
    inputs, classes, table = x[0].numel(), int(y.max()) + 1, len(y) * label_entropy(y)

    def held(width: int) -> float:
        sizes = [inputs, *[width] * layers, classes]
        return PER_PARAMETER * sum((a + 1) * b for a, b in pairwise(sizes))

    width = max(1, math.ceil((classes - 1) / _ROOM))
    while held(width) < table:
        width += 1
    return (width,) * layers
