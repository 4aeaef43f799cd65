"""How many directions of a layer the rest of the network makes use of."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ibcore.capacity.saturation import SaturationTracker, unit_axis
from ibcore.estimators.spectra import eigh
from ibcore.hooks import Intervention, _evaluation
from ibcore.layers import Layers, uncompiled

LOST = 0.005  # of the accuracy


def functional_ranks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *args: Any,
    layers: Layers = None,
    lost: float = LOST,
    axis: Mapping[str, int] | None = None,
    chosen: Tensor | None = None,
    batch_size: int | None = 4096,
) -> dict[str, int]:
    """Return for each layer the fewest principal directions that the answer needs of it.

    What the layer puts out is projected onto its leading principal directions around its mean,
    the rest of the network unchanged, one layer at a time. The fewest are searched by halving, as
    if accuracy never fell when a direction is added. A layer that the answer does not depend on
    has 0, and so has every layer of a network that guesses. The number is no width to train with:
    a network has to find its directions before it can do with few.

    Args:
        model: any `nn.Module` that answers with logits, shape (n_samples, n_classes).
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,).
        args: further inputs of the model, passed whole with every batch.
        layers: see `select_layers`; of a tuple, the first tensor counts.
        lost: accuracy on these samples that may be lost, a share.
        axis: layer name → axis of its units; see `SaturationTracker`.
        chosen: indices of the samples whose answers count, as of a graph's training nodes; None
            takes all. The principal directions are those of all samples.
        batch_size: samples a pass; None takes all at once, as a graph needs it.
    Raises:
        ValueError: no share to lose, labels that are not one a sample, or see `SaturationTracker`.
        TypeError: a layer that puts out neither a tensor nor a tuple.
        RuntimeError: a layer that is not called.
    Source: this study.
    """
    check_lost(lost, x, y)
    model = uncompiled(model)
    with SaturationTracker(model, layers, axis=axis) as tracker:
        tracker.look(0, x, *args, batch_size=batch_size)

    def accuracy() -> float:
        return accuracy_of(model, model, x, y, chosen, batch_size, *args)

    least = accuracy() - lost - 1e-12
    found = {}
    for name, (mean, covariance) in tracker.moments().items():
        vectors = eigh(covariance)[1].flip(1)

        def enough(rank: int, name: str = name, mean: Tensor = mean, v: Tensor = vectors) -> bool:
            change = projection(name, tracker.layers[name], mean, v[:, :rank], axis or {})
            with Intervention(model, change, [name]):
                return accuracy() >= least

        found[name] = _fewest(enough, len(covariance))
    return found


def projection(
    name: str, module: nn.Module, mean: Tensor, directions: Tensor, axis: Mapping[str, int]
) -> Callable[[Any], Any]:
    """Return a change for `Intervention` that keeps these directions of a layer alone.

    In a tuple it changes the first tensor, and of `nn.RNN`, `nn.GRU` and `nn.LSTM` the last states
    too, which are the same units; an LSTM's cells stay as they are.

    Args:
        name: of the layer.
        module: the layer.
        mean: of its units, shape (units,).
        directions: orthonormal columns, shape (units, n).
        axis: see `SaturationTracker`.
    """

    def kept(z: Tensor, place: int) -> Tensor:
        m, v = mean.to(z), directions.to(z)
        return ((z.movedim(place, -1) - m) @ v @ v.T + m).movedim(-1, place)

    def change(output: Any) -> Any:
        if isinstance(output, Tensor):
            return kept(output, unit_axis(name, module, output, axis))
        z, *others = output
        if isinstance(module, nn.RNNBase):
            states, *cells = others[0] if isinstance(others[0], tuple) else others
            if states.shape[-1] == len(mean):  # else both ways are side by side
                states = kept(states, -1)
            others = [(states, *cells)] if cells else [states]
        return (kept(z, unit_axis(name, module, z, axis)), *others)

    return change


def _fewest(enough: Callable[[int], bool], units: int) -> int:
    low, high = -1, units  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def check_lost(lost: float, x: Tensor, y: Tensor) -> None:
    """Raise ValueError where `lost` is no share, or labels are not one a sample."""
    if not 0 <= lost < 1:
        raise ValueError(f"lost is a share of the samples, from 0 to below 1; got {lost}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} samples need as many labels, got shape {tuple(y.shape)}")


def accuracy_of(
    model: nn.Module,
    answer: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    chosen: Tensor | None,
    batch_size: int | None,
    *args: Any,
) -> float:
    """Return the share of right answers, with the model in evaluation mode and put back after.

    Args:
        model: the network.
        answer: called as the model is; the model, or what changes it.
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,).
        chosen: indices of the samples whose answers count; None takes all.
        batch_size: samples a pass; None takes all at once.
        args: further inputs of the model.
    """
    with _evaluation(model), torch.no_grad():
        logits = torch.cat([answer(part, *args) for part in x.split(batch_size or len(x))])
    right = (logits.argmax(1) == y).double()
    return float((right if chosen is None else right[chosen]).mean())
