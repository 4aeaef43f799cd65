"""The coarsest weights whose answer is as good as asked for."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from ibcore.capacity.rank import LOST, accuracy_of, check_lost
from ibcore.codec.container import State, coded_sizes, save
from ibcore.codec.quantise import quantise
from ibcore.codec.tensors import Steps
from ibcore.layers import uncompiled
from ibcore.tolerated import HangsOnRoundingError

_FINEST, _COARSEST = -16.0, 4.0  # log₂ of the step
_TRADES = (0.3, 0.15)
_MOVE, _LAST = 0.5, 0.1  # log₂ of a factor of one tensor's step, and of all in the end


class Compressed(NamedTuple):
    """What `compress` found.

    Args:
        size: bytes of the file.
        before: accuracy on the samples, of the network as it was.
        after: accuracy on the samples, of the network in the file.
        state: the weights, as whole numbers and steps; `coded_sizes(state)` says what each takes.
    """

    size: int
    before: float
    after: float
    state: State

    @property
    def table(self) -> pd.DataFrame:
        """Bytes of each tensor, and bits of mask, signs and magnitudes; see `coded_sizes`."""
        return coded_sizes(self.state)


def compress(
    model: nn.Module,
    path: Path | str | None,
    x: Tensor,
    y: Tensor,
    *args: Any,
    lost: float = LOST,
    calibration: Tensor | None = None,
    chosen: Tensor | None = None,
    batch_size: int | None = 4096,
    progress: bool = False,
) -> Compressed:
    """Write the smallest file found that loses at most `lost` of the accuracy; see `quantise`.

    For a few prices of a bit the coarsest common step is searched by halving, as if a finer one
    never lost more. From the best of them each tensor's own step is moved, the largest first, while
    files get smaller. The samples choose among some fifty settings, so accuracy on them flatters a
    little: report it on others.

    Args:
        model: any `nn.Module` that answers with logits, shape (n_samples, n_classes).
        path: of the file; None writes none.
        x: inputs, shape (n_samples, ...), best some that it was not trained on.
        y: labels, shape (n_samples,).
        args: further inputs of the model, passed whole with every batch.
        lost: accuracy on these samples that may be lost, a share.
        calibration: inputs for `quantise`, best some that it was trained on; None: there are none.
        chosen: indices of the samples whose answers count; None takes all.
        batch_size: samples a pass; None takes all at once, as a graph needs it.
        progress: whether to draw a progress bar.
    Raises:
        HangsOnRoundingError: the answer loses more by steps of 2⁻¹⁶.
        ValueError: no share to lose, labels that are not one a sample, weights that are not finite.
    Source: this study.
    """
    check_lost(lost, x, y)
    model = uncompiled(model)

    def accuracy(state: State) -> float:
        weights = {n: w.values() if isinstance(w, Steps) else w for n, w in state.items()}

        def answer(*inputs: Any) -> Any:
            return functional_call(model, weights, inputs)

        return accuracy_of(model, answer, x, y, chosen, batch_size, *args)

    before = accuracy(model.state_dict())
    search = _Search(lambda state: accuracy(state) >= before - lost - 1e-12)
    with tqdm(desc="settings", disable=not progress, unit="") as bar:

        def tried(step: float, trade: float, factors: dict[str, float]) -> bool:
            bar.update()
            state = quantise(model, 2.0**step, calibration, *args, trade=trade, factors=factors)
            return search.try_out(state, (step, trade, factors))

        _search(tried, search, [n for n, w in model.state_dict().items() if w.ndim > 1])
    if search.best is None:
        raise HangsOnRoundingError(
            f"the answer loses more than lost={lost} by steps of 2^{_FINEST:g}: it hangs on "
            "rounding, or `lost` is too small for these samples; `save` loses nothing"
        )
    if path is not None:
        save(search.best, path)
    return Compressed(search.size, before, accuracy(search.best), search.best)


class _Search:
    """The smallest state so far that is good enough, and the settings that it came from."""

    def __init__(self, enough: Any) -> None:
        self.enough, self.best, self.size = enough, None, 2**62
        self.settings: tuple[float, float, dict[str, float]] = (0.0, 0.0, {})

    best: State | None

    def try_out(self, state: State, settings: tuple[float, float, dict[str, float]]) -> bool:
        """Return whether a state is good enough; keep it where it is the smallest."""
        if not self.enough(state):
            return False
        size = int(coded_sizes(state)["bytes"].iloc[-1])
        if size < self.size:
            self.best, self.size, self.settings = state, size, settings
        return True


def _search(tried: Any, search: _Search, names: list[str]) -> None:
    """Try common steps for each price, then coarser ones of one tensor after the other."""
    low, high, halvings = _FINEST, _COARSEST, 8
    if not tried(low, _TRADES[0], {}):
        return
    for trade in _TRADES:
        for _ in range(halvings):
            middle = (low + high) / 2
            low, high = (middle, high) if tried(middle, trade, {}) else (low, middle)
        low, high, halvings = low - 1.5, low + 0.1, 5
    sizes = coded_sizes(search.best or {}).set_index("tensor")["bytes"]
    for moved in [[name] for name in sorted(names, key=lambda n: sizes[n])] + [names]:
        move = _MOVE if len(moved) == 1 else _LAST
        before = math.inf
        while search.size < before:
            before = search.size
            step, trade, factors = search.settings
            coarser = {name: factors.get(name, 1.0) * 2.0**move for name in moved}
            tried(step, trade, {**factors, **coarser})
