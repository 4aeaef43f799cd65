"""How many bits the trained weights hold, at the precision that the answer needs of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ibcore.capacity.rank import LOST, accuracy_of, check_lost
from ibcore.checks import stream
from ibcore.discrete import entropy
from ibcore.layers import uncompiled

_FINEST, _COARSEST = -16.0, 4.0  # log₂ of a step by the tensor's root mean square
_HALVINGS = 10  # of the range between them: to 0.02 octaves


def weight_bits(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *args: Any,
    lost: float = LOST,
    before: Mapping[str, Tensor] | None = None,
    draws: int = 4,
    seed: int = 0,
    chosen: Tensor | None = None,
    batch_size: int | None = 4096,
) -> pd.DataFrame:
    """Return the bits of each tensor of weights, and of all together, from what accuracy tolerates.

    A tensor is rounded to the multiples of a step, the rest of the network unchanged; the coarsest
    step that loses no more accuracy than is allowed is searched by halving, as if a finer one never
    lost more. The plug-in entropy of the multiples is what a code that knows their frequencies
    needs; it is low where a tensor has few weights for its many values. Beside it stands the
    largest Gaussian noise that loses as little, and ½ log₂(1 + signal by noise). In the row "all"
    every tensor is rounded at once, by steps in proportion to their root mean squares. Size alone
    explains much of the total: compare bits a weight.

    Args:
        model: any `nn.Module` that answers with logits, shape (n_samples, n_classes).
        x: inputs, shape (n_samples, ...), best some that it was not trained on.
        y: labels, shape (n_samples,).
        args: further inputs of the model, passed whole with every batch.
        lost: accuracy on these samples that may be lost, a share.
        before: the model's `state_dict` before training, of which `written` is the change.
        draws: of the noise; accuracy is the mean over them.
        seed: of the noise.
        chosen: indices of the samples whose answers count; None takes all.
        batch_size: samples a pass; None takes all at once, as a graph needs it.
    Returns:
        weight; size (how many); step (by the tensor's root mean square; infinite where the tensor
        may be 0); entropy (bits a weight); total (bits); noise (σ by the root mean square);
        noise_entropy (bits a weight); written (bits a weight of the change, in the same steps;
        NaN without `before`).
    Raises:
        ValueError: no share to lose, labels that are not one a sample, no weights, `before` of
            another network, or an answer that loses more by rounding to 16 bits.
    Source: this study.
    """
    check_lost(lost, x, y)
    model = uncompiled(model)
    tensors = {n: w.detach() for n, w in model.named_parameters() if w.is_floating_point()}
    if not tensors:
        raise ValueError(f"{type(model).__name__} has no weights")
    if before is not None:
        _check_before(before, tensors)

    def accuracy(changed: Mapping[str, Tensor]) -> float:
        def answer(*inputs: Any) -> Any:
            return functional_call(model, dict(changed), inputs)

        return accuracy_of(model, answer, x, y, chosen, batch_size, *args)

    least = accuracy({}) - lost - 1e-12

    def row(label: str, names: list[str]) -> dict[str, Any]:
        some = {name: tensors[name] for name in names}
        step = _largest(lambda s: accuracy({n: rounded(w, s) for n, w in some.items()}) >= least)

        def noisy(sigma: float) -> float:
            found = 0.0
            for draw in range(draws):
                streams = {n: stream(seed, f"weight_bits, draw {draw}, {n}") for n in names}
                found += accuracy({n: _noisy(w, sigma, streams[n]) for n, w in some.items()})
            return found / draws

        sigma = _largest(lambda s: noisy(s) >= least)
        size = sum(w.numel() for w in some.values())
        total = sum(_bits(w, w, step) for w in some.values())
        written = math.nan
        if before is not None:
            changes = (_bits(w - before[n].to(w), w, step) for n, w in some.items())
            written = sum(changes) / size
        return {
            "weight": label,
            "size": size,
            "step": step,
            "entropy": total / size,
            "total": total,
            "noise": sigma,
            "noise_entropy": math.log2(1 + sigma**-2) / 2,
            "written": written,
        }

    rows = [row(name, [name]) for name in tensors]
    return pd.DataFrame([*rows, row("all", list(tensors))])


def rounded(weight: Tensor, step: float) -> Tensor:
    """Return a tensor rounded to multiples of a step by its root mean square; infinite: zeros."""
    if math.isinf(step):
        return torch.zeros_like(weight)
    size = step * _scale(weight)
    return weight if size == 0 else ((weight.double() / size).round() * size).to(weight)


def _scale(weight: Tensor) -> float:
    return float(weight.double().square().mean().sqrt())


def _bits(values: Tensor, weight: Tensor, step: float) -> float:
    """Return the entropy of all values, rounded to the weight's steps, in bits."""
    size = step * _scale(weight)
    if math.isinf(step) or size == 0:
        return 0.0
    codes = (values.double() / size).round()
    return entropy(torch.unique(codes, return_counts=True)[1]) * values.numel()


def _noisy(weight: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    if math.isinf(sigma):
        return torch.zeros_like(weight)
    white = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
    return (weight.double() + sigma * _scale(weight) * white).to(weight)


def _largest(allowed: Callable[[float], bool]) -> float:
    """Return the largest step that is allowed; infinity where there need be no weight."""
    if allowed(math.inf):
        return math.inf
    low, high = _FINEST, _COARSEST
    if not allowed(math.exp2(low)):
        raise ValueError(
            f"the answer loses more than is allowed by a change of 2^{low:g} of the weights: it "
            "hangs on rounding, or `lost` is too small for these samples"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(math.exp2(middle)) else (low, middle)
    return math.exp2(low)


def _check_before(before: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a state isn't one of the same network."""
    for name, weight in tensors.items():
        if name not in before or before[name].shape != weight.shape:
            given = tuple(before[name].shape) if name in before else "nothing"
            raise ValueError(
                f"before must be the same network's state_dict: {name!r} has shape "
                f"{tuple(weight.shape)} now, {given} before"
            )
