"""What a network answers where one of its layers is set to other values."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ibcore.hooks import ActivationTracker, Intervention
from ibcore.layers import uncompiled


class Answer:
    """The answer of a network as a function of one layer: a copy in double precision.

    Args:
        model: any `nn.Module` that answers with logits, shape (n_samples, n_classes).
        layer: name of a module that puts out a tensor, the samples its first axis.
        inputs: of the model, x first.
        labels: those that the temperature is fitted to; None leaves it at 1.
    Raises:
        ValueError: a layer that the model doesn't have, an answer of another shape or not finite.
        TypeError: a layer that puts out no tensor.
    """

    def __init__(
        self, model: nn.Module, layer: str, *inputs: Any, labels: Tensor | None = None
    ) -> None:
        self._model = copy.deepcopy(uncompiled(model)).double().eval()
        self._layer = layer
        self._inputs = [_precise(value) for value in inputs]
        with ActivationTracker(self._model, [layer]) as tracker:
            found = tracker.collect(*self._inputs)[layer]
        self._shape = found.shape
        self.layer = found.flatten(1)
        self.temperature = 1.0
        with torch.no_grad():
            logits = self._logits(self.layer)
            if labels is not None:
                self.temperature = _temperature(logits, labels.to(logits.device))
            self._log_p = (logits / self.temperature).log_softmax(1)

    def change(self, noises: Iterable[Tensor]) -> float:
        """Return the mean KL from the answer to that under noise on the layer, in bits.

        Args:
            noises: draws, each of shape (n_samples, dim); the mean runs over draws and samples.
        """
        p, found = self._log_p.exp(), []
        with torch.no_grad():
            for noise in noises:
                log_q = self._log_answer(self.layer + noise)
                found.append(float((p * (self._log_p - log_q)).sum(1).mean()))
        return sum(found) / len(found) / math.log(2)

    def fisher(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Return H = ½ ⟨JᵀFJ⟩ in nats where the layer has these values, shape (dim, dim).

        J is the Jacobian of the logits, F = Σ_c p_c ∇log p_c ∇log p_cᵀ. Each sample has a random
        sign, so that gradients of other samples' answers, as in a graph, add up as squares on the
        mean.

        Args:
            points: shape (n_samples, dim).
            generator: of the signs.
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

    def _log_answer(self, z: Tensor) -> Tensor:
        return (self._logits(z) / self.temperature).log_softmax(1)

    def _logits(self, z: Tensor) -> Tensor:
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


def _precise(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _temperature(logits: Tensor, y: Tensor) -> float:
    """Return what logits are to be divided by, so that their cross-entropy is least."""

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits / math.exp(log_temperature), y))

    return math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
