"""The plug-in estimate on binned activations."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import check_samples
from ibcore.discrete import plug_in
from ibcore.interface import MutualInformation

_WHOLE = 2.0**53  # from here on not every whole number is a float64


@dataclass(frozen=True)
class Binning:
    """Plug-in information of the binned representation T: I(X;T) = H(T), I(T;Y) = H(T) − H(T|Y).

    Every sample counts as its own x, so that T is a function of X. Exact for the binned T on the
    samples at hand; as an estimate for Z it depends on the bins, and can't pass log₂ N.

    Args:
        edges: number of evenly spaced bin edges from low to high, both included.
        low: lowest edge, in the unit of z.
        high: highest edge, in the unit of z.
        width: bins ⌊z / width⌋ instead, without limits; edges, low and high are not used then.
    Raises:
        ValueError: fewer than two edges, low not below high, limits without a finite span, or
            a width that is not positive.
    Source: Shwartz-Ziv & Tishby (2017), 30 edges on [−1, 1]; Saxe et al. (2018), width 0.07
        [shwartz2017opening, saxe2018information].
    """

    edges: int = 30
    low: float = -1.0
    high: float = 1.0
    width: float | None = None

    def __post_init__(self) -> None:
        if self.width is not None and not (self.width > 0 and math.isfinite(self.width)):
            raise ValueError(f"width must be positive, got {self.width}")
        if self.edges < 2 or not 0 < self.high - self.low < math.inf:
            raise ValueError(
                f"bins need two edges and low < high, got edges={self.edges}, "
                f"low={self.low}, high={self.high}"
            )

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return {"Binning": estimate} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: values outside [low, high]; or see `check_samples`.
        """
        z, y = check_samples(z, y)
        codes = self._codes(z)
        counts = torch.bincount(codes)
        alone = float((counts == 1).sum() / (counts > 0).sum())
        return {"Binning": plug_in(codes, y)._replace(singleton_share=alone)}

    def _codes(self, z: Tensor) -> Tensor:
        """Return a number in 0..n_samples−1 for each sample, the same where the bins are."""
        bins = self._bins(z)
        if float(bins.max() - bins.min()) > len(z):
            bins = torch.unique(bins, return_inverse=True)[1]
        bins = (bins - bins.min()).long()
        base = int(bins.max()) + 1
        # As many columns as fit into an int64 beside a code below n_samples are packed at once.
        step = max(1, int((62 - math.log2(len(z))) // max(1.0, math.log2(base))))
        code = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        for columns in bins.split(step, dim=1):
            for column in columns.unbind(1):
                code = code * base + column
            code = torch.unique(code, return_inverse=True)[1]
        return code

    def _sparse_bins(self, z: Tensor) -> Tensor:
        """Return bins, numbered in order, where z / width passes the whole numbers of float64.

        There floats of different value lie a width apart or more, so that each has its own bin.
        """
        values, place = torch.unique(z.double(), return_inverse=True)
        steps = values / self.width
        apart = (steps.floor().diff() != 0) | (steps[1:].abs() >= _WHOLE)
        return torch.nn.functional.pad(apart.cumsum(0), (1, 0))[place].double()

    def _bins(self, z: Tensor) -> Tensor:
        if self.width is not None:
            bins = (z.double() / self.width).floor_()
            return bins if float(bins.abs().max()) < _WHOLE else self._sparse_bins(z)
        if z.min() < self.low or z.max() > self.high:
            raise ValueError(
                f"z runs from {float(z.min()):.3g} to {float(z.max()):.3g}, outside the bins "
                f"[{self.low}, {self.high}]; give other limits, or a width"
            )
        edges = torch.linspace(
            self.low, self.high, self.edges, dtype=torch.float64, device=z.device
        )
        return torch.bucketize(z.double().contiguous(), edges, right=True)
