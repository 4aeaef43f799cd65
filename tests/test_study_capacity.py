"""Laws of chapter 09: jobs, tables as promised, and claims' values where they are known."""

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from ibcore.capacity import SaturationTracker, initial_widths, linear_probes
from ibcore.models import FullyConnected
from study import advice, capacity, settings, sizes, sizing
from study.jobs import plan

TINY = {
    "kinds": ["bits, fully connected", "names, recurrent"],
    "source": "stand-in",
    "bits_epochs": 2,
    "names_epochs": 1,
    "size": 100,
    "wide": 2,
    "planted_runs": 1,
    "acted_runs": 1,
    "advice_runs": 1,
    "images": 100,
    "advice_epochs": 1,
    "c3e": [8, 4],
    "c3e_epochs": 1,
    "ledger_runs": 1,
    "depths": [1],
    "units": [4, 8],
    "multiples": [1.0],
    "memory_steps": 3,
    "memory_runs": 1,
    "course_runs": 1,
    "snapshots": 1,
    "seed": 5,
    "dtype": "float64",
}


def planned(**values):
    return capacity.jobs(settings.make("capacity", TINY | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parts": ["plantd"]}, "parts has .'plantd'.: there are .'planted'"),
        ({"kinds": ["bits"]}, "kinds has .'bits'.: there are"),
        ({"c3e": [8]}, "c3e has two widths, got .8."),
        ({"size": 101}, "must be even, got 101 and 100"),
    ],
)
def test_settings_that_cant_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        settings.make("capacity", TINY | values)


def test_a_job_is_asked_for_no_more_than_it_needs():
    found = planned()
    json.dumps(found)  # raises where a job can't be kept
    kinds = {name.rsplit("-", 1)[0] for name in found}
    assert {"planted-bits-fully-connected", "ledger-bits-fully-connected"} <= kinds
    assert not any("mnist" in name for name in kinds)  # `kinds` leaves it out
    more = planned(planted_runs=2)
    assert {name: more[name] for name in found} == found  # the others are the same jobs
    assert set(planned(parts=["memorised"])) == {"memorised-1-5"}


@pytest.mark.slow
def test_a_planted_job_has_a_row_a_layer_and_says_what_was_planted():
    found = capacity.run(planned()["planted-names-recurrent-5"])["layers"]
    assert found["case"].nunique() == 5
    planted = found[found["planted"] == "bottleneck"]
    assert planted["units"].tolist() == [capacity.NARROW] * 2
    wide = found[found["planted"] == "over-sized"]
    assert wide["units"].tolist() == [64, 64]
    assert list(wide["layer"]) == ["rnn1", "rnn2"]
    assert len(found) == 10


@pytest.mark.slow
def test_a_ledger_counts_the_bits_of_what_it_trained():
    found = capacity.run(planned()["ledger-bits-fully-connected-5"])
    ledger, weights = found["ledger"], found["weights"]
    assert len(ledger) == len(capacity.SHAPES) + 1
    assert ledger["from_data"].tolist() == [False] * len(capacity.SHAPES) + [True]
    first, count = ledger.iloc[0], found["facts"]["train"].iloc[0]
    assert first["parameters"] == 12 * 4 + 4 + 4 * 2 + 2
    assert first["learned"] == pytest.approx(first["labels"] - count * first["train_loss"])
    whole = weights[weights["weight"] == "all"].groupby("shape", sort=False)["total"].sum()
    assert whole[first["shape"]] == pytest.approx(first["weights"])


@pytest.mark.slow
def test_a_network_that_is_changed_has_the_width_that_was_asked_for():
    found = capacity.run(planned()["acted-bits-fully-connected-5"])["acted"]
    ordinary = found[found["case"] == "ordinary"].set_index(["place", "change"])["parameters"]
    sizes_of = {"none": 32, "smaller": 8, "larger": 128}
    for change in ("smaller", "larger"):
        units = sizes_of[change]
        widths = [12, units, 32, 32, 2]
        count = sum((a + 1) * b for a, b in pairwise(widths))
        assert ordinary[1, change] == count
    wide = found[found["case"] == "over-sized 1"]
    assert (1, "larger") not in set(zip(wide["place"], wide["change"], strict=True))


def test_the_convolutional_network_has_the_channels_that_are_asked_for():
    ds = sizes.data_of("mnist", {"dtype": "float64", "size": 60, "source": "stand-in"}, 0)
    model = sizes.network("conv", ds, (3, 5, 7), seed=0).double()
    with SaturationTracker(model, sizes.hidden_layers("conv", 3)) as tracker:
        tracker.look(0, ds.x[:20])
    assert tracker.table["units"].tolist() == [3, 5, 7]


def layer(**known):
    usual = {"kind": "a", "case": "ordinary", "place": 1, "planted": "", "verdict": "fine"}
    return usual | {"run": 0} | known


def test_precision_and_recall_are_those_of_the_layers():
    layers = pd.DataFrame(
        [
            layer(planted="bottleneck", verdict="bottleneck"),
            layer(planted="bottleneck", verdict="fine"),
            layer(verdict="bottleneck"),
            layer(verdict="bottleneck"),
            layer(run=1),
        ]
    )
    right, found = sizing.told(layers, "bottleneck", layers["planted"] == "bottleneck")
    assert (right[0], found[0]) == (pytest.approx(1 / 3), 0.5)
    assert math.isnan(right[1])  # nothing was called so


def test_the_truth_of_a_layer_is_what_retraining_says():
    layers = pd.DataFrame([layer(place=1), layer(place=2)])
    rows = [(0, "none", 0.8), (1, "smaller", 0.795), (1, "larger", 0.83), (2, "smaller", 0.7)]
    acted = pd.DataFrame(rows, columns=["place", "change", "test_accuracy"])
    acted = acted.assign(kind="a", case="ordinary", run=0)
    known = sizing.with_truth({"layers": layers, "acted": acted})
    assert known["loss"].tolist() == pytest.approx([-0.005, -0.1])
    assert known["is over-sized"].tolist() == [True, False]
    assert known["is bottleneck"].tolist() == [True, False]  # the second was not widened


def advised(rows):
    columns = ["shape", "adviser", "run", "parameters", "test_accuracy"]
    return {"advice": pd.DataFrame(rows, columns=columns)}


def test_only_who_keeps_the_accuracy_is_compared_in_size():
    t = advised(
        [
            ("s", "none", 0, 100, 0.9),
            ("s", "diagnose", 0, 50, 0.9),
            ("s", "small", 0, 10, 0.5),
            ("s", "fair", 0, 25, 0.896),
        ]
    )
    assert set(sizing.keepers(t, "s")) == {"none", "fair"}
    found = dict(sizing._followed(t, "s"))
    assert found["saved"][0] == 0.5
    assert found["fewest"][0] == 1.0  # twice as many as 25


def test_a_correlation_that_size_explains_is_gone_when_size_is_held():
    rng = np.random.default_rng(0)
    size = np.arange(200.0)
    noise = rng.normal(size=(2, 200))
    rows = pd.DataFrame(
        {
            "kind": "a", "size": size,
            "entropy": size + 20 * noise[0], "noise_entropy": size + 20 * noise[1],
        }
    )  # fmt: skip
    assert sizing._alike(rows) > 0.8
    assert abs(sizing._alike_at_size(rows)) < 0.2  # of 200 independent ranks


def test_all_layers_alike_are_scaled_to_no_more_than_the_size():
    ds = sizes.data_of("mnist", {"dtype": "float64", "size": 60, "source": "stand-in"}, 0)

    def count(widths):
        return sizes.count(FullyConnected([784, *widths, 10], "relu", seed=0))

    found = advice.alike((300, 100), (100, 100), ds)
    assert count(found) <= count((100, 100)) < count([width + 1 for width in found])


@pytest.mark.parametrize(
    ("x", "y", "layers", "widths"),
    [
        (torch.zeros(50, 3), torch.arange(50) % 4, 2, (20, 20)),  # 3 directions are 0.15 of 20
        (torch.zeros(4096, 12), torch.arange(4096) % 2, 2, (38, 38)),  # a table of 4096 bits
    ],
)
def test_a_first_shape_holds_the_answer_and_the_labels(x, y, layers, widths):
    assert initial_widths(x, y, layers=layers) == widths
    if len(y) > 1000:
        model = FullyConnected([12, *widths, 2], seed=0)
        assert 2 * sizes.count(model) >= len(y)
        smaller = FullyConnected([12, *(w - 1 for w in widths), 2], seed=0)
        assert 2 * sizes.count(smaller) < len(y)


@pytest.mark.parametrize(
    ("y", "layers", "words"),
    [
        (torch.arange(50) % 4, 0, "layers must be at least 1"),
        (torch.zeros(50, dtype=torch.int64), 2, "two classes or more"),
        (torch.arange(49), 2, "50 samples need as many labels"),
    ],
)
def test_a_first_shape_needs_labels(y, layers, words):
    with pytest.raises(ValueError, match=words):
        initial_widths(torch.zeros(50, 3), y, layers=layers)


def test_a_linear_reader_finds_what_a_layer_has_and_not_what_it_lost():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, -1]]))
        model[1].weight.copy_(torch.tensor([[0.0, 1, 0, 0], [0, 1, 0, 0]]))  # the second number
    half = torch.arange(200)
    found = linear_probes(model, x, y, train=half, test=half + 200, layers=["0", "1"])
    assert found["0"] > 0.95
    assert found["1"] < 0.65  # chance is a half
    with pytest.raises(ValueError, match="0 to try on"):
        linear_probes(model, x, y, train=half, test=half[:0], layers=["0"])


def test_the_record_asks_for_the_marks_that_the_brief_set():
    chosen = settings.make("capacity", {})
    jobs = {job.id: job.arguments for job in plan("capacity", chosen)}
    planted = [name for name in jobs if name.startswith("planted")]
    cases = sum(
        len(list(capacity.cases(jobs[name]["name"], jobs[name]["wide"]))) for name in planted
    )
    assert cases >= 60
    assert {sizes.KINDS[jobs[name]["name"]][0] for name in planted} == set(sizes.TRAINING)
    assert chosen.advice_runs >= 5
    assert len(capacity.SHAPES) >= 8
    assert chosen.ledger_runs >= 3
