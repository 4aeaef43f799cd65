"""The plug-in estimate on bins that follow the layer's own values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import check_samples
from ibcore.estimators.exact import Exact
from ibcore.interface import MutualInformation


@dataclass(frozen=True)
class AdaptiveBinning:
    """Plug-in information of a layer binned so that each bin holds as many of its values.

    The edges are quantiles of the distinct values that the layer takes, over all units and samples.
    So no growing monotone map of the whole layer moves the estimate, and its scale is no choice;
    the number of bins is. It can't pass log₂ N.

    Args:
        bins: number of bins a unit.
    Raises:
        ValueError: fewer than two bins.
    Source: the entropy-based binning of Chelombiev, Houghton & O'Donnell (2019), section 2
        [chelombiev2019adaptive].
    """

    bins: int = 30

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins must be at least 2, got {self.bins}")

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return {"AdaptiveBinning": estimate} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: input that no estimate can be made from; see `check_samples`.
        """
        z, y = check_samples(z, y)
        values = torch.unique(z)
        places = torch.arange(1, self.bins, device=z.device) * len(values) // self.bins
        found = torch.bucketize(z.contiguous(), values[places].unique(), right=True)
        return {"AdaptiveBinning": Exact()(found.to(z.dtype), y)["Exact"]}
