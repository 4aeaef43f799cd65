"""The information plane as a tidy table, with the flags that say what to believe."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ibcore.interface import Estimator, label_entropy

KEYS = ["run", "epoch", "layer", "estimator"]
COLUMNS = [*KEYS, "i_xz", "i_zy", "finite", "singleton_share"]
_ROUNDING = 1e-9  # bits: what float64 sums may be off by


@dataclass
class InformationPlane:
    """I(X;T) and I(T;Y) in bits for each run, epoch, layer and estimator.

    Args:
        table: the columns run, epoch, layer, estimator, i_xz, i_zy, finite, singleton_share.
        metadata: n_samples, label_entropy (bits), layers (first to last), versions, and what the
            caller adds: parameters, seeds, hash of the data.
    """

    table: pd.DataFrame
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the layers, first to last."""
        return list(self.metadata["layers"])

    @property
    def ceiling(self) -> float:
        """log₂ N, which no estimate of I(X;T) from N samples can pass, in bits."""
        return float(np.log2(self.metadata["n_samples"]))

    def select(self, estimator: str) -> pd.DataFrame:
        """Return the rows of one estimator.

        Raises:
            ValueError: an estimator that the plane doesn't have.
        """
        known = list(self.table["estimator"].unique())
        if estimator not in known:
            raise ValueError(f"no estimator {estimator!r} in this plane: it has {known}")
        return self.table[self.table["estimator"] == estimator]

    def run(self, run: int) -> "InformationPlane":
        """Return the plane of one run.

        Raises:
            ValueError: a run that the plane doesn't have.
        """
        if run not in set(self.table["run"]):
            raise ValueError(f"no run {run} in this plane: it has {sorted(set(self.table['run']))}")
        return InformationPlane(self.table[self.table["run"] == run], self.metadata)

    def last(self, estimator: str) -> pd.DataFrame:
        """Return the last epoch: a row a run, columns ("i_xz" or "i_zy", layer), in bits."""
        rows = self.select(estimator)
        rows = rows[rows["epoch"] == rows["epoch"].max()]
        wide: pd.DataFrame = rows.pivot(index="run", columns="layer", values=["i_xz", "i_zy"])
        return wide

    def violations(self, margin: float = 0.05) -> pd.DataFrame:
        """Return how often each run breaks the data-processing inequality.

        Columns: estimator, run, "DPI, X" and "DPI, Y" (pairs of a layer and the next, over all
        epochs, in which the next has more information), of (number of such pairs).

        Args:
            margin: bits that the next layer must have more.
        """
        rows = []
        for (estimator, run), found in self.table.groupby(["estimator", "run"], sort=False):
            x, y = (dpi_violations(found, self.layers, c, margin) for c in ("i_xz", "i_zy"))
            counts = {"DPI, X": int(x.sum()), "DPI, Y": int(y.sum()), "of": x.size}
            rows.append({"estimator": estimator, "run": run, **counts})
        return pd.DataFrame(rows)

    def summary(self, estimator: str) -> pd.DataFrame:
        """Return mean and standard deviation over runs, by epoch and layer (first to last)."""
        grouped = self.select(estimator).groupby(["epoch", "layer"])[["i_xz", "i_zy"]]
        mean, spread = grouped.mean(), grouped.std(ddof=1).fillna(0.0)
        found = mean.join(spread.add_suffix("_std")).reset_index()
        found["layer"] = pd.Categorical(found["layer"], self.layers, ordered=True)
        return found.sort_values(["epoch", "layer"]).reset_index(drop=True)

    def peak_epoch(self, estimator: str, layer: str, column: str = "i_xz") -> int:
        """Return the epoch where the mean over runs of a layer's "i_xz" or "i_zy" is highest."""
        means = self._by_run(estimator, layer, column).mean()
        return int(means.index[int(means.argmax())])

    def change(self, estimator: str, layer: str, column: str, since: int) -> pd.Series:
        """Return, for each run, the last value of a layer less the one at the epoch `since`."""
        wide = self._by_run(estimator, layer, column)
        return wide.iloc[:, -1] - wide[since]

    def _by_run(self, estimator: str, layer: str, column: str) -> pd.DataFrame:
        rows = self.select(estimator)
        if layer not in self.layers:
            raise ValueError(f"no layer {layer!r} in this plane: it has {self.layers}")
        rows = rows[rows["layer"] == layer]
        return rows.pivot(index="run", columns="epoch", values=column).sort_index(axis=1)

    def flags(self) -> pd.DataFrame:
        """Return how often each warning holds: estimator, flag, count, of, share.

        "saturated": I(X;T) within 1 % of log₂ N. "above H(Y)": I(T;Y) > H(Y). "negative": either
        below zero. "not finite": NaN or infinite activations. "singletons": bins with one sample
        (mean share). "DPI, X" and "DPI, Y": the next layer has more information, by more than the
        spread over runs. "lower > upper": BD above KL.
        """
        parts = [flag for e in self.table["estimator"].unique() for flag in self._flags(e)]
        bounds = self.table.pivot_table(index=KEYS[:-1], columns="estimator", values="i_xz")
        for low in [c for c in bounds.columns if c.split()[-1] == "BD"]:
            high = low[:-2] + "KL"
            if high in bounds.columns:
                crossed = bounds[low] > bounds[high] + _ROUNDING
                parts.append((f"{low}, {high}", "lower > upper", int(crossed.sum()), len(crossed)))
        flags = pd.DataFrame(parts, columns=["estimator", "flag", "count", "of"])
        return flags.assign(share=flags["count"] / flags["of"].clip(lower=1))

    def _flags(self, estimator: str) -> list[tuple[str, str, int, int]]:
        rows, h_y = self.select(estimator), self.metadata["label_entropy"]
        held = {
            "saturated": rows["i_xz"] >= 0.99 * self.ceiling,
            "above H(Y)": rows["i_zy"] > h_y + _ROUNDING,
            "negative": rows[["i_xz", "i_zy"]].min(axis=1) < -_ROUNDING,
            "not finite": ~rows["finite"],
        }
        found = [(estimator, flag, int(held[flag].sum()), len(rows)) for flag in held]
        if rows["singleton_share"].notna().any():
            share = rows["singleton_share"].mean()
            found.append((estimator, "singletons", round(share * len(rows)), len(rows)))
        for axis, column in (("X", "i_xz"), ("Y", "i_zy")):
            broken = dpi_violations(rows, self.layers, column)
            found.append((estimator, f"DPI, {axis}", int(broken.sum()), broken.size))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write table and metadata to one Parquet file; a file there is replaced at the end."""
        path = Path(path)
        table = self.table.copy()
        table.attrs = {"ibcore": json.dumps(self.metadata)}
        temporary = path.with_name(path.name + ".part")
        try:
            table.to_parquet(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "InformationPlane":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no plane, or is damaged.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no plane at {path}: save one there first")
        try:
            table = pd.read_parquet(path)
            metadata = json.loads(table.attrs.pop("ibcore"))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} holds no information plane, or is damaged") from error
        return cls(table, metadata)


def dpi_violations(
    rows: pd.DataFrame, layers: Sequence[str], column: str, margin: float = 0.0
) -> np.ndarray:
    """Return where a layer has more information than the one before, (n_epochs, n_layers − 1).

    A pair counts where the mean gain over runs exceeds its standard deviation over runs, and a
    margin.

    Args:
        rows: one estimator's rows of a plane's table.
        layers: names, first to last.
        column: "i_xz" or "i_zy".
        margin: bits that the gain must exceed, whatever the deviation.
    """
    wide = rows.pivot_table(index=["run", "epoch"], columns="layer", values=column)
    gains = wide.reindex(columns=list(layers)).diff(axis=1).iloc[:, 1:].groupby("epoch")
    least = gains.std(ddof=1).fillna(0.0).clip(lower=margin)
    return (gains.mean() > least + _ROUNDING).to_numpy()


Estimators = Sequence[Estimator] | Mapping[str, Estimator | Mapping[str, Estimator]]


class PlaneRecorder:
    """Turns snapshots into rows of a plane as they come, so that no activations pile up.

    Pass it as `on_snapshot` to `fit` or `fit_ensemble`, then take `plane()`.

    Args:
        y: labels of the samples, shape (n_samples,).
        estimators: a list, or a mapping from a label to an estimator where two would have the same
            name; the label then stands before the name. In place of an estimator a mapping may
            hold another, from each layer's name to the estimator for it.
        metadata: anything that JSON can hold, to be kept with the plane.
        samples: indices of the samples to measure; None takes all.
    Raises:
        ValueError: no estimators, or samples that don't exist.
    """

    def __init__(
        self,
        y: Tensor,
        estimators: Estimators,
        metadata: Mapping[str, Any] | None = None,
        samples: Tensor | None = None,
    ) -> None:
        pairs = estimators.items() if isinstance(estimators, Mapping) else enumerate(estimators)
        self._estimators: dict[Any, Estimator | Mapping[str, Estimator]] = dict(pairs)
        if not self._estimators:
            raise ValueError("a plane needs at least one estimator")
        self._samples = None if samples is None else _check_indices(samples, len(y))
        self._size = len(y)
        self._y = y if samples is None else y[samples.to(y.device)]
        self._rows: list[dict[str, Any]] = []
        self._layers: list[str] = []
        self._metadata = dict(metadata or {})

    def __call__(self, snapshot: Any) -> None:
        """Take in one snapshot: (run, epoch, {layer: activations})."""
        run, epoch, activations = snapshot
        for layer, z in activations.items():
            if layer not in self._layers:
                self._layers.append(layer)
            z = self._chosen(layer, z)
            for label in self._estimators:
                for row in _measure(self._estimator(label, layer), z, self._y):
                    bound = row.pop("estimator")
                    name = f"{label} {bound}" if isinstance(label, str) else bound
                    self._rows.append(
                        {"run": run, "epoch": epoch, "layer": layer, "estimator": name, **row}
                    )

    def _chosen(self, layer: str, z: Tensor) -> Tensor:
        if self._samples is None:
            return z
        if len(z) != self._size:
            raise ValueError(
                f"layer {layer!r} has {len(z)} samples, but there are {self._size} labels"
            )
        return z[self._samples.to(z.device)]

    def _estimator(self, label: Any, layer: str) -> Estimator:
        found = self._estimators[label]
        if not isinstance(found, Mapping):
            return found
        if layer not in found:
            raise ValueError(f"{label!r} has no estimator for layer {layer!r}: it has {[*found]}")
        return found[layer]

    def plane(self) -> InformationPlane:
        """Return the plane of what came so far.

        Raises:
            ValueError: two estimators gave rows of the same name, or there were no snapshots.
        """
        if not self._rows:
            raise ValueError("no snapshots: give a tracker to fit(), or on_snapshot")
        table = pd.DataFrame(self._rows, columns=COLUMNS)
        if table.duplicated(KEYS).any():
            twice = sorted(set(table.loc[table.duplicated(KEYS), "estimator"]))
            raise ValueError(f"{twice} came twice: give the estimators as a mapping with labels")
        packages = ("ibcore", "torch", "numpy")
        return InformationPlane(
            table,
            {
                "n_samples": len(self._y),
                "label_entropy": label_entropy(self._y),
                "layers": list(self._layers),
                "estimators": [repr(e) for e in self._estimators.values()],
                "versions": {p: version(p) for p in packages}
                | {"python": platform.python_version()},
                **self._metadata,
            },
        )


def information_plane(
    snapshots: Iterable[Any],
    y: Tensor,
    estimators: Estimators,
    metadata: Mapping[str, Any] | None = None,
    samples: Tensor | None = None,
) -> InformationPlane:
    """Return the plane of stored snapshots, such as `fit(...).snapshots`.

    Args:
        snapshots: (run, epoch, {layer: activations of shape (n_samples, ...)}).
        y: labels of the samples, shape (n_samples,).
        estimators: see `PlaneRecorder`.
        metadata: kept with the plane.
        samples: indices of the samples to measure; None takes all.
    """
    recorder = PlaneRecorder(y, estimators, metadata, samples)
    for snapshot in snapshots:
        recorder(snapshot)
    return recorder.plane()


def _check_indices(samples: Tensor, size: int) -> Tensor:
    """Return samples, if they are whole numbers from 0 to size − 1."""
    whole = not (samples.is_floating_point() or samples.is_complex() or samples.dtype == torch.bool)
    if not (whole and samples.ndim == 1 and len(samples)):
        raise ValueError(
            "samples must be a list of indices, at least one; got "
            f"{samples.dtype} of shape {tuple(samples.shape)}"
        )
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high >= size:
        raise ValueError(f"samples must lie from 0 to {size - 1}, got {low} to {high}")
    return samples


def _measure(estimator: Estimator, z: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Return a row a bound; activations that are not finite give NaN under each known name."""
    if not bool(torch.isfinite(z).all()):
        # The names are learned from the same labels with harmless values, all different, for no
        # noise can be read off a constant.
        finite = z[z.isfinite()].double()
        low, high = (float(v) for v in finite.aminmax()) if len(finite) else (0.0, 0.0)
        low, high = (low, high) if low < high else (0.0, 1.0)
        named = estimator(torch.linspace(low, high, len(z), dtype=torch.float64), y)
        return [
            {"estimator": name, "i_xz": np.nan, "i_zy": np.nan, "finite": False,
             "singleton_share": np.nan}
            for name in named
        ]  # fmt: skip
    share = getattr(estimator, "singleton_share", lambda _: np.nan)(z)
    return [
        {
            "estimator": name,
            "i_xz": mi.i_xz,
            "i_zy": mi.i_zy,
            "finite": True,
            "singleton_share": share,
        }
        for name, mi in estimator(z, y).items()
    ]
