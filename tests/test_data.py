"""Laws of the data: the 12-bit rule is the original, and a split is a partition."""

import hashlib
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat

import ibcore
from ibcore.data import tishby as rule
from ibcore.discrete import label_entropy

FOLDER = Path(os.environ.get("IBCORE_DATA", Path(__file__).parents[2] / "shared" / "data"))
ORIGINAL = FOLDER / "tishby" / "var_u.mat"
SHA256 = "371b2b46a5052b4f69f7991ca141fb5afa1ac364ef7beb81ec900eecac2f86d9"


@pytest.fixture(scope="module")
def tishby():
    return ibcore.load("tishby")


def distances():
    """Steps between any two vertices of the neighbour table, shape (12, 12)."""
    found = np.full((12, 12), 99)
    for start in range(12):
        reached = {start}
        for step in range(4):
            new = [v for v in reached if found[start, v] == 99]
            found[start, new] = step
            reached |= {w for v in reached for w in rule._NEIGHBOURS[v]}
    return found


def symmetries():
    """All permutations of the vertices that keep neighbours neighbours."""
    near, found = distances() == 1, []

    def extend(image):
        if len(image) == 12:
            found.append(image)
        v = len(image)
        for w in set(range(12)) - set(image):
            if all(near[v, u] == near[w, image[u]] for u in range(v)):
                extend([*image, w])

    extend([])
    return found


@pytest.mark.skipif(not ORIGINAL.is_file(), reason=f"no original file at {ORIGINAL}")
def test_the_rule_is_the_original_file_bit_for_bit(tishby):
    original = loadmat(ORIGINAL)
    np.testing.assert_array_equal(tishby.x.numpy(), original["F"])
    np.testing.assert_array_equal(tishby.y.numpy(), original["y"][0])


def test_the_packed_labels_have_the_hash_of_the_original(tishby):
    packed = np.packbits(tishby.y.numpy().astype(np.uint8))
    assert hashlib.sha256(packed.tobytes()).hexdigest() == SHA256
    assert tishby.sha256 == SHA256


def test_the_labels_have_2118_ones_and_almost_one_bit(tishby):
    assert int(tishby.y.sum()) == 2118
    assert label_entropy(tishby.y) == pytest.approx(0.99916, abs=5e-6)


def test_the_inputs_count_from_0_to_4095_highest_bit_first(tishby):
    powers = torch.tensor([2.0**k for k in range(11, -1, -1)])
    torch.testing.assert_close(tishby.x @ powers, torch.arange(4096.0), rtol=0, atol=0)
    assert set(tishby.x.unique().tolist()) == {0.0, 1.0}


def test_the_neighbour_table_is_an_icosahedron():
    steps = distances()
    assert (steps == steps.T).all()
    assert [(steps[0] == k).sum() for k in range(4)] == [1, 5, 5, 1]
    assert [int(row.argmax()) for row in steps] == list(rule._ANTIPODES)
    assert len(symmetries()) == 120


def test_the_labels_are_the_same_under_every_symmetry_of_the_icosahedron():
    bits = rule.tishby_inputs()
    labels = rule.tishby_labels(bits)
    for image in symmetries():
        np.testing.assert_array_equal(rule.tishby_labels(bits[:, image]), labels)


def test_a_permutation_that_is_no_symmetry_changes_labels():
    bits = rule.tishby_inputs()
    swapped = [1, 0, *range(2, 12)]
    assert swapped not in symmetries()
    assert (rule.tishby_labels(bits[:, swapped]) != rule.tishby_labels(bits)).any()


def test_what_load_returns_is_described(tishby):
    assert (tishby.name, tishby.source, tishby.edge_index) == ("tishby", "original", None)
    assert (tishby.x.shape, tishby.x.dtype) == ((4096, 12), torch.float32)
    assert (tishby.y.shape, tishby.y.dtype) == ((4096,), torch.int64)
    assert len(tishby.classes) == 2


def test_the_dtype_of_the_inputs_can_be_chosen(tishby):
    double = ibcore.load("tishby", dtype=torch.float64)
    assert double.x.dtype == torch.float64
    torch.testing.assert_close(double.x, tishby.x.double(), rtol=0, atol=0)


@given(st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_split_is_disjoint_covers_all_and_has_the_share_asked_for(fraction, seed):
    ds = ibcore.load("tishby").split(fraction, seed)
    both = torch.cat([ds.train, ds.test])
    torch.testing.assert_close(both.sort().values, torch.arange(4096))
    assert abs(len(ds.train) - fraction * 4096) <= 0.5
    assert ds.train.dtype == ds.test.dtype == torch.int64


def test_the_seed_decides_the_split_and_nothing_else_does(tishby):
    torch.manual_seed(1)
    first = ibcore.load("tishby", train_fraction=0.3, seed=5)
    torch.manual_seed(2)
    again = tishby.split(0.3, 5)
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.train.sort().values, tishby.split(0.3, 6).train.sort().values)


def test_the_split_is_shuffled(tishby):
    shares = [float(tishby.y[part].double().mean()) for part in (tishby.train, tishby.test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.08)  # 4 deviations of 819 test labels


def test_a_split_leaves_the_data_set_it_was_made_from_alone(tishby):
    before = tishby.train.clone()
    other = tishby.split(0.1, 3)
    assert torch.equal(tishby.train, before)
    assert other.x is tishby.x


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, math.nan, 1e-9, 1 - 1e-9])
def test_a_share_that_leaves_one_side_empty_is_refused(tishby, fraction):
    with pytest.raises(ValueError, match="train_fraction"):
        tishby.split(fraction)


def test_a_split_that_leaves_a_class_without_training_samples_is_refused(tishby):
    rare = replace(tishby, y=torch.cat([tishby.y[:-1], torch.tensor([2])]))
    trained = [4095 in tishby.split(0.5, seed).train for seed in range(20)]
    assert 0 < sum(trained) < 20
    for seed, present in enumerate(trained):
        if present:
            assert 4095 in rare.split(0.5, seed).train
        else:
            with pytest.raises(ValueError, match=r"class \[2\]"):
                rare.split(0.5, seed)


def test_one_training_sample_of_two_classes_is_refused():
    with pytest.raises(ValueError, match=r"class \[[01]\]"):
        ibcore.load("tishby", train_fraction=1 / 4096)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'tishbi'.*tishby"):
        ibcore.load("tishbi")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("iris", {}, r"'iris'.*cora.*mnist.*names.*tishby"),
        ("cora", {"source": "copy"}, "'any', 'original' or 'stand-in', got 'copy'"),
        ("cora", {"size": 5}, r"\['size'\] of data set 'cora': it takes \['homophily'\]"),
        ("mnist", {"sise": 5}, r"\['sise'\].*\['size', 'test_size'\]"),
        ("cora", {"source": "original", "homophily": 0.5}, "only the stand-in"),
        ("tishby", {"source": "stand-in"}, "made from its rule"),
        ("names", {"source": "stand-in", "train_fraction": 0.01}, "leaves no training sample"),
        ("names", {"source": "stand-in", "train_fraction": 1.5}, "between 0 and 1"),
    ],
)
def test_what_no_data_set_has_is_refused_with_what_there_is(name, options, words):
    with pytest.raises(ValueError, match=words):
        ibcore.load(name, **options)
