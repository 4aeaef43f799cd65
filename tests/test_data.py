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
from ibcore.data import loading
from ibcore.data import tishby as rule
from ibcore.data.dataset import content_hash
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
    rare = replace(
        tishby, y=torch.cat([tishby.y[:-1], torch.tensor([2])]), classes=("0", "1", "rare")
    )
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


def small(**changed):
    fields = {
        "name": "small", "x": torch.zeros(4, 2), "y": torch.tensor([0, 1, 0, 1]),
        "train": torch.tensor([0, 1]), "test": torch.tensor([2]), "classes": ("a", "b"),
        "source": "own", "sha256": "0",
    }  # fmt: skip
    return ibcore.Dataset(**fields | changed)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"x": np.zeros((4, 2))}, TypeError, "x must be a tensor, got ndarray.*from_arrays"),
        ({"y": [0, 1, 0, 1]}, TypeError, "y must be a tensor, got list"),
        ({"x": torch.zeros(4, 2, dtype=torch.int64)}, ValueError, "x must have a float dtype"),
        ({"y": torch.tensor([0.0, 1, 0, 1])}, ValueError, "y must have int64, got torch.float32"),
        ({"y": torch.tensor([1, 2, 1, 2])}, ValueError, "y runs from 1 to 2.*2 classes.*from 0"),
        ({"y": torch.tensor([-1, 0, 0, 1])}, ValueError, "y runs from -1 to 1"),
        ({"y": torch.tensor([0, 1, 0])}, ValueError, r"\(4, 2\).*\(3,\)"),
        ({"y": torch.zeros(4, 1, dtype=torch.int64)}, ValueError, r"y must have shape \(n,\)"),
        ({"x": torch.zeros(4)}, ValueError, r"x has shape \(4,\)"),
        ({"x": torch.zeros(4, 0)}, ValueError, r"x has shape \(4, 0\)"),
        ({"x": torch.tensor([[0.0], [1], [torch.nan], [1]])}, ValueError, "in 1 of its 4"),
        ({"train": torch.tensor([0, 4])}, ValueError, "train runs from 0 to 4.*4 samples"),
        ({"test": torch.tensor([-1])}, ValueError, "test runs from -1"),
        ({"train": torch.tensor([0, 0])}, ValueError, "stand twice"),
        ({"test": torch.tensor([1])}, ValueError, "stand twice"),
        ({"train": torch.tensor([], dtype=torch.int64)}, ValueError, "train needs a sample"),
        ({"train": torch.tensor([True, False, False, False])}, ValueError, "train must have int64"),
        ({"edge_index": torch.tensor([[0], [4]])}, ValueError, "edge_index runs from 0 to 4"),
        ({"edge_index": torch.tensor([0, 1])}, ValueError, r"must have shape \(2, n_edges\)"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_named(changed, error, words):
    with pytest.raises(error, match=words):
        small(**changed)


def test_own_data_keeps_its_labels_as_classes():
    x = np.arange(12).reshape(6, 2)
    ds = ibcore.Dataset.from_arrays(x, ["b", "a", "b", "a", "b", "a"], train_fraction=0.5, seed=2)
    assert ds.classes == ("a", "b")
    assert ds.y.tolist() == [1, 0, 1, 0, 1, 0]
    assert (ds.source, ds.x.dtype) == ("own", torch.float32)
    assert sorted(torch.cat([ds.train, ds.test]).tolist()) == list(range(6))
    counted = ibcore.Dataset.from_arrays(torch.rand(4, 3).double(), torch.tensor([1, 3, 1, 3]))
    assert counted.classes == ("1", "3")
    assert counted.x.dtype == torch.float64


def test_own_data_takes_a_split_and_a_graph():
    x, y, edges = np.zeros((4, 2)), np.array([0, 1, 0, 1]), np.array([[0, 1], [1, 0]])
    ds = ibcore.Dataset.from_arrays(x, y, train=[0, 3], edge_index=edges)
    assert (ds.train.tolist(), ds.test.tolist()) == ([0, 3], [1, 2])
    assert ibcore.Dataset.from_arrays(x, y, train=[0, 3], test=[2]).test.tolist() == [2]
    with pytest.raises(ValueError, match="give train too"):
        ibcore.Dataset.from_arrays(x, y, test=[2])
    with pytest.raises(ValueError, match="4 samples need as many labels"):
        ibcore.Dataset.from_arrays(x, y[:3])


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        ([0.0, 1, 0, 1], {}, "labels must be whole numbers or strings, got float64"),
        ([0, 1, 0, 1], {"train": np.array([True, False, True, False])}, "train must hold indices"),
        ([0, 1, 0, 1], {"train": [0, 1], "test": [2.5]}, "test must hold indices, got torch.float"),
    ],
)
def test_what_would_be_misread_is_refused(y, options, words):
    with pytest.raises(ValueError, match=words):
        ibcore.Dataset.from_arrays(np.zeros((4, 2)), y, **options)


@pytest.mark.parametrize("order", ["<", ">"])
def test_own_data_may_have_any_byte_order_and_direction(order):
    x = np.arange(8.0).reshape(4, 2)
    same = ibcore.Dataset.from_arrays(x, [0, 1, 0, 1], train=[0, 1])
    other = x[::-1].astype(f"{order}f8")[::-1]
    found = ibcore.Dataset.from_arrays(other, np.array([0, 1, 0, 1], f"{order}i4"), train=[0, 1])
    assert torch.equal(found.x, same.x)
    assert found.sha256 == same.sha256


def test_own_data_in_bfloat16_has_a_hash_and_no_gradient():
    x = torch.rand(4, 2, dtype=torch.bfloat16, requires_grad=True)
    ds = ibcore.Dataset.from_arrays(x, [0, 1, 0, 1], train=[0, 1])
    assert (ds.x.dtype, ds.x.requires_grad, len(ds.sha256)) == (torch.bfloat16, False, 64)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8), st.data())
def test_a_subset_has_its_size_and_every_class_in_its_share(counts, data):
    size = data.draw(st.integers(len(counts), sum(counts)))
    y = np.repeat(np.arange(len(counts)), counts)
    chosen = loading._stratified(y, size, np.random.default_rng(0), "images")
    taken, share = np.bincount(y[chosen]), size * np.array(counts) / sum(counts)
    assert len(chosen) == len(set(chosen)) == size
    assert taken.min() >= 1
    assert (taken <= np.maximum(np.ceil(share), 1)).all()
    if share.min() >= 1:
        assert (np.abs(taken - share) < 1).all()


def test_a_subset_of_the_same_images_goes_by_the_seed_alone(monkeypatch):
    y = (np.arange(200) % 10).astype(np.uint8)
    x = np.zeros((200, 28, 28), np.uint8)
    x[:, 0, 0] = np.arange(200)  # so that an image says which it is
    images = {"train_x": x, "train_y": y, "test_x": x, "test_y": y}
    monkeypatch.setattr(loading.originals, "mnist", lambda: images)
    options = {"source": "original", "size": 50, "test_size": 20}
    one, again, other = (ibcore.load("mnist", seed=s, **options) for s in (1, 1, 2))
    assert torch.equal(one.x, again.x)
    for part in ("train", "test"):
        first, second = (ds.x[getattr(ds, part), 0, 0, 0] for ds in (one, other))
        assert set(first.tolist()) != set(second.tolist())


def test_own_data_can_be_trained_on_right_away():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    ds = ibcore.Dataset.from_arrays(x, x[:, 0] > 0)
    model = ibcore.models.FullyConnected([3, 4, 2], seed=0).double()
    history = ibcore.fit(model, ds, epochs=30, learning_rate=0.1, progress=False)
    assert history.table["train_accuracy"].iloc[-1] > 0.9


def test_the_hash_is_that_of_the_content_whatever_split_and_dtype():
    one = ibcore.load("cora", source="stand-in", seed=3)
    double = ibcore.load("cora", source="stand-in", seed=3, dtype=torch.float64)
    assert one.sha256 == double.sha256 == content_hash(one.x, one.y, one.edge_index)
    assert ibcore.load("cora", source="stand-in", seed=4).sha256 != one.sha256
    tishby = ibcore.load("tishby")
    assert tishby.sha256 == tishby.split(0.1, 3).sha256 == content_hash(tishby.x, tishby.y)


def test_the_hash_tells_values_shapes_and_types_apart():
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    found = {
        content_hash(x, y), content_hash(x.double(), y), content_hash(x.reshape(2, 4), y),
        content_hash(x + 1, y), content_hash(x, 1 - y), content_hash(x, y, torch.zeros(2, 1)),
    }  # fmt: skip
    assert len(found) == 6
    assert content_hash(x.T.contiguous().T, y) == content_hash(x, y)


def test_a_subset_of_mnist_goes_by_the_seed_and_has_every_class():
    options = {"source": "stand-in", "size": 300, "test_size": 100}
    one, again, other = (ibcore.load("mnist", seed=s, **options) for s in (1, 1, 2))
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.x, other.x)
    y = np.repeat([0, 1], [990, 10])
    for size, rare in ((2, 1), (50, 1), (100, 1), (200, 2)):
        chosen = loading._stratified(y, size, np.random.default_rng(0), "images")
        assert (len(chosen), len(set(chosen)), y[chosen].sum()) == (size, size, rare)
    a, b = (loading._stratified(y, 50, np.random.default_rng(s), "images") for s in (0, 1))
    assert sorted(a) != sorted(b)
