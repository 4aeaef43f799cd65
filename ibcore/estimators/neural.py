"""Bounds from a trained critic: MINE, NWJ, InfoNCE and SMILE, on samples it has not seen."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ibcore.estimators.bound import NeuralBound
from ibcore.estimators.critic import held_back

_MEMORY = 0.9  # share of the past in MINE's moving average


@dataclass(frozen=True)
class Mine(NeuralBound):
    """Donsker-Varadhan bound: I(A;B) ≥ ⟨F⟩_joint − log⟨e^F⟩_product.

    The gradient's denominator is a moving average, which takes away the bias of small batches. A
    lower bound on held-out samples, up to their noise, which grows as e^I. F is capped at its
    highest value among pairs of the product, both of those that decided when to stop and of those
    held out: whether a sample lies a little or far beyond them, they can't tell.

    So no estimate passes log₂ n(n−1), the held-out pairs of the product, n the samples of a fold,
    or of a part of it, at most 2048. A layer without noise can hold any number of bits more; from
    log₂ N on, which is less, a plane flags it as saturated.

    Source: Belghazi et al. (2018), eq. 10-12; the thesis, Algorithm 1; that no bound from n samples
        can show more than about 2 log n: McAllester & Stratos (2020)
        [belghazi2018mine, landsverk2021inductive, mcallester2020formal].
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
        # The second cap leaves the held-out pairs of the product as they are, and lowers samples
        # alone: the bound can only fall.
        read = calibrated(t, validation)
        return read.clamp(max=_highest(read))

    def _terms(self, t: Tensor) -> Tensor:
        return joint(t) - partition_terms(t)

    def ceiling(self, n_samples: int) -> float:
        """Return log₂ of the held-out pairs of the product, which no estimate can pass."""
        n = self._told_apart(n_samples)
        return math.log2(n * (n - 1))


@dataclass(frozen=True)
class Nwj(NeuralBound):
    """Nguyen-Wainwright-Jordan bound: I(A;B) ≥ ⟨F⟩_joint − ⟨e^(F−1)⟩_product.

    A lower bound on held-out samples, up to their noise, which grows as e^I. F is calibrated on the
    samples that decided when to stop, and capped at its highest value on their n(n−1) pairs of the
    product. So no estimate passes log₂ n(n−1) + log₂ e: a layer without noise can hold any number
    of bits more, and is flagged as with `Mine`.

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

    def ceiling(self, n_samples: int) -> float:
        """Return log₂ of the validation's pairs of the product, and one nat, in bits."""
        n = held_back(n_samples, self.folds)
        return math.log2(n * (n - 1)) + math.log2(math.e)


@dataclass(frozen=True)
class InfoNCE(NeuralBound):
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
        return math.log2(self._told_apart(n_samples))


@dataclass(frozen=True)
class Smile(NeuralBound):
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


def joint(t: Tensor) -> Tensor:
    """Return F of the samples' own pairs, (n_critics, n), from F of all, (n_critics, n, n)."""
    return t.diagonal(dim1=1, dim2=2)


def product_pairs(t: Tensor) -> Tensor:
    """Return t with the samples' own pairs at −∞: what is left are pairs from the product."""
    return t.masked_fill(torch.eye(t.shape[1], dtype=torch.bool, device=t.device), -math.inf)


def log_partition(t: Tensor) -> Tensor:
    """Return log⟨e^F⟩ over the pairs i ≠ j, (n_critics,)."""
    return product_pairs(t).flatten(1).logsumexp(1) - math.log(t.shape[1] * (t.shape[1] - 1))


def calibrated(t: Tensor, validation: Tensor) -> Tensor:
    """Return t − log⟨e^F⟩ with F capped at its highest value on pairs of the product in validation.

    Any function of (a,b) that owes nothing to the held-out samples gives a bound, so this one too.
    Without the cap, a pair that the critic takes for a sample by mistake can add e^100.
    """
    most = _highest(validation)
    return t.clamp(max=most) - log_partition(validation.clamp(max=most))[:, None, None]


def _highest(t: Tensor) -> Tensor:
    """Return the highest F on pairs of the product, (n_critics, 1, 1)."""
    return product_pairs(t).amax((1, 2), keepdim=True)


def partition_terms(t: Tensor) -> Tensor:
    """Return terms with the mean log⟨e^F⟩, and its spread: the influence of each sample on it."""
    log_z = log_partition(t)[:, None]
    shares = (product_pairs(t) - log_z[:, :, None]).exp_()
    return log_z + (shares.sum(1) + shares.sum(2)) / (t.shape[1] - 1) - 2
