"""Mean and variance of a stream of gradients, and their norms."""

import torch
from torch import Tensor


class RunningMoments:
    """Mean and variance of a stream of tensors in one pass, element by element.

    Source: Welford (1962) [welford1962note].
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def update(self, value: Tensor) -> None:
        """Take in one more tensor, of the same shape as those before."""
        value = value.detach().double()
        self.count += 1
        delta = value - self.mean.to(value.device)
        self.mean = self.mean.to(value.device) + delta / self.count
        self._squares = self._squares.to(value.device) + delta * (value - self.mean)

    @property
    def variance(self) -> Tensor:
        """Mean squared distance from the mean (divided by the count, as in eq. 3.8)."""
        return self._squares / max(self.count, 1)


def norms(moments: RunningMoments, weight: Tensor, dims: int = 0) -> dict[str, Tensor]:
    """Return ‖mean gradient‖₂, ‖deviation of the gradient‖₂ and ‖W‖₂.

    Args:
        moments: the gradient's moments over the batches of an epoch.
        weight: the weight at the epoch's end, of the gradient's shape.
        dims: leading dimensions to keep, as of an ensemble; the norm runs over the others.
    Source: the thesis, eq. 3.7-3.9 [landsverk2021inductive].
    """
    weight = weight.detach().double()

    def norm(value: Tensor) -> Tensor:
        return value.expand_as(weight).flatten(dims).square().sum(-1).sqrt()

    return {
        "mean_norm": norm(moments.mean),
        "deviation_norm": norm(moments.variance.sqrt()),
        "weight_norm": norm(weight),
    }
