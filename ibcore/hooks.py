"""Watch any network at work: activations and gradients, through hooks that clean up."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Layers = str | type[nn.Module] | Sequence[str | type[nn.Module]] | None


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor in a module's output: itself, or the first in a tuple, list or dict.

    Raises:
        TypeError: there is no tensor in it.
    """
    found = next(_tensors(output), None)
    if found is None:
        raise TypeError(f"no tensor in a module's output of type {type(output).__name__}")
    return found


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list | dict):
        for item in output.values() if isinstance(output, dict) else output:
            yield from _tensors(item)


def select_layers(model: nn.Module, layers: Layers = None) -> dict[str, nn.Module]:
    """Return the chosen submodules by name, in the model's own order.

    Args:
        model: any module.
        layers: names, glob patterns ("linear*") or module types, one or several; None takes every
            activation module, or every module without children where the model has none.
    Raises:
        ValueError: a name, pattern or type that no submodule has; the error lists those there are.
            A model without submodules, or an empty choice.
    """
    named = {name: module for name, module in model.named_modules() if name}
    if not named:
        raise ValueError(f"{type(model).__name__} has no layers to track: it has no submodules")
    if layers is None:
        names = set(nn.modules.activation.__all__) - {"MultiheadAttention"}
        kinds = tuple(getattr(nn.modules.activation, name) for name in names)
        chosen = {n: m for n, m in named.items() if isinstance(m, kinds)}
        return chosen or {n: m for n, m in named.items() if not list(m.children())}
    wanted = [layers] if isinstance(layers, str | type) else list(layers)
    if not wanted:
        raise ValueError(f"no layers were asked for: the model has {list(named)}")
    for want in wanted:
        if not any(_matches(name, module, want) for name, module in named.items()):
            raise ValueError(f"no layer matches {want!r}: the model has {list(named)}")
    return {n: m for n, m in named.items() if any(_matches(n, m, want) for want in wanted)}


def _matches(name: str, module: nn.Module, want: str | type[nn.Module]) -> bool:
    return fnmatch.fnmatchcase(name, want) if isinstance(want, str) else isinstance(module, want)


class _Hooked:
    """Hooks that live inside one `with` block."""

    active = False
    _hooks: ExitStack | None = None

    def _attach(self) -> Iterator[RemovableHandle]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._hooks is not None:
            raise RuntimeError(f"this {type(self).__name__} was used before: make a new one")
        with ExitStack() as hooks:
            for handle in self._attach():
                hooks.callback(handle.remove)
            self._hooks = hooks.pop_all()
        self.active = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.active = False
        if self._hooks:
            self._hooks.close()


class ActivationTracker(_Hooked):
    """Records what chosen layers put out, while the `with` block lasts.

    After a forward pass `activations` holds a detached copy of each layer's output; the second
    call of a shared module in the same pass is recorded as "name:2", and so on.

    Args:
        model: any `nn.Module`.
        layers: see `select_layers`.
        pick: takes the representation out of a module's output; by default the first tensor.
    Raises:
        ValueError: a layer that the model doesn't have.
        RuntimeError: the tracker is entered a second time.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = None,
        pick: Callable[[Any], Tensor] = first_tensor,
    ) -> None:
        self.model = model
        self.layers = select_layers(model, layers)
        self.activations: dict[str, Tensor] = {}
        self._pick = pick

    def _attach(self) -> Iterator[RemovableHandle]:
        yield self.model.register_forward_pre_hook(lambda *_: self.activations.clear())
        for name, module in self.layers.items():
            yield module.register_forward_hook(self._record(name))

    def _record(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls = sum(key.split(":")[0] == name for key in self.activations)
            key = f"{name}:{calls + 1}" if calls else name
            # A copy, because a later layer may work in place.
            self.activations[key] = self._pick(output).detach().clone()

        return hook

    def collect(self, x: Tensor, *args: Any, batch_size: int | None = None) -> dict[str, Tensor]:
        """Return each layer's activations over a whole data set, shape (n_samples, ...).

        The model runs in evaluation mode without a graph, and is put back as it was.

        Args:
            x: inputs, shape (n_samples, ...).
            args: further inputs of the model, passed whole with every batch.
            batch_size: samples a pass; None takes all at once.
        Raises:
            RuntimeError: outside the `with` block, or when a layer was not called.
        """
        if not self.active:
            raise RuntimeError("collect() works inside the tracker's `with` block")
        modes = [(module, module.training) for module in self.model.modules()]
        parts: dict[str, list[Tensor]] = {}
        self.model.eval()
        try:
            with torch.no_grad():
                for batch in x.split(batch_size or len(x)):
                    self.model(batch, *args)
                    for name, activation in self.activations.items():
                        parts.setdefault(name, []).append(activation)
        finally:
            for module, mode in modes:
                module.training = mode
            self.activations.clear()
        missing = set(self.layers) - set(parts)
        if missing:
            raise RuntimeError(f"the forward pass never called {sorted(missing)}")
        return {
            name: torch.cat(chunks) if len(chunks) > 1 else chunks[0]
            for name, chunks in parts.items()
        }


class Intervention(_Hooked):
    """Changes what chosen layers put out, while the `with` block lasts.

    The layers behind see the changed values: noise or quantisation becomes part of the network, so
    that its layers form a Markov chain. A tracker that is entered before records a layer's output
    as it was, one that is entered after records it changed.

    Args:
        model: any `nn.Module`.
        change: takes a layer's output, a tensor, and returns a tensor of the same shape.
        layers: see `select_layers`.
    Raises:
        ValueError: a layer that the model doesn't have, or a change of shape.
        TypeError: a layer puts out something else than a tensor.
        RuntimeError: the intervention is entered a second time.
    """

    def __init__(
        self, model: nn.Module, change: Callable[[Tensor], Tensor], layers: Layers = None
    ) -> None:
        self.layers = select_layers(model, layers)
        self._change = change

    def _attach(self) -> Iterator[RemovableHandle]:
        for name, module in self.layers.items():
            yield module.register_forward_hook(self._apply(name))

    def _apply(self, name: str) -> Callable[[nn.Module, Any, Any], Tensor]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} puts out a {type(output).__name__}, no tensor")
            changed = self._change(output)
            if changed.shape != output.shape:
                raise ValueError(
                    f"the change of layer {name!r} must keep the shape {tuple(output.shape)}, "
                    f"got {tuple(changed.shape)}"
                )
            return changed

        return hook


class RunningMoments:
    """Mean and variance of a stream of tensors in one pass, element by element.

    Source: Welford (1962) [welford1962note].
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def update(self, value: Tensor) -> None:
        """Take in one more tensor, of the same shape as those before."""
        value = value.detach().double()
        self.count += 1
        delta = value - self.mean.to(value.device)
        self.mean = self.mean.to(value.device) + delta / self.count
        self._squares = self._squares.to(value.device) + delta * (value - self.mean)

    @property
    def variance(self) -> Tensor:
        """Mean squared distance from the mean (divided by the count, as in eq. 3.8)."""
        return self._squares / max(self.count, 1)


class GradientTracker(_Hooked):
    """Keeps the running mean and variance of each weight's gradient over batches.

    Nothing is stored a batch: `statistics` sums up all backward passes since `reset`.

    Args:
        model: any `nn.Module`.
        layers: modules whose weights to watch, see `select_layers`; None takes all. Biases and
            other one-dimensional parameters are left out, as in eq. 3.7.
    Raises:
        ValueError: a layer that the model doesn't have, or layers without weight matrices.
        RuntimeError: the tracker is entered a second time.
    Source: the thesis, eq. 3.7-3.9 [landsverk2021inductive].
    """

    def __init__(self, model: nn.Module, layers: Layers = None) -> None:
        modules = {"": model} if layers is None else select_layers(model, layers)
        self.weights = {
            ".".join(filter(None, (prefix, name))): weight
            for prefix, module in modules.items()
            for name, weight in module.named_parameters()
            if weight.ndim >= 2 and weight.requires_grad
        }
        if not self.weights:
            raise ValueError(f"no weight matrices to track in {list(modules) or 'the model'}")
        self.reset()

    def reset(self, paused: bool = False) -> None:
        """Forget the batches seen so far; a paused tracker sees none until the next reset."""
        self.paused = paused
        self.moments = {name: RunningMoments() for name in self.weights}

    def _attach(self) -> Iterator[RemovableHandle]:
        for name, weight in self.weights.items():
            yield weight.register_hook(self._record(name))

    def _record(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not self.paused:
                self.moments[name].update(gradient)

        return hook

    def statistics(self) -> list[dict[str, Any]]:
        """Return a row a weight: weight (its name), mean_norm, deviation_norm and weight_norm."""
        return [
            {"weight": name, **{k: float(v) for k, v in norms(self.moments[name], weight).items()}}
            for name, weight in self.weights.items()
        ]


def norms(moments: RunningMoments, weight: Tensor, dims: int = 0) -> dict[str, Tensor]:
    """Return ‖mean gradient‖₂, ‖deviation of the gradient‖₂ and ‖W‖₂.

    Args:
        moments: the gradient's moments over the batches of an epoch.
        weight: the weight at the epoch's end, of the gradient's shape.
        dims: leading dimensions to keep, as of an ensemble; the norm runs over the others.
    Source: the thesis, eq. 3.7-3.9 [landsverk2021inductive].
    """
    weight = weight.detach().double()

    def norm(value: Tensor) -> Tensor:
        return value.expand_as(weight).flatten(dims).square().sum(-1).sqrt()

    return {
        "mean_norm": norm(moments.mean),
        "deviation_norm": norm(moments.variance.clamp(min=0).sqrt()),
        "weight_norm": norm(weight),
    }
