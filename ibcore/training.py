"""Train one network, with snapshots on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ibcore.data import Dataset
from ibcore.hooks import ActivationTracker, GradientTracker
from ibcore.layers import uncompiled
from ibcore.threads import threads_for

_SAMPLES = 4096  # a pass when the model is looked at: bounds the memory of a convolution


class TrainingDivergedError(ArithmeticError):
    """The loss became NaN or infinite."""


class Snapshot(NamedTuple):
    """Activations over a whole data set after one epoch: layer name → (n_samples, ...)."""

    run: int
    epoch: int
    activations: dict[str, Tensor]


@dataclass
class History:
    """What `fit` saw at the snapshot epochs.

    Args:
        scores: a row a run and epoch: train and test loss (bits) and accuracy, as dicts.
        gradient_rows: a row a run, epoch and weight: norms of the gradient's moments, as dicts.
        snapshots: activations, where a tracker was given and no `on_snapshot` took them.
        models: the trained networks, one a run, in evaluation mode.
    """

    scores: list[dict[str, Any]] = field(default_factory=list)
    gradient_rows: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    models: list[nn.Module] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """Run, epoch, train_loss, train_accuracy, test_loss, test_accuracy; losses in bits."""
        return pd.DataFrame(self.scores)

    @property
    def gradients(self) -> pd.DataFrame:
        """Run, epoch, weight, mean_norm, deviation_norm, weight_norm; see `ibcore.snr`."""
        return pd.DataFrame(self.gradient_rows)


def snapshot_epochs(epochs: int, count: int = 100) -> list[int]:
    """Return about `count` epochs from 1 to `epochs`, evenly spaced on a log axis, none twice.

    Raises:
        ValueError: a number below one.
    """
    if epochs < 1 or count < 1:
        raise ValueError(f"epochs and count must be at least 1, got {epochs} and {count}")
    return sorted({*np.geomspace(1, epochs, count).round().astype(int).tolist(), epochs})


def default_device() -> torch.device:
    """Return the CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    model: nn.Module,
    ds: Dataset,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int | None = None,
    seed: int = 0,
    snapshots: Sequence[int] | None = None,
    tracker: ActivationTracker | None = None,
    gradients: GradientTracker | None = None,
    on_snapshot: Callable[[Snapshot], Any] | None = None,
    on_epoch: Callable[[int, History], Any] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    progress: bool = True,
) -> History:
    """Train a classifier and return what was seen at the snapshots.

    The model stays on its device, where the data is brought too. Batches are shuffled anew each
    epoch; the last one may be smaller. With a graph (`ds.edge_index`) the model sees all nodes in
    every step, and a batch says which of them the loss is taken on.

    Args:
        model: maps x (n, ...), and `ds.edge_index` where there is one, to logits (n, n_classes).
        ds: the data; only `ds.train` is trained on.
        epochs: passes over the training samples.
        learning_rate: step size of the optimiser.
        batch_size: samples a step; None takes all training samples.
        seed: decides the order of the samples, not the model's weights.
        snapshots: epochs to look at, 1 to `epochs`; by default `snapshot_epochs(epochs)`.
        tracker: entered tracker whose layers are recorded over all of `ds.x`.
        gradients: entered tracker whose statistics over the epoch's batches are kept.
        on_snapshot: takes each snapshot instead of it being stored, which bounds the memory.
        on_epoch: called after each epoch with its number and the history so far; where it returns
            True the training ends, with a look at the network as it then is.
        optimizer: called as `optimizer(model.parameters(), lr=learning_rate)`: a class, or such as
            `functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)`.
        loss: of logits and labels of a batch, one number; the losses in the history are the
            cross-entropy in bits whatever is trained on.
        progress: whether to draw a progress bar.
    Raises:
        TrainingDivergedError: the loss is no longer finite.
        ValueError: a setting out of range, `on_snapshot` without a tracker, a tracker of another
            model, or data of another dtype than the weights.
        RuntimeError: a tracker outside its `with` block.
    """
    wanted = check_settings(epochs, learning_rate, batch_size, snapshots)
    device = check_data(model, ds)
    _check_trackers(model, tracker, gradients, on_snapshot)
    x, y = ds.x.to(device), ds.y.to(device)
    graph = () if ds.edge_index is None else (ds.edge_index.to(device),)
    history, generator = History(models=[model]), torch.Generator().manual_seed(seed)
    steps = optimizer(model.parameters(), lr=learning_rate)

    def look(epoch: int) -> None:
        at = {"run": seed, "epoch": epoch}
        if gradients:
            history.gradient_rows += [{**at, **row} for row in gradients.statistics()]
        scores = score(_evaluate(model, x, *graph), y, ds)
        check_loss(torch.tensor([scores["train_loss"]]), [seed], epoch, learning_rate)
        history.scores.append({**at, **scores})
        if tracker:
            found = tracker.collect(x, *graph, batch_size=None if graph else _SAMPLES)
            (on_snapshot or history.snapshots.append)(Snapshot(seed, epoch, found))

    for epoch in tqdm(range(1, epochs + 1), "training", disable=not progress, unit="epoch"):
        if gradients:  # any epoch may be the last where there is someone to stop it
            gradients.reset(paused=not (epoch in wanted or on_epoch))
        model.train()
        with threads_for(model, batch_size or len(ds.train)):
            for batch in batches(ds.train, batch_size, generator):
                index = batch.to(device)
                logits = model(x, *graph)[index] if graph else model(x[index])
                value = loss(logits, y[index])
                check_loss(value.detach()[None], [seed], epoch, learning_rate)
                steps.zero_grad()
                value.backward()
                steps.step()
        if epoch in wanted:
            look(epoch)
        if on_epoch and on_epoch(epoch, history):
            if epoch not in wanted:
                look(epoch)
            break
    model.eval()
    return history


def check_data(model: nn.Module, ds: Dataset) -> torch.device:
    """Return the device of the weights; raise ValueError where the data is of another dtype."""
    weight = next(model.parameters(), None)
    if weight is None:
        raise ValueError(f"{type(model).__name__} has no weights to train")
    if ds.x.is_floating_point() and ds.x.dtype != weight.dtype:
        raise ValueError(
            f"ds.x is {ds.x.dtype} and the model's weights are {weight.dtype}: bring the model to "
            "the data by model.to(ds.x.dtype), or the data to the model by "
            f"dataclasses.replace(ds, x=ds.x.to({weight.dtype}))"
        )
    return weight.device


def _check_trackers(
    model: nn.Module,
    tracker: ActivationTracker | None,
    gradients: GradientTracker | None,
    on_snapshot: Callable[[Snapshot], Any] | None,
) -> None:
    if on_snapshot and not tracker:
        raise ValueError("on_snapshot needs a tracker that says which layers to record")
    for watcher in (tracker, gradients):
        if watcher and watcher.model is not uncompiled(model):
            raise ValueError(
                f"the {type(watcher).__name__} watches another model, a "
                f"{type(watcher.model).__name__}: make one of the model that fit() trains"
            )
        if watcher and not watcher.active:
            raise RuntimeError(
                f"the {type(watcher).__name__} watches nothing: call fit() inside its `with` block"
            )


def check_settings(
    epochs: int, learning_rate: float, batch_size: int | None, snapshots: Sequence[int] | None
) -> set[int]:
    """Return the epochs to look at; raise ValueError where a setting is out of range."""
    if epochs < 1 or not learning_rate > 0 or (batch_size is not None and batch_size < 1):
        raise ValueError(
            "epochs, learning_rate and batch_size must be positive, got "
            f"{epochs}, {learning_rate} and {batch_size}"
        )
    wanted = set(snapshot_epochs(epochs) if snapshots is None else snapshots)
    beyond = sorted(e for e in wanted if not 1 <= e <= epochs)
    if beyond:
        raise ValueError(f"snapshots must lie in 1..{epochs}, got {beyond}")
    return wanted


def batches(train: Tensor, batch_size: int | None, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the training indices in a new order, `batch_size` at a time."""
    order = train[torch.randperm(len(train), generator=generator)]
    yield from order.split(batch_size or len(order))


def check_loss(losses: Tensor, seeds: list[int], epoch: int, learning_rate: float) -> None:
    """Raise TrainingDivergedError, naming the seeds, where a loss is not finite."""
    if not losses.isfinite().all():
        bad = [seed for seed, ok in zip(seeds, losses.isfinite().tolist(), strict=True) if not ok]
        raise TrainingDivergedError(
            f"the loss of seed {bad} is not finite in epoch {epoch} at learning_rate="
            f"{learning_rate}; take a smaller rate, or look for NaN in the data"
        )


def _evaluate(model: nn.Module, x: Tensor, *graph: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part, *graph) for part in x.split(len(x) if graph else _SAMPLES)])


def score(logits: Tensor, y: Tensor, ds: Dataset) -> dict[str, float]:
    """Return loss (bits) and accuracy of logits on the training and the test samples."""
    right = (logits.argmax(1) == y).double()
    bits = cross_entropy(logits.double(), y, reduction="none") / np.log(2)
    scores = {}
    for part, index in (("train", ds.train), ("test", ds.test)):
        index = index.to(y.device)
        scores[f"{part}_loss"] = float(bits[index].mean())
        scores[f"{part}_accuracy"] = float(right[index].mean())
    return scores
