"""What the jobs of all chapters write: rows of planes, facts about data, distances."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ibcore.data import Dataset
from ibcore.discrete import label_entropy
from ibcore.estimators import Pairwise, distance_histogram, noise
from ibcore.interface import Estimator
from ibcore.plane import InformationPlane
from ibcore.training import default_device

Tables = dict[str, pd.DataFrame]
VARIANCES = np.geomspace(1e-4, 1, 9).tolist()  # sigma squared, squared activation


def placed(model: nn.Module, ds: Dataset) -> nn.Module:
    """Return the model on the default device, in the float type of the data."""
    return model.to(default_device(), ds.x.dtype)


def facts(ds: Dataset, samples: Tensor | None = None) -> pd.DataFrame:
    """Return one row on a data set: name, source, hash, sizes, and H(Y) in bits.

    Args:
        ds: the data.
        samples: those that planes are measured on; None takes all.
    """
    y = ds.y if samples is None else ds.y[samples]
    row = {
        "data": ds.name,
        "source": ds.source,
        "sha256": ds.sha256,
        "shape": " × ".join(map(str, ds.x.shape)),
        "samples": len(y),
        "train": len(ds.train),
        "test": len(ds.test),
        "classes": len(ds.classes),
        "label_entropy": label_entropy(y),
    }
    return pd.DataFrame([row])


def plane_rows(plane: InformationPlane, **keys: Any) -> pd.DataFrame:
    """Return a plane's rows with its number of samples and H(Y), and columns of one value.

    Layers come in their order, so that `comparisons.plane` can make the plane of it again.
    """
    held = {name: plane.metadata[name] for name in ("n_samples", "label_entropy")}
    return plane.table.assign(**held, **keys)


def check_rows(plane: InformationPlane, **keys: Any) -> pd.DataFrame:
    """Return what was checked of a plane, floors and settling, with columns of one value."""
    return plane.checks.assign(**keys)


def stacked(parts: Iterable[Mapping[str, pd.DataFrame]]) -> Tables:
    """Return the tables of several parts, one below the other by name."""
    found: dict[str, list[pd.DataFrame]] = {}
    for part in parts:
        for name, table in part.items():
            found.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def noise_policies(
    low: float | None, high: float, limit: int | None = None
) -> dict[str, Estimator]:
    """Return the pairwise estimates that chapters compare, by the way their noise is chosen."""
    constant = {f"σ² = {v:g}": Pairwise(v) for v in (low, high) if v is not None}
    likelihood = noise.MaximumLikelihood() if limit is None else noise.MaximumLikelihood(limit)
    return {
        **constant,
        "percentile rule": Pairwise(noise.Percentile()),
        "proportional": Pairwise(noise.Proportional()),
        "likelihood": Pairwise(likelihood),
    }


def noise_rows(layers: Mapping[str, Tensor], y: Tensor, **keys: Any) -> pd.DataFrame:
    """Return the lower bound under each of `VARIANCES`: layer, scale (sigma squared), i_xz, i_zy.

    Args:
        layers: name → activations, shape (n_samples, ...).
        y: labels, shape (n_samples,).
        keys: columns of one value, such as the run.
    """
    found = {(k, v): Pairwise(v)(z, y)["BD"] for k, z in layers.items() for v in VARIANCES}
    return pd.DataFrame(
        [
            {**keys, "layer": layer, "scale": scale, "i_xz": mi.i_xz, "i_zy": mi.i_zy}
            for (layer, scale), mi in found.items()
        ]
    )


def histogram_rows(z: Tensor, **keys: Any) -> pd.DataFrame:
    """Return the distribution of the distances between any two samples: left, right, share.

    Args:
        z: activations, shape (n_samples, ...).
        keys: columns of one value, such as the layer.
    """
    shares, edges = distance_histogram(z)
    return pd.DataFrame(
        {"left": edges[:-1], "right": edges[1:], "share": np.asarray(shares), **keys}
    )


def float_type(name: str) -> torch.dtype:
    """Return the float type of that name."""
    return {"float32": torch.float32, "float64": torch.float64}[name]
