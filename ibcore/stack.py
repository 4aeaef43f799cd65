"""Many networks of one form as one function of stacked weights, and which networks allow it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.functional import cross_entropy

_INSTEAD = "Train such networks one by one: fit() in a loop over the seeds"


def stack(
    models: list[nn.Module],
) -> tuple[dict[str, Any], dict[str, Any], Callable[[Tensor], Tensor]]:
    """Return weights and buffers of all models, stacked, and the pass of all models with them.

    Args:
        models: networks of the same form.
    Returns:
        Weights by name, shape (n_models, ...); buffers alike; a function from inputs
        (n_models, n_samples, ...) to logits (n_models, n_samples, n_classes).
    """
    params, buffers = stack_module_state(models)

    def one(params: Any, buffers: Any, inputs: Tensor) -> Any:
        return functional_call(models[0], (params, buffers), (inputs,))

    def forward(inputs: Tensor) -> Tensor:
        logits: Tensor = torch.func.vmap(one)(params, buffers, inputs)
        return logits

    return params, buffers, forward


def check_networks(models: list[nn.Module], x: Tensor, y: Tensor) -> None:
    """Raise ValueError where a stack of models doesn't do what each of them does alone.

    Compared are logits, gradients and buffers of copies of the first and the last model after one
    pass in training mode.

    Args:
        models: networks that shall be stacked.
        x: a few inputs, shape (n_samples, ...).
        y: their labels, shape (n_samples,).
    """
    kinds = [[type(module) for module in model.modules()] for model in models]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError("the networks of an ensemble need the same layers for every seed")
    twice = {n for n, _ in models[0].named_modules(remove_duplicate=False)} - {
        n for n, _ in models[0].named_modules()
    }
    if twice:  # torch.func.functional_call would leave the stack's weights in the network
        raise ValueError(
            f"{type(models[0]).__name__} can't be trained in a stack: {sorted(twice)} are second "
            f"names of layers. {_INSTEAD}"
        )
    alone = [copy.deepcopy(model).train() for model in (models[0], models[-1])]
    together = [copy.deepcopy(model) for model in alone]
    expected = torch.stack([model(x) for model in alone])
    sum(cross_entropy(logits, y) for logits in expected).backward()  # type: ignore[union-attr]
    try:
        params, buffers, forward = stack(together)
        logits = forward(x.expand(2, *x.shape))
        sum(cross_entropy(z, y) for z in logits).backward()  # type: ignore[union-attr]
    except Exception as error:  # torch has many ways to say that it can't
        kind = type(models[0]).__name__
        raise ValueError(
            f"{kind} can't be trained in a stack. {_INSTEAD}. ({_first_line(error)})"
        ) from error
    differ = [] if _agree(logits, expected) else ["logits"]
    for run, model in enumerate(alone):
        differ += [n for n, b in model.named_buffers() if not _agree(buffers[n][run], b)]
        pairs = {n: (params[n].grad, p.grad) for n, p in model.named_parameters()}
        differ += [n for n, (a, b) in pairs.items() if b is not None and not _agree(a[run], b)]
        differ += _rounding_alone(model)
    if differ:
        raise ValueError(
            f"{type(models[0]).__name__} in a stack is not what it is alone; it differs in "
            f"{sorted(set(differ))}. A bias before a batch norm changes nothing and moves by "
            f"rounding alone: leave it out (bias=False). {_INSTEAD}"
        )


def _rounding_alone(model: nn.Module) -> list[str]:
    """Return biases of a model with batch norm whose gradient is rounding, beside the largest."""
    if not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules()):
        return []
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in found.values())
    # A sum of terms of the largest size that cancel leaves some ε of it.
    return [
        name
        for name, gradient in found.items()
        if gradient.ndim == 1
        and 0 < gradient.abs().max() < 64 * torch.finfo(gradient.dtype).eps * largest
    ]


def check_optimizer(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """Raise ValueError where an optimiser moves stacked weights otherwise than each alone.

    Two steps with the same made-up gradients are compared, for a matrix and a bias.
    """
    draw = torch.Generator().manual_seed(0)
    start, *gradients = (
        [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((2, 3, 4), (2, 3))]
        for _ in range(3)
    )

    def moved(run: Any) -> list[Tensor]:
        weights = [weight[run].clone().requires_grad_() for weight in start]
        steps = optimizer(weights, lr=0.01)
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = gradient[run].clone()
            steps.step()
        return [weight.detach() - old[run] for weight, old in zip(weights, start, strict=True)]

    refusal = f"{optimizer} can't train a stack of networks: it must work element by element"
    try:
        together, alone = moved(slice(None)), [moved(run) for run in (0, 1)]
    except Exception as error:
        raise ValueError(f"{refusal}. {_INSTEAD}. ({_first_line(error)})") from error
    for both, *single in zip(together, *alone, strict=True):
        if not _agree(both, torch.stack(single)):
            raise ValueError(f"{refusal}. {_INSTEAD}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _agree(a: Tensor, b: Tensor) -> bool:
    """Return whether a is b up to a hundredth of the largest value; rounding is far below."""
    far = (a.double() - b.double()).abs() > 0.01 * b.double().abs().amax()
    return not bool(far.any())  # NaN agrees: it is for the training to name its seed
