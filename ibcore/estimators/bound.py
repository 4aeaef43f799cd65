"""What bounds from a trained critic share: how it is trained, and read on samples not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import tqdm

from ibcore.checks import check_inputs, check_pair, check_samples, stream
from ibcore.estimators.critic import TILE, Critic, Folds, components
from ibcore.interface import Estimate, MutualInformation
from ibcore.threads import one_thread

_LEAST = 40  # samples: fewer leave no fold to train on
_LEARNING_RATE = 3e-3
_EVERY, _PATIENCE = 100, 4  # steps between looks at it, and looks without gain before the stop


class DivergedError(RuntimeError):
    """No critic with a finite value on held-out samples was found."""


@dataclass(frozen=True)
class NeuralBound:
    """What `Mine`, `Nwj`, `InfoNCE` and `Smile` share: the critic, its training and its reading.

    Each side is prepared first: normal scores by rank, the leading principal components, then
    pairs of canonical directions. The critic F(a,b) = g(a,b) + f(a)·h(b) adds to g, the logarithm
    of the density ratio of a Gaussian with the canonical correlations, a network that starts at
    zero. As much information as the correlations show is there before the first step.

    Ranks undo what was done to single coordinates, and correlations see through rotations, but not
    both at once: of five Gaussian pairs with 6 bits, 1000 samples show 5.8 as they are, rotated or
    cubed, and 3.1 cubed and then rotated. There more samples are needed, as for any curved map.

    The samples are cut into folds. For each fold a critic is trained on the others, a fifth of
    which decides when to stop, and read on the fold itself; the estimate is the mean over folds.
    A value below 0 is returned as 0, with its error: the standard error over all held-out samples,
    or over the folds where it is larger, as when one critic of four failed.

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

    def _told_apart(self, n_samples: int) -> int:
        """Return the held-out samples of which all pairs are formed at once: a fold, or a part."""
        fold = n_samples // self.folds
        return -(-fold // -(-fold // TILE))

    def between(self, a: Tensor, b: Tensor) -> Estimate:
        """Return I(A;B) in bits, with its standard error.

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
        terms = terms.reshape(len(pairs), self.folds, -1) / math.log(2)
        of_samples = terms.flatten(1).std(1) / math.sqrt(terms[0].numel())
        errors = torch.maximum(of_samples, terms.mean(2).std(1) / math.sqrt(self.folds))
        # A bound below 0 says no more than I ≥ 0.
        bits = terms.mean((1, 2)).clamp(min=0.0)
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
