"""The information plane as a tidy table, with the flags that say what to believe."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ibcore.interface import MutualInformation

KEYS = ["run", "epoch", "layer", "estimator"]
COLUMNS = [*KEYS, *MutualInformation._fields, "finite"]
_ROUNDING = 1e-9  # bits: what float64 sums may be off by


@dataclass
class InformationPlane:
    """I(X;T) and I(T;Y) in bits for each run, epoch, layer and estimator.

    Args:
        table: the columns run, epoch, layer, estimator, those of `MutualInformation`, and finite,
            whether all activations were.
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

        "saturated": I(X;T) within 1 % of log₂ N, or of the estimator's own ceiling, such as
        InfoNCE's log₂ of the batch. "above H(Y)": I(T;Y) > H(Y). "negative": either
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
        ceiling = rows["ceiling"].clip(upper=self.ceiling)
        held = {
            "saturated": rows["i_xz"] >= 0.99 * ceiling,
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
