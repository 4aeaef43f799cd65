"""Which layers are too narrow or too wide for what the network has learned, and what to try."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ibcore.capacity.rank import LOST, accuracy_of, check_lost, functional_ranks
from ibcore.capacity.saturation import SaturationTracker
from ibcore.checks import stream
from ibcore.data import Dataset
from ibcore.hooks import _evaluation
from ibcore.layers import Layers, first_tensor, select_layers, uncompiled

BOTTLENECK, OVER_SIZED = 0.5, 0.15  # directions that the answer needs, by units
FULL = 0.95  # saturation of a bottleneck: a layer with directions to spare is none
ROOM = 0.2  # of a layer's units, that what it needs should take: training wants to spare
WIDER = 4  # times, where a layer is a bottleneck; how much it lacks it can't say
_FACTORS = (0.5, 1.0, 2.0)  # of `lost`: a verdict should not hang on it


def diagnose(
    model: nn.Module,
    data: Dataset | DataLoader | tuple[Tensor, Tensor],
    *args: Any,
    layers: Layers = None,
    axis: Mapping[str, int] | None = None,
    lost: float = LOST,
    batch_size: int | None = 4096,
    seed: int = 0,
    quiet: bool = False,
) -> pd.DataFrame:
    """Return, and print, how much of each hidden layer is used and needed, and what follows.

    The rule reads how many principal directions the answer needs of a layer, by its units (see
    `functional_ranks`), and its saturation. A layer that has no directions to spare (saturation
    0.95 or more) and of which the answer needs half or more is a *bottleneck*. Where 0.15 or less
    is needed it is *over-sized*, but in no network that has a bottleneck: what is needed before and
    behind one falls with it, whatever the width. Else it is *fine*. The number needed is the median
    over the two halves of the samples and half, once and twice `lost`; the confidence is the share
    of the six that give the same verdict. A network that guesses gets none. Saturation by itself
    is no rule: it falls with the width.

    The recommended width leaves a layer that is over-sized room to learn: what is needed takes
    0.2 of it. A bottleneck is widened four times, or to the wider of the layers beside it where
    that is less, but twice at least, and should be looked at again. The numbers were set on
    planted layers of 82 networks. On others, chapter 09 of the book says how often they are right.

    Args:
        model: any trained `nn.Module` that answers with logits, (n_samples, n_classes).
        data: a `Dataset`, of which the training samples count, with its graph where it has one; a
            `DataLoader` of pairs (x, y), read through once; or the pair (x, y) itself.
        args: further inputs of the model, passed whole with every batch.
        layers: see `select_layers`; by default the activations. The answer itself is left out.
        axis: layer name → axis of its units; see `SaturationTracker`.
        lost: accuracy that may be lost, a share.
        batch_size: samples a pass; a graph is always passed whole.
        seed: of the halves.
        quiet: print nothing, and draw no progress bar.
    Warns:
        UserWarning: the network has learned less than half of what guessing leaves.
    Returns:
        A row a layer: layer, units, directions, saturation, effective_rank, dead (see `Used`),
        needed, share (needed by units), verdict, confidence, width.
    Raises:
        ValueError: no samples, fewer than two a half, samples without labels, no hidden layer, or
            see `functional_ranks`.
        TypeError: data of another kind.
        RuntimeError: a layer that is not called.
    Source: this study.
    """
    model = uncompiled(model)
    x, y, chosen, graph = _samples(data, next(iter(model.parameters()), torch.zeros(())).device)
    check_lost(lost, x, y)
    if lost >= 0.5:  # twice as much is tried, too
        raise ValueError(f"lost must lie below 0.5, got {lost}")
    args, batch_size = (*graph, *args), None if graph else batch_size
    hidden = _hidden(model, x, *args, layers=layers, batch_size=batch_size)
    with SaturationTracker(model, hidden, axis=axis) as tracker:
        tracker.look(0, x, *args, batch_size=batch_size)
    table = tracker.table.drop(columns=["epoch", "vectors", "participation"])

    drawn = chosen[torch.randperm(len(chosen), generator=stream(seed, "halves")).to(chosen.device)]
    halves = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    settings = [(half, lost * factor) for half in halves for factor in _FACTORS]
    needed = []
    for half, share in tqdm(settings, "settings", disable=quiet, leave=False):
        found = functional_ranks(
            model, x if graph else x[half], y if graph else y[half], *args, layers=hidden,
            lost=share, axis=axis, chosen=half if graph else None, batch_size=batch_size,
        )  # fmt: skip
        needed.append([found[name] for name in hidden])
    ranks = torch.tensor(needed, dtype=torch.float64)
    table["needed"] = ranks.quantile(0.5, dim=0).tolist()
    table["share"] = table["needed"] / table["units"]
    units = torch.tensor(table["units"].to_list())
    full = [bool(saturation >= FULL) for saturation in table["saturation"]]
    table["verdict"] = _verdicts(table["share"].tolist(), full)
    each = pd.DataFrame([_verdicts((row / units).tolist(), full) for row in ranks])
    table["confidence"] = (each == table["verdict"].to_numpy()).mean().to_numpy()
    accuracy = accuracy_of(model, model, x, y, chosen, batch_size, *args)
    guess = float(torch.bincount(y[chosen]).max()) / len(chosen)
    if accuracy < (1 + guess) / 2:
        warnings.warn(
            f"the network is right on {accuracy:.0%} of the samples, a guess on {guess:.0%}: what "
            "an answer needs that has learned so little says little of its layers",
            stacklevel=2,
        )
    if accuracy <= guess + lost:
        table = table.assign(verdict="none: the network guesses", confidence=math.nan)
    columns = (table[name].tolist() for name in ("units", "needed", "verdict"))
    table["width"] = _widths(*columns)
    if not quiet:
        print(f"accuracy on {len(chosen)} samples: {accuracy:.3f}")
        print(table.to_string(index=False, float_format="{:.2f}".format))
    return table


def _verdicts(shares: list[float], full: list[bool]) -> list[str]:
    """Return the verdict of each layer of one network."""
    narrow = [f and share >= BOTTLENECK for share, f in zip(shares, full, strict=True)]
    if any(narrow):
        return ["bottleneck" if is_narrow else "fine" for is_narrow in narrow]
    return ["over-sized" if share <= OVER_SIZED else "fine" for share in shares]


def _widths(units: list[int], needed: list[float], verdicts: list[str]) -> list[int]:
    """Return the recommended width of each layer."""
    widths = []
    for place, (width, rank, verdict) in enumerate(zip(units, needed, verdicts, strict=True)):
        if verdict == "over-sized":
            widths.append(min(width, max(1, math.ceil(rank / ROOM))))
        elif verdict == "bottleneck":
            beside = max(units[max(place - 1, 0) : place + 2])
            widths.append(max(2 * width, min(WIDER * width, beside)))
        else:
            widths.append(width)
    return widths


def _samples(data: Any, device: torch.device) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Return x, y, the indices of the samples that count, and the graph where there is one."""
    graph: tuple[Tensor, ...] = ()
    if isinstance(data, Dataset) and data.edge_index is not None:
        graph = (data.edge_index.to(device),)
        x, y, chosen = data.x, data.y, data.train
    else:
        x, y = _pair(data)
        chosen = torch.arange(len(x))
    if len(chosen) < 4:
        raise ValueError(f"two halves of at least two samples are needed, got {len(chosen)}")
    return x.to(device), y.to(device), chosen.to(device), graph


def _pair(data: Any) -> tuple[Tensor, Tensor]:
    if isinstance(data, Dataset):
        return data.x[data.train], data.y[data.train]
    if isinstance(data, DataLoader):
        batches = list(data)
        if not batches:
            raise ValueError("the DataLoader gives no samples")
        if not all(isinstance(batch, tuple | list) and len(batch) == 2 for batch in batches):
            raise ValueError("the DataLoader must give pairs of samples and labels")
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return x, y
    if isinstance(data, tuple) and len(data) == 2:
        return data
    raise TypeError(
        f"data must be a Dataset, a DataLoader or a pair (x, y), got {type(data).__name__}"
    )


def _hidden(
    model: nn.Module, x: Tensor, *args: Any, layers: Layers, batch_size: int | None
) -> list[str]:
    """Return the names of the chosen layers that are called, without the one that answers."""
    called: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            called[name] = first_tensor(output)

        return record

    chosen = select_layers(model, layers)
    handles = [module.register_forward_hook(hook(name)) for name, module in chosen.items()]
    try:
        with _evaluation(model), torch.no_grad():
            answer = model(x if batch_size is None else x[:2], *args)
    finally:
        for handle in handles:
            handle.remove()
    if layers is not None and (missing := sorted(set(chosen) - set(called))):
        raise RuntimeError(f"the model does not call {missing}")
    if called and _answers(list(called.values())[-1], answer):
        called.popitem()
    if not called:
        raise ValueError(
            f"{type(model).__name__} has no hidden layer to judge among {list(chosen)}: name some"
        )
    return [name for name in chosen if name in called]


def _answers(z: Tensor, answer: Tensor) -> bool:
    """Return whether a layer puts out the answer, as logits or after a softmax."""
    if z.shape != answer.shape:
        return False
    softened = z.softmax(1)
    return any(torch.allclose(softened, other) for other in (answer, answer.softmax(1)))
