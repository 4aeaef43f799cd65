"""The truth to compare with for a noisy layer, by sampling the noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibcore.checks import (
    Variance,
    check_representation,
    check_samples,
    check_variance,
    stream,
    variance_for,
)
from ibcore.interface import Estimate, MutualInformation

_BLOCK = 1024  # rows of distances at once
_MARGINAL = 4  # paths through a noisy network, of each sample, that make up p(t)


@dataclass(frozen=True)
class MonteCarlo:
    """Information of the noisy representation T = Z + ε, ε ~ N(0, σ² I), by sampling the noise.

    I(X;T) = ⟨log₂ p(t|x) / p(t)⟩, p(t|xᵢ) = N(t; zᵢ, σ² I), p(t) = (1/N) Σⱼ p(t|xⱼ), and
    I(T;Y) = ⟨log₂ p(t|y) / p(t)⟩: the mean over samples of X and draws of ε, without bias. X is
    uniform over the samples at hand. It lies between the bounds BD and KL of `Pairwise`, and
    0 ≤ I(X;T) ≤ log₂ N. Time: O(draws N² d). Memory: O(N (d + 1024)).

    Args:
        noise_variance: σ², in the squared unit of z; or a policy that reads it off each
            representation, see `ibcore.estimators.noise`.
        draws: of the noise for each sample, at least 2, from which the standard error is read.
        seed: of the draws.
    Raises:
        ValueError: σ² that is not positive, as given or as a policy returns it; fewer than 2 draws.
    Source: Goldfeld et al. (2019), section 4 [goldfeld2019estimating].
    """

    noise_variance: Variance = 0.1
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_variance(self.noise_variance)
        if self.draws < 2:
            raise ValueError(f"a standard error needs at least 2 draws, got {self.draws}")

    def __call__(self, z: Tensor, y: Tensor) -> dict[str, MutualInformation]:
        """Return {"MonteCarlo": information} in bits.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: input that no estimate can be made from; see `check_samples`.
        """
        x, y_ = self.estimates(z, y)
        return {"MonteCarlo": MutualInformation(x.bits, y_.bits, x.error, y_.error)}

    def estimates(self, z: Tensor, y: Tensor) -> tuple[Estimate, Estimate]:
        """Return I(X;T) and I(T;Y), each in bits with its standard error; see `__call__`."""
        z, y = check_samples(z, y)
        variance = variance_for(z, self.noise_variance)
        z = z.double() - z.double().mean(0)
        generator = stream(self.seed, "MonteCarlo")
        terms = [
            _log_ratios(_add_noise(z, variance, generator), z[None], y, variance)
            for _ in range(self.draws)
        ]
        return _stratified([x for x, _ in terms]), _stratified([y for _, y in terms])

    def propagated(self, paths: Tensor, y: Tensor) -> tuple[Estimate, Estimate]:
        """Return I(X;T) and I(T;Y) of a layer behind noisy ones: T = f(T') + ε, T' noisy itself.

        p(t|xᵢ) is the mean of N(t; s, σ² I) over the other paths s of xᵢ, so that I(X;T) is biased
        low where the paths are few or far apart in units of σ; p(t) is that over a few paths of all
        samples. With injected noise the layers form a Markov chain, and the truth obeys the
        data-processing inequality. Time: O(draws N (N + n_paths) d).

        Args:
            paths: f(T') before this layer's noise, shape (n_paths, n_samples, ...): a row a pass
                of the same inputs through the noisy network, see `Intervention`. At least 3.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: fewer than three paths, a policy in place of σ², or see `check_samples`.
        Source: Goldfeld et al. (2019), section 4 [goldfeld2019estimating].
        """
        if paths.ndim < 2 or len(paths) < 3:
            raise ValueError(f"paths must be (n_paths ≥ 3, n_samples, ...), got {paths.shape}")
        if callable(self.noise_variance):
            raise ValueError("noise that is injected has one σ²: give a number, no policy")
        y = check_samples(paths[0], y)[1]
        s = torch.stack([check_representation(path).double() for path in paths])
        s = s - s.mean((0, 1))
        generator = stream(self.seed, "MonteCarlo")
        terms = []
        for number in range(min(self.draws, len(s))):
            t = _add_noise(s[number], self.noise_variance, generator)
            others = torch.cat([s[:number], s[number + 1 :]])
            terms.append(_log_ratios(t, others, y, self.noise_variance, others[:_MARGINAL]))
        return _stratified([x for x, _ in terms]), _stratified([y for _, y in terms])


def _add_noise(z: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    return z + math.sqrt(variance) * noise.to(z.device)


def _stratified(draws: list[Tensor]) -> Estimate:
    """Return mean and standard error, where each sample has as many draws as any other."""
    values = torch.stack(draws)
    error = (values.var(0).sum() / len(values)).sqrt() / values.shape[1]
    return Estimate(float(values.mean()), float(error))


def _log_ratios(
    t: Tensor, components: Tensor, y: Tensor, variance: float, marginal: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return log₂ p(tᵢ|xᵢ)/p(tᵢ) and log₂ p(tᵢ|yᵢ)/p(tᵢ), each (n_samples,).

    Args:
        t: one draw a sample, (n_samples, dim).
        components: centres of the Gaussians of p(t|xᵢ), (n_components, n_samples, dim).
        y: labels from check_samples, (n_samples,).
        variance: σ².
        marginal: those of p(t) and p(t|y), of the same form; None takes the same.
    """
    marginal = components if marginal is None else marginal
    y = torch.unique(y, return_inverse=True)[1]
    member = torch.nn.functional.one_hot(y).double()
    own = torch.stack([(t - z).square().sum(1) for z in components]).div_(-2 * variance)
    # Densities are taken relative to the largest of one's own, which exp() could lose.
    base = own.max(0).values
    sums = torch.zeros_like(member)
    for rows in torch.arange(len(t), device=t.device).split(_BLOCK):
        for z in marginal:
            squares = torch.cdist(t[rows], z).square_()
            sums[rows] += squares.div_(-2 * variance).sub_(base[rows, None]).exp_() @ member
    sums /= len(marginal)
    total = (sums.sum(1) / len(t)).log2()
    given_y = (sums.gather(1, y[:, None])[:, 0] / torch.bincount(y)[y]).log2()
    return (own - base).exp().mean(0).log2() - total, given_y - total
