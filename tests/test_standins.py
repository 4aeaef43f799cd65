"""Laws of the stand-ins: the original's size, a name of their own, and the seed decides."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

import ibcore
from ibcore.data import standins

OPTIONS = {"cora": {}, "names": {}, "mnist": {"size": 200, "test_size": 100}}


def load(name, seed=0, **options):
    return ibcore.load(name, source="stand-in", seed=seed, **OPTIONS[name], **options)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_seed_decides_and_the_source_is_named(name):
    first, again, other = load(name), load(name), load(name, seed=1)
    assert first.source not in ("original", "")
    assert first.sha256 == again.sha256
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.train, again.train)
    assert first.sha256 != other.sha256


@pytest.mark.parametrize("name", OPTIONS)
def test_the_parts_are_apart_and_every_class_is_trained_on(name):
    ds = load(name)
    assert not set(ds.train.tolist()) & set(ds.test.tolist())
    assert set(ds.y[ds.train].tolist()) == set(range(len(ds.classes)))
    assert ds.x.dtype == torch.float32
    assert load(name, dtype=torch.float64).x.dtype == torch.float64


def test_the_graph_has_coras_size():
    ds = load("cora")
    assert ds.x.shape == (2708, 1433)
    assert ds.edge_index.shape == (2, 10556)
    assert float(ds.x.sum(1).mean()) == pytest.approx(18, abs=0.3)
    assert ds.y.bincount().tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert ds.y[ds.train].bincount().tolist() == [20] * 7
    assert len(ds.test) == 1000


@pytest.mark.parametrize("homophily", [0.0, 0.3, 0.81, 1.0])
def test_the_share_of_edges_within_a_class_is_the_homophily(homophily):
    ds = load("cora", homophily=homophily)
    same = ds.y[ds.edge_index[0]] == ds.y[ds.edge_index[1]]
    assert float(same.double().mean()) == pytest.approx(homophily, abs=1e-4)
    pairs = ds.edge_index.sort(0).values
    assert (pairs[0] != pairs[1]).all()
    assert torch.unique(pairs, dim=1).shape == (2, 5278)


@pytest.mark.parametrize("homophily", [-0.1, 1.1, float("nan")])
def test_a_homophily_beyond_0_to_1_is_refused(homophily):
    with pytest.raises(ValueError, match="homophily must lie between 0 and 1"):
        standins.cora(homophily)


def test_words_tell_the_class_of_a_node():
    ds = load("cora")
    mean = torch.stack([ds.x[ds.y == c].mean(0) for c in range(7)])
    guess = (ds.x @ (mean / mean.sum(1, keepdim=True)).log().nan_to_num(neginf=-20).T).argmax(1)
    assert 0.5 < float((guess == ds.y).double().mean()) < 0.99


def test_the_chains_give_sixty_words_each_once():
    known = standins.names(seed=2)
    assert len(known) == 18
    for words in known.values():
        assert len(set(words)) == 60
        assert all(3 <= len(word) <= 12 and word == word.capitalize() for word in words)
    assert load("names").x.shape == (1080, 12, 57)


def test_the_digits_are_set_in_the_middle():
    images = standins.mnist()
    assert len(images["train_x"]) + len(images["test_x"]) == 1797
    assert not images["train_x"][:, :4].any()
    assert not images["train_x"][:, :, -4:].any()
    assert images["train_x"].max() == 255


def test_the_digits_are_enlarged_exactly_and_halves_are_rounded_up():
    images = standins.mnist()
    made = np.concatenate([images["train_x"], images["test_x"]])[:, 4:-4, 4:-4]
    order = np.random.default_rng(0).permutation(1797)
    digits = torch.from_numpy(load_digits().images[np.append(order[:-500], order[-500:])])
    large = interpolate(digits[:, None], size=20, mode="bilinear")[:, 0].numpy()
    exact = 255 * (large * 100).round() / 1600  # sixteenths in tenths of tenths: whole numbers
    np.testing.assert_array_equal(made, np.floor(exact + 0.5))


def test_more_digits_than_there_are_is_an_error_that_says_how_many():
    with pytest.raises(ValueError, match="4000 of 1297 8 × 8 digits training images"):
        ibcore.load("mnist", source="stand-in")
