"""What changes with the size of a network."""

from collections.abc import Mapping

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ibcore.plotting.style import (
    DASHES,
    LIMIT,
    MARKERS,
    STYLE,
    band,
    cycle_colour,
    few_ticks,
    finish,
    grid,
)


def growth(
    panels: Mapping[str, pd.DataFrame],
    *,
    x: str,
    y: str,
    lines: Mapping[str, Mapping[str, float]] | None = None,
    note: str = "",
) -> Figure:
    """Draw quantities that grow with a size, both logarithmic: geometric means, band over seeds.

    Args:
        panels: title → columns x, series, value (a row a seed, series and size); what is not
            positive is left out.
        x: label of the x axis.
        y: label of the y axis.
        lines: title → name → value of a horizontal line.
        note: shown above the panels.
    """
    names = list(dict.fromkeys(n for held in (lines or {}).values() for n in held))
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 2, height=2.7)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for number, (series, rows) in enumerate(table.groupby("series", sort=False)):
                band(
                    axis,
                    rows.rename(columns={"x": "epoch"}),
                    "value",
                    number,
                    str(series),
                    log=True,
                )
            for name, value in (lines or {}).get(title, {}).items():
                dash = DASHES[names.index(name) + 1]
                axis.axhline(value, **{**LIMIT, "linewidth": 1.3}, linestyle=dash, label=name)
            axis.set(title=title, xlabel=x, xscale="log", yscale="log")
            few_ticks(axis, table["x"])
        for axis in axes[::2]:
            axis.set_ylabel(y)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        finish(figure, note)
    return figure


def trades(panels: Mapping[str, pd.DataFrame], *, lost: float = 0.005, note: str = "") -> Figure:
    """Draw test accuracy against parameters after each advice, mean and deviation over seeds.

    Args:
        panels: title → columns adviser, run, parameters, test_accuracy; the adviser "none" is the
            original, and a line stands as far below it as may be lost.
        lost: accuracy that may be lost, a share.
        note: shown above the panels.
    """
    names = list(dict.fromkeys(n for table in panels.values() for n in table["adviser"]))
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 3, height=3.0, share_y=False)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for name, rows in table.groupby("adviser", sort=False):
                number = names.index(str(name))
                axis.errorbar(
                    rows["parameters"].mean(), rows["test_accuracy"].mean(),
                    yerr=rows["test_accuracy"].std(ddof=1) if len(rows) > 1 else 0.0,
                    fmt=MARKERS[number % len(MARKERS)], color=cycle_colour(number), markersize=5,
                    fillstyle="none" if number >= len(MARKERS) else "full", label=str(name),
                )  # fmt: skip
            least = table.loc[table["adviser"] == "none", "test_accuracy"].mean() - lost
            axis.axhline(least, **LIMIT, linestyle=":")
            axis.set(title=title, xlabel="parameters in thousands", xscale="log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(lambda size, _: f"{size / 1000:g}")
            axis.xaxis.set_minor_formatter("")
        axes[0].set_ylabel("test accuracy")
        _legend(figure, axes, 3)
        finish(figure, note)
    return figure


def _legend(figure: Figure, axes: list[Axes], columns: int) -> None:
    """Name below the figure what any of its panels has, once."""
    found = {
        label: handle for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns)


def rates(
    panels: Mapping[str, pd.DataFrame],
    *,
    lines: Mapping[str, float] | None = None,
    columns: int = 3,
    note: str = "",
) -> Figure:
    """Draw accuracy against the size of a file, a line a way to make it smaller.

    A point is a setting: the geometric mean of its files and the mean of their accuracies over
    seeds, with one deviation.

    Args:
        panels: title → columns series, setting, run, bytes, accuracy.
        lines: title → accuracy that is to be kept, drawn as a dotted line.
        columns: panels in a row.
        note: shown above the panels.
    """
    names = list(dict.fromkeys(n for table in panels.values() for n in table["series"]))
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), columns, height=2.6, share_y=False)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for name, rows in table.groupby("series", sort=False):
                number = names.index(str(name))
                settings = rows.assign(log=np.log(rows["bytes"])).groupby("setting")
                mean = settings[["log", "accuracy"]].mean()
                axis.errorbar(
                    np.exp(mean["log"]) / 1000, mean["accuracy"],
                    yerr=settings["accuracy"].std(ddof=1).fillna(0.0), elinewidth=0.8,
                    marker=MARKERS[number % len(MARKERS)], color=cycle_colour(number),
                    linestyle=DASHES[number % len(DASHES)], markersize=3.6, label=str(name),
                )  # fmt: skip
            if title in (lines or {}):
                axis.axhline((lines or {})[title], **LIMIT, linestyle=":")
            axis.set(title=title, xlabel="file in kB", xscale="log")
            low, high = axis.get_xlim()
            steps = (1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 4, 6, 8)
            axis.xaxis.set_major_locator(LogLocator(subs=steps))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
        for axis in axes[::columns]:
            axis.set_ylabel("test accuracy")
        _legend(figure, axes, 4)
        finish(figure, note)
    return figure
