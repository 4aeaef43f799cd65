"""Chapter 06: what it trains and measures, on small cases with known answers."""

import math

import pytest
import torch
from torch import nn

from ibcore.data import load
from ibcore.estimators import Binning, Exact
from ibcore.estimators.adaptive import AdaptiveBinning
from ibcore.models import FullyConnected, LeNet
from study import black_box, planted, settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"widths": [12, 3, 2]}, "three hidden layers or more"),
        ({"share": 1.0}, "share must lie between 0 and 1"),
        ({"arms": ["tahn"]}, r"arms has \['tahn'\]: there are \['tanh'"),
        ({"dear_runs": 30}, "dear_runs ≤ some_runs ≤ runs must hold"),
        ({"flips": [0.5]}, "flips must lie from 0 to below 0.5"),
        ({"classes": [1]}, "classes must be at least 2"),
        ({"source": "internet"}, "source must be one of"),
    ],
)
def test_settings_that_cant_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        settings.make("black_box", values)


def test_an_arm_is_what_its_name_says():
    jobs = black_box.jobs(settings.make("black_box", {}))
    assert len([name for name in jobs if name.startswith("tanh-1") and "layer" not in name]) == 5
    assert jobs["tanh-5-100"]["share"] == 0.05
    assert jobs["tanh-1-layer-100"]["widths"] == [12, 10, 2]
    assert jobs["tanh-full-batch-100"]["batch_size"] is None
    assert jobs["relu-4-bits-110"]["bits"] == 4
    assert jobs["tanh-100"]["dear"]
    assert not jobs["tanh-110"]["dear"]


def test_a_chosen_arm_comes_alone():
    jobs = black_box.jobs(settings.make("black_box", {"arms": ["cora-gcn"]}))
    arms = {given["arm"] for given in jobs.values() if "arm" in given}
    assert arms == {"cora-gcn"}


def test_networks_have_the_weights_of_the_package_and_any_activation():
    ours = black_box.network([12, 5, 4, 2], "softsign", seed=3)
    theirs = FullyConnected([12, 5, 4, 2], "tanh", seed=3)
    assert [name for name, _ in ours.named_children()][:3] == ["linear1", "softsign1", "linear2"]
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert isinstance(ours.softsign2, nn.Softsign)


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_quantised_units_take_few_values_and_pass_the_gradient(kind):
    unit = black_box.Quantised(kind, 2)
    z = torch.linspace(-3, 3, 101, requires_grad=True)
    found = unit(z)
    assert len(found.unique()) <= 4
    found.sum().backward()
    exact = torch.linspace(-3, 3, 101, requires_grad=True)
    black_box._KINDS[kind]()(exact).clamp(*black_box._LEVELS[kind]).sum().backward()
    assert torch.allclose(z.grad, exact.grad)


def test_variance_within_classes_is_a_share():
    def share(*values):
        z, y = torch.tensor(values)[:, None], torch.tensor([0, 0, 1, 1])
        return black_box.variance_within(z, y)

    assert share(0.0, 0, 1, 1) == 0
    assert share(0.0, 1, 0, 1) == 1
    assert share(0.0, 2, 2, 4) == pytest.approx(0.5)
    assert math.isnan(share(1.0, 1, 1, 1))


def test_what_follows_the_maps_gives_the_same_answer():
    model, x = LeNet(seed=0), torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    behind, seen = black_box._behind_maps(model, x)
    assert next(iter(dict(behind.named_children()))) == "linear1"
    assert torch.equal(behind(seen), model(x))


def test_units_that_nothing_reads_leave_the_answer_as_it_is():
    ds = load("tishby")
    model = FullyConnected([12, 6, 5, 4, 2], "relu", seed=0)
    wider = planted.with_unread(model, 2, 10, seed=0)
    assert wider.linear2.out_features == 15
    assert torch.allclose(wider(ds.x), model(ds.x), atol=1e-6)
    assert wider.linear2(torch.ones(1, 6))[0, 5:].abs().min() > 0


def test_the_noisy_channel_has_the_information_of_the_books():
    assert planted.channel(0.0) == 1
    assert planted.channel(0.5) == pytest.approx(0)
    assert planted.channel(0.11) == pytest.approx(0.5, abs=1e-3)


def test_clusters_are_as_many_as_asked_for_and_of_one_size():
    ds = planted.clusters(3, seed=1)
    assert len(ds.classes) == 3
    assert torch.bincount(ds.y).tolist() == [100, 100, 100]
    assert torch.equal(ds.x, planted.clusters(3, seed=1).x)


def values(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64), torch.arange(n) % 2


def test_adaptive_bins_are_moved_by_no_monotone_map():
    z, y = values()
    before = AdaptiveBinning(8)(z, y)
    assert AdaptiveBinning(8)(1e6 * z + 3, y) == before
    assert AdaptiveBinning(8)(z.exp(), y) == before
    width = Binning(width=0.5)
    assert width(z, y) != width(1e6 * z, y)


def test_adaptive_bins_hold_as_many_values_each():
    z = torch.arange(64, dtype=torch.float64)[:, None] ** 3
    found = AdaptiveBinning(8)(z, torch.arange(64) % 2)["AdaptiveBinning"]
    assert found.i_xz == pytest.approx(3)
    assert found.ceiling == 6


def test_adaptive_bins_tell_few_values_apart_and_a_constant_has_none():
    z = torch.tensor([0.0, 1, 1, 5])[:, None]
    y = torch.tensor([0, 1, 1, 0])
    assert AdaptiveBinning()(z, y)["AdaptiveBinning"] == Exact()(z, y)["Exact"]
    assert AdaptiveBinning()(torch.ones(4, 1), y)["AdaptiveBinning"].i_xz == 0


def test_one_bin_is_none():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        AdaptiveBinning(1)
