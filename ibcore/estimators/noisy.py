"""Noise in front of an estimator that has none of its own."""

import inspect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import Variance, check_representation, check_variance, stream, variance_for
from ibcore.interface import Estimator, MutualInformation, apply


@dataclass(frozen=True)
class Noisy:
    """An estimator of the noisy representation T = Z + ε, ε ~ N(0, σ² I), one draw a sample.

    It gives estimators that see only samples the noise that `Pairwise` and `MonteCarlo` assume, so
    that all of them estimate the same quantity.

    Args:
        estimator: takes T in the place of the representation.
        noise_variance: σ², in the squared unit of z; or a policy that reads it off each
            representation.
        seed: of the noise.
    Raises:
        ValueError: σ² is not a positive number, as given or as a policy returns it.
    """

    estimator: Estimator
    noise_variance: Variance = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_variance(self.noise_variance)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the estimator: noise alone reads no inputs."""
        return inspect.signature(self.estimator)

    def __call__(
        self, z: Tensor, y: Tensor, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return the estimator's estimates for T, under its names, in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
            x: inputs of the network, for an estimator that takes them.
        Raises:
            ValueError: what the estimator or the policy raises.
        """
        z = check_representation(z).double()
        variance = variance_for(z, self.noise_variance)
        generator = stream(self.seed, "Noisy")
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
        return apply(self.estimator, z + math.sqrt(variance) * noise, y, x)
