"""Every figure of the book, in one style; each function returns its matplotlib figure."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ibcore.plane import InformationPlane

STYLE = str(files("ibcore") / "ib.mplstyle")
_N_LINES = 24  # epochs that a plane shows, evenly spaced on a log axis
_LIMIT: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}


def information_plane(
    panels: Mapping[str, tuple[InformationPlane, str]],
    *,
    columns: int = 3,
    note: str = "",
) -> Figure:
    """Draw information planes side by side: mean over runs, spread at the first and last epoch.

    Each line joins the layers of one epoch, its colour is the epoch. Limits: log₂ N (dotted),
    H(Y) (dashed), and min(I(X;T), H(Y)), the information-bottleneck curve of Y = f(X) (grey).

    Args:
        panels: title → plane and the name of the estimator in it.
        columns: panels in a row; more go on in the next row.
        note: shown above the panels, such as the name of a stand-in.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(panels), columns, height=3.3 if len(panels) <= columns else 2.6)
        last = max(int(plane.table["epoch"].max()) for plane, _ in panels.values())
        norm = LogNorm(1, max(last, 2))
        for axis, (title, (plane, estimator)) in zip(axes, panels.items(), strict=True):
            _draw_plane(axis, plane, estimator, norm)
            axis.set_title(title)
            axis.set_xlabel("I(X;T) in bits")
        for axis in axes[::columns]:
            axis.set_ylabel("I(T;Y) in bits")
        figure.colorbar(
            ScalarMappable(norm, "viridis"),
            ax=axes,
            label="epoch",
            pad=0.015,
            aspect=20 * -(-len(panels) // columns),
        )
        _finish(figure, note)
    return figure


def _draw_plane(axis: Axes, plane: InformationPlane, estimator: str, norm: LogNorm) -> None:
    summary, h_y = plane.summary(estimator), plane.metadata["label_entropy"]
    epochs = summary["epoch"].unique()
    targets = np.geomspace(epochs[0], epochs[-1], _N_LINES)
    shown = sorted({epochs[int(np.abs(np.log(epochs / t)).argmin())] for t in targets})
    by_epoch = dict(list(summary.groupby("epoch")))
    paths = [by_epoch[epoch][["i_xz", "i_zy"]].to_numpy() for epoch in shown]
    colours = matplotlib.colormaps["viridis"](norm(shown))
    axis.add_collection(LineCollection(paths, colors=colours, linewidths=0.7, alpha=0.6))
    for path, colour in zip(paths, colours, strict=True):
        axis.scatter(
            path[:, 0], path[:, 1], color=colour, s=16, zorder=3, edgecolors="white", linewidths=0.3
        )
    for epoch in {shown[0], shown[-1]}:
        rows = by_epoch[epoch]
        axis.errorbar(
            rows["i_xz"], rows["i_zy"], rows["i_zy_std"], rows["i_xz_std"], fmt="none",
            ecolor=matplotlib.colormaps["viridis"](norm(epoch)), elinewidth=0.8, zorder=2,
        )  # fmt: skip
    _limits(axis, plane.ceiling, h_y)
    for label, (x, y) in _labels(paths[-1], near=(0.03 * plane.ceiling, 0.06 * h_y)):
        axis.annotate(
            label, (x, y), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=9, fontweight="bold", zorder=5,
        )  # fmt: skip


def _labels(points: np.ndarray, near: tuple[float, float]) -> list[tuple[str, np.ndarray]]:
    """Return "1", "2", ... and where to write them; numbers of points that lie near are joined."""
    groups: list[tuple[list[int], np.ndarray]] = []
    for number, point in enumerate(points, 1):
        found = [numbers for numbers, place in groups if (abs(point - place) < near).all()]
        if found:
            found[0].append(number)
        else:
            groups.append(([number], point))
    return [(",".join(map(str, numbers)), place) for numbers, place in groups]


def _limits(axis: Axes, ceiling: float, h_y: float) -> None:
    axis.plot([0, h_y, ceiling], [0, h_y, h_y], color="0.8", linewidth=3, zorder=0)
    axis.axhline(h_y, linestyle="--", **_LIMIT)
    axis.axvline(ceiling, linestyle=":", **_LIMIT)
    axis.set(xlim=(-0.03 * ceiling, 1.06 * ceiling), ylim=(-0.04 * h_y, 1.16 * h_y))
    axis.text(0.02 * ceiling, h_y, "H(Y)", va="bottom", fontsize=8, color="0.35")
    axis.text(ceiling, 0.02 * h_y, "log₂N ", ha="right", va="bottom", fontsize=8, color="0.35")


def gradient_snr(
    panels: Mapping[str, pd.DataFrame],
    *,
    accuracies: Mapping[str, pd.DataFrame] | None = None,
    note: str = "",
) -> Figure:
    """Draw gradient means (full lines) and deviations (dashed) by epoch, one colour a layer.

    Lines are geometric means over seeds, bands reach one (geometric) deviation either way.

    Args:
        panels: title → table of `ibcore.snr`: seed, epoch, layer, mean, deviation.
        accuracies: the same titles → `History.table`; its test accuracy is drawn below.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        below = dict(accuracies or {})
        height = 2.6 if below else 3.6
        figure, axes = _grid(len(panels) + len(below), len(panels), height, share_y=False)
        for axis, (title, table) in zip(axes, panels.items(), strict=False):
            for number, (_, rows) in enumerate(table.groupby("layer", sort=False)):
                for column, style in (("mean", "-"), ("deviation", "--")):
                    label = f"layer {number + 1}" if column == "mean" else None
                    _band(axis, rows, column, _colour(number), style, label, log=True)
            axis.set(xscale="log", yscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel("norm of the gradient (no unit)")
        for axis, table in zip(axes[len(panels) :], below.values(), strict=True):
            _band(axis, table, "test_accuracy", _colour(6), "-", None)
            axis.set(xscale="log", xlabel="epoch", ylim=(0, 1))
            axes[len(panels)].set_ylabel("test accuracy")
        handles, labels = axes[0].get_legend_handles_labels()
        handles += [Line2D([], [], color="0.3"), Line2D([], [], color="0.3", linestyle="--")]
        labels += ["mean", "deviation"]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        _finish(figure, note)
    return figure


def accuracy(panels: Mapping[str, pd.DataFrame], *, note: str = "") -> Figure:
    """Draw train and test accuracy by epoch: mean over seeds, band of one deviation.

    Args:
        panels: title → `History.table`.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(panels), 3, height=2.8)
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            for column, colour, label in (
                ("train_accuracy", _colour(0), "train"),
                ("test_accuracy", _colour(1), "test"),
            ):
                _band(axis, table, column, colour, "-", label)
            axis.set(xscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel("accuracy (share of samples)")
        axes[-1].legend(loc="lower right")
        _finish(figure, note)
    return figure


def traces(
    panels: Mapping[str, tuple[InformationPlane, str]], *, column: str = "i_xz", note: str = ""
) -> Figure:
    """Draw one coordinate of the plane against the epoch, one colour a layer, band over runs.

    Args:
        panels: title → plane and the name of the estimator in it.
        column: "i_xz" or "i_zy".
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(panels), 3, height=3.0)
        for axis, (title, (plane, estimator)) in zip(axes, panels.items(), strict=True):
            table = plane.select(estimator)
            for number, layer in enumerate(plane.layers):
                rows = table[table["layer"] == layer]
                _band(axis, rows, column, _colour(number), "-", f"layer {number + 1}")
            limit = plane.ceiling if column == "i_xz" else plane.metadata["label_entropy"]
            axis.axhline(limit, linestyle=":", **_LIMIT)
            axis.set(xscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel({"i_xz": "I(X;T)", "i_zy": "I(T;Y)"}[column] + " in bits")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
        _finish(figure, note)
    return figure


def sensitivity(
    tables: Mapping[str, pd.DataFrame], *, limits: Mapping[str, float], note: str = ""
) -> Figure:
    """Draw an estimate against the scale that was assumed for it, one colour a layer.

    Args:
        tables: x-axis label → columns scale, layer, i_xz (a row a seed, layer and scale).
        limits: label → value in bits, drawn as dotted lines.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(tables), 3, height=3.0)
        for axis, (title, table) in zip(axes, tables.items(), strict=True):
            for number, (_, rows) in enumerate(table.groupby("layer", sort=False)):
                rows = rows.rename(columns={"scale": "epoch"})
                _band(axis, rows, "i_xz", _colour(number), "-", f"layer {number + 1}")
            for value in limits.values():
                axis.axhline(value, linestyle=":", **_LIMIT)
            axis.set(xscale="log", xlabel=title)
        for name, value in limits.items():
            axes[-1].annotate(
                name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                fontsize=8, color="0.35",
            )  # fmt: skip
        axes[0].set_ylabel("I(X;T) in bits")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
        _finish(figure, note)
    return figure


def distances(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, note: str = ""
) -> Figure:
    """Draw the distribution of the pairwise distances in each layer, one colour a layer.

    Args:
        panels: title → layer → share of the pairs in each bin, and the edges of the bins.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(panels), 2, height=3.0, share_y=False)
        for axis, (title, layers) in zip(axes, panels.items(), strict=True):
            for number, (layer, (shares, edges)) in enumerate(layers.items()):
                density, colour = shares / np.diff(edges), _colour(number)
                axis.stairs(density, edges, color=colour, fill=True, alpha=0.2)
                axis.stairs(density, edges, color=colour, linewidth=1.2, label=layer)
            axis.set(xlabel="distance between two samples", title=title)
            axis.legend(loc="upper right")
        axes[0].set_ylabel("density of the pairs")
        _finish(figure, note)
    return figure


def curves(
    panels: Mapping[str, pd.DataFrame], *, x: str, log: bool = False, note: str = ""
) -> Figure:
    """Draw quantities against a setting that was varied, one colour a series, band over seeds.

    Args:
        panels: y-axis label → columns x, series, value (a row a seed, series and setting).
        x: label of the x axis.
        log: whether the x axis is logarithmic.
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _grid(len(panels), 3, height=2.8, share_y=False)
        for axis, (label, table) in zip(axes, panels.items(), strict=True):
            for number, (series, rows) in enumerate(table.groupby("series", sort=False)):
                rows = rows.rename(columns={"x": "epoch"})
                _band(axis, rows, "value", _colour(number), "-", str(series))
            axis.set(xlabel=x, ylabel=label, xscale="log" if log else "linear")
            axis.set_ylim(bottom=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        _finish(figure, note)
    return figure


def _grid(
    count: int, columns: int, height: float, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure of page width with `count` panels; `height` is that of a row, in inches."""
    across, down = min(count, columns), -(-count // columns)
    figure = Figure(figsize=(4.6 if count == 1 else 7.6, height * down))
    axes = list(figure.subplots(down, across, sharey=share_y, squeeze=False).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def _band(
    axis: Axes,
    rows: pd.DataFrame,
    column: str,
    colour: str,
    style: str,
    label: str | None,
    log: bool = False,
) -> None:
    """Draw the mean over seeds by epoch, with a band of one standard deviation."""
    values = rows.assign(
        value=np.log(rows[column].where(rows[column] > 0)) if log else rows[column]
    )
    grouped = values.groupby("epoch")["value"]
    mean, spread = grouped.mean(), grouped.std(ddof=1).fillna(0.0)
    scale: Any = np.exp if log else (lambda v: v)
    axis.plot(mean.index, scale(mean), linestyle=style, color=colour, label=label)
    axis.fill_between(
        mean.index,
        scale(mean - spread),
        scale(mean + spread),
        color=colour,
        alpha=0.15,
        linewidth=0,
    )


def _colour(number: int) -> str:
    """Return a colour of the style's cycle itself: "C0" would be looked up after the style ends."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(cycle[number % len(cycle)])


def _finish(figure: Figure, note: str) -> None:
    """Add the note, and draw once while the style holds: ticks are only made then."""
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=8, color="#b00020")
    figure.draw_without_rendering()
