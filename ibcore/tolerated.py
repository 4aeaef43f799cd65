"""Noise that is no choice: the most that a layer tolerates before the network's answer changes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from ibcore.answers import Answer
from ibcore.checks import check_samples, stream
from ibcore.estimators.montecarlo import MonteCarlo
from ibcore.estimators.spectra import eigh, eigvalsh
from ibcore.threads import threads_for

_FORMS = ("full", "diagonal")
_ROUNDS = 3  # times that the Fisher matrix is computed again, at noisy activations
_LEAST, _MOST = 1e-12, 1e6  # noise by signal: 20 bits, and beyond which nothing is carried
_FRESH = 4  # draws, at least, by which the tolerance is checked afterwards
_SEARCH, _FAR = 0.01, 700.0  # of ln θ: where the search stops, and what exp can hold
_RANK = 1e-10  # of the largest variance: directions below it are rounding


class HangsOnRoundingError(ValueError):
    """The answer changes by more than the tolerance under noise as small as rounding."""


class Tolerated(NamedTuple):
    """What a layer carries at the precision that the rest of the network needs.

    Args:
        rate: ½ Σ log₂(1 + 1/r) in bits, r the noise by the signal of each direction.
        i_xz: I(X;T) of the layer with this noise, in bits.
        i_xz_error: its standard error, in bits.
        i_zy: I(T;Y), in bits.
        i_zy_error: its standard error, in bits.
        directions: those with more signal than noise, r < 1.
        temperature: what the logits were divided by.
        reached: mean change of the answer on fresh draws of the noise, in bits; near the tolerance.
    """

    rate: float
    i_xz: float
    i_xz_error: float
    i_zy: float
    i_zy_error: float
    directions: int
    temperature: float
    reached: float


class _Noise(NamedTuple):
    """Gaussian noise on a layer: `map` takes white noise to it, `read` the layer to unit noise."""

    map: Tensor  # (n_directions, dim)
    read: Tensor  # (dim, n_directions)
    ratios: Tensor  # r of each direction


@dataclass(frozen=True)
class ToleratedNoise:
    """The largest Gaussian noise on one layer that leaves the network's answer as it is.

    "As it is": the mean over samples of KL(answer ‖ answer under noise) is `tolerance`, in bits.
    No σ² is chosen; what is chosen is how exact the answer has to be.

    Form "full": with Σ the covariance of the layer and H = ½ ⟨JᵀFJ⟩ the Fisher matrix of the answer
    seen from it, in coordinates where Σ = I and H = diag(h), direction k gets noise r_k with
    r_k (r_k + 1) = θ / h_k: the least rate for a change of the answer, to second order, as in the
    filling of parallel Gaussian channels. θ is searched with the network itself, first for h = 1,
    then for the H where the noise leads to, time and again; √h is tried too, and the lowest rate
    kept. Form "diagonal": noise in proportion to each unit's variance, one factor for all. It is
    cheaper, and is moved by units that nothing reads, by copies and by rotations.

    Neither is moved by the scale of ReLU units; "full" not by an invertible linear map of the
    layer, up to its search, nor by copied or unread units, up to some tenths of a bit. A layer that
    the answer does not depend on has 0 bits. Fails: a network that is too sure of itself tolerates
    more, so that growing logits look like compression or hide it (`calibrated` takes them to the
    temperature that fits the labels best); with few samples covariance and rate are too small; the
    rate can rise from layer to layer, and passes I(X;T) where the points are few; layers of a graph
    are noisy at all nodes at once.

    Args:
        tolerance: δ, mean KL in bits.
        form: "full" or "diagonal".
        calibrated: whether logits are divided by their temperature.
        draws: of the noise for each sample, at least 2.
        queries: samples that I(X;T) and I(T;Y) are a mean over, see `MonteCarlo`.
        seed: of all draws.
    Raises:
        ValueError: a tolerance that is not positive, another form, fewer than 2 draws or queries.
    Source: this study; the channels: Cover & Thomas (2006), chapter 10 [cover2006elements].
    """

    tolerance: float = 0.01
    form: str = "full"
    calibrated: bool = False
    draws: int = 2
    queries: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be a positive number of bits, got {self.tolerance}")
        if self.form not in _FORMS:
            raise ValueError(f"form must be one of {_FORMS}, got {self.form!r}")
        MonteCarlo(1.0, self.draws, self.seed, self.queries)  # checks draws and queries

    def __call__(self, model: nn.Module, layer: str, x: Tensor, y: Tensor, *args: Any) -> Tolerated:
        """Return what a layer carries, in bits.

        Args:
            model: any `nn.Module` that answers with logits, shape (n_samples, n_classes).
            layer: name of a module that puts out a tensor, the samples its first axis.
            x: inputs, shape (n_samples, ...).
            y: labels, shape (n_samples,), of all samples.
            args: further inputs of the model, such as the edges of a graph.
        Raises:
            ValueError: a layer that the model doesn't have, an answer of another shape or with NaN,
                activations that no estimate can be made from.
            HangsOnRoundingError: a ValueError; the answer changes by more than the tolerance under
                any noise.
            TypeError: a layer that puts out no tensor.
        """
        with threads_for(model, len(y)):
            labels = torch.as_tensor(y) if self.calibrated else None
            return self._measure(Answer(model, layer, x, *args, labels=labels), y)

    def _measure(self, answer: Answer, y: Tensor) -> Tolerated:
        z, y = check_samples(answer.layer, y)
        noise = self._full(z, answer) if self.form == "full" else self._diagonal(z, answer)
        generator = stream(self.seed, "ToleratedNoise, fresh")
        draws = (_draw(z, len(noise.ratios), generator) for _ in range(max(_FRESH, self.draws)))
        reached = answer.change(draw @ noise.map for draw in draws)
        heard = noise.ratios < _MOST
        if not heard.any():
            return Tolerated(0.0, 0.0, 0.0, 0.0, 0.0, 0, answer.temperature, reached)
        truth = MonteCarlo(1.0, self.draws, self.seed, self.queries)
        i_xz, i_zy = truth.estimates(z @ noise.read[:, heard], y)
        directions = int((noise.ratios < 1).sum())
        return Tolerated(_rate(noise, z), *i_xz, *i_zy, directions, answer.temperature, reached)

    def _full(self, z: Tensor, answer: Answer) -> _Noise:
        signal, unsignal = _signal(z)
        white = self._white(z, len(signal))
        generator = stream(self.seed, "ToleratedNoise, signs")

        def search(h: Tensor, axes: Tensor) -> _Noise:
            noise = _filled(h, axes.T @ signal, unsignal @ axes)
            return _at_tolerance(noise, answer, white, self.tolerance)

        # Never at the clean activations: where a network is sure of itself, H is lost there.
        even = torch.ones(len(signal), dtype=z.dtype, device=z.device)
        found = [search(even, torch.diag(even))]
        for turn in range(_ROUNDS):
            points = z + white[turn % self.draws] @ found[-1].map
            h, axes = eigh(signal @ answer.fisher(points, generator) @ signal.T)
            found.append(search(h.clamp(min=0), axes))
        found.append(search(h.clamp(min=0).sqrt(), axes))
        return min(found, key=lambda noise: _rate(noise, z))

    def _diagonal(self, z: Tensor, answer: Answer) -> _Noise:
        deviations = z.std(0, correction=0)
        moves = deviations > 0  # a unit that never changes carries nothing

        def noise(factor: float) -> _Noise:
            ratios = torch.where(moves, min(max(factor, _LEAST), _MOST), _MOST).to(z.dtype)
            roots = ratios.sqrt() * torch.where(moves, deviations, 1.0)
            return _Noise(torch.diag(roots * moves), torch.diag(moves / roots), ratios)

        return _at_tolerance(noise, answer, self._white(z, z.shape[1]), self.tolerance)

    def _white(self, z: Tensor, dim: int) -> list[Tensor]:
        """Return the white noise of the search: the same for every θ, so that it is smooth."""
        generator = stream(self.seed, "ToleratedNoise")
        return [_draw(z, dim, generator) for _ in range(self.draws)]


def _draw(z: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randn((len(z), dim), generator=generator, dtype=z.dtype).to(z.device)


def _signal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map from coordinates in which the layer has the covariance I, and the one back.

    Shapes (rank, dim) and (dim, rank).
    """
    centred = z - z.mean(0)
    variances, axes = eigh(centred.T @ centred / len(z))
    held = variances > max(_RANK * float(variances.max()), 0.0)
    axes, deviations = axes[:, held], variances[held].sqrt()
    return (axes * deviations).T, axes / deviations


def _filled(h: Tensor, to_layer: Tensor, to_axes: Tensor) -> Callable[[float], _Noise]:
    """Return the noise of the full form by θ, from h and the maps between axes and layer."""

    def noise(theta: float) -> _Noise:
        demand = 4 * theta / h.clamp(min=torch.finfo(h.dtype).tiny)
        small = demand / (2 * (1 + (1 + demand).sqrt()))  # r (r + 1) = demand / 4
        ratios = torch.where(demand < _MOST, small, demand.sqrt() / 2).clamp(_LEAST, _MOST)
        roots = ratios.sqrt()
        return _Noise(roots[:, None] * to_layer, to_axes / roots, ratios)

    return noise


def _at_tolerance(
    noise: Callable[[float], _Noise], answer: Answer, white: list[Tensor], tolerance: float
) -> _Noise:
    """Return the largest noise under which the answer changes by the tolerance, in bits."""

    def excess(found: _Noise) -> float:
        change = answer.change(draw @ found.map for draw in white)
        return math.log(max(change, 1e-300) / tolerance)

    def at(log_theta: float) -> _Noise:
        return noise(math.exp(log_theta))

    quiet, loud = noise(0.0), at(_FAR)
    if excess(loud) <= 0:
        return loud
    if excess(quiet) > 0:
        raise HangsOnRoundingError(
            f"the answer changes by more than {tolerance:g} bits under noise of {_LEAST:g} of the "
            "layer's variance: it hangs on rounding, or the tolerance is too small"
        )
    sign = -1.0 if excess(at(0.0)) > 0 else 1.0
    near, far = 0.0, sign
    while sign * excess(at(far)) <= 0:
        if abs(far) == _FAR:
            return quiet
        near, far = far, sign * min(2 * abs(far), _FAR)
    return at(brentq(lambda log_theta: excess(at(log_theta)), near, far, xtol=_SEARCH))


def _rate(noise: _Noise, z: Tensor) -> float:
    """Return ½ log₂ det(I + signal by noise), in bits."""
    seen = (z - z.mean(0)) @ noise.read
    signal = eigvalsh(seen.T @ seen / len(z)).clamp(min=0)
    return float((1 + signal).log2().sum() / 2)
