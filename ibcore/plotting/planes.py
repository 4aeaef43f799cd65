"""Information planes, and their coordinates over the epochs."""

from collections.abc import Mapping

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ibcore.plane import InformationPlane
from ibcore.plotting.style import LIMIT, STYLE, band, finish, grid

_N_LINES = 24  # epochs that a plane shows, evenly spaced on a log axis


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
        figure, axes = grid(panels.items(), columns, height=3.3 if len(panels) <= columns else 2.6)
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
        finish(figure, note)
    return figure


def traces(
    panels: Mapping[str, tuple[InformationPlane, str]], *, column: str = "i_xz", note: str = ""
) -> Figure:
    """Draw one coordinate of the plane by epoch: a colour and marker a layer, a band over runs.

    Args:
        panels: title → plane and the name of the estimator in it.
        column: "i_xz" or "i_zy".
        note: shown above the panels.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = grid(panels.items(), 3, height=3.0)
        for axis, (title, (plane, estimator)) in zip(axes, panels.items(), strict=True):
            table = plane.select(estimator)
            for number, layer in enumerate(plane.layers):
                rows = table[table["layer"] == layer]
                band(axis, rows, column, number, f"layer {number + 1}")
            limit = plane.ceiling if column == "i_xz" else plane.metadata["label_entropy"]
            axis.axhline(limit, linestyle=":", **LIMIT)
            axis.set(xscale="log", xlabel="epoch", title=title)
        axes[0].set_ylabel({"i_xz": "I(X;T)", "i_zy": "I(T;Y)"}[column] + " in bits")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
        finish(figure, note)
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
    for label, (x, y) in _labels(paths[-1], near=(0.05 * plane.ceiling, 0.09 * h_y)):
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
    axis.axhline(h_y, linestyle="--", **LIMIT)
    axis.axvline(ceiling, linestyle=":", **LIMIT)
    axis.set(xlim=(-0.03 * ceiling, 1.06 * ceiling), ylim=(-0.04 * h_y, 1.16 * h_y))
    axis.text(0.02 * ceiling, h_y, "H(Y)", va="bottom", fontsize=8, color="0.35")
    axis.text(ceiling, 0.02 * h_y, "log₂N ", ha="right", va="bottom", fontsize=8, color="0.35")
