"""Which layers of a network, by name, pattern or type; and the tensors in what one puts out."""

import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

Layers = str | type[nn.Module] | Sequence[str | type[nn.Module]] | None

_ACTIVATIONS = tuple(
    getattr(nn.modules.activation, name)
    for name in set(nn.modules.activation.__all__) - {"MultiheadAttention"}
)


def tensors(output: Any) -> Iterator[Tensor]:
    """Yield every tensor in a tensor, or in a nest of tuples, lists and dicts, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list | dict):
        for item in output.values() if isinstance(output, dict) else output:
            yield from tensors(item)


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor in a module's output: itself, or the first in a tuple, list or dict.

    Raises:
        TypeError: there is no tensor in it.
    """
    found = next(tensors(output), None)
    if found is None:
        raise TypeError(f"no tensor in a module's output of type {type(output).__name__}")
    return found


def rows(x: Any, chosen: slice) -> Any:
    """Return the same nest of tensors, of which each is cut to some rows."""
    if isinstance(x, dict):
        return {key: rows(value, chosen) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(rows(value, chosen) for value in x)
    return x[chosen] if isinstance(x, Tensor) else x


def count_samples(x: Any) -> int:
    """Return the length of all tensors in x; raise ValueError where there is none, or not one."""
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors(x)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "x must be a tensor of at least one sample, or a tuple or dict of tensors with as "
            f"many samples each; got {type(x).__name__} with {sorted(sizes)} samples. What is no "
            "sample's own goes behind x, as a further input"
        )
    return sizes.pop()


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` wrapped, or the module itself."""
    return getattr(model, "_orig_mod", model)


def select_layers(model: nn.Module, layers: Layers = None) -> dict[str, nn.Module]:
    """Return the chosen submodules by name, in the model's own order.

    A module that is registered twice goes by its first name, unless it is asked for by another. A
    model without submodules, such as a bare `nn.LSTM`, is its own layer: "lstm", after its class.

    Args:
        model: any module.
        layers: names, glob patterns ("linear*") or module types, one or several; None takes every
            activation module, or every module without children where the model has none (an
            `nn.MultiheadAttention` counts as one: it never calls its children).
    Raises:
        ValueError: a name, pattern or type that no submodule has; the error lists those there are.
            An empty choice.
    """
    every = {n: m for n, m in model.named_modules(remove_duplicate=False) if n}
    if not every or isinstance(model, nn.MultiheadAttention):
        every = {type(model).__name__.lower(): model}
    first = {name for name, _ in model.named_modules()}
    named = {n: m for n, m in every.items() if n in first} or every
    if layers is None:
        chosen = {n: m for n, m in named.items() if isinstance(m, _ACTIVATIONS)}
        return chosen or {n: m for n, m in named.items() if _is_leaf(n, m, named)}
    wanted = [layers] if isinstance(layers, str | type) else list(layers)
    if not wanted:
        raise ValueError(f"no layers were asked for: the model has {list(named)}")
    names: set[str] = set()
    for want in wanted:
        found = _matching(named, want) or _matching(every, want)
        if not found:
            raise ValueError(f"no layer matches {want!r}: the model has {list(every)}")
        names |= found
    return {n: m for n, m in every.items() if n in names}


def _matching(named: dict[str, nn.Module], want: str | type[nn.Module]) -> set[str]:
    if isinstance(want, str):
        return {name for name in named if fnmatch.fnmatchcase(name, want)}
    return {name for name, module in named.items() if isinstance(module, want)}


def _is_leaf(name: str, module: nn.Module, named: dict[str, nn.Module]) -> bool:
    attention = nn.MultiheadAttention
    if isinstance(named.get(name.rpartition(".")[0]), attention):
        return False
    return isinstance(module, attention) or not list(module.children())
