"""Networks in which every layer is a named submodule."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import torch
from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class FullyConnected(nn.Sequential):
    """A fully connected network that returns logits.

    Zˡ⁺¹ = σ(Zˡ Wˡ + bˡ); submodules are linear1, tanh1, linear2, ... after the activation's name.
    Weights are normal with deviation 1/√(inputs), cut at two deviations; biases are zero.

    Args:
        widths: units of the input, of each hidden layer and of the output.
        activation: "tanh", "relu", "sigmoid" or "identity".
        seed: decides the weights; None draws from torch's global generator.
    Raises:
        ValueError: fewer than two widths, a width below one, or an unknown activation.
    Source: the thesis, eq. 1.2 [landsverk2021inductive]; the weights of Shwartz-Ziv & Tishby
        (2017) [shwartz2017opening].
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "tanh", seed: int | None = None
    ) -> None:
        whole = all(isinstance(width, Integral) for width in widths)
        if not whole or len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                f"widths must be a list of two or more positive whole numbers, got {widths!r}"
            )
        if activation not in _ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}: known are {sorted(_ACTIVATIONS)}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            layers[f"linear{number}"] = nn.Linear(inputs, outputs)
            if number < len(widths) - 1:
                layers[f"{activation}{number}"] = _ACTIVATIONS[activation]()
        super().__init__(layers)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _truncated_normal(module, generator)


@torch.no_grad()
def _truncated_normal(linear: nn.Linear, generator: torch.Generator | None) -> None:
    std = linear.in_features**-0.5
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
    nn.init.zeros_(linear.bias)
