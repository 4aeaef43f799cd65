"""How many bits of random labels a network can learn by heart, measured."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ibcore.checks import stream
from ibcore.hooks import _evaluation


def memorised_bits(
    make: Callable[[], nn.Module],
    x: Tensor,
    train: Callable[[nn.Module, Tensor, Tensor], Any],
    counts: Sequence[int],
    *,
    classes: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return what networks of one shape memorise of ever more samples with random labels, in bits.

    For each count a new network is trained on as many samples, whose labels are drawn evenly. What
    it holds of them is

    C = N (log V − L) / log 2, L = its mean cross-entropy on them, in nats

    that is all N log₂ V bits while it can, then less: the largest C is the measured capacity. It is
    that of shape and training together: a training that is cut short, or steps too far, finds less.
    Below the count where C stops growing the number only says that the network holds as much.

    Args:
        make: returns an untrained network that answers with logits, (n_samples, classes).
        x: inputs, shape (n_samples, ...), no two alike; the first ones are taken.
        train: called with the network, x and y; it trains until nothing is gained.
        counts: how many samples, each from 1 to n_samples.
        classes: V.
        seed: of the labels.
        progress: whether to draw a progress bar.
    Returns:
        Columns samples, loss (bits a label), bits (C, not below 0), parameters, per_parameter.
    Raises:
        ValueError: counts out of range, fewer than two classes, inputs that agree.
        ArithmeticError: a loss that is not finite.
    Source: Morris et al. (2025) on random data [morris2025memorize].
    """
    counts = sorted({int(count) for count in counts})
    if not counts or not 1 <= counts[0] <= counts[-1] <= len(x):
        raise ValueError(f"counts must lie from 1 to {len(x)}, the samples there are; got {counts}")
    if classes < 2:
        raise ValueError(f"labels need at least two classes, got {classes}")
    used = x[: counts[-1]].flatten(1)
    if len(torch.unique(used, dim=0)) < len(used):
        raise ValueError("some inputs agree: no network can tell their random labels apart")
    y = torch.randint(classes, (counts[-1],), generator=stream(seed, "labels")).to(x.device)
    rows = []
    for count in tqdm(counts, "counts", disable=not progress, leave=False):
        model = make()
        train(model, x[:count], y[:count])
        with _evaluation(model), torch.no_grad():
            loss = float(cross_entropy(model(x[:count]).double(), y[:count])) / math.log(2)
        if not math.isfinite(loss):
            raise ArithmeticError(
                f"the loss of {count} samples is {loss}: a lower learning rate may help"
            )
        parameters = sum(weight.numel() for weight in model.parameters())
        bits = max(count * (math.log2(classes) - loss), 0.0)
        rows.append((count, loss, bits, parameters, bits / parameters))
    return pd.DataFrame(rows, columns=["samples", "loss", "bits", "parameters", "per_parameter"])
