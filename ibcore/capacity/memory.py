"""How many bits of labels a network's layers can hold at most, by rules that count."""

from typing import Any

import pandas as pd
import torch
from torch import nn

from ibcore.hooks import _evaluation
from ibcore.layers import first_tensor, uncompiled

_RULED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def memory_capacity(model: nn.Module, x: Any, *args: Any) -> pd.DataFrame:
    """Return the memory-equivalent capacity of each layer with weights, in bits.

    A unit with a threshold holds as many bits as it has weights, its bias with them; units side by
    side add up; a layer that reads another holds no more than the bits that come in, one a value.
    The capacity of the network is the sum. The rules speak of decisions: units with real values
    can hold more, and training may find less.

    Args:
        model: any `nn.Module` of fully connected and convolutional layers.
        x: inputs, shape (n_samples, ...), of which one sample will do.
        args: further inputs of the model.
    Returns:
        Columns layer, parameters, inputs (values a sample), bits; in the order of the calls.
    Raises:
        ValueError: another kind of layer with weights, for which there is no rule; or no layer.
    Source: Friedland, Metere & Krell (2018), the four rules [friedland2018practical].
    """
    model = uncompiled(model)
    named = {name: module for name, module in model.named_modules() if not list(module.children())}
    heavy = {
        name: module
        for name, module in named.items()
        if any(weight.ndim >= 2 for weight in module.parameters())
    }
    if other := {n: type(m).__name__ for n, m in heavy.items() if not isinstance(m, _RULED)}:
        raise ValueError(
            f"the rules speak of fully connected and convolutional layers, not {other}"
        )
    if not heavy:
        raise ValueError(f"no layer with weights in {type(model).__name__}")
    rows: list[dict[str, Any]] = []

    def hook(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            z = first_tensor(inputs)
            parameters = sum(weight.numel() for weight in module.parameters())
            rows.append({"layer": name, "parameters": parameters, "inputs": z[0].numel()})

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in heavy.items()]
    try:
        with _evaluation(model), torch.no_grad():
            model(x[:1] if not args else x, *args)
    finally:
        for handle in handles:
            handle.remove()
    table = pd.DataFrame(rows).drop_duplicates("layer", ignore_index=True)
    limits = table["inputs"].where(table.index > 0, table["parameters"])
    return table.assign(bits=table["parameters"].clip(upper=limits))
