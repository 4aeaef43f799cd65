"""Laws of chapter 04: jobs that are asked for no more than they need, and tables as promised."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ibcore.data import load
from ibcore.estimators import Pairwise, distance_histogram, named, noise
from ibcore.hooks import ActivationTracker
from ibcore.interface import apply
from ibcore.models import FullyConnected, LeNet
from ibcore.plane import COLUMNS
from ibcore.training import default_device, fit, snapshot_epochs
from study import mnist, settings
from study.measures import VARIANCES, float_type

# The same sums in the same order; only their share of threads may differ, by float64's last digits.
BITS = {"rtol": 0, "atol": 1e-9}
TINY = {
    "source": "stand-in",
    "size": 60,
    "test_size": 20,
    "widths": [784, 12, 8, 10],
    "small": [784, 9, 7, 10],
    "runs": 2,
    "epochs": 3,
    "learning_rate": 1e-3,
    "batch_size": 20,
    "lenet_epochs": 2,
    "lenet_batch": 16,
    "snapshots": 2,
    "policy_snapshots": 1,
    "sizes": [40],
    "size_runs": 1,
    "size_epochs": 3,
    "all_size": 80,
    "all_epochs": [1, 2],
    "others": ["Renyi"],
    "other_snapshots": 1,
    "seed": 5,
    "dtype": "float64",
}
PLANE = [*COLUMNS, "n_samples", "label_entropy"]
SCORES = ["run", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
PROMISED = {
    "facts": ["data", "source", "sha256", "shape", "samples", "train", "test", "classes",
              "label_entropy", "network", "run"],
    "scores": [*SCORES, "network"],
    "weights": ["network", "run", "count"],
    "planes": [*PLANE, "network"],
    "policies": [*PLANE, "network"],
    "rules": ["network", "run", "layer", "by", "noise"],
    "by_noise": ["network", "run", "layer", "scale", "i_xz", "i_zy"],
    "distances": ["left", "right", "share", "network", "layer"],
    "sizes": [*SCORES, "size"],
    "large": [*PLANE, "measured"],
    "cost": ["measured", "seconds", "policy", "epoch", "memory_gib"],
    "others": [*PLANE, "network"],
}  # fmt: skip


def asked(**values):
    return settings.make("mnist", values)


def planned(**values):
    return mnist.jobs(asked(**values))


@pytest.fixture(scope="module")
def made():
    """The tables of every job of a tiny run, from arguments as JSON gives them back."""
    jobs = planned(**TINY)
    return {name: mnist.run(json.loads(json.dumps(given))) for name, given in jobs.items()}


@pytest.fixture(scope="module")
def joined(made):
    names = {name for tables in made.values() for name in tables}
    return {
        name: pd.concat([t[name] for t in made.values() if name in t], ignore_index=True)
        for name in names
    }


# Jobs


def test_the_record_is_a_job_a_network_and_seed_a_size_and_seed_an_epoch_and_noise():
    found = planned()
    kinds = pd.Series([name.split("-")[0] for name in found]).value_counts().to_dict()
    assert kinds == {"fcn": 5, "lenet": 5, "small": 5, "size": 4 * 3, "large": 2 * 2}
    assert json.loads(json.dumps(found)).keys() == found.keys()
    assert len({json.dumps(given, sort_keys=True) for given in found.values()}) == len(found)


@pytest.mark.parametrize(
    "more",
    [
        {"runs": 7},
        {"size_runs": 5},
        {"sizes": [300, 500, 1000, 2000, 4000]},
        {"all_epochs": [1, 5, 10]},
        {"others": ["Renyi"]},
    ],
    ids=str,
)
def test_more_of_something_keeps_the_jobs_that_were_there(more):
    before, after = planned(), planned(**more)
    assert before.items() <= after.items()
    assert len(after) > len(before)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"epochs": 500}, ["fcn", "others-fcn"]),
        ({"widths": [784, 30, 20, 10]}, ["fcn", "size", "others-fcn"]),
        ({"small": [784, 30, 20, 10]}, ["small"]),
        ({"layer_noise": [4.0, 2.0, 1.0, 1.0]}, ["lenet"]),
        ({"lenet_epochs": 10}, ["lenet", "small", "others-lenet"]),
        ({"lenet_rate": 0.01}, ["lenet", "small", "size", "large", "others-lenet"]),
        ({"snapshots": 9}, ["fcn", "lenet", "small"]),
        ({"other_snapshots": 9}, ["others-fcn", "others-lenet"]),
        ({"size_epochs": 9}, ["size"]),
        ({"all_size": 50_000}, ["large"]),
        ({"low_noise": 0.01}, ["fcn", "lenet", "small"]),
        ({"noise_variance": 1.0},
         ["fcn", "lenet", "small", "large-constant", "others-fcn", "others-lenet"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_remakes_the_jobs_that_depend_on_it_and_no_other(change, again):
    before, after = planned(others=["Renyi"]), planned(others=["Renyi"], **change)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith(tuple(again))}


# Settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": "names"}, r'data must be "mnist".*\'names\''),
        ({"widths": [783, 20, 20, 10]}, r"widths must lead from 784 pixels to 10.*\[783, 20, 20"),
        ({"small": [784, 20, 20, 9]}, r"small must lead.* to 10 classes.*\[784, 20, 20, 9\]"),
        ({"widths": [784, 20, 10]}, r"two hidden layers or more, got \[784, 20, 10\]"),
        ({"layer_noise": [5.0, 2.0, 0.3]}, r"each of the layers \['pool1'.*\[5.0, 2.0, 0.3\]"),
        ({"size": 9}, r"size must lie from 10, an image a class, to 60000.*got 9"),
        ({"size": 500, "all_size": 400}, r"size must lie from 10.* to 400, all_size.*got 500"),
        ({"all_size": 60_001}, r"all_size must lie from 10.* to 60000, the training.*got 60001"),
        ({"sizes": [500, 70_000]}, r"sizes must lie.* to 60000.*got \(500, 70000\)"),
        ({"test_size": 10_001}, r"test_size must lie.* to 10000, the test images.*got 10001"),
        ({"source": "stand-in"}, r"all_size must lie.* to 1297, the training images"),
        ({"all_epochs": [1, 1]}, r"all_epochs names a value twice"),
        ({"others": ["Ksq"]}, r"no estimator is called \['Ksq'\]"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_named_with_what_would_do(values, words):
    with pytest.raises(ValueError, match=words):
        asked(**values)


def test_a_stand_in_takes_all_its_images_and_noise_may_be_the_same_in_two_layers():
    few = {"source": "stand-in", "size": 1297, "all_size": 1297, "test_size": 500, "sizes": [1297]}
    assert asked(**few, layer_noise=[1.0, 1.0, 1.0, 1.0]).layer_noise == (1.0,) * 4
    ds = load("mnist", source="stand-in", size=1297, test_size=500)
    assert (len(ds.train), len(ds.test)) == mnist._IMAGES["stand-in"]


# Tables


@pytest.mark.slow
def test_every_table_has_the_promised_columns(joined):
    assert {name: list(table.columns) for name, table in joined.items()} == PROMISED
    for name, table in joined.items():
        keys = [c for c in table if c in {"run", "epoch", "layer", "estimator", "network", "by"}]
        keys += [c for c in table if c in {"size", "measured", "policy", "left", "scale"}]
        assert not table.duplicated(keys).any(), name


@pytest.mark.slow
def test_distances_come_from_the_first_seed_and_rules_from_the_two_networks(made, joined):
    assert {name for name, tables in made.items() if "distances" in tables} == {"fcn-5", "lenet-5"}
    assert set(joined["rules"]["network"]) == {"FCN", "LeNet"}
    assert set(joined["rules"]["run"]) == {5, 6}
    shares = joined["distances"].groupby(["network", "layer"], sort=False)["share"].sum()
    np.testing.assert_allclose(shares, 1.0, rtol=0, atol=1e-12)  # of 1770 pairs, in float64
    assert list(shares.index) == [
        *(("FCN", layer) for layer in ("relu1", "relu2")),
        *(("LeNet", layer) for layer in ("relu1", "relu2", "relu3", "linear2")),
    ]


def trained(model, ds, layers, **course):
    """A network that is trained with a tracker and no help of the study, as its user would."""
    model = model.to(default_device(), ds.x.dtype)
    with ActivationTracker(model, layers) as tracker:
        return fit(model, ds, tracker=tracker, progress=False, **course)


def images(s, size):
    given = {"size": size, "test_size": s.test_size, "seed": s.seed}
    return load("mnist", source=s.source, dtype=float_type(s.dtype), **given)


def fast(s, epochs, **more):
    rates = {"learning_rate": s.lenet_rate, "batch_size": s.lenet_batch}
    return {"epochs": epochs, **rates, "seed": s.seed, **more}


def bits(rows, estimator, layer, epoch, run):
    at = {"estimator": estimator, "layer": layer, "epoch": epoch, "run": run}
    (row,) = rows.loc[(rows[[*at]] == pd.Series(at)).all(axis=1), ["i_xz", "i_zy"]].to_numpy()
    return row


@pytest.mark.slow
def test_the_slow_network_agrees_with_its_training_by_hand(joined):
    s, run = asked(**TINY), 6
    ds = images(s, s.size)
    course = {"learning_rate": s.learning_rate, "batch_size": s.batch_size, "seed": run}
    course |= {"epochs": s.epochs, "snapshots": snapshot_epochs(s.epochs, s.snapshots)}
    history = trained(FullyConnected(s.widths, "relu", seed=run), ds, "relu*", **course)
    rows = joined["planes"][joined["planes"]["network"] == "FCN"]
    for snapshot in history.snapshots:
        for layer, z in snapshot.activations.items():
            for bound, mi in Pairwise(0.1)(z[ds.train], ds.y[ds.train]).items():
                found = bits(rows, f"σ² = 0.1 {bound}", layer, snapshot.epoch, run)
                np.testing.assert_allclose(found, [mi.i_xz, mi.i_zy], **BITS)
    scores = joined["scores"].query("network == 'FCN' and run == @run").drop(columns="network")
    np.testing.assert_allclose(scores[SCORES], history.table[SCORES], **BITS)
    assert (joined["planes"]["n_samples"] == s.size).all()


@pytest.mark.slow
def test_lenet_agrees_with_its_training_by_hand(joined):
    s = asked(**TINY)
    ds = images(s, s.size)
    layers = ["conv*", "relu*", "pool*", "linear*"]
    course = fast(s, s.lenet_epochs, snapshots=[s.lenet_epochs])
    history = trained(LeNet(s.seed), ds, layers, **course)
    found = {layer: z[ds.train] for layer, z in history.snapshots[0].activations.items()}
    rows = joined["policies"][joined["policies"]["network"] == "LeNet"]
    own = dict(zip(("pool1", "pool2", "relu3", "linear2"), s.layer_noise, strict=True))
    assert list(rows["layer"].unique()) == [*own]
    scales = joined["by_noise"].query("network == 'LeNet' and run == @s.seed")
    scales = scales.set_index(["layer", "scale"])[["i_xz", "i_zy"]]
    for layer, variance in own.items():
        for scale in VARIANCES:
            mi = Pairwise(scale)(found[layer], ds.y[ds.train])["BD"]
            np.testing.assert_allclose(scales.loc[layer, scale], mi[:2], **BITS)
        for label, policy in {
            "σ² = 0.001": 0.001,
            "σ² = 0.1": 0.1,
            "per layer": variance,
            "percentile rule": noise.Percentile(),
            "proportional": noise.Proportional(),
            "likelihood": noise.MaximumLikelihood(1000),
        }.items():
            mi = Pairwise(policy)(found[layer], ds.y[ds.train])["BD"]
            row = bits(rows, f"{label} BD", layer, s.lenet_epochs, s.seed)
            np.testing.assert_allclose(row, [mi.i_xz, mi.i_zy], **BITS)
    rules = joined["rules"].query("network == 'LeNet' and run == @s.seed")
    rules = rules.set_index(["layer", "by"])["noise"]
    assert set(rules.index.get_level_values("layer")) == set(found)
    for layer, z in found.items():  # a variance is found to one part in 10⁴, by its own docstring
        for power, by in ((1, "distance"), (2, "squared distance")):
            assert rules[layer, by] == pytest.approx(noise.Percentile(power=power)(z), rel=1e-4)
    shares, edges = distance_histogram(found["relu1"])
    shown = joined["distances"].query("network == 'LeNet' and layer == 'relu1'")
    np.testing.assert_allclose(shown["share"], shares, rtol=0, atol=0.5 / 1770)  # not one pair off
    np.testing.assert_allclose(shown["right"], edges[1:], rtol=1e-9)


@pytest.mark.slow
def test_a_plane_of_a_shorter_training_is_one_epoch_of_the_longer(joined):
    """The network is trained again for each epoch of the large plane, no further than it."""
    s = asked(**TINY)
    ds = images(s, s.all_size)
    course = fast(s, max(s.all_epochs), snapshots=s.all_epochs)
    history = trained(LeNet(s.seed), ds, ["pool1", "linear2"], **course)
    samples = {"all": ds.train, "part": ds.train[: s.size]}
    for snapshot in history.snapshots:
        for layer, z in snapshot.activations.items():
            for measured, index in samples.items():
                rows = joined["large"][joined["large"]["measured"] == measured]
                for label, policy in (("constant", 0.1), ("proportional", noise.Proportional())):
                    mi = Pairwise(policy)(z[index], ds.y[index])["BD"]
                    row = bits(rows, f"{label} BD", layer, snapshot.epoch, s.seed)
                    np.testing.assert_allclose(row, [mi.i_xz, mi.i_zy], **BITS)
                assert (rows["n_samples"] == len(index)).all()


@pytest.mark.slow
def test_a_large_plane_says_what_it_cost(made):
    cost = pd.concat([t["cost"].assign(job=name) for name, t in made.items() if "cost" in t])
    policies, epochs = ("constant", "proportional"), (1, 2)
    jobs = [f"large-{policy}-{epoch}" for policy in policies for epoch in epochs]
    assert cost.groupby("job").size().to_dict() == dict.fromkeys(jobs, 2)
    assert (cost["seconds"] > 0).all()
    assert cost["memory_gib"].between(0.05, 64).all()  # torch alone takes more than the least


@pytest.mark.slow
def test_sizes_are_the_scores_of_the_fully_connected_network_at_the_fast_rate(joined):
    s = asked(**TINY)
    ds = images(s, s.sizes[0])
    model = FullyConnected(s.widths, "relu", seed=s.seed).to(default_device(), ds.x.dtype)
    history = fit(model, ds, progress=False, **fast(s, s.size_epochs))
    np.testing.assert_allclose(joined["sizes"][SCORES], history.table[SCORES], **BITS)
    assert set(joined["sizes"]["size"]) == set(s.sizes)


@pytest.mark.slow
def test_other_estimators_get_the_first_seed_at_the_last_epoch(joined):
    s = asked(**TINY)
    ds = images(s, s.size)
    course = fast(s, s.lenet_epochs, snapshots=[s.lenet_epochs])
    history = trained(LeNet(s.seed), ds, ["linear2"], **course)
    z = history.snapshots[0].activations["linear2"][ds.train]
    (estimator,) = named(["Renyi"], s.noise_variance)
    ((name, mi),) = apply(estimator, z, ds.y[ds.train], ds.x[ds.train]).items()
    assert set(joined["others"]["network"]) == {"FCN", "LeNet"}
    rows = joined["others"][joined["others"]["network"] == "LeNet"]
    row = bits(rows, name, "linear2", s.lenet_epochs, s.seed)
    np.testing.assert_allclose(row, [mi.i_xz, mi.i_zy], **BITS)


def test_defaults_are_of_the_types_that_profiles_are_checked_for():
    given = dataclasses.asdict(mnist.Settings())
    assert settings.make("mnist", given) == mnist.Settings()
