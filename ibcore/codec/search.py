"""The coarsest weights whose answer is as good as asked for."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from ibcore.capacity.rank import LOST, check_lost
from ibcore.codec.container import State, coded_sizes, save
from ibcore.codec.quantise import Rounding
from ibcore.codec.tensors import Steps
from ibcore.hooks import _evaluation
from ibcore.layers import uncompiled
from ibcore.tolerated import HangsOnRoundingError

_FINEST, _COARSEST = -16.0, 4.0  # log₂ of the step
_TRADES = (0.3, 0.15)
_MOVES = (0.5, 0.25, 0.12)  # log₂ of a factor of one tensor's step
_GIVEN, _TAKEN = 0.5, 0.06  # log₂: one tensor's step finer, then all coarser, again and again
_HALVINGS, _ROUNDS = 4, 2
_SPAN = 0.5  # log₂: between two steps whose bytes are compared


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

    The coarsest common step that is good enough is searched from coarse to fine, as accuracy goes
    up and down with it. Without calibration inputs each tensor's own step is then set so that a
    byte saved costs the answer as much in each (its Kullback–Leibler divergence); with them
    curvatures have done that. Last, steps are moved one by one, the largest tensor first, while
    files get smaller. The samples choose among some tens of settings, more where there are many
    tensors, so accuracy on them flatters a little: report it on others.

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

    def answers(state: State) -> Tensor:
        weights = {n: w.values() if isinstance(w, Steps) else w for n, w in state.items()}
        with _evaluation(model), torch.no_grad():
            parts = x.split(batch_size or len(x))
            logits = torch.cat([functional_call(model, weights, (p, *args)) for p in parts])
        return logits if chosen is None else logits[chosen]

    labels = y if chosen is None else y[chosen]
    with tqdm(desc="settings", disable=not progress, unit="") as bar:
        search = _Search(Rounding(model, calibration, *args), answers, labels, lost, bar)
        search.run(even=calibration is None)
    if search.best is None:
        raise HangsOnRoundingError(
            f"the answer loses more than lost={lost} by steps of 2^{_FINEST:g}: it hangs on "
            "rounding, or `lost` is too small for these samples; `save` loses nothing"
        )
    if path is not None:
        save(search.best, path)
    return Compressed(search.size, search.before, search.accuracy(search.best), search.best)


class _Search:
    """The smallest state so far that is good enough, and the settings that it came from."""

    def __init__(
        self,
        rounding: Rounding,
        answers: Callable[[State], Tensor],
        y: Tensor,
        lost: float,
        bar: "tqdm[NoReturn]",
    ) -> None:
        self.rounding, self.answers, self.y, self.bar = rounding, answers, y, bar
        weights = rounding.model.state_dict()
        self.names = [name for name, weight in weights.items() if weight.ndim > 1]
        self.names.sort(key=lambda name: -weights[name].numel())
        self.weights: State = dict(weights)
        self.before = self.accuracy(self.weights)
        self.least = self.before - lost - 1e-12
        self.best: State | None = None
        self.size, self.step, self.trade = 2**62, 0.0, _TRADES[0]
        self.factors: dict[str, float] = {}  # log₂, as the step

    def accuracy(self, state: State) -> float:
        """Return the share of right answers."""
        return float((self.answers(state).argmax(1) == self.y).double().mean())

    def run(self, even: bool) -> None:
        """Search; with `even`, set the steps of tensors by what they cost the answer."""
        self.coarsest(_COARSEST, _FINEST, 1.0, {})
        if self.best is None:
            return
        for _ in range(_ROUNDS if even else 0):
            self.coarsest(self.step + 1, self.step - 2, 0.5, self.evened())
        self.trade = _TRADES[1]
        before = self.size
        self.coarsest(self.step + 0.5, self.step - 0.5, 0.25, self.factors)
        self.trade = _TRADES[self.size < before]
        for _ in range(_ROUNDS):
            before = self.size
            for name, move in itertools.product(self.names, _MOVES):
                self.move(name, move)
            for name in self.names[:0:-1]:  # all but the largest: it has the bytes
                self.give(name)
            if self.size == before:
                break

    def tried(self, step: float, factors: dict[str, float]) -> bool:
        """Return whether steps are good enough; keep them where the file is the smallest."""
        self.bar.update()
        state = self._state(step, factors)
        if self.accuracy(state) < self.least:
            return False
        size = int(coded_sizes(state)["bytes"].iloc[-1])
        if size < self.size:
            self.best, self.size, self.step, self.factors = state, size, step, factors
        return True

    def coarsest(self, high: float, low: float, stride: float, factors: dict[str, float]) -> None:
        """Try ever finer common steps until one is good enough, then halve to the one before."""
        while not self.tried(high, factors):
            high -= stride
            if high < low:
                return
        low, high = high, high + stride
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tried(middle, factors) else (low, middle)

    def evened(self) -> dict[str, float]:
        """Return factors nearer to those at which a byte costs the answer as much in each tensor.

        Divergence grows as the square of a step, and bytes fall as its logarithm.
        """
        here, coarser = (self._state(self.step + more, self.factors) for more in (0.0, _SPAN))
        before, after = (coded_sizes(s).set_index("tensor")["bytes"] for s in (here, coarser))
        names = [name for name in self.names if isinstance(here[name], Steps)]
        if not names:  # no matrix, or zeros alone
            return self.factors
        saved = {name: max(1.0, float(before[name] - after[name])) for name in names}
        whole = self.answers(self.weights).log_softmax(1)
        cost = {}
        for name in names:
            changed = self.answers({**self.weights, name: here[name]}).log_softmax(1)
            lost = float((whole.exp() * (whole - changed)).double().nansum(1).mean())
            cost[name] = math.log2(max(lost, 1e-12) / saved[name])
        mean = sum(saved[n] * cost[n] for n in names) / sum(saved.values())
        change = {n: max(-2.0, min(2.0, (mean - cost[n]) / 2)) for n in names}
        return {n: self.factors.get(n, 0.0) + change[n] for n in names}

    def move(self, name: str, move: float) -> None:
        """Make one tensor's step coarser, as long as files get smaller."""
        before = math.inf
        while self.size < before:
            before = self.size
            self.tried(self.step, self._factors(name, move))

    def give(self, name: str) -> None:
        """Make one tensor's step finer, and all coarser for it, as long as that is good enough."""
        start, factors = self.step, self._factors(name, -_GIVEN)
        for times in range(1, round(1 / _TAKEN)):
            if not self.tried(start + times * _TAKEN, factors):
                break

    def _factors(self, name: str, more: float) -> dict[str, float]:
        return {**self.factors, name: self.factors.get(name, 0.0) + more}

    def _state(self, step: float, factors: dict[str, float]) -> State:
        sizes = {name: 2.0**factor for name, factor in factors.items()}
        return self.rounding(2.0**step, self.trade, sizes, dependent=True)
