"""How much of a layer is used while the network learns, from covariances that are streamed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ibcore.estimators.spectra import eigvalsh
from ibcore.hooks import _evaluation, _Hooked
from ibcore.layers import Layers, count_samples, first_tensor, rows, select_layers, uncompiled

SHARE = 0.99  # of the variance, that the directions hold
_DEAD = 1e-12  # of the mean variance of a layer's units: below it a unit never changes
_CHANNELS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool1d, nn.AvgPool1d,
)  # fmt: skip


class Used(NamedTuple):
    """How much of a layer is used.

    Args:
        units: width; channels of a convolution.
        vectors: that the covariance was taken over: samples, times places or steps.
        directions: the fewest principal ones that hold a share of the variance, k₉₉ by default.
        saturation: directions by units.
        effective_rank: e to the entropy of the eigenvalues, as shares of their sum.
        participation: the squared sum of the eigenvalues by the sum of their squares.
        dead: share of the units that never change.
    """

    units: int
    vectors: int
    directions: int
    saturation: float
    effective_rank: float
    participation: float
    dead: float


def used(covariance: Tensor, vectors: int, share: float = SHARE) -> Used:
    """Return how much of a layer is used; a layer that never changes uses nothing of itself.

    Args:
        covariance: of the layer's units, shape (units, units), float64.
        vectors: that it was taken over.
        share: of the variance that the directions have to hold, above 0 and at most 1.
    Source: Shenk et al. (2019), saturation [shenk2019spectral]; Roy & Vetterli (2007), effective
        rank [roy2007effective].
    """
    units, variances = len(covariance), covariance.diagonal()
    dead = float((variances <= _DEAD * float(variances.mean())).double().mean())
    if dead == 1:
        return Used(units, vectors, 0, 0.0, 0.0, 0.0, 1.0)
    found = eigvalsh(covariance).clamp(min=0).flip(0)
    shares = found / found.sum()
    enough = shares.cumsum(0) >= share * (1 - 1e-12)  # the last sum may round below a share of 1
    directions = int(enough.double().argmax()) + 1
    rank = float(torch.special.entr(shares).sum().exp())
    participation = float(1 / shares.square().sum())
    return Used(units, vectors, directions, directions / units, rank, participation, dead)


def unit_axis(name: str, module: nn.Module, z: Tensor, axis: Mapping[str, int]) -> int:
    """Return the axis of the units in what a layer puts out; see `SaturationTracker`.

    Args:
        name: of the layer.
        module: the layer.
        z: what it puts out, the samples its first axis.
        axis: layer name → axis, where the rule is wrong.
    Raises:
        ValueError: there is no such axis.
    """
    second = z.ndim >= 4 or (z.ndim == 3 and isinstance(module, _CHANNELS))
    found = axis.get(name, 1 if second else -1)
    if z.ndim < 2 or not -z.ndim <= found < z.ndim or found % z.ndim == 0:
        raise ValueError(
            f"layer {name!r} puts out shape {tuple(z.shape)}, in which axis {found} can't be that "
            "of the units: say which by axis={...: ...}"
        )
    return found


class _Covariance:
    """Mean and covariance of a stream of vectors, a batch at a time, without loss of digits.

    Source: Chan, Golub & LeVeque (1983), the pairwise update [chan1983algorithms].
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._products = torch.zeros(())

    def update(self, vectors: Tensor, mean: Tensor) -> None:
        """Take in float64 vectors, (units, n), which are centred in place, and their mean."""
        delta = mean - self.mean.to(mean.device)
        count = vectors.shape[1]
        total = self.count + count
        centred = vectors.sub_(mean[:, None])
        between = torch.outer(delta, delta) * (self.count * count / total)
        self._products = self._products.to(mean.device) + centred @ centred.T + between
        self.mean = self.mean.to(mean.device) + delta * (count / total)
        self.count = total

    @property
    def value(self) -> Tensor:
        """The covariance, divided by the count."""
        return self._products / self.count


class SaturationTracker(_Hooked):
    """Follows how much of each layer is used, while the `with` block lasts and a network learns.

    Every forward pass inside the block adds to the covariance of each layer's units, in float64
    and without any activation being kept: memory O(units²) a layer. `look` starts afresh, passes a
    data set through the network as it is, and keeps a row a layer; give it to `fit` as
    `on_epoch=lambda epoch, history: tracker.look(epoch, x)`.

    A vector is what a layer puts out for one sample. Where it puts out a map, each place has a
    vector of channels; where it puts out a sequence, each step has one of features; a graph's
    nodes are its samples. Channels come second in the output of convolutions and in all of four
    axes and more, features last in all of three.

    Args:
        model: any `nn.Module`; one from `torch.compile` runs uncompiled inside the block.
        layers: see `select_layers`.
        share: of the variance that the directions have to hold.
        axis: layer name → axis of its units, where the rule above is wrong for it.
        pick: takes the representation out of a module's output; by default the first tensor.
        live: whether `look` shows its rows, redrawn in place, in a terminal or a notebook.
    Raises:
        ValueError: a layer that the model doesn't have, or a share outside of 0 to 1.
        RuntimeError: the tracker is entered a second time.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = None,
        share: float = SHARE,
        axis: Mapping[str, int] | None = None,
        pick: Callable[[Any], Tensor] = first_tensor,
        live: bool = False,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must lie above 0 and at most at 1, got {share}")
        self.model = uncompiled(model)
        self.layers = select_layers(self.model, layers)
        if unknown := sorted(set(axis or {}) - set(self.layers)):
            raise ValueError(f"axis names {unknown}: the layers are {list(self.layers)}")
        self.share = share
        self.rows: list[dict[str, Any]] = []
        self._axis, self._pick, self._by_default = axis or {}, pick, layers is None
        self._show = _Frame() if live else None
        self.reset()

    def reset(self) -> None:
        """Forget the passes seen so far; the rows stay."""
        self._covariances: dict[str, _Covariance] = {}

    def _attach(self) -> Iterator[RemovableHandle]:
        for name, module in self.layers.items():
            yield module.register_forward_hook(self._record(name))

    def _record(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            z = self._pick(output).detach()
            z = z.movedim(unit_axis(name, module, z, self._axis), 0)
            form = torch.contiguous_format  # else the copy keeps the strides, and is copied again
            vectors = z.to(torch.float64, copy=True, memory_format=form).flatten(1)
            mean = vectors.mean(1)
            if not mean.isfinite().all():
                raise ValueError(f"layer {name!r} puts out NaN or infinity")
            self._covariances.setdefault(name, _Covariance()).update(vectors, mean)

        return hook

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the mean, (units,), and the covariance, (units, units), of each layer's units.

        They are those of the passes since the last reset, in float64.

        Raises:
            RuntimeError: a layer was not called, or put out one vector. Default layers that the
                model never calls are left out.
        """
        missing = set(self.layers) - set(self._covariances)
        if missing and not (self._by_default and self._covariances):
            raise RuntimeError(
                f"no forward pass inside the `with` block called {sorted(missing)}: pass data "
                "through the model, or choose other layers"
            )
        found = {n: self._covariances[n] for n in self.layers if n in self._covariances}
        if few := [name for name, covariance in found.items() if covariance.count < 2]:
            raise RuntimeError(f"a covariance needs two vectors, {few} put out one")
        return {name: (c.mean, c.value) for name, c in found.items()}

    def used(self) -> dict[str, Used]:
        """Return how much of each layer was used in the passes since the last reset.

        Raises:
            RuntimeError: see `moments`.
        """
        return {
            name: used(covariance, self._covariances[name].count, self.share)
            for name, (_, covariance) in self.moments().items()
        }

    def look(self, epoch: int, x: Any, *args: Any, batch_size: int | None = 4096) -> None:
        """Pass a data set through the network as it is and keep a row a layer, with this epoch.

        The model runs in evaluation mode without a graph, and is put back as it was.

        Args:
            epoch: written into the rows.
            x: inputs, shape (n_samples, ...); or a tuple or dict of them, see `ActivationTracker`.
            args: further inputs of the model, passed whole with every batch.
            batch_size: samples a pass; None takes all at once, as a graph needs it.
        Raises:
            RuntimeError: outside the `with` block, or see `used`.
            ValueError: inputs without samples, or a layer that puts out NaN.
        """
        if not self.active:
            raise RuntimeError("look() works inside the tracker's `with` block")
        self.reset()
        size = count_samples(x)
        with _evaluation(self.model), torch.no_grad():
            for start in range(0, size, batch_size or size):
                batch = rows(x, slice(start, start + (batch_size or size)))
                if isinstance(batch, dict):
                    self.model(*args, **batch)
                else:
                    self.model(*(batch if isinstance(batch, tuple) else (batch,)), *args)
        found = [{"epoch": epoch, "layer": n, **u._asdict()} for n, u in self.used().items()]
        self.rows += found
        if self._show:
            self._show(_drawn(found))

    @property
    def table(self) -> pd.DataFrame:
        """Epoch, layer and the columns of `Used`; a row a look and layer."""
        return pd.DataFrame(self.rows, columns=["epoch", "layer", *Used._fields])


def _drawn(rows: list[dict[str, Any]], width: int = 30) -> str:
    """Return rows of a look as bars of saturation."""
    name = max(len(row["layer"]) for row in rows)
    lines = [f"epoch {rows[0]['epoch']}"]
    for row in rows:
        bar = "█" * round(width * row["saturation"])
        dead = f", {row['dead']:.0%} dead" if row["dead"] else ""
        of = f"{row['directions']:>4} of {row['units']}"
        lines.append(f"{row['layer']:<{name}} {bar:·<{width}} {of}{dead}")
    return "\n".join(lines)


class _Frame:
    """Text that is redrawn in its place: in a notebook by its display, else by going up."""

    def __init__(self) -> None:
        self._display: Any = None
        self._lines = 0

    def __call__(self, text: str) -> None:
        ipython = sys.modules.get("IPython")
        if ipython and getattr(ipython.get_ipython(), "kernel", None):
            data = {"text/plain": text}
            if self._display is None:
                self._display = ipython.display.display(data, raw=True, display_id=True)
            else:
                self._display.update(data, raw=True)
            return
        up = f"\x1b[{self._lines}A" if self._lines and sys.stderr.isatty() else ""
        clear = "\x1b[K\n" if up else "\n"
        sys.stderr.write(up + text.replace("\n", clear) + clear)
        sys.stderr.flush()
        self._lines = text.count("\n") + 1
