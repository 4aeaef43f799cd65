"""Laws of the information plane: a tidy table, honest flags, files that are whole or not there."""

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ibcore
from ibcore import InformationPlane, MutualInformation, PlaneRecorder, information_plane
from ibcore.estimators import Binning, Exact, InfoNCE, Ksg, MonteCarlo, Noisy, Pairwise, named
from ibcore.estimators.noise import MaximumLikelihood, Percentile, Proportional
from ibcore.plane import dpi_violations
from ibcore.settling import CHECKS, at_floor, unsettled
from ibcore.trials import distributions as laws

N, H_Y = 16, 1.0
CEILING = math.log2(N)
Y = torch.arange(N) % 2
LAYERS = ["first", "second", "third"]


class Known:
    """An estimator whose answer is the first value of the representation, under given names."""

    def __init__(self, *names):
        self.names = names

    def __call__(self, z, y):
        value = float(z.flatten()[0])
        return {name: MutualInformation(value, value / 2) for name in self.names}


def plane(values, estimator="BD", finite=True, **extra):
    """A plane of one epoch: for each run and layer (i_xz, i_zy)."""
    rows = [
        {"run": run, "epoch": 1, "layer": layer, "estimator": estimator, "i_xz": x, "i_zy": y,
         "i_xz_error": np.nan, "i_zy_error": np.nan, "ceiling": np.inf, "singleton_share": np.nan,
         "finite": finite, **extra}
        for run, layers in enumerate(values)
        for layer, (x, y) in zip(LAYERS, layers, strict=False)
    ]  # fmt: skip
    metadata = {"n_samples": N, "label_entropy": H_Y, "layers": LAYERS[: len(values[0])]}
    return InformationPlane(pd.DataFrame(rows), metadata)


def flag(plane, name, estimator="BD"):
    """Count and total of one flag."""
    flags = plane.flags().set_index(["estimator", "flag"])
    row = flags.loc[(estimator, name)]
    assert row["share"] == pytest.approx(row["count"] / row["of"] if row["of"] else 0)
    return int(row["count"]), int(row["of"])


QUIET = [[(3.0, 0.9), (2.0, 0.8), (1.0, 0.7)]]


def activations(seed, *layers):
    """A representation a layer, in (−1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.tanh(torch.randn(N, 3, generator=generator)) for layer in layers}


def snapshots(runs=2, epochs=(1, 3, 9), layers=LAYERS):
    return [(run, e, activations(100 * run + e, *layers)) for run in range(runs) for e in epochs]


# The table


def test_the_table_has_one_row_a_run_epoch_layer_and_estimate():
    table = information_plane(snapshots(), Y, [Pairwise(), Binning()]).table
    keys = ["run", "epoch", "layer", "estimator"]
    assert list(table.columns[:6]) == [*keys, "i_xz", "i_zy"]
    assert not table.duplicated(keys).any()
    assert len(table) == 2 * 3 * 3 * 3
    assert set(table["estimator"]) == {"BD", "KL", "Binning"}


def test_the_values_are_those_of_the_estimators():
    z = activations(0, "one")["one"]
    table = information_plane([(4, 7, {"one": z})], Y, [Pairwise(0.2)]).table
    for name, mi in Pairwise(0.2)(z, Y).items():
        row = table[table["estimator"] == name].iloc[0]
        assert (row["run"], row["epoch"], row["layer"]) == (4, 7, "one")
        assert tuple(row[list(mi._fields)]) == pytest.approx(mi, nan_ok=True)


def test_the_metadata_say_what_the_values_rest_on():
    made = information_plane(snapshots(), Y, [Pairwise(0.2)], {"seed": 3, "sha256": "abc"})
    known = made.metadata
    assert (known["n_samples"], known["label_entropy"]) == (N, pytest.approx(1.0))
    assert known["layers"] == made.layers == LAYERS
    assert known["estimators"] == [str(Pairwise(noise_variance=0.2))]
    assert known["versions"]["torch"] == torch.__version__
    assert known["versions"]["ibcore"] == ibcore.__version__
    assert (known["seed"], known["sha256"]) == (3, "abc")
    assert made.ceiling == CEILING


def test_layers_stay_in_the_order_of_the_network_not_of_the_alphabet():
    layers = ["zeta", "alpha", "mid"]
    made = information_plane(snapshots(layers=layers), Y, [Pairwise()])
    assert made.layers == layers
    summary = made.summary("BD")
    assert summary["layer"].tolist() == 3 * layers
    assert summary.sort_values("layer")["layer"].unique().tolist() == layers
    assert summary["layer"].max() == "mid"  # an order that comparisons know, too


def test_labels_tell_estimators_of_one_kind_apart():
    made = information_plane(snapshots(), Y, {"σ²=0.1": Pairwise(0.1), "σ²=1": Pairwise(1.0)})
    names = {"σ²=0.1 BD", "σ²=0.1 KL", "σ²=1 BD", "σ²=1 KL"}
    assert set(made.table["estimator"]) == names
    assert flag(made, "lower > upper", "σ²=1 BD, σ²=1 KL") == (0, 18)


def test_estimators_of_one_name_are_refused_without_labels():
    with pytest.raises(ValueError, match=r"BD.*KL.*mapping"):
        information_plane(snapshots(), Y, [Pairwise(0.1), Pairwise(1.0)])


@pytest.mark.parametrize("nothing", [[], {}])
def test_a_plane_without_estimators_is_refused(nothing):
    with pytest.raises(ValueError, match="at least one estimator"):
        PlaneRecorder(Y, nothing)


def test_a_plane_without_snapshots_is_refused():
    with pytest.raises(ValueError, match="no snapshots"):
        information_plane([], Y, [Pairwise()])


def test_unknown_estimators_and_layers_are_refused_with_the_known_ones():
    made = information_plane(snapshots(), Y, [Pairwise()])
    with pytest.raises(ValueError, match=r"'MINE'.*BD.*KL"):
        made.select("MINE")
    with pytest.raises(ValueError, match=r"'tenth'.*first.*third"):
        made.peak_epoch("BD", "tenth")


def test_recording_as_it_trains_gives_the_plane_of_the_stored_snapshots():
    ds = ibcore.load("tishby", dtype=torch.float64)
    settings = {"epochs": 3, "learning_rate": 0.01, "batch_size": 512, "progress": False}

    def run(seed, **how):
        model = ibcore.models.FullyConnected([12, 4, 2], seed=seed).double()
        with ibcore.ActivationTracker(model) as tracker:
            return ibcore.fit(model, ds, seed=seed, tracker=tracker, **how, **settings)

    stored = [snapshot for seed in (0, 1) for snapshot in run(seed).snapshots]
    expected = information_plane(stored, ds.y, [Binning()]).table
    recorder, many = PlaneRecorder(ds.y, [Binning()]), PlaneRecorder(ds.y, [Binning()])
    for seed in (0, 1):
        assert run(seed, on_snapshot=recorder).snapshots == []
    pd.testing.assert_frame_equal(recorder.plane().table, expected)
    ibcore.fit_ensemble(
        lambda seed: ibcore.models.FullyConnected([12, 4, 2], seed=seed).double(), ds,
        seeds=[0, 1], on_snapshot=many, **settings,
    )  # fmt: skip
    keys = ["run", "epoch", "layer", "estimator"]
    found, expected = (t.set_index(keys).sort_index() for t in (many.plane().table, expected))
    # A rounding error can carry single samples of the 4096 over the edge of a bin.
    pd.testing.assert_frame_equal(found, expected, atol=0.02, rtol=0)


# Summaries over runs


def test_the_summary_is_mean_and_deviation_over_runs():
    made = plane([[(3.0, 0.9)], [(1.0, 0.5)], [(2.0, 0.1)]])
    (row,) = made.summary("BD").to_dict("records")
    assert (row["epoch"], row["layer"]) == (1, "first")
    assert (row["i_xz"], row["i_zy"]) == (2.0, pytest.approx(0.5))
    assert (row["i_xz_std"], row["i_zy_std"]) == (1.0, pytest.approx(0.4))


def test_one_run_has_no_spread():
    summary = plane(QUIET).summary("BD")
    assert summary[["i_xz_std", "i_zy_std"]].to_numpy().tolist() == 3 * [[0, 0]]
    assert summary["i_xz"].tolist() == [3, 2, 1]


def curves(*runs):
    """A plane of one layer: I(X;T) of each run at the epochs 1, 2, 3, ..."""
    parts = [
        plane([[(x, x / 4)]]).table.assign(run=run, epoch=epoch)
        for run, values in enumerate(runs)
        for epoch, x in enumerate(values, 1)
    ]
    return InformationPlane(pd.concat(parts), plane([[(0, 0)]]).metadata)


def test_the_peak_is_where_the_mean_over_runs_is_highest():
    made = curves([1.0, 2.0, 0.0], [1.0, 0.0, 3.5])
    assert made.peak_epoch("BD", "first") == 3
    assert made.peak_epoch("BD", "first", "i_zy") == 3


def test_the_change_is_taken_within_each_run():
    change = curves([1.0, 2.0, 0.5], [1.0, 0.0, 3.5]).change("BD", "first", "i_xz", since=2)
    assert change.to_dict() == {0: -1.5, 1: 3.5}


# Flags


def test_a_plane_without_fault_raises_no_flag():
    flags = plane(QUIET).flags()
    assert (flags["count"] == 0).all()
    assert {"saturated", "above H(Y)", "negative", "not finite"} <= set(flags["flag"])
    assert {"DPI, X", "DPI, Y"} <= set(flags["flag"])


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1), (0.991, 1), (0.985, 0)])
def test_within_one_per_cent_of_log2_n_the_estimator_is_saturated(share, expected):
    made = plane([[(share * CEILING, 0.9), (2.0, 0.8)]])
    assert flag(made, "saturated") == (expected, 2)


@pytest.mark.parametrize(("i_zy", "expected"), [(H_Y, 0), (H_Y + 1e-12, 0), (H_Y + 1e-3, 1)])
def test_more_than_the_entropy_of_the_label_is_flagged(i_zy, expected):
    assert flag(plane([[(3.0, i_zy), (2.0, 0.8)]]), "above H(Y)") == (expected, 2)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [((-1e-3, 0.5), 1), ((3.0, -1e-3), 1), ((-1.0, -1.0), 1), ((0.0, 0.0), 0), ((1, -1e-15), 0)],
)
def test_negative_information_is_flagged_once_a_row(pair, expected):
    assert flag(plane([[pair]]), "negative") == (expected, 1)


def test_a_lower_bound_above_its_upper_bound_is_flagged():
    def both(low, high):
        tables = [plane([[(v, 0.5)]], name).table for name, v in (("BD", low), ("KL", high))]
        return InformationPlane(pd.concat(tables), plane(QUIET).metadata)

    assert flag(both(2.0, 1.9), "lower > upper", "BD, KL") == (1, 1)
    assert flag(both(2.0, 2.0), "lower > upper", "BD, KL") == (0, 1)
    assert flag(both(1.9, 2.0), "lower > upper", "BD, KL") == (0, 1)


@pytest.mark.parametrize(("column", "name"), [(0, "DPI, X"), (1, "DPI, Y")])
def test_in_one_run_any_gain_from_layer_to_layer_breaks_the_inequality(column, name):
    values = [0.9, 0.5, 0.6]
    pairs = [(v, 0.0) if column == 0 else (1.0, v) for v in values]
    made = plane([pairs])
    assert flag(made, name) == (1, 2)
    other = {"DPI, X": "DPI, Y", "DPI, Y": "DPI, X"}[name]
    assert flag(made, other) == (0, 2)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.5, 0.5, 0.5], 1),
        ([0.4, 0.5, 0.6], 1),
        ([-0.5, 0.5, 0.6], 0),
        ([-0.1, -0.2, -0.1], 0),
        ([0.1, 1.1], 0),
    ],  # 0.6 ± 0.71 by the deviation of a sample
)
def test_over_runs_the_gain_must_exceed_its_own_spread(gains, expected):
    # The level differs far more between runs than the gain, and must not hide it.
    made = plane([[(1.0 + run, 0.5), (1.0 + run + gain, 0.4)] for run, gain in enumerate(gains)])
    assert flag(made, "DPI, X") == (expected, 1)


@pytest.mark.parametrize(
    ("gains", "margin", "expected"),
    [
        ([0.5], 0.4, True), ([0.5], 0.6, False), ([-0.5], 0.0, False), ([1e-10], 0.0, False),
        ([1e-8], 0.0, True), ([0.4, 0.6], 0.4, True), ([0.4, 0.6], 0.6, False),
        ([-0.4, 0.6], 0.0, False), ([-0.4, 0.6], 0.05, False),
    ],
)  # fmt: skip
def test_a_gain_must_exceed_both_its_spread_and_the_margin(gains, margin, expected):
    made = plane([[(2.0, 0.5), (2.0 + gain, 0.5)] for gain in gains])
    found = dpi_violations(made.table, LAYERS[:2], "i_xz", margin)
    assert found.tolist() == [[expected]]


def test_every_epoch_is_judged_for_itself():
    tables = [
        plane([[(1.0, 0.5), (x, 0.4)]]).table.assign(epoch=e) for e, x in ((1, 2.0), (2, 0.5))
    ]
    made = InformationPlane(pd.concat(tables), {**plane(QUIET).metadata, "layers": LAYERS[:2]})
    assert flag(made, "DPI, X") == (1, 2)


def test_consecutive_means_in_the_order_of_the_network():
    made = plane([[(1.0, 0.3), (2.0, 0.2), (3.0, 0.1)]])
    made.metadata["layers"] = ["third", "second", "first"]
    assert flag(made, "DPI, X") == (0, 2)
    assert flag(made, "DPI, Y") == (2, 2)


def test_a_plane_of_one_layer_has_no_inequality_to_break():
    assert flag(plane([[(3.0, 0.5)]]), "DPI, X") == (0, 0)


def test_the_share_of_singletons_is_that_of_the_bins():
    z = torch.linspace(-1, 1, N)[:, None]
    alone = information_plane([(0, 1, {"a": z, "b": z})], Y, [Binning(width=1e-3)])
    assert flag(alone, "singletons", "Binning") == (2, 2)
    together = information_plane([(0, 1, {"a": z, "b": z})], Y, [Binning(width=1.5)])
    assert flag(together, "singletons", "Binning")[0] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "estimator",
    [
        Pairwise(), Binning(), Binning(width=0.1), Pairwise(Percentile()),
        Pairwise(Proportional()), Pairwise(MaximumLikelihood()),
    ],
    ids=str,
)  # fmt: skip
def test_activations_that_are_not_finite_give_flagged_rows(estimator, value):
    good = activations(0, *LAYERS)
    bad = {**good, "second": good["second"].clone()}
    bad["second"][3, 1] = value
    made = information_plane([(0, 1, good), (0, 2, bad)], Y, [estimator])
    table = made.table
    wrong = (table["epoch"] == 2) & (table["layer"] == "second")
    assert table.loc[wrong, ["i_xz", "i_zy"]].isna().all(axis=None)
    assert table.loc[~wrong, ["i_xz", "i_zy"]].notna().all(axis=None)
    for name in estimator(good["first"], Y):
        assert flag(made, "not finite", name) == (1, 6)


def test_bins_that_start_above_zero_flag_what_is_not_finite_too():
    z = torch.linspace(1, 2, N)[:, None]
    bad = torch.where(z > 1.9, math.nan, z)
    made = information_plane([(0, 1, {"a": z, "b": bad})], Y, [Binning(low=0.5, high=2.5)])
    assert flag(made, "not finite", "Binning") == (1, 2)


def test_a_plane_of_a_dead_run_alone_is_flagged_through_and_through():
    dead = {layer: torch.full((N, 2), math.nan) for layer in LAYERS}
    read = Pairwise(MaximumLikelihood())
    made = information_plane([(0, 1, dead)], Y, {0: Pairwise(), 1: Binning(), "read": read})
    for name in ("BD", "KL", "Binning", "read BD", "read KL"):
        assert flag(made, "not finite", name) == (3, 3)
        assert flag(made, "DPI, X", name)[0] == 0


def test_the_noise_of_each_layer_alone_lets_scaling_turn_the_order_over():
    """Why the inequality can break: multiplying a layer by c divides its noise by c²."""
    z = torch.tanh(torch.randn(N, 3, generator=torch.Generator().manual_seed(0)))
    fair = information_plane([(0, 1, {"a": z, "b": 0.5 * z})], Y, [Pairwise(0.1)])
    turned = information_plane([(0, 1, {"a": z, "b": 2.0 * z})], Y, [Pairwise(0.1)])
    assert flag(fair, "DPI, X", "KL") == (0, 1)
    assert flag(turned, "DPI, X", "KL") == (1, 1)


@pytest.mark.parametrize(
    "policy", [Proportional(), Percentile(power=2), MaximumLikelihood()], ids=str
)
def test_under_a_scale_free_policy_a_rescaled_layer_has_the_same_plane(policy):
    def table(factor):
        scaled = [
            (run, epoch, {**found, "second": factor * found["second"].double()})
            for run, epoch, found in snapshots()
        ]
        return information_plane(scaled, Y, [Pairwise(policy)]).table

    pd.testing.assert_frame_equal(table(100.0), table(1.0), atol=1e-4, rtol=0)


# Files

plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10)
json_values = st.recursive(
    plain | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_what_is_saved_comes_back_whatever_the_metadata(tmp_path_factory, extra):
    path = tmp_path_factory.mktemp("planes") / "plane.parquet"
    made = plane(QUIET)
    made.metadata = {**extra, **made.metadata}
    made.save(path)
    again = InformationPlane.load(path)
    assert again.metadata == made.metadata


def test_what_is_saved_comes_back_with_every_value(tmp_path):
    bad = {layer: torch.full((N, 2), math.nan) for layer in LAYERS}
    made = information_plane(
        [*snapshots(), (5, 1, bad)],
        Y,
        {"σ² = 0.1": Pairwise(), "bins": Binning()},
        {"seeds": [0, 1]},
    )
    path = tmp_path / "plane.parquet"
    made.save(path)
    again = InformationPlane.load(path)
    pd.testing.assert_frame_equal(again.table, made.table, check_exact=True)
    assert again.metadata == made.metadata
    pd.testing.assert_frame_equal(again.flags(), made.flags())
    again.save(str(path))
    pd.testing.assert_frame_equal(InformationPlane.load(str(path)).table, made.table)


def test_saving_leaves_one_file_and_the_plane_as_it_was(tmp_path):
    made = plane(QUIET)
    table = made.table.copy()
    made.save(tmp_path / "plane.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["plane.parquet"]
    assert made.table.attrs == {}
    pd.testing.assert_frame_equal(made.table, table)


def test_a_saved_plane_replaces_the_one_before(tmp_path):
    path = tmp_path / "plane.parquet"
    plane(QUIET).save(path)
    plane([[(1.5, 0.5)]]).save(path)
    assert InformationPlane.load(path).table["i_xz"].tolist() == [1.5]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_save_leaves_the_old_file_whole_and_nothing_else(
    tmp_path, monkeypatch, error
):
    path = tmp_path / "plane.parquet"
    plane(QUIET).save(path)
    before = path.read_bytes()

    def half(self, target, *args, **kwargs):
        Path(target).write_bytes(before[:100])
        raise error

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises((KeyboardInterrupt, OSError)):
        plane([[(1.5, 0.5)]]).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["plane.parquet"]


def test_an_interrupted_first_save_leaves_nothing(tmp_path, monkeypatch):
    def half(self, target, *args, **kwargs):
        Path(target).write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(KeyboardInterrupt):
        plane(QUIET).save(tmp_path / "plane.parquet")
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_cannot_be_kept_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "plane.parquet"
    plane(QUIET).save(path)
    before = path.read_bytes()
    made = plane(QUIET)
    made.metadata["tensor"] = torch.ones(2)
    with pytest.raises(TypeError):
        made.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["plane.parquet"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        InformationPlane.load(tmp_path / "none.parquet")


@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_is_refused(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("planes") / "plane.parquet"
    plane(QUIET).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"plane\.parquet.*damaged"):
        InformationPlane.load(path)


@pytest.mark.parametrize("content", [b"", b"layer,i_xz\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_plane_is_refused(tmp_path, content):
    path = tmp_path / "plane.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"plane\.parquet.*damaged"):
        InformationPlane.load(path)


def test_a_table_without_metadata_is_refused(tmp_path):
    path = tmp_path / "plane.parquet"
    plane(QUIET).table.to_parquet(path)
    with pytest.raises(ValueError, match=r"plane\.parquet.*no information plane"):
        InformationPlane.load(path)


def test_a_recorder_hands_out_a_plane_that_later_snapshots_leave_alone():
    recorder = PlaneRecorder(Y, [Known("one")])
    recorder((0, 1, {"a": torch.full((N, 1), 2.0)}))
    early = recorder.plane()
    recorder((0, 2, {"b": torch.full((N, 1), 3.0)}))
    assert early.layers == ["a"]
    assert early.table["i_xz"].tolist() == [2.0]
    assert recorder.plane().layers == ["a", "b"]


# One run, the last epoch, violations by run


def test_one_run_is_its_rows_and_nothing_else():
    whole = information_plane(snapshots(), Y, [Pairwise()])
    alone = information_plane(snapshots(runs=1), Y, [Pairwise()])
    pd.testing.assert_frame_equal(whole.run(0).table, alone.table)
    assert whole.run(0).layers == whole.layers
    pd.testing.assert_frame_equal(whole.run(0).checks, alone.checks)
    assert whole.run(1).checks.empty
    with pytest.raises(ValueError, match=r"no run 7.*\[0, 1\]"):
        whole.run(7)


def test_the_last_epoch_is_a_row_a_run_and_a_column_a_layer():
    whole = information_plane(snapshots(), Y, [Pairwise()])
    last = whole.last("BD")
    assert list(last.index) == [0, 1]
    for run in (0, 1):
        for layer, z in activations(100 * run + 9, *LAYERS).items():
            expected = Pairwise()(z, Y)["BD"]
            assert last["i_xz"][layer][run] == pytest.approx(expected.i_xz)
            assert last["i_zy"][layer][run] == pytest.approx(expected.i_zy)


def test_violations_are_counted_for_each_run_beyond_a_margin():
    quiet, broken = QUIET[0], [(1.0, 0.7), (1.5, 0.8), (1.54, 0.7)]
    counts = plane([quiet, broken]).violations(margin=0.05).set_index("run")
    assert counts["DPI, X"].tolist() == [0, 1]
    assert counts["DPI, Y"].tolist() == [0, 1]
    assert counts["of"].tolist() == [2, 2]
    assert plane([broken]).violations(margin=0.01)["DPI, X"].tolist() == [2]


# Layers and samples


def test_each_layer_has_the_estimator_that_is_named_for_it():
    z = activations(0, *LAYERS)
    by_layer = {layer: Pairwise(10.0**-k) for k, layer in enumerate(LAYERS)}
    found = information_plane([(0, 1, z)], Y, {"own": by_layer, "one": Pairwise(0.1)})
    table = found.table.set_index(["layer", "estimator"])["i_xz"]
    for layer, estimator in by_layer.items():
        assert table[layer, "own BD"] == estimator(z[layer], Y)["BD"].i_xz
        assert table[layer, "one BD"] == Pairwise(0.1)(z[layer], Y)["BD"].i_xz
    assert "noise_variance=0.01" in found.metadata["estimators"][0]


def test_a_layer_without_an_estimator_is_named_with_those_that_have_one():
    with pytest.raises(ValueError, match=r"'own'.*'second'.*\['first'\]"):
        information_plane(snapshots(), Y, {"own": {"first": Pairwise()}})


def test_the_plane_of_some_samples_is_that_of_the_data_without_the_others():
    index = torch.tensor([3, 0, 7, 8, 12, 5])
    some = information_plane(snapshots(), Y, [Pairwise()], samples=index)
    cut = [(r, e, {k: z[index] for k, z in found.items()}) for r, e, found in snapshots()]
    alone = information_plane(cut, Y[index], [Pairwise()])
    pd.testing.assert_frame_equal(some.table, alone.table)
    assert some.ceiling == pytest.approx(math.log2(6))
    assert some.metadata["label_entropy"] == alone.metadata["label_entropy"]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (torch.tensor([0, N]), f"from 0 to {N - 1}, got 0 to {N}"),
        (torch.tensor([-1, 2]), "got -1 to 2"),
        (torch.tensor([], dtype=torch.int64), "at least one"),
        (torch.tensor([0.0, 1.0]), "float32"),
        (torch.ones(N, dtype=torch.bool), "bool"),
        (torch.zeros(2, 2, dtype=torch.int64), r"\(2, 2\)"),
    ],
)
def test_samples_that_are_no_indices_are_refused(samples, words):
    with pytest.raises(ValueError, match=words):
        PlaneRecorder(Y, [Pairwise()], samples=samples)


def test_chosen_samples_of_a_representation_of_another_size_are_refused():
    recorder = PlaneRecorder(Y, [Pairwise()], samples=torch.arange(4))
    with pytest.raises(ValueError, match=r"'first' has 9 samples.*16 labels"):
        recorder((0, 1, {"first": torch.randn(9, 2)}))


class Needy:
    """An estimator that needs the inputs."""

    def __call__(self, z, y, x):
        return {"needy": MutualInformation(float((z - x).abs().sum()), float(len(x)), ceiling=6.0)}


def test_an_estimator_that_takes_the_inputs_gets_those_of_its_samples():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    samples = torch.tensor([1, 5, 6])
    recorder = PlaneRecorder(y, [Needy(), Pairwise()], samples=samples, x=x)
    recorder((0, 1, {"a": x}))
    row = recorder.plane().select("needy").iloc[0]
    assert row["i_xz"] == 0.0
    assert row["i_zy"] == 3.0


def test_an_estimator_that_needs_inputs_says_so():
    with pytest.raises(ValueError, match=r"Ksg needs the network's inputs.*x=ds\.x"):
        information_plane([(0, 1, {"a": torch.randn(9, 2)})], torch.arange(9) % 2, [Ksg()])


def test_inputs_must_be_of_the_same_samples():
    with pytest.raises(ValueError, match="'x' has 7 samples, but there are 8 labels"):
        PlaneRecorder(torch.arange(8) % 2, [Needy()], samples=torch.arange(3), x=torch.randn(7, 1))


def test_an_estimator_at_its_own_ceiling_is_saturated():
    x, y = torch.zeros(100, 1), torch.arange(100) % 2
    found = {"a": x + 0.05, "b": x + 0.062}  # 5 and 6.2 bits; log₂ N is 6.64
    plane = information_plane([(0, 1, found)], y, [Needy()], x=x)
    assert set(plane.table["ceiling"]) == {6.0}
    assert plane.flags().set_index("flag").loc["saturated", "count"] == 1


def test_estimators_have_names():
    found = named(["InfoNCE", "Pairwise", "Binning", "MonteCarlo", "Exact"], 0.04)
    assert found == [
        Noisy(InfoNCE(), 0.04), Pairwise(0.04), Binning(width=0.2), MonteCarlo(0.04), Exact()
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"no estimator is called \['Mime'\].*'Mine'"):
        named(["Mine", "Mime"])


def test_a_plane_by_estimators_of_samples():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    plane = information_plane([(0, 1, {"a": x[:, :2]})], y, named(["Ksg", "Renyi"]), x=x)
    assert list(plane.table["estimator"]) == ["Ksg", "Renyi"]
    assert (plane.table[["i_xz", "i_zy"]] > 0).all().all()


# What an estimator may be, and what is said where it is none


@pytest.mark.parametrize(
    "estimator",
    [
        lambda z, y: {"plain": (1.0, 0.5)},
        lambda z, y: {"plain": (torch.tensor(1.0, requires_grad=True), 0.5)},
        lambda z, y: {"plain": [torch.tensor(1.0), np.float32(0.5)]},
        lambda z, y, **others: {"plain": (1.0, 0.5 if others["x"] is not None else 0.0)},
    ],
)
def test_an_estimator_may_return_plain_numbers_and_take_what_it_likes(estimator):
    table = information_plane(snapshots(1, (1,)), Y, estimator, x=torch.zeros(N, 1)).table
    assert set(table["estimator"]) == {"plain"}
    assert table[["i_xz", "i_zy"]].to_numpy().tolist() == 3 * [[1.0, 0.5]]


def test_an_estimator_may_have_a_ceiling_of_its_own():
    estimator = Known("known")
    estimator.ceiling = 3.0
    assert len(information_plane(snapshots(1, (1,)), Y, [estimator]).table) == 3


@pytest.mark.parametrize("answer", [(1.0, 0.5), MutualInformation(1.0, 0.5)])
def test_a_pair_alone_goes_by_the_name_of_its_estimator(answer):
    class Plain:
        def __call__(self, z, y):
            return answer

    rows = information_plane(snapshots(1, (1,)), Y, Plain()).table
    assert set(rows["estimator"]) == {"Plain"}
    assert rows[["i_xz", "i_zy"]].to_numpy().tolist() == 3 * [[1.0, 0.5]]


@pytest.mark.parametrize("given", [Pairwise, [Pairwise], "Ksg", ["Ksg"], 5, {"a": {"first": 5}}])
def test_what_can_not_be_called_as_an_estimator_is_refused_at_once(given):
    with pytest.raises(ValueError, match=r"called as Pairwise\(\)\(z, y\), got"):
        PlaneRecorder(Y, given)


@pytest.mark.parametrize(
    "answer",
    [1.0, {}, {"a": 1.0}, {1: (1.0, 2.0)}, {"a": (1.0,)}, {"a": "12"}, {"a": ("a", "b")}, None,
     (1.0,), ["a"]],
)  # fmt: skip
def test_an_estimator_that_returns_something_else_is_named(answer):
    with pytest.raises(ValueError, match=r"layer 'first', <lambda>.*names to \(i_xz, i_zy\)"):
        information_plane(snapshots(), Y, [lambda z, y: answer])


def test_an_estimator_that_does_not_fit_fails_at_the_first_snapshot():
    recorder = PlaneRecorder(Y, [Binning()])
    with pytest.raises(ValueError, match="layer 'relu1', Binning: z runs from"):
        recorder((0, 1, {"relu1": torch.arange(N)[:, None] / 2.0}))


def test_arrays_of_numpy_are_taken():
    arrays = [(0, 1, {"a": activations(0, "a")["a"].numpy()})]
    tensors = [(0, 1, activations(0, "a"))]
    arrays[0][2]["a"].flags.writeable = False
    x, rows = np.arange(2.0 * N).reshape(N, 2), [1, 2, 5, 9, 12, 13]
    for some in (None, np.array(rows), rows):
        found = information_plane(arrays, Y.numpy(), [Pairwise(), Ksg()], samples=some, x=x).table
        some = None if some is None else torch.tensor(rows)
        same = information_plane(
            tensors, Y, [Pairwise(), Ksg()], samples=some, x=torch.from_numpy(x)
        )
        pd.testing.assert_frame_equal(found, same.table)


def test_names_in_the_place_of_labels_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"y must be a tensor.*np\.unique"):
        PlaneRecorder(np.array(["cat", "dog"]), [Pairwise()])


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"layers": ["a"]}, r"can't hold \['layers'\]"),
        ({"n_samples": 3, "versions": {}}, r"\['n_samples', 'versions'\]"),
        ({"data": torch.zeros(2)}, "JSON can hold.*Tensor"),
        ({"loss": math.nan}, "JSON can hold.*not JSON compliant"),
    ],
)
def test_metadata_that_can_not_be_kept_are_refused_at_once(metadata, words):
    with pytest.raises(ValueError, match=words):
        PlaneRecorder(Y, [Pairwise()], metadata)


def test_metadata_are_at_once_what_a_file_gives_back(tmp_path):
    made = information_plane(snapshots(), Y, [Pairwise()], {"by": {1: "a"}, "seeds": (0, 1)})
    made.save(tmp_path / "plane.parquet")
    assert InformationPlane.load(tmp_path / "plane.parquet").metadata == made.metadata
    assert (made.metadata["by"], made.metadata["seeds"]) == ({"1": "a"}, [0, 1])


def without(column):
    return lambda table, metadata: (table.drop(columns=column), metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("ceiling"), r"lacks \['ceiling'\]"),
        (lambda table, metadata: (table[:0], metadata), "at least one row"),
        (lambda table, metadata: (pd.concat([table, table[1:]]), metadata), "2 rows came twice"),
        (lambda table, metadata: (table.astype({"i_zy": str}), metadata), r"\['i_zy'\].*numbers"),
        (lambda table, metadata: (table.astype({"finite": float}), metadata), "True or False"),
        (lambda table, metadata: (table, {**metadata, "layers": ["first"]}), r"\['second', 'third"),
        (lambda table, metadata: (table, {**metadata, "n_samples": 0}), "need n_samples"),
        (lambda table, metadata: (table, {**metadata, "label_entropy": math.inf}), "label_entropy"),
        (lambda table, metadata: (table, {}), "need n_samples, label_entropy and layers"),
    ],
)
def test_a_plane_is_whole_or_refused_when_made_and_when_loaded(tmp_path, change, words):
    table, metadata = change(plane(QUIET).table, plane(QUIET).metadata)
    with pytest.raises(ValueError, match=words):
        InformationPlane(table, metadata)
    made = plane(QUIET)
    made.table, made.metadata = table, metadata
    made.save(tmp_path / "plane.parquet")
    with pytest.raises(ValueError, match=words):
        InformationPlane.load(tmp_path / "plane.parquet")


# Floors and settling


def flags_of(z, y, estimator, x=None):
    plane = information_plane([(0, 1, {"a": z})], y, [estimator], x=x)
    flags = plane.flags().set_index(["estimator", "flag"])["count"]
    return plane.checks.set_index("estimator"), flags


def test_labels_that_mean_nothing_are_at_the_floor():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    checks, flags = flags_of(z, torch.randint(0, 50, (600,), generator=generator), Pairwise(0.05))
    for bound in ("BD", "KL"):
        assert flags[bound, "at the floor"] == 1
        assert checks.loc[bound, "i_zy_floor"] > 3  # bits, where there are none
        assert math.isnan(checks.loc[bound, "i_xz_floor"])  # every sample is its own x


def test_too_few_samples_for_so_many_dimensions_are_not_settled():
    a, b = laws.gaussian(20, laws.correlation_for(1.87, 20)).sample(1000, 0)
    checks, flags = flags_of(b, (a[:, 0] > 0).long(), Ksg(), a)
    assert flags["Ksg", "unsettled"] == 1
    assert abs(checks.loc["Ksg", "i_xz_floor"]) < 0.05


@pytest.mark.parametrize("estimator", [Ksg(), Pairwise(0.1), MonteCarlo(0.1)])
def test_enough_samples_of_two_dimensions_raise_no_flag(estimator):
    a, b = laws.gaussian(2, laws.correlation_for(1.0, 2)).sample(2000, 0)
    _, flags = flags_of(b, (a[:, 0] > 0).long(), estimator, a)
    assert not flags.xs("at the floor", level="flag").any()
    assert not flags.xs("unsettled", level="flag").any()


@pytest.mark.parametrize(
    ("value", "quarter", "error", "held"),
    [
        (1.0, 0.8, math.nan, True), (1.0, 1.2, math.nan, True), (1.0, 0.92, math.nan, False),
        (0.1, 0.06, math.nan, False), (0.1, 0.04, math.nan, True),  # a twentieth of a bit
        (1.0, 0.8, 0.05, True), (1.0, 0.8, 0.15, False), (1.0, 0.8, 0.09, True),
        (1.0, math.nan, 0.0, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["i_xz", "i_zy"])
def test_what_moves_by_more_than_its_error_and_a_share_is_unsettled(
    value, quarter, error, held, column
):
    row = dict.fromkeys([*CHECKS, "i_xz", "i_zy", "i_xz_error", "i_zy_error"], math.nan)
    row |= {column: value, f"{column}_quarter": quarter, f"{column}_error": error}
    assert unsettled(pd.DataFrame([row])).tolist() == [held]


@pytest.mark.parametrize(
    ("value", "floor", "held"),
    [(1.0, 0.2, True), (1.0, 0.08, False), (0.1, 0.04, False), (0.1, 0.06, True),
     (0.0, -0.1, False), (1.0, math.nan, False)],
)  # fmt: skip
@pytest.mark.parametrize("column", ["i_xz", "i_zy"])
def test_what_permuted_labels_give_a_share_of_is_at_the_floor(value, floor, held, column):
    row = dict.fromkeys([*CHECKS, "i_xz", "i_zy", "i_xz_error", "i_zy_error"], math.nan)
    row |= {column: value, f"{column}_floor": floor}
    assert at_floor(pd.DataFrame([row])).tolist() == [held]


def test_an_estimate_at_log2_n_is_not_settled():
    z = torch.arange(400, dtype=torch.float64)[:, None]
    checks, flags = flags_of(z, torch.arange(400) % 2, Pairwise(1e-6))
    assert flags["BD", "unsettled"] == 1
    assert checks.loc["BD", "i_xz_half"] == pytest.approx(math.log2(200), abs=1e-6)
    assert checks.loc["BD", "i_xz_quarter"] == pytest.approx(math.log2(100), abs=1e-6)


def test_what_a_part_is_too_small_for_is_no_number():
    z, y = activations(0, "a")["a"], torch.tensor([0] * 15 + [1])
    checks, _ = flags_of(z, y, Pairwise())
    assert checks[["i_xz_half", "i_xz_quarter"]].isna().all().all()
    assert checks["i_zy_floor"].notna().all()


def test_halves_say_whether_it_has_settled_where_quarters_are_too_small():
    z = torch.arange(100, dtype=torch.float64)[:, None]
    checks, flags = flags_of(z, torch.arange(100) % 2, OfForty())
    assert checks.loc["OfForty", "i_xz_half"] == pytest.approx(math.log2(50))
    assert math.isnan(checks.loc["OfForty", "i_xz_quarter"])
    assert flags["OfForty", "unsettled"] == 1


class OfForty:
    """An estimator that gives log₂ N, and needs 40 samples, as a critic does."""

    def __call__(self, z, y):
        if len(z) < 40:
            raise ValueError("too few samples")
        return {"OfForty": MutualInformation(math.log2(len(z)), 0.0)}


def test_noise_in_front_of_an_estimator_without_inputs_gives_no_floor_of_them():
    z, x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)), torch.randn(400, 1)
    checks, flags = flags_of(z, (z[:, 0] > 0).long(), Noisy(Pairwise(0.1), 1e-4), x)
    assert checks["i_xz_floor"].isna().all()
    assert not flags.xs("at the floor", level="flag").any()
    checks, _ = flags_of(z, (z[:, 0] > 0).long(), Noisy(Ksg(), 1e-4), x)
    assert checks["i_xz_floor"].notna().all()


def test_checks_are_of_the_last_snapshot_of_the_first_run_and_can_be_left_out():
    plane = information_plane(snapshots(2, (1, 3, 9)), Y, [Pairwise()])
    assert set(plane.checks[["run", "epoch"]].itertuples(index=False, name=None)) == {(0, 9)}
    assert len(plane.checks) == 2 * len(LAYERS)
    assert information_plane(snapshots(), Y, [Pairwise()], check=False).checks.empty


@pytest.mark.parametrize(
    ("value", "error", "count"), [(1.0, 0.5, 0), (1.0, 1.0, 1), (0.0, 1e18, 1), (0.0, 0.0, 0)]
)
def test_an_error_as_large_as_the_estimate_is_flagged(value, error, count):
    made = plane([[(value, value / 2)]], i_xz_error=error, i_zy_error=0.0)
    assert flag(made, "uncertain") == (count, 1)


# Files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    plane = information_plane(snapshots(1, (1, 2)), Y, [Pairwise()], {"seeds": [0], "by": {1: "a"}})
    path = tmp_path_factory.mktemp("planes") / "plane.parquet"
    plane.save(path)
    return plane, path.read_bytes()


def loads_or_refuses(plane, path):
    try:
        found = InformationPlane.load(path)
    except ValueError:
        return
    pd.testing.assert_frame_equal(found.table, plane.table)
    pd.testing.assert_frame_equal(found.checks, plane.checks)
    assert found.metadata["layers"] == plane.metadata["layers"]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200)
def test_a_flipped_bit_gives_the_same_plane_or_an_error(saved, tmp_path_factory, place, bit):
    plane, content = saved
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.parquet"
    path.write_bytes(damaged)
    loads_or_refuses(plane, path)


@given(content=st.binary(max_size=200), cut=st.floats(0, 1))
def test_other_bytes_and_cut_files_are_refused(saved, tmp_path_factory, content, cut):
    _, whole = saved
    path = tmp_path_factory.getbasetemp() / "other.parquet"
    for damaged in (content, whole[: int(cut * (len(whole) - 1))], b"PAR1" + content + b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no information plane, or is damaged"):
            InformationPlane.load(path)


@pytest.mark.parametrize("change", ["value", "type", "order", "metadata", "checks"])
def test_a_file_that_was_written_again_with_other_content_is_refused(saved, tmp_path, change):
    plane, content = saved
    path = tmp_path / "plane.parquet"
    path.write_bytes(content)
    table = pd.read_parquet(path)
    table.to_parquet(path)
    pd.testing.assert_frame_equal(InformationPlane.load(path).table, plane.table)
    if change == "value":
        table.loc[3, "i_zy"] = np.nextafter(table.loc[3, "i_zy"], 9)
    elif change == "type":
        table["epoch"] = table["epoch"].astype(float)
    elif change == "order":
        attrs, table = table.attrs, table[::-1].reset_index(drop=True)
        table.attrs = attrs
    else:
        old = {"metadata": '"n_samples": 16', "checks": '"quarter'}.get(change, "")
        table.attrs["ibcore"] = table.attrs["ibcore"].replace(old, '"n_samples": 17')
        if change == "checks":
            held = json.loads(table.attrs["ibcore"])
            held["checks"]["data"][0][4] = 9.0
            table.attrs["ibcore"] = json.dumps(held)
    table.to_parquet(path)
    with pytest.raises(ValueError, match="another hash"):
        InformationPlane.load(path)


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_whole(saved, tmp_path):
    plane, _ = saved
    path = tmp_path / "plane.parquet"
    path.write_bytes(b"old" * 10_000)
    with path.open("rb") as reader:
        plane.save(path)
        assert reader.read() == b"old" * 10_000


def test_a_table_of_another_kind_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no information plane"):
        InformationPlane.load(tmp_path / "other.parquet")


def test_a_folder_and_a_pipe_are_no_planes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="no regular file"):
            InformationPlane.load(path)


def test_a_plane_that_can_not_be_written_leaves_the_old_one_and_says_where(
    saved, tmp_path, monkeypatch
):
    plane, content = saved
    path = tmp_path / "plane.parquet"
    path.write_bytes(content)

    def full(self, target, **_):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match=r"No space left.*plane\.parquet"):
        plane.save(path)
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["plane.parquet"]


# Violations by run


def test_violations_count_gains_beyond_the_margin_of_each_run():
    falls, rises = [(3.0, 0.5), (2.0, 0.5)], [(3.0, 0.5), (3.04, 0.6)]
    found = plane([falls, rises]).violations().set_index("run")
    assert found["DPI, X"].tolist() == [0, 0]  # 0.04 bits are within the margin
    assert found["DPI, Y"].tolist() == [0, 1]
    assert found["of"].tolist() == [1, 1]
    assert plane([falls, rises]).violations(0.03).set_index("run")["DPI, X"].tolist() == [0, 1]


def test_violations_of_one_run_ask_no_other_run_how_far_it_scatters():
    far = plane([[(1.0, 0.1), (2.0, 0.2)], [(1.0, 0.1), (5.0, 0.2)]])
    assert far.violations()["DPI, X"].tolist() == [1, 1]
