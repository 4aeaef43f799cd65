"""Laws of chapter 10: techniques that keep what they promise, claims that are filled."""

import copy
import math

import pandas as pd
import pytest
import torch

from ibcore.codec import pack, unpack
from ibcore.data import load
from ibcore.tolerated import HangsOnRoundingError
from study import coding, compression, published, shrinking
from study.ledger import read
from study.measures import stacked
from study.sizes import TRAINING

TINY = compression.Settings(
    kinds=("bits, fully connected",), techniques=("as it is", "nearest", "penalised"),
    source="stand-in", bits_epochs=2, lost=0.2, runs=1, size_runs=1, course_runs=1,
    course_epochs=4, snapshots=2, samples=(50, 60), learned_epochs=2, learned_runs=1,
    mark_runs=1, shapes=("784-300-100-10",), images=120, rate_epochs=1, prices=(0.1,),
    seed=5, dtype="float64",
)  # fmt: skip


@pytest.fixture(scope="module")
def task():
    ds = load("tishby", train_fraction=0.5, seed=1, dtype=torch.float64)
    return shrinking.task_of("fc", ds, (16, 16), 1, 8, TRAINING["tishby"], 0.02)


@pytest.fixture(scope="module")
def model(task):
    net = task.fresh()
    task.train(net)
    return net


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["nearest", "k-means", "by inputs and cost", "pruned gradually", "low rank"]
)
def test_a_technique_loses_no_more_than_it_may_and_is_smaller(task, model, name):
    before = copy.deepcopy(model.state_dict())
    small = shrinking.TECHNIQUES[name](task, model)
    row = shrinking.measured(task, small)
    assert row["choose_accuracy"] >= task.accuracy(model, task.choose) - task.lost - 1e-9
    assert row["bytes"] < len(pack(model))
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())


def test_masks_cut_the_smallest_of_all(model):
    kept = shrinking.masks(model, 0.9)
    share = sum(float(m.sum()) for m in kept.values()) / sum(m.numel() for m in kept.values())
    assert share == pytest.approx(0.1, abs=0.01)
    weights = {n: w.detach() for n, w in model.named_parameters()}
    least = min(float(weights[n][m > 0].abs().min()) for n, m in kept.items())
    assert all(float(weights[n][m == 0].abs().max()) <= least for n, m in kept.items())


def test_pruned_weights_stay_0_in_training(task, model):
    net = copy.deepcopy(model)
    kept = shrinking.masks(net, 0.5)
    shrinking.train_masked(task, net, kept, 2)
    weights = dict(net.named_parameters())
    assert all(not weights[n][m == 0].any() for n, m in kept.items())
    assert set(net.state_dict()) == set(model.state_dict())


def test_a_price_on_bits_makes_them_fewer_and_the_file_is_what_answers(task, model):
    cheap, dear = shrinking.priced(task, model, (1e-6, 3.0), 20, 0.5)
    assert len(pack(dear.state)) < len(pack(cheap.state))
    back = unpack(pack(dear.state))
    assert all(torch.equal(back[n], w) for n, w in dear.model.state_dict().items())


def test_learned_steps_cost_fewer_bits_at_a_price_and_the_file_is_what_answers():
    ds = load("mnist", size=200, test_size=20, source="stand-in", dtype=torch.float64)
    learn = {"learning_rate": 3e-3, "batch_size": 20}
    task = shrinking.task_of("fc", ds, (20,), 1, 1, learn, 0.02)
    cheap, dear = published.at_prices(task, published.Rated(task.fresh()), (1e-6, 3.0), 10)
    assert len(pack(dear.state)) < len(pack(cheap.state)) < len(pack(task.fresh()))
    back = unpack(pack(dear.state))
    assert all(torch.equal(back[n], w) for n, w in dear.model.state_dict().items())


def test_units_that_nobody_reads_are_written_as_0_and_the_answer_stays(task, model):
    net = copy.deepcopy(model)
    with torch.no_grad():
        net.linear2.weight[:, 3] = 0
    rated = published.Rated(net)
    small, x = rated.small(), task.ds.x[:100]
    assert net.linear1.weight[3].any()
    assert not small.model.linear1.weight[3].any()
    assert small.model.linear1.bias[3] == 0
    torch.testing.assert_close(small.model(x), rated(x), rtol=1e-5, atol=1e-5)


def test_bits_at_a_price_are_those_of_a_geometric_density(model):
    rated = published.Rated(model)
    levels = torch.arange(-400, 401, dtype=torch.float64)
    rate = torch.tensor(0.37, dtype=torch.float64)
    shares = (-rate * levels.abs()).exp() * (rate / 2).tanh()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-12)
    with torch.no_grad():
        before = float(rated.bits())
        for name in rated.columns:
            rated.columns[name] += 1  # a steeper density, dear where weights are not 0
            rated.steps[name] -= 3
        assert float(rated.bits()) > before


def test_images_are_moved_in_training_alone_and_by_little():
    image = torch.zeros(200, 1, 28, 28)
    image[:, :, 10:18, 10:18] = 1
    moved = published.Moved(torch.nn.Flatten(), seed=0)
    assert moved.eval()(image).equal(image.flatten(1))
    seen = moved.train()(image).reshape(200, 28, 28)
    mass = seen.sum((1, 2))
    torch.testing.assert_close(mass, torch.full((200,), 64.0), rtol=0.15, atol=0)
    places = torch.arange(28.0)
    for axis in (1, 2):
        centre = (seen.sum(axis) * places).sum(1) / mass
        assert float((centre - 13.5).abs().max()) < 1.5 * 1.1
        assert float(centre.std()) > 0.5
    assert len({float(m) for m in mass}) > 190


def test_two_thin_layers_answer_as_the_one_they_stand_for(model):
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    thin = shrinking.factored(model, 1 - 1e-15)
    torch.testing.assert_close(thin(x), model(x))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parts": ("size",)}, "parts has .'size'.: there are .'techniques'"),
        ({"techniques": ("prune",)}, "techniques has .'prune'."),
        ({"lost": 0.5}, "below 0.5, got 0.5"),
        ({"size": 10}, "too few to choose by"),
    ],
)
def test_settings_that_cant_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        compression.check(compression.Settings(**values))


@pytest.mark.slow
def test_jobs_give_the_tables_that_claims_are_filled_from():
    wanted = ("techniques", "sizes", "course", "learned", "marks")
    jobs = compression.jobs(TINY)
    assert {key.split("-")[0] for key in jobs} == set(wanted)
    tables = stacked(compression.run(arguments) for arguments in jobs.values())
    tables = {name: table.assign(job="a word") for name, table in tables.items()}  # as read
    found = coding.values(tables)
    assert set(found) <= set(read("compression")[0])
    assert {"fc-bytes", "lossless", "grows", "ticket"} <= set(found)
    assert (found["below-labels-code"] > found["below-labels"]).all()
    assert (tables["sizes"]["whole"] > tables["sizes"]["bytes"]).all()


def test_the_smallest_file_within_an_error_is_chosen():
    rows = pd.DataFrame(
        {
            "run": [0, 0, 0, 1], "technique": ["penalised"] * 4, "bytes": [9.0, 5.0, 2.0, 4.0],
            "choose_accuracy": [0.99, 0.985, 0.9, 0.5],
        }
    )  # fmt: skip
    assert coding.within(rows, 0.02)["bytes"].to_dict() == {0: 5.0, 1: 4.0}


def test_labels_that_a_file_doesn_t_give_back_are_not_counted():
    rows = pd.DataFrame(
        {
            "samples": 2 * [100, 100, 200, 200], "run": 0, "labels": 4 * ["true", "random"],
            "bytes": [10.0, 50, 20, 100, 1, 1, 1, 1], "needed": 4 * [300.0] + 4 * [300.0],
            "choose_accuracy": 4 * [1.0] + 4 * [0.9],
        }
    )  # fmt: skip
    found = coding._of_labels(rows)
    assert found["random-true"].tolist() == [5.0]
    assert found["random-least"].tolist() == [pytest.approx(400 / 300)]
    assert found["random-slope"].tolist() == [pytest.approx(4.0)]
    assert coding._of_labels(rows.iloc[4:]) == {}


def test_an_answer_that_hangs_on_rounding_is_written_without_loss(task, model, monkeypatch):
    def refuse(*args, **options):
        raise HangsOnRoundingError("as if")

    monkeypatch.setattr(shrinking, "compress", refuse)
    small = shrinking.by_inputs(task, model)
    assert all(torch.equal(small.state[n], w) for n, w in model.state_dict().items())


def test_correlations_within_data_sets_don_t_see_what_lies_between_them():
    table = pd.DataFrame({"kind": list("aaaabbbb"), "x": range(8), "y": [4, 3, 2, 1, 8, 7, 6, 5]})
    found = coding.correlations(table, ["x"], ["y"], 50).set_index("among")["correlation"]
    assert found["within data sets"] == pytest.approx(-1)
    assert found["all"] > 0


def test_a_slope_is_the_exponent():
    x = pd.Series([1.0, 2.0, 4.0])
    assert coding.slope(x, 3 * x**0.5) == pytest.approx(0.5)
    assert math.isnan(coding.spearman(x, pd.Series([1.0, 1.0, 1.0])))


def test_a_halving_is_a_factor_of_two_from_float32_and_from_rounding_alone():
    names = ["as it is", coding.PLAIN, coding.BEST, "narrower", "as it is", coding.PLAIN]
    rows = pd.DataFrame(
        {
            "technique": names, "kind": ["a"] * 4 + ["graph"] * 2, "run": 0,
            "parameters": [100, 100, 100, 20, 200, 200],
            "bytes": [400.0, 200.0, 100.0, 25.0, 800.0, 50.0],
        }
    )  # fmt: skip
    found = coding.with_halvings(rows)
    assert found["memory"].tolist() == [400] * 4 + [800] * 2  # of the network as it was
    assert found["halvings"].tolist() == [0, 1, 2, 4, 0, 4]
    assert found["beyond"].tolist() == [-2, -1, 0, 2, -4, 0]  # without inputs: by cost alone
