"""Weights to whole multiples of steps: rounding by the layer's inputs and the cost of bits."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from ibcore.checks import stream
from ibcore.codec.tensors import Steps
from ibcore.hooks import _evaluation
from ibcore.layers import uncompiled

PRECISE = 1 / 64  # step of biases and norms, by their root mean square
_DAMP = 0.003  # of the mean curvature, added to each
_VECTORS = 1 << 16  # inputs that moments are taken of
_SLOPES = 256  # samples that gradients are taken of
_LEVELS = 48  # magnitudes whose cost is told apart
_SLOPE = math.log(2) / 6  # d(step²/12) a bit: at fine steps, what a bit saves in squared steps
_Layer = nn.Linear | nn.Conv2d


def quantise(
    model: nn.Module,
    step: float,
    calibration: Tensor | None = None,
    *args: Any,
    trade: float = 1.0,
    factors: Mapping[str, float] | None = None,
    precise: float = PRECISE,
) -> dict[str, Tensor | Steps]:
    """Return the network's weights as whole multiples of a step a tensor.

    Levels minimise g·δᵀHδ + λ·bits: δ is the change of a row, H the second moments of the layer's
    inputs, g the squared gradient of the answer by the row's output. Columns are rounded one by
    one; each error is made good in the columns to come by the inverse of H, and the layer's mean
    output by its bias. Inputs are those of the network with its earlier layers already rounded. λ
    is the slope of squared error by bits at fine steps, times `trade`. Without calibration inputs H
    and g are 1, and errors are not made good. Matrices of other layers than Linear and Conv2d are
    rounded that way, too. Biases and norms get fine steps. What is no float stays as it is.

    Args:
        model: any `nn.Module` that answers with a tensor; it is left as it is.
        step: of weights whose curvature is 1; others are scaled by its root. Without calibration:
            by the root mean square of each tensor.
        calibration: inputs, shape (n_samples, ...); some hundred suffice. None: there are none.
        args: further inputs of the model.
        trade: what a bit may cost; larger values leave more zeros.
        factors: name of a tensor → factor of its step.
        precise: steps of biases and norms, by their root mean square.
    Raises:
        ValueError: a step, trade or precision that is not positive; weights that are not finite.
    Source: Frantar & Alistarh (2022) and Nagel et al. (2019), with a cost of bits; this study.
    """
    for name, value in (("step", step), ("trade", trade + 1e-300), ("precise", precise)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    changed = copy.deepcopy(uncompiled(model))
    found: dict[str, Steps] = {}
    layers = {n: m for n, m in changed.named_modules() if isinstance(m, _Layer)}
    scale = factors or {}
    if calibration is not None:
        curves = _sensitivities(changed, layers, calibration[:_SLOPES], *args)
        means = _mean_inputs(changed, layers, calibration, *args)

        def round_layer(name: str, module: _Layer, x: Tensor) -> None:
            key = f"{name}.weight" if name else "weight"
            if key in found or name not in curves:
                return
            mean, moments = _moments(module, x)
            weight = module.weight.detach().flatten(1).double()
            _check_finite(key, weight)
            size = step * scale.get(key, 1.0)
            levels, size = _second_order(weight, moments, curves[name], size, trade)
            found[key] = Steps(levels.reshape(module.weight.shape), size, module.weight.dtype)
            with torch.no_grad():
                module.weight.copy_(found[key].values())
                if module.bias is not None:
                    new = module.weight.flatten(1).double() @ mean
                    module.bias += (weight @ means[name] - new).to(module.bias)

        with _evaluation(changed), torch.no_grad(), _before(layers, round_layer):
            changed(calibration, *args)
    state = changed.state_dict()
    out: dict[str, Tensor | Steps] = {}
    for name, tensor in state.items():
        if name in found:
            out[name] = found[name]
        elif not tensor.is_floating_point() or not tensor.numel() or not tensor.any():
            out[name] = tensor
        else:
            _check_finite(name, tensor)
            rms = float(tensor.double().square().mean().sqrt())
            if tensor.ndim < 2:
                size = _step(precise * rms)
                levels = (tensor.double() / size).round().long()
            else:
                size = _step(step * rms * scale.get(name, 1.0))
                levels = _plain(tensor.flatten(1).double(), size, trade).reshape(tensor.shape)
            out[name] = Steps(levels, size, tensor.dtype)
    return _share_twins(state, out)


def _step(size: float) -> float:
    return float(np.float32(max(size, 1e-30)))


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{name!r} has NaN or infinite weights: they can't be rounded to steps")


def _share_twins(
    state: Mapping[str, Tensor], out: dict[str, Tensor | Steps]
) -> dict[str, Tensor | Steps]:
    """Let tensors that share their memory share their levels, those of the first rounded layer."""
    first: dict[tuple, Tensor | Steps] = {}
    for name, tensor in state.items():
        if tensor.numel():
            key = (tensor.data_ptr(), tensor.shape, tensor.stride())
            out[name] = first.setdefault(key, out[name])
    return out


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
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    padding = 0 if isinstance(module.padding, str) else module.padding  # text is not asked for
    parts = unfold(x, module.kernel_size, module.dilation, padding, module.stride)
    return parts.movedim(1, -1).reshape(-1, parts.shape[1])


def _moments(module: _Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and second moments of a layer's inputs, of about `_VECTORS` at most."""
    total, mean, count = torch.zeros(()), torch.zeros(()), 0
    for part in x.split(64 if isinstance(module, nn.Conv2d) else 4096):
        rows = _vectors(module, part)
        total, mean = total + (rows.T @ rows).double(), mean + rows.sum(0).double()
        count += len(rows)
        if count >= _VECTORS:
            break
    return mean / count, total / count


def _suits(module: _Layer) -> bool:
    """Whether a convolution's inputs can be laid out by `unfold`."""
    if isinstance(module, nn.Linear):
        return True
    plain = module.groups == 1 and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def _mean_inputs(
    model: nn.Module, layers: Mapping[str, _Layer], x: Tensor, *args: Any
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def see(name: str, module: _Layer, z: Tensor) -> None:
        if _suits(module):
            found.setdefault(name, _moments(module, z)[0])

    with _evaluation(model), torch.no_grad(), _before(layers, see):
        model(x, *args)
    return found


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
        if _suits(module)
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
    total = torch.zeros(len(module.weight), dtype=torch.float64)
    norm = 0.0
    for z, d in zip(x[:_SLOPES].split(32), slope[:_SLOPES].split(32), strict=True):
        rows = _vectors(module, z)
        rows = rows.reshape(len(z), -1, rows.shape[1])  # (samples, places, inputs)
        d = (d.movedim(1, -1) if isinstance(module, nn.Conv2d) else d).to(rows)
        gradient = d.reshape(*rows.shape[:2], -1).mT @ rows
        total += gradient.square().sum((0, 2)).double()
        norm += float(rows.square().sum()) / rows.shape[1]
    g = total / max(norm, 1e-300)
    return g.clamp(min=float(g.mean()) * 1e-3) if g.any() else torch.ones_like(g)


# Rounding


def _second_order(
    weight: Tensor, moments: Tensor, g: Tensor, step: float, trade: float
) -> tuple[Tensor, float]:
    """Return the levels of a matrix, shape (units, inputs), and their step."""
    diagonal = moments.diagonal()
    idle = diagonal == 0  # inputs that are always 0
    moments = moments + torch.diag(_DAMP * diagonal.mean() + idle.double())
    upper = torch.linalg.cholesky(torch.linalg.inv(moments), upper=True)
    importance = upper.diagonal() ** -2  # curvature along a column, the later ones adapting
    importance = torch.where(idle, 0.0, importance)
    mean = float(importance[~idle].mean()) if not idle.all() else 1.0
    size = _step(step / math.sqrt(mean * float(g.mean())))
    price = trade * _SLOPE * step**2
    levels = _rounded_half(weight / size)
    for _ in range(2):
        levels = _columns(weight, upper, importance, g, size, price, _costs(levels))
    return levels.long(), size


def _columns(
    weight: Tensor, upper: Tensor, importance: Tensor, g: Tensor, size: float, price: float,
    costs: Tensor,
) -> Tensor:  # fmt: skip
    """Round column by column, each error made good in those to come."""
    rest = weight.clone()
    levels = torch.zeros_like(weight)
    for j in range(weight.shape[1]):
        column = rest[:, j]
        levels[:, j] = _cheapest(column / size, g * importance[j] * size**2, price, costs[j])
        error = (column - levels[:, j] * size) / upper[j, j]
        rest[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]
    return levels


def _cheapest(exact: Tensor, curvature: Tensor, price: float, costs: Tensor) -> Tensor:
    """Return of three levels (nearest, one nearer to 0, and 0) the cheapest in error and bits."""
    nearest = exact.round()
    tried = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
    bits = costs[tried.abs().clamp(max=_LEVELS - 1).long()]
    best = (curvature * (tried - exact) ** 2 + price * bits).argmin(0)
    return tried.gather(0, best[None])[0]


def _costs(levels: Tensor) -> Tensor:
    """Return bits of each magnitude in each column, (columns, `_LEVELS`), among columns alike."""
    busy = levels.abs().mean(0)
    group = (busy.clamp(min=2**-7).log2() * 2 + 14).round().long().clamp(0, 31)
    sizes = levels.abs().clamp(max=_LEVELS - 1).long()
    counts = torch.zeros(32, _LEVELS, dtype=torch.float64)
    index = group[None].expand_as(sizes)
    counts.index_put_((index.reshape(-1), sizes.reshape(-1)), torch.ones(()).double(), True)
    overall = counts.sum(0) + 2.0 ** -torch.arange(1, _LEVELS + 1)
    counts += 8 * overall / overall.sum()
    bits = -(counts / counts.sum(1, keepdim=True)).log2()
    bits[:, 1:] += 1  # the sign
    return bits[group]


def _rounded_half(exact: Tensor) -> Tensor:
    """Return levels that err towards 0, as the cheapest will."""
    return exact.sign() * (exact.abs() + 0.3).floor()


def _plain(weight: Tensor, size: float, trade: float) -> Tensor:
    """Return levels where nothing is known of the inputs."""
    levels = _rounded_half(weight / size)
    one = torch.ones(len(weight), dtype=torch.float64)
    for _ in range(2):
        costs = _costs(levels)
        levels = torch.stack(
            [
                _cheapest(weight[:, j] / size, one, trade * _SLOPE, costs[j])
                for j in range(weight.shape[1])
            ],
            1,
        )
    return levels.long()
