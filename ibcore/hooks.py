"""Watch any network at work: activations and gradients, through hooks that clean up."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ibcore.layers import (
    Layers,
    count_samples,
    first_tensor,
    rows,
    select_layers,
    tensors,
    uncompiled,
)
from ibcore.moments import RunningMoments, norms


class _Hooked:
    """Hooks that live inside one `with` block.

    What `torch.compile` made doesn't look for new hooks, and keeps old ones; so it runs as plain
    Python inside the block.
    """

    active = False
    _hooks: ExitStack | None = None

    def _attach(self) -> Iterator[RemovableHandle]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._hooks is not None:
            raise RuntimeError(f"this {type(self).__name__} was used before: make a new one")
        with ExitStack() as hooks:
            hooks.enter_context(torch.compiler.set_stance("force_eager"))
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
        model: any `nn.Module`; one from `torch.compile` runs uncompiled inside the block.
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
        self.model = uncompiled(model)
        self.layers = select_layers(self.model, layers)
        self._by_default = layers is None
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

    def collect(
        self, x: Any, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return each layer's activations over a whole data set, shape (n_samples, ...).

        The model runs in evaluation mode without a graph, and is put back as it was. Of the
        default layers those are left out that the model never calls.

        Args:
            x: inputs, shape (n_samples, ...); or several, all of which are split into batches: a
                tuple goes in as positional arguments, a dict as keyword arguments. A model that
                takes a tuple or dict itself gets it in a tuple: `collect((inputs,))`.
            args: further inputs of the model, passed whole with every batch.
            batch_size: samples a pass; None takes all at once.
            kwargs: further inputs by keyword, passed whole with every batch.
        Raises:
            RuntimeError: outside the `with` block, or when a layer was not called.
            ValueError: inputs without samples or of unequal number, or a layer whose first axis
                is not that of the samples.
        """
        if not self.active:
            raise RuntimeError("collect() works inside the tracker's `with` block")
        n_samples = count_samples(x)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        parts: dict[str, list[Tensor]] = {}
        try:
            with _evaluation(self.model), torch.no_grad():
                for start in range(0, n_samples, batch_size or n_samples):
                    batch = rows(x, slice(start, start + (batch_size or n_samples)))
                    named = batch if isinstance(batch, dict) else {}
                    inputs = batch if isinstance(batch, tuple) else () if named else (batch,)
                    self.model(*inputs, *args, **named, **kwargs)
                    for name, activation in self.activations.items():
                        self._check_samples(name, activation, count_samples(batch))
                        parts.setdefault(name, []).append(activation)
        finally:
            self.activations.clear()
        missing = set(self.layers) - set(parts)
        if missing and not (self._by_default and parts):
            raise RuntimeError(
                f"the forward pass never called {sorted(missing)}: choose others of "
                f"{[name for name, _ in self.model.named_modules() if name]}"
            )
        return {
            name: torch.cat(chunks) if len(chunks) > 1 else chunks[0]
            for name, chunks in parts.items()
        }

    def _check_samples(self, name: str, z: Tensor, n_samples: int) -> None:
        """Raise ValueError where the first axis of what was recorded is not the sample."""
        layer = self.layers.get(name, self.layers.get(name.rpartition(":")[0]))
        # With as many steps as samples the shape says nothing, but torch's own layers do.
        time_first = self._pick is first_tensor and getattr(layer, "batch_first", True) is False
        if z.shape[:1] != (n_samples,) or (time_first and z.ndim == 3):
            raise ValueError(
                f"layer {name!r} puts out shape {tuple(z.shape)} for {n_samples} samples, which "
                "must be the first axis: give the tracker a pick=, such as "
                "pick=lambda output: output[0].transpose(0, 1) where time comes first"
            )


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back to its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Intervention(_Hooked):
    """Changes what chosen layers put out, while the `with` block lasts.

    The layers behind see the changed values: noise or quantisation becomes part of the network, so
    that its layers form a Markov chain. A tracker that is entered before records a layer's output
    as it was, one that is entered after records it changed.

    Args:
        model: any `nn.Module`; one from `torch.compile` runs uncompiled inside the block.
        change: takes what a layer puts out and returns the same with other values: a tensor of the
            same shape, and a tuple for a tuple, as of an `nn.LSTM`. The steps of a recurrent layer
            see each other's states unchanged: the change comes behind the last.
        layers: see `select_layers`.
    Raises:
        ValueError: a layer that the model doesn't have, or a change of shape.
        TypeError: a layer puts out a tuple, list or dict, and the change takes none.
        RuntimeError: the intervention is entered a second time.
    """

    def __init__(
        self, model: nn.Module, change: Callable[[Any], Any], layers: Layers = None
    ) -> None:
        self.layers = select_layers(uncompiled(model), layers)
        self._change = change

    def _attach(self) -> Iterator[RemovableHandle]:
        for name, module in self.layers.items():
            yield module.register_forward_hook(self._apply(name))

    def _apply(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            try:
                changed = self._change(output)
            except (TypeError, AttributeError) as error:
                if isinstance(output, Tensor):
                    raise
                raise TypeError(
                    f"layer {name!r} puts out a {type(output).__name__}, no tensor: the change "
                    "takes and returns it whole, such as "
                    "lambda output: (change(output[0]), *output[1:])"
                ) from error
            before, after = (_describe(value) for value in (output, changed))
            if before != after:
                raise ValueError(
                    f"the change of layer {name!r} must keep the shape {before}, got {after}"
                )
            return changed

        return hook


def _describe(output: Any) -> str:
    """Return the shape of a tensor, or the type of a nest and the shapes of its tensors."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    return f"{type(output).__name__} of {[tuple(tensor.shape) for tensor in tensors(output)]}"


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
        self.model = model = uncompiled(model)
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
