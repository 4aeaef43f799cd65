"""Noise that is no choice: the most that a layer tolerates before the network's answer changes."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ibcore.checks import check_samples, stream
from ibcore.estimators.montecarlo import MonteCarlo
from ibcore.estimators.spectra import eigh, eigvalsh
from ibcore.hooks import ActivationTracker, Intervention
from ibcore.layers import uncompiled
from ibcore.threads import threads_for

_FORMS = ("full", "diagonal")
_ROUNDS = 3  # times that the Fisher matrix is computed again, at noisy activations
_LEAST, _MOST = 1e-12, 1e6  # noise by signal: 20 bits, and beyond which nothing is carried
_FRESH = 4  # draws, at least, by which the tolerance is checked afterwards
_SEARCH = 0.01  # of ln θ: the search stops there
_RANK = 1e-10  # of the largest variance: directions below it are rounding


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
    filling of parallel Gaussian channels. θ is searched with the network itself, H computed again
    where the noise leads to, and tried with h^½ and h⁰ too; the lowest rate is kept. Form
    "diagonal": noise in proportion to each unit's variance, one factor for all. It is cheaper, and
    is moved by units that nothing reads, by copies and by rotations.

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
                or activations that no estimate can be made from.
            TypeError: a layer that puts out no tensor.
        """
        with threads_for(model, len(y)):
            return self._measure(_Network(model, layer, x, *args), y)

    def _measure(self, net: "_Network", y: Tensor) -> Tolerated:
        z, y = check_samples(net.clean, y)
        temperature = _temperature(net.answer(net.clean), y) if self.calibrated else 1.0
        answer = _Answer(net, temperature, self.tolerance)
        if self.form == "full":
            noise = self._full(z, answer)
        else:
            noise = _at_tolerance(_diagonal(z), answer, self._white(len(z), z.shape[1]))
        generator = stream(self.seed, "ToleratedNoise, fresh")
        shape = (max(_FRESH, self.draws), len(z), len(noise.ratios))
        reached = answer.change(noise, torch.randn(shape, generator=generator, dtype=z.dtype))
        heard = noise.ratios < _MOST
        if not heard.any():
            return Tolerated(0.0, 0.0, 0.0, 0.0, 0.0, 0, temperature, reached)
        truth = MonteCarlo(1.0, self.draws, self.seed, self.queries)
        i_xz, i_zy = truth.estimates(z @ noise.read[:, heard], y)
        directions = int((noise.ratios < 1).sum())
        return Tolerated(_rate(noise, z), *i_xz, *i_zy, directions, temperature, reached)

    def _white(self, n_samples: int, dim: int) -> Tensor:
        """Return the white noise of the search: the same for every θ, so that it is smooth."""
        generator = stream(self.seed, "ToleratedNoise")
        return torch.randn((self.draws, n_samples, dim), generator=generator, dtype=torch.float64)

    def _full(self, z: Tensor, answer: "_Answer") -> _Noise:
        signal, unsignal = _signal(z)
        white = self._white(len(z), len(signal))
        generator = stream(self.seed, "ToleratedNoise, signs")
        found: list[_Noise] = []
        points = z
        for turn in range(_ROUNDS + 1):
            h, axes = _needs(answer.fisher(points, generator), signal)
            for power in (1.0, 0.5, 0.0) if turn == _ROUNDS else (1.0,):
                noise = _filled(h**power, axes.T @ signal, unsignal @ axes)
                found.append(_at_tolerance(noise, answer, white))
            points = z + white[turn % self.draws] @ found[-1].map
        return min(found, key=lambda n: _rate(n, z))


class _Network:
    """A network whose layer can be set: a copy in double precision, in evaluation mode."""

    def __init__(self, model: nn.Module, layer: str, x: Tensor, *args: Any) -> None:
        self._model = copy.deepcopy(uncompiled(model)).double().eval()
        self._layer = layer
        self._inputs = [a.double() if _is_float(a) else a for a in (x, *args)]
        with ActivationTracker(self._model, [layer]) as tracker:
            self.clean = tracker.collect(*self._inputs)[layer]
        self._shape = self.clean.shape
        self.clean = self.clean.flatten(1)

    def answer(self, z: Tensor) -> Tensor:
        """Return the logits where the layer puts out z, shape (n_samples, dim)."""
        with Intervention(self._model, lambda _: z.reshape(self._shape), [self._layer]):
            logits: Tensor = self._model(*self._inputs)
        if logits.ndim != 2 or len(logits) != len(z) or logits.shape[1] < 2:
            raise ValueError(
                f"the model must answer with logits, shape ({len(z)}, classes), got "
                f"{tuple(logits.shape)}"
            )
        if not logits.isfinite().all():
            raise ValueError("the model answers with NaN or infinite logits")
        return logits


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class _Answer:
    """How the answer changes with the layer."""

    def __init__(self, net: _Network, temperature: float, tolerance: float) -> None:
        self.tolerance = tolerance
        self._net, self._temperature = net, temperature
        with torch.no_grad():
            self._log_p = self._log_answer(net.clean)

    def _log_answer(self, z: Tensor) -> Tensor:
        return (self._net.answer(z) / self._temperature).log_softmax(1)

    def change(self, noise: _Noise, white: Tensor) -> float:
        """Return the mean KL from the answer to that under noise, in bits, over draws."""
        total, p = 0.0, self._log_p.exp()
        with torch.no_grad():
            for draw in white:
                log_q = self._log_answer(self._net.clean + draw.to(p.device) @ noise.map)
                total += float((p * (self._log_p - log_q)).sum(1).mean())
        return total / len(white) / math.log(2)

    def fisher(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Return H = ½ ⟨JᵀFJ⟩ in nats at these activations, shape (dim, dim).

        F = Σ_c p_c ∇log p_c ∇log p_cᵀ. Each sample has a random sign, so that gradients of other
        samples' answers, as in a graph, add up as squares on the mean.
        """
        z = points.detach().requires_grad_()
        log_p = self._log_answer(z)
        roots = (0.5 * log_p.detach()).exp()
        total = torch.zeros(z.shape[1], z.shape[1], dtype=z.dtype, device=z.device)
        for c in range(log_p.shape[1]):
            draws = torch.randint(2, (len(z),), generator=generator).to(z.device)
            signs = 2 * draws.to(z.dtype) - 1
            goal = (signs * roots[:, c] * log_p[:, c]).sum()
            (slope,) = torch.autograd.grad(goal, z, retain_graph=True, allow_unused=True)
            if slope is not None:  # else the answer does not depend on the layer
                total += slope.T @ slope
        return total / (2 * len(z))


def _signal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map from coordinates in which the layer has the covariance I, and the one back.

    Shapes (rank, dim) and (dim, rank).
    """
    centred = z - z.mean(0)
    variances, axes = eigh(centred.T @ centred / len(z))
    held = variances > _RANK * variances.max()
    axes, deviations = axes[:, held], variances[held].sqrt()
    return (axes * deviations).T, axes / deviations


def _needs(fisher: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Return h, and the axes in white coordinates in which H is diagonal with it."""
    h, axes = eigh(signal @ fisher @ signal.T)
    return h.clamp(min=0), axes


def _filled(h: Tensor, to_layer: Tensor, to_axes: Tensor) -> Callable[[float], _Noise]:
    """Return the noise of the full form by θ, from h and the maps between axes and layer."""

    def noise(theta: float) -> _Noise:
        demand = 4 * theta / h.clamp(min=torch.finfo(h.dtype).tiny)
        small = demand / (2 * (1 + (1 + demand).sqrt()))  # r (r + 1) = demand / 4
        ratios = torch.where(demand < _MOST, small, demand.sqrt() / 2).clamp(_LEAST, _MOST)
        roots = ratios.sqrt()
        return _Noise(roots[:, None] * to_layer, to_axes / roots, ratios)

    return noise


def _diagonal(z: Tensor) -> Callable[[float], _Noise]:
    """Return the noise of the diagonal form by its factor; units that never change have none."""
    deviations = z.std(0, correction=0)
    moves = (deviations > 0).to(z.dtype)

    def noise(factor: float) -> _Noise:
        ratios = torch.full_like(deviations, min(factor, _MOST))
        roots = ratios.sqrt() * deviations
        return _Noise(torch.diag(roots), torch.diag(moves / roots.clamp(min=1e-300)), ratios)

    return noise


def _at_tolerance(noise: Callable[[float], _Noise], answer: _Answer, white: Tensor) -> _Noise:
    """Return the largest noise under which the answer changes by the tolerance."""

    def excess(log_theta: float) -> float:
        change = answer.change(noise(math.exp(log_theta)), white)
        return math.log(max(change, 1e-300) / answer.tolerance)

    loud = noise(math.inf)
    if answer.change(loud, white) <= answer.tolerance:
        return loud
    sign = -1.0 if excess(0.0) > 0 else 1.0
    near, far = 0.0, sign
    while sign * excess(far) <= 0:
        near, far = far, 2 * far
    return noise(math.exp(brentq(excess, near, far, xtol=_SEARCH)))


def _rate(noise: _Noise, z: Tensor) -> float:
    """Return ½ log₂ det(I + signal by noise), in bits."""
    seen = (z - z.mean(0)) @ noise.read
    signal = eigvalsh(seen.T @ seen / len(z)).clamp(min=0)
    return float((1 + signal).log2().sum() / 2)


def _temperature(logits: Tensor, y: Tensor) -> float:
    """Return what logits are to be divided by, so that their cross-entropy is least."""
    fixed = logits.detach()

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(fixed / math.exp(log_temperature), y))

    return math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
