"""Curves over epochs, scales and settings."""

from collections.abc import Mapping
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

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


def gradient_snr(
    panels: Mapping[str, pd.DataFrame],
    *,
    accuracies: Mapping[str, pd.DataFrame] | None = None,
    note: str = "",
) -> Figure:
    """Draw gradient means (full lines) and deviations (dashed) by epoch, a colour and marker each.

    Lines are geometric means over seeds, bands reach one (geometric) deviation either way.

    Args:
        panels: title → table of `ibcore.snr`: run, epoch, weight, mean, deviation.
        accuracies: the same titles → `History.table`; its test accuracy is drawn below.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        below = dict(accuracies or {})
        height = 2.6 if below else 3.6
        figure, axes = grid([*panels.items(), *below.items()], len(panels), height, share_y=False)
        for axis, (title, table) in zip(axes, panels.items(), strict=False):
            for number, (_, rows) in enumerate(table.groupby("weight", sort=False)):
                for column, style in (("mean", "-"), ("deviation", "--")):
                    label = f"layer {number + 1}" if column == "mean" else None
                    band(axis, rows, column, number, label, style, log=True)
            axis.set(xscale="log", yscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel("norm of the gradient (no unit)")
        for axis, table in zip(axes[len(panels) :], below.values(), strict=True):
            band(axis, table, "test_accuracy", 6, None)
            axis.set(xscale="log", xlabel="epoch", ylim=(0, 1))
            axes[len(panels)].set_ylabel("test accuracy")
        handles, labels = axes[0].get_legend_handles_labels()
        handles += [Line2D([], [], color="0.3"), Line2D([], [], color="0.3", linestyle="--")]
        labels += ["mean", "deviation"]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        finish(figure, note)
    return figure


def accuracy(panels: Mapping[str, pd.DataFrame], *, note: str = "") -> Figure:
    """Draw train and test accuracy by epoch: mean over seeds, band of one deviation.

    Args:
        panels: title → `History.table`.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 3, height=2.8)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for number, part in enumerate(("train", "test")):
                band(axis, table, f"{part}_accuracy", number, part)
            axis.set(xscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel("accuracy (share of samples)")
        axes[-1].legend(loc="lower right")
        finish(figure, note)
    return figure


def sensitivity(
    tables: Mapping[str, pd.DataFrame], *, limits: Mapping[str, float], note: str = ""
) -> Figure:
    """Draw an estimate against the scale that was assumed for it, one colour and marker a layer.

    Args:
        tables: x-axis label → columns scale, layer, i_xz (a row a seed, layer and scale).
        limits: label → value in bits, drawn as dotted lines.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = grid(tables.items(), 3, height=3.0)
        for axis, (title, table) in zip(axes, tables.items(), strict=True):
            for number, (_, rows) in enumerate(table.groupby("layer", sort=False)):
                rows = rows.rename(columns={"scale": "epoch"})
                band(axis, rows, "i_xz", number, f"layer {number + 1}")
            for value in limits.values():
                axis.axhline(value, linestyle=":", **LIMIT)
            axis.set(xscale="log", xlabel=title)
        for name, value in limits.items():
            axes[-1].annotate(
                name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                fontsize=8, color="0.35",
            )  # fmt: skip
        axes[0].set_ylabel("I(X;T) in bits")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
        finish(figure, note)
    return figure


def distances(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, note: str = ""
) -> Figure:
    """Draw the distribution of the pairwise distances in each layer, one colour and dash a layer.

    Args:
        panels: title → layer → share of the pairs in each bin, and the edges of the bins.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 2, height=3.0, share_y=False)
        for axis, (title, layers) in zip(axes, panels.items(), strict=True):
            for number, (layer, (shares, edges)) in enumerate(layers.items()):
                density, colour = shares / np.diff(edges), cycle_colour(number)
                axis.stairs(density, edges, color=colour, fill=True, alpha=0.2)
                axis.stairs(
                    density, edges, color=colour, linewidth=1.2, label=layer,
                    linestyle=DASHES[number % len(DASHES)],
                )  # fmt: skip
            axis.set(xlabel="distance between two samples", title=title)
            axis.legend(loc="upper right")
        axes[0].set_ylabel("density of the pairs")
        finish(figure, note)
    return figure


def curves(
    panels: Mapping[str, pd.DataFrame], *, x: str, y: str = "", log: bool = False, note: str = ""
) -> Figure:
    """Draw quantities against a setting that was varied, a colour and marker each, band over seeds.

    Args:
        panels: y-axis label, or title where y is given → columns x, series, value (a row a seed,
            series and setting).
        x: label of the x axis.
        y: label of the y axis of all panels.
        log: whether the x axis is logarithmic.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 3, height=2.8, share_y=False)
        for axis, (label, table) in zip(axes, panels.items(), strict=True):
            for number, (series, rows) in enumerate(table.groupby("series", sort=False)):
                rows = rows.rename(columns={"x": "epoch"})
                band(axis, rows, "value", number, str(series))
            axis.set(xlabel=x, ylabel=y or label, xscale="log" if log else "linear")
            axis.set_title(label if y else "")
            if log:
                few_ticks(axis, table["x"])
            axis.set_ylim(bottom=0)
        across = 6 if len(axes) > 1 else 2
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=across)
        finish(figure, note)
    return figure


def strips(
    panels: Mapping[str, pd.DataFrame],
    *,
    x: str,
    lines: Mapping[float, str],
    columns: int = 3,
    note: str = "",
) -> Figure:
    """Draw a value a seed by groups, one below the other: faint points, mean, 95 % of the mean.

    The intervals are those of Student's t; a group of one seed has none.

    Args:
        panels: title → columns group, value (a row a group and seed).
        x: label of the value, with its unit.
        lines: value → dash style of a vertical line.
        columns: panels in a row.
        note: shown above the panels.
    """
    names = list(dict.fromkeys(name for table in panels.values() for name in table["group"]))
    every = np.array([*lines, *(v for table in panels.values() for v in table["value"])])
    span = every.min(), every.max()
    margin = 0.05 * (span[1] - span[0])
    with matplotlib.style.context(STYLE):
        height = max(1.6, 0.9 + 0.17 * len(names))
        figure, axes = grid(panels.items(), columns, height=height)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for place, name in enumerate(names):
                values = table.loc[table["group"] == name, "value"].to_numpy(dtype=float)
                if len(values):
                    _strip(axis, place, values)
            for value, dash in lines.items():
                axis.axvline(value, linestyle=dash, **LIMIT)
            axis.set(title=title, xlabel=x, xlim=(span[0] - margin, span[1] + margin))
            axis.set_yticks(range(len(names)), names)
            axis.tick_params(axis="y", labelsize=7)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        finish(figure, note)
    return figure


def searches(panels: Mapping[str, pd.DataFrame], *, y: str, x: str, note: str = "") -> Figure:
    """Draw how searches come along: mean over repetitions, its 95 % interval at three points.

    The intervals are those of Student's t, and stand a little beside one another.

    Args:
        panels: title → columns x (1 and on), series, run, value (a row a series, run and x).
        y: label of the value, with its unit.
        x: label of the x axis.
        note: shown above the panels.
    """
    names = list(dict.fromkeys(n for table in panels.values() for n in table["series"]))
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 3, height=2.7, share_y=False)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            marks = np.unique(np.ceil(table["x"].max() * np.array([1, 2, 3]) / 3).astype(int))
            for name, rows in table.groupby("series", sort=False):
                number = names.index(str(name))
                values = rows.pivot_table(index="x", columns="run", values="value")
                axis.plot(
                    values.index, values.mean(axis=1), color=cycle_colour(number),
                    linestyle=DASHES[number % len(DASHES)], linewidth=1.1,
                )  # fmt: skip
                at = values.loc[marks]
                axis.errorbar(
                    marks + (number - len(names) / 2) * marks[-1] / 80, at.mean(axis=1),
                    yerr=[_half(row) for row in at.to_numpy()], color=cycle_colour(number),
                    fmt=MARKERS[number % len(MARKERS)], markersize=3.6, elinewidth=0.9,
                    label=str(name),
                )  # fmt: skip
            axis.set(title=title, xlabel=x)
            axis.set_ylim(bottom=0)
        for axis in axes[::3]:
            axis.set_ylabel(y)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        finish(figure, note)
    return figure


def layers(report: pd.DataFrame, note: str = "") -> Figure:
    """Draw what `diagnose` found: each layer's units, what is used and needed, and what to try.

    Args:
        report: columns layer, units, directions, needed, width, verdict, from the first layer to
            the last.
        note: shown above the panel.
    """
    with matplotlib.style.context(STYLE):
        figure, (axis,) = grid([("", report)], 1, height=1.3 + 0.42 * len(report))
        figure.set_figwidth(7.6)
        rows = np.arange(len(report))
        shades = {"units": "0.88", "directions": "0.68", "needed": cycle_colour(0)}
        named = {"units": "units", "directions": "99 % of the variance", "needed": "needed"}
        for (column, shade), height in zip(shades.items(), (0.72, 0.5, 0.28), strict=True):
            label = named[column]
            axis.barh(rows, report[column], height, color=shade, label=label, zorder=2)
        width = report["width"]
        axis.plot(width, rows, "D", color="0.1", markersize=4, label="width to try", zorder=3)
        most = float(max(report["units"].max(), width.max()))
        for row, verdict in enumerate(report["verdict"]):
            place = axis.get_yaxis_transform()
            axis.text(1.01, row, verdict, va="center", fontsize=8, transform=place)
        axis.set(xlabel="directions or units", xscale="log", xlim=(0.8, 1.2 * most))
        axis.xaxis.set_major_formatter("{x:g}")
        few = most < 20  # so that numbers between powers of ten have room
        axis.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if few and x >= 1 else "")
        axis.tick_params(axis="x", which="both", length=3, pad=3)
        axis.set_yticks(rows, report["layer"])
        axis.invert_yaxis()
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
        finish(figure, note)
    return figure


def _strip(axis: Axes, place: int, values: np.ndarray) -> None:
    faint: dict[str, Any] = {"s": 6, "color": cycle_colour(0), "alpha": 0.25, "linewidths": 0}
    axis.scatter(values, np.full(len(values), place), **faint)
    mean: dict[str, Any] = {"fmt": "D", "markersize": 3.4, "color": "0.1", "elinewidth": 1.2}
    axis.errorbar(values.mean(), place, xerr=_half(values), **mean)


def _half(values: np.ndarray) -> float:
    """Return half of Student's 95 % interval of the mean; 0 for a single value."""
    v = values[~np.isnan(values)]
    if len(v) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v)))
