"""Laws that every estimator keeps, and those of each."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode

from ibcore.discrete import label_entropy
from ibcore.estimators import Binning, Pairwise
from ibcore.estimators.distances import SquaredDistances, in_threads, squared_distances, tiles
from ibcore.estimators.noise import MaximumLikelihood, Percentile, Proportional
from ibcore.estimators.queries import mean_of

ESTIMATORS = [Pairwise(0.1), Pairwise(1e-3), Binning(), Binning(width=0.07)]
EXACT = 1e-9  # bits: what float64 sums may be off by

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sample(n=150, dim=3, classes=3, seed=0):
    """Values in (−1, 1) that depend on the label."""
    y = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return torch.tanh(0.5 * normal(n, dim, seed=seed) + y[:, None] - 1), y


def assert_same(one, two, tolerance=EXACT):
    assert one.keys() == two.keys()
    for name in one:
        assert one[name][:2] == pytest.approx(two[name][:2], abs=tolerance), name


@st.composite
def samples(draw):
    """Few samples of few dimensions in [−1, 1], with ties, and labels of 2 to 5 classes."""
    n, dim = draw(st.integers(2, 25)), draw(st.integers(1, 4))
    values = st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.5, 1.0])
    z = draw(hnp.arrays(np.float64, (n, dim), elements=values))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 4)))
    y[:2] = 0, 1
    return torch.from_numpy(z), torch.from_numpy(y)


# Every estimator


@every_estimator
def test_the_same_representation_in_every_class_tells_nothing_about_the_class(estimator):
    """Then p(t | y) = p(t) on the samples at hand, so plug-in values are zero exactly."""
    z, _ = sample(50)
    for mi in estimator(z.repeat(3, 1), torch.arange(3).repeat_interleave(50)).values():
        assert mi.i_zy == pytest.approx(0, abs=EXACT)
        assert mi.i_xz > 1


@pytest.mark.parametrize("estimator", [Pairwise(0.1), Binning(), Binning(width=0.07)], ids=str)
def test_a_representation_drawn_without_regard_to_the_label_tells_almost_nothing(estimator):
    """About zero: finite samples put plug-in values too high by about (K−1)(C−1) / (2N ln 2)
    bits for K cells and C classes (Miller & Madow); here K ≤ 30, C = 2, N = 1000: 0.021 bits.
    Kernels overlap where bins don't, so that they have fewer cells. Three times that is allowed.
    """
    y = torch.arange(1000) % 2
    for seed in range(3):
        z = torch.rand(1000, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        for mi in estimator(z, y).values():
            assert abs(mi.i_zy) < 3 * 29 / (2 * 1000 * math.log(2))


@every_estimator
def test_a_constant_representation_tells_nothing(estimator):
    for mi in estimator(torch.full((40, 3), 0.3), torch.arange(40) % 4).values():
        assert mi[:2] == pytest.approx((0, 0), abs=EXACT)


@every_estimator
@pytest.mark.parametrize("classes", [2, 4, 8])
def test_far_points_one_a_class_give_log2_of_the_classes_in_bits(estimator, classes):
    y = torch.arange(64) % classes
    z = torch.linspace(-1, 1, classes)[y][:, None] * torch.ones(200)
    for mi in estimator(z, y).values():
        assert mi[:2] == pytest.approx((math.log2(classes), math.log2(classes)), abs=1e-6)


@every_estimator
@given(samples())
def test_no_estimate_passes_its_ceilings(estimator, data):
    z, y = data
    for mi in estimator(z, y).values():
        assert -EXACT <= mi.i_xz <= math.log2(len(z)) + EXACT
        assert mi.i_zy <= min(label_entropy(y), mi.i_xz) + EXACT


@every_estimator
def test_the_order_of_samples_changes_nothing(estimator):
    z, y = sample()
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    assert_same(estimator(z[order], y[order]), estimator(z, y))


@every_estimator
def test_the_order_of_dimensions_changes_nothing(estimator):
    z, y = sample()
    assert_same(estimator(z.flip(1), y), estimator(z, y))


@every_estimator
def test_shuffling_the_labels_changes_what_is_known_of_y_and_not_of_x(estimator):
    z, y = sample(dim=1)  # few dimensions, for where every sample is alone nothing can change
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    before, after = estimator(z, y), estimator(z, y[order])
    for name in before:
        assert after[name].i_xz == pytest.approx(before[name].i_xz, abs=EXACT)
        assert after[name].i_zy < before[name].i_zy - 0.01


@every_estimator
def test_counting_every_sample_twice_changes_nothing(estimator):
    z, y = sample()
    assert_same(estimator(z.repeat(2, 1), y.repeat(2)), estimator(z, y))


@every_estimator
def test_a_constant_dimension_changes_nothing(estimator):
    z, y = sample()
    wider = torch.cat([z, torch.full((len(z), 1), 0.25, dtype=z.dtype)], 1)
    assert_same(estimator(wider, y), estimator(z, y))


@every_estimator
def test_asking_twice_gives_the_same(estimator):
    assert_same(estimator(*sample()), estimator(*sample()), tolerance=0)


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_gives_what_its_values_give_in_double(estimator, dtype):
    z, y = sample()
    z = z.to(dtype)
    assert_same(estimator(z, y), estimator(z.double(), y))


@every_estimator
def test_results_are_python_floats_below_log2_n(estimator):
    for mi in estimator(*sample()).values():
        assert [type(value) for value in mi] == [float] * 6
        assert mi.ceiling == math.log2(150)


@every_estimator
def test_further_dimensions_are_flattened(estimator):
    z, y = sample(dim=12)
    assert_same(estimator(z.reshape(-1, 3, 2, 2), y), estimator(z, y))
    assert_same(estimator(z[:, 0], y), estimator(z[:, :1], y))


@pytest.fixture
def every_warning():
    """Torch gives some warnings once a program; here each time, so that none is missed."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@every_estimator
@pytest.mark.usefixtures("every_warning")
def test_layout_in_memory_changes_nothing_and_warns_of_nothing(estimator):
    z, y = sample(dim=4)
    expected = estimator(z, y)
    transposed = z.T.contiguous().T
    strided = torch.stack([z, z + 0.01], 1).flatten(0, 1)[::2]
    labels = torch.stack([y, y + 1], 1)[:, 0]
    assert not any(part.is_contiguous() for part in (transposed, strided, labels))
    assert_same(estimator(transposed, y), expected)
    assert_same(estimator(strided, labels), expected)
    expanded = z[:, :1].expand(-1, 5)
    assert_same(estimator(expanded, y), estimator(expanded.contiguous(), y))


@every_estimator
def test_a_representation_that_needs_a_gradient_is_taken_without_it(estimator):
    z, y = sample()
    assert_same(estimator(z.clone().requires_grad_(), y), estimator(z, y))


@every_estimator
def test_the_input_is_left_as_it_was(estimator):
    z, y = sample(300)
    z_before, y_before = z.clone(), y.clone()
    estimator(z, y)
    assert torch.equal(z, z_before)
    assert torch.equal(y, y_before)


@every_estimator
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_have_any_integer_type(estimator, dtype):
    z, y = sample()
    assert_same(estimator(z, y.to(dtype)), estimator(z, y))


@every_estimator
def test_labels_may_be_any_integers_in_any_order(estimator):
    z, y = sample()
    for names in ([-7, 1000, 3], [2, 0, 1], [-(2**62), 0, 2**62]):
        assert_same(estimator(z, torch.tensor(names)[y]), estimator(z, y))


@every_estimator
def test_it_is_frozen_and_equal_to_its_equals(estimator):
    field = next(iter(vars(estimator)))
    with pytest.raises(FrozenInstanceError):
        setattr(estimator, field, 1.0)
    assert estimator == type(estimator)(**vars(estimator))


Z, Y = torch.linspace(-1, 1, 6)[:, None], torch.tensor([0, 1, 0, 1, 2, 2])


@every_estimator
@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        (Z, Y[:5], r"\(6, 1\).*\(5,\)"),
        (Z, Y[:, None], r"\(6, 1\).*\(6, 1\)"),
        (Z.T, Y, r"\(1, 6\).*\(6,\)"),
        (torch.tensor(0.5), torch.tensor(1), r"\(\).*\(\)"),
        (Z[:0], Y[:0], "at least two samples, got 0"),
        (Z[:1], Y[:1], "at least two samples, got 1"),
        (Z[:, :0], Y, r"\(6, 0\)"),
        (Z, torch.full((6,), 3), "all 6 labels are 3"),
        (Z, Y.float(), "integers, got torch.float32"),
        (Z, Y * torch.nan, "integers, got torch.float32"),
        ((10 * Z).long(), Y, "float dtype, got torch.int64"),
        (Z > 0, Y, "float dtype, got torch.bool"),
        (Z.to(torch.complex64), Y, "float dtype, got torch.complex64"),
        (torch.where(Z > 0, Z, torch.nan), Y, "NaN or infinite values in 3 of its 6"),
        (torch.where(Z > 0.9, torch.inf, Z), Y, "NaN or infinite values in 1 of its 6"),
        (torch.where(Z > 0.9, -torch.inf, Z), Y, "NaN or infinite values in 1 of its 6"),
    ],
    ids=[
        "fewer labels", "labels in a column", "transposed", "scalars", "empty", "one sample",
        "no dimension", "one class", "float labels", "NaN labels", "integers", "booleans",
        "complex", "NaN", "infinity", "minus infinity",
    ],
)  # fmt: skip
def test_input_that_no_estimate_can_be_made_from_is_refused(estimator, z, y, message):
    with pytest.raises(ValueError, match=message):
        estimator(z, y)


@pytest.mark.parametrize("fine", [Pairwise(1e-12), Binning(edges=200_001), Binning(width=1e-6)])
def test_with_fine_noise_or_bins_distinct_samples_give_log2_n(fine):
    z, y = sample(200)
    for mi in fine(z, y).values():
        assert mi.i_xz == pytest.approx(math.log2(200), abs=1e-6)
        assert mi.i_zy == pytest.approx(label_entropy(y), abs=1e-6)


# Pairwise


def direct(z, y, noise_variance):
    """The four estimates from eq. 3.11-3.20 in float64, every distance from its difference."""
    z, y = z.double().flatten(1), y.numpy()
    squares = (z[:, None, :] - z[None, :, :]).square().sum(-1).numpy()

    def information(rows, scale):
        kernel = np.exp(-squares[np.ix_(rows, rows)] / (scale * noise_variance))
        return -np.log2(kernel.mean(1)).mean()

    found = {}
    for name, scale in (("BD", 8), ("KL", 2)):
        whole = information(np.arange(len(y)), scale)
        classes = [np.flatnonzero(y == c) for c in np.unique(y)]
        found[name] = whole, whole - sum(len(r) / len(y) * information(r, scale) for r in classes)
    return found


def adversarial():
    """Data on which single precision, or squares by the Gram matrix, lose what matters."""
    n, tight = 300, 1e-3 * normal(300, 10)
    group = torch.arange(n) % 4
    rare = torch.zeros(n, dtype=torch.int64)
    rare[7], rare[100:] = 1, 2
    y, apart = group % 3, group[:, None].double()
    return {
        "ordinary": (normal(n, 10), y),
        "tight cluster far from the origin": (tight + 1e4, y),
        "tight clusters far from each other": (tight + 1e4 * apart, group),
        "tight clusters far from all": (tight + 1e4 * apart - 3e4, y),
        "tighter clusters farther away": (1e-6 * normal(n, 10) + 1e6 * apart, y),
        "duplicated rows": (normal(n // 10, 10).repeat(10, 1), y),
        "duplicated rows far from the origin": ((tight + 1e4)[:30].repeat(10, 1), y),
        "all rows the same": (torch.full((n, 3), 12345.678, dtype=torch.float64), y),
        "one dimension": (normal(n, 1), y),
        "one dimension, far clusters": (tight[:, :1] + 1e4 * apart, y),
        "a class with one member": (normal(n, 4), rare),
        "a class with one member, far away": (normal(n, 4) + 1e5 * (rare == 1)[:, None], rare),
        "two scales": (normal(n, 2) * torch.tensor([1e-3, 1e5]), y),
        "many dimensions": (normal(n, 100), y),
        "every sample its own class": (normal(n, 2), torch.arange(n)),
        "two samples": (torch.tensor([[1e4], [1e4 + 1e-3]]), torch.tensor([0, 1])),
    }


CASES = adversarial()


@pytest.mark.parametrize("noise_variance", [1e-6, 1e-3, 0.1, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_pairwise_is_the_direct_formula_in_double_to_a_thousandth_bit(case, dtype, noise_variance):
    z, y = CASES[case]
    z = z.to(dtype)
    assert_same(Pairwise(noise_variance)(z, y), direct(z, y, noise_variance), tolerance=1e-3)


@given(
    samples(),
    st.integers(-4, 6),
    st.sampled_from([0.0, 1e2, 1e4, -1e6]),
    st.integers(-6, 3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_pairwise_is_the_direct_formula_at_any_scale_and_offset(data, scale, offset, noise, dtype):
    z, y = data
    z = (z * 10.0**scale + offset).to(dtype)
    assert_same(Pairwise(10.0**noise)(z, y), direct(z, y, 10.0**noise), tolerance=1e-3)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr("ibcore.estimators.distances._SMALL_BLOCK", 16)


@pytest.mark.parametrize("n", [255, 256, 257, 511, 513, 900, 1030, 2100])
def test_pairwise_is_the_direct_formula_for_any_number_of_samples(n):
    z, y = sample(n)
    y = y.sort()[0]  # so that tiles differ in the classes they hold
    assert_same(Pairwise(0.05)(z, y), direct(z, y, 0.05))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("n", [2, 15, 16, 17, 100, 160])
def test_pairwise_is_the_direct_formula_whatever_the_tiles(n, classes):
    z, y = sample(n, classes=classes)
    y[:2] = torch.tensor([0, 1])
    expected = direct(z, y, 0.05)
    assert_same(Pairwise(0.05)(z, y), expected)
    assert_same(Pairwise(0.05, queries=n)(z, y), expected)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_changes_no_bit_and_is_put_back(one_thread, threads):
    z, y = sample(300)
    alone = Pairwise(0.05)(z, y)
    torch.set_num_threads(threads)
    assert_same(Pairwise(0.05)(z, y), alone, tolerance=0)
    assert torch.get_num_threads() == threads


def test_an_error_within_a_tile_puts_the_threads_back(one_thread):
    torch.set_num_threads(2)

    def fail(i, j):
        raise RuntimeError("in a tile")

    with pytest.raises(RuntimeError, match="in a tile"):
        list(in_threads(fail, tiles(2000, 2000)))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("outlier", [1e9, 1e20, 1e160, 1e308])
@pytest.mark.parametrize("n", [200, 1100])
def test_an_outlier_loses_no_other_sample(n, outlier):
    """In numbers: from distances by differences, which an infinite one leaves as they are."""
    z, y = sample(n)
    z[5], z[7] = outlier, -outlier
    expected = direct(z, y, 0.05)
    assert expected["BD"][0] > 1  # or all would be one point
    assert_same(Pairwise(0.05)(z, y), expected, tolerance=1e-6)  # what an exponent may be off by


def test_most_tiles_beside_an_outlier_are_as_fast_as_without(monkeypatch):
    z = normal(6000, 3)
    z[5] = 1e20
    calls = []
    slow = SquaredDistances._differences
    monkeypatch.setattr(SquaredDistances, "_differences", lambda *a: calls.append(0) or slow(*a))
    list(squared_distances(z, 1e-9))
    assert len(calls) == 6  # the first row of 21 tiles


# Pairwise on a sample of queries


@pytest.mark.parametrize("n", [400, 1100])
def test_queries_agree_with_all_within_their_error(n):
    z, y = sample(n)
    whole = Pairwise(0.05)(z, y)
    some = [Pairwise(0.05, queries=n // 5, seed=s)(z, y) for s in range(40)]
    for name, all_ in whole.items():
        assert all_[2:4] == (0, 0)
        for value in ("i_xz", "i_zy"):
            found = np.array([getattr(mi[name], value) for mi in some])
            error = np.mean([getattr(mi[name], value + "_error") for mi in some])
            # 40 runs know their mean to 1/√40 of one's error, and their spread to 11 %.
            assert found.mean() == pytest.approx(getattr(all_, value), abs=4 * error / 40**0.5)
            assert found.std() == pytest.approx(error, rel=0.45)
        assert all(mi[name].ceiling == math.log2(n) for mi in some)


def test_the_error_of_a_mean_holds_both_stages():
    """Values of samples, s² = 4, each with two draws, s_w² = 9; half are queries."""
    values = 2 * normal(1, 2000) + 3 * normal(2, 2000, seed=1)
    expected = (0.5 * (4 + 9 / 2) + 0.5 * 9 / 2) / 2000
    assert mean_of(values, 4000).error ** 2 == pytest.approx(expected, rel=0.1)  # known to 3 %
    assert mean_of(values, 2000).error ** 2 == pytest.approx(9 / 2 / 2000, rel=0.1)
    rare = mean_of(values, 10**9).error ** 2
    assert rare == pytest.approx((4 + 9 / 2) / 2000, rel=0.1)


@pytest.mark.parametrize("queries", [2, 100])
def test_queries_of_distinct_far_samples_see_the_ceiling_of_all(queries):
    y = torch.arange(1200) % 3
    for mi in Pairwise(1e-9, queries=queries)(torch.arange(1200.0)[:, None], y).values():
        assert mi[:2] == pytest.approx((math.log2(1200), math.log2(3)), abs=1e-5)
        assert mi.i_xz_error == pytest.approx(0, abs=1e-5)


def test_as_many_queries_as_samples_are_all_of_them():
    z, y = sample(600)
    for queries in (600, 601, 10**9):
        assert_same(Pairwise(0.05, queries)(z, y), Pairwise(0.05)(z, y), tolerance=0)
    nearly = Pairwise(0.05, 599)(z, y)["BD"]
    assert 0 < nearly.i_xz_error < 0.01


def test_memory_of_queries_is_that_of_a_tile(one_thread):
    z, y = sample(6000)
    with LargestTensor() as largest:
        Pairwise(0.1, queries=2000)(z, y)
    assert 0 < largest.numel <= 2000 * 512


@pytest.mark.parametrize("queries", [1, 0, -3])
def test_too_few_queries_are_refused(queries):
    with pytest.raises(ValueError, match=f"queries must be at least 2.*got {queries}"):
        Pairwise(queries=queries)


# Pairwise, its laws


@pytest.mark.parametrize("distance", [1e-3, 0.5, 2.0, 30.0])
def test_pairwise_of_two_samples_is_its_closed_form(distance):
    found = Pairwise(0.3)(torch.tensor([[0.0], [distance]]).double(), torch.tensor([0, 1]))
    for name, scale in (("BD", 8), ("KL", 2)):
        bits = 1 - math.log2(1 + math.exp(-(distance**2) / (scale * 0.3)))
        assert found[name][:2] == pytest.approx((bits, bits), abs=EXACT)


@given(samples(), st.floats(1e-4, 10))
def test_bhattacharyya_is_never_above_kullback_leibler(data, noise_variance):
    found = Pairwise(noise_variance)(*data)
    assert found["BD"].i_xz <= found["KL"].i_xz + EXACT


@pytest.mark.parametrize("noise_variance", [0.01, 0.1, 1.0])
def test_the_information_of_the_noisy_representation_lies_between_the_bounds(noise_variance):
    """The truth by Monte Carlo: I(X;T) = E log p(t|x)/p(t), T = z + ε, to its standard error."""
    z, y = sample(40)
    found = Pairwise(noise_variance)(z, y)
    i = torch.arange(40).repeat(500)
    t = z[i] + noise_variance**0.5 * normal(len(i), z.shape[1], seed=1)
    exponents = -(t[:, None] - z).square().sum(-1) / (2 * noise_variance)
    own = exponents.gather(1, i[:, None])[:, 0]
    bits = (own - exponents.logsumexp(1) + math.log(40)) / math.log(2)
    truth, error = float(bits.mean()), float(bits.std()) / len(bits) ** 0.5
    assert found["BD"].i_xz <= truth + 4 * error
    assert found["KL"].i_xz >= truth - 4 * error
    assert found["KL"].i_xz - found["BD"].i_xz > 8 * error  # or the test would say little


@pytest.mark.parametrize("duplicates", [1, 4])
def test_without_noise_it_is_the_entropy_of_the_distinct_rows(duplicates):
    z, y = sample(60)
    found = Pairwise(1e-12)(z.repeat(duplicates, 1), y.repeat(duplicates))
    assert found["BD"].i_xz == pytest.approx(math.log2(60), abs=1e-6)
    assert found["KL"].i_xz == pytest.approx(math.log2(60), abs=1e-6)


def test_under_much_noise_nothing_is_left():
    for mi in Pairwise(1e9)(*sample()).values():
        assert mi[:2] == pytest.approx((0, 0), abs=1e-6)


@given(samples(), st.floats(1e-3, 10), st.floats(1.01, 100))
def test_more_noise_never_gives_more_information_about_the_input(data, noise_variance, factor):
    less, more = Pairwise(noise_variance)(*data), Pairwise(noise_variance * factor)(*data)
    for name in less:
        assert more[name].i_xz <= less[name].i_xz + EXACT


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e4])
def test_scaling_the_representation_is_dividing_the_noise_by_the_square(factor):
    z, y = sample()
    assert_same(Pairwise(0.1)(factor * z, y), Pairwise(0.1 / factor**2)(z, y))


def test_moving_and_turning_the_representation_changes_nothing():
    z, y = sample(dim=4)
    turn = torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert_same(Pairwise(0.1)(z @ turn + 100, y), Pairwise(0.1)(z, y))


def test_information_about_the_label_can_be_negative():
    """It is a difference of two bounds: class 0 sits far apart, class 1 amid it.

    With kernel q from the centre, and q² within class 0, it tends to ½ log₂(4q/(1+q)²) < 0.
    """
    n = 200
    z = torch.cat([torch.eye(n), torch.zeros(n, n)]).double()
    y = torch.arange(2 * n) // n
    found = Pairwise(noise_variance=1 / (8 * math.log(2)))(z, y)  # q = 1/2 for BD
    assert found["BD"].i_zy < -0.05
    assert_same(found, direct(z, y, 1 / (8 * math.log(2))))


class LargestTensor(TorchDispatchMode):
    """Watches the size of every tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_pairwise_never_holds_all_distances(one_thread):  # other threads aren't watched
    z, y = sample(6000)
    with LargestTensor() as largest:
        Pairwise(0.1)(z, y)
    assert 0 < largest.numel < 6000**2 / 20


@pytest.mark.parametrize("noise_variance", [0.0, -0.1, math.nan, math.inf, -math.inf])
def test_a_noise_variance_that_is_not_positive_is_refused(noise_variance):
    with pytest.raises(ValueError, match=f"noise_variance.*{noise_variance}"):
        Pairwise(noise_variance)


# Pairwise under noise that is read off the representation

SCALE_FREE = [Percentile(power=2), Proportional(), MaximumLikelihood()]
POLICIES = [*SCALE_FREE, Percentile()]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_policy_gives_what_its_variance_gives_as_a_number(policy):
    z, y = sample(dim=12)
    z = z.reshape(-1, 3, 4)
    assert_same(Pairwise(policy)(z, y), Pairwise(policy(z))(z, y), tolerance=0)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@given(samples(), st.floats(-6, 6))
def test_under_any_policy_and_scale_no_estimate_passes_its_ceilings(policy, data, scale):
    z, y = data
    try:
        noise_variance = policy(z * 10**scale)
    except ValueError:
        assume(False)  # a constant, copies alone
    assume(noise_variance > 0)  # the square of a very small distance
    for mi in Pairwise(policy)(z * 10**scale, y).values():
        assert -EXACT <= mi.i_xz <= math.log2(len(z)) + EXACT
        assert mi.i_zy <= min(label_entropy(y), mi.i_xz) + EXACT


@pytest.mark.parametrize("policy", SCALE_FREE, ids=str)
@pytest.mark.parametrize("factor", [1e-6, 0.3, 100.0])
def test_under_a_scale_free_policy_scaling_a_layer_changes_nothing(policy, factor):
    z, y = sample()
    assert_same(Pairwise(policy)(factor * z, y), Pairwise(policy)(z, y), tolerance=1e-5)


@pytest.mark.parametrize("policy", [Percentile(), 0.1], ids=str)
def test_under_the_others_scaling_a_layer_changes_the_estimate(policy):
    z, y = sample()
    before, after = Pairwise(policy)(z, y), Pairwise(policy)(100 * z, y)
    for name in before:
        assert after[name].i_xz > before[name].i_xz + 0.1


def test_scaling_turns_the_order_of_two_layers_over_under_constant_noise_alone():
    """The second layer is a function of the first, so the true order is that of the network."""
    first, y = sample()
    second = torch.tanh(first[:, :1])

    def gain(noise_variance, factor):
        estimate = Pairwise(noise_variance)
        before, after = estimate(first, y), estimate(factor * second, y)
        return [after[name].i_xz - before[name].i_xz for name in before]

    assert max(gain(0.1, 1)) < -0.1
    assert min(gain(0.1, 100)) > 0.1
    assert max(gain(Proportional(), 1)) < -0.1
    assert gain(Proportional(), 100) == pytest.approx(gain(Proportional(), 1), abs=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_under_a_policy_it_is_frozen_equal_to_its_equals_and_printed_in_full(policy):
    estimator = Pairwise(policy)
    with pytest.raises(FrozenInstanceError):
        estimator.noise_variance = 1.0
    again = Pairwise(type(policy)(**vars(policy)))
    assert estimator == again
    assert repr(estimator) == repr(again)
    assert f"noise_variance={policy}" in repr(estimator)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_constant_representation_is_refused_where_the_noise_is_read_off_it(policy):
    with pytest.raises(ValueError, match=r"all 41 samples agree.*constant layer"):
        Pairwise(policy)(torch.full((41, 3), 0.1), torch.arange(41) % 2)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_policy_that_gives_no_positive_number_is_refused_by_name(value):
    class Wrong:
        def __call__(self, z):
            return value

        def __repr__(self):
            return "Wrong()"

    estimator = Pairwise(Wrong())
    with pytest.raises(ValueError, match=rf"noise_variance.*{value} from Wrong\(\)"):
        estimator(*sample())


# Distances


def assembled(z, tolerance):
    """All squared distances, from the tiles."""
    found = torch.full((len(z), len(z)), torch.nan, dtype=torch.float64)
    for i, j, tile in squared_distances(z, tolerance):
        assert found[i, j].isnan().all()  # each tile once
        found[j, i], found[i, j] = tile.T, tile
    return found


@pytest.mark.parametrize("tolerance", [0.0, 1e-9, 1e3])
@pytest.mark.parametrize("n", [2, 1023, 1024, 1025, 2100])
def test_tiles_cover_every_pair_to_the_tolerance_and_the_diagonal_is_zero(n, tolerance):
    z = normal(n, 2) + 1e3 * (torch.arange(n) % 2)[:, None]
    squares = (z[:, None] - z).square().sum(-1)
    found = assembled(z, tolerance)
    assert not found.diagonal().any()
    assert (found >= 0).all()
    rounding = 1e-12 * (squares + squares.sqrt())  # of coordinates about 1000
    assert ((found - squares).abs() <= tolerance + rounding).all()


def test_no_square_is_negative_where_rounding_would_make_it():
    """Copies far from the middle: their product of matrices alone falls to either side of 0."""
    z = (1e3 * normal(100, 5)).repeat(4, 1)
    found = assembled(z, 1.0)
    assert found.min() == 0
    assert 0 < found.diagonal(100).max() < 1e-6


@pytest.mark.parametrize("far", [0.0, 1e5, 1e15])
def test_shifted_squares_are_exact_relative_to_the_own_sample(far):
    """‖a + ε − b‖² − ‖ε‖² of whole numbers and quarters, which float64 holds."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(-9, 9, (40, 3), generator=generator).double() + far
    shift = torch.randint(-9, 9, (40, 3), generator=generator).double() / 4
    apart = (z[:, None] - far) - (z - far)
    expected = (apart + shift[:, None]).square().sum(2) - shift.square().sum(1, keepdim=True)
    for tolerance in (0.0, 1e-6):
        found = SquaredDistances(z, z, torch.arange(40), tolerance, shift)
        assert torch.allclose(found(slice(0, 40), slice(0, 40)), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_without_tolerance_equal_rows_are_at_no_distance(case):
    z = CASES[case][0][:50].repeat(2, 1)
    found = assembled(z, 0.0)
    assert not found.diagonal(len(z) // 2).any()


# Binning


def plug_in(bins, y):
    """I(X;T) and I(T;Y) in bits of whole numbers T, by counting rows."""

    def entropy(rows):
        share = np.unique(rows, axis=0, return_counts=True)[1] / len(rows)
        return -(share * np.log2(share)).sum()

    y = y.numpy()[:, None]
    h_t = entropy(bins)
    return {"Binning": (h_t, h_t + entropy(y) - entropy(np.hstack([bins, y])))}


@given(samples(), st.integers(2, 40))
def test_bins_between_edges_are_those_of_numpy(data, edges):
    z, y = data
    bins = np.digitize(z.numpy(), np.linspace(-1, 1, edges))
    clear = np.abs(z.numpy()[..., None] - np.linspace(-1, 1, edges)).min(-1)
    inner = np.abs(z.numpy()) < 1
    assume(not (clear[inner] < 1e-12).any())  # the two libraries may round inner edges apart
    assert_same(Binning(edges=edges)(z, y), plug_in(bins, y))


@given(samples(), st.floats(1e-4, 3))
def test_bins_of_one_width_are_those_of_numpy(data, width):
    z, y = data
    assert_same(Binning(width=width)(z, y), plug_in(np.floor(z.numpy() / width), y))


@given(samples())
def test_binned_information_about_the_label_is_never_negative(data):
    for estimator in (Binning(), Binning(width=0.3)):
        assert estimator(*data)["Binning"].i_zy >= -EXACT


@pytest.mark.parametrize("estimator", [Binning(), Binning(edges=3), Binning(width=0.5)], ids=str)
def test_784_dimensions_are_binned_exactly(estimator):
    z = torch.tanh(2 * normal(200, 784)).float()
    z = torch.cat([z, z[:50], z[:50]])
    z[-50:, 783] = -z[-50:, 783]  # differs from its twin in the last dimension alone
    y = torch.arange(300) % 7
    bins = (
        np.digitize(z.numpy(), np.linspace(-1, 1, estimator.edges))
        if estimator.width is None
        else np.floor(z.double().numpy() / estimator.width)
    )
    assert_same(estimator(z, y), plug_in(bins, y))


@given(
    hnp.arrays(
        np.int64,
        st.tuples(st.integers(2, 12), st.integers(1, 40)),
        elements=st.integers(-(2**45), 2**45) | st.integers(-2, 2),
    ),
    st.sampled_from([0.5, 1.0, 2.0**-7]),
)
def test_bins_far_apart_in_many_dimensions_are_never_confused(bins, width):
    z, y = torch.from_numpy((bins + 0.5) * width), torch.arange(len(bins)) % 2
    assert_same(Binning(width=width)(z, y), plug_in(bins, y))


@pytest.mark.parametrize("estimator", [Binning(edges=3), Binning(width=0.5)], ids=str)
def test_any_one_of_200_dimensions_tells_two_samples_apart(estimator):
    z = torch.cat([torch.eye(200), torch.zeros(1, 200)]) - 0.5
    found = estimator(z, torch.arange(201) % 2)["Binning"]
    assert found.i_xz == pytest.approx(math.log2(201), abs=EXACT)


def test_the_default_is_30_edges_on_minus_one_to_one():
    assert Binning() == Binning(edges=30, low=-1.0, high=1.0)
    z = torch.linspace(-1, 1, 30, dtype=torch.float64)[:-1] + 0.5 * 2 / 29  # middle of each bin
    y = torch.arange(29) % 2
    assert Binning()(z, y)["Binning"].i_xz == pytest.approx(math.log2(29), abs=EXACT)
    z_again = torch.cat([z - 0.01, z, z + 0.01])
    assert Binning()(z_again, y.repeat(3))["Binning"].i_xz == pytest.approx(math.log2(29))


def test_values_of_one_bin_are_one_value():
    z = torch.tensor([0.01, 0.06, 0.08, 0.13, -0.01, -0.06])
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    found = Binning(width=0.07)(z, y)["Binning"]
    assert found[:2] == pytest.approx((math.log2(3), 0), abs=EXACT)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_the_outer_edges_are_inside(value):
    z = torch.tensor([0.0, value, value])
    found = Binning(edges=2)(z, torch.tensor([0, 1, 1]))["Binning"]
    assert found.i_xz <= math.log2(2)


@pytest.mark.parametrize("value", [-1.001, 1.001, 30.0])
def test_values_outside_the_edges_are_refused_with_the_range(value):
    with pytest.raises(ValueError, match=r"outside the bins \[-1\.0, 1\.0\]") as error:
        Binning()(torch.tensor([0.0, 0.5, value]), torch.tensor([0, 1, 1]))
    assert f"{value:.3g}" in str(error.value)


def test_a_width_has_no_limits():
    z = torch.tensor([-1e6, 0.0, 1e6])
    found = Binning(width=0.5)(z, torch.tensor([0, 1, 1]))["Binning"]
    assert found.i_xz == pytest.approx(math.log2(3), abs=EXACT)


@pytest.mark.parametrize("width", [1e-2, 1e-8, 1e-16, 1e-25, 1e-300])
def test_as_bins_shrink_the_estimate_goes_to_log2_n(width):
    z = torch.linspace(-0.9, 1, 64, dtype=torch.float64)
    found = Binning(width=width)(z, torch.arange(64) % 2)["Binning"]
    assert found[:2] == pytest.approx((6, 1), abs=EXACT)


@pytest.mark.parametrize("width", [1e-300, 5e-324, 1e-17, 1e-14])
@pytest.mark.parametrize("scale", [1.0, 1e10, 1e300])
def test_values_too_large_for_whole_numbers_of_bins_are_told_apart(width, scale):
    """Neighbouring floats, of which a quotient would confuse some, and −0, which is 0."""
    ladder = 1.0 + torch.arange(50, dtype=torch.float64) * 2.0**-52
    z = torch.cat([scale * ladder, -scale * ladder, torch.tensor([0.0, -0.0])])
    apart = max(width / (scale * 2.0**-52), 1.0)  # steps of the ladder in one bin
    found = Binning(width=width)(z, torch.arange(102) % 2)["Binning"]
    if apart == 1.0:
        assert found.i_xz == pytest.approx(math.log2(102) - 2 / 102, abs=1e-9)
    else:
        assert found.i_xz < math.log2(102) - 1


def test_huge_values_keep_their_order_apart():
    z = torch.tensor([1e25, 2e25, 3e25, -1e25])
    found = Binning(width=0.07)(z, torch.tensor([0, 1, 0, 1]))["Binning"]
    assert found[:2] == pytest.approx((2, 1), abs=EXACT)


def test_the_share_of_singletons_is_that_of_the_occupied_bins():
    z = torch.tensor([0.1, 0.2, 1.1, 2.1, 3.1, 3.2, 3.3])  # bins 0, 0, 1, 2, 3, 3, 3

    def share(z, width):
        return Binning(width=width)(z, torch.arange(7) % 2)["Binning"].singleton_share

    assert share(z, 1.0) == pytest.approx(2 / 4)
    assert share(z, 10.0) == 0
    assert share(z, 1e-3) == 1
    assert share(z.reshape(7, 1, 1).expand(7, 2, 3), 1.0) == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"edges": 1}, {"edges": 0}, {"edges": -5}, {"low": 1.0}, {"low": 2.0}, {"high": -1.0},
        {"low": math.nan}, {"high": math.nan}, {"high": math.inf}, {"low": -math.inf},
        {"low": -1e308, "high": 1e308},
        {"width": 0.0}, {"width": -0.1}, {"width": math.nan}, {"width": math.inf},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_bins_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Binning(**bad)
