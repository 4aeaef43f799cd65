"""Laws of chapter 02's jobs: what they are, what they refuse, and what their tables hold."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ibcore import ActivationTracker, GradientTracker, fit, load
from ibcore.data import Dataset
from ibcore.estimators import Pairwise, noise
from ibcore.models import FullyConnected, GraphConvolutional
from ibcore.training import snapshot_epochs
from study import cora, settings
from study.measures import VARIANCES

NETWORKS = {"FCN": FullyConnected, "GCN": GraphConvolutional}
TINY = {
    "source": "stand-in",
    "hidden": [4, 3],
    "activation": "tanh",  # no layer is constant, as one of few ReLU units may be
    "runs": 1,
    "epochs": 3,
    "snapshots": 2,
    "policy_snapshots": 1,
    "snr_epochs": 2,
    "layer_noise": [0.01, 0.02],
    "homophilies": [1.0],
    "homophily_runs": 1,
    "homophily_epochs": 2,
    "others": ["Binning"],
    "other_snapshots": 1,
    "seed": 5,
    "dtype": "float64",
}
CLOSE = {"rel": 1e-9, "abs": 1e-9}  # the same sums in float64, perhaps in another order
SCORES = {"run", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "network"}
PLANE = {"run", "epoch", "layer", "estimator", "i_xz", "i_zy", "n_samples", "label_entropy"}
PLANE |= {"finite", "network"}
NORMS = {"run", "epoch", "weight", "mean_norm", "deviation_norm", "weight_norm", "network"}
PROMISED = {
    "planes": {
        "facts": {"run", "source", "sha256", "shape", "train", "test", "edges", "homophily"},
        "scores": SCORES,
        "planes": PLANE,
        "policies": PLANE,
        "rules": {"network", "run", "layer", "by", "noise"},
        "by_noise": {"network", "run", "layer", "scale", "i_xz", "i_zy"},
        "distances": {"left", "right", "share", "network", "run", "layer"},
        "rescaled": {"network", "run", "policy", "factor", "layer", "i_xz"},
    },
    "gradients": {"gradients": NORMS | {"train_nodes"}, "courses": SCORES | {"train_nodes"}},
    "whole": {"whole": SCORES | {"train_nodes"}},
    "homophily": {"sweep": PLANE | {"homophily"}, "sweep_scores": SCORES | {"homophily"}},
    "others": {"others": PLANE},
}


def tiny(**more):
    return settings.make("cora", {**TINY, **more})


@pytest.fixture
def ds():
    """A small graph in the place of Cora: 60 nodes, 20 to train on and 30 to test on."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 7)) + 2 * np.eye(3, 7)[y]
    a, b = rng.integers(60, size=(2, 90))
    parts = {"train": np.arange(20), "test": np.arange(20, 50)}
    edges = np.stack([np.r_[a, b], np.r_[b, a]])
    return Dataset.from_arrays(x, y, **parts, name="cora", edge_index=edges)


@pytest.fixture
def made(ds, monkeypatch):
    """The tables of a part's job, made of the small graph."""

    def run(part, graph=ds):
        monkeypatch.setattr(cora, "load", lambda *given, **options: graph)
        found = cora.jobs(tiny()).values()
        return cora.run(next(job for job in found if job["part"] == part))

    return run


def trained(kind, ds, seed=5, epochs=3, **options):
    """Return a history and the activations by epoch, with no help of the study."""
    seen = ds if kind == "GCN" else replace(ds, edge_index=None)
    widths = [ds.x.shape[1], 4, 3, len(ds.classes)]
    model = NETWORKS[kind](widths, "tanh", seed=seed).to(ds.x.dtype)
    gradients = GradientTracker(model)
    with ActivationTracker(model, ["tanh1", "tanh2"]) as tracker, gradients:
        history = fit(
            model, seen, epochs=epochs, learning_rate=1e-3, seed=seed, tracker=tracker,
            gradients=gradients, progress=False, **options,
        )  # fmt: skip
    return history, {snapshot.epoch: snapshot.activations for snapshot in history.snapshots}


def swapped(ds):
    return replace(ds, train=ds.test, test=ds.train)


def rows(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table), where
    return table


# Jobs


@pytest.mark.parametrize(
    "more",
    [
        {"runs": 12},
        {"homophily_runs": 7},
        {"homophilies": [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]},
        {"others": ["Ksg"]},
    ],
)
def test_more_of_anything_keeps_the_jobs_that_were_there(more):
    before, after = (cora.jobs(settings.make("cora", values)) for values in ({}, more))
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_each_job_has_a_name_of_its_own_and_arguments_that_json_holds():
    shares = [0, 1e-5, 0.1, 0.1000001, 0.30000000000000004, 1.0]
    found = cora.jobs(tiny(runs=3, homophily_runs=2, homophilies=shares))
    assert len(found) == 3 * 3 + 2 * len(shares) + 1
    for arguments in found.values():
        read = json.loads(json.dumps(arguments, allow_nan=False))
        assert {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()} == arguments


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"low_noise": 0.002}, {"planes"}),
        ({"layer_noise": [0.1, 0.2]}, {"planes"}),
        ({"high_noise": 0.2}, {"planes", "homophily", "others"}),
        ({"snr_batches": 5}, {"gradients"}),
        ({"snr_epochs": 7}, {"gradients"}),
        ({"epochs": 9}, {"planes", "whole", "others"}),
        ({"homophily_epochs": 9}, {"homophily"}),
        ({"other_snapshots": 4}, {"others"}),
        ({"source": "original"}, {"planes", "gradients", "whole", "others"}),
        ({"dtype": "float32"}, {*PROMISED}),
    ],
)
def test_a_setting_changes_the_jobs_that_hang_on_it_and_no_others(more, parts):
    before, after = cora.jobs(tiny()), cora.jobs(tiny(**more))
    assert before.keys() == after.keys()
    assert {job["part"] for name, job in after.items() if job != before[name]} == parts


# Settings


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": "names"}, "data must be \"cora\".*'names'"),
        ({"layer_noise": [0.1]}, r"one value for each of 2 hidden layers, got \[0.1\]"),
        ({"hidden": [4, 3, 2]}, r"each of 3 hidden layers, got \[0.01, 0.02\]"),
        ({"homophilies": [0.5, 1.5]}, "shares from 0 to 1, got 1.5"),
        ({"homophilies": [-0.5]}, "homophilies must be from 0.*-0.5"),
        ({"homophilies": []}, "homophilies is empty"),
        ({"low_noise": 0.2}, "low_noise must be below high_noise.*0.2 and 0.1"),
        ({"low_noise": 0.09999999}, "first six digits.*0.09999999 and 0.1"),
        ({"snr_batches": 1}, "snr_batches must be at least 2"),
    ],
)
def test_settings_that_dont_fit_one_another_are_named(more, words):
    with pytest.raises(ValueError, match=words):
        tiny(**more)


def test_the_ends_of_what_is_allowed_are_allowed():
    chosen = tiny(homophilies=[0.0, 1.0], layer_noise=[0.1, 0.1], others=[], snr_batches=2)
    assert chosen.homophilies == (0.0, 1.0)


# Tables


@pytest.mark.parametrize("part", sorted(PROMISED))
def test_each_part_gives_the_tables_and_columns_that_it_promises(made, part):
    found = made(part)
    assert found.keys() == PROMISED[part].keys()
    for name, columns in PROMISED[part].items():
        assert columns <= set(found[name].columns), name
        assert not found[name][sorted(columns)].isna().any(axis=None), name
        if "network" in columns and name != "rescaled":
            assert set(found[name]["network"]) == set(NETWORKS)
        if "run" in columns:
            assert set(found[name]["run"]) == {5}


def test_every_seed_sees_the_data_of_the_first(ds, monkeypatch):
    asked = []
    monkeypatch.setattr(cora, "load", lambda *given, **options: asked.append(options) or ds)
    for job in cora.jobs(tiny(runs=2, homophily_runs=2)).values():
        if job["part"] in ("whole", "homophily"):
            cora.run(job)
    real = {"source": "stand-in", "seed": 5, "dtype": torch.float64}
    graphs = [{**real, "seed": seed, "homophily": 1.0} for seed in (5, 6)]
    assert asked == [real, real, *graphs]


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_planes_and_rules_are_those_of_the_activations(made, ds, kind):
    found = made("planes")
    looks = snapshot_epochs(3, 2)
    history, seen = trained(kind, ds, snapshots=looks)
    scores = rows(found["scores"], network=kind).drop(columns="network").reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, history.table, rtol=1e-9)  # as CLOSE
    for table, label, by_layer in (
        ("planes", "σ² = 0.001", [Pairwise(0.001)] * 2),
        ("planes", "σ² = 0.1", [Pairwise(0.1)] * 2),
        ("planes", "per layer", [Pairwise(0.01), Pairwise(0.02)]),
        ("policies", "per layer", [Pairwise(0.01), Pairwise(0.02)]),
        ("policies", "percentile rule", [Pairwise(noise.Percentile())] * 2),
        ("policies", "proportional", [Pairwise(noise.Proportional())] * 2),
        ("policies", "likelihood", [Pairwise(noise.MaximumLikelihood(1000))] * 2),
    ):
        for epoch in looks if table == "planes" else snapshot_epochs(3, 1):
            for layer, estimator in zip(("tanh1", "tanh2"), by_layer, strict=True):
                for bound, mi in estimator(seen[epoch][layer], ds.y).items():
                    where = {"epoch": epoch, "layer": layer, "estimator": f"{label} {bound}"}
                    row = rows(found[table], network=kind, **where)
                    assert row["i_xz"].tolist() == pytest.approx([mi.i_xz], **CLOSE), where
                    assert row["i_zy"].tolist() == pytest.approx([mi.i_zy], **CLOSE), where
    for layer, z in seen[3].items():
        for variance in VARIANCES:
            mi = Pairwise(variance)(z, ds.y)["BD"]
            row = rows(found["by_noise"], network=kind, layer=layer, scale=variance)
            assert row[["i_xz", "i_zy"]].iloc[0].tolist() == pytest.approx(mi[:2], **CLOSE)
        for power, by in ((1, "distance"), (2, "squared distance")):
            row = rows(found["rules"], network=kind, layer=layer, by=by)
            expected = [noise.Percentile(power=power)(z)]
            assert row["noise"].tolist() == pytest.approx(expected, rel=1e-4)  # its precision


def test_units_move_the_first_layer_under_constant_noise_and_no_other(made, ds):
    found = made("planes")
    z = trained("FCN", ds)[1][3]["tanh1"]
    first = rows(found["rescaled"], layer="tanh1", policy="constant")
    expected = [Pairwise(0.1)(z * f, ds.y)["BD"].i_xz for f in first["factor"]]
    assert first["i_xz"].tolist() == pytest.approx(expected, **CLOSE)
    assert first["i_xz"].is_monotonic_increasing
    still = rows(found["rescaled"], layer="tanh1", policy="proportional")["i_xz"]
    assert len(still) == len(cora.FACTORS)
    assert np.ptp(still) < 1e-9  # bits: the factor cancels but for rounding
    last = rows(found["planes"], network="FCN", layer="tanh2", epoch=3, estimator="σ² = 0.1 BD")
    other = rows(found["rescaled"], layer="tanh2", policy="constant")
    assert other["i_xz"].tolist() == pytest.approx(last["i_xz"].tolist(), **CLOSE)


def test_distances_are_of_the_first_seed_and_whole(made):
    shares = made("planes")["distances"].groupby(["network", "layer"])["share"].sum()
    assert len(shares) == 4
    np.testing.assert_allclose(shares, 1, rtol=1e-12)  # a sum of 100 shares in float64
    flags = [job["distances"] for job in cora.jobs(tiny(runs=3)).values() if "distances" in job]
    assert flags == [True, False, False]


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_gradients_are_of_both_sets_in_batches(made, ds, kind):
    found = made("gradients")
    for part, size in ((ds, 5), (swapped(ds), 8)):  # a fourth of 20 and of 30 nodes, rounded up
        history, _ = trained(kind, part, epochs=2, batch_size=size)
        for name, expected in (("gradients", history.gradients), ("courses", history.table)):
            got = rows(found[name], network=kind, train_nodes=len(part.train))
            got = got.drop(columns=["network", "train_nodes"]).reset_index(drop=True)
            pd.testing.assert_frame_equal(got, expected, rtol=1e-9)  # as CLOSE


def test_one_batch_is_of_the_larger_set_and_without_edges_the_networks_are_one(made, ds):
    found = made("whole")["whole"]
    for kind in NETWORKS:
        expected = trained(kind, swapped(ds))[0].table["test_loss"].iloc[-1]
        got = rows(found, network=kind, train_nodes=30, epoch=3)["test_loss"]
        assert got.tolist() == pytest.approx([expected], **CLOSE)
    assert found["test_loss"].nunique() == 2
    bare = made("whole", replace(ds, edge_index=ds.edge_index[:, :0]))["whole"]
    losses = [rows(bare, network=kind)["test_loss"].item() for kind in NETWORKS]
    assert losses[0] == pytest.approx(losses[1], **CLOSE)


@pytest.mark.slow
def test_a_graph_of_a_homophily_is_drawn_by_its_seed_and_measured_at_the_end():
    found = cora.run(cora.jobs(tiny(homophilies=[0.25]))["homophily-0.25-5"])
    graph = load("cora", source="stand-in", seed=5, dtype=torch.float64, homophily=0.25)
    within = (graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]).double().mean()
    assert float(within) == pytest.approx(0.25, abs=1e-3)  # of 5278 edges, rounded to a whole one
    for kind in NETWORKS:
        history, seen = trained(kind, graph, epochs=2, snapshots=[2])
        got = rows(found["sweep_scores"], network=kind, homophily=0.25, epoch=2)
        expected = history.table["test_loss"].tolist()
        assert got["test_loss"].tolist() == pytest.approx(expected, **CLOSE)
        for label, variance in (("σ² = 0.1", 0.1), ("proportional", noise.Proportional())):
            mi = Pairwise(variance)(seen[2]["tanh2"], graph.y)["BD"]
            where = {"network": kind, "layer": "tanh2", "estimator": f"{label} BD"}
            row = rows(found["sweep"], homophily=0.25, **where)
            assert row["i_xz"].tolist() == pytest.approx([mi.i_xz], **CLOSE)
            assert row["i_zy"].tolist() == pytest.approx([mi.i_zy], **CLOSE)
