"""Weights to whole multiples of steps: rounding by the layer's inputs and the cost of bits."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from ibcore.checks import stream
from ibcore.codec.rounding import curvature, float_step, plain, second_order, trellis
from ibcore.codec.tensors import Steps
from ibcore.hooks import _evaluation
from ibcore.layers import uncompiled

PRECISE = 1 / 64  # step of biases, by their root mean square
_VECTORS = 1 << 16  # inputs that moments are taken of
_SLOPES = 256  # samples that gradients are taken of
_Layer = nn.Linear | nn.Conv2d


def quantise(
    model: nn.Module,
    step: float,
    calibration: Tensor | None = None,
    *args: Any,
    trade: float = 1.0,
    factors: Mapping[str, float] | None = None,
    precise: float = PRECISE,
    dependent: bool = False,
) -> dict[str, Tensor | Steps]:
    """Return the network's weights as whole multiples of a step a tensor.

    Levels minimise g·δᵀHδ + λ·bits: δ is the change of a row, H the second moments of the layer's
    inputs, g the squared gradient of the answer by the row's output. Columns are rounded one by
    one; each error is made good in the columns to come by the inverse of H, and the layer's mean
    output by its bias. Inputs are those of the network with its earlier layers already rounded. λ
    is the slope of squared error by bits at fine steps, times `trade`. Without calibration inputs H
    and g are 1, and errors are not made good. Matrices of other layers than Linear and Conv2d are
    rounded that way, too. Biases get fine steps; norms, and what is no float, stay as they are.

    Args:
        model: any `nn.Module` that answers with a tensor; it is left as it is.
        step: of weights whose curvature is 1; others are scaled by its root. Without calibration:
            by the root mean square of each tensor.
        calibration: inputs, shape (n_samples, ...); some hundred suffice. None: there are none.
        args: further inputs of the model.
        trade: what a bit may cost; larger values leave more zeros.
        factors: name of a tensor → factor of its step.
        precise: steps of biases, by their root mean square.
        dependent: whether matrices without inputs get levels that depend on those before, by a
            trellis: some 8 % fewer bytes at equal squared error, at steps 1.7 times finer.
    Raises:
        ValueError: a step, trade or precision that is not positive; weights that are not finite.
    Source: Frantar & Alistarh (2022) and Nagel et al. (2019), with a cost of bits; Haase et al.
    (2020) [haase2020dependent] for dependent levels; this study.
    """
    return Rounding(model, calibration, *args)(step, trade, factors, precise, dependent)


class Rounding:
    """`quantise` for many steps of one network: what does not hang on them is found once.

    Args:
        model: see `quantise`.
        calibration: see `quantise`.
        args: further inputs of the model.
    """

    def __init__(self, model: nn.Module, calibration: Tensor | None = None, *args: Any) -> None:
        self.model, self.x, self.args = uncompiled(model), calibration, args
        self.curves: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        self.first: dict[str, Seen] = {}
        if calibration is None:
            return
        layers = _layers(self.model)
        for name, module in layers.items():
            _check_finite(name, module.weight)
        self.curves = _sensitivities(self.model, layers, calibration[:_SLOPES], *args)
        self._look(layers)

    def __call__(
        self,
        step: float,
        trade: float = 1.0,
        factors: Mapping[str, float] | None = None,
        precise: float = PRECISE,
        dependent: bool = False,
    ) -> dict[str, Tensor | Steps]:
        """Return the weights; see `quantise`."""
        for name, value in (("step", step), ("trade", trade + 1e-300), ("precise", precise)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        sizes: dict[str, float] = defaultdict(lambda: step)
        sizes |= {name: step * factor for name, factor in (factors or {}).items()}
        changed, found = self.model, dict[str, Steps]()
        if self.x is not None:
            changed = copy.deepcopy(self.model)
            found = self._by_inputs(changed, sizes, trade)
        out: dict[str, Tensor | Steps] = {}
        first: dict[tuple, str] = {}
        for name, tensor in changed.state_dict().items():
            twin = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
            if tensor.numel() and twin != name:
                out[name] = out[twin]
            else:
                out[name] = found.get(name) or _alone(
                    name, tensor, sizes[name], trade, precise, dependent
                )
        return out

    def _look(self, layers: Mapping[str, _Layer]) -> None:
        """Keep each layer's mean input, and all of the layer's that is called first.

        What comes before that one has no weights to round, so its inputs stay what they are.
        """

        def see(name: str, module: _Layer, z: Tensor) -> None:
            mean, moments = _moments(module, z)
            if not self.means:
                self.first[name] = Seen(mean, curvature(moments))
            self.means.setdefault(name, mean)

        with _evaluation(self.model), torch.no_grad(), _before(layers, see):
            self.model(self.x, *self.args)

    def _by_inputs(
        self, model: nn.Module, sizes: Mapping[str, float], trade: float
    ) -> dict[str, Steps]:
        """Round each layer's weights, in place, when a pass through the network comes to it."""
        layers = _layers(model)
        found: dict[str, Steps] = {}

        def round_layer(name: str, module: _Layer, z: Tensor) -> None:
            if name not in self.curves or any(layers[n].weight is module.weight for n in found):
                return
            seen = self.first.get(name)
            if seen is None:
                mean, moments = _moments(module, z)
                seen = Seen(mean, curvature(moments))
            weight = module.weight.flatten(1).double()
            levels, size = second_order(
                weight, *seen.curvature, self.curves[name], sizes[name], trade
            )
            found[name] = Steps(levels.reshape(module.weight.shape), size, module.weight.dtype)
            module.weight.copy_(found[name].values())
            if module.bias is not None:
                new = module.weight.flatten(1).double()
                module.bias += (weight @ self.means[name] - new @ seen.mean).to(module.bias)

        with _evaluation(model), torch.no_grad(), _before(layers, round_layer):
            model(self.x, *self.args)
        return found


class Seen(NamedTuple):
    """Mean of a layer's inputs, and what `curvature` makes of their second moments."""

    mean: Tensor
    curvature: tuple[Tensor, Tensor]


def _layers(model: nn.Module) -> dict[str, _Layer]:
    """Return the layers that are rounded by their inputs, by the name of their weights."""
    return {
        f"{n}.weight" if n else "weight": m
        for n, m in model.named_modules()
        if isinstance(m, _Layer) and _suits(m) and m.weight.numel()
    }


def _alone(
    name: str, tensor: Tensor, step: float, trade: float, precise: float, dependent: bool
) -> Tensor | Steps:
    """Return a matrix or a bias as steps, by its values alone; what else there is, as it is."""
    is_bias = tensor.ndim == 1 and name.split(".")[-1] == "bias"
    if not tensor.is_floating_point() or not tensor.any() or not (is_bias or tensor.ndim > 1):
        return tensor
    _check_finite(name, tensor)
    rms = float(tensor.double().square().mean().sqrt())
    size = float_step((precise if is_bias else step) * rms)
    exact = tensor.double() / size
    if is_bias:
        return Steps(exact.round().long(), size, tensor.dtype)
    levels = (trellis if dependent else plain)(exact.flatten(1), trade)
    return Steps(levels.reshape(tensor.shape), size, tensor.dtype, dependent)


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{name!r} has NaN or infinite weights: they can't be rounded to steps")


# What a layer sees


@contextmanager
def _before(
    layers: Mapping[str, _Layer], see: Callable[[str, _Layer, Tensor], None]
) -> Iterator[None]:
    """Call `see` with a layer's name, module and input before each of its passes."""
    handles = [
        module.register_forward_pre_hook(lambda m, x, name=name: see(name, m, x[0].detach()))
        for name, module in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _vectors(module: _Layer, x: Tensor) -> Tensor:
    """Return what a layer's weights are multiplied with, shape (n_vectors, weights a row)."""
    x = x.float() if x.dtype.itemsize < 4 else x
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    padding = 0 if isinstance(module.padding, str) else module.padding  # text is not asked for
    parts = unfold(x, module.kernel_size, module.dilation, padding, module.stride)
    return parts.movedim(1, -1).reshape(-1, parts.shape[1])


def _moments(module: _Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and second moments of a layer's inputs, of about `_VECTORS` at most.

    Sums are of what lies beside a center, so that float32 keeps inputs that hardly change.
    """
    total, beside, count = torch.zeros(()), torch.zeros(()), 0
    center = torch.zeros(())
    for part in x.split(64 if isinstance(module, nn.Conv2d) else 4096):
        rows = _vectors(module, part)
        center = center if count else rows.mean(0)
        rows = rows - center
        total, beside = total + (rows.T @ rows).double(), beside + rows.sum(0).double()
        count += len(rows)
        if count >= _VECTORS:
            break
    near, off = center.double(), beside / count
    moments = total / count + torch.outer(near, near + off) + torch.outer(off, near)
    return near + off, (moments + moments.T) / 2


def _suits(module: _Layer) -> bool:
    """Whether a convolution's inputs can be laid out by `unfold`."""
    if isinstance(module, nn.Linear):
        return True
    plain = module.groups == 1 and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def _sensitivities(
    model: nn.Module, layers: Mapping[str, _Layer], x: Tensor, *args: Any
) -> dict[str, Tensor]:
    """Return of each layer's units the squared gradient of the answer by a row, over |input|².

    The answer is a sum of outputs with random signs; a unit's places add up before the square.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def see(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.setdefault(name, (inputs[0].detach(), output))

    handles = [
        module.register_forward_hook(lambda m, i, o, n=name: see(n, i, o))
        for name, module in layers.items()
    ]
    try:
        with _evaluation(model), torch.enable_grad():
            answer = model(x, *args)
    finally:
        for handle in handles:
            handle.remove()
    signs = torch.randint(0, 2, answer.shape, generator=stream(0, "quantise")).to(answer) * 2 - 1
    used = {name: (z, out) for name, (z, out) in seen.items() if out.requires_grad}
    outputs = [out for _, out in used.values()]
    slopes = torch.autograd.grad((answer * signs).sum(), outputs, allow_unused=True)
    return {
        name: _row_sensitivity(layers[name], used[name][0], slope)
        for name, slope in zip(used, slopes, strict=True)
        if slope is not None
    }


def _row_sensitivity(module: _Layer, x: Tensor, slope: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    norm = 0.0
    for z, d in zip(x[:_SLOPES].split(32), slope[:_SLOPES].split(32), strict=True):
        rows = _vectors(module, z)
        rows = rows.reshape(len(z), -1, rows.shape[1])  # (samples, places, inputs)
        d = (d.movedim(1, -1) if isinstance(module, nn.Conv2d) else d).to(rows)
        gradient = d.reshape(*rows.shape[:2], -1).mT @ rows
        total = total + gradient.square().sum((0, 2)).double()
        norm += float(rows.square().sum()) / rows.shape[1]
    g = total / max(norm, 1e-300)
    return g.clamp(min=float(g.mean()) * 1e-3) if g.any() else torch.ones_like(g)
