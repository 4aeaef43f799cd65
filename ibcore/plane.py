"""The information plane as a tidy table, with the flags that say what to believe."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ibcore.interface import MutualInformation
from ibcore.settling import CHECKS, at_floor, uncertain, unsettled

KEYS = ["run", "epoch", "layer", "estimator"]
COLUMNS = [*KEYS, *MutualInformation._fields, "finite"]
OWN = {"n_samples", "label_entropy", "layers", "estimators", "versions"}  # of the metadata
_ROUNDING = 1e-9  # bits: what float64 sums may be off by


@dataclass
class InformationPlane:
    """I(X;T) and I(T;Y) in bits for each run, epoch, layer and estimator.

    Args:
        table: the columns run, epoch, layer, estimator, those of `MutualInformation`, and finite,
            whether all activations were.
        metadata: n_samples, label_entropy (bits), layers (first to last), versions, and what the
            caller adds: parameters, seeds, hash of the data.
        checks: floors and settling of chosen points, see `ibcore.settling`; may be empty.
    Raises:
        ValueError: a table without rows, a column missing or of another type, a row twice, a layer
            that the metadata don't list, or metadata without n_samples or label_entropy.
    """

    table: pd.DataFrame
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, *CHECKS]))

    def __post_init__(self) -> None:
        _check(self.table, self.metadata)

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
        tables = (t[t["run"] == run] for t in (self.table, self.checks))
        return InformationPlane(next(tables), self.metadata, next(tables))

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
        below zero. "uncertain": the error of either is as large as itself. "not finite": NaN or
        infinite activations. "singletons": bins with one sample (mean share). "at the floor" and
        "unsettled": of the points that were checked, see `ibcore.settling`. "DPI, X" and "DPI, Y":
        the next layer has more information, by more than the spread over runs. "lower > upper": BD
        above KL.
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
            "uncertain": uncertain(rows),
            "not finite": ~rows["finite"],
        }
        found = [(estimator, flag, int(held[flag].sum()), len(rows)) for flag in held]
        if rows["singleton_share"].notna().any():
            share = rows["singleton_share"].mean()
            found.append((estimator, "singletons", round(share * len(rows)), len(rows)))
        checked = self.checks.merge(rows, on=KEYS)
        for flag, holds in (("at the floor", at_floor), ("unsettled", unsettled)):
            if len(checked):
                found.append((estimator, flag, int(holds(checked).sum()), len(checked)))
        for axis, column in (("X", "i_xz"), ("Y", "i_zy")):
            broken = dpi_violations(rows, self.layers, column)
            found.append((estimator, f"DPI, {axis}", int(broken.sum()), broken.size))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plane to one Parquet file; a file there is replaced at the end.

        Raises:
            OSError: the file can't be written; it names the file.
        """
        path = Path(path)
        checks = self.checks.to_dict("split", index=False)
        held = json.loads(json.dumps({"metadata": self.metadata, "checks": checks}))
        table = self.table.reset_index(drop=True)
        table.attrs = {"ibcore": json.dumps({**held, "sha256": _digest(table, held)})}
        temporary = path.with_name(path.name + ".part")
        try:
            table.to_parquet(temporary, write_page_checksum=True)
            temporary.replace(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "InformationPlane":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no plane, or is damaged.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"no plane at {path}: save one there first")
        try:
            if not Path(path).is_file():
                raise ValueError("no regular file")
            table = pd.read_parquet(path, page_checksum_verification=True)
            held = json.loads(table.attrs.pop("ibcore"))
            if held.pop("sha256") != _digest(table, held):
                raise ValueError("its content has another hash than when it was saved")
            return cls(table, held["metadata"], pd.DataFrame(**held["checks"]))
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(
                f"{path} holds no information plane, or is damaged: {error}"
            ) from error


def _check(table: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Raise ValueError where a plane's table or metadata are not what the methods rest on."""
    if missing := [column for column in COLUMNS if column not in table]:
        raise ValueError(f"a plane's table needs the columns {COLUMNS}, and lacks {missing}")
    if table.empty:
        raise ValueError("a plane needs at least one row")
    numbers = table[[c for c in COLUMNS if c not in ("layer", "estimator")]]
    if other := [c for c in numbers if not pd.api.types.is_numeric_dtype(numbers[c])]:
        raise ValueError(f"{other} must hold numbers, got {[str(table[c].dtype) for c in other]}")
    if table["finite"].dtype != bool:
        raise ValueError(f"'finite' must hold True or False, got {table['finite'].dtype}")
    if table.duplicated(KEYS).any():
        raise ValueError(f"{int(table.duplicated(KEYS).sum())} rows came twice, by {KEYS}")
    known = {"n_samples", "label_entropy", "layers"} <= set(metadata)
    if not known or not metadata["n_samples"] >= 1 or not np.isfinite(metadata["label_entropy"]):
        raise ValueError(f"metadata need n_samples, label_entropy and layers, got {metadata}")
    if unknown := set(table["layer"]) - set(metadata["layers"]):
        raise ValueError(f"the metadata list no layers {sorted(unknown)}: {metadata['layers']}")


def _digest(table: pd.DataFrame, held: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a file holds: columns, their types and values, metadata."""
    found = hashlib.sha256(json.dumps(held, sort_keys=True).encode())
    for name, column in table.items():
        found.update(f"{name} {column.dtype} {len(column)} ".encode())
        text = pd.api.types.is_string_dtype(column)
        found.update("\0".join(column).encode() if text else column.to_numpy().tobytes())
    return found.hexdigest()


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
