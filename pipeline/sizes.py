"""Layers and files of the record's networks in a form that the book's page of sizes draws from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.explorer import quoted, stand_in
from study import coding, settings
from study.jobs import read_set

Held = Mapping[str, pd.DataFrame]
BARS = ("units", "directions", "needed", "width", "confidence")


def script(tables: Path) -> str:
    """Return a classic script that sets `SIZES`: layers, files, and what is missing.

    Args:
        tables: folder of the chapters' tables.
    """
    found: dict[str, list[Any]] = {"layers": [], "files": [], "missing": []}
    for name, chapter, read in (("layers", "capacity", _layers), ("files", "compression", _files)):
        stem = settings.CHAPTERS[chapter]
        try:
            held = read_set(tables / chapter)[0]
        except (OSError, ValueError) as error:
            found["missing"].append(f"{name}, which are those of {stem}: {error}")
            continue
        shared = {"page": f"notebooks/{stem}.html", "source": stand_in(held)}
        found[name] = [panel | shared for panel in read(held)]
    return f"var SIZES = {quoted(found)};\n"


def _layers(held: Held) -> list[dict[str, Any]]:
    """Return what `diagnose` found, a panel a network, means over seeds; the commonest verdicts."""
    usual = held["layers"][held["layers"]["case"] == "ordinary"]
    table = pd.concat([held["evidence"].rename(columns={"shape": "name"}),
                       usual.rename(columns={"kind": "name"})])  # fmt: skip
    panels = []
    for name, rows in table.groupby("name", sort=False):
        groups = rows.groupby("layer", sort=False)
        bars = groups[list(BARS)].mean().round(2).astype(object)
        bars["verdict"] = groups["verdict"].agg(_commonest)
        records = bars.where(bars.notna(), None).reset_index().to_dict("records")
        panels.append({"name": name, "runs": int(rows["run"].nunique()), "layers": records})
    return panels


def _commonest(words: pd.Series) -> str:
    return " or ".join(words.mode())  # two seeds may differ: none of the two is hidden


def _files(held: Held) -> list[dict[str, Any]]:
    """Return accuracy by size of file, a panel a kind of network, means over seeds."""
    tried = coding.with_halvings(held["techniques"])
    panels = []
    for kind, rows in tried.groupby("kind", sort=False):
        curve = held["curve"][held["curve"]["kind"] == kind]
        lines = [
            {"name": way, "points": _points(part, "step")}
            for way, part in curve.groupby("rounding", sort=False)
        ]
        panels.append(
            {
                "name": kind,
                "runs": int(rows["run"].nunique()),
                "memory": round(float(rows["memory"].mean()) / 1000, 3),
                "before": round(float(rows["before_test"].mean()), 4),
                "lines": lines,
                "techniques": _points(rows, "technique"),
            }
        )
    return panels


def _points(rows: pd.DataFrame, by: str) -> list[list[Any]]:
    """Return [setting, kB (geometric mean), test accuracy], rounded for the screen."""
    groups = rows.assign(log=np.log(rows["bytes"])).groupby(by, sort=False)
    mean = groups[["log", "test_accuracy"]].mean()
    sizes = np.exp(mean["log"]) / 1000
    return [
        [setting, float(f"{size:.4g}"), round(float(accuracy), 4)]
        for setting, size, accuracy in zip(mean.index, sizes, mean["test_accuracy"], strict=True)
    ]
