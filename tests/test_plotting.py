"""Laws of the figures: what is given is drawn, with units, and nothing stays open or changed."""

import io
import math
import re
from pathlib import Path

import matplotlib
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from ibcore import InformationPlane, plotting
from ibcore.claims import VERDICTS
from ibcore.plotting.style import MARKERS, STYLE, band

ROOT = Path(__file__).resolve().parent.parent

LAYERS = ["tanh1", "tanh2", "tanh3"]
EPOCHS = [1, 10, 100, 1000]


def plane(runs=3, epochs=EPOCHS, n_samples=4096, layers=LAYERS):
    """Deeper layers and later epochs lie elsewhere, and runs differ a little."""
    rows = [
        {"run": run, "epoch": epoch, "layer": layer, "estimator": "BD",
         "i_xz": 8 - 2 * depth - 0.5 * math.log10(epoch) + 0.1 * run,
         "i_zy": 0.9 - 0.1 * depth + 0.02 * math.log10(epoch) + 0.01 * run,
         "i_xz_error": np.nan, "i_zy_error": np.nan, "ceiling": np.inf, "singleton_share": np.nan,
         "finite": True}
        for run in range(runs) for epoch in epochs for depth, layer in enumerate(layers)
    ]  # fmt: skip
    metadata = {"n_samples": n_samples, "label_entropy": 0.999, "layers": list(layers)}
    return InformationPlane(pd.DataFrame(rows), metadata)


def gradients(seeds=3):
    rows = [
        {"run": seed, "epoch": epoch, "weight": layer,
         "mean": (1 + 0.1 * seed) * (2 + depth) / epoch, "deviation": (1 + 0.1 * seed) * 0.1}
        for seed in range(seeds) for epoch in EPOCHS for depth, layer in enumerate(LAYERS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def history(seeds=3):
    rows = [
        {"run": seed, "epoch": epoch, "train_accuracy": 0.5 + 0.1 * math.log10(epoch),
         "test_accuracy": 0.5 + 0.05 * math.log10(epoch) + 0.01 * seed}
        for seed in range(seeds) for epoch in EPOCHS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def scales():
    rows = [
        {"run": seed, "layer": layer, "scale": scale, "i_xz": 5 - depth - math.log10(scale) + seed}
        for seed in range(2) for scale in (1e-3, 1e-2, 0.1) for depth, layer in enumerate(LAYERS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def pairs():
    edges = np.linspace(0, 4, 5)
    return {
        "layer 1": (np.array([0.1, 0.2, 0.3, 0.4]), edges),
        "layer 2": (np.full(4, 0.25), edges / 2),
    }


def settings():
    rows = [
        {"x": x, "series": series, "run": seed, "value": 10 * x + number + 0.1 * seed}
        for seed in range(3) for x in (0.1, 0.5, 1.0)
        for number, series in enumerate(("FCN", "GCN"))
    ]  # fmt: skip
    return pd.DataFrame(rows)


DRAW = {
    "information_plane": lambda note="": plotting.information_plane(
        {"BD": (plane(), "BD"), "again": (plane(), "BD")}, note=note
    ),
    "gradient_snr": lambda note="": plotting.gradient_snr(
        {"thesis": gradients(), "original": gradients()}, note=note
    ),
    "accuracy": lambda note="": plotting.accuracy({"5 %": history(), "85 %": history()}, note=note),
    "traces": lambda note="": plotting.traces({"BD": (plane(), "BD")}, note=note),
    "sensitivity": lambda note="": plotting.sensitivity(
        {"σ²": scales(), "bin width": scales()}, limits={"log₂N": 12.0}, note=note
    ),
    "distances": lambda note="": plotting.distances({"FCN": pairs(), "GCN": pairs()}, note=note),
    "curves": lambda note="": plotting.curves(
        {"accuracy": settings(), "I(X;T) in bits": settings()}, x="homophily", note=note
    ),
}
every_figure = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


def lines(axis, style="-"):
    """The curves of an axis with more than two points, as (x, y) arrays."""
    return [
        np.array(line.get_data()) for line in axis.lines
        if line.get_linestyle() == style and len(line.get_xdata()) >= 3
        and line.get_color() != "0.8"
    ]  # fmt: skip


def points(axis):
    """All scattered points of an axis, shape (n, 2)."""
    scatters = [c for c in axis.collections if hasattr(c, "get_sizes") and len(c.get_sizes())]
    return np.concatenate([np.asarray(c.get_offsets()) for c in scatters])


def texts(axis):
    return [text.get_text() for text in axis.texts]


def has_point(found, point):
    return bool((np.abs(found - np.asarray(point)) < 1e-9).all(-1).any())


# Every figure


@every_figure
def test_a_figure_is_drawn_without_a_window_and_leaves_nothing_open(draw):
    before = plt.get_fignums()
    draw()
    assert plt.get_fignums() == before


@every_figure
def test_a_figure_can_be_written_as_picture_and_as_drawing(draw):
    figure = draw()
    for kind, head in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        file = io.BytesIO()
        figure.savefig(file, format=kind)
        assert file.getvalue().startswith(head)


@every_figure
def test_the_style_is_the_figures_own_and_not_left_behind(draw):
    before = matplotlib.rcParams.copy()
    draw()
    assert matplotlib.rcParams == before


@every_figure
def test_a_global_style_does_not_change_the_look(draw):
    def looks(figure):
        axis = figure.axes[0]
        return [to_hex(line.get_color()) for line in axis.lines], axis.xaxis.label.get_fontsize()

    plain = looks(draw())
    with matplotlib.rc_context({"axes.labelsize": 31, "axes.prop_cycle": "cycler('color', ['k'])"}):
        assert looks(draw()) == plain


@every_figure
def test_every_panel_has_its_title_and_a_named_axis(draw):
    figure = draw()
    panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert all(axis.get_xlabel() for axis in panels)
    assert panels[0].get_ylabel()


@every_figure
def test_a_note_is_shown_and_nothing_without_one(draw):
    assert draw().get_suptitle() == ""
    assert draw(note="stand-in: synthetic").get_suptitle() == "stand-in: synthetic"


# Information planes


def test_the_plane_draws_the_mean_over_runs_of_every_layer_and_epoch():
    given = plane()
    found = points(plotting.information_plane({"BD": (given, "BD")}).axes[0])
    summary = given.summary("BD")
    assert len(found) == len(summary) == len(EPOCHS) * len(LAYERS)
    for _, row in summary.iterrows():
        assert has_point(found, (row["i_xz"], row["i_zy"]))


def test_lines_join_the_layers_of_one_epoch_in_order():
    given = plane()
    axis = plotting.information_plane({"BD": (given, "BD")}).axes[0]
    paths = [p.vertices for c in axis.collections for p in c.get_paths() if len(p.vertices) == 3]
    for _, rows in given.summary("BD").groupby("epoch"):
        wanted = rows[["i_xz", "i_zy"]].to_numpy()
        assert any(np.allclose(path, wanted) for path in paths)


def test_the_last_epochs_points_carry_the_layer_numbers():
    given = plane()
    axis = plotting.information_plane({"BD": (given, "BD")}).axes[0]
    last = given.summary("BD").query("epoch == 1000")
    marks = {text.get_text(): text.xy for text in axis.texts if hasattr(text, "xy")}
    assert set(marks) == {"1", "2", "3"}
    for number, (_, row) in enumerate(last.iterrows(), 1):
        assert marks[str(number)] == pytest.approx((row["i_xz"], row["i_zy"]))


def test_the_colour_is_the_epoch_and_its_bar_says_so():
    figure = plotting.information_plane({"BD": (plane(), "BD")})
    axis, bar = figure.axes
    assert bar.get_ylabel() == "epoch"
    assert bar.get_ylim() == pytest.approx((1, 1000))
    norm, colours = matplotlib.colors.LogNorm(1, 1000), matplotlib.colormaps["viridis"]
    for epoch in EPOCHS:
        shown = [c for c in axis.collections if hasattr(c, "get_sizes") and len(c.get_sizes())
                 and np.allclose(c.get_facecolor()[0], colours(norm(epoch)))]  # fmt: skip
        assert shown
        rows = plane().summary("BD").query(f"epoch == {epoch}")
        assert has_point(np.asarray(shown[0].get_offsets()), rows[["i_xz", "i_zy"]].iloc[0])


def test_the_axes_are_in_bits():
    figure = plotting.information_plane({"BD": (plane(), "BD"), "KL": (plane(), "BD")})
    assert [axis.get_xlabel() for axis in figure.axes[:2]] == 2 * ["I(X;T) in bits"]
    assert figure.axes[0].get_ylabel() == "I(T;Y) in bits"
    assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes[:2]] == [
        "BD",
        "KL",
    ]


def test_the_limits_and_the_bottleneck_curve_are_drawn_and_within_view():
    axis = plotting.information_plane({"BD": (plane(), "BD")}).axes[0]
    ends = [np.array(line.get_data()).T for line in axis.lines]
    assert any(set(e[:, 1]) == {0.999} for e in ends if len(e) == 2)
    assert any(set(e[:, 0]) == {12.0} for e in ends if len(e) == 2)
    corners = [[0, 0], [0.999, 0.999], [12, 0.999]]
    assert any(len(e) == 3 and np.allclose(e, corners) for e in ends)
    assert axis.get_xlim()[0] <= 0 < 12 <= axis.get_xlim()[1]
    assert axis.get_ylim()[0] <= 0 < 0.999 <= axis.get_ylim()[1]
    assert {"H(Y)", "log₂N"} <= {text.strip() for text in texts(axis)}


def test_the_spread_over_runs_is_drawn_at_the_first_and_last_epoch():
    given = plane()
    axis = plotting.information_plane({"BD": (given, "BD")}).axes[0]
    bars = [p.vertices for c in axis.collections for p in c.get_paths() if len(p.vertices) == 2]
    for _, row in given.summary("BD").query("epoch in (1, 1000)").iterrows():
        x, y, dx, dy = row["i_xz"], row["i_zy"], row["i_xz_std"], row["i_zy_std"]
        assert dx > 0
        assert any(np.allclose(bar, [[x - dx, y], [x + dx, y]]) for bar in bars)
        assert any(np.allclose(bar, [[x, y - dy], [x, y + dy]]) for bar in bars)


def test_of_many_epochs_some_are_drawn_the_first_and_the_last_among_them():
    given = plane(runs=1, epochs=range(1, 300))
    found = points(plotting.information_plane({"BD": (given, "BD")}).axes[0])
    assert 3 * 10 <= len(found) <= 3 * 50
    for _, row in given.summary("BD").query("epoch in (1, 299)").iterrows():
        assert has_point(found, (row["i_xz"], row["i_zy"]))


SMALL = {
    "one run": plane(runs=1),
    "one epoch": plane(epochs=[1]),
    "one later epoch": plane(epochs=[7]),
    "one layer": plane(layers=["only"]),
    "one point": plane(runs=1, epochs=[1], layers=["only"]),
}


@pytest.mark.parametrize("given", SMALL.values(), ids=SMALL)
def test_a_small_plane_is_drawn_too(given):
    found = points(plotting.information_plane({"BD": (given, "BD")}).axes[0])
    assert len(found) == len(given.summary("BD"))


@pytest.mark.parametrize("epoch", [10, 1000])
def test_a_plane_with_rows_that_are_not_finite_is_drawn_without_them(epoch):
    given = plane(runs=1)
    bad = (given.table["epoch"] == epoch) & (given.table["layer"] == "tanh2")
    given.table.loc[bad, ["i_xz", "i_zy"]] = np.nan
    given.table.loc[bad, "finite"] = False
    figure = plotting.information_plane({"BD": (given, "BD")})
    found = points(figure.axes[0])
    assert np.isfinite(found).all(axis=1).sum() == len(EPOCHS) * len(LAYERS) - 1
    figure.savefig(io.BytesIO())


def test_an_estimator_that_the_plane_lacks_is_refused():
    with pytest.raises(ValueError, match=r"'MINE'.*BD"):
        plotting.information_plane({"MINE": (plane(), "MINE")})


# Curves by epoch


def test_gradients_are_drawn_as_geometric_means_on_log_axes():
    given = gradients()
    axis = plotting.gradient_snr({"thesis": given}).axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    for column, style in (("mean", "-"), ("deviation", "--")):
        drawn = lines(axis, style)
        assert len(drawn) == len(LAYERS)
        for curve, (_, rows) in zip(drawn, given.groupby("weight"), strict=True):
            expected = np.exp(np.log(rows[column]).groupby(rows["epoch"]).mean())
            np.testing.assert_allclose(curve, [EPOCHS, expected], rtol=1e-9)


def test_gradients_have_one_colour_a_layer_and_a_legend_that_explains_them():
    figure = plotting.gradient_snr({"thesis": gradients()})
    axis = figure.axes[0]
    colours = [line.get_color() for line in axis.lines]
    assert colours[::2] == colours[1::2]
    assert len(set(colours)) == len(LAYERS)
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["layer 1", "layer 2", "layer 3", "mean", "deviation"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "norm of the gradient (no unit)")


def test_accuracies_are_drawn_as_means_with_a_band_of_one_deviation():
    given = history()
    axis = plotting.accuracy({"5 %": given}).axes[0]
    train, test = lines(axis)
    by_epoch = given.groupby("epoch")
    np.testing.assert_allclose(train, [EPOCHS, by_epoch["train_accuracy"].mean()])
    np.testing.assert_allclose(test, [EPOCHS, by_epoch["test_accuracy"].mean()])
    edges = np.concatenate([p.vertices for p in axis.collections[1].get_paths()])
    mean, spread = by_epoch["test_accuracy"].mean(), by_epoch["test_accuracy"].std(ddof=1)
    for epoch in EPOCHS:
        assert has_point(edges, (epoch, mean[epoch] - spread[epoch]))
        assert has_point(edges, (epoch, mean[epoch] + spread[epoch]))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["train", "test"]
    assert axis.get_ylabel() == "accuracy (share of samples)"


@pytest.mark.parametrize(("column", "limit"), [("i_xz", 12.0), ("i_zy", 0.999)])
def test_traces_are_one_curve_a_layer_under_their_ceiling(column, limit):
    given = plane()
    axis = plotting.traces({"BD": (given, "BD")}, column=column).axes[0]
    drawn = lines(axis)
    assert len(drawn) == len(LAYERS)
    for curve, layer in zip(drawn, LAYERS, strict=True):
        rows = given.table[given.table["layer"] == layer]
        np.testing.assert_allclose(curve, [EPOCHS, rows.groupby("epoch")[column].mean()])
    assert any(set(line.get_ydata()) == {limit} for line in axis.lines)
    assert axis.get_ylabel() == {"i_xz": "I(X;T) in bits", "i_zy": "I(T;Y) in bits"}[column]


def test_sensitivity_is_one_curve_a_layer_over_the_scale_with_its_limits():
    figure = plotting.sensitivity({"σ²": scales()}, limits={"log₂N": 12.0, "H(Y)": 0.999})
    (axis,) = figure.axes
    for curve, (_, rows) in zip(lines(axis), scales().groupby("layer"), strict=True):
        np.testing.assert_allclose(curve, [[1e-3, 1e-2, 0.1], rows.groupby("scale")["i_xz"].mean()])
    for value in (12.0, 0.999):
        assert any(set(line.get_ydata()) == {value} for line in axis.lines)
    assert {"log₂N", "H(Y)"} <= set(texts(axis))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("σ²", "I(X;T) in bits")


# Grids, distances and curves


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_planes_go_on_in_the_next_row(count, rows):
    figure = plotting.information_plane({str(i): (plane(), "BD") for i in range(count)}, columns=3)
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert [axis.get_title(loc="left") for axis in axes] == [str(i) for i in range(count)]
    assert len({round(axis.get_position().y0, 3) for axis in axes}) == rows
    assert [bool(axis.get_ylabel()) for axis in axes] == [i % 3 == 0 for i in range(count)]


def test_accuracies_stand_below_their_gradients():
    panels = {"GCN": gradients(), "FCN": gradients()}
    figure = plotting.gradient_snr(panels, accuracies={k: history() for k in panels})
    assert len(figure.axes) == 4
    for above, below in zip(figure.axes[:2], figure.axes[2:], strict=True):
        assert above.get_position().x0 == pytest.approx(below.get_position().x0, abs=1e-6)
        assert above.get_position().y0 > below.get_position().y1
        (drawn,) = lines(below)
        expected = history().groupby("epoch")["test_accuracy"].mean()
        np.testing.assert_allclose(drawn, [expected.index, expected])
    assert "accuracy" in figure.axes[2].get_ylabel()


def test_the_area_under_a_distribution_of_distances_is_one():
    (axis,) = plotting.distances({"FCN": pairs()}).axes
    outlines = [p for p in axis.patches if not p.get_fill()]
    assert len(outlines) == 2
    for outline in outlines:
        heights, edges, _ = outline.get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["layer 1", "layer 2"]


@pytest.mark.parametrize(("log", "scale"), [(False, "linear"), (True, "log")])
def test_a_curve_is_the_mean_over_seeds_of_its_series(log, scale):
    (axis,) = plotting.curves({"accuracy": settings()}, x="homophily", log=log).axes
    assert axis.get_xscale() == scale
    for line, number in zip(lines(axis), (0, 1), strict=True):
        np.testing.assert_allclose(line, [[0.1, 0.5, 1.0], np.array([1, 5, 10]) + number + 0.1])


def test_numbers_of_layers_that_lie_together_are_joined():
    found = plotting.planes._labels(
        np.array([[1.0, 0.1], [1.01, 0.1], [5.0, 0.1], [1.0, 0.5]]), (0.1, 0.1)
    )
    assert [label for label, _ in found] == ["1,2", "3", "4"]


def test_what_grows_is_drawn_on_two_logarithms_with_its_limits():
    rows = pd.DataFrame(
        {"x": [10, 10, 100, 100], "series": "bits", "value": [1.0, 4.0, 100.0, 100.0]}
    )
    figure = plotting.growth(
        {"a": rows, "b": rows}, x="parameters", y="bits", lines={"a": {"labels": 30.0}}
    )
    first, second = figure.axes
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")
    mean, limit = first.get_lines()
    assert mean.get_ydata() == pytest.approx([2.0, 100.0])  # geometric
    assert set(limit.get_ydata()) == {30.0}
    assert len(second.get_lines()) == 1
    assert [text.get_text() for text in figure.legends[0].texts] == ["bits", "labels"]


def test_what_advice_costs_is_drawn_beside_what_may_be_lost():
    rows = pd.DataFrame(
        {
            "adviser": ["none", "none", "less"], "run": [0, 1, 0],
            "parameters": [1000, 1000, 100], "test_accuracy": [0.8, 0.9, 0.7],
        }
    )  # fmt: skip
    figure = plotting.trades({"a": rows}, lost=0.05)
    (axis,) = figure.axes
    places = [bars[0].get_xydata()[0].tolist() for bars in axis.containers]
    assert places == [pytest.approx([1000, 0.85]), pytest.approx([100, 0.7])]
    assert axis.get_lines()[-1].get_ydata() == pytest.approx([0.8, 0.8])
    assert [text.get_text() for text in figure.legends[0].texts] == ["none", "less"]


def test_a_rate_is_the_geometric_mean_of_files_and_the_mean_of_accuracies():
    rows = pd.DataFrame(
        {
            "series": ["nearest"] * 4 + ["priced"], "setting": [0.0, 0.0, 1.0, 1.0, 1.0],
            "run": [0, 1, 0, 1, 0], "bytes": [1e4, 4e4, 1e3, 1e3, 500.0],
            "accuracy": [0.9, 0.8, 0.5, 0.5, 0.7],
        }
    )  # fmt: skip
    figure = plotting.rates({"a": rows, "b": rows}, lines={"a": 0.8})
    later = plotting.rates({"a": rows[:4], "b": rows})  # the first panel lacks one
    assert [text.get_text() for text in later.legends[0].texts] == ["nearest", "priced"]
    first, second = figure.axes
    found = [bars[0].get_xydata() for bars in first.containers]
    assert found[0] == pytest.approx(np.array([[20.0, 0.85], [1.0, 0.5]]))  # kB
    assert found[1] == pytest.approx(np.array([[0.5, 0.7]]))
    assert set(first.get_lines()[-1].get_ydata()) == {0.8}
    assert len(second.get_lines()) == len(first.get_lines()) - 1
    assert [text.get_text() for text in figure.legends[0].texts] == ["nearest", "priced"]
    with pytest.raises(ValueError, match="no rows"):
        plotting.rates({"a": rows[:0]})


def test_searches_show_the_mean_and_the_interval_of_their_repetitions():
    at = {"x": np.repeat([1, 2, 3], 2), "run": [0, 1] * 3}
    rows = pd.concat([
        pd.DataFrame({**at, "series": "loss", "value": [3.0, 5.0, 2.0, 4.0, 1.0, 1.0]}),
        pd.DataFrame({**at, "series": "none", "value": 4.0}),
    ])  # fmt: skip
    figure = plotting.searches({"a": rows, "b": rows}, y="regret in points", x="trials")
    first = figure.axes[0]
    assert first.get_lines()[0].get_ydata().tolist() == [4, 3, 1]
    bars = first.containers[0]
    (low, high), *_ = [segment[:, 1] for segment in bars[2][0].get_segments()]
    assert (low + high) / 2 == pytest.approx(4)
    assert high - low == pytest.approx(2 * 12.706, abs=0.01)  # Student's t of one degree of freedom
    assert [text.get_text() for text in figure.legends[0].texts] == ["loss", "none"]
    assert first.get_ylabel() == "regret in points"


def test_layers_are_drawn_from_the_first_with_what_is_used_and_needed():
    report = pd.DataFrame(
        {
            "layer": ["a", "b"], "units": [100, 4], "directions": [30, 4], "needed": [2.5, 3.0],
            "width": [17, 16], "verdict": ["over-sized", "bottleneck"],
        }
    )  # fmt: skip
    (axis,) = plotting.layers(report).axes
    drawn = [[bar.get_width() for bar in bars] for bars in axis.containers]
    assert drawn == [[100, 4], [30, 4], [2.5, 3.0]]
    (line,) = axis.get_lines()
    assert list(line.get_xdata()) == [17, 16]
    assert [text.get_text() for text in axis.texts] == ["over-sized", "bottleneck"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    low, high = axis.get_ylim()
    assert low > high  # the first layer on top
    with pytest.raises(ValueError, match="nothing to draw"):
        plotting.layers(report[:0])


@pytest.mark.parametrize(
    "draw",
    [
        plotting.information_plane, plotting.traces, plotting.accuracy, plotting.gradient_snr,
        plotting.distances, lambda panels: plotting.curves(panels, x="x"),
        lambda panels: plotting.sensitivity(panels, limits={}),
    ],
)  # fmt: skip
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ValueError, match="no panels were given"):
        draw({})


def test_a_panel_without_rows_is_named():
    for draw in (plotting.accuracy, plotting.gradient_snr):
        with pytest.raises(ValueError, match=r"no rows in \['empty'\]"):
            draw({"whole": gradients(), "empty": gradients()[:0]})
    with pytest.raises(ValueError, match=r"no rows in \['below'\]"):
        plotting.gradient_snr({"a": gradients()}, accuracies={"below": history()[:0]})
    with pytest.raises(ValueError, match=r"no rows in \['FCN'\]"):
        plotting.distances({"FCN": {}})


def luminance(colour):
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_words_can_be_read_on_their_ground():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (ROOT / "book" / "_static" / "ib.css").read_text(encoding="utf-8")
    grounds = re.findall(r"\.verdict[^{]*\{[^}]*?background: (#\w{6});", css)
    (ink,) = re.findall(r"\.verdict \{[^}]*?[^-]color: (#\w{6});", css)
    assert len(grounds) >= 6
    for ground in grounds:
        assert contrast(ink, ground) >= 4.5, ground  # WCAG AA
    for drawn in ("#b00020", "0.35"):  # notes and names of limits in figures
        assert contrast(drawn, "white") >= 4.5


def test_every_verdict_has_a_look_of_its_own():
    css = (ROOT / "book" / "_static" / "ib.css").read_text(encoding="utf-8")
    for verdict in VERDICTS:
        assert f".verdict.{verdict.replace(' ', '-')}" in css


def test_series_differ_by_more_than_colour():
    with matplotlib.style.context(STYLE):
        axis = matplotlib.figure.Figure().subplots()
        for number in range(len(MARKERS)):
            rows = pd.DataFrame({"epoch": [1, 2, 3], "run": 0, "value": [1.0, 2.0, 3.0]})
            band(axis, rows, "value", number, str(number))
    assert len({line.get_marker() for line in axis.lines}) == len(MARKERS)
    assert all(len(line.get_xdata()) == 3 for line in axis.lines)
