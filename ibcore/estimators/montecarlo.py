"""The truth to compare with for a noisy layer, by sampling the noise."""

import math
from collections.abc import Sequence
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
from ibcore.estimators.distances import SquaredDistances, in_threads, tiles
from ibcore.estimators.queries import check_queries, drawn, mean_of
from ibcore.interface import Estimate, MutualInformation

_TOLERANCE = 1e-6  # nats: the rounding error of an exponent that we accept
_MARGINAL = 4  # paths through a noisy network, of each sample, that make up p(t)
_MARGIN, _SLACK = 4, 1e-6  # standard errors, and bits of rounding, that may lie below 0


@dataclass(frozen=True)
class MonteCarlo:
    """Information of the noisy representation T = Z + ε, ε ~ N(0, σ² I), by sampling the noise.

    I(X;T) = ⟨log₂ p(t|x) / p(t)⟩, p(t|xᵢ) = N(t; zᵢ, σ² I), p(t) = (1/N) Σⱼ p(t|xⱼ), and
    I(T;Y) = ⟨log₂ p(t|y) / p(t)⟩: the mean over samples of X and draws of ε, without bias. X is
    uniform over the samples at hand. It lies between the bounds BD and KL of `Pairwise`, and
    I(X;T) ≤ log₂ N and I(T;Y) ≤ H(Y). Time: O(draws N² d). Memory: O(N (d + n_classes)).

    With `queries` the mean runs over that many samples, drawn without replacement, and p(t) over
    all N: the ceiling stays log₂ N, and time falls to O(draws n_queries N d). What the drawing
    costs, of queries without regard to their class, is part of the error.

    Args:
        noise_variance: σ², in the squared unit of z; or a policy that reads it off each
            representation, see `ibcore.estimators.noise`.
        draws: of the noise for each sample, at least 2, from which the standard error is read.
        seed: of the draws, and of the queries.
        queries: samples that the mean is taken over, at least 2; None or N takes all.
    Raises:
        ValueError: σ² that is not positive, as given or as a policy returns it; fewer than 2 draws
            or queries.
    Source: Goldfeld et al. (2019), section 4 [goldfeld2019estimating].
    """

    noise_variance: Variance = 0.1
    draws: int = 4
    seed: int = 0
    queries: int | None = None

    def __post_init__(self) -> None:
        check_variance(self.noise_variance)
        check_queries(self.queries)
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
        x, label = self.estimates(z, y)
        most = math.log2(len(z))
        found = MutualInformation(x.bits, label.bits, x.error, label.error, most)
        return {"MonteCarlo": found}

    def estimates(self, z: Tensor, y: Tensor) -> tuple[Estimate, Estimate]:
        """Return I(X;T) and I(T;Y), each in bits with its standard error; see `__call__`."""
        z, y = check_samples(z, y)
        variance = variance_for(z, self.noise_variance)
        rows = drawn(self.queries, len(z), self.seed, z.device)
        generator = stream(self.seed, "MonteCarlo")
        terms = []
        for _ in range(self.draws):
            noise = _noise((len(rows), z.shape[1]), variance, generator).to(z.device)
            terms.append(_log_ratios(z[rows], noise, [z], y, variance, rows))
        return mean_of(torch.stack([x for x, _ in terms]), len(z)), mean_of(
            torch.stack([y for _, y in terms]), len(z)
        )

    def propagated(self, paths: Tensor, y: Tensor) -> tuple[Estimate, Estimate]:
        """Return I(X;T) and I(T;Y) of a layer behind noisy ones: T = f(T') + ε, T' noisy itself.

        p(t|xᵢ) is the mean of N(t; s, σ² I) over the other paths s of xᵢ, so that I(X;T) is biased
        low where the paths are few or far apart in units of σ; its error holds what half of them
        would change, which is about that bias. p(t) is the mean over a few paths of all samples.
        With injected noise the layers form a Markov chain, and the truth obeys the
        data-processing inequality. Time: O(draws N (N + n_paths) d).

        Args:
            paths: f(T') before this layer's noise, shape (n_paths, n_samples, ...): a row a pass
                of the same inputs through the noisy network, see `Intervention`. At least 3. All
                samples are queries.
            y: labels, shape (n_samples,), any integer dtype.
        Raises:
            ValueError: fewer than three paths, or so few that p(t|x) can't be told from them; a
                policy in place of σ²; or see `check_samples`.
        Source: Goldfeld et al. (2019), section 4 [goldfeld2019estimating].
        """
        if paths.ndim < 2 or len(paths) < 3:
            raise ValueError(f"paths must be (n_paths ≥ 3, n_samples, ...), got {paths.shape}")
        if callable(self.noise_variance):
            raise ValueError("noise that is injected has one σ²: give a number, no policy")
        y = check_samples(paths[0], y)[1]
        s = torch.stack([check_representation(path) for path in paths])
        rows = torch.arange(s.shape[1], device=s.device)
        generator = stream(self.seed, "MonteCarlo")
        terms, halved = [], []
        for number in range(min(self.draws, len(s))):
            noise = _noise(s[number].shape, self.noise_variance, generator).to(s.device)
            others = torch.cat([s[:number], s[number + 1 :]])
            own = _own_exponents(s[number], noise, others, self.noise_variance)
            marginal = list(others[:_MARGINAL])
            ratios = _log_ratios(s[number], noise, marginal, y, self.noise_variance, rows, own)
            terms.append(ratios)
            fewer = _own_exponents(s[number], noise, others[::2], self.noise_variance)
            halved.append(_reweighted(ratios[0], fewer - own))
        x, label = (mean_of(torch.stack(bits), s.shape[1]) for bits in zip(*terms, strict=True))
        _check_possible(x, label, len(paths))
        shift = x.bits - float(torch.stack(halved).mean())
        return x._replace(error=math.hypot(x.error, shift)), label


def _reweighted(bits: Tensor, log_factor: Tensor) -> Tensor:
    """Return log₂ p(tᵢ|xᵢ)/p(tᵢ), (n_samples,), where each p(tᵢ|xᵢ) is multiplied by a factor."""
    others = (len(bits) * (-math.log(2) * bits).exp() - 1).clamp(min=0)  # in units of p(tᵢ|xᵢ)
    total = torch.nn.functional.softplus(others.log() - log_factor)
    return (math.log(len(bits)) - total) / math.log(2)


def _check_possible(x: Estimate, label: Estimate, count: int) -> None:
    """Raise ValueError where too few paths gave information that is negative or not finite."""
    for name, found in (("I(X;T)", x), ("I(T;Y)", label)):
        if not found.bits >= -_MARGIN * found.error - _SLACK or math.isinf(found.bits):
            raise ValueError(
                f"{name} of {count} paths came out as {found.bits:.3g} ± {found.error:.2g} bits: "
                "the paths of a sample lie so far apart, in units of σ, that its p(t|x) can't be "
                "told from them; take more paths, or more noise"
            )


def _noise(
    shape: torch.Size | tuple[int, int], variance: float, generator: torch.Generator
) -> Tensor:
    return math.sqrt(variance) * torch.randn(shape, generator=generator, dtype=torch.float64)


def _own_exponents(s: Tensor, noise: Tensor, paths: Tensor, variance: float) -> Tensor:
    """Return ln of the mean over paths of N(sᵢ + εᵢ; path, σ² I) / N(εᵢ; 0, σ² I), (n_samples,)."""
    apart = (s.double() - path.double() for path in paths)
    exponents = [(a * (a + 2 * noise)).sum(1) / (-2 * variance) for a in apart]
    return torch.stack(exponents).logsumexp(0) - math.log(len(paths))


def _log_ratios(
    s: Tensor,
    noise: Tensor,
    marginal: Sequence[Tensor],
    y: Tensor,
    variance: float,
    rows: Tensor,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return log₂ p(tᵢ|xᵢ)/p(tᵢ) and log₂ p(tᵢ|yᵢ)/p(tᵢ) of t = s + ε, each (n_rows,).

    p(tᵢ|xᵢ) is part of p(tᵢ) as it is, so that neither can pass its ceiling.

    Args:
        s: centre of each draw, (n_rows, dim).
        noise: ε, (n_rows, dim).
        marginal: centres of the Gaussians of p(t), each (n_samples, dim).
        y: labels from check_samples, (n_samples,).
        variance: σ².
        rows: the sample of each row, (n_rows,).
        own: ln p(t|x) / N(ε; 0, σ² I) of each row; None where s is the one centre, and it is 0.
    """
    y = torch.unique(y, return_inverse=True)[1]
    size = torch.bincount(y)
    own = torch.zeros(len(rows), dtype=torch.float64, device=s.device) if own is None else own
    classes = torch.arange(len(size), device=s.device)[:, None]
    sums = torch.zeros(len(size), len(rows), dtype=torch.float64, device=s.device)
    for z in marginal:
        squares = SquaredDistances(
            s, z, rows, 2 * variance * _TOLERANCE, noise, own_square=-2 * variance * own
        )

        def kernel_sums(i: slice, j: slice, squares: SquaredDistances = squares) -> Tensor:
            # Densities are taken relative to one's own, which exp() could lose.
            exponents = squares(i, j).div_(-2 * variance).sub_(own[i, None])
            return (y[j] == classes).double() @ exponents.exp_().T

        for (i, _), found in in_threads(kernel_sums, tiles(len(rows), len(z))):
            sums[:, i] += found
    sums /= len(marginal)
    total = (sums.sum(0) / len(y)).log2()
    mine = (sums.gather(0, y[None, rows])[0] / size[y[rows]]).log2()
    return -total, mine - total
