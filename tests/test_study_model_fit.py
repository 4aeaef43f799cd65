"""Laws of chapter 07: what is varied and measured, and what tells it, where that is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ibcore.data import load
from study import fitting, model_fit
from study.ledger import read
from study.measures import stacked

TINY = model_fit.Settings(
    kinds=("bits, fully connected",), variants=("ordinary", "noisy labels"),
    source="stand-in", shares=(1.0, 0.5), bits_epochs=2, cora_epochs=2, validation=20, samples=30,
    runs=2, seed=5, dtype="float64",
)  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    jobs = model_fit.jobs(TINY)
    assert len(jobs) == 2
    return stacked(model_fit.run(arguments) for arguments in jobs.values())


@pytest.mark.slow
def test_every_network_has_its_row_and_its_planes_of_equal_samples(tables):
    networks, planes = tables["networks"], tables["planes"]
    assert len(networks) == 8
    assert networks.notna().all().all()
    assert (networks["test_accuracy"].between(0, 1) & (networks["distance"] > 0)).all()
    assert set(planes["n"]) == {30}
    assert set(planes["samples"]) == set(model_fit.SETS)
    assert (planes["i_xz"] <= np.log2(planes["n"]) + 1e-9).all()


@pytest.mark.slow
def test_a_graph_tolerates_noise_at_all_nodes_at_once():
    given = replace(TINY, kinds=("Cora, graph",), variants=("brief",), shares=(1.0,), runs=1)
    ((_, arguments),) = model_fit.jobs(given).items()
    planes = model_fit.run(arguments)["planes"]
    noise = planes[planes["estimator"] == "tolerated"]
    assert noise[["samples", "n"]].values.tolist() == [["all", 2708]]
    assert set(planes["samples"]) == set(model_fit.SETS)


@pytest.mark.slow
def test_claims_are_filled_and_no_predictor_is_without_a_family(tables):
    found = fitting.values(tables)
    assert set(found) == set(read("model_fit")[0])
    table = fitting.compared(fitting.predictors(tables))
    assert set(table["needs"]) == set(fitting.FAMILIES)
    assert (table["correlation"].abs() <= 1 + 1e-9).all()


def test_flipped_labels_are_wrong_and_only_those_trained_on():
    ds = load("tishby", train_fraction=0.5, seed=1, dtype=torch.float64)
    y = model_fit.flipped(ds, 0.25, seed=3)
    assert int((y != ds.y).sum()) == round(0.25 * len(ds.train))
    assert torch.equal(y[ds.test], ds.y[ds.test])


def test_fewer_samples_are_a_part_of_more_and_none_validates_and_reports():
    (arguments,) = [a for k, a in model_fit.jobs(TINY).items() if k.startswith("bits") and "5" in k]
    ds, validate = model_fit._data("tishby", arguments)
    assert not set(validate.tolist()) & set(ds.test.tolist())
    sets = model_fit._sets(ds, arguments)
    assert set(sets["training"].tolist()) <= set(ds.train[: len(ds.train) // 2].tolist())
    assert len(sets["training"]) == len(sets["held out"])


def made(**columns):
    """Six networks of one kind and three seeds, with the predictors named."""
    index = pd.MultiIndex.from_product(
        [["a"], [0, 1, 2], [1.0], list("uvwxyz")], names=fitting.KEYS
    )
    return pd.DataFrame({name: np.tile(v, 3) for name, v in columns.items()}, index=index)


def test_the_best_predictor_is_found_on_other_seeds_with_its_sign():
    table = made(
        **{
            "training, bins, last, I(X;T)": [3, 2, 1, 0, -1, -2],
            "at hand, margin": [1, 3, 2, 5, 4, 6],
            "accuracy": [1, 2, 3, 4, 5, 6],
            "gap": [1, 1, 2, 2, 3, 3],
        }
    )  # fmt: skip
    means = fitting.correlations(table, "accuracy")
    assert means["training, bins, last, I(X;T)"].tolist() == pytest.approx([-1, -1, -1])
    assert fitting.best(means, "training samples").tolist() == pytest.approx([1, 1, 1])
    assert fitting.best(means, "no plane").tolist() == pytest.approx([31 / 35] * 3)
    assert fitting.best(means.iloc[:1], "no plane").empty  # one seed can't choose for itself


def test_chance_has_no_correlation_in_the_mean():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        names = [f"training, bins, last, {number}" for number in range(20)]
        table = made(accuracy=np.arange(6), gap=np.arange(6))
        for name in names:
            table[name] = rng.normal(size=len(table))
        found += fitting.best(fitting.correlations(table, "accuracy"), "training samples").tolist()
    assert abs(np.mean(found)) < 0.15  # three standard errors of 90 correlations of six


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kinds": ("moons",)}, "kinds has"),
        ({"variants": ("odd",)}, "variants has"),
        ({"shares": (1.5,)}, "shares lie above 0"),
        ({"flipped": 1.0}, "flipped is a share"),
    ],
)
def test_settings_that_can_t_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        model_fit.check(model_fit.Settings(**values))
