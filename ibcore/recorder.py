"""From snapshots of a network to its information plane."""

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ibcore.checks import as_tensor
from ibcore.discrete import label_entropy
from ibcore.interface import Estimator, MutualInformation, apply, named
from ibcore.plane import COLUMNS, KEYS, OWN, InformationPlane
from ibcore.settling import CHECKS, settle

Estimators = Estimator | Sequence[Estimator] | Mapping[str, Estimator | Mapping[str, Estimator]]


class PlaneRecorder:
    """Turns snapshots into rows of a plane as they come, so that no activations pile up.

    Pass it as `on_snapshot` to `fit` or `fit_ensemble`, then take `plane()`.

    Args:
        y: labels of the samples, shape (n_samples,).
        estimators: one, a list, or a mapping from a label to an estimator where two would have the
            same name; the label then stands before the name. In place of an estimator a mapping may
            hold another, from each layer's name to the estimator for it.
        metadata: anything that JSON can hold, to be kept with the plane.
        samples: indices of the samples to measure; None takes all.
        x: inputs of the network, shape (n_samples, ...), for estimators that take them.
        check: whether to check floors and settling, see `ibcore.settling`, on the last snapshot of
            the first run: two or three estimates more of each layer; a critic trains seven times
            more.
    Raises:
        ValueError: no estimators, or what is none; samples that don't exist; metadata that the
            plane has itself or that JSON can't hold. A snapshot is refused where an estimator
            fails, and the error names both: with `fit` that is at the first snapshot, before the
            training is over.
    """

    def __init__(
        self,
        y: Tensor,
        estimators: Estimators,
        metadata: Mapping[str, Any] | None = None,
        samples: Tensor | None = None,
        x: Tensor | None = None,
        check: bool = True,
    ) -> None:
        self._estimators = _check_estimators(estimators)
        y = as_tensor(y, "y")
        self._size, self._samples = len(y), None
        if samples is not None:
            self._samples = _check_indices(as_tensor(samples, "samples"), len(y))
        self._y = self._chosen("y", y)
        self._x = None if x is None else self._chosen("x", x)
        self._rows: list[dict[str, Any]] = []
        self._layers: list[str] = []
        self._metadata = _check_metadata(metadata or {})
        self._check, self._last = check, (0, 0, dict[str, Tensor]())

    def __call__(self, snapshot: Any) -> None:
        """Take in one snapshot: (run, epoch, {layer: activations})."""
        run, epoch, activations = snapshot
        chosen = {layer: self._chosen(layer, z) for layer, z in activations.items()}
        self._layers += [layer for layer in chosen if layer not in self._layers]
        if not self._rows or run == self._rows[0]["run"]:
            self._last = (run, epoch, chosen)
        self._rows += self._over(run, epoch, chosen, _measure)

    def _over(
        self, run: int, epoch: int, activations: Mapping[str, Tensor], measure: Any
    ) -> list[dict[str, Any]]:
        """Return a row for each layer, estimator and bound."""
        rows = []
        for layer, z in activations.items():
            for label in self._estimators:
                estimator = self._estimator(label, layer)
                try:
                    found = measure(estimator, z, self._y, self._x)
                except ValueError as error:
                    raise ValueError(f"layer {layer!r}, {named(estimator)}: {error}") from error
                for row in found:
                    name = row["estimator"]
                    name = f"{label} {name}" if isinstance(label, str) else name
                    rows.append(row | {"run": run, "epoch": epoch, "layer": layer})
                    rows[-1]["estimator"] = name
        return rows

    def _chosen(self, name: str, z: Tensor) -> Tensor:
        z = as_tensor(z, repr(name))
        if self._samples is None:
            return z
        if len(z) != self._size:
            raise ValueError(f"{name!r} has {len(z)} samples, but there are {self._size} labels")
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
        run, epoch, last = self._last
        finite = {layer: z for layer, z in last.items() if bool(z.isfinite().all())}
        checks = self._over(run, epoch, finite, settle) if self._check else []
        return InformationPlane(
            table,
            {
                "n_samples": len(self._y),
                "label_entropy": label_entropy(self._y),
                "layers": list(self._layers),
                "estimators": [repr(e) for e in self._estimators.values()],
                "versions": {p: sys.modules[p].__version__ for p in packages}
                | {"python": platform.python_version()},
                **self._metadata,
            },
            pd.DataFrame(checks, columns=[*KEYS, *CHECKS]),
        )


def information_plane(
    snapshots: Iterable[Any],
    y: Tensor,
    estimators: Estimators,
    metadata: Mapping[str, Any] | None = None,
    samples: Tensor | None = None,
    x: Tensor | None = None,
    check: bool = True,
) -> InformationPlane:
    """Return the plane of stored snapshots, such as `fit(...).snapshots`.

    Args:
        snapshots: (run, epoch, {layer: activations of shape (n_samples, ...)}).
        y: labels of the samples, shape (n_samples,).
        estimators: see `PlaneRecorder`.
        metadata: kept with the plane.
        samples: indices of the samples to measure; None takes all.
        x: inputs of the network, for estimators that take them.
        check: whether to check floors and settling.
    """
    recorder = PlaneRecorder(y, estimators, metadata, samples, x, check)
    for snapshot in snapshots:
        recorder(snapshot)
    return recorder.plane()


def _check_estimators(given: Any) -> dict[Any, Estimator | Mapping[str, Estimator]]:
    """Return the estimators by their labels, or by their place in a list."""
    if callable(given) or isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    found = dict(given.items() if isinstance(given, Mapping) else enumerate(given))
    if not found:
        raise ValueError("a plane needs at least one estimator")
    for estimator in found.values():
        for one in estimator.values() if isinstance(estimator, Mapping) else [estimator]:
            if isinstance(one, type) or not callable(one):
                raise ValueError(f"an estimator is called as Pairwise()(z, y), got {one!r}")
    return found


def _check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if taken := sorted(OWN & set(metadata)):
        raise ValueError(f"metadata can't hold {taken}: the plane says these itself")
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error
    return kept


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


def _measure(estimator: Estimator, z: Tensor, y: Tensor, x: Tensor | None) -> list[dict[str, Any]]:
    """Return a row a bound; activations that are not finite give NaN under each known name."""
    if not bool(torch.isfinite(z).all()):
        # The names are learned from the same labels with harmless values, all different, for no
        # noise can be read off a constant.
        finite = z[z.isfinite()].double()
        low, high = (float(v) for v in finite.aminmax()) if len(finite) else (0.0, 0.0)
        low, high = (low, high) if low < high else (0.0, 1.0)
        named = apply(estimator, torch.linspace(low, high, len(z), dtype=torch.float64), y, x)
        none = MutualInformation(np.nan, np.nan)._asdict()
        return [{"estimator": name, **none, "finite": False} for name in named]
    return [
        {"estimator": name, **mi._asdict(), "finite": True}
        for name, mi in apply(estimator, z, y, x).items()
    ]
