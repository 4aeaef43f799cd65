"""Train many seeds of one network at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ibcore.data import Dataset
from ibcore.hooks import ActivationTracker
from ibcore.layers import Layers, select_layers
from ibcore.moments import RunningMoments, norms
from ibcore.stack import check_networks, check_optimizer, stack
from ibcore.threads import threads_for
from ibcore.training import (
    History,
    Snapshot,
    batches,
    check_data,
    check_loss,
    check_settings,
    score,
)


def fit_ensemble(
    build: Callable[[int], nn.Module],
    ds: Dataset | Sequence[Dataset],
    *,
    seeds: Sequence[int],
    epochs: int,
    learning_rate: float,
    batch_size: int | None = None,
    snapshots: Sequence[int] | None = None,
    layers: Layers = None,
    on_snapshot: Callable[[Snapshot], Any] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    progress: bool = True,
) -> History:
    """Train one network a seed, all at once, and return what was seen at the snapshots.

    The weights of all networks are stacked and trained in one pass (`torch.func`). Seed by seed the
    result is that of `fit(build(seed), ds, seed=seed, ...)` to floating-point accuracy. A trial on
    a few samples comes first, and what would not agree is refused: recurrent layers, dropout, a
    layer under two names, a branch on data, a bias before a batch norm, an optimiser that doesn't
    work element by element. Gradient statistics are always kept; activations go to `on_snapshot`,
    as stored they would not fit in memory. The trained networks are `History.models`.

    Args:
        build: makes the network of a seed.
        ds: the data, or one data set a seed: the same x and y with splits of one size.
        seeds: one network each.
        layers: what to record, see `select_layers`.
        on_snapshot: takes a `Snapshot` for each seed; None records no activations.
        epochs: as in `fit`, and so are learning_rate, batch_size, snapshots, optimizer, progress.
        learning_rate: step size of the optimiser.
        batch_size: samples a step; None takes all training samples.
        snapshots: epochs to look at.
        optimizer: optimiser class, or what makes one.
        progress: whether to draw a progress bar.
    Raises:
        TrainingDivergedError: the loss of a seed is no longer finite.
        ValueError: a setting out of range, data sets that don't fit together, or networks or an
            optimiser that can't be trained in a stack: train them by `fit` in a loop.
    """
    seeds = list(seeds)
    wanted = check_settings(epochs, learning_rate, batch_size, snapshots)
    data = _one_split_a_seed(ds, seeds)
    models = [build(seed) for seed in seeds]
    template = models[0]
    device = check_data(template, data[0])
    x, y = data[0].x.to(device), data[0].y.to(device)
    if on_snapshot:
        select_layers(template, layers)
    few = data[0].train[: min(batch_size or 64, 64)].to(device)
    check_networks(models, x[few], y[few])
    check_optimizer(optimizer)
    params, buffers, forward = stack(models)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weights = {name: p for name, p in params.items() if p.ndim >= 3 and p.requires_grad}
    steps = optimizer(list(params.values()), lr=learning_rate)
    history = History()
    for epoch in tqdm(range(1, epochs + 1), "training", disable=not progress, unit="epoch"):
        look = epoch in wanted
        moments = {name: RunningMoments() for name in weights} if look else {}
        template.train()
        rounds = [batches(d.train, batch_size, g) for d, g in zip(data, generators, strict=True)]
        with threads_for(template, len(seeds) * (batch_size or len(data[0].train))):
            for batch in zip(*rounds, strict=True):
                index = torch.stack(batch).to(device)
                losses = cross_entropy(forward(x[index]).mT, y[index], reduction="none").mean(1)
                check_loss(losses.detach(), seeds, epoch, learning_rate)
                steps.zero_grad()
                losses.sum().backward()
                for name, moment in moments.items():
                    if (gradient := weights[name].grad) is not None:  # None where it is not used
                        moment.update(gradient)
                steps.step()
        if look:
            history.gradient_rows += _gradient_rows(moments, weights, seeds, epoch)
            template.eval()
            with torch.no_grad():
                logits = forward(x.expand(len(seeds), *x.shape))
            scores = [score(z, y, d) for z, d in zip(logits, data, strict=True)]
            losses = torch.tensor([found["train_loss"] for found in scores])
            check_loss(losses, seeds, epoch, learning_rate)
            history.scores += [
                {"run": seed, "epoch": epoch, **found}
                for seed, found in zip(seeds, scores, strict=True)
            ]
            for run, seed in enumerate(seeds if on_snapshot else ()):
                _set_state(template, {**params, **buffers}, run)
                with ActivationTracker(template, layers) as tracker:
                    on_snapshot(Snapshot(seed, epoch, tracker.collect(x)))  # type: ignore[misc]
    for run, model in enumerate(models):
        _set_state(model.eval(), {**params, **buffers}, run)
    history.models = models
    return history


@torch.no_grad()
def _set_state(model: nn.Module, stacked: dict[str, Tensor], run: int) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        value.copy_(stacked[name][run])


def _gradient_rows(
    moments: dict[str, RunningMoments], weights: dict[str, Tensor], seeds: list[int], epoch: int
) -> list[dict[str, Any]]:
    by_weight = {
        name: {k: v.tolist() for k, v in norms(moments[name], weight, dims=1).items()}
        for name, weight in weights.items()
    }
    return [
        {"run": seed, "epoch": epoch, "weight": name, **{k: v[run] for k, v in found.items()}}
        for run, seed in enumerate(seeds)
        for name, found in by_weight.items()
    ]


def _one_split_a_seed(ds: Dataset | Sequence[Dataset], seeds: list[int]) -> list[Dataset]:
    data = [ds] * len(seeds) if isinstance(ds, Dataset) else list(ds)
    if not seeds or len(data) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds need as many data sets, got {len(data)}")
    if any(d.edge_index is not None for d in data):
        raise ValueError("fit_ensemble takes no graph: train graph networks with fit()")
    if not all(_same(d.x, data[0].x) and _same(d.y, data[0].y) for d in data):
        raise ValueError(
            "the data sets of an ensemble need the same x and y; only splits may differ"
        )
    if len({len(d.train) for d in data}) > 1:
        raise ValueError(
            "the data sets of an ensemble need splits of one size, got "
            f"{[len(d.train) for d in data]} training samples"
        )
    return data


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)
