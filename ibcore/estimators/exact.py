"""The truth to compare with for layers of few values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import check_samples
from ibcore.discrete import plug_in
from ibcore.interface import MutualInformation


@dataclass(frozen=True)
class Exact:
    """Information of a representation as it is: I(X;T) = H(T), I(T;Y) = H(T) + H(Y) − H(T,Y).

    Exact where the samples are all inputs there are, each as likely as any other, and T takes the
    values at hand. A network computes in floating point, so that this T keeps nearly all inputs
    apart; `quantise` gives it few values. It can't pass log₂ N.

    Source: Lorenzen, Igel & Nielsen (2022) [lorenzen2022information].
    """

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return {"Exact": information} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: input that no estimate can be made from; see `check_samples`.
        """
        z, y = check_samples(z, y)
        return {"Exact": plug_in(torch.unique(z, dim=0, return_inverse=True)[1], y)}
