"""The planes of all chapters in a form that the book's explorer draws from."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study import settings
from study.jobs import MANIFEST, read_set

TITLES = {
    "tishby": "12-bit data",
    "cora": "Cora",
    "names": "names",
    "mnist": "MNIST",
    "estimators": "estimators, 12-bit data",
    "black_box": "black box",
}
TABLES = ("planes", "bounds", "kinds", "policies")  # the first that holds a plane counts
NEEDED = {"run", "epoch", "layer", "estimator", "i_xz", "i_zy", "ceiling", "label_entropy"}
HUNDREDTHS = 100  # of a bit: what a screen can show
EPOCHS = 42  # of a plane, at most: the page is to load in a second


def script(tables: Path) -> str:
    """Return a classic script that sets `PLANES`: no module and no fetch, as for a local file.

    Args:
        tables: folder of the chapters' tables.
    """
    planes, missing = [], []
    for chapter, title in TITLES.items():
        folder = tables / chapter
        stem = settings.CHAPTERS[chapter]
        if not (folder / MANIFEST).exists():
            missing.append(f"{title}: the book was built without the tables of {stem}")
            continue
        try:
            held = read_set(folder)[0]
        except (OSError, ValueError) as error:
            missing.append(f"{title}: {error}")
            continue
        planes += list(_planes(title, f"notebooks/{stem}.html", held))
    return f"var PLANES = {quoted({'planes': planes, 'missing': missing})};\n"


def quoted(value: Any) -> str:
    """Return a JavaScript expression of a value: parsed text loads faster than a literal."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"JSON.parse('{escaped}')"


def _planes(title: str, page: str, held: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Yield each plane of a chapter once: the choices that lead to it, its axes, its points."""
    source = stand_in(held)
    seen = set()
    for name in TABLES:
        table = held.get(name)
        if table is None or not set(table.columns) >= NEEDED:
            continue
        keys = [key for key in ("network", "arm", "activation", "share") if key in table]
        rescaled = table["estimator"].str.endswith("×4")  # layers multiplied, for chapter 06 alone
        for found, rows in table[~rescaled].groupby([*keys, "estimator"], sort=False):
            values = dict(zip([*keys, "estimator"], map(str, found), strict=True))
            network = [values[key] for key in ("network", "arm", "activation") if key in values]
            share = _percent(values["share"]) if "share" in values else "–"
            estimator = values["estimator"]
            choices = [title, ", ".join(network) or "tanh", share, estimator]
            if tuple(choices) not in seen:
                seen.add(tuple(choices))
                yield {"choices": choices, "page": page, "source": source, **_points(rows)}


def _points(rows: pd.DataFrame) -> dict[str, Any]:
    """Return layers, epochs, runs, limits, and both axes by run, epoch and layer, in hundredths."""
    layers, runs = list(rows["layer"].unique()), sorted(rows["run"].unique())
    looked = np.sort(rows["epoch"].unique())
    epochs = looked[np.linspace(0, len(looked) - 1, min(len(looked), EPOCHS)).round().astype(int)]
    index = pd.MultiIndex.from_product([runs, epochs, layers])
    placed = rows.set_index(["run", "epoch", "layer"])[["i_xz", "i_zy"]].reindex(index)
    ceiling = float(rows["ceiling"].min())
    return {
        "layers": layers,
        "epochs": [int(epoch) for epoch in epochs],
        "runs": [int(run) for run in runs],
        "ceiling": round(ceiling, 4) if math.isfinite(ceiling) else None,
        "labels": round(float(rows["label_entropy"].mean()), 4),
        "x": _hundredths(placed["i_xz"]),
        "y": _hundredths(placed["i_zy"]),
    }


def _hundredths(values: pd.Series) -> list[int | None]:
    finite = np.isfinite(values.to_numpy(dtype=float))
    whole = np.where(finite, values.to_numpy(dtype=float) * HUNDREDTHS, 0).round().astype(int)
    return [int(v) if ok else None for v, ok in zip(whole, finite, strict=True)]


def stand_in(held: Mapping[str, pd.DataFrame]) -> str:
    """Return the name of the stand-in data that a chapter's tables rest on, "" for originals."""
    sources = list(held["facts"]["source"].unique()) if "facts" in held else []
    return next((str(s) for s in sources if s not in ("original", "rule")), "")


def _percent(share: str) -> str:
    return f"{100 * float(share):g} %"
