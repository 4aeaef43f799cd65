"""What all figures share: style, panels, bands and colours."""

from collections.abc import Iterable, Sized
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

STYLE = str(files("ibcore.plotting") / "ib.mplstyle")
MARKERS = "osD^vPX"  # of the series, in order
DASHES: Any = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2))]
LIMIT: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}


def grid(
    panels: Iterable[tuple[str, Sized]], columns: int, height: float, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure of page width with an axis a panel; `height` is that of a row, in inches.

    Raises:
        ValueError: no panels, or one without rows.
    """
    panels = list(panels)
    if not panels:
        raise ValueError("nothing to draw: no panels were given")
    if empty := [title for title, content in panels if not len(content)]:
        raise ValueError(f"nothing to draw: no rows in {empty}")
    count = len(panels)
    across, down = min(count, columns), -(-count // columns)
    figure = Figure(figsize=(4.6 if count == 1 else 7.6, height * down))
    axes = list(figure.subplots(down, across, sharey=share_y, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def band(
    axis: Axes,
    rows: pd.DataFrame,
    column: str,
    number: int,
    label: str | None,
    style: str = "-",
    log: bool = False,
) -> None:
    """Draw the mean over seeds by epoch, with a band of one standard deviation.

    The number of the series gives colour and marker, so that it can be told without colour.
    """
    colour = cycle_colour(number)
    values = rows.assign(
        value=np.log(rows[column].where(rows[column] > 0)) if log else rows[column]
    )
    grouped = values.groupby("epoch")["value"]
    mean, spread = grouped.mean(), grouped.std(ddof=1).fillna(0.0)
    scale: Any = np.exp if log else (lambda v: v)
    every = max(1, len(mean) // 8)
    axis.plot(
        mean.index, scale(mean), linestyle=style, color=colour, label=label,
        marker=MARKERS[number % len(MARKERS)], markersize=3.6,
        markevery=(number % min(3, every), every),
    )  # fmt: skip
    axis.fill_between(
        mean.index,
        scale(mean - spread),
        scale(mean + spread),
        color=colour,
        alpha=0.15,
        linewidth=0,
    )


def few_ticks(axis: Axes, values: Iterable[float]) -> None:
    """Put a tick at each value of a logarithmic x axis where these are few."""
    if len(places := sorted(set(values))) <= 6:
        axis.set_xticks(places, labels=[f"{place:g}" for place in places])
        axis.xaxis.set_minor_locator(NullLocator())


def cycle_colour(number: int) -> str:
    """Return a colour of the style's cycle itself: "C0" would be looked up after the style ends."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(cycle[number % len(cycle)])


def finish(figure: Figure, note: str) -> None:
    """Add the note, and draw once while the style holds: ticks are only made then."""
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=8, color="#b00020")
    figure.draw_without_rendering()
