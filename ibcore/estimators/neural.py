"""Bounds from a trained critic: MINE, NWJ, InfoNCE and SMILE, on samples it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus
from tqdm import tqdm

from ibcore.checks import check_inputs, check_pair, check_samples, stream
from ibcore.estimators.critic import (
    TILE,
    Critic,
    Folds,
    calibrated,
    components,
    joint,
    log_partition,
    partition_terms,
    product_pairs,
)
from ibcore.interface import Estimate, MutualInformation
from ibcore.threads import one_thread

_LEAST = 40  # samples: fewer leave no fold to train on
_LEARNING_RATE = 3e-3
_EVERY, _PATIENCE = 100, 4  # steps between looks at it, and looks without gain before the stop
_MEMORY = 0.9  # share of the past in MINE's moving average


class DivergedError(RuntimeError):
    """No critic with a finite value on held-out samples was found."""


@dataclass(frozen=True)
class _Neural:
    """What the four bounds share: the critic, how it is trained, and how it is read.

    Each side is prepared first: normal scores by rank, the leading principal components, then
    pairs of canonical directions. The critic F(a,b) = g(a,b) + f(a)·h(b) adds to g, the logarithm
    of the density ratio of a Gaussian with the canonical correlations, a network that starts at
    zero. As much information as the correlations show is there before the first step.

    Ranks undo what was done to single coordinates, and correlations see through rotations, but not
    both at once: of five Gaussian pairs with 6 bits, 1000 samples show 5.8 as they are, rotated or
    cubed, and 3.1 cubed and then rotated. There more samples are needed, as for any curved map.

    The samples are cut into folds. For each fold a critic is trained on the others, a fifth of
    which decides when to stop, and read on the fold itself; the estimate is the mean over folds.
    A value below 0 is returned as 0, with its error.

    Args:
        folds: number of critics, each read on its share of the samples.
        steps: most steps of Adam.
        batch_size: samples a step; with fewer, all are taken.
        seed: of the folds, the critic's first weights and the batches.
    Raises:
        ValueError: fewer than two folds, one step or two samples a step.
    """

    folds: int = 4
    steps: int = 2000
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.steps < 1 or self.batch_size < 2:
            raise ValueError(
                "a critic needs 2 folds, 1 step and 2 samples a step; got "
                f"folds={self.folds}, steps={self.steps}, batch_size={self.batch_size}"
            )

    def __call__(
        self, z: Tensor, y: Tensor, x: Tensor | None = None
    ) -> dict[str, MutualInformation]:
        """Return I(X;Z) and I(Z;Y) in bits, under the name of the class.

        Args:
            z: representation, shape (n_samples, ...), any float dtype.
            y: labels, shape (n_samples,), any integer dtype.
            x: inputs of the network, shape (n_samples, ...), any float dtype. Needed.
        Raises:
            ValueError: no x, or fewer than 40 samples; or see `check_samples`.
            DivergedError: no critic with a finite value was found.
        """
        z, y = check_samples(z, y)
        labels = one_hot(torch.unique(y, return_inverse=True)[1]).to(torch.float64)
        i_xz, i_zy = self.many([(check_inputs(x, self).to(z.device), z), (z, labels)])
        most = self.ceiling(len(z))
        return {self.name: MutualInformation(i_xz.bits, i_zy.bits, i_xz.error, i_zy.error, most)}

    @property
    def name(self) -> str:
        """Name of the bound: that of its class."""
        return type(self).__name__

    def ceiling(self, n_samples: int) -> float:
        """Return what no estimate from so many samples can pass, in bits."""
        return math.inf

    def between(self, a: Tensor, b: Tensor) -> Estimate:
        """Return I(A;B) in bits, with its standard error over the held-out samples.

        A side that is constant has no information: 0.

        Args:
            a: shape (n_samples, ...), any float dtype.
            b: shape (n_samples, ...), any float dtype.
        Raises:
            ValueError: fewer than 40 samples; or see `check_pair`.
            DivergedError: no critic with a finite value was found.
        """
        return self.many([(a, b)])[0]

    def many(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Estimate]:
        """Return the estimate of each pair: several layers or epochs, trained in one batched run.

        Args:
            pairs: (a, b) as `between` takes them, all with the same number of samples.
        """
        prepared = []
        for a, b in pairs:
            a, b = check_pair(a, b)
            if len(a) < _LEAST:
                raise ValueError(f"a critic needs {_LEAST} samples to learn from, got {len(a)}")
            prepared.append((components(a), components(b)))
        sizes = sorted({len(a) for a, _ in prepared})
        if len(sizes) > 1:
            raise ValueError(f"pairs of one run need as many samples each, got {sizes}")
        alive = [i for i, (a, b) in enumerate(prepared) if a.shape[1] and b.shape[1]]
        found = [Estimate(0.0, 0.0)] * len(prepared)
        if alive:
            for i, estimate in zip(alive, self._run([prepared[i] for i in alive]), strict=True):
                found[i] = estimate
        return found

    @one_thread()
    def _run(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Estimate]:
        generator = stream(self.seed, "critic")
        data = Folds(pairs, self.folds, generator)
        critic = Critic(
            data.correlations, data.train[0].shape[2], data.train[1].shape[2], generator
        )
        self._fit(critic, data, generator)
        validation = critic(*data.validation)
        tiles = [self._read(critic(a, b), validation) for a, b in data.held_out()]
        terms = torch.cat([self._terms(t) for t in tiles], 1)
        if not terms.isfinite().all():
            raise DivergedError(f"{self.name} has no finite value on held-out samples")
        terms = terms.reshape(len(pairs), -1) / math.log(2)
        errors = terms.std(1) / math.sqrt(terms.shape[1])
        # A bound below 0 says no more than I ≥ 0.
        bits = terms.mean(1).clamp(min=0.0)
        return [Estimate(float(t), float(e)) for t, e in zip(bits, errors, strict=True)]

    def _fit(self, critic: Critic, data: Folds, generator: torch.Generator) -> None:
        """Train all critics at once and leave each at the weights that validate best."""
        adam = torch.optim.Adam(critic.parameters, lr=_LEARNING_RATE)
        size, state, idle = data.train[0].shape[1], None, 0
        best = critic.start(self._score, data.validation)
        kept = [p.detach().clone() for p in critic.parameters]
        order = torch.empty(0, dtype=torch.int64)
        steps = tqdm(range(1, self.steps + 1), self.name, unit="steps", delay=5, leave=False)
        for step in steps:
            if len(order) < min(self.batch_size, size):
                order = torch.randperm(size, generator=generator)
            batch, order = order[: self.batch_size], order[self.batch_size :]
            rows = batch.to(data.train[0].device)
            t = critic(data.train[0][:, rows], data.train[1][:, rows])
            loss, state = self._loss(t, state)
            adam.zero_grad()
            loss.sum().backward()
            critic.clip()
            adam.step()
            if step % _EVERY == 0 or step == self.steps:
                with torch.no_grad():
                    score = self._score(critic(*data.validation))
                better = score > best  # False where it is NaN
                for old, new in zip(kept, critic.parameters, strict=True):
                    old[better] = new.detach()[better]
                idle = 0 if bool((score > best + 1e-3).any()) else idle + 1
                best = torch.where(better, score, best)
                if idle == _PATIENCE:
                    break
        for old, new in zip(kept, critic.parameters, strict=True):
            new.data.copy_(old)
        critic.freeze()

    def _loss(self, t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return each critic's loss on a batch, (n_critics,), and what the next step needs."""
        return -self._score(t), None

    def _score(self, t: Tensor) -> Tensor:
        """Return what validation maximises, (n_critics,)."""
        return self._terms(t).mean(1)

    def _read(self, t: Tensor, validation: Tensor) -> Tensor:
        """Return the critic's values on held-out samples as the bound reads them."""
        return t

    def _terms(self, t: Tensor) -> Tensor:
        """Return one term a sample, in nats; their mean is the estimate, their spread its error."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mine(_Neural):
    """Donsker-Varadhan bound: I(A;B) ≥ ⟨F⟩_joint − log⟨e^F⟩_product.

    The gradient's denominator is a moving average, which takes away the bias of small batches. A
    lower bound on held-out samples, up to their noise, which grows as e^I. F is capped at its
    highest value among the pairs of the product that decided when to stop, as far as these n
    samples tell: beyond it, one pair of e^F ≫ n² would be the whole estimate.

    Source: Belghazi et al. (2018), eq. 10-12; the thesis, Algorithm 1
        [belghazi2018mine, landsverk2021inductive].
    """

    def _loss(self, t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        partition = log_partition(t)
        now = partition.detach()
        past = (
            now
            if state is None
            else torch.logaddexp(state + math.log(_MEMORY), now + math.log(1 - _MEMORY))
        )
        return (partition - past).exp() - joint(t).mean(1), past

    def _score(self, t: Tensor) -> Tensor:
        return joint(t).mean(1) - log_partition(t)

    def _read(self, t: Tensor, validation: Tensor) -> Tensor:
        return calibrated(t, validation)

    def _terms(self, t: Tensor) -> Tensor:
        return joint(t) - partition_terms(t)


@dataclass(frozen=True)
class Nwj(_Neural):
    """Nguyen-Wainwright-Jordan bound: I(A;B) ≥ ⟨F⟩_joint − ⟨e^(F−1)⟩_product.

    A lower bound on held-out samples, up to their noise, which grows as e^I. F is calibrated on the
    samples that decided when to stop, as in `Mine`.

    Source: Nguyen, Wainwright & Jordan (2010), eq. 22 [nguyen2010estimating].
    """

    def _score(self, t: Tensor) -> Tensor:
        return 1 + joint(t).mean(1) - _exp(log_partition(t))

    def _read(self, t: Tensor, validation: Tensor) -> Tensor:
        return calibrated(t, validation)

    def _terms(self, t: Tensor) -> Tensor:
        # F − 1 stands in for F, so that an untrained critic gives 0.
        exponents = product_pairs(t).exp()
        count = t.shape[1] - 1
        mean = exponents.sum((1, 2))[:, None] / (count * t.shape[1])
        return 1 + joint(t) - (exponents.sum(1) + exponents.sum(2)) / count + mean


@dataclass(frozen=True)
class InfoNCE(_Neural):
    """Contrastive bound: I(A;B) ≥ log n + ⟨F(aᵢ,bᵢ) − log Σⱼ e^F(aᵢ,bⱼ)⟩ over n held-out samples.

    A lower bound of little variance that can't pass log₂ n, with n the samples of a fold, or of a
    part of it, at most 2048.

    Source: van den Oord et al. (2018), eq. 4-5; Poole et al. (2019), eq. 12
        [oord2018representation, poole2019variational].
    """

    def _terms(self, t: Tensor) -> Tensor:
        return joint(t) - t.logsumexp(2) + math.log(t.shape[1])

    def ceiling(self, n_samples: int) -> float:
        """Return log₂ of the held-out samples that are told apart, which no estimate can pass."""
        fold = n_samples // self.folds
        return math.log2(-(-fold // -(-fold // TILE)))


@dataclass(frozen=True)
class Smile(_Neural):
    """Donsker-Varadhan with a clipped density ratio: ⟨F⟩ − log⟨clip(e^F, e^−τ, e^τ)⟩_product.

    The critic is trained by the Jensen-Shannon divergence. Clipping bounds the variance and makes
    the estimate no bound any more: where F passes τ, it is too high.

    Args:
        limit: τ, in nats.
    Source: Song & Ermon (2020), eq. 17 [song2020understanding].
    """

    limit: float = 5.0

    def _score(self, t: Tensor) -> Tensor:
        softened = softplus(t)
        product = softened.sum((1, 2)) - joint(softened).sum(1)
        n = t.shape[1]
        return -softplus(-joint(t)).mean(1) - product / (n * (n - 1))

    def _terms(self, t: Tensor) -> Tensor:
        return joint(t) - partition_terms(t.clamp(-self.limit, self.limit))


def _exp(x: Tensor) -> Tensor:
    """Return e^x, and its tangent above x = 50, so that values and gradients never overflow."""
    near = x.clamp(max=50.0)
    return near.exp() * (1 + x - near)
